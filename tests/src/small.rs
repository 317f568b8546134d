//! A small file system that runs full for real.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a few MiB that is gone with the test, also when that panics.
#[derive(Debug)]
pub struct Small(PathBuf);

impl Small {
    /// Mounts one, in a folder that is made; `None` where mounting is not allowed.
    #[must_use]
    pub fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).ok()?;
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }

    /// Takes all the room but so many bytes, until the file returned is removed.
    ///
    /// # Errors
    /// Those of the file, but for the one that there is no more room.
    pub fn fill(&self, leave: u64) -> std::io::Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path)?;
        while file.write_all(&[0xAB; 4096]).is_ok() {}
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(leave))?;
        Ok(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
