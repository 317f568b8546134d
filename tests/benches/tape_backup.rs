//! Backup of an NTFS volume to tape against `cp` of as many bytes on the same file system, side by side in one run.
//!
//! `cargo build --release && cargo bench -p offhost-tests --bench tape_backup [-- GIB ROUNDS]`, as root, with ntfs-3g installed.
//! Both sides end with their data synchronized. Files were written once before, so that no round pays for fresh memory.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use offhost_tests::programs::{Target, program};
use offhost_tests::{ntfs, pattern};

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (gib, rounds) = (numbers.next().unwrap_or(4), numbers.next().unwrap_or(5) as usize);
    if let Some(why) = ntfs::obstacle() {
        println!("SKIPPED tape_backup: {why}");
        return Ok(());
    }
    // On the file system of the build folder: /tmp may be memory.
    let folder = tempfile::tempdir_in(program("offhost").parent().context("a folder")?)?;
    let image = folder.path().join("volume.img");
    ntfs::format(&image, (gib + 1) << 30, 4096, 512)?;
    ntfs::mounted(&image, "rw", |mount| fill(mount, gib))?;
    let used = folder.path().join("used.bin");
    fill_file(&used, gib << 30, 0)?;

    let target = Target::start(folder.path(), &["--disk", "volume.img", "--tape", "shelf"])?;
    println!("{gib} GiB used, {rounds} rounds after one that does not count");
    let mut backups = Vec::new();
    let mut copies = Vec::new();
    for round in 0..=rounds {
        let (backup, moved) = back_up(&target)?;
        let copy = copy(&used, &folder.path().join("copy.bin"))?;
        ensure!(moved >= gib << 30, "only {moved} bytes were moved");
        if round > 0 {
            println!(
                "  round {round}: backup {backup:.2} s ({:.0} MB/s), cp {copy:.2} s, ratio of rates {:.2}",
                moved as f64 / backup / 1e6,
                copy / backup
            );
            backups.push(backup);
            copies.push(copy);
        }
    }
    let (backup, copy) = (median(&mut backups), median(&mut copies));
    println!("median: backup {backup:.2} s, cp {copy:.2} s, backup's rate is {:.2} x cp's", copy / backup);
    Ok(())
}

fn fill(mount: &Path, gib: u64) -> Result<()> {
    for index in 0..gib * 8 {
        fill_file(&mount.join(format!("file{index}.bin")), (1 << 27) - (8 << 16), index)?;
    }
    Ok(())
}

fn fill_file(path: &Path, len: u64, seed: u64) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let block = pattern::bytes(seed, 0, 1 << 20);
    let mut left = len;
    while left > 0 {
        let now = left.min(block.len() as u64);
        file.write_all(&block[..now as usize])?;
        left -= now;
    }
    file.sync_all()?;
    Ok(())
}

/// Seconds, and bytes that the mover moved.
fn back_up(target: &Target) -> Result<(f64, u64)> {
    let moved = || Ok::<_, anyhow::Error>(offhost_tests::control::status(&target.control())?.copies.bytes_moved);
    let before = moved()?;
    let start = Instant::now();
    let output = Command::new(program("offhost"))
        .args(["backup", "--from", &target.url(0), "--to", &target.url(1), "--quiet", "0s", "--overwrite", "--json"])
        .arg("--control")
        .arg(target.control())
        .output()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(output.status.success(), "offhost backup: {}", String::from_utf8_lossy(&output.stderr));
    Ok((seconds, moved()? - before))
}

fn copy(from: &Path, to: &Path) -> Result<f64> {
    let start = Instant::now();
    ensure!(Command::new("cp").arg("--reflink=never").arg(from).arg(to).status()?.success(), "cp");
    std::fs::File::open(to)?.sync_data()?;
    Ok(start.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
