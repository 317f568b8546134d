//! POSITION TO ELEMENT moves no medium and knows its addresses.

use super::{INVALID_ELEMENT_ADDRESS, assignment, no_element, report};
use crate::client::Data;
use crate::suite::check::{self, Outcome, equal, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("position-to-element", "SMC-3, POSITION TO ELEMENT command", Needs::Changer, |bench| Box::pin(position(bench)))];

async fn position(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let before = report(&changer, 0).await?.elements;
    let assignment = assignment(&changer).await?;
    let [(transport, _), (slot, _), ..] = assignment;
    let to = async |transport: u16, element: u16| {
        let ([t0, t1], [e0, e1]) = (transport.to_be_bytes(), element.to_be_bytes());
        let reply = changer.command(&[0x2B, 0, t0, t1, e0, e1, 0, 0, 0, 0], Data::None).await?;
        supported("POSITION TO ELEMENT", reply)
    };
    check::good("by the default transport", to(0, slot).await?)?;
    check::good("by the transport named", to(transport, slot).await?)?;
    check::illegal_request("to no element", &to(0, no_element(&assignment)).await?, &[INVALID_ELEMENT_ADDRESS])?;
    check::illegal_request("by a slot", &to(slot, slot).await?, &[INVALID_ELEMENT_ADDRESS])?;
    equal("elements afterwards", report(&changer, 0).await?.elements, before)
}
