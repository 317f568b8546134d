//! SCSI as bytes: commands, sense, INQUIRY data, mode and log pages.
//!
//! Does not execute anything. Follows SAM-5, SPC-4, SBC-4, SSC-4 and SMC-3.

pub mod alua;
pub mod asc;
pub mod attribute;
pub mod command;
pub mod conflict;
pub mod designator;
pub mod inquiry;
pub mod log;
pub mod mode;
pub mod report;
pub mod reservation;
pub mod sbc;
pub mod sense;
pub mod smc;
pub mod smc_data;
pub mod spc;
pub mod ssc;
pub mod ssc_data;
pub mod tape_encryption;
pub mod transport_id;

pub use command::{Cdb, CommandSpec, DataDirection};
pub use designator::Designator;
pub use sense::{FieldPointer, Sense, SenseFormat, SenseKey};

use serde::{Deserialize, Serialize};

/// SCSI status. SAM-5, "Status codes".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Status {
    Good = 0x00,
    CheckCondition = 0x02,
    ConditionMet = 0x04,
    Busy = 0x08,
    ReservationConflict = 0x18,
    TaskSetFull = 0x28,
    AcaActive = 0x30,
    TaskAborted = 0x40,
}

impl Status {
    /// `None` for a code SAM-5 reserves.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x00 => Self::Good,
            0x02 => Self::CheckCondition,
            0x04 => Self::ConditionMet,
            0x08 => Self::Busy,
            0x18 => Self::ReservationConflict,
            0x28 => Self::TaskSetFull,
            0x30 => Self::AcaActive,
            0x40 => Self::TaskAborted,
            _ => return None,
        })
    }
}

/// PERIPHERAL DEVICE TYPE. SPC-4, "Standard INQUIRY data".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum DeviceType {
    /// Direct access block device (SBC-4).
    Disk = 0x00,
    /// Sequential access device (SSC-4).
    Tape = 0x01,
    /// Media changer device (SMC-3).
    Changer = 0x08,
}

/// A logical unit number as the eight bytes SAM-5 gives it. Only the single-level forms are made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LunAddress(pub [u8; 8]);

impl LunAddress {
    /// Peripheral device addressing below 256, flat space addressing up to 16,383. SAM-5, "Logical unit number".
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        let method = if number < 256 { 0x00 } else { 0x40 };
        Self([method | (high & 0x3F), low, 0, 0, 0, 0, 0, 0])
    }

    /// `None` for an address of several levels or of a method not served here.
    #[must_use]
    pub fn number(self) -> Option<u16> {
        let [first, second, rest @ ..] = self.0;
        if rest != [0; 6] {
            return None;
        }
        match first >> 6 {
            0 if first & 0x3F == 0 => Some(u16::from(second)),
            1 => Some(u16::from_be_bytes([first & 0x3F, second])),
            _ => None,
        }
    }
}
