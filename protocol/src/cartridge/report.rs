//! What a mover tells the target about the tape it writes, so that the drive knows its position and its index.
//!
//! A mover appends only behind a committed end that the target has given it for this (the target cuts the index and the image
//! first, where the position lies in the middle), and a report counts what the mover has already *committed* in the image; where
//! several movers fill it, what is written and waits for the target to publish it.
//!
//! Own messages.

use serde::{Deserialize, Serialize};

use super::index::SumState;
use super::sums::RecordSum;
use super::{ObjectKind, TapePosition};

/// Progress on a cartridge: what was appended since the last report, and where the drive stands now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TapeReport {
    /// Objects published, or filled, since the last report, in order and without gaps.
    pub appended: Vec<Appended>,
    /// Where the tape stands: behind the last object appended, or wherever reading and positioning went.
    pub position: TapePosition,
    /// All that was appended so far is synchronized: the image, not yet the index, which is the target's.
    pub synced: bool,
}

/// One object that a mover put on the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Where it begins.
    pub at: TapePosition,
    /// Bytes of erase gap in front of its first word.
    pub gap: u32,
    /// What it is.
    pub kind: ObjectKind,
    /// Data bytes; 0 for a filemark.
    pub length: u32,
    /// What `sum` is worth.
    pub sum_state: SumState,
    /// Of the data; the default where absent and for a filemark.
    pub sum: RecordSum,
}
