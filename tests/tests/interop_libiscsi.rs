//! `iscsi-test-cu`, libiscsi's own suite, against LUNs of every kind that it asks for: Debian's 1.19 (230 tests), or a newer one
//! (246 tests in the middle of 2026) that `ISCSI_TEST_CU` names by its path.
//!
//! Every test has to pass on a LUN that has what it is about. What does not is listed here, with the reason and the line.
//! `cargo test -p offhost-tests --test interop_libiscsi -- --nocapture` prints the verdict of each that did not pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use offhost_tests::programs::{Target, wait};
use offhost_tests::{has, skip};

/// The tool: Debian's, or another version of it by its path in `ISCSI_TEST_CU`.
fn tool() -> String {
    std::env::var("ISCSI_TEST_CU").unwrap_or_else(|_| "iscsi-test-cu".to_owned())
}

/// A test that hangs has failed. Sanitize.Reset looks once a minute whether the operation has ended, which on a busy machine takes
/// more than one.
const LIMIT: Duration = Duration::from_secs(190);

/// Tests that cannot pass, and why. Lines are those of 1.19 and, where they differ or 1.19 passes, of the newer tool.
const TEST_FAULTS: &[(&str, &str)] = &[
    (
        "SCSI.ExtendedCopy.ValidSegDescr",
        "test_extendedcopy_validate_seg_descr.c, its last command: for blocks beyond the end it takes COPY ABORTED with 00h/00h, 08h/04h \
         or 0Dh/02h (copy_aborted_ascqs in iscsi-support.c:98). A command to a CSCD that does not end GOOD is a CSCD command failure, \
         and SPC-4 (5.17.7.4) wants THIRD PARTY DEVICE FAILURE (0Dh/01h) for it, with the sense data of the CSCD (21h/00h) behind",
    ),
    (
        "SCSI.CompareAndWrite.InvalidDataOutSize",
        "test_compareandwrite_invalid_dataout_size.c:34 means to change the CDB of SCSI commands, but its condition leaves just those \
         alone: what it wants refused are two good commands. They end with a miscompare only where another test wrote something else",
    ),
    (
        "SCSI.WriteSame10.UnmapUntilEnd",
        "test_writesame10_unmap_until_end.c:51 sends a block of FFh with UNMAP and wants zeros back; SBC-4 (WRITE SAME(10) command) lets \
         a block be unmapped only if it then reads as the one sent. The 16-byte form of the test sends zeros",
    ),
    (
        "iSCSI.iSCSITMF.LUNResetSimpleAsync",
        "1.19: test_async_lu_reset_simple.c:157 asserts a variable of the client that only its reconnection sets. Newer: line 132 \
         asserts that a command which was just sent is still in the client's queue. Fails on every target",
    ),
    (
        "iSCSI.iSCSITMF.AbortTaskSimpleAsync",
        "newer: test_async_abort_simple.c:132 asserts that a command which was just sent is still in the client's queue. Fails on every \
         target",
    ),
    (
        "iSCSI.iSCSISendTargets.Invalid",
        "newer: sends the key SendTargetsPlease, for which RFC 7143 (6.2) wants NotUnderstood. lib/discovery.c:220 takes every key but \
         two for an error and drops the connection; the test then waits for an answer without a limit (test_iscsi_sendtargets.c:46)",
    ),
    ("SCSI.Sanitize.CryptoErase", "skipped by the test: nothing is encrypted here, so CRYPTO ERASE is not offered"),
    ("SCSI.Sanitize.Readonly", "runs, but skips its part about CRYPTO ERASE"),
    ("SCSI.Sanitize.Reservations", "runs, but skips its part about CRYPTO ERASE"),
];

/// A LUN, and which tests are run on it: all whose name begins with one of these.
const LUNS: &[(&str, &[&str])] = &[
    ("plain.img:128MiB", &["SCSI.", "iSCSI."]),
    (
        "4kn.img:128MiB,block=4096",
        &[
            "SCSI.CompareAndWrite",
            "SCSI.ExtendedCopy",
            "SCSI.GetLBAStatus",
            "SCSI.OrWrite",
            "SCSI.Prefetch",
            "SCSI.Read",
            "SCSI.Unmap",
            "SCSI.Verify",
            "SCSI.Write",
        ],
    ),
    ("512n.img:128MiB,physical-block=512", &["SCSI.GetLBAStatus", "SCSI.Unmap", "SCSI.WriteSame", "SCSI.WriteAtomic16"]),
    ("thick.img:128MiB,thick", &["SCSI.GetLBAStatus", "SCSI.Mandatory", "SCSI.Unmap", "SCSI.WriteSame"]),
    ("removable.img:128MiB,removable", &["SCSI.PreventAllow", "SCSI.StartStopUnit", "SCSI.NoMedia", "SCSI.TestUnitReady"]),
    ("read-only.img,read-only", &["SCSI.ReadOnly", "SCSI.Inquiry", "SCSI.ModeSense6"]),
    // It looks whether the operation goes on four seconds later, which on a busy machine are more.
    ("/dev/null:16GiB", &["SCSI.Sanitize.Reset"]),
    // As many blocks as the copy manager takes in one segment have to fit.
    ("large.img:64GiB", &["SCSI.ExtendedCopy"]),
];

/// Names of users: tests of CHAP ask for one that looks like a number of either kind.
const USERS: [&str; 2] = ["0xc0ffee", "0bQUJD"];
const SECRET: &str = "sesame-sesame-1";
/// The tests that need a session of such a user.
const CHAP: &str = "iSCSI.iSCSICHAP";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passed,
    /// Better than skipped: it says what is amiss with the LUN that has what the test is about.
    Failed(String),
    Skipped(String),
}

fn listed() -> Vec<String> {
    let output = Command::new(tool()).arg("--list").output().expect("iscsi-test-cu starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tests = text.split_whitespace().filter(|name| name.split('.').count() == 3);
    tests.filter(|name| name.starts_with("SCSI.") || name.starts_with("iSCSI.")).map(str::to_owned).collect()
}

fn run(test: &str, url: &str) -> Verdict {
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = log.reopen().unwrap();
    let mut child = Command::new(tool())
        .args(["-d", "-S", "-v", "-t", test, url, url])
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .expect("iscsi-test-cu starts");
    let ended = wait(&mut child, LIMIT);
    let text = String::from_utf8_lossy(&fs::read(log.path()).unwrap()).into_owned();
    verdict(ended.is_ok(), &text)
}

/// From what the tool prints: its summary, and the lines of the test itself.
fn verdict(ended: bool, text: &str) -> Verdict {
    let body = text.find("Test: ").map_or("", |at| &text[at..]);
    let lines = |mark: &str| body.lines().filter(|line| line.contains(mark)).map(str::trim).collect::<Vec<_>>().join("; ");
    let summary = text.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.first() == Some(&"tests") && words.len() >= 5).then(|| (words[2].to_owned(), words[4].to_owned()))
    });
    match summary {
        _ if !ended => Verdict::Failed("no end".to_owned()),
        Some((run, failed)) if run != "0" && failed == "0" && !body.contains("[SKIPPED]") => Verdict::Passed,
        Some((_, failed)) if failed == "0" => Verdict::Skipped(lines("[SKIPPED]")),
        Some(_) => Verdict::Failed(lines("[FAILED]") + &lines("CU_")),
        None => Verdict::Failed(format!("no summary: {}", text.lines().last().unwrap_or_default())),
    }
}

/// The tests of CHAP, with the credentials of each user.
fn with_credentials(folder: &Path, tests: &[String]) -> Vec<(String, Verdict)> {
    let mut verdicts = Vec::new();
    for user in USERS {
        let folder = folder.join(user);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("secret"), SECRET).unwrap();
        fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "data = \"data\"\n[[portal]]\nlisten = \"127.0.0.1:0\"\n[[target]]\nname = \"iqn.2026-01.test:chap\"\n\
             [[target.access]]\ninitiators = [\"*\"]\n[target.access.chap]\nuser = {user:?}\nsecret_file = \"secret\"\n\
             [[target.lun]]\ndisk = \"disk.img\"\nsize = \"64MiB\"\n"
        );
        fs::write(folder.join("offhost.toml"), config).unwrap();
        let target = Target::configured(&folder, "offhost.toml").unwrap();
        let url = target.url(0).replace("iscsi://", &format!("iscsi://{user}%{SECRET}@"));
        verdicts.extend(tests.iter().filter(|test| test.starts_with(CHAP)).map(|test| (test.clone(), run(test, &url))));
    }
    verdicts
}

/// The best verdict of each test over all LUNs.
fn verdicts(tests: &[String]) -> BTreeMap<String, Verdict> {
    let folder = tempfile::tempdir().unwrap();
    let all = thread::scope(|scope| {
        let credentials = scope.spawn(|| with_credentials(folder.path(), tests));
        let runs: Vec<_> = LUNS
            .iter()
            .enumerate()
            .map(|(number, (disk, families))| {
                let folder = folder.path().join(number.to_string());
                scope.spawn(move || {
                    fs::create_dir(&folder).unwrap();
                    // A disk that is only read is not made.
                    fs::File::create(folder.join("read-only.img")).unwrap().set_len(128 << 20).unwrap();
                    let target = Target::start(&folder, &["--disk", disk]).unwrap();
                    let chosen = tests.iter().filter(|test| families.iter().any(|family| test.starts_with(family)));
                    chosen.map(|test| (test.clone(), run(test, &target.url(0)))).collect::<Vec<_>>()
                })
            })
            .collect();
        let runs = runs.into_iter().chain([credentials]);
        runs.flat_map(|run| run.join().expect("a run does not panic")).collect::<Vec<_>>()
    });
    let mut best = BTreeMap::new();
    for (test, verdict) in all {
        let entry = best.entry(test).or_insert_with(|| verdict.clone());
        *entry = verdict.min(entry.clone());
    }
    best
}

#[test]
fn every_test_of_libiscsi_passes_but_those_that_cannot() {
    if !has(&tool()) {
        skip!("iscsi-test-cu is missing (Debian: libiscsi-bin)");
    }
    let tests = listed();
    assert!(tests.len() > 200, "{} tests", tests.len());
    let verdicts = verdicts(&tests);
    let not_passed: Vec<_> = verdicts.iter().filter(|(_, verdict)| **verdict != Verdict::Passed).collect();
    println!("{} of {} pass; the others: {not_passed:#?}", verdicts.len() - not_passed.len(), tests.len());
    let excused: BTreeSet<_> = TEST_FAULTS.iter().map(|(test, _)| *test).collect();
    let unexpected: Vec<_> = not_passed.iter().filter(|(test, _)| !excused.contains(test.as_str())).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[test]
fn the_tools_words_are_understood() {
    let passed = "  Test: Simple ...passed\n               tests      1      1      1      0        0\n";
    assert_eq!(verdict(true, passed), Verdict::Passed);
    let failed =
        "  Test: Simple ...FAILED\n    1. x.c:9  - CU_ASSERT_EQUAL(a,b)\n   tests      1      1      0      1        0\n";
    assert_eq!(verdict(true, failed), Verdict::Failed("1. x.c:9  - CU_ASSERT_EQUAL(a,b)".to_owned()));
    let skipped = "  Test: Simple ...    [SKIPPED] no medium\npassed\n  tests      1      1      1      0        0\n";
    assert!(matches!(verdict(true, skipped), Verdict::Skipped(_)));
    assert!(matches!(verdict(true, "no session"), Verdict::Failed(_)));
    assert!(matches!(verdict(false, passed), Verdict::Failed(_)));
}
