//! LOG SENSE and LOG SELECT: counters of the drive, the state of the medium, and the sums of its tape files.
//!
//! Numbers that a file has not (corrected errors, motion hours, temperature) are left out, told as unknown, or are zero where a page of
//! LTO's must have them. Follows SPC-4, "LOG SENSE", and SSC-4, "Log parameters"; pages 30h, 31h and 32h are LTO's, page 3Ah is our own,
//! see [`protocol::cartridge::sums`].

use protocol::cartridge::sums;
use protocol::scsi::spc::{LogSelectCdb, LogSenseCdb};
use protocol::scsi::ssc_data::{counter, partition_records, tape_alert};
use protocol::scsi::{FieldPointer, Sense, log};

use super::Tape;
use super::drive::{Counters, Drive};
use crate::cartridge::memory::Memory;
use crate::cartridge::{Partition, ReadError};
use crate::lun::common::{Reply, data_in};
use crate::task::{Response, Task};

const WRITE_ERRORS: u8 = 0x02;
const READ_ERRORS: u8 = 0x03;
const SEQUENTIAL_ACCESS: u8 = 0x0C;
const TEMPERATURE: u8 = 0x0D;
const DT_DEVICE_STATUS: u8 = 0x11;
const TAPE_ALERT_RESPONSE: u8 = 0x12;
const DEVICE_STATISTICS: u8 = 0x14;
const VOLUME_STATISTICS: u8 = 0x17;
const DATA_COMPRESSION: u8 = 0x1B;
const TAPE_ALERT: u8 = 0x2E;
const TAPE_USAGE: u8 = 0x30;
const TAPE_CAPACITY: u8 = 0x31;
/// What LTO drives had before [`DATA_COMPRESSION`] was in the standard.
const LTO_DATA_COMPRESSION: u8 = 0x32;

/// Pages beside 00h, ascending.
pub const PAGES: &[(u8, u8)] = &[
    (WRITE_ERRORS, 0),
    (READ_ERRORS, 0),
    (SEQUENTIAL_ACCESS, 0),
    (TEMPERATURE, 0),
    (DT_DEVICE_STATUS, 0),
    (TAPE_ALERT_RESPONSE, 0),
    (DEVICE_STATISTICS, 0),
    (VOLUME_STATISTICS, 0),
    (DATA_COMPRESSION, 0),
    (TAPE_ALERT, 0),
    (TAPE_USAGE, 0),
    (TAPE_CAPACITY, 0),
    (LTO_DATA_COMPRESSION, 0),
    (sums::LOG_PAGE, 0),
];
const SUPPORTED: (u8, u8) = (0, 0);
const SUPPORTED_SUBPAGES: (u8, u8) = (0, 0xFF);

const MEGABYTE: u64 = 1_000_000;
const MEBIBYTE: u64 = 1 << 20;

/// LOG SELECT: PCR begins all counters anew, and the flags of TapeAlert. There is nothing to be set.
pub fn log_select(tape: &Tape, task: &Task) -> Reply {
    let cdb: LogSelectCdb = task.cdb.read();
    let (code, subpage) = (cdb.page & 0x3F, cdb.subpage);
    if cdb.parameter_list_length.get() != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(7)));
    }
    if (code, subpage) != SUPPORTED && !PAGES.contains(&(code, subpage)) {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 5)));
    }
    if cdb.reset() {
        tape.with_drive(|drive| {
            drive.counters = Counters::NONE;
            drive.alerts = 0;
        });
        tape.common.attentions.establish_for_all(&Sense::LOG_PARAMETERS_CHANGED, Some(task.nexus.id));
    }
    Ok(Response::good())
}

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
            let parameters = tape.with_drive(|drive| parameters(tape, drive, code));
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

fn parameters(tape: &Tape, drive: &mut Drive, code: u8) -> Vec<Vec<u8>> {
    let counters = drive.counters;
    match code {
        WRITE_ERRORS => error_counters(counters.total.written, counters.write_errors),
        READ_ERRORS => error_counters(counters.total.read, counters.read_errors),
        SEQUENTIAL_ACCESS => sequential_access(drive),
        TEMPERATURE => vec![log::binary_parameter(0, &[0, 0xFF])],
        DT_DEVICE_STATUS => device_status(tape, drive),
        TAPE_ALERT_RESPONSE => vec![log::binary_parameter(0, &drive.alerts.reverse_bits().to_be_bytes())],
        DEVICE_STATISTICS => device_statistics(tape),
        VOLUME_STATISTICS => volume_statistics(drive),
        DATA_COMPRESSION | LTO_DATA_COMPRESSION => data_compression(tape, drive),
        TAPE_USAGE => tape_usage(drive),
        TAPE_CAPACITY => tape_capacity(drive),
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

/// Bytes from and to initiators and the medium, and room. SSC-4, "Sequential-Access Device log page".
fn sequential_access(drive: &Drive) -> Vec<Vec<u8>> {
    let total = drive.counters.total;
    let mut parameters = vec![
        counter(0x0000, total.written),
        counter(0x0001, total.stored_written),
        counter(0x0002, total.stored_read),
        counter(0x0003, total.read),
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

/// SSC-4, "DT Device Status log page": very high frequency data, and how often to look for it, in milliseconds.
fn device_status(tape: &Tape, drive: &Drive) -> Vec<Vec<u8>> {
    const PAMR: u8 = 0x80;
    const CMPR: u8 = 0x10;
    const WRTP: u8 = 0x08;
    const DINIT: u8 = 0x01;
    const MPRSNT: u8 = 0x10;
    const MSTD_MTHRD_MOUNTED: u8 = 0x07;
    const POLLING_DELAY_MS: u16 = 100;
    let shown = drive.shown();
    let prevented = if tape.removal_prevented() { PAMR } else { 0 };
    let compresses = if tape.settings().compress { CMPR } else { 0 };
    let protect = if shown.write_protected { WRTP } else { 0 };
    let mounted = if shown.status.loaded { MSTD_MTHRD_MOUNTED } else { 0 };
    let present = if shown.seated.is_some() { MPRSNT } else { 0 };
    let data = [DINIT | protect | prevented | compresses, present | mounted, 0, 0];
    vec![log::binary_parameter(0, &data), log::binary_parameter(1, &POLLING_DELAY_MS.to_be_bytes())]
}

/// Serial numbers, and whether the removal of the medium is prevented. Nothing is kept of the drive's life but this. SSC-4, "Device
/// Statistics log page".
fn device_statistics(tape: &Tape) -> Vec<Vec<u8>> {
    let serial = tape.common.identity.serial.as_bytes();
    vec![
        log::binary_parameter(0x0040, serial),
        log::binary_parameter(0x0041, serial),
        log::binary_parameter(0x0080, &[u8::from(tape.removal_prevented())]),
    ]
}

/// Loads, errors, traffic, room and label of the medium. SSC-4, "Volume Statistics log page".
fn volume_statistics(drive: &Drive) -> Vec<Vec<u8>> {
    let Ok(cartridge) = drive.cartridge() else { return vec![log::binary_parameter(0x0000, &[0])] };
    let (metadata, memory) = (cartridge.metadata(), &cartridge.metadata().memory);
    let partitions = cartridge.partitions();
    let room = |of: fn(&Partition) -> u64| partitions.iter().map(move |partition| of(partition) / MEGABYTE);
    let capacity: fn(&Partition) -> u64 = |partition| partition.limits().capacity;
    let used: fn(&Partition) -> u64 = |partition| partition.end().offset;
    let left: fn(&Partition) -> u64 = |partition| partition.limits().early_warning.saturating_sub(partition.end().offset);
    let mut barcode = metadata.barcode.clone().into_bytes();
    barcode.resize(32, b' ');
    let traffic = drive.counters.of_load;
    vec![
        log::binary_parameter(0x0000, &[1]),
        counter(0x0001, memory.loads),
        counter(0x0004, memory.write_errors),
        counter(0x0009, memory.read_errors),
        counter(0x000E, traffic.written / MEGABYTE),
        counter(0x000F, traffic.read / MEGABYTE),
        counter(0x0010, memory.written / MEGABYTE),
        counter(0x0011, memory.read / MEGABYTE),
        counter(0x0016, room(capacity).sum()),
        counter(0x0017, room(used).sum()),
        log::binary_parameter(0x0040, &barcode),
        log::binary_parameter(0x0042, &barcode),
        log::binary_parameter(0x0080, &[u8::from(!cartridge.writable())]),
        log::binary_parameter(0x0081, &[u8::from(metadata.worm)]),
        partition_records(0x0202, room(capacity)),
        partition_records(0x0203, room(used)),
        partition_records(0x0204, room(left)),
    ]
}

/// How much shorter records became, times 100, and what went by. SSC-4, "Data Compression log page".
fn data_compression(tape: &Tape, drive: &Drive) -> Vec<Vec<u8>> {
    let total = drive.counters.total;
    let ratio = |data: u64, stored: u64| match stored {
        0 => 100_u16,
        _ => u16::try_from(u128::from(data) * 100 / u128::from(stored)).unwrap_or(u16::MAX),
    };
    let mut parameters = vec![
        log::binary_parameter(0x0000, &ratio(total.read, total.stored_read).to_be_bytes()),
        log::binary_parameter(0x0001, &ratio(total.written, total.stored_written).to_be_bytes()),
    ];
    for (code, bytes) in (0x0002..).step_by(2).zip([total.read, total.stored_read, total.written, total.stored_written]) {
        let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
        parameters.push(log::binary_parameter(code, &part(bytes / MEGABYTE)));
        parameters.push(log::binary_parameter(code + 1, &part(bytes % MEGABYTE)));
    }
    parameters.push(log::binary_parameter(0x0100, &[u8::from(tape.settings().compress)]));
    parameters
}

/// Bytes that make a data set: a file has none, so these are as many as the bytes would fill.
const DATA_SET: u64 = 2_472_960;

/// What the cartridge has seen in its life; zeros without a medium. Retries and suspensions are of real tape: there are none. LTO, "Tape
/// Usage log page", with the widths that programs expect.
fn tape_usage(drive: &Drive) -> Vec<Vec<u8>> {
    let none = Memory::default();
    let memory = drive.cartridge().map_or(&none, |cartridge| &cartridge.metadata().memory);
    let four = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
    let two = |value: u64| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
    let eight = |value: u64| value.to_be_bytes();
    vec![
        log::binary_parameter(0x0001, &four(memory.loads)),
        log::binary_parameter(0x0002, &eight(memory.written.div_ceil(DATA_SET))),
        log::binary_parameter(0x0003, &four(0)),
        log::binary_parameter(0x0004, &two(memory.write_errors)),
        log::binary_parameter(0x0005, &two(0)),
        log::binary_parameter(0x0006, &two(0)),
        log::binary_parameter(0x0007, &eight(memory.read.div_ceil(DATA_SET))),
        log::binary_parameter(0x0008, &four(0)),
        log::binary_parameter(0x0009, &two(memory.read_errors)),
        log::binary_parameter(0x000A, &two(0)),
        log::binary_parameter(0x000B, &two(0)),
    ]
}

/// Room left and room there is, by partition, in 2^20 bytes; zeros without a medium. LTO, "Tape Capacity log page".
fn tape_capacity(drive: &Drive) -> Vec<Vec<u8>> {
    let room = |partition: usize| {
        let partition = drive.cartridge().ok().and_then(|cartridge| cartridge.partitions().get(partition));
        partition.map_or((0, 0), |partition| {
            let size = partition.limits().early_warning;
            (size.saturating_sub(partition.end().offset), size)
        })
    };
    let ((left_0, size_0), (left_1, size_1)) = (room(0), room(1));
    let value = |bytes: u64| u32::try_from(bytes / MEBIBYTE).unwrap_or(u32::MAX).to_be_bytes();
    (1..).zip([left_0, left_1, size_0, size_1]).map(|(code, bytes)| log::binary_parameter(code, &value(bytes))).collect()
}
