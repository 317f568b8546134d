//! Faults in copies to tape with real processes, from a seed, on cartridges of both layouts, by bytes and by reference: the mover
//! killed, the task aborted, the session lost, a second copy to the same drive, the target killed, the tape too short. After each the
//! status is what it should be, the tape's position is known and its records are a beginning of what was to be written, and a rerun
//! succeeds.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offhost_tests::control::{set_movers, status};
use offhost_tests::copies::{RECORD, disk_to_tape, read_tape};
use offhost_tests::programs::{Target, program};
use offhost_tests::reflink::{self, Reflinks};
use offhost_tests::{pattern, skip};
use protocol::control::MoverSettings;
use protocol::scsi::{SenseKey, Status};
use protocol::units::BlockLength;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sim::client::{Client, ClientError, LogicalUnit, Options, TaskManagement};

const DISK: u16 = 0;
const TAPE: u16 = 1;
const RECORDS: u64 = 256;
/// A copy takes half a second, so that whatever happens meets it in the middle.
const BYTES_PER_SECOND: u64 = RECORDS * RECORD as u64 * 2;
/// Kinds of trouble.
const KINDS: u64 = 5;
/// The one that leaves a drive that was just loaded.
const TARGET_KILLED: u64 = 4;

struct Rig {
    target: Target,
    client: Client,
    list: Bytes,
    tape_flag: &'static str,
    records: u64,
    movers: u8,
}

impl Rig {
    async fn start(folder: &Path, tape_flag: &'static str, records: u64, movers: u8) -> Self {
        let target = Target::start(folder, &["--disk", "disk.img", "--tape", tape_flag]).unwrap();
        let client = Self::session(&target, "iqn.2026-01.test:faults").await;
        let list = disk_to_tape(&client, DISK, TAPE, records).await.unwrap();
        Self { target, client, list, tape_flag, records, movers }
    }

    async fn session(target: &Target, name: &str) -> Client {
        let client = Client::connect(&target.url(DISK).parse().unwrap(), Options::named(name)).await.unwrap();
        client.lun(DISK).test_unit_ready().await.unwrap();
        client.lun(TAPE).test_unit_ready().await.unwrap();
        client
    }

    fn tape(&self) -> LogicalUnit {
        self.client.lun(TAPE)
    }

    fn slow(&self, slow: bool) {
        let bytes_per_second = slow.then_some(BYTES_PER_SECOND / u64::from(self.movers));
        let settings = MoverSettings { movers: self.movers, bytes_per_second, job_bytes_per_second: None, priority: None };
        set_movers(&self.target.control(), &settings).unwrap();
    }

    /// How many records are whole, all of them right, and the tape stands behind the last of them, or where it was loaded.
    async fn check(&self, seed: u64, loaded: bool) -> u64 {
        let at = self.tape().read_position().await.unwrap().object;
        let each = |index, data| assert_eq!(data, pattern::bytes(11, index, RECORD as usize), "seed {seed}: record {index}");
        let whole = read_tape(&self.client, TAPE, each).await.unwrap();
        assert_eq!(
            at,
            if loaded { 0 } else { whole },
            "seed {seed}: the tape stands where its data ends, or where it was loaded"
        );
        whole
    }

    /// Until no copy runs.
    async fn settle(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while status(&self.target.control()).unwrap().copies.running > 0 {
            assert!(Instant::now() < until, "a copy never ends");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_copy_its_tape_is_known_and_a_rerun_succeeds() {
    let (_, in_the_middle) = troubles(tempfile::tempdir().unwrap().path(), "shelf", 1, 0..20).await;
    assert!(in_the_middle >= 2, "only {in_the_middle} copies were met in the middle");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_on_a_cartridge_of_the_aligned_layout() {
    let (_, in_the_middle) = troubles(tempfile::tempdir().unwrap().path(), "shelf,layout=aligned", 1, 0..10).await;
    assert!(in_the_middle >= 1, "no copy was met in the middle");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_where_several_movers_share_a_copy() {
    let mut in_the_middle = 0;
    for (tape_flag, seeds) in [("shelf", 400..410), ("shelf,layout=aligned", 410..415)] {
        let folder = tempfile::tempdir().unwrap();
        let (rig, met) = troubles(folder.path(), tape_flag, 3, seeds).await;
        assert!(rig.target.log().contains("dispersed copy ended"));
        in_the_middle += met;
    }
    assert!(in_the_middle >= 2, "only {in_the_middle} copies were met in the middle");
}

fn disk_of(folder: &Path, records: u64) {
    let disk: Vec<u8> = (0..records).flat_map(|index| pattern::bytes(11, index, RECORD as usize)).collect();
    std::fs::write(folder.join("disk.img"), disk).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_where_records_refer_to_the_disk_s_blocks() {
    if let Some(why) = reflink::obstacle() {
        skip!("{why}");
    }
    let files = Reflinks::new(program("offhost-mover").parent().unwrap(), 1 << 30).unwrap();
    // One reference carries many records: most troubles come before it or behind it.
    let (rig, _) = troubles(files.path(), "shelf,layout=aligned", 1, 100..110).await;
    let methods = status(&rig.target.control()).unwrap().copies.bytes_by_method;
    assert!(methods.reference >= RECORDS * u64::from(RECORD) && methods.buffers == 0, "{methods:?}");
}

/// An image as long as this is not truncated when its tape is written anew: another takes its place, and it is freed beside the copy.
const REPLACED: u64 = (64 << 20) / RECORD as u64 + 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_around_the_replacement_of_a_long_image_leaves_one_of_the_two() {
    let folder = tempfile::tempdir().unwrap();
    disk_of(folder.path(), REPLACED);
    let mut rig = Rig::start(folder.path(), "shelf,layout=aligned", REPLACED, 1).await;
    rig.tape().extended_copy(rig.list.clone()).await.unwrap();
    for seed in 200..204 {
        let image = folder.path().join("shelf/OFH001L8/p0.tap");
        assert!(std::fs::metadata(&image).unwrap().len() > 64 << 20);
        let wait = Duration::from_micros(SmallRng::seed_from_u64(seed).random_range(0..60_000));
        rig.slow(true);
        rig.tape().rewind().await.unwrap();
        let target_killed = seed % 2 == 0;
        if target_killed {
            rig = kill_target(rig, wait).await;
        } else {
            kill(&rig, wait, seed).await;
        }
        rig.check(seed, target_killed).await;
        rig.slow(false);
        rig.tape().rewind().await.unwrap();
        rig.tape().extended_copy(rig.list.clone()).await.unwrap_or_else(|error| panic!("seed {seed}: a rerun: {error}"));
    }
    assert_eq!(rig.check(204, false).await, REPLACED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_is_too_short_warns_and_then_ends_the_copy_with_all_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    disk_of(folder.path(), RECORDS);
    for (seed, flag) in [(300, "plain:8MiB"), (301, "aligned:8MiB,layout=aligned")] {
        let rig = Rig::start(folder.path(), flag, RECORDS, 1).await;
        let stopped = rig.tape().extended_copy(rig.list.clone()).await.unwrap_err();
        let sense = stopped.sense().unwrap_or_else(|| panic!("{stopped}"));
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, THIRD_PARTY_DEVICE), "{flag}: {sense}");
        let warned_at = rig.check(seed, false).await;
        assert!((96..124).contains(&warned_at), "{flag}: early warning behind {warned_at} records of 64 KiB in 8 MiB");

        // From there on every record is written and warned of, until there is no room for one.
        let single = disk_to_tape(&rig.client, DISK, TAPE, 1).await.unwrap();
        let mut behind = 0;
        loop {
            let refused = rig.tape().extended_copy(single.clone()).await.unwrap_err();
            assert_eq!(refused.sense().map(|sense| sense.key), Some(SenseKey::CopyAborted), "{flag}: {refused}");
            let at = rig.tape().read_position().await.unwrap().object;
            if at == warned_at + behind {
                break;
            }
            behind += 1;
            assert_eq!(at, warned_at + behind, "{flag}");
            assert!(behind < 64, "{flag}: the tape has no end");
        }
        assert!(behind > 4, "{flag}: only {behind} records behind the warning");
        let total = warned_at + behind;
        let whole = read_tape(&rig.client, TAPE, |index, data| {
            let from = index.checked_sub(warned_at).map_or(index, |_| 0);
            assert_eq!(data, pattern::bytes(11, from, RECORD as usize), "{flag}: record {index}");
        });
        assert_eq!(whole.await.unwrap(), total, "{flag}");
        // What fits is copied.
        let fits = disk_to_tape(&rig.client, DISK, TAPE, warned_at - 1).await.unwrap();
        rig.tape().rewind().await.unwrap();
        rig.tape().extended_copy(fits).await.unwrap();
        assert_eq!(rig.check(seed, false).await, warned_at - 1, "{flag}");
    }
}

/// THIRD PARTY DEVICE FAILURE: what the tape said is in the sense data.
const THIRD_PARTY_DEVICE: (u8, u8) = (0x0D, 0x01);

/// One trouble after the other. Gives how many of the copies were met in the middle.
async fn troubles(folder: &Path, tape_flag: &'static str, movers: u8, seeds: Range<u64>) -> (Rig, u64) {
    disk_of(folder, RECORDS);
    let mut rig = Rig::start(folder, tape_flag, RECORDS, movers).await;
    let mut in_the_middle = 0;
    for seed in seeds {
        let wait = Duration::from_millis(SmallRng::seed_from_u64(seed).random_range(0..450));
        let whole;
        (rig, whole) = one(rig, seed, wait).await;
        in_the_middle += u64::from(whole > 0 && whole < RECORDS);
    }
    let size = rig.client.lun(DISK).read_capacity().await.unwrap();
    assert_eq!(size.block_length, BlockLength::B512, "and the target still answers");
    (rig, in_the_middle)
}

/// One trouble that comes to a copy after `wait`, and a rerun. Gives how many records were whole in between.
async fn one(mut rig: Rig, seed: u64, wait: Duration) -> (Rig, u64) {
    rig.slow(true);
    rig.tape().rewind().await.unwrap();
    let kind = seed % KINDS;
    match kind {
        0 => kill(&rig, wait, seed).await,
        1 => abort(&rig, wait, seed).await,
        2 => lose_session(&rig, wait).await,
        3 => second_copy(&rig, wait, seed).await,
        _ => rig = kill_target(rig, wait).await,
    }
    let whole = rig.check(seed, kind == TARGET_KILLED).await;
    if kind == 2 || kind == 3 {
        assert_eq!(whole, rig.records, "seed {seed}: the copy goes on, whoever listens");
    }
    rig.slow(false);
    rig.tape().rewind().await.unwrap();
    rig.tape().extended_copy(rig.list.clone()).await.unwrap_or_else(|error| panic!("seed {seed}: a rerun: {error}"));
    assert_eq!(rig.check(seed, false).await, rig.records);
    (rig, whole)
}

/// The one that is started in its place waits until the mover is gone.
async fn kill_target(rig: Rig, wait: Duration) -> Rig {
    let Rig { mut target, client, list, tape_flag, records, movers } = rig;
    let tape = client.lun(TAPE);
    let copying = tokio::spawn(async move { tape.extended_copy(list).await });
    tokio::time::sleep(wait).await;
    target.kill();
    // Done, or its session is gone: either says so.
    let _ = copying.await.unwrap();
    let folder = target.folder.clone();
    drop(target);
    Rig::start(&folder, tape_flag, records, movers).await
}

async fn kill(rig: &Rig, wait: Duration, seed: u64) {
    let (tape, list) = (rig.tape(), rig.list.clone());
    let copying = tokio::spawn(async move { tape.extended_copy(list).await });
    tokio::time::sleep(wait).await;
    for mover in status(&rig.target.control()).unwrap().movers.iter().filter(|mover| mover.busy) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(mover.pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    if let Err(error) = copying.await.unwrap() {
        let sense = error.sense().unwrap_or_else(|| panic!("seed {seed}: {error}"));
        assert_eq!(sense.key, SenseKey::CopyAborted, "seed {seed}: {error}");
    }
}

/// The response to the abort means that nothing moves any more.
async fn abort(rig: &Rig, wait: Duration, seed: u64) {
    let (tape, list) = (rig.tape(), rig.list.clone());
    let copying = tokio::spawn(async move { tape.extended_copy(list).await });
    tokio::time::sleep(wait).await;
    rig.client.task_management(TaskManagement::AbortTaskSet(TAPE)).await.unwrap();
    let running = status(&rig.target.control()).unwrap().copies.running;
    assert_eq!(running, 0, "seed {seed}: a copy runs behind the response to its abort");
    // An aborted task has no status of its own.
    let _ = tokio::time::timeout(Duration::from_millis(50), copying).await;
}

async fn lose_session(rig: &Rig, wait: Duration) {
    let other = Rig::session(&rig.target, "iqn.2026-01.test:leaves").await;
    let (tape, list) = (other.lun(TAPE), rig.list.clone());
    let copying = tokio::spawn(async move { tape.extended_copy(list).await });
    // A command that never arrived copies nothing.
    begun(rig, &copying).await;
    tokio::time::sleep(wait).await;
    copying.abort();
    drop(other);
    rig.settle().await;
}

async fn second_copy(rig: &Rig, wait: Duration, seed: u64) {
    let (tape, list) = (rig.tape(), rig.list.clone());
    let copying = tokio::spawn(async move { tape.extended_copy(list).await });
    begun(rig, &copying).await;
    tokio::time::sleep(wait).await;
    // Under another list identifier: the same one would be refused for that.
    let mut again = rig.list.to_vec();
    again[0] = 2;
    let second = rig.tape().extended_copy(again.into()).await;
    if !copying.is_finished() {
        let busy = matches!(&second, Err(ClientError::Status { status: Status::Busy, .. }));
        assert!(busy, "seed {seed}: the second copy gets {second:?}");
    } else if second.is_ok() {
        // Both ran, one behind the other.
        copying.await.unwrap().unwrap();
        rig.tape().rewind().await.unwrap();
        return rig.tape().extended_copy(rig.list.clone()).await.unwrap();
    }
    copying.await.unwrap().unwrap();
}

async fn begun<T>(rig: &Rig, copying: &tokio::task::JoinHandle<T>) {
    while status(&rig.target.control()).unwrap().copies.running == 0 && !copying.is_finished() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
