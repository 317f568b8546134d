//! A SCSI command on its way through the target, and what comes of it. SAM-5, "Task".

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use protocol::scsi::{Cdb, LunAddress, Sense, SenseFormat, Status};
use tokio_util::sync::CancellationToken;

use crate::nexus::Nexus;
use crate::store::in_place::Mapping;

/// A command whose Data-Out is complete, unless it is [written as it comes](crate::lun::disk::StreamedWrite).
#[derive(Debug)]
pub struct Task {
    /// Who sent it.
    pub nexus: Arc<Nexus>,
    /// The logical unit addressed.
    pub lun: LunAddress,
    /// Initiator task tag.
    pub tag: u32,
    /// Task attribute.
    pub attribute: Attribute,
    /// What to do.
    pub cdb: Cdb,
    /// Data-Out in order, sliced from the receive buffers without a copy.
    pub data_out: Vec<Bytes>,
    /// Bytes of Data-In that the initiator has room for (expected data transfer length of a read).
    pub data_in_limit: u64,
    /// Data-In may be given where it lies in a [`Mapping`]: it is looked at by nobody, sent once, and cut into whole pages.
    pub in_place: bool,
    /// Fires when the task is aborted: by task management, logout, reset or nexus loss (which leaves EXTENDED COPY alone).
    pub abort: CancellationToken,
}

impl Task {
    /// Bytes of Data-Out that came.
    #[must_use]
    pub fn data_out_len(&self) -> u64 {
        self.data_out.iter().map(|part| part.len() as u64).sum()
    }

    /// Data-Out in one piece; copies only when it came in several. For parameter lists, not for payload.
    #[must_use]
    pub fn parameter_list(&self) -> Bytes {
        match self.data_out.as_slice() {
            [] => Bytes::new(),
            [whole] => whole.clone(),
            parts => parts.concat().into(),
        }
    }
}

/// Task attribute. SAM-5, "Task attributes".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attribute {
    /// No order against other simple tasks.
    #[default]
    Simple,
    /// After all older, before all younger tasks.
    Ordered,
    /// Before all that has not begun.
    HeadOfQueue,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status byte.
    pub status: Status,
    /// With CHECK CONDITION, and with GOOD where a command asks for it (G_SENSE).
    pub sense: Option<Sense>,
    /// How the sense data is to be written: the logical unit's D_SENSE.
    pub sense_format: SenseFormat,
    /// Data-In in order. May be longer than the initiator has room for: the session cuts it and reports the overflow.
    pub data_in: Vec<Bytes>,
    /// Data-In is part of this: what it is shows when it is sent, and the task does not end before.
    pub in_place: Option<Arc<Mapping>>,
    /// Bytes the command itself would move by its CDB, where that is not the length of `data_in`:
    /// against the expected data transfer length it gives the residual. RFC 7143 (11.4.5).
    pub transfer_length: Option<u64>,
}

impl Response {
    /// GOOD without data.
    #[must_use]
    pub const fn good() -> Self {
        Self {
            status: Status::Good,
            sense: None,
            sense_format: SenseFormat::Fixed,
            data_in: Vec::new(),
            in_place: None,
            transfer_length: None,
        }
    }

    /// GOOD with one piece of Data-In.
    #[must_use]
    pub fn data(data: impl Into<Bytes>) -> Self {
        Self { data_in: vec![data.into()], ..Self::good() }
    }

    /// A status without sense data: BUSY, RESERVATION CONFLICT …
    #[must_use]
    pub fn status(status: Status) -> Self {
        Self { status, ..Self::good() }
    }

    /// The sense data as it goes to the initiator; empty without sense.
    #[must_use]
    pub fn sense_bytes(&self) -> Vec<u8> {
        self.sense.as_ref().map(|sense| sense.emit(self.sense_format)).unwrap_or_default()
    }
}

impl From<Sense> for Response {
    fn from(sense: Sense) -> Self {
        Self { status: Status::CheckCondition, sense: Some(sense), ..Self::good() }
    }
}

/// How a command is to be carried out: decided by the device server without blocking.
pub enum Execution {
    /// Done already.
    Done(Response),
    /// Has to wait for a file: run it on a thread that may block. All of one wake-up share one hop.
    Blocking(Job),
    /// As [`Execution::Blocking`], but for so long that no other command may wait behind it: a thread of its own.
    Alone(Job),
    /// Has to wait for something else: a hold to end, a mover.
    Async(Pin<Box<dyn Future<Output = Response> + Send>>),
}

/// What a thread that may block carries out.
pub type Job = Box<dyn FnOnce() -> Response + Send>;

impl Execution {
    /// The same, with something done to its response.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Response) -> Response + Send + 'static) -> Self {
        match self {
            Self::Done(response) => Self::Done(change(response)),
            Self::Blocking(run) => Self::Blocking(Box::new(move || change(run()))),
            Self::Alone(run) => Self::Alone(Box::new(move || change(run()))),
            Self::Async(run) => Self::Async(Box::pin(async move { change(run.await) })),
        }
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(response) => f.debug_tuple("Done").field(response).finish(),
            Self::Blocking(_) => f.write_str("Blocking"),
            Self::Alone(_) => f.write_str("Alone"),
            Self::Async(_) => f.write_str("Async"),
        }
    }
}
