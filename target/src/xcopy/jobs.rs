//! One copy job on its way: ends opened, drives held, grants given, reports taken over, and at last one response.
//!
//! Grants and drives come back when the mover says that the job is done, or when its process has ended; never before. So an
//! aborted command ends only when nothing moves any more. The loss of the I_T nexus does not touch a job: it is a task of its own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use protocol::mover::ends::{Descriptor, End};
use protocol::mover::{
    Answer, ByMethod, CopyJob, EndIndex, Fault, FaultKind, FromMover, JobId, MAX_FILES, Outcome, Question, RemoteEnd, ToMover,
    Way,
};
use protocol::scsi::Status;
use protocol::scsi::sense::{CopyEnd, Sense};
use protocol::units::ByteRange;
use protocol::xcopy::RodToken;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::anew::{Anew, can_be_done_twice};
use super::duty::Duty;
use super::leases::Leases;
use super::plan::{Plan, PlannedEnd};
use super::results::Progress;
use super::sense::{Notes, abort, is_busy, of_fault, third_party};
use super::shares::tape::Stream;
use super::shares::{Prepared, disks};
use super::tokens::{InUse, Moments, Populated, Tokens, zeros};
use crate::lun::disk::{Copying, Disk};
use crate::lun::tape::TapeCopy;
use crate::mover::{Event, JobHandle, Movers};
use crate::nexus::Nexus;
use crate::remote::{Lane, RemoteUnit};
use crate::snapshot::SnapshotService;
use crate::store::LocalEnd;
use crate::task::Response;
use crate::volume::WriteGrant;

/// Bytes of buffers a job asks its mover for.
pub(super) const BUFFER_BYTES: u64 = 32 << 20;

/// How a job ended, and what it came to.
#[derive(Debug)]
pub struct Ended {
    /// For the initiator.
    pub response: Response,
    /// Segments that were begun.
    pub segments: u64,
    /// Bytes written.
    pub written: ByMethod,
    /// It was told to stop, and did.
    pub terminated: bool,
    /// Residue of its last segment was dropped.
    pub dropped: bool,
    /// It ended with less than was asked for, since a ROD has no more.
    pub partial: bool,
    /// Tokens that were made, each with the id of its ROD CSCD descriptor.
    pub tokens: Vec<(u16, RodToken)>,
}

/// What copies are carried out with.
#[derive(Debug)]
pub struct Means {
    /// Who moves the data.
    pub movers: Arc<Movers>,
    /// Who takes views of disks.
    pub snapshots: Arc<SnapshotService>,
    /// RODs and their tokens.
    pub tokens: Arc<Tokens>,
    /// Views of disks whose policy is "lease".
    pub leases: Arc<Leases>,
}

impl Ended {
    /// Whoever carried it out is gone in the middle of it.
    #[must_use]
    pub fn lost(progress: &Progress) -> Self {
        let segments = progress.segments.load(Ordering::Relaxed);
        let sense = abort(segments.saturating_sub(1), Sense::INTERNAL_TARGET_FAILURE);
        Self { segments: segments.into(), ..Response::from(sense).into() }
    }
}

impl From<Response> for Ended {
    /// Nothing was moved.
    fn from(response: Response) -> Self {
        Self {
            response,
            segments: 0,
            written: ByMethod::default(),
            terminated: false,
            dropped: false,
            partial: false,
            tokens: Vec::new(),
        }
    }
}

/// The drives of a job, by end.
type Tapes = BTreeMap<EndIndex, Arc<Mutex<TapeCopy>>>;

/// The ways of a job to its remote ends, by end.
pub(super) type Lanes = BTreeMap<EndIndex, Lane>;

/// The disks that a job writes, by end.
pub(super) type Disks = BTreeMap<EndIndex, Arc<Disk>>;

/// Ends that are open, and what has to be closed again.
#[derive(Default)]
pub(super) struct Opened {
    pub ends: Vec<End>,
    pub files: Vec<OwnedFd>,
    pub disks: Disks,
    pub tapes: BTreeMap<EndIndex, TapeCopy>,
}

/// Carries out a plan to its end, for the nexus that sent it.
pub async fn run(
    mut plan: Plan,
    nexus: Arc<Nexus>,
    means: &Means,
    progress: &Arc<Progress>,
    cancelled: &CancellationToken,
) -> Ended {
    if let Err(response) = means.leases.lease(&mut plan, &nexus, &means.snapshots, cancelled).await {
        return Ended { terminated: cancelled.is_cancelled(), ..response.into() };
    }
    // A mover has the files of a view, not the view.
    let leased = std::mem::take(&mut plan.leased);
    let moves = std::mem::take(&mut plan.moves);
    // Until the end their inactivity timeouts do not run.
    let in_use = std::mem::take(&mut plan.in_use);
    let deletes = std::mem::take(&mut plan.deletes);
    let (refused, planned) = (plan.refused.clone(), plan.notes.len() as u32);
    let mut ended = carry_out(plan, Arc::clone(&nexus), means, progress, cancelled).await;
    // What is BUSY has not begun, and comes again with the same tokens.
    if ended.response.status != Status::Busy {
        deletes.into_iter().filter_map(|index| in_use.get(index)).for_each(InUse::delete);
    }
    drop((in_use, leased));
    if let Some(sense) = refused.filter(|_| ended.response.status == Status::Good) {
        let begun = progress.segments.fetch_max(planned + 1, Ordering::Relaxed).max(planned + 1);
        ended = Ended { response: sense.into(), segments: begun.into(), ..ended };
    }
    // "… shall be processed before the copy operation is completed", whatever became of the others.
    for (segment, duty) in moves.into_iter().filter(|(segment, _)| u64::from(*segment) < ended.segments && !ended.terminated) {
        let nexus = Arc::clone(&nexus);
        let moved = spawn_blocking(move || duty.fulfil(&nexus, segment)).await;
        let moved = moved.unwrap_or_else(|_| Err(abort(segment, Sense::INTERNAL_TARGET_FAILURE)));
        if let (Err(sense), Status::Good) = (moved, ended.response.status) {
            ended.response = sense.into();
        }
    }
    ended
}

async fn carry_out(
    mut plan: Plan,
    nexus: Arc<Nexus>,
    means: &Means,
    progress: &Arc<Progress>,
    cancelled: &CancellationToken,
) -> Ended {
    let rods = std::mem::take(&mut plan.rods);
    let populated = match Populated::prepare(&mut plan, rods, &means.snapshots).await {
        Ok(populated) => populated,
        Err(response) => return response.into(),
    };
    let Populated { moments, returned, kept } = populated;
    let refused = plan.refused.is_some();
    let ended = move_data(plan, moments, Arc::clone(&nexus), &means.movers, progress, cancelled).await;
    drop(kept);
    // Nobody is told of the tokens of a list that ends with an error.
    if ended.response.status != Status::Good || refused {
        return ended;
    }
    match returned.into_iter().map(|rod| rod.token(nexus.id, &means.tokens)).collect::<Result<Vec<_>, _>>() {
        Ok(tokens) => Ended { tokens, ..ended },
        Err(sense) => Ended { response: sense.into(), ..ended },
    }
}

async fn move_data(
    mut plan: Plan,
    moments: Moments,
    nexus: Arc<Nexus>,
    movers: &Arc<Movers>,
    progress: &Arc<Progress>,
    cancelled: &CancellationToken,
) -> Ended {
    let _copying = match have_disks(&plan) {
        Ok(copying) => copying,
        Err(response) => return response.into(),
    };
    let id = movers.job_id();
    let (notes, duties) = (plan.notes.clone(), std::mem::take(&mut plan.duties));
    let starting = Arc::clone(movers);
    match spawn_blocking(move || start(plan, id, &starting)).await {
        Ok(Ok(Begun::Dispersed(prepared))) => prepared.run(progress, cancelled).await,
        Ok(Ok(Begun::Alone(started))) => {
            let Started { handle, disks, tapes, lanes, anew } = *started;
            let running = Running {
                id,
                nexus,
                handle,
                disks,
                tapes,
                lanes,
                notes,
                duties,
                moments,
                refusal: None,
                progress: Arc::clone(progress),
                grants: Grants::default(),
                told: (0, ByMethod::default()),
                doubted: false,
                anew,
                not_ended: None,
            };
            running.watch(cancelled).await
        }
        Ok(Err(response)) => response.into(),
        Err(error) => {
            warn!(%error, "a copy could not be started");
            Response::from(Sense::INTERNAL_TARGET_FAILURE).into()
        }
    }
}

/// The disks that take part, kept from being sanitized until the copy has ended.
fn have_disks(plan: &Plan) -> Result<Vec<Copying>, Response> {
    let disks = plan.ends.iter().zip(0..).filter_map(|(end, index)| match end {
        PlannedEnd::Source(disk) => Some((disk, EndIndex(index), CopyEnd::Source)),
        PlannedEnd::Destination(disk) => Some((disk, EndIndex(index), CopyEnd::Destination)),
        PlannedEnd::Tape(_)
        | PlannedEnd::Remote(_)
        | PlannedEnd::Null(_)
        | PlannedEnd::Rod(_)
        | PlannedEnd::Populated(_)
        | PlannedEnd::Zeros(_) => None,
    });
    let have =
        |(disk, index, end): (&Arc<Disk>, _, _)| disk.begin_copy().map_err(|sense| refused(plan, index, end, &sense.into()));
    disks.map(have).collect()
}

/// A job that a mover has taken, and what has to be closed after it.
struct Started {
    handle: JobHandle,
    disks: Disks,
    tapes: Tapes,
    lanes: Lanes,
    anew: Option<Box<Anew>>,
}

/// Who carries a plan out.
enum Begun {
    /// One mover, all of it.
    Alone(Box<Started>),
    /// Several, in pieces.
    Dispersed(Box<Prepared>),
}

/// Opens the ends and hands the job to a mover, unless several can share it. Blocks.
fn start(plan: Plan, id: JobId, movers: &Arc<Movers>) -> Result<Begun, Response> {
    if let Some(pieces) = disks::divide(&plan, movers) {
        return Prepared::of_disks(plan, pieces, movers).map(Box::new).map(Begun::Dispersed);
    }
    let count = u64::from(movers.settings().movers);
    let stream = if count > 1 { Stream::of(&plan) } else { None };
    // A mover on another host reaches what no file of ours is needed for, and logs in by itself.
    let far = if has_only_remote_ends(&plan) { movers.attached() } else { None };
    let mut lanes = Lanes::new();
    let mut opened = open(&plan, |index, unit| {
        let mut lane = Lane::new(unit);
        let end = if far.is_some() { Ok(lane.leave()) } else { lane.give() };
        lanes.insert(index, lane);
        end
    })?;
    if let Some((pieces, tape)) = stream.and_then(|stream| stream.divide(&mut opened, count)) {
        return Prepared::new(plan, opened, pieces, Some(tape), movers).map(Box::new).map(Begun::Dispersed);
    }
    if opened.files.len() > MAX_FILES {
        return Err(Sense::INSUFFICIENT_RESOURCES.into());
    }
    let twice = can_be_done_twice(&plan);
    let job = CopyJob {
        id,
        ends: opened.ends,
        steps: plan.steps,
        inline: plan.inline,
        buffer_bytes: BUFFER_BYTES,
        priority: movers.priority(plan.priority),
        bytes_per_second: movers.settings().job_bytes_per_second,
    };
    let anew = twice.then(|| Box::new(Anew::new(&job, movers)));
    let mover = far.map_or_else(|| movers.ensure(), Ok);
    let handle = mover.and_then(|mover| mover.begin(job, opened.files)).map_err(|error| {
        warn!(%error, "no mover takes the copy");
        Response::from(Sense::INTERNAL_TARGET_FAILURE)
    })?;
    let tapes = opened.tapes.into_iter().map(|(end, tape)| (end, Arc::new(Mutex::new(tape)))).collect();
    Ok(Begun::Alone(Box::new(Started { handle, disks: opened.disks, tapes, lanes, anew })))
}

pub(super) fn has_only_remote_ends(plan: &Plan) -> bool {
    let remote = |end: &PlannedEnd| matches!(end, PlannedEnd::Remote(_));
    plan.ends.iter().any(remote) && plan.ends.iter().all(|end| remote(end) || matches!(end, PlannedEnd::Null(_)))
}

/// Opens the ends; `remote` says how the remote ones are had.
pub(super) fn open(
    plan: &Plan,
    mut remote: impl FnMut(EndIndex, &Arc<RemoteUnit>) -> io::Result<LocalEnd>,
) -> Result<Opened, Response> {
    let mut opened = Opened::default();
    for (index, planned) in plan.ends.iter().enumerate() {
        let index = EndIndex(index as u16);
        let failed = |error: io::Error, end| {
            warn!(%error, "an end of a copy cannot be opened");
            refused(plan, index, end, &Sense::INTERNAL_TARGET_FAILURE.into())
        };
        let local = match planned {
            PlannedEnd::Source(disk) => {
                disk.volume().source(disk.block_length().0).map_err(|error| failed(error, CopyEnd::Source))?
            }
            PlannedEnd::Destination(disk) => {
                opened.disks.insert(index, Arc::clone(disk));
                disk.volume().destination(disk.block_length().0).map_err(|error| failed(error, CopyEnd::Destination))?
            }
            PlannedEnd::Tape(tape) => {
                let copy = tape.begin_copy().map_err(|response| match is_busy(&response) {
                    true => response,
                    false => refused(plan, index, CopyEnd::Destination, &response),
                })?;
                let local = copy.end().map_err(|error| failed(error, CopyEnd::Destination))?;
                opened.tapes.insert(index, copy);
                local
            }
            PlannedEnd::Remote(unit) => remote(index, unit).map_err(|error| failed(error, CopyEnd::Destination))?,
            PlannedEnd::Null(end) => LocalEnd { end: end.clone(), files: Vec::new() },
            PlannedEnd::Rod(rod) => rod.source().map_err(|error| failed(error, CopyEnd::Source))?,
            PlannedEnd::Populated(_) => return Err(Sense::INTERNAL_TARGET_FAILURE.into()),
            PlannedEnd::Zeros(len) => zeros(*len).map_err(|error| failed(error, CopyEnd::Source))?,
        };
        let first = opened.files.len() as u16;
        opened.ends.push(shifted(local.end, first));
        opened.files.extend(local.files);
    }
    Ok(opened)
}

/// THIRD PARTY DEVICE FAILURE in the first segment that names the end, on the side on which it does.
fn refused(plan: &Plan, end: EndIndex, side: CopyEnd, response: &Response) -> Response {
    let names = |step: &protocol::mover::Step| super::plan::side_of(step, end);
    let found = plan.steps.iter().find_map(|step| Some((step.segment, names(step)?)));
    let (segment, side) = found.unwrap_or((0, side));
    let notes = plan.notes.get(segment as usize).copied().unwrap_or_default();
    third_party(segment, &notes, side, response).into()
}

/// The end with its files where they stand among all files of the job.
pub(super) fn shifted(mut end: End, by: u16) -> End {
    let shift = |descriptor: &mut Descriptor| descriptor.0 += by;
    match &mut end {
        End::Raw { file, .. } => shift(file),
        End::View { live, copies, table, .. } => [live, copies, table].into_iter().for_each(shift),
        End::Cartridge { image, index, .. } => {
            shift(image);
            index.iter_mut().for_each(|index| shift(&mut index.file));
        }
        End::Remote(RemoteEnd { way: Way::Open { socket, .. }, .. }) => shift(socket),
        End::Remote(_) | End::NullBlock { .. } | End::NullStream => {}
    }
    end
}

/// What one job on one mover may write at this moment: of each disk one range.
#[derive(Default)]
pub(super) struct Grants(BTreeMap<EndIndex, WriteGrant>);

impl Grants {
    /// Waits until `range` of one of `disks` may be written.
    ///
    /// # Errors
    /// `EBADF` for an end that is none of them, `ECANCELED`, and what the disk gives.
    pub async fn ask(&mut self, disks: &Disks, end: EndIndex, range: ByteRange, cancelled: &CancellationToken) -> io::Result<()> {
        // The last one is given back by asking: it must not be held while a hold is waited for.
        self.give_back(end);
        let disk = disks.get(&end).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let grant = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            grant = disk.volume().grant(range) => grant?,
        };
        self.0.insert(end, grant);
        Ok(())
    }

    /// The mover does not write there any more.
    pub fn give_back(&mut self, end: EndIndex) {
        self.0.remove(&end);
    }
}

/// What a mover on another host wants to do with an end to which it has logged in.
///
/// # Errors
/// `EBADF` for an end that is none such, and as [`Lane::use_as`].
pub(super) fn use_session(lanes: &mut Lanes, end: EndIndex, initiator_name: String) -> io::Result<()> {
    lanes.get_mut(&end).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?.use_as(initiator_name)
}

/// Sessions that a process had that is gone.
async fn end_sessions(lanes: Lanes) {
    let ended = spawn_blocking(move || {
        for mut lane in lanes.into_values() {
            if let Err(error) = lane.reinstate() {
                warn!(?lane, %error, "what a mover had there cannot be seen to have ended");
            }
        }
    });
    if let Err(error) = ended.await {
        warn!(%error, "sessions with remote ends were not seen to");
    }
}

/// Those without a write cache promise that what is written stays.
pub(super) async fn synchronize(disks: Disks) -> io::Result<()> {
    let mut all = Ok(());
    for disk in disks.into_values().filter(|disk| !disk.write_cache()) {
        let synced = spawn_blocking(move || disk.volume().sync()).await;
        all = all.and(synced.map_err(io::Error::other).and_then(|synced| synced));
    }
    all
}

/// A job that was refused something because it is to stop has not failed: the answer came before the word.
pub(super) fn told_to_stop(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Fault(Fault { kind: FaultKind::Refused(libc::ECANCELED), .. }) => Outcome::Cancelled,
        outcome => outcome,
    }
}

/// A job on a mover.
struct Running {
    id: JobId,
    nexus: Arc<Nexus>,
    handle: JobHandle,
    disks: Disks,
    tapes: Tapes,
    lanes: Lanes,
    notes: Vec<Notes>,
    duties: BTreeMap<u32, Vec<Duty>>,
    moments: Moments,
    /// What a duty that was refused says.
    refusal: Option<Sense>,
    progress: Arc<Progress>,
    grants: Grants,
    /// Bytes read and written, as last told.
    told: (u64, ByMethod),
    /// A report of a tape was not borne out by its image.
    doubted: bool,
    /// When its mover dies.
    anew: Option<Box<Anew>>,
    /// A session of it that may still be there.
    not_ended: Option<Fault>,
}

impl Running {
    async fn watch(mut self, cancelled: &CancellationToken) -> Ended {
        let outcome = loop {
            match self.handle.event(cancelled).await {
                Event::Died if self.begin_anew(cancelled).await => {}
                Event::Died => break None,
                Event::Message(FromMover::Done { outcome, .. }) => break Some(told_to_stop(outcome)),
                Event::Message(message) => self.hear(message, cancelled).await,
            }
        };
        let closed = self.close(outcome.is_some()).await;
        let segments = u64::from(self.progress.segments.load(Ordering::Relaxed));
        let asked = cancelled.is_cancelled() || self.doubted;
        let outcome = outcome.filter(|outcome| asked || !matches!(outcome, Outcome::Cancelled));
        let terminated = matches!(outcome, Some(Outcome::Cancelled)) && !self.doubted;
        let dropped = matches!(outcome, Some(Outcome::Copied { dropped: true }));
        let response = match outcome {
            Some(outcome) => self.response(outcome, closed),
            None => self.abandoned(),
        };
        info!(job = self.id.0, segments, read = self.told.0, written = ?self.told.1, status = ?response.status, "copy ended");
        Ended { segments, written: self.told.1, terminated, dropped, ..Ended::from(response) }
    }

    /// The mover has died: another does all of it again, where that can be.
    async fn begin_anew(&mut self, cancelled: &CancellationToken) -> bool {
        let Some(mut anew) = self.anew.take().filter(|_| !cancelled.is_cancelled()) else { return false };
        let mut lanes = std::mem::take(&mut self.lanes);
        let begun = spawn_blocking(move || (anew.begin(&mut lanes), lanes, anew)).await;
        let Ok((begun, lanes, anew)) = begun else { return false };
        self.lanes = lanes;
        match begun {
            Ok(handle) => {
                (self.handle, self.anew, self.told) = (handle, Some(anew), (0, ByMethod::default()));
                self.progress.segments.store(0, Ordering::Relaxed);
                true
            }
            Err(error) => {
                warn!(job = self.id.0, %error, "a dead mover's copy does not begin anew");
                self.not_ended = anew.not_ended(&self.lanes, self.segment());
                false
            }
        }
    }

    async fn hear(&mut self, message: FromMover, cancelled: &CancellationToken) {
        self.progress.operations.fetch_add(1, Ordering::Relaxed);
        match message {
            FromMover::Ask { question, .. } => {
                let (answer, image) = match self.decide(question, cancelled).await {
                    Ok(None) => (Answer::Granted, None),
                    Ok(image) => (Answer::Append, image),
                    Err(error) => {
                        debug!(job = self.id.0, %error, "refused");
                        (Answer::Refused { errno: error.raw_os_error().unwrap_or(libc::EIO) }, None)
                    }
                };
                self.handle.tell_with(&ToMover::Answer { job: self.id, answer }, Vec::from_iter(image));
            }
            FromMover::GiveBack { end, .. } => self.grants.give_back(end),
            FromMover::Tape { end, report, .. } => {
                let applied = self.with_tape(end, move |tape| tape.apply(&report)).await;
                if let Err(error) = applied {
                    warn!(job = self.id.0, %error, "the mover's report of a tape is not borne out");
                    self.doubted = true;
                    self.handle.tell(&ToMover::Cancel { job: self.id });
                }
            }
            FromMover::Held { data, discarded, .. } => self.progress.hold(data, discarded),
            FromMover::Progress { segment, read, written, .. } => {
                let last = self.notes.len().saturating_sub(1) as u32;
                self.progress.segments.fetch_max(segment.min(last) + 1, Ordering::Relaxed);
                self.progress.written.store(written.total(), Ordering::Relaxed);
                self.handle.count(read.saturating_sub(self.told.0), written.since(self.told.1).total());
                self.told = (read, written);
            }
            FromMover::Hello { .. } | FromMover::Done { .. } | FromMover::Pong => {}
        }
    }

    /// What a mover may do; for an append the image is given.
    async fn decide(&mut self, question: Question, cancelled: &CancellationToken) -> io::Result<Option<OwnedFd>> {
        match question {
            Question::Grant { end, range } => self.grants.ask(&self.disks, end, range, cancelled).await.map(|()| None),
            Question::Segment { segment } => {
                if let Some((moment, prepared)) = self.moments.remove(&segment) {
                    moment.take(prepared, cancelled).await.map_err(|refusal| {
                        if cancelled.is_cancelled() {
                            return io::Error::from_raw_os_error(libc::ECANCELED);
                        }
                        self.refusal = Some(third_party(segment, &self.note(segment), CopyEnd::Source, &refusal));
                        io::Error::from_raw_os_error(libc::EACCES)
                    })?;
                }
                let (duties, nexus) = (self.duties.remove(&segment).unwrap_or_default(), Arc::clone(&self.nexus));
                let done = spawn_blocking(move || duties.iter().try_for_each(|duty| duty.fulfil(&nexus, segment))).await;
                done.map_err(io::Error::other)?.map_err(|sense| {
                    self.refusal = Some(sense);
                    io::Error::from_raw_os_error(libc::EACCES)
                })?;
                Ok(None)
            }
            Question::Append { end, at } => self.with_tape(end, move |tape| tape.append(at)).await.map(Some),
            Question::Session { end, initiator_name } => use_session(&mut self.lanes, end, initiator_name).map(|()| None),
        }
    }

    async fn with_tape<R: Send + 'static>(
        &self,
        end: EndIndex,
        run: impl FnOnce(&mut TapeCopy) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let tape = self.tapes.get(&end).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        spawn_blocking(move || run(&mut tape.lock().expect("no holder panics"))).await.map_err(io::Error::other)?
    }

    /// Nothing moves any more: grants end, disks without a write cache are synchronized, drives go back, synchronized or recovered. Of
    /// a process that has ended that is made sure at remote ends first.
    async fn close(&mut self, orderly: bool) -> io::Result<()> {
        self.grants = Grants::default();
        if !orderly {
            end_sessions(std::mem::take(&mut self.lanes)).await;
        }
        let disks = std::mem::take(&mut self.disks);
        let mut closed = if orderly { synchronize(disks).await } else { Ok(()) };
        for (_, tape) in std::mem::take(&mut self.tapes) {
            let tape = Arc::into_inner(tape).expect("only the job has its drives").into_inner().expect("no holder panics");
            let ended = spawn_blocking(move || if orderly { tape.finish() } else { tape.recover() }).await;
            closed = closed.and(ended.map_err(io::Error::other).and_then(|ended| ended));
        }
        closed
    }

    fn response(&self, outcome: Outcome, closed: io::Result<()>) -> Response {
        if self.doubted {
            return abort(self.segment(), Sense::INTERNAL_TARGET_FAILURE).into();
        }
        match (outcome, closed) {
            (Outcome::Copied { .. }, Ok(())) => Response::good(),
            // Data may be where it should be and still be lost with the power: that is no success.
            (Outcome::Copied { .. }, Err(error)) => {
                warn!(job = self.id.0, %error, "not synchronized after a copy");
                let segment = self.notes.len().saturating_sub(1) as u32;
                third_party(segment, &self.note(segment), CopyEnd::Destination, &Sense::WRITE_ERROR.into()).into()
            }
            (Outcome::Fault(Fault { kind: FaultKind::Refused(_), .. }), _) if self.refusal.is_some() => {
                self.refusal.clone().map_or_else(Response::good, Response::from)
            }
            (Outcome::Fault(fault), _) => of_fault(&fault, &self.note(fault.segment)).into(),
            (Outcome::Cancelled, _) => abort(self.segment(), Sense::COMMANDS_CLEARED_BY_DEVICE_SERVER).into(),
        }
    }

    /// The process has ended in the middle, or given up though nobody told it to.
    fn abandoned(&self) -> Response {
        warn!(job = self.id.0, segment = self.segment(), "the mover has left in the middle of a copy");
        match &self.not_ended {
            Some(fault) => of_fault(fault, &self.note(fault.segment)).into(),
            None => abort(self.segment(), Sense::INTERNAL_TARGET_FAILURE).into(),
        }
    }

    fn segment(&self) -> u32 {
        self.progress.segments.load(Ordering::Relaxed).saturating_sub(1)
    }

    fn note(&self, segment: u32) -> Notes {
        self.notes.get(segment as usize).copied().unwrap_or_default()
    }
}
