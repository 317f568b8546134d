//! Persistent reservations as several initiators see them.

use std::sync::Arc;

use protocol::scsi::{FieldPointer, Sense, Status};
use protocol::wire::hex;

use crate::lun::Device;
use crate::lun::common::{Common, Identity, LogicalUnit};
use crate::lun::disk::Disk;
use crate::lun::testing::{MemoryStore, disk_on, finish, nexus, task};
use crate::nexus::Nexus;
use crate::task::{Execution, Response};
use crate::volume::Volume;
use protocol::units::BlockLength;

const READ: &str = "28 00 00000000 00 0001 00";
const WRITE: &str = "2a 00 00000000 00 0001 00";
const WRITE_EXCLUSIVE: u8 = 1;
const EXCLUSIVE_ACCESS: u8 = 3;
const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u8 = 5;
const EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: u8 = 6;
const WRITE_EXCLUSIVE_ALL_REGISTRANTS: u8 = 7;

/// A disk and three initiators that it knows.
struct Bench {
    disk: Arc<Disk>,
    nexuses: [Arc<Nexus>; 3],
}

impl Bench {
    fn new() -> Self {
        Self::on(disk_on(Arc::new(MemoryStore::new(1 << 20)), 512).0)
    }

    fn on(disk: Arc<Disk>) -> Self {
        let nexuses = [1, 2, 3].map(|id| nexus(id, &[Device::Disk(Arc::clone(&disk))]));
        let bench = Self { disk, nexuses };
        (1..=3).for_each(|who| assert_eq!(bench.run(who, "00 00000000 00").status, Status::Good));
        bench
    }

    fn send(&self, who: usize, cdb: &str, data_out: Vec<u8>) -> Response {
        finish(self.disk.start(task(&self.nexuses[who - 1], cdb, data_out)))
    }

    fn run(&self, who: usize, cdb: &str) -> Response {
        self.send(who, cdb, Vec::new())
    }

    fn write(&self, who: usize) -> Status {
        self.send(who, WRITE, vec![0x5A; 512]).status
    }

    fn read(&self, who: usize) -> Status {
        self.run(who, READ).status
    }

    fn out(&self, who: usize, action: u8, kind: u8, key: u64, action_key: u64) -> Response {
        self.out_with(who, action, kind, key, action_key, 0)
    }

    fn out_with(&self, who: usize, action: u8, kind: u8, key: u64, action_key: u64, flags: u8) -> Response {
        let list = hex(&format!("{key:016x} {action_key:016x} 00000000 {flags:02x} 00 0000"));
        self.send(who, &format!("5f {action:02x} {kind:02x} 0000 00000018 00"), list)
    }

    fn good(&self, who: usize, action: u8, kind: u8, key: u64, action_key: u64) {
        let response = self.out(who, action, kind, key, action_key);
        assert_eq!(response, Response::good(), "action {action} of {who}");
    }

    fn register(&self, who: usize, key: u64) {
        self.good(who, 0x06, 0, 0, key);
    }

    fn reservation(&self, who: usize) -> Vec<u8> {
        self.run(who, "5e 01 0000000000 00ff 00").data_in.concat()
    }

    fn keys(&self, who: usize) -> Vec<u8> {
        self.run(who, "5e 00 0000000000 00ff 00").data_in.concat()
    }

    /// The next unit attention, told by REQUEST SENSE.
    fn attention(&self, who: usize) -> Option<Sense> {
        self.disk.common().attentions.take(self.nexuses[who - 1].id)
    }
}

fn is_conflict(response: &Response) -> bool {
    response.status == Status::ReservationConflict
}

#[test]
fn a_key_is_registered_changed_and_taken_away() {
    let bench = Bench::new();
    assert!(is_conflict(&bench.out(1, 0x00, 0, 7, 1)), "an unregistered nexus has no key");
    bench.good(1, 0x00, 0, 0, 0);
    assert_eq!(bench.keys(1), hex("00000000 00000000"), "nothing was asked for");
    bench.good(1, 0x00, 0, 0, 0x11);
    assert!(is_conflict(&bench.out(1, 0x00, 0, 0x12, 0x13)));
    bench.good(1, 0x00, 0, 0x11, 0x12);
    bench.good(2, 0x06, 0, 0xBAD, 0x22);
    assert_eq!(bench.keys(3), hex("00000003 00000010 0000000000000012 0000000000000022"));
    bench.good(1, 0x00, 0, 0x12, 0);
    assert_eq!(bench.keys(3), hex("00000004 00000008 0000000000000022"));
}

#[test]
fn each_type_lets_through_what_the_table_says() {
    let (good, conflict) = (Status::Good, Status::ReservationConflict);
    // Type; then reads and writes of a registered nexus, and of one that is not.
    let rows = [
        (WRITE_EXCLUSIVE, good, conflict, good, conflict),
        (EXCLUSIVE_ACCESS, conflict, conflict, conflict, conflict),
        (WRITE_EXCLUSIVE_REGISTRANTS_ONLY, good, good, good, conflict),
        (EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, good, good, conflict, conflict),
        (WRITE_EXCLUSIVE_ALL_REGISTRANTS, good, good, good, conflict),
        (8, good, good, conflict, conflict),
    ];
    for (kind, registered_reads, registered_writes, reads, writes) in rows {
        let bench = Bench::new();
        bench.register(1, 1);
        bench.register(2, 2);
        bench.good(1, 0x01, kind, 1, 0);
        assert_eq!((bench.read(1), bench.write(1)), (good, good), "holder, type {kind}");
        assert_eq!((bench.read(2), bench.write(2)), (registered_reads, registered_writes), "registered, type {kind}");
        assert_eq!((bench.read(3), bench.write(3)), (reads, writes), "unregistered, type {kind}");
        for free in [
            "00 00000000 00",
            "12 00 00 00ff 00",
            "25 00 00000000 0000 00 00",
            "1b 00 0000 01 00",
            "a0 00 00 000000 00000100 00 00",
        ] {
            assert_eq!(bench.run(3, free).status, good, "{free}, type {kind}");
        }
        let (code, wanted) =
            if kind == WRITE_EXCLUSIVE || kind == EXCLUSIVE_ACCESS { (kind, 1_u64) } else { (kind, u64::from(kind < 7)) };
        let told = bench.reservation(3);
        assert_eq!((told[21], &told[8..16]), (code, &wanted.to_be_bytes()[..]), "type {kind}");
    }
}

#[test]
fn a_reservation_is_made_once_and_released_by_its_holder() {
    let bench = Bench::new();
    bench.register(1, 1);
    bench.register(2, 2);
    assert!(is_conflict(&bench.out(3, 0x01, EXCLUSIVE_ACCESS, 0, 0)), "unregistered");
    bench.good(1, 0x01, EXCLUSIVE_ACCESS, 1, 0);
    bench.good(1, 0x01, EXCLUSIVE_ACCESS, 1, 0);
    assert!(is_conflict(&bench.out(1, 0x01, WRITE_EXCLUSIVE, 1, 0)), "another type");
    assert!(is_conflict(&bench.out(2, 0x01, EXCLUSIVE_ACCESS, 2, 0)));
    bench.good(2, 0x02, EXCLUSIVE_ACCESS, 2, 0);
    assert_eq!(bench.reservation(1).len(), 24, "not his to release");
    let wrong = bench.out(1, 0x02, WRITE_EXCLUSIVE, 1, 0);
    assert_eq!(wrong.sense, Some(Sense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION));
    bench.good(1, 0x02, EXCLUSIVE_ACCESS, 1, 0);
    assert_eq!(bench.reservation(1).len(), 8);
    assert_eq!(bench.attention(2), None, "no unit attention for this type");
}

#[test]
fn registered_nexuses_hear_of_a_release_where_they_had_access() {
    for kind in [5, 6, 7, 8] {
        let bench = Bench::new();
        (1..=2).for_each(|who| bench.register(who, who as u64));
        bench.good(1, 0x01, kind, 1, 0);
        bench.good(1, 0x02, kind, 1, 0);
        assert_eq!(bench.attention(2), Some(Sense::RESERVATIONS_RELEASED), "type {kind}");
        assert_eq!((bench.attention(1), bench.attention(3)), (None, None), "type {kind}");
    }
}

#[test]
fn a_reservation_ends_with_its_holders_registration_or_with_the_last() {
    for (kind, told) in [(1, false), (3, false), (5, true), (6, true)] {
        let bench = Bench::new();
        (1..=2).for_each(|who| bench.register(who, who as u64));
        bench.good(1, 0x01, kind, 1, 0);
        bench.good(1, 0x00, 0, 1, 0);
        assert_eq!(bench.attention(2), told.then_some(Sense::RESERVATIONS_RELEASED), "type {kind}");
        assert_eq!(bench.reservation(2).len(), 8, "type {kind}");
    }
    let bench = Bench::new();
    (1..=2).for_each(|who| bench.register(who, who as u64));
    bench.good(1, 0x01, WRITE_EXCLUSIVE_ALL_REGISTRANTS, 1, 0);
    bench.good(1, 0x00, 0, 1, 0);
    assert_eq!(bench.attention(2), None);
    assert_eq!(bench.reservation(2).len(), 24, "the other one still holds it");
    bench.good(2, 0x00, 0, 2, 0);
    assert_eq!(bench.reservation(2).len(), 8);
}

#[test]
fn clear_takes_everything_and_tells_everybody_registered() {
    let bench = Bench::new();
    (1..=2).for_each(|who| bench.register(who, who as u64));
    bench.good(1, 0x01, EXCLUSIVE_ACCESS, 1, 0);
    assert!(is_conflict(&bench.out(2, 0x03, 0, 1, 0)), "another's key");
    bench.good(2, 0x03, 0, 2, 0);
    assert_eq!(bench.attention(1), Some(Sense::RESERVATIONS_PREEMPTED));
    assert_eq!((bench.attention(2), bench.attention(3)), (None, None));
    assert_eq!(bench.keys(1), hex("00000003 00000000"));
    assert_eq!(bench.write(3), Status::Good);
}

#[test]
fn preempting_takes_the_reservation_and_its_registrations() {
    let bench = Bench::new();
    bench.register(1, 1);
    bench.register(2, 2);
    bench.register(3, 3);
    bench.good(1, 0x01, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, 1, 0);
    assert_eq!(
        bench.out(2, 0x04, EXCLUSIVE_ACCESS, 2, 0).sense,
        Some(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(8)))
    );
    assert!(is_conflict(&bench.out(2, 0x04, EXCLUSIVE_ACCESS, 2, 9)), "a key nobody has");
    bench.good(2, 0x04, EXCLUSIVE_ACCESS, 2, 1);
    assert_eq!(bench.attention(1), Some(Sense::REGISTRATIONS_PREEMPTED));
    assert_eq!(bench.attention(3), Some(Sense::RESERVATIONS_RELEASED), "the type has changed");
    assert_eq!(bench.attention(2), None);
    assert_eq!(bench.keys(2), hex("00000004 00000010 0000000000000002 0000000000000003"));
    assert_eq!((bench.write(2), bench.write(3)), (Status::Good, Status::ReservationConflict));
    // A holder may preempt itself, to change the type.
    bench.good(2, 0x04, WRITE_EXCLUSIVE, 2, 2);
    assert_eq!(bench.reservation(2)[21], WRITE_EXCLUSIVE);
}

#[test]
fn preempting_a_key_that_holds_nothing_removes_registrations_only() {
    let bench = Bench::new();
    bench.register(1, 1);
    bench.register(2, 2);
    bench.register(3, 2);
    bench.good(1, 0x01, EXCLUSIVE_ACCESS, 1, 0);
    bench.good(2, 0x04, EXCLUSIVE_ACCESS, 2, 2);
    assert_eq!(bench.attention(3), Some(Sense::REGISTRATIONS_PREEMPTED));
    assert_eq!((bench.attention(1), bench.attention(2)), (None, None));
    assert_eq!(bench.keys(1), hex("00000004 00000008 0000000000000001"), "its own registration is gone, too");
    assert_eq!(bench.reservation(1)[21], EXCLUSIVE_ACCESS);
}

#[test]
fn a_key_of_zero_preempts_what_all_registrants_hold() {
    let bench = Bench::new();
    (1..=3).for_each(|who| bench.register(who, who as u64));
    bench.good(1, 0x01, WRITE_EXCLUSIVE_ALL_REGISTRANTS, 1, 0);
    bench.good(2, 0x04, WRITE_EXCLUSIVE_ALL_REGISTRANTS, 2, 0);
    assert_eq!(bench.keys(2), hex("00000004 00000008 0000000000000002"));
    for who in [1, 3] {
        assert_eq!(bench.attention(who), Some(Sense::REGISTRATIONS_PREEMPTED));
    }
    assert_eq!(bench.reservation(2)[21], WRITE_EXCLUSIVE_ALL_REGISTRANTS);
}

#[tokio::test]
async fn preempt_and_abort_is_answered_when_it_is_done() {
    let bench = Bench::new();
    (1..=2).for_each(|who| bench.register(who, who as u64));
    bench.good(1, 0x01, EXCLUSIVE_ACCESS, 1, 0);
    let list = hex("0000000000000002 0000000000000001 00000000 00 00 0000");
    let Execution::Async(preempt) = bench.disk.start(task(&bench.nexuses[1], "5f 05 03 0000 00000018 00", list)) else {
        panic!("it waits for others")
    };
    assert_eq!(preempt.await, Response::good());
    assert_eq!(bench.attention(1), Some(Sense::REGISTRATIONS_PREEMPTED));
    assert_eq!(bench.reservation(2)[8..16], [0, 0, 0, 0, 0, 0, 0, 2]);
}

fn transport_id(who: u64) -> String {
    let name: String =
        format!("iqn.2026-01.org.offhost:test-{who},i,0x000000000000").bytes().map(|byte| format!("{byte:02x}")).collect();
    let length = (name.len() / 2 + 1).next_multiple_of(4);
    let padding = "00".repeat(length - name.len() / 2);
    format!("45 00 {length:04x} {name}{padding}")
}

#[test]
fn a_reservation_is_moved_to_a_nexus_that_need_not_be_there() {
    let bench = Bench::new();
    bench.register(1, 1);
    bench.register(2, 2);
    let list = |key: u64, action_key: u64, unreg: u8, port: u16, id: &str| {
        let id = hex(id);
        let head = hex(&format!("{key:016x} {action_key:016x} 00 {unreg:02x} {port:04x} {:08x}", id.len()));
        [head, id].concat()
    };
    let send = |who, list: Vec<u8>| bench.send(who, &format!("5f 07 00 0000 {:08x} 00", list.len()), list);
    let nothing_to_move = send(1, list(1, 9, 0, 1, &transport_id(3))).sense;
    assert_eq!(nothing_to_move, Some(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4))));
    bench.good(1, 0x01, WRITE_EXCLUSIVE, 1, 0);
    assert!(is_conflict(&send(2, list(2, 9, 0, 1, &transport_id(3)))), "not the holder");
    let field = |response: Response| response.sense.and_then(|sense| sense.field);
    assert_eq!(field(send(1, list(1, 0, 0, 1, &transport_id(3)))), Some(FieldPointer::parameter(8)));
    assert_eq!(field(send(1, list(1, 9, 0, 2, &transport_id(3)))), Some(FieldPointer::parameter(18)), "no such port");
    assert_eq!(field(send(1, list(1, 9, 0, 1, &transport_id(1)))), Some(FieldPointer::parameter(24)), "itself");
    assert_eq!(send(1, list(1, 9, 2, 1, &transport_id(3))), Response::good());
    assert_eq!((bench.write(1), bench.write(3)), (Status::ReservationConflict, Status::Good));
    assert_eq!(bench.keys(1), hex("00000003 00000010 0000000000000002 0000000000000009"));
}

#[test]
fn others_are_registered_by_transport_id_or_none_is() {
    let bench = Bench::new();
    let list = |id: &str| {
        let id = hex(id);
        let head = hex(&format!("0000000000000000 0000000000000009 00000000 08 00 0000 {:08x}", id.len()));
        [head, id].concat()
    };
    let send = |who, list: Vec<u8>| bench.send(who, &format!("5f 00 00 0000 {:08x} 00", list.len()), list);
    bench.register(2, 2);
    let taken = send(1, list(&format!("{} {}", transport_id(3), transport_id(2))));
    assert_eq!(taken.sense, Some(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(28))));
    assert_eq!(bench.keys(1), hex("00000001 00000008 0000000000000002"), "none was registered");
    assert_eq!(send(1, list(&transport_id(3))), Response::good());
    assert_eq!(bench.keys(1)[..8], hex("00000002 00000018")[..]);
    bench.good(3, 0x01, EXCLUSIVE_ACCESS, 9, 0);
    let full = bench.run(1, "5e 03 0000000000 0fff 00").data_in.concat();
    let name = b"iqn.2026-01.org.offhost:test-3,i,0x000000000000";
    assert!(full.windows(name.len()).any(|bytes| bytes == name));
    let again = send(3, list(&transport_id(1))).status;
    assert_eq!(again, Status::ReservationConflict, "registered under another key");
}

#[test]
fn reserve_and_persistent_reservations_exclude_each_other() {
    let bench = Bench::new();
    bench.register(1, 1);
    assert!(is_conflict(&bench.run(1, "16 0000000000")), "somebody is registered");
    bench.good(1, 0x01, EXCLUSIVE_ACCESS, 1, 0);
    assert_eq!(bench.run(1, "16 0000000000"), Response::good(), "CRH: the holder");
    assert_eq!(bench.run(1, "57 00 0000000000 0000 00"), Response::good());
    assert!(is_conflict(&bench.run(2, "56 00 0000000000 0000 00")));
    assert_eq!(bench.reservation(2)[21], EXCLUSIVE_ACCESS, "still there");
    bench.good(1, 0x00, 0, 1, 0);
    assert_eq!(bench.run(2, "56 00 0000000000 0000 00"), Response::good());
    assert!(is_conflict(&bench.out(1, 0x06, 0, 0, 1)));
    assert!(is_conflict(&bench.out(2, 0x06, 0, 0, 1)), "the holder neither");
    assert!(is_conflict(&bench.run(1, "5e 00 0000000000 00ff 00")));
    assert_eq!(bench.run(2, "57 00 0000000000 0000 00"), Response::good());
    bench.register(1, 1);
}

#[test]
fn persistence_is_saved_before_the_status_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || {
        let common = Common::new(Identity::new("iqn.a:t", "memory", "DISK"), None).keep_in(folder.path()).unwrap();
        Disk::new(common, Volume::new(Arc::new(MemoryStore::new(1 << 20))), BlockLength::B512)
    };
    let bench = Bench::on(disk());
    assert_eq!(bench.out_with(1, 0x00, 0, 0, 1, 1), Response::good());
    bench.good(1, 0x01, WRITE_EXCLUSIVE, 1, 0);
    let capabilities = |bench: &Bench| bench.run(1, "5e 02 0000000000 00ff 00").data_in.concat()[2..4].to_vec();
    assert_eq!(capabilities(&bench), [0x1D, 0xB1]);
    // As after kill -9: nobody says goodbye.
    let bench = Bench::on(disk());
    assert_eq!(bench.keys(2), hex("00000000 00000008 0000000000000001"), "PRGENERATION begins anew");
    assert_eq!((bench.write(1), bench.write(2)), (Status::Good, Status::ReservationConflict));
    // APTPL of the last registration counts.
    bench.register(2, 2);
    let bench = Bench::on(disk());
    assert_eq!(bench.keys(2), hex("00000000 00000000"));
    assert_eq!(bench.write(2), Status::Good);
}

#[test]
fn what_cannot_be_saved_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let common = Common::new(Identity::new("iqn.a:t", "memory", "DISK"), None).keep_in(&folder.path().join("file/luns")).unwrap();
    let bench = Bench::on(Disk::new(common, Volume::new(Arc::new(MemoryStore::new(1 << 20))), BlockLength::B512));
    std::fs::write(folder.path().join("file"), "in the way").unwrap();
    assert_eq!(bench.out_with(1, 0x00, 0, 0, 1, 1).sense, Some(Sense::INTERNAL_TARGET_FAILURE));
    assert_eq!(bench.keys(1), hex("00000000 00000000"));
    bench.register(1, 1);
    let without_a_place = Bench::new();
    assert!(without_a_place.out_with(1, 0x00, 0, 0, 1, 1).sense.is_some());
}
