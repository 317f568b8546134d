//! What proves the data of a tape: two sums a record, one root a tape file, and the log page that tells them.
//!
//! A record's sums are CRC32C (cheap enough to check at every read) and BLAKE3. A tape file is what lies between two filemarks;
//! its root is BLAKE3 over the BLAKE3 hashes of its records, one after the other, so that writer and reader agree on it without
//! keeping the data and it can be built from the index alone.
//!
//! Does not say when sums are taken; [`super::index::SumState`] tells what they are worth.
//!
//! CRC32C: RFC 7143 (13.1). The log page is vendor specific, in the frame of SPC-4, "Log parameters".

use std::fmt;

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{Problem, U16, U64, WireError};

/// CRC32C of some bytes.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC32C of bytes in several pieces.
#[must_use]
pub fn crc32c_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    parts.into_iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// The sums of one record's data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RecordSum {
    /// CRC32C.
    pub crc32c: u32,
    /// BLAKE3.
    pub blake3: [u8; 32],
}

impl RecordSum {
    /// Of data in one piece.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self { crc32c: crc32c(data), blake3: *blake3::hash(data).as_bytes() }
    }

    /// Of data in several pieces.
    #[must_use]
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut summer = RecordSummer::default();
        parts.into_iter().for_each(|part| summer.update(part));
        summer.finish()
    }
}

impl fmt::Debug for RecordSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}/{}", self.crc32c, blake3::Hash::from_bytes(self.blake3).to_hex())
    }
}

/// Takes a record's sums piece by piece.
pub struct RecordSummer {
    crc32c: crc_fast::Digest,
    blake3: blake3::Hasher,
}

impl Default for RecordSummer {
    fn default() -> Self {
        Self { crc32c: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi), blake3: blake3::Hasher::new() }
    }
}

impl RecordSummer {
    /// The next piece of data.
    pub fn update(&mut self, data: &[u8]) {
        self.crc32c.update(data);
        self.blake3.update(data);
    }

    /// The sums of all pieces.
    #[must_use]
    pub fn finish(self) -> RecordSum {
        RecordSum { crc32c: self.crc32c.finalize() as u32, blake3: *self.blake3.finalize().as_bytes() }
    }
}

impl fmt::Debug for RecordSummer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordSummer")
    }
}

/// What proves one tape file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSums {
    /// Filemarks in front of it: the logical file identifier.
    pub file: u64,
    /// Logical object number of its first object.
    pub first_object: u64,
    /// Records in it.
    pub records: u64,
    /// Data bytes in them.
    pub bytes: u64,
    /// A filemark ends it; else it is the last and may grow.
    pub closed: bool,
    /// Every record's sums were taken while it was written. Without it the root is no proof.
    pub complete: bool,
    /// BLAKE3 over the records' BLAKE3 hashes.
    pub root: [u8; 32],
}

/// Builds [`FileSums`] record by record.
#[derive(Clone)]
pub struct FileSummer {
    sums: FileSums,
    root: blake3::Hasher,
}

impl FileSummer {
    /// An empty tape file.
    #[must_use]
    pub fn new(file: u64, first_object: u64) -> Self {
        let sums = FileSums { file, first_object, records: 0, bytes: 0, closed: false, complete: true, root: [0; 32] };
        Self { sums, root: blake3::Hasher::new() }
    }

    /// The next record. `proof` is false where its sums were not taken while it was written.
    pub fn record(&mut self, length: u32, sum: &RecordSum, proof: bool) {
        self.sums.records += 1;
        self.sums.bytes += u64::from(length);
        self.sums.complete &= proof;
        self.root.update(&sum.blake3);
    }

    /// The sums up to here.
    #[must_use]
    pub fn sums(&self, closed: bool) -> FileSums {
        FileSums { closed, root: *self.root.finalize().as_bytes(), ..self.sums }
    }
}

impl fmt::Debug for FileSummer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sums.fmt(f)
    }
}

/// PAGE CODE of the log page that holds [`FileSums`]. 30h to 3Eh are vendor specific; those that LTO drives have for other things
/// (30h to 39h, 3Ch to 3Eh) are left to these.
pub const LOG_PAGE: u8 = 0x3A;
/// Most tape files one log page tells of: PAGE LENGTH has 16 bits. PARAMETER POINTER of LOG SENSE asks for later ones.
pub const MAX_FILES_PER_PAGE: usize = u16::MAX as usize / size_of::<Parameter>();

const CLOSED: u8 = 0x01;
const COMPLETE: u8 = 0x02;
/// FORMAT AND LINKING 11b: binary list.
const BINARY_LIST: u8 = 0x03;

/// One tape file in the log page. The parameter code is the file's number, so files behind 65,535 cannot be told.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Parameter {
    parameter_code: U16,
    control: u8,
    parameter_length: u8,
    flags: u8,
    reserved: [u8; 7],
    first_object: U64,
    records: U64,
    bytes: U64,
    root: [u8; 32],
}
const PARAMETER_HEADER: usize = 4;
const _: () = assert!(size_of::<Parameter>() == 68);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PageHeader {
    page_code: u8,
    subpage_code: u8,
    page_length: U16,
}

/// The log page of up to [`MAX_FILES_PER_PAGE`] tape files; what does not fit, or has no parameter code, is left out.
#[must_use]
pub fn emit_log_page(files: &[FileSums]) -> Vec<u8> {
    let parameters: Vec<Parameter> = files.iter().take(MAX_FILES_PER_PAGE).map_while(parameter).collect();
    let length = (parameters.len() * size_of::<Parameter>()) as u16;
    let header = PageHeader { page_code: LOG_PAGE, subpage_code: 0, page_length: length.into() };
    [header.as_bytes(), parameters.as_slice().as_bytes()].concat()
}

fn parameter(sums: &FileSums) -> Option<Parameter> {
    let flags = if sums.closed { CLOSED } else { 0 } | if sums.complete { COMPLETE } else { 0 };
    Some(Parameter {
        parameter_code: u16::try_from(sums.file).ok()?.into(),
        control: BINARY_LIST,
        parameter_length: (size_of::<Parameter>() - PARAMETER_HEADER) as u8,
        flags,
        reserved: [0; 7],
        first_object: sums.first_object.into(),
        records: sums.records.into(),
        bytes: sums.bytes.into(),
        root: sums.root,
    })
}

/// Reads the log page as LOG SENSE returned it. A page cut by the allocation length gives the whole parameters in it.
///
/// # Errors
/// When it is another page, or its parameters are not of this layout.
pub fn parse_log_page(page: &[u8]) -> Result<Vec<FileSums>, WireError> {
    const STRUCTURE: &str = "tape sums log page";
    let (header, rest) = PageHeader::ref_from_prefix(page).map_err(|_| {
        WireError::new(STRUCTURE, 0, Problem::Truncated { needed: size_of::<PageHeader>(), available: page.len() })
    })?;
    if header.page_code & 0x3F != LOG_PAGE {
        let value = header.page_code.into();
        return Err(WireError::new(STRUCTURE, 0, Problem::Value { field: "PAGE CODE", value }));
    }
    let body = &rest[..rest.len().min(header.page_length.get().into())];
    let (parameters, _cut) =
        <[Parameter]>::ref_from_prefix_with_elems(body, body.len() / size_of::<Parameter>()).expect("as many as the body holds");
    parameters
        .iter()
        .enumerate()
        .map(|(n, parameter)| {
            if usize::from(parameter.parameter_length) != size_of::<Parameter>() - PARAMETER_HEADER {
                let offset = size_of::<PageHeader>() + n * size_of::<Parameter>() + 3;
                let value = parameter.parameter_length.into();
                return Err(WireError::new(STRUCTURE, offset, Problem::Value { field: "PARAMETER LENGTH", value }));
            }
            Ok(FileSums {
                file: parameter.parameter_code.get().into(),
                first_object: parameter.first_object.get(),
                records: parameter.records.get(),
                bytes: parameter.bytes.get(),
                closed: parameter.flags & CLOSED != 0,
                complete: parameter.flags & COMPLETE != 0,
                root: parameter.root,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn crc32c_is_that_of_rfc_7143() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(RecordSum::of(b"123456789").crc32c, 0xE306_9283);
    }

    #[test]
    fn a_record_in_pieces_has_the_sums_of_the_whole() {
        assert_eq!(RecordSum::of_parts([&b"12345"[..], b"", b"6789"]), RecordSum::of(b"123456789"));
    }

    #[test]
    fn the_root_is_blake3_over_the_records_hashes() {
        let mut file = FileSummer::new(3, 10);
        for record in [&b"one"[..], b"two"] {
            file.record(record.len() as u32, &RecordSum::of(record), true);
        }
        let hashes = [*blake3::hash(b"one").as_bytes(), *blake3::hash(b"two").as_bytes()].concat();
        let root = *blake3::hash(&hashes).as_bytes();
        let sums = FileSums { file: 3, first_object: 10, records: 2, bytes: 6, closed: true, complete: true, root };
        assert_eq!(file.sums(true), sums);
        file.record(1, &RecordSum::default(), false);
        assert!(!file.sums(true).complete);
    }

    #[test]
    fn the_log_page_reads_as_it_was_written() {
        let sums =
            FileSums { file: 2, first_object: 5, records: 3, bytes: 0x600, closed: true, complete: false, root: [0xAB; 32] };
        let page = emit_log_page(&[sums]);
        let golden = "3a 00 0044  0002 03 40  01 00000000000000  0000000000000005 0000000000000003 0000000000000600";
        assert_eq!(page[..page.len() - 32], crate::wire::hex(golden)[..]);
        assert_eq!(parse_log_page(&page), Ok(vec![sums]));
    }

    #[test]
    fn a_log_page_cut_short_gives_its_whole_parameters() {
        let sums = FileSummer::new(0, 0).sums(true);
        let page = emit_log_page(&vec![sums; 2000]);
        assert!(page.len() <= 4 + usize::from(u16::MAX));
        assert_eq!(parse_log_page(&page).unwrap().len(), MAX_FILES_PER_PAGE);
        assert_eq!(parse_log_page(&page[..page.len() - 1]).unwrap().len(), MAX_FILES_PER_PAGE - 1);
    }

    proptest! {
        #[test]
        fn arbitrary_pages_never_panic(page in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_log_page(&page);
        }
    }
}
