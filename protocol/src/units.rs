//! Numbers that must not be mixed up: a block address is no byte offset, a count of blocks no count of bytes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Logical block address on a LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lba(pub u64);

/// A number of logical blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockCount(pub u64);

/// Bytes in one logical block: a power of two, 512 or 4096 on a disk LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockLength(pub u32);

impl BlockLength {
    /// The usual disk sector.
    pub const B512: Self = Self(512);
    /// The sector of a 4Kn disk.
    pub const B4096: Self = Self(4096);

    /// In bytes, as the wide type arithmetic wants.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The byte range of `count` blocks from `from`; `None` where it does not fit 64 bits.
    #[must_use]
    pub fn byte_range(self, from: Lba, count: BlockCount) -> Option<ByteRange> {
        let start = from.0.checked_mul(self.bytes())?;
        let len = count.0.checked_mul(self.bytes())?;
        start.checked_add(len)?;
        Some(ByteRange { start, len })
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LBA {}", self.0)
    }
}

impl fmt::Display for BlockCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks", self.0)
    }
}

/// A stretch of bytes. `start + len` never overflows in a range made by [`ByteRange::new`] or [`BlockLength::byte_range`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Bytes; may be zero.
    pub len: u64,
}

impl ByteRange {
    /// `None` where the end does not fit 64 bits.
    #[must_use]
    pub fn new(start: u64, len: u64) -> Option<Self> {
        start.checked_add(len)?;
        Some(Self { start, len })
    }

    /// First byte behind the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.len
    }

    /// As the standard library writes it.
    #[must_use]
    pub const fn range(self) -> Range<u64> {
        self.start..self.end()
    }

    /// What both cover; `None` when they do not meet.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Self { start, len: end - start })
    }

    /// True when at least one byte is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_range_that_does_not_fit_64_bits_is_none() {
        assert_eq!(BlockLength::B512.byte_range(Lba(u64::MAX / 256), BlockCount(1)), None);
        assert_eq!(BlockLength::B4096.byte_range(Lba(2), BlockCount(3)), ByteRange::new(8192, 12288));
    }

    #[test]
    fn ranges_that_only_touch_do_not_overlap() {
        let (a, b) = (ByteRange { start: 0, len: 10 }, ByteRange { start: 10, len: 1 });
        assert!(!a.overlaps(b));
        assert!(a.overlaps(ByteRange { start: 9, len: 9 }));
    }
}
