//! Volume tags: in the element status with VOLTAG and only then, and found by SEND VOLUME TAG.

use super::{Report, STORAGE, VOLTAG, report, status_cdb};
use crate::client::{Data, LogicalUnit};
use crate::suite::bench::run_good;
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, skip, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("volume-tags", "SMC-3, READ ELEMENT STATUS command, VOLTAG", Needs::Changer, |bench| Box::pin(volume_tags(bench))),
    Case::new("volume-search", "SMC-3, SEND VOLUME TAG and REQUEST VOLUME ELEMENT ADDRESS commands", Needs::Changer, |bench| {
        Box::pin(search(bench))
    }),
    Case::new("volume-search-not-begun", "SMC-3, REQUEST VOLUME ELEMENT ADDRESS command", Needs::Changer, |bench| {
        Box::pin(not_begun(bench))
    }),
    Case::new("volume-action-reserved", "SMC-3, SEND VOLUME TAG command, SEND ACTION CODE", Needs::Changer, |bench| {
        Box::pin(reserved_action(bench))
    }),
];

/// PVOLTAG, in a page's byte 1.
const PVOLTAG: u8 = 0x80;

async fn tagged(changer: &LogicalUnit) -> Outcome<Report> {
    let cdb = status_cdb(VOLTAG | STORAGE, 0, 0xFFFF, super::ROOM);
    Report::parse(&run_good(changer, "READ ELEMENT STATUS with VOLTAG", &cdb, Data::In(super::ROOM)).await?)
}

/// The identifier without what pads it.
fn text(descriptor: &super::Descriptor) -> String {
    String::from_utf8_lossy(&descriptor.bytes[12..44]).trim_end_matches(['\0', ' ']).to_owned()
}

async fn volume_tags(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let (plain, tagged) = (report(&changer, STORAGE).await?, tagged(&changer).await?);
    let (Some(without), Some(with)) = (plain.pages.first(), tagged.pages.first()) else { return skip("no storage elements") };
    equal("PVOLTAG and AVOLTAG without VOLTAG", without.tags & 0xC0, 0)?;
    ensure(with.tags & PVOLTAG != 0, || "PVOLTAG is clear though VOLTAG was set".to_owned())?;
    let tags = 36 * u16::from((with.tags & 0xC0).count_ones() as u8);
    equal("ELEMENT DESCRIPTOR LENGTH", with.descriptor_length, without.descriptor_length + tags)?;
    for element in &tagged.elements {
        let tag = text(element);
        ensure(element.full() || tag.is_empty(), || format!("empty element {:04X}h has the tag {tag:?}", element.address))?;
    }
    let mut tags: Vec<String> = tagged.elements.iter().map(text).filter(|tag| !tag.is_empty()).collect();
    let count = tags.len();
    tags.sort();
    tags.dedup();
    equal("different tags", tags.len(), count)
}

/// SEND VOLUME TAG with a template.
async fn send(changer: &LogicalUnit, action: u8, template: &str) -> Outcome<crate::client::Reply> {
    let mut list = vec![b' '; 32];
    list[..template.len()].copy_from_slice(template.as_bytes());
    list.extend([0, 0, 0, 0, 0, 0, 0xFF, 0xFF]);
    let cdb = [0xB6, STORAGE, 0, 0, 0, action, 0, 0, 0, 40, 0, 0];
    supported("SEND VOLUME TAG", changer.command(&cdb, Data::Out(list.into())).await?)
}

/// REQUEST VOLUME ELEMENT ADDRESS.
const REQUEST: [u8; 12] = [0xB5, VOLTAG | STORAGE, 0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0];

async fn search(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let elements = tagged(&changer).await?.elements;
    let Some(wanted) = elements.iter().find(|element| !text(element).is_empty()) else { return skip("no volume has a tag") };
    let tag = text(wanted);
    // The whole tag, the tag with any last character, and all that begins like it.
    for template in [tag.clone(), format!("{}?", &tag[..tag.len() - 1]), format!("{}*", &tag[..tag.len() / 2])] {
        check::good("SEND VOLUME TAG", send(&changer, 0x05, &template).await?)?;
        let data = run_good(&changer, "REQUEST VOLUME ELEMENT ADDRESS", &REQUEST, Data::In(0xFFFF)).await?;
        equal("SEND ACTION CODE of the answer", data.get(4).map(|byte| byte & 0x1F), Some(0x05))?;
        let found = Report::parse(&data)?;
        let fits = |text: &str| match template.split_once(['*', '?']) {
            Some((start, _)) if template.ends_with('*') => text.starts_with(start),
            Some((start, _)) => text.starts_with(start) && text.len() == template.len(),
            None => text == template,
        };
        let expected: Vec<u16> = elements.iter().filter(|element| fits(&text(element))).map(|element| element.address).collect();
        let got: Vec<u16> = found.elements.iter().map(|element| element.address).collect();
        equal(&format!("elements for {template:?}"), got, expected)?;
    }
    check::good("SEND VOLUME TAG", send(&changer, 0x05, "NO SUCH VOLUME").await?)?;
    let none = Report::parse(&run_good(&changer, "REQUEST VOLUME ELEMENT ADDRESS", &REQUEST, Data::In(0xFFFF)).await?)?;
    equal("NUMBER OF ELEMENTS AVAILABLE for a tag that nothing has", none.available, 0)
}

/// A search belongs to its nexus: one that has sent no tag is told so, or of nothing found.
async fn not_begun(bench: &Bench) -> Outcome {
    const COMMAND_SEQUENCE_ERROR: (u8, u8) = (0x2C, 0x00);
    let other = bench.changer().await?;
    check::good("SEND VOLUME TAG", send(&other, 0x05, "*").await?)?;
    let changer = bench.changer().await?;
    let reply = supported("REQUEST VOLUME ELEMENT ADDRESS", changer.command(&REQUEST, Data::In(0xFFFF)).await?)?;
    match reply.sense {
        Some(_) => check::illegal_request("REQUEST VOLUME ELEMENT ADDRESS without a search", &reply, &[COMMAND_SEQUENCE_ERROR]),
        None => equal("elements found without a search", Report::parse(&reply.data)?.available, 0),
    }
}

async fn reserved_action(bench: &Bench) -> Outcome {
    let changer = bench.changer().await?;
    let reply = send(&changer, 0x1F, "X").await?;
    check::illegal_request("SEND VOLUME TAG with action 1Fh", &reply, &[INVALID_FIELD_IN_CDB])
}
