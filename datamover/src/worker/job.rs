//! One job: opens its ends, runs its two threads, and says how it ended.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::cartridge::TapePosition;
use protocol::mover::ends::End;
use protocol::mover::{Action, CopyJob, Destination, EndIndex, Fault, FaultKind, Move, Outcome, RemoteUnit, Source, Transfer};
use protocol::units::ByteRange;
use protocol::xcopy::MAX_STREAM_TRANSFER;
use tracing::debug;

use super::buffers::{BUFFER, Pool};
use super::credentials::Credentials;
use super::ends::OpenEnd;
use super::engine::{self, Engine};
use super::gather::Order;
use super::link::Link;
use super::throttle::Throttle;
use super::writer::Writer;
use crate::sys;

/// Most bytes of buffers a job takes, whatever it asks for: room for four transfers of the longest record and some to spare.
pub const BUFFER_LIMIT: u64 = 80 << 20;
/// Least bytes of buffers that keep both threads busy.
const BUFFER_LEAST: u64 = 8 << 20;
/// Operations under way between the threads; their data is bounded by the pool.
const OPERATIONS: usize = 256;

/// How a job is held back while it runs.
#[derive(Debug)]
pub struct Control {
    /// Asked to stop.
    pub cancelled: AtomicBool,
    /// This job's own limit.
    pub throttle: Throttle,
    /// The limit of all jobs of the process together.
    pub process: Arc<Throttle>,
    /// Where it may log in by itself.
    pub credentials: Arc<Credentials>,
}

impl Control {
    /// Not asked to stop; as fast as `bytes_per_second` and `process` let it be.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>, process: &Arc<Throttle>) -> Arc<Self> {
        Self::with(bytes_per_second, process, &Arc::default())
    }

    /// The same, with credentials.
    #[must_use]
    pub fn with(bytes_per_second: Option<u64>, process: &Arc<Throttle>, credentials: &Arc<Credentials>) -> Arc<Self> {
        let (throttle, cancelled) = (Throttle::new(bytes_per_second, Instant::now()), AtomicBool::new(false));
        Arc::new(Self { cancelled, throttle, process: Arc::clone(process), credentials: Arc::clone(credentials) })
    }

    /// Bytes were written.
    pub fn book(&self, bytes: u64) {
        let now = Instant::now();
        [&self.throttle, &self.process].into_iter().for_each(|throttle| throttle.book(bytes, now));
    }

    /// How long nothing should be written.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let now = Instant::now();
        self.throttle.wait(now).max(self.process.wait(now))
    }
}

/// What the threads of a job share.
#[derive(Debug)]
pub struct Shared {
    /// What the target wants.
    pub control: Arc<Control>,
    /// Nothing more will be written: read no further.
    pub stopped: AtomicBool,
    /// Write commands of tapes that the writer has not taken up yet.
    pub unwritten: AtomicUsize,
    /// Bytes read from copy sources.
    pub read: AtomicU64,
    /// The first fault in the order of the segments.
    pub fault: Mutex<Option<Fault>>,
}

/// Carries out a job and returns when nothing of it moves any more.
#[must_use]
pub fn run(job: CopyJob, files: &[File], link: &dyn Link, control: Arc<Control>) -> Outcome {
    let unsound = || Outcome::Fault(Fault { segment: 0, side: None, kind: FaultKind::BadJob, expected: 0, written: 0 });
    if !is_sound(&job) {
        return unsound();
    }
    let ends = job.ends.iter().zip(0..);
    let opened = ends.map(|(end, index)| OpenEnd::open(end, EndIndex(index), files, &control.credentials, link));
    let ends = match opened.collect::<Result<Vec<_>, _>>() {
        Ok(ends) => ends,
        Err(kind) => return Outcome::Fault(Fault { segment: 0, side: None, kind, expected: 0, written: 0 }),
    };
    let (stopped, unwritten, read, fault) = Default::default();
    let shared = Shared { control, stopped, unwritten, read, fault };
    let priority = io_priority(job.priority);
    let pool = Pool::new(buffers(&job));
    let (operations, queue) = sync_channel(OPERATIONS);
    let (ended, cancelled) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            set_priority(priority);
            Writer::new(&ends, link, &shared).run(queue)
        });
        let (ends, shared) = (&ends, &shared);
        let read_ahead = |order: Order| {
            let read = move || {
                set_priority(priority);
                order.carry_out(engine::reads(ends, &shared.control.cancelled));
            };
            if let Err(error) = thread::Builder::new().name("read".into()).spawn_scoped(scope, read) {
                debug!(%error, "no thread reads ahead");
            }
        };
        set_priority(priority);
        let engine = Engine::new(ends, Bytes::from(job.inline), pool, &read_ahead, operations, shared);
        let ended = engine.run(&job.steps);
        // The engine is gone, and its end of the queue with it: the writer finishes.
        (ended, writer.join().expect("the writer does not panic"))
    });
    if let Some(held) = ended.held {
        let (data, discarded) = held.into_parts();
        link.held(data, discarded);
    }
    match shared.fault.into_inner().expect("no holder panics") {
        Some(fault) => Outcome::Fault(fault),
        None if cancelled => Outcome::Cancelled,
        None => Outcome::Copied { dropped: ended.dropped },
    }
}

/// Whether the numbers of a job can be calculated with: a job is the target's word, and the target may be broken.
fn is_sound(job: &CopyJob) -> bool {
    job.ends.iter().all(end_is_sound)
        && job.steps.iter().all(|step| match &step.action {
            Action::Move(copy) => move_is_sound(copy),
            Action::Locate { object, .. } => *object <= MOST,
            Action::BlockImage { from_at, to_at, len, .. } => [from_at, to_at, len].into_iter().all(|number| *number <= MOST),
            Action::WriteFilemarks { .. } | Action::Space { .. } | Action::TapeImage { .. } | Action::Ask | Action::Nothing => {
                true
            }
        })
}

fn end_is_sound(end: &End) -> bool {
    let range = |range: &ByteRange| range.start <= MOST && range.len <= MOST;
    let place = |at: &TapePosition| at.object <= MOST && at.file <= at.object && at.offset <= MOST;
    match end {
        End::View { parts, .. } if parts.len() > MAX_PARTS || !parts.iter().all(range) => false,
        End::Raw { within, block_length, .. } | End::View { within, block_length, .. } => {
            range(within) && (1..=LONGEST_BLOCK).contains(block_length)
        }
        End::Cartridge { at, end_of_data, .. } => place(at) && place(end_of_data),
        End::NullBlock { .. } | End::NullStream => true,
        End::Remote(remote) => match remote.unit {
            RemoteUnit::Disk { block_length, len } => (1..=LONGEST_BLOCK).contains(&block_length) && len <= MOST,
            RemoteUnit::Tape => true,
        },
    }
}

fn move_is_sound(copy: &Move) -> bool {
    let transfer = |transfer: &Transfer| transfer.bytes() <= BUFFER_LIMIT / 4;
    let from = match &copy.from {
        Source::Blocks { at, .. } => *at <= MOST,
        Source::Bytes { at, len, .. } => *at <= MOST && *len <= MOST,
        Source::Stream { transfer: length, .. } => transfer(length),
        Source::Inline { .. } => true,
    };
    let to = match &copy.to {
        Destination::Blocks { at, .. } | Destination::Bytes { at, .. } => *at <= MOST,
        Destination::Stream { transfer: length, .. } => transfer(length),
        Destination::Discard => true,
    };
    from && to && copy.process.is_none_or(|bytes| bytes <= MOST) && copy.output.is_none_or(|bytes| bytes <= MOST)
}

/// Far above any file, and so far below what overflows that some of them may be added.
const MOST: u64 = i64::MAX as u64 / 8;
/// Parts that a view may be cut into: as many as a ROD's list may name, and more.
const MAX_PARTS: usize = 1 << 16;
/// One buffer holds at least one block.
const LONGEST_BLOCK: u32 = BUFFER as u32;

/// PRIORITY 1 is that of other commands, and level 4 that of processes that chose none. SPC-4, "PRIORITY field".
const fn io_priority(priority: u8) -> u8 {
    let level = priority.saturating_add(3);
    if level > 7 { 7 } else { level }
}

fn set_priority(level: u8) {
    if let Err(error) = sys::set_io_priority(level) {
        debug!(%error, level, "the priority of input and output stays as it was");
    }
}

/// Buffers of the pool: what the job asks for, and at least what its largest transfers need to be whole on both sides.
fn buffers(job: &CopyJob) -> usize {
    let largest = job.steps.iter().map(|step| match &step.action {
        Action::Move(copy) => {
            let source = if let Source::Stream { transfer, .. } = copy.from { transfer.bytes() } else { 0 };
            let destination = if let Destination::Stream { transfer, .. } = copy.to { transfer.bytes() } else { 0 };
            source.saturating_add(destination)
        }
        Action::TapeImage { .. } => u64::from(MAX_STREAM_TRANSFER),
        _ => 0,
    });
    let needed = largest.max().unwrap_or(0).saturating_mul(2).saturating_add(BUFFER_LEAST);
    let bytes = job.buffer_bytes.max(needed).min(BUFFER_LIMIT);
    (bytes / BUFFER as u64) as usize
}
