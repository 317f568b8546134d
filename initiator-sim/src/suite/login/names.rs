//! Names that are wrong or missing.

use super::{MISSING_PARAMETER, NOT_FOUND, SESSION_DOES_NOT_EXIST, names};
use crate::suite::check::{Outcome, ensure, equal};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("target-name-unknown", "RFC 7143, Login Status, Not Found", Needs::Target, |bench| Box::pin(unknown(bench))),
    Case::new("target-name-missing", "RFC 7143, Login Status, Missing Parameter", Needs::Target, |bench| {
        Box::pin(target_missing(bench))
    }),
    Case::new("initiator-name-missing", "RFC 7143, InitiatorName", Needs::Target, |bench| Box::pin(initiator_missing(bench))),
    Case::new("session-unknown", "RFC 7143, TSIH", Needs::Target, |bench| Box::pin(session_unknown(bench))),
];

async fn unknown(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let [initiator, _, session_type] = names(bench);
    let keys = [initiator, ("TargetName", "iqn.2026-01.example:no-such-target"), session_type];
    let answer = connection.login_to_the_end(LoginHeader::default(), &keys).await?;
    equal("status of a login to a target that is not", answer.status(), NOT_FOUND)
}

async fn target_missing(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let [initiator, _, session_type] = names(bench);
    let answer = connection.login_to_the_end(LoginHeader::default(), &[initiator, session_type]).await?;
    equal("status of a login without TargetName", answer.status(), MISSING_PARAMETER)
}

async fn initiator_missing(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let [_, target, session_type] = names(bench);
    let answer = connection.login_to_the_end(LoginHeader::default(), &[target, session_type]).await?;
    equal("status of a login without InitiatorName", answer.status(), MISSING_PARAMETER)
}

async fn session_unknown(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let header = LoginHeader { tsih: 0x7A7A, ..LoginHeader::default() };
    let answer = connection.login_to_the_end(header, &names(bench)).await?;
    // A target without connections to add may say so first.
    ensure([SESSION_DOES_NOT_EXIST, (2, 6)].contains(&answer.status()), || {
        let (class, detail) = answer.status();
        format!("status of a login to a session that is not: expected 02h/0Ah, got {class:02X}h/{detail:02X}h")
    })
}
