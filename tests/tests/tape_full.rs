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
