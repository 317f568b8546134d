//! Held data: segment types 0Bh to 0Fh, and RECEIVE COPY DATA(LID1).

use super::parameters::{blocks_and_stream, inline_to_stream, stream_to_discard};
use super::{CopyDisk, DISK, DiskAndTape, TAPE, implemented, serves, wants};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("held-blocks", "SPC-4, Held data; segment type 0Dh", Needs::CopyDisk, |bench| Box::pin(blocks(bench))),
    Case::new("held-data-limit", "SPC-4, Held data, HELD DATA LIMIT and HDD", Needs::CopyDisk, |bench| Box::pin(limit(bench))),
    Case::new("held-data-needs-a-list-identifier", "SPC-4, LIST ID USAGE 11b and held data", Needs::CopyDisk, |bench| {
        Box::pin(nameless(bench))
    }),
    Case::new("held-on-the-way-to-tape", "SPC-4, Held data; segment type 0Bh", Needs::CopyDiskAndTape, |bench| {
        Box::pin(to_tape(bench))
    }),
    Case::new("held-instead-of-discarded", "SPC-4, Held data; segment type 0Fh", Needs::CopyDiskAndTape, |bench| {
        Box::pin(from_tape(bench))
    }),
];

/// Service actions of RECEIVE COPY.
const STATUS: u8 = 0x00;
const DATA: u8 = 0x01;

/// 0Dh: 02h that also holds.
fn block_to_block_held(blocks: u16, from: u64, to: u64) -> Vec<u8> {
    let mut segment = super::parameters::block_to_block(0, (0, 0), blocks, from, to);
    segment[0] = 0x0D;
    segment
}

/// The held data of a list, behind AVAILABLE DATA.
async fn held(unit: &crate::client::LogicalUnit, id: u8, allocation: u32) -> Outcome<bytes::Bytes> {
    let data = check::good("RECEIVE COPY DATA(LID1)", unit.receive_copy_reply(DATA, id, allocation).await?)?;
    ensure(data.len() >= 4, || format!("{} bytes of held data", data.len()))?;
    let available = u32::from_be_bytes([data[0], data[1], data[2], data[3]]);
    if allocation > 4 {
        equal("AVAILABLE DATA", available as usize, data.len() - 4)?;
    }
    Ok(data.slice(4..))
}

async fn blocks(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x0D]).await?;
    let data = copy.disk.pattern(0x0D, 8);
    copy.disk.put(100, &data).await?;
    let mut list = copy.list().with(block_to_block_held(4, 100, 2000)).with(block_to_block_held(4, 104, 3000));
    (list.id, list.usage) = (0x31, 0b00);
    check::good("0Dh twice", copy.run(&list).await?)?;
    equal_bytes("what was copied", &copy.disk.get(2000, 4).await?, &data[..data.len() / 2])?;
    let short = copy.disk.unit.receive_copy_reply(DATA, 0x31, 4).await?;
    equal("RECEIVE COPY DATA cut at 4 bytes", check::good("RECEIVE COPY DATA(LID1)", short)?.len(), 4)?;
    equal_bytes("held data, oldest first", &held(&copy.disk.unit, 0x31, 1 << 17).await?, &data)?;
    // All was transferred: it is discarded.
    let again = copy.disk.unit.receive_copy_reply(DATA, 0x31, 1 << 17).await?;
    if again.sense.is_none() {
        ensure(again.data[..4] == [0; 4], || "held data is there again".into())?;
    }
    Ok(())
}

async fn limit(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x0D]).await?;
    let parameters = copy.disk.unit.receive_copy_operating_parameters().await?;
    let limit = u32::from_be_bytes([parameters[24], parameters[25], parameters[26], parameters[27]]);
    let blocks = limit / copy.disk.block() + 8;
    if blocks > 0x8000 || u64::from(blocks) > copy.disk.last() / 2 {
        return check::skip(format!("{limit} bytes of held data are more than this disk gives in one segment"));
    }
    let data = copy.disk.pattern(0xD0, blocks);
    copy.disk.put(0, &data).await?;
    let mut list = copy.list().with(block_to_block_held(blocks as u16, 0, u64::from(blocks)));
    (list.id, list.usage) = (0x32, 0b00);
    check::good("0Dh of more than is held", copy.run(&list).await?)?;
    let status = check::good("RECEIVE COPY STATUS(LID1)", copy.disk.unit.receive_copy_reply(STATUS, 0x32, 64).await?)?;
    let got = held(&copy.disk.unit, 0x32, 4 << 20).await?;
    ensure(got.len() >= limit as usize, || format!("{} bytes held, the limit is {limit}", got.len()))?;
    equal_bytes("the most recent bytes", &got, &data[data.len() - got.len()..])?;
    equal("HDD", status[4] >> 7, u8::from(got.len() < data.len()))
}

async fn nameless(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x0D]).await?;
    let before = copy.disk.pattern(0xDD, 4);
    copy.disk.put(2000, &before).await?;
    let mut list = copy.list().with(block_to_block_held(4, 0, 2000));
    (list.id, list.usage) = (0, 0b11);
    let reply = copy.run(&list).await?;
    check::illegal_request("0Dh without a list identifier", &reply, &[check::INVALID_FIELD_IN_PARAMETER_LIST])?;
    equal_bytes("the destination", &copy.disk.get(2000, 4).await?, &before)?;
    let unknown = copy.disk.unit.receive_copy_reply(DATA, 0xEE, 64).await?;
    check::illegal_request("RECEIVE COPY DATA of a list that was not", &unknown, &[INVALID_FIELD_IN_CDB])
}

async fn to_tape(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x0B]).await?;
    let data = devices.disk.pattern(0x0B, 8);
    devices.disk.put(64, &data).await?;
    let record = data.len() as u32;
    let mut list = devices.list().with(blocks_and_stream(0x0B, 0, (DISK, TAPE), record, 8, 64));
    (list.id, list.usage) = (0x33, 0b00);
    devices.copy("0Bh of one record", &list).await?;
    devices.tape.rewind().await?;
    crate::suite::bench::expect_record(&devices.tape, "the record", &data).await?;
    equal_bytes("held data", &held(&devices.disk.unit, 0x33, 1 << 17).await?, &data)
}

async fn from_tape(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x04, 0x0F]).await?;
    ensure(implemented(&devices.disk.unit).await?.contains(&0x0F), || "0Fh is not listed".into())?;
    serves(&devices.disk.unit, 0x84, &[DATA]).await?;
    let data = devices.disk.pattern(0x0F, 1);
    let record = data.len() as u32;
    let write = devices.list().inline(&data).with(inline_to_stream(0, TAPE, record, 0, record));
    devices.copy("a record", &write).await?;
    devices.tape.rewind().await?;
    // The first bytes are discarded, the rest of the record is held: residue of the first is the second's source data.
    let mut rest = stream_to_discard(0, TAPE, record, record - 100);
    rest[0] = 0x0F;
    let mut list = devices.list().with(stream_to_discard(super::parameters::CAT, TAPE, record, 100)).with(rest);
    (list.id, list.usage) = (0x34, 0b00);
    devices.copy("06h and 0Fh", &list).await?;
    equal_bytes("held data", &held(&devices.disk.unit, 0x34, 1 << 17).await?, &data[100..])
}
