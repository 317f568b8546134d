//! The list of vital product data pages is sorted, and every page on it answers.

use crate::client::{Data, LogicalUnit};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("vpd-list-sorted", "SPC-4, Supported VPD Pages VPD page", Needs::Unit, |bench| Box::pin(list_sorted(bench))),
    Case::new("vpd-each-answers", "SPC-4, VPD page format and page codes", Needs::Unit, |bench| {
        Box::pin(async { each_answers(&bench.unit().await?).await })
    }),
    Case::new("vpd-unknown-page", "SPC-4, INQUIRY command, PAGE CODE", Needs::Unit, |bench| Box::pin(unknown_page(bench))),
    Case::new("vpd-designators", "SPC-4, Device Identification VPD page", Needs::Unit, |bench| Box::pin(designators(bench))),
];

async fn list_sorted(bench: &Bench) -> Outcome {
    let page = bench.unit().await?.vpd(0).await?;
    let codes = &page[4..];
    ensure(codes.is_sorted_by(|a, b| a < b), || format!("page codes are not ascending: {codes:02x?}"))?;
    // SPC-4 makes these two mandatory.
    ensure(codes.contains(&0x00) && codes.contains(&0x83), || format!("00h and 83h must be on the list: {codes:02x?}"))
}

/// All pages of vital product data of any logical unit.
pub async fn each_answers(unit: &LogicalUnit) -> Outcome {
    let device_type = unit.inquiry().await?.raw[0];
    let list = unit.vpd(0).await?;
    for code in &list[4..] {
        let page = unit.vpd(*code).await?;
        equal(&format!("first byte of page {code:02X}h"), page[0], device_type)?;
        // The header asks for its own length only: PAGE LENGTH must not follow the allocation length.
        let short = check::good("INQUIRY", unit.command(&[0x12, 1, *code, 0, 4, 0], Data::In(4)).await?)?;
        equal(&format!("header of page {code:02X}h"), &short[..], &page[..4])?;
    }
    Ok(())
}

async fn unknown_page(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let list = unit.vpd(0).await?;
    let Some(missing) = (0x01..=0xFF_u8).find(|code| !list[4..].contains(code)) else {
        return check::skip("the target has every page");
    };
    let reply = unit.command(&[0x12, 1, missing, 0, 255, 0], Data::In(255)).await?;
    check::illegal_request(&format!("INQUIRY for page {missing:02X}h"), &reply, &[INVALID_FIELD_IN_CDB])
}

async fn designators(bench: &Bench) -> Outcome {
    let page = bench.unit().await?.vpd(0x83).await?;
    let mut rest = &page[4..];
    let mut of_unit = 0;
    while !rest.is_empty() {
        let length = rest.get(3).map_or(usize::MAX, |length| 4 + usize::from(*length));
        ensure(length <= rest.len(), || format!("a descriptor reaches over the page's end: {rest:02x?}"))?;
        let (association, kind) = (rest[1] >> 4 & 3, rest[1] & 0x0F);
        of_unit += usize::from(association == 0 && (1..=3).contains(&kind));
        if kind == 3 {
            ensure(matches!(length, 12 | 20), || format!("an NAA designator of {} bytes", length - 4))?;
        }
        rest = &rest[length..];
    }
    ensure(of_unit > 0, || "no T10, EUI-64 or NAA designator names the logical unit".into())
}
