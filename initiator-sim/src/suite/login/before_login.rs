//! Who does not log in gets nothing.

use std::time::Duration;

use crate::suite::check::{Outcome, ensure, fail};
use crate::suite::{Bench, Case, Needs};
use protocol::iscsi::bhs::{self, Header};

pub const CASES: &[Case] = &[
    Case::new("command-before-login", "RFC 7143, Login Phase: only login PDUs", Needs::Target, |bench| Box::pin(command(bench))),
    Case::new("noise-before-login", "RFC 7143, Format error", Needs::Target, |bench| Box::pin(noise(bench))),
];

async fn command(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let inquiry = bhs::ScsiCommand {
        opcode: 0x01,
        flags: bhs::FINAL | bhs::READ,
        initiator_task_tag: 1.into(),
        expected_data_transfer_length: 36.into(),
        cmd_sn: 1.into(),
        cdb: [0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ..Default::default()
    };
    connection.send(Header::ScsiCommand(inquiry).to_bytes(), &[]).await?;
    match connection.receive().await? {
        None | Some((Header::Reject(_), _)) => Ok(()),
        Some((Header::LoginResponse(response), _)) if response.status_class != 0 => Ok(()),
        Some((other, _)) => fail(format!("a SCSI command before the login got a {}", other.name())),
    }
}

async fn noise(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    connection.send_bytes(b"GET / HTTP/1.1\r\nHost: here\r\nAccept: everything-and-more-of-it\r\n\r\n").await?;
    let closed = connection.closed_within(Duration::from_secs(10)).await;
    // A length that promises 5 MiB of a login's text: whoever waits for them can be held for ever.
    ensure(closed, || "text that is no PDU did not end the connection within 10 s".into())?;
    // And the target is well.
    bench.unit().await?.inquiry().await?;
    Ok(())
}
