//! Faults at any moment of a copy to tape and of one to disk: the status is exact, the tape's position is known, what is committed is
//! the beginning of what was to be written, and a second job from there completes it.
//!
//! What a killed process leaves is looked at in the same runs: at every word between mover and target the image is what it would be
//! if the mover ended just then.

use std::sync::atomic::AtomicU32;

use proptest::prelude::*;
use protocol::cartridge::layout;
use protocol::cartridge::scan::Ending;
use protocol::mover::{Destination, Fault, Source};
use protocol::scsi::sense::CopyEnd;

use super::*;

/// A record of each layout: on an aligned cartridge one that is aligned, and behind whose end a gap comes.
const RECORD: u32 = 1536;
const ALIGNED_RECORD: u32 = layout::ALIGNED_LEAST + 1024;
const BLOCK: u64 = 512;

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    None,
    /// The target refuses its n-th question.
    Refused(u32),
    /// The target cancels at the n-th word between the two.
    Cancelled(u32),
    /// The disk's file ends after so many bytes, before its LUN does.
    ShortSource(u64),
    /// The tape holds so many objects and not one more.
    FullTape(u64),
    /// The destination's file takes no writes.
    Unwritable,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        1 => Just(Trouble::None),
        2 => (0..6_u32).prop_map(Trouble::Refused),
        3 => (0..40_u32).prop_map(Trouble::Cancelled),
        3 => (0..80_000_u64).prop_map(Trouble::ShortSource),
        3 => (0..60_u64).prop_map(Trouble::FullTape),
        1 => Just(Trouble::Unwritable),
    ]
}

/// A target that makes trouble, and looks at the tape whenever it hears something.
struct Troublesome<'a> {
    rig: &'a Rig,
    tape: Option<EndIndex>,
    trouble: Trouble,
    control: Arc<Control>,
    questions: AtomicU32,
    words: AtomicU32,
    expected: &'a Objects,
}

impl Troublesome<'_> {
    fn word(&self) {
        if matches!(self.trouble, Trouble::Cancelled(at) if self.words.fetch_add(1, Ordering::Relaxed) >= at) {
            self.control.cancelled.store(true, Ordering::Relaxed);
        }
        if let Some(tape) = self.tape {
            let there = committed(self.rig, tape);
            assert!(
                there.len() <= self.expected.len() && there.iter().zip(self.expected).all(|(is, want)| *is == want.is_some())
            );
        }
    }
}

impl Link for Troublesome<'_> {
    fn ask(&self, question: Question) -> Result<Option<File>, FaultKind> {
        self.word();
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        if matches!(self.trouble, Trouble::Refused(at) if at == number) {
            return Err(FaultKind::Refused(libc::ENOLINK));
        }
        self.rig.seen.ask(question)
    }

    fn give_back(&self, end: EndIndex) {
        self.word();
        self.rig.seen.give_back(end);
    }

    fn tape(&self, end: EndIndex, report: TapeReport) {
        self.word();
        self.rig.seen.tape(end, report);
    }

    fn held(&self, data: Vec<u8>, discarded: bool) {
        self.word();
        self.rig.seen.held(data, discarded);
    }

    fn progress(&self, segment: u32, read: u64, written: ByMethod) {
        self.word();
        self.rig.seen.progress(segment, read, written);
    }
}

/// As a target finds the tape that opens it now: which of its objects are records. Their data is looked at when the job has ended.
fn committed(rig: &Rig, end: EndIndex) -> Vec<bool> {
    let tapes = rig.seen.tapes.lock().unwrap();
    let (_, file) = tapes.iter().find(|(tape, _)| *tape == end).unwrap();
    let mut walk = Walk::of(rig.layout, |at: u64, into: &mut [u8]| file.read_at(into, at), TapePosition::BEGINNING);
    let objects = walk.by_ref().map(|object| object.unwrap().kind == ObjectKind::Record).collect();
    // The publishing word may be half written, which reads as an end; no record is ever torn.
    assert_eq!(walk.ending(), Some(Ending::End));
    objects
}

/// Records of each segment, and whether a filemark follows it.
fn shape() -> impl Strategy<Value = Vec<(u64, bool)>> {
    prop::collection::vec((1..12_u64, prop::bool::weighted(0.3)), 1..7)
}

fn to_tape(disk: EndIndex, tape: EndIndex, at: u64, bytes: u64, record: u32) -> Action {
    Action::Move(Move {
        from: Source::Bytes { end: disk, at, len: bytes },
        to: Destination::Stream { end: tape, transfer: variable(record) },
        process: Some(bytes),
        output: None,
        source_pad: false,
        destination_pad: false,
        hold: false,
    })
}

/// A copy to tape in trouble, and another that completes it.
fn to_tape_and_again(shape: Vec<(u64, bool)>, trouble: Trouble, layout: Layout, record: u32) -> Result<(), TestCaseError> {
    let bytes = shape.iter().map(|(records, _)| records * u64::from(record)).sum::<u64>();
    let content = noise(bytes as usize, 11);
    let (mut steps, mut expected, mut segment_of, mut at) = (Vec::new(), Objects::new(), Vec::new(), 0);
    let (disk, tape) = (EndIndex(0), EndIndex(1));
    for (records, mark) in shape {
        let len = records * u64::from(record);
        segment_of.extend(vec![steps.len() as u32; records as usize]);
        steps.push(to_tape(disk, tape, at, len, record));
        expected.extend(content[at as usize..(at + len) as usize].chunks(record as usize).map(|record| Some(record.to_vec())));
        at += len;
        if mark {
            segment_of.push(steps.len() as u32);
            steps.push(Action::WriteFilemarks { end: tape, count: 1, immediate: false });
            expected.push(None);
        }
    }
    let mut rig = Rig { in_memory: true, layout, ..Rig::default() };
    rig.disk(&content);
    let room = if let Trouble::FullTape(objects) = trouble { objects } else { 1 << 20 };
    let end = |objects: &[Option<Vec<u8>>]| {
        objects.iter().fold(TapePosition::BEGINNING, |at, object| behind(layout, at, object.as_deref()))
    };
    let capacity = end(&expected[..expected.len().min(room as usize)]).offset + 4;
    rig.tape_of(&vec![], 0, if matches!(trouble, Trouble::FullTape(_)) { capacity } else { 1 << 30 }, 1 << 30);
    if let Trouble::ShortSource(len) = trouble {
        rig.files[0].set_len(len.min(bytes)).unwrap();
    }
    let control = control();
    let (questions, words) = Default::default();
    let link = Troublesome {
        rig: &rig,
        tape: Some(tape),
        trouble,
        control: Arc::clone(&control),
        questions,
        words,
        expected: &expected,
    };
    let numbered = |actions: Vec<Action>| {
        (0..).zip(actions).map(|(segment, action)| Step { segment, cat: false, action }).collect::<Vec<_>>()
    };
    let outcome = run(rig.job(numbered(steps), &[]), &rig.files, &link, control);

    let there = rig.objects(tape);
    prop_assert!(expected.starts_with(&there));
    if !rig.seen.reports.lock().unwrap().is_empty() {
        prop_assert_eq!(rig.position(tape), there.len() as u64);
    }
    let next_segment = segment_of.get(there.len()).copied();
    match (trouble, &outcome) {
        (_, Outcome::Copied { dropped: false }) => prop_assert_eq!(there.len(), expected.len()),
        (Trouble::Cancelled(_), Outcome::Cancelled) => {}
        (
            Trouble::Refused(_),
            Outcome::Fault(Fault {
                segment,
                side: Some(CopyEnd::Destination),
                kind: FaultKind::Refused(libc::ENOLINK),
                written: 0,
                ..
            }),
        ) => {
            prop_assert_eq!((Some(*segment), there.len()), (next_segment, 0));
        }
        (
            Trouble::ShortSource(len),
            Outcome::Fault(Fault { segment, side: Some(CopyEnd::Source), kind: FaultKind::OutOfRange, .. }),
        ) => {
            let whole = expected.iter().flatten().count() as u64;
            prop_assert!(len < whole * u64::from(record));
            // Reads of a segment go ahead of its records: the fault is the segment's in which the file ends.
            let ends_in = (len / u64::from(record)) as usize;
            let records = segment_of.iter().zip(&expected).filter(|(_, object)| object.is_some()).map(|(segment, _)| *segment);
            prop_assert_eq!(Some(*segment), records.clone().nth(ends_in));
        }
        (
            Trouble::FullTape(room),
            Outcome::Fault(Fault {
                segment,
                side: Some(CopyEnd::Destination),
                kind: FaultKind::EndOfPartition { .. },
                written,
                ..
            }),
        ) => {
            prop_assert_eq!((there.len() as u64, Some(*segment)), (room, next_segment));
            let of_segment = segment_of.iter().zip(&there).filter(|(of, object)| *of == segment && object.is_some()).count();
            prop_assert_eq!(*written, of_segment as u64 * u64::from(record));
        }
        (Trouble::Unwritable, Outcome::Fault(_)) => {}
        (trouble, outcome) => prop_assert!(false, "{trouble:?} came to {outcome:?}"),
    }

    // What is missing, by a second job: on a tape that has room, from a disk that is whole.
    rig.files[0].write_all_at(&content, 0).unwrap();
    rig.ends.truncate(1);
    let image = rig.files[1].try_clone().unwrap();
    let end_of_data = end(&there);
    rig.end(End::Cartridge {
        image: Descriptor(1),
        index: None,
        at: end_of_data,
        end_of_data,
        capacity: 1 << 30,
        early_warning: 1 << 30,
        layout,
        writable: true,
        publishes: true,
    });
    let mut at = there.iter().flatten().count() as u64 * u64::from(record);
    let missing = expected[there.len()..].iter().map(|object| match object {
        Some(_) => {
            at += u64::from(record);
            to_tape(disk, tape, at - u64::from(record), record.into(), record)
        }
        None => Action::WriteFilemarks { end: tape, count: 1, immediate: false },
    });
    let again = numbered(missing.collect());
    prop_assert_eq!(rig.run(again, &[]), Outcome::Copied { dropped: false });
    prop_assert!(rig.objects(tape) == expected);
    drop(image);
    Ok(())
}

/// Where the tape stands behind an object that stands at `at`.
fn behind(layout: Layout, at: TapePosition, object: Option<&[u8]>) -> TapePosition {
    let Some(data) = object else { return at.after(ObjectKind::Filemark, 0) };
    let length = data.len() as u32;
    let gap = u64::from(layout.gap(at.offset, length));
    TapePosition { offset: at.offset + gap, ..at }.after(ObjectKind::Record, length)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_to_an_aligned_tape_fails_as_it_should_and_is_completed_by_another(shape in shape(), trouble in trouble()) {
        let longer = u64::from(ALIGNED_RECORD / RECORD);
        let trouble = if let Trouble::ShortSource(len) = trouble { Trouble::ShortSource(len * longer) } else { trouble };
        to_tape_and_again(shape, trouble, Layout::Aligned, ALIGNED_RECORD)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_to_tape_fails_as_it_should_and_is_completed_by_another(shape in shape(), trouble in trouble()) {
        to_tape_and_again(shape, trouble, Layout::Plain, RECORD)?;
    }

    #[test]
    fn a_copy_to_disk_fails_as_it_should_and_is_completed_by_another(
        segments in prop::collection::vec(1..40_u64, 1..7),
        trouble in trouble(),
    ) {
        let blocks: u64 = segments.iter().sum();
        let (content, before) = (noise((blocks * BLOCK) as usize, 13), vec![0xEE; (blocks * BLOCK) as usize]);
        let mut rig = Rig { in_memory: true, ..Rig::default() };
        let (from, to) = (rig.disk(&content), rig.disk(&before));
        let mut at = 0;
        let steps: Vec<Step> = (0..).zip(&segments).map(|(segment, blocks)| {
            let (place, len) = (at, blocks * BLOCK);
            at += len;
            let copy = Move {
                from: Source::Blocks { end: from, at: place },
                to: Destination::Blocks { end: to, at: place },
                process: Some(len),
                output: None,
                source_pad: false,
                destination_pad: false,
                hold: false,
            };
            step(segment, false, copy)
        }).collect();
        if let Trouble::ShortSource(len) = trouble {
            rig.files[0].set_len(len.min(blocks * BLOCK)).unwrap();
        }
        let written = rig.files[1].try_clone().unwrap();
        if matches!(trouble, Trouble::Unwritable) {
            rig.files[1] = read_only(&rig.files[1]);
        }
        let control = control();
        let (questions, words) = Default::default();
        let none = Objects::new();
        let link = Troublesome { rig: &rig, tape: None, trouble, control: Arc::clone(&control), questions, words, expected: &none };
        let outcome = run(rig.job(steps.clone(), &[]), &rig.files, &link, control);

        let is = rig.blocks(to);
        prop_assert!(is.iter().zip(&content).zip(&before).all(|((is, new), old)| is == new || is == old), "a wrong byte");
        let (done, failed) = match &outcome {
            Outcome::Copied { .. } => (blocks * BLOCK, None),
            Outcome::Fault(fault) => {
                let before: u64 = segments[..fault.segment as usize].iter().sum();
                prop_assert!(fault.written <= fault.expected && fault.expected == segments[fault.segment as usize] * BLOCK);
                (before * BLOCK + fault.written, Some(fault.kind))
            }
            Outcome::Cancelled => (0, None),
        };
        prop_assert!(is[..done as usize] == content[..done as usize], "{outcome:?} says that {done} bytes are written");
        match (trouble, failed) {
            (Trouble::Cancelled(_) | Trouble::None | Trouble::FullTape(_), None) | (Trouble::Refused(_) | Trouble::ShortSource(_), None) => {}
            (Trouble::Refused(_), Some(FaultKind::Refused(libc::ENOLINK))) => {}
            (Trouble::ShortSource(len), Some(FaultKind::OutOfRange)) => prop_assert!(done <= len && len < blocks * BLOCK),
            (Trouble::Unwritable, Some(FaultKind::Write(_))) => prop_assert_eq!(done, 0),
            (trouble, failed) => prop_assert!(false, "{trouble:?} came to {failed:?}"),
        }

        rig.files[0].write_all_at(&content, 0).unwrap();
        rig.files[1] = written;
        prop_assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
        prop_assert!(rig.blocks(to) == content);
    }
}

fn read_only(file: &File) -> File {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}
