//! What is told without touching the medium: readiness, limits, densities, vital product data. SSC-4.

use protocol::cartridge::MAX_RECORD_LENGTH;
use protocol::scsi::Sense;
use protocol::scsi::ssc::Report10Cdb;
use protocol::scsi::ssc_data::{self, Density};

use super::Tape;
use super::drive::not_loaded;
use crate::cartridge::metadata::{DEFAULT_CAPACITY, DEFAULT_DENSITY};
use crate::lun::common::{LogicalUnit, Reply, data_in};
use crate::task::{Response, Task};

/// VPD page B0h, sequential-access device capabilities.
pub const CAPABILITIES_PAGE: u8 = 0xB0;
/// VPD page B1h, manufacturer-assigned serial number.
pub const SERIAL_NUMBER_PAGE: u8 = 0xB1;

/// The shortest record.
const MIN_RECORD_LENGTH: u16 = 1;

/// TEST UNIT READY.
pub fn test_unit_ready(tape: &Tape, _task: &Task) -> Reply {
    let shown = tape.shown();
    if shown.copying {
        Err(Sense::LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS)
    } else if !shown.status.loaded {
        Err(not_loaded(shown.seated.as_ref()))
    } else {
        Ok(Response::good())
    }
}

/// READ BLOCK LIMITS.
pub fn read_block_limits(_tape: &Tape, _task: &Task) -> Reply {
    Ok(Response::data(ssc_data::block_limits(MIN_RECORD_LENGTH, MAX_RECORD_LENGTH)))
}

/// REPORT DENSITY SUPPORT. The drive takes any density; what it tells is the one of its own media, or of the medium in it.
pub fn report_density_support(tape: &Tape, task: &Task) -> Reply {
    let cdb: Report10Cdb = task.cdb.read();
    let shown = tape.shown();
    if cdb.media() && !shown.status.loaded {
        return Err(Sense::MEDIUM_NOT_PRESENT);
    }
    let (code, capacity) = match shown.status.loaded {
        true => (shown.density, shown.capacity),
        false => (DEFAULT_DENSITY, DEFAULT_CAPACITY),
    };
    let density = if code == DEFAULT_DENSITY {
        Density { code, capacity, organization: "LTO-CVE", name: "U-832", description: "Ultrium 8/32T" }
    } else {
        Density { code, capacity, organization: "OFFHOST", name: "IMAGE", description: "tape image" }
    };
    Ok(data_in(ssc_data::density_support(&[density]), cdb.allocation_length.get()))
}

/// Neither WORM nor timestamps; the serial number is that of page 80h.
pub fn vpd_page(tape: &Tape, page: u8) -> Option<Vec<u8>> {
    match page {
        CAPABILITIES_PAGE => Some(vec![0, 0]),
        SERIAL_NUMBER_PAGE => Some(tape.common().identity.serial.clone().into_bytes()),
        _ => None,
    }
}
