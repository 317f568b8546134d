//! LOG SENSE: counters of the drive, the state of the medium, and the sums of its tape files.
//!
//! Numbers that a file has not (corrected errors, motion hours, temperature) are left out, or told as unknown. Follows SPC-4, "LOG
//! SENSE", and SSC-4, "Log parameters"; page 30h is our own, see [`protocol::cartridge::sums`].

use protocol::cartridge::sums;
use protocol::scsi::spc::LogSenseCdb;
use protocol::scsi::ssc_data::{counter, partition_record, tape_alert};
use protocol::scsi::{FieldPointer, Sense, log};

use super::drive::Drive;
use super::{Shown, Tape};
use crate::cartridge::ReadError;
use crate::lun::common::{Reply, data_in};
use crate::task::Task;

const WRITE_ERRORS: u8 = 0x02;
const READ_ERRORS: u8 = 0x03;
const SEQUENTIAL_ACCESS: u8 = 0x0C;
const TEMPERATURE: u8 = 0x0D;
const DT_DEVICE_STATUS: u8 = 0x11;
const VOLUME_STATISTICS: u8 = 0x17;
const TAPE_ALERT: u8 = 0x2E;

/// Pages beside 00h, ascending.
pub const PAGES: &[(u8, u8)] = &[
    (WRITE_ERRORS, 0),
    (READ_ERRORS, 0),
    (SEQUENTIAL_ACCESS, 0),
    (TEMPERATURE, 0),
    (DT_DEVICE_STATUS, 0),
    (VOLUME_STATISTICS, 0),
    (TAPE_ALERT, 0),
    (sums::LOG_PAGE, 0),
];

const SUPPORTED: (u8, u8) = (0, 0);
const SUPPORTED_SUBPAGES: (u8, u8) = (0, 0xFF);

const MEGABYTE: u64 = 1_000_000;

/// LOG SENSE. Answers also while a copy has the drive.
pub fn log_sense(tape: &Tape, task: &Task) -> Reply {
    let cdb: LogSenseCdb = task.cdb.read();
    let (code, subpage) = (cdb.page & 0x3F, cdb.subpage);
    let pointer = cdb.parameter_pointer.get();
    let all: Vec<_> = [SUPPORTED, SUPPORTED_SUBPAGES].iter().chain(PAGES).copied().collect();
    let page = match (code, subpage) {
        SUPPORTED => log::page(code, subpage, &log::supported(&all, false)),
        SUPPORTED_SUBPAGES => log::page(code, subpage, &log::supported(&all, true)),
        (sums::LOG_PAGE, 0) => tape.with_drive(|drive| file_sums(drive, pointer))?,
        page if PAGES.contains(&page) => {
            let parameters = tape.with_drive(|drive| parameters(drive, code));
            log::page(code, subpage, &from(parameters, pointer)?)
        }
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 5))),
    };
    Ok(data_in(page, cdb.allocation_length.get()))
}

/// The parameters from PARAMETER POINTER on.
fn from(mut parameters: Vec<Vec<u8>>, pointer: u16) -> Result<Vec<u8>, Sense> {
    parameters.retain(|parameter| parameter[..2] >= pointer.to_be_bytes()[..]);
    if parameters.is_empty() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(5)));
    }
    Ok(parameters.concat())
}

/// The sums of the tape files from number `from` on; none without a medium.
fn file_sums(drive: &mut Drive, from: u16) -> Result<Vec<u8>, Sense> {
    let files = match drive.medium_mut() {
        Ok(medium) => medium.file_sums(from.into(), sums::MAX_FILES_PER_PAGE),
        Err(_) => Ok(Vec::new()),
    };
    files.map(|files| sums::emit_log_page(&files)).map_err(|error| drive.read_sense(&ReadError::Io(error)))
}

fn parameters(drive: &mut Drive, code: u8) -> Vec<Vec<u8>> {
    let counters = drive.counters;
    match code {
        WRITE_ERRORS => error_counters(counters.bytes_written, counters.write_errors),
        READ_ERRORS => error_counters(counters.bytes_read, counters.read_errors),
        SEQUENTIAL_ACCESS => sequential_access(drive),
        TEMPERATURE => vec![log::binary_parameter(0, &[0, 0xFF])],
        DT_DEVICE_STATUS => vec![log::binary_parameter(0, &very_high_frequency_data(&drive.shown()))],
        VOLUME_STATISTICS => volume_statistics(drive),
        _ => {
            // Told once: TapeAlert flags are cleared by reading them.
            let alerts = tape_alert(std::mem::take(&mut drive.alerts));
            alerts.chunks(TAPE_ALERT_PARAMETER).map(<[u8]>::to_vec).collect()
        }
    }
}

const TAPE_ALERT_PARAMETER: usize = 5;

/// Bytes processed and errors that were not corrected. SPC-4, "Error counter log pages".
fn error_counters(bytes: u64, uncorrected: u64) -> Vec<Vec<u8>> {
    vec![counter(0x0005, bytes), counter(0x0006, uncorrected)]
}

/// Bytes received and sent, and room. SSC-4, "Sequential-Access Device log page". Nothing is compressed: what came is what is there.
fn sequential_access(drive: &Drive) -> Vec<Vec<u8>> {
    let counters = drive.counters;
    let mut parameters = vec![
        counter(0x0000, counters.bytes_written),
        counter(0x0001, counters.bytes_written),
        counter(0x0002, counters.bytes_read),
        counter(0x0003, counters.bytes_read),
    ];
    if let Ok(medium) = drive.medium() {
        let limits = medium.limits();
        parameters.extend([
            counter(0x0004, medium.end().offset / MEGABYTE),
            counter(0x0005, limits.early_warning / MEGABYTE),
            counter(0x0006, (limits.capacity - limits.early_warning) / MEGABYTE),
            counter(0x0007, drive.position().offset / MEGABYTE),
        ]);
    }
    parameters
}

/// SSC-4, "DT Device Status log page": initialized, write-protected, medium present, seated, threaded and mounted.
fn very_high_frequency_data(shown: &Shown) -> [u8; 4] {
    const WRTP: u8 = 0x08;
    const DINIT: u8 = 0x01;
    const MPRSNT_MSTD_MTHRD_MOUNTED: u8 = 0x17;
    let protect = if shown.write_protected { WRTP } else { 0 };
    [DINIT | protect, if shown.status.loaded { MPRSNT_MSTD_MTHRD_MOUNTED } else { 0 }, 0, 0]
}

/// Room and label of the medium. SSC-4, "Volume Statistics log page".
fn volume_statistics(drive: &Drive) -> Vec<Vec<u8>> {
    let Ok(medium) = drive.medium() else { return vec![log::binary_parameter(0x0000, &[0])] };
    let (limits, end) = (medium.limits(), medium.end().offset);
    let mut barcode = medium.metadata().barcode.clone().into_bytes();
    barcode.resize(32, b' ');
    vec![
        log::binary_parameter(0x0000, &[1]),
        counter(0x0001, drive.counters.loads),
        counter(0x0016, limits.capacity / MEGABYTE),
        counter(0x0017, end / MEGABYTE),
        log::binary_parameter(0x0042, &barcode),
        log::binary_parameter(0x0080, &[u8::from(!medium.writable())]),
        log::binary_parameter(0x0081, &[0]),
        partition_record(0x0202, limits.capacity / MEGABYTE),
        partition_record(0x0203, end / MEGABYTE),
        partition_record(0x0204, limits.early_warning.saturating_sub(end) / MEGABYTE),
    ]
}
