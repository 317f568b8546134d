//! A copy job's hold on the drive: from the moment a mover is given the image until the drive knows again what is on it.
//!
//! While it lasts, commands that need the medium get BUSY and TEST UNIT READY says that an operation is in progress. The mover
//! never cuts: it asks, and [`TapeCopy::append`] cuts index and image in their order. All methods block.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use protocol::cartridge::TapePosition;
use protocol::cartridge::append::Durability;
use protocol::cartridge::report::TapeReport;
use protocol::mover::ends::{Descriptor, End, Index};
use protocol::scsi::{Sense, SenseKey, Status};
use tracing::{info, warn};

use super::Tape;
use super::drive::Drive;
use crate::cartridge::Partition;
use crate::store::LocalEnd;
use crate::task::Response;

/// The drive, for one copy job. Dropped without [`TapeCopy::finish`], it recovers the drive by itself.
#[derive(Debug)]
#[must_use = "dropping it ends the copy's hold on the drive"]
pub struct TapeCopy {
    tape: Arc<Tape>,
    /// The image is no longer what the drive thinks, or may not be.
    in_doubt: bool,
    ended: bool,
}

impl TapeCopy {
    pub(super) fn begin(tape: &Arc<Tape>) -> Result<Self, Response> {
        tape.with_drive(|drive| {
            if drive.copying {
                return Err(Response::status(Status::Busy));
            }
            if let Some(in_progress) = tape.common.background.not_ready() {
                return Err(in_progress.into());
            }
            drive.synchronize()?;
            drive.copying = true;
            Ok(Self { tape: Arc::clone(tape), in_doubt: false, ended: false })
        })
    }

    /// The cartridge as an end of a copy. The image's file carries its lock: as long as the mover lives, nobody else opens the
    /// cartridge, not even a target that was started anew.
    ///
    /// # Errors
    /// For want of descriptors.
    pub fn end(&self) -> io::Result<LocalEnd> {
        self.with_medium(|drive, position| {
            let limits = drive.limits();
            let mut files = vec![OwnedFd::from(drive.share_image()?)];
            let index = drive.share_index()?.map(|(file, objects)| {
                files.push(file.into());
                Index { file: Descriptor(1), objects }
            });
            let end = End::Cartridge {
                image: Descriptor(0),
                index,
                at: position,
                end_of_data: drive.end(),
                capacity: limits.capacity,
                early_warning: limits.early_warning,
                layout: limits.layout,
                writable: drive.writable(),
                publishes: true,
            };
            Ok(LocalEnd { end, files })
        })
    }

    /// The mover stands at `at` and will append: what lies behind is cut, so that `at` is the committed end. Gives the image to append
    /// to, which may be another file than before.
    ///
    /// # Errors
    /// `InvalidInput` for a place where no object begins; `ReadOnlyFilesystem` for a protected cartridge, WORM data that would be
    /// overwritten, and data that would have to be encrypted; else the file system's own.
    pub fn append(&mut self, at: TapePosition) -> io::Result<OwnedFd> {
        let settings = *self.tape.settings();
        let encrypts = self.tape.encryption().encrypts();
        self.tape.with_drive(|drive| {
            let medium = drive.medium().map_err(io_error)?;
            if medium.position_of(at.object)? != at {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // A mover has no keys: rather nothing is written than what was to be encrypted in the clear.
            if encrypts || !medium.writable() {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            drive.set_position(at);
            drive.permit_software(&settings).map_err(|_| io::ErrorKind::ReadOnlyFilesystem)?;
            let medium = drive.medium_for_append(settings.append_only).map_err(|sense| match sense.key {
                SenseKey::DataProtect => io::ErrorKind::ReadOnlyFilesystem.into(),
                _ => io_error(sense),
            })?;
            medium.share_image().map(OwnedFd::from)
        })
    }

    /// Takes a mover's report over.
    ///
    /// # Errors
    /// `InvalidData` for a report that the image does not bear out: the copy has failed, and its end recovers the drive.
    pub fn apply(&mut self, report: &TapeReport) -> io::Result<()> {
        let applied = self.with_medium(|cartridge, _| {
            cartridge.adopt(&report.appended)?;
            if cartridge.position_of(report.position.object)? != report.position {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no object begins where the tape is said to stand"));
            }
            if report.synced { cartridge.sync() } else { Ok(()) }
        });
        match applied {
            Ok(()) => self.set_position(report.position),
            Err(_) => self.in_doubt = true,
        }
        applied
    }

    /// Where object `object` begins; the end of data for what lies behind.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn position_of(&self, object: u64) -> io::Result<TapePosition> {
        self.with_medium(|cartridge, _| cartridge.position_of(object))
    }

    /// Whether `count` objects from `object` on are records of `length` bytes, none of them compressed or encrypted.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has_records(&self, object: u64, count: u64, length: u32) -> io::Result<bool> {
        self.with_medium(|cartridge, _| cartridge.has_records(object, count, length))
    }

    /// Publishes what a mover says that it has filled behind the end of data, and stands behind it.
    ///
    /// # Errors
    /// `InvalidData` for a report that the image does not bear out: nothing of it counts, and the end of the copy recovers the drive.
    /// Else the file system's own: without room for the end word nothing counts either, and nothing is in doubt.
    pub fn publish(&mut self, report: &TapeReport, durability: Durability) -> io::Result<()> {
        let (published, in_doubt) = self.with_medium(|cartridge, _| {
            let published = cartridge.publish(&report.appended, report.position, durability);
            let in_doubt = matches!(&published, Err(error) if error.kind() == io::ErrorKind::InvalidData);
            Ok((published, in_doubt || !cartridge.writable()))
        })?;
        self.in_doubt |= in_doubt;
        published?;
        self.set_position(report.position);
        Ok(())
    }

    /// The movers are done, and not all that they filled was published: gives back its room.
    pub fn discard_unpublished(&self) -> io::Result<()> {
        self.with_medium(|cartridge, _| {
            cartridge.discard_unpublished();
            Ok(())
        })
    }

    /// The mover has closed the image after its last report. A sync point; then commands have the drive again.
    ///
    /// # Errors
    /// The file system's own; the drive is back, but what the copy wrote may not survive a power loss. Also after a report that could
    /// not be taken over, however well the cartridge opens anew: whatever was lost then, a second look does not bring it back.
    pub fn finish(mut self) -> io::Result<()> {
        if self.in_doubt {
            self.recover()?;
            return Err(io::Error::other("a report of the mover could not be taken over"));
        }
        let synced = self.tape.with_drive(Drive::sync);
        self.release();
        synced
    }

    /// The mover has died: to be called when its process has ended. The cartridge is opened anew, a torn tail cut; the drive
    /// stands where the last report said, or at the end of data if it was appending.
    ///
    /// # Errors
    /// When the cartridge cannot be opened; the drive is then without a medium.
    pub fn recover(mut self) -> io::Result<()> {
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        let reopened = self.tape.with_drive(|drive| {
            let reopened = drive.reopen();
            info!(position = ?drive.position(), "cartridge opened anew after a copy");
            reopened
        });
        self.release();
        reopened.map_err(io::Error::other)
    }

    fn release(&mut self) {
        self.ended = true;
        self.tape.with_drive(|drive| {
            drive.copying = false;
            drive.used = Some(Instant::now());
        });
    }

    fn set_position(&self, position: TapePosition) {
        self.tape.with_drive(|drive| drive.set_position(position));
    }

    fn with_medium<R>(&self, run: impl FnOnce(&mut Partition, TapePosition) -> io::Result<R>) -> io::Result<R> {
        self.tape.with_drive(|drive| {
            let position = drive.position();
            let cartridge = drive.medium_mut().map_err(io_error)?;
            run(cartridge, position)
        })
    }
}

fn io_error(sense: Sense) -> io::Error {
    io::Error::other(sense.to_string())
}

impl Drop for TapeCopy {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.reopen()
        {
            warn!(%error, "the cartridge could not be opened after a copy that did not end");
        }
    }
}
