//! The map of an NTFS volume against sleuthkit's `fls` and the `ntfs` crate, side by side in one run.
//!
//! `cargo bench -p offhost-tests --bench ntfs_map -- IMAGE [ROUNDS]`, or without an image `-- FILES` to make a volume of so many
//! files first (as root, with ntfs-3g; 200,000 take some minutes). Ours reads more than either: names with their directories
//! checked, all attributes and runs, and $Bitmap. The crate's side is the small program in `ntfs-crate`, which needs the network
//! to be built for the first time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use datamover::map::probe;
use datamover::map::source::FileSource;
use offhost_tests::{has, ntfs, programs};

/// A way to the map, which tells what it found.
type Side<'a> = Box<dyn Fn() -> Result<String> + 'a>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds = arguments.get(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let folder = tempfile::tempdir_in(programs::program("offhost").parent().context("a folder")?)?;
    let image = match arguments.first().map(|argument| (argument, argument.parse::<u64>())) {
        Some((path, Err(_))) => PathBuf::from(path),
        files => match ntfs::obstacle() {
            Some(why) => {
                println!("SKIPPED ntfs_map: {why}");
                return Ok(());
            }
            None => make(folder.path(), files.and_then(|(_, files)| files.ok()).unwrap_or(200_000))?,
        },
    };
    let mut sides: Vec<(&str, Side<'_>)> = vec![("offhost map", Box::new(|| ours(&image)))];
    if has("fls") {
        sides.push(("fls -r -p", Box::new(|| fls(&image))));
    } else {
        println!("SKIPPED fls: missing here (Debian: sleuthkit)");
    }
    match crate_baseline() {
        Ok(program) => {
            let image = &image;
            sides.push(("ntfs crate", Box::new(move || Ok(programs::run(&program, [image])?.trim().to_owned()))));
        }
        Err(error) => println!("SKIPPED ntfs crate: {error:#}"),
    }
    for (name, side) in sides {
        // The first round brings the image into memory and does not count.
        let first = side()?;
        let mut seconds = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let started = Instant::now();
            side()?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let (low, high) = (seconds.first().context("no round")?, seconds.last().context("no round")?);
        println!("{name}: median {:.3} s ({low:.3} to {high:.3}) of {rounds}; {first}", seconds[rounds / 2]);
    }
    Ok(())
}

fn ours(image: &Path) -> Result<String> {
    let map = probe(&FileSource::open(image, 512)?)?;
    let volume = map.volumes.iter().find_map(|volume| volume.ntfs.as_ref()).context("no NTFS volume")?;
    let (files, memory) = (volume.catalog.len(), volume.catalog.memory());
    Ok(format!("{files} files, {} bytes of tables per file, {} bytes read", memory / files.max(1), map.metadata_bytes))
}

fn fls(image: &Path) -> Result<String> {
    let output = Command::new("fls").args(["-r", "-p", "-f", "ntfs"]).arg(image).output()?;
    ensure!(output.status.success(), "fls: {}", String::from_utf8_lossy(&output.stderr));
    Ok(format!("{} lines", output.stdout.iter().filter(|byte| **byte == b'\n').count()))
}

fn crate_baseline() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let build = root.parent().context("tests/ lies in the root")?.join("build/ntfs-crate");
    let manifest = root.join("benches/ntfs-crate/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&build)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(build.join("release/ntfs-crate-baseline"))
}

/// Files of 5000 bytes, every fourth small enough for its record, 500 in a folder.
fn make(folder: &Path, files: u64) -> Result<PathBuf> {
    let image = folder.join("volume.img");
    ntfs::format(&image, (files * 16384).max(64 << 20), 4096, 512)?;
    ntfs::mounted(&image, "rw", |mount| {
        for number in 0..files {
            let folder = mount.join(format!("folder-{:04}", number / 500));
            if number % 500 == 0 {
                std::fs::create_dir(&folder)?;
            }
            let len = if number % 4 == 0 { 100 } else { 5000 };
            std::fs::write(folder.join(format!("a-file-with-a-name-{number:07}.dat")), vec![b'x'; len])?;
        }
        Ok(())
    })?;
    Ok(image)
}
