//! A medium of two partitions, and what happens towards the end of a small one.

use protocol::scsi::{SenseKey, Status};

use super::{locate_16, mode_page, select_page, write};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::{expect_record, pattern, write_records};
use crate::suite::check::{self, Outcome, ensure, equal, refused, supported, told};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("partitions", "SSC-4, FORMAT MEDIUM command; Medium Partition mode page", Needs::ScratchTape, |bench| {
        Box::pin(with_two(bench, Part::Apart))
    }),
    Case::new("early-warning", "SSC-4, Early-warning; EOM bit on success, VOLUME OVERFLOW", Needs::ScratchTape, |bench| {
        Box::pin(with_two(bench, Part::EarlyWarning))
    }),
    Case::new("programmable-early-warning", "SSC-4, Programmable early-warning", Needs::ScratchTape, |bench| {
        Box::pin(with_two(bench, Part::ProgrammableEarlyWarning))
    }),
    Case::new("format-not-at-beginning", "SSC-4, FORMAT MEDIUM command", Needs::ScratchTape, |bench| {
        Box::pin(not_at_beginning(bench))
    }),
    Case::new("append-only-mode", "SSC-4, ALLOW OVERWRITE command; WRITE MODE", Needs::ScratchTape, |bench| {
        Box::pin(append_only(bench))
    }),
];

const MEDIUM_PARTITION: u8 = 0x11;
const END_DETECTED: (u8, u8) = (0x00, 0x02);
const PROGRAMMABLE_DETECTED: (u8, u8) = (0x00, 0x07);
const OVERWRITE_ATTEMPTED: (u8, u8) = (0x30, 0x0C);
const PAST_BEGINNING: (u8, u8) = (0x3B, 0x0C);
/// The second partition: small enough to be filled. In 10^6 bytes.
const SMALL: u8 = 16;

#[derive(Clone, Copy)]
enum Part {
    Apart,
    EarlyWarning,
    ProgrammableEarlyWarning,
}

/// Divides the medium, runs one part, and makes one partition of it again whatever came of that.
async fn with_two(bench: &Bench, part: Part) -> Outcome {
    let tape = bench.tape().await?;
    let mut page = mode_page(&tape, MEDIUM_PARTITION, 0).await?;
    if page.len() < 12 || page[2] == 0 {
        return check::skip("the drive makes no second partition");
    }
    // One more partition, IDP, sizes in 10^6 bytes: what is left, and a small one.
    (page[3], page[4], page[6]) = (1, page[4] & 0x07 | 0x38, 6);
    page[8..12].copy_from_slice(&[0xFF, 0xFF, 0, SMALL]);
    let selected = select_page(&tape, &page).await?;
    if selected.status != Status::Good {
        return check::skip(format!("the drive does not take sizes of 10^6 bytes: {}", told(&selected)));
    }
    let formatted = supported("FORMAT MEDIUM", format(&tape, 1).await?)?;
    check::good("FORMAT MEDIUM", formatted)?;
    let outcome = match part {
        Part::Apart => apart(&tape).await,
        Part::EarlyWarning => early_warning(&tape).await,
        Part::ProgrammableEarlyWarning => programmable(&tape).await,
    };
    check::good("LOCATE of partition 0", locate_16(&tape, Some(0), 0).await?)?;
    check::good("FORMAT MEDIUM to one partition", format(&tape, 0).await?)?;
    outcome
}

async fn format(tape: &LogicalUnit, how: u8) -> Outcome<Reply> {
    Ok(tape.command(&[0x04, 0, how, 0, 0, 0], Data::None).await?)
}

async fn apart(tape: &LogicalUnit) -> Outcome {
    equal("ADDITIONAL PARTITIONS DEFINED", mode_page(tape, MEDIUM_PARTITION, 0).await?[3], 1)?;
    write_records(tape, &[pattern(1, 1000)]).await?;
    check::good("LOCATE of partition 1", locate_16(tape, Some(1), 0).await?)?;
    equal("the partition that READ POSITION tells", tape.read_position().await?.partition, 1)?;
    write_records(tape, &[pattern(2, 2000), pattern(3, 3000)]).await?;
    check::good("LOCATE of partition 0", locate_16(tape, Some(0), 0).await?)?;
    expect_record(tape, "the record of partition 0", &pattern(1, 1000)).await?;
    check::good("LOCATE of partition 1", locate_16(tape, Some(1), 1).await?)?;
    expect_record(tape, "the second record of partition 1", &pattern(3, 3000)).await?;
    let reply = locate_16(tape, Some(2), 0).await?;
    check::illegal_request("LOCATE of a partition that is not there", &reply, &[check::INVALID_FIELD_IN_CDB])
}

const CHUNK: u32 = 1_000_000;

/// Writes chunks into partition 1 until one is not answered GOOD.
async fn fill(tape: &LogicalUnit, limit: u8) -> Outcome<(u8, Reply)> {
    for n in 0..limit {
        let reply = write(tape, 0, CHUNK, pattern(n, CHUNK as usize)).await?;
        if reply.status != Status::Good {
            return Ok((n, reply));
        }
    }
    check::fail(format!("{limit} records of {CHUNK} bytes went into a partition of {SMALL} million"))
}

fn warns(reply: &Reply, code: (u8, u8)) -> bool {
    let sense = reply.sense.as_ref();
    sense.is_some_and(|sense| sense.key == SenseKey::NoSense && sense.code == code && sense.stream.end_of_medium)
}

async fn early_warning(tape: &LogicalUnit) -> Outcome {
    check::good("LOCATE of partition 1", locate_16(tape, Some(1), 0).await?)?;
    let (warned, reply) = fill(tape, SMALL + 2).await?;
    ensure(warns(&reply, END_DETECTED), || format!("at early warning: {}", told(&reply)))?;
    equal("object number behind the record that was warned of", tape.read_position().await?.object, u64::from(warned) + 1)?;
    ensure(tape.read_position().await?.end, || "EOP is not set behind early warning".into())?;
    let mut overflow = None;
    for n in 0..SMALL {
        let reply = write(tape, 0, CHUNK, pattern(n, CHUNK as usize)).await?;
        if !warns(&reply, END_DETECTED) {
            overflow = Some(reply);
            break;
        }
    }
    let Some(overflow) = overflow else { return check::fail("no end of the partition behind early warning") };
    refused("WRITE(6) at the end of the partition", &overflow, SenseKey::VolumeOverflow, &[END_DETECTED])?;
    let filemark = tape.command(&[0x10, 0, 0, 0, 1, 0], Data::None).await?;
    ensure(warns(&filemark, END_DETECTED), || format!("a filemark behind early warning: {}", told(&filemark)))?;
    check::good("LOCATE of the record that was warned of", locate_16(tape, None, warned.into()).await?)?;
    expect_record(tape, "that record", &pattern(warned, CHUNK as usize)).await
}

async fn programmable(tape: &LogicalUnit) -> Outcome {
    let page = mode_page(tape, 0x10, 1).await?;
    let mut zone = page.clone();
    (zone[6], zone[7]) = (0, 5);
    check::good("MODE SELECT of PEWS", select_page(tape, &zone).await?)?;
    let outcome = programmable_zone(tape).await;
    check::good("MODE SELECT of PEWS as it was", select_page(tape, &page).await?)?;
    outcome
}

async fn programmable_zone(tape: &LogicalUnit) -> Outcome {
    check::good("LOCATE of partition 1", locate_16(tape, Some(1), 0).await?)?;
    let (first, reply) = fill(tape, SMALL + 2).await?;
    ensure(warns(&reply, PROGRAMMABLE_DETECTED), || format!("at the programmable early warning: {}", told(&reply)))?;
    let (second, reply) = fill(tape, SMALL + 2).await?;
    ensure(warns(&reply, END_DETECTED), || format!("told once, then early warning: {}", told(&reply)))?;
    ensure((3..=5).contains(&second), || format!("{second} records between the two, {first} in front"))
}

async fn not_at_beginning(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    let reply = supported("FORMAT MEDIUM", format(&tape, 0).await?)?;
    check::illegal_request("FORMAT MEDIUM behind the beginning", &reply, &[PAST_BEGINNING])?;
    tape.rewind().await?;
    expect_record(&tape, "the record after the refusal", &pattern(1, 100)).await
}

async fn append_only(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let page = mode_page(&tape, 0x10, 1).await?;
    write_records(&tape, &[pattern(1, 100), pattern(2, 200)]).await?;
    let mut only = page.clone();
    only[5] = only[5] & 0x0F | 0x10;
    check::good("MODE SELECT of WRITE MODE", select_page(&tape, &only).await?)?;
    let outcome = overwrites(&tape).await;
    check::good("MODE SELECT of WRITE MODE as it was", select_page(&tape, &page).await?)?;
    outcome
}

async fn overwrites(tape: &LogicalUnit) -> Outcome {
    write_records(tape, &[pattern(3, 300)]).await?;
    check::good("LOCATE", locate_16(tape, None, 1).await?)?;
    let reply = write(tape, 0, 100, pattern(4, 100)).await?;
    refused("WRITE(6) in the middle", &reply, SenseKey::DataProtect, &[OVERWRITE_ATTEMPTED])?;
    let mut cdb = [0; 16];
    (cdb[0], cdb[2], cdb[11]) = (0x82, 1, 1);
    check::good("ALLOW OVERWRITE", supported("ALLOW OVERWRITE", tape.command(&cdb, Data::None).await?)?)?;
    check::good("WRITE(6) where it was allowed", write(tape, 0, 100, pattern(4, 100)).await?)?;
    equal("object number", tape.read_position().await?.object, 2)
}
