//! LOCATE to any object, and to none.

use super::{Stopped, stands_at};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::{pattern, write_records};
use crate::suite::check::{self, Outcome, equal, equal_bytes, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("locate-10-and-16", "SSC-4, LOCATE(10) and LOCATE(16) commands", Needs::ScratchTape, |bench| {
        Box::pin(locate(bench))
    }),
    Case::new("locate-beyond-end-of-data", "SSC-4, LOCATE(10) command", Needs::ScratchTape, |bench| Box::pin(beyond_end(bench))),
];

const RECORDS: u8 = 9;

async fn ten(tape: &LogicalUnit, object: u32) -> Outcome<Reply> {
    let [a, b, c, d] = object.to_be_bytes();
    supported("LOCATE(10)", tape.command(&[0x2B, 0, 0, a, b, c, d, 0, 0, 0], Data::None).await?)
}

async fn sixteen(tape: &LogicalUnit, object: u32) -> Outcome<Reply> {
    let mut cdb = [0; 16];
    cdb[0] = 0x92;
    cdb[8..12].copy_from_slice(&object.to_be_bytes());
    supported("LOCATE(16)", tape.command(&cdb, Data::None).await?)
}

async fn furnished(bench: &Bench) -> Outcome<LogicalUnit> {
    let tape = bench.tape().await?;
    let records: Vec<_> = (0..RECORDS).map(|seed| pattern(seed, 100 + usize::from(seed))).collect();
    write_records(&tape, &records).await?;
    Ok(tape)
}

async fn locate(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    for (turn, object) in [7, 0, 8, 3, 3, 1].into_iter().enumerate() {
        let reply = if turn % 2 == 0 { ten(&tape, object).await? } else { sixteen(&tape, object).await? };
        check::good(&format!("LOCATE of object {object}"), reply)?;
        stands_at(&tape, "after LOCATE", object).await?;
        let length = 100 + object;
        let data = check::good("READ(6)", super::read(&tape, 0, length, length).await?)?;
        equal_bytes(&format!("record {object}"), &data, &pattern(object as u8, length as usize))?;
    }
    check::good("LOCATE of the end of data", sixteen(&tape, RECORDS.into()).await?)?;
    stands_at(&tape, "after LOCATE", RECORDS.into()).await
}

async fn beyond_end(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    tape.rewind().await?;
    let reply = ten(&tape, u32::from(RECORDS) + 5).await?;
    let expected = Stopped::AT_END_OF_DATA;
    equal(
        "LOCATE behind the end of data: key and code",
        reply.sense.as_ref().map(|sense| (sense.key, sense.code)),
        Some((expected.key, expected.code)),
    )?;
    stands_at(&tape, "at the end of data", RECORDS.into()).await
}
