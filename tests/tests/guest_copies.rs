//! Copy clients of others send EXTENDED COPY through a stock Linux kernel: sg_xcopy, sg_copy_results and ddpt of Debian.
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
    for (script, copies) in [(SG_XCOPY, 2), (DDPT, 2)] {
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
