//! A write in the middle makes its end the end of data.

use super::stands_at;
use crate::client::TapeRead;
use crate::suite::bench::{expect_record, pattern, tape_read_text, write_records};
use crate::suite::check::{Outcome, fail};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("overwrite-truncates", "SSC-4, End-of-data; WRITE(6) command", Needs::ScratchTape, |bench| {
        Box::pin(record_truncates(bench))
    }),
    Case::new("filemark-truncates", "SSC-4, End-of-data; WRITE FILEMARKS(6) command", Needs::ScratchTape, |bench| {
        Box::pin(filemark_truncates(bench))
    }),
];

async fn record_truncates(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let records: Vec<_> = (1..=5).map(|seed| pattern(seed, 1000 * usize::from(seed))).collect();
    write_records(&tape, &records).await?;
    tape.rewind().await?;
    for record in &records[..2] {
        expect_record(&tape, "a record before", record).await?;
    }
    let other = pattern(0x77, 333);
    write_records(&tape, std::slice::from_ref(&other)).await?;
    ends_here(&tape).await?;
    tape.rewind().await?;
    for record in records[..2].iter().chain([&other]) {
        expect_record(&tape, "a record after the overwrite", record).await?;
    }
    ends_here(&tape).await
}

async fn filemark_truncates(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100), pattern(2, 100)]).await?;
    tape.rewind().await?;
    tape.write_filemarks(1).await?;
    ends_here(&tape).await?;
    stands_at(&tape, "behind the filemark", 1).await
}

async fn ends_here(tape: &crate::client::LogicalUnit) -> Outcome {
    match tape.read_record(65_536).await? {
        TapeRead::EndOfData => Ok(()),
        other => fail(format!("expected the end of data, got {}", tape_read_text(&other))),
    }
}
