//! `offhost` as people use it: the demo, what it refuses, single files, a tape that is too small.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use offhost_tests::control;
use offhost_tests::programs::{Target, program};
use protocol::units::{BlockLength, Lba};
use serde_json::Value;
use sim::client::{Client, Options};

const MIB: usize = 1 << 20;

fn offhost(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("offhost"));
    command.args(arguments).current_dir(folder).env("XDG_DATA_HOME", folder.join("catalog"));
    command.env("OFFHOST_CONTROL", folder.join("data/control.sock")).output().expect("offhost starts")
}

/// Exit code and all that was said.
fn code(target: &Target, arguments: &[&str]) -> (Option<i32>, String) {
    let output = offhost(&target.folder, arguments);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn succeed(target: &Target, arguments: &[&str]) -> Value {
    let output = offhost(&target.folder, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "offhost {arguments:?}: {}\n{out}\n{err}\n{}", output.status, target.log());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("offhost {arguments:?} said {out}: {error}"))
}

/// Bytes that are different at every place.
fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

async fn session(target: &Target) -> Client {
    Client::connect(&target.url(0).parse().unwrap(), Options::default()).await.unwrap()
}

fn snapshots(target: &Target) -> usize {
    control::status(&target.control()).unwrap().snapshots.len()
}

#[test]
fn the_demo_goes_the_whole_way() {
    let folder = tempfile::tempdir().unwrap();
    let output = offhost(folder.path(), &["demo", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |name: &str| report["moved"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}"));
    assert_eq!(report["different_stretches"], 0);
    assert!(number("movers") >= 256 << 20);
    assert!(number("agent_sessions") <= number("metadata") + (1 << 20));
    assert!(number("held_us") < 1_000_000);
    // It may run again where it ran, and nowhere else.
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("offhost-demo")).unwrap();
    assert_eq!(offhost(other.path(), &["demo"]).status.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_others_wrote_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.img"), pattern(4 * MIB)).unwrap();
    let target = Target::start(folder.path(), &["--disk", "disk.img", "--tape", "shelf"]).unwrap();
    let (from, tape) = (target.url(0), target.url(1));
    let client = session(&target).await;
    let drive = client.lun(1);
    drive.test_unit_ready().await.unwrap();
    drive.write_record(b"somebody else's".to_vec().into()).await.unwrap();
    drive.write_filemarks(1).await.unwrap();
    drive.write_record(b"and not closed".to_vec().into()).await.unwrap();
    client.logout().await.unwrap();

    let (exit, said) = code(&target, &["backup", "--from", &from, "--to", &tape, "--quiet", "0s"]);
    assert_eq!(exit, Some(5), "{said}");
    assert!(said.contains("--append") && said.contains("--overwrite"), "{said}");
    let of = |target: &Target| {
        let status = control::status(&target.control()).unwrap();
        status.luns.iter().find_map(|lun| lun.tape.as_ref().map(|tape| (tape.objects, tape.object))).unwrap()
    };
    assert_eq!(of(&target), (3, 3), "objects and position are what they were");

    let set = succeed(&target, &["backup", "--from", &from, "--to", &tape, "--quiet", "0s", "--append", "--json"]);
    assert_eq!(set["tape_objects"][0], 4, "behind the open end comes a filemark first");
    let listed = succeed(&target, &["list", "--from", &tape, "--json"]);
    assert_eq!((listed["foreign_files"].as_u64(), listed["sets"].as_array().unwrap().len()), (Some(2), 1));
    let cached = succeed(&target, &["list", "--json"]);
    assert_eq!(cached[0]["header"]["set"], set["header"]["set"], "the local catalog knows the set too");
    assert_eq!(snapshots(&target), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_overwritten_only_when_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let original = pattern(4 * MIB);
    std::fs::write(folder.path().join("disk.img"), &original).unwrap();
    std::fs::write(folder.path().join("other.img"), vec![0xEE; 4 * MIB]).unwrap();
    let disks = ["disk.img", "small.img:2MiB", "blocks.img:4MiB,block=4096", "other.img", "busy.img:4MiB"];
    let mut flags: Vec<&str> = disks.iter().flat_map(|disk| ["--disk", disk]).collect();
    flags.extend(["--tape", "shelf"]);
    let mut target = Target::start(folder.path(), &flags).unwrap();
    let [from, small, blocks, other, busy, tape] = [0, 1, 2, 3, 4, 5].map(|lun| target.url(lun));
    succeed(&target, &["backup", "--from", &from, "--to", &tape, "--quiet", "0s", "--json"]);
    let client = session(&target).await;
    client.lun(4).test_unit_ready().await.unwrap();
    client.lun(4).write(Lba(0), vec![0; 512].into(), BlockLength::B512).await.unwrap();

    for (to, exit, why) in
        [(&small, 1, "larger"), (&blocks, 1, "4096"), (&other, 5, "holds"), (&busy, 5, "wrote"), (&tape, 2, "no disk")]
    {
        let (found, said) = code(&target, &["restore", "--from", &tape, "--to", to, "--latest"]);
        assert_eq!(found, Some(exit), "{to}: {said}");
        assert!(said.contains(why), "{to}: {said}");
    }
    assert_eq!(std::fs::read(folder.path().join("other.img")).unwrap(), vec![0xEE; 4 * MIB]);
    succeed(&target, &["restore", "--from", &tape, "--to", &other, "--overwrite", "--json"]);
    target.stop().unwrap();
    assert!(std::fs::read(folder.path().join("other.img")).unwrap() == original, "the restored disk differs");
}

#[test]
fn one_file_comes_back_into_a_lun_or_to_a_path_and_nothing_beside_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let disk = File::create(folder.path().join("disk.img")).unwrap();
    disk.set_len(datamover::fixture::SIZE).unwrap();
    for piece in datamover::fixture::pieces().unwrap() {
        let (offset, bytes) = piece.unwrap();
        disk.write_all_at(&bytes, offset).unwrap();
    }
    let fill = vec![0xEE; 4 * MIB];
    let other = folder.path().join("other.img");
    let other = File::options().read(true).write(true).create_new(true).open(other).unwrap();
    (0..26).for_each(|n| other.write_all_at(&fill, n * fill.len() as u64).unwrap());
    let target = Target::start(folder.path(), &["--disk", "disk.img", "--tape", "shelf", "--disk", "other.img"]).unwrap();
    let (from, tape, to) = (target.url(0), target.url(1), target.url(2));
    succeed(&target, &["backup", "--from", &from, "--to", &tape, "--quiet", "0s", "--json"]);

    let islands: Vec<u8> = {
        let mut bytes = vec![0; 100_000_000];
        (0..64).for_each(|n| bytes[n * 1_000_000..][..5000].fill(1));
        bytes
    };
    let odd = vec![0; 12_345 * 678];
    for (path, content) in
        [("resident/note.txt", &b"a resident file\n"[..]), ("/fill/odd-size.bin", &odd), ("sparse\\islands.bin", &islands)]
    {
        let report = succeed(&target, &["restore", "--from", &tape, "--file", path, "--to-lun", &to, "--overwrite", "--json"]);
        let through_host = report["payload_through_host"].as_u64().unwrap();
        assert!(through_host <= 1024, "{through_host} bytes of {path} came through the host");
        let mut there = vec![0; content.len() + 512];
        other.read_exact_at(&mut there, 0).unwrap();
        assert!(there[..content.len()] == *content, "{path} on the LUN differs");
        assert!(there[content.len()..].iter().all(|byte| *byte == 0xEE), "what follows {path} was changed");
        (0..26).for_each(|n| other.write_all_at(&fill, n * fill.len() as u64).unwrap());

        let local = folder.path().join("restored");
        succeed(&target, &["restore", "--from", &tape, "--file", path, "--to-path", "restored", "--overwrite", "--json"]);
        assert!(std::fs::read(&local).unwrap() == *content, "{path} at a local path differs");
    }
    let (exit, _) = code(&target, &["restore", "--from", &tape, "--file", "resident/note.txt", "--to-path", "restored"]);
    assert_eq!(exit, Some(5), "a file that exists is replaced only with --overwrite");
    let (exit, said) = code(&target, &["restore", "--from", &tape, "--file", "compressed/text.log", "--to-path", "text"]);
    assert_eq!(exit, Some(1));
    assert!(said.contains("LZNT1") && !folder.path().join("text").exists(), "{said}");
    let (exit, said) = code(&target, &["restore", "--from", &tape, "--file", "note.txt", "--to-path", "text"]);
    assert_eq!(exit, Some(1));
    assert!(said.contains("resident/note.txt"), "the error says what might be meant: {said}");
}

#[test]
fn a_tape_too_small_leaves_a_set_that_is_known_to_be_incomplete() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.img"), pattern(8 * MIB)).unwrap();
    let mut target =
        Target::start(folder.path(), &["--disk", "disk.img", "--tape", "shelf:4MiB", "--disk", "other.img:8MiB"]).unwrap();
    let (from, tape, to) = (target.url(0), target.url(1), target.url(2));
    let (exit, said) = code(&target, &["backup", "--from", &from, "--to", &tape, "--quiet", "0s"]);
    assert_eq!(exit, Some(3), "{said}");
    assert_eq!(snapshots(&target), 0, "the snapshot is released all the same");
    let listed = succeed(&target, &["list", "--from", &tape, "--json"]);
    assert_eq!((listed["sets"].as_array().unwrap().len(), &listed["sets"][0]["trailer"]), (1, &Value::Null), "{listed}");
    let set = listed["sets"][0]["header"]["set"].as_str().unwrap();
    let (exit, said) = code(&target, &["restore", "--from", &tape, "--set", set, "--to", &to]);
    assert_eq!(exit, Some(3), "{said}");
    let (exit, said) = code(&target, &["restore", "--from", &tape, "--latest", "--to", &to]);
    assert_eq!(exit, Some(1), "{said}");
    target.stop().unwrap();
    assert!(std::fs::read(folder.path().join("other.img")).unwrap().iter().all(|byte| *byte == 0), "nothing was restored");
}
