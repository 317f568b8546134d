//! Segment descriptors: what is to be done, one after the other.
//!
//! Knows the layout and the device types of each, not how it is carried out. Follows SPC-4, "Segment descriptors".

use zerocopy::{FromBytes, IntoBytes};

use super::cscd::CscdId;
use super::layout::{self, Header};
use super::rod::RangeDescriptor;
use crate::scsi::DeviceType;
use crate::units::Lba;
use crate::wire::{U16, U24, U32, U64};

/// DESCRIPTOR LENGTH of a segment descriptor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptorLength {
    /// Bytes behind the DESCRIPTOR LENGTH field.
    Fixed(u16),
    /// At least so many.
    AtLeast(u16),
}

/// Copy managers of which logical units take a segment descriptor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBy {
    /// None here: known to the standard, refused by us.
    Nobody,
    /// Those of disks and of tapes.
    Everybody,
    /// Those of tapes.
    Tapes,
    /// Those of disks.
    Disks,
}

impl TakenBy {
    /// True when copy managers of logical units of this type are among them.
    #[must_use]
    pub fn includes(self, manager: DeviceType) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => matches!(manager, DeviceType::Disk | DeviceType::Tape),
            Self::Tapes => manager == DeviceType::Tape,
            Self::Disks => manager == DeviceType::Disk,
        }
    }
}

/// One row per segment descriptor type.
#[derive(Debug)]
pub struct SegmentType {
    /// DESCRIPTOR TYPE CODE.
    pub code: u8,
    /// The standard's shorthand.
    pub name: &'static str,
    /// DESCRIPTOR LENGTH.
    pub length: DescriptorLength,
    /// Where it is supported.
    pub taken_by: TakenBy,
}

impl SegmentType {
    /// The row of a code.
    #[must_use]
    pub fn of(code: u8) -> Option<&'static Self> {
        SEGMENT_TYPES.iter().find(|row| row.code == code)
    }

    /// True when the copy manager of a logical unit of this type takes it.
    #[must_use]
    pub fn supported_on(&self, device: DeviceType) -> bool {
        self.taken_by.includes(device)
    }
}

const fn row(code: u8, name: &'static str, length: DescriptorLength, taken_by: TakenBy) -> SegmentType {
    SegmentType { code, name, length, taken_by }
}

use DescriptorLength::{AtLeast, Fixed};
use TakenBy::{Disks, Everybody, Tapes};

/// SPC-4, table "EXTENDED COPY segment descriptor type codes".
pub const SEGMENT_TYPES: &[SegmentType] = &[
    row(0x00, "block→stream", Fixed(0x14), Everybody),
    row(0x01, "stream→block", Fixed(0x14), Everybody),
    row(0x02, "block→block", Fixed(0x18), Everybody),
    row(0x03, "stream→stream", Fixed(0x10), Tapes),
    row(0x04, "inline→stream", Fixed(0x10), Everybody),
    row(0x05, "embedded→stream", AtLeast(0x0C), Everybody),
    row(0x06, "stream→discard", Fixed(0x0C), Everybody),
    row(0x07, "verify CSCD", Fixed(0x08), Everybody),
    row(0x08, "block<o>→stream", Fixed(0x18), Everybody),
    row(0x09, "stream→block<o>", Fixed(0x18), Everybody),
    row(0x0A, "block<o>→block<o>", Fixed(0x1C), Everybody),
    row(0x0B, "block→stream + application client", Fixed(0x14), Everybody),
    row(0x0C, "stream→block + application client", Fixed(0x14), Everybody),
    row(0x0D, "block→block + application client", Fixed(0x18), Everybody),
    row(0x0E, "stream→stream + application client", Fixed(0x10), Tapes),
    row(0x0F, "stream→discard + application client", Fixed(0x0C), Everybody),
    row(0x10, "filemark→tape", Fixed(0x08), Everybody),
    row(0x11, "space→tape", Fixed(0x08), Everybody),
    row(0x12, "locate→tape", Fixed(0x08), Everybody),
    row(0x13, "<i>tape→<i>tape", Fixed(0x08), Tapes),
    row(0x14, "register persistent reservation key", Fixed(0x18), Everybody),
    row(0x15, "third party persistent reservations source I_T nexus", AtLeast(0x1C), Everybody),
    // The table says 0018h, and shows eight bytes for the number of blocks, which is 001Ch: both are taken.
    row(0x16, "<i>block→<i>block", AtLeast(0x18), Everybody),
    row(0xBE, "ROD←block ranges(n)", AtLeast(0x0C), Disks),
    // As with 16h: the table says 0010h, and shows eight bytes for the number of blocks.
    row(0xBF, "ROD←block range(1)", AtLeast(0x10), Disks),
];

/// A segment descriptor: what to do, and what becomes of the residue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentDescriptor {
    /// CAT: residual source and destination data are kept for the next segment.
    pub cat: bool,
    /// What is processed is also held for the application client: types 0Bh to 0Fh instead of 00h to 03h and 06h.
    pub hold: bool,
    /// What to do.
    pub segment: Segment,
}

impl SegmentDescriptor {
    /// Without held data.
    #[must_use]
    pub const fn new(cat: bool, segment: Segment) -> Self {
        Self { cat, hold: false, segment }
    }
}

impl From<Segment> for SegmentDescriptor {
    fn from(segment: Segment) -> Self {
        Self::new(false, segment)
    }
}

/// Which side BLOCK DEVICE NUMBER OF BLOCKS of a 02h counts: the DC bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CountOf {
    /// DC = 0.
    #[default]
    SourceBlocks,
    /// DC = 1.
    DestinationBlocks,
}

/// What a segment does. `transfer_length` is STREAM DEVICE TRANSFER LENGTH, 24 bits; counts of bytes have 32 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields bear the standard's names, shortened")]
pub enum Segment {
    /// 00h.
    BlockToStream { source: CscdId, destination: CscdId, transfer_length: u32, blocks: u16, from: Lba },
    /// 01h: `blocks` counts destination blocks.
    StreamToBlock { source: CscdId, destination: CscdId, transfer_length: u32, blocks: u16, to: Lba },
    /// 02h.
    BlockToBlock { source: CscdId, destination: CscdId, count_of: CountOf, blocks: u16, from: Lba, to: Lba },
    /// 03h.
    StreamToStream { source: CscdId, destination: CscdId, source_transfer_length: u32, transfer_length: u32, bytes: u32 },
    /// 04h: `offset` into the inline data is a multiple of 4.
    InlineToStream { destination: CscdId, transfer_length: u32, offset: u32, bytes: u32 },
    /// 05h: at most 65,520 bytes.
    EmbeddedToStream { destination: CscdId, transfer_length: u32, data: Vec<u8> },
    /// 06h.
    StreamToDiscard { source: CscdId, transfer_length: u32, bytes: u32 },
    /// 07h.
    VerifyCscd { source: CscdId, test_unit_ready: bool },
    /// 08h: any byte range.
    BlockOffsetToStream { source: CscdId, destination: CscdId, transfer_length: u32, bytes: u32, from: Lba, offset: u16 },
    /// 09h: keeps what lies around the byte range in its first and last block.
    StreamToBlockOffset { source: CscdId, destination: CscdId, transfer_length: u32, bytes: u32, to: Lba, offset: u16 },
    /// 0Ah.
    BlockOffsetToBlockOffset {
        source: CscdId,
        destination: CscdId,
        bytes: u32,
        from: Lba,
        from_offset: u16,
        to: Lba,
        to_offset: u16,
    },
    /// 10h.
    WriteFilemarks { destination: CscdId, immediate: bool, count: u32 },
    /// 11h: CODE and the signed COUNT of SPACE(6).
    Space { destination: CscdId, code: u8, count: i32 },
    /// 12h.
    Locate { destination: CscdId, object: u32 },
    /// 13h: ends behind so many consecutive filemarks; 0 only at the end of the data.
    TapeImage { source: CscdId, destination: CscdId, filemarks: u32 },
    /// 14h.
    RegisterKey { destination: CscdId, key: u64, action_key: u64 },
    /// 15h: the parameter list of PERSISTENT RESERVE OUT, REGISTER AND MOVE.
    RegisterAndMove { destination: CscdId, parameters: Vec<u8> },
    /// BEh: `ranges` of this logical unit are added to a ROD.
    PopulateRod { source: CscdId, destination: CscdId, ranges: Vec<RangeDescriptor> },
    /// BFh.
    PopulateRodRange { source: CscdId, destination: CscdId, from: Lba, blocks: u64 },
    /// 16h: 0 blocks are as many as there are.
    BlockImage { source: CscdId, destination: CscdId, blocks: u64, from: Lba, to: Lba },
}

/// What is wrong with a segment descriptor whose type is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentFault {
    /// Offset in the descriptor.
    pub byte: usize,
}

/// The low 24 bits, as STREAM DEVICE TRANSFER LENGTH and COUNT have them.
fn u24(value: u32) -> U24 {
    U24::new(value & U24::MAX).expect("masked to 24 bits")
}

/// Reads a fixed layout; the caller has checked the length against the row, which a test holds to the layout.
fn fixed<T: FromBytes>(bytes: &[u8]) -> Result<T, SegmentFault> {
    T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| SegmentFault { byte: 2 })
}

impl Segment {
    /// DESCRIPTOR TYPE CODE of the type that holds nothing.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::BlockToStream { .. } => 0x00,
            Self::StreamToBlock { .. } => 0x01,
            Self::BlockToBlock { .. } => 0x02,
            Self::StreamToStream { .. } => 0x03,
            Self::InlineToStream { .. } => 0x04,
            Self::EmbeddedToStream { .. } => 0x05,
            Self::StreamToDiscard { .. } => 0x06,
            Self::VerifyCscd { .. } => 0x07,
            Self::BlockOffsetToStream { .. } => 0x08,
            Self::StreamToBlockOffset { .. } => 0x09,
            Self::BlockOffsetToBlockOffset { .. } => 0x0A,
            Self::WriteFilemarks { .. } => 0x10,
            Self::Space { .. } => 0x11,
            Self::Locate { .. } => 0x12,
            Self::TapeImage { .. } => 0x13,
            Self::RegisterKey { .. } => 0x14,
            Self::RegisterAndMove { .. } => 0x15,
            Self::BlockImage { .. } => 0x16,
            Self::PopulateRod { .. } => 0xBE,
            Self::PopulateRodRange { .. } => 0xBF,
        }
    }

    /// DESCRIPTOR TYPE CODE of the type that does the same and also holds the processed data.
    #[must_use]
    pub const fn holding_code(&self) -> Option<u8> {
        match self {
            Self::BlockToStream { .. } | Self::StreamToBlock { .. } | Self::BlockToBlock { .. } | Self::StreamToStream { .. } => {
                Some(self.code() + HOLDING)
            }
            Self::StreamToDiscard { .. } => Some(0x0F),
            _ => None,
        }
    }

    /// The CSCD that data comes from; for 07h the one verified.
    #[must_use]
    pub const fn source(&self) -> Option<CscdId> {
        match *self {
            Self::BlockToStream { source, .. }
            | Self::StreamToBlock { source, .. }
            | Self::BlockToBlock { source, .. }
            | Self::StreamToStream { source, .. }
            | Self::StreamToDiscard { source, .. }
            | Self::VerifyCscd { source, .. }
            | Self::BlockOffsetToStream { source, .. }
            | Self::StreamToBlockOffset { source, .. }
            | Self::BlockOffsetToBlockOffset { source, .. }
            | Self::TapeImage { source, .. }
            | Self::PopulateRod { source, .. }
            | Self::PopulateRodRange { source, .. }
            | Self::BlockImage { source, .. } => Some(source),
            Self::InlineToStream { .. }
            | Self::EmbeddedToStream { .. }
            | Self::WriteFilemarks { .. }
            | Self::Space { .. }
            | Self::Locate { .. }
            | Self::RegisterKey { .. }
            | Self::RegisterAndMove { .. } => None,
        }
    }

    /// The CSCD that data goes to, or the tape that is moved.
    #[must_use]
    pub const fn destination(&self) -> Option<CscdId> {
        match *self {
            Self::BlockToStream { destination, .. }
            | Self::StreamToBlock { destination, .. }
            | Self::BlockToBlock { destination, .. }
            | Self::StreamToStream { destination, .. }
            | Self::InlineToStream { destination, .. }
            | Self::EmbeddedToStream { destination, .. }
            | Self::BlockOffsetToStream { destination, .. }
            | Self::StreamToBlockOffset { destination, .. }
            | Self::BlockOffsetToBlockOffset { destination, .. }
            | Self::WriteFilemarks { destination, .. }
            | Self::Space { destination, .. }
            | Self::Locate { destination, .. }
            | Self::TapeImage { destination, .. }
            | Self::RegisterKey { destination, .. }
            | Self::RegisterAndMove { destination, .. }
            | Self::PopulateRod { destination, .. }
            | Self::PopulateRodRange { destination, .. }
            | Self::BlockImage { destination, .. } => Some(destination),
            Self::StreamToDiscard { .. } | Self::VerifyCscd { .. } => None,
        }
    }
}

impl SegmentDescriptor {
    /// Bytes of the descriptor.
    #[must_use]
    pub fn length(&self) -> usize {
        match (&self.segment, SegmentType::of(self.segment.code()).expect("every variant has a row").length) {
            (Segment::EmbeddedToStream { data, .. }, _) => size_of::<layout::EmbeddedStream>() + data.len().next_multiple_of(4),
            (Segment::RegisterAndMove { parameters, .. }, _) => size_of::<Header>() + parameters.len(),
            (Segment::PopulateRod { ranges, .. }, _) => size_of::<layout::PopulateRod>() + ranges.len() * RangeDescriptor::LENGTH,
            (Segment::PopulateRodRange { blocks, .. }, _) if *blocks > u64::from(u32::MAX) => size_of::<layout::BlockRange64>(),
            (Segment::BlockImage { blocks, .. }, _) if *blocks > u64::from(u32::MAX) => size_of::<layout::BlockImage64>(),
            (_, Fixed(length) | AtLeast(length)) => usize::from(length) + 4,
        }
    }

    /// Reads a whole descriptor of a supported type.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SegmentFault> {
        let header: Header = fixed(bytes)?;
        let (source, destination) = (CscdId(header.source.get()), CscdId(header.destination.get()));
        let (hold, code) = match header.code {
            0x0B..=0x0E => (true, header.code - HOLDING),
            0x0F => (true, 0x06),
            code => (false, code),
        };
        let segment = match code {
            0x00 | 0x01 => {
                let body: layout::BlockStream = fixed(bytes)?;
                let (transfer_length, blocks, lba) = (body.transfer_length.get(), body.blocks.get(), Lba(body.lba.get()));
                if code == 0x00 {
                    Segment::BlockToStream { source, destination, transfer_length, blocks, from: lba }
                } else {
                    Segment::StreamToBlock { source, destination, transfer_length, blocks, to: lba }
                }
            }
            0x02 => {
                let body: layout::BlockBlock = fixed(bytes)?;
                let count_of = if header.flags & DC != 0 { CountOf::DestinationBlocks } else { CountOf::SourceBlocks };
                let (from, to) = (Lba(body.from.get()), Lba(body.to.get()));
                Segment::BlockToBlock { source, destination, count_of, blocks: body.blocks.get(), from, to }
            }
            0x03 => {
                let body: layout::StreamStream = fixed(bytes)?;
                let (source_transfer_length, transfer_length) = (body.from.get(), body.to.get());
                Segment::StreamToStream { source, destination, source_transfer_length, transfer_length, bytes: body.bytes.get() }
            }
            0x04 => {
                let body: layout::InlineStream = fixed(bytes)?;
                let (transfer_length, offset) = (body.transfer_length.get(), body.offset.get());
                Segment::InlineToStream { destination, transfer_length, offset, bytes: body.bytes.get() }
            }
            0x05 => embedded(bytes, destination)?,
            0x06 => {
                let body: layout::StreamDiscard = fixed(bytes)?;
                Segment::StreamToDiscard { source, transfer_length: body.transfer_length.get(), bytes: body.bytes.get() }
            }
            0x07 => Segment::VerifyCscd { source, test_unit_ready: fixed::<layout::VerifyCscd>(bytes)?.tur & 1 != 0 },
            0x08 | 0x09 => {
                let body: layout::BlockOffsetStream = fixed(bytes)?;
                let (transfer_length, bytes, lba) = (body.transfer_length.get(), body.bytes.get(), Lba(body.lba.get()));
                let offset = body.offset.get();
                if code == 0x08 {
                    Segment::BlockOffsetToStream { source, destination, transfer_length, bytes, from: lba, offset }
                } else {
                    Segment::StreamToBlockOffset { source, destination, transfer_length, bytes, to: lba, offset }
                }
            }
            0x0A => {
                let body: layout::BlockOffsetBlockOffset = fixed(bytes)?;
                Segment::BlockOffsetToBlockOffset {
                    source,
                    destination,
                    bytes: body.bytes.get(),
                    from: Lba(body.from.get()),
                    from_offset: body.from_offset.get(),
                    to: Lba(body.to.get()),
                    to_offset: body.to_offset.get(),
                }
            }
            0x10 => {
                let body: layout::TapeCount = fixed(bytes)?;
                Segment::WriteFilemarks { destination, immediate: body.flags & 1 != 0, count: body.count.get() }
            }
            0x11 => {
                let body: layout::TapeCount = fixed(bytes)?;
                // COUNT of SPACE is signed: its 24 bits are put on top and shifted down with their sign.
                let count = (body.count.get() << 8) as i32 >> 8;
                Segment::Space { destination, code: body.flags & 0x0F, count }
            }
            0x12 => Segment::Locate { destination, object: fixed::<layout::TapeLocate>(bytes)?.object.get() },
            0x13 => Segment::TapeImage { source, destination, filemarks: fixed::<layout::TapeImage>(bytes)?.count.get() },
            0x14 => {
                let body: layout::RegisterKey = fixed(bytes)?;
                Segment::RegisterKey { destination, key: body.key.get(), action_key: body.action_key.get() }
            }
            0x15 if !bytes.len().is_multiple_of(4) => return Err(SegmentFault { byte: 2 }),
            0x15 => Segment::RegisterAndMove { destination, parameters: bytes[size_of::<Header>()..].to_vec() },
            0x16 => block_image(bytes, source, destination)?,
            0xBE => populate_rod(bytes, source, destination)?,
            0xBF => populate_rod_range(bytes, source, destination)?,
            _ => return Err(SegmentFault { byte: 0 }),
        };
        Ok(Self { cat: header.flags & CAT != 0, hold, segment })
    }

    /// Appends the descriptor's bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let header = self.header();
        match &self.segment {
            Segment::BlockToStream { transfer_length, blocks, from: lba, .. }
            | Segment::StreamToBlock { transfer_length, blocks, to: lba, .. } => put(
                out,
                layout::BlockStream {
                    header,
                    reserved_8: 0,
                    transfer_length: u24(*transfer_length),
                    reserved_12: [0; 2],
                    blocks: U16::new(*blocks),
                    lba: U64::new(lba.0),
                },
            ),
            Segment::BlockToBlock { blocks, from, to, .. } => put(
                out,
                layout::BlockBlock {
                    header,
                    reserved_8: [0; 2],
                    blocks: U16::new(*blocks),
                    from: U64::new(from.0),
                    to: U64::new(to.0),
                },
            ),
            Segment::StreamToStream { source_transfer_length, transfer_length, bytes, .. } => put(
                out,
                layout::StreamStream {
                    header,
                    reserved_8: 0,
                    from: u24(*source_transfer_length),
                    reserved_12: 0,
                    to: u24(*transfer_length),
                    bytes: U32::new(*bytes),
                },
            ),
            Segment::InlineToStream { transfer_length, offset, bytes, .. } => put(
                out,
                layout::InlineStream {
                    header,
                    reserved_8: 0,
                    transfer_length: u24(*transfer_length),
                    offset: U32::new(*offset),
                    bytes: U32::new(*bytes),
                },
            ),
            Segment::EmbeddedToStream { transfer_length, data, .. } => {
                let (transfer_length, bytes) = (u24(*transfer_length), U16::new(data.len() as u16));
                put(out, layout::EmbeddedStream { header, reserved_8: 0, transfer_length, bytes, reserved_14: [0; 2] });
                out.extend_from_slice(data);
                out.resize(out.len() + data.len().next_multiple_of(4) - data.len(), 0);
            }
            Segment::StreamToDiscard { transfer_length, bytes, .. } => {
                let (transfer_length, bytes) = (u24(*transfer_length), U32::new(*bytes));
                put(out, layout::StreamDiscard { header, reserved_8: 0, transfer_length, bytes });
            }
            Segment::VerifyCscd { test_unit_ready, .. } => {
                put(out, layout::VerifyCscd { header, tur: u8::from(*test_unit_ready), reserved_9: [0; 3] });
            }
            Segment::BlockOffsetToStream { transfer_length, bytes, from: lba, offset, .. }
            | Segment::StreamToBlockOffset { transfer_length, bytes, to: lba, offset, .. } => put(
                out,
                layout::BlockOffsetStream {
                    header,
                    reserved_8: 0,
                    transfer_length: u24(*transfer_length),
                    bytes: U32::new(*bytes),
                    lba: U64::new(lba.0),
                    reserved_24: [0; 2],
                    offset: U16::new(*offset),
                },
            ),
            Segment::BlockOffsetToBlockOffset { bytes, from, from_offset, to, to_offset, .. } => put(
                out,
                layout::BlockOffsetBlockOffset {
                    header,
                    bytes: U32::new(*bytes),
                    from: U64::new(from.0),
                    to: U64::new(to.0),
                    from_offset: U16::new(*from_offset),
                    to_offset: U16::new(*to_offset),
                },
            ),
            Segment::WriteFilemarks { immediate, count, .. } => {
                put(out, layout::TapeCount { header, flags: u8::from(*immediate), count: u24(*count) });
            }
            Segment::Space { code, count, .. } => {
                put(out, layout::TapeCount { header, flags: code & 0x0F, count: u24(*count as u32) });
            }
            Segment::Locate { object, .. } => put(out, layout::TapeLocate { header, object: U32::new(*object) }),
            Segment::TapeImage { filemarks, .. } => put(out, layout::TapeImage { header, count: U32::new(*filemarks) }),
            Segment::RegisterKey { key, action_key, .. } => put(
                out,
                layout::RegisterKey { header, key: U64::new(*key), action_key: U64::new(*action_key), reserved_24: [0; 4] },
            ),
            Segment::RegisterAndMove { parameters, .. } => {
                put(out, header);
                out.extend_from_slice(parameters);
            }
            Segment::PopulateRod { ranges, .. } => {
                let length = U16::new((ranges.len() * RangeDescriptor::LENGTH) as u16);
                put(out, layout::PopulateRod { header, reserved_8: [0; 5], range_type: FOUR_GIBI_BLOCK_RANGE, length });
                ranges.iter().for_each(|range| range.emit(out));
            }
            Segment::PopulateRodRange { from, blocks, .. } => {
                let lba = U64::new(from.0);
                match u32::try_from(*blocks) {
                    Ok(blocks) => put(out, layout::BlockRange32 { header, lba, blocks: U32::new(blocks) }),
                    Err(_) => put(out, layout::BlockRange64 { header, lba, blocks: U64::new(*blocks) }),
                }
            }
            Segment::BlockImage { blocks, from, to, .. } => {
                let (from, to) = (U64::new(from.0), U64::new(to.0));
                match u32::try_from(*blocks) {
                    Ok(blocks) => put(out, layout::BlockImage32 { header, from, to, blocks: U32::new(blocks) }),
                    Err(_) => put(out, layout::BlockImage64 { header, from, to, blocks: U64::new(*blocks) }),
                }
            }
        }
    }

    fn header(&self) -> Header {
        let dc = matches!(self.segment, Segment::BlockToBlock { count_of: CountOf::DestinationBlocks, .. });
        Header {
            code: self.segment.holding_code().filter(|_| self.hold).unwrap_or(self.segment.code()),
            flags: (u8::from(self.cat) * CAT) | (u8::from(dc) * DC),
            descriptor_length: U16::new((self.length() - 4) as u16),
            source: U16::new(self.segment.source().map_or(0, |id| id.0)),
            destination: U16::new(self.segment.destination().map_or(0, |id| id.0)),
        }
    }
}

fn embedded(bytes: &[u8], destination: CscdId) -> Result<Segment, SegmentFault> {
    let body: layout::EmbeddedStream = fixed(bytes)?;
    if !bytes.len().is_multiple_of(4) {
        return Err(SegmentFault { byte: 2 });
    }
    let data = &bytes[size_of::<layout::EmbeddedStream>()..];
    let data = data.get(..usize::from(body.bytes.get())).ok_or(SegmentFault { byte: 12 })?;
    Ok(Segment::EmbeddedToStream { destination, transfer_length: body.transfer_length.get(), data: data.to_vec() })
}

/// RANGE DESCRIPTOR TYPE of the only kind there is.
const FOUR_GIBI_BLOCK_RANGE: u8 = 0x01;

fn populate_rod(bytes: &[u8], source: CscdId, destination: CscdId) -> Result<Segment, SegmentFault> {
    let body: layout::PopulateRod = fixed(bytes)?;
    if body.range_type != FOUR_GIBI_BLOCK_RANGE {
        return Err(SegmentFault { byte: 13 });
    }
    let list = &bytes[size_of::<layout::PopulateRod>()..];
    let length = usize::from(body.length.get());
    if length != list.len() || !length.is_multiple_of(RangeDescriptor::LENGTH) {
        return Err(SegmentFault { byte: 14 });
    }
    Ok(Segment::PopulateRod { source, destination, ranges: RangeDescriptor::parse_list(list) })
}

fn populate_rod_range(bytes: &[u8], source: CscdId, destination: CscdId) -> Result<Segment, SegmentFault> {
    let (lba, blocks) = match bytes.len() {
        0x14 => {
            let body: layout::BlockRange32 = fixed(bytes)?;
            (body.lba, u64::from(body.blocks.get()))
        }
        0x18 => {
            let body: layout::BlockRange64 = fixed(bytes)?;
            (body.lba, body.blocks.get())
        }
        _ => return Err(SegmentFault { byte: 2 }),
    };
    Ok(Segment::PopulateRodRange { source, destination, from: Lba(lba.get()), blocks })
}

fn block_image(bytes: &[u8], source: CscdId, destination: CscdId) -> Result<Segment, SegmentFault> {
    let (from, to, blocks) = match bytes.len() {
        0x1C => {
            let body: layout::BlockImage32 = fixed(bytes)?;
            (body.from, body.to, u64::from(body.blocks.get()))
        }
        0x20 => {
            let body: layout::BlockImage64 = fixed(bytes)?;
            (body.from, body.to, body.blocks.get())
        }
        _ => return Err(SegmentFault { byte: 2 }),
    };
    Ok(Segment::BlockImage { source, destination, blocks, from: Lba(from.get()), to: Lba(to.get()) })
}

fn put(out: &mut Vec<u8>, layout: impl IntoBytes + zerocopy::Immutable) {
    out.extend_from_slice(layout.as_bytes());
}

/// Bits of byte 1.
const CAT: u8 = 0x01;
const DC: u8 = 0x02;
/// From the code of a type to the one that also holds what it processes.
const HOLDING: u8 = 0x0B;
