//! Logical block protection: four bytes behind each block, checked when it is written and made when it is read.
//!
//! Computes and compares. Which blocks are protected is chosen by the control data protection mode page. Follows SSC-4, "Logical
//! block protection"; the Reed-Solomon CRC is that of ECMA-319, "Data block CRC", the CRC32C that of RFC 3720 with its bytes
//! ascending.

use bytes::Bytes;
use protocol::cartridge::sums::crc32c_of_parts;

/// LOGICAL BLOCK PROTECTION METHOD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reed-Solomon CRC.
    ReedSolomon = 1,
    /// CRC32C.
    Crc32c = 2,
}

impl Method {
    /// Bytes of protection information.
    pub const LENGTH: u8 = 4;

    /// `None` for a method that is not served, and for none.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::ReedSolomon),
            2 => Some(Self::Crc32c),
            _ => None,
        }
    }

    /// As the mode page has it.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Protection information of a block.
    pub fn of<'a>(self, parts: impl Iterator<Item = &'a [u8]>) -> [u8; 4] {
        match self {
            Self::ReedSolomon => parts.flatten().fold(0, |crc, byte| reed_solomon(crc, *byte)).to_be_bytes(),
            Self::Crc32c => crc32c_of_parts(parts).to_le_bytes(),
        }
    }

    /// Takes the protection information off a block that comes with it; `None` when it is not that of the block.
    pub fn check(self, mut parts: Vec<Bytes>) -> Option<Vec<Bytes>> {
        let mut sent = [0; Self::LENGTH as usize];
        for place in sent.iter_mut().rev() {
            let last = loop {
                let last = parts.last_mut()?;
                if !last.is_empty() {
                    break last;
                }
                parts.pop();
            };
            *place = last[last.len() - 1];
            last.truncate(last.len() - 1);
        }
        parts.retain(|part| !part.is_empty());
        (self.of(parts.iter().map(|part| &part[..])) == sent).then_some(parts)
    }
}

/// The coefficients of the generator below its highest, in GF(256) of [`FIELD`].
const GENERATOR: [u8; 4] = [0x38, 0xCF, 0x38, 0x01];
/// x^8 + x^4 + x^3 + x^2 + 1.
const FIELD: u16 = 0x11D;

const fn multiply(mut a: u16, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a <<= 1;
        if a & 0x100 != 0 {
            a ^= FIELD;
        }
        b >>= 1;
    }
    product as u8
}

/// What a byte that is shifted out adds to the register.
const STEPS: [u32; 256] = {
    let mut steps = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        steps[byte] = u32::from_be_bytes([
            multiply(byte as u16, GENERATOR[0]),
            multiply(byte as u16, GENERATOR[1]),
            multiply(byte as u16, GENERATOR[2]),
            multiply(byte as u16, GENERATOR[3]),
        ]);
        byte += 1;
    }
    steps
};

fn reed_solomon(crc: u32, byte: u8) -> u32 {
    (crc << 8) ^ STEPS[usize::from(byte ^ (crc >> 24) as u8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[&[u8]]) -> Vec<Bytes> {
        of.iter().map(|part| Bytes::copy_from_slice(part)).collect()
    }

    #[test]
    fn the_steps_are_those_that_other_programs_have_in_their_tables() {
        assert_eq!([STEPS[1], STEPS[2], STEPS[3], STEPS[0x40]], [0x38CF_3801, 0x7083_7002, 0x484C_4803, 0xA6AD_A640]);
        assert_eq!(STEPS[0x7D], 0x57FB_577D);
    }

    #[test]
    fn crc32c_of_the_well_known_text_has_its_bytes_ascending() {
        assert_eq!(Method::Crc32c.of([&b"123456789"[..]].into_iter()), 0xE306_9283_u32.to_le_bytes());
    }

    #[test]
    fn a_block_with_its_own_information_passes_however_it_is_cut() {
        for method in [Method::ReedSolomon, Method::Crc32c] {
            let information = method.of([&b"hello"[..]].into_iter());
            let whole = [b"hello", &information[..]].concat();
            for cut in 0..whole.len() {
                let (a, b) = whole.split_at(cut);
                assert_eq!(method.check(parts(&[a, b])).unwrap().concat(), b"hello", "cut at {cut}");
            }
            let mut wrong = whole.clone();
            wrong[0] ^= 1;
            assert_eq!(method.check(parts(&[&wrong])), None);
            assert_eq!(method.check(parts(&[&[1, 2, 3]])), None, "too short");
        }
    }
}
