//! The drive: a cartridge and a position on it, and what happens at marks and ends.
//!
//! Knows CDBs no more than positions on the medium; residuals are what was asked for minus what was done, as INFORMATION wants
//! them. Follows SSC-4, "SPACE", "LOCATE" and "Sequential-access device sense data".

use std::io;
use std::path::PathBuf;

use protocol::cartridge::index::Entry;
use protocol::cartridge::{ObjectKind, TapePosition};
use protocol::control::TapeStatus;
use protocol::scsi::sense::StreamFlags;
use protocol::scsi::ssc::SpaceCode;
use protocol::scsi::{Sense, SenseKey};
use tracing::{error, info};

use super::Shown;
use crate::cartridge::metadata::DEFAULT_DENSITY;
use crate::cartridge::{Cartridge, OpenError, ReadError, WriteError};

/// A drive and what is in it.
#[derive(Debug)]
pub struct Drive {
    /// The cartridge that is in the drive, loaded or not.
    seated: Option<Seated>,
    /// The same cartridge, while it is loaded.
    cartridge: Option<Cartridge>,
    position: TapePosition,
    /// A copy has the drive; commands that need the medium do not.
    pub copying: bool,
    /// The medium was synchronized because the early-warning point was passed; once for each pass.
    pub warned: bool,
    /// Since the target started.
    pub counters: Counters,
    /// TapeAlert flags, a bit for each, flag 1 the lowest.
    pub alerts: u64,
}

/// A cartridge in the drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seated {
    /// Its folder.
    pub folder: PathBuf,
    /// Its label, as it was when it was put in.
    pub barcode: String,
    /// Unloaded with HOLD: it is not ejected, and wants a LOAD before it is ready.
    pub held: bool,
}

/// What went through the drive.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub bytes_written: u64,
    pub bytes_read: u64,
    pub write_errors: u64,
    pub read_errors: u64,
    pub loads: u64,
}

/// TapeAlert flags. SSC-4, "TapeAlert log page".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// Hard error while reading or writing.
    HardError = 3,
    /// Read failure.
    ReadFailure = 5,
    /// Write failure.
    WriteFailure = 6,
    /// A write to a protected medium was tried.
    WriteProtect = 9,
}

impl Drive {
    /// A drive without a cartridge.
    pub fn empty() -> Self {
        Self {
            seated: None,
            cartridge: None,
            position: TapePosition::BEGINNING,
            copying: false,
            warned: false,
            counters: Counters::default(),
            alerts: 0,
        }
    }

    /// Puts the cartridge of a folder into an empty drive and loads it. When it cannot be opened, the drive stays empty.
    pub fn insert(&mut self, folder: PathBuf) -> Result<(), OpenError> {
        debug_assert!(self.seated.is_none(), "a drive takes one cartridge");
        self.seated = Some(Seated { folder, barcode: String::new(), held: false });
        let opened = self.open();
        if opened.is_err() {
            self.seated = None;
        }
        opened
    }

    /// Unloads the cartridge and takes it out; `None` when there was none. It stays where it is when it cannot be unloaded.
    pub fn remove(&mut self) -> Result<Option<PathBuf>, Sense> {
        self.unload(false)?;
        Ok(self.seated.take().map(|seated| seated.folder))
    }

    /// What is in the drive, loaded or not.
    pub const fn seated(&self) -> Option<&Seated> {
        self.seated.as_ref()
    }

    /// What can be told without asking the drive.
    pub fn shown(&self) -> Shown {
        let cartridge = self.cartridge.as_ref();
        let end = cartridge.map(Cartridge::end).unwrap_or_default();
        let metadata = cartridge.map(Cartridge::metadata);
        Shown {
            capacity: metadata.map_or(0, |metadata| metadata.capacity),
            density: metadata.map_or(DEFAULT_DENSITY, |metadata| metadata.density),
            write_protected: cartridge.is_some_and(|cartridge| !cartridge.writable()),
            copying: self.copying,
            seated: self.seated.clone(),
            status: TapeStatus {
                loaded: cartridge.is_some(),
                barcode: metadata.map(|metadata| metadata.barcode.clone()).unwrap_or_default(),
                object: self.position.object,
                file: self.position.file,
                objects: end.object,
                used: end.offset,
                notes: cartridge.map(|cartridge| cartridge.notes().to_vec()).unwrap_or_default(),
            },
        }
    }

    /// The medium, if there is one.
    pub fn medium(&self) -> Result<&Cartridge, Sense> {
        self.cartridge.as_ref().ok_or_else(|| not_loaded(self.seated.as_ref()))
    }

    /// As [`Drive::medium`], for a change.
    pub fn medium_mut(&mut self) -> Result<&mut Cartridge, Sense> {
        self.cartridge.as_mut().ok_or_else(|| not_loaded(self.seated.as_ref()))
    }

    /// The medium and the position, for a write: whatever lies behind the position is cut away first.
    pub fn medium_for_append(&mut self) -> Result<&mut Cartridge, Sense> {
        let position = self.position;
        let cut = self.medium_mut()?.cut(position);
        cut.map_err(|error| self.write_sense(&error))?;
        self.medium_mut()
    }

    /// Where the drive stands.
    pub const fn position(&self) -> TapePosition {
        self.position
    }

    /// The position is past the early-warning point.
    pub fn early_warning(&self) -> bool {
        self.cartridge.as_ref().is_some_and(|cartridge| self.position.offset >= cartridge.limits().early_warning)
    }

    /// Moves without any look at what lies between.
    pub const fn set_position(&mut self, position: TapePosition) {
        self.position = position;
    }

    /// A sync point; without effect when nothing was written.
    pub fn sync(&mut self) -> io::Result<()> {
        self.cartridge.as_mut().map_or(Ok(()), Cartridge::sync)
    }

    /// As [`Drive::sync`], for a command. What is told may belong to earlier writes that were accepted.
    pub fn synchronize(&mut self) -> Result<(), Sense> {
        self.medium()?;
        self.sync().map_err(|error| self.write_sense(&WriteError::Io(error)))
    }

    /// The object at the position, and a step behind it; `None` at the end of data.
    pub fn next_object(&mut self) -> Result<Option<Entry>, Sense> {
        let entry = self.medium()?.object(self.position.object).map_err(|error| self.read_sense(&ReadError::Io(error)))?;
        if let Some(entry) = &entry {
            self.position = entry.next();
        }
        Ok(entry)
    }

    /// To the beginning.
    pub fn rewind(&mut self) -> Result<(), Sense> {
        self.synchronize()?;
        self.position = TapePosition::BEGINNING;
        Ok(())
    }

    /// SPACE: `count` objects forward, or backward when negative.
    pub fn space(&mut self, code: SpaceCode, count: i64) -> Result<(), Sense> {
        self.synchronize()?;
        let steps = count.unsigned_abs();
        match code {
            SpaceCode::EndOfData => {
                self.position = self.medium()?.end();
                Ok(())
            }
            _ if count == 0 => Ok(()),
            SpaceCode::Blocks if count > 0 => self.blocks_forward(steps),
            SpaceCode::Blocks => self.blocks_backward(steps),
            SpaceCode::Filemarks if count > 0 => self.filemarks_forward(steps),
            SpaceCode::Filemarks => self.filemarks_backward(steps),
            SpaceCode::SequentialFilemarks if count > 0 => self.run_of_filemarks_forward(steps),
            SpaceCode::SequentialFilemarks => self.run_of_filemarks_backward(steps),
        }
    }

    /// To the object with this number.
    pub fn locate_object(&mut self, object: u64) -> Result<(), Sense> {
        self.synchronize()?;
        self.go_to(object)?;
        if object > self.position.object { Err(end_of_data(None)) } else { Ok(()) }
    }

    /// Behind so many filemarks.
    pub fn locate_file(&mut self, file: u64) -> Result<(), Sense> {
        self.synchronize()?;
        let Some(last_mark) = file.checked_sub(1) else { return self.go_to(0) };
        match self.filemark(last_mark)? {
            Some(mark) => self.go_to(mark + 1),
            None => {
                self.position = self.medium()?.end();
                Err(end_of_data(None))
            }
        }
    }

    /// Unloads the cartridge: its image is synchronized and nobody's any more. It lies in the drive until it is taken out.
    pub fn unload(&mut self, hold: bool) -> Result<(), Sense> {
        if self.cartridge.is_some() {
            self.synchronize()?;
            self.cartridge = None;
            self.position = TapePosition::BEGINNING;
            info!(cartridge = self.name(), "unloaded");
        }
        if let Some(seated) = &mut self.seated {
            seated.held = hold;
        }
        Ok(())
    }

    /// Loads the cartridge that is in the drive and stands at its beginning. True when it was not loaded before.
    pub fn load(&mut self) -> Result<bool, Sense> {
        if self.cartridge.is_some() {
            self.rewind()?;
            return Ok(false);
        }
        if self.seated.is_none() {
            return Err(Sense::MEDIUM_NOT_PRESENT);
        }
        self.open().map_err(|error| {
            error!(%error, "not loaded");
            match error {
                OpenError::InUse(_) => Sense::LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY,
                _ => Sense::MEDIUM_FORMAT_CORRUPTED,
            }
        })?;
        Ok(true)
    }

    /// Opens the cartridge anew: what the image shows counts, not what is remembered. The position stays, as far as there are objects;
    /// a drive that stood at the end of data stands there again.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        let (position, end) = (self.position, self.cartridge.as_ref().map(Cartridge::end));
        // Closed first: the lock of the image is its own.
        self.cartridge = None;
        self.open()?;
        let cartridge = self.cartridge.as_ref().expect("just opened");
        self.position = if end.is_none_or(|end| position.object >= end.object) {
            cartridge.end()
        } else {
            let path = || cartridge.folder().to_owned();
            cartridge.position_of(position.object).map_err(|source| OpenError::File { path: path(), source })?
        };
        Ok(())
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let seated = self.seated.as_mut().expect("a cartridge is in the drive");
        let cartridge = Cartridge::open(&seated.folder)?;
        seated.barcode.clone_from(&cartridge.metadata().barcode);
        seated.held = false;
        self.cartridge = Some(cartridge);
        self.position = TapePosition::BEGINNING;
        self.warned = false;
        self.counters.loads += 1;
        Ok(())
    }

    /// For messages.
    fn name(&self) -> &str {
        self.seated.as_ref().map_or("none", |seated| &seated.barcode)
    }

    fn blocks_forward(&mut self, count: u64) -> Result<(), Sense> {
        let from = self.position;
        let mark = self.filemark(from.file)?;
        let blocks = mark.unwrap_or(self.medium()?.end().object) - from.object;
        if count <= blocks {
            return self.go_to(from.object + count);
        }
        let residual = (count - blocks) as i64;
        match mark {
            Some(mark) => {
                self.go_to(mark + 1)?;
                Err(filemark(residual))
            }
            None => {
                self.position = self.medium()?.end();
                Err(end_of_data(Some(residual)))
            }
        }
    }

    fn blocks_backward(&mut self, count: u64) -> Result<(), Sense> {
        let from = self.position;
        let mark = match from.file.checked_sub(1) {
            Some(last_mark) => self.filemark(last_mark)?,
            None => None,
        };
        let blocks = from.object - mark.map_or(0, |mark| mark + 1);
        if count <= blocks {
            return self.go_to(from.object - count);
        }
        let residual = (count - blocks) as i64;
        self.go_to(mark.unwrap_or(0))?;
        Err(if mark.is_some() { filemark(residual) } else { beginning(residual) })
    }

    fn filemarks_forward(&mut self, count: u64) -> Result<(), Sense> {
        let end = self.medium()?.end();
        let marks = end.file - self.position.file;
        if count > marks {
            self.position = end;
            return Err(end_of_data(Some((count - marks) as i64)));
        }
        let mark = self.filemark(self.position.file + count - 1)?.ok_or(Sense::SEQUENTIAL_POSITIONING_ERROR)?;
        self.go_to(mark + 1)
    }

    fn filemarks_backward(&mut self, count: u64) -> Result<(), Sense> {
        let marks = self.position.file;
        if count > marks {
            self.position = TapePosition::BEGINNING;
            return Err(beginning((count - marks) as i64));
        }
        let mark = self.filemark(marks - count)?.ok_or(Sense::SEQUENTIAL_POSITIONING_ERROR)?;
        self.go_to(mark)
    }

    fn run_of_filemarks_forward(&mut self, count: u64) -> Result<(), Sense> {
        let end = self.medium()?.end();
        let mut file = self.position.file;
        while end.file - file >= count {
            if let Some(first) = self.run(file, count)? {
                return self.go_to(first + count);
            }
            file += 1;
        }
        self.position = end;
        Err(end_of_data(Some(count as i64)))
    }

    fn run_of_filemarks_backward(&mut self, count: u64) -> Result<(), Sense> {
        let mut behind = self.position.file;
        while behind >= count {
            if let Some(first) = self.run(behind - count, count)? {
                return self.go_to(first);
            }
            behind -= 1;
        }
        self.position = TapePosition::BEGINNING;
        Err(beginning(count as i64))
    }

    /// The object number of filemark `file` when it and the `count - 1` behind it have no blocks between.
    fn run(&mut self, file: u64, count: u64) -> Result<Option<u64>, Sense> {
        let (Some(first), Some(last)) = (self.filemark(file)?, self.filemark(file + count - 1)?) else { return Ok(None) };
        Ok((last - first == count - 1).then_some(first))
    }

    fn filemark(&mut self, file: u64) -> Result<Option<u64>, Sense> {
        self.medium()?.filemark(file).map_err(|error| self.read_sense(&ReadError::Io(error)))
    }

    fn go_to(&mut self, object: u64) -> Result<(), Sense> {
        let position = self.medium()?.position_of(object);
        self.position = position.map_err(|error| self.read_sense(&ReadError::Io(error)))?;
        Ok(())
    }

    /// What a failed read is as sense data; counted and told by TapeAlert.
    pub fn read_sense(&mut self, error: &ReadError) -> Sense {
        error!(cartridge = self.name(), object = self.position.object, %error, "read failed");
        self.counters.read_errors += 1;
        self.alert(Alert::ReadFailure);
        self.alert(Alert::HardError);
        Sense::UNRECOVERED_READ_ERROR
    }

    /// What a failed write is as sense data; counted and told by TapeAlert. A full file system below is a full medium.
    pub fn write_sense(&mut self, error: &WriteError) -> Sense {
        match error {
            WriteError::Protected => {
                self.alert(Alert::WriteProtect);
                return Sense::WRITE_PROTECTED;
            }
            WriteError::Append(_) => return volume_overflow(),
            WriteError::Io(_) => {}
        }
        error!(cartridge = self.name(), object = self.position.object, %error, "write failed");
        self.counters.write_errors += 1;
        self.alert(Alert::WriteFailure);
        match error {
            WriteError::Io(error) if is_full(error) => volume_overflow(),
            _ => {
                self.alert(Alert::HardError);
                Sense::WRITE_ERROR
            }
        }
    }

    const fn alert(&mut self, alert: Alert) {
        self.alerts |= 1 << (alert as u8 - 1);
    }
}

/// Why a drive has no medium to work on: no cartridge, one that was ejected and waits to be taken out, or one that is held.
pub fn not_loaded(seated: Option<&Seated>) -> Sense {
    match seated {
        Some(seated) if seated.held => Sense::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED,
        _ => Sense::MEDIUM_NOT_PRESENT,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

const FILEMARK: StreamFlags = StreamFlags { filemark: true, end_of_medium: false, incorrect_length: false };
const END_OF_MEDIUM: StreamFlags = StreamFlags { filemark: false, end_of_medium: true, incorrect_length: false };
const INCORRECT_LENGTH: StreamFlags = StreamFlags { filemark: false, end_of_medium: false, incorrect_length: true };

/// A filemark stopped the command.
pub fn filemark(residual: i64) -> Sense {
    Sense::FILEMARK_DETECTED.with_stream(FILEMARK).with_information(residual as u64)
}

/// The end of data stopped the command.
pub fn end_of_data(residual: Option<i64>) -> Sense {
    match residual {
        Some(residual) => Sense::END_OF_DATA_DETECTED.with_information(residual as u64),
        None => Sense::END_OF_DATA_DETECTED,
    }
}

/// The beginning of the partition stopped the command.
pub fn beginning(residual: i64) -> Sense {
    let sense = Sense::BEGINNING_OF_PARTITION_MEDIUM_DETECTED;
    sense.with_stream(END_OF_MEDIUM).with_information(residual as u64)
}

/// The command was carried out; the medium is nearly full.
pub fn early_warning() -> Sense {
    Sense::END_OF_PARTITION_MEDIUM_DETECTED.with_stream(END_OF_MEDIUM).with_information(0)
}

/// A record is not as long as it was to be.
pub fn incorrect_length(residual: i64) -> Sense {
    Sense::NO_ADDITIONAL_SENSE_INFORMATION.with_stream(INCORRECT_LENGTH).with_information(residual as u64)
}

/// The medium is full.
pub fn volume_overflow() -> Sense {
    Sense::END_OF_PARTITION_MEDIUM_DETECTED.with_key(SenseKey::VolumeOverflow).with_stream(END_OF_MEDIUM)
}

/// True for a logical block.
pub fn is_record(entry: &Entry) -> bool {
    entry.kind == ObjectKind::Record
}
