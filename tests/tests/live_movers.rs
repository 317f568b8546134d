//! How many movers, how fast and where others attach: by flags, by `offhost movers`, from a file that is saved and read again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use datamover::agent::control::Control;
use offhost_tests::control::status;
use offhost_tests::movers::{Far, attach_address, far_mover, prove, secret_file, until};
use offhost_tests::programs::{Target, program, run};
use protocol::control::MoverSettings;

/// Writes a configuration: a disk in this file, and these movers.
fn configure(folder: &Path, disk: &str, movers: &str) {
    let text = format!(
        "data = \"data\"\n[movers]\n{movers}\n[[portal]]\nlisten = \"127.0.0.1:0\"\n\n[[target]]\nname = \"iqn.2026-01.test:a\"\n\
         [[target.lun]]\ndisk = \"{disk}\"\nsize = \"16MiB\"\n"
    );
    std::fs::write(folder.join("offhost.toml"), text).unwrap();
}

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
    configure(folder, "a.img", "count = 2");
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
    secret_file(folder, "secret", "sixteen-bytes-or-more").unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_or_port_holds_at_once_and_a_reload_that_fails_leaves_both() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    const SECRETS: [&str; 3] = ["the-first-secret-of-all", "the-second-secret-of-all", "a-secret-of-everybodys"];
    for (name, secret) in ["first", "second", "everybodys"].into_iter().zip(SECRETS) {
        secret_file(folder, name, secret).unwrap();
    }
    std::fs::set_permissions(folder.join("everybodys"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(folder.join("remotes.toml"), "").unwrap();
    let attach = |listen: &str, secret: &str| format!("[movers.attach]\nlisten = \"{listen}\"\nsecret_file = \"{secret}\"");
    configure(folder, "a.img", &attach("127.0.0.1:0", "first"));
    let target = Target::configured(folder, "offhost.toml").unwrap();
    let control = Control::new(target.control());
    let address = attach_address(&target).unwrap();
    let known = || SECRETS.map(|secret| prove(address, secret, 1).is_ok());
    let _far = Far::start(None, folder, address, "first").unwrap();
    until("attached", &target, || far_mover(&target).unwrap().is_some()).await;

    // A file that others may read; a disk that cannot be, beside another secret and beside another port.
    std::fs::create_dir(folder.join("folder.img")).unwrap();
    for (disk, listen, secret) in [
        ("a.img", "127.0.0.1:0", "everybodys"),
        ("a.img", "127.0.0.1:0", "no-such-file"),
        ("folder.img", "127.0.0.1:0", "second"),
        ("folder.img", "127.0.0.2:0", "second"),
    ] {
        configure(folder, disk, &attach(listen, secret));
        let refused = control.reload().await.unwrap_err().to_string();
        assert!(!SECRETS.iter().any(|secret| refused.contains(secret)), "{refused}");
        assert_eq!(known(), [true, false, false], "{disk} {listen} {secret}");
    }
    assert_eq!(attach_address(&target).unwrap(), address, "no other port was opened");

    configure(folder, "a.img", &attach("127.0.0.1:0", "second"));
    control.reload().await.unwrap();
    assert_eq!(known(), [false, true, false], "the same port, another secret");
    secret_file(folder, "second", SECRETS[0]).unwrap();
    control.reload().await.unwrap();
    assert_eq!(known(), [true, false, false], "another secret in the same file");
    secret_file(folder, "second", "short").unwrap();
    control.reload().await.unwrap_err();
    secret_file(folder, "second", SECRETS[1]).unwrap();
    control.reload().await.unwrap();
    assert_eq!(known(), [false, true, false], "and back, after one that failed");

    // Closed and opened again, on the very port.
    configure(folder, "a.img", "");
    control.reload().await.unwrap();
    assert_eq!(std::net::TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    configure(folder, "a.img", &attach(&address.to_string(), "first"));
    control.reload().await.unwrap();
    assert_eq!(known(), [true, false, false]);
    assert!(far_mover(&target).unwrap().is_some(), "who is attached stays");
    assert!(!SECRETS.iter().any(|secret| target.log().contains(secret)));
}
