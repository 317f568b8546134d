//! What a point in time copy shows: the data of its moment, whatever is written afterwards.

use super::tokens::{Tokens, information, populate_list, rod_type};
use crate::suite::check::{self, Outcome, equal, equal_bytes, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("token-point-in-time", "SPC-4, Point in time copy – persistent", Needs::CopyDisk, |bench| {
        Box::pin(persistent(bench))
    }),
    Case::new("token-change-vulnerable", "SPC-4, Point in time copy – change vulnerable", Needs::CopyDisk, |bench| {
        Box::pin(vulnerable(bench))
    }),
];

const PERSISTENT: u32 = 0x0080_0002;
const TOKEN_OUT: u8 = 0x01;
/// INVALID TOKEN OPERATION, TOKEN CANCELLED.
const CANCELLED: (u8, u8) = (0x23, 0x08);

async fn persistent(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    if rod_type(tokens.unit(), PERSISTENT).await?.is_none_or(|flags| flags & TOKEN_OUT == 0) {
        return skip("tokens of persistent point in time copies are not made");
    }
    let disk = &tokens.copy.disk;
    let old = disk.pattern(0xC1, 64);
    disk.put(0, &old).await?;
    let list = populate_list(super::tokens::RTV, 0, PERSISTENT, &[(0, 64)]);
    let reply = tokens.unit().token_command(super::tokens::POPULATE, 0x7300, list.into()).await?;
    check::good("POPULATE TOKEN", reply)?;
    let told = information(tokens.unit(), 0x7300).await?;
    let [(_, token)] = told.tokens.as_slice() else { return check::fail(format!("{} tokens", told.tokens.len())) };
    equal("ROD TYPE", u32::from_be_bytes(*token.first_chunk().unwrap_or(&[0; 4])), PERSISTENT)?;
    let new = disk.pattern(0xC2, 64);
    disk.put(0, &new).await?;
    check::good("WRITE USING TOKEN", tokens.write(0x7301, 0, 0, token, &[(2000, 64)]).await?)?;
    equal_bytes("the blocks of the token", &disk.get(2000, 64).await?, &old)?;
    equal_bytes("the disk", &disk.get(0, 64).await?, &new)
}

/// Either the old data, or the token is gone; new data never.
async fn vulnerable(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let disk = &tokens.copy.disk;
    let (old, before) = (disk.pattern(0xC3, 16), disk.pattern(0xC5, 16));
    disk.put(0, &old).await?;
    disk.put(2000, &before).await?;
    let token = tokens.populate(0x7310, 0, &[(0, 16)]).await?;
    disk.put(4, &disk.pattern(0xC4, 4)).await?;
    let reply = tokens.write(0x7311, 0, 0, &token, &[(2000, 16)]).await?;
    let got = disk.get(2000, 16).await?;
    if reply.sense.is_none() {
        return equal_bytes("the blocks of the token", &got, &old);
    }
    check::illegal_request("a token whose data was changed", &reply, &[CANCELLED])?;
    equal_bytes("the blocks, which nobody wrote", &got, &before)
}
