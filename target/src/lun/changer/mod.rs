//! Media changer: the arm of a library as a logical unit.
//!
//! ```text
//! start → dispatch → movement → crate::library → drives (lun::tape), library.json
//!                    status   ┘
//! ```
//!
//! What moves or looks runs on a thread of its own, in the order in which it came; what is told of the elements is answered at once.
//! Reads and writes no medium: those are the drives' LUNs. No log pages of its own. Follows SMC-3.

mod elements;
mod movement;
mod status;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use protocol::control::{CartridgeStatus, LibraryStatus};
use protocol::scsi::inquiry::version;
use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection};
use protocol::scsi::{DeviceType, Sense, SenseFormat, smc, smc_data, spc};

use self::status::Search;
use super::Device;
use super::common::{Command, Common, LogicalUnit, Run, Turns, dispatch, prevent_allow};
use crate::cartridge::NewMedium;
use crate::library::{ExportError, ImportError, Layout, Library, Place};
use crate::task::{Execution, Task};

/// A changer LUN.
#[derive(Debug)]
pub struct Changer {
    common: Common,
    library: Arc<Library>,
    /// The door of the import/export elements stands open.
    open: AtomicBool,
    /// What each nexus is looking for; never held across anything that waits.
    searches: Mutex<Vec<Search>>,
    turns: Turns,
}

impl Changer {
    /// The changer of a library.
    #[must_use]
    pub fn new(common: Common, library: Arc<Library>) -> Arc<Self> {
        Arc::new(Self { common, library, open: AtomicBool::new(false), searches: Mutex::default(), turns: Turns::default() })
    }

    /// What it moves media in.
    #[must_use]
    pub const fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// What is where. Does not wait for the arm.
    #[must_use]
    pub fn status(&self) -> LibraryStatus {
        let inventory = self.library.inventory();
        let Layout { drives, slots, mail } = inventory.layout();
        let cartridges = inventory.held().map(|(place, held)| CartridgeStatus {
            barcode: held.barcode.clone(),
            place: place.to_string(),
            element: elements::address(place),
        });
        LibraryStatus { drives, slots, mail, cartridges: cartridges.collect(), moves: self.library.moves() }
    }

    /// Begins a command; never blocks.
    #[must_use]
    pub fn start(self: &Arc<Self>, task: Task) -> Execution {
        dispatch(self, task)
    }

    /// An operator puts a cartridge's folder into an import/export element. Every nexus is told. Blocks.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn import(&self, cartridge: &Path) -> Result<Place, ImportError> {
        self.accessed(self.library.import(cartridge))
    }

    /// As [`Changer::import`], with a new cartridge.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn import_new(&self, barcode: &str, new: &NewMedium) -> Result<Place, ImportError> {
        self.accessed(self.library.import_new(barcode, new))
    }

    /// An operator takes a cartridge out of an import/export element. Every nexus is told. Blocks.
    ///
    /// # Errors
    /// [`ExportError`]; also while PREVENT ALLOW MEDIUM REMOVAL keeps the media in.
    pub fn export(&self, barcode: &str, to: Option<&Path>) -> Result<PathBuf, ExportError> {
        if self.removal_prevented() {
            return Err(ExportError::Prevented);
        }
        self.accessed(self.library.export(barcode, to))
    }

    fn accessed<T, E>(&self, done: Result<T, E>) -> Result<T, E> {
        if done.is_ok() {
            self.common.attentions.establish_for_all(&Sense::IMPORT_OR_EXPORT_ELEMENT_ACCESSED, None);
        }
        done
    }

    /// PREVENT ALLOW MEDIUM REMOVAL holds: an operator can neither open the door nor export.
    #[must_use]
    pub fn removal_prevented(&self) -> bool {
        self.common.removal.is_prevented()
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Gives what it was before.
    fn set_open(&self, open: bool) -> bool {
        self.open.swap(open, Ordering::Relaxed)
    }
}

impl LogicalUnit for Changer {
    const DEVICE_TYPE: DeviceType = DeviceType::Changer;
    const REMOVABLE: bool = true;
    const VERSION_DESCRIPTORS: &'static [u16] = &[version::SAM_5, version::SPC_4, version::SMC_3, version::ISCSI];

    #[rustfmt::skip]
    const COMMANDS: &'static [Command<Self>] = &[
        Command { spec: &smc::INITIALIZE_ELEMENT_STATUS, run: Run::Alone(movement::initialize_element_status) },
        Command { spec: &smc::OPEN_CLOSE_IMPORT_EXPORT_ELEMENT, run: Run::Alone(movement::open_close) },
        Command { spec: &spc::PREVENT_ALLOW_MEDIUM_REMOVAL, run: Run::Inline(prevent_allow) },
        Command { spec: &smc::POSITION_TO_ELEMENT, run: Run::Blocking(movement::position_to_element) },
        Command {
            spec: &smc::INITIALIZE_ELEMENT_STATUS_WITH_RANGE,
            run: Run::Alone(movement::initialize_element_status_with_range),
        },
        Command { spec: &smc::MOVE_MEDIUM, run: Run::Alone(movement::move_medium) },
        Command { spec: &smc::EXCHANGE_MEDIUM, run: Run::Alone(movement::exchange_medium) },
        Command { spec: &smc::REQUEST_VOLUME_ELEMENT_ADDRESS, run: Run::Inline(status::request_volume_element_address) },
        Command { spec: &smc::SEND_VOLUME_TAG, run: Run::Inline(status::send_volume_tag) },
        Command { spec: &smc::READ_ELEMENT_STATUS, run: Run::Inline(status::read_element_status) },
    ];

    fn common(&self) -> &Common {
        &self.common
    }

    fn device(self: &Arc<Self>) -> Device {
        Device::Changer(Arc::clone(self))
    }

    fn turns(&self) -> Option<&Turns> {
        Some(&self.turns)
    }

    /// No medium is mounted in a changer, so there is neither a block descriptor nor anything device specific.
    fn mode_header(&self, _long_lba: bool) -> ModeHeader {
        ModeHeader::default()
    }

    fn mode_pages(&self) -> Vec<ModePage> {
        vec![
            self.control_page(),
            elements::addresses(self.library.inventory().layout()).page(),
            smc_data::transport_geometry(),
            smc_data::device_capabilities(),
        ]
    }

    fn select_mode(&self, selection: &ModeSelection) -> Result<(), Sense> {
        for page in selection.pages.iter().filter(|page| page.code == CONTROL) {
            let descriptor = page.body.first().is_some_and(|byte| byte & D_SENSE != 0);
            self.common.set_sense_format(if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed });
        }
        Ok(())
    }
}

const CONTROL: u8 = 0x0A;
/// D_SENSE, in the control page's first byte behind its header.
const D_SENSE: u8 = 0x04;

impl Changer {
    fn control_page(&self) -> ModePage {
        let mut page = ModePage::fixed(CONTROL, [0; 10]);
        page.changeable[0] = D_SENSE;
        if self.common.sense_format() == SenseFormat::Descriptor {
            page.current[0] = D_SENSE;
        }
        page
    }
}
