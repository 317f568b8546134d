//! A device that says DPOFUA takes both bits.

use super::{READS, WRITES};
use crate::client::Data;
use crate::suite::check::{self, Outcome, equal_bytes, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("dpo-and-fua", "SBC-4, Mode parameter header, DPOFUA", Needs::ScratchDisk, |bench| Box::pin(dpo_and_fua(bench)))];

/// DPO and FUA in byte 1.
const FLAGS: [u8; 3] = [0x10, 0x08, 0x18];

async fn dpo_and_fua(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(16)?;
    let mode = check::good("MODE SENSE(6)", disk.command(&[0x1A, 0, 0x3F, 0, 4, 0], Data::In(4)).await?)?;
    if mode.get(2).is_none_or(|parameter| parameter & 0x10 == 0) {
        return skip("DPOFUA is 0");
    }
    for flags in FLAGS {
        for (read, write) in READS[1..].iter().zip(&WRITES[1..]) {
            let data = disk.pattern(flags, 2);
            let cdb = write.cdb(flags, 5, 2).expect("small numbers fit");
            let what = format!("{} with flags {flags:02x}", write.name);
            check::good(&what, disk.command(&cdb, Data::Out(data.clone())).await?)?;
            let cdb = read.cdb(flags, 5, 2).expect("small numbers fit");
            let what = format!("{} with flags {flags:02x}", read.name);
            let got = check::good(&what, disk.command(&cdb, Data::In(2 * disk.block())).await?)?;
            equal_bytes(&what, &got, &data)?;
        }
    }
    Ok(())
}
