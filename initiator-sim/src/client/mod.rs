//! The initiator: sessions, SCSI commands and typed helpers on top of them.
//!
//! A [`Client`] is one session with one target; it is cheap to clone, and any number of tasks may have commands in flight on it.
//! A [`LogicalUnit`] is a LUN seen through a client and carries the typed commands: `client.lun(0).read(lba, blocks)`.
//! [`BlockingClient`] is the same for code that is not async.
//!
//! Does not retry what a target refused, does not reconnect, and keeps no cache: what a command came to is told as it is.
//! One connection per session, ErrorRecoveryLevel 0. Follows RFC 7143; the protocol itself is `protocol::iscsi`.

mod blocking;
mod changer;
mod chap;
mod connection;
mod copy;
mod discovery;
mod error;
mod tape;
#[cfg(test)]
mod tests;
mod unit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::scsi::{LunAddress, Sense, Status};
use tokio::sync::{mpsc, oneshot};

pub use blocking::{BlockingClient, BlockingUnit};
pub use chap::{Authentication, AuthenticationError, ChapArguments, read_secret};
pub use copy::OPERATION_CODE_EXTENDED_COPY;
pub use discovery::{DiscoveredTarget, discover};
pub use error::{ClientError, Lost};
pub use tape::{SpaceCode, TapePosition, TapeRead, Written};
pub(crate) use unit::cdb16;
pub use unit::{Capacity, Inquiry, LogicalUnit};

use crate::url::Url;
use connection::{CommandRequest, Request};

/// How a session is set up, and how long it waits.
#[derive(Debug, Clone)]
pub struct Options {
    /// iSCSI name this initiator logs in under. Counters of the target are kept by it.
    pub initiator_name: String,
    /// The session's ISID; `None` for one that is new in this process.
    pub isid: Option<[u8; 6]>,
    /// What it proves to the target; `None` offers no authentication.
    pub authentication: Option<Authentication>,
    /// Ask for CRC32C over headers.
    pub header_digest: bool,
    /// Ask for CRC32C over data.
    pub data_digest: bool,
    /// Largest data segment this side takes, in bytes.
    pub max_recv_data_segment_length: u32,
    /// For the TCP connection and the login together.
    pub connect_timeout: Duration,
    /// For a command that moves no copies and winds no tape.
    pub command_timeout: Duration,
    /// For EXTENDED COPY and for tape commands that may wind.
    pub long_command_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            initiator_name: DEFAULT_INITIATOR_NAME.to_owned(),
            isid: None,
            authentication: None,
            header_digest: false,
            data_digest: false,
            max_recv_data_segment_length: 1 << 20,
            connect_timeout: Duration::from_secs(20),
            command_timeout: Duration::from_secs(60),
            long_command_timeout: Duration::from_secs(600),
        }
    }
}

impl Options {
    /// The defaults under a name of the caller's.
    #[must_use]
    pub fn named(initiator_name: impl Into<String>) -> Self {
        Self { initiator_name: initiator_name.into(), ..Self::default() }
    }
}

/// The name used when none is given.
pub const DEFAULT_INITIATOR_NAME: &str = "iqn.2026-01.io.github.offhost:sim";

/// What a command brings along, or has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Neither.
    None,
    /// Room for this many bytes of Data-In.
    In(u32),
    /// Data-Out.
    Out(Bytes),
}

impl Data {
    /// Expected Data Transfer Length. RFC 7143 (11.3.4).
    #[must_use]
    pub fn expected_length(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::In(length) => u64::from(*length),
            Self::Out(data) => data.len() as u64,
        }
    }
}

/// How the bytes moved differ from the bytes expected. RFC 7143 (11.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residual {
    /// As many as expected.
    #[default]
    None,
    /// So many fewer.
    Underflow(u32),
    /// So many more would have been moved.
    Overflow(u32),
}

/// What a command came to. CHECK CONDITION is a reply like any other here; see [`Reply::good`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// SCSI status.
    pub status: Status,
    /// With CHECK CONDITION, where the target's sense data can be read.
    pub sense: Option<Sense>,
    /// Sense data as it came, without the length in front of it.
    pub sense_data: Bytes,
    /// Data-In.
    pub data: Bytes,
    /// Difference to what was expected.
    pub residual: Residual,
}

impl Reply {
    /// The reply of a command that ended GOOD (or CONDITION MET).
    ///
    /// # Errors
    /// [`ClientError::Status`] for every other status, with the sense data; `command` names the command in it.
    pub fn good(self, command: &'static str) -> Result<Self, ClientError> {
        match self.status {
            Status::Good | Status::ConditionMet => Ok(self),
            status => Err(ClientError::Status { command, status, sense: self.sense.map(Box::new) }),
        }
    }
}

/// What a session has carried, counted at this end: data segments, without headers and digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Carried {
    /// SCSI commands sent.
    pub commands: u64,
    /// Bytes of Data-In.
    pub data_in: u64,
    /// Bytes of Data-Out.
    pub data_out: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commands: AtomicU64,
    data_in: AtomicU64,
    data_out: AtomicU64,
}

/// Task management functions. RFC 7143 (11.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskManagement {
    /// End one task of this session.
    AbortTask(TaskTag),
    /// End all tasks of this session at one LUN.
    AbortTaskSet(u16),
    /// End all tasks of all sessions at one LUN.
    ClearTaskSet(u16),
    /// Bring one LUN to its state after power on.
    LogicalUnitReset(u16),
    /// The same for all LUNs.
    TargetWarmReset,
    /// The same, and all connections are closed.
    TargetColdReset,
}

/// Initiator task tag of a command in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskTag(pub u32);

/// A command that has been sent and not yet answered.
#[derive(Debug)]
pub struct InFlight {
    tag: TaskTag,
    reply: oneshot::Receiver<Result<Reply, ClientError>>,
}

impl InFlight {
    /// Names the task, as for [`TaskManagement::AbortTask`].
    #[must_use]
    pub const fn tag(&self) -> TaskTag {
        self.tag
    }

    /// Waits for the end of the command.
    ///
    /// # Errors
    /// As [`Client::command`].
    pub async fn reply(self) -> Result<Reply, ClientError> {
        self.reply.await.unwrap_or_else(|_| Err(ClientError::closed()))
    }
}

/// A session with a target.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: mpsc::UnboundedSender<Request>,
    url: Url,
    options: Options,
    counters: Arc<Counters>,
}

impl Client {
    /// Logs in to the target that the address names. The LUN part is not used; see [`Client::unit`].
    ///
    /// # Errors
    /// [`ClientError::Connect`] when nothing listens there, [`ClientError::Login`] when the target refuses,
    /// [`ClientError::Timeout`] after [`Options::connect_timeout`].
    pub async fn connect(url: &Url, options: Options) -> Result<Self, ClientError> {
        let counters = Arc::new(Counters::default());
        let requests = connection::open(&url.portal, Some(url), &options, Arc::clone(&counters)).await?;
        Ok(Self { shared: Arc::new(Shared { requests, url: url.clone(), options, counters }) })
    }

    /// Sends one command and waits for its end, at most [`Options::command_timeout`], or
    /// [`Options::long_command_timeout`] for EXTENDED COPY.
    ///
    /// # Errors
    /// Only what happens to the session: [`ClientError::ConnectionLost`], [`ClientError::Timeout`] (the task is then aborted),
    /// [`ClientError::Protocol`]. A CHECK CONDITION is an `Ok` reply.
    pub async fn command(&self, lun: u16, cdb: &[u8], data: Data) -> Result<Reply, ClientError> {
        self.command_at(LunAddress::from_number(lun), cdb, data, self.timeout_of(cdb)).await
    }

    /// The same with an address in full and a time limit of the caller's.
    ///
    /// # Errors
    /// As [`Client::command`].
    pub async fn command_at(&self, lun: LunAddress, cdb: &[u8], data: Data, timeout: Duration) -> Result<Reply, ClientError> {
        let reply = self.send(lun, cdb, data, timeout, None)?;
        reply.await.unwrap_or_else(|_| Err(ClientError::closed()))
    }

    /// Sends one command and returns as soon as it has a task tag.
    ///
    /// # Errors
    /// [`ClientError::ConnectionLost`] when the session has ended, [`ClientError::BadCommand`] for a CDB of no legal length.
    pub async fn start(&self, lun: LunAddress, cdb: &[u8], data: Data, timeout: Duration) -> Result<InFlight, ClientError> {
        let (started, tag) = oneshot::channel();
        let reply = self.send(lun, cdb, data, timeout, Some(started))?;
        match tag.await {
            Ok(tag) => Ok(InFlight { tag, reply }),
            // The session ended before the command was sent: its reason is in the reply.
            Err(_) => Err(reply.await.unwrap_or_else(|_| Err(ClientError::closed())).err().unwrap_or_else(ClientError::closed)),
        }
    }

    fn send(
        &self,
        lun: LunAddress,
        cdb: &[u8],
        data: Data,
        timeout: Duration,
        started: Option<oneshot::Sender<TaskTag>>,
    ) -> Result<oneshot::Receiver<Result<Reply, ClientError>>, ClientError> {
        let cdb = protocol::scsi::Cdb::new(cdb).filter(|cdb| !cdb.as_bytes().is_empty()).ok_or(ClientError::BadCommand)?;
        let (reply, receiver) = oneshot::channel();
        self.request(Request::Command(CommandRequest { lun, cdb, data, timeout, started, reply }))?;
        Ok(receiver)
    }

    /// A logical unit of this target.
    #[must_use]
    pub fn lun(&self, lun: u16) -> LogicalUnit {
        LogicalUnit::new(self.clone(), lun)
    }

    /// The logical unit that the address given to [`Client::connect`] names.
    #[must_use]
    pub fn unit(&self) -> LogicalUnit {
        self.lun(self.shared.url.lun)
    }

    /// Where this session goes.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.shared.url
    }

    /// How it was set up.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// What it has carried so far.
    #[must_use]
    pub fn carried(&self) -> Carried {
        let counters = &self.shared.counters;
        Carried {
            commands: counters.commands.load(Ordering::Relaxed),
            data_in: counters.data_in.load(Ordering::Relaxed),
            data_out: counters.data_out.load(Ordering::Relaxed),
        }
    }

    /// Sends a task management function and waits for the target's response.
    ///
    /// # Errors
    /// [`ClientError::TaskManagement`] with the response code when the function was not carried out.
    pub async fn task_management(&self, function: TaskManagement) -> Result<(), ClientError> {
        let (reply, receiver) = oneshot::channel();
        self.request(Request::TaskManagement { function, reply })?;
        match receiver.await.unwrap_or_else(|_| Err(ClientError::closed()))? {
            0 => Ok(()),
            response => Err(ClientError::TaskManagement { function, response }),
        }
    }

    /// Sends a NOP-Out that wants an answer, with this ping data, and returns the data echoed.
    ///
    /// # Errors
    /// As [`Client::command`].
    pub async fn nop(&self, ping_data: Bytes) -> Result<Bytes, ClientError> {
        let (reply, receiver) = oneshot::channel();
        self.request(Request::Nop { ping_data, reply })?;
        receiver.await.unwrap_or_else(|_| Err(ClientError::closed()))
    }

    /// Closes the session. Commands still in flight end with [`ClientError::ConnectionLost`].
    ///
    /// # Errors
    /// As [`Client::command`]; the session is over in any case.
    pub async fn logout(&self) -> Result<(), ClientError> {
        let (reply, receiver) = oneshot::channel();
        self.request(Request::Logout { reply })?;
        receiver.await.unwrap_or_else(|_| Err(ClientError::closed()))
    }

    fn request(&self, request: Request) -> Result<(), ClientError> {
        self.shared.requests.send(request).map_err(|_| ClientError::closed())
    }

    fn timeout_of(&self, cdb: &[u8]) -> Duration {
        let options = &self.shared.options;
        if cdb.first() == Some(&OPERATION_CODE_EXTENDED_COPY) { options.long_command_timeout } else { options.command_timeout }
    }
}
