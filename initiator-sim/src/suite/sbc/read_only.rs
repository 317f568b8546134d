//! A write-protected disk says so, and every writing command is refused.

use super::WRITES;
use crate::client::Data;
use crate::suite::check::{self, Outcome, refused, skip};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::SenseKey;

pub const CASES: &[Case] =
    &[Case::new("read-only-refusals", "SBC-4, Write protection; Mode parameter header, WP", Needs::Disk, |bench| {
        Box::pin(read_only(bench))
    })];

/// WRITE PROTECTED and its variants: by hardware, by software.
const WRITE_PROTECTED: [(u8, u8); 3] = [(0x27, 0x00), (0x27, 0x01), (0x27, 0x02)];

async fn read_only(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    let mode = check::good("MODE SENSE(6)", disk.command(&[0x1A, 0, 0x3F, 0, 4, 0], Data::In(4)).await?)?;
    if mode.get(2).is_none_or(|parameter| parameter & 0x80 == 0) {
        return skip("WP is 0: the disk can be written");
    }
    let same = disk.get(0, 1).await?;
    for write in WRITES {
        // The bytes that are there: a target that is wrong here does no harm.
        let cdb = write.cdb(0, 0, 1).expect("small numbers fit");
        let reply = disk.command(&cdb, Data::Out(same.clone())).await?;
        refused(write.name, &reply, SenseKey::DataProtect, &WRITE_PROTECTED)?;
    }
    Ok(())
}
