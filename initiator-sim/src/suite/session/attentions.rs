//! Unit attentions: to each I_T nexus once, by the command that may be held up by them. SAM-5, SPC-4.

use protocol::scsi::SenseKey;

use crate::client::{Data, LogicalUnit, TaskManagement};
use crate::suite::check::{Outcome, ensure, good, refused};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("attention-to-each-session-once", "SAM-5, Unit attention conditions", Needs::ScratchDisk, |bench| {
        Box::pin(each_once(bench))
    }),
    Case::new("attention-is-kept-by-inquiry", "SPC-4, INQUIRY command; REPORT LUNS command", Needs::ScratchDisk, |bench| {
        Box::pin(kept(bench))
    }),
    Case::new("attention-told-by-request-sense", "SPC-4, REQUEST SENSE command", Needs::ScratchDisk, |bench| {
        Box::pin(told_as_data(bench))
    }),
];

/// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED and its closer descriptions.
const RESET: &[(u8, u8)] = &[(0x29, 0), (0x29, 2), (0x29, 3)];
const TEST_UNIT_READY: [u8; 6] = [0; 6];

async fn reset(by: &LogicalUnit) -> Outcome {
    Ok(by.client().task_management(TaskManagement::LogicalUnitReset(by.number())).await?)
}

async fn is_told(unit: &LogicalUnit) -> Outcome {
    let reply = unit.command(&TEST_UNIT_READY, Data::None).await?;
    refused("TEST UNIT READY after a reset by another session", &reply, SenseKey::UnitAttention, RESET)
}

async fn each_once(bench: &Bench) -> Outcome {
    let (unit, first, second) = (bench.unit().await?, bench.unit().await?, bench.unit().await?);
    reset(&unit).await?;
    for told in [&first, &second] {
        is_told(told).await?;
        told.test_unit_ready().await?;
    }
    Ok(())
}

/// Neither command is held up by it, and neither takes it away.
async fn kept(bench: &Bench) -> Outcome {
    let (unit, other) = (bench.unit().await?, bench.unit().await?);
    reset(&unit).await?;
    good("INQUIRY", other.command(&[0x12, 0, 0, 0, 36, 0], Data::In(36)).await?)?;
    good("REPORT LUNS", other.command(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Data::In(256)).await?)?;
    is_told(&other).await?;
    Ok(other.test_unit_ready().await?)
}

/// REQUEST SENSE returns it as its data, and takes it away.
async fn told_as_data(bench: &Bench) -> Outcome {
    let (unit, other) = (bench.unit().await?, bench.unit().await?);
    reset(&unit).await?;
    let data = good("REQUEST SENSE", other.command(&[0x03, 0, 0, 0, 252, 0], Data::In(252)).await?)?;
    let told = data.len() >= 14 && data[0] & 0x7E == 0x70 && data[2] & 0x0F == 6 && RESET.contains(&(data[12], data[13]));
    ensure(told, || format!("REQUEST SENSE after a reset by another session: {:02x?}", &data[..data.len().min(18)]))?;
    Ok(other.test_unit_ready().await?)
}
