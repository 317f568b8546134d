//! A copy dispersed over several movers: pieces of disks that are independent of each other.
//!
//! ```text
//! plan ─▶ pieces, ascending ─▶ each mover takes the next, as a job of its own with grants of its own
//!                      ▲                       │
//!                      └── the mover has died ─┘   once its process has ended, and its session with a remote end:
//!                                                  another redoes the piece
//! ```
//!
//! Only where every segment moves whole blocks from a disk, or from what it was at one moment, to a disk without residue, no disk is
//! both read as it is and written, and no block is written twice: then the pieces come to the same in any order, and a piece may be
//! done again. All else goes to one mover. Segments behind one that fails may have been copied in part when the status is told.
//!
//! Of a remote disk each share has sessions of its own, one for each piece. What a dead mover has sent may still be on its way to a
//! remote disk: before its piece is done again its session is reinstated there, which ends it with all its commands ([`Lane`]). Between
//! remote disks the movers on other hosts have the shares, as long as there are any, and log in themselves.
//!
//! Follows SPC-4, "EXTENDED COPY command processing": the result is that of the segments in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use protocol::mover::ends::End;
use protocol::mover::{
    Action, Answer, ByMethod, CopyJob, Destination, EndIndex, Fault, FaultKind, FromMover, Move, Outcome, Question, Source, Step,
    ToMover,
};
use protocol::scsi::designator::Association;
use protocol::scsi::sense::{CopyEnd, Sense};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::jobs::{
    BUFFER_BYTES, Disks, Ended, Grants, Lanes, Opened, has_only_remote_ends, open, shifted, synchronize, told_to_stop,
    use_session,
};
use super::plan::{Plan, PlannedEnd};
use super::results::Progress;
use super::sense::{Notes, abort, of_fault, third_party};
use crate::lun::Device;
use crate::mover::{Event, JobHandle, Mover, Movers};
use crate::remote::{Lane, RemoteUnit};
use crate::store::LocalEnd;
use crate::task::Response;

/// Pieces are multiples of this, and at least as long: every block length divides it.
const PIECE_UNIT: u64 = 1 << 20;
/// No piece is longer: it is what one grant covers.
const PIECE_MOST: u64 = protocol::mover::MAX_GRANT;
/// With a remote disk no piece is shorter, unless the copy is: each has to log in.
const REMOTE_PIECE_LEAST: u64 = 16 << 20;
/// So many pieces for each mover, so that a slow one holds up the others for a part of its share only.
const PIECES_EACH: u64 = 8;
/// A piece whose mover has died so often is not tried again: it may be what kills them.
const ATTEMPTS: u8 = 3;

/// Bytes of one segment from disk to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    segment: u32,
    from: EndIndex,
    from_at: u64,
    to: EndIndex,
    to_at: u64,
    len: u64,
    /// Byte of the segment with which it begins.
    offset: u64,
    attempts: u8,
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
    (total >= enough && disks_are_apart(plan, &whole) && written_once(&whole)).then(|| {
        let len = (total / (count * PIECES_EACH) / PIECE_UNIT * PIECE_UNIT).clamp(least, PIECE_MOST);
        whole.into_iter().flat_map(|segment| cut(segment, len)).collect()
    })
}

/// A segment that only moves whole blocks from disk to disk.
fn whole_segment(plan: &Plan, step: &Step) -> Option<Piece> {
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
    let block = |end: EndIndex| match plan.ends.get(usize::from(end.0)) {
        Some(PlannedEnd::Source(disk) | PlannedEnd::Destination(disk)) => Some(u64::from(disk.block_length().0)),
        Some(PlannedEnd::Remote(unit)) => unit.block_length().map(u64::from),
        Some(PlannedEnd::Rod(rod)) => Some(rod.block_length().bytes()),
        Some(PlannedEnd::Zeros(_)) => Some(1),
        _ => None,
    };
    let whole = len.is_multiple_of(block(from)?) && len.is_multiple_of(block(to)?);
    whole.then_some(Piece { segment: step.segment, from, from_at, to, to_at, len, offset: 0, attempts: 0 })
}

/// What is written is neither read nor written under another name.
fn disks_are_apart(plan: &Plan, segments: &[Piece]) -> bool {
    let ends = |of: fn(&Piece) -> EndIndex| segments.iter().map(of).collect::<BTreeSet<_>>();
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

fn written_once(segments: &[Piece]) -> bool {
    let mut places: Vec<_> = segments.iter().map(|piece| (piece.to, piece.to_at, piece.len)).collect();
    places.sort_unstable();
    places.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1.saturating_add(pair[0].2) <= pair[1].1)
}

fn cut(segment: Piece, len: u64) -> impl Iterator<Item = Piece> {
    (0..segment.len.div_ceil(len)).map(move |index| {
        let offset = index * len;
        let (from_at, to_at) = (segment.from_at + offset, segment.to_at + offset);
        Piece { from_at, to_at, len: len.min(segment.len - offset), offset, ..segment }
    })
}

/// What the shares of a copy have in common.
struct Shared {
    movers: Arc<Movers>,
    /// Without the sessions of remote disks.
    opened: Opened,
    remotes: BTreeMap<EndIndex, Arc<RemoteUnit>>,
    /// No file of ours is needed: movers on other hosts can do it.
    far: bool,
    priority: u8,
    progress: Arc<Progress>,
    cancelled: CancellationToken,
    /// Bytes of each segment.
    lengths: Vec<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Piece>,
    written: ByMethod,
    /// Bytes that each mover wrote.
    shares: Vec<(String, u64)>,
    /// Of the first segment that failed, and the byte of it at which its piece begins.
    fault: Option<(Fault, u64)>,
    /// A piece could not be done at all.
    abandoned: Option<u32>,
}

/// How a piece ended.
enum Done {
    Copied,
    Fault(Fault),
    Cancelled,
    /// The process has ended, and with it all it did.
    Died,
}

/// Carries out a plan that was divided.
pub async fn run(
    plan: Plan,
    pieces: Vec<Piece>,
    movers: &Arc<Movers>,
    progress: &Arc<Progress>,
    cancelled: &CancellationToken,
) -> Ended {
    let notes = plan.notes.clone();
    let segments = notes.len() as u64;
    let ended = |response, written| Ended { segments, written, ..Ended::from(response) };
    let (refused, priority, starting) = (plan.refused.clone(), movers.priority(plan.priority), Arc::clone(movers));
    let remote = |(end, index): (&PlannedEnd, u16)| match end {
        PlannedEnd::Remote(unit) => Some((EndIndex(index), Arc::clone(unit))),
        _ => None,
    };
    let remotes = plan.ends.iter().zip(0..).filter_map(remote).collect();
    let far = has_only_remote_ends(&plan);
    let started = spawn_blocking(move || {
        let opened = open(&plan, |_, _| Ok(LocalEnd { end: End::NullBlock { block_length: 512 }, files: Vec::new() }))?;
        let attached = if far { starting.all_attached() } else { Vec::new() };
        let all = if attached.is_empty() { starting.all() } else { Ok(attached) };
        let all = all.map_err(|error| {
            warn!(%error, "no mover takes the copy");
            Response::from(Sense::INTERNAL_TARGET_FAILURE)
        })?;
        Ok::<_, Response>((opened, all))
    });
    let (opened, all) = match started.await {
        Ok(Ok(started)) => started,
        Ok(Err(response)) => return ended(response, ByMethod::default()),
        Err(_) => return ended(Sense::INTERNAL_TARGET_FAILURE.into(), ByMethod::default()),
    };
    let disks = opened.disks.clone();
    let mut lengths = vec![0; notes.len()];
    for piece in &pieces {
        lengths[piece.segment as usize] = piece.offset + piece.len;
    }
    let state = Mutex::new(State { waiting: pieces.into(), ..State::default() });
    // A token of its own: a piece that cannot be done stops the others.
    let (movers, progress, cancelled_or_abandoned) = (Arc::clone(movers), Arc::clone(progress), cancelled.child_token());
    let shared =
        Arc::new(Shared { movers, opened, remotes, far, priority, progress, cancelled: cancelled_or_abandoned, lengths, state });
    let mut shares = JoinSet::new();
    for mover in all {
        shares.spawn(share(Arc::clone(&shared), mover));
    }
    shares.join_all().await;
    let mut state = std::mem::take(&mut *shared.state());
    if !shared.cancelled.is_cancelled() {
        // All movers are gone, and no other can be had.
        state.abandoned = state.waiting.iter().map(|piece| piece.segment).chain(state.abandoned).min();
    }
    info!(shares = ?state.shares, written = ?state.written, fault = ?state.fault, "dispersed copy ended");
    let response = response(&state, synchronize(disks).await, &notes, refused);
    let terminated = state.fault.is_none() && state.abandoned.is_none() && !state.waiting.is_empty();
    Ended { terminated, ..ended(response, state.written) }
}

fn response(state: &State, synced: io::Result<()>, notes: &[Notes], refused: Option<Sense>) -> Response {
    let note = |segment: u32| notes.get(segment as usize).copied().unwrap_or_default();
    match (&state.fault, state.abandoned, synced) {
        (Some((fault, _)), abandoned, _) if abandoned.is_none_or(|abandoned| fault.segment <= abandoned) => {
            of_fault(fault, &note(fault.segment)).into()
        }
        (_, Some(segment), _) => abort(segment, Sense::INTERNAL_TARGET_FAILURE).into(),
        _ if !state.waiting.is_empty() => {
            let segment = state.waiting.iter().map(|piece| piece.segment).min().unwrap_or(0);
            abort(segment, Sense::COMMANDS_CLEARED_BY_DEVICE_SERVER).into()
        }
        (_, None, Err(error)) => {
            warn!(%error, "not synchronized after a copy");
            let segment = notes.len().saturating_sub(1) as u32;
            third_party(segment, &note(segment), CopyEnd::Destination, &Sense::WRITE_ERROR.into()).into()
        }
        (_, None, Ok(())) => refused.map_or_else(Response::good, Response::from),
    }
}

/// One mover's part: piece after piece, as long as there are any.
async fn share(shared: Arc<Shared>, mut mover: Arc<Mover>) {
    let mut lanes = Lanes::new();
    while let Some(piece) = shared.next() {
        let remote;
        let way: fn(&mut Lane) -> io::Result<LocalEnd> =
            if mover.name().is_some() { |lane| Ok(lane.leave()) } else { Lane::give };
        (lanes, remote) = shared.with_lanes(lanes, piece, way).await;
        let done = match remote {
            Ok(remote) => match shared.begin(&mover, piece, remote) {
                Ok(handle) => shared.watch(handle, &mover, piece, &mut lanes).await,
                Err(error) => {
                    warn!(mover = mover.label(), %error, "a mover does not take its share");
                    Done::Died
                }
            },
            Err(lost) => Done::Fault(lost),
        };
        if !matches!(done, Done::Copied) {
            // What it had under way must not arrive at a remote disk any more.
            let ended;
            (lanes, ended) = shared.with_lanes(lanes, piece, Lane::reinstate).await;
            if let (Err(lost), Done::Died) = (ended, &done) {
                shared.fault(lost, piece);
                return;
            }
        }
        match done {
            Done::Copied => {}
            Done::Cancelled if shared.cancelled.is_cancelled() => shared.state().waiting.push_front(piece),
            // Nobody told it to stop.
            Done::Cancelled => shared.redo(piece),
            Done::Fault(fault) => shared.fault(fault, piece),
            Done::Died => {
                shared.redo(piece);
                match shared.another().await {
                    Some(another) => mover = another,
                    None => return,
                }
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn next(&self) -> Option<Piece> {
        if self.cancelled.is_cancelled() { None } else { self.state().waiting.pop_front() }
    }

    /// A mover in place of one that is gone.
    async fn another(&self) -> Option<Arc<Mover>> {
        if let Some(attached) = self.movers.attached().filter(|_| self.far) {
            return Some(attached);
        }
        let movers = Arc::clone(&self.movers);
        spawn_blocking(move || movers.ensure()).await.ok()?.ok()
    }

    /// Does something with the lane of each remote end of a piece.
    async fn with_lanes<T: Send + 'static>(
        &self,
        mut lanes: Lanes,
        piece: Piece,
        act: fn(&mut Lane) -> io::Result<T>,
    ) -> (Lanes, Result<Vec<(EndIndex, T)>, Fault>) {
        let ends = [(piece.from, CopyEnd::Source), (piece.to, CopyEnd::Destination)];
        let mut remote = Vec::new();
        for (end, side) in ends {
            if let Some(unit) = self.remotes.get(&end) {
                lanes.entry(end).or_insert_with(|| Lane::new(unit));
                remote.push((end, side));
            }
        }
        let lost = |side| {
            let (segment, expected) = (piece.segment, piece.len);
            Fault { segment, side, kind: FaultKind::SessionLost, expected, written: 0 }
        };
        if remote.is_empty() {
            return (lanes, Ok(Vec::new()));
        }
        let acted = spawn_blocking(move || {
            let mut done = Vec::new();
            for (end, side) in remote {
                let Some(lane) = lanes.get_mut(&end) else { continue };
                match act(lane) {
                    Ok(what) => done.push((end, what)),
                    Err(error) => {
                        warn!(%error, "a remote end is lost");
                        return (lanes, Err(side));
                    }
                }
            }
            (lanes, Ok(done))
        });
        match acted.await {
            Ok((lanes, done)) => (lanes, done.map_err(|side| lost(Some(side)))),
            Err(_) => (Lanes::new(), Err(lost(None))),
        }
    }

    /// Gives a mover a piece, with the remote ends as it has them. It has their files alone then: a session ends with its process.
    fn begin(&self, mover: &Arc<Mover>, piece: Piece, remote: Vec<(EndIndex, LocalEnd)>) -> io::Result<JobHandle> {
        let mut ends = self.opened.ends.clone();
        let mut files = self.opened.files.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        for (index, local) in remote {
            if let Some(place) = ends.get_mut(usize::from(index.0)) {
                *place = shifted(local.end, files.len() as u16);
            }
            files.extend(local.files);
        }
        let copy = Move {
            from: Source::Blocks { end: piece.from, at: piece.from_at },
            to: Destination::Blocks { end: piece.to, at: piece.to_at },
            process: Some(piece.len),
            output: None,
            source_pad: false,
            destination_pad: false,
            hold: false,
        };
        let job = CopyJob {
            id: self.movers.job_id(),
            ends,
            steps: vec![Step { segment: piece.segment, cat: false, action: Action::Move(copy) }],
            inline: Vec::new(),
            buffer_bytes: BUFFER_BYTES,
            priority: self.priority,
            bytes_per_second: self.movers.settings().job_bytes_per_second,
        };
        mover.begin(job, files)
    }

    async fn watch(&self, handle: JobHandle, mover: &Mover, piece: Piece, lanes: &mut Lanes) -> Done {
        let (mut grants, mut told) = (Grants::default(), (0, ByMethod::default()));
        // Behind the grants: a job that is dropped is stopped before what it may write is given back.
        let mut handle = handle;
        loop {
            match handle.event(&self.cancelled).await {
                Event::Died => return Done::Died,
                Event::Message(FromMover::Done { outcome, .. }) => {
                    return match told_to_stop(outcome) {
                        Outcome::Copied { .. } => Done::Copied,
                        Outcome::Fault(fault) => Done::Fault(fault),
                        Outcome::Cancelled => Done::Cancelled,
                    };
                }
                Event::Message(FromMover::Ask { question, .. }) => {
                    let decided = match question {
                        Question::Session { end, initiator_name } => use_session(lanes, end, initiator_name),
                        question => self.decide(&mut grants, question, piece).await,
                    };
                    let answer = match decided {
                        Ok(()) => Answer::Granted,
                        Err(error) => Answer::Refused { errno: error.raw_os_error().unwrap_or(libc::EIO) },
                    };
                    handle.tell(&ToMover::Answer { job: handle.id(), answer });
                }
                Event::Message(FromMover::GiveBack { end, .. }) => grants.give_back(end),
                Event::Message(FromMover::Progress { read, written, .. }) => {
                    let more = written.since(told.1);
                    handle.count(read.saturating_sub(told.0), more.total());
                    told = (read.max(told.0), written);
                    self.count(&mover.label(), piece, more);
                }
                Event::Message(FromMover::Tape { .. } | FromMover::Held { .. } | FromMover::Hello { .. } | FromMover::Pong) => {
                    debug!(mover = mover.label(), "a mover speaks of what it was not given");
                }
            }
        }
    }

    /// A share writes its own piece and nothing else.
    async fn decide(&self, grants: &mut Grants, question: Question, piece: Piece) -> io::Result<()> {
        let Question::Grant { end, range } = question else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
        let inside = end == piece.to
            && range.start >= piece.to_at
            && range.start.checked_add(range.len).is_some_and(|end| end <= piece.to_at + piece.len);
        if !inside {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let disks: &Disks = &self.opened.disks;
        grants.ask(disks, end, range, &self.cancelled).await
    }

    fn count(&self, mover: &str, piece: Piece, more: ByMethod) {
        let mut state = self.state();
        state.written += more;
        match state.shares.iter_mut().find(|(label, _)| label == mover) {
            Some((_, bytes)) => *bytes += more.total(),
            None => state.shares.push((mover.to_owned(), more.total())),
        }
        self.progress.segments.fetch_max(piece.segment + 1, Ordering::Relaxed);
        self.progress.written.store(state.written.total(), Ordering::Relaxed);
    }

    /// Segments behind the one that failed are left; those in front of it, and of its own bytes those in front of the fault, are not.
    fn fault(&self, fault: Fault, piece: Piece) {
        let mut state = self.state();
        let place = (piece.segment, piece.offset);
        let first = state.fault.as_ref().is_none_or(|(known, offset)| place < (known.segment, *offset));
        if first {
            let (expected, written) = (self.lengths[piece.segment as usize], piece.offset.saturating_add(fault.written));
            let fault = Fault { segment: piece.segment, expected, written, ..fault };
            state.fault = Some((fault, piece.offset));
        }
        state.waiting.retain(|waiting| (waiting.segment, waiting.offset) < place);
    }

    fn redo(&self, piece: Piece) {
        let attempts = piece.attempts + 1;
        let mut state = self.state();
        if attempts < ATTEMPTS {
            info!(segment = piece.segment, attempts, "a dead mover's piece is done again");
            state.waiting.push_front(Piece { attempts, ..piece });
        } else {
            state.abandoned = Some(state.abandoned.map_or(piece.segment, |known| known.min(piece.segment)));
            drop(state);
            self.cancelled.cancel();
        }
    }
}
