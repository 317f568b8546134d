//! Metrics as Prometheus reads them: every line parses, and what a session did is what is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use offhost_tests::programs::Target;
use protocol::units::{BlockLength, Lba};
use sim::client::{Client, Data, Options};

/// Body of `GET /metrics`.
fn scrape(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: target\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// Samples by name and labels as written. Text format 0.0.4: a family is described before its samples, and only once. Names as
/// Prometheus wants them: one prefix, base units, a counter's ends with `_total` and nothing else's does, no label of no value.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families: Vec<String> = Vec::new();
    let mut helped = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!families.contains(&name.to_owned()), "{name} is described twice");
            assert!(name.starts_with("offhost_") && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            for wrong in ["_ms", "_us", "_milliseconds", "_kb", "_mib", "_count", "_sum", "_bucket", "_info_total"] {
                assert!(!name.ends_with(wrong), "{name}");
            }
            assert_eq!(helped.as_deref(), Some(name), "{name} is explained before it is typed");
            families.push(name.to_owned());
            continue;
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(words.ends_with('.') && words.len() > 10, "{line}");
            helped = Some(name.to_owned());
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        let name = key.split('{').next().unwrap();
        let family = families.last().unwrap_or_else(|| panic!("{line} is of no family"));
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} stands below {family}"));
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        assert!(key.contains('{') == key.ends_with('}'), "{line}");
        assert!(!key.contains("=\"\""), "{line} has a label of no value");
        assert!(samples.insert(key.to_owned(), value.parse().unwrap()).is_none(), "{key} is there twice");
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_did_is_told_in_a_form_that_parses() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let metrics = port.to_string();
    let flags = [
        "--disk",
        "disk.img:4MiB",
        "--tape",
        "shelf:64MiB",
        "--library",
        "vault:64MiB,drives=1,slots=4,mail=1,cartridges=2",
        "--metrics",
        &metrics,
    ];
    let target = Target::start(folder.path(), &flags).unwrap();
    let client = Client::connect(&target.url(0).parse().unwrap(), Options::named("iqn.2026-01.test:metrics")).await.unwrap();
    let unit = client.unit();
    unit.test_unit_ready().await.unwrap();
    for lba in 0..10 {
        unit.write(Lba(lba), Bytes::from(vec![7; 512]), BlockLength::B512).await.unwrap();
    }
    for lba in 0..5 {
        unit.read(Lba(lba), 2, BlockLength::B512).await.unwrap();
    }
    // READ(10) behind the end.
    let refused = unit.command(&[0x28, 0, 0, 1, 0, 0, 0, 0, 1, 0], Data::In(512)).await.unwrap();
    assert!(refused.good("READ(10)").is_err());

    let tape = client.lun(1);
    let _attention = tape.command(&[0; 6], Data::None).await.unwrap();
    for cdb in [&[0x0A, 0, 0, 4, 0, 0], &[0x0A, 0, 0, 2, 0, 0]] {
        let bytes = Bytes::from(vec![1; usize::from(u16::from_be_bytes([cdb[3], cdb[4]]))]);
        tape.command(cdb, Data::Out(bytes)).await.unwrap().good("WRITE(6)").unwrap();
    }
    // Three filemarks, back to the beginning, and the first record.
    tape.command(&[0x10, 0, 0, 0, 3, 0], Data::None).await.unwrap().good("WRITE FILEMARKS(6)").unwrap();
    tape.command(&[0x01, 0, 0, 0, 0, 0], Data::None).await.unwrap().good("REWIND").unwrap();
    tape.command(&[0x08, 0, 0, 4, 0, 0], Data::In(1024)).await.unwrap().good("READ(6)").unwrap();
    let changer = client.lun(2);
    let _attention = changer.command(&[0; 6], Data::None).await.unwrap();
    // From the first slot into the drive; then from the same slot, which is empty now.
    let load = [0xA5, 0, 0, 0, 0x10, 0, 0x01, 0, 0, 0, 0, 0];
    changer.command(&load, Data::None).await.unwrap().good("MOVE MEDIUM").unwrap();
    assert!(changer.command(&load, Data::None).await.unwrap().good("MOVE MEDIUM").is_err());

    let told = parse(&scrape(UnixStream::connect(target.control()).unwrap()));
    let name = &target.name;
    let at = |key: &str| *told.get(key).unwrap_or_else(|| panic!("no {key} in {told:#?}"));
    let lun = format!("target=\"{name}\",lun=\"0\"");
    assert_eq!(at(&format!("offhost_scsi_commands_total{{{lun},op=\"write\",status=\"good\"}}")), 10.0);
    assert_eq!(at(&format!("offhost_scsi_commands_total{{{lun},op=\"read\",status=\"good\"}}")), 5.0);
    assert_eq!(at(&format!("offhost_scsi_commands_total{{{lun},op=\"read\",status=\"check-condition\"}}")), 1.0);
    assert_eq!(at(&format!("offhost_scsi_bytes_total{{{lun},dir=\"out\"}}")), 5_120.0);
    assert!(at(&format!("offhost_scsi_bytes_total{{{lun},dir=\"in\"}}")) >= 5_120.0);
    assert_eq!(at(&format!("offhost_scsi_command_duration_seconds_count{{{lun},op=\"write\"}}")), 10.0);
    assert_eq!(at(&format!("offhost_scsi_command_duration_seconds_bucket{{{lun},op=\"write\",le=\"+Inf\"}}")), 10.0);
    assert!(at(&format!("offhost_scsi_command_duration_seconds_sum{{{lun},op=\"write\"}}")) > 0.0);
    assert_eq!(at(&format!("offhost_iscsi_target_sessions{{target=\"{name}\"}}")), 1.0);
    assert_eq!(at("offhost_iscsi_target_logins_total{result=\"accepted\"}"), 1.0);
    assert_eq!(at("offhost_iscsi_target_connections"), 1.0);
    assert_eq!(at("offhost_iscsi_target_errors_total{kind=\"protocol\"}"), 0.0);
    assert_eq!(at(&format!("offhost_scsi_commands_in_flight{{{lun}}}")), 0.0);
    let (tape, changer) = (format!("target=\"{name}\",lun=\"1\""), format!("target=\"{name}\",lun=\"2\""));
    assert_eq!(at(&format!("offhost_tape_loaded{{{tape}}}")), 1.0);
    assert_eq!(at(&format!("offhost_tape_loads_total{{{tape}}}")), 1.0);
    assert_eq!(at(&format!("offhost_tape_records_total{{{tape},dir=\"out\"}}")), 2.0);
    assert_eq!(at(&format!("offhost_tape_record_bytes_total{{{tape},dir=\"out\"}}")), 1_536.0);
    assert_eq!(at(&format!("offhost_tape_records_total{{{tape},dir=\"in\"}}")), 1.0);
    assert_eq!(at(&format!("offhost_tape_record_bytes_total{{{tape},dir=\"in\"}}")), 1_024.0);
    assert_eq!(at(&format!("offhost_tape_filemarks_total{{{tape}}}")), 3.0);
    assert_eq!(at(&format!("offhost_tape_errors_total{{{tape},op=\"write\"}}")), 0.0);
    assert_eq!(at(&format!("offhost_library_moves_total{{{changer},result=\"done\"}}")), 1.0);
    assert_eq!(at(&format!("offhost_library_moves_total{{{changer},result=\"refused\"}}")), 1.0);
    assert_eq!(at(&format!("offhost_library_moves_total{{{changer},result=\"failed\"}}")), 0.0);
    assert_eq!(at(&format!("offhost_library_elements{{{changer},kind=\"slot\"}}")), 4.0);
    assert_eq!(at(&format!("offhost_library_cartridges{{{changer},kind=\"slot\"}}")), 1.0);
    assert_eq!((at("offhost_movers{state=\"busy\"}"), at("offhost_snapshots{state=\"live\"}")), (0.0, 0.0));
    assert!(told.keys().any(|key| key.starts_with("offhost_build_info{version=")));
    assert!(told.keys().any(|key| key.starts_with("offhost_tape_position_blocks{")));
    // The same, and nothing else, over TCP.
    assert_eq!(parse(&scrape(TcpStream::connect(port).unwrap())).len(), told.len());
}
