//! Between disk and tape: segment types 00h, 01h, 04h, 08h, 09h and 10h.

use super::parameters::{blocks_and_stream, bytes_and_stream, filemarks, inline_to_stream};
use super::{DISK, DiskAndTape, TAPE};
use crate::client::TapeRead;
use crate::suite::bench::{expect_record, pattern, tape_read_text, write_records};
use crate::suite::check::{Outcome, equal, equal_bytes, fail};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("disk-to-tape-and-back", "SPC-4, segment types 00h and 01h", Needs::CopyDiskAndTape, |bench| {
        Box::pin(round_trip(bench))
    }),
    Case::new("inline-to-tape", "SPC-4, Inline data to stream device operation (04h)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(inline(bench))
    }),
    Case::new("bytes-to-tape", "SPC-4, Block device with offset to stream device (08h)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(bytes_to_tape(bench))
    }),
    Case::new("tape-to-bytes", "SPC-4, Stream device to block device with offset (09h)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(tape_to_bytes(bench))
    }),
    Case::new("filemarks-by-copy", "SPC-4, Write filemarks operation (10h)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(filemarks_by_copy(bench))
    }),
    Case::new("tape-reads-the-same-as-copied", "SPC-4, whole-block writes; SSC-4, READ(6)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(records_are_plain(bench))
    }),
];

const RECORD: u32 = 65_536;

/// Bytes of a copy that does not fit one buffer of anybody's.
const COPY: u32 = 2 << 20;

async fn round_trip(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x00, 0x01]).await?;
    let disk = &devices.disk;
    let blocks = COPY / disk.block();
    disk.at_least(u64::from(3 * blocks))?;
    let data = disk.pattern(0x01, blocks);
    disk.put(0, &data).await?;
    disk.put(u64::from(2 * blocks) - 1, &disk.pattern(0x02, blocks + 1)).await?;
    let edge = disk.get(u64::from(2 * blocks) - 1, 1).await?;

    let there = devices.list().with(blocks_and_stream(0x00, 0, (DISK, TAPE), RECORD, blocks as u16, 0));
    devices.copy("00h of 2 MiB", &there).await?;
    equal("records on the tape", super::super::ssc::object(&devices.tape).await?.0, COPY / RECORD)?;
    devices.tape.rewind().await?;
    let back = devices.list().with(blocks_and_stream(0x01, 0, (TAPE, DISK), RECORD, blocks as u16, u64::from(2 * blocks)));
    devices.copy("01h of 2 MiB", &back).await?;
    equal_bytes("what came back", &disk.get(u64::from(2 * blocks), blocks).await?, &data)?;
    equal_bytes("the block before", &disk.get(u64::from(2 * blocks) - 1, 1).await?, &edge)
}

async fn records_are_plain(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x00]).await?;
    let disk = &devices.disk;
    let blocks = 4 * RECORD / disk.block();
    let data = disk.pattern(0x09, blocks);
    disk.put(64, &data).await?;
    let list = devices.list().with(blocks_and_stream(0x00, 0, (DISK, TAPE), RECORD, blocks as u16, 64));
    devices.copy("00h of four records", &list).await?;
    devices.tape.rewind().await?;
    for (number, record) in data.chunks(RECORD as usize).enumerate() {
        expect_record(&devices.tape, &format!("record {number}"), record).await?;
    }
    ends(&devices).await
}

async fn ends(devices: &DiskAndTape) -> Outcome {
    match devices.tape.read_record(RECORD).await? {
        TapeRead::EndOfData => Ok(()),
        other => fail(format!("expected the end of data, got {}", tape_read_text(&other))),
    }
}

async fn inline(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x04]).await?;
    let data = pattern(0x04, 2048);
    let list = devices
        .list()
        .inline(&data)
        .with(inline_to_stream(0, TAPE, 1000, 0, 1000))
        .with(inline_to_stream(0, TAPE, 500, 1024, 1000));
    devices.copy("04h twice", &list).await?;
    devices.tape.rewind().await?;
    expect_record(&devices.tape, "the record of 1000 bytes", &data[..1000]).await?;
    expect_record(&devices.tape, "the first record of 500 bytes", &data[1024..1524]).await?;
    expect_record(&devices.tape, "the second record of 500 bytes", &data[1524..2024]).await?;
    ends(&devices).await
}

async fn bytes_to_tape(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x08]).await?;
    let disk = &devices.disk;
    let data = disk.pattern(0x08, 16);
    disk.put(20, &data).await?;
    let offset = disk.block() as usize + 7;
    // An offset may go over the first block.
    for (offset, length) in [(5_usize, 3000_usize), (offset, 1500)] {
        if offset > usize::from(u16::MAX) {
            continue;
        }
        devices.tape.rewind().await?;
        let place = (20, offset as u16);
        let list = devices.list().with(bytes_and_stream(0x08, 0, (DISK, TAPE), length as u32, length as u32, place));
        devices.copy(&format!("08h of {length} bytes from byte {offset}"), &list).await?;
        devices.tape.rewind().await?;
        expect_record(&devices.tape, "the record", &data[offset..offset + length]).await?;
        ends(&devices).await?;
    }
    Ok(())
}

async fn tape_to_bytes(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x09]).await?;
    let disk = &devices.disk;
    let record = pattern(0x09, 3000);
    write_records(&devices.tape, std::slice::from_ref(&record)).await?;
    devices.tape.rewind().await?;
    let around = disk.pattern(0x90, 16);
    disk.put(30, &around).await?;
    let list = devices.list().with(bytes_and_stream(0x09, 0, (TAPE, DISK), 3000, 3000, (31, 17)));
    devices.copy("09h of 3000 bytes", &list).await?;
    let mut expected = around.to_vec();
    let begin = disk.block() as usize + 17;
    expected[begin..begin + 3000].copy_from_slice(&record);
    equal_bytes("the bytes copied and what is around them", &disk.get(30, 16).await?, &expected)
}

async fn filemarks_by_copy(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x04, 0x10]).await?;
    let data = pattern(0x10, 100);
    let list = devices
        .list()
        .inline(&data)
        .with(inline_to_stream(0, TAPE, 100, 0, 100))
        .with(filemarks(TAPE, 2))
        .with(inline_to_stream(0, TAPE, 100, 0, 100));
    devices.copy("a record, two filemarks, a record", &list).await?;
    devices.tape.rewind().await?;
    expect_record(&devices.tape, "the first record", &data).await?;
    for mark in ["first", "second"] {
        match devices.tape.read_record(100).await? {
            TapeRead::Filemark => {}
            other => return fail(format!("the {mark} filemark: got {}", tape_read_text(&other))),
        }
    }
    expect_record(&devices.tape, "the last record", &data).await
}
