//! Where the volumes of a disk lie: an MBR with its chain of EBRs, a GPT or its backup, or a volume that begins at block 0.
//!
//! It does not say what is *in* a partition, and repairs nothing: a table that is damaged gives a note, and what no
//! partition covers is copied whole. Follows UEFI 2.10 section 5 (MBR, GPT) and the common practice of extended partitions.

use super::extents::Extents;
use super::source::ReadAt;
use super::{Note, Severity};
use crc_fast::{CrcAlgorithm, checksum};
use protocol::units::ByteRange;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// How the disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// No table: one volume from block 0 to the end.
    Unpartitioned,
    /// Master boot record, with extended partitions.
    Mbr,
    /// GUID partition table.
    Gpt,
}

/// One partition, in its table's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// From 1, as Linux and Windows number them; 0 for an unpartitioned disk.
    pub number: u32,
    /// On the LUN, already cut at its end.
    pub range: ByteRange,
    /// The table's own type: two hexadecimal digits or a GUID.
    pub kind: String,
    /// GPT's name of it.
    pub name: String,
}

/// What the table said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// How the disk is divided.
    pub scheme: Scheme,
    /// Ascending by number.
    pub partitions: Vec<Partition>,
    /// Blocks that hold the table itself.
    pub metadata: Extents,
    /// What was wrong or unusual.
    pub notes: Vec<Note>,
}

impl PartitionTable {
    /// The whole disk as one volume.
    #[must_use]
    pub fn unpartitioned(size: u64) -> Self {
        let whole = Partition { number: 0, range: ByteRange { start: 0, len: size }, kind: String::new(), name: String::new() };
        Self { scheme: Scheme::Unpartitioned, partitions: vec![whole], metadata: Extents::new(), notes: Vec::new() }
    }

    /// Finds the table of a disk. Where there is none, the disk is one volume.
    ///
    /// # Errors
    /// Those of the source; a damaged table is no error.
    pub fn read(source: &dyn ReadAt) -> io::Result<Self> {
        let size = source.size();
        let mut first = vec![0; size.min(4096) as usize];
        source.read_at(0, &mut first)?;
        let Ok((mbr, _)) = Mbr::ref_from_prefix(&first) else {
            return Ok(Self::unpartitioned(size));
        };
        if super::signature::is_volume(&first) {
            return Ok(Self::unpartitioned(size));
        }
        let claims_gpt = mbr.is_plausible() && mbr.entries.iter().any(|entry| entry.kind == PROTECTIVE);
        if let Some(table) = gpt(source, claims_gpt)? {
            return Ok(table);
        }
        if !mbr.is_plausible() || claims_gpt {
            let mut table = Self::unpartitioned(size);
            if claims_gpt {
                table.notes.push(Note::new(Severity::Warning, "GPT announced by the MBR, but neither header is valid").at(0));
            }
            return Ok(table);
        }
        Walk::new(source, u64::from(source.block_length())).run(mbr)
    }
}

/// Master boot record or extended boot record.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Mbr {
    code: [u8; 446],
    entries: [MbrEntry; 4],
    signature: U16,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MbrEntry {
    status: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first: U32,
    sectors: U32,
}
const _: () = assert!(size_of::<Mbr>() == 512);

const PROTECTIVE: u8 = 0xEE;

impl Mbr {
    /// The signature alone is also on every boot sector; the status bytes tell a table from boot code.
    fn is_plausible(&self) -> bool {
        let used = |entry: &&MbrEntry| entry.kind != 0 && entry.sectors.get() != 0;
        self.signature == 0xAA55
            && self.entries.iter().all(|entry| entry.status & 0x7F == 0)
            && self.entries.iter().any(|entry| used(&entry))
    }
}

impl MbrEntry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85)
    }
}

/// The walk along the chain of extended boot records.
struct Walk<'a> {
    source: &'a dyn ReadAt,
    sector: u64,
    table: PartitionTable,
}

impl<'a> Walk<'a> {
    fn new(source: &'a dyn ReadAt, sector: u64) -> Self {
        let table = PartitionTable { scheme: Scheme::Mbr, partitions: Vec::new(), metadata: Extents::new(), notes: Vec::new() };
        Self { source, sector, table }
    }

    fn run(mut self, mbr: &Mbr) -> io::Result<PartitionTable> {
        self.hold(0);
        for (number, entry) in (1..).zip(&mbr.entries) {
            if entry.kind == 0 || entry.sectors == 0 {
                continue;
            }
            let first = u64::from(entry.first.get());
            if entry.is_extended() {
                self.chain(first, u64::from(entry.sectors.get()))?;
            } else {
                self.add(number, first, entry);
            }
        }
        self.table.partitions.sort_by_key(|partition| partition.number);
        Ok(self.table)
    }

    /// Each EBR holds one partition relative to itself, and the next EBR relative to the container.
    fn chain(&mut self, container: u64, sectors: u64) -> io::Result<()> {
        let mut seen = BTreeSet::new();
        let mut at = container;
        loop {
            if !seen.insert(at) || seen.len() > MAX_LOGICAL || at < container || at - container >= sectors {
                self.warn("the chain of extended boot records runs in a circle or out of its container", at);
                return Ok(());
            }
            let mut bytes = [0; 512];
            if at.saturating_add(1).saturating_mul(self.sector) > self.source.size() {
                self.warn("an extended boot record lies behind the end of the disk", at);
                return Ok(());
            }
            self.source.read_at(at * self.sector, &mut bytes)?;
            let Ok(ebr) = Mbr::ref_from_bytes(&bytes) else { return Ok(()) };
            if ebr.signature != 0xAA55 {
                self.warn("an extended boot record has no signature", at);
                return Ok(());
            }
            self.hold(at);
            let [logical, next, ..] = &ebr.entries;
            if logical.kind != 0 && logical.sectors != 0 {
                let number = self.table.partitions.iter().map(|p| p.number).max().unwrap_or(0).max(4) + 1;
                self.add(number, at.saturating_add(u64::from(logical.first.get())), logical);
            }
            if next.kind == 0 || next.sectors == 0 {
                return Ok(());
            }
            at = container.saturating_add(u64::from(next.first.get()));
        }
    }

    fn hold(&mut self, sector: u64) {
        self.table.metadata.push(ByteRange { start: sector * self.sector, len: self.sector });
    }

    fn warn(&mut self, text: &str, sector: u64) {
        self.table.notes.push(Note::new(Severity::Warning, text).at(sector.saturating_mul(self.sector)));
    }

    fn add(&mut self, number: u32, first: u64, entry: &MbrEntry) {
        let kind = format!("{:02X}", entry.kind);
        add(
            &mut self.table,
            self.source.size(),
            self.sector,
            Found { number, first, sectors: entry.sectors.get().into(), kind, name: String::new() },
        );
    }
}

/// A partition as its table tells it, in sectors.
struct Found {
    number: u32,
    first: u64,
    sectors: u64,
    kind: String,
    name: String,
}

/// Takes a partition into the table, cut at the end of the disk.
fn add(table: &mut PartitionTable, size: u64, sector: u64, found: Found) {
    let Found { number, first, sectors, kind, name } = found;
    let start = first.saturating_mul(sector);
    let len = sectors.saturating_mul(sector);
    if start >= size {
        let text = format!("partition {number} begins behind the end of the disk");
        table.notes.push(Note::new(Severity::Warning, text).at(start));
        return;
    }
    if len > size - start {
        let text = format!("partition {number} is longer than the disk: cut at its end");
        table.notes.push(Note::new(Severity::Warning, text).at(start));
    }
    let range = ByteRange { start, len: len.min(size - start) };
    if let Some(other) = table.partitions.iter().find(|other| other.range.overlaps(range)) {
        let text = format!("partitions {} and {number} overlap", other.number);
        table.notes.push(Note::new(Severity::Warning, text).at(start));
    }
    table.partitions.push(Partition { number, range, kind, name });
}

/// GPT header, UEFI 2.10 table 5.5.
#[derive(Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GptHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc32: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: [u8; 16],
    partition_entry_lba: U64,
    number_of_partition_entries: U32,
    size_of_partition_entry: U32,
    partition_entry_array_crc32: U32,
}
const _: () = assert!(size_of::<GptHeader>() == 92);

/// GPT entry, UEFI 2.10 table 5.6.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GptEntry {
    type_guid: [u8; 16],
    unique_guid: [u8; 16],
    first_lba: U64,
    last_lba: U64,
    attributes: U64,
    name: [U16; 36],
}
const _: () = assert!(size_of::<GptEntry>() == 128);

/// Tries the first header, then the one in the last block, with blocks of 512 and of 4096 bytes: an image of a 4Kn disk does
/// not tell its block length.
fn gpt(source: &dyn ReadAt, claimed: bool) -> io::Result<Option<PartitionTable>> {
    let size = source.size();
    let native = u64::from(source.block_length());
    let sectors = [native, if native == 512 { 4096 } else { 512 }];
    for sector in sectors {
        if let Some(table) = gpt_at(source, sector, 1)? {
            return Ok(Some(table));
        }
    }
    for sector in sectors.into_iter().filter(|sector| claimed && size / sector > 2) {
        if let Some(mut table) = gpt_at(source, sector, size / sector - 1)? {
            table.notes.push(Note::new(Severity::Warning, "the first GPT header is damaged: used the backup").at(sector));
            return Ok(Some(table));
        }
    }
    Ok(None)
}

fn gpt_at(source: &dyn ReadAt, sector: u64, lba: u64) -> io::Result<Option<PartitionTable>> {
    let size = source.size();
    let Some(position) = lba.checked_mul(sector).filter(|at| at.saturating_add(sector) <= size) else { return Ok(None) };
    let mut block = vec![0; sector as usize];
    source.read_at(position, &mut block)?;
    let Some(header) = gpt_header(&block) else { return Ok(None) };
    let entry_size = u64::from(header.size_of_partition_entry.get());
    let bytes = entry_size.saturating_mul(u64::from(header.number_of_partition_entries.get()));
    let at = header.partition_entry_lba.get().saturating_mul(sector);
    let plausible = entry_size >= size_of::<GptEntry>() as u64 && bytes <= MAX_GPT_ENTRIES && at.saturating_add(bytes) <= size;
    if !plausible || header.my_lba != lba {
        return Ok(None);
    }
    let mut entries = vec![0; bytes as usize];
    source.read_at(at, &mut entries)?;
    if checksum(CrcAlgorithm::Crc32IsoHdlc, &entries) as u32 != header.partition_entry_array_crc32.get() {
        return Ok(None);
    }
    let mut table = PartitionTable { scheme: Scheme::Gpt, partitions: Vec::new(), metadata: Extents::new(), notes: Vec::new() };
    table.metadata = vec![
        ByteRange { start: 0, len: sector },
        ByteRange { start: position, len: sector },
        ByteRange { start: at, len: bytes.next_multiple_of(sector).min(size - at) },
    ]
    .into();
    for (number, bytes) in (1..).zip(entries.chunks_exact(entry_size as usize)) {
        let Ok((entry, _)) = GptEntry::ref_from_prefix(bytes) else { continue };
        if entry.type_guid == [0; 16] {
            continue;
        }
        let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
        let Some(sectors) = last.checked_sub(first).and_then(|count| count.checked_add(1)) else {
            table.notes.push(Note::new(Severity::Warning, format!("partition {number} ends before it begins")).at(at));
            continue;
        };
        let name: Vec<u16> = entry.name.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0).collect();
        let found = Found { number, first, sectors, kind: guid(&entry.type_guid), name: String::from_utf16_lossy(&name) };
        add(&mut table, size, sector, found);
    }
    Ok(Some(table))
}

fn gpt_header(block: &[u8]) -> Option<GptHeader> {
    let (header, _) = GptHeader::read_from_prefix(block).ok()?;
    let length = header.header_size.get() as usize;
    if &header.signature != b"EFI PART" || length < size_of::<GptHeader>() || length > block.len() {
        return None;
    }
    let mut bytes = block[..length].to_vec();
    bytes[16..20].fill(0);
    (checksum(CrcAlgorithm::Crc32IsoHdlc, &bytes) as u32 == header.header_crc32.get()).then_some(header)
}

/// The first three groups are little-endian.
fn guid(b: &[u8; 16]) -> String {
    let head = format!("{:02X}{:02X}{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}", b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]);
    let tail: String = b[10..].iter().map(|byte| format!("{byte:02X}")).collect();
    format!("{head}-{:02X}{:02X}-{tail}", b[8], b[9])
}

/// Windows makes no more letters than this, and a circle must end.
const MAX_LOGICAL: usize = 256;

/// Bytes of a GPT entry array that are believed: 128 times what every tool writes.
const MAX_GPT_ENTRIES: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::super::source::memory::Memory;
    use super::*;
    use proptest::prelude::*;

    fn entry(kind: u8, first: u32, sectors: u32) -> [u8; 16] {
        let mut entry = [0; 16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.to_le_bytes());
        entry
    }

    fn boot_record(disk: &mut [u8], sector: usize, entries: &[[u8; 16]]) {
        for (index, entry) in entries.iter().enumerate() {
            disk[sector * 512 + 446 + index * 16..][..16].copy_from_slice(entry);
        }
        disk[sector * 512 + 510..][..2].copy_from_slice(&[0x55, 0xAA]);
    }

    fn gpt_disk() -> Vec<u8> {
        let mut disk = vec![0; 512 * 256];
        boot_record(&mut disk, 0, &[entry(0xEE, 1, 255)]);
        let mut entries = vec![0; 128 * 128];
        entries[..16]
            .copy_from_slice(&[0xA2, 0xA0, 0xD0, 0xEB, 0xE5, 0xB9, 0x33, 0x44, 0x87, 0xC0, 0x68, 0xB6, 0xB7, 0x26, 0x99, 0xC7]);
        entries[32..40].copy_from_slice(&40u64.to_le_bytes());
        entries[40..48].copy_from_slice(&199u64.to_le_bytes());
        entries[56..58].copy_from_slice(&[b'd', 0]);
        for (lba, array) in [(1u64, 2u64), (255, 223)] {
            let mut header = vec![0; 92];
            header[..8].copy_from_slice(b"EFI PART");
            header[12..16].copy_from_slice(&92u32.to_le_bytes());
            header[24..32].copy_from_slice(&lba.to_le_bytes());
            header[72..80].copy_from_slice(&array.to_le_bytes());
            header[80..84].copy_from_slice(&128u32.to_le_bytes());
            header[84..88].copy_from_slice(&128u32.to_le_bytes());
            header[88..92].copy_from_slice(&(checksum(CrcAlgorithm::Crc32IsoHdlc, &entries) as u32).to_le_bytes());
            let crc = checksum(CrcAlgorithm::Crc32IsoHdlc, &header) as u32;
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            disk[lba as usize * 512..][..92].copy_from_slice(&header);
            disk[array as usize * 512..][..entries.len()].copy_from_slice(&entries);
        }
        disk
    }

    #[test]
    fn logical_partitions_are_found_along_the_chain() {
        let mut disk = vec![0; 512 * 1000];
        boot_record(&mut disk, 0, &[entry(7, 10, 90), entry(5, 100, 900)]);
        boot_record(&mut disk, 100, &[entry(7, 1, 99), entry(5, 200, 100)]);
        boot_record(&mut disk, 300, &[entry(0x83, 2, 50)]);
        let table = PartitionTable::read(&Memory::new(disk)).unwrap();
        let found: Vec<_> = table.partitions.iter().map(|p| (p.number, p.range.start / 512, p.range.len / 512)).collect();
        assert_eq!(found, [(1, 10, 90), (5, 101, 99), (6, 302, 50)]);
        assert_eq!(table.metadata.runs().len(), 3);
        assert!(table.notes.is_empty());
    }

    #[test]
    fn a_chain_in_a_circle_ends_with_a_note() {
        let mut disk = vec![0; 512 * 1000];
        boot_record(&mut disk, 0, &[entry(5, 100, 900)]);
        boot_record(&mut disk, 100, &[entry(7, 1, 99), entry(5, 0, 100)]);
        let table = PartitionTable::read(&Memory::new(disk)).unwrap();
        assert_eq!(table.partitions.len(), 1);
        assert_eq!(table.notes.len(), 1);
    }

    #[test]
    fn the_backup_gpt_serves_where_the_first_is_damaged() {
        let good = PartitionTable::read(&Memory::new(gpt_disk())).unwrap();
        assert_eq!(good.scheme, Scheme::Gpt);
        assert_eq!(good.partitions[0].range, ByteRange { start: 40 * 512, len: 160 * 512 });
        assert_eq!(good.partitions[0].kind, "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7");
        let mut disk = gpt_disk();
        disk[512 + 40] ^= 1;
        let backup = PartitionTable::read(&Memory::new(disk.clone())).unwrap();
        assert_eq!(backup.partitions, good.partitions);
        assert_eq!(backup.notes.len(), 1);
        disk[255 * 512 + 40] ^= 1;
        let none = PartitionTable::read(&Memory::new(disk)).unwrap();
        assert_eq!(none.scheme, Scheme::Unpartitioned, "an unreadable table means the whole disk");
    }

    proptest! {
        #[test]
        fn any_bytes_give_partitions_inside_the_disk(mut disk in prop::collection::vec(any::<u8>(), 1024..16384), entries in any::<[[u8; 16]; 4]>()) {
            boot_record(&mut disk, 0, &entries.map(|mut entry| { entry[0] &= 0x80; entry[9..12].fill(0); entry }));
            let size = disk.len() as u64;
            let table = PartitionTable::read(&Memory::new(disk)).unwrap();
            prop_assert!(table.partitions.iter().all(|p| p.range.end() <= size));
        }
    }
}
