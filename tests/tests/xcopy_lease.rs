//! The policy `xcopy_view = "lease"` as an agent meets it that knows nothing of it: `foreign/agent.c`, written with libiscsi, backs up a
//! disk to tape while it is written, and restores it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use offhost_tests::agent::offhost;
use offhost_tests::control::status;
use offhost_tests::pattern;
use offhost_tests::programs::{Target, run, wait};
use offhost_tests::{has, skip};
use protocol::control::Status;
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Data, Options};
use tokio::sync::watch;

const RECORD: usize = 65_536;
/// Records of the disks, and those of one command.
const RECORDS: usize = 64;
const AT_ONCE: usize = 16;
const SIZE: usize = RECORDS * RECORD;
/// What the writer writes at a time.
const WRITE: usize = 4096;

const GOOD: i32 = 0x00;
const BUSY: i32 = 0x08;

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The agent, built in `folder`; `None` where it cannot be.
fn build(folder: &Path) -> Option<PathBuf> {
    if !has("cc") || !Path::new("/usr/include/iscsi/iscsi.h").exists() {
        return None;
    }
    let (source, agent) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/agent.c"), folder.join("agent"));
    let words = ["-O1", "-Wall", "-o", agent.to_str()?, source.to_str()?, "-liscsi"];
    run("cc", words).expect("the agent is built");
    Some(agent)
}

/// An agent at work.
struct Agent {
    child: Child,
    input: ChildStdin,
    statuses: Receiver<i32>,
}

impl Agent {
    fn start(program: &Path, target: &Target, what: &str, disk: u16) -> Self {
        let (disk, records, at_once) = (disk.to_string(), RECORDS.to_string(), AT_ONCE.to_string());
        let words = [what, &target.portal, &target.name, &disk, "2", &records, &at_once];
        let mut child = Command::new(program).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (told, statuses) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = told.send(line.parse().unwrap());
            }
        });
        Self { child, input, statuses }
    }

    /// Lets it send its next command.
    fn go(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    /// The status of the command that it sends next.
    fn copy(&mut self) -> i32 {
        self.go();
        self.statuses.recv_timeout(LIMIT).expect("a status within a minute")
    }

    /// Waits for its end and gives its exit code.
    fn end(mut self) -> i32 {
        wait(&mut self.child, LIMIT).unwrap().code().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whoever writes the disk, one write after the other; all that it wrote is remembered in its order.
struct Writer {
    history: Arc<Mutex<Vec<(usize, Bytes)>>>,
    stop: watch::Sender<bool>,
    working: tokio::task::JoinHandle<()>,
}

impl Writer {
    /// `burst` writes anywhere on LUN 0, then a pause, again and again.
    async fn start(target: &Target, burst: u64, pause: Duration) -> Self {
        let client = login(target, 0, "writer").await;
        let (stop, stopped) = watch::channel(false);
        let history = Arc::<Mutex<Vec<(usize, Bytes)>>>::default();
        let remembered = Arc::clone(&history);
        let working = tokio::spawn(async move {
            for number in 0_u64.. {
                if *stopped.borrow() {
                    return;
                }
                // Everywhere in turn: each command of the agent has its share.
                let at = number as usize * 37 % (SIZE / WRITE) * WRITE;
                let data = Bytes::from(pattern::bytes(2, number, WRITE));
                client.unit().write(Lba(at as u64 / 512), data.clone(), BlockLength::B512).await.unwrap();
                remembered.lock().unwrap().push((at, data));
                if number % burst == burst - 1 {
                    tokio::time::sleep(pause).await;
                }
            }
        });
        Self { history, stop, working }
    }

    fn written(&self) -> usize {
        self.history.lock().unwrap().len()
    }

    /// Waits for more writes.
    async fn more(&self, count: usize) {
        let wanted = self.written() + count;
        until("the writer writes", || self.written() >= wanted).await;
    }

    async fn end(self) -> Vec<(usize, Bytes)> {
        self.stop.send(true).unwrap();
        self.working.await.unwrap();
        std::mem::take(&mut *self.history.lock().unwrap())
    }
}

/// After how many of the writes the disk was as `found`, if it ever was.
fn moment(mut disk: Vec<u8>, writes: &[(usize, Bytes)], found: &[u8]) -> Option<usize> {
    let differs = |disk: &[u8], at: usize| disk[at..at + WRITE] != found[at..at + WRITE];
    let mut different = (0..SIZE).step_by(WRITE).filter(|at| differs(&disk, *at)).count();
    for (number, (at, data)) in writes.iter().enumerate() {
        if different == 0 {
            return Some(number);
        }
        different -= usize::from(differs(&disk, *at));
        disk[*at..*at + WRITE].copy_from_slice(data);
        different += usize::from(differs(&disk, *at));
    }
    (different == 0).then_some(writes.len())
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !reached() {
        assert!(Instant::now() < limit, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn login(target: &Target, lun: u16, name: &str) -> Client {
    let client = Client::connect(&target.url(lun).parse().unwrap(), Options::named(format!("iqn.2026-01.test:{name}"))).await;
    let client = client.unwrap();
    client.unit().test_unit_ready().await.unwrap();
    client
}

/// RECOMMENDED COMMAND TIMEOUT of a service action of 83h, in seconds.
async fn recommended_timeout(client: &Client, lun: u16, action: u8) -> u32 {
    let cdb = [0xA3, 0x0C, 0x83, 0x83, 0, action, 0, 0, 2, 0, 0, 0];
    client.lun(lun).test_unit_ready().await.unwrap();
    let told = client.lun(lun).good("REPORT SUPPORTED OPERATION CODES", &cdb, Data::In(512)).await.unwrap().data;
    let descriptor = 4 + usize::from(u16::from_be_bytes([told[2], told[3]]));
    u32::from_be_bytes(*told[descriptor + 8..].first_chunk().unwrap())
}

fn now(target: &Target) -> Status {
    status(&target.control()).unwrap()
}

/// LUN 0 is the disk, LUN 1 another and LUN 2 a tape.
const FILE: &str = r#"data = "data"
[[portal]]
listen = "127.0.0.1:0"
[[target]]
name = "iqn.2026-01.test:foreign"
[[target.lun]]
disk = "live.img"
size = "4MiB"
xcopy_view = "lease"
QUIET
[[target.lun]]
disk = "restored.img"
size = "4MiB"
[[target.lun]]
tape = "shelf"
capacity = "64MiB"
"#;

fn serve(folder: &Path, quiet: &str) -> Target {
    std::fs::write(folder.join("offhost.toml"), FILE.replace("QUIET", quiet)).unwrap();
    Target::configured(folder, "offhost.toml").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_copies_of_an_agent_that_knows_only_standard_commands_read_one_moment_of_a_disk_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let Some(agent) = build(folder.path()) else { skip!("no cc, or no libiscsi-dev") };
    let before = pattern::bytes(1, 0, SIZE);
    std::fs::write(folder.path().join("live.img"), &before).unwrap();
    let target = serve(folder.path(), "quiet = \"200ms\"");
    let writer = Writer::start(&target, 20, Duration::from_millis(600)).await;
    writer.more(20).await;
    let earliest = writer.written();

    let mut backup = Agent::start(&agent, &target, "backup", 0);
    for command in 0..RECORDS / AT_ONCE {
        let status = tokio::task::block_in_place(|| backup.copy());
        assert_eq!(status, GOOD, "command {command}: {}", target.log());
        if command == 0 {
            let leases = now(&target).leases;
            let [lease] = leases.as_slice() else { panic!("one lease, and not {leases:?}") };
            assert_eq!((lease.lun, lease.initiator.as_str(), lease.live), (0, "iqn.2026-01.test:agent", true));
            let told = offhost(&target, &["status"]);
            assert!(told.out.contains("leased to") && told.out.contains("iqn.2026-01.test:agent"), "{}", told.out);
        }
        // More than once around the disk, so that nothing that comes is as it was.
        writer.more(SIZE / WRITE / 16).await;
    }
    let latest = writer.written();
    assert_eq!(tokio::task::block_in_place(|| backup.end()), 0);
    until("the lease ends with its session", || now(&target).leases.is_empty()).await;

    let mut restore = Agent::start(&agent, &target, "restore", 1);
    for command in 0..RECORDS / AT_ONCE {
        assert_eq!(tokio::task::block_in_place(|| restore.copy()), GOOD, "command {command}");
    }
    assert_eq!(tokio::task::block_in_place(|| restore.end()), 0);
    let writes = writer.end().await;
    let restored = std::fs::read(folder.path().join("restored.img")).unwrap();
    let moment = moment(before, &writes, &restored).expect("the disk was never as it was restored");
    assert!((earliest..latest - SIZE / WRITE / 16).contains(&moment), "{moment} is not between {earliest} and {latest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_never_quiet_gives_busy_with_nothing_moved_until_the_policy_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(agent) = build(folder.path()) else { skip!("no cc, or no libiscsi-dev") };
    let target = serve(folder.path(), "quiet = \"5s\"\nquiet_timeout = \"6s\"");
    let client = login(&target, 2, "observer").await;
    // EXTENDED COPY to the tape, whose sources are on other LUNs, and POPULATE TOKEN to the disk.
    let timeouts = (recommended_timeout(&client, 2, 0x00).await, recommended_timeout(&client, 0, 0x10).await);
    // The disk that is not told otherwise may be waited for for 20 s.
    assert_eq!(timeouts, (25_020, 80));
    let writer = Writer::start(&target, u64::MAX, Duration::ZERO).await;

    let mut backup = Agent::start(&agent, &target, "backup", 0);
    backup.go();
    let waits = tokio::task::block_in_place(|| backup.statuses.recv_timeout(Duration::from_secs(2)));
    assert_eq!(waits, Err(RecvTimeoutError::Timeout), "it waits");
    let status = tokio::task::block_in_place(|| backup.statuses.recv_timeout(LIMIT));
    assert_eq!(status, Ok(BUSY));
    assert_eq!(tokio::task::block_in_place(|| backup.end()), 2);
    let position = client.unit().read_position().await.unwrap();
    assert_eq!((position.object, position.beginning), (0, true));
    let told = now(&target);
    assert_eq!((told.copies.segments, told.copies.bytes_moved, told.leases.len()), (0, 0, 0));
    assert_eq!(told.luns[2].tape.as_ref().unwrap().objects, 0, "nothing is on the tape");

    // Live means live, and the other way round, without a new session of anybody.
    offhost(&target, &["lun", "set", "0", "--xcopy-view", "live"]).succeeded();
    let mut live = Agent::start(&agent, &target, "backup", 0);
    assert_eq!(tokio::task::block_in_place(|| live.copy()), GOOD);
    assert_eq!(client.unit().read_position().await.unwrap().object, AT_ONCE as u64);
    assert_eq!(now(&target).leases, []);
    writer.end().await;
    offhost(&target, &["lun", "set", "0", "--xcopy-view", "lease", "--quiet", "100ms"]).succeeded();
    assert_eq!(tokio::task::block_in_place(|| live.copy()), GOOD);
    assert_eq!(now(&target).leases.len(), 1);
    // What is saved is what runs.
    offhost(&target, &["save"]).succeeded();
    let saved = std::fs::read_to_string(folder.path().join("offhost.toml")).unwrap();
    for key in ["xcopy_view = \"lease\"", "quiet = \"100ms\"", "quiet_timeout = \"6s\""] {
        assert!(saved.contains(key), "{saved}");
    }
    let reloaded = offhost(&target, &["reload"]);
    assert!(reloaded.code == 0 && !reloaded.out.contains("changed"), "{reloaded:?}");
    std::fs::write(folder.path().join("offhost.toml"), saved.replace("\"lease\"", "\"live\"")).unwrap();
    let reloaded = offhost(&target, &["reload"]);
    assert!(reloaded.out.contains("changed lun"), "{reloaded:?}");
    assert_eq!(now(&target).leases, [], "a policy that is gone leaves no lease");
}
