//! POPULATE TOKEN, RECEIVE ROD TOKEN INFORMATION and WRITE USING TOKEN: a copy by token.

use bytes::Bytes;
use protocol::scsi::SenseKey;

use super::lid4::wait;
use super::limits::descriptors;
use super::{CopyDisk, serves};
use crate::client::{LogicalUnit, Reply};
use crate::suite::bench::vpd_or_skip;
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes, refused, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("token-copies", "SBC-4, Block device ROD token operations", Needs::CopyDisk, |bench| Box::pin(copies(bench))),
    Case::new("token-offset", "SBC-4, WRITE USING TOKEN, OFFSET INTO ROD", Needs::CopyDisk, |bench| Box::pin(offset(bench))),
    Case::new(
        "token-underrun",
        "SBC-4, POPULATE TOKEN command and WRITE USING TOKEN command completion",
        Needs::CopyDisk,
        |bench| Box::pin(underrun(bench)),
    ),
    Case::new("token-of-zeros", "SBC-4, Block device zero ROD token", Needs::CopyDisk, |bench| Box::pin(zeros(bench))),
    Case::new("token-in-the-background", "SBC-4, POPULATE TOKEN, WRITE USING TOKEN, IMMED", Needs::CopyDisk, |bench| {
        Box::pin(background(bench))
    }),
    Case::new("token-of-another-session", "SPC-4, RODs and ROD related tokens overview, c)", Needs::CopyDisk, |bench| {
        Box::pin(another_session(bench))
    }),
    Case::new("tokens-reported", "SPC-4, REPORT ALL ROD TOKENS command", Needs::CopyDisk, |bench| Box::pin(reported(bench))),
];

/// Service actions of THIRD-PARTY COPY OUT.
pub(super) const POPULATE: u8 = 0x10;
pub(super) const WRITE: u8 = 0x11;
/// Service actions of THIRD-PARTY COPY IN.
const INFORMATION: u8 = 0x07;
const ALL_TOKENS: u8 = 0x08;
/// IMMED of both lists.
pub(super) const IMMED: u8 = 0x01;
/// RTV of POPULATE TOKEN.
pub(super) const RTV: u8 = 0x02;
/// DEL_TKN of WRITE USING TOKEN.
pub(super) const DEL_TKN: u8 = 0x02;
/// Point in time copy – change vulnerable.
pub(super) const CHANGE_VULNERABLE: u32 = 0x0080_0001;
/// Block device zero ROD token.
const ZERO: u32 = 0xFFFF_0001;
/// COPY TARGET DEVICE DATA UNDERRUN.
const UNDERRUN: (u8, u8) = (0x0D, 0x04);
/// Bytes of a token.
pub(super) const TOKEN: usize = 512;
/// COPY OPERATION STATUS: without errors, and without errors but with partial ROD token usage.
const DONE: u8 = 0x01;
const PARTIAL: u8 = 0x03;

/// LBA and number of blocks.
pub(super) type Range = (u64, u32);

fn range_descriptors(ranges: &[Range]) -> Vec<u8> {
    ranges.iter().flat_map(|(lba, blocks)| [&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat()).collect()
}

/// SBC-4, "POPULATE TOKEN parameter list".
pub(super) fn populate_list(flags: u8, timeout_s: u32, kind: u32, ranges: &[Range]) -> Vec<u8> {
    let ranges = range_descriptors(ranges);
    let mut list = (ranges.len() as u16 + 14).to_be_bytes().to_vec();
    list.extend([flags, 0]);
    list.extend(timeout_s.to_be_bytes());
    list.extend(kind.to_be_bytes());
    list.extend([0; 2]);
    list.extend((ranges.len() as u16).to_be_bytes());
    list.extend(ranges);
    list
}

/// SBC-4, "WRITE USING TOKEN parameter list".
pub(super) fn write_list(flags: u8, offset: u64, token: &[u8], ranges: &[Range]) -> Vec<u8> {
    let ranges = range_descriptors(ranges);
    let mut list = (ranges.len() as u16 + 534).to_be_bytes().to_vec();
    list.extend([flags, 0, 0, 0, 0, 0]);
    list.extend(offset.to_be_bytes());
    list.extend(token);
    list.extend([0; 6]);
    list.extend((ranges.len() as u16).to_be_bytes());
    list.extend(ranges);
    list
}

/// What RECEIVE ROD TOKEN INFORMATION tells.
pub(super) struct Information {
    pub(super) header: Bytes,
    /// ROD token descriptors: id of the ROD CSCD descriptor, and the token.
    pub(super) tokens: Vec<(u16, Bytes)>,
}

impl Information {
    fn status(&self) -> u8 {
        self.header[5] & 0x7F
    }

    fn transfer_count(&self) -> u64 {
        u64::from_be_bytes(*self.header[16..].first_chunk().expect("checked when it came"))
    }
}

pub(super) async fn information(unit: &LogicalUnit, id: u32) -> Outcome<Information> {
    let data = check::good("RECEIVE ROD TOKEN INFORMATION", unit.receive_copy_lid4_reply(INFORMATION, id, 1 << 16).await?)?;
    ensure(data.len() >= 36, || format!("{} bytes of ROD token information", data.len()))?;
    equal("AVAILABLE DATA", u32::from_be_bytes([data[0], data[1], data[2], data[3]]) as usize + 4, data.len())?;
    let at = 32 + usize::from(data[13]);
    ensure(data.len() >= at + 4, || "no ROD TOKEN DESCRIPTORS LENGTH".into())?;
    let length = u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]) as usize;
    equal("ROD TOKEN DESCRIPTORS LENGTH", at + 4 + length, data.len())?;
    let mut tokens = Vec::new();
    let mut rest = data.slice(at + 4..);
    while !rest.is_empty() {
        ensure(rest.len() >= 2 + TOKEN, || format!("{} bytes of a ROD token descriptor", rest.len()))?;
        let size = usize::from(u16::from_be_bytes([rest[8], rest[9]])) + 8;
        ensure(size >= TOKEN && rest.len() >= 2 + size, || format!("ROD TOKEN LENGTH for {size} bytes"))?;
        tokens.push((u16::from_be_bytes([rest[0], rest[1]]), rest.slice(2..2 + size)));
        rest = rest.slice(2 + size..);
    }
    Ok(Information { header: data, tokens })
}

/// A disk whose copy manager has tokens, and the quickest way to one.
pub(super) struct Tokens {
    pub(super) copy: CopyDisk,
    flags: u8,
    kind: u32,
}

impl Tokens {
    pub(super) async fn new(bench: &Bench) -> Outcome<Self> {
        let copy = CopyDisk::new(bench).await?;
        serves(&copy.disk.unit, 0x83, &[POPULATE, WRITE]).await?;
        serves(&copy.disk.unit, 0x84, &[INFORMATION]).await?;
        // Changed data may cost such a token its validity, so that it need not wait for anything.
        let quick = rod_type(&copy.disk.unit, CHANGE_VULNERABLE).await?.is_some_and(|flags| flags & TOKEN_OUT != 0);
        let (flags, kind) = if quick { (RTV, CHANGE_VULNERABLE) } else { (0, 0) };
        Ok(Self { copy, flags, kind })
    }

    pub(super) fn unit(&self) -> &LogicalUnit {
        &self.copy.disk.unit
    }

    pub(super) async fn populate_reply(&self, id: u32, timeout_s: u32, ranges: &[Range]) -> Outcome<Reply> {
        let list = populate_list(self.flags, timeout_s, self.kind, ranges);
        Ok(self.unit().token_command(POPULATE, id, list.into()).await?)
    }

    /// A token of these ranges.
    pub(super) async fn populate(&self, id: u32, timeout_s: u32, ranges: &[Range]) -> Outcome<Bytes> {
        check::good("POPULATE TOKEN", self.populate_reply(id, timeout_s, ranges).await?)?;
        let told = information(self.unit(), id).await?;
        equal("COPY OPERATION STATUS", told.status(), DONE)?;
        match told.tokens.as_slice() {
            [(_, token)] => Ok(token.clone()),
            tokens => check::fail(format!("{} tokens", tokens.len())),
        }
    }

    pub(super) async fn write(&self, id: u32, flags: u8, offset: u64, token: &[u8], ranges: &[Range]) -> Outcome<Reply> {
        Ok(self.unit().token_command(WRITE, id, write_list(flags, offset, token, ranges).into()).await?)
    }
}

const TOKEN_IN: u8 = 0x02;
const TOKEN_OUT: u8 = 0x01;

/// Flags of a ROD type in the Supported ROD Types descriptor; `None` for one that is not listed.
pub(super) async fn rod_type(unit: &LogicalUnit, wanted: u32) -> Outcome<Option<u8>> {
    let page = vpd_or_skip(unit, 0x8F).await?;
    let found = descriptors(&page)?;
    let Some((_, types)) = found.iter().find(|(code, _)| *code == 0x0108) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([types[2], types[3]]));
    ensure(types.len() >= 4 + length && length % 64 == 0, || format!("ROD TYPE DESCRIPTORS LENGTH {length}"))?;
    let mut rows = types[4..4 + length].chunks(64);
    Ok(rows.find(|row| row[..4] == wanted.to_be_bytes()).map(|row| row[4]))
}

async fn copies(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let disk = &tokens.copy.disk;
    let (data, block) = (disk.pattern(0xA1, 16), disk.block() as usize);
    disk.put(0, &data).await?;
    check::good("POPULATE TOKEN", tokens.populate_reply(0x7100, 0, &[(8, 8), (0, 8)]).await?)?;
    let told = information(tokens.unit(), 0x7100).await?;
    equal("RESPONSE TO SERVICE ACTION", told.header[4] & 0x1F, POPULATE)?;
    equal("COPY OPERATION STATUS", told.status(), DONE)?;
    equal("TRANSFER COUNT UNITS", told.header[15], 0xF1)?;
    equal("TRANSFER COUNT", told.transfer_count(), 16)?;
    equal("SEGMENTS PROCESSED", [told.header[24], told.header[25]], [0, 0])?;
    let [(_, token)] = told.tokens.as_slice() else { return check::fail(format!("{} tokens", told.tokens.len())) };
    equal_bytes("NUMBER OF BYTES REPRESENTED", &token[48..64], &(16 * block as u128).to_be_bytes())?;
    equal_bytes("LOGICAL BLOCK LENGTH IN BYTES", &token[96..100], &disk.block().to_be_bytes())?;
    ensure(token[256..].iter().any(|byte| *byte != token[256]), || "EXTENDED ROD TOKEN DATA is no random number".into())?;
    check::good("WRITE USING TOKEN", tokens.write(0x7101, 0, 0, token, &[(2000, 4), (3000, 12)]).await?)?;
    let told = information(tokens.unit(), 0x7101).await?;
    equal("RESPONSE TO SERVICE ACTION", told.header[4] & 0x1F, WRITE)?;
    equal("COPY OPERATION STATUS", told.status(), DONE)?;
    equal("TRANSFER COUNT", (told.header[15], told.transfer_count()), (0xF1, 16))?;
    ensure(told.tokens.is_empty(), || "WRITE USING TOKEN returns a token".into())?;
    equal_bytes("the first range", &disk.get(2000, 4).await?, &data[8 * block..12 * block])?;
    let rest = [&data[12 * block..], &data[..8 * block]].concat();
    equal_bytes("the second range", &disk.get(3000, 12).await?, &rest)
}

async fn offset(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let disk = &tokens.copy.disk;
    let (data, block) = (disk.pattern(0xA2, 16), disk.block() as usize);
    disk.put(0, &data).await?;
    let token = tokens.populate(0x7110, 0, &[(0, 6), (10, 6)]).await?;
    check::good("WRITE USING TOKEN", tokens.write(0x7111, 0, 4, &token, &[(2000, 5)]).await?)?;
    let expected = [&data[4 * block..6 * block], &data[10 * block..13 * block]].concat();
    equal_bytes("blocks across two ranges", &disk.get(2000, 5).await?, &expected)?;
    let behind = tokens.write(0x7112, 0, 12, &token, &[(2000, 1)]).await?;
    check::illegal_request("OFFSET INTO ROD behind the end", &behind, &[check::INVALID_FIELD_IN_PARAMETER_LIST])
}

async fn underrun(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let disk = &tokens.copy.disk;
    let (data, before) = (disk.pattern(0xA3, 8), disk.pattern(0xA4, 16));
    disk.put(0, &data).await?;
    disk.put(2000, &before).await?;
    let token = tokens.populate(0x7120, 0, &[(0, 8)]).await?;
    let reply = tokens.write(0x7121, 0, 0, &token, &[(2000, 4), (2008, 8)]).await?;
    refused("more blocks than the token has", &reply, SenseKey::CopyAborted, &[UNDERRUN])?;
    equal("TRANSFER COUNT in INFORMATION", reply.sense.and_then(|sense| sense.information), Some(8))?;
    let told = information(tokens.unit(), 0x7121).await?;
    equal("COPY OPERATION STATUS", told.status(), PARTIAL)?;
    equal("TRANSFER COUNT", told.transfer_count(), 8)?;
    let half = data.len() / 2;
    let expected = [&data[..half], &before[half..2 * half], &data[half..], &before[3 * half..]].concat();
    equal_bytes("what there was", &disk.get(2000, 16).await?, &expected)
}

/// The token that everybody knows.
pub(super) fn zero_token() -> Vec<u8> {
    let mut token = vec![0; TOKEN];
    token[..4].copy_from_slice(&ZERO.to_be_bytes());
    token[6..8].copy_from_slice(&0x01F8_u16.to_be_bytes());
    token
}

async fn zeros(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    if rod_type(tokens.unit(), ZERO).await?.is_none_or(|flags| flags & TOKEN_IN == 0) {
        return skip("the block device zero ROD token is not taken");
    }
    let disk = &tokens.copy.disk;
    let before = disk.pattern(0xA5, 12);
    disk.put(2000, &before).await?;
    check::good("WRITE USING TOKEN", tokens.write(0x7130, 0, 0, &zero_token(), &[(2001, 4), (2008, 2)]).await?)?;
    let block = disk.block() as usize;
    let zeros = |blocks: usize| vec![0; blocks * block];
    let expected = [&before[..block], &zeros(4), &before[5 * block..8 * block], &zeros(2), &before[10 * block..]].concat();
    equal_bytes("the blocks", &disk.get(2000, 12).await?, &expected)?;
    equal("TRANSFER COUNT", information(tokens.unit(), 0x7130).await?.transfer_count(), 6)
}

async fn background(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let disk = &tokens.copy.disk;
    let data = disk.pattern(0xA6, 64);
    disk.put(0, &data).await?;
    let list = populate_list(IMMED | tokens.flags, 0, tokens.kind, &[(0, 64)]);
    check::good("POPULATE TOKEN with IMMED", tokens.unit().token_command(POPULATE, 0x7140, list.into()).await?)?;
    equal("COPY OPERATION STATUS", wait(tokens.unit(), 0x7140).await?.status(), DONE)?;
    let told = information(tokens.unit(), 0x7140).await?;
    let [(_, token)] = told.tokens.as_slice() else { return check::fail(format!("{} tokens", told.tokens.len())) };
    check::good("WRITE USING TOKEN with IMMED", tokens.write(0x7141, IMMED, 0, token, &[(2000, 64)]).await?)?;
    equal("COPY OPERATION STATUS", wait(tokens.unit(), 0x7141).await?.status(), DONE)?;
    equal_bytes("the blocks", &disk.get(2000, 64).await?, &data)?;
    let again = information(tokens.unit(), 0x7140).await?;
    ensure(again.tokens.is_empty(), || "the token is told again after it was transferred".into())
}

async fn another_session(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let other = bench.disk().await?;
    let data = other.pattern(0xA7, 8);
    other.put(0, &data).await?;
    let token = tokens.populate(0x7150, 0, &[(0, 8)]).await?;
    let unknown = other.unit.receive_copy_lid4_reply(INFORMATION, 0x7150, 1024).await?;
    check::illegal_request("RECEIVE ROD TOKEN INFORMATION of another session", &unknown, &[check::INVALID_FIELD_IN_CDB])?;
    let list = write_list(0, 0, &token, &[(2000, 8)]);
    check::good("WRITE USING TOKEN of another session", other.unit.token_command(WRITE, 0x7151, list.into()).await?)?;
    equal_bytes("the blocks", &other.get(2000, 8).await?, &data)
}

async fn reported(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    serves(tokens.unit(), 0x84, &[ALL_TOKENS]).await?;
    let token = tokens.populate(0x7160, 0, &[(0, 8)]).await?;
    let all = async |what: &str| {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (0x84, ALL_TOKENS);
        cdb[10..14].copy_from_slice(&(1_u32 << 16).to_be_bytes());
        check::good(what, tokens.unit().command(&cdb, crate::client::Data::In(1 << 16)).await?)
    };
    let told = all("REPORT ALL ROD TOKENS").await?;
    ensure(told.len() >= 8 && (told.len() - 8) % 96 == 0, || format!("{} bytes of ROD management tokens", told.len()))?;
    equal("AVAILABLE DATA", u32::from_be_bytes([told[0], told[1], told[2], told[3]]) as usize + 4, told.len())?;
    ensure(told[8..].chunks(96).any(|one| one == &token[..96]), || "the token that was just made is not told".into())?;
    check::good("WRITE USING TOKEN", tokens.write(0x7161, DEL_TKN, 0, &token, &[(2000, 8)]).await?)?;
    let told = all("REPORT ALL ROD TOKENS").await?;
    ensure(!told[8..].chunks(96).any(|one| one == &token[..96]), || "the token that was deleted is still told".into())
}
