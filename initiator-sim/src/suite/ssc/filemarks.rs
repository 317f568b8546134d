//! Filemarks: written, met by a read, counted.

use super::{Stopped, read, stands_at};
use crate::client::{Data, TapeRead};
use crate::suite::bench::{expect_record, pattern, tape_read_text, write_records};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, equal, fail};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("filemark-met", "SSC-4, READ(6) command; FILEMARK bit", Needs::ScratchTape, |bench| Box::pin(met(bench))),
    Case::new("filemarks-several", "SSC-4, WRITE FILEMARKS(6) command", Needs::ScratchTape, |bench| Box::pin(several(bench))),
    Case::new("filemarks-none", "SSC-4, WRITE FILEMARKS(6) command, count 0", Needs::ScratchTape, |bench| Box::pin(none(bench))),
    Case::new("filemarks-in-fixed-read", "SSC-4, READ(6) command, FIXED=1", Needs::ScratchTape, |bench| {
        Box::pin(in_fixed(bench))
    }),
    Case::new("filemarks-reserved-bit", "SSC-4, WRITE FILEMARKS(6) command", Needs::ScratchTape, |bench| {
        Box::pin(setmarks(bench))
    }),
];

async fn met(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let (one, two) = (pattern(1, 600), pattern(2, 700));
    write_records(&tape, std::slice::from_ref(&one)).await?;
    tape.write_filemarks(1).await?;
    write_records(&tape, std::slice::from_ref(&two)).await?;
    tape.rewind().await?;
    expect_record(&tape, "the record before the filemark", &one).await?;
    let reply = read(&tape, 0, 4096, 4096).await?;
    Stopped::AT_FILEMARK.left(4096).check("READ(6) at a filemark", &reply)?;
    equal("bytes that came with the filemark", reply.data.len(), 0)?;
    stands_at(&tape, "behind the filemark", 2).await?;
    expect_record(&tape, "the record behind the filemark", &two).await
}

async fn several(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 10)]).await?;
    tape.write_filemarks(3).await?;
    stands_at(&tape, "behind a record and three filemarks", 4).await?;
    tape.rewind().await?;
    tape.read_record(10).await?;
    for mark in 1..=3 {
        match tape.read_record(10).await? {
            TapeRead::Filemark => {}
            other => return fail(format!("filemark {mark} of 3: got {}", tape_read_text(&other))),
        }
    }
    Ok(())
}

/// A count of zero writes nothing, but what is buffered reaches the medium.
async fn none(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 10)]).await?;
    tape.write_filemarks(0).await?;
    stands_at(&tape, "after WRITE FILEMARKS of none", 1).await?;
    // In the middle of the tape it must not cut off what follows.
    write_records(&tape, &[pattern(2, 20)]).await?;
    tape.rewind().await?;
    tape.read_record(10).await?;
    tape.write_filemarks(0).await?;
    expect_record(&tape, "the record behind", &pattern(2, 20)).await
}

async fn in_fixed(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 512)]).await?;
    tape.write_filemarks(1).await?;
    tape.rewind().await?;
    tape.set_tape_block_length(512).await?;
    let reply = read(&tape, 1, 4, 4 * 512).await;
    tape.set_tape_block_length(0).await?;
    let reply = reply?;
    Stopped::AT_FILEMARK.left(3).check("READ(6) of four blocks, one before a filemark", &reply)?;
    check::equal_bytes("the block before it", &reply.data, &pattern(1, 512))
}

/// WSMK is obsolete: setmarks do not exist, and a filemark must not be written in its place.
async fn setmarks(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let reply = tape.command(&[0x10, 0x02, 0, 0, 1, 0], Data::None).await?;
    if reply.status == protocol::scsi::Status::Good {
        return check::skip("the target ignores the obsolete WSMK bit, as it may");
    }
    check::illegal_request("WRITE FILEMARKS(6) with WSMK", &reply, &[INVALID_FIELD_IN_CDB])?;
    stands_at(&tape, "after the refusal", 0).await
}
