//! A record that is not as long as was asked: ILI, and the difference in INFORMATION.

use super::{Stopped, read, stands_at};
use crate::client::Residual;
use crate::suite::bench::{pattern, write_records};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("record-shorter-than-asked", "SSC-4, READ(6) command, SILI=0", Needs::ScratchTape, |bench| {
        Box::pin(shorter(bench))
    }),
    Case::new("record-longer-than-asked", "SSC-4, READ(6) command, SILI=0", Needs::ScratchTape, |bench| Box::pin(longer(bench))),
    Case::new("record-length-suppressed", "SSC-4, READ(6) command, SILI=1", Needs::ScratchTape, |bench| {
        Box::pin(suppressed(bench))
    }),
    Case::new("fixed-block-of-other-length", "SSC-4, READ(6) command, FIXED=1", Needs::ScratchTape, |bench| {
        Box::pin(fixed_mismatch(bench))
    }),
];

const SILI: u8 = 0x02;
const FIXED: u8 = 0x01;

async fn shorter(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let record = pattern(5, 1000);
    write_records(&tape, std::slice::from_ref(&record)).await?;
    tape.rewind().await?;
    let reply = read(&tape, 0, 4096, 4096).await?;
    Stopped::WRONG_LENGTH.left(3096).check("READ(6) of 4096 bytes at a record of 1000", &reply)?;
    equal("residual", reply.residual, Residual::Underflow(3096))?;
    equal_bytes("the record", &reply.data, &record)?;
    stands_at(&tape, "behind the record", 1).await
}

async fn longer(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let record = pattern(6, 1000);
    write_records(&tape, std::slice::from_ref(&record)).await?;
    tape.rewind().await?;
    let reply = read(&tape, 0, 300, 300).await?;
    Stopped::WRONG_LENGTH.left(-700).check("READ(6) of 300 bytes at a record of 1000", &reply)?;
    equal_bytes("what had room", &reply.data, &record[..300])?;
    stands_at(&tape, "behind the record", 1).await
}

async fn suppressed(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let record = pattern(7, 1000);
    write_records(&tape, std::slice::from_ref(&record)).await?;
    tape.rewind().await?;
    let reply = read(&tape, SILI, 4096, 4096).await?;
    equal("residual", reply.residual, Residual::Underflow(3096))?;
    equal_bytes("READ(6) with SILI=1", &check::good("READ(6) with SILI=1 at a shorter record", reply)?, &record)?;
    let reply = read(&tape, SILI | FIXED, 1, 512).await?;
    check::illegal_request("READ(6) with SILI=1 and FIXED=1", &reply, &[INVALID_FIELD_IN_CDB])
}

async fn fixed_mismatch(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let records = [pattern(1, 512), pattern(2, 512), pattern(3, 100), pattern(4, 512)];
    write_records(&tape, &records).await?;
    tape.rewind().await?;
    tape.set_tape_block_length(512).await?;
    let reply = read(&tape, FIXED, 4, 4 * 512).await;
    tape.set_tape_block_length(0).await?;
    let reply = reply?;
    // "The difference between the requested transfer length and the actual number of blocks read, not including the
    // incorrect length block."
    Stopped::WRONG_LENGTH.left(2).check("READ(6) of four blocks, the third too short", &reply)?;
    equal_bytes("the two blocks before it", &reply.data[..reply.data.len().min(1024)], &[&records[0][..], &records[1]].concat())?;
    stands_at(&tape, "behind the block of another length", 3).await
}
