//! Several connections of one session.

use std::time::Duration;

use protocol::iscsi::bhs::{self, Header};

use super::{FIRST, Peer};
use crate::suite::check::{Outcome, ensure, equal, fail, skip};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("connection-joins", "RFC 7143, Login Phase: TSIH", Needs::Unit, |bench| Box::pin(joins(bench))),
    Case::new("commands-in-order-over-connections", "RFC 7143, Command Numbering and Acknowledging", Needs::Unit, |bench| {
        Box::pin(in_order(bench))
    }),
    Case::new("too-many-connections", "RFC 7143, Login Response: Status-Class and Status-Detail", Needs::Unit, |bench| {
        Box::pin(too_many(bench))
    }),
    Case::new("connection-reinstatement", "RFC 7143, Connection Reinstatement", Needs::Unit, |bench| {
        Box::pin(reinstatement(bench))
    }),
    Case::new("session-survives-a-connection", "RFC 7143, Connection Timeout Management", Needs::Unit, |bench| {
        Box::pin(survives(bench))
    }),
    Case::new("abort-task-set-over-connections", "RFC 7143, Task Management Function Request", Needs::ScratchDisk, |bench| {
        Box::pin(abort_over_connections(bench))
    }),
    Case::new("logout-of-one-connection", "RFC 7143, Logout Request: Reason Code", Needs::Unit, |bench| {
        Box::pin(logout_of_one(bench))
    }),
];

/// Too many connections: Status-Class 2, Status-Detail 6.
const TOO_MANY_CONNECTIONS: (u8, u8) = (0x02, 0x06);

/// Two connections of one session, and the header by which a further one joins.
async fn two(bench: &Bench) -> Outcome<(Peer, Peer, LoginHeader)> {
    two_with(bench, &[]).await
}

/// As [`two`], with these keys besides in the leading login.
async fn two_with(bench: &Bench, keys: &[(&str, &str)]) -> Outcome<(Peer, Peer, LoginHeader)> {
    let header = LoginHeader::default();
    let first = Peer::enter(bench, header, &[&[("MaxConnections", "2")], keys].concat()).await?;
    if first.number("MaxConnections") < 2 {
        return skip("the target takes one connection a session");
    }
    let header = LoginHeader { tsih: first.login.header.tsih.get(), cid: 1, ..header };
    let second = Peer::enter(bench, header, &[]).await?;
    equal("TSIH of the second connection", second.login.header.tsih.get(), header.tsih)?;
    Ok((first, second, header))
}

/// Each answers on the connection that asked.
async fn joins(bench: &Bench) -> Outcome {
    let (mut first, mut second, _) = two(bench).await?;
    second.serves(1, FIRST).await?;
    first.serves(2, FIRST + 1).await
}

async fn in_order(bench: &Bench) -> Outcome {
    let (mut first, mut second, _) = two(bench).await?;
    second.inquire(2, FIRST + 1).await?;
    let early = tokio::time::timeout(Duration::from_millis(300), second.next()).await;
    ensure(early.is_err(), || "a command was answered before the one that precedes it had come".into())?;
    first.serves(1, FIRST).await?;
    equal("status of the second command", second.ends(2).await?.0, 0)
}

async fn too_many(bench: &Bench) -> Outcome {
    let (mut first, _second, header) = two(bench).await?;
    let third = Peer::log_in(bench, LoginHeader { cid: 2, ..header }, &[]).await?;
    equal("status of the third login", third.login.status(), TOO_MANY_CONNECTIONS)?;
    first.serves(1, FIRST).await
}

/// The same CID again takes the place of the connection.
async fn reinstatement(bench: &Bench) -> Outcome {
    let (mut first, mut second, header) = two(bench).await?;
    second.serves(1, FIRST).await?;
    let mut again = Peer::enter(bench, header, &[]).await?;
    let closed = second.connection.closed_within(Duration::from_secs(10)).await;
    ensure(closed, || "the connection of the reinstated CID was still open after 10 s".into())?;
    again.serves(2, FIRST + 1).await?;
    serves_after_message(&mut first, 3, FIRST + 2).await
}

async fn survives(bench: &Bench) -> Outcome {
    let (first, mut second, _) = two(bench).await?;
    drop(first);
    serves_after_message(&mut second, 1, FIRST).await
}

/// ABORT TASK SET on one connection ends a write on another, that waits for its data: it is never answered.
async fn abort_over_connections(bench: &Bench) -> Outcome {
    const ABORT_TASK_SET: u8 = 2;
    let block = bench.disk().await?.block();
    let (mut first, mut second, _) = two_with(bench, &[("InitialR2T", "Yes"), ("ImmediateData", "No")]).await?;
    // Whatever unit attention there is goes with the first command.
    first.command(1, FIRST, 0, 0, &[0; 6]).await?;
    first.exp_stat_sn = first.ends(1).await?.1.wrapping_add(1);
    first.command(2, FIRST + 1, bhs::WRITE, block, &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]).await?;
    let (Header::R2t(_), _) = first.next().await? else { return fail("the target did not ask for the data of a write") };
    let request = bhs::TaskManagementRequest {
        opcode: bhs::IMMEDIATE | 0x02,
        flags: bhs::FINAL | ABORT_TASK_SET,
        lun: second.lun,
        initiator_task_tag: 9.into(),
        referenced_task_tag: bhs::NO_TAG.into(),
        cmd_sn: (FIRST + 2).into(),
        exp_stat_sn: second.exp_stat_sn.into(),
        ..Default::default()
    };
    second.connection.send(Header::TaskManagementRequest(request).to_bytes(), &[]).await?;
    // The first connection answers pings meanwhile: its status has to be acknowledged before the function may be answered.
    let answer = tokio::select! {
        answer = second.next() => answer?,
        other = first.next() => return fail(format!("the aborted write was answered: {other:?}")),
    };
    match answer {
        (Header::TaskManagementResponse(answer), _) => equal("response of ABORT TASK SET", answer.response, 0)?,
        (other, _) => return fail(format!("expected a Task Management Function Response, got a {}", other.name())),
    }
    first.serves(3, FIRST + 2).await?;
    second.serves(4, FIRST + 3).await
}

async fn logout_of_one(bench: &Bench) -> Outcome {
    const CLOSE_CONNECTION: u8 = 1;
    let (mut first, mut second, header) = two(bench).await?;
    let request = bhs::LogoutRequest {
        opcode: bhs::IMMEDIATE | 0x06,
        flags: bhs::FINAL | CLOSE_CONNECTION,
        initiator_task_tag: 9.into(),
        cid: header.cid.into(),
        cmd_sn: FIRST.into(),
        exp_stat_sn: first.exp_stat_sn.into(),
        ..Default::default()
    };
    first.connection.send(Header::LogoutRequest(request).to_bytes(), &[]).await?;
    match first.next().await? {
        (Header::LogoutResponse(answer), _) => equal("response of the logout", answer.response, 0)?,
        (other, _) => return fail(format!("expected a Logout Response, got a {}", other.name())),
    }
    let closed = second.connection.closed_within(Duration::from_secs(10)).await;
    ensure(closed, || "the connection that was logged out was still open after 10 s".into())?;
    first.serves(1, FIRST).await
}

/// As [`Peer::serves`]; an asynchronous message may tell of the other connection first.
async fn serves_after_message(peer: &mut Peer, tag: u32, cmd_sn: u32) -> Outcome {
    peer.inquire(tag, cmd_sn).await?;
    loop {
        match peer.next().await? {
            (Header::AsyncMessage(_), _) => {}
            (Header::DataIn(header), _) if header.initiator_task_tag.get() == tag => return Ok(()),
            (other, _) => return fail(format!("expected the answer to INQUIRY, got a {}", other.name())),
        }
    }
}
