//! READ REVERSE and VERIFY.

use protocol::scsi::SenseKey;

use super::{Stopped, stands_at};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::{pattern, write_records};
use crate::suite::check::{self, Outcome, equal_bytes, refused, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("read-reverse", "SSC-4, READ REVERSE(6) command", Needs::ScratchTape, |bench| Box::pin(read_reverse(bench))),
    Case::new("verify", "SSC-4, VERIFY(6) command", Needs::ScratchTape, |bench| Box::pin(verify(bench))),
];

const BYTORD: u8 = 0x04;

async fn reverse(tape: &LogicalUnit, flags: u8, length: u32) -> Outcome<Reply> {
    let [_, a, b, c] = length.to_be_bytes();
    supported("READ REVERSE(6)", tape.command(&[0x0F, flags, a, b, c, 0], Data::In(length)).await?)
}

async fn read_reverse(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 300)]).await?;
    tape.write_filemarks(1).await?;
    write_records(&tape, &[pattern(2, 400)]).await?;
    let reply = reverse(&tape, BYTORD, 400).await?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return check::skip("the target does not have BYTORD=1");
    }
    equal_bytes("the last record", &check::good("READ REVERSE(6)", reply)?, &pattern(2, 400))?;
    stands_at(&tape, "in front of the record", 2).await?;
    Stopped::AT_FILEMARK.left(300).check("READ REVERSE(6) at a filemark", &reverse(&tape, BYTORD, 300).await?)?;
    stands_at(&tape, "in front of the filemark", 1).await?;
    let data = check::good("READ REVERSE(6)", reverse(&tape, BYTORD, 300).await?)?;
    equal_bytes("the first record", &data, &pattern(1, 300))?;
    Stopped::AT_BEGINNING.left(300).check("READ REVERSE(6) at the beginning", &reverse(&tape, BYTORD, 300).await?)
}

/// VERIFY(6) of a record of 300 bytes.
async fn command(tape: &LogicalUnit, flags: u8, data: Data) -> Outcome<Reply> {
    Ok(tape.command(&[0x13, flags, 0, 1, 0x2C, 0], data).await?)
}

async fn verify(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(1, 300), pattern(2, 300)]).await?;
    tape.rewind().await?;
    check::good("VERIFY(6)", supported("VERIFY(6)", command(&tape, 0, Data::None).await?)?)?;
    stands_at(&tape, "behind the record", 1).await?;
    let compared = command(&tape, 0x02, Data::Out(pattern(2, 300))).await?;
    if compared.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return check::skip("the target does not have BYTCMP=1");
    }
    check::good("VERIFY(6) with the record's bytes", compared)?;
    tape.rewind().await?;
    refused("VERIFY(6) with other bytes", &command(&tape, 0x02, Data::Out(pattern(9, 300))).await?, SenseKey::Miscompare, &[])
}
