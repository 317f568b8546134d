//! `kill -9` of the mover in the middle of a copy: the command ends COPY ABORTED, the target serves on, the tape ends at a whole
//! record and its position is known, and a rerun succeeds. The same for the target: its orphaned mover writes nothing more.

use std::time::Duration;

use offhost_tests::control::status;
use offhost_tests::copies::{RECORD, disk_to_tape, read_tape};
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::scsi::SenseKey;
use sim::client::{Client, ClientError, Options};
use sim::url::Url;

const DISK: u16 = 0;
const TAPE: u16 = 1;
const RECORDS: u64 = 8_192; // 512 MiB: long enough to be hit in the middle
const FLAGS: [&str; 4] = ["--disk", "disk.img", "--tape", "shelf"];

fn write_disk(folder: &std::path::Path) {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(folder.join("disk.img")).unwrap());
    for index in 0..RECORDS {
        file.write_all(&pattern::bytes(11, index, RECORD as usize)).unwrap();
    }
    file.flush().unwrap();
}

async fn client(target: &Target) -> Client {
    let url: Url = target.url(DISK).parse().unwrap();
    Client::connect(&url, Options::named("iqn.2026-01.test:faults")).await.unwrap()
}

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// False for a process that has ended, whether or not somebody has waited for it.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until a mover has moved something of a running copy, and says its process.
async fn busy_mover(target: &Target) -> u32 {
    for _ in 0..2_000 {
        let said = status(&target.control()).unwrap();
        if let Some(mover) = said.movers.iter().find(|mover| mover.busy && mover.bytes_moved > 1 << 20) {
            return mover.pid;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no mover was ever busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mover_aborts_the_copy_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_disk(folder.path());
    let target = Target::start(folder.path(), &FLAGS).unwrap();
    let client = client(&target).await;
    let tape = client.lun(TAPE);
    client.lun(DISK).test_unit_ready().await.unwrap();
    tape.test_unit_ready().await.unwrap();
    let list = disk_to_tape(&client, DISK, TAPE, RECORDS).await.unwrap();

    let copying = tokio::spawn({
        let (tape, list) = (tape.clone(), list.clone());
        async move { tape.extended_copy(list).await }
    });
    kill(busy_mover(&target).await);
    let ended: ClientError = copying.await.unwrap().expect_err("its mover is dead");
    let sense = ended.sense().unwrap_or_else(|| panic!("{ended}"));
    assert_eq!(sense.key, SenseKey::CopyAborted, "{ended}");

    // The position is known: that of the end of the last whole record.
    let at = tape.read_position().await.unwrap().object;
    let check = |index, data| assert_eq!(data, pattern::bytes(11, index, RECORD as usize), "record {index}");
    let whole = read_tape(&client, TAPE, check).await.unwrap();
    assert_eq!(at, whole);
    assert!(whole < RECORDS, "killed too late to show anything");

    // A rerun on the same session succeeds, with a new mover.
    tape.rewind().await.unwrap();
    tape.extended_copy(list).await.unwrap();
    tape.write_filemarks(0).await.unwrap();
    assert_eq!(read_tape(&client, TAPE, check).await.unwrap(), RECORDS);
    let said = status(&target.control()).unwrap();
    assert_eq!((said.copies.running, said.copies.failed, said.copies.done), (0, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphaned_mover_writes_nothing_after_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    write_disk(folder.path());
    let mut target = Target::start(folder.path(), &FLAGS).unwrap();
    let first = client(&target).await;
    first.lun(TAPE).test_unit_ready().await.unwrap();
    let list = disk_to_tape(&first, DISK, TAPE, RECORDS).await.unwrap();
    let copying = tokio::spawn({
        let (tape, list) = (first.lun(TAPE), list.clone());
        async move { tape.extended_copy(list).await }
    });
    let orphan = busy_mover(&target).await;
    target.kill();
    assert!(copying.await.unwrap().is_err());

    let target = Target::start(folder.path(), &FLAGS).unwrap();
    assert!(!runs(orphan), "the mover of the former life still runs beside the new target");
    let client = client(&target).await;
    let check = |index, data| assert_eq!(data, pattern::bytes(11, index, RECORD as usize), "record {index}");
    let whole = read_tape(&client, TAPE, check).await.unwrap();
    assert!(whole > 0 && whole < RECORDS, "{whole} records: not killed in the middle");
    client.lun(TAPE).rewind().await.unwrap();
    client.lun(TAPE).extended_copy(list).await.unwrap();
    assert_eq!(read_tape(&client, TAPE, check).await.unwrap(), RECORDS);
}
