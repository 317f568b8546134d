//! The session of both sides, from login to logout, sans-io.
//!
//! A transport reads bytes into a buffer and hands it to [`Session::handle_input`]; takes events with [`Session::poll_event`]
//! and acts on them; writes what is in [`Session::transmit`]; and calls [`Session::handle_timeout`] when
//! [`Session::poll_timeout`] says. After [`Session::is_closing`] it writes what is left and closes the connection.
//!
//! Every call names its connection, so that several a session can come; now a session has the one it was made with.
//! ErrorRecoveryLevel is 0: a damaged or missing PDU ends the session, and the initiator logs in again.
//!
//! RFC 7143 (4.2), (4.6), (7), (11).

mod initiator;
mod target;
mod transfer;

#[cfg(test)]
mod pair_tests;

pub use super::login::TargetEntry;
pub use initiator::{Completion, Data, Initiator, InitiatorConfig, InitiatorEvent, Submission};
pub use target::{Command, Reply, Target, TargetConfig, TargetEvent};

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::login::LoginError;
use super::pdu::{Decoder, Digests, FrameError, Pdu, Transmit};

/// A connection of a session: its CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u16);

/// Task attribute. RFC 7143 (11.3.1), SAM-5 "Task attributes".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Attribute {
    Untagged = 0,
    #[default]
    Simple = 1,
    Ordered = 2,
    HeadOfQueue = 3,
    Aca = 4,
}

impl Attribute {
    /// `None` for a reserved code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code & 7 {
            0 => Self::Untagged,
            1 => Self::Simple,
            2 => Self::Ordered,
            3 => Self::HeadOfQueue,
            4 => Self::Aca,
            _ => return None,
        })
    }
}

/// Difference between what was expected and what the command would move, in bytes. RFC 7143 (11.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residual {
    /// As expected.
    #[default]
    None,
    /// So much was not transferred because the command has no more.
    Underflow(u32),
    /// So much was not transferred because more was not expected.
    Overflow(u32),
}

/// Task management function. RFC 7143 (11.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum TaskManagementFunction {
    AbortTask = 1,
    AbortTaskSet = 2,
    ClearAca = 3,
    ClearTaskSet = 4,
    LogicalUnitReset = 5,
    TargetWarmReset = 6,
    TargetColdReset = 7,
    TaskReassign = 8,
}

impl TaskManagementFunction {
    /// `None` for a code without a function.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code & 0x7F {
            1 => Self::AbortTask,
            2 => Self::AbortTaskSet,
            3 => Self::ClearAca,
            4 => Self::ClearTaskSet,
            5 => Self::LogicalUnitReset,
            6 => Self::TargetWarmReset,
            7 => Self::TargetColdReset,
            8 => Self::TaskReassign,
            _ => return None,
        })
    }
}

/// Response of a task management function. RFC 7143 (11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum TaskManagementResponse {
    FunctionComplete = 0,
    TaskDoesNotExist = 1,
    LunDoesNotExist = 2,
    TaskStillAllegiant = 3,
    TaskAllegianceReassignmentNotSupported = 4,
    FunctionNotSupported = 5,
    FunctionAuthorizationFailed = 6,
    FunctionRejected = 255,
}

impl TaskManagementResponse {
    /// A reserved code counts as rejected.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::FunctionComplete,
            1 => Self::TaskDoesNotExist,
            2 => Self::LunDoesNotExist,
            3 => Self::TaskStillAllegiant,
            4 => Self::TaskAllegianceReassignmentNotSupported,
            5 => Self::FunctionNotSupported,
            6 => Self::FunctionAuthorizationFailed,
            _ => Self::FunctionRejected,
        }
    }
}

/// What the peer did that ends the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A stream of bytes that holds no trustworthy PDU.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The login failed.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The login took too long.
    #[error("no login within {0:?}")]
    LoginTimeout(Duration),
    /// The peer does not answer.
    #[error("no sign of life within {0:?}")]
    PingTimeout(Duration),
    /// A PDU that has no place here.
    #[error("{pdu} {when}")]
    Unexpected {
        /// Its name.
        pdu: &'static str,
        /// Why it has no place.
        when: &'static str,
    },
    /// A request left out: on one connection nothing can fill the gap.
    #[error("CmdSN {got} came where {expected} was due")]
    CommandGap {
        /// ExpCmdSN.
        expected: u32,
        /// CmdSN of the request.
        got: u32,
    },
    /// Bytes for a connection that the session does not have.
    #[error("the session has no connection {}", .0.0)]
    UnknownConnection(ConnectionId),
}

/// Which side of the session this is. Implemented by [`Target`] and [`Initiator`].
pub trait Role: fmt::Debug + Sized + sealed::Machine {
    /// What the caller is told.
    type Event: fmt::Debug;
}

pub(crate) mod sealed {
    use super::{FrameError, Instant, Link, Pdu, ProtocolError, Role};

    /// The part of a role that only [`super::Session`] calls.
    pub trait Machine {
        fn handle_pdu(&mut self, link: &mut Link<Self>, now: Instant, pdu: Pdu) -> Result<(), ProtocolError>
        where
            Self: Role;
        /// A last word before the session ends over bytes that are none.
        fn handle_frame_error(&mut self, link: &mut Link<Self>, error: &FrameError)
        where
            Self: Role;
        fn handle_timeout(&mut self, link: &mut Link<Self>, now: Instant) -> Result<(), ProtocolError>
        where
            Self: Role;
        fn poll_timeout(&self) -> Option<Instant>;
        /// Bytes came: the peer lives.
        fn heard(&mut self, now: Instant);
    }
}

/// What both roles have: one connection's framing, output and events.
#[derive(Debug)]
pub struct Link<R: Role> {
    connection: ConnectionId,
    decoder: Decoder,
    transmit: Transmit,
    events: VecDeque<R::Event>,
    closing: bool,
}

impl<R: Role> Link<R> {
    fn set_digests(&mut self, digests: Digests, max_recv_data_segment_length: u32) {
        self.transmit.set_digests(digests);
        self.decoder = Decoder { digests, max_data_segment_length: max_recv_data_segment_length };
    }
}

/// One session: see the module.
#[derive(Debug)]
pub struct Session<R: Role> {
    link: Link<R>,
    role: R,
}

impl<R: Role> Session<R> {
    fn with_role(connection: ConnectionId, role: R) -> Self {
        let decoder = Decoder { digests: Digests::default(), max_data_segment_length: super::login::MAX_SEGMENT };
        let link = Link { connection, decoder, transmit: Transmit::default(), events: VecDeque::new(), closing: false };
        Self { link, role }
    }

    /// Takes every whole PDU off the front of `input`. What is left belongs to a PDU that is not complete.
    ///
    /// # Errors
    /// The session is over; what [`Session::transmit`] holds may still be sent, then the connection closes.
    pub fn handle_input(&mut self, connection: ConnectionId, now: Instant, input: &mut BytesMut) -> Result<(), ProtocolError> {
        self.check(connection)?;
        self.role.heard(now);
        while !self.link.closing {
            let step = match self.link.decoder.decode(input) {
                Ok(None) => return Ok(()),
                Ok(Some(pdu)) => self.role.handle_pdu(&mut self.link, now, pdu),
                Err(error) => {
                    self.role.handle_frame_error(&mut self.link, &error);
                    Err(error.into())
                }
            };
            if let Err(error) = step {
                self.link.closing = true;
                return Err(error);
            }
        }
        input.clear();
        Ok(())
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    /// The session is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        if self.link.closing {
            return Ok(());
        }
        self.role.handle_timeout(&mut self.link, now).inspect_err(|_| self.link.closing = true)
    }

    /// When [`Session::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.link.closing { None } else { self.role.poll_timeout() }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<R::Event> {
        self.link.events.pop_front()
    }

    /// Bytes to send on a connection; the transport takes them off as it writes them.
    ///
    /// # Errors
    /// When the session has no such connection.
    pub fn transmit(&mut self, connection: ConnectionId) -> Result<&mut Transmit, ProtocolError> {
        self.check(connection)?;
        Ok(&mut self.link.transmit)
    }

    /// How many bytes the PDU at the front of `input` still lacks, so that a reader makes room for them at once.
    #[must_use]
    pub fn missing(&self, input: &[u8]) -> usize {
        self.link.decoder.missing(input)
    }

    /// True when nothing more is taken in: send what is left, and close.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.link.closing
    }

    /// The only connection.
    #[must_use]
    pub fn connection(&self) -> ConnectionId {
        self.link.connection
    }

    fn check(&self, connection: ConnectionId) -> Result<(), ProtocolError> {
        if connection == self.link.connection { Ok(()) } else { Err(ProtocolError::UnknownConnection(connection)) }
    }
}

/// Watches for a sign of life, the same way on both sides.
#[derive(Debug)]
struct Liveness {
    interval: Option<Duration>,
    timeout: Duration,
    heard: Instant,
    pinged: Option<Instant>,
}

/// What [`Liveness`] wants done.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Ping,
    Dead,
}

impl Liveness {
    fn new(interval: Option<Duration>, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, heard: now, pinged: None }
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.pinged {
            Some(pinged) => Some(pinged + self.timeout),
            None => self.interval.map(|interval| self.heard + interval),
        }
    }

    fn due(&mut self, now: Instant) -> Due {
        match (self.pinged, self.interval) {
            (Some(pinged), _) if now >= pinged + self.timeout => Due::Dead,
            (None, Some(interval)) if now >= self.heard + interval => {
                self.pinged = Some(now);
                Due::Ping
            }
            _ => Due::Nothing,
        }
    }
}
