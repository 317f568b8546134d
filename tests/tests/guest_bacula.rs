//! Bacula's own judge of tape drives, `btape`, through a stock Linux kernel.
//!
//! Its `fill` takes minutes:
//!
//!     cargo test -p offhost-tests --test guest_bacula -- --ignored

use std::path::Path;
use std::time::Duration;

use offhost_tests::guest::{Images, MINUTE, images, logged_in};
use offhost_tests::skip;

/// A guest logged in to a target with a tape, and what `btape` printed. `device` are more lines of the storage daemon's device.
fn btape(images: Images, folder: &Path, tape: &str, device: &str, commands: &str, limit: Duration) -> String {
    let (_target, mut guest) = logged_in(images, folder, &["--tape", tape]);
    let script = format!("{CONFIGURE}\nconfigure '{device}'\nprintf '{commands}' | btape -c /tmp/bacula.conf /dev/nst0");
    let said = guest.run(&script, limit).unwrap();
    guest.log_out(&[]);
    said
}

const CONFIGURE: &str = r#"
    configure() { # MORE
        mkdir -p /tmp/bacula
        printf '%s\n' 'Storage {' 'Name = guest' 'WorkingDirectory = /tmp/bacula' 'Pid Directory = /tmp/bacula' \
            'Plugin Directory = /usr/lib/bacula' '}' 'Director {' 'Name = nobody' 'Password = none' '}' \
            'Messages {' 'Name = Standard' 'director = nobody = all' '}' \
            'Device {' 'Name = Tape' 'Media Type = LTO' 'Archive Device = /dev/nst0' 'AutomaticMount = yes' 'AlwaysOpen = yes' \
            'RemovableMedia = yes' 'RandomAccess = no' "$1" '}' >/tmp/bacula.conf
    }
"#;

#[test]
fn btape_finds_nothing_wrong_with_a_tape() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    // It writes 20,000 blocks whatever their size is; its own 63 KiB take three times as long.
    let said = btape(images, folder.path(), "shelf", "Maximum Block Size = 16384", "test\\nquit\\n", 6 * MINUTE);
    let passed = said.matches("=== Test Succeeded.").count();
    assert_eq!(passed, 2, "writing, reading, positions:\n{said}");
    let whole = said.contains("Block re-read correct. Test succeeded!") && said.contains("=== End Forward space files test ===");
    assert!(whole, "it did not come to its end:\n{said}");
    assert_eq!(said.matches("This is correct!").count(), 6, "files counted:\n{said}");
    let wrong = ["rror", "ailed", "incorrect", "should be"];
    let suspect = |line: &&str| wrong.iter().any(|word| line.contains(word)) && !line.ends_with("This is correct!");
    let suspects: Vec<_> = said.lines().filter(suspect).filter(|line| !HARMLESS.iter().any(|h| line.contains(h))).collect();
    assert!(suspects.is_empty(), "{suspects:?}\n{said}");
}

/// What `btape` says before it looks.
const HARMLESS: [&str; 3] = ["Done appending, there should be no I/O errors", "scan output", "The above Bacula scan should have"];

#[test]
#[ignore = "takes 3 minutes"]
fn btape_fills_a_cartridge_and_finds_its_last_block() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    // Its first 10,000 records, some 322 MB, must fit.
    let device = "Maximum File Size = 64M";
    let said = btape(images, folder.path(), "shelf:352MiB", device, "fill\\ns\\n\\nquit\\n", 10 * MINUTE);
    assert!(said.contains("End of Volume \"TestVolume1\"") && said.contains("Re-read of last block succeeded"), "{said}");
    assert!(said.contains("The last block on the tape matches. Test succeeded."), "{said}");
}

#[test]
#[ignore = "takes 2 minutes"]
fn btape_fills_a_cartridge_goes_on_with_the_next_and_finds_what_lies_across() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = logged_in(images, folder.path(), &["--library", "shelf:352MiB,drives=1,slots=3,cartridges=2"]);
    let said = guest.run(&format!("{CONFIGURE}\nconfigure 'Maximum File Size = 64M'\n{TWO_VOLUMES}"), 20 * MINUTE).unwrap();
    for wanted in [
        "End of Volume \"TestVolume1\"",
        "The last block on the second tape matches. Test succeeded.",
        "The last block of the first tape matches.",
    ] {
        assert!(said.contains(wanted), "{wanted}:\n{said}");
    }
    guest.log_out(&["Not Ready", "Medium not present", "Unit Attention", "medium may have changed", "ID/LUN unknown"]);
}

/// Who changes the cartridge whenever btape asks for it: when it begins, at the end of the volume, and to read first the one and then
/// the other.
const TWO_VOLUMES: &str = r#"
    changer=$(device 0 scsi_generic)
    mtx -f "$changer" load 1 0
    mkfifo /tmp/typed
    stdbuf -o0 btape -c /tmp/bacula.conf "$(device 1 scsi_tape)" </tmp/typed >/tmp/said 2>&1 &
    btape=$!
    exec 9>/tmp/typed
    printf 'fill\nm\n' >&9
    # A prompt ends no line, and waits in a buffer unless there is none.
    asked() { [ "$(grep -oE 'press return when ready|Press enter when ready' /tmp/said | wc -l)" -ge "$1" ]; }
    in_drive=1
    for change in '1 2' '2 1' '3 2' '4 1'; do
        set -- $change
        until asked "$1"; do
            cp /tmp/said /host/said
            kill -0 "$btape" || { cat /tmp/said; exit 1; }
            pause 1
        done
        mtx -f "$changer" unload "$in_drive" 0
        mtx -f "$changer" load "$2" 0
        in_drive=$2
        printf '\n' >&9
    done
    printf 'quit\n' >&9
    wait "$btape"
    cat /tmp/said
"#;
