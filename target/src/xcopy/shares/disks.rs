//! Copies between disks that can be divided.
//!
//! Only where every segment moves whole blocks from a disk, or from what it was at one moment, to a disk without residue, no disk is
//! both read as it is and written, and no block is written twice: then the pieces come to the same in any order, and a piece may be
//! done again.
//!
//! Of a remote disk each share has sessions of its own, one for each piece, so pieces are longer there. Opens nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::mover::{Action, Destination, EndIndex, Move, Source, Step};
use protocol::scsi::designator::Association;

use super::super::jobs::has_only_remote_ends;
use super::super::plan::{Plan, PlannedEnd};
use super::{Account, PIECE_MOST, PIECE_UNIT, PIECES_EACH, Piece};
use crate::lun::Device;
use crate::mover::Movers;

/// With a remote disk no piece is shorter, unless the copy is: each has to log in.
const REMOTE_PIECE_LEAST: u64 = 16 << 20;

/// A segment that only moves whole blocks from disk to disk.
#[derive(Debug, Clone, Copy)]
struct Whole {
    segment: u32,
    from: EndIndex,
    from_at: u64,
    to: EndIndex,
    to_at: u64,
    len: u64,
}

/// The pieces of a plan that can be divided, when there are several movers or a remote disk that outlives them.
#[must_use]
pub fn divide(plan: &Plan, movers: &Movers) -> Option<Vec<Piece>> {
    let far = if has_only_remote_ends(plan) { movers.all_attached().len() } else { 0 };
    let count = if far > 0 { far as u64 } else { movers.settings().movers.into() };
    let remote = plan.ends.iter().any(|end| matches!(end, PlannedEnd::Remote(_)));
    if count < 2 && !remote {
        return None;
    }
    let moving = plan.steps.iter().filter(|step| !matches!(step.action, Action::Nothing));
    let whole = moving.map(|step| whole_segment(plan, step)).collect::<Option<Vec<_>>>()?;
    let total: u64 = whole.iter().map(|piece| piece.len).sum();
    let (enough, least) = if remote { (1, REMOTE_PIECE_LEAST) } else { (2 * PIECE_UNIT, PIECE_UNIT) };
    let places = whole.iter().map(|segment| (segment.to, segment.to_at, segment.len));
    (total >= enough && disks_are_apart(plan, &whole) && written_once(places)).then(|| {
        let len = (total / (count * PIECES_EACH) / PIECE_UNIT * PIECE_UNIT).clamp(least, PIECE_MOST);
        let pieces = whole.into_iter().flat_map(|segment| segment.cut(len));
        (0..).zip(pieces).map(|(number, piece)| Piece { number, ..piece }).collect()
    })
}

/// A segment that only moves whole blocks from disk to disk.
fn whole_segment(plan: &Plan, step: &Step) -> Option<Whole> {
    let (from, from_at, to, to_at, len) = match step.action {
        Action::Move(Move { from, to, process, output, hold: false, .. }) => {
            let (Source::Blocks { end, at } | Source::Bytes { end, at, .. }) = from else { return None };
            let Destination::Blocks { end: to, at: to_at } = to else { return None };
            let len = process.or(output)?;
            (end, at, to, to_at, output.is_none_or(|output| output == len).then_some(len)?)
        }
        Action::BlockImage { from, from_at, to, to_at, len } => (from, from_at, to, to_at, len),
        _ => return None,
    };
    let block = |end| block_length(plan, end);
    let whole = len.is_multiple_of(block(from)?) && len.is_multiple_of(block(to)?);
    whole.then_some(Whole { segment: step.segment, from, from_at, to, to_at, len })
}

/// Bytes a block; `None` for what is no disk.
pub(super) fn block_length(plan: &Plan, end: EndIndex) -> Option<u64> {
    match plan.ends.get(usize::from(end.0)) {
        Some(PlannedEnd::Source(disk) | PlannedEnd::Destination(disk)) => Some(u64::from(disk.block_length().0)),
        Some(PlannedEnd::Remote(unit)) => unit.block_length().map(u64::from),
        Some(PlannedEnd::Rod(rod)) => Some(rod.block_length().bytes()),
        Some(PlannedEnd::Zeros(_)) => Some(1),
        _ => None,
    }
}

/// What is written is neither read nor written under another name.
fn disks_are_apart(plan: &Plan, segments: &[Whole]) -> bool {
    let ends = |of: fn(&Whole) -> EndIndex| segments.iter().map(of).collect::<BTreeSet<_>>();
    let (read, written) = (ends(|piece| piece.from), ends(|piece| piece.to));
    let may_be_same = |one: EndIndex, other: EndIndex| {
        let [one, other] = [one, other].map(|end| plan.ends.get(usize::from(end.0)));
        one.zip(other).is_none_or(|(one, other)| may_be_same(one, other))
    };
    written.iter().all(|to| {
        !read.iter().any(|from| may_be_same(*from, *to)) && !written.iter().any(|other| other != to && may_be_same(*other, *to))
    })
}

fn may_be_same(one: &PlannedEnd, other: &PlannedEnd) -> bool {
    use PlannedEnd::{Destination, Remote, Rod, Source, Zeros};
    match (one, other) {
        (Source(one) | Destination(one), Source(other) | Destination(other)) => Arc::ptr_eq(one, other),
        (Remote(one), Remote(other)) => Arc::ptr_eq(one, other) || one.may_be(other.names()),
        (Remote(unit), Source(disk) | Destination(disk)) | (Source(disk) | Destination(disk), Remote(unit)) => {
            let device = Device::Disk(Arc::clone(disk));
            let mut names = device.common().identity.designators();
            names.retain(|name| name.association == Association::LogicalUnit);
            unit.may_be(names.iter().map(|name| (name.kind as u8, &name.bytes[..])))
        }
        // What a disk was at one moment stays as it is.
        (Rod(_) | Zeros(_), _) | (_, Rod(_) | Zeros(_)) => false,
        _ => true,
    }
}

/// Of these places, each an end, its first byte and how many there are, no two overlap.
pub(super) fn written_once(places: impl Iterator<Item = (EndIndex, u64, u64)>) -> bool {
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    places.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1.saturating_add(pair[0].2) <= pair[1].1)
}

impl Whole {
    fn cut(self, len: u64) -> impl Iterator<Item = Piece> {
        (0..self.len.div_ceil(len)).map(move |index| {
            let offset = index * len;
            let copy = Move {
                from: Source::Blocks { end: self.from, at: self.from_at + offset },
                to: Destination::Blocks { end: self.to, at: self.to_at + offset },
                process: Some(len.min(self.len - offset)),
                output: None,
                source_pad: false,
                destination_pad: false,
                hold: false,
            };
            Piece {
                number: 0,
                steps: vec![Step { segment: self.segment, cat: false, action: Action::Move(copy) }],
                accounts: vec![Account { segment: self.segment, before: offset, expected: self.len }],
                stretch: None,
                attempts: 0,
            }
        })
    }
}
