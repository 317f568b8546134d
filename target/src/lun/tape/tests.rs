//! The drive as an initiator sees it: CDBs in, data, sense and positions out.

use protocol::scsi::{Cdb, LunAddress, SenseFormat, SenseKey};
use protocol::wire::hex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cartridge::{Cartridge, Metadata};
use crate::lun::common::Identity;
use crate::lun::testing;
use crate::nexus::Nexus;

struct Setup {
    tape: Arc<Tape>,
    nexus: Arc<Nexus>,
    folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        Self::with_capacity(64 << 20)
    }

    fn with_capacity(capacity: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Cartridge::create(folder.path(), &Metadata::new("TEST01L8", capacity)).unwrap();
        Self::serving(open(&folder), folder)
    }

    fn serving(tape: Arc<Tape>, folder: TempDir) -> Self {
        Self { nexus: nexus(1, &tape), tape, folder }
    }

    fn send(&self, cdb: &str, data: &[u8]) -> Response {
        send_as(&self.tape, &self.nexus, cdb, data)
    }

    /// GOOD, and its Data-In.
    fn good(&self, cdb: &str, data: &[u8]) -> Vec<u8> {
        let response = self.send(cdb, data);
        assert_eq!(response.status, Status::Good, "{cdb}: {:?}", response.sense);
        response.data_in.concat()
    }

    /// CHECK CONDITION: key, code, flags (F filemark, E end of medium, I incorrect length), INFORMATION.
    fn check(&self, cdb: &str, data: &[u8]) -> (SenseKey, (u8, u8), String, Option<i64>, Vec<u8>) {
        let response = self.send(cdb, data);
        assert_eq!(response.status, Status::CheckCondition, "{cdb}");
        let sense = response.sense.unwrap();
        let flags = [(sense.stream.filemark, 'F'), (sense.stream.end_of_medium, 'E'), (sense.stream.incorrect_length, 'I')];
        let flags = flags.iter().filter(|flag| flag.0).map(|flag| flag.1).collect();
        (sense.key, sense.code, flags, sense.information.map(|information| information as i64), response.data_in.concat())
    }

    /// Logical object number and file number.
    fn position(&self) -> (u64, u64) {
        let long = self.good("34 06 00000000000000 00", &[]);
        let number = |at: usize| u64::from_be_bytes(long[at..at + 8].try_into().unwrap());
        (number(8), number(16))
    }

    /// `abc|de||` writes two records and a mark, a record of two bytes … and two marks; every `|` is a mark, `,` parts records.
    fn write(&self, text: &str) {
        for (n, file) in text.split('|').enumerate() {
            if n > 0 {
                self.good("10 01 000001 00", &[]);
            }
            for record in file.split(',').filter(|record| !record.is_empty()) {
                self.good(&format!("0A 00 {:06x} 00", record.len()), record.as_bytes());
            }
        }
    }
}

fn open(folder: &TempDir) -> Arc<Tape> {
    let common = Common::new(Identity::new("iqn.2026-01.org.offhost:t", "tape", "TAPE"), None);
    Tape::open(common, folder.path(), NewMedium::default()).unwrap()
}

fn nexus(id: u64, tape: &Arc<Tape>) -> Arc<Nexus> {
    let nexus = testing::nexus(id, &[]);
    testing::tell_of_power(&tape.common, &nexus);
    nexus
}

fn send_as(tape: &Arc<Tape>, nexus: &Arc<Nexus>, cdb: &str, data: &[u8]) -> Response {
    let task = Task {
        nexus: Arc::clone(nexus),
        lun: LunAddress::from_number(0),
        tag: 1,
        attribute: Default::default(),
        cdb: Cdb::new(&hex(cdb)).unwrap(),
        data_out: data.chunks(3).map(bytes::Bytes::copy_from_slice).collect(),
        data_in_limit: 1 << 20,
        in_place: false,
        abort: CancellationToken::new(),
    };
    match tape.start(task) {
        Execution::Done(response) => response,
        Execution::Blocking(run) | Execution::Alone(run) => run(),
        Execution::Async(_) => panic!("no command of a tape waits without a thread"),
    }
}

const FILEMARK: (u8, u8) = (0, 1);
const END: (u8, u8) = (0, 2);
const BEGINNING: (u8, u8) = (0, 4);
const END_OF_DATA: (u8, u8) = (0, 5);
const INVALID_FIELD: (u8, u8) = (0x24, 0);

const REWIND: &str = "01 00 000000 00";

#[test]
fn variable_blocks_come_back_with_their_lengths() {
    let setup = Setup::new();
    setup.write("hello,worlds|x");
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 00 000005 00", &[]), b"hello");
    let short = setup.check("08 00 000010 00", &[]);
    assert_eq!(short, (SenseKey::NoSense, (0, 0), "I".into(), Some(10), b"worlds".to_vec()));
    assert_eq!(setup.check("08 00 000010 00", &[]), (SenseKey::NoSense, FILEMARK, "F".into(), Some(16), vec![]));
    assert_eq!(setup.position(), (3, 1));
    assert_eq!(setup.good("08 02 000010 00", &[]), b"x", "SILI");
    let end = setup.check("08 00 000010 00", &[]);
    assert_eq!(end, (SenseKey::BlankCheck, END_OF_DATA, String::new(), Some(16), vec![]));
}

#[test]
fn a_longer_record_gives_a_negative_residual() {
    let setup = Setup::new();
    setup.write("abcdef,ghijkl,mnopqr");
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("08 00 000004 00", &[]), (SenseKey::NoSense, (0, 0), "I".into(), Some(-2), b"abcd".to_vec()));
    assert_eq!(setup.good("08 02 000004 00", &[]), b"ghij", "SILI, and no block length is set");
    setup.good("15 10 0000 0C 00", &hex("00 00 10 08  00 000000 00 000200"));
    assert_eq!(setup.check("08 02 000004 00", &[]).3, Some(-2), "SILI, but a block length is set");
}

#[test]
fn a_negative_residual_is_four_bytes_in_fixed_format() {
    let setup = Setup::new();
    setup.write("abcdef");
    setup.good(REWIND, &[]);
    let response = setup.send("08 00 000004 00", &[]);
    let bytes = response.sense.unwrap().emit(SenseFormat::Fixed);
    assert_eq!(bytes[..8], hex("F0 00 20 FFFFFFFE 0A")[..]);
}

#[test]
fn fixed_blocks_of_every_length_come_back() {
    for length in [1u32, 3, 512] {
        let setup = Setup::new();
        let select = format!("00 00 10 08  7F 000000 00 {length:06x}");
        setup.good("15 10 0000 0C 00", &hex(&select));
        assert_eq!(setup.good("1A 00 00 00 0C 00", &[])[4..], hex(&format!("5E 000000 00 {length:06x}")));
        let data: Vec<u8> = (0..10 * length).map(|n| n as u8).collect();
        setup.good("0A 01 00000A 00", &data);
        setup.good("10 00 000001 00", &[]);
        assert_eq!(setup.position(), (11, 1));
        setup.good(REWIND, &[]);
        assert_eq!(setup.good("08 01 000004 00", &[]), data[..4 * length as usize]);
        let rest = setup.check("08 01 000008 00", &[]);
        assert_eq!(rest, (SenseKey::NoSense, FILEMARK, "F".into(), Some(2), data[4 * length as usize..].to_vec()));
    }
}

#[test]
fn fixed_transfers_want_a_block_length_and_no_sili() {
    let setup = Setup::new();
    for cdb in ["08 01 000001 00", "0A 01 000001 00", "08 03 000001 00"] {
        assert_eq!(setup.check(cdb, b"x").1, INVALID_FIELD, "{cdb}");
    }
    setup.write("abc");
    setup.good("15 10 0000 0C 00", &hex("00 00 10 08  7F 000000 00 000002"));
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("08 01 000005 00", &[]), (SenseKey::NoSense, (0, 0), "I".into(), Some(5), vec![]));
    assert_eq!(setup.position(), (1, 0));
    setup.good("15 10 0000 0C 00", &hex("00 00 10 08  7F 000000 00 FFFFFF"));
    assert_eq!(setup.check("08 01 FFFFFF 00", &[]).1, INVALID_FIELD, "more than one command may move");
}

#[test]
fn a_write_whose_data_is_not_all_there_writes_nothing() {
    let setup = Setup::new();
    assert_eq!(setup.check("0A 00 000010 00", b"short").1, INVALID_FIELD);
    assert_eq!(setup.position(), (0, 0));
    setup.good("0A 00 000000 00", &[]);
    assert_eq!(setup.position(), (0, 0));
}

#[test]
fn writing_in_the_middle_makes_an_end_of_data_there() {
    let setup = Setup::new();
    setup.write("one,two|three|");
    setup.good("2B 00 00 00000001 00 00 00", &[]);
    setup.write("new");
    assert_eq!(setup.position(), (2, 0));
    assert_eq!(setup.check("08 00 000005 00", &[]).1, END_OF_DATA);
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 00 000003 00", &[]), b"one");
    assert_eq!(setup.good("08 00 000003 00", &[]), b"new");
}

#[test]
fn space_blocks_stops_at_marks_and_ends() {
    let setup = Setup::new();
    setup.write("a,b,c|d,e");
    setup.good(REWIND, &[]);
    setup.good("11 00 000002 00", &[]);
    assert_eq!(setup.position(), (2, 0));
    assert_eq!(setup.check("11 00 000003 00", &[]), (SenseKey::NoSense, FILEMARK, "F".into(), Some(2), vec![]));
    assert_eq!(setup.position(), (4, 1));
    assert_eq!(setup.check("11 00 000005 00", &[]), (SenseKey::BlankCheck, END_OF_DATA, String::new(), Some(3), vec![]));
    assert_eq!(setup.position(), (6, 1));
    setup.good("11 00 FFFFFE 00", &[]);
    assert_eq!(setup.position(), (4, 1));
    assert_eq!(setup.check("11 00 FFFFFE 00", &[]), (SenseKey::NoSense, FILEMARK, "F".into(), Some(2), vec![]));
    assert_eq!(setup.position(), (3, 0), "in front of the mark");
    assert_eq!(setup.check("11 00 FFFFFC 00", &[]), (SenseKey::NoSense, BEGINNING, "E".into(), Some(1), vec![]));
    assert_eq!(setup.position(), (0, 0));
}

#[test]
fn space_filemarks_goes_to_the_far_side_and_tells_what_it_did_not_find() {
    let setup = Setup::new();
    setup.write("a|b|c");
    setup.good(REWIND, &[]);
    setup.good("11 01 000002 00", &[]);
    assert_eq!(setup.position(), (4, 2));
    setup.good("11 01 FFFFFF 00", &[]);
    assert_eq!(setup.position(), (3, 1), "backwards: in front of the mark");
    assert_eq!(setup.check("11 01 FFFFFD 00", &[]), (SenseKey::NoSense, BEGINNING, "E".into(), Some(2), vec![]));
    let eom = setup.check("11 01 7FFFFF 00", &[]);
    assert_eq!(eom, (SenseKey::BlankCheck, END_OF_DATA, String::new(), Some(0x7F_FFFF - 2), vec![]));
    assert_eq!(setup.position(), (5, 2));
    setup.good("91 01 0000 FFFFFFFFFFFFFFFE 000000 00", &[]);
    assert_eq!(setup.position(), (1, 0));
    setup.good("11 03 000000 00", &[]);
    assert_eq!(setup.position(), (5, 2));
    assert_eq!(setup.check("11 04 000001 00", &[]).1, INVALID_FIELD, "setmarks");
}

#[test]
fn sequential_filemarks_are_found_only_without_blocks_between() {
    let setup = Setup::new();
    setup.write("a|b||c|||d");
    setup.good(REWIND, &[]);
    setup.good("11 02 000002 00", &[]);
    assert_eq!(setup.position(), (5, 3));
    setup.good("11 02 000003 00", &[]);
    assert_eq!(setup.position(), (9, 6));
    assert_eq!(setup.check("11 02 000001 00", &[]), (SenseKey::BlankCheck, END_OF_DATA, String::new(), Some(1), vec![]));
    setup.good("11 02 FFFFFD 00", &[]);
    assert_eq!(setup.position(), (6, 3));
    setup.good("11 02 FFFFFE 00", &[]);
    assert_eq!(setup.position(), (3, 1));
    assert_eq!(setup.check("11 02 FFFFFE 00", &[]), (SenseKey::NoSense, BEGINNING, "E".into(), Some(2), vec![]));
}

#[test]
fn locate_finds_objects_files_and_the_end() {
    let setup = Setup::new();
    setup.write("a,b|c|d");
    setup.good("92 08 00 00 0000000000000001 000000 00", &[]);
    assert_eq!(setup.position(), (3, 1));
    setup.good("92 00 00 00 0000000000000001 000000 00", &[]);
    assert_eq!(setup.position(), (1, 0));
    setup.good("92 18 00 00 0000000000000000 000000 00", &[]);
    assert_eq!(setup.position(), (6, 2));
    setup.good("2B 04 00 00000005 00 00 00", &[]);
    assert_eq!(setup.position(), (5, 2));
    for cdb in ["2B 00 00 00000007 00 00 00", "92 08 00 00 0000000000000003 000000 00"] {
        assert_eq!(setup.check(cdb, &[]), (SenseKey::BlankCheck, END_OF_DATA, String::new(), None, vec![]));
        assert_eq!(setup.position(), (6, 2));
    }
    setup.good("2B 00 00 00000006 00 00 00", &[]);
    assert_eq!(setup.check("2B 02 00 00000000 00 01 00", &[]).1, INVALID_FIELD, "there is one partition");
}

#[test]
fn read_position_tells_the_same_in_all_forms() {
    let setup = Setup::new();
    assert_eq!(setup.good("34 00 00000000000000 00", &[]), hex("80 00 0000 00000000 00000000 00 000000 00000000"));
    setup.write("a|b");
    for service_action in ["00", "01"] {
        let short = setup.good(&format!("34 {service_action} 00000000000000 00"), &[]);
        assert_eq!(short, hex("00 00 0000 00000003 00000003 00 000000 00000000"));
    }
    assert_eq!(setup.good("34 08 0000000000 0010 00", &[]), hex("00 00 001C 00 000000 0000000000000003"));
    assert_eq!(setup.check("34 02 00000000000000 00", &[]).1, INVALID_FIELD);
    assert_eq!(setup.check("34 00 0000000000 0010 00", &[]).1, INVALID_FIELD, "the short form has no allocation length");
}

#[test]
fn early_warning_is_told_with_the_data_written_and_the_end_with_what_was_not() {
    let setup = Setup::with_capacity(4 << 20);
    let record = vec![7; 1 << 20];
    let cdb = "0A 00 100000 00";
    setup.good(cdb, &record);
    setup.good(cdb, &record);
    assert_eq!(setup.check(cdb, &record), (SenseKey::NoSense, END, "E".into(), Some(0), vec![]));
    assert_eq!(setup.position(), (3, 0));
    assert_eq!(setup.good("34 00 00000000000000 00", &[])[0], 0x40);
    assert_eq!(setup.check(cdb, &record), (SenseKey::VolumeOverflow, END, "E".into(), Some(1 << 20), vec![]));
    assert_eq!(setup.position(), (3, 0));
    assert_eq!(setup.check("10 00 000002 00", &[]), (SenseKey::NoSense, END, "E".into(), Some(0), vec![]));
    assert_eq!(setup.position(), (5, 2));
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 00 100000 00", &[]), record);
}

#[test]
fn a_write_protected_cartridge_is_read_and_never_written() {
    let setup = Setup::new();
    setup.write("abc");
    let Setup { tape, folder, .. } = setup;
    drop(tape);
    let metadata = Metadata::load(folder.path()).unwrap();
    Metadata { write_protect: true, ..metadata }.store(folder.path()).unwrap();
    let setup = Setup::serving(open(&folder), folder);
    for cdb in ["0A 00 000001 00", "10 00 000001 00", "19 00 000000 00"] {
        assert_eq!(setup.check(cdb, b"x").0, SenseKey::DataProtect, "{cdb}");
    }
    assert_eq!(setup.good("1A 00 00 00 0C 00", &[])[2], 0x90, "WP and buffered mode");
    setup.good("10 00 000000 00", &[]);
    assert_eq!(setup.good("08 00 000003 00", &[]), b"abc");
    let alerts = setup.good("4D 00 6E 00 00 0000 0200 00", &[]);
    assert_eq!(alerts[4 + 8 * 5..][..5], hex("0009 03 01 01")[..], "flag 9");
    let alerts = setup.good("4D 00 6E 00 00 0009 0200 00", &[]);
    assert_eq!(alerts[4..][..5], hex("0009 03 01 00")[..], "told once");
}

#[test]
fn erase_ends_the_data_where_the_drive_stands() {
    let setup = Setup::new();
    setup.write("a,b,c");
    setup.good("2B 00 00 00000001 00 00 00", &[]);
    setup.good("19 01 000000 00", &[]);
    assert_eq!(setup.check("08 00 000001 00", &[]).1, END_OF_DATA);
    assert_eq!(setup.position(), (1, 0));
}

#[test]
fn unload_takes_the_medium_and_load_tells_the_others() {
    let setup = Setup::new();
    let other = nexus(2, &setup.tape);
    assert_eq!(send_as(&setup.tape, &other, "00 0000000000", &[]).status, Status::Good);
    setup.write("abc");
    setup.good("1E 000000 01 00", &[]);
    assert_eq!(setup.check("1B 00 0000 00 00", &[]).1, (0x53, 0x02));
    setup.good("1E 000000 00 00", &[]);
    setup.good("1B 00 0000 00 00", &[]);
    assert!(Cartridge::open(setup.folder.path()).is_ok(), "nobody has it any more");
    for cdb in ["00 0000000000", "08 00 000001 00", REWIND, "34 00 00000000000000 00", "10 00 000000 00"] {
        assert_eq!(setup.check(cdb, &[]).1, (0x3A, 0x00), "{cdb}");
    }
    setup.good("1B 00 0000 01 00", &[]);
    setup.good("00 0000000000", &[]);
    let told = send_as(&setup.tape, &other, "00 0000000000", &[]).sense.unwrap();
    assert_eq!((told.key, told.code), (SenseKey::UnitAttention, (0x28, 0x00)));
    assert_eq!(setup.good("08 00 000003 00", &[]), b"abc");
}

#[test]
fn a_changer_puts_cartridges_in_and_takes_them_out() {
    let (first, second) = (Setup::new(), Setup::new());
    first.write("one");
    second.write("two");
    let folders = (first.folder, second.folder);
    drop((first.tape, second.tape));
    let common = Common::new(Identity::new("iqn.2026-01.org.offhost:t", "drive", "TAPE"), None);
    let setup = Setup::serving(Tape::empty(common), tempfile::tempdir().unwrap());
    assert_eq!((setup.tape.is_loaded(), setup.tape.cartridge(), setup.tape.barcode()), (false, None, None));
    for cdb in ["00 0000000000", "1B 00 0000 01 00", REWIND] {
        assert_eq!(setup.check(cdb, &[]).1, (0x3A, 0x00), "{cdb}");
    }
    for (folder, text) in [(&folders.0, b"one"), (&folders.1, b"two")] {
        setup.tape.load(folder.path()).unwrap();
        assert!(matches!(setup.tape.load(folder.path()), Err(LoadError::Full)));
        assert_eq!(setup.tape.barcode().as_deref(), Some("TEST01L8"));
        assert_eq!(setup.check("00 0000000000", &[]).1, (0x28, 0x00));
        assert_eq!(setup.good("08 00 000003 00", &[]), text);
        setup.good("1E 000000 01 00", &[]);
        assert!(matches!(setup.tape.unload(), Err(UnloadError::Prevented)));
        setup.good("1E 000000 00 00", &[]);
        setup.good("1B 00 0000 00 00", &[]);
        assert_eq!((setup.tape.is_loaded(), setup.tape.cartridge().as_deref()), (false, Some(folder.path())), "ejected");
        assert_eq!(setup.tape.unload().unwrap().as_deref(), Some(folder.path()));
        assert_eq!(setup.tape.unload().unwrap(), None);
        assert_eq!(setup.check("00 0000000000", &[]).1, (0x3A, 0x00));
    }
    assert!(matches!(setup.tape.load(setup.folder.path()), Err(LoadError::Open(_))), "no cartridge");
    assert_eq!(setup.tape.cartridge(), None);
}

#[test]
fn a_prevention_ends_with_its_nexus() {
    let setup = Setup::new();
    let other = nexus(2, &setup.tape);
    assert_eq!(send_as(&setup.tape, &other, "1E 000000 01 00", &[]).status, Status::Good);
    assert_eq!(setup.check("1B 00 0000 00 00", &[]).1, (0x53, 0x02));
    setup.tape.common().nexus_lost(other.id);
    setup.good("1B 00 0000 00 00", &[]);
}

#[test]
fn mode_pages_are_what_programs_for_tapes_ask_for() {
    let setup = Setup::new();
    let all = setup.good("1A 00 3F 00 FF 00", &[]);
    assert_eq!(usize::from(all[0]), all.len() - 1);
    assert_eq!(all[1..4], [0x88, 0x10, 8]);
    assert_eq!(setup.good("1A 08 0F 00 FF 00", &[])[4..], hex("0F 0E 40 80 000000FF 000000FF 00000000"));
    assert_eq!(setup.good("1A 08 10 00 FF 00", &[])[4..], hex("10 0E 000000000000 40 00 18 0000000000"));
    setup.good("15 10 0000 04 00", &hex("00 00 00 00"));
    assert_eq!(setup.good("1A 08 3F 00 FF 00", &[])[2], 0x00, "unbuffered");
    assert_eq!(setup.check("15 10 0000 04 00", &hex("00 00 20 00")).1, (0x26, 0));
    assert_eq!(setup.check("15 10 0000 0C 00", &hex("00 00 10 08  42 000000 00 000000")).1, (0x26, 0));
}

#[test]
fn log_pages_tell_what_went_through_and_what_is_there() {
    let setup = Setup::new();
    setup.write("abcd,ef|g|h");
    setup.good(REWIND, &[]);
    setup.good("08 00 000004 00", &[]);
    assert_eq!(setup.good("4D 00 40 00 00 0000 0100 00", &[])[4..], hex("00 02 03 0C 0D 11 12 14 17 1B 2E 30 31 32 3A"));
    let page = setup.good("4D 00 4C 00 00 0000 0100 00", &[]);
    assert_eq!(page[4..28], hex("0000 00 08 0000000000000008  0001 00 08 0000000000000008"));
    assert_eq!(page[28..52], hex("0002 00 08 0000000000000004  0003 00 08 0000000000000004"));
    let sums = protocol::cartridge::sums::parse_log_page(&setup.good("4D 00 7A 00 00 0000 1000 00", &[])).unwrap();
    let told: Vec<_> = sums.iter().map(|file| (file.file, file.first_object, file.records, file.bytes, file.closed)).collect();
    assert_eq!(told, [(0, 0, 2, 6, true), (1, 3, 1, 1, true), (2, 5, 1, 1, false)]);
    let hashes = [*blake3::hash(b"abcd").as_bytes(), *blake3::hash(b"ef").as_bytes()].concat();
    assert_eq!((sums[0].complete, sums[0].root), (true, *blake3::hash(&hashes).as_bytes()));
    let later = protocol::cartridge::sums::parse_log_page(&setup.good("4D 00 7A 00 00 0002 1000 00", &[])).unwrap();
    assert_eq!(later, sums[2..]);
    let statistics = setup.good("4D 00 57 00 00 0042 0100 00", &[]);
    assert_eq!(&statistics[8..16], b"TEST01L8");
}

#[test]
fn a_drive_tells_what_it_is() {
    let setup = Setup::new();
    let inquiry = setup.good("12 00 00 0060 00", &[]);
    assert_eq!(inquiry[..2], [0x01, 0x80], "sequential access, removable");
    assert_eq!(setup.good("12 01 B0 00FF 00", &[]), hex("01 B0 0002 0100"));
    assert_eq!(setup.good("05 0000000000", &[]), hex("00 FFFFFF 0001"));
    assert_eq!(setup.good("44 00 0000000000 0400 00", &[])[..7], hex("0106 0000 58 58 80"), "five densities");
    assert_eq!(setup.good("44 01 0000000000 0400 00", &[])[..7], hex("0036 0000 5E 5E A0"), "of the medium");
    assert_eq!(setup.good("44 02 0000000000 0400 00", &[])[..5], hex("0232 0000 58"), "ten medium types");
    assert_eq!(setup.check("08 80 000001 00", &[]).1, INVALID_FIELD, "a reserved bit");
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let setup = Setup::new();
    setup.write("abc|");
    let Setup { tape, folder, .. } = setup;
    drop(tape);
    let setup = Setup::serving(open(&folder), folder);
    assert_eq!(setup.position(), (0, 0));
    assert_eq!(setup.good("08 00 000003 00", &[]), b"abc");
    let (capacity, status) = setup.tape.status();
    assert_eq!((capacity, status.objects, status.object, status.barcode.as_str()), (64 << 20, 2, 1, "TEST01L8"));
}

mod background;
mod features;
mod verify;

mod copies {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use protocol::cartridge::append::{Appender, Durability, Limits, Step};
    use protocol::cartridge::index::SumState;
    use protocol::cartridge::report::{Appended, TapeReport};
    use protocol::cartridge::sums::RecordSum;
    use protocol::cartridge::{ObjectKind, TapePosition};
    use protocol::control::WithoutSums;
    use protocol::mover::ends::End;

    use super::*;

    /// Appends a record as a mover does, with or without the publishing write.
    fn mover_writes(copy: &TapeCopy, at: TapePosition, data: &[u8], publish: bool) -> TapeReport {
        let end = copy.end().unwrap();
        let End::Cartridge { capacity, early_warning, layout, end_of_data, .. } = end.end else { panic!("{:?}", end.end) };
        assert_eq!(end_of_data, at);
        let image = File::from(end.files.into_iter().next().unwrap());
        let mut appender = Appender::new(at, Limits { capacity, early_warning, layout });
        let placement = appender.record(data.len() as u64).unwrap();
        image.write_all_at(&[&placement.head()[..], data, placement.tail()].concat(), placement.write_at()).unwrap();
        if publish {
            for step in appender.commit(Durability::Process) {
                if let Step::Write { at, word } = step {
                    image.write_all_at(&word, at).unwrap();
                }
            }
        }
        let sum = RecordSum::of(data);
        let length = data.len() as u32;
        let appended = Appended { at, gap: placement.gap, kind: ObjectKind::Record, length, sum_state: SumState::Known, sum };
        TapeReport { appended: vec![appended], position: placement.next(), synced: false }
    }

    #[test]
    fn a_copy_has_the_drive_to_itself_and_leaves_it_where_its_report_says() {
        let setup = Setup::new();
        setup.write("one,two");
        setup.good("2B 00 00 00000001 00 00 00", &[]);
        let mut copy = setup.tape.begin_copy().unwrap();
        assert_eq!(setup.tape.begin_copy().unwrap_err().status, Status::Busy);
        assert_eq!(setup.send(REWIND, &[]).status, Status::Busy);
        assert_eq!(setup.send("0A 00 000001 00", b"x").status, Status::Busy);
        assert_eq!(setup.check("00 0000000000", &[]).1, (0x04, 0x07));
        setup.good("4D 00 7A 00 00 0000 1000 00", &[]);
        setup.good("12 00 00 0060 00", &[]);

        let at = setup.tape.with_drive(|drive| drive.position());
        copy.append(at).unwrap();
        let report = mover_writes(&copy, at, b"moved", true);
        copy.apply(&report).unwrap();
        copy.finish().unwrap();
        assert_eq!(setup.position(), (2, 0));
        setup.good(REWIND, &[]);
        assert_eq!(setup.good("08 00 000003 00", &[]), b"one");
        assert_eq!(setup.good("08 00 000005 00", &[]), b"moved");
        assert_eq!(setup.check("08 00 000005 00", &[]).1, END_OF_DATA);
        let sums = protocol::cartridge::sums::parse_log_page(&setup.good("4D 00 7A 00 00 0000 1000 00", &[])).unwrap();
        assert!(sums[0].complete, "the mover's sums count");
    }

    #[test]
    fn sums_that_a_mover_left_out_are_taken_when_nobody_has_the_drive() {
        let setup = Setup::new();
        let bell = Arc::new(Bell::default());
        setup.tape.set_bell(Arc::clone(&bell));
        let mut copy = setup.tape.begin_copy().unwrap();
        copy.append(TapePosition::BEGINNING).unwrap();
        let mut report = mover_writes(&copy, TapePosition::BEGINNING, b"moved", true);
        report.appended[0].sum_state = SumState::Absent;
        report.appended[0].sum = RecordSum::default();
        copy.apply(&report).unwrap();
        let without = || setup.tape.status().1.without_sums;
        assert_eq!(without(), WithoutSums { records: 1, bytes: 5 });
        assert!(bell.wait(), "it has rung");
        assert_eq!(setup.tape.take_sum(), Taken::Later, "a copy has the drive");
        copy.finish().unwrap();
        let give_up = Instant::now() + Duration::from_secs(60);
        while setup.tape.take_sum() == Taken::Later {
            assert!(Instant::now() < give_up, "the drive never rests");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((without(), setup.tape.status().1.totals.sums_taken), (WithoutSums::default(), 1));
        assert_eq!(setup.tape.take_sum(), Taken::Nothing);
        setup.good(REWIND, &[]);
        assert_eq!(setup.good("08 00 000005 00", &[]), b"moved");
    }

    #[test]
    fn after_a_mover_died_the_tape_ends_at_a_whole_record_and_the_drive_knows_where() {
        for published in [false, true] {
            let setup = Setup::new();
            setup.write("one");
            let copy = setup.tape.begin_copy().unwrap();
            let at = setup.tape.with_drive(|drive| drive.position());
            let _never_sent = mover_writes(&copy, at, b"moved", published);
            copy.recover().unwrap();
            assert_eq!(setup.position(), (1 + u64::from(published), 0));
            setup.write("next");
            setup.good("2B 00 00 00000001 00 00 00", &[]);
            let expected = if published { &b"moved"[..] } else { b"next" };
            assert_eq!(setup.good("08 02 000010 00", &[]), expected);
        }
    }

    #[test]
    fn a_report_that_the_image_does_not_bear_out_fails_the_copy_and_not_the_drive() {
        let setup = Setup::new();
        setup.write("one");
        let mut copy = setup.tape.begin_copy().unwrap();
        let at = setup.tape.with_drive(|drive| drive.position());
        let report = mover_writes(&copy, at, b"moved", false);
        assert_eq!(copy.apply(&report).unwrap_err().kind(), io::ErrorKind::InvalidData);
        copy.finish().expect_err("a mover that says all is well does not make it so");
        assert_eq!(setup.position(), (1, 0));
        setup.write("next");
    }

    #[test]
    fn a_mover_may_append_only_where_an_object_begins() {
        let setup = Setup::new();
        setup.write("one,two");
        let mut copy = setup.tape.begin_copy().unwrap();
        let nowhere = TapePosition { object: 1, file: 0, offset: 4 };
        assert_eq!(copy.append(nowhere).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        copy.finish().unwrap();
        assert_eq!(setup.position(), (2, 0));
    }
}
