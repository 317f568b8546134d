//! `offhost` as a test runs it: against the target's control socket, with a catalog of its own.

use std::process::Command;

use crate::programs::{Target, program};

/// How a run of `offhost` ended.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The run must have ended with this exit code and have said all of these words to people.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "nothing about {word:?} in {:?}", self.err);
        }
    }

    /// The run must have ended well.
    #[track_caller]
    pub fn succeeded(&self) {
        assert_eq!(self.code, 0, "{self:?}");
    }
}

/// Runs `offhost` in the target's folder.
///
/// # Panics
/// When it cannot be started or is ended by a signal.
pub fn offhost(target: &Target, arguments: &[&str]) -> Said {
    let mut command = Command::new(program("offhost"));
    command.args(arguments).current_dir(&target.folder).env("OFFHOST_CONTROL", target.control());
    let output = command.env("XDG_DATA_HOME", target.folder.join("catalog")).output().expect("offhost starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or_else(|| panic!("offhost {arguments:?}: {}", output.status));
    Said { code, out: text(&output.stdout), err: text(&output.stderr) }
}
