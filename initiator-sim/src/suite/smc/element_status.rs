//! READ ELEMENT STATUS: which elements are reported, in which order, with which counts.

use super::{DATA_TRANSFER, DVCID, Report, STORAGE, drive_element, identifier, report, status_cdb};
use crate::client::Data;
use crate::suite::bench::{is_illegal_request, run_good};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::Designator;

const CLAUSE: &str = "SMC-3, READ ELEMENT STATUS command";

pub const CASES: &[Case] = &[
    Case::new("element-status-of-all-types", CLAUSE, Needs::Changer, |bench| Box::pin(all_types(bench))),
    Case::new("element-status-from-an-address", CLAUSE, Needs::Changer, |bench| Box::pin(from_an_address(bench))),
    Case::new("element-status-no-more-than-asked", CLAUSE, Needs::Changer, |bench| Box::pin(no_more(bench))),
    Case::new("element-type-reserved", CLAUSE, Needs::Changer, |bench| Box::pin(reserved_type(bench))),
    Case::new("device-identifiers", "SMC-3, READ ELEMENT STATUS command, DVCID", Needs::ChangerAndDrive, |bench| {
        Box::pin(device_identifiers(bench))
    }),
];

/// All types at once is what each type is alone, and all counts are true.
async fn all_types(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let all = report(&changer, 0).await?;
    let mut each = Vec::new();
    for kind in 1..=4 {
        let one = report(&changer, kind).await?;
        ensure(one.elements.iter().all(|element| element.kind == kind), || format!("asked for type {kind}, got others"))?;
        let ascending = one.elements.windows(2).all(|pair| pair[0].address < pair[1].address);
        ensure(ascending, || format!("elements of type {kind} are not in ascending order"))?;
        each.extend(one.elements);
    }
    let sorted = |mut elements: Vec<super::Descriptor>| {
        elements.sort_by_key(|element| element.address);
        elements
    };
    let (all_elements, each) = (sorted(all.elements.clone()), sorted(each));
    equal("elements of all types", all_elements, each)?;
    equal("NUMBER OF ELEMENTS AVAILABLE", usize::from(all.available), all.elements.len())?;
    let pages: u32 = all.pages.iter().map(|page| 8 + page.byte_count).sum();
    equal("BYTE COUNT OF REPORT AVAILABLE", all.byte_count, pages)?;
    let lowest = all.elements.iter().map(|element| element.address).min();
    equal("FIRST ELEMENT ADDRESS REPORTED", Some(all.first), lowest)
}

async fn from_an_address(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let all = report(&changer, STORAGE).await?.elements;
    let Some(middle) = all.get(all.len() / 2).map(|element| element.address) else { return skip("no storage elements") };
    let cdb = status_cdb(STORAGE, middle, 0xFFFF, super::ROOM);
    let from = Report::parse(&run_good(&changer, "READ ELEMENT STATUS", &cdb, Data::In(super::ROOM)).await?)?;
    equal("FIRST ELEMENT ADDRESS REPORTED", from.first, middle)?;
    equal("elements from the middle on", from.elements, all[all.len() / 2..].to_vec())
}

async fn no_more(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let all = report(&changer, 0).await?.elements;
    for count in [1, all.len() - 1] {
        let cdb = status_cdb(0, 0, count as u16, super::ROOM);
        let some = Report::parse(&run_good(&changer, "READ ELEMENT STATUS", &cdb, Data::In(super::ROOM)).await?)?;
        equal("descriptors", some.elements.len(), count)?;
        equal("NUMBER OF ELEMENTS AVAILABLE", usize::from(some.available), count)?;
    }
    Ok(())
}

async fn reserved_type(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let reply = changer.command(&status_cdb(0x0F, 0, 0xFFFF, super::ROOM), Data::In(super::ROOM)).await?;
    check::illegal_request("READ ELEMENT STATUS of element type Fh", &reply, &[INVALID_FIELD_IN_CDB])
}

/// What DVCID says of a drive is a name that the drive has in VPD page 83h.
async fn device_identifiers(bench: &Bench) -> Outcome {
    let (changer, drive) = (bench.changer().await?, bench.drive().await?);
    let Some(address) = drive_element(&changer, &drive).await? else { return skip("the tape is no drive of the changer") };
    let mut cdb = status_cdb(DATA_TRANSFER, 0, 0xFFFF, super::ROOM);
    cdb[6] = DVCID;
    let reply = changer.command(&cdb, Data::In(super::ROOM)).await?;
    if is_illegal_request(&reply) {
        return skip("the changer has no device identifiers");
    }
    let report = Report::parse(&check::good("READ ELEMENT STATUS with DVCID", reply)?)?;
    let element = report.element(address)?;
    let (code_set, kind, bytes) = identifier(&element.bytes[12..])
        .filter(|(.., bytes)| !bytes.is_empty())
        .map_or_else(|| check::fail("the drive's element has no identifier"), Ok)?;
    let page = drive.vpd(0x83).await?;
    let names = Designator::list(page.get(4..).unwrap_or_default());
    let named = names.iter().any(|name| (name.code_set as u8, name.kind as u8, name.bytes.as_slice()) == (code_set, kind, bytes));
    ensure(named, || format!("identifier {} is none of VPD page 83h: {names:?}", String::from_utf8_lossy(bytes)))
}
