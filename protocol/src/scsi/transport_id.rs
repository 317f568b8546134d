//! TransportIDs of iSCSI: how an initiator port is named inside SCSI data.
//!
//! Other transports' are refused, and names are not checked for more than their length. Follows SPC-4, "TransportID for initiator
//! ports using SCSI over iSCSI".

use serde::{Deserialize, Serialize};

use super::{FieldPointer, Sense};

/// An initiator port: the initiator's iSCSI name and the ISID of its session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InitiatorPort {
    /// iSCSI name.
    pub name: String,
    /// Initiator session id.
    pub isid: [u8; 6],
}

/// What a TransportID names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportId {
    /// FORMAT CODE 00b: all ports of the initiator of this name.
    Device(String),
    /// FORMAT CODE 01b: one port.
    Port(InitiatorPort),
}

/// PROTOCOL IDENTIFIER of iSCSI.
const ISCSI: u8 = 0x05;
const PORT_FORMAT: u8 = 0x40;
const SEPARATOR: &str = ",i,0x";
/// RFC 7143 (4.2.7.1): an iSCSI name has at most 223 bytes.
const NAME_MAX: usize = 223;
const HEADER: usize = 4;
const ADDITIONAL_LENGTH_MIN: usize = 20;

impl InitiatorPort {
    /// The TransportID of this port, with its header, in format 01b.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let isid: String = self.isid.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut text = format!("{}{SEPARATOR}{isid}", self.name).into_bytes();
        // One zero ends it, others pad it.
        text.resize((text.len() + 1).next_multiple_of(4).max(ADDITIONAL_LENGTH_MIN), 0);
        let [high, low] = u16::try_from(text.len()).expect("a name is short").to_be_bytes();
        [&[PORT_FORMAT | ISCSI, 0, high, low], &text[..]].concat()
    }
}

impl TransportId {
    /// Reads a list of TransportIDs that begins at byte `at` of a parameter list.
    ///
    /// # Errors
    /// INVALID FIELD IN PARAMETER LIST, with the byte, for one that is cut, of another transport, or no iSCSI name.
    pub fn list(mut list: &[u8], mut at: usize) -> Result<Vec<Self>, Sense> {
        let mut found = Vec::new();
        while !list.is_empty() {
            let (id, length) = Self::parse(list, at)?;
            found.push(id);
            list = &list[length..];
            at += length;
        }
        Ok(found)
    }

    /// One TransportID, and how many bytes it has.
    fn parse(bytes: &[u8], at: usize) -> Result<(Self, usize), Sense> {
        let invalid = |byte: usize| {
            let byte = u16::try_from(at + byte).unwrap_or(u16::MAX);
            Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(byte))
        };
        let [format, _, high, low, rest @ ..] = bytes else { return Err(invalid(0)) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if format & 0x0F != ISCSI {
            return Err(invalid(0));
        }
        let body = rest.get(..length).filter(|_| length >= ADDITIONAL_LENGTH_MIN && length.is_multiple_of(4));
        let body = body.ok_or_else(|| invalid(2))?;
        let text = body.split(|byte| *byte == 0).next().expect("split gives one part at least");
        let text = std::str::from_utf8(text).map_err(|_| invalid(HEADER))?;
        let id = match format >> 6 {
            0 => name_of(text).map(Self::Device),
            1 => port_of(text).map(Self::Port),
            _ => return Err(invalid(0)),
        };
        Ok((id.ok_or_else(|| invalid(HEADER))?, HEADER + length))
    }
}

fn name_of(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= NAME_MAX).then(|| text.to_owned())
}

fn port_of(text: &str) -> Option<InitiatorPort> {
    let (name, digits) = text.split_once(SEPARATOR)?;
    let hexadecimal = (1..=12).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let isid = hexadecimal.then(|| u64::from_str_radix(digits, 16).ok()).flatten()?;
    let mut bytes = [0; 6];
    bytes.copy_from_slice(&isid.to_be_bytes()[2..]);
    Some(InitiatorPort { name: name_of(name)?, isid: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;
    use proptest::prelude::*;

    #[test]
    fn a_port_reads_and_writes_the_same_bytes() {
        let port = InitiatorPort { name: "iqn.a:b".into(), isid: [0x00, 0x02, 0x3D, 0, 0, 1] };
        let golden = hex("45 00 001c  69716e2e613a62 2c692c3078 303030323364303030303031 00000000");
        assert_eq!(port.emit(), golden);
        assert_eq!(TransportId::list(&golden, 28), Ok(vec![TransportId::Port(port)]));
    }

    #[test]
    fn what_names_no_iscsi_port_is_refused_at_its_byte() {
        let refused = |text: &str| TransportId::list(&hex(text), 28).unwrap_err().field;
        assert_eq!(refused("06 00 0014 0000000000000000000000000000000000000000"), Some(FieldPointer::parameter(28)), "SAS");
        assert_eq!(refused("45 00 0014 6971"), Some(FieldPointer::parameter(30)), "cut");
        let nameless = "05 00 0014 0000000000000000000000000000000000000000";
        assert_eq!(refused(nameless), Some(FieldPointer::parameter(32)));
        let without_isid = "45 00 0014 69716e2e613a62 00000000000000000000000000";
        assert_eq!(refused(without_isid), Some(FieldPointer::parameter(32)));
    }

    #[test]
    fn a_name_alone_means_all_ports_of_the_initiator() {
        let list = hex("05 00 0014 69716e2e613a62 00000000000000000000000000");
        assert_eq!(TransportId::list(&list, 0), Ok(vec![TransportId::Device("iqn.a:b".into())]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..100_000) {
            let _ = TransportId::list(&bytes, at);
        }

        #[test]
        fn every_port_comes_back(name in "[a-z0-9.:-]{1,223}", isid: [u8; 6]) {
            let port = InitiatorPort { name, isid };
            let bytes = port.emit();
            prop_assert!(bytes.len().is_multiple_of(4));
            prop_assert_eq!(TransportId::list(&bytes, 0), Ok(vec![TransportId::Port(port)]));
        }
    }
}
