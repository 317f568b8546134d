//! CHAP, the authentication of the security stage: both sides, one-way and mutual.
//!
//! Sans-io, without a source of randomness (a [`Nonce`] is the caller's) and without a store of secrets. When the exchange happens
//! and what a login that fails is told is decided in [`super::login`]. SRP, Kerberos and SPKM are not served.
//!
//! ```text
//! initiator                                target
//! CHAP_A=7,5                          →
//!                                     ←    CHAP_A=7  CHAP_I=1  CHAP_C=0x…
//! CHAP_N=user  CHAP_R=0x…             →                                      one-way ends here
//! [CHAP_I=9  CHAP_C=0x…]
//!                                     ←    CHAP_N=target  CHAP_R=0x…         mutual
//! ```
//!
//! RFC 7143 (12.1.3) and (9.2.1), RFC 1994; algorithm numbers from IANA's registry of PPP authentication algorithms.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;
use sha3::Sha3_256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::text::{Pair, Writer};

mod number;
#[cfg(test)]
mod tests;

pub use number::{binary_value, hex_constant};

/// Longest challenge or response, in bytes once decoded. RFC 7143 (12.1.3).
pub const MAX_BINARY: usize = 1024;
/// Longest name, in bytes: that of any text value (6.1).
pub const MAX_NAME: usize = 255;
/// Most algorithms in an offer that are looked at; IANA knows four.
const MAX_OFFERED: usize = 32;

/// A hash that CHAP is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Algorithm {
    Md5 = 5,
    Sha1 = 6,
    Sha256 = 7,
    Sha3_256 = 8,
}

impl Algorithm {
    /// All, the strongest first: the order in which an initiator offers them.
    pub const ALL: [Self; 4] = [Self::Sha3_256, Self::Sha256, Self::Sha1, Self::Md5];

    /// Bytes of a response, and of a challenge made for it.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sha3_256 => 32,
        }
    }

    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha3_256 => "sha3-256",
        }
    }

    /// The algorithm of a CHAP_A number; the whole text counts, so that 56 is not taken for 5.
    fn of_number(text: &str) -> Option<Self> {
        let number = super::keys::number(text)?;
        Self::ALL.into_iter().find(|algorithm| *algorithm as u32 == number)
    }

    /// The response to a challenge: a hash over identifier, secret and challenge. RFC 1994 (4.1).
    #[must_use]
    pub fn response(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        fn hash<D: Digest>(parts: [&[u8]; 3]) -> Vec<u8> {
            parts.into_iter().fold(D::new(), |digest, part| digest.chain_update(part)).finalize().to_vec()
        }
        let parts = [&[identifier], secret.bytes(), challenge];
        match self {
            Self::Md5 => hash::<Md5>(parts),
            Self::Sha1 => hash::<Sha1>(parts),
            Self::Sha256 => hash::<Sha256>(parts),
            Self::Sha3_256 => hash::<Sha3_256>(parts),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Algorithm> for &'static str {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.name()
    }
}

impl TryFrom<String> for Algorithm {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| format!("{text:?} is no CHAP algorithm; there are md5, sha1, sha256 and sha3-256"))
    }
}

/// A shared secret. Wiped when dropped; shown nowhere; compared in a time that does not depend on its bytes.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Least length, in bytes: below 96 bits a login must not go on. RFC 7143 (9.2.1).
    pub const MIN: usize = 12;
    /// Greatest length, in bytes.
    pub const MAX: usize = 255;

    /// A secret of these bytes.
    ///
    /// # Errors
    /// [`CredentialError::SecretLength`] for too few or too many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, CredentialError> {
        let secret = Self(Zeroizing::new(bytes.into()));
        match secret.0.len() {
            Self::MIN..=Self::MAX => Ok(secret),
            length => Err(CredentialError::SecretLength(length)),
        }
    }

    /// The secret in a file: all but one line end, provided that nobody but the file's owner may read it.
    ///
    /// `mode` is the file's, with or without its type.
    ///
    /// # Errors
    /// [`CredentialError::OpenToOthers`], [`CredentialError::SecretLength`].
    pub fn from_file(mut content: Vec<u8>, mode: u32) -> Result<Self, CredentialError> {
        const OTHERS: u32 = 0o077;
        if mode & OTHERS != 0 {
            drop(Zeroizing::new(content));
            return Err(CredentialError::OpenToOthers(mode & 0o777));
        }
        for end in [b'\n', b'\r'] {
            if content.last() == Some(&end) {
                content.pop();
            }
        }
        Self::new(content)
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

/// Why a name or secret cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Too short to protect anything, or too long.
    #[error("a CHAP secret has {min} to {max} bytes, this one {0}", min = Secret::MIN, max = Secret::MAX)]
    SecretLength(usize),
    /// A file that others than its owner may read or write.
    #[error("a file with a secret must be its owner's alone (mode 0600), this one has mode {0:04o}")]
    OpenToOthers(u32),
    /// Empty, too long, or with a byte that ends a text value.
    #[error("a CHAP name has 1 to {MAX_NAME} bytes and no control characters")]
    Name,
    /// One secret for both directions lets a peer have its own challenge answered. RFC 7143 (9.2.1).
    #[error("the mutual secret must not be the one of the other direction")]
    SameSecret,
}

/// A name and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    user: String,
    secret: Secret,
}

impl Credential {
    /// The pair.
    ///
    /// # Errors
    /// [`CredentialError::Name`].
    pub fn new(user: impl Into<String>, secret: Secret) -> Result<Self, CredentialError> {
        let user = user.into();
        if user.is_empty() || user.len() > MAX_NAME || user.chars().any(char::is_control) {
            return Err(CredentialError::Name);
        }
        Ok(Self { user, secret })
    }

    /// CHAP_N. Not secret.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// What proves one initiator to a target, and where it is wanted the target to the initiator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    initiator: Credential,
    mutual: Option<Credential>,
}

impl Account {
    /// One account of one direction or both.
    ///
    /// # Errors
    /// [`CredentialError::SameSecret`].
    pub fn new(initiator: Credential, mutual: Option<Credential>) -> Result<Self, CredentialError> {
        if mutual.as_ref().is_some_and(|mutual| mutual.secret == initiator.secret) {
            return Err(CredentialError::SameSecret);
        }
        Ok(Self { initiator, mutual })
    }

    /// What the initiator proves to know.
    #[must_use]
    pub fn initiator(&self) -> &Credential {
        &self.initiator
    }

    /// What the target proves to know.
    #[must_use]
    pub fn mutual(&self) -> Option<&Credential> {
        self.mutual.as_ref()
    }
}

/// What a side challenges its peer with. Random, and new for every login: a nonce used twice lets an answer be replayed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce {
    /// CHAP_I.
    pub identifier: u8,
    /// CHAP_C; as much of it is sent as the algorithm's response is long.
    pub challenge: [u8; 32],
}

impl Nonce {
    fn challenge_for(&self, algorithm: Algorithm) -> &[u8] {
        &self.challenge[..algorithm.length()]
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(…)")
    }
}

/// Why an authentication failed. A peer is told no more than that it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ChapError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} comes out of turn, or twice")]
    OutOfTurn(&'static str),
    #[error("{0} is malformed or has a wrong length")]
    Malformed(&'static str),
    #[error("no CHAP algorithm in common")]
    Algorithm,
    #[error("the peer's challenge is our own")]
    Reflection,
    #[error("the response is wrong, or nobody has the name {0:?}")]
    Response(String),
    #[error("the peer wants to be shown a secret, and there is none")]
    NoMutual,
}

/// The CHAP keys of one exchange.
#[derive(Debug, Default)]
struct Said<'a> {
    algorithms: Option<&'a str>,
    identifier: Option<&'a str>,
    challenge: Option<&'a str>,
    name: Option<&'a str>,
    response: Option<&'a str>,
}

/// True for the keys that belong here and not to the negotiation of parameters.
#[must_use]
pub fn is_chap_key(key: &str) -> bool {
    matches!(key, "CHAP_A" | "CHAP_I" | "CHAP_C" | "CHAP_N" | "CHAP_R")
}

impl<'a> Said<'a> {
    fn gather(pairs: &[Pair<'a>]) -> Result<Self, ChapError> {
        let mut said = Self::default();
        for pair in pairs {
            let (place, key) = match pair.key {
                "CHAP_A" => (&mut said.algorithms, "CHAP_A"),
                "CHAP_I" => (&mut said.identifier, "CHAP_I"),
                "CHAP_C" => (&mut said.challenge, "CHAP_C"),
                "CHAP_N" => (&mut said.name, "CHAP_N"),
                "CHAP_R" => (&mut said.response, "CHAP_R"),
                _ => continue,
            };
            if place.replace(pair.value).is_some() {
                return Err(ChapError::OutOfTurn(key));
            }
        }
        Ok(said)
    }

    fn name(&self) -> Result<&'a str, ChapError> {
        let name = self.name.ok_or(ChapError::Missing("CHAP_N"))?;
        if (1..=MAX_NAME).contains(&name.len()) { Ok(name) } else { Err(ChapError::Malformed("CHAP_N")) }
    }

    /// CHAP_R of exactly the length that the algorithm gives.
    fn response(&self, algorithm: Algorithm) -> Result<Vec<u8>, ChapError> {
        let text = self.response.ok_or(ChapError::Missing("CHAP_R"))?;
        let response = binary_value(text, MAX_BINARY).filter(|response| response.len() == algorithm.length());
        response.ok_or(ChapError::Malformed("CHAP_R"))
    }

    /// CHAP_I and CHAP_C, which come together.
    fn question(&self) -> Result<(u8, Vec<u8>), ChapError> {
        let identifier = self.identifier.ok_or(ChapError::Missing("CHAP_I"))?;
        let identifier = super::keys::number(identifier).and_then(|number| u8::try_from(number).ok());
        let challenge = self.challenge.ok_or(ChapError::Missing("CHAP_C"))?;
        let challenge = binary_value(challenge, MAX_BINARY).filter(|challenge| !challenge.is_empty());
        let malformed = ChapError::Malformed;
        Ok((identifier.ok_or(malformed("CHAP_I"))?, challenge.ok_or(malformed("CHAP_C"))?))
    }
}

/// What must not be said yet, or any more.
fn refuse(others: &[(Option<&str>, &'static str)]) -> Result<(), ChapError> {
    match others.iter().find(|(value, _)| value.is_some()) {
        Some((_, key)) => Err(ChapError::OutOfTurn(key)),
        None => Ok(()),
    }
}

/// What a target asks of initiators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPolicy {
    /// Who may prove to be whom.
    pub accounts: Vec<Account>,
    /// What may be computed with, in no order: the initiator's preference is followed.
    pub algorithms: Vec<Algorithm>,
}

/// The target's side of one authentication.
#[derive(Debug)]
pub struct TargetChap {
    policy: TargetPolicy,
    nonce: Nonce,
    state: TargetState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TargetState {
    Begun,
    Challenged(Algorithm),
    /// Also after an error: a machine that misbehaved is not gone back to.
    Over,
}

impl TargetChap {
    /// Waits for CHAP_A.
    #[must_use]
    pub fn new(policy: TargetPolicy, nonce: Nonce) -> Self {
        Self { policy, nonce, state: TargetState::Begun }
    }

    /// Takes the CHAP keys of one whole text; the name that is proved, once it is.
    ///
    /// # Errors
    /// [`ChapError`]: the login ends with "authentication failure".
    pub fn handle(&mut self, pairs: &[Pair<'_>], answer: &mut Writer) -> Result<Option<String>, ChapError> {
        let said = Said::gather(pairs)?;
        match std::mem::replace(&mut self.state, TargetState::Over) {
            TargetState::Begun => {
                self.state = TargetState::Challenged(self.challenge(&said, answer)?);
                Ok(None)
            }
            TargetState::Challenged(algorithm) => self.verify(&said, algorithm, answer).map(Some),
            TargetState::Over => Err(ChapError::OutOfTurn("CHAP")),
        }
    }

    fn challenge(&self, said: &Said<'_>, answer: &mut Writer) -> Result<Algorithm, ChapError> {
        let offered = said.algorithms.ok_or(ChapError::Missing("CHAP_A"))?;
        refuse(&[(said.identifier, "CHAP_I"), (said.challenge, "CHAP_C"), (said.name, "CHAP_N"), (said.response, "CHAP_R")])?;
        let mut common = offered.split(',').take(MAX_OFFERED).filter_map(Algorithm::of_number);
        let algorithm = common.find(|algorithm| self.policy.algorithms.contains(algorithm)).ok_or(ChapError::Algorithm)?;
        answer.pair("CHAP_A", algorithm as u8);
        answer.pair("CHAP_I", self.nonce.identifier);
        answer.pair("CHAP_C", hex_constant(self.nonce.challenge_for(algorithm)));
        Ok(algorithm)
    }

    /// Whether there is no such name or its secret is another takes the same time and gets the same answer.
    fn verify(&self, said: &Said<'_>, algorithm: Algorithm, answer: &mut Writer) -> Result<String, ChapError> {
        refuse(&[(said.algorithms, "CHAP_A")])?;
        let (name, response) = (said.name()?, said.response(algorithm)?);
        let challenge = self.nonce.challenge_for(algorithm);
        let mut proved = None;
        for account in &self.policy.accounts {
            let expected = algorithm.response(self.nonce.identifier, &account.initiator.secret, challenge);
            let right = expected.ct_eq(&response) & name.as_bytes().ct_eq(account.initiator.user.as_bytes());
            if right.into() {
                proved = Some(account);
            }
        }
        let account = proved.ok_or_else(|| ChapError::Response(name.to_owned()))?;
        if said.identifier.is_some() || said.challenge.is_some() {
            let (identifier, question) = said.question()?;
            if question.as_slice() == challenge {
                return Err(ChapError::Reflection);
            }
            let mutual = account.mutual.as_ref().ok_or(ChapError::NoMutual)?;
            answer.pair("CHAP_N", &mutual.user);
            answer.pair("CHAP_R", hex_constant(&algorithm.response(identifier, &mutual.secret, &question)));
        }
        Ok(account.initiator.user.clone())
    }
}

/// What an initiator brings to an authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitiatorPolicy {
    /// Who it is; with a mutual credential the target has to prove itself.
    pub account: Account,
    /// What it offers, in order of preference. RFC 7143 (12.1.3) wants MD5 among them for the sake of old targets.
    pub algorithms: Vec<Algorithm>,
    /// What it challenges the target with, for a mutual authentication.
    pub nonce: Nonce,
}

/// The initiator's side of one authentication.
#[derive(Debug)]
pub struct InitiatorChap {
    policy: InitiatorPolicy,
    state: InitiatorState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitiatorState {
    Offered,
    /// The target has to answer our challenge.
    Asked(Algorithm),
    Over,
}

/// How far the initiator's side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitiatorStep {
    /// The target has to answer a challenge of ours.
    WaitForTarget,
    /// Our response is written; whether the target takes it shows in its answer.
    Done,
}

impl InitiatorChap {
    /// Writes CHAP_A.
    #[must_use]
    pub fn new(policy: InitiatorPolicy, offer: &mut Writer) -> Self {
        let numbers: Vec<String> = policy.algorithms.iter().map(|algorithm| (*algorithm as u8).to_string()).collect();
        offer.pair("CHAP_A", numbers.join(","));
        Self { policy, state: InitiatorState::Offered }
    }

    /// The name that it proves.
    #[must_use]
    pub fn user(&self) -> &str {
        self.policy.account.initiator.user()
    }

    /// Takes the CHAP keys of one whole text.
    ///
    /// # Errors
    /// [`ChapError`]: the connection must be closed, above all when it is the target that did not prove itself.
    pub fn handle(&mut self, pairs: &[Pair<'_>], answer: &mut Writer) -> Result<InitiatorStep, ChapError> {
        let said = Said::gather(pairs)?;
        match std::mem::replace(&mut self.state, InitiatorState::Over) {
            InitiatorState::Offered => self.respond(&said, answer),
            InitiatorState::Asked(algorithm) => self.verify(&said, algorithm),
            InitiatorState::Over => Err(ChapError::OutOfTurn("CHAP")),
        }
    }

    fn respond(&mut self, said: &Said<'_>, answer: &mut Writer) -> Result<InitiatorStep, ChapError> {
        refuse(&[(said.name, "CHAP_N"), (said.response, "CHAP_R")])?;
        let chosen = Algorithm::of_number(said.algorithms.ok_or(ChapError::Missing("CHAP_A"))?);
        let offered = |algorithm: &Algorithm| self.policy.algorithms.contains(algorithm);
        let algorithm = chosen.filter(offered).ok_or(ChapError::Algorithm)?;
        let (identifier, challenge) = said.question()?;
        let account = &self.policy.account;
        let own = self.policy.nonce.challenge_for(algorithm);
        if account.mutual.is_some() && challenge == own {
            return Err(ChapError::Reflection);
        }
        answer.pair("CHAP_N", &account.initiator.user);
        let response = algorithm.response(identifier, &account.initiator.secret, &challenge);
        answer.pair("CHAP_R", hex_constant(&response));
        if account.mutual.is_none() {
            return Ok(InitiatorStep::Done);
        }
        answer.pair("CHAP_I", self.policy.nonce.identifier);
        answer.pair("CHAP_C", hex_constant(own));
        self.state = InitiatorState::Asked(algorithm);
        Ok(InitiatorStep::WaitForTarget)
    }

    fn verify(&self, said: &Said<'_>, algorithm: Algorithm) -> Result<InitiatorStep, ChapError> {
        refuse(&[(said.algorithms, "CHAP_A"), (said.identifier, "CHAP_I"), (said.challenge, "CHAP_C")])?;
        let (name, response) = (said.name()?, said.response(algorithm)?);
        let mutual = self.policy.account.mutual.as_ref().ok_or(ChapError::NoMutual)?;
        let nonce = &self.policy.nonce;
        let expected = algorithm.response(nonce.identifier, &mutual.secret, nonce.challenge_for(algorithm));
        let right = expected.ct_eq(&response) & name.as_bytes().ct_eq(mutual.user.as_bytes());
        if right.into() { Ok(InitiatorStep::Done) } else { Err(ChapError::Response(name.to_owned())) }
    }
}
