//! Every crash leaves a prefix: random appends are written byte by byte, cut at any byte, and read again.

use proptest::prelude::*;

use super::*;
use crate::cartridge::layout::{ALIGNED_LEAST, ALIGNMENT};
use crate::cartridge::scan::{self, Walk};

const fn roomy(layout: Layout) -> Limits {
    Limits { capacity: 1 << 40, early_warning: 1 << 39, layout }
}

fn data(object: u64, length: u32) -> Vec<u8> {
    (0..length).map(|n| (object as u8).wrapping_mul(31).wrapping_add(n as u8)).collect()
}

/// One thing a crash can come between or into.
#[derive(Debug, Clone)]
enum Io {
    Write(u64, Vec<u8>),
    /// Everything written before survives: a power loss may cut only behind it.
    SyncPoint {
        objects: u64,
    },
}

fn apply(image: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = at as usize;
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..][..bytes.len()].copy_from_slice(bytes);
}

/// Lengths (0 for a filemark) in batches; each batch is written and committed, every third one with a sync point.
fn run(batches: &[Vec<u32>], backwards: bool, layout: Layout) -> (Vec<Io>, Vec<u32>) {
    let mut appender = Appender::new(TapePosition::BEGINNING, roomy(layout));
    let mut log = vec![Io::Write(0, END_OF_MEDIUM.to_le_bytes().to_vec())];
    let mut all = Vec::new();
    for (n, batch) in batches.iter().enumerate() {
        let mut writes = Vec::new();
        for &length in batch {
            let placement = if length == 0 { appender.filemark() } else { appender.record(length.into()) }.unwrap();
            let data = data(placement.at.object, length);
            writes.push(Io::Write(placement.write_at(), [&placement.head(), &data[..], placement.tail()].concat()));
            all.push(length);
        }
        if backwards {
            writes.reverse();
        }
        log.extend(writes);
        let durability = if n % 3 == 2 { Durability::Power } else { Durability::Process };
        for step in appender.commit(durability) {
            if let Step::Write { at, word } = step {
                log.push(Io::Write(at, word.to_vec()));
            }
        }
        log.push(Io::SyncPoint { objects: appender.committed().object });
    }
    (log, all)
}

/// As [`run`], of pieces that are filled in the order of `turns` by an appender each, and published in their own by another.
fn run_filled(pieces: &[Vec<u32>], turns: &[usize], layout: Layout) -> (Vec<Io>, Vec<u32>) {
    let mut committer = Appender::new(TapePosition::BEGINNING, roomy(layout));
    let mut places = committer.clone();
    let place = |appender: &mut Appender, length: &u32| appender.record((*length).into()).unwrap();
    let starts: Vec<_> = pieces
        .iter()
        .map(|piece| {
            let start = places.end();
            for length in piece {
                place(&mut places, length);
            }
            start
        })
        .collect();
    let mut log = vec![Io::Write(0, END_OF_MEDIUM.to_le_bytes().to_vec())];
    let (mut filled, mut next) = (vec![false; pieces.len()], 0);
    for &turn in turns {
        let mut appender = Appender::filling(starts[turn], roomy(layout));
        for length in &pieces[turn] {
            let placement = place(&mut appender, length);
            let data = data(placement.at.object, *length);
            log.push(Io::Write(placement.write_at(), [&placement.head(), &data[..], placement.tail()].concat()));
            assert_eq!(appender.commit(Durability::Power), [], "it is another's to publish");
            assert_eq!(appender.committed(), placement.next());
        }
        filled[turn] = true;
        while filled.get(next) == Some(&true) {
            for length in &pieces[next] {
                place(&mut committer, length);
            }
            for step in committer.commit(Durability::Process) {
                if let Step::Write { at, word } = step {
                    log.push(Io::Write(at, word.to_vec()));
                }
            }
            log.push(Io::SyncPoint { objects: committer.committed().object });
            next += 1;
        }
    }
    (log, pieces.concat())
}

fn read_back(image: &[u8], layout: Layout) -> Vec<u32> {
    Walk::of(layout, scan::slice(image), TapePosition::BEGINNING)
        .map(|object| {
            let object = object.unwrap();
            let from = object.at.offset as usize + object.gap as usize + WORD as usize;
            if object.kind == ObjectKind::Record {
                assert_eq!(image[from..][..object.length as usize], data(object.at.object, object.length));
            }
            object.length
        })
        .collect()
}

/// Writes all, and at each of the bytes that `crashes` chooses of a write takes what is there for what a crash has left.
fn check_crashes((log, all): (Vec<Io>, Vec<u32>), layout: Layout, crashes: impl Fn(usize) -> Vec<usize>) {
    let mut image = Vec::new();
    let mut committed = 0;
    for io in &log {
        match io {
            Io::SyncPoint { objects } => committed = *objects as usize,
            Io::Write(at, bytes) => {
                for torn in crashes(bytes.len()) {
                    let mut crashed = image.clone();
                    apply(&mut crashed, *at, &bytes[..torn]);
                    let objects = read_back(&crashed, layout);
                    assert!(objects.len() >= committed, "{} of {committed} committed", objects.len());
                    assert_eq!(objects[..], all[..objects.len()]);
                }
                apply(&mut image, *at, bytes);
            }
        }
    }
    assert_eq!(read_back(&image, layout), all);
}

/// Records below and above what an aligned image aligns, behind any even place.
fn lengths() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..40u32, 1 => ALIGNED_LEAST..ALIGNED_LEAST + 40]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_crash_in_a_gap_leaves_a_prefix_too(
        batches in prop::collection::vec(prop::collection::vec(lengths(), 0..4), 1..4),
        backwards in any::<bool>(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 3),
    ) {
        check_crashes(run(&batches, backwards, Layout::Aligned), Layout::Aligned, |len| {
            let ends = (0..=len.min(9)).chain(len.saturating_sub(9)..=len);
            ends.chain(places.iter().map(|place| place.index(len + 1))).collect()
        });
    }

    #[test]
    fn the_data_of_long_records_is_aligned_and_found_from_both_sides(lengths in prop::collection::vec(lengths(), 1..12)) {
        let (log, all) = run(&[lengths], false, Layout::Aligned);
        let mut image = Vec::new();
        log.iter().for_each(|io| if let Io::Write(at, bytes) = io { apply(&mut image, *at, bytes) });
        let walk = Walk::of(Layout::Aligned, scan::slice(&image), TapePosition::BEGINNING);
        let objects: Vec<_> = walk.map(Result::unwrap).collect();
        prop_assert_eq!(objects.len(), all.len());
        for object in &objects {
            let first = object.at.offset + u64::from(object.gap);
            prop_assert!(object.length < ALIGNED_LEAST || (first + WORD).is_multiple_of(ALIGNMENT));
            let (found, place) = scan::object_backward(&mut scan::slice(&image), object.next().offset).unwrap();
            let (scan::Found::Record { at, .. } | scan::Found::Filemark { at, .. }) = found else { panic!("{found:?}") };
            prop_assert_eq!((at, place), (first, object.at.offset));
            prop_assert_eq!(scan::object_forward(&mut scan::slice(&image), object.at.offset).unwrap(), found);
        }
        prop_assert_eq!(Walk::with_gaps(scan::slice(&image), TapePosition::BEGINNING).count(), all.len());
    }
}

proptest! {
    #[test]
    fn a_crash_at_any_byte_leaves_a_prefix_with_all_that_was_committed(
        batches in prop::collection::vec(prop::collection::vec(0..40u32, 0..5), 1..6),
        backwards in any::<bool>(),
    ) {
        for layout in [Layout::Plain, Layout::Aligned] {
            check_crashes(run(&batches, backwards, layout), layout, |len| (0..=len).collect());
        }
    }

    #[test]
    fn so_it_does_where_several_fill_what_one_publishes(
        (pieces, turns) in prop::collection::vec(prop::collection::vec(1..40u32, 1..4), 1..6)
            .prop_flat_map(|pieces| (Just((0..pieces.len()).collect::<Vec<_>>()).prop_shuffle(), Just(pieces)))
            .prop_map(|(turns, pieces)| (pieces, turns)),
    ) {
        for layout in [Layout::Plain, Layout::Aligned] {
            check_crashes(run_filled(&pieces, &turns, layout), layout, |len| (0..=len).collect());
        }
    }

    #[test]
    fn what_several_fill_is_what_one_would_have_written(
        (pieces, turns) in prop::collection::vec(prop::collection::vec(lengths().prop_map(|len| len.max(1)), 1..3), 1..4)
            .prop_flat_map(|pieces| (Just((0..pieces.len()).collect::<Vec<_>>()).prop_shuffle(), Just(pieces)))
            .prop_map(|(turns, pieces)| (pieces, turns)),
    ) {
        for layout in [Layout::Plain, Layout::Aligned] {
            let images = [run_filled(&pieces, &turns, layout), run(&pieces, false, layout)].map(|(log, _)| {
                let mut image = Vec::new();
                log.iter().for_each(|io| if let Io::Write(at, bytes) = io { apply(&mut image, *at, bytes) });
                image
            });
            prop_assert!(images[0] == images[1]);
        }
    }

    #[test]
    fn placements_never_pass_the_capacity(lengths in prop::collection::vec(0..200u64, 0..100), capacity in 0..4000u64, aligned in any::<bool>()) {
        let layout = if aligned { Layout::Aligned } else { Layout::Plain };
        let mut appender = Appender::new(TapePosition::BEGINNING, Limits { capacity, early_warning: capacity / 2, layout });
        for length in lengths {
            let before = appender.end();
            match if length == 0 { appender.filemark() } else { appender.record(length) } {
                Ok(placement) => {
                    prop_assert!(placement.next().offset + WORD <= capacity);
                    prop_assert_eq!(placement.early_warning, placement.next().offset >= capacity / 2);
                }
                Err(AppendError::NoRoom { needed, left }) => {
                    prop_assert!(needed > left);
                    prop_assert_eq!(appender.end(), before);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn the_first_word_of_a_batch_is_written_last() {
    let mut appender = Appender::new(TapePosition::BEGINNING, roomy(Layout::Plain));
    let record = appender.record(3).unwrap();
    assert_eq!((record.write_at(), record.head(), record.tail()), (4, vec![], &[0, 3, 0, 0, 0][..]));
    let mark = appender.filemark().unwrap();
    assert_eq!((mark.write_at(), mark.head(), mark.tail()), (12, vec![0; 4], &[][..]));
    assert_eq!(
        appender.commit(Durability::Power),
        [Step::Write { at: 16, word: [0xFF; 4] }, Step::Sync, Step::Write { at: 0, word: [3, 0, 0, 0] }, Step::Sync]
    );
    assert_eq!(appender.committed(), TapePosition { object: 2, file: 1, offset: 16 });
    assert_eq!(appender.commit(Durability::Process), []);
    assert_eq!(appender.commit(Durability::Power), [Step::Sync]);
}

#[test]
fn records_without_a_length_or_too_long_are_refused() {
    let mut appender = Appender::new(TapePosition::BEGINNING, roomy(Layout::Plain));
    for length in [0, u64::from(MAX_RECORD_LENGTH) + 1, u64::MAX] {
        assert_eq!(appender.record(length), Err(AppendError::Length { length }));
    }
    assert!(appender.record(MAX_RECORD_LENGTH.into()).is_ok());
}

#[test]
fn what_was_placed_and_abandoned_leaves_no_trace() {
    let mut appender = Appender::new(TapePosition::BEGINNING, roomy(Layout::Plain));
    let first = appender.record(10).unwrap();
    appender.abandon();
    assert_eq!(appender.commit(Durability::Process), []);
    assert_eq!(appender.record(10).unwrap(), first);
}
