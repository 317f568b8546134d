//! A mover on another host that comes again: this process starts the mover proper, and starts it again when that has ended.
//!
//! Each connection to the target has a process of its own. When it is lost the process ends with all it was doing, which is how the
//! target knows that nothing of it moves any more; its cage was closed around that one connection. This one opens no connection, reads
//! no secret and hears nobody, so that it can be stopped at any time; the mover proper ends with it, however that ends.
//!
//! Gives up at once where trying again would not help: what it was started with is wrong, or the target did not let it in the first
//! time. Later, the target's secret may be in the midst of a change.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use tracing::warn;

/// Option that tells the mover proper whose it is.
pub const KEPT_BY: &str = "--kept-by";
/// Exit code: the target was not reached. As EX_TEMPFAIL of sysexits(3).
pub const NOT_REACHED: u8 = 75;
/// Exit code: not let in, or started with what cannot be. As EX_NOPERM of sysexits(3).
pub const REFUSED: u8 = 77;

/// Pause after the loss of a connection.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
/// Each attempt that fails doubles the pause, up to this.
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Starts `program` with `arguments` again and again.
///
/// # Errors
/// When it cannot be started, or trying again would not help.
pub fn keep(program: &Path, arguments: &[OsString]) -> io::Result<()> {
    let (mut pause, mut was_attached) = (PAUSE_LEAST, false);
    let this = OsString::from(std::process::id().to_string());
    loop {
        let status = Command::new(program).args(arguments).args([OsStr::new(KEPT_BY), &this]).stdin(Stdio::null()).status()?;
        if is_of(status, REFUSED) && !was_attached {
            return Err(io::Error::other("the mover is not let in"));
        }
        if !is_of(status, REFUSED) && !is_of(status, NOT_REACHED) {
            (pause, was_attached) = (PAUSE_LEAST, true);
        }
        warn!(%status, ?pause, "not attached: the mover tries again");
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// Ties this process to the one that keeps it.
///
/// # Errors
/// When that is gone already.
pub fn be_kept_by(keeper: i32) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == Pid::from_raw(keeper) { Ok(()) } else { Err(io::Error::other("nobody keeps this mover")) }
}

fn is_of(status: ExitStatus, code: u8) -> bool {
    status.code() == Some(code.into())
}
