//! Text keys: each is answered by its rule.

use super::{SUCCESS, log_in};
use crate::suite::check::{Outcome, ensure, equal};
use crate::suite::raw::LoginAnswer;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("key-unknown", "RFC 7143, NotUnderstood", Needs::Target, |bench| Box::pin(unknown(bench))),
    Case::new("keys-negotiated", "RFC 7143, Login/Text Operational Text Keys", Needs::Target, |bench| {
        Box::pin(negotiated(bench))
    }),
    Case::new("keys-in-bounds", "RFC 7143, Numerical Negotiations", Needs::Target, |bench| Box::pin(in_bounds(bench))),
    Case::new("key-value-illegal", "RFC 7143, Reject", Needs::Target, |bench| Box::pin(illegal_value(bench))),
    Case::new("keys-declared", "RFC 7143, MaxRecvDataSegmentLength, TargetPortalGroupTag", Needs::Target, |bench| {
        Box::pin(declared(bench))
    }),
    Case::new("key-twice", "RFC 7143, Text negotiation: no key twice", Needs::Target, |bench| Box::pin(twice(bench))),
];

async fn unknown(bench: &Bench) -> Outcome {
    let (_connection, answer) = log_in(bench, &[("X-org.example.conformance", "42")]).await?;
    equal("login status", answer.status(), SUCCESS)?;
    equal("answer to an unknown key", answer.key("X-org.example.conformance"), Some("NotUnderstood"))
}

/// Offers that leave one right answer, whatever the target itself would like.
const ONE_ANSWER: [(&str, &str); 8] = [
    ("InitialR2T", "Yes"),
    ("ImmediateData", "No"),
    ("MaxBurstLength", "512"),
    ("FirstBurstLength", "512"),
    ("MaxOutstandingR2T", "1"),
    ("DataPDUInOrder", "Yes"),
    ("DataSequenceInOrder", "Yes"),
    ("ErrorRecoveryLevel", "0"),
];

async fn negotiated(bench: &Bench) -> Outcome {
    let (_connection, answer) = log_in(bench, &[&ONE_ANSWER[..], &[("MaxConnections", "1")]].concat()).await?;
    equal("login status", answer.status(), SUCCESS)?;
    for (key, value) in ONE_ANSWER {
        // FirstBurstLength has no meaning with InitialR2T=Yes and ImmediateData=No.
        let irrelevant = key == "FirstBurstLength" && answer.key(key) == Some("Irrelevant");
        ensure(irrelevant || answer.key(key) == Some(value), || {
            format!("{key}={value} leaves only {value} as answer, got {:?}", answer.key(key))
        })?;
    }
    equal("MaxConnections", answer.key("MaxConnections"), Some("1"))
}

async fn in_bounds(bench: &Bench) -> Outcome {
    let offers = [
        ("MaxBurstLength", 16_776_192, true),
        ("FirstBurstLength", 16_776_192, true),
        ("MaxOutstandingR2T", 65_535, true),
        ("MaxConnections", 65_535, true),
        ("ErrorRecoveryLevel", 2, true),
        // The maximum of both wins.
        ("DefaultTime2Wait", 3, false),
        ("DefaultTime2Retain", 7, true),
    ];
    let texts: Vec<_> = offers.iter().map(|(key, value, _)| (*key, value.to_string())).collect();
    let keys: Vec<_> = texts.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let (_connection, answer) = log_in(bench, &keys).await?;
    equal("login status", answer.status(), SUCCESS)?;
    for (key, offered, minimum) in offers {
        let number = number(&answer, key)?;
        let right = if minimum { number <= offered } else { number >= offered };
        ensure(right, || format!("{key}={offered} was answered with {number}"))?;
    }
    let (first, whole) = (number(&answer, "FirstBurstLength")?, number(&answer, "MaxBurstLength")?);
    ensure(first <= whole, || format!("FirstBurstLength={first} is more than MaxBurstLength={whole}"))
}

fn number(answer: &LoginAnswer, key: &str) -> Outcome<u32> {
    let text = answer.key(key).unwrap_or_default();
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16));
    parsed.or_else(|_| crate::suite::check::fail(format!("{key} was answered with {text:?}")))
}

/// "A key value out of range" is answered with Reject, or ends the login as an initiator error.
async fn illegal_value(bench: &Bench) -> Outcome {
    for (key, value) in [("ImmediateData", "Maybe"), ("MaxBurstLength", "1"), ("HeaderDigest", "MD5")] {
        let (_connection, answer) = log_in(bench, &[(key, value)]).await?;
        let refused = answer.header.status_class == 2 || answer.key(key) == Some("Reject");
        ensure(refused, || {
            let (class, detail) = answer.status();
            format!("{key}={value}: expected Reject, got {:?} with status {class:02X}h/{detail:02X}h", answer.key(key))
        })?;
    }
    Ok(())
}

async fn declared(bench: &Bench) -> Outcome {
    let (_connection, answer) = log_in(bench, &[("MaxRecvDataSegmentLength", "4096")]).await?;
    equal("login status", answer.status(), SUCCESS)?;
    if answer.key("MaxRecvDataSegmentLength").is_some() {
        // Its own declaration; never an answer to ours.
        let own = number(&answer, "MaxRecvDataSegmentLength")?;
        ensure((512..=0xFF_FFFF).contains(&own), || format!("MaxRecvDataSegmentLength={own}"))?;
    }
    let tag = number(&answer, "TargetPortalGroupTag")?;
    ensure(tag <= 0xFFFF, || format!("TargetPortalGroupTag={tag}"))
}

async fn twice(bench: &Bench) -> Outcome {
    let (_connection, answer) = log_in(bench, &[("MaxConnections", "1"), ("MaxConnections", "1")]).await?;
    equal("Status-Class of a login that negotiates a key twice", answer.header.status_class, 2)
}
