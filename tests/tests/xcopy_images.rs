//! Tape to tape by EXTENDED COPY: image copies (13h), re-blocking (03h) and what of it is held (0Eh).

use bytes::Bytes;
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::xcopy::{CscdDescriptor, CscdId, List, Segment, SegmentDescriptor};
use sim::client::{Client, Data, Options, TapeRead};
use sim::url::Url;

const FROM: u16 = 1;
const TO: u16 = 2;

async fn devices(target: &Target) -> Client {
    let url: Url = target.url(0).parse().unwrap();
    let client = Client::connect(&url, Options::named("iqn.2026-01.test:images")).await.unwrap();
    for lun in [0, FROM, TO] {
        client.lun(lun).test_unit_ready().await.unwrap();
    }
    client
}

/// Both tapes; the first has the id 0.
async fn list(client: &Client) -> (List, CscdId, CscdId) {
    let mut list = List::new(5);
    let from = list.cscd(CscdDescriptor::tape(client.lun(FROM).cscd_designator().await.unwrap()));
    let to = list.cscd(CscdDescriptor::tape(client.lun(TO).cscd_designator().await.unwrap()));
    (list, from, to)
}

/// All objects of a tape from where it stands; `None` is a filemark.
async fn objects(client: &Client, lun: u16) -> Vec<Option<Bytes>> {
    let mut objects = Vec::new();
    loop {
        match client.lun(lun).read_record(1 << 22).await.unwrap() {
            TapeRead::Record(data) => objects.push(Some(data)),
            TapeRead::Filemark => objects.push(None),
            _ => return objects,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_is_copied_record_by_record_and_mark_by_mark() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--disk", "a.img:8MiB", "--tape", "one", "--tape", "two"];
    let target = Target::start(folder.path(), &flags).unwrap();
    let client = devices(&target).await;
    let source = client.lun(FROM);
    // Records of all kinds of length: one byte, odd, larger than a mover's buffer.
    let mut expected = Vec::new();
    for (number, len) in [1_usize, 511, 65_536, (3 << 20) + 7, 10_240].into_iter().enumerate() {
        let record = Bytes::from(pattern::bytes(number as u64, 0, len));
        source.write_record(record.clone()).await.unwrap();
        expected.push(Some(record));
        for _ in 0..number % 3 {
            source.write_filemarks(1).await.unwrap();
            expected.push(None);
        }
    }

    let (mut image, from, to) = list(&client).await;
    image.push(Segment::TapeImage { source: from, destination: to, filemarks: 0 });
    source.rewind().await.unwrap();
    source.extended_copy(image.emit().into()).await.unwrap();
    client.lun(TO).rewind().await.unwrap();
    assert!(objects(&client, TO).await == expected, "the whole tape");
    assert_eq!(source.read_position().await.unwrap().object, expected.len() as u64, "the source stands at its end");

    // Two filemarks in a row end it behind them; the destination is written over from its beginning.
    let two = expected.windows(2).position(|pair| pair[0].is_none() && pair[1].is_none()).unwrap() + 2;
    image.segments = vec![Segment::TapeImage { source: from, destination: to, filemarks: 2 }.into()];
    source.rewind().await.unwrap();
    client.lun(TO).rewind().await.unwrap();
    source.extended_copy(image.emit().into()).await.unwrap();
    assert_eq!(source.read_position().await.unwrap().object, two as u64);
    client.lun(TO).rewind().await.unwrap();
    assert!(objects(&client, TO).await == expected[..two], "up to two filemarks in a row");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_is_re_blocked_and_the_last_of_it_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(folder.path(), &["--disk", "a.img:8MiB", "--tape", "one", "--tape", "two"]).unwrap();
    let client = devices(&target).await;
    let source = client.lun(FROM);
    let data = pattern::bytes(3, 0, 200_000);
    for record in data.chunks(10_000) {
        source.write_record(Bytes::copy_from_slice(record)).await.unwrap();
    }
    source.rewind().await.unwrap();
    let (mut list, from, to) = list(&client).await;
    let (source_transfer_length, transfer_length, bytes) = (10_000, 40_000, 200_000);
    let segment = Segment::StreamToStream { source: from, destination: to, source_transfer_length, transfer_length, bytes };
    list.segments = vec![SegmentDescriptor { cat: false, hold: true, segment }];
    source.extended_copy(list.emit().into()).await.unwrap();
    client.lun(TO).rewind().await.unwrap();
    let expected: Vec<_> = data.chunks(40_000).map(|record| Some(Bytes::copy_from_slice(record))).collect();
    assert!(objects(&client, TO).await == expected);
    let held = source.receive_copy_data(5, 1 << 17).await.unwrap();
    assert!(held[4..] == data[data.len() - 65_536..], "the last 64 KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_records_are_copied_as_the_data_that_is_in_them_also_onto_an_aligned_cartridge() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--disk", "a.img:8MiB", "--tape", "one", "--tape", "two,layout=aligned"];
    let target = Target::start(folder.path(), &flags).unwrap();
    let client = devices(&target).await;
    let source = client.lun(FROM);
    // Page 0Fh: DCE, and the one algorithm that there is.
    let mut compress = vec![0, 0, 0x10, 0, 0x0F, 0x0E, 0xC0, 0x80];
    compress.resize(20, 0);
    compress[15] = 0xFF;
    source.command(&[0x15, 0x10, 0, 0, 20, 0], Data::Out(compress.into())).await.unwrap().good("MODE SELECT(6)").unwrap();
    let text = Bytes::from(b"much the same ".repeat(20_000));
    // What does not become shorter lies as it is between the others.
    let expected = [Some(text.clone()), Some(pattern::bytes(3, 0, 70_000).into()), None, Some(text.slice(..9)), Some(text)];
    for object in &expected {
        match object {
            Some(record) => {
                source.write_record(record.clone()).await.unwrap();
            }
            None => {
                source.write_filemarks(1).await.unwrap();
            }
        }
    }
    let image = std::fs::read_dir(folder.path().join("one")).unwrap().next().unwrap().unwrap().path().join("p0.tap");
    assert!(std::fs::metadata(image).unwrap().len() < 100_000, "it is compressed");

    let (mut image, from, to) = list(&client).await;
    image.push(Segment::TapeImage { source: from, destination: to, filemarks: 0 });
    source.rewind().await.unwrap();
    source.extended_copy(image.emit().into()).await.unwrap();
    client.lun(TO).rewind().await.unwrap();
    assert!(objects(&client, TO).await == expected, "the whole tape");
}
