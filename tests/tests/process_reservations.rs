//! `kill -9` of the target: a reservation that is to survive a power loss is there again, and one that is not has gone.

use bytes::Bytes;
use offhost_tests::programs::Target;
use protocol::scsi::Status;
use sim::client::{Client, Data, LogicalUnit, Options};
use sim::url::Url;

const FLAGS: [&str; 2] = ["--disk", "disk.img:16MiB"];
const KEY: u64 = 0x5EED;
const REGISTER_AND_IGNORE: u8 = 0x06;
const RESERVE: u8 = 0x01;
const WRITE_EXCLUSIVE: u8 = 0x01;

/// The same I_T nexus after a restart has the same name and ISID.
async fn unit(target: &Target, name: &str) -> LogicalUnit {
    let url: Url = target.url(0).parse().unwrap();
    let options = Options { isid: Some([0x80, 0, 0, 0, 0, 1]), ..Options::named(format!("iqn.2026-01.test:{name}")) };
    let unit = Client::connect(&url, options).await.unwrap().unit();
    unit.test_unit_ready().await.unwrap();
    unit
}

async fn reserve_out(unit: &LogicalUnit, action: u8, key: u64, action_key: u64, persist: bool) {
    let flags = [0, 0, 0, 0, u8::from(persist), 0, 0, 0];
    let list = Bytes::from([key.to_be_bytes(), action_key.to_be_bytes(), flags].concat());
    let reply = unit.command(&[0x5F, action, WRITE_EXCLUSIVE, 0, 0, 0, 0, 0, 24, 0], Data::Out(list)).await.unwrap();
    assert_eq!(reply.status, Status::Good, "service action {action}: {:?}", reply.sense);
}

async fn write(unit: &LogicalUnit) -> Status {
    let reply = unit.command(&[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::Out(vec![0x5A; 512].into())).await.unwrap();
    reply.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_reservation_survives_kill_9_if_it_is_to() {
    let folder = tempfile::tempdir().unwrap();
    for persist in [true, false] {
        let mut target = Target::start(folder.path(), &FLAGS).unwrap();
        let holder = unit(&target, "holder").await;
        reserve_out(&holder, REGISTER_AND_IGNORE, 0, KEY, persist).await;
        reserve_out(&holder, RESERVE, KEY, 0, persist).await;
        assert_eq!(write(&unit(&target, "other").await).await, Status::ReservationConflict);
        target.kill();
        let mut target = Target::start(folder.path(), &FLAGS).unwrap();
        let expected = if persist { Status::ReservationConflict } else { Status::Good };
        assert_eq!(write(&unit(&target, "other").await).await, expected, "APTPL {persist}");
        assert_eq!(write(&unit(&target, "holder").await).await, Status::Good, "APTPL {persist}");
        target.kill();
    }
}
