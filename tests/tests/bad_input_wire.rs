//! Whatever comes over the wire: EXTENDED COPY lists with flipped bits and cut ends, PDUs that are garbage, too long, half sent, out
//! of order. The target lives within bounds of memory, and a well-behaved session beside it sees no error and loses no byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use offhost_tests::copies::disk_to_tape;
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::iscsi::bhs;
use protocol::scsi::{SenseKey, Status};
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::{CscdDescriptor, List, Segment};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use sim::client::{Client, Options};
use sim::url::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const DISK: u16 = 0;
const OTHER: u16 = 1;
const TAPE: u16 = 2;
/// More than one flipped bit away from the others' numbers.
const WITNESS: u16 = 7;
const FLAGS: [&str; 16] = [
    "--disk",
    "disk.img",
    "--disk",
    "other.img:8MiB",
    "--tape",
    "shelf:256MiB",
    "--disk",
    "3.img:1MiB",
    "--disk",
    "4.img:1MiB",
    "--disk",
    "5.img:1MiB",
    "--disk",
    "6.img:1MiB",
    "--disk",
    "witness.img:8MiB",
];
/// Of the target process, in KiB.
const MEMORY: u64 = 300 << 10;
/// One of the damaged lists asks for two million filemarks.
const ANSWER: Duration = Duration::from_secs(90);

fn start(folder: &std::path::Path) -> Target {
    pattern::image(&folder.join("disk.img"), 51, 8).unwrap();
    Target::start(folder, &FLAGS).unwrap()
}

async fn client(target: &Target, lun: u16, name: &str) -> Client {
    let url: Url = target.url(lun).parse().unwrap();
    let client = Client::connect(&url, Options::named(name)).await.unwrap();
    client.unit().test_unit_ready().await.unwrap();
    client
}

/// Resident memory of a process, in KiB.
fn memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the target lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// A session that does no wrong: it writes and reads back all the time, and counts.
struct Witness {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Witness {
    async fn start(target: &Target) -> Self {
        let disk = client(target, WITNESS, "iqn.2026-01.test:witness").await.unit();
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (place, data) = (Lba(round % 512 * 32), Bytes::from(pattern::bytes(61, round, 16_384)));
                    disk.write(place, data.clone(), BlockLength::B512).await.expect("the witness writes");
                    let found = disk.read(place, 32, BlockLength::B512).await.expect("the witness reads");
                    assert!(found == data, "round {round} of the witness");
                    round += 1;
                }
                // And what it wrote long ago.
                for round in round.saturating_sub(512)..round {
                    let found = disk.read(Lba(round % 512 * 32), 32, BlockLength::B512).await.expect("the witness reads");
                    assert!(found == pattern::bytes(61, round, 16_384), "round {round} of the witness, at the end");
                }
                round
            }
        });
        Self { stop, task }
    }

    async fn end(self, target: &Target) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.task.await.unwrap() > 20, "the witness hardly came to work");
        let memory = memory(target.pid());
        assert!(memory < MEMORY, "the target has {memory} KiB");
    }
}

/// Flips some bits, or cuts the end off, or puts something behind it.
fn damage(valid: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    match random.random_range(0..8) {
        0 => bytes.truncate(random.random_range(0..valid.len())),
        1 => bytes.extend((0..random.random_range(1..64)).map(|_| random.random::<u8>())),
        2 => {
            let from = random.random_range(0..valid.len());
            let to = (from + random.random_range(1..16)).min(valid.len());
            random.fill_bytes(&mut bytes[from..to]);
        }
        flips => {
            for _ in 0..flips - 2 {
                let at = random.random_range(0..valid.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
    }
    bytes
}

async fn valid_lists(client: &Client) -> Vec<Vec<u8>> {
    let designator = async |lun| client.lun(lun).cscd_designator().await.unwrap();
    let mut disks = List::new(2);
    let source = disks.cscd(CscdDescriptor::disk(designator(DISK).await, 512));
    let destination = disks.cscd(CscdDescriptor::disk(designator(OTHER).await, 512));
    let tape = disks.cscd(CscdDescriptor::tape(designator(TAPE).await));
    let (from, to) = (Lba(16), Lba(64));
    disks.push(Segment::BlockToBlock { source, destination, count_of: Default::default(), blocks: 128, from, to });
    disks.push(Segment::Locate { destination: tape, object: 0 });
    disks.push(Segment::EmbeddedToStream { destination: tape, transfer_length: 6, data: b"sesame".to_vec() });
    disks.push(Segment::WriteFilemarks { destination: tape, immediate: true, count: 1 });
    disks.push(Segment::BlockOffsetToBlockOffset { source, destination, bytes: 3000, from, from_offset: 5, to, to_offset: 7 });
    disks.push(Segment::VerifyCscd { source: tape, test_unit_ready: false });
    vec![disk_to_tape(client, DISK, TAPE, 20).await.unwrap().to_vec(), disks.emit_lid1()]
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_copy_lists_end_good_or_with_an_exact_check_condition() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let attacker = client(&target, TAPE, "iqn.2026-01.test:attacker").await;
    for lun in [DISK, OTHER] {
        attacker.lun(lun).test_unit_ready().await.unwrap();
    }
    let witness = Witness::start(&target).await;
    let tape = attacker.unit();
    let lists = valid_lists(&attacker).await;
    for list in &lists {
        tape.rewind().await.unwrap();
        tape.extended_copy(list.clone().into()).await.expect("the lists are valid before they are damaged");
    }
    let (mut good, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let bytes = damage(&lists[seed as usize % lists.len()], &mut random);
        let sent = tokio::time::timeout(ANSWER, tape.extended_copy_reply(bytes.clone().into())).await;
        let reply = sent.unwrap_or_else(|_| panic!("seed {seed}: no end within {ANSWER:?}: {bytes:02x?}")).unwrap();
        match (reply.status, reply.sense) {
            (Status::Good, _) => good += 1,
            (Status::CheckCondition, Some(sense)) => {
                let key = matches!(sense.key, SenseKey::IllegalRequest | SenseKey::CopyAborted);
                assert!(key && sense.code != (0x44, 0), "seed {seed}: {sense:?}");
                refused += 1;
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        if seed % 16 == 0 {
            tape.rewind().await.unwrap();
        }
    }
    assert!(good > 5 && refused > 100, "{good} good, {refused} refused: too little damage or too much");
    tape.rewind().await.unwrap();
    tape.extended_copy(lists[0].clone().into()).await.expect("a valid list after all that");
    witness.end(&target).await;
}

/// A PDU with its length written in the header.
fn pdu(mut header: [u8; bhs::LENGTH], data: &[u8]) -> Vec<u8> {
    header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    let mut bytes = [&header[..], data].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Straight to the full feature phase.
fn login(target: &Target, isid: u32) -> Vec<u8> {
    let mut header = [0; bhs::LENGTH];
    // Immediate login request, transit from the operational stage to the full feature phase.
    (header[0], header[1]) = (0x43, 0x87);
    header[8] = 0x80;
    header[9..13].copy_from_slice(&isid.to_be_bytes());
    header[27] = 1;
    let text = format!(
        "InitiatorName=iqn.2026-01.test:garbage\0TargetName={}\0SessionType=Normal\0InitialR2T=Yes\0ImmediateData=Yes\0",
        target.name
    );
    pdu(header, text.as_bytes())
}

/// A command to LUN 0 that brings or takes so many bytes.
fn command(sn: u8, flags: u8, length: u32, cdb: &[u8], immediate: &[u8]) -> Vec<u8> {
    let mut header = [0; bhs::LENGTH];
    (header[0], header[1]) = (0x01, 0x80 | flags);
    (header[19], header[27]) = (sn, sn);
    header[20..24].copy_from_slice(&length.to_be_bytes());
    header[32..][..cdb.len()].copy_from_slice(cdb);
    pdu(header, immediate)
}

/// Data-Out for a tag, as an R2T that never came might have asked for.
fn data_out(tag: u8, transfer: u32, sn: u32, offset: u32, data: &[u8]) -> Vec<u8> {
    let mut header = [0; bhs::LENGTH];
    (header[0], header[1], header[19]) = (0x05, 0x80, tag);
    header[20..24].copy_from_slice(&transfer.to_be_bytes());
    header[36..40].copy_from_slice(&sn.to_be_bytes());
    header[40..44].copy_from_slice(&offset.to_be_bytes());
    pdu(header, data)
}

const READ: u8 = bhs::READ;
const WRITE: u8 = bhs::WRITE;
/// INQUIRY, READ(10) and WRITE(10) of 8 blocks.
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
const READ_10: [u8; 10] = [0x28, 0, 0, 0, 0, 8, 0, 0, 8, 0];
const WRITE_10: [u8; 10] = [0x2A, 0, 0, 0, 0, 8, 0, 0, 8, 0];

/// What a session may send, piece by piece.
fn valid_session(target: &Target, isid: u32) -> Vec<Vec<u8>> {
    vec![
        login(target, isid),
        command(1, READ, 96, &INQUIRY, &[]),
        command(2, WRITE, 4096, &WRITE_10, &[7; 4096]),
        command(3, READ, 4096, &READ_10, &[]),
    ]
}

/// Sends bytes, reads whatever comes for a moment, and hangs up.
async fn send(target: &Target, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&target.portal).await.expect("the target listens");
    // A target that has hung up in the middle takes no more.
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![0; 65_536];
    let mut got = 0;
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(15), stream.read(&mut answer[got..])).await {
        got += read;
        if read == 0 || got == answer.len() {
            break;
        }
    }
    answer.truncate(got);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pdus_harm_neither_the_target_nor_another_session() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let witness = Witness::start(&target).await;
    let answer = send(&target, &valid_session(&target, 1).concat()).await;
    let responses = answer.windows(2).filter(|bytes| *bytes == [0x21, 0x80]).count();
    assert!(answer.first() == Some(&0x23) && (1..=3).contains(&responses), "the session is valid before it is damaged");

    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pieces = valid_session(&target, 2 + seed as u32);
        let bytes = match seed % 4 {
            // Garbage from the first byte on, and after a sound login.
            0 => {
                let mut garbage = vec![0; random.random_range(1..4096)];
                random.fill_bytes(&mut garbage);
                if seed % 8 == 0 { garbage } else { [&pieces[0][..], &garbage].concat() }
            }
            1 => damage(&pieces.concat(), &mut random),
            // The login is sound; one PDU behind it is not.
            2 => {
                let at = random.random_range(1..pieces.len());
                pieces[at] = damage(&pieces[at], &mut random);
                pieces.concat()
            }
            _ => {
                let at = random.random_range(1..pieces.len());
                let header = damage(&pieces[at][..48], &mut random);
                pieces[at] = [&header[..], &pieces[at][48..]].concat();
                pieces.concat()
            }
        };
        send(&target, &bytes).await;
    }
    witness.end(&target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_is_answered_or_hung_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let witness = Witness::start(&target).await;
    let sound = login(&target, 1);
    let long = |opcode: u8| {
        let mut header = [0; bhs::LENGTH];
        header[0] = opcode;
        header[5..8].fill(0xFF);
        header.to_vec()
    };
    let mut ahs = command(1, READ, 96, &INQUIRY, &[]);
    ahs[4] = 0xFF;
    let mut half_login = login(&target, 2);
    // The text goes on in the next request, which never ends either.
    half_login[1] = 0x44;
    let write = command(1, WRITE, 4096, &WRITE_10, &[]);
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("a login of 16 MiB", [long(0x43), vec![b'A'; 1 << 20]].concat()),
        ("a text key of 16 MiB", [sound.clone(), long(0x44), vec![b'A'; 1 << 20]].concat()),
        ("text that never ends", [half_login.repeat(300)].concat()),
        ("an additional header of 1020 bytes", [sound.clone(), ahs, vec![0xFF; 1020]].concat()),
        ("a command before the login", command(1, READ, 96, &INQUIRY, &[])),
        ("a second login in the session", [sound.clone(), sound.clone()].concat()),
        ("data that nobody asked for", [sound.clone(), data_out(9, 77, 0, 0, &[1; 512])].concat()),
        ("data with a wrong DataSN", [sound.clone(), write.clone(), data_out(1, 0, 5, 0, &[1; 4096])].concat()),
        ("data beyond the end", [sound.clone(), write.clone(), data_out(1, 0, 0, 1 << 20, &[1; 4096])].concat()),
        ("more immediate data than expected", [sound.clone(), command(1, WRITE, 512, &WRITE_10, &[1; 8192])].concat()),
        ("a command far outside the window", [sound.clone(), command(200, READ, 96, &INQUIRY, &[]), vec![0; 48]].concat()),
        ("a write of 4 GiB", [sound.clone(), command(1, WRITE, u32::MAX, &WRITE_10, &[])].concat()),
        ("an opcode of the target's", [sound.clone(), long(0x25)[..5].to_vec(), vec![0; 43]].concat()),
    ];
    let mut before = memory(target.pid());
    for (what, bytes) in &wrong {
        // Each again and again: what is kept of one shows.
        for _ in 0..8 {
            send(&target, bytes).await;
        }
        let now = memory(target.pid());
        assert!(now < before.max(64 << 10) + (64 << 10), "{what}: from {before} to {now} KiB");
        before = before.max(now);
    }
    // Half-open logins and half-sent PDUs, all open at the same time.
    let mut open = Vec::new();
    for index in 0..200_u32 {
        let mut stream = TcpStream::connect(&target.portal).await.expect("the target listens");
        let bytes = [login(&target, 100 + index), command(1, WRITE, 65_536, &WRITE_10, &[1; 4096])].concat();
        let cut = index as usize * bytes.len() / 200;
        let _ = stream.write_all(&bytes[..cut]).await;
        open.push(stream);
    }
    let late = client(&target, DISK, "iqn.2026-01.test:late").await;
    late.unit().read(Lba(0), 8, BlockLength::B512).await.expect("others are served beside half-open logins");
    witness.end(&target).await;
    drop(open);
}
