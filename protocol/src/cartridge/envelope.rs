//! The envelope of a record that does not lie on the medium as it came: compressed, encrypted, or both.
//!
//! Such a record has class 1 in the image, which SIMH keeps for private data: programs that know only plain records pass it over,
//! and a plain record can never be taken for one. All in front of the payload is authenticated together with it; the checksum of the
//! data is left out where it would tell something about data that is secret.
//!
//! ```text
//!  0  "OFHW"  version 1  flags  U-KAD length  A-KAD length
//!  8  length of the data, CRC32C of the data (zero when encrypted)
//! 16  nonce (12 bytes), key check (8 bytes)                            encrypted only
//!     U-KAD, A-KAD                                                     encrypted only
//!     payload: LZ4 block where compressed
//!     tag (16 bytes)                                                   encrypted only
//! ```
//!
//! Does not encrypt. Own format, all numbers little-endian as in the image; the key-associated data (KAD) are SSC-4's.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MAX_RECORD_LENGTH;
use super::sums::crc32c;
use crate::wire::{Problem, WireError};

/// Longest key-associated data, in bytes, of either kind.
pub const MAX_KAD: usize = 60;
/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes of an authentication tag.
pub const TAG: usize = 16;

/// Longest record in an envelope.
pub const MAX_LENGTH: u32 = MAX_RECORD_LENGTH + (size_of::<Header>() + size_of::<Secret>() + 2 * MAX_KAD + TAG) as u32;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u8,
    flags: u8,
    unauthenticated: u8,
    authenticated: u8,
    length: U32,
    crc32c: U32,
}
const _: () = assert!(size_of::<Header>() == 16);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Secret {
    nonce: [u8; NONCE],
    key_check: [u8; 8],
}

const MAGIC: [u8; 4] = *b"OFHW";
const VERSION: u8 = 1;
const COMPRESSED: u8 = 0x01;
const ENCRYPTED: u8 = 0x02;
const RAW_READS: u8 = 0x04;
const STRUCTURE: &str = "record envelope";

/// What stands in front of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Bytes of the data, as the initiator sees them.
    pub length: u32,
    /// Of the data; zero when encrypted.
    pub crc32c: u32,
    /// The payload is an LZ4 block.
    pub compressed: bool,
    /// How it was encrypted, if it was.
    pub encryption: Option<Encryption>,
}

/// What has to be known to decrypt, but for the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Never used twice with a key.
    pub nonce: [u8; NONCE],
    /// Tells whether a key is the right one, and nothing about the key.
    pub key_check: [u8; 8],
    /// RDMD clear: it may be read as it lies on the medium.
    pub raw_reads: bool,
    /// U-KAD, at most [`MAX_KAD`] bytes.
    pub unauthenticated: Vec<u8>,
    /// A-KAD, at most [`MAX_KAD`] bytes.
    pub authenticated: Vec<u8>,
}

impl Envelope {
    /// All that stands in front of the payload.
    ///
    /// # Panics
    /// When key-associated data is longer than [`MAX_KAD`].
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let (mut flags, mut lengths, mut rest) = (u8::from(self.compressed) * COMPRESSED, (0, 0), Vec::new());
        if let Some(encryption) = &self.encryption {
            flags |= ENCRYPTED | (u8::from(encryption.raw_reads) * RAW_READS);
            lengths = (kad_length(&encryption.unauthenticated), kad_length(&encryption.authenticated));
            rest.extend(Secret { nonce: encryption.nonce, key_check: encryption.key_check }.as_bytes());
            rest.extend(&encryption.unauthenticated);
            rest.extend(&encryption.authenticated);
        }
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            flags,
            unauthenticated: lengths.0,
            authenticated: lengths.1,
            length: self.length.into(),
            crc32c: self.crc32c.into(),
        };
        [header.as_bytes(), &rest].concat()
    }

    /// Reads what stands in front of the payload; the second value is the byte at which the payload begins.
    ///
    /// # Errors
    /// When it is no envelope of ours.
    pub fn parse(record: &[u8]) -> Result<(Self, usize), WireError> {
        let truncated = || WireError::new(STRUCTURE, 0, Problem::Text("it ends too early"));
        let (header, rest) = Header::ref_from_prefix(record).map_err(|_| truncated())?;
        if header.magic != MAGIC || header.version != VERSION {
            return Err(WireError::new(STRUCTURE, 0, Problem::Text("no envelope of ours")));
        }
        let known = COMPRESSED | ENCRYPTED | RAW_READS;
        let length = header.length.get();
        if header.flags & !known != 0 || length > MAX_RECORD_LENGTH {
            return Err(WireError::new(STRUCTURE, 5, Problem::Value { field: "flags or length", value: header.flags.into() }));
        }
        let mut rest = rest;
        let encryption = if header.flags & ENCRYPTED == 0 {
            None
        } else {
            let (secret, behind) = Secret::ref_from_prefix(rest).map_err(|_| truncated())?;
            let (unauthenticated, behind) = behind.split_at_checked(header.unauthenticated.into()).ok_or_else(truncated)?;
            let (authenticated, behind) = behind.split_at_checked(header.authenticated.into()).ok_or_else(truncated)?;
            if behind.len() < TAG {
                return Err(truncated());
            }
            rest = behind;
            Some(Encryption {
                nonce: secret.nonce,
                key_check: secret.key_check,
                raw_reads: header.flags & RAW_READS != 0,
                unauthenticated: unauthenticated.to_vec(),
                authenticated: authenticated.to_vec(),
            })
        };
        let compressed = header.flags & COMPRESSED != 0;
        let envelope = Self { length, crc32c: header.crc32c.get(), compressed, encryption };
        Ok((envelope, record.len() - rest.len()))
    }

    /// The data out of a payload that is not, or no more, encrypted.
    ///
    /// # Errors
    /// When it does not decompress, or has another length or checksum than the envelope says.
    pub fn open(&self, payload: &[u8]) -> Result<Vec<u8>, WireError> {
        let damaged = |text| WireError::new(STRUCTURE, size_of::<Header>(), Problem::Text(text));
        let data = if self.compressed {
            lz4_flex::block::decompress(payload, self.length as usize).map_err(|_| damaged("the payload does not decompress"))?
        } else {
            payload.to_vec()
        };
        if data.len() != self.length as usize {
            return Err(damaged("the data has another length"));
        }
        if self.encryption.is_none() && crc32c(&data) != self.crc32c {
            return Err(damaged("the data has another checksum"));
        }
        Ok(data)
    }
}

/// The data as an LZ4 block, where that is shorter.
#[must_use]
pub fn compress(data: &[u8]) -> Option<Vec<u8>> {
    let block = lz4_flex::block::compress(data);
    (block.len() + size_of::<Header>() < data.len()).then_some(block)
}

fn kad_length(kad: &[u8]) -> u8 {
    assert!(kad.len() <= MAX_KAD, "key-associated data is bounded where it is taken");
    kad.len() as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_envelope_reads_as_it_was_written() {
        let encryption = Encryption {
            nonce: [1; NONCE],
            key_check: [2; 8],
            raw_reads: true,
            unauthenticated: b"name".to_vec(),
            authenticated: b"more".to_vec(),
        };
        for encryption in [None, Some(encryption)] {
            let envelope = Envelope { length: 5, crc32c: crc32c(b"hello"), compressed: false, encryption };
            let mut record = envelope.emit();
            let payload_at = record.len();
            record.extend(b"hello");
            record.extend([0; TAG]);
            assert_eq!(Envelope::parse(&record), Ok((envelope.clone(), payload_at)));
            assert_eq!(envelope.open(b"hello").unwrap(), b"hello");
            assert!(envelope.open(b"hell").is_err());
        }
    }

    #[test]
    fn data_is_compressed_only_where_that_is_shorter() {
        let zeros = vec![0; 1000];
        let block = compress(&zeros).unwrap();
        let envelope = Envelope { length: 1000, crc32c: crc32c(&zeros), compressed: true, encryption: None };
        assert_eq!(envelope.open(&block).unwrap(), zeros);
        assert!(envelope.open(&block[1..]).is_err());
        assert_eq!(compress(b"abcdefgh"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(record in proptest::collection::vec(any::<u8>(), 0..200), good in any::<bool>()) {
            let mut record = record;
            if good && record.len() > 8 {
                record[..5].copy_from_slice(b"OFHW\x01");
            }
            if let Ok((envelope, at)) = Envelope::parse(&record) {
                let _ = envelope.open(&record[at..]);
            }
        }
    }
}
