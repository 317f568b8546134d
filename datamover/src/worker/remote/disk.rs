//! Blocks of a remote disk: READ(16), WRITE(16) and SYNCHRONIZE CACHE(10). SBC-4.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::iscsi::session::Data;
use protocol::mover::FaultKind;

use super::session::{RemoteCommand, RemoteSession};
use crate::worker::fifo::Fifo;

/// Bytes of one command: what initiators send at once by default, and what targets take.
const COMMAND: u64 = 256 << 10;
/// A disk that does not answer a command for so long has failed; its target may be alive all the same.
const TIMEOUT: Duration = Duration::from_secs(60);

const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8A;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;

/// A remote disk. Addresses are bytes.
#[derive(Debug)]
pub struct RemoteDisk {
    session: RemoteSession,
    block_length: u32,
    len: u64,
    writable: bool,
    /// It was written and is not synchronized.
    dirty: AtomicBool,
}

impl RemoteDisk {
    /// A disk of `len` bytes.
    #[must_use]
    pub const fn new(session: RemoteSession, block_length: u32, len: u64, writable: bool) -> Self {
        Self { session, block_length, len, writable, dirty: AtomicBool::new(false) }
    }

    /// Bytes a block.
    #[must_use]
    pub const fn block_length(&self) -> u32 {
        self.block_length
    }

    /// Fills `into`, from whichever byte on.
    ///
    /// # Errors
    /// What the disk says, and a lost session.
    pub fn read_at(&self, cancelled: &AtomicBool, at: u64, into: &mut [u8]) -> Result<(), FaultKind> {
        let (first, last) = self.around(at, into.len() as u64)?;
        let commands: Vec<_> = self.cut(first, last).map(|(at, len)| self.read(at, len)).collect();
        let mut skip = (at - first) as usize;
        let mut rest = into;
        for (command, completion) in commands.iter().zip(self.session.commands(cancelled, &commands)?) {
            let Data::In(room) = command.data else { continue };
            let came: usize = completion.data_in.iter().map(Bytes::len).sum();
            if came != room as usize {
                return Err(FaultKind::Underrun);
            }
            for part in &completion.data_in {
                let dropped = skip.min(part.len());
                skip -= dropped;
                let part = &part[dropped..];
                let take = part.len().min(rest.len());
                let (here, behind) = rest.split_at_mut(take);
                here.copy_from_slice(&part[..take]);
                rest = behind;
            }
        }
        Ok(())
    }

    /// Writes `len` bytes; of blocks that are written in part the rest stays.
    ///
    /// # Errors
    /// As [`RemoteDisk::read_at`].
    pub fn write_at(&self, cancelled: &AtomicBool, at: u64, data: Vec<Bytes>, len: u64) -> Result<(), FaultKind> {
        if !self.writable {
            return Err(FaultKind::WriteProtected);
        }
        let (first, last) = self.around(at, len)?;
        let mut whole = Fifo::default();
        if first < at {
            whole.push(self.edge(cancelled, first)?.slice(..(at - first) as usize));
        }
        data.into_iter().for_each(|part| whole.push(part));
        if last > at + len {
            let block = u64::from(self.block_length);
            whole.push(self.edge(cancelled, last - block)?.slice((at + len - (last - block)) as usize..));
        }
        self.dirty.store(true, Ordering::Relaxed);
        let commands: Vec<_> = self.cut(first, last).map(|(at, len)| self.write(at, whole.take(len))).collect();
        self.session.commands(cancelled, &commands).map(drop)
    }

    /// What was written stays when the power fails. A disk that does not know the command has no cache to write out.
    ///
    /// # Errors
    /// As [`RemoteDisk::read_at`].
    pub fn synchronize(&self, cancelled: &AtomicBool) -> Result<(), FaultKind> {
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let command = RemoteCommand::new(&[SYNCHRONIZE_CACHE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None, TIMEOUT);
        match self.session.command(cancelled, &command) {
            Err(FaultKind::Remote { sense, .. }) if sense.is_unknown_command() => Ok(()),
            done => done.map(drop),
        }
    }

    /// One block.
    fn edge(&self, cancelled: &AtomicBool, at: u64) -> Result<Bytes, FaultKind> {
        let mut block = vec![0; self.block_length as usize];
        self.read_at(cancelled, at, &mut block)?;
        Ok(block.into())
    }

    /// Whole blocks that hold the bytes: first byte, and the one behind the last.
    fn around(&self, at: u64, len: u64) -> Result<(u64, u64), FaultKind> {
        let block = u64::from(self.block_length);
        let end = at.checked_add(len).filter(|end| *end <= self.len && len > 0).ok_or(FaultKind::OutOfRange)?;
        Ok((at / block * block, end.next_multiple_of(block)))
    }

    fn cut(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
        let most = (COMMAND / u64::from(self.block_length)).max(1) * u64::from(self.block_length);
        (first..last).step_by(most as usize).map(move |at| (at, most.min(last - at)))
    }

    fn read(&self, at: u64, len: u64) -> RemoteCommand {
        RemoteCommand::new(&self.cdb(READ_16, at, len), Data::In(len as u32), TIMEOUT)
    }

    fn write(&self, at: u64, data: Vec<Bytes>) -> RemoteCommand {
        let len = data.iter().map(|part| part.len() as u64).sum();
        RemoteCommand::new(&self.cdb(WRITE_16, at, len), Data::Out(data), TIMEOUT)
    }

    fn cdb(&self, operation_code: u8, at: u64, len: u64) -> [u8; 16] {
        let block = u64::from(self.block_length);
        let mut cdb = [0; 16];
        cdb[0] = operation_code;
        cdb[2..10].copy_from_slice(&(at / block).to_be_bytes());
        cdb[10..14].copy_from_slice(&((len / block) as u32).to_be_bytes());
        cdb
    }
}
