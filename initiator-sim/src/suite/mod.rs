//! Conformance cases: one file per behaviour, run against anybody's target.
//!
//! A case is a row: a name, the clause it follows, what it needs, and what it does. It is judged by status, sense data and bytes
//! only. CDBs and lists are written out as bytes here, so that no helper that the target shares hides a mistake both make.
//! Does not measure, does not retry, and leaves the devices' data as it likes when `--destroy` is given.
//!
//! | suite | follows |
//! |---|---|
//! | `login` | RFC 7143: login, keys, discovery, digests |
//! | `session` | RFC 7143: several connections, recovery within a connection, order of commands |
//! | `spc` | SPC-4: commands of every device |
//! | `sbc` | SBC-4: disks |
//! | `ssc` | SSC-4: tapes |
//! | `smc` | SMC-3: media changers |
//! | `xcopy` | SPC-4: EXTENDED COPY |

pub mod bench;
pub mod check;
pub mod junit;
mod login;
mod raw;
mod sbc;
mod session;
mod smc;
mod spc;
mod ssc;
mod xcopy;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, Instant};

pub use bench::{Bench, Devices};
pub use check::{Outcome, Stop};

/// A case that takes longer has failed: a target that does not answer must not hold up the rest.
const CASE_LIMIT: Duration = Duration::from_secs(120);

/// A family of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Login, keys, discovery (RFC 7143)
    Login,
    /// Several connections, recovery, order of commands (RFC 7143)
    Session,
    /// Commands of every device (SPC-4)
    Spc,
    /// Disks (SBC-4)
    Sbc,
    /// Tapes (SSC-4)
    Ssc,
    /// Media changers (SMC-3)
    Smc,
    /// EXTENDED COPY (SPC-4)
    Xcopy,
}

impl Suite {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Session => "session",
            Self::Spc => "spc",
            Self::Sbc => "sbc",
            Self::Ssc => "ssc",
            Self::Smc => "smc",
            Self::Xcopy => "xcopy",
        }
    }

    /// Its rows.
    #[must_use]
    pub const fn cases(self) -> &'static [&'static [Case]] {
        match self {
            Self::Login => login::CASES,
            Self::Session => session::CASES,
            Self::Spc => spc::CASES,
            Self::Sbc => sbc::CASES,
            Self::Ssc => ssc::CASES,
            Self::Smc => smc::CASES,
            Self::Xcopy => xcopy::CASES,
        }
    }
}

/// What a case wants to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Needs {
    /// A portal and a target name.
    Target,
    /// Any logical unit.
    Unit,
    /// A disk that is only read.
    Disk,
    /// A disk whose data may be destroyed.
    ScratchDisk,
    /// A tape whose data may be destroyed.
    ScratchTape,
    /// A scratch disk that knows EXTENDED COPY.
    CopyDisk,
    /// A scratch disk and a scratch tape of one target that knows EXTENDED COPY.
    CopyDiskAndTape,
    /// A media changer that moves nothing.
    Changer,
    /// A media changer whose media may be moved.
    ScratchChanger,
    /// A media changer and one of its drives, whose media may be moved and written.
    ChangerAndDrive,
}

impl Needs {
    /// As a reason to skip.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Target => "a target",
            Self::Unit => "a logical unit",
            Self::Disk => "a disk",
            Self::ScratchDisk => "a disk whose data may be destroyed (--destroy)",
            Self::ScratchTape => "a tape whose data may be destroyed (--tape URL --destroy)",
            Self::CopyDisk => "a disk with EXTENDED COPY whose data may be destroyed (--destroy)",
            Self::CopyDiskAndTape => "a disk and a tape of one target with EXTENDED COPY (--tape URL --destroy)",
            Self::Changer => "a media changer (--changer URL)",
            Self::ScratchChanger => "a media changer whose media may be moved (--changer URL --destroy)",
            Self::ChangerAndDrive => "a media changer and one of its drives (--changer URL --tape URL --destroy)",
        }
    }
}

/// What a case's `run` gives back.
pub type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// One behaviour, as a row.
#[derive(Clone, Copy)]
pub struct Case {
    /// Short, in words with hyphens; unique within the suite.
    pub name: &'static str,
    /// Standard and clause by title.
    pub clause: &'static str,
    /// What it wants to find.
    pub needs: Needs,
    /// Carries it out.
    pub run: for<'a> fn(&'a Bench) -> Running<'a>,
}

impl Case {
    /// A row.
    #[must_use]
    pub const fn new(name: &'static str, clause: &'static str, needs: Needs, run: for<'a> fn(&'a Bench) -> Running<'a>) -> Self {
        Self { name, clause, needs, run }
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("clause", &self.clause).finish_non_exhaustive()
    }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "result", content = "reason")]
pub enum Verdict {
    /// As the standard says.
    Pass,
    /// Not as the standard says: what was expected, and what came.
    Fail(String),
    /// Not run, or found not to apply.
    Skip(String),
}

/// A case with its end.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CaseReport {
    /// Which suite.
    pub suite: Suite,
    /// The case's name.
    pub name: &'static str,
    /// The clause it follows.
    pub clause: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Runs the cases of some suites in order whose `suite/name` contains `filter`; `told` hears of each as it ends.
pub async fn run(suites: &[Suite], filter: &str, bench: &Bench, mut told: impl FnMut(&CaseReport)) -> Vec<CaseReport> {
    let mut reports = Vec::new();
    for suite in suites {
        for case in suite.cases().iter().copied().flatten() {
            if !format!("{}/{}", suite.name(), case.name).contains(filter) {
                continue;
            }
            let report = run_case(*suite, case, bench).await;
            told(&report);
            reports.push(report);
        }
    }
    reports
}

async fn run_case(suite: Suite, case: &Case, bench: &Bench) -> CaseReport {
    let begun = Instant::now();
    let verdict = match bench.has(case.needs) {
        Err(missing) => Verdict::Skip(missing),
        Ok(()) => match tokio::time::timeout(CASE_LIMIT, guarded((case.run)(bench))).await {
            Ok(Ok(())) => Verdict::Pass,
            Ok(Err(Stop::Skip(reason))) => Verdict::Skip(reason),
            Ok(Err(stop)) => Verdict::Fail(stop.to_string()),
            Err(_) => Verdict::Fail(format!("no end within {CASE_LIMIT:?}")),
        },
    };
    CaseReport { suite, name: case.name, clause: case.clause, verdict, seconds: begun.elapsed().as_secs_f64() }
}

/// A case that panics (a reply shorter than it indexed) has failed; the others go on.
async fn guarded(running: Running<'_>) -> Outcome {
    let mut running = AssertUnwindSafe(running);
    std::future::poll_fn(move |context| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            std::task::Poll::Ready(Err(Stop::Fail(format!("the case itself broke: {}", text.unwrap_or("panic")))))
        })
    })
    .await
}

/// 0 when all passed (or were skipped beside passes), 1 when one failed, 77 when none ran.
#[must_use]
pub fn exit_status(reports: &[CaseReport]) -> u8 {
    let failed = reports.iter().any(|report| matches!(report.verdict, Verdict::Fail(_)));
    let passed = reports.iter().any(|report| report.verdict == Verdict::Pass);
    match (failed, passed) {
        (true, _) => 1,
        (false, true) => 0,
        (false, false) => 77,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ALL: [Suite; 7] = [Suite::Login, Suite::Session, Suite::Spc, Suite::Sbc, Suite::Ssc, Suite::Smc, Suite::Xcopy];

    #[test]
    fn names_are_unique_and_every_case_cites_a_standard() {
        for suite in ALL {
            let mut seen = HashSet::new();
            for case in suite.cases().iter().copied().flatten() {
                assert!(seen.insert(case.name), "{}/{} twice", suite.name(), case.name);
                let standards = ["RFC 7143", "SPC-4", "SBC-4", "SSC-4", "SMC-3", "SAM-5"];
                assert!(standards.iter().any(|standard| case.clause.starts_with(standard)), "{}: {}", case.name, case.clause);
                assert!(case.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{}", case.name);
            }
            assert!(!seen.is_empty(), "{} has no cases", suite.name());
        }
    }

    #[test]
    fn the_exit_status_tells_failed_from_nothing_run() {
        let report = |verdict| CaseReport { suite: Suite::Spc, name: "x", clause: "SPC-4", verdict, seconds: 0.0 };
        let (pass, fail, skip) = (Verdict::Pass, Verdict::Fail(String::new()), Verdict::Skip(String::new()));
        assert_eq!(exit_status(&[report(pass.clone()), report(skip.clone())]), 0);
        assert_eq!(exit_status(&[report(pass), report(fail)]), 1);
        assert_eq!(exit_status(&[report(skip)]), 77);
        assert_eq!(exit_status(&[]), 77);
    }
}
