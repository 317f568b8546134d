//! Where the data of records lies: one record behind the other, or the data of long ones on the boundaries of a file system's blocks.
//!
//! ```text
//! plain      … | len data len | len data len | END
//! aligned    … | len data len | gap … gap len ┆ data … data ┆ len | END        ┆ a multiple of 4 KiB
//! ```
//!
//! A gap lies in front of the record that it aligns and belongs to its place: where a tape stands there, it stands in front of the
//! gap. Says how long a gap is and what it consists of; [`super::append`] places, [`super::scan`] passes over.
//!
//! Follows "SIMH Magtape Representation and Handling": erase gaps of whole words, and a half gap where a place is odd in words.

use serde::{Deserialize, Serialize};

use super::frame::{ERASE_GAP, WORD};

/// The boundary on which the data of an aligned record begins: what file systems share blocks by, and direct I/O wants.
pub const ALIGNMENT: u64 = 4096;
/// Shorter records are not aligned: gaps would take too much of the medium.
pub const ALIGNED_LEAST: u32 = 64 << 10;
/// What SIMH reads where a gap of whole words begins half a word further on.
const HALF_GAP: u64 = WORD / 2;
/// No gap of ours is longer.
pub const GAP_MOST: usize = (ALIGNMENT + HALF_GAP) as usize;

/// How an image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Records and marks follow each other without gaps: any reader of the format follows.
    #[default]
    Plain,
    /// The data of records from [`ALIGNED_LEAST`] on begins on a multiple of [`ALIGNMENT`].
    Aligned,
}

impl Layout {
    /// Bytes of gap in front of a record of `length` data bytes whose place begins at byte `at`.
    #[must_use]
    pub const fn gap(self, at: u64, length: u32) -> u32 {
        match self {
            Self::Aligned if length >= ALIGNED_LEAST => {
                let gap = (ALIGNMENT - at.saturating_add(WORD) % ALIGNMENT) % ALIGNMENT;
                // A half gap is only one with a whole word behind it.
                (if gap == HALF_GAP { gap + ALIGNMENT } else { gap }) as u32
            }
            _ => 0,
        }
    }
}

/// Words of a gap; every gap is the end of them.
static GAP_WORDS: [u8; GAP_MOST.next_multiple_of(WORD as usize)] = {
    let mut words = [0xFF; GAP_MOST.next_multiple_of(WORD as usize)];
    let mut at = 0;
    while at < words.len() {
        words[at] = ERASE_GAP.to_le_bytes()[0];
        at += WORD as usize;
    }
    words
};
const _: () = assert!(u32::from_le_bytes([ERASE_GAP.to_le_bytes()[0], 0xFF, 0xFF, 0xFF]) == ERASE_GAP);

/// True for the bytes of a gap that a layout places, and for none.
#[must_use]
pub fn is_gap(bytes: &[u8]) -> bool {
    bytes.len() <= GAP_MOST && bytes == &GAP_WORDS[GAP_WORDS.len() - bytes.len()..]
}

/// The bytes of a gap of [`Layout::gap`].
#[must_use]
pub fn gap_bytes(length: u32) -> &'static [u8] {
    &GAP_WORDS[GAP_WORDS.len() - length as usize..]
}

#[cfg(test)]
mod tests {
    use super::super::frame::Word;
    use super::*;

    #[test]
    fn long_records_are_aligned_from_every_even_place_and_short_ones_nowhere() {
        for at in (0..3 * ALIGNMENT).step_by(2) {
            let gap = Layout::Aligned.gap(at, ALIGNED_LEAST);
            assert_eq!((at + u64::from(gap) + WORD) % ALIGNMENT, 0, "{at}");
            assert!(gap as usize <= GAP_MOST && gap != 2, "{at}");
            let bytes = gap_bytes(gap);
            assert!(bytes.len() == gap as usize && is_gap(bytes));
            assert_eq!((Layout::Aligned.gap(at, ALIGNED_LEAST - 1), Layout::Plain.gap(at, u32::MAX)), (0, 0));
        }
        assert_eq!(Layout::Aligned.gap(ALIGNMENT - WORD, ALIGNED_LEAST), 0, "in place already");
    }

    #[test]
    fn a_gap_is_one_for_readers_of_the_format() {
        let words = |length| {
            let bytes = gap_bytes(length);
            bytes.as_chunks().0.iter().map(|word| Word::parse(*word)).collect::<Vec<_>>()
        };
        assert_eq!(words(8), [Word::Gap, Word::Gap]);
        assert_eq!(words(6), [Word::HalfGap]);
        assert_eq!(gap_bytes(6)[2..], ERASE_GAP.to_le_bytes());
    }
}
