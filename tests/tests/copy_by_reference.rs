//! Copies on a file system with references: no byte moves, holes stay holes, and a snapshot copied while its disk is written is
//! the snapshot all the same.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use datamover::agent::control::Control;
use offhost_tests::agent::offhost;
use offhost_tests::control::status;
use offhost_tests::copies::disk_to_disk;
use offhost_tests::programs::{Target, program};
use offhost_tests::reflink::{self, Reflinks};
use offhost_tests::{pattern, skip};
use protocol::cartridge::sums::{self, FileSums};
use protocol::control::{SnapshotRequest, TapeStatus, WithoutSums};
use protocol::mover::ByMethod;
use protocol::scsi::SenseKey;
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::{CscdDescriptor, List, Segment};
use sim::client::{Client, Options, TapeRead};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 96 * MIB;

fn reflinks() -> Reflinks {
    Reflinks::new(program("offhost-mover").parent().unwrap(), 1 << 30).unwrap()
}

/// Data, a hole of 32 MiB, data.
fn source(path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for mib in (0..40).chain(72..96) {
        file.write_all_at(&pattern::bytes(5, mib, MIB as usize), mib * MIB).unwrap();
    }
}

async fn session(target: &Target, luns: u16) -> Client {
    let client = Client::connect(&target.url(0).parse().unwrap(), Options::named("iqn.2026-01.test:reference")).await.unwrap();
    for lun in 0..luns {
        client.lun(lun).test_unit_ready().await.unwrap();
    }
    client
}

fn methods(target: &Target) -> ByMethod {
    status(&target.control()).unwrap().copies.bytes_by_method
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_copied_by_reference_where_the_blocks_lie_alike_and_else_by_bytes() {
    if let Some(why) = reflink::obstacle() {
        skip!("{why}");
    }
    let files = reflinks();
    let [from, to] = ["from.img", "to.img"].map(|name| files.path().join(name));
    source(&from);
    std::fs::write(&to, vec![0xDD; SIZE as usize]).unwrap();
    let target = Target::start(files.path(), &["--disk", "from.img", "--disk", "to.img"]).unwrap();
    let client = session(&target, 2).await;

    let list = disk_to_disk(&client, (0, Lba(0)), (1, Lba(0)), SIZE).await.unwrap();
    client.lun(1).extended_copy(list).await.unwrap();
    assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
    assert_eq!(methods(&target), ByMethod { reference: SIZE, ..ByMethod::default() });
    let allocated = std::fs::metadata(&to).unwrap().blocks() * 512;
    assert!(allocated <= 66 * MIB, "{allocated} bytes are allocated: the hole is none");

    // One block of 512 bytes further: no block of the file system lies where another does.
    let list = disk_to_disk(&client, (0, Lba(1)), (1, Lba(0)), 80 * MIB).await.unwrap();
    client.lun(1).extended_copy(list).await.unwrap();
    let (was, is) = (std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
    assert!(was[512..512 + 80 * MIB as usize] == is[..80 * MIB as usize] && was[80 * MIB as usize..] == is[80 * MIB as usize..]);
    let after = methods(&target);
    assert_eq!((after.reference, after.total()), (SIZE, SIZE + 80 * MIB));
    assert!(after.holes >= 31 * MIB && after.kernel + after.buffers <= 49 * MIB, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_copied_by_reference_while_its_disk_is_written() {
    if let Some(why) = reflink::obstacle() {
        skip!("{why}");
    }
    let files = reflinks();
    let [from, to] = ["from.img", "to.img"].map(|name| files.path().join(name));
    source(&from);
    std::fs::File::create(&to).unwrap().set_len(SIZE).unwrap();
    let before = std::fs::read(&from).unwrap();
    let target = Target::start(files.path(), &["--disk", "from.img", "--disk", "to.img"]).unwrap();
    let client = session(&target, 2).await;
    let control = Control::new(target.control());
    let request = SnapshotRequest { target: None, luns: vec![0], range: None, quiet_ms: 0, timeout_ms: 5_000, lease: true };
    let lease = control.snapshot(&request, |_| ()).await.unwrap();
    let view = lease.snapshots[0].lun;
    client.lun(view).test_unit_ready().await.unwrap();

    let (stop, disk) = (Arc::new(AtomicBool::new(false)), client.lun(0));
    let writer = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut round = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                // Strides that meet every part of the disk, and edges of chunks.
                let at = round.wrapping_mul(7_919) % (SIZE / 4096) * 8;
                disk.write(Lba(at), Bytes::from(vec![0xEE; 4096]), BlockLength::B512).await.unwrap();
                round += 1;
            }
            round
        }
    });
    for _ in 0..6 {
        let list = disk_to_disk(&client, (view, Lba(0)), (1, Lba(0)), SIZE).await.unwrap();
        client.lun(1).extended_copy(list).await.unwrap();
        let copy = std::fs::read(&to).unwrap();
        let wrong = (0..SIZE as usize / 4096).find(|block| copy[block * 4096..][..4096] != before[block * 4096..][..4096]);
        assert_eq!(wrong, None, "a block of 4 KiB that the snapshot does not have");
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.await.unwrap();
    assert!(rounds > 20, "only {rounds} writes ran beside the copies");
    assert!(methods(&target).reference > SIZE, "{:?}", methods(&target));
    lease.release(&control).await.unwrap();
}

/// Blocks to records of 1 MiB, or back; then a filemark when it goes to the tape.
async fn tape_list(client: &Client, disk: u16, back: bool, bytes: u64) -> Bytes {
    let mut list = List::new(1);
    let disk = list.cscd(CscdDescriptor::disk(client.lun(disk).cscd_designator().await.unwrap(), 512));
    let tape = list.cscd(CscdDescriptor::tape(client.lun(2).cscd_designator().await.unwrap()));
    let (transfer_length, most) = (MIB as u32, 31 * MIB / 512);
    for first in (0..bytes / 512).step_by(most as usize) {
        let blocks = most.min(bytes / 512 - first) as u16;
        list.push(match back {
            false => Segment::BlockToStream { source: disk, destination: tape, transfer_length, blocks, from: Lba(first) },
            true => Segment::StreamToBlock { source: tape, destination: disk, transfer_length, blocks, to: Lba(first) },
        });
    }
    if !back {
        list.push(Segment::WriteFilemarks { destination: tape, immediate: false, count: 1 });
    }
    list.emit().into()
}

async fn tape_sums(client: &Client) -> Vec<FileSums> {
    sums::parse_log_page(&client.lun(2).log_sense(sums::LOG_PAGE, 0).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_aligned_tape_refer_to_a_disk_s_blocks_and_a_restored_disk_to_theirs() {
    if let Some(why) = reflink::obstacle() {
        skip!("{why}");
    }
    let files = reflinks();
    let [from, to] = ["from.img", "to.img"].map(|name| files.path().join(name));
    source(&from);
    let target = Target::start(
        files.path(),
        &["--disk", "from.img", "--disk", &format!("to.img:{SIZE}"), "--tape", "shelf,layout=aligned"],
    )
    .unwrap();
    let client = session(&target, 3).await;
    let out = tape_list(&client, 0, false, SIZE).await;
    client.lun(2).extended_copy(out.clone()).await.unwrap();
    assert_eq!(methods(&target), ByMethod { reference: SIZE, ..ByMethod::default() });
    let image = files.path().join("shelf/OFH001L8/p0.tap");
    let allocated = std::fs::metadata(&image).unwrap().blocks() * 512;
    assert!(allocated <= 80 * MIB, "{allocated} bytes are allocated: the hole is none");

    // What is written to the disk afterwards does not reach the tape.
    let was = std::fs::read(&from).unwrap();
    client.lun(0).write(Lba(0), Bytes::from(vec![0xEE; MIB as usize]), BlockLength::B512).await.unwrap();
    client.lun(2).rewind().await.unwrap();
    let sums = tape_sums(&client).await;
    assert!(sums[0].closed && sums[0].records == SIZE / MIB && !sums[0].complete, "{sums:?}");
    let home = tape_list(&client, 1, true, SIZE).await;
    client.lun(1).extended_copy(home).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == was);
    let after = methods(&target);
    assert_eq!(after, ByMethod { reference: 2 * SIZE, ..ByMethod::default() });

    // A disk whose blocks lie elsewhere is copied, with its sums.
    client.lun(2).rewind().await.unwrap();
    let mut list = List::new(1);
    let disk = list.cscd(CscdDescriptor::disk(client.lun(1).cscd_designator().await.unwrap(), 512));
    let tape = list.cscd(CscdDescriptor::tape(client.lun(2).cscd_designator().await.unwrap()));
    list.push(Segment::BlockToStream {
        source: disk,
        destination: tape,
        transfer_length: MIB as u32,
        blocks: (2 * MIB / 512) as u16,
        from: Lba(1),
    });
    client.lun(2).extended_copy(list.emit().into()).await.unwrap();
    assert_eq!(methods(&target).since(after), ByMethod { buffers: 2 * MIB, ..ByMethod::default() });
    assert!(tape_sums(&client).await[0].complete);
}

/// LUN 0 is the disk, LUN 2 the tape, as in the lists above.
const FILE: &str = r#"data = "data"
[limits]
sums_mib_per_second = RATE
[[portal]]
listen = "127.0.0.1:0"
[[target]]
name = "iqn.2026-01.test:sums"
[[target.lun]]
disk = "from.img"
[[target.lun]]
lun = 2
tape = "shelf"
layout = "aligned"
"#;
const TAPE: u16 = 2;
const REFERRED: u64 = 24;

fn serve(folder: &Path, sums_mib_per_second: u32) -> Target {
    std::fs::write(folder.join("offhost.toml"), FILE.replace("RATE", &sums_mib_per_second.to_string())).unwrap();
    Target::configured(folder, "offhost.toml").unwrap()
}

fn tape(target: &Target) -> TapeStatus {
    status(&target.control()).unwrap().luns.into_iter().find_map(|lun| lun.tape).unwrap()
}

async fn until(target: &Target, what: &str, reached: impl Fn(&TapeStatus) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !reached(&tape(target)) {
        assert!(Instant::now() < give_up, "{what} is never reached: {:?}; {}", tape(target), target.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_that_a_copy_left_out_are_counted_and_taken_later_across_a_kill() {
    if let Some(why) = reflink::obstacle() {
        skip!("{why}");
    }
    let files = reflinks();
    let data: Vec<u8> = (0..REFERRED).flat_map(|mib| pattern::bytes(9, mib, MIB as usize)).collect();
    std::fs::write(files.path().join("from.img"), &data).unwrap();
    let target = serve(files.path(), 0);
    let client = session(&target, 1).await;
    client.lun(TAPE).test_unit_ready().await.unwrap();
    let list = tape_list(&client, 0, false, REFERRED * MIB).await;
    client.lun(TAPE).extended_copy(list).await.unwrap();
    assert_eq!(methods(&target), ByMethod { reference: REFERRED * MIB, ..ByMethod::default() });
    let all = WithoutSums { records: REFERRED, bytes: REFERRED * MIB };
    assert_eq!(tape(&target).without_sums, all);
    let told = offhost(&target, &["status"]);
    assert!(told.out.contains("the sums of 24 records (24.00 MiB) are still to come"), "{}", told.out);
    drop((client, target));

    // Slowly, so that the kill meets it in the middle.
    let mut target = serve(files.path(), 1);
    until(&target, "a sum", |tape| tape.totals.sums_taken >= 2).await;
    target.kill();
    drop(target);
    let target = serve(files.path(), 0);
    let left = tape(&target).without_sums;
    assert!(left.records <= REFERRED - 2 && left.records > 0 && left.bytes == left.records * MIB, "{left:?}");
    assert_eq!(tape(&target).notes, [] as [String; 0]);
    drop(target);

    let target = serve(files.path(), 4096);
    until(&target, "the last sum", |tape| tape.without_sums == WithoutSums::default()).await;
    let taken = tape(&target).totals;
    assert_eq!((taken.sums_taken, taken.sum_bytes), (left.records, left.bytes), "what was taken before the kill is kept");
    let client = session(&target, 1).await;
    let drive = client.lun(TAPE);
    drive.test_unit_ready().await.unwrap();
    assert!(!tape_sums(&client).await[0].complete, "they prove nothing about the writing");

    let verify = || offhost(&target, &["tape", "verify", "--from", &target.url(TAPE)]);
    verify().succeeded();

    // Damage under a sum is found by whoever reads it.
    let (damaged, path) = (REFERRED / 2, files.path().join("shelf/OFH001L8/p0.tap"));
    let image = std::fs::read(&path).unwrap();
    let record = &data[(damaged * MIB) as usize..][..4096];
    let at = image.chunks(4096).position(|block| block == record).unwrap() * 4096 + 4095;
    let image = std::fs::File::options().write(true).open(&path).unwrap();
    image.write_all_at(&[!record[4095]], at as u64).unwrap();
    verify().failed(1, &[&format!("in front of object {}", damaged + 1)]);
    for number in 0..REFERRED {
        drive.locate(number).await.unwrap();
        match drive.read_record(MIB as u32).await {
            Ok(TapeRead::Record(read)) => assert!(number != damaged && read == data[(number * MIB) as usize..][..MIB as usize]),
            Err(error) => {
                let key = error.sense().map(|sense| sense.key);
                assert_eq!((key, number), (Some(SenseKey::MediumError), damaged), "{error}");
            }
            other => panic!("record {number}: {other:?}"),
        }
    }
}
