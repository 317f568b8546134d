//! MODE SENSE: all pages at once are those that answer alone, lengths are kept, unknown pages refused.

use crate::client::{Data, LogicalUnit};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("mode-all-pages", "SPC-4, MODE SENSE(10) command, page code 3Fh", Needs::Unit, |bench| {
        Box::pin(async { all_pages(&bench.unit().await?).await })
    }),
    Case::new("mode-6-and-10-agree", "SPC-4, MODE SENSE(6) and MODE SENSE(10) commands", Needs::Unit, |bench| {
        Box::pin(both_agree(bench))
    }),
    Case::new("mode-unknown-page", "SPC-4, MODE SENSE(6) command, PAGE CODE", Needs::Unit, |bench| Box::pin(unknown_page(bench))),
    Case::new("mode-saved-values", "SPC-4, Mode page policies, saved values", Needs::Unit, |bench| Box::pin(saved_values(bench))),
];

/// Pages of page_0 and sub_page format behind a header, as (page, subpage, bytes).
fn pages(mut rest: &[u8]) -> Outcome<Vec<(u8, u8, &[u8])>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let sub = rest[0] & 0x40 != 0;
        let length = match (sub, rest) {
            (false, [_, length, ..]) => 2 + usize::from(*length),
            (true, [_, _, high, low, ..]) => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => usize::MAX,
        };
        ensure(length <= rest.len(), || format!("a page reaches over the data's end: {rest:02x?}"))?;
        let (page, behind) = rest.split_at(length);
        found.push((page[0] & 0x3F, if sub { page[1] } else { 0 }, page));
        rest = behind;
    }
    Ok(found)
}

/// All mode pages of any logical unit.
pub async fn all_pages(unit: &LogicalUnit) -> Outcome {
    let all = unit.mode_sense(0x3F, 0).await?;
    ensure(all.len() >= 8, || format!("{} bytes of mode parameters", all.len()))?;
    equal("MODE DATA LENGTH", usize::from(u16::from_be_bytes([all[0], all[1]])) + 2, all.len())?;
    let begin = 8 + usize::from(u16::from_be_bytes([all[6], all[7]]));
    let found = pages(all.get(begin..).unwrap_or_default())?;
    ensure(!found.is_empty(), || "page code 3Fh gives no page".into())?;
    for (page, subpage, bytes) in found {
        let alone = unit.mode_sense(page, subpage).await?;
        let begin = 8 + usize::from(u16::from_be_bytes([alone[6], alone[7]]));
        equal_bytes(&format!("page {page:02X}h/{subpage:02X}h alone"), alone.get(begin..).unwrap_or_default(), bytes)?;
    }
    Ok(())
}

async fn both_agree(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let ten = unit.mode_sense(0x3F, 0).await?;
    let reply = unit.command(&[0x1A, 0, 0x3F, 0, 255, 0], Data::In(255)).await?;
    let six = check::good("MODE SENSE(6)", reply)?;
    ensure(six.len() >= 4, || format!("{} bytes of mode parameters", six.len()))?;
    equal_bytes("MEDIUM TYPE and DEVICE-SPECIFIC PARAMETER", &six[1..3], &ten[2..4])?;
    let ten_begin = 8 + usize::from(u16::from_be_bytes([ten[6], ten[7]]));
    let six_pages = six.get(4 + usize::from(six[3])..).unwrap_or_default();
    let ten_pages = ten.get(ten_begin..).unwrap_or_default();
    // Six bytes leave room for 255 in all.
    equal_bytes("mode pages", six_pages, &ten_pages[..six_pages.len().min(ten_pages.len())])?;
    let cut = check::good("MODE SENSE(6)", unit.command(&[0x1A, 0, 0x3F, 0, 4, 0], Data::In(255)).await?)?;
    equal_bytes("MODE SENSE(6) with allocation length 4", &cut, &six[..4])
}

async fn unknown_page(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let all = unit.mode_sense(0x3F, 0).await?;
    let begin = 8 + usize::from(u16::from_be_bytes([all[6], all[7]]));
    let known: Vec<u8> = pages(all.get(begin..).unwrap_or_default())?.iter().map(|(page, ..)| *page).collect();
    // 29h to 2Eh are reserved or vendor specific for every device type.
    let Some(page) = (0x29..0x2F_u8).find(|page| !known.contains(page)) else { return check::skip("every page is known") };
    let reply = unit.command(&[0x1A, 0, page, 0, 255, 0], Data::In(255)).await?;
    check::illegal_request(&format!("MODE SENSE(6) of page {page:02X}h"), &reply, &[INVALID_FIELD_IN_CDB])
}

async fn saved_values(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let reply = unit.command(&[0x5A, 0, 0xC0 | 0x3F, 0, 0, 0, 0, 16, 0, 0], Data::In(4096)).await?;
    if reply.status == protocol::scsi::Status::Good {
        return Ok(());
    }
    // SAVING PARAMETERS NOT SUPPORTED.
    check::illegal_request("MODE SENSE(10) of saved values", &reply, &[(0x39, 0x00)])
}
