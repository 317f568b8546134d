//! Media in drives: a drive becomes ready with what is moved into it, and keeps what somebody wants to stay.

use super::{DATA_TRANSFER, emptied_drive, move_medium, report, slots};
use crate::client::{Data, LogicalUnit};
use crate::suite::bench::{expect_record, pattern, write_records};
use crate::suite::check::{self, Outcome, ensure, equal, refused};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::SenseKey;

pub const CASES: &[Case] = &[
    Case::new("drive-ready-after-move", "SMC-3, MOVE MEDIUM command; SSC-4, Ready state", Needs::ChangerAndDrive, |bench| {
        Box::pin(ready(bench))
    }),
    Case::new("drive-unloaded-by-move", "SMC-3, MOVE MEDIUM command", Needs::ChangerAndDrive, |bench| Box::pin(unloaded(bench))),
    Case::new("drive-source-element", "SMC-3, SOURCE STORAGE ELEMENT ADDRESS field", Needs::ChangerAndDrive, |bench| {
        Box::pin(source_element(bench))
    }),
    Case::new("drive-exchange", "SMC-3, EXCHANGE MEDIUM command", Needs::ChangerAndDrive, |bench| Box::pin(exchange(bench))),
    Case::new("drive-prevents-removal", "SMC-3, MOVE MEDIUM command; SSC-4, PREVENT ALLOW", Needs::ChangerAndDrive, |bench| {
        Box::pin(prevents(bench))
    }),
    Case::new("drive-empty-after-unload", "SMC-3, FULL bit; SSC-4, LOAD UNLOAD command", Needs::ChangerAndDrive, |bench| {
        Box::pin(lies_in_the_drive(bench))
    }),
];

/// MEDIUM NOT PRESENT and its closed-tray form.
const NOT_PRESENT: [(u8, u8); 2] = [(0x3A, 0x00), (0x3A, 0x01)];
/// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
const MAY_HAVE_CHANGED: (u8, u8) = (0x28, 0x00);

async fn load(changer: &LogicalUnit, slot: u16, drive: u16) -> Outcome {
    check::good("MOVE MEDIUM into the drive", move_medium(changer, slot, drive).await?).map(drop)
}

async fn ready(bench: &Bench) -> Outcome {
    let (changer, drive, element) = emptied_drive(bench).await?;
    let (full, _) = slots(&changer, 1, 0).await?;
    let empty = drive.command(&[0; 6], Data::None).await?;
    refused("TEST UNIT READY of an empty drive", &empty, SenseKey::NotReady, &NOT_PRESENT)?;
    load(&changer, full[0], element).await?;
    let first = drive.command(&[0; 6], Data::None).await?;
    let second = drive.command(&[0; 6], Data::None).await?;
    let back = move_medium(&changer, element, full[0]).await?;
    let gone = drive.command(&[0; 6], Data::None).await?;
    refused("the first TEST UNIT READY after the move", &first, SenseKey::UnitAttention, &[MAY_HAVE_CHANGED])?;
    check::good("the second TEST UNIT READY", second)?;
    check::good("MOVE MEDIUM back", back)?;
    refused("TEST UNIT READY after the move back", &gone, SenseKey::NotReady, &NOT_PRESENT)
}

/// What was written is there when the medium comes again, though nobody unloaded it first.
async fn unloaded(bench: &Bench) -> Outcome {
    let (changer, drive, element) = emptied_drive(bench).await?;
    let (full, empty) = slots(&changer, 1, 1).await?;
    load(&changer, full[0], element).await?;
    drive.test_unit_ready().await?;
    drive.set_tape_block_length(0).await?;
    write_records(&drive, &[pattern(1, 3000), pattern(2, 100)]).await?;
    check::good("MOVE MEDIUM of a loaded medium", move_medium(&changer, element, empty[0]).await?)?;
    load(&changer, empty[0], element).await?;
    drive.test_unit_ready().await?;
    let read = async {
        drive.set_tape_block_length(0).await?;
        expect_record(&drive, "the first record", &pattern(1, 3000)).await?;
        expect_record(&drive, "the second record", &pattern(2, 100)).await
    }
    .await;
    check::good("MOVE MEDIUM back", move_medium(&changer, element, full[0]).await?)?;
    read
}

async fn source_element(bench: &Bench) -> Outcome {
    let (changer, _, element) = emptied_drive(bench).await?;
    let (full, _) = slots(&changer, 1, 0).await?;
    load(&changer, full[0], element).await?;
    let loaded = report(&changer, DATA_TRANSFER).await?;
    check::good("MOVE MEDIUM back", move_medium(&changer, element, full[0]).await?)?;
    let loaded = loaded.element(element)?;
    ensure(loaded.full(), || "FULL of the drive is clear".to_owned())?;
    equal("SOURCE STORAGE ELEMENT ADDRESS", loaded.source(), Some(full[0]))
}

/// Two media take turns in the drive, with one command.
async fn exchange(bench: &Bench) -> Outcome {
    let (changer, drive, element) = emptied_drive(bench).await?;
    let (full, _) = slots(&changer, 2, 0).await?;
    for (slot, seed) in full.iter().zip(1..) {
        load(&changer, *slot, element).await?;
        drive.test_unit_ready().await?;
        drive.set_tape_block_length(0).await?;
        write_records(&drive, &[pattern(seed, 500)]).await?;
        check::good("MOVE MEDIUM back", move_medium(&changer, element, *slot).await?)?;
    }
    load(&changer, full[0], element).await?;
    let [[s0, s1], [d0, d1]] = [full[1], element].map(u16::to_be_bytes);
    let cdb = [0xA6, 0, 0, 0, s0, s1, d0, d1, s0, s1, 0, 0];
    let exchanged = changer.command(&cdb, Data::None).await?;
    let read = async {
        drive.test_unit_ready().await?;
        expect_record(&drive, "the record of the second medium", &pattern(2, 500)).await
    }
    .await;
    let back = if exchanged.sense.is_none() { changer.command(&cdb, Data::None).await?.sense.is_none() } else { true };
    check::good("MOVE MEDIUM back", move_medium(&changer, element, full[0]).await?)?;
    check::good("EXCHANGE MEDIUM", check::supported("EXCHANGE MEDIUM", exchanged)?)?;
    ensure(back, || "the second EXCHANGE MEDIUM was refused".to_owned())?;
    read
}

async fn prevents(bench: &Bench) -> Outcome {
    /// MEDIUM REMOVAL PREVENTED, and BY DATA TRANSFER ELEMENT.
    const PREVENTED: [(u8, u8); 2] = [(0x53, 0x02), (0x53, 0x03)];
    let (changer, drive, element) = emptied_drive(bench).await?;
    let (full, _) = slots(&changer, 1, 0).await?;
    load(&changer, full[0], element).await?;
    drive.test_unit_ready().await?;
    check::good("PREVENT", drive.command(&[0x1E, 0, 0, 0, 1, 0], Data::None).await?)?;
    let kept = move_medium(&changer, element, full[0]).await?;
    check::good("ALLOW", drive.command(&[0x1E, 0, 0, 0, 0, 0], Data::None).await?)?;
    if kept.sense.is_some() {
        check::good("MOVE MEDIUM after ALLOW", move_medium(&changer, element, full[0]).await?)?;
    }
    check::illegal_request("MOVE MEDIUM of a medium that is to stay", &kept, &PREVENTED)
}

/// A medium that was unloaded lies in the drive until it is moved, and can be loaded again.
async fn lies_in_the_drive(bench: &Bench) -> Outcome {
    let (changer, drive, element) = emptied_drive(bench).await?;
    let (full, _) = slots(&changer, 1, 0).await?;
    load(&changer, full[0], element).await?;
    drive.test_unit_ready().await?;
    drive.unload().await?;
    let unloaded = report(&changer, DATA_TRANSFER).await?;
    let loaded = drive.load().await;
    check::good("MOVE MEDIUM back", move_medium(&changer, element, full[0]).await?)?;
    loaded?;
    ensure(unloaded.element(element)?.full(), || "FULL is clear though the medium lies in the drive".to_owned())
}
