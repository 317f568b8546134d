//! WRITE, piece by piece.

use super::*;
use crate::lun::disk::StreamedWrite;
use crate::metrics::usage::Op;
use crate::snapshot::{Keeper, Request, SnapshotService, Source};
use crate::store::BlockStore;

/// WRITE(10) of 64 KiB to LBA 0.
const WRITE: &str = "2a 00 00000000 00 0080 00";
const LEN: usize = 64 * 1024;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.store.buffered.store(true, Ordering::Relaxed);
    bench
}

fn begin(bench: &Bench, cdb: &str) -> Option<StreamedWrite> {
    Device::Disk(Arc::clone(&bench.disk)).stream(task(&bench.nexus, cdb, Vec::new()), LEN as u64)
}

/// Offers so many bytes, and gives how many were taken.
fn offer(write: &mut StreamedWrite, held: usize) -> usize {
    let mut taken = 0;
    write.write(held as u64, |len| {
        taken = len as usize;
        vec![vec![1; taken].into()]
    });
    taken
}

fn end(bench: &Bench, write: StreamedWrite, rest: usize) -> Response {
    finish(write.end(task(&bench.nexus, WRITE, vec![2; rest])))
}

#[test]
fn whole_pages_are_written_as_they_come_and_the_rest_at_the_end() {
    let bench = bench();
    let mut write = begin(&bench, WRITE).unwrap();
    assert_eq!(offer(&mut write, 4095), 0);
    assert!(write.is_untouched());
    assert_eq!(offer(&mut write, 10_000), 8192);
    assert_eq!(bench.data("28 00 00000000 00 0010 00"), [1; 8192]);
    assert_eq!(offer(&mut write, 4096), 4096);
    let response = end(&bench, write, LEN - 3 * 4096);
    assert_eq!((response.status, response.transfer_length), (Status::Good, Some(LEN as u64)));
    assert_eq!(bench.data("28 00 00000000 00 0080 00"), [vec![1; 3 * 4096], vec![2; LEN - 3 * 4096]].concat());
    assert_eq!(bench.store.syncs.load(Ordering::Relaxed), 0);
    let counted = bench.disk.common.usage.total();
    assert_eq!((counted.commands[Op::Write as usize][0], counted.data_out, counted.in_flight), (1, LEN as u64, 0));
}

#[test]
fn force_unit_access_syncs_what_came_before_the_end_as_well() {
    let bench = bench();
    let mut write = begin(&bench, "2a 08 00000000 00 0080 00").unwrap();
    assert_eq!(offer(&mut write, LEN / 2), LEN / 2);
    let rest = task(&bench.nexus, "2a 08 00000000 00 0080 00", vec![2; LEN / 2]);
    assert_eq!(finish(write.end(rest)).status, Status::Good);
    assert_eq!(bench.store.syncs.load(Ordering::Relaxed), 1);
}

#[test]
fn only_a_plain_write_of_whole_pages_that_would_be_carried_out_now_goes_in_pieces() {
    let bench = bench();
    let streams = |cdb| begin(&bench, cdb).is_some();
    assert!(streams("2a 00 00000000 00 0080 00") && streams("8a 00 0000000000000008 00000080 00 00"));
    assert!(!streams("2a 00 00000001 00 0080 00"), "begins inside a page");
    assert!(!streams("2a 00 00000000 00 0081 00"), "of another length than the initiator sends");
    assert!(!streams("2a 00 000007f8 00 0080 00"), "ends behind the disk");
    assert!(!streams("2a 20 00000000 00 0080 00"), "asks for protection information");
    assert!(!streams("2e 00 00000000 00 0080 00") && !streams("89 00 0000000000000000 00000080 00 00"));
    bench.disk.common.attentions.establish(1, &Sense::MODE_PARAMETERS_CHANGED);
    assert!(!streams(WRITE), "its nexus has something to be told first");
    assert_eq!(bench.refused(WRITE, vec![0; LEN]), Sense::MODE_PARAMETERS_CHANGED, "and is told");
}

#[tokio::test]
async fn a_hold_and_a_writer_that_is_alone_leave_the_data_where_it_is() {
    let bench = bench();
    let mut write = begin(&bench, WRITE).unwrap();
    assert_eq!(offer(&mut write, 8192), 8192);
    let gate = Arc::clone(bench.disk.volume().gate());
    let hold = await_quiet([gate], Duration::ZERO, Duration::from_secs(1), |_| ()).await.expect("a write half come is none");
    assert_eq!(offer(&mut write, 8192), 0);
    drop(hold);
    let alone = bench.disk.writers.write().unwrap();
    assert_eq!(offer(&mut write, 8192), 0);
    drop(alone);
    assert_eq!(offer(&mut write, 8192), 8192);
}

#[tokio::test]
async fn what_a_live_snapshot_needs_is_kept_before_a_piece_is_written() {
    let bench = bench();
    bench.good(WRITE, vec![7; LEN]);
    let copies = |size| Ok(Arc::new(MemoryStore::new(size as usize)) as Arc<dyn BlockStore>);
    let sources = vec![Source { volume: Arc::clone(bench.disk.volume()), range: None, keeper: Keeper::Asker }];
    let request = Request { sources, quiet: Duration::ZERO, timeout: Duration::from_secs(1) };
    let taken = SnapshotService::with_copy_stores(copies).take(request, |_| ()).await.unwrap();
    let mut write = begin(&bench, WRITE).unwrap();
    assert!(write.work_ahead().is_none(), "nothing has come");
    assert_eq!(offer(&mut write, 8192), 0);
    assert!(bench.disk.volume().quiet().in_flight == 0, "a hold need not wait for the command");
    let work = write.work_ahead().expect("old blocks are not kept");
    assert_eq!(offer(&mut write, 8192), 0);
    assert!(write.work_ahead().is_none(), "asked for once");
    work();
    assert_eq!(offer(&mut write, 8192), 8192);
    assert_eq!(end(&bench, write, LEN - 8192).status, Status::Good);
    assert_eq!(bench.data("28 00 00000000 00 0080 00"), [vec![1; 8192], vec![2; LEN - 8192]].concat());
    let mut old = [0; LEN];
    taken.views[0].read_at(0, &mut old).unwrap();
    assert_eq!(old, [7; LEN]);
    let mut again = begin(&bench, WRITE).unwrap();
    assert_eq!(offer(&mut again, 8192), 8192, "nothing is left to be kept");
}

#[test]
fn an_error_of_a_piece_ends_the_command_when_its_data_has_come() {
    let bench = bench();
    let mut write = begin(&bench, WRITE).unwrap();
    *bench.store.fail_write.lock().unwrap() = Some(nix::libc::EIO);
    assert_eq!(offer(&mut write, 8192), 8192);
    assert_eq!(offer(&mut write, 8200), 8200, "let pass");
    let response = end(&bench, write, LEN - 8192 - 8200);
    assert_eq!((response.status, response.sense.unwrap().key), (Status::CheckCondition, SenseKey::MediumError));
    assert_eq!(bench.data("28 00 00000000 00 0080 00"), vec![0; LEN]);
}

#[test]
fn what_comes_up_between_two_pieces_stops_the_write() {
    let bench = bench();
    let mut write = begin(&bench, WRITE).unwrap();
    assert_eq!(offer(&mut write, 8192), 8192);
    bench.disk.software_write_protect.store(true, Ordering::Relaxed);
    assert_eq!(offer(&mut write, 8192), 8192, "let pass");
    let response = end(&bench, write, LEN - 2 * 8192);
    assert_eq!(response.sense, Some(Sense::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED));
    assert_eq!(bench.data("28 00 00000010 00 0070 00"), vec![0; LEN - 8192]);
}
