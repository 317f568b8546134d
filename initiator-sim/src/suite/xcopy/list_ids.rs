//! List identifiers: what RECEIVE COPY tells of a copy, to whom, and when it knows nothing.

use super::parameters::block_to_block;
use super::{CopyDisk, THIRD_PARTY_DEVICE_FAILURE, aborted, wants};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::{Sense, SenseKey};

pub const CASES: &[Case] = &[
    Case::new("copy-status", "SPC-4, RECEIVE COPY STATUS(LID1) command", Needs::CopyDisk, |bench| Box::pin(status(bench))),
    Case::new("copy-status-unknown-list", "SPC-4, RECEIVE COPY STATUS(LID1) command", Needs::CopyDisk, |bench| {
        Box::pin(unknown_list(bench))
    }),
    Case::new("copy-status-of-other-nexus", "SPC-4, List identifiers; I_T nexus", Needs::CopyDisk, |bench| {
        Box::pin(other_nexus(bench))
    }),
    Case::new("copy-failure-details", "SPC-4, RECEIVE COPY FAILURE DETAILS(LID1) command", Needs::CopyDisk, |bench| {
        Box::pin(failure_details(bench))
    }),
];

/// Service actions of RECEIVE COPY.
const STATUS: u8 = 0x00;
const FAILURE_DETAILS: u8 = 0x04;

/// A copy of two segments with identifier `id`, results held.
async fn held_copy(copy: &CopyDisk, id: u8) -> Outcome {
    wants(&copy.disk.unit, &[0x02]).await?;
    copy.wants_two_segments().await?;
    let mut list = copy.list().with(block_to_block(0, (0, 0), 8, 0, 2000)).with(block_to_block(0, (0, 0), 4, 0, 3000));
    (list.id, list.usage) = (u32::from(id), 0b00);
    check::good("a copy of two segments", copy.run(&list).await?).map(drop)
}

async fn status(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    held_copy(&copy, 0x21).await?;
    let reply = copy.disk.unit.receive_copy_reply(STATUS, 0x21, 64).await?;
    let data = check::good("RECEIVE COPY STATUS(LID1)", reply)?;
    ensure(data.len() == 12, || format!("{} bytes of copy status", data.len()))?;
    equal("AVAILABLE DATA", u32::from_be_bytes([data[0], data[1], data[2], data[3]]), 8)?;
    equal("COPY COMMAND STATUS: completed without errors", data[4] & 0x7F, 0x01)?;
    equal("SEGMENTS PROCESSED", u16::from_be_bytes([data[5], data[6]]), 2)?;
    let count = u64::from(u32::from_be_bytes([data[8], data[9], data[10], data[11]]));
    let unit = match data[7] {
        units @ 0..=6 => 1024_u64.pow(units.into()),
        0xF1 => u64::from(copy.disk.block()),
        units => return check::fail(format!("TRANSFER COUNT UNITS {units:02X}h")),
    };
    let bytes = 12 * u64::from(copy.disk.block());
    ensure(count * unit <= bytes && (count + 1) * unit > bytes, || {
        format!("TRANSFER COUNT {count} x {unit}, {bytes} bytes moved")
    })
}

async fn unknown_list(bench: &Bench) -> Outcome {
    let unit = CopyDisk::new(bench).await?.disk.unit;
    for action in [STATUS, FAILURE_DETAILS] {
        let reply = unit.receive_copy_reply(action, 0xEE, 64).await?;
        check::illegal_request("RECEIVE COPY of a list that was not", &reply, &[INVALID_FIELD_IN_CDB])?;
    }
    Ok(())
}

async fn other_nexus(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    held_copy(&copy, 0x22).await?;
    let other = bench.disk().await?.unit;
    let reply = other.receive_copy_reply(STATUS, 0x22, 64).await?;
    check::illegal_request("RECEIVE COPY STATUS from another session", &reply, &[INVALID_FIELD_IN_CDB])
}

async fn failure_details(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    let mut list = copy.list().with(block_to_block(0, (0, 0), 8, copy.disk.last(), 2000));
    (list.id, list.usage) = (0x23, 0b00);
    aborted("a copy from beyond the end", &copy.run(&list).await?, &[THIRD_PARTY_DEVICE_FAILURE], 0)?;
    let reply = copy.disk.unit.receive_copy_reply(FAILURE_DETAILS, 0x23, 1024).await?;
    let data = check::good("RECEIVE COPY FAILURE DETAILS(LID1)", reply)?;
    if data.len() < 60 {
        return skip(format!("{} bytes of failure details: none are held", data.len()));
    }
    equal("EXTENDED COPY COMMAND STATUS", data[56], 0x02)?;
    let length = usize::from(u16::from_be_bytes([data[58], data[59]]));
    ensure(data.len() >= 60 + length, || format!("SENSE DATA LENGTH {length}, {} bytes came", data.len() - 60))?;
    let sense = Sense::parse(&data[60..60 + length]).map_err(|error| check::Stop::Fail(error.to_string()))?;
    equal("sense of the failed copy", (sense.key, sense.code), (SenseKey::CopyAborted, THIRD_PARTY_DEVICE_FAILURE))
}
