//! Programs that manage tapes, through a stock Linux kernel: stenc's encryption, sg3-utils' pages, Amanda's `amtapetype`.
//!
//! The last one measures for minutes and needs 2 GiB of space:
//!
//!     cargo test -p offhost-tests --test guest_tape_programs -- --ignored

use std::path::Path;
use std::time::Duration;

use offhost_tests::guest::{Guest, Images, Kernel, images};
use offhost_tests::programs::Target;
use offhost_tests::skip;

const MINUTE: Duration = Duration::from_secs(60);

/// A guest logged in to a target with one tape.
fn logged_in(images: Images, folder: &Path, tape: &str) -> (Target, Guest) {
    let target = Target::start(folder, &["--tape", tape]).unwrap();
    let mut guest = Guest::boot(images, folder).unwrap();
    guest.run(&format!("start_iscsid\nlogin {}", target.portal), MINUTE).unwrap();
    (target, guest)
}

#[test]
fn stenc_encrypts_a_tape_that_is_not_read_without_its_key() {
    let images = match images(Kernel::V6_12) {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = logged_in(images, folder.path(), "shelf");
    guest.run(ENCRYPT, 2 * MINUTE).unwrap();
    guest.run(PAGES, MINUTE).unwrap();
    guest.run("logout", MINUTE).unwrap();
    // The reads without the key and with another, as it should be.
    let complaints = guest.complaints(&["Data Protect", "Unable to decrypt data", "Incorrect data encryption key"]).unwrap();
    assert!(complaints.is_empty(), "the kernel complained:\n{}", complaints.join("\n"));
}

/// The algorithm has the index 1, as in LTO drives; stenc's own default is 0.
const ENCRYPT: &str = r#"
    tape=$(device 0 scsi_tape)
    { printf '%064d\n' 1234567890; echo 'a key'; } >/tmp/key
    { printf '%064d\n' 987654321; echo 'another'; } >/tmp/other
    compare() { mt -f "$tape" rewind && tar -C /usr/bin -b 64 -df "$tape"; }
    says 'Drive Encryption: *off' stenc -f "$tape" --detail
    stenc -f "$tape" -e on -k /tmp/key -a 1
    says 'Drive Encryption: *on' stenc -f "$tape" --detail
    mt -f "$tape" rewind
    tar -C /usr/bin -b 64 -cf "$tape" bash
    compare
    mt -f "$tape" rewind
    says 'Encrypted and able to decrypt' stenc -f "$tape" --detail
    stenc -f "$tape" -e off
    ! compare || die 'read without a key'
    stenc -f "$tape" -e on -k /tmp/other -a 1
    ! compare || die 'read with another key'
    stenc -f "$tape" -e on -k /tmp/key -a 1
    compare
    stenc -f "$tape" -e off
"#;

/// What sg3-utils asks of a tape, and the kernel's own compression switch.
const PAGES: &str = r#"
    tape=$(device 0 scsi_tape) generic=$(device 0 scsi_generic)
    mt -f "$tape" compression 1
    says '0f 0e c0' sg_modes --page=0xf "$generic"
    mt -f "$tape" compression 0
    says '0f 0e 40' sg_modes --page=0xf "$generic"
    for page in 0 0x80 0x83 0x86 0xb0; do sg_vpd -p "$page" "$generic"; done
    for page in 2 3 0xc 0x11 0x12 0x17 0x2e 0x31; do sg_logs --page="$page" "$generic"; done
    says 'Security protocol out' sg_opcodes "$generic"
    sg_persist --out --register --param-sark=0x77 "$generic"
    says 0x77 sg_persist -k "$generic"
    sg_persist --out --clear --param-rk=0x77 "$generic"
    sg_read_attr "$generic"
    sg_turs "$generic"
"#;

#[test]
#[ignore = "takes 6 minutes"]
fn amtapetype_measures_a_tape() {
    let images = match images(Kernel::V6_12) {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    // It writes for a minute, the same again, and then until the tape is full.
    let (_target, mut guest) = logged_in(images, folder.path(), "shelf:2GiB");
    let said = guest.run("amtapetype -f -b 262144 -t JUDGED tape:$(device 0 scsi_tape) | tr '\\r' '\\n'", 20 * MINUTE).unwrap();
    assert!(said.contains("define tapetype JUDGED"), "{said}");
    guest.run("logout", MINUTE).unwrap();
    let complaints = guest.complaints(&[]).unwrap();
    assert!(complaints.is_empty(), "the kernel complained:\n{}", complaints.join("\n"));
}
