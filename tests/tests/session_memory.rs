//! What sessions cost the target: an idle one next to nothing, one that reads nothing no more than it is told.

use std::time::Duration;

use offhost_tests::pdus::{Names, command, login, pdu};
use offhost_tests::programs::Target;
use protocol::iscsi::bhs;
use sim::client::{Client, Options};
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
