//! `kill -9` of the target: mode pages that were saved hold again, those that were not are the defaults; and whoever comes back is
//! told why it has to begin anew.

use bytes::Bytes;
use offhost_tests::programs::Target;
use protocol::scsi::{SenseKey, Status};
use protocol::wire::hex;
use sim::client::{Client, Data, LogicalUnit, Options, Reply};
use sim::url::Url;

const FLAGS: [&str; 4] = ["--disk", "disk.img:16MiB", "--tape", "shelf"];
const DISK: u16 = 0;
const TAPE: u16 = 1;

/// PC: which values.
const CURRENT: u8 = 0x00;
const SAVED: u8 = 0xC0;

const CACHING: u8 = 0x08;
/// WCE clear.
const WRITE_THROUGH: &str = "0000000000000000 08 12 00 0000000000000000000000000000000000";
/// DCE.
const COMPRESSION: u8 = 0x0F;
const COMPRESS: &str = "0000001000000000 0f 0e c0 80 000000ff 000000ff 00000000";

/// The same I_T nexus every time.
async fn unit(target: &Target, lun: u16) -> LogicalUnit {
    let url: Url = target.url(lun).parse().unwrap();
    let options = Options { isid: Some([0x80, 0, 0, 0, 0, 2]), ..Options::named("iqn.2026-01.test:host") };
    Client::connect(&url, options).await.unwrap().unit()
}

/// Disk and tape through one session, and ready.
async fn both(target: &Target) -> [LogicalUnit; 2] {
    let client = unit(target, DISK).await.client().clone();
    let units = [client.lun(DISK), client.lun(TAPE)];
    for unit in &units {
        unit.test_unit_ready().await.unwrap();
    }
    units
}

/// First byte of the page, and the byte behind its header.
async fn mode(unit: &LogicalUnit, control: u8, page: u8) -> (u8, u8) {
    let reply = unit.command(&[0x5A, 0x08, control | page, 0, 0, 0, 0, 0, 64, 0], Data::In(64)).await.unwrap();
    assert_eq!(reply.status, Status::Good, "{:?}", reply.sense);
    (reply.data[8], reply.data[10])
}

async fn select(unit: &LogicalUnit, save: bool, list: &str) {
    let list = Bytes::from(hex(list));
    let cdb = [0x55, 0x10 | u8::from(save), 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    let reply = unit.command(&cdb, Data::Out(list)).await.unwrap();
    assert_eq!(reply.status, Status::Good, "{:?}", reply.sense);
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_pages_survive_kill_9_if_they_were_saved() {
    let folder = tempfile::tempdir().unwrap();
    for save in [false, true] {
        let mut target = Target::start(folder.path(), &FLAGS).unwrap();
        let [disk, tape] = both(&target).await;
        assert_eq!(mode(&disk, SAVED, CACHING).await, (0x88, 0x04), "PS, and the default while nothing is saved");
        select(&disk, save, WRITE_THROUGH).await;
        select(&tape, save, COMPRESS).await;
        assert_eq!(mode(&disk, CURRENT, CACHING).await, (0x88, 0x00));
        assert_eq!(mode(&disk, SAVED, CACHING).await, (0x88, if save { 0x00 } else { 0x04 }));
        target.kill();
        let mut target = Target::start(folder.path(), &FLAGS).unwrap();
        let [disk, tape] = both(&target).await;
        for control in [CURRENT, SAVED] {
            assert_eq!(mode(&disk, control, CACHING).await, (0x88, if save { 0x00 } else { 0x04 }), "SP {save}");
            assert_eq!(mode(&tape, control, COMPRESSION).await, (0x8F, if save { 0xC0 } else { 0x40 }), "SP {save}");
        }
        target.kill();
    }
}

fn attention(reply: &Reply) -> Option<(u8, u8)> {
    reply.sense.as_ref().filter(|sense| sense.key == SenseKey::UnitAttention).map(|sense| sense.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nexus_is_told_of_the_power_and_of_its_loss() {
    let folder = tempfile::tempdir().unwrap();
    for life in 1..=2 {
        let mut target = Target::start(folder.path(), &FLAGS).unwrap();
        for lun in [DISK, TAPE] {
            for expected in [(0x29, 0x00), (0x29, 0x07), (0x29, 0x07)] {
                let unit = unit(&target, lun).await;
                assert_eq!(unit.inquiry().await.unwrap().qualifier, 0, "INQUIRY is not held up");
                let told = [unit.command(&[0; 6], Data::None).await.unwrap(), unit.command(&[0; 6], Data::None).await.unwrap()];
                assert_eq!(told.each_ref().map(attention), [Some(expected), None], "life {life}, LUN {lun}");
                unit.client().logout().await.unwrap();
            }
        }
        target.kill();
    }
}
