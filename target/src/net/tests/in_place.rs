//! Blocks that are sent from where they lie.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use crate::store::raw::{RawSpec, RawStore};

/// More than the sockets hold between an initiator that does not read and the target.
const BLOCKS: u16 = 16384;
pub(super) const LEN: u64 = BLOCKS as u64 * 512;

/// With a file full of `A` as LUN 0.
pub(super) async fn with_file() -> (Served, File, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    std::fs::write(&path, vec![b'A'; LEN as usize]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let store = RawStore::open(&RawSpec { path, size: None }).unwrap();
    let common = Common::new(Identity::new(NAME, "file", "DISK"), None);
    let luns = LunMap::default();
    luns.add(0, Device::Disk(Disk::new(common, Volume::new(Arc::new(store)), BlockLength::B512)));
    (Served::with(Arc::new(luns)).await, file, folder)
}

fn is_all(completion: &Completion, byte: u8) -> bool {
    completion.data_in.iter().map(|part| part.len() as u64).sum::<u64>() == LEN
        && completion.data_in.iter().all(|part| part.iter().all(|found| *found == byte))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_has_not_ended_before_its_blocks_have_left_and_nobody_waits_long_for_a_slow_reader() {
    let (served, _file, _folder) = with_file().await;
    let mut slow = served.client("iqn.2026-11.example:slow").await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let read = slow.read(0, BLOCKS);
    slow.send().await;
    slow.stream.readable().await.unwrap();
    let last = LEN / 512 - 2048;
    let ordered =
        other.submit_as(Attribute::Ordered, 0, &cdb_10(0x2A, last as u32, 2048), Data::Out(vec![vec![b'B'; 1 << 20].into()]));
    let (ended, completion) = other.completed().await;
    assert_eq!((ended, completion.status), (ordered, Status::Good as u8));
    let (ended, completion) = slow.completed().await;
    assert_eq!(ended, read);
    assert!(is_all(&completion, b'A'), "the younger ORDERED command shows");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_cut_under_a_read_costs_its_connection_and_nothing_else() {
    let (served, file, _folder) = with_file().await;
    let mut slow = served.client("iqn.2026-11.example:slow").await;
    slow.read(0, BLOCKS);
    slow.send().await;
    slow.stream.readable().await.unwrap();
    file.set_len(4096).unwrap();
    assert!(slow.event().await.is_none(), "what was announced cannot come");
    let mut other = served.client("iqn.2026-11.example:other").await;
    assert_eq!(other.command(0, &INQUIRY, 96).await.status, Status::Good as u8);
    file.write_all_at(b"A", LEN - 1).unwrap();
    served.end().await;
}
