//! READ ATTRIBUTE and WRITE ATTRIBUTE: the memory chip of the cartridge that is loaded.
//!
//! Attributes of the drive and of the medium are told as they are now, those of programs as they were written. There is one logical
//! volume. Follows SPC-4, "Medium auxiliary memory attributes".

use protocol::scsi::attribute::{self, Attribute, HOST_ATTRIBUTES};
use protocol::scsi::ssc::AttributeCdb;
use protocol::scsi::{FieldPointer, Sense};

use super::drive::Drive;
use super::{Tape, density};
use crate::cartridge::memory::DRIVES_REMEMBERED;
use crate::cartridge::{Cartridge, WriteError};
use crate::lun::common::{Reply, data_in, parameter_list};
use crate::task::{Response, Task};

/// Bytes of the chip: that of an LTO cartridge.
const CHIP: usize = 16_384;
/// Of them, bytes for what programs write.
const CHIP_FOR_HOSTS: usize = 8_192;

const MEBIBYTE: u64 = 1 << 20;
const MEGABYTE: u64 = 1_000_000;
const REMAINING_CAPACITY: u16 = 0x0000;
const TAPE_ALERT_FLAGS: u16 = 0x0002;
const VOLUME_CHANGE_REFERENCE: u16 = 0x0009;

/// READ ATTRIBUTE, ATTRIBUTE VALUES. The first attribute asked for must be there.
pub fn values(tape: &Tape, task: &Task) -> Reply {
    let cdb: AttributeCdb = task.cdb.read();
    tape.with_medium(|drive| {
        let attributes = from(drive, &cdb)?;
        if attributes.first().is_none_or(|first| first.id != cdb.first.get()) {
            return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(8)));
        }
        // Whoever was told the reference notices the next change by another.
        let told = attributes.iter().any(|attribute| attribute.id == VOLUME_CHANGE_REFERENCE);
        if told {
            drive.cartridge_mut()?.reference_told();
        }
        Ok(data_in(attribute::values(&attributes), cdb.length.get()))
    })
}

/// READ ATTRIBUTE, ATTRIBUTE LIST.
pub fn list(tape: &Tape, task: &Task) -> Reply {
    let cdb: AttributeCdb = task.cdb.read();
    tape.with_medium(|drive| {
        let ids = from(drive, &cdb)?.into_iter().map(|attribute| attribute.id);
        Ok(data_in(attribute::identifiers(ids), cdb.length.get()))
    })
}

/// READ ATTRIBUTE, SUPPORTED ATTRIBUTES: those there are, and those that programs may write.
pub fn supported(tape: &Tape, task: &Task) -> Reply {
    let cdb: AttributeCdb = task.cdb.read();
    tape.with_medium(|drive| {
        let partition = partition(drive, &cdb)?;
        let own = own(drive, partition)?;
        let hosts = HOST_ATTRIBUTES.iter().filter(|row| row.ids.0 == row.ids.1).map(|row| row.ids.0);
        let ids = own.iter().map(|attribute| attribute.id).chain(hosts).filter(|id| *id >= cdb.first.get());
        Ok(data_in(attribute::identifiers(ids), cdb.length.get()))
    })
}

/// READ ATTRIBUTE, LOGICAL VOLUME LIST.
pub fn volumes(tape: &Tape, task: &Task) -> Reply {
    let cdb: AttributeCdb = task.cdb.read();
    tape.with_medium(|drive| drive.cartridge().map(|_| data_in(attribute::numbers(1), cdb.length.get())))
}

/// READ ATTRIBUTE, PARTITION LIST.
pub fn partitions(tape: &Tape, task: &Task) -> Reply {
    let cdb: AttributeCdb = task.cdb.read();
    logical_volume(&cdb)?;
    tape.with_medium(|drive| {
        let count = drive.cartridge()?.partitions().len() as u8;
        Ok(data_in(attribute::numbers(count), cdb.length.get()))
    })
}

/// WRITE ATTRIBUTE: all of the list, or nothing.
pub fn write(tape: &Tape, task: &Task) -> Reply {
    let cdb: AttributeCdb = task.cdb.read();
    logical_volume(&cdb)?;
    let list = parameter_list(task, cdb.length.get() as usize)?;
    tape.with_medium(|drive| {
        let partition = partition(drive, &cdb)?;
        if list.is_empty() {
            return Ok(Response::good());
        }
        let attributes = attribute::parse(&list)?;
        let mut memory = drive.cartridge()?.metadata().memory.clone();
        attributes.into_iter().for_each(|attribute| memory.set(partition, attribute));
        if memory.used() > CHIP_FOR_HOSTS {
            return Err(Sense::AUXILIARY_MEMORY_OUT_OF_SPACE);
        }
        let changed = drive.cartridge_mut()?.change(|metadata| metadata.memory = memory);
        changed.map_err(|error| match error.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => drive.write_sense(&WriteError::Protected),
            _ => drive.write_sense(&WriteError::Io(error)),
        })?;
        Ok(Response::good())
    })
}

fn logical_volume(cdb: &AttributeCdb) -> Result<(), Sense> {
    if cdb.logical_volume == 0 { Ok(()) } else { Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(5))) }
}

fn partition(drive: &Drive, cdb: &AttributeCdb) -> Result<usize, Sense> {
    logical_volume(cdb)?;
    let partition = usize::from(cdb.partition);
    let there = partition < drive.cartridge()?.partitions().len();
    if there { Ok(partition) } else { Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(7))) }
}

/// The attributes from FIRST ATTRIBUTE IDENTIFIER on.
fn from(drive: &Drive, cdb: &AttributeCdb) -> Result<Vec<Attribute>, Sense> {
    let partition = partition(drive, cdb)?;
    let mut attributes = own(drive, partition)?;
    attributes.extend(drive.cartridge()?.metadata().memory.host_attributes(partition).cloned());
    attributes.retain(|attribute| attribute.id >= cdb.first.get());
    Ok(attributes)
}

/// Attributes of the drive and of the medium, ascending.
fn own(drive: &Drive, partition: usize) -> Result<Vec<Attribute>, Sense> {
    let cartridge = drive.cartridge()?;
    let mut attributes = of_the_drive(drive, cartridge, partition);
    attributes.extend(of_the_medium(cartridge));
    Ok(attributes)
}

fn of_the_drive(drive: &Drive, cartridge: &Cartridge, partition: usize) -> Vec<Attribute> {
    let (metadata, memory) = (cartridge.metadata(), &cartridge.metadata().memory);
    let image = &cartridge.partitions()[partition];
    let left = image.limits().capacity.saturating_sub(image.end().offset) / MEBIBYTE;
    let number = |id, value: u64| Attribute::number(id, value.to_be_bytes());
    let free = CHIP_FOR_HOSTS.saturating_sub(memory.used()) as u64;
    let mut attributes = vec![
        number(REMAINING_CAPACITY, left),
        number(0x0001, image.limits().capacity / MEBIBYTE),
        // As TapeAlert's log page has them, flag 1 the highest bit.
        number(TAPE_ALERT_FLAGS, drive.alerts.reverse_bits()),
        number(0x0003, memory.loads),
        number(0x0004, free),
        Attribute::ascii(0x0005, density::of_medium(metadata.density, 0).organization, 8),
        Attribute::number(0x0006, [metadata.density]),
        Attribute::number(0x0007, memory.initializations.to_be_bytes()),
        Attribute::ascii(0x0008, &metadata.barcode, 32),
        Attribute::number(VOLUME_CHANGE_REFERENCE, memory.change_reference.to_be_bytes()),
    ];
    let drives = (0x020A..).zip(memory.drives.iter().map(String::as_str).chain(std::iter::repeat("")));
    attributes.extend(drives.take(DRIVES_REMEMBERED).map(|(id, name)| Attribute::ascii(id, name, 40)));
    attributes.extend([
        number(0x0220, memory.written / MEGABYTE),
        number(0x0221, memory.read / MEGABYTE),
        number(0x0222, drive.counters.of_load.written / MEGABYTE),
        number(0x0223, drive.counters.of_load.read / MEGABYTE),
    ]);
    attributes
}

fn of_the_medium(cartridge: &Cartridge) -> Vec<Attribute> {
    const WORM: u8 = 0x80;
    /// In tenths of a millimetre.
    const WIDTH: u32 = 127;
    let metadata = cartridge.metadata();
    vec![
        Attribute::ascii(0x0400, "OFFHOST", 8),
        Attribute::ascii(0x0401, &metadata.barcode, 32),
        Attribute::number(0x0403, WIDTH.to_be_bytes()),
        Attribute::ascii(0x0404, density::of_medium(metadata.density, 0).organization, 8),
        Attribute::number(0x0405, [metadata.density]),
        Attribute::number(0x0407, (CHIP as u64).to_be_bytes()),
        Attribute::number(0x0408, [if metadata.worm { WORM } else { 0 }]),
        Attribute::number(0x0409, [0, 0]),
    ]
}
