//! Helpers of the whole-system tests: programs started and ended by id, ports of their own, folders of their own, loud skips.
//!
//! Nothing here tests anything. All traffic stays on loopback.

pub mod agent;
pub mod control;
pub mod copies;
pub mod foreign;
pub mod fuzz;
pub mod guest;
pub mod judges;
pub mod movers;
pub mod netns;
pub mod ntfs;
pub mod pattern;
pub mod pdus;
pub mod programs;
pub mod reflink;
pub mod small;
pub mod tgt;
pub mod witness;
pub mod wrong;

use std::io::Write;

/// Leaves a test that cannot run here, and says so past the test runner's capture: a silent skip looks like a pass.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::say_skipped(&format!($($reason)*));
        return;
    }};
}

/// What [`skip!`] prints; `tests/run` counts these lines.
pub fn say_skipped(reason: &str) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {reason}", thread.name().unwrap_or("test"));
}

/// True when a foreign program can be started from here.
#[must_use]
pub fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(program).is_file())
}
