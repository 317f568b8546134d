//! What every device type does alike: who it is, what a nexus has yet to be told, and the way from a CDB to its handler.
//!
//! A device type implements [`LogicalUnit`] and calls [`dispatch()`]; its own commands stand in its table, those of SPC-4 that all
//! have alike are added here. No medium is touched in this module. Follows SPC-4 and SAM-5.

mod attention;
pub(in crate::lun) mod background;
mod dispatch;
mod identity;
mod keep;
mod removal;
mod reservation;
mod saved;
mod shield;
mod spc;
mod task_set;
mod turns;

pub use attention::Attentions;
pub use background::{Background, Lasting, Operation, Told};
pub use dispatch::{Command, Reply, ReplyFuture, Run, answer, dispatch};
pub(in crate::lun) use dispatch::{admits, answer_at_once, begins, formatted};
pub use identity::Identity;
pub use keep::Kept;
pub use removal::{RemovalPrevention, prevent_allow};
pub use reservation::Reservations;
pub(in crate::lun) use reservation::persistent_reserve_out;
pub use saved::{SavedModes, restore_modes};
pub use spc::{data_in, parameter_list};
pub(super) use spc::{receive_copy, report_luns, third_party_copy_out};
pub use task_set::{Place, TaskSet};
pub use turns::Turns;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection};
use protocol::scsi::{CommandSpec, DeviceType, Sense, SenseFormat};

use super::Device;
use crate::metrics::usage::Usage;
use crate::task::{Execution, Response, Task};

/// A device type's answers to what differs between device types.
///
/// The generic commands ask these; none of them may block.
pub trait LogicalUnit: fmt::Debug + Send + Sync + Sized + 'static {
    /// PERIPHERAL DEVICE TYPE.
    const DEVICE_TYPE: DeviceType;
    /// RMB where it is the same for all of a type: the medium can be taken out.
    const REMOVABLE: bool;
    /// The commands of this type. A row here goes before a common one of the same operation code.
    const COMMANDS: &'static [Command<Self>];
    /// Standards claimed in INQUIRY's version descriptors.
    const VERSION_DESCRIPTORS: &'static [u16];
    /// VPD pages beyond those that all types have, ascending.
    const VPD_PAGES: &'static [u8] = &[];
    /// PAGE CODE and SUBPAGE CODE of the log pages, ascending; 00h is added.
    const LOG_PAGES: &'static [(u8, u8)] = &[];

    /// What all types have.
    fn common(&self) -> &Common;

    /// This one, as a device of any type.
    fn device(self: &Arc<Self>) -> Device;

    /// RMB.
    fn removable(&self) -> bool {
        Self::REMOVABLE
    }

    /// One of [`LogicalUnit::VPD_PAGES`], without its four bytes of header.
    fn vpd_page(&self, page: u8) -> Option<Vec<u8>> {
        let _ = page;
        None
    }

    /// The order of commands that block, where the device does one thing after the other; `None` where they run side by side.
    fn turns(&self) -> Option<&Turns> {
        None
    }

    /// What MODE SENSE puts before the pages; `long_lba` asks for the block descriptor of sixteen bytes, where there is one.
    fn mode_header(&self, long_lba: bool) -> ModeHeader;

    /// All mode pages, ascending.
    fn mode_pages(&self) -> Vec<ModePage>;

    /// Takes what MODE SELECT sent; only changeable bits of the pages differ from what holds. Checks the rest itself.
    ///
    /// # Errors
    /// INVALID FIELD IN PARAMETER LIST for a header or block descriptor that cannot be had. Then nothing has changed.
    fn select_mode(&self, selection: &ModeSelection) -> Result<(), Sense>;

    /// The log parameters of one of [`LogicalUnit::LOG_PAGES`], ascending, without the page's four bytes of header; those before
    /// `parameter_pointer` left out.
    fn log_page(&self, page: (u8, u8), parameter_pointer: u16) -> Option<Vec<u8>> {
        let _ = (page, parameter_pointer);
        None
    }

    /// False for a command of [`LogicalUnit::COMMANDS`] that this one does not offer after all.
    fn serves(&self, spec: &CommandSpec) -> bool {
        let _ = spec;
        true
    }

    /// What REQUEST SENSE tells when no unit attention is waiting and nothing goes on in the background; `None` when all is well.
    fn condition(&self) -> Option<Sense> {
        None
    }

    /// Says no to a command whose nexus may not have it now: RESERVATION CONFLICT, or BUSY while a copy has the drive.
    ///
    /// # Errors
    /// The response to give instead of running the command.
    fn admit(&self, task: &Task, spec: &CommandSpec) -> Result<(), Response> {
        let _ = (task, spec);
        Ok(())
    }
}

/// What every logical unit has, whatever its type.
#[derive(Debug)]
pub struct Common {
    /// Names and revision.
    pub identity: Identity,
    /// What it has done.
    pub usage: Arc<Usage>,
    /// What each nexus has yet to be told.
    pub attentions: Attentions,
    /// Who has the logical unit to itself.
    pub reservation: Reservations,
    /// Who wants the medium to stay in.
    pub removal: RemovalPrevention,
    /// Mode pages that hold after a power loss.
    pub saved_modes: SavedModes,
    /// What goes on after the status of its command.
    pub background: Background,
    /// Which command may begin.
    pub task_set: Arc<TaskSet>,
    /// Who carries out third-party copies; `None` where none are served: then 3PC is clear and 83h and 84h are no commands.
    pub copy: Option<Arc<dyn CopyService>>,
    /// Where what survives a power loss is kept.
    folder: Option<PathBuf>,
    /// D_SENSE of the control mode page.
    descriptor_sense: AtomicBool,
}

impl Common {
    /// A logical unit nobody has spoken to.
    #[must_use]
    pub fn new(identity: Identity, copy: Option<Arc<dyn CopyService>>) -> Self {
        Self {
            identity,
            usage: Arc::default(),
            attentions: Attentions::default(),
            reservation: Reservations::default(),
            removal: RemovalPrevention::default(),
            saved_modes: SavedModes::default(),
            background: Background::default(),
            task_set: Arc::default(),
            copy,
            folder: None,
            descriptor_sense: AtomicBool::new(false),
        }
    }

    /// How sense data is written.
    #[must_use]
    pub fn sense_format(&self) -> SenseFormat {
        if self.descriptor_sense.load(Ordering::Relaxed) { SenseFormat::Descriptor } else { SenseFormat::Fixed }
    }

    /// Keeps what is to survive a power loss in files of `folder`, and takes up what is there of an earlier life.
    ///
    /// # Errors
    /// As [`Kept::load`].
    pub fn keep_in(mut self, folder: &Path) -> io::Result<Self> {
        self.folder = Some(folder.to_owned());
        if let Some(kept) = self.kept("reservations.json") {
            self.reservation.keep_in(kept)?;
        }
        if let Some(kept) = self.kept("modes.json") {
            self.saved_modes.keep_in(kept)?;
        }
        Ok(self)
    }

    /// The file of one state of this logical unit, where there is a folder for such.
    #[must_use]
    pub fn kept_path(&self, state: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{}.{state}", self.identity.naa_text())))
    }

    /// As [`Common::kept_path`], for a state that is replaced as a whole.
    #[must_use]
    pub fn kept(&self, state: &str) -> Option<Kept> {
        self.kept_path(state).map(Kept::new)
    }

    /// Chosen by MODE SELECT.
    pub fn set_sense_format(&self, format: SenseFormat) {
        self.descriptor_sense.store(format == SenseFormat::Descriptor, Ordering::Relaxed);
    }

    /// LOGICAL UNIT RESET: the reservation ends, what goes on in the background is to stop, and every nexus is told. Commands are
    /// aborted by the session that was asked for it.
    pub fn reset(&self) {
        self.reservation.reset();
        self.removal.reset();
        self.background.stop();
        self.attentions.reset();
    }

    /// Forgets a nexus: to be called once when it ends.
    pub fn nexus_lost(&self, nexus: u64) {
        self.reservation.nexus_lost(nexus);
        self.removal.allow(nexus);
        self.attentions.forget(nexus);
        if let Some(copy) = &self.copy {
            copy.lease_ends(LeaseEnd::Nexus { nexus });
        }
    }
}

/// What ends leases of views, of the policy `xcopy_view = "lease"`. Logical units are named by [`Device::address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// A tape was rewound or unloaded: what was copied onto it is complete.
    Tape {
        /// The drive.
        tape: usize,
    },
    /// A nexus has released a reservation.
    Reservation {
        /// Whose it was.
        nexus: u64,
        /// Of a disk or a tape.
        device: usize,
    },
    /// A nexus is gone.
    Nexus {
        /// Which.
        nexus: u64,
    },
    /// A disk was reset or is to be read as it is.
    Disk {
        /// Which.
        disk: usize,
    },
}

/// Carries out third-party copy commands for all logical units of a target.
pub trait CopyService: Send + Sync + fmt::Debug {
    /// THIRD-PARTY COPY OUT (83h), sent to `device`: what begins a copy operation, and what aborts one.
    fn third_party_copy_out(self: Arc<Self>, device: Device, task: Task) -> Execution;

    /// THIRD-PARTY COPY IN (84h): what is told of copy operations. Does not block.
    fn receive_copy(&self, device: &Device, task: &Task) -> Response;

    /// Ends the copy operations that run in the background and were sent to `device`: of some nexuses, or of all as a LOGICAL UNIT
    /// RESET does, which also forgets what is known of those that have ended. Done when nothing of them moves any more.
    fn abort_background(&self, device: &Device, nexuses: Option<&[u64]>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// What was kept of the disk of a [`Device::address`] is to be had no more: its tokens are cancelled, leases of its views end.
    /// Copies that read it by now keep it.
    fn cancel_views(&self, disk: usize) {
        let _ = disk;
    }

    /// Something happened that ends leases of views.
    fn lease_ends(&self, why: LeaseEnd) {
        let _ = why;
    }

    /// VPD page 8Fh, third-party copy, without its four bytes of header.
    fn third_party_copy_page(&self, device: &Device) -> Vec<u8>;
}

#[cfg(test)]
mod tests {
    use protocol::scsi::inquiry;
    use protocol::units::BlockLength;

    use super::*;
    use crate::lun::disk::Disk;
    use crate::lun::testing::{MemoryStore, finish, nexus, task};
    use crate::volume::Volume;

    /// Answers with what it was asked, so that a test sees what reached it.
    #[derive(Debug)]
    struct Echo;

    impl CopyService for Echo {
        fn third_party_copy_out(self: Arc<Self>, device: Device, task: Task) -> Execution {
            let naa = device.common().identity.naa;
            Execution::Async(Box::pin(async move { Response::data([&naa[..], &task.parameter_list()].concat()) }))
        }

        fn receive_copy(&self, _device: &Device, task: &Task) -> Response {
            Response::data(task.cdb.as_bytes().to_vec())
        }

        fn abort_background(&self, _device: &Device, _nexuses: Option<&[u64]>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::ready(()))
        }

        fn third_party_copy_page(&self, _device: &Device) -> Vec<u8> {
            vec![0xAB; 4]
        }
    }

    fn copier() -> (Arc<Disk>, Arc<crate::nexus::Nexus>) {
        let common = Common::new(Identity::new("iqn.a:t", "memory", "DISK"), Some(Arc::new(Echo)));
        let disk = Disk::new(common, Volume::new(Arc::new(MemoryStore::new(1 << 20))), BlockLength::B512);
        let nexus = nexus(1, &[Device::Disk(Arc::clone(&disk))]);
        (disk, nexus)
    }

    #[tokio::test]
    async fn third_party_copy_commands_reach_the_copy_service_with_their_device() {
        let (disk, nexus) = copier();
        let copy = task(&nexus, "83 00 0000000000000000 00000003 00 00", vec![1, 2, 3]);
        let Execution::Async(copy) = disk.start(copy) else { panic!("a copy waits for a mover") };
        assert_eq!(copy.await.data_in.concat(), [&disk.common().identity.naa[..], &[1, 2, 3]].concat());
        for action in ["00", "01", "03", "04", "05", "06"] {
            let asked = finish(disk.start(task(&nexus, &format!("84 {action} 0000000000000000 00000100 00 00"), Vec::new())));
            assert_eq!(asked.data_in[0][1], u8::from_str_radix(action, 16).unwrap());
        }
        let unknown = finish(disk.start(task(&nexus, "84 1f 0000000000000000 00000100 00 00", Vec::new())));
        assert_eq!(unknown.sense, Some(Sense::INVALID_FIELD_IN_CDB.at(protocol::scsi::FieldPointer::cdb_bit(1, 4))));
    }

    #[test]
    fn a_logical_unit_with_a_copy_service_says_so() {
        let (disk, nexus) = copier();
        let ask = |cdb: &str| finish(disk.start(task(&nexus, cdb, Vec::new()))).data_in.concat();
        assert_eq!(ask("12 00 00 00ff 00")[5] & 0x08, 0x08, "3PC");
        assert!(ask("12 01 00 00ff 00")[4..].contains(&inquiry::page::THIRD_PARTY_COPY));
        assert_eq!(ask("12 01 8f 00ff 00"), [0x00, 0x8F, 0, 4, 0xAB, 0xAB, 0xAB, 0xAB]);
    }
}
