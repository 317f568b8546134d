//! Each kind of segment once, with sizes beyond one buffer, and the faults that random jobs do not reach.

use protocol::mover::{Destination, Fault, Source, SpaceOver};
use protocol::scsi::sense::CopyEnd;

use super::*;

const MIB: usize = 1 << 20;

fn to_tape(from: Source, end: EndIndex, record: u32, process: u64) -> Move {
    let to = Destination::Stream { end, transfer: variable(record) };
    Move { from, to, process: Some(process), output: None, source_pad: false, destination_pad: false, hold: false }
}

#[test]
fn a_disk_goes_to_tape_and_back_bit_for_bit() {
    there_and_back(Layout::Plain);
    there_and_back(Layout::Aligned);
}

fn there_and_back(layout: Layout) {
    let content = noise(5 * MIB + 512, 1);
    let mut rig = Rig { layout, ..Rig::default() };
    let (disk, tape, back) = (rig.disk(&content), rig.tape(&vec![], 0), rig.disk(&vec![0xEE; content.len()]));
    let out = Source::Blocks { end: disk, at: 0 };
    let transfer = variable(300_000);
    let home = Move {
        from: Source::Stream { end: tape, transfer },
        to: Destination::Blocks { end: back, at: 0 },
        process: None,
        output: Some(content.len() as u64),
        source_pad: true,
        destination_pad: false,
        hold: false,
    };
    let mut padded = to_tape(out, tape, 300_000, content.len() as u64);
    padded.destination_pad = true;
    let steps = vec![
        step(0, false, padded),
        Step { segment: 1, cat: false, action: Action::WriteFilemarks { end: tape, count: 1, immediate: false } },
        Step { segment: 2, cat: false, action: Action::Locate { end: tape, object: 0 } },
        step(3, false, home),
    ];
    assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
    assert!(rig.blocks(back) == content);
    let objects = rig.objects(tape);
    assert_eq!(objects.len(), content.len().div_ceil(300_000) + 1);
    assert_eq!(objects.last(), Some(&None));
    assert!(rig.seen.reports.lock().unwrap().last().unwrap().1.synced, "a job ends synchronized");
}

#[test]
fn an_aligned_tape_is_read_and_spaced_over_its_gaps() {
    let content = noise(MIB, 6);
    let mut rig = Rig { layout: Layout::Aligned, ..Rig::default() };
    let (disk, tape, back) = (rig.disk(&content), rig.tape(&vec![], 0), rig.disk(&vec![0; MIB]));
    let bytes = |at: usize, len: usize| Source::Bytes { end: disk, at: at as u64, len: len as u64 };
    // The second leaves the place of the third odd in words.
    let records = [(0, 70_001), (70_001, 10), (70_011, 65_537), (135_548, 65_536)];
    let mut steps: Vec<_> =
        (0..).zip(records).map(|(n, (at, len))| step(n, false, to_tape(bytes(at, len), tape, len as u32, len as u64))).collect();
    let mark = Action::WriteFilemarks { end: tape, count: 1, immediate: false };
    let space = |count| Action::Space { end: tape, over: SpaceOver::LogicalBlocks, count };
    let locate = |object| Action::Locate { end: tape, object };
    let home = |at: usize, len: usize| {
        let (from, to) =
            (Source::Stream { end: tape, transfer: variable(len as u32) }, Destination::Bytes { end: back, at: at as u64 });
        let (process, output) = (None, Some(len as u64));
        Action::Move(Move { from, to, process, output, source_pad: false, destination_pad: false, hold: false })
    };
    let marks = Action::Space { end: tape, over: SpaceOver::Filemarks, count: -1 };
    let rest = [
        mark,
        marks,
        space(-1),
        home(135_548, 65_536),
        locate(0),
        home(0, 70_001),
        space(1),
        home(70_011, 65_537),
        space(-2),
        home(70_001, 10),
        locate(5),
    ];
    steps.extend((4..).zip(rest).map(|(segment, action)| Step { segment, cat: false, action }));
    assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
    let len = 135_548 + 65_536;
    assert!(rig.blocks(back)[..len] == content[..len]);
    assert_eq!(
        rig.objects(tape).iter().map(|object| object.as_ref().map(Vec::len)).collect::<Vec<_>>(),
        [Some(70_001), Some(10), Some(65_537), Some(65_536), None]
    );
    assert_eq!(rig.position(tape), 5);
}

#[test]
fn records_larger_than_a_buffer_come_back_whole() {
    let content = noise(15 * MIB, 2);
    let mut rig = Rig::default();
    let (disk, tape, back) = (rig.disk(&content), rig.tape(&vec![], 0), rig.disk(&vec![0; content.len()]));
    let record = (5 * MIB) as u32;
    let home = Move {
        from: Source::Stream { end: tape, transfer: variable(record) },
        to: Destination::Bytes { end: back, at: 0 },
        process: None,
        output: Some(content.len() as u64),
        source_pad: false,
        destination_pad: false,
        hold: false,
    };
    let steps = vec![
        step(0, false, to_tape(Source::Blocks { end: disk, at: 0 }, tape, record, content.len() as u64)),
        Step { segment: 1, cat: false, action: Action::Space { end: tape, over: SpaceOver::LogicalBlocks, count: -3 } },
        step(2, false, home),
    ];
    assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
    assert!(rig.blocks(back) == content);
}

#[test]
fn small_extents_that_are_read_together_come_in_the_order_of_their_segments() {
    let content = noise(4 * MIB, 3);
    let inline = noise(512, 5);
    let mut rig = Rig::default();
    let (disk, tape) = (rig.disk(&content), rig.tape(&vec![], 0));
    let (mut steps, mut wanted) = (Vec::new(), Vec::<u8>::new());
    // Of every third extent the neighbour follows; now and then a header lies between, and one extent is long.
    for n in 0..600 {
        let (at, len) = match n {
            300 => (MIB, 200_000),
            _ if n % 3 == 2 => ((n * 7919 % 1000) * 4096 + 4096, 1000),
            _ => (((n - n % 3 + 2) * 7919 % 1000) * 4096 + (n % 3) * 2048, 2048),
        };
        let from = Source::Bytes { end: disk, at: at as u64, len: len as u64 };
        steps.push(step(steps.len() as u32, true, to_tape(from, tape, 65_536, len as u64)));
        wanted.extend_from_slice(&content[at..at + len]);
        if n % 50 == 49 {
            let copy = to_tape(Source::Inline { offset: 0, len: 512 }, tape, 65_536, 0);
            steps.push(step(steps.len() as u32, true, copy));
            wanted.extend_from_slice(&inline);
        }
    }
    assert_eq!(rig.run(steps.clone(), &inline), Outcome::Copied { dropped: true });
    wanted.truncate(wanted.len() / 65_536 * 65_536);
    assert!(rig.objects(tape).into_iter().flatten().collect::<Vec<_>>().concat() == wanted);
    // One behind the disk's end is the fault of its own segment, whatever was read together with it.
    let Action::Move(copy) = &mut steps[411].action else { panic!("a move") };
    copy.from = Source::Bytes { end: disk, at: content.len() as u64, len: 2048 };
    let Outcome::Fault(fault) = rig.run(steps, &inline) else { panic!("a fault") };
    assert_eq!((fault.segment, fault.side, fault.kind), (411, Some(CopyEnd::Source), FaultKind::OutOfRange));
}

#[test]
fn disk_to_disk_keeps_holes_and_clears_what_was_under_them() {
    let mut rig = Rig::default();
    let source = rig.disk(&vec![0; 8 * MIB]);
    rig.files[0].set_len(0).unwrap();
    rig.files[0].set_len(8 * MIB as u64).unwrap();
    rig.files[0].write_all_at(&noise(MIB, 9), 3 * MIB as u64).unwrap();
    let to = rig.disk(&vec![0xDD; 8 * MIB]);
    let copy = Move {
        from: Source::Blocks { end: source, at: 0 },
        to: Destination::Blocks { end: to, at: 0 },
        process: Some(8 * MIB as u64),
        output: None,
        source_pad: false,
        destination_pad: false,
        hold: false,
    };
    assert_eq!(rig.run(vec![step(0, false, copy)], &[]), Outcome::Copied { dropped: false });
    assert!(rig.blocks(to) == rig.blocks(source));
    let allocated = std::os::unix::fs::MetadataExt::blocks(&rig.files[1].metadata().unwrap()) * 512;
    assert!(allocated <= 2 * MIB as u64, "{allocated} bytes are allocated for one MiB of data");
    assert_eq!(rig.seen.grants.lock().unwrap().len(), 1, "one question for the whole segment");
}

#[test]
fn a_copy_that_overlaps_itself_moves_the_old_bytes() {
    for (from, to) in [(0, 3), (3, 0)] {
        let content = noise(20 * MIB, 4);
        let mut rig = Rig::default();
        let disk = rig.disk(&content);
        let again = rig.ends[0].clone();
        let end = rig.end(again);
        let (from, to, len) = (from * 512, to * 512, 19 * MIB);
        let copy = Move {
            from: Source::Blocks { end: disk, at: from as u64 },
            to: Destination::Blocks { end, at: to as u64 },
            process: Some(len as u64),
            output: None,
            source_pad: false,
            destination_pad: false,
            hold: false,
        };
        assert_eq!(rig.run(vec![step(0, false, copy)], &[]), Outcome::Copied { dropped: false });
        assert!(rig.blocks(disk)[to..to + len] == content[from..from + len]);
    }
}

/// The grant of an earlier segment ends in the midst of what the second one copies.
#[test]
fn a_copy_that_overlaps_itself_moves_the_old_bytes_across_the_end_of_a_grant() {
    let content = noise(24 * MIB, 6);
    let mut rig = Rig::default();
    let disk = rig.disk(&content);
    let again = rig.ends[0].clone();
    let end = rig.end(again);
    let copy = |from: usize, to: usize, len: usize| Move {
        from: Source::Blocks { end: disk, at: from as u64 },
        to: Destination::Blocks { end, at: to as u64 },
        process: Some(len as u64),
        output: None,
        source_pad: false,
        destination_pad: false,
        hold: false,
    };
    let steps = vec![step(0, false, copy(0, 8 * MIB, 8 * MIB)), step(1, false, copy(11 * MIB, 12 * MIB, 8 * MIB))];
    let mut wanted = content.clone();
    wanted.copy_within(..8 * MIB, 8 * MIB);
    wanted.copy_within(11 * MIB..19 * MIB, 12 * MIB);
    assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
    assert!(rig.blocks(disk) == wanted);
}

#[test]
fn a_grant_goes_back_with_the_first_segment_that_has_no_use_for_it() {
    let mut rig = Rig::default();
    let (disk, other, tape) = (rig.disk(&noise(4096, 1)), rig.disk(&[0; 4096]), rig.tape(&vec![], 0));
    let copy = Move {
        from: Source::Blocks { end: disk, at: 0 },
        to: Destination::Blocks { end: other, at: 0 },
        process: Some(4096),
        output: None,
        source_pad: false,
        destination_pad: false,
        hold: false,
    };
    let steps = vec![step(0, false, copy), step(1, false, to_tape(Source::Blocks { end: disk, at: 0 }, tape, 512, 4096))];
    assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
    let seen = rig.seen.order.lock().unwrap();
    assert_eq!(*seen, ["grant", "give back", "append"], "the disk may be quiet while the tape is written");
}

/// More than one write of the image takes.
#[test]
fn many_filemarks_are_all_there_before_the_tape_is_moved() {
    let mut rig = Rig::default();
    let tape = rig.tape(&vec![], 0);
    let marks = Action::WriteFilemarks { end: tape, count: 2500, immediate: true };
    let steps = vec![
        Step { segment: 0, cat: false, action: marks },
        Step { segment: 1, cat: false, action: Action::Locate { end: tape, object: 2000 } },
    ];
    assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
    assert_eq!(rig.objects(tape), vec![None; 2500]);
    assert_eq!(rig.position(tape), 2000);
}

#[test]
fn filemarks_that_cannot_be_written_are_the_fault_of_their_own_segment() {
    let mut rig = Rig::default();
    let tape = rig.tape(&vec![], 0);
    let read_only = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&rig.files[0]))).unwrap();
    rig.seen.image = Some(read_only);
    let marks = |immediate| Action::WriteFilemarks { end: tape, count: 1, immediate };
    let mut steps = vec![Step { segment: 0, cat: false, action: marks(true) }];
    steps.extend((1..100).map(|segment| Step { segment, cat: false, action: Action::Nothing }));
    let Outcome::Fault(fault) = rig.run(steps, &[]) else { panic!("the image cannot be written") };
    assert_eq!((fault.segment, fault.side), (0, Some(CopyEnd::Destination)));
}

#[test]
fn bytes_around_a_byte_range_stay() {
    let mut rig = Rig::default();
    let tape = rig.tape(&vec![Some(noise(700, 1))], 0);
    let disk = rig.disk(&[0xAB; 2048]);
    let copy = Move {
        from: Source::Stream { end: tape, transfer: variable(700) },
        to: Destination::Bytes { end: disk, at: 301 },
        process: None,
        output: Some(700),
        source_pad: false,
        destination_pad: false,
        hold: false,
    };
    assert_eq!(rig.run(vec![step(0, false, copy)], &[]), Outcome::Copied { dropped: false });
    let blocks = rig.blocks(disk);
    assert!(blocks[..301].iter().chain(&blocks[1001..]).all(|byte| *byte == 0xAB));
    assert_eq!(blocks[301..1001], noise(700, 1));
}

#[test]
fn a_byte_range_leaves_no_slack_behind_for_the_next_segment() {
    let content = noise(4096, 6);
    let mut rig = Rig::default();
    let (disk, tape) = (rig.disk(&content), rig.tape(&vec![], 0));
    let range = |at, len| Source::Bytes { end: disk, at, len };
    let steps = vec![
        step(0, true, to_tape(range(100, 900), tape, 1000, 900)),
        step(1, false, to_tape(range(2000, 100), tape, 1000, 100)),
    ];
    assert_eq!(rig.run(steps, &[]), Outcome::Copied { dropped: false });
    assert_eq!(rig.objects(tape), [Some([&content[100..1000], &content[2000..2100]].concat())]);
}

#[test]
fn early_warning_stops_behind_a_written_record_and_a_full_tape_in_front_of_one() {
    let record = 10_000_u64;
    let on_tape = |count: u64| count * (record + 8);
    for (early, capacity, written, kind) in [
        (on_tape(5), u64::MAX, 5, FaultKind::EarlyWarning),
        (u64::MAX, on_tape(7) + 100, 7, FaultKind::EndOfPartition { residual: record as i64 }),
    ] {
        let mut rig = Rig::default();
        let (disk, tape) = (rig.disk(&noise(512 * 1000, 1)), rig.tape_of(&vec![], 0, capacity, early));
        let source = Source::Blocks { end: disk, at: 0 };
        let mut copy = to_tape(source, tape, record as u32, 512 * 1000);
        copy.source_pad = true;
        let fault = Fault { segment: 0, side: Some(CopyEnd::Destination), kind, expected: 510_000, written: written * record };
        assert_eq!(rig.run(vec![step(0, false, copy)], &[]), Outcome::Fault(fault));
        assert_eq!(rig.objects(tape).len() as u64, written);
        assert_eq!(rig.position(tape), written);
    }
}

#[test]
fn a_fault_belongs_to_its_segment_though_records_are_written_in_batches() {
    let mut rig = Rig::default();
    let (disk, tape) = (rig.disk(&noise(512 * 100, 1)), rig.tape_of(&vec![], 0, 3 * 520 + 8, u64::MAX));
    let steps = (0..6).map(|n| step(n, false, to_tape(Source::Blocks { end: disk, at: 0 }, tape, 512, 512))).collect();
    let Outcome::Fault(fault) = rig.run(steps, &[]) else { panic!("the tape is too short") };
    assert_eq!((fault.segment, fault.expected, fault.written), (3, 512, 0));
    assert_eq!(rig.objects(tape).len(), 3);
}

#[test]
fn a_write_protected_tape_takes_nothing() {
    let mut rig = Rig::default();
    let (disk, tape) = (rig.disk(&noise(512, 1)), rig.tape(&vec![], 0));
    let End::Cartridge { writable, .. } = &mut rig.ends[1] else { panic!("a tape") };
    *writable = false;
    let steps = vec![step(0, false, to_tape(Source::Blocks { end: disk, at: 0 }, tape, 512, 512))];
    assert!(matches!(rig.run(steps, &[]), Outcome::Fault(Fault { kind: FaultKind::WriteProtected, .. })));
    assert_eq!(rig.objects(tape), Objects::new());
}

#[test]
fn space_stops_where_the_standard_says() {
    let objects = vec![Some(vec![1; 10]), None, Some(vec![2; 10]), None];
    for (over, count, kind, stands) in [
        (SpaceOver::LogicalBlocks, 3, Some(FaultKind::Filemark { residual: 2 }), 2),
        (SpaceOver::Filemarks, 2, None, 4),
        (SpaceOver::Filemarks, 5, Some(FaultKind::EndOfData { residual: 3 }), 4),
        (SpaceOver::LogicalBlocks, -1, Some(FaultKind::BeginningOfPartition { residual: 1 }), 0),
        (SpaceOver::EndOfData, 0, None, 4),
    ] {
        let mut rig = Rig::default();
        let end = rig.tape(&objects, 0);
        let outcome = rig.run(vec![Step { segment: 0, cat: false, action: Action::Space { end, over, count } }], &[]);
        let found = if let Outcome::Fault(fault) = outcome { Some(fault.kind) } else { None };
        assert_eq!((found, rig.position(end)), (kind, stands), "{over:?} {count}");
    }
}

#[test]
fn blocks_behind_the_end_are_out_of_range() {
    let mut rig = Rig::default();
    let (disk, tape) = (rig.disk(&noise(1024, 1)), rig.tape(&vec![], 0));
    let steps = vec![step(0, false, to_tape(Source::Blocks { end: disk, at: 512 }, tape, 512, 1024))];
    let Outcome::Fault(fault) = rig.run(steps, &[]) else { panic!("must fail") };
    assert_eq!((fault.side, fault.kind), (Some(CopyEnd::Source), FaultKind::OutOfRange));
}

#[test]
fn a_cancelled_job_says_so_and_leaves_whole_records() {
    let mut rig = Rig::default();
    let (disk, tape) = (rig.disk(&noise(4 * MIB, 1)), rig.tape(&vec![], 0));
    let steps = vec![step(0, false, to_tape(Source::Blocks { end: disk, at: 0 }, tape, 4096, 4 * MIB as u64))];
    let control = control();
    control.cancelled.store(true, Ordering::Relaxed);
    assert_eq!(rig.run_with(steps, &[], &control), Outcome::Cancelled);
    assert!(rig.objects(tape).iter().all(|object| object.as_ref().is_some_and(|data| data.len() == 4096)));
}

#[test]
fn a_throttled_copy_takes_its_time_holds_no_disk_meanwhile_and_can_be_let_go() {
    let mut rig = Rig::default();
    let content = noise(24 * MIB, 4);
    let (from, to) = (rig.disk(&content), rig.disk(&vec![0; content.len()]));
    let copy = Move {
        from: Source::Blocks { end: from, at: 0 },
        to: Destination::Blocks { end: to, at: 0 },
        process: Some(content.len() as u64),
        output: None,
        source_pad: false,
        destination_pad: false,
        hold: false,
    };
    let control = Control::new(Some(32 * MIB as u64), &Arc::new(Throttle::new(None, Instant::now())));
    let began = Instant::now();
    assert_eq!(rig.run_with(vec![step(0, false, copy.clone())], &[], &control), Outcome::Copied { dropped: false });
    // The last stretch of 8 MiB is not waited for.
    assert!(began.elapsed().as_millis() >= 450, "{:?}", began.elapsed());
    let order = rig.seen.order.lock().unwrap().clone();
    assert_eq!(order, ["grant", "give back", "grant", "give back", "grant", "give back"]);
    assert!(rig.blocks(to) == content);

    control.throttle.set(Some(1), Instant::now());
    control.book(1 << 40);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rig.run_with(vec![step(0, false, copy)], &[], &control));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!waiting.is_finished(), "it would take ages");
        control.throttle.set(None, Instant::now());
        assert_eq!(waiting.join().unwrap(), Outcome::Copied { dropped: false });
    });
}
