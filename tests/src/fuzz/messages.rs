//! Messages between target and mover, and the data block table that a mover reads.
//!
//! Input: a message as it comes behind its length, or the words of a table.

use protocol::mover::frame::{self, PREFIX};
use protocol::mover::{FromMover, ToMover};

/// One input.
pub fn fuzz(data: &[u8]) {
    if let Some(prefix) = data.first_chunk::<PREFIX>() {
        let _ = frame::length(*prefix);
    }
    if let Ok(message) = frame::decode::<ToMover>(data) {
        let again = frame::encode(&message).expect("it is shorter than the limit");
        assert_eq!(frame::decode::<ToMover>(&again[PREFIX..]).as_ref(), Ok(&message));
    }
    if let Ok(message) = frame::decode::<FromMover>(data) {
        let again = frame::encode(&message).expect("it is shorter than the limit");
        assert_eq!(frame::decode::<FromMover>(&again[PREFIX..]).as_ref(), Ok(&message));
    }
}
