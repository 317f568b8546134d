//! Messages of a mover on another host as they travel: the frames of [`super::frame`], each with its tag behind it.
//!
//! Carries them between two streams and knows no socket: whoever calls sets timeouts and closes both when one ends. What is in a
//! message is not looked at; one whose tag is wrong is not passed on, and nothing behind it. See [`super::attach`].

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attach::{MAX_MESSAGE, Seal, TAG};
use super::frame::{self, PREFIX};

/// Sends a message of the exchange that attaches a mover.
///
/// # Errors
/// What the stream gives.
pub fn send<T: Serialize>(mut stream: impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&frame::encode(message).map_err(invalid)?)
}

/// Takes a message of that exchange; one that is longer than such a message can be is not read.
///
/// # Errors
/// What the stream gives, and `InvalidData`.
pub fn receive<T: DeserializeOwned>(mut stream: impl Read) -> io::Result<T> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix)?;
    let length = frame::length(prefix).map_err(invalid)?;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than any that attaches a mover"));
    }
    let mut message = [0; MAX_MESSAGE];
    stream.read_exact(&mut message[..length])?;
    frame::decode(&message[..length]).map_err(invalid)
}

/// Carries messages from `plain` to `sealed` until `plain` ends between two of them.
///
/// # Errors
/// What the streams give, and `InvalidData` for what is no message.
pub fn seal_all(mut plain: impl Read, mut sealed: impl Write, mut seal: Seal) -> io::Result<()> {
    while let Some(mut message) = next(&mut plain)? {
        let tag = seal.tag(&message);
        message.extend_from_slice(&tag);
        sealed.write_all(&message)?;
    }
    Ok(())
}

/// Carries messages from `sealed` to `plain` until `sealed` ends between two of them.
///
/// # Errors
/// As [`seal_all`]; `InvalidData` for a message with a wrong tag.
pub fn open_all(mut sealed: impl Read, mut plain: impl Write, mut seal: Seal) -> io::Result<()> {
    while let Some(message) = next(&mut sealed)? {
        let mut tag = [0; TAG];
        sealed.read_exact(&mut tag)?;
        if !seal.opens(&message, &tag) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message with a wrong tag"));
        }
        plain.write_all(&message)?;
    }
    Ok(())
}

/// A whole frame with its prefix; `None` at the stream's end.
fn next(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; PREFIX];
    let mut read = 0;
    while read < PREFIX {
        match stream.read(&mut prefix[read..]) {
            Ok(0) if read == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = frame::length(prefix).map_err(invalid)?;
    let mut message = vec![0; PREFIX + length];
    message[..PREFIX].copy_from_slice(&prefix);
    stream.read_exact(&mut message[PREFIX..])?;
    Ok(Some(message))
}

fn invalid(error: crate::wire::WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attach::{Admitting, Attaching, Intro, Secret};
    use super::*;

    fn seals() -> (Seal, Seal) {
        let secret = || Secret::new(vec![7; 16]).unwrap();
        let (attaching, intro) = Attaching::new(secret(), "far".into(), [1; 32]);
        let (admitting, challenge) = Admitting::new(secret(), intro, [2; 32]).unwrap();
        let (_, proved) = attaching.challenged(challenge).unwrap();
        let (_, _, open, _) = admitting.proved(proved).unwrap();
        let (attaching, intro) = Attaching::new(secret(), "far".into(), [1; 32]);
        let (admitting, challenge) = Admitting::new(secret(), intro, [2; 32]).unwrap();
        let (proving, proved) = attaching.challenged(challenge).unwrap();
        let (_, proved, ..) = admitting.proved(proved).unwrap();
        (proving.proved(proved).unwrap().0, open)
    }

    fn frames(messages: &[Vec<u8>]) -> Vec<u8> {
        messages.iter().flat_map(|message| frame::encode(message).unwrap()).collect()
    }

    #[test]
    fn a_message_that_is_too_long_to_attach_is_not_read() {
        let mut wire = Vec::new();
        send(&mut wire, &Intro { version: 1, name: "x".repeat(300), nonce: [0; 32] }).unwrap();
        assert_eq!(receive::<Intro>(&wire[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..5)) {
            let ((seal, open), plain) = (seals(), frames(&messages));
            let (mut sealed, mut out) = (Vec::new(), Vec::new());
            seal_all(&plain[..], &mut sealed, seal).unwrap();
            open_all(&sealed[..], &mut out, open).unwrap();
            prop_assert_eq!(out, plain);
        }

        #[test]
        fn one_that_is_changed_does_not_and_nothing_behind_it(at in 0_usize..200, value in 1_u8..) {
            let ((seal, open), plain) = (seals(), frames(&[vec![1; 50], vec![2; 50], vec![3; 50]]));
            let (mut sealed, mut out) = (Vec::new(), Vec::new());
            seal_all(&plain[..], &mut sealed, seal).unwrap();
            let at = at % sealed.len();
            sealed[at] ^= value;
            prop_assert!(open_all(&sealed[..], &mut out, open).is_err());
            prop_assert!(plain.starts_with(&out) && out.len() <= at);
        }

        #[test]
        fn noise_is_no_message(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (_, open) = seals();
            let _ = receive::<Intro>(&bytes[..]);
            let mut out = Vec::new();
            let _ = open_all(&bytes[..], &mut out, open);
            prop_assert!(out.is_empty());
        }
    }
}
