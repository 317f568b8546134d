//! The EXTENDED COPY parameter list: built by an agent, parsed by a copy manager.
//!
//! [`List`] is one value for both list formats. What is checked here needs no device: form, limits and supported descriptor types. Follows SPC-4, "EXTENDED COPY parameter list" and "Shared EXTENDED COPY parameter list
//! fields".

use std::ops::Range;

use bytes::Bytes;

use super::cscd::{self, CSCD_TYPES, CscdDescriptor, CscdFault, CscdId, CscdName, EXTENSION};
use super::rod::RodToken;
use super::segment::{DescriptorLength, Segment, SegmentDescriptor, SegmentType};
use super::{CSCD_LENGTH, LIST_HEADER_LENGTH, MAX_CSCDS, MAX_DESCRIPTOR_LIST_LENGTH, MAX_INLINE_DATA_LENGTH, MAX_SEGMENTS};
use crate::scsi::{DeviceType, FieldPointer, Sense, SenseKey};

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

/// Which of the two formats a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListFormat {
    /// EXTENDED COPY(LID1): an identifier of 8 bits, lengths of 32, and the first CSCD descriptor has the id 0000h.
    #[default]
    Lid1,
    /// EXTENDED COPY(LID4): an identifier of 32 bits, lengths of 16, and the first CSCD descriptor has the id 0001h: the header
    /// takes the place of 0000h.
    Lid4,
}

impl ListFormat {
    /// Bytes before the first CSCD descriptor.
    #[must_use]
    pub const fn header_length(self) -> usize {
        match self {
            Self::Lid1 => LIST_HEADER_LENGTH,
            Self::Lid4 => LIST_HEADER_LENGTH + CSCD_LENGTH,
        }
    }

    /// Id of the first CSCD descriptor.
    const fn first_id(self) -> u16 {
        match self {
            Self::Lid1 => 0,
            Self::Lid4 => 1,
        }
    }
}

/// An EXTENDED COPY parameter list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List {
    /// As which it is read and written.
    pub format: ListFormat,
    /// IMMED: the command ends before the first segment is processed. Only in a LID4 list.
    pub immediate: bool,
    /// G_SENSE: sense data with GOOD. Only in a LID4 list.
    pub good_with_sense: bool,
    /// LIST IDENTIFIER; eight bits in a LID1 list.
    pub id: u32,
    /// LIST ID USAGE.
    pub usage: ListIdUsage,
    /// PRIORITY, three bits; 0 is the highest.
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

    /// An empty list of EXTENDED COPY(LID4).
    #[must_use]
    pub fn lid4(id: u32) -> Self {
        Self { id, format: ListFormat::Lid4, ..Self::default() }
    }

    /// Adds a CSCD and gives the id that segments name it by.
    pub fn cscd(&mut self, descriptor: CscdDescriptor) -> CscdId {
        let id = CscdId(self.places().last().map_or(0, |place| place.end) as u16 + self.format.first_id());
        self.cscds.push(descriptor);
        id
    }

    /// The position in [`List::cscds`] of a CSCD that segments name by an id; `None` for special ids and such that none has.
    #[must_use]
    pub fn cscd_index(&self, id: CscdId) -> Option<usize> {
        let place = self.place(id)?;
        self.places().position(|places| places.start == place)
    }

    /// The id by which segments name the CSCD at a position in [`List::cscds`].
    #[must_use]
    pub fn cscd_id(&self, index: usize) -> CscdId {
        CscdId(self.places().nth(index).map_or(0, |place| place.start) as u16 + self.format.first_id())
    }

    /// True for the id of a CSCD descriptor extension, which is no CSCD.
    #[must_use]
    pub fn is_extension(&self, id: CscdId) -> bool {
        self.place(id).is_some_and(|place| self.places().any(|places| places.contains(&place) && places.start != place))
    }

    /// Which 32 bytes of the CSCD descriptor list an id names.
    fn place(&self, id: CscdId) -> Option<usize> {
        id.index()?.checked_sub(usize::from(self.format.first_id()))
    }

    /// Which 32 bytes of the CSCD descriptor list each descriptor takes.
    fn places(&self) -> impl Iterator<Item = Range<usize>> {
        self.cscds.iter().scan(0, |next, cscd| {
            let start = *next;
            *next += cscd.length() / CSCD_LENGTH;
            Some(start..*next)
        })
    }

    /// Adds a segment with CAT = 0.
    pub fn push(&mut self, segment: Segment) -> &mut Self {
        self.segments.push(segment.into());
        self
    }

    /// Adds a segment with CAT = 1: its residue goes to the next segment.
    pub fn push_cat(&mut self, segment: Segment) -> &mut Self {
        self.segments.push(SegmentDescriptor::new(true, segment));
        self
    }

    /// Bytes of the list as it is written.
    #[must_use]
    pub fn length(&self) -> usize {
        self.segment_at(self.segments.len()) + self.inline.len()
    }

    /// Byte of the list at which a CSCD descriptor begins.
    #[must_use]
    pub fn cscd_at(&self, index: usize) -> usize {
        self.format.header_length() + self.cscds.iter().take(index).map(CscdDescriptor::length).sum::<usize>()
    }

    /// Byte of the list at which a segment descriptor begins, or the inline data for an index behind the last.
    #[must_use]
    pub fn segment_at(&self, index: usize) -> usize {
        self.cscd_at(self.cscds.len()) + self.segments.iter().take(index).map(SegmentDescriptor::length).sum::<usize>()
    }

    /// Writes the list in its format.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length());
        let usage = match self.usage {
            ListIdUsage::Hold => 0b00,
            ListIdUsage::MayDiscard => 0b10,
            ListIdUsage::None => 0b11,
        };
        let hints = u8::from(self.sequential_striped) << 5 | usage << 3 | self.priority & 0x07;
        let cscds = self.segment_at(0) - self.cscd_at(0);
        let segments = self.segment_at(self.segments.len()) - self.segment_at(0);
        out.resize(self.format.header_length(), 0);
        out[1] = hints;
        match self.format {
            ListFormat::Lid1 => {
                out[0] = self.id as u8;
                out[2..4].copy_from_slice(&(cscds as u16).to_be_bytes());
                out[8..12].copy_from_slice(&(segments as u32).to_be_bytes());
                out[12..16].copy_from_slice(&(self.inline.len() as u32).to_be_bytes());
            }
            ListFormat::Lid4 => {
                out[0] = PARAMETER_LIST_FORMAT;
                out[2..4].copy_from_slice(&(CSCD_LENGTH as u16).to_be_bytes());
                out[15] = u8::from(self.good_with_sense) << 1 | u8::from(self.immediate);
                out[16] = HEADER_CSCD_TYPE;
                out[20..24].copy_from_slice(&self.id.to_be_bytes());
                out[42..44].copy_from_slice(&(cscds as u16).to_be_bytes());
                out[44..46].copy_from_slice(&(segments as u16).to_be_bytes());
                out[46..48].copy_from_slice(&(self.inline.len() as u16).to_be_bytes());
            }
        }
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
        let cscds = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let parts = Parts { format: ListFormat::Lid1, cscds, cscds_field: 2, segments: word(8), inline: word(12) };
        let head = Self { id: u32::from(header[0]), ..Self::head(header[1])? };
        if head.usage == ListIdUsage::None && head.id != 0 {
            parts.check(list)?;
            return Err(ListError::field(0));
        }
        parts.read(list, manager, head)
    }

    /// Reads the list of an EXTENDED COPY(LID4), as [`List::parse_lid1`] does.
    ///
    /// # Errors
    /// As [`List::parse_lid1`].
    pub fn parse_lid4(list: &Bytes, manager: DeviceType) -> Result<Self, ListError> {
        let header: &[u8; LIST_HEADER_LENGTH + CSCD_LENGTH] = list.first_chunk().ok_or(ListError::Length)?;
        let half = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        if header[0] != PARAMETER_LIST_FORMAT {
            return Err(ListError::field(0));
        }
        if half(2) != CSCD_LENGTH {
            return Err(ListError::field(2));
        }
        if header[16] != HEADER_CSCD_TYPE {
            return Err(ListError::field(16));
        }
        let parts = Parts { format: ListFormat::Lid4, cscds: half(42), cscds_field: 42, segments: half(44), inline: half(46) };
        let head = Self {
            id: u32::from_be_bytes([header[20], header[21], header[22], header[23]]),
            immediate: header[15] & 0x01 != 0,
            good_with_sense: header[15] & 0x02 != 0,
            ..Self::head(header[1])?
        };
        if head.immediate && (head.good_with_sense || head.usage == ListIdUsage::None) {
            return Err(ListError::Immediate);
        }
        if head.usage == ListIdUsage::None && head.id != 0 {
            parts.check(list)?;
            return Err(ListError::field(20));
        }
        parts.read(list, manager, head)
    }

    /// STR, LIST ID USAGE and PRIORITY, which both formats have in byte 1.
    fn head(byte: u8) -> Result<Self, ListError> {
        let usage = match byte >> 3 & 0b11 {
            0b00 => ListIdUsage::Hold,
            0b10 => ListIdUsage::MayDiscard,
            0b11 => ListIdUsage::None,
            _ => return Err(ListError::Field { byte: 1, bit: Some(4) }),
        };
        Ok(Self { usage, priority: byte & 0x07, sequential_striped: byte & 0x20 != 0, ..Self::default() })
    }
}

/// Bytes of the parts of a list, as its header says.
struct Parts {
    format: ListFormat,
    cscds: usize,
    /// Byte of the header that holds CSCD DESCRIPTOR LIST LENGTH.
    cscds_field: usize,
    segments: usize,
    inline: usize,
}

impl Parts {
    /// In the order of the standard's text: lengths before counts, counts before types.
    fn check(&self, list: &Bytes) -> Result<(), ListError> {
        if self.cscds + self.segments > MAX_DESCRIPTOR_LIST_LENGTH || self.inline > MAX_INLINE_DATA_LENGTH {
            return Err(ListError::Length);
        }
        if self.format.header_length() + self.cscds + self.segments + self.inline > list.len() {
            return Err(ListError::Length);
        }
        if !self.cscds.is_multiple_of(CSCD_LENGTH) {
            return Err(ListError::field(self.cscds_field));
        }
        let (parts, _) = list[self.format.header_length()..][..self.cscds].as_chunks::<CSCD_LENGTH>();
        if parts.iter().filter(|part| part[0] != EXTENSION).count() > MAX_CSCDS {
            return Err(ListError::TooManyCscds { field: self.cscds_field });
        }
        Ok(())
    }

    fn read(&self, list: &Bytes, manager: DeviceType, head: List) -> Result<List, ListError> {
        self.check(list)?;
        let cscds_at = self.format.header_length();
        let segments_at = cscds_at + self.cscds;
        let inline_at = segments_at + self.segments;
        let raw = RawSegment::cut(&list[..inline_at], segments_at, self.format)?;
        Ok(List {
            format: self.format,
            cscds: self.parse_cscds(&list[..segments_at], manager, head.usage)?,
            segments: raw.into_iter().map(|segment| segment.parse(manager, head.usage)).collect::<Result<_, _>>()?,
            inline: list.slice(inline_at..inline_at + self.inline),
            ..head
        })
    }
}

impl Parts {
    fn parse_cscds(&self, list: &[u8], manager: DeviceType, usage: ListIdUsage) -> Result<Vec<CscdDescriptor>, ListError> {
        let (mut cscds, mut at) = (Vec::new(), self.format.header_length());
        while let [code, ..] = list[at..] {
            if !CSCD_TYPES.iter().any(|row| row.taken_by.includes(manager) && row.code == code) {
                return Err(ListError::UnsupportedCscd { code, byte: at });
            }
            let length = cscd::length_of(code);
            if length > CSCD_LENGTH && list.get(at + CSCD_LENGTH) != Some(&EXTENSION) {
                return Err(ListError::Extension { byte: at + CSCD_LENGTH });
            }
            let descriptor = CscdDescriptor::parse(&list[at..at + length]).map_err(|fault| match fault {
                CscdFault::Field(byte) => ListError::field(at + byte),
                CscdFault::RemoteRod => ListError::RemoteRod { byte: at + 4 },
            })?;
            if let CscdName::Rod(rod) = &descriptor.name {
                // A list without an identifier can be asked for no token, and a token that is referred to lies in the inline data.
                let outside = rod.kind.is_none() && rod.token_offset as usize + RodToken::LENGTH > self.inline;
                match () {
                    () if rod.returns_token && usage == ListIdUsage::None => return Err(ListError::field(at + 22)),
                    () if outside => return Err(ListError::field(at + 24)),
                    () => {}
                }
            }
            cscds.push(descriptor);
            at += length;
        }
        Ok(cscds)
    }
}

/// A segment descriptor that is cut out, but not understood: an unknown code still has a place in sense data.
struct RawSegment<'a> {
    at: usize,
    bytes: &'a [u8],
}

impl<'a> RawSegment<'a> {
    /// Cuts what lies between `at` and the end of `list`.
    fn cut(list: &'a [u8], mut at: usize, format: ListFormat) -> Result<Vec<Self>, ListError> {
        let mut segments = Vec::new();
        while at < list.len() {
            let header: &[u8; 4] = list[at..].first_chunk().ok_or(ListError::Length)?;
            let length = 4 + usize::from(u16::from_be_bytes([header[2], header[3]]));
            let bytes = list.get(at..at + length).ok_or(ListError::field(at + 2))?;
            segments.push(Self { at, bytes });
            at += length;
        }
        if segments.len() > MAX_SEGMENTS {
            let field = if format == ListFormat::Lid1 { 8 } else { 44 };
            return Err(ListError::TooManySegments { field });
        }
        Ok(segments)
    }

    fn parse(self, manager: DeviceType, usage: ListIdUsage) -> Result<SegmentDescriptor, ListError> {
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
        let descriptor = SegmentDescriptor::parse(self.bytes).map_err(|fault| ListError::field(self.at + fault.byte))?;
        // Nobody could ask for what is held of a copy without a name.
        if descriptor.hold && usage == ListIdUsage::None { Err(ListError::field(self.at)) } else { Ok(descriptor) }
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
    TooManyCscds {
        /// Byte of the length at fault.
        field: usize,
    },
    /// More than [`MAX_SEGMENTS`].
    #[error("too many segment descriptors")]
    TooManySegments {
        /// Byte of the length at fault.
        field: usize,
    },
    /// IMMED together with what it excludes.
    #[error("IMMED with G_SENSE or without a list identifier")]
    Immediate,
    /// A ROD of another copy manager.
    #[error("RODs of other copy managers are not supported")]
    RemoteRod {
        /// Where its copy manager is named.
        byte: usize,
    },
    /// A CSCD descriptor type that is not taken here.
    #[error("CSCD descriptor type {code:02x}h is not supported")]
    UnsupportedCscd {
        /// DESCRIPTOR TYPE CODE.
        code: u8,
        /// Where it stands.
        byte: usize,
    },
    /// A CSCD descriptor that wants an extension has none.
    #[error("no CSCD descriptor extension at byte {byte}")]
    Extension {
        /// Where it would stand.
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
    /// INVALID FIELD IN PARAMETER LIST at a byte.
    pub(super) const fn field(byte: usize) -> Self {
        Self::Field { byte, bit: None }
    }

    /// What the command ends with. The pointer is left out where the byte's number has more than the 16 bits of FIELD POINTER.
    #[must_use]
    pub fn sense(&self) -> Sense {
        let (code, byte, bit) = match *self {
            Self::Length => ((0x1A, 0x00), None, None),
            Self::TooManyCscds { field } => ((0x26, 0x06), Some(field), None),
            Self::TooManySegments { field } => ((0x26, 0x08), Some(field), None),
            // The bit is in the list; the standard calls it a field of the CDB all the same.
            Self::Immediate => return Sense::INVALID_FIELD_IN_CDB,
            Self::RemoteRod { byte } => ((0x23, 0x02), Some(byte), None),
            Self::UnsupportedCscd { byte, .. } => ((0x26, 0x07), Some(byte), None),
            Self::UnsupportedSegment { byte, .. } => ((0x26, 0x09), Some(byte), None),
            Self::Extension { byte } => ((0x26, 0x00), Some(byte), None),
            Self::Field { byte, bit } => ((0x26, 0x00), Some(byte), bit),
        };
        let sense = match self {
            Self::Extension { .. } => Sense::illegal_request(code.0, code.1).with_key(SenseKey::CopyAborted),
            _ => Sense::illegal_request(code.0, code.1),
        };
        match byte.and_then(|byte| u16::try_from(byte).ok()) {
            Some(byte) => sense.at(FieldPointer::Parameter { byte, bit }),
            None => sense,
        }
    }
}

/// PARAMETER LIST FORMAT of a LID4 list.
const PARAMETER_LIST_FORMAT: u8 = 0x01;
/// HEADER CSCD DESCRIPTOR TYPE CODE of a LID4 list.
const HEADER_CSCD_TYPE: u8 = 0xFF;
