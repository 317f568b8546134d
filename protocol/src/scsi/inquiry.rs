//! INQUIRY data: the standard form and the frame of vital product data pages.
//!
//! Knows no device: what is claimed is handed in. Follows SPC-4, "INQUIRY command" and "Vital product data parameters".

use super::DeviceType;
use super::designator::Designator;
use super::sense::SENSE_LENGTH_MAX;

/// Standards that a device may claim to follow. SPC-4, "Version descriptor values".
pub mod version {
    /// SAM-5, no version claimed.
    pub const SAM_5: u16 = 0x00A0;
    /// SPC-4, no version claimed.
    pub const SPC_4: u16 = 0x0460;
    /// SBC-3, no version claimed.
    pub const SBC_3: u16 = 0x04C0;
    /// SSC-4, no version claimed.
    pub const SSC_4: u16 = 0x0520;
    /// SMC-3, no version claimed.
    pub const SMC_3: u16 = 0x0480;
    /// iSCSI, no version claimed.
    pub const ISCSI: u16 = 0x0960;
}

/// VPD pages that all device types have.
pub mod page {
    /// Supported VPD pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Unit serial number.
    pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
    /// Device identification.
    pub const DEVICE_IDENTIFICATION: u8 = 0x83;
    /// Extended INQUIRY data.
    pub const EXTENDED_INQUIRY: u8 = 0x86;
    /// Third-party copy.
    pub const THIRD_PARTY_COPY: u8 = 0x8F;
    /// Block limits. SBC-4.
    pub const BLOCK_LIMITS: u8 = 0xB0;
    /// Block device characteristics. SBC-4.
    pub const BLOCK_DEVICE_CHARACTERISTICS: u8 = 0xB1;
    /// Logical block provisioning. SBC-4.
    pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xB2;
}

/// Standard INQUIRY data of a logical unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandardInquiry<'a> {
    /// PERIPHERAL DEVICE TYPE; `None` where no logical unit is and none can be (qualifier 011b, type 1Fh).
    pub device_type: Option<DeviceType>,
    /// RMB.
    pub removable: bool,
    /// TPGS 01b: asymmetric access that the target alone decides on.
    pub implicit_asymmetric_access: bool,
    /// 3PC: third-party copy commands are served.
    pub third_party_copy: bool,
    /// T10 VENDOR IDENTIFICATION: what is longer than 8 is cut.
    pub vendor: &'a str,
    /// PRODUCT IDENTIFICATION: what is longer than 16 is cut.
    pub product: &'a str,
    /// PRODUCT REVISION LEVEL: what is longer than 4 is cut.
    pub revision: &'a str,
    /// At most eight.
    pub versions: &'a [u16],
}

/// Bytes of standard INQUIRY data up to the end of the version descriptors and what is reserved behind them.
const STANDARD_LENGTH: usize = 96;

impl StandardInquiry<'_> {
    /// The 96 bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        const SPC_4: u8 = 0x06;
        const HISUP_AND_FORMAT_2: u8 = 0x12;
        const TPGS: u8 = 0x10;
        const THIRD_PARTY_COPY: u8 = 0x08;
        const CMDQUE: u8 = 0x02;
        let mut data = vec![
            self.device_type.map_or(0x7F, |device_type| device_type as u8),
            if self.removable { 0x80 } else { 0 },
            SPC_4,
            HISUP_AND_FORMAT_2,
            (STANDARD_LENGTH - 5) as u8,
            if self.third_party_copy { THIRD_PARTY_COPY } else { 0 } | if self.implicit_asymmetric_access { TPGS } else { 0 },
            0,
            CMDQUE,
        ];
        data.extend(ascii::<8>(self.vendor));
        data.extend(ascii::<16>(self.product));
        data.extend(ascii::<4>(self.revision));
        data.resize(58, 0);
        data.extend(self.versions.iter().take(8).flat_map(|version| version.to_be_bytes()));
        data.resize(STANDARD_LENGTH, 0);
        data
    }
}

/// Left-aligned, padded with spaces, nothing but printable ASCII. SPC-4, "ASCII data field requirements".
#[must_use]
pub fn ascii<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = if from.is_ascii_graphic() || from == b' ' { from } else { b'?' };
    }
    field
}

/// A VPD page with its header.
///
/// # Panics
/// When the body does not fit PAGE LENGTH.
#[must_use]
pub fn vpd_page(device_type: DeviceType, page: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).expect("a VPD page fits its length").to_be_bytes();
    [&[device_type as u8, page, high, low], body].concat()
}

/// The body of VPD page 83h.
#[must_use]
pub fn device_identification(designators: &[Designator]) -> Vec<u8> {
    designators.iter().flat_map(Designator::emit).collect()
}

/// The body of VPD page 86h: simple tasks, a volatile cache, and how long sense data may be.
#[must_use]
pub fn extended_inquiry() -> Vec<u8> {
    const SIMPSUP: u8 = 0x01;
    const V_SUP: u8 = 0x01;
    const MAXIMUM_SUPPORTED_SENSE_DATA_LENGTH: usize = 13 - 4;
    let mut body = vec![0, SIMPSUP, V_SUP];
    body.resize(0x3C, 0);
    body[MAXIMUM_SUPPORTED_SENSE_DATA_LENGTH] = SENSE_LENGTH_MAX as u8;
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    #[test]
    fn standard_data_has_its_fields_at_their_bytes() {
        let inquiry = StandardInquiry {
            device_type: Some(DeviceType::Tape),
            removable: true,
            implicit_asymmetric_access: true,
            third_party_copy: true,
            vendor: "OFFHOST",
            product: "a product name that is too long",
            revision: "0.1",
            versions: &[version::SAM_5, version::SPC_4],
        };
        let data = inquiry.emit();
        assert_eq!(data.len(), 96);
        assert_eq!(data[..8], hex("01 80 06 12 5b 18 00 02")[..]);
        assert_eq!(&data[8..36], b"OFFHOST a product name t0.1 ");
        assert_eq!(data[58..64], hex("00a0 0460 0000")[..]);
    }

    #[test]
    fn a_page_tells_its_length_without_the_header() {
        assert_eq!(vpd_page(DeviceType::Disk, 0x80, b"0123"), hex("00 80 0004 30313233"));
    }
}
