//! The movers of a target: how many there are, how fast they may be, and which of them takes a job.
//!
//! They are processes of one program, each started here and started again when it ends ([`process`]). How many, and their speed, may
//! change while copies run: a mover too many gets no more jobs and ends when it has none. Movers on other hosts attach by themselves
//! ([`attach`]) and get no files.
//!
//! Knows nothing of SCSI, disks or tapes; [`crate::xcopy`] does. Messages: [`protocol::mover`].

pub mod attach;
mod process;
mod socket;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use protocol::control::{MoverSettings, MoverStatus};
use protocol::mover::{JobId, ToMover};

pub use process::{Event, JobHandle, Mover, log_as_json};

/// More movers of other hosts are not taken.
const ATTACHED_MOST: usize = 16;
/// Name of the mover's program.
const PROGRAM: &str = "offhost-mover";

/// Starts movers and keeps them alive.
#[derive(Debug)]
pub struct Movers {
    program: PathBuf,
    state: Mutex<State>,
    next_job: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    settings: MoverSettings,
    /// As many as the settings want, once they have been started.
    slots: Vec<Option<Arc<Mover>>>,
    /// Too many by now, and still at work.
    leaving: Vec<Arc<Mover>>,
    /// On other hosts.
    attached: Vec<Arc<Mover>>,
}

impl Movers {
    /// `program`, or the mover beside this program. Starts nothing yet.
    #[must_use]
    pub fn new(program: Option<PathBuf>) -> Arc<Self> {
        let program = program.unwrap_or_else(beside_this_program);
        Arc::new(Self { program, state: Mutex::default(), next_job: AtomicU64::new(1) })
    }

    /// The living mover with the fewest jobs; all that there should be are started if need be. Blocks.
    ///
    /// # Errors
    /// When none can be started, or is of another version.
    pub fn ensure(self: &Arc<Self>) -> io::Result<Arc<Mover>> {
        let all = self.all()?;
        Ok(all.into_iter().min_by_key(|mover| mover.job_count()).expect("at least one"))
    }

    /// All movers, each alive, at least one. Blocks.
    ///
    /// # Errors
    /// When none can be started, or is of another version.
    pub fn all(self: &Arc<Self>) -> io::Result<Vec<Arc<Mover>>> {
        let mut state = self.state();
        let (count, rate) = (usize::from(state.settings.movers.max(1)), state.settings.bytes_per_second);
        state.slots.resize(count, None);
        let mut failed = None;
        for slot in &mut state.slots {
            if !slot.as_ref().is_some_and(|mover| mover.alive()) {
                match Mover::start(self, rate) {
                    Ok(mover) => *slot = Some(mover),
                    Err(error) => failed = Some(error),
                }
            }
        }
        let living: Vec<_> = state.slots.iter().flatten().filter(|mover| mover.alive()).cloned().collect();
        match failed {
            Some(error) if living.is_empty() => Err(error),
            _ => Ok(living),
        }
    }

    /// A mover on another host is one of ours from now on.
    ///
    /// # Errors
    /// When there are as many as there may be.
    fn take_in(&self, mover: Arc<Mover>) -> io::Result<()> {
        let mut state = self.state();
        state.attached.retain(|mover| mover.alive());
        if state.attached.len() >= ATTACHED_MOST {
            mover.disconnect();
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "as many movers are attached as there may be"));
        }
        mover.tell(&ToMover::Throttle { job: None, bytes_per_second: state.settings.bytes_per_second });
        state.attached.push(mover);
        Ok(())
    }

    /// The mover on another host with the fewest jobs, if there is one.
    #[must_use]
    pub fn attached(&self) -> Option<Arc<Mover>> {
        self.all_attached().into_iter().min_by_key(|mover| mover.job_count())
    }

    /// The movers on other hosts, each alive.
    #[must_use]
    pub fn all_attached(&self) -> Vec<Arc<Mover>> {
        self.state().attached.iter().filter(|mover| mover.alive()).cloned().collect()
    }

    /// A name for a job.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        JobId(self.next_job.fetch_add(1, Ordering::Relaxed))
    }

    /// How many there are to be, and how fast.
    #[must_use]
    pub fn settings(&self) -> MoverSettings {
        self.state().settings
    }

    /// PRIORITY of a job whose list has `priority`.
    #[must_use]
    pub fn priority(&self, priority: u8) -> u8 {
        self.settings().priority.unwrap_or(priority)
    }

    /// Changes that, for jobs that run too. Blocks while movers are started.
    ///
    /// # Errors
    /// As [`Movers::all`]; the settings hold all the same.
    pub fn set(self: &Arc<Self>, settings: MoverSettings) -> io::Result<()> {
        {
            let mut state = self.state();
            state.settings = settings;
            let count = usize::from(settings.movers.max(1)).min(state.slots.len());
            let surplus: Vec<_> = state.slots.split_off(count).into_iter().flatten().collect();
            state.leaving.extend(surplus);
            state.leaving.retain(|mover| mover.alive());
            state.leaving.iter().for_each(|mover| mover.retire());
            let throttle = ToMover::Throttle { job: None, bytes_per_second: settings.bytes_per_second };
            for mover in state.slots.iter().flatten().chain(&state.leaving).chain(&state.attached) {
                mover.tell(&throttle);
                mover.tell_jobs(|job| ToMover::Throttle { job: Some(job), bytes_per_second: settings.job_bytes_per_second });
            }
        }
        self.all().map(drop)
    }

    /// What there is to say of the movers.
    #[must_use]
    pub fn status(&self) -> Vec<MoverStatus> {
        let state = self.state();
        let all = state.slots.iter().flatten().chain(&state.leaving).chain(&state.attached);
        all.filter(|mover| mover.alive()).map(|mover| mover.status()).collect()
    }

    /// Ends the movers; jobs that run on them fail. Blocks until the processes have ended.
    pub fn end(&self) {
        let mut state = self.state();
        let movers: Vec<_> = state.slots.drain(..).flatten().collect();
        let movers: Vec<_> = movers.into_iter().chain(state.leaving.drain(..)).collect();
        // What is on another host is not waited for: it has none of our files.
        state.attached.drain(..).for_each(|mover| mover.disconnect());
        drop(state);
        movers.iter().for_each(|mover| mover.disconnect());
        for mover in movers {
            while mover.alive() {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// A mover has ended by itself: another takes its place, unless nobody wants it any more.
    fn replace(self: &Arc<Self>, ended: &Arc<Mover>) -> io::Result<()> {
        let wanted = self.state().slots.iter().flatten().any(|mover| Arc::ptr_eq(mover, ended));
        if wanted { self.all().map(drop) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// Programs that are built or installed together lie together; else it is searched for.
fn beside_this_program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(PROGRAM));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}
