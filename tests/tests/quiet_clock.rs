//! The quiet window on the real clock, with the periods users get: 3 s of quiet, 80 s to wait for it. The exact edges are tested on
//! virtual time, in `target/src/quiet/tests.rs`. The time-out takes its 80 s; by hand:
//!
//!     cargo test -p offhost-tests --test quiet_clock -- --ignored

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::control::{QUIET_MS, TIMEOUT_MS};
use target::snapshot::{Keeper, Request, SnapshotError, SnapshotService, Source};
use target::store::memory::MemoryStore;
use target::volume::Volume;

const SIZE: u64 = 1 << 20;

fn disk() -> (SnapshotService, Arc<Volume>) {
    let service = SnapshotService::with_copy_stores(|size| Ok(Arc::new(MemoryStore::new(size))));
    (service, Volume::new(Arc::new(MemoryStore::new(SIZE))))
}

fn as_users_get_it(volume: &Arc<Volume>) -> Request {
    let source = Source { volume: Arc::clone(volume), range: None, keeper: Keeper::Asker };
    Request { sources: vec![source], quiet: Duration::from_millis(QUIET_MS), timeout: Duration::from_millis(TIMEOUT_MS) }
}

async fn write(volume: &Volume, byte: u8) {
    let admission = volume.admit().await;
    volume.write_at(&admission, 0, &[vec![byte; 512].into()]).expect("memory takes it");
}

#[tokio::test]
async fn pauses_of_2_9_s_are_no_quiet_and_the_snapshot_comes_3_s_after_the_last_write() {
    let (service, volume) = disk();
    write(&volume, 0).await;
    let writer = Arc::clone(&volume);
    let writer = tokio::spawn(async move {
        for byte in 1..=3 {
            tokio::time::sleep(Duration::from_millis(2_900)).await;
            write(&writer, byte).await;
        }
        Instant::now()
    });
    let reads = Arc::clone(&volume);
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                reads.store().read_at(0, &mut [0; 512]).expect("memory reads");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let taken = service.take(as_users_get_it(&volume), |_| ()).await.expect("the writer stops");
    let now = Instant::now();
    let after = now - writer.await.expect("no panic");
    done.store(true, Ordering::Relaxed);
    reader.await.expect("no panic");
    assert!((Duration::from_millis(3_000)..Duration::from_millis(3_300)).contains(&after), "{after:?} after the last write");
    assert_eq!(taken.waiting.writes_seen, 3);
    assert!(taken.waiting.quiet_for >= Duration::from_secs(3) && taken.held < Duration::from_millis(100), "{taken:?}");
}

#[tokio::test]
#[ignore = "takes 80 s"]
async fn a_writer_every_second_makes_it_fail_at_80_s() {
    let (service, volume) = disk();
    let writer = Arc::clone(&volume);
    let writer = tokio::spawn(async move {
        loop {
            write(&writer, 1).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let start = Instant::now();
    let failed = service.take(as_users_get_it(&volume), |_| ()).await.expect_err("there is no quiet");
    let took = start.elapsed();
    writer.abort();
    assert!(matches!(failed, SnapshotError::NeverQuiet(_)), "{failed}");
    assert!((Duration::from_millis(80_000)..Duration::from_millis(80_500)).contains(&took), "{took:?}");
    assert_eq!(volume.quiet().longest_hold, Duration::ZERO, "no write was held");
}
