//! CSCD descriptors with an IP address: a logical unit behind an iSCSI portal (E5h, EAh), or one that a copy service finds (EBh).
//!
//! Says where a device is to be looked for, and not whether it may be: that is the configuration's business. Follows SPC-4, "iSCSI
//! IPv4 CSCD descriptor format", "iSCSI IPv6 CSCD descriptor format" and "IP Copy Service CSCD descriptor".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::CSCD_LENGTH;
use super::{Designator, Identifier};
use crate::scsi::LunAddress;

/// DESCRIPTOR TYPE CODE of the iSCSI IPv4 descriptor.
pub const IPV4: u8 = 0xE5;
/// DESCRIPTOR TYPE CODE of the iSCSI IPv6 descriptor.
pub const IPV6: u8 = 0xEA;
/// DESCRIPTOR TYPE CODE of the IP copy service descriptor.
pub const COPY_SERVICE: u8 = 0xEB;
/// EXTENSION DESCRIPTOR TYPE CODE, with which the second 32 bytes of EAh and EBh begin.
pub const EXTENSION: u8 = 0xFF;
/// Bytes of EAh and EBh with their extension.
pub const EXTENDED_LENGTH: usize = 2 * CSCD_LENGTH;

/// INTERNET PROTOCOL NUMBER: no other carries iSCSI.
const TCP: u16 = 6;

/// A logical unit of whichever iSCSI target answers at a portal (E5h, EAh). The descriptor has no room for the target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IscsiUnit {
    /// IPV4 ADDRESS or IPV6 ADDRESS, and PORT NUMBER.
    pub portal: SocketAddr,
    /// LU IDENTIFIER, which is a logical unit number: LU ID TYPE 00b.
    pub lun: LunAddress,
}

/// A logical unit with a designator, to be asked for at a copy service (EBh).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedUnit {
    /// COPY SERVICE IP ADDRESS and COPY SERVICE PORT NUMBER.
    pub service: SocketAddr,
    /// Compared with the designators that the logical unit reports.
    pub designator: Designator,
}

impl IscsiUnit {
    /// DESCRIPTOR TYPE CODE.
    #[must_use]
    pub const fn code(&self) -> u8 {
        if self.portal.is_ipv4() { IPV4 } else { IPV6 }
    }

    /// On failure gives the offset of the byte at fault.
    pub(super) fn parse_ipv4(bytes: &[u8; CSCD_LENGTH]) -> Result<Self, usize> {
        let lun = lun(bytes)?;
        let [a, b, c, d] = [bytes[12], bytes[13], bytes[14], bytes[15]];
        let port = tcp_port(bytes, 22, 26)?;
        Ok(Self { portal: SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port), lun })
    }

    /// As [`IscsiUnit::parse_ipv4`].
    pub(super) fn parse_ipv6(bytes: &[u8; EXTENDED_LENGTH]) -> Result<Self, usize> {
        let lun = lun(bytes)?;
        let port = tcp_port(bytes, 34, 36)?;
        Ok(Self { portal: SocketAddr::new(ipv6(bytes).into(), port), lun })
    }

    pub(super) fn emit(&self, bytes: &mut [u8]) {
        bytes[4..12].copy_from_slice(&self.lun.0);
        let port = self.portal.port().to_be_bytes();
        match self.portal.ip() {
            IpAddr::V4(address) => {
                bytes[12..16].copy_from_slice(&address.octets());
                bytes[22..24].copy_from_slice(&port);
                bytes[26..28].copy_from_slice(&TCP.to_be_bytes());
            }
            IpAddr::V6(address) => {
                bytes[12..28].copy_from_slice(&address.octets());
                extend(bytes, port);
            }
        }
    }
}

impl ServedUnit {
    /// As [`IscsiUnit::parse_ipv4`].
    pub(super) fn parse(bytes: &[u8; EXTENDED_LENGTH]) -> Result<Self, usize> {
        let address = match bytes[2] & 0x01 {
            0 => IpAddr::V4(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15])),
            _ => IpAddr::V6(ipv6(bytes)),
        };
        let port = tcp_port(bytes, 34, 36)?;
        // Table "IP Copy Service CSCD descriptor format": nothing stands between the protocol number and CODE SET, from which on the
        // fields are those of the identification descriptor (E4h). DESIGNATOR has room up to byte 63, and 20 bytes at most.
        let identifier = bytes[42..].get(..usize::from(bytes[41])).and_then(Identifier::new).ok_or(41_usize)?;
        let designator = Designator {
            code_set: bytes[38] & 0x0F,
            association: bytes[39] >> 4 & 0x03,
            designator_type: bytes[39] & 0x0F,
            identifier,
        };
        Ok(Self { service: SocketAddr::new(address, port), designator })
    }

    pub(super) fn emit(&self, bytes: &mut [u8]) {
        match self.service.ip() {
            IpAddr::V4(address) => bytes[12..16].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => {
                bytes[2] = 0x01;
                bytes[12..28].copy_from_slice(&address.octets());
            }
        }
        extend(bytes, self.service.port().to_be_bytes());
        let identifier = self.designator.identifier.as_bytes();
        bytes[38] = self.designator.code_set & 0x0F;
        bytes[39] = (self.designator.association & 0x03) << 4 | self.designator.designator_type & 0x0F;
        bytes[41] = identifier.len() as u8;
        bytes[42..42 + identifier.len()].copy_from_slice(identifier);
    }
}

/// LU IDENTIFIER. A proxy token (LU ID TYPE 01b) is none: access controls are not supported.
fn lun(bytes: &[u8]) -> Result<LunAddress, usize> {
    if bytes[1] >> 6 != 0 {
        return Err(1);
    }
    Ok(LunAddress(*bytes[4..].first_chunk().ok_or(4_usize)?))
}

fn ipv6(bytes: &[u8; EXTENDED_LENGTH]) -> Ipv6Addr {
    Ipv6Addr::from(*bytes[12..].first_chunk::<16>().expect("16 of 64 bytes"))
}

/// The port at `port`, when the INTERNET PROTOCOL NUMBER at `protocol` is TCP's.
fn tcp_port(bytes: &[u8], port: usize, protocol: usize) -> Result<u16, usize> {
    let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    if half(protocol) == TCP { Ok(half(port)) } else { Err(protocol) }
}

fn extend(bytes: &mut [u8], port: [u8; 2]) {
    bytes[CSCD_LENGTH] = EXTENSION;
    bytes[34..36].copy_from_slice(&port);
    bytes[36..38].copy_from_slice(&TCP.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{CscdDescriptor, CscdFault, CscdName, CscdParameters};
    use super::*;
    use crate::wire::hex;

    fn disk(name: CscdName) -> CscdDescriptor {
        CscdDescriptor::named(name, CscdParameters::Block { device_type: 0, pad: false, block_length: 512 })
    }

    #[test]
    fn descriptors_with_an_address_read_and_write_the_same_bytes() {
        let iscsi = |portal: &str, lun| IscsiUnit { portal: portal.parse().unwrap(), lun: LunAddress::from_number(lun) };
        let designator = Designator::naa(&hex("6001405aabbccdd0 1122334455667788")).unwrap();
        let served = |service: &str| ServedUnit { service: service.parse().unwrap(), designator: designator.clone() };
        let golden = [
            (
                "e5 00 0000 0001000000000000 c0000207 000000000000 0cbc 0000 0006 00 000200",
                CscdName::Iscsi(iscsi("192.0.2.7:3260", 1)),
            ),
            (
                "ea 00 0000 4101000000000000 20010db8000000000000000000000007 00 000200
                 ff 00 0cbc 0006 0000000000000000000000000000000000000000000000000000",
                CscdName::Iscsi(iscsi("[2001:db8::7]:3260", 0x101)),
            ),
            (
                "eb 00 00 000000000000000000 c0000207 000000000000000000000000 00 000200
                 ff 00 0cbc 0006 01 03 00 10 6001405aabbccdd01122334455667788 000000000000",
                CscdName::Served(served("192.0.2.7:3260")),
            ),
            (
                "eb 00 01 000000000000000000 20010db8000000000000000000000007 00 000200
                 ff 00 0cbc 0006 01 03 00 10 6001405aabbccdd01122334455667788 000000000000",
                CscdName::Served(served("[2001:db8::7]:3260")),
            ),
        ];
        for (text, name) in golden {
            let (bytes, descriptor) = (hex(text), disk(name));
            assert_eq!(descriptor.emit(), bytes, "{text}");
            assert_eq!(CscdDescriptor::parse(&bytes), Ok(descriptor), "{text}");
        }
    }

    #[test]
    fn what_is_no_tcp_or_no_logical_unit_number_is_pointed_at() {
        let unit = IscsiUnit { portal: "192.0.2.7:3260".parse().unwrap(), lun: LunAddress::from_number(1) };
        let refused = |at: usize, value: u8| {
            let mut bytes = disk(CscdName::Iscsi(unit)).emit();
            bytes[at] = value;
            CscdDescriptor::parse(&bytes).unwrap_err()
        };
        assert_eq!(refused(27, 17), CscdFault::Field(26), "UDP");
        assert_eq!(refused(1, 0x40), CscdFault::Field(1), "a proxy token");
        let long = ServedUnit { service: unit.portal, designator: Designator::naa(&[6; 16]).unwrap() };
        let mut bytes = disk(CscdName::Served(long)).emit();
        bytes[41] = 21;
        assert_eq!(CscdDescriptor::parse(&bytes), Err(CscdFault::Field(41)), "a designator of 21 bytes");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_or_come_back(code in prop_oneof![Just(IPV4), Just(IPV6), Just(COPY_SERVICE)],
                                                    mut bytes in proptest::collection::vec(any::<u8>(), EXTENDED_LENGTH)) {
            (bytes[0], bytes[CSCD_LENGTH]) = (code, EXTENSION);
            bytes.truncate(super::super::length_of(code));
            if let Ok(descriptor) = CscdDescriptor::parse(&bytes) {
                prop_assert_eq!(CscdDescriptor::parse(&descriptor.emit()), Ok(descriptor));
            }
        }
    }
}
