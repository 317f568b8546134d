//! Where the CDB and the expected data transfer length differ, the difference is told, and no byte more is moved.

use super::{READS, WRITES};
use crate::client::{Data, Residual};
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::Status;

pub const CASES: &[Case] = &[
    Case::new("residual-read-overflow", "RFC 7143, Residual Count", Needs::Disk, |bench| Box::pin(read_overflow(bench))),
    Case::new("residual-read-underflow", "RFC 7143, Residual Count", Needs::Disk, |bench| Box::pin(read_underflow(bench))),
    Case::new("residual-write-underflow", "RFC 7143, Residual Count", Needs::ScratchDisk, |bench| {
        Box::pin(write_underflow(bench))
    }),
    Case::new("residual-write-overflow", "RFC 7143, Residual Count", Needs::ScratchDisk, |bench| Box::pin(write_overflow(bench))),
];

async fn read_overflow(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let whole = disk.get(0, 2).await?;
    for read in READS {
        let cdb = read.cdb(0, 0, 2).expect("small numbers fit");
        let reply = disk.command(&cdb, Data::In(disk.block())).await?;
        equal(
            &format!("residual of {} of two blocks with room for one", read.name),
            reply.residual,
            Residual::Overflow(disk.block()),
        )?;
        if reply.status == Status::Good {
            equal_bytes(read.name, &reply.data, &whole[..disk.block() as usize])?;
        }
    }
    Ok(())
}

async fn read_underflow(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let whole = disk.get(0, 1).await?;
    for read in READS {
        let cdb = read.cdb(0, 0, 1).expect("small numbers fit");
        let reply = disk.command(&cdb, Data::In(2 * disk.block())).await?;
        equal(
            &format!("residual of {} of one block with room for two", read.name),
            reply.residual,
            Residual::Underflow(disk.block()),
        )?;
        equal_bytes(read.name, &check::good(read.name, reply)?, &whole)?;
    }
    Ok(())
}

async fn write_underflow(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(16)?;
    for (seed, write) in WRITES.iter().enumerate() {
        let before = disk.pattern(0xC0, 2);
        disk.put(4, &before).await?;
        let data = disk.pattern(seed as u8, 2);
        let cdb = write.cdb(0, 4, 1).expect("small numbers fit");
        let reply = disk.command(&cdb, Data::Out(data.clone())).await?;
        equal(
            &format!("residual of {} of one block with two sent", write.name),
            reply.residual,
            Residual::Underflow(disk.block()),
        )?;
        check::good(write.name, reply)?;
        let (block, got) = (disk.block() as usize, disk.get(4, 2).await?);
        equal_bytes("the block written", &got[..block], &data[..block])?;
        equal_bytes("the block behind it", &got[block..], &before[block..])?;
    }
    Ok(())
}

async fn write_overflow(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(16)?;
    for (seed, write) in WRITES.iter().enumerate() {
        let before = disk.pattern(0xD0, 2);
        disk.put(4, &before).await?;
        let data = disk.pattern(seed as u8, 1);
        let cdb = write.cdb(0, 4, 2).expect("small numbers fit");
        let reply = disk.command(&cdb, Data::Out(data.clone())).await?;
        equal(
            &format!("residual of {} of two blocks with one sent", write.name),
            reply.residual,
            Residual::Overflow(disk.block()),
        )?;
        let (block, got) = (disk.block() as usize, disk.get(4, 2).await?);
        // A block that was not sent must not be made up; the one that was may be written or not.
        equal_bytes("the block that was not sent", &got[block..], &before[block..])?;
        ensure(got[..block] == data[..block] || got[..block] == before[..block], || {
            "the block sent is neither as it was nor as it was sent".into()
        })?;
    }
    Ok(())
}
