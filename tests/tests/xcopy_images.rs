//! Tape to tape by EXTENDED COPY: image copies (13h) between cartridges of both layouts, re-blocking (03h) and what of it is held (0Eh).

use bytes::Bytes;
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::xcopy::{CscdDescriptor, CscdId, List, Segment, SegmentDescriptor};
use sim::client::{Client, Data, Options, TapeRead};
use sim::url::Url;
use tempfile::TempDir;

const FROM: u16 = 1;
const TO: u16 = 2;

/// Two drives, each with a cartridge of its own.
struct Rig {
    client: Client,
    _target: Target,
    folder: TempDir,
}

impl Rig {
    /// `to` says how the cartridge in the second drive is to be made.
    async fn start(to: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = ["--disk", "a.img:8MiB", "--tape", "one", "--tape", &format!("two{to}")];
        let target = Target::start(folder.path(), &flags).unwrap();
        let url: Url = target.url(0).parse().unwrap();
        let client = Client::connect(&url, Options::named("iqn.2026-01.test:images")).await.unwrap();
        for lun in [0, FROM, TO] {
            client.lun(lun).test_unit_ready().await.unwrap();
        }
        Self { client, _target: target, folder }
    }

    /// Sends one segment about two tapes, that which is read first.
    async fn copy(&self, (from, to): (u16, u16), segment: impl FnOnce(CscdId, CscdId) -> SegmentDescriptor) {
        let mut list = List::new(5);
        let mut tape = async |lun: u16| list.cscd(CscdDescriptor::tape(self.client.lun(lun).cscd_designator().await.unwrap()));
        let (source, destination) = (tape(from).await, tape(to).await);
        list.segments = vec![segment(source, destination)];
        self.client.lun(from).extended_copy(list.emit().into()).await.unwrap();
    }

    /// Copies a tape from its beginning over another, up to so many filemarks in a row; then both stand at their beginnings.
    async fn image(&self, between: (u16, u16), filemarks: u32) -> u64 {
        self.rewind().await;
        self.copy(between, |source, destination| Segment::TapeImage { source, destination, filemarks }.into()).await;
        let end = self.client.lun(between.0).read_position().await.unwrap().object;
        self.rewind().await;
        end
    }

    async fn rewind(&self) {
        for lun in [FROM, TO] {
            self.client.lun(lun).rewind().await.unwrap();
        }
    }

    /// Appends records, and a filemark for each `None`.
    async fn write(&self, lun: u16, objects: &[Option<Bytes>]) {
        for object in objects {
            match object {
                Some(record) => self.client.lun(lun).write_record(record.clone()).await.unwrap(),
                None => self.client.lun(lun).write_filemarks(1).await.unwrap(),
            };
        }
    }

    /// All objects of a tape from where it stands; `None` is a filemark.
    async fn objects(&self, lun: u16) -> Vec<Option<Bytes>> {
        let mut objects = Vec::new();
        loop {
            match self.client.lun(lun).read_record(1 << 22).await.unwrap() {
                TapeRead::Record(data) => objects.push(Some(data)),
                TapeRead::Filemark => objects.push(None),
                _ => return objects,
            }
        }
    }

    /// The image of the cartridge on a shelf.
    fn file(&self, shelf: &str) -> Vec<u8> {
        let cartridge = std::fs::read_dir(self.folder.path().join(shelf)).unwrap().next().unwrap().unwrap();
        std::fs::read(cartridge.path().join("p0.tap")).unwrap()
    }
}

/// Records of all kinds of length: one byte, odd, larger than a mover's buffer; behind each none, one or two filemarks.
fn mixture() -> Vec<Option<Bytes>> {
    let lengths = [1_usize, 511, 65_536, (3 << 20) + 7, 10_240];
    let with_marks = |(number, len): (usize, usize)| {
        let record = Bytes::from(pattern::bytes(number as u64, 0, len));
        std::iter::once(Some(record)).chain(std::iter::repeat_n(None, number % 3))
    };
    lengths.into_iter().enumerate().flat_map(with_marks).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_is_copied_record_by_record_and_mark_by_mark() {
    let rig = Rig::start("").await;
    let expected = mixture();
    rig.write(FROM, &expected).await;
    assert_eq!(rig.image((FROM, TO), 0).await, expected.len() as u64, "the source stands at its end");
    assert!(rig.objects(TO).await == expected, "the whole tape");

    // Two filemarks in a row end it behind them; the destination is written over from its beginning.
    let two = expected.windows(2).position(|pair| pair[0].is_none() && pair[1].is_none()).unwrap() + 2;
    assert_eq!(rig.image((FROM, TO), 2).await, two as u64);
    assert!(rig.objects(TO).await == expected[..two], "up to two filemarks in a row");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_copy_makes_an_aligned_tape_of_a_plain_one_and_a_plain_one_of_that() {
    let rig = Rig::start(",layout=aligned").await;
    let expected = mixture();
    rig.write(FROM, &expected).await;
    rig.client.lun(FROM).write_filemarks(0).await.unwrap();
    let plain = rig.file("one");
    rig.image((FROM, TO), 0).await;
    assert!(rig.objects(TO).await == expected, "on the aligned tape");
    let aligned = rig.file("two");
    for record in expected.iter().flatten() {
        let place = aligned.chunks(4096).position(|block| block.starts_with(&record[..record.len().min(4096)]));
        assert!(record.len() < 65_536 || place.is_some(), "a record of {} bytes begins in the middle of a block", record.len());
    }

    // Over what it came from, which was changed meanwhile.
    rig.rewind().await;
    rig.write(FROM, &[Some(Bytes::from_static(b"something else"))]).await;
    rig.image((TO, FROM), 0).await;
    assert!(rig.objects(FROM).await == expected, "and on the plain one");
    assert!(
        rig.file("one") == plain,
        "byte for byte the image that it was, with no gap in it: any reader of such images takes it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_is_re_blocked_and_the_last_of_it_is_held() {
    let rig = Rig::start("").await;
    let data = pattern::bytes(3, 0, 200_000);
    let records = |length| data.chunks(length).map(|record| Some(Bytes::copy_from_slice(record))).collect::<Vec<_>>();
    rig.write(FROM, &records(10_000)).await;
    rig.rewind().await;
    let (source_transfer_length, transfer_length, bytes) = (10_000, 40_000, 200_000);
    rig.copy((FROM, TO), |source, destination| {
        let segment = Segment::StreamToStream { source, destination, source_transfer_length, transfer_length, bytes };
        SegmentDescriptor { cat: false, hold: true, segment }
    })
    .await;
    rig.rewind().await;
    assert!(rig.objects(TO).await == records(40_000));
    let held = rig.client.lun(FROM).receive_copy_data(5, 1 << 17).await.unwrap();
    assert!(held[4..] == data[data.len() - 65_536..], "the last 64 KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_records_are_copied_as_the_data_that_is_in_them_also_onto_an_aligned_cartridge() {
    let rig = Rig::start(",layout=aligned").await;
    // Page 0Fh: DCE, and the one algorithm that there is.
    let mut compress = vec![0, 0, 0x10, 0, 0x0F, 0x0E, 0xC0, 0x80];
    compress.resize(20, 0);
    compress[15] = 0xFF;
    let select = [0x15, 0x10, 0, 0, 20, 0];
    rig.client.lun(FROM).good("MODE SELECT(6)", &select, Data::Out(compress.into())).await.unwrap();
    let text = Bytes::from(b"much the same ".repeat(20_000));
    // What does not become shorter lies as it is between the others.
    let expected = [Some(text.clone()), Some(pattern::bytes(3, 0, 70_000).into()), None, Some(text.slice(..9)), Some(text)];
    rig.write(FROM, &expected).await;
    assert!(rig.file("one").len() < 100_000, "it is compressed");
    rig.image((FROM, TO), 0).await;
    assert!(rig.objects(TO).await == expected, "the whole tape");
}
