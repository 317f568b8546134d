//! EXCHANGE MEDIUM: both media move, or none.

use super::{DESTINATION_FULL, Report, SOURCE_EMPTY, STORAGE, VOLTAG, slots, status_cdb};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::run_good;
use crate::suite::check::{self, Outcome, equal_bytes, supported};
use crate::suite::{Bench, Case, Needs};

const CLAUSE: &str = "SMC-3, EXCHANGE MEDIUM command";

pub const CASES: &[Case] = &[
    Case::new("exchange-two", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(two(bench))),
    Case::new("exchange-to-a-third", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(third(bench))),
    Case::new("exchange-refused", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(refused(bench))),
];

async fn exchange(changer: &LogicalUnit, source: u16, first: u16, second: u16) -> Outcome<Reply> {
    let [[s0, s1], [f0, f1], [t0, t1]] = [source, first, second].map(u16::to_be_bytes);
    supported("EXCHANGE MEDIUM", changer.command(&[0xA6, 0, 0, 0, s0, s1, f0, f1, t0, t1, 0, 0], Data::None).await?)
}

/// Volume tag information of storage elements.
async fn tags(changer: &LogicalUnit, elements: &[u16]) -> Outcome<Vec<bytes::Bytes>> {
    let cdb = status_cdb(VOLTAG | STORAGE, 0, 0xFFFF, super::ROOM);
    let report = Report::parse(&run_good(changer, "READ ELEMENT STATUS", &cdb, Data::In(super::ROOM)).await?)?;
    elements.iter().map(|address| Ok(report.element(*address)?.bytes.slice(12..48))).collect()
}

async fn two(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (full, _) = slots(&changer, 2, 0).await?;
    let before = tags(&changer, &full).await?;
    check::good("EXCHANGE MEDIUM", exchange(&changer, full[0], full[1], full[0]).await?)?;
    let after = tags(&changer, &full).await?;
    check::good("EXCHANGE MEDIUM back", exchange(&changer, full[0], full[1], full[0]).await?)?;
    equal_bytes("the tag in the source", &after[0], &before[1])?;
    equal_bytes("the tag in the first destination", &after[1], &before[0])?;
    equal_bytes("the tag in the source, changed back", &tags(&changer, &full).await?[0], &before[0])
}

async fn third(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (full, empty) = slots(&changer, 2, 1).await?;
    let before = tags(&changer, &full).await?;
    check::good("EXCHANGE MEDIUM", exchange(&changer, full[0], full[1], empty[0]).await?)?;
    let after = tags(&changer, &[full[1], empty[0]]).await?;
    super::move_medium(&changer, full[1], full[0]).await?;
    super::move_medium(&changer, empty[0], full[1]).await?;
    equal_bytes("the tag in the first destination", &after[0], &before[0])?;
    equal_bytes("the tag in the second destination", &after[1], &before[1])
}

async fn refused(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (full, empty) = slots(&changer, 3, 1).await?;
    let before = tags(&changer, &full).await?;
    let nothing = exchange(&changer, empty[0], full[0], empty[0]).await?;
    check::illegal_request("EXCHANGE MEDIUM of nothing", &nothing, &[SOURCE_EMPTY])?;
    let occupied = exchange(&changer, full[0], full[1], full[2]).await?;
    check::illegal_request("EXCHANGE MEDIUM onto a third", &occupied, &[DESTINATION_FULL])?;
    for (before, after) in before.iter().zip(tags(&changer, &full).await?) {
        equal_bytes("a tag afterwards", &after, before)?;
    }
    Ok(())
}
