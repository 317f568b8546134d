//! RODs in EXTENDED COPY: populated by its segments, or that of a token, as a copy source.

use super::parameters::{Cscd, Parameters, any, block_to_block, blocks_and_stream};
use super::tokens::{CHANGE_VULNERABLE, Tokens, information, rod_type};
use super::{CopyDisk, NOT_REACHABLE, UNREACHABLE, aborted, wants};
use crate::client::TapeRead;
use crate::suite::check::{self, INVALID_FIELD_IN_PARAMETER_LIST, Outcome, equal, equal_bytes, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("rod-of-a-token", "SPC-4, ROD CSCD descriptor, ROD TYPE zero", Needs::CopyDisk, |bench| Box::pin(of_token(bench))),
    Case::new("rod-of-a-token-to-tape", "SPC-4, EXTENDED COPY use of RODs", Needs::CopyDiskAndTape, |bench| {
        Box::pin(to_tape(bench))
    }),
    Case::new("rod-populated", "SPC-4, Populating an EXTENDED COPY command ROD", Needs::CopyDisk, |bench| {
        Box::pin(populated(bench))
    }),
    Case::new("rod-returns-token", "SPC-4, ROD CSCD descriptor, R_TOKEN", Needs::CopyDisk, |bench| Box::pin(returned(bench))),
    Case::new("rod-refusals", "SPC-4, segment types BEh and BFh; ROD CSCD descriptor", Needs::CopyDisk, |bench| {
        Box::pin(refusals(bench))
    }),
];

/// CSCD id of the logical unit that the list is sent to.
const THIS_LUN: u16 = 0xFFFF;
const ECPY_INT: u8 = 0x80;
const R_TOKEN: usize = 22;
const DEL_TKN: usize = 23;
/// INVALID TOKEN OPERATION, REMOTE TOKEN USAGE NOT SUPPORTED.
const REMOTE: (u8, u8) = (0x23, 0x02);

/// FEh of a ROD type; zero for that of a token at this offset of the inline data.
fn rod(kind: u32, token_offset: u32) -> Cscd {
    let mut bytes = [0; 32];
    bytes[0] = 0xFE;
    bytes[4..6].copy_from_slice(&THIS_LUN.to_be_bytes());
    bytes[8..12].copy_from_slice(&kind.to_be_bytes());
    bytes[24..28].copy_from_slice(&token_offset.to_be_bytes());
    Cscd(bytes)
}

/// BFh.
fn populate(source: u16, destination: u16, lba: u64, blocks: u32) -> Vec<u8> {
    any(0xBF, (source, destination), &[&lba.to_be_bytes()[..], &blocks.to_be_bytes()].concat())
}

/// BEh.
fn populate_ranges(destination: u16, ranges: &[(u64, u32)]) -> Vec<u8> {
    let list: Vec<u8> =
        ranges.iter().flat_map(|(lba, blocks)| [&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat()).collect();
    let length = (list.len() as u16).to_be_bytes();
    any(0xBE, (THIS_LUN, destination), &[&[0, 0, 0, 0, 0, 1][..], &length, &list].concat())
}

/// A disk whose copy manager has RODs of the type that is quickest made: CSCD 0 is the disk, 1 the ROD.
async fn start(bench: &Bench) -> Outcome<(CopyDisk, Parameters)> {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02, 0xBE, 0xBF, 0xFE]).await?;
    if rod_type(&copy.disk.unit, CHANGE_VULNERABLE).await?.is_none_or(|flags| flags & ECPY_INT == 0) {
        return skip("change vulnerable RODs are not made by EXTENDED COPY");
    }
    let mut list = copy.list();
    list.cscds.push(rod(CHANGE_VULNERABLE, 0));
    Ok((copy, list))
}

async fn of_token(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    wants(tokens.unit(), &[0x02, 0xFE]).await?;
    let disk = &tokens.copy.disk;
    let (data, block) = (disk.pattern(0xE1, 16), disk.block() as usize);
    disk.put(0, &data).await?;
    let token = tokens.populate(0x7500, 0, &[(12, 4), (0, 8)]).await?;
    disk.put(0, &disk.pattern(0xE2, 2)).await?;
    let mut list = tokens.copy.list().inline(&[&[0; 8][..], &token].concat());
    list.cscds.push(rod(0, 8));
    let across = list.clone().with(block_to_block(0, (1, 0), 9, 2, 2000));
    check::good("02h from the token's ROD", tokens.copy.run(&across).await?)?;
    let expected = [&data[14 * block..], &data[..7 * block]].concat();
    equal_bytes("the blocks", &disk.get(2000, 9).await?, &expected)?;
    let beyond = tokens.copy.run(&list.clone().with(block_to_block(0, (1, 0), 2, 11, 2000))).await?;
    aborted("blocks behind the end of the ROD", &beyond, &[super::THIRD_PARTY_DEVICE_FAILURE, super::NOT_REACHABLE], 0)?;
    list.cscds[1].0[DEL_TKN] = 1;
    check::good("with DEL_TKN", tokens.copy.run(&list.clone().with(block_to_block(0, (1, 0), 1, 0, 2000))).await?)?;
    let deleted = tokens.copy.run(&list.with(block_to_block(0, (1, 0), 1, 0, 2000))).await?;
    check::illegal_request("a token that was deleted", &deleted, &[(0x23, 0x09), (0x23, 0x04)])
}

async fn to_tape(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let devices = super::DiskAndTape::new(bench).await?;
    wants(tokens.unit(), &[0x00, 0xFE]).await?;
    let disk = &tokens.copy.disk;
    let (data, block) = (disk.pattern(0xE3, 16), disk.block());
    disk.put(0, &data).await?;
    let token = tokens.populate(0x7510, 0, &[(8, 8), (0, 8)]).await?;
    disk.put(0, &disk.pattern(0xE4, 16)).await?;
    let mut list = devices.list().inline(&token);
    list.cscds.push(rod(0, 0));
    let list = list.with(blocks_and_stream(0x00, 0, (2, super::TAPE), 4 * block, 16, 0));
    devices.copy("00h from the token's ROD", &list).await?;
    devices.tape.rewind().await?;
    let half = data.len() / 2;
    let expected = [&data[half..], &data[..half]].concat();
    for record in expected.chunks(4 * block as usize) {
        match devices.tape.read_record(4 * block).await? {
            TapeRead::Record(got) => equal_bytes("a record", &got, record)?,
            other => return check::fail(format!("a record: got {other:?}")),
        }
    }
    Ok(())
}

async fn populated(bench: &Bench) -> Outcome {
    let (copy, list) = start(bench).await?;
    let (data, block) = (copy.disk.pattern(0xE5, 16), copy.disk.block() as usize);
    copy.disk.put(0, &data).await?;
    // The copy into the source's own blocks does not show in the ROD.
    let list = list
        .with(populate_ranges(1, &[(10, 2), (4, 2)]))
        .with(populate(THIS_LUN, 1, 0, 2))
        .with(block_to_block(0, (0, 0), 2, 6, 0))
        .with(block_to_block(0, (1, 0), 6, 0, 2000));
    check::good("a ROD that is populated and copied from", copy.run(&list).await?)?;
    let part = |from: usize| &data[from * block..(from + 2) * block];
    equal_bytes("the blocks of the ROD", &copy.disk.get(2000, 6).await?, &[part(10), part(4), part(0)].concat())?;
    equal_bytes("what was copied between", &copy.disk.get(0, 2).await?, part(6))
}

async fn returned(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let (copy, mut list) = start(bench).await?;
    let data = copy.disk.pattern(0xE6, 8);
    copy.disk.put(0, &data).await?;
    list.cscds[1].0[R_TOKEN] = 1;
    list.cscds[1].0[12..16].copy_from_slice(&120_u32.to_be_bytes());
    (list.id, list.usage) = (0x75, 0b00);
    check::good("a ROD with R_TOKEN", copy.run(&list.with(populate(THIS_LUN, 1, 0, 8))).await?)?;
    let told = information(&copy.disk.unit, 0x75).await?;
    let [(id, token)] = told.tokens.as_slice() else { return check::fail(format!("{} tokens", told.tokens.len())) };
    equal("ID FOR CREATING ROD CSCD DESCRIPTOR", *id, 1)?;
    copy.disk.put(0, &copy.disk.pattern(0xE7, 8)).await?;
    check::good("WRITE USING TOKEN", tokens.write(0x7520, 0, 0, token, &[(2000, 8)]).await?)?;
    equal_bytes("the blocks", &copy.disk.get(2000, 8).await?, &data)
}

async fn refusals(bench: &Bench) -> Outcome {
    let (copy, list) = start(bench).await?;
    let field = [INVALID_FIELD_IN_PARAMETER_LIST];
    let run = async |segments: &[Vec<u8>]| {
        let list = segments.iter().fold(list.clone(), |list, segment| list.with(segment.clone()));
        copy.run(&list).await
    };
    let from_rod = block_to_block(0, (1, 0), 1, 0, 2000);
    check::illegal_request("BFh from a CSCD descriptor", &run(&[populate(0, 1, 0, 8)]).await?, &field)?;
    check::illegal_request("BFh to a disk", &run(&[populate(THIS_LUN, 0, 0, 8)]).await?, &field)?;
    check::illegal_request("a block twice", &run(&[populate_ranges(1, &[(0, 8), (7, 1)])]).await?, &field)?;
    let twice = run(&[populate(THIS_LUN, 1, 0, 8), populate(THIS_LUN, 1, 7, 1)]).await?;
    check::illegal_request("a block twice in two segments", &twice, &field)?;
    let onto = run(&[populate(THIS_LUN, 1, 0, 8), block_to_block(0, (0, 1), 1, 0, 0)]).await?;
    check::illegal_request("a ROD as copy destination", &onto, &field)?;
    aborted("a ROD that is not populated", &run(std::slice::from_ref(&from_rod)).await?, &[NOT_REACHABLE, UNREACHABLE], 0)?;
    let late = run(&[populate(THIS_LUN, 1, 0, 8), from_rod, populate(THIS_LUN, 1, 8, 8)]).await?;
    aborted("a ROD that is populated after its use", &late, &field, 2)?;
    let mut remote = list.clone().with(populate(THIS_LUN, 1, 0, 8));
    remote.cscds[1].0[4..6].copy_from_slice(&0_u16.to_be_bytes());
    let reply = copy.run(&remote).await?;
    match reply.sense {
        None => skip("the copy manager has RODs of others made"),
        Some(_) => check::illegal_request("ROD PRODUCER CSCD DESCRIPTOR ID 0000h", &reply, &[REMOTE, (0x23, 0x03)]),
    }
}
