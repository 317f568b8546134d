//! Copies in the background against what ends them, and the format in which their sense data is told.

use protocol::scsi::Sense;

use super::abort::{endless, prepared};
use super::lid4::{IMMED, LID4, STATUS, start, status, wait};
use super::parameters::{any, block_to_block};
use super::{CopyDisk, aborted, wants};
use crate::client::{Data, TaskManagement};
use crate::suite::bench::Disk;
use crate::suite::check::{self, INVALID_FIELD_IN_PARAMETER_LIST, Outcome, ensure, equal, skip};
use crate::suite::spc::sense_format;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new(
        "reset-ends-background-copies",
        "SPC-4, Third-party copy commands and operations; SAM-5, Logical unit reset",
        Needs::CopyDisk,
        |bench| Box::pin(reset(bench)),
    ),
    Case::new(
        "preempt-and-abort-ends-background-copies",
        "SPC-4, PREEMPT AND ABORT; RECEIVE COPY STATUS(LID4), status 60h",
        Needs::CopyDisk,
        |bench| Box::pin(preempt_and_abort(bench)),
    ),
    Case::new("background-descriptor-sense", "SPC-4, RECEIVE COPY STATUS(LID4), SENSE DATA; D_SENSE", Needs::CopyDisk, |bench| {
        Box::pin(descriptor_sense(bench))
    }),
    Case::new("verify-cscd", "SPC-4, Verify CSCD function (07h)", Needs::CopyDisk, |bench| Box::pin(verify(bench))),
];

/// COPY OPERATION STATUS of an operation that was terminated.
const TERMINATED: u8 = 0x60;

async fn begin(copy: &CopyDisk, id: u32) -> Outcome {
    let list = endless(copy, 1, id);
    check::good("IMMED", copy.disk.unit.third_party_copy_out(LID4, list.emit_lid4(IMMED).into()).await?)?;
    let running = status(&copy.disk.unit, id).await?.status();
    ensure(matches!(running, 0x10 | 0x12), || format!("COPY OPERATION STATUS {running:02X}h of a copy that runs"))
}

/// It is terminated, or nothing is known of it any more.
async fn is_over(copy: &CopyDisk, id: u32) -> Outcome {
    let reply = copy.disk.unit.receive_copy_lid4_reply(STATUS, id, 1024).await?;
    if reply.sense.is_some() {
        return check::illegal_request("RECEIVE COPY STATUS(LID4) of what was forgotten", &reply, &[check::INVALID_FIELD_IN_CDB]);
    }
    equal("COPY OPERATION STATUS", status(&copy.disk.unit, id).await?.status(), TERMINATED)
}

async fn reset(bench: &Bench) -> Outcome {
    let copy = prepared(bench).await?;
    begin(&copy, 0x5400).await?;
    copy.disk.unit.client().task_management(TaskManagement::LogicalUnitReset(copy.disk.unit.number())).await?;
    // The reset is told to its sender too.
    copy.disk.unit.test_unit_ready().await.ok();
    is_over(&copy, 0x5400).await
}

async fn preempt_and_abort(bench: &Bench) -> Outcome {
    const REGISTER_AND_IGNORE: u8 = 0x06;
    const PREEMPT_AND_ABORT: u8 = 0x05;
    const CLEAR: u8 = 0x03;
    const WRITE_EXCLUSIVE_ALL_REGISTRANTS: u8 = 0x07;
    let copy = prepared(bench).await?;
    let other = bench.disk().await?;
    let first = reserve_out(&copy.disk, REGISTER_AND_IGNORE, 0, 0, 0x0A).await?;
    check::good("REGISTER AND IGNORE EXISTING KEY", check::supported("PERSISTENT RESERVE OUT", first)?)?;
    check::good("the same of another", reserve_out(&other, REGISTER_AND_IGNORE, 0, 0, 0x0B).await?)?;
    begin(&copy, 0x5500).await?;
    let preempted = reserve_out(&other, PREEMPT_AND_ABORT, WRITE_EXCLUSIVE_ALL_REGISTRANTS, 0x0B, 0x0A).await?;
    let over = match preempted.sense {
        Some(_) => skip("PREEMPT AND ABORT is not served"),
        None => {
            copy.disk.unit.test_unit_ready().await.ok();
            is_over(&copy, 0x5500).await
        }
    };
    if over.is_err() {
        let _ = copy.disk.unit.copy_operation_abort(0x5500).await;
    }
    check::good("CLEAR", reserve_out(&other, CLEAR, 0, 0x0B, 0).await?)?;
    over
}

async fn reserve_out(disk: &Disk, action: u8, kind: u8, key: u64, action_key: u64) -> Outcome<crate::client::Reply> {
    let list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    disk.command(&[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], Data::Out(list.into())).await
}

/// What went wrong in the background is told in the format that the logical unit has for sense data.
async fn descriptor_sense(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let Some(page) = sense_format::changeable(&copy.disk.unit).await? else { return skip("D_SENSE cannot be changed") };
    let mut list = copy.list().with(block_to_block(0, (1, 1), 8, copy.disk.last(), 2000));
    for (id, descriptor, code) in [(0x5600, true, 0x72), (0x5601, false, 0x70)] {
        sense_format::choose(&copy.disk.unit, &page, descriptor).await?;
        (list.id, list.usage) = (id, 0b00);
        let begun = copy.disk.unit.third_party_copy_out(LID4, list.emit_lid4(IMMED).into()).await;
        let ended = match begun {
            Ok(_) => wait(&copy.disk.unit, id).await,
            Err(error) => Err(error.into()),
        };
        sense_format::choose(&copy.disk.unit, &page, false).await?;
        let ended = ended?;
        equal("COPY OPERATION STATUS", ended.status(), 0x02)?;
        equal("response code", ended.sense().first().map(|byte| byte & 0x7F), Some(code))?;
        let sense = Sense::parse(ended.sense()).map_err(|error| check::Stop::Fail(error.to_string()))?;
        equal("additional sense code", sense.code, super::THIRD_PARTY_DEVICE_FAILURE)?;
    }
    sense_format::put_back(&copy.disk.unit, &page).await
}

/// With TUR set a TEST UNIT READY is sent, or that is refused; without, residue and attentions stay as they are.
async fn verify(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x07]).await?;
    let seven = |tur| any(0x07, (0, 0), &[tur, 0, 0, 0]);
    check::good("07h", copy.run(&copy.list().with(seven(0))).await?)?;
    let ready = copy.run(&copy.list().with(seven(1))).await?;
    match ready.sense {
        None => Ok(()),
        Some(_) => aborted("07h with TUR", &ready, &[INVALID_FIELD_IN_PARAMETER_LIST], 0),
    }
}
