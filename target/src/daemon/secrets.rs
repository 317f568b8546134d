//! Files of secrets as they were when they were read last: those that are others by now are read again with the next change.
//!
//! Knows names and times of files, and no secret: those are read by [`crate::config`]. Follows no standard.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::control::spec::ChapSpec;

use crate::config::Config;

/// The files that a configuration names.
#[derive(Debug, Default)]
pub(super) struct SecretFiles(BTreeMap<PathBuf, Option<Stamp>>);

/// Another one after every write: device, inode, bytes, and the time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl SecretFiles {
    /// As they are now; one that cannot be looked at is told of by who reads it. Blocks.
    pub(super) fn of(config: &Config) -> Self {
        let chap = config.targets.iter().flat_map(|target| &target.access).filter_map(|entry| entry.chap.as_ref());
        let chap = chap.chain(&config.discovery.chap).chain(config.remotes.iter().filter_map(|remote| remote.chap.as_ref()));
        let attach = config.movers.attach.iter().map(|attach| attach.secret_file.as_path());
        Self(chap.flat_map(files).chain(attach).map(|path| (path.to_owned(), stamp(path))).collect())
    }

    /// Takes out of `running` what came from files that are others `now`: so it differs from what is wanted.
    pub(super) fn forget_changed(&self, now: &Self, running: &mut Config) {
        let changed = |path: &Path| matches!((self.0.get(path), now.0.get(path)), (Some(then), Some(now)) if then != now);
        let same = |chap: &Option<ChapSpec>| !chap.iter().flat_map(files).any(changed);
        for target in &mut running.targets {
            target.access.retain(|entry| same(&entry.chap));
        }
        running.remotes.retain(|remote| same(&remote.chap));
        if !same(&running.discovery.chap) {
            running.discovery.chap = None;
        }
        // The port stays the same.
        if let Some(attach) = running.movers.attach.as_mut().filter(|attach| changed(&attach.secret_file)) {
            attach.secret_file = PathBuf::new();
        }
    }
}

fn files(chap: &ChapSpec) -> impl Iterator<Item = &Path> {
    [&chap.secret_file].into_iter().chain(&chap.mutual_secret_file).map(PathBuf::as_path)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_a_file_that_is_another_by_now_differs_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = |name: &str| {
            format!(
                "portal = \"192.0.2.1:3260\"\ntarget = \"iqn.2026-01.test:{name}\"\nlun = 0\ninitiators = [\"*\"]\n\
                 chap = {{ user = \"u\", secret_file = \"{}\" }}\n",
                path(name).display()
            )
        };
        let remotes = ["first", "second"].map(|name| toml::from_str(&text(name)).unwrap()).to_vec();
        let mut config = Config { remotes, ..Config::default() };
        config.discovery.chap = Some(ChapSpec { secret_file: path("second"), ..ChapSpec::default() });
        std::fs::write(path("first"), "one").unwrap();
        let before = SecretFiles::of(&config);
        let mut running = config.clone();
        before.forget_changed(&SecretFiles::of(&config), &mut running);
        assert_eq!((running.remotes.len(), running.discovery == config.discovery), (2, true), "as they were");

        // Put in place of the one before, as is done with secrets; and one that was missing.
        std::fs::write(path("new"), "two").unwrap();
        std::fs::rename(path("new"), path("first")).unwrap();
        before.forget_changed(&SecretFiles::of(&config), &mut running);
        assert_eq!((&running.remotes[..], running.discovery == config.discovery), (&config.remotes[1..], true));
        std::fs::write(path("second"), "three").unwrap();
        before.forget_changed(&SecretFiles::of(&config), &mut running);
        assert!(running.remotes.is_empty() && running.discovery.chap.is_none());
    }
}
