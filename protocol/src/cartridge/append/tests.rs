//! Every crash leaves a prefix: random appends are written byte by byte, cut at any byte, and read again.

use proptest::prelude::*;

use super::*;
use crate::cartridge::scan::{self, Walk};

const ROOMY: Limits = Limits { capacity: 1 << 40, early_warning: 1 << 39 };

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
fn run(batches: &[Vec<u32>], backwards: bool) -> (Vec<Io>, Vec<u32>) {
    let mut appender = Appender::new(TapePosition::BEGINNING, ROOMY);
    let mut log = vec![Io::Write(0, END_OF_MEDIUM.to_le_bytes().to_vec())];
    let mut all = Vec::new();
    for (n, batch) in batches.iter().enumerate() {
        let mut writes = Vec::new();
        for &length in batch {
            let placement = if length == 0 { appender.filemark() } else { appender.record(length.into()) }.unwrap();
            let data = data(placement.at.object, length);
            writes.push(Io::Write(placement.write_at(), [placement.head(), &data, placement.tail()].concat()));
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

fn read_back(image: &[u8]) -> Vec<u32> {
    Walk::plain(scan::slice(image), TapePosition::BEGINNING)
        .map(|object| {
            let object = object.unwrap();
            let from = (object.at.offset + WORD) as usize;
            if object.kind == ObjectKind::Record {
                assert_eq!(image[from..][..object.length as usize], data(object.at.object, object.length));
            }
            object.length
        })
        .collect()
}

proptest! {
    #[test]
    fn a_crash_at_any_byte_leaves_a_prefix_with_all_that_was_committed(
        batches in prop::collection::vec(prop::collection::vec(0..40u32, 0..5), 1..6),
        backwards in any::<bool>(),
    ) {
        let (log, all) = run(&batches, backwards);
        let mut image = Vec::new();
        let mut committed = 0;
        for io in &log {
            match io {
                Io::SyncPoint { objects } => committed = *objects as usize,
                Io::Write(at, bytes) => {
                    for torn in 0..=bytes.len() {
                        let mut crashed = image.clone();
                        apply(&mut crashed, *at, &bytes[..torn]);
                        let objects = read_back(&crashed);
                        prop_assert!(objects.len() >= committed, "{} of {committed} committed", objects.len());
                        prop_assert_eq!(&objects[..], &all[..objects.len()]);
                    }
                    apply(&mut image, *at, bytes);
                }
            }
        }
        prop_assert_eq!(read_back(&image), all);
    }

    #[test]
    fn placements_never_pass_the_capacity(lengths in prop::collection::vec(0..200u64, 0..100), capacity in 0..4000u64) {
        let mut appender = Appender::new(TapePosition::BEGINNING, Limits { capacity, early_warning: capacity / 2 });
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
    let mut appender = Appender::new(TapePosition::BEGINNING, ROOMY);
    let record = appender.record(3).unwrap();
    assert_eq!((record.write_at(), record.head(), record.tail()), (4, &[][..], &[0, 3, 0, 0, 0][..]));
    let mark = appender.filemark().unwrap();
    assert_eq!((mark.write_at(), mark.head(), mark.tail()), (12, &[0; 4][..], &[][..]));
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
    let mut appender = Appender::new(TapePosition::BEGINNING, ROOMY);
    for length in [0, u64::from(MAX_RECORD_LENGTH) + 1, u64::MAX] {
        assert_eq!(appender.record(length), Err(AppendError::Length { length }));
    }
    assert!(appender.record(MAX_RECORD_LENGTH.into()).is_ok());
}

#[test]
fn what_was_placed_and_abandoned_leaves_no_trace() {
    let mut appender = Appender::new(TapePosition::BEGINNING, ROOMY);
    let first = appender.record(10).unwrap();
    appender.abandon();
    assert_eq!(appender.commit(Durability::Process), []);
    assert_eq!(appender.record(10).unwrap(), first);
}
