//! What is told without touching the medium: readiness, limits, densities, vital product data. SSC-4.

use protocol::cartridge::MAX_RECORD_LENGTH;
use protocol::scsi::Sense;
use protocol::scsi::ssc::{Immediate6Cdb, Report10Cdb};
use protocol::scsi::ssc_data;

use super::drive::not_loaded;
use super::{Shown, Tape, density};
use crate::cartridge::metadata::DEFAULT_DENSITY;
use crate::lun::common::{LogicalUnit, Reply, data_in};
use crate::task::{Response, Task};

/// VPD page B0h, sequential-access device capabilities.
pub const CAPABILITIES_PAGE: u8 = 0xB0;
/// VPD page B1h, manufacturer-assigned serial number.
pub const SERIAL_NUMBER_PAGE: u8 = 0xB1;

/// The shortest record.
const MIN_RECORD_LENGTH: u16 = 1;
/// The image's offsets are signed numbers of 64 bits, and no object takes less than a word of 4 bytes.
const MAX_IDENTIFIER: u64 = i64::MAX as u64 / 4;

/// TEST UNIT READY.
pub fn test_unit_ready(tape: &Tape, _task: &Task) -> Reply {
    // Asked first: what is shown may be that of before the operation.
    let in_progress = tape.common().background.not_ready();
    match in_progress.or_else(|| readiness(&tape.shown())) {
        Some(sense) => Err(sense),
        None => Ok(Response::good()),
    }
}

/// Why the drive is not ready; `None` when it is.
fn readiness(shown: &Shown) -> Option<Sense> {
    if shown.copying {
        Some(Sense::LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS)
    } else if !shown.status.loaded {
        Some(not_loaded(shown.seated.as_ref()))
    } else {
        None
    }
}

/// READ BLOCK LIMITS.
pub fn read_block_limits(_tape: &Tape, task: &Task) -> Reply {
    let cdb: Immediate6Cdb = task.cdb.read();
    Ok(Response::data(match cdb.maximum_identifier() {
        true => ssc_data::maximum_identifier(MAX_IDENTIFIER),
        false => ssc_data::block_limits(MIN_RECORD_LENGTH, MAX_RECORD_LENGTH),
    }))
}

/// REPORT DENSITY SUPPORT: of the medium in the drive, or of all media that the drive takes.
pub fn report_density_support(tape: &Tape, task: &Task) -> Reply {
    let cdb: Report10Cdb = task.cdb.read();
    let (loaded, code, capacity, why_not) = {
        let shown = tape.shown();
        (shown.status.loaded, shown.density, shown.capacity, not_loaded(shown.seated.as_ref()))
    };
    let densities = match (cdb.media(), loaded) {
        (true, false) => return Err(why_not),
        (true, true) => vec![density::of_medium(code, capacity)],
        (false, _) => density::supported(&tape.common().identity.product).collect(),
    };
    let data = match cdb.medium_type() {
        true => ssc_data::medium_type_support(&density::medium_types(&densities)),
        false => ssc_data::density_support(&densities, if loaded { code } else { DEFAULT_DENSITY }),
    };
    Ok(data_in(data, cdb.allocation_length.get()))
}

/// WORM media are taken; the serial number is that of page 80h.
pub fn vpd_page(tape: &Tape, page: u8) -> Option<Vec<u8>> {
    const WORM: u8 = 0x01;
    match page {
        CAPABILITIES_PAGE => Some(vec![WORM, 0]),
        SERIAL_NUMBER_PAGE => Some(tape.common().identity.serial.clone().into_bytes()),
        _ => None,
    }
}
