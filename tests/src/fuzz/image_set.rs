//! Records and tape files of an image set, as a foreign or damaged tape may hold them.
//!
//! Input: three lengths of two bytes, then header record, bodies of correspondence table, catalog and manifest. Checksums are made
//! right, so that what lies behind them is reached.

use datamover::agent::layout::{
    Allocation, Catalog, Correspondence, Manifest, Section, SectionKind, SetBytes, SetId, Trailer, VolumeHeader, section,
};
use datamover::map::DiskMap;
use protocol::units::Lba;

use super::Input;

/// One input.
pub fn fuzz(data: &[u8]) {
    let _ = section::sections(data);
    let _ = Trailer::from_copy(data);
    let _ = Manifest::parse(data);
    if let Ok(allocation) = Allocation::parse(data) {
        let mut bytes = Vec::new();
        allocation.write(&mut bytes);
    }
    if let Ok(map) = DiskMap::from_bytes(data) {
        let _ = map.files().take(1000).count();
        let _ = map.at_lba(1);
        let _ = map.file("/a");
    }
    let mut input = Input(data);
    let lengths: [usize; 3] = std::array::from_fn(|_| input.short().into());
    let [header, correspondence, catalog] = lengths.map(|length| input.take(length));
    correspond(correspondence);
    browse(catalog);
    if let Ok(header_read) = VolumeHeader::from_copy(header) {
        let written = header_read.to_record();
        assert!(written.is_ok_and(|record| VolumeHeader::from_copy(&record) == Ok(header_read.clone())));
        whole(header, &header_read, [correspondence, catalog, input.0]);
    }
}

fn correspond(body: &[u8]) {
    let Ok(table) = Correspondence::parse(body) else { return };
    for run in table.runs().iter().take(100) {
        assert_eq!(table.x_of(run.a), Some(run.x));
        assert_eq!(table.a_of(run.x), Some(run.a));
        assert_eq!(table.within(run.a, 1).map(|run| run.blocks).sum::<u64>(), 1);
    }
    let _ = table.within(Lba(0), u64::MAX).take(100).count();
    assert_eq!(table.a_of(table.blocks()), None);
}

fn browse(body: &[u8]) {
    let Ok(catalog) = Catalog::parse(body) else { return };
    for file in catalog.files.iter().take(10) {
        for path in file.paths.iter().take(10) {
            let _ = catalog.find(path);
            let _ = catalog.suggestions(path);
        }
        let _ = file.stream("");
    }
}

fn whole(record: &[u8], header: &VolumeHeader, [correspondence, catalog, manifest]: [&[u8]; 3]) {
    let mut set = SetBytes { header: record.to_vec(), ..SetBytes::default() };
    Section { kind: SectionKind::Correspondence, entries: 0, body: correspondence }.write(&mut set.tables);
    Section { kind: SectionKind::Catalog, entries: 0, body: catalog }.write(&mut set.catalog);
    Section { kind: SectionKind::Manifest, entries: 0, body: manifest }.write(&mut set.catalog);
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_string();
    let trailer = Trailer {
        header_blake3: hash(&set.header),
        tables_blake3: hash(&set.tables),
        catalog_blake3: hash(&set.catalog),
        ..Trailer::new(SetId([0; 16]), 0, 0)
    };
    if let Ok(tables) = set.tables(header, &trailer) {
        let block = u64::from(header.source.block_length);
        assert_eq!(tables.correspondence.blocks() * block, header.data.bytes);
        let _ = header.catalog_object();
    }
}
