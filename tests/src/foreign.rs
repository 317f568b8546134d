//! Programs of others, as judges.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A `qemu-img` that knows iscsi://, or why there is none.
///
/// # Errors
/// What is missing.
pub fn qemu_img() -> Result<Command, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root");
    let private = root.join("build/foreign/qemu/usr");
    let mut candidates = vec![];
    if let Ok(folders) = std::fs::read_dir(private.join("lib")) {
        // Debian's module folder: lib/<architecture>/qemu.
        let modules = folders.flatten().map(|folder| folder.path().join("qemu")).find(|folder| folder.is_dir());
        candidates.extend(modules.map(|modules| (private.join("bin/qemu-img"), Some(modules))));
    }
    candidates.push((PathBuf::from("qemu-img"), None));
    for (program, modules) in candidates {
        let mut command = Command::new(program);
        if let Some(modules) = modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        let mut probe = clone(&command);
        let help = probe.arg("--help").output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        if help.is_ok_and(|help| help.split_whitespace().any(|word| word == "iscsi")) {
            return Ok(command);
        }
    }
    Err("no qemu-img here knows iscsi:// (Debian: qemu-utils with qemu-block-extra)".to_owned())
}

/// The same program with the same environment and no arguments.
#[must_use]
pub fn clone(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    copy
}
