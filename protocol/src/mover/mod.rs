//! What the target and its movers say to each other, and the table both look at.
//!
//! Messages only: how they are sent is each side's own. Own protocol, one stream socket a mover: [`frame`] cuts it into
//! messages, open files travel beside them as SCM_RIGHTS, and both begin with `Hello` of one [`VERSION`].
//!
//! ```text
//! target                                            mover
//!   Hello ─────────────────────────────────────────▶
//!   ◀───────────────────────────────────────── Hello
//!   Job (ends, steps; files beside it) ────────────▶   several jobs may run at once
//!   ◀───────────────────────────────── Ask(Grant …)    before bytes of a local disk change
//!   Answer(Granted) ───────────────────────────────▶
//!   ◀─────────────── Tape, GiveBack, Progress, Held
//!   Throttle ──────────────────────────────────────▶
//!   Ping ──────────────────────────────────────────▶   when the mover has been silent
//!   ◀────────────────────────────────────────── Pong
//!   Cancel ────────────────────────────────────────▶
//!   ◀────────────────────────────────────────── Done   nothing of the job moves any more
//! ```
//!
//! A mover that ends without `Done` may have written anything inside its grants; they end when its *process* has.

pub mod attach;
pub mod ends;
pub mod frame;
pub mod job;
pub mod message;
pub mod remote;
pub mod sealed;
pub mod table;

pub use job::{Action, CopyJob, Destination, EndIndex, Move, Source, SpaceOver, Step, Transfer};
pub use message::{Answer, ByMethod, Fault, FaultKind, FromMover, JobId, Outcome, Question, ToMover};

pub use remote::{RemoteEnd, RemoteSense, RemoteTarget, RemoteUnit, Way};

/// Version of the messages. Both sides are built from one tree; another version is another build, and refused.
pub const VERSION: u32 = 7;

/// A mover is granted no more bytes of a disk at once.
pub const MAX_GRANT: u64 = 64 << 20;

/// The system lets no more files travel beside one message (SCM_MAX_FD of Linux).
pub const MAX_FILES: usize = 253;
