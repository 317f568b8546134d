//! The file catalog: every file of the volume, by path, and where its bytes are.
//!
//! Written behind the data so that `files` and the restore of one file need no file-system reading of the tape. Addresses are
//! bytes of the original disk; the block correspondence table leads to the tape. Not here: directories' own indexes, attributes and
//! access lists, which are blocks like all others and come back with the volume.
//!
//! Text: own format; the body is [postcard](https://postcard.jamesmunns.com/wire-format).

use serde::{Deserialize, Serialize};

use super::{LayoutError, Section, SectionKind};

const PART: &str = "file catalog";

/// Everything that is known of the files at the moment of the set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Catalog {
    /// In the order of their record numbers.
    pub files: Vec<FileEntry>,
}

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Number of its file record.
    pub record: u64,
    /// Its sequence number.
    pub sequence: u16,
    /// A directory; it has no unnamed stream.
    pub directory: bool,
    /// All its paths, `/` between the names and none in front; several when it is hard-linked, none when nothing names it.
    pub paths: Vec<String>,
    /// The unnamed stream first, if there is one.
    pub streams: Vec<StreamEntry>,
}

/// A stream of bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEntry {
    /// Empty for the file's own content.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes behind which everything reads as zero, whatever the blocks hold.
    pub valid: u64,
    /// Where they are.
    pub content: Content,
}

/// Where the bytes of a stream are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// In the file record itself.
    Resident(Vec<u8>),
    /// In blocks of the disk. Ascending; what is between them are zeros.
    Extents(Vec<Extent>),
    /// In blocks that hold something else than the plain bytes; named so that nobody takes them for it.
    Encoded {
        /// As `compressed (LZNT1)`.
        how: String,
        /// The blocks, by place in the stream.
        extents: Vec<Extent>,
    },
    /// The mapper could not tell; the text says why.
    Unknown(String),
}

/// A stretch of a stream that lies together on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Byte of the stream.
    pub at: u64,
    /// Byte of the disk.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Catalog {
    /// Appends the section to `out`.
    ///
    /// # Errors
    /// [`LayoutError::Contradiction`] when the catalog cannot be written down.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), LayoutError> {
        let body = postcard::to_stdvec(self).map_err(|error| LayoutError::contradiction(PART, error.to_string()))?;
        let count = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        Section { kind: SectionKind::Catalog, entries: count, body: &body }.write(out);
        Ok(())
    }

    /// Reads the section's body.
    ///
    /// # Errors
    /// [`LayoutError::Contradiction`] for a body that is no catalog, or one whose numbers overflow.
    pub fn parse(body: &[u8]) -> Result<Self, LayoutError> {
        let (catalog, rest) =
            postcard::take_from_bytes::<Self>(body).map_err(|error| LayoutError::contradiction(PART, error.to_string()))?;
        if !rest.is_empty() {
            return Err(LayoutError::contradiction(PART, format!("{} bytes follow its end", rest.len())));
        }
        catalog.files.iter().try_for_each(FileEntry::check)?;
        Ok(catalog)
    }

    /// The file with this path, compared exactly; a leading `/` or `\` and backslashes between the names are accepted.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<(&FileEntry, Option<&StreamEntry>)> {
        let wanted = normal(path);
        let by_path = |wanted: &str| self.files.iter().find(|file| file.paths.iter().any(|path| path == wanted));
        if let Some(file) = by_path(&wanted) {
            return Some((file, file.stream("")));
        }
        // NTFS allows no colon in a name: behind one stands the name of a stream.
        let (file, stream) = wanted.rsplit_once(':')?;
        let file = by_path(file)?;
        file.stream(stream).map(|found| (file, Some(found)))
    }

    /// Paths that resemble the one that was not found, for the error.
    #[must_use]
    pub fn suggestions(&self, path: &str) -> Vec<&str> {
        let wanted = normal(path).to_lowercase();
        let last = wanted.rsplit('/').next().unwrap_or_default().to_owned();
        let all = self.files.iter().flat_map(|file| &file.paths).map(String::as_str);
        all.filter(|path| !last.is_empty() && path.to_lowercase().contains(&last)).take(5).collect()
    }
}

fn normal(path: &str) -> String {
    path.replace('\\', "/").trim_matches('/').to_owned()
}

impl FileEntry {
    /// The stream of this name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&StreamEntry> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    /// A restore walks these numbers; they must not overflow, overlap or go backwards.
    fn check(&self) -> Result<(), LayoutError> {
        let wrong = |stream: &StreamEntry, problem: &str| {
            Err(LayoutError::contradiction(PART, format!("record {} stream {:?}: {problem}", self.record, stream.name)))
        };
        for stream in &self.streams {
            let extents = match &stream.content {
                Content::Extents(extents) | Content::Encoded { extents, .. } => extents,
                Content::Resident(bytes) if bytes.len() as u64 != stream.size => {
                    return wrong(stream, "its size is not that of its bytes");
                }
                Content::Resident(_) | Content::Unknown(_) => continue,
            };
            let mut end = 0;
            for extent in extents {
                let Some(behind) =
                    extent.at.checked_add(extent.bytes).filter(|_| extent.start.checked_add(extent.bytes).is_some())
                else {
                    return wrong(stream, "an extent goes beyond 64 bits");
                };
                if extent.at < end {
                    return wrong(stream, "its extents overlap");
                }
                end = behind;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::section::sections;
    use super::*;
    use proptest::prelude::*;

    fn example() -> Catalog {
        let extents = vec![Extent { at: 0, start: 409_600, bytes: 4096 }, Extent { at: 8192, start: 8192, bytes: 904 }];
        Catalog {
            files: vec![FileEntry {
                record: 64,
                sequence: 2,
                directory: false,
                paths: vec!["Dir/Größe.txt".to_owned(), "twin".to_owned()],
                streams: vec![
                    StreamEntry { name: String::new(), size: 9096, valid: 9096, content: Content::Extents(extents) },
                    StreamEntry { name: "note".to_owned(), size: 2, valid: 2, content: Content::Resident(b"hi".to_vec()) },
                ],
            }],
        }
    }

    #[test]
    fn a_catalog_comes_back_from_its_section() {
        let mut file = Vec::new();
        example().write(&mut file).unwrap();
        assert_eq!(Catalog::parse(sections(&file).unwrap()[0].body), Ok(example()));
    }

    #[test]
    fn a_file_is_found_by_any_of_its_paths_and_a_stream_behind_a_colon() {
        let catalog = example();
        assert_eq!(catalog.find("\\Dir\\Größe.txt").unwrap().1.unwrap().size, 9096);
        assert_eq!(catalog.find("/twin:note").unwrap().1.unwrap().size, 2);
        assert!(catalog.find("twin:none").is_none() && catalog.find("dir").is_none());
        assert_eq!(catalog.suggestions("GRÖSSE.TXT"), Vec::<&str>::new());
        assert_eq!(catalog.suggestions("größe"), ["Dir/Größe.txt"]);
    }

    #[test]
    fn extents_that_overlap_or_overflow_are_refused() {
        for (at, bytes) in [(100, 5000), (u64::MAX, 2)] {
            let mut catalog = example();
            let second = Extent { at, start: 512, bytes };
            let Content::Extents(extents) = &mut catalog.files[0].streams[0].content else { unreachable!() };
            extents[1] = second;
            let mut file = Vec::new();
            catalog.write(&mut file).unwrap();
            assert!(Catalog::parse(sections(&file).unwrap()[0].body).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Catalog::parse(&body);
        }
    }
}
