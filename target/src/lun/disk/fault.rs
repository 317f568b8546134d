//! What an error of the store is called in sense data. SBC-4, "Example error conditions".

use std::io::{Error, ErrorKind};

use protocol::scsi::Sense;
use tracing::warn;

/// An error of a read.
pub(super) fn on_read(error: &Error) -> Sense {
    warn!(%error, "read failed");
    match error.kind() {
        // A file that became shorter than the LUN: the blocks are not there any more.
        ErrorKind::UnexpectedEof => Sense::UNRECOVERED_READ_ERROR,
        _ if is_medium(error) => Sense::UNRECOVERED_READ_ERROR,
        _ => Sense::INTERNAL_TARGET_FAILURE,
    }
}

/// An error of a write, a deallocation or a sync.
pub(super) fn on_write(error: &Error) -> Sense {
    warn!(%error, "write failed");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        ErrorKind::ReadOnlyFilesystem => Sense::WRITE_PROTECTED,
        _ if is_medium(error) => Sense::WRITE_ERROR,
        _ => Sense::INTERNAL_TARGET_FAILURE,
    }
}

fn is_medium(error: &Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EIO)
}
