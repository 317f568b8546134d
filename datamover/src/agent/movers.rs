//! `offhost movers`: who moves the blocks of copies, how much of it each has moved, and how fast they may be.
//!
//! What is set holds at once, for copies that run too; `offhost save` keeps it. What the numbers mean stands in
//! [`protocol::control::MoverSettings`].

use std::io::{self, Write};

use clap::{ArgGroup, Subcommand};
use protocol::control::spec::Size;
use protocol::control::{MoverSettings, MoverStatus};
use serde::Serialize;

use super::cli::print;
use super::control::Control;
use super::list;
use super::ui::human;

/// `offhost movers …`
#[derive(Debug, Subcommand)]
pub enum MoversAction {
    /// Movers and what each has moved
    List,
    /// Choose how many there are and how fast they may be
    #[command(group = ArgGroup::new("what").required(true).multiple(true))]
    Set {
        /// Processes on the target's host
        #[arg(long, value_name = "COUNT", group = "what")]
        count: Option<u8>,
        /// Bytes a second that each mover writes at most, as 100MiB, or "none"
        #[arg(long, value_name = "SIZE", group = "what", value_parser = rate)]
        rate: Option<Rate>,
        /// Bytes a second that each job writes at most, or "none"
        #[arg(long, value_name = "SIZE", group = "what", value_parser = rate)]
        job_rate: Option<Rate>,
        /// Priority of their input and output, 0 to 7, of which 1 is that of other programs; or "none": what each copy asks for
        #[arg(long, value_name = "PRIORITY", group = "what", value_parser = priority)]
        priority: Option<Priority>,
    },
}

/// A rate, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(Option<u64>);

/// A priority, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority(Option<u8>);

fn rate(text: &str) -> Result<Rate, String> {
    if text == "none" { Ok(Rate(None)) } else { text.parse::<Size>().map(|size| Rate(Some(size.0))) }
}

fn priority(text: &str) -> Result<Priority, String> {
    match text {
        "none" => Ok(Priority(None)),
        text => text.parse().map(|level| Priority(Some(level))).map_err(|_| format!("{text:?} is no number from 0 to 7")),
    }
}

/// What `--json` gives.
#[derive(Debug, Serialize)]
struct Report {
    settings: MoverSettings,
    movers: Vec<MoverStatus>,
}

/// Carries out a subcommand.
///
/// # Errors
/// What the target says, and those of the output.
pub async fn movers(control: &Control, action: MoversAction, json: bool) -> anyhow::Result<()> {
    if let MoversAction::Set { count, rate, job_rate, priority } = action {
        let old = control.movers().await?;
        let settings = MoverSettings {
            movers: count.unwrap_or(old.movers),
            bytes_per_second: rate.map_or(old.bytes_per_second, |rate| rate.0),
            job_bytes_per_second: job_rate.map_or(old.job_bytes_per_second, |rate| rate.0),
            priority: priority.map_or(old.priority, |priority| priority.0),
        };
        control.set_movers(&settings).await?;
    }
    let report = Report { settings: control.movers().await?, movers: control.status().await?.movers };
    print(json, &report, |out| tell(&report, out))
}

fn tell(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let Report { settings, movers } = report;
    let limit = |rate: Option<u64>| rate.map_or_else(|| "as fast as it goes".to_owned(), |rate| format!("{}/s", human(rate)));
    writeln!(out, "movers on this host: {}", settings.movers)?;
    writeln!(out, "each writes: {}; each job: {}", limit(settings.bytes_per_second), limit(settings.job_bytes_per_second))?;
    if let Some(priority) = settings.priority {
        writeln!(out, "priority of input and output: {priority}")?;
    }
    let total: u64 = movers.iter().map(|mover| mover.bytes_moved).fold(0, u64::saturating_add);
    let mut table = list::plain(&["mover", "state", "jobs", "moved", "share", "read", "memory"]);
    for mover in movers {
        let who = match (&mover.name, mover.address) {
            (Some(name), Some(address)) => format!("{name} at {address}"),
            _ => format!("process {}", mover.pid),
        };
        let share = if total == 0 { String::new() } else { format!("{:.0} %", mover.bytes_moved as f64 * 100.0 / total as f64) };
        let memory = if mover.memory == 0 { String::new() } else { human(mover.memory) };
        let state = if mover.busy { "works" } else { "waits" };
        table.add_row([
            who,
            state.to_owned(),
            mover.jobs.to_string(),
            human(mover.bytes_moved),
            share,
            human(mover.bytes_read),
            memory,
        ]);
    }
    writeln!(out, "{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_sizes_or_none() {
        assert_eq!(rate("100MiB"), Ok(Rate(Some(100 << 20))));
        assert_eq!((rate("none"), priority("none")), (Ok(Rate(None)), Ok(Priority(None))));
        assert!(rate("fast").is_err() && priority("high").is_err());
    }
}
