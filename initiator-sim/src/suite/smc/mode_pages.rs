//! The mode pages tell which elements there are and what goes where, and every page that is listed answers.

use super::{assignment, report};
use crate::client::Data;
use crate::suite::bench::run_good;
use crate::suite::check::{Outcome, ensure, equal};
use crate::suite::spc::{mode_pages, vpd_pages};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("element-address-assignment", "SMC-3, Element Address Assignment mode page", Needs::Changer, |bench| {
        Box::pin(addresses(bench))
    }),
    Case::new("transport-geometry", "SMC-3, Transport Geometry Parameters mode page", Needs::Changer, |bench| {
        Box::pin(geometry(bench))
    }),
    Case::new("device-capabilities", "SMC-3, Device Capabilities mode page", Needs::Changer, |bench| {
        Box::pin(capabilities(bench))
    }),
    Case::new("every-page-answers", "SPC-4, INQUIRY and MODE SENSE(10) commands", Needs::Changer, |bench| {
        Box::pin(every_page(bench))
    }),
];

/// Every element of the page is reported, under its type, and no other.
async fn addresses(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    for (kind, (first, count)) in (1..).zip(assignment(&changer).await?) {
        let reported: Vec<u16> = report(&changer, kind).await?.elements.iter().map(|element| element.address).collect();
        let told: Vec<u16> = (first..).take(count.into()).collect();
        equal(&format!("elements of type {kind}"), reported, told)?;
    }
    Ok(())
}

async fn geometry(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let [(_, transports), ..] = assignment(&changer).await?;
    let data = run_good(&changer, "MODE SENSE(6) of page 1Eh", &[0x1A, 0x08, 0x1E, 0, 0xFF, 0], Data::In(0xFF)).await?;
    let page = &data[(4 + usize::from(data[3])).min(data.len())..];
    ensure(page.len() >= 2 && page[0] & 0x3F == 0x1E, || format!("no page 1Eh in {data:02x?}"))?;
    equal("PAGE LENGTH, two bytes for each transport", u16::from(page[1]), 2 * transports)
}

async fn capabilities(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let data = run_good(&changer, "MODE SENSE(6) of page 1Fh", &[0x1A, 0x08, 0x1F, 0, 0xFF, 0], Data::In(0xFF)).await?;
    let page = &data[(4 + usize::from(data[3])).min(data.len())..];
    ensure(page.len() >= 20 && page[0] & 0x3F == 0x1F, || format!("no page 1Fh in {data:02x?}"))?;
    equal("PAGE LENGTH", page[1], 0x12)?;
    let [_, (_, slots), _, (_, drives)] = assignment(&changer).await?;
    ensure(slots == 0 || page[2] & 0x02 != 0, || "STORST is clear, and there are storage elements".to_owned())?;
    let both_ways = page[5] & 0x08 != 0 && page[7] & 0x02 != 0;
    ensure(slots == 0 || drives == 0 || both_ways, || "nothing moves between storage and data transfer elements".to_owned())
}

/// What the cases of SPC ask of a disk.
async fn every_page(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    vpd_pages::each_answers(&changer).await?;
    mode_pages::all_pages(&changer).await
}
