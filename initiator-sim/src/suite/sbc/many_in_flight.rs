//! Many commands in flight: each gets its own data.

use std::time::Duration;

use super::{READS, WRITES};
use crate::client::{Data, InFlight};
use crate::suite::bench::Disk;
use crate::suite::check::{self, Outcome, Stop, equal_bytes};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::LunAddress;

pub const CASES: &[Case] =
    &[Case::new("many-in-flight", "SAM-5, Task set management; RFC 7143, Command numbering", Needs::ScratchDisk, |bench| {
        Box::pin(many_in_flight(bench))
    })];

const COMMANDS: u32 = 64;

/// Blocks each command moves: enough for solicited and for unsolicited data.
const BLOCKS: u32 = 24;

async fn many_in_flight(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(u64::from(COMMANDS * BLOCKS))?;
    let patterns: Vec<_> = (0..COMMANDS).map(|one| disk.pattern(one as u8, BLOCKS)).collect();
    let mut writes = Vec::new();
    for (one, data) in patterns.iter().enumerate() {
        let cdb = WRITES[1].cdb(0, u64::from(BLOCKS) * one as u64, BLOCKS).expect("small numbers fit");
        writes.push(start(&disk, &cdb, Data::Out(data.clone())).await?);
    }
    for write in writes {
        check::good("one of 64 writes", write.reply().await?)?;
    }
    let mut reads = Vec::new();
    for one in 0..COMMANDS {
        let cdb = READS[1].cdb(0, u64::from(BLOCKS * one), BLOCKS).expect("small numbers fit");
        reads.push(start(&disk, &cdb, Data::In(BLOCKS * disk.block())).await?);
    }
    for (one, read) in reads.into_iter().enumerate() {
        let data = check::good("one of 64 reads", read.reply().await?)?;
        equal_bytes(&format!("read {one} of 64"), &data, &patterns[one])?;
    }
    Ok(())
}

async fn start(disk: &Disk, cdb: &[u8], data: Data) -> Outcome<InFlight> {
    let lun = LunAddress::from_number(disk.unit.number());
    disk.unit.client().start(lun, cdb, data, Duration::from_secs(60)).await.map_err(Stop::from)
}
