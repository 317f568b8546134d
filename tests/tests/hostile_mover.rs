//! A mover that lies, asks for what it may not have, and speaks nonsense: the copy it was given fails, or ends without harm; no byte
//! that was not granted changes hands by the target's doing, the target serves on, and the next copy with a good mover succeeds.
//!
//! The target starts a script as its mover: as long as a file lies beside it, that is this program again, in the role the file names,
//! with the socket as standard input; else the real one.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use offhost_tests::control::{set_movers, status};
use offhost_tests::copies::{RECORD, disk_to_disk, disk_to_tape, read_tape};
use offhost_tests::pattern;
use offhost_tests::programs::{Target, program};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use protocol::cartridge::index::SumState;
use protocol::cartridge::report::{Appended, TapeReport};
use protocol::cartridge::sums::RecordSum;
use protocol::cartridge::{ObjectKind, TapePosition};
use protocol::control::MoverSettings;
use protocol::mover::ends::End;
use protocol::mover::{
    Answer, ByMethod, CopyJob, EndIndex, Fault, FaultKind, FromMover, JobId, Outcome, Question, RemoteEnd, RemoteSense, ToMover,
    VERSION, Way, frame,
};
use protocol::scsi::LunAddress;
use protocol::scsi::sense::CopyEnd;
use protocol::units::{ByteRange, Lba};
use protocol::xcopy::cscd::IscsiUnit;
use protocol::xcopy::{CscdDescriptor, CscdName, CscdParameters, List, Segment};
use sim::client::{Client, Options};

const ROLE: &str = "OFFHOST_TEST_HOSTILE_ROLE";
const SIZE: u64 = 4 << 20;
const FROM: u16 = 0;
const TO: u16 = 1;
/// Has nothing to do with it.
const OTHER: u16 = 2;
const TAPE: u16 = 3;

/// This program as the mover.
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut socket = datamover::sys::inherited_socket(0).expect("the target made standard input the socket");
    let _ = hear(&mut socket);
    say(&mut socket, &FromMover::Hello { version: VERSION, buffer_limit: 0, memory_limit: u64::MAX });
    let mut files = Vec::new();
    let job = loop {
        match hear_with(&mut socket, &mut files) {
            Some(ToMover::Job { job, .. }) => break job,
            Some(_) => {}
            None => std::process::exit(0),
        }
    };
    if role == "remote lies" {
        lie_of_remote_ends(&job, files, &mut socket);
    } else {
        misbehave(&role, job.id, &mut socket);
    }
    std::process::exit(0);
}

fn misbehave(role: &str, job: JobId, socket: &mut UnixStream) {
    let copied = FromMover::Done { job, outcome: Outcome::Copied { dropped: false } };
    match role {
        "noise" => send(socket, &pattern::bytes(1, 1, 100_000)),
        "long frame" => send(socket, &u32::MAX.to_le_bytes()),
        "half a frame" => send(socket, &[100, 0, 0, 0, 1, 2, 3]),
        "second hello" => say(socket, &FromMover::Hello { version: VERSION, buffer_limit: 0, memory_limit: 0 }),
        "greed" => {
            let ranges = [(0, 0, 512), (1, SIZE - 512, 1024), (1, u64::MAX - 5, 100), (1, 0, u64::MAX), (2, 0, 512), (9, 0, 1)];
            for (end, start, len) in ranges {
                let question = Question::Grant { end: EndIndex(end), range: ByteRange { start, len } };
                say(socket, &FromMover::Ask { job, question });
                assert!(
                    matches!(hear(socket), Some(ToMover::Answer { answer: Answer::Refused { .. }, .. })),
                    "{end} {start} {len}"
                );
            }
            let question = Question::Append { end: EndIndex(1), at: TapePosition { object: 7, file: 9, offset: 3 } };
            say(socket, &FromMover::Ask { job, question });
            assert!(matches!(hear(socket), Some(ToMover::Answer { answer: Answer::Refused { .. }, .. })));
            say(socket, &FromMover::Done { job, outcome: Outcome::Fault(wild_fault()) });
        }
        "tape lies" => {
            let at = TapePosition::BEGINNING;
            let record = |at| Appended {
                at,
                gap: 0,
                kind: ObjectKind::Record,
                length: 0xFF_FFFF,
                sum_state: SumState::Known,
                sum: RecordSum::default(),
            };
            let appended =
                vec![record(at), record(at), record(TapePosition { object: u64::MAX, file: u64::MAX, offset: u64::MAX })];
            let report =
                TapeReport { appended, position: TapePosition { object: 1 << 60, file: 3, offset: 1 << 62 }, synced: true };
            say(socket, &FromMover::Tape { job, end: EndIndex(1), report });
            say(socket, &copied);
        }
        "strangers" => {
            for other in [0, job.0 + 1, u64::MAX] {
                say(socket, &FromMover::Done { job: JobId(other), outcome: Outcome::Cancelled });
                say(socket, &FromMover::GiveBack { job: JobId(other), end: EndIndex(u16::MAX) });
            }
            let written = ByMethod { reference: u64::MAX, kernel: u64::MAX, buffers: u64::MAX, holes: u64::MAX };
            for segment in [u32::MAX, 0] {
                say(socket, &FromMover::Progress { job, segment, read: u64::MAX, written });
                say(socket, &FromMover::Progress { job, segment, read: 0, written: ByMethod::default() });
            }
            say(socket, &FromMover::Done { job, outcome: Outcome::Fault(wild_fault()) });
        }
        "flood" => {
            for read in 0..200_000 {
                say(socket, &FromMover::Progress { job, segment: 0, read, written: ByMethod::default() });
            }
        }
        "gives up" => {
            let mut job = job;
            loop {
                say(socket, &FromMover::Done { job, outcome: Outcome::Cancelled });
                job = loop {
                    match hear(socket) {
                        Some(ToMover::Job { job, .. }) => break job.id,
                        Some(_) => {}
                        None => return,
                    }
                };
            }
        }
        "random" => random(job, socket),
        other => panic!("no role {other}"),
    }
}

/// With the open session of a remote end in its hands.
fn lie_of_remote_ends(job: &CopyJob, files: Vec<OwnedFd>, socket: &mut UnixStream) {
    let remote = job.ends.iter().zip(0..).find_map(|(end, index)| match end {
        End::Remote(RemoteEnd { way: Way::Open { socket, .. }, .. }) => Some((index, usize::from(socket.0))),
        _ => None,
    });
    let (index, file) = remote.expect("a remote end with an open session");
    let end = EndIndex(index);
    // The remote target gets noise, and then silence on a connection that stays open.
    let mut session = std::fs::File::from(files.into_iter().nth(file).expect("its socket came too"));
    let _ = session.write_all(&pattern::bytes(2, 2, 4096));
    // It is none of the disks whose writes the target grants, and no tape of the target's.
    for question in [
        Question::Grant { end, range: ByteRange { start: 0, len: 512 } },
        Question::Append { end, at: TapePosition::BEGINNING },
        Question::Segment { segment: u32::MAX },
        // It was given a session: there is none of its own making.
        Question::Session { end, initiator_name: "iqn.2026-01.test:hostile".into() },
        Question::Session { end: EndIndex(u16::MAX), initiator_name: "\0".into() },
    ] {
        say(socket, &FromMover::Ask { job: job.id, question: question.clone() });
        assert!(matches!(hear(socket), Some(ToMover::Answer { answer: Answer::Refused { .. }, .. })), "{question:?}");
    }
    say(socket, &FromMover::GiveBack { job: job.id, end });
    let report = TapeReport { appended: Vec::new(), position: TapePosition { object: 1, file: 2, offset: 3 }, synced: true };
    say(socket, &FromMover::Tape { job: job.id, end, report });
    say(socket, &FromMover::Held { job: job.id, data: vec![1; 100_000], discarded: true });
    // Status and sense data that no logical unit ever sends.
    let kind = FaultKind::Remote { status: 0xFF, sense: RemoteSense::new(&[0xFF; 252]) };
    let fault = Fault { segment: u32::MAX, side: Some(CopyEnd::Destination), kind, expected: 0, written: u64::MAX };
    say(socket, &FromMover::Done { job: job.id, outcome: Outcome::Fault(fault) });
}

fn wild_fault() -> Fault {
    Fault { segment: u32::MAX, side: None, kind: FaultKind::Write(i32::MIN), expected: 0, written: u64::MAX }
}

/// Messages that are messages, with anything in them.
fn random(job: JobId, socket: &mut UnixStream) {
    let end = any::<u16>().prop_map(|end| EndIndex(end % 4));
    let range = (any::<u64>(), any::<u64>()).prop_map(|(start, len)| ByteRange { start, len });
    let place =
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(object, file, offset)| TapePosition { object, file, offset });
    let question = prop_oneof![
        (end.clone(), range).prop_map(|(end, range)| Question::Grant { end, range }),
        (end.clone(), place.clone()).prop_map(|(end, at)| Question::Append { end, at }),
        (end.clone(), any::<String>()).prop_map(|(end, initiator_name)| Question::Session { end, initiator_name }),
    ];
    let report =
        (place.clone(), any::<bool>()).prop_map(|(position, synced)| TapeReport { appended: Vec::new(), position, synced });
    let message = prop_oneof![
        question.prop_map(move |question| FromMover::Ask { job, question }),
        end.clone().prop_map(move |end| FromMover::GiveBack { job, end }),
        (end, report).prop_map(move |(end, report)| FromMover::Tape { job, end, report }),
        (any::<u32>(), any::<u64>()).prop_map(move |(segment, read)| FromMover::Progress {
            job,
            segment,
            read,
            written: ByMethod::default()
        }),
    ];
    let mut runner = TestRunner::deterministic();
    for _ in 0..300 {
        let message = message.new_tree(&mut runner).unwrap().current();
        let asks = matches!(message, FromMover::Ask { .. });
        say(socket, &message);
        while asks && matches!(hear(socket), Some(other) if !matches!(other, ToMover::Answer { .. })) {}
    }
    say(socket, &FromMover::Done { job, outcome: Outcome::Fault(wild_fault()) });
}

fn send(socket: &mut UnixStream, bytes: &[u8]) {
    // The target may have hung up already.
    let _ = socket.write_all(bytes);
}

fn say(socket: &mut UnixStream, message: &FromMover) {
    send(socket, &frame::encode(message).unwrap());
}

fn hear(socket: &mut UnixStream) -> Option<ToMover> {
    hear_with(socket, &mut Vec::new())
}

fn hear_with(socket: &mut UnixStream, files: &mut Vec<OwnedFd>) -> Option<ToMover> {
    let mut fill = |into: &mut [u8]| {
        let mut done = 0;
        while done < into.len() {
            match datamover::sys::receive(socket, &mut into[done..], files).ok()? {
                0 => return None,
                read => done += read,
            }
        }
        Some(())
    };
    let mut prefix = [0; frame::PREFIX];
    fill(&mut prefix)?;
    let mut message = vec![0; frame::length(prefix).unwrap()];
    fill(&mut message)?;
    Some(frame::decode(&message).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mover_however_broken_harms_the_target() {
    let folder = tempfile::tempdir().unwrap();
    for (name, seed) in [("from.img", 1), ("to.img", 2), ("other.img", 3)] {
        pattern::image(&folder.path().join(name), seed, SIZE >> 20).unwrap();
    }
    let (script, role_file) = (folder.path().join("mover"), folder.path().join("role"));
    let text = format!(
        "#!/bin/sh\nif [ -e '{role}' ]; then\n  {ROLE}=$(cat '{role}') exec '{this}' --exact child_process --nocapture --test-threads=1\n\
         fi\nexec '{mover}' \"$@\"\n",
        role = role_file.display(),
        this = std::env::current_exe().unwrap().display(),
        mover = program("offhost-mover").display(),
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();

    let there = folder.path().join("there");
    std::fs::create_dir(&there).unwrap();
    pattern::image(&there.join("far.img"), 4, SIZE >> 20).unwrap();
    let far = Target::start(&there, &["--disk", "far.img"]).unwrap();
    let luns = ["disk = \"from.img\"", "disk = \"to.img\"", "disk = \"other.img\"", "tape = \"shelf\""];
    let text = format!(
        "data = \"data\"\nmover = \"{}\"\n[[remote]]\nportal = \"{}\"\ntarget = \"{}\"\nlun = 0\ninitiators = [\"*\"]\n\
         [[portal]]\nlisten = \"127.0.0.1:0\"\n[[target]]\nname = \"iqn.2026-01.test:hostile\"\n{}",
        script.display(),
        far.portal,
        far.name,
        luns.map(|lun| format!("[[target.lun]]\n{lun}\n")).concat()
    );
    std::fs::write(folder.path().join("offhost.toml"), text).unwrap();
    let target = Target::configured(folder.path(), "offhost.toml").unwrap();
    let client = Client::connect(&target.url(FROM).parse().unwrap(), Options::named("iqn.2026-01.test:hostile")).await.unwrap();
    for lun in [FROM, TO, OTHER, TAPE] {
        client.lun(lun).test_unit_ready().await.unwrap();
    }
    let disks = disk_to_disk(&client, (FROM, Lba(0)), (TO, Lba(0)), SIZE).await.unwrap();
    let tape = disk_to_tape(&client, FROM, TAPE, SIZE / u64::from(RECORD)).await.unwrap();
    let to_far = {
        let mut list = List::new(1);
        let source = list.cscd(CscdDescriptor::disk(client.lun(FROM).cscd_designator().await.unwrap(), 512));
        let unit = IscsiUnit { portal: far.portal.parse().unwrap(), lun: LunAddress::from_number(0) };
        let parameters = CscdParameters::Block { device_type: 0, pad: false, block_length: 512 };
        let destination = list.cscd(CscdDescriptor::named(CscdName::Iscsi(unit), parameters));
        list.push(Segment::BlockImage { source, destination, blocks: 0, from: Lba(0), to: Lba(0) });
        Bytes::from(list.emit())
    };
    let image = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let [from, to, other, at_far] = ["from.img", "to.img", "other.img", "there/far.img"].map(image);

    let of_local_ends =
        ["noise", "long frame", "half a frame", "second hello", "greed", "tape lies", "strangers", "flood", "random"];
    let of_remote_ends = ["noise", "half a frame", "greed", "strangers", "random", "remote lies"];
    // To each alone, and a dispersed copy to two of those that end every job at once.
    let local = of_local_ends.into_iter().map(|role| (role, 1)).chain([("gives up", 1), ("gives up", 2)]);
    let local = local.map(|(role, movers)| (role, movers, vec![(TO, &disks), (TAPE, &tape)]));
    for (role, movers, copies) in local.chain(of_remote_ends.into_iter().map(|role| (role, 1, vec![(TO, &to_far)]))) {
        std::fs::write(&role_file, role).unwrap();
        end_movers(&target).await;
        set_movers(&target.control(), &MoverSettings { movers, ..MoverSettings::default() }).unwrap();
        for (lun, list) in copies {
            let ended = tokio::time::timeout(Duration::from_secs(40), client.lun(lun).extended_copy(list.clone())).await;
            let ended = ended.unwrap_or_else(|_| panic!("a copy with {role:?} never ends"));
            assert!(ended.is_err(), "{role:?} copied nothing, and the copy is said to be done");
            client.lun(OTHER).test_unit_ready().await.unwrap();
        }
        assert!(image("from.img") == from && image("to.img") == to && image("other.img") == other, "{role:?}");
        assert!(image("there/far.img") == at_far, "{role:?}");
    }

    std::fs::remove_file(&role_file).unwrap();
    end_movers(&target).await;
    client.lun(TO).extended_copy(disks).await.unwrap();
    client.lun(TO).extended_copy(to_far).await.unwrap();
    assert!(image("to.img") == from && image("there/far.img") == from && image("other.img") == other);
    let drive = client.lun(TAPE);
    let _ = drive.test_unit_ready().await;
    drive.rewind().await.unwrap();
    drive.extended_copy(tape).await.unwrap();
    let mut read = Vec::new();
    read_tape(&client, TAPE, |_, record| read.extend_from_slice(&record)).await.unwrap();
    assert!(read == from);
}

/// The next copy starts a mover anew.
async fn end_movers(target: &Target) {
    for mover in status(&target.control()).unwrap().movers {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(mover.pid as i32), nix::sys::signal::Signal::SIGKILL);
        while status(&target.control()).unwrap().movers.iter().any(|living| living.pid == mover.pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
