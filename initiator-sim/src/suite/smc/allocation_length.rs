//! READ ELEMENT STATUS with little room: the counts stay, and no descriptor comes in half.

use super::{Report, VOLTAG, status_cdb};
use crate::client::Data;
use crate::suite::bench::run_good;
use crate::suite::check::{Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

const CLAUSE: &str = "SMC-3, READ ELEMENT STATUS command, ALLOCATION LENGTH";

pub const CASES: &[Case] = &[
    Case::new("element-status-header-alone", CLAUSE, Needs::Changer, |bench| Box::pin(header_alone(bench))),
    Case::new("element-status-whole-descriptors", CLAUSE, Needs::Changer, |bench| Box::pin(whole_descriptors(bench))),
];

async fn header_alone(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let whole = run_good(&changer, "READ ELEMENT STATUS", &status_cdb(0, 0, 0xFFFF, super::ROOM), Data::In(super::ROOM)).await?;
    let header = run_good(&changer, "READ ELEMENT STATUS", &status_cdb(0, 0, 0xFFFF, 8), Data::In(8)).await?;
    equal_bytes("the header", &header, &whole[..8])?;
    let nothing = run_good(&changer, "READ ELEMENT STATUS", &status_cdb(0, 0, 0xFFFF, 0), Data::None).await?;
    equal("bytes with ALLOCATION LENGTH 0", nothing.len(), 0)
}

async fn whole_descriptors(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let ask = async |length: u32| {
        let cdb = status_cdb(VOLTAG, 0, 0xFFFF, length);
        run_good(&changer, "READ ELEMENT STATUS", &cdb, Data::In(length)).await
    };
    let whole = ask(super::ROOM).await?;
    let all = Report::parse(&whole)?;
    for length in [12, 16, 40, 80, 150, whole.len() as u32 - 1] {
        let cut = ask(length).await?;
        let what = format!("ALLOCATION LENGTH {length}");
        ensure(cut.len() <= length as usize, || format!("{what}: {} bytes came", cut.len()))?;
        equal_bytes(&format!("{what}: the header"), &cut[..8], &whole[..8])?;
        let report = Report::parse(&cut)?;
        let known = all.elements.starts_with(&report.elements);
        ensure(known, || format!("{what}: descriptors are not those of the whole report"))?;
        let counted: usize = report.elements.iter().map(|element| element.bytes.len()).sum();
        let headers = 8 * (1 + report.pages.len());
        equal(&format!("{what}: bytes of whole descriptors and headers"), cut.len(), headers + counted)?;
        for (page, of_whole) in report.pages.iter().zip(&all.pages) {
            equal(&format!("{what}: BYTE COUNT OF DESCRIPTOR DATA AVAILABLE"), page.byte_count, of_whole.byte_count)?;
        }
    }
    Ok(())
}
