//! One mover process: started or attached, spoken to, watched.
//!
//! It serves any number of jobs. Its end is known from the process itself: the socket only says that something is wrong,
//! then the process is killed and waited for, and only when the kernel has reaped it do its jobs hear of it. A thread of it may be
//! inside a write until then. It is a child that nobody else waits for, so waiting for it is as certain as a pidfd. Of one on another host the end of its connection
//! is known: when its system closed it, the process has ended; when only the network is silent, it is given the time in which it
//! gives itself up.
//!
//! Believes nothing that it says but what the sender of a job checks. Messages: [`protocol::mover`].

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::MoverStatus;
use protocol::mover::{CopyJob, FromMover, JobId, MAX_FILES, ToMover, VERSION, frame};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Movers;
use super::attach::CUT_OFF;
use super::socket::{Outgoing, receive};

/// A mover that has not answered by then is none.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A process that ends sooner is not started again before there is a job for it: it would only end again.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// A job that was told to stop may still have to synchronize what it wrote; longer than this it does not take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// A mover of which a job hears nothing for so long is asked to say something; one that has no job may be silent, and costs no wake-ups.
const SILENT: Duration = Duration::from_secs(4);
/// How often before it is given up.
const ASKED: u32 = 3;
/// Messages of one job that wait for it to be looked after; then the mover waits.
const MESSAGES: usize = 64;

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
    /// What it calls itself, and where it is; absent for one of this host.
    far: Option<(String, SocketAddr)>,
    socket: UnixStream,
    outgoing: Outgoing,
    /// `None` once the process has ended.
    jobs: Mutex<Option<BTreeMap<JobId, mpsc::Sender<Event>>>>,
    /// Messages that came from it.
    heard: AtomicU64,
    ended_jobs: AtomicU64,
    bytes_moved: AtomicU64,
    bytes_read: AtomicU64,
    memory_limit: u64,
    /// It gets no more jobs, and ends with its last.
    retired: AtomicBool,
}

impl Mover {
    pub(super) fn start(movers: &Arc<Movers>, bytes_per_second: Option<u64>) -> io::Result<Arc<Self>> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = spawn(&movers.program, theirs.into())?;
        let pid = child.id();
        let greeted = greet(&ours);
        if let Err(error) = &greeted {
            error!(%error, program = %movers.program.display(), "the mover did not answer");
            reap(&mut child);
        }
        let memory_limit = greeted?;
        let mover = Self::of(pid, None, ours, memory_limit)?;
        let reader = mover.socket.try_clone()?;
        mover.tell(&ToMover::Throttle { job: None, bytes_per_second });
        info!(pid, program = %movers.program.display(), "mover started");
        let (watched, movers) = (Arc::clone(&mover), Arc::downgrade(movers));
        thread::Builder::new().name("mover".into()).spawn(move || {
            let started = Instant::now();
            watched.watch(reader, || reap(&mut child));
            if let Some(movers) = movers.upgrade().filter(|_| started.elapsed() >= SHORT_LIFE)
                && let Err(error) = movers.replace(&watched)
            {
                error!(%error, "the mover could not be started again");
            }
        })?;
        Ok(mover)
    }

    /// A mover on another host, at the near end of its connection. `closed` is set when its own system has closed that.
    pub(super) fn attach(socket: UnixStream, name: String, peer: SocketAddr, closed: Arc<AtomicBool>) -> io::Result<Arc<Self>> {
        let memory_limit = greet(&socket)?;
        let mover = Self::of(0, Some((name, peer)), socket, memory_limit)?;
        let (watched, reader) = (Arc::clone(&mover), mover.socket.try_clone()?);
        thread::Builder::new().name("mover".into()).spawn(move || {
            watched.watch(reader, || {
                let closed = closed.load(Ordering::Relaxed);
                watched.disconnect();
                if !closed {
                    warn!(name = watched.name(), wait = ?CUT_OFF, "a mover is cut off: it is given the time to notice");
                    thread::sleep(CUT_OFF);
                }
            });
        })?;
        Ok(mover)
    }

    fn of(pid: u32, far: Option<(String, SocketAddr)>, socket: UnixStream, memory_limit: u64) -> io::Result<Arc<Self>> {
        let outgoing = Outgoing::start(socket.try_clone()?)?;
        Ok(Arc::new(Self {
            pid,
            far,
            socket,
            outgoing,
            jobs: Mutex::new(Some(BTreeMap::new())),
            heard: AtomicU64::new(0),
            ended_jobs: AtomicU64::new(0),
            bytes_moved: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            memory_limit,
            retired: AtomicBool::new(false),
        }))
    }

    /// What a mover on another host calls itself.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.far.as_ref().map(|(name, _)| name.as_str())
    }

    /// Its name or its process id, for the log.
    #[must_use]
    pub fn label(&self) -> String {
        self.name().map_or_else(|| self.pid.to_string(), str::to_owned)
    }

    /// Process id; 0 for one on another host.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The process has not been waited for yet.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.jobs().is_some()
    }

    /// Jobs that run on it.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs().as_ref().map_or(0, BTreeMap::len)
    }

    /// It gets no more jobs: it ends when it has none.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        if self.job_count() == 0 {
            self.disconnect();
        }
    }

    /// Says something; a mover that is gone is heard of otherwise.
    pub(super) fn tell(&self, message: &ToMover) {
        self.tell_with(message, Vec::new());
    }

    fn tell_with(&self, message: &ToMover, files: Vec<OwnedFd>) {
        if let Err(error) = self.outgoing.send(message, files) {
            debug!(pid = self.pid, %error, "the mover is gone");
            self.disconnect();
        }
    }

    /// Says something to each of its jobs.
    pub(super) fn tell_jobs(&self, message: impl Fn(JobId) -> ToMover) {
        let jobs: Vec<_> = self.jobs().iter().flat_map(BTreeMap::keys).copied().collect();
        jobs.into_iter().for_each(|job| self.tell(&message(job)));
    }

    /// Gives it a job, with the files that its ends name.
    ///
    /// # Errors
    /// When the process is gone, or the job does not fit into a message.
    pub fn begin(self: &Arc<Self>, job: CopyJob, files: Vec<OwnedFd>) -> io::Result<JobHandle> {
        if files.len() > MAX_FILES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more files than travel beside one message"));
        }
        let id = job.id;
        let (events, incoming) = mpsc::channel(MESSAGES);
        self.jobs().as_mut().ok_or(io::ErrorKind::BrokenPipe)?.insert(id, events);
        let mover = Arc::clone(self);
        let mut handle = JobHandle { mover, id, events: incoming, stop_by: None, over: false, heard: 0, asked: 0 };
        let sent = self.outgoing.send(&ToMover::Job { job, files: files.len() as u16 }, files);
        if let Err(error) = sent {
            self.disconnect();
            handle.over = true;
            return Err(error);
        }
        Ok(handle)
    }

    pub(super) fn disconnect(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Hands on what the process says, until it has ended, which `wait` makes sure of.
    fn watch(&self, mut reader: UnixStream, wait: impl FnOnce()) {
        match self.read_all(&mut reader) {
            Ok(()) => debug!(pid = self.pid, "the mover has closed its socket"),
            Err(error) => error!(pid = self.pid, %error, "the mover broke the protocol"),
        }
        wait();
        let jobs = self.jobs().take().unwrap_or_default();
        warn!(pid = self.pid, name = self.name(), jobs = jobs.len(), "mover ended");
        for events in jobs.into_values() {
            let _ = events.blocking_send(Event::Died);
        }
    }

    fn read_all(&self, reader: &mut UnixStream) -> io::Result<()> {
        while let Some(message) = receive(reader)? {
            self.heard.fetch_add(1, Ordering::Relaxed);
            let job = match &message {
                FromMover::Hello { .. } => return Err(io::Error::new(io::ErrorKind::InvalidData, "a second Hello")),
                FromMover::Pong => continue,
                FromMover::Ask { job, .. }
                | FromMover::GiveBack { job, .. }
                | FromMover::Tape { job, .. }
                | FromMover::Held { job, .. }
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
            if done && self.retired.load(Ordering::Relaxed) && self.job_count() == 0 {
                self.disconnect();
            }
        }
        Ok(())
    }

    pub(super) fn status(&self) -> MoverStatus {
        MoverStatus {
            pid: self.pid,
            name: self.name().map(str::to_owned),
            address: self.far.as_ref().map(|(_, peer)| *peer),
            busy: self.jobs().as_ref().is_some_and(|jobs| !jobs.is_empty()),
            jobs: self.ended_jobs.load(Ordering::Relaxed),
            bytes_moved: self.bytes_moved.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            memory: if self.far.is_none() { resident(self.pid) } else { 0 },
            memory_limit: self.memory_limit,
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
    /// Until when the job has to end, since it was told to.
    stop_by: Option<Instant>,
    /// Nothing of it moves any more.
    over: bool,
    /// [`Mover::heard`] when that was last looked at.
    heard: u64,
    /// Times that the mover was asked to say something since it last did.
    asked: u32,
}

impl Drop for JobHandle {
    /// Whoever looked after the job is gone, and with it what the job may write. A mover cannot be told so in time: its process ends, and
    /// other jobs of it with it. Blocks until the kernel has reaped it.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        error!(job = self.id.0, pid = self.mover.pid, "nobody looks after a copy any more: its mover is ended");
        // Else the mover's thread might wait for somebody to take what it hands on.
        self.events.close();
        self.mover.disconnect();
        while self.mover.alive() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl JobHandle {
    /// Its name.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// What happens next; after `Done` or [`Event::Died`] nothing does. Once `cancelled`, the mover is told to stop the job, and is
    /// ended, with all its jobs, when it does not.
    pub async fn event(&mut self, cancelled: &CancellationToken) -> Event {
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let event = event.unwrap_or(Event::Died);
                    self.over |= matches!(event, Event::Died | Event::Message(FromMover::Done { .. }));
                    self.asked = 0;
                    return event;
                }
                () = sleep(SILENT) => self.mind_silence(),
                () = cancelled.cancelled(), if self.stop_by.is_none() => {
                    info!(job = self.id.0, "copy is stopped");
                    self.stop_by = Some(Instant::now() + STOP_TIMEOUT);
                    self.tell(&ToMover::Cancel { job: self.id });
                }
                () = sleep_until(self.stop_by.unwrap_or_else(Instant::now).into()), if self.stop_by.is_some() => {
                    error!(job = self.id.0, pid = self.mover.pid, "the mover does not stop the job: it is ended");
                    self.stop_by = Some(Instant::now() + STOP_TIMEOUT);
                    self.mover.disconnect();
                }
            }
        }
    }

    /// Periods are counted and not the time: whatever stops this process is not the mover's silence.
    fn mind_silence(&mut self) {
        let heard = self.mover.heard.load(Ordering::Relaxed);
        if heard != self.heard {
            (self.heard, self.asked) = (heard, 0);
        }
        self.asked += 1;
        if self.asked <= ASKED {
            self.mover.tell(&ToMover::Ping);
        } else if self.asked == ASKED + 1 {
            error!(pid = self.mover.pid, name = self.mover.name(), "the mover is stuck: it is ended");
            self.mover.disconnect();
        }
    }

    /// Says something to the job. A mover that is gone is heard of as an event.
    pub fn tell(&self, message: &ToMover) {
        self.mover.tell(message);
    }

    /// As [`JobHandle::tell`], with files beside the message.
    pub fn tell_with(&self, message: &ToMover, files: Vec<OwnedFd>) {
        self.mover.tell_with(message, files);
    }

    /// Counts what the job moved since the last time.
    pub fn count(&self, read: u64, written: u64) {
        self.mover.bytes_read.fetch_add(read, Ordering::Relaxed);
        self.mover.bytes_moved.fetch_add(written, Ordering::Relaxed);
    }
}

/// Bytes of memory that a process has at this moment; 0 when it does not say.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// The log is the process's, and so is its form.
static LOG_AS_JSON: AtomicBool = AtomicBool::new(false);

/// Movers started from now on log as JSON: they write where this process does.
pub fn log_as_json() {
    LOG_AS_JSON.store(true, Ordering::Relaxed);
}

/// The socket becomes standard input: so no other child that is started meanwhile gets it.
fn spawn(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    Command::new(program)
        .args(["--socket-fd", "0"])
        .args(LOG_AS_JSON.load(Ordering::Relaxed).then_some("--log-json"))
        .stdin(socket)
        .stdout(Stdio::null())
        // A group of its own: a signal for the terminal is the target's to answer.
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))
}

/// Gives the memory that the process takes at most.
fn greet(mut socket: &UnixStream) -> io::Result<u64> {
    socket.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let hello = frame::encode(&ToMover::Hello { version: VERSION }).map_err(io::Error::other)?;
    socket.write_all(&hello)?;
    match receive(&mut socket)? {
        Some(FromMover::Hello { version: VERSION, memory_limit, .. }) => {
            socket.set_read_timeout(None)?;
            Ok(memory_limit)
        }
        Some(FromMover::Hello { version, .. }) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("the mover speaks version {version}, not {VERSION}")))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the mover did not begin with Hello")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
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
