//! Who gets in, what has to be proved for it, and what is seen then: targets with credentials and access lists, on real sockets,
//! asked by our own initiator and by libiscsi's programs.
//!
//! The server is in this process, so that its lists can change under the sessions. That foreign programs that are not installed
//! are skipped is said aloud.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use offhost_tests::programs::run;
use offhost_tests::{has, pdus, skip};
use protocol::control::spec::LimitsSpec;
use protocol::iscsi::bhs;
use protocol::iscsi::chap::{Account, Algorithm, Credential, Secret, TargetPolicy};
use protocol::iscsi::login::LoginStatus;
use protocol::scsi::Sense;
use protocol::units::{BlockLength, Lba};
use sim::client::{Authentication, Client, ClientError, Options, discover};
use sim::url::{Portal as Address, Url};
use target::access::{Access, Discovery, LunMask, MappedLun, Rule};
use target::lun::Device;
use target::lun::common::{Common, Identity};
use target::lun::disk::Disk;
use target::net::{Portal, Server, Target};
use target::nexus::LunMap;
use target::store::memory::MemoryStore;
use target::volume::Volume;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const NAME: &str = "iqn.2026-11.example:disk";
const OTHER: &str = "iqn.2026-11.example:other";
const HOST: &str = "iqn.2026-11.example.host:a";
const SECRET: &str = "sesame-sesame-1";
const MUTUAL: &str = "open-sesame-two";
/// For what must come.
const SOON: Duration = Duration::from_secs(20);

/// Two targets on one portal. LUN n of the first has n + 1 MiB.
struct World {
    server: Arc<Server>,
    disk: Arc<Target>,
    other: Arc<Target>,
    portal: SocketAddr,
}

fn device(name: &str, mib: u64) -> Device {
    let common = Common::new(Identity::new(NAME, name, "DISK"), None);
    Device::Disk(Disk::new(common, Volume::new(Arc::new(MemoryStore::new(mib << 20))), BlockLength::B512))
}

async fn listen(server: &Arc<Server>, address: &str, portal: Portal) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    server.listen(listener, address, portal);
    Ok(address)
}

impl World {
    async fn new(luns: u16) -> Self {
        let map = Arc::new(LunMap::default());
        for number in 0..luns {
            map.add(number, device(&format!("disk {number}"), u64::from(number) + 1));
        }
        let server = Server::new(&LimitsSpec::default());
        let (disk, other) = (Target::new(NAME, map), Target::new(OTHER, Arc::default()));
        other.luns().add(0, device("other", 9));
        server.add_target(Arc::clone(&disk)).unwrap();
        server.add_target(Arc::clone(&other)).unwrap();
        let portal = listen(&server, "127.0.0.1:0", Portal::default()).await.unwrap();
        Self { server, disk, other, portal }
    }

    fn url(&self, lun: u16) -> Url {
        format!("iscsi://{}/{NAME}/{lun}", self.portal).parse().unwrap()
    }

    fn address(&self) -> Address {
        self.portal.to_string().parse().unwrap()
    }

    async fn log_in(&self, options: Options) -> Result<Client, ClientError> {
        Client::connect(&self.url(0), options).await
    }

    /// Status-Class and Status-Detail of a refused login.
    async fn refusal(&self, options: Options) -> LoginStatus {
        match self.log_in(options).await {
            Err(ClientError::Login { class, detail, .. }) => LoginStatus { class, detail },
            other => panic!("no refusal: {other:?}"),
        }
    }
}

/// Where discovery through a portal finds the first target.
async fn addresses(portal: SocketAddr) -> Vec<String> {
    let found = discover(&portal.to_string().parse().unwrap(), &Options::named(HOST)).await.unwrap();
    found.into_iter().find(|target| target.name == NAME).unwrap().addresses
}

fn credential(user: &str, secret: &str) -> Credential {
    Credential::new(user, Secret::new(secret).unwrap()).unwrap()
}

fn policy(user: &str, mutual: bool, algorithms: &[Algorithm]) -> TargetPolicy {
    let account = Account::new(credential(user, SECRET), mutual.then(|| credential("cave", MUTUAL))).unwrap();
    TargetPolicy { accounts: vec![account], algorithms: algorithms.to_vec() }
}

fn guarded(mutual: bool, algorithms: &[Algorithm]) -> Access {
    Access { authentication: Some(policy("ali", mutual, algorithms)), ..Access::default() }
}

fn proof(secret: &str) -> Authentication {
    Authentication::new("ali", Secret::new(secret).unwrap())
}

fn with(authentication: Authentication) -> Options {
    Options { authentication: Some(authentication), ..Options::named(HOST) }
}

/// What REPORT LUNS says.
async fn luns(client: &Client) -> Vec<u16> {
    client.unit().report_luns().await.unwrap().into_iter().filter_map(|lun| lun.number()).collect()
}

fn rule(initiator: &str, luns: LunMask) -> Rule {
    Rule { initiators: vec![initiator.parse().unwrap()], users: Vec::new(), luns, read_only: false }
}

#[tokio::test]
async fn a_target_with_credentials_lets_in_who_proves_to_have_them() {
    let world = World::new(1).await;
    world.disk.set_access(guarded(true, &Algorithm::ALL));
    for algorithm in Algorithm::ALL {
        let one_way = Authentication { algorithms: vec![algorithm], ..proof(SECRET) };
        let mutual = Authentication { mutual: Some(credential("cave", MUTUAL)), ..one_way.clone() };
        for authentication in [one_way, mutual] {
            let client = world.log_in(with(authentication)).await.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
            client.unit().test_unit_ready().await.unwrap();
            client.logout().await.unwrap();
        }
    }
    let failure = LoginStatus::AUTHENTICATION_FAILURE;
    assert_eq!(world.refusal(Options::named(HOST)).await, failure, "without credentials");
    assert_eq!(world.refusal(with(proof("not-the-secret"))).await, failure, "wrong secret");
    let other = Authentication { user: Some("baba".into()), ..proof(SECRET) };
    assert_eq!(world.refusal(with(other)).await, failure, "wrong name");

    world.disk.set_access(guarded(false, &[Algorithm::Sha256]));
    let old = Authentication { algorithms: vec![Algorithm::Md5], ..proof(SECRET) };
    assert_eq!(world.refusal(with(old)).await, failure, "an algorithm that is not allowed");
    let mutual = Authentication { mutual: Some(credential("cave", MUTUAL)), ..proof(SECRET) };
    assert_eq!(world.refusal(with(mutual)).await, failure, "the target has nothing to prove");
    assert!(world.log_in(with(proof(SECRET))).await.is_ok());
}

#[tokio::test]
async fn an_initiator_stays_away_from_a_target_that_does_not_prove_itself() {
    let world = World::new(1).await;
    let account = Account::new(credential("ali", SECRET), Some(credential("cave", "another-secret"))).unwrap();
    let policy = TargetPolicy { accounts: vec![account], algorithms: Algorithm::ALL.to_vec() };
    world.disk.set_access(Access { authentication: Some(policy), ..Access::default() });
    let mutual = Authentication { mutual: Some(credential("cave", MUTUAL)), ..proof(SECRET) };
    let error = world.log_in(with(mutual.clone())).await.unwrap_err();
    assert!(matches!(error, ClientError::Unproved(_)), "{error}");
    world.disk.set_access(Access::default());
    assert!(world.log_in(with(mutual)).await.is_err(), "an open target proves nothing");
    assert!(world.log_in(with(proof(SECRET))).await.is_ok(), "one-way credentials are offered, not insisted on");
}

#[tokio::test]
async fn each_initiator_sees_the_luns_that_are_its_own() {
    let world = World::new(3).await;
    let renumbered = LunMask::Only(BTreeMap::from([(0, MappedLun { number: 2, read_only: true })]));
    let rules = vec![rule("*:a", LunMask::only([0, 1, 5])), rule("*:b", renumbered)];
    world.disk.set_access(Access { rules, ..Access::default() });
    let a = world.log_in(Options::named("iqn.2026-11.example.host:a")).await.unwrap();
    let b = world.log_in(Options::named("iqn.2026-11.example.host:b")).await.unwrap();
    assert_eq!(luns(&a).await, [0, 1]);
    assert_eq!(luns(&b).await, [0]);
    for unit in [a.lun(0), a.lun(1), b.lun(0)] {
        let _ = unit.test_unit_ready().await;
    }
    let blocks = async |client: &Client, lun| client.lun(lun).read_capacity().await.unwrap().bytes() >> 20;
    assert_eq!((blocks(&a, 0).await, blocks(&a, 1).await, blocks(&b, 0).await), (1, 2, 3));
    assert!(a.lun(2).read_capacity().await.is_err(), "not in its mask");

    a.lun(0).write(Lba(0), vec![7; 512].into(), BlockLength::B512).await.unwrap();
    let refused = b.lun(0).write(Lba(0), vec![7; 512].into(), BlockLength::B512).await.unwrap_err();
    assert_eq!(refused.sense(), Some(&Sense::WRITE_PROTECTED));
    b.lun(0).read(Lba(0), 1, BlockLength::B512).await.unwrap();
}

#[tokio::test]
async fn a_lun_that_comes_later_is_seen_by_those_whose_mask_has_it() {
    let world = World::new(1).await;
    let rules = vec![rule("*:a", LunMask::only([0, 4])), rule("*:b", LunMask::only([0]))];
    world.disk.set_access(Access { rules, ..Access::default() });
    let a = world.log_in(Options::named("iqn.2026-11.example.host:a")).await.unwrap();
    let b = world.log_in(Options::named("iqn.2026-11.example.host:b")).await.unwrap();
    assert_eq!(world.disk.add_lun(4, device("late", 5)), 4);
    assert_eq!(luns(&a).await, [0, 4]);
    assert_eq!(luns(&b).await, [0]);
    world.disk.remove_lun(4).unwrap();
    assert_eq!(luns(&a).await, [0]);
}

#[tokio::test]
async fn refusals_say_why() {
    let world = World::new(1).await;
    let rules = vec![Rule { users: vec!["ali".into()], ..rule("iqn.2026-11.example.host:*", LunMask::All) }];
    world.disk.set_access(Access { rules: rules.clone(), max_sessions: Some(2), ..guarded(false, &Algorithm::ALL) });
    let stranger = Options { initiator_name: "iqn.2026-11.stranger:x".into(), ..with(proof(SECRET)) };
    assert_eq!(world.refusal(stranger).await, LoginStatus::AUTHORIZATION_FAILURE);
    let first = world.log_in(with(proof(SECRET))).await.unwrap();
    let isid = [0x80, 0, 0, 0, 0, 9];
    let _second = world.log_in(Options { isid: Some(isid), ..with(proof(SECRET)) }).await.unwrap();
    assert_eq!(world.refusal(with(proof(SECRET))).await, LoginStatus::OUT_OF_RESOURCES);
    let reinstated = world.log_in(Options { isid: Some(isid), ..with(proof(SECRET)) }).await;
    assert!(reinstated.is_ok(), "a session that takes the place of another is none more");
    first.logout().await.unwrap();

    world.disk.set_access(Access { rules, ..Access::default() });
    assert_eq!(world.refusal(Options::named(HOST)).await, LoginStatus::AUTHORIZATION_FAILURE, "nothing is proved");
    assert!(world.server.remove_target(NAME).is_some());
    assert_eq!(world.refusal(Options::named(HOST)).await, LoginStatus::NOT_FOUND);
}

#[tokio::test]
async fn discovery_tells_of_what_an_initiator_may_use_and_has_credentials_of_its_own() {
    let world = World::new(1).await;
    world.other.set_access(Access { rules: vec![rule("*:b", LunMask::All)], ..Access::default() });
    let names = async |options: &Options| -> Vec<String> {
        discover(&world.address(), options).await.unwrap().into_iter().map(|target| target.name).collect()
    };
    assert_eq!(names(&Options::named("iqn.2026-11.example.host:a")).await, [NAME]);
    assert_eq!(names(&Options::named("iqn.2026-11.example.host:b")).await, [NAME, OTHER]);
    world.server.set_discovery(Discovery { authentication: None, show_all: true });
    assert_eq!(names(&Options::named("iqn.2026-11.example.host:a")).await, [NAME, OTHER]);

    world.server.set_discovery(Discovery { authentication: Some(policy("finder", true, &Algorithm::ALL)), show_all: false });
    let finder = Authentication { user: Some("finder".into()), mutual: Some(credential("cave", MUTUAL)), ..proof(SECRET) };
    assert_eq!(names(&with(finder)).await, [NAME]);
    for wrong in [Options::named(HOST), with(proof(SECRET))] {
        match discover(&world.address(), &wrong).await {
            Err(ClientError::Login { class: 2, detail: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(world.log_in(Options::named(HOST)).await.is_ok(), "the target asks for nothing");
}

#[tokio::test]
async fn portals_are_told_as_they_are_reached_or_as_they_are_advertised() {
    let world = World::new(1).await;
    let advertised = Portal { advertised: Some("storage.example.org:860".into()), tag: 2 };
    listen(&world.server, "127.0.0.1:0", advertised).await.unwrap();
    let everywhere = listen(&world.server, "0.0.0.0:0", Portal { advertised: None, tag: 3 }).await.unwrap();
    let (first, wild) = (world.portal, everywhere.port());
    let mut expected = vec![format!("{first},1"), "storage.example.org:860,2".into(), format!("127.0.0.1:{wild},3")];
    let mut found = addresses(first).await;
    assert_eq!(found[0], expected[0], "the one that was dialled comes first");
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let through_wildcard = addresses(SocketAddr::from(([127, 0, 0, 2], wild))).await;
    assert_eq!(through_wildcard[0], format!("127.0.0.2:{wild},3"), "never the wildcard itself");
}

#[tokio::test]
async fn portals_of_ipv6_are_told_in_brackets_and_reached() {
    let world = World::new(1).await;
    let Ok(v6) = listen(&world.server, "[::1]:0", Portal { advertised: None, tag: 4 }).await else {
        skip!("this machine has no IPv6 loopback");
    };
    let v4_only = listen(&world.server, "0.0.0.0:0", Portal { advertised: None, tag: 5 }).await.unwrap();
    let both = listen(&world.server, "[::]:0", Portal { advertised: None, tag: 6 }).await.unwrap();
    // Behind address translation, of either kind: what is told has nothing to do with what was reached.
    let outside = Portal { advertised: Some("[2001:db8::7]:3260".into()), tag: 7 };
    let translated = listen(&world.server, "127.0.0.1:0", outside).await.unwrap();
    let outside = Portal { advertised: Some("192.0.2.7:3260".into()), tag: 8 };
    let translated_v6 = listen(&world.server, "[::1]:0", outside).await.unwrap();

    let found = addresses(v6).await;
    assert_eq!(found[0], format!("[::1]:{},4", v6.port()), "the one that was dialled comes first");
    let told = |address: String| found.contains(&address);
    assert!(told(format!("[::1]:{},6", both.port())) && told(format!("{},1", world.portal)), "{found:?}");
    assert!(told("[2001:db8::7]:3260,7".into()) && told("192.0.2.7:3260,8".into()), "{found:?}");
    assert!(!found.iter().any(|address| address.ends_with(",5")), "0.0.0.0 is not reached by IPv6: {found:?}");
    assert_eq!(addresses(translated).await[0], "[2001:db8::7]:3260,7");
    assert_eq!(addresses(translated_v6).await[0], "192.0.2.7:3260,8");
    // One socket for both: each initiator is told of the kind that it came by.
    let by_v4 = addresses(SocketAddr::from(([127, 0, 0, 3], both.port()))).await;
    assert_eq!(by_v4[0], format!("127.0.0.3:{},6", both.port()));
    assert!(by_v4.contains(&format!("127.0.0.3:{},5", v4_only.port())));

    for portal in [v6, SocketAddr::new(v6.ip(), both.port()), translated_v6] {
        let url: Url = format!("iscsi://{portal}/{NAME}/0").parse().unwrap();
        Client::connect(&url, Options::named(HOST)).await.unwrap().unit().test_unit_ready().await.unwrap();
    }
    if !has("iscsi-ls") {
        skip!("iscsi-ls of libiscsi is not installed");
    }
    let listed = run_aside("iscsi-ls", vec![format!("iscsi://{v6}")]).await.unwrap();
    assert!(listed.contains(&format!("Target:{NAME} Portal:[::1]:{},4", v6.port())), "{listed}");
}

/// Sessions for discovery that never go have proved nothing: they make room for others, and stay within their own limit.
#[tokio::test]
async fn hundreds_of_idle_discovery_sessions_are_in_nobodys_way() {
    let world = World::new(1).await;
    let witness = world.log_in(Options::named(HOST)).await.unwrap();
    let mut idle = Vec::new();
    for number in 0..300u32 {
        let source = if number % 3 == 0 { [127, 0, 1, (number / 3) as u8 + 1] } else { [127, 0, 0, 1] };
        let mut stream = connect_from(source, world.portal).await;
        let text = format!("InitiatorName={HOST}\0SessionType=Discovery\0");
        let header = bhs::LoginRequest { opcode: bhs::IMMEDIATE, flags: bhs::FINAL | 1 << 2 | 3, ..pdus::login_header(number) };
        stream.write_all(&pdus::pdu(header, text.as_bytes())).await.unwrap();
        let mut answer = [0; bhs::LENGTH];
        stream.read_exact(&mut answer).await.expect("a login response");
        assert_eq!((answer[0], answer[36]), (0x23, 0));
        idle.push(stream);
    }
    assert!(world.server.connection_count() <= 128 + 1, "{} connections", world.server.connection_count());
    assert_eq!(addresses(world.portal).await.len(), 1);
    world.log_in(Options::named("iqn.2026-11.example.host:late")).await.unwrap().unit().test_unit_ready().await.unwrap();
    witness.unit().test_unit_ready().await.unwrap();
}

/// A login request, its length field as given, that leaves its text to be sent.
fn begun_login(length: u32) -> Vec<u8> {
    let mut header = vec![0u8; bhs::LENGTH];
    header[0] = 0x43;
    header[1] = 0x40;
    header[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
    header[8] = 0x80;
    header
}

/// Connects from an address of its own: all of 127/8 is this machine.
async fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn hundreds_of_logins_that_never_end_are_in_nobodys_way() {
    let world = World::new(1).await;
    world.disk.set_access(guarded(false, &Algorithm::ALL));
    let witness = world.log_in(with(proof(SECRET))).await.unwrap();
    let mut slow = Vec::new();
    for number in 0..300u32 {
        // One in three from an address of its own; some say nothing, some half a request.
        let source = if number % 3 == 0 { [127, 0, 1, (number / 3) as u8 + 1] } else { [127, 0, 0, 1] };
        let mut stream = connect_from(source, world.portal).await;
        if number % 2 == 0 {
            stream.write_all(&begun_login(100)[..20 + number as usize % 28]).await.unwrap();
        }
        slow.push(stream);
    }
    // Beside all of them, from the address that most of them have: one session works, others come and go.
    for _ in 0..10 {
        let newcomer =
            tokio::time::timeout(SOON, world.log_in(with(proof(SECRET)))).await.expect("a login among idle ones").unwrap();
        newcomer.unit().test_unit_ready().await.unwrap();
        newcomer.logout().await.unwrap();
        witness.unit().test_unit_ready().await.unwrap();
    }
    // Of the 300 no more than 128 are kept.
    let mut closed = 0;
    for stream in &mut slow {
        let ended = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut [0; 64])).await;
        closed += usize::from(matches!(ended, Ok(Ok(0) | Err(_))));
    }
    assert!(closed >= 300 - 128, "only {closed} had to go");
}

#[tokio::test]
async fn a_login_that_is_too_long_is_ended_and_not_stored() {
    let world = World::new(1).await;
    let mut stream = TcpStream::connect(world.portal).await.unwrap();
    stream.write_all(&begun_login(0xFF_FFFF)).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed at the header, not after 16 MiB");

    // Endless text in pieces that are each as long as they may be.
    let mut stream = TcpStream::connect(world.portal).await.unwrap();
    let endless = async {
        let piece = [begun_login(8192), vec![b'A'; 8192]].concat();
        for sent in 0.. {
            if stream.write_all(&piece).await.is_err() {
                return sent;
            }
            let mut answer = [0; bhs::LENGTH];
            match stream.read_exact(&mut answer).await {
                Ok(_) if answer[36] == 0 => {}
                _ => return sent,
            }
        }
        unreachable!()
    };
    let sent = tokio::time::timeout(SOON, endless).await.expect("ended");
    assert!(sent <= 8, "{sent} pieces of 8 KiB were taken");
}

/// A file with a secret as the programs want it.
fn secret_file(folder: &Path, name: &str, secret: &str) -> PathBuf {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(name);
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "{secret}").unwrap();
    path
}

/// Runs a program to its end on a thread of its own.
async fn run_aside(program: impl Into<PathBuf>, arguments: Vec<String>) -> anyhow::Result<String> {
    let program = program.into();
    tokio::task::spawn_blocking(move || run(program, arguments)).await.unwrap()
}

#[tokio::test]
async fn our_own_programs_take_secrets_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(1).await;
    world.disk.set_access(guarded(true, &Algorithm::ALL));
    let (secret, mutual) = (secret_file(folder.path(), "a", SECRET), secret_file(folder.path(), "b", MUTUAL));
    let open = secret_file(folder.path(), "c", SECRET);
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let url = format!("iscsi://ali@{}/{NAME}/0", world.portal);
    let file = |path: &Path| path.display().to_string();
    let inquire = |more: &[String]| {
        let arguments = [&["inquiry".to_owned(), url.clone()][..], more].concat();
        run_aside(offhost_tests::programs::program("offhost-sim"), arguments)
    };
    let said = inquire(&["--chap-secret-file".into(), file(&secret), "--mutual-user".into(), "cave".into()]).await;
    assert!(said.unwrap_err().to_string().contains("go together"));
    let all = ["--chap-secret-file", &file(&secret), "--mutual-user", "cave", "--mutual-secret-file", &file(&mutual)];
    inquire(&all.map(str::to_owned)).await.unwrap();
    inquire(&["--chap-secret-file".into(), file(&secret), "--chap-algorithm".into(), "sha1,md5".into()]).await.unwrap();
    let said = inquire(&["--chap-secret-file".into(), file(&open)]).await.unwrap_err().to_string();
    assert!(said.contains("0600") && !said.contains(SECRET), "{said}");
    assert!(inquire(&[]).await.unwrap_err().to_string().contains("0201"));
}

#[tokio::test]
async fn the_conformance_suite_finds_nothing_wrong_with_the_authentication() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(1).await;
    world.disk.set_access(guarded(true, &Algorithm::ALL));
    let secret = secret_file(folder.path(), "a", SECRET).display().to_string();
    let url = format!("iscsi://ali@{}/{NAME}/0", world.portal);
    for (filter, cases) in [("login/auth-", 3), ("login/chap-", 7)] {
        let arguments = ["conformance", &url, "--json", "--filter", filter, "--chap-secret-file", &secret].map(str::to_owned);
        let said = run_aside(offhost_tests::programs::program("offhost-sim"), arguments.to_vec()).await.unwrap();
        let reports: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        assert_eq!(reports.iter().filter(|report| report["result"] == "pass").count(), cases, "{said}");
        assert_eq!(reports.len(), cases, "{said}");
    }
}

#[tokio::test]
async fn libiscsi_authenticates_and_finds_the_luns_that_are_shown_to_it() {
    if !has("iscsi-ls") {
        skip!("iscsi-ls is missing (Debian: libiscsi-bin)");
    }
    let world = World::new(3).await;
    world.other.set_access(Access { rules: vec![rule("*:b", LunMask::All)], ..Access::default() });
    let rules = vec![rule("*:libiscsi", LunMask::only([1]))];
    world.disk.set_access(Access { rules, ..guarded(true, &Algorithm::ALL) });
    world.server.set_discovery(Discovery { authentication: Some(policy("ali", true, &Algorithm::ALL)), show_all: false });
    let list = |credentials: String| {
        let url = format!("iscsi://{credentials}{}", world.portal);
        run_aside("iscsi-ls", vec!["-s".into(), "-i".into(), "iqn.2026-11.example:libiscsi".into(), url])
    };
    let listing = list(format!("ali%{SECRET}@")).await.unwrap();
    assert!(listing.contains(NAME) && listing.contains("Lun:1"), "{listing}");
    assert!(!listing.contains("Lun:0") && !listing.contains(OTHER), "{listing}");
    for wrong in [String::new(), "ali%not-the-secret@".into(), format!("baba%{SECRET}@")] {
        assert!(list(wrong.clone()).await.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn libiscsis_own_tests_of_chap_pass() {
    // Debian's 1.19 does not have them; a newer tool is named by the environment.
    let tool = std::env::var("ISCSI_TEST_CU").unwrap_or_else(|_| "iscsi-test-cu".to_owned());
    let known = run_aside(&tool, vec!["--list".into()]).await.unwrap_or_default();
    if !known.contains("iSCSICHAP") {
        skip!("{tool} is missing or has no tests of CHAP (libiscsi of 2020 and later; ISCSI_TEST_CU names one)");
    }
    let world = World::new(1).await;
    for user in ["ali", "0xab12", "0bZm9v"] {
        let authentication = Some(policy(user, false, &Algorithm::ALL));
        world.disk.set_access(Access { authentication, ..Access::default() });
        let url = format!("iscsi://{user}%{SECRET}@{}/{NAME}/0", world.portal);
        let said = run_aside(&tool, vec!["-d".into(), "-n".into(), "-t".into(), "ALL.iSCSICHAP".into(), url]).await;
        let said = said.unwrap_or_else(|error| panic!("{user}: {error}"));
        // Type, total, ran, passed, failed.
        let tests = said.lines().rev().find(|line| line.trim_start().starts_with("tests ")).expect("a summary");
        let counts: Vec<&str> = tests.split_whitespace().skip(1).take(4).collect();
        assert_eq!(counts, ["6", "6", "6", "0"], "{user}: {said}");
    }
}
