//! Damaged NTFS volumes: bytes flipped at seeded places of the fixture.
//!
//! Whatever is on the disk, a map is made in bounded time, nothing panics, and the set of used blocks never shrinks by damage to
//! a file record, an index or a boot sector.

use datamover::fixture;
use datamover::map::extents::Extents;
use datamover::map::ntfs::view::Place;
use datamover::map::source::ReadAt;
use datamover::map::{DiskMap, Severity, probe};
use protocol::units::ByteRange;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Bytes of one piece of [`Sparse`].
const PIECE: u64 = 4096;

/// The disk in memory: what is not zero, with a few pieces replaced.
#[derive(Clone)]
struct Sparse {
    base: Arc<BTreeMap<u64, Vec<u8>>>,
    changed: BTreeMap<u64, Vec<u8>>,
    carried: Arc<AtomicU64>,
}

impl Sparse {
    fn fixture() -> Self {
        static BASE: OnceLock<Arc<BTreeMap<u64, Vec<u8>>>> = OnceLock::new();
        let base = BASE.get_or_init(|| {
            let mut base = BTreeMap::new();
            for piece in fixture::pieces().unwrap() {
                let (offset, bytes) = piece.unwrap();
                for (at, block) in (offset..).step_by(PIECE as usize).zip(bytes.chunks(PIECE as usize)) {
                    base.insert(at / PIECE, block.to_vec());
                }
            }
            Arc::new(base)
        });
        Self { base: base.clone(), changed: BTreeMap::new(), carried: Arc::default() }
    }

    fn piece(&self, index: u64) -> Option<&Vec<u8>> {
        self.changed.get(&index).or_else(|| self.base.get(&index))
    }

    fn change(&mut self, at: u64, change: impl FnOnce(u8) -> u8) {
        let mut piece = self.piece(at / PIECE).cloned().unwrap_or_else(|| vec![0; PIECE as usize]);
        let byte = &mut piece[(at % PIECE) as usize];
        *byte = change(*byte);
        self.changed.insert(at / PIECE, piece);
    }

    fn zero(&mut self, range: Range<u64>) {
        range.for_each(|at| self.change(at, |_| 0));
    }

    fn map(&self) -> DiskMap {
        let started = Instant::now();
        let map = probe(self).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20), "a damaged disk took {:?}", started.elapsed());
        map
    }
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        fixture::SIZE
    }

    fn block_length(&self) -> u32 {
        512
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > fixture::SIZE) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.carried.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let skip = at % PIECE;
            let (part, behind) = rest.split_at_mut(rest.len().min((PIECE - skip) as usize));
            match self.piece(at / PIECE) {
                Some(piece) => part.copy_from_slice(&piece[skip as usize..][..part.len()]),
                None => part.fill(0),
            }
            at += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    fn bytes_read(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

fn whole_map() -> &'static DiskMap {
    static MAP: OnceLock<DiskMap> = OnceLock::new();
    MAP.get_or_init(|| Sparse::fixture().map())
}

/// Where a stream of the undamaged disk lies.
fn places(path: &str, kind: &str) -> Vec<ByteRange> {
    let (_, file) = whole_map().file(path).unwrap();
    let attribute = file.attributes.iter().find(|attribute| attribute.kind == kind && attribute.name != "$Bad").unwrap();
    match &attribute.place {
        Place::Resident { at, .. } => at.clone(),
        Place::NonResident { extents, .. } => {
            extents.iter().filter_map(|extent| Some(ByteRange { start: extent.at?, len: extent.len })).collect()
        }
    }
}

/// A seeded byte of some places.
fn any_byte(random: &mut SmallRng, places: &[ByteRange]) -> u64 {
    let total: u64 = places.iter().map(|range| range.len).sum();
    let mut step = random.random_range(0..total);
    for range in places {
        if step < range.len {
            return range.start + step;
        }
        step -= range.len;
    }
    unreachable!("the step is below the sum")
}

/// Changes up to eight seeded bytes of `places`, each a flip, a zero, an FFh or a small number.
fn damage(disk: &mut Sparse, random: &mut SmallRng, places: &[ByteRange]) {
    for _ in 0..random.random_range(1..=8) {
        let at = any_byte(random, places);
        let (form, bits) = (random.random_range(0..4), random.next_u32() as u8);
        disk.change(at, |byte| match form {
            0 => byte ^ (1 << (bits % 8)),
            1 => 0,
            2 => 0xFF,
            _ => bits,
        });
    }
}

fn missing(map: &DiskMap) -> Extents {
    whole_map().used.subtract(&map.used)
}

/// Every query on the map of a damaged disk ends, too.
fn ask_everything(map: &DiskMap, random: &mut SmallRng) {
    for (_, file) in map.files() {
        assert!(file.links.iter().all(|link| !link.raw_path.is_empty()));
    }
    for _ in 0..4 {
        let _ = map.at_lba(random.random_range(0..fixture::SIZE / 512));
    }
    let _ = map.file("/deep/level-1/LEVEL-2");
    let again = DiskMap::from_bytes(&map.to_bytes()).unwrap();
    assert!(&again == map);
}

#[test]
fn damage_in_file_records_never_shrinks_the_set() {
    let mft = places("/$MFT", "$DATA");
    let mut told = 0;
    for seed in 0..400 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut disk = Sparse::fixture();
        // Most records lie behind the system's own; both kinds must be hit.
        let aim = if seed % 2 == 0 { mft.clone() } else { vec![ByteRange { start: mft[0].start, len: 64 << 10 }] };
        damage(&mut disk, &mut random, &aim);
        let map = disk.map();
        assert_eq!(missing(&map), Extents::new(), "seed {seed}: {:?}", map.notes);
        told += usize::from(!map.notes.is_empty());
        ask_everything(&map, &mut random);
    }
    assert!(told > 100, "only {told} of 400 damaged disks had anything to say");
}

#[test]
fn a_torn_record_is_named_with_its_place_and_spares_the_others() {
    let mft = places("/$MFT", "$DATA");
    let (_, victim) = whole_map().file("/fill/big-2.bin").unwrap();
    let at = mft[0].start + victim.record * 1024;
    let mut disk = Sparse::fixture();
    disk.change(at + 510, |byte| byte ^ 0x55);
    let map = disk.map();
    let note = map.notes.iter().find(|note| note.record == Some(victim.record) && note.at == Some(at)).unwrap();
    assert_eq!(note.severity, Severity::Damage);
    assert!(map.file("/fill/big-2.bin").is_none());
    assert!(map.file("/fill/big-1.bin").is_some());
    assert_eq!(map.volumes[0].whole, None, "one victim does not cost the map");
    assert_eq!(missing(&map), Extents::new());
}

#[test]
fn damage_in_an_index_is_told_and_loses_no_file() {
    let files = whole_map().files().count();
    for path in ["/", "/many", "/fill"] {
        let index = places(path, "$INDEX_ALLOCATION");
        for seed in 0..60 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut disk = Sparse::fixture();
            damage(&mut disk, &mut random, &index);
            let map = disk.map();
            assert_eq!(missing(&map), Extents::new());
            assert_eq!(map.files().count(), files, "files are found by the scan");
        }
        let mut disk = Sparse::fixture();
        disk.zero(index[0].start..index[0].start + 4096);
        let notes = disk.map().notes;
        assert!(notes.iter().any(|note| note.text.starts_with("no directory lists")), "{path}: {notes:?}");
    }
}

#[test]
fn a_bitmap_that_forgets_files_costs_none_of_them() {
    let bitmap = places("/$Bitmap", "$DATA");
    let held: Extents = whole_map()
        .files()
        .flat_map(|(_, file)| file.attributes)
        .filter_map(|attribute| match attribute.place {
            Place::NonResident { extents, .. } => Some(extents),
            Place::Resident { .. } => None,
        })
        .flatten()
        .filter_map(|extent| Some(ByteRange { start: extent.at?, len: extent.len }))
        .collect::<Vec<_>>()
        .into();
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut disk = Sparse::fixture();
        damage(&mut disk, &mut random, &bitmap);
        assert_eq!(held.subtract(&disk.map().used), Extents::new());
    }
    let mut disk = Sparse::fixture();
    disk.zero(bitmap[0].start..bitmap[0].start + bitmap[0].len);
    let map = disk.map();
    assert_eq!(missing(&map), Extents::new());
    assert!(map.volumes[0].whole.is_some(), "a bitmap that denies its own clusters is not believed");
}

#[test]
fn the_copies_of_boot_sector_and_first_records_serve() {
    let good = whole_map();
    let start = good.volumes[0].partition.range.start;
    let mut disk = Sparse::fixture();
    disk.zero(start..start + 512);
    let map = disk.map();
    assert_eq!(map.used, good.used);
    assert_eq!(map.files().count(), good.files().count());
    assert!(map.notes.iter().any(|note| note.text.contains("used its copy")));

    let mft = places("/$MFT", "$DATA")[0].start;
    for record in 0..4 {
        let mut disk = Sparse::fixture();
        disk.zero(mft + record * 1024..mft + (record + 1) * 1024);
        let map = disk.map();
        assert_eq!(map.used, good.used, "record {record}: {:?}", map.notes);
        assert_eq!(map.files().count(), good.files().count());
        assert!(map.notes.iter().any(|note| note.text.contains("$MFTMirr")));
    }

    // The boot sector names a cluster of $MFT that no disk has.
    let mut disk = Sparse::fixture();
    (start + 48..start + 56).for_each(|at| disk.change(at, |_| 0xFE));
    let map = disk.map();
    assert_eq!(map.used, good.used, "{:?}", map.notes);
    assert_eq!(map.files().count(), good.files().count());

    let mirror = places("/$MFTMirr", "$DATA")[0].start;
    let mut disk = Sparse::fixture();
    disk.zero(mft..mft + 1024);
    disk.zero(mirror..mirror + 1024);
    let map = disk.map();
    assert!(map.volumes[0].whole.is_some() && map.used.covers(good.volumes[0].partition.range));
}

#[test]
fn a_log_with_work_in_it_and_a_dirty_volume_are_copied_whole() {
    let partition = whole_map().volumes[0].partition.range;
    let log = places("/$LogFile", "$DATA");
    let mut disk = Sparse::fixture();
    disk.change(log[0].start + 5000, |_| 0);
    let map = disk.map();
    assert!(map.used.covers(partition));
    assert!(map.notes.iter().any(|note| note.severity == Severity::Warning && note.text.contains("whole volume")));

    let flags = places("/$Volume", "$VOLUME_INFORMATION");
    let mut disk = Sparse::fixture();
    disk.change(flags[0].start + 10, |flags| flags | 1);
    let map = disk.map();
    assert!(map.used.covers(partition));
    assert!(map.volumes[0].ntfs.as_ref().unwrap().dirty);
    assert_eq!(map.files().count(), whole_map().files().count(), "the files are known all the same");
}

#[test]
fn any_damage_anywhere_in_the_metadata_ends_in_a_map() {
    let mut metadata = vec![ByteRange { start: 0, len: 512 }, ByteRange { start: 1 << 20, len: 8192 }];
    for path in ["/$MFT", "/$MFTMirr", "/$LogFile", "/$Bitmap", "/$UpCase"] {
        metadata.extend(places(path, "$DATA").into_iter().map(|range| ByteRange { len: range.len.min(256 << 10), ..range }));
    }
    for seed in 1000..1300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut disk = Sparse::fixture();
        let places = [metadata[random.random_range(0..metadata.len())]];
        for _ in 0..random.random_range(1..6) {
            damage(&mut disk, &mut random, &places);
        }
        let map = disk.map();
        assert!(map.used.runs().iter().all(|run| run.end() <= fixture::SIZE));
        ask_everything(&map, &mut random);
    }
}
