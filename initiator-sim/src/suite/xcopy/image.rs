//! Image copies: segment types 13h and 16h.

use super::parameters::{any, block_image};
use super::{CopyDisk, DISK, DiskAndTape, INVALID_OPERATION, TAPE, THIRD_PARTY_DEVICE_FAILURE, aborted, wants};
use crate::suite::check::{self, Outcome, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("block-image", "SPC-4, Block device image copy function (16h)", Needs::CopyDisk, |bench| Box::pin(blocks(bench))),
    Case::new("block-image-up-to-the-end", "SPC-4, Block device image copy function, c)", Needs::CopyDisk, |bench| {
        Box::pin(to_the_end(bench))
    }),
    Case::new("tape-image-wants-two-tapes", "SPC-4, Tape device image copy function (13h)", Needs::CopyDiskAndTape, |bench| {
        Box::pin(two_tapes(bench))
    }),
];

async fn blocks(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x16]).await?;
    let (data, around) = (copy.disk.pattern(0x16, 20), copy.disk.pattern(0x61, 24));
    copy.disk.put(10, &data).await?;
    copy.disk.put(1998, &around).await?;
    let list = copy.list().with(block_image((0, 0), 10, 2000, 20));
    check::good("16h of 20 blocks", copy.run(&list).await?)?;
    let block = copy.disk.block() as usize;
    let got = copy.disk.get(1998, 24).await?;
    equal_bytes("the blocks copied", &got[2 * block..22 * block], &data)?;
    equal_bytes("the blocks before", &got[..2 * block], &around[..2 * block])?;
    equal_bytes("the blocks behind", &got[22 * block..], &around[22 * block..])
}

/// "… considered a success regardless of which limit on the number of blocks copied caused the function to end."
async fn to_the_end(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x16]).await?;
    let (data, last) = (copy.disk.pattern(0x17, 4), copy.disk.last());
    copy.disk.put(0, &data).await?;
    copy.disk.put(last - 4, &copy.disk.pattern(0x71, 5)).await?;
    check::good(
        "16h of all blocks, of which four have room",
        copy.run(&copy.list().with(block_image((0, 0), 0, last - 3, 0))).await?,
    )?;
    equal_bytes("the last blocks", &copy.disk.get(last - 3, 4).await?, &data)?;
    equal_bytes(
        "the block before",
        &copy.disk.get(last - 4, 1).await?,
        &copy.disk.pattern(0x71, 5)[..copy.disk.block() as usize],
    )?;
    let beyond = copy.list().with(block_image((0, 0), last + 1, 0, 1));
    aborted("16h from beyond the end", &copy.run(&beyond).await?, &[THIRD_PARTY_DEVICE_FAILURE], 0)
}

async fn two_tapes(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    wants(&devices.tape, &[0x13]).await?;
    let run = async |ends| {
        let list = devices.list().with(any(0x13, ends, &[0; 4]));
        Ok::<_, check::Stop>(devices.tape.extended_copy_reply(list.emit().into()).await?)
    };
    aborted("from a disk", &run((DISK, TAPE)).await?, &[INVALID_OPERATION], 0)?;
    aborted("to a disk", &run((TAPE, DISK)).await?, &[INVALID_OPERATION], 0)?;
    aborted("to itself", &run((TAPE, TAPE)).await?, &[INVALID_OPERATION], 0)
}
