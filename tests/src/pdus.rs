//! iSCSI PDUs written by hand, byte by byte as a peer sends them that keeps to nothing.
//!
//! No session state, no digests, no checks: what makes sense is the caller's business. Layouts are those of `protocol::iscsi::bhs`;
//! RFC 7143 (11).

use bytes::{Buf, Bytes};
use protocol::iscsi::bhs::{self, Bhs};
use protocol::iscsi::{Transmit, bhs::NO_TAG};

/// INQUIRY with room for 96 bytes.
pub const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
/// READ(10) of 8 blocks.
pub const READ_10: [u8; 10] = [0x28, 0, 0, 0, 0, 8, 0, 0, 8, 0];
/// WRITE(10) of 8 blocks.
pub const WRITE_10: [u8; 10] = [0x2A, 0, 0, 0, 0, 8, 0, 0, 8, 0];

/// Who a login says it is, and whom it wants.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// InitiatorName.
    pub initiator: &'a str,
    /// TargetName.
    pub target: &'a str,
}

/// A PDU with its operation code and lengths.
#[must_use]
pub fn pdu<H: Bhs>(header: H, data: &[u8]) -> Vec<u8> {
    let mut transmit = Transmit::default();
    transmit.push(header, &[Bytes::copy_from_slice(data)]);
    transmit.copy_to_bytes(transmit.len()).to_vec()
}

/// A header that says that a data segment of 16 MiB less one byte follows.
#[must_use]
pub fn longest<H: Bhs>(header: H) -> Vec<u8> {
    let mut bytes = pdu(header, &[]);
    bytes[5..8].fill(0xFF);
    bytes
}

/// The leading login of a normal session, straight to the full feature phase, with these keys besides.
#[must_use]
pub fn login(names: Names<'_>, isid: u32, keys: &[(&str, &str)]) -> Vec<u8> {
    let own = [("InitiatorName", names.initiator), ("TargetName", names.target), ("SessionType", "Normal")];
    let text: String = own.iter().chain(keys).map(|(key, value)| format!("{key}={value}\0")).collect();
    pdu(login_header(isid), text.as_bytes())
}

/// Of [`login`].
#[must_use]
pub fn login_header(isid: u32) -> bhs::LoginRequest {
    let [a, b, c, d] = isid.to_be_bytes();
    bhs::LoginRequest {
        opcode: bhs::IMMEDIATE,
        flags: bhs::FINAL | 1 << 2 | 3,
        isid: [0x80, a, b, c, d, 0],
        cmd_sn: 1.into(),
        ..Default::default()
    }
}

/// A simple command to LUN 0 with one number for its tag and its CmdSN; `length` is what it says that it moves.
#[must_use]
pub fn command(number: u32, flags: u8, length: u32, cdb: &[u8]) -> bhs::ScsiCommand {
    let mut header = bhs::ScsiCommand {
        flags: bhs::FINAL | flags | 1,
        initiator_task_tag: number.into(),
        expected_data_transfer_length: length.into(),
        cmd_sn: number.into(),
        ..Default::default()
    };
    header.cdb[..cdb.len()].copy_from_slice(cdb);
    header
}

/// A last Data-Out for a tag, as the R2T with this transfer tag might have asked for.
#[must_use]
pub fn data_out(tag: u32, transfer_tag: u32, data_sn: u32, offset: u32) -> bhs::DataOut {
    bhs::DataOut {
        flags: bhs::FINAL,
        initiator_task_tag: tag.into(),
        target_transfer_tag: transfer_tag.into(),
        data_sn: data_sn.into(),
        buffer_offset: offset.into(),
        ..Default::default()
    }
}

/// A ping that wants an answer, outside of the order of commands.
#[must_use]
pub fn ping(tag: u32) -> bhs::NopOut {
    bhs::NopOut {
        opcode: bhs::IMMEDIATE,
        flags: bhs::FINAL,
        initiator_task_tag: tag.into(),
        target_transfer_tag: NO_TAG.into(),
        ..Default::default()
    }
}

/// A task management function at LUN 0, outside of the order of commands.
#[must_use]
pub fn task_management(tag: u32, function: u8, referenced: u32) -> bhs::TaskManagementRequest {
    bhs::TaskManagementRequest {
        opcode: bhs::IMMEDIATE,
        flags: bhs::FINAL | function,
        initiator_task_tag: tag.into(),
        referenced_task_tag: referenced.into(),
        ..Default::default()
    }
}

/// A text request outside of the order of commands; `flags` are F and C.
#[must_use]
pub fn text(tag: u32, flags: u8) -> bhs::TextRequest {
    bhs::TextRequest {
        opcode: bhs::IMMEDIATE,
        flags,
        initiator_task_tag: tag.into(),
        target_transfer_tag: NO_TAG.into(),
        ..Default::default()
    }
}

/// A SNACK of this type.
#[must_use]
pub fn snack(kind: u8, tag: u32, transfer_tag: u32, from: u32, length: u32) -> bhs::SnackRequest {
    bhs::SnackRequest {
        flags: bhs::FINAL | kind,
        initiator_task_tag: tag.into(),
        target_transfer_tag: transfer_tag.into(),
        beg_run: from.into(),
        run_length: length.into(),
        ..Default::default()
    }
}
