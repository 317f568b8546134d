//! From the map of a disk to the file catalog of a set.
//!
//! The catalog knows no file system: what a later offhost maps with another one restores by the same paths, streams and
//! extents. Short (8.3) names are left out of it; they come back with the volume.

use crate::map::DiskMap;
use crate::map::ntfs::view::{Attribute, File, Place};

use super::layout::catalog::Extent;
use super::layout::{Catalog, Content, FileEntry, StreamEntry};

/// Name space of a DOS name in $FILE_NAME.
const DOS_NAME: u8 = 2;

/// The catalog of all files of a map whose disk begins at byte `base` of the original one.
///
/// With files in several volumes, each path begins with `pN/`, N being the partition's number.
#[must_use]
pub fn catalog(map: &DiskMap, base: u64) -> Catalog {
    let several = map.volumes.iter().filter(|volume| volume.ntfs.is_some()).count() > 1;
    let entries = map.files().map(|(volume, file)| {
        let prefix = if several { format!("p{}/", volume.partition.number) } else { String::new() };
        entry(&file, &prefix, base)
    });
    Catalog { files: entries.collect() }
}

fn entry(file: &File, prefix: &str, base: u64) -> FileEntry {
    let links = file.links.iter().filter(|link| link.name_space != DOS_NAME).map(|link| link.path.as_str());
    let mut paths: Vec<String> = std::iter::once(file.path.as_str())
        .chain(links)
        .map(|path| format!("{prefix}{}", path.trim_start_matches('/')))
        .collect();
    // The first path is one of the links, as a rule.
    let first = paths[0].clone();
    let mut seen = 0;
    paths.retain(|path| *path != first || std::mem::replace(&mut seen, 1) == 0);
    let mut streams: Vec<StreamEntry> = file.attributes.iter().filter(|one| one.is_data()).map(|one| stream(one, base)).collect();
    streams.sort_by(|a, b| a.name.cmp(&b.name));
    FileEntry { record: file.record, sequence: file.sequence, directory: file.directory, paths, streams }
}

fn stream(attribute: &Attribute, base: u64) -> StreamEntry {
    let (size, name) = (attribute.size, attribute.name.clone());
    let (valid, content) = match &attribute.place {
        Place::Resident { value: Some(value), .. } => (size, Content::Resident(value.clone())),
        Place::Resident { value: None, .. } => (size, Content::Unknown("its resident value was not kept".to_owned())),
        Place::NonResident { valid_data_length, compression_unit, extents, .. } => {
            let how = match (attribute.encrypted, attribute.compressed && *compression_unit > 0) {
                (true, _) => Some("encrypted (EFS)"),
                (false, true) => Some("compressed (LZNT1)"),
                (false, false) => None,
            };
            let placed = extents.iter().filter_map(|extent| {
                // Encoded streams are kept whole: their clusters mean nothing in part.
                let bytes = if how.is_some() { extent.len } else { extent.len.min(size.saturating_sub(extent.offset)) };
                let start = extent.at?.checked_add(base)?;
                (bytes > 0).then_some(Extent { at: extent.offset, start, bytes })
            });
            let extents = placed.collect();
            let content = match how {
                Some(how) => Content::Encoded { how: how.to_owned(), extents },
                None => Content::Extents(extents),
            };
            ((*valid_data_length).min(size), content)
        }
    };
    StreamEntry { name, size, valid, content }
}
