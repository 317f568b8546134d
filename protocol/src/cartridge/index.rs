//! The index beside an image: one entry of fixed size an object, so that any object's place is one read away.
//!
//! An entry is believed only as far as its checksum, its generation and the image's own words bear it out: the image is the
//! truth, the index is what makes it fast and what carries the sums taken while the data passed by. When the image is
//! overwritten in the middle, the index is cut *first*, under a new generation: [`Header::base`] says from which entry on only
//! that generation counts, so that a stale entry can never lend its sum to other data of the same length.
//!
//! ```text
//! slot 0   header of an even generation      the valid one of the higher generation holds
//! slot 1   header of an odd generation
//! slot n+2 entry of logical object n
//! ```
//!
//! Does not read or write files. Own format, all numbers little-endian as in the image.

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::sums::{RecordSum, crc32c};
use super::{ObjectKind, TapePosition};
use crate::wire::{Problem, WireError};

/// Bytes of a header and of an entry.
pub const SLOT: usize = 80;

/// Byte of the index file at which the entry of logical object `object` lies.
#[must_use]
pub const fn entry_offset(object: u64) -> u64 {
    (object + 2) * SLOT as u64
}

/// What is known of a record's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SumState {
    /// Taken while the data passed by on its way to the medium: proof.
    Known = 1,
    /// Not taken: the data was placed by reference.
    Absent = 2,
    /// Taken from the medium afterwards: tells later damage, proves nothing about the writing.
    Recomputed = 3,
}

/// One object, as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where the object begins; its object number is the entry's place in the file and is stored to be checked.
    pub at: TapePosition,
    /// Bytes of erase gap between there and its first word.
    pub gap: u32,
    /// What it is.
    pub kind: ObjectKind,
    /// Bytes on the medium; 0 for a filemark.
    pub length: u32,
    /// A record in an [`super::envelope`].
    pub wrapped: bool,
    /// Of the cut after which it was written.
    pub generation: u32,
    /// What [`Entry::sum`] is worth; `Known` for a filemark.
    pub sum_state: SumState,
    /// Of the data; zeros where absent and for a filemark.
    pub sum: RecordSum,
}

const KIND_RECORD: u8 = 0;
const KIND_FILEMARK: u8 = 1;
const KIND_WRAPPED: u8 = 2;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EntrySlot {
    object: U64,
    offset: U64,
    file: U64,
    length: U32,
    generation: U32,
    kind: u8,
    sum_state: u8,
    reserved: [u8; 2],
    gap: U32,
    crc32c: U32,
    blake3: [u8; 32],
    checksum: U32,
}
const _: () = assert!(size_of::<EntrySlot>() == SLOT);

impl Entry {
    /// Where the next object begins.
    #[must_use]
    pub const fn next(&self) -> TapePosition {
        self.at.behind_gap(self.gap).after(self.kind, self.length)
    }

    /// As it lies in the file.
    #[must_use]
    pub fn emit(&self) -> [u8; SLOT] {
        let slot = EntrySlot {
            object: self.at.object.into(),
            offset: self.at.offset.into(),
            file: self.at.file.into(),
            length: self.length.into(),
            generation: self.generation.into(),
            kind: match self.kind {
                ObjectKind::Record if self.wrapped => KIND_WRAPPED,
                ObjectKind::Record => KIND_RECORD,
                ObjectKind::Filemark => KIND_FILEMARK,
            },
            sum_state: self.sum_state as u8,
            reserved: [0; 2],
            gap: self.gap.into(),
            crc32c: self.sum.crc32c.into(),
            blake3: self.sum.blake3,
            checksum: U32::ZERO,
        };
        sealed(zerocopy::transmute!(slot))
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// When the checksum or a field is not what an entry has.
    pub fn parse(bytes: &[u8; SLOT]) -> Result<Self, WireError> {
        check_seal(STRUCTURE, bytes)?;
        Self::fields(bytes)
    }

    /// Reads a slot whose checksum does not hold: a crash met it while its sums were written in place. All else was written twice
    /// alike, and is the entry's as far as the image and the neighbours bear it out; the sums are absent.
    ///
    /// # Errors
    /// When a field is not what an entry has.
    pub fn parse_torn(bytes: &[u8; SLOT]) -> Result<Self, WireError> {
        let mut bytes = *bytes;
        bytes[SUM_STATE] = SumState::Absent as u8;
        let entry = Self::fields(&bytes)?;
        let sum_state = if entry.kind == ObjectKind::Filemark { SumState::Known } else { SumState::Absent };
        Ok(Self { sum_state, sum: RecordSum::default(), ..entry })
    }

    fn fields(bytes: &[u8; SLOT]) -> Result<Self, WireError> {
        let slot = EntrySlot::ref_from_bytes(bytes).expect("a slot has the size of an entry");
        let kind = match slot.kind {
            KIND_RECORD | KIND_WRAPPED => ObjectKind::Record,
            KIND_FILEMARK => ObjectKind::Filemark,
            other => return Err(value(32, "kind", other.into())),
        };
        let sum_state = match slot.sum_state {
            1 => SumState::Known,
            2 => SumState::Absent,
            3 => SumState::Recomputed,
            other => return Err(value(SUM_STATE, "sum state", other.into())),
        };
        let length = slot.length.get();
        let wrapped = slot.kind == KIND_WRAPPED;
        let longest = if wrapped { super::envelope::MAX_LENGTH } else { super::MAX_RECORD_LENGTH };
        if (length == 0) != (kind == ObjectKind::Filemark) || length > longest {
            return Err(value(24, "length", length.into()));
        }
        let (object, file, offset) = (slot.object.get(), slot.file.get(), slot.offset.get());
        if object > MAX_PLACE || offset > MAX_PLACE || file > object {
            return Err(value(0, "place", object));
        }
        Ok(Self {
            at: TapePosition { object, file, offset },
            gap: slot.gap.get(),
            kind,
            length,
            wrapped,
            generation: slot.generation.get(),
            sum_state,
            sum: RecordSum { crc32c: slot.crc32c.get(), blake3: slot.blake3 },
        })
    }
}

const STRUCTURE: &str = "index entry";
const SUM_STATE: usize = std::mem::offset_of!(EntrySlot, sum_state);
/// Above what a file can have (its offsets are signed), so that sums of places never overflow.
const MAX_PLACE: u64 = i64::MAX as u64;

const fn value(offset: usize, field: &'static str, value: u64) -> WireError {
    WireError::new(STRUCTURE, offset, Problem::Value { field, value })
}

/// What holds for the index as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Counts the cuts; entries from `base` on count only if they have it.
    pub generation: u32,
    /// Entries in front of this object are older than the last cut.
    pub base: u64,
}

const MAGIC: [u8; 8] = *b"OFHINDEX";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HeaderSlot {
    magic: [u8; 8],
    version: U32,
    generation: U32,
    base: U64,
    reserved: [u8; 52],
    checksum: U32,
}
const _: () = assert!(size_of::<HeaderSlot>() == SLOT);

impl Header {
    /// Format version written and read.
    pub const VERSION: u32 = 1;

    /// Byte of the index file at which this header lies: neighbours in time never overwrite each other.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        (self.generation as u64 & 1) * SLOT as u64
    }

    /// Whether an entry of this index counts.
    #[must_use]
    pub const fn believes(&self, entry: &Entry) -> bool {
        if entry.at.object < self.base { entry.generation < self.generation } else { entry.generation == self.generation }
    }

    /// As it lies in the file.
    #[must_use]
    pub fn emit(&self) -> [u8; SLOT] {
        let slot = HeaderSlot {
            magic: MAGIC,
            version: Self::VERSION.into(),
            generation: self.generation.into(),
            base: self.base.into(),
            reserved: [0; 52],
            checksum: U32::ZERO,
        };
        sealed(zerocopy::transmute!(slot))
    }

    /// The header that holds, out of the first two slots; `None` when neither is whole.
    #[must_use]
    pub fn choose(slots: &[u8; 2 * SLOT]) -> Option<Self> {
        let (even, odd) = slots.split_first_chunk::<SLOT>()?;
        let odd = odd.first_chunk::<SLOT>()?;
        [even, odd].into_iter().filter_map(|slot| Self::parse(slot).ok()).max_by_key(|header| header.generation)
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// When the checksum or a field is not what a header has.
    pub fn parse(bytes: &[u8; SLOT]) -> Result<Self, WireError> {
        const STRUCTURE: &str = "index header";
        let slot = HeaderSlot::ref_from_bytes(bytes).expect("a slot has the size of a header");
        if slot.magic != MAGIC {
            return Err(WireError::new(STRUCTURE, 0, Problem::Text("the magic is missing")));
        }
        check_seal(STRUCTURE, bytes)?;
        if slot.version.get() != Self::VERSION {
            return Err(WireError::new(STRUCTURE, 8, Problem::Value { field: "version", value: slot.version.get().into() }));
        }
        Ok(Self { generation: slot.generation.get(), base: slot.base.get() })
    }
}

const SEAL: usize = SLOT - 4;

fn sealed(mut slot: [u8; SLOT]) -> [u8; SLOT] {
    let checksum = crc32c(&slot[..SEAL]);
    slot[SEAL..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn check_seal(structure: &'static str, slot: &[u8; SLOT]) -> Result<(), WireError> {
    let (covered, seal) = slot.split_last_chunk::<4>().expect("a slot is longer than its checksum");
    let (stored, computed) = (u32::from_le_bytes(*seal), crc32c(covered));
    if stored == computed { Ok(()) } else { Err(WireError::new(structure, SEAL, Problem::Checksum { stored, computed })) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        Entry {
            at: TapePosition { object: 7, file: 2, offset: 0x1234 },
            gap: 0xDC8,
            kind: ObjectKind::Record,
            length: 0x1_0000,
            wrapped: false,
            generation: 3,
            sum_state: SumState::Known,
            sum: RecordSum::of(b"abc"),
        }
    }

    #[test]
    fn an_entry_reads_as_it_was_written_and_one_flipped_bit_is_seen() {
        let bytes = entry().emit();
        assert_eq!(bytes[..16], crate::wire::hex("0700000000000000 3412000000000000")[..]);
        assert_eq!(Entry::parse(&bytes), Ok(entry()));
        for bit in 0..SLOT * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_entry_whose_sums_are_torn_is_all_there_but_for_them() {
        let mut bytes = entry().emit();
        bytes[33..].fill(0xA5);
        bytes[36..40].copy_from_slice(&entry().emit()[36..40]);
        assert!(Entry::parse(&bytes).is_err());
        let torn = Entry { sum_state: SumState::Absent, sum: RecordSum::default(), ..entry() };
        assert_eq!(Entry::parse_torn(&bytes), Ok(torn));
        assert!(Entry::parse_torn(&[0; SLOT]).is_err(), "a record of no length");
    }

    #[test]
    fn the_younger_whole_header_holds() {
        let (old, new) = (Header { generation: 4, base: 0 }, Header { generation: 5, base: 9 });
        let mut slots = [0; 2 * SLOT];
        for header in [old, new] {
            slots[header.offset() as usize..][..SLOT].copy_from_slice(&header.emit());
        }
        assert_eq!(Header::choose(&slots), Some(new));
        slots[SLOT + 20] ^= 1;
        assert_eq!(Header::choose(&slots), Some(old));
        assert_eq!(Header::choose(&[0; 2 * SLOT]), None);
    }

    #[test]
    fn a_stale_entry_behind_the_cut_is_not_believed() {
        let header = Header { generation: 3, base: 7 };
        assert!(header.believes(&entry()));
        assert!(!header.believes(&Entry { generation: 2, ..entry() }));
        let before = TapePosition { object: 6, file: 2, offset: 0 };
        assert!(header.believes(&Entry { generation: 2, at: before, ..entry() }));
        assert!(!header.believes(&Entry { at: before, ..entry() }));
    }

    proptest! {
        #[test]
        fn arbitrary_slots_never_panic(bytes in any::<[u8; 32]>(), fill in any::<u8>()) {
            let mut slot = [fill; SLOT];
            slot[..32].copy_from_slice(&bytes);
            let _ = (Entry::parse(&slot), Entry::parse_torn(&slot), Header::parse(&slot));
            let _ = (Entry::parse(&sealed(slot)), Header::parse(&sealed(slot)));
        }
    }
}
