//! LIO, the target of the Linux kernel, judged by our conformance suites: it runs in a guest, and `offhost-sim` beside it.
//!
//! What LIO does is not ours to mend: the verdicts make its columns of `initiator-sim/CONFORMANCE.md`, and show that the cases
//! of copies ask of another maker's target nothing that only we do. They are left in `build/lio.json`.
//!
//!     cargo test -p offhost-tests --test guest_lio -- --ignored

use std::fs;

use offhost_tests::guest::{Guest, MINUTE, images};
use offhost_tests::programs::program;
use offhost_tests::skip;

#[test]
#[ignore = "takes 9 minutes"]
fn lio_copies_as_our_cases_want() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::boot(images, folder.path()).unwrap();
    fs::copy(program("offhost-sim"), guest.folder.join("offhost-sim")).unwrap();
    guest.run(SERVE, MINUTE).unwrap();
    guest.run(JUDGE, 20 * MINUTE).unwrap();
    let text = fs::read_to_string(guest.folder.join("lio.json")).unwrap();
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../build/lio.json"), &text).unwrap();
    let verdicts: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    for wanted in ["operating-parameters", "block-to-block", "cscd-type-unknown", "segment-type-unknown", "segments-too-many"] {
        let verdict = verdicts.iter().find(|verdict| verdict["suite"] == "xcopy" && verdict["name"] == wanted);
        assert_eq!(verdict.map(|verdict| &verdict["result"]), Some(&"pass".into()), "{wanted}: {verdict:?}");
    }
}

/// Two disks of 64 MiB, by the kernel's own interface. Without a serial number LIO has no name that EXTENDED COPY can use.
const SERVE: &str = r#"
    # Where it keeps reservations.
    mkdir -p /var/target/pr /var/target/alua
    modprobe target_core_mod
    modprobe target_core_file
    modprobe iscsi_target_mod
    mount -t configfs none /sys/kernel/config
    core=/sys/kernel/config/target
    group=$core/iscsi/iqn.2026-01.test:lio/tpgt_1
    mkdir -p "$group"
    for lun in 0 1; do
        disk=$core/core/fileio_$lun/disk$lun
        mkdir -p "$disk"
        truncate -s 64M /tmp/disk$lun.img
        echo "fd_dev_name=/tmp/disk$lun.img,fd_dev_size=67108864" >"$disk/control"
        echo "6001405000000$lun" >"$disk/wwn/vpd_unit_serial"
        echo 1 >"$disk/enable"
        mkdir "$group/lun/lun_$lun"
        ln -s "$disk" "$group/lun/lun_$lun/disk"
    done
    echo 0 >"$group/attrib/authentication"
    echo 1 >"$group/attrib/generate_node_acls"
    echo 1 >"$group/attrib/cache_dynamic_acls"
    echo 0 >"$group/attrib/demo_mode_write_protect"
    mkdir "$group/np/10.0.2.15:3260"
    echo 1 >"$group/enable"
"#;

/// Reservations and sessions last: what a case leaves where it fails stands in the way of others.
const JUDGE: &str = r#"
    /host/offhost-sim --timeout 20 conformance iscsi://10.0.2.15:3260/iqn.2026-01.test:lio/0 \
        --suite xcopy,sbc,login,spc,session --destroy --json >/host/lio.json 2>/host/lio.log || [ $? = 1 ]
"#;
