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
        third_party_copy: false,
        vendor: "OFFHOST",
        product: "",
        revision: "",
        versions: &[],
    };
    Ok(data_in(nobody.emit(), cdb.allocation_length.get()))
}
