//! The thread that takes the sums of tape records which were placed by reference.
//!
//! It goes around all drives, a record each time, at most so many bytes a second over all of them, and rests where nothing is to be
//! done. It keeps nothing: what was taken is in the indexes of the cartridges, so that whoever starts anew goes on there. Which
//! records, and whether a drive has time, is [`crate::lun::tape`]'s business.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::lun::Device;
use crate::lun::tape::{Taken, Tape};
use crate::net::Server;
use crate::sys;

/// MiB a second where nothing is said: a fraction of what one disk reads.
pub const DEFAULT_MIB_PER_SECOND: u32 = 128;
/// Between two rounds in which there was nothing to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The thread. It ends when this is dropped, behind the record that it reads.
#[derive(Debug)]
pub struct SumTaker {
    ends: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl SumTaker {
    /// Starts it for all tapes that a server has now or later.
    ///
    /// # Errors
    /// For want of a thread.
    pub fn start(server: Arc<Server>, bytes_per_second: u64) -> io::Result<Self> {
        let (ends, ended) = mpsc::channel();
        let run = move || {
            if let Err(error) = sys::yield_to_others() {
                warn!(%error, "sums are taken with the priority of everything else");
            }
            rounds(|| tapes(&server), bytes_per_second, &ended);
        };
        let thread = thread::Builder::new().name("sums".into()).spawn(run)?;
        Ok(Self { ends: Some(ends), thread: Some(thread) })
    }
}

impl Drop for SumTaker {
    fn drop(&mut self) {
        self.ends = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tapes(server: &Server) -> Vec<Arc<Tape>> {
    let devices = server.targets().into_iter().flat_map(|target| target.luns().all()).map(|(_, device)| device);
    let tape = |device| if let Device::Tape(tape) = device { Some(tape) } else { None };
    devices.filter_map(tape).collect()
}

fn rounds(tapes: impl Fn() -> Vec<Arc<Tape>>, bytes_per_second: u64, ended: &Receiver<Infallible>) {
    let mut wait = LOOK_EVERY;
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        let begun = Instant::now();
        let taken: Vec<Taken> = tapes().iter().map(|tape| tape.take_sum()).collect();
        let bytes: u64 = taken.iter().map(|taken| if let Taken::Bytes(bytes) = taken { u64::from(*bytes) } else { 0 }).sum();
        wait = match taken.iter().all(|taken| *taken == Taken::Nothing) {
            true => LOOK_EVERY,
            false => Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64).saturating_sub(begun.elapsed()),
        };
    }
}
