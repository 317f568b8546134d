//! Whether $LogFile was cleanly closed, so that what the rest of the volume says is the whole truth.
//!
//! It replays nothing. A log with work left in it can change any cluster when the volume is next mounted; then the map says so
//! and the whole volume is copied. Follows the published on-disk format ("$LogFile", restart pages).

use super::record::fix_up;
use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// What the restart pages show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogState {
    /// Filled with FFh, as mkntfs and ntfs-3g leave it: there is nothing to replay.
    Empty,
    /// The last user has closed it.
    Closed,
    /// Not closed, or not understood; the phrase says which.
    Open(String),
}

impl LogState {
    /// True when the volume may be read as it stands.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        matches!(self, Self::Empty | Self::Closed)
    }

    pub(super) fn open(reason: &str) -> Self {
        Self::Open(reason.to_owned())
    }
}

/// How many bytes from the start of the log [`judge`] wants to see: both restart pages and the first pages of records.
pub const HEAD: usize = 64 << 10;

/// Restart page header behind the update sequence fields.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RestartPage {
    multi_sector: [u8; 8],
    chkdsk_lsn: U64,
    system_page_size: U32,
    log_page_size: U32,
    restart_area_offset: U16,
    minor_version: U16,
    major_version: U16,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RestartArea {
    current_lsn: U64,
    log_clients: U16,
    client_free_list: U16,
    client_in_use_list: U16,
    flags: U16,
}
const _: () = assert!(size_of::<RestartPage>() == 30 && size_of::<RestartArea>() == 16);

/// Judges a log by its first bytes, [`HEAD`] of them or the whole of a shorter log.
#[must_use]
pub fn judge(head: &[u8]) -> LogState {
    if head.is_empty() {
        return LogState::open("$LogFile is empty");
    }
    if head.iter().all(|byte| *byte == 0xFF) {
        return LogState::Empty;
    }
    let Ok((page, _)) = RestartPage::ref_from_prefix(head) else { return LogState::open("$LogFile is too short") };
    let size = page.system_page_size.get() as usize;
    let second = if size.is_power_of_two() && (4096..=HEAD / 2).contains(&size) { size } else { 4096 };
    let pages = [0, second].map(|at| head.get(at..at + second).map(restart_area));
    let valid = pages.into_iter().flatten().collect::<Result<Vec<_>, _>>();
    match valid {
        Err(reason) => LogState::open(reason),
        Ok(areas) => match areas.into_iter().max_by_key(|area| area.lsn) {
            Some(area) if area.closed => LogState::Closed,
            Some(_) => LogState::open("the volume is mounted, or was not unmounted: $LogFile has work to be done again"),
            None => LogState::open("$LogFile has no restart page"),
        },
    }
}

struct Area {
    lsn: u64,
    closed: bool,
}

/// Both pages must be whole: a log with one torn page was being written.
fn restart_area(page: &[u8]) -> Result<Area, &'static str> {
    let mut page = page.to_vec();
    if fix_up(&mut page).map_err(|_| "a restart page of $LogFile is damaged")? != *b"RSTR" {
        return Err("a restart page of $LogFile is of another kind");
    }
    let (header, _) = RestartPage::ref_from_prefix(&page).map_err(|_| "a restart page of $LogFile is damaged")?;
    if !matches!(header.major_version.get(), 1 | 2) {
        return Err("$LogFile is of an unknown version");
    }
    let at = usize::from(header.restart_area_offset.get());
    let area = page.get(at..).and_then(|area| RestartArea::ref_from_prefix(area).ok());
    let (area, _) = area.ok_or("a restart area of $LogFile leaves its page")?;
    let closed = area.client_in_use_list == NO_CLIENT || area.flags.get() & VOLUME_IS_CLEAN != 0;
    Ok(Area { lsn: area.current_lsn.get(), closed })
}

const NO_CLIENT: u16 = 0xFFFF;
const VOLUME_IS_CLEAN: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(lsn: u64, client: u16, flags: u16) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(b"RSTR\x1E\0\x09\0");
        page[16..20].copy_from_slice(&4096u32.to_le_bytes());
        page[20..24].copy_from_slice(&4096u32.to_le_bytes());
        page[24..30].copy_from_slice(&[0x30, 0, 1, 0, 1, 0]);
        page[0x30..0x38].copy_from_slice(&lsn.to_le_bytes());
        page[0x3C..0x3E].copy_from_slice(&client.to_le_bytes());
        page[0x3E..0x40].copy_from_slice(&flags.to_le_bytes());
        for end in (510..4096).step_by(512) {
            page[end] = 0;
        }
        page
    }

    fn log(first: Vec<u8>, second: Vec<u8>) -> Vec<u8> {
        let mut log = [first, second].concat();
        log.resize(HEAD, 0xFF);
        log
    }

    #[test]
    fn the_newer_restart_page_decides() {
        assert_eq!(judge(&log(page(1, 0, 0), page(2, NO_CLIENT, 0))), LogState::Closed);
        assert_eq!(judge(&log(page(1, 0, 0), page(2, 0, VOLUME_IS_CLEAN))), LogState::Closed);
        assert!(!judge(&log(page(3, 0, 0), page(2, NO_CLIENT, 0))).is_clean());
    }

    #[test]
    fn only_an_untouched_log_is_empty() {
        assert_eq!(judge(&[0xFF; HEAD]), LogState::Empty);
        let mut touched = vec![0xFF; HEAD];
        touched[40000] = 0;
        assert!(!judge(&touched).is_clean());
        assert!(!judge(&[0; HEAD]).is_clean());
        assert!(!judge(&[]).is_clean());
    }

    #[test]
    fn a_torn_page_or_an_unknown_version_is_not_clean() {
        let mut torn = page(2, NO_CLIENT, 0);
        torn[510] = 9;
        assert!(!judge(&log(page(1, NO_CLIENT, 0), torn)).is_clean());
        let mut newer = page(2, NO_CLIENT, 0);
        newer[28] = 3;
        assert!(!judge(&log(page(1, NO_CLIENT, 0), newer)).is_clean());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let mut bytes = bytes;
            if bytes.len() > 32 {
                bytes[..4].copy_from_slice(b"RSTR");
            }
            let _ = judge(&bytes);
        }
    }
}
