//! COMPARE AND WRITE writes when all bytes agree, and says where they do not.

use crate::client::Data;
use crate::suite::bench::vpd_or_skip;
use crate::suite::check::{self, Outcome, equal, equal_bytes, refused, skip, supported};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::SenseKey;

pub const CASES: &[Case] = &[Case::new("compare-and-write", "SBC-4, COMPARE AND WRITE command", Needs::ScratchDisk, |bench| {
    Box::pin(compare_and_write(bench))
})];

async fn compare_and_write(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(16)?;
    if vpd_or_skip(&disk.unit, 0xB0).await?.get(5).is_none_or(|maximum| *maximum == 0) {
        return skip("MAXIMUM COMPARE AND WRITE LENGTH is 0");
    }
    let (old, new) = (disk.pattern(1, 1), disk.pattern(2, 1));
    disk.put(7, &old).await?;
    let mut cdb = [0; 16];
    (cdb[0], cdb[9], cdb[13]) = (0x89, 7, 1);
    let reply = supported("COMPARE AND WRITE", disk.command(&cdb, Data::Out([&old[..], &new].concat().into())).await?)?;
    check::good("COMPARE AND WRITE with the right bytes", reply)?;
    equal_bytes("the block", &disk.get(7, 1).await?, &new)?;
    let mut wrong = new.to_vec();
    wrong[100] ^= 0x10;
    let reply = disk.command(&cdb, Data::Out([&wrong[..], &old].concat().into())).await?;
    refused("COMPARE AND WRITE with byte 100 wrong", &reply, SenseKey::Miscompare, &[(0x1D, 0x00)])?;
    equal("INFORMATION: offset of the first byte that differs", reply.sense.and_then(|sense| sense.information), Some(100))?;
    equal_bytes("the block", &disk.get(7, 1).await?, &new)
}
