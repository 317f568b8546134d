//! Sense data: what went wrong, as an initiator reads it. SPC-4, "Sense data".

use serde::{Deserialize, Serialize};

/// SENSE KEY. SPC-4, "Sense key and additional sense code definitions".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum SenseKey {
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    VendorSpecific = 0x9,
    CopyAborted = 0xA,
    AbortedCommand = 0xB,
    VolumeOverflow = 0xD,
    Miscompare = 0xE,
    Completed = 0xF,
}

/// Where the byte at fault is. SPC-4, "Field pointer sense key specific data".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldPointer {
    /// Byte of the CDB; `bit` where one bit or the most significant bit of a field can be named.
    Cdb {
        /// Byte number.
        byte: u16,
        /// Bit number, 7 the highest.
        bit: Option<u8>,
    },
    /// Byte of the parameter list.
    Parameter {
        /// Byte number.
        byte: u16,
        /// Bit number, 7 the highest.
        bit: Option<u8>,
    },
}

/// One condition, before it is written in fixed or descriptor format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// SENSE KEY.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE and ADDITIONAL SENSE CODE QUALIFIER.
    pub code: (u8, u8),
    /// The byte at fault.
    pub field: Option<FieldPointer>,
    /// INFORMATION; VALID is set when there is one. On tape a signed residual: write it with `as u64`.
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION.
    pub command_specific: Option<u64>,
    /// FILEMARK, EOM and ILI.
    pub stream: StreamFlags,
}

/// The three bits of stream commands. SSC-4, "Sense data".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StreamFlags {
    pub filemark: bool,
    pub end_of_medium: bool,
    pub incorrect_length: bool,
}

impl Sense {
    /// A condition without further information.
    #[must_use]
    pub const fn new(key: SenseKey, asc: u8, ascq: u8) -> Self {
        let stream = StreamFlags { filemark: false, end_of_medium: false, incorrect_length: false };
        Self { key, code: (asc, ascq), field: None, information: None, command_specific: None, stream }
    }

    /// ILLEGAL REQUEST.
    #[must_use]
    pub const fn illegal_request(asc: u8, ascq: u8) -> Self {
        Self::new(SenseKey::IllegalRequest, asc, ascq)
    }

    /// Points at the byte at fault, so the initiator's log names the field and not only the command.
    #[must_use]
    pub const fn at(mut self, field: FieldPointer) -> Self {
        self.field = Some(field);
        self
    }
}
