//! File records and their attributes, as they lie in $MFT; also the update sequence that index blocks and log pages share.
//!
//! It reads one record at a time and joins nothing: attribute lists are resolved in [`super::join`]. A record whose update
//! sequence disagrees is torn and is not repaired. Follows the published on-disk format ("FILE Record", "Attribute Header").

use super::runs::RunList;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Start of a multi-sector structure: FILE, INDX and RSTR alike.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MultiSectorHeader {
    /// FILE, INDX, RSTR, RCRD, CHKD; BAAD where NTFS gave up.
    pub signature: [u8; 4],
    /// Byte position of the update sequence array.
    pub update_sequence_offset: U16,
    /// Its entries: one number and one saved word per 512 bytes.
    pub update_sequence_count: U16,
}

/// Header of a file record, as NT 5.1 and later write it; the last field did not exist before.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    /// Signature and update sequence.
    pub multi_sector: MultiSectorHeader,
    /// Of the last logged change.
    pub lsn: U64,
    /// Counts the lives of this record.
    pub sequence_number: U16,
    /// Names of the file.
    pub link_count: U16,
    /// Byte position of the first attribute.
    pub attributes_offset: U16,
    /// [`IN_USE`], [`DIRECTORY`].
    pub flags: U16,
    /// Used bytes.
    pub bytes_in_use: U32,
    /// Length of the record.
    pub bytes_allocated: U32,
    /// Zero, or the file reference of the record that this one extends.
    pub base_record: U64,
    /// Next free attribute instance.
    pub next_attribute_instance: U16,
}
const _: () = assert!(size_of::<RecordHeader>() == 42);

/// Flag of a record that belongs to a file.
pub const IN_USE: u16 = 1;
/// Flag of a record with a file name index.
pub const DIRECTORY: u16 = 2;

/// Number and sequence of a file, packed as on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileReference(pub u64);

impl FileReference {
    /// Record number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & 0xFFFF_FFFF_FFFF
    }

    /// Which life of the record is meant.
    #[must_use]
    pub const fn sequence(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// The signature of a multi-sector structure whose update sequence is whole; the saved words are put back in place.
///
/// The stride is 512 bytes on every disk, also on those of 4096-byte sectors.
///
/// # Errors
/// What disagrees. The bytes are then as they were.
pub fn fix_up(bytes: &mut [u8]) -> Result<[u8; 4], &'static str> {
    let (header, _) = MultiSectorHeader::read_from_prefix(bytes).map_err(|_| "shorter than its header")?;
    let (offset, count) = (usize::from(header.update_sequence_offset.get()), usize::from(header.update_sequence_count.get()));
    if count != bytes.len() / STRIDE + 1 || offset < size_of::<MultiSectorHeader>() || offset + count * 2 > STRIDE - 2 {
        return Err("the update sequence array is not where it can be");
    }
    let (first, _) = bytes.split_at(STRIDE);
    let mut array = [0; STRIDE];
    array[..count * 2].copy_from_slice(&first[offset..offset + count * 2]);
    let (number, saved) = array[..count * 2].split_at(2);
    let whole = bytes.chunks_exact(STRIDE).all(|stride| stride[STRIDE - 2..] == *number);
    if !whole {
        return Err("torn: an update sequence number disagrees");
    }
    for (stride, word) in bytes.chunks_exact_mut(STRIDE).zip(saved.chunks_exact(2)) {
        stride[STRIDE - 2..].copy_from_slice(word);
    }
    Ok(header.signature)
}

const STRIDE: usize = 512;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AttributeHeader {
    type_code: U32,
    length: U32,
    non_resident: u8,
    name_length: u8,
    name_offset: U16,
    flags: U16,
    instance: U16,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ResidentHeader {
    common: AttributeHeader,
    value_length: U32,
    value_offset: U16,
    indexed: u8,
    reserved: u8,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NonResidentHeader {
    common: AttributeHeader,
    lowest_vcn: U64,
    highest_vcn: U64,
    mapping_pairs_offset: U16,
    compression_unit: u8,
    reserved: [u8; 5],
    allocated_size: U64,
    data_size: U64,
    initialized_size: U64,
}
const _: () = assert!(size_of::<ResidentHeader>() == 24 && size_of::<NonResidentHeader>() == 64);

/// Attribute type codes, as $AttrDef names them.
pub mod kind {
    #![allow(missing_docs)]
    pub const STANDARD_INFORMATION: u32 = 0x10;
    pub const ATTRIBUTE_LIST: u32 = 0x20;
    pub const FILE_NAME: u32 = 0x30;
    pub const OBJECT_ID: u32 = 0x40;
    pub const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub const VOLUME_NAME: u32 = 0x60;
    pub const VOLUME_INFORMATION: u32 = 0x70;
    pub const DATA: u32 = 0x80;
    pub const INDEX_ROOT: u32 = 0x90;
    pub const INDEX_ALLOCATION: u32 = 0xA0;
    pub const BITMAP: u32 = 0xB0;
    pub const REPARSE_POINT: u32 = 0xC0;
    pub const EA_INFORMATION: u32 = 0xD0;
    pub const EA: u32 = 0xE0;
    pub const LOGGED_UTILITY_STREAM: u32 = 0x100;
    pub(super) const END: u32 = 0xFFFF_FFFF;

    /// The name in $AttrDef; a number for what is not there.
    #[must_use]
    pub fn name(code: u32) -> String {
        let known = match code {
            STANDARD_INFORMATION => "$STANDARD_INFORMATION",
            ATTRIBUTE_LIST => "$ATTRIBUTE_LIST",
            FILE_NAME => "$FILE_NAME",
            OBJECT_ID => "$OBJECT_ID",
            SECURITY_DESCRIPTOR => "$SECURITY_DESCRIPTOR",
            VOLUME_NAME => "$VOLUME_NAME",
            VOLUME_INFORMATION => "$VOLUME_INFORMATION",
            DATA => "$DATA",
            INDEX_ROOT => "$INDEX_ROOT",
            INDEX_ALLOCATION => "$INDEX_ALLOCATION",
            BITMAP => "$BITMAP",
            REPARSE_POINT => "$REPARSE_POINT",
            EA_INFORMATION => "$EA_INFORMATION",
            EA => "$EA",
            LOGGED_UTILITY_STREAM => "$LOGGED_UTILITY_STREAM",
            _ => return format!("{code:#X}"),
        };
        known.to_owned()
    }
}

/// Attribute flags.
pub mod flag {
    #![allow(missing_docs)]
    pub const COMPRESSED: u16 = 0x0001;
    pub const ENCRYPTED: u16 = 0x4000;
    pub const SPARSE: u16 = 0x8000;
}

/// One attribute, or one piece of it where it is spread over several records.
#[derive(Debug, Clone)]
pub struct Attribute<'a> {
    /// Byte position of its header in the record.
    pub offset: usize,
    /// One of [`kind`].
    pub type_code: u32,
    /// UTF-16, little-endian, perhaps with unpaired surrogates.
    pub name: &'a [u8],
    /// Bits of [`flag`].
    pub flags: u16,
    /// Unique in this record only.
    pub instance: u16,
    /// Its value, or where that is.
    pub body: Body<'a>,
}

/// Where an attribute's value is.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// In the record itself.
    Resident {
        /// Byte position in the record.
        at: usize,
        /// The value.
        value: &'a [u8],
    },
    /// In clusters.
    NonResident(NonResident<'a>),
}

/// Header of a value in clusters.
#[derive(Debug, Clone)]
pub struct NonResident<'a> {
    /// First and last cluster of the value that this piece maps; the last is `u64::MAX` for an empty value.
    pub lowest_vcn: u64,
    /// See `lowest_vcn`.
    pub highest_vcn: u64,
    /// The sizes hold only in the piece with `lowest_vcn` 0.
    pub allocated_size: u64,
    /// Length of the value in bytes.
    pub data_size: u64,
    /// Behind this byte the value reads as zero, whatever the clusters hold.
    pub initialized_size: u64,
    /// Power of two in clusters; 0 for none.
    pub compression_unit: u8,
    /// The run list.
    pub mapping_pairs: &'a [u8],
}

impl<'a> NonResident<'a> {
    /// The runs, checked against a volume of `clusters`.
    #[must_use]
    pub const fn runs(&self, clusters: u64) -> RunList<'a> {
        RunList::new(self.mapping_pairs, clusters)
    }
}

/// Reads the attributes of a record one by one; ends behind the first problem.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    record: &'a [u8],
    at: usize,
    ended: bool,
}

impl<'a> Attributes<'a> {
    /// The record must have been through [`fix_up`].
    ///
    /// # Errors
    /// When its header cannot be true.
    pub fn new(record: &'a [u8]) -> Result<(&'a RecordHeader, Self), &'static str> {
        let (header, _) = RecordHeader::ref_from_prefix(record).map_err(|_| "shorter than its header")?;
        let (at, used) = (usize::from(header.attributes_offset.get()), header.bytes_in_use.get() as usize);
        if at < size_of::<RecordHeader>() || used > record.len() || at > used {
            return Err("the header of the record contradicts itself");
        }
        Ok((header, Self { record: &record[..used], at, ended: false }))
    }

    fn step(&mut self) -> Result<Option<Attribute<'a>>, &'static str> {
        let rest = self.record.get(self.at..).ok_or("an attribute leaves its record")?;
        let (type_code, _) = U32::read_from_prefix(rest).map_err(|_| "the attributes have no end mark")?;
        if type_code == kind::END {
            return Ok(None);
        }
        let (header, _) = AttributeHeader::ref_from_prefix(rest).map_err(|_| "an attribute leaves its record")?;
        let length = header.length.get() as usize;
        if length < size_of::<ResidentHeader>() || !length.is_multiple_of(8) {
            return Err("an attribute's length cannot be");
        }
        let bytes = rest.get(..length).ok_or("an attribute leaves its record")?;
        let name_at = usize::from(header.name_offset.get());
        let name = match usize::from(header.name_length) {
            0 => &[],
            units => bytes.get(name_at..name_at + units * 2).ok_or("a name leaves its attribute")?,
        };
        let body = if header.non_resident == 0 { resident(bytes, self.at)? } else { non_resident(bytes)? };
        let (flags, instance) = (header.flags.get(), header.instance.get());
        let attribute = Attribute { offset: self.at, type_code: type_code.get(), name, flags, instance, body };
        self.at += length;
        Ok(Some(attribute))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step();
        self.ended = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

fn resident(bytes: &[u8], base: usize) -> Result<Body<'_>, &'static str> {
    let (header, _) = ResidentHeader::ref_from_prefix(bytes).map_err(|_| "an attribute's header is cut")?;
    let (at, len) = (usize::from(header.value_offset.get()), header.value_length.get() as usize);
    let value = at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or("a resident value leaves its attribute")?;
    Ok(Body::Resident { at: base + at, value })
}

fn non_resident(bytes: &[u8]) -> Result<Body<'_>, &'static str> {
    let (header, _) = NonResidentHeader::ref_from_prefix(bytes).map_err(|_| "an attribute's header is cut")?;
    let at = usize::from(header.mapping_pairs_offset.get());
    let mapping_pairs = bytes.get(at..).filter(|_| at >= 64).ok_or("a run list leaves its attribute")?;
    Ok(Body::NonResident(NonResident {
        lowest_vcn: header.lowest_vcn.get(),
        highest_vcn: header.highest_vcn.get(),
        allocated_size: header.allocated_size.get(),
        data_size: header.data_size.get(),
        initialized_size: header.initialized_size.get(),
        compression_unit: header.compression_unit,
        mapping_pairs,
    }))
}

/// The value of $FILE_NAME; the name itself follows. Also the key of a directory's index.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileName {
    /// File reference of the directory.
    pub parent: U64,
    /// Creation, change of data, change of record, access. Often stale: [`StandardInformation`] is the truth.
    pub times: [U64; 4],
    /// Often stale.
    pub allocated_size: U64,
    /// Often stale.
    pub data_size: U64,
    /// File attributes.
    pub file_attributes: U32,
    /// Reparse tag or size of extended attributes.
    pub reparse_or_ea: U32,
    /// In UTF-16 units.
    pub name_length: u8,
    /// 0 POSIX, 1 Win32, 2 DOS, 3 both.
    pub name_space: u8,
}
const _: () = assert!(size_of::<FileName>() == 66);

impl FileName {
    /// The fixed part and the name.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<(&Self, &[u8])> {
        let (fixed, rest) = Self::ref_from_prefix(value).ok()?;
        Some((fixed, rest.get(..usize::from(fixed.name_length) * 2)?))
    }
}

/// The value of $STANDARD_INFORMATION; the last three words exist since NTFS 3.0.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct StandardInformation {
    /// Creation, change of data, change of record, access; in 100 ns since 1601.
    pub times: [U64; 4],
    /// Read-only, hidden, system, archive and the like.
    pub file_attributes: U32,
}

/// Where the security id stands in $STANDARD_INFORMATION.
pub const SECURITY_ID: std::ops::Range<usize> = 52..56;

/// Entry of $ATTRIBUTE_LIST.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ListEntry {
    /// One of [`kind`].
    pub type_code: U32,
    /// Of this entry, in bytes.
    pub length: U16,
    /// Of the attribute's name, in UTF-16 units.
    pub name_length: u8,
    /// Position of the name in the entry.
    pub name_offset: u8,
    /// First cluster that the piece maps.
    pub lowest_vcn: U64,
    /// File reference of the record that holds the piece.
    pub record: U64,
    /// Unique in that record only.
    pub instance: U16,
}
const _: () = assert!(size_of::<ListEntry>() == 26);

/// Cuts an attribute list; ends silently at what is no entry, and says whether all bytes were used.
#[must_use]
pub fn list_entries(mut list: &[u8]) -> (Vec<&ListEntry>, bool) {
    let mut entries = Vec::new();
    while let Ok((entry, _)) = ListEntry::ref_from_prefix(list) {
        let length = usize::from(entry.length.get());
        let Some(rest) = list.get(length..).filter(|_| length >= size_of::<ListEntry>()) else { break };
        entries.push(entry);
        list = rest;
    }
    (entries, list.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record with a good update sequence around the given attributes.
    pub(crate) fn record(attributes: &[u8]) -> Vec<u8> {
        let mut record = vec![0; 1024];
        record[..4].copy_from_slice(b"FILE");
        record[4..8].copy_from_slice(&[0x30, 0, 3, 0]);
        record[20..24].copy_from_slice(&[0x38, 0, 1, 0]);
        record[24..28].copy_from_slice(&((0x38 + attributes.len() + 8) as u32).to_le_bytes());
        record[0x38..][..attributes.len()].copy_from_slice(attributes);
        record[0x38 + attributes.len()..][..4].fill(0xFF);
        seal(&mut record);
        record
    }

    /// Writes the update sequence as a driver would.
    pub(crate) fn seal(record: &mut [u8]) {
        for stride in 0..record.len() / 512 {
            let end = stride * 512 + 510;
            let word = [record[end], record[end + 1]];
            record[0x32 + stride * 2..][..2].copy_from_slice(&word);
            record[end..end + 2].copy_from_slice(&[7, 0]);
        }
        record[0x30..0x32].copy_from_slice(&[7, 0]);
    }

    pub(crate) fn resident(code: u32, value: &[u8]) -> Vec<u8> {
        let length = (24 + value.len()).next_multiple_of(8);
        let mut attribute = vec![0; length];
        attribute[..4].copy_from_slice(&code.to_le_bytes());
        attribute[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        attribute[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
        attribute[20] = 24;
        attribute[24..][..value.len()].copy_from_slice(value);
        attribute
    }

    #[test]
    fn a_torn_record_is_told_from_a_whole_one() {
        let whole = record(&resident(kind::DATA, b"short file"));
        assert_eq!(fix_up(&mut whole.clone()), Ok(*b"FILE"));
        for end in [510, 1022] {
            let mut torn = whole.clone();
            torn[end] ^= 1;
            assert_eq!(fix_up(&mut torn), Err("torn: an update sequence number disagrees"));
        }
        let mut count = whole;
        count[6] = 2;
        assert!(fix_up(&mut count).is_err());
    }

    #[test]
    fn words_under_the_update_sequence_come_back() {
        let value: Vec<u8> = (0..700).map(|byte| byte as u8).collect();
        let mut bytes = record(&resident(kind::DATA, &value));
        fix_up(&mut bytes).unwrap();
        let (_, mut attributes) = Attributes::new(&bytes).unwrap();
        let Some(Ok(Attribute { body: Body::Resident { value: read, .. }, .. })) = attributes.next() else { panic!() };
        assert_eq!(read, value);
        assert!(attributes.next().is_none());
    }

    proptest! {
        #[test]
        fn any_attributes_end(bytes in prop::collection::vec(any::<u8>(), 0..900), code in 1u32..0x11, length in 0u32..200, form in 0u8..2) {
            let mut bytes = bytes;
            if bytes.len() > 16 {
                bytes[..4].copy_from_slice(&(code << 4).to_le_bytes());
                bytes[4..8].copy_from_slice(&(length * 8).to_le_bytes());
                bytes[8] = form;
            }
            let mut record = record(&bytes);
            fix_up(&mut record).unwrap();
            let (_, attributes) = Attributes::new(&record).unwrap();
            prop_assert!(attributes.count() <= record.len() / 16);
        }

        #[test]
        fn any_attribute_list_ends(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (entries, _) = list_entries(&bytes);
            prop_assert!(entries.len() <= bytes.len() / 26);
        }
    }
}
