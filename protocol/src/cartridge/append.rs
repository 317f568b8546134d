//! Where appended objects go, and the order of writes that makes them appear whole or not at all.
//!
//! The committed end of an image always holds the end word. Everything new is written *behind* that word, a new end word last;
//! then one write of four bytes, the first object's own word over the old end word, publishes all of it. A crash at any byte
//! leaves the old end word, a torn one (which reads as an end, see [`super::frame`]), or everything.
//!
//! ```text
//! committed:   … record | END
//! placed:      … record | END  data len | len data len | 0 | END      first word still says END
//! published:   … record | len  data len | len data len | 0 | END
//! ```
//!
//! Does not write: it gives positions and bytes. Objects that are placed but not published may be written in any order and by
//! several writers, as long as all of them are done before the publishing write begins.
//!
//! One stretch may so be filled by several appenders that only fill ([`Appender::filling`]): each leaves the first word of its part to
//! whoever publishes the parts in their order, and writes no end word, which is where the next part's first word belongs.
//!
//! Where the [`super::layout`] puts a gap in front of an object, the gap's first word publishes it. Data that lies there already, by
//! reference, is only framed.
//!
//! Own format rule on top of SIMH's.

use super::frame::{self, END_OF_MEDIUM, FILEMARK, WORD};
use super::layout::{Layout, gap_bytes};
use super::{MAX_RECORD_LENGTH, ObjectKind, TapePosition, envelope};

/// What a medium has room for, in bytes of the image, and how that is laid out. SSC-4, "Early-warning".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The image, end word included, may not grow past this byte.
    pub capacity: u64,
    /// From this byte on, writes report early warning.
    pub early_warning: u64,
    /// Where the data of records lies.
    pub layout: Layout,
}

/// Why an object cannot be placed. Nothing was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// End of partition.
    #[error("{needed} bytes do not fit into the {left} that are left on the medium")]
    NoRoom {
        /// Bytes the object and the end word behind it take.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// No record has this length.
    #[error("a record has 1 to {MAX_RECORD_LENGTH} bytes, not {length}")]
    Length {
        /// As asked.
        length: u64,
    },
}

/// One object's place, and the bytes to write around its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Where the object begins.
    pub at: TapePosition,
    /// Bytes of erase gap between there and its first word.
    pub gap: u32,
    /// What it is.
    pub kind: ObjectKind,
    /// Data bytes; 0 for a filemark.
    pub length: u32,
    /// The medium's early-warning point lies before the object's end.
    pub early_warning: bool,
    word: [u8; 4],
    behind_commit_word: bool,
    /// A byte of padding, of use for odd lengths only, and the closing word.
    tail: [u8; 5],
}

impl Placement {
    /// Byte of the image at which [`Placement::head`], the data and [`Placement::tail`] are written, in this order.
    #[must_use]
    pub const fn write_at(&self) -> u64 {
        if self.behind_commit_word { self.at.offset + WORD } else { self.at.offset }
    }

    /// The gap and the object's own word; without the first word of them behind the commit word: that is the publishing write.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        let written = if self.behind_commit_word { WORD as usize } else { 0 };
        [gap_bytes(self.gap), &self.word].concat().split_off(written)
    }

    /// Byte of the image at which the data begins.
    #[must_use]
    pub const fn data_at(&self) -> u64 {
        self.at.offset + self.gap as u64 + WORD
    }

    /// Padding and closing word; empty for a filemark.
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        match self.kind {
            ObjectKind::Record => &self.tail[1 - frame::padding(self.length) as usize..],
            ObjectKind::Filemark => &[],
        }
    }

    /// Where the next object begins.
    #[must_use]
    pub const fn next(&self) -> TapePosition {
        self.at.behind_gap(self.gap).after(self.kind, self.length)
    }
}

/// What has to be done, in this order, each step finished before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write a word of the image.
    Write {
        /// Byte of the image.
        at: u64,
        /// The word.
        word: [u8; 4],
    },
    /// fdatasync of the image.
    Sync,
}

/// What a commit has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process that wrote: the state between sync points.
    Process,
    /// The loss of power: a sync point.
    Power,
}

/// Places objects at the end of an image.
#[derive(Debug, Clone)]
pub struct Appender {
    limits: Limits,
    committed: TapePosition,
    end: TapePosition,
    /// The word that publishes what lies between `committed` and `end`.
    publish: Option<[u8; 4]>,
    /// Byte of the commit word that is another's to write: nothing is published here.
    fills: Option<u64>,
}

impl Appender {
    /// Starts at a committed end, where the image holds the end word.
    #[must_use]
    pub const fn new(committed: TapePosition, limits: Limits) -> Self {
        Self { limits, committed, end: committed, publish: None, fills: None }
    }

    /// Starts somewhere behind the committed end, to fill a stretch that another publishes: its commits have no steps and say only what
    /// is written.
    #[must_use]
    pub const fn filling(at: TapePosition, limits: Limits) -> Self {
        Self { limits, committed: at, end: at, publish: None, fills: Some(at.offset) }
    }

    /// Behind the last published object, or the last that is filled.
    #[must_use]
    pub const fn committed(&self) -> TapePosition {
        self.committed
    }

    /// Behind the last placed object, published or not.
    #[must_use]
    pub const fn end(&self) -> TapePosition {
        self.end
    }

    /// True from the early-warning point on.
    #[must_use]
    pub const fn early_warning(&self) -> bool {
        self.end.offset >= self.limits.early_warning
    }

    /// Places a record of `length` data bytes.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is placed.
    pub fn record(&mut self, length: u64) -> Result<Placement, AppendError> {
        let length = u32::try_from(length)
            .ok()
            .filter(|length| (1..=MAX_RECORD_LENGTH).contains(length))
            .ok_or(AppendError::Length { length })?;
        self.place(ObjectKind::Record, length, frame::record_word(length))
    }

    /// Places a record in an [`super::envelope`] of `length` bytes.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is placed.
    pub fn wrapped(&mut self, length: u64) -> Result<Placement, AppendError> {
        let fits = u32::try_from(length).ok().filter(|length| (1..=envelope::MAX_LENGTH).contains(length));
        let length = fits.ok_or(AppendError::Length { length })?;
        self.place(ObjectKind::Record, length, frame::wrapped_word(length))
    }

    /// Places a filemark.
    ///
    /// # Errors
    /// [`AppendError::NoRoom`]; nothing is placed.
    pub fn filemark(&mut self) -> Result<Placement, AppendError> {
        self.place(ObjectKind::Filemark, 0, FILEMARK.to_le_bytes())
    }

    /// The steps after which all that was placed counts. Everything placed must have been written before the first of them.
    #[must_use]
    pub fn commit(&mut self, durability: Durability) -> Vec<Step> {
        if self.fills.is_some() {
            self.committed = self.end;
            return Vec::new();
        }
        let mut steps = Vec::with_capacity(4);
        if let Some(word) = self.publish.take() {
            steps.push(Step::Write { at: self.end.offset, word: END_OF_MEDIUM.to_le_bytes() });
            if durability == Durability::Power {
                steps.push(Step::Sync);
            }
            steps.push(Step::Write { at: self.committed.offset, word });
            self.committed = self.end;
        }
        if durability == Durability::Power {
            steps.push(Step::Sync);
        }
        steps
    }

    /// Forgets what was placed and not committed, after a write of it failed.
    pub fn abandon(&mut self) {
        self.end = self.committed;
        self.publish = None;
    }

    fn place(&mut self, kind: ObjectKind, length: u32, word: [u8; 4]) -> Result<Placement, AppendError> {
        let at = self.end;
        let gap = self.limits.layout.gap(at.offset, length);
        let next = at.behind_gap(gap).after(kind, length);
        let needed = next.offset + WORD - at.offset;
        let left = self.limits.capacity.saturating_sub(at.offset);
        if needed > left {
            return Err(AppendError::NoRoom { needed, left });
        }
        let behind_commit_word = at.offset == self.fills.unwrap_or(self.committed.offset);
        let first = gap_bytes(gap).first_chunk().copied().unwrap_or(word);
        self.publish.get_or_insert(first);
        self.end = next;
        let mut tail = [0; 5];
        tail[1..].copy_from_slice(&word);
        Ok(Placement { at, gap, kind, length, early_warning: self.early_warning(), word, behind_commit_word, tail })
    }
}

#[cfg(test)]
mod tests;
