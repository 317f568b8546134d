//! The memory of all sessions together: what each holds of its initiator's data, and what happens when it is too much.
//!
//! Counted is what a session holds for commands: receive buffers with the Data-Out in them, Data-Out that it has asked for, Data-In
//! that running commands may come to, replies that the socket has not taken, and what may have to be sent again. While all of it is
//! above the limit, every session goes on with one command that reads and one that writes at a time: no data is asked for and none is
//! read for the others, which wait; no receive buffer is kept to be used again; and the CmdSN window moves on by one command, since
//! each may bring data that nobody asked for. So every session comes forward with what it holds itself, nobody waits for another, and
//! nothing is dropped. What is held beyond the limit is at most one such pair of commands for each session, and what comes unasked
//! with the commands that the window had let in before ([`super::most_held_by_session`] has the sum).
//!
//! Does not count buffers of sockets and of file systems, nor copies: movers are processes of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::control::SessionMemory;

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    limit: u64,
    held: AtomicU64,
    most: AtomicU64,
}

/// What one session holds; given back when it ends.
#[derive(Debug)]
pub(super) struct Share {
    memory: Arc<Memory>,
    held: u64,
}

impl Memory {
    /// With a limit in bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0), most: AtomicU64::new(0) })
    }

    /// As it is now.
    pub fn status(&self) -> SessionMemory {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        SessionMemory { limit: self.limit, held: read(&self.held), most: read(&self.most) }
    }
}

impl Share {
    /// Of a session that holds nothing yet.
    pub const fn of(memory: Arc<Memory>) -> Self {
        Self { memory, held: 0 }
    }

    /// The session holds so many bytes now.
    pub fn set(&mut self, held: u64) {
        if held > self.held {
            let all = self.memory.held.fetch_add(held - self.held, Ordering::Relaxed) + held - self.held;
            self.memory.most.fetch_max(all, Ordering::Relaxed);
        } else if held < self.held {
            self.memory.held.fetch_sub(self.held - held, Ordering::Relaxed);
        }
        self.held = held;
    }

    /// Bytes that a session may ask for at once: others look at the same time.
    pub fn part_of_what_is_left(&self) -> u64 {
        self.memory.limit.saturating_sub(self.memory.held.load(Ordering::Relaxed)) / 4
    }

    /// True when `more` bytes are more than there is room for.
    pub fn is_short_of(&self, more: u64) -> bool {
        self.memory.held.load(Ordering::Relaxed).saturating_add(more) > self.memory.limit
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sessions_hold_is_summed_and_given_back() {
        let memory = Memory::new(100);
        let (mut one, mut other) = (Share::of(Arc::clone(&memory)), Share::of(Arc::clone(&memory)));
        one.set(60);
        other.set(30);
        assert!(!one.is_short_of(10) && other.is_short_of(11));
        assert_eq!(one.part_of_what_is_left(), 2);
        one.set(5);
        assert_eq!(memory.status(), SessionMemory { limit: 100, held: 35, most: 90 });
        drop(other);
        assert_eq!(memory.status().held, 5);
    }
}
