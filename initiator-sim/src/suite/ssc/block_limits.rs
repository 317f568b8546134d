//! READ BLOCK LIMITS says what WRITE takes.

use super::{stands_at, write};
use crate::client::Data;
use crate::suite::bench::{pattern, run_good};
use crate::suite::check::{self, Outcome, ensure, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] =
    &[Case::new("block-limits", "SSC-4, READ BLOCK LIMITS command", Needs::ScratchTape, |bench| Box::pin(block_limits(bench)))];

async fn block_limits(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let limits = run_good(&tape, "READ BLOCK LIMITS", &[5, 0, 0, 0, 0, 0], Data::In(6)).await?;
    ensure(limits.len() == 6, || format!("{} bytes of block limits", limits.len()))?;
    let maximum = u32::from_be_bytes([0, limits[1], limits[2], limits[3]]);
    let minimum = u32::from(u16::from_be_bytes([limits[4], limits[5]]));
    ensure(minimum >= 1 && (maximum == 0 || minimum <= maximum), || format!("minimum {minimum}, maximum {maximum}"))?;
    check::good("WRITE(6) of the minimum", write(&tape, 0, minimum, pattern(1, minimum as usize)).await?)?;
    if maximum == 0 || maximum >= 0xFF_FFFF {
        return skip("no record over the maximum can be asked for");
    }
    let over = maximum + 1;
    let reply = write(&tape, 0, over, pattern(1, over as usize)).await?;
    check::illegal_request("WRITE(6) over the maximum", &reply, &[check::INVALID_FIELD_IN_CDB])?;
    stands_at(&tape, "after the refusal", 1).await
}
