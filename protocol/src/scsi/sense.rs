//! Sense data: what went wrong, as an initiator reads it.
//!
//! One value, [`Sense`], is written in fixed or in descriptor format and read back from either. Which condition a fault is, is
//! decided by the device servers; this module only knows how it is said. Follows SPC-4, "Sense data"; the stream bits are
//! SSC-4's, the segment pointer and forwarded sense data those of SPC-4, "EXTENDED COPY … errors".

use serde::{Deserialize, Serialize};
use std::fmt;

use super::asc;
use crate::wire::{Problem, WireError};

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
    Reserved = 0xC,
    VolumeOverflow = 0xD,
    Miscompare = 0xE,
    Completed = 0xF,
}

impl SenseKey {
    const ALL: [Self; 16] = [
        Self::NoSense,
        Self::RecoveredError,
        Self::NotReady,
        Self::MediumError,
        Self::HardwareError,
        Self::IllegalRequest,
        Self::UnitAttention,
        Self::DataProtect,
        Self::BlankCheck,
        Self::VendorSpecific,
        Self::CopyAborted,
        Self::AbortedCommand,
        Self::Reserved,
        Self::VolumeOverflow,
        Self::Miscompare,
        Self::Completed,
    ];

    /// From the low four bits of a byte; the others are other fields.
    #[must_use]
    pub const fn from_nibble(byte: u8) -> Self {
        Self::ALL[(byte & 0x0F) as usize]
    }
}

impl fmt::Display for SenseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSense => "NO SENSE",
            Self::RecoveredError => "RECOVERED ERROR",
            Self::NotReady => "NOT READY",
            Self::MediumError => "MEDIUM ERROR",
            Self::HardwareError => "HARDWARE ERROR",
            Self::IllegalRequest => "ILLEGAL REQUEST",
            Self::UnitAttention => "UNIT ATTENTION",
            Self::DataProtect => "DATA PROTECT",
            Self::BlankCheck => "BLANK CHECK",
            Self::VendorSpecific => "VENDOR SPECIFIC",
            Self::CopyAborted => "COPY ABORTED",
            Self::AbortedCommand => "ABORTED COMMAND",
            Self::Reserved => "RESERVED SENSE KEY",
            Self::VolumeOverflow => "VOLUME OVERFLOW",
            Self::Miscompare => "MISCOMPARE",
            Self::Completed => "COMPLETED",
        })
    }
}

/// Where the byte at fault is. SPC-4, "Field pointer sense key specific data" and "Segment pointer sense key specific data".
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
    /// Byte of the segment descriptor that was being worked on (SD set); only with COPY ABORTED.
    Segment {
        /// Byte number, from the segment descriptor's first.
        byte: u16,
        /// Bit number, 7 the highest.
        bit: Option<u8>,
    },
}

impl FieldPointer {
    /// A field of the CDB that begins at the highest bit of a byte, or is whole bytes.
    #[must_use]
    pub const fn cdb(byte: u16) -> Self {
        Self::Cdb { byte, bit: None }
    }

    /// A field of the CDB by its most significant bit.
    #[must_use]
    pub const fn cdb_bit(byte: u16, bit: u8) -> Self {
        Self::Cdb { byte, bit: Some(bit) }
    }

    /// A byte of the parameter list.
    #[must_use]
    pub const fn parameter(byte: u16) -> Self {
        Self::Parameter { byte, bit: None }
    }

    /// A byte of the segment descriptor.
    #[must_use]
    pub const fn segment(byte: u16) -> Self {
        Self::Segment { byte, bit: None }
    }

    /// The three SENSE KEY SPECIFIC bytes, SKSV set.
    const fn emit(self) -> [u8; 3] {
        const SKSV: u8 = 0x80;
        const COMMAND: u8 = 0x40;
        const SEGMENT: u8 = 0x20;
        const BPV: u8 = 0x08;
        let (kind, byte, bit) = match self {
            Self::Cdb { byte, bit } => (COMMAND, byte, bit),
            Self::Parameter { byte, bit } => (0, byte, bit),
            Self::Segment { byte, bit } => (SEGMENT, byte, bit),
        };
        let pointer = match bit {
            Some(bit) => BPV | (bit & 0x07),
            None => 0,
        };
        let [high, low] = byte.to_be_bytes();
        [SKSV | kind | pointer, high, low]
    }

    /// The meaning of the bytes depends on the sense key; `None` where SKSV is clear or the key gives them no pointer.
    fn parse(key: SenseKey, [first, high, low]: [u8; 3]) -> Option<Self> {
        if first & 0x80 == 0 {
            return None;
        }
        let byte = u16::from_be_bytes([high, low]);
        let bit = (first & 0x08 != 0).then_some(first & 0x07);
        match key {
            SenseKey::IllegalRequest if first & 0x40 != 0 => Some(Self::Cdb { byte, bit }),
            SenseKey::IllegalRequest => Some(Self::Parameter { byte, bit }),
            SenseKey::CopyAborted if first & 0x20 != 0 => Some(Self::Segment { byte, bit }),
            SenseKey::CopyAborted => Some(Self::Parameter { byte, bit }),
            _ => None,
        }
    }
}

impl fmt::Display for FieldPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, byte, bit) = match self {
            Self::Cdb { byte, bit } => ("CDB", byte, bit),
            Self::Parameter { byte, bit } => ("parameter list", byte, bit),
            Self::Segment { byte, bit } => ("segment descriptor", byte, bit),
        };
        write!(f, "{what} byte {byte}")?;
        bit.map_or(Ok(()), |bit| write!(f, " bit {bit}"))
    }
}

/// The three bits of stream commands. SSC-4, "Sense data".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StreamFlags {
    pub filemark: bool,
    pub end_of_medium: bool,
    pub incorrect_length: bool,
}

impl StreamFlags {
    const NONE: Self = Self { filemark: false, end_of_medium: false, incorrect_length: false };

    /// In bits 7, 6 and 5, as both formats have them.
    const fn bits(self) -> u8 {
        (self.filemark as u8) << 7 | (self.end_of_medium as u8) << 6 | (self.incorrect_length as u8) << 5
    }

    const fn from_bits(byte: u8) -> Self {
        Self { filemark: byte & 0x80 != 0, end_of_medium: byte & 0x40 != 0, incorrect_length: byte & 0x20 != 0 }
    }
}

/// Which end of a third-party copy said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum CopyEnd {
    /// The copy source.
    Source = 1,
    /// The copy destination.
    Destination = 2,
}

/// Status and sense data of a copy source or destination, passed on unmodified. SPC-4, "Forwarded sense data descriptor".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedSense {
    /// Who said it.
    pub end: CopyEnd,
    /// Its SCSI status byte.
    pub status: u8,
    /// Its sense data; empty for a status without.
    pub sense: Vec<u8>,
}

/// The two ways to write the same condition. Chosen by D_SENSE of the control mode page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SenseFormat {
    /// Response code 70h: 32 bits of INFORMATION.
    #[default]
    Fixed,
    /// Response code 72h.
    Descriptor,
}

/// One condition, before it is written in fixed or descriptor format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// SENSE KEY.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE and ADDITIONAL SENSE CODE QUALIFIER.
    pub code: (u8, u8),
    /// Belongs to an earlier command (response codes 71h and 73h).
    pub deferred: bool,
    /// The byte at fault.
    pub field: Option<FieldPointer>,
    /// INFORMATION; VALID is set when there is one. On tape a signed residual: write it with `as u64`.
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION.
    pub command_specific: Option<u64>,
    /// PROGRESS INDICATION, of 65,536; with NOT READY and NO SENSE.
    #[serde(default)]
    pub progress: Option<u16>,
    /// FILEMARK, EOM and ILI.
    pub stream: StreamFlags,
    /// What the ends of a third-party copy answered; at most one of each.
    pub forwarded: Vec<ForwardedSense>,
}

macro_rules! named_conditions {
    ($($(#[$doc:meta])* $key:ident $name:ident $asc:literal $ascq:literal;)*) => {
        impl Sense {
            $($(#[$doc])* #[doc = concat!("Code ", stringify!($asc), ", qualifier ", stringify!($ascq), ".")]
            pub const $name: Self = Self::new(SenseKey::$key, $asc, $ascq);)*
        }
        #[cfg(test)]
        const NAMED: &[(&str, Sense)] = &[$((stringify!($name), Sense::$name)),*];
    };
}

named_conditions! {
    NoSense NO_ADDITIONAL_SENSE_INFORMATION 0x00 0x00;
    NoSense FILEMARK_DETECTED 0x00 0x01;
    NoSense END_OF_PARTITION_MEDIUM_DETECTED 0x00 0x02;
    NoSense BEGINNING_OF_PARTITION_MEDIUM_DETECTED 0x00 0x04;
    BlankCheck END_OF_DATA_DETECTED 0x00 0x05;
    NoSense PROGRAMMABLE_EARLY_WARNING_DETECTED 0x00 0x07;
    NoSense ERASE_OPERATION_IN_PROGRESS 0x00 0x18;
    NoSense LOCATE_OPERATION_IN_PROGRESS 0x00 0x19;
    NoSense REWIND_OPERATION_IN_PROGRESS 0x00 0x1A;
    NoSense SET_CAPACITY_OPERATION_IN_PROGRESS 0x00 0x1B;
    NoSense VERIFY_OPERATION_IN_PROGRESS 0x00 0x1C;
    Completed EXTENDED_COPY_INFORMATION_AVAILABLE 0x00 0x20;
    IllegalRequest OPERATION_IN_PROGRESS 0x00 0x16;
    NotReady LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY 0x04 0x01;
    NotReady LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED 0x04 0x02;
    NotReady LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS 0x04 0x04;
    NotReady LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS 0x04 0x07;
    NotReady LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS 0x04 0x1B;
    CopyAborted UNREACHABLE_COPY_TARGET 0x08 0x04;
    MediumError WRITE_ERROR 0x0C 0x00;
    AbortedCommand WRITE_ERROR_NOT_ENOUGH_UNSOLICITED_DATA 0x0C 0x0D;
    CopyAborted THIRD_PARTY_DEVICE_FAILURE 0x0D 0x01;
    CopyAborted COPY_TARGET_DEVICE_NOT_REACHABLE 0x0D 0x02;
    CopyAborted INCORRECT_COPY_TARGET_DEVICE_TYPE 0x0D 0x03;
    CopyAborted COPY_TARGET_DEVICE_DATA_UNDERRUN 0x0D 0x04;
    CopyAborted COPY_TARGET_DEVICE_DATA_OVERRUN 0x0D 0x05;
    HardwareError LOGICAL_BLOCK_GUARD_CHECK_FAILED 0x10 0x01;
    MediumError LOGICAL_BLOCK_PROTECTION_METHOD_ERROR 0x10 0x05;
    IllegalRequest INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT 0x0E 0x03;
    MediumError UNRECOVERED_READ_ERROR 0x11 0x00;
    MediumError RECORDED_ENTITY_NOT_FOUND 0x14 0x00;
    MediumError BLOCK_SEQUENCE_ERROR 0x14 0x04;
    IllegalRequest PARAMETER_LIST_LENGTH_ERROR 0x1A 0x00;
    Miscompare MISCOMPARE_DURING_VERIFY_OPERATION 0x1D 0x00;
    IllegalRequest INVALID_COMMAND_OPERATION_CODE 0x20 0x00;
    IllegalRequest LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE 0x21 0x00;
    IllegalRequest INVALID_ELEMENT_ADDRESS 0x21 0x01;
    IllegalRequest INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE 0x23 0x01;
    IllegalRequest INVALID_TOKEN_OPERATION_REMOTE_TOKEN_USAGE_NOT_SUPPORTED 0x23 0x02;
    IllegalRequest INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN 0x23 0x04;
    IllegalRequest INVALID_TOKEN_OPERATION_TOKEN_CORRUPT 0x23 0x05;
    IllegalRequest INVALID_TOKEN_OPERATION_TOKEN_REVOKED 0x23 0x06;
    IllegalRequest INVALID_TOKEN_OPERATION_TOKEN_EXPIRED 0x23 0x07;
    IllegalRequest INVALID_TOKEN_OPERATION_TOKEN_CANCELLED 0x23 0x08;
    IllegalRequest INVALID_TOKEN_OPERATION_TOKEN_DELETED 0x23 0x09;
    IllegalRequest INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH 0x23 0x0A;
    IllegalRequest INVALID_FIELD_IN_CDB 0x24 0x00;
    IllegalRequest LOGICAL_UNIT_NOT_SUPPORTED 0x25 0x00;
    IllegalRequest INVALID_FIELD_IN_PARAMETER_LIST 0x26 0x00;
    IllegalRequest INVALID_RELEASE_OF_PERSISTENT_RESERVATION 0x26 0x04;
    IllegalRequest PARAMETER_VALUE_INVALID 0x26 0x02;
    IllegalRequest TOO_MANY_TARGET_DESCRIPTORS 0x26 0x06;
    IllegalRequest UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE 0x26 0x07;
    IllegalRequest TOO_MANY_SEGMENT_DESCRIPTORS 0x26 0x08;
    IllegalRequest UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE 0x26 0x09;
    CopyAborted UNEXPECTED_INEXACT_SEGMENT 0x26 0x0A;
    CopyAborted INLINE_DATA_LENGTH_EXCEEDED 0x26 0x0B;
    CopyAborted INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION 0x26 0x0C;
    CopyAborted COPY_SEGMENT_GRANULARITY_VIOLATION 0x26 0x0D;
    DataProtect WRITE_PROTECTED 0x27 0x00;
    DataProtect LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED 0x27 0x02;
    DataProtect SPACE_ALLOCATION_FAILED_WRITE_PROTECT 0x27 0x07;
    UnitAttention NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED 0x28 0x00;
    UnitAttention IMPORT_OR_EXPORT_ELEMENT_ACCESSED 0x28 0x01;
    UnitAttention POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED 0x29 0x00;
    UnitAttention BUS_DEVICE_RESET_FUNCTION_OCCURRED 0x29 0x03;
    UnitAttention I_T_NEXUS_LOSS_OCCURRED 0x29 0x07;
    UnitAttention MODE_PARAMETERS_CHANGED 0x2A 0x01;
    UnitAttention RESERVATIONS_PREEMPTED 0x2A 0x03;
    UnitAttention RESERVATIONS_RELEASED 0x2A 0x04;
    UnitAttention REGISTRATIONS_PREEMPTED 0x2A 0x05;
    UnitAttention LOG_PARAMETERS_CHANGED 0x2A 0x02;
    UnitAttention CAPACITY_DATA_HAS_CHANGED 0x2A 0x09;
    UnitAttention DATA_ENCRYPTION_PARAMETERS_CHANGED_BY_ANOTHER_I_T_NEXUS 0x2A 0x11;
    IllegalRequest COMMAND_SEQUENCE_ERROR 0x2C 0x00;
    CopyAborted COMMANDS_CLEARED_BY_DEVICE_SERVER 0x2F 0x02;
    NotReady INCOMPATIBLE_MEDIUM_INSTALLED 0x30 0x00;
    DataProtect WORM_MEDIUM_OVERWRITE_ATTEMPTED 0x30 0x0C;
    MediumError MEDIUM_FORMAT_CORRUPTED 0x31 0x00;
    MediumError SANITIZE_COMMAND_FAILED 0x31 0x03;
    UnitAttention THIN_PROVISIONING_SOFT_THRESHOLD_REACHED 0x38 0x07;
    IllegalRequest SAVING_PARAMETERS_NOT_SUPPORTED 0x39 0x00;
    NotReady MEDIUM_NOT_PRESENT 0x3A 0x00;
    MediumError SEQUENTIAL_POSITIONING_ERROR 0x3B 0x00;
    IllegalRequest MEDIUM_DESTINATION_ELEMENT_FULL 0x3B 0x0D;
    IllegalRequest MEDIUM_SOURCE_ELEMENT_EMPTY 0x3B 0x0E;
    IllegalRequest MEDIUM_MAGAZINE_NOT_ACCESSIBLE 0x3B 0x11;
    IllegalRequest POSITION_PAST_BEGINNING_OF_MEDIUM 0x3B 0x0C;
    UnitAttention REPORTED_LUNS_DATA_HAS_CHANGED 0x3F 0x0E;
    HardwareError INTERNAL_TARGET_FAILURE 0x44 0x00;
    AbortedCommand OVERLAPPED_COMMANDS_ATTEMPTED 0x4E 0x00;
    HardwareError MEDIA_LOAD_OR_EJECT_FAILED 0x53 0x00;
    IllegalRequest MEDIUM_REMOVAL_PREVENTED 0x53 0x02;
    IllegalRequest MEDIUM_REMOVAL_PREVENTED_BY_DATA_TRANSFER_ELEMENT 0x53 0x03;
    IllegalRequest SYSTEM_RESOURCE_FAILURE 0x55 0x00;
    IllegalRequest INSUFFICIENT_RESOURCES 0x55 0x03;
    IllegalRequest INSUFFICIENT_REGISTRATION_RESOURCES 0x55 0x04;
    IllegalRequest AUXILIARY_MEMORY_OUT_OF_SPACE 0x55 0x06;
    IllegalRequest INSUFFICIENT_RESOURCES_TO_CREATE_ROD 0x55 0x0C;
    IllegalRequest INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN 0x55 0x0D;
    DataProtect SECURITY_ERROR 0x74 0x00;
    DataProtect UNABLE_TO_DECRYPT_DATA 0x74 0x01;
    DataProtect UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING 0x74 0x02;
    DataProtect INCORRECT_DATA_ENCRYPTION_KEY 0x74 0x03;
    DataProtect CRYPTOGRAPHIC_INTEGRITY_VALIDATION_FAILED 0x74 0x04;
}

impl Sense {
    /// A condition without further information.
    #[must_use]
    pub const fn new(key: SenseKey, asc: u8, ascq: u8) -> Self {
        Self {
            key,
            code: (asc, ascq),
            deferred: false,
            field: None,
            information: None,
            command_specific: None,
            progress: None,
            stream: StreamFlags::NONE,
            forwarded: Vec::new(),
        }
    }

    /// ILLEGAL REQUEST.
    #[must_use]
    pub const fn illegal_request(asc: u8, ascq: u8) -> Self {
        Self::new(SenseKey::IllegalRequest, asc, ascq)
    }

    /// The same code under another sense key, as COPY ABORTED instead of ILLEGAL REQUEST.
    #[must_use]
    pub const fn with_key(mut self, key: SenseKey) -> Self {
        self.key = key;
        self
    }

    /// Points at the byte at fault, so the initiator's log names the field and not only the command.
    #[must_use]
    pub const fn at(mut self, field: FieldPointer) -> Self {
        self.field = Some(field);
        self
    }

    /// With INFORMATION, and so with VALID.
    #[must_use]
    pub const fn with_information(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    /// With COMMAND-SPECIFIC INFORMATION.
    #[must_use]
    pub const fn with_command_specific(mut self, value: u64) -> Self {
        self.command_specific = Some(value);
        self
    }

    /// With PROGRESS INDICATION, of 65,536.
    #[must_use]
    pub const fn with_progress(mut self, progress: u16) -> Self {
        self.progress = Some(progress);
        self
    }

    /// With the bits of stream commands.
    #[must_use]
    pub const fn with_stream(mut self, stream: StreamFlags) -> Self {
        self.stream = stream;
        self
    }

    /// Passes on what an end of a third-party copy answered.
    #[must_use]
    pub fn forwarding(mut self, forwarded: ForwardedSense) -> Self {
        self.forwarded.push(forwarded);
        self
    }
}

/// ADDITIONAL SENSE LENGTH is one byte, and its largest value is 244: sense data has at most 252 bytes. SPC-4, "Sense data".
pub const SENSE_LENGTH_MAX: usize = 252;

/// Bytes of fixed format up to and with SENSE KEY SPECIFIC.
const FIXED_LENGTH: usize = 18;

impl Sense {
    /// Written in one of the two formats.
    #[must_use]
    pub fn emit(&self, format: SenseFormat) -> Vec<u8> {
        match format {
            SenseFormat::Fixed => self.fixed(),
            SenseFormat::Descriptor => self.descriptor(),
        }
    }

    /// Fixed format. INFORMATION that does not fit 32 bits leaves VALID clear. SPC-4, "Fixed format sense data".
    ///
    /// Forwarded sense data stands behind byte 17; the first two bytes of COMMAND-SPECIFIC INFORMATION say where.
    #[must_use]
    pub fn fixed(&self) -> Vec<u8> {
        let mut sense = vec![0; FIXED_LENGTH];
        sense[0] = if self.deferred { 0x71 } else { 0x70 };
        sense[2] = self.stream.bits() | self.key as u8;
        if let Some(information) = self.information.and_then(narrow) {
            sense[0] |= 0x80;
            sense[3..7].copy_from_slice(&information.to_be_bytes());
        }
        // What does not fit is left zero: the field has no bit that says whether it is valid.
        let command_specific = self.command_specific.and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        sense[8..12].copy_from_slice(&command_specific.to_be_bytes());
        sense[12] = self.code.0;
        sense[13] = self.code.1;
        if let Some(specific) = self.sense_key_specific() {
            sense[15..18].copy_from_slice(&specific);
        }
        for forwarded in &self.forwarded {
            let room = SENSE_LENGTH_MAX - sense.len();
            if room == 0 {
                break;
            }
            sense[7 + forwarded.end as usize] = sense.len() as u8;
            sense.push(forwarded.status);
            sense.extend(forwarded.sense.iter().take(room - 1));
        }
        sense[7] = (sense.len() - 8) as u8;
        sense
    }

    /// Descriptor format. SPC-4, "Descriptor format sense data".
    #[must_use]
    pub fn descriptor(&self) -> Vec<u8> {
        let code = if self.deferred { 0x73 } else { 0x72 };
        let mut sense = vec![code, self.key as u8, self.code.0, self.code.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            sense.extend([INFORMATION, 0x0A, 0x80, 0]);
            sense.extend(information.to_be_bytes());
        }
        if let Some(command_specific) = self.command_specific {
            sense.extend([COMMAND_SPECIFIC, 0x0A, 0, 0]);
            sense.extend(command_specific.to_be_bytes());
        }
        if let Some([first, high, low]) = self.sense_key_specific() {
            sense.extend([SENSE_KEY_SPECIFIC, 0x06, 0, 0, first, high, low, 0]);
        }
        if self.stream != StreamFlags::NONE {
            sense.extend([STREAM_COMMANDS, 0x02, 0, self.stream.bits()]);
        }
        for forwarded in &self.forwarded {
            let room = SENSE_LENGTH_MAX.saturating_sub(sense.len() + 4);
            let taken = forwarded.sense.len().min(room);
            let truncated = if taken < forwarded.sense.len() { 0x80 } else { 0 };
            sense.extend([FORWARDED, taken as u8 + 2, truncated | forwarded.end as u8, forwarded.status]);
            sense.extend(&forwarded.sense[..taken]);
        }
        sense[7] = (sense.len() - 8) as u8;
        sense
    }

    /// The three SENSE KEY SPECIFIC bytes, SKSV set.
    fn sense_key_specific(&self) -> Option<[u8; 3]> {
        const SKSV: u8 = 0x80;
        let progress = self.progress.map(u16::to_be_bytes).map(|[high, low]| [SKSV, high, low]);
        self.field.map(FieldPointer::emit).or(progress)
    }

    /// From either format. Vendor-specific and unknown descriptors are passed over.
    ///
    /// # Errors
    /// [`Problem::Truncated`] for fewer bytes than name a condition, [`Problem::Value`] for another response code.
    pub fn parse(sense: &[u8]) -> Result<Self, WireError> {
        let truncated = |needed| WireError::new(STRUCTURE, 0, Problem::Truncated { needed, available: sense.len() });
        let response_code = sense.first().ok_or(truncated(8))? & 0x7F;
        match response_code {
            0x70 | 0x71 if sense.len() >= 8 => Ok(Self::parse_fixed(sense)),
            0x72 | 0x73 if sense.len() >= 8 => Ok(Self::parse_descriptor(sense)),
            0x70..=0x73 => Err(truncated(8)),
            value => {
                let problem = Problem::Value { field: "RESPONSE CODE", value: value.into() };
                Err(WireError::new(STRUCTURE, 0, problem))
            }
        }
    }

    fn parse_fixed(bytes: &[u8]) -> Self {
        let whole = 8 + usize::from(bytes[7]);
        let bytes = &bytes[..whole.min(bytes.len())];
        // A target may send fewer bytes than the standard's 18: what is not there reads as zero.
        let mut fixed = [0; FIXED_LENGTH];
        let there = bytes.len().min(FIXED_LENGTH);
        fixed[..there].copy_from_slice(&bytes[..there]);
        let key = SenseKey::from_nibble(fixed[2]);
        let mut command_specific = [fixed[8], fixed[9], fixed[10], fixed[11]];
        let mut forwarded = Vec::new();
        if key == SenseKey::CopyAborted {
            let starts = [(CopyEnd::Source, fixed[8]), (CopyEnd::Destination, fixed[9])];
            forwarded = starts.iter().filter_map(|&(end, start)| forwarded_area(bytes, end, start, fixed[9])).collect();
            command_specific[..2].fill(0);
        }
        let command_specific = u32::from_be_bytes(command_specific);
        Self {
            key,
            code: (fixed[12], fixed[13]),
            deferred: fixed[0] & 0x7F == 0x71,
            field: FieldPointer::parse(key, [fixed[15], fixed[16], fixed[17]]),
            information: (fixed[0] & 0x80 != 0).then(|| widen(&fixed)),
            command_specific: (command_specific != 0).then_some(command_specific.into()),
            progress: progress(key, [fixed[15], fixed[16], fixed[17]]),
            stream: StreamFlags::from_bits(fixed[2]),
            forwarded,
        }
    }

    fn parse_descriptor(bytes: &[u8]) -> Self {
        let whole = 8 + usize::from(bytes[7]);
        let bytes = &bytes[..whole.min(bytes.len())];
        let mut sense = Self::new(SenseKey::from_nibble(bytes[1]), bytes[2], bytes[3]);
        sense.deferred = bytes[0] & 0x7F == 0x73;
        let mut rest = &bytes[8..];
        while let [kind, length, tail @ ..] = rest {
            let Some((body, behind)) = tail.split_at_checked((*length).into()) else { break };
            sense.take_descriptor(*kind, body);
            rest = behind;
        }
        sense
    }

    fn take_descriptor(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (INFORMATION, [flags, _, value @ ..]) if flags & 0x80 != 0 => self.information = number(value),
            (COMMAND_SPECIFIC, [_, _, value @ ..]) => self.command_specific = number(value),
            (SENSE_KEY_SPECIFIC, [_, _, first, high, low, ..]) => {
                self.field = FieldPointer::parse(self.key, [*first, *high, *low]);
                self.progress = progress(self.key, [*first, *high, *low]);
            }
            (STREAM_COMMANDS, [_, bits, ..]) => self.stream = StreamFlags::from_bits(*bits),
            (FORWARDED, [flags, status, sense @ ..]) => {
                let end = if flags & 0x0F == CopyEnd::Source as u8 { CopyEnd::Source } else { CopyEnd::Destination };
                self.forwarded.push(ForwardedSense { end, status: *status, sense: sense.to_vec() });
            }
            _ => {}
        }
    }
}

const STRUCTURE: &str = "sense data";
const INFORMATION: u8 = 0x00;
const COMMAND_SPECIFIC: u8 = 0x01;
const SENSE_KEY_SPECIFIC: u8 = 0x02;
const STREAM_COMMANDS: u8 = 0x04;
const FORWARDED: u8 = 0x0C;

/// PROGRESS INDICATION, where SKSV is set and the key gives the bytes this meaning.
const fn progress(key: SenseKey, [first, high, low]: [u8; 3]) -> Option<u16> {
    match key {
        SenseKey::NoSense | SenseKey::NotReady if first & 0x80 != 0 => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// INFORMATION of fixed format: an unsigned address or count, or a tape's negative residual, in 32 bits.
fn narrow(information: u64) -> Option<u32> {
    let negative = i32::try_from(information as i64).ok().filter(|value| *value < 0);
    u32::try_from(information).ok().or(negative.map(|value| value as u32))
}

/// A tape's residual is signed, but then ILI or FILEMARK or EOM says so; all others are unsigned.
fn widen(fixed: &[u8; FIXED_LENGTH]) -> u64 {
    let value = u32::from_be_bytes([fixed[3], fixed[4], fixed[5], fixed[6]]);
    let signed = StreamFlags::from_bits(fixed[2]).incorrect_length;
    if signed { i64::from(value as i32) as u64 } else { value.into() }
}

/// Status and sense that begin at `start`; the source's end where the destination's (`next`) begin.
fn forwarded_area(sense: &[u8], end: CopyEnd, start: u8, next: u8) -> Option<ForwardedSense> {
    let start = usize::from(start);
    let next = usize::from(next);
    if start < FIXED_LENGTH {
        return None;
    }
    let stop = if end == CopyEnd::Source && next > start { next.min(sense.len()) } else { sense.len() };
    let (status, sense) = sense.get(start..stop)?.split_first()?;
    Some(ForwardedSense { end, status: *status, sense: sense.to_vec() })
}

fn number(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|value| u64::from_be_bytes(*value))
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asc, ascq) = self.code;
        write!(f, "{} {asc:02X}h/{ascq:02X}h", self.key)?;
        if let Some(name) = asc::name(asc, ascq) {
            write!(f, " {name}")?;
        }
        if let Some(field) = self.field {
            write!(f, ", at {field}")?;
        }
        if let Some(information) = self.information {
            write!(f, ", information {}", information as i64)?;
        }
        if let Some(value) = self.command_specific {
            write!(f, ", command-specific information {value:#x}")?;
        }
        if let Some(progress) = self.progress {
            write!(f, ", {} % done", (u32::from(progress) * 100) >> 16)?;
        }
        let flags =
            [(self.stream.filemark, "FILEMARK"), (self.stream.end_of_medium, "EOM"), (self.stream.incorrect_length, "ILI")];
        for (_, name) in flags.iter().filter(|(set, _)| *set) {
            write!(f, ", {name}")?;
        }
        for forwarded in &self.forwarded {
            write!(f, ", copy {:?} answered status {:02x}h", forwarded.end, forwarded.status)?;
            if let Ok(sense) = Self::parse(&forwarded.sense) {
                write!(f, " ({sense})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Sense {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;
    use proptest::prelude::*;

    #[test]
    fn the_field_pointer_of_a_refused_cdb_is_written_in_both_formats() {
        let sense = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4));
        let fixed = hex("70 00 05 00000000 0a 00000000 24 00 00 cc 0001");
        let descriptor = hex("72 05 24 00 00 00 00 08  02 06 0000 cc 0001 00");
        assert_eq!(sense.fixed(), fixed);
        assert_eq!(sense.descriptor(), descriptor);
        assert_eq!(Sense::parse(&fixed), Ok(sense.clone()));
        assert_eq!(Sense::parse(&descriptor), Ok(sense));
    }

    #[test]
    fn progress_is_told_in_both_formats() {
        let sense = Sense::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS.with_progress(0x8000);
        let fixed = hex("70 00 02 00000000 0a 00000000 04 1b 00 80 8000");
        assert_eq!(sense.fixed(), fixed);
        assert_eq!(Sense::parse(&fixed), Ok(sense.clone()));
        assert_eq!(Sense::parse(&sense.descriptor()), Ok(sense.clone()));
        assert!(sense.to_string().ends_with(", 50 % done"), "{sense}");
    }

    #[test]
    fn a_tape_residual_keeps_its_sign() {
        let stream = StreamFlags { incorrect_length: true, ..StreamFlags::default() };
        let sense = Sense::NO_ADDITIONAL_SENSE_INFORMATION.with_information(-512_i64 as u64).with_stream(stream);
        let fixed = hex("f0 00 20 fffffe00 0a 00000000 00 00 00 000000");
        assert_eq!(sense.fixed(), fixed);
        assert_eq!(Sense::parse(&fixed), Ok(sense.clone()));
        assert_eq!(Sense::parse(&sense.descriptor()), Ok(sense));
    }

    #[test]
    fn information_beyond_32_bits_is_left_out_of_fixed_format() {
        let sense = Sense::UNRECOVERED_READ_ERROR.with_information(1 << 40);
        assert_eq!(sense.fixed()[0], 0x70, "VALID must be clear");
        assert_eq!(Sense::parse(&sense.descriptor()), Ok(sense));
    }

    #[test]
    fn forwarded_sense_of_both_copy_ends_comes_back_from_both_formats() {
        let source = ForwardedSense { end: CopyEnd::Source, status: 0x02, sense: Sense::UNRECOVERED_READ_ERROR.fixed() };
        let destination = ForwardedSense { end: CopyEnd::Destination, status: 0x08, sense: Vec::new() };
        let sense = Sense::THIRD_PARTY_DEVICE_FAILURE
            .with_command_specific(3)
            .at(FieldPointer::segment(4))
            .forwarding(source)
            .forwarding(destination);
        let fixed = sense.fixed();
        assert_eq!(fixed[8..12], [18, 37, 0, 3], "offsets of the two areas, then the segment number");
        assert_eq!(fixed[15..18], [0xA0, 0, 4], "SKSV and SD");
        assert_eq!(Sense::parse(&fixed), Ok(sense.clone()));
        assert_eq!(Sense::parse(&sense.descriptor()), Ok(sense));
    }

    #[test]
    fn forwarded_sense_that_does_not_fit_is_cut_and_says_so() {
        let long = ForwardedSense { end: CopyEnd::Destination, status: 0x02, sense: vec![0x72; 252] };
        let sense = Sense::THIRD_PARTY_DEVICE_FAILURE.forwarding(long);
        assert_eq!(sense.fixed().len(), SENSE_LENGTH_MAX);
        let descriptor = sense.descriptor();
        assert_eq!(descriptor.len(), SENSE_LENGTH_MAX);
        assert_eq!(descriptor[10], 0x82, "FSDT");
    }

    #[test]
    fn every_named_condition_bears_the_name_of_its_row() {
        for (constant, sense) in NAMED {
            let name = asc::name(sense.code.0, sense.code.1).unwrap_or_else(|| panic!("{constant} has no row"));
            let as_constant: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
            let as_constant = as_constant.split_whitespace().collect::<Vec<_>>().join("_");
            assert_eq!(*constant, as_constant);
        }
    }

    #[test]
    fn a_condition_reads_as_a_line() {
        let sense = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4));
        assert_eq!(sense.to_string(), "ILLEGAL REQUEST 24h/00h INVALID FIELD IN CDB, at CDB byte 1 bit 4");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(sense) = Sense::parse(&bytes) {
                let _ = (sense.fixed(), sense.descriptor(), sense.to_string());
            }
        }

        #[test]
        fn descriptor_format_keeps_everything(
            key in 0_u8..16, code: (u8, u8), information: Option<u64>, specific: Option<u64>, stream in 0_u8..8, deferred: bool,
        ) {
            let mut sense = Sense::new(SenseKey::from_nibble(key), code.0, code.1).with_stream(StreamFlags::from_bits(stream << 5));
            sense.information = information;
            sense.command_specific = specific;
            sense.deferred = deferred;
            prop_assert_eq!(Sense::parse(&sense.descriptor()), Ok(sense));
        }
    }
}
