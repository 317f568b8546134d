//! What the drive tells of an operation that goes on in the background: SSC-4, IMMED bit of the commands named here.
//!
//! TEST UNIT READY and all that want the medium are told that the drive is not ready; REQUEST SENSE has codes of its own for most of the
//! operations, SPC-4, annex "Additional sense codes", 00h/18h to 00h/1Ch.

use protocol::scsi::{Sense, SenseKey};

use crate::lun::common::Told;

/// REWIND.
pub const REWIND: Told = working(Sense::REWIND_OPERATION_IN_PROGRESS);
/// LOCATE.
pub const LOCATE: Told = working(Sense::LOCATE_OPERATION_IN_PROGRESS);
/// ERASE.
pub const ERASE: Told = working(Sense::ERASE_OPERATION_IN_PROGRESS);
/// SET CAPACITY.
pub const SET_CAPACITY: Told = working(Sense::SET_CAPACITY_OPERATION_IN_PROGRESS);
/// VERIFY.
pub const VERIFY: Told = working(Sense::VERIFY_OPERATION_IN_PROGRESS);
/// LOAD UNLOAD, to unload.
pub const UNLOAD: Told = working(Sense::OPERATION_IN_PROGRESS.with_key(SenseKey::NoSense));
/// FORMAT MEDIUM.
pub const FORMAT: Told = Told {
    not_ready: Sense::LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS,
    condition: Sense::OPERATION_IN_PROGRESS.with_key(SenseKey::NoSense),
};
/// LOAD UNLOAD, to load: there is no medium yet that could be ready.
pub const LOAD: Told = Told {
    not_ready: Sense::LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY,
    condition: Sense::LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY,
};

const fn working(condition: Sense) -> Told {
    Told { not_ready: Sense::LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS, condition }
}
