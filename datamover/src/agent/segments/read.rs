//! Tape to disk: stretches of a set's data to places on a LUN, as commands.
//!
//! Every command begins with LOCATE (12h), since no residue comes from the one before, and with a discard (06h) of what its
//! first record holds in front. It ends with a discard of exactly what its last record holds behind: with CAT=0 and PAD=0
//! nothing may then be left over, so that a record of another length than recorded fails. Text: see [`super`].

use protocol::units::Lba;
use protocol::xcopy::{Segment, SegmentDescriptor};

use super::{Command, DISK, Limits, MAX_BLOCKS, MAX_BYTES, PlanError, TAPE, cut};

/// What lies between two wanted stretches is read and dropped up to this many bytes; beyond, winding is cheaper.
const MAX_SKIP: u64 = 1 << 20;
/// Discards, at most one in each of the two regions of a tape file.
const DISCARDS: usize = 2;

/// The data of a set, as it lies on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Logical object number of the first record.
    pub first_object: u64,
    /// Bytes of every record but the last.
    pub record: u32,
    /// All bytes; the last record has what the others leave.
    pub bytes: u64,
}

/// A stretch to bring back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Byte of the data.
    pub from: u64,
    /// Bytes.
    pub bytes: u64,
    /// Byte of the disk.
    pub to: u64,
}

/// The commands that bring pieces back, one at a time.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    block_length: u64,
    stored: Stored,
    /// Ascending by `from`.
    pieces: Vec<Piece>,
    piece: usize,
    /// Bytes of it that earlier segments brought.
    done: u64,
}

impl Plan {
    /// Plans for a disk with blocks of `block_length` bytes. Pieces may come in any order.
    ///
    /// # Errors
    /// [`PlanError::RecordSize`]; [`PlanError::Range`] for a piece outside the data, for an object that 12h cannot name, or for
    /// limits that leave no room for a single piece.
    pub fn new(limits: Limits, block_length: u32, stored: Stored, mut pieces: Vec<Piece>) -> Result<Self, PlanError> {
        if stored.record == 0 || stored.record > limits.record {
            return Err(PlanError::RecordSize { record: stored.record, limit: limits.record });
        }
        if limits.bytes < block_length.into() || !Command::default().has_room(2 + 2 * DISCARDS, &limits) {
            return Err(PlanError::Range("the copy manager takes too few segments for a restore"));
        }
        let last = stored.first_object.checked_add(stored.bytes / u64::from(stored.record));
        if last.is_none_or(|last| last > u32::MAX.into()) {
            return Err(PlanError::Range("LOCATE of EXTENDED COPY cannot name objects beyond 32 bits"));
        }
        let outside = |piece: &Piece| {
            piece.from.checked_add(piece.bytes).is_none_or(|end| end > stored.bytes)
                || piece.to.checked_add(piece.bytes).is_none()
        };
        if pieces.iter().any(outside) {
            return Err(PlanError::Range("a piece lies outside the data"));
        }
        pieces.retain(|piece| piece.bytes > 0);
        pieces.sort_by_key(|piece| piece.from);
        Ok(Self { limits, block_length: block_length.into(), stored, pieces, piece: 0, done: 0 })
    }

    fn current(&self) -> Option<Piece> {
        let piece = self.pieces.get(self.piece)?;
        Some(Piece { from: piece.from + self.done, bytes: piece.bytes - self.done, to: piece.to + self.done })
    }

    fn command(&mut self) -> Option<Command> {
        let first = self.current()?;
        let record = u64::from(self.stored.record);
        let mut command = Command::default();
        let object = self.stored.first_object + first.from / record;
        command.push(Segment::Locate { destination: TAPE, object: object as u32 }.into());
        let mut at = first.from / record * record;
        while let Some(piece) = self.current() {
            // In front of each segment perhaps a discard, and always one left for the command's end.
            let reachable = piece.from.checked_sub(at).is_some_and(|gap| gap <= MAX_SKIP.max(record));
            if !reachable || !command.has_room(1 + 2 * DISCARDS, &self.limits) {
                break;
            }
            let room = self.limits.bytes - command.moved;
            if room < self.block_length {
                break;
            }
            at = self.discard(&mut command, at, piece.from);
            let length = self.restore(&mut command, piece, room);
            at += length;
            self.done += length;
            if self.done == self.pieces[self.piece].bytes {
                (self.piece, self.done) = (self.piece + 1, 0);
            }
        }
        let border = at.next_multiple_of(record).min(self.stored.bytes);
        self.discard(&mut command, at, border);
        Some(command)
    }

    /// Adds the segment for the begin of a piece; how many bytes it brings.
    fn restore(&self, command: &mut Command, piece: Piece, room: u64) -> u64 {
        let (region, transfer_length) = self.region(piece.from);
        let record = self.stored.record.into();
        let wanted = cut(piece.from, piece.bytes.min(region - piece.from), room, record);
        let (to, offset) = (Lba(piece.to / self.block_length), piece.to % self.block_length);
        let (source, destination) = (TAPE, DISK);
        let (segment, length) = if offset == 0 && wanted >= self.block_length {
            let blocks = (cut(piece.from, wanted, MAX_BLOCKS * self.block_length, record) / self.block_length).max(1);
            (
                Segment::StreamToBlock { source, destination, transfer_length, blocks: blocks as u16, to },
                blocks * self.block_length,
            )
        } else {
            let length = cut(piece.from, wanted, MAX_BYTES, record);
            let (bytes, offset) = (length as u32, offset as u16);
            (Segment::StreamToBlockOffset { source, destination, transfer_length, bytes, to, offset }, length)
        };
        command.moved += length;
        command.push(SegmentDescriptor::new(self.is_inside(piece.from + length), segment));
        length
    }

    /// Adds segments that read and drop what is between two bytes; gives the second.
    fn discard(&self, command: &mut Command, mut at: u64, until: u64) -> u64 {
        while at < until {
            let (region, transfer_length) = self.region(at);
            let length = (until.min(region) - at).min(MAX_BYTES);
            at += length;
            let segment = Segment::StreamToDiscard { source: TAPE, transfer_length, bytes: length as u32 };
            command.push(SegmentDescriptor::new(self.is_inside(at), segment));
        }
        until
    }

    /// Where the records of one length end, and that length: the short last record is a region of its own.
    fn region(&self, at: u64) -> (u64, u32) {
        let record = u64::from(self.stored.record);
        let whole = self.stored.bytes / record * record;
        if at < whole { (whole, self.stored.record) } else { (self.stored.bytes, (self.stored.bytes - whole) as u32) }
    }

    /// True inside a record: then some of it is still to come.
    fn is_inside(&self, at: u64) -> bool {
        at != self.stored.bytes && !at.is_multiple_of(self.stored.record.into())
    }
}

impl Iterator for Plan {
    type Item = Command;

    fn next(&mut self) -> Option<Self::Item> {
        self.command()
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Device, Object};
    use super::*;
    use proptest::prelude::*;
    use protocol::wire::U24;

    const BLOCK: u32 = 16;

    fn limits() -> Limits {
        Limits { segments: 4096, descriptors: 1 << 20, inline: 0, bytes: Limits::BYTES, record: U24::MAX }
    }

    /// Tape data of `bytes` bytes behind `first_object` other objects.
    fn device(stored: Stored) -> (Device, Vec<u8>) {
        let data: Vec<u8> = (0..stored.bytes).map(|n| (n * 7 + n / 251) as u8).collect();
        let mut device = Device::new(BLOCK);
        device.tape = (0..stored.first_object).map(|_| Object::Filemark).collect();
        device.tape.extend(data.chunks(stored.record as usize).map(|record| Object::Record(record.to_vec())));
        (device, data)
    }

    proptest! {
        #[test]
        fn every_piece_comes_back_and_its_neighbours_stay(
            record in 1_u32..100, bytes in 0_u64..2000, first_object in 0_u64..5,
            wanted in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..300, 0_u64..20), 0..12),
            segments in 8_usize..30, limit in 16_u64..300,
        ) {
            let stored = Stored { first_object, record, bytes };
            let (mut device, data) = device(stored);
            let mut disk: Vec<u8> = device.disk.clone();
            let (mut pieces, mut to) = (Vec::new(), 3);
            for (from, length, gap) in wanted {
                let from = from.index(bytes as usize + 1) as u64;
                let length = length.min(bytes - from).min(device.disk.len() as u64 - to);
                pieces.push(Piece { from, bytes: length, to });
                disk[to as usize..(to + length) as usize].copy_from_slice(&data[from as usize..(from + length) as usize]);
                to = (to + length + gap).min(device.disk.len() as u64);
            }
            let total: u64 = pieces.iter().map(|piece| piece.bytes).sum();
            let limits = Limits { segments, bytes: limit, ..limits() };
            let mut moved = 0;
            for command in Plan::new(limits, BLOCK, stored, pieces).unwrap() {
                prop_assert!(command.segments.len() <= segments && command.moved <= limit && command.moved > 0);
                moved += command.moved;
                device.run(&command);
            }
            prop_assert_eq!(moved, total);
            prop_assert!(device.disk == disk, "the disk differs");
        }
    }

    #[test]
    fn a_piece_inside_records_is_located_cut_out_and_checked_to_the_end_of_its_record() {
        let stored = Stored { first_object: 8, record: 65_536, bytes: 1 << 20 };
        let piece = Piece { from: 65_536 + 4096, bytes: 5000, to: 0 };
        let commands: Vec<Command> = Plan::new(limits(), 512, stored, vec![piece]).unwrap().collect();
        let stream = |bytes| Segment::StreamToDiscard { source: TAPE, transfer_length: 65_536, bytes };
        let (source, destination, transfer_length) = (TAPE, DISK, 65_536);
        let expected = [
            (false, Segment::Locate { destination: TAPE, object: 9 }),
            (true, stream(4096)),
            (true, Segment::StreamToBlock { source, destination, transfer_length, blocks: 9, to: Lba(0) }),
            (true, Segment::StreamToBlockOffset { source, destination, transfer_length, bytes: 392, to: Lba(9), offset: 0 }),
            (false, stream(65_536 - 4096 - 5000)),
        ];
        assert_eq!(commands.len(), 1);
        assert_eq!(commands[0].segments, expected.map(|(cat, segment)| SegmentDescriptor::new(cat, segment)));
    }

    #[test]
    fn far_pieces_are_wound_to_instead_of_read_over() {
        let stored = Stored { first_object: 0, record: 512, bytes: 1 << 30 };
        let pieces = vec![Piece { from: 1 << 29, bytes: 512, to: 0 }, Piece { from: 0, bytes: 512, to: 512 }];
        let commands: Vec<Command> = Plan::new(limits(), 512, stored, pieces).unwrap().collect();
        let objects: Vec<_> = commands.iter().map(|command| command.segments[0].segment.clone()).collect();
        assert_eq!(objects, [0, 1 << 20].map(|object| Segment::Locate { destination: TAPE, object }));
    }

    #[test]
    fn pieces_outside_the_data_and_objects_beyond_32_bits_are_refused() {
        let stored = Stored { first_object: 0, record: 512, bytes: 1024 };
        let plan = |stored, from, bytes| Plan::new(limits(), 512, stored, vec![Piece { from, bytes, to: 0 }]);
        assert!(matches!(plan(stored, 1000, 25), Err(PlanError::Range(_))));
        assert!(matches!(plan(stored, u64::MAX, 2), Err(PlanError::Range(_))));
        assert!(matches!(plan(Stored { first_object: u64::from(u32::MAX), ..stored }, 0, 1), Err(PlanError::Range(_))));
        assert!(matches!(plan(Stored { record: 0, ..stored }, 0, 1), Err(PlanError::RecordSize { .. })));
    }
}
