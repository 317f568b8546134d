//! Whole volumes go to tape and come back: every used byte of NTFS volumes with small, usual and large clusters, on 512-byte and
//! 4096-byte blocks, full and almost empty, while a writer never stops.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use datamover::map::probe;
use datamover::map::source::FileSource;
use offhost_tests::programs::{Target, program, run};
use offhost_tests::{has, ntfs, pattern, skip};
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Options};
use sim::url::Url;

fn offhost(target: &Target, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("offhost"));
    command.args(arguments).arg("--control").arg(target.control()).current_dir(&target.folder);
    command.env("XDG_DATA_HOME", target.folder.join("catalog")).output().expect("offhost starts")
}

fn succeed(target: &Target, arguments: &[&str]) -> serde_json::Value {
    let output = offhost(target, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "offhost {arguments:?}: {}\n{out}\n{err}\n{}", output.status, target.log());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("offhost {arguments:?} said {out}: {error}"))
}

/// Every byte that the map of `original` calls used is the same in `restored`.
fn assert_used_bytes_equal(original: &Path, restored: &Path, block: u32) {
    let map = probe(&FileSource::open(original, block).unwrap()).unwrap();
    assert!(!map.used.is_empty());
    let (a, b) = (std::fs::File::open(original).unwrap(), std::fs::File::open(restored).unwrap());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for run in map.used.runs() {
        let mut at = run.start;
        while at < run.end() {
            let len = (run.end() - at).min(left.len() as u64) as usize;
            a.read_exact_at(&mut left[..len], at).unwrap();
            b.read_exact_at(&mut right[..len], at).unwrap();
            assert!(left[..len] == right[..len], "bytes {at}..{} differ", at + len as u64);
            at += len as u64;
        }
    }
}

fn fill(mount: &Path, files: u64, len: usize) {
    std::fs::create_dir_all(mount.join("a/b/c")).unwrap();
    for index in 0..files {
        let name = if index % 3 == 0 { format!("a/b/c/datei-ü-{index}") } else { format!("file{index}") };
        std::fs::write(mount.join(name), pattern::bytes(21, index, len + index as usize)).unwrap();
    }
    std::fs::write(mount.join("small"), b"lies in its record").unwrap();
    // Holes between files, so that the compact copy differs from the disk.
    for index in (1..files).step_by(5).filter(|index| index % 3 != 0) {
        std::fs::remove_file(mount.join(format!("file{index}"))).unwrap();
    }
}

struct Volume {
    cluster: u32,
    sector: u32,
    files: u64,
    len: usize,
}

fn there_and_back(volume: &Volume) {
    if let Some(why) = ntfs::obstacle() {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("volume.img");
    ntfs::format(&image, 96 << 20, volume.cluster, volume.sector).unwrap();
    ntfs::mounted(&image, "rw", |mount| {
        fill(mount, volume.files, volume.len);
        Ok(())
    })
    .unwrap();
    let before = folder.path().join("before.img");
    run("cp", ["--sparse=always", image.to_str().unwrap(), before.to_str().unwrap()]).unwrap();

    let block = format!(",block={}", volume.sector);
    let (disk, other) = (format!("volume.img{block}"), format!("other.img:96MiB{block}"));
    let mut target = Target::start(folder.path(), &["--disk", &disk, "--tape", "shelf", "--disk", &other]).unwrap();
    let (from, tape, to) = (target.url(0), target.url(1), target.url(2));
    let set = succeed(&target, &["backup", "--from", &from, "--to", &tape, "--quiet", "100ms", "--json"]);
    assert!(set.is_object(), "{set}");
    succeed(&target, &["restore", "--from", &tape, "--latest", "--to", &to, "--json"]);
    target.stop().unwrap();
    let restored = folder.path().join("other.img");
    assert_used_bytes_equal(&before, &restored, volume.sector);

    // Others agree that it is the same volume.
    let hashes = |image: &Path| {
        ntfs::mounted(image, "ro", |mount| {
            let listing =
                run("sh", ["-c", &format!("cd '{}' && find . -type f -print0 | sort -z | xargs -0 sha256sum", mount.display())])?;
            Ok(listing)
        })
    };
    let listing = hashes(&before).unwrap();
    assert!(listing.lines().count() > 1, "{listing}");
    assert_eq!(listing, hashes(&restored).unwrap());
    if volume.sector == 512 && has("fls") {
        let names = |image: &PathBuf| run("fls", ["-r", "-p", "-f", "ntfs", image.to_str().unwrap()]).unwrap();
        assert_eq!(names(&before), names(&restored));
    }
}

#[test]
fn a_volume_with_512_byte_clusters() {
    there_and_back(&Volume { cluster: 512, sector: 512, files: 150, len: 40_000 });
}

#[test]
fn a_full_volume_with_4_kib_clusters() {
    there_and_back(&Volume { cluster: 4096, sector: 512, files: 80, len: 1_050_000 });
}

#[test]
fn a_volume_with_64_kib_clusters() {
    there_and_back(&Volume { cluster: 65_536, sector: 512, files: 100, len: 300_000 });
}

#[test]
fn a_volume_with_4_kib_sectors_on_a_lun_of_4096_byte_blocks() {
    there_and_back(&Volume { cluster: 4096, sector: 4096, files: 100, len: 200_000 });
}

#[test]
fn an_almost_empty_volume() {
    there_and_back(&Volume { cluster: 4096, sector: 512, files: 1, len: 0 });
}

/// Volumes that Windows wrote: raw images named `*.raw` in the folder that OFFHOST_NTFS_SAMPLES names. They are others' work, so
/// they are fetched for a run and not kept here.
#[test]
fn volumes_that_windows_wrote() {
    let Some(samples) = std::env::var_os("OFFHOST_NTFS_SAMPLES") else {
        skip!(
            "OFFHOST_NTFS_SAMPLES names no folder with NTFS images that Windows wrote (as those of msuhanov/ntfs-samples, unpacked)"
        );
    };
    let images = std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().path());
    let images: Vec<_> = images.filter(|path| path.extension().is_some_and(|end| end == "raw")).collect();
    assert!(!images.is_empty(), "no *.raw in OFFHOST_NTFS_SAMPLES");
    for sample in images {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("volume.img");
        run("cp", ["--sparse=always", sample.to_str().unwrap(), image.to_str().unwrap()]).unwrap();
        let size = std::fs::metadata(&image).unwrap().len().next_multiple_of(512);
        std::fs::File::options().write(true).open(&image).unwrap().set_len(size).unwrap();
        let other = format!("other.img:{size}B");
        let mut target = Target::start(folder.path(), &["--disk", "volume.img", "--tape", "shelf", "--disk", &other]).unwrap();
        let (from, tape, to) = (target.url(0), target.url(1), target.url(2));
        succeed(&target, &["backup", "--from", &from, "--to", &tape, "--quiet", "0s", "--json"]);
        succeed(&target, &["restore", "--from", &tape, "--latest", "--to", &to, "--json"]);
        target.stop().unwrap();
        assert_used_bytes_equal(&image, &folder.path().join("other.img"), 512);
    }
}

/// Overwrites the disk again and again, as fast as it goes, until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    async fn start(target: &Target, blocks: u64, pause: std::time::Duration) -> Self {
        let url: Url = target.url(0).parse().unwrap();
        let client = Client::connect(&url, Options::named("iqn.2026-01.test:writer")).await.unwrap();
        client.unit().test_unit_ready().await.unwrap();
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn({
            let (stop, writes) = (Arc::clone(&stop), Arc::clone(&writes));
            async move {
                let disk = client.unit();
                for round in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let block = round.wrapping_mul(7919) % (blocks / 8) * 8;
                    let data = Bytes::from(pattern::bytes(99, round, 4096));
                    disk.write(Lba(block), data, BlockLength::B512).await.expect("the host's writes never fail");
                    writes.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            }
        });
        Self { stop, writes, task }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.writes.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_at_the_snapshot_is_restored_while_a_writer_never_stops() {
    if let Some(why) = ntfs::obstacle() {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("volume.img");
    ntfs::format(&image, 96 << 20, 4096, 512).unwrap();
    ntfs::mounted(&image, "rw", |mount| {
        fill(mount, 60, 1_000_000);
        Ok(())
    })
    .unwrap();
    let before = folder.path().join("before.img");
    run("cp", ["--sparse=always", image.to_str().unwrap(), before.to_str().unwrap()]).unwrap();
    let mut target =
        Target::start(folder.path(), &["--disk", "volume.img", "--tape", "shelf", "--disk", "other.img:96MiB"]).unwrap();
    let (from, tape, to) = (target.url(0), target.url(1), target.url(2));

    // The writer begins behind the snapshot, which the backup says aloud, and then it never stops: the state before it is known.
    let backup = {
        let mut command = Command::new(program("offhost"));
        command.args(["backup", "--from", &from, "--to", &tape, "--quiet", "0s", "--json", "--control"]).arg(target.control());
        command.env("XDG_DATA_HOME", folder.path().join("catalog")).current_dir(folder.path());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    for _ in 0..5_000 {
        if !offhost_tests::control::status(&target.control()).unwrap().snapshots.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let writer = Writer::start(&target, 96 << 11, std::time::Duration::ZERO).await;
    let output = tokio::task::spawn_blocking(move || backup.wait_with_output()).await.unwrap().unwrap();
    let writes = writer.stop().await;
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), target.log());
    assert!(writes > 10, "only {writes} writes came during the backup");
    succeed(&target, &["restore", "--from", &tape, "--latest", "--to", &to, "--json"]);
    target.stop().unwrap();
    assert_ne!(std::fs::read(&image).unwrap(), std::fs::read(&before).unwrap(), "the writer changed nothing");
    assert_used_bytes_equal(&before, &folder.path().join("other.img"), 512);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_never_pauses_fails_the_backup_after_80_s_with_code_4() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "volume.img:64MiB", "--tape", "shelf"]).unwrap();
    // 2.5 s and not 2.9 s, which a busy machine would stretch to 3: the exact edges are tested on virtual time.
    let writer = Writer::start(&target, 64 << 11, std::time::Duration::from_millis(2_500)).await;
    let (from, tape) = (target.url(0), target.url(1));
    let object = |target: &Target| {
        let said = offhost_tests::control::status(&target.control()).unwrap();
        (said.luns.iter().find_map(|lun| lun.tape.clone()).unwrap().object, said.snapshots.len(), said.copies.done)
    };
    let before = object(&target);
    let start = std::time::Instant::now();
    let (output, target) =
        tokio::task::spawn_blocking(move || (offhost(&target, &["backup", "--from", &from, "--to", &tape]), target))
            .await
            .unwrap();
    let took = start.elapsed();
    writer.stop().await;
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!((79.9..84.0).contains(&took.as_secs_f64()), "it gave up after {took:?}");
    assert_eq!(object(&target), before, "tape position, snapshots and copies are as before");
}
