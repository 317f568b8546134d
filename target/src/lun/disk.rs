//! Direct access block device. SBC-4.

use std::sync::Arc;

use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection};
use protocol::scsi::{DeviceType, Sense};
use protocol::units::BlockLength;

use super::Device;
use super::common::{Command, Common, LogicalUnit, dispatch};
use crate::task::{Execution, Task};
use crate::volume::Volume;

/// A disk LUN.
#[derive(Debug)]
pub struct Disk {
    common: Common,
    volume: Arc<Volume>,
    block_length: BlockLength,
}

impl Disk {
    /// Serves `volume` in blocks of `block_length`.
    #[must_use]
    pub fn new(common: Common, volume: Arc<Volume>, block_length: BlockLength) -> Arc<Self> {
        Arc::new(Self { common, volume, block_length })
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
}

impl LogicalUnit for Disk {
    const DEVICE_TYPE: DeviceType = DeviceType::Disk;
    const REMOVABLE: bool = false;
    const COMMANDS: &'static [Command<Self>] = &[];
    const VERSION_DESCRIPTORS: &'static [u16] = &[];

    fn common(&self) -> &Common {
        &self.common
    }

    fn device(self: &Arc<Self>) -> Device {
        Device::Disk(Arc::clone(self))
    }

    fn mode_header(&self, _long_lba: bool) -> ModeHeader {
        ModeHeader::default()
    }

    fn mode_pages(&self) -> Vec<ModePage> {
        Vec::new()
    }

    fn select_mode(&self, _task: &Task, _selection: &ModeSelection) -> Result<(), Sense> {
        Ok(())
    }
}
