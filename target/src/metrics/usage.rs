//! What a logical unit has done: commands by kind and status, how long they took, and bytes.
//!
//! Counted where a command is answered, with relaxed additions to one of several rows, so that sessions on several processors do not
//! write to the same cache line. Bounded: no label comes from an initiator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use protocol::scsi::Status;

/// Rows that sessions are spread over.
const SHARDS: usize = 8;

/// Upper bounds of the histogram's buckets, in microseconds.
pub const BUCKETS_US: [u64; 10] = [50, 100, 250, 500, 1_000, 5_000, 25_000, 100_000, 1_000_000, 10_000_000];

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All, and the label of each.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $text),)*];
        }
    };
}

labels! {
    /// Kinds of commands that are told apart.
    Op {
        /// READ of all lengths, of disks and tapes.
        Read "read";
        /// WRITE of all lengths, WRITE AND VERIFY, WRITE FILEMARKS.
        Write "write";
        /// SYNCHRONIZE CACHE.
        Flush "flush";
        /// UNMAP, WRITE SAME.
        Unmap "unmap";
        /// COMPARE AND WRITE, ORWRITE.
        Atomic "atomic";
        /// VERIFY.
        Verify "verify";
        /// Tape motion: REWIND, SPACE, LOCATE; changers: MOVE MEDIUM and its kin.
        Motion "motion";
        /// EXTENDED COPY.
        Copy "copy";
        /// PERSISTENT RESERVE, RESERVE, RELEASE.
        Reserve "reserve";
        /// All others.
        Other "other";
    }
}

labels! {
    /// Statuses that are told apart.
    Outcome {
        /// GOOD, CONDITION MET.
        Good "good";
        /// CHECK CONDITION.
        CheckCondition "check-condition";
        /// RESERVATION CONFLICT.
        ReservationConflict "reservation-conflict";
        /// BUSY, TASK SET FULL.
        Busy "busy";
        /// All others.
        Other "other";
    }
}

impl Op {
    /// The kind of an operation code; those that tapes and changers use for something else are told by `disk`.
    #[must_use]
    pub const fn of(opcode: u8, disk: bool) -> Self {
        match opcode {
            0x08 | 0x28 | 0xA8 | 0x88 => Self::Read,
            0x0A | 0x2A | 0xAA | 0x8A | 0x2E | 0x8E | 0xAE | 0x10 | 0x80 => Self::Write,
            0x35 => Self::Flush,
            0x91 if disk => Self::Flush,
            0x41 | 0x42 | 0x93 => Self::Unmap,
            0x89 | 0x8B => Self::Atomic,
            0x13 | 0x2F | 0x8F | 0xAF => Self::Verify,
            0x01 | 0x11 | 0x2B | 0x91 | 0x92 | 0xA5 | 0xA6 | 0x07 if !disk => Self::Motion,
            0x83 => Self::Copy,
            0x16 | 0x17 | 0x5E | 0x5F => Self::Reserve,
            _ => Self::Other,
        }
    }
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        match status {
            Status::Good | Status::ConditionMet => Self::Good,
            Status::CheckCondition => Self::CheckCondition,
            Status::ReservationConflict => Self::ReservationConflict,
            Status::Busy | Status::TaskSetFull => Self::Busy,
            _ => Self::Other,
        }
    }
}

/// Counters of one logical unit.
#[derive(Debug, Default)]
pub struct Usage {
    shards: [Shard; SHARDS],
}

/// Of some sessions; on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    ops: [OpCounters; Op::ALL.len()],
    data_in: AtomicU64,
    data_out: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct OpCounters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Not summed up; the last is for what took longer.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    nanoseconds: AtomicU64,
}

/// A command that is being counted. One that is dropped, as when it is aborted, was in flight and has no outcome.
#[derive(Debug)]
pub struct Meter {
    usage: Arc<Usage>,
    /// Of the session, so that the counters are spread.
    shard: usize,
    op: Op,
    begun: Instant,
    data_out: u64,
}

impl Meter {
    /// A command of a session begins that brings `data_out` bytes along.
    #[must_use]
    pub fn begin(usage: &Arc<Usage>, session: u64, op: Op, data_out: u64) -> Self {
        let shard = session as usize % SHARDS;
        usage.shards[shard].begun.fetch_add(1, Ordering::Relaxed);
        Self { usage: Arc::clone(usage), shard, op, begun: Instant::now(), data_out }
    }

    /// It has ended, and `data_in` bytes go to the initiator.
    pub fn end(self, status: Status, data_in: u64) {
        let took = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let shard = &self.usage.shards[self.shard];
        let counters = &shard.ops[self.op as usize];
        let bucket = BUCKETS_US.iter().position(|bound| took <= bound * 1_000).unwrap_or(BUCKETS_US.len());
        counters.outcomes[Outcome::from(status) as usize].fetch_add(1, Ordering::Relaxed);
        counters.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        counters.nanoseconds.fetch_add(took, Ordering::Relaxed);
        if data_in > 0 {
            shard.data_in.fetch_add(data_in, Ordering::Relaxed);
        }
        if self.data_out > 0 {
            shard.data_out.fetch_add(self.data_out, Ordering::Relaxed);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.usage.shards[self.shard].ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// [`Usage`] at one moment, all sessions together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    /// By [`Op`] and [`Outcome`].
    pub commands: [[u64; Outcome::ALL.len()]; Op::ALL.len()],
    /// By [`Op`]: commands that took at most [`BUCKETS_US`], each without those before; the last took longer.
    pub buckets: [[u64; BUCKETS_US.len() + 1]; Op::ALL.len()],
    /// By [`Op`].
    pub nanoseconds: [u64; Op::ALL.len()],
    /// Bytes to initiators.
    pub data_in: u64,
    /// Bytes from initiators.
    pub data_out: u64,
    /// Commands that have begun and not ended.
    pub in_flight: u64,
}

impl Usage {
    /// All counters.
    #[must_use]
    pub fn total(&self) -> Total {
        let sum = |of: &dyn Fn(&Shard) -> &AtomicU64| self.shards.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum();
        // Those that ended first: what begins meanwhile is one too many, never one too few.
        let ended: u64 = sum(&|shard| &shard.ended);
        Total {
            in_flight: sum(&|shard| &shard.begun).saturating_sub(ended),
            commands: std::array::from_fn(|op| std::array::from_fn(|outcome| sum(&|shard| &shard.ops[op].outcomes[outcome]))),
            buckets: std::array::from_fn(|op| std::array::from_fn(|bucket| sum(&|shard| &shard.ops[op].buckets[bucket]))),
            nanoseconds: std::array::from_fn(|op| sum(&|shard| &shard.ops[op].nanoseconds)),
            data_in: sum(&|shard| &shard.data_in),
            data_out: sum(&|shard| &shard.data_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sessions_count_apart_is_told_together() {
        let usage = Arc::new(Usage::default());
        for session in 0..20 {
            Meter::begin(&usage, session, Op::Write, 512).end(Status::Good, 0);
            Meter::begin(&usage, session, Op::Read, 0).end(Status::CheckCondition, 100);
        }
        drop(Meter::begin(&usage, 1, Op::Read, 0));
        let running = Meter::begin(&usage, 2, Op::Read, 0);
        let total = usage.total();
        assert_eq!(total.in_flight, 1, "one that is aborted is in flight no more");
        drop(running);
        assert_eq!(usage.total().in_flight, 0);
        assert_eq!(total.commands[Op::Write as usize][Outcome::Good as usize], 20);
        assert_eq!(total.commands[Op::Read as usize][Outcome::CheckCondition as usize], 20);
        assert_eq!(total.buckets[Op::Read as usize].iter().sum::<u64>(), 20);
        assert_eq!((total.data_in, total.data_out), (2_000, 20 * 512));
    }

    #[test]
    fn labels_stand_in_the_order_of_their_numbers() {
        assert!(Op::ALL.iter().enumerate().all(|(at, (op, _))| *op as usize == at));
        assert!(Outcome::ALL.iter().enumerate().all(|(at, (outcome, _))| *outcome as usize == at));
    }
}
