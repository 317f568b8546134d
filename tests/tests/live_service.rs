//! The target as a service: what a supervisor is told, how it drains, and how initiators come back.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use offhost_tests::programs::{Target, program};
use offhost_tests::{has, pattern, skip};
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Options};

/// What sd_notify sends to, as a supervisor would open it.
struct Supervisor {
    socket: UnixDatagram,
    path: String,
}

impl Supervisor {
    fn listen(folder: &std::path::Path) -> Self {
        let path = folder.join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned() }
    }

    /// The next message that has a line beginning so.
    fn wait_for(&self, line: &str) -> String {
        let mut message = [0; 4096];
        loop {
            let length = self.socket.recv(&mut message).unwrap_or_else(|error| panic!("no {line}: {error}"));
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if text.lines().any(|said| said.starts_with(line)) {
                return text;
            }
        }
    }
}

async fn client(target: &Target) -> Client {
    Client::connect(&target.url(0).parse().unwrap(), Options::named("iqn.2026-01.test:service")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_told_of_start_reload_life_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::listen(folder.path());
    let file = "data = \"data\"\nlisten = \"127.0.0.1:0\"\n[[lun]]\ndisk = \"a.img\"\nsize = \"1MiB\"\n";
    std::fs::write(folder.path().join("offhost.toml"), file).unwrap();
    let variables = [("NOTIFY_SOCKET", supervisor.path.as_str()), ("WATCHDOG_USEC", "200000")];
    let mut target = Target::start_with(folder.path(), &["--config", "offhost.toml"], &variables).unwrap();
    supervisor.wait_for("READY=1");
    supervisor.wait_for("WATCHDOG=1");
    target.signal(Signal::SIGHUP).unwrap();
    assert!(supervisor.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    supervisor.wait_for("READY=1");
    assert!(target.stop().unwrap().success());
    supervisor.wait_for("STOPPING=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn initiators_log_in_again_after_a_restart_and_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut target = Target::start(folder.path(), &["--disk", "disk.img:16MiB"]).unwrap();
    let portal = target.portal.clone();
    let write = async |client: &Client, index: u64| {
        let data = Bytes::from(pattern::bytes(3, index, 4096));
        client.unit().write(Lba(index * 8), data, BlockLength::B512).await
    };
    let mut written = 0;
    for _ in 0..3 {
        let client = client(&target).await;
        client.unit().test_unit_ready().await.unwrap();
        let stopping = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(100));
            target.stop().map(|status| (status, target))
        });
        while write(&client, written).await.is_ok() {
            written = (written + 1) % 4096;
        }
        let (status, _ended) = stopping.await.unwrap().unwrap();
        assert!(status.success(), "drained: {status}");
        target = Target::start_on(folder.path(), &portal, &["--disk", "disk.img:16MiB"]).unwrap();
    }
    let client = client(&target).await;
    client.unit().test_unit_ready().await.unwrap();
    assert!(written > 0);
    for index in 0..written {
        let found = client.unit().read(Lba(index * 8), 8, BlockLength::B512).await.unwrap();
        assert_eq!(found, pattern::bytes(3, index, 4096), "block {index} was acknowledged");
    }
}

#[test]
fn every_line_of_a_log_in_json_is_an_object_also_those_of_movers() {
    let folder = tempfile::tempdir().unwrap();
    let mut target = Target::start(folder.path(), &["--disk", "a.img:1MiB", "--disk", "b.img:1MiB"]).unwrap();
    let copied = Command::new(program("offhost-sim")).args(["copy", &target.url(0), &target.url(1)]).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert!(target.stop().unwrap().success());
    let log = std::fs::read_to_string(folder.path().join("target.log")).unwrap();
    let said: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(said.iter().all(|line| line["timestamp"].is_string() && line["fields"]["message"].is_string()), "{log}");
    assert!(log.contains("offhost_datamover"), "the mover says that a job begins: {log}");
}

/// What the target and its movers call besides what every service does: a call that the unit refuses fails late and quietly.
const CALLED: [&str; 10] = [
    "seccomp",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "mincore",
    "copy_file_range",
    "fallocate",
    "memfd_create",
    "pidfd_open",
    "ioprio_set",
];

/// The system calls of one entry of `SystemCallFilter=`: itself, or what the sets of this version of systemd hold.
fn system_calls(entry: &str) -> Vec<String> {
    if !entry.starts_with('@') {
        return vec![entry.to_owned()];
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", entry]).output().unwrap();
    assert!(output.status.success(), "{entry}: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let entries = listed.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    entries.flat_map(system_calls).collect()
}

#[test]
fn the_unit_is_understood_by_systemd_and_allows_what_the_programs_call() {
    if !has("systemd-analyze") {
        skip!("systemd-analyze is missing (Debian: systemd)");
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist/offhost-target.service");
    let text = std::fs::read_to_string(unit).unwrap();
    let here = folder.path().join("offhost-target.service");
    std::fs::write(&here, text.replace("/usr/bin/offhost-target", program("offhost-target").to_str().unwrap())).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&here).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Other units of this machine are none of ours.
    let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("offhost-target.service")).collect();
    assert!(of_ours.is_empty(), "{said}");
    let filters = text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
    let allowed: Vec<String> = filters.flat_map(str::split_whitespace).flat_map(system_calls).collect();
    for call in CALLED {
        assert!(allowed.iter().any(|one| one == call), "{call} is refused");
    }
}
