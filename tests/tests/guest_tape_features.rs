//! A stock Linux kernel with what not every tape has: compression, partitions, encryption by stenc.

use offhost_tests::guest::{MINUTE, images, logged_in};
use offhost_tests::skip;

#[test]
fn mt_compresses_and_divides_and_stenc_encrypts() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = logged_in(images, folder.path(), &["--tape", "shelf"]);
    for script in [COMPRESSION, PARTITIONS, ENCRYPTION] {
        guest.run(&format!("tape=$(device 0 scsi_tape)\nmt -f \"$tape\" rewind\n{script}"), MINUTE).unwrap();
    }
    // Encrypted records that are read without their key.
    guest.log_out(&["Data Protect", "Unable to decrypt data"]);
}

/// What is read back is what was written, also with compression off again.
const COMPRESSION: &str = r#"
    mt -f "$tape" compression 1
    head -c 1000000 /dev/zero | dd of="$tape" bs=100000 iflag=fullblock
    mt -f "$tape" compression 0
    mt -f "$tape" rewind
    [ "$(dd if="$tape" bs=100000 | wc -c)" = 1000000 ]
"#;

/// Two partitions that keep apart, and one again.
const PARTITIONS: &str = r#"
    mt -f "$tape" stsetoptions can-partitions
    mt -f "$tape" mkpartition 100
    mt -f "$tape" setpartition 1
    echo one | dd of="$tape" bs=4
    mt -f "$tape" setpartition 0
    echo nil | dd of="$tape" bs=4
    mt -f "$tape" partseek 1 0
    [ "$(dd if="$tape" bs=4)" = one ]
    mt -f "$tape" status | grep -q 'partition=1'
    mt -f "$tape" setpartition 0
    mt -f "$tape" rewind
    [ "$(dd if="$tape" bs=4)" = nil ]
    mt -f "$tape" rewind
    mt -f "$tape" mkpartition 0
"#;

/// Without its key a record is an error, and not its bytes.
const ENCRYPTION: &str = r#"
    printf '%s\nmykey\n' 000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F > /tmp/key
    stenc -f "$tape" -e on -k /tmp/key -a 1
    echo secret | dd of="$tape" bs=7
    mt -f "$tape" rewind
    stenc -f "$tape" --detail > /tmp/detail
    grep -q 'Drive Key Desc.*mykey' /tmp/detail
    grep -q 'Encrypted and able to decrypt' /tmp/detail
    [ "$(dd if="$tape" bs=7)" = secret ]
    stenc -f "$tape" -e off -a 1
    mt -f "$tape" rewind
    ! dd if="$tape" bs=7
"#;
