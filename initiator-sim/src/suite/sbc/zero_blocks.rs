//! A transfer length of zero moves nothing and is no error; in READ(6) and WRITE(6) it means 256.

use super::{READS, VERIFIES, WRITES};
use crate::client::Data;
use crate::suite::check::{self, LBA_OUT_OF_RANGE, Outcome, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("zero-blocks", "SBC-4, READ(10) command, TRANSFER LENGTH", Needs::ScratchDisk, |bench| {
        Box::pin(zero_blocks(bench))
    }),
    Case::new("zero-blocks-beyond-end", "SBC-4, READ(10) command, LOGICAL BLOCK ADDRESS", Needs::Disk, |bench| {
        Box::pin(beyond_end(bench))
    }),
    Case::new("zero-means-256-in-6", "SBC-4, READ(6) command, TRANSFER LENGTH", Needs::Disk, |bench| Box::pin(means_256(bench))),
];

async fn zero_blocks(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(16)?;
    let before = disk.pattern(0x50, 2);
    disk.put(3, &before).await?;
    for command in READS[1..].iter().chain(&WRITES[1..]).chain(&VERIFIES) {
        let cdb = command.cdb(0, 3, 0).expect("small numbers fit");
        let reply = disk.command(&cdb, Data::None).await?;
        if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_OPERATION_CODE) {
            continue;
        }
        equal("bytes that came", check::good(&format!("{} of no blocks", command.name), reply)?.len(), 0)?;
    }
    equal_bytes("the blocks named", &disk.get(3, 2).await?, &before)
}

async fn beyond_end(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    // One behind the first address that does not exist: no reading of the standard allows it.
    let lba = disk.last() + 2;
    for read in &READS[1..] {
        let Some(cdb) = read.cdb(0, lba, 0) else { continue };
        let reply = disk.command(&cdb, Data::None).await?;
        check::illegal_request(&format!("{} of no blocks beyond the end", read.name), &reply, &[LBA_OUT_OF_RANGE])?;
    }
    Ok(())
}

async fn means_256(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(256)?;
    let cdb = READS[0].cdb(0, 0, 0).expect("small numbers fit");
    let data = check::good("READ(6) with TRANSFER LENGTH 0", disk.command(&cdb, Data::In(256 * disk.block())).await?)?;
    equal("bytes that came", data.len(), 256 * disk.block() as usize)
}
