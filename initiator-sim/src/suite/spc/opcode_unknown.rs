//! An operation code that the device does not have.

use crate::client::Data;
use crate::suite::check::{self, INVALID_OPERATION_CODE, Outcome};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("opcode-unknown", "SPC-4, Invalid operation code; SAM-5, Command lifetime", Needs::Unit, |bench| {
        Box::pin(opcode_unknown(bench))
    })];

async fn opcode_unknown(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    // Vendor specific codes of the last group: no standard gives them a meaning.
    for opcode in [0xEF_u8, 0xFE, 0xFF] {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        let reply = unit.command(&cdb, Data::None).await?;
        check::illegal_request(&format!("operation code {opcode:02X}h"), &reply, &[INVALID_OPERATION_CODE])?;
        // With data announced the answer is the same, and nothing hangs.
        let reply = unit.command(&cdb, Data::In(512)).await?;
        check::illegal_request(&format!("operation code {opcode:02X}h with Data-In"), &reply, &[INVALID_OPERATION_CODE])?;
        let reply = unit.command(&cdb, Data::Out(vec![0; 512].into())).await?;
        check::illegal_request(&format!("operation code {opcode:02X}h with Data-Out"), &reply, &[INVALID_OPERATION_CODE])?;
    }
    // The session has survived it.
    unit.inquiry().await?;
    Ok(())
}
