//! One side's part in the negotiation of a login: what it offers, what it answers, and what holds then.
//!
//! Knows no PDU and no stage but the one it is told; what each key is about is in the table. RFC 7143 (6.2).

use serde::{Deserialize, Serialize};

use super::super::pdu::Digests;
use super::super::text::Writer;
use super::{COUNT, KEYS, Key, KeySpec, Kind, Phase, Rule, Sender, Stage, Wishes};

/// What both sides agreed on, with the meaning of each number spelled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
