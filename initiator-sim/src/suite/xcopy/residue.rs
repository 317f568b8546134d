//! What is left over at the end of a segment: CAT and the PAD bits. SPC-4, table "PAD and CAT bit definitions".

use super::parameters::{CAT, bytes_and_stream, filemarks, inline_to_stream, stream_to_discard};
use super::{DISK, DiskAndTape, INEXACT_SEGMENT, TAPE, aborted};
use crate::client::TapeRead;
use crate::suite::bench::{expect_record, pattern, tape_read_text, write_records};
use crate::suite::check::{Outcome, equal_bytes, fail};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("residue-neither-cat-nor-pad", "SPC-4, PAD and CAT bit definitions", Needs::CopyDiskAndTape, |bench| {
        Box::pin(inexact(bench))
    }),
    Case::new("residue-kept-by-cat", "SPC-4, PAD and CAT bit definitions", Needs::CopyDiskAndTape, |bench| Box::pin(kept(bench))),
    Case::new("residue-cat-on-last-segment", "SPC-4, PAD and CAT bit definitions", Needs::CopyDiskAndTape, |bench| {
        Box::pin(cat_on_last(bench))
    }),
    Case::new("residue-padded", "SPC-4, PAD and CAT bit definitions", Needs::CopyDiskAndTape, |bench| Box::pin(padded(bench))),
    Case::new("residue-dropped-by-source-pad", "SPC-4, PAD and CAT bit definitions", Needs::CopyDiskAndTape, |bench| {
        Box::pin(dropped(bench))
    }),
    Case::new("residue-kept-over-filemark", "SPC-4, segment type specific requirements, 10h", Needs::CopyDiskAndTape, |bench| {
        Box::pin(over_filemark(bench))
    }),
    Case::new("discard-then-restore", "SPC-4, Stream device to discard (06h) with CAT", Needs::CopyDiskAndTape, |bench| {
        Box::pin(discard_then_restore(bench))
    }),
    Case::new(
        "edge-blocks-leave-no-residue",
        "SPC-4, Block device with offset to stream device (08h)",
        Needs::CopyDiskAndTape,
        |bench| Box::pin(no_slack(bench)),
    ),
];

async fn devices(bench: &Bench, codes: &[u8]) -> Outcome<DiskAndTape> {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(codes).await?;
    Ok(devices)
}

async fn read_expecting(devices: &DiskAndTape, records: &[&[u8]]) -> Outcome {
    devices.tape.rewind().await?;
    for (number, record) in records.iter().enumerate() {
        expect_record(&devices.tape, &format!("record {number}"), record).await?;
    }
    match devices.tape.read_record(65_536).await? {
        TapeRead::EndOfData => Ok(()),
        other => fail(format!("behind {} records: expected the end of data, got {}", records.len(), tape_read_text(&other))),
    }
}

async fn inexact(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x04]).await?;
    let data = pattern(1, 1500);
    let list = devices.list().inline(&data).with(inline_to_stream(0, TAPE, 1000, 0, 1500));
    aborted("04h of 1500 bytes in records of 1000", &devices.run(&list).await?, &[INEXACT_SEGMENT], 0)?;
    // The whole record was written before the residue was found.
    read_expecting(&devices, &[&data[..1000]]).await
}

async fn kept(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x04]).await?;
    let data = pattern(2, 2000);
    let list = devices
        .list()
        .inline(&data)
        .with(inline_to_stream(CAT, TAPE, 1000, 0, 300))
        .with(inline_to_stream(CAT, TAPE, 1000, 300, 900))
        .with(inline_to_stream(0, TAPE, 1000, 1200, 800));
    devices.copy("04h three times, CAT on the first two", &list).await?;
    read_expecting(&devices, &[&data[..1000], &data[1000..]]).await
}

async fn cat_on_last(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x04]).await?;
    let data = pattern(3, 1200);
    let list = devices.list().inline(&data).with(inline_to_stream(CAT, TAPE, 1000, 0, 1200));
    devices.copy("04h with CAT as the last segment", &list).await?;
    read_expecting(&devices, &[&data[..1000]]).await
}

async fn padded(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x04]).await?;
    let data = pattern(4, 1200);
    let mut list = devices.list().inline(&data).with(inline_to_stream(0, TAPE, 1000, 0, 1200));
    list.cscds[usize::from(TAPE)] = devices.tape_cscd.clone().padded();
    devices.copy("04h with PAD at the destination", &list).await?;
    let mut second = data[1000..].to_vec();
    second.resize(1000, 0);
    read_expecting(&devices, &[&data[..1000], &second]).await
}

/// Source PAD=1, destination PAD=0, CAT=0: both residues are dropped without error.
async fn dropped(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x08]).await?;
    let data = devices.disk.pattern(5, 8);
    devices.disk.put(40, &data).await?;
    let mut list = devices.list().with(bytes_and_stream(0x08, 0, (DISK, TAPE), 1000, 1200, (40, 0)));
    list.cscds[usize::from(DISK)] = devices.disk_cscd.clone().padded();
    devices.copy("08h with PAD at the source only", &list).await?;
    read_expecting(&devices, &[&data[..1000]]).await
}

/// 10h keeps residue as if CAT were set: the mark goes before it.
async fn over_filemark(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x04, 0x10]).await?;
    let data = pattern(6, 1000);
    let list = devices
        .list()
        .inline(&data)
        .with(inline_to_stream(CAT, TAPE, 1000, 0, 400))
        .with(filemarks(TAPE, 1))
        .with(inline_to_stream(0, TAPE, 1000, 400, 600));
    devices.copy("residue over a filemark", &list).await?;
    devices.tape.rewind().await?;
    match devices.tape.read_record(1000).await? {
        TapeRead::Filemark => {}
        other => return fail(format!("expected the filemark first, got {}", tape_read_text(&other))),
    }
    expect_record(&devices.tape, "the record behind it", &data).await
}

/// How a file is taken out of the middle of records.
async fn discard_then_restore(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x06, 0x09]).await?;
    let disk = &devices.disk;
    let records = [pattern(7, 4096), pattern(8, 4096)];
    write_records(&devices.tape, &records).await?;
    devices.tape.rewind().await?;
    let around = disk.pattern(0x70, 24);
    disk.put(50, &around).await?;
    // The last segment's source residue is dropped by CAT: 5000 bytes end in the middle of the second record.
    let list = devices.list().with(stream_to_discard(CAT, TAPE, 4096, 1001)).with(bytes_and_stream(
        0x09,
        CAT,
        (TAPE, DISK),
        4096,
        5000,
        (50, 3),
    ));
    devices.copy("06h of 1001 bytes, then 09h of 5000", &list).await?;
    let tape = records.concat();
    let mut expected = around.to_vec();
    expected[3..5003].copy_from_slice(&tape[1001..6001]);
    equal_bytes("the bytes restored and what is around them", &disk.get(50, 24).await?, &expected)
}

/// What 08h read of its first and last block beyond the range must not appear anywhere.
async fn no_slack(bench: &Bench) -> Outcome {
    let devices = devices(bench, &[0x08]).await?;
    let disk = &devices.disk;
    let data = disk.pattern(9, 16);
    disk.put(80, &data).await?;
    let block = disk.block() as usize;
    let list = devices.list().with(bytes_and_stream(0x08, CAT, (DISK, TAPE), 1000, 700, (80, 11))).with(bytes_and_stream(
        0x08,
        0,
        (DISK, TAPE),
        1000,
        300,
        (85, 22),
    ));
    devices.copy("08h twice, CAT on the first", &list).await?;
    let second = 5 * block + 22;
    read_expecting(&devices, &[&[&data[11..711], &data[second..second + 300]].concat()]).await
}
