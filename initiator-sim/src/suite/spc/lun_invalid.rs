//! An address without a logical unit still answers the three commands that SPC-4 names.

use std::time::Duration;

use crate::client::Data;
use crate::suite::check::{self, LOGICAL_UNIT_NOT_SUPPORTED, Outcome, ensure, equal};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::{LunAddress, Sense, SenseKey, Status};

pub const CASES: &[Case] = &[
    Case::new("lun-invalid", "SAM-5, Incorrect logical unit numbers; SPC-4, INQUIRY", Needs::Unit, |bench| {
        Box::pin(lun_invalid(bench))
    }),
    Case::new("lun-address-form-unknown", "SAM-5, Logical unit number, Incorrect LUNs", Needs::Unit, |bench| {
        Box::pin(address_form(bench))
    }),
];

async fn lun_invalid(bench: &Bench) -> Outcome {
    let own = bench.unit().await?;
    let used: Vec<_> = own.report_luns().await?.into_iter().filter_map(LunAddress::number).collect();
    let free = (1..256).rev().find(|number| !used.contains(number)).expect("a target has fewer than 255 LUNs");
    let unit = own.client().lun(free);

    let inquiry = check::good("INQUIRY to a free LUN", unit.command(&[0x12, 0, 0, 0, 255, 0], Data::In(255)).await?)?;
    equal("PERIPHERAL QUALIFIER and DEVICE TYPE of a free LUN", inquiry.first().copied(), Some(0x7F))?;

    let reply = unit.command(&[0; 6], Data::None).await?;
    check::illegal_request("TEST UNIT READY to a free LUN", &reply, &[LOGICAL_UNIT_NOT_SUPPORTED])?;

    let reply = unit.command(&[3, 0, 0, 0, 252, 0], Data::In(252)).await?;
    if reply.status == Status::CheckCondition {
        return check::illegal_request("REQUEST SENSE to a free LUN", &reply, &[LOGICAL_UNIT_NOT_SUPPORTED]);
    }
    let sense = Sense::parse(&reply.data).map_err(|error| check::Stop::Fail(format!("REQUEST SENSE: {error}")))?;
    equal("sense of a free LUN", (sense.key, sense.code), (SenseKey::IllegalRequest, LOGICAL_UNIT_NOT_SUPPORTED))
}

async fn address_form(bench: &Bench) -> Outcome {
    let client = bench.unit().await?.client().clone();
    // Extended logical unit addressing of a form that no standard assigns.
    let address = LunAddress([0xFE, 0xED, 1, 2, 3, 4, 5, 6]);
    let reply = client.command_at(address, &[0; 6], Data::None, Duration::from_secs(20)).await?;
    check::illegal_request("TEST UNIT READY to an address of unknown form", &reply, &[LOGICAL_UNIT_NOT_SUPPORTED])?;
    let reply = client.command_at(address, &[0x12, 0, 0, 0, 36, 0], Data::In(36), Duration::from_secs(20)).await?;
    let first = reply.data.first().copied();
    ensure(reply.status != Status::Good || first.is_some_and(|first| first >> 5 == 3), || {
        format!("INQUIRY to an address of unknown form says that a unit is there: {first:02x?}")
    })
}
