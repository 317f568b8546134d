//! REPORT LUNS names the unit under test, and its length field does not follow the allocation length.

use crate::client::Data;
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::LunAddress;

pub const CASES: &[Case] = &[
    Case::new("report-luns-list", "SPC-4, REPORT LUNS command", Needs::Unit, |bench| Box::pin(list(bench))),
    Case::new("report-luns-allocation-length", "SPC-4, REPORT LUNS parameter data", Needs::Unit, |bench| {
        Box::pin(allocation_length(bench))
    }),
    Case::new("report-luns-select-report", "SPC-4, REPORT LUNS command, SELECT REPORT", Needs::Unit, |bench| {
        Box::pin(select_report(bench))
    }),
];

fn cdb(select_report: u8, allocation: u32) -> [u8; 12] {
    let mut cdb = [0; 12];
    (cdb[0], cdb[2]) = (0xA0, select_report);
    cdb[6..10].copy_from_slice(&allocation.to_be_bytes());
    cdb
}

async fn list(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let luns = unit.report_luns().await?;
    let own = LunAddress::from_number(unit.number());
    ensure(luns.iter().any(|lun| *lun == own || lun.number() == own.number()), || {
        format!("LUN {} is not on the list {luns:?}", unit.number())
    })?;
    let mut sorted = luns.clone();
    sorted.sort_unstable();
    sorted.dedup();
    equal("LUNs without repetition", sorted.len(), luns.len())
}

async fn allocation_length(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let whole = check::good("REPORT LUNS", unit.command(&cdb(0, 4096), Data::In(4096)).await?)?;
    let cut = check::good("REPORT LUNS", unit.command(&cdb(0, 16), Data::In(4096)).await?)?;
    equal_bytes("REPORT LUNS with allocation length 16", &cut, &whole[..whole.len().min(16)])
}

async fn select_report(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let length = |data: &[u8]| data.first_chunk().map(|length| u32::from_be_bytes(*length));
    let normal = check::good("REPORT LUNS 00h", unit.command(&cdb(0, 4096), Data::In(4096)).await?)?;
    let all = check::good("REPORT LUNS 02h", unit.command(&cdb(2, 4096), Data::In(4096)).await?)?;
    ensure(length(&all) >= length(&normal), || "02h (all) reports fewer than 00h".into())?;
    check::good("REPORT LUNS 01h (well known)", unit.command(&cdb(1, 4096), Data::In(4096)).await?)?;
    let reply = unit.command(&cdb(0x7F, 4096), Data::In(4096)).await?;
    check::illegal_request("REPORT LUNS with the reserved SELECT REPORT 7Fh", &reply, &[INVALID_FIELD_IN_CDB])
}
