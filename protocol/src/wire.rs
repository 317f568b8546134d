//! Byte order, and the one error for bytes that are not what they should be.

use std::fmt;
pub use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Big-endian 24-bit number, as DataSegmentLength and the stream transfer lengths are written.
#[derive(Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct U24(pub [u8; 3]);

impl U24 {
    /// The largest value.
    pub const MAX: u32 = 0xFF_FFFF;

    /// `None` above [`U24::MAX`].
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value > Self::MAX {
            return None;
        }
        let [_, a, b, c] = value.to_be_bytes();
        Some(Self([a, b, c]))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        u32::from_be_bytes([0, self.0[0], self.0[1], self.0[2]])
    }
}

impl fmt::Debug for U24 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U24({})", self.get())
    }
}

/// Bytes from a peer, a tape or a disk that do not have the form the standard gives them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{structure}: {problem} at byte {offset}")]
pub struct WireError {
    /// The standard's name of what was read, as "login request" or "segment descriptor 02h".
    pub structure: &'static str,
    /// Byte at fault, counted from the structure's first.
    pub offset: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl WireError {
    /// Says what was wrong where.
    #[must_use]
    pub const fn new(structure: &'static str, offset: usize, problem: Problem) -> Self {
        Self { structure, offset, problem }
    }

    /// The same error seen from an enclosing structure that begins `by` bytes earlier.
    #[must_use]
    pub const fn shifted(self, by: usize) -> Self {
        Self { offset: self.offset + by, ..self }
    }
}

/// What can be wrong with bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The structure wants more bytes than there are.
    #[error("ends after {available} of {needed} bytes")]
    Truncated {
        /// Bytes the structure needs.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// A field holds what it may not hold.
    #[error("{field} is {value:#x}")]
    Value {
        /// The field's name in the standard.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A stored checksum and the data disagree.
    #[error("checksum is {stored:#010x}, data gives {computed:#010x}")]
    Checksum {
        /// As read.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// Text that is no text, or not in the form asked for.
    #[error("{0}")]
    Text(&'static str),
    /// A number over a limit of ours.
    #[error("{field} is {value}, at most {limit} is taken")]
    Limit {
        /// The field's name.
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// What we take.
        limit: u64,
    },
}

/// Bytes from text such as `"02 00 0018"`: golden vectors in tests read like the standard's tables.
///
/// # Panics
/// When the text is not pairs of hexadecimal digits.
#[must_use]
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("{c:?} is no hexadecimal digit")) as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of hexadecimal digits");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u24_keeps_its_number_and_refuses_more() {
        assert_eq!(U24::new(0x01_0203).unwrap().0, [1, 2, 3]);
        assert_eq!(U24([0xFF; 3]).get(), U24::MAX);
        assert_eq!(U24::new(U24::MAX + 1), None);
    }
}
