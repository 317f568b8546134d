//! What a copy holds for the application client: the last bytes of what its segments 0Bh to 0Fh have processed.
//!
//! Follows SPC-4, "Held data": what comes to be too much is discarded from the oldest on.

use std::collections::VecDeque;

use protocol::xcopy::HELD_DATA_LIMIT;

/// See the module.
#[derive(Debug, Default)]
pub struct Held {
    data: VecDeque<u8>,
    discarded: bool,
}

impl Held {
    /// Adds what comes next.
    pub fn keep(&mut self, piece: &[u8]) {
        let tail = &piece[piece.len().saturating_sub(HELD_DATA_LIMIT)..];
        let surplus = (self.data.len() + tail.len()).saturating_sub(HELD_DATA_LIMIT);
        self.discarded |= surplus > 0 || tail.len() < piece.len();
        self.data.drain(..surplus);
        self.data.extend(tail);
    }

    /// What is left of it, and whether there was more.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, bool) {
        (self.data.into(), self.discarded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_bytes_stay(pieces in prop::collection::vec((0..3 * HELD_DATA_LIMIT / 2, any::<u8>()), 0..8)) {
            let (mut held, mut all) = (Held::default(), Vec::new());
            for (len, byte) in pieces {
                let piece: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_add(byte)).collect();
                held.keep(&piece);
                all.extend(piece);
            }
            let (data, discarded) = held.into_parts();
            prop_assert_eq!(discarded, all.len() > HELD_DATA_LIMIT);
            prop_assert_eq!(&data[..], &all[all.len().saturating_sub(HELD_DATA_LIMIT)..]);
        }
    }
}
