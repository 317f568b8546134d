//! Objects of one tape that are placed and not yet published: what of them is still to be written, and what to report of them.
//!
//! Writes nothing itself. Data that lies in the image by reference is left out of what is written; its frame is not.

use bytes::Bytes;
use protocol::cartridge::append::Placement;
use protocol::cartridge::index::SumState;
use protocol::cartridge::report::Appended;
use protocol::cartridge::sums::RecordSum;
use protocol::mover::{ByMethod, EndIndex};

/// What a segment was to write, and what of it is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Its number.
    pub segment: u32,
    /// Bytes it writes when nothing fails.
    pub expected: u64,
    /// Bytes of them that were published.
    pub written: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Batch {
    /// The tape; none while there is nothing.
    pub end: Option<EndIndex>,
    /// Byte of the image at which `parts` begin.
    at: u64,
    /// What is not written yet, in one stretch.
    parts: Vec<Bytes>,
    /// Bytes of `parts`.
    pub unwritten: u64,
    /// Bytes that were written, or are to be.
    pub bytes: u64,
    /// What is to be reported.
    pub appended: Vec<Appended>,
    /// Data of the current segment's write commands, that counts as written once the batch is published.
    pub data: ByMethod,
    /// The first of the earlier segments that have a part in the batch, and the data of all of them.
    pub earlier: Option<(Account, ByMethod)>,
}

impl Batch {
    /// Takes an object whose data is written.
    pub fn add(&mut self, end: EndIndex, placement: &Placement, data: Vec<Bytes>, sum: RecordSum) {
        self.begin(end, placement);
        data.into_iter().for_each(|part| self.push(part));
        self.push(Bytes::copy_from_slice(placement.tail()));
        self.report(placement, SumState::Known, sum);
    }

    /// Takes what stands in front of an object's data.
    pub fn begin(&mut self, end: EndIndex, placement: &Placement) {
        // Here and not where an append begins: a long one is flushed in its midst, and what follows must be seen as well.
        self.end = Some(end);
        if self.parts.is_empty() {
            self.at = placement.write_at();
        }
        self.push(Bytes::from(placement.head()));
    }

    /// The data of the object that was begun lies in the image by reference, and all in front of it is written.
    pub fn add_referred(&mut self, placement: &Placement) {
        debug_assert!(self.parts.is_empty(), "what is behind the data is no one stretch with what is in front of it");
        self.at = placement.data_at() + u64::from(placement.length);
        self.push(Bytes::copy_from_slice(placement.tail()));
        self.report(placement, SumState::Absent, RecordSum::default());
    }

    /// Another segment begins.
    pub fn end_segment(&mut self, account: Account) {
        // Filemarks have no data, and are their segment's all the same.
        if !self.appended.is_empty() {
            let (_, data) = self.earlier.get_or_insert_with(|| (account, ByMethod::default()));
            *data += std::mem::take(&mut self.data);
        }
    }

    /// Takes out what is to be written, and where.
    pub fn take_parts(&mut self) -> (u64, Vec<Bytes>) {
        self.unwritten = 0;
        (self.at, std::mem::take(&mut self.parts))
    }

    /// Parts that are to be written.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    fn report(&mut self, placement: &Placement, sum_state: SumState, sum: RecordSum) {
        let Placement { at, gap, kind, length, .. } = *placement;
        self.appended.push(Appended { at, gap, kind, length, sum_state, sum });
    }

    fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.unwritten += part.len() as u64;
            self.bytes += part.len() as u64;
            self.parts.push(part);
        }
    }
}
