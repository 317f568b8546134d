//! The directories' indexes against the names that the files themselves carry.
//!
//! Files are found by the scan of $MFT, names by the tree of the root directory; neither alone is to be trusted. An index entry
//! without its file and a file without a name are reported, and dropped from nothing. Index blocks are read in the order of
//! the disk, many at once, and only those that the index's own $BITMAP marks.

use super::boot::Geometry;
use super::build::FIRST_USER;
use super::catalog::{Catalog, NameRow, RecordRow};
use super::device::{Device, Stream};
use super::record::{FileName, FileReference, fix_up, kind};
use crate::map::note::{Note, Notes, Severity};
use crate::map::source::MAX_READ;
use std::io;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The root directory's record.
pub const ROOT: u64 = 5;

/// Start of an $INDEX_ROOT value.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IndexRoot {
    indexed_type: U32,
    collation_rule: U32,
    index_block_size: U32,
    clusters_per_index_block: u8,
    reserved: [u8; 3],
}

/// Start of an index block, update sequence fields included.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IndexBlock {
    multi_sector: [u8; 8],
    lsn: U64,
    vcn: U64,
}

/// Node header; its offsets count from its own start.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IndexHeader {
    entries_offset: U32,
    index_length: U32,
    allocated_size: U32,
    flags: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IndexEntry {
    file: U64,
    length: U16,
    key_length: U16,
    flags: U16,
    reserved: U16,
}
const _: () = assert!(size_of::<IndexBlock>() == 24 && size_of::<IndexHeader>() == 16 && size_of::<IndexEntry>() == 16);

const LAST_ENTRY: u16 = 2;

/// The entries of one node, behind `header_at`. Ends at the last entry; an error says what is wrong.
fn entries(node: &[u8], header_at: usize, mut take: impl FnMut(FileReference, &FileName, &[u8])) -> Result<(), &'static str> {
    let node = node.get(header_at..).ok_or("an index node has no header")?;
    let (header, _) = IndexHeader::ref_from_prefix(node).map_err(|_| "an index node has no header")?;
    let (mut at, end) = (header.entries_offset.get() as usize, header.index_length.get() as usize);
    let node = node.get(..end).ok_or("an index node is longer than its block")?;
    loop {
        let rest = node.get(at..).ok_or("an index entry leaves its node")?;
        let (entry, _) = IndexEntry::ref_from_prefix(rest).map_err(|_| "an index node has no last entry")?;
        if entry.flags.get() & LAST_ENTRY != 0 {
            return Ok(());
        }
        let (length, key) = (usize::from(entry.length.get()), usize::from(entry.key_length.get()));
        if length < size_of::<IndexEntry>() {
            return Err("an index entry is shorter than its header");
        }
        let key = rest.get(size_of::<IndexEntry>()..).and_then(|rest| rest.get(..key)).ok_or("an index key leaves its node")?;
        let (name, units) = FileName::parse(key).ok_or("an index key is no file name")?;
        take(FileReference(entry.file.get()), name, units);
        at += length;
    }
}

/// An index block to be read.
struct Block {
    at: u64,
    row: u32,
    /// In units of [`Geometry::index_vcn`].
    vcn: u64,
}

/// Checks every index entry against the files, marks the names that were seen, and reports what does not match.
///
/// # Errors
/// Those of the source.
pub fn reconcile(device: &Device<'_>, catalog: &mut Catalog, roots: &[(u32, Vec<u8>)], notes: &mut Notes) -> io::Result<()> {
    let mut walk = Walk { device, catalog, notes };
    for (number, value) in roots {
        walk.root_node(*number, value);
    }
    let (mut blocks, scattered) = walk.blocks();
    blocks.sort_unstable_by_key(|block| block.at);
    walk.read_blocks(&blocks)?;
    for (row, stream, vcn) in scattered {
        let mut bytes = vec![0; device.geometry.index_block as usize];
        stream.read(device.source, vcn * device.geometry.index_vcn(), &mut bytes)?;
        walk.node(&Block { at: 0, row, vcn }, &mut bytes);
    }
    walk.report_names();
    Ok(())
}

struct Walk<'a> {
    device: &'a Device<'a>,
    catalog: &'a mut Catalog,
    notes: &'a mut Notes,
}

/// Blocks in one piece, and those that are in several: row, stream, VCN.
type Blocks = (Vec<Block>, Vec<(u32, Stream, u64)>);

impl Walk<'_> {
    fn root_node(&mut self, number: u32, value: &[u8]) {
        let Some((row, _)) = self.catalog.find(number.into()) else { return };
        let result = entries(value, size_of::<IndexRoot>(), |file, name, units| self.entry(row, file, name, units));
        if let Err(problem) = result {
            self.notes.damage(number.into(), None, problem);
        }
    }

    /// All blocks in use of all directories. Their number is bounded by the names there are: a block holds at least one entry.
    fn blocks(&mut self) -> Blocks {
        let Geometry { index_block, .. } = self.device.geometry;
        let unit = self.device.geometry.index_vcn();
        let limit = 16 * (self.catalog.names.len() + self.catalog.records.len()) + 4096;
        let (mut blocks, mut scattered): Blocks = Default::default();
        for (row, record) in self.catalog.records.iter().enumerate() {
            let allocation = self.catalog.attribute(record, kind::INDEX_ALLOCATION, "$I30");
            let Some(allocation) = allocation.and_then(|attribute| self.catalog.stream_of(attribute)) else { continue };
            let stream = Stream::new(self.device, self.catalog.runs_of(allocation));
            let used = self.index_bitmap(record);
            let count = allocation.initialized.min(allocation.size).min(stream.len()) / u64::from(index_block);
            for block in 0..count {
                let marked =
                    used.as_ref().is_none_or(|used| used.get((block / 8) as usize).is_some_and(|b| b >> (block % 8) & 1 == 1));
                if !marked {
                    continue;
                }
                if blocks.len() + scattered.len() >= limit {
                    self.notes.warn("the directories claim more index blocks than there can be names: the rest was not compared");
                    return (blocks, scattered);
                }
                let offset = block * u64::from(index_block);
                let vcn = offset / unit;
                match stream.contiguous(offset, index_block.into()) {
                    Some(at) => blocks.push(Block { at, row: row as u32, vcn }),
                    None => scattered.push((row as u32, stream.clone(), vcn)),
                }
            }
        }
        (blocks, scattered)
    }

    /// `None` where it is missing or not readable here: then every block is looked at.
    fn index_bitmap(&self, record: &RecordRow) -> Option<Vec<u8>> {
        let attribute = self.catalog.attribute(record, kind::BITMAP, "$I30")?;
        let Some(stream) = self.catalog.stream_of(attribute) else {
            return self.catalog.value_of(attribute).map(<[u8]>::to_vec);
        };
        let runs = Stream::new(self.device, self.catalog.runs_of(stream));
        let mut bytes = vec![0; stream.size.min(runs.len()).min(MAX_READ as u64) as usize];
        runs.read(self.device.source, 0, &mut bytes).ok()?;
        // A longer bitmap than one read: the rest counts as in use.
        (bytes.len() as u64 == stream.size).then_some(bytes)
    }

    fn read_blocks(&mut self, blocks: &[Block]) -> io::Result<()> {
        let size = u64::from(self.device.geometry.index_block);
        let mut buffer = Vec::new();
        let mut rest = blocks;
        while let Some(first) = rest.first() {
            let mut end = first.at + size;
            let count = rest.iter().take_while(|block| {
                let joins = block.at <= end.saturating_add(NEAR) && block.at + size - first.at <= MAX_READ as u64;
                if joins {
                    end = end.max(block.at + size);
                }
                joins
            });
            let (now, later) = rest.split_at(count.count().max(1));
            buffer.resize((end - first.at) as usize, 0);
            self.device.source.read_at(first.at, &mut buffer)?;
            for block in now {
                let at = (block.at - first.at) as usize;
                // A copy: two directories that claim one block must both see it as it is on disk.
                let mut bytes = buffer[at..at + size as usize].to_vec();
                self.node(block, &mut bytes);
            }
            rest = later;
        }
        Ok(())
    }

    fn node(&mut self, block: &Block, bytes: &mut [u8]) {
        let row = block.row as usize;
        let result = match fix_up(bytes) {
            Ok(signature) if signature == *b"INDX" => match IndexBlock::read_from_prefix(bytes) {
                Ok((header, _)) if header.vcn == block.vcn => {
                    entries(bytes, size_of::<IndexBlock>(), |file, name, units| self.entry(row, file, name, units))
                }
                _ => Err("an index block belongs to another place"),
            },
            Ok(_) => Err("an index block has no INDX signature"),
            Err(_) => Err("an index block is torn"),
        };
        if let Err(problem) = result {
            let record = &mut self.catalog.records[row];
            record.flags |= RecordRow::DAMAGED;
            let number = record.number.into();
            self.notes.damage(number, (block.at > 0).then_some(block.at), problem);
        }
    }

    fn entry(&mut self, directory: usize, file: FileReference, key: &FileName, units: &[u8]) {
        let parent = &self.catalog.records[directory];
        let parent_reference = u64::from(parent.number) | u64::from(parent.sequence) << 48;
        let number = parent.number.into();
        let found = self.catalog.find(file.number()).filter(|(_, row)| row.sequence == file.sequence()).map(|(_, row)| row);
        let Some(row) = found else {
            let name = display(units);
            self.notes.damage(number, None, format!("index entry \"{name}\" without its file (record {})", file.number()));
            return;
        };
        let names = row.first_name as usize..(row.first_name + row.names) as usize;
        let Catalog { names: rows, text, .. } = &mut *self.catalog;
        let same = |name: &&mut NameRow| {
            let own = &text[name.text as usize..][..name.units.into()];
            name.parent == parent_reference
                && name.name_space == key.name_space
                && own.iter().copied().eq(units.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])))
        };
        match rows[names].iter_mut().find(same) {
            Some(name) => name.indexed = true,
            None => {
                let name = display(units);
                let text = format!("index entry \"{name}\" is no name of its file (record {})", file.number());
                self.notes.damage(number, None, text);
            }
        }
    }

    fn report_names(&mut self) {
        for row in &self.catalog.records {
            let names = self.catalog.names_of(row);
            let unlisted = names.iter().filter(|name| !name.indexed).count();
            let number = u64::from(row.number);
            if names.is_empty() && number >= FIRST_USER {
                self.notes.damage(number, None, "a file without a name");
            } else if unlisted > 0 && number != ROOT {
                let name = names.iter().find(|name| !name.indexed).map(|name| self.catalog.text_of(name.text, name.units));
                let name = String::from_utf16_lossy(name.unwrap_or_default());
                let text = format!("no directory lists \"{}\"", name.escape_debug());
                self.notes.push(Note::new(Severity::Damage, text).record(number));
            }
        }
    }
}

fn display(units: &[u8]) -> String {
    let units: Vec<u16> = units.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    String::from_utf16_lossy(&units).escape_debug().to_string()
}

/// Blocks closer than this are read together: a round trip costs more than the bytes between them.
const NEAR: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(entries: &[(u64, &str)]) -> Vec<u8> {
        let mut node = vec![0; 16];
        for (file, name) in entries {
            let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let key = 66 + units.len();
            let length = (16 + key).next_multiple_of(8);
            let mut entry = vec![0; length];
            entry[..8].copy_from_slice(&file.to_le_bytes());
            entry[8..10].copy_from_slice(&(length as u16).to_le_bytes());
            entry[10..12].copy_from_slice(&(key as u16).to_le_bytes());
            entry[16 + 64] = name.encode_utf16().count() as u8;
            entry[16 + 66..][..units.len()].copy_from_slice(&units);
            node.extend(entry);
        }
        node.extend([0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0]);
        let length = node.len() as u32;
        node[..4].copy_from_slice(&16u32.to_le_bytes());
        node[4..8].copy_from_slice(&length.to_le_bytes());
        node
    }

    #[test]
    fn the_entries_of_a_node_are_read_up_to_the_last() {
        let mut seen = Vec::new();
        let node = node(&[(0x0001_0000_0000_0040, "Käse"), (65, "b")]);
        entries(&node, 0, |file, _, units| seen.push((file.number(), file.sequence(), display(units)))).unwrap();
        assert_eq!(seen, [(64, 1, "Käse".to_owned()), (65, 0, "b".to_owned())]);
        for cut in 0..node.len() - 1 {
            assert!(entries(&node[..cut], 0, |_, _, _| ()).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_node_with_flipped_bytes_ends(flips in prop::collection::vec((0usize..400, any::<u8>()), 1..20)) {
            let mut node = node(&[(64, "one"), (65, "two"), (66, "three")]);
            for (at, byte) in flips {
                let len = node.len();
                node[at % len] ^= byte;
            }
            let mut count = 0;
            let _ = entries(&node, 0, |_, _, _| count += 1);
            prop_assert!(count <= node.len() / 16);
        }
    }
}
