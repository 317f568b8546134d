//! Whatever comes over the wire: EXTENDED COPY lists with flipped bits and cut ends, PDUs that are garbage, too long, half sent, out
//! of order. The target lives within bounds of memory, and a well-behaved session beside it sees no error and loses no byte.

use std::time::Duration;

use offhost_tests::copies::disk_to_tape;
use offhost_tests::pattern;
use offhost_tests::pdus::{self, INQUIRY, Names, READ_10, WRITE_10, command, data_out, login_header, longest, pdu, text};
use offhost_tests::programs::Target;
use offhost_tests::witness::Witness;
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

async fn witness(target: &Target) -> Witness {
    Witness::start(target, WITNESS, 1).await.unwrap()
}

async fn end(witness: Witness, target: &Target) {
    assert!(witness.end().await > 20, "the witness hardly came to work");
    let memory = target.memory().unwrap();
    assert!(memory < MEMORY, "the target has {memory} KiB");
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
    vec![disk_to_tape(client, DISK, TAPE, 20).await.unwrap().to_vec(), disks.emit()]
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_copy_lists_end_good_or_with_an_exact_check_condition() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let attacker = client(&target, TAPE, "iqn.2026-01.test:attacker").await;
    for lun in [DISK, OTHER] {
        attacker.lun(lun).test_unit_ready().await.unwrap();
    }
    let witness = witness(&target).await;
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
    end(witness, &target).await;
}

/// Straight to the full feature phase.
fn login(target: &Target, isid: u32) -> Vec<u8> {
    let names = Names { initiator: "iqn.2026-01.test:garbage", target: &target.name };
    pdus::login(names, isid, &[("InitialR2T", "Yes"), ("ImmediateData", "Yes")])
}

const READ: u8 = bhs::READ;
const WRITE: u8 = bhs::WRITE;

fn write_of(length: u32, immediate: &[u8]) -> Vec<u8> {
    pdu(command(1, WRITE, length, &WRITE_10), immediate)
}

fn inquiry(number: u32) -> Vec<u8> {
    pdu(command(number, READ, 96, &INQUIRY), &[])
}

/// Data-Out for the command with this tag.
fn data(tag: u32, transfer_tag: u32, data_sn: u32, offset: u32, length: usize) -> Vec<u8> {
    pdu(data_out(tag, transfer_tag, data_sn, offset), &vec![1; length])
}

/// What a session may send, piece by piece.
fn valid_session(target: &Target, isid: u32) -> Vec<Vec<u8>> {
    vec![
        login(target, isid),
        inquiry(1),
        pdu(command(2, WRITE, 4096, &WRITE_10), &[7; 4096]),
        pdu(command(3, READ, 4096, &READ_10), &[]),
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
    let witness = witness(&target).await;
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
    end(witness, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_is_answered_or_hung_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let target = start(folder.path());
    let witness = witness(&target).await;
    let sound = login(&target, 1);
    let mut ahs = inquiry(1);
    ahs[4] = 0xFF;
    let mut half_login = login(&target, 2);
    // The text goes on in the next request, which never ends either.
    half_login[1] = 0x44;
    let write = write_of(4096, &[]);
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("a login of 16 MiB", [longest(login_header(1)), vec![b'A'; 1 << 20]].concat()),
        ("a text key of 16 MiB", [sound.clone(), longest(text(9, bhs::FINAL)), vec![b'A'; 1 << 20]].concat()),
        ("text that never ends", [half_login.repeat(300)].concat()),
        ("an additional header of 1020 bytes", [sound.clone(), ahs, vec![0xFF; 1020]].concat()),
        ("a command before the login", inquiry(1)),
        ("a second login in the session", [sound.clone(), sound.clone()].concat()),
        ("data that nobody asked for", [sound.clone(), data(9, 77, 0, 0, 512)].concat()),
        ("data with a wrong DataSN", [sound.clone(), write.clone(), data(1, 0, 5, 0, 4096)].concat()),
        ("data beyond the end", [sound.clone(), write.clone(), data(1, 0, 0, 1 << 20, 4096)].concat()),
        ("more immediate data than expected", [sound.clone(), write_of(512, &[1; 8192])].concat()),
        ("a command far outside the window", [sound.clone(), inquiry(200), vec![0; 48]].concat()),
        ("a write of 4 GiB", [sound.clone(), write_of(u32::MAX, &[])].concat()),
        ("an opcode of the target's", [sound.clone(), pdu(bhs::DataIn::default(), &[])].concat()),
    ];
    let mut before = target.memory().unwrap();
    for (what, bytes) in &wrong {
        // Each again and again: what is kept of one shows.
        for _ in 0..8 {
            send(&target, bytes).await;
        }
        let now = target.memory().unwrap();
        assert!(now < before.max(64 << 10) + (64 << 10), "{what}: from {before} to {now} KiB");
        before = before.max(now);
    }
    // Half-open logins and half-sent PDUs, all open at the same time.
    let mut open = Vec::new();
    for index in 0..200_u32 {
        let mut stream = TcpStream::connect(&target.portal).await.expect("the target listens");
        let bytes = [login(&target, 100 + index), write_of(65_536, &[1; 4096])].concat();
        let cut = index as usize * bytes.len() / 200;
        let _ = stream.write_all(&bytes[..cut]).await;
        open.push(stream);
    }
    let late = client(&target, DISK, "iqn.2026-01.test:late").await;
    late.unit().read(Lba(0), 8, BlockLength::B512).await.expect("others are served beside half-open logins");
    end(witness, &target).await;
    drop(open);
}
