//! EXTENDED COPY(LID4): its list, G_SENSE, IMMED, and what is told of operations by identifiers of 32 bits.

use std::time::Duration;

use protocol::scsi::{Sense, SenseKey};

use super::parameters::{Parameters, block_to_block};
use super::{CopyDisk, THIRD_PARTY_DEVICE_FAILURE, UNREACHABLE, aborted, serves, wants};
use crate::client::{LogicalUnit, Reply};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("lid4-copies", "SPC-4, EXTENDED COPY(LID4) command", Needs::CopyDisk, |bench| Box::pin(copies(bench))),
    Case::new(
        "lid4-identifiers-begin-at-one",
        "SPC-4, EXTENDED COPY(LID4) parameter list, CSCD descriptor ID",
        Needs::CopyDisk,
        |bench| Box::pin(identifier_zero(bench)),
    ),
    Case::new("lid4-good-with-sense", "SPC-4, EXTENDED COPY(LID4), G_SENSE bit", Needs::CopyDisk, |bench| {
        Box::pin(good_with_sense(bench))
    }),
    Case::new("lid4-in-the-background", "SPC-4, Third-party copy commands and operations, IMMED", Needs::CopyDisk, |bench| {
        Box::pin(background(bench))
    }),
    Case::new(
        "lid4-background-failure",
        "SPC-4, IMMED: no deferred errors; RECEIVE COPY STATUS(LID4)",
        Needs::CopyDisk,
        |bench| Box::pin(background_failure(bench)),
    ),
    Case::new(
        "lid4-immed-excludes",
        "SPC-4, EXTENDED COPY(LID4): IMMED with G_SENSE or LIST ID USAGE 11b",
        Needs::CopyDisk,
        |bench| Box::pin(exclusions(bench)),
    ),
    Case::new("lid4-held-data", "SPC-4, RECEIVE COPY DATA(LID4) command", Needs::CopyDisk, |bench| Box::pin(held_data(bench))),
    Case::new(
        "lid4-and-lid1-share-identifiers",
        "SPC-4, List identifiers for third-party copy commands",
        Needs::CopyDisk,
        |bench| Box::pin(one_number_space(bench)),
    ),
];

/// Service action of THIRD-PARTY COPY OUT.
pub(super) const LID4: u8 = 0x01;
/// Service actions of RECEIVE COPY.
pub(super) const STATUS: u8 = 0x05;
const DATA: u8 = 0x06;
/// Byte 15 of the list.
pub(super) const IMMED: u8 = 0x01;
const G_SENSE: u8 = 0x02;

pub(super) async fn start(bench: &Bench) -> Outcome<CopyDisk> {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    serves(&copy.disk.unit, 0x83, &[LID4]).await?;
    Ok(copy)
}

async fn run(copy: &CopyDisk, list: &Parameters, flags: u8) -> Outcome<Reply> {
    Ok(copy.disk.unit.third_party_copy_out(LID4, list.emit_lid4(flags).into()).await?)
}

/// The shared status header.
pub(super) struct Header(pub(super) bytes::Bytes);

impl Header {
    pub(super) fn status(&self) -> u8 {
        self.0[5] & 0x7F
    }

    fn is_in_progress(&self) -> bool {
        (0x10..=0x12).contains(&self.status())
    }

    fn delay_ms(&self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    fn transferred(&self) -> u64 {
        u64::from_be_bytes(*self.0[16..].first_chunk().expect("checked when it came"))
    }

    fn segments(&self) -> u16 {
        u16::from_be_bytes([self.0[24], self.0[25]])
    }

    pub(super) fn sense(&self) -> &[u8] {
        &self.0[32..32 + usize::from(self.0[14])]
    }
}

pub(super) async fn status(unit: &LogicalUnit, id: u32) -> Outcome<Header> {
    let data = check::good("RECEIVE COPY STATUS(LID4)", unit.receive_copy_lid4_reply(STATUS, id, 1024).await?)?;
    ensure(data.len() >= 32, || format!("{} bytes of status", data.len()))?;
    equal("AVAILABLE DATA", u32::from_be_bytes([data[0], data[1], data[2], data[3]]) as usize + 4, data.len())?;
    equal("LENGTH OF THE SENSE DATA FIELD", 32 + usize::from(data[13]), data.len())?;
    ensure(data[13] % 4 == 0 && data[14] <= data[13], || format!("{} bytes of sense in {}", data[14], data[13]))?;
    Ok(Header(data))
}

/// Asks as often as the copy manager recommends until the operation has ended.
pub(super) async fn wait(unit: &LogicalUnit, id: u32) -> Outcome<Header> {
    loop {
        let header = status(unit, id).await?;
        if !header.is_in_progress() {
            equal("ESTIMATED STATUS UPDATE DELAY at the end", header.delay_ms(), 0xFFFF_FFFE)?;
            return Ok(header);
        }
        let delay = if header.delay_ms() == u32::MAX { 100 } else { header.delay_ms() };
        tokio::time::sleep(Duration::from_millis(u64::from(delay.clamp(1, 2000)))).await;
    }
}

async fn copies(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let data = copy.disk.pattern(0x41, 16);
    copy.disk.put(0, &data).await?;
    let mut list = copy.list().with(block_to_block(0, (1, 1), 16, 0, 2000)).with(block_to_block(0, (1, 1), 4, 0, 3000));
    (list.id, list.usage) = (0x1234_5678, 0b00);
    let reply = run(&copy, &list, 0).await?;
    check::good("EXTENDED COPY(LID4)", reply)?;
    equal_bytes("the blocks copied", &copy.disk.get(2000, 16).await?, &data)?;
    let header = status(&copy.disk.unit, 0x1234_5678).await?;
    equal("RESPONSE TO SERVICE ACTION", header.0[4] & 0x1F, LID4)?;
    equal("COPY OPERATION STATUS", header.status(), 0x01)?;
    equal("EXTENDED COPY COMPLETION STATUS", header.0[12], 0x00)?;
    equal("SEGMENTS PROCESSED", header.segments(), 2)?;
    equal("TRANSFER COUNT UNITS: bytes", header.0[15], 0)?;
    equal("TRANSFER COUNT", header.transferred(), 20 * u64::from(copy.disk.block()))?;
    let again = status(&copy.disk.unit, 0x1234_5678).await?;
    equal("COPY OPERATION STATUS, asked again", again.status(), 0x01)?;
    let unknown = copy.disk.unit.receive_copy_lid4_reply(STATUS, 0x8765_4321, 64).await?;
    check::illegal_request("RECEIVE COPY STATUS(LID4) of a list that was not", &unknown, &[INVALID_FIELD_IN_CDB])
}

async fn identifier_zero(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let mut list = copy.list().with(block_to_block(0, (0, 1), 1, 0, 2000));
    list.id = 0x4100;
    aborted("a source with the header's id", &run(&copy, &list, 0).await?, &[UNREACHABLE], 0)
}

async fn good_with_sense(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let mut list = copy.list().with(block_to_block(0, (1, 1), 1, 0, 2000)).with(block_to_block(0, (1, 1), 1, 0, 2001));
    list.id = 0x4200;
    let plain = run(&copy, &list, 0).await?;
    check::good("without G_SENSE", plain.clone())?;
    ensure(plain.sense.is_none(), || "sense data without G_SENSE".into())?;
    list.id = 0x4201;
    let reply = run(&copy, &list, G_SENSE).await?;
    equal("status with G_SENSE", reply.status, protocol::scsi::Status::Good)?;
    let Some(sense) = &reply.sense else { return check::fail("no sense data with G_SENSE") };
    equal("COMPLETED, EXTENDED COPY INFORMATION AVAILABLE", (sense.key, sense.code), (SenseKey::Completed, (0x00, 0x20)))?;
    equal("segments in COMMAND-SPECIFIC INFORMATION", sense.command_specific, Some(2))
}

async fn background(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let data = copy.disk.pattern(0x43, 64);
    copy.disk.put(0, &data).await?;
    let mut list = copy.list();
    (list.id, list.usage) = (0x4300, 0b00);
    for number in 0..16 {
        list = list.with(block_to_block(0, (1, 1), 64, 0, 1024 + number * 64));
    }
    check::good("EXTENDED COPY(LID4) with IMMED", run(&copy, &list, IMMED).await?)?;
    let header = wait(&copy.disk.unit, 0x4300).await?;
    equal("COPY OPERATION STATUS", header.status(), 0x01)?;
    equal("SEGMENTS PROCESSED", header.segments(), 16)?;
    equal_bytes("the last blocks", &copy.disk.get(1024 + 15 * 64, 64).await?, &data)
}

async fn background_failure(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let mut list =
        copy.list().with(block_to_block(0, (1, 1), 1, 0, 2000)).with(block_to_block(0, (1, 1), 8, copy.disk.last(), 2000));
    (list.id, list.usage) = (0x4400, 0b00);
    check::good("IMMED, and a segment from beyond the end", run(&copy, &list, IMMED).await?)?;
    let header = wait(&copy.disk.unit, 0x4400).await?;
    equal("COPY OPERATION STATUS", header.status(), 0x02)?;
    equal("EXTENDED COPY COMPLETION STATUS", header.0[12], 0x02)?;
    let sense = Sense::parse(header.sense()).map_err(|error| check::Stop::Fail(error.to_string()))?;
    equal("sense", (sense.key, sense.code), (SenseKey::CopyAborted, THIRD_PARTY_DEVICE_FAILURE))?;
    equal("segment in COMMAND-SPECIFIC INFORMATION", sense.command_specific, Some(1))?;
    check::good("a command after it", copy.disk.unit.command(&[0; 6], crate::client::Data::None).await?).map(drop)
}

async fn exclusions(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let before = copy.disk.pattern(0x45, 1);
    copy.disk.put(2000, &before).await?;
    let mut list = copy.list().with(block_to_block(0, (1, 1), 1, 0, 2000));
    list.id = 0x4500;
    let reply = run(&copy, &list, IMMED | G_SENSE).await?;
    check::illegal_request("IMMED and G_SENSE", &reply, &[INVALID_FIELD_IN_CDB])?;
    (list.id, list.usage) = (0, 0b11);
    let reply = run(&copy, &list, IMMED).await?;
    check::illegal_request("IMMED and LIST ID USAGE 11b", &reply, &[INVALID_FIELD_IN_CDB])?;
    equal_bytes("the destination", &copy.disk.get(2000, 1).await?, &before)?;
    let mut bytes = list.emit_lid4(0);
    bytes[0] = 0x02;
    let reply = copy.disk.unit.third_party_copy_out(LID4, bytes.into()).await?;
    check::illegal_request("PARAMETER LIST FORMAT 02h", &reply, &[check::INVALID_FIELD_IN_PARAMETER_LIST])
}

async fn held_data(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    wants(&copy.disk.unit, &[0x0D]).await?;
    serves(&copy.disk.unit, 0x84, &[DATA]).await?;
    let data = copy.disk.pattern(0x46, 2);
    copy.disk.put(50, &data).await?;
    let mut segment = block_to_block(0, (1, 1), 2, 50, 2000);
    segment[0] = 0x0D;
    let mut list = copy.list().with(segment);
    (list.id, list.usage) = (0x4600, 0b00);
    check::good("0Dh", run(&copy, &list, 0).await?)?;
    let reply = copy.disk.unit.receive_copy_lid4_reply(DATA, 0x4600, 1 << 17).await?;
    let got = check::good("RECEIVE COPY DATA(LID4)", reply)?;
    let at = 32 + usize::from(got[13]);
    equal("HELD DATA LENGTH", u32::from_be_bytes([got[at], got[at + 1], got[at + 2], got[at + 3]]) as usize, data.len())?;
    equal_bytes("HELD DATA", &got[at + 4..], &data)?;
    equal("COPY OPERATION STATUS after that", status(&copy.disk.unit, 0x4600).await?.status(), 0x01)
}

async fn one_number_space(bench: &Bench) -> Outcome {
    let copy = start(bench).await?;
    let mut list = copy.list().with(block_to_block(0, (0, 0), 1, 0, 2000));
    (list.id, list.usage) = (0x47, 0b00);
    check::good("EXTENDED COPY(LID1)", copy.run(&list).await?)?;
    let header = status(&copy.disk.unit, 0x47).await?;
    equal("RESPONSE TO SERVICE ACTION", header.0[4] & 0x1F, 0x00)?;
    equal("COPY OPERATION STATUS", header.status(), 0x01)
}
