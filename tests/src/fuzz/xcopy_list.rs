//! Parameter lists of EXTENDED COPY and the data of RECEIVE COPY RESULTS.
//!
//! Input: a byte that chooses the device type, then the list as it would come from an initiator.

use bytes::Bytes;
use protocol::scsi::{DeviceType, SenseFormat};
use protocol::xcopy::List;
use protocol::xcopy::results::{CopyStatus, FailureDetails, OperatingParameters};

/// One input.
pub fn fuzz(data: &[u8]) {
    let Some((kind, list)) = data.split_first() else { return };
    let manager = if kind & 1 == 0 { DeviceType::Disk } else { DeviceType::Tape };
    match List::parse_lid1(&Bytes::copy_from_slice(list), manager) {
        Ok(parsed) => {
            let again = Bytes::from(parsed.emit_lid1());
            assert_eq!(parsed.length(), again.len());
            assert_eq!(List::parse_lid1(&again, manager).as_ref(), Ok(&parsed), "what we write we read as the same");
        }
        Err(error) => assert!(!error.sense().emit(SenseFormat::Fixed).is_empty()),
    }
    if let Ok(status) = CopyStatus::parse(list) {
        // What 32 bits of a unit do not hold is rounded down.
        let again = CopyStatus::parse(&status.emit()).expect("what we write we read");
        assert!(again.transferred <= status.transferred);
        assert_eq!(CopyStatus { transferred: status.transferred, ..again }, status);
    }
    let _ = FailureDetails::parse(list);
    let _ = OperatingParameters::parse(list);
}
