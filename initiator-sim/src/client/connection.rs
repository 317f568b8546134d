//! The one task that owns a connection: carries requests to the session's state machine and bytes to the socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::scsi::{Cdb, LunAddress};
use tokio::sync::{mpsc, oneshot};

use super::{ClientError, Counters, Data, Options, Reply, TaskManagement, TaskTag};
use crate::url::Url;

/// What clients ask of the connection.
#[derive(Debug)]
pub(super) enum Request {
    /// A SCSI command.
    Command(CommandRequest),
    /// A task management function; answered with the response code.
    TaskManagement { function: TaskManagement, reply: oneshot::Sender<Result<u8, ClientError>> },
    /// A ping.
    Nop { ping_data: Bytes, reply: oneshot::Sender<Result<Bytes, ClientError>> },
    /// The end of the session.
    Logout { reply: oneshot::Sender<Result<(), ClientError>> },
}

/// A SCSI command on its way out.
#[derive(Debug)]
pub(super) struct CommandRequest {
    pub(super) lun: LunAddress,
    pub(super) cdb: Cdb,
    pub(super) data: Data,
    pub(super) timeout: Duration,
    /// Told the task tag as soon as there is one.
    pub(super) started: oneshot::Sender<TaskTag>,
    pub(super) reply: oneshot::Sender<Result<Reply, ClientError>>,
}

/// Connects, logs in, and starts the task.
pub(super) async fn open(
    url: &Url,
    options: &Options,
    counters: Arc<Counters>,
) -> Result<mpsc::UnboundedSender<Request>, ClientError> {
    let _ = (url, options, counters);
    Err(ClientError::Protocol("the session machine is not here yet".into()))
}
