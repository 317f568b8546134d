//! How full a thin disk is: the threshold whose crossing is told, the mode page that holds it, the log page that counts.
//!
//! What is in use is what the store has allocated, as far as it knows. The threshold is looked at after each write of a disk that has
//! one, and told once, until the use has fallen below it again. Follows SBC-4, "Thin provisioning and threshold", "Logical Block
//! Provisioning mode page" and "Logical Block Provisioning log page".

use std::sync::atomic::{AtomicBool, Ordering};

use protocol::scsi::Sense;
use protocol::scsi::mode::ModePage;
use tracing::warn;

use super::Disk;

/// THRESHOLD EXPONENT: resources are counted in sets of 2 to this power blocks.
pub(super) const EXPONENT: u8 = 11;

/// PAGE CODE and SUBPAGE CODE of the mode page.
const MODE_PAGE: (u8, u8) = (0x1C, 0x02);

/// Whether a threshold has been crossed.
#[derive(Debug, Default)]
pub(super) struct Threshold {
    told: AtomicBool,
}

/// Blocks in use and in all, in threshold sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    used: u64,
    all: u64,
}

impl Usage {
    /// `None` where the store does not know.
    fn of(disk: &Disk) -> Option<Self> {
        let set = disk.block_length.bytes() << EXPONENT;
        let used = disk.volume.store().allocated().ok()?;
        let all = (disk.capacity().0 >> EXPONENT).max(1);
        Some(Self { used: used.div_ceil(set).min(all), all })
    }

    const fn available(self) -> u64 {
        self.all - self.used
    }
}

/// Sets in use from which on it is told.
fn limit(disk: &Disk) -> Option<u64> {
    let percent = disk.options.threshold_percent.filter(|_| disk.is_thin())?;
    let all = (disk.capacity().0 >> EXPONENT).max(1);
    Some((all * u64::from(percent)).div_ceil(100))
}

/// Blocks for a moment. To be called when blocks were written or unmapped: tells every nexus when the threshold was crossed.
pub(super) fn look(disk: &Disk) {
    let Some(limit) = limit(disk) else { return };
    let Some(usage) = Usage::of(disk) else { return };
    let crossed = usage.used >= limit;
    if crossed != disk.threshold.told.swap(crossed, Ordering::AcqRel) && crossed {
        warn!(used = usage.used, all = usage.all, "a thin disk has reached its threshold");
        disk.common.attentions.establish_for_all(&Sense::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED, None);
    }
}

/// The mode page: one soft threshold, of used resources, armed for their growth. Empty where there is none.
pub(super) fn mode_page(disk: &Disk) -> Option<ModePage> {
    const ENABLED_SOFT_INCREASING: u8 = 0x82;
    const USED: u8 = 0x02;
    let count = u32::try_from(limit(disk)?).unwrap_or(u32::MAX).to_be_bytes();
    // SITUA clear: every initiator is told.
    let body = [&[0; 12][..], &[ENABLED_SOFT_INCREASING, USED, 0, 0], &count].concat();
    Some(ModePage { subpage: MODE_PAGE.1, ..ModePage::fixed(MODE_PAGE.0, body) })
}

/// The parameters of the log page: available and used resources.
pub(super) fn log_parameters(disk: &Disk, from: u16) -> Vec<u8> {
    const AVAILABLE: u16 = 0x0001;
    const USED: u16 = 0x0002;
    /// SCOPE: the resources are this logical unit's alone.
    const DEDICATED: u8 = 0x01;
    let Some(usage) = Usage::of(disk) else { return Vec::new() };
    let parameter = |(code, count): (u16, u64)| {
        let count = u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
        protocol::scsi::log::binary_parameter(code, &[&count[..], &[DEDICATED, 0, 0, 0]].concat())
    };
    let all = [(AVAILABLE, usage.available()), (USED, usage.used)];
    all.into_iter().filter(|(code, _)| *code >= from).flat_map(parameter).collect()
}
