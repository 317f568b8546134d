//! `load`: commands in flight, rates and latencies.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use offhost_sim::client::Options;
use offhost_sim::load::{LoadReport, Pattern, Workload, run};
use offhost_sim::url::Url;

use super::print_json;

#[derive(Debug, Args)]
pub struct LoadArguments {
    /// The disk
    url: Url,
    /// What to do
    #[arg(long, value_enum, default_value = "seq-read")]
    workload: Pattern,
    /// Bytes each command moves (k, m)
    #[arg(long, default_value = "64k", value_parser = size)]
    block_size: u64,
    /// Commands in flight, of each session
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Sessions at the same time, each on its own part of the disk
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    sessions: u32,
    /// Use only the first part of the disk (k, m, g)
    #[arg(long, default_value = "0", value_parser = size)]
    range: u64,
    /// Yes, overwrite the disk's data
    #[arg(long)]
    destroy: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `4096`, `64k`, `1m`, `2g`.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches("ib");
    let (digits, shift) = match lower.char_indices().last() {
        Some((at, 'k')) => (&lower[..at], 10),
        Some((at, 'm')) => (&lower[..at], 20),
        Some((at, 'g')) => (&lower[..at], 30),
        _ => (lower, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size: 4096, 64k, 1m, 2g"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

pub fn load(arguments: LoadArguments, options: &Options) -> anyhow::Result<()> {
    if arguments.workload.writes() && !arguments.destroy {
        bail!("this workload overwrites the disk's data: add --destroy");
    }
    let Ok(transfer_bytes) = u32::try_from(arguments.block_size) else { bail!("a command carries less than 4 GiB") };
    let Ok(duration) = Duration::try_from_secs_f64(arguments.seconds) else { bail!("{} seconds", arguments.seconds) };
    let workload = Workload {
        pattern: arguments.workload,
        transfer_bytes,
        depth: arguments.depth,
        sessions: arguments.sessions,
        duration,
        range_bytes: arguments.range,
    };
    let report = run(&arguments.url, options, workload)?;
    if arguments.json { print_json(&report) } else { print(&report) }
}

fn print(report: &LoadReport) -> anyhow::Result<()> {
    let latency = report.latency;
    say!("{:>12.1} MB/s", report.megabytes_per_second);
    say!("{:>12.0} commands/s ({} in {:.2} s)", report.commands_per_second, report.commands, report.elapsed_seconds);
    say!(
        "latency us: min {:.0}, mean {:.0}, p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        latency.min_us,
        latency.mean_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_the_usual_endings() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert!(size("").is_err() && size("1t").is_err() && size("99999999999999g").is_err());
    }
}
