//! The end of an image set: the sums of its data, and the record that says the set is whole.
//!
//! The agent never sees the data. The drive sums the records of each tape file as they are written; the agent reads those sums
//! through the tape's vendor log page and writes them down here. A foreign copy manager gives none, and the manifest says so.
//!
//! Text: own format.

use serde::{Deserialize, Serialize};

use super::header::check_format;
use super::{LayoutError, MAX_JSON_RECORD, Section, SectionKind, SetId, VERSION};

/// `format` of a trailer record.
pub const FORMAT: &str = "offhost-image-end";
const PART: &str = "trailer";
const MANIFEST: &str = "integrity manifest";

/// Sums of the data, one row a tape file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Where the sums come from, or why there are none.
    pub origin: String,
    /// Header, tables and data, in this order, as far as there are sums.
    pub files: Vec<DataSum>,
}

/// The sum of one tape file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSum {
    /// As `data`.
    pub part: String,
    /// Logical object number of its first record.
    pub first_object: u64,
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3 over the BLAKE3 hashes of the records, hexadecimal.
    pub root: String,
}

impl Manifest {
    /// Appends the section to `out`.
    ///
    /// # Errors
    /// [`LayoutError::Json`] when it cannot be written down.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), LayoutError> {
        let body = serde_json::to_vec(self).map_err(|error| LayoutError::Json { part: MANIFEST, problem: error.to_string() })?;
        let count = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        Section { kind: SectionKind::Manifest, entries: count, body: &body }.write(out);
        Ok(())
    }

    /// Reads the section's body.
    ///
    /// # Errors
    /// [`LayoutError::Json`].
    pub fn parse(body: &[u8]) -> Result<Self, LayoutError> {
        serde_json::from_slice(body).map_err(|error| LayoutError::Json { part: MANIFEST, problem: error.to_string() })
    }

    /// The sum of a part.
    #[must_use]
    pub fn of(&self, part: &str) -> Option<&DataSum> {
        self.files.iter().find(|sum| sum.part == part)
    }
}

/// Sum over the records of a tape file, as the drive makes it: BLAKE3 over the concatenated BLAKE3 hashes of the records.
#[must_use]
pub fn root_of<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> blake3::Hash {
    let mut root = blake3::Hasher::new();
    for record in records {
        root.update(blake3::hash(record).as_bytes());
    }
    root.finalize()
}

/// The last record of an image set. It is there only if everything before it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The set it ends.
    pub set: SetId,
    /// Logical object number of the set's header.
    pub header_object: u64,
    /// Logical object number of this record.
    pub at_object: u64,
    /// Blocks of the compact copy.
    pub blocks: u64,
    /// Files in the catalog.
    pub files: u64,
    /// BLAKE3 of the header record.
    pub header_blake3: String,
    /// BLAKE3 of the tape file of tables.
    pub tables_blake3: String,
    /// BLAKE3 of the catalog's tape file without this record.
    pub catalog_blake3: String,
}

impl Trailer {
    /// The record.
    ///
    /// # Errors
    /// [`LayoutError::Json`] when it cannot be written down.
    pub fn to_record(&self) -> Result<Vec<u8>, LayoutError> {
        serde_json::to_vec(self).map_err(|error| LayoutError::Json { part: PART, problem: error.to_string() })
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`LayoutError::Foreign`] when it is something else; [`LayoutError::Version`], [`LayoutError::Json`] when it cannot be used;
    /// [`LayoutError::Contradiction`] when it stands elsewhere than it says.
    pub fn from_record(record: &[u8], at_object: u64) -> Result<Self, LayoutError> {
        let trailer = Self::from_copy(record)?;
        if trailer.at_object != at_object {
            return Err(LayoutError::contradiction(
                PART,
                format!("it stands at object {at_object} and says {}", trailer.at_object),
            ));
        }
        Ok(trailer)
    }

    /// Reads a copy of the record that is kept elsewhere than on its tape.
    ///
    /// # Errors
    /// As [`Trailer::from_record`].
    pub fn from_copy(record: &[u8]) -> Result<Self, LayoutError> {
        if record.len() > MAX_JSON_RECORD {
            return Err(LayoutError::Foreign { part: PART });
        }
        check_format(record, FORMAT, PART)?;
        serde_json::from_slice(record).map_err(|error| LayoutError::Json { part: PART, problem: error.to_string() })
    }

    /// A trailer of this version.
    #[must_use]
    pub fn new(set: SetId, header_object: u64, at_object: u64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            set,
            header_object,
            at_object,
            blocks: 0,
            files: 0,
            header_blake3: String::new(),
            tables_blake3: String::new(),
            catalog_blake3: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_trailer_comes_back_from_its_record_and_only_from_its_place() {
        let trailer = Trailer { blocks: 9, ..Trailer::new(SetId([1; 16]), 0, 77) };
        let record = trailer.to_record().unwrap();
        assert_eq!(Trailer::from_record(&record, 77), Ok(trailer));
        assert!(matches!(Trailer::from_record(&record, 78), Err(LayoutError::Contradiction { .. })));
        assert_eq!(Trailer::from_record(b"{}", 77), Err(LayoutError::Foreign { part: PART }));
    }

    #[test]
    fn a_manifest_comes_back_from_its_section() {
        let sum = DataSum {
            part: "data".to_owned(),
            first_object: 8,
            records: 2,
            bytes: 66_048,
            root: root_of([&b"a"[..], b"b"]).to_string(),
        };
        let manifest = Manifest { origin: "drive".to_owned(), files: vec![sum] };
        let mut file = Vec::new();
        manifest.write(&mut file).unwrap();
        let back = Manifest::parse(super::super::section::sections(&file).unwrap()[0].body).unwrap();
        assert_eq!(back.of("data").unwrap().records, 2);
        assert_eq!(back, manifest);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Trailer::from_record(&bytes, 0);
            let _ = Manifest::parse(&bytes);
        }
    }
}
