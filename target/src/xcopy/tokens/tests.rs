//! Tokens on a disk in memory: who may use which, until when, and what is left of them.

use std::sync::atomic::Ordering;

use protocol::scsi::Status;
use protocol::units::Lba;
use protocol::xcopy::rod::{MAX_TOKEN_LIFETIME, RangeDescriptor, RodCscd};
use protocol::xcopy::{PopulateToken, WriteUsingToken};
use tokio_util::sync::CancellationToken;

use super::populate::{RODS_EACH, prepare};
use super::*;
use crate::lun::testing::{MemoryStore, disk_on};
use crate::snapshot::SnapshotService;
use crate::xcopy::plan::Plan;
use crate::xcopy::results::Progress;

const TARGET: &str = "iqn.2026-01.org.offhost:test";
const MAKER: u64 = 7;

struct World {
    disk: Arc<Disk>,
    tokens: Arc<Tokens>,
    snapshots: SnapshotService,
}

impl World {
    fn new() -> Self {
        let store = MemoryStore::new(1 << 20);
        let pattern: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 512) as u8).collect();
        store.write_at(0, &[pattern.into()]).unwrap();
        let (disk, _) = disk_on(Arc::new(store), 512);
        let snapshots = SnapshotService::with_copy_stores(|size| Ok(Arc::new(MemoryStore::new(size as usize))));
        Self { disk, tokens: Arc::default(), snapshots }
    }

    /// The ROD of these ranges, at once.
    async fn rod(&self, ranges: &[(u64, u32)]) -> Arc<Rod> {
        let ranges: Vec<_> = ranges.iter().map(|(lba, blocks)| RangeDescriptor { lba: Lba(*lba), blocks: *blocks }).collect();
        let (rod, prepared) = prepare(&self.snapshots, &self.disk, &ranges).await.unwrap().unwrap();
        prepared.take(Duration::ZERO, Duration::from_secs(1), |_| ()).await.unwrap();
        Arc::new(rod)
    }

    async fn token(&self, terms: Terms, now: Instant) -> RodToken {
        let rod = self.rod(&[(8, 8)]).await;
        self.tokens.enter(MAKER, &self.disk, (RodType::Persistent, rod), terms, now).unwrap().1
    }

    fn why(&self, token: &RodToken, now: Instant) -> Option<(u8, u8)> {
        self.tokens.find_at(token, TARGET, now).err().map(|sense| sense.code)
    }

    fn device(&self) -> usize {
        std::ptr::from_ref(self.disk.common()).addr()
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_token_expires_after_its_last_use_and_at_the_end_of_its_lifetime() {
    let world = World::new();
    let start = Instant::now();
    let terms = Terms::of_cscd(&RodCscd { lifetime: 600, inactivity_timeout: 100, ..RodCscd::of_token(0) });
    let token = world.token(terms, start).await;
    assert_eq!(world.why(&token, start + s(99)), None);
    // The use ended now, by the clock: from then on it counts again.
    assert_eq!(world.why(&token, start + s(98)), None);
    let in_use = world.tokens.find_at(&token, TARGET, start).unwrap();
    assert_eq!(world.why(&token, start + s(599)), None, "while it is used nothing runs out but its life");
    drop(in_use);
    assert_eq!(world.why(&token, start + s(101)), Some((0x23, 0x07)));
    assert_eq!(world.why(&token, start), Some((0x23, 0x07)), "and it does not come back");
    let idle_for_ever = Terms::of_cscd(&RodCscd { lifetime: 600, ..RodCscd::of_token(0) });
    let token = world.token(idle_for_ever, start).await;
    assert_eq!(world.why(&token, start + s(599)), None);
    let in_use = world.tokens.find_at(&token, TARGET, start).unwrap();
    assert_eq!(world.why(&token, start + s(600)), Some((0x23, 0x07)));
    assert!(in_use.rod().is_kept(), "who uses it may end");
}

#[tokio::test]
async fn the_view_goes_with_the_token_and_its_last_user() {
    let world = World::new();
    let token = world.token(Terms::of_populate_token(0), Instant::now()).await;
    assert_eq!(world.disk.volume().trackers().count(), 1);
    let in_use = world.tokens.find(&token, TARGET).unwrap();
    in_use.delete();
    assert_eq!(world.why(&token, Instant::now()), Some((0x23, 0x09)));
    assert_eq!(world.disk.volume().trackers().count(), 1, "it is still copied from");
    drop(in_use);
    assert_eq!(world.disk.volume().trackers().count(), 0);
    let token = world.token(Terms::of_populate_token(0), Instant::now()).await;
    assert_eq!(world.tokens.of(world.device()), std::slice::from_ref(&token));
    world.tokens.revoke(world.device());
    assert_eq!(world.why(&token, Instant::now()), Some((0x23, 0x06)));
    assert_eq!((world.disk.volume().trackers().count(), world.tokens.of(world.device()).len()), (0, 0));
}

#[tokio::test]
async fn an_idle_token_lets_its_view_go_though_nobody_asks() {
    let world = World::new();
    let rod = world.rod(&[(0, 8)]).await;
    world.tokens.make(MAKER, &world.disk, RodType::Default, rod, Terms::of_populate_token(1)).unwrap();
    assert_eq!(world.disk.volume().trackers().count(), 1);
    tokio::time::timeout(s(20), async {
        while world.disk.volume().trackers().count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the view is let go");
}

#[tokio::test]
async fn who_watches_a_token_of_a_long_life_learns_within_a_minute_that_it_is_gone() {
    let world = World::new();
    let terms = Terms::of_cscd(&RodCscd { lifetime: MAX_TOKEN_LIFETIME, ..RodCscd::of_token(0) });
    let token = world.token(terms, Instant::now()).await;
    assert!(world.tokens.next_look(token.identifier()).is_some_and(|next| next <= Instant::now() + LOOK));
    world.tokens.revoke(world.device());
    assert_eq!(world.tokens.next_look(token.identifier()), None);
}

#[tokio::test]
async fn only_the_very_token_at_its_own_target_is_good() {
    let world = World::new();
    let token = world.token(Terms::of_populate_token(0), Instant::now()).await;
    for byte in [8, 15, 60, 100, 256, 400, 511] {
        let mut other = *token.as_bytes();
        other[byte] ^= 0x10;
        let other = RodToken::parse(&other).unwrap();
        assert_eq!(world.why(&other, Instant::now()), Some((0x23, 0x04)), "byte {byte}");
    }
    let elsewhere = world.tokens.find(&token, "iqn.2026-01.org.offhost:other").unwrap_err();
    assert_eq!(elsewhere.code, (0x23, 0x02));
    assert_eq!(world.why(&token, Instant::now()), None);
}

#[tokio::test]
async fn a_token_whose_data_cannot_be_kept_is_cancelled() {
    let world = World::new();
    let token = world.token(Terms::of_populate_token(0), Instant::now()).await;
    world.tokens.entries().values().for_each(|entry| entry.standing.as_ref().unwrap().view.end());
    assert_eq!(world.why(&token, Instant::now()), Some((0x23, 0x08)));
}

#[tokio::test]
async fn a_list_populates_a_bounded_number_of_rods() {
    let world = World::new();
    let rods = |count: usize, blocks: u32| {
        let ranges = vec![RangeDescriptor { lba: Lba(0), blocks }];
        let rod = || Populating {
            disk: Arc::clone(&world.disk),
            kind: RodType::Default,
            ranges: ranges.clone(),
            returns: None,
            last_segment: 0,
            used: false,
        };
        std::iter::repeat_with(rod).take(count).collect::<Vec<_>>()
    };
    let prepare = async |rods| Populated::prepare(&mut Plan::default(), rods, &world.snapshots).await;
    assert_eq!(prepare(rods(RODS_EACH, 8)).await.unwrap().kept.len(), RODS_EACH);
    assert!(prepare(rods(RODS_EACH + 1, 0)).await.is_ok(), "those of nothing take nothing");
    let refused = prepare(rods(RODS_EACH + 1, 8)).await.err().unwrap();
    assert_eq!(refused.sense, Some(Sense::INSUFFICIENT_RESOURCES_TO_CREATE_ROD));
}

#[tokio::test]
async fn tokens_are_bounded_for_each_nexus_and_for_all() {
    let world = World::new();
    let rod = world.rod(&[(0, 1)]).await;
    let make = |maker| {
        let terms = Terms::of_populate_token(0);
        world.tokens.enter(maker, &world.disk, (RodType::Default, Arc::clone(&rod)), terms, Instant::now()).map(drop)
    };
    for _ in 0..LIMIT_EACH {
        make(1).unwrap();
    }
    assert_eq!(make(1), Err(Sense::INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN));
    for maker in 2..5 {
        (0..LIMIT_EACH).for_each(|_| make(maker).unwrap());
    }
    assert_eq!(make(9), Err(Sense::INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN));
    for _ in 0..2 * RECORDS / LIMIT {
        world.tokens.revoke(world.device());
        (1..5).for_each(|maker| (0..LIMIT_EACH).for_each(|_| make(maker).unwrap()));
    }
    assert_eq!(world.tokens.entries().len(), RECORDS);
}

#[test]
fn a_lifetime_is_never_shorter_than_what_page_8f_says() {
    let terms = |lifetime| Terms::of_cscd(&RodCscd { lifetime, ..RodCscd::of_token(0) }).lifetime();
    assert_eq!((terms(0), terms(61), terms(MAX_TOKEN_LIFETIME)), (s(60), s(61), s(86_400)));
    assert_eq!(Terms::of_populate_token(0).inactivity(), Some(s(120)));
    assert_eq!(Terms::of_cscd(&RodCscd::of_token(0)).inactivity(), None);
}

fn populate_list(kind: RodType) -> PopulateToken {
    let ranges = vec![RangeDescriptor { lba: Lba(8), blocks: 8 }];
    PopulateToken { immediate: false, kind: Some(kind), inactivity_timeout: 0, ranges }
}

#[tokio::test]
async fn a_disk_that_is_written_gives_no_quiet_token_and_busy_after_20_s_at_most() {
    let world = World::new();
    // A write that does not end.
    let admission = world.disk.volume().admit().await;
    let list = populate(&world.disk, MAKER, populate_list(RodType::Default)).unwrap();
    let (progress, abort) = (Progress::default(), CancellationToken::new());
    let stop = abort.clone();
    let run = tokio::spawn(async move {
        let ended = list.run(&world.snapshots, &world.tokens, &progress, &abort).await;
        (ended, world, progress)
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!run.is_finished(), "it waits");
    stop.cancel();
    let (ended, world, progress) = run.await.unwrap();
    assert!(ended.terminated && ended.tokens.is_empty());
    assert_eq!(progress.written.load(Ordering::Relaxed), 0);
    assert_eq!(world.disk.volume().trackers().count(), 0, "nothing is left");
    drop(admission);
}

#[tokio::test]
async fn a_token_that_needs_no_quiet_is_made_at_once_and_written_from_by_a_plan() {
    let world = World::new();
    let list = populate(&world.disk, MAKER, populate_list(RodType::ChangeVulnerable)).unwrap();
    let (progress, abort) = (Progress::default(), CancellationToken::new());
    let ended = list.run(&world.snapshots, &world.tokens, &progress, &abort).await;
    assert_eq!((ended.response.status, progress.written.load(Ordering::Relaxed)), (Status::Good, 4096));
    let [(0, token)] = ended.tokens.as_slice() else { panic!("one token") };
    let ask = |offset, ranges: &[(u64, u32)]| {
        let ranges = ranges.iter().map(|(lba, blocks)| RangeDescriptor { lba: Lba(*lba), blocks: *blocks }).collect();
        let token = Box::new(*token.as_bytes());
        let list = WriteUsingToken { immediate: false, deletes_token: false, offset, token, ranges };
        write(&world.disk, &list, &world.tokens)
    };
    let planned = ask(2, &[(100, 4), (200, 9)]).unwrap();
    assert_eq!((planned.wanted.0, planned.there.0, planned.plan.steps.len()), (13, 6, 2));
    let ended = Write::completed(planned.wanted, planned.there, crate::task::Response::good().into());
    let sense = ended.response.sense.unwrap();
    assert!(ended.partial);
    assert_eq!((sense.code, sense.information), ((0x0D, 0x04), Some(6)));
    let refused = |offset, ranges| ask(offset, ranges).map(|_| ()).unwrap_err().code;
    assert_eq!(refused(8, &[(100, 1)]), (0x26, 0x00));
    assert_eq!(refused(u64::MAX, &[(100, 1)]), (0x26, 0x00));
    assert_eq!(refused(0, &[(2047, 2)]), (0x21, 0x00));
    let too_many = u32::MAX;
    assert_eq!(refused(0, &[(0, too_many)]), (0x21, 0x00));
}
