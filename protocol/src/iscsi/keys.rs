//! The text keys: one table that drives both sides of every negotiation.
//!
//! A row says what values a key takes, how an offer and an own setting become one result, what holds when nobody says
//! anything, who may send it and when. How a login goes through them is in `negotiation`; names of initiators and targets are
//! kept as text by the login.
//!
//! RFC 7143 (6.2), (13).

mod negotiation;
#[cfg(test)]
mod tests;

pub use negotiation::{NegotiationError, Negotiator, Parameters};

/// The keys of RFC 7143 (13) and RFC 7144 that either side knows, in the order of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Key {
    AuthMethod,
    HeaderDigest,
    DataDigest,
    MaxConnections,
    SendTargets,
    TargetName,
    InitiatorName,
    TargetAlias,
    InitiatorAlias,
    TargetAddress,
    TargetPortalGroupTag,
    InitialR2T,
    ImmediateData,
    MaxRecvDataSegmentLength,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2T,
    DataPDUInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    SessionType,
    IFMarker,
    OFMarker,
    IFMarkInt,
    OFMarkInt,
    TaskReporting,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Yes` or `No`, kept as 1 and 0.
    Boolean,
    /// A number within bounds, decimal or hexadecimal.
    Number {
        /// Least value.
        min: u32,
        /// Greatest value.
        max: u32,
    },
    /// One of a list; kept as the place in this row. An offer lists values in order of preference.
    Choice(&'static [&'static str]),
    /// Text that the login or a text request handles itself.
    Text,
    /// No longer negotiated; an offer is answered `Reject` (13, obsoleted keys).
    Obsolete,
}

/// How an offer and the answerer's own setting become one result. RFC 7143 (6.2.1), (6.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Not negotiated: each side says its own.
    Declare,
    /// `Yes` when both say so.
    And,
    /// `Yes` when one says so.
    Or,
    /// The smaller number.
    Min,
    /// The greater number.
    Max,
    /// The first of the offered list that the answerer takes.
    First,
}

/// Who may send a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Sender {
    Initiator,
    Target,
    Both,
}

/// When a key may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Security negotiation.
    Security,
    /// Operational negotiation.
    Operational,
    /// Any stage of the login.
    Login,
    /// Text requests of the full feature phase.
    FullFeature,
    /// Operational negotiation and text requests.
    OperationalAndFullFeature,
    /// Login and text responses.
    Any,
}

/// All there is to say about a key.
#[derive(Debug)]
pub struct KeySpec {
    /// Which.
    pub key: Key,
    /// As it is written.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// How it is settled.
    pub rule: Rule,
    /// What holds when nobody says anything; of no meaning for text.
    pub default: u32,
    /// Who may send it.
    pub sender: Sender,
    /// When.
    pub phase: Phase,
    /// Of no meaning in a discovery session: an offer is answered `Irrelevant`.
    pub irrelevant_in_discovery: bool,
}

const DIGESTS: Kind = Kind::Choice(&["None", "CRC32C"]);
const SEGMENT: Kind = Kind::Number { min: 512, max: 0xFF_FFFF };

/// A row of the table; `normal` marks keys that mean nothing in a discovery session.
macro_rules! rows {
    ($($key:ident $kind:expr, $rule:ident, $default:expr, $sender:ident, $phase:ident $(, $normal:ident)?;)*) => {
        &[$(KeySpec {
            key: Key::$key,
            name: stringify!($key),
            kind: $kind,
            rule: Rule::$rule,
            default: $default,
            sender: Sender::$sender,
            phase: Phase::$phase,
            irrelevant_in_discovery: rows!(@discovery $($normal)?),
        }),*]
    };
    (@discovery) => { false };
    (@discovery normal) => { true };
}

/// Every key, in the order of [`Key`].
pub const KEYS: &[KeySpec] = rows! {
    AuthMethod               Kind::Choice(&["None", "CHAP"]), First, 0, Both, Security;
    HeaderDigest             DIGESTS, First, 0, Both, Operational;
    DataDigest               DIGESTS, First, 0, Both, Operational;
    MaxConnections           Kind::Number { min: 1, max: 65_535 }, Min, 1, Both, Operational, normal;
    SendTargets              Kind::Text, Declare, 0, Initiator, FullFeature;
    TargetName               Kind::Text, Declare, 0, Both, Any;
    InitiatorName            Kind::Text, Declare, 0, Initiator, Login;
    TargetAlias              Kind::Text, Declare, 0, Target, Any;
    InitiatorAlias           Kind::Text, Declare, 0, Initiator, Any;
    TargetAddress            Kind::Text, Declare, 0, Target, Any;
    TargetPortalGroupTag     Kind::Number { min: 0, max: 65_535 }, Declare, 0, Target, Login;
    InitialR2T               Kind::Boolean, Or, 1, Both, Operational, normal;
    ImmediateData            Kind::Boolean, And, 1, Both, Operational, normal;
    MaxRecvDataSegmentLength SEGMENT, Declare, 8192, Both, OperationalAndFullFeature;
    MaxBurstLength           SEGMENT, Min, 262_144, Both, Operational, normal;
    FirstBurstLength         SEGMENT, Min, 65_536, Both, Operational, normal;
    DefaultTime2Wait         Kind::Number { min: 0, max: 3600 }, Max, 2, Both, Operational;
    DefaultTime2Retain       Kind::Number { min: 0, max: 3600 }, Min, 20, Both, Operational;
    MaxOutstandingR2T        Kind::Number { min: 1, max: 65_535 }, Min, 1, Both, Operational, normal;
    DataPDUInOrder           Kind::Boolean, Or, 1, Both, Operational, normal;
    DataSequenceInOrder      Kind::Boolean, Or, 1, Both, Operational, normal;
    ErrorRecoveryLevel       Kind::Number { min: 0, max: 2 }, Min, 0, Both, Operational;
    SessionType              Kind::Choice(&["Normal", "Discovery"]), Declare, 0, Initiator, Login;
    IFMarker                 Kind::Boolean, And, 0, Both, Operational;
    OFMarker                 Kind::Boolean, And, 0, Both, Operational;
    IFMarkInt                Kind::Obsolete, Min, 0, Both, Operational;
    OFMarkInt                Kind::Obsolete, Min, 0, Both, Operational;
    TaskReporting            Kind::Choice(&["RFC3720"]), First, 0, Both, Operational;
};

/// How many keys there are.
pub const COUNT: usize = KEYS.len();

/// The table lies in the order of [`Key`], so that a key is its own row.
const _: () = {
    let mut row = 0;
    while row < COUNT {
        assert!(KEYS[row].key as usize == row);
        row += 1;
    }
};

impl Key {
    /// Its row.
    #[must_use]
    pub const fn spec(self) -> &'static KeySpec {
        &KEYS[self as usize]
    }

    /// The key of a name; names are case-sensitive.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        KEYS.iter().find(|spec| spec.name == name).map(|spec| spec.key)
    }
}

impl KeySpec {
    /// One value as text says it; `None` when it is none of this key's.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<u32> {
        match self.kind {
            Kind::Boolean => match text {
                "Yes" => Some(1),
                "No" => Some(0),
                _ => None,
            },
            Kind::Number { min, max } => number(text).filter(|value| (min..=max).contains(value)),
            Kind::Choice(choices) => choices.iter().position(|choice| *choice == text).map(|place| place as u32),
            Kind::Text | Kind::Obsolete => None,
        }
    }

    /// A value as it is written.
    #[must_use]
    pub fn format(&self, value: u32) -> String {
        match self.kind {
            Kind::Boolean => if value == 0 { "No" } else { "Yes" }.to_owned(),
            Kind::Choice(choices) => choices.get(value as usize).copied().unwrap_or("Reject").to_owned(),
            Kind::Number { .. } | Kind::Text | Kind::Obsolete => value.to_string(),
        }
    }

    /// The result of an offer against the answerer's own setting; `None` when there is none and the answer is `Reject`.
    #[must_use]
    pub fn settle(&self, offered: &str, own: Setting) -> Option<u32> {
        if self.rule == Rule::First {
            return offered.split(',').filter_map(|one| self.parse(one)).find(|choice| own.takes(*choice));
        }
        let offered = self.parse(offered)?;
        Some(match self.rule {
            Rule::And | Rule::Min => offered.min(own.0),
            Rule::Or | Rule::Max => offered.max(own.0),
            Rule::Declare | Rule::First => offered,
        })
    }

    fn allowed_in(&self, stage: Stage) -> bool {
        match self.phase {
            Phase::Security => stage == Stage::Security,
            Phase::Operational | Phase::OperationalAndFullFeature => stage == Stage::Operational,
            Phase::Login | Phase::Any => true,
            Phase::FullFeature => false,
        }
    }
}

/// A number as text says it: decimal, or hexadecimal behind `0x`. RFC 7143 (6.1).
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

/// Our own wish for a key: a number, a boolean, or for [`Kind::Choice`] one bit per place in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting(pub u32);

impl Setting {
    fn takes(self, choice: u32) -> bool {
        self.0 & 1 << choice != 0
    }
}

/// Stage of a login. RFC 7143 (6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Stage {
    Security = 0,
    Operational = 1,
    FullFeature = 3,
}

impl Stage {
    /// `None` for the code that is reserved.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code & 3 {
            0 => Some(Self::Security),
            1 => Some(Self::Operational),
            3 => Some(Self::FullFeature),
            _ => None,
        }
    }
}

/// What one side of a session wishes for, and with defaults what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Digests taken; CRC32C is preferred where both take it.
    pub header_digest: DigestWish,
    /// As for headers.
    pub data_digest: DigestWish,
    /// In bytes.
    pub max_recv_data_segment_length: u32,
    /// In bytes.
    pub max_burst_length: u32,
    /// In bytes.
    pub first_burst_length: u32,
    /// Data-Out only when asked for.
    pub initial_r2t: bool,
    /// Data-Out within the command.
    pub immediate_data: bool,
    /// R2Ts of one command at a time.
    pub max_outstanding_r2t: u32,
    /// Connections of one session.
    pub max_connections: u32,
    /// 0 or 1: this side knows no connection recovery.
    pub error_recovery_level: u32,
    /// How long a session may outlive its last connection, in seconds.
    pub default_time2retain: u32,
}

/// What a side does about a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestWish {
    /// Refuses it.
    Never,
    /// Takes it when the peer asks.
    Accept,
    /// Asks for it.
    Prefer,
    /// Takes nothing else.
    Require,
}

impl DigestWish {
    const fn choices(self) -> Setting {
        Setting(match self {
            Self::Never => 0b01,
            Self::Accept | Self::Prefer => 0b11,
            Self::Require => 0b10,
        })
    }

    const fn offer(self) -> Option<&'static str> {
        match self {
            Self::Never => Some("None"),
            Self::Accept => Some("None,CRC32C"),
            Self::Prefer => Some("CRC32C,None"),
            Self::Require => Some("CRC32C"),
        }
    }
}

impl Default for Wishes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Wishes {
    /// Large segments and bursts, no round trip before small writes: see the crate's benchmarks of other targets.
    pub const DEFAULT: Self = Self {
        header_digest: DigestWish::Accept,
        data_digest: DigestWish::Accept,
        max_recv_data_segment_length: 256 * 1024,
        max_burst_length: 1024 * 1024,
        first_burst_length: 256 * 1024,
        initial_r2t: false,
        immediate_data: true,
        max_outstanding_r2t: 4,
        max_connections: 1,
        error_recovery_level: 0,
        default_time2retain: Key::DefaultTime2Retain.spec().default,
    };

    /// Keeps every number within its row's bounds, so that a careless configuration cannot break the protocol.
    #[must_use]
    pub fn clamped(mut self) -> Self {
        let bounded = |value: &mut u32, key: Key| {
            if let Kind::Number { min, max } = key.spec().kind {
                *value = (*value).clamp(min, max);
            }
        };
        bounded(&mut self.max_recv_data_segment_length, Key::MaxRecvDataSegmentLength);
        bounded(&mut self.max_burst_length, Key::MaxBurstLength);
        bounded(&mut self.first_burst_length, Key::FirstBurstLength);
        bounded(&mut self.max_outstanding_r2t, Key::MaxOutstandingR2T);
        bounded(&mut self.max_connections, Key::MaxConnections);
        bounded(&mut self.default_time2retain, Key::DefaultTime2Retain);
        self.error_recovery_level = self.error_recovery_level.min(1);
        self.first_burst_length = self.first_burst_length.min(self.max_burst_length);
        self
    }

    /// What we want of a key; for keys without a wish the table's default, which always is a fixed limit of ours.
    fn setting(&self, key: Key) -> Setting {
        match key {
            Key::HeaderDigest => self.header_digest.choices(),
            Key::DataDigest => self.data_digest.choices(),
            Key::MaxRecvDataSegmentLength => Setting(self.max_recv_data_segment_length),
            Key::MaxBurstLength => Setting(self.max_burst_length),
            Key::FirstBurstLength => Setting(self.first_burst_length),
            Key::InitialR2T => Setting(u32::from(self.initial_r2t)),
            Key::ImmediateData => Setting(u32::from(self.immediate_data)),
            Key::MaxOutstandingR2T => Setting(self.max_outstanding_r2t),
            Key::MaxConnections => Setting(self.max_connections),
            Key::ErrorRecoveryLevel => Setting(self.error_recovery_level),
            Key::DefaultTime2Retain => Setting(self.default_time2retain),
            Key::AuthMethod | Key::TaskReporting => Setting(0b1),
            _ => Setting(key.spec().default),
        }
    }
}
