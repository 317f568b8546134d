//! A full file system under a cartridge: the drive says that the volume is full, and what it had accepted is there.

use bytes::Bytes;
use offhost_tests::programs::Target;
use offhost_tests::small::Small;
use offhost_tests::{copies, pattern, skip};
use protocol::scsi::SenseKey;
use sim::client::{Client, Options};

const TAPE: u16 = 1;
const RECORD: usize = 65_536;
const SEED: u64 = 11;

async fn client(target: &Target) -> Client {
    let url = target.url(TAPE).parse().unwrap();
    Client::connect(&url, Options::named("iqn.2026-01.test:full")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_is_a_full_volume_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(&folder.path().join("shelf"), 4) else {
        skip!("no small file system could be mounted (needs root)");
    };
    let flags = ["--disk", "disk.img:1MiB", "--tape", "shelf"];
    let mut target = Target::start(folder.path(), &flags).unwrap();
    let session = client(&target).await;
    let tape = session.unit();
    tape.test_unit_ready().await.unwrap();
    let mut written = 0;
    let refused = loop {
        assert!(written < 100, "4 MiB never were full");
        match tape.write_record(Bytes::from(pattern::bytes(SEED, written, RECORD))).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    let sense = refused.sense().unwrap_or_else(|| panic!("{refused}"));
    assert_eq!((sense.key, sense.code, sense.stream.end_of_medium), (SenseKey::VolumeOverflow, (0, 2), true));
    assert_eq!(sense.information, Some(RECORD as u64), "nothing of the record was written");
    assert!(written > 50, "{written} records of 64 KiB in 4 MiB");
    assert_eq!(tape.read_position().await.unwrap().object, written);
    let check = |index, data| assert_eq!(data, pattern::bytes(SEED, index, RECORD), "record {index}");
    assert_eq!(copies::read_tape(&session, TAPE, check).await.unwrap(), written);
    target.kill();

    let target = Target::start(folder.path(), &flags).unwrap();
    assert_eq!(copies::read_tape(&client(&target).await, TAPE, check).await.unwrap(), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_several_movers_share_ends_there_with_a_beginning_of_it() {
    const RECORDS: u64 = 128;
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(&folder.path().join("shelf"), 4) else {
        skip!("no small file system could be mounted (needs root)");
    };
    let disk: Vec<u8> = (0..RECORDS).flat_map(|index| pattern::bytes(SEED, index, RECORD)).collect();
    std::fs::write(folder.path().join("disk.img"), disk).unwrap();
    let flags = ["--disk", "disk.img", "--tape", "shelf", "--movers", "4"];
    let mut target = Target::start(folder.path(), &flags).unwrap();
    let session = client(&target).await;
    let tape = session.unit();
    tape.test_unit_ready().await.unwrap();
    let copy = copies::disk_to_tape(&session, 0, TAPE, RECORDS).await.unwrap();
    let refused = tape.extended_copy(copy).await.expect_err("8 MiB do not fit into 4");
    let sense = refused.sense().unwrap_or_else(|| panic!("{refused}"));
    assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)), "{refused}");
    assert!(target.log().contains("dispersed copy ended"), "{}", target.log());
    let whole = tape.read_position().await.unwrap().object;
    let check = |index, data| assert_eq!(data, pattern::bytes(SEED, index, RECORD), "record {index}");
    assert_eq!(copies::read_tape(&session, TAPE, check).await.unwrap(), whole);
    if whole > 0 {
        assert_eq!(sense.information, Some((RECORDS - whole) * RECORD as u64), "{sense}");
    }
    let image = std::fs::metadata(folder.path().join("shelf/OFH001L8/p0.tap")).unwrap();
    assert_eq!(image.len(), whole * (RECORD as u64 + 8) + 4, "what was filled and does not count has given back its room");
    let short = copies::disk_to_tape(&session, 0, TAPE, 40).await.unwrap();
    tape.rewind().await.unwrap();
    tape.extended_copy(short).await.unwrap();
    target.kill();
    let target = Target::start(folder.path(), &flags).unwrap();
    assert_eq!(copies::read_tape(&client(&target).await, TAPE, check).await.unwrap(), 40);
}
