//! SYNCHRONIZE CACHE of all, of a range, and beyond the end.

use crate::client::{Data, cdb16};
use crate::suite::check::{self, LBA_OUT_OF_RANGE, Outcome, supported};
use crate::suite::{Bench, Case, Needs};
use protocol::units::Lba;

pub const CASES: &[Case] =
    &[Case::new("synchronize-cache", "SBC-4, SYNCHRONIZE CACHE(10) and (16) commands", Needs::Disk, |bench| {
        Box::pin(synchronize_cache(bench))
    })];

async fn synchronize_cache(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    check::good("SYNCHRONIZE CACHE(10) of all", disk.command(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None).await?)?;
    check::good("SYNCHRONIZE CACHE(10) of a range", disk.command(&[0x35, 0, 0, 0, 0, 1, 0, 0, 2, 0], Data::None).await?)?;
    let reply = supported("SYNCHRONIZE CACHE(16)", disk.command(&cdb16(0x91, 0, Lba(0), 0), Data::None).await?)?;
    check::good("SYNCHRONIZE CACHE(16) of all", reply)?;
    let reply = disk.command(&cdb16(0x91, 0, Lba(disk.last()), 2), Data::None).await?;
    check::illegal_request("SYNCHRONIZE CACHE(16) beyond the end", &reply, &[LBA_OUT_OF_RANGE])
}
