//! PREVENT ALLOW MEDIUM REMOVAL and the door of the import/export elements.

use super::{IMPORT_EXPORT, INVALID_ELEMENT_ADDRESS, move_medium, report, slots};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, refused, skip, supported};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::SenseKey;

const CLAUSE: &str = "SMC-3, OPEN/CLOSE IMPORT/EXPORT ELEMENT command";

pub const CASES: &[Case] = &[
    Case::new("export-and-import", "SMC-3, Import/export element descriptor", Needs::ScratchChanger, |bench| {
        Box::pin(export_and_import(bench))
    }),
    Case::new("door-kept-shut", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(kept_shut(bench))),
    Case::new("door-open", CLAUSE, Needs::ScratchChanger, |bench| Box::pin(open(bench))),
    Case::new("prevent-reserved-value", "SMC-3, PREVENT ALLOW MEDIUM REMOVAL command", Needs::Changer, |bench| {
        Box::pin(reserved_value(bench))
    }),
];

const OPEN: u8 = 0;
const CLOSE: u8 = 1;

async fn door(changer: &LogicalUnit, element: u16, action: u8) -> Outcome<Reply> {
    let [a, b] = element.to_be_bytes();
    supported("OPEN/CLOSE IMPORT/EXPORT ELEMENT", changer.command(&[0x1B, 0, a, b, action, 0], Data::None).await?)
}

async fn prevent(changer: &LogicalUnit, prevent: u8) -> Outcome<Reply> {
    supported("PREVENT ALLOW MEDIUM REMOVAL", changer.command(&[0x1E, 0, 0, 0, prevent, 0], Data::None).await?)
}

async fn mail_slot(changer: &LogicalUnit) -> Outcome<u16> {
    let mail = report(changer, IMPORT_EXPORT).await?;
    let free = mail.elements.iter().find(|element| !element.full());
    free.map_or_else(|| skip("no import/export element is empty"), |element| Ok(element.address))
}

/// A medium that the transport brings has IMPEXP clear: no operator put it there.
async fn export_and_import(bench: &Bench) -> Outcome {
    const IMPEXP: u8 = 0x02;
    let changer = bench.changer().await?;
    let mail = mail_slot(&changer).await?;
    let (full, _) = slots(&changer, 1, 0).await?;
    check::good("MOVE MEDIUM to the import/export element", move_medium(&changer, full[0], mail).await?)?;
    let out = report(&changer, IMPORT_EXPORT).await?;
    check::good("MOVE MEDIUM back", move_medium(&changer, mail, full[0]).await?)?;
    let element = out.element(mail)?;
    ensure(element.full(), || "FULL is clear".to_owned())?;
    ensure(element.bytes[2] & IMPEXP == 0, || "IMPEXP is set, though no operator was there".to_owned())
}

async fn kept_shut(bench: &Bench) -> Outcome {
    const MEDIUM_REMOVAL_PREVENTED: (u8, u8) = (0x53, 0x02);
    let changer = bench.changer().await?;
    let mail = mail_slot(&changer).await?;
    check::good("CLOSE", door(&changer, mail, CLOSE).await?)?;
    check::good("PREVENT", prevent(&changer, 1).await?)?;
    let opened = door(&changer, mail, OPEN).await?;
    check::good("ALLOW", prevent(&changer, 0).await?)?;
    check::illegal_request("OPEN while removal is prevented", &opened, &[MEDIUM_REMOVAL_PREVENTED])
}

/// While the door is open no medium moves through it.
async fn open(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let mail = mail_slot(&changer).await?;
    let (full, _) = slots(&changer, 1, 0).await?;
    check::good("OPEN", door(&changer, mail, OPEN).await?)?;
    let moved = move_medium(&changer, full[0], mail).await?;
    check::good("CLOSE", door(&changer, mail, CLOSE).await?)?;
    if moved.sense.is_none() {
        move_medium(&changer, mail, full[0]).await?;
    }
    let key = moved.sense.as_ref().map_or(SenseKey::NoSense, |sense| sense.key);
    let known = matches!(key, SenseKey::IllegalRequest | SenseKey::NotReady);
    refused("MOVE MEDIUM through an open door", &moved, if known { key } else { SenseKey::IllegalRequest }, &[])?;
    check::illegal_request("OPEN of a slot", &door(&changer, full[0], OPEN).await?, &[INVALID_ELEMENT_ADDRESS])?;
    check::illegal_request("action 1Fh", &door(&changer, mail, 0x1F).await?, &[INVALID_FIELD_IN_CDB])
}

async fn reserved_value(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    check::illegal_request("PREVENT 3h", &prevent(&changer, 3).await?, &[INVALID_FIELD_IN_CDB])
}
