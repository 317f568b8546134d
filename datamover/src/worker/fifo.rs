//! Source data and destination data: bytes in order, as pieces of buffers that are moved and never copied.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use protocol::mover::EndIndex;

/// Bytes in order.
#[derive(Debug, Default)]
pub struct Fifo {
    pieces: VecDeque<Piece>,
    len: u64,
}

/// Bytes that lie one behind the other.
#[derive(Debug, Clone)]
pub struct Piece {
    /// What they are a part of: neighbours in one buffer become one piece again.
    whole: Bytes,
    range: Range<usize>,
    /// Where they lie in a file too.
    pub place: Option<Place>,
    /// Lies in a buffer of the pool.
    pooled: bool,
}

/// A byte of a file that another file may share blocks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The end that has the file.
    pub end: EndIndex,
    /// Byte of the file.
    pub at: u64,
}

impl Piece {
    fn new(whole: Bytes, place: Option<Place>, pooled: bool) -> Self {
        Self { range: 0..whole.len(), whole, place, pooled }
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.range.len() == self.whole.len() { self.whole } else { self.whole.slice(self.range) }
    }

    fn as_slice(&self) -> &[u8] {
        &self.whole[self.range.clone()]
    }

    const fn len(&self) -> u64 {
        (self.range.end - self.range.start) as u64
    }

    fn split_to(&mut self, count: usize) -> Self {
        let middle = self.range.start + count;
        let front = Self { range: self.range.start..middle, ..self.clone() };
        self.range.start = middle;
        self.place = self.place.map(|place| Place { at: place.at + count as u64, ..place });
        front
    }

    /// Whether `next` lies right behind it in the same buffer, and nothing is known of either but its bytes.
    fn goes_on_with(&self, next: &Self) -> bool {
        let same = self.whole.as_ptr_range() == next.whole.as_ptr_range() && self.pooled == next.pooled;
        same && self.range.end == next.range.start && self.place.is_none() && next.place.is_none()
    }
}

impl From<Vec<Bytes>> for Fifo {
    fn from(parts: Vec<Bytes>) -> Self {
        let mut fifo = Self::default();
        parts.into_iter().for_each(|part| fifo.push(part));
        fifo
    }
}

impl Fifo {
    /// Bytes in it.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// No bytes in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes that lie in a buffer of the pool.
    pub fn push_pooled(&mut self, bytes: Bytes) {
        self.push_placed(bytes, None);
    }

    /// As [`Fifo::push_pooled`] for bytes that lie in a file too.
    pub fn push_placed(&mut self, bytes: Bytes, place: Option<Place>) {
        self.push_piece(Piece::new(bytes, place, true));
    }

    /// Appends bytes that lie elsewhere, or that may keep their buffer because it is full of what comes next.
    pub fn push(&mut self, bytes: Bytes) {
        self.push_piece(Piece::new(bytes, None, false));
    }

    /// As [`Fifo::push`] for a part of a buffer.
    pub fn push_part(&mut self, whole: Bytes, range: Range<usize>) {
        self.push_piece(Piece { whole, range, place: None, pooled: false });
    }

    /// Appends zeros.
    pub fn push_zeros(&mut self, mut count: u64) {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        while count > 0 {
            let part = count.min(ZEROS.len() as u64);
            self.push(Bytes::from_static(&ZEROS[..part as usize]));
            count -= part;
        }
    }

    /// Moves up to `count` bytes from the front to the end of another; gives how many.
    pub fn move_to(&mut self, count: u64, other: &mut Self) -> u64 {
        let count = count.min(self.len);
        self.drain(count, |piece| other.push_piece(piece));
        count
    }

    /// Takes exactly `count` bytes from the front, which are there.
    #[must_use]
    pub fn take(&mut self, count: u64) -> Vec<Bytes> {
        self.take_pieces(count).into_iter().map(Piece::into_bytes).collect()
    }

    /// As [`Fifo::take`], with where they lie.
    #[must_use]
    pub fn take_pieces(&mut self, count: u64) -> Vec<Piece> {
        assert!(count <= self.len, "the caller has looked");
        let mut pieces = Vec::with_capacity(2);
        self.drain(count, |piece| pieces.push(piece));
        pieces
    }

    /// Takes exactly `count` bytes from the front as another.
    #[must_use]
    pub fn split_to(&mut self, count: u64) -> Self {
        let mut front = Self::default();
        assert_eq!(self.move_to(count, &mut front), count, "the caller has looked");
        front
    }

    /// Drops up to `count` bytes from the front; gives how many.
    pub fn drop_front(&mut self, count: u64) -> u64 {
        let count = count.min(self.len);
        self.drain(count, drop);
        count
    }

    /// The first `count` bytes, or all, piece by piece.
    pub fn front(&self, count: u64) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().scan(count, |left, piece| {
            let len = piece.len().min(*left);
            *left -= len;
            (len > 0).then(|| &piece.as_slice()[..len as usize])
        })
    }

    /// Drops all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Copies what lies in buffers of the pool, so that residue keeps none of them, and forgets where else it lies: a later segment
    /// may write there. Gives the bytes that were copied.
    pub fn unpin(&mut self) -> u64 {
        let mut copied = 0;
        for piece in self.pieces.iter_mut().filter(|piece| piece.pooled) {
            copied += piece.len();
            *piece = Piece::new(Bytes::copy_from_slice(piece.as_slice()), None, false);
        }
        copied
    }

    fn push_piece(&mut self, piece: Piece) {
        if piece.range.is_empty() {
            return;
        }
        self.len += piece.len();
        match self.pieces.back_mut().filter(|last| last.goes_on_with(&piece)) {
            Some(last) => last.range.end = piece.range.end,
            None => self.pieces.push_back(piece),
        }
    }

    fn drain(&mut self, mut count: u64, mut take: impl FnMut(Piece)) {
        self.len -= count;
        while count > 0 {
            let front = self.pieces.front_mut().expect("`len` counts the pieces");
            if front.len() <= count {
                count -= front.len();
                take(self.pieces.pop_front().expect("there is a front"));
            } else {
                take(front.split_to(count as usize));
                count = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order_through_moves_and_splits() {
        let (mut from, mut to) = (Fifo::default(), Fifo::default());
        from.push_pooled(Bytes::from_static(b"abcd"));
        from.push(Bytes::from_static(b"efg"));
        assert_eq!(from.move_to(5, &mut to), 5);
        to.push_zeros(2);
        assert_eq!((to.unpin(), to.unpin()), (4, 0));
        assert_eq!((from.len(), to.len()), (2, 7));
        assert_eq!(to.take(7).concat(), b"abcde\0\0");
        assert_eq!(from.front(1).collect::<Vec<_>>().concat(), b"f");
        assert_eq!(from.drop_front(9), 2);
        assert!(from.is_empty());
    }

    #[test]
    fn neighbours_in_one_buffer_are_one_piece_and_others_are_not() {
        let (whole, other) = (Bytes::copy_from_slice(b"abcdef"), Bytes::copy_from_slice(b"abcdef"));
        let (mut from, mut to) = (Fifo::default(), Fifo::default());
        for (buffer, range) in [(&whole, 0..2), (&whole, 2..3), (&whole, 4..5), (&other, 5..6), (&whole, 5..6)] {
            from.push_part(buffer.clone(), range);
            from.move_to(9, &mut to);
        }
        assert_eq!(to.take(6), [&b"abc"[..], b"e", b"f", b"f"]);
    }

    #[test]
    fn residue_is_no_longer_known_to_lie_in_a_file() {
        let mut fifo = Fifo::default();
        fifo.push_placed(Bytes::from_static(b"abcd"), Some(Place { end: EndIndex(1), at: 100 }));
        assert_eq!(fifo.unpin(), 4);
        assert!(fifo.take_pieces(4).iter().all(|piece| piece.place.is_none()));
    }

    #[test]
    fn what_is_left_of_bytes_in_a_file_lies_further_on() {
        let mut fifo = Fifo::default();
        let place = |at| Some(Place { end: EndIndex(1), at });
        fifo.push_placed(Bytes::from_static(b"abcd"), place(100));
        let mut front = fifo.split_to(3);
        let places = |fifo: &mut Fifo, count| fifo.take_pieces(count).iter().map(|piece| piece.place).collect::<Vec<_>>();
        assert_eq!(
            (places(&mut front, 1), places(&mut front, 2), places(&mut fifo, 1)),
            (vec![place(100)], vec![place(101)], vec![place(103)])
        );
    }
}
