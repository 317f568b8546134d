//! READ POSITION in its three forms tells one truth.

use super::object;
use crate::client::{Data, LogicalUnit};
use crate::suite::bench::{is_illegal_request, pattern, write_records};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("position-at-beginning", "SSC-4, READ POSITION command, BOP", Needs::ScratchTape, |bench| {
        Box::pin(at_beginning(bench))
    }),
    Case::new(
        "position-forms-agree",
        "SSC-4, READ POSITION command, service actions 00h, 06h, 08h",
        Needs::ScratchTape,
        |bench| Box::pin(forms_agree(bench)),
    ),
    Case::new("position-unknown-form", "SSC-4, READ POSITION command, SERVICE ACTION", Needs::ScratchTape, |bench| {
        Box::pin(unknown_form(bench))
    }),
];

async fn at_beginning(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    equal("object and BOP after REWIND", object(&tape).await?, (0, true))?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    equal("object and BOP behind a record", object(&tape).await?, (1, false))
}

async fn long(tape: &LogicalUnit) -> Outcome<(u64, u64)> {
    let reply = tape.command(&[0x34, 6, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(32)).await?;
    if is_illegal_request(&reply) {
        return skip("the target does not have the long form");
    }
    let data = check::good("READ POSITION, long form", reply)?;
    ensure(data.len() == 32, || format!("{} bytes in the long form", data.len()))?;
    let word = |at: usize| u64::from_be_bytes(data[at..at + 8].try_into().expect("eight bytes"));
    Ok((word(8), word(16)))
}

async fn forms_agree(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100), pattern(2, 100)]).await?;
    tape.write_filemarks(2).await?;
    write_records(&tape, &[pattern(3, 100)]).await?;
    equal("short form", object(&tape).await?, (5, false))?;
    equal("long form: LOGICAL OBJECT NUMBER and LOGICAL FILE ID", long(&tape).await?, (5, 2))?;
    let reply = tape.command(&[0x34, 8, 0, 0, 0, 0, 0, 0, 32, 0], Data::In(32)).await?;
    if is_illegal_request(&reply) {
        return skip("the target does not have the extended form; the other two agree");
    }
    let data = check::good("READ POSITION, extended form", reply)?;
    ensure(data.len() == 32, || format!("{} bytes in the extended form", data.len()))?;
    equal("extended form: ADDITIONAL LENGTH", u16::from_be_bytes([data[2], data[3]]), 0x1C)?;
    let first = u64::from_be_bytes(data[8..16].try_into().expect("eight bytes"));
    equal("extended form: FIRST LOGICAL OBJECT LOCATION", first, 5)
}

async fn unknown_form(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let reply = tape.command(&[0x34, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(32)).await?;
    check::illegal_request("READ POSITION with service action 1Fh", &reply, &[INVALID_FIELD_IN_CDB])
}
