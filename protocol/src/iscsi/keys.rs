//! The text keys: one table that drives both sides of every negotiation.
//!
//! A row says what values a key takes, how an offer and an own setting become one result, what holds when nobody says
//! anything, who may send it and when. Names of initiators and targets are kept as text by the login.
//!
//! RFC 7143 (6.2), (13).

use super::pdu::Digests;
use super::text::Writer;

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

/// What both sides agreed on, with the meaning of each number spelled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Digests of the full feature phase.
    pub digests: Digests,
    /// Longest data segment we take, in bytes.
    pub max_recv_data_segment_length: u32,
    /// Longest data segment the peer takes, in bytes.
    pub max_send_data_segment_length: u32,
    /// Most Data-Out one R2T asks for, and most Data-In before a final bit, in bytes.
    pub max_burst_length: u32,
    /// Most unsolicited Data-Out of one command, immediate data included, in bytes.
    pub first_burst_length: u32,
    /// Data-Out only when asked for.
    pub initial_r2t: bool,
    /// Data-Out within the command.
    pub immediate_data: bool,
    /// R2Ts of one command at a time.
    pub max_outstanding_r2t: u32,
    /// In seconds.
    pub default_time2wait: u16,
    /// In seconds.
    pub default_time2retain: u16,
    /// Connections of the session.
    pub max_connections: u16,
    /// 0 or 1.
    pub error_recovery_level: u8,
}

/// What is wrong with a peer's negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// RFC 7143 (6.2): no key twice in one login.
    #[error("{0} was negotiated twice")]
    Twice(&'static str),
    /// The peer may not send it.
    #[error("{0} is not the peer's to send")]
    NotTheirs(&'static str),
    /// A value outside of what the key takes.
    #[error("{0} has a value it may not have")]
    Value(&'static str),
    /// An answer that does not follow from the offer.
    #[error("the answer to {0} does not follow from the offer")]
    Answer(&'static str),
}

/// One side's part in the negotiation of a login.
#[derive(Debug)]
pub struct Negotiator {
    side: Sender,
    wishes: Wishes,
    discovery: bool,
    results: [u32; COUNT],
    peer_max_recv: u32,
    offered: u64,
    settled: u64,
}

const fn bit(key: Key) -> u64 {
    1 << key as u8
}

/// `offered` and `settled` have a bit for each key.
const _: () = assert!(COUNT <= 64);

impl Negotiator {
    /// `side` is the one we are: [`Sender::Initiator`] or [`Sender::Target`].
    #[must_use]
    pub fn new(side: Sender, wishes: Wishes) -> Self {
        let mut results = [0; COUNT];
        for spec in KEYS {
            results[spec.key as usize] = spec.default;
        }
        let peer_max_recv = Key::MaxRecvDataSegmentLength.spec().default;
        Self { side, wishes: wishes.clamped(), discovery: false, results, peer_max_recv, offered: 0, settled: 0 }
    }

    /// Says that the session is for discovery.
    pub fn set_discovery(&mut self, discovery: bool) {
        self.discovery = discovery;
    }

    /// Takes so many connections of the session from now on, and not what was wished for. For the target, before it answers.
    pub fn limit_connections(&mut self, most: u16) {
        self.wishes = Wishes { max_connections: most.into(), ..self.wishes }.clamped();
    }

    /// Offers all that differs from the defaults or has to be said. For the initiator, once, in the operational stage.
    pub fn offer_all(&mut self, writer: &mut Writer) {
        let relevant = KEYS.iter().filter(|spec| spec.phase == Phase::Operational && spec.sender == Sender::Both);
        for spec in relevant.filter(|spec| !(self.discovery && spec.irrelevant_in_discovery)) {
            let own = self.wishes.setting(spec.key);
            let value = match spec.key {
                Key::HeaderDigest => self.wishes.header_digest.offer().map(str::to_owned),
                Key::DataDigest => self.wishes.data_digest.offer().map(str::to_owned),
                _ if spec.rule == Rule::First || spec.kind == Kind::Obsolete => None,
                Key::IFMarker | Key::OFMarker => None,
                _ => Some(spec.format(own.0)),
            };
            if let Some(value) = value {
                writer.pair(spec.name, value);
                self.offered |= bit(spec.key);
            }
        }
        self.declare(writer);
    }

    /// Says what is ours to declare, once.
    pub fn declare(&mut self, writer: &mut Writer) {
        if self.offered & bit(Key::MaxRecvDataSegmentLength) == 0 {
            self.offered |= bit(Key::MaxRecvDataSegmentLength);
            writer.pair(Key::MaxRecvDataSegmentLength.spec().name, self.wishes.max_recv_data_segment_length);
        }
    }

    /// Takes one pair of the peer's and writes the answer, if it wants one. Text keys are the caller's.
    ///
    /// # Errors
    /// See [`NegotiationError`]: the login ends.
    pub fn handle(&mut self, name: &str, value: &str, stage: Stage, answer: &mut Writer) -> Result<(), NegotiationError> {
        let Some(key) = Key::by_name(name) else {
            // An answer to a key that we never offered is dropped, lest both sides answer each other for ever.
            if value != "NotUnderstood" {
                answer.pair(name, "NotUnderstood");
            }
            return Ok(());
        };
        let spec = key.spec();
        let is_answer = self.offered & bit(key) != 0 && spec.rule != Rule::Declare;
        if self.settled & bit(key) != 0 {
            return Err(NegotiationError::Twice(spec.name));
        }
        if !is_answer && spec.sender != Sender::Both && spec.sender == self.side {
            return Err(NegotiationError::NotTheirs(spec.name));
        }
        self.settled |= bit(key);
        if is_answer { self.take_answer(spec, value) } else { self.take_offer(spec, value, stage, answer) }
    }

    fn take_offer(&mut self, spec: &KeySpec, value: &str, stage: Stage, answer: &mut Writer) -> Result<(), NegotiationError> {
        if spec.kind == Kind::Text {
            return Ok(());
        }
        if spec.rule == Rule::Declare {
            let declared = spec.parse(value).ok_or(NegotiationError::Value(spec.name))?;
            match spec.key {
                Key::MaxRecvDataSegmentLength => self.peer_max_recv = declared,
                _ => self.results[spec.key as usize] = declared,
            }
            return Ok(());
        }
        if self.discovery && spec.irrelevant_in_discovery {
            answer.pair(spec.name, "Irrelevant");
            return Ok(());
        }
        let result = spec.settle(value, self.wishes.setting(spec.key)).filter(|_| spec.allowed_in(stage));
        match result {
            Some(result) => {
                self.results[spec.key as usize] = result;
                answer.pair(spec.name, spec.format(result));
            }
            None => answer.pair(spec.name, "Reject"),
        }
        Ok(())
    }

    fn take_answer(&mut self, spec: &KeySpec, value: &str) -> Result<(), NegotiationError> {
        if matches!(value, "Reject" | "NotUnderstood" | "Irrelevant") {
            // The default stays, except where we said that nothing else will do.
            let own = self.wishes.setting(spec.key);
            let acceptable = spec.rule != Rule::First || own.takes(spec.default);
            return if acceptable { Ok(()) } else { Err(NegotiationError::Answer(spec.name)) };
        }
        let answered = spec.settle(value, self.wishes.setting(spec.key)).ok_or(NegotiationError::Answer(spec.name))?;
        if Some(answered) != spec.parse(value) {
            return Err(NegotiationError::Answer(spec.name));
        }
        self.results[spec.key as usize] = answered;
        Ok(())
    }

    /// What holds now.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        let result = |key: Key| self.results[key as usize];
        let declared = self.offered & bit(Key::MaxRecvDataSegmentLength) != 0;
        let default_segment = Key::MaxRecvDataSegmentLength.spec().default;
        Parameters {
            digests: Digests { header: result(Key::HeaderDigest) == 1, data: result(Key::DataDigest) == 1 },
            max_recv_data_segment_length: if declared { self.wishes.max_recv_data_segment_length } else { default_segment },
            max_send_data_segment_length: self.peer_max_recv,
            max_burst_length: result(Key::MaxBurstLength),
            first_burst_length: result(Key::FirstBurstLength).min(result(Key::MaxBurstLength)),
            initial_r2t: result(Key::InitialR2T) == 1,
            immediate_data: result(Key::ImmediateData) == 1,
            max_outstanding_r2t: result(Key::MaxOutstandingR2T),
            default_time2wait: result(Key::DefaultTime2Wait) as u16,
            default_time2retain: result(Key::DefaultTime2Retain) as u16,
            max_connections: result(Key::MaxConnections) as u16,
            error_recovery_level: result(Key::ErrorRecoveryLevel) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answers(negotiator: &mut Negotiator, offers: &[(&str, &str)]) -> String {
        let mut writer = Writer::default();
        for (key, value) in offers {
            negotiator.handle(key, value, Stage::Operational, &mut writer).unwrap();
        }
        String::from_utf8(writer.take(usize::MAX).0).unwrap().replace('\0', " ")
    }

    #[test]
    fn each_rule_settles_an_offer_as_the_rfc_says() {
        let mut target = Negotiator::new(Sender::Target, Wishes::default());
        let offers = [
            ("InitialR2T", "No"),
            ("ImmediateData", "No"),
            ("MaxBurstLength", "16776192"),
            ("FirstBurstLength", "0x8000"),
            ("DefaultTime2Wait", "0"),
            ("MaxOutstandingR2T", "1"),
            ("DataPDUInOrder", "No"),
            ("HeaderDigest", "SHA,CRC32C,None"),
            ("DataDigest", "MD4"),
            ("IFMarker", "Yes"),
            ("IFMarkInt", "2048"),
            ("X-com.vendor", "1"),
        ];
        assert_eq!(
            answers(&mut target, &offers),
            "InitialR2T=No ImmediateData=No MaxBurstLength=1048576 FirstBurstLength=32768 DefaultTime2Wait=2 \
             MaxOutstandingR2T=1 DataPDUInOrder=Yes HeaderDigest=CRC32C DataDigest=Reject IFMarker=No IFMarkInt=Reject \
             X-com.vendor=NotUnderstood "
        );
        let parameters = target.parameters();
        assert!(!parameters.initial_r2t && !parameters.immediate_data);
        assert_eq!(parameters.digests, Digests { header: true, data: false });
        assert_eq!((parameters.first_burst_length, parameters.max_burst_length), (32768, 1_048_576));
    }

    #[test]
    fn silence_leaves_the_defaults_of_the_rfc() {
        let parameters = Negotiator::new(Sender::Target, Wishes::default()).parameters();
        assert!(parameters.initial_r2t && parameters.immediate_data);
        assert_eq!((parameters.max_burst_length, parameters.first_burst_length), (262_144, 65_536));
        assert_eq!((parameters.max_send_data_segment_length, parameters.max_recv_data_segment_length), (8192, 8192));
    }

    #[test]
    fn a_key_twice_or_from_the_wrong_side_ends_the_login() {
        let mut target = Negotiator::new(Sender::Target, Wishes::default());
        let mut writer = Writer::default();
        target.handle("InitialR2T", "No", Stage::Operational, &mut writer).unwrap();
        let twice = target.handle("InitialR2T", "No", Stage::Operational, &mut writer);
        assert_eq!(twice, Err(NegotiationError::Twice("InitialR2T")));
        let not_theirs = target.handle("TargetAddress", "x", Stage::Operational, &mut writer);
        assert_eq!(not_theirs, Err(NegotiationError::NotTheirs("TargetAddress")));
    }

    #[test]
    fn an_operational_key_is_rejected_in_the_security_stage() {
        let mut target = Negotiator::new(Sender::Target, Wishes::default());
        let mut writer = Writer::default();
        target.handle("MaxBurstLength", "512", Stage::Security, &mut writer).unwrap();
        assert_eq!(writer.take(99).0, b"MaxBurstLength=Reject\0");
    }

    #[test]
    fn a_discovery_session_finds_burst_lengths_irrelevant() {
        let mut target = Negotiator::new(Sender::Target, Wishes::default());
        target.set_discovery(true);
        assert_eq!(
            answers(&mut target, &[("MaxBurstLength", "512"), ("HeaderDigest", "None")]),
            "MaxBurstLength=Irrelevant HeaderDigest=None "
        );
    }

    #[test]
    fn an_answer_that_does_not_follow_from_the_offer_is_refused() {
        let mut initiator = Negotiator::new(Sender::Initiator, Wishes::default());
        let mut writer = Writer::default();
        initiator.offer_all(&mut writer);
        let more = initiator.handle("MaxBurstLength", "16776192", Stage::Operational, &mut writer);
        assert_eq!(more, Err(NegotiationError::Answer("MaxBurstLength")));
    }

    fn wishes() -> impl Strategy<Value = Wishes> {
        let wish = || prop_oneof![Just(DigestWish::Never), Just(DigestWish::Accept), Just(DigestWish::Prefer)];
        (wish(), wish(), 0u32..1 << 25, 0u32..1 << 25, 0u32..1 << 25, any::<bool>(), any::<bool>(), 0u32..9).prop_map(
            |(header_digest, data_digest, max_recv, max_burst, first_burst, initial_r2t, immediate_data, r2ts)| Wishes {
                header_digest,
                data_digest,
                max_recv_data_segment_length: max_recv,
                max_burst_length: max_burst,
                first_burst_length: first_burst,
                initial_r2t,
                immediate_data,
                max_outstanding_r2t: r2ts,
                max_connections: r2ts,
                error_recovery_level: r2ts % 3,
                default_time2retain: r2ts,
            },
        )
    }

    proptest! {
        #[test]
        fn both_sides_come_to_the_same_parameters(ours in wishes(), theirs in wishes()) {
            let mut initiator = Negotiator::new(Sender::Initiator, ours);
            let mut target = Negotiator::new(Sender::Target, theirs);
            let (mut offers, mut answers, mut none) = (Writer::default(), Writer::default(), Writer::default());
            initiator.offer_all(&mut offers);
            let (text, _) = offers.take(usize::MAX);
            for pair in super::super::text::parse(&text).unwrap() {
                target.handle(pair.key, pair.value, Stage::Operational, &mut answers).unwrap();
            }
            target.declare(&mut answers);
            let (text, _) = answers.take(usize::MAX);
            for pair in super::super::text::parse(&text).unwrap() {
                initiator.handle(pair.key, pair.value, Stage::Operational, &mut none).unwrap();
            }
            prop_assert!(none.is_empty());
            let (a, b) = (initiator.parameters(), target.parameters());
            prop_assert_eq!(a.max_send_data_segment_length, b.max_recv_data_segment_length);
            prop_assert_eq!(b.max_send_data_segment_length, a.max_recv_data_segment_length);
            prop_assert_eq!(a, Parameters {
                max_recv_data_segment_length: a.max_recv_data_segment_length,
                max_send_data_segment_length: a.max_send_data_segment_length,
                ..b
            });
        }
    }
}
