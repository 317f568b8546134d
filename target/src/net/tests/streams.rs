//! Writes whose data comes piece by piece, and does not always come to its end.

use std::path::Path;

use super::in_place::{LEN, with_file};
use super::*;
use crate::quiet::await_quiet;

/// Bytes that an initiator sends of such a write before it is asked for more.
const FIRST: usize = 256 * 1024;
const WHOLE: usize = 1 << 20;

/// Sends the first burst of a WRITE of `B` to LBA 0, where `A` was, and waits until it is on the disk.
async fn halfway(client: &mut Client, folder: &Path) -> u32 {
    let write = client.submit(0, &cdb_10(0x2A, 0, (WHOLE / 512) as u16), Data::Out(vec![vec![b'B'; WHOLE].into()]));
    client.send().await;
    let written = async {
        while written(folder) < FIRST {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("what has come is written");
    assert_eq!(self::written(folder), FIRST);
    write
}

/// How many bytes at the front are `B`; all behind them are `A`.
fn written(folder: &Path) -> usize {
    let blocks = std::fs::read(folder.join("disk.img")).unwrap();
    assert_eq!(blocks.len() as u64, LEN);
    let new = blocks.iter().take_while(|byte| **byte == b'B').count();
    assert!(blocks[new..].iter().all(|byte| *byte == b'A'));
    new
}

/// A command that begins when no other is in the task set.
fn submit_ordered(client: &mut Client) -> u32 {
    client.submit_as(Attribute::Ordered, 0, &cdb_10(0x28, 0, 1), Data::In(512))
}

#[tokio::test]
async fn a_write_that_stalls_is_on_the_disk_as_far_as_it_has_come_and_keeps_no_hold_waiting() {
    let (served, _file, folder) = with_file().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let write = halfway(&mut client, folder.path()).await;
    let Some(Device::Disk(disk)) = served.target.luns().number(0) else { panic!("a disk is there") };
    let gate = Arc::clone(disk.volume().gate());
    let hold = await_quiet([gate], Duration::from_millis(20), PATIENCE, |_| ()).await.expect("nothing is in flight");
    drop(hold);
    let (ended, completion) = client.completed().await;
    assert_eq!((ended, completion.status), (write, Status::Good as u8));
    assert_eq!(written(folder.path()), WHOLE);
    let session = served.server.sessions().remove(0);
    assert_eq!(session.data_out, WHOLE as u64);
    served.end().await;
}

#[tokio::test]
async fn a_write_that_is_aborted_halfway_goes_no_further() {
    let (served, _file, folder) = with_file().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let write = halfway(&mut client, folder.path()).await;
    client.session.task_management(TaskManagementFunction::AbortTask, LunAddress::from_number(0), Some(write));
    assert_eq!(client.managed().await, TaskManagementResponse::FunctionComplete);
    // Behind all the data that was still on its way.
    let ordered = submit_ordered(&mut client);
    assert_eq!(client.completed().await.0, ordered, "and it left the task set");
    assert_eq!(written(folder.path()), FIRST);
    served.end().await;
}

#[tokio::test]
async fn a_write_whose_initiator_is_gone_goes_no_further_and_leaves_the_task_set() {
    let (served, _file, folder) = with_file().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    halfway(&mut client, folder.path()).await;
    drop(client);
    let ordered = submit_ordered(&mut other);
    assert_eq!(other.completed().await.0, ordered);
    assert_eq!(written(folder.path()), FIRST);
    served.end().await;
}

#[tokio::test]
async fn a_write_whose_transfer_is_broken_halfway_ends_and_leaves_the_task_set() {
    let (served, _file, folder) = with_file().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let write = halfway(&mut client, folder.path()).await;
    let mut stray = Transmit::default();
    let header = bhs::DataOut {
        initiator_task_tag: write.into(),
        target_transfer_tag: 0xABCD.into(),
        buffer_offset: 0x10_0000.into(),
        ..Default::default()
    };
    stray.push(header, &[Bytes::from_static(b"none of it was asked for")]);
    client.stream.write_all(&stray.copy_to_bytes(stray.len())).await.unwrap();
    let (ended, completion) = client.completed().await;
    assert_eq!((ended, completion.status), (write, Status::CheckCondition as u8));
    let ordered = submit_ordered(&mut client);
    assert_eq!(client.completed().await.0, ordered);
    assert_eq!(written(folder.path()), FIRST);
    served.end().await;
}

#[tokio::test]
async fn an_ordered_command_of_another_session_waits_for_a_write_that_has_begun() {
    let (served, _file, folder) = with_file().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let write = halfway(&mut client, folder.path()).await;
    let ordered = submit_ordered(&mut other);
    assert!(other.is_silent().await);
    assert_eq!(client.completed().await.0, write);
    assert_eq!(other.completed().await.0, ordered);
    served.end().await;
}
