//! INITIALIZE ELEMENT STATUS changes nothing where nothing has changed.

use super::{INVALID_ELEMENT_ADDRESS, assignment, no_element, report};
use crate::client::Data;
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, equal, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("initialize-element-status", "SMC-3, INITIALIZE ELEMENT STATUS command", Needs::Changer, |bench| {
        Box::pin(initialize(bench))
    }),
    Case::new("initialize-with-range", "SMC-3, INITIALIZE ELEMENT STATUS WITH RANGE command", Needs::Changer, |bench| {
        Box::pin(with_range(bench))
    }),
];

async fn initialize(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let before = report(&changer, 0).await?.elements;
    check::good("INITIALIZE ELEMENT STATUS", supported("it", changer.command(&[0x07, 0, 0, 0, 0, 0], Data::None).await?)?)?;
    equal("elements afterwards", report(&changer, 0).await?.elements, before)
}

async fn with_range(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let before = report(&changer, 0).await?.elements;
    let assignment = assignment(&changer).await?;
    let range = async |flags: u8, start: u16, count: u16| {
        let ([s0, s1], [n0, n1]) = (start.to_be_bytes(), count.to_be_bytes());
        let reply = changer.command(&[0x37, flags, s0, s1, 0, 0, n0, n1, 0, 0], Data::None).await?;
        supported("INITIALIZE ELEMENT STATUS WITH RANGE", reply)
    };
    let [_, (first_slot, _), ..] = assignment;
    check::good("with RANGE, two elements", range(0x01, first_slot, 2).await?)?;
    check::good("with RANGE, all from there on", range(0x01, first_slot, 0).await?)?;
    check::good("with FAST", range(0x03, first_slot, 1).await?)?;
    check::good("without RANGE the address is ignored", range(0x00, no_element(&assignment), 1).await?)?;
    let reply = range(0x01, no_element(&assignment), 1).await?;
    check::illegal_request("with RANGE from no element", &reply, &[INVALID_ELEMENT_ADDRESS, INVALID_FIELD_IN_CDB])?;
    equal("elements afterwards", report(&changer, 0).await?.elements, before)
}
