//! Media changers. SMC-3.
//!
//! What a case moves it moves back, pass or fail, as far as the changer lets it.

mod allocation_length;
mod drives;
mod element_status;
mod exchange;
mod initialize;
mod mode_pages;
mod move_medium;
mod position;
mod prevent;
mod reservation;
mod volume_tags;

use bytes::Bytes;
use protocol::scsi::Designator;

use super::Case;
use super::bench::run_good;
use super::check::{Outcome, ensure, equal, fail, skip};
use crate::client::{Data, LogicalUnit, Reply};

/// All of them.
pub const CASES: &[&[Case]] = &[
    mode_pages::CASES,
    element_status::CASES,
    allocation_length::CASES,
    volume_tags::CASES,
    initialize::CASES,
    position::CASES,
    move_medium::CASES,
    exchange::CASES,
    drives::CASES,
    prevent::CASES,
    reservation::CASES,
];

/// INVALID ELEMENT ADDRESS.
const INVALID_ELEMENT_ADDRESS: (u8, u8) = (0x21, 0x01);
/// MEDIUM DESTINATION ELEMENT FULL.
const DESTINATION_FULL: (u8, u8) = (0x3B, 0x0D);
/// MEDIUM SOURCE ELEMENT EMPTY.
const SOURCE_EMPTY: (u8, u8) = (0x3B, 0x0E);

/// ELEMENT TYPE CODE of storage elements.
const STORAGE: u8 = 2;
/// ELEMENT TYPE CODE of import/export elements.
const IMPORT_EXPORT: u8 = 3;
/// ELEMENT TYPE CODE of data transfer elements.
const DATA_TRANSFER: u8 = 4;

/// VOLTAG, in byte 1 of the CDB.
const VOLTAG: u8 = 0x10;
/// DVCID, in byte 6 of the CDB.
const DVCID: u8 = 0x01;

/// FULL, in a descriptor's byte 2.
const FULL: u8 = 0x01;

/// An element descriptor as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Descriptor {
    kind: u8,
    address: u16,
    bytes: Bytes,
}

impl Descriptor {
    fn full(&self) -> bool {
        self.bytes[2] & FULL != 0
    }

    /// SOURCE STORAGE ELEMENT ADDRESS, with SVALID.
    fn source(&self) -> Option<u16> {
        (self.bytes[9] & 0x80 != 0).then(|| u16::from_be_bytes([self.bytes[10], self.bytes[11]]))
    }
}

/// A page header as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    kind: u8,
    tags: u8,
    descriptor_length: u16,
    byte_count: u32,
}

/// Element status data, cut into its parts; what is half is left out.
#[derive(Debug)]
struct Report {
    first: u16,
    available: u16,
    byte_count: u32,
    pages: Vec<Page>,
    elements: Vec<Descriptor>,
}

impl Report {
    fn parse(data: &Bytes) -> Outcome<Self> {
        let number = |at: usize, length: usize| data[at..at + length].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        ensure(data.len() >= 8, || format!("{} bytes of element status data", data.len()))?;
        let mut report = Self {
            first: number(0, 2) as u16,
            available: number(2, 2) as u16,
            byte_count: number(5, 3),
            pages: Vec::new(),
            elements: Vec::new(),
        };
        let mut at = 8;
        while at + 8 <= data.len() {
            let page = Page {
                kind: data[at],
                tags: data[at + 1],
                descriptor_length: number(at + 2, 2) as u16,
                byte_count: number(at + 5, 3),
            };
            let length = usize::from(page.descriptor_length);
            ensure(length >= 12, || format!("ELEMENT DESCRIPTOR LENGTH {length} at byte {}", at + 2))?;
            at += 8;
            let end = (at + page.byte_count as usize).min(data.len());
            while at + length <= end {
                let bytes = data.slice(at..at + length);
                report.elements.push(Descriptor { kind: page.kind, address: u16::from_be_bytes([bytes[0], bytes[1]]), bytes });
                at += length;
            }
            at = end;
            report.pages.push(page);
        }
        Ok(report)
    }

    fn element(&self, address: u16) -> Outcome<&Descriptor> {
        let found = self.elements.iter().find(|element| element.address == address);
        found.map_or_else(|| fail(format!("element {address:04X}h is not reported")), Ok)
    }
}

/// READ ELEMENT STATUS. `flags` are VOLTAG and DVCID, which have their bits in different bytes.
fn status_cdb(kind: u8, start: u16, count: u16, allocation_length: u32) -> [u8; 12] {
    let ([s0, s1], [n0, n1], [_, a, b, c]) = (start.to_be_bytes(), count.to_be_bytes(), allocation_length.to_be_bytes());
    [0xB8, kind, s0, s1, n0, n1, 0, a, b, c, 0, 0]
}

/// Room for what changers under test report.
const ROOM: u32 = 1 << 20;

/// All elements of a type (zero: of all types) without tags and identifiers.
async fn report(changer: &LogicalUnit, kind: u8) -> Outcome<Report> {
    Report::parse(&run_good(changer, "READ ELEMENT STATUS", &status_cdb(kind, 0, 0xFFFF, ROOM), Data::In(ROOM)).await?)
}

/// MOVE MEDIUM by the default transport.
async fn move_medium(changer: &LogicalUnit, source: u16, destination: u16) -> Outcome<Reply> {
    let ([s0, s1], [d0, d1]) = (source.to_be_bytes(), destination.to_be_bytes());
    Ok(changer.command(&[0xA5, 0, 0, 0, s0, s1, d0, d1, 0, 0, 0, 0], Data::None).await?)
}

/// The first storage elements that are full and that are empty: as many as asked for of each, or the case is skipped.
async fn slots(changer: &LogicalUnit, full: usize, empty: usize) -> Outcome<(Vec<u16>, Vec<u16>)> {
    let report = report(changer, STORAGE).await?;
    let which = |wanted: bool, count| {
        let chosen = report.elements.iter().filter(|element| element.full() == wanted).map(|element| element.address);
        chosen.take(count).collect::<Vec<_>>()
    };
    let (found, free) = (which(true, full), which(false, empty));
    if found.len() < full || free.len() < empty {
        return skip(format!("the changer has not {full} full and {empty} empty storage elements"));
    }
    Ok((found, free))
}

/// A storage element that is full.
pub(super) async fn full_slot(changer: &LogicalUnit) -> Outcome<Option<u16>> {
    Ok(report(changer, STORAGE).await?.elements.iter().find(|element| element.full()).map(|element| element.address))
}

/// The data transfer element whose device identifier is a name of `drive`, or the only one there is.
pub(super) async fn drive_element(changer: &LogicalUnit, drive: &LogicalUnit) -> Outcome<Option<u16>> {
    let mut cdb = status_cdb(DATA_TRANSFER, 0, 0xFFFF, ROOM);
    cdb[6] = DVCID;
    let reply = changer.command(&cdb, Data::In(ROOM)).await?;
    // A changer without DVCID refuses the bit: then only a single drive can be told from the others.
    let report = match reply.sense {
        Some(_) => report(changer, DATA_TRANSFER).await?,
        None => Report::parse(&reply.data)?,
    };
    if let [only] = report.elements.as_slice() {
        return Ok(Some(only.address));
    }
    let names = drive.vpd(0x83).await?;
    let names = Designator::list(names.get(4..).unwrap_or_default());
    let named = report.elements.iter().find(|element| {
        let identifier = identifier(&element.bytes[12..]);
        identifier.is_some_and(|(_, _, bytes)| names.iter().any(|name| !bytes.is_empty() && name.bytes == bytes))
    });
    Ok(named.map(|element| element.address))
}

/// CODE SET, IDENTIFIER TYPE and IDENTIFIER of a descriptor's end.
fn identifier(behind_tags: &[u8]) -> Option<(u8, u8, &[u8])> {
    let [code_set, kind, _, length, rest @ ..] = behind_tags else { return None };
    Some((code_set & 0x0F, kind & 0x0F, rest.get(..usize::from(*length))?))
}

/// The changer and the drive with the drive's element, empty; a medium that was in it goes to an empty storage element.
async fn emptied_drive(bench: &super::Bench) -> Outcome<(LogicalUnit, LogicalUnit, u16)> {
    let (changer, drive) = (bench.changer().await?, bench.drive().await?);
    let Some(element) = drive_element(&changer, &drive).await? else {
        return skip("the tape is no drive of the changer");
    };
    let report = report(&changer, DATA_TRANSFER).await?;
    if report.element(element)?.full() {
        let (_, empty) = slots(&changer, 0, 1).await?;
        super::check::good("MOVE MEDIUM out of the drive", move_medium(&changer, element, empty[0]).await?)?;
    }
    Ok((changer, drive, element))
}

/// The four pairs of first address and number of the element address assignment page: transport, storage, import/export, data
/// transfer.
async fn assignment(changer: &LogicalUnit) -> Outcome<[(u16, u16); 4]> {
    let data = run_good(changer, "MODE SENSE(6) of page 1Dh", &[0x1A, 0x08, 0x1D, 0, 0xFF, 0], Data::In(0xFF)).await?;
    ensure(data.len() >= 4 + 20, || format!("{} bytes of mode parameter data", data.len()))?;
    let page = &data[4 + usize::from(data[3])..];
    ensure(page.len() >= 20, || format!("{} bytes of the page", page.len()))?;
    equal("PAGE CODE", page[0] & 0x3F, 0x1D)?;
    equal("PAGE LENGTH", page[1], 0x12)?;
    let field = |at: usize| u16::from_be_bytes([page[at], page[at + 1]]);
    Ok([2, 6, 10, 14].map(|at| (field(at), field(at + 2))))
}

/// An address that no element has.
fn no_element(assignment: &[(u16, u16); 4]) -> u16 {
    let taken = |address: u16| {
        assignment
            .iter()
            .any(|(first, count)| (u32::from(*first)..u32::from(*first) + u32::from(*count)).contains(&address.into()))
    };
    (1..=u16::MAX).rev().find(|address| !taken(*address)).expect("a changer has not 65,535 elements")
}
