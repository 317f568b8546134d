//! The CmdSN window, commands aborted before they come, and task attributes.

use std::time::Duration;

use protocol::iscsi::bhs::{self, Header};

use super::{FIRST, INQUIRY, Peer};
use crate::suite::check::{Outcome, ensure, equal, equal_bytes, fail};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("command-behind-the-window", "RFC 7143, Command Numbering and Acknowledging", Needs::Unit, |bench| {
        Box::pin(behind_the_window(bench))
    }),
    Case::new("abort-before-it-came", "RFC 7143, Task Management Function Response", Needs::Unit, |bench| {
        Box::pin(abort_before(bench))
    }),
    Case::new("abort-of-the-past", "RFC 7143, Task Management Function Response", Needs::Unit, |bench| {
        Box::pin(abort_past(bench))
    }),
    Case::new("task-reassign-below-level-2", "RFC 7143, Task Management Function Response", Needs::Unit, |bench| {
        Box::pin(reassign(bench))
    }),
    Case::new("ordered-behind-a-write", "SAM-5, ORDERED task attribute", Needs::ScratchDisk, |bench| Box::pin(ordered(bench))),
    Case::new("head-of-queue-passes-what-waits", "SAM-5, HEAD OF QUEUE task attribute", Needs::ScratchDisk, |bench| {
        Box::pin(head_of_queue(bench))
    }),
    Case::new("aca-attribute", "SAM-5, ACA task attribute", Needs::Unit, |bench| Box::pin(aca(bench))),
];

const ABORT_TASK: u8 = 1;
const TASK_REASSIGN: u8 = 8;
const FUNCTION_COMPLETE: u8 = 0;
const TASK_DOES_NOT_EXIST: u8 = 1;
const REASSIGNMENT_NOT_SUPPORTED: u8 = 4;
const FUNCTION_NOT_SUPPORTED: u8 = 5;

async fn enter(bench: &Bench, keys: &[(&str, &str)]) -> Outcome<Peer> {
    Peer::enter(bench, LoginHeader::default(), keys).await
}

/// It is ignored in silence.
async fn behind_the_window(bench: &Bench) -> Outcome {
    let mut peer = enter(bench, &[]).await?;
    let behind = peer.login.header.max_cmd_sn.get().wrapping_add(1);
    peer.inquire(1, behind).await?;
    peer.serves(2, FIRST).await
}

/// Immediate; gives the response.
async fn manage(peer: &mut Peer, function: u8, referenced: u32, (cmd_sn, ref_cmd_sn): (u32, u32)) -> Outcome<u8> {
    let request = bhs::TaskManagementRequest {
        opcode: bhs::IMMEDIATE | 0x02,
        flags: bhs::FINAL | function,
        lun: peer.lun,
        initiator_task_tag: 0x0A00.into(),
        referenced_task_tag: referenced.into(),
        cmd_sn: cmd_sn.into(),
        exp_stat_sn: peer.exp_stat_sn.into(),
        ref_cmd_sn: ref_cmd_sn.into(),
        ..Default::default()
    };
    peer.connection.send(Header::TaskManagementRequest(request).to_bytes(), &[]).await?;
    match peer.next().await? {
        (Header::TaskManagementResponse(answer), _) => Ok(answer.response),
        (other, _) => fail(format!("expected a Task Management Function Response, got a {}", other.name())),
    }
}

/// The number of a command that is aborted before it comes counts as received.
async fn abort_before(bench: &Bench) -> Outcome {
    let mut peer = enter(bench, &[]).await?;
    let response = manage(&mut peer, ABORT_TASK, 0x77, (FIRST + 1, FIRST)).await?;
    equal("ABORT TASK of a command that may still come", response, FUNCTION_COMPLETE)?;
    peer.serves(2, FIRST + 1).await
}

async fn abort_past(bench: &Bench) -> Outcome {
    let mut peer = enter(bench, &[]).await?;
    peer.serves(1, FIRST).await?;
    let response = manage(&mut peer, ABORT_TASK, 0x77, (FIRST + 1, FIRST)).await?;
    equal("ABORT TASK of a command that has ended", response, TASK_DOES_NOT_EXIST)
}

async fn reassign(bench: &Bench) -> Outcome {
    let mut peer = enter(bench, &[("ErrorRecoveryLevel", "0")]).await?;
    let response = manage(&mut peer, TASK_REASSIGN, 0x77, (FIRST, FIRST)).await?;
    ensure([REASSIGNMENT_NOT_SUPPORTED, FUNCTION_NOT_SUPPORTED].contains(&response), || {
        format!("TASK REASSIGN below level 2: response {response:#04x}")
    })
}

const ORDERED: u8 = 2;

/// A HEAD OF QUEUE command is answered while an older ORDERED one still waits for a write without data.
async fn head_of_queue(bench: &Bench) -> Outcome {
    const HEAD_OF_QUEUE: u8 = 3;
    let (mut peer, r2t) = waiting_write(bench).await?;
    let block = r2t.desired_data_transfer_length.get();
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    peer.command(3, FIRST + 2, bhs::READ | ORDERED, block, &read).await?;
    peer.command(4, FIRST + 3, bhs::READ | HEAD_OF_QUEUE, block, &read).await?;
    equal("status of the read at the head of the queue", peer.ends(4).await?.0, 0)?;
    let data = super::super::bench::pattern(0x44, block as usize);
    give(&mut peer, &r2t, &data).await?;
    equal("status of the write", peer.ends(2).await?.0, 0)?;
    let (status, _, read) = peer.ends(3).await?;
    equal("status of the ORDERED read", status, 0)?;
    equal_bytes("what the ORDERED read found", &read, &data)
}

/// A write of the first block as command 2, whose data the target asks for.
async fn waiting_write(bench: &Bench) -> Outcome<(Peer, bhs::R2t)> {
    let block = bench.disk().await?.block();
    let mut peer = enter(bench, &[("InitialR2T", "Yes"), ("ImmediateData", "No")]).await?;
    peer.command(1, FIRST, 0, 0, &[0; 6]).await?;
    peer.ends(1).await?;
    peer.command(2, FIRST + 1, bhs::WRITE, block, &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]).await?;
    match peer.next().await? {
        (Header::R2t(r2t), _) => Ok((peer, r2t)),
        (other, _) => fail(format!("expected an R2T for the data of a write, got a {}", other.name())),
    }
}

/// All that was asked for.
async fn give(peer: &mut Peer, r2t: &bhs::R2t, data: &[u8]) -> Outcome {
    let header = bhs::DataOut {
        opcode: 0x05,
        flags: bhs::FINAL,
        lun: r2t.lun,
        initiator_task_tag: r2t.initiator_task_tag,
        target_transfer_tag: r2t.target_transfer_tag,
        exp_stat_sn: peer.exp_stat_sn.into(),
        ..Default::default()
    };
    peer.connection.send(Header::DataOut(header).to_bytes(), data).await
}

/// An ORDERED read sees what an older write brings, though the write's data comes later.
async fn ordered(bench: &Bench) -> Outcome {
    let (mut peer, r2t) = waiting_write(bench).await?;
    let block = r2t.desired_data_transfer_length.get();
    peer.command(3, FIRST + 2, bhs::READ | ORDERED, block, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).await?;
    let early = tokio::time::timeout(Duration::from_millis(300), peer.next()).await;
    ensure(early.is_err(), || "an ORDERED read was answered before an older write had ended".into())?;
    let data = super::super::bench::pattern(0x33, block as usize);
    give(&mut peer, &r2t, &data).await?;
    equal("status of the write", peer.ends(2).await?.0, 0)?;
    let (status, _, read) = peer.ends(3).await?;
    equal("status of the read", status, 0)?;
    equal_bytes("what the ORDERED read found", &read, &data)
}

/// There is no ACA condition, so nothing may come with its attribute.
async fn aca(bench: &Bench) -> Outcome {
    const ACA: u8 = 4;
    let mut peer = enter(bench, &[]).await?;
    peer.command(1, FIRST, bhs::READ | ACA, 36, &INQUIRY).await?;
    equal("status of INQUIRY with the ACA attribute", peer.ends(1).await?.0, 2)
}
