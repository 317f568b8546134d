//! Persistent reservations between two sessions of a stock Linux kernel, and through a `kill -9` of the target.

use offhost_tests::guest::{Guest, MINUTE, images};
use offhost_tests::programs::Target;
use offhost_tests::skip;

const FLAGS: [&str; 2] = ["--disk", "disk.img:64MiB"];

#[test]
fn a_reservation_keeps_another_session_from_writing_and_outlives_the_target() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let mut target = Target::start(folder.path(), &FLAGS).unwrap();
    let mut guest = Guest::boot(images, folder.path()).unwrap();
    guest.run(&TWO_SESSIONS.replace("PORTAL", &target.portal), 2 * MINUTE).unwrap();
    guest.run(&format!("{DISKS}{RESERVE}"), MINUTE).unwrap();
    target.kill();
    let _target = Target::start_on(folder.path(), &target.portal, &FLAGS).unwrap();
    guest.run(&format!("{DISKS}{STILL_RESERVED}"), 3 * MINUTE).unwrap();
}

/// Two interfaces, so that one initiator has two I_T nexuses.
const TWO_SESSIONS: &str = r#"
    start_iscsid
    iscsiadm -m iface -o new -I second
    iscsiadm -m discovery -t sendtargets -I default -I second -p PORTAL
    iscsiadm -m node --login
    udevadm settle --timeout=60
"#;

const DISKS: &str = r#"
    disks=(/sys/class/scsi_device/*:0/device/block/*)
    [ "${#disks[@]}" = 2 ] || die "two disks expected: ${disks[*]}"
    mine=/dev/${disks[0]##*/} other=/dev/${disks[1]##*/}
    write() { dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct conv=notrunc; }
    read_back() { dd if="$1" of=/dev/null bs=4096 count=1 iflag=direct; }
"#;

/// Write Exclusive, kept through power loss.
const RESERVE: &str = r#"
    sg_persist --out --register --param-sark=0xabc --param-aptpl "$mine"
    sg_persist --out --reserve --param-rk=0xabc --prout-type=1 "$mine"
    says 'Key=0xabc' sg_persist -r "$other"
    write "$mine"
    ! write "$other" || die 'written in spite of a reservation'
    read_back "$other"
"#;

const STILL_RESERVED: &str = r#"
    running() { [ "$(sort -u /sys/class/iscsi_session/session*/state)" = LOGGED_IN ]; }
    await 60 running
    # The first command after the restart may be told of it.
    says 0xabc sg_persist -k "$mine" || says 0xabc sg_persist -k "$mine"
    write "$mine"
    ! write "$other" || die 'written in spite of a reservation'
    sg_persist --out --register --param-sark=0xdef "$other"
    sg_persist --out --preempt --param-rk=0xdef --param-sark=0xabc --prout-type=1 "$other"
    write "$other"
    ! write "$mine" || die 'written after its reservation was preempted'
    sg_persist --out --clear --param-rk=0xdef "$other"
    write "$mine"
    logout
"#;
