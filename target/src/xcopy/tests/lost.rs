//! Copies whose task is lost in the middle: what they held is free again, and their list identifiers say what became of them.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::mover::{FromMover, VERSION, frame};
use protocol::scsi::sense::SenseKey;
use protocol::scsi::{Sense, SenseFormat, Status};
use protocol::xcopy::operation::{CopyOperationStatus, OperationStatus};
use protocol::xcopy::{List, ListFormat, Segment};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::super::results::{Origin, Results};
use super::{CopyManager, World};
use crate::lun::common::CopyService;
use crate::lun::testing::{finish, nexus, task};
use crate::mover::Movers;
use crate::task::{Execution, Response};

const ID: u32 = 0xB0B;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A mover that greets and never says anything again.
fn silent_mover(folder: &std::path::Path) -> Arc<Movers> {
    let hello = FromMover::Hello { version: VERSION, buffer_limit: 1 << 20, memory_limit: 1 << 20 };
    std::fs::write(folder.join("hello"), frame::encode(&hello).unwrap()).unwrap();
    let program = folder.join("mover");
    std::fs::write(&program, format!("#!/bin/sh\ncat {}/hello >&0\nexec sleep 600\n", folder.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    Movers::new(Some(program))
}

fn status(world: &World, manager: &Arc<CopyManager>) -> OperationStatus {
    let asked = task(&world.nexus, &format!("84 05 {ID:08x} 00000000 00000400 0000"), Vec::new());
    OperationStatus::parse(&manager.receive_copy(&world.devices[0], &asked).data_in.concat()).unwrap().0
}

fn begin(world: &World, manager: &Arc<CopyManager>) -> Execution {
    let mut list = List::lid4(ID);
    list.immediate = true;
    let tape = list.cscd(world.tape());
    list.push(Segment::WriteFilemarks { destination: tape, immediate: false, count: 1 });
    let bytes = list.emit();
    let cdb = format!("83 01 0000000000000000 {:08x} 0000", bytes.len());
    Arc::clone(manager).third_party_copy_out(world.devices[0].clone(), task(&world.nexus, &cdb, bytes))
}

#[test]
fn a_copy_whose_task_is_lost_has_failed_and_leaves_its_drive_and_its_identifier_free() {
    let (world, folder, runtime) = (World::new(), tempfile::tempdir().unwrap(), runtime());
    let movers = silent_mover(folder.path());
    let manager = CopyManager::new(Arc::clone(&movers), super::snapshots());
    {
        let _inside = runtime.enter();
        assert_eq!(finish(begin(&world, &manager)), Response::good(), "IMMED");
    }
    let rewind = || finish(world.devices[3].start(task(&world.nexus, "01 0000000000", Vec::new()))).status;
    let patience = Instant::now() + Duration::from_secs(20);
    while rewind() != Status::Busy {
        assert!(Instant::now() < patience, "the copy never took the drive");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mover = movers.ensure().unwrap();
    assert_eq!(status(&world, &manager).status, CopyOperationStatus::Background);
    // As when the task panics: it is dropped where it stands.
    runtime.shutdown_timeout(Duration::from_secs(20));
    assert!(!mover.alive(), "nothing moves any more");
    let told = status(&world, &manager);
    assert_eq!((told.status, told.completion_status), (CopyOperationStatus::Failed, 0x02));
    let sense = Sense::parse(&told.sense).unwrap();
    assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, Sense::INTERNAL_TARGET_FAILURE.code));
    assert_eq!(manager.status().running, 0);
    assert_eq!(rewind(), Status::Good, "the drive is back");
    let again = self::runtime();
    {
        let _inside = again.enter();
        assert_eq!(finish(begin(&world, &manager)), Response::good(), "the list identifier is free");
    }
    again.shutdown_timeout(Duration::from_secs(20));
    movers.end();
}

#[test]
fn a_panic_is_an_end_too() {
    let (world, results) = (World::new(), Arc::<Results>::default());
    let origin =
        Origin { service_action: 1, format: Some(ListFormat::Lid4), counts_blocks_of: None, background: true, device: 0 };
    let begin = || results.begin(&world.nexus, ID, origin, CancellationToken::new(), SenseFormat::Descriptor);
    let underway = begin().unwrap();
    assert_eq!(begin().unwrap_err(), Sense::OPERATION_IN_PROGRESS);
    let over = results.abort(world.nexus.id, ID).unwrap();
    let thread = std::thread::spawn(move || {
        let _underway = underway;
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(over.is_cancelled(), "who waits for its end is told");
    let told = results.operation(world.nexus.id, ID).unwrap();
    assert_eq!(told.status, CopyOperationStatus::Failed);
    assert_eq!(told.sense[0] & 0x7F, 0x72, "in the format of the logical unit");
    begin().unwrap().end(&Response::good().into());
}

#[test]
fn results_of_one_nexus_do_not_crowd_out_those_of_another() {
    let (world, results) = (World::new(), Arc::<Results>::default());
    let other = nexus(2, &world.devices);
    let origin =
        Origin { service_action: 1, format: Some(ListFormat::Lid4), counts_blocks_of: None, background: true, device: 0 };
    let run = |nexus, id| {
        let underway = results.begin(nexus, id, origin, CancellationToken::new(), SenseFormat::Fixed).unwrap();
        underway.end(&Response::good().into());
    };
    run(&other, 7);
    (0..500).for_each(|id| run(&world.nexus, id));
    let known = |nexus: u64| (0..500).filter(|id| results.operation(nexus, *id).is_some()).count();
    assert_eq!((known(world.nexus.id), known(other.id)), (64, 1));
    assert!(results.operation(world.nexus.id, 499).is_some() && results.operation(world.nexus.id, 0).is_none(), "the oldest go");
}
