//! Representations of data (RODs) and the tokens that stand for them.
//!
//! A token is 512 bytes: what it says of itself, and at its end 2,048 bits that nobody can guess. Here it is cut, written and compared;
//! who made which, and how long it is good for, is a copy manager's business.
//!
//! Follows SPC-4, "RODs and ROD tokens", "ROD CSCD descriptor"; SBC-4, "Block device ROD token operations".

use std::fmt;

use subtle::ConstantTimeEq;

use super::cscd::{CscdDescriptor, CscdFault, CscdId, CscdName};
use crate::scsi::Sense;
use crate::scsi::designator::{Association, Designator};
use crate::units::{BlockCount, Lba};

/// ROD TYPE. SPC-4, table "ROD types"; SBC-4, table "ROD token type values".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum RodType {
    /// Point in time copy – default.
    Default = 0x0080_0000,
    /// Point in time copy – change vulnerable.
    ChangeVulnerable = 0x0080_0001,
    /// Point in time copy – persistent.
    Persistent = 0x0080_0002,
    /// Point in time copy – any: becomes [`RodType::Persistent`].
    Any = 0x0080_FFFF,
    /// Block device zero ROD token.
    Zero = 0xFFFF_0001,
}

/// One row per ROD type that is supported here.
#[derive(Debug)]
pub struct RodTypeRow {
    /// ROD TYPE; zero stands for the type that a token brings along.
    pub code: u32,
    /// ECPY_INT: for RODs inside an EXTENDED COPY.
    pub internal: bool,
    /// TOKEN_IN: tokens of this type are taken.
    pub token_in: bool,
    /// TOKEN_OUT: tokens of this type are made.
    pub token_out: bool,
}

const fn row(code: u32, internal: bool, token_in: bool, token_out: bool) -> RodTypeRow {
    RodTypeRow { code, internal, token_in, token_out }
}

/// ROD types, ascending, as VPD page 8Fh lists them.
pub const ROD_TYPES: &[RodTypeRow] = &[
    row(BY_TOKEN, true, false, false),
    row(RodType::Default as u32, true, true, true),
    row(RodType::ChangeVulnerable as u32, true, true, true),
    row(RodType::Persistent as u32, true, true, true),
    // What comes of it is a persistent one.
    row(RodType::Any as u32, true, false, false),
    row(RodType::Zero as u32, false, true, false),
];

/// ROD TYPE zero of a ROD CSCD descriptor: that of the token it refers to.
pub const BY_TOKEN: u32 = 0;

impl RodType {
    /// The type of a code.
    #[must_use]
    pub fn of(code: u32) -> Option<Self> {
        [Self::Default, Self::ChangeVulnerable, Self::Persistent, Self::Any, Self::Zero]
            .into_iter()
            .find(|kind| *kind as u32 == code)
    }

    /// What is created when a point in time copy of this type is asked for; `None` for a type that is none.
    #[must_use]
    pub const fn created(self) -> Option<Self> {
        match self {
            Self::Default | Self::ChangeVulnerable | Self::Persistent => Some(self),
            Self::Any => Some(Self::Persistent),
            Self::Zero => None,
        }
    }
}

/// MINIMUM TOKEN LIFETIME, in seconds.
pub const MIN_TOKEN_LIFETIME: u32 = 60;
/// What a token lives, in seconds, whose maker asks for nothing: POPULATE TOKEN has no field for it.
pub const DEFAULT_TOKEN_LIFETIME: u32 = 3600;
/// MAXIMUM TOKEN LIFETIME, in seconds.
pub const MAX_TOKEN_LIFETIME: u32 = 24 * 3600;
/// DEFAULT INACTIVITY TIMEOUT, in seconds.
pub const DEFAULT_INACTIVITY_TIMEOUT: u32 = 120;
/// MAXIMUM TOKEN INACTIVITY TIMEOUT and MAXIMUM INACTIVITY TIMEOUT, in seconds.
pub const MAX_INACTIVITY_TIMEOUT: u32 = 3600;
/// MAXIMUM RANGE DESCRIPTORS.
pub const MAX_RANGES: usize = 256;
/// MAXIMUM BYTES IN BLOCK ROD; MAXIMUM TOKEN TRANSFER SIZE is as many blocks.
pub const MAX_ROD_BYTES: u64 = 1 << 40;
/// OPTIMAL BYTES IN BLOCK ROD TRANSFER; OPTIMAL TRANSFER COUNT is as many blocks. What the slowest disk moves in about ten seconds.
pub const OPTIMAL_ROD_BYTES: u64 = 1 << 30;

/// A stretch of blocks. SBC-4, "Block device range descriptor"; SPC-4, table "Populate a ROD four gibi-block range descriptor".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeDescriptor {
    /// LOGICAL BLOCK ADDRESS.
    pub lba: Lba,
    /// NUMBER OF LOGICAL BLOCKS; none are no error.
    pub blocks: u32,
}

impl RangeDescriptor {
    /// Bytes of a descriptor.
    pub const LENGTH: usize = 16;

    /// All whole descriptors of a list.
    #[must_use]
    pub fn parse_list(list: &[u8]) -> Vec<Self> {
        let (whole, _) = list.as_chunks::<{ Self::LENGTH }>();
        let read = |bytes: &[u8; Self::LENGTH]| Self {
            lba: Lba(u64::from_be_bytes(*bytes.first_chunk().expect("sixteen bytes"))),
            blocks: u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
        };
        whole.iter().map(read).collect()
    }

    /// Appends the descriptor's bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lba.0.to_be_bytes());
        out.extend_from_slice(&self.blocks.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    /// The index of a range, in the order given, that has a block of another one; `None` where they are apart.
    #[must_use]
    pub fn overlap(ranges: &[Self]) -> Option<usize> {
        let mut order: Vec<usize> = (0..ranges.len()).filter(|index| ranges[*index].blocks > 0).collect();
        order.sort_by_key(|index| ranges[*index].lba);
        let end = |index: usize| u128::from(ranges[index].lba.0) + u128::from(ranges[index].blocks);
        let pair = order.windows(2).find(|pair| end(pair[0]) > u128::from(ranges[pair[1]].lba.0))?;
        Some(pair[0].max(pair[1]))
    }

    /// Blocks of all of them.
    #[must_use]
    pub fn total(ranges: &[Self]) -> BlockCount {
        BlockCount(ranges.iter().map(|range| u64::from(range.blocks)).sum())
    }
}

/// What READ CAPACITY(16) says of the logical unit that a token is of. SBC-4, table "ROD token device type specific data".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockFacts {
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block_length: u32,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, four bits.
    pub physical_exponent: u8,
    /// LBPME, with which LBPRZ goes here.
    pub thin: bool,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS, 14 bits.
    pub lowest_aligned: u16,
}

/// A ROD token. SPC-4, table "Generic ROD token format".
#[derive(Clone, PartialEq, Eq)]
pub struct RodToken(Box<[u8; Self::LENGTH]>);

/// Of which type a token is, where it is one that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// ROD TOKEN LENGTH is not what all tokens have.
    #[error("ROD TOKEN LENGTH is {0:#06x}")]
    Length(u16),
    /// ROD TYPE is none whose tokens are taken.
    #[error("tokens of type {0:08X}h are not taken")]
    Type(u32),
    /// What is reserved is not zero, or the creator's descriptor is none.
    #[error("the token is damaged")]
    Corrupt,
}

impl TokenFault {
    /// SPC-4, "Validation errors for generic ROD tokens"; SBC-4, "WRITE USING TOKEN command".
    #[must_use]
    pub const fn sense(self) -> Sense {
        match self {
            Self::Length(_) => Sense::INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH,
            Self::Type(_) => Sense::INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE,
            Self::Corrupt => Sense::INVALID_TOKEN_OPERATION_TOKEN_CORRUPT,
        }
    }
}

/// Random bytes at the end of a token: EXTENDED ROD TOKEN DATA.
pub type Secret = [u8; 256];

impl RodToken {
    /// Bytes of a token.
    pub const LENGTH: usize = 512;
    /// Bytes of header and body: a ROD management token.
    pub const MANAGEMENT_LENGTH: usize = 96;
    /// ROD TOKEN LENGTH: what follows it.
    const FOLLOWING: u16 = 0x01F8;
    /// Places of fields.
    const CREATOR: std::ops::Range<usize> = 16..48;
    const BYTES: std::ops::Range<usize> = 48..64;
    const DEVICE: usize = 96;
    const TARGET: std::ops::Range<usize> = 128..256;
    const SECRET: usize = 256;

    /// A token for `bytes` bytes of the logical unit that `creator` describes, at the target of this iSCSI name; `secret` is random.
    /// A name too long for the field is cut.
    #[must_use]
    pub fn new(
        kind: RodType,
        identifier: u64,
        creator: &CscdDescriptor,
        bytes: u64,
        facts: BlockFacts,
        target: &str,
        secret: &Secret,
    ) -> Self {
        let mut token = Self::header(kind);
        let out = &mut token.0;
        out[8..16].copy_from_slice(&identifier.to_be_bytes());
        out[Self::CREATOR].copy_from_slice(&creator.emit());
        out[Self::BYTES].copy_from_slice(&u128::from(bytes).to_be_bytes());
        let device = &mut out[Self::DEVICE..];
        device[..4].copy_from_slice(&facts.block_length.to_be_bytes());
        device[5] = facts.physical_exponent & 0x0F;
        let provisioning = if facts.thin { 0xC000 } else { 0 };
        device[6..8].copy_from_slice(&(provisioning | facts.lowest_aligned & 0x3FFF).to_be_bytes());
        // Header of four bytes, and a zero behind the name.
        let room = Self::TARGET.len() - 5;
        let cut = (0..=room.min(target.len())).rev().find(|end| target.is_char_boundary(*end)).unwrap_or(0);
        let name = Designator::name_string(Association::TargetDevice, &target[..cut]).emit();
        out[Self::TARGET][..name.len()].copy_from_slice(&name);
        out[Self::SECRET..].copy_from_slice(secret);
        token
    }

    /// The block device zero ROD token, which everybody knows. SBC-4, table "Block device zero ROD token format".
    #[must_use]
    pub fn zero() -> Self {
        Self::header(RodType::Zero)
    }

    fn header(kind: RodType) -> Self {
        let mut out = [0; Self::LENGTH];
        out[..4].copy_from_slice(&(kind as u32).to_be_bytes());
        out[6..8].copy_from_slice(&Self::FOLLOWING.to_be_bytes());
        Self(Box::new(out))
    }

    /// From its bytes, of which nothing is believed yet but the form.
    ///
    /// # Errors
    /// [`TokenFault`], in the order in which the standard wants them told.
    pub fn parse(bytes: &[u8; Self::LENGTH]) -> Result<Self, TokenFault> {
        let length = u16::from_be_bytes([bytes[6], bytes[7]]);
        if length != Self::FOLLOWING {
            return Err(TokenFault::Length(length));
        }
        let code = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let token = Self(Box::new(*bytes));
        if code != RodType::Zero as u32 && !token.is_well_formed() {
            return Err(TokenFault::Corrupt);
        }
        let taken = ROD_TYPES.iter().any(|row| row.code == code && row.token_in);
        if taken { Ok(token) } else { Err(TokenFault::Type(code)) }
    }

    /// What every token that a copy manager makes has: reserved bytes are zero, and an identification descriptor names a logical unit.
    fn is_well_formed(&self) -> bool {
        let reserved = self.0[4..6].iter().chain(&self.0[64..Self::DEVICE]);
        let creator = &self.0[Self::CREATOR];
        let names_a_unit = |creator: CscdDescriptor| matches!(creator.name, CscdName::Designator(designator) if matches!(designator.designator_type, 2 | 3));
        let creator = (creator[0] == super::cscd::IDENTIFICATION).then(|| CscdDescriptor::parse(creator).ok()).flatten();
        reserved.copied().all(|byte| byte == 0) && creator.is_some_and(names_a_unit)
    }

    /// ROD TYPE.
    #[must_use]
    pub fn kind(&self) -> u32 {
        u32::from_be_bytes(*self.0.first_chunk().expect("a token is long"))
    }

    /// True for the one that everybody knows.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.kind() == RodType::Zero as u32
    }

    /// COPY MANAGER ROD TOKEN IDENTIFIER.
    #[must_use]
    pub fn identifier(&self) -> u64 {
        u64::from_be_bytes(*self.0[8..].first_chunk().expect("a token is long"))
    }

    /// NUMBER OF BYTES REPRESENTED, as far as 64 bits tell it.
    #[must_use]
    pub fn bytes_represented(&self) -> u64 {
        let bytes = u128::from_be_bytes(*self.0[Self::BYTES].first_chunk().expect("sixteen bytes"));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// TARGET DEVICE DESCRIPTOR.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        &self.0[Self::TARGET]
    }

    /// Whether all bytes are equal, found out in a time that does not tell how many are.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    /// All its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// Header and body, without what makes it valid. SPC-4, "ROD management token".
    #[must_use]
    pub fn management(&self) -> &[u8] {
        &self.0[..Self::MANAGEMENT_LENGTH]
    }
}

impl fmt::Debug for RodToken {
    /// Whoever has a token may use it: its secret goes into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RodToken({:08X}h, {:016x})", self.kind(), self.identifier())
    }
}

/// A ROD CSCD descriptor (FEh): a ROD that segments of the list populate, or the one that a token in the inline data stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RodCscd {
    /// ROD PRODUCER CSCD DESCRIPTOR ID.
    pub producer: CscdId,
    /// ROD TYPE; `None` for zero: that of the token.
    pub kind: Option<RodType>,
    /// REQUESTED ROD TOKEN LIFETIME, in seconds.
    pub lifetime: u32,
    /// REQUESTED ROD TOKEN INACTIVITY TIMEOUT, in seconds; zero is none.
    pub inactivity_timeout: u32,
    /// R_TOKEN: a token is made of the ROD.
    pub returns_token: bool,
    /// DEL_TKN: the token is deleted at the end.
    pub deletes_token: bool,
    /// ROD TOKEN OFFSET into the inline data.
    pub token_offset: u32,
}

impl RodCscd {
    /// DESCRIPTOR TYPE CODE.
    pub const CODE: u8 = 0xFE;

    /// The ROD of a token that lies at `offset` of the inline data.
    #[must_use]
    pub const fn of_token(offset: u32) -> Self {
        Self {
            producer: CscdId::THIS_LUN,
            kind: None,
            lifetime: 0,
            inactivity_timeout: 0,
            returns_token: false,
            deletes_token: false,
            token_offset: offset,
        }
    }

    /// A ROD that segments populate, of which no token is made.
    #[must_use]
    pub const fn internal(kind: RodType) -> Self {
        Self { kind: Some(kind), ..Self::of_token(0) }
    }

    /// Reads bytes 4 to 27 of a descriptor whose type code is FEh. SPC-4, "ROD CSCD descriptor" and table 144.
    pub(super) fn parse(bytes: &[u8; super::CSCD_LENGTH]) -> Result<Self, CscdFault> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let fault = |byte| Err(CscdFault::Field(byte));
        let code = word(8);
        let kind = RodType::of(code).filter(|kind| kind.created().is_some());
        if code != BY_TOKEN && kind.is_none() {
            return fault(8);
        }
        let descriptor = Self {
            producer: CscdId(u16::from_be_bytes([bytes[4], bytes[5]])),
            kind,
            lifetime: word(12),
            inactivity_timeout: word(16),
            returns_token: bytes[22] & 1 != 0,
            deletes_token: bytes[23] & 1 != 0,
            token_offset: word(24),
        };
        match (descriptor.producer, kind) {
            (CscdId::THIS_LUN, _) | (CscdId::ROD, None) => {}
            (CscdId::ROD, Some(_)) => return fault(4),
            _ => return Err(CscdFault::RemoteRod),
        }
        match kind {
            None if descriptor.returns_token => return fault(22),
            Some(_) if bytes[1] & 0x1F != 0x00 => return fault(1),
            Some(_) if descriptor.deletes_token => return fault(23),
            Some(_) if descriptor.token_offset != 0 => return fault(24),
            _ => {}
        }
        let most = |limit| if descriptor.returns_token { limit } else { 0 };
        if descriptor.lifetime > most(MAX_TOKEN_LIFETIME) {
            return fault(12);
        }
        if descriptor.inactivity_timeout > most(MAX_INACTIVITY_TIMEOUT) {
            return fault(16);
        }
        Ok(descriptor)
    }

    pub(super) fn emit(&self, bytes: &mut [u8]) {
        bytes[4..6].copy_from_slice(&self.producer.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.kind.map_or(BY_TOKEN, |kind| kind as u32).to_be_bytes());
        bytes[12..16].copy_from_slice(&self.lifetime.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.inactivity_timeout.to_be_bytes());
        bytes[22] = u8::from(self.returns_token);
        bytes[23] = u8::from(self.deletes_token);
        bytes[24..28].copy_from_slice(&self.token_offset.to_be_bytes());
    }
}
