//! D_SENSE of the control mode page chooses the format of sense data.

use crate::client::{ClientError, Data, LogicalUnit};
use crate::suite::check::{self, INVALID_OPERATION_CODE, Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("sense-format", "SPC-4, Control mode page, D_SENSE", Needs::Unit, |bench| Box::pin(sense_format(bench)))];

/// D_SENSE in byte 2 of the control mode page.
const D_SENSE: u8 = 0x04;

async fn sense_format(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let Some(page) = control_page(&unit, 0).await? else { return skip("no control mode page") };
    let changeable = control_page(&unit, 1).await?.is_some_and(|mask| mask[2] & D_SENSE != 0);
    let current = response_code(&unit).await?;
    equal("response code with D_SENSE as it is", current, if page[2] & D_SENSE != 0 { 0x72 } else { 0x70 })?;
    if !changeable {
        return skip("D_SENSE cannot be changed; its value and the sense data agree");
    }
    set(&unit, &page, page[2] ^ D_SENSE).await?;
    let after = response_code(&unit).await;
    // Put back before judging: others use the unit too.
    set(&unit, &page, page[2]).await?;
    equal("response code with D_SENSE toggled", after?, if page[2] & D_SENSE != 0 { 0x70 } else { 0x72 })?;
    equal("response code with D_SENSE put back", response_code(&unit).await?, current)
}

/// The control mode page as it is, where D_SENSE in it can be changed.
pub async fn changeable(unit: &LogicalUnit) -> Outcome<Option<Vec<u8>>> {
    let mask = control_page(unit, 1).await?;
    if mask.is_some_and(|mask| mask[2] & D_SENSE != 0) { control_page(unit, 0).await } else { Ok(None) }
}

/// Sets or clears D_SENSE in `page`, which [`changeable`] gave.
pub async fn choose(unit: &LogicalUnit, page: &[u8], descriptor: bool) -> Outcome {
    set(unit, page, if descriptor { page[2] | D_SENSE } else { page[2] & !D_SENSE }).await
}

/// Makes `page` the control mode page again.
pub async fn put_back(unit: &LogicalUnit, page: &[u8]) -> Outcome {
    set(unit, page, page[2]).await
}

/// The control mode page (0Ah) alone; `page_control` 0 for current, 1 for changeable values.
async fn control_page(unit: &LogicalUnit, page_control: u8) -> Outcome<Option<Vec<u8>>> {
    let cdb = [0x5A, 0x08, page_control << 6 | 0x0A, 0, 0, 0, 0, 0, 255, 0];
    match unit.good("MODE SENSE(10)", &cdb, Data::In(255)).await {
        Err(ClientError::Status { .. }) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(reply) => {
            let begin = 8 + reply.data.get(7).map_or(0, |length| usize::from(*length));
            let page = reply.data.get(begin..).unwrap_or_default();
            ensure(page.len() >= 12 && page[0] & 0x3F == 0x0A, || format!("the control mode page is {page:02x?}"))?;
            Ok(Some(page[..12].to_vec()))
        }
    }
}

async fn set(unit: &LogicalUnit, page: &[u8], flags: u8) -> Outcome {
    let mut list = vec![0; 8];
    list.extend_from_slice(page);
    // PS is reserved in MODE SELECT.
    list[8] &= 0x7F;
    list[10] = flags;
    let cdb = [0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    check::good("MODE SELECT(10) of D_SENSE", unit.command(&cdb, Data::Out(list.into())).await?).map(drop)
}

async fn response_code(unit: &LogicalUnit) -> Outcome<u8> {
    let reply = unit.command(&[0xFF; 6], Data::None).await?;
    check::illegal_request("operation code FFh", &reply, &[INVALID_OPERATION_CODE])?;
    Ok(reply.sense_data.first().map_or(0, |code| code & 0x7F))
}
