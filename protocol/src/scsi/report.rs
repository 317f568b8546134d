//! REPORT SUPPORTED OPERATION CODES and its two neighbours: what they say, made from the rows.
//!
//! Follows SPC-4, "REPORT SUPPORTED OPERATION CODES command", "REPORT LUNS command" and "REPORT SUPPORTED TASK MANAGEMENT
//! FUNCTIONS command".

use super::{CommandSpec, FieldPointer, LunAddress, Sense, spc};

/// REPORT LUNS parameter data.
#[must_use]
pub fn luns(luns: impl IntoIterator<Item = LunAddress>) -> Vec<u8> {
    let mut data = vec![0; 8];
    data.extend(luns.into_iter().flat_map(|lun| lun.0));
    let length = (data.len() - 8) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

/// Parameter data of REPORT SUPPORTED OPERATION CODES for a device that serves `rows`. `copy_wait_s` is how many seconds a copy may wait
/// for a disk to be quiet before it begins.
///
/// # Errors
/// INVALID FIELD IN CDB, at REPORTING OPTIONS, for a reserved option and for one that asks for an operation code with service actions
/// without naming one, or the other way round.
pub fn supported_operation_codes(
    cdb: &spc::ReportSupportedOperationCodesCdb,
    rows: &[&'static CommandSpec],
    copy_wait_s: u32,
) -> Result<Vec<u8>, Sense> {
    let timeouts = cdb.timeouts().then_some(copy_wait_s);
    let opcode = cdb.requested_opcode;
    let action = cdb.requested_service_action.get();
    let refused = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 2));
    let of_opcode: Vec<_> = rows.iter().copied().filter(|row| row.opcode == opcode).collect();
    let has_actions = of_opcode.iter().any(|row| row.service_action.is_some());
    let row = match cdb.reporting_options() {
        0 => return Ok(all_commands(rows, timeouts)),
        1 if has_actions => return Err(refused),
        1 => of_opcode.first().copied(),
        2 if !has_actions && !of_opcode.is_empty() => return Err(refused),
        2 | 3 if has_actions => of_opcode.into_iter().find(|row| row.service_action == Some(action)),
        2 => None,
        // An operation code without service actions is supported for service action zero only.
        3 => of_opcode.first().copied().filter(|_| action == 0),
        _ => return Err(refused),
    };
    Ok(one_command(row, timeouts))
}

fn all_commands(rows: &[&'static CommandSpec], timeouts: Option<u32>) -> Vec<u8> {
    const CTDP: u8 = 0x02;
    const SERVACTV: u8 = 0x01;
    let mut data = vec![0; 4];
    for row in rows {
        let [action_high, action_low] = row.service_action.unwrap_or(0).to_be_bytes();
        let flags = if timeouts.is_some() { CTDP } else { 0 } | if row.service_action.is_some() { SERVACTV } else { 0 };
        data.extend([row.opcode, 0, action_high, action_low, 0, flags, 0, row.usage.len() as u8]);
        data.extend(timeouts.iter().flat_map(|copy_wait_s| timeouts_descriptor(row, *copy_wait_s)));
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

fn one_command(row: Option<&CommandSpec>, timeouts: Option<u32>) -> Vec<u8> {
    const NOT_SUPPORTED: u8 = 0x01;
    const AS_THE_STANDARD_SAYS: u8 = 0x03;
    const CTDP: u8 = 0x80;
    let Some(row) = row else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let flags = AS_THE_STANDARD_SAYS | if timeouts.is_some() { CTDP } else { 0 };
    let mut data = vec![0, flags, 0, row.usage.len() as u8];
    data.extend(row.usage);
    data.extend(timeouts.iter().flat_map(|copy_wait_s| timeouts_descriptor(row, *copy_wait_s)));
    data
}

/// Command timeouts descriptor. NOMINAL COMMAND PROCESSING TIMEOUT is zero, no indication: the files below decide it. RECOMMENDED
/// COMMAND TIMEOUT is what an initiator should wait before it begins to recover.
fn timeouts_descriptor(row: &CommandSpec, copy_wait_s: u32) -> Vec<u8> {
    const DESCRIPTOR_LENGTH: u8 = 0x0A;
    [&[0, DESCRIPTOR_LENGTH, 0, 0, 0, 0, 0, 0], &recommended_timeout(row, copy_wait_s).to_be_bytes()[..]].concat()
}

/// In seconds; zero where nothing can be said: a sanitize operation.
///
/// What positions a tape or moves a cartridge waits for the file system to take what was written, and a load may have to walk through
/// an image whose index is lost.
const fn recommended_timeout(row: &CommandSpec, copy_wait_s: u32) -> u32 {
    const NO_DATA_TOUCHED: u32 = 30;
    const BLOCKS_MOVED: u32 = 60;
    const SYNCHRONIZED: u32 = 300;
    const LOADED: u32 = 1_800;
    /// A cartridge of 2.5 TB at 100 MB/s.
    const WHOLE_TAPE: u32 = 25_000;
    match row.opcode {
        // SANITIZE, WRITE SAME(16).
        0x48 | 0x93 => 0,
        0x83 => match row.service_action {
            // POPULATE TOKEN moves nothing.
            Some(0x10) => BLOCKS_MOVED.saturating_add(copy_wait_s),
            Some(0x11) => WHOLE_TAPE,
            // COPY OPERATION ABORT answers when nothing moves any more.
            Some(0x1C) => SYNCHRONIZED,
            _ => WHOLE_TAPE.saturating_add(copy_wait_s),
        },
        // REWIND, FORMAT MEDIUM, SET CAPACITY, WRITE FILEMARKS, SPACE, LOCATE and POSITION TO ELEMENT, SPACE(16), LOCATE(16).
        0x01 | 0x04 | 0x0B | 0x10 | 0x11 | 0x2B | 0x80 | 0x91 | 0x92 => SYNCHRONIZED,
        // INITIALIZE ELEMENT STATUS, LOAD UNLOAD, the same with range, MOVE MEDIUM, EXCHANGE MEDIUM.
        0x07 | 0x1B | 0x37 | 0xA5 | 0xA6 => LOADED,
        // VERIFY(6), ERASE(6).
        0x13 | 0x19 => WHOLE_TAPE,
        _ if row.writes || matches!(row.opcode, 0x08 | 0x28 | 0x88 | 0xA8 | 0x2F | 0x8F | 0xAF | 0x34 | 0x90 | 0x35) => {
            BLOCKS_MOVED
        }
        _ => NO_DATA_TOUCHED,
    }
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS parameter data: the functions that RFC 7143 has a request for.
#[must_use]
pub fn supported_task_management_functions(extended: bool) -> Vec<u8> {
    const ABORT_TASK: u8 = 0x80;
    const ABORT_TASK_SET: u8 = 0x40;
    const CLEAR_TASK_SET: u8 = 0x10;
    const LOGICAL_UNIT_RESET: u8 = 0x08;
    const TARGET_RESET: u8 = 0x02;
    let functions = ABORT_TASK | ABORT_TASK_SET | CLEAR_TASK_SET | LOGICAL_UNIT_RESET | TARGET_RESET;
    let mut data = vec![functions, 0, 0, 0];
    if extended {
        data[3] = 0x0C;
        data.resize(16, 0);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::Cdb;
    use crate::wire::hex;

    const ROWS: &[&CommandSpec] = &[&spc::TEST_UNIT_READY, &spc::RECEIVE_COPY_STATUS];

    fn ask(cdb: &str) -> Result<Vec<u8>, Sense> {
        supported_operation_codes(&Cdb::new(&hex(cdb)).unwrap().read(), ROWS, 20)
    }

    #[test]
    fn all_commands_are_listed_with_service_actions_and_timeouts() {
        assert_eq!(
            ask("a3 0c 00 00 0000 00000200 00 00").unwrap(),
            hex("00000010  00 00 0000 00 00 0006  84 00 0000 00 01 0010")
        );
        let with_timeouts = ask("a3 0c 80 00 0000 00000200 00 00").unwrap();
        assert_eq!(with_timeouts[..24], hex("00000028  00 00 0000 00 02 0006  000a 0000 00000000 0000001e")[..]);
    }

    #[test]
    fn every_command_of_tapes_and_changers_has_a_timeout() {
        for row in crate::scsi::ssc::COMMANDS.iter().chain(crate::scsi::smc::COMMANDS) {
            assert!(recommended_timeout(row, 0) >= 30, "{}", row.name);
        }
        assert!(recommended_timeout(&crate::scsi::ssc::ERASE_6, 0) > recommended_timeout(&crate::scsi::ssc::REWIND, 0));
    }

    #[test]
    fn the_timeouts_of_copies_cover_the_wait_for_a_quiet_moment() {
        for row in [&spc::EXTENDED_COPY, &spc::EXTENDED_COPY_LID4, &crate::scsi::sbc::POPULATE_TOKEN] {
            assert_eq!(recommended_timeout(row, 80), recommended_timeout(row, 0) + 80, "{}", row.name);
            assert!(recommended_timeout(row, 0) > 0, "{}", row.name);
        }
        for row in [&crate::scsi::sbc::WRITE_USING_TOKEN, &spc::COPY_OPERATION_ABORT] {
            assert_eq!(recommended_timeout(row, 80), recommended_timeout(row, 0), "{} does not wait for one", row.name);
        }
    }

    #[test]
    fn one_command_is_told_with_its_usage_data() {
        assert_eq!(ask("a3 0c 01 00 0000 00000200 00 00").unwrap(), hex("00 03 0006 000000000000"));
        let timeouts = ask("a3 0c 83 84 0000 00000200 00 00").unwrap();
        assert_eq!(timeouts[..7], hex("00 83 0010 84 00 ff")[..]);
        assert_eq!(timeouts.len(), 4 + 16 + 12);
        assert_eq!(ask("a3 0c 02 84 0009 00000200 00 00").unwrap(), hex("00 01 0000"), "unknown service action");
        assert_eq!(ask("a3 0c 01 ff 0000 00000200 00 00").unwrap(), hex("00 01 0000"), "unknown operation code");
    }

    #[test]
    fn an_option_that_does_not_fit_the_operation_code_is_refused() {
        let refused = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 2));
        assert_eq!(ask("a3 0c 01 84 0000 00000200 00 00"), Err(refused.clone()));
        assert_eq!(ask("a3 0c 02 00 0000 00000200 00 00"), Err(refused.clone()));
        assert_eq!(ask("a3 0c 04 00 0000 00000200 00 00"), Err(refused));
    }
}
