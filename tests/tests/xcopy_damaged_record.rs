//! A record whose data rotted on the medium is reported, by a copy as by a read: framing alone would let it pass.

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use offhost_tests::copies::{RECORD, disk_to_tape};
use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::scsi::SenseKey;
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::{CscdDescriptor, List, Segment};
use sim::client::{Client, Options};

const RECORDS: u64 = 20;
const DAMAGED: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_the_tape_fails_the_copy_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--disk", "a.img:4MiB", "--tape", "shelf", "--disk", "b.img:4MiB"];
    let mut target = Target::start(folder.path(), &flags).unwrap();
    let connect = async |target: &Target| {
        let client = Client::connect(&target.url(0).parse().unwrap(), Options::named("iqn.2026-01.test:rot")).await.unwrap();
        for lun in 0..3 {
            client.lun(lun).test_unit_ready().await.unwrap();
        }
        client
    };
    let client = connect(&target).await;
    for index in 0..RECORDS {
        let data = Bytes::from(pattern::bytes(5, index, RECORD as usize));
        client.lun(0).write(Lba(index * 128), data, BlockLength::B512).await.unwrap();
    }
    client.lun(1).extended_copy(disk_to_tape(&client, 0, 1, RECORDS).await.unwrap()).await.unwrap();
    target.stop().unwrap();

    let cartridge = std::fs::read_dir(folder.path().join("shelf")).unwrap().next().unwrap().unwrap().path();
    let image = std::fs::File::options().read(true).write(true).open(cartridge.join("p0.tap")).unwrap();
    let place = DAMAGED * (u64::from(RECORD) + 8) + 4 + 777;
    let mut byte = [0];
    image.read_exact_at(&mut byte, place).unwrap();
    image.write_all_at(&[byte[0] ^ 0x10], place).unwrap();

    let target = Target::start(folder.path(), &flags).unwrap();
    let client = connect(&target).await;
    let restore = async |records: u64| {
        let mut list = List::new(2);
        let source = list.cscd(CscdDescriptor::tape(client.lun(1).cscd_designator().await.unwrap()));
        let destination = list.cscd(CscdDescriptor::disk(client.lun(2).cscd_designator().await.unwrap(), 512));
        let blocks = (records * 128) as u16;
        list.push(Segment::StreamToBlock { source, destination, transfer_length: RECORD, blocks, to: Lba(0) });
        client.lun(1).rewind().await.unwrap();
        client.lun(1).extended_copy(list.emit().into()).await
    };
    restore(DAMAGED).await.expect("what lies before the damage is good");
    let failed = restore(RECORDS).await.expect_err("the damaged record must not pass for a good one");
    let sense = failed.sense().unwrap_or_else(|| panic!("{failed}"));
    assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)), "{failed}");
    assert_eq!(client.lun(1).read_position().await.unwrap().object, DAMAGED, "the tape stands before the damaged record");
}
