//! Commands that all device types share: a row for each, and the layout of its CDB.
//!
//! A set bit of a usage mask may be set by the initiator. What is *not* supported is kept out of the masks, so that it is refused
//! with a pointer to the bit: NACA, SP of MODE SELECT, third-party RESERVE. Follows SPC-4; RESERVE(6) and RELEASE(6) SPC-2.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CommandSpec, DataDirection};
use crate::wire::{U16, U32};

const fn row(name: &'static str, usage: &'static [u8], data: DataDirection) -> CommandSpec {
    CommandSpec { name, opcode: usage[0], service_action: None, usage, data, writes: false }
}

/// A row of an operation code with service actions: the action is what the usage data has in byte 1.
const fn action(name: &'static str, usage: &'static [u8], data: DataDirection) -> CommandSpec {
    let service_action = Some((usage[1] & 0x1F) as u16);
    CommandSpec { name, opcode: usage[0], service_action, usage, data, writes: false }
}

const fn reserve_in(action: u8) -> [u8; 10] {
    [0x5E, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]
}

/// SCOPE and TYPE may be set for every service action: those that do not look at them ignore them.
const fn reserve_out(action: u8) -> [u8; 10] {
    [0x5F, action, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0]
}

/// With a list identifier of 32 bits.
const fn receive_copy(action: u8) -> [u8; 16] {
    [0x84, action, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]
}

/// All rows of this module.
#[rustfmt::skip]
pub const COMMANDS: &[&CommandSpec] = &[
    &TEST_UNIT_READY, &REQUEST_SENSE, &INQUIRY, &MODE_SELECT_6, &RESERVE_6, &RELEASE_6, &MODE_SENSE_6, &START_STOP_UNIT,
    &PREVENT_ALLOW_MEDIUM_REMOVAL, &LOG_SELECT, &LOG_SENSE, &MODE_SELECT_10, &RESERVE_10, &RELEASE_10, &MODE_SENSE_10, &READ_KEYS,
    &READ_RESERVATION, &REPORT_CAPABILITIES, &READ_FULL_STATUS, &REGISTER, &RESERVE, &RELEASE, &CLEAR, &PREEMPT,
    &PREEMPT_AND_ABORT, &REGISTER_AND_IGNORE_EXISTING_KEY, &REGISTER_AND_MOVE, &EXTENDED_COPY, &EXTENDED_COPY_LID4,
    &COPY_OPERATION_ABORT, &RECEIVE_COPY_STATUS, &RECEIVE_COPY_DATA, &RECEIVE_COPY_OPERATING_PARAMETERS,
    &RECEIVE_COPY_FAILURE_DETAILS, &RECEIVE_COPY_STATUS_LID4, &RECEIVE_COPY_DATA_LID4, &REPORT_LUNS,
    &REPORT_TARGET_PORT_GROUPS, &REPORT_SUPPORTED_OPERATION_CODES, &REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS,
];

/// TEST UNIT READY.
pub const TEST_UNIT_READY: CommandSpec = row("TEST UNIT READY", &[0x00, 0, 0, 0, 0, 0], DataDirection::None);
/// REQUEST SENSE: DESC.
pub const REQUEST_SENSE: CommandSpec = row("REQUEST SENSE", &[0x03, 0x01, 0, 0, 0xFF, 0], DataDirection::In);
/// INQUIRY: EVPD.
pub const INQUIRY: CommandSpec = row("INQUIRY", &[0x12, 0x01, 0xFF, 0xFF, 0xFF, 0], DataDirection::In);
/// MODE SELECT(6): PF.
pub const MODE_SELECT_6: CommandSpec = row("MODE SELECT(6)", &[0x15, 0x11, 0, 0, 0xFF, 0], DataDirection::Out);
/// RESERVE(6).
pub const RESERVE_6: CommandSpec = row("RESERVE(6)", &[0x16, 0, 0, 0, 0, 0], DataDirection::None);
/// RELEASE(6).
pub const RELEASE_6: CommandSpec = row("RELEASE(6)", &[0x17, 0, 0, 0, 0, 0], DataDirection::None);
/// MODE SENSE(6): DBD.
pub const MODE_SENSE_6: CommandSpec = row("MODE SENSE(6)", &[0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0], DataDirection::In);
/// START STOP UNIT: IMMED; POWER CONDITION MODIFIER; POWER CONDITION, NO_FLUSH, LOEJ, START. SBC-4.
pub const START_STOP_UNIT: CommandSpec = row("START STOP UNIT", &[0x1B, 0x01, 0, 0x0F, 0xF7, 0], DataDirection::None);
/// PREVENT ALLOW MEDIUM REMOVAL. SBC-4 and SSC-4.
pub const PREVENT_ALLOW_MEDIUM_REMOVAL: CommandSpec =
    row("PREVENT ALLOW MEDIUM REMOVAL", &[0x1E, 0, 0, 0, 0x03, 0], DataDirection::None);
/// LOG SELECT: PCR; PC, PAGE CODE, SUBPAGE CODE. SP is not served.
pub const LOG_SELECT: CommandSpec = row("LOG SELECT", &[0x4C, 0x02, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0], DataDirection::Out);
/// LOG SENSE.
pub const LOG_SENSE: CommandSpec = row("LOG SENSE", &[0x4D, 0, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0], DataDirection::In);
/// MODE SELECT(10): PF.
pub const MODE_SELECT_10: CommandSpec = row("MODE SELECT(10)", &[0x55, 0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], DataDirection::Out);
/// MODE SENSE(10): LLBAA, DBD.
pub const MODE_SENSE_10: CommandSpec =
    row("MODE SENSE(10)", &[0x5A, 0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0], DataDirection::In);
/// RESERVE(10); neither third-party nor extents, which are obsolete.
pub const RESERVE_10: CommandSpec = row("RESERVE(10)", &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0], DataDirection::None);
/// RELEASE(10).
pub const RELEASE_10: CommandSpec = row("RELEASE(10)", &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0], DataDirection::None);
/// PERSISTENT RESERVE IN, READ KEYS.
pub const READ_KEYS: CommandSpec = action("PERSISTENT RESERVE IN, READ KEYS", &reserve_in(0x00), DataDirection::In);
/// PERSISTENT RESERVE IN, READ RESERVATION.
pub const READ_RESERVATION: CommandSpec = action("PERSISTENT RESERVE IN, READ RESERVATION", &reserve_in(0x01), DataDirection::In);
/// PERSISTENT RESERVE IN, REPORT CAPABILITIES.
pub const REPORT_CAPABILITIES: CommandSpec =
    action("PERSISTENT RESERVE IN, REPORT CAPABILITIES", &reserve_in(0x02), DataDirection::In);
/// PERSISTENT RESERVE IN, READ FULL STATUS.
pub const READ_FULL_STATUS: CommandSpec = action("PERSISTENT RESERVE IN, READ FULL STATUS", &reserve_in(0x03), DataDirection::In);
/// PERSISTENT RESERVE OUT, REGISTER.
pub const REGISTER: CommandSpec = action("PERSISTENT RESERVE OUT, REGISTER", &reserve_out(0x00), DataDirection::Out);
/// PERSISTENT RESERVE OUT, RESERVE.
pub const RESERVE: CommandSpec = action("PERSISTENT RESERVE OUT, RESERVE", &reserve_out(0x01), DataDirection::Out);
/// PERSISTENT RESERVE OUT, RELEASE.
pub const RELEASE: CommandSpec = action("PERSISTENT RESERVE OUT, RELEASE", &reserve_out(0x02), DataDirection::Out);
/// PERSISTENT RESERVE OUT, CLEAR.
pub const CLEAR: CommandSpec = action("PERSISTENT RESERVE OUT, CLEAR", &reserve_out(0x03), DataDirection::Out);
/// PERSISTENT RESERVE OUT, PREEMPT.
pub const PREEMPT: CommandSpec = action("PERSISTENT RESERVE OUT, PREEMPT", &reserve_out(0x04), DataDirection::Out);
/// PERSISTENT RESERVE OUT, PREEMPT AND ABORT.
pub const PREEMPT_AND_ABORT: CommandSpec =
    action("PERSISTENT RESERVE OUT, PREEMPT AND ABORT", &reserve_out(0x05), DataDirection::Out);
/// PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY.
pub const REGISTER_AND_IGNORE_EXISTING_KEY: CommandSpec =
    action("PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", &reserve_out(0x06), DataDirection::Out);
/// PERSISTENT RESERVE OUT, REGISTER AND MOVE.
pub const REGISTER_AND_MOVE: CommandSpec =
    action("PERSISTENT RESERVE OUT, REGISTER AND MOVE", &reserve_out(0x07), DataDirection::Out);
/// EXTENDED COPY(LID1).
pub const EXTENDED_COPY: CommandSpec =
    action("EXTENDED COPY(LID1)", &[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::Out);
/// EXTENDED COPY(LID4).
pub const EXTENDED_COPY_LID4: CommandSpec =
    action("EXTENDED COPY(LID4)", &[0x83, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::Out);
/// COPY OPERATION ABORT.
pub const COPY_OPERATION_ABORT: CommandSpec =
    action("COPY OPERATION ABORT", &[0x83, 0x1C, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], DataDirection::None);
/// RECEIVE COPY STATUS(LID1).
pub const RECEIVE_COPY_STATUS: CommandSpec = action(
    "RECEIVE COPY STATUS(LID1)",
    &[0x84, 0x00, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    DataDirection::In,
);
/// RECEIVE COPY DATA(LID1).
pub const RECEIVE_COPY_DATA: CommandSpec =
    action("RECEIVE COPY DATA(LID1)", &[0x84, 0x01, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::In);
/// RECEIVE COPY OPERATING PARAMETERS.
pub const RECEIVE_COPY_OPERATING_PARAMETERS: CommandSpec = action(
    "RECEIVE COPY OPERATING PARAMETERS",
    &[0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    DataDirection::In,
);
/// RECEIVE COPY FAILURE DETAILS(LID1).
pub const RECEIVE_COPY_FAILURE_DETAILS: CommandSpec = action(
    "RECEIVE COPY FAILURE DETAILS(LID1)",
    &[0x84, 0x04, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    DataDirection::In,
);
/// RECEIVE COPY STATUS(LID4).
pub const RECEIVE_COPY_STATUS_LID4: CommandSpec = action("RECEIVE COPY STATUS(LID4)", &receive_copy(0x05), DataDirection::In);
/// RECEIVE COPY DATA(LID4).
pub const RECEIVE_COPY_DATA_LID4: CommandSpec = action("RECEIVE COPY DATA(LID4)", &receive_copy(0x06), DataDirection::In);
/// REPORT LUNS.
pub const REPORT_LUNS: CommandSpec =
    row("REPORT LUNS", &[0xA0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::In);
/// REPORT TARGET PORT GROUPS: PARAMETER DATA FORMAT, with and without the extended header.
pub const REPORT_TARGET_PORT_GROUPS: CommandSpec =
    action("REPORT TARGET PORT GROUPS", &[0xA3, 0x2A, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::In);
/// REPORT SUPPORTED OPERATION CODES: RCTD and REPORTING OPTIONS.
pub const REPORT_SUPPORTED_OPERATION_CODES: CommandSpec = action(
    "REPORT SUPPORTED OPERATION CODES",
    &[0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    DataDirection::In,
);
/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: REPD.
pub const REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS: CommandSpec = action(
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    &[0xA3, 0x0D, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    DataDirection::In,
);

/// REQUEST SENSE.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RequestSenseCdb {
    opcode: u8,
    flags: u8,
    reserved: [u8; 2],
    /// In bytes.
    pub allocation_length: u8,
    control: u8,
}

impl RequestSenseCdb {
    /// DESC: descriptor format is wanted.
    #[must_use]
    pub const fn descriptor(&self) -> bool {
        self.flags & 0x01 != 0
    }
}

/// INQUIRY.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InquiryCdb {
    opcode: u8,
    flags: u8,
    /// Only with EVPD.
    pub page_code: u8,
    /// In bytes.
    pub allocation_length: U16,
    control: u8,
}

impl InquiryCdb {
    /// EVPD: a page of vital product data is wanted.
    #[must_use]
    pub const fn vital_product_data(&self) -> bool {
        self.flags & 0x01 != 0
    }
}

/// MODE SENSE(6).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ModeSense6Cdb {
    opcode: u8,
    /// DBD.
    pub flags: u8,
    /// PC and PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// In bytes.
    pub allocation_length: u8,
    control: u8,
}

/// MODE SENSE(10).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ModeSense10Cdb {
    opcode: u8,
    /// LLBAA and DBD.
    pub flags: u8,
    /// PC and PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    reserved: [u8; 3],
    /// In bytes.
    pub allocation_length: U16,
    control: u8,
}

/// MODE SELECT(6).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ModeSelect6Cdb {
    opcode: u8,
    /// PF, SP.
    pub flags: u8,
    reserved: [u8; 2],
    /// In bytes.
    pub parameter_list_length: u8,
    control: u8,
}

/// MODE SELECT(10).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ModeSelect10Cdb {
    opcode: u8,
    /// PF, SP.
    pub flags: u8,
    reserved: [u8; 5],
    /// In bytes.
    pub parameter_list_length: U16,
    control: u8,
}

/// PERSISTENT RESERVE IN.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PersistentReserveInCdb {
    opcode: u8,
    service_action: u8,
    reserved: [u8; 5],
    /// In bytes.
    pub allocation_length: U16,
    control: u8,
}

/// PERSISTENT RESERVE OUT. SCOPE, TYPE and service action are [`super::reservation::ReserveOut`]'s.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PersistentReserveOutCdb {
    opcode: u8,
    service_action: u8,
    scope_and_type: u8,
    reserved: [u8; 2],
    /// In bytes.
    pub parameter_list_length: U32,
    control: u8,
}

/// LOG SELECT.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogSelectCdb {
    opcode: u8,
    flags: u8,
    /// PC and PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    reserved: [u8; 3],
    /// In bytes.
    pub parameter_list_length: U16,
    control: u8,
}

impl LogSelectCdb {
    /// PCR: parameters begin anew.
    #[must_use]
    pub const fn reset(&self) -> bool {
        self.flags & 0x02 != 0
    }
}

/// LOG SENSE.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogSenseCdb {
    opcode: u8,
    flags: u8,
    /// PC and PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    reserved: u8,
    /// The first parameter wanted.
    pub parameter_pointer: U16,
    /// In bytes.
    pub allocation_length: U16,
    control: u8,
}

/// START STOP UNIT. SBC-4.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct StartStopUnitCdb {
    opcode: u8,
    flags: u8,
    reserved: u8,
    power_condition_modifier: u8,
    action: u8,
    control: u8,
}

impl StartStopUnitCdb {
    /// IMMED: the status may come before the work is done.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// POWER CONDITION; where it is not zero, LOEJ and START say nothing.
    #[must_use]
    pub const fn power_condition(&self) -> u8 {
        self.action >> 4
    }

    /// NO_FLUSH: the cache need not be written first.
    #[must_use]
    pub const fn no_flush(&self) -> bool {
        self.action & 0x04 != 0
    }

    /// LOEJ: START tells whether to load or to eject.
    #[must_use]
    pub const fn load_or_eject(&self) -> bool {
        self.action & 0x02 != 0
    }

    /// START.
    #[must_use]
    pub const fn start(&self) -> bool {
        self.action & 0x01 != 0
    }
}

/// REPORT LUNS.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReportLunsCdb {
    opcode: u8,
    reserved_1: u8,
    /// SELECT REPORT: which kinds of logical units.
    pub select_report: u8,
    reserved_3: [u8; 3],
    /// In bytes.
    pub allocation_length: U32,
    reserved_10: u8,
    control: u8,
}

/// REPORT TARGET PORT GROUPS.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReportTargetPortGroupsCdb {
    opcode: u8,
    service_action: u8,
    reserved_2: [u8; 4],
    /// In bytes.
    pub allocation_length: U32,
    reserved_10: u8,
    control: u8,
}

impl ReportTargetPortGroupsCdb {
    /// PARAMETER DATA FORMAT 001b: with the extended header.
    #[must_use]
    pub const fn extended(&self) -> bool {
        self.service_action & 0x20 != 0
    }
}

/// REPORT SUPPORTED OPERATION CODES.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReportSupportedOperationCodesCdb {
    opcode: u8,
    service_action: u8,
    options: u8,
    /// REQUESTED OPERATION CODE.
    pub requested_opcode: u8,
    /// REQUESTED SERVICE ACTION.
    pub requested_service_action: U16,
    /// In bytes.
    pub allocation_length: U32,
    reserved: u8,
    control: u8,
}

impl ReportSupportedOperationCodesCdb {
    /// RCTD: command timeouts descriptors are wanted.
    #[must_use]
    pub const fn timeouts(&self) -> bool {
        self.options & 0x80 != 0
    }

    /// REPORTING OPTIONS.
    #[must_use]
    pub const fn reporting_options(&self) -> u8 {
        self.options & 0x07
    }
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReportSupportedTmfCdb {
    opcode: u8,
    service_action: u8,
    options: u8,
    reserved_3: [u8; 3],
    /// In bytes.
    pub allocation_length: U32,
    reserved_10: u8,
    control: u8,
}

impl ReportSupportedTmfCdb {
    /// REPD: the extended format of 16 bytes is wanted.
    #[must_use]
    pub const fn extended(&self) -> bool {
        self.options & 0x80 != 0
    }
}

const _: () = {
    assert!(size_of::<RequestSenseCdb>() == REQUEST_SENSE.usage.len());
    assert!(size_of::<InquiryCdb>() == INQUIRY.usage.len());
    assert!(size_of::<ModeSense6Cdb>() == MODE_SENSE_6.usage.len());
    assert!(size_of::<ModeSense10Cdb>() == MODE_SENSE_10.usage.len());
    assert!(size_of::<ModeSelect6Cdb>() == MODE_SELECT_6.usage.len());
    assert!(size_of::<ModeSelect10Cdb>() == MODE_SELECT_10.usage.len());
    assert!(size_of::<PersistentReserveInCdb>() == READ_KEYS.usage.len());
    assert!(size_of::<PersistentReserveOutCdb>() == REGISTER.usage.len());
    assert!(size_of::<LogSenseCdb>() == LOG_SENSE.usage.len());
    assert!(size_of::<StartStopUnitCdb>() == START_STOP_UNIT.usage.len());
    assert!(size_of::<ReportTargetPortGroupsCdb>() == REPORT_TARGET_PORT_GROUPS.usage.len());
    assert!(size_of::<ReportLunsCdb>() == REPORT_LUNS.usage.len());
    assert!(size_of::<ReportSupportedOperationCodesCdb>() == REPORT_SUPPORTED_OPERATION_CODES.usage.len());
    assert!(size_of::<ReportSupportedTmfCdb>() == REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS.usage.len());
};
