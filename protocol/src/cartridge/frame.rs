//! The words of a `.tap` image: four bytes, little-endian, a class in the top nibble and a length below it.
//!
//! A record is its length word, its data padded to an even number of bytes, and the same word again; a filemark is a word of
//! zeros. Does not read or write; [`super::scan`] and [`super::append`] do.
//!
//! Follows "SIMH Magtape Representation and Handling".

/// Bytes of a word.
pub const WORD: u64 = 4;

/// A filemark.
pub const FILEMARK: u32 = 0;
/// Nothing recorded here: skipped by readers, never written on a plain cartridge.
pub const ERASE_GAP: u32 = 0xFFFF_FFFE;
/// What a reader sees where words of [`ERASE_GAP`] begin half a word further on.
pub const HALF_GAP: u32 = 0xFFFE_FFFF;
/// Nothing recorded from here on.
pub const END_OF_MEDIUM: u32 = 0xFFFF_FFFF;

const CLASS_SHIFT: u32 = 28;
const VALUE_MASK: u32 = (1 << CLASS_SHIFT) - 1;

/// A word's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Four zero bytes.
    Filemark,
    /// A record of `length` bytes, at least one.
    Record {
        /// 0 for good data, 8 for data read with an error, 1 to 6 for private records.
        class: u8,
        /// Data bytes, without the padding.
        length: u32,
    },
    /// [`ERASE_GAP`].
    Gap,
    /// [`HALF_GAP`]: a reader goes on behind its first half.
    HalfGap,
    /// [`END_OF_MEDIUM`].
    End,
    /// A marker with no meaning here: private (7), reserved, or a word torn while it was written.
    Unknown(u32),
}

impl Word {
    /// Reads a word's bytes.
    #[must_use]
    pub const fn parse(bytes: [u8; 4]) -> Self {
        let word = u32::from_le_bytes(bytes);
        let (class, length) = ((word >> CLASS_SHIFT) as u8, word & VALUE_MASK);
        match (class, length) {
            (0, 0) => Self::Filemark,
            (0..=6 | 8, 1..) => Self::Record { class, length },
            _ if word == ERASE_GAP => Self::Gap,
            _ if word == HALF_GAP => Self::HalfGap,
            _ if word == END_OF_MEDIUM => Self::End,
            _ => Self::Unknown(word),
        }
    }
}

/// The length word of a good record. `length` is at most [`super::MAX_RECORD_LENGTH`], so the class nibble stays 0.
#[must_use]
pub const fn record_word(length: u32) -> [u8; 4] {
    assert!(length != 0 && length <= VALUE_MASK, "a record has a length that fits its word");
    length.to_le_bytes()
}

/// Class of a record in an [`super::envelope`]: private data.
pub const WRAPPED: u8 = 1;

/// The length word of a record in an envelope. `length` is at most [`super::envelope::MAX_LENGTH`].
#[must_use]
pub const fn wrapped_word(length: u32) -> [u8; 4] {
    assert!(length != 0 && length <= VALUE_MASK, "a record has a length that fits its word");
    (length | (WRAPPED as u32) << CLASS_SHIFT).to_le_bytes()
}

/// Bytes of padding behind `length` data bytes: 0 or 1.
#[must_use]
pub const fn padding(length: u32) -> u64 {
    (length & 1) as u64
}

/// Bytes of a record in the image: both words, data, padding.
#[must_use]
pub const fn record_size(length: u32) -> u64 {
    WORD + length as u64 + padding(length) + WORD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_reads_as_what_it_is() {
        for (bytes, word) in [
            ([0, 0, 0, 0], Word::Filemark),
            ([0, 0x28, 0, 0], Word::Record { class: 0, length: 10_240 }),
            ([1, 0, 0, 0x80], Word::Record { class: 8, length: 1 }),
            ([0, 0, 0, 0x80], Word::Unknown(0x8000_0000)),
            ([5, 0, 0, 0x70], Word::Unknown(0x7000_0005)),
            ([0xFE, 0xFF, 0xFF, 0xFF], Word::Gap),
            ([0xFF, 0xFF, 0xFE, 0xFF], Word::HalfGap),
            ([0xFF, 0xFF, 0xFF, 0xFF], Word::End),
            ([0, 0xFF, 0xFF, 0xFF], Word::Unknown(0xFFFF_FF00)),
        ] {
            assert_eq!(Word::parse(bytes), word);
        }
    }

    #[test]
    fn an_end_word_half_overwritten_from_its_front_is_never_a_record() {
        for length in [1, 0xFE, 0x1FF, 0xFF00, 0x1_0000, super::super::MAX_RECORD_LENGTH] {
            for torn in 0..4 {
                let mut bytes = END_OF_MEDIUM.to_le_bytes();
                bytes[..torn].copy_from_slice(&record_word(length)[..torn]);
                assert!(!matches!(Word::parse(bytes), Word::Record { .. } | Word::Filemark), "{length:#x} torn after {torn}");
            }
        }
    }

    #[test]
    fn records_take_an_even_number_of_bytes() {
        assert_eq!((record_size(1), record_size(2), record_size(3)), (10, 10, 12));
    }
}
