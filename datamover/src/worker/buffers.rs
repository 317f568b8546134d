//! A fixed pool of page-aligned buffers: what bounds a job's memory.
//!
//! Some memory stays with the process for the next job. A buffer is filled by one thread, then shared as [`Bytes`] without a copy; it comes back when the last piece of it is dropped.
//! Nothing waits for itself as long as the engine keeps no pooled piece from segment to segment ([`super::fifo::Fifo::unpin`]).

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

/// Bytes of a buffer: many records, and still small against the processor's second cache.
pub const BUFFER: usize = 1 << 20;
/// What a reader of files prefers, and what page frames have.
const ALIGNMENT: usize = 4096;
/// A waiting reader looks this often whether its job was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Memory of jobs that have ended, for those to come: a small job would take longer to get fresh memory than to use it.
static SPARE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());
/// Buffers kept so: what a job usually has.
const SPARE_MOST: usize = 32;

/// Buffers of one job.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug)]
struct State {
    free: Vec<Box<[u8]>>,
    /// Buffers that may still be made.
    unmade: usize,
}

impl Pool {
    /// At most `buffers` of [`BUFFER`] bytes; they are made when first needed.
    #[must_use]
    pub fn new(buffers: usize) -> Arc<Self> {
        let state = State { free: Vec::with_capacity(buffers), unmade: buffers };
        Arc::new(Self { state: Mutex::new(state), returned: Condvar::new() })
    }

    /// Waits for a free buffer; `None` once `stop` is set.
    #[must_use]
    pub fn take(self: &Arc<Self>, stop: &AtomicBool) -> Option<Buffer> {
        let mut state = self.state.lock().expect("no holder panics");
        while !stop.load(Ordering::Relaxed) {
            if state.has_one() {
                return Some(self.give(state));
            }
            (state, _) = self.returned.wait_timeout(state, LOOK).expect("no holder panics");
        }
        None
    }

    /// A buffer that is free now.
    #[must_use]
    pub fn try_take(self: &Arc<Self>) -> Option<Buffer> {
        let state = self.state.lock().expect("no holder panics");
        state.has_one().then(|| self.give(state))
    }

    fn give(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Buffer {
        let free = state.free.pop();
        state.unmade -= usize::from(free.is_none());
        drop(state);
        let memory = free.or_else(|| SPARE.lock().expect("no holder panics").pop());
        let memory = memory.unwrap_or_else(|| vec![0; BUFFER + ALIGNMENT].into_boxed_slice());
        Buffer::new(memory, Arc::clone(self))
    }
}

impl State {
    const fn has_one(&self) -> bool {
        !self.free.is_empty() || self.unmade > 0
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().expect("no holder panics");
        let free = &mut self.state.get_mut().expect("no holder panics").free;
        let room = SPARE_MOST.saturating_sub(spare.len()).min(free.len());
        spare.extend(free.drain(..room));
    }
}

/// One buffer, owned by who fills it.
#[derive(Debug)]
pub struct Buffer {
    memory: Box<[u8]>,
    aligned: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    fn new(memory: Box<[u8]>, pool: Arc<Pool>) -> Self {
        let aligned = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, aligned, pool }
    }

    /// Gives up the right to fill it. The first `len` bytes are its content.
    #[must_use]
    pub fn freeze(self, len: usize) -> Bytes {
        Bytes::from_owner(self).slice(..len)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.aligned..self.aligned + BUFFER]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.aligned..self.aligned + BUFFER]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.pool.state.lock().expect("no holder panics").free.push(memory);
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_piece_and_is_aligned() {
        let (pool, stop) = (Pool::new(1), AtomicBool::new(false));
        let mut buffer = pool.take(&stop).unwrap();
        assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT), 0);
        buffer[..3].copy_from_slice(b"abc");
        let piece = buffer.freeze(3).slice(1..2);
        let waiter = {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || pool.take(&AtomicBool::new(false)).is_some())
        };
        assert_eq!(&piece[..], b"b");
        drop(piece);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn who_waits_is_woken_by_a_stop() {
        let (pool, stop) = (Pool::new(0), AtomicBool::new(true));
        assert!(pool.take(&stop).is_none());
    }
}
