//! How a disk LUN is set up, beyond the store that it serves.

use std::time::Duration;

use protocol::units::BlockLength;

/// Bytes of a physical block of whatever a file lies on, unless something else is known.
pub const PHYSICAL_BLOCK: u32 = 4096;

/// What an administrator may choose of a disk LUN. [`DiskOptions::default`] is a thin, fixed, writable disk of 512-byte blocks on
/// 4096-byte physical ones (512e); `BlockLength(4096).into()` is one of 4096-byte blocks.
///
/// Vendor, product and serial number are those of [`crate::lun::common::Identity`], since every device type has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// LOGICAL BLOCK LENGTH.
    pub block_length: BlockLength,
    /// Bytes in a physical block: the logical block's length times a power of two.
    pub physical_block: u32,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS: the first logical block that begins a physical one.
    pub lowest_aligned: u16,
    /// Write-protected, though the store could be written. A store that cannot be makes any disk so.
    pub read_only: bool,
    /// RMB: the medium can be ejected and loaded again.
    pub removable: bool,
    /// LBPME: UNMAP is served, and the store need not have room for every block. Never so on a disk that cannot be written.
    pub thin: bool,
    /// Of a thin disk: percent of its blocks in use, rising to which is told by a unit attention (38h/07h).
    pub threshold_percent: Option<u8>,
    /// What it begins with; [`super::Disk::set_view_rules`] chooses anew.
    pub views: ViewRules,
}

/// When views of a disk are taken for standard commands, which cannot say what they want of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewRules {
    /// Copies onto tapes read a view that is leased to their nexus, and not the disk as it is.
    pub lease: bool,
    /// How long nothing may be written before.
    pub quiet: Duration,
    /// How long that is waited for; `None` for what suits most initiators.
    pub timeout: Option<Duration>,
}

impl Default for ViewRules {
    fn default() -> Self {
        Self { lease: false, quiet: Duration::from_secs(3), timeout: None }
    }
}

impl ViewRules {
    /// The longest that a moment may be waited for: who waits keeps one of few places.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
    /// When a command that is waited for gives up, unless it is said: initiators do at 30 or 60 s.
    const FOREGROUND: Duration = Duration::from_secs(20);
    /// The same in the background.
    const BACKGROUND: Duration = Duration::from_secs(80);

    /// How long a command waits at most.
    #[must_use]
    pub fn timeout(&self, background: bool) -> Duration {
        self.timeout.unwrap_or(if background { Self::BACKGROUND } else { Self::FOREGROUND })
    }

    fn check(&self) -> Result<(), String> {
        let (quiet, timeout) = (self.quiet, self.timeout(false));
        if timeout > Self::TIMEOUT_MAX {
            return Err(format!("quiet_timeout {timeout:?} is longer than {:?}", Self::TIMEOUT_MAX));
        }
        if quiet >= timeout {
            return Err(format!("quiet {quiet:?} can never be over before quiet_timeout {timeout:?}"));
        }
        Ok(())
    }
}

impl Default for DiskOptions {
    fn default() -> Self {
        BlockLength::B512.into()
    }
}

impl From<BlockLength> for DiskOptions {
    fn from(block_length: BlockLength) -> Self {
        Self {
            block_length,
            physical_block: PHYSICAL_BLOCK.max(block_length.0),
            lowest_aligned: 0,
            read_only: false,
            removable: false,
            thin: true,
            threshold_percent: None,
            views: ViewRules::default(),
        }
    }
}

impl DiskOptions {
    /// What cannot be, in words for whoever wrote it.
    ///
    /// # Errors
    /// When the fields contradict each other.
    pub fn check(&self) -> Result<(), String> {
        let (logical, physical) = (self.block_length.0, self.physical_block);
        if ![512, 4096].contains(&logical) {
            return Err(format!("block length {logical} is neither 512 nor 4096"));
        }
        // READ CAPACITY(16) has four bits for the exponent.
        if physical < logical || !physical.is_power_of_two() || physical / logical > 1 << 15 {
            return Err(format!("physical block {physical} is no power of two from {logical} to {}", logical << 15));
        }
        if u32::from(self.lowest_aligned) >= (physical / logical).max(1) {
            return Err(format!("lowest aligned block {} lies behind the first physical block", self.lowest_aligned));
        }
        self.views.check()?;
        match self.threshold_percent {
            Some(percent) if percent == 0 || percent > 99 => Err(format!("threshold {percent} % is not between 1 and 99")),
            Some(_) if !self.thin => Err("a threshold is for a thin disk".to_owned()),
            _ => Ok(()),
        }
    }

    /// A physical block has 2 to this power logical blocks.
    #[must_use]
    pub fn physical_exponent(&self) -> u8 {
        (self.physical_block / self.block_length.0).ilog2() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_disk_can_be_is_taken() {
        let from = |length| DiskOptions::from(BlockLength(length));
        assert_eq!(from(512).check(), Ok(()));
        assert_eq!((from(512).physical_exponent(), from(4096).physical_exponent()), (3, 0));
        for wrong in [
            from(520),
            DiskOptions { physical_block: 1000, ..from(512) },
            DiskOptions { physical_block: 512, ..from(4096) },
            DiskOptions { lowest_aligned: 8, ..from(512) },
            DiskOptions { threshold_percent: Some(100), ..from(512) },
            DiskOptions { thin: false, threshold_percent: Some(80), ..from(512) },
            DiskOptions { views: ViewRules { quiet: Duration::from_secs(20), ..ViewRules::default() }, ..from(512) },
            DiskOptions { views: ViewRules { timeout: Some(Duration::from_secs(3)), ..ViewRules::default() }, ..from(512) },
            DiskOptions { views: ViewRules { timeout: Some(Duration::from_secs(3601)), ..ViewRules::default() }, ..from(512) },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert_eq!(DiskOptions { lowest_aligned: 7, threshold_percent: Some(80), ..from(512) }.check(), Ok(()));
    }
}
