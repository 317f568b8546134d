//! MOVE MEDIUM between storage elements, and what it refuses.

use super::{
    DESTINATION_FULL, INVALID_ELEMENT_ADDRESS, SOURCE_EMPTY, STORAGE, assignment, move_medium, no_element, report, slots,
};
use crate::client::Data;
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal};
use crate::suite::{Bench, Case, Needs};

const CLAUSE: &str = "SMC-3, MOVE MEDIUM command";

pub const CASES: &[Case] = &[
    Case::new("move-and-back", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(and_back(bench))),
    Case::new("move-source-empty", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(source_empty(bench))),
    Case::new("move-destination-full", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(destination_full(bench))),
    Case::new("move-address-invalid", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(address_invalid(bench))),
    Case::new("move-inverted", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(inverted(bench))),
    Case::new("moves-in-flight", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(in_flight(bench))),
];

async fn and_back(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let before = report(&changer, STORAGE).await?.elements;
    let (full, empty) = slots(&changer, 1, 1).await?;
    check::good("MOVE MEDIUM", move_medium(&changer, full[0], empty[0]).await?)?;
    let moved = report(&changer, STORAGE).await?;
    check::good("MOVE MEDIUM back", move_medium(&changer, empty[0], full[0]).await?)?;
    ensure(!moved.element(full[0])?.full(), || "the source is still full".to_owned())?;
    ensure(moved.element(empty[0])?.full(), || "the destination is still empty".to_owned())?;
    let source = moved.element(empty[0])?.source();
    ensure(source.is_none_or(|source| source == full[0]), || format!("SOURCE STORAGE ELEMENT ADDRESS {source:04X?}"))?;
    let full_ones = |elements: &[super::Descriptor]| elements.iter().map(super::Descriptor::full).collect::<Vec<_>>();
    equal("elements that are full afterwards", full_ones(&report(&changer, STORAGE).await?.elements), full_ones(&before))
}

async fn source_empty(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (_, empty) = slots(&changer, 0, 2).await?;
    check::illegal_request("MOVE MEDIUM of nothing", &move_medium(&changer, empty[0], empty[1]).await?, &[SOURCE_EMPTY])
}

async fn destination_full(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (full, _) = slots(&changer, 2, 0).await?;
    check::illegal_request("MOVE MEDIUM onto another", &move_medium(&changer, full[0], full[1]).await?, &[DESTINATION_FULL])
}

async fn address_invalid(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (full, empty) = slots(&changer, 1, 1).await?;
    let nothing = no_element(&assignment(&changer).await?);
    let to = move_medium(&changer, full[0], nothing).await?;
    check::illegal_request("MOVE MEDIUM to no element", &to, &[INVALID_ELEMENT_ADDRESS])?;
    let from = move_medium(&changer, nothing, empty[0]).await?;
    check::illegal_request("MOVE MEDIUM from no element", &from, &[INVALID_ELEMENT_ADDRESS])?;
    let ([s0, s1], [d0, d1], [t0, t1]) = (full[0].to_be_bytes(), empty[0].to_be_bytes(), full[0].to_be_bytes());
    let by = changer.command(&[0xA5, 0, t0, t1, s0, s1, d0, d1, 0, 0, 0, 0], Data::None).await?;
    check::illegal_request("MOVE MEDIUM by a slot", &by, &[INVALID_ELEMENT_ADDRESS])?;
    ensure(report(&changer, STORAGE).await?.element(full[0])?.full(), || "the medium has moved all the same".to_owned())
}

/// A transport that cannot turn a medium over refuses to.
async fn inverted(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let data = check::good("MODE SENSE(6)", changer.command(&[0x1A, 0x08, 0x1E, 0, 0xFF, 0], Data::In(0xFF)).await?)?;
    let rotates = data.get(4 + usize::from(data[3]) + 2).is_some_and(|byte| byte & 0x01 != 0);
    if rotates {
        return check::skip("the transport turns media over");
    }
    let (full, empty) = slots(&changer, 1, 1).await?;
    let ([s0, s1], [d0, d1]) = (full[0].to_be_bytes(), empty[0].to_be_bytes());
    let reply = changer.command(&[0xA5, 0, 0, 0, s0, s1, d0, d1, 0, 0, 0x01, 0], Data::None).await?;
    if reply.sense.is_none() {
        move_medium(&changer, empty[0], full[0]).await?;
    }
    check::illegal_request("MOVE MEDIUM with INVERT", &reply, &[INVALID_FIELD_IN_CDB])
}

/// Many moves of one medium at once: whichever come off, it is in one element afterwards, and every refusal is one of the two.
async fn in_flight(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (full, empty) = slots(&changer, 1, 3).await?;
    let places = [full[0], empty[0], empty[1], empty[2]];
    let mut moves = tokio::task::JoinSet::new();
    for turn in 0..16 {
        let (changer, source, destination) = (changer.clone(), places[turn % 4], places[(turn + 1 + turn / 4) % 4]);
        moves.spawn(async move { move_medium(&changer, source, destination).await });
    }
    let mut replies = Vec::new();
    while let Some(reply) = moves.join_next().await {
        replies.push(reply.map_err(|error| check::Stop::Fail(error.to_string()))??);
    }
    let after = report(&changer, STORAGE).await?;
    let mut here = Vec::new();
    for place in places {
        if after.element(place)?.full() {
            here.push(place);
        }
    }
    if let [place] = here.as_slice()
        && *place != full[0]
    {
        check::good("MOVE MEDIUM back", move_medium(&changer, *place, full[0]).await?)?;
    }
    equal("elements with the one medium", here.len(), 1)?;
    for reply in replies.iter().filter(|reply| reply.sense.is_some()) {
        check::illegal_request("MOVE MEDIUM", reply, &[SOURCE_EMPTY, DESTINATION_FULL])?;
    }
    Ok(())
}
