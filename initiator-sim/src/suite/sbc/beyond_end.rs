//! An address beyond the last block is refused with its exact sense data, and nothing is written.

use super::{READS, Sized, VERIFIES, WRITES};
use crate::client::Data;
use crate::suite::bench::Disk;
use crate::suite::check::{self, LBA_OUT_OF_RANGE, Outcome, equal, equal_bytes, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("read-beyond-end", "SBC-4, READ(10) command, LOGICAL BLOCK ADDRESS", Needs::Disk, |bench| {
        Box::pin(read_beyond(bench))
    }),
    Case::new("write-beyond-end", "SBC-4, WRITE(10) command, LOGICAL BLOCK ADDRESS", Needs::ScratchDisk, |bench| {
        Box::pin(write_beyond(bench))
    }),
    Case::new("verify-beyond-end", "SBC-4, VERIFY(10) command, LOGICAL BLOCK ADDRESS", Needs::Disk, |bench| {
        Box::pin(verify_beyond(bench))
    }),
];

/// Address and count of transfers that do not lie on the disk.
fn outside(disk: &Disk) -> [(u64, u32); 4] {
    let last = disk.last();
    [(last + 1, 1), (last, 2), (last - 1, 4), (u64::MAX, 1)]
}

async fn read_beyond(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    for (lba, blocks) in outside(&disk) {
        for cdb in READS.iter().filter_map(|read| read.cdb(0, lba, blocks)) {
            let reply = disk.command(&cdb, Data::In(blocks * disk.block())).await?;
            equal("bytes that came", reply.data.len(), 0)?;
            check::illegal_request(&format!("{cdb:02x?}"), &reply, &[LBA_OUT_OF_RANGE])?;
        }
    }
    Ok(())
}

async fn write_beyond(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(4)?;
    let first = disk.last() - 2;
    let before = disk.pattern(0xBE, 3);
    disk.put(first, &before).await?;
    for (lba, blocks) in outside(&disk) {
        let data = disk.pattern(0xE0, blocks);
        for cdb in WRITES.iter().filter_map(|write: &Sized| write.cdb(0, lba, blocks)) {
            let reply = disk.command(&cdb, Data::Out(data.clone())).await?;
            check::illegal_request(&format!("{cdb:02x?}"), &reply, &[LBA_OUT_OF_RANGE])?;
        }
    }
    equal_bytes("the last three blocks", &disk.get(first, 3).await?, &before)
}

async fn verify_beyond(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    for (lba, blocks) in outside(&disk) {
        for cdb in VERIFIES.iter().filter_map(|verify| verify.cdb(0, lba, blocks)) {
            let reply = supported("VERIFY", disk.command(&cdb, Data::None).await?)?;
            check::illegal_request(&format!("{cdb:02x?}"), &reply, &[LBA_OUT_OF_RANGE])?;
        }
    }
    Ok(())
}
