//! ErrorRecoveryLevel 1: what was sent is sent again when it is asked for.

use protocol::iscsi::bhs::{self, Header};

use super::{FIRST, Peer};
use crate::suite::check::{Outcome, ensure, equal, equal_bytes, fail, skip};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("status-snack", "RFC 7143, SNACK Request: Status SNACK", Needs::Unit, |bench| Box::pin(status(bench))),
    Case::new("data-snack", "RFC 7143, SNACK Request: Data/R2T SNACK", Needs::Unit, |bench| Box::pin(data(bench))),
    Case::new("r-data-snack", "RFC 7143, SNACK Request: Resegmentation", Needs::Unit, |bench| Box::pin(r_data(bench))),
    Case::new("snack-for-what-has-arrived", "RFC 7143, SNACK Request", Needs::Unit, |bench| Box::pin(arrived(bench))),
    Case::new("lost-data-out", "RFC 7143, Sequence Errors; Recovery R2T", Needs::ScratchDisk, |bench| Box::pin(data_out(bench))),
    Case::new("data-out-with-a-wrong-digest", "RFC 7143, Digest errors; Recovery R2T", Needs::ScratchDisk, |bench| {
        Box::pin(damaged_data_out(bench))
    }),
    Case::new("data-snack-with-digests", "RFC 7143, iSCSI digests; SNACK Request", Needs::Unit, |bench| {
        Box::pin(digested(bench))
    }),
    Case::new("snack-on-level-0", "RFC 7143, SNACK Request; Reject", Needs::Unit, |bench| Box::pin(level_0(bench))),
];

const DATA_OR_R2T: u8 = 0;
const STATUS: u8 = 1;
const R_DATA: u8 = 3;
/// Reason of a Reject.
const PROTOCOL_ERROR: u8 = 4;

async fn level_1(bench: &Bench, keys: &[(&str, &str)]) -> Outcome<Peer> {
    let peer = Peer::enter(bench, LoginHeader::default(), &[&[("ErrorRecoveryLevel", "1")], keys].concat()).await?;
    if peer.number("ErrorRecoveryLevel") == 0 {
        return skip("the target answers ErrorRecoveryLevel=0");
    }
    Ok(peer)
}

async fn level_1_with_digests(bench: &Bench, keys: &[(&str, &str)]) -> Outcome<Peer> {
    let mut peer = level_1(bench, &[&[("DataDigest", "CRC32C,None")], keys].concat()).await?;
    if peer.login.key("DataDigest") != Some("CRC32C") {
        return skip("the target does not take DataDigest=CRC32C");
    }
    peer.connection.begin_data_digests();
    Ok(peer)
}

async fn snack(peer: &mut Peer, kind: u8, tag: u32, from: u32, length: u32) -> Outcome {
    snack_with(peer, kind, (tag, bhs::NO_TAG), from, length).await
}

/// `transfer_tag` is the SNACK Tag of an R-Data SNACK.
async fn snack_with(peer: &mut Peer, kind: u8, (tag, transfer_tag): (u32, u32), from: u32, length: u32) -> Outcome {
    let header = bhs::SnackRequest {
        opcode: 0x10,
        flags: bhs::FINAL | kind,
        lun: peer.lun,
        initiator_task_tag: tag.into(),
        target_transfer_tag: transfer_tag.into(),
        exp_stat_sn: peer.exp_stat_sn.into(),
        beg_run: from.into(),
        run_length: length.into(),
        ..Default::default()
    };
    peer.connection.send(Header::SnackRequest(header).to_bytes(), &[]).await
}

/// The answer comes again with the same StatSN.
async fn status(bench: &Bench) -> Outcome {
    let mut peer = level_1(bench, &[]).await?;
    peer.inquire(1, FIRST).await?;
    let (first, stat_sn, _) = peer.ends(1).await?;
    snack(&mut peer, STATUS, bhs::NO_TAG, stat_sn, 1).await?;
    let (again, again_stat_sn, _) = peer.ends(1).await?;
    equal("status and StatSN, sent again", (again, again_stat_sn), (first, stat_sn))
}

/// Data-In comes again as it was, by DataSN.
async fn data(bench: &Bench) -> Outcome {
    comes_again(level_1(bench, &[]).await?).await
}

/// As [`data`], with a digest behind each data segment: both times the right one.
async fn digested(bench: &Bench) -> Outcome {
    comes_again(level_1_with_digests(bench, &[]).await?).await
}

async fn comes_again(mut peer: Peer) -> Outcome {
    peer.inquire(1, FIRST).await?;
    let (_, _, first) = peer.ends(1).await?;
    snack(&mut peer, DATA_OR_R2T, 1, 0, 1).await?;
    match peer.next().await? {
        (Header::DataIn(header), bytes) => {
            equal(
                "tag, DataSN and offset",
                (header.initiator_task_tag.get(), header.data_sn.get(), header.buffer_offset.get()),
                (1, 0, 0),
            )?;
            equal_bytes("Data-In, sent again", &bytes, &first)
        }
        (other, _) => fail(format!("expected Data-In again, got a {}", other.name())),
    }
}

/// All Data-In comes again, and behind it a response of its own that bears the tag of the SNACK under the StatSN that it had.
async fn r_data(bench: &Bench) -> Outcome {
    const SNACK_TAG: u32 = 0x55;
    let mut peer = level_1(bench, &[]).await?;
    peer.inquire(1, FIRST).await?;
    let (status, stat_sn, first) = peer.ends(1).await?;
    snack_with(&mut peer, R_DATA, (1, SNACK_TAG), 0, 0).await?;
    let mut again = Vec::new();
    let mut pieces = 0;
    loop {
        match peer.next().await? {
            (Header::DataIn(header), bytes) => {
                equal("DataSN and offset", (header.data_sn.get(), header.buffer_offset.get() as usize), (pieces, again.len()))?;
                again.extend_from_slice(&bytes);
                pieces += 1;
            }
            (Header::ScsiResponse(response), _) => {
                equal("status and StatSN", (response.status, response.stat_sn.get()), (status, stat_sn))?;
                equal("SNACK Tag of the response", response.snack_tag.get(), SNACK_TAG)?;
                equal("ExpDataSN of the response", response.exp_data_sn.get(), pieces)?;
                return equal_bytes("Data-In, cut anew", &again, &first);
            }
            (other, _) => return fail(format!("expected Data-In again and a response, got a {}", other.name())),
        }
    }
}

/// What was acknowledged cannot be had again.
async fn arrived(bench: &Bench) -> Outcome {
    let mut peer = level_1(bench, &[]).await?;
    peer.inquire(1, FIRST).await?;
    peer.exp_stat_sn = peer.ends(1).await?.1.wrapping_add(1);
    snack(&mut peer, DATA_OR_R2T, 1, 0, 1).await?;
    match peer.next().await? {
        (Header::Reject(reject), _) => equal("reason of the Reject", reject.reason, PROTOCOL_ERROR),
        (other, _) => fail(format!("expected a Reject, got a {}", other.name())),
    }
}

/// One of two Data-Out PDUs is left out: the target asks for it again, or ends the command with an error.
async fn data_out(bench: &Bench) -> Outcome {
    let block = bench.disk().await?.block();
    let mut peer = level_1(bench, &[("InitialR2T", "Yes"), ("ImmediateData", "No")]).await?;
    // The first command of a nexus may meet a unit attention; TEST UNIT READY takes it.
    peer.command(1, FIRST, 0, 0, &[0; 6]).await?;
    peer.ends(1).await?;
    let write = [0x2A, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    peer.command(2, FIRST + 1, bhs::WRITE, 2 * block, &write).await?;
    let r2t = r2t(&mut peer).await?;
    let piece = vec![0x5A; block as usize];
    // DataSN 1 without DataSN 0.
    send(&mut peer, &r2t, (1, block, true), &piece).await?;
    match peer.next().await? {
        (Header::R2t(again), _) => {
            equal("offset that is asked for again", again.buffer_offset.get(), 0)?;
            send(&mut peer, &again, (0, 0, false), &piece).await?;
            send(&mut peer, &again, (1, block, true), &piece).await?;
            equal("status of the write", peer.ends(2).await?.0, 0)
        }
        (Header::ScsiResponse(response), _) => equal("status of a write that lacks data", response.status, 2),
        (other, _) => fail(format!("expected an R2T or a response, got a {}", other.name())),
    }
}

async fn r2t(peer: &mut Peer) -> Outcome<bhs::R2t> {
    match peer.next().await? {
        (Header::R2t(r2t), _) => Ok(r2t),
        (other, _) => fail(format!("expected an R2T, got a {}", other.name())),
    }
}

async fn send(peer: &mut Peer, r2t: &bhs::R2t, place: (u32, u32, bool), data: &[u8]) -> Outcome {
    peer.connection.send(data_out_header(peer, r2t, place), data).await
}

fn data_out_header(peer: &Peer, r2t: &bhs::R2t, (data_sn, offset, is_final): (u32, u32, bool)) -> [u8; bhs::LENGTH] {
    let header = bhs::DataOut {
        opcode: 0x05,
        flags: if is_final { bhs::FINAL } else { 0 },
        lun: r2t.lun,
        initiator_task_tag: r2t.initiator_task_tag,
        target_transfer_tag: r2t.target_transfer_tag,
        exp_stat_sn: peer.exp_stat_sn.into(),
        data_sn: data_sn.into(),
        buffer_offset: offset.into(),
        ..Default::default()
    };
    Header::DataOut(header).to_bytes()
}

/// Data whose digest is wrong is rejected and asked for again, or the command ends with an error. It is never written.
async fn damaged_data_out(bench: &Bench) -> Outcome {
    const DATA_DIGEST_ERROR: u8 = 2;
    let disk = bench.disk().await?;
    let block = disk.block();
    disk.put(0, &disk.pattern(0x11, 1)).await?;
    let mut peer = level_1_with_digests(bench, &[("InitialR2T", "Yes"), ("ImmediateData", "No")]).await?;
    peer.command(1, FIRST, 0, 0, &[0; 6]).await?;
    peer.ends(1).await?;
    peer.command(2, FIRST + 1, bhs::WRITE, block, &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]).await?;
    let asked = r2t(&mut peer).await?;
    let data = disk.pattern(0x22, 1);
    peer.connection.send_damaged(data_out_header(&peer, &asked, (0, 0, true)), &data, 1).await?;
    let mut rejected = false;
    loop {
        match peer.next().await? {
            (Header::Reject(reject), _) if !rejected => {
                equal("reason of the Reject", reject.reason, DATA_DIGEST_ERROR)?;
                rejected = true;
            }
            (Header::R2t(again), _) => {
                equal("offset that is asked for again", again.buffer_offset.get(), 0)?;
                ensure(rejected, || "data with a wrong digest was not rejected before it was asked for again".into())?;
                send(&mut peer, &again, (0, 0, true), &data).await?;
                equal("status of the write", peer.ends(2).await?.0, 0)?;
                return equal_bytes("what was written", &disk.get(0, 1).await?, &data);
            }
            (Header::ScsiResponse(response), _) => {
                ensure(response.status != 0, || "a write whose data had a wrong digest ended GOOD".into())?;
                return equal_bytes("what was there before", &disk.get(0, 1).await?, &disk.pattern(0x11, 1));
            }
            (other, _) => return fail(format!("expected a Reject and an R2T, got a {}", other.name())),
        }
    }
}

/// Without recovery there is nothing to be had by SNACK.
async fn level_0(bench: &Bench) -> Outcome {
    let mut peer = Peer::enter(bench, LoginHeader::default(), &[("ErrorRecoveryLevel", "0")]).await?;
    snack(&mut peer, STATUS, bhs::NO_TAG, 0, 0).await?;
    match peer.connection.receive().await? {
        Some((Header::Reject(_), _)) | None => Ok(()),
        Some((other, _)) => fail(format!("expected a Reject, got a {}", other.name())),
    }
}
