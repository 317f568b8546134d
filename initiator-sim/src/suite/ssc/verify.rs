//! VERIFY(6): by filemarks, to the end of data, and what its flags do not go with.

use protocol::scsi::SenseKey;

use super::{END_OF_DATA, information, object, stands_at};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::{pattern, write_records};
use crate::suite::check::{self, Outcome, equal, skip, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("verify-by-filemarks", "SSC-4, VERIFY(6) command, VBF", Needs::ScratchTape, |bench| Box::pin(by_filemarks(bench))),
    Case::new("verify-to-end-of-data", "SSC-4, VERIFY(6) command, VTE", Needs::ScratchTape, |bench| Box::pin(to_end(bench))),
    Case::new("verify-flags-excluded", "SSC-4, VERIFY(6) command, VTE and VBF", Needs::ScratchTape, |bench| {
        Box::pin(excluded(bench))
    }),
];

const VTE: u8 = 0x20;
const VBF: u8 = 0x08;

/// Two files of two records and one, then a record without a mark behind it; rewound.
async fn written(bench: &Bench) -> Outcome<LogicalUnit> {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 100), pattern(2, 70_000)]).await?;
    check::good("WRITE FILEMARKS(6)", tape.command(&[0x10, 0, 0, 0, 1, 0], Data::None).await?)?;
    write_records(&tape, &[pattern(3, 300)]).await?;
    check::good("WRITE FILEMARKS(6)", tape.command(&[0x10, 0, 0, 0, 1, 0], Data::None).await?)?;
    write_records(&tape, &[pattern(4, 400)]).await?;
    tape.rewind().await?;
    Ok(tape)
}

async fn verify(tape: &LogicalUnit, flags: u8, length: u8) -> Outcome<Reply> {
    let reply = supported("VERIFY(6)", tape.command(&[0x13, flags, 0, 0, length, 0], Data::None).await?)?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return skip(format!("VERIFY(6) has no flags {flags:02X}h"));
    }
    Ok(reply)
}

async fn by_filemarks(bench: &Bench) -> Outcome {
    let tape = written(bench).await?;
    check::good("VERIFY(6) of one file", verify(&tape, VBF, 1).await?)?;
    stands_at(&tape, "behind the first filemark", 3).await?;
    let reply = verify(&tape, VBF, 2).await?;
    check::refused("VERIFY(6) of two files where there is one", &reply, SenseKey::BlankCheck, &[END_OF_DATA])?;
    equal("INFORMATION", reply.sense.as_ref().and_then(information), Some(1))?;
    stands_at(&tape, "at the end of data", 6).await
}

async fn to_end(bench: &Bench) -> Outcome {
    let tape = written(bench).await?;
    check::good("VERIFY(6) to the end of data", verify(&tape, VTE, 0).await?)?;
    stands_at(&tape, "at the end of data", 6).await?;
    check::good("VERIFY(6) at the end of data", verify(&tape, VTE, 0).await?)?;
    equal("object at the end of data", object(&tape).await?.0, 6)
}

async fn excluded(bench: &Bench) -> Outcome {
    let tape = written(bench).await?;
    check::good("VERIFY(6) of no file", verify(&tape, VBF, 0).await?)?;
    stands_at(&tape, "after nothing was verified", 0).await?;
    let both = tape.command(&[0x13, VTE | VBF, 0, 0, 1, 0], Data::None).await?;
    check::illegal_request("VERIFY(6) with VTE and VBF", &both, &[check::INVALID_FIELD_IN_CDB])?;
    stands_at(&tape, "after it was refused", 0).await
}
