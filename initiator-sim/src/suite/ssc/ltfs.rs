//! What LTFS sends to a drive: looking at it, reserving it, mkltfs, mount, unmount and unformatting.
//!
//! The commands are those of the reference implementation on a two-partition cartridge, in its order; their data is made up. The
//! tape has one partition again afterwards.

use protocol::scsi::{SenseKey, Status};

use super::{object, read, write};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::{expect_record, is_illegal_request, pattern, run_good, write_records};
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new(
        "ltfs-looks-at-the-drive",
        "SSC-4, Log parameters, Mode parameters; SPC-4, REPORT SUPPORTED",
        Needs::ScratchTape,
        |bench| Box::pin(looks(bench)),
    ),
    Case::new("ltfs-reserves-the-drive", "SPC-4, Persistent Reservations; SSC-4, Reservations", Needs::ScratchTape, |bench| {
        Box::pin(reserves(bench))
    }),
    Case::new("ltfs-sets-the-capacity", "SSC-4, SET CAPACITY command", Needs::ScratchTape, |bench| Box::pin(capacity(bench))),
    Case::new(
        "ltfs-formats-and-mounts",
        "SSC-4, FORMAT MEDIUM, LOCATE(16), READ POSITION commands",
        Needs::ScratchTape,
        |bench| Box::pin(formats(bench)),
    ),
    Case::new("ltfs-attributes", "SPC-4, WRITE ATTRIBUTE and READ ATTRIBUTE commands", Needs::ScratchTape, |bench| {
        Box::pin(attributes(bench))
    }),
];

/// LOG SENSE of cumulative values.
fn log_sense(page: u8) -> [u8; 10] {
    [0x4D, 0, 0x40 | page, 0, 0, 0, 0, 0x10, 0, 0]
}

/// Pages of MODE SENSE(10): page and subpage.
const MODE_PAGES: [(u8, u8); 5] = [(0x0A, 0xF0), (0x0F, 0), (0x10, 0), (0x10, 0x01), (0x11, 0)];
/// Log pages: TapeAlert, volume statistics, tape capacity.
const LOG_PAGES: [u8; 3] = [0x2E, 0x17, 0x31];

async fn looks(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let supported = run_good(&tape, "LOG SENSE of page 00h", &log_sense(0), Data::In(0x1000)).await?;
    if !LOG_PAGES.iter().all(|page| supported.get(4..).is_some_and(|pages| pages.contains(page))) {
        return skip("the drive has not the log pages that LTFS reads");
    }
    for page in LOG_PAGES {
        let data = run_good(&tape, &format!("LOG SENSE of page {page:02X}h"), &log_sense(page), Data::In(0x1000)).await?;
        ensure(data.len() > 4 && data[0] & 0x3F == page, || format!("log page {page:02X}h: {data:02x?}"))?;
    }
    for (page, subpage) in MODE_PAGES {
        let what = format!("MODE SENSE(10) of page {page:02X}h/{subpage:02X}h");
        let data = run_good(&tape, &what, &[0x5A, 0x08, page, subpage, 0, 0, 0, 0x01, 0, 0], Data::In(256)).await?;
        ensure(data.get(8).is_some_and(|code| code & 0x3F == page), || format!("{what}: {data:02x?}"))?;
    }
    run_good(&tape, "READ BLOCK LIMITS", &[0x05, 0, 0, 0, 0, 0], Data::In(6)).await?;
    // Time-outs of the commands that it will send: LTFS asks for all, with RCTD.
    let all =
        run_good(&tape, "REPORT SUPPORTED OPERATION CODES", &[0xA3, 0x0C, 0x80, 0, 0, 0, 0, 0, 0x40, 0, 0, 0], Data::In(0x4000));
    let all = all.await?;
    let opcodes: Vec<u8> = all.get(4..).unwrap_or_default().chunks(20).filter_map(|row| row.first().copied()).collect();
    for wanted in [0x04, 0x08, 0x0A, 0x10, 0x11, 0x1B, 0x34, 0x4D, 0x55, 0x5A, 0x82, 0x8C, 0x8D, 0x92, 0xA2, 0xB5] {
        ensure(opcodes.contains(&wanted), || format!("operation code {wanted:02X}h is not among {opcodes:02x?}"))?;
    }
    Ok(())
}

async fn reserve_out(tape: &LogicalUnit, action: u8, key: u64, action_key: u64) -> Outcome<Reply> {
    let list = [&key.to_be_bytes()[..], &action_key.to_be_bytes(), &[0; 8]].concat();
    let kind = if action == REGISTER_AND_IGNORE { 0 } else { EXCLUSIVE_ACCESS };
    Ok(tape.command(&[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], Data::Out(list.into())).await?)
}

const RESERVE: u8 = 0x01;
const RELEASE: u8 = 0x02;
const PREEMPT_AND_ABORT: u8 = 0x05;
const REGISTER_AND_IGNORE: u8 = 0x06;
const EXCLUSIVE_ACCESS: u8 = 0x03;

/// The drive is one host's until it releases it, or until another, which believes the first to be gone, preempts it.
async fn reserves(bench: &Bench) -> Outcome {
    let [a, b] = [bench.tape().await?, bench.tape().await?];
    let reply = reserve_out(&a, REGISTER_AND_IGNORE, 0, 0x0A).await?;
    check::good("REGISTER AND IGNORE EXISTING KEY", check::supported("PERSISTENT RESERVE OUT", reply)?)?;
    let held = while_reserved(&a, &b).await;
    // Nothing of it stays for the next case.
    for tape in [&a, &b] {
        tape.test_unit_ready().await?;
        check::good("REGISTER AND IGNORE EXISTING KEY", reserve_out(tape, REGISTER_AND_IGNORE, 0, 0).await?)?;
    }
    held
}

async fn while_reserved(a: &LogicalUnit, b: &LogicalUnit) -> Outcome {
    check::good("RESERVE", reserve_out(a, RESERVE, 0x0A, 0).await?)?;
    check::good("WRITE(6) by the holder", write(a, 0, 100, pattern(1, 100)).await?)?;
    for (what, status) in [
        ("READ(6) by another", read(b, 0, 100, 100).await?.status),
        ("WRITE(6) by another", write(b, 0, 100, pattern(2, 100)).await?.status),
        ("REWIND by another", b.command(&[0x01, 0, 0, 0, 0, 0], Data::None).await?.status),
    ] {
        equal(what, status, Status::ReservationConflict)?;
    }
    let full = run_good(b, "READ FULL STATUS", &[0x5E, 0x03, 0, 0, 0, 0, 0, 0x10, 0, 0], Data::In(0x1000)).await?;
    let holder = full.get(8..24).unwrap_or_default();
    ensure(holder.len() == 16 && holder[..8] == 0x0A_u64.to_be_bytes() && holder[12] & 0x01 != 0, || {
        format!("the first registrant should hold the reservation with key 0Ah: {full:02x?}")
    })?;
    check::good("REGISTER AND IGNORE EXISTING KEY of another", reserve_out(b, REGISTER_AND_IGNORE, 0, 0x0B).await?)?;
    check::good("PREEMPT AND ABORT", reserve_out(b, PREEMPT_AND_ABORT, 0x0B, 0x0A).await?)?;
    b.rewind().await?;
    check::good("RELEASE", reserve_out(b, RELEASE, 0x0B, 0).await?).map(drop)
}

/// The whole of the medium, a half of it, and the whole again; each time it is empty afterwards.
async fn capacity(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 1000)]).await?;
    let reply = set_capacity(&tape, 0x8000).await?;
    check::refused("SET CAPACITY behind the beginning", &reply, SenseKey::IllegalRequest, &[PAST_BEGINNING])?;
    tape.rewind().await?;
    check::good("SET CAPACITY to the whole", set_capacity(&tape, 0xFFFF).await?)?;
    let whole = maximum(&tape).await?;
    check::good("SET CAPACITY to a half", set_capacity(&tape, 0x8000).await?)?;
    let half = maximum(&tape).await;
    check::good("SET CAPACITY to the whole again", set_capacity(&tape, 0xFFFF).await?)?;
    let half = half?;
    // 8000h of FFFFh is a little more than a half: 18 MiB of a cartridge of 2.3 TiB.
    ensure(half.abs_diff(whole * 0x8000 / 0xFFFF) <= 1, || {
        format!("MAXIMUM CAPACITY is {whole} MiB in whole, and {half} as a half")
    })?;
    equal("MAXIMUM CAPACITY afterwards", maximum(&tape).await?, whole)?;
    check::refused("READ(6) behind SET CAPACITY", &read(&tape, 0, 1000, 1000).await?, SenseKey::BlankCheck, &[super::END_OF_DATA])
}

/// POSITION PAST BEGINNING OF MEDIUM.
const PAST_BEGINNING: (u8, u8) = (0x3B, 0x0C);

async fn set_capacity(tape: &LogicalUnit, proportion: u16) -> Outcome<Reply> {
    let [high, low] = proportion.to_be_bytes();
    check::supported("SET CAPACITY", tape.command(&[0x0B, 0, 0, high, low, 0], Data::None).await?)
}

/// MAXIMUM CAPACITY IN PARTITION of partition 0, attribute 0001h, in MiB.
async fn maximum(tape: &LogicalUnit) -> Outcome<u64> {
    let cdb = [0x8C, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0, 0, 1, 0, 0, 0];
    let data = run_good(tape, "READ ATTRIBUTE", &cdb, Data::In(256)).await?;
    let value = data.get(9..17).and_then(|value| value.try_into().ok());
    value.map_or_else(|| check::fail(format!("no attribute 0001h: {data:02x?}")), |value| Ok(u64::from_be_bytes(value)))
}

/// LOCATE(16) to an object of a partition, with CP.
async fn locate(tape: &LogicalUnit, partition: u8, object: u8) -> Outcome {
    let cdb = [0x92, 0x02, 0, partition, 0, 0, 0, 0, 0, 0, 0, object, 0, 0, 0, 0];
    run_good(tape, "LOCATE(16)", &cdb, Data::None).await.map(drop)
}

/// PARTITION, LOGICAL OBJECT NUMBER and LOGICAL FILE IDENTIFIER of READ POSITION, long form.
async fn position(tape: &LogicalUnit) -> Outcome<(u32, u64, u64)> {
    let data = run_good(tape, "READ POSITION", &[0x34, 0x06, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(32)).await?;
    ensure(data.len() == 32, || format!("{} bytes of READ POSITION data, long form", data.len()))?;
    let number = |at: usize, length: usize| data[at..at + length].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    Ok((number(4, 4) as u32, number(8, 8), number(16, 8)))
}

/// FORMAT MEDIUM, at the beginning of partition 0: the only place where it may be.
async fn format(tape: &LogicalUnit, format: u8) -> Outcome {
    run_good(tape, "FORMAT MEDIUM", &[0x04, 0, format, 0, 0, 0], Data::None).await.map(drop)
}

/// mkltfs: two partitions, the index partition of ten million bytes. False where the drive has one only.
async fn divide(tape: &LogicalUnit) -> Outcome<bool> {
    // A header of eight bytes (BUFFERED MODE 1), then the medium partition page: IDP, and sizes in units of 10^6 bytes.
    let list = [0, 0, 0, 0x10, 0, 0, 0, 0, 0x11, 0x0A, 1, 1, 0x3C, 3, 6, 0, 0x00, 0x0A, 0xFF, 0xFF];
    let reply = tape.command(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 20, 0], Data::Out(list.to_vec().into())).await?;
    if is_illegal_request(&reply) {
        return Ok(false);
    }
    check::good("MODE SELECT(10) of page 11h", reply)?;
    format(tape, 1).await?;
    Ok(true)
}

const LABEL: usize = 80;

async fn formats(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    if !divide(&tape).await? {
        return skip("the drive has no second partition");
    }
    let written = use_partitions(&tape).await;
    // One partition again, whatever came of it: the next case wants a tape as it was.
    let partition = locate(&tape, 0, 0).await;
    let whole = format(&tape, 0).await;
    written.and(partition).and(whole)?;
    equal("position after FORMAT MEDIUM", position(&tape).await?, (0, 0, 0))
}

async fn use_partitions(tape: &LogicalUnit) -> Outcome {
    // mkltfs: the label of both partitions, a filemark, the volume's description, a filemark.
    for partition in [1, 0] {
        locate(tape, partition, 0).await?;
        tape.write_record(pattern(partition, LABEL)).await?;
        tape.write_filemarks(1).await?;
        tape.write_record(pattern(10 + partition, 900)).await?;
        tape.write_filemarks(1).await?;
        equal("position behind the labels", position(tape).await?, (u32::from(partition), 4, 2))?;
    }
    // mount: labels, then the end of data of both.
    for partition in [0, 1] {
        locate(tape, partition, 0).await?;
        expect_record(tape, "the label", &pattern(partition, LABEL)).await?;
        run_good(tape, "SPACE to the end of data", &[0x11, 0x03, 0, 0, 0, 0], Data::None).await?;
        equal("position at the end of data", position(tape).await?, (u32::from(partition), 4, 2))?;
    }
    // A file's data to partition 1; unmount writes the index to both, and unloads.
    tape.write_record(pattern(20, 5000)).await?;
    tape.write_filemarks(1).await?;
    locate(tape, 0, 4).await?;
    tape.write_record(pattern(21, 700)).await?;
    tape.write_filemarks(1).await?;
    run_good(tape, "ALLOW", &[0x1E, 0, 0, 0, 0, 0], Data::None).await?;
    tape.unload().await?;
    tape.load().await?;
    tape.test_unit_ready().await?;
    equal("object and BOP after LOAD", object(tape).await?, (0, true))?;
    locate(tape, 1, 4).await?;
    expect_record(tape, "the file's data", &pattern(20, 5000)).await?;
    locate(tape, 0, 4).await?;
    expect_record(tape, "the index", &pattern(21, 700)).await
}

/// APPLICATION VENDOR, NAME and VERSION, USER MEDIUM TEXT LABEL, TEXT LOCALIZATION IDENTIFIER, BARCODE, MEDIA POOL, APPLICATION
/// FORMAT VERSION, VOLUME COHERENCY INFORMATION; with their form: 0 binary, 1 ASCII, 2 text.
const ATTRIBUTES: [(u16, u8, &[u8]); 9] = [
    (0x0800, 1, b"OFFHOST "),
    (0x0801, 1, b"a suite of conformance cases    "),
    (0x0802, 1, b"1.0     "),
    (0x0803, 2, &[b'n'; 160]),
    (0x0805, 0, &[0x81]),
    (0x0806, 1, b"OFF001L8                        "),
    (0x0808, 2, &[b'p'; 160]),
    (0x080B, 1, b"2.4.0           "),
    (0x080C, 0, &[7; 70]),
];

/// The attributes of a volume: its application, its user's name for it, and what keeps index and medium together.
async fn attributes(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    for (id, form, value) in ATTRIBUTES {
        let [high, low] = id.to_be_bytes();
        let mut list = vec![0, 0, 0, 5 + value.len() as u8, high, low, form, 0, value.len() as u8];
        list.extend(value);
        let cdb = [0x8D, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0, 0];
        let reply = check::supported("WRITE ATTRIBUTE", tape.command(&cdb, Data::Out(list.into())).await?)?;
        check::good("WRITE ATTRIBUTE", reply)?;
        let cdb = [0x8C, 0, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 1, 0, 0, 0];
        let data = run_good(&tape, "READ ATTRIBUTE", &cdb, Data::In(256)).await?;
        let attribute = data.get(4..9 + value.len()).unwrap_or_default();
        let mut wanted = vec![high, low, form, 0, value.len() as u8];
        wanted.extend(value);
        equal_bytes(&format!("attribute {id:04X}h"), attribute, &wanted)?;
    }
    Ok(())
}
