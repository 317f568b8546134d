//! The drive: a cartridge and a position on it, and what happens at marks and ends.
//!
//! Knows CDBs no more than positions on the medium; residuals are what was asked for minus what was done, as INFORMATION wants
//! them. Follows SSC-4, "SPACE", "LOCATE" and "Sequential-access device sense data".

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use protocol::cartridge::index::Entry;
use protocol::cartridge::{ObjectKind, TapePosition};
use protocol::control::{TapeStatus, TapeTotals, WithoutSums};
use protocol::scsi::sense::StreamFlags;
use protocol::scsi::ssc::SpaceCode;
use protocol::scsi::{Sense, SenseKey};
use tracing::{error, info};

use super::density::{self, Taken};
use super::mode::Settings;
use super::{Shown, released};
use crate::cartridge::memory::Memory;
use crate::cartridge::metadata::DEFAULT_DENSITY;
use crate::cartridge::{Cartridge, Metadata, OpenError, Partition, ReadError, WriteError};

/// A drive and what is in it.
#[derive(Debug)]
pub struct Drive {
    /// The cartridge that is in the drive, loaded or not.
    seated: Option<Seated>,
    /// The same cartridge, while it is loaded.
    cartridge: Option<Cartridge>,
    /// The partition that the position is in.
    partition: usize,
    position: TapePosition,
    /// Told to [`Cartridge::loaded`]: vendor and serial number.
    name: String,
    /// PRODUCT IDENTIFICATION, which may tell what media it takes.
    product: String,
    /// ALLOW OVERWRITE was given for the current position.
    overwrite_allowed: bool,
    /// ALLOW OVERWRITE was given for a format.
    format_allowed: bool,
    /// A copy has the drive; commands that need the medium do not.
    pub copying: bool,
    /// When a command or a copy last had the medium.
    pub used: Option<Instant>,
    /// The medium was synchronized because the early-warning point was passed; once for each pass.
    pub warned: bool,
    /// What the log pages tell.
    pub counters: Counters,
    totals: TapeTotals,
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
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    /// Since the target started, or since LOG SELECT.
    pub total: Traffic,
    /// Since the cartridge was loaded.
    pub of_load: Traffic,
    /// Writes that failed for good.
    pub write_errors: u64,
    /// Reads that failed for good.
    pub read_errors: u64,
}

/// Bytes of records.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// From initiators.
    pub written: u64,
    /// To initiators.
    pub read: u64,
    /// To the medium: what was written, compressed or not.
    pub stored_written: u64,
    /// From the medium.
    pub stored_read: u64,
}

impl Traffic {
    /// Nothing.
    pub const NONE: Self = Self { written: 0, read: 0, stored_written: 0, stored_read: 0 };
}

impl Counters {
    /// Nothing.
    pub const NONE: Self = Self { total: Traffic::NONE, of_load: Traffic::NONE, write_errors: 0, read_errors: 0 };
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
    /// An overwrite of a WORM medium was tried.
    WormOverwriteAttempted = 60,
}

impl Drive {
    /// A drive without a cartridge, by the name that cartridges remember, and its product's.
    pub const fn empty(name: String, product: String) -> Self {
        Self {
            seated: None,
            cartridge: None,
            partition: 0,
            position: TapePosition::BEGINNING,
            name,
            product,
            overwrite_allowed: false,
            format_allowed: false,
            copying: false,
            used: None,
            warned: false,
            counters: Counters::NONE,
            totals: TapeTotals::NONE,
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
        let partition = cartridge.map(|cartridge| &cartridge.partitions()[self.partition]);
        let end = partition.map(Partition::end).unwrap_or_default();
        let metadata = cartridge.map(Cartridge::metadata);
        let absent = cartridge.map(Cartridge::absent).unwrap_or_default();
        Shown {
            capacity: metadata.map_or(0, Metadata::usable),
            density: metadata.map_or(DEFAULT_DENSITY, |metadata| metadata.density),
            write_protected: cartridge.is_some_and(|cartridge| !cartridge.writable()),
            worm: metadata.is_some_and(|metadata| metadata.worm),
            partition: self.partition as u8,
            partitions: metadata.map(Metadata::partition_sizes).unwrap_or_default(),
            copying: self.copying,
            seated: self.seated.clone(),
            status: TapeStatus {
                loaded: cartridge.is_some(),
                barcode: metadata.map(|metadata| metadata.barcode.clone()).unwrap_or_default(),
                object: self.position.object,
                file: self.position.file,
                objects: end.object,
                used: end.offset,
                notes: cartridge.map(Cartridge::notes).unwrap_or_default(),
                without_sums: WithoutSums { records: absent.records, bytes: absent.bytes },
                totals: self.totals,
            },
        }
    }

    /// The cartridge that is loaded, if there is one.
    pub fn cartridge(&self) -> Result<&Cartridge, Sense> {
        self.cartridge.as_ref().ok_or_else(|| not_loaded(self.seated.as_ref()))
    }

    /// As [`Drive::cartridge`], for a change.
    pub fn cartridge_mut(&mut self) -> Result<&mut Cartridge, Sense> {
        self.cartridge.as_mut().ok_or_else(|| not_loaded(self.seated.as_ref()))
    }

    /// The partition that the position is in, if a medium is there.
    pub fn medium(&self) -> Result<&Partition, Sense> {
        self.cartridge().map(|cartridge| &cartridge.partitions()[self.partition])
    }

    /// As [`Drive::medium`], for a change.
    pub fn medium_mut(&mut self) -> Result<&mut Partition, Sense> {
        let partition = self.partition;
        self.cartridge_mut().map(|cartridge| &mut cartridge.partitions_mut()[partition])
    }

    /// The partition, for a write at the position: whatever lies behind is cut away first. `append_only` is the WRITE MODE of the
    /// device configuration extension mode page.
    pub fn medium_for_append(&mut self, append_only: bool) -> Result<&mut Partition, Sense> {
        self.permit_write(append_only)?;
        let position = self.position;
        self.cut(position)?;
        self.overwrite_allowed = false;
        self.medium_mut()
    }

    /// What lies behind a position in this partition is gone, with all that the cartridge has to be told before.
    pub fn cut(&mut self, at: TapePosition) -> Result<(), Sense> {
        let partition = self.partition;
        let cartridge = self.cartridge_mut()?;
        let changed =
            if cartridge.writable() { cartridge.changing().map_err(WriteError::Io) } else { Err(WriteError::Protected) };
        let cut = changed.and_then(|()| cartridge.partitions_mut()[partition].cut(at));
        cut.map_err(|error| self.write_sense(&error))
    }

    /// Appending is always permitted; overwriting not on WORM media, but for the filemarks that end the data, nor in append-only
    /// mode, but where ALLOW OVERWRITE was given.
    pub fn permit_write(&mut self, append_only: bool) -> Result<(), Sense> {
        let (end, worm) = (self.medium()?.end(), self.cartridge()?.metadata().worm);
        if self.position.object >= end.object {
            return Ok(());
        }
        // As many filemarks as objects behind: nothing but filemarks.
        let only_marks = end.file - self.position.file == end.object - self.position.object;
        let behind_mark = self.position.file > 0 && self.filemark(self.position.file - 1)? == Some(self.position.object - 1);
        let refused = (worm && !(only_marks && behind_mark)) || (append_only && !self.overwrite_allowed);
        if !refused {
            return Ok(());
        }
        if worm {
            self.alert(Alert::WormOverwriteAttempted);
        }
        Err(Sense::WORM_MEDIUM_OVERWRITE_ATTEMPTED)
    }

    /// ALLOW OVERWRITE of the current position, of the whole medium, or no more.
    pub const fn allow_overwrite(&mut self, position: bool, format: bool) {
        self.overwrite_allowed = position;
        self.format_allowed = format;
    }

    /// The medium may be formatted though it is only to be appended to.
    pub const fn format_allowed(&self) -> bool {
        self.format_allowed
    }

    /// Refuses a write where SWP is set.
    pub fn permit_software(&self, settings: &Settings) -> Result<(), Sense> {
        if settings.software_write_protect { Err(Sense::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED) } else { Ok(()) }
    }

    /// Where the drive stands in its partition.
    pub const fn position(&self) -> TapePosition {
        self.position
    }

    /// Number of the partition that the drive stands in.
    pub const fn partition(&self) -> usize {
        self.partition
    }

    /// Goes to the beginning of a partition; where the drive stands in it already, nothing moves.
    pub fn change_partition(&mut self, partition: u8) -> Result<(), Sense> {
        let partition = usize::from(partition);
        if partition >= self.cartridge()?.partitions().len() {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        if partition != self.partition {
            self.synchronize()?;
            self.partition = partition;
            self.set_position(TapePosition::BEGINNING);
        }
        Ok(())
    }

    /// Takes all data away and divides the medium anew; the drive then stands at the beginning.
    pub fn format(&mut self, sizes: &[u64]) -> Result<(), Sense> {
        let cartridge = self.cartridge_mut()?;
        let formatted = if cartridge.writable() { cartridge.format(sizes) } else { Err(WriteError::Protected) };
        self.partition = 0;
        self.set_position(TapePosition::BEGINNING);
        self.warned = false;
        formatted.map_err(|error| self.write_sense(&error))
    }

    /// The position is past the early-warning point.
    pub fn early_warning(&self) -> bool {
        self.medium().is_ok_and(|medium| self.position.offset >= medium.limits().early_warning)
    }

    /// A position is past the programmable early-warning point, which lies `zone` bytes in front of early warning.
    pub fn programmable_early_warning(&self, zone: u64, position: TapePosition) -> bool {
        self.medium().is_ok_and(|medium| zone > 0 && position.offset >= medium.limits().early_warning.saturating_sub(zone))
    }

    /// Moves without any look at what lies between.
    pub const fn set_position(&mut self, position: TapePosition) {
        if self.position.object != position.object {
            self.allow_overwrite(false, false);
        }
        self.position = position;
    }

    /// A sync point; without effect when nothing was written.
    pub fn sync(&mut self) -> io::Result<()> {
        let mut partitions = self.cartridge.iter_mut().flat_map(Cartridge::partitions_mut);
        partitions.try_for_each(Partition::sync)
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
            self.set_position(entry.next());
        }
        Ok(entry)
    }

    /// The object in front of the position, and a step before it; `None` at the beginning of the partition.
    pub fn previous_object(&mut self) -> Result<Option<Entry>, Sense> {
        self.medium()?;
        let Some(object) = self.position.object.checked_sub(1) else { return Ok(None) };
        let entry = self.medium()?.object(object).map_err(|error| self.read_sense(&ReadError::Io(error)))?;
        if let Some(entry) = &entry {
            self.set_position(entry.at);
        }
        Ok(entry)
    }

    /// To the beginning of the partition.
    pub fn rewind(&mut self) -> Result<(), Sense> {
        self.synchronize()?;
        self.medium()?;
        self.set_position(TapePosition::BEGINNING);
        Ok(())
    }

    /// SPACE: `count` objects forward, or backward when negative.
    pub fn space(&mut self, code: SpaceCode, count: i64) -> Result<(), Sense> {
        self.synchronize()?;
        let steps = count.unsigned_abs();
        match code {
            SpaceCode::EndOfData => {
                self.set_position(self.medium()?.end());
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
                self.set_position(self.medium()?.end());
                Err(end_of_data(None))
            }
        }
    }

    /// Unloads the cartridge: its image is synchronized and nobody's any more. It lies in the drive until it is taken out.
    pub fn unload(&mut self, hold: bool) -> Result<(), Sense> {
        if self.cartridge.is_some() {
            self.synchronize()?;
            self.cartridge.iter_mut().for_each(Cartridge::unloaded);
            self.cartridge = None;
            self.partition = 0;
            self.set_position(TapePosition::BEGINNING);
            info!(cartridge = self.label(), "unloaded");
        }
        if let Some(seated) = &mut self.seated {
            seated.held = hold;
        }
        Ok(())
    }

    /// Keeps the cartridge that is in the drive from being ejected, without loading it.
    pub fn hold(&mut self) -> Result<(), Sense> {
        let seated = self.seated.as_mut().ok_or(Sense::MEDIUM_NOT_PRESENT)?;
        seated.held = self.cartridge.is_none();
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
                OpenError::Incompatible { .. } => Sense::INCOMPATIBLE_MEDIUM_INSTALLED,
                OpenError::InUse(_) => Sense::LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY,
                _ => Sense::MEDIUM_FORMAT_CORRUPTED,
            }
        })?;
        Ok(true)
    }

    /// Opens the cartridge anew: what the image shows counts, not what is remembered. The position stays, as far as there are objects;
    /// a drive that stood at the end of data stands there again.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        let (position, end) = (self.position, self.medium().map(Partition::end).ok());
        let folder = self.seated.as_ref().expect("a cartridge is in the drive").folder.clone();
        // Closed first: the lock of the image is its own.
        self.cartridge = None;
        let mut cartridge = released(|| Cartridge::open(&folder))?;
        suit(&mut cartridge, &self.product)?;
        self.partition = self.partition.min(cartridge.partitions().len() - 1);
        let partition = &cartridge.partitions()[self.partition];
        self.position = if end.is_none_or(|end| position.object >= end.object) {
            partition.end()
        } else {
            partition.position_of(position.object).map_err(|source| OpenError::File { path: folder, source })?
        };
        self.overwrite_allowed = false;
        self.cartridge = Some(cartridge);
        Ok(())
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let seated = self.seated.as_mut().expect("a cartridge is in the drive");
        let mut cartridge = Cartridge::open(&seated.folder)?;
        suit(&mut cartridge, &self.product)?;
        cartridge.loaded(&self.name);
        seated.barcode.clone_from(&cartridge.metadata().barcode);
        seated.held = false;
        self.cartridge = Some(cartridge);
        self.partition = 0;
        self.position = TapePosition::BEGINNING;
        self.overwrite_allowed = false;
        self.warned = false;
        self.totals.loads += 1;
        self.counters.of_load = Traffic::NONE;
        Ok(())
    }

    /// For messages.
    fn label(&self) -> &str {
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
                self.set_position(self.medium()?.end());
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
            self.set_position(end);
            return Err(end_of_data(Some((count - marks) as i64)));
        }
        let mark = self.filemark(self.position.file + count - 1)?.ok_or(Sense::SEQUENTIAL_POSITIONING_ERROR)?;
        self.go_to(mark + 1)
    }

    fn filemarks_backward(&mut self, count: u64) -> Result<(), Sense> {
        let marks = self.position.file;
        if count > marks {
            self.set_position(TapePosition::BEGINNING);
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
        self.set_position(end);
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
        self.set_position(TapePosition::BEGINNING);
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
        let position = position.map_err(|error| self.read_sense(&ReadError::Io(error)))?;
        self.set_position(position);
        Ok(())
    }

    /// What a failed read is as sense data; counted and told by TapeAlert.
    pub fn read_sense(&mut self, error: &ReadError) -> Sense {
        error!(cartridge = self.label(), object = self.position.object, %error, "read failed");
        self.counters.read_errors += 1;
        self.totals.read_errors += 1;
        self.count(|memory| memory.read_errors += 1);
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
        error!(cartridge = self.label(), object = self.position.object, %error, "write failed");
        self.counters.write_errors += 1;
        self.totals.write_errors += 1;
        self.count(|memory| memory.write_errors += 1);
        self.alert(Alert::WriteFailure);
        match error {
            WriteError::Io(error) if is_full(error) => volume_overflow(),
            _ => {
                self.alert(Alert::HardError);
                Sense::WRITE_ERROR
            }
        }
    }

    /// A record was read: bytes of its data, and as it lies on the medium.
    pub fn count_read(&mut self, bytes: u64, stored: u64) {
        self.totals.records_read += 1;
        self.totals.bytes_read += bytes;
        self.counters.total.read += bytes;
        self.counters.total.stored_read += stored;
        self.counters.of_load.read += bytes;
        self.count(|memory| memory.read += bytes);
    }

    /// A record without sums got them from the medium.
    pub fn count_sum(&mut self, bytes: u32) {
        self.totals.sums_taken += 1;
        self.totals.sum_bytes += u64::from(bytes);
    }

    /// Filemarks were written.
    pub const fn count_filemarks(&mut self, count: u64) {
        self.totals.filemarks_written += count;
    }

    /// Records were written: how many, bytes of their data, and as they lie on the medium.
    pub fn count_written(&mut self, records: u64, bytes: u64, stored: u64) {
        self.totals.records_written += records;
        self.totals.bytes_written += bytes;
        self.counters.total.written += bytes;
        self.counters.total.stored_written += stored;
        self.counters.of_load.written += bytes;
        self.count(|memory| memory.written += bytes);
    }

    fn count(&mut self, count: impl FnOnce(&mut Memory)) {
        if let Some(cartridge) = &mut self.cartridge {
            cartridge.count(count);
        }
    }

    const fn alert(&mut self, alert: Alert) {
        self.alerts |= 1 << (alert as u8 - 1);
    }
}

/// A drive of a generation takes media of some generations, and writes not all of these.
fn suit(cartridge: &mut Cartridge, product: &str) -> Result<(), OpenError> {
    match density::taken(product, cartridge.metadata().density) {
        Some(Taken::Written) => Ok(()),
        Some(Taken::Read) => {
            cartridge.protect("the drive reads media of this generation and writes none");
            Ok(())
        }
        None => Err(OpenError::Incompatible { path: cartridge.folder().to_owned(), density: cartridge.metadata().density }),
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

/// The command was carried out; the medium is nearer to its end than somebody wanted to know.
pub fn programmable_early_warning() -> Sense {
    Sense::PROGRAMMABLE_EARLY_WARNING_DETECTED.with_stream(END_OF_MEDIUM).with_information(0)
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
