//! The ends of a copy, opened: files that came beside the job, and how each is read and written.

pub mod cartridge;
pub mod raw;
pub mod sums;

use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use protocol::cartridge::append::Limits;
use protocol::mover::ends::{Descriptor, End};
use protocol::mover::{EndIndex, FaultKind, Question, RemoteEnd, RemoteUnit, Way};
use protocol::scsi::LunAddress;
use tracing::warn;

use protocol::mover::table::ReadError;

use super::credentials::Credentials;
use super::link::Link;
use super::remote::{Attention, RemoteDisk, RemoteSession, RemoteTape};
use super::view::ViewReader;
use cartridge::Tape;
use raw::Raw;
use sums::Sums;

/// One end of a job.
#[derive(Debug)]
pub enum OpenEnd {
    /// Blocks of a file.
    Raw(Raw),
    /// A static view of a disk.
    View(ViewReader),
    /// A tape. The engine reads it while the writer is idle, the writer appends to it: the lock is never waited for.
    Tape(Mutex<Tape>),
    /// C000h: reading or writing it is a fault.
    NullBlock,
    /// C001h: likewise.
    NullStream,
    /// A disk of another iSCSI target.
    RemoteDisk(RemoteDisk),
    /// A tape of another iSCSI target.
    RemoteTape(RemoteTape),
}

impl OpenEnd {
    /// Opens what an end says, with the files that came beside the job. To a remote end it logs in with `credentials`, and asks the
    /// target whether the session may be used.
    ///
    /// # Errors
    /// [`FaultKind::BadJob`] for a descriptor that did not come, what the files give, and what the target refuses.
    pub fn open(
        end: &End,
        index: EndIndex,
        files: &[File],
        credentials: &Credentials,
        link: &dyn Link,
    ) -> Result<Self, FaultKind> {
        let file = |Descriptor(index): Descriptor| {
            files.get(usize::from(index)).ok_or(FaultKind::BadJob)?.try_clone().map_err(|error| read_fault(&error))
        };
        Ok(match end {
            End::Raw { file: descriptor, within, block_length } => {
                Self::Raw(Raw::new(file(*descriptor)?, *within, *block_length).map_err(|error| read_fault(&error))?)
            }
            End::Cartridge { image, index, at, end_of_data, capacity, early_warning, layout, writable, publishes } => {
                let limits = Limits { capacity: *capacity, early_warning: *early_warning, layout: *layout };
                let sums = index.map(|index| Ok(Sums::new(file(index.file)?, index.objects))).transpose()?;
                let tape =
                    Tape::new(file(*image)?, sums, *at, *end_of_data, limits, *writable).map_err(|error| read_fault(&error))?;
                Self::Tape(Mutex::new(if *publishes { tape } else { tape.that_fills() }))
            }
            End::NullBlock { .. } => Self::NullBlock,
            End::NullStream => Self::NullStream,
            End::Remote(remote) => Self::remote(remote, index, files, credentials, link)?,
            End::View { live, within, parts, copies, table, generation, block_length } => {
                let (live, copies, table) = (file(*live)?.into(), file(*copies)?.into(), file(*table)?.into());
                let view = ViewReader::open(live, *within, copies, table, *generation, *block_length);
                let view = view.and_then(|view| if parts.is_empty() { Ok(view) } else { view.made_of(parts) });
                Self::View(view.map_err(|error| read_fault(&error))?)
            }
        })
    }
}

impl OpenEnd {
    fn remote(
        remote: &RemoteEnd,
        end: EndIndex,
        files: &[File],
        credentials: &Credentials,
        link: &dyn Link,
    ) -> Result<Self, FaultKind> {
        let lun = LunAddress(remote.lun);
        let attention = match remote.unit {
            RemoteUnit::Disk { .. } => Attention::PassOver,
            RemoteUnit::Tape => Attention::Fail,
        };
        let mut writable = remote.writable;
        let session = match &remote.way {
            Way::Open { socket: Descriptor(index), session } => {
                let socket = files.get(usize::from(*index)).ok_or(FaultKind::BadJob)?;
                let socket = socket.try_clone().map_err(|_| FaultKind::SessionLost)?;
                RemoteSession::take_over(socket.into(), session, lun, attention).map_err(|_| FaultKind::SessionLost)?
            }
            Way::LogIn { target, isid } => {
                let (portal, config, may_write) = credentials.of(target, *isid, lun).ok_or(FaultKind::SessionLost)?;
                writable &= may_write;
                let initiator_name = config.initiator_name.clone();
                let session = RemoteSession::log_in(portal, config, lun, attention).map_err(|error| {
                    warn!(%portal, %error, "a remote end cannot be reached");
                    FaultKind::SessionLost
                })?;
                link.ask(Question::Session { end, initiator_name })?;
                session.settle(&AtomicBool::new(false))?;
                session
            }
        };
        Ok(match remote.unit {
            RemoteUnit::Disk { block_length, len } => Self::RemoteDisk(RemoteDisk::new(session, block_length, len, writable)),
            RemoteUnit::Tape => Self::RemoteTape(RemoteTape::new(session, writable)),
        })
    }
}

/// A failed read of a static view as data.
#[must_use]
pub fn view_fault(error: &ReadError<io::Error>) -> FaultKind {
    match error {
        ReadError::Lost(_) => FaultKind::ViewLost,
        ReadError::File(error) => read_fault(error),
    }
}

/// A failed read as data.
#[must_use]
pub fn read_fault(error: &io::Error) -> FaultKind {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FaultKind::OutOfRange,
        _ => FaultKind::Read(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// A failed write as data.
#[must_use]
pub fn write_fault(error: &io::Error) -> FaultKind {
    FaultKind::Write(error.raw_os_error().unwrap_or(libc::EIO))
}
