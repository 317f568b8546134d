//! Random jobs, carried out by the engine and by a plain model, must come to the same.
//!
//! The model is written from SPC-4's text ("EXTENDED COPY command processing", tables 115 to 117), on vectors of bytes, without
//! buffers, threads or look-ahead: one read or write command at a time.

use proptest::prelude::*;
use protocol::mover::{Destination, Source};

use super::*;

const DISK: usize = 64 * 512;

#[derive(Debug, Clone)]
struct ModelTape {
    objects: Objects,
    at: usize,
}

struct Model {
    disks: [Vec<u8>; 2],
    tapes: [ModelTape; 2],
    inline: Vec<u8>,
    source: Vec<u8>,
    destination: Vec<u8>,
    written: u64,
    held: Option<Vec<u8>>,
}

/// Ends of every job here: disk 0 (source), disk 1 (source), disk 1 (destination), tape 0, tape 1, both null units.
const TO_DISK: EndIndex = EndIndex(2);
const NULL_BLOCK: EndIndex = EndIndex(5);
const NULL_STREAM: EndIndex = EndIndex(6);

impl Model {
    fn tape(&mut self, end: EndIndex) -> Option<&mut ModelTape> {
        self.tapes.get_mut(usize::from(end.0).checked_sub(3)?)
    }

    fn segment(&mut self, step: &Step) -> Result<(), FaultKind> {
        self.written = 0;
        match &step.action {
            Action::Move(copy) => self.data(copy, step.cat),
            Action::WriteFilemarks { end, count, .. } => {
                for _ in 0..*count {
                    self.append(*end, None)?;
                }
                Ok(())
            }
            Action::Locate { end, object } => {
                let tape = self.tape(*end).ok_or(FaultKind::Null)?;
                tape.at = (*object as usize).min(tape.objects.len());
                if *object as usize > tape.objects.len() { Err(FaultKind::EndOfData { residual: 0 }) } else { Ok(()) }
            }
            Action::TapeImage { from, to, filemarks } => self.tape_image(*from, *to, *filemarks),
            Action::BlockImage { from, from_at, to_at, len, .. } => {
                let from = usize::from(from.0);
                let data = self.disks[from][*from_at as usize..][..*len as usize].to_vec();
                self.disks[1][*to_at as usize..][..data.len()].copy_from_slice(&data);
                self.written += *len;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn tape_image(&mut self, from: EndIndex, to: EndIndex, filemarks: u32) -> Result<(), FaultKind> {
        let mut in_a_row = 0;
        loop {
            let source = self.tape(from).ok_or(FaultKind::Null)?;
            let Some(object) = source.objects.get(source.at).cloned() else { return Ok(()) };
            source.at += 1;
            in_a_row = if object.is_none() { in_a_row + 1 } else { 0 };
            self.written += object.as_ref().map_or(0, Vec::len) as u64;
            self.append(to, object)?;
            if in_a_row == filemarks && filemarks > 0 {
                return Ok(());
            }
        }
    }

    fn append(&mut self, end: EndIndex, object: Option<Vec<u8>>) -> Result<(), FaultKind> {
        let tape = self.tape(end).ok_or(FaultKind::Null)?;
        tape.objects.truncate(tape.at);
        tape.objects.push(object);
        tape.at += 1;
        Ok(())
    }

    /// One read command of the copy source; the bytes become source data.
    fn read(&mut self, from: Source, reads: &mut u64) -> Result<(), FaultKind> {
        match from {
            Source::Blocks { end: NULL_BLOCK, .. } => return Err(FaultKind::Null),
            Source::Blocks { end, at } => {
                let at = (at + *reads * 512) as usize;
                self.source.extend_from_slice(&self.disks[usize::from(end.0)][at..at + 512]);
            }
            Source::Stream { end, transfer } => {
                let tape = self.tape(end).ok_or(FaultKind::Null)?;
                let mut data = Vec::new();
                for record in 0..transfer.records {
                    let left = if transfer.fixed { i64::from(transfer.records - record) } else { i64::from(transfer.record) };
                    let object = tape.objects.get(tape.at).ok_or(FaultKind::EndOfData { residual: left })?;
                    tape.at += 1;
                    let bytes = object.as_ref().ok_or(FaultKind::Filemark { residual: left })?;
                    if bytes.len() != transfer.record as usize {
                        let residual = if transfer.fixed { left } else { left - bytes.len() as i64 };
                        return Err(FaultKind::IncorrectLength { residual });
                    }
                    data.extend_from_slice(bytes);
                }
                self.source.extend_from_slice(&data);
            }
            Source::Bytes { .. } | Source::Inline { .. } => unreachable!("not read command by command"),
        }
        *reads += 1;
        Ok(())
    }

    /// Write commands for as many whole transfers as the destination data gives.
    fn write(&mut self, copy: &Move) -> Result<(), FaultKind> {
        loop {
            let unit = match copy.to {
                Destination::Blocks { .. } => 512,
                Destination::Bytes { .. } => 1,
                Destination::Stream { transfer, .. } => transfer.bytes() as usize,
                Destination::Discard => return Ok(()),
            };
            let wanted = copy.output.map_or(usize::MAX, |output| (output - self.written) as usize);
            if self.destination.len() < unit || wanted < unit {
                return Ok(());
            }
            let data: Vec<u8> = self.destination.drain(..unit).collect();
            match copy.to {
                Destination::Blocks { end, at } | Destination::Bytes { end, at } => {
                    if end != TO_DISK {
                        return Err(FaultKind::Null);
                    }
                    let at = (at + self.written) as usize;
                    self.disks[1][at..at + unit].copy_from_slice(&data);
                }
                Destination::Stream { end, transfer } => {
                    for record in data.chunks(transfer.record as usize) {
                        self.append(end, Some(record.to_vec()))?;
                    }
                }
                Destination::Discard => {}
            }
            self.written += unit as u64;
        }
    }

    fn data(&mut self, copy: &Move, cat: bool) -> Result<(), FaultKind> {
        match copy.from {
            Source::Inline { offset, len } => {
                let data = self.inline[offset as usize..][..len as usize].to_vec();
                self.destination.extend(data);
            }
            // "The designated byte range shall be extracted as source data."
            Source::Bytes { end, at, len } => {
                let range = at as usize..(at + len) as usize;
                let data = self.disks[usize::from(end.0)][range].to_vec();
                self.source.extend(data);
            }
            _ => {}
        }
        let mut left = match (copy.process, copy.output) {
            (Some(process), _) => process as usize,
            (None, Some(output)) => (output as usize).saturating_sub(self.destination.len()),
            (None, None) => 0,
        };
        let mut reads = 0;
        let failed = loop {
            let take = left.min(self.source.len());
            let processed: Vec<u8> = self.source.drain(..take).collect();
            if copy.hold {
                self.held.get_or_insert_default().extend(&processed);
            }
            if copy.to != Destination::Discard {
                self.destination.extend(processed);
            }
            left -= take;
            if left == 0 {
                break None;
            }
            if let Err(kind) = self.read(copy.from, &mut reads) {
                break Some(kind);
            }
        };
        self.write(copy)?;
        if let Some(kind) = failed {
            return Err(kind);
        }
        self.residue(copy, cat)
    }

    fn residue(&mut self, copy: &Move, cat: bool) -> Result<(), FaultKind> {
        if cat {
            return Ok(());
        }
        let source_pad = copy.source_pad && !matches!(copy.from, Source::Inline { .. });
        let destination_pad = copy.destination_pad && copy.to != Destination::Discard;
        if destination_pad && copy.output.is_some() && !self.destination.is_empty() {
            return Err(FaultKind::Inexact);
        }
        if !source_pad && !destination_pad {
            let none = self.source.is_empty() && self.destination.is_empty();
            return if none { Ok(()) } else { Err(FaultKind::Inexact) };
        }
        if source_pad {
            self.source.clear();
        }
        if !destination_pad {
            self.destination.clear();
        } else if !self.destination.is_empty() {
            let unit = match copy.to {
                Destination::Stream { transfer, .. } => transfer.bytes() as usize,
                Destination::Blocks { .. } => 512,
                _ => 1,
            };
            let whole = self.destination.len().next_multiple_of(unit);
            self.destination.resize(whole, 0);
            self.write(copy)?;
        }
        Ok(())
    }
}

fn transfer() -> impl Strategy<Value = Transfer> {
    prop_oneof![
        4 => prop_oneof![Just(512), Just(1024), Just(100), Just(700), 1..3000_u32].prop_map(variable),
        1 => (prop_oneof![Just(512), Just(100)], 1..4_u32).prop_map(|(record, records)| Transfer { record, records, fixed: true }),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        4 => (0..2_u16, 0..16_u64).prop_map(|(end, block)| Source::Blocks { end: EndIndex(end), at: block * 512 }),
        2 => (0..2_u16, 0..8000_u64, 0..6000_u64).prop_map(|(end, at, len)| Source::Bytes { end: EndIndex(end), at, len }),
        4 => (3..5_u16, transfer()).prop_map(|(end, transfer)| Source::Stream { end: EndIndex(end), transfer }),
        2 => (0..500_u32, 0..500_u32).prop_map(|(offset, len)| Source::Inline { offset, len }),
        1 => Just(Source::Blocks { end: NULL_BLOCK, at: 0 }),
        1 => transfer().prop_map(|transfer| Source::Stream { end: NULL_STREAM, transfer }),
    ]
}

fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        3 => (32..40_u64).prop_map(|block| Destination::Blocks { end: TO_DISK, at: block * 512 }),
        2 => (16_384..20_000_u64).prop_map(|at| Destination::Bytes { end: TO_DISK, at }),
        5 => (3..5_u16, transfer()).prop_map(|(end, transfer)| Destination::Stream { end: EndIndex(end), transfer }),
        1 => Just(Destination::Discard),
    ]
}

fn data() -> impl Strategy<Value = Action> {
    let parts = (source(), destination(), 0..8000_u64, any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.3));
    let possible = |copy: &Move| match (copy.from, copy.to) {
        // A drive does not copy to itself; the plan refuses it.
        (Source::Stream { end: a, .. }, Destination::Stream { end: b, .. }) => a != b,
        // Inline data goes to tapes only.
        (Source::Inline { .. }, to) => matches!(to, Destination::Stream { .. }),
        (_, Destination::Discard) => matches!(copy.from, Source::Stream { .. }),
        _ => true,
    };
    parts
        .prop_map(|(from, to, amount, counts_output, source_pad, destination_pad, hold)| {
            let whole = if matches!(to, Destination::Blocks { .. }) { amount / 512 * 512 } else { amount };
            let (process, output) = match (from, to) {
                (Source::Inline { .. }, _) => (None, None),
                (Source::Bytes { len, .. }, Destination::Bytes { .. }) => (Some(len), Some(len)),
                (Source::Bytes { len, .. }, _) => (Some(len), None),
                (_, Destination::Bytes { .. }) => (None, Some(amount)),
                (_, Destination::Blocks { .. }) if counts_output => (None, Some(whole)),
                _ => (Some(amount), None),
            };
            Move { from, to, process, output, source_pad, destination_pad, hold }
        })
        .prop_filter("a segment type that exists", possible)
        .prop_map(Action::Move)
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => data(),
        1 => (3..5_u16, 0..3_u32, any::<bool>())
            .prop_map(|(end, count, immediate)| Action::WriteFilemarks { end: EndIndex(end), count, immediate }),
        1 => (any::<bool>(), 0..4_u32).prop_map(|(there, filemarks)| {
            let (from, to) = if there { (3, 4) } else { (4, 3) };
            Action::TapeImage { from: EndIndex(from), to: EndIndex(to), filemarks }
        }),
        1 => (0..2_u16, 0..16_u64, 32..40_u64, 0..8_u64).prop_map(|(from, from_at, to_at, blocks)| {
            let (from_at, to_at, len) = (from_at * 512, to_at * 512, blocks * 512);
            Action::BlockImage { from: EndIndex(from), from_at, to: TO_DISK, to_at, len }
        }),
        1 => (3..5_u16, 0..12_u64).prop_map(|(end, object)| Action::Locate { end: EndIndex(end), object }),
    ]
}

/// Three equal records are likely to be read, a filemark and a longer one to be met.
fn tape() -> impl Strategy<Value = ModelTape> {
    let object = prop_oneof![
        6 => prop_oneof![Just(512_usize), Just(100), Just(1024), 1..2000_usize].prop_map(|len| Some(noise(len, len as u8))),
        1 => Just(None),
    ];
    (prop::collection::vec(object, 0..10), 0..10_usize).prop_map(|(objects, at)| ModelTape { at: at.min(objects.len()), objects })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_plain_model_does(
        actions in prop::collection::vec((action(), prop::bool::weighted(0.6)), 1..8),
        tapes in [tape(), tape()],
    ) {
        let disks = [noise(DISK, 3), noise(DISK, 5)];
        let inline = noise(1000, 7);
        let mut rig = Rig::default();
        rig.disk(&disks[0]);
        rig.disk(&disks[1]);
        let again = rig.ends[1].clone();
        rig.end(again);
        for tape in &tapes {
            rig.tape(&tape.objects, tape.at);
        }
        rig.end(End::NullBlock { block_length: 512 });
        rig.end(End::NullStream);
        let steps: Vec<Step> = actions
            .into_iter()
            .enumerate()
            .map(|(index, (action, cat))| Step { segment: index as u32, cat, action })
            .collect();

        let outcome = rig.run(steps.clone(), &inline);

        let mut model = Model { disks, tapes, inline, source: Vec::new(), destination: Vec::new(), written: 0, held: None };
        let failed = steps.iter().find_map(|step| model.segment(step).err().map(|kind| (step.segment, kind)));
        match (&outcome, failed) {
            (Outcome::Copied { dropped }, None) => {
                prop_assert_eq!(*dropped, !model.source.is_empty() || !model.destination.is_empty());
            }
            (Outcome::Fault(fault), Some((segment, kind))) => {
                prop_assert_eq!((fault.segment, fault.kind), (segment, kind));
                prop_assert_eq!(fault.written, model.written);
                prop_assert!(fault.written <= fault.expected || fault.expected == 0);
            }
            _ => prop_assert!(false, "{outcome:?}, the model says {failed:?}"),
        }
        prop_assert!(rig.blocks(TO_DISK) == model.disks[1], "disks differ");
        let held = rig.seen.held.lock().unwrap().take();
        prop_assert_eq!(held, model.held.map(|held| (held, false)));
        for (index, tape) in model.tapes.iter().enumerate() {
            let end = EndIndex(index as u16 + 3);
            prop_assert_eq!(&rig.objects(end), &tape.objects);
            prop_assert_eq!(rig.position(end), tape.at as u64);
        }
    }
}
