//! The session of both sides, from login to logout, sans-io.
//!
//! A transport reads bytes into a buffer and hands it to [`Session::handle_input`]; takes events with [`Session::poll_event`]
//! and acts on them; writes what is in [`Session::transmit`]; and calls [`Session::handle_timeout`] when
//! [`Session::poll_timeout`] says. After [`Session::is_closing`] it writes what is left and closes the connection.
//!
//! A target's session has as many connections as were negotiated: each logs in as a session of its own, which is then joined to
//! the one that it names ([`Session::join`]). Commands are told in the order of CmdSN, whichever connection brought them, and
//! answered on the one that did. An initiator's session has one connection.
//!
//! ErrorRecoveryLevel is 0 or 1. On level 0 a damaged PDU ends its connection; on level 1 one with a damaged data segment is
//! asked for again. A damaged header ends the connection on either: its length cannot be trusted, and nothing else tells where
//! the next PDU begins. RFC 7143 (7.8).
//!
//! RFC 7143 (4.2), (4.6), (7), (11).

mod initiator;
mod target;
mod transfer;

#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod recovery_tests;

pub use super::login::TargetEntry;
pub use initiator::{Completion, Data, Handover, Initiator, InitiatorConfig, InitiatorEvent, Submission, Watch};
pub use target::{Arriving, Command, Joining, Reply, Target, TargetConfig, TargetEvent};

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::login::LoginError;
use super::pdu::{Decoder, Digests, FrameError, Pdu, Transmit};

/// A connection of a session, as its transport calls it: unlike every other one that the session ever had. The CID is the
/// initiator's number for it, and may come again.
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
    use super::{ConnectionId, FrameError, Instant, Link, Links, Pdu, ProtocolError, Role};

    /// The part of a role that only [`super::Session`] calls.
    pub trait Machine {
        /// What the role keeps of each connection.
        type Lane: std::fmt::Debug;

        fn handle_pdu(&mut self, links: &mut Links<Self>, on: ConnectionId, now: Instant, pdu: Pdu) -> Result<(), ProtocolError>
        where
            Self: Role;
        /// Bytes that hold no sound PDU: goes on without that one, or has a last word before the connection ends.
        fn handle_frame_error(
            &mut self,
            links: &mut Links<Self>,
            on: ConnectionId,
            error: FrameError,
        ) -> Result<(), ProtocolError>
        where
            Self: Role;
        fn handle_timeout(&mut self, links: &mut Links<Self>, on: ConnectionId, now: Instant) -> Result<(), ProtocolError>
        where
            Self: Role;
        fn poll_timeout(&self, link: &Link<Self>) -> Option<Instant>
        where
            Self: Role;
        /// Bytes came: the peer lives.
        fn heard(&mut self, link: &mut Link<Self>, now: Instant)
        where
            Self: Role;
    }
}

/// What both roles have of a connection: framing and output.
#[derive(Debug)]
pub struct Link<R: Role> {
    id: ConnectionId,
    decoder: Decoder,
    transmit: Transmit,
    closing: bool,
    lane: R::Lane,
}

impl<R: Role> Link<R> {
    fn new(id: ConnectionId, lane: R::Lane) -> Self {
        let decoder = Decoder { digests: Digests::default(), max_data_segment_length: super::login::MAX_SEGMENT };
        Self { id, decoder, transmit: Transmit::default(), closing: false, lane }
    }

    fn set_digests(&mut self, digests: Digests, max_recv_data_segment_length: u32) {
        self.transmit.set_digests(digests);
        self.decoder = Decoder { digests, max_data_segment_length: max_recv_data_segment_length };
    }
}

/// The connections of a session and what its caller has yet to be told.
#[derive(Debug)]
pub struct Links<R: Role> {
    /// Few: looked through from the front.
    all: Vec<Link<R>>,
    events: VecDeque<R::Event>,
}

impl<R: Role> Links<R> {
    fn get(&mut self, id: ConnectionId) -> Option<&mut Link<R>> {
        self.all.iter_mut().find(|link| link.id == id)
    }

    fn has(&self, id: ConnectionId) -> bool {
        self.all.iter().any(|link| link.id == id)
    }

    fn event(&mut self, event: R::Event) {
        self.events.push_back(event);
    }

    /// The first of them, which an initiator always has.
    fn first(&mut self) -> &mut Link<R> {
        &mut self.all[0]
    }
}

impl<R: Role> Index<ConnectionId> for Links<R> {
    type Output = Link<R>;

    fn index(&self, id: ConnectionId) -> &Link<R> {
        self.all.iter().find(|link| link.id == id).expect("a connection of this session")
    }
}

impl<R: Role> IndexMut<ConnectionId> for Links<R> {
    fn index_mut(&mut self, id: ConnectionId) -> &mut Link<R> {
        self.get(id).expect("a connection of this session")
    }
}

/// One session: see the module.
#[derive(Debug)]
pub struct Session<R: Role> {
    links: Links<R>,
    role: R,
}

impl<R: Role> Session<R> {
    fn with_role(connection: ConnectionId, lane: R::Lane, role: R) -> Self {
        Self { links: Links { all: vec![Link::new(connection, lane)], events: VecDeque::new() }, role }
    }

    /// Takes every whole PDU off the front of `input`. What is left belongs to a PDU that is not complete.
    ///
    /// # Errors
    /// The connection is over; what [`Session::transmit`] holds may still be sent, then it closes.
    pub fn handle_input(&mut self, connection: ConnectionId, now: Instant, input: &mut BytesMut) -> Result<(), ProtocolError> {
        let Self { links, role } = self;
        role.heard(links.get(connection).ok_or(ProtocolError::UnknownConnection(connection))?, now);
        loop {
            let link = &links[connection];
            if link.closing {
                break;
            }
            let step = match link.decoder.decode(input) {
                Ok(None) => return Ok(()),
                Ok(Some(pdu)) => role.handle_pdu(links, connection, now, pdu),
                Err(error) => role.handle_frame_error(links, connection, error),
            };
            if let Err(error) = step {
                links[connection].closing = true;
                return Err(error);
            }
        }
        input.clear();
        Ok(())
    }

    /// Does what is due on a connection at `now`.
    ///
    /// # Errors
    /// The connection is over.
    pub fn handle_timeout(&mut self, connection: ConnectionId, now: Instant) -> Result<(), ProtocolError> {
        if self.is_closing(connection) {
            return Ok(());
        }
        let done = self.role.handle_timeout(&mut self.links, connection, now);
        done.inspect_err(|_| self.links[connection].closing = true)
    }

    /// When [`Session::handle_timeout`] is to be called next for a connection.
    #[must_use]
    pub fn poll_timeout(&self, connection: ConnectionId) -> Option<Instant> {
        let link = self.links.all.iter().find(|link| link.id == connection && !link.closing)?;
        self.role.poll_timeout(link)
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<R::Event> {
        self.links.events.pop_front()
    }

    /// Bytes to send on a connection; the transport takes them off as it writes them.
    ///
    /// # Errors
    /// When the session has no such connection.
    pub fn transmit(&mut self, connection: ConnectionId) -> Result<&mut Transmit, ProtocolError> {
        let link = self.links.get(connection).ok_or(ProtocolError::UnknownConnection(connection))?;
        Ok(&mut link.transmit)
    }

    /// How many bytes the PDU at the front of `input` still lacks, so that a reader makes room for them at once.
    #[must_use]
    pub fn missing(&self, connection: ConnectionId, input: &[u8]) -> usize {
        self.links[connection].decoder.missing(input)
    }

    /// True when nothing more is taken in on a connection: send what is left, and close. So it is with one that is not there.
    #[must_use]
    pub fn is_closing(&self, connection: ConnectionId) -> bool {
        !self.links.all.iter().any(|link| link.id == connection && !link.closing)
    }

    /// The connections, in the order in which they joined.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.links.all.iter().map(|link| link.id)
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
