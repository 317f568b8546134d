//! Cartridges of the aligned layout, and images with gaps that came from elsewhere.

use protocol::cartridge::frame::{END_OF_MEDIUM, ERASE_GAP};
use protocol::cartridge::layout::{ALIGNED_LEAST, ALIGNMENT, Layout};

use super::*;

const LONG: usize = ALIGNED_LEAST as usize;
/// Short and long ones, and such that the next place is odd in words.
const LENGTHS: [usize; 8] = [10, LONG, 3, 0, LONG + 4465, LONG + 2, 0, 5];

fn new_aligned() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let label = NewMedium { layout: Layout::Aligned, ..NewMedium::of_capacity(4 << 20) }.label("TEST02L8");
    Cartridge::create(folder.path(), &label).unwrap();
    folder
}

fn written() -> TempDir {
    let folder = new_aligned();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &LENGTHS);
    cartridge.sync().unwrap();
    folder
}

#[test]
fn long_records_are_aligned_and_all_is_there_again_with_and_without_the_index() {
    let folder = written();
    for known in [SumState::Known, SumState::Recomputed] {
        let cartridge = open(&folder);
        assert_eq!(contents(&cartridge), LENGTHS, "{:?}", cartridge.notes());
        assert!(states(&cartridge).iter().all(|state| *state == known));
        for object in 0..LENGTHS.len() as u64 {
            let entry = cartridge.object(object).unwrap().unwrap();
            let data = entry.at.offset + u64::from(entry.gap) + WORD;
            assert_eq!(entry.length >= ALIGNED_LEAST, entry.gap > 0, "object {object}");
            assert!(entry.length < ALIGNED_LEAST || data.is_multiple_of(ALIGNMENT), "object {object} lies at {data}");
        }
        drop(cartridge);
        fs::remove_file(folder.path().join("p0.idx")).unwrap();
    }
}

#[test]
fn a_tape_that_is_written_over_in_front_of_a_gap_is_whole() {
    let folder = written();
    let mut cartridge = open(&folder);
    cartridge.cut(cartridge.position_of(4).unwrap()).unwrap();
    append(&mut cartridge, &[7, LONG + 1]);
    drop(cartridge);
    assert_eq!(contents(&open(&folder)), [10, LONG, 3, 0, 7, LONG + 1]);
}

#[test]
fn wherever_a_crash_cuts_a_gap_or_its_record_whole_records_are_left() {
    let folder = new_aligned();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[10]);
    cartridge.sync().unwrap();
    let from = cartridge.end().offset;
    append(&mut cartridge, &[LONG]);
    let to = cartridge.end().offset + WORD;
    drop(cartridge);
    let image = fs::read(folder.path().join("p0.tap")).unwrap();
    let index = fs::read(folder.path().join("p0.idx")).unwrap();
    for zeros in [false, true] {
        for size in (from..from + 10).chain((from + 10..to).step_by(997)).chain(to - 10..to) {
            // The word that ended the tape was synchronized: it never becomes zeros.
            if zeros && size < from + WORD {
                continue;
            }
            fs::write(folder.path().join("p0.idx"), &index).unwrap();
            let mut crashed = image[..size as usize].to_vec();
            if zeros {
                crashed.resize(image.len(), 0);
            }
            fs::write(folder.path().join("p0.tap"), &crashed).unwrap();
            let mut cartridge = open(&folder);
            // Only the end word is missing: no object is.
            let whole = size >= to - WORD;
            let expected = if whole { vec![10, LONG] } else { vec![10] };
            assert_eq!(contents(&cartridge)[..expected.len()], expected, "{size} of {to}, zeros {zeros}");
            assert!(zeros || contents(&cartridge).len() == expected.len(), "{size} of {to}");
            assert!(cartridge.writable(), "protected at {size} of {to}: {:?}", cartridge.notes());
            append(&mut cartridge, &[13]);
        }
    }
}

#[test]
fn an_image_from_elsewhere_is_read_over_its_gaps_and_written_behind_them() {
    let folder = new();
    let gap = |words: usize| ERASE_GAP.to_le_bytes().repeat(words);
    let object = |length: usize| match length {
        0 => vec![0; 4],
        _ => {
            let word = (length as u32).to_le_bytes();
            [&word[..], &record(length, length as u8)[0], &[0][..length % 2], &word[..]].concat()
        }
    };
    let half = [&[0xFF; 2][..], &gap(3)].concat();
    let image =
        [gap(1), object(7), gap(2000), object(0), half, object(100), gap(5), END_OF_MEDIUM.to_le_bytes().to_vec()].concat();
    fs::write(folder.path().join("p0.tap"), image).unwrap();
    let mut cartridge = open(&folder);
    assert_eq!(contents(&cartridge), [7, 0, 100], "{:?}", cartridge.notes());
    append(&mut cartridge, &[9]);
    cartridge.sync().unwrap();
    drop(cartridge);
    let cartridge = open(&folder);
    assert_eq!((contents(&cartridge), cartridge.notes().len()), (vec![7, 0, 100, 9], 0), "{:?}", cartridge.notes());
}

/// Appends records as a mover does that lets them refer to blocks of a disk: without sums.
fn refer(cartridge: &mut Partition, lengths: &[usize]) {
    let mut appender = Appender::new(cartridge.end(), cartridge.limits());
    let image = cartridge.share_image().unwrap();
    let place = |length: &usize| {
        let placement = appender.record(*length as u64).unwrap();
        let data = &record(*length, *length as u8)[0];
        image.write_all_at(&[&placement.head(), &data[..], placement.tail()].concat(), placement.write_at()).unwrap();
        let (at, gap, kind, length) = (placement.at, placement.gap, placement.kind, placement.length);
        Appended { at, gap, kind, length, sum_state: SumState::Absent, sum: RecordSum::default() }
    };
    let referred: Vec<_> = lengths.iter().map(place).collect();
    for step in appender.commit(Durability::Process) {
        let Step::Write { at, word } = step else { continue };
        image.write_all_at(&word, at).unwrap();
    }
    cartridge.adopt(&referred).unwrap();
}

fn absent(cartridge: &Partition) -> (u64, u64) {
    (cartridge.absent().records, cartridge.absent().bytes)
}

/// A whole cartridge, since searching is its business.
fn open_all(folder: &TempDir) -> Cartridge {
    Cartridge::open(folder.path()).unwrap()
}

fn found(cartridge: &mut Cartridge) -> Unsummed {
    match cartridge.find_unsummed() {
        Search::Found(record) => record,
        other => panic!("{other:?}"),
    }
}

fn take_all(cartridge: &mut Cartridge) -> u64 {
    let mut taken = 0;
    loop {
        match cartridge.find_unsummed() {
            Search::Found(record) => taken += u64::from(cartridge.keep_sum(&record, record.take())),
            Search::Further => {}
            Search::None => return taken,
        }
    }
}

#[test]
fn a_record_without_sums_gets_them_from_the_medium_and_is_no_proof() {
    let folder = new_aligned();
    let mut cartridge = open(&folder);
    refer(&mut cartridge, &[LONG]);
    assert!(!cartridge.file_sums(0, 1).unwrap()[0].complete);
    for synced in [false, true] {
        if synced {
            cartridge.sync().unwrap();
        }
        let entry = cartridge.object(0).unwrap().unwrap();
        if synced {
            assert_eq!(entry.sum_state, SumState::Recomputed);
        } else {
            assert_eq!(entry.sum_state, SumState::Absent);
            cartridge.recompute(&entry).unwrap();
        }
    }
    assert_eq!(cartridge.object(0).unwrap().unwrap().sum, RecordSum::of(&record(LONG, LONG as u8)[0]));
    assert!(!cartridge.file_sums(0, 1).unwrap()[0].complete, "sums of the medium prove nothing about the writing");
    drop(cartridge);
    assert_eq!(states(&open(&folder)), [SumState::Recomputed]);
}

#[test]
fn records_without_sums_are_counted_through_all_that_happens_to_them() {
    let folder = new_aligned();
    let mut cartridge = open(&folder);
    append(&mut cartridge, &[10, 0]);
    refer(&mut cartridge, &[LONG, LONG + 2, LONG]);
    append(&mut cartridge, &[LONG]);
    assert_eq!(absent(&cartridge), (3, 3 * LONG as u64 + 2));
    // In memory and on the file.
    cartridge.cut(cartridge.position_of(4).unwrap()).unwrap();
    assert_eq!(absent(&cartridge), (2, 2 * LONG as u64 + 2));
    refer(&mut cartridge, &[LONG + 4]);
    drop(cartridge);
    let mut cartridge = open(&folder);
    assert_eq!(absent(&cartridge), (2, 2 * LONG as u64 + 2), "what was not synchronized is read again, with sums");
    cartridge.cut(cartridge.position_of(3).unwrap()).unwrap();
    assert_eq!(absent(&cartridge), (1, LONG as u64));
    cartridge.cut(TapePosition::BEGINNING).unwrap();
    assert_eq!(absent(&cartridge), (0, 0));
}

#[test]
fn a_cut_anywhere_leaves_the_count_of_what_is_in_front_of_it() {
    const OBJECTS: usize = 9000;
    let lengths: Vec<usize> = (0..OBJECTS).map(|object| 1 + object % 7).collect();
    for synced in [false, true] {
        let folder = new_aligned();
        let mut cartridge = open(&folder);
        refer(&mut cartridge, &lengths);
        if synced {
            cartridge.sync().unwrap();
        }
        for object in [OBJECTS - 1, 8192, 8191, 4100, 4096, 4095, 3, 0] {
            cartridge.cut(cartridge.position_of(object as u64).unwrap()).unwrap();
            let bytes: usize = lengths[..object].iter().sum();
            assert_eq!(absent(&cartridge), (object as u64, bytes as u64), "cut at {object}");
        }
    }
}

#[test]
fn sums_are_taken_beside_the_drive_and_find_later_damage() {
    let folder = new_aligned();
    let mut cartridge = open_all(&folder);
    append(&mut cartridge.partitions[0], &[10]);
    refer(&mut cartridge.partitions[0], &[LONG, LONG + 2]);
    append(&mut cartridge.partitions[0], &[0]);
    cartridge.partitions[0].sync().unwrap();
    assert_eq!(take_all(&mut cartridge), 2);
    assert_eq!(cartridge.absent(), Absent::default());
    drop(cartridge);
    let partition = open(&folder);
    assert_eq!(absent(&partition), (0, 0), "they are on the file");
    assert_eq!(contents(&partition), [10, LONG, LONG + 2, 0]);
    let entry = partition.object(2).unwrap().unwrap();
    tamper(&folder, "p0.tap", entry.at.offset + u64::from(entry.gap) + WORD + 777, &[0xEE]);
    assert!(matches!(partition.read(&entry), Err(ReadError::Checksum { object: 2, .. })));
}

#[test]
fn a_sum_of_what_is_gone_is_not_kept() {
    let folder = new_aligned();
    let mut cartridge = open_all(&folder);
    refer(&mut cartridge.partitions[0], &[LONG]);
    cartridge.partitions[0].sync().unwrap();
    let old = found(&mut cartridge);
    let sum = old.take().unwrap();
    // Written anew: as long, at the same place, and again without sums.
    cartridge.partitions[0].cut(TapePosition::BEGINNING).unwrap();
    refer(&mut cartridge.partitions[0], &[LONG]);
    assert!(!cartridge.keep_sum(&old, Ok(sum)));
    let current = found(&mut cartridge);
    cartridge.partitions[0].sync().unwrap();
    drop(cartridge);
    let mut cartridge = open_all(&folder);
    assert!(!cartridge.keep_sum(&current, current.take()), "another cartridge may be in the drive");
    assert_eq!((cartridge.absent().records, take_all(&mut cartridge)), (1, 1));
}

#[test]
fn a_record_that_cannot_be_read_is_told_of_once_and_passed_over() {
    let folder = new_aligned();
    let mut cartridge = open_all(&folder);
    refer(&mut cartridge.partitions[0], &[LONG, LONG + 2, LONG + 4]);
    cartridge.partitions[0].sync().unwrap();
    for object in 0..2 {
        let entry = cartridge.partitions[0].object(object).unwrap().unwrap();
        tamper(&folder, "p0.tap", entry.at.offset + u64::from(entry.gap), &[1]);
    }
    assert_eq!(take_all(&mut cartridge), 1);
    assert_eq!((cartridge.absent().records, cartridge.notes().len()), (2, 1), "{:?}", cartridge.notes());
    // What is written there later is looked at again.
    cartridge.partitions[0].cut(TapePosition::BEGINNING).unwrap();
    refer(&mut cartridge.partitions[0], &[LONG]);
    assert_eq!(take_all(&mut cartridge), 1);
}

#[test]
fn entries_that_a_crash_tore_while_their_sums_were_written_lose_nothing_but_these() {
    let folder = new_aligned();
    let mut cartridge = open_all(&folder);
    append(&mut cartridge.partitions[0], &[LONG]);
    refer(&mut cartridge.partitions[0], &[LONG, LONG + 2, LONG]);
    append(&mut cartridge.partitions[0], &[0, 10]);
    cartridge.partitions[0].sync().unwrap();
    let before = fs::read(folder.path().join("p0.idx")).unwrap();
    take_all(&mut cartridge);
    drop(cartridge);
    let after = fs::read(folder.path().join("p0.idx")).unwrap();
    let differ: Vec<_> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
    // A sector boundary anywhere in the bytes that were written anew.
    for boundary in differ.iter().step_by(7) {
        let torn = [&after[..*boundary], &before[*boundary..]].concat();
        for torn in [torn, [&before[..*boundary], &after[*boundary..]].concat()] {
            fs::write(folder.path().join("p0.idx"), torn).unwrap();
            let mut cartridge = open_all(&folder);
            assert_eq!(contents(&cartridge.partitions[0]), [LONG, LONG, LONG + 2, LONG, 0, 10]);
            assert!(cartridge.notes().len() <= 1, "{:?}", cartridge.notes());
            take_all(&mut cartridge);
            let (known, recomputed) = (SumState::Known, SumState::Recomputed);
            assert_eq!(states(&cartridge.partitions[0]), [known, recomputed, recomputed, recomputed, known, known]);
            drop(cartridge);
            let cartridge = open_all(&folder);
            assert_eq!((cartridge.absent().records, cartridge.notes().len()), (0, 0), "{:?}", cartridge.notes());
        }
    }
}
