//! Writes whose data comes piece by piece, and does not always come to its end.

use std::fs::File;
use std::path::Path;

use super::in_place::{LEN, with_file};
use super::*;
use crate::quiet::await_quiet;
use crate::snapshot::{Keeper, Request, SnapshotService, Source, View};

/// Bytes that an initiator sends of such a write before it is asked for more.
const FIRST: usize = 256 * 1024;
const WHOLE: usize = 1 << 20;

/// A disk with a WRITE that has come halfway.
struct Halfway {
    served: Served,
    client: Client,
    write: u32,
    folder: tempfile::TempDir,
    _file: File,
}

impl Halfway {
    async fn new() -> Self {
        Self::of(with_file().await).await
    }

    /// Sends the first burst of a WRITE of `B` to LBA 0, where `A` was, and waits until it is on the disk.
    async fn of((served, file, folder): (Served, File, tempfile::TempDir)) -> Self {
        let mut client = served.client("iqn.2026-11.example:host").await;
        let write = client.submit(0, &cdb_10(0x2A, 0, (WHOLE / 512) as u16), Data::Out(vec![vec![b'B'; WHOLE].into()]));
        client.send().await;
        let begun = Self { served, client, write, folder, _file: file };
        let arrives = async {
            while begun.written() < FIRST {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, arrives).await.expect("what has come is written");
        assert_eq!(begun.written(), FIRST);
        begun
    }

    /// How many bytes at the front are `B`; all behind them are `A`.
    fn written(&self) -> usize {
        let blocks = std::fs::read(self.folder.path().join("disk.img")).unwrap();
        assert_eq!(blocks.len() as u64, LEN);
        let new = blocks.iter().take_while(|byte| **byte == b'B').count();
        assert!(blocks[new..].iter().all(|byte| *byte == b'A'));
        new
    }

    /// Has all data come, and gives the command's end.
    async fn finish(&mut self) -> Completion {
        let (ended, completion) = self.client.completed().await;
        assert_eq!(ended, self.write);
        completion
    }

    async fn end(self) {
        self.served.end().await;
    }
}

fn disk_of(served: &Served) -> Arc<Disk> {
    match served.target.luns().number(0) {
        Some(Device::Disk(disk)) => disk,
        _ => panic!("a disk is there"),
    }
}

/// A command that begins when no other is in the task set.
fn submit_ordered(client: &mut Client) -> u32 {
    client.submit_as(Attribute::Ordered, 0, &cdb_10(0x28, 0, 1), Data::In(512))
}

#[tokio::test]
async fn a_write_that_stalls_is_on_the_disk_as_far_as_it_has_come_and_keeps_no_hold_waiting() {
    let mut begun = Halfway::new().await;
    let gate = Arc::clone(disk_of(&begun.served).volume().gate());
    let hold = await_quiet([gate], Duration::from_millis(20), PATIENCE, |_| ()).await.expect("nothing is in flight");
    drop(hold);
    assert_eq!(begun.finish().await.status, Status::Good as u8);
    assert_eq!(begun.written(), WHOLE);
    let session = begun.served.server.sessions().remove(0);
    assert_eq!(session.data_out, WHOLE as u64);
    begun.end().await;
}

#[tokio::test]
async fn a_write_that_is_aborted_halfway_goes_no_further() {
    let mut begun = Halfway::new().await;
    let client = &mut begun.client;
    client.session.task_management(TaskManagementFunction::AbortTask, LunAddress::from_number(0), Some(begun.write));
    assert_eq!(client.managed().await, TaskManagementResponse::FunctionComplete);
    // Behind all the data that was still on its way.
    let ordered = submit_ordered(client);
    assert_eq!(client.completed().await.0, ordered, "and it left the task set");
    assert_eq!(begun.written(), FIRST);
    begun.end().await;
}

#[tokio::test]
async fn a_write_whose_initiator_is_gone_goes_no_further_and_leaves_the_task_set() {
    let mut begun = Halfway::new().await;
    let mut other = begun.served.client("iqn.2026-11.example:other").await;
    begun.client.stream.shutdown().await.unwrap();
    let ordered = submit_ordered(&mut other);
    assert_eq!(other.completed().await.0, ordered);
    assert_eq!(begun.written(), FIRST);
    begun.end().await;
}

#[tokio::test]
async fn a_write_whose_transfer_is_broken_halfway_ends_and_leaves_the_task_set() {
    let mut begun = Halfway::new().await;
    let mut stray = Transmit::default();
    let header = bhs::DataOut {
        initiator_task_tag: begun.write.into(),
        target_transfer_tag: 0xABCD.into(),
        buffer_offset: 0x10_0000.into(),
        ..Default::default()
    };
    stray.push(header, &[Bytes::from_static(b"none of it was asked for")]);
    begun.client.stream.write_all(&stray.copy_to_bytes(stray.len())).await.unwrap();
    assert_eq!(begun.finish().await.status, Status::CheckCondition as u8);
    let ordered = submit_ordered(&mut begun.client);
    assert_eq!(begun.client.completed().await.0, ordered);
    assert_eq!(begun.written(), FIRST);
    begun.end().await;
}

#[tokio::test]
async fn an_ordered_command_of_another_session_waits_for_a_write_that_has_begun() {
    let mut begun = Halfway::new().await;
    let mut other = begun.served.client("iqn.2026-11.example:other").await;
    let ordered = submit_ordered(&mut other);
    assert!(other.is_silent().await);
    begun.finish().await;
    assert_eq!(other.completed().await.0, ordered);
    begun.end().await;
}

/// What the view of the whole disk shows, and the view.
async fn view_of(disk: &Disk, folder: &Path) -> Arc<View> {
    let service = SnapshotService::new(folder.to_owned());
    let sources = vec![Source { volume: Arc::clone(disk.volume()), range: None, keeper: Keeper::Asker }];
    let request = Request { sources, quiet: Duration::ZERO, timeout: PATIENCE };
    service.take(request, |_| ()).await.unwrap().views.remove(0)
}

/// True when the view shows the disk as it was.
fn is_untouched(view: &View) -> bool {
    let mut blocks = vec![0; LEN as usize];
    view.read_at(0, &mut blocks).unwrap();
    blocks.iter().all(|byte| *byte == b'A')
}

#[tokio::test]
async fn a_write_goes_in_pieces_beside_a_live_snapshot_which_keeps_what_was_there() {
    let (served, file, folder) = with_file().await;
    let view = view_of(&disk_of(&served), folder.path()).await;
    let mut begun = Halfway::of((served, file, folder)).await;
    assert!(is_untouched(&view));
    assert_eq!(view.copied_bytes(), WHOLE as u64, "kept ahead of what is still to come");
    assert_eq!(begun.finish().await.status, Status::Good as u8);
    assert_eq!(begun.written(), WHOLE);
    assert!(is_untouched(&view) && view.failure().is_none());
    begun.end().await;
}

#[tokio::test]
async fn a_snapshot_taken_halfway_has_what_was_written_by_then() {
    let mut begun = Halfway::new().await;
    let view = view_of(&disk_of(&begun.served), begun.folder.path()).await;
    assert_eq!(begun.finish().await.status, Status::Good as u8);
    assert_eq!(begun.written(), WHOLE);
    let mut blocks = vec![0; LEN as usize];
    view.read_at(0, &mut blocks).unwrap();
    let (new, old) = blocks.split_at(FIRST);
    assert!(new.iter().all(|byte| *byte == b'B') && old.iter().all(|byte| *byte == b'A'));
    begun.end().await;
}

/// Sends what there is in pieces of so many bytes until a command has ended.
async fn dribble(client: &mut Client, piece: usize) -> Completion {
    loop {
        match client.session.poll_event() {
            Some(InitiatorEvent::Completed { completion, .. }) => return completion,
            Some(event) => panic!("{event:?}"),
            None => {}
        }
        let transmit = client.session.transmit(CID).unwrap();
        let bytes = transmit.copy_to_bytes(transmit.len());
        for piece in bytes.chunks(piece) {
            client.stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_ne!(client.stream.read_buf(&mut client.input).await.unwrap(), 0, "the connection has ended");
        client.session.handle_input(CID, std::time::Instant::now(), &mut client.input).unwrap();
    }
}

/// The socket wakes nobody before most of a long PDU is there: no size of pieces must leave the last of it lying.
#[tokio::test]
async fn data_that_comes_in_pieces_of_any_size_is_written_and_answered() {
    let (served, _file, folder) = with_file().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.stream.set_nodelay(true).unwrap();
    for (byte, piece) in (b'a'..).zip([97, 4143, 65_483, 65_536 + 48, 262_143, 262_144 + 48, WHOLE]) {
        client.submit(0, &cdb_10(0x2A, 0, (WHOLE / 512) as u16), Data::Out(vec![vec![byte; WHOLE].into()]));
        let ended = tokio::time::timeout(PATIENCE, dribble(&mut client, piece)).await;
        assert_eq!(ended.expect("an answer in time").status, Status::Good as u8, "pieces of {piece}");
        let blocks = std::fs::read(folder.path().join("disk.img")).unwrap();
        assert!(blocks[..WHOLE].iter().all(|found| *found == byte), "pieces of {piece}");
    }
    served.end().await;
}
