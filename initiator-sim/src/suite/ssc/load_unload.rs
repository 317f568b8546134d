//! LOAD UNLOAD: an unloaded drive is not ready, a loaded one stands at the beginning with its data.

use super::object;
use crate::client::Data;
use crate::suite::bench::{expect_record, pattern, write_records};
use crate::suite::check::{self, Outcome, equal, refused};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::SenseKey;

pub const CASES: &[Case] =
    &[Case::new("load-and-unload", "SSC-4, LOAD UNLOAD command", Needs::ScratchTape, |bench| Box::pin(load_and_unload(bench)))];

/// MEDIUM NOT PRESENT, its closed-tray form, and INITIALIZING COMMAND REQUIRED.
const NOT_LOADED: [(u8, u8); 3] = [(0x3A, 0x00), (0x3A, 0x01), (0x04, 0x02)];

async fn load_and_unload(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    tape.unload().await?;
    let unready = tape.command(&[0; 6], Data::None).await?;
    let read = super::read(&tape, 0, 100, 100).await?;
    // Loaded again before anything is judged: the next case wants a tape.
    tape.load().await?;
    tape.test_unit_ready().await?;
    refused("TEST UNIT READY without a tape", &unready, SenseKey::NotReady, &NOT_LOADED)?;
    refused("READ(6) without a tape", &read, SenseKey::NotReady, &NOT_LOADED)?;
    equal("object and BOP after LOAD", object(&tape).await?, (0, true))?;
    expect_record(&tape, "the record", &pattern(1, 100)).await?;
    check::good("READ POSITION", tape.command(&[0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(20)).await?).map(drop)
}
