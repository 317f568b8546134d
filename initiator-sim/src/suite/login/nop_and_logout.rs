//! Pings come back, and a logout ends the connection.

use std::time::Duration;

use super::{SUCCESS, log_in};
use crate::client::Client;
use crate::suite::bench::pattern;
use crate::suite::check::{Outcome, ensure, equal, equal_bytes, fail};
use crate::suite::{Bench, Case, Needs};
use protocol::iscsi::bhs::{self, Header};

pub const CASES: &[Case] = &[
    Case::new("nop-out-echo", "RFC 7143, NOP-Out and NOP-In, ping data", Needs::Target, |bench| Box::pin(echo(bench))),
    Case::new("logout", "RFC 7143, Logout Request and Response", Needs::Target, |bench| Box::pin(logout(bench))),
];

async fn echo(bench: &Bench) -> Outcome {
    let devices = bench.devices();
    let client = Client::connect(&devices.unit, devices.options.clone()).await?;
    for length in [0, 1, 3, 4, 777] {
        let ping = pattern(length as u8, length);
        equal_bytes(&format!("ping data of {length} bytes"), &client.nop(ping.clone()).await?, &ping)?;
    }
    Ok(())
}

async fn logout(bench: &Bench) -> Outcome {
    let (mut connection, answer) = log_in(bench, &[]).await?;
    equal("login status", answer.status(), SUCCESS)?;
    let header = bhs::LogoutRequest {
        opcode: bhs::IMMEDIATE | 0x06,
        flags: bhs::FINAL,
        initiator_task_tag: 5.into(),
        cmd_sn: answer.header.exp_cmd_sn,
        exp_stat_sn: (answer.header.stat_sn.get().wrapping_add(1)).into(),
        ..Default::default()
    };
    connection.send(Header::LogoutRequest(header).to_bytes(), &[]).await?;
    match connection.receive().await? {
        Some((Header::LogoutResponse(response), _)) => equal("response of the logout", response.response, 0)?,
        Some((other, _)) => return fail(format!("expected a Logout Response, got a {}", other.name())),
        None => return fail("the connection was closed without a Logout Response"),
    }
    let closed = connection.closed_within(Duration::from_secs(10)).await;
    ensure(closed, || "the connection was still open 10 s after the logout".into())
}
