//! A stock Linux kernel over IPv6, with a CRC32C over every header and every data segment, and by ALUA's choice among paths.

use std::fs;
use std::net::TcpListener;

use offhost_tests::guest::{Guest, MINUTE, images};
use offhost_tests::programs::Target;
use offhost_tests::skip;

/// Two portals of one target: each a target port of its own, as ALUA wants it.
const CONFIG: &str = r#"
data = "data"

[[portal]]
listen = "127.0.0.1:0"
tag = 1

[[portal]]
listen = "[::1]:0"
tag = 2

[[target]]
name = "iqn.2026-01.test:wire"

[[target.lun]]
disk = "disk.img"
size = "128MiB"
"#;

#[test]
fn digests_ipv6_and_alua_work() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    if TcpListener::bind("[::1]:0").is_err() {
        skip!("this machine has no IPv6");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("offhost.toml"), CONFIG).unwrap();
    let target = Target::configured(folder.path(), "offhost.toml").unwrap();
    let mut guest = Guest::boot(images, folder.path()).unwrap();
    guest.run(&DIGESTS.replace("PORTAL", &target.portal), 3 * MINUTE).unwrap();
    let complaints = guest.complaints(&[]).unwrap();
    assert!(complaints.is_empty(), "the kernel complained:\n{}", complaints.join("\n"));
    guest.run(&ACCESS.replace("PORTAL", &target.portal), 2 * MINUTE).unwrap();
}

/// The host's ::1 is slirp's fec0::2, which discovery cannot tell: its record is made by hand.
const DIGESTS: &str = r#"
    ip -6 addr add fec0::15/64 dev eth0 nodad
    start_iscsid 'node.conn[0].iscsi.HeaderDigest = CRC32C' 'node.conn[0].iscsi.DataDigest = CRC32C'
    port=$(iscsiadm -m discovery -t sendtargets -p PORTAL | sed -n 's/^\[::1\]:\([0-9]*\),2 .*/\1/p')
    [ -n "$port" ] || die 'no portal of IPv6 was told'
    iscsiadm -m node -o new -T iqn.2026-01.test:wire -p "[fec0::2]:$port,2"
    iscsiadm -m node -p "[fec0::2]:$port,2" --login
    udevadm settle --timeout=60
    says "Current Portal: \[fec0:.*:0002\]:$port,2" iscsiadm -m session -P 2
    says 'HeaderDigest: CRC32C' iscsiadm -m session -P 2
    says 'DataDigest: CRC32C' iscsiadm -m session -P 2
    disk=$(device 0 block)
    for kind in randwrite write; do
        fio --name=verify --filename="$disk" --size=24m --bs=4k-256k --rw=$kind --ioengine=libaio --iodepth=16 --direct=1 \
            --verify=crc32c --verify_fatal=1
    done
"#;

/// Each port is a group of its own, active and optimized; multipath groups its paths by that.
const ACCESS: &str = r#"
    disk=$(device 0 block)
    says 'active/optimized' sg_rtpg -d "$disk"
    says 'TPGS=1' sg_inq "$disk"
    iscsiadm -m node -p PORTAL --login
    udevadm settle --timeout=60
    says 'target port group id : 0x2' sg_rtpg -d "$disk"
    printf '%s\n' 'defaults {' 'find_multipaths no' 'prio alua' 'path_grouping_policy group_by_prio' 'user_friendly_names yes' '}' \
        'blacklist {' 'devnode "^vd"' '}' >/etc/multipath.conf
    multipathd
    both() { [ "$(multipathd show paths raw format '%t %T' | grep -c 'active ready')" = 2 ]; }
    trap 'multipathd show paths' EXIT
    await 60 both
    # One group of two paths: "active/optimized" is worth 50.
    says "hwhandler='1 alua'" multipath -ll
    [ "$(multipath -ll | grep -c prio=50)" = 1 ]
    dd if=/usr/bin/bash of=/dev/mapper/mpatha bs=64k count=16 oflag=direct conv=fsync
    cmp -n 1048576 /usr/bin/bash /dev/mapper/mpatha
"#;
