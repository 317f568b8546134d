//! NTFS volumes made by foreign programs: mkntfs, and ntfs-3g through /dev/fuse.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::has;
use crate::programs::run;

/// Why volumes cannot be made here; `None` when they can.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    match (has("mkntfs") && has("ntfs-3g"), Path::new("/dev/fuse").exists(), nix::unistd::geteuid().is_root()) {
        (false, _, _) => Some("mkntfs and ntfs-3g are missing (Debian: ntfs-3g)"),
        (_, false, _) => Some("/dev/fuse is missing"),
        (_, _, false) => Some("mounting needs root"),
        _ => None,
    }
}

/// Formats a file as one NTFS volume, without a partition table.
///
/// # Errors
/// What mkntfs says.
pub fn format(image: &Path, size: u64, cluster: u32, sector: u32) -> Result<()> {
    std::fs::File::options().create(true).truncate(false).write(true).open(image)?.set_len(size)?;
    let (cluster, sector) = (cluster.to_string(), sector.to_string());
    let image = image.to_str().context("a path of UTF-8")?;
    run("mkntfs", ["-F", "-Q", "-q", "-c", &cluster, "-s", &sector, "-p", "0", "-H", "0", "-S", "0", image]).map(drop)
}

/// Mounts a volume, lets `change` work in it, and unmounts it.
///
/// # Errors
/// What ntfs-3g says, or what `change` returned.
pub fn mounted<T>(image: &Path, options: &str, change: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let folder = tempfile::tempdir()?;
    let status = Command::new("ntfs-3g").args(["-o", options]).arg(image).arg(folder.path()).status().context("ntfs-3g")?;
    ensure!(status.success(), "ntfs-3g cannot mount {}: {status}", image.display());
    let changed = change(folder.path());
    run("umount", [folder.path()])?;
    // The process writes back after umount has returned; the volume is whole once nothing holds the file.
    let until = Instant::now() + Duration::from_secs(60);
    while holds(image)? {
        ensure!(Instant::now() < until, "ntfs-3g still holds {} a minute after umount", image.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    changed
}

fn holds(image: &Path) -> Result<bool> {
    let image = image.canonicalize()?;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let own = process.file_name().to_str() == Some(&std::process::id().to_string());
        if !own && files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == image)) {
            return Ok(true);
        }
    }
    Ok(false)
}
