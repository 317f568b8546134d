//! Debian's mtdump, another reading of the SIMH format, lists the same objects on a tape that we wrote.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use offhost_tests::programs::{Target, program, run};
use offhost_tests::{has, skip};
use protocol::cartridge::scan::{Ending, Object, Walk};
use protocol::cartridge::{ObjectKind, TapePosition};
use sim::client::{Client, Options};

const TAPE: u16 = 1;

/// Records of all kinds of length up to the 65,536 bytes that mtdump takes; 0 is a filemark. Two marks end mtdump's tape.
fn lengths() -> Vec<u32> {
    let mut lengths = vec![1, 2, 3, 80, 0, 65_536, 65_535, 512, 0];
    lengths.extend((1..200).map(|n| n * 317 % 65_536 + 1));
    lengths.extend([0, 10_240, 0, 0]);
    lengths
}

/// The objects of an image, in mtdump's words.
fn in_words_of_mtdump(image: &Path, objects: &[Object]) -> String {
    let mut text = format!("Processing input file {}\nProcessing tape file 1\n", image.display());
    let (mut file, mut record) = (1, 0);
    for (n, object) in objects.iter().enumerate() {
        write!(text, "Obj {}, position {}, ", n + 1, object.at.offset).unwrap();
        match object.kind {
            ObjectKind::Record => {
                record += 1;
                writeln!(text, "record {record}, length = {0} (0x{0:X})", object.length).unwrap();
            }
            ObjectKind::Filemark if record == 0 => writeln!(text, "end of logical tape").unwrap(),
            ObjectKind::Filemark => {
                writeln!(text, "end of tape file {file}").unwrap();
                (file, record) = (file + 1, 0);
                if objects.get(n + 1).is_some_and(|next| next.kind == ObjectKind::Record) {
                    writeln!(text, "Processing tape file {file}").unwrap();
                }
            }
        }
    }
    text
}

/// What `offhost tape map --json` says, equal neighbours told apart again; 0 is a filemark.
fn lengths_in_our_map(json: &str) -> Vec<u32> {
    let map: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    let each = |stretch: &serde_json::Value| {
        let length = stretch["record"].as_u64().unwrap_or(0) as u32;
        vec![length; stretch["count"].as_u64().unwrap() as usize]
    };
    map.iter().flat_map(each).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mtdump_lists_the_objects_that_our_own_walk_finds() {
    if !has("mtdump") {
        skip!("mtdump is missing (Debian: simh)");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut target = Target::start(folder.path(), &["--disk", "disk.img:1MiB", "--tape", "shelf"]).unwrap();
    let url = target.url(TAPE).parse().unwrap();
    let tape = Client::connect(&url, Options::named("iqn.2026-01.test:mtdump")).await.unwrap().unit();
    tape.test_unit_ready().await.unwrap();
    for &length in &lengths() {
        match length {
            0 => drop(tape.write_filemarks(1).await.unwrap()),
            _ => drop(tape.write_record(Bytes::from(vec![length as u8; length as usize])).await.unwrap()),
        }
    }
    drop(tape);
    let map = run(program("offhost"), ["tape", "map", "--json", "--from", &target.url(TAPE)]).unwrap();
    assert_eq!(lengths_in_our_map(&map), lengths(), "offhost tape map");
    target.stop().unwrap();

    let image = folder.path().join("shelf/OFH001L8/p0.tap");
    let file = File::open(&image).unwrap();
    let mut walk = Walk::plain(|at: u64, into: &mut [u8]| file.read_at(into, at), TapePosition::BEGINNING);
    let objects: Vec<Object> = walk.by_ref().collect::<Result<_, _>>().unwrap();
    assert_eq!(walk.ending(), Some(Ending::End));
    assert_eq!(objects.iter().map(|object| object.length).collect::<Vec<_>>(), lengths());
    assert_eq!(run("mtdump", [&image]).unwrap(), in_words_of_mtdump(&image, &objects));
}
