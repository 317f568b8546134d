//! The mover process: one socket to the target, a thread for each job, and nothing it could open.
//!
//! It ends when the target's end of the socket is closed, with whatever its jobs were doing: a target that starts anew waits for
//! the files it had passed on. Follows the order in [`protocol::mover`].

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use protocol::cartridge::report::TapeReport;
use protocol::mover::{
    Answer, ByMethod, CopyJob, EndIndex, FaultKind, FromMover, JobId, MAX_FILES, Outcome, Question, ToMover, VERSION, frame,
};
use tracing::{debug, info, warn};

use super::cage::MEMORY_LIMIT;
use super::credentials::Credentials;
use super::job::{BUFFER_LIMIT, Control};
use super::link::Link;
use super::run;
use super::throttle::Throttle;
use crate::sys;

/// A target never has more jobs run at once on one mover.
pub const MAX_JOBS: usize = 8;

/// Serves a target until it closes the socket. `credentials` are there on another host only.
///
/// # Errors
/// What the socket gives, and `InvalidData` for a target of another version or one that breaks the protocol.
pub fn serve(socket: UnixStream, credentials: Credentials) -> io::Result<()> {
    let credentials = Arc::new(credentials);
    let sender = Arc::new(Mutex::new(socket.try_clone()?));
    let mut incoming = Incoming { socket, files: VecDeque::new() };
    match incoming.next()? {
        Some(ToMover::Hello { version: VERSION }) => {}
        Some(ToMover::Hello { version }) => return Err(broken(&format!("the target speaks version {version}, not {VERSION}"))),
        Some(_) => return Err(broken("the target did not begin with Hello")),
        None => return Ok(()),
    }
    send(&sender, &FromMover::Hello { version: VERSION, buffer_limit: BUFFER_LIMIT, memory_limit: MEMORY_LIMIT })?;
    let throttle = Arc::new(Throttle::new(None, Instant::now()));
    let jobs = Arc::new(Mutex::new(BTreeMap::new()));
    while let Some(message) = incoming.next()? {
        match message {
            ToMover::Hello { .. } => return Err(broken("a second Hello")),
            ToMover::Job { job, files } => {
                let files = incoming.take(files)?;
                let control = Control::with(job.bytes_per_second, &throttle, &credentials);
                begin(job, files, control, &jobs, &sender)?;
            }
            // A job that has just ended is not missed.
            ToMover::Answer { job, answer } => {
                let answer = match answer {
                    Answer::Granted => Ok(None),
                    Answer::Append => Ok(incoming.take(1)?.pop()),
                    Answer::Refused { errno } => Err(FaultKind::Refused(errno)),
                };
                with(&jobs, job, |running| {
                    let _ = running.answers.send(answer);
                });
            }
            ToMover::Throttle { job: None, bytes_per_second } => throttle.set(bytes_per_second, Instant::now()),
            ToMover::Throttle { job: Some(job), bytes_per_second } => with(&jobs, job, |running| {
                running.control.throttle.set(bytes_per_second, Instant::now());
            }),
            ToMover::Cancel { job } => with(&jobs, job, |running| {
                running.control.cancelled.store(true, Ordering::Relaxed);
                // Wakes one that waits for an answer.
                let _ = running.answers.send(Err(FaultKind::Refused(libc::ECANCELED)));
            }),
            ToMover::Ping => send(&sender, &FromMover::Pong)?,
        }
    }
    Ok(())
}

/// What a question came to, and the file beside it.
type Answered = Result<Option<File>, FaultKind>;

struct Running {
    answers: Sender<Answered>,
    control: Arc<Control>,
}

type Jobs = Arc<Mutex<BTreeMap<JobId, Running>>>;

fn with(jobs: &Jobs, job: JobId, act: impl FnOnce(&Running)) {
    if let Some(running) = jobs.lock().expect("no holder panics").get(&job) {
        act(running);
    }
}

fn begin(job: CopyJob, files: Vec<File>, control: Arc<Control>, jobs: &Jobs, sender: &Arc<Mutex<UnixStream>>) -> io::Result<()> {
    let (answers, answered) = channel();
    let id = job.id;
    {
        let mut jobs = jobs.lock().expect("no holder panics");
        if jobs.len() >= MAX_JOBS {
            return Err(broken("too many jobs at once"));
        }
        if jobs.insert(id, Running { answers, control: Arc::clone(&control) }).is_some() {
            return Err(broken("two jobs with one name"));
        }
    }
    let (jobs, sender) = (Arc::clone(jobs), Arc::clone(sender));
    info!(job = id.0, segments = job.steps.len(), ends = job.ends.len(), limit_bytes = BUFFER_LIMIT, "job begins");
    thread::Builder::new().name(format!("job-{}", id.0)).spawn(move || {
        let guard = EndWithMe;
        let link = SocketLink { job: id, sender: Arc::clone(&sender), answers: Mutex::new(answered) };
        let outcome = run(job, &files, &link, control);
        // A destination's file must be closed before the target hears that nothing is touched any more.
        drop(files);
        info!(job = id.0, ?outcome, "job ends");
        jobs.lock().expect("no holder panics").remove(&id);
        done(&sender, id, outcome);
        std::mem::forget(guard);
    })?;
    Ok(())
}

fn done(sender: &Mutex<UnixStream>, job: JobId, outcome: Outcome) {
    if let Err(error) = send(sender, &FromMover::Done { job, outcome }) {
        warn!(%error, "the target is gone");
    }
}

/// A job that panics takes the process with it: only so does the target know that nothing moves any more.
struct EndWithMe;

impl Drop for EndWithMe {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// A job's way to the target.
struct SocketLink {
    job: JobId,
    sender: Arc<Mutex<UnixStream>>,
    answers: Mutex<Receiver<Answered>>,
}

impl SocketLink {
    /// Reports are not answered; when the target is gone this process ends anyway.
    fn tell(&self, message: &FromMover) {
        if let Err(error) = send(&self.sender, message) {
            debug!(%error, "the target is gone");
        }
    }
}

impl Link for SocketLink {
    fn ask(&self, question: Question) -> Answered {
        send(&self.sender, &FromMover::Ask { job: self.job, question }).map_err(|_| FaultKind::Refused(libc::EPIPE))?;
        self.answers.lock().expect("no holder panics").recv().map_err(|_| FaultKind::Refused(libc::EPIPE))?
    }

    fn give_back(&self, end: EndIndex) {
        self.tell(&FromMover::GiveBack { job: self.job, end });
    }

    fn tape(&self, end: EndIndex, report: TapeReport) {
        self.tell(&FromMover::Tape { job: self.job, end, report });
    }

    fn held(&self, data: Vec<u8>, discarded: bool) {
        self.tell(&FromMover::Held { job: self.job, data, discarded });
    }

    fn progress(&self, segment: u32, read: u64, written: ByMethod) {
        self.tell(&FromMover::Progress { job: self.job, segment, read, written });
    }
}

fn send(sender: &Mutex<UnixStream>, message: &FromMover) -> io::Result<()> {
    let bytes = frame::encode(message).map_err(io::Error::other)?;
    sender.lock().expect("no holder panics").write_all(&bytes)
}

/// Messages and the files beside them.
struct Incoming {
    socket: UnixStream,
    files: VecDeque<OwnedFd>,
}

impl Incoming {
    /// `None` when the target is gone between two messages.
    fn next(&mut self) -> io::Result<Option<ToMover>> {
        let mut prefix = [0; frame::PREFIX];
        match self.fill(&mut prefix)? {
            0 => return Ok(None),
            frame::PREFIX => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let mut message = vec![0; frame::length(prefix).map_err(invalid)?];
        if self.fill(&mut message)? < message.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frame::decode(&message).map(Some).map_err(invalid)
    }

    fn fill(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let mut files = Vec::new();
            match sys::receive(&self.socket, &mut into[done..], &mut files)? {
                0 => break,
                read => done += read,
            }
            self.files.extend(files);
            if self.files.len() > MAX_FILES {
                return Err(broken("files that no job has asked for"));
            }
        }
        Ok(done)
    }

    fn take(&mut self, count: u16) -> io::Result<Vec<File>> {
        let count = usize::from(count);
        if count > self.files.len() {
            return Err(broken("a job without its files"));
        }
        Ok(self.files.drain(..count).map(File::from).collect())
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn invalid(error: protocol::wire::WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
