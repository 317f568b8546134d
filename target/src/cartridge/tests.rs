//! Cartridge folders on real files: torn, cut, damaged, locked, full.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use protocol::cartridge::frame::WORD;
use tempfile::TempDir;

use bytes::Bytes;
use protocol::cartridge::ObjectKind;
use protocol::cartridge::append::{AppendError, Appender, Durability, Step};
use protocol::cartridge::index::SumState;
use protocol::cartridge::report::Appended;
use protocol::cartridge::sums::RecordSum;

use super::*;

mod aligned;
mod copying;

const CAPACITY: u64 = 1 << 20;

fn new() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    Cartridge::create(folder.path(), &Metadata::new("TEST01L8", CAPACITY)).unwrap();
    folder
}

/// Partition 0, alone.
fn open(folder: &TempDir) -> Partition {
    Cartridge::open(folder.path()).unwrap().partitions.remove(0)
}

fn record(length: usize, seed: u8) -> Vec<Bytes> {
    vec![(0..length).map(|n| (n as u8).wrapping_mul(7).wrapping_add(seed)).collect::<Vec<u8>>().into()]
}

fn plain(records: &[Vec<Bytes>]) -> impl Iterator<Item = Stored<'_>> {
    records.iter().map(|parts| Stored { parts, wrapped: false })
}

fn append(cartridge: &mut Partition, lengths: &[usize]) {
    for &length in lengths {
        let written = match length {
            0 => cartridge.append_filemarks(1),
            _ => cartridge.append_records(plain(&[record(length, length as u8)])),
        };
        assert!(written.error.is_none(), "{:?}", written.error);
    }
}

/// Lengths of all objects, 0 for filemarks; every record's data is compared.
fn contents(cartridge: &Partition) -> Vec<usize> {
    (0..cartridge.end().object)
        .map(|object| {
            let entry = cartridge.object(object).unwrap().unwrap();
            if entry.kind == ObjectKind::Record {
                let length = entry.length as usize;
                assert_eq!(cartridge.read(&entry).unwrap(), record(length, length as u8)[0]);
            }
            entry.length as usize
        })
        .collect()
}

fn tamper(folder: &TempDir, name: &str, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(folder.path().join(name)).unwrap().write_all_at(bytes, at).unwrap();
}

fn states(cartridge: &Partition) -> Vec<SumState> {
    (0..cartridge.end().object).map(|object| cartridge.object(object).unwrap().unwrap().sum_state).collect()
}

#[test]
fn what_was_written_is_there_when_the_cartridge_is_opened_again() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[10, 11, 0, 65_536, 0, 0]);
    cartridge.sync().unwrap();
    let sums = cartridge.file_sums(0, 10).unwrap();
    drop(cartridge);

    let mut cartridge = open(&folder);
    assert_eq!(cartridge.notes(), &[] as &[String]);
    assert_eq!(contents(&cartridge), [10, 11, 0, 65_536, 0, 0]);
    assert_eq!(cartridge.end().file, 3);
    assert_eq!(cartridge.file_sums(0, 10).unwrap(), sums);
    assert_eq!(
        sums.iter().map(|file| (file.first_object, file.records, file.bytes)).collect::<Vec<_>>(),
        [(0, 2, 21), (3, 1, 65_536), (5, 0, 0)]
    );
    assert!(sums.iter().all(|file| file.complete && file.closed));
}

#[test]
fn a_cartridge_in_use_cannot_be_opened_until_the_last_descriptor_is_closed() {
    let folder = new();
    let cartridge = open(&folder);
    let shared = cartridge.share_image().unwrap();
    assert!(matches!(Cartridge::open(folder.path()), Err(OpenError::InUse(_))));
    drop(cartridge);
    assert!(matches!(Cartridge::open(folder.path()), Err(OpenError::InUse(_))), "a mover still has it");
    drop(shared);
    open(&folder);
}

#[test]
fn filemarks_are_found_by_number() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[0, 5, 5, 0, 0, 5]);
    for synced in [false, true] {
        if synced {
            cartridge.sync().unwrap();
        }
        let marks: Vec<_> = (0..4).map(|file| cartridge.filemark(file).unwrap()).collect();
        assert_eq!(marks, [Some(0), Some(3), Some(4), None], "synced: {synced}");
    }
}

#[test]
fn without_a_sync_point_a_killed_process_loses_nothing_that_was_committed() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[100, 0]);
    cartridge.sync().unwrap();
    append(&mut cartridge, &[200, 300, 0]);
    drop(cartridge);

    let cartridge = open(&folder);
    assert_eq!(contents(&cartridge), [100, 0, 200, 300, 0]);
    use SumState::{Known, Recomputed};
    assert_eq!(states(&cartridge), [Known, Known, Recomputed, Recomputed, Recomputed]);
    assert!(cartridge.notes()[0].starts_with("3 objects were found behind the index"), "{:?}", cartridge.notes());
}

#[test]
fn bytes_behind_the_commit_word_are_cut_and_said() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[100]);
    cartridge.sync().unwrap();
    let end = cartridge.end().offset;
    drop(cartridge);
    tamper(&folder, "p0.tap", end + WORD, &[0x55; 1000]);

    let cartridge = open(&folder);
    assert_eq!(contents(&cartridge), [100]);
    assert!(cartridge.notes()[0].contains("never published: cut"), "{:?}", cartridge.notes());
    assert_eq!(fs::metadata(folder.path().join("p0.tap")).unwrap().len(), end + WORD);
    drop(cartridge);
    assert_eq!(open(&folder).notes().len(), 0);
}

#[test]
fn a_lost_index_is_rebuilt_and_proves_nothing() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[100, 0, 7]);
    cartridge.sync().unwrap();
    drop(cartridge);
    fs::remove_file(folder.path().join("p0.idx")).unwrap();

    let mut cartridge = open(&folder);
    assert_eq!(contents(&cartridge), [100, 0, 7]);
    assert!(states(&cartridge).iter().all(|state| *state == SumState::Recomputed));
    assert!(cartridge.notes()[0].starts_with("the index was lost"));
    assert!(!cartridge.file_sums(0, 1).unwrap()[0].complete);
    drop(cartridge);
    let cartridge = open(&folder);
    assert_eq!((contents(&cartridge), cartridge.notes().len()), (vec![100, 0, 7], 0));
}

#[test]
fn a_damaged_image_is_protected_and_keeps_its_bytes() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[100, 100, 100]);
    cartridge.sync().unwrap();
    let (second, size) = (cartridge.position_of(1).unwrap().offset, cartridge.end().offset + WORD);
    drop(cartridge);
    tamper(&folder, "p0.tap", second, &[99]);

    let mut cartridge = open(&folder);
    assert_eq!(contents(&cartridge), [100]);
    assert!(matches!(cartridge.append_filemarks(1).error, Some(WriteError::Protected)));
    assert!(matches!(cartridge.cut(TapePosition::BEGINNING), Err(WriteError::Protected)));
    assert_eq!(fs::metadata(folder.path().join("p0.tap")).unwrap().len(), size);
    assert_eq!(cartridge.notes().len(), 2, "{:?}", cartridge.notes());
}

#[test]
fn a_tail_that_is_missing_is_cut_and_said_also_where_the_index_knew_it() {
    for missing in [WORD, WORD + 1, 60, 104, 107] {
        let folder = new();
        let mut cartridge = open(&folder);
        append(&mut cartridge, &[100, 100, 100]);
        cartridge.sync().unwrap();
        let size = cartridge.end().offset + WORD;
        drop(cartridge);
        OpenOptions::new().write(true).open(folder.path().join("p0.tap")).unwrap().set_len(size - WORD - missing).unwrap();
        let mut cartridge = open(&folder);
        assert_eq!(contents(&cartridge), [100, 100], "{missing} bytes are missing");
        assert!(cartridge.notes().iter().any(|note| note.contains("no whole object")), "{:?}", cartridge.notes());
        append(&mut cartridge, &[9]);
        assert_eq!(contents(&cartridge), [100, 100, 9]);
    }
}

#[test]
fn damaged_data_is_an_error_and_no_data() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[100]);
    cartridge.sync().unwrap();
    tamper(&folder, "p0.tap", WORD + 50, &[0xEE]);
    let entry = cartridge.object(0).unwrap().unwrap();
    assert!(matches!(cartridge.read(&entry), Err(ReadError::Checksum { object: 0, .. })));
    tamper(&folder, "p0.tap", 0, &[98]);
    assert!(matches!(cartridge.read(&entry), Err(ReadError::Framing { object: 0, offset: 0 })));
}

#[test]
fn an_old_sum_is_never_lent_to_new_data_of_the_same_length() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[100, 100, 100]);
    cartridge.sync().unwrap();
    let old_index = fs::read(folder.path().join("p0.idx")).unwrap();
    cartridge.cut(cartridge.position_of(1).unwrap()).unwrap();
    cartridge.append_records(plain(&[record(100, 1)]));
    cartridge.append_records(plain(&[record(100, 2)]));
    drop(cartridge);
    // As if the file had kept the old entries behind the cut.
    let kept = protocol::cartridge::index::entry_offset(1) as usize;
    tamper(&folder, "p0.idx", kept as u64, &old_index[kept..]);

    let cartridge = open(&folder);
    assert_eq!(states(&cartridge), [SumState::Known, SumState::Recomputed, SumState::Recomputed]);
    let entry = cartridge.object(2).unwrap().unwrap();
    assert_eq!(cartridge.read(&entry).unwrap(), record(100, 2)[0]);
}

#[test]
fn every_moment_of_a_cut_can_be_opened() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[100, 0, 50]);
    cartridge.sync().unwrap();
    let image = fs::read(folder.path().join("p0.tap")).unwrap();
    let at = cartridge.position_of(1).unwrap();
    cartridge.cut(at).unwrap();
    drop(cartridge);

    // The index is cut, the image is not yet.
    fs::write(folder.path().join("p0.tap"), &image).unwrap();
    assert_eq!(contents(&open(&folder)), [100, 0, 50]);
    // The image is truncated, the end word is not there yet, or in part.
    for length in at.offset..at.offset + WORD {
        let folder = new();
        let mut cartridge = open(&folder);
        append(&mut cartridge, &[100, 0, 50]);
        cartridge.sync().unwrap();
        cartridge.cut(at).unwrap();
        drop(cartridge);
        OpenOptions::new().write(true).open(folder.path().join("p0.tap")).unwrap().set_len(length).unwrap();
        let mut cartridge = open(&folder);
        assert_eq!(contents(&cartridge), [100]);
        append(&mut cartridge, &[9]);
        assert_eq!(contents(&cartridge), [100, 9]);
    }
}

#[test]
fn the_end_of_the_medium_keeps_what_fits() {
    let folder = new();
    let mut cartridge = open(&folder);
    let records: Vec<_> = (0..20).map(|_| record(65_536, 0)).collect();
    let written = cartridge.append_records(plain(&records));
    assert_eq!(written.objects, 15);
    assert!(written.early_warning);
    assert!(matches!(written.error, Some(WriteError::Append(AppendError::NoRoom { .. }))), "{:?}", written.error);
    assert_eq!(written.position, cartridge.end());
    assert_eq!(cartridge.append_filemarks(1).objects, 1);
}

#[test]
fn a_mover_s_objects_are_adopted_only_where_the_image_shows_them() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[10]);
    let image = cartridge.share_image().unwrap();
    let mut appender = Appender::new(cartridge.end(), cartridge.limits());
    let placement = appender.record(3).unwrap();
    let bytes = [&placement.head()[..], b"abc", placement.tail()].concat();
    image.write_all_at(&bytes, placement.write_at()).unwrap();
    let (at, sum) = (placement.at, RecordSum::of(b"abc"));
    let appended = Appended { at, gap: 0, kind: ObjectKind::Record, length: 3, sum_state: SumState::Known, sum };
    assert_eq!(cartridge.adopt(&[appended]).unwrap_err().kind(), io::ErrorKind::InvalidData, "not published yet");
    for step in appender.commit(Durability::Process) {
        if let Step::Write { at, word } = step {
            image.write_all_at(&word, at).unwrap();
        }
    }
    let wrong = Appended { length: 4, ..appended };
    assert_eq!(cartridge.adopt(&[wrong]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    cartridge.adopt(&[appended]).unwrap();
    cartridge.sync().unwrap();
    let entry = cartridge.object(1).unwrap().unwrap();
    assert_eq!(cartridge.read(&entry).unwrap(), &b"abc"[..]);
    let sums = cartridge.file_sums(0, 1).unwrap()[0];
    assert_eq!((sums.records, sums.complete, sums.closed), (2, true, false));
}

#[test]
fn an_empty_shelf_gets_a_cartridge_and_a_full_one_gives_its_first() {
    let shelf = tempfile::tempdir().unwrap();
    let made = shelf::cartridge_of(&shelf.path().join("shelf"), &NewMedium::of_capacity(CAPACITY)).unwrap();
    assert!(made.ends_with("shelf/OFH001L8"));
    assert_eq!(Cartridge::open(&made).unwrap().metadata().capacity, CAPACITY);
    assert_eq!(shelf::cartridge_of(&shelf.path().join("shelf"), &NewMedium::default()).unwrap(), made);
    assert_eq!(shelf::cartridge_of(&made, &NewMedium::default()).unwrap(), made);
}

#[test]
fn a_write_protected_cartridge_is_never_changed() {
    let folder = new();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[10]);
    cartridge.sync().unwrap();
    let metadata = Metadata { write_protect: true, ..Metadata::load(folder.path()).unwrap() };
    drop(cartridge);
    metadata.store(folder.path()).unwrap();
    fs::remove_file(folder.path().join("p0.idx")).unwrap();
    let before = fs::read(folder.path().join("p0.tap")).unwrap();

    let mut cartridge = open(&folder);
    assert_eq!(contents(&cartridge), [10]);
    assert!(matches!(cartridge.append_filemarks(1).error, Some(WriteError::Protected)));
    cartridge.sync().unwrap();
    assert_eq!(fs::read(folder.path().join("p0.tap")).unwrap(), before);
    assert!(!folder.path().join("p0.idx").exists());
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<usize>),
    Sync,
    Cut(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => prop::collection::vec(0..60usize, 0..4).prop_map(Op::Append),
        1 => Just(Op::Sync),
        1 => (0..12u64).prop_map(Op::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// The image is cut off anywhere behind the last sync point, as a power loss may leave it.
    #[test]
    fn opening_after_a_crash_gives_whole_records_with_all_that_was_synchronized(ops in prop::collection::vec(op(), 1..8)) {
        let folder = new();
        let mut cartridge = open(&folder);
        let mut model: Vec<usize> = Vec::new();
        let mut synced = 0;
        for op in ops {
            match op {
                Op::Append(lengths) => { append(&mut cartridge, &lengths); model.extend(&lengths) }
                Op::Sync => { cartridge.sync().unwrap(); synced = model.len() }
                Op::Cut(object) => {
                    let object = object.min(model.len() as u64);
                    let shorter = object < model.len() as u64;
                    cartridge.cut(cartridge.position_of(object).unwrap()).unwrap();
                    model.truncate(object as usize);
                    if shorter { synced = model.len() }
                }
            }
        }
        let (from, to) = (cartridge.position_of(synced as u64).unwrap().offset, cartridge.end().offset + WORD);
        drop(cartridge);
        for size in (from..to).step_by(3).chain([to]) {
            let crashed = tempfile::tempdir().unwrap();
            for file in ["p0.tap", "p0.idx", "cartridge.json"] {
                fs::copy(folder.path().join(file), crashed.path().join(file)).unwrap();
            }
            OpenOptions::new().write(true).open(crashed.path().join("p0.tap")).unwrap().set_len(size).unwrap();
            let mut cartridge = open(&crashed);
            let found = contents(&cartridge);
            prop_assert!(found.len() >= synced, "{} of {synced} at size {size}", found.len());
            prop_assert_eq!(&found[..], &model[..found.len()]);
            append(&mut cartridge, &[13]);
            prop_assert_eq!(contents(&cartridge).len(), found.len() + 1);
        }
    }
}

#[test]
fn filemarks_without_number_are_written_at_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    // Room for a record of 4 bytes, 300,000 marks and an end.
    Cartridge::create(folder.path(), &Metadata::new("MARKS1L8", 12 + 4 * 300_000 + 4)).unwrap();
    let mut cartridge = Cartridge::open(folder.path()).unwrap();
    let partition = &mut cartridge.partitions_mut()[0];
    assert!(partition.append_records([Stored { parts: &[Bytes::from_static(b"data")], wrapped: false }]).error.is_none());
    let written = partition.append_filemarks(400_000);
    assert_eq!(written.objects, 300_000);
    assert!(matches!(written.error, Some(WriteError::Append(_))), "{:?}", written.error);
    assert_eq!((written.position.object, written.position.file), (300_001, 300_000));
    for file in [0, 1, 131_072, 299_999] {
        assert_eq!(partition.filemark(file).unwrap(), Some(file + 1));
    }
    let sums = partition.file_sums(299_998, 10).unwrap();
    assert_eq!(
        sums.iter().map(|file| (file.file, file.records, file.closed)).collect::<Vec<_>>(),
        [(299_998, 0, true), (299_999, 0, true)]
    );
    assert_eq!(partition.file_sums(0, 1).unwrap()[0].records, 1);
    partition.sync().unwrap();
    drop(cartridge);
    let cartridge = Cartridge::open(folder.path()).unwrap();
    assert_eq!(cartridge.partitions()[0].end().file, 300_000);
}
