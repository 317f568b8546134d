//! A copy manager in its simplest form, for the tests of the plans: a disk, a tape, and the rules for residue of SPC-4,
//! "Segment descriptor processing". It takes every liberty a plan may not rely on as an error.

use protocol::units::Lba;
use protocol::xcopy::{CscdId, Segment, SegmentDescriptor};

use super::{Command, DISK, TAPE};

/// What lies on a tape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Record(Vec<u8>),
    Filemark,
}

/// The bytes of a block, all blocks different.
pub fn block(lba: u64, length: u32) -> Vec<u8> {
    (0..u64::from(length)).map(|n| (lba * 31 + lba / 8 + n) as u8).collect()
}

pub struct Device {
    pub disk: Vec<u8>,
    pub tape: Vec<Object>,
    block_length: usize,
    /// Objects before the tape's position; at the end when writing.
    position: Option<usize>,
}

/// Residual source and destination data of a command, and the transfer length they go with.
#[derive(Default)]
struct Residue {
    source: Vec<u8>,
    destination: Vec<u8>,
    transfer_length: u32,
}

impl Device {
    pub fn new(block_length: u32) -> Self {
        let disk = (0..600).flat_map(|lba| block(lba, block_length)).collect();
        Self { disk, tape: Vec::new(), block_length: block_length as usize, position: None }
    }

    pub fn bytes_from_disk(&self, segment: &Segment) -> u64 {
        match segment {
            Segment::BlockToStream { blocks, .. } => u64::from(*blocks) * self.block_length as u64,
            Segment::BlockOffsetToStream { bytes, .. } => (*bytes).into(),
            _ => 0,
        }
    }

    pub fn run(&mut self, command: &Command) {
        let mut residue = Residue::default();
        // No command relies on where the one before left the tape, but for appending.
        self.position = None;
        for SegmentDescriptor { cat, segment, .. } in &command.segments {
            self.segment(segment, &command.inline, &mut residue);
            let left = (residue.source.len(), residue.destination.len());
            assert!(*cat || left == (0, 0), "unexpected inexact segment: {segment:?} leaves {left:?}");
        }
        assert!(residue.source.is_empty() && residue.destination.is_empty(), "residue dies at the end of a command");
        assert!(!command.segments.last().unwrap().cat, "a miscount at the end of the command would go unseen");
    }

    fn segment(&mut self, segment: &Segment, inline: &[u8], residue: &mut Residue) {
        match *segment {
            Segment::BlockToStream { source, destination, transfer_length, blocks, from } => {
                assert_eq!((source, destination), (DISK, TAPE));
                let bytes = self.disk_bytes(from, 0, usize::from(blocks) * self.block_length).to_vec();
                self.write_tape(&bytes, transfer_length, residue);
            }
            Segment::BlockOffsetToStream { source, destination, transfer_length, bytes, from, offset } => {
                assert_eq!((source, destination), (DISK, TAPE));
                let bytes = self.disk_bytes(from, offset, bytes as usize).to_vec();
                self.write_tape(&bytes, transfer_length, residue);
            }
            Segment::InlineToStream { destination, transfer_length, offset, bytes } => {
                assert_eq!((destination, offset % 4), (TAPE, 0));
                self.write_tape(&inline[offset as usize..][..bytes as usize], transfer_length, residue);
            }
            Segment::WriteFilemarks { destination, count, .. } => {
                assert_eq!(destination, TAPE);
                assert!(residue.destination.is_empty(), "a mark inside a record");
                self.tape.extend((0..count).map(|_| Object::Filemark));
            }
            Segment::Locate { destination, object } => {
                assert_eq!(destination, TAPE);
                self.position = Some(object as usize);
            }
            Segment::StreamToDiscard { source, transfer_length, bytes } => {
                drop(self.read_tape(source, bytes as usize, transfer_length, residue));
            }
            Segment::StreamToBlock { source, destination, transfer_length, blocks, to } => {
                assert_eq!(destination, DISK);
                let bytes = self.read_tape(source, usize::from(blocks) * self.block_length, transfer_length, residue);
                self.disk_bytes(to, 0, bytes.len()).copy_from_slice(&bytes);
            }
            Segment::StreamToBlockOffset { source, destination, transfer_length, bytes, to, offset } => {
                assert_eq!(destination, DISK);
                let bytes = self.read_tape(source, bytes as usize, transfer_length, residue);
                self.disk_bytes(to, offset, bytes.len()).copy_from_slice(&bytes);
            }
            ref other => panic!("no plan uses {other:?}"),
        }
    }

    fn disk_bytes(&mut self, lba: Lba, offset: u16, length: usize) -> &mut [u8] {
        assert!(usize::from(offset) < self.block_length, "the offset lies inside the first block");
        &mut self.disk[lba.0 as usize * self.block_length + usize::from(offset)..][..length]
    }

    fn write_tape(&mut self, bytes: &[u8], transfer_length: u32, residue: &mut Residue) {
        assert!(transfer_length > 0 && !bytes.is_empty());
        assert!(residue.destination.is_empty() || residue.transfer_length == transfer_length, "a record changes its length");
        residue.transfer_length = transfer_length;
        residue.destination.extend_from_slice(bytes);
        while residue.destination.len() >= transfer_length as usize {
            let rest = residue.destination.split_off(transfer_length as usize);
            self.tape.push(Object::Record(std::mem::replace(&mut residue.destination, rest)));
        }
    }

    fn read_tape(&mut self, source: CscdId, length: usize, transfer_length: u32, residue: &mut Residue) -> Vec<u8> {
        assert_eq!(source, TAPE);
        assert!(residue.source.is_empty() || residue.transfer_length == transfer_length, "a record changes its length");
        residue.transfer_length = transfer_length;
        while residue.source.len() < length {
            let position = self.position.as_mut().expect("a command that reads says from where");
            let Object::Record(record) = &self.tape[*position] else { panic!("a filemark came") };
            assert_eq!(record.len(), transfer_length as usize, "a record of another length");
            residue.source.extend_from_slice(record);
            *position += 1;
        }
        let rest = residue.source.split_off(length);
        std::mem::replace(&mut residue.source, rest)
    }
}
