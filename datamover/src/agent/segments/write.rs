//! Disk to tape: tape files made of inline bytes and extents, as commands.
//!
//! [`Plan`] is an iterator: a volume of many extents is never held as lists. Text: see [`super`].

use bytes::Bytes;
use protocol::units::Lba;
use protocol::wire::U24;
use protocol::xcopy::{Segment, SegmentDescriptor};

use super::{Command, DISK, Limits, MAX_BLOCKS, MAX_BYTES, PlanError, TAPE, cut};

/// What is to be on the tape, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The parts, one behind the other, cut into records of `record` bytes; the last may be short.
    Records {
        /// Bytes.
        record: u32,
        /// What the records hold.
        parts: Vec<Part>,
    },
    /// Filemarks. Not `immediate`: all before them is on the medium when the command ends.
    Filemarks {
        /// How many.
        count: u32,
        /// W_IMMED.
        immediate: bool,
    },
}

impl Item {
    /// One record.
    #[must_use]
    pub fn record(bytes: Vec<u8>) -> Self {
        Self::Records { record: u32::try_from(bytes.len()).unwrap_or(u32::MAX), parts: vec![Part::Inline(bytes.into())] }
    }
}

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// From the list itself.
    Inline(Bytes),
    /// From the disk.
    Blocks {
        /// First block.
        lba: Lba,
        /// How many.
        blocks: u64,
    },
}

/// The commands that put items on a tape, one at a time.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    block_length: u64,
    /// With the bytes of each.
    items: Vec<(Item, u64)>,
    at: Cursor,
    failed: bool,
}

/// How far the plan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    item: usize,
    part: usize,
    /// Byte of the part.
    offset: u64,
    /// Byte of the item's concatenated parts.
    position: u64,
}

impl Cursor {
    fn next_item(self) -> Self {
        Self { item: self.item + 1, ..Self::default() }
    }
}

/// The last place where a command may end: where no record is unfinished. It may lie inside a segment.
#[derive(Debug)]
struct Border {
    at: Cursor,
    /// Whole segments before it.
    segments: usize,
    /// The segment it lies in, ended there.
    last: Option<Segment>,
    inline: usize,
    moved: u64,
    objects: u64,
}

impl Border {
    fn at_end_of(command: &Command, at: Cursor) -> Self {
        let (segments, inline) = (command.segments.len(), command.inline.len());
        Self { at, segments, last: None, inline, moved: command.moved, objects: command.objects }
    }

    /// Makes the command end here.
    fn end(self, command: &mut Command) {
        command.segments.truncate(self.segments);
        command.segments.extend(self.last.map(SegmentDescriptor::from));
        command.inline.truncate(self.inline);
        (command.moved, command.objects) = (self.moved, self.objects);
    }
}

/// What the next segment of a command came to.
enum Step {
    Pushed,
    /// The command has no room for it.
    Full,
    /// Nothing is left to do.
    End,
}

impl Plan {
    /// Plans for a disk with blocks of `block_length` bytes.
    ///
    /// # Errors
    /// [`PlanError::RecordSize`], [`PlanError::Range`] for an extent or count beyond its field.
    pub fn new(limits: Limits, block_length: u32, items: Vec<Item>) -> Result<Self, PlanError> {
        let items = items.into_iter().map(|item| Ok((item.bytes(block_length, &limits)?, item)));
        let items = items.map(|item| item.map(|(bytes, item)| (item, bytes))).collect::<Result<_, _>>()?;
        Ok(Self { limits, block_length: block_length.into(), items, at: Cursor::default(), failed: false })
    }

    /// Adds segments until a limit is met, and goes back to the last border where it was not met at one.
    fn command(&mut self) -> Result<Option<Command>, PlanError> {
        let mut command = Command::default();
        let start = self.at;
        let mut border = Border::at_end_of(&command, self.at);
        let full = loop {
            match self.step(&mut command, &mut border) {
                Step::Pushed => {}
                Step::Full => break true,
                Step::End => break false,
            }
        };
        if full && border.at == start {
            // The plan may have gone on to the next item, which is then at its begin.
            let at = if self.at.item == start.item { start.position } else { 0 };
            return Err(PlanError::RecordTooFragmented { at });
        }
        self.at = border.at;
        border.end(&mut command);
        Ok(Some(command).filter(|command| !command.segments.is_empty()))
    }

    fn step(&mut self, command: &mut Command, border: &mut Border) -> Step {
        loop {
            match self.items.get(self.at.item) {
                None => return Step::End,
                Some((Item::Filemarks { count, immediate }, _)) => {
                    if !command.has_room(1, &self.limits) {
                        return Step::Full;
                    }
                    command.push(Segment::WriteFilemarks { destination: TAPE, immediate: *immediate, count: *count }.into());
                    command.objects += u64::from(*count);
                    self.at = self.at.next_item();
                    *border = Border::at_end_of(command, self.at);
                    return Step::Pushed;
                }
                Some((Item::Records { record, parts }, total)) => match parts.get(self.at.part) {
                    None => self.at = self.at.next_item(),
                    Some(part) if part.bytes(self.block_length) == Some(self.at.offset) => {
                        self.at = Cursor { part: self.at.part + 1, offset: 0, ..self.at };
                    }
                    Some(part) => {
                        let stretch = Stretch { part, record: (*record).into(), total: *total, at: self.at };
                        let next = command.has_room(1, &self.limits).then(|| stretch.push(self, command, border)).flatten();
                        let Some(next) = next else { return Step::Full };
                        self.at = next;
                        return Step::Pushed;
                    }
                },
            }
        }
    }
}

/// What is left of a part.
#[derive(Debug, Clone, Copy)]
struct Stretch<'a> {
    part: &'a Part,
    /// Record size and bytes of the whole item.
    record: u64,
    total: u64,
    at: Cursor,
}

impl Stretch<'_> {
    /// Adds one segment, and moves the border into it if one lies there. Gives how far the plan then is, `None` when the command
    /// has no room.
    fn push(self, plan: &Plan, command: &mut Command, border: &mut Border) -> Option<Cursor> {
        let at = self.at.position;
        // Whole records first; the short last one has a transfer length of its own.
        let whole = self.total / self.record * self.record;
        let (region, transfer_length) = if at < whole { (whole, self.record) } else { (self.total, self.total - whole) };
        let transfer_length = transfer_length as u32;
        let wanted = (self.part.bytes(plan.block_length)? - self.at.offset).min(region - at);
        // The offset of 04h is a multiple of 4.
        let inline_offset = command.inline.len().next_multiple_of(4);
        let length = match self.part {
            Part::Inline(_) => {
                self.up_to_border(wanted, plan.limits.inline.saturating_sub(inline_offset as u64).min(MAX_BYTES))?
            }
            Part::Blocks { .. } => {
                let wanted = self.up_to_border(wanted, plan.limits.bytes.saturating_sub(command.moved))?;
                let whole_blocks = self.at.offset.is_multiple_of(plan.block_length) && wanted.is_multiple_of(plan.block_length);
                if whole_blocks {
                    // Where a record's border lies inside a block, 00h ends at the block and the record goes on.
                    let length = cut(at, wanted, MAX_BLOCKS * plan.block_length, self.record);
                    (length / plan.block_length).max(1) * plan.block_length
                } else {
                    cut(at, wanted, MAX_BYTES, self.record)
                }
            }
        };
        let next = |length| Cursor { offset: self.at.offset + length, position: at + length, ..self.at };
        let segment = |length| self.segment(plan.block_length, transfer_length, inline_offset, length);
        let moved = |length| if matches!(self.part, Part::Blocks { .. }) { command.moved + length } else { command.moved };
        let objects = |end| command.objects + self.records(end) - self.records(at);
        let end = at + length;
        let last_border = if end == self.total { end } else { end / self.record * self.record };
        if last_border > at {
            let length = last_border - at;
            let inline = match self.part {
                Part::Inline(_) => inline_offset + length as usize,
                Part::Blocks { .. } => command.inline.len(),
            };
            let (segments, last) = (command.segments.len(), Some(segment(length)));
            *border = Border { at: next(length), segments, last, inline, moved: moved(length), objects: objects(last_border) };
        }
        let (segment, moved, objects) = (segment(length), moved(length), objects(end));
        if let Part::Inline(bytes) = self.part {
            command.inline.resize(inline_offset, 0);
            command.inline.extend_from_slice(&bytes[self.at.offset as usize..][..length as usize]);
        }
        (command.moved, command.objects) = (moved, objects);
        // What an unfinished record has so far is carried to the next segment; else nothing may be left over.
        command.push(SegmentDescriptor::new(last_border != end, segment));
        Some(next(length))
    }

    /// The segment for the next `length` bytes.
    fn segment(self, block_length: u64, transfer_length: u32, inline_offset: usize, length: u64) -> Segment {
        match self.part {
            Part::Inline(_) => {
                let (offset, bytes) = (inline_offset as u32, length as u32);
                Segment::InlineToStream { destination: TAPE, transfer_length, offset, bytes }
            }
            Part::Blocks { lba, .. } => {
                let (source, destination) = (DISK, TAPE);
                let (from, offset) = (Lba(lba.0 + self.at.offset / block_length), (self.at.offset % block_length) as u16);
                if offset == 0 && length.is_multiple_of(block_length) {
                    let blocks = (length / block_length) as u16;
                    Segment::BlockToStream { source, destination, transfer_length, blocks, from }
                } else {
                    Segment::BlockOffsetToStream { source, destination, transfer_length, bytes: length as u32, from, offset }
                }
            }
        }
    }

    /// As [`cut`], but what does not fit is cut at a record border only, for the command ends there.
    fn up_to_border(self, wanted: u64, room: u64) -> Option<u64> {
        let length = cut(self.at.position, wanted, room, self.record);
        (length == wanted || (length > 0 && (self.at.position + length).is_multiple_of(self.record))).then_some(length)
    }

    /// Records that are complete when `position` of all bytes are there.
    fn records(self, position: u64) -> u64 {
        if position == self.total { self.total.div_ceil(self.record) } else { position / self.record }
    }
}

impl Item {
    /// Bytes of its records, where all its numbers fit their fields.
    fn bytes(&self, block_length: u32, limits: &Limits) -> Result<u64, PlanError> {
        match self {
            Self::Records { record, .. } if *record == 0 || *record > limits.record => {
                Err(PlanError::RecordSize { record: *record, limit: limits.record })
            }
            Self::Records { parts, .. } => parts
                .iter()
                .try_fold(0_u64, |sum, part| sum.checked_add(part.bytes(block_length.into())?))
                .ok_or(PlanError::Range("an extent goes beyond 64 bits")),
            Self::Filemarks { count, .. } if *count > U24::MAX => Err(PlanError::Range("more filemarks than 24 bits hold")),
            Self::Filemarks { .. } => Ok(0),
        }
    }
}

impl Part {
    /// `None` beyond 64 bits.
    fn bytes(&self, block_length: u64) -> Option<u64> {
        match self {
            Self::Inline(bytes) => Some(bytes.len() as u64),
            Self::Blocks { lba, blocks } => lba.0.checked_add(*blocks).and(blocks.checked_mul(block_length)),
        }
    }
}

impl Iterator for Plan {
    type Item = Result<Command, PlanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let command = self.command();
        self.failed = command.is_err();
        command.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Device, Object, block};
    use super::*;
    use proptest::prelude::*;

    const BLOCK: u32 = 16;

    fn limits() -> Limits {
        Limits { segments: 4096, descriptors: 1 << 20, inline: 1 << 20, bytes: Limits::BYTES, record: U24::MAX }
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let inline = prop::collection::vec(any::<u8>(), 0..90).prop_map(|bytes| Part::Inline(bytes.into()));
        let blocks = (0_u64..500, 0_u64..12).prop_map(|(lba, blocks)| Part::Blocks { lba: Lba(lba), blocks });
        prop::collection::vec(prop_oneof![inline, blocks], 0..12)
    }

    fn items() -> impl Strategy<Value = Vec<Item>> {
        let records = (1_u32..100, parts()).prop_map(|(record, parts)| Item::Records { record, parts });
        let marks = (0_u32..3, any::<bool>()).prop_map(|(count, immediate)| Item::Filemarks { count, immediate });
        prop::collection::vec(prop_oneof![3 => records, 1 => marks], 0..6)
    }

    /// What shall be on the tape, said without segments.
    fn expected(items: &[Item]) -> Vec<Object> {
        let mut tape = Vec::new();
        for item in items {
            match item {
                Item::Filemarks { count, .. } => tape.extend((0..*count).map(|_| Object::Filemark)),
                Item::Records { record, parts } => {
                    let mut bytes = Vec::new();
                    for part in parts {
                        match part {
                            Part::Inline(inline) => bytes.extend_from_slice(inline),
                            Part::Blocks { lba, blocks } => {
                                (lba.0..lba.0 + blocks).for_each(|lba| bytes.extend(block(lba, BLOCK)))
                            }
                        }
                    }
                    tape.extend(bytes.chunks(*record as usize).map(|record| Object::Record(record.to_vec())));
                }
            }
        }
        tape
    }

    proptest! {
        #[test]
        fn what_lands_on_the_tape_is_what_was_planned(
            items in items(), segments in 8_usize..40, inline in 100_u64..400, bytes in 100_u64..600,
        ) {
            let limits = Limits { segments, inline, bytes, ..limits() };
            let mut device = Device::new(BLOCK);
            for command in Plan::new(limits, BLOCK, items.clone()).unwrap() {
                let command = match command {
                    Ok(command) => command,
                    // Legal with limits this tight; the test below shows that it does not happen without a reason.
                    Err(PlanError::RecordTooFragmented { .. }) => return Ok(()),
                    Err(error) => panic!("{error}"),
                };
                prop_assert!(command.segments.len() <= segments);
                prop_assert!(command.inline.len() as u64 <= inline);
                prop_assert!(command.moved <= bytes);
                prop_assert_eq!(command.moved, command.segments.iter().map(|one| device.bytes_from_disk(&one.segment)).sum::<u64>());
                let before = device.tape.len() as u64;
                device.run(&command);
                prop_assert_eq!(device.tape.len() as u64 - before, command.objects);
            }
            prop_assert_eq!(device.tape, expected(&items));
        }

        #[test]
        fn with_room_for_its_largest_record_a_plan_always_comes_to_its_end(items in items()) {
            // 12 parts to a record at most, each perhaps split in two; a record is below 100 bytes.
            let limits = Limits { segments: 26, inline: 12 * (90 + 4), bytes: 100 + u64::from(BLOCK), ..limits() };
            let mut device = Device::new(BLOCK);
            for command in Plan::new(limits, BLOCK, items.clone()).unwrap() {
                device.run(&command.unwrap());
            }
            prop_assert_eq!(device.tape, expected(&items));
        }
    }

    fn data(blocks: u64) -> Vec<Item> {
        vec![Item::Records { record: 65_536, parts: vec![Part::Blocks { lba: Lba(8), blocks }] }]
    }

    #[test]
    fn a_long_extent_is_cut_at_record_borders_below_the_16_bits_of_its_count() {
        let commands: Vec<_> = Plan::new(limits(), 512, data(200_001)).unwrap().map(Result::unwrap).collect();
        assert_eq!(commands.len(), 1);
        let counts: Vec<(u16, u32, bool)> = commands[0]
            .segments
            .iter()
            .map(|one| match one.segment {
                Segment::BlockToStream { blocks, transfer_length, .. } => (blocks, transfer_length, one.cat),
                ref other => panic!("{other:?}"),
            })
            .collect();
        // 65,408 = 511 records of 128 blocks; 200,001 blocks are 1,562 records and 65 blocks.
        assert_eq!(
            counts,
            [
                (65_408, 65_536, false),
                (65_408, 65_536, false),
                (65_408, 65_536, false),
                (3_712, 65_536, false),
                (65, 65 * 512, false)
            ]
        );
        assert_eq!((commands[0].moved, commands[0].objects), (200_001 * 512, 1_563));
    }

    #[test]
    fn a_command_moves_at_most_its_limit_and_ends_at_a_record() {
        let limits = Limits { bytes: 1_000_000, ..limits() };
        let commands: Vec<_> = Plan::new(limits, 512, data(8_192)).unwrap().map(Result::unwrap).collect();
        let moved: Vec<u64> = commands.iter().map(|command| command.moved).collect();
        assert_eq!(moved, [983_040, 983_040, 983_040, 983_040, 262_144]);
    }

    #[test]
    fn a_record_that_no_command_can_hold_is_an_error_and_the_plan_ends() {
        let limits = Limits { inline: 100, ..limits() };
        let mut plan = Plan::new(limits, 512, vec![Item::record(vec![1; 64]), Item::record(vec![1; 101])]).unwrap();
        assert_eq!(plan.next().unwrap().unwrap().objects, 1);
        assert_eq!(plan.next(), Some(Err(PlanError::RecordTooFragmented { at: 0 })));
        assert_eq!(plan.next(), None);
    }

    #[test]
    fn record_sizes_and_extents_beyond_their_fields_are_refused() {
        let records = |record, blocks| vec![Item::Records { record, parts: vec![Part::Blocks { lba: Lba(2), blocks }] }];
        assert!(matches!(Plan::new(limits(), 512, records(0, 1)), Err(PlanError::RecordSize { .. })));
        assert!(matches!(Plan::new(limits(), 512, records(1 << 24, 1)), Err(PlanError::RecordSize { .. })));
        assert!(matches!(Plan::new(limits(), 512, records(512, u64::MAX)), Err(PlanError::Range(_))));
    }
}
