//! What commands of sequential access devices return: block limits, positions, densities, and the parameters of the log pages.
//!
//! Where a field has no meaning here (partitions, buffers, sets), it is what SSC-4 says for "none". Follows SSC-4.

use super::log::binary_parameter;

/// READ BLOCK LIMITS: granularity 0, so any length between the two.
#[must_use]
pub fn block_limits(min: u16, max: u32) -> Vec<u8> {
    let mut data = max.to_be_bytes().to_vec();
    data[0] = 0;
    data.extend(min.to_be_bytes());
    data
}

/// Where a drive stands, as READ POSITION tells it. The position is always known, and nothing waits in a buffer: what was
/// accepted is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Logical objects in front.
    pub object: u64,
    /// Filemarks in front.
    pub file: u64,
    /// Behind the early-warning point.
    pub early_warning: bool,
}

const BOP: u8 = 0x80;
const EOP: u8 = 0x40;
const PERR: u8 = 0x02;

impl Position {
    const fn flags(&self) -> u8 {
        (if self.object == 0 { BOP } else { 0 }) | (if self.early_warning { EOP } else { 0 })
    }

    /// Short form. PERR where the object number does not fit its field.
    #[must_use]
    pub fn short(&self) -> Vec<u8> {
        let (object, error) = u32::try_from(self.object).map_or((u32::MAX, PERR), |object| (object, 0));
        let mut data = vec![self.flags() | error, 0, 0, 0];
        data.extend(object.to_be_bytes());
        data.extend(object.to_be_bytes());
        data.resize(20, 0);
        data
    }

    /// Long form.
    #[must_use]
    pub fn long(&self) -> Vec<u8> {
        let mut data = vec![self.flags(), 0, 0, 0, 0, 0, 0, 0];
        data.extend(self.object.to_be_bytes());
        data.extend(self.file.to_be_bytes());
        data.resize(32, 0);
        data
    }

    /// Extended form.
    #[must_use]
    pub fn extended(&self) -> Vec<u8> {
        let mut data = vec![self.flags(), 0, 0, 0x1C, 0, 0, 0, 0];
        data.extend(self.object.to_be_bytes());
        data.extend(self.object.to_be_bytes());
        data.resize(32, 0);
        data
    }
}

/// A density that media can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Density {
    /// PRIMARY DENSITY CODE.
    pub code: u8,
    /// Bytes a medium of it holds.
    pub capacity: u64,
    /// ASSIGNING ORGANIZATION, at most 8 characters.
    pub organization: &'static str,
    /// DENSITY NAME, at most 8 characters.
    pub name: &'static str,
    /// DESCRIPTION, at most 20 characters.
    pub description: &'static str,
}

/// REPORT DENSITY SUPPORT of densities that all can be written; the first is the default.
#[must_use]
pub fn density_support(densities: &[Density]) -> Vec<u8> {
    const WRTOK: u8 = 0x80;
    const DEFLT: u8 = 0x20;
    const MEGABYTE: u64 = 1_000_000;
    const HALF_INCH: u16 = 127;
    let mut data = vec![0, 0, 0, 0];
    for (n, density) in densities.iter().enumerate() {
        data.extend([density.code, density.code, WRTOK | if n == 0 { DEFLT } else { 0 }, 0, 0]);
        // BITS PER MM is unknown: a file has none.
        data.extend([0, 0, 0]);
        data.extend(HALF_INCH.to_be_bytes());
        data.extend(0u16.to_be_bytes());
        data.extend(u32::try_from(density.capacity / MEGABYTE).unwrap_or(u32::MAX).to_be_bytes());
        for (text, width) in [(density.organization, 8), (density.name, 8), (density.description, 20)] {
            data.extend(text.bytes().chain(std::iter::repeat(b' ')).take(width));
        }
    }
    let [high, low] = ((data.len() - 2) as u16).to_be_bytes();
    data[..2].copy_from_slice(&[high, low]);
    data
}

/// A log parameter that counts, in eight bytes, and is never saved.
#[must_use]
pub fn counter(code: u16, value: u64) -> Vec<u8> {
    const COUNTER: u8 = 0x00;
    let [high, low] = code.to_be_bytes();
    [&[high, low, COUNTER, 8][..], &value.to_be_bytes()].concat()
}

/// A parameter of the volume statistics page that tells one number for each partition, of which there is one, in MB.
#[must_use]
pub fn partition_record(code: u16, megabytes: u64) -> Vec<u8> {
    let value = u32::try_from(megabytes).unwrap_or(u32::MAX - 1).to_be_bytes();
    binary_parameter(code, &[&[7, 0, 0, 0][..], &value].concat())
}

/// TapeAlert flags 1 to 64 as log page 2Eh; `active` is a bit for each, flag 1 the lowest.
#[must_use]
pub fn tape_alert(active: u64) -> Vec<u8> {
    (1..=64).flat_map(|flag: u16| binary_parameter(flag, &[(active >> (flag - 1) & 1) as u8])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    #[test]
    fn positions_have_the_bytes_of_their_forms() {
        let position = Position { object: 0x0102_0304, file: 5, early_warning: true };
        assert_eq!(position.short(), hex("40 00 0000 01020304 01020304 00 000000 00000000"));
        assert_eq!(position.long(), hex("40 000000 00000000 0000000001020304 0000000000000005 0000000000000000"));
        assert_eq!(position.extended(), hex("40 00 001C 00 000000 0000000001020304 0000000001020304 0000000000000000"));
        let far = Position { object: 1 << 32, file: 0, early_warning: false };
        assert_eq!(far.short()[..8], hex("02 00 0000 FFFFFFFF")[..]);
        assert_eq!(Position { object: 0, ..position }.short()[0], 0xC0);
    }

    #[test]
    fn block_limits_are_three_and_two_bytes() {
        assert_eq!(block_limits(1, 0xFF_FFFF), hex("00 FFFFFF 0001"));
    }

    #[test]
    fn a_density_is_52_bytes() {
        let density =
            Density { code: 0x5E, capacity: 2_500_000_000_000, organization: "LTO-CVE", name: "U-832", description: "x" };
        let data = density_support(&[density]);
        assert_eq!(data.len(), 4 + 52);
        assert_eq!(data[..20], hex("0036 0000 5E 5E A0 0000 000000 007F 0000 002625A0")[..]);
        assert_eq!(&data[20..28], b"LTO-CVE ");
    }

    #[test]
    fn log_parameters_have_their_headers() {
        assert_eq!(counter(2, 3), hex("0002 00 08 0000000000000003"));
        assert_eq!(partition_record(0x202, 9), hex("0202 03 08 07 00 0000 00000009"));
        let alerts = tape_alert(1 << 4);
        assert_eq!((alerts.len(), &alerts[20..25]), (320, &hex("0005 03 01 01")[..]));
    }
}
