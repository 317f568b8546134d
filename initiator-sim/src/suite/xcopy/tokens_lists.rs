//! Parameter lists of POPULATE TOKEN and WRITE USING TOKEN that are refused.

use super::limits::descriptors;
use super::tokens::{POPULATE, RTV, Tokens, WRITE, populate_list, write_list};
use super::{TOO_MANY_SEGMENTS, tokens};
use crate::suite::bench::vpd_or_skip;
use crate::suite::check::{self, INVALID_FIELD_IN_PARAMETER_LIST, LBA_OUT_OF_RANGE, Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("populate-token-refusals", "SBC-4, POPULATE TOKEN parameter list", Needs::CopyDisk, |bench| {
        Box::pin(populate(bench))
    }),
    Case::new("write-using-token-refusals", "SBC-4, WRITE USING TOKEN parameter list", Needs::CopyDisk, |bench| {
        Box::pin(write(bench))
    }),
    Case::new("token-limits", "SBC-4, Block Device ROD Limits descriptor; SPC-4, ROD Token Features", Needs::CopyDisk, |bench| {
        Box::pin(limits(bench))
    }),
];

/// A list with another byte in one place.
fn changed(list: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut list = list.to_vec();
    list[at] = byte;
    list
}

async fn populate(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let end = tokens.copy.disk.last() + 1;
    let good = populate_list(0, 0, 0, &[(0, 8)]);
    let field = INVALID_FIELD_IN_PARAMETER_LIST;
    for (what, list, code) in [
        ("a list of 15 bytes", good[..15].to_vec(), check::PARAMETER_LIST_LENGTH_ERROR),
        ("POPULATE TOKEN DATA LENGTH 001Dh", changed(&good, 1, 0x1D), field),
        ("range descriptors of 15 bytes", changed(&good, 15, 0x0F), field),
        ("a block twice", populate_list(0, 0, 0, &[(0, 8), (20, 1), (7, 2)]), field),
        ("a range beyond the end", populate_list(0, 0, 0, &[(end - 1, 2)]), LBA_OUT_OF_RANGE),
        ("an LBA of all ones", populate_list(0, 0, 0, &[(u64::MAX, 1)]), LBA_OUT_OF_RANGE),
        ("a ROD type that is no point in time copy", populate_list(RTV, 0, 0x0001_0000, &[(0, 8)]), field),
    ] {
        let reply = tokens.unit().token_command(POPULATE, 0x7200, list.into()).await?;
        check::illegal_request(what, &reply, &[code])?;
    }
    check::good("a list of no bytes", tokens.unit().token_command(POPULATE, 0x7201, Vec::new().into()).await?).map(drop)
}

async fn write(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let disk = &tokens.copy.disk;
    let (end, before) = (disk.last() + 1, disk.pattern(0xB0, 8));
    disk.put(2000, &before).await?;
    let token = tokens.populate(0x7210, 0, &[(0, 64)]).await?;
    let good = write_list(0, 0, &token, &[(2000, 8)]);
    let field = INVALID_FIELD_IN_PARAMETER_LIST;
    for (what, list, code) in [
        ("WRITE USING TOKEN DATA LENGTH 0225h", changed(&good, 1, 0x25), field),
        ("range descriptors of 15 bytes", changed(&good, 535, 0x0F), field),
        ("a block twice", write_list(0, 0, &token, &[(2000, 8), (2004, 1)]), field),
        ("a range beyond the end", write_list(0, 0, &token, &[(2000, 8), (end, 1)]), LBA_OUT_OF_RANGE),
    ] {
        let reply = tokens.unit().token_command(WRITE, 0x7211, list.into()).await?;
        check::illegal_request(what, &reply, &[code])?;
    }
    check::equal_bytes("the blocks, which nobody wrote", &disk.get(2000, 8).await?, &before)?;
    check::good("a list of no bytes", tokens.unit().token_command(WRITE, 0x7212, Vec::new().into()).await?).map(drop)
}

/// What the limits say is refused beyond them.
async fn limits(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let page = vpd_or_skip(tokens.unit(), 0x8F).await?;
    let found = descriptors(&page)?;
    let descriptor = |wanted: u16| found.iter().find(|(code, _)| *code == wanted).map(|(_, body)| body.clone());
    let Some(limits) = descriptor(0x0000) else {
        return check::fail("no Block Device ROD Limits descriptor, which is mandatory with POPULATE TOKEN");
    };
    equal("length of the Block Device ROD Limits descriptor", limits.len(), 0x20)?;
    let word = |at: usize| u32::from_be_bytes([limits[at], limits[at + 1], limits[at + 2], limits[at + 3]]);
    let (ranges, timeout) = (u16::from_be_bytes([limits[6], limits[7]]), word(8));
    if let Some(features) = descriptor(0x0106) {
        equal("MAXIMUM TOKEN INACTIVITY TIMEOUT", u32::from_be_bytes(*features[20..].first_chunk().unwrap_or(&[0; 4])), timeout)?;
    }
    ensure(tokens::rod_type(tokens.unit(), 0xFFFF_0001).await?.is_none_or(|flags| flags & 1 == 0), || {
        "TOKEN_OUT of the block device zero ROD token".into()
    })?;
    if ranges > 0 && tokens.copy.disk.last() > u64::from(ranges) {
        let many: Vec<_> = (0..=u64::from(ranges)).map(|lba| (lba, 1)).collect();
        let reply = tokens.populate_reply(0x7220, 0, &many).await?;
        check::illegal_request("one range descriptor too many", &reply, &[TOO_MANY_SEGMENTS])?;
    }
    match timeout {
        0 | u32::MAX => skip("there is no longest inactivity timeout"),
        longest => {
            let reply = tokens.populate_reply(0x7221, longest + 1, &[(0, 8)]).await?;
            check::illegal_request("too long an INACTIVITY TIMEOUT", &reply, &[INVALID_FIELD_IN_PARAMETER_LIST])
        }
    }
}
