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

#[test]
fn a_record_without_sums_gets_them_from_the_medium_and_is_no_proof() {
    let folder = new_aligned();
    let mut cartridge = open(&folder);
    let mut appender = Appender::new(cartridge.end(), cartridge.limits());
    let placement = appender.record(LONG as u64).unwrap();
    let image = cartridge.share_image().unwrap();
    let data = &record(LONG, LONG as u8)[0];
    image.write_all_at(&[&placement.head(), &data[..], placement.tail()].concat(), placement.write_at()).unwrap();
    for step in appender.commit(Durability::Process) {
        let Step::Write { at, word } = step else { continue };
        image.write_all_at(&word, at).unwrap();
    }
    drop(image);
    let (at, gap, kind, length) = (placement.at, placement.gap, placement.kind, placement.length);
    let referred = Appended { at, gap, kind, length, sum_state: SumState::Absent, sum: RecordSum::default() };
    cartridge.adopt(&[referred]).unwrap();
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
    assert_eq!(cartridge.object(0).unwrap().unwrap().sum, RecordSum::of(data));
    assert!(!cartridge.file_sums(0, 1).unwrap()[0].complete, "sums of the medium prove nothing about the writing");
    drop(cartridge);
    assert_eq!(states(&open(&folder)), [SumState::Recomputed]);
}
