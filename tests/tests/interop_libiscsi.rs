//! Debian's `iscsi-test-cu`, libiscsi's own suite, against LUNs of every kind that it asks for.
//!
//! Every test has to pass on a LUN that has what it is about. What does not is listed here, with the reason and the line.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use offhost_tests::programs::{Target, wait};
use offhost_tests::{has, skip};

/// The tool: Debian's, or another version of it by its path in `ISCSI_TEST_CU`.
fn tool() -> String {
    std::env::var("ISCSI_TEST_CU").unwrap_or_else(|_| "iscsi-test-cu".to_owned())
}

/// A test that hangs has failed. Sanitize.Reset sleeps for a minute at its end.
const LIMIT: Duration = Duration::from_secs(100);

/// Tests that cannot pass, and why. Lines are those of libiscsi 1.19.
const TEST_FAULTS: &[(&str, &str)] = &[
    (
        "SCSI.ExtendedCopy.ValidSegDescr",
        "test_extendedcopy_validate_seg_descr.c: knows COPY ABORTED with 00h/00h, 08h/04h and 0Dh/02h only; for blocks beyond the end \
         SPC-4 wants what the copy source said forwarded (21h/00h), with THIRD PARTY DEVICE FAILURE 0Dh/01h",
    ),
    (
        "iSCSI.iSCSITMF.LUNResetSimpleAsync",
        "test_async_lu_reset_simple.c:157 asserts a variable of the client that only its reconnection sets; fails on every target",
    ),
    (
        "SCSI.WriteSame10.UnmapUntilEnd",
        "test_writesame10_unmap_until_end.c sends a block of FFh with UNMAP and wants zeros back; SBC-4 lets a block be unmapped only if it \
         then reads as the one sent",
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
    // It looks whether the operation goes on several seconds later.
    ("/dev/null:12GiB", &["SCSI.Sanitize.Reset"]),
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
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
    let text = String::from_utf8_lossy(&std::fs::read(log.path()).unwrap()).into_owned();
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

/// The best verdict of each test over all LUNs.
fn verdicts(tests: &[String]) -> BTreeMap<String, Verdict> {
    let folder = tempfile::tempdir().unwrap();
    let all = thread::scope(|scope| {
        let runs: Vec<_> = LUNS
            .iter()
            .enumerate()
            .map(|(number, (disk, families))| {
                let folder = folder.path().join(number.to_string());
                scope.spawn(move || {
                    std::fs::create_dir(&folder).unwrap();
                    // A disk that is only read is not made.
                    std::fs::File::create(folder.join("read-only.img")).unwrap().set_len(128 << 20).unwrap();
                    let target = Target::start(&folder, &["--disk", disk]).unwrap();
                    let chosen = tests.iter().filter(|test| families.iter().any(|family| test.starts_with(family)));
                    chosen.map(|test| (test.clone(), run(test, &target.url(0)))).collect::<Vec<_>>()
                })
            })
            .collect();
        runs.into_iter().flat_map(|run| run.join().expect("a run does not panic")).collect::<Vec<_>>()
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
    println!("{} of {} pass", verdicts.len() - not_passed.len(), tests.len());
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
