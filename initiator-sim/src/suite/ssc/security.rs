//! Encryption of what is written, and protection of blocks on their way: what stenc and LTFS set.

use bytes::Bytes;
use protocol::scsi::SenseKey;

use super::{mode_page, read, select_page, write};
use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::{expect_record, pattern, write_records};
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes, refused, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("encryption", "SSC-4, Set Data Encryption page; decryption modes", Needs::ScratchTape, |bench| {
        Box::pin(encryption(bench))
    }),
    Case::new("encryption-capabilities", "SSC-4, Data Encryption Capabilities page", Needs::ScratchTape, |bench| {
        Box::pin(capabilities(bench))
    }),
    Case::new("logical-block-protection", "SSC-4, Control Data Protection mode page", Needs::ScratchTape, |bench| {
        Box::pin(protection(bench))
    }),
];

async fn protocol_in(tape: &LogicalUnit, protocol: u8, page: u16) -> Outcome<Bytes> {
    let [high, low] = page.to_be_bytes();
    let cdb = [0xA2, protocol, high, low, 0, 0, 0, 0, 0x10, 0, 0, 0];
    let reply = supported("SECURITY PROTOCOL IN", tape.command(&cdb, Data::In(0x1000)).await?)?;
    let data = check::good("SECURITY PROTOCOL IN", reply)?;
    ensure(data.len() >= 4, || format!("{} bytes of page {page:04X}h", data.len()))?;
    Ok(data)
}

/// Page 0010h of SECURITY PROTOCOL OUT for all nexuses: modes, and a key made of one byte.
async fn set(tape: &LogicalUnit, encryption: u8, decryption: u8, key: u8) -> Outcome<Reply> {
    let mut page = vec![0, 0x10, 0, 0, 0x40, 0, encryption, decryption, 1, 0];
    page.resize(18, 0);
    if encryption != 0 || decryption != 0 {
        page.extend([0, 32]);
        page.extend([key; 32]);
        page.extend([0, 0, 0, 4]);
        page.extend(b"name");
    } else {
        page.extend([0, 0]);
    }
    let length = page.len() as u8;
    page[3] = length - 4;
    Ok(tape.command(&[0xB5, 0x20, 0, 0x10, 0, 0, 0, 0, 0, length, 0, 0], Data::Out(page.into())).await?)
}

async fn capabilities(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let protocols = protocol_in(&tape, 0, 0).await?;
    if !protocols.get(8..).is_some_and(|list| list.contains(&0x20)) {
        return check::skip("the drive does not encrypt");
    }
    for page in [0x0000, 0x0001, 0x0010, 0x0011, 0x0012, 0x0020, 0x0021] {
        let data = protocol_in(&tape, 0x20, page).await?;
        equal("page code", u16::from_be_bytes([data[0], data[1]]), page)?;
        equal("page length", usize::from(u16::from_be_bytes([data[2], data[3]])), data.len() - 4)?;
    }
    Ok(())
}

async fn encryption(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    if !protocol_in(&tape, 0, 0).await?.get(8..).is_some_and(|list| list.contains(&0x20)) {
        return check::skip("the drive does not encrypt");
    }
    let outcome = with_keys(&tape).await;
    check::good("encryption off", set(&tape, 0, 0, 0).await?)?;
    outcome
}

async fn with_keys(tape: &LogicalUnit) -> Outcome {
    write_records(tape, &[pattern(1, 1000)]).await?;
    check::good("SECURITY PROTOCOL OUT", set(tape, 2, 2, 7).await?)?;
    let status = protocol_in(tape, 0x20, 0x0020).await?;
    equal("modes of the status page", &status[5..8], &[2, 2, 1][..])?;
    write_records(tape, &[pattern(2, 2000)]).await?;
    tape.rewind().await?;
    let plain = read(tape, 0, 1000, 1000).await?;
    refused("READ(6) of a plain record, decryption mode DECRYPT", &plain, SenseKey::DataProtect, &[(0x74, 0x02)])?;
    check::good("decryption mode MIXED", set(tape, 2, 3, 7).await?)?;
    expect_record(tape, "the plain record", &pattern(1, 1000)).await?;
    let next = protocol_in(tape, 0x20, 0x0021).await?;
    equal("encryption status of the next block", next[12] & 0x0F, 5)?;
    expect_record(tape, "the encrypted record", &pattern(2, 2000)).await?;
    for (mode, key, code) in [(3, 8, (0x74, 0x03)), (0, 0, (0x74, 0x01))] {
        check::good("another key, or none", set(tape, 0, mode, key).await?)?;
        tape.rewind().await?;
        expect_record(tape, "the plain record", &pattern(1, 1000)).await?;
        let reply = read(tape, 0, 2000, 2000).await?;
        refused("READ(6) of an encrypted record", &reply, SenseKey::DataProtect, &[code])?;
        super::stands_at(tape, "in front of what could not be read", 1).await?;
    }
    Ok(())
}

const CRC32C: u8 = 2;

async fn protection(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let page = mode_page(&tape, 0x0A, 0xF0).await?;
    ensure(page.len() == 32, || format!("the page has {} bytes", page.len()))?;
    let mut on = page.clone();
    on[4..7].copy_from_slice(&[CRC32C, 4, 0xC0]);
    let selected = select_page(&tape, &on).await?;
    if selected.sense.is_some() {
        return check::skip("the drive does not have CRC32C");
    }
    let outcome = protected(&tape).await;
    check::good("MODE SELECT of no protection", select_page(&tape, &page).await?)?;
    outcome
}

async fn protected(tape: &LogicalUnit) -> Outcome {
    let block = [&b"123456789"[..], &0xE306_9283_u32.to_le_bytes()].concat();
    let length = block.len() as u32;
    check::good("WRITE(6) of a protected block", write(tape, 0, length, block.clone().into()).await?)?;
    let mut wrong = block.clone();
    wrong[4] ^= 1;
    let reply = write(tape, 0, length, wrong.into()).await?;
    let guard = reply.sense.as_ref().map(|sense| sense.code);
    equal("LOGICAL BLOCK GUARD CHECK FAILED for a block that does not fit", guard, Some((0x10, 0x01)))?;
    tape.rewind().await?;
    let data = check::good("READ(6) of a protected block", read(tape, 0, length, length).await?)?;
    equal_bytes("the block with its information", &data, &block)
}
