//! Mode, log and density pages that programs for tapes go by, and what a change of them does.

use bytes::Bytes;

use super::{mode_page, read, select_page, write};
use crate::client::{Data, LogicalUnit};
use crate::suite::bench::{pattern, run_good, write_records};
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes, supported};
use crate::suite::spc::{log_pages, mode_pages, vpd_pages};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("every-page-answers", "SPC-4, INQUIRY, MODE SENSE(10) and LOG SENSE commands", Needs::ScratchTape, |bench| {
        Box::pin(every_page(bench))
    }),
    Case::new("mode-page-compression", "SSC-4, Data Compression mode page", Needs::ScratchTape, |bench| {
        Box::pin(compression(bench))
    }),
    Case::new("mode-page-device-configuration", "SSC-4, Device Configuration mode page", Needs::ScratchTape, |bench| {
        Box::pin(device_configuration(bench))
    }),
    Case::new("log-page-sequential-access", "SSC-4, Sequential-Access Device log page", Needs::ScratchTape, |bench| {
        Box::pin(sequential_access(bench))
    }),
    Case::new("log-page-volume-statistics", "SSC-4, Volume Statistics log page", Needs::ScratchTape, |bench| {
        Box::pin(volume_statistics(bench))
    }),
    Case::new("log-page-tape-usage", "SPC-4, Log parameters: LTO's Tape Usage page", Needs::ScratchTape, |bench| {
        Box::pin(tape_usage(bench))
    }),
    Case::new("log-page-tape-capacity", "SPC-4, Log parameters: LTO's Tape Capacity page", Needs::ScratchTape, |bench| {
        Box::pin(tape_capacity(bench))
    }),
    Case::new("log-page-tape-alert", "SSC-4, TapeAlert log page", Needs::ScratchTape, |bench| Box::pin(tape_alert(bench))),
    Case::new("density-support", "SSC-4, REPORT DENSITY SUPPORT command", Needs::ScratchTape, |bench| Box::pin(density(bench))),
    Case::new("recover-buffered-data-refused", "SSC-4, commands for sequential-access devices", Needs::ScratchTape, |bench| {
        Box::pin(recover_buffered_data(bench))
    }),
];

/// What the cases of SPC ask of a disk; LTFS reads the density out of mode page code 3Fh.
async fn every_page(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    vpd_pages::each_answers(&tape).await?;
    mode_pages::all_pages(&tape).await?;
    log_pages::each_answers(&tape).await
}

const COMPRESSION: u8 = 0x0F;
const DCE: u8 = 0x80;
const DCC: u8 = 0x40;

async fn compression(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let page = mode_page(&tape, COMPRESSION, 0).await?;
    ensure(page.len() == 16, || format!("the page has {} bytes", page.len()))?;
    if page[2] & DCC == 0 {
        return check::skip("the drive does not compress");
    }
    let mut on = page.clone();
    on[2] |= DCE;
    check::good("MODE SELECT of DCE", select_page(&tape, &on).await?)?;
    let told = mode_page(&tape, COMPRESSION, 0).await?;
    let record = Bytes::from(vec![0x5A; 100_000]);
    let written = tape.write_record(record.clone()).await;
    select_page(&tape, &page).await?;
    written?;
    equal("DCE after MODE SELECT", told[2] & DCE, DCE)?;
    tape.rewind().await?;
    let data = check::good("READ(6)", read(&tape, 0, 100_000, 100_000).await?)?;
    equal_bytes("the record, with compression off again", &data, &record)
}

async fn device_configuration(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let page = mode_page(&tape, 0x10, 0).await?;
    ensure(page.len() == 16, || format!("the page has {} bytes", page.len()))?;
    equal("ACTIVE PARTITION", page[3], 0)?;
    let mut other = page.clone();
    other[3] ^= 0x7F;
    let reply = select_page(&tape, &other).await?;
    check::illegal_request("MODE SELECT of another active partition", &reply, &[check::INVALID_FIELD_IN_PARAMETER_LIST])
}

/// Parameters of a log page by their codes; the case is skipped where the drive has no such page.
async fn log_page(tape: &LogicalUnit, page: u8) -> Outcome<Vec<(u16, Bytes)>> {
    let reply = tape.command(&[0x4D, 0, 0x40 | page, 0, 0, 0, 0, 0x20, 0, 0], Data::In(0x2000)).await?;
    let reply = supported("LOG SENSE", reply)?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return check::skip(format!("no log page {page:02X}h"));
    }
    let data = check::good("LOG SENSE", reply)?;
    ensure(data.len() >= 4 && data[0] & 0x3F == page, || format!("not log page {page:02X}h"))?;
    let mut rest = data.slice(4..data.len().min(4 + usize::from(u16::from_be_bytes([data[2], data[3]]))));
    let mut parameters = Vec::new();
    while let Some(&[high, low, _, length]) = rest.first_chunk::<4>() {
        let end = 4 + usize::from(length);
        ensure(end <= rest.len(), || format!("parameter {high:02X}{low:02X}h does not fit its page"))?;
        parameters.push((u16::from_be_bytes([high, low]), rest.slice(4..end)));
        rest = rest.slice(end..);
    }
    ensure(parameters.is_sorted_by(|a, b| a.0 < b.0), || "parameter codes do not ascend".into())?;
    Ok(parameters)
}

fn number(parameters: &[(u16, Bytes)], code: u16) -> Option<u64> {
    let value = &parameters.iter().find(|parameter| parameter.0 == code)?.1;
    Some(value.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

async fn sequential_access(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let before = log_page(&tape, 0x0C).await?;
    write_records(&tape, &[pattern(1, 30_000), pattern(2, 20_000)]).await?;
    tape.rewind().await?;
    check::good("READ(6)", read(&tape, 0, 30_000, 30_000).await?)?;
    let after = log_page(&tape, 0x0C).await?;
    let grown = |code| number(&after, code).zip(number(&before, code)).map(|(after, before)| after.wrapping_sub(before));
    equal("bytes received from initiators, parameter 0000h", grown(0), Some(50_000))?;
    equal("bytes sent to initiators, parameter 0003h", grown(3), Some(30_000))
}

async fn volume_statistics(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let page = log_page(&tape, 0x17).await?;
    equal("PAGE VALID, parameter 0000h", number(&page, 0), Some(1))?;
    ensure(number(&page, 1).is_some_and(|loads| loads > 0), || "no loads in parameter 0001h".into())?;
    let records = page.iter().find(|parameter| parameter.0 == 0x0203);
    let Some((_, records)) = records else { return check::fail("no parameter 0203h: used capacity of partitions") };
    let first = records.first_chunk::<8>().copied();
    let expected = |record: [u8; 8]| record[..4] == [7, 0, 0, 0] && record[4..] != [0xFF; 4];
    ensure(first.is_some_and(expected), || format!("the record of partition 0 is {first:02X?}"))
}

/// The parameters and their widths by which programs tell this page from others' page 30h.
async fn tape_usage(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let page = log_page(&tape, 0x30).await?;
    let widths: Vec<(u16, usize)> = page.iter().map(|parameter| (parameter.0, parameter.1.len())).collect();
    let expected = [(1, 4), (2, 8), (3, 4), (4, 2), (5, 2), (6, 2), (7, 8), (8, 4), (9, 2), (10, 2), (11, 2)];
    if widths.first().is_none_or(|first| first.0 != 1) {
        return check::skip("page 30h is something else here");
    }
    equal("parameters and their lengths", widths, expected.to_vec())?;
    ensure(number(&page, 1).is_some_and(|loads| loads > 0), || "no loads in parameter 0001h".into())
}

async fn tape_capacity(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let page = log_page(&tape, 0x31).await?;
    ensure((1..=4).all(|code| number(&page, code).is_some()), || "a parameter of 0001h to 0004h is missing".into())?;
    let (left, whole) = (number(&page, 1), number(&page, 3));
    ensure(left <= whole && whole > Some(0), || format!("{left:?} MiB left of {whole:?}"))
}

async fn tape_alert(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let flags = log_page(&tape, 0x2E).await?;
    let codes: Vec<u16> = flags.iter().map(|flag| flag.0).collect();
    equal("flags", codes, (1..=64).collect())?;
    ensure(flags.iter().all(|flag| flag.1.len() == 1), || "a flag is not one byte".into())
}

async fn density(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let reply = tape.command(&[0x44, 1, 0, 0, 0, 0, 0, 0x10, 0, 0], Data::In(0x1000)).await?;
    let medium = check::good("REPORT DENSITY SUPPORT of the medium", supported("REPORT DENSITY SUPPORT", reply)?)?;
    ensure(medium.len() >= 56 && (medium.len() - 4) % 52 == 0, || format!("{} bytes of densities", medium.len()))?;
    let all = run_good(&tape, "REPORT DENSITY SUPPORT", &[0x44, 0, 0, 0, 0, 0, 0, 0x10, 0, 0], Data::In(0x1000)).await?;
    let codes: Vec<u8> = all[4..].chunks(52).map(|density| density[0]).collect();
    ensure(codes.is_sorted(), || format!("densities do not ascend: {codes:02X?}"))?;
    ensure(codes.contains(&medium[4]), || format!("the medium's density {:02X}h is not among {codes:02X?}", medium[4]))
}

/// A drive that accepts the command and gives something else than buffered data would be worse than one that has it not.
async fn recover_buffered_data(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    check::good("WRITE(6)", write(&tape, 0, 100, pattern(1, 100)).await?)?;
    let reply = tape.command(&[0x14, 0, 0, 0, 100, 0], Data::In(100)).await?;
    if reply.sense.is_none() {
        return check::skip("the drive has RECOVER BUFFERED DATA");
    }
    check::illegal_request("RECOVER BUFFERED DATA", &reply, &[check::INVALID_OPERATION_CODE])
}
