//! Several movers, their speed, and their cage, with real processes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use offhost_tests::control::{set_movers, status};
use offhost_tests::copies::disk_to_disk;
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::control::MoverSettings;
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::operation::OperationStatus;
use protocol::xcopy::rod::{RangeDescriptor, RodType};
use protocol::xcopy::token::parse_token_descriptors;
use protocol::xcopy::{PopulateToken, WriteUsingToken};
use sim::client::{Client, Options};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;
const FROM: u16 = 0;
const TO: u16 = 1;

struct Rig {
    target: Target,
    client: Client,
    list: Bytes,
    // Behind the target, so that it is dropped later.
    folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        pattern::image(&folder.path().join("from.img"), 21, SIZE / MIB).unwrap();
        let to = format!("to.img:{}MiB", SIZE / MIB);
        let target = Target::start(folder.path(), &["--disk", "from.img", "--disk", &to]).unwrap();
        let client =
            Client::connect(&target.url(FROM).parse().unwrap(), Options::named("iqn.2026-01.test:movers")).await.unwrap();
        client.lun(FROM).test_unit_ready().await.unwrap();
        client.lun(TO).test_unit_ready().await.unwrap();
        let list = disk_to_disk(&client, (FROM, Lba(0)), (TO, Lba(0)), SIZE).await.unwrap();
        Self { target, client, list, folder }
    }

    fn set(&self, movers: u8, bytes_per_second: Option<u64>) {
        let settings = MoverSettings { movers, bytes_per_second, job_bytes_per_second: None, priority: None };
        set_movers(&self.target.control(), &settings).unwrap();
    }

    async fn copy(&self) -> Duration {
        let began = Instant::now();
        self.client.lun(TO).extended_copy(self.list.clone()).await.unwrap();
        began.elapsed()
    }

    /// The destination is the source, and is made different again.
    fn check(&self) {
        let [from, to] = ["from.img", "to.img"].map(|name| self.folder.path().join(name));
        assert!(std::fs::read(from).unwrap() == std::fs::read(&to).unwrap());
        std::fs::write(to, vec![0xDD; SIZE as usize]).unwrap();
    }

    /// Process and bytes of each mover.
    fn shares(&self) -> Vec<(u32, u64)> {
        status(&self.target.control()).unwrap().movers.iter().map(|mover| (mover.pid, mover.bytes_moved)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_throttled_movers_are_three_times_as_fast_as_one() {
    let rig = Rig::new().await;
    rig.set(1, Some(12 * MIB));
    let one = rig.copy().await;
    rig.check();
    // Without a limit in between nothing is owed any more.
    rig.set(1, None);
    rig.set(4, Some(12 * MIB));
    let before = rig.shares();
    let four = rig.copy().await;
    rig.check();
    assert!(one.as_secs_f64() / four.as_secs_f64() >= 3.0, "{one:?} with one, {four:?} with four");
    let shares: Vec<_> =
        rig.shares().iter().map(|(pid, bytes)| bytes - before.iter().find(|(p, _)| p == pid).map_or(0, |b| b.1)).collect();
    assert_eq!((shares.len(), shares.iter().sum::<u64>()), (4, SIZE));
    assert!(shares.iter().all(|bytes| *bytes >= SIZE / 8), "{shares:?}");

    // Fewer again: those too many end, and the rest work on.
    rig.set(1, None);
    rig.copy().await;
    rig.check();
    assert_eq!(rig.shares().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_stands_for_is_written_by_several_movers() {
    const ID: u32 = 7;
    let rig = Rig::new().await;
    rig.set(4, Some(48 * MIB));
    let ranges = vec![RangeDescriptor { lba: Lba(0), blocks: (SIZE / 512) as u32 }];
    let (from, to) = (rig.client.lun(FROM), rig.client.lun(TO));
    // It waits for nothing.
    let (kind, immediate) = (Some(RodType::ChangeVulnerable), false);
    let list = PopulateToken { immediate, kind, inactivity_timeout: 0, ranges: ranges.clone() }.emit();
    from.token_command(0x10, ID, list.into()).await.unwrap().good("POPULATE TOKEN").unwrap();
    let told = from.receive_copy_lid4_reply(0x07, ID, 4096).await.unwrap().good("RECEIVE ROD TOKEN INFORMATION").unwrap();
    let tokens = parse_token_descriptors(OperationStatus::parse(&told.data).unwrap().1).unwrap();
    // What is written from now on is no part of it.
    let first = from.read(Lba(0), 8, BlockLength::B512).await.unwrap();
    from.write(Lba(0), vec![0xEE; 4096].into(), BlockLength::B512).await.unwrap();
    let token = Box::new(*tokens[0].1.as_bytes());
    let list = WriteUsingToken { immediate, deletes_token: true, offset: 0, token, ranges }.emit();
    to.token_command(0x11, ID, list.into()).await.unwrap().good("WRITE USING TOKEN").unwrap();
    from.write(Lba(0), first, BlockLength::B512).await.unwrap();
    rig.check();
    let shares = rig.shares();
    assert!(shares.len() == 4 && shares.iter().all(|(_, bytes)| *bytes >= SIZE / 16), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_movers_pieces_are_done_again_by_others() {
    let rig = Rig::new().await;
    rig.set(3, Some(8 * MIB));
    let (tape, list) = (rig.client.lun(TO), rig.list.clone());
    let copying = tokio::spawn(async move { tape.extended_copy(list).await });
    let mut killed = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    while killed.len() < 3 && !copying.is_finished() && Instant::now() < until {
        let said = status(&rig.target.control()).unwrap();
        if let Some(mover) =
            said.movers.iter().find(|mover| mover.busy && mover.bytes_moved >= MIB && !killed.contains(&mover.pid))
        {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(mover.pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
            killed.push(mover.pid);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    copying.await.unwrap().expect("the copy does not notice");
    assert!(killed.len() >= 2, "only {killed:?} were killed");
    rig.check();
    assert!(rig.target.log().contains("a dead mover's piece is done again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_stands_still_is_ended_and_holds_up_nobody_but_its_own_pieces() {
    use nix::sys::signal::{Signal, kill};
    let rig = Rig::new().await;
    rig.set(2, Some(8 * MIB));
    let (disk, list) = (rig.client.lun(TO), rig.list.clone());
    let copying = tokio::spawn(async move { disk.extended_copy(list).await });
    let busy = || status(&rig.target.control()).unwrap().movers.into_iter().find(|mover| mover.busy && mover.bytes_moved >= MIB);
    let until = Instant::now() + Duration::from_secs(30);
    let stopped = loop {
        if let Some(mover) = busy() {
            break mover.pid;
        }
        assert!(Instant::now() < until, "{}", rig.target.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    kill(nix::unistd::Pid::from_raw(stopped as i32), Signal::SIGSTOP).unwrap();
    let url = rig.target.url(FROM).parse().unwrap();
    let other = Client::connect(&url, Options::named("iqn.2026-01.test:another")).await.unwrap();
    other.unit().test_unit_ready().await.unwrap();
    let (mut slowest, until) = (Duration::ZERO, Instant::now() + Duration::from_secs(90));
    while !copying.is_finished() {
        assert!(Instant::now() < until, "{}", rig.target.log());
        let began = Instant::now();
        other.unit().read(Lba(0), 8, BlockLength::B512).await.unwrap();
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    copying.await.unwrap().expect("the copy does not notice");
    println!("the slowest read of another session took {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    rig.check();
    assert!(rig.target.log().contains("the mover is stuck") && rig.shares().iter().all(|(pid, _)| *pid != stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_set_and_lifted_while_a_copy_runs() {
    let rig = Rig::new().await;
    rig.set(1, Some(64 * 1024));
    let (disk, list) = (rig.client.lun(TO), rig.list.clone());
    let copying = tokio::spawn(async move { disk.extended_copy(list).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!copying.is_finished(), "it would take 12 minutes");
    rig.set(1, None);
    tokio::time::timeout(Duration::from_secs(20), copying).await.expect("nothing is owed any more").unwrap().unwrap();
    rig.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_is_caged_and_its_memory_bounded() {
    let rig = Rig::new().await;
    rig.copy().await;
    rig.check();
    let said = status(&rig.target.control()).unwrap();
    let mover = said.movers.first().unwrap();
    println!("a mover has {} MiB of at most {} MiB", mover.memory / MIB, mover.memory_limit / MIB);
    assert!(mover.memory > 0 && mover.memory < 200 * MIB && mover.memory_limit == 1024 * MIB, "{mover:?}");
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", mover.pid)).unwrap();
    let limit = |name: &str| {
        proc("limits").lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().rev().nth(1).map(str::to_owned)
    };
    assert_eq!(limit("Max data size"), Some((1024 * MIB).to_string()));
    assert_eq!(limit("Max core file size"), Some("0".into()));
    let of_status =
        |name: &str| proc("status").lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()));
    assert_eq!((of_status("NoNewPrivs:").as_deref(), of_status("Seccomp:").as_deref()), (Some("1"), Some("2")));
}
