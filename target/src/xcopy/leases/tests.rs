//! Leases of disks in memory: which copies read one view, and what ends it.

use protocol::mover::ends::End;
use protocol::mover::{Action, Destination, EndIndex, Move, Source as From, Step, Transfer};
use protocol::scsi::Sense;

use super::*;
use crate::cartridge::NewMedium;
use crate::lun::Device;
use crate::lun::common::{Common, Identity};
use crate::lun::disk::ViewRules;
use crate::lun::tape::Tape;
use crate::lun::testing::{MemoryStore, disk_on, nexus};
use crate::mover::Movers;
use crate::store::BlockStore;
use crate::xcopy::CopyManager;

/// No wait but for writes in flight.
const AT_ONCE: ViewRules = ViewRules { lease: true, quiet: Duration::ZERO, timeout: Some(Duration::from_millis(200)) };

struct World {
    disk: Arc<Disk>,
    other: Arc<Disk>,
    tape: Arc<Tape>,
    leases: Arc<Leases>,
    snapshots: SnapshotService,
    cancelled: CancellationToken,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = || SnapshotService::with_copy_stores(|size| Ok(Arc::new(MemoryStore::new(size as usize))));
        let manager = CopyManager::new(Movers::new(None), Arc::new(snapshots()));
        let leases = Arc::clone(&manager.means.leases);
        let common = Common::new(Identity::new("iqn.2026-01.org.offhost:test", "tape", "TEST"), Some(manager));
        let disk = || disk_on(Arc::new(MemoryStore::new(1 << 16)), 512).0;
        let world = Self {
            disk: disk(),
            other: disk(),
            tape: Tape::open(common, folder.path(), NewMedium::of_capacity(1 << 24)).unwrap(),
            leases,
            snapshots: snapshots(),
            cancelled: CancellationToken::new(),
            _folder: folder,
        };
        world.disk.set_view_rules(AT_ONCE);
        world.other.set_view_rules(AT_ONCE);
        world
    }

    /// A plan that copies a block of each disk onto the tape.
    fn onto_tape(&self, disks: &[&Arc<Disk>]) -> Plan {
        let mut plan = Plan::default();
        for disk in disks {
            let from = plan.add(PlannedEnd::Source(Arc::clone(disk)));
            let end = plan.add(PlannedEnd::Tape(Arc::clone(&self.tape)));
            let transfer = Transfer { record: 512, records: 1, fixed: false };
            plan.steps.push(step(from, Destination::Stream { end, transfer }));
        }
        plan
    }

    async fn lease(&self, of: u64, plan: &mut Plan) -> Result<(), Response> {
        self.leases.lease(plan, &nexus(of, &[]), &self.snapshots, &self.cancelled).await
    }

    /// What a copy of a nexus from the disk onto the tape reads.
    async fn rod(&self, of: u64) -> Arc<Rod> {
        let mut plan = self.onto_tape(&[&self.disk]);
        self.lease(of, &mut plan).await.unwrap();
        rod(&plan, 0)
    }

    fn views(&self) -> usize {
        self.disk.volume().trackers().count()
    }
}

fn step(from: EndIndex, to: Destination) -> Step {
    let copy = Move {
        from: From::Blocks { end: from, at: 0 },
        to,
        process: Some(512),
        output: None,
        source_pad: false,
        destination_pad: false,
        hold: false,
    };
    Step { segment: 0, cat: false, action: Action::Move(copy) }
}

fn rod(plan: &Plan, end: usize) -> Arc<Rod> {
    let PlannedEnd::Rod(rod) = &plan.ends[end] else { panic!("{:?} is no view", plan.ends[end]) };
    Arc::clone(rod)
}

fn address(device: Device) -> usize {
    device.address()
}

#[tokio::test]
async fn a_view_is_shared_until_something_ends_its_lease_and_each_nexus_has_its_own() {
    let world = World::new();
    let (disk, tape) = (address(Device::Disk(Arc::clone(&world.disk))), address(Device::Tape(Arc::clone(&world.tape))));
    let first = world.rod(1).await;
    assert!(Arc::ptr_eq(&first, &world.rod(1).await), "the same moment");
    assert!(!Arc::ptr_eq(&first, &world.rod(2).await), "another nexus has another");
    drop(first);
    assert_eq!((world.views(), world.leases.facts().len()), (2, 2));
    for nothing in [
        LeaseEnd::Reservation { nexus: 1, device: 0xBAD },
        LeaseEnd::Reservation { nexus: 3, device: tape },
        LeaseEnd::Tape { tape: 0xBAD },
        LeaseEnd::Nexus { nexus: 3 },
        LeaseEnd::Disk { disk: tape },
    ] {
        world.leases.end(nothing);
        assert_eq!(world.views(), 2, "{nothing:?}");
    }
    for (end, left) in [
        (LeaseEnd::Reservation { nexus: 2, device: tape }, 1),
        (LeaseEnd::Nexus { nexus: 1 }, 0),
        (LeaseEnd::Reservation { nexus: 1, device: disk }, 0),
        (LeaseEnd::Tape { tape }, 0),
        (LeaseEnd::Disk { disk }, 0),
    ] {
        if world.views() == left {
            drop(world.rod(1).await);
        }
        world.leases.end(end);
        assert_eq!(world.views(), left, "{end:?}");
    }
}

#[tokio::test]
async fn a_lease_ends_when_the_changer_takes_the_tape() {
    let world = World::new();
    drop(world.rod(1).await);
    assert_eq!(world.views(), 1);
    world.tape.unload().unwrap().expect("a cartridge");
    assert_eq!(world.views(), 0);
}

#[tokio::test]
async fn a_copy_that_reads_a_view_keeps_it_when_the_lease_ends_and_the_next_has_a_new_one() {
    let world = World::new();
    let mut running = world.onto_tape(&[&world.disk]);
    world.lease(1, &mut running).await.unwrap();
    world.leases.end(LeaseEnd::Nexus { nexus: 1 });
    assert!(rod(&running, 0).is_kept());
    assert!(!Arc::ptr_eq(&rod(&running, 0), &world.rod(1).await));
    drop(running);
    assert_eq!((world.views(), world.leases.facts()[0].copies), (1, 0));
}

#[tokio::test]
async fn an_idle_lease_ends_after_a_minute_and_one_in_use_does_not() {
    let world = World::new();
    let mut using = world.onto_tape(&[&world.disk]);
    world.lease(1, &mut using).await.unwrap();
    let lease = Arc::clone(&using.leased[0].lease);
    let later = Instant::now() + 2 * IDLE;
    assert_eq!(world.leases.next_look(&lease, later), Some(later + IDLE));
    drop(using);
    let soon = Instant::now() + IDLE / 2;
    assert!(world.leases.next_look(&lease, soon).is_some_and(|next| next < soon + IDLE));
    assert_eq!(world.leases.next_look(&lease, later), None);
    drop(lease);
    assert_eq!(world.views(), 0);
}

#[tokio::test]
async fn only_what_goes_onto_a_stream_device_and_is_not_written_by_the_same_list_reads_a_view() {
    let world = World::new();
    let mut onto_disk = Plan::default();
    let from = onto_disk.add(PlannedEnd::Source(Arc::clone(&world.disk)));
    let end = onto_disk.add(PlannedEnd::Destination(Arc::clone(&world.other)));
    onto_disk.steps.push(step(from, Destination::Blocks { end, at: 0 }));
    let mut written_too = world.onto_tape(&[&world.disk]);
    written_too.add(PlannedEnd::Destination(Arc::clone(&world.disk)));
    let mut live = world.onto_tape(&[&world.other]);
    world.other.set_view_rules(ViewRules { lease: false, ..AT_ONCE });
    for plan in [&mut onto_disk, &mut written_too, &mut live] {
        world.lease(1, plan).await.unwrap();
        assert!(plan.leased.is_empty() && matches!(plan.ends[0], PlannedEnd::Source(_)), "{plan:?}");
    }
    // A null stream device and a remote tape are stream devices, too.
    let mut onto_null = Plan::default();
    let from = onto_null.add(PlannedEnd::Source(Arc::clone(&world.disk)));
    let end = onto_null.add(PlannedEnd::Null(End::NullStream));
    onto_null.steps.push(step(from, Destination::Stream { end, transfer: Transfer { record: 512, records: 1, fixed: false } }));
    world.lease(1, &mut onto_null).await.unwrap();
    assert_eq!(onto_null.leased.len(), 1);
}

#[tokio::test]
async fn two_disks_of_one_list_are_shown_at_one_moment_and_a_list_that_has_its_views_waits_for_nothing() {
    let world = World::new();
    let mut plan = world.onto_tape(&[&world.disk, &world.other]);
    world.lease(1, &mut plan).await.unwrap();
    let taken: Vec<_> = world.leases.facts().iter().map(|facts| facts.taken).collect();
    assert!(taken.len() == 2 && taken[0] == taken[1], "{taken:?}");
    let _writing = (world.disk.volume().admit().await, world.other.volume().admit().await);
    let mut next = world.onto_tape(&[&world.other, &world.disk]);
    world.lease(1, &mut next).await.unwrap();
    assert!(Arc::ptr_eq(&rod(&plan, 0), &rod(&next, 2)) && Arc::ptr_eq(&rod(&plan, 2), &rod(&next, 0)));
}

#[tokio::test]
async fn a_disk_that_is_not_quiet_in_time_gives_busy_and_an_aborted_command_does_not_wait_for_it() {
    let world = World::new();
    let writing = world.disk.volume().admit().await;
    let refused = world.lease(1, &mut world.onto_tape(&[&world.disk])).await.unwrap_err();
    assert_eq!(refused.status, Status::Busy);
    world.disk.set_view_rules(ViewRules { timeout: Some(ViewRules::TIMEOUT_MAX), ..AT_ONCE });
    let (mut plan, mut another) = (world.onto_tape(&[&world.disk]), world.onto_tape(&[&world.disk]));
    let aborted = async {
        // One waits for the disk, the other for the one.
        tokio::task::yield_now().await;
        world.cancelled.cancel();
    };
    let (one, other, ()) = tokio::join!(world.lease(1, &mut plan), world.lease(1, &mut another), aborted);
    for ended in [one, other] {
        assert_eq!(ended.unwrap_err().sense, Some(Sense::COMMANDS_CLEARED_BY_DEVICE_SERVER));
    }
    drop(writing);
    assert_eq!((world.views(), world.leases.facts().len()), (0, 0));
}

#[tokio::test]
async fn a_view_that_is_lost_is_not_replaced_before_its_lease_ends() {
    let mut world = World::new();
    let full = |size| {
        let store = MemoryStore::new(size as usize);
        *store.fail_write.lock().unwrap() = Some(libc::ENOSPC);
        Ok(Arc::new(store) as Arc<dyn BlockStore>)
    };
    world.snapshots = SnapshotService::with_copy_stores(full);
    let write = async || {
        let admission = world.disk.volume().admit().await;
        world.disk.volume().write_at(&admission, 0, &[vec![1; 512].into()]).unwrap();
    };
    // A hole would need no room.
    write().await;
    let lost = world.rod(1).await;
    write().await;
    assert!(!lost.is_kept() && !world.leases.facts()[0].live);
    assert!(Arc::ptr_eq(&lost, &world.rod(1).await), "its copies fail");
    world.leases.end(LeaseEnd::Nexus { nexus: 1 });
    assert!(world.rod(1).await.is_kept());
}
