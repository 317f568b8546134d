//! How a mover on another host and a target prove to each other that they know one secret, before either believes a word.
//!
//! ```text
//! mover                                              target
//!   Intro (version, name, nonce) ───────────────────▶
//!   ◀──────────────────────────────── Challenge (nonce)
//!   MoverProof ─────────────────────────────────────▶   checks it, and is attached
//!   ◀───────────────────────────────────── TargetProof   the mover checks it
//! ```
//!
//! Sans-io. A proof is HMAC-SHA-256 under the secret over who proves, the version, the mover's name and both nonces: it holds for no
//! other pair of nonces, and the proof of one role is none of the other. The mover proves first: who has not proved anything gets
//! nothing from the target that the secret went into. Behind the proofs every message carries a tag of a key that both have made from
//! the secret and the nonces, and its number, so that nobody on the way can change, leave out or repeat one.
//!
//! Does not hide what is said: neither blocks nor secrets are. Follows RFC 2104 and RFC 4868 for the tags' length.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::VERSION;

/// Longest message of the exchange: nothing more is read from a peer that has proved nothing.
pub const MAX_MESSAGE: usize = 256;
/// Longest name of a mover, in bytes.
pub const MAX_NAME: usize = 64;
/// Bytes of a tag: half of the hash.
pub const TAG: usize = 16;
/// Fewer bytes than this are no secret that may be sent the hash of: it could be guessed.
pub const SECRET_LEAST: usize = 16;
/// No file of a secret is longer, in bytes.
pub const SECRET_MOST: u64 = 4096;

/// A number that is used once.
pub type Nonce = [u8; 32];
/// Proof of a secret.
pub type Proof = [u8; 32];

/// What a mover begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intro {
    /// [`VERSION`].
    pub version: u32,
    /// For the target's log and status.
    pub name: String,
    /// The mover's.
    pub nonce: Nonce,
}

/// What the target answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The target's.
    pub nonce: Nonce,
}

/// What either side ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proved {
    /// See the module.
    pub proof: Proof,
}

/// Why a peer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Another build.
    #[error("it speaks version {0}, not {VERSION}")]
    Version(u32),
    /// A name that is empty, too long or not made of visible ASCII characters.
    #[error("its name is none")]
    Name,
    /// It sent back what it was sent.
    #[error("it answers with the nonce that it was given")]
    Reflection,
    /// It does not know the secret.
    #[error("it does not prove to know the secret")]
    Proof,
}

/// A secret that both sides have from a file.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// From a file's bytes, whose line end does not count. `None` when it is shorter than [`SECRET_LEAST`].
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Option<Self> {
        while bytes.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
            bytes.pop();
        }
        let secret = Zeroizing::new(bytes);
        (secret.len() >= SECRET_LEAST).then_some(Self(secret))
    }
}

/// What both sides know once both nonces are there.
#[derive(Debug, Clone)]
struct Exchange {
    secret: Secret,
    name: String,
    mover: Nonce,
    target: Nonce,
}

impl Exchange {
    fn hash(&self, purpose: &str) -> [u8; 32] {
        let name_length = [self.name.len() as u8];
        let parts: [&[u8]; 7] =
            [purpose.as_bytes(), &[0], &VERSION.to_le_bytes(), &name_length, self.name.as_bytes(), &self.mover, &self.target];
        hmac(&self.secret.0, &parts)
    }

    fn check(&self, purpose: &str, proof: &Proof) -> Result<(), AttachError> {
        if bool::from(self.hash(purpose).ct_eq(proof)) { Ok(()) } else { Err(AttachError::Proof) }
    }

    fn seals(&self) -> (Seal, Seal) {
        (Seal::new(self.hash(FROM_MOVER)), Seal::new(self.hash(FROM_TARGET)))
    }
}

const MOVER_PROVES: &str = "offhost mover proves";
const TARGET_PROVES: &str = "offhost target proves";
const FROM_MOVER: &str = "offhost messages from mover";
const FROM_TARGET: &str = "offhost messages from target";

/// A mover that has introduced itself.
#[derive(Debug)]
pub struct Attaching {
    secret: Secret,
    intro: Intro,
}

impl Attaching {
    /// What to send first. The nonce is to be new.
    #[must_use]
    pub fn new(secret: Secret, name: String, nonce: Nonce) -> (Self, Intro) {
        let intro = Intro { version: VERSION, name, nonce };
        (Self { secret, intro: intro.clone() }, intro)
    }

    /// What to send then.
    ///
    /// # Errors
    /// [`AttachError::Reflection`].
    pub fn challenged(self, challenge: Challenge) -> Result<(Proving, Proved), AttachError> {
        if challenge.nonce == self.intro.nonce {
            return Err(AttachError::Reflection);
        }
        let exchange = Exchange { secret: self.secret, name: self.intro.name, mover: self.intro.nonce, target: challenge.nonce };
        let proof = exchange.hash(MOVER_PROVES);
        Ok((Proving(exchange), Proved { proof }))
    }
}

/// A mover that has proved who it is.
#[derive(Debug)]
pub struct Proving(Exchange);

impl Proving {
    /// What to seal with, and what to open with.
    ///
    /// # Errors
    /// [`AttachError::Proof`]: whoever this is, it is not the target.
    pub fn proved(self, proved: Proved) -> Result<(Seal, Seal), AttachError> {
        self.0.check(TARGET_PROVES, &proved.proof)?;
        Ok(self.0.seals())
    }
}

/// A target to which a mover has introduced itself.
#[derive(Debug)]
pub struct Admitting(Exchange);

impl Admitting {
    /// What to answer. The nonce is to be new.
    ///
    /// # Errors
    /// Another version, a name that is none, or a nonce of ours.
    pub fn new(secret: Secret, intro: Intro, nonce: Nonce) -> Result<(Self, Challenge), AttachError> {
        if intro.version != VERSION {
            return Err(AttachError::Version(intro.version));
        }
        let visible = intro.name.bytes().all(|byte| byte.is_ascii_graphic());
        if intro.name.is_empty() || intro.name.len() > MAX_NAME || !visible {
            return Err(AttachError::Name);
        }
        if intro.nonce == nonce {
            return Err(AttachError::Reflection);
        }
        let exchange = Exchange { secret, name: intro.name, mover: intro.nonce, target: nonce };
        Ok((Self(exchange), Challenge { nonce }))
    }

    /// The mover's name, what to send last, what to open with and what to seal with.
    ///
    /// # Errors
    /// [`AttachError::Proof`].
    pub fn proved(self, proved: Proved) -> Result<(String, Proved, Seal, Seal), AttachError> {
        self.0.check(MOVER_PROVES, &proved.proof)?;
        let (open, seal) = self.0.seals();
        let proof = self.0.hash(TARGET_PROVES);
        Ok((self.0.name, Proved { proof }, open, seal))
    }
}

/// Tags of the messages of one direction, in their order.
#[derive(Debug)]
pub struct Seal {
    key: Zeroizing<[u8; 32]>,
    next: u64,
}

impl Seal {
    fn new(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key), next: 0 }
    }

    /// The tag of the next message.
    #[must_use]
    pub fn tag(&mut self, message: &[u8]) -> [u8; TAG] {
        let number = self.next.to_le_bytes();
        self.next += 1;
        let hash = hmac(&self.key[..], &[&number, message]);
        *hash.first_chunk().expect("half of a hash")
    }

    /// True when this is the tag of the next message.
    #[must_use]
    pub fn opens(&mut self, message: &[u8], tag: &[u8; TAG]) -> bool {
        self.tag(message).ct_eq(tag).into()
    }
}

/// HMAC-SHA-256. RFC 2104.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut block = Zeroizing::new([0; BLOCK]);
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| Zeroizing::new(block.map(|byte| byte ^ pad));
    let mut inner = Sha256::new_with_prefix(&padded(0x36)[..]);
    parts.iter().for_each(|part| inner.update(part));
    let outer = Sha256::new_with_prefix(&padded(0x5C)[..]).chain_update(inner.finalize());
    outer.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_hash_is_that_of_the_standard() {
        // RFC 4231, test cases 1, 2 and 6.
        let cases = [
            (vec![0x0B; 20], "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe".to_vec(),
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xAA; 131],
                "Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, data, expected) in cases {
            assert_eq!(hmac(&key, &[&data.as_bytes()[..3], &data.as_bytes()[3..]])[..], hex(expected), "{data}");
        }
    }

    /// Both ends, as far as they get.
    fn exchange(mover: &str, target: &str, nonces: (u8, u8)) -> Result<[Seal; 4], AttachError> {
        let (attaching, intro) = Attaching::new(secret(mover), "far".into(), [nonces.0; 32]);
        let (admitting, challenge) = Admitting::new(secret(target), intro, [nonces.1; 32])?;
        let (proving, proved) = attaching.challenged(challenge)?;
        let (name, proved, target_opens, target_seals) = admitting.proved(proved)?;
        assert_eq!(name, "far");
        let (mover_seals, mover_opens) = proving.proved(proved)?;
        Ok([mover_seals, target_opens, target_seals, mover_opens])
    }

    #[test]
    fn only_one_secret_is_the_same_secret() {
        assert!(exchange("0123456789abcdef", "0123456789abcdef", (1, 2)).is_ok());
        assert_eq!(exchange("0123456789abcdef", "0123456789abcdeF", (1, 2)).unwrap_err(), AttachError::Proof);
        assert_eq!(exchange("0123456789abcdef", "0123456789abcdef", (1, 1)).unwrap_err(), AttachError::Reflection);
        assert!(Secret::new(b"0123456789abcde\n".to_vec()).is_none(), "too short");
    }

    #[test]
    fn a_proof_that_is_sent_back_or_used_again_is_none() {
        let key = || secret("0123456789abcdef");
        let (attaching, intro) = Attaching::new(key(), "far".into(), [1; 32]);
        let (admitting, challenge) = Admitting::new(key(), intro.clone(), [2; 32]).unwrap();
        let (proving, proved) = attaching.challenged(challenge).unwrap();
        assert_eq!(proving.proved(proved).unwrap_err(), AttachError::Proof, "our own proof, reflected");
        admitting.proved(proved).unwrap();
        let (another, _) = Admitting::new(key(), intro, [3; 32]).unwrap();
        assert_eq!(another.proved(proved).unwrap_err(), AttachError::Proof, "the proof of another exchange");
    }

    #[test]
    fn another_version_and_a_name_that_is_none_are_refused() {
        let refused = |intro: Intro| Admitting::new(secret("0123456789abcdef"), intro, [9; 32]).unwrap_err();
        let intro = Intro { version: VERSION, name: "far".into(), nonce: [1; 32] };
        assert_eq!(refused(Intro { version: VERSION + 1, ..intro.clone() }), AttachError::Version(VERSION + 1));
        for name in ["", "two words", "\u{1b}[2J", &"a".repeat(MAX_NAME + 1)] {
            assert_eq!(refused(Intro { name: name.into(), ..intro.clone() }), AttachError::Name);
        }
    }

    #[test]
    fn a_message_that_is_changed_repeated_or_left_out_is_seen() {
        let seals = || exchange("0123456789abcdef", "0123456789abcdef", (1, 2)).unwrap();
        let [mut seal, mut open, mut other, _] = seals();
        let (first, second) = (seal.tag(b"one"), seal.tag(b"two"));
        assert_ne!(other.tag(b"one"), first, "each direction has its own key");
        assert!(open.opens(b"one", &first) && open.opens(b"two", &second));
        let [_, mut open, ..] = seals();
        assert!(!open.opens(b"two", &second), "left out");
        let [_, mut open, ..] = seals();
        assert!(open.opens(b"one", &first) && !open.opens(b"one", &first), "repeated");
        let [_, mut open, ..] = seals();
        assert!(!open.opens(b"onE", &first), "changed");
    }
}
