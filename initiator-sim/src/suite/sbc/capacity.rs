//! READ CAPACITY(10) and (16) agree, and keep to the allocation length.

use crate::client::Data;
use crate::suite::bench::{run_good, vpd_or_skip};
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("capacity-10-and-16-agree", "SBC-4, READ CAPACITY(10) and (16) commands", Needs::Disk, |bench| {
        Box::pin(both_agree(bench))
    }),
    Case::new("capacity-allocation-length", "SBC-4, READ CAPACITY(16) command, ALLOCATION LENGTH", Needs::Disk, |bench| {
        Box::pin(allocation_length(bench))
    }),
    Case::new("block-limits-kept", "SBC-4, Block Limits VPD page, MAXIMUM TRANSFER LENGTH", Needs::Disk, |bench| {
        Box::pin(block_limits(bench))
    }),
];

fn cdb(allocation: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x9E, 0x10);
    cdb[10..14].copy_from_slice(&allocation.to_be_bytes());
    cdb
}

async fn both_agree(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let ten = run_good(&unit, "READ CAPACITY(10)", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(8)).await?;
    let sixteen = run_good(&unit, "READ CAPACITY(16)", &cdb(32), Data::In(32)).await?;
    ensure(ten.len() == 8 && sixteen.len() == 32, || format!("{} and {} bytes came", ten.len(), sixteen.len()))?;
    equal_bytes("LOGICAL BLOCK LENGTH IN BYTES", &ten[4..], &sixteen[8..12])?;
    let last = u64::from_be_bytes(sixteen[..8].try_into().expect("eight bytes"));
    let short = u32::try_from(last).unwrap_or(u32::MAX);
    equal_bytes("RETURNED LOGICAL BLOCK ADDRESS", &ten[..4], &short.to_be_bytes())
}

async fn allocation_length(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let whole = run_good(&unit, "READ CAPACITY(16)", &cdb(32), Data::In(32)).await?;
    for length in [0_u32, 8, 12] {
        let cut = run_good(&unit, "READ CAPACITY(16)", &cdb(length), Data::In(32)).await?;
        equal_bytes(&format!("READ CAPACITY(16) with allocation length {length}"), &cut, &whole[..length as usize])?;
    }
    Ok(())
}

async fn block_limits(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let page = vpd_or_skip(&disk.unit, 0xB0).await?;
    ensure(page.len() >= 16, || format!("{} bytes of block limits", page.len()))?;
    let maximum = u32::from_be_bytes([page[8], page[9], page[10], page[11]]);
    let over = u64::from(maximum) + 1;
    if maximum == 0 || over > disk.capacity.blocks.0 || over * u64::from(disk.block()) > 1 << 28 {
        return check::skip(format!("MAXIMUM TRANSFER LENGTH {maximum} cannot be exceeded on this disk"));
    }
    let blocks = over as u32;
    let cdb = crate::client::cdb16(0x88, 0, protocol::units::Lba(0), blocks);
    let reply = disk.command(&cdb, Data::In(blocks * disk.block())).await?;
    equal("data of a READ(16) over the limit", reply.data.len(), 0)?;
    check::illegal_request("READ(16) over MAXIMUM TRANSFER LENGTH", &reply, &[check::INVALID_FIELD_IN_CDB])
}
