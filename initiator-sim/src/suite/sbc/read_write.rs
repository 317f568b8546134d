//! What one WRITE command puts down, every READ command brings back, and neighbours stay as they were.

use super::{READS, WRITES};
use crate::client::Data;
use crate::suite::bench::Disk;
use crate::suite::check::{self, Outcome, equal_bytes, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("read-write-6-10-12-16", "SBC-4, READ and WRITE commands", Needs::ScratchDisk, |bench| {
        Box::pin(every_length(bench))
    }),
    Case::new("read-write-large", "SBC-4, WRITE(10) command; RFC 7143, R2T", Needs::ScratchDisk, |bench| Box::pin(large(bench))),
    Case::new("read-write-last-block", "SBC-4, WRITE(16) command", Needs::ScratchDisk, |bench| Box::pin(last_block(bench))),
    Case::new("write-and-verify", "SBC-4, WRITE AND VERIFY(10) command", Needs::ScratchDisk, |bench| {
        Box::pin(write_and_verify(bench))
    }),
];

async fn every_length(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(64)?;
    for (seed, write) in WRITES.iter().enumerate() {
        let (before, data) = (disk.pattern(0xA0, 16), disk.pattern(seed as u8, 8));
        disk.put(8, &before).await?;
        let cdb = write.cdb(0, 12, 8).expect("small numbers fit");
        check::good(write.name, disk.command(&cdb, Data::Out(data.clone())).await?)?;
        for read in READS {
            let cdb = read.cdb(0, 12, 8).expect("small numbers fit");
            let got = check::good(read.name, disk.command(&cdb, Data::In(data.len() as u32)).await?)?;
            equal_bytes(&format!("{} after {}", read.name, write.name), &got, &data)?;
        }
        let edge = 4 * disk.block() as usize;
        equal_bytes("the blocks before", &disk.get(8, 4).await?, &before[..edge])?;
        equal_bytes("the blocks behind", &disk.get(20, 4).await?, &before[3 * edge..])?;
    }
    Ok(())
}

/// More than any burst, so that R2Ts and several Data-In sequences are needed.
async fn large(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let blocks = (4 << 20) / disk.block();
    disk.at_least(u64::from(blocks) + 1)?;
    let data = disk.pattern(0x4C, blocks);
    write_in(&disk, 1, &data, blocks).await?;
    equal_bytes("4 MiB read back in one command", &disk.get(1, blocks).await?, &data)?;
    let half = (blocks / 2) as usize * disk.block() as usize;
    equal_bytes("its second half", &disk.get(1 + u64::from(blocks / 2), blocks / 2).await?, &data[half..])
}

async fn write_in(disk: &Disk, lba: u64, data: &bytes::Bytes, blocks: u32) -> Outcome {
    let cdb = WRITES[1].cdb(0, lba, blocks).expect("16 bits hold 4 MiB of blocks");
    check::good("WRITE(10) of 4 MiB", disk.command(&cdb, Data::Out(data.clone())).await?).map(drop)
}

async fn last_block(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let data = disk.pattern(0x77, 1);
    disk.put(disk.last(), &data).await?;
    equal_bytes("the last block", &disk.get(disk.last(), 1).await?, &data)
}

async fn write_and_verify(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(64)?;
    let data = disk.pattern(0x2E, 2);
    let cdb = [0x2E, 0, 0, 0, 0, 40, 0, 0, 2, 0];
    let reply = supported("WRITE AND VERIFY(10)", disk.command(&cdb, Data::Out(data.clone())).await?)?;
    check::good("WRITE AND VERIFY(10)", reply)?;
    equal_bytes("what it wrote", &disk.get(40, 2).await?, &data)
}
