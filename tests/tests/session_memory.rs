//! What sessions cost the target: an idle one next to nothing, one that reads nothing no more than it is told.

use std::path::Path;
use std::time::{Duration, Instant};

use offhost_tests::control::status;
use offhost_tests::pdus::{Names, command, login, pdu};
use offhost_tests::programs::Target;
use protocol::control::SessionMemory;
use protocol::iscsi::bhs;
use protocol::scsi::LunAddress;
use sim::client::{Client, Data, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Fewer than the connections that a target takes by default.
const IDLE: u32 = 200;
/// Of the process, for each idle session, in KiB.
const IDLE_KIB: u64 = 64;
/// Beyond what it had before, in KiB: far less than what is asked for.
const DEAF_KIB: u64 = 160 << 10;

/// A session that has asked for something and has its answer.
async fn idle(target: &Target, isid: u32) -> TcpStream {
    let mut stream = TcpStream::connect(&target.portal).await.unwrap();
    let names = Names { initiator: "iqn.2026-01.test:idle", target: &target.name };
    // TEST UNIT READY, which is told of the power on.
    let asked = [login(names, isid, &[]), pdu(command(1, 0, 0, &[0; 6]), &[])].concat();
    stream.write_all(&asked).await.unwrap();
    for _ in 0..2 {
        let mut header = [0; bhs::LENGTH];
        stream.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        stream.read_exact(&mut vec![0; length.next_multiple_of(4)]).await.unwrap();
    }
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_costs_less_than_64_kib() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "disk.img:8MiB"]).unwrap();
    // What the first ones cost once for all.
    let mut sessions = Vec::new();
    for isid in 0..8 {
        sessions.push(idle(&target, isid).await);
    }
    let before = target.memory().unwrap();
    for isid in 8..8 + IDLE {
        sessions.push(idle(&target, isid).await);
    }
    let each = (target.memory().unwrap() - before) / u64::from(IDLE);
    assert!(each < IDLE_KIB, "{each} KiB a session");
    println!("{each} KiB for each of {IDLE} idle sessions");
}

/// 4 GiB are asked for and not read, by sixteen sessions.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_read_nothing_do_not_grow() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "disk.img:16MiB"]).unwrap();
    let before = target.memory().unwrap();
    let mut deaf = Vec::new();
    for isid in 0..16 {
        let mut stream = idle(&target, isid).await;
        // Every other one is immediate: those are no business of the window.
        for number in 2..258 {
            let read = command(number, bhs::READ, 1 << 20, &[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
            let opcode = if number % 2 == 0 { bhs::IMMEDIATE } else { 0 };
            let cmd_sn = number.div_ceil(2).into();
            stream.write_all(&pdu(bhs::ScsiCommand { opcode, cmd_sn, ..read }, &[])).await.unwrap();
        }
        deaf.push(stream);
    }
    // It may take a while until it has done what it does of them.
    let mut last = 0;
    loop {
        let now = target.memory().unwrap();
        assert!(now < before + DEAF_KIB, "from {before} to {now} KiB");
        if now <= last {
            break;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    println!("from {before} to {last} KiB");
    let url = target.url(0).parse().unwrap();
    Client::connect(&url, Options::named("iqn.2026-01.test:late")).await.unwrap().unit().test_unit_ready().await.unwrap();
    // Whoever reads at last finds all that there was room for, whole.
    let mut stream = deaf.pop().unwrap();
    let mut header = [0; bhs::LENGTH];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header[0], 0x25, "Data-In");
}

/// Sessions that together want 128 MiB of a target that may hold 8.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_want_more_than_there_is_are_served_one_command_at_a_time() {
    const SESSIONS: u8 = 8;
    const COMMANDS: u16 = 16;
    const LENGTH: usize = 1 << 20;
    const LIMIT: u64 = 8 << 20;
    let folder = tempfile::tempdir().unwrap();
    let target = Target::configured(folder.path(), &limited(folder.path())).unwrap();
    let session = |number: u8| {
        let (url, options) = (target.url(0), Options::named(format!("iqn.2026-01.test:memory-{number}")));
        async move {
            let client = Client::connect(&url.parse().unwrap(), options).await.unwrap();
            client.unit().command(&[0; 6], Data::None).await.unwrap();
            let data = |command: u16| vec![number ^ (command as u8).wrapping_mul(31); LENGTH];
            // WRITE(10) and READ(10) of 2,048 blocks, all at once.
            let cdb = |opcode, command: u16| {
                let [_, a, b, c] = (2048 * (u32::from(number) * u32::from(COMMANDS) + u32::from(command))).to_be_bytes();
                [opcode, 0, 0, a, b, c, 0, 8, 0, 0]
            };
            for opcode in [0x2A, 0x28] {
                let mut started = Vec::new();
                for command in 0..COMMANDS {
                    let moved = if opcode == 0x2A { Data::Out(data(command).into()) } else { Data::In(LENGTH as u32) };
                    let lun = LunAddress::from_number(0);
                    started.push(client.start(lun, &cdb(opcode, command), moved, Duration::from_secs(60)).await.unwrap());
                }
                for (command, started) in (0..).zip(started) {
                    let got = started.reply().await.unwrap().good("a command of many").unwrap();
                    assert!(opcode == 0x2A || got.data == data(command), "command {command} of session {number}");
                }
            }
        }
    };
    let sessions: tokio::task::JoinSet<()> = (0..SESSIONS).map(session).collect();
    sessions.join_all().await;
    let memory = settled(&target, |held| held == 0).await;
    println!("{memory:?}");
    assert_eq!(memory.limit, LIMIT);
    // Beyond it each has one command that reads, one that writes, and a few receive buffers of 1 MiB.
    assert!(memory.most > LIMIT / 2 && memory.most <= LIMIT + 6 * u64::from(SESSIONS) * LENGTH as u64, "{memory:?}");
}

/// Sessions that send the first burst of one write after another and no more, to a target that may hold 8 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_unasked_is_counted_and_stops_nobody_else() {
    const SESSIONS: u32 = 8;
    const COMMANDS: u32 = 64;
    const BURST: usize = 64 << 10;
    const KEYS: [(&str, &str); 3] = [("InitialR2T", "Yes"), ("ImmediateData", "Yes"), ("FirstBurstLength", "65536")];
    let folder = tempfile::tempdir().unwrap();
    let target = Target::configured(folder.path(), &limited(folder.path())).unwrap();
    let names = Names { initiator: "iqn.2026-01.test:unasked", target: &target.name };
    let before = target.memory().unwrap();
    let mut senders = Vec::new();
    for isid in 0..SESSIONS {
        let mut stream = TcpStream::connect(&target.portal).await.unwrap();
        stream.write_all(&login(names, isid, &KEYS)).await.unwrap();
        for number in 1..=COMMANDS {
            let write = command(number, bhs::WRITE, 1 << 20, &[0x2A, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
            stream.write_all(&pdu(write, &[0xA5; BURST])).await.unwrap();
        }
        senders.push(stream);
    }
    let sent = u64::from(SESSIONS) * u64::from(COMMANDS) * BURST as u64;
    let memory = settled(&target, |held| held >= sent).await;
    let grown = target.memory().unwrap().saturating_sub(before) << 10;
    println!("{sent} bytes were sent, {grown} more are held by the process, counted are {memory:?}");
    assert!(grown < memory.held + (64 << 20), "{grown} bytes, {memory:?}");
    let url = target.url(0).parse().unwrap();
    let client = Client::connect(&url, Options::named("iqn.2026-01.test:beside")).await.unwrap();
    let unit = client.unit();
    unit.command(&[0; 6], Data::None).await.unwrap();
    for opcode in [0x2A, 0x28].repeat(8) {
        let data = vec![0x5A; 1 << 20];
        let moved = if opcode == 0x2A { Data::Out(data.clone().into()) } else { Data::In(1 << 20) };
        let got = unit.command(&[opcode, 0, 0, 0, 0, 0, 0, 8, 0, 0], moved).await.unwrap().good("one of few").unwrap();
        assert!(opcode == 0x2A || got.data == data);
    }
    drop((unit, client, senders));
    assert_eq!(settled(&target, |held| held == 0).await.held, 0);
}

/// A configuration of a target that may hold 8 MiB for its sessions, and a disk of 128 MiB; the name of its file.
fn limited(folder: &Path) -> String {
    let disk = "[[target]]\nname = \"iqn.2026-01.test:memory\"\n[[target.lun]]\ndisk = \"disk.img\"\nsize = \"128MiB\"\n";
    let config = format!("data = \"data\"\n[limits]\nmemory_mib = 8\n[[portal]]\nlisten = \"127.0.0.1:0\"\n{disk}");
    std::fs::write(folder.join("offhost.toml"), config).unwrap();
    "offhost.toml".to_owned()
}

/// What the target counts, once it is as wanted.
async fn settled(target: &Target, wanted: impl Fn(u64) -> bool) -> SessionMemory {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let memory = status(&target.control()).unwrap().memory;
        if wanted(memory.held) {
            return memory;
        }
        assert!(Instant::now() < give_up, "{memory:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
