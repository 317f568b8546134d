//! How many movers, how fast and where others attach: by flags, by `offhost movers`, from a file that is saved and read again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use offhost_tests::control::status;
use offhost_tests::programs::{Target, program, run};
use protocol::control::MoverSettings;

const FILE: &str = r#"data = "data"
[movers]
count = 2
[[portal]]
listen = "127.0.0.1:0"
[[target]]
name = "iqn.2026-01.test:a"
[[target.lun]]
disk = "a.img"
size = "16MiB"
"#;

fn offhost(target: &Target, arguments: &[&str]) -> anyhow::Result<String> {
    let control = target.control();
    run(program("offhost"), [&["movers", "--control", control.to_str().unwrap()], arguments].concat())
}

fn settings(target: &Target) -> (MoverSettings, usize) {
    let report: serde_json::Value = serde_json::from_str(&offhost(target, &["--json", "list"]).unwrap()).unwrap();
    let movers = report["movers"].as_array().unwrap().len();
    (serde_json::from_value(report["settings"].clone()).unwrap(), movers)
}

#[test]
fn what_is_set_holds_at_once_and_after_a_restart_when_it_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let folder: &Path = folder.path();
    std::fs::write(folder.join("offhost.toml"), FILE).unwrap();
    let mut target = Target::configured(folder, "offhost.toml").unwrap();
    assert_eq!(settings(&target), (MoverSettings { movers: 2, ..MoverSettings::default() }, 2));

    offhost(&target, &["set", "--count", "3", "--rate", "100MiB", "--priority", "5"]).unwrap();
    let wanted = MoverSettings { movers: 3, bytes_per_second: Some(100 << 20), job_bytes_per_second: None, priority: Some(5) };
    assert_eq!(settings(&target), (wanted, 3));
    let told = offhost(&target, &["list"]).unwrap();
    assert!(told.contains("movers on this host: 3") && told.contains("100.00 MiB/s"), "{told}");
    assert_eq!(told.matches("process ").count(), 3, "{told}");
    for wrong in [&["set", "--count", "0"][..], &["set", "--rate", "0B"], &["set", "--priority", "9"], &["set"]] {
        assert!(offhost(&target, wrong).is_err(), "{wrong:?}");
    }
    offhost(&target, &["set", "--rate", "none", "--job-rate", "7MiB"]).unwrap();
    run(program("offhost"), ["save", "--control", target.control().to_str().unwrap()]).unwrap();
    let saved = std::fs::read_to_string(folder.join("offhost.toml")).unwrap();
    assert!(saved.contains("[movers]") && saved.contains("job_rate = \"7MiB\""), "{saved}");
    target.stop().unwrap();

    let target = Target::configured(folder, "offhost.toml").unwrap();
    let wanted = MoverSettings { movers: 3, bytes_per_second: None, job_bytes_per_second: Some(7 << 20), priority: Some(5) };
    assert_eq!(settings(&target), (wanted, 3));
    // The file is changed and read again.
    std::fs::write(folder.join("offhost.toml"), saved.replace("count = 3", "count = 1")).unwrap();
    run(program("offhost"), ["reload", "--control", target.control().to_str().unwrap()]).unwrap();
    assert_eq!(settings(&target).0.movers, 1);
}

#[test]
fn flags_say_the_same_and_a_secret_that_others_may_read_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("secret"), "sixteen-bytes-or-more").unwrap();
    std::fs::set_permissions(folder.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let flags = ["--disk", "a.img:1MiB", "--movers", "2", "--mover-rate", "64MiB"];
    let attach = ["--mover-attach", "127.0.0.1:0", "--mover-secret-file", "secret"];
    let target = Target::start(folder, &[&flags[..], &attach].concat()).unwrap();
    assert_eq!(status(&target.control()).unwrap().movers.len(), 2);
    assert_eq!(settings(&target).0.bytes_per_second, Some(64 << 20));
    drop(target);
    std::fs::set_permissions(folder.join("secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Target::start(folder, &[&flags[..], &attach].concat()).unwrap_err().to_string();
    assert!(refused.contains("secret file") && !refused.contains("sixteen-bytes"), "{refused}");
}
