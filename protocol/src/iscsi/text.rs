//! `key=value` text, each pair ended by NUL, over as many PDUs as it takes.
//!
//! Names and values are cut and checked for their characters here; what keys mean is in [`super::keys`]. RFC 7143 (6.1), (6.2).

use nom::bytes::complete::{tag, take_while, take_while_m_n};
use nom::combinator::all_consuming;
use nom::multi::many0;
use nom::sequence::{separated_pair, terminated};
use nom::{IResult, Parser};

use crate::wire::{Problem, WireError};

/// Longest key name. RFC 7143 (6.1).
pub const MAX_KEY: usize = 63;
/// Longest text taken over all PDUs of one exchange: what is asked for here fits many times.
pub const MAX_TEXT: usize = 64 * 1024;

/// One pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key's name.
    pub key: &'a str,
    /// Its value, possibly empty.
    pub value: &'a str,
}

/// All pairs of a whole text.
///
/// # Errors
/// Names the byte where the first pair begins that is none.
pub fn parse(text: &[u8]) -> Result<Vec<Pair<'_>>, WireError> {
    // The last pair of some initiators lacks its NUL; extra NULs are padding that was counted.
    let (rest, mut pairs) = many0(terminated(pair, nuls)).parse(text).map_err(|_| malformed(text, text))?;
    if !rest.is_empty() {
        let (_, last) = all_consuming(pair).parse(rest).map_err(|_| malformed(text, rest))?;
        pairs.push(last);
    }
    pairs
        .into_iter()
        .map(|(key, value)| match (std::str::from_utf8(key), std::str::from_utf8(value)) {
            (Ok(key), Ok(value)) => Ok(Pair { key, value }),
            _ => Err(malformed(text, text)),
        })
        .collect()
}

fn malformed(text: &[u8], rest: &[u8]) -> WireError {
    WireError::new("text", text.len() - rest.len(), Problem::Text("no key=value pair"))
}

fn pair(input: &[u8]) -> IResult<&[u8], (&[u8], &[u8])> {
    separated_pair(take_while_m_n(1, MAX_KEY, is_key_byte), tag("="), take_while(|byte| byte != 0)).parse(input)
}

fn nuls(input: &[u8]) -> IResult<&[u8], &[u8]> {
    nom::bytes::complete::take_while1(|byte| byte == 0).parse(input)
}

/// Key names: letters, digits, period, minus, plus, at and underscore; vendor keys (`X#`) also the number sign.
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-+@_#".contains(&byte)
}

/// Text being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Writer {
    text: Vec<u8>,
}

impl Writer {
    /// Adds one pair.
    pub fn pair(&mut self, key: &str, value: impl std::fmt::Display) {
        use std::io::Write;
        write!(self.text, "{key}={value}\0").expect("a Vec takes all that is written");
    }

    /// The next piece of at most `limit` bytes, and whether more follows (the C bit).
    pub fn take(&mut self, limit: usize) -> (Vec<u8>, bool) {
        let rest = self.text.split_off(self.text.len().min(limit));
        let piece = std::mem::replace(&mut self.text, rest);
        (piece, !self.text.is_empty())
    }

    /// True when nothing is left to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.text.len()
    }
}

/// Text being gathered from PDUs with the C bit.
#[derive(Debug, Default)]
pub struct Gather {
    text: Vec<u8>,
}

impl Gather {
    /// Adds a piece; the whole text when it was the last one.
    ///
    /// # Errors
    /// When the text grows over [`MAX_TEXT`].
    pub fn add(&mut self, piece: &[u8], more: bool) -> Result<Option<Vec<u8>>, WireError> {
        let length = self.text.len() + piece.len();
        if length > MAX_TEXT {
            let problem = Problem::Limit { field: "text length", value: length as u64, limit: MAX_TEXT as u64 };
            return Err(WireError::new("text", 0, problem));
        }
        self.text.extend_from_slice(piece);
        Ok((!more).then(|| std::mem::take(&mut self.text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_cut_at_nuls_and_at_the_first_equals_sign() {
        let pairs = parse(b"InitiatorName=iqn.x:a=b\0TargetName=\0\0\0X#vendor=1").unwrap();
        let expected = [("InitiatorName", "iqn.x:a=b"), ("TargetName", ""), ("X#vendor", "1")];
        assert_eq!(pairs, expected.map(|(key, value)| Pair { key, value }));
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn text_that_is_none_names_its_byte() {
        assert_eq!(parse(b"A=1\0no pair\0").unwrap_err().offset, 4);
        assert!(parse(b"=1\0").is_err());
        assert!(parse(&[b'A', b'=', 0xFF, 0]).is_err(), "not UTF-8");
        assert!(parse(&[b"A".repeat(64), b"=1\0".to_vec()].concat()).is_err(), "a name of 64 bytes");
    }

    #[test]
    fn a_writer_gives_its_text_in_pieces() {
        let mut writer = Writer::default();
        writer.pair("A", 1);
        writer.pair("Bc", "de");
        assert_eq!(writer.take(6), (b"A=1\0Bc".to_vec(), true));
        assert_eq!(writer.take(6), (b"=de\0".to_vec(), false));
    }

    #[test]
    fn gathering_ends_at_its_limit() {
        let mut gather = Gather::default();
        assert_eq!(gather.add(b"A=", true), Ok(None));
        assert_eq!(gather.add(b"1\0", false), Ok(Some(b"A=1\0".to_vec())));
        for _ in 0..MAX_TEXT / 8192 {
            gather.add(&[b'x'; 8192], true).unwrap();
        }
        assert!(gather.add(b"x", true).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read(pairs in proptest::collection::vec(("[A-Za-z][A-Za-z0-9.+@_-]{0,62}", "[^\0]{0,40}"), 0..8)) {
            let mut writer = Writer::default();
            for (key, value) in &pairs {
                writer.pair(key, value);
            }
            let (text, _) = writer.take(usize::MAX);
            let read: Vec<_> = parse(&text).unwrap().iter().map(|pair| (pair.key.to_owned(), pair.value.to_owned())).collect();
            prop_assert_eq!(read, pairs);
        }
    }
}
