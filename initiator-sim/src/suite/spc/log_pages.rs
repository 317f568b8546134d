//! The list of log pages is sorted, and every page on it answers.

use crate::client::{Data, LogicalUnit};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, supported};
use crate::suite::{Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("log-each-answers", "SPC-4, LOG SENSE command, Supported Log Pages", Needs::Unit, |bench| {
        Box::pin(async { each_answers(&bench.unit().await?).await })
    })];

/// All log pages of any logical unit.
pub async fn each_answers(unit: &LogicalUnit) -> Outcome {
    let cdb = |page: u8| [0x4D, 0, 0x40 | page, 0, 0, 0, 0, 0xFF, 0xFF, 0];
    let reply = supported("LOG SENSE", unit.command(&cdb(0), Data::In(0xFFFF)).await?)?;
    let list = check::good("LOG SENSE of page 00h", reply)?;
    ensure(list.len() > 4, || "page 00h lists no page".into())?;
    let codes = &list[4..];
    ensure(codes.is_sorted_by(|a, b| a < b) && codes[0] == 0, || format!("page codes: {codes:02x?}"))?;
    for code in codes {
        let page = unit.log_sense(*code, 0).await?;
        let length = 4 + usize::from(u16::from_be_bytes([page[2], page[3]]));
        equal(&format!("length of log page {code:02X}h"), page.len(), length)?;
        if *code != 0 {
            parameters(*code, &page[4..])?;
        }
    }
    let Some(missing) = (0x01..0x3F_u8).find(|code| !codes.contains(code)) else { return Ok(()) };
    let reply = unit.command(&cdb(missing), Data::In(0xFFFF)).await?;
    check::illegal_request(&format!("LOG SENSE of page {missing:02X}h"), &reply, &[INVALID_FIELD_IN_CDB])
}

/// Parameter codes ascend, and the last parameter ends with the page.
fn parameters(page: u8, mut rest: &[u8]) -> Outcome {
    let mut last = None;
    while !rest.is_empty() {
        let length = rest.get(3).map_or(usize::MAX, |length| 4 + usize::from(*length));
        ensure(length <= rest.len(), || format!("a parameter of log page {page:02X}h reaches over its end: {rest:02x?}"))?;
        let code = u16::from_be_bytes([rest[0], rest[1]]);
        ensure(last.is_none_or(|last| last < code), || format!("parameter {code:04x} of page {page:02X}h is out of order"))?;
        last = Some(code);
        rest = &rest[length..];
    }
    Ok(())
}
