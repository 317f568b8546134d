//! How a command's data is cut into PDUs and put together again.
//!
//! Both sides agree on DataPDUInOrder=Yes and DataSequenceInOrder=Yes, so all data of a command comes in order and gathering
//! is appending. RFC 7143 (4.2.5), (11.7), (11.8).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::super::Parameters;
use super::super::bhs::NO_TAG;

/// A piece shorter than this is copied while its command waits for more: a slice would keep a whole receive buffer alive.
const COPY_BELOW: usize = 16 * 1024;
/// Bytes that are worth to be taken while a command waits for more.
const WORTH_TAKING: u32 = 64 * 1024;

/// What is wrong with Data-Out, in the terms of the sense data that RFC 7143 (11.4.7.2) asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataOutError {
    /// Unsolicited data where none was allowed, or more than allowed.
    UnexpectedUnsolicited,
    /// A sequence ended before its data was complete, or went on behind it.
    IncorrectAmount,
    /// DataSN or Buffer Offset out of order: something was lost on the way.
    Sequence,
}

/// An R2T whose data is not complete.
#[derive(Debug, Clone, Copy)]
struct OpenR2t {
    target_transfer_tag: u32,
    r2t_sn: u32,
    offset: u32,
    length: u32,
    received: u32,
    next_data_sn: u32,
}

/// An R2T to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewR2t {
    pub target_transfer_tag: u32,
    pub r2t_sn: u32,
    pub offset: u32,
    pub length: u32,
}

/// Data-Out of one command on its way in.
#[derive(Debug)]
pub(super) struct Gathering {
    parts: Vec<Bytes>,
    /// Short pieces behind the parts, in one place: each on its own would cost many times its length.
    short: BytesMut,
    received: u32,
    /// Of those, what was handed on.
    taken: u32,
    /// Of those, what was there when it was last said that some is.
    told: u32,
    expected: u32,
    /// Unsolicited Data-Out may still come up to this offset.
    unsolicited_until: Option<u32>,
    unsolicited_data_sn: u32,
    open: VecDeque<OpenR2t>,
    asked: u32,
    next_r2t_sn: u32,
    /// Sequences in which something was lost, or that follow one: by transfer tag, [`NO_TAG`] for the unsolicited one. Their data
    /// is let pass up to its end, and asked for again from where it is whole.
    void: Vec<u32>,
}

impl Gathering {
    /// Starts with the immediate data. `is_final` is the command's F bit.
    pub fn new(expected: u32, immediate: Bytes, is_final: bool, parameters: &Parameters) -> Result<Self, DataOutError> {
        let limit = parameters.first_burst_length.min(expected);
        let received = u32::try_from(immediate.len()).map_err(|_| DataOutError::UnexpectedUnsolicited)?;
        if received > 0 && (!parameters.immediate_data || received > limit) {
            return Err(DataOutError::UnexpectedUnsolicited);
        }
        if !is_final && parameters.initial_r2t {
            return Err(DataOutError::UnexpectedUnsolicited);
        }
        let unsolicited_until = (!is_final && received < limit).then_some(limit);
        let mut gathering = Self {
            parts: Vec::new(),
            short: BytesMut::new(),
            received: 0,
            taken: 0,
            told: 0,
            expected,
            unsolicited_until,
            unsolicited_data_sn: 0,
            open: VecDeque::new(),
            asked: received,
            next_r2t_sn: 0,
            void: Vec::new(),
        };
        gathering.append(immediate);
        Ok(gathering)
    }

    pub fn is_complete(&self) -> bool {
        self.received == self.expected
    }

    /// Bytes at the front that were handed on.
    pub const fn taken(&self) -> u32 {
        self.taken
    }

    /// Bytes that have come, and were not handed on.
    pub const fn held(&self) -> u32 {
        self.received - self.taken
    }

    /// True once whenever so much more has come that it is worth to be handed on before the rest.
    pub fn is_worth_taking(&mut self) -> bool {
        let worth = self.received.saturating_sub(self.told.max(self.taken)) >= WORTH_TAKING;
        if worth {
            self.told = self.received;
        }
        worth
    }

    /// Nothing is worth to be taken any more before all has come.
    pub const fn keep_whole(&mut self) {
        self.told = u32::MAX;
    }

    /// True when it was ever said that some is worth to be taken.
    pub const fn was_told(&self) -> bool {
        self.told > 0
    }

    /// Hands on the first `len` bytes of those that are held; all of them where there are fewer.
    pub fn take(&mut self, len: u32) -> Vec<Bytes> {
        self.end_short();
        let mut left = len.min(self.held()) as usize;
        self.taken += left as u32;
        let mut taken = Vec::with_capacity(self.parts.len());
        for mut part in std::mem::take(&mut self.parts) {
            let here = part.split_to(left.min(part.len()));
            left -= here.len();
            if !here.is_empty() {
                taken.push(here);
            }
            self.keep(part);
        }
        taken
    }

    /// Bytes that have to be asked for.
    pub fn to_ask(&self) -> u32 {
        if self.unsolicited_until.is_some() || !self.void.is_empty() { 0 } else { self.expected - self.asked }
    }

    /// R2Ts whose data is not complete.
    pub fn open_r2ts(&self) -> impl Iterator<Item = NewR2t> {
        self.open.iter().map(|r2t| NewR2t {
            target_transfer_tag: r2t.target_transfer_tag,
            r2t_sn: r2t.r2t_sn,
            offset: r2t.offset,
            length: r2t.length,
        })
    }

    /// Data-Out of a sequence was lost. Since data comes in order, all that was asked for behind it is of no use either.
    pub fn lost(&mut self, tag: u32, is_final: bool) {
        if tag == NO_TAG && self.unsolicited_until.take().is_some() {
            self.asked = self.received;
            self.void.push(NO_TAG);
        } else if self.open.iter().any(|r2t| r2t.target_transfer_tag == tag) {
            self.void.extend(self.open.drain(..).map(|r2t| r2t.target_transfer_tag));
            self.asked = self.received;
        }
        self.pass(tag, is_final);
    }

    /// True for data of a sequence of which something was lost.
    fn pass(&mut self, tag: u32, is_final: bool) -> bool {
        let Some(place) = self.void.iter().position(|void| *void == tag) else { return false };
        if is_final {
            self.void.remove(place);
        }
        true
    }

    pub fn into_parts(mut self) -> Vec<Bytes> {
        self.end_short();
        self.parts
    }

    /// Takes Data-Out that nobody asked for.
    pub fn unsolicited(&mut self, data_sn: u32, offset: u32, data: Bytes, is_final: bool) -> Result<(), DataOutError> {
        if self.pass(NO_TAG, is_final) {
            return Ok(());
        }
        let until = self.unsolicited_until.ok_or(DataOutError::UnexpectedUnsolicited)?;
        if data_sn != self.unsolicited_data_sn || offset != self.received {
            return Err(DataOutError::Sequence);
        }
        if data.len() > (until - self.received) as usize {
            return Err(DataOutError::UnexpectedUnsolicited);
        }
        self.unsolicited_data_sn += 1;
        self.append(data);
        if is_final || self.received == until {
            self.unsolicited_until = None;
            self.asked = self.received;
        }
        Ok(())
    }

    /// Takes Data-Out that an R2T asked for.
    pub fn solicited(&mut self, tag: u32, data_sn: u32, offset: u32, data: Bytes, is_final: bool) -> Result<(), DataOutError> {
        if self.pass(tag, is_final) {
            return Ok(());
        }
        let received = self.received;
        let r2t = self.open.front_mut().filter(|r2t| r2t.target_transfer_tag == tag).ok_or(DataOutError::Sequence)?;
        if data_sn != r2t.next_data_sn || offset != received {
            return Err(DataOutError::Sequence);
        }
        if data.len() > (r2t.length - r2t.received) as usize {
            return Err(DataOutError::IncorrectAmount);
        }
        r2t.next_data_sn += 1;
        r2t.received += data.len() as u32;
        if is_final != (r2t.received == r2t.length) {
            return Err(DataOutError::IncorrectAmount);
        }
        if is_final {
            self.open.pop_front();
        }
        self.append(data);
        Ok(())
    }

    fn append(&mut self, data: Bytes) {
        self.received += data.len() as u32;
        self.keep(data);
    }

    fn keep(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.received == self.expected || data.len() >= COPY_BELOW {
            self.end_short();
            self.parts.push(data);
            return;
        }
        self.short.extend_from_slice(&data);
        if self.short.len() >= COPY_BELOW {
            self.end_short();
        }
    }

    fn end_short(&mut self) {
        if !self.short.is_empty() {
            self.parts.push(std::mem::take(&mut self.short).freeze());
        }
    }

    /// The next R2T, while one more may be outstanding. `tag` is used up when one is given.
    pub fn next_r2t(&mut self, tag: u32, parameters: &Parameters) -> Option<NewR2t> {
        let left = self.to_ask();
        if left == 0 || self.open.len() >= parameters.max_outstanding_r2t as usize {
            return None;
        }
        let length = left.min(parameters.max_burst_length);
        let r2t = NewR2t { target_transfer_tag: tag, r2t_sn: self.next_r2t_sn, offset: self.asked, length };
        let NewR2t { r2t_sn, offset, .. } = r2t;
        self.open.push_back(OpenR2t { target_transfer_tag: tag, r2t_sn, offset, length, received: 0, next_data_sn: 0 });
        self.asked += length;
        self.next_r2t_sn += 1;
        Some(r2t)
    }
}

/// One data segment of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub offset: u32,
    pub data: Vec<Bytes>,
    /// Ends its burst.
    pub is_final: bool,
}

/// Cuts `data` into segments of at most `segment` bytes and bursts of at most `burst` bytes, without copying.
pub(super) struct Pieces<'a> {
    parts: &'a [Bytes],
    /// Bytes of the first part that are taken.
    taken: usize,
    offset: u32,
    end: u32,
    burst_end: u32,
    segment: u32,
    burst: u32,
}

impl<'a> Pieces<'a> {
    /// The bytes from `from` to `to` of `parts`.
    pub fn new(parts: &'a [Bytes], from: u32, to: u32, segment: u32, burst: u32) -> Self {
        let mut pieces = Self { parts, taken: 0, offset: from, end: to, burst_end: from, segment, burst };
        pieces.consume(from as usize, |_| ());
        pieces
    }

    fn consume(&mut self, mut count: usize, mut each: impl FnMut(Bytes)) {
        while count > 0
            && let Some((first, rest)) = self.parts.split_first()
        {
            let here = count.min(first.len() - self.taken);
            if here > 0 {
                each(first.slice(self.taken..self.taken + here));
            }
            count -= here;
            self.taken += here;
            if self.taken == first.len() {
                (self.parts, self.taken) = (rest, 0);
            }
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.offset == self.end {
            return None;
        }
        if self.offset == self.burst_end {
            self.burst_end = self.end.min(self.offset.saturating_add(self.burst));
        }
        let offset = self.offset;
        let length = self.segment.min(self.burst_end - offset);
        let mut data = Vec::with_capacity(1);
        self.consume(length as usize, |part| data.push(part));
        self.offset += length;
        Some(Piece { offset, data, is_final: self.offset == self.burst_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::keys::{Negotiator, Sender, Wishes};

    fn parameters(initial_r2t: bool) -> Parameters {
        let defaults = Negotiator::new(Sender::Target, Wishes::default()).parameters();
        Parameters { initial_r2t, first_burst_length: 1000, max_burst_length: 1500, max_outstanding_r2t: 2, ..defaults }
    }

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![1; length])
    }

    #[test]
    fn a_write_goes_on_from_immediate_to_unsolicited_to_r2t() {
        let parameters = parameters(false);
        let mut gathering = Gathering::new(5000, bytes(600), false, &parameters).unwrap();
        assert_eq!(gathering.next_r2t(1, &parameters), None, "unsolicited data is still to come");
        gathering.unsolicited(0, 600, bytes(300), false).unwrap();
        gathering.unsolicited(1, 900, bytes(100), true).unwrap();
        let first = gathering.next_r2t(1, &parameters).unwrap();
        assert_eq!(first, NewR2t { target_transfer_tag: 1, r2t_sn: 0, offset: 1000, length: 1500 });
        assert_eq!(gathering.next_r2t(2, &parameters).unwrap().offset, 2500);
        assert_eq!(gathering.next_r2t(3, &parameters), None, "two are outstanding");
        gathering.solicited(1, 0, 1000, bytes(1000), false).unwrap();
        gathering.solicited(1, 1, 2000, bytes(500), true).unwrap();
        let last = gathering.next_r2t(3, &parameters).unwrap();
        assert_eq!((last.offset, last.length, last.r2t_sn), (4000, 1000, 2));
        gathering.solicited(2, 0, 2500, bytes(1500), true).unwrap();
        gathering.solicited(3, 0, 4000, bytes(1000), true).unwrap();
        assert!(gathering.is_complete());
        assert_eq!(gathering.into_parts().concat(), bytes(5000));
    }

    #[test]
    fn each_broken_rule_of_data_out_is_told_apart() {
        let open = parameters(false);
        assert_eq!(Gathering::new(100, bytes(101), true, &open).unwrap_err(), DataOutError::UnexpectedUnsolicited);
        assert_eq!(Gathering::new(9999, bytes(1001), true, &open).unwrap_err(), DataOutError::UnexpectedUnsolicited);
        assert_eq!(Gathering::new(100, bytes(0), false, &parameters(true)).unwrap_err(), DataOutError::UnexpectedUnsolicited);
        let start = || Gathering::new(3000, bytes(0), false, &open).unwrap();
        assert_eq!(start().unsolicited(1, 0, bytes(10), false), Err(DataOutError::Sequence));
        assert_eq!(start().unsolicited(0, 10, bytes(10), false), Err(DataOutError::Sequence));
        assert_eq!(start().unsolicited(0, 0, bytes(1001), false), Err(DataOutError::UnexpectedUnsolicited));
        let asked = || {
            let mut gathering = Gathering::new(3000, bytes(0), true, &open).unwrap();
            gathering.next_r2t(7, &open).unwrap();
            gathering
        };
        assert_eq!(asked().unsolicited(0, 0, bytes(10), true), Err(DataOutError::UnexpectedUnsolicited));
        assert_eq!(asked().solicited(8, 0, 0, bytes(10), false), Err(DataOutError::Sequence));
        assert_eq!(asked().solicited(7, 0, 0, bytes(10), true), Err(DataOutError::IncorrectAmount));
        assert_eq!(asked().solicited(7, 0, 0, bytes(1501), true), Err(DataOutError::IncorrectAmount));
        assert_eq!(asked().solicited(7, 0, 0, bytes(1500), false), Err(DataOutError::IncorrectAmount));
    }

    #[test]
    fn short_pieces_of_an_unfinished_write_do_not_keep_the_receive_buffer() {
        let buffer = bytes(1000);
        let start = buffer.as_ptr();
        let unfinished = Gathering::new(2000, buffer.slice(..500), true, &parameters(false)).unwrap();
        assert_ne!(unfinished.into_parts()[0].as_ptr(), start);
        let whole = Gathering::new(500, buffer.slice(..500), true, &parameters(false)).unwrap();
        assert_eq!(whole.parts[0].as_ptr(), start);
    }

    #[test]
    fn pieces_of_one_byte_are_kept_together() {
        let data = bytes(40_000);
        let parameters = Parameters { first_burst_length: 40_000, ..parameters(false) };
        let mut gathering = Gathering::new(40_000, Bytes::new(), false, &parameters).unwrap();
        for at in 0..40_000 {
            gathering.unsolicited(at, at, data.slice(at as usize..=at as usize), at == 39_999).unwrap();
        }
        assert!(gathering.is_complete());
        let parts = gathering.into_parts();
        assert!(parts.len() <= 4, "{} parts", parts.len());
        assert_eq!(parts.concat(), data);
    }

    #[test]
    fn what_is_taken_does_not_come_again_and_what_is_left_is_whole() {
        let data: Bytes = (0..200_000u32).map(|at| (at % 251) as u8).collect();
        let parameters = Parameters { first_burst_length: 200_000, ..parameters(false) };
        let mut gathering = Gathering::new(200_000, data.slice(..70_001), false, &parameters).unwrap();
        assert!(gathering.is_worth_taking() && !gathering.is_worth_taking(), "said once");
        let mut taken = gathering.take(69_632).concat();
        assert_eq!((gathering.taken(), gathering.held()), (69_632, 369));
        assert_ne!(gathering.short.as_ptr(), data[69_632..].as_ptr(), "a short rest keeps no receive buffer");
        gathering.unsolicited(0, 70_001, data.slice(70_001..130_000), false).unwrap();
        assert!(!gathering.is_worth_taking(), "a little short of it");
        gathering.unsolicited(1, 130_000, data.slice(130_000..150_000), false).unwrap();
        assert!(gathering.is_worth_taking());
        taken.extend(gathering.take(u32::MAX).concat());
        assert_eq!(gathering.held(), 0);
        // Something is lost: what was taken is not asked for again.
        gathering.lost(NO_TAG, true);
        assert_eq!(gathering.next_r2t(7, &parameters).unwrap().offset, 150_000);
        let mut offset = 150_000;
        let mut tag = 7;
        while !gathering.is_complete() {
            let end = (offset + 1500).min(200_000);
            gathering.solicited(tag, 0, offset, data.slice(offset as usize..end as usize), true).unwrap();
            (offset, tag) = (end, tag + 1);
            let _ = gathering.next_r2t(tag, &Parameters { max_outstanding_r2t: 1, ..parameters });
        }
        taken.extend(gathering.into_parts().concat());
        assert!(taken == data);
    }

    #[test]
    fn pieces_keep_to_segments_and_bursts() {
        let parts = [bytes(700), Bytes::new(), bytes(2300)];
        let pieces: Vec<_> = Pieces::new(&parts, 100, 3000, 1000, 1500).collect();
        let shape: Vec<_> =
            pieces.iter().map(|piece| (piece.offset, piece.data.iter().map(Bytes::len).sum::<usize>(), piece.is_final)).collect();
        assert_eq!(shape, [(100, 1000, false), (1100, 500, true), (1600, 1000, false), (2600, 400, true)]);
        assert_eq!(pieces[0].data.len(), 2, "both parts by reference");
    }
}
