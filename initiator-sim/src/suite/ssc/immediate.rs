//! IMMED: the status comes at once, the work goes on, and all that is told meanwhile says so.

use std::time::Duration;

use bytes::Bytes;
use protocol::scsi::{Sense, SenseKey, Status};

use super::{END_OF_DATA, object, read, stands_at, write};
use crate::client::{Data, LogicalUnit, TaskManagement};
use crate::suite::bench::{expect_record, pattern, run_good, write_records};
use crate::suite::check::{self, Outcome, ensure, equal, fail, skip, supported, told};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("rewind-immediate", "SSC-4, REWIND command, IMMED", Needs::ScratchTape, |bench| Box::pin(rewind(bench))),
    Case::new("locate-immediate", "SSC-4, LOCATE(10) command, IMMED", Needs::ScratchTape, |bench| Box::pin(locate(bench))),
    Case::new(
        "locate-immediate-beyond-end",
        "SSC-4, LOCATE(10) command, IMMED; SPC-4, Deferred errors",
        Needs::ScratchTape,
        |bench| Box::pin(locate_beyond(bench)),
    ),
    Case::new("erase-immediate", "SSC-4, ERASE(6) command, LONG and IMMED", Needs::ScratchTape, |bench| Box::pin(erase(bench))),
    Case::new("load-unload-immediate", "SSC-4, LOAD UNLOAD command, IMMED", Needs::ScratchTape, |bench| {
        Box::pin(load_unload(bench))
    }),
    Case::new("format-immediate", "SSC-4, FORMAT MEDIUM command, IMMED", Needs::ScratchTape, |bench| Box::pin(format(bench))),
    Case::new("deferred-error-is-the-senders-own", "SPC-4, Deferred errors", Needs::ScratchTape, |bench| {
        Box::pin(own_error(bench))
    }),
    Case::new("erase-immediate-and-reset", "SAM-5, Logical unit reset; SSC-4, ERASE(6) command", Needs::ScratchTape, |bench| {
        Box::pin(erase_and_reset(bench))
    }),
    Case::new("command-timeouts", "SPC-4, REPORT SUPPORTED OPERATION CODES command, RCTD", Needs::ScratchTape, |bench| {
        Box::pin(timeouts(bench))
    }),
];

/// What a drive may say while an operation goes on: IN PROCESS OF BECOMING READY, FORMAT IN PROGRESS, OPERATION IN PROGRESS.
const IN_PROGRESS: [(u8, u8); 3] = [(0x04, 0x01), (0x04, 0x04), (0x04, 0x07)];
/// MEDIUM NOT PRESENT in its forms, and INITIALIZING COMMAND REQUIRED.
const NOT_LOADED: [(u8, u8); 4] = [(0x3A, 0x00), (0x3A, 0x01), (0x3A, 0x02), (0x04, 0x02)];
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// More than the case as a whole may take.
const LOOKS: u32 = 100_000;

/// LOCATE(10) with IMMED of object 9, which is not there.
const LOCATE_BEYOND: [u8; 10] = [0x2B, 0x01, 0, 0, 0, 0, 9, 0, 0, 0];

/// Sends a command with IMMED; the case is skipped where the drive does not have it.
async fn begin(tape: &LogicalUnit, name: &str, cdb: &[u8]) -> Outcome {
    let reply = supported(name, tape.command(cdb, Data::None).await?)?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return skip(format!("{name} has no IMMED"));
    }
    check::good(name, reply).map(drop)
}

/// Waits for the end of the operation. Gives what TEST UNIT READY said then: nothing, a deferred error, or why there is no medium.
async fn ended(tape: &LogicalUnit) -> Outcome<Option<Sense>> {
    let mut progress = 0;
    for _ in 0..LOOKS {
        let reply = tape.command(&[0; 6], Data::None).await?;
        let Some(sense) = &reply.sense else { return Ok(None) };
        match sense.key {
            SenseKey::NotReady if IN_PROGRESS.contains(&sense.code) => {
                let now = sense.progress.unwrap_or(progress);
                ensure(now >= progress, || format!("PROGRESS INDICATION went back from {progress} to {now}"))?;
                progress = now;
            }
            SenseKey::NotReady if NOT_LOADED.contains(&sense.code) => return Ok(Some(sense.clone())),
            _ if sense.deferred => return Ok(Some(sense.clone())),
            _ => return fail(format!("TEST UNIT READY while an operation may go on: {}", told(&reply))),
        }
        tokio::time::sleep(PAUSE).await;
    }
    fail("the operation does not end")
}

async fn ended_well(tape: &LogicalUnit) -> Outcome {
    equal("what TEST UNIT READY says in the end", ended(tape).await?, None)
}

async fn rewind(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 5000), pattern(2, 100)]).await?;
    begin(&tape, "REWIND", &[0x01, 0x01, 0, 0, 0, 0]).await?;
    ended_well(&tape).await?;
    equal("object and BOP", object(&tape).await?, (0, true))?;
    expect_record(&tape, "the first record", &pattern(1, 5000)).await
}

async fn locate(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100), pattern(2, 200), pattern(3, 300)]).await?;
    begin(&tape, "LOCATE(10)", &[0x2B, 0x01, 0, 0, 0, 0, 1, 0, 0, 0]).await?;
    ended_well(&tape).await?;
    stands_at(&tape, "after LOCATE", 1).await?;
    expect_record(&tape, "the second record", &pattern(2, 200)).await
}

/// Either the drive knows at once, or it says so with the next command.
async fn locate_beyond(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    let reply = supported("LOCATE(10)", tape.command(&LOCATE_BEYOND, Data::None).await?)?;
    let sense = match reply.sense {
        Some(sense) if sense.code == check::INVALID_FIELD_IN_CDB => return skip("LOCATE(10) has no IMMED"),
        Some(sense) => sense,
        None => match told_late(&tape).await? {
            Some(deferred) => deferred,
            None => return fail("there is no object 9, and nobody was told"),
        },
    };
    equal("sense key and code", (sense.key, sense.code), (SenseKey::BlankCheck, END_OF_DATA))?;
    run_good(&tape, "TEST UNIT READY once it was told", &[0; 6], Data::None).await.map(drop)
}

/// Another nexus that looks meanwhile is told that the drive works, and not what became of it.
async fn own_error(bench: &Bench) -> Outcome {
    let (tape, other) = (bench.tape().await?, bench.drive().await?);
    write_records(&tape, &[pattern(1, 100)]).await?;
    let reply = supported("LOCATE(10)", tape.command(&LOCATE_BEYOND, Data::None).await?)?;
    if reply.sense.is_some() {
        return skip("LOCATE(10) has no IMMED, or looks before it answers");
    }
    let seen = ended(&other).await?;
    ensure(seen.is_none(), || format!("TEST UNIT READY of another nexus tells {seen:?}"))?;
    match told_late(&tape).await? {
        Some(sense) if sense.deferred => {
            equal("sense key and code", (sense.key, sense.code), (SenseKey::BlankCheck, END_OF_DATA))
        }
        seen => fail(format!("there is no object 9, and who asked for it was told {seen:?}")),
    }
}

/// A reset in the middle of an operation: nexuses are told of it, and the drive comes back and works.
async fn erase_and_reset(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let record = Bytes::from(vec![0x5A; 1 << 18]);
    write_records(&tape, &vec![record; 64]).await?;
    tape.rewind().await?;
    begin(&tape, "ERASE(6)", &[0x19, 0x03, 0, 0, 0, 0]).await?;
    tape.client().task_management(TaskManagement::LogicalUnitReset(tape.number())).await?;
    // What the reset has to tell comes first where the drive tells it at all.
    tape.command(&[0; 6], Data::None).await?;
    ended_well(&tape).await?;
    tape.rewind().await?;
    write_records(&tape, &[pattern(3, 300)]).await?;
    tape.rewind().await?;
    expect_record(&tape, "a record written after the reset", &pattern(3, 300)).await
}

/// As [`ended`]. A command that was on its way when the operation ended may pass untold: then the one behind it is told.
async fn told_late(tape: &LogicalUnit) -> Outcome<Option<Sense>> {
    match ended(tape).await? {
        None => ended(tape).await,
        told => Ok(told),
    }
}

/// While the drive says that it erases, nobody gets at the medium; INQUIRY and REQUEST SENSE answer.
async fn erase(bench: &Bench) -> Outcome {
    const RECORD: usize = 1 << 18;
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    let record = Bytes::from(vec![0x5A; RECORD]);
    for _ in 0..96 {
        check::good("WRITE(6)", write(&tape, 0, RECORD as u32, record.clone()).await?)?;
    }
    check::good("LOCATE(10)", tape.command(&[0x2B, 0, 0, 0, 0, 0, 1, 0, 0, 0], Data::None).await?)?;
    begin(&tape, "ERASE(6)", &[0x19, 0x03, 0, 0, 0, 0]).await?;
    run_good(&tape, "INQUIRY", &[0x12, 0, 0, 0, 36, 0], Data::In(36)).await?;
    let sense = run_good(&tape, "REQUEST SENSE", &[0x03, 0, 0, 0, 252, 0], Data::In(252)).await?;
    let key = sense.get(2).map(|byte| byte & 0x0F);
    ensure(matches!(key, Some(0x0 | 0x2)), || format!("REQUEST SENSE tells sense key {key:02X?}"))?;
    let early = read(&tape, 0, RECORD as u32, RECORD as u32).await?;
    let refused = early.status == Status::CheckCondition && early.data.is_empty();
    ensure(refused, || format!("READ(6) of what is being erased: {}", told(&early)))?;
    ended_well(&tape).await?;
    tape.rewind().await?;
    expect_record(&tape, "the record in front", &pattern(1, 100)).await?;
    let behind = read(&tape, 0, 1000, 1000).await?;
    check::refused("READ(6) of what was erased", &behind, SenseKey::BlankCheck, &[END_OF_DATA])
}

async fn load_unload(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    begin(&tape, "LOAD UNLOAD", &[0x1B, 0x01, 0, 0, 0, 0]).await?;
    let unloaded = ended(&tape).await?;
    let loaded = begin(&tape, "LOAD UNLOAD, to load", &[0x1B, 0x01, 0, 0, 1, 0]).await;
    let ready = ended(&tape).await;
    // The next case wants a tape.
    tape.load().await?;
    loaded?;
    equal("what TEST UNIT READY says in the end", ready?, None)?;
    ensure(unloaded.is_some_and(|sense| NOT_LOADED.contains(&sense.code)), || "ready without a medium".to_owned())?;
    equal("object and BOP after LOAD", object(&tape).await?, (0, true))?;
    expect_record(&tape, "the record", &pattern(1, 100)).await
}

async fn format(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    tape.rewind().await?;
    begin(&tape, "FORMAT MEDIUM", &[0x04, 0x01, 0, 0, 0, 0]).await?;
    ended_well(&tape).await?;
    let empty = read(&tape, 0, 1000, 1000).await?;
    check::refused("READ(6) of a medium that was formatted", &empty, SenseKey::BlankCheck, &[END_OF_DATA])
}

/// Of every command that has a timeouts descriptor, and of those that take longest there is one that says more than nothing.
async fn timeouts(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    for (name, opcode) in [("REWIND", 0x01), ("WRITE(6)", 0x0A), ("SPACE(6)", 0x11), ("LOAD UNLOAD", 0x1B)] {
        let cdb = [0xA3, 0x0C, 0x81, opcode, 0, 0, 0, 0, 1, 0, 0, 0];
        let reply = supported("REPORT SUPPORTED OPERATION CODES", tape.command(&cdb, Data::In(256)).await?)?;
        let data = check::good("REPORT SUPPORTED OPERATION CODES", reply)?;
        let [_, flags, high, low, ..] = data[..] else { return fail(format!("{} bytes of one command", data.len())) };
        if flags & 0x80 == 0 {
            return skip("the drive has no command timeouts descriptors");
        }
        let at = 4 + usize::from(u16::from_be_bytes([high, low]));
        let Some(descriptor) = data.get(at..at + 12) else {
            return fail(format!("{name}: no timeouts descriptor in {data:02x?}"));
        };
        equal(&format!("{name}: descriptor length"), descriptor[..2].to_vec(), vec![0x00, 0x0A])?;
        ensure(descriptor[4..].iter().any(|byte| *byte != 0), || format!("{name}: neither a nominal nor a recommended timeout"))?;
    }
    Ok(())
}
