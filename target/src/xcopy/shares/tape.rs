//! Copies between disks and one tape that can be divided: the data as one stream of bytes, cut where a record ends.
//!
//! ```text
//! segments    00h ────────┬─ 00h ─┬──── 08h ──────        parts of disks, one behind the other
//! records     │  │  │  │  │  │  │  │  │  │  │  │  │        wherever segments end
//! pieces      └── 0 ──┴── 1 ──┴── 2 ──┴── 3 ──┘           each a job with a place on the tape of its own
//! ```
//!
//! *From a tape* the index tells beforehand whether all records are there and as long as the segments want them: then each piece has its
//! place, and nothing ends a read early but damage. *Onto a tape* all places are known beforehand, since movers do not compress. Movers
//! fill their pieces and publish nothing; what they have filled is published here, in order, each piece when all before it are. So
//! whatever ends a copy, its tape holds a beginning of it and nothing else, and stands behind that. The tape is cut where it stands when
//! the first mover has data to write.
//!
//! All else goes to one mover: inline data, filemarks, records in envelopes, a medium that would warn of its end. Remote ends too.
//!
//! Follows SPC-4, "EXTENDED COPY command processing", and [`protocol::cartridge::append`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use protocol::cartridge::TapePosition;
use protocol::cartridge::append::{Appender, Durability, Limits};
use protocol::cartridge::report::TapeReport;
use protocol::mover::ends::End;
use protocol::mover::{Action, Destination, EndIndex, Move, Source, Step, Transfer};
use tokio::task::spawn_blocking;

use super::super::jobs::Opened;
use super::super::plan::{Plan, PlannedEnd};
use super::disks::{block_length, written_once};
use super::{Account, PIECE_MOST, PIECE_UNIT, PIECES_EACH, Piece, moves};
use crate::lun::tape::TapeCopy;

/// Most records of one piece, so that what is told of them is small.
const PIECE_RECORDS: u64 = 4096;
/// More records are not looked up one by one before a copy begins.
const RECORDS_MOST: u64 = 1 << 22;
/// So many pieces for each mover may be filled in front of what is published: what is told of them is kept.
const AHEAD_EACH: u64 = 4;

/// A part of a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins.
    pub from: TapePosition,
    /// Where the next begins.
    pub to: TapePosition,
    /// Records in it.
    records: u64,
}

/// The data of a plan that moves whole records between disks and one tape, and does nothing else.
#[derive(Debug)]
pub struct Stream {
    tape: EndIndex,
    /// From disks to the tape, not back.
    writes: bool,
    /// The object that it is positioned to first.
    locate: Option<u64>,
    parts: Vec<Part>,
    /// Bytes.
    total: u64,
}

/// What one segment moves.
#[derive(Debug)]
struct Part {
    step: Step,
    /// First byte of the stream.
    start: u64,
    len: u64,
    /// It is only cut at multiples of this.
    unit: u64,
    transfer: Transfer,
    /// First byte of the first of its transfers: segments with another transfer have none of it.
    origin: u64,
}

impl Stream {
    /// The stream of a plan; `None` where there is more to it than one.
    #[must_use]
    pub fn of(plan: &Plan) -> Option<Self> {
        if plan.ends.iter().any(|end| matches!(end, PlannedEnd::Remote(_))) {
            return None;
        }
        let mut steps = plan.steps.iter().filter(|step| !matches!(step.action, Action::Nothing)).peekable();
        let located = match steps.peek()?.action {
            Action::Locate { end, object } => steps.next().map(|_| (end, object)),
            _ => None,
        };
        let mut stream: Option<Self> = None;
        for step in steps {
            let Action::Move(copy) = &step.action else { return None };
            let (tape, transfer, writes) = tape_of(copy)?;
            let (len, unit) = part_of(plan, copy)?;
            let stream = stream.get_or_insert_with(|| Self {
                tape,
                writes,
                locate: located.map(|(_, object)| object),
                parts: Vec::new(),
                total: 0,
            });
            let start = stream.total;
            let origin = match stream.parts.last() {
                Some(last) if last.transfer == transfer => last.origin,
                Some(last) if !last.ends_with_a_transfer() => return None,
                _ => start,
            };
            let part = Part { step: step.clone(), start, len, unit, transfer, origin };
            // What is left of a record stays for the next segment only where CAT says so.
            if (stream.tape, stream.writes) != (tape, writes) || !(step.cat || part.ends_with_a_transfer()) {
                return None;
            }
            stream.total = start.checked_add(len)?;
            stream.parts.push(part);
        }
        stream.filter(|stream| stream.can_be_divided() && located.is_none_or(|(end, _)| end == stream.tape))
    }

    fn can_be_divided(&self) -> bool {
        let places = self.parts.iter().filter_map(|part| match moves(&part.step)? {
            (Destination::Blocks { end, at } | Destination::Bytes { end, at }, len) => Some((end, at, len)),
            _ => None,
        });
        self.total >= 2 * PIECE_UNIT
            && self.parts.last().is_some_and(Part::ends_with_a_transfer)
            && self.records(0, self.total) <= RECORDS_MOST
            && written_once(places)
    }

    /// Pieces for so many movers, and the drive, out of the ends. `None`, and nothing is changed, where one mover has to do it.
    pub fn divide(&self, opened: &mut Opened, movers: u64) -> Option<(Vec<Piece>, SharedTape)> {
        let End::Cartridge { at, capacity, early_warning, layout, writable, .. } = *opened.ends.get(usize::from(self.tape.0))?
        else {
            return None;
        };
        let copy = opened.tapes.get_mut(&self.tape)?;
        let first = match self.locate {
            Some(object) => copy.position_of(object).ok().filter(|at| at.object == object)?,
            None => at,
        };
        let borders = self.borders(movers);
        let places = match self.writes {
            true if !writable => return None,
            true => self.places_for(first, Limits { capacity, early_warning, layout }, &borders)?,
            false => self.places_of(copy, first, &borders)?,
        };
        let pieces: Vec<_> = borders
            .windows(2)
            .zip(places.windows(2))
            .zip(0..)
            .map(|((bytes, places), number)| {
                let stretch = Stretch { from: places[0], to: places[1], records: self.records(bytes[0], bytes[1]) };
                self.piece(number, (bytes[0], bytes[1]), stretch)
            })
            .collect();
        if self.locate.is_some() {
            copy.apply(&TapeReport { position: first, ..TapeReport::default() }).ok()?;
        }
        let copy = opened.tapes.remove(&self.tape)?;
        let ledger = Ledger { copy: Some(copy), image: None, next: 0, ended: BTreeMap::new() };
        let tape = SharedTape {
            end: self.tape,
            writes: self.writes,
            first,
            pieces: pieces.len(),
            ahead: (movers * AHEAD_EACH) as usize,
            next: AtomicUsize::new(0),
            ledger: Mutex::new(ledger),
        };
        Some((pieces, tape))
    }

    /// Lengths of the records between two bytes at which records begin, each with how many there are.
    fn runs(&self, from: u64, to: u64) -> impl Iterator<Item = (u32, u64)> {
        let runs = self.parts.chunk_by(|one, other| one.origin == other.origin);
        runs.filter_map(move |run| {
            let (first, last) = (run.first()?, run.last()?);
            let bytes = to.min(last.end()).checked_sub(from.max(first.start)).filter(|bytes| *bytes > 0)?;
            Some((first.transfer.record, bytes / u64::from(first.transfer.record)))
        })
    }

    fn records(&self, from: u64, to: u64) -> u64 {
        self.runs(from, to).map(|(_, count)| count).sum()
    }

    fn first_at(&self, byte: u64) -> usize {
        self.parts.partition_point(|part| part.end() <= byte)
    }

    /// Bytes of the stream at which pieces begin, and its end.
    fn borders(&self, movers: u64) -> Vec<u64> {
        let each = self.total / self.records(0, self.total);
        let len = (self.total / (movers * PIECES_EACH)).clamp(PIECE_UNIT, PIECE_MOST).min(PIECE_RECORDS * each);
        let (mut borders, mut border) = (vec![0], len);
        while border < self.total {
            let part = &self.parts[self.first_at(border)];
            let next = part.origin + (border - part.origin).next_multiple_of(part.transfer.bytes());
            if next > border {
                border = next;
            } else if (border - part.start).is_multiple_of(part.unit) {
                borders.push(border);
                border += len;
            } else {
                border += 1;
            }
        }
        borders.push(self.total);
        borders
    }

    /// Where pieces lie that are appended at `first`; `None` where the medium would warn of its end.
    fn places_for(&self, first: TapePosition, limits: Limits, borders: &[u64]) -> Option<Vec<TapePosition>> {
        let mut appender = Appender::new(first, limits);
        let mut places = vec![first];
        for piece in borders.windows(2) {
            for (record, count) in self.runs(piece[0], piece[1]) {
                for _ in 0..count {
                    if appender.record(record.into()).ok()?.early_warning {
                        return None;
                    }
                }
            }
            places.push(appender.end());
        }
        Some(places)
    }

    /// Where pieces lie that are read from `first` on; `None` where not all records are as they should be.
    fn places_of(&self, copy: &TapeCopy, first: TapePosition, borders: &[u64]) -> Option<Vec<TapePosition>> {
        let (mut places, mut object) = (vec![first], first.object);
        for piece in borders.windows(2) {
            for (record, count) in self.runs(piece[0], piece[1]) {
                if !copy.has_records(object, count, record).ok()? {
                    return None;
                }
                object += count;
            }
            places.push(copy.position_of(object).ok()?);
        }
        Some(places)
    }

    fn piece(&self, number: usize, (from, to): (u64, u64), stretch: Stretch) -> Piece {
        let first = self.first_at(from);
        let (mut steps, mut accounts) = (Vec::new(), Vec::new());
        for part in self.parts[first..].iter().take_while(|part| part.start < to) {
            let (begin, end) = (from.max(part.start), to.min(part.end()));
            steps.push(part.step_for(begin - part.start, end - begin));
            accounts.push(Self::account(part, begin));
        }
        Piece { number, steps, accounts, stretch: Some(stretch), attempts: 0 }
    }

    /// A segment that writes a tape writes the commands whose last byte it brings.
    fn account(part: &Part, begin: u64) -> Account {
        let unit = part.transfer.bytes();
        let commands = |to: u64| ((to - part.origin) / unit - (part.start - part.origin) / unit) * unit;
        let (before, expected) = match moves(&part.step) {
            Some((Destination::Stream { .. }, _)) => (commands(begin), commands(part.end())),
            Some((Destination::Discard, _)) | None => (0, 0),
            Some(_) => (begin - part.start, part.len),
        };
        Account { segment: part.step.segment, before, expected }
    }
}

impl Part {
    const fn end(&self) -> u64 {
        self.start + self.len
    }

    const fn ends_with_a_transfer(&self) -> bool {
        (self.end() - self.origin).is_multiple_of(self.transfer.bytes())
    }

    /// `len` bytes from `offset` on.
    fn step_for(&self, offset: u64, len: u64) -> Step {
        let Action::Move(copy) = &self.step.action else { return self.step.clone() };
        let from = match copy.from {
            // Borders of records need not be borders of blocks.
            Source::Blocks { end, at } | Source::Bytes { end, at, .. } => Source::Bytes { end, at: at + offset, len },
            from => from,
        };
        let to = match copy.to {
            Destination::Blocks { end, at } => Destination::Blocks { end, at: at + offset },
            Destination::Bytes { end, at } => Destination::Bytes { end, at: at + offset },
            to => to,
        };
        let (process, output) = (copy.process.and(Some(len)), copy.output.and(Some(len)));
        Step { action: Action::Move(Move { from, to, process, output, ..copy.clone() }), ..self.step }
    }
}

/// The tape of a segment, how it is read or written, and which of them.
fn tape_of(copy: &Move) -> Option<(EndIndex, Transfer, bool)> {
    match (copy.from, copy.to) {
        (Source::Blocks { .. } | Source::Bytes { .. }, Destination::Stream { end, transfer }) => Some((end, transfer, true)),
        (Source::Stream { end, transfer }, Destination::Blocks { .. } | Destination::Bytes { .. } | Destination::Discard) => {
            Some((end, transfer, false))
        }
        _ => None,
    }
    .filter(|(_, transfer, _)| transfer.bytes() > 0)
}

/// Bytes that a segment moves, and of how many each it consists; `None` where residue of its own would come about.
fn part_of(plan: &Plan, copy: &Move) -> Option<(u64, u64)> {
    let (len, unit) = match (copy.from, copy.to, copy.process, copy.output) {
        (Source::Blocks { end, .. }, _, Some(len), None) if len.is_multiple_of(block_length(plan, end)?) => (len, 1),
        (Source::Bytes { end, len, .. }, _, Some(process), None) if process == len && block_length(plan, end).is_some() => {
            (len, 1)
        }
        (Source::Stream { .. }, Destination::Blocks { end, .. }, None, Some(len)) => (len, block_length(plan, end)?),
        (Source::Stream { .. }, Destination::Bytes { end, .. }, None, Some(len)) => (len, block_length(plan, end).and(Some(1))?),
        (Source::Stream { .. }, Destination::Discard, Some(len), None) => (len, 1),
        _ => return None,
    };
    (len > 0 && len.is_multiple_of(unit) && !copy.hold).then_some((len, unit))
}

/// The drive of a copy that several movers share.
#[derive(Debug)]
pub struct SharedTape {
    end: EndIndex,
    writes: bool,
    /// Where the copy began.
    first: TapePosition,
    pieces: usize,
    ahead: usize,
    /// As in the ledger, to be read without waiting for it.
    next: AtomicUsize,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    /// There until the end.
    copy: Option<TapeCopy>,
    /// What movers append to, once the tape has been cut.
    image: Option<OwnedFd>,
    /// The first piece that does not count yet. None does behind one that is not whole.
    next: usize,
    /// Pieces that came before their turn, what became of the tape, and whether they are whole.
    ended: BTreeMap<usize, (Piece, TapeReport, bool)>,
}

impl SharedTape {
    /// It is this end of the jobs.
    #[must_use]
    pub fn is(&self, end: EndIndex) -> bool {
        self.end == end
    }

    /// Pieces from this number on have to wait.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.next.load(Ordering::Relaxed).saturating_add(self.ahead)
    }

    /// The drive as a job finds it that has this part of the tape.
    pub fn stand_at(&self, ends: &mut [End], stretch: Stretch) {
        if let Some(End::Cartridge { at, end_of_data, publishes, .. }) = ends.get_mut(usize::from(self.end.0)) {
            *at = stretch.from;
            if self.writes {
                *end_of_data = stretch.from;
                *publishes = false;
            }
        }
    }

    /// Adds what a mover says to what it has said. No more is kept than its piece has.
    pub fn note(&self, report: &mut TapeReport, more: TapeReport, piece: &Piece) {
        let room = piece.stretch.map_or(0, |stretch| stretch.records).saturating_sub(report.appended.len() as u64);
        report.appended.extend(more.appended.into_iter().take(room as usize));
        report.position = more.position;
    }

    /// The image, for a mover that has something to append: the tape ends where the copy began.
    ///
    /// # Errors
    /// As [`TapeCopy::append`].
    pub async fn append(self: &Arc<Self>) -> io::Result<OwnedFd> {
        let tape = Arc::clone(self);
        let asked = spawn_blocking(move || {
            let mut ledger = tape.ledger();
            let Ledger { copy, image, .. } = &mut *ledger;
            if image.is_none() {
                *image = Some(copy.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.append(tape.first)?);
            }
            image.as_ref().ok_or(io::ErrorKind::BrokenPipe)?.try_clone()
        });
        asked.await.map_err(io::Error::other)?
    }

    /// A piece has ended, `whole` or not, and nobody does it again: it counts as soon as all in front of it do.
    ///
    /// # Errors
    /// What the tape gave, and for which piece: with an errno the file system's own, without one the mover's report was wrong. Nothing
    /// behind that piece counts.
    pub async fn take(self: &Arc<Self>, piece: Piece, report: TapeReport, whole: bool) -> Result<(), (Piece, io::Error)> {
        let tape = Arc::clone(self);
        let lost = piece.clone();
        let taken = spawn_blocking(move || {
            let mut ledger = tape.ledger();
            ledger.ended.insert(piece.number, (piece, report, whole));
            let advanced = ledger.advance(&tape);
            tape.next.store(ledger.next, Ordering::Relaxed);
            advanced
        });
        taken.await.unwrap_or_else(|error| Err((lost, io::Error::other(error))))
    }

    /// All movers are done: a sync point, and commands have the drive again.
    ///
    /// # Errors
    /// As [`TapeCopy::finish`].
    pub async fn close(self: Arc<Self>) -> io::Result<()> {
        let closed = spawn_blocking(move || {
            let mut ledger = self.ledger();
            // Its lock would keep the drive from opening the cartridge anew.
            ledger.image = None;
            let Some(copy) = ledger.copy.take() else { return Ok(()) };
            if self.writes && ledger.next != self.pieces {
                copy.discard_unpublished()?;
            }
            copy.finish()
        });
        closed.await.map_err(io::Error::other)?
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no holder panics")
    }
}

/// Behind a piece that is not whole.
const CLOSED: usize = usize::MAX;

impl Ledger {
    fn advance(&mut self, tape: &SharedTape) -> Result<(), (Piece, io::Error)> {
        while let Some((piece, report, whole)) = self.ended.remove(&self.next) {
            self.next = if whole { self.next + 1 } else { CLOSED };
            if let Err(error) = self.count(tape, &piece, &report, whole) {
                self.next = CLOSED;
                return Err((piece, error));
            }
        }
        Ok(())
    }

    fn count(&mut self, tape: &SharedTape, piece: &Piece, report: &TapeReport, whole: bool) -> io::Result<()> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a mover has not done with the tape what it was to do");
        let copy = self.copy.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let not_its_own = !tape.writes && !report.appended.is_empty();
        let elsewhere = piece.stretch.is_none_or(|stretch| stretch.to != report.position);
        if not_its_own || (whole && elsewhere) {
            return Err(wrong());
        }
        match tape.writes {
            true if report.appended.is_empty() => Ok(()),
            // The last word of the copy is as safe as that of one mover.
            true if self.next == tape.pieces => copy.publish(report, Durability::Power),
            true => copy.publish(report, Durability::Process),
            // A mover that was stopped before it stood there has said nothing.
            false if report.position == TapePosition::default() => Ok(()),
            false => copy.apply(report),
        }
    }
}

#[cfg(test)]
mod tests;
