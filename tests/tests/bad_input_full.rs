//! Full file systems, for real: under a cartridge that a copy writes, and under the copy store of a snapshot. What was there stays,
//! what failed says so, hosts go on writing, and with room made the same thing succeeds.

use bytes::Bytes;
use offhost_tests::agent::offhost;
use offhost_tests::control::status;
use offhost_tests::copies::{RECORD, disk_to_tape, read_tape};
use offhost_tests::programs::Target;
use offhost_tests::small::Small;
use offhost_tests::{pattern, skip};
use protocol::scsi::SenseKey;
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Options};

const DISK: u16 = 0;
const TAPE: u16 = 1;
const SEED: u64 = 31;

async fn client(target: &Target) -> Client {
    let url = target.url(DISK).parse().unwrap();
    Client::connect(&url, Options::named("iqn.2026-01.test:full")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_onto_a_full_file_system_ends_with_whole_records_and_succeeds_after_room_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(&folder.path().join("shelf"), 16) else {
        skip!("no small file system could be mounted (needs root)");
    };
    pattern::image(&folder.path().join("disk.img"), SEED, 8).unwrap();
    let flags = ["--disk", "disk.img", "--tape", "shelf"];
    let mut target = Target::start(folder.path(), &flags).unwrap();
    let session = client(&target).await;
    let tape = session.lun(TAPE);
    session.lun(DISK).test_unit_ready().await.unwrap();
    tape.test_unit_ready().await.unwrap();
    let ballast = small.fill(3 << 20).unwrap();
    let records = 8 * 16;
    let list = disk_to_tape(&session, DISK, TAPE, records).await.unwrap();
    let content: Vec<u8> = (0..8).flat_map(|mib| pattern::bytes(SEED, mib, 1 << 20)).collect();
    let check = |index: u64, data: Bytes| {
        assert!(data == content[index as usize * RECORD as usize..][..RECORD as usize], "record {index}");
    };

    let refused = tape.extended_copy(list.clone()).await.expect_err("8 MiB do not go into 3");
    let sense = refused.sense().unwrap_or_else(|| panic!("{refused}"));
    assert_eq!(sense.key, SenseKey::CopyAborted, "{refused}");
    let tapes_own = sense.forwarded.first().map(|forwarded| forwarded.sense.clone()).unwrap_or_default();
    assert_eq!(tapes_own.get(2).map(|byte| byte & 0x4F), Some(0x40 | SenseKey::VolumeOverflow as u8), "EOM and {refused}");
    let at = tape.read_position().await.unwrap().object;
    assert!(at < records, "{at} records of 64 KiB in 3 MiB");
    assert_eq!(read_tape(&session, TAPE, check).await.unwrap(), at);
    // The drive goes on: a host's record is refused in the drive's own words while there is no room.
    let refused = loop {
        match tape.write_record(Bytes::from(vec![1; 65_536])).await {
            Ok(_) => assert!(tape.read_position().await.unwrap().object < records, "there never was no room"),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.sense().map(|sense| sense.key), Some(SenseKey::VolumeOverflow), "{refused}");

    std::fs::remove_file(ballast).unwrap();
    tape.rewind().await.unwrap();
    tape.extended_copy(list).await.unwrap();
    tape.write_filemarks(0).await.unwrap();
    assert_eq!(read_tape(&session, TAPE, check).await.unwrap(), records);
    target.kill();
    let target = Target::start(folder.path(), &flags).unwrap();
    assert_eq!(read_tape(&client(&target).await, TAPE, check).await.unwrap(), records);
}

fn tape_objects(target: &Target) -> u64 {
    let luns = status(&target.control()).unwrap().luns;
    luns.iter().find_map(|lun| lun.tape.as_ref()).expect("the target has a tape").objects
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_copy_store_fails_the_backup_and_never_a_hosts_write() {
    let folder = tempfile::tempdir().unwrap();
    // The copy store lies in the data folder.
    let Some(small) = Small::mount(&folder.path().join("data"), 16) else {
        skip!("no small file system could be mounted (needs root)");
    };
    pattern::image(&folder.path().join("disk.img"), SEED, 64).unwrap();
    let target = Target::start(folder.path(), &["--disk", "disk.img", "--tape", "shelf"]).unwrap();
    let session = client(&target).await;
    let disk = session.lun(DISK);
    disk.test_unit_ready().await.unwrap();
    let ballast = small.fill(1 << 20).unwrap();

    let (from, to) = (target.url(DISK), target.url(TAPE));
    let arguments = ["backup", "--from", &from, "--to", &to, "--quiet", "0s", "--command-bytes", "1048576"].map(str::to_owned);
    let backup = tokio::task::spawn_blocking({
        let (program, folder, control) = (offhost_tests::programs::program("offhost"), target.folder.clone(), target.control());
        move || {
            let mut command = std::process::Command::new(program);
            command.args(arguments).current_dir(&folder).env("OFFHOST_CONTROL", control);
            command.env("XDG_DATA_HOME", folder.join("catalog")).output().unwrap()
        }
    });
    // Not before the tape moves: a snapshot lost while the disk is still being mapped leaves no incomplete set behind.
    while tape_objects(&target) == 0 {
        assert!(!backup.is_finished(), "{:?}", backup.await);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // Every chunk from the end on, so that the copy meets what it must not read.
    for chunk in (0..64 * 16).rev().step_by(4) {
        let data = Bytes::from(pattern::bytes(SEED + 1, chunk, 4096));
        disk.write(Lba(chunk * 128), data, BlockLength::B512).await.expect("a host's write never fails");
    }
    let output = backup.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("snapshot"), "{said}");
    let now = status(&target.control()).unwrap();
    assert_eq!(now.snapshots, [], "the snapshot is released");
    for chunk in (0..64 * 16).rev().step_by(4) {
        let found = disk.read(Lba(chunk * 128), 8, BlockLength::B512).await.unwrap();
        assert!(found == pattern::bytes(SEED + 1, chunk, 4096), "chunk {chunk}");
    }

    // With room, and nobody who writes, the next backup goes behind the incomplete set.
    std::fs::remove_file(ballast).unwrap();
    tokio::task::spawn_blocking(move || {
        offhost(&target, &["backup", "--from", &from, "--to", &to, "--quiet", "0s"]).succeeded();
        let list = offhost(&target, &["list", "--from", &to]);
        assert!(list.out.contains("INCOMPLETE") && list.out.contains("whole"), "{}", list.out);
    })
    .await
    .unwrap();
}
