//! A load generator: a bounded number of commands in flight for a while, counted and timed.
//!
//! Sessions are threads with a runtime each, so that one session's tasks never wait for another thread. Measures what an
//! initiator sees, from the command's submission to its reply; does not judge the bytes read.

mod histogram;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::units::{BlockLength, Lba};
use rand::RngExt;

pub use histogram::{Histogram, Latency};

use crate::client::{Client, ClientError, LogicalUnit, Options};
use crate::url::Url;

/// Which way, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Ascending reads
    SeqRead,
    /// Ascending writes
    SeqWrite,
    /// Reads anywhere
    RandRead,
    /// Writes anywhere
    RandWrite,
}

impl Pattern {
    /// True for the two that destroy data.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::SeqWrite | Self::RandWrite)
    }

    const fn random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite)
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Workload {
    /// Which way, and in which order.
    pub pattern: Pattern,
    /// Bytes each command moves: whole blocks.
    pub transfer_bytes: u32,
    /// Commands in flight, of each session.
    pub depth: u32,
    /// Sessions at the same time, each on its own part of the range.
    pub sessions: u32,
    /// For how long.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Bytes of the disk that are used, from its beginning; 0 for all.
    pub range_bytes: u64,
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What came of it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LoadReport {
    /// What was done.
    pub workload: Workload,
    /// Commands that ended GOOD.
    pub commands: u64,
    /// Bytes they moved.
    pub bytes: u64,
    /// From the first submission to the last reply, in seconds.
    pub elapsed_seconds: f64,
    /// Megabytes (10^6) each second.
    pub megabytes_per_second: f64,
    /// Commands each second.
    pub commands_per_second: f64,
    /// How long they took.
    pub latency: Latency,
}

/// Why a load could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A command or a session failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The numbers do not go together.
    #[error("{0}")]
    Workload(String),
}

/// Runs a workload against a disk. Blocks the thread; not for use inside an async task.
///
/// # Errors
/// The first command that does not end GOOD ends the run.
pub fn run(url: &Url, options: &Options, workload: Workload) -> Result<LoadReport, LoadError> {
    let shared = Shared { barrier: Barrier::new(workload.sessions as usize), stopped: AtomicU64::new(0) };
    let results: Vec<Result<Session, LoadError>> = std::thread::scope(|scope| {
        let shared = &shared;
        let threads: Vec<_> = (0..workload.sessions)
            .map(|number| scope.spawn(move || one_session(url, options, workload, number, shared)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a session does not panic")).collect()
    });
    let mut histogram = Histogram::default();
    let (mut begun, mut ended): (Option<Instant>, Option<Instant>) = (None, None);
    for session in results {
        let session = session?;
        histogram.add(&session.histogram);
        begun = begun.into_iter().chain([session.begun]).min();
        ended = ended.into_iter().chain([session.ended]).max();
    }
    let elapsed = begun.zip(ended).map_or(0.0, |(begun, ended)| (ended - begun).as_secs_f64());
    let bytes = histogram.count() * u64::from(workload.transfer_bytes);
    let rate = |amount: u64| if elapsed > 0.0 { amount as f64 / elapsed } else { 0.0 };
    Ok(LoadReport {
        workload,
        commands: histogram.count(),
        bytes,
        elapsed_seconds: elapsed,
        megabytes_per_second: rate(bytes) / 1e6,
        commands_per_second: rate(histogram.count()),
        latency: histogram.latency(),
    })
}

struct Shared {
    /// All sessions are logged in before the first command of any.
    barrier: Barrier,
    /// Sessions that could not begin.
    stopped: AtomicU64,
}

struct Session {
    histogram: Histogram,
    begun: Instant,
    ended: Instant,
}

fn one_session(url: &Url, options: &Options, workload: Workload, number: u32, shared: &Shared) -> Result<Session, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::from)?;
    let prepared = runtime.block_on(prepare(url, options, workload, number));
    if prepared.is_err() {
        shared.stopped.fetch_add(1, Ordering::SeqCst);
    }
    // Also when nothing will be done: the others wait here.
    shared.barrier.wait();
    let (unit, part) = prepared?;
    if shared.stopped.load(Ordering::SeqCst) > 0 {
        return Err(LoadError::Workload("another session could not begin".into()));
    }
    runtime.block_on(async {
        let session = drive(&unit, workload, part).await;
        unit.client().logout().await.ok();
        session
    })
}

/// The blocks that one session uses, in transfers.
#[derive(Debug, Clone, Copy)]
struct Part {
    first: u64,
    transfers: u64,
    blocks_each: u32,
    block_length: BlockLength,
}

async fn prepare(url: &Url, options: &Options, workload: Workload, number: u32) -> Result<(LogicalUnit, Part), LoadError> {
    let unit = Client::connect(url, options.clone()).await?.unit();
    unit.test_unit_ready().await?;
    let capacity = unit.read_capacity().await?;
    let block_length = capacity.block_length;
    if workload.transfer_bytes == 0 || !workload.transfer_bytes.is_multiple_of(block_length.0) {
        let text = format!("{} bytes are not whole blocks of {}", workload.transfer_bytes, block_length.0);
        return Err(LoadError::Workload(text));
    }
    let range = if workload.range_bytes == 0 { capacity.bytes() } else { workload.range_bytes.min(capacity.bytes()) };
    let transfers = range / u64::from(workload.transfer_bytes) / u64::from(workload.sessions);
    if transfers == 0 {
        return Err(LoadError::Workload(format!("{range} bytes are too few for {} sessions", workload.sessions)));
    }
    let blocks_each = workload.transfer_bytes / block_length.0;
    let first = u64::from(number) * transfers * u64::from(blocks_each);
    Ok((unit, Part { first, transfers, blocks_each, block_length }))
}

async fn drive(unit: &LogicalUnit, workload: Workload, part: Part) -> Result<Session, LoadError> {
    let data = random_bytes(if workload.pattern.writes() { workload.transfer_bytes as usize } else { 0 });
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let workers: Vec<_> = (0..workload.depth)
        .map(|_| tokio::spawn(worker(unit.clone(), workload, part, Arc::clone(&next), data.clone(), begun)))
        .collect();
    let mut histogram = Histogram::default();
    for worker in workers {
        histogram.add(&worker.await.expect("a worker does not panic")?);
    }
    Ok(Session { histogram, begun, ended: Instant::now() })
}

async fn worker(
    unit: LogicalUnit,
    workload: Workload,
    part: Part,
    next: Arc<AtomicU64>,
    data: Bytes,
    begun: Instant,
) -> Result<Histogram, LoadError> {
    let mut histogram = Histogram::default();
    let mut now = Instant::now();
    while now.duration_since(begun) < workload.duration {
        let transfer = if workload.pattern.random() {
            rand::rng().random_range(0..part.transfers)
        } else {
            next.fetch_add(1, Ordering::Relaxed) % part.transfers
        };
        let lba = Lba(part.first + transfer * u64::from(part.blocks_each));
        if workload.pattern.writes() {
            unit.write(lba, data.clone(), part.block_length).await?;
        } else {
            unit.read(lba, part.blocks_each, part.block_length).await?;
        }
        let then = std::mem::replace(&mut now, Instant::now());
        histogram.record(now - then);
    }
    Ok(histogram)
}

/// Bytes that no layer can make smaller.
fn random_bytes(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    rand::rng().fill(&mut bytes[..]);
    bytes.into()
}
