//! Read-only access: what an initiator may not send to a logical unit that it sees but must not write.
//!
//! Goes by the command's row, since the medium itself takes writes: of other nexuses. What a copy writes is checked where copies are
//! planned. SBC-4 and SSC-4, "write protect": such a command ends with WRITE PROTECTED, and WP in the mode parameter header says so
//! before.

use protocol::scsi::{CommandSpec, DeviceType, Sense};

use crate::task::Task;

/// WP of the device-specific parameter: the same bit for disks and tapes.
pub(super) const WP: u8 = 0x80;

/// True when the nexus may not write the logical unit. Never so for devices that have no medium of their own.
pub(super) fn is_shielded(task: &Task, device: DeviceType) -> bool {
    matches!(device, DeviceType::Disk | DeviceType::Tape) && task.nexus.luns.is_read_only(task.lun)
}

/// Lets a command through that does not write, and every command of those who may.
pub(super) fn admit(task: &Task, spec: &CommandSpec, device: DeviceType) -> Result<(), Sense> {
    if spec.writes && is_shielded(task, device) { Err(Sense::WRITE_PROTECTED) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use protocol::scsi::{sbc, spc, ssc};

    /// A row whose flag is forgotten would let a reader write.
    #[test]
    fn what_is_called_after_writing_is_said_to_write() {
        let writing = ["WRITE", "ERASE", "FORMAT", "SANITIZE", "UNMAP", "COMPARE AND WRITE", "ORWRITE", "SET CAPACITY"];
        for spec in [sbc::COMMANDS, ssc::COMMANDS, spc::COMMANDS].concat() {
            let wanted = writing.iter().any(|word| spec.name.starts_with(word));
            assert_eq!(spec.writes, wanted, "{}", spec.name);
        }
    }
}
