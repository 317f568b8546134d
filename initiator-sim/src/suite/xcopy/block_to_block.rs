//! Disk to disk: segment types 02h and 0Ah.

use super::parameters::{DC, block_to_block, bytes_to_bytes};
use super::{CopyDisk, wants};
use crate::suite::check::{self, Outcome, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("block-to-block", "SPC-4, Block device to block device operations (02h)", Needs::CopyDisk, |bench| {
        Box::pin(copies(bench))
    }),
    Case::new("block-to-block-several", "SPC-4, EXTENDED COPY command processing, order of segments", Needs::CopyDisk, |bench| {
        Box::pin(several(bench))
    }),
    Case::new("block-to-block-nothing", "SPC-4, BLOCK DEVICE NUMBER OF BLOCKS field, zero", Needs::CopyDisk, |bench| {
        Box::pin(nothing(bench))
    }),
    Case::new("bytes-to-bytes", "SPC-4, Block device with offset to block device with offset (0Ah)", Needs::CopyDisk, |bench| {
        Box::pin(bytes(bench))
    }),
];

/// 02h with either meaning of the count: blocks are of one length here.
async fn copies(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    for dc in [0, DC] {
        let (data, around) = (copy.disk.pattern(dc, 100), copy.disk.pattern(0x55, 104));
        copy.disk.put(0, &data).await?;
        copy.disk.put(1998, &around).await?;
        let list = copy.list().with(block_to_block(dc, (0, 0), 100, 0, 2000));
        check::good("02h of 100 blocks", copy.run(&list).await?)?;
        let (block, got) = (copy.disk.block() as usize, copy.disk.get(1998, 104).await?);
        equal_bytes("the blocks copied", &got[2 * block..102 * block], &data)?;
        equal_bytes("the blocks before", &got[..2 * block], &around[..2 * block])?;
        equal_bytes("the blocks behind", &got[102 * block..], &around[102 * block..])?;
        equal_bytes("the source", &copy.disk.get(0, 100).await?, &data)?;
    }
    Ok(())
}

/// The second segment copies what the first one wrote.
async fn several(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    copy.wants_two_segments().await?;
    let data = copy.disk.pattern(0x5E, 64);
    copy.disk.put(0, &data).await?;
    copy.disk.put(1000, &copy.disk.pattern(1, 64)).await?;
    let list = copy.list().with(block_to_block(0, (0, 0), 64, 0, 1000)).with(block_to_block(0, (0, 0), 64, 1000, 3000));
    check::good("two segments", copy.run(&list).await?)?;
    equal_bytes("the end of the chain", &copy.disk.get(3000, 64).await?, &data)
}

async fn nothing(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    let before = copy.disk.pattern(2, 4);
    copy.disk.put(2000, &before).await?;
    let list = copy.list().with(block_to_block(0, (0, 0), 0, 0, 2000));
    check::good("02h of no blocks", copy.run(&list).await?)?;
    check::good("a list without segments", copy.run(&copy.list()).await?)?;
    check::good("PARAMETER LIST LENGTH 0", copy.disk.unit.extended_copy_reply(bytes::Bytes::new()).await?)?;
    equal_bytes("the destination", &copy.disk.get(2000, 4).await?, &before)
}

async fn bytes(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x0A]).await?;
    let block = copy.disk.block() as usize;
    let (data, around) = (copy.disk.pattern(0x0A, 8), copy.disk.pattern(0xA0, 8));
    copy.disk.put(10, &data).await?;
    copy.disk.put(2000, &around).await?;
    // From 100 bytes into the source, three blocks and 77 bytes, to 33 bytes into the destination's second block.
    let length = 3 * block + 77;
    let list = copy.list().with(bytes_to_bytes((0, 0), length as u32, (10, 100), (2001, 33)));
    check::good("0Ah of a byte range", copy.run(&list).await?)?;
    let mut expected = around.to_vec();
    expected[block + 33..block + 33 + length].copy_from_slice(&data[100..100 + length]);
    equal_bytes("the destination and what is around it", &copy.disk.get(2000, 8).await?, &expected)
}
