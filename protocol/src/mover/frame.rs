//! Messages on a stream: four bytes of length, little-endian, then the value in postcard's encoding.
//!
//! Sans-io. The length is checked before anything is allocated.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{Problem, WireError};

/// Longest message: a job with the most segments, all inline and all embedded data that a list can have, and room.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of the length.
pub const PREFIX: usize = 4;

/// Bytes to send.
///
/// # Errors
/// A message longer than [`MAX_MESSAGE`], which the other side would refuse.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0; PREFIX];
    bytes = postcard::to_extend(message, bytes).map_err(|_| text("a value that postcard cannot write"))?;
    let length = bytes.len() - PREFIX;
    if length > MAX_MESSAGE {
        return Err(over_limit(length));
    }
    bytes[..PREFIX].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Length of the message behind a prefix.
///
/// # Errors
/// A length over [`MAX_MESSAGE`].
pub fn length(prefix: [u8; PREFIX]) -> Result<usize, WireError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_MESSAGE { Err(over_limit(length)) } else { Ok(length) }
}

/// The message in `bytes`, which are all of it.
///
/// # Errors
/// Bytes that are no such message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(text("bytes behind the message")),
        Err(_) => Err(text("not a message of this version")),
    }
}

const STRUCTURE: &str = "mover message";

const fn text(problem: &'static str) -> WireError {
    WireError::new(STRUCTURE, 0, Problem::Text(problem))
}

const fn over_limit(value: usize) -> WireError {
    WireError::new(STRUCTURE, 0, Problem::Limit { field: "length", value: value as u64, limit: MAX_MESSAGE as u64 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ends::{Descriptor, End};
    use super::super::{Action, CopyJob, Destination, EndIndex, FromMover, JobId, Move, Source, Step, ToMover, Transfer};
    use super::*;
    use crate::units::ByteRange;

    fn job() -> ToMover {
        let transfer = Transfer { record: 65_536, records: 1, fixed: false };
        let copy = Move {
            from: Source::Blocks { end: EndIndex(0), at: 4096 },
            to: Destination::Stream { end: EndIndex(1), transfer },
            process: Some(1 << 20),
            output: None,
            source_pad: false,
            destination_pad: true,
            hold: false,
        };
        let within = ByteRange { start: 0, len: 1 << 30 };
        let job = CopyJob {
            id: JobId(7),
            ends: vec![End::Raw { file: Descriptor(0), within, block_length: 512 }, End::NullStream],
            steps: vec![Step { segment: 0, cat: true, action: Action::Move(copy) }],
            inline: vec![1, 2, 3],
            buffer_bytes: 32 << 20,
            priority: 1,
            bytes_per_second: Some(7),
        };
        ToMover::Job { job, files: 1 }
    }

    #[test]
    fn a_job_comes_back_as_it_was_sent() {
        let bytes = encode(&job()).unwrap();
        let (prefix, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(length(*prefix), Ok(body.len()));
        assert_eq!(decode(body), Ok(job()));
    }

    #[test]
    fn lengths_over_the_limit_and_trailing_bytes_are_refused() {
        assert!(length([0xFF; 4]).is_err());
        let mut bytes = encode(&job()).unwrap();
        bytes.push(0);
        assert!(decode::<ToMover>(&bytes[PREFIX..]).is_err());
        let large = ToMover::Job {
            job: CopyJob {
                id: JobId(1),
                ends: vec![],
                steps: vec![],
                inline: vec![0; MAX_MESSAGE],
                buffer_bytes: 0,
                priority: 1,
                bytes_per_second: None,
            },
            files: 0,
        };
        assert!(encode(&large).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<ToMover>(&bytes);
            let _ = decode::<FromMover>(&bytes);
        }
    }
}
