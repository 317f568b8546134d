//! Between a record as an initiator sees it and the record as it lies on the medium: compression and encryption.
//!
//! Knows no positions and no pages: what holds for a command is asked of [`super::encryption`] and the mode parameters when it
//! begins. Nonces are random numbers of 96 bits, which is good for some 2^32 records with one key. Follows NIST SP 800-38D for GCM; how
//! a record lies on the medium is in [`protocol::cartridge::envelope`].

use std::sync::Arc;

use aes_gcm::aead::rand_core::RngCore;
use aes_gcm::aead::{AeadInPlace, KeyInit, OsRng};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use bytes::Bytes;
use protocol::cartridge::envelope::{self, Encryption, Envelope, NONCE, TAG};
use protocol::cartridge::sums::crc32c;
use protocol::scsi::Sense;
use protocol::scsi::tape_encryption::{DecryptionMode, KEY, KeyAssociatedData};
use zeroize::Zeroizing;

use crate::cartridge::Stored;

/// A key, and what is made of it once.
pub struct Key {
    cipher: Aes256Gcm,
    bytes: Zeroizing<[u8; KEY]>,
}

impl Key {
    /// Keeps the key until the last who has it lets it go; then its bytes are zeros.
    pub fn new(bytes: Zeroizing<[u8; KEY]>) -> Arc<Self> {
        let cipher = Aes256Gcm::new_from_slice(&*bytes).expect("a key of 32 bytes is one of AES-256");
        Arc::new(Self { cipher, bytes })
    }

    /// Tells this key from another with the same nonce, and tells nothing else of it.
    pub fn check(&self, nonce: &[u8; NONCE]) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new_keyed(&self.bytes);
        hasher.update(b"offhost tape key check").update(nonce);
        let hash = *hasher.finalize().as_bytes();
        *hash.first_chunk().expect("a hash has 32 bytes")
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(not shown)")
    }
}

/// How a command's records are encrypted.
#[derive(Debug, Clone)]
pub struct Encrypting {
    /// With what.
    pub key: Arc<Key>,
    /// RDMC: they may be read as they lie on the medium.
    pub raw_reads: bool,
    /// What goes with every record.
    pub kad: KeyAssociatedData,
}

/// From Data-Out to the medium.
#[derive(Debug)]
pub struct Encoder {
    /// Where that makes a record shorter.
    pub compress: bool,
    /// Every record, if any.
    pub encrypt: Option<Encrypting>,
}

/// A record on its way to the medium.
#[derive(Debug)]
pub struct Encoded {
    /// Bytes of the data.
    pub length: u64,
    /// As it is to lie there.
    pub stored: Prepared,
}

/// What [`Stored`] borrows.
#[derive(Debug)]
pub struct Prepared {
    parts: Vec<Bytes>,
    wrapped: bool,
}

impl Prepared {
    /// For [`crate::cartridge::Partition::append_records`].
    pub fn as_ref(&self) -> Stored<'_> {
        Stored { parts: &self.parts, wrapped: self.wrapped }
    }

    /// Bytes on the medium, without the framing.
    pub fn length(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }
}

impl Encoder {
    /// One record.
    pub fn encode(&self, parts: Vec<Bytes>) -> Result<Encoded, Sense> {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if !self.compress && self.encrypt.is_none() {
            return Ok(Encoded { length, stored: Prepared { parts, wrapped: false } });
        }
        let data = parts.concat();
        let block = if self.compress { envelope::compress(&data) } else { None };
        let compressed = block.is_some();
        if !compressed && self.encrypt.is_none() {
            return Ok(Encoded { length, stored: Prepared { parts, wrapped: false } });
        }
        let mut envelope = Envelope { length: length as u32, crc32c: 0, compressed, encryption: None };
        let stored = match &self.encrypt {
            None => {
                envelope.crc32c = crc32c(&data);
                vec![envelope.emit().into(), block.unwrap_or(data).into()]
            }
            Some(encrypting) => encrypting.seal(envelope, block.unwrap_or(data))?,
        };
        Ok(Encoded { length, stored: Prepared { parts: stored, wrapped: true } })
    }
}

impl Encrypting {
    fn seal(&self, mut envelope: Envelope, mut payload: Vec<u8>) -> Result<Vec<Bytes>, Sense> {
        let mut nonce = [0; NONCE];
        OsRng.try_fill_bytes(&mut nonce).map_err(|_| Sense::INTERNAL_TARGET_FAILURE)?;
        envelope.encryption = Some(Encryption {
            nonce,
            key_check: self.key.check(&nonce),
            raw_reads: self.raw_reads,
            unauthenticated: self.kad.unauthenticated.clone(),
            authenticated: self.kad.authenticated.clone(),
        });
        let head = envelope.emit();
        let tag = self.key.cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), &head, &mut payload);
        let tag = tag.map_err(|_| Sense::INTERNAL_TARGET_FAILURE)?;
        Ok(vec![head.into(), payload.into(), Bytes::copy_from_slice(&tag)])
    }
}

/// From the medium to Data-In.
#[derive(Debug)]
pub struct Decoder {
    /// What is done about encrypted records.
    pub mode: DecryptionMode,
    /// With what they are decrypted.
    pub key: Option<Arc<Key>>,
}

impl Decoder {
    /// One record; `wrapped` as its entry in the index says.
    ///
    /// # Errors
    /// DATA PROTECT for a record that may not, or cannot, be read with these parameters; MEDIUM ERROR for one that is damaged.
    pub fn decode(&self, stored: Bytes, wrapped: bool) -> Result<Bytes, Sense> {
        let plain =
            if self.mode == DecryptionMode::Decrypt { Err(Sense::UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING) } else { Ok(()) };
        if !wrapped {
            return plain.map(|()| stored);
        }
        let (envelope, payload_at) = Envelope::parse(&stored).map_err(|_| Sense::UNRECOVERED_READ_ERROR)?;
        let data = match &envelope.encryption {
            None => plain.and_then(|()| open(&envelope, &stored[payload_at..])),
            Some(encryption) => match self.mode {
                DecryptionMode::Raw if encryption.raw_reads => return Ok(stored),
                DecryptionMode::Disable | DecryptionMode::Raw => Err(Sense::UNABLE_TO_DECRYPT_DATA),
                DecryptionMode::Decrypt | DecryptionMode::Mixed => {
                    let payload = self.decrypt(encryption, &stored[..payload_at], &stored[payload_at..])?;
                    open(&envelope, &payload)
                }
            },
        };
        data.map(Bytes::from)
    }

    /// The parameters decrypt this record.
    pub fn reads(&self, encryption: &Encryption) -> bool {
        matches!(self.mode, DecryptionMode::Decrypt | DecryptionMode::Mixed)
            && self.key.as_ref().is_some_and(|key| key.check(&encryption.nonce) == encryption.key_check)
    }

    fn decrypt(&self, encryption: &Encryption, head: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Sense> {
        let Some(key) = &self.key else { return Err(Sense::UNABLE_TO_DECRYPT_DATA) };
        if !self.reads(encryption) {
            return Err(Sense::INCORRECT_DATA_ENCRYPTION_KEY);
        }
        let (payload, tag) = sealed.split_at(sealed.len() - TAG);
        let mut payload = payload.to_vec();
        let opened =
            key.cipher.decrypt_in_place_detached(Nonce::from_slice(&encryption.nonce), head, &mut payload, Tag::from_slice(tag));
        opened.map(|()| payload).map_err(|_| Sense::CRYPTOGRAPHIC_INTEGRITY_VALIDATION_FAILED)
    }
}

fn open(envelope: &Envelope, payload: &[u8]) -> Result<Vec<u8>, Sense> {
    envelope.open(payload).map_err(|_| Sense::UNRECOVERED_READ_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encrypting(key: u8, raw_reads: bool) -> Encrypting {
        let kad = KeyAssociatedData { unauthenticated: b"name".to_vec(), authenticated: b"bound".to_vec() };
        Encrypting { key: Key::new(Zeroizing::new([key; KEY])), raw_reads, kad }
    }

    fn stored(encoder: &Encoder, data: &[u8]) -> Bytes {
        encoder.encode(vec![Bytes::copy_from_slice(data)]).unwrap().stored.parts.concat().into()
    }

    fn decoder(mode: DecryptionMode, key: u8) -> Decoder {
        Decoder { mode, key: Some(Key::new(Zeroizing::new([key; KEY]))) }
    }

    #[test]
    fn records_come_back_through_every_way_of_storing_them() {
        let data = vec![7; 5000];
        for compress in [false, true] {
            for encrypt in [None, Some(encrypting(1, false))] {
                let encoder = Encoder { compress, encrypt: encrypt.clone() };
                let encoded = encoder.encode(vec![data.clone().into()]).unwrap();
                assert_eq!(encoded.stored.wrapped, compress || encrypt.is_some());
                assert_eq!(encoded.stored.length() < 5000, compress);
                let back = decoder(DecryptionMode::Mixed, 1).decode(encoded.stored.parts.concat().into(), encoded.stored.wrapped);
                assert_eq!(back.unwrap(), data);
            }
        }
    }

    #[test]
    fn the_same_record_never_looks_the_same_twice() {
        let encoder = Encoder { compress: false, encrypt: Some(encrypting(1, false)) };
        let (a, b) = (stored(&encoder, b"secret data"), stored(&encoder, b"secret data"));
        assert_ne!(a, b);
        assert!(!a.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn without_the_right_key_and_mode_nothing_comes_out() {
        let encoder = Encoder { compress: false, encrypt: Some(encrypting(1, false)) };
        let record = stored(&encoder, b"secret");
        let decode = |mode, key| decoder(mode, key).decode(record.clone(), true);
        assert_eq!(decode(DecryptionMode::Disable, 1), Err(Sense::UNABLE_TO_DECRYPT_DATA));
        assert_eq!(decode(DecryptionMode::Raw, 1), Err(Sense::UNABLE_TO_DECRYPT_DATA), "not unprotected");
        assert_eq!(decode(DecryptionMode::Decrypt, 2), Err(Sense::INCORRECT_DATA_ENCRYPTION_KEY));
        assert_eq!(decode(DecryptionMode::Decrypt, 1).unwrap(), b"secret"[..]);
        let plain = decoder(DecryptionMode::Decrypt, 1).decode(Bytes::from_static(b"plain"), false);
        assert_eq!(plain, Err(Sense::UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING));
        let raw = stored(&Encoder { compress: false, encrypt: Some(encrypting(1, true)) }, b"secret");
        assert_eq!(decoder(DecryptionMode::Raw, 2).decode(raw.clone(), true).unwrap(), raw);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let encoder = Encoder { compress: false, encrypt: Some(encrypting(1, false)) };
        let record = stored(&encoder, b"secret");
        for at in 0..record.len() {
            let mut damaged = record.to_vec();
            damaged[at] ^= 0x10;
            assert!(decoder(DecryptionMode::Decrypt, 1).decode(damaged.into(), true).is_err(), "byte {at}");
        }
    }
}
