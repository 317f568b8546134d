//! Source data and destination data: bytes in order, as pieces of buffers that are moved and never copied.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes in order.
#[derive(Debug, Default)]
pub struct Fifo {
    pieces: VecDeque<Piece>,
    len: u64,
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// Lies in a buffer of the pool.
    pooled: bool,
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
        self.push_piece(Piece { bytes, pooled: true });
    }

    /// Appends bytes that lie elsewhere, or that may keep their buffer because it is full of what comes next.
    pub fn push(&mut self, bytes: Bytes) {
        self.push_piece(Piece { bytes, pooled: false });
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
        assert!(count <= self.len, "the caller has looked");
        let mut parts = Vec::with_capacity(2);
        self.drain(count, |piece| parts.push(piece.bytes));
        parts
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
            let len = (piece.bytes.len() as u64).min(*left);
            *left -= len;
            (len > 0).then(|| &piece.bytes[..len as usize])
        })
    }

    /// Drops all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Copies what lies in buffers of the pool, so that residue keeps none of them.
    pub fn unpin(&mut self) {
        for piece in self.pieces.iter_mut().filter(|piece| piece.pooled) {
            *piece = Piece { bytes: Bytes::copy_from_slice(&piece.bytes), pooled: false };
        }
    }

    fn push_piece(&mut self, piece: Piece) {
        if !piece.bytes.is_empty() {
            self.len += piece.bytes.len() as u64;
            self.pieces.push_back(piece);
        }
    }

    fn drain(&mut self, mut count: u64, mut take: impl FnMut(Piece)) {
        self.len -= count;
        while count > 0 {
            let front = self.pieces.front_mut().expect("`len` counts the pieces");
            if front.bytes.len() as u64 <= count {
                count -= front.bytes.len() as u64;
                take(self.pieces.pop_front().expect("there is a front"));
            } else {
                take(Piece { bytes: front.bytes.split_to(count as usize), pooled: front.pooled });
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
        to.unpin();
        assert_eq!((from.len(), to.len()), (2, 7));
        assert_eq!(to.take(7).concat(), b"abcde\0\0");
        assert_eq!(from.front(1).collect::<Vec<_>>().concat(), b"f");
        assert_eq!(from.drop_front(9), 2);
        assert!(from.is_empty());
    }
}
