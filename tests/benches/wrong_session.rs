//! What a session that does everything wrong leaves of a well-behaved one's rate: alone, beside, and the ratio, kind by kind.
//!
//! `cargo build --release && cargo bench -p offhost-tests --bench wrong_session [-- SECONDS [WORDS]]`: seconds of each measurement;
//! of the kinds only those whose names have the words. The wrong session runs on a thread beside the well-behaved one and takes its
//! share of the machine, so that what is printed is the least that is left. The witness writes and reads 16 KiB, four at a time.

use std::time::Duration;

use anyhow::{Context, Result};
use offhost_tests::programs::{Target, program};
use offhost_tests::witness::Witness;
use offhost_tests::wrong::KINDS;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let seconds = arguments.first().map_or(Ok(1.0), |seconds| seconds.parse()).context("SECONDS")?;
    let words = arguments[1.min(arguments.len())..].join(" ");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(Duration::from_secs_f64(seconds), &words))
}

async fn measure(time: Duration, words: &str) -> Result<()> {
    let folder = tempfile::tempdir_in(program("offhost-target").parent().context("a folder")?)?;
    let target = Target::start(folder.path(), &["--disk", "wrong.img:8MiB", "--disk", "witness.img:8MiB"])?;
    let witness = Witness::start(&target, 1, 4).await?;
    println!("{:>10} {:>10} {:>6} {:>9}", "alone/s", "beside/s", "ratio", "RSS KiB");
    let (mut least, mut sum, mut count) = (f64::MAX, 0.0, 0);
    for wrong in KINDS.iter().filter(|wrong| wrong.name.contains(words)) {
        // Alone before and behind, so that a machine that changes its speed does not favour either.
        let before = rate(&witness, time / 2).await;
        let until = Instant::now() + time;
        let beside = std::thread::scope(|scope| {
            scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                    wrong.run(&target, until).await;
                    std::io::Result::Ok(())
                })
            });
            tokio::task::block_in_place(|| Handle::current().block_on(rate(&witness, time)))
        });
        let memory = target.memory()?;
        let alone = (before + rate(&witness, time / 2).await) / 2.0;
        let ratio = beside / alone;
        println!("{alone:>10.0} {beside:>10.0} {ratio:>6.2} {memory:>9}  {}", wrong.name);
        (least, sum, count) = (least.min(ratio), sum + ratio, count + 1);
    }
    println!("least ratio {least:.2}, mean {:.2}, of {count} kinds", sum / f64::from(count.max(1)));
    witness.end().await;
    Ok(())
}

/// Rounds of the witness, each second.
async fn rate(witness: &Witness, time: Duration) -> f64 {
    let (begun, before) = (Instant::now(), witness.rounds());
    sleep_until(begun + time).await;
    (witness.rounds() - before) as f64 / begun.elapsed().as_secs_f64()
}
