//! What idle sessions cost: memory of the target for each, and how often its threads wake up while nobody asks for anything.
//!
//! `cargo build --release && cargo bench -p offhost-tests --bench idle_sessions [-- SESSIONS [SECONDS]]`. Every session has logged in
//! and said nothing since. What is to be seen of pings depends on the seconds: they come after 30 s of silence.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use offhost_tests::pdus::{Names, login};
use offhost_tests::programs::{Target, program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u32>().ok());
    let (sessions, seconds) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(10));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(sessions, seconds))
}

async fn measure(sessions: u32, seconds: u32) -> Result<()> {
    let folder = tempfile::tempdir_in(program("offhost-target").parent().context("a folder")?)?;
    let file = format!(
        "data = \"data\"\ntarget = \"iqn.2026-01.test:idle\"\nlisten = \"127.0.0.1:0\"\n[limits]\nconnections = {}\n[[lun]]\ndisk = \"d.img\"\nsize = \"8MiB\"\n",
        sessions + 16
    );
    std::fs::write(folder.path().join("offhost.toml"), file)?;
    let target = Target::configured(folder.path(), "offhost.toml")?;
    let alone = wake_ups(&target, seconds).await?;
    let mut open = vec![enter(&target, 0).await?];
    let before = target.memory()?;
    for isid in 1..=sessions {
        open.push(enter(&target, isid).await?);
    }
    let after = target.memory()?;
    let beside = wake_ups(&target, seconds).await?;
    ensure!(open.len() as u32 == sessions + 1);
    let each = (after.saturating_sub(before) * 1024) / u64::from(sessions);
    println!("{sessions} idle sessions: {before} to {after} KiB, {each} bytes each");
    println!("wake-ups of all threads in {seconds} s: {alone} without sessions, {beside} with them");
    Ok(())
}

async fn enter(target: &Target, isid: u32) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(&target.portal).await?;
    let names = Names { initiator: "iqn.2026-01.test:idle", target: &target.name };
    stream.write_all(&login(names, isid, &[])).await?;
    let mut header = [0; 48];
    stream.read_exact(&mut header).await?;
    ensure!(header[36] == 0, "the login is refused: {:02x}{:02x}h", header[36], header[37]);
    let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
    stream.read_exact(&mut vec![0; length.next_multiple_of(4)]).await?;
    Ok(stream)
}

/// Voluntary context switches of the target in so many seconds: each is the end of a sleep.
async fn wake_ups(target: &Target, seconds: u32) -> Result<u64> {
    let before = switches(target)?;
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    // Threads that have nothing to do end meanwhile, and take their count with them.
    let after = switches(target)?;
    Ok(after.into_iter().map(|(thread, count)| count - before.get(&thread).unwrap_or(&0)).sum())
}

/// By thread.
fn switches(target: &Target) -> Result<BTreeMap<OsString, u64>> {
    let mut threads = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", target.pid()))? {
        let thread = thread?;
        let status = std::fs::read_to_string(thread.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).context("a thread's status")?;
        threads.insert(thread.file_name(), line.trim().parse()?);
    }
    Ok(threads)
}
