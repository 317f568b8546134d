//! COPY OPERATION ABORT, and what two operations with one list identifier come to.

use protocol::scsi::SenseKey;

use super::lid4::{IMMED, LID4, start, status, wait};
use super::parameters::{Parameters, block_to_block};
use super::{CopyDisk, serves, wants};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("abort-of-nothing", "SPC-4, COPY OPERATION ABORT command", Needs::CopyDisk, |bench| Box::pin(nothing(bench))),
    Case::new("abort-in-the-background", "SPC-4, The COPY OPERATION ABORT command, a)", Needs::CopyDisk, |bench| {
        Box::pin(background(bench))
    }),
    Case::new("abort-in-the-foreground", "SPC-4, The COPY OPERATION ABORT command, b)", Needs::CopyDisk, |bench| {
        Box::pin(foreground(bench))
    }),
    Case::new("duplicate-list-identifier", "SPC-4, List identifiers, OPERATION IN PROGRESS", Needs::CopyDisk, |bench| {
        Box::pin(duplicate(bench))
    }),
];

/// COMMANDS CLEARED BY DEVICE SERVER.
const CLEARED: (u8, u8) = (0x2F, 0x02);
/// OPERATION IN PROGRESS.
const IN_PROGRESS: (u8, u8) = (0x00, 0x16);

/// More than anybody copies while one looks away: types that hold pass every byte through the copy manager.
pub(super) fn endless(copy: &CopyDisk, first_id: u16, id: u32) -> Parameters {
    let blocks = (copy.disk.last() / 2).min(0x8000) as u16;
    let mut segment = block_to_block(0, (first_id, first_id), blocks, 0, u64::from(blocks));
    segment[0] = 0x0D;
    let mut list = copy.list();
    (list.id, list.usage, list.segments) = (id, 0b00, vec![segment; 2000]);
    list
}

pub(super) async fn prepared(bench: &Bench) -> Outcome<CopyDisk> {
    let copy = start(bench).await?;
    wants(&copy.disk.unit, &[0x0D]).await?;
    serves(&copy.disk.unit, 0x83, &[0x1C]).await?;
    let parameters = copy.disk.unit.receive_copy_operating_parameters().await?;
    let segments = u16::from_be_bytes([parameters[10], parameters[11]]);
    if segments < 2000 {
        return check::skip(format!("a list has at most {segments} segments: no copy is long enough"));
    }
    Ok(copy)
}

async fn nothing(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    serves(&copy.disk.unit, 0x83, &[0x1C]).await?;
    let reply = copy.disk.unit.copy_operation_abort(0xABCD_EF01).await?;
    check::illegal_request("COPY OPERATION ABORT of nothing", &reply, &[INVALID_FIELD_IN_CDB])
}

async fn background(bench: &Bench) -> Outcome {
    let copy = prepared(bench).await?;
    let list = endless(&copy, 1, 0x5100);
    check::good("IMMED", copy.disk.unit.third_party_copy_out(LID4, list.emit_lid4(IMMED).into()).await?)?;
    let running = status(&copy.disk.unit, 0x5100).await?;
    ensure(matches!(running.status(), 0x10 | 0x12), || {
        format!("COPY OPERATION STATUS {:02X}h of a copy that runs", running.status())
    })?;
    check::good("COPY OPERATION ABORT", copy.disk.unit.copy_operation_abort(0x5100).await?)?;
    let ended = status(&copy.disk.unit, 0x5100).await?;
    equal("COPY OPERATION STATUS", ended.status(), 0x60)?;
    equal("EXTENDED COPY COMPLETION STATUS: TASK ABORTED", ended.0[12], 0x40)?;
    equal("SENSE DATA LENGTH", ended.0[14], 0)?;
    let again = copy.disk.unit.copy_operation_abort(0x5100).await?;
    check::illegal_request("COPY OPERATION ABORT of one that has ended", &again, &[INVALID_FIELD_IN_CDB])
}

async fn foreground(bench: &Bench) -> Outcome {
    let copy = prepared(bench).await?;
    let list = endless(&copy, 0, 0x52);
    let (copied, ended) = tokio::join!(copy.run(&list), async {
        while copy.disk.unit.receive_copy_lid4_reply(super::lid4::STATUS, 0x52, 64).await?.sense.is_some() {
            tokio::task::yield_now().await;
        }
        copy.disk.unit.copy_operation_abort(0x52).await
    });
    check::good("COPY OPERATION ABORT", ended?)?;
    check::refused("the copy", &copied?, SenseKey::CopyAborted, &[CLEARED])
}

async fn duplicate(bench: &Bench) -> Outcome {
    let copy = prepared(bench).await?;
    let list = endless(&copy, 1, 0x53);
    check::good("IMMED", copy.disk.unit.third_party_copy_out(LID4, list.emit_lid4(IMMED).into()).await?)?;
    let mut other = copy.list().with(block_to_block(0, (1, 1), 1, 0, 2000));
    (other.id, other.usage) = (0x53, 0b00);
    let same = copy.disk.unit.third_party_copy_out(LID4, other.emit_lid4(0).into()).await?;
    let across = copy.run(&other).await?;
    check::good("COPY OPERATION ABORT", copy.disk.unit.copy_operation_abort(0x53).await?)?;
    check::illegal_request("the same list identifier", &same, &[IN_PROGRESS])?;
    check::illegal_request(
        "the same list identifier in the other format",
        &across,
        &[check::INVALID_FIELD_IN_PARAMETER_LIST, IN_PROGRESS],
    )?;
    check::good(
        "the list identifier, free again",
        copy.disk.unit.third_party_copy_out(LID4, other.emit_lid4(IMMED).into()).await?,
    )?;
    equal("COPY OPERATION STATUS", wait(&copy.disk.unit, 0x53).await?.status(), 0x01)
}
