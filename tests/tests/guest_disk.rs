//! A stock Linux kernel trusts a disk LUN: it finds it, puts file systems on it, and reads back what it wrote.
//!
//! Nothing in the guest knows of us: open-iscsi, the `sd` driver, file systems and tools are Debian's.

use offhost_tests::guest::{MINUTE, images, logged_in};
use offhost_tests::skip;

#[test]
fn file_systems_of_a_stock_kernel_keep_what_is_written_to_a_disk() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--disk", "ext4.img:256MiB", "--disk", "xfs.img:512MiB,block=4096", "--disk", "ntfs.img:128MiB"];
    let (_target, mut guest) = logged_in(images, folder.path(), &flags);
    guest.run(INQUIRE, 2 * MINUTE).unwrap();
    guest.run(FILE_SYSTEMS, 5 * MINUTE).unwrap();
    guest.log_out(&[]);
}

/// What sg3-utils can ask of a disk.
const INQUIRE: &str = r#"
    disk=$(device 0 block)
    says 'Product identification: DISK' sg_inq "$disk"
    for page in 0 0x80 0x83 0x86 0x8f 0xb0 0xb1 0xb2; do sg_vpd -p "$page" "$disk"; done
    says 'Device size: 268435456 bytes' sg_readcap -l "$disk"
    says 'Logical block length=4096' sg_readcap "$(device 1 block)"
    sg_luns "$disk"
    sg_turs "$disk"
    sg_requests "$disk"
    sg_modes -a "$disk"
    sg_logs -a "$disk"
    says 'Extended copy' sg_opcodes "$disk"
    sg_sync "$disk"
    sg_verify --count=64 "$disk"
    lsscsi -g
"#;

/// Data checked by fio while written and, behind a remount, by sums; then the file system's own check.
const FILE_SYSTEMS: &str = r#"
    keep() { # KIND MKFS CHECK DEVICE [OPTION…]
        local kind=$1 make=$2 check=$3 disk=$4
        shift 4
        $make "$disk"
        mount -t "$kind" "$@" "$disk" /mnt
        fio --name=verify --directory=/mnt --size=24m --bs=16k --rw=randwrite --ioengine=libaio --iodepth=16 --direct=1 \
            --verify=crc32c --verify_fatal=1 --fallocate=none
        cp -r /usr/lib/udev /mnt/copy
        (cd /mnt && find copy -type f -exec sha256sum {} +) >/tmp/sums
        umount /mnt
        mount -t "$kind" "$@" "$disk" /mnt
        (cd /mnt && sha256sum --quiet -c /tmp/sums)
        rm -r /mnt/copy
        [ "$kind" = ntfs3 ] || fstrim -v /mnt
        umount /mnt
        $check "$disk"
    }
    keep ext4 'mkfs.ext4 -q' 'e2fsck -fn' "$(device 0 block)"
    keep xfs 'mkfs.xfs -q' 'xfs_repair -n' "$(device 1 block)"
    # Debian 12's own kernel has no ntfs3.
    ! modinfo ntfs3 || keep ntfs3 'mkntfs -fFq' 'ntfsfix -n' "$(device 2 block)"
"#;
