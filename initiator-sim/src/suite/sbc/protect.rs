//! Without protection information RDPROTECT and WRPROTECT must be zero.

use super::{READS, VERIFIES, WRITES};
use crate::client::Data;
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, equal_bytes, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("protect-refused", "SBC-4, RDPROTECT and WRPROTECT fields", Needs::ScratchDisk, |bench| {
        Box::pin(protect_refused(bench))
    })];

async fn protect_refused(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(16)?;
    if disk.unit.inquiry().await?.raw[5] & 0x01 != 0 {
        return skip("the disk has protection information");
    }
    let before = disk.pattern(0x99, 1);
    disk.put(2, &before).await?;
    for command in READS[1..].iter().chain(&WRITES[1..]).chain(&VERIFIES) {
        for protect in [1_u8, 3, 7] {
            let cdb = command.cdb(protect << 5, 2, 1).expect("small numbers fit");
            let data = match command.name.as_bytes()[0] {
                b'R' => Data::In(disk.block()),
                b'W' => Data::Out(disk.pattern(protect, 1)),
                _ => Data::None,
            };
            let reply = disk.command(&cdb, data).await?;
            if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_OPERATION_CODE) {
                continue;
            }
            check::illegal_request(&format!("{} with protection {protect}", command.name), &reply, &[INVALID_FIELD_IN_CDB])?;
        }
    }
    equal_bytes("the block", &disk.get(2, 1).await?, &before)
}
