//! A copy dispersed over several movers: pieces that are independent of each other.
//!
//! ```text
//! plan ─▶ pieces, ascending ─▶ each mover takes the next, as a job of its own with grants of its own
//!                      ▲                       │
//!                      └── the mover has died ─┘   once its process has ended, and its session with a remote end:
//!                                                  another redoes the piece
//! ```
//!
//! Which copies between disks can be divided [`disks`] says, which between a disk and a tape [`tape`]: those whose pieces come to the
//! same in any order and may be done again. All else goes to one mover. Segments behind one that fails may have been copied in part
//! when the status is told.
//!
//! Of a remote disk each share has sessions of its own, one for each piece. What a dead mover has sent may still be on its way to a
//! remote disk: before its piece is done again its session is reinstated there, which ends it with all its commands ([`Lane`]). Between
//! remote disks the movers on other hosts have the shares, as long as there are any, and log in themselves.
//!
//! Follows SPC-4, "EXTENDED COPY command processing": the result is that of the segments in their order.

pub mod disks;
pub mod tape;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use protocol::cartridge::report::TapeReport;
use protocol::mover::ends::End;
use protocol::mover::{
    Action, Answer, ByMethod, CopyJob, Destination, EndIndex, Fault, FaultKind, FromMover, Move, Outcome, Question, Step, ToMover,
};
use protocol::scsi::sense::{CopyEnd, Sense};
use protocol::units::ByteRange;
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::tape::{SharedTape, Stretch};
use super::jobs::{
    BUFFER_BYTES, Ended, Grants, Lanes, Opened, has_only_remote_ends, open, shifted, synchronize, told_to_stop, use_session,
};
use super::plan::{Plan, PlannedEnd, side_of};
use super::results::Progress;
use super::sense::{Notes, abort, of_fault, third_party};
use crate::mover::{Event, JobHandle, Mover, Movers};
use crate::remote::{Lane, RemoteUnit};
use crate::store::LocalEnd;
use crate::task::Response;

/// Pieces are about multiples of this, and at least as long: every block length divides it.
const PIECE_UNIT: u64 = 1 << 20;
/// No piece is longer: it is what one grant covers.
const PIECE_MOST: u64 = protocol::mover::MAX_GRANT;
/// So many pieces for each mover, so that a slow one holds up the others for a part of its share only.
const PIECES_EACH: u64 = 8;
/// A piece whose mover has died so often is not tried again: it may be what kills them.
const ATTEMPTS: u8 = 3;

/// What one mover does at a time.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its place among all, from 0: that of its bytes in the list.
    number: usize,
    /// Its part of each segment.
    steps: Vec<Step>,
    /// One for each step.
    accounts: Vec<Account>,
    /// Its part of the tape.
    stretch: Option<Stretch>,
    attempts: u8,
}

/// What of a segment lies in front of a piece's part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    segment: u32,
    /// Bytes that are written before.
    before: u64,
    /// Bytes that the segment writes.
    expected: u64,
}

impl Piece {
    fn segment(&self) -> u32 {
        self.steps.first().map_or(0, |step| step.segment)
    }

    /// A segment of which it has a part.
    fn nearest(&self, segment: u32) -> u32 {
        let last = self.steps.last().map_or(0, |step| step.segment);
        segment.min(last).max(self.segment())
    }

    /// The same fault, counted from the beginning of its segment.
    fn of_segment(&self, fault: Fault) -> Fault {
        let account = self.accounts.iter().find(|account| account.segment == fault.segment).or(self.accounts.first());
        account.map_or(fault, |account| Fault {
            segment: account.segment,
            expected: account.expected,
            written: account.before.saturating_add(fault.written),
            ..fault
        })
    }

    fn bytes(&self) -> u64 {
        self.steps.iter().filter_map(|step| moves(step).map(|(_, len)| len)).sum()
    }

    /// It writes its own part of a disk and nothing else.
    fn writes(&self, end: EndIndex, range: ByteRange) -> bool {
        self.steps.iter().any(|step| match moves(step) {
            Some((Destination::Blocks { end: to, at } | Destination::Bytes { end: to, at }, len)) => {
                to == end && range.start >= at && range.start.checked_add(range.len).is_some_and(|end| end <= at + len)
            }
            _ => false,
        })
    }
}

/// Where a step's bytes go, and how many they are.
fn moves(step: &Step) -> Option<(Destination, u64)> {
    match step.action {
        Action::Move(Move { to, process, output, .. }) => Some((to, process.or(output)?)),
        _ => None,
    }
}

/// A plan that was divided, with its ends open.
pub struct Prepared {
    plan: Plan,
    opened: Opened,
    pieces: Vec<Piece>,
    tape: Option<SharedTape>,
    all: Vec<Arc<Mover>>,
    movers: Arc<Movers>,
}

/// What the shares of a copy have in common.
struct Shared {
    movers: Arc<Movers>,
    /// Without the sessions of remote disks.
    opened: Opened,
    remotes: BTreeMap<EndIndex, Arc<RemoteUnit>>,
    tape: Option<Arc<SharedTape>>,
    /// No file of ours is needed: movers on other hosts can do it.
    far: bool,
    priority: u8,
    progress: Arc<Progress>,
    cancelled: CancellationToken,
    state: Mutex<State>,
    /// What waits has changed, or more of it is within reach.
    turned: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Piece>,
    written: ByMethod,
    /// Bytes that each mover wrote.
    shares: Vec<(String, u64)>,
    /// Of the first segment that failed, and the number of its piece.
    fault: Option<(Fault, usize)>,
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

impl Prepared {
    /// Opens the ends of a plan between disks. Blocks.
    ///
    /// # Errors
    /// What the command ends with.
    pub fn of_disks(plan: Plan, pieces: Vec<Piece>, movers: &Arc<Movers>) -> Result<Self, Response> {
        let opened = open(&plan, |_, _| Ok(LocalEnd { end: End::NullBlock { block_length: 512 }, files: Vec::new() }))?;
        Self::new(plan, opened, pieces, None, movers)
    }

    /// With ends that are open. Blocks while movers are started.
    ///
    /// # Errors
    /// What the command ends with.
    pub fn new(
        plan: Plan,
        opened: Opened,
        pieces: Vec<Piece>,
        tape: Option<SharedTape>,
        movers: &Arc<Movers>,
    ) -> Result<Self, Response> {
        let attached = if has_only_remote_ends(&plan) { movers.all_attached() } else { Vec::new() };
        let all = if attached.is_empty() { movers.all() } else { Ok(attached) };
        let all = all.map_err(|error| {
            warn!(%error, "no mover takes the copy");
            Response::from(Sense::INTERNAL_TARGET_FAILURE)
        })?;
        Ok(Self { plan, opened, pieces, tape, all, movers: Arc::clone(movers) })
    }

    /// Carries it out.
    pub async fn run(self, progress: &Arc<Progress>, cancelled: &CancellationToken) -> Ended {
        let Self { plan, opened, pieces, tape, all, movers } = self;
        let remote = |(end, index): (&PlannedEnd, u16)| match end {
            PlannedEnd::Remote(unit) => Some((EndIndex(index), Arc::clone(unit))),
            _ => None,
        };
        let (disks, tape) = (opened.disks.clone(), tape.map(Arc::new));
        let shared = Arc::new(Shared {
            opened,
            remotes: plan.ends.iter().zip(0..).filter_map(remote).collect(),
            tape: tape.clone(),
            far: has_only_remote_ends(&plan),
            priority: movers.priority(plan.priority),
            movers,
            progress: Arc::clone(progress),
            // A token of its own: a piece that cannot be done stops the others.
            cancelled: cancelled.child_token(),
            state: Mutex::new(State { waiting: pieces.into(), ..State::default() }),
            turned: Notify::new(),
        });
        let mut shares = JoinSet::new();
        for mover in all {
            shares.spawn(share(Arc::clone(&shared), mover));
        }
        shares.join_all().await;
        let (mut state, stopped) = (std::mem::take(&mut *shared.state()), shared.cancelled.is_cancelled());
        // And with it the files of the ends: a tape that is to be opened anew must not be open.
        drop(shared);
        if !stopped {
            // All movers are gone, and no other can be had.
            state.abandoned = state.waiting.iter().map(Piece::segment).chain(state.abandoned).min();
        }
        info!(shares = ?state.shares, written = ?state.written, fault = ?state.fault, "dispersed copy ended");
        let mut synced = synchronize(disks).await;
        if let Some(tape) = tape {
            synced = synced.and(tape.close().await);
        }
        let response = response(&state, synced, &plan.notes, plan.refused);
        let terminated = state.fault.is_none() && state.abandoned.is_none() && !state.waiting.is_empty();
        Ended { segments: plan.notes.len() as u64, written: state.written, terminated, ..Ended::from(response) }
    }
}

fn response(state: &State, synced: io::Result<()>, notes: &[Notes], refused: Option<Sense>) -> Response {
    let note = |segment: u32| notes.get(segment as usize).copied().unwrap_or_default();
    match (&state.fault, state.abandoned, synced) {
        (Some((fault, _)), abandoned, _) if abandoned.is_none_or(|abandoned| fault.segment <= abandoned) => {
            of_fault(fault, &note(fault.segment)).into()
        }
        (_, Some(segment), _) => abort(segment, Sense::INTERNAL_TARGET_FAILURE).into(),
        _ if !state.waiting.is_empty() => {
            let segment = state.waiting.iter().map(Piece::segment).min().unwrap_or(0);
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
    while let Some(piece) = shared.next().await {
        let remote;
        let way: fn(&mut Lane) -> io::Result<LocalEnd> =
            if mover.name().is_some() { |lane| Ok(lane.leave()) } else { Lane::give };
        (lanes, remote) = shared.with_lanes(lanes, &piece, way).await;
        let mut report = TapeReport::default();
        let done = match remote {
            Ok(remote) => match shared.begin(&mover, &piece, remote) {
                Ok(handle) => shared.watch(handle, &mover, &piece, &mut lanes, &mut report).await,
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
            (lanes, ended) = shared.with_lanes(lanes, &piece, Lane::reinstate).await;
            if let (Err(lost), Done::Died) = (ended, &done) {
                shared.fault(lost, &piece);
                return;
            }
        }
        match done {
            Done::Copied => shared.settle(piece, report, true).await,
            Done::Cancelled if shared.cancelled.is_cancelled() => {
                shared.state().waiting.push_front(piece.clone());
                shared.settle(piece, report, false).await;
            }
            // Nobody told it to stop.
            Done::Cancelled => shared.redo(piece),
            Done::Fault(fault) => {
                shared.fault(fault, &piece);
                shared.settle(piece, report, false).await;
            }
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

    /// The next piece. Waits while it is too far from the first one that is not on the tape yet.
    async fn next(&self) -> Option<Piece> {
        loop {
            let turned = self.turned.notified();
            tokio::pin!(turned);
            // From here on no turn is missed.
            turned.as_mut().enable();
            if self.cancelled.is_cancelled() {
                return None;
            }
            {
                let reach = self.tape.as_ref().map_or(usize::MAX, |tape| tape.reach());
                let mut state = self.state();
                if state.waiting.front()?.number < reach {
                    return state.waiting.pop_front();
                }
            }
            tokio::select! {
                () = self.cancelled.cancelled() => return None,
                () = turned => {}
            }
        }
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
        piece: &Piece,
        act: fn(&mut Lane) -> io::Result<T>,
    ) -> (Lanes, Result<Vec<(EndIndex, T)>, Fault>) {
        let mut remote = Vec::new();
        for (end, unit) in &self.remotes {
            if let Some(side) = piece.steps.iter().find_map(|step| side_of(step, *end)) {
                lanes.entry(*end).or_insert_with(|| Lane::new(unit));
                remote.push((*end, side));
            }
        }
        let (segment, expected) = (piece.segment(), piece.bytes());
        let lost = |side| Fault { segment, side, kind: FaultKind::SessionLost, expected, written: 0 };
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
    fn begin(&self, mover: &Arc<Mover>, piece: &Piece, remote: Vec<(EndIndex, LocalEnd)>) -> io::Result<JobHandle> {
        let mut ends = self.opened.ends.clone();
        let mut files = self.opened.files.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        for (index, local) in remote {
            if let Some(place) = ends.get_mut(usize::from(index.0)) {
                *place = shifted(local.end, files.len() as u16);
            }
            files.extend(local.files);
        }
        if let (Some(tape), Some(stretch)) = (&self.tape, piece.stretch) {
            tape.stand_at(&mut ends, stretch);
        }
        let job = CopyJob {
            id: self.movers.job_id(),
            ends,
            steps: piece.steps.clone(),
            inline: Vec::new(),
            buffer_bytes: BUFFER_BYTES,
            priority: self.priority,
            bytes_per_second: self.movers.settings().job_bytes_per_second,
        };
        mover.begin(job, files)
    }

    /// Until the job has ended; `report` then tells all of the tape.
    async fn watch(&self, handle: JobHandle, mover: &Mover, piece: &Piece, lanes: &mut Lanes, report: &mut TapeReport) -> Done {
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
                        Question::Session { end, initiator_name } => use_session(lanes, end, initiator_name).map(|()| None),
                        question => self.decide(&mut grants, question, piece).await,
                    };
                    let (answer, image) = match decided {
                        Ok(None) => (Answer::Granted, None),
                        Ok(image) => (Answer::Append, image),
                        Err(error) => (Answer::Refused { errno: error.raw_os_error().unwrap_or(libc::EIO) }, None),
                    };
                    handle.tell_with(&ToMover::Answer { job: handle.id(), answer }, Vec::from_iter(image));
                }
                Event::Message(FromMover::GiveBack { end, .. }) => grants.give_back(end),
                Event::Message(FromMover::Progress { segment, read, written, .. }) => {
                    let more = written.since(told.1);
                    handle.count(read.saturating_sub(told.0), more.total());
                    told = (read.max(told.0), written);
                    self.count(&mover.label(), piece.nearest(segment), more);
                }
                Event::Message(FromMover::Tape { end, report: more, .. }) => match &self.tape {
                    Some(tape) if tape.is(end) => tape.note(report, more, piece),
                    _ => debug!(mover = mover.label(), "a mover speaks of a tape that it was not given"),
                },
                Event::Message(FromMover::Held { .. } | FromMover::Hello { .. } | FromMover::Pong) => {
                    debug!(mover = mover.label(), "a mover speaks of what it was not given");
                }
            }
        }
    }

    /// What a mover may do; for its part of a tape the image is given.
    async fn decide(&self, grants: &mut Grants, question: Question, piece: &Piece) -> io::Result<Option<OwnedFd>> {
        match question {
            Question::Grant { end, range } if piece.writes(end, range) => {
                grants.ask(&self.opened.disks, end, range, &self.cancelled).await.map(|()| None)
            }
            Question::Append { end, at } => match (&self.tape, piece.stretch) {
                (Some(tape), Some(stretch)) if tape.is(end) && stretch.from == at => tape.append().await.map(Some),
                _ => Err(io::Error::from_raw_os_error(libc::EACCES)),
            },
            Question::Grant { .. } => Err(io::Error::from_raw_os_error(libc::EACCES)),
            Question::Segment { .. } | Question::Session { .. } => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    fn count(&self, mover: &str, segment: u32, more: ByMethod) {
        let mut state = self.state();
        state.written += more;
        match state.shares.iter_mut().find(|(label, _)| label == mover) {
            Some((_, bytes)) => *bytes += more.total(),
            None => state.shares.push((mover.to_owned(), more.total())),
        }
        self.progress.segments.fetch_max(segment + 1, Ordering::Relaxed);
        self.progress.written.store(state.written.total(), Ordering::Relaxed);
    }

    /// A piece will not be done again: what became of the tape counts in the order of the pieces, up to one that is not whole.
    async fn settle(&self, piece: Piece, report: TapeReport, whole: bool) {
        let Some(tape) = &self.tape else { return };
        if let Err((piece, error)) = tape.take(piece, report, whole).await {
            warn!(%error, segment = piece.segment(), "what a mover did with the tape does not count");
            match error.raw_os_error() {
                Some(errno) => {
                    let (segment, side, kind) = (piece.segment(), Some(CopyEnd::Destination), FaultKind::Write(errno));
                    self.fault(Fault { segment, side, kind, expected: 0, written: 0 }, &piece);
                }
                None => self.abandon(piece.segment()),
            }
        }
        self.turned.notify_waiters();
    }

    /// Pieces behind the one that failed are left; those in front of it, and of its own bytes those in front of the fault, are not.
    fn fault(&self, fault: Fault, piece: &Piece) {
        let mut state = self.state();
        if state.fault.as_ref().is_none_or(|(_, known)| piece.number < *known) {
            state.fault = Some((piece.of_segment(fault), piece.number));
        }
        state.waiting.retain(|waiting| waiting.number < piece.number);
        drop(state);
        self.turned.notify_waiters();
    }

    fn redo(&self, piece: Piece) {
        let attempts = piece.attempts + 1;
        if attempts < ATTEMPTS {
            info!(segment = piece.segment(), attempts, "a dead mover's piece is done again");
            self.state().waiting.push_front(Piece { attempts, ..piece });
            self.turned.notify_waiters();
        } else {
            self.abandon(piece.segment());
        }
    }

    fn abandon(&self, segment: u32) {
        let mut state = self.state();
        state.abandoned = Some(state.abandoned.map_or(segment, |known| known.min(segment)));
        drop(state);
        self.cancelled.cancel();
    }
}
