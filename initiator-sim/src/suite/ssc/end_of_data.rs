//! Behind the last record there is nothing: BLANK CHECK, and the position stays.

use super::{Stopped, read, stands_at};
use crate::suite::bench::{pattern, write_records};
use crate::suite::check::{Outcome, equal};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("end-of-data", "SSC-4, READ(6) command; END-OF-DATA DETECTED", Needs::ScratchTape, |bench| {
        Box::pin(end_of_data(bench))
    }),
    Case::new("end-of-data-in-fixed-read", "SSC-4, READ(6) command, FIXED=1", Needs::ScratchTape, |bench| {
        Box::pin(in_fixed_read(bench))
    }),
];

async fn end_of_data(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    for round in ["first", "second"] {
        let reply = read(&tape, 0, 512, 512).await?;
        Stopped::AT_END_OF_DATA.left(512).check(&format!("the {round} READ(6) at the end of data"), &reply)?;
        equal("bytes that came", reply.data.len(), 0)?;
        stands_at(&tape, "at the end of data", 1).await?;
    }
    Ok(())
}

async fn in_fixed_read(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 512), pattern(2, 512)]).await?;
    tape.rewind().await?;
    tape.set_tape_block_length(512).await?;
    let reply = read(&tape, 1, 5, 5 * 512).await;
    tape.set_tape_block_length(0).await?;
    let reply = reply?;
    Stopped::AT_END_OF_DATA.left(3).check("READ(6) of five blocks where two are", &reply)?;
    equal("bytes that came", reply.data.len(), 1024)
}
