//! The same initiator name and ISID again: the old session ends, the new one works.

use std::time::Duration;

use super::{SUCCESS, names};
use crate::suite::check::{Outcome, ensure, equal};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("session-reinstatement", "RFC 7143, Session reinstatement", Needs::Target, |bench| Box::pin(reinstatement(bench))),
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

/// Another ISID is another session.
async fn side_by_side(bench: &Bench) -> Outcome {
    let (first, second) = (bench.unit().await?, bench.unit().await?);
    for _ in 0..3 {
        first.inquiry().await?;
        second.inquiry().await?;
    }
    Ok(())
}
