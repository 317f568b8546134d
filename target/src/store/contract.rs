//! The one test that every store passes.

use std::fs;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use protocol::mover::ends::End;
use protocol::units::ByteRange;

use super::faulty::FaultyStore;
use super::memory::MemoryStore;
use super::raw::{RawSpec, RawStore};
use super::{Allocation, BlockStore};

/// Not a multiple of a page, a chunk or a piece of zeros.
const SIZE: u64 = 3 * 1024 * 1024 + 512;

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange { start, len }
}

fn read(store: &dyn BlockStore, at: u64, len: usize) -> Vec<u8> {
    let mut into = vec![0xA5; len];
    store.read_at(at, &mut into).unwrap();
    into
}

fn contract(store: &dyn BlockStore) {
    assert_eq!((store.size(), store.read_only()), (SIZE, false));
    is_one_hole_until_written(store);
    writes_parts_in_order(store);
    frees_what_it_is_told_to(store);
    tells_its_allocation_without_gaps(store);
    refuses_what_is_beyond_its_end(store);
    takes_writes_of_many_threads(store);
    store.sync().unwrap();
}

fn is_one_hole_until_written(store: &dyn BlockStore) {
    assert_eq!(read(store, 0, SIZE as usize), vec![0; SIZE as usize]);
    assert_eq!(store.allocation(range(0, SIZE), 9).unwrap(), [Allocation { range: range(0, SIZE), allocated: false }]);
}

fn writes_parts_in_order(store: &dyn BlockStore) {
    let parts: Vec<Bytes> = (0..2000_u32).map(|n| Bytes::from(vec![n as u8; (n % 7) as usize])).collect();
    let whole = parts.concat();
    store.write_at(4090, &parts).unwrap();
    assert_eq!(read(store, 4090, whole.len()), whole);
    assert_eq!((read(store, 4089, 1), read(store, 4090 + whole.len() as u64, 1)), (vec![0], vec![0]));
    let mut into = vec![0xA5; whole.len()];
    if store.read_now(4090, &mut into).unwrap() {
        assert_eq!(into, whole, "what is said to be read is read");
    }
    store.write_at(SIZE - 3, &[Bytes::from_static(b"end")]).unwrap();
    assert_eq!(read(store, SIZE - 3, 3), b"end");
    store.write_at(0, &[]).unwrap();
    store.write_at(SIZE, &[Bytes::new()]).unwrap();
}

fn frees_what_it_is_told_to(store: &dyn BlockStore) {
    let len = 1024 * 1024;
    store.write_at(0, &[Bytes::from(vec![7; len])]).unwrap();
    store.deallocate(range(1000, 600_000)).unwrap();
    assert_eq!(read(store, 0, 1000), vec![7; 1000]);
    assert_eq!(read(store, 1000, 600_000), vec![0; 600_000]);
    assert_eq!(read(store, 601_000, len - 601_000), vec![7; len - 601_000]);
    store.deallocate(range(5, 0)).unwrap();
    store.deallocate(range(0, SIZE)).unwrap();
    assert_eq!(read(store, 0, SIZE as usize), vec![0; SIZE as usize]);
    let left = store.allocation(range(0, SIZE), usize::MAX).unwrap().into_iter().filter(|part| part.allocated);
    assert!(left.map(|part| part.range.len).sum::<u64>() < 4096, "all but the page that SIZE cuts is freed");
}

fn tells_its_allocation_without_gaps(store: &dyn BlockStore) {
    for at in [256, 1024, 2048] {
        store.write_at(at * 1024, &[Bytes::from(vec![1; 65536])]).unwrap();
    }
    let asked = range(10, SIZE - 20);
    let parts = store.allocation(asked, usize::MAX).unwrap();
    assert_eq!((parts[0].range.start, parts.last().unwrap().range.end()), (asked.start, asked.end()));
    assert!(parts.windows(2).all(|pair| pair[0].range.end() == pair[1].range.start), "{parts:?}");
    for part in parts.iter().filter(|part| !part.allocated) {
        assert!(read(store, part.range.start, part.range.len as usize).iter().all(|byte| *byte == 0), "{part:?} is no hole");
    }
    assert!(parts.iter().any(|part| !part.allocated), "holes are known");
    assert_eq!(store.allocation(asked, 2).unwrap(), parts[..2], "a limit cuts the same answer");
}

fn refuses_what_is_beyond_its_end(store: &dyn BlockStore) {
    for (at, len) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 4096)] {
        assert_eq!(store.read_at(at, &mut vec![0; len]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(!matches!(store.read_now(at, &mut vec![0; len]), Ok(true)));
        assert!(store.write_at(at, &[Bytes::from(vec![1; len])]).is_err());
        assert!(store.deallocate(range(at, len as u64)).is_err());
        assert!(store.allocation(range(at, len as u64), 1).is_err());
    }
    assert_eq!(store.size(), SIZE, "nothing grew it");
}

fn takes_writes_of_many_threads(store: &dyn BlockStore) {
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for n in 0..50 {
                    store.write_at((n * 4 + u64::from(thread)) * 512, &[Bytes::from(vec![thread + 1; 512])]).unwrap();
                }
            });
        }
    });
    for block in 0..200_u64 {
        assert_eq!(read(store, block * 512, 512), vec![(block % 4) as u8 + 1; 512]);
    }
}

fn spec(folder: &tempfile::TempDir, size: Option<u64>) -> RawSpec {
    RawSpec { path: folder.path().join("vol.img"), size }
}

#[test]
fn a_raw_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract(&RawStore::open(&spec(&folder, Some(SIZE))).unwrap());
}

#[test]
fn a_raw_store_without_a_name_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract(&RawStore::unnamed(folder.path(), SIZE).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing of it has a name");
}

#[test]
fn a_memory_store_keeps_the_contract() {
    contract(&MemoryStore::new(SIZE));
}

#[test]
fn a_faulty_store_without_faults_keeps_the_contract() {
    contract(&FaultyStore::new(Arc::new(MemoryStore::new(SIZE))));
}

#[test]
fn a_faulty_store_fails_as_told() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new(SIZE)));
    store.limit_space(600);
    store.write_at(0, &[Bytes::from(vec![1; 512])]).unwrap();
    assert_eq!(store.write_at(512, &[Bytes::from(vec![1; 512])]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    store.fail_reads(1);
    assert!(store.read_at(0, &mut [0; 1]).is_err());
    store.read_at(0, &mut [0; 1]).unwrap();
}

#[test]
fn a_raw_store_is_opened_by_one_process_at_a_time_and_keeps_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = RawStore::open(&spec(&folder, Some(SIZE))).unwrap();
    store.write_at(0, &[Bytes::from_static(b"kept")]).unwrap();
    let destination = store.destination(512).unwrap();
    drop(store);
    // A mover still has the file open: nobody else may serve it.
    let refused = RawStore::open(&spec(&folder, Some(SIZE))).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    drop(destination);
    let again = RawStore::open(&spec(&folder, None)).unwrap();
    assert_eq!((again.size(), read(&again, 0, 4)), (SIZE, b"kept".to_vec()));
    drop(again);
    let other_size = RawStore::open(&spec(&folder, Some(SIZE + 512))).unwrap_err();
    assert_eq!(other_size.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_raw_source_cannot_be_written_and_a_destination_can() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let store = RawStore::unnamed(folder.path(), SIZE).unwrap();
    let source = store.source(512).unwrap();
    assert!(matches!(source.end, End::Raw { within, block_length: 512, .. } if within == range(0, SIZE)));
    let [source, destination] = [source, store.destination(512).unwrap()].map(|mut end| fs::File::from(end.files.remove(0)));
    assert!(source.write_all_at(b"no", 0).is_err());
    destination.write_all_at(b"yes", 100).unwrap();
    assert_eq!(read(&store, 100, 3), b"yes");
}

#[test]
fn a_read_only_raw_store_refuses_writes() {
    let folder = tempfile::tempdir().unwrap();
    drop(RawStore::open(&spec(&folder, Some(SIZE))).unwrap());
    let store = RawStore::open_read_only(&spec(&folder, None).path).unwrap();
    assert!(store.read_only());
    for refused in [store.write_at(0, &[]), store.deallocate(range(0, 1)), store.destination(512).map(drop)] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
}
