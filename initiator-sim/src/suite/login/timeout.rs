//! A connection on which nobody logs in does not stay for ever.

use std::time::Duration;

use crate::suite::check::{Outcome, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[Case::new("login-timeout", "RFC 7143, Connection timeout management", Needs::Target, |bench| {
    Box::pin(login_timeout(bench))
})];

/// Initiators give a login about as long.
const PATIENCE: Duration = Duration::from_secs(40);

async fn login_timeout(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    if connection.closed_within(PATIENCE).await {
        return Ok(());
    }
    skip(format!("the target keeps a silent connection for more than {PATIENCE:?}, which the standard leaves to it"))
}
