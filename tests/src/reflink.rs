//! A file system that can make references: XFS in a file, mounted through a loop device.

use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::has;
use crate::programs::run;

/// Why none can be had here; `None` when one can.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    let kernel = std::fs::read_to_string("/proc/filesystems").is_ok_and(|known| known.contains("xfs")) || has("modprobe");
    match (has("mkfs.xfs"), Path::new("/dev/loop-control").exists(), nix::unistd::geteuid().is_root(), kernel) {
        (false, ..) => Some("mkfs.xfs is missing (Debian: xfsprogs)"),
        (_, false, ..) => Some("/dev/loop-control is missing"),
        (_, _, false, _) => Some("mounting needs root"),
        (_, _, _, false) => Some("this kernel has no XFS"),
        _ => None,
    }
}

/// A mounted file system that goes with the value.
#[derive(Debug)]
pub struct Reflinks {
    mount: TempDir,
    // Behind the mount, so that it is dropped later.
    _image: TempDir,
}

impl Reflinks {
    /// XFS of `size` bytes (at least 300 MiB) in a sparse file in `beside`.
    ///
    /// # Errors
    /// What mkfs.xfs and mount say.
    pub fn new(beside: &Path, size: u64) -> Result<Self> {
        let (image, mount) = (tempfile::tempdir_in(beside)?, tempfile::tempdir()?);
        let file = image.path().join("xfs.img");
        std::fs::File::create(&file)?.set_len(size)?;
        let path = file.to_str().context("a path of UTF-8")?;
        run("mkfs.xfs", ["-q", "-m", "reflink=1", path])?;
        run("mount", ["-o", "loop", path, mount.path().to_str().context("a path of UTF-8")?])?;
        Ok(Self { mount, _image: image })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mount.path()
    }
}

impl Drop for Reflinks {
    fn drop(&mut self) {
        // Lazily where somebody still has a file open: the loop device goes with the last of them.
        if run("umount", [self.path()]).is_err() {
            let _ = run("umount", [Path::new("-l"), self.path()]);
        }
    }
}
