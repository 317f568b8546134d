//! A version that does not exist.

use super::{UNSUPPORTED_VERSION, names};
use crate::suite::check::{Outcome, equal};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("version-unsupported", "RFC 7143, Version-min", Needs::Target, |bench| Box::pin(version(bench)))];

async fn version(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let header = LoginHeader { version_max: 0x7F, version_min: 0x7F, ..LoginHeader::default() };
    let answer = connection.login(header, &names(bench)).await?;
    equal("status of a login with Version-min 7Fh", answer.status(), UNSUPPORTED_VERSION)
}
