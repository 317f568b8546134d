//! The client for code that is not async: each call waits on the calling thread.

use std::sync::Arc;

use bytes::Bytes;
use protocol::units::{BlockLength, Lba};
use tokio::runtime::{Builder, Handle, Runtime};

use super::{Capacity, Client, ClientError, Data, LogicalUnit, Options, Reply};
use crate::url::Url;

/// A session with a runtime of its own.
///
/// Calls must not come from inside an async task: they would stop it (and tokio panics on the attempt).
/// There, use [`BlockingUnit::new`] on a thread made by `spawn_blocking`.
#[derive(Debug, Clone)]
pub struct BlockingClient {
    client: Client,
    runtime: Arc<Runtime>,
}

impl BlockingClient {
    /// As [`Client::connect`].
    ///
    /// # Errors
    /// As [`Client::connect`]; [`ClientError::Io`] when no thread can be started.
    pub fn connect(url: &Url, options: Options) -> Result<Self, ClientError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("iscsi").enable_all().build()?;
        let client = runtime.block_on(Client::connect(url, options))?;
        Ok(Self { client, runtime: Arc::new(runtime) })
    }

    /// The session itself, for what is async.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// A logical unit of this target.
    #[must_use]
    pub fn lun(&self, lun: u16) -> BlockingUnit {
        BlockingUnit {
            unit: self.client.lun(lun),
            handle: self.runtime.handle().clone(),
            _runtime: Some(Arc::clone(&self.runtime)),
        }
    }

    /// Waits for anything the async client does: `blocking.wait(blocking.client().lun(0).inquiry())`.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

/// A logical unit for synchronous code. `Clone`, `Send` and `Sync`.
#[derive(Debug, Clone)]
pub struct BlockingUnit {
    unit: LogicalUnit,
    handle: Handle,
    /// Keeps the connection's task running as long as somebody can ask it.
    _runtime: Option<Arc<Runtime>>,
}

impl BlockingUnit {
    /// A unit of a session that lives in the caller's runtime.
    #[must_use]
    pub const fn new(unit: LogicalUnit, handle: Handle) -> Self {
        Self { unit, handle, _runtime: None }
    }

    /// The unit itself.
    #[must_use]
    pub const fn unit(&self) -> &LogicalUnit {
        &self.unit
    }

    /// Waits for anything the async unit does.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// As [`LogicalUnit::command`].
    ///
    /// # Errors
    /// As [`Client::command`].
    pub fn command(&self, cdb: &[u8], data: Data) -> Result<Reply, ClientError> {
        self.wait(self.unit.command(cdb, data))
    }

    /// As [`LogicalUnit::read_capacity`].
    ///
    /// # Errors
    /// As [`LogicalUnit::read_capacity`].
    pub fn read_capacity(&self) -> Result<Capacity, ClientError> {
        self.wait(self.unit.read_capacity())
    }

    /// As [`LogicalUnit::read`].
    ///
    /// # Errors
    /// As [`LogicalUnit::read`].
    pub fn read(&self, lba: Lba, blocks: u32, block_length: BlockLength) -> Result<Bytes, ClientError> {
        self.wait(self.unit.read(lba, blocks, block_length))
    }

    /// As [`LogicalUnit::write`].
    ///
    /// # Errors
    /// As [`LogicalUnit::write`].
    pub fn write(&self, lba: Lba, data: Bytes, block_length: BlockLength) -> Result<(), ClientError> {
        self.wait(self.unit.write(lba, data, block_length))
    }
}
