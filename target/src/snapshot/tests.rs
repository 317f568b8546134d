//! Views against what the disk was; the runs with several processes are in `tests/tests/view_fire.rs`.

use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::Mutex;
use std::thread;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use proptest::prelude::*;
use protocol::mover::ends::End;
use protocol::mover::table::CHUNK;

use super::*;
use crate::store::faulty::FaultyStore;
use crate::store::memory::MemoryStore;
use crate::store::{Allocation, LocalEnd};

/// Ten chunks and a short one.
const SIZE: u64 = 10 * CHUNK + 512;

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange { start, len }
}

fn memory_service() -> SnapshotService {
    SnapshotService::with_copy_stores(|size| Ok(Arc::new(MemoryStore::new(size))))
}

/// A disk in which every 512 bytes say where they are.
fn patterned() -> Arc<Volume> {
    let volume = Volume::new(Arc::new(MemoryStore::new(SIZE)));
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 512 % 251) as u8 + 1).collect();
    volume.store().write_at(0, &[bytes.into()]).unwrap();
    volume
}

fn all(store: &dyn BlockStore) -> Vec<u8> {
    let mut bytes = vec![0xA5; store.size() as usize];
    store.read_at(0, &mut bytes).unwrap();
    bytes
}

fn write(volume: &Volume, at: u64, byte: u8, len: usize) {
    let admission = volume.try_admit().unwrap();
    volume.write_at(&admission, at, &[Bytes::from(vec![byte; len])]).unwrap();
}

fn unmap(volume: &Volume, range: ByteRange) {
    let admission = volume.try_admit().unwrap();
    volume.deallocate(&admission, range).unwrap();
}

fn now(volumes: &[(&Arc<Volume>, Option<ByteRange>)]) -> Request {
    let source =
        |(volume, range): &(&Arc<Volume>, _)| Source { volume: Arc::clone(volume), range: *range, keeper: Keeper::Asker };
    let sources = volumes.iter().map(source).collect();
    Request { sources, quiet: Duration::ZERO, timeout: Duration::from_secs(1) }
}

async fn view(service: &SnapshotService, volume: &Arc<Volume>, range: Option<ByteRange>) -> Arc<View> {
    let mut taken = service.take(now(&[(volume, range)]), |_| ()).await.unwrap();
    taken.views.pop().unwrap()
}

#[tokio::test]
async fn a_view_shows_the_disk_as_it_was() {
    let (service, volume) = (memory_service(), patterned());
    let before = all(&**volume.store());
    let view = view(&service, &volume, None).await;
    assert_eq!((view.size(), view.read_only(), view.copied_bytes()), (SIZE, true, 0));
    write(&volume, 100, 9, 700);
    unmap(&volume, range(CHUNK - 1, 2 * CHUNK));
    write(&volume, SIZE - 1, 9, 1);
    assert_eq!(all(&*view), before);
    assert_eq!(view.copied_bytes(), 3 * CHUNK + 512, "chunks 0, 1, 2 and the short last one");
    write(&volume, 0, 8, SIZE as usize);
    assert_eq!(all(&*view), before);
    assert_eq!(view.copied_bytes(), SIZE, "each chunk once");
    let mut part = [0; 1000];
    assert!(view.read_now(CHUNK - 500, &mut part).unwrap());
    assert_eq!(part, before[CHUNK as usize - 500..][..1000]);
}

#[tokio::test]
async fn a_view_of_a_part_has_its_own_grid_and_copies_nothing_outside() {
    let (service, volume) = (memory_service(), patterned());
    let part = range(1024, 2 * CHUNK + 100);
    let before = all(&**volume.store())[1024..][..part.len as usize].to_vec();
    let view = view(&service, &volume, Some(part)).await;
    write(&volume, 0, 9, 1024);
    write(&volume, part.end(), 9, 100);
    assert_eq!(view.copied_bytes(), 0);
    write(&volume, 1024 + CHUNK - 1, 9, 1);
    assert_eq!(view.copied_bytes(), CHUNK, "the grid begins at the view");
    write(&volume, 0, 9, SIZE as usize);
    assert_eq!((view.copied_bytes(), view.range()), (part.len, part));
    assert_eq!(all(&*view), before);
}

#[tokio::test]
async fn holes_stay_holes_in_the_copy_store() {
    let volume = Volume::new(Arc::new(MemoryStore::new(SIZE)));
    write(&volume, CHUNK + 4096, 1, 4096);
    let before = all(&**volume.store());
    let view = view(&memory_service(), &volume, None).await;
    let allocation = view.allocation(range(0, SIZE), 99).unwrap();
    write(&volume, 0, 9, SIZE as usize);
    assert_eq!(view.copied_bytes(), 4096);
    assert_eq!(all(&*view), before);
    let expected = [(0, CHUNK + 4096, false), (CHUNK + 4096, 4096, true), (CHUNK + 8192, SIZE - CHUNK - 8192, false)];
    let expected = expected.map(|(start, len, allocated)| Allocation { range: range(start, len), allocated });
    assert_eq!(allocation, expected);
    assert_eq!(view.allocation(range(0, SIZE), 99).unwrap(), expected, "also out of the copy store");
    assert_eq!(view.allocation(range(0, SIZE), 2).unwrap(), expected[..2]);
}

#[tokio::test]
async fn each_of_several_views_keeps_its_own_moment() {
    let (service, volume) = (memory_service(), patterned());
    let mut kept = Vec::new();
    for n in 0..5_u8 {
        kept.push((view(&service, &volume, None).await, all(&**volume.store())));
        write(&volume, u64::from(n) * 50_000, 0xF0 + n, 60_000);
    }
    for (view, before) in &kept {
        assert_eq!(all(&**view), *before);
    }
    let bytes = |n: usize| kept[n].0.copied_bytes();
    assert!(bytes(0) > bytes(4) && bytes(4) > 0);
}

#[derive(Debug)]
struct CountedReads(MemoryStore, AtomicU64);

impl BlockStore for CountedReads {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.1.fetch_add(into.len() as u64, Ordering::Relaxed);
        self.0.read_at(at, into)
    }
    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()> {
        self.0.write_at(at, data)
    }
    fn deallocate(&self, range: ByteRange) -> io::Result<()> {
        self.0.deallocate(range)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        self.0.allocation(range, limit)
    }
    fn source(&self, block_length: u32) -> io::Result<LocalEnd> {
        self.0.source(block_length)
    }
    fn destination(&self, block_length: u32) -> io::Result<LocalEnd> {
        self.0.destination(block_length)
    }
}

#[tokio::test]
async fn one_read_serves_all_views() {
    let store = Arc::new(CountedReads(MemoryStore::new(SIZE), AtomicU64::new(0)));
    let volume = Volume::new(Arc::clone(&store) as Arc<dyn BlockStore>);
    write(&volume, 0, 1, SIZE as usize);
    let service = memory_service();
    let [a, b, c] = [None, Some(range(512, 3 * CHUNK)), None].map(|part| (&volume, part));
    let taken = service.take(now(&[a, b, c]), |_| ()).await.unwrap();
    write(&volume, 0, 2, CHUNK as usize);
    assert_eq!(store.1.load(Ordering::Relaxed), CHUNK + 512, "chunk 0 of two views, and the rest of chunk 0 of the shifted one");
    assert_eq!(taken.views.iter().map(|view| view.copied_bytes()).collect::<Vec<_>>(), [CHUNK; 3]);
}

#[tokio::test]
async fn of_several_writers_on_a_clean_chunk_one_copies_and_all_write_after() {
    let slow = |size| {
        let store = FaultyStore::new(Arc::new(MemoryStore::new(size)));
        store.delay(Duration::from_millis(30));
        Ok(Arc::new(store) as Arc<dyn BlockStore>)
    };
    let (service, volume) = (SnapshotService::with_copy_stores(slow), patterned());
    let before = all(&**volume.store());
    let view = view(&service, &volume, None).await;
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for byte in 0..3_u8 {
            let (start, volume) = (&start, &volume);
            scope.spawn(move || {
                start.wait();
                write(volume, u64::from(byte) * 512, byte, 512);
            });
        }
    });
    assert_eq!((all(&*view), view.copied_bytes()), (before, CHUNK));
    let after: Vec<u8> = (0..3).flat_map(|byte| [byte; 512]).collect();
    assert_eq!(all(&**volume.store())[..1536], after);
}

#[tokio::test]
async fn a_full_copy_store_costs_the_view_and_never_the_write() {
    let stores: Arc<Mutex<Vec<Arc<FaultyStore>>>> = Arc::default();
    let made = Arc::clone(&stores);
    let service = SnapshotService::with_copy_stores(move |size| {
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(size))));
        made.lock().unwrap().push(Arc::clone(&store));
        Ok(store)
    });
    let volume = patterned();
    let before = all(&**volume.store());
    let [full, good] = [view(&service, &volume, None).await, view(&service, &volume, None).await];
    stores.lock().unwrap()[0].limit_space(2 * CHUNK);
    write(&volume, 0, 9, SIZE as usize);
    assert_eq!(all(&**volume.store()), vec![9; SIZE as usize], "the write is there");
    let lost = full.read_at(0, &mut [0; 1]).unwrap_err().to_string();
    assert_eq!(Some(&lost), full.failure().as_ref());
    assert!(lost.contains("copy store failed") && lost.contains("no storage space"), "{lost}");
    assert!(full.allocation(range(0, 1), 1).is_err());
    assert_eq!((all(&*good), good.failure()), (before, None), "the other one lives");
}

#[tokio::test]
async fn old_bytes_that_cannot_be_read_cost_the_view_and_never_the_write() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(SIZE))));
    let volume = Volume::new(Arc::clone(&store) as Arc<dyn BlockStore>);
    write(&volume, 0, 1, SIZE as usize);
    let view = view(&memory_service(), &volume, None).await;
    store.fail_reads(1);
    write(&volume, 0, 2, 512);
    assert!(view.failure().unwrap().contains("told to fail"));
    assert!(view.read_at(5 * CHUNK, &mut [0; 1]).is_err(), "the whole view, not only that chunk");
}

#[tokio::test]
async fn an_ended_view_gives_nothing_and_costs_nothing() {
    let (service, volume) = (memory_service(), patterned());
    let [ended, dropped] = [view(&service, &volume, None).await, view(&service, &volume, None).await];
    ended.end();
    assert!(ended.read_at(0, &mut [0; 1]).unwrap_err().to_string().contains("ended"));
    drop(dropped);
    assert_eq!(volume.trackers().count(), 0);
    write(&volume, 0, 9, 1);
    assert_eq!(ended.copied_bytes(), 0);
}

#[tokio::test]
async fn a_grant_copies_up_first_and_counts_as_a_write_until_it_is_dropped() {
    let (service, volume) = (memory_service(), patterned());
    let before = all(&**volume.store());
    let view = view(&service, &volume, None).await;
    let grant = volume.grant(range(CHUNK, 2 * CHUNK)).await.unwrap();
    assert_eq!((view.copied_bytes(), volume.quiet().in_flight), (2 * CHUNK, 1));
    // The mover writes behind our back.
    volume.store().write_at(grant.range().start, &[vec![9; grant.range().len as usize].into()]).unwrap();
    assert_eq!(all(&*view), before);
    let held_up = service.take(now(&[(&volume, None)]), |_| ()).await.unwrap_err();
    assert!(matches!(held_up, SnapshotError::HoldTooLong(_)), "{held_up}");
    drop(grant);
    service.take(now(&[(&volume, None)]), |_| ()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused() {
    let volume = Volume::new(Arc::new(MemoryStore::new(1 << 30)));
    for bad in [range(0, (64 << 20) + 1), range((1 << 30) - 1, 2), range(u64::MAX, 2)] {
        assert_eq!(volume.grant(bad).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(volume.quiet().in_flight, 0);
}

#[tokio::test]
async fn a_write_beyond_the_end_fails_and_costs_no_view() {
    let (service, volume) = (memory_service(), patterned());
    let view = view(&service, &volume, None).await;
    let admission = volume.try_admit().unwrap();
    for at in [SIZE, SIZE - 1, u64::MAX - 1] {
        assert!(volume.write_at(&admission, at, &[Bytes::from_static(b"beyond")]).is_err());
        assert!(volume.deallocate(&admission, range(at, 6)).is_err());
    }
    assert_eq!(view.failure(), None);
}

#[tokio::test]
async fn requests_without_sense_are_refused() {
    let (service, volume) = (memory_service(), patterned());
    for bad in [Some(range(0, 0)), Some(range(SIZE, 1)), Some(range(1, SIZE)), Some(range(u64::MAX, 2))] {
        let refused = service.take(now(&[(&volume, bad)]), |_| ()).await.unwrap_err();
        assert!(matches!(refused, SnapshotError::Invalid(_)), "{refused}");
    }
    assert!(matches!(service.take(now(&[]), |_| ()).await, Err(SnapshotError::Invalid(_))));
    let no_folder = SnapshotService::new("/nonexistent".into());
    assert!(matches!(no_folder.take(now(&[(&volume, None)]), |_| ()).await, Err(SnapshotError::CopyStore(_))));
}

#[tokio::test]
async fn a_writer_without_pause_means_no_snapshot_and_no_trace_of_one() {
    let volume = patterned();
    let _in_flight = volume.try_admit().unwrap();
    let request = Request { quiet: Duration::from_millis(50), timeout: Duration::from_millis(200), ..now(&[(&volume, None)]) };
    let refused = memory_service().take(request, |_| ()).await.unwrap_err();
    assert!(matches!(refused, SnapshotError::NeverQuiet(_)), "{refused}");
    assert_eq!((volume.trackers().count(), volume.quiet().longest_hold), (0, Duration::ZERO));
}

#[tokio::test]
async fn a_mover_gets_the_files_read_only_and_the_table_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::new(Arc::new(RawStore::unnamed(folder.path(), SIZE).unwrap()));
    let view = view(&SnapshotService::new(folder.path().into()), &volume, Some(range(512, CHUNK))).await;
    let LocalEnd { end, files } = view.source(512).unwrap();
    assert!(matches!(end, End::View { within, block_length: 512, .. } if within == range(512, CHUNK)));
    for file in files.iter().map(|file| std::fs::File::from(file.try_clone().unwrap())) {
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
    }
    let seals = SealFlag::from_bits_truncate(fcntl(&files[2], FcntlArg::F_GET_SEALS).unwrap());
    assert!(seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE));
    assert!(view.destination(512).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the copy store has no name");
}

/// What may happen to a disk of 40 units of 4096 bytes.
#[derive(Debug, Clone)]
enum Event {
    Write { at: u64, len: u64, byte: u8 },
    Unmap { at: u64, len: u64 },
    Take { part: Option<(u64, u64)> },
    End { which: prop::sample::Index },
}

const UNIT: u64 = 4096;
const UNITS: u64 = 40;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let part = || (0..UNITS).prop_flat_map(|at| (Just(at), 1..=UNITS - at));
    let event = prop_oneof![
        4 => (part(), any::<u8>()).prop_map(|((at, len), byte)| Event::Write { at, len, byte }),
        2 => part().prop_map(|(at, len)| Event::Unmap { at, len }),
        2 => prop::option::of(part()).prop_map(|part| Event::Take { part }),
        1 => any::<prop::sample::Index>().prop_map(|which| Event::End { which }),
    ];
    prop::collection::vec(event, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_to_the_disk_each_view_is_what_it_was(events in events(), in_files in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // In files the holes are the file system's.
        let folder = tempfile::tempdir().unwrap();
        let (service, store): (_, Arc<dyn BlockStore>) = if in_files {
            (SnapshotService::new(folder.path().into()), Arc::new(RawStore::unnamed(folder.path(), UNITS * UNIT).unwrap()))
        } else {
            (memory_service(), Arc::new(MemoryStore::new(UNITS * UNIT)))
        };
        let volume = Volume::new(store);
        let mut views: Vec<(Arc<View>, Vec<u8>)> = Vec::new();
        for event in events {
            match event {
                Event::Write { at, len, byte } => write(&volume, at * UNIT, byte, (len * UNIT) as usize),
                Event::Unmap { at, len } => unmap(&volume, range(at * UNIT, len * UNIT)),
                Event::Take { part } => {
                    let part = part.map(|(at, len)| range(at * UNIT, len * UNIT));
                    let view = runtime.block_on(view(&service, &volume, part));
                    let bytes = all(&**volume.store())[view.range().start as usize..view.range().end() as usize].to_vec();
                    views.push((view, bytes));
                }
                Event::End { which } if !views.is_empty() => drop(views.swap_remove(which.index(views.len()))),
                Event::End { .. } => {}
            }
            for (view, bytes) in &views {
                prop_assert_eq!(&all(&**view), bytes);
            }
        }
    }
}
