//! A library whole: backup to one of its drives and restore from another, an operator at the import/export elements, drives that
//! come and go.

use std::path::Path;

use offhost_tests::agent::offhost;
use offhost_tests::programs::{Target, program, run};
use protocol::scsi::Sense;
use sim::client::{Client, ClientError, Data, LogicalUnit, Options};

const DISK: u16 = 0;
const OTHER_DISK: u16 = 1;
const CHANGER: u16 = 2;
const FIRST_DRIVE: u16 = 3;
const SECOND_DRIVE: u16 = 4;
const FLAGS: [&str; 6] =
    ["--disk", "a.img", "--disk", "b.img:8MiB", "--library", "shelf:1GiB,drives=2,slots=4,mail=1,cartridges=2"];

const SLOT: u16 = 0x1000;
const DRIVE: u16 = 0x100;
const MAIL: u16 = 0x10;

fn start(folder: &Path) -> Target {
    let disk: Vec<u8> = (0..8 << 20).map(|at: u32| (at / 512 * 7 + at) as u8).collect();
    std::fs::write(folder.join("a.img"), disk).unwrap();
    Target::start(folder, &FLAGS).unwrap()
}

async fn changer(target: &Target) -> LogicalUnit {
    let unit = Client::connect(&target.url(CHANGER).parse().unwrap(), Options::default()).await.unwrap().unit();
    unit.test_unit_ready().await.unwrap();
    unit
}

fn sense(result: Result<(), ClientError>) -> Option<Sense> {
    match result {
        Err(ClientError::Status { sense, .. }) => sense.map(|sense| *sense),
        _ => None,
    }
}

/// One TEST UNIT READY: the client's own takes unit attentions.
async fn once(unit: &LogicalUnit) -> Result<(), ClientError> {
    unit.good("TEST UNIT READY", &[0; 6], Data::None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_one_drive_is_restored_from_another() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let arm = changer(&target).await;
    arm.move_medium(SLOT, DRIVE).await.unwrap();
    let backup = ["backup", "--from", &target.url(DISK), "--to", &target.url(FIRST_DRIVE), "--quiet", "0s"];
    offhost(&target, &backup).succeeded();
    // The cartridge goes to the other drive, and another takes its place.
    arm.move_medium(DRIVE, DRIVE + 1).await.unwrap();
    arm.move_medium(SLOT + 1, DRIVE).await.unwrap();
    let restore = ["restore", "--from", &target.url(SECOND_DRIVE), "--to", &target.url(OTHER_DISK)];
    offhost(&target, &restore).succeeded();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read("a.img") == read("b.img"), "the restored disk differs");
    arm.exchange_medium(DRIVE + 1, DRIVE, DRIVE + 1).await.unwrap();
    let listed = offhost(&target, &["list", "--from", &target.url(FIRST_DRIVE), "--json"]);
    listed.succeeded();
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed["sets"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn offhost_sim_moves_cartridges_as_people_do() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let sim = |arguments: &[&str]| run(program("offhost-sim"), [&["changer", &target.url(CHANGER)], arguments].concat()).unwrap();
    sim(&["move", "0x1000", "0x100"]);
    let status = sim(&["status"]);
    assert!(status.contains("256  drive      OFH001L8  from 4096  t10.OFFHOST"), "{status}");
    sim(&["exchange", "4097", "256"]);
    let rows: serde_json::Value = serde_json::from_str(&sim(&["status", "--json"])).unwrap();
    let full: Vec<_> = rows.as_array().unwrap().iter().filter(|row| row["full"] == true).collect();
    assert_eq!(full.iter().map(|row| row["barcode"].as_str().unwrap()).collect::<Vec<_>>(), ["OFH002L8", "OFH001L8"]);
    sim(&["inventory"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_with_its_library_can_be_taken_away_and_comes_back_with_its_cartridge() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let arm = changer(&target).await;
    arm.move_medium(SLOT, DRIVE + 1).await.unwrap();
    offhost(&target, &["lun", "remove", &SECOND_DRIVE.to_string()]).succeeded();
    arm.test_unit_ready().await.ok();
    let gone = sense(arm.move_medium(DRIVE + 1, SLOT).await).expect("no drive is there");
    assert_eq!(gone.code, (0x21, 0x01));
    let status = arm.elements(None).await.unwrap();
    let element = status.iter().find(|element| element.address == DRIVE + 1).unwrap();
    assert_eq!((element.accessible, element.exception), (false, Some((0x3B, 0x1A))), "{element:?}");
    arm.move_medium(SLOT + 1, MAIL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_brings_a_cartridge_and_takes_it_away() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let arm = changer(&target).await;
    offhost(&target, &["library", "import", "--new", "NEW001L8", "--capacity", "64MiB"]).succeeded();
    let told = sense(once(&arm).await).expect("a unit attention");
    assert_eq!(told.code, (0x28, 0x01), "IMPORT OR EXPORT ELEMENT ACCESSED");
    offhost(&target, &["library", "import", "--new", "NEW002L8"]).failed(1, &["no import/export element is free"]);
    arm.move_medium(MAIL, DRIVE).await.unwrap();
    let list = offhost(&target, &["library", "list"]);
    list.succeeded();
    assert!(list.out.lines().any(|line| line.contains("drive 1") && line.contains("NEW001L8")), "{}", list.out);
    offhost(&target, &["library", "export", "NEW001L8"]).failed(1, &["a changer has to move it there first"]);
    arm.move_medium(DRIVE, MAIL).await.unwrap();
    offhost(&target, &["library", "export", "NEW001L8", "--to", "vault"]).succeeded();
    assert!(folder.path().join("vault/cartridge.json").is_file());
    offhost(&target, &["library", "import", "vault"]).succeeded();
    let _ = once(&arm).await;
    let elements = arm.elements(None).await.unwrap();
    let mail = elements.iter().find(|element| element.address == MAIL).unwrap();
    assert_eq!((mail.volume_tag.as_deref(), mail.by_operator), (Some("NEW001L8"), true));
}
