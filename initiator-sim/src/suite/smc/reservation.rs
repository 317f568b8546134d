//! A changer that one initiator has reserved moves nothing for another, and tells it what is where.

use super::{move_medium, report, slots};
use crate::client::Data;
use crate::suite::check::{self, Outcome, equal, supported};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::Status;

pub const CASES: &[Case] =
    &[Case::new("move-reserved", "SPC-4, Reservations; RESERVE(6) of SPC-2", Needs::ScratchChanger, |bench| {
        Box::pin(reserved(bench))
    })];

async fn reserved(bench: &Bench) -> Outcome {
    let (holder, other) = (bench.changer().await?, bench.changer().await?);
    let (full, empty) = slots(&holder, 1, 1).await?;
    check::good("RESERVE(6)", supported("RESERVE(6)", holder.command(&[0x16, 0, 0, 0, 0, 0], Data::None).await?)?)?;
    let refused = move_medium(&other, full[0], empty[0]).await?;
    let moved = move_medium(&holder, full[0], empty[0]).await?;
    let back = move_medium(&holder, empty[0], full[0]).await?;
    // READ ELEMENT STATUS of one storage element, with CURDATA: nothing is moved for it.
    let told = other.command(&[0xB8, 0x02, 0, 0, 0, 1, 0x02, 0, 1, 0, 0, 0], Data::In(256)).await?;
    check::good("RELEASE(6)", holder.command(&[0x17, 0, 0, 0, 0, 0], Data::None).await?)?;
    equal("status of MOVE MEDIUM by another", refused.status, Status::ReservationConflict)?;
    check::good("READ ELEMENT STATUS with CURDATA by another", told)?;
    check::good("MOVE MEDIUM by the holder", moved)?;
    check::good("MOVE MEDIUM back", back)?;
    report(&other, 0).await.map(drop)
}
