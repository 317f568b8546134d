//! `kill -9` of the target, and tapes that were torn: what was acknowledged is there, what is torn is cut and said aloud.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use offhost_tests::control::status;
use offhost_tests::copies::read_tape;
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Options};
use sim::url::Url;

const FLAGS: [&str; 4] = ["--disk", "disk.img:64MiB", "--tape", "shelf"];
const DISK: u16 = 0;
const TAPE: u16 = 1;
const RECORD: usize = 10_240;

async fn client(target: &Target, lun: u16) -> Client {
    let url: Url = target.url(lun).parse().unwrap();
    Client::connect(&url, Options::named("iqn.2026-01.test:faults")).await.unwrap()
}

/// The only image on the shelf.
fn image(folder: &Path) -> std::path::PathBuf {
    let mut cartridges = std::fs::read_dir(folder.join("shelf")).unwrap().map(|entry| entry.unwrap().path().join("p0.tap"));
    cartridges.find(|path| path.exists()).expect("a cartridge was made")
}

/// Records on the tape, each checked against the pattern.
async fn count_records(client: &Client, seed: u64) -> u64 {
    let check = |index, data| assert_eq!(data, pattern::bytes(seed, index, RECORD), "record {index}");
    read_tape(client, TAPE, check).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_target_keeps_every_block_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..5_u64 {
        let mut target = Target::start(folder.path(), &FLAGS).unwrap();
        let client = client(&target, DISK).await;
        let disk = client.unit();
        disk.test_unit_ready().await.unwrap();
        let (send, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
        let writer = tokio::spawn(async move {
            for index in 0..16_384_u64 {
                let data = Bytes::from(pattern::bytes(round, index, 4096));
                if disk.write(Lba(index * 8), data, BlockLength::B512).await.is_err() {
                    return;
                }
                let _ = send.send(index);
            }
        });
        tokio::time::sleep(Duration::from_millis(40 + 37 * round)).await;
        target.kill();
        writer.await.unwrap();
        let file = std::fs::File::open(folder.path().join("disk.img")).unwrap();
        let mut count = 0;
        while let Some(index) = acknowledged.recv().await {
            let mut found = vec![0; 4096];
            file.read_exact_at(&mut found, index * 4096).unwrap();
            assert_eq!(found, pattern::bytes(round, index, 4096), "round {round}, block {index} was acknowledged");
            count += 1;
        }
        assert!(count > 0, "round {round}: killed before anything was written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_target_keeps_every_record_it_acknowledged_and_the_tape_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = 0;
    for round in 0..5_u64 {
        let mut target = Target::start(folder.path(), &FLAGS).unwrap();
        let client = client(&target, TAPE).await;
        // Every round reads what all rounds before wrote, and appends.
        let there = count_records(&client, 7).await;
        assert!(there >= written, "round {round}: {written} records were acknowledged, {there} are there");
        assert!(there <= written + 1, "round {round}: only the record in flight may be there unacknowledged");
        written = there;
        let tape = client.unit();
        let writer = tokio::spawn(async move {
            let mut written = there;
            loop {
                match tape.write_record(Bytes::from(pattern::bytes(7, written, RECORD))).await {
                    Ok(_) => written += 1,
                    Err(_) => return written,
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(60 + 23 * round)).await;
        target.kill();
        let now = writer.await.unwrap();
        assert!(now > written, "round {round}: killed before anything was written");
        written = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_record_is_cut_and_said_aloud() {
    let folder = tempfile::tempdir().unwrap();
    let mut target = Target::start(folder.path(), &FLAGS).unwrap();
    let writer = client(&target, TAPE).await;
    writer.unit().test_unit_ready().await.unwrap();
    for index in 0..20 {
        writer.unit().write_record(Bytes::from(pattern::bytes(3, index, RECORD))).await.unwrap();
    }
    target.kill();

    // What a power loss may leave of what was not synchronized: the last record's end never reached the disk, nor did the index.
    let image = image(folder.path());
    let length = std::fs::metadata(&image).unwrap().len();
    std::fs::File::options().write(true).open(&image).unwrap().set_len(length - 5_000).unwrap();

    let mut target = Target::start(folder.path(), &FLAGS).unwrap();
    assert_eq!(count_records(&client(&target, TAPE).await, 3).await, 19);
    let said = status(&target.control()).unwrap();
    let tape = said.luns.iter().find_map(|lun| lun.tape.clone()).expect("there is a tape");
    assert!(!tape.notes.is_empty(), "nothing was said of the cut: {tape:?}");
    assert_eq!(tape.objects, 19);

    // The tape goes on where it was cut.
    let writer = client(&target, TAPE).await;
    assert_eq!(count_records(&writer, 3).await, 19);
    writer.unit().write_record(Bytes::from(pattern::bytes(3, 19, RECORD))).await.unwrap();
    writer.unit().write_filemarks(0).await.unwrap();
    target.stop().unwrap();
    let target = Target::start(folder.path(), &FLAGS).unwrap();
    assert_eq!(count_records(&client(&target, TAPE).await, 3).await, 20);
}
