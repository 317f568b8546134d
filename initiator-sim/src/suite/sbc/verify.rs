//! VERIFY reads the medium, and with BYTCHK compares it.

use super::VERIFIES;
use crate::client::Data;
use crate::suite::check::{self, Outcome, refused, supported};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::SenseKey;

pub const CASES: &[Case] = &[
    Case::new("verify-medium", "SBC-4, VERIFY(10) command, BYTCHK=00b", Needs::Disk, |bench| Box::pin(medium(bench))),
    Case::new("verify-bytes", "SBC-4, VERIFY(10) command, BYTCHK=01b", Needs::ScratchDisk, |bench| Box::pin(bytes(bench))),
];

/// BYTCHK = 01b.
const BYTE_CHECK: u8 = 0x02;

/// MISCOMPARE DURING VERIFY OPERATION.
const MISCOMPARE_DURING_VERIFY: (u8, u8) = (0x1D, 0x00);

async fn medium(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    for verify in VERIFIES {
        let cdb = verify.cdb(0, 0, 4).expect("small numbers fit");
        let reply = supported(verify.name, disk.command(&cdb, Data::None).await?)?;
        check::good(verify.name, reply)?;
    }
    Ok(())
}

async fn bytes(bench: &Bench) -> Outcome {
    let disk = bench.disk().await?;
    disk.at_least(16)?;
    let data = disk.pattern(0x2F, 4);
    disk.put(6, &data).await?;
    let mut other = data.to_vec();
    // The last byte: a comparison of the first block only would miss it.
    *other.last_mut().expect("four blocks") ^= 1;
    for verify in VERIFIES {
        let cdb = verify.cdb(BYTE_CHECK, 6, 4).expect("small numbers fit");
        let reply = supported(verify.name, disk.command(&cdb, Data::Out(data.clone())).await?)?;
        check::good(&format!("{} with the same bytes", verify.name), reply)?;
        let reply = disk.command(&cdb, Data::Out(other.clone().into())).await?;
        let what = format!("{} with one bit changed", verify.name);
        refused(&what, &reply, SenseKey::Miscompare, &[MISCOMPARE_DURING_VERIFY])?;
    }
    Ok(())
}
