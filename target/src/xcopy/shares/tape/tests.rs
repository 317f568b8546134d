//! What is divided and how, and what counts of pieces that movers have filled, in whichever order they come.

use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use protocol::cartridge::ObjectKind;
use protocol::cartridge::index::SumState;
use protocol::cartridge::report::Appended;
use protocol::cartridge::sums::RecordSum;
use protocol::mover::{Fault, FaultKind};
use protocol::units::BlockLength;

use super::*;
use crate::cartridge::{Cartridge, NewMedium};
use crate::lun::common::{Common, Identity};
use crate::lun::disk::Disk;
use crate::lun::tape::Tape;
use crate::lun::testing::MemoryStore;
use crate::volume::Volume;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 512;
const DISK: EndIndex = EndIndex(0);
const TO_DISK: EndIndex = EndIndex(1);
const TAPE: EndIndex = EndIndex(2);

struct Rig {
    tape: Arc<Tape>,
    disk: Arc<Disk>,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new(capacity: u64) -> Self {
        let identity = |name: &str| Common::new(Identity::new("iqn.2026-01.org.offhost:test", name, "TEST"), None);
        let folder = tempfile::tempdir().unwrap();
        let tape = Tape::open(identity("tape"), folder.path(), NewMedium::of_capacity(capacity)).unwrap();
        let disk = Disk::new(identity("disk"), Volume::new(Arc::new(MemoryStore::new(4096))), BlockLength::B512);
        Self { tape, disk, folder }
    }

    fn plan(&self, steps: Vec<Step>) -> Plan {
        let mut plan = Plan::default();
        assert_eq!(plan.add(PlannedEnd::Source(Arc::clone(&self.disk))), DISK);
        assert_eq!(plan.add(PlannedEnd::Destination(Arc::clone(&self.disk))), TO_DISK);
        assert_eq!(plan.add(PlannedEnd::Tape(Arc::clone(&self.tape))), TAPE);
        plan.steps = steps;
        plan
    }

    /// The ends of a job, its drive held.
    fn opened(&self) -> Opened {
        let copy = self.tape.begin_copy().unwrap();
        let disk = End::NullBlock { block_length: BLOCK as u32 };
        let mut opened = Opened { ends: vec![disk.clone(), disk, copy.end().unwrap().end], ..Opened::default() };
        opened.tapes.insert(TAPE, copy);
        opened
    }

    fn divide(&self, steps: Vec<Step>, movers: u64) -> Option<(Vec<Piece>, Arc<SharedTape>)> {
        let divided = Stream::of(&self.plan(steps))?.divide(&mut self.opened(), movers);
        divided.map(|(pieces, tape)| (pieces, Arc::new(tape)))
    }

    /// Lengths of the records that a copy of the cartridge holds as it lies there now, as after the end of this process.
    fn after_a_crash(&self) -> Vec<u32> {
        let copy = tempfile::tempdir().unwrap();
        let from = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
        for file in std::fs::read_dir(from.unwrap()).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let cartridge = Cartridge::open(copy.path()).unwrap();
        assert!(cartridge.writable(), "{:?}", cartridge.notes());
        let partition = &cartridge.partitions()[0];
        let entries = (0..partition.end().object).map(|object| partition.object(object).unwrap().unwrap());
        entries.map(|entry| u32::try_from(partition.read(&entry).unwrap().len()).unwrap()).collect()
    }
}

const fn transfer(record: u32) -> Transfer {
    Transfer { record, records: 1, fixed: false }
}

fn step(segment: u32, cat: bool, from: Source, to: Destination, process: Option<u64>, output: Option<u64>) -> Step {
    let copy = Move { from, to, process, output, source_pad: false, destination_pad: false, hold: false };
    Step { segment, cat, action: Action::Move(copy) }
}

fn to_tape(segment: u32, cat: bool, at: u64, len: u64, record: u32) -> Step {
    let to = Destination::Stream { end: TAPE, transfer: transfer(record) };
    step(segment, cat, Source::Blocks { end: DISK, at }, to, Some(len), None)
}

fn from_tape(segment: u32, cat: bool, at: u64, len: u64, record: u32) -> Step {
    let from = Source::Stream { end: TAPE, transfer: transfer(record) };
    step(segment, cat, from, Destination::Blocks { end: TO_DISK, at }, None, Some(len))
}

/// Fills a piece, or only `records` of it, as a mover does.
async fn fill(tape: &Arc<SharedTape>, piece: &Piece, records: u64) -> TapeReport {
    let Action::Move(Move { to: Destination::Stream { transfer, .. }, .. }) = piece.steps[0].action else { panic!() };
    let stretch = piece.stretch.unwrap();
    let mut ends = vec![End::NullStream, End::NullStream, cartridge_end()];
    tape.stand_at(&mut ends, stretch);
    let End::Cartridge { at, end_of_data, capacity, early_warning, layout, publishes, .. } = ends[2] else { panic!() };
    assert_eq!((at, end_of_data, publishes), (stretch.from, stretch.from, false));
    let mut appender = Appender::filling(at, Limits { capacity, early_warning, layout });
    let image = File::from(tape.append().await.unwrap());
    let mut report = TapeReport { position: at, ..TapeReport::default() };
    for object in 0..records {
        let data = vec![object as u8; transfer.record as usize];
        let placement = appender.record(data.len() as u64).unwrap();
        image.write_all_at(&[&placement.head()[..], &data, placement.tail()].concat(), placement.write_at()).unwrap();
        let (at, gap, length, sum) = (placement.at, placement.gap, placement.length, RecordSum::of(&data));
        report.appended.push(Appended { at, gap, kind: ObjectKind::Record, length, sum_state: SumState::Known, sum });
        report.position = placement.next();
    }
    report
}

fn cartridge_end() -> End {
    End::Cartridge {
        image: protocol::mover::ends::Descriptor(0),
        index: None,
        at: TapePosition::BEGINNING,
        end_of_data: TapePosition::BEGINNING,
        capacity: 1 << 40,
        early_warning: 1 << 40,
        layout: Default::default(),
        writable: true,
        publishes: true,
    }
}

#[test]
fn only_whole_records_of_one_length_between_disks_and_one_tape_are_a_stream() {
    let rig = Rig::new(1 << 30);
    let is_one = |steps: &[Step]| Stream::of(&rig.plan(steps.to_vec())).is_some();
    let (record, half) = (64 << 10, 32 << 10);
    let filemarks = Step { segment: 1, cat: false, action: Action::WriteFilemarks { end: TAPE, count: 1, immediate: true } };
    let locate = |end| Step { segment: 0, cat: false, action: Action::Locate { end, object: 0 } };
    let nothing = Step { segment: 0, cat: false, action: Action::Nothing };
    let onto = to_tape(0, false, 0, 4 * MIB, record);
    let back = from_tape(1, false, 0, 4 * MIB, record);
    assert!(is_one(std::slice::from_ref(&onto)) && is_one(&[nothing, onto.clone()]) && is_one(&[locate(TAPE), back.clone()]));
    assert!(is_one(&[to_tape(0, true, 0, 2 * MIB + half, record), to_tape(1, false, 8 * MIB, half, record)]));
    assert!(is_one(&[onto.clone(), to_tape(1, false, 0, 4 * MIB, record * 2)]), "another length behind a whole record");
    for (why, steps) in [
        ("nothing", vec![]),
        ("too little", vec![to_tape(0, false, 0, MIB, record)]),
        ("a filemark", vec![onto.clone(), filemarks]),
        ("both ways", vec![onto.clone(), back.clone()]),
        ("residue is lost", vec![to_tape(0, false, 0, 2 * MIB + half, record), to_tape(1, false, 8 * MIB, half, record)]),
        ("residue at the end", vec![to_tape(0, true, 0, 2 * MIB + half, record)]),
        (
            "another length in a record",
            vec![to_tape(0, true, 0, 2 * MIB + half, record), to_tape(1, false, 8 * MIB, half, half as u32)],
        ),
        ("another drive is positioned", vec![locate(DISK), back.clone()]),
        ("positioned in between", vec![back.clone(), locate(TAPE), from_tape(1, false, 8 * MIB, 4 * MIB, record)]),
        ("a disk is written twice", vec![back, from_tape(2, false, 2 * MIB, 4 * MIB, record)]),
        ("no whole blocks", vec![to_tape(0, false, 0, 4 * MIB + 8, record)]),
    ] {
        assert!(!is_one(&steps), "{why}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_are_the_stream_cut_where_records_end_and_account_for_every_segment(
        lens in prop::collection::vec(1..6000u64, 1..12), record in prop_oneof![Just(65_536u32), Just(10_240), Just(512), Just(700_000)],
        movers in 2..9u64, onto in any::<bool>(), short in 1..9u32,
    ) {
        let record_len = u64::from(record);
        let mut lens: Vec<_> = lens.into_iter().map(|blocks| blocks * BLOCK).collect();
        lens.push(2 * MIB);
        // The last segment ends with a record, if blocks can.
        let total: u64 = lens.iter().sum();
        let missing = (1..=record_len).find(|more| more.is_multiple_of(BLOCK) && (total + more).is_multiple_of(record_len));
        prop_assume!(missing.is_some());
        lens.push(missing.unwrap());
        let short = short * 256;
        lens.push(u64::from(short) * 2);
        let (total, last) = (total + missing.unwrap() + u64::from(short) * 2, lens.len() as u32 - 1);
        let mut at = 0;
        let steps: Vec<_> = lens.iter().zip(0..).map(|(len, segment)| {
            let record = if segment == last { short } else { record };
            let step = if onto { to_tape(segment, true, at, *len, record) } else { from_tape(segment, true, at, *len, record) };
            at += len + BLOCK;
            step
        }).collect();
        let stream = Stream::of(&Rig::new(1 << 30).plan(steps.clone())).unwrap();
        let borders = stream.borders(movers);
        prop_assert_eq!((borders[0], *borders.last().unwrap()), (0, total));
        prop_assert!(borders.is_sorted_by(|one, other| one < other));
        let stretch = Stretch { from: TapePosition::BEGINNING, to: TapePosition::BEGINNING, records: 0 };
        let mut seen = vec![(0, 0); lens.len()];
        let mut places = Vec::new();
        for border in borders.windows(2) {
            prop_assert!(border[0].is_multiple_of(record_len) || border[0] + u64::from(short) == total);
            let piece = stream.piece(0, (border[0], border[1]), stretch);
            prop_assert_eq!(piece.bytes(), border[1] - border[0]);
            let mut pending = 0;
            for (step, account) in piece.steps.iter().zip(&piece.accounts) {
                let Action::Move(copy) = &step.action else { panic!() };
                let (len, place) = match (copy.from, copy.to) {
                    (Source::Bytes { at, len, .. }, _) => (len, at),
                    (_, Destination::Blocks { at, .. }) => (copy.output.unwrap(), at),
                    _ => panic!(),
                };
                prop_assert!(onto || len.is_multiple_of(BLOCK));
                places.push((place, len));
                let record_len = if step.segment == last { u64::from(short) } else { record_len };
                // What a mover counts as written for this part.
                pending += len;
                let written = if onto { pending / record_len * record_len } else { pending };
                pending -= written;
                let (before, expected) = &mut seen[step.segment as usize];
                prop_assert_eq!(account.before, *before);
                (*before, *expected) = (*before + written, account.expected);
                let fault = Fault { segment: step.segment, side: None, kind: FaultKind::Torn, expected: 1, written: 1 };
                let of_segment = piece.of_segment(fault);
                prop_assert_eq!((of_segment.expected, of_segment.written), (account.expected, account.before + 1));
            }
        }
        prop_assert!(seen.iter().all(|(written, expected)| written == expected), "{:?}", seen);
        places.dedup_by(|next, last| { let follows = last.0 + last.1 == next.0; if follows { last.1 += next.1 } follows });
        let mut at = 0;
        let whole: Vec<_> = lens.iter().map(|len| { at += len + BLOCK; (at - len - BLOCK, *len) }).collect();
        prop_assert_eq!(places, whole);
    }
}

#[tokio::test]
async fn what_was_filled_counts_in_its_order_and_a_crash_leaves_just_that() {
    let rig = Rig::new(1 << 30);
    let record = 256 << 10;
    let (pieces, tape) = rig.divide(vec![to_tape(0, false, 0, 3 * MIB, record)], 2).unwrap();
    let [first, second, third] = &pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(tape.reach(), 8);
    let late = fill(&tape, third, 4).await;
    tape.take(third.clone(), late, true).await.unwrap();
    assert_eq!(rig.after_a_crash(), [0; 0]);
    // One that died has filled some of it; another does it again.
    fill(&tape, first, 2).await;
    assert_eq!(rig.after_a_crash(), [0; 0]);
    let again = fill(&tape, first, 4).await;
    tape.take(first.clone(), again, true).await.unwrap();
    assert_eq!((rig.after_a_crash(), tape.reach()), (vec![record; 4], 9));
    let part = fill(&tape, second, 3).await;
    tape.take(second.clone(), part, false).await.unwrap();
    assert_eq!(rig.after_a_crash(), [record; 7], "nothing behind one that is not whole");
    Arc::clone(&tape).close().await.unwrap();
    let copy = rig.tape.begin_copy().unwrap();
    let end = copy.end().unwrap();
    let End::Cartridge { at, end_of_data, .. } = end.end else { panic!() };
    assert_eq!((at, end_of_data, at.object), (end_of_data, at, 7));
    let size = File::from(end.files.into_iter().next().unwrap()).metadata().unwrap().len();
    assert_eq!(size, end_of_data.offset + 4, "the room of what does not count is given back");
}

#[tokio::test]
async fn a_report_that_the_image_does_not_bear_out_counts_for_nothing() {
    let record = 256 << 10;
    let wrong: [fn(&mut TapeReport); 4] = [
        |report| report.appended.truncate(3),
        |report| report.appended[1].length += 2,
        |report| report.appended[1].at.offset += 2,
        |report| report.position.offset += 2,
    ];
    for spoil in wrong {
        let rig = Rig::new(1 << 30);
        let (pieces, tape) = rig.divide(vec![to_tape(0, false, 0, 3 * MIB, record)], 2).unwrap();
        let mut report = fill(&tape, &pieces[0], 4).await;
        spoil(&mut report);
        let (piece, error) = tape.take(pieces[0].clone(), report, true).await.unwrap_err();
        assert_eq!((piece.number, error.kind()), (0, io::ErrorKind::InvalidData));
        let good = fill(&tape, &pieces[1], 4).await;
        tape.take(pieces[1].clone(), good, true).await.unwrap();
        assert_eq!(rig.after_a_crash(), [0; 0]);
        // The drive is to be had again, whatever it says of this copy.
        let _ = tape.close().await;
        assert!(rig.tape.begin_copy().is_ok());
    }
    // What was never written.
    let rig = Rig::new(1 << 30);
    let (pieces, tape) = rig.divide(vec![to_tape(0, false, 0, 3 * MIB, record)], 2).unwrap();
    let report = fill(&tape, &pieces[0], 4).await;
    let image = File::from(tape.append().await.unwrap());
    image.write_all_at(&[0; 4], report.position.offset - 4).unwrap();
    assert_eq!(tape.take(pieces[0].clone(), report, true).await.unwrap_err().1.kind(), io::ErrorKind::InvalidData);
    assert_eq!(rig.after_a_crash(), [0; 0]);
}

#[tokio::test]
async fn a_tape_is_read_in_pieces_only_where_every_record_is_as_long_as_it_should_be() {
    let rig = Rig::new(1 << 30);
    let record = 256 << 10;
    let (pieces, tape) = rig.divide(vec![to_tape(0, false, 0, 3 * MIB, record)], 2).unwrap();
    for piece in &pieces {
        let filled = fill(&tape, piece, 4).await;
        tape.take(piece.clone(), filled, true).await.unwrap();
    }
    tape.close().await.unwrap();
    let locate = |object| Step { segment: 0, cat: false, action: Action::Locate { end: TAPE, object } };
    let back = |object, records: u64| vec![locate(object), from_tape(1, false, 0, records * u64::from(record), record)];
    assert!(rig.divide(back(0, 13), 2).is_none(), "behind the end of data");
    assert!(rig.divide(back(5, 8), 2).is_none(), "likewise");
    assert!(rig.divide(vec![locate(0), from_tape(1, false, 0, 3 * MIB, record / 2)], 2).is_none(), "longer records");
    let (pieces, tape) = rig.divide(back(2, 10), 2).unwrap();
    let objects: Vec<_> = pieces.iter().map(|piece| piece.stretch.unwrap().from.object).collect();
    assert_eq!(objects, [2, 6, 10]);
    let read = |piece: &Piece| TapeReport { position: piece.stretch.unwrap().to, ..TapeReport::default() };
    tape.take(pieces[1].clone(), read(&pieces[1]), true).await.unwrap();
    tape.take(pieces[0].clone(), read(&pieces[0]), true).await.unwrap();
    tape.close().await.unwrap();
    let End::Cartridge { at, .. } = rig.tape.begin_copy().unwrap().end().unwrap().end else { panic!() };
    assert_eq!(at.object, 10, "behind the pieces that were read");
}

#[test]
fn a_medium_that_would_warn_of_its_end_is_left_to_one_mover() {
    let steps = || vec![to_tape(0, false, 0, 3 * MIB, 64 << 10)];
    assert!(Rig::new(16 * MIB).divide(steps(), 2).is_some());
    assert!(Rig::new(3 * MIB + 4096).divide(steps(), 2).is_none());
}
