//! Media that come and go, SANITIZE, and writes that are all or nothing. Skipped where a target does not offer them.

use protocol::scsi::{SenseKey, Status};

use crate::client::Data;
use crate::suite::bench::vpd_or_skip;
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes, refused, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("eject-and-load", "SBC-4, START STOP UNIT command; Removable medium", Needs::ScratchDisk, |bench| {
        Box::pin(eject_and_load(bench))
    }),
    Case::new("write-atomic", "SBC-4, WRITE ATOMIC(16) command; Block Limits VPD page", Needs::ScratchDisk, |bench| {
        Box::pin(write_atomic(bench))
    }),
    Case::new("sanitize-overwrite", "SBC-4, SANITIZE command, OVERWRITE", Needs::ScratchDisk, |bench| Box::pin(sanitize(bench))),
    Case::new("no-defects-or-a-list", "SBC-4, READ DEFECT DATA(10) command", Needs::Disk, |bench| Box::pin(defects(bench))),
];

const EJECT: [u8; 6] = [0x1B, 0, 0, 0, 0x02, 0];
const LOAD: [u8; 6] = [0x1B, 0, 0, 0, 0x03, 0];
const PREVENT: [u8; 6] = [0x1E, 0, 0, 0, 1, 0];
const ALLOW: [u8; 6] = [0x1E, 0, 0, 0, 0, 0];
/// MEDIUM NOT PRESENT, and with the tray closed or open.
const NO_MEDIUM: [(u8, u8); 3] = [(0x3A, 0), (0x3A, 1), (0x3A, 2)];

async fn eject_and_load(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    if !disk.unit.inquiry().await?.removable {
        return skip("RMB is 0: the medium cannot be removed");
    }
    let other = bench.disk().await?;
    let block = disk.pattern(0x33, 1);
    disk.put(0, &block).await?;
    check::good("PREVENT", disk.command(&PREVENT, Data::None).await?)?;
    let reply = other.command(&EJECT, Data::None).await?;
    check::illegal_request("eject while another prevents it", &reply, &[(0x53, 0x02)])?;
    check::good("ALLOW", disk.command(&ALLOW, Data::None).await?)?;
    check::good("eject", disk.command(&EJECT, Data::None).await?)?;
    for cdb in [&[0; 6][..], &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let reply = disk.command(cdb, Data::In(8)).await?;
        refused("a command that wants a medium", &reply, SenseKey::NotReady, &NO_MEDIUM)?;
    }
    disk.unit.inquiry().await?;
    check::good("load", disk.command(&LOAD, Data::None).await?)?;
    let reply = other.command(&[0; 6], Data::None).await?;
    refused("TEST UNIT READY of another after the load", &reply, SenseKey::UnitAttention, &[(0x28, 0)])?;
    disk.unit.test_unit_ready().await?;
    equal_bytes("the block after the load", &disk.get(0, 1).await?, &block)
}

async fn write_atomic(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let page = vpd_or_skip(&disk.unit, 0xB0).await?;
    let maximum = page.get(44..48).map_or(0, |field| u32::from_be_bytes(field.try_into().expect("four bytes")));
    if maximum == 0 {
        return skip("VPD page B0h: MAXIMUM ATOMIC TRANSFER LENGTH is 0");
    }
    let blocks = maximum.min(64) as u16;
    let cdb = |lba: u64, blocks: u16| {
        let mut cdb = [0; 16];
        cdb[0] = 0x9C;
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        cdb[12..14].copy_from_slice(&blocks.to_be_bytes());
        cdb
    };
    let data = disk.pattern(0x61, blocks.into());
    check::good("WRITE ATOMIC(16)", disk.command(&cdb(8, blocks), Data::Out(data.clone())).await?)?;
    equal_bytes("what was written", &disk.get(8, blocks.into()).await?, &data)?;
    let reply = disk.command(&cdb(disk.last(), 2), Data::Out(disk.pattern(0, 2))).await?;
    check::illegal_request("WRITE ATOMIC(16) beyond the end", &reply, &[check::LBA_OUT_OF_RANGE])?;
    if let Ok(more) = u16::try_from(maximum + 1) {
        let reply = disk.command(&cdb(0, more), Data::Out(disk.pattern(0, more.into()))).await?;
        check::illegal_request("more than the maximum", &reply, &[check::INVALID_FIELD_IN_CDB])?;
    }
    Ok(())
}

async fn sanitize(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    if disk.capacity.bytes() > 256 << 20 {
        return skip("the disk has more than 256 MiB: it would take long");
    }
    let list = [&[0x01, 0, 0, 2][..], &[0xAA, 0x55]].concat();
    let cdb = [0x48, 0x81, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    let reply = check::supported("SANITIZE", disk.command(&cdb, Data::Out(list.into())).await?)?;
    if crate::suite::bench::is_illegal_request(&reply) {
        return skip("the target does not have SANITIZE, OVERWRITE");
    }
    check::good("SANITIZE with IMMED", reply)?;
    loop {
        let reply = disk.command(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::In(disk.block())).await?;
        if reply.status == Status::Good {
            break;
        }
        refused("READ(10) while it runs", &reply, SenseKey::NotReady, &[(0x04, 0x1B)])?;
        let sense = disk.unit.request_sense(false).await?;
        // It may have ended in between.
        ensure(sense.get(2).is_some_and(|key| matches!(key & 0x0F, 0 | 2)), || format!("REQUEST SENSE: {sense:02x?}"))?;
        disk.unit.inquiry().await?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let pattern = [0xAA, 0x55].repeat(disk.block() as usize / 2);
    equal_bytes("the first block", &disk.get(0, 1).await?, &pattern)?;
    equal_bytes("the last block", &disk.get(disk.last(), 1).await?, &pattern)
}

async fn defects(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let reply = disk.command(&[0x37, 0, 0x18, 0, 0, 0, 0, 0, 255, 0], Data::In(255)).await?;
    let data = check::good("READ DEFECT DATA(10)", check::supported("READ DEFECT DATA(10)", reply)?)?;
    let length = data.get(2..4).map_or(0, |length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    equal("DEFECT LIST LENGTH", data.len() >= (4 + length).min(255), true)
}
