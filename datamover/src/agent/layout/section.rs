//! Sections: the frame around every binary part of an image set.
//!
//! A tape file of sections is their concatenation cut into records without regard to their borders. Not here: what a section's
//! body means.
//!
//! Text: own format. All numbers big-endian.

use protocol::wire::{Problem, U16, U32, U64, WireError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LayoutError;

const MAGIC: [u8; 8] = *b"OFFHOST\x1A";
const STRUCTURE: &str = "section of an image set";

/// Head of a section: 32 bytes, then the body.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SectionHead {
    magic: [u8; 8],
    kind: [u8; 4],
    version: U16,
    reserved: U16,
    /// Bytes of the body.
    length: U64,
    /// What the body holds that many of; for people and for a second check.
    entries: U32,
    /// Of the head with this field zero, then of the body.
    crc32c: U32,
}
const _: () = assert!(size_of::<SectionHead>() == 32);

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionKind {
    /// Compact address X → original address A.
    Correspondence,
    /// Original address A → place in the source's store.
    Allocation,
    /// The files.
    Catalog,
    /// The sums of the data.
    Manifest,
    /// One of a later offhost; skipped, its checksum still checked.
    Other([u8; 4]),
}

impl SectionKind {
    /// The kinds this version writes, with their tag and the version of their body.
    const KNOWN: [(Self, [u8; 4], u16); 4] = [
        (Self::Correspondence, *b"BLKX", 1),
        (Self::Allocation, *b"ALOC", 1),
        (Self::Catalog, *b"FILE", 1),
        (Self::Manifest, *b"SUMS", 1),
    ];

    fn from_tag(tag: [u8; 4]) -> Self {
        Self::KNOWN.iter().find(|known| known.1 == tag).map_or(Self::Other(tag), |known| known.0)
    }

    fn tag_and_version(self) -> ([u8; 4], u16) {
        match self {
            Self::Other(tag) => (tag, 0),
            kind => Self::KNOWN
                .iter()
                .find(|known| known.0 == kind)
                .map(|known| (known.1, known.2))
                .expect("every named kind has a row"),
        }
    }
}

/// One section, taken out of its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: SectionKind,
    /// As its head says.
    pub entries: u32,
    /// Checked against the checksum.
    pub body: &'a [u8],
}

impl Section<'_> {
    /// Appends the section to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (kind, version) = self.kind.tag_and_version();
        let mut head = SectionHead {
            magic: MAGIC,
            kind,
            version: version.into(),
            reserved: 0.into(),
            length: (self.body.len() as u64).into(),
            entries: self.entries.into(),
            crc32c: 0.into(),
        };
        head.crc32c = sum(head, self.body).into();
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.body);
    }
}

/// Takes a tape file of sections apart. Bytes behind the last section (the trailer record) are the caller's to cut off.
///
/// # Errors
/// [`LayoutError::Wire`] at the byte at fault, counted from the tape file's first; [`LayoutError::Version`] for a body that a
/// later offhost wrote.
pub fn sections(bytes: &[u8]) -> Result<Vec<Section<'_>>, LayoutError> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let (section, behind) = section(rest).map_err(|error| match error {
            LayoutError::Wire(wire) => LayoutError::Wire(wire.shifted(at)),
            other => other,
        })?;
        found.push(section);
        rest = behind;
    }
    Ok(found)
}

fn section(bytes: &[u8]) -> Result<(Section<'_>, &[u8]), LayoutError> {
    let truncated = |needed| WireError::new(STRUCTURE, 0, Problem::Truncated { needed, available: bytes.len() });
    let (head, rest) = SectionHead::read_from_prefix(bytes).map_err(|_| truncated(size_of::<SectionHead>()))?;
    if head.magic != MAGIC {
        let problem = Problem::Text("no section begins here");
        return Err(WireError::new(STRUCTURE, 0, problem).into());
    }
    let length = usize::try_from(head.length.get()).ok().filter(|length| *length <= rest.len()).ok_or_else(|| {
        truncated(usize::try_from(head.length.get()).unwrap_or(usize::MAX).saturating_add(size_of::<SectionHead>()))
    })?;
    let (body, behind) = rest.split_at(length);
    let computed = sum(head, body);
    if computed != head.crc32c.get() {
        return Err(WireError::new(STRUCTURE, 28, Problem::Checksum { stored: head.crc32c.get(), computed }).into());
    }
    let kind = SectionKind::from_tag(head.kind);
    let known = kind.tag_and_version().1;
    if !matches!(kind, SectionKind::Other(_)) && head.version.get() > known {
        return Err(LayoutError::Version { part: STRUCTURE, found: head.version.get().into(), known: known.into() });
    }
    Ok((Section { kind, entries: head.entries.get(), body }, behind))
}

fn sum(head: SectionHead, body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(SectionHead { crc32c: 0.into(), ..head }.as_bytes());
    digest.update(body);
    digest.finalize() as u32
}

/// The one section of a kind.
///
/// # Errors
/// [`LayoutError::Missing`], or [`LayoutError::Contradiction`] when there are two.
pub fn only<'a, 'b>(sections: &'b [Section<'a>], kind: SectionKind, name: &'static str) -> Result<&'b Section<'a>, LayoutError> {
    let mut of_kind = sections.iter().filter(|section| section.kind == kind);
    let first = of_kind.next().ok_or(LayoutError::Missing(name))?;
    if of_kind.next().is_some() {
        return Err(LayoutError::contradiction(name, "is there twice"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn crc32c_is_the_castagnoli_one() {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(b"123456789");
        assert_eq!(digest.finalize(), 0xE306_9283, "check value of CRC-32C");
    }

    #[test]
    fn sections_come_back_as_they_were_written() {
        let mut file = Vec::new();
        let first = Section { kind: SectionKind::Correspondence, entries: 2, body: b"abc" };
        let later = Section { kind: SectionKind::Other(*b"NEWS"), entries: 0, body: b"" };
        first.write(&mut file);
        later.write(&mut file);
        assert_eq!(file.len(), 32 + 3 + 32);
        assert_eq!(sections(&file), Ok(vec![first, later]));
    }

    #[test]
    fn a_body_of_a_later_version_is_refused_by_its_number() {
        let mut file = Vec::new();
        Section { kind: SectionKind::Catalog, entries: 0, body: b"?" }.write(&mut file);
        let (mut head, body) = SectionHead::read_from_prefix(&file[..]).unwrap();
        head.version = 2.into();
        head.crc32c = sum(head, body).into();
        let file = [head.as_bytes(), b"?"].concat();
        assert!(matches!(sections(&file), Err(LayoutError::Version { found: 2, known: 1, .. })));
    }

    #[test]
    fn damage_is_named_at_its_section() {
        let mut file = Vec::new();
        Section { kind: SectionKind::Catalog, entries: 0, body: b"one" }.write(&mut file);
        let second = file.len();
        Section { kind: SectionKind::Manifest, entries: 0, body: b"two" }.write(&mut file);
        *file.last_mut().unwrap() ^= 1;
        let Err(LayoutError::Wire(error)) = sections(&file) else { panic!("damage went unseen") };
        assert_eq!(error.offset, second + 28);
    }

    proptest! {
        #[test]
        fn any_single_flipped_bit_is_seen(body in prop::collection::vec(any::<u8>(), 0..200), bit in any::<prop::sample::Index>()) {
            let mut file = Vec::new();
            Section { kind: SectionKind::Allocation, entries: 7, body: &body }.write(&mut file);
            let bit = bit.index(file.len() * 8);
            file[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(sections(&file).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = sections(&bytes);
            let mut behind_magic = MAGIC.to_vec();
            behind_magic.extend(&bytes);
            let _ = sections(&behind_magic);
        }
    }
}
