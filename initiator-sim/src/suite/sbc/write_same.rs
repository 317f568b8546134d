//! WRITE SAME repeats one block, and refuses what the Block Limits page excludes.

use crate::client::Data;
use crate::suite::bench::vpd_or_skip;
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, LBA_OUT_OF_RANGE, Outcome, equal_bytes, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("write-same", "SBC-4, WRITE SAME(10) and (16) commands", Needs::ScratchDisk, |bench| Box::pin(write_same(bench))),
    Case::new("write-same-ndob", "SBC-4, WRITE SAME(16) command, NDOB", Needs::ScratchDisk, |bench| Box::pin(ndob(bench))),
    Case::new("write-same-refusals", "SBC-4, WRITE SAME(16) command; Block Limits VPD page, WSNZ", Needs::ScratchDisk, |bench| {
        Box::pin(refusals(bench))
    }),
];

fn ten(lba: u8, blocks: u8) -> [u8; 10] {
    [0x41, 0, 0, 0, 0, lba, 0, 0, blocks, 0]
}

fn sixteen(flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    crate::client::cdb16(0x93, flags, protocol::units::Lba(lba), blocks)
}

async fn write_same(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(64)?;
    for (seed, cdb) in [ten(12, 8).to_vec(), sixteen(0, 12, 8).to_vec()].iter().enumerate() {
        let (before, one) = (disk.pattern(0x93, 16), disk.pattern(seed as u8, 1));
        disk.put(8, &before).await?;
        let reply = supported("WRITE SAME", disk.command(cdb, Data::Out(one.clone())).await?)?;
        check::good("WRITE SAME of eight blocks", reply)?;
        equal_bytes("the eight blocks", &disk.get(12, 8).await?, &one.repeat(8))?;
        let edge = 4 * disk.block() as usize;
        equal_bytes("the blocks before", &disk.get(8, 4).await?, &before[..edge])?;
        equal_bytes("the blocks behind", &disk.get(20, 4).await?, &before[3 * edge..])?;
    }
    Ok(())
}

/// NDOB = 1: no Data-Out buffer, as if it were a block of zeros.
async fn ndob(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(64)?;
    disk.put(8, &disk.pattern(0x93, 4)).await?;
    let reply = supported("WRITE SAME(16)", disk.command(&sixteen(0x01, 8, 4), Data::None).await?)?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == INVALID_FIELD_IN_CDB) {
        return check::skip("the target does not have NDOB");
    }
    check::good("WRITE SAME(16) with NDOB", reply)?;
    equal_bytes("the four blocks", &disk.get(8, 4).await?, &vec![0; 4 * disk.block() as usize])
}

async fn refusals(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let one = disk.pattern(0, 1);
    let beyond = sixteen(0, disk.last(), 2);
    let reply = supported("WRITE SAME(16)", disk.command(&beyond, Data::Out(one.clone())).await?)?;
    check::illegal_request("WRITE SAME(16) beyond the end", &reply, &[LBA_OUT_OF_RANGE])?;
    let page = vpd_or_skip(&disk.unit, 0xB0).await?;
    let non_zero = page.get(4).is_some_and(|flags| flags & 1 != 0);
    if non_zero {
        let reply = disk.command(&sixteen(0, 0, 0), Data::Out(one.clone())).await?;
        check::illegal_request("WRITE SAME(16) of 0 blocks with WSNZ", &reply, &[INVALID_FIELD_IN_CDB])?;
    }
    let maximum = page.get(36..44).map_or(0, |field| u64::from_be_bytes(field.try_into().expect("eight bytes")));
    let over = maximum.saturating_add(1);
    if maximum != 0 && over <= disk.capacity.blocks.0 && u32::try_from(over).is_ok() {
        let reply = disk.command(&sixteen(0, 0, over as u32), Data::Out(one)).await?;
        check::illegal_request("WRITE SAME(16) over MAXIMUM WRITE SAME LENGTH", &reply, &[INVALID_FIELD_IN_CDB])?;
    }
    Ok(())
}
