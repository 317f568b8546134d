//! CRC32C over headers and over data, and what becomes of a damaged PDU.

use std::time::Duration;

use super::{SUCCESS, log_in};
use crate::client::{Client, ClientError, Options};
use crate::suite::check::{Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};
use protocol::iscsi::bhs::{self, Header};

pub const CASES: &[Case] = &[
    Case::new("digests-negotiated", "RFC 7143, HeaderDigest and DataDigest", Needs::Target, |bench| Box::pin(negotiated(bench))),
    Case::new("digests-on", "RFC 7143, iSCSI digests", Needs::Unit, |bench| Box::pin(digests_on(bench))),
    Case::new("digest-wrong", "RFC 7143, Header digest error", Needs::Target, |bench| Box::pin(wrong(bench))),
];

async fn negotiated(bench: &Bench) -> Outcome {
    let (_connection, answer) = log_in(bench, &[("HeaderDigest", "CRC32C,None"), ("DataDigest", "None")]).await?;
    equal("login status", answer.status(), SUCCESS)?;
    let header = answer.key("HeaderDigest");
    ensure(matches!(header, Some("CRC32C" | "None")), || format!("HeaderDigest=CRC32C,None was answered with {header:?}"))?;
    equal("answer to DataDigest=None", answer.key("DataDigest"), Some("None"))
}

async fn digests_on(bench: &Bench) -> Outcome {
    let devices = bench.devices();
    for (header_digest, data_digest) in [(true, false), (false, true), (true, true)] {
        let options = Options { header_digest, data_digest, ..devices.options.clone() };
        let client = match Client::connect(&devices.unit, options).await {
            Err(ClientError::NotAgreed(key)) => return skip(format!("the target does not take {key}=CRC32C")),
            other => other?,
        };
        client.unit().inquiry().await?;
        let ping = crate::suite::bench::pattern(0xD1, 1001);
        let echo = client.nop(ping.clone()).await?;
        crate::suite::check::equal_bytes("ping data with digests", &echo, &ping)?;
        client.logout().await?;
    }
    Ok(())
}

async fn wrong(bench: &Bench) -> Outcome {
    let (mut connection, answer) = log_in(bench, &[("HeaderDigest", "CRC32C"), ("DataDigest", "None")]).await?;
    if answer.status() != SUCCESS || answer.key("HeaderDigest") != Some("CRC32C") {
        return skip("the target does not take HeaderDigest=CRC32C");
    }
    let header = bhs::NopOut {
        opcode: bhs::IMMEDIATE,
        flags: bhs::FINAL,
        initiator_task_tag: 1.into(),
        target_transfer_tag: bhs::NO_TAG.into(),
        cmd_sn: answer.header.exp_cmd_sn,
        exp_stat_sn: (answer.header.stat_sn.get().wrapping_add(1)).into(),
        ..Default::default()
    };
    connection.send(Header::NopOut(header).to_bytes(), &[]).await?;
    // Four bytes where the digest should be, which it is not.
    connection.send_bytes(&[0xDE, 0xAD, 0xBE, 0xEF]).await?;
    let closed = connection.closed_within(Duration::from_secs(10)).await;
    ensure(closed, || "a header with a wrong digest did not end the connection within 10 s".into())
}
