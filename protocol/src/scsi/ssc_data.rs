//! What commands of sequential access devices return: block limits, positions, densities, and the parameters of the log pages.
//!
//! Where a field has no meaning here (buffers, sets), it is what SSC-4 says for "none". Follows SSC-4.

use super::log::binary_parameter;

/// READ BLOCK LIMITS: granularity 0, so any length between the two.
#[must_use]
pub fn block_limits(min: u16, max: u32) -> Vec<u8> {
    let mut data = max.to_be_bytes().to_vec();
    data[0] = 0;
    data.extend(min.to_be_bytes());
    data
}

/// READ BLOCK LIMITS with MLOI: the largest logical object identifier that the drive can locate.
#[must_use]
pub fn maximum_identifier(identifier: u64) -> Vec<u8> {
    let mut data = vec![0; 12];
    data.extend(identifier.to_be_bytes());
    data
}

/// Where a drive stands, as READ POSITION tells it. The position is always known, and nothing waits in a buffer: what was
/// accepted is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// PARTITION NUMBER.
    pub partition: u8,
    /// Logical objects in front.
    pub object: u64,
    /// Filemarks in front.
    pub file: u64,
    /// Behind the early-warning point.
    pub early_warning: bool,
    /// Behind the programmable early-warning point.
    pub programmable_early_warning: bool,
}

const BOP: u8 = 0x80;
const EOP: u8 = 0x40;
const PERR: u8 = 0x02;
const BPEW: u8 = 0x01;

impl Position {
    const fn flags(&self) -> u8 {
        (if self.object == 0 { BOP } else { 0 })
            | (if self.early_warning { EOP } else { 0 })
            | (if self.programmable_early_warning { BPEW } else { 0 })
    }

    /// Short form. PERR where the object number does not fit its field.
    #[must_use]
    pub fn short(&self) -> Vec<u8> {
        let (object, error) = u32::try_from(self.object).map_or((u32::MAX, PERR), |object| (object, 0));
        let mut data = vec![self.flags() | error, self.partition, 0, 0];
        data.extend(object.to_be_bytes());
        data.extend(object.to_be_bytes());
        data.resize(20, 0);
        data
    }

    /// Long form.
    #[must_use]
    pub fn long(&self) -> Vec<u8> {
        let mut data = vec![self.flags(), 0, 0, 0, 0, 0, 0, self.partition];
        data.extend(self.object.to_be_bytes());
        data.extend(self.file.to_be_bytes());
        data.resize(32, 0);
        data
    }

    /// Extended form.
    #[must_use]
    pub fn extended(&self) -> Vec<u8> {
        let mut data = vec![self.flags(), self.partition, 0, 0x1C, 0, 0, 0, 0];
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
    /// It can be written, not only read.
    pub writable: bool,
    /// TRACKS.
    pub tracks: u16,
    /// Bytes a medium of it holds.
    pub capacity: u64,
    /// ASSIGNING ORGANIZATION, at most 8 characters.
    pub organization: &'static str,
    /// DENSITY NAME, at most 8 characters.
    pub name: &'static str,
    /// DESCRIPTION, at most 20 characters.
    pub description: &'static str,
}

/// REPORT DENSITY SUPPORT. Descriptors ascend by code; `default` is the one that is written unless another is chosen.
#[must_use]
pub fn density_support(densities: &[Density], default: u8) -> Vec<u8> {
    const WRTOK: u8 = 0x80;
    const DEFLT: u8 = 0x20;
    const MEGABYTE: u64 = 1_000_000;
    let mut data = vec![0, 0, 0, 0];
    for density in densities {
        let flags = if density.writable { WRTOK } else { 0 } | if density.code == default { DEFLT } else { 0 };
        data.extend([density.code, density.code, flags, 0, 0]);
        // BITS PER MM is unknown: a file has none.
        data.extend([0, 0, 0]);
        data.extend(HALF_INCH.to_be_bytes());
        data.extend(density.tracks.to_be_bytes());
        data.extend(u32::try_from(density.capacity / MEGABYTE).unwrap_or(u32::MAX).to_be_bytes());
        texts(density.organization, density.name, density.description, &mut data);
    }
    counted(data)
}

/// REPORT DENSITY SUPPORT with MEDIUM TYPE set: one descriptor of 56 bytes each.
#[must_use]
pub fn medium_type_support(types: &[MediumType]) -> Vec<u8> {
    const DESCRIPTOR_LENGTH: u16 = 52;
    const DENSITY_CODES: usize = 9;
    let mut data = vec![0, 0, 0, 0];
    for kind in types {
        let codes = &kind.densities[..kind.densities.len().min(DENSITY_CODES)];
        data.extend([kind.code, 0]);
        data.extend(DESCRIPTOR_LENGTH.to_be_bytes());
        data.push(codes.len() as u8);
        data.extend(codes.iter().copied().chain(std::iter::repeat(0)).take(DENSITY_CODES));
        data.extend(HALF_INCH.to_be_bytes());
        // MEDIUM LENGTH is unknown: a file has none.
        data.extend([0, 0, 0, 0]);
        texts(kind.organization, kind.name, kind.description, &mut data);
    }
    counted(data)
}

/// MEDIA WIDTH in tenths of a millimetre.
const HALF_INCH: u16 = 127;

fn texts(organization: &str, name: &str, description: &str, into: &mut Vec<u8>) {
    for (text, width) in [(organization, 8), (name, 8), (description, 20)] {
        into.extend(text.bytes().chain(std::iter::repeat(b' ')).take(width));
    }
}

fn counted(mut data: Vec<u8>) -> Vec<u8> {
    let [high, low] = ((data.len() - 2) as u16).to_be_bytes();
    data[..2].copy_from_slice(&[high, low]);
    data
}

/// A kind of medium that a drive takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediumType {
    /// MEDIUM TYPE, as the mode parameter header has it.
    pub code: u8,
    /// Density codes, at most nine.
    pub densities: &'static [u8],
    /// ASSIGNING ORGANIZATION, at most 8 characters.
    pub organization: &'static str,
    /// MEDIUM TYPE NAME, at most 8 characters.
    pub name: &'static str,
    /// DESCRIPTION, at most 20 characters.
    pub description: &'static str,
}

/// A log parameter that counts, in eight bytes, and is never saved.
#[must_use]
pub fn counter(code: u16, value: u64) -> Vec<u8> {
    const COUNTER: u8 = 0x00;
    let [high, low] = code.to_be_bytes();
    [&[high, low, COUNTER, 8][..], &value.to_be_bytes()].concat()
}

/// A parameter of the volume statistics page that tells one number for each partition, in MB.
#[must_use]
pub fn partition_records(code: u16, megabytes: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let records = megabytes.into_iter().zip(0u8..).flat_map(|(megabytes, partition)| {
        let [a, b, c, d] = u32::try_from(megabytes).unwrap_or(u32::MAX - 1).to_be_bytes();
        [7, 0, 0, partition, a, b, c, d]
    });
    binary_parameter(code, &records.collect::<Vec<_>>())
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
        let position =
            Position { partition: 1, object: 0x0102_0304, file: 5, early_warning: true, programmable_early_warning: true };
        assert_eq!(position.short(), hex("41 01 0000 01020304 01020304 00 000000 00000000"));
        assert_eq!(position.long(), hex("41 000000 00000001 0000000001020304 0000000000000005 0000000000000000"));
        assert_eq!(position.extended(), hex("41 01 001C 00 000000 0000000001020304 0000000001020304 0000000000000000"));
        let far = Position { object: 1 << 32, file: 0, early_warning: false, partition: 0, programmable_early_warning: false };
        assert_eq!(far.short()[..8], hex("02 00 0000 FFFFFFFF")[..]);
        assert_eq!(Position { object: 0, ..position }.short()[0], 0xC1);
    }

    #[test]
    fn block_limits_are_three_and_two_bytes() {
        assert_eq!(block_limits(1, 0xFF_FFFF), hex("00 FFFFFF 0001"));
        assert_eq!(maximum_identifier(0x1234), hex("000000000000000000000000 0000000000001234"));
    }

    #[test]
    fn a_density_is_52_bytes() {
        let density = Density {
            code: 0x5E,
            writable: true,
            tracks: 0,
            capacity: 2_500_000_000_000,
            organization: "LTO-CVE",
            name: "U-832",
            description: "x",
        };
        let data = density_support(&[density], 0x5E);
        assert_eq!(data.len(), 4 + 52);
        assert_eq!(data[..20], hex("0036 0000 5E 5E A0 0000 000000 007F 0000 002625A0")[..]);
        assert_eq!(&data[20..28], b"LTO-CVE ");
    }

    #[test]
    fn a_medium_type_is_56_bytes() {
        let kind = MediumType { code: 0x58, densities: &[0x58], organization: "LTO-CVE", name: "U-516", description: "Data" };
        let data = medium_type_support(&[kind]);
        assert_eq!(data.len(), 4 + 56);
        assert_eq!(data[..10], hex("003A 0000 58 00 0034 01 58")[..]);
    }

    #[test]
    fn log_parameters_have_their_headers() {
        assert_eq!(counter(2, 3), hex("0002 00 08 0000000000000003"));
        assert_eq!(partition_records(0x202, [9, 8]), hex("0202 03 10 07 00 0000 00000009 07 00 0001 00000008"));
        let alerts = tape_alert(1 << 4);
        assert_eq!((alerts.len(), &alerts[20..25]), (320, &hex("0005 03 01 01")[..]));
    }
}
