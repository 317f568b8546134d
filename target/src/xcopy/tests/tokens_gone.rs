//! What becomes of tokens, by commands alone: when their disk is sanitized or ejected, and when a copy that is to delete them ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use protocol::scsi::{Sense, SenseKey, Status};
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::operation::OperationStatus;
use protocol::xcopy::rod::{RangeDescriptor, RodToken, RodType};
use protocol::xcopy::token::parse_token_descriptors;
use protocol::xcopy::{CscdDescriptor, List, PopulateToken, RodCscd, Segment, WriteUsingToken};

use super::{TARGET, designator, identity, manager};
use crate::cartridge::NewMedium;
use crate::lun::Device;
use crate::lun::common::{Common, CopyService, Identity};
use crate::lun::disk::{Disk, DiskOptions, ViewRules};
use crate::lun::tape::Tape;
use crate::lun::testing::{MemoryStore, nexus, task};
use crate::nexus::Nexus;
use crate::snapshot::{Keeper, Request, Source};
use crate::task::{Execution, Response};
use crate::volume::Volume;
use crate::xcopy::CopyManager;

const READY: &str = "00 00 00 00 00 00";
const RANGE: RangeDescriptor = RangeDescriptor { lba: Lba(0), blocks: 8 };

/// A removable disk with a copy manager, which has no mover, and a tape.
struct World {
    manager: Arc<CopyManager>,
    disk: Arc<Disk>,
    tape: Arc<Tape>,
    nexus: Arc<Nexus>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let manager = manager();
        let copies: Arc<dyn CopyService> = manager.clone();
        let common = Common::new(Identity::new(TARGET, "sanitized", "TEST"), Some(copies));
        let options = DiskOptions { removable: true, ..BlockLength::B512.into() };
        let disk = Disk::new(common, Volume::new(Arc::new(MemoryStore::new(1 << 20))), options);
        let folder = tempfile::tempdir().unwrap();
        let tape = Tape::open(identity("tape"), folder.path(), NewMedium::of_capacity(1 << 24)).unwrap();
        let nexus = nexus(1, &[Device::Disk(Arc::clone(&disk)), Device::Tape(Arc::clone(&tape))]);
        Self { manager, disk, tape, nexus, _folder: folder }
    }

    async fn run(&self, cdb: &str, data: Vec<u8>) -> Response {
        match self.disk.start(task(&self.nexus, cdb, data)) {
            Execution::Done(response) => response,
            Execution::Blocking(run) | Execution::Alone(run) => run(),
            Execution::Async(work) => work.await,
        }
    }

    async fn good(&self, cdb: &str, data: Vec<u8>) -> Vec<u8> {
        let response = self.run(cdb, data).await;
        assert_eq!(response.status, Status::Good, "{cdb}: {:?}", response.sense);
        response.data_in.concat()
    }

    /// Of a point in time copy that waits for nothing.
    async fn token(&self) -> RodToken {
        let (kind, ranges) = (Some(RodType::ChangeVulnerable), vec![RANGE]);
        let list = PopulateToken { immediate: false, kind, inactivity_timeout: 0, ranges }.emit();
        self.good(&format!("83 10 00000000 00000007 {:08x} 0000", list.len()), list).await;
        let data = self.good("84 07 00000007 00000000 00001000 0000", Vec::new()).await;
        let (_, descriptors) = OperationStatus::parse(&data).unwrap();
        parse_token_descriptors(descriptors).unwrap().remove(0).1
    }

    /// Begins a copy of the disk onto the tape, which no mover carries out.
    async fn copy_onto_tape(&self) {
        let mut list = List::new(0x33);
        let source = list.cscd(CscdDescriptor::disk(designator(&Device::Disk(Arc::clone(&self.disk))), 512));
        let destination = list.cscd(CscdDescriptor::tape(designator(&Device::Tape(Arc::clone(&self.tape)))));
        list.push(Segment::BlockToStream { source, destination, transfer_length: 512, blocks: 1, from: Lba(0) });
        let list = list.emit();
        let failed = self.run(&format!("83 00 0000000000000000 {:08x} 0000", list.len()), list).await.sense;
        assert_eq!(failed.expect("sense data").key, SenseKey::CopyAborted);
    }

    /// Tokens that are good, and leases.
    fn kept(&self) -> (usize, usize) {
        let disk = Device::Disk(Arc::clone(&self.disk)).address();
        (self.manager.means.tokens.of(disk).len(), self.manager.means.leases.facts().len())
    }

    /// What WRITE USING TOKEN says to a token.
    async fn refusal(&self, token: &RodToken) -> Sense {
        let token = Box::new(*token.as_bytes());
        let list = WriteUsingToken { immediate: false, deletes_token: false, offset: 0, token, ranges: vec![RANGE] }.emit();
        let refused = self.run(&format!("83 11 00000000 00000008 {:08x} 0000", list.len()), list).await;
        refused.sense.expect("sense data")
    }
}

#[tokio::test]
async fn a_disk_with_tokens_is_sanitized_and_they_are_cancelled() {
    let world = World::new();
    world.good("2a 00 00000000 00 0001 00", vec![0x5A; 512]).await;
    let token = world.token().await;
    let copying = world.disk.begin_copy_of_view().unwrap();
    assert_eq!(world.run("48 82 0000000000 0000 00", Vec::new()).await.status, Status::Busy, "it is copied from");
    assert_eq!(world.disk.volume().trackers().count(), 1, "and it keeps its token");
    drop(copying);
    world.good("48 82 0000000000 0000 00", Vec::new()).await;
    assert_eq!(world.disk.volume().trackers().count(), 0, "nothing is kept of it");
    let limit = Instant::now() + Duration::from_secs(30);
    let refused = loop {
        let refused = world.refusal(&token).await;
        if refused.key != SenseKey::NotReady {
            break refused;
        }
        assert!(Instant::now() < limit, "the sanitize operation does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(refused.code, Sense::INVALID_TOKEN_OPERATION_TOKEN_CANCELLED.code);
    let all = world.good("84 08 0000000000000000 00001000 0000", Vec::new()).await;
    assert_eq!(all.len(), 8, "REPORT ALL ROD TOKENS has none");
}

#[tokio::test]
async fn a_sanitize_that_a_snapshot_keeps_away_cancels_nothing() {
    let world = World::new();
    world.disk.set_view_rules(ViewRules { lease: true, quiet: Duration::ZERO, timeout: Some(Duration::from_secs(30)) });
    world.token().await;
    world.copy_onto_tape().await;
    assert_eq!(world.kept(), (1, 1));
    let sources = vec![Source { volume: Arc::clone(world.disk.volume()), range: None, keeper: Keeper::Asker }];
    let request = Request { sources, quiet: Duration::ZERO, timeout: Duration::from_secs(30) };
    let snapshot = world.manager.means.snapshots.take(request, |_| ()).await.unwrap();
    for cdb in ["48 82 0000000000 0000 00", "48 02 0000000000 0000 00"] {
        assert_eq!(world.run(cdb, Vec::new()).await.sense, Some(Sense::COMMAND_SEQUENCE_ERROR), "{cdb}");
    }
    assert_eq!(world.kept(), (1, 1));
    world.good(READY, Vec::new()).await;
    drop(snapshot);
    world.good("48 82 0000000000 0000 00", Vec::new()).await;
    assert_eq!(world.kept(), (0, 0));
}

#[tokio::test]
async fn tokens_of_a_medium_are_cancelled_when_it_is_ejected() {
    let world = World::new();
    let token = world.token().await;
    world.good("1b 00 00 00 02 00", Vec::new()).await;
    assert_eq!(world.disk.volume().trackers().count(), 0);
    world.good("1b 00 00 00 03 00", Vec::new()).await;
    assert_eq!(world.refusal(&token).await.code, Sense::INVALID_TOKEN_OPERATION_TOKEN_CANCELLED.code);
}

#[tokio::test]
async fn a_copy_that_is_busy_does_not_delete_the_token_with_which_it_comes_again() {
    let world = World::new();
    let token = world.token().await;
    let mut list = List::new(0x33);
    list.inline = Bytes::copy_from_slice(token.as_bytes());
    let source = list.cscd(CscdDescriptor::rod(RodCscd { deletes_token: true, ..RodCscd::of_token(0) }));
    let destination = list.cscd(CscdDescriptor::tape(designator(&Device::Tape(Arc::clone(&world.tape)))));
    // The tape is opened first.
    list.push(Segment::Locate { destination, object: 0 });
    list.push(Segment::BlockToStream { source, destination, transfer_length: 512, blocks: 1, from: Lba(0) });
    let list = list.emit();
    let copy = async || world.run(&format!("83 00 0000000000000000 {:08x} 0000", list.len()), list.clone()).await;
    let another = world.tape.begin_copy().unwrap();
    assert_eq!(copy().await.status, Status::Busy);
    another.finish().unwrap();
    let failed = copy().await.sense.expect("no mover could read a disk in memory");
    assert_eq!(failed.code, Sense::THIRD_PARTY_DEVICE_FAILURE.code, "and not that the token is bad");
    assert_eq!(world.refusal(&token).await.code, Sense::INVALID_TOKEN_OPERATION_TOKEN_DELETED.code);
}
