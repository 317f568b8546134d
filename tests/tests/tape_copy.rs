//! `offhost-target tape copy`: what was written through a target on an aligned cartridge, as a plain one, and that one served again.

use std::path::Path;
use std::process::{Command, Output};

use bytes::Bytes;
use offhost_tests::pattern;
use offhost_tests::programs::{Target, program};
use serde_json::{Value, json};
use sim::client::{Client, Options, TapeRead};

const RECORD: usize = 100_000;
const RECORDS: u64 = 20;
const CARTRIDGE: &str = "aligned/OFH001L8";

fn copy(folder: &Path, more: &[&str]) -> Output {
    let words = ["tape", "copy", CARTRIDGE, "plain/COPY", "--layout", "plain"];
    Command::new(program("offhost-target")).args(words).args(more).current_dir(folder).output().unwrap()
}

async fn serve(folder: &Path, tape: &str) -> (Target, Client) {
    let target = Target::start(folder, &["--disk", "disk.img:1MiB", "--tape", tape]).unwrap();
    let client = Client::connect(&target.url(1).parse().unwrap(), Options::named("iqn.2026-01.test:copy")).await.unwrap();
    client.unit().test_unit_ready().await.unwrap();
    (target, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cartridge_that_nobody_serves_is_copied_and_served_in_its_other_layout() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("plain")).unwrap();
    let (mut target, client) = serve(folder, "aligned,layout=aligned").await;
    let record = |number| Bytes::from(pattern::bytes(31, number, RECORD));
    for number in 0..RECORDS {
        client.unit().write_record(record(number)).await.unwrap();
    }
    client.unit().write_filemarks(1).await.unwrap();

    let refused = copy(folder, &[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("the cartridge is in use"), "{said}");
    drop(client);
    target.stop().unwrap();
    let copied = copy(folder, &["--json"]);
    assert!(copied.status.success() && copied.stderr.is_empty(), "{copied:?}");
    let facts = json!({
        "source": CARTRIDGE, "destination": "plain/COPY", "barcode": "OFH001L8", "layout": "plain", "partitions": 1,
        "records": RECORDS, "filemarks": 1, "bytes": RECORDS * RECORD as u64, "without_proof": 0, "notes": [],
    });
    assert_eq!(serde_json::from_slice::<Value>(&copied.stdout).unwrap(), facts);
    let again = copy(folder, &[]);
    assert!(!again.status.success() && String::from_utf8(again.stderr).unwrap().contains("exists already"));

    let (_target, client) = serve(folder, "plain").await;
    let tape = client.unit();
    for number in 0..RECORDS {
        let TapeRead::Record(read) = tape.read_record(RECORD as u32).await.unwrap() else { panic!("record {number}") };
        assert!(read == record(number), "record {number}");
    }
    assert!(matches!(tape.read_record(RECORD as u32).await.unwrap(), TapeRead::Filemark));
}
