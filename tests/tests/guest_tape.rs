//! A stock Linux kernel trusts a tape LUN: the `st` driver, mt and tar.

use offhost_tests::guest::{MINUTE, images, logged_in};
use offhost_tests::skip;

#[test]
fn mt_and_tar_work_with_a_tape() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = logged_in(images, folder.path(), &["--tape", "shelf"]);
    guest.run(TAR, 3 * MINUTE).unwrap();
    guest.run(MT, MINUTE).unwrap();
    guest.log_out(&[]);
}

/// Two archives behind each other, read back.
const TAR: &str = r#"
    tape=$(device 0 scsi_tape)
    mkdir /tmp/in /tmp/out
    cp /usr/bin/[a-f]* /tmp/in
    mt -f "$tape" rewind
    tar -C /tmp -b 64 -cf "$tape" in
    tar -C /tmp -b 512 -cf "$tape" in
    mt -f "$tape" rewind
    tar -C /tmp/out -b 64 -xf "$tape"
    diff -r /tmp/in /tmp/out/in
    mt -f "$tape" rewind
    mt -f "$tape" fsf 1
    rm -r /tmp/out/in
    tar -C /tmp/out -b 512 -xf "$tape"
    diff -r /tmp/in /tmp/out/in
"#;

/// Positions, as mt tells them.
const MT: &str = r#"
    tape=$(device 0 scsi_tape)
    at() { # BLOCK
        local told
        told=$(mt -f "$tape" tell)
        [ "$told" = "At block $1." ] || die "at $1 expected, not: $told"
    }
    mt -f "$tape" rewind; at 0
    says 'BOT ONLINE' mt -f "$tape" status
    mt -f "$tape" seek 7; at 7
    mt -f "$tape" fsr 3; at 10
    mt -f "$tape" bsr 2; at 8
    mt -f "$tape" fsf 1
    says 'EOF' mt -f "$tape" status
    mt -f "$tape" eod
    says 'EOD' mt -f "$tape" status
    end=$(mt -f "$tape" tell)
    mt -f "$tape" weof 2
    [ "$(mt -f "$tape" tell)" != "$end" ]
    mt -f "$tape" setblk 512
    says 'Tape block size 512 bytes' mt -f "$tape" status
    dd if=/usr/bin/bash of="$tape" bs=10240 count=20
    mt -f "$tape" setblk 0
    mt -f "$tape" rewind
    mt -f "$tape" erase
    mt -f "$tape" eod; at 0
    mt -f "$tape" offline
    mt -f "$tape" load
    says ONLINE mt -f "$tape" status
"#;
