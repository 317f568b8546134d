//! The changer as an initiator sees it: CDBs in, data and sense out.

use protocol::scsi::{FieldPointer, SenseKey, Status};
use protocol::wire::hex;
use tempfile::TempDir;

use super::*;
use crate::library::Wanted;
use crate::lun::common::Identity;
use crate::lun::tape::Tape;
use crate::lun::testing::{finish, nexus, task};
use crate::nexus::Nexus;
use crate::task::Response;

struct Bench {
    folder: TempDir,
    changer: Arc<Changer>,
    drives: Vec<Arc<Tape>>,
    hosts: Vec<Arc<Nexus>>,
}

/// A changer of one drive, three slots and one import/export element with two cartridges, and two hosts that know it.
fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let wanted =
        Wanted { drives: Some(1), slots: Some(3), mail: Some(1), cartridges: Some(2), new: NewMedium::of_capacity(16 << 20) };
    let library = Library::open(&folder.path().join("library")).unwrap();
    library.arrange(&wanted).unwrap();
    let identity = |backing| Identity::new("iqn.2026-01.org.offhost:test", backing, "LIBRARY");
    let drive = Tape::empty(Common::new(identity("drive 1"), None));
    library.attach(0, &drive).unwrap();
    let changer = Changer::new(Common::new(identity("library"), None), library);
    let devices = [Device::Changer(Arc::clone(&changer)), Device::Tape(Arc::clone(&drive))];
    let hosts = vec![nexus(1, &devices), nexus(2, &devices)];
    let bench = Bench { folder, changer, drives: vec![drive], hosts };
    (0..2).for_each(|host| drop(bench.from(host, "00 00 00 00 00 00")));
    bench
}

impl Bench {
    fn from(&self, host: usize, cdb: &str) -> Response {
        finish(self.changer.start(task(&self.hosts[host], cdb, Vec::new())))
    }

    fn ask(&self, cdb: &str) -> Response {
        self.from(0, cdb)
    }

    fn good(&self, cdb: &str) -> Vec<u8> {
        let response = self.ask(cdb);
        assert_eq!((response.status, &response.sense), (Status::Good, &None), "{cdb}");
        response.data_in.concat()
    }

    #[track_caller]
    fn refused(&self, cdb: &str, sense: Sense) {
        assert_eq!(self.ask(cdb).sense, Some(sense), "{cdb}");
    }
}

#[test]
fn it_is_a_media_changer() {
    let bench = bench();
    let inquiry = bench.good("12 00 00 00ff 00");
    assert_eq!(inquiry[0], 0x08);
    assert_eq!(inquiry[5] & 0x08, 0, "no third-party copies");
    bench.refused("83 00 0000000000000000 00000000 00 00", Sense::INVALID_COMMAND_OPERATION_CODE.at(FieldPointer::cdb(0)));
}

#[test]
fn element_status_tells_what_is_where() {
    let bench = bench();
    let tag = |text: &str| {
        format!("{}{}", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>(), "20".repeat(24) + "00000000")
    };
    let slots = bench.good("b8 12 0000 ffff 00 00ffff 00 00");
    let golden = hex(&format!(
        "1000 0003 00 0000a4  02 80 0034 00 00009c
         1000 09 00 0000 000000 01 0000 {} 00000000
         1001 09 00 0000 000000 01 0000 {} 00000000
         1002 08 00 0000 000000 00 0000 {} 00000000",
        tag("OFH001L8"),
        tag("OFH002L8"),
        "00".repeat(36)
    ));
    assert_eq!(slots, golden);
    bench.good("a5 00 0000 1001 0100 0000 00 00");
    let drive = bench.good("b8 04 0000 0001 01 00ffff 00 00");
    assert_eq!(drive[16..28], hex("0100 09 00 0000 000000 81 1001")[..]);
    let identifier = &drive[28..];
    let mut wanted = vec![0x02, 0x01, 0, 24];
    wanted.extend(format!("OFFHOST {}", bench.drives[0].common().identity.serial).into_bytes());
    assert_eq!(identifier, wanted, "the T10 vendor identification of VPD page 83h");
    assert_eq!(bench.good("b8 00 0000 ffff 00 000008 00 00"), hex("0001 0006 00 000080"), "all types, header alone");
    assert_eq!(bench.good("b8 02 1001 0001 00 00ffff 00 00")[..4], hex("1001 0001"), "from an address on, no more than wanted");
    assert_eq!(bench.good("b8 02 2000 0001 00 00ffff 00 00"), hex("0000 0000 00 000000"), "nothing is a report too");
    bench.refused("b8 05 0000 ffff 00 00ffff 00 00", Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 3)));
}

#[test]
fn a_drive_that_is_not_served_is_a_disabled_element() {
    let mut bench = bench();
    bench.good("a5 00 0000 1001 0100 0000 00 00");
    bench.drives.clear();
    bench.hosts.iter().for_each(|host| drop(host.luns.remove(1)));
    assert_eq!(
        bench.good("b8 14 0000 0001 01 00ffff 00 00")[16..28],
        hex("0100 05 00 3b1a 000000 89 1001")[..],
        "EXCEPT and FULL, no ACCESS; DATA TRANSFER DEVICE REMOVED; SVALID, ED"
    );
}

#[test]
fn what_cannot_be_moved_is_refused_with_the_field() {
    let bench = bench();
    let invalid = |byte| Sense::INVALID_ELEMENT_ADDRESS.at(FieldPointer::cdb(byte));
    bench.refused("a5 00 0002 1000 0100 0000 00 00", invalid(2));
    bench.refused("a5 00 0001 0001 0100 0000 00 00", invalid(4));
    bench.refused("a5 00 0001 1000 1003 0000 00 00", invalid(6));
    bench.refused("a6 00 0001 1000 0100 1003 00 00", invalid(8));
    bench.refused("a5 00 0001 1002 0100 0000 00 00", Sense::MEDIUM_SOURCE_ELEMENT_EMPTY.at(FieldPointer::cdb(4)));
    bench.refused("a5 00 0001 1000 1001 0000 00 00", Sense::MEDIUM_DESTINATION_ELEMENT_FULL.at(FieldPointer::cdb(6)));
    bench.refused("a5 00 0001 1000 1000 0000 00 00", Sense::MEDIUM_DESTINATION_ELEMENT_FULL.at(FieldPointer::cdb(6)));
    bench.refused("a6 00 0001 1000 0100 1000 00 00", Sense::MEDIUM_SOURCE_ELEMENT_EMPTY.at(FieldPointer::cdb(6)));
    bench.good("a5 00 0001 1000 0100 0000 00 00");
    bench.refused("a6 00 0001 1001 0100 1001 01 00", Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(10, 0)));
    bench.good("a6 00 0001 1001 0100 1001 00 00");
    bench.refused("2b 00 0001 1003 0000 00 00", invalid(4));
    bench.good("2b 00 0000 1002 0000 00 00");
}

#[test]
fn a_drive_that_holds_its_medium_makes_the_move_fail() {
    let bench = bench();
    bench.good("a5 00 0001 1000 0100 0000 00 00");
    let drive = |cdb: &str| finish(bench.drives[0].start(task(&bench.hosts[1], cdb, Vec::new())));
    drive("00 00 00 00 00 00");
    assert_eq!(drive("1e 00 00 00 01 00").status, Status::Good);
    bench.refused(
        "a5 00 0001 0100 1000 0000 00 00",
        Sense::MEDIUM_REMOVAL_PREVENTED_BY_DATA_TRANSFER_ELEMENT.at(FieldPointer::cdb(4)),
    );
    assert_eq!(bench.good("b8 04 0000 0001 00 00ffff 00 00")[18], 0x01, "FULL, and no ACCESS");
    assert_eq!(drive("1e 00 00 00 00 00").status, Status::Good);
    bench.good("a5 00 0001 0100 1000 0000 00 00");
}

#[test]
fn the_door_keeps_media_in_and_moves_out() {
    let bench = bench();
    bench.good("1e 00 00 00 01 00");
    bench.refused("1b 00 0010 00 00", Sense::MEDIUM_REMOVAL_PREVENTED);
    bench.good("a5 00 0001 1000 0010 0000 00 00");
    assert!(matches!(bench.changer.export("OFH001L8", None), Err(ExportError::Prevented)));
    bench.good("1e 00 00 00 00 00");
    bench.good("1b 00 0010 00 00");
    assert_eq!(bench.good("b8 03 0000 0001 00 00ffff 00 00")[18], 0x31, "FULL, INENAB, EXENAB, and no ACCESS");
    bench.refused("a5 00 0001 0010 1000 0000 00 00", Sense::MEDIUM_MAGAZINE_NOT_ACCESSIBLE.at(FieldPointer::cdb(4)));
    bench.good("1b 00 0010 01 00");
    assert_eq!(bench.from(1, "00 00 00 00 00 00").sense, Some(Sense::IMPORT_OR_EXPORT_ELEMENT_ACCESSED));
    bench.good("a5 00 0001 0010 1000 0000 00 00");
    bench.refused("1b 00 1000 00 00", Sense::INVALID_ELEMENT_ADDRESS.at(FieldPointer::cdb(2)));
    bench.refused("1b 00 0010 02 00", Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 4)));
}

#[test]
fn what_an_operator_does_is_told_to_every_host() {
    let bench = bench();
    bench.changer.import_new("NEW001L8", &NewMedium { worm: true, ..NewMedium::of_capacity(1 << 20) }).unwrap();
    for host in 0..2 {
        assert_eq!(bench.from(host, "00 00 00 00 00 00").sense, Some(Sense::IMPORT_OR_EXPORT_ELEMENT_ACCESSED));
        assert_eq!(bench.from(host, "00 00 00 00 00 00").status, Status::Good);
    }
    let element = bench.good("b8 03 0000 0001 00 00ffff 00 00");
    assert_eq!(element[18], 0x3B, "INENAB, EXENAB, ACCESS, IMPEXP, FULL");
    assert_eq!(element[25], 0x04, "no source; a WORM medium");
    bench.changer.export("NEW001L8", None).unwrap();
    assert_eq!(bench.from(1, "00 00 00 00 00 00").sense, Some(Sense::IMPORT_OR_EXPORT_ELEMENT_ACCESSED));
}

#[test]
fn an_inventory_tells_the_others_of_what_it_found() {
    let bench = bench();
    bench.good("07 00 00 00 00 00");
    assert_eq!(bench.from(1, "00 00 00 00 00 00").status, Status::Good);
    std::fs::remove_dir_all(bench.folder.path().join("library/OFH001L8")).unwrap();
    bench.good("37 01 1001 0000 0001 00 00");
    assert_eq!(bench.good("b8 02 1000 0001 00 00ffff 00 00")[18], 0x09, "not in the range");
    bench.good("37 01 0001 0000 0000 00 00");
    assert_eq!(bench.good("b8 02 1000 0001 00 00ffff 00 00")[18], 0x08);
    assert_eq!(
        bench.from(1, "00 00 00 00 00 00").sense.map(|sense| (sense.key, sense.code)),
        Some((SenseKey::UnitAttention, (0x28, 0)))
    );
    bench.refused("37 01 0900 0000 0001 00 00", Sense::INVALID_ELEMENT_ADDRESS.at(FieldPointer::cdb(2)));
}

#[test]
fn volumes_are_found_by_their_tags() {
    let bench = bench();
    bench.refused("b5 10 0000 ffff 00 00ffff 00 00", Sense::COMMAND_SEQUENCE_ERROR);
    let search = |cdb: &str, template: &str| {
        let mut list = [0; 40];
        list[..template.len()].copy_from_slice(template.as_bytes());
        finish(bench.changer.start(task(&bench.hosts[0], cdb, list.to_vec())))
    };
    assert_eq!(search("b6 00 0000 00 05 0000 0028 00 00", "*2L8").status, Status::Good);
    let found = bench.good("b5 10 0000 ffff 00 00ffff 00 00");
    assert_eq!(found[..8], hex("1001 0001 05 00003c"));
    assert_eq!(found[28..36], *b"OFH002L8");
    assert_eq!(bench.from(1, "b5 10 0000 ffff 00 00ffff 00 00").sense, Some(Sense::COMMAND_SEQUENCE_ERROR), "each host its own");
    search("b6 00 0000 00 06 0000 0028 00 00", "*");
    assert_eq!(bench.good("b5 10 0000 ffff 00 00ffff 00 00"), hex("0000 0000 06 000000"), "no alternate tags");
    assert_eq!(
        search("b6 00 0000 00 0a 0000 0028 00 00", "X").sense,
        Some(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(5, 4)))
    );
    assert_eq!(search("b6 00 0000 00 05 0000 0027 00 00", "X").sense, Some(Sense::PARAMETER_LIST_LENGTH_ERROR));
}

#[test]
fn mode_pages_tell_the_elements() {
    let bench = bench();
    let assignment = bench.good("1a 08 1d 00 ff 00");
    assert_eq!(assignment, hex("17 00 00 00  1d 12 0001 0001 1000 0003 0010 0001 0100 0001 0000"));
    let all = bench.good("1a 08 3f 00 ff 00");
    assert_eq!(all.len(), 4 + 12 + 20 + 4 + 20);
    assert_eq!(bench.good("5a 08 1f 00 000000 00ff 00")[8..10], hex("1f 12"));
}
