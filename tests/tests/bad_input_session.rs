//! Sessions that do everything wrong beside one that does nothing wrong: that one sees no error and loses no byte, and the target
//! stays within bounds of memory. How much of its rate is left is measured by the benchmark `wrong_session`.

use std::time::Duration;

use offhost_tests::programs::Target;
use offhost_tests::witness::Witness;
use offhost_tests::wrong::KINDS;
use sim::client::{Client, Options};
use tokio::time::Instant;

/// Of each kind.
const TIME: Duration = Duration::from_millis(700);
/// Of the target process, in KiB.
const MEMORY: u64 = 400 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_everything_wrong_harms_nobody_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "wrong.img:8MiB", "--disk", "witness.img:8MiB"]).unwrap();
    let witness = Witness::start(&target, 1, 1).await.unwrap();
    for wrong in KINDS {
        let sent = wrong.run(&target, Instant::now() + TIME).await;
        assert!(sent > 0, "{}: nothing of it reached the target", wrong.name);
        let memory = target.memory().unwrap();
        assert!(memory < MEMORY, "{}: the target has {memory} KiB", wrong.name);
        witness.goes_on().await;
        let url = target.url(0).parse().unwrap();
        let late = Client::connect(&url, Options::named("iqn.2026-01.test:late")).await;
        let late = late.unwrap_or_else(|error| panic!("{}: nobody comes in any more: {error}", wrong.name));
        late.unit().inquiry().await.unwrap_or_else(|error| panic!("{}: {error}", wrong.name));
    }
    witness.end().await;
}
