//! Copy clients of others send EXTENDED COPY, POPULATE TOKEN and WRITE USING TOKEN through a stock Linux kernel: sg_xcopy,
//! sg_copy_results and ddpt of Debian.
//!
//! Each copy is compared by reading both disks; that none of them fell back to reads and writes is known from the target's count of
//! copies. None of these programs copies to or from a tape: they ask it for its capacity first. What libiscsi and QEMU send is in
//! `interop_disk`.

use offhost_tests::control::status;
use offhost_tests::guest::{MINUTE, images, logged_in};
use offhost_tests::skip;

#[test]
fn copy_clients_of_others_copy_and_read_the_results() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let disks = ["from.img:64MiB", "to.img:64MiB", "4kn.img:64MiB,block=4096", "other.img:64MiB,block=4096"];
    let flags = disks.map(|disk| ["--disk", disk]).concat();
    let (target, mut guest) = logged_in(images, folder.path(), &flags);
    for (script, copies) in [(SG_XCOPY, 2), (DDPT, 2), (DDPTCTL, 2)] {
        let before = status(&target.control()).unwrap().copies.done;
        guest.run(&format!("{PREPARE}{script}"), 2 * MINUTE).unwrap();
        let after = status(&target.control()).unwrap().copies;
        assert_eq!((after.done - before, after.failed), (copies, 0), "{script}");
    }
    guest.log_out(&[]);
}

const PREPARE: &str = r#"
    from=$(device 0 block) to=$(device 1 block) from4k=$(device 2 block) to4k=$(device 3 block)
    # Other data for each, so that no copy can pass by what the last one left.
    fill() { dd if=/dev/urandom of="$1" bs=1M count=4 oflag=direct; sg_sync "$1"; }
    same() { blockdev --flushbufs "$1" "$2"; cmp -n "$3" "$1" "$2"; }
"#;

const SG_XCOPY: &str = r#"
    sg_copy_results --params "$from"
    fill "$from"
    sg_xcopy if="$from" of="$to" bs=512 count=8192 list_id=7
    same "$from" "$to" 4194304
    fill "$from4k"
    says 'Transfer count: 4194304' sg_copy_results --status --list_id=7 "$from"
    sg_xcopy if="$from4k" of="$to4k" bs=4096 count=1024
    same "$from4k" "$to4k" 4194304
"#;

const DDPT: &str = r#"
    fill "$from"
    # One command: of several (bpt=) ddpt 0.97 sends the first again and again.
    ddpt --xcopy if="$from" of="$to" bs=512 count=8128 bpt=8192 skip=64 seek=4096
    blockdev --flushbufs "$from" "$to"
    cmp -n 4161536 -i 32768:2097152 "$from" "$to"
    fill "$from4k"
    ddpt --xcopy if="$from4k" of="$to4k" bs=4096 count=1024
    same "$from4k" "$to4k" 4194304
"#;

/// Each command by itself: ddpt's own loop over them (`--odx`) counts with numbers that it never set. Both send a range one byte
/// before its place, so that 32 blocks from LBA 0 on mean 8192, and no other LBA is what it says. The first token is told from what
/// is written behind it.
const DDPTCTL: &str = r#"
    fill "$from"
    dd if="$from" of=/tmp/before bs=1M count=4 iflag=direct
    says 'transfer count of 8192' ddptctl --pt=0,32 --rtype=pit-def --rtf=/tmp/token "$from"
    fill "$from"
    says 'transfer count of 8192' ddptctl --rtf=/tmp/token --wut=0,32 "$to"
    blockdev --flushbufs "$to"
    cmp -n 4194304 /tmp/before "$to"
    fill "$from4k"
    ddptctl --immed --pt=0,4 "$from4k"
    says 'transfer count of 1024' ddptctl --poll --rtf=/tmp/token4k "$from4k"
    says 'transfer count of 1024' ddptctl --rtf=/tmp/token4k --wut=0,4 "$to4k"
    same "$from4k" "$to4k" 4194304
"#;
