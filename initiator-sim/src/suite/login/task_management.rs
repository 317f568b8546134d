//! Task management functions that find nothing to do, and LOGICAL UNIT RESET.

use crate::client::{ClientError, Data, TaskManagement, TaskTag};
use crate::suite::check::{Outcome, ensure, equal, refused};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::SenseKey;

pub const CASES: &[Case] = &[
    Case::new("abort-task-unknown", "RFC 7143, Task Management Function Response", Needs::Unit, |bench| {
        Box::pin(abort_unknown(bench))
    }),
    Case::new("abort-task-set", "RFC 7143, Task Management Function Request", Needs::Unit, |bench| {
        Box::pin(abort_task_set(bench))
    }),
    Case::new(
        "logical-unit-reset",
        "RFC 7143, Task Management Function Request; SAM-5, Logical unit reset",
        Needs::ScratchDisk,
        |bench| Box::pin(reset(bench)),
    ),
];

/// TASK DOES NOT EXIST.
const TASK_DOES_NOT_EXIST: u8 = 1;

async fn abort_unknown(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let response = code(unit.client().task_management(TaskManagement::AbortTask(TaskTag(0x00AB_CDEF))).await)?;
    // A task that is not there may have ended just before: function complete is right as well.
    ensure([0, TASK_DOES_NOT_EXIST].contains(&response), || format!("ABORT TASK of no task: response {response:#04x}"))
}

async fn abort_task_set(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let response = code(unit.client().task_management(TaskManagement::AbortTaskSet(unit.number())).await)?;
    equal("ABORT TASK SET of nothing: response", response, 0)?;
    unit.inquiry().await?;
    Ok(())
}

/// The reset is told to everybody as a unit attention, once.
async fn reset(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let other = bench.unit().await?;
    let response = code(unit.client().task_management(TaskManagement::LogicalUnitReset(unit.number())).await)?;
    equal("LOGICAL UNIT RESET: response", response, 0)?;
    let reply = other.command(&[0; 6], Data::None).await?;
    // POWER ON, RESET, OR BUS DEVICE RESET OCCURRED and its closer descriptions.
    refused("TEST UNIT READY from another session", &reply, SenseKey::UnitAttention, &[(0x29, 0), (0x29, 2), (0x29, 3)])?;
    Ok(other.test_unit_ready().await?)
}

fn code(result: Result<(), ClientError>) -> Outcome<u8> {
    match result {
        Ok(()) => Ok(0),
        Err(ClientError::TaskManagement { response, .. }) => Ok(response),
        Err(error) => Err(error.into()),
    }
}
