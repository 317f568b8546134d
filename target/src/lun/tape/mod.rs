//! Sequential access device: a drive with one cartridge.
//!
//! ```text
//! start → dispatch → transfer, positioning, format, report → drive → crate::cartridge
//!                                           copy::TapeCopy ┘   (a mover has the drive)
//! ```
//!
//! What touches the medium runs on a thread that may block, one command at a time and in the order in which they came; what does not
//! touch it is answered at once from what the drive last showed. With IMMED the work goes on after the status, and who wants the
//! medium meanwhile is told how far it is. Implicit addressing. A media changer is another logical unit. Follows SSC-4.

mod attributes;
mod codec;
mod copy;
pub(crate) mod density;
mod drive;
mod encryption;
mod format;
mod log;
mod mode;
mod operation;
mod positioning;
mod protection;
mod report;
mod sums;
#[cfg(test)]
mod tests;
mod transfer;
mod verify;

pub use copy::TapeCopy;
pub use sums::{Bell, Taken};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::TapeStatus;
use protocol::scsi::inquiry::version;
use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection};
use protocol::scsi::{CommandSpec, DeviceType, Sense, Status, spc, ssc};

use self::drive::{Drive, Seated};
use self::mode::Settings;
use super::Device;
use super::common::{Command, Common, LeaseEnd, LogicalUnit, Reply, Run, Turns, dispatch, prevent_allow};
use crate::cartridge::{NewMedium, OpenError, shelf};
use crate::task::{Execution, Response, Task};

/// A tape LUN.
#[derive(Debug)]
pub struct Tape {
    common: Common,
    /// Held while a command has the medium.
    drive: Mutex<Drive>,
    /// Mode parameters; never held across anything that waits.
    settings: Mutex<Settings>,
    /// Keys; never held across anything that waits.
    encryption: Mutex<encryption::Parameters>,
    /// What can be told without waiting for the drive; never held across anything that waits.
    shown: Mutex<Shown>,
    turns: Turns,
    /// For who takes sums that are absent.
    bell: OnceLock<Arc<Bell>>,
}

/// What the drive last showed.
#[derive(Debug, Clone)]
struct Shown {
    capacity: u64,
    density: u8,
    write_protected: bool,
    worm: bool,
    /// Where the drive stands.
    partition: u8,
    /// Bytes that each partition may take; none without a medium.
    partitions: Vec<u64>,
    copying: bool,
    seated: Option<Seated>,
    status: TapeStatus,
}

/// Why a changer cannot put a cartridge into a drive.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is one in it.
    #[error("the drive holds a cartridge already")]
    Full,
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a changer cannot take a cartridge out of a drive.
#[derive(Debug, thiserror::Error)]
pub enum UnloadError {
    /// PREVENT ALLOW MEDIUM REMOVAL holds.
    #[error("an initiator prevents the removal of the medium")]
    Prevented,
    /// A copy has the drive.
    #[error("a copy has the drive")]
    Copying,
    /// An operation goes on in the background.
    #[error("an operation of the drive is in progress")]
    InProgress,
    /// What was written could not be synchronized.
    #[error("the medium could not be unloaded: {0}")]
    Failed(Sense),
}

impl Tape {
    /// A drive with the cartridge that `path` means: a cartridge's folder, or a shelf of them; on an empty shelf one is made, as `new`
    /// says, and of the drive's own generation where it says none. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]. A damaged image is no error: the drive tells of it in [`Tape::status`].
    pub fn open(common: Common, path: &Path, new: NewMedium) -> Result<Arc<Self>, OpenError> {
        let own = density::of_product(&common.identity.product).map(|generation| generation.density);
        let cartridge = shelf::cartridge_of(path, &NewMedium { density: new.density.or(own), ..new })?;
        let mut drive = Drive::empty(drive_name(&common), common.identity.product.clone());
        released(|| drive.insert(cartridge.clone()))?;
        Ok(Self::with(common, drive))
    }

    /// A drive without a cartridge: [`Tape::load`] puts one in.
    #[must_use]
    pub fn empty(common: Common) -> Arc<Self> {
        let drive = Drive::empty(drive_name(&common), common.identity.product.clone());
        Self::with(common, drive)
    }

    fn with(common: Common, drive: Drive) -> Arc<Self> {
        Arc::new(Self {
            common,
            shown: Mutex::new(drive.shown()),
            drive: Mutex::new(drive),
            settings: Mutex::default(),
            encryption: Mutex::default(),
            turns: Turns::default(),
            bell: OnceLock::new(),
        })
    }

    /// A changer puts a cartridge, a folder, into the drive, which loads it. Every nexus is told that the medium may have changed.
    /// Blocks.
    ///
    /// # Errors
    /// [`LoadError`]; the drive then holds what it held before.
    pub fn load(&self, cartridge: &Path) -> Result<(), LoadError> {
        self.with_drive(|drive| {
            if drive.seated().is_some() {
                return Err(LoadError::Full);
            }
            Ok(released(|| drive.insert(cartridge.to_owned()))?)
        })?;
        self.common.attentions.establish_for_all(&Sense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED, None);
        Ok(())
    }

    /// A changer takes the cartridge out, which the drive unloads first if it has to. Gives its folder; `None` when the drive is empty.
    /// Blocks.
    ///
    /// # Errors
    /// [`UnloadError`]; the cartridge then stays in the drive.
    pub fn unload(&self) -> Result<Option<PathBuf>, UnloadError> {
        if self.removal_prevented() {
            return Err(UnloadError::Prevented);
        }
        let removed = self.with_drive(|drive| {
            if drive.copying {
                return Err(UnloadError::Copying);
            }
            if self.common.background.not_ready().is_some() {
                return Err(UnloadError::InProgress);
            }
            let removed = drive.remove().map_err(UnloadError::Failed)?;
            self.demounted();
            Ok(removed)
        })?;
        if let Some(copy) = self.common.copy.as_ref().filter(|_| removed.is_some()) {
            copy.lease_ends(LeaseEnd::Tape { tape: std::ptr::from_ref(&self.common).addr() });
        }
        Ok(removed)
    }

    /// The folder of the cartridge that is in the drive, loaded or not. Does not wait for the drive.
    #[must_use]
    pub fn cartridge(&self) -> Option<PathBuf> {
        self.shown().seated.as_ref().map(|seated| seated.folder.clone())
    }

    /// The label of the cartridge that is in the drive, loaded or not. Does not wait for the drive.
    #[must_use]
    pub fn barcode(&self) -> Option<String> {
        self.shown().seated.as_ref().map(|seated| seated.barcode.clone())
    }

    /// A cartridge is in the drive and loaded; one that was unloaded and waits to be taken out is not. Does not wait for the drive.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.shown().status.loaded
    }

    /// Somebody wants the medium to stay: PREVENT ALLOW MEDIUM REMOVAL. Does not wait for the drive.
    #[must_use]
    pub fn removal_prevented(&self) -> bool {
        self.common.removal.is_prevented()
    }

    /// A copy has the drive, or an operation in the background. Does not wait for it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shown().copying || self.common.background.not_ready().is_some()
    }

    /// Begins a command; never blocks.
    #[must_use]
    pub fn start(self: &Arc<Self>, task: Task) -> Execution {
        dispatch(self, task)
    }

    /// Capacity in bytes, and what is known of the cartridge. Does not wait for the drive.
    #[must_use]
    pub fn status(&self) -> (u64, TapeStatus) {
        let shown = self.shown();
        (shown.capacity, shown.status.clone())
    }

    /// A sync point: what was written survives a power loss. Blocks.
    ///
    /// # Errors
    /// The file system's own.
    pub fn sync(&self) -> io::Result<()> {
        self.with_drive(Drive::sync)
    }

    /// Runs with the drive, whoever has it, and then shows what it shows.
    fn with_drive<R>(&self, run: impl FnOnce(&mut Drive) -> R) -> R {
        let mut drive = self.drive.lock().expect("no holder panics");
        let result = run(&mut drive);
        let shown = drive.shown();
        let bell = self.bell.get().filter(|_| shown.status.without_sums.records > 0);
        *self.shown() = shown;
        if let Some(bell) = bell {
            bell.ring();
        }
        result
    }

    /// Runs a command that needs the medium, unless an operation in the background has it.
    fn with_medium(&self, run: impl FnOnce(&mut Drive) -> Reply) -> Reply {
        self.common.background.not_ready().map_or_else(|| self.work(run), Err)
    }

    /// A part of a command that has the medium. A copy may have begun after the command was admitted: then it has to come again.
    fn work(&self, run: impl FnOnce(&mut Drive) -> Reply) -> Reply {
        self.with_drive(|drive| {
            if drive.copying {
                return Ok(Response::status(Status::Busy));
            }
            let reply = run(drive);
            drive.used = Some(Instant::now());
            reply
        })
    }

    /// The medium is gone, and what was set for it alone.
    fn demounted(&self) {
        self.settings().medium_changed();
        self.encryption().demounted();
    }

    fn encryption(&self) -> MutexGuard<'_, encryption::Parameters> {
        self.encryption.lock().expect("no holder panics")
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("no holder panics")
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().expect("no holder panics")
    }

    /// Tells the copy manager's part of the drive; see [`TapeCopy`]. Blocks until the command that has the medium is done.
    ///
    /// # Errors
    /// BUSY while another copy has the drive; NOT READY without a medium.
    pub fn begin_copy(self: &Arc<Self>) -> Result<TapeCopy, Response> {
        TapeCopy::begin(self)
    }
}

/// As cartridges remember the drives that they were loaded into: vendor and serial number.
fn drive_name(common: &Common) -> String {
    format!("{:8}{}", common.identity.vendor, common.identity.serial)
}

/// Opens a cartridge; one that is in use is waited for a while, since a mover of a target that died may still end its last write.
fn released<T>(mut open: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        match open() {
            Err(OpenError::InUse(_)) if Instant::now() < give_up => thread::sleep(Duration::from_millis(50)),
            opened => return opened,
        }
    }
}

/// As long as a disk's file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);

impl LogicalUnit for Tape {
    const DEVICE_TYPE: DeviceType = DeviceType::Tape;
    const REMOVABLE: bool = true;
    const VERSION_DESCRIPTORS: &'static [u16] = &[version::SAM_5, version::SPC_4, version::SSC_4, version::ISCSI];
    const VPD_PAGES: &'static [u8] = &[report::CAPABILITIES_PAGE, report::SERIAL_NUMBER_PAGE];
    const LOG_PAGES: &'static [(u8, u8)] = log::PAGES;

    #[rustfmt::skip]
    const COMMANDS: &'static [Command<Self>] = &[
        Command { spec: &spc::TEST_UNIT_READY, run: Run::Inline(report::test_unit_ready) },
        Command { spec: &ssc::REWIND, run: Run::Lasting(positioning::rewind) },
        Command { spec: &ssc::FORMAT_MEDIUM, run: Run::Lasting(format::format_medium) },
        Command { spec: &ssc::READ_BLOCK_LIMITS, run: Run::Inline(report::read_block_limits) },
        Command { spec: &ssc::READ_6, run: Run::Blocking(transfer::read) },
        Command { spec: &ssc::WRITE_6, run: Run::Blocking(transfer::write) },
        Command { spec: &ssc::SET_CAPACITY, run: Run::Lasting(format::set_capacity) },
        Command { spec: &ssc::READ_REVERSE_6, run: Run::Blocking(transfer::read_reverse) },
        Command { spec: &ssc::WRITE_FILEMARKS_6, run: Run::Alone(transfer::write_filemarks_6) },
        Command { spec: &ssc::SPACE_6, run: Run::Alone(positioning::space_6) },
        Command { spec: &ssc::VERIFY_6, run: Run::Lasting(verify::verify) },
        Command { spec: &ssc::ERASE_6, run: Run::Lasting(format::erase) },
        Command { spec: &ssc::LOAD_UNLOAD, run: Run::Lasting(positioning::load_unload) },
        Command { spec: &spc::PREVENT_ALLOW_MEDIUM_REMOVAL, run: Run::Inline(prevent_allow) },
        Command { spec: &ssc::LOCATE_10, run: Run::Lasting(positioning::locate_10) },
        Command { spec: &ssc::READ_POSITION_SHORT, run: Run::Blocking(positioning::read_position_short) },
        Command { spec: &ssc::READ_POSITION_SHORT_VENDOR, run: Run::Blocking(positioning::read_position_short) },
        Command { spec: &ssc::READ_POSITION_LONG, run: Run::Blocking(positioning::read_position_long) },
        Command { spec: &ssc::READ_POSITION_EXTENDED, run: Run::Blocking(positioning::read_position_extended) },
        Command { spec: &ssc::REPORT_DENSITY_SUPPORT, run: Run::Inline(report::report_density_support) },
        Command { spec: &spc::LOG_SELECT, run: Run::Alone(log::log_select) },
        // Waits for what goes on in the background, and adding up the sums of a tape file reads the index.
        Command { spec: &spc::LOG_SENSE, run: Run::Alone(log::log_sense) },
        Command { spec: &ssc::WRITE_FILEMARKS_16, run: Run::Alone(transfer::write_filemarks_16) },
        Command { spec: &ssc::ALLOW_OVERWRITE, run: Run::Blocking(format::allow_overwrite) },
        Command { spec: &ssc::READ_ATTRIBUTE_VALUES, run: Run::Blocking(attributes::values) },
        Command { spec: &ssc::READ_ATTRIBUTE_LIST, run: Run::Blocking(attributes::list) },
        Command { spec: &ssc::READ_ATTRIBUTE_VOLUMES, run: Run::Blocking(attributes::volumes) },
        Command { spec: &ssc::READ_ATTRIBUTE_PARTITIONS, run: Run::Blocking(attributes::partitions) },
        Command { spec: &ssc::READ_ATTRIBUTE_SUPPORTED, run: Run::Blocking(attributes::supported) },
        Command { spec: &ssc::WRITE_ATTRIBUTE, run: Run::Blocking(attributes::write) },
        Command { spec: &ssc::SPACE_16, run: Run::Alone(positioning::space_16) },
        Command { spec: &ssc::LOCATE_16, run: Run::Lasting(positioning::locate_16) },
        Command { spec: &ssc::SECURITY_PROTOCOL_IN, run: Run::Blocking(encryption::protocol_in) },
        Command { spec: &ssc::SECURITY_PROTOCOL_OUT, run: Run::Blocking(encryption::protocol_out) },
    ];

    fn common(&self) -> &Common {
        &self.common
    }

    fn device(self: &Arc<Self>) -> Device {
        Device::Tape(Arc::clone(self))
    }

    fn turns(&self) -> Option<&Turns> {
        Some(&self.turns)
    }

    fn vpd_page(&self, page: u8) -> Option<Vec<u8>> {
        report::vpd_page(self, page)
    }

    fn mode_header(&self, _long_lba: bool) -> ModeHeader {
        mode::header(self)
    }

    fn mode_pages(&self) -> Vec<ModePage> {
        mode::pages(self)
    }

    fn select_mode(&self, selection: &ModeSelection) -> Result<(), Sense> {
        mode::select(self, selection)
    }

    fn admit(&self, _task: &Task, spec: &CommandSpec) -> Result<(), Response> {
        if self.shown().copying && !answered_while_copying(spec.opcode) {
            return Err(Response::status(Status::Busy));
        }
        Ok(())
    }
}

/// Commands that need neither the medium nor its position: TEST UNIT READY (which says why not), REQUEST SENSE, READ BLOCK LIMITS,
/// INQUIRY, RELEASE(6), MODE SENSE, PREVENT ALLOW, REPORT DENSITY SUPPORT, LOG SENSE, the third-party copy commands (their service
/// decides), REPORT LUNS and MAINTENANCE IN.
const fn answered_while_copying(opcode: u8) -> bool {
    matches!(opcode, 0x00 | 0x03 | 0x05 | 0x12 | 0x17 | 0x1A | 0x1E | 0x44 | 0x4D | 0x5A | 0x83 | 0x84 | 0xA0 | 0xA3)
}
