//! The disk as an initiator sees it: CDBs in, data and sense out.

mod medium;
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::scsi::{CommandSpec, DataDirection, FieldPointer, Sense, SenseFormat, SenseKey, Status};
use protocol::wire::hex;

use super::Disk;
use crate::lun::Device;
use crate::lun::common::LogicalUnit;
use crate::lun::testing::{MemoryStore, disk_on, finish, nexus, task};
use crate::nexus::Nexus;
use crate::quiet::{Hold, await_quiet};
use crate::task::{Execution, Response, Task};

/// A disk of 2048 blocks of 512 bytes, and who uses it.
struct Bench {
    store: Arc<MemoryStore>,
    disk: Arc<Disk>,
    nexus: Arc<Nexus>,
}

impl Bench {
    fn new() -> Self {
        Self::on(MemoryStore::new(1 << 20), 512)
    }

    fn on(store: MemoryStore, block_length: u32) -> Self {
        let store = Arc::new(store);
        let (disk, nexus) = disk_on(Arc::clone(&store), block_length);
        Self { store, disk, nexus }
    }

    fn run(&self, cdb: &str) -> Response {
        self.send(cdb, Vec::new())
    }

    fn send(&self, cdb: &str, data_out: Vec<u8>) -> Response {
        finish(self.disk.start(task(&self.nexus, cdb, data_out)))
    }

    fn data(&self, cdb: &str) -> Vec<u8> {
        let response = self.run(cdb);
        assert_eq!(response.status, Status::Good, "{cdb}: {:?}", response.sense);
        response.data_in.concat()
    }

    fn good(&self, cdb: &str, data_out: Vec<u8>) {
        let response = self.send(cdb, data_out);
        assert_eq!(response.status, Status::Good, "{cdb}: {:?}", response.sense);
    }

    fn refused(&self, cdb: &str, data_out: Vec<u8>) -> Sense {
        let response = self.send(cdb, data_out);
        assert_eq!(response.status, Status::CheckCondition, "{cdb}");
        response.sense.expect("sense data goes with CHECK CONDITION")
    }
}

#[test]
fn what_any_write_wrote_any_read_reads() {
    let bench = Bench::new();
    let writes = [
        ("0a 00 0010 01 00", 0x11),
        ("2a 08 00000010 00 0001 00", 0x22),
        ("aa 18 00000010 00000001 00 00", 0x33),
        ("8a 10 0000000000000010 00000001 00 00", 0x44),
        ("2e 02 00000010 00 0001 00", 0x55),
        ("8e 00 0000000000000010 00000001 00 00", 0x66),
    ];
    let reads = [
        "08 00 0010 01 00",
        "28 18 00000010 00 0001 00",
        "a8 00 00000010 00000001 00 00",
        "88 00 0000000000000010 00000001 00 00",
    ];
    for (write, byte) in writes {
        bench.good(write, vec![byte; 512]);
        for read in reads {
            assert_eq!(bench.data(read), [byte; 512], "{write} {read}");
        }
    }
}

#[test]
fn a_read_takes_no_more_memory_than_the_initiator_has_room_for() {
    let bench = Bench::new();
    for cached in [true, false] {
        bench.store.cached.store(cached, Ordering::Relaxed);
        for (room, blocks) in [(0, 0), (1, 1), (512, 1), (1000, 2), (u64::MAX, 2048)] {
            let read = Task { data_in_limit: room, ..task(&bench.nexus, "28 00 00000000 00 0800 00", Vec::new()) };
            let response = finish(bench.disk.start(read));
            assert_eq!((response.status, response.data_in.concat().len()), (Status::Good, blocks * 512), "room for {room}");
            assert_eq!(response.transfer_length, Some(2048 * 512), "the residual is still told");
        }
    }
}

#[test]
fn a_read_that_is_not_cached_goes_to_a_thread() {
    let bench = Bench::new();
    bench.store.cached.store(false, Ordering::Relaxed);
    let execution = bench.disk.start(task(&bench.nexus, "28 00 00000000 00 0001 00", Vec::new()));
    assert!(matches!(execution, Execution::Blocking(_)));
    assert_eq!(finish(execution).data_in.concat(), [0; 512]);
}

#[test]
fn the_last_block_is_read_and_the_one_behind_it_is_not() {
    let bench = Bench::new();
    bench.good("28 00 000007ff 00 0001 00", Vec::new());
    bench.good("28 00 00000800 00 0000 00", Vec::new());
    let beyond = Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::cdb(2));
    for cdb in [
        "28 00 000007ff 00 0002 00",
        "28 00 00000801 00 0000 00",
        "88 00 ffffffffffffffff 00000002 00 00",
        "2a 00 00000800 00 0001 00",
        "2f 00 00000800 00 0001 00",
        "35 00 00000800 00 0001 00",
        "34 00 00000800 00 0001 00",
        "41 00 00000800 00 0001 00",
        "89 00 0000000000000800 000000 01 00 00",
        "8b 00 0000000000000800 00000001 00 00",
        "9e 12 0000000000000800 00000100 00 00",
    ] {
        assert_eq!(bench.refused(cdb, vec![0; 512]), beyond, "{cdb}");
    }
    let beyond = Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::cdb_bit(1, 4));
    assert_eq!(bench.refused("08 00 07ff 00 00", Vec::new()), beyond, "256 blocks");
}

#[test]
fn protection_bits_are_refused_with_a_pointer_to_them() {
    let bench = Bench::new();
    let refused = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 5));
    for opcode in ["28", "2a", "2f", "2e", "41"] {
        assert_eq!(bench.refused(&format!("{opcode} 20 00000000 00 0001 00"), vec![0; 512]), refused, "{opcode}");
    }
    for opcode in ["88", "8a", "8f", "8e", "93", "8b"] {
        assert_eq!(bench.refused(&format!("{opcode} 20 0000000000000000 00000001 00 00"), vec![0; 512]), refused, "{opcode}");
    }
}

#[test]
fn more_than_the_maximum_transfer_length_is_refused_at_the_count() {
    let bench = Bench::on(MemoryStore::new(64 << 20), 512);
    let refused = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(10));
    assert_eq!(bench.refused("88 00 0000000000000000 00010001 00 00", Vec::new()), refused);
}

#[test]
fn fua_and_a_cleared_write_cache_sync_before_the_status() {
    let bench = Bench::new();
    let syncs = || bench.store.syncs.load(Ordering::Relaxed);
    bench.good("2a 00 00000000 00 0001 00", vec![1; 512]);
    assert_eq!(syncs(), 0);
    bench.good("2a 08 00000000 00 0001 00", vec![1; 512]);
    assert_eq!(syncs(), 1);
    bench.good("35 00 00000000 00 0000 00", Vec::new());
    assert_eq!(syncs(), 2);
    bench.good("15 10 0000 18 00", hex("00000000 08 12 00 0000000000000000000000000000000000"));
    bench.good("2a 00 00000000 00 0001 00", vec![1; 512]);
    assert_eq!(syncs(), 3);
}

#[test]
fn a_store_that_fails_is_told_by_its_kind() {
    let bench = Bench::new();
    let write = |errno| {
        *bench.store.fail_write.lock().unwrap() = Some(errno);
        bench.refused("2a 00 00000000 00 0001 00", vec![1; 512])
    };
    assert_eq!(write(nix::libc::ENOSPC), Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT);
    assert_eq!(write(nix::libc::EIO), Sense::WRITE_ERROR);
    assert_eq!(write(nix::libc::EBADF).key, SenseKey::HardwareError);
}

#[test]
fn a_read_only_store_is_a_write_protected_lun() {
    let bench = Bench::on(MemoryStore::read_only(1 << 20), 512);
    for cdb in ["2a 00 00000000 00 0001 00", "0a 00 0000 01 00", "41 00 00000000 00 0001 00", "42 00 00000000 00 0018 00"] {
        assert_eq!(bench.refused(cdb, vec![0; 512]), Sense::WRITE_PROTECTED, "{cdb}");
    }
    assert_eq!(bench.data("1a 00 3f 00 ff 00")[2], 0x90, "WP and DPOFUA");
    bench.good("28 00 00000000 00 0001 00", Vec::new());
    bench.good("35 00 00000000 00 0000 00", Vec::new());
}

#[test]
fn verify_compares_and_tells_the_first_byte_that_differs() {
    let bench = Bench::new();
    let mut data = vec![7; 1024];
    bench.good("2a 00 00000004 00 0002 00", data.clone());
    bench.good("2f 02 00000004 00 0002 00", data.clone());
    bench.good("2f 06 00000004 00 0002 00", vec![7; 512]);
    bench.good("2f 00 00000004 00 0002 00", Vec::new());
    data[600] = 8;
    let miscompare = Sense::MISCOMPARE_DURING_VERIFY_OPERATION.with_information(600);
    assert_eq!(bench.refused("af 02 00000004 00000002 00 00", data), miscompare);
    let reserved = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 2));
    assert_eq!(bench.refused("2f 04 00000004 00 0002 00", vec![7; 512]), reserved);
}

#[test]
fn compare_and_write_writes_only_what_compared() {
    let bench = Bench::new();
    let cdb = "89 00 0000000000000008 000000 01 00 00";
    bench.good(cdb, [vec![0; 512], vec![9; 512]].concat());
    assert_eq!(bench.data("28 00 00000008 00 0001 00"), [9; 512]);
    let miscompare = Sense::MISCOMPARE_DURING_VERIFY_OPERATION.with_information(0);
    assert_eq!(bench.refused(cdb, [vec![0; 512], vec![1; 512]].concat()), miscompare);
    assert_eq!(bench.data("28 00 00000008 00 0001 00"), [9; 512]);
    for length in [512, 1536] {
        assert_eq!(bench.refused(cdb, vec![9; length]), Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(13)), "{length}");
    }
    bench.good("89 00 0000000000000008 000000 00 00 00", Vec::new());
}

/// A disk whose writes are held, and a write to it that is parked.
async fn parked(bench: &Bench) -> (Hold, Task, Pin<Box<dyn Future<Output = Response> + Send>>) {
    let gate = Arc::clone(bench.disk.volume().gate());
    let hold = await_quiet([gate], Duration::ZERO, Duration::from_secs(1), |_| ()).await.unwrap();
    let write = task(&bench.nexus, "2a 00 00000000 00 0001 00", vec![1; 512]);
    let twin = Task { abort: write.abort.clone(), ..task(&bench.nexus, "00", Vec::new()) };
    let Execution::Async(parked) = bench.disk.start(write) else { panic!("a held write takes no thread") };
    (hold, twin, parked)
}

#[tokio::test]
async fn a_held_write_is_done_when_the_hold_ends() {
    let bench = Bench::new();
    let (hold, _, mut parked) = parked(&bench).await;
    let early = tokio::time::timeout(Duration::from_millis(20), &mut parked).await;
    assert!(early.is_err(), "the hold is on");
    assert_eq!(bench.data("28 00 00000000 00 0001 00"), [0; 512], "reads pass");
    bench.good("35 00 00000000 00 0000 00", Vec::new());
    drop(hold);
    assert_eq!(parked.await, Response { transfer_length: Some(512), ..Response::good() });
    assert_eq!(bench.data("28 00 00000000 00 0001 00"), [1; 512]);
}

#[tokio::test]
async fn a_held_write_can_be_aborted_and_then_writes_nothing() {
    let bench = Bench::new();
    let (hold, twin, parked) = parked(&bench).await;
    twin.abort.cancel();
    assert_eq!(parked.await.status, Status::TaskAborted);
    drop(hold);
    assert_eq!(bench.data("28 00 00000000 00 0001 00"), [0; 512]);
    assert_eq!(bench.disk.volume().quiet().in_flight, 0);
}

#[test]
fn orwrite_sets_bits() {
    let bench = Bench::new();
    bench.good("2a 00 00000000 00 0001 00", vec![0x0F; 512]);
    bench.good("8b 00 0000000000000000 00000001 00 00", vec![0xF0; 512]);
    assert_eq!(bench.data("28 00 00000000 00 0001 00"), [0xFF; 512]);
}

#[test]
fn unmapped_blocks_read_as_zeros_and_are_told_as_deallocated() {
    let bench = Bench::new();
    bench.good("2a 00 00000000 00 0010 00", vec![5; 8192]);
    bench.good("42 00 00000000 00 0018 00", hex("0016 0010 00000000 0000000000000008 00000008 00000000"));
    assert_eq!(bench.data("28 00 00000007 00 0002 00"), [[5; 512], [0; 512]].concat());
    let status = bench.data("9e 12 0000000000000000 00000028 00 00");
    let golden = "00000024 00000000  0000000000000000 00000008 00 000000  0000000000000008 000007f8 01 000000";
    assert_eq!(status, hex(golden), "two descriptors, the second a hole up to the end");
}

#[test]
fn an_unmap_beyond_the_end_unmaps_nothing() {
    let bench = Bench::new();
    bench.good("2a 00 00000000 00 0008 00", vec![5; 4096]);
    let list = "0026 0020 00000000 0000000000000000 00000008 00000000 0000000000000800 00000001 00000000";
    let beyond = Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::parameter(24));
    assert_eq!(bench.refused("42 00 00000000 00 0028 00", hex(list)), beyond);
    assert_eq!(bench.data("28 00 00000000 00 0001 00"), [5; 512]);
    assert_eq!(bench.refused("42 00 00000000 00 0030 00", hex(list)), Sense::PARAMETER_LIST_LENGTH_ERROR);
}

#[test]
fn write_same_repeats_its_block_or_unmaps() {
    let bench = Bench::new();
    bench.good("41 00 00000000 00 0020 00", vec![3; 512]);
    assert_eq!(bench.data("28 00 00000000 00 0020 00"), vec![3; 32 * 512]);
    bench.good("93 08 0000000000000000 00000008 00 00", vec![0; 512]);
    bench.good("93 01 0000000000000008 00000008 00 00", Vec::new());
    assert_eq!(bench.data("28 00 00000000 00 0010 00"), vec![0; 16 * 512]);
    let status = bench.data("9e 12 0000000000000000 00000018 00 00");
    assert_eq!(status[16..21], hex("00000008 01")[..], "the first eight are unmapped, the next only zero");
    bench.good("93 08 0000000000000010 00000008 00 00", vec![4; 512]);
    assert_eq!(bench.data("28 00 00000010 00 0001 00"), [4; 512], "UNMAP must not lose a block that is not zero");
}

#[test]
fn write_same_of_another_number_of_bytes_than_a_block_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.refused("41 00 00000000 00 0001 00", vec![0; 1024]), Sense::INVALID_FIELD_IN_CDB);
    assert_eq!(
        bench.refused("41 01 00000000 00 0001 00", vec![0; 512]),
        Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 0))
    );
}

#[test]
fn an_initiator_that_sends_too_little_gets_its_whole_blocks_written_and_a_residual() {
    let bench = Bench::new();
    let response = bench.send("2a 00 00000000 00 0002 00", vec![6; 512]);
    assert_eq!((response.status, response.transfer_length), (Status::Good, Some(1024)));
    let torn = bench.send("2a 00 00000000 00 0002 00", vec![7; 700]);
    assert_eq!((torn.sense, torn.transfer_length), (Some(Sense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT), Some(1024)));
    assert_eq!(bench.data("28 00 00000000 00 0002 00"), [[6; 512], [0; 512]].concat());
}

#[test]
fn capacity_is_told_in_blocks_of_either_length() {
    let bench = Bench::new();
    assert_eq!(bench.data("25 00 00000000 00 0000 00"), hex("000007ff 00000200"));
    assert_eq!(bench.data("9e 10 0000000000000000 00000020 00 00")[..16], hex("00000000000007ff 00000200 00 03 c0 00")[..]);
    let bench = Bench::on(MemoryStore::new((1 << 20) + 100), 4096);
    assert_eq!(bench.data("25 00 00000000 00 0000 00"), hex("000000ff 00001000"));
    assert_eq!(bench.data("9e 10 0000000000000000 00000020 00 00")[..16], hex("00000000000000ff 00001000 00 00 c0 00")[..]);
    bench.good("2a 00 000000ff 00 0001 00", vec![1; 4096]);
}

#[test]
fn inquiry_lists_its_pages_ascending_and_answers_each() {
    let bench = Bench::new();
    let standard = bench.data("12 00 00 00ff 00");
    assert_eq!((standard.len(), standard[0], standard[5] & 0x08), (96, 0, 0), "no copy service: 3PC is clear");
    assert_eq!(bench.data("12 00 00 0024 00"), standard[..36], "cut at the allocation length");
    let pages = bench.data("12 01 00 00ff 00");
    assert_eq!(pages[4..], hex("00 80 83 86 b0 b1 b2"));
    for code in &pages[4..] {
        let page = bench.data(&format!("12 01 {code:02x} 0fff 00"));
        assert_eq!(page[1], *code);
        assert_eq!(usize::from(u16::from_be_bytes([page[2], page[3]])), page.len() - 4, "page {code:02x}");
    }
    assert_eq!(bench.refused("12 01 8f 00ff 00", Vec::new()), Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)));
    assert_eq!(bench.refused("12 00 80 00ff 00", Vec::new()), Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)));
}

#[test]
fn third_party_copy_is_no_command_without_a_copy_service() {
    let bench = Bench::new();
    let unknown = Sense::INVALID_COMMAND_OPERATION_CODE.at(FieldPointer::cdb(0));
    assert_eq!(bench.refused("83 00 0000000000000000 00000000 00 00", Vec::new()), unknown);
    assert_eq!(bench.refused("84 03 0000000000000000 00000100 00 00", Vec::new()), unknown);
}

#[test]
fn mode_select_changes_the_format_of_sense_data_and_tells_the_others() {
    let bench = Bench::new();
    let other = nexus(2, &[Device::Disk(Arc::clone(&bench.disk))]);
    finish(bench.disk.start(task(&other, "00 00 0000 00 00", Vec::new())));
    bench.good("15 10 0000 10 00", hex("00000000 0a 0a 04 10 00 00 0000 ffff 0000"));
    let response = bench.run("ff 00 0000 00 00");
    assert_eq!(response.sense_format, SenseFormat::Descriptor);
    assert_eq!(response.sense_bytes()[0], 0x72);
    let told = finish(bench.disk.start(task(&other, "00 00 0000 00 00", Vec::new())));
    assert_eq!(told.sense, Some(Sense::MODE_PARAMETERS_CHANGED));
    let refused = Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::Parameter { byte: 7, bit: Some(5) });
    assert_eq!(bench.refused("15 10 0000 10 00", hex("00000000 0a 0a 04 30 00 00 0000 ffff 0000")), refused);
}

#[test]
fn software_write_protection_comes_and_goes_by_mode_select() {
    let bench = Bench::new();
    bench.good("55 10 0000000000 0014 00", hex("0000000000000000 0a 0a 00 10 08 00 0000 ffff 0000"));
    let refused = Sense::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED;
    assert_eq!(bench.refused("2a 00 00000000 00 0001 00", vec![0; 512]), refused);
    bench.good("55 10 0000000000 0014 00", hex("0000000000000000 0a 0a 00 10 00 00 0000 ffff 0000"));
    bench.good("2a 00 00000000 00 0001 00", vec![0; 512]);
}

#[test]
fn mode_pages_are_told_in_every_form_but_saved() {
    let bench = Bench::new();
    let all = bench.data("1a 00 3f 00 ff 00");
    assert_eq!(usize::from(all[0]), all.len() - 1);
    assert_eq!(all[4..12], hex("00000800 00000200")[..]);
    assert_eq!(bench.data("1a 08 48 00 ff 00")[4..7], hex("08 12 04")[..], "WCE is changeable");
    assert_eq!(bench.data("5a 18 08 00 000000 00ff 00").len(), 8 + 20, "DBD goes before LLBAA");
    assert_eq!(bench.data("5a 10 08 00 000000 00ff 00").len(), 8 + 16 + 20);
    let saved = Sense::SAVING_PARAMETERS_NOT_SUPPORTED.at(FieldPointer::cdb_bit(2, 7));
    assert_eq!(bench.refused("1a 00 ff 00 ff 00", Vec::new()), saved);
    assert_eq!(bench.refused("1a 00 05 00 ff 00", Vec::new()), Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 5)));
    assert_eq!(bench.refused("1a 00 08 01 ff 00", Vec::new()), Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(3)));
}

#[test]
fn log_pages_are_listed_and_answered() {
    let bench = Bench::new();
    assert_eq!(bench.data("4d 00 40 00 00 0000 00ff 00"), hex("80 00 0003 00 0c 2f"));
    assert_eq!(bench.data("4d 00 40 ff 00 0000 00ff 00"), hex("c0 ff 0008 0000 00ff 0c00 2f00"));
    assert_eq!(bench.data("4d 00 6f 00 00 0000 00ff 00")[..4], hex("af 00 0008")[..]);
    assert_eq!(
        bench.refused("4d 00 4d 00 00 0000 00ff 00", Vec::new()),
        Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 5))
    );
}

#[test]
fn another_nexus_meets_a_reservation_until_it_is_gone() {
    let bench = Bench::new();
    let other = nexus(2, &[Device::Disk(Arc::clone(&bench.disk))]);
    let from_other = |cdb: &str| finish(bench.disk.start(task(&other, cdb, Vec::new()))).status;
    bench.good("16 00 0000 00 00", Vec::new());
    bench.good("28 00 00000000 00 0001 00", Vec::new());
    assert_eq!(from_other("28 00 00000000 00 0001 00"), Status::ReservationConflict);
    assert_eq!(from_other("16 00 0000 00 00"), Status::ReservationConflict);
    assert_eq!(from_other("12 00 00 00ff 00"), Status::Good);
    assert_eq!(from_other("17 00 0000 00 00"), Status::Good, "no error, no effect");
    assert_eq!(from_other("00 00 0000 00 00"), Status::ReservationConflict);
    bench.disk.common().nexus_lost(1);
    assert_eq!(from_other("00 00 0000 00 00"), Status::Good);
}

#[test]
fn a_reset_is_told_once_and_inquiry_does_not_hear_of_it() {
    let bench = Bench::new();
    bench.run("00 00 0000 00 00");
    bench.disk.common().reset();
    bench.good("12 00 00 00ff 00", Vec::new());
    assert_eq!(bench.refused("28 00 00000000 00 0001 00", Vec::new()), Sense::BUS_DEVICE_RESET_FUNCTION_OCCURRED);
    bench.good("28 00 00000000 00 0001 00", Vec::new());
    bench.disk.common().reset();
    assert_eq!(bench.data("03 00 0000 ff 00")[..3], hex("70 00 06")[..], "REQUEST SENSE has it as data");
    assert_eq!(bench.data("03 01 0000 ff 00"), hex("72 00 00 00 00 00 00 00"));
}

#[test]
fn what_report_supported_operation_codes_lists_is_what_is_served() {
    let bench = Bench::new();
    let all = bench.data("a3 0c 00 00 0000 00001000 00 00");
    let listed: Vec<_> = all[4..].chunks(8).map(|row| (row[0], (row[5] & 1 != 0).then_some(row[3]), row[7])).collect();
    for opcode in 0..=255_u8 {
        let rows: Vec<_> = listed.iter().filter(|row| row.0 == opcode).collect();
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        cdb[1] = rows.first().and_then(|row| row.1).unwrap_or(0);
        let text: String = cdb.iter().map(|byte| format!("{byte:02x}")).collect();
        let unknown = bench.run(&text).sense.is_some_and(|sense| sense.code == (0x20, 0));
        assert_eq!(unknown, rows.is_empty(), "operation code {opcode:02x}");
        for (_, action, length) in rows {
            let (option, action) = (if action.is_some() { 2 } else { 1 }, action.unwrap_or(0));
            let one = bench.data(&format!("a3 0c {option:02x} {opcode:02x} 00{action:02x} 00001000 00 00"));
            assert_eq!((one[1] & 7, one[3], one[4]), (3, *length, opcode));
        }
    }
}

/// The other side of the usage masks: every bit that a mask leaves out is refused, with a pointer to it.
#[test]
fn every_bit_outside_the_usage_mask_is_refused_at_that_bit() {
    let bench = Bench::new();
    let all = bench.data("a3 0c 00 00 0000 00001000 00 00");
    for row in all[4..].chunks(8) {
        let with_action = row[5] & 1 != 0;
        let option = if with_action { 2 } else { 1 };
        let one = bench.data(&format!("a3 0c {option:02x} {:02x} 00{:02x} 00001000 00 00", row[0], row[3]));
        let usage = &one[4..];
        for (byte, bit) in (1..usage.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let action_bit = with_action && byte == 1 && bit < 5;
            if usage[byte] & 1 << bit != 0 || action_bit {
                continue;
            }
            let mut cdb = vec![0; usage.len()];
            (cdb[0], cdb[1]) = (row[0], if with_action { row[3] } else { 0 });
            cdb[byte] |= 1 << bit;
            let text: String = cdb.iter().map(|byte| format!("{byte:02x}")).collect();
            let refused = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(byte as u16, bit));
            assert_eq!(bench.refused(&text, Vec::new()), refused, "{text}");
        }
    }
}

#[test]
fn only_commands_with_data_out_or_none_write() {
    let rows: Vec<&CommandSpec> = Disk::COMMANDS.iter().map(|command| command.spec).collect();
    assert!(rows.iter().all(|row| !row.writes || row.data != DataDirection::In));
}

#[test]
fn arbitrary_commands_never_panic() {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    let bench = Bench::new();
    let opcodes: Vec<u8> =
        Disk::COMMANDS.iter().map(|command| command.spec.opcode).chain([0x12, 0x15, 0x1A, 0x4D, 0x55, 0x5A, 0xA3]).collect();
    let input =
        (prop::sample::select(opcodes), prop::collection::vec(any::<u8>(), 15), prop::collection::vec(any::<u8>(), 0..2000));
    let run = TestRunner::default().run(&input, |(opcode, rest, data)| {
        // Most random bits are refused by the usage mask: half of the cases keep small numbers only.
        let small = rest[0] & 1 == 0;
        let rest = rest.iter().enumerate().map(|(at, byte)| if small && at < 12 { 0 } else { byte & 0x1F });
        let cdb: Vec<u8> = std::iter::once(opcode).chain(rest).collect();
        let text: String = cdb.iter().map(|byte| format!("{byte:02x}")).collect();
        bench.send(&text, data);
        Ok(())
    });
    run.unwrap();
}
