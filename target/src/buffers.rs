//! Memory for Data-In, used again and again.
//!
//! A fresh buffer of many pages costs more than filling it: the kernel hands every page out zeroed, and one by one. So blocks that
//! have been sent are kept, and the one last given back, which the processor's cache still holds, is taken first.
//!
//! Not for small pieces, which any allocator keeps well, and not for what is received: that lies where the socket put it.

use std::io;
use std::sync::Mutex;

use bytes::Bytes;

/// A longer piece is made of several blocks, in bytes. Also what a reader of many bytes asks a store for at a time.
pub const BLOCK: usize = 256 * 1024;
/// Pieces up to here have blocks of their own size, so that they do not hold many times their length, in bytes.
const SMALL_BLOCK: usize = 64 * 1024;
/// Up to here the allocator is as good, in bytes.
const TINY: usize = 8 * 1024;
/// Bytes kept for use of each size; what is given back beyond is freed.
const KEPT: usize = 16 * 1024 * 1024;

static BLOCKS: Shelf = Shelf::new(BLOCK);
static SMALL_BLOCKS: Shelf = Shelf::new(SMALL_BLOCK);

/// Blocks of one size, the last one given back on top.
struct Shelf {
    size: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

impl Shelf {
    const fn new(size: usize) -> Self {
        Self { size, free: Mutex::new(Vec::new()) }
    }

    fn take(&'static self) -> Block {
        let free = self.free.lock().expect("no holder panics").pop();
        Block { memory: free.unwrap_or_else(|| vec![0; self.size].into()), shelf: self }
    }

    fn give_back(&self, memory: Box<[u8]>) {
        let mut free = self.free.lock().expect("no holder panics");
        if free.len() < KEPT / self.size {
            free.push(memory);
        }
    }
}

/// A block on loan.
struct Block {
    memory: Box<[u8]>,
    shelf: &'static Shelf,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.shelf.give_back(std::mem::take(&mut self.memory));
    }
}

/// `len` bytes, in pieces of [`BLOCK`] bytes but for the last, each filled by `fill`, which is told how far into the whole it is.
/// `None` as soon as `fill` says that it could not.
///
/// # Errors
/// Those of `fill`, which has to fill what it is given when it says so: there is something old in it.
pub fn filled(len: usize, mut fill: impl FnMut(usize, &mut [u8]) -> io::Result<bool>) -> io::Result<Option<Vec<Bytes>>> {
    let mut pieces = Vec::with_capacity(len.div_ceil(BLOCK));
    for at in (0..len).step_by(BLOCK) {
        let size = BLOCK.min(len - at);
        if size <= TINY {
            let mut piece = vec![0; size];
            if !fill(at, &mut piece)? {
                return Ok(None);
            }
            pieces.push(piece.into());
            continue;
        }
        let mut block = if size <= SMALL_BLOCK { SMALL_BLOCKS.take() } else { BLOCKS.take() };
        if !fill(at, &mut block.memory[..size])? {
            return Ok(None);
        }
        pieces.push(Bytes::from_owner(block).slice(..size));
    }
    Ok(Some(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_whole_and_blocks_come_again() {
        let number = |at: usize| (at % 251) as u8;
        for len in [0, 1, TINY, TINY + 1, SMALL_BLOCK, SMALL_BLOCK + 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let fill = |at: usize, into: &mut [u8]| {
                into.iter_mut().zip(at..).for_each(|(byte, at)| *byte = number(at));
                Ok(true)
            };
            let pieces = filled(len, fill).unwrap().unwrap();
            assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() == BLOCK));
            assert!(pieces.concat().into_iter().eq((0..len).map(number)), "{len}");
        }
    }

    #[test]
    fn what_cannot_be_filled_is_given_back() {
        let mut asked = 0;
        let refused = filled(4 * BLOCK, |at, _| {
            asked += 1;
            Ok(at < BLOCK)
        });
        assert!(refused.unwrap().is_none());
        assert_eq!(asked, 2);
        assert!(filled(BLOCK, |_, _| Err(io::ErrorKind::Other.into())).is_err());
    }

    #[test]
    fn no_more_is_kept_than_promised() {
        let whole = filled(4 * KEPT, |_, _| Ok(true)).unwrap().unwrap();
        drop(whole);
        assert!(BLOCKS.free.lock().unwrap().len() * BLOCK <= KEPT);
    }
}
