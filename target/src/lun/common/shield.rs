//! Read-only access: what an initiator may not send to a logical unit that it sees but must not write.
//!
//! Goes by the command, since the medium itself takes writes: of other nexuses. What a copy writes is checked where copies are
//! planned. SBC-4 and SSC-4, "write protect": such a command ends with WRITE PROTECTED, and WP in the mode parameter header says so
//! before.

use protocol::scsi::{Cdb, DeviceType, Sense};

use crate::task::Task;

/// WP of the device-specific parameter: the same bit for disks and tapes.
pub(super) const WP: u8 = 0x80;

/// True when the nexus may not write the logical unit. Never so for devices that have no medium of their own.
pub(super) fn is_shielded(task: &Task, device: DeviceType) -> bool {
    matches!(device, DeviceType::Disk | DeviceType::Tape) && task.nexus.luns.is_read_only(task.lun)
}

/// Lets a command through that does not write, and every command of those who may.
pub(super) fn admit(task: &Task, device: DeviceType) -> Result<(), Sense> {
    if writes(&task.cdb, device) && is_shielded(task, device) { Err(Sense::WRITE_PROTECTED) } else { Ok(()) }
}

/// True when a command changes what is on the medium.
#[rustfmt::skip]
fn writes(cdb: &Cdb, device: DeviceType) -> bool {
    let bytes = cdb.padded();
    let action = bytes[1] & 0x1F;
    match (device, bytes[0]) {
        (DeviceType::Disk, opcode) => match opcode {
            0x04 | 0x07 => true,                                // FORMAT UNIT, REASSIGN BLOCKS
            0x0A | 0x2A | 0xAA | 0x8A => true,                  // WRITE
            0x2E | 0xAE | 0x8E => true,                         // WRITE AND VERIFY
            0x3F => true,                                       // WRITE LONG(10)
            0x9F => action == 0x11,                             // WRITE LONG(16)
            0x41 | 0x93 => true,                                // WRITE SAME
            0x42 | 0x48 => true,                                // UNMAP, SANITIZE
            0x89 | 0x8B | 0x9C => true,                         // COMPARE AND WRITE, ORWRITE(16), WRITE ATOMIC(16)
            0x83 => action == 0x11,                             // WRITE USING TOKEN
            // Of the commands of 32 bytes READ, VERIFY and PRE-FETCH do not write.
            0x7F => !matches!((bytes[8], bytes[9]), (0, 0x09 | 0x0A)),
            _ => false,
        },
        (DeviceType::Tape, opcode) => match opcode {
            0x04 => true,                                       // FORMAT MEDIUM
            0x0A | 0x8A => true,                                // WRITE
            0x10 | 0x80 => true,                                // WRITE FILEMARKS
            0x0B => true,                                       // SET CAPACITY
            0x19 | 0x93 => true,                                // ERASE
            0x8D => true,                                       // WRITE ATTRIBUTE
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::scsi::conflict::Rule;
    use protocol::scsi::{sbc, ssc};

    /// Two tables that must agree: what passes a reservation that lets readers through writes nothing.
    #[test]
    fn what_is_let_through_as_a_read_elsewhere_is_none_of_these() {
        let rows = sbc::COMMANDS.iter().map(|spec| (spec, DeviceType::Disk));
        for (spec, device) in rows.chain(ssc::COMMANDS.iter().map(|spec| (spec, DeviceType::Tape))) {
            let action = spec.service_action.unwrap_or(0) as u8;
            let cdb = Cdb::new(&[spec.opcode, action, 0, 0, 0, 0, 0, 0, 0, action, 0, 0, 0, 0, 0, 0]).unwrap();
            if writes(&cdb, device) {
                assert!(!Rule::has_row(spec), "{}", spec.name);
            } else {
                assert!(!spec.name.starts_with("WRITE") && !spec.name.starts_with("ERASE"), "{}", spec.name);
            }
        }
    }
}
