//! Configurations of tgt and LIO, imported, and served from what came out.

use std::path::Path;
use std::process::{Command, Output};

use offhost_tests::programs::{Target, program};
use sim::client::{Client, Options};

const TGT: &str = r#"# as tgt-admin reads it
default-driver iscsi
<target iqn.2008-09.com.example:server.target1>
    <backing-store FOLDER/a.img>
        vendor_id ACME
        scsi_sn SERIAL-A
    </backing-store>
    backing-store FOLDER/b.img
    write-cache off
    MaxBurstLength 262144
    incominguser ann sesame-opens-it
</target>
"#;

const LIO: &str = r#"{
  "fabric_modules": [],
  "storage_objects": [
    {"name": "vm", "plugin": "fileio", "dev": "FOLDER/a.img", "size": 1048576, "write_back": true, "wwn": "d2ae9e4c-4c4d",
     "attributes": {"block_size": 512, "emulate_tpu": 1}},
    {"name": "ram", "plugin": "ramdisk", "size": 1048576}],
  "targets": [{"fabric": "iscsi", "wwn": "iqn.2003-01.org.linux-iscsi.host:sn.1", "tpgs": [{"tag": 1, "enable": true,
    "attributes": {"authentication": 0, "generate_node_acls": 0},
    "luns": [{"index": 0, "storage_object": "/backstores/fileio/vm"}, {"index": 1, "storage_object": "/backstores/ramdisk/ram"}],
    "node_acls": [{"node_wwn": "iqn.1993-08.org.debian:01:abc", "mapped_luns": [{"index": 0, "tpg_lun": 0, "write_protect": false}]}],
    "portals": [{"ip_address": "127.0.0.1", "port": PORT}]}]}]
}"#;

fn import(folder: &Path, name: &str, text: &str) -> Output {
    for disk in ["a.img", "b.img"] {
        std::fs::File::create(folder.join(disk)).unwrap().set_len(1 << 20).unwrap();
    }
    let text = text.replace("FOLDER", folder.to_str().unwrap());
    std::fs::write(folder.join(name), text).unwrap();
    let mut import = Command::new(program("offhost-target"));
    import.arg("import").arg(folder.join(name)).arg("--secrets").arg(folder.join("secrets")).output().unwrap()
}

fn login_options(name: &str) -> Options {
    Options::named(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tgt_configuration_is_served_with_its_secret_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), "targets.conf", TGT);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{err}");
    assert!(!out.contains("sesame") && !err.contains("sesame"), "a secret was said: {out}{err}");
    assert!(err.contains("targets.conf: line 10: MaxBurstLength 262144 is not carried over"), "{err}");
    std::fs::write(folder.path().join("offhost.toml"), out).unwrap();
    let flags = ["--config", "offhost.toml", "--listen", "127.0.0.1:0", "--data", "data"];
    let target = Target::start_with(folder.path(), &flags, &[]).unwrap();
    assert_eq!(target.name, "iqn.2008-09.com.example:server.target1");
    let status = offhost_tests::control::status(&target.control()).unwrap();
    assert_eq!(status.luns.iter().map(|lun| lun.lun).collect::<Vec<_>>(), [1, 2], "tgt counts from 1");
    let refused = Client::connect(&target.url(1).parse().unwrap(), login_options("iqn.2026-01.test:a")).await;
    assert!(refused.is_err(), "without the secret nobody comes in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lio_configuration_is_served_to_its_initiators_only() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = import(folder.path(), "saveconfig.json", &LIO.replace("PORT", &port.to_string()));
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && err.contains("ramdisk"), "{err}");
    std::fs::write(folder.path().join("offhost.toml"), out).unwrap();
    let target = Target::start_with(folder.path(), &["--config", "offhost.toml", "--data", "data"], &[]).unwrap();
    assert_eq!(target.portal, format!("127.0.0.1:{port}"));
    let url = target.url(0).parse().unwrap();
    assert!(Client::connect(&url, login_options("iqn.1993-08.org.debian:01:other")).await.is_err());
    let client = Client::connect(&url, login_options("iqn.1993-08.org.debian:01:abc")).await.unwrap();
    client.unit().test_unit_ready().await.unwrap();
    assert_eq!(client.unit().report_luns().await.unwrap().len(), 1);
    let serial = client.unit().vpd(0x80).await.unwrap();
    assert!(serial.ends_with(b"d2ae9e4c-4c4d"), "{serial:?}");
}

#[test]
fn what_is_no_configuration_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, words) in [
        ("targets.conf", "<target iqn.a:b>\n  incominguser alone\n</target>\n", "targets.conf: line 2:"),
        ("saveconfig.json", "{\"targets\": [\n{]}", "line 2 column 2"),
    ] {
        let output = import(folder.path(), name, text);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && err.contains(words) && output.stdout.is_empty(), "{err}");
    }
}
