//! Parameter lists of EXTENDED COPY, POPULATE TOKEN and WRITE USING TOKEN, tokens, and the data of RECEIVE COPY RESULTS.
//!
//! Input: a byte that chooses the device type and the list's format, then the list as it would come from an initiator.

use bytes::Bytes;
use protocol::scsi::{DeviceType, SenseFormat};
use protocol::xcopy::operation::OperationStatus;
use protocol::xcopy::results::{CopyStatus, FailureDetails, OperatingParameters};
use protocol::xcopy::token::parse_token_descriptors;
use protocol::xcopy::{List, PopulateToken, RodToken, WriteUsingToken};

/// One input.
pub fn fuzz(data: &[u8]) {
    let Some((kind, list)) = data.split_first() else { return };
    let manager = if kind & 1 == 0 { DeviceType::Disk } else { DeviceType::Tape };
    let parse = if kind & 2 == 0 { List::parse_lid1 } else { List::parse_lid4 };
    match parse(&Bytes::copy_from_slice(list), manager) {
        Ok(parsed) => {
            let again = Bytes::from(parsed.emit());
            assert_eq!(parsed.length(), again.len());
            assert_eq!(parse(&again, manager).as_ref(), Ok(&parsed), "what we write we read as the same");
        }
        Err(error) => assert!(!error.sense().emit(SenseFormat::Fixed).is_empty()),
    }
    if let Ok(status) = CopyStatus::parse(list) {
        // What 32 bits of a unit do not hold is rounded down.
        let again = CopyStatus::parse(&status.emit()).expect("what we write we read");
        assert!(again.transferred <= status.transferred);
        assert_eq!(CopyStatus { transferred: status.transferred, ..again }, status);
    }
    // A list may be cut off before its first whole range: such a one is not written.
    if let Some(parsed) = PopulateToken::parse(list).ok().filter(|list| !list.ranges.is_empty()) {
        assert_eq!(PopulateToken::parse(&parsed.emit()), Ok(parsed), "what we write we read as the same");
    }
    if let Some(parsed) = WriteUsingToken::parse(list).ok().filter(|list| !list.ranges.is_empty()) {
        assert_eq!(WriteUsingToken::parse(&parsed.emit()), Ok(parsed), "what we write we read as the same");
    }
    if let Some(Ok(token)) = list.first_chunk().map(RodToken::parse) {
        assert!(token.is(&RodToken::parse(token.as_bytes()).expect("read once")));
    }
    let _ = parse_token_descriptors(list);
    let _ = OperationStatus::parse(list);
    let _ = FailureDetails::parse(list);
    let _ = OperatingParameters::parse(list);
}
