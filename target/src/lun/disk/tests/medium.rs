//! Media that come and go, disks that cannot be written, SANITIZE, and writes that are all or nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::scsi::{FieldPointer, Sense, SenseKey, Status};
use protocol::units::BlockLength;
use protocol::wire::hex;

use super::Bench;
use crate::lun::Device;
use crate::lun::common::{Common, Identity, LogicalUnit};
use crate::lun::disk::{Disk, DiskOptions};
use crate::lun::testing::{MemoryStore, finish, nexus, task};
use crate::store::raw::{RawSpec, RawStore};
use crate::task::{Execution, Response};
use crate::volume::Volume;

const EJECT: &str = "1b 00 0000 02 00";
const LOAD: &str = "1b 00 0000 03 00";
const PREVENT: &str = "1e 00 0000 01 00";
const ALLOW: &str = "1e 00 0000 00 00";
const READY: &str = "00 00000000 00";

fn identity() -> Identity {
    Identity::new("iqn.2026-01.org.offhost:test", "memory", "DISK")
}

fn bench_of(store: Arc<MemoryStore>, disk: Arc<Disk>) -> Bench {
    let nexus = nexus(1, &[Device::Disk(Arc::clone(&disk))]);
    Bench { store, disk, nexus }
}

fn with(options: DiskOptions) -> Bench {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let disk = Disk::new(Common::new(identity(), None), Volume::new(store.clone()), options);
    bench_of(store, disk)
}

fn removable() -> Bench {
    with(DiskOptions { removable: true, ..DiskOptions::default() })
}

#[test]
fn an_ejected_medium_is_out_of_reach_until_it_is_loaded_again() {
    let bench = removable();
    let other = nexus(2, &[Device::Disk(Arc::clone(&bench.disk))]);
    let ask_other = |cdb: &str| finish(bench.disk.start(task(&other, cdb, Vec::new())));
    assert_eq!(bench.data("12 00 00 00ff 00")[1], 0x80, "RMB");
    assert_eq!(ask_other(READY), Response::good());
    bench.good("2a 00 00000000 00 0001 00", vec![0x5A; 512]);
    bench.good(EJECT, Vec::new());
    for cdb in [READY, "28 00 00000000 00 0001 00", "25 00 00000000 0000 00 00", "35 00 00000000 00 0000 00"] {
        assert_eq!(bench.refused(cdb, Vec::new()), Sense::MEDIUM_NOT_PRESENT, "{cdb}");
    }
    bench.data("12 00 00 00ff 00");
    assert_eq!(bench.data("03 00 0000 ff 00"), Sense::MEDIUM_NOT_PRESENT.fixed());
    bench.good(LOAD, Vec::new());
    assert_eq!(bench.data("28 00 00000000 00 0001 00"), vec![0x5A; 512]);
    assert_eq!(ask_other(READY).sense, Some(Sense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED));
    assert_eq!(ask_other(READY), Response::good());
}

#[test]
fn any_nexus_keeps_the_medium_in_until_it_lets_go_or_is_gone() {
    let bench = removable();
    let other = nexus(2, &[Device::Disk(Arc::clone(&bench.disk))]);
    let ask_other = |cdb: &str| finish(bench.disk.start(task(&other, cdb, Vec::new())));
    bench.good(PREVENT, Vec::new());
    assert_eq!(ask_other(EJECT).sense, Some(Sense::MEDIUM_REMOVAL_PREVENTED));
    assert_eq!(bench.refused(EJECT, Vec::new()), Sense::MEDIUM_REMOVAL_PREVENTED);
    assert_eq!(ask_other(ALLOW), Response::good());
    assert_eq!(ask_other(EJECT).sense, Some(Sense::MEDIUM_REMOVAL_PREVENTED), "the first still wants it");
    bench.good(ALLOW, Vec::new());
    bench.good(EJECT, Vec::new());
    bench.good(LOAD, Vec::new());
    assert!(ask_other(PREVENT).sense.is_some(), "it hears of the load first");
    assert_eq!(ask_other(PREVENT), Response::good());
    bench.disk.common().nexus_lost(2);
    bench.good(EJECT, Vec::new());
    bench.good(LOAD, Vec::new());
    bench.good(PREVENT, Vec::new());
    bench.disk.common().reset();
    let _ = bench.run(READY);
    bench.good(EJECT, Vec::new());
}

#[test]
fn a_fixed_disk_neither_ejects_nor_prevents() {
    let bench = Bench::new();
    assert_eq!(bench.refused(EJECT, Vec::new()), Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 1)));
    assert_eq!(bench.refused(PREVENT, Vec::new()).code, (0x20, 0));
    assert_eq!(bench.data("a3 0c 01 1e 0000 00000100 00 00")[1], 0x01, "not supported");
}

#[test]
fn a_read_only_disk_says_so_and_refuses_to_change() {
    let bench = with(DiskOptions { read_only: true, ..DiskOptions::default() });
    assert_eq!(bench.data("1a 08 3f 00 ff 00")[2] & 0x80, 0x80, "WP");
    for (cdb, data) in [("2a 00 00000000 00 0001 00", vec![0; 512]), ("48 02 0000000000 0000 00", Vec::new())] {
        assert_eq!(bench.refused(cdb, data), Sense::WRITE_PROTECTED);
    }
    assert_eq!(bench.data("9e 10 0000000000000000 00000020 00 00")[14], 0, "not thin");
}

#[test]
fn blocks_of_all_kinds_are_told() {
    let capacity = |options: DiskOptions| with(options).data("9e 10 0000000000000000 00000020 00 00")[8..16].to_vec();
    assert_eq!(capacity(DiskOptions::default()), hex("00000200 00 03 c000"), "512e");
    assert_eq!(capacity(BlockLength(4096).into()), hex("00001000 00 00 c000"), "4Kn");
    assert_eq!(capacity(DiskOptions { physical_block: 512, ..DiskOptions::default() }), hex("00000200 00 00 c000"), "512n");
    assert_eq!(capacity(DiskOptions { lowest_aligned: 7, thin: false, ..DiskOptions::default() }), hex("00000200 00 03 0007"));
}

#[tokio::test]
async fn sanitize_overwrites_every_block_and_tells_how_far_it_is() {
    let bench = Bench::new();
    bench.good("2a 00 00000000 00 0001 00", vec![0x5A; 512]);
    let list = hex("82 00 0002 aa55");
    let Execution::Async(overwrite) = bench.disk.start(task(&bench.nexus, "48 01 0000000000 0006 00", list)) else {
        panic!("it takes its time")
    };
    assert_eq!(overwrite.await, Response::good());
    // The second pass wrote the pattern inverted.
    assert_eq!(bench.data("28 00 000007ff 00 0001 00"), hex(&"55aa".repeat(256)));
    bench.good("48 82 0000000000 0000 00", Vec::new());
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let response = bench.run("28 00 00000000 00 0001 00");
        if response.status == Status::Good {
            assert_eq!(response.data_in.concat(), vec![0; 512]);
            break;
        }
        let sense = response.sense.expect("NOT READY");
        assert_eq!(sense, Sense::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS.with_progress(sense.progress.unwrap()));
        assert!(Instant::now() < limit, "it never ends");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn sanitize_lists_are_checked_at_their_lengths() {
    let bench = Bench::new();
    let length = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(7));
    assert_eq!(bench.refused("48 02 0000000000 0008 00", vec![0; 8]), length);
    assert_eq!(bench.refused("48 01 0000000000 0004 00", hex("01 00 0000")), length);
    assert_eq!(bench.refused("48 01 0000000000 0205 00", vec![1; 517]), length);
    assert_eq!(bench.refused("48 01 0000000000 0005 00", hex("00 00 0001 aa")).code, (0x26, 0));
    assert_eq!(bench.refused("48 03 0000000000 0000 00", Vec::new()).code, (0x24, 0), "CRYPTO ERASE");
    bench.good("48 9f 0000000000 0000 00", Vec::new());
}

#[test]
fn a_sanitize_that_was_cut_leaves_the_failure_mode() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || {
        let store = Arc::new(MemoryStore::new(1 << 20));
        let common = Common::new(identity(), None).keep_in(folder.path()).unwrap();
        bench_of(store.clone(), Disk::open(common, Volume::new(store), BlockLength::B512).unwrap())
    };
    let record = disk().disk.common().kept("sanitize.json").unwrap();
    // As kill -9 leaves it.
    for (unrestricted, left) in [(false, Some(Sense::SANITIZE_COMMAND_FAILED)), (true, None)] {
        record.save(&serde_json::json!({ "unrestricted": unrestricted })).unwrap();
        let bench = disk();
        assert_eq!(bench.refused("28 00 00000000 00 0001 00", Vec::new()), Sense::SANITIZE_COMMAND_FAILED);
        bench.data("12 00 00 00ff 00");
        assert_eq!(bench.run("48 9f 0000000000 0000 00").sense, left);
        assert_eq!(bench.run(READY).sense, left);
        assert_eq!(disk().run(READY).sense, left, "and after another restart");
    }
}

#[test]
fn no_sanitize_operation_begins_beside_a_copy_and_no_copy_beside_it() {
    let bench = Bench::new();
    let copying = bench.disk.begin_copy().unwrap();
    assert_eq!(bench.run("48 82 0000000000 0000 00").status, Status::Busy);
    assert_eq!(bench.run(READY), Response::good(), "nothing has begun");
    drop(copying);
    bench.good("48 82 0000000000 0000 00", Vec::new());
    loop {
        match bench.disk.begin_copy() {
            Ok(_) => break,
            Err(sense) => assert_eq!(sense.code, (0x04, 0x1B), "SANITIZE IN PROGRESS"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn what_an_atomic_write_came_between_is_read_again() {
    let bench = Bench::new();
    let disk = &bench.disk;
    let mut reads = 0;
    disk.read_whole(|| {
        reads += 1;
        if reads == 1 {
            disk.atomic_writes.torn(|| assert_eq!(disk.atomic_writes.now(), None, "a read that begins now waits"));
        }
    });
    assert_eq!(reads, 2);
    disk.read_whole(|| reads += 1);
    assert_eq!(reads, 3, "once, where nothing came between");
}

#[test]
fn an_atomic_write_waits_for_blocks_that_are_still_to_be_sent_from_where_they_lie() {
    let bench = Bench::new();
    let writes = &bench.disk.atomic_writes;
    let unsent = writes.none_until_sent().expect("there is no atomic write");
    let sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            writes.torn(|| {
                assert!(sent.load(Ordering::SeqCst), "the claim was held");
                assert!(writes.none_until_sent().is_none(), "blocks may be torn");
            });
        });
        // It has begun: from here on new reads wait for it, and it for the old one.
        while writes.now().is_some() {
            std::thread::yield_now();
        }
        assert!(writes.none_until_sent().is_none(), "nobody comes between");
        assert!(!write.is_finished());
        sent.store(true, Ordering::SeqCst);
        drop(unsent);
    });
    assert!(writes.none_until_sent().is_some(), "it has ended");
}

#[test]
fn an_atomic_write_is_there_as_a_whole_and_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new(1 << 20));
    let common = Common::new(identity(), None).keep_in(folder.path()).unwrap();
    let bench = bench_of(store.clone(), Disk::open(common, Volume::new(store), BlockLength::B512).unwrap());
    bench.good("9c 00 0000000000000001 0000 0002 00 00", vec![0x5A; 1024]);
    assert_eq!(bench.store.syncs.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(bench.data("28 00 00000001 00 0002 00"), vec![0x5A; 1024]);
    assert_eq!(bench.data("12 01 b0 00ff 00")[44..48], hex("00000800"), "MAXIMUM ATOMIC TRANSFER LENGTH");
    let beyond = bench.refused("9c 00 00000000000007ff 0000 0002 00 00", vec![0; 1024]);
    assert_eq!(beyond, Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::cdb(2)));
    let short = bench.refused("9c 00 0000000000000001 0000 0002 00 00", vec![0; 512]);
    assert_eq!(short, Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(12)), "half a write is none");
    bench.refused("9c 00 0000000000000001 0001 0002 00 00", vec![0; 1024]);
    // A write that fails leaves what was there.
    *bench.store.fail_write.lock().unwrap() = Some(nix::libc::EIO);
    assert_eq!(bench.refused("9c 00 0000000000000001 0000 0002 00 00", vec![7; 1024]).key, SenseKey::MediumError);
    assert_eq!(bench.data("28 00 00000001 00 0002 00"), vec![0x5A; 1024]);
    assert_eq!(Bench::new().refused("9c 00 0000000000000001 0000 0001 00 00", vec![0; 512]).code, (0x20, 0), "without a journal");
}

#[test]
fn a_disk_without_defects_has_empty_lists() {
    let bench = Bench::new();
    assert_eq!(bench.data("37 00 1d 00000000 00ff 00"), hex("00 1d 0000"));
    assert_eq!(bench.data("b7 1d 00000000 000000ff 00 00"), hex("00 1d 0000 00000000"));
}

#[test]
fn write_same_of_zero_blocks_goes_up_to_the_end() {
    let bench = Bench::new();
    bench.good("93 00 00000000000007fe 00000000 00 00", vec![0x5A; 512]);
    assert_eq!(bench.data("28 00 000007fd 00 0003 00"), [vec![0; 512], vec![0x5A; 1024]].concat());
    let behind = bench.refused("93 00 0000000000000800 00000000 00 00", vec![0x5A; 512]);
    assert_eq!(behind, Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::cdb(2)));
}

#[test]
fn a_disk_that_grows_or_shrinks_is_told_to_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let spec = RawSpec { path: folder.path().join("a.img"), size: Some(1 << 20) };
    let store = RawStore::open(&spec).unwrap();
    let disk = Disk::new(Common::new(identity(), None), Volume::new(Arc::new(store)), BlockLength::B512);
    let bench = bench_of(Arc::new(MemoryStore::new(4096)), disk);
    assert_eq!(bench.data("25 00 00000000 0000 00 00")[..4], hex("000007ff"));
    assert_eq!(bench.disk.resize(Some(2 << 20)).unwrap().0, 4096);
    assert_eq!(bench.refused(READY, Vec::new()), Sense::CAPACITY_DATA_HAS_CHANGED);
    assert_eq!(bench.data("25 00 00000000 0000 00 00")[..4], hex("00000fff"));
    bench.good("2a 00 00000fff 00 0001 00", vec![0x5A; 512]);
    // Somebody else made the file shorter.
    std::fs::File::options().write(true).open(&spec.path).unwrap().set_len(1 << 19).unwrap();
    assert_eq!(bench.disk.resize(None).unwrap().0, 1024);
    assert_eq!(bench.refused(READY, Vec::new()), Sense::CAPACITY_DATA_HAS_CHANGED);
    assert_eq!(bench.refused("28 00 00000400 00 0001 00", Vec::new()).code, (0x21, 0));
    assert!(bench.disk.resize(Some(1000)).is_err() && bench.disk.resize(Some(0)).is_err());
}

#[test]
fn every_portal_group_is_a_port_and_a_group_of_its_own() {
    let bench = Bench::new();
    assert_eq!(bench.data("12 00 00 00ff 00")[5] & 0x30, 0x10, "TPGS");
    assert_eq!(bench.data("a3 0a 00000000 00000100 00 00"), hex("0000000c 00 01 0001 00 00 00 01 00000001"));
    let page = bench.data("12 01 83 00ff 00");
    let group = hex("51 95 00 04 00000001");
    assert!(page.windows(8).any(|bytes| bytes == group), "{page:02x?}");
}

#[test]
fn a_thin_disk_tells_when_its_threshold_is_reached_and_again_after_it_fell() {
    let folder = tempfile::tempdir().unwrap();
    let store = RawStore::open(&RawSpec { path: folder.path().join("a.img"), size: Some(8 << 20) }).unwrap();
    let options = DiskOptions { threshold_percent: Some(50), ..DiskOptions::default() };
    let bench = bench_of(
        Arc::new(MemoryStore::new(4096)),
        Disk::new(Common::new(identity(), None), Volume::new(Arc::new(store)), options),
    );
    assert_eq!(bench.data("12 01 b2 00ff 00")[4], 11, "THRESHOLD EXPONENT");
    let page = bench.data("1a 08 1c 02 ff 00");
    assert_eq!(page[4..], hex("5c 02 0014 000000000000000000000000 82 02 0000 00000004"), "four of eight sets");
    let used = |bench: &Bench| bench.data("4d 00 4c 00 00 0002 00ff 00")[11];
    assert_eq!(used(&bench), 0);
    let write = |at: u32| bench.send(&format!("2a 00 {:08x} 00 0800 00", at * 2048), vec![0x5A; 1 << 20]);
    (0..4).for_each(|at| assert_eq!(write(at).status, Status::Good));
    assert_eq!(bench.refused(READY, Vec::new()), Sense::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED);
    assert_eq!(used(&bench), 4);
    assert_eq!(write(4), Response { transfer_length: Some(1 << 20), ..Response::good() });
    assert_eq!(bench.run(READY), Response::good(), "it was told");
    bench.good("42 00 0000000000 0018 00", hex("0016 0010 00000000 0000000000000000 00002800 00000000"));
    (0..4).for_each(|at| assert_eq!(write(at).status, Status::Good));
    assert_eq!(bench.refused(READY, Vec::new()), Sense::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED);
}
