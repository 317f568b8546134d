//! A stock Linux kernel proves who it is and asks the target for proof, and keeps a disk that is reached over two portals.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use offhost_tests::guest::{Guest, MINUTE, images};
use offhost_tests::programs::Target;
use offhost_tests::skip;

/// Two portals of one group; discovery and login each with proof in both directions.
const CONFIG: &str = r#"
data = "data"

[discovery.chap]
user = "finder"
secret_file = "finder"
mutual_user = "found"
mutual_secret_file = "found"

[[portal]]
listen = "127.0.0.1:0"

[[portal]]
listen = "127.0.0.1:0"

[[target]]
name = "iqn.2026-01.test:two-portals"

[[target.access]]
initiators = ["iqn.2026-01.test:*"]

[target.access.chap]
user = "initiator"
secret_file = "initiator"
mutual_user = "target"
mutual_secret_file = "target"

[[target.lun]]
disk = "disk.img"
size = "256MiB"
"#;

fn configure(folder: &Path) {
    fs::write(folder.join("offhost.toml"), CONFIG).unwrap();
    for name in ["finder", "found", "initiator", "target"] {
        let path = folder.join(name);
        fs::write(&path, format!("secret-of-{name}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn chap_both_ways_and_a_disk_that_outlives_either_of_its_paths() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let target = Target::configured(folder.path(), "offhost.toml").unwrap();
    let mut guest = Guest::boot(images, folder.path()).unwrap();
    guest.run(&AUTHENTICATE.replace("PORTAL", &target.portal), 3 * MINUTE).unwrap();
    let complaints = guest.complaints(&[]).unwrap();
    assert!(complaints.is_empty(), "the kernel complained:\n{}", complaints.join("\n"));
    guest.run(PATHS, 4 * MINUTE).unwrap();
}

/// Each secret wrong once: the target refuses the initiator, or the initiator the target; then all right.
const AUTHENTICATE: &str = r#"
    start_iscsid \
        'discovery.sendtargets.auth.authmethod = CHAP' \
        'discovery.sendtargets.auth.username = finder' 'discovery.sendtargets.auth.password = secret-of-finder' \
        'discovery.sendtargets.auth.username_in = found' 'discovery.sendtargets.auth.password_in = secret-of-found' \
        'node.session.auth.authmethod = CHAP' 'node.session.auth.chap_algs = SHA3-256,SHA256,SHA1,MD5' \
        'node.session.auth.username = initiator' 'node.session.auth.password = secret-of-initiator' \
        'node.session.auth.username_in = target' 'node.session.auth.password_in = secret-of-target' \
        'node.session.timeo.replacement_timeout = 5'
    found=$(iscsiadm -m discovery -t sendtargets -p PORTAL)
    [ "$(echo "$found" | wc -l)" = 2 ] || die "two portals expected: $found"
    setting() { iscsiadm -m node -o update -n "node.session.auth.$1" -v "$2"; }
    for name in password password_in; do
        setting "$name" 'not-that-secret'
        status=0
        iscsiadm -m node -p PORTAL --login || status=$?
        # 24: authorization failed. 19: the initiator broke off, since the target could not prove itself.
        [ "$status" = 24 ] || [ "$status" = 19 ] || die "login with a wrong $name ended with $status"
        [ "$name" = password ] && setting "$name" secret-of-initiator || setting "$name" secret-of-target
    done
    for algorithm in MD5 SHA1 SHA256 SHA3-256; do
        setting chap_algs "$algorithm"
        iscsiadm -m node -p PORTAL --login
        iscsiadm -m node -p PORTAL --logout
    done
    iscsiadm -m node --login
    udevadm settle --timeout=60
"#;

/// fio on the multipath device while one path is cut, and then the other.
const PATHS: &str = r#"
    printf 'defaults {\n user_friendly_names yes\n find_multipaths no\n polling_interval 2\n no_path_retry 30\n}\nblacklist {\n devnode "^vd"\n}\n' \
        >/etc/multipath.conf
    multipathd
    paths() { multipathd show paths raw format '%i %d %t %T'; }
    running() { [ "$(paths | grep -c 'active ready')" = "$1" ]; }
    trap 'paths' EXIT
    await 60 running 2
    multipath -ll
    udevadm settle --timeout=60
    disk=$(echo /dev/mapper/mpath?)
    mkfs.ext4 -q "$disk"
    mount "$disk" /mnt
    fio --name=verify --directory=/mnt --size=24m --bs=8k --rw=randwrite --rate=,512k --ioengine=libaio --iodepth=8 --direct=1 \
        --verify=crc32c --verify_fatal=1 --verify_backlog=256 --fallocate=none &
    writer=$!
    mapped=/dev/$(basename "$(readlink "$disk")")
    await_writes "$mapped"
    for port in $(iscsiadm -m session | sed 's/.*:\([0-9]*\),.*/\1/'); do
        cut_network "$port"
        await 60 running 1
        await_writes "$mapped"
        mend_network
        await 60 running 2
    done
    wait "$writer"
    umount /mnt
    e2fsck -fn "$disk"
    multipath -f "$disk"
    logout
"#;
