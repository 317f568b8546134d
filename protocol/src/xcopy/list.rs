//! The EXTENDED COPY parameter list: built by an agent, parsed by a copy manager.
//!
//! [`List`] is one value for both list formats; today LID1 is read and written. What is checked here needs no device: form,
//! limits and supported descriptor types. Follows SPC-4, "EXTENDED COPY parameter list" and "Shared EXTENDED COPY parameter list
//! fields".

use bytes::Bytes;

use super::cscd::{CscdDescriptor, CscdId, IDENTIFICATION};
use super::segment::{DescriptorLength, Segment, SegmentDescriptor, SegmentType};
use super::{CSCD_LENGTH, LIST_HEADER_LENGTH, MAX_CSCDS, MAX_DESCRIPTOR_LIST_LENGTH, MAX_INLINE_DATA_LENGTH, MAX_SEGMENTS};
use crate::scsi::{DeviceType, FieldPointer, Sense};

/// LIST ID USAGE. SPC-4, table "LIST ID USAGE field for the EXTENDED COPY(LID1) command".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListIdUsage {
    /// 00b: results are held for RECEIVE COPY.
    #[default]
    Hold,
    /// 10b: results may be discarded.
    MayDiscard,
    /// 11b: the list has no identifier.
    None,
}

/// An EXTENDED COPY parameter list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List {
    /// LIST IDENTIFIER; eight bits in a LID1 list.
    pub id: u32,
    /// LIST ID USAGE.
    pub usage: ListIdUsage,
    /// PRIORITY, three bits; a hint that is not used.
    pub priority: u8,
    /// STR; a hint that is not used.
    pub sequential_striped: bool,
    /// CSCD descriptor list.
    pub cscds: Vec<CscdDescriptor>,
    /// Segment descriptor list.
    pub segments: Vec<SegmentDescriptor>,
    /// Inline data.
    pub inline: Bytes,
}

impl List {
    /// An empty list with an identifier.
    #[must_use]
    pub fn new(id: u8) -> Self {
        Self { id: u32::from(id), ..Self::default() }
    }

    /// Adds a CSCD and gives the id that segments name it by.
    pub fn cscd(&mut self, descriptor: CscdDescriptor) -> CscdId {
        self.cscds.push(descriptor);
        CscdId((self.cscds.len() - 1) as u16)
    }

    /// Adds a segment with CAT = 0.
    pub fn push(&mut self, segment: Segment) -> &mut Self {
        self.segments.push(segment.into());
        self
    }

    /// Adds a segment with CAT = 1: its residue goes to the next segment.
    pub fn push_cat(&mut self, segment: Segment) -> &mut Self {
        self.segments.push(SegmentDescriptor { cat: true, segment });
        self
    }

    /// Bytes of the list as it is written.
    #[must_use]
    pub fn length(&self) -> usize {
        self.segment_at(self.segments.len()) + self.inline.len()
    }

    /// Byte of the list at which a CSCD descriptor begins.
    #[must_use]
    pub const fn cscd_at(&self, index: usize) -> usize {
        LIST_HEADER_LENGTH + CSCD_LENGTH * index
    }

    /// Byte of the list at which a segment descriptor begins, or the inline data for an index behind the last.
    #[must_use]
    pub fn segment_at(&self, index: usize) -> usize {
        self.cscd_at(self.cscds.len()) + self.segments.iter().take(index).map(SegmentDescriptor::length).sum::<usize>()
    }

    /// Writes the list in the format of EXTENDED COPY(LID1).
    #[must_use]
    pub fn emit_lid1(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length());
        let usage = match self.usage {
            ListIdUsage::Hold => 0b00,
            ListIdUsage::MayDiscard => 0b10,
            ListIdUsage::None => 0b11,
        };
        out.push(self.id as u8);
        out.push(u8::from(self.sequential_striped) << 5 | usage << 3 | self.priority & 0x07);
        out.extend_from_slice(&((self.cscds.len() * CSCD_LENGTH) as u16).to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let segments = self.segment_at(self.segments.len()) - self.segment_at(0);
        out.extend_from_slice(&(segments as u32).to_be_bytes());
        out.extend_from_slice(&(self.inline.len() as u32).to_be_bytes());
        self.cscds.iter().for_each(|cscd| out.extend_from_slice(&cscd.emit()));
        self.segments.iter().for_each(|segment| segment.emit(&mut out));
        out.extend_from_slice(&self.inline);
        out
    }

    /// Reads the list of an EXTENDED COPY(LID1) that was sent to a logical unit of type `manager`. Bytes behind the inline data
    /// are ignored.
    ///
    /// # Errors
    /// [`ListError`]; its sense data is what the command ends with, since nothing was processed yet.
    pub fn parse_lid1(list: &Bytes, manager: DeviceType) -> Result<Self, ListError> {
        let header: &[u8; LIST_HEADER_LENGTH] = list.first_chunk().ok_or(ListError::Length)?;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let cscd_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let (segment_length, inline_length) = (word(8), word(12));

        // In the order of the standard's text: lengths before counts, counts before types.
        if cscd_length + segment_length > MAX_DESCRIPTOR_LIST_LENGTH || inline_length > MAX_INLINE_DATA_LENGTH {
            return Err(ListError::Length);
        }
        let segments_at = LIST_HEADER_LENGTH + cscd_length;
        let inline_at = segments_at + segment_length;
        if inline_at + inline_length > list.len() {
            return Err(ListError::Length);
        }
        if !cscd_length.is_multiple_of(CSCD_LENGTH) {
            return Err(ListError::field(2));
        }
        if cscd_length / CSCD_LENGTH > MAX_CSCDS {
            return Err(ListError::TooManyCscds);
        }
        let usage = match header[1] >> 3 & 0b11 {
            0b00 => ListIdUsage::Hold,
            0b10 => ListIdUsage::MayDiscard,
            0b11 if header[0] != 0 => return Err(ListError::field(0)),
            0b11 => ListIdUsage::None,
            _ => return Err(ListError::Field { byte: 1, bit: Some(4) }),
        };
        let raw = RawSegment::cut(&list[..inline_at], segments_at)?;
        Ok(Self {
            id: u32::from(header[0]),
            usage,
            priority: header[1] & 0x07,
            sequential_striped: header[1] & 0x20 != 0,
            cscds: parse_cscds(&list[..segments_at])?,
            segments: raw.into_iter().map(|segment| segment.parse(manager)).collect::<Result<_, _>>()?,
            inline: list.slice(inline_at..inline_at + inline_length),
        })
    }
}

fn parse_cscds(list: &[u8]) -> Result<Vec<CscdDescriptor>, ListError> {
    let (chunks, _) = list[LIST_HEADER_LENGTH..].as_chunks::<CSCD_LENGTH>();
    let at = |index: usize| LIST_HEADER_LENGTH + index * CSCD_LENGTH;
    chunks
        .iter()
        .enumerate()
        .map(|(index, bytes)| {
            if bytes[0] != IDENTIFICATION {
                return Err(ListError::UnsupportedCscd { code: bytes[0], byte: at(index) });
            }
            CscdDescriptor::parse(bytes).map_err(|byte| ListError::field(at(index) + byte))
        })
        .collect()
}

/// A segment descriptor that is cut out, but not understood: an unknown code still has a place in sense data.
struct RawSegment<'a> {
    at: usize,
    bytes: &'a [u8],
}

impl<'a> RawSegment<'a> {
    /// Cuts what lies between `at` and the end of `list`.
    fn cut(list: &'a [u8], mut at: usize) -> Result<Vec<Self>, ListError> {
        let mut segments = Vec::new();
        while at < list.len() {
            let header: &[u8; 4] = list[at..].first_chunk().ok_or(ListError::Length)?;
            let length = 4 + usize::from(u16::from_be_bytes([header[2], header[3]]));
            let bytes = list.get(at..at + length).ok_or(ListError::field(at + 2))?;
            segments.push(Self { at, bytes });
            at += length;
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(ListError::TooManySegments);
        }
        Ok(segments)
    }

    fn parse(self, manager: DeviceType) -> Result<SegmentDescriptor, ListError> {
        let code = self.bytes[0];
        let unsupported = ListError::UnsupportedSegment { code, byte: self.at };
        let row = SegmentType::of(code).filter(|row| row.supported_on(manager)).ok_or(unsupported)?;
        let right_length = match row.length {
            DescriptorLength::Fixed(length) => self.bytes.len() == 4 + usize::from(length),
            DescriptorLength::AtLeast(length) => self.bytes.len() >= 4 + usize::from(length),
        };
        if !right_length {
            return Err(ListError::field(self.at + 2));
        }
        SegmentDescriptor::parse(self.bytes).map_err(|fault| ListError::field(self.at + fault.byte))
    }
}

/// Why a list was refused before its first segment. Offsets count from the list's first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Shorter than its header says, or longer than the limits.
    #[error("the parameter list is truncated or longer than allowed")]
    Length,
    /// More than [`MAX_CSCDS`].
    #[error("too many CSCD descriptors")]
    TooManyCscds,
    /// More than [`MAX_SEGMENTS`].
    #[error("too many segment descriptors")]
    TooManySegments,
    /// A CSCD descriptor type that is not taken here.
    #[error("CSCD descriptor type {code:02x}h is not supported")]
    UnsupportedCscd {
        /// DESCRIPTOR TYPE CODE.
        code: u8,
        /// Where it stands.
        byte: usize,
    },
    /// A segment descriptor type that is not taken by this logical unit.
    #[error("segment descriptor type {code:02x}h is not supported")]
    UnsupportedSegment {
        /// DESCRIPTOR TYPE CODE.
        code: u8,
        /// Where it stands.
        byte: usize,
    },
    /// A field that holds what it may not hold.
    #[error("invalid field at byte {byte}")]
    Field {
        /// Where it stands.
        byte: usize,
        /// Its most significant bit, where it is smaller than a byte.
        bit: Option<u8>,
    },
}

impl ListError {
    const fn field(byte: usize) -> Self {
        Self::Field { byte, bit: None }
    }

    /// What the command ends with. The pointer is left out where the byte's number has more than the 16 bits of FIELD POINTER.
    #[must_use]
    pub fn sense(&self) -> Sense {
        let (code, byte, bit) = match *self {
            Self::Length => ((0x1A, 0x00), None, None),
            Self::TooManyCscds => ((0x26, 0x06), Some(2), None),
            Self::TooManySegments => ((0x26, 0x08), Some(8), None),
            Self::UnsupportedCscd { byte, .. } => ((0x26, 0x07), Some(byte), None),
            Self::UnsupportedSegment { byte, .. } => ((0x26, 0x09), Some(byte), None),
            Self::Field { byte, bit } => ((0x26, 0x00), Some(byte), bit),
        };
        let sense = Sense::illegal_request(code.0, code.1);
        match byte.and_then(|byte| u16::try_from(byte).ok()) {
            Some(byte) => sense.at(FieldPointer::Parameter { byte, bit }),
            None => sense,
        }
    }
}
