//! Tapes. SSC-4.

mod block_limits;
mod end_of_data;
mod erase;
mod filemarks;
mod fixed_blocks;
mod immediate;
mod incorrect_length;
mod load_unload;
mod locate;
mod ltfs;
mod memory;
mod overwrite;
mod pages;
mod partitions;
mod position;
mod reverse;
mod security;
mod space;
mod variable_records;
mod verify;

use bytes::Bytes;
use protocol::scsi::{Sense, SenseKey, Status};

use super::Case;
use super::check::{self, Outcome, equal, fail, told};
use crate::client::{Data, LogicalUnit, Reply};

/// All of them.
pub const CASES: &[&[Case]] = &[
    variable_records::CASES,
    fixed_blocks::CASES,
    incorrect_length::CASES,
    filemarks::CASES,
    end_of_data::CASES,
    overwrite::CASES,
    space::CASES,
    locate::CASES,
    position::CASES,
    block_limits::CASES,
    erase::CASES,
    load_unload::CASES,
    reverse::CASES,
    pages::CASES,
    memory::CASES,
    partitions::CASES,
    security::CASES,
    ltfs::CASES,
    immediate::CASES,
    verify::CASES,
];

/// END-OF-DATA DETECTED.
const END_OF_DATA: (u8, u8) = (0x00, 0x05);
/// FILEMARK DETECTED.
const FILEMARK_DETECTED: (u8, u8) = (0x00, 0x01);
/// BEGINNING-OF-PARTITION/MEDIUM DETECTED.
const BEGINNING_DETECTED: (u8, u8) = (0x00, 0x04);

/// READ(6) with these flags (SILI 02h, FIXED 01h); `room` bytes or blocks.
async fn read(tape: &LogicalUnit, flags: u8, length: u32, room: u32) -> Outcome<Reply> {
    let [_, a, b, c] = length.to_be_bytes();
    Ok(tape.command(&[0x08, flags, a, b, c, 0], if room == 0 { Data::None } else { Data::In(room) }).await?)
}

/// WRITE(6) with these flags (FIXED 01h); `length` bytes or blocks.
async fn write(tape: &LogicalUnit, flags: u8, length: u32, data: Bytes) -> Outcome<Reply> {
    let [_, a, b, c] = length.to_be_bytes();
    Ok(tape.command(&[0x0A, flags, a, b, c, 0], if data.is_empty() { Data::None } else { Data::Out(data) }).await?)
}

/// SPACE(6).
async fn space(tape: &LogicalUnit, code: u8, count: i32) -> Outcome<Reply> {
    let [_, a, b, c] = count.to_be_bytes();
    Ok(tape.command(&[0x11, code, a, b, c, 0], Data::None).await?)
}

/// LOCATE(16) to an object, in another partition where one is named.
async fn locate_16(tape: &LogicalUnit, partition: Option<u8>, object: u32) -> Outcome<Reply> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[3]) = (0x92, u8::from(partition.is_some()) << 1, partition.unwrap_or(0));
    cdb[8..12].copy_from_slice(&object.to_be_bytes());
    check::supported("LOCATE(16)", tape.command(&cdb, Data::None).await?)
}

/// A mode page with its header, as it holds now; the case is skipped where the drive does not have it.
async fn mode_page(tape: &LogicalUnit, page: u8, subpage: u8) -> Outcome<Vec<u8>> {
    let reply = tape.command(&[0x5A, 0x08, page, subpage, 0, 0, 0, 0x10, 0, 0], Data::In(0x1000)).await?;
    let reply = check::supported("MODE SENSE(10)", reply)?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return check::skip(format!("no mode page {page:02X}h, {subpage:02X}h"));
    }
    let data = check::good("MODE SENSE(10)", reply)?;
    let body = data.get(8..).filter(|body| body.first().is_some_and(|code| code & 0x3F == page));
    match body {
        // PS is reserved in MODE SELECT, which sends the page back.
        Some(body) => Ok(std::iter::once(body[0] & 0x7F).chain(body[1..].iter().copied()).collect()),
        None => fail(format!("MODE SENSE(10): no page {page:02X}h in {} bytes", data.len())),
    }
}

/// MODE SELECT(10) of one page with its header, buffered mode 1h.
async fn select_page(tape: &LogicalUnit, page: &[u8]) -> Outcome<Reply> {
    let list: Vec<u8> = [&[0, 0, 0, 0x10, 0, 0, 0, 0], page].concat();
    let length = list.len() as u8;
    Ok(tape.command(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, length, 0], Data::Out(list.into())).await?)
}

/// The first 4 bytes of READ POSITION short form that matter: the logical object number, and BOP.
pub(super) async fn object(tape: &LogicalUnit) -> Outcome<(u32, bool)> {
    let data = tape.good("READ POSITION", &[0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(20)).await?.data;
    match data.first_chunk::<8>() {
        Some(&[flags, _, _, _, a, b, c, d]) => Ok((u32::from_be_bytes([a, b, c, d]), flags & 0x80 != 0)),
        None => fail(format!("{} bytes of READ POSITION data, short form", data.len())),
    }
}

/// Fails unless the tape stands before this logical object.
pub(super) async fn stands_at(tape: &LogicalUnit, what: &str, expected: u32) -> Outcome {
    equal(&format!("logical object number {what}"), object(tape).await?.0, expected)
}

/// What a stream command must say when it stopped early.
struct Stopped {
    key: SenseKey,
    code: (u8, u8),
    filemark: bool,
    end_of_medium: bool,
    incorrect_length: bool,
    information: i64,
}

impl Stopped {
    const AT_FILEMARK: Self = Self {
        key: SenseKey::NoSense,
        code: FILEMARK_DETECTED,
        filemark: true,
        end_of_medium: false,
        incorrect_length: false,
        information: 0,
    };
    const AT_END_OF_DATA: Self = Self { key: SenseKey::BlankCheck, code: END_OF_DATA, filemark: false, ..Self::AT_FILEMARK };
    const AT_BEGINNING: Self = Self { code: BEGINNING_DETECTED, filemark: false, end_of_medium: true, ..Self::AT_FILEMARK };
    const WRONG_LENGTH: Self = Self { code: (0, 0), filemark: false, incorrect_length: true, ..Self::AT_FILEMARK };

    const fn left(self, information: i64) -> Self {
        Self { information, ..self }
    }

    fn check(&self, what: &str, reply: &Reply) -> Outcome {
        let Some(sense) = reply.sense.as_ref().filter(|_| reply.status == Status::CheckCondition) else {
            return fail(format!("{what}: expected {self:?}, got {}", told(reply)));
        };
        let fits = sense.key == self.key
            && sense.code == self.code
            && sense.stream.filemark == self.filemark
            && sense.stream.end_of_medium == self.end_of_medium
            && sense.stream.incorrect_length == self.incorrect_length
            && information(sense) == Some(self.information);
        if fits { Ok(()) } else { fail(format!("{what}: expected {self:?}, got {}", told(reply))) }
    }
}

impl std::fmt::Debug for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:02X}h/{:02X}h", self.key, self.code.0, self.code.1)?;
        for (set, name) in [(self.filemark, "FILEMARK"), (self.end_of_medium, "EOM"), (self.incorrect_length, "ILI")] {
            write!(f, "{}", if set { format!(", {name}") } else { String::new() })?;
        }
        write!(f, ", information {}", self.information)
    }
}

/// INFORMATION as the signed number that SSC-4 gives it.
fn information(sense: &Sense) -> Option<i64> {
    sense.information.map(u64::cast_signed)
}
