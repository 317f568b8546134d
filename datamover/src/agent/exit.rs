//! Exit codes: what a script that runs `offhost` branches on.
//!
//! An error carries its code as a [`Stop`] somewhere in its chain; one without is [`Exit::Failed`].

use std::process::ExitCode;

/// How a run of `offhost` ends, as `--help` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something went wrong; nothing was half done, or it can simply be done again.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Something is there, but not all: a set without its end on the tape, a disk that was restored in part.
    Incomplete = 3,
    /// The disk was never quiet for long enough; no snapshot was taken and no tape moved.
    NeverQuiet = 4,
    /// What is there would have been overwritten.
    Refused = 5,
}

/// The table in `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done, and synchronized on the medium
  1  failed
  2  the command line makes no sense
  3  incomplete: a set on tape without its end, or a disk restored in part
  4  the disk was never quiet for long enough within --timeout; nothing was done
  5  refused: a tape or disk that holds something would have been overwritten";

/// An error with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stop {
    /// The code.
    pub exit: Exit,
    /// What happened, where, and what to do.
    pub message: String,
}

impl Stop {
    /// [`Exit::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, message: message.into() }
    }

    /// [`Exit::Incomplete`].
    pub fn incomplete(message: impl Into<String>) -> Self {
        Self { exit: Exit::Incomplete, message: message.into() }
    }

    /// [`Exit::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }
}

/// The code of an error.
#[must_use]
pub fn of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Stop>().map_or(Exit::Failed, |stop| stop.exit)
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_code_is_found_below_and_above_context() {
        let error = anyhow::Error::from(Stop::refused("the tape holds something")).context("backup of a disk");
        assert_eq!(of(&error), Exit::Refused);
        let error = Err::<(), _>(std::io::Error::other("gone")).context(Stop::incomplete("half a disk")).context("restore");
        assert_eq!(of(&error.unwrap_err()), Exit::Incomplete);
        assert_eq!(of(&anyhow::anyhow!("anything")), Exit::Failed);
    }
}
