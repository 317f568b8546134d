//! Tapes too small, wrong or damaged, and disks that are not what they should be: `offhost` says what is wrong and where, ends with
//! the documented code, and writes over nothing.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use offhost_tests::agent::{Said, offhost};
use offhost_tests::control::status;
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::control::TapeStatus;
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Options};
use sim::url::Url;

const DISK: u16 = 0;
const TAPE: u16 = 1;
const OTHER: u16 = 2;
const SEED: u64 = 41;
/// Objects of a set of the disk: four tape files with their filemarks, 128 records of data.
const HEADER_TO_TRAILER: u64 = 128 + 4 + 4;
const FAILED: i32 = 1;
const INCOMPLETE: i32 = 3;
const REFUSED: i32 = 5;

/// A disk of 8 MiB that is full, a tape, and an empty disk of the same size.
struct World {
    folder: tempfile::TempDir,
    target: Target,
}

impl World {
    fn new(tape: &str, other: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        pattern::image(&folder.path().join("disk.img"), SEED, 8).unwrap();
        let target = Target::start(folder.path(), &["--disk", "disk.img", "--tape", tape, "--disk", other]).unwrap();
        Self { folder, target }
    }

    fn usual() -> Self {
        Self::new("shelf", "other.img:8MiB")
    }

    fn backup(&self, more: &[&str]) -> Said {
        let (from, to) = (self.target.url(DISK), self.target.url(TAPE));
        offhost(&self.target, &[&["backup", "--from", &from, "--to", &to, "--quiet", "0s"], more].concat())
    }

    fn restore(&self, more: &[&str]) -> Said {
        let (from, to) = (self.target.url(TAPE), self.target.url(OTHER));
        offhost(&self.target, &[&["restore", "--from", &from, "--to", &to], more].concat())
    }

    fn tape(&self) -> TapeStatus {
        status(&self.target.control()).unwrap().luns.into_iter().find_map(|lun| lun.tape).expect("there is a tape")
    }

    /// The tape's image.
    fn image(&self) -> PathBuf {
        let folders = std::fs::read_dir(self.folder.path().join("shelf")).unwrap();
        let mut images = folders.map(|entry| entry.unwrap().path().join("p0.tap"));
        images.find(|image| image.exists()).expect("a cartridge was made")
    }

    /// Stops the target, changes one byte of the tape's image behind the first place where `near` stands, and starts it anew.
    fn damage(self, near: &[u8]) -> Self {
        let Self { folder, mut target } = self;
        target.stop().unwrap();
        let world = Self { folder, target };
        let image = world.image();
        let bytes = std::fs::read(&image).unwrap();
        let at = bytes.windows(near.len()).position(|window| window == near).expect("it is on the tape") + near.len();
        let file = std::fs::File::options().write(true).open(&image).unwrap();
        file.write_all_at(&[bytes[at] ^ 0x04], at as u64).unwrap();
        let Self { folder, .. } = world;
        let target =
            Target::start(folder.path(), &["--disk", "disk.img", "--tape", "shelf", "--disk", "other.img:8MiB"]).unwrap();
        Self { folder, target }
    }

    fn other(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("other.img")).unwrap()
    }

    #[track_caller]
    fn nothing_restored(&self) {
        assert!(self.other().iter().all(|byte| *byte == 0), "the disk was written");
    }

    async fn client(&self, lun: u16) -> Client {
        let url: Url = self.target.url(lun).parse().unwrap();
        let client = Client::connect(&url, Options::named("iqn.2026-01.test:other")).await.unwrap();
        client.unit().test_unit_ready().await.unwrap();
        client
    }

    /// Puts plain records of another program on the tape.
    fn write_foreign_records(&self) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let client = self.client(TAPE).await;
            for index in 0..5 {
                client.unit().write_record(Bytes::from(pattern::bytes(3, index, 10_240))).await.unwrap();
            }
            client.unit().write_filemarks(1).await.unwrap();
            client.logout().await.unwrap();
        });
    }
}

fn disk_content() -> Vec<u8> {
    (0..8).flat_map(|mib| pattern::bytes(SEED, mib, 1 << 20)).collect()
}

#[test]
fn a_tape_too_small_ends_the_backup_incomplete_and_the_target_serves_on() {
    let world = World::new("shelf:4MiB", "other.img:8MiB");
    let said = world.backup(&[]);
    said.failed(INCOMPLETE, &["the backup failed while it was writing", "incomplete set"]);
    assert!(
        ["full", "end of the medium", "VOLUME OVERFLOW", "END-OF-PARTITION"].iter().any(|word| said.err.contains(word)),
        "{said:?}"
    );
    let now = status(&world.target.control()).unwrap();
    assert_eq!(now.snapshots, [], "the snapshot is released");
    let tape = world.tape();
    assert!(tape.object > 0 && tape.object <= tape.objects, "{tape:?}");
    let list = offhost(&world.target, &["list", "--from", &world.target.url(TAPE)]);
    list.succeeded();
    assert!(list.out.contains("INCOMPLETE"), "{list:?}");
    world.restore(&[]).failed(FAILED, &["no whole set"]);
    world.nothing_restored();
    // What is smaller goes on the same tape once it may be overwritten.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = world.client(DISK).await;
        client.unit().unmap(Lba(4096), 12_288).await.unwrap();
        client.logout().await.unwrap();
    });
    world.backup(&["--overwrite"]).succeeded();
    world.restore(&[]).succeeded();
    assert!(world.other()[..2 << 20] == disk_content()[..2 << 20]);
}

#[test]
fn an_empty_tape_and_a_foreign_tape_restore_nothing_and_say_so() {
    let world = World::usual();
    world.restore(&[]).failed(FAILED, &["no whole set", &world.target.url(TAPE)]);
    world.write_foreign_records();
    world.restore(&[]).failed(FAILED, &["no whole set"]);
    world.restore(&["--set", "abcd"]).failed(FAILED, &["no set \"abcd\""]);
    world.nothing_restored();
}

#[test]
fn a_tape_with_unknown_data_is_not_written_unless_asked_for() {
    let world = World::usual();
    world.write_foreign_records();
    let (before, image) = (world.tape(), std::fs::read(world.image()).unwrap());
    world.backup(&[]).failed(REFUSED, &["offhost did not write", "--append", "--overwrite"]);
    assert!(std::fs::read(world.image()).unwrap() == image, "the tape was written");
    assert_eq!(world.tape().objects, before.objects);
    world.backup(&["--append"]).succeeded();
    assert!(std::fs::read(world.image()).unwrap().starts_with(&image[..image.len() - 4]), "what was there is there");
    world.restore(&[]).succeeded();
    assert!(world.other() == disk_content());
    world.backup(&["--overwrite"]).succeeded();
    assert_eq!(world.tape().objects, HEADER_TO_TRAILER, "only the set is on the tape");
}

#[test]
fn a_damaged_header_is_named_and_nothing_is_restored() {
    let world = World::usual();
    world.backup(&["--label", "a label to be found"]).succeeded();
    let world = world.damage(b"a label to be foun");
    let said = world.restore(&[]);
    assert!([FAILED, INCOMPLETE].contains(&said.code), "{said:?}");
    assert!(said.err.contains("header") || said.err.contains("object 0"), "{said:?}");
    world.nothing_restored();
}

#[test]
fn a_damaged_catalog_is_named_and_nothing_is_restored() {
    let world = World::usual();
    world.backup(&[]).succeeded();
    // The manifest says so of itself, in the tape file of the catalog.
    let world = world.damage(b"log page 3Ah");
    let said = world.restore(&[]);
    assert!([FAILED, INCOMPLETE].contains(&said.code), "{said:?}");
    assert!(said.err.contains("catalog") || said.err.contains("object"), "{said:?}");
    world.nothing_restored();
}

#[test]
fn damaged_data_ends_the_restore_incomplete_and_is_never_taken_for_good() {
    let world = World::usual();
    world.backup(&[]).succeeded();
    let world = world.damage(&pattern::bytes(SEED, 5, 1 << 20)[..1000]);
    let said = world.restore(&[]);
    said.failed(INCOMPLETE, &["the disk holds only a part"]);
    assert!(world.other() != disk_content());
}

#[test]
fn disks_that_do_not_fit_are_refused() {
    let world = World::new("shelf", "other.img:4MiB");
    world.backup(&[]).succeeded();
    world.restore(&[]).failed(FAILED, &["choose a larger disk"]);
    world.restore(&["--overwrite"]).failed(FAILED, &["choose a larger disk"]);
    world.nothing_restored();

    let world = World::new("shelf", "other.img:8MiB,block=4096");
    world.backup(&[]).succeeded();
    world.restore(&["--overwrite"]).failed(FAILED, &["blocks of 4096 bytes"]);
    world.nothing_restored();
    let (disk, tape) = (world.target.url(DISK), world.target.url(TAPE));
    offhost(&world.target, &["restore", "--from", &disk, "--to", &disk]).failed(2, &["no tape"]);
    offhost(&world.target, &["restore", "--from", &tape, "--to", &tape]).failed(2, &["no disk"]);
}

#[test]
fn a_disk_that_holds_something_is_overwritten_only_when_asked_for() {
    let world = World::usual();
    world.backup(&[]).succeeded();
    let there = pattern::bytes(77, 0, 4096);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = world.client(OTHER).await;
        client.unit().write(Lba(0), Bytes::from(there.clone()), BlockLength::B512).await.unwrap();
        client.logout().await.unwrap();
    });
    // Whoever wrote has stopped for longer than counts as "at the moment".
    std::thread::sleep(Duration::from_millis(5_100));
    world.restore(&[]).failed(REFUSED, &["holds something", "--overwrite"]);
    assert!(world.other()[..4096] == there && world.other()[4096..].iter().all(|byte| *byte == 0));
    world.restore(&["--overwrite"]).succeeded();
    assert!(world.other() == disk_content());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_somebody_writes_to_is_not_restored_onto() {
    let world = World::usual();
    world.backup(&[]).succeeded();
    let client = world.client(OTHER).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (disk, stop) = (client.unit(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                // Zeros: the disk looks empty, so only the writing gives it away.
                disk.write(Lba(8), Bytes::from(vec![0; 4096]), BlockLength::B512).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (said, world) = tokio::task::spawn_blocking(move || (world.restore(&[]), world)).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    said.failed(REFUSED, &["somebody wrote", "--overwrite"]);
    world.nothing_restored();
}
