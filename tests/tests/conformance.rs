//! The conformance suites of `offhost-sim` find nothing wrong with our own target.

use std::path::Path;
use std::process::Command;

use offhost_tests::programs::{Target, program};

/// Runs all suites with `flags`, and gives what did not pass.
fn not_passed(target: &Target, folder: &Path, flags: &[&str]) -> Vec<String> {
    let junit = folder.join("junit.xml");
    let output = Command::new(program("offhost-sim"))
        .args(["conformance", &target.url(0), "--destroy", "--json", "--junit"])
        .arg(&junit)
        .args(flags)
        .output()
        .expect("offhost-sim starts");
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    });
    let reports = reports.as_array().expect("a list of verdicts");
    assert!(reports.len() > 100, "only {} cases", reports.len());
    assert!(std::fs::read_to_string(junit).unwrap().contains(&format!("tests=\"{}\"", reports.len())));
    let failed: Vec<String> = reports
        .iter()
        .filter(|report| report["result"] != "pass")
        .map(|report| format!("{}/{} {}: {}", report["suite"], report["name"], report["result"], report["reason"]))
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(failed.iter().any(|line| line.contains("\"fail\"")))));
    failed
}

/// The suite of changers is for a library, which another test has.
const NO_CHANGER: &str = "\"smc\"/";

/// Cases that this target cannot be asked, by name.
fn unexpected(not_passed: &[String], excused: &[&str]) -> Vec<String> {
    not_passed.iter().filter(|line| !excused.iter().any(|name| line.contains(name))).cloned().collect()
}

#[test]
fn disk_and_tape_pass_every_case() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "a.img:64MiB", "--tape", "shelf"]).unwrap();
    let not_passed = not_passed(&target, folder.path(), &["--tape", &target.url(1)]);
    // A disk that can be written has no refusals of a read-only one; a drive that takes 2^24 - 1 bytes cannot be asked for more.
    let expected = ["read-only-refusals", "eject-and-load", "auth-skipped", "chap-", "\"block-limits\"", NO_CHANGER];
    let unexpected = unexpected(&not_passed, &expected);
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn a_cartridge_of_the_aligned_layout_passes_every_case_of_tapes_and_copies() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "a.img:64MiB", "--tape", "shelf,layout=aligned"]).unwrap();
    let not_passed = not_passed(&target, folder.path(), &["--tape", &target.url(1), "--suite", "ssc,xcopy"]);
    let unexpected = unexpected(&not_passed, &["\"block-limits\""]);
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn a_removable_disk_of_4096_byte_blocks_passes_every_case() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "a.img:64MiB,block=4096,removable", "--tape", "shelf"]).unwrap();
    let not_passed = not_passed(&target, folder.path(), &["--tape", &target.url(1)]);
    let expected = ["read-only-refusals", "auth-skipped", "chap-", "\"block-limits\"", NO_CHANGER];
    let unexpected = unexpected(&not_passed, &expected);
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn nothing_is_overwritten_without_being_asked() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("a.img");
    let content = vec![0xA5; 8 << 20];
    std::fs::write(&disk, &content).unwrap();
    let mut target = Target::start(folder.path(), &["--disk", "a.img", "--tape", "shelf"]).unwrap();
    let sim = |arguments: &[&str]| Command::new(program("offhost-sim")).args(arguments).output().unwrap();
    let (disk_url, tape_url) = (target.url(0), target.url(1));
    let output = sim(&["conformance", &disk_url, "--tape", &tape_url, "--suite", "spc,sbc,ssc,xcopy"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let output = sim(&["load", &disk_url, "--workload", "rand-write", "--seconds", "0.1"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--destroy"));
    let output = sim(&["conformance", &disk_url, "--suite", "ssc"]);
    assert_eq!(output.status.code(), Some(77), "every tape case is skipped without a tape");
    target.stop().unwrap();
    assert!(std::fs::read(&disk).unwrap() == content, "the disk is as it was");
}

#[test]
fn a_library_passes_every_case() {
    let folder = tempfile::tempdir().unwrap();
    let library = "shelf:64MiB,drives=2,slots=8,mail=2,cartridges=4";
    let target = Target::start(folder.path(), &["--disk", "a.img:64MiB", "--library", library]).unwrap();
    // The drive is empty: its cartridge comes from the changer. The commands of every device are asked of the changer.
    let (changer, drive) = (target.url(1), target.url(2));
    let output = Command::new(program("offhost-sim"))
        .args(["conformance", &changer, "--changer", &changer, "--tape", &drive, "--destroy", "--json"])
        .args(["--suite", "spc,ssc,smc"])
        .output()
        .expect("offhost-sim starts");
    let reports: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let passed = |suite: &str| reports.iter().filter(|report| report["suite"] == suite && report["result"] == "pass").count();
    assert!(passed("smc") >= 30 && passed("spc") >= 15 && passed("ssc") >= 15, "{reports:?}");
    let failed: Vec<String> = reports
        .iter()
        .filter(|report| report["result"] == "fail")
        .map(|report| format!("{}: {}", report["name"], report["reason"]))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let skipped = reports.iter().filter(|report| report["suite"] == "smc" && report["result"] == "skip").count();
    assert_eq!(skipped, 0, "our own changer has everything that the suite asks for");
}
