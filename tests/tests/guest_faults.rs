//! A stock Linux kernel whose network is cut, and whose target is killed and comes again, under a file system in use.
//!
//! Short interruptions are to be invisible above the SCSI layer. One that is longer than the initiator's patience
//! (`node.session.timeo.replacement_timeout`, 120 s by default) is an I/O error, and nothing that was synchronized is lost.
//! The tests that cut for 130 s take minutes:
//!
//!     cargo test -p offhost-tests --test guest_faults -- --ignored

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use offhost_tests::guest::{Guest, Images, Job, MINUTE, images};
use offhost_tests::programs::Target;
use offhost_tests::skip;

const FLAGS: [&str; 2] = ["--disk", "disk.img:256MiB"];

/// What open-iscsi and the kernel say of a connection that is gone: that much is true.
const OF_THE_CUT: [&str; 5] = ["connection", "session recovery", "ping timeout", "detected conn error", "sd 0:0:0:0: [sda] tag#"];

/// A guest with ext4 on the disk of a target, mounted.
fn mounted(images: Images, folder: &Path, settings: &str) -> (Target, Guest) {
    let target = Target::start(folder, &FLAGS).unwrap();
    let mut guest = Guest::boot(images, folder).unwrap();
    let script = format!("start_iscsid {settings}\nlogin {}\n{MOUNT}", target.portal);
    guest.run(&script, 2 * MINUTE).unwrap();
    (target, guest)
}

const MOUNT: &str = r#"
    disk=$(device 0 block)
    mkfs.ext4 -q "$disk"
    mount -o errors=remount-ro "$disk" /mnt
    cp -r /usr/lib/udev /mnt/synchronized
    (cd /mnt && find synchronized -type f -exec sha256sum {} +) >/tmp/sums
    sync -f /mnt
"#;

/// Writes slowly enough to last through what comes, verifies as it goes, and all of it at the end.
fn write_on(guest: &mut Guest, seconds: u32) -> Job {
    let kib = seconds * 512;
    let fio = format!(
        "fio --name=verify --directory=/mnt --size={kib}k --bs=8k --rw=randwrite --rate=,512k --ioengine=libaio --iodepth=8 \
         --direct=1 --verify=crc32c --verify_fatal=1 --verify_backlog=256 --fallocate=none"
    );
    let job = guest.start(&fio).unwrap();
    guest.run(WRITES, MINUTE).unwrap();
    job
}

/// Until a write has been answered that was not before.
const WRITES: &str = "await_writes $(device 0 block)";

/// Drops every packet for so long.
fn cut(guest: &mut Guest, time: Duration) {
    guest.run("cut_network", MINUTE).unwrap();
    sleep(time);
    guest.run("mend_network", MINUTE).unwrap();
}

/// The writer's data, the file system and what was there before are whole.
fn check(guest: &mut Guest, writer: Job) {
    let ended = guest.finish(writer, 6 * MINUTE).unwrap();
    assert_eq!(ended.status, 0, "the writer saw an error:\n{}", ended.output);
    guest.run(WHOLE, 2 * MINUTE).unwrap();
    let complaints = guest.complaints(&OF_THE_CUT).unwrap();
    assert!(complaints.is_empty(), "the kernel complained:\n{}", complaints.join("\n"));
}

const WHOLE: &str = r#"
    disk=$(device 0 block)
    umount /mnt
    mount -o ro "$disk" /mnt
    (cd /mnt && sha256sum --quiet -c /tmp/sums)
    umount /mnt
    e2fsck -fn "$disk"
    logout
"#;

#[test]
fn cuts_of_5_and_30_seconds_and_a_killed_target_reach_no_file_system() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut target, mut guest) = mounted(images, folder.path(), "");
    let writer = write_on(&mut guest, 90);
    cut(&mut guest, Duration::from_secs(5));
    guest.run(WRITES, 2 * MINUTE).unwrap();
    cut(&mut guest, Duration::from_secs(30));
    guest.run(WRITES, 2 * MINUTE).unwrap();
    target.kill();
    let _target = Target::start_on(folder.path(), &target.portal, &FLAGS).unwrap();
    guest.run(WRITES, 2 * MINUTE).unwrap();
    check(&mut guest, writer);
}

#[test]
#[ignore = "takes 4 minutes"]
fn a_cut_longer_than_the_replacement_timeout_is_an_error_that_loses_nothing_synchronized() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = mounted(images, folder.path(), "");
    let writer = write_on(&mut guest, 300);
    // The timeout runs from the kernel's notice of the cut, up to 10 s late: NOP-Out every 5 s, an answer within 5 s.
    cut(&mut guest, Duration::from_secs(135));
    let ended = guest.finish(writer, MINUTE).unwrap();
    assert_ne!(ended.status, 0, "the kernel was to give up:\n{}", ended.output);
    let log = guest.run("dmesg", MINUTE).unwrap();
    assert!(log.contains("session recovery timed out after 120 secs"), "{log}");
    guest.run(RECOVER, 3 * MINUTE).unwrap();
}

const RECOVER: &str = r#"
    disk=$(device 0 block)
    logged_in() { [ "$(cat /sys/class/iscsi_session/session*/state)" = LOGGED_IN ]; }
    await 100 logged_in
    umount /mnt
    e2fsck -fp "$disk" || [ $? = 1 ]
    e2fsck -fn "$disk"
    mount "$disk" /mnt
    (cd /mnt && sha256sum --quiet -c /tmp/sums)
    cp -r /usr/lib/udev /mnt/again
    umount /mnt
    logout
"#;

#[test]
#[ignore = "takes 6 minutes"]
fn a_cut_shorter_than_the_replacement_timeout_is_no_error() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_target, mut guest) = mounted(images, folder.path(), "'node.session.timeo.replacement_timeout = 300'");
    let writer = write_on(&mut guest, 60);
    cut(&mut guest, Duration::from_secs(130));
    guest.run(WRITES, 2 * MINUTE).unwrap();
    check(&mut guest, writer);
}
