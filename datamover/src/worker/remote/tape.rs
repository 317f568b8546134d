//! A remote tape: READ(6) and WRITE(6) of one record each, WRITE FILEMARKS(6), SPACE(6), LOCATE(10). SSC-4.
//!
//! Always with FIXED = 0, whatever block length the drive is set to: a record has the length that it is written with, which is what
//! a transfer of fixed records comes to as well, and no mode of a drive that others use is changed. SILI = 0.

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::iscsi::session::{Completion, Data};
use protocol::mover::{FaultKind, SpaceOver};
use protocol::scsi::{Sense, SenseKey};
use protocol::xcopy::MAX_STREAM_TRANSFER;

use super::session::{RemoteCommand, RemoteSession, refusal};

/// A drive may stop, go back and start anew.
const TRANSFER: Duration = Duration::from_secs(120);
/// From one end of a tape to the other.
const WIND: Duration = Duration::from_secs(900);

const READ_6: u8 = 0x08;
const WRITE_6: u8 = 0x0A;
const WRITE_FILEMARKS_6: u8 = 0x10;
const SPACE_6: u8 = 0x11;
const LOCATE_10: u8 = 0x2B;

/// A remote tape, which stands where it stands.
#[derive(Debug)]
pub struct RemoteTape {
    session: RemoteSession,
    writable: bool,
    /// It was written and is not synchronized.
    dirty: AtomicBool,
}

/// What a read of a record of any length came upon; the tape stands behind it.
#[derive(Debug)]
pub enum Following {
    /// A record.
    Record(Vec<Bytes>),
    /// A filemark.
    Filemark,
    /// Nothing any more.
    EndOfData,
}

impl RemoteTape {
    /// The tape of a session.
    #[must_use]
    pub const fn new(session: RemoteSession, writable: bool) -> Self {
        Self { session, writable, dirty: AtomicBool::new(false) }
    }

    /// Reads the record that follows, which must have just the length of `into`.
    ///
    /// # Errors
    /// What the drive says: of a record of another length, a filemark or the end of the data too.
    pub fn read_record(&self, cancelled: &AtomicBool, into: &mut [IoSliceMut<'_>]) -> Result<(), FaultKind> {
        let length: usize = into.iter().map(|part| part.len()).sum();
        let completion = self.session.command(cancelled, &read(length as u32))?;
        if completion.data_in.iter().map(Bytes::len).sum::<usize>() != length {
            return Err(FaultKind::Underrun);
        }
        scatter(&completion.data_in, into);
        Ok(())
    }

    /// Reads what follows, whatever it is.
    ///
    /// # Errors
    /// What the drive says of all else.
    pub fn read_following(&self, cancelled: &AtomicBool) -> Result<Following, FaultKind> {
        let completion = self.session.outcome(cancelled, &read(MAX_STREAM_TRANSFER))?;
        let Some(fault) = refusal(&completion) else { return Ok(Following::Record(completion.data_in)) };
        let Ok(sense) = Sense::parse(&completion.sense) else { return Err(fault) };
        match sense.key {
            SenseKey::NoSense if sense.stream.filemark => Ok(Following::Filemark),
            SenseKey::BlankCheck => Ok(Following::EndOfData),
            // Shorter than what was asked for, as every record is.
            SenseKey::NoSense if sense.stream.incorrect_length => record(completion, &sense),
            _ => Err(fault),
        }
    }

    /// Writes one record. Gives what the drive said when it has written it and warns of the end of the medium.
    ///
    /// # Errors
    /// What the drive says when it is not written.
    pub fn write_record(&self, cancelled: &AtomicBool, data: Vec<Bytes>) -> Result<Option<FaultKind>, FaultKind> {
        let length: usize = data.iter().map(Bytes::len).sum();
        let [_, a, b, c] = (length as u32).to_be_bytes();
        self.write(cancelled, &RemoteCommand::new(&[WRITE_6, 0, a, b, c, 0], Data::Out(data), TRANSFER))
    }

    /// Writes filemarks; with none and not `immediate` what was written is synchronized. Gives a warning as
    /// [`RemoteTape::write_record`].
    ///
    /// # Errors
    /// As [`RemoteTape::write_record`].
    pub fn write_filemarks(&self, cancelled: &AtomicBool, count: u32, immediate: bool) -> Result<Option<FaultKind>, FaultKind> {
        let [_, a, b, c] = count.to_be_bytes();
        let cdb = [WRITE_FILEMARKS_6, u8::from(immediate), a, b, c, 0];
        let warned = self.write(cancelled, &RemoteCommand::new(&cdb, Data::None, WIND))?;
        if !immediate {
            self.dirty.store(false, Ordering::Relaxed);
        }
        Ok(warned)
    }

    /// What was written stays when the power fails.
    ///
    /// # Errors
    /// As [`RemoteTape::write_record`].
    pub fn synchronize(&self, cancelled: &AtomicBool) -> Result<(), FaultKind> {
        if self.dirty.load(Ordering::Relaxed) { self.write_filemarks(cancelled, 0, false).map(drop) } else { Ok(()) }
    }

    /// SPACE.
    ///
    /// # Errors
    /// What the drive says, also when it stopped early.
    pub fn space(&self, cancelled: &AtomicBool, over: SpaceOver, count: i32) -> Result<(), FaultKind> {
        let code = match over {
            SpaceOver::LogicalBlocks => 0x0,
            SpaceOver::Filemarks => 0x1,
            SpaceOver::EndOfData => 0x3,
        };
        let [_, a, b, c] = count.to_be_bytes();
        self.session.command(cancelled, &RemoteCommand::new(&[SPACE_6, code, a, b, c, 0], Data::None, WIND)).map(drop)
    }

    /// LOCATE to a logical object of the current partition.
    ///
    /// # Errors
    /// As [`RemoteTape::space`], and [`FaultKind::OutOfRange`] for a number that has more than 32 bits.
    pub fn locate(&self, cancelled: &AtomicBool, object: u64) -> Result<(), FaultKind> {
        let [a, b, c, d] = u32::try_from(object).map_err(|_| FaultKind::OutOfRange)?.to_be_bytes();
        let cdb = [LOCATE_10, 0, 0, a, b, c, d, 0, 0, 0];
        self.session.command(cancelled, &RemoteCommand::new(&cdb, Data::None, WIND)).map(drop)
    }

    /// "… commands ended GOOD or CHECK CONDITION with the EOM bit": the latter wrote all that they had.
    fn write(&self, cancelled: &AtomicBool, command: &RemoteCommand) -> Result<Option<FaultKind>, FaultKind> {
        if !self.writable {
            return Err(FaultKind::WriteProtected);
        }
        self.dirty.store(true, Ordering::Relaxed);
        let completion = self.session.outcome(cancelled, command)?;
        let Some(fault) = refusal(&completion) else { return Ok(None) };
        match Sense::parse(&completion.sense) {
            Ok(sense) if sense.key == SenseKey::NoSense && sense.stream.end_of_medium => Ok(Some(fault)),
            _ => Err(fault),
        }
    }
}

fn read(length: u32) -> RemoteCommand {
    let [_, a, b, c] = length.to_be_bytes();
    RemoteCommand::new(&[READ_6, 0, a, b, c, 0], Data::In(length), TRANSFER)
}

/// The data of a record that is shorter than what was asked for.
fn record(completion: Completion, sense: &Sense) -> Result<Following, FaultKind> {
    let came: u64 = completion.data_in.iter().map(|part| part.len() as u64).sum();
    let residual = sense.information.unwrap_or_default();
    let length = u64::from(MAX_STREAM_TRANSFER).checked_sub(residual).filter(|length| *length <= came);
    let mut rest = length.ok_or(FaultKind::Underrun)?;
    let parts = completion.data_in.into_iter().map(|part| {
        let take = rest.min(part.len() as u64);
        rest -= take;
        part.slice(..take as usize)
    });
    Ok(Following::Record(parts.filter(|part| !part.is_empty()).collect()))
}

fn scatter(data: &[Bytes], into: &mut [IoSliceMut<'_>]) {
    let mut parts = data.iter();
    let mut part: &[u8] = &[];
    for place in into {
        let mut place = &mut place[..];
        while !place.is_empty() {
            if part.is_empty() {
                match parts.next() {
                    Some(next) => part = next,
                    None => return,
                }
                continue;
            }
            let take = part.len().min(place.len());
            let (here, behind) = place.split_at_mut(take);
            here.copy_from_slice(&part[..take]);
            (place, part) = (behind, &part[take..]);
        }
    }
}
