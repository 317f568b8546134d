//! From a list to a job: CSCDs become logical units, segments become steps, and what can be checked is checked.
//!
//! Resolves only inside the LUN map of the I_T nexus that sent the command, and what has an IP address only among the remote ends that
//! this nexus may use. Logs in to these, opens no file and holds no drive. What depends on
//! data or on a tape's position is left to the mover.
//!
//! Follows SPC-4, "CSCD descriptors", "Segment descriptors" and tables 115 and 138.

mod rods;
mod sides;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use protocol::mover::ends::End;
use protocol::mover::{Action, Destination, EndIndex, Move, RemoteUnit as RemoteKind, Source, SpaceOver, Step};
use protocol::scsi::designator::Designator;
use protocol::scsi::sense::{CopyEnd, FieldPointer, ForwardedSense, Sense};
use protocol::xcopy::{self, CountOf, CscdDescriptor, CscdId, CscdName, CscdParameters, List, Segment, SegmentDescriptor};

use rods::{RodEnd, RodUnit};
use sides::null_block;

use super::duty::{self, Duty, admitted};
use super::leases::Leased;
use super::sense::{Notes, abort, at_cscd, at_list, forwarded, third_party};
use super::tokens::{InUse, Populating, Rod, Tokens};
use crate::lun::Device;
use crate::lun::disk::Disk;
use crate::lun::tape::Tape;
use crate::remote::connection::Refused;
use crate::remote::{RemoteEnds, RemoteUnit, Unusable};
use crate::task::{Response, Task};

/// Who takes part, before any file is open.
#[derive(Debug, Clone)]
pub enum PlannedEnd {
    /// A disk that is read.
    Source(Arc<Disk>),
    /// A disk that is written.
    Destination(Arc<Disk>),
    /// A tape.
    Tape(Arc<Tape>),
    /// A disk or tape of another target.
    Remote(Arc<RemoteUnit>),
    /// A null logical unit.
    Null(End),
    /// A ROD, or a disk as it was at one moment.
    Rod(Arc<Rod>),
    /// The ROD of [`Plan::rods`] with this index, which is not populated yet.
    Populated(usize),
    /// So many bytes of zeros.
    Zeros(u64),
}

/// A job whose ends are not open yet.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order of [`EndIndex`].
    pub ends: Vec<PlannedEnd>,
    /// One for each segment, and one more before those that the target is asked about.
    pub steps: Vec<Step>,
    /// What sense data of a segment has to know; one for each.
    pub notes: Vec<Notes>,
    /// Inline data, and embedded data behind it.
    pub inline: Vec<u8>,
    /// What the first segment that cannot be carried out says. The steps are those before it: segments are processed in order,
    /// and who is told that one was aborted may rely on all before it.
    pub refused: Option<Sense>,
    /// PRIORITY of the list.
    pub priority: u8,
    /// What the target does when it is asked about a segment.
    pub duties: BTreeMap<u32, Vec<Duty>>,
    /// Segments 15h, to be done after all others and also after an error.
    pub moves: Vec<(u32, Duty)>,
    /// RODs that segments populate.
    pub rods: Vec<Populating>,
    /// Tokens that are copied from.
    pub in_use: Vec<InUse>,
    /// Which of them are deleted at the end.
    pub deletes: Vec<usize>,
    /// Views that are read by a lease.
    pub leased: Vec<Leased>,
    /// IMMED.
    pub background: bool,
    /// Ends by the logical unit and what is done with it.
    known: BTreeMap<(usize, u8), EndIndex>,
}

impl Plan {
    /// One of which nothing can be carried out.
    #[must_use]
    pub fn refusing(sense: Sense) -> Self {
        Self { refused: Some(sense), ..Self::default() }
    }

    /// Tapes onto which blocks of an end are copied: addresses of those of this target, and those of others. `None` when they go onto
    /// no stream device at all.
    #[must_use]
    pub fn tapes_fed_by(&self, end: usize) -> Option<(Vec<usize>, Vec<Arc<RemoteUnit>>)> {
        let streams = self.steps.iter().filter_map(|step| match &step.action {
            Action::Move(Move {
                from: Source::Blocks { end: from, .. } | Source::Bytes { end: from, .. },
                to: Destination::Stream { end: to, .. },
                ..
            }) if usize::from(from.0) == end => self.ends.get(usize::from(to.0)),
            _ => None,
        });
        let mut streams = streams.peekable();
        streams.peek()?;
        let (mut tapes, mut remote) = (Vec::new(), Vec::new());
        for stream in streams {
            match stream {
                PlannedEnd::Tape(tape) => tapes.push(Device::Tape(Arc::clone(tape)).address()),
                PlannedEnd::Remote(tape) => remote.push(Arc::clone(tape)),
                _ => {}
            }
        }
        tapes.dedup();
        remote.dedup_by(|one, other| Arc::ptr_eq(one, other));
        Some((tapes, remote))
    }

    /// One more end. A logical unit takes part once as what it is, however often it is named.
    pub fn add(&mut self, end: PlannedEnd) -> EndIndex {
        let key = match &end {
            PlannedEnd::Source(disk) => (Arc::as_ptr(disk) as usize, 0),
            PlannedEnd::Destination(disk) => (Arc::as_ptr(disk) as usize, 1),
            PlannedEnd::Tape(tape) => (Arc::as_ptr(tape) as usize, 2),
            PlannedEnd::Null(End::NullStream) => (0, 3),
            PlannedEnd::Null(_) => (0, 4),
            PlannedEnd::Remote(unit) => (Arc::as_ptr(unit) as usize, 5),
            PlannedEnd::Rod(rod) => (Arc::as_ptr(rod) as usize, 6),
            PlannedEnd::Populated(index) => (*index, 7),
            PlannedEnd::Zeros(_) => (0, 8),
        };
        *self.known.entry(key).or_insert_with(|| {
            self.ends.push(end);
            EndIndex((self.ends.len() - 1) as u16)
        })
    }
}

/// A logical unit that a segment names.
#[derive(Debug, Clone)]
enum Unit {
    Disk(Arc<Disk>),
    Tape(Arc<Tape>),
    RemoteDisk(Arc<RemoteUnit>),
    RemoteTape(Arc<RemoteUnit>),
    NullBlock,
    NullStream,
    Rod(RodUnit),
}

impl Unit {
    /// As commands are sent to it here: not to a null logical unit, and not to a remote one, which admits whom it wants itself.
    fn device(&self) -> Option<Device> {
        match self {
            Self::Disk(disk) => Some(Device::Disk(Arc::clone(disk))),
            Self::Tape(tape) => Some(Device::Tape(Arc::clone(tape))),
            Self::RemoteDisk(_) | Self::RemoteTape(_) | Self::NullBlock | Self::NullStream | Self::Rod(_) => None,
        }
    }
}

/// What a CSCD id stands for.
#[derive(Debug, Clone)]
struct Cscd {
    unit: Unit,
    pad: bool,
    /// STREAM BLOCK LENGTH where FIXED is set.
    fixed: Option<u32>,
    /// The end that it is where it is read, or where it is a stream, once it is known: thousands of segments name the same few.
    end: Cell<Option<EndIndex>>,
}

impl Cscd {
    const fn of(unit: Unit) -> Self {
        Self { unit, pad: false, fixed: None, end: Cell::new(None) }
    }

    /// What it is as an end that is read, or as a stream.
    fn planned(&self) -> PlannedEnd {
        match &self.unit {
            Unit::Disk(disk) => PlannedEnd::Source(Arc::clone(disk)),
            Unit::Tape(tape) => PlannedEnd::Tape(Arc::clone(tape)),
            Unit::RemoteDisk(unit) | Unit::RemoteTape(unit) => PlannedEnd::Remote(Arc::clone(unit)),
            Unit::NullBlock => PlannedEnd::Null(null_block()),
            Unit::NullStream => PlannedEnd::Null(End::NullStream),
            Unit::Rod(rod) => rod.planned(),
        }
    }
}

/// Makes a plan of a list that `task` brought to `device`, up to the first segment that cannot be carried out. Blocks when the list
/// has CSCD descriptors with IP addresses.
pub fn plan(list: &List, device: &Device, task: &Task, remotes: &RemoteEnds, tokens: &Arc<Tokens>) -> Plan {
    let (inline, priority, background) = (list.inline.to_vec(), list.priority, list.immediate);
    let (steps, notes) = (Vec::with_capacity(list.segments.len()), Vec::with_capacity(list.segments.len()));
    let plan = Plan { inline, priority, background, steps, notes, ..Plan::default() };
    let mut planner = Planner {
        list,
        device,
        task,
        remotes,
        opened: BTreeMap::new(),
        resolved: BTreeMap::new(),
        plan,
        residue: false,
        admitted: BTreeSet::new(),
        registers: BTreeSet::new(),
        rods: BTreeMap::new(),
    };
    // "… shall not perform any of the data transfers requested by the command that specified the invalid ROD token."
    if let Err(sense) = planner.find_rods(tokens) {
        planner.plan.refused = Some(sense);
        return planner.plan;
    }
    let mut segment_at = list.segment_at(0);
    for (index, descriptor) in list.segments.iter().enumerate() {
        let ends = planner.plan.ends.len();
        if let Err(sense) = planner.segment(index as u32, segment_at, descriptor) {
            // Nobody is to be opened for a segment that is not carried out.
            planner.plan.ends.truncate(ends);
            planner.plan.refused = Some(sense);
            break;
        }
        segment_at += descriptor.length();
    }
    planner.plan
}

struct Planner<'a> {
    list: &'a List,
    device: &'a Device,
    task: &'a Task,
    remotes: &'a RemoteEnds,
    /// Remote logical units by the position of their descriptor: each is logged in to once.
    opened: BTreeMap<usize, Arc<RemoteUnit>>,
    /// What ids stand for, and where their descriptors begin: thousands of segments name the same few. Without RODs, which change from
    /// segment to segment.
    resolved: BTreeMap<CscdId, (usize, Rc<Cscd>)>,
    plan: Plan,
    /// Source data of an earlier segment may be left, so that fewer blocks are read than a segment counts.
    residue: bool,
    /// Those that the nexus may use, and as what.
    admitted: BTreeSet<(usize, CopyEnd)>,
    /// Logical units that an earlier 14h registers with: whether the nexus may use them only shows then.
    registers: BTreeSet<usize>,
    /// RODs by the index of their CSCD descriptor.
    rods: BTreeMap<usize, RodEnd>,
}

/// One segment under way through the checks.
struct Checked<'a> {
    number: u32,
    descriptor: &'a SegmentDescriptor,
    notes: Notes,
}

impl Checked<'_> {
    fn abort(&self, sense: Sense) -> Sense {
        abort(self.number, sense)
    }

    /// A field of the segment descriptor, pointed at from the start of the list or, where that is too far, of the segment.
    fn field(&self, sense: Sense, byte: u16) -> Sense {
        let sense = self.abort(sense);
        match u16::try_from(self.notes.segment_at + usize::from(byte)) {
            Ok(byte) => sense.at(FieldPointer::parameter(byte)),
            Err(_) => sense.at(FieldPointer::segment(byte)),
        }
    }

    fn invalid(&self, byte: u16) -> Sense {
        self.field(Sense::INVALID_FIELD_IN_PARAMETER_LIST, byte)
    }

    fn wrong_device(&self, byte: u16) -> Sense {
        self.field(Sense::INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION, byte)
    }

    fn not_reachable(&self, end: CopyEnd) -> Sense {
        at_cscd(self.abort(Sense::COPY_TARGET_DEVICE_NOT_REACHABLE), &self.notes, end)
    }

    fn refused(&self, end: CopyEnd, refusal: impl Into<Response>) -> Sense {
        third_party(self.number, &self.notes, end, &refusal.into())
    }
}

impl Planner<'_> {
    fn segment(&mut self, number: u32, segment_at: usize, descriptor: &SegmentDescriptor) -> Result<(), Sense> {
        let mut checked = Checked { number, descriptor, notes: Notes { segment_at, ..Notes::default() } };
        let source = descriptor.segment.source().map(|id| self.resolve(&mut checked, id, CopyEnd::Source)).transpose()?;
        let destination =
            descriptor.segment.destination().map(|id| self.resolve(&mut checked, id, CopyEnd::Destination)).transpose()?;
        let (source, destination) = (source.as_deref(), destination.as_deref());
        self.admit(&checked, source, destination)?;
        let action = match (source, destination) {
            (source, Some(destination)) => self.action(&mut checked, source, destination)?,
            (Some(source), None) => self.without_destination(&checked, source)?,
            (None, None) => Action::Nothing,
        };
        if let Action::Move(copy) = &action {
            // Table "PAD and CAT bit definitions": CAT, or PAD of the destination alone, keep source data.
            self.residue = descriptor.cat || (!copy.source_pad && copy.destination_pad);
        }
        if self.plan.duties.contains_key(&number) && !matches!(action, Action::Ask) {
            self.plan.steps.push(Step { segment: number, cat: descriptor.cat, action: Action::Ask });
        }
        self.plan.steps.push(Step { segment: number, cat: descriptor.cat, action });
        self.plan.notes.push(checked.notes);
        Ok(())
    }

    /// The logical unit of a CSCD id, and what the list says of it.
    fn resolve(&mut self, checked: &mut Checked<'_>, id: CscdId, end: CopyEnd) -> Result<Rc<Cscd>, Sense> {
        if let Some((at, known)) = self.resolved.get(&id) {
            checked.notes.name(end, *at);
            return Ok(Rc::clone(known));
        }
        let plain = |unit| Ok(Rc::new(Cscd::of(unit)));
        match id {
            CscdId::NULL_BLOCK => return plain(Unit::NullBlock),
            CscdId::NULL_STREAM => return plain(Unit::NullStream),
            CscdId::THIS_LUN => {
                return unit(self.device).ok_or_else(|| checked.abort(Sense::INCORRECT_COPY_TARGET_DEVICE_TYPE)).and_then(plain);
            }
            _ => {}
        }
        let field = if end == CopyEnd::Source { 4 } else { 6 };
        if self.list.is_extension(id) {
            return Err(checked.invalid(field));
        }
        let index = self.list.cscd_index(id).ok_or_else(|| checked.field(Sense::UNREACHABLE_COPY_TARGET, field))?;
        let at = self.list.cscd_at(index);
        checked.notes.name(end, at);
        let descriptor = &self.list.cscds[index];
        let wrong_device =
            |checked: &Checked<'_>| at_cscd(checked.abort(Sense::INCORRECT_COPY_TARGET_DEVICE_TYPE), &checked.notes, end);
        let unit = match descriptor.name {
            CscdName::Designator(_) => {
                let device = self.find(descriptor).ok_or_else(|| checked.not_reachable(end))?;
                unit(&device).ok_or_else(|| wrong_device(checked))?
            }
            CscdName::Iscsi(_) | CscdName::Served(_) => self.remote(checked, index, end)?,
            CscdName::Rod(_) => return self.rod(checked, index, end).map(Rc::new),
        };
        let (pad, fixed) = match (&unit, descriptor.parameters) {
            (Unit::Disk(disk), CscdParameters::Block { device_type: 0x00, pad, block_length }) => {
                if block_length != 0 && block_length != disk.block_length().0 {
                    return Err(at_list(checked.abort(Sense::INVALID_FIELD_IN_PARAMETER_LIST), at + 29));
                }
                (pad, None)
            }
            (Unit::RemoteDisk(disk), CscdParameters::Block { device_type: 0x00, pad, block_length }) => {
                if block_length != 0 && disk.block_length() != Some(block_length) {
                    return Err(at_list(checked.abort(Sense::INVALID_FIELD_IN_PARAMETER_LIST), at + 29));
                }
                (pad, None)
            }
            (Unit::Tape(_) | Unit::RemoteTape(_), CscdParameters::Tape { pad, fixed, block_length }) => {
                (pad, fixed.then_some(block_length))
            }
            _ => return Err(wrong_device(checked)),
        };
        let cscd = Rc::new(Cscd { pad, fixed, ..Cscd::of(unit) });
        self.resolved.insert(id, (at, Rc::clone(&cscd)));
        Ok(cscd)
    }

    /// The remote logical unit that a descriptor names.
    fn remote(&mut self, checked: &Checked<'_>, index: usize, end: CopyEnd) -> Result<Unit, Sense> {
        let unit = match self.opened.get(&index) {
            Some(unit) => Arc::clone(unit),
            None => {
                let opened =
                    self.remotes.open(&self.list.cscds[index].name, &self.task.nexus).map_err(|unusable| match unusable {
                        Unusable::NotReachable => checked.not_reachable(end),
                        Unusable::WrongDeviceType => {
                            at_cscd(checked.abort(Sense::INCORRECT_COPY_TARGET_DEVICE_TYPE), &checked.notes, end)
                        }
                        Unusable::Refused(Refused { status, sense }) => {
                            forwarded(checked.number, &checked.notes, ForwardedSense { end, status, sense })
                        }
                    })?;
                // Two descriptors of one logical unit are one end: what is read there sees what was written there.
                let known = self.opened.values().find(|known| known.is_same(&opened)).cloned();
                let opened = known.unwrap_or_else(|| Arc::new(opened));
                self.opened.insert(index, Arc::clone(&opened));
                opened
            }
        };
        Ok(match unit.kind {
            RemoteKind::Disk { .. } => Unit::RemoteDisk(unit),
            RemoteKind::Tape => Unit::RemoteTape(unit),
        })
    }

    /// The one logical unit of this nexus that has the designator. One that several have, as a port's, names none of them.
    fn find(&self, descriptor: &CscdDescriptor) -> Option<Device> {
        let CscdName::Designator(wanted) = &descriptor.name else { return None };
        let named = |device: &Device| device.common().identity.designators().iter().any(|designator| equal(designator, wanted));
        let mut found = self.task.nexus.luns.all().into_iter().map(|(_, device)| device).filter(named);
        let device = found.next()?;
        found.next().is_none().then_some(device)
    }

    /// The nexus's own commands would be refused there: so is its copy. After a 14h it is asked again, when that is done.
    fn admit(&mut self, checked: &Checked<'_>, source: Option<&Cscd>, destination: Option<&Cscd>) -> Result<(), Sense> {
        if matches!(checked.descriptor.segment, Segment::RegisterKey { .. } | Segment::RegisterAndMove { .. }) {
            return Ok(());
        }
        for (cscd, end) in [(source, CopyEnd::Source), (destination, CopyEnd::Destination)] {
            let Some(device) = cscd.and_then(|cscd| cscd.unit.device()) else { continue };
            let part = (device.address(), end);
            if self.registers.contains(&part.0) {
                let duty = Duty::Admit { device, end, notes: checked.notes };
                self.plan.duties.entry(checked.number).or_default().push(duty);
            } else if !self.admitted.contains(&part) {
                admitted(&self.task.nexus, &device, end).map_err(|refusal| checked.refused(end, refusal))?;
                self.admitted.insert(part);
            }
        }
        Ok(())
    }

    /// 06h and 07h.
    fn without_destination(&mut self, checked: &Checked<'_>, source: &Cscd) -> Result<Action, Sense> {
        match checked.descriptor.segment {
            // The token was validated; a ROD that is to be populated is ignored.
            Segment::VerifyCscd { .. } if matches!(source.unit, Unit::Rod(_)) => Ok(Action::Nothing),
            Segment::VerifyCscd { test_unit_ready, .. } => {
                if matches!(source.unit, Unit::RemoteDisk(_) | Unit::RemoteTape(_)) {
                    // It was asked when it was logged in to.
                    return Ok(Action::Nothing);
                }
                let unreachable = || checked.abort(Sense::COPY_TARGET_DEVICE_NOT_REACHABLE);
                let device = source.unit.device().ok_or_else(unreachable)?;
                if test_unit_ready {
                    // Now, and not in its turn: then a drive would not be ready because this very copy has it.
                    duty::test_unit_ready(&self.task.nexus, &device)
                        .map_err(|not_ready| checked.refused(CopyEnd::Source, not_ready))?;
                }
                Ok(Action::Nothing)
            }
            Segment::StreamToDiscard { transfer_length, bytes, .. } => {
                let from = self.stream_source(checked, source, transfer_length, 9, bytes > 0)?;
                Ok(Action::Move(Move {
                    from,
                    to: Destination::Discard,
                    process: Some(u64::from(bytes)),
                    output: None,
                    source_pad: source.pad,
                    destination_pad: false,
                    hold: checked.descriptor.hold,
                }))
            }
            _ => Ok(Action::Nothing),
        }
    }

    fn action(&mut self, checked: &mut Checked<'_>, from: Option<&Cscd>, destination: &Cscd) -> Result<Action, Sense> {
        let source_pad = from.is_some_and(|source| source.pad);
        let data = |from, to, process, output| {
            let (destination_pad, hold) = (destination.pad, checked.descriptor.hold);
            Action::Move(Move { from, to, process, output, source_pad, destination_pad, hold })
        };
        Ok(match checked.descriptor.segment {
            Segment::BlockToStream { transfer_length, blocks, from: lba, .. } => {
                let (source, bytes) = self.block_source(checked, from, lba, blocks)?;
                let to = self.stream_destination(checked, destination, transfer_length, bytes > 0)?;
                data(source, to, Some(bytes), None)
            }
            Segment::StreamToBlock { transfer_length, blocks, to: lba, .. } => {
                let (to, bytes) = self.block_destination(checked, destination, lba, blocks)?;
                let source = self.stream_source_of(checked, from, transfer_length, 9, bytes > 0)?;
                data(source, to, None, Some(bytes))
            }
            Segment::BlockToBlock { count_of, blocks, from: from_lba, to: to_lba, .. } => {
                let counts_source = count_of == CountOf::SourceBlocks;
                let (source, process) = self.block_source(checked, from, from_lba, if counts_source { blocks } else { 0 })?;
                let (to, output) =
                    self.block_destination(checked, destination, to_lba, if counts_source { 0 } else { blocks })?;
                if counts_source { data(source, to, Some(process), None) } else { data(source, to, None, Some(output)) }
            }
            Segment::StreamToStream { source_transfer_length, transfer_length, bytes, .. } => {
                let source = self.stream_source_of(checked, from, source_transfer_length, 9, bytes > 0)?;
                let to = self.stream_destination_at(checked, destination, transfer_length, 13, bytes > 0)?;
                if let (Source::Stream { end: a, .. }, Destination::Stream { end: b, .. }) = (source, to) {
                    // One drive cannot stand at two places.
                    if a == b {
                        return Err(checked.wrong_device(6));
                    }
                }
                data(source, to, Some(u64::from(bytes)), None)
            }
            Segment::InlineToStream { transfer_length, offset, bytes, .. } => {
                let end = u64::from(offset) + u64::from(bytes);
                if !offset.is_multiple_of(4) {
                    return Err(checked.invalid(12));
                }
                if end > self.list.inline.len() as u64 {
                    return Err(checked.field(Sense::INLINE_DATA_LENGTH_EXCEEDED, 16));
                }
                let to = self.stream_destination(checked, destination, transfer_length, bytes > 0)?;
                data(Source::Inline { offset, len: bytes }, to, None, None)
            }
            Segment::EmbeddedToStream { transfer_length, data: ref embedded, .. } => {
                let to = self.stream_destination(checked, destination, transfer_length, !embedded.is_empty())?;
                let offset = self.plan.inline.len() as u32;
                self.plan.inline.extend_from_slice(embedded);
                data(Source::Inline { offset, len: embedded.len() as u32 }, to, None, None)
            }
            Segment::BlockOffsetToStream { transfer_length, bytes, from: lba, offset, .. } => {
                let source = self.byte_source(checked, from, lba, offset, bytes)?;
                let to = self.stream_destination(checked, destination, transfer_length, bytes > 0)?;
                data(source, to, Some(u64::from(bytes)), None)
            }
            Segment::StreamToBlockOffset { transfer_length, bytes, to: lba, offset, .. } => {
                let to = self.byte_destination(checked, destination, lba, offset, bytes)?;
                let source = self.stream_source_of(checked, from, transfer_length, 9, bytes > 0)?;
                data(source, to, None, Some(u64::from(bytes)))
            }
            Segment::BlockOffsetToBlockOffset { bytes, from: from_lba, from_offset, to: to_lba, to_offset, .. } => {
                let source = self.byte_source(checked, from, from_lba, from_offset, bytes)?;
                let to = self.byte_destination(checked, destination, to_lba, to_offset, bytes)?;
                data(source, to, Some(u64::from(bytes)), Some(u64::from(bytes)))
            }
            Segment::WriteFilemarks { immediate, count, .. } => {
                Action::WriteFilemarks { end: self.tape(checked, destination)?, count, immediate }
            }
            Segment::Space { code, count, .. } => {
                let over = match code {
                    0x0 => SpaceOver::LogicalBlocks,
                    0x1 => SpaceOver::Filemarks,
                    0x3 => SpaceOver::EndOfData,
                    _ => return Err(checked.invalid(8)),
                };
                Action::Space { end: self.tape(checked, destination)?, over, count }
            }
            Segment::Locate { object, .. } => Action::Locate { end: self.tape(checked, destination)?, object: u64::from(object) },
            Segment::TapeImage { filemarks, .. } => self.tape_image(checked, from, destination, filemarks)?,
            Segment::BlockImage { blocks, from: from_lba, to: to_lba, .. } => {
                self.block_image(checked, (from, destination), (from_lba, to_lba), blocks)?
            }
            Segment::PopulateRod { .. } | Segment::PopulateRodRange { .. } => self.populate(checked, destination)?,
            Segment::RegisterKey { key, action_key, .. } => {
                if matches!(destination.unit, Unit::RemoteDisk(_) | Unit::RemoteTape(_)) {
                    return Err(checked.wrong_device(6));
                }
                let device = destination.unit.device().ok_or_else(|| checked.abort(Sense::COPY_TARGET_DEVICE_NOT_REACHABLE))?;
                self.registers.insert(device.address());
                let duty = Duty::register(device, key, action_key, checked.notes);
                self.plan.duties.entry(checked.number).or_default().push(duty);
                Action::Ask
            }
            Segment::RegisterAndMove { ref parameters, .. } => {
                let Unit::Tape(tape) = &destination.unit else { return Err(checked.wrong_device(6)) };
                let device = Device::Tape(Arc::clone(tape));
                self.plan.moves.push((checked.number, Duty::register_and_move(device, parameters, checked.notes)));
                Action::Nothing
            }
            Segment::StreamToDiscard { .. } | Segment::VerifyCscd { .. } => Action::Nothing,
        })
    }
}

/// On which side a step names an end.
#[must_use]
pub fn side_of(step: &Step, end: EndIndex) -> Option<CopyEnd> {
    match &step.action {
        Action::Move(copy) => {
            let source = match copy.from {
                Source::Blocks { end, .. } | Source::Bytes { end, .. } | Source::Stream { end, .. } => Some(end),
                Source::Inline { .. } => None,
            };
            let destination = match copy.to {
                Destination::Blocks { end, .. } | Destination::Bytes { end, .. } | Destination::Stream { end, .. } => Some(end),
                Destination::Discard => None,
            };
            match () {
                () if source == Some(end) => Some(CopyEnd::Source),
                () if destination == Some(end) => Some(CopyEnd::Destination),
                () => None,
            }
        }
        Action::WriteFilemarks { end: tape, .. } | Action::Space { end: tape, .. } | Action::Locate { end: tape, .. } => {
            (*tape == end).then_some(CopyEnd::Destination)
        }
        Action::TapeImage { from, to, .. } | Action::BlockImage { from, to, .. } => match () {
            () if *from == end => Some(CopyEnd::Source),
            () if *to == end => Some(CopyEnd::Destination),
            () => None,
        },
        Action::Ask | Action::Nothing => None,
    }
}

/// `None` for a device that is neither source nor destination of anything.
fn unit(device: &Device) -> Option<Unit> {
    match device {
        Device::Disk(disk) => Some(Unit::Disk(Arc::clone(disk))),
        Device::Tape(tape) => Some(Unit::Tape(Arc::clone(tape))),
        Device::Changer(_) => None,
    }
}

/// CODE SET, ASSOCIATION, DESIGNATOR TYPE, length and bytes.
fn equal(designator: &Designator, wanted: &xcopy::Designator) -> bool {
    designator.code_set as u8 == wanted.code_set
        && designator.association as u8 == wanted.association
        && designator.kind as u8 == wanted.designator_type
        && designator.bytes == wanted.identifier.as_bytes()
}
