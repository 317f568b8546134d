//! One copy between a disk and a tape, shared out over several movers, with real processes.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use offhost_tests::agent::offhost;
use offhost_tests::control::{set_movers, status};
use offhost_tests::copies::{RECORD, read_tape, tape_to_disk};
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::control::MoverSettings;
use protocol::scsi::{Sense, SenseKey};
use protocol::units::Lba;
use protocol::xcopy::{CscdDescriptor, List, Segment, SegmentDescriptor};
use sim::client::{Client, Options, TaskManagement};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;
const RECORDS: u64 = SIZE / RECORD as u64;
const BLOCKS: u64 = SIZE / 512;
const FROM: u16 = 0;
const TO: u16 = 1;
const TAPE: u16 = 2;

struct Rig {
    target: Target,
    client: Client,
    onto: Bytes,
    back: Bytes,
    // Behind the target, so that it is dropped later.
    folder: tempfile::TempDir,
}

impl Rig {
    async fn new(tape: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        pattern::image(&folder.path().join("from.img"), 31, SIZE / MIB).unwrap();
        let to = format!("to.img:{}MiB", SIZE / MIB);
        let target = Target::start(folder.path(), &["--disk", "from.img", "--disk", &to, "--tape", tape]).unwrap();
        let client = Client::connect(&target.url(FROM).parse().unwrap(), Options::named("iqn.2026-01.test:reel")).await.unwrap();
        for lun in [FROM, TO, TAPE] {
            client.lun(lun).test_unit_ready().await.unwrap();
        }
        let onto = extents_to_tape(&client).await;
        let back = tape_to_disk(&client, TAPE, TO, RECORDS).await.unwrap();
        Self { target, client, onto, back, folder }
    }

    fn set(&self, movers: u8, bytes_per_second: Option<u64>) {
        let settings = MoverSettings { movers, bytes_per_second, job_bytes_per_second: None, priority: None };
        set_movers(&self.target.control(), &settings).unwrap();
    }

    /// From the beginning of the tape.
    async fn copy(&self, list: &Bytes) -> Duration {
        self.client.lun(TAPE).rewind().await.unwrap();
        let began = Instant::now();
        self.client.lun(TAPE).extended_copy(list.clone()).await.unwrap();
        let took = began.elapsed();
        assert_eq!(self.at().await, RECORDS);
        took
    }

    async fn at(&self) -> u64 {
        self.client.lun(TAPE).read_position().await.unwrap().object
    }

    /// Bytes that each mover wrote while `copy` ran.
    async fn shares_of(&self, copy: impl Future<Output = Duration>) -> (Duration, Vec<u64>) {
        let moved = || status(&self.target.control()).unwrap().movers.into_iter().map(|mover| (mover.pid, mover.bytes_moved));
        let before: Vec<_> = moved().collect();
        let took = copy.await;
        let earlier = |pid| before.iter().find(|(other, _)| *other == pid).map_or(0, |(_, bytes)| *bytes);
        (took, moved().map(|(pid, bytes)| bytes - earlier(pid)).collect())
    }

    /// Of the records on the tape each is right; gives how many there are.
    async fn check_tape(&self) -> u64 {
        let source = std::fs::File::open(self.folder.path().join("from.img")).unwrap();
        let mut wanted = vec![0; RECORD as usize];
        let each = |index, data: Bytes| {
            source.read_exact_at(&mut wanted, index * u64::from(RECORD)).unwrap();
            assert!(data == wanted, "record {index}");
        };
        read_tape(&self.client, TAPE, each).await.unwrap()
    }

    /// The disk that was restored is the source, and is made different again.
    fn check_disk(&self) {
        let [from, to] = ["from.img", "to.img"].map(|name| self.folder.path().join(name));
        assert!(std::fs::read(from).unwrap() == std::fs::read(&to).unwrap());
        std::fs::write(to, vec![0xDD; SIZE as usize]).unwrap();
    }

    /// Sends a copy from the beginning of the tape, and waits until it is under way.
    async fn begin(&self, list: &Bytes) -> tokio::task::JoinHandle<Result<(), sim::client::ClientError>> {
        let (tape, list) = (self.client.lun(TAPE), list.clone());
        tape.rewind().await.unwrap();
        let copying = tokio::spawn(async move { tape.extended_copy(list).await });
        self.until("no mover has moved anything", || !self.busy(&[]).is_empty() || copying.is_finished()).await;
        copying
    }

    /// Movers that work and have moved something, but for these.
    fn busy(&self, but: &[u32]) -> Vec<u32> {
        let movers = status(&self.target.control()).unwrap().movers.into_iter();
        movers
            .filter(|mover| mover.busy && mover.bytes_moved >= MIB && !but.contains(&mover.pid))
            .map(|mover| mover.pid)
            .collect()
    }

    async fn until(&self, what: &str, mut reached: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !reached() {
            assert!(Instant::now() < until, "{what}: {}", self.target.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Blocks of the segments of a copy onto the tape; the last has what is left.
const EXTENTS: [u64; 7] = [1, 5000, 7, 40_001, 129, 20_000, u64::MAX];

/// All of the disk onto the tape, by segments that end wherever an extent does: records begin in one and end in the next.
async fn extents_to_tape(client: &Client) -> Bytes {
    let mut list = List::new(1);
    let source = list.cscd(CscdDescriptor::disk(client.lun(FROM).cscd_designator().await.unwrap(), 512));
    let destination = list.cscd(CscdDescriptor::tape(client.lun(TAPE).cscd_designator().await.unwrap()));
    let mut done = 0;
    for length in EXTENTS {
        let blocks = (BLOCKS - done).min(length);
        let segment =
            Segment::BlockToStream { source, destination, transfer_length: RECORD, blocks: blocks as u16, from: Lba(done) };
        done += blocks;
        list.segments.push(SegmentDescriptor::new(done < BLOCKS, segment));
    }
    assert_eq!(done, BLOCKS);
    list.emit().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_throttled_movers_write_and_read_a_tape_three_times_as_fast_as_one() {
    let rig = Rig::new("shelf").await;
    rig.set(1, Some(8 * MIB));
    let one = rig.copy(&rig.onto).await;
    // Without a limit in between nothing is owed any more.
    rig.set(1, None);
    rig.set(4, Some(8 * MIB));
    for (list, way) in [(&rig.onto, "onto the tape"), (&rig.back, "from it")] {
        let (four, shares) = rig.shares_of(rig.copy(list)).await;
        println!("{way}: {one:?} with one, {four:?} with four: {shares:?}");
        assert!(one.as_secs_f64() / four.as_secs_f64() >= 2.5, "{way}: {one:?} with one, {four:?} with four");
        assert_eq!((shares.len(), shares.iter().sum::<u64>()), (4, SIZE), "{way}");
        assert!(shares.iter().all(|bytes| *bytes >= SIZE / 8), "{way}: {shares:?}");
        rig.set(4, None);
        rig.set(4, Some(8 * MIB));
    }
    rig.check_disk();
    assert_eq!(rig.check_tape().await, RECORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_movers_pieces_of_a_tape_are_done_again_by_others() {
    for (layout, seconds_each) in [("shelf", 8), ("shelf,layout=aligned", 8)] {
        let rig = Rig::new(layout).await;
        for list in [&rig.onto, &rig.back] {
            rig.set(3, None);
            rig.set(3, Some(SIZE / seconds_each));
            let copying = rig.begin(list).await;
            let mut killed = Vec::new();
            rig.until("the copy never ends", || {
                if let Some(pid) = rig.busy(&killed).first().filter(|_| killed.len() < 2) {
                    kill(Pid::from_raw(*pid as i32), Signal::SIGKILL).unwrap();
                    killed.push(*pid);
                }
                killed.len() == 2 || copying.is_finished()
            })
            .await;
            rig.set(3, None);
            copying.await.unwrap().expect("the copy does not notice");
            assert_eq!((killed.len(), rig.at().await), (2, RECORDS), "{layout}");
        }
        assert!(rig.target.log().contains("a dead mover's piece is done again"));
        rig.check_disk();
        assert_eq!(rig.check_tape().await, RECORDS, "{layout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_share_out_leaves_a_beginning_and_a_rerun_succeeds() {
    let rig = Rig::new("shelf").await;
    for list in [&rig.onto, &rig.back] {
        rig.set(3, Some(SIZE / 8));
        let copying = rig.begin(list).await;
        rig.client.task_management(TaskManagement::AbortTaskSet(TAPE)).await.unwrap();
        assert_eq!(status(&rig.target.control()).unwrap().copies.running, 0, "something moves behind the response");
        copying.abort();
        rig.set(3, None);
        let at = rig.at().await;
        assert!(at < RECORDS, "{at}");
        if list == &rig.onto {
            assert_eq!(rig.check_tape().await, at, "the tape stands where its data ends");
        }
        rig.copy(list).await;
    }
    rig.check_disk();
    assert_eq!(rig.check_tape().await, RECORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_ends_a_shared_restore_as_it_ends_one_mover_s() {
    const DAMAGED: u64 = 333;
    let rig = Rig::new("shelf").await;
    rig.copy(&rig.onto).await;
    let image = std::fs::File::options().read(true).write(true).open(rig.folder.path().join("shelf/OFH001L8/p0.tap")).unwrap();
    image.write_all_at(&[0xEE; 32], DAMAGED * (u64::from(RECORD) + 8) + 4 + 777).unwrap();
    let mut ends: Vec<(Sense, u64)> = Vec::new();
    for movers in [1, 4] {
        rig.set(movers, None);
        rig.client.lun(TAPE).rewind().await.unwrap();
        let failed = rig.client.lun(TAPE).extended_copy(rig.back.clone()).await.expect_err("the record is damaged");
        let sense = failed.sense().unwrap_or_else(|| panic!("{failed}"));
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)), "{failed}");
        ends.push((sense.clone(), rig.at().await));
    }
    assert_eq!(ends[0].1, DAMAGED, "the tape stands before the damaged record");
    assert_eq!(ends[0], ends[1]);
    let log = rig.target.log();
    assert!(log.contains("dispersed copy ended"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_read_ends_a_shared_copy_with_a_beginning_and_its_residue() {
    let rig = Rig::new("shelf").await;
    // The file is shorter than the disk from now on, and ends in the sixth segment.
    const READABLE: u64 = 30 * MIB;
    let file = std::fs::File::options().write(true).open(rig.folder.path().join("from.img")).unwrap();
    file.set_len(READABLE + 512).unwrap();
    let sixth_ends = EXTENTS[..6].iter().sum::<u64>() * 512 / u64::from(RECORD);
    for movers in [1, 4] {
        rig.set(movers, None);
        rig.client.lun(TAPE).rewind().await.unwrap();
        let failed = rig.client.lun(TAPE).extended_copy(rig.onto.clone()).await.expect_err("the disk has no such blocks");
        let sense = failed.sense().unwrap_or_else(|| panic!("{failed}"));
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)), "{failed}");
        // How many bytes are read at once decides where exactly it ends, and all else follows from that.
        let at = rig.at().await;
        assert!((READABLE / u64::from(RECORD) - 17..=READABLE / u64::from(RECORD)).contains(&at), "{at} with {movers}");
        assert_eq!((sense.command_specific, sense.information), (Some(5), Some((sixth_ends - at) * u64::from(RECORD))));
        assert_eq!(rig.check_tape().await, at, "with {movers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_its_restore_are_shared_out_with_a_short_last_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = pattern::bytes(33, 0, 24 * MIB as usize);
    disk.extend([0xA5; 1536]);
    std::fs::write(folder.path().join("from.img"), &disk).unwrap();
    std::fs::write(folder.path().join("to.img"), vec![0xDD; disk.len()]).unwrap();
    let flags = ["--disk", "from.img", "--disk", "to.img", "--tape", "shelf", "--movers", "4"];
    let target = Target::start(folder.path(), &flags).unwrap();
    let [from, to, tape] = [FROM, TO, TAPE].map(|lun| target.url(lun));
    for arguments in [
        vec!["backup", "--from", &from, "--to", &tape, "--quiet", "0s"],
        vec!["restore", "--from", &tape, "--to", &to, "--overwrite", "--latest"],
    ] {
        let dispersed = || target.log().matches("dispersed copy ended").count();
        let before = dispersed();
        offhost(&target, &arguments).succeeded();
        assert_eq!(dispersed() - before, 1, "{arguments:?}: {}", target.log());
    }
    assert!(std::fs::read(folder.path().join("to.img")).unwrap() == disk);
    let movers = status(&target.control()).unwrap().movers;
    assert!(movers.len() == 4 && movers.iter().all(|mover| mover.bytes_moved > 0), "{movers:?}");
}
