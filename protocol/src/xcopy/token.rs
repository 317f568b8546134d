//! Parameter lists of POPULATE TOKEN and WRITE USING TOKEN, and the data of REPORT ALL ROD TOKENS.
//!
//! Checks what needs no device: form, limits, and that no block is named twice. Whether a disk has the blocks, and whether a token is
//! good, its copy manager knows. Follows SBC-4, "POPULATE TOKEN parameter list", "WRITE USING TOKEN parameter list"; SPC-4, "REPORT
//! ALL ROD TOKENS command".

use super::list::ListError;
use super::rod::{MAX_INACTIVITY_TIMEOUT, MAX_RANGES, RangeDescriptor, RodToken, RodType};
use crate::wire::{Problem, WireError};

/// The parameter list of POPULATE TOKEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PopulateToken {
    /// IMMED.
    pub immediate: bool,
    /// ROD TYPE, where RTV is set.
    pub kind: Option<RodType>,
    /// INACTIVITY TIMEOUT, in seconds; zero is the default.
    pub inactivity_timeout: u32,
    /// Block device range descriptors.
    pub ranges: Vec<RangeDescriptor>,
}

/// IMMED.
const IMMED: u8 = 0x01;
/// RTV of POPULATE TOKEN, DEL_TKN of WRITE USING TOKEN.
const SECOND: u8 = 0x02;

impl PopulateToken {
    /// Byte at which the range descriptors begin.
    const RANGES: usize = 16;

    /// Reads a list whose length is that of the CDB.
    ///
    /// # Errors
    /// [`ListError`]; its sense data is what the command ends with.
    pub fn parse(list: &[u8]) -> Result<Self, ListError> {
        let header: &[u8; Self::RANGES] = list.first_chunk().ok_or(ListError::Length)?;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let data_length = usize::from(u16::from_be_bytes([header[0], header[1]]));
        if data_length < Self::RANGES - 2 + RangeDescriptor::LENGTH {
            return Err(ListError::field(0));
        }
        let kind = match header[2] & SECOND {
            0 => None,
            _ => Some(RodType::of(word(8)).filter(|kind| kind.created().is_some()).ok_or(ListError::field(8))?),
        };
        let inactivity_timeout = word(4);
        if inactivity_timeout > MAX_INACTIVITY_TIMEOUT {
            return Err(ListError::field(4));
        }
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        let ranges = ranges(list, data_length + 2, Self::RANGES, length, 14)?;
        Ok(Self { immediate: header[2] & IMMED != 0, kind, inactivity_timeout, ranges })
    }

    /// The list as it is sent.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; Self::RANGES];
        let length = self.ranges.len() * RangeDescriptor::LENGTH;
        out[..2].copy_from_slice(&((Self::RANGES - 2 + length) as u16).to_be_bytes());
        out[2] = (u8::from(self.immediate) * IMMED) | (u8::from(self.kind.is_some()) * SECOND);
        out[4..8].copy_from_slice(&self.inactivity_timeout.to_be_bytes());
        out[8..12].copy_from_slice(&self.kind.map_or(0, |kind| kind as u32).to_be_bytes());
        out[14..16].copy_from_slice(&(length as u16).to_be_bytes());
        self.ranges.iter().for_each(|range| range.emit(&mut out));
        out
    }
}

/// The parameter list of WRITE USING TOKEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteUsingToken {
    /// IMMED.
    pub immediate: bool,
    /// DEL_TKN.
    pub deletes_token: bool,
    /// OFFSET INTO ROD, in blocks of the disk that is written.
    pub offset: u64,
    /// ROD TOKEN, of which not even the form has been looked at.
    pub token: Box<[u8; RodToken::LENGTH]>,
    /// Block device range descriptors.
    pub ranges: Vec<RangeDescriptor>,
}

impl WriteUsingToken {
    const TOKEN: usize = 16;
    const LENGTH_AT: usize = 534;
    const RANGES: usize = 536;

    /// Reads a list whose length is that of the CDB.
    ///
    /// # Errors
    /// As [`PopulateToken::parse`].
    pub fn parse(list: &[u8]) -> Result<Self, ListError> {
        let head: &[u8; 2] = list.first_chunk().ok_or(ListError::Length)?;
        let data_length = usize::from(u16::from_be_bytes(*head));
        if data_length < Self::RANGES - 2 + RangeDescriptor::LENGTH {
            return Err(ListError::field(0));
        }
        let header: &[u8; Self::RANGES] = list.first_chunk().ok_or(ListError::Length)?;
        let length = usize::from(u16::from_be_bytes([header[Self::LENGTH_AT], header[Self::LENGTH_AT + 1]]));
        let ranges = ranges(list, data_length + 2, Self::RANGES, length, Self::LENGTH_AT)?;
        Ok(Self {
            immediate: header[2] & IMMED != 0,
            deletes_token: header[2] & SECOND != 0,
            offset: u64::from_be_bytes(*header[8..].first_chunk().expect("inside the header")),
            token: Box::new(*header[Self::TOKEN..].first_chunk().expect("inside the header")),
            ranges,
        })
    }

    /// The list as it is sent.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; Self::RANGES];
        let length = self.ranges.len() * RangeDescriptor::LENGTH;
        out[..2].copy_from_slice(&((Self::RANGES - 2 + length) as u16).to_be_bytes());
        out[2] = (u8::from(self.immediate) * IMMED) | (u8::from(self.deletes_token) * SECOND);
        out[8..16].copy_from_slice(&self.offset.to_be_bytes());
        out[Self::TOKEN..][..RodToken::LENGTH].copy_from_slice(&self.token[..]);
        out[Self::LENGTH_AT..].copy_from_slice(&(length as u16).to_be_bytes());
        self.ranges.iter().for_each(|range| range.emit(&mut out));
        out
    }
}

/// The whole range descriptors of a list that is `data_end` bytes long by its own account: from byte `at` on, `length` bytes, which
/// byte `field` says. One that the list cuts off is ignored.
fn ranges(list: &[u8], data_end: usize, at: usize, length: usize, field: usize) -> Result<Vec<RangeDescriptor>, ListError> {
    if length < RangeDescriptor::LENGTH {
        return Err(ListError::field(field));
    }
    let end = (at + length).min(list.len()).min(data_end);
    let ranges = RangeDescriptor::parse_list(list.get(at..end).unwrap_or_default());
    if ranges.len() > MAX_RANGES {
        return Err(ListError::TooManySegments { field });
    }
    match RangeDescriptor::overlap(&ranges) {
        Some(index) => Err(ListError::field(at + index * RangeDescriptor::LENGTH)),
        None => Ok(ranges),
    }
}

/// ROD token descriptors, as they follow the shared header in the data of RECEIVE ROD TOKEN INFORMATION. Each has the id of the ROD
/// CSCD descriptor that it was made of.
#[must_use]
pub fn token_descriptors<'a>(tokens: impl IntoIterator<Item = (u16, &'a RodToken)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, token) in tokens {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(token.as_bytes());
    }
    out
}

/// Reads what stands behind the shared header: the length, then ROD token descriptors.
///
/// # Errors
/// Data that is shorter than it says, or no whole descriptors.
pub fn parse_token_descriptors(data: &[u8]) -> Result<Vec<(u16, RodToken)>, WireError> {
    const DESCRIPTOR: usize = 2 + RodToken::LENGTH;
    let wire = |offset, problem| WireError::new("ROD token descriptors", offset, problem);
    let short = |needed| wire(data.len(), Problem::Truncated { needed, available: data.len() });
    let length = u32::from_be_bytes(*data.first_chunk().ok_or_else(|| short(4))?) as usize;
    let list = data[4..].get(..length).ok_or_else(|| short(length.saturating_add(4)))?;
    let (whole, []) = list.as_chunks::<DESCRIPTOR>() else {
        return Err(wire(0, Problem::Value { field: "ROD TOKEN DESCRIPTORS LENGTH", value: length as u64 }));
    };
    let read = |(index, descriptor): (usize, &[u8; DESCRIPTOR])| {
        let token = RodToken::parse(descriptor[2..].first_chunk().expect("a descriptor has a token"));
        let token = token.map_err(|_| wire(4 + index * DESCRIPTOR + 2, Problem::Value { field: "ROD TOKEN", value: 0 }))?;
        Ok((u16::from_be_bytes([descriptor[0], descriptor[1]]), token))
    };
    whole.iter().enumerate().map(read).collect()
}

/// Parameter data of REPORT ALL ROD TOKENS. SPC-4, table 278: eight bytes, then ROD management tokens.
#[must_use]
pub fn all_rod_tokens<'a>(tokens: impl IntoIterator<Item = &'a RodToken>) -> Vec<u8> {
    let mut out = vec![0; 8];
    tokens.into_iter().for_each(|token| out.extend_from_slice(token.management()));
    let available = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&available.to_be_bytes());
    out
}
