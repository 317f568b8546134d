//! Designation descriptors: the names a device is known by.
//!
//! Used by VPD page 83h, by CSCD descriptors (E4h) and by whoever compares the two. Does not make names up: that is the
//! target's business. Follows SPC-4, "Designation descriptor" and "Device Identification VPD page".

use serde::{Deserialize, Serialize};
use std::fmt;

/// CODE SET: how the bytes of a designator are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum CodeSet {
    Binary = 0x1,
    Ascii = 0x2,
    Utf8 = 0x3,
}

/// ASSOCIATION: what a designator names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Association {
    LogicalUnit = 0,
    TargetPort = 1,
    TargetDevice = 2,
}

/// DESIGNATOR TYPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum DesignatorType {
    VendorSpecific = 0x0,
    T10VendorId = 0x1,
    Eui64 = 0x2,
    Naa = 0x3,
    RelativeTargetPort = 0x4,
    TargetPortGroup = 0x5,
    LogicalUnitGroup = 0x6,
    Md5LogicalUnit = 0x7,
    ScsiNameString = 0x8,
    ProtocolSpecificPort = 0x9,
}

/// One name. Two are the same name when code set, type, association and bytes are equal; PROTOCOL IDENTIFIER plays no part.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Designator {
    /// How the bytes are written.
    pub code_set: CodeSet,
    /// What is named.
    pub association: Association,
    /// What kind of name it is.
    pub kind: DesignatorType,
    /// The name.
    pub bytes: Vec<u8>,
}

/// PROTOCOL IDENTIFIER of iSCSI. SPC-4, "Protocol specific parameters".
const ISCSI: u8 = 0x5;

impl Designator {
    /// Longest designator a descriptor's length byte can tell.
    pub const LENGTH_MAX: usize = 255;

    /// NAA of the logical unit.
    #[must_use]
    pub fn naa(naa: &[u8]) -> Self {
        Self::of_logical_unit(CodeSet::Binary, DesignatorType::Naa, naa)
    }

    /// T10 vendor identification: `vendor` padded to eight bytes, then what the vendor makes unique.
    #[must_use]
    pub fn t10_vendor_id(vendor: &str, unique: &str) -> Self {
        Self::of_logical_unit(CodeSet::Ascii, DesignatorType::T10VendorId, format!("{vendor:<8.8}{unique}").as_bytes())
    }

    fn of_logical_unit(code_set: CodeSet, kind: DesignatorType, bytes: &[u8]) -> Self {
        Self { code_set, association: Association::LogicalUnit, kind, bytes: bytes.to_vec() }
    }

    /// Relative target port identifier.
    #[must_use]
    pub fn relative_target_port(identifier: u16) -> Self {
        let [high, low] = identifier.to_be_bytes();
        Self {
            code_set: CodeSet::Binary,
            association: Association::TargetPort,
            kind: DesignatorType::RelativeTargetPort,
            bytes: vec![0, 0, high, low],
        }
    }

    /// Target port group.
    #[must_use]
    pub fn target_port_group(group: u16) -> Self {
        Self { kind: DesignatorType::TargetPortGroup, ..Self::relative_target_port(group) }
    }

    /// SCSI name string: UTF-8, ended by a zero and padded with zeros to a multiple of four.
    #[must_use]
    pub fn name_string(association: Association, name: &str) -> Self {
        let mut bytes = name.as_bytes().to_vec();
        bytes.truncate(Self::LENGTH_MAX / 4 * 4 - 1);
        bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
        Self { code_set: CodeSet::Utf8, association, kind: DesignatorType::ScsiNameString, bytes }
    }

    /// The descriptor with its four bytes of header, as VPD page 83h has it. PIV is set for ports and devices: they are iSCSI's.
    ///
    /// # Panics
    /// When there are more than [`Designator::LENGTH_MAX`] bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let length = u8::try_from(self.bytes.len()).expect("a designator fits its length byte");
        let (protocol, valid) = match self.association {
            Association::LogicalUnit => (0, 0),
            Association::TargetPort | Association::TargetDevice => (ISCSI << 4, 0x80),
        };
        let header = [protocol | self.code_set as u8, valid | (self.association as u8) << 4 | self.kind as u8, 0, length];
        [&header[..], &self.bytes].concat()
    }

    /// From a descriptor's header and the bytes behind it, as VPD page 83h and CSCD descriptor E4h carry them.
    /// `None` for codes that the standard reserves, and where the length goes beyond `descriptor`.
    #[must_use]
    pub fn parse(descriptor: &[u8]) -> Option<Self> {
        let [code_set, kind, _, length, rest @ ..] = descriptor else { return None };
        Some(Self {
            code_set: code_set_of(code_set & 0x0F)?,
            association: association_of(kind >> 4 & 0x03)?,
            kind: type_of(kind & 0x0F)?,
            bytes: rest.get(..usize::from(*length))?.to_vec(),
        })
    }

    /// All descriptors of a VPD page 83h's body; those of a reserved kind are passed over.
    #[must_use]
    pub fn list(mut body: &[u8]) -> Vec<Self> {
        let mut found = Vec::new();
        while let [_, _, _, length, ..] = body {
            found.extend(Self::parse(body));
            body = body.get(4 + usize::from(*length)..).unwrap_or_default();
        }
        found
    }
}

impl fmt::Display for Designator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DesignatorType::VendorSpecific => "vendor",
            DesignatorType::T10VendorId => "t10",
            DesignatorType::Eui64 => "eui",
            DesignatorType::Naa => "naa",
            DesignatorType::RelativeTargetPort => "port",
            DesignatorType::TargetPortGroup => "port-group",
            DesignatorType::LogicalUnitGroup => "lun-group",
            DesignatorType::Md5LogicalUnit => "md5",
            DesignatorType::ScsiNameString => "name",
            DesignatorType::ProtocolSpecificPort => "protocol-port",
        };
        write!(f, "{kind}.")?;
        match self.code_set {
            CodeSet::Binary => self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            CodeSet::Ascii | CodeSet::Utf8 => f.write_str(String::from_utf8_lossy(&self.bytes).trim_end_matches(['\0', ' '])),
        }
    }
}

const fn code_set_of(code: u8) -> Option<CodeSet> {
    Some(match code {
        0x1 => CodeSet::Binary,
        0x2 => CodeSet::Ascii,
        0x3 => CodeSet::Utf8,
        _ => return None,
    })
}

const fn association_of(code: u8) -> Option<Association> {
    Some(match code {
        0 => Association::LogicalUnit,
        1 => Association::TargetPort,
        2 => Association::TargetDevice,
        _ => return None,
    })
}

const fn type_of(code: u8) -> Option<DesignatorType> {
    Some(match code {
        0x0 => DesignatorType::VendorSpecific,
        0x1 => DesignatorType::T10VendorId,
        0x2 => DesignatorType::Eui64,
        0x3 => DesignatorType::Naa,
        0x4 => DesignatorType::RelativeTargetPort,
        0x5 => DesignatorType::TargetPortGroup,
        0x6 => DesignatorType::LogicalUnitGroup,
        0x7 => DesignatorType::Md5LogicalUnit,
        0x8 => DesignatorType::ScsiNameString,
        0x9 => DesignatorType::ProtocolSpecificPort,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;
    use proptest::prelude::*;

    #[test]
    fn an_naa_designator_reads_and_writes_the_same_bytes() {
        let golden = hex("01 03 00 10  6024f46a 00112233 44556677 8899aabb");
        let designator = Designator::naa(&golden[4..]);
        assert_eq!(designator.emit(), golden);
        assert_eq!(Designator::parse(&golden), Some(designator));
    }

    #[test]
    fn a_name_string_ends_in_a_zero_and_is_padded() {
        let golden = hex("53 a8 00 08  69716e2e 612e6200");
        let designator = Designator::name_string(Association::TargetDevice, "iqn.a.b");
        assert_eq!(designator.emit(), golden);
        assert_eq!(Designator::list(&golden), [designator]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Designator::list(&bytes);
        }
    }
}
