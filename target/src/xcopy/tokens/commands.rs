//! POPULATE TOKEN, and WRITE USING TOKEN up to the job that a mover gets. SBC-4.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::mover::{Action, Destination, Move, Source, Step};
use protocol::scsi::sense::{FieldPointer, Sense};
use protocol::scsi::{SenseKey, Status};
use protocol::units::BlockCount;
use protocol::xcopy::rod::{MAX_ROD_BYTES, RangeDescriptor, RodToken, RodType, TokenFault};
use protocol::xcopy::{PopulateToken, WriteUsingToken};
use tokio_util::sync::CancellationToken;

use super::Tokens;
use super::populate::{Moment, Terms, prepare};
use crate::lun::common::LogicalUnit;
use crate::lun::disk::Disk;
use crate::snapshot::SnapshotService;
use crate::task::Response;
use crate::xcopy::jobs::Ended;
use crate::xcopy::plan::{Plan, PlannedEnd};
use crate::xcopy::results::Progress;
use crate::xcopy::sense::Notes;

/// Checks that the ranges of a list that begin at `at` lie on the disk and are not too many blocks.
///
/// # Errors
/// LOGICAL BLOCK ADDRESS OUT OF RANGE, INVALID FIELD IN PARAMETER LIST.
fn check(disk: &Disk, ranges: &[RangeDescriptor], at: usize) -> Result<(), Sense> {
    for (index, range) in ranges.iter().enumerate() {
        let end = range.lba.0.checked_add(range.blocks.into());
        if end.is_none_or(|end| end > disk.capacity().0) {
            let byte = (at + index * RangeDescriptor::LENGTH) as u16;
            return Err(Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::parameter(byte)));
        }
    }
    let BlockCount(blocks) = RangeDescriptor::total(ranges);
    if blocks > MAX_ROD_BYTES / disk.block_length().bytes() {
        return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(at as u16)));
    }
    Ok(())
}

/// POPULATE TOKEN, once its list is read.
pub struct Populate {
    disk: Arc<Disk>,
    nexus: u64,
    list: PopulateToken,
}

/// What a POPULATE TOKEN asks of a disk, checked.
///
/// # Errors
/// What is wrong with the list.
pub fn populate(disk: &Arc<Disk>, nexus: u64, list: PopulateToken) -> Result<Populate, Sense> {
    check(disk, &list.ranges, 16)?;
    Ok(Populate { disk: Arc::clone(disk), nexus, list })
}

impl Populate {
    /// Waits for the moment and makes the token. Moves nothing.
    pub async fn run(
        self,
        snapshots: &SnapshotService,
        tokens: &Arc<Tokens>,
        progress: &Progress,
        cancelled: &CancellationToken,
    ) -> Ended {
        match self.token(snapshots, tokens, cancelled).await {
            Ok(token) => {
                let blocks = RangeDescriptor::total(&self.list.ranges);
                progress.written.store(blocks.0 * self.disk.block_length().bytes(), Ordering::Relaxed);
                Ended { tokens: token.map(|token| (0, token)).into_iter().collect(), ..Response::good().into() }
            }
            Err(response) => Ended { terminated: cancelled.is_cancelled(), ..response.into() },
        }
    }

    async fn token(
        &self,
        snapshots: &SnapshotService,
        tokens: &Arc<Tokens>,
        cancelled: &CancellationToken,
    ) -> Result<Option<RodToken>, Response> {
        // Without RTV any point in time copy will do.
        let kind = self.list.kind.and_then(RodType::created).unwrap_or(RodType::Default);
        let Some((rod, prepared)) = prepare(snapshots, &self.disk, &self.list.ranges).await? else { return Ok(None) };
        Moment::of(kind, &self.disk, self.list.immediate).take(prepared, cancelled).await?;
        let terms = Terms::of_populate_token(self.list.inactivity_timeout);
        Ok(Some(tokens.make(self.nexus, &self.disk, kind, Arc::new(rod), terms)?))
    }
}

/// WRITE USING TOKEN as a plan, and what is written when nothing fails.
pub struct Write {
    /// For a mover.
    pub plan: Plan,
    /// Blocks that the list asks for.
    pub wanted: BlockCount,
    /// Blocks that there are.
    pub there: BlockCount,
}

/// Makes a plan of a WRITE USING TOKEN that came to `disk`.
///
/// # Errors
/// What is wrong with the list, or with the token.
pub fn write(disk: &Arc<Disk>, list: &WriteUsingToken, tokens: &Arc<Tokens>) -> Result<Write, Sense> {
    check(disk, &list.ranges, 536)?;
    let at_token = |sense: Sense| sense.at(FieldPointer::parameter(16));
    let token = RodToken::parse(&list.token).map_err(TokenFault::sense).map_err(at_token)?;
    let in_use = match token.is_zero() {
        true => None,
        false => Some(tokens.find(&token, &disk.common().identity.target_name).map_err(at_token)?),
    };
    let unit = disk.block_length().bytes();
    let wanted = RangeDescriptor::total(&list.ranges);
    // Zeros there are as many as anybody wants.
    let (from, rest) = match &in_use {
        None => (PlannedEnd::Zeros(wanted.0 * unit), wanted.0 * unit),
        Some(used) => {
            let offset = list.offset.checked_mul(unit).filter(|offset| *offset < used.rod().bytes());
            let offset = offset.ok_or(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(8)))?;
            (PlannedEnd::Rod(Arc::clone(used.rod())), used.rod().bytes() - offset)
        }
    };
    let offset = if in_use.is_some() { list.offset * unit } else { 0 };
    let mut plan = Plan::default();
    plan.in_use.extend(in_use);
    plan.deletes = if list.deletes_token { (0..plan.in_use.len()).collect() } else { Vec::new() };
    let from = plan.add(from);
    let to = plan.add(PlannedEnd::Destination(Arc::clone(disk)));
    let (mut done, mut blocks) = (0, 0);
    for (segment, range) in list.ranges.iter().enumerate() {
        let len = (u64::from(range.blocks) * unit).min(rest - done);
        if len > 0 {
            let copy = Move {
                from: Source::Bytes { end: from, at: offset + done, len },
                to: Destination::Blocks { end: to, at: range.lba.0 * unit },
                process: Some(len),
                output: None,
                // "… write that portion of the logical block with user data with all bits set to zero."
                source_pad: true,
                destination_pad: true,
                hold: false,
            };
            plan.steps.push(Step { segment: segment as u32, cat: false, action: Action::Move(copy) });
            blocks += len.div_ceil(unit);
            done += len;
        }
        plan.notes.push(Notes { residual_unit: Some(unit), ..Notes::default() });
    }
    Ok(Write { plan, wanted, there: BlockCount(blocks) })
}

impl Write {
    /// SBC-4, "POPULATE TOKEN command and WRITE USING TOKEN command completion": less than was asked for.
    #[must_use]
    pub fn completed(wanted: BlockCount, there: BlockCount, ended: Ended) -> Ended {
        if ended.response.status != Status::Good || there >= wanted {
            return ended;
        }
        let key = if there.0 == 0 { SenseKey::IllegalRequest } else { SenseKey::CopyAborted };
        let sense = Sense::COPY_TARGET_DEVICE_DATA_UNDERRUN.with_key(key).with_information(there.0);
        Ended { response: sense.into(), partial: true, ..ended }
    }
}
