//! Direct access block device: a [`Volume`] in logical blocks.
//!
//! | module | what |
//! |---|---|
//! | `transfer` | READ, WRITE, WRITE AND VERIFY, VERIFY, SYNCHRONIZE CACHE, PRE-FETCH |
//! | `stream` | WRITE, piece by piece as its data comes |
//! | `atomic` | COMPARE AND WRITE, ORWRITE, WRITE ATOMIC |
//! | `journal` | what makes WRITE ATOMIC all or nothing |
//! | `medium` | START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL |
//! | `sanitize` | SANITIZE |
//! | `threshold` | how full a thin disk is |
//! | `provision` | UNMAP, WRITE SAME, GET LBA STATUS |
//! | `pages` | capacity, VPD, mode and log pages |
//! | `options` | how a disk is set up |
//! | `fault` | what an error of the store is called |
//!
//! Knows nothing of files: a store does. Protection information, zones and streams are not served. Follows SBC-4.

mod atomic;
mod fault;
mod journal;
mod medium;
mod options;
mod pages;
mod provision;
mod sanitize;
mod stream;
#[cfg(test)]
mod tests;
mod threshold;
mod transfer;

pub use options::{DiskOptions, PHYSICAL_BLOCK, ViewRules};
pub use sanitize::Copying;
pub use stream::StreamedWrite;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use protocol::scsi::inquiry::{page, version};
use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection};
use protocol::scsi::sbc::{self, Extent};
use protocol::scsi::{CommandSpec, DeviceType, FieldPointer, Sense, Status, spc};
use protocol::units::{BlockCount, BlockLength, ByteRange, Lba};
use tokio::task::spawn_blocking;

use atomic::AtomicWrites;
use journal::Journal;
use sanitize::Sanitizing;
use threshold::Threshold;

use super::Device;
use super::common::{
    Command, Common, LeaseEnd, LogicalUnit, Reply, Run, answer, dispatch, prevent_allow, receive_copy, third_party_copy_out,
};
use crate::task::{Execution, Response, Task};
use crate::volume::{Admission, Volume};

/// MAXIMUM TRANSFER LENGTH in bytes: what one READ or WRITE may make the target hold in memory.
pub const TRANSFER_MAX: u64 = 32 << 20;

const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = spc::PREVENT_ALLOW_MEDIUM_REMOVAL.opcode;
const WRITE_ATOMIC: u8 = sbc::WRITE_ATOMIC_16.opcode;

/// A disk LUN.
#[derive(Debug)]
pub struct Disk {
    common: Common,
    volume: Arc<Volume>,
    options: DiskOptions,
    block_length: BlockLength,
    /// WCE of the caching mode page. Clear: every write is synced before its status.
    write_cache: AtomicBool,
    /// SWP of the control mode page.
    software_write_protect: AtomicBool,
    /// The medium of a removable disk is out.
    ejected: AtomicBool,
    views: Mutex<ViewRules>,
    sanitizing: Sanitizing,
    threshold: Threshold,
    /// Absent where there is no place to keep it: then WRITE ATOMIC is not served.
    journal: Option<Journal>,
    /// Tells a READ that an atomic write came between.
    atomic_writes: AtomicWrites,
    /// Writers share it; COMPARE AND WRITE and ORWRITE have it alone between their read and their write.
    writers: RwLock<()>,
}

impl Disk {
    /// Serves `volume` as `options` say, which have been checked; a [`BlockLength`] alone is enough. A volume whose store is read-only
    /// is a write-protected LUN.
    #[must_use]
    pub fn new(common: Common, volume: Arc<Volume>, options: impl Into<DiskOptions>) -> Arc<Self> {
        Arc::new(Self::with_journal(common, volume, options.into(), None))
    }

    /// As [`Disk::new`], for a disk that is served again and again: takes up what an earlier life left where [`Common::keep_in`] keeps it,
    /// and makes an atomic write whole that was cut.
    ///
    /// # Errors
    /// Whatever the journal's file and the store give. The disk must not be served then.
    pub fn open(common: Common, volume: Arc<Volume>, options: impl Into<DiskOptions>) -> io::Result<Arc<Self>> {
        let journal = match common.kept_path("atomic") {
            Some(path) if !volume.store().read_only() => Some(Journal::open(&path, &**volume.store())?),
            _ => None,
        };
        Ok(Arc::new(Self::with_journal(common, volume, options.into(), journal)))
    }

    fn with_journal(common: Common, volume: Arc<Volume>, options: DiskOptions, journal: Option<Journal>) -> Self {
        let sanitizing = Sanitizing::new(common.kept("sanitize.json"));
        Self {
            common,
            volume,
            block_length: options.block_length,
            views: Mutex::new(options.views),
            options,
            write_cache: AtomicBool::new(true),
            software_write_protect: AtomicBool::new(false),
            ejected: AtomicBool::new(false),
            sanitizing,
            threshold: Threshold::default(),
            journal,
            atomic_writes: AtomicWrites::default(),
            writers: RwLock::new(()),
        }
    }

    /// Begins a command; never blocks.
    #[must_use]
    pub fn start(self: &Arc<Self>, task: Task) -> Execution {
        dispatch(self, task)
    }

    /// The blocks and all that guards them.
    #[must_use]
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Bytes in one logical block.
    #[must_use]
    pub fn block_length(&self) -> BlockLength {
        self.block_length
    }

    /// Whole blocks; what is left of a file behind the last one is not served.
    #[must_use]
    pub fn capacity(&self) -> BlockCount {
        BlockCount(self.volume.store().size() / self.block_length.bytes())
    }

    /// Blocks. Takes the size that the store's file has by now, or gives it another; every nexus is told (CAPACITY DATA HAS CHANGED).
    /// What lies behind a new end is gone.
    ///
    /// # Errors
    /// `InvalidInput` for a size that is no whole number of blocks, or zero; whatever the store gives. Then nothing has changed.
    pub fn resize(&self, bytes: Option<u64>) -> io::Result<BlockCount> {
        if let Some(bytes) = bytes.filter(|bytes| *bytes == 0 || !bytes.is_multiple_of(self.block_length.bytes())) {
            let what = format!("{bytes} bytes are no whole number of {}-byte blocks", self.block_length.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // Writers that have begun end first: none of them writes behind the new end.
        let _alone = self.writers.write().expect("no writer panics");
        let before = self.capacity();
        self.volume.store().resize(bytes)?;
        let capacity = self.capacity();
        if capacity != before {
            self.common.attentions.establish_for_all(&Sense::CAPACITY_DATA_HAS_CHANGED, None);
        }
        Ok(capacity)
    }

    /// WCE: a write may end before it is durable.
    #[must_use]
    pub fn write_cache(&self) -> bool {
        self.write_cache.load(Ordering::Relaxed)
    }

    /// How it was set up.
    #[must_use]
    pub fn options(&self) -> &DiskOptions {
        &self.options
    }

    /// When views of it are taken for standard commands.
    #[must_use]
    pub fn view_rules(&self) -> ViewRules {
        *self.views.lock().expect("no holder panics")
    }

    /// Chooses that anew, for commands that begin from now on. A view that is leased already ends when no more are to be.
    pub fn set_view_rules(&self, rules: ViewRules) {
        *self.views.lock().expect("no holder panics") = rules;
        if let (false, Some(copy)) = (rules.lease, &self.common.copy) {
            copy.lease_ends(LeaseEnd::Disk { disk: std::ptr::from_ref(&self.common).addr() });
        }
    }

    /// Why the blocks cannot be reached, if so: the medium is ejected.
    #[must_use]
    pub fn absence(&self) -> Option<Sense> {
        self.ejected.load(Ordering::Acquire).then_some(Sense::MEDIUM_NOT_PRESENT)
    }

    /// Why a copy may not read or write the blocks now, if so.
    #[must_use]
    pub fn refuses_copies(&self) -> Option<Sense> {
        self.absence().or_else(|| self.sanitizing.refuses(&spc::EXTENDED_COPY))
    }

    /// UNMAP is served: what cannot be written cannot be unmapped either.
    fn is_thin(&self) -> bool {
        self.options.thin && !self.is_read_only()
    }

    /// The store or the LUN is read-only.
    fn is_read_only(&self) -> bool {
        self.options.read_only || self.volume.store().read_only()
    }

    /// Why nothing may be written, if so: the store or the LUN is read-only, or SWP is set.
    #[must_use]
    pub fn write_protection(&self) -> Option<Sense> {
        if self.is_read_only() {
            return Some(Sense::WRITE_PROTECTED);
        }
        self.software_write_protect.load(Ordering::Relaxed).then_some(Sense::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED)
    }

    /// The bytes of an extent that lies on the LUN. Zero blocks at the very end do.
    fn range_of(&self, lba: Lba, blocks: BlockCount) -> Option<ByteRange> {
        let end = lba.0.checked_add(blocks.0)?;
        if end > self.capacity().0 {
            return None;
        }
        self.block_length.byte_range(lba, blocks)
    }

    /// The bytes that a command addresses.
    fn addressed(&self, task: &Task, extent: &Extent) -> Result<ByteRange, Sense> {
        let at = if task.cdb.opcode() >> 5 == 0 { FieldPointer::cdb_bit(1, 4) } else { FieldPointer::cdb(2) };
        self.range_of(extent.lba, extent.blocks).ok_or(Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(at))
    }

    /// As [`Disk::addressed`], and no longer than one command may move.
    fn transferred(&self, task: &Task, extent: &Extent) -> Result<ByteRange, Sense> {
        let range = self.addressed(task, extent)?;
        if range.len > TRANSFER_MAX {
            return Err(Sense::INVALID_FIELD_IN_CDB.at(extent.count_field()));
        }
        Ok(range)
    }

    /// Runs `work` on a thread that may block.
    fn blocking(self: &Arc<Self>, spec: &'static CommandSpec, work: impl FnOnce(&Self) -> Reply + Send + 'static) -> Execution {
        let disk = Arc::clone(self);
        Execution::Blocking(Box::new(move || answer(spec, work(&disk))))
    }

    /// Runs `work`, which changes blocks and will hardly wait, where it stands; while a hold is on as [`Disk::change`] does. Times
    /// it, so that those that follow go to a thread if it did wait.
    fn change_at_once(
        self: &Arc<Self>,
        spec: &'static CommandSpec,
        task: Task,
        work: impl FnOnce(&Self, &Task, &Admission) -> Reply + Send + 'static,
    ) -> Execution {
        // Held for a moment by COMPARE AND WRITE and the like, which may be reading from a device.
        let (Some(admission), false) = (self.volume.try_admit(), self.writers.try_read().is_err()) else {
            return self.change(spec, task, false, work);
        };
        let reply = self.volume.timed(|| work(self, &task, &admission));
        threshold::look(self);
        Execution::Done(answer(spec, reply))
    }

    /// Runs `work`, which changes blocks, once it is admitted: at once on a thread that may block, else parked without one until the
    /// hold ends. `durable` work is synced before its status.
    fn change(
        self: &Arc<Self>,
        spec: &'static CommandSpec,
        task: Task,
        durable: bool,
        work: impl FnOnce(&Self, &Task, &Admission) -> Reply + Send + 'static,
    ) -> Execution {
        let disk = Arc::clone(self);
        let durable = durable || !self.write_cache.load(Ordering::Relaxed);
        let abort = task.abort.clone();
        let run = move |disk: &Self, admission: Admission| {
            let response = work(disk, &task, &admission);
            threshold::look(disk);
            // The sync may take long and changes nothing: a hold need not wait for it.
            drop(admission);
            let synced = response.and_then(|response| match durable {
                true => disk.volume.sync().map(|()| response).map_err(|error| fault::on_write(&error)),
                false => Ok(response),
            });
            answer(spec, synced)
        };
        if let Some(admission) = self.volume.try_admit() {
            return Execution::Blocking(Box::new(move || run(&disk, admission)));
        }
        Execution::Async(Box::pin(async move {
            let admission = tokio::select! {
                biased;
                () = abort.cancelled() => return Response::status(Status::TaskAborted),
                admission = disk.volume.admit() => admission,
            };
            spawn_blocking(move || run(&disk, admission)).await.unwrap_or_else(|_| Sense::INTERNAL_TARGET_FAILURE.into())
        }))
    }
}

impl LogicalUnit for Disk {
    const DEVICE_TYPE: DeviceType = DeviceType::Disk;
    const REMOVABLE: bool = false;
    #[rustfmt::skip]
    const COMMANDS: &'static [Command<Self>] = &[
        Command { spec: &sbc::READ_10, run: Run::Start(|disk, task| transfer::read(disk, task, &sbc::READ_10)) },
        Command { spec: &sbc::WRITE_10, run: Run::Start(|disk, task| transfer::write(disk, task, &sbc::WRITE_10)) },
        Command { spec: &sbc::READ_16, run: Run::Start(|disk, task| transfer::read(disk, task, &sbc::READ_16)) },
        Command { spec: &sbc::WRITE_16, run: Run::Start(|disk, task| transfer::write(disk, task, &sbc::WRITE_16)) },
        Command { spec: &sbc::SYNCHRONIZE_CACHE_10, run: Run::Blocking(transfer::synchronize_cache) },
        Command { spec: &sbc::SYNCHRONIZE_CACHE_16, run: Run::Blocking(transfer::synchronize_cache) },
        Command { spec: &sbc::UNMAP, run: Run::Start(provision::unmap) },
        Command { spec: &sbc::WRITE_SAME_10, run: Run::Start(|disk, task| provision::write_same(disk, task, &sbc::WRITE_SAME_10)) },
        Command { spec: &sbc::WRITE_SAME_16, run: Run::Start(|disk, task| provision::write_same(disk, task, &sbc::WRITE_SAME_16)) },
        Command { spec: &sbc::GET_LBA_STATUS, run: Run::Blocking(provision::get_lba_status) },
        Command { spec: &sbc::COMPARE_AND_WRITE, run: Run::Start(atomic::compare_and_write) },
        Command { spec: &sbc::ORWRITE_16, run: Run::Start(atomic::orwrite) },
        Command { spec: &sbc::READ_6, run: Run::Start(|disk, task| transfer::read(disk, task, &sbc::READ_6)) },
        Command { spec: &sbc::WRITE_6, run: Run::Start(|disk, task| transfer::write(disk, task, &sbc::WRITE_6)) },
        Command { spec: &sbc::READ_12, run: Run::Start(|disk, task| transfer::read(disk, task, &sbc::READ_12)) },
        Command { spec: &sbc::WRITE_12, run: Run::Start(|disk, task| transfer::write(disk, task, &sbc::WRITE_12)) },
        Command { spec: &sbc::VERIFY_10, run: Run::Blocking(transfer::verify) },
        Command { spec: &sbc::VERIFY_12, run: Run::Blocking(transfer::verify) },
        Command { spec: &sbc::VERIFY_16, run: Run::Blocking(transfer::verify) },
        Command { spec: &sbc::WRITE_AND_VERIFY_10, run: Run::Start(|disk, task| transfer::write_and_verify(disk, task, &sbc::WRITE_AND_VERIFY_10)) },
        Command { spec: &sbc::WRITE_AND_VERIFY_12, run: Run::Start(|disk, task| transfer::write_and_verify(disk, task, &sbc::WRITE_AND_VERIFY_12)) },
        Command { spec: &sbc::WRITE_AND_VERIFY_16, run: Run::Start(|disk, task| transfer::write_and_verify(disk, task, &sbc::WRITE_AND_VERIFY_16)) },
        Command { spec: &sbc::PRE_FETCH_10, run: Run::Blocking(transfer::pre_fetch) },
        Command { spec: &sbc::PRE_FETCH_16, run: Run::Blocking(transfer::pre_fetch) },
        Command { spec: &sbc::READ_CAPACITY_10, run: Run::Inline(pages::read_capacity_10) },
        Command { spec: &sbc::READ_CAPACITY_16, run: Run::Inline(pages::read_capacity_16) },
        Command { spec: &sbc::READ_DEFECT_DATA_10, run: Run::Inline(pages::read_defect_data) },
        Command { spec: &sbc::READ_DEFECT_DATA_12, run: Run::Inline(pages::read_defect_data) },
        Command { spec: &sbc::WRITE_ATOMIC_16, run: Run::Start(atomic::write_atomic) },
        Command { spec: &sbc::POPULATE_TOKEN, run: Run::Start(third_party_copy_out) },
        Command { spec: &sbc::WRITE_USING_TOKEN, run: Run::Start(third_party_copy_out) },
        Command { spec: &sbc::RECEIVE_ROD_TOKEN_INFORMATION, run: Run::Start(receive_copy) },
        Command { spec: &sbc::REPORT_ALL_ROD_TOKENS, run: Run::Start(receive_copy) },
        Command { spec: &sbc::SANITIZE_OVERWRITE, run: Run::Start(sanitize::overwrite) },
        Command { spec: &sbc::SANITIZE_BLOCK_ERASE, run: Run::Start(sanitize::block_erase) },
        Command { spec: &sbc::SANITIZE_EXIT_FAILURE_MODE, run: Run::Blocking(sanitize::exit_failure_mode) },
        Command { spec: &spc::START_STOP_UNIT, run: Run::Start(medium::start_stop_unit) },
        Command { spec: &spc::PREVENT_ALLOW_MEDIUM_REMOVAL, run: Run::Inline(prevent_allow) },
    ];
    const VERSION_DESCRIPTORS: &'static [u16] = &[version::SAM_5, version::SPC_4, version::ISCSI, version::SBC_3];
    const VPD_PAGES: &'static [u8] = &[page::BLOCK_LIMITS, page::BLOCK_DEVICE_CHARACTERISTICS, page::LOGICAL_BLOCK_PROVISIONING];
    const LOG_PAGES: &'static [(u8, u8)] = &[pages::LOGICAL_BLOCK_PROVISIONING_LOG, pages::INFORMATIONAL_EXCEPTIONS_LOG];

    fn common(&self) -> &Common {
        &self.common
    }

    fn device(self: &Arc<Self>) -> Device {
        Device::Disk(Arc::clone(self))
    }

    fn removable(&self) -> bool {
        self.options.removable
    }

    fn vpd_page(&self, page: u8) -> Option<Vec<u8>> {
        pages::vpd_page(self, page)
    }

    fn mode_header(&self, long_lba: bool) -> ModeHeader {
        pages::mode_header(self, long_lba)
    }

    fn mode_pages(&self) -> Vec<ModePage> {
        pages::mode_pages(self)
    }

    fn select_mode(&self, selection: &ModeSelection) -> Result<(), Sense> {
        pages::select_mode(self, selection)
    }

    fn log_page(&self, page: (u8, u8), parameter_pointer: u16) -> Option<Vec<u8>> {
        pages::log_page(self, page, parameter_pointer)
    }

    fn admit(&self, _task: &Task, spec: &CommandSpec) -> Result<(), Response> {
        if let Some(refusal) = self.sanitizing.refuses(spec) {
            return Err(refusal.into());
        }
        match self.absence() {
            Some(absent) if medium::wants_medium(spec) => return Err(absent.into()),
            _ => {}
        }
        match self.write_protection() {
            Some(protected) if spec.writes => Err(protected.into()),
            _ => Ok(()),
        }
    }

    /// PREVENT ALLOW MEDIUM REMOVAL goes with a medium that can be removed, WRITE ATOMIC with a journal.
    fn serves(&self, spec: &CommandSpec) -> bool {
        match spec.opcode {
            PREVENT_ALLOW_MEDIUM_REMOVAL => self.options.removable,
            WRITE_ATOMIC => self.journal.is_some(),
            _ => true,
        }
    }

    fn condition(&self) -> Option<Sense> {
        self.sanitizing.condition().or_else(|| self.absence())
    }
}
