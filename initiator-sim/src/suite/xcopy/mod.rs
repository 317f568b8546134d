//! EXTENDED COPY. SPC-4.

mod abort;
mod background;
mod block_to_block;
mod failures;
mod held;
mod image;
mod lid4;
mod limits;
mod list_ids;
mod parameters;
mod positioning;
mod refusals;
mod remote;
mod reservations;
mod residue;
mod stream;
mod tokens;
mod tokens_lists;
mod tokens_moment;
mod tokens_rods;
mod tokens_validity;

use protocol::scsi::SenseKey;

use super::bench::Disk;
use super::check::{self, Outcome, equal, refused, skip};
use super::{Bench, Case};
use crate::client::{LogicalUnit, Reply};
use parameters::{Cscd, Parameters};

/// All of them.
pub const CASES: &[&[Case]] = &[
    limits::CASES,
    block_to_block::CASES,
    stream::CASES,
    residue::CASES,
    positioning::CASES,
    refusals::CASES,
    failures::CASES,
    list_ids::CASES,
    held::CASES,
    lid4::CASES,
    abort::CASES,
    background::CASES,
    image::CASES,
    reservations::CASES,
    remote::CASES,
    tokens::CASES,
    tokens_lists::CASES,
    tokens_moment::CASES,
    tokens_validity::CASES,
    tokens_rods::CASES,
];

/// UNREACHABLE COPY TARGET.
const UNREACHABLE: (u8, u8) = (0x08, 0x04);
/// THIRD PARTY DEVICE FAILURE.
const THIRD_PARTY_DEVICE_FAILURE: (u8, u8) = (0x0D, 0x01);
/// COPY TARGET DEVICE NOT REACHABLE.
const NOT_REACHABLE: (u8, u8) = (0x0D, 0x02);
/// INCORRECT COPY TARGET DEVICE TYPE.
const INCORRECT_DEVICE_TYPE: (u8, u8) = (0x0D, 0x03);
/// TOO MANY TARGET DESCRIPTORS.
const TOO_MANY_CSCDS: (u8, u8) = (0x26, 0x06);
/// UNSUPPORTED TARGET DESCRIPTOR TYPE CODE.
const UNSUPPORTED_CSCD: (u8, u8) = (0x26, 0x07);
/// TOO MANY SEGMENT DESCRIPTORS.
const TOO_MANY_SEGMENTS: (u8, u8) = (0x26, 0x08);
/// UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE.
const UNSUPPORTED_SEGMENT: (u8, u8) = (0x26, 0x09);
/// UNEXPECTED INEXACT SEGMENT.
const INEXACT_SEGMENT: (u8, u8) = (0x26, 0x0A);
/// INLINE DATA LENGTH EXCEEDED.
const INLINE_EXCEEDED: (u8, u8) = (0x26, 0x0B);
/// INVALID OPERATION FOR COPY SOURCE OR DESTINATION.
const INVALID_OPERATION: (u8, u8) = (0x26, 0x0C);

/// A disk with its CSCD descriptor.
struct CopyDisk {
    disk: Disk,
    cscd: Cscd,
}

/// Disk and tape, each with its CSCD descriptor, through one session. The tape stands at its beginning.
struct DiskAndTape {
    disk: Disk,
    tape: LogicalUnit,
    /// CSCD 0.
    disk_cscd: Cscd,
    /// CSCD 1.
    tape_cscd: Cscd,
}

/// Index of the disk's descriptor in [`DiskAndTape::list`].
const DISK: u16 = 0;
/// Index of the tape's.
const TAPE: u16 = 1;

impl CopyDisk {
    async fn new(bench: &Bench) -> Outcome<Self> {
        let disk = bench.disk().await?;
        disk.at_least(4096)?;
        let cscd = Cscd::disk(&disk.unit, disk.block()).await?;
        Ok(Self { disk, cscd })
    }

    /// A list that knows the disk as CSCD 0.
    fn list(&self) -> Parameters {
        Parameters { cscds: vec![self.cscd.clone()], ..Parameters::default() }
    }

    async fn run(&self, list: &Parameters) -> Outcome<Reply> {
        Ok(self.disk.unit.extended_copy_reply(list.emit().into()).await?)
    }

    /// Skips the case where a list has one segment at the most: MAXIMUM SEGMENT DESCRIPTOR COUNT, bytes 10 and 11.
    async fn wants_two_segments(&self) -> Outcome {
        let parameters = self.disk.unit.receive_copy_operating_parameters().await?;
        if parameters.get(10..12) == Some(&[0, 1]) { skip("the copy manager takes one segment") } else { Ok(()) }
    }
}

impl DiskAndTape {
    async fn new(bench: &Bench) -> Outcome<Self> {
        let (disk, tape) = bench.disk_and_tape().await?;
        disk.at_least(4096)?;
        let disk_cscd = Cscd::disk(&disk.unit, disk.block()).await?;
        let tape_cscd = Cscd::tape(&tape).await?;
        Ok(Self { disk, tape, disk_cscd, tape_cscd })
    }

    /// A list with the disk as CSCD 0 and the tape as CSCD 1.
    fn list(&self) -> Parameters {
        Parameters { cscds: vec![self.disk_cscd.clone(), self.tape_cscd.clone()], ..Parameters::default() }
    }

    /// Sends the list to the disk's copy manager.
    async fn run(&self, list: &Parameters) -> Outcome<Reply> {
        Ok(self.disk.unit.extended_copy_reply(list.emit().into()).await?)
    }

    /// Skips the case unless the copy manager lists these descriptor type codes.
    async fn wants(&self, codes: &[u8]) -> Outcome {
        wants(&self.disk.unit, codes).await
    }

    /// Fails unless the list ends GOOD.
    async fn copy(&self, what: &str, list: &Parameters) -> Outcome {
        check::good(what, self.run(list).await?).map(drop)
    }
}

/// Skips the case unless page 8Fh lists these service actions of THIRD-PARTY COPY OUT (83h) or IN (84h).
async fn serves(unit: &LogicalUnit, opcode: u8, actions: &[u8]) -> Outcome {
    let known = limits::service_actions_of(unit, opcode).await?;
    match actions.iter().find(|action| !known.contains(action)) {
        Some(missing) => skip(format!("the copy manager does not list {opcode:02X}h/{missing:02X}h")),
        None => Ok(()),
    }
}

/// Codes of OPERATING PARAMETERS: its list begins at byte 44, and its length is in byte 43.
async fn implemented(unit: &LogicalUnit) -> Outcome<Vec<u8>> {
    let parameters = unit.receive_copy_operating_parameters().await?;
    let length = parameters.get(43).copied().unwrap_or(0);
    Ok(parameters.get(44..44 + usize::from(length)).unwrap_or_default().to_vec())
}

async fn wants(unit: &LogicalUnit, codes: &[u8]) -> Outcome {
    let known = implemented(unit).await?;
    match codes.iter().find(|code| !known.contains(code)) {
        Some(missing) => skip(format!("the copy manager does not list segment type {missing:02X}h")),
        None => Ok(()),
    }
}

/// COPY ABORTED with one of these codes, and the segment's number in COMMAND-SPECIFIC INFORMATION.
fn aborted(what: &str, reply: &Reply, codes: &[(u8, u8)], segment: u64) -> Outcome {
    refused(what, reply, SenseKey::CopyAborted, codes)?;
    let specific = reply.sense.as_ref().and_then(|sense| sense.command_specific);
    equal(&format!("{what}: segment in COMMAND-SPECIFIC INFORMATION"), specific.unwrap_or(0), segment)
}
