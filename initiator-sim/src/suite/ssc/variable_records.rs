//! Variable block transfer: a record comes back as it was written, whatever its length.

use super::{read, stands_at, write};
use crate::suite::bench::{expect_record, pattern, write_records};
use crate::suite::check::{self, Outcome, equal};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("variable-records", "SSC-4, WRITE(6) and READ(6) commands, FIXED=0", Needs::ScratchTape, |bench| {
        Box::pin(variable_records(bench))
    }),
    Case::new("zero-length-transfers", "SSC-4, READ(6) command, TRANSFER LENGTH 0", Needs::ScratchTape, |bench| {
        Box::pin(zero_length(bench))
    }),
];

/// One byte, odd lengths, a usual record, and one more than 64 KiB.
const LENGTHS: [usize; 8] = [1, 2, 3, 511, 512, 10_240, 65_537, 1];

async fn variable_records(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let records: Vec<_> = LENGTHS.iter().zip(1..).map(|(length, seed)| pattern(seed, *length)).collect();
    write_records(&tape, &records).await?;
    stands_at(&tape, "behind eight records", 8).await?;
    tape.rewind().await?;
    for record in &records {
        expect_record(&tape, &format!("the record of {} bytes", record.len()), record).await?;
    }
    Ok(())
}

async fn zero_length(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    check::good("WRITE(6) of no bytes", write(&tape, 0, 0, bytes::Bytes::new()).await?)?;
    stands_at(&tape, "after WRITE(6) of no bytes", 1).await?;
    tape.rewind().await?;
    let data = check::good("READ(6) of no bytes", read(&tape, 0, 0, 0).await?)?;
    equal("bytes that came", data.len(), 0)?;
    stands_at(&tape, "after READ(6) of no bytes", 0).await
}
