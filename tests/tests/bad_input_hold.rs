//! Snapshots taken again and again while many writes are in flight: every write succeeds, and none is held for a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use datamover::agent::control::Control;
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::control::SnapshotRequest;
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Options};
use sim::url::Url;

const SESSIONS: u64 = 4;
/// Writers of a session: more than any command window, so that it is always full.
const WRITERS: u64 = 80;
const LENGTH: usize = 16_384;
const LONGEST_HOLD_US: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_under_full_windows_of_writes_fail_no_write_and_hold_none_for_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "disk.img:64MiB"]).unwrap();
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    let url: Url = target.url(0).parse().unwrap();
    for session in 0..SESSIONS {
        let client = Client::connect(&url, Options::named(format!("iqn.2026-01.test:writer-{session}"))).await.unwrap();
        client.unit().test_unit_ready().await.unwrap();
        for writer in session * WRITERS..(session + 1) * WRITERS {
            let (disk, stop, written) = (client.unit(), Arc::clone(&stop), Arc::clone(&written));
            writers.push(tokio::spawn(async move {
                let (mut round, mut slowest) = (0, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let data = Bytes::from(pattern::bytes(writer, round, LENGTH));
                    let began = Instant::now();
                    disk.write(Lba(writer * 32), data, BlockLength::B512).await.expect("a host's write never fails");
                    slowest = slowest.max(began.elapsed());
                    round += 1;
                    written.fetch_add(1, Ordering::Relaxed);
                }
                (writer, round, slowest)
            }));
        }
    }
    let control = Control::new(target.control());
    let request = SnapshotRequest { target: None, luns: vec![0], range: None, quiet_ms: 0, timeout_ms: 5_000, lease: true };
    let (until, mut taken, mut longest) = (Instant::now() + Duration::from_secs(5), 0, 0);
    while Instant::now() < until {
        let lease = control.snapshot(&request, |_| ()).await.expect("nothing is waited for but the writes in flight");
        longest = longest.max(lease.snapshots[0].held_us);
        // It lives for a while, so that writes copy up.
        tokio::time::sleep(Duration::from_millis(20)).await;
        lease.release(&control).await.unwrap();
        taken += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let disk = Client::connect(&url, Options::named("iqn.2026-01.test:checker")).await.unwrap().unit();
    disk.test_unit_ready().await.unwrap();
    for writer in writers {
        let (writer, rounds, slowest) = writer.await.unwrap();
        assert!(rounds > 0, "writer {writer} never wrote");
        assert!(slowest < Duration::from_secs(4), "a write of writer {writer} took {slowest:?}");
        let found = disk.read(Lba(writer * 32), 32, BlockLength::B512).await.unwrap();
        assert!(found == pattern::bytes(writer, rounds - 1, LENGTH), "writer {writer}");
    }
    assert!(taken >= 10, "only {taken} snapshots");
    assert!(longest < LONGEST_HOLD_US, "writes were held for {longest} µs");
    assert!(written.load(Ordering::Relaxed) > 1_000, "{written:?} writes");
    assert!(control.status().await.unwrap().snapshots.is_empty());
}
