//! Programs that manage tapes, through a stock Linux kernel: stenc's encryption, sg3-utils' pages, Amanda's `amtapetype`.

use offhost_tests::guest::{MINUTE, images, logged_in};
use offhost_tests::skip;

#[test]
fn stenc_encrypts_a_tape_that_is_not_read_without_its_key() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = logged_in(images, folder.path(), &["--tape", "shelf"]);
    guest.run(ENCRYPT, 2 * MINUTE).unwrap();
    guest.run(PAGES, MINUTE).unwrap();
    // The reads without the key and with another, as it should be.
    guest.log_out(&["Data Protect", "Unable to decrypt data", "Incorrect data encryption key"]);
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
    says '8f 0e c0' sg_modes --page=0xf "$generic"
    mt -f "$tape" compression 0
    says '8f 0e 40' sg_modes --page=0xf "$generic"
    for page in 0 0x80 0x83 0x86 0xb0; do sg_vpd -p "$page" "$generic"; done
    for page in 2 3 0xc 0xd 0x11 0x12 0x17 0x2e 0x30 0x31 0x32; do sg_logs --page="$page" "$generic"; done
    says 'Security protocol out' sg_opcodes "$generic"
    sg_persist --out --register --param-sark=0x77 "$generic"
    says 0x77 sg_persist -k "$generic"
    sg_persist --out --clear --param-rk=0x77 "$generic"
    sg_read_attr "$generic"
    sg_turs "$generic"
"#;

#[test]
fn amtapetype_measures_a_tape() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = logged_in(images, folder.path(), &["--tape", "shelf:64MiB"]);
    let said = guest.run(MEASURE, 4 * MINUTE).unwrap();
    let length = said.lines().find_map(|line| line.trim().strip_prefix("length ")?.strip_suffix(" kbytes")?.parse::<f64>().ok());
    let whole = 64.0 * 1024.0;
    assert!(length.is_some_and(|length| (whole * 0.9..=whole).contains(&length)), "{said}");
    guest.log_out(&[]);
}

/// It fills the tape twice. Whether records are compressed it finds out by writing for two minutes, which would want a cartridge of
/// gigabytes: the copy that runs here writes for two seconds.
const MEASURE: &str = r#"
    tape=$(device 0 scsi_tape)
    sed 's/compression_check_time = 60;/compression_check_time = 2;/' /usr/sbin/amtapetype >/tmp/amtapetype
    ! cmp -s /usr/sbin/amtapetype /tmp/amtapetype || die 'another version of amtapetype'
    perl /tmp/amtapetype -f -b 262144 -t JUDGED "tape:$tape" 2>&1 | tr '\r' '\n'
"#;
