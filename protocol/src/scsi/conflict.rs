//! Which commands a reservation of another nexus lets through: a row for each command.
//!
//! A command without a row is let through by no reservation. PERSISTENT RESERVE OUT is told apart by the device server: SPC-4,
//! table "PERSISTENT RESERVE OUT service actions that are allowed". Follows SPC-4, SBC-4, SSC-4 and SMC-3, "commands that are
//! allowed in the presence of various reservations", and SPC-2 for RESERVE and RELEASE. The rows of SSC and SMC were held against the
//! tables that makers of drives and libraries print: Oracle's StorageTek T10000 Interface Reference Manual (August 2016), tables 2-2
//! and 2-3, and Sun's StorageTek SL500 Interface Reference Manual (revision F), tables 3-6 and 3-7.

use super::{Cdb, CommandSpec};

/// Who may send a command while another nexus has a persistent reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Everybody.
    Always,
    /// Registered nexuses where the type admits them; everybody where it admits readers.
    Readers,
    /// Registered nexuses where the type admits them.
    Registrants,
}

/// What the standards say of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// While another nexus has a persistent reservation.
    pub persistent: Passes,
    /// It passes the RESERVE(6) or RESERVE(10) of another nexus.
    pub reserved: bool,
}

/// OPERATION CODE, SERVICE ACTION where only one is meant, and the rule.
type Row = (u8, Option<u8>, Rule);

const FREE: Rule = Rule { persistent: Passes::Always, reserved: true };
const FREE_UNLESS_RESERVED: Rule = Rule { persistent: Passes::Always, reserved: false };
const READS: Rule = Rule { persistent: Passes::Readers, reserved: false };
/// SPC-2 lets it pass, though SPC-4 counts it among the reads.
const READS_REPORT: Rule = Rule { persistent: Passes::Readers, reserved: true };
const CHANGES: Rule = Rule { persistent: Passes::Registrants, reserved: false };

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // SPC-4
    (0x00, None, FREE_UNLESS_RESERVED),         // TEST UNIT READY
    (0x03, None, FREE),                         // REQUEST SENSE
    (0x12, None, FREE),                         // INQUIRY
    (0x16, None, FREE_UNLESS_RESERVED),         // RESERVE(6): decided where it is carried out
    (0x17, None, FREE),                         // RELEASE(6)
    (0x1A, None, READS),                        // MODE SENSE(6)
    (0x1C, None, READS),                        // RECEIVE DIAGNOSTIC RESULTS
    (0x3C, None, READS),                        // READ BUFFER
    (0x4D, None, FREE),                         // LOG SENSE
    (0x56, None, FREE_UNLESS_RESERVED),         // RESERVE(10)
    (0x57, None, FREE),                         // RELEASE(10)
    (0x5A, None, READS),                        // MODE SENSE(10)
    (0x5E, None, FREE_UNLESS_RESERVED),         // PERSISTENT RESERVE IN
    (0x5F, None, FREE_UNLESS_RESERVED),         // PERSISTENT RESERVE OUT: decided where it is carried out
    (0x84, None, FREE),                         // RECEIVE COPY RESULTS
    (0x8C, None, READS),                        // READ ATTRIBUTE
    (0xA0, None, FREE),                         // REPORT LUNS
    (0xA3, Some(0x05), FREE),                   // REPORT IDENTIFYING INFORMATION
    (0xA3, Some(0x0A), FREE),                   // REPORT TARGET PORT GROUPS
    (0xA3, Some(0x0C), READS_REPORT),           // REPORT SUPPORTED OPERATION CODES
    (0xA3, Some(0x0D), READS_REPORT),           // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    (0xA3, Some(0x0F), FREE),                   // REPORT TIMESTAMP
    (0xAB, Some(0x01), FREE),                   // READ MEDIA SERIAL NUMBER
    // SBC-4; READ(6), READ(10) … of tapes are SSC's, whose reads move the medium: see `of`
    (0x25, None, FREE),                         // READ CAPACITY(10)
    (0x28, None, READS),                        // READ(10)
    (0x2F, None, READS),                        // VERIFY(10)
    (0x34, None, READS),                        // PRE-FETCH(10)
    (0x37, None, READS),                        // READ DEFECT DATA(10)
    (0x88, None, READS),                        // READ(16)
    (0x8F, None, READS),                        // VERIFY(16)
    (0x90, None, READS),                        // PRE-FETCH(16)
    (0x9E, Some(0x10), FREE),                   // READ CAPACITY(16)
    (0x9E, Some(0x12), READS),                  // GET LBA STATUS
    (0xA8, None, READS),                        // READ(12)
    (0xAF, None, READS),                        // VERIFY(12)
    (0xB7, None, READS),                        // READ DEFECT DATA(12)
    // SSC-4; all others move the medium, READ POSITION among those that conflict
    (0x05, None, FREE),                         // READ BLOCK LIMITS
    (0x44, None, FREE),                         // REPORT DENSITY SUPPORT
];

/// READ(6) is a read of a disk, and moves the medium of a tape.
const READ_6: u8 = 0x08;
const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1E;
/// START STOP UNIT of disks, LOAD UNLOAD of tapes.
const START_STOP_UNIT: u8 = 0x1B;
/// READ ELEMENT STATUS of changers.
const READ_ELEMENT_STATUS: u8 = 0xB8;
const SERVICE_ACTION: u8 = 0x1F;

impl Rule {
    /// The rule for a command. `moves_medium` is set for tapes and changers, whose reads and starts do.
    #[must_use]
    pub fn of(cdb: &Cdb, moves_medium: bool) -> Self {
        let bytes = cdb.basic();
        match bytes[0] {
            READ_6 if !moves_medium => READS,
            PREVENT_ALLOW_MEDIUM_REMOVAL if bytes[4] & 0x03 == 0 => FREE,
            START_STOP_UNIT if !moves_medium && starts(bytes[4]) => FREE,
            // CURDATA: nothing is moved to find out.
            READ_ELEMENT_STATUS if bytes[6] & 0x02 != 0 => FREE,
            // Of tapes READ POSITION (34h) has the operation code of a disk's PRE-FETCH(10).
            0x28 | 0x88 | 0xA8 | 0x2F | 0x8F | 0xAF | 0x34 | 0x37 if moves_medium => CHANGES,
            opcode => Self::of_row(opcode, bytes[1] & SERVICE_ACTION),
        }
    }

    fn of_row(opcode: u8, action: u8) -> Self {
        let row = ROWS.iter().find(|row| row.0 == opcode && row.1.is_none_or(|one| one == action));
        row.map_or(CHANGES, |row| row.2)
    }

    /// True when the command, or one of its forms, passes some reservation. For tests of the table.
    #[must_use]
    pub fn has_row(spec: &CommandSpec) -> bool {
        let action = spec.service_action.map(|action| action as u8);
        ROWS.iter().any(|row| row.0 == spec.opcode && (row.1.is_none() || row.1 == action))
            || matches!(spec.opcode, READ_6 | PREVENT_ALLOW_MEDIUM_REMOVAL | START_STOP_UNIT)
    }
}

/// START is one and POWER CONDITION zero.
const fn starts(action: u8) -> bool {
    action & 0xF1 == 0x01
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::{DataDirection, sbc, smc, spc, ssc};
    use crate::wire::hex;

    fn rule(cdb: &str) -> Rule {
        Rule::of(&Cdb::new(&hex(cdb)).unwrap(), false)
    }

    #[test]
    fn commands_without_a_row_are_those_that_change_something() {
        let without: Vec<_> = spc::COMMANDS
            .iter()
            .chain(sbc::COMMANDS)
            .filter(|spec| spec.data != DataDirection::Out && !Rule::has_row(spec))
            .map(|spec| spec.name)
            .collect();
        // All that takes data may change something; of the rest these do.
        let others: Vec<_> = without
            .iter()
            .filter(|name| !["SYNCHRONIZE CACHE", "SANITIZE", "COPY OPERATION ABORT"].iter().any(|word| name.starts_with(word)))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        let mut writing = sbc::COMMANDS.iter().chain(ssc::COMMANDS).filter(|spec| spec.writes);
        assert!(writing.all(|spec| !Rule::has_row(spec)));
    }

    #[test]
    fn forms_of_one_command_are_told_apart() {
        assert_eq!(rule("1e 00 0000 00 00"), FREE);
        assert_eq!(rule("1e 00 0000 01 00"), CHANGES);
        assert_eq!(rule("1b 00 0000 01 00").persistent, Passes::Always);
        assert_eq!(rule("1b 00 0000 00 00"), CHANGES);
        assert_eq!(rule("1b 00 0000 31 00"), CHANGES);
        assert_eq!(rule("9e 12"), READS);
        assert_eq!(rule("9e 13"), CHANGES);
        assert_eq!(rule("08"), READS);
        assert_eq!(Rule::of(&Cdb::new(&[0x08]).unwrap(), true), CHANGES);
    }

    #[test]
    fn of_tapes_and_changers_only_what_moves_nothing_is_free() {
        let moving = |spec: &CommandSpec| Rule::of(&Cdb::new(spec.usage).unwrap(), true);
        let free = |rows: &[&CommandSpec]| {
            let rows: Vec<_> = rows.iter().filter(|spec| moving(spec) == FREE).map(|spec| spec.name).collect();
            rows
        };
        assert_eq!(free(ssc::COMMANDS), ["READ BLOCK LIMITS", "REPORT DENSITY SUPPORT"]);
        assert_eq!(free(smc::COMMANDS), ["READ ELEMENT STATUS"], "the usage data has CURDATA set");
        assert_eq!(Rule::of(&Cdb::new(&hex("b8 00 0000 ffff 00 001000 00 00")).unwrap(), true), CHANGES);
        let reads = ssc::COMMANDS.iter().filter(|spec| moving(spec).persistent == Passes::Readers);
        assert!(reads.clone().all(|spec| spec.name == "READ ATTRIBUTE"), "{:?}", reads.map(|spec| spec.name).collect::<Vec<_>>());
    }
}
