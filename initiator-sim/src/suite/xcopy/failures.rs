//! Segments that fail: COPY ABORTED, the segment's number, and what came before stays done.

use super::parameters::{block_to_block, blocks_and_stream, filemarks, inline_to_stream};
use super::{
    CopyDisk, DISK, DiskAndTape, INCORRECT_DEVICE_TYPE, INLINE_EXCEEDED, INVALID_OPERATION, NOT_REACHABLE, TAPE,
    THIRD_PARTY_DEVICE_FAILURE, UNREACHABLE, aborted, wants,
};
use crate::suite::bench::{pattern, write_records};
use crate::suite::check::{Outcome, ensure, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("cscd-index-unknown", "SPC-4, CSCD IDs", Needs::CopyDisk, |bench| Box::pin(index_unknown(bench))),
    Case::new("cscd-not-reachable", "SPC-4, COPY TARGET DEVICE NOT REACHABLE", Needs::CopyDisk, |bench| {
        Box::pin(not_reachable(bench))
    }),
    Case::new("cscd-of-other-type", "SPC-4, INCORRECT COPY TARGET DEVICE TYPE", Needs::CopyDisk, |bench| {
        Box::pin(other_type(bench))
    }),
    Case::new("copy-beyond-end", "SPC-4, CSCD command failure", Needs::CopyDisk, |bench| Box::pin(beyond_end(bench))),
    Case::new("inline-data-exceeded", "SPC-4, Inline data to stream device operation (04h)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(inline_exceeded(bench))
    }),
    Case::new("filemarks-to-disk", "SPC-4, Write filemarks operation (10h)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(filemarks_to_disk(bench))
    }),
    Case::new(
        "tape-ends-too-early",
        "SPC-4, CSCD command failure; SSC-4, END-OF-DATA DETECTED",
        Needs::CopyDiskAndTape,
        |bench| Box::pin(tape_ends(bench)),
    ),
];

async fn index_unknown(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    for id in [1_u16, 5, 0x0800, 0x7FFF] {
        let list = copy.list().with(block_to_block(0, (0, id), 1, 0, 2000));
        aborted(&format!("destination CSCD id {id:04X}h with one descriptor"), &copy.run(&list).await?, &[UNREACHABLE], 0)?;
    }
    Ok(())
}

async fn not_reachable(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    copy.wants_two_segments().await?;
    let before = copy.disk.pattern(0x0D, 4);
    copy.disk.put(2000, &before).await?;
    copy.disk.put(0, &copy.disk.pattern(0x0E, 4)).await?;
    let mut stranger = copy.cscd.clone();
    // The last byte of the designator: nobody here has that name.
    let last = 7 + usize::from(stranger.0[7]);
    stranger.0[last] ^= 0xFF;
    let mut list = copy.list();
    list.cscds.push(stranger);
    let list = list.with(block_to_block(0, (0, 0), 4, 0, 2000)).with(block_to_block(0, (0, 1), 4, 0, 3000));
    aborted("the second segment to a stranger", &copy.run(&list).await?, &[NOT_REACHABLE, UNREACHABLE], 1)?;
    let got = copy.disk.get(2000, 4).await?;
    // A copy manager that resolves all names first has done nothing; else the first segment is done whole.
    ensure(got == before || got == copy.disk.pattern(0x0E, 4), || "the first segment was done in part".into())
}

async fn other_type(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    let mut list = copy.list().with(block_to_block(0, (0, 1), 1, 0, 2000));
    let mut tape = copy.cscd.clone();
    // The disk's name with PERIPHERAL DEVICE TYPE tape and a tape's parameters.
    tape.0[1] = 0x01;
    tape.0[28..].fill(0);
    list.cscds.push(tape);
    aborted("a disk named as a tape", &copy.run(&list).await?, &[INCORRECT_DEVICE_TYPE, INVALID_OPERATION], 0)
}

async fn beyond_end(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    copy.wants_two_segments().await?;
    let data = copy.disk.pattern(0xBE, 8);
    copy.disk.put(0, &data).await?;
    let list = copy.list().with(block_to_block(0, (0, 0), 8, 0, 2000)).with(block_to_block(0, (0, 0), 8, copy.disk.last(), 3000));
    let codes = [THIRD_PARTY_DEVICE_FAILURE, NOT_REACHABLE];
    aborted("the second segment reads beyond the end", &copy.run(&list).await?, &codes, 1)?;
    equal_bytes("the first segment's destination", &copy.disk.get(2000, 8).await?, &data)?;
    let list = copy.list().with(block_to_block(0, (0, 0), 8, 0, copy.disk.last()));
    aborted("a segment that writes beyond the end", &copy.run(&list).await?, &codes, 0)
}

async fn inline_exceeded(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x04]).await?;
    let list = devices.list().inline(&pattern(1, 100)).with(inline_to_stream(0, TAPE, 64, 64, 64));
    aborted("04h beyond the inline data", &devices.run(&list).await?, &[INLINE_EXCEEDED], 0)?;
    super::super::ssc::stands_at(&devices.tape, "after the failure", 0).await
}

async fn filemarks_to_disk(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x10]).await?;
    let list = devices.list().with(filemarks(DISK, 1));
    aborted("10h to a disk", &devices.run(&list).await?, &[INVALID_OPERATION], 0)
}

/// What could be read has been written, and the tape stands at the end of data.
async fn tape_ends(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x01]).await?;
    let disk = &devices.disk;
    let records = [pattern(1, disk.block() as usize), pattern(2, disk.block() as usize)];
    write_records(&devices.tape, &records).await?;
    devices.tape.rewind().await?;
    let list = devices.list().with(blocks_and_stream(0x01, 0, (TAPE, DISK), disk.block(), 4, 300));
    aborted("01h of four blocks where two records are", &devices.run(&list).await?, &[THIRD_PARTY_DEVICE_FAILURE], 0)?;
    equal_bytes("the two blocks", &disk.get(300, 2).await?, &records.concat())?;
    super::super::ssc::stands_at(&devices.tape, "at the end of data", 2).await
}
