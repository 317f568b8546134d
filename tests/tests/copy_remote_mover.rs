//! A mover on another host, which is a network namespace here: it attaches to the target over TCP, and copies between two disks
//! of Debian's tgt that the target itself never reads. What one had of a copy that dies, another does. Who only pretends to be a
//! mover, or to know the secret, harms nobody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use offhost_tests::control::{set_movers, status};
use offhost_tests::movers::{Far, attach_address, far_mover, prove, secret_file, until};
use offhost_tests::netns::Namespace;
use offhost_tests::programs::{Target, wait};
use offhost_tests::tgt::{NAME, Tgt};
use offhost_tests::{has, pattern, skip};
use protocol::control::{MoverSettings, MoverStatus};
use protocol::mover::attach::{Attaching, Challenge, Intro, Proved, Secret};
use protocol::mover::{VERSION, sealed};
use protocol::scsi::{FieldPointer, LunAddress, Sense, SenseKey};
use protocol::units::Lba;
use protocol::xcopy::cscd::IscsiUnit;
use protocol::xcopy::{CscdDescriptor, CscdName, CscdParameters, List, Segment};
use sim::client::{Client, Options, Reply, TapeRead};

const INITIATOR: &str = "iqn.2026-01.test:orders";
const SECRET: &str = "what-movers-and-target-share";
const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;
const TAPE: u16 = 3;
const RECORD: usize = 64 << 10;
const ON_TAPE: u64 = 16 * MIB;

/// Tables for both: the target's say who may copy, the mover's are its own.
fn tables(portal: &str) -> String {
    [1, 2].map(|lun| table(portal, lun)).concat()
}

fn table(portal: &str, lun: u16) -> String {
    format!("[[remote]]\nportal = \"{portal}\"\ntarget = \"{NAME}\"\nlun = {lun}\ninitiators = [\"{INITIATOR}\"]\n")
}

/// A disk to read and one to write.
fn disks() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    pattern::image(&folder.path().join("from.img"), 71, SIZE / MIB).unwrap();
    std::fs::write(folder.path().join("to.img"), vec![0xDD; SIZE as usize]).unwrap();
    folder
}

fn configure(folder: &Path, attach: &str, remotes: &str) {
    let text = format!(
        "data = \"data\"\n[movers.attach]\nlisten = \"{attach}\"\nsecret_file = \"secret\"\n{remotes}\n[[portal]]\nlisten = \"127.0.0.1:0\"\n\
         [[target]]\nname = \"iqn.2026-01.org.offhost:far\"\n[[target.lun]]\nlun = 0\ndisk = \"disk.img\"\nsize = \"1MiB\"\n"
    );
    std::fs::write(folder.join("offhost.toml"), text).unwrap();
}

fn cscd(portal: &str, lun: u16) -> CscdDescriptor {
    let unit = IscsiUnit { portal: portal.parse().unwrap(), lun: LunAddress::from_number(lun) };
    let parameters = match lun {
        TAPE => CscdParameters::Tape { pad: false, fixed: false, block_length: 0 },
        _ => CscdParameters::Block { device_type: 0, pad: false, block_length: 512 },
    };
    CscdDescriptor::named(CscdName::Iscsi(unit), parameters)
}

/// The first [`ON_TAPE`] bytes of the disk to the tape, or of the tape to the other disk.
fn tape_list(portal: &str, back: bool) -> bytes::Bytes {
    let mut list = List::new(1);
    let [from, to] = if back { [TAPE, 2] } else { [1, TAPE] };
    let (source, destination) = (list.cscd(cscd(portal, from)), list.cscd(cscd(portal, to)));
    let blocks = (8 * MIB / 512) as u16;
    for lba in (0..ON_TAPE / 512).step_by(blocks.into()).map(Lba) {
        list.push(match back {
            true => Segment::StreamToBlock { source, destination, transfer_length: RECORD as u32, blocks, to: lba },
            false => Segment::BlockToStream { source, destination, transfer_length: RECORD as u32, blocks, from: lba },
        });
    }
    list.emit().into()
}

fn from_disk_to_disk(portal: &str) -> bytes::Bytes {
    let mut list = List::new(1);
    let (source, destination) = (list.cscd(cscd(portal, 1)), list.cscd(cscd(portal, 2)));
    list.push(Segment::BlockImage { source, destination, blocks: 0, from: Lba(0), to: Lba(0) });
    list.emit().into()
}

/// Who has the disks.
enum Other {
    Tgt(Tgt),
    Ours(Target),
}

impl Other {
    fn portal(&self) -> &str {
        match self {
            Self::Tgt(tgt) => &tgt.portal,
            Self::Ours(target) => &target.portal,
        }
    }
}

/// A target, another one with two disks of [`SIZE`] bytes, and where to start movers.
struct Setup {
    folder: tempfile::TempDir,
    namespace: Option<Namespace>,
    other: Other,
    target: Target,
    client: Client,
    attach: SocketAddr,
}

impl Setup {
    /// Movers are on another host; or why there can be none.
    async fn apart() -> Result<Self, &'static str> {
        if !has("ip") {
            return Err("ip is missing (Debian: iproute2)");
        }
        Self::new(Some(Namespace::new().unwrap().ok_or("no network namespace can be made here")?)).await
    }

    async fn new(namespace: Option<Namespace>) -> Result<Self, &'static str> {
        if !has("tgtd") {
            return Err("tgtd is missing (Debian: tgt)");
        }
        let here = namespace.as_ref().map_or("127.0.0.1", |namespace| &namespace.here).to_owned();
        let folder = disks();
        let tgt = Tgt::start_at(&here, folder.path(), &["from.img", "to.img"], None).unwrap();
        let other = Other::Tgt(tgt.ok_or("tgtd does not run here")?);
        let tables = tables(other.portal());
        Ok(Self::with(folder, namespace, &here, other, &tables, &tables).await)
    }

    /// The disks are those of a target of ours, with a tape as LUN [`TAPE`]. With `accounts` it knows its initiators apart: the target
    /// that copies proves another secret there than movers, and cannot log in under their name.
    async fn beside_ours(accounts: bool) -> Self {
        let folder = disks();
        let path = folder.path();
        let account = |user: &str| format!("user = \"{user}\"\nsecret_file = \"{}\"\n", path.join(user).display());
        let mut text = "data = \"there\"\n[[portal]]\nlisten = \"127.0.0.1:0\"\n[[target]]\n".to_owned();
        text += &format!("name = \"{NAME}\"\n[[target.lun]]\nlun = 1\ndisk = \"from.img\"\n[[target.lun]]\nlun = 2\n");
        text += &format!("disk = \"to.img\"\n[[target.lun]]\nlun = {TAPE}\ntape = \"shelf\"\n");
        for user in ["copy-manager", "mover"].iter().filter(|_| accounts) {
            secret_file(path, user, &format!("only-{user}-knows-this")).unwrap();
            let name = format!("iqn.2026-01.org.offhost:{user}");
            text += &format!("[[target.access]]\ninitiators = [\"{name}\"]\n[target.access.chap]\n{}", account(user));
        }
        std::fs::write(path.join("there.toml"), text).unwrap();
        let other = Other::Ours(Target::configured(path, "there.toml").unwrap());
        let tables = |user| {
            let chap = if accounts { format!("[remote.chap]\n{}", account(user)) } else { String::new() };
            [1, 2, TAPE].map(|lun| table(other.portal(), lun) + &chap).concat()
        };
        let (of_target, of_mover) = (tables("copy-manager"), tables("mover"));
        Self::with(folder, None, "127.0.0.1", other, &of_target, &of_mover).await
    }

    async fn with(
        folder: tempfile::TempDir,
        namespace: Option<Namespace>,
        here: &str,
        other: Other,
        of_target: &str,
        of_mover: &str,
    ) -> Self {
        let path = folder.path();
        secret_file(path, "secret", SECRET).unwrap();
        std::fs::write(path.join("remotes.toml"), of_mover).unwrap();
        configure(path, &format!("{here}:0"), of_target);
        let target = Target::configured(path, "offhost.toml").unwrap();
        let client = Client::connect(&target.url(0).parse().unwrap(), Options::named(INITIATOR)).await.unwrap();
        client.unit().test_unit_ready().await.unwrap();
        let attach = attach_address(&target).unwrap();
        Self { folder, namespace, other, target, client, attach }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn far(&self) -> Far {
        let before = self.movers(true).len();
        let far = Far::start(self.namespace.as_ref(), self.path(), self.attach, "secret").unwrap();
        until("attached", &self.target, || self.movers(true).len() > before).await;
        far
    }

    /// Those of other hosts, or the target's own.
    fn movers(&self, far: bool) -> Vec<MoverStatus> {
        status(&self.target.control()).unwrap().movers.into_iter().filter(|mover| mover.name.is_some() == far).collect()
    }

    /// Bytes that the target's own movers have written.
    fn moved_here(&self) -> u64 {
        self.movers(false).iter().map(|mover| mover.bytes_moved).sum()
    }

    fn far_mover(&self) -> Option<MoverStatus> {
        far_mover(&self.target).unwrap()
    }

    fn list(&self) -> bytes::Bytes {
        from_disk_to_disk(self.other.portal())
    }

    /// A copy that goes on while the test does.
    fn copying(&self) -> tokio::task::JoinHandle<Reply> {
        self.copying_as(self.list())
    }

    fn copying_as(&self, list: bytes::Bytes) -> tokio::task::JoinHandle<Reply> {
        let unit = self.client.unit();
        tokio::spawn(async move { unit.extended_copy_reply(list).await.unwrap() })
    }

    fn throttle(&self, bytes_per_second: Option<u64>) {
        let settings = MoverSettings { bytes_per_second, ..MoverSettings::default() };
        set_movers(&self.target.control(), &settings).unwrap();
    }

    fn is_copied(&self) -> bool {
        std::fs::read(self.path().join("from.img")).unwrap() == std::fs::read(self.path().join("to.img")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_on_another_host_copies_what_only_it_and_the_network_carry() {
    let setup = match Setup::apart().await {
        Ok(setup) => setup,
        Err(why) => skip!("{why}"),
    };
    secret_file(setup.path(), "other", "what-nobody-here-has-ever-heard").unwrap();

    // One that does not know the secret goes as it came.
    let mut stranger = Far::start(setup.namespace.as_ref(), setup.path(), setup.attach, "other").unwrap();
    assert!(!wait(&mut stranger.0, Duration::from_secs(20)).unwrap().success());
    assert!(setup.far_mover().is_none());

    let far = setup.far().await;
    let client = &setup.client;
    let before = client.carried();
    client.unit().extended_copy(setup.list()).await.unwrap_or_else(|error| panic!("{error}: {}", setup.target.log()));
    assert!(setup.is_copied());
    let carried = client.carried();
    assert!(carried.data_out - before.data_out < 512 && carried.data_in == before.data_in);
    let moved = setup.far_mover().unwrap();
    assert_eq!((moved.bytes_moved, moved.bytes_read), (SIZE, SIZE), "{moved:?}");
    assert_eq!(setup.moved_here(), 0, "the target's own mover has moved nothing");
    let seccomp = std::fs::read_to_string(format!("/proc/{}/status", far.process().unwrap())).unwrap();
    assert!(seccomp.lines().any(|line| line == "Seccomp:\t2"), "it is caged: {seccomp}");

    // It is killed in the middle: its session there is ended, and the target's own mover does the rest.
    std::fs::write(setup.path().join("to.img"), vec![0xDD; SIZE as usize]).unwrap();
    setup.throttle(Some(8 * MIB));
    let copying = setup.copying();
    until("moving", &setup.target, || setup.far_mover().is_some_and(|mover| mover.bytes_moved > SIZE + MIB)).await;
    drop(far);
    setup.throttle(None);
    let reply = tokio::time::timeout(Duration::from_secs(30), copying).await.expect("it ends").unwrap();
    reply.good("the copy").unwrap_or_else(|error| panic!("{error}: {}", setup.target.log()));
    assert!(setup.is_copied() && setup.far_mover().is_none() && setup.moved_here() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_movers_of_other_hosts_had_of_a_copy_others_do() {
    let setup = match Setup::new(None).await {
        Ok(setup) => setup,
        Err(why) => skip!("{why}"),
    };
    let (first, second) = (setup.far().await, setup.far().await);
    setup.throttle(Some(4 * MIB));
    let copying = setup.copying();
    until("shared", &setup.target, || setup.movers(true).iter().filter(|mover| mover.bytes_moved > MIB).count() == 2).await;
    assert_eq!(setup.moved_here(), 0);
    // One of them, whose piece the other does; then that one too, in the middle of both.
    drop(first);
    let alone = || setup.movers(true).len() == 1 && setup.target.log().contains("a dead mover's piece is done again");
    until("alone", &setup.target, alone).await;
    let moved = setup.far_mover().unwrap().bytes_moved;
    until("moving", &setup.target, || setup.far_mover().is_some_and(|mover| mover.bytes_moved > moved + MIB)).await;
    assert!(!copying.is_finished());
    drop(second);
    setup.throttle(None);
    let reply = tokio::time::timeout(Duration::from_secs(30), copying).await.expect("it ends").unwrap();
    reply.good("the copy").unwrap_or_else(|error| panic!("{error}: {}", setup.target.log()));
    assert!(setup.is_copied() && setup.moved_here() > 0);
    assert!(setup.target.log().matches("a dead mover's piece is done again").count() >= 2, "{}", setup.target.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_is_not_done_again_while_the_session_of_its_dead_mover_cannot_be_ended() {
    let setup = match Setup::new(None).await {
        Ok(setup) => setup,
        Err(why) => skip!("{why}"),
    };
    let far = setup.far().await;
    setup.throttle(Some(4 * MIB));
    let copying = setup.copying();
    until("moving", &setup.target, || setup.far_mover().is_some_and(|mover| mover.bytes_moved > MIB)).await;
    // What the mover has sent lies there unread, and nobody answers whether it is to be thrown away.
    let Other::Tgt(tgt) = &setup.other else { panic!("it is tgt's") };
    let signal = |signal| kill(Pid::from_raw(tgt.pid()), signal).unwrap();
    signal(Signal::SIGSTOP);
    drop(far);
    let reply = tokio::time::timeout(Duration::from_secs(60), copying).await.expect("it ends").unwrap();
    assert_eq!(reply.sense.unwrap().key, SenseKey::CopyAborted, "{}", setup.target.log());
    assert!(!setup.target.log().contains("a dead mover's piece is done again"));
    signal(Signal::SIGCONT);
    setup.throttle(None);
    setup.client.unit().extended_copy(setup.list()).await.unwrap();
    assert!(setup.is_copied());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_only_its_dead_mover_could_log_in_to_ends_the_copy_and_the_log_says_what_to_do() {
    let setup = Setup::beside_ours(true).await;
    let far = setup.far().await;
    setup.throttle(Some(4 * MIB));
    let copying = setup.copying();
    until("moving", &setup.target, || setup.far_mover().is_some_and(|mover| mover.bytes_moved > MIB)).await;
    drop(far);
    let reply = tokio::time::timeout(Duration::from_secs(60), copying).await.expect("it ends").unwrap();
    let sense = reply.sense.unwrap();
    assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, Sense::COPY_TARGET_DEVICE_NOT_REACHABLE.code), "{sense}");
    let log = setup.target.log();
    assert!(!log.contains("a dead mover's piece is done again"), "{log}");
    let line = log.lines().find(|line| line.contains("may still arrive")).unwrap_or_else(|| panic!("{log}"));
    for said in ["iqn.2026-01.org.offhost:mover", "authorization failure", "under that name", setup.other.portal()] {
        assert!(line.contains(said), "{said}: {line}");
    }
    // The next mover does all of it again.
    setup.throttle(None);
    let far = setup.far().await;
    setup.client.unit().extended_copy(setup.list()).await.unwrap();
    assert!(setup.is_copied());

    // A tape does not go back where nobody can be sure that it stays there.
    setup.throttle(Some(MIB));
    let before = setup.far_mover().unwrap().bytes_moved;
    let copying = setup.copying_as(tape_list(setup.other.portal(), false));
    until("moving", &setup.target, || setup.far_mover().is_some_and(|mover| mover.bytes_moved > before + MIB)).await;
    drop(far);
    let reply = tokio::time::timeout(Duration::from_secs(60), copying).await.expect("it ends").unwrap();
    let sense = reply.sense.unwrap();
    // Its source, whose session is to be ended first.
    let lost = (Sense::COPY_TARGET_DEVICE_NOT_REACHABLE.code, Some(FieldPointer::parameter(16)));
    assert_eq!((sense.code, sense.field), lost, "{sense}");
    assert!(setup.target.log().contains("a dead mover's copy does not begin anew"), "{}", setup.target.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_a_remote_tape_begins_anew_where_the_tape_stood_when_its_mover_is_killed() {
    let setup = Setup::beside_ours(false).await;
    let Other::Ours(other) = &setup.other else { panic!("it is ours") };
    let theirs = Client::connect(&other.url(TAPE).parse().unwrap(), Options::named(INITIATOR)).await.unwrap();
    let drive = theirs.unit();
    drive.test_unit_ready().await.unwrap();
    for record in ["in", "front"] {
        drive.write_record(record.into()).await.unwrap();
    }
    for back in [false, true] {
        let far = setup.far().await;
        setup.throttle(Some(MIB));
        let copying = setup.copying_as(tape_list(setup.other.portal(), back));
        until("moving", &setup.target, || setup.far_mover().is_some_and(|mover| mover.bytes_moved > MIB)).await;
        drop(far);
        setup.throttle(None);
        let reply = tokio::time::timeout(Duration::from_secs(60), copying).await.expect("it ends").unwrap();
        reply.good("the copy").unwrap_or_else(|error| panic!("{error}: {}", setup.target.log()));
        assert_eq!(setup.target.log().matches("a dead mover's copy begins anew").count(), 1 + usize::from(back));
        assert_eq!(setup.moved_here(), ON_TAPE * (1 + u64::from(back)), "all of it is done again");
        assert_eq!(drive.read_position().await.unwrap().object, 2 + ON_TAPE / RECORD as u64);
        drive.locate(2).await.unwrap();
    }
    let [from, to] = ["from.img", "to.img"].map(|name| std::fs::read(setup.path().join(name)).unwrap());
    assert!(from[..ON_TAPE as usize] == to[..ON_TAPE as usize]);
    drive.rewind().await.unwrap();
    let mut wanted = [&b"in"[..], b"front"].into_iter().chain(from[..ON_TAPE as usize].chunks(RECORD));
    loop {
        match drive.read_record(RECORD as u32).await.unwrap() {
            TapeRead::Record(read) => assert!(wanted.next() == Some(&read[..])),
            _ => break assert!(wanted.next().is_none(), "nothing is missing, nor there twice"),
        }
    }
}

/// Takes most of a minute, as long as the silence has to last: run it with `cargo test --test copy_remote_mover -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for timeouts of the network"]
async fn what_a_mover_had_that_is_cut_off_another_does_once_it_must_have_noticed() {
    let setup = match Setup::apart().await {
        Ok(setup) => setup,
        Err(why) => skip!("{why}"),
    };
    let far = setup.far().await;
    let process = far.process();
    setup.throttle(Some(MIB));
    let copying = setup.copying();
    until("moving", &setup.target, || setup.far_mover().is_some_and(|mover| mover.bytes_moved > MIB)).await;
    let namespace = setup.namespace.as_ref().unwrap();
    namespace.cut().unwrap();
    let noticed = Instant::now();
    while far.process() == process {
        assert!(noticed.elapsed() < Duration::from_secs(40) && !copying.is_finished(), "the mover ends first");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    setup.throttle(None);
    let reply = tokio::time::timeout(Duration::from_secs(60), copying).await.expect("it ends").unwrap();
    reply.good("the copy").unwrap_or_else(|error| panic!("{error}: {}", setup.target.log()));
    assert!(setup.is_copied() && setup.moved_here() > 0);

    // The network is back, and so is the mover.
    std::fs::write(setup.path().join("to.img"), vec![0xDD; SIZE as usize]).unwrap();
    namespace.mend().unwrap();
    let back = Instant::now();
    while setup.far_mover().is_none() {
        assert!(back.elapsed() < Duration::from_secs(90), "{}", Far::log(setup.path()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    setup.client.unit().extended_copy(setup.list()).await.unwrap();
    assert!(setup.is_copied());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_comes_again_when_the_target_does_and_stops_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    secret_file(folder, "secret", SECRET).unwrap();
    std::fs::write(folder.join("remotes.toml"), "").unwrap();
    configure(folder, "127.0.0.1:0", "");
    let mut target = Target::configured(folder, "offhost.toml").unwrap();
    let attach = attach_address(&target).unwrap();
    let mut far = Far::start(None, folder, attach, "secret").unwrap();
    until("attached", &target, || far_mover(&target).unwrap().is_some()).await;

    // Killed, and stopped in order; each time it is somebody else who is attached then.
    configure(folder, &attach.to_string(), "");
    for orderly in [false, true] {
        let process = far.process();
        if orderly {
            target.stop().unwrap();
        } else {
            target.kill();
        }
        target = Target::configured(folder, "offhost.toml").unwrap();
        until("attached again", &target, || far_mover(&target).unwrap().is_some()).await;
        assert!(far.process().is_some_and(|now| Some(now) != process), "{}", Far::log(folder));
    }
    assert!(Far::log(folder).contains("not attached: the mover tries again"), "{}", Far::log(folder));

    // The process that is attached is killed alone: it is started again.
    let process = far.process().unwrap();
    kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    until("gone", &target, || far.process() != Some(process)).await;
    until("attached once more", &target, || far_mover(&target).unwrap().is_some()).await;

    let terminate = |far: &Far| kill(Pid::from_raw(far.0.id() as i32), Signal::SIGTERM).unwrap();
    terminate(&far);
    wait(&mut far.0, Duration::from_secs(10)).unwrap();
    until("let go of", &target, || far_mover(&target).unwrap().is_none()).await;

    // Also while it waits for a target that is not there.
    target.stop().unwrap();
    let mut far = Far::start(None, folder, attach, "secret").unwrap();
    let log = || Far::log(folder).matches("tries again").count();
    let (before, limit) = (log(), Instant::now() + Duration::from_secs(30));
    while log() == before {
        assert!(Instant::now() < limit, "{}", Far::log(folder));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    terminate(&far);
    wait(&mut far.0, Duration::from_secs(10)).unwrap();
    assert!(!Far::log(folder).contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_prove_to_be_a_mover_costs_little_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    secret_file(folder, "secret", SECRET).unwrap();
    configure(folder, "127.0.0.1:0", "");
    let target = Target::configured(folder, "offhost.toml").unwrap();
    let attach = attach_address(&target).unwrap();
    let client = Client::connect(&target.url(0).parse().unwrap(), Options::named(INITIATOR)).await.unwrap();
    client.unit().test_unit_ready().await.unwrap();
    let secret = |text: &str| Secret::new(text.as_bytes().to_vec()).unwrap();
    let connect = || {
        let stream = TcpStream::connect(attach).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let is_hung_up_on = |mut stream: TcpStream, what: &str| {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{what}: told {} bytes", rest.len());
        // Hung up, and not only silent.
        assert!(!matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{what}: {read:?}");
    };

    let intro = |nonce: u8| Intro { version: VERSION, name: "liar".into(), nonce: [nonce; 32] };
    let noise = [pattern::bytes(1, 0, 4000), vec![0xFF; 64], vec![250, 0, 0, 0, 1, 2, 3], Vec::new()];
    for (index, bytes) in noise.iter().enumerate() {
        let mut stream = connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        is_hung_up_on(stream, &format!("noise {index}"));
    }
    let stream = connect();
    sealed::send(&stream, &Intro { version: VERSION + 1, ..intro(1) }).unwrap();
    is_hung_up_on(stream, "another version");

    // The proof of a wrong secret; our own challenge sent back as a proof; the proof of another exchange.
    let stream = connect();
    let (attaching, first) = Attaching::new(secret("some-other-secret-of-theirs"), "liar".into(), [2; 32]);
    sealed::send(&stream, &first).unwrap();
    let challenge: Challenge = sealed::receive(&stream).unwrap();
    sealed::send(&stream, &attaching.challenged(challenge).unwrap().1).unwrap();
    is_hung_up_on(stream, "a wrong secret");
    let stream = connect();
    sealed::send(&stream, &intro(3)).unwrap();
    let challenge: Challenge = sealed::receive(&stream).unwrap();
    sealed::send(&stream, &Proved { proof: challenge.nonce }).unwrap();
    is_hung_up_on(stream, "a reflection");
    let (attaching, intro_of_one) = Attaching::new(secret(SECRET), "twice".into(), [4; 32]);
    let stream = connect();
    sealed::send(&stream, &intro_of_one).unwrap();
    let proof = attaching.challenged(sealed::receive(&stream).unwrap()).unwrap().1;
    drop(stream);
    let stream = connect();
    sealed::send(&stream, &intro_of_one).unwrap();
    let _: Challenge = sealed::receive(&stream).unwrap();
    sealed::send(&stream, &proof).unwrap();
    is_hung_up_on(stream, "a proof used twice");

    // Silent ones are let go of, and while they fill all places more are hung up on.
    let silent: Vec<TcpStream> = (0..12).map(|_| connect()).collect();
    let began = Instant::now();
    silent.into_iter().for_each(|stream| is_hung_up_on(stream, "silence"));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());

    // One that knows the secret and then sends what bears no tag of ours is no mover either.
    let (stream, mut seal, _) = prove(attach, SECRET, 5).unwrap();
    let hello = protocol::mover::FromMover::Hello { version: VERSION, buffer_limit: 0, memory_limit: 0 };
    let message = protocol::mover::frame::encode(&hello).unwrap();
    let mut tag = seal.tag(&message);
    tag[0] ^= 1;
    (&stream).write_all(&[&message[..], &tag].concat()).unwrap();
    let mut rest = Vec::new();
    let _ = (&stream).read_to_end(&mut rest);
    assert_eq!(status(&target.control()).unwrap().movers.iter().filter(|mover| mover.name.is_some()).count(), 0);

    client.unit().test_unit_ready().await.unwrap();
    assert!(target.memory().unwrap() < 400 << 10, "KiB");
}
