//! Fixed block transfer: the block length of the mode parameters cuts the data.

use super::{read, stands_at, write};
use crate::client::Data;
use crate::suite::bench::{expect_record, pattern};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, Outcome, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("fixed-blocks", "SSC-4, WRITE(6) and READ(6) commands, FIXED=1", Needs::ScratchTape, |bench| {
        Box::pin(fixed_blocks(bench))
    }),
    Case::new(
        "fixed-without-block-length",
        "SSC-4, READ(6) command, FIXED=1 with block length zero",
        Needs::ScratchTape,
        |bench| Box::pin(without_block_length(bench)),
    ),
    Case::new("block-length-in-mode-header", "SPC-4, Mode parameter block descriptor; SSC-4", Needs::ScratchTape, |bench| {
        Box::pin(in_mode_header(bench))
    }),
];

const FIXED: u8 = 0x01;

async fn fixed_blocks(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    tape.set_tape_block_length(512).await?;
    let data = pattern(0xF1, 4 * 512);
    check::good("WRITE(6) of four blocks", write(&tape, FIXED, 4, data.clone()).await?)?;
    stands_at(&tape, "behind four blocks", 4).await?;
    tape.rewind().await?;
    for half in [&data[..1024], &data[1024..]] {
        let got = check::good("READ(6) of two blocks", read(&tape, FIXED, 2, 1024).await?)?;
        equal_bytes("two blocks", &got, half)?;
    }
    // The blocks are records like any other.
    tape.rewind().await?;
    tape.set_tape_block_length(0).await?;
    expect_record(&tape, "the first block read as a record", &data[..512]).await
}

async fn without_block_length(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let reply = read(&tape, FIXED, 1, 512).await?;
    check::illegal_request("READ(6) with FIXED=1 in variable mode", &reply, &[INVALID_FIELD_IN_CDB])?;
    let reply = write(&tape, FIXED, 1, pattern(0, 512)).await?;
    check::illegal_request("WRITE(6) with FIXED=1 in variable mode", &reply, &[INVALID_FIELD_IN_CDB])?;
    stands_at(&tape, "after the refusals", 0).await
}

async fn in_mode_header(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    for length in [1024_u32, 0] {
        tape.set_tape_block_length(length).await?;
        let mode = tape.good("MODE SENSE(6)", &[0x1A, 0, 0, 0, 12, 0], Data::In(12)).await?.data;
        check::ensure(mode.len() == 12 && mode[3] == 8, || format!("mode parameters {mode:02x?} hold no block descriptor"))?;
        equal("BLOCK LENGTH", u32::from_be_bytes([0, mode[9], mode[10], mode[11]]), length)?;
    }
    Ok(())
}
