//! The same initiator name and ISID again: the old session ends, the new one works.

use std::time::Duration;

use super::{SESSION_DOES_NOT_EXIST, SUCCESS, names};
use crate::suite::check::{Outcome, ensure, equal, skip};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("session-reinstatement", "RFC 7143, Session reinstatement", Needs::Target, |bench| Box::pin(reinstatement(bench))),
    Case::new("reinstatement-leaves-others-alone", "RFC 7143, Session reinstatement", Needs::Unit, |bench| {
        Box::pin(leaves_others(bench))
    }),
    Case::new(
        "connection-for-a-session-that-is-gone",
        "RFC 7143, Login Response: Status-Class and Status-Detail",
        Needs::Target,
        |bench| Box::pin(gone(bench)),
    ),
    Case::new("sessions-side-by-side", "RFC 7143, ISID rule", Needs::Unit, |bench| Box::pin(side_by_side(bench))),
];

async fn reinstatement(bench: &Bench) -> Outcome {
    let header = LoginHeader::default();
    let (mut old, mut new) = (bench.raw().await?, bench.raw().await?);
    equal("status of the first login", old.login_to_the_end(header, &names(bench)).await?.status(), SUCCESS)?;
    equal("status of the second login", new.login_to_the_end(header, &names(bench)).await?.status(), SUCCESS)?;
    let closed = old.closed_within(Duration::from_secs(10)).await;
    ensure(closed, || "the connection of the reinstated session was still open after 10 s".into())
}

/// The session of another ISID goes on.
async fn leaves_others(bench: &Bench) -> Outcome {
    let other = bench.unit().await?;
    reinstatement(bench).await?;
    other.inquiry().await?;
    Ok(())
}

/// A session that was taken the place of has no connections to come any more, whoever asks for its TSIH.
async fn gone(bench: &Bench) -> Outcome {
    let header = LoginHeader::default();
    let (mut old, mut new) = (bench.raw().await?, bench.raw().await?);
    let first = old.login_to_the_end(header, &names(bench)).await?;
    let second = new.login_to_the_end(header, &names(bench)).await?;
    equal("status of both logins", (first.status(), second.status()), (SUCCESS, SUCCESS))?;
    if first.header.tsih == second.header.tsih {
        return skip("both sessions have the same TSIH");
    }
    let join = LoginHeader { tsih: first.header.tsih.get(), cid: 1, ..header };
    let answer = bench.raw().await?.login_to_the_end(join, &names(bench)).await?;
    equal("status of a login with the TSIH of the former session", answer.status(), SESSION_DOES_NOT_EXIST)
}

/// Another ISID is another session.
async fn side_by_side(bench: &Bench) -> Outcome {
    let (first, second) = (bench.unit().await?, bench.unit().await?);
    for _ in 0..3 {
        first.inquiry().await?;
        second.inquiry().await?;
    }
    Ok(())
}
