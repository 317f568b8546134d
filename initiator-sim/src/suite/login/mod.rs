//! Login, keys, discovery and the session's own requests. RFC 7143.

mod auth;
mod before_login;
mod digests;
mod discovery;
mod keys;
mod names;
mod nop_and_logout;
mod reinstatement;
mod stages;
mod task_management;
mod timeout;
mod version;

use super::raw::{LoginAnswer, LoginHeader, RawConnection};
use super::{Bench, Case, Outcome};

/// All of them.
pub const CASES: &[&[Case]] = &[
    version::CASES,
    auth::CASES,
    names::CASES,
    keys::CASES,
    stages::CASES,
    digests::CASES,
    discovery::CASES,
    before_login::CASES,
    reinstatement::CASES,
    nop_and_logout::CASES,
    task_management::CASES,
    timeout::CASES,
];

/// Status-Class 2, Status-Detail: RFC 7143 (11.13.5).
const NOT_FOUND: (u8, u8) = (0x02, 0x03);
const UNSUPPORTED_VERSION: (u8, u8) = (0x02, 0x05);
const MISSING_PARAMETER: (u8, u8) = (0x02, 0x07);
const SESSION_DOES_NOT_EXIST: (u8, u8) = (0x02, 0x0A);
const SUCCESS: (u8, u8) = (0x00, 0x00);

/// The keys with which every normal session begins.
fn names(bench: &Bench) -> [(&str, &str); 3] {
    let devices = bench.devices();
    [
        ("InitiatorName", devices.options.initiator_name.as_str()),
        ("TargetName", devices.unit.target.as_str()),
        ("SessionType", "Normal"),
    ]
}

/// A login from the operational stage with the usual names and these keys besides.
async fn log_in(bench: &Bench, keys: &[(&str, &str)]) -> Outcome<(RawConnection, LoginAnswer)> {
    let mut connection = bench.raw().await?;
    let all = [&names(bench)[..], keys].concat();
    let answer = connection.login_to_the_end(LoginHeader::default(), &all).await?;
    Ok((connection, answer))
}
