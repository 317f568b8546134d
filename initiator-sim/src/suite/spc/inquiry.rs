//! INQUIRY keeps to its allocation length and refuses what it does not have.

use crate::client::{Data, Residual};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("inquiry-allocation-length", "SPC-4, INQUIRY command, ALLOCATION LENGTH", Needs::Unit, |bench| {
        Box::pin(allocation_length(bench))
    }),
    Case::new("inquiry-page-code-without-evpd", "SPC-4, INQUIRY command, EVPD", Needs::Unit, |bench| {
        Box::pin(page_code_without_evpd(bench))
    }),
    Case::new("inquiry-fields", "SPC-4, Standard INQUIRY data", Needs::Unit, |bench| Box::pin(fields(bench))),
];

async fn allocation_length(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let whole = unit.inquiry().await?.raw;
    for length in [0_u8, 5, 36] {
        // Room for more than is asked for: the allocation length must cut, not the transfer.
        let reply = unit.command(&[0x12, 0, 0, 0, length, 0], Data::In(255)).await?;
        let residual = reply.residual;
        let data = check::good("INQUIRY", reply)?;
        equal_bytes(&format!("INQUIRY with allocation length {length}"), &data, &whole[..usize::from(length)])?;
        equal("residual", residual, Residual::Underflow(255 - u32::from(length)))?;
    }
    Ok(())
}

async fn page_code_without_evpd(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let reply = unit.command(&[0x12, 0, 0x83, 0, 255, 0], Data::In(255)).await?;
    check::illegal_request("INQUIRY with EVPD=0 and PAGE CODE 83h", &reply, &[INVALID_FIELD_IN_CDB])
}

async fn fields(bench: &Bench) -> Outcome {
    let inquiry = bench.unit().await?.inquiry().await?;
    let raw = &inquiry.raw;
    equal("RESPONSE DATA FORMAT", raw[3] & 0x0F, 2)?;
    ensure(raw.len() <= usize::from(raw[4]) + 5, || format!("ADDITIONAL LENGTH is {}, but {} bytes came", raw[4], raw.len()))?;
    ensure(raw[8..36].iter().all(|byte| (0x20..0x7F).contains(byte)), || {
        format!("vendor, product and revision are not ASCII: {:02x?}", &raw[8..36])
    })
}
