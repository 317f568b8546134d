//! A session that does no wrong, beside others that may: it writes and reads back all the time, and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, ClientError, LogicalUnit, Options};
use tokio::task::JoinSet;

use crate::pattern;
use crate::programs::Target;

/// Bytes of a write, and of the read behind it.
const PIECE: usize = 16_384;
const BLOCKS: u32 = PIECE as u32 / 512;
/// Pieces of one worker, one behind the other.
const PLACES: u64 = 128;

/// See the module. It needs 2 MiB of its disk for each worker.
#[derive(Debug)]
pub struct Witness {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    workers: JoinSet<()>,
}

impl Witness {
    /// Logs in to a disk of 512-byte blocks, and begins; each worker has one command in flight.
    ///
    /// # Errors
    /// Those of the login.
    ///
    /// # Panics
    /// Later, in [`Witness::end`]: with the first error, or the first wrong byte.
    pub async fn start(target: &Target, lun: u16, workers: u64) -> Result<Self, ClientError> {
        let url = target.url(lun).parse().expect("a URL of ours");
        let unit = Client::connect(&url, Options::named("iqn.2026-01.test:witness")).await?.unit();
        unit.test_unit_ready().await?;
        let mut witness = Self { stop: Arc::default(), rounds: Arc::default(), workers: JoinSet::new() };
        for worker in 0..workers {
            witness.workers.spawn(work(unit.clone(), worker, Arc::clone(&witness.stop), Arc::clone(&witness.rounds)));
        }
        Ok(witness)
    }

    /// Writes and reads so far.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Waits until it has come through one more round, begun after now.
    ///
    /// # Panics
    /// When that takes longer than any busy machine does.
    pub async fn goes_on(&self) {
        let enough = self.rounds() + 1 + self.workers.len() as u64;
        let going = async {
            while self.rounds() < enough {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), going).await.expect("the witness goes on");
    }

    /// Reads once more what was written long ago, and gives the number of rounds.
    ///
    /// # Panics
    /// See [`Witness::start`].
    pub async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.expect("the witness saw nothing wrong");
        }
        self.rounds()
    }
}

async fn work(disk: LogicalUnit, worker: u64, stop: Arc<AtomicBool>, rounds: Arc<AtomicU64>) {
    let place = |round: u64| Lba((worker * PLACES + round % PLACES) * u64::from(BLOCKS));
    let data = |round: u64| Bytes::from(pattern::bytes(61 + worker, round, PIECE));
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        disk.write(place(round), data(round), BlockLength::B512).await.expect("the witness writes");
        let found = disk.read(place(round), BLOCKS, BlockLength::B512).await.expect("the witness reads");
        assert!(found == data(round), "round {round} of the witness");
        rounds.fetch_add(1, Ordering::Relaxed);
        round += 1;
    }
    for round in round.saturating_sub(PLACES)..round {
        let found = disk.read(place(round), BLOCKS, BlockLength::B512).await.expect("the witness reads");
        assert!(found == data(round), "round {round} of the witness, at the end");
    }
}
