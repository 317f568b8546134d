//! The thread that takes the sums of tape records which were placed by reference.
//!
//! It goes around all drives, and the cartridges that a library has in none, a record each time, at most so many bytes a second over all
//! of them. Where nothing is to be done it sleeps until the bell rings. It keeps nothing: what was taken is in the indexes of the
//! cartridges, so that whoever starts anew goes on there. Which records, and whether a drive has time, is [`crate::lun::tape`]'s and
//! [`crate::library`]'s business.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::library::Libraries;
use crate::lun::Device;
use crate::lun::tape::{Bell, Taken, Tape};
use crate::net::Server;
use crate::sys;

/// MiB a second where nothing is said: a fraction of what one disk reads.
pub const DEFAULT_MIB_PER_SECOND: u32 = 128;
/// Between two rounds in which whatever has something to do was in use.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The thread. It ends when this is dropped, behind the record that it reads.
#[derive(Debug)]
pub struct SumTaker {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl SumTaker {
    /// Starts it for all tapes that a server has now or later, and all libraries. All of them ring `bell`.
    ///
    /// # Errors
    /// For want of a thread.
    pub fn start(server: Arc<Server>, libraries: Arc<Libraries>, bell: Arc<Bell>, bytes_per_second: u64) -> io::Result<Self> {
        let rung = Arc::clone(&bell);
        let run = move || {
            if let Err(error) = sys::yield_to_others() {
                warn!(%error, "sums are taken with the priority of everything else");
            }
            let round = || {
                let tapes = tapes(&server).into_iter().map(|tape| tape.take_sum());
                tapes.chain(libraries.all().into_iter().map(|library| library.take_sum())).collect()
            };
            rounds(round, bytes_per_second, &rung);
        };
        let thread = thread::Builder::new().name("sums".into()).spawn(run)?;
        Ok(Self { bell, thread: Some(thread) })
    }
}

impl Drop for SumTaker {
    fn drop(&mut self) {
        self.bell.end();
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

fn rounds(round: impl Fn() -> Vec<Taken>, bytes_per_second: u64, bell: &Bell) {
    loop {
        let begun = Instant::now();
        let taken = round();
        let bytes: u64 = taken.iter().map(|taken| if let Taken::Bytes(bytes) = taken { u64::from(*bytes) } else { 0 }).sum();
        let goes_on = if taken.iter().any(|taken| matches!(taken, Taken::Bytes(_) | Taken::Searched)) {
            bell.pause(Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64).saturating_sub(begun.elapsed()))
        } else if taken.contains(&Taken::Later) {
            bell.pause(LOOK_EVERY)
        } else {
            bell.wait()
        };
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A thread that takes what `round` says, how many rounds it has begun, and its bell.
    fn taker(round: impl Fn(usize) -> Taken + Send + 'static) -> (SumTaker, Arc<AtomicUsize>) {
        let (bell, rounds_begun) = (Arc::new(Bell::default()), Arc::new(AtomicUsize::new(0)));
        let (rung, counted) = (Arc::clone(&bell), Arc::clone(&rounds_begun));
        let round = move || vec![Taken::Nothing, round(counted.fetch_add(1, Ordering::SeqCst))];
        let thread = thread::spawn(move || rounds(round, u64::MAX, &rung));
        (SumTaker { bell, thread: Some(thread) }, rounds_begun)
    }

    fn reached(rounds: &AtomicUsize, count: usize) {
        let give_up = Instant::now() + Duration::from_secs(60);
        while rounds.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < give_up, "round {count} never comes");
            thread::yield_now();
        }
    }

    #[test]
    fn nothing_is_looked_at_without_need() {
        let (taker, rounds) = taker(|_| Taken::Nothing);
        reached(&rounds, 1);
        thread::sleep(2 * LOOK_EVERY);
        assert_eq!(rounds.load(Ordering::SeqCst), 1);
        taker.bell.ring();
        reached(&rounds, 2);
    }

    #[test]
    fn work_goes_on_by_itself_and_what_is_in_use_is_looked_at_again() {
        let (_taker, rounds) = taker(|round| match round {
            0 => Taken::Later,
            1 => Taken::Bytes(512),
            2 => Taken::Searched,
            _ => Taken::Nothing,
        });
        reached(&rounds, 4);
    }
}
