//! What answers where no logical unit is.
//!
//! INQUIRY, REQUEST SENSE and, at LUN 0, REPORT LUNS are answered, so that an initiator finds the logical units that there are.
//! Follows SPC-4, "INQUIRY command" (peripheral qualifier 011b) and SAM-5, "Incorrect logical unit numbers for commands".

use protocol::scsi::inquiry::StandardInquiry;
use protocol::scsi::{CommandSpec, FieldPointer, Sense, SenseFormat, spc};

use super::common::{Reply, data_in, report_luns};
use crate::task::{Response, Task};

/// Answers a command sent to an address at which the nexus has no logical unit.
#[must_use]
pub fn absent(task: &Task) -> Response {
    answer(task).unwrap_or_else(Response::from)
}

fn answer(task: &Task) -> Reply {
    let known = |spec: &CommandSpec| match spec.refused_bit(&task.cdb) {
        Some(bit) => Err(Sense::INVALID_FIELD_IN_CDB.at(bit)),
        None => Ok(()),
    };
    if spc::INQUIRY.matches(&task.cdb) {
        known(&spc::INQUIRY)?;
        inquiry(task)
    } else if spc::REQUEST_SENSE.matches(&task.cdb) {
        known(&spc::REQUEST_SENSE)?;
        let cdb: spc::RequestSenseCdb = task.cdb.read();
        let format = if cdb.descriptor() { SenseFormat::Descriptor } else { SenseFormat::Fixed };
        Ok(data_in(Sense::LOGICAL_UNIT_NOT_SUPPORTED.emit(format), cdb.allocation_length))
    } else if spc::REPORT_LUNS.matches(&task.cdb) && task.lun.number() == Some(0) {
        known(&spc::REPORT_LUNS)?;
        report_luns(task)
    } else {
        Err(Sense::LOGICAL_UNIT_NOT_SUPPORTED)
    }
}

fn inquiry(task: &Task) -> Reply {
    let cdb: spc::InquiryCdb = task.cdb.read();
    if cdb.vital_product_data() || cdb.page_code != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(if cdb.vital_product_data() { 1 } else { 2 })));
    }
    let nobody = StandardInquiry {
        device_type: None,
        removable: false,
        implicit_asymmetric_access: false,
        third_party_copy: false,
        vendor: "OFFHOST",
        product: "",
        revision: "",
        versions: &[],
    };
    Ok(data_in(nobody.emit(), cdb.allocation_length.get()))
}

#[cfg(test)]
mod tests {
    use protocol::scsi::{LunAddress, Status};
    use protocol::wire::hex;

    use super::*;
    use crate::lun::Device;
    use crate::lun::testing::{MemoryStore, disk_on, nexus, task};

    fn ask(lun: LunAddress, cdb: &str) -> Response {
        let (disk, _) = disk_on(MemoryStore::new(4096).into(), 512);
        let nexus = nexus(1, &[Device::Disk(disk.clone()), Device::Disk(disk)]);
        absent(&Task { lun, ..task(&nexus, cdb, Vec::new()) })
    }

    #[test]
    fn inquiry_says_that_no_device_can_be_there() {
        let response = ask(LunAddress::from_number(7), "12 00 00 00ff 00");
        assert_eq!(response.status, Status::Good);
        assert_eq!(response.data_in[0][0], 0x7F);
        let pages = ask(LunAddress::from_number(7), "12 01 00 00ff 00");
        assert_eq!(pages.sense, Some(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(1))));
    }

    #[test]
    fn the_logical_units_that_there_are_are_told_at_lun_0_only() {
        let luns = ask(LunAddress::from_number(0), "a0 00 00 000000 00000100 00 00");
        assert_eq!(luns.data_in.concat(), hex("00000010 00000000  0000000000000000 0001000000000000"));
        let elsewhere = ask(LunAddress::from_number(7), "a0 00 00 000000 00000100 00 00");
        assert_eq!(elsewhere.sense, Some(Sense::LOGICAL_UNIT_NOT_SUPPORTED));
    }

    #[test]
    fn everything_else_is_refused_and_request_sense_tells_why() {
        let two_levels = LunAddress([0, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(ask(two_levels, "28 00 00000000 00 0001 00").sense, Some(Sense::LOGICAL_UNIT_NOT_SUPPORTED));
        let told = ask(two_levels, "03 00 0000 ff 00");
        assert_eq!(told.data_in.concat(), Sense::LOGICAL_UNIT_NOT_SUPPORTED.fixed());
    }
}
