//! Changes of what is served while a session writes and reads: it never sees an error, and each thing told is what happened.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use datamover::agent::control::{Control, ControlError};
use nix::sys::signal::Signal;
use offhost_tests::pattern;
use offhost_tests::pdus::{self, Names};
use offhost_tests::programs::{Target, program, run};
use offhost_tests::skip;
use protocol::control::spec::{AccessSpec, Change, ChapSpec, Effect, LunSpec, PortalSpec, SeenLun, TargetSpec, Verb};
use protocol::iscsi::chap::{Algorithm, Secret};
use protocol::scsi::Status;
use sim::client::{Authentication, Client, Data, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HOST: &str = "iqn.2026-01.test:host";
const A: &str = "iqn.2026-01.test:a";
const B: &str = "iqn.2026-01.test:b";
const BLOCK: usize = 512;

const FILE: &str = r#"data = "data"
[[portal]]
listen = "127.0.0.1:0"
[[target]]
name = "iqn.2026-01.test:a"
[[target.lun]]
disk = "a.img"
size = "16MiB"
"#;

/// A target with one disk from a file.
fn served(folder: &Path) -> (Target, Control) {
    std::fs::write(folder.join("offhost.toml"), FILE).unwrap();
    start(folder)
}

fn start(folder: &Path) -> (Target, Control) {
    let target = Target::start_with(folder, &["--config", "offhost.toml"], &[]).unwrap();
    let control = Control::new(target.control());
    (target, control)
}

async fn login(portal: &str, target: &str, lun: u16) -> Result<Client, sim::client::ClientError> {
    Client::connect(&format!("iscsi://{portal}/{target}/{lun}").parse().unwrap(), Options::named(HOST)).await
}

fn disk(path: &str) -> LunSpec {
    LunSpec { disk: Some(path.into()), size: Some("4MiB".parse().unwrap()), ..LunSpec::default() }
}

/// Writes and reads back without a pause; a unit attention is told once and the command sent again, as every initiator does.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    working: tokio::task::JoinHandle<Vec<(u8, u8)>>,
}

impl Load {
    fn on(client: Client) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let working = tokio::spawn(async move {
            client.unit().test_unit_ready().await.expect("the disk is ready");
            let mut told = Vec::new();
            let mut round = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let lba = (round % 1024) as u32;
                let data = Bytes::from(pattern::bytes(1, round, BLOCK));
                command(&client, &cdb(0x2A, lba), Data::Out(data.clone()), &mut told).await;
                assert_eq!(command(&client, &cdb(0x28, lba), Data::In(BLOCK as u32), &mut told).await, data, "round {round}");
                round += 1;
                counted.store(round, Ordering::Relaxed);
            }
            told
        });
        Self { stop, rounds, working }
    }

    /// Waits until it has done some more.
    async fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        let more = async {
            while self.rounds.load(Ordering::Relaxed) < before + 3 {
                assert!(!self.working.is_finished(), "the load saw an error");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), more).await.expect("the session goes on");
    }

    /// ASC and ASCQ of what it was told.
    async fn end(self) -> Vec<(u8, u8)> {
        self.stop.store(true, Ordering::Relaxed);
        self.working.await.unwrap()
    }
}

async fn command(client: &Client, cdb: &[u8], data: Data, told: &mut Vec<(u8, u8)>) -> Bytes {
    loop {
        let reply = client.unit().command(cdb, data.clone()).await.expect("the session is never lost");
        if reply.status == Status::Good {
            return reply.data;
        }
        let sense = &reply.sense_data;
        assert_eq!((reply.status, sense[2] & 0x0F), (Status::CheckCondition, 6), "only unit attentions: {reply:?}");
        told.push((sense[12], sense[13]));
    }
}

/// READ(10) or WRITE(10) of one block.
fn cdb(opcode: u8, lba: u32) -> [u8; 10] {
    let [a, b, c, d] = lba.to_be_bytes();
    [opcode, 0, a, b, c, d, 0, 0, 1, 0]
}

fn shown(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn luns_targets_and_portals_come_and_go_beside_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    let load = Load::on(login(&target.portal, A, 0).await.unwrap());
    load.goes_on().await;

    let added = control.change(&[Change::AddLun { target: A.into(), lun: disk("b.img") }]).await.unwrap();
    assert_eq!(shown(&added), [format!("added lun 1 of {A}")]);
    load.goes_on().await;
    let other = login(&target.portal, A, 1).await.unwrap();
    other.unit().test_unit_ready().await.unwrap();
    assert_eq!(other.unit().report_luns().await.unwrap().len(), 2);

    control
        .change(&[Change::AddTarget(TargetSpec { name: B.into(), luns: vec![disk("c.img")], ..TargetSpec::default() })])
        .await
        .unwrap();
    let second = login(&target.portal, B, 0).await.unwrap();
    second.unit().test_unit_ready().await.unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let effects = control.change(&[Change::AddPortal(PortalSpec { listen, advertise: None, tag: 2 })]).await.unwrap();
    let portal = effects[0].portal.expect("a portal tells its port");
    login(&portal.to_string(), B, 0).await.unwrap().unit().test_unit_ready().await.unwrap();
    load.goes_on().await;

    control.change(&[Change::RemovePortal { listen: portal }]).await.unwrap();
    assert!(login(&portal.to_string(), B, 0).await.is_err(), "nobody listens there any more");
    control.change(&[Change::RemoveTarget { target: B.into() }]).await.unwrap();
    assert!(second.unit().test_unit_ready().await.is_err(), "its target is gone");
    assert!(login(&target.portal, B, 0).await.is_err());

    control.change(&[Change::RemoveLun { target: A.into(), lun: 1 }]).await.unwrap();
    let gone = other.unit().command(&[0; 6], Data::None).await.unwrap();
    assert_eq!((gone.sense_data[2], gone.sense_data[12], gone.sense_data[13]), (5, 0x25, 0), "LOGICAL UNIT NOT SUPPORTED");
    assert_eq!(login(&target.portal, A, 0).await.unwrap().unit().report_luns().await.unwrap().len(), 1);
    load.goes_on().await;
    let told = load.end().await;
    assert_eq!(told, [(0x3F, 0x0E); 2], "one LUN came and went");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_removed_lun_can_be_served_again_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    let load = Load::on(login(&target.portal, A, 0).await.unwrap());
    let lun = |number| LunSpec { lun: Some(number), ..disk("b.img") };
    control.change(&[Change::AddLun { target: A.into(), lun: lun(1) }]).await.unwrap();
    let client = login(&target.portal, A, 1).await.unwrap();
    let data = Bytes::from(pattern::bytes(9, 9, BLOCK));
    let mut told = Vec::new();
    command(&client, &cdb(0x2A, 7), Data::Out(data.clone()), &mut told).await;
    // In one step, so that the file is never free for anybody else.
    let moved = [Change::RemoveLun { target: A.into(), lun: 1 }, Change::AddLun { target: A.into(), lun: lun(5) }];
    let effects = control.change(&moved).await.unwrap();
    assert_eq!(
        effects.iter().map(|effect| (effect.verb, effect.lun)).collect::<Vec<_>>(),
        [(Verb::Removed, Some(1)), (Verb::Added, Some(5))]
    );
    let client = login(&target.portal, A, 5).await.unwrap();
    assert_eq!(command(&client, &cdb(0x28, 7), Data::In(BLOCK as u32), &mut told).await, data);
    load.goes_on().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_gets_another_size_under_a_session_that_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    let load = Load::on(login(&target.portal, A, 0).await.unwrap());
    load.goes_on().await;
    let client = login(&target.portal, A, 0).await.unwrap();
    client.unit().test_unit_ready().await.unwrap();
    let lun = LunSpec { lun: Some(0), size: Some("32MiB".parse().unwrap()), ..LunSpec::default() };
    let effects = control.change(&[Change::SetLun { target: A.into(), lun }]).await.unwrap();
    assert_eq!(shown(&effects), [format!("changed lun 0 of {A}")]);
    load.goes_on().await;
    assert_eq!(load.end().await, [(0x2A, 0x09)], "CAPACITY DATA HAS CHANGED");
    client.unit().test_unit_ready().await.unwrap();
    assert_eq!(client.unit().read_capacity().await.unwrap().bytes(), 32 << 20);
    let odd = LunSpec { lun: Some(0), size: Some("1000B".parse().unwrap()), ..LunSpec::default() };
    assert!(control.change(&[Change::SetLun { target: A.into(), lun: odd }]).await.is_err());
    assert_eq!(client.unit().read_capacity().await.unwrap().bytes(), 32 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    let before = control.config().await.unwrap();
    let missing = LunSpec { disk: Some("missing.img".into()), ..LunSpec::default() };
    let add = |lun: LunSpec| Change::AddLun { target: A.into(), lun };
    for changes in [
        vec![add(disk("b.img")), add(missing)],
        vec![add(disk("b.img")), Change::RemoveLun { target: A.into(), lun: 9 }],
        vec![add(disk("b.img")), add(disk("a.img"))],
        vec![
            add(disk("b.img")),
            Change::AddPortal(PortalSpec { listen: target.portal.parse().unwrap(), advertise: None, tag: 1 }),
        ],
        vec![Change::AddTarget(TargetSpec { name: "nonsense".into(), ..TargetSpec::default() })],
        vec![Change::AddAccess { target: A.into(), access: AccessSpec::default() }],
    ] {
        let refused = control.change(&changes).await.unwrap_err();
        assert!(matches!(refused, ControlError::Refused(_)), "{changes:?}: {refused}");
        assert_eq!(control.config().await.unwrap(), before, "{changes:?}");
        assert_eq!(control.status().await.unwrap().luns.len(), 1, "{changes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_list_shuts_out_and_masks_from_the_next_command_on() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    control.change(&[Change::AddLun { target: A.into(), lun: disk("b.img") }]).await.unwrap();
    let client = login(&target.portal, A, 0).await.unwrap();
    assert_eq!(client.unit().report_luns().await.unwrap().len(), 2);
    let entry = |luns| AccessSpec { initiators: vec!["iqn.2026-01.test:*".into()], luns, ..AccessSpec::default() };
    control.change(&[Change::AddAccess { target: A.into(), access: entry(Some(vec![0.into()])) }]).await.unwrap();
    assert_eq!(client.unit().report_luns().await.unwrap().len(), 1, "the other is masked");
    let masked = client.lun(1).command(&[0; 6], Data::None).await.unwrap();
    assert_eq!((masked.sense_data[2], masked.sense_data[12]), (5, 0x25));
    control.change(&[Change::SetAccess { target: A.into(), access: entry(None) }]).await.unwrap();
    assert_eq!(client.unit().report_luns().await.unwrap().len(), 2);
    let stranger = AccessSpec { initiators: vec!["iqn.2026-01.other:*".into()], ..AccessSpec::default() };
    control.change(&[Change::AddAccess { target: A.into(), access: stranger }]).await.unwrap();
    client.unit().report_luns().await.unwrap();
    control.change(&[Change::RemoveAccess { target: A.into(), initiators: vec!["iqn.2026-01.test:*".into()] }]).await.unwrap();
    // A command that was on its way is still answered.
    let closed = async { while client.unit().report_luns().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("its session is closed");
    assert!(login(&target.portal, A, 0).await.is_err(), "and it may not come again");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_initiator_sees_a_lun_under_its_own_number_also_after_a_save_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut target, control) = served(folder.path());
    let offhost = |words: &[&str]| {
        let socket = target.control();
        run(program("offhost"), [words, &["--control", socket.to_str().unwrap()]].concat()).unwrap()
    };
    offhost(&["lun", "add", "--disk", "b.img:4MiB"]);
    let numbers = async |portal: String, host: &str| {
        let url = format!("iscsi://{portal}/{A}/0").parse().unwrap();
        let client = Client::connect(&url, Options::named(host)).await.unwrap();
        let mut seen = Vec::new();
        for lun in client.unit().report_luns().await.unwrap() {
            let number = lun.number().unwrap();
            let unit = client.lun(number);
            unit.test_unit_ready().await.unwrap();
            let written = unit.command(&cdb(0x2A, 0), Data::Out(vec![0; BLOCK].into())).await.unwrap().status == Status::Good;
            seen.push((number, unit.read_capacity().await.unwrap().blocks.0, written));
        }
        seen
    };
    // The disk of the file has 16 MiB, the other 4.
    let (sixteen, four) = (32_768, 8192);
    let own = [(0, sixteen, true), (1, four, true)];
    let turned = [(0, four, true), (7, sixteen, false)];
    offhost(&["access", "add", "iqn.2026-01.test:turned", "--lun", "1=0", "--lun", "0=7,read-only"]);
    offhost(&["access", "add", "iqn.2026-01.test:*"]);
    assert_eq!(numbers(target.portal.clone(), HOST).await, own);
    assert_eq!(numbers(target.portal.clone(), "iqn.2026-01.test:turned").await, turned);
    let listed = offhost(&["access", "list"]);
    assert!(listed.contains("1=0 0=7,read-only"), "{listed}");
    let twice = AccessSpec {
        initiators: vec!["iqn.x:y".into()],
        luns: Some(vec![0.into(), SeenLun::renumbered(1, 0)]),
        ..AccessSpec::default()
    };
    let refused = control.change(&[Change::AddAccess { target: A.into(), access: twice }]).await.unwrap_err();
    assert!(refused.to_string().contains("seen as 0"), "{refused}");
    offhost(&["save"]);
    assert!(target.stop().unwrap().success());

    let (again, control) = start(folder.path());
    assert_eq!(numbers(again.portal.clone(), HOST).await, own);
    assert_eq!(numbers(again.portal.clone(), "iqn.2026-01.test:turned").await, turned);
    assert_eq!(control.reload().await.unwrap(), [], "what runs is what the file says");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_algorithm_that_is_no_longer_allowed_is_not_agreed_to() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "sesame-sesame-1\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let chap = ChapSpec { user: "host".into(), secret_file: secret, ..ChapSpec::default() };
    let access = AccessSpec { initiators: vec!["*".into()], chap: Some(chap), ..AccessSpec::default() };
    control.change(&[Change::AddAccess { target: A.into(), access }]).await.unwrap();
    let log_in = async |algorithm| {
        let secret = Secret::new("sesame-sesame-1").unwrap();
        let authentication = Authentication { algorithms: vec![algorithm], ..Authentication::new("host", secret) };
        let url = format!("iscsi://{}/{A}/0", target.portal).parse().unwrap();
        Client::connect(&url, Options { authentication: Some(authentication), ..Options::named(HOST) }).await.is_ok()
    };
    assert!(log_in(Algorithm::Md5).await && log_in(Algorithm::Sha256).await, "all are allowed when nothing is said");
    let socket = target.control();
    let control_flags = ["--control", socket.to_str().unwrap()];
    let set = ["target", "set", A, "--chap-algorithm", "sha3-256", "--chap-algorithm", "sha256"];
    let said = run(program("offhost"), [&set[..], &control_flags].concat()).unwrap();
    assert!(said.contains("changed access"), "{said}");
    assert!(!log_in(Algorithm::Md5).await && log_in(Algorithm::Sha256).await);
    run(program("offhost"), [&["save"][..], &control_flags].concat()).unwrap();
    let saved = std::fs::read_to_string(folder.path().join("offhost.toml")).unwrap();
    assert!(saved.contains("chap_algorithms = [\"sha3-256\", \"sha256\"]"), "{saved}");
    assert_eq!(control.reload().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_is_served_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut target, control) = served(folder.path());
    let offhost = |words: &[&str]| {
        let socket = target.control();
        run(program("offhost"), [words, &["--control", socket.to_str().unwrap()]].concat()).unwrap()
    };
    offhost(&["lun", "add", "--disk", "b.img:4MiB,block=4096", "--serial", "B-1"]);
    offhost(&["lun", "add", "--tape", "shelf:64MiB"]);
    offhost(&["target", "add", B]);
    offhost(&["access", "add", "iqn.2026-01.test:*", "--lun", "0", "--target", B]);
    offhost(&["portal", "add", "127.0.0.1:0", "--tag", "2"]);
    let listed: serde_json::Value = serde_json::from_str(&offhost(&["lun", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(offhost(&["save"]).contains("offhost.toml"));
    let before = control.config().await.unwrap();
    let names =
        |status: protocol::control::Status| status.luns.into_iter().map(|lun| (lun.target, lun.lun, lun.naa)).collect::<Vec<_>>();
    let luns = names(control.status().await.unwrap());
    assert!(target.stop().unwrap().success());
    assert_eq!(std::fs::read_to_string(folder.path().join("offhost.toml.bak")).unwrap(), FILE);

    let (_again, control) = start(folder.path());
    assert_eq!(control.config().await.unwrap(), before);
    assert_eq!(names(control.status().await.unwrap()), luns);
    assert_eq!(control.reload().await.unwrap(), [], "what runs is what the file says");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_touches_only_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    let load = Load::on(login(&target.portal, A, 0).await.unwrap());
    load.goes_on().await;
    let path = folder.path().join("offhost.toml");
    std::fs::write(&path, format!("{FILE}[[target.lun]]\ndisk = \"b.img\"\nsize = 3\nfoo = 1\n")).unwrap();
    let refused = control.reload().await.unwrap_err().to_string();
    assert!(refused.contains("line 12") && refused.contains("foo"), "{refused}");
    load.goes_on().await;

    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(folder.path().join("conf.d/b.toml"), format!("[[target]]\nname = \"{B}\"\n")).unwrap();
    std::fs::write(&path, format!("{FILE}[[target.lun]]\ndisk = \"b.img\"\nsize = \"4MiB\"\n")).unwrap();
    assert_eq!(shown(&control.reload().await.unwrap()), [format!("added lun 1 of {A}"), format!("added target {B}")]);
    load.goes_on().await;
    // By signal, as a supervisor does it.
    std::fs::write(&path, FILE).unwrap();
    target.signal(Signal::SIGHUP).unwrap();
    let gone = async {
        while control.status().await.unwrap().luns.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("SIGHUP reloads");
    load.goes_on().await;
    assert_eq!(load.end().await, [(0x3F, 0x0E); 2]);
    assert_eq!(target.log().matches("logged in").count(), 1, "the session was never dropped");
}

/// What a login is answered that offers MaxConnections=8.
async fn agreed_connections(target: &Target) -> String {
    let mut stream = TcpStream::connect(&target.portal).await.unwrap();
    let names = Names { initiator: HOST, target: A };
    stream.write_all(&pdus::login(names, 1, &[("MaxConnections", "8")])).await.unwrap();
    let mut header = [0; 48];
    stream.read_exact(&mut header).await.unwrap();
    let mut text = vec![0; u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize];
    stream.read_exact(&mut text).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    text.split('\0').find_map(|pair| pair.strip_prefix("MaxConnections=")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_connections_holds_for_sessions_that_begin_after_it_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (target, control) = served(folder.path());
    let load = Load::on(login(&target.portal, A, 0).await.unwrap());
    assert_eq!(agreed_connections(&target).await, "4", "unless configured otherwise");
    let path = folder.path().join("offhost.toml");
    for (limits, effects, agreed) in [
        ("connections_per_session = 1", &["changed limits"][..], "1"),
        ("connections_per_session = 6\nlogin_seconds = 9", &["changed limits", "at the next start: limits"], "6"),
        ("sessions = 99\nlogin_seconds = 9", &["changed limits"], "4"),
    ] {
        std::fs::write(&path, format!("{FILE}[limits]\n{limits}\n")).unwrap();
        assert_eq!(shown(&control.reload().await.unwrap()), effects, "{limits}");
        assert_eq!(agreed_connections(&target).await, agreed, "{limits}");
    }
    load.goes_on().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_saves_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("offhost.toml"), FILE).unwrap();
    for round in 0..5_u64 {
        let (mut target, control) = start(folder.path());
        let (saved, mut first_saved) = tokio::sync::watch::channel(0);
        let saving = tokio::spawn(async move {
            for number in 0_u16.. {
                let access =
                    AccessSpec { initiators: vec![format!("iqn.2026-01.test:{round}-{number}")], ..AccessSpec::default() };
                if control.change(&[Change::AddAccess { target: A.into(), access }]).await.is_err()
                    || control.save().await.is_err()
                {
                    return;
                }
                saved.send_replace(number + 1);
            }
            unreachable!("the target is killed");
        });
        first_saved.wait_for(|saved| *saved > 0).await.expect("saves go on until the kill");
        tokio::time::sleep(Duration::from_millis(31 * round)).await;
        target.kill();
        saving.await.unwrap();
        for name in ["offhost.toml", "offhost.toml.bak"] {
            target::config::read(&folder.path().join(name)).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
}

#[tokio::test]
async fn all_addresses_of_ipv4_and_of_ipv6_are_two_portals_of_one_port() {
    let Ok(probe) = std::net::TcpListener::bind("[::1]:0") else { skip!("no IPv6 here") };
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let folder = tempfile::tempdir().unwrap();
    let rest = FILE.split_once("[[target]]").unwrap().1;
    // In either order.
    for portals in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"]] {
        let portals = portals.map(|address| format!("[[portal]]\nlisten = \"{address}:{port}\"\n")).concat();
        std::fs::write(folder.path().join("offhost.toml"), format!("data = \"data\"\n{portals}[[target]]{rest}")).unwrap();
        let (mut target, _control) = start(folder.path());
        for address in ["127.0.0.1", "[::1]"] {
            login(&format!("{address}:{port}"), A, 0).await.unwrap().logout().await.unwrap();
        }
        target.stop().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_of_all_ipv4_comes_and_goes_beside_one_of_all_ipv6() {
    let Ok(probe) = std::net::TcpListener::bind("[::1]:0") else { skip!("no IPv6 here") };
    drop(probe);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("offhost.toml"), FILE.replace("127.0.0.1", "[::]")).unwrap();
    let (target, control) = start(folder.path());
    let port = target.portal.rsplit_once(':').unwrap().1.to_owned();
    let both = || async {
        for address in ["127.0.0.1", "[::1]"] {
            login(&format!("{address}:{port}"), A, 0).await.unwrap().logout().await.unwrap();
        }
    };
    let load = Load::on(login(&format!("127.0.0.1:{port}"), A, 0).await.unwrap());
    both().await;
    let all_ipv4 = std::net::SocketAddr::from(([0; 4], port.parse().unwrap()));
    let portal = |advertise: &str| PortalSpec { listen: all_ipv4, advertise: Some(advertise.to_owned()), tag: 2 };
    let told = || async {
        let portals = control.status().await.unwrap().portals;
        portals.iter().map(|portal| (portal.listen.is_ipv4(), portal.tag)).collect::<Vec<_>>()
    };
    for round in ["one:1", "two:2"] {
        // What fails later leaves IPv4 where it was.
        let nothing = LunSpec { disk: Some("/nowhere/at/all.img".into()), ..LunSpec::default() };
        let wrong = [Change::AddPortal(portal(round)), Change::AddLun { target: A.into(), lun: nothing }];
        control.change(&wrong).await.unwrap_err();
        both().await;
        assert_eq!(told().await, [(false, 1)]);

        let effects = control.change(&[Change::AddPortal(portal(round))]).await.unwrap();
        assert!(effects.iter().any(|effect| (effect.verb, effect.portal) == (Verb::Added, Some(all_ipv4))), "{effects:?}");
        both().await;
        assert_eq!(told().await, [(false, 1), (true, 2)]);
        // Another target gets no share of the port.
        assert_eq!(std::net::TcpListener::bind(all_ipv4).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

        control.change(&[Change::RemovePortal { listen: all_ipv4 }]).await.unwrap();
        both().await;
        assert_eq!(told().await, [(false, 1)]);
        load.goes_on().await;
    }
    load.end().await;
}
