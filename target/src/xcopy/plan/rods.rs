//! RODs of a list: those that tokens stand for, and those that segments populate.
//!
//! A ROD is a block device whose blocks count from zero; it is read and never written. Tokens and all that can be seen of the segments
//! BEh and BFh are looked at before the first segment. Follows SPC-4, "ROD CSCD descriptor", "EXTENDED COPY considerations for RODs and
//! ROD tokens", segment types BEh and BFh.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::mover::Action;
use protocol::scsi::Sense;
use protocol::scsi::sense::CopyEnd;
use protocol::units::BlockCount;
use protocol::xcopy::rod::{MAX_ROD_BYTES, RangeDescriptor, RodToken, TokenFault};
use protocol::xcopy::{CscdId, CscdName, CscdParameters, RodCscd, Segment};

use super::{Checked, Cscd, PlannedEnd, Planner, Unit};
use crate::lun::Device;
use crate::lun::disk::Disk;
use crate::xcopy::sense::{at_cscd, at_list};
use crate::xcopy::tokens::{Populating, Rod, Terms, Tokens};

/// What is read where a ROD is.
#[derive(Debug, Clone)]
pub(super) enum RodEnd {
    /// That of a token.
    Token(Arc<Rod>),
    /// That of [`super::Plan::rods`] with this index.
    Populated(usize),
}

/// A ROD as a block device.
#[derive(Debug, Clone)]
pub(super) struct RodUnit {
    pub end: RodEnd,
    /// Bytes.
    pub block_length: u64,
    /// Bytes.
    pub size: u64,
}

impl RodUnit {
    pub(super) fn planned(&self) -> PlannedEnd {
        match &self.end {
            RodEnd::Token(rod) => PlannedEnd::Rod(Arc::clone(rod)),
            RodEnd::Populated(index) => PlannedEnd::Populated(*index),
        }
    }
}

/// The ranges that a segment adds to a ROD. `None` for another segment.
fn ranges_of(segment: &Segment) -> Option<Vec<RangeDescriptor>> {
    match segment {
        Segment::PopulateRod { ranges, .. } => Some(ranges.clone()),
        // More blocks than 32 bits count lie beyond what a ROD may hold.
        Segment::PopulateRodRange { from, blocks, .. } => {
            Some(vec![RangeDescriptor { lba: *from, blocks: u32::try_from(*blocks).unwrap_or(u32::MAX) }])
        }
        _ => None,
    }
}

impl Planner<'_> {
    /// Finds what the ROD CSCD descriptors stand for.
    ///
    /// # Errors
    /// ILLEGAL REQUEST, and nothing is moved.
    pub(super) fn find_rods(&mut self, tokens: &Arc<Tokens>) -> Result<(), Sense> {
        for (index, descriptor) in self.list.cscds.iter().enumerate() {
            let CscdName::Rod(rod) = &descriptor.name else { continue };
            let end = match rod.kind {
                None => self.of_token(rod, self.list.cscd_at(index), tokens)?,
                Some(_) => self.populates(rod, index)?,
            };
            self.rods.insert(index, end);
        }
        self.check_populating()
    }

    fn of_token(&mut self, rod: &RodCscd, at: usize, tokens: &Arc<Tokens>) -> Result<RodEnd, Sense> {
        let field = |sense| at_list(sense, at + 24);
        let bytes = self.list.inline.get(rod.token_offset as usize..).and_then(<[u8]>::first_chunk);
        let bytes = bytes.ok_or_else(|| field(Sense::INVALID_FIELD_IN_PARAMETER_LIST))?;
        let token = RodToken::parse(bytes).map_err(TokenFault::sense).map_err(field)?;
        // "The peripheral device type … shall be the peripheral device type specified by the ROD token", whose logical unit gives the
        // block length as well. That of zeros names none: SBC-4 gives it the blocks of the disk that WRITE USING TOKEN writes.
        if token.is_zero() {
            return Err(field(Sense::INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE));
        }
        let used = tokens.find(&token, &self.device.common().identity.target_name).map_err(field)?;
        let end = RodEnd::Token(Arc::clone(used.rod()));
        if rod.deletes_token {
            self.plan.deletes.push(self.plan.in_use.len());
        }
        self.plan.in_use.push(used);
        Ok(end)
    }

    fn populates(&mut self, rod: &RodCscd, index: usize) -> Result<RodEnd, Sense> {
        let kind = rod.kind.and_then(|kind| kind.created());
        let (Device::Disk(disk), Some(kind)) = (self.device, kind) else {
            return Err(at_list(Sense::INVALID_FIELD_IN_PARAMETER_LIST, self.list.cscd_at(index) + 8));
        };
        let returns = rod.returns_token.then(|| (self.list.cscd_id(index).0, Terms::of_cscd(rod)));
        let disk = Arc::clone(disk);
        self.plan.rods.push(Populating { disk, kind, ranges: Vec::new(), returns, last_segment: 0, used: false });
        Ok(RodEnd::Populated(self.plan.rods.len() - 1))
    }

    /// The lists of errors of BEh and BFh, and that no ROD holds a block twice.
    fn check_populating(&mut self) -> Result<(), Sense> {
        if self.rods.is_empty() && !self.list.segments.iter().any(|descriptor| ranges_of(&descriptor.segment).is_some()) {
            return Ok(());
        }
        let mut all = vec![(Vec::new(), Vec::new()); self.plan.rods.len()];
        let mut used = BTreeSet::new();
        let mut at = self.list.segment_at(0);
        for (number, descriptor) in self.list.segments.iter().enumerate() {
            let field = |byte: usize| at_list(Sense::INVALID_FIELD_IN_PARAMETER_LIST, at + byte);
            if let Some(ranges) = ranges_of(&descriptor.segment) {
                if descriptor.segment.source() != Some(CscdId::THIS_LUN) {
                    return Err(field(4));
                }
                let destination = descriptor.segment.destination().and_then(|id| self.list.cscd_index(id));
                let Some(RodEnd::Populated(rod)) = destination.and_then(|index| self.rods.get(&index)) else {
                    return Err(field(6));
                };
                // One that comes after the ROD's use is refused when it is its turn.
                if !used.contains(rod) {
                    self.plan.rods[*rod].last_segment = number as u32;
                    let (known, places) = &mut all[*rod];
                    places.resize(places.len() + ranges.len(), at);
                    known.extend(ranges);
                }
            } else if descriptor
                .segment
                .destination()
                .and_then(|id| self.list.cscd_index(id))
                .is_some_and(|index| self.rods.contains_key(&index))
            {
                // "… specifies a point in time copy ROD as a copy destination …"
                return Err(field(6));
            }
            let source = descriptor.segment.source().and_then(|id| self.list.cscd_index(id));
            if let Some(RodEnd::Populated(rod)) = source.and_then(|index| self.rods.get(&index))
                && !matches!(descriptor.segment, Segment::VerifyCscd { .. })
            {
                used.insert(*rod);
            }
            at += descriptor.length();
        }
        for (rod, (ranges, places)) in self.plan.rods.iter().zip(all) {
            let refused = |at: usize| Err(at_list(Sense::INVALID_FIELD_IN_PARAMETER_LIST, at));
            if let Some(twice) = RangeDescriptor::overlap(&ranges) {
                return refused(places[twice] + 8);
            }
            let BlockCount(blocks) = RangeDescriptor::total(&ranges);
            if blocks > MAX_ROD_BYTES / rod.disk.block_length().bytes() {
                return refused(places.last().map_or(0, |at| at + 8));
            }
        }
        Ok(())
    }

    /// A ROD that a segment names.
    pub(super) fn rod(&mut self, checked: &Checked<'_>, index: usize, side: CopyEnd) -> Result<Cscd, Sense> {
        let end = self.rods.get(&index).cloned().ok_or_else(|| checked.abort(Sense::UNREACHABLE_COPY_TARGET))?;
        let (block_length, size) = match &end {
            RodEnd::Token(rod) => (rod.block_length().bytes(), rod.bytes()),
            RodEnd::Populated(rod) => {
                let rod = &mut self.plan.rods[*rod];
                let block_length = rod.disk.block_length().bytes();
                rod.used |= side == CopyEnd::Source && !matches!(checked.descriptor.segment, Segment::VerifyCscd { .. });
                // "If a segment descriptor attempts to use an unpopulated ROD …"
                if rod.used && rod.ranges.is_empty() {
                    return Err(at_cscd(checked.abort(Sense::COPY_TARGET_DEVICE_NOT_REACHABLE), &checked.notes, side));
                }
                (block_length, RangeDescriptor::total(&rod.ranges).0 * block_length)
            }
        };
        let CscdParameters::Block { pad, block_length: said, .. } = self.list.cscds[index].parameters else {
            return Err(at_cscd(checked.abort(Sense::INCORRECT_COPY_TARGET_DEVICE_TYPE), &checked.notes, side));
        };
        if said != 0 && u64::from(said) != block_length {
            return Err(at_list(checked.abort(Sense::INVALID_FIELD_IN_PARAMETER_LIST), self.list.cscd_at(index) + 29));
        }
        Ok(Cscd { pad, ..Cscd::of(Unit::Rod(RodUnit { end, block_length, size })) })
    }

    /// BEh and BFh. The last that populates a ROD is its moment.
    pub(super) fn populate(&mut self, checked: &Checked<'_>, destination: &Cscd) -> Result<Action, Sense> {
        let Unit::Rod(RodUnit { end: RodEnd::Populated(index), .. }) = &destination.unit else { return Err(checked.invalid(6)) };
        let rod = &mut self.plan.rods[*index];
        if rod.used {
            return Err(checked.invalid(6));
        }
        let ranges = ranges_of(&checked.descriptor.segment).unwrap_or_default();
        if ranges.iter().any(|range| !lies_on(&rod.disk, range)) {
            return Err(checked.refused(CopyEnd::Source, Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE));
        }
        rod.ranges.extend(ranges);
        let is_moment = rod.last_segment == checked.number && RangeDescriptor::total(&rod.ranges).0 > 0;
        Ok(if is_moment { Action::Ask } else { Action::Nothing })
    }
}

fn lies_on(disk: &Disk, range: &RangeDescriptor) -> bool {
    range.lba.0.checked_add(range.blocks.into()).is_some_and(|end| end <= disk.capacity().0)
}
