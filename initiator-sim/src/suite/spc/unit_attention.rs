//! A nexus is told why it has to begin anew, once, and by the commands that may tell it.

use crate::client::{Client, Data, LogicalUnit, Options};
use crate::suite::check::{self, Outcome, ensure, refused, skip};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::{Sense, SenseKey};

pub const CASES: &[Case] = &[
    Case::new(
        "nexus-loss-told",
        "RFC 7143, Loss of Nexus notification; SAM-5, Unit attention conditions",
        Needs::Unit,
        |bench| Box::pin(told(bench)),
    ),
    Case::new("nexus-loss-sensed", "SPC-4, REQUEST SENSE command; SAM-5, Unit attention conditions", Needs::Unit, |bench| {
        Box::pin(sensed(bench))
    }),
];

/// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED stands for its closer descriptions, of which I_T NEXUS LOSS OCCURRED is one.
const BEGIN_ANEW: &[(u8, u8)] = &[(0x29, 0x07), (0x29, 0x00), (0x29, 0x01)];

const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// A session in the place of one that was logged out: of the same I_T nexus, which so was lost.
async fn back(bench: &Bench) -> Outcome<LogicalUnit> {
    // Locally administered: of no other session of this process.
    let isid = Some([0x80, 0x0F, 0xFB, 0x05, 0, 1]);
    let options = Options { isid, ..bench.devices().options.clone() };
    let former = Client::connect(&bench.devices().unit, options.clone()).await?;
    former.unit().test_unit_ready().await.ok();
    former.logout().await?;
    Ok(Client::connect(&bench.devices().unit, options).await?.unit())
}

/// INQUIRY and REPORT LUNS neither report nor clear the condition; the first other command does both.
async fn told(bench: &Bench) -> Outcome {
    let unit = back(bench).await?;
    unit.inquiry().await?;
    unit.report_luns().await?;
    refused(
        "TEST UNIT READY after a loss of nexus",
        &unit.command(&TEST_UNIT_READY, Data::None).await?,
        SenseKey::UnitAttention,
        BEGIN_ANEW,
    )?;
    let again = unit.command(&TEST_UNIT_READY, Data::None).await?;
    let same = again.sense.as_ref().is_some_and(|sense| sense.key == SenseKey::UnitAttention && BEGIN_ANEW.contains(&sense.code));
    ensure(!same, || format!("told twice: {}", check::told(&again)))
}

/// REQUEST SENSE gives the condition as data, and so clears it.
async fn sensed(bench: &Bench) -> Outcome {
    let unit = back(bench).await?;
    let parse = |data: &[u8]| Sense::parse(data).map_err(|error| check::Stop::Fail(error.to_string()));
    let sense = parse(&unit.request_sense(false).await?)?;
    if sense.key == SenseKey::NoSense {
        // SPC-4 lets a device server leave pending unit attentions to other commands.
        return skip("REQUEST SENSE does not report unit attentions");
    }
    ensure(sense.key == SenseKey::UnitAttention && BEGIN_ANEW.contains(&sense.code), || format!("REQUEST SENSE gives {sense}"))?;
    let again = parse(&unit.request_sense(false).await?)?;
    ensure(!BEGIN_ANEW.contains(&again.code), || format!("told twice: {again}"))
}
