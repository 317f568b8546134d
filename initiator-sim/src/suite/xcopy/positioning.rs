//! Segments that only move a tape: 11h and 12h.

use super::parameters::{blocks_and_stream, inline_to_stream, locate, space};
use super::{DISK, DiskAndTape, TAPE};
use crate::suite::bench::{expect_record, pattern, write_records};
use crate::suite::check::{Outcome, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("locate-by-copy", "SPC-4, Locate operation (12h)", Needs::CopyDiskAndTape, |bench| Box::pin(locates(bench))),
    Case::new("space-by-copy", "SPC-4, Space operation (11h)", Needs::CopyDiskAndTape, |bench| Box::pin(spaces(bench))),
];

async fn locates(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x01, 0x12]).await?;
    let disk = &devices.disk;
    let records: Vec<_> = (0..5).map(|seed| pattern(seed, disk.block() as usize)).collect();
    write_records(&devices.tape, &records).await?;
    let list = devices
        .list()
        .with(locate(TAPE, 3))
        .with(blocks_and_stream(0x01, 0, (TAPE, DISK), disk.block(), 2, 100))
        .with(locate(TAPE, 1))
        .with(blocks_and_stream(0x01, 0, (TAPE, DISK), disk.block(), 1, 102));
    devices.copy("12h and 01h, twice", &list).await?;
    let expected = [&records[3][..], &records[4], &records[1]].concat();
    equal_bytes("the records in that order", &disk.get(100, 3).await?, &expected)?;
    super::super::ssc::stands_at(&devices.tape, "after the copy", 2).await
}

async fn spaces(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x04, 0x11]).await?;
    let records: Vec<_> = (0..4).map(|seed| pattern(seed, 100)).collect();
    write_records(&devices.tape, &records).await?;
    devices.tape.rewind().await?;
    let data = pattern(0x11, 100);
    // Over two records, one back, and write there.
    let list = devices
        .list()
        .inline(&data)
        .with(space(TAPE, 0, 2))
        .with(space(TAPE, 0, -1))
        .with(inline_to_stream(0, TAPE, 100, 0, 100));
    devices.copy("11h twice, then 04h", &list).await?;
    devices.tape.rewind().await?;
    expect_record(&devices.tape, "the record before", &records[0]).await?;
    expect_record(&devices.tape, "the record written", &data).await
}
