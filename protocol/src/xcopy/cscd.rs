//! CSCD descriptors: who the copy sources and copy destinations of a list are.
//!
//! Does not find the device that a designator names. Follows SPC-4, "CSCD descriptors".

mod ip;

use std::fmt;

use super::CSCD_LENGTH;
use super::rod::RodCscd;
use super::segment::TakenBy::{self, Disks, Everybody, Nobody};
use crate::scsi::DeviceType;
use crate::wire::U24;

pub use ip::{COPY_SERVICE, EXTENSION, IPV4, IPV6, IscsiUnit, ServedUnit};

/// A CSCD descriptor id of a segment descriptor. SPC-4, table "CSCD descriptor ID values".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CscdId(pub u16);

impl CscdId {
    /// A null logical unit of device type 00h: no command can be sent to it.
    pub const NULL_BLOCK: Self = Self(0xC000);
    /// A null logical unit of device type 01h.
    pub const NULL_STREAM: Self = Self(0xC001);
    /// As ROD PRODUCER CSCD DESCRIPTOR ID: the copy manager that the token itself names.
    pub const ROD: Self = Self(0xF800);
    /// The logical unit that the command was sent to.
    pub const THIS_LUN: Self = Self(0xFFFF);

    /// Ids above 07FFh that copy managers of logical units of this type take, ascending, as VPD page 8Fh lists them.
    #[must_use]
    pub const fn special(manager: DeviceType) -> &'static [Self] {
        match manager {
            DeviceType::Disk => &[Self::NULL_BLOCK, Self::NULL_STREAM, Self::ROD, Self::THIS_LUN],
            _ => &[Self::NULL_BLOCK, Self::NULL_STREAM, Self::THIS_LUN],
        }
    }

    /// Position in the CSCD descriptor list; `None` for the special and the reserved ids.
    #[must_use]
    pub const fn index(self) -> Option<usize> {
        if self.0 <= 0x07FF { Some(self.0 as usize) } else { None }
    }
}

/// One row per CSCD descriptor type.
#[derive(Debug)]
pub struct CscdType {
    /// DESCRIPTOR TYPE CODE.
    pub code: u8,
    /// The standard's name.
    pub name: &'static str,
    /// Copy managers that take it.
    pub taken_by: TakenBy,
}

const fn row(code: u8, name: &'static str, taken_by: TakenBy) -> CscdType {
    CscdType { code, name, taken_by }
}

/// DESCRIPTOR TYPE CODE of the identification descriptor.
pub const IDENTIFICATION: u8 = 0xE4;

/// SPC-4, table "EXTENDED COPY CSCD descriptor type codes".
pub const CSCD_TYPES: &[CscdType] = &[
    row(0xE0, "Fibre Channel N_Port_Name", Nobody),
    row(0xE1, "Fibre Channel N_Port_ID", Nobody),
    row(0xE2, "Fibre Channel N_Port_ID with N_Port_Name checking", Nobody),
    row(0xE3, "parallel interface T_L", Nobody),
    row(IDENTIFICATION, "identification descriptor", Everybody),
    row(IPV4, "iSCSI IPv4", Everybody),
    row(0xE6, "alias", Nobody),
    row(0xE7, "RDMA", Nobody),
    row(0xE8, "IEEE 1394 EUI-64", Nobody),
    row(0xE9, "SAS serial SCSI protocol", Nobody),
    row(IPV6, "iSCSI IPv6", Everybody),
    row(COPY_SERVICE, "IP copy service", Everybody),
    row(RodCscd::CODE, "ROD", Disks),
    row(EXTENSION, "CSCD descriptor extension", Nobody),
];

/// Bytes of a descriptor with its extensions, by its DESCRIPTOR TYPE CODE.
#[must_use]
pub const fn length_of(code: u8) -> usize {
    match code {
        IPV6 | COPY_SERVICE => ip::EXTENDED_LENGTH,
        _ => CSCD_LENGTH,
    }
}

/// One copy source or copy destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CscdDescriptor {
    /// LU ID TYPE; ignored where the name holds no LU IDENTIFIER, and written back as it came.
    pub lu_id_type: u8,
    /// RELATIVE INITIATOR PORT IDENTIFIER; ignored for logical units of the copy manager's own target, and no field of EBh.
    pub relative_initiator_port: u16,
    /// Which device it is.
    pub name: CscdName,
    /// PERIPHERAL DEVICE TYPE and what the list says of such a device.
    pub parameters: CscdParameters,
}

/// How a descriptor names its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CscdName {
    /// E4h: a logical unit by one of the designators in its VPD page 83h.
    Designator(Designator),
    /// E5h, EAh: a logical unit of an iSCSI target.
    Iscsi(IscsiUnit),
    /// EBh: a logical unit that a copy service finds.
    Served(ServedUnit),
    /// FEh: a ROD. Where its type is that of a token, PERIPHERAL DEVICE TYPE is ignored, and reads as 00h.
    Rod(RodCscd),
}

/// What is wrong with a CSCD descriptor of a type that has a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CscdFault {
    /// INVALID FIELD IN PARAMETER LIST at this byte of it.
    Field(usize),
    /// A ROD of another copy manager.
    RemoteRod,
}

impl From<usize> for CscdFault {
    fn from(byte: usize) -> Self {
        Self::Field(byte)
    }
}

impl CscdName {
    /// DESCRIPTOR TYPE CODE.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Designator(_) => IDENTIFICATION,
            Self::Iscsi(unit) => unit.code(),
            Self::Served(_) => COPY_SERVICE,
            Self::Rod(_) => RodCscd::CODE,
        }
    }
}

impl CscdDescriptor {
    /// A disk. `block_length` 0 lets the copy manager find it out.
    #[must_use]
    pub const fn disk(designator: Designator, block_length: u32) -> Self {
        Self::new(designator, CscdParameters::Block { device_type: 0x00, pad: false, block_length })
    }

    /// A tape with variable-length records: each is as long as the segment's STREAM DEVICE TRANSFER LENGTH.
    #[must_use]
    pub const fn tape(designator: Designator) -> Self {
        Self::new(designator, CscdParameters::Tape { pad: false, fixed: false, block_length: 0 })
    }

    /// Any device with a designator.
    #[must_use]
    pub const fn new(designator: Designator, parameters: CscdParameters) -> Self {
        Self::named(CscdName::Designator(designator), parameters)
    }

    /// A ROD, of blocks as long as they are.
    #[must_use]
    pub const fn rod(rod: RodCscd) -> Self {
        Self::named(CscdName::Rod(rod), CscdParameters::Block { device_type: 0x00, pad: false, block_length: 0 })
    }

    /// Any device.
    #[must_use]
    pub const fn named(name: CscdName, parameters: CscdParameters) -> Self {
        Self { lu_id_type: 0, relative_initiator_port: 0, name, parameters }
    }

    /// Bytes with extensions.
    #[must_use]
    pub const fn length(&self) -> usize {
        length_of(self.name.code())
    }

    /// The same device with PAD set.
    #[must_use]
    pub const fn padded(mut self) -> Self {
        match &mut self.parameters {
            CscdParameters::Block { pad, .. } | CscdParameters::Tape { pad, .. } | CscdParameters::Processor { pad } => {
                *pad = true
            }
        }
        self
    }

    /// Reads a descriptor with its extensions: of a type that has a row, and as long as it says. On failure gives the offset of the
    /// byte at fault.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CscdFault> {
        let head: &[u8; CSCD_LENGTH] = bytes.first_chunk().ok_or(0_usize)?;
        let whole = || bytes.first_chunk::<{ ip::EXTENDED_LENGTH }>().ok_or(0_usize);
        let name = match head[0] {
            IPV4 => CscdName::Iscsi(IscsiUnit::parse_ipv4(head)?),
            IPV6 => CscdName::Iscsi(IscsiUnit::parse_ipv6(whole()?)?),
            COPY_SERVICE => CscdName::Served(ServedUnit::parse(whole()?)?),
            RodCscd::CODE => CscdName::Rod(RodCscd::parse(head)?),
            _ => CscdName::Designator(Designator::parse(head)?),
        };
        let relative_initiator_port = match name {
            CscdName::Served(_) => 0,
            _ => u16::from_be_bytes([head[2], head[3]]),
        };
        let mut parameters = *head;
        if matches!(&name, CscdName::Rod(rod) if rod.kind.is_none()) {
            parameters[1] = 0x00;
        }
        let parameters = CscdParameters::parse(&parameters)?;
        Ok(Self { lu_id_type: head[1] >> 6, relative_initiator_port, name, parameters })
    }

    /// The bytes of the descriptor, with its extension where it has one.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length()];
        bytes[0] = self.name.code();
        bytes[1] = self.lu_id_type << 6 | self.parameters.device_type();
        bytes[2..4].copy_from_slice(&self.relative_initiator_port.to_be_bytes());
        match &self.name {
            CscdName::Designator(designator) => designator.emit(&mut bytes),
            CscdName::Iscsi(unit) => unit.emit(&mut bytes),
            CscdName::Served(unit) => unit.emit(&mut bytes),
            CscdName::Rod(rod) => rod.emit(&mut bytes),
        }
        let (pad, fixed, length) = match self.parameters {
            CscdParameters::Block { pad, block_length, .. } => (pad, false, block_length),
            CscdParameters::Tape { pad, fixed, block_length } => (pad, fixed, block_length),
            CscdParameters::Processor { pad } => (pad, false, 0),
        };
        bytes[28] = u8::from(pad) << 2 | u8::from(fixed);
        bytes[29..CSCD_LENGTH].copy_from_slice(&length.to_be_bytes()[1..]);
        bytes
    }
}

/// Device type specific parameters. SPC-4, "Device type specific CSCD descriptor parameters …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CscdParameters {
    /// Types 00h, 04h, 05h, 07h and 0Eh.
    Block {
        /// PERIPHERAL DEVICE TYPE.
        device_type: u8,
        /// PAD.
        pad: bool,
        /// DISK BLOCK LENGTH, 24 bits; 0 on type 00h: to be taken from the device.
        block_length: u32,
    },
    /// Type 01h.
    Tape {
        /// PAD.
        pad: bool,
        /// FIXED: each transfer is STREAM DEVICE TRANSFER LENGTH blocks of `block_length` bytes.
        fixed: bool,
        /// STREAM BLOCK LENGTH, 24 bits; 0 exactly when not `fixed`.
        block_length: u32,
    },
    /// Type 03h: no such device exists here.
    Processor {
        /// PAD.
        pad: bool,
    },
}

impl CscdParameters {
    /// From PERIPHERAL DEVICE TYPE and bytes 28 to 31. On failure gives the byte at fault.
    fn parse(bytes: &[u8; CSCD_LENGTH]) -> Result<Self, usize> {
        let pad = bytes[28] & 0x04 != 0;
        let block_length = U24([bytes[29], bytes[30], bytes[31]]).get();
        match bytes[1] & 0x1F {
            device_type @ (0x00 | 0x04 | 0x05 | 0x07 | 0x0E) => Ok(Self::Block { device_type, pad, block_length }),
            0x01 => {
                let fixed = bytes[28] & 0x01 != 0;
                // Table "Stream device transfer lengths": the two mixed cases are refused.
                if fixed != (block_length != 0) { Err(29) } else { Ok(Self::Tape { pad, fixed, block_length }) }
            }
            0x03 => Ok(Self::Processor { pad }),
            _ => Err(1),
        }
    }

    /// PERIPHERAL DEVICE TYPE.
    #[must_use]
    pub const fn device_type(&self) -> u8 {
        match self {
            Self::Block { device_type, .. } => *device_type,
            Self::Tape { .. } => DeviceType::Tape as u8,
            Self::Processor { .. } => 0x03,
        }
    }

    /// PAD.
    #[must_use]
    pub const fn pad(&self) -> bool {
        match self {
            Self::Block { pad, .. } | Self::Tape { pad, .. } | Self::Processor { pad } => *pad,
        }
    }
}

/// The fields of a designation descriptor that are compared. SPC-4, "Designation descriptor".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Designator {
    /// CODE SET: 1 binary, 2 ASCII, 3 UTF-8.
    pub code_set: u8,
    /// ASSOCIATION: 0 logical unit, 1 target port, 2 target device.
    pub association: u8,
    /// DESIGNATOR TYPE: 1 T10 vendor, 2 EUI-64, 3 NAA, 8 SCSI name string …
    pub designator_type: u8,
    /// DESIGNATOR.
    pub identifier: Identifier,
}

impl Designator {
    /// An NAA designator of 8 or 16 bytes. `None` when longer than a CSCD descriptor holds.
    #[must_use]
    pub fn naa(identifier: &[u8]) -> Option<Self> {
        Some(Self { code_set: 1, association: 0, designator_type: 3, identifier: Identifier::new(identifier)? })
    }

    /// Bytes 4 to 27 of an identification descriptor. On failure gives the byte at fault.
    fn parse(bytes: &[u8; CSCD_LENGTH]) -> Result<Self, usize> {
        let identifier = bytes[8..28].get(..usize::from(bytes[7])).and_then(Identifier::new).ok_or(7_usize)?;
        Ok(Self { code_set: bytes[4] & 0x0F, association: bytes[5] >> 4 & 0x03, designator_type: bytes[5] & 0x0F, identifier })
    }

    fn emit(&self, bytes: &mut [u8]) {
        let identifier = self.identifier.as_bytes();
        bytes[4] = self.code_set & 0x0F;
        bytes[5] = (self.association & 0x03) << 4 | self.designator_type & 0x0F;
        bytes[7] = identifier.len() as u8;
        bytes[8..8 + identifier.len()].copy_from_slice(identifier);
    }

    /// From the fields of a designation descriptor of VPD page 83h. `None` when longer than a CSCD descriptor holds.
    #[must_use]
    pub fn new(code_set: u8, association: u8, designator_type: u8, identifier: &[u8]) -> Option<Self> {
        Some(Self { code_set, association, designator_type, identifier: Identifier::new(identifier)? })
    }
}

/// DESIGNATOR of at most 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identifier {
    /// Zeros behind `len`.
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Identifier {
    /// What a CSCD descriptor has room for.
    pub const MAX: usize = 20;

    /// `None` when longer than [`Identifier::MAX`].
    #[must_use]
    pub fn new(identifier: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..identifier.len())?.copy_from_slice(identifier);
        Some(Self { bytes, len: identifier.len() as u8 })
    }

    /// The designator without padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
