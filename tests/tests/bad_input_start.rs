//! What a target is told wrongly when it starts: exit code and words, and no harm to another target that runs.

use std::io::Seek;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use offhost_tests::programs::{Target, program, wait};
use offhost_tests::{control, pattern};
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Options};

/// sysexits(3) EX_CONFIG.
const CONFIG: i32 = 78;

/// Starts a target that must not come to serve; its exit code and what it said.
fn refused(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(program("offhost-target"));
    command.arg("serve").args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let mut log = tempfile::tempfile_in(folder).unwrap();
    let mut child = command.stderr(log.try_clone().unwrap()).spawn().unwrap();
    let status = wait(&mut child, Duration::from_secs(12)).unwrap_or_else(|error| panic!("{arguments:?}: it served: {error}"));
    log.rewind().unwrap();
    let said = std::io::read_to_string(log).unwrap();
    (status.code().unwrap_or_else(|| panic!("{arguments:?}: {status}")), said)
}

#[test]
fn a_wrong_configuration_file_ends_with_78_and_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = [
        ("lissen = 3\n", ["line 1", "lissen"]),
        ("[[lun]]\ndisk = \"a.img\"\nblok = 512\n", ["line 3", "blok"]),
        ("data = \"d\"\n\nlisten = \"nowhere\"\n", ["line 3", "nowhere"]),
        ("data = \"d\"\n[[lun]]\ndisk = \"a.img\"\nsize = \"20 Gigs\"\n", ["line 4", "size"]),
        ("[[lun]]\ndisk = \"a.img\"\nsize = 1\"\n", ["line 3", "quote"]),
        ("# both\n[[lun]]\ndisk = \"a.img\"\ntape = \"shelf\"\n", ["line 2", "not several"]),
        ("\n\n[[lun]]\n", ["line 3", "wants"]),
        ("[[lun]]\ntape = \"shelf\"\nsize = \"1GiB\"\n", ["line 1", "capacity"]),
        ("[[lun]]\ndisk = \"a.img\"\nblock = 1000\n", ["LUN 0", "1000"]),
        ("target = \"my target\"\n", ["my target", "iqn."]),
    ];
    for (text, words) in wrong {
        std::fs::write(folder.path().join("target.toml"), text).unwrap();
        let (code, said) = refused(folder.path(), &["--config", "target.toml"]);
        assert_eq!(code, CONFIG, "{text}{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{text}lacks one of {words:?}: {said}");
    }
    std::fs::write(folder.path().join("target.toml"), [0xFF, 0xFE, 0]).unwrap();
    let (code, said) = refused(folder.path(), &["--config", "target.toml"]);
    assert!(code == CONFIG && said.contains("target.toml"), "{code}: {said}");
    let (code, said) = refused(folder.path(), &["--config", "missing.toml"]);
    assert!(code == CONFIG && said.contains("missing.toml"), "{code}: {said}");
    let made: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(made, ["target.toml"], "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_target_on_the_same_things_is_refused_and_the_first_unharmed() {
    let folder = tempfile::tempdir().unwrap();
    let first = Target::start(folder.path(), &["--disk", "disk.img:8MiB", "--tape", "shelf"]).unwrap();
    let url = first.url(0).parse().unwrap();
    let client = Client::connect(&url, Options::named("iqn.2026-01.test:first")).await.unwrap();
    let (disk, tape) = (client.lun(0), client.lun(1));
    disk.test_unit_ready().await.unwrap();
    tape.test_unit_ready().await.unwrap();
    let write = async |index: u64| {
        disk.write(Lba(index * 8), Bytes::from(pattern::bytes(5, index, 4096)), BlockLength::B512).await.unwrap();
        tape.write_record(Bytes::from(pattern::bytes(6, index, 4096))).await.unwrap();
    };
    write(0).await;

    // Disks and tapes are waited for, since a mover of a target that died may still write: all of them at once.
    let rivals: [(&[&str], &str); 4] = [
        (&["--data", "second", "--disk", "disk.img"], "disk.img"),
        (&["--data", "third", "--tape", "shelf"], "shelf"),
        (&["--data", "data", "--disk", "another.img:1MiB"], "control.sock"),
        (&["--data", "fourth", "--disk", "another-4.img:1MiB", "--listen", &first.portal], "listen"),
    ];
    let rivals = rivals.map(|(arguments, word)| (arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), word));
    let running = rivals.map(|(arguments, word)| {
        let folder = folder.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let listens = arguments.iter().any(|text| text == "--listen");
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if !listens {
                arguments.extend(["--listen", "127.0.0.1:0"]);
            }
            let (code, said) = refused(&folder, &arguments);
            assert_eq!(code, 1, "{arguments:?}: {said}");
            assert!(said.contains(word), "{arguments:?} says nothing of {word}: {said}");
        })
    });
    write(1).await;
    for rival in running {
        rival.await.unwrap();
    }
    write(2).await;
    tape.rewind().await.unwrap();
    for index in 0..3 {
        let found = disk.read(Lba(index * 8), 8, BlockLength::B512).await.unwrap();
        assert!(found == pattern::bytes(5, index, 4096), "block {index}");
        let sim::client::TapeRead::Record(found) = tape.read_record(65_536).await.unwrap() else { panic!("a record") };
        assert!(found == pattern::bytes(6, index, 4096), "record {index}");
    }
    assert_eq!(control::status(&first.control()).unwrap().luns.len(), 2);
}
