//! The catalog as people and the backup see it: files by path, their streams and extents, and who owns a block.
//!
//! Offsets and extents are in bytes of the LUN. Paths are shown with `/` and with U+FFFD for what is no Unicode; the true
//! UTF-16 stands beside them.

use super::NtfsVolume;
use super::build::FIRST_USER;
use super::catalog::{AttributeRow, NameRow, RecordRow, StreamRow};
use super::names::ROOT;
use super::record::{FileReference, flag, kind};
use super::runs::Run;
use protocol::units::ByteRange;
use serde::Serialize;

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its first path, from the root of the volume; under [`ORPHANS`] when no directory leads to it.
    pub path: String,
    /// The path's UTF-16 units.
    #[serde(skip)]
    pub raw_path: Vec<u16>,
    /// File record number.
    pub record: u64,
    /// Which life of the record.
    pub sequence: u16,
    /// A directory.
    pub directory: bool,
    /// A part of it could not be read; the map's notes say what.
    pub damaged: bool,
    /// No path from the root directory leads to it.
    pub orphan: bool,
    /// Bytes of the unnamed data stream; 0 where there is none.
    pub size: u64,
    /// In 100 ns since 1601.
    pub times: Times,
    /// File attributes as in $STANDARD_INFORMATION.
    pub file_attributes: u32,
    /// Index into $Secure; 0 where the file has its own descriptor.
    pub security_id: u32,
    /// All names, short names included.
    pub links: Vec<Link>,
    /// All attributes, in the order of their types.
    pub attributes: Vec<Attribute>,
}

/// NTFS time stamps, in 100 ns since 1601-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Times {
    /// Creation.
    pub created: u64,
    /// Last change of data.
    pub modified: u64,
    /// Last change of the file record.
    pub changed: u64,
    /// Last access.
    pub accessed: u64,
}

/// One name of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The whole path.
    pub path: String,
    /// Its UTF-16 units.
    #[serde(skip)]
    pub raw_path: Vec<u16>,
    /// 0 POSIX, 1 Win32, 2 DOS, 3 both.
    pub name_space: u8,
    /// The directory's index lists it.
    pub listed: bool,
}

/// One attribute of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attribute {
    /// Type code.
    pub type_code: u32,
    /// Type in words.
    pub kind: String,
    /// Its name; empty for the unnamed one.
    pub name: String,
    /// Bytes of the value.
    pub size: u64,
    /// LZNT1 by units.
    pub compressed: bool,
    /// EFS: the clusters hold ciphertext.
    pub encrypted: bool,
    /// May have holes.
    pub sparse: bool,
    /// File record that holds it, or its first piece.
    pub holder: u64,
    /// Where the value is.
    pub place: Place,
}

impl Attribute {
    /// True for a stream of file data, named or not.
    #[must_use]
    pub const fn is_data(&self) -> bool {
        self.type_code == kind::DATA
    }
}

/// Where the value of an attribute lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "residence", rename_all = "snake_case")]
pub enum Place {
    /// In the file record. On disk the last two bytes of every 512 are replaced by the update sequence, so the bytes at `at`
    /// are not the value where it crosses such a place; `value` is.
    Resident {
        /// On the LUN.
        at: Vec<ByteRange>,
        /// The value itself, kept for data, reparse points and extended attributes.
        #[serde(skip)]
        value: Option<Vec<u8>>,
    },
    /// In clusters.
    NonResident {
        /// Bytes of clusters reserved, holes of sparse and compressed streams included.
        allocated: u64,
        /// Behind this byte the value reads as zero, whatever the clusters hold.
        valid_data_length: u64,
        /// Clusters of one compression unit; 0 for none.
        compression_unit: u64,
        /// In the order of the stream, covering whole clusters.
        extents: Vec<Extent>,
    },
}

/// A piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// First byte in the stream.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// First byte on the LUN; `None` for a hole.
    pub at: Option<u64>,
}

/// Who holds a byte of the LUN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// File record number.
    pub record: u64,
    /// First path of the file.
    pub path: String,
    /// Type of the attribute in words; empty for a whole file record.
    pub kind: String,
    /// Name of the attribute.
    pub stream: String,
    /// Byte of the stream, or of the file record.
    pub offset: u64,
    /// True when the byte is in this file's own record, with its resident attributes.
    pub resident: bool,
}

/// Where files are shown that no directory leads to.
pub const ORPHANS: &str = "/$Orphans";

/// Where records are shown that the file system keeps for itself and that have no name.
pub const RESERVED: &str = "/$Reserved";

impl NtfsVolume {
    /// All files, in the order of their records.
    pub fn files(&self) -> impl ExactSizeIterator<Item = File> + '_ {
        self.catalog.records.iter().map(|row| self.view(row))
    }

    /// A file by its record number.
    #[must_use]
    pub fn record(&self, number: u64) -> Option<File> {
        self.catalog.find(number).map(|(_, row)| self.view(row))
    }

    /// A file by its path from the root, with `/` or `\` between names; exact spelling goes before another case.
    ///
    /// Case is folded by Unicode, not by the volume's own $UpCase.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<File> {
        let parts: Vec<Vec<u16>> =
            path.split(['/', '\\']).filter(|part| !part.is_empty()).map(|part| part.encode_utf16().collect()).collect();
        let Some(last) = parts.last() else { return self.record(ROOT) };
        let spellings: [Same; 2] = [|a, b| a == b, same_but_for_case];
        spellings
            .into_iter()
            .find_map(|same| {
                self.catalog.records.iter().find(|row| {
                    let names = self.catalog.names_of(row).iter().filter(|name| same(self.units(name), last));
                    names.into_iter().any(|name| self.leads(name, &parts, same))
                })
            })
            .map(|row| self.view(row))
    }

    /// Everything that holds the byte at `position` of the LUN, files of damaged volumes may be several.
    #[must_use]
    pub fn owners(&self, position: u64) -> Vec<Owner> {
        let Some(offset) = position.checked_sub(self.range.start) else { return Vec::new() };
        let (lcn, rest) = (offset / self.geometry.cluster, offset % self.geometry.cluster);
        let mut owners = Vec::new();
        for row in &self.catalog.records {
            for attribute in self.catalog.attributes_of(row) {
                let Some(stream) = self.catalog.stream_of(attribute) else { continue };
                let mut vcn = 0u64;
                for run in self.catalog.runs_of(stream) {
                    if run.start().is_some_and(|start| start <= lcn && lcn - start < run.clusters) {
                        let offset = vcn.saturating_add(lcn - run.lcn).saturating_mul(self.geometry.cluster).saturating_add(rest);
                        owners.push(self.owner(row, attribute, offset));
                        if row.number == 0 && self.catalog.label(attribute).type_code == kind::DATA {
                            owners.extend(self.in_record(offset));
                        }
                    }
                    vcn = vcn.saturating_add(run.clusters);
                }
            }
        }
        owners
    }

    /// Bytes `offset..offset + len` of a file record on the LUN.
    fn in_mft(&self, record: u64, offset: u64, len: u64) -> Vec<ByteRange> {
        let Some(stream) = self.catalog.system_stream(0) else { return Vec::new() };
        let from = record.saturating_mul(self.geometry.record.into()).saturating_add(offset);
        let to = from.saturating_add(len);
        let pieces = self.extents(stream).into_iter().filter_map(|extent| {
            let (start, end) = (from.max(extent.offset), to.min(extent.offset.saturating_add(extent.len)));
            let at = extent.at.filter(|_| start < end)?;
            Some(ByteRange { start: at + (start - extent.offset), len: end - start })
        });
        pieces.collect()
    }

    fn owner(&self, row: &RecordRow, attribute: &AttributeRow, offset: u64) -> Owner {
        Owner {
            record: row.number.into(),
            path: String::from_utf16_lossy(&self.path_of(row).0),
            kind: kind::name(self.catalog.label(attribute).type_code),
            stream: String::from_utf16_lossy(self.catalog.name_of(attribute)),
            offset,
            resident: false,
        }
    }

    /// The file whose record lies at this byte of $MFT.
    fn in_record(&self, offset: u64) -> Option<Owner> {
        let size = u64::from(self.geometry.record);
        let (_, row) = self.catalog.find(offset / size)?;
        Some(Owner {
            record: row.number.into(),
            path: String::from_utf16_lossy(&self.path_of(row).0),
            kind: String::new(),
            stream: String::new(),
            offset: offset % size,
            resident: true,
        })
    }

    fn view(&self, row: &RecordRow) -> File {
        let (raw_path, orphan) = self.path_of(row);
        let [created, modified, changed, accessed] = row.times;
        let attributes: Vec<Attribute> =
            self.catalog.held_attributes(row).map(|(holder, attribute)| self.attribute(holder, attribute)).collect();
        let data = attributes.iter().find(|attribute| attribute.is_data() && attribute.name.is_empty());
        File {
            path: String::from_utf16_lossy(&raw_path),
            raw_path,
            record: row.number.into(),
            sequence: row.sequence,
            directory: row.has(RecordRow::DIRECTORY),
            damaged: row.has(RecordRow::DAMAGED),
            orphan,
            size: data.map_or(0, |data| data.size),
            times: Times { created, modified, changed, accessed },
            file_attributes: row.file_attributes,
            security_id: row.security_id,
            links: self.catalog.names_of(row).iter().map(|name| self.link(name)).collect(),
            attributes,
        }
    }

    fn link(&self, name: &NameRow) -> Link {
        let (raw_path, _) = self.path(name);
        Link { path: String::from_utf16_lossy(&raw_path), raw_path, name_space: name.name_space, listed: name.indexed }
    }

    fn attribute(&self, holder: u32, row: &AttributeRow) -> Attribute {
        let label = self.catalog.label(row);
        let place = match self.catalog.stream_of(row) {
            None => Place::Resident {
                at: self.in_mft(holder.into(), row.offset.into(), row.length.into()),
                value: self.catalog.value_of(row).map(<[u8]>::to_vec),
            },
            Some(stream) => Place::NonResident {
                allocated: self
                    .catalog
                    .runs_of(stream)
                    .iter()
                    .fold(0u64, |sum, run| sum.saturating_add(run.clusters))
                    .saturating_mul(self.geometry.cluster),
                valid_data_length: stream.initialized,
                compression_unit: match stream.compression_unit {
                    0 => 0,
                    exponent => 1u64.checked_shl(exponent.into()).unwrap_or(0),
                },
                extents: self.extents(stream),
            },
        };
        Attribute {
            type_code: label.type_code,
            kind: kind::name(label.type_code),
            name: String::from_utf16_lossy(self.catalog.name_of(row)),
            size: self.catalog.stream_of(row).map_or(row.length.into(), |stream| stream.size),
            compressed: label.flags & flag::COMPRESSED != 0,
            encrypted: label.flags & flag::ENCRYPTED != 0,
            sparse: label.flags & flag::SPARSE != 0,
            holder: holder.into(),
            place,
        }
    }

    fn extents(&self, stream: &StreamRow) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::with_capacity(stream.runs as usize);
        let mut offset = 0u64;
        for run in self.catalog.runs_of(stream) {
            let len = run.clusters.saturating_mul(self.geometry.cluster).min(u64::MAX - offset);
            let at = self.position(*run);
            match extents.last_mut() {
                Some(last) if last.at.is_some() && last.at.map(|start| start + last.len) == at => last.len += len,
                _ => extents.push(Extent { offset, len, at }),
            }
            offset += len;
        }
        extents
    }

    /// A catalog from a tape may hold any number: what leaves the volume is treated as a hole.
    fn position(&self, run: Run) -> Option<u64> {
        let end = run.start()?.checked_add(run.clusters)?;
        (end <= self.geometry.clusters).then(|| self.range.start + run.lcn * self.geometry.cluster)
    }

    fn units(&self, name: &NameRow) -> &[u16] {
        self.catalog.text_of(name.text, name.units)
    }

    /// The name to show: not the short one, if there is another.
    fn shown<'a>(&'a self, row: &RecordRow) -> Option<&'a NameRow> {
        let names = self.catalog.names_of(row);
        names.iter().find(|name| name.name_space != NameRow::DOS).or(names.first())
    }

    /// The path, and whether it fails to begin at the root.
    fn path_of(&self, row: &RecordRow) -> (Vec<u16>, bool) {
        match self.shown(row) {
            Some(name) => self.path(name),
            None if u64::from(row.number) < FIRST_USER => {
                (format!("{RESERVED}/record-{}", row.number).encode_utf16().collect(), false)
            }
            None => (format!("{ORPHANS}/record-{}", row.number).encode_utf16().collect(), true),
        }
    }

    /// Walks to the root. A circle, a parent that is gone or one of another life make an orphan.
    fn path(&self, name: &NameRow) -> (Vec<u16>, bool) {
        let mut parts = vec![self.units(name)];
        let mut parent = FileReference(name.parent);
        if parent.number() == ROOT && self.units(name) == [u16::from(b'.')] {
            return (vec![b'/'.into()], false);
        }
        let orphan = loop {
            let Some((_, row)) = self.catalog.find(parent.number()).filter(|(_, row)| row.sequence == parent.sequence()) else {
                break true;
            };
            if parent.number() == ROOT {
                break false;
            }
            let Some(name) = self.shown(row).filter(|_| parts.len() < MAX_DEPTH) else { break true };
            parts.push(self.units(name));
            parent = FileReference(name.parent);
        };
        let mut path: Vec<u16> = if orphan { ORPHANS.encode_utf16().collect() } else { Vec::new() };
        for part in parts.into_iter().rev() {
            path.push(b'/'.into());
            path.extend_from_slice(part);
        }
        (path, orphan)
    }

    /// True when the name's directories are those before it in `parts`.
    fn leads(&self, name: &NameRow, parts: &[Vec<u16>], same: Same) -> bool {
        let mut parent = FileReference(name.parent);
        for part in parts.iter().rev().skip(1) {
            let row = self.catalog.find(parent.number()).filter(|(_, row)| row.sequence == parent.sequence());
            let Some((_, row)) = row.filter(|_| parent.number() != ROOT) else { return false };
            let Some(name) = self.catalog.names_of(row).iter().find(|name| same(self.units(name), part)) else { return false };
            parent = FileReference(name.parent);
        }
        parent.number() == ROOT
    }
}

/// Whether two names are taken for one.
type Same = fn(&[u16], &[u16]) -> bool;

fn same_but_for_case(a: &[u16], b: &[u16]) -> bool {
    let fold = |unit: u16| match char::from_u32(unit.into()) {
        Some(char) => char.to_uppercase().next().filter(|_| char.to_uppercase().count() == 1).unwrap_or(char) as u32,
        None => unit.into(),
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| fold(*a) == fold(*b))
}

/// Longest path in names: what 32767 UTF-16 units can spell with one unit per name.
const MAX_DEPTH: usize = 16384;
