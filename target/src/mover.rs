//! The mover process: started, spoken to, watched, started again.
//!
//! One process at a time serves all jobs. Its end is known from the process itself: the socket only says that something is wrong,
//! then the process is killed and waited for, and only when the kernel has reaped it do its jobs hear of it. A thread of it may be
//! inside a write until then. It is a child that nobody else waits for, so waiting for it is as certain as a pidfd.
//!
//! Knows nothing of SCSI, disks or tapes; [`crate::xcopy`] does. Messages: [`protocol::mover`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use protocol::control::MoverStatus;
use protocol::mover::{CopyJob, FromMover, JobId, MAX_FILES, ToMover, VERSION, frame};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

/// A mover that has not answered by then is none.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A process that ends sooner is not started again before there is a job for it: it would only end again.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// Messages of one job that wait for it to be looked after; then the mover waits.
const MESSAGES: usize = 64;

/// Name of the mover's program.
const PROGRAM: &str = "offhost-mover";

/// Starts the mover and keeps one alive.
#[derive(Debug)]
pub struct Movers {
    program: PathBuf,
    current: Mutex<Option<Arc<Mover>>>,
    next_job: AtomicU64,
}

impl Movers {
    /// `program`, or the mover beside this program. Starts nothing yet.
    #[must_use]
    pub fn new(program: Option<PathBuf>) -> Arc<Self> {
        let program = program.unwrap_or_else(beside_this_program);
        Arc::new(Self { program, current: Mutex::default(), next_job: AtomicU64::new(1) })
    }

    /// A mover that lives, started if need be. Blocks.
    ///
    /// # Errors
    /// When it cannot be started, or is of another version.
    pub fn ensure(self: &Arc<Self>) -> io::Result<Arc<Mover>> {
        let mut current = self.current();
        if let Some(mover) = current.as_ref().filter(|mover| mover.alive()) {
            return Ok(Arc::clone(mover));
        }
        let mover = Mover::start(self)?;
        *current = Some(Arc::clone(&mover));
        Ok(mover)
    }

    /// A name for a job.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        JobId(self.next_job.fetch_add(1, Ordering::Relaxed))
    }

    /// What there is to say of the movers.
    #[must_use]
    pub fn status(&self) -> Vec<MoverStatus> {
        self.current().iter().filter(|mover| mover.alive()).map(|mover| mover.status()).collect()
    }

    /// Ends the mover; jobs that run on it fail. Blocks until the process has ended.
    pub fn end(&self) {
        let mover = self.current().take();
        if let Some(mover) = mover {
            mover.disconnect();
            while mover.alive() {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Mover>>> {
        self.current.lock().expect("no holder panics")
    }
}

/// Programs that are built or installed together lie together; else it is searched for.
fn beside_this_program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(PROGRAM));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}

/// What a job hears.
#[derive(Debug)]
pub enum Event {
    /// The mover said so.
    Message(FromMover),
    /// The process has ended: nothing of the job moves any more.
    Died,
}

/// One mover process.
#[derive(Debug)]
pub struct Mover {
    pid: u32,
    socket: Mutex<UnixStream>,
    /// `None` once the process has ended.
    jobs: Mutex<Option<BTreeMap<JobId, mpsc::Sender<Event>>>>,
    ended_jobs: AtomicU64,
    bytes_moved: AtomicU64,
    bytes_read: AtomicU64,
}

impl Mover {
    fn start(movers: &Arc<Movers>) -> io::Result<Arc<Self>> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = spawn(&movers.program, theirs.into())?;
        let pid = child.id();
        let greeted = greet(&ours);
        if let Err(error) = &greeted {
            error!(%error, program = %movers.program.display(), "the mover did not answer");
            reap(&mut child);
        }
        greeted?;
        let reader = ours.try_clone()?;
        let mover = Arc::new(Self {
            pid,
            socket: Mutex::new(ours),
            jobs: Mutex::new(Some(BTreeMap::new())),
            ended_jobs: AtomicU64::new(0),
            bytes_moved: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
        });
        info!(pid, program = %movers.program.display(), "mover started");
        let (watched, movers) = (Arc::clone(&mover), Arc::downgrade(movers));
        thread::Builder::new().name("mover".into()).spawn(move || {
            let started = Instant::now();
            watched.watch(reader, &mut child);
            if let Some(movers) = movers.upgrade().filter(|_| started.elapsed() >= SHORT_LIFE) {
                let wanted = movers.current().as_ref().is_some_and(|current| Arc::ptr_eq(current, &watched));
                if wanted && let Err(error) = movers.ensure() {
                    error!(%error, "the mover could not be started again");
                }
            }
        })?;
        Ok(mover)
    }

    /// Process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The process has not been waited for yet.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.jobs().is_some()
    }

    /// Gives it a job, with the files that its ends name. Blocks while the socket is full.
    ///
    /// # Errors
    /// When the process is gone, or the job does not fit into a message.
    pub fn begin(self: &Arc<Self>, job: CopyJob, files: &[OwnedFd]) -> io::Result<JobHandle> {
        if files.len() > MAX_FILES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more files than travel beside one message"));
        }
        let id = job.id;
        let (events, incoming) = mpsc::channel(MESSAGES);
        self.jobs().as_mut().ok_or(io::ErrorKind::BrokenPipe)?.insert(id, events);
        let handle = JobHandle { mover: Arc::clone(self), id, events: incoming };
        let sent = self.send(&ToMover::Job { job, files: files.len() as u16 }, files);
        if let Err(error) = sent {
            // Half a message may be out there: this mover is of no use any more.
            self.disconnect();
            return Err(error);
        }
        Ok(handle)
    }

    fn send(&self, message: &ToMover, files: &[OwnedFd]) -> io::Result<()> {
        let bytes = frame::encode(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut socket = self.socket.lock().expect("no holder panics");
        let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        socket.write_all(&bytes[sent..])
    }

    fn disconnect(&self) {
        let _ = self.socket.lock().expect("no holder panics").shutdown(std::net::Shutdown::Both);
    }

    /// Hands on what the process says, until it has ended.
    fn watch(&self, mut reader: UnixStream, child: &mut Child) {
        match self.read_all(&mut reader) {
            Ok(()) => debug!(pid = self.pid, "the mover has closed its socket"),
            Err(error) => error!(pid = self.pid, %error, "the mover broke the protocol"),
        }
        reap(child);
        let jobs = self.jobs().take().unwrap_or_default();
        warn!(pid = self.pid, jobs = jobs.len(), "mover ended");
        for events in jobs.into_values() {
            let _ = events.blocking_send(Event::Died);
        }
    }

    fn read_all(&self, reader: &mut UnixStream) -> io::Result<()> {
        while let Some(message) = receive(reader)? {
            let job = match &message {
                FromMover::Hello { .. } => return Err(io::Error::new(io::ErrorKind::InvalidData, "a second Hello")),
                FromMover::Ask { job, .. }
                | FromMover::GiveBack { job, .. }
                | FromMover::Tape { job, .. }
                | FromMover::Progress { job, .. }
                | FromMover::Done { job, .. } => *job,
            };
            let done = matches!(message, FromMover::Done { .. });
            let events = match (self.jobs().as_mut(), done) {
                (Some(jobs), true) => jobs.remove(&job),
                (Some(jobs), false) => jobs.get(&job).cloned(),
                (None, _) => None,
            };
            self.ended_jobs.fetch_add(u64::from(done), Ordering::Relaxed);
            if let Some(events) = events {
                // A job that nobody looks after any more is told so by its own task.
                let _ = events.blocking_send(Event::Message(message));
            }
        }
        Ok(())
    }

    fn status(&self) -> MoverStatus {
        MoverStatus {
            pid: self.pid,
            busy: self.jobs().as_ref().is_some_and(|jobs| !jobs.is_empty()),
            jobs: self.ended_jobs.load(Ordering::Relaxed),
            bytes_moved: self.bytes_moved.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Option<BTreeMap<JobId, mpsc::Sender<Event>>>> {
        self.jobs.lock().expect("no holder panics")
    }
}

/// A job on a mover.
#[derive(Debug)]
pub struct JobHandle {
    mover: Arc<Mover>,
    id: JobId,
    events: mpsc::Receiver<Event>,
}

impl JobHandle {
    /// What happens next; after `Done` or [`Event::Died`] nothing does.
    pub async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap_or(Event::Died)
    }

    /// Says something to the job. A mover that is gone is heard of as an event.
    pub fn tell(&self, message: &ToMover) {
        if let Err(error) = self.mover.send(message, &[]) {
            debug!(job = self.id.0, %error, "the mover is gone");
            self.mover.disconnect();
        }
    }

    /// Counts what the job moved since the last time.
    pub fn count(&self, read: u64, written: u64) {
        self.mover.bytes_read.fetch_add(read, Ordering::Relaxed);
        self.mover.bytes_moved.fetch_add(written, Ordering::Relaxed);
    }
}

/// The socket becomes standard input: so no other child that is started meanwhile gets it.
fn spawn(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    Command::new(program)
        .args([OsStr::new("--socket-fd"), OsStr::new("0")])
        .stdin(socket)
        .stdout(Stdio::null())
        // A group of its own: a signal for the terminal is the target's to answer.
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))
}

fn greet(mut socket: &UnixStream) -> io::Result<()> {
    socket.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let hello = frame::encode(&ToMover::Hello { version: VERSION }).map_err(io::Error::other)?;
    socket.write_all(&hello)?;
    match receive(&mut socket)? {
        Some(FromMover::Hello { version: VERSION, .. }) => socket.set_read_timeout(None),
        Some(FromMover::Hello { version, .. }) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("the mover speaks version {version}, not {VERSION}")))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the mover did not begin with Hello")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `None` at the end of the stream between two messages.
fn receive(reader: &mut impl Read) -> io::Result<Option<FromMover>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut prefix = [0; frame::PREFIX];
    match reader.read_exact(&mut prefix) {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => return Ok(None),
        read => read?,
    }
    let mut message = vec![0; frame::length(prefix).map_err(invalid)?];
    match reader.read_exact(&mut message) {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => return Ok(None),
        read => read?,
    }
    frame::decode(&message).map(Some).map_err(invalid)
}

/// Ends the process and waits until the kernel says that it has ended.
fn reap(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    match child.wait() {
        Ok(status) => debug!(pid = child.id(), %status, "mover reaped"),
        Err(error) => error!(pid = child.id(), %error, "the mover cannot be waited for"),
    }
}
