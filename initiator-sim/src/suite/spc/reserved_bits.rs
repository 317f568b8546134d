//! Who checks reserved bits says which byte was wrong.
//!
//! SPC-4 lets a device ignore reserved fields: then the case is skipped. A refusal must be INVALID FIELD IN CDB, and its field
//! pointer, where there is one, must name the byte.

use crate::client::Data;
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, skip};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::{FieldPointer, Status};

pub const CASES: &[Case] = &[Case::new("reserved-bits", "SPC-4, Field pointer sense key specific data", Needs::Unit, |bench| {
    Box::pin(reserved_bits(bench))
})];

async fn reserved_bits(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let commands: [(&str, &[u8], u16, u32); 4] = [
        ("TEST UNIT READY", &[0, 0, 0, 0x40, 0, 0], 3, 0),
        ("INQUIRY", &[0x12, 0x80, 0, 0, 36, 0], 1, 36),
        ("REQUEST SENSE", &[3, 0, 0x01, 0, 18, 0], 2, 18),
        ("REPORT LUNS", &[0xA0, 0x01, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0], 1, 1024),
    ];
    let mut checked = 0;
    for (name, cdb, byte_at_fault, room) in commands {
        let reply = unit.command(cdb, if room == 0 { Data::None } else { Data::In(room) }).await?;
        if reply.status == Status::Good {
            continue;
        }
        checked += 1;
        let what = format!("{name} with a reserved bit in byte {byte_at_fault}");
        check::illegal_request(&what, &reply, &[INVALID_FIELD_IN_CDB])?;
        let field = reply.sense.as_ref().and_then(|sense| sense.field);
        ensure(field.is_none_or(|field| matches!(field, FieldPointer::Cdb { byte, .. } if byte == byte_at_fault)), || {
            format!("{what}: the field pointer says {field:?}")
        })?;
    }
    if checked == 0 { skip("the target ignores reserved bits, as it may") } else { Ok(()) }
}
