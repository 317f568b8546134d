//! The volume header: the first record of an image set.
//!
//! One JSON record, so that a person with any tape program can read what a tape holds. Not here: whether the set is whole, which
//! only the trailer can say.
//!
//! Text: own format.

use std::fmt;
use std::str::FromStr;

use protocol::units::Lba;
use serde::{Deserialize, Serialize};

use super::{LayoutError, MAX_JSON_RECORD, VERSION};

/// `format` of a header record.
pub const FORMAT: &str = "offhost-image";
const PART: &str = "volume header";

/// 128 random bits that name a set, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SetId(pub [u8; 16]);

impl SetId {
    /// The id as people type it: enough digits to tell the sets of a shelf apart.
    #[must_use]
    pub fn short(self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// True when the id, as text, begins with what was typed.
    #[must_use]
    pub fn matches(self, typed: &str) -> bool {
        !typed.is_empty() && self.to_string().starts_with(&typed.to_ascii_lowercase())
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetId({self})")
    }
}

impl FromStr for SetId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("a set id is 32 hexadecimal digits");
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| "a set id is ASCII")?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| "a set id is hexadecimal")?;
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for SetId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SetId> for String {
    fn from(id: SetId) -> Self {
        id.to_string()
    }
}

/// How the set relates to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SetKind {
    /// Stands alone.
    Full,
}

/// The disk that was backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Designator of the LUN (VPD 83h), hexadecimal.
    pub designator: String,
    /// iSCSI name of its target.
    pub target: String,
    /// Its number there.
    pub lun: u64,
    /// Bytes a block.
    pub block_length: u32,
    /// Blocks of the LUN.
    pub capacity_blocks: u64,
    /// First block of the LUN that the set covers: 0, or where the partition begins.
    pub first_block: Lba,
    /// Blocks of the LUN that the set covers, used or not.
    pub blocks: u64,
    /// The partition's number, if one was asked for.
    pub partition: Option<u32>,
}

/// The moment the set shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Wall clock, milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// The quiet period that was asked for.
    pub quiet_asked_ms: u64,
    /// The quiet period there was.
    pub quiet_for_ms: u64,
    /// From the request to the moment.
    pub waited_ms: u64,
    /// How long the hosts' writes were held, microseconds.
    pub held_us: u64,
    /// What the moment is worth: quiet at the target is crash-consistent, since a host's cache may hold more.
    pub consistency: String,
}

/// What was found on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// As `ntfs`; `unknown` when nothing could be made of it.
    pub name: String,
    /// Bytes a cluster; 0 if unknown.
    pub cluster_length: u32,
    /// State of the log, for people.
    pub log: String,
    /// What decided which blocks are in the set: `used`, `allocated` or `whole`.
    pub scope: String,
    /// What the mapper had to say: damaged records, disagreements, fall-backs.
    pub notes: Vec<String>,
}

/// A tape file of the set: whole records between two filemarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Logical object number of its first record.
    pub first_object: u64,
    /// Logical object number behind its last record: that of the filemark.
    pub end_object: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Span {
    /// The span of `bytes` cut into records of `record_size`, the first being object `first_object`.
    #[must_use]
    pub fn of(first_object: u64, bytes: u64, record_size: u32) -> Self {
        Self { first_object, end_object: first_object + bytes.div_ceil(u64::from(record_size)), bytes }
    }

    /// Records in it.
    #[must_use]
    pub fn records(self) -> u64 {
        self.end_object.saturating_sub(self.first_object)
    }
}

/// The first record of an image set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeHeader {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The program that wrote it.
    pub writer: String,
    /// Name of the set.
    pub set: SetId,
    /// The set it builds upon.
    pub parent: Option<SetId>,
    /// How it relates to others.
    pub kind: SetKind,
    /// Text the user gave it.
    pub label: Option<String>,
    /// The disk.
    pub source: Source,
    /// The moment.
    pub moment: Moment,
    /// What was found on the disk.
    pub file_system: FileSystem,
    /// Logical object number of this record; a copy of a header inside somebody's data has another.
    pub at_object: u64,
    /// Bytes of every record of tables, data and catalog but the last of each.
    pub record_size: u32,
    /// Where the tables are.
    pub tables: Span,
    /// Where the data is.
    pub data: Span,
}

impl VolumeHeader {
    /// The record.
    ///
    /// # Errors
    /// [`LayoutError::Contradiction`] when it would not fit a record that every tape program can read.
    pub fn to_record(&self) -> Result<Vec<u8>, LayoutError> {
        let record = serde_json::to_vec(self).map_err(|error| LayoutError::Json { part: PART, problem: error.to_string() })?;
        if record.len() > MAX_JSON_RECORD {
            return Err(LayoutError::contradiction(PART, format!("{} bytes do not fit one record of 64 KiB", record.len())));
        }
        Ok(record)
    }

    /// Reads the record that stands at logical object `at_object`.
    ///
    /// # Errors
    /// [`LayoutError::Foreign`] when it is something else; [`LayoutError::Version`], [`LayoutError::Json`],
    /// [`LayoutError::Contradiction`] when it is a header and cannot be used.
    pub fn from_record(record: &[u8], at_object: u64) -> Result<Self, LayoutError> {
        check_format(record, FORMAT, PART)?;
        let header: Self =
            serde_json::from_slice(record).map_err(|error| LayoutError::Json { part: PART, problem: error.to_string() })?;
        header.check(at_object)?;
        Ok(header)
    }

    /// Reads a copy of the record that is kept elsewhere than on its tape.
    ///
    /// # Errors
    /// As [`VolumeHeader::from_record`].
    pub fn from_copy(record: &[u8]) -> Result<Self, LayoutError> {
        check_format(record, FORMAT, PART)?;
        let header: Self =
            serde_json::from_slice(record).map_err(|error| LayoutError::Json { part: PART, problem: error.to_string() })?;
        header.check(header.at_object)?;
        Ok(header)
    }

    /// A number of the header that restore relies on must agree with the others before anything is done with it.
    fn check(&self, at_object: u64) -> Result<(), LayoutError> {
        let wrong = |problem: &str| Err(LayoutError::contradiction(PART, problem));
        let block = u64::from(self.source.block_length);
        let record = u64::from(self.record_size);
        if !self.source.block_length.is_power_of_two() || !(512..=65_536).contains(&self.source.block_length) {
            return wrong("the block length is none that disks have");
        }
        if record == 0 || !record.is_multiple_of(block) || self.record_size > protocol::wire::U24::MAX {
            return wrong("the record size is no multiple of the block length, or too large");
        }
        if self.at_object != at_object {
            return wrong("it stands elsewhere than it says: a copy of a header, not a header");
        }
        let within =
            self.source.first_block.0.checked_add(self.source.blocks).is_some_and(|end| end <= self.source.capacity_blocks);
        if !within || self.source.capacity_blocks.checked_mul(block).is_none() {
            return wrong("the blocks it covers do not lie on the disk it names");
        }
        for span in [self.tables, self.data] {
            if span.end_object.checked_sub(span.first_object) != Some(span.bytes.div_ceil(record)) {
                return wrong("the objects of a tape file do not fit its bytes");
            }
        }
        if !self.data.bytes.is_multiple_of(block)
            || self.tables.first_object <= at_object
            || self.data.first_object <= self.tables.end_object
        {
            return wrong("its parts do not follow each other");
        }
        Ok(())
    }

    /// Logical object number of the first record of the catalog: behind the filemark of the data.
    #[must_use]
    pub fn catalog_object(&self) -> u64 {
        self.data.end_object + 1
    }
}

/// The two fields every JSON record of a set begins with, read before the rest so that a later version is named as one.
#[derive(Deserialize)]
struct Format {
    format: String,
    version: u32,
}

pub(super) fn check_format(record: &[u8], format: &str, part: &'static str) -> Result<(), LayoutError> {
    let head: Format = serde_json::from_slice(record).map_err(|_| LayoutError::Foreign { part })?;
    if head.format != format {
        return Err(LayoutError::Foreign { part });
    }
    if head.version > VERSION {
        return Err(LayoutError::Version { part, found: head.version, known: VERSION });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn example() -> VolumeHeader {
        VolumeHeader {
            format: FORMAT.to_owned(),
            version: VERSION,
            writer: "offhost test".to_owned(),
            set: SetId([0xAB; 16]),
            parent: None,
            kind: SetKind::Full,
            label: None,
            source: Source {
                designator: "6000000000000001".to_owned(),
                target: "iqn.2026-01.test:t".to_owned(),
                lun: 0,
                block_length: 512,
                capacity_blocks: 4096,
                first_block: Lba(0),
                blocks: 4096,
                partition: None,
            },
            moment: Moment {
                taken_unix_ms: 1,
                quiet_asked_ms: 3000,
                quiet_for_ms: 3001,
                waited_ms: 9000,
                held_us: 80,
                consistency: "crash-consistent".to_owned(),
            },
            file_system: FileSystem {
                name: "ntfs".to_owned(),
                cluster_length: 4096,
                log: "clean".to_owned(),
                scope: "used".to_owned(),
                notes: Vec::new(),
            },
            at_object: 4,
            record_size: 65_536,
            tables: Span::of(6, 100, 65_536),
            data: Span::of(8, 65_536 + 512, 65_536),
        }
    }

    #[test]
    fn a_header_comes_back_from_its_record() {
        let header = example();
        assert_eq!(VolumeHeader::from_record(&header.to_record().unwrap(), 4), Ok(header.clone()));
        assert_eq!((header.data.records(), header.catalog_object()), (2, 11));
    }

    #[test]
    fn a_copy_of_a_header_inside_data_is_told_from_a_header() {
        let record = example().to_record().unwrap();
        assert!(matches!(VolumeHeader::from_record(&record, 5), Err(LayoutError::Contradiction { .. })));
    }

    #[test]
    fn a_later_version_is_named_even_when_its_fields_changed() {
        let record = br#"{"format":"offhost-image","version":2,"colour":"blue"}"#;
        assert_eq!(VolumeHeader::from_record(record, 0), Err(LayoutError::Version { part: PART, found: 2, known: 1 }));
    }

    #[test]
    fn what_is_no_header_is_foreign() {
        for record in [&b""[..], b"VOL1", b"{}", br#"{"format":"tar","version":1}"#] {
            assert_eq!(VolumeHeader::from_record(record, 0), Err(LayoutError::Foreign { part: PART }));
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused() {
        let spoil: [fn(&mut VolumeHeader); 6] = [
            |h| h.source.block_length = 0,
            |h| h.record_size = 0,
            |h| h.record_size = 1000,
            |h| h.source.first_block = Lba(u64::MAX),
            |h| h.data.end_object += 1,
            |h| h.data = Span::of(7, 512, 65_536),
        ];
        for (case, spoil) in spoil.into_iter().enumerate() {
            let mut header = example();
            spoil(&mut header);
            let read = VolumeHeader::from_record(&header.to_record().unwrap(), 4);
            assert!(matches!(read, Err(LayoutError::Contradiction { .. })), "case {case}: {read:?}");
        }
    }

    #[test]
    fn a_set_id_is_its_text() {
        let id = SetId([0x0F; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.matches("0F0f") && !id.matches("f") && !id.matches(""));
        assert!("é".repeat(16).parse::<SetId>().is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = VolumeHeader::from_record(&bytes, 0);
        }
    }
}
