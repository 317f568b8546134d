//! What a disk says about itself: capacity, VPD pages, mode pages, log pages, and that it has no defects.
//!
//! Follows SBC-4, "Parameters for direct access block devices", and SPC-4 for the control and informational exceptions mode pages.

use std::sync::atomic::Ordering;

use protocol::scsi::inquiry::page;
use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection};
use protocol::scsi::sbc::{self, BlockLimits, ServiceActionIn16Cdb};
use protocol::scsi::{FieldPointer, Sense, SenseFormat, log};
use protocol::units::Lba;

use super::atomic::COMPARE_AND_WRITE_MAX;
use super::journal::ATOMIC_MAX;
use super::provision::{CHANGE_MAX, UNMAP_DESCRIPTORS_MAX};
use super::threshold;
use super::{Disk, TRANSFER_MAX};
use crate::lun::common::{Reply, data_in};
use crate::task::{Response, Task};

pub(super) fn read_capacity_10(disk: &Disk, _task: &Task) -> Reply {
    Ok(Response::data(sbc::read_capacity_10(last(disk), disk.block_length()).to_vec()))
}

pub(super) fn read_capacity_16(disk: &Disk, task: &Task) -> Reply {
    let cdb: ServiceActionIn16Cdb = task.cdb.read();
    let data = sbc::ReadCapacity16 {
        last: last(disk),
        block_length: disk.block_length(),
        physical_exponent: disk.options.physical_exponent(),
        lowest_aligned: disk.options.lowest_aligned,
        thin: disk.is_thin(),
    };
    Ok(data_in(data.emit().to_vec(), cdb.allocation_length.get()))
}

/// A file has no defects that it knows of; the system below has its own ways to hide them.
pub(super) fn read_defect_data(_disk: &Disk, task: &Task) -> Reply {
    let cdb = task.cdb.basic();
    let allocation_length = match cdb[0] {
        READ_DEFECT_DATA_10 => u32::from(u16::from_be_bytes([cdb[7], cdb[8]])),
        _ => u32::from_be_bytes([cdb[6], cdb[7], cdb[8], cdb[9]]),
    };
    Ok(data_in(sbc::read_defect_data(&task.cdb), allocation_length))
}

fn last(disk: &Disk) -> Lba {
    Lba(disk.capacity().0.saturating_sub(1))
}

pub(super) fn vpd_page(disk: &Disk, code: u8) -> Option<Vec<u8>> {
    match code {
        page::BLOCK_LIMITS => Some(block_limits(disk).emit()),
        page::BLOCK_DEVICE_CHARACTERISTICS => Some(sbc::block_device_characteristics(!disk.is_read_only())),
        page::LOGICAL_BLOCK_PROVISIONING => Some(sbc::logical_block_provisioning(
            disk.is_thin(),
            disk.options.threshold_percent.map_or(0, |_| threshold::EXPONENT),
        )),
        _ => None,
    }
}

fn block_limits(disk: &Disk) -> BlockLimits {
    let block_length = disk.block_length();
    let blocks = |bytes: u64| bytes / block_length.bytes();
    let physical = disk.options.physical_block / block_length.0;
    let limits = BlockLimits {
        compare_and_write_max: COMPARE_AND_WRITE_MAX,
        transfer_granularity: physical as u16,
        transfer_max: blocks(TRANSFER_MAX) as u32,
        transfer_optimal: blocks(1 << 20) as u32,
        prefetch_max: blocks(TRANSFER_MAX) as u32,
        write_same_max: blocks(CHANGE_MAX),
        atomic_max: if disk.journal.is_some() { blocks(ATOMIC_MAX) as u32 } else { 0 },
        ..BlockLimits::default()
    };
    match disk.is_thin() {
        true => BlockLimits {
            unmap_blocks_max: blocks(CHANGE_MAX) as u32,
            unmap_descriptors_max: UNMAP_DESCRIPTORS_MAX,
            unmap_granularity: physical,
            unmap_alignment: disk.options.lowest_aligned.into(),
            ..limits
        },
        false => limits,
    }
}

/// WP and DPOFUA; a block descriptor with capacity and block length.
pub(super) fn mode_header(disk: &Disk, long_lba: bool) -> ModeHeader {
    const WP: u8 = 0x80;
    const DPOFUA: u8 = 0x10;
    let write_protect = if disk.write_protection().is_some() { WP } else { 0 };
    ModeHeader { medium_type: 0, device_specific: write_protect | DPOFUA, block_descriptor: block_descriptor(disk, long_lba) }
}

fn block_descriptor(disk: &Disk, long_lba: bool) -> Vec<u8> {
    let capacity = disk.capacity().0;
    let block_length = disk.block_length().0.to_be_bytes();
    match long_lba {
        true => [&capacity.to_be_bytes()[..], &[0; 4], &block_length].concat(),
        false => {
            let blocks = u32::try_from(capacity).unwrap_or(u32::MAX).to_be_bytes();
            [&blocks[..], &[0], &block_length[1..]].concat()
        }
    }
}

const READ_DEFECT_DATA_10: u8 = sbc::READ_DEFECT_DATA_10.opcode;

const READ_WRITE_ERROR_RECOVERY: u8 = 0x01;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0A;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x1C;

/// WCE, in the caching page's first byte behind its header.
const WCE: u8 = 0x04;
/// D_SENSE, in the control page's first byte behind its header.
const D_SENSE: u8 = 0x04;
/// SWP, in the control page's third byte behind its header.
const SWP: u8 = 0x08;

pub(super) fn mode_pages(disk: &Disk) -> Vec<ModePage> {
    let mut pages = vec![
        ModePage::fixed(READ_WRITE_ERROR_RECOVERY, [0; 10]),
        caching(disk.write_cache.load(Ordering::Relaxed)),
        control(disk),
        ModePage::fixed(INFORMATIONAL_EXCEPTIONS, [0; 10]),
    ];
    pages.extend(threshold::mode_page(disk));
    pages
}

fn caching(write_cache: bool) -> ModePage {
    let mut page = ModePage::fixed(CACHING, [0; 18]);
    page.default[0] = WCE;
    page.changeable[0] = WCE;
    page.savable = true;
    page.current[0] = if write_cache { WCE } else { 0 };
    page
}

/// Commands may be reordered (QUEUE ALGORITHM MODIFIER 1h); how long a busy initiator has to wait is not known.
fn control(disk: &Disk) -> ModePage {
    const UNRESTRICTED_REORDERING: u8 = 0x10;
    let mut page = ModePage::fixed(CONTROL, [0, UNRESTRICTED_REORDERING, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0]);
    page.changeable[0] = D_SENSE;
    page.changeable[2] = SWP;
    page.savable = true;
    if disk.common.sense_format() == SenseFormat::Descriptor {
        page.current[0] |= D_SENSE;
    }
    if disk.software_write_protect.load(Ordering::Relaxed) {
        page.current[2] |= SWP;
    }
    page
}

/// WP and DPOFUA of the header are ignored, as the standard wants; the block descriptor must be the one that holds.
pub(super) fn select_mode(disk: &Disk, selection: &ModeSelection) -> Result<(), Sense> {
    if let Some((descriptor, at)) = &selection.block_descriptor {
        check_block_descriptor(disk, descriptor, *at)?;
    }
    for page in &selection.pages {
        match page.code {
            CACHING => disk.write_cache.store(page.body[0] & WCE != 0, Ordering::Relaxed),
            CONTROL => {
                let descriptor = page.body[0] & D_SENSE != 0;
                disk.common.set_sense_format(if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed });
                disk.software_write_protect.store(page.body[2] & SWP != 0, Ordering::Relaxed);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A number of blocks of zero, or of all ones, means "as it is". SBC-4, "Mode parameter short LBA block descriptor".
fn check_block_descriptor(disk: &Disk, descriptor: &[u8], at: u16) -> Result<(), Sense> {
    let own = block_descriptor(disk, descriptor.len() == 16);
    let count = descriptor.len() / 2;
    let same_count = descriptor[..count] == own[..count] || descriptor[..count].iter().all(|byte| *byte == 0);
    let invalid = |offset: usize| Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(at + offset as u16)));
    match () {
        () if !same_count && !descriptor[..count].iter().all(|byte| *byte == 0xFF) => invalid(0),
        () if descriptor[count..] != own[count..] => invalid(count),
        () => Ok(()),
    }
}

/// Log page 2Fh.
pub(super) const INFORMATIONAL_EXCEPTIONS_LOG: (u8, u8) = (0x2F, 0);

/// Log page 0Ch: logical block provisioning.
pub(super) const LOGICAL_BLOCK_PROVISIONING_LOG: (u8, u8) = (0x0C, 0);

/// Parameters that are not known are left out; asked for from behind the last on there are none.
pub(super) fn log_page(disk: &Disk, page: (u8, u8), parameter_pointer: u16) -> Option<Vec<u8>> {
    match page {
        LOGICAL_BLOCK_PROVISIONING_LOG if parameter_pointer <= 2 => Some(threshold::log_parameters(disk, parameter_pointer)),
        INFORMATIONAL_EXCEPTIONS_LOG if parameter_pointer == 0 => Some(log::informational_exceptions()),
        _ => None,
    }
}
