//! ERASE makes the position the end of data.

use crate::client::{Data, TapeRead};
use crate::suite::bench::{expect_record, pattern, tape_read_text, write_records};
use crate::suite::check::{self, Outcome, fail, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("erase-from-here", "SSC-4, ERASE(6) command, LONG=1", Needs::ScratchTape, |bench| Box::pin(erase(bench)))];

async fn erase(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100), pattern(2, 200), pattern(3, 300)]).await?;
    tape.rewind().await?;
    expect_record(&tape, "the first record", &pattern(1, 100)).await?;
    let reply = supported("ERASE(6)", tape.command(&[0x19, 0x01, 0, 0, 0, 0], Data::None).await?)?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return check::skip("the target does not have LONG=1");
    }
    check::good("ERASE(6)", reply)?;
    tape.rewind().await?;
    expect_record(&tape, "the first record after ERASE", &pattern(1, 100)).await?;
    match tape.read_record(1000).await? {
        TapeRead::EndOfData => Ok(()),
        other => fail(format!("behind it: expected the end of data, got {}", tape_read_text(&other))),
    }
}
