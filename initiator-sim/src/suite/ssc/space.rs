//! SPACE in both directions, and what it says when it cannot go all the way.

use protocol::scsi::SenseKey;

use super::{Stopped, object, space, stands_at};
use crate::client::{Data, LogicalUnit};
use crate::suite::bench::{expect_record, pattern, write_records};
use crate::suite::check::{self, Outcome, equal};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("space-blocks", "SSC-4, SPACE(6) command, CODE 0", Needs::ScratchTape, |bench| Box::pin(blocks(bench))),
    Case::new("space-blocks-meets-filemark", "SSC-4, SPACE(6) command, CODE 0", Needs::ScratchTape, |bench| {
        Box::pin(blocks_meet_filemark(bench))
    }),
    Case::new("space-filemarks", "SSC-4, SPACE(6) command, CODE 1", Needs::ScratchTape, |bench| Box::pin(filemarks(bench))),
    Case::new("space-sequential-filemarks", "SSC-4, SPACE(6) command, CODE 2", Needs::ScratchTape, |bench| {
        Box::pin(sequential(bench))
    }),
    Case::new("space-to-end-of-data", "SSC-4, SPACE(6) command, CODE 3", Needs::ScratchTape, |bench| Box::pin(to_end(bench))),
    Case::new("space-beyond-end-of-data", "SSC-4, SPACE(6) command", Needs::ScratchTape, |bench| Box::pin(beyond_end(bench))),
    Case::new("space-before-beginning", "SSC-4, SPACE(6) command", Needs::ScratchTape, |bench| Box::pin(before_beginning(bench))),
    Case::new("space-16", "SSC-4, SPACE(16) command", Needs::ScratchTape, |bench| Box::pin(sixteen(bench))),
    Case::new("space-nothing", "SSC-4, SPACE(6) command, count 0", Needs::ScratchTape, |bench| Box::pin(nothing(bench))),
];

const BLOCKS: u8 = 0;
const FILEMARKS: u8 = 1;
const SEQUENTIAL_FILEMARKS: u8 = 2;
const END_OF_DATA: u8 = 3;

/// Objects: r0 r1 F2 r3 r4 F5 F6 r7, then the end of data at 8.
async fn furnished(bench: &Bench) -> Outcome<LogicalUnit> {
    let tape = bench.tape().await?;
    write_records(&tape, &[pattern(0, 100), pattern(1, 200)]).await?;
    tape.write_filemarks(1).await?;
    write_records(&tape, &[pattern(3, 300), pattern(4, 400)]).await?;
    tape.write_filemarks(2).await?;
    write_records(&tape, &[pattern(7, 700)]).await?;
    tape.rewind().await?;
    Ok(tape)
}

async fn blocks(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    check::good("SPACE over two blocks", space(&tape, BLOCKS, 2).await?)?;
    stands_at(&tape, "two blocks on", 2).await?;
    check::good("SPACE back over one block", space(&tape, BLOCKS, -1).await?)?;
    stands_at(&tape, "one block back", 1).await?;
    expect_record(&tape, "the record there", &pattern(1, 200)).await
}

async fn blocks_meet_filemark(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    let reply = space(&tape, BLOCKS, 5).await?;
    Stopped::AT_FILEMARK.left(3).check("SPACE over five blocks where two lie before a filemark", &reply)?;
    stands_at(&tape, "behind the filemark", 3).await?;
    let reply = space(&tape, BLOCKS, -2).await?;
    Stopped::AT_FILEMARK.left(2).check("SPACE back over two blocks at a filemark", &reply)?;
    stands_at(&tape, "on the beginning side of the filemark", 2).await
}

async fn filemarks(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    check::good("SPACE over two filemarks", space(&tape, FILEMARKS, 2).await?)?;
    stands_at(&tape, "behind the second filemark", 6).await?;
    check::good("SPACE back over one filemark", space(&tape, FILEMARKS, -1).await?)?;
    stands_at(&tape, "on the beginning side of it", 5).await?;
    check::good("SPACE back over one more", space(&tape, FILEMARKS, -1).await?)?;
    stands_at(&tape, "on the beginning side of the first", 2).await
}

async fn sequential(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    let reply = space(&tape, SEQUENTIAL_FILEMARKS, 2).await?;
    if reply.sense.as_ref().is_some_and(|sense| sense.code == check::INVALID_FIELD_IN_CDB) {
        return check::skip("the target does not have CODE 2, which is optional");
    }
    check::good("SPACE to two filemarks in a row", reply)?;
    stands_at(&tape, "behind the two", 7).await
}

async fn to_end(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    check::good("SPACE to the end of data", space(&tape, END_OF_DATA, 0).await?)?;
    stands_at(&tape, "at the end of data", 8).await?;
    check::good("SPACE to the end of data, there already", space(&tape, END_OF_DATA, 0).await?)?;
    stands_at(&tape, "at the end of data", 8).await
}

/// `mt eom` without fast positioning is this: as many filemarks as the field can hold.
async fn beyond_end(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    let reply = space(&tape, FILEMARKS, 0x7F_FFFF).await?;
    Stopped::AT_END_OF_DATA.left(0x7F_FFFF - 3).check("SPACE over 8388607 filemarks where three are", &reply)?;
    stands_at(&tape, "at the end of data", 8).await?;
    let reply = space(&tape, BLOCKS, 1).await?;
    Stopped::AT_END_OF_DATA.left(1).check("SPACE over a block at the end of data", &reply)?;
    stands_at(&tape, "at the end of data", 8).await
}

async fn before_beginning(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    let reply = space(&tape, BLOCKS, -1).await?;
    Stopped::AT_BEGINNING.left(1).check("SPACE back over a block at the beginning", &reply)?;
    check::good("SPACE over two blocks", space(&tape, BLOCKS, 2).await?)?;
    let reply = space(&tape, BLOCKS, -5).await?;
    Stopped::AT_BEGINNING.left(3).check("SPACE back over five blocks where two are", &reply)?;
    equal("position and BOP", object(&tape).await?, (0, true))?;
    let reply = space(&tape, FILEMARKS, -1).await?;
    Stopped::AT_BEGINNING.left(1).check("SPACE back over a filemark at the beginning", &reply)
}

/// Counts of 64 bits, which LTFS always sends.
async fn sixteen(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    let space = async |code: u8, count: i64| {
        let mut cdb = [0x91, code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        cdb[4..12].copy_from_slice(&count.to_be_bytes());
        Outcome::Ok(tape.command(&cdb, Data::None).await?)
    };
    check::good("SPACE(16) over two filemarks", check::supported("SPACE(16)", space(FILEMARKS, 2).await?)?)?;
    stands_at(&tape, "behind the second filemark", 6).await?;
    check::good("SPACE(16) back over one filemark", space(FILEMARKS, -1).await?)?;
    stands_at(&tape, "on the beginning side of it", 5).await?;
    check::good("SPACE(16) back over two blocks", space(BLOCKS, -2).await?)?;
    stands_at(&tape, "two blocks back", 3).await?;
    let reply = space(FILEMARKS, 1 << 40).await?;
    check::refused("SPACE(16) over 2^40 filemarks", &reply, SenseKey::BlankCheck, &[super::END_OF_DATA])?;
    stands_at(&tape, "at the end of data", 8).await?;
    check::good("SPACE(16) to the end of data", space(END_OF_DATA, 0).await?)?;
    stands_at(&tape, "at the end of data", 8).await
}

async fn nothing(bench: &Bench) -> Outcome {
    let tape = furnished(bench).await?;
    for code in [BLOCKS, FILEMARKS] {
        check::good("SPACE over nothing", space(&tape, code, 0).await?)?;
        stands_at(&tape, "after SPACE over nothing", 0).await?;
    }
    Ok(())
}
