//! Stages of the login, one after the other, and text that goes on over several requests.

use super::{SUCCESS, names};
use crate::suite::check::{Outcome, ensure, equal};
use crate::suite::raw::{FULL_FEATURE, LoginHeader, OPERATIONAL, SECURITY, text};
use crate::suite::{Bench, Case, Needs};
use protocol::iscsi::bhs;

pub const CASES: &[Case] = &[
    Case::new("stages-in-order", "RFC 7143, Login Phase stages", Needs::Target, |bench| Box::pin(in_order(bench))),
    Case::new("stage-going-back", "RFC 7143, CSG and NSG", Needs::Target, |bench| Box::pin(going_back(bench))),
    Case::new("text-over-two-requests", "RFC 7143, C (Continue) bit of Login Request", Needs::Target, |bench| {
        Box::pin(over_two_requests(bench))
    }),
];

async fn in_order(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let header = LoginHeader { current: SECURITY, next: OPERATIONAL, ..LoginHeader::default() };
    let keys = [&names(bench)[..], &[("AuthMethod", "None")]].concat();
    let answer = connection.login(header, &keys).await?;
    equal("status in the security stage", answer.status(), SUCCESS)?;
    equal("answer to AuthMethod", answer.key("AuthMethod"), Some("None"))?;
    equal("T, CSG and NSG", answer.header.flags, bhs::FINAL | SECURITY << 2 | OPERATIONAL)?;
    equal("TSIH before the login is done", answer.header.tsih.get(), 0)?;
    let header = LoginHeader { current: OPERATIONAL, next: FULL_FEATURE, ..header };
    let answer = connection.login_to_the_end(header, &[]).await?;
    equal("status in the operational stage", answer.status(), SUCCESS)?;
    ensure(answer.header.tsih.get() != 0, || "the session has TSIH 0".into())
}

async fn going_back(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let header = LoginHeader { current: OPERATIONAL, next: SECURITY, ..LoginHeader::default() };
    let answer = connection.login(header, &names(bench)).await?;
    equal("Status-Class of a login that goes back", answer.header.status_class, 2)
}

async fn over_two_requests(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let whole = text(&names(bench));
    // In the middle of a key: pieces are put together before they are read.
    let (first, rest) = whole.split_at(20);
    let header = LoginHeader::default();
    connection.send_login(LoginHeader { transit: false, goes_on: true, ..header }, first).await?;
    let answer = connection.login_answer().await?;
    equal("status of the first half", answer.status(), SUCCESS)?;
    ensure(answer.keys.is_empty(), || format!("the first half was answered with {:?}", answer.keys))?;
    connection.send_login(header, rest).await?;
    let answer = connection.login_answer().await?;
    equal("status of the second half", answer.status(), SUCCESS)
}
