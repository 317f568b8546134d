//! A target's session fed by an initiator that says anything: raw bytes in pieces before the login, and PDUs behind it whose
//! lengths and CmdSN are made right often enough that they get past the door.
//!
//! Input: a byte of options; then, without a login, bytes in pieces of a length given in front of each; with one, items of an
//! action byte and what belongs to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use protocol::iscsi::bhs::{self, Bhs, LoginRequest, ScsiCommand};
use protocol::iscsi::{
    ConnectionId, Reply, Session, Target, TargetConfig, TargetEntry, TargetEvent, TaskManagementResponse, Transmit,
};
use protocol::scsi::Status;
use protocol::wire::{U16, U32};

use super::Input;

const CONNECTION: ConnectionId = ConnectionId(0);

/// One input.
pub fn fuzz(data: &[u8]) {
    let mut input = Input(data);
    let options = input.byte();
    let mut peer = Peer::new();
    if options & 1 == 0 {
        while !input.is_empty() {
            let length = usize::from(input.byte());
            let piece = input.take(length + 1);
            if !peer.send(piece) {
                return;
            }
        }
        return;
    }
    peer.log_in(options);
    while !input.is_empty() && peer.act(&mut input) {}
}

/// The initiator, and the target's caller.
struct Peer {
    session: Session<Target>,
    now: Instant,
    buffer: BytesMut,
    cmd_sn: u32,
    running: VecDeque<u32>,
    managing: VecDeque<u32>,
    logout: Option<u32>,
}

impl Peer {
    fn new() -> Self {
        let entry = TargetEntry { name: "iqn.2026-01.org.offhost:fuzz".into(), addresses: vec!["127.0.0.1:3260,1".into()] };
        let config = TargetConfig {
            gate: std::sync::Arc::new(vec![entry]),
            queue_depth: 8,
            write_budget: 1 << 20,
            max_write_length: 1 << 20,
            wishes: protocol::iscsi::keys::Wishes { error_recovery_level: 1, ..Default::default() },
            ..Default::default()
        };
        let now = Instant::now();
        Self {
            session: Session::accept(CONNECTION, config, now),
            now,
            buffer: BytesMut::new(),
            cmd_sn: 1,
            running: VecDeque::new(),
            managing: VecDeque::new(),
            logout: None,
        }
    }

    /// False when the session is over.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        let alive = self.session.handle_input(CONNECTION, self.now, &mut self.buffer).is_ok();
        while let Some(event) = self.session.poll_event() {
            match event {
                TargetEvent::SessionUp(_) | TargetEvent::Join(_) => {}
                TargetEvent::Command(command) => {
                    let gathered: usize = command.data_out.iter().map(Bytes::len).sum();
                    assert!(gathered <= 1 << 20, "more was gathered than is allowed");
                    self.running.push_back(command.tag);
                }
                TargetEvent::DataOut { tag } => drop(self.session.take_data_out(tag, 4096)),
                TargetEvent::Failed { .. } => {}
                TargetEvent::TaskManagement { tag, .. } => self.managing.push_back(tag),
                TargetEvent::Logout { tag, .. } => self.logout = Some(tag),
            }
        }
        assert!(self.running.len() <= 16, "more commands are open than the window and the immediate ones allow");
        alive && !self.session.is_closing(CONNECTION)
    }

    fn log_in(&mut self, options: u8) {
        let yes = |bit: u8| if options & bit != 0 { "Yes" } else { "No" };
        let digest = |bit: u8| if options & bit != 0 { "CRC32C" } else { "None" };
        let text = format!(
            "InitiatorName=iqn.2026-01.org.offhost:peer\0TargetName=iqn.2026-01.org.offhost:fuzz\0SessionType=Normal\0\
             InitialR2T={}\0ImmediateData={}\0HeaderDigest={}\0DataDigest={}\0MaxBurstLength=4096\0FirstBurstLength=2048\0\
             MaxOutstandingR2T=2\0MaxRecvDataSegmentLength=512\0ErrorRecoveryLevel={}\0",
            yes(2),
            yes(4),
            digest(8),
            digest(16),
            options >> 5 & 1,
        );
        let header = LoginRequest {
            opcode: bhs::IMMEDIATE,
            flags: bhs::FINAL | 1 << 2 | 3,
            isid: [0x40, 0, 0, 0, 0, 1],
            cid: U16::new(0),
            cmd_sn: U32::new(self.cmd_sn),
            ..Default::default()
        };
        let mut transmit = Transmit::default();
        transmit.push(header, &[Bytes::from(text)]);
        let bytes = transmit.copy_to_bytes(transmit.remaining());
        assert!(self.send(&bytes), "the login of this initiator is sound");
        self.drain();
    }

    fn drain(&mut self) {
        let transmit = self.session.transmit(CONNECTION).expect("its only connection");
        let length = transmit.remaining();
        transmit.advance(length);
    }

    /// One thing that the initiator or the target's caller does. False when the session is over.
    fn act(&mut self, input: &mut Input<'_>) -> bool {
        match input.byte() % 8 {
            0 => {
                let length = usize::from(input.byte());
                let piece = input.take(length);
                return self.send(piece);
            }
            1 => self.answer(input),
            2 => {
                if let Some(tag) = self.managing.pop_front() {
                    self.session.respond_task_management(tag, TaskManagementResponse::FunctionComplete);
                }
            }
            3 => {
                if let (Some(tag), true) = (self.logout.take(), input.byte() & 1 == 0) {
                    self.session.respond_logout(tag);
                }
            }
            4 => {
                let mask = u32::from(input.byte());
                let doomed = self.session.abort_tasks(|tag, _| tag & mask == 0);
                self.running.retain(|tag| !doomed.contains(tag));
            }
            5 => {
                self.now += Duration::from_secs(u64::from(input.byte()));
                if self.session.handle_timeout(CONNECTION, self.now).is_err() {
                    return false;
                }
            }
            action => return self.pdu(input, action == 6),
        }
        self.drain();
        !self.session.is_closing(CONNECTION)
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(tag) = self.running.pop_front() else { return };
        let data = Bytes::from(vec![0; usize::from(input.short())]);
        let sense = input.byte();
        let reply = Reply {
            status: if sense == 0 { Status::Good } else { Status::CheckCondition },
            sense: Bytes::from(vec![0x70; usize::from(sense)]),
            data_in: vec![data.slice(..data.len() / 3), data.slice(data.len() / 3..)],
            transfer_length: (sense & 1 == 1).then(|| u64::from(input.short()) << (sense & 31)),
        };
        self.session.respond(tag, &reply);
    }

    /// A header of 48 bytes as they come, but for its lengths, and its CmdSN where `in_order`.
    fn pdu(&mut self, input: &mut Input<'_>, in_order: bool) -> bool {
        let mut header: [u8; bhs::LENGTH] = input.array();
        let length = usize::from(input.short()) % 2500;
        let data = input.take(length);
        header[4] = if header[0] & 0x3F == ScsiCommand::OPCODE { header[4] & 3 } else { 0 };
        header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        // Few tags, so that PDUs meet the tasks of others.
        header[16..19].fill(0);
        header[19] &= 7;
        let takes_number = header[0] & bhs::IMMEDIATE == 0 && matches!(header[0] & 0x3F, 0..=2 | 4 | 6);
        if in_order && header[0] & 0x3F != 5 {
            header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
            self.cmd_sn += u32::from(takes_number);
        }
        let mut bytes = header.to_vec();
        bytes.resize(header.len() + usize::from(header[4]) * 4, 0);
        let digests = self.session.parameters().digests;
        if digests.header {
            let sum = protocol::iscsi::digest::of(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        let data_at = bytes.len();
        bytes.extend_from_slice(data);
        bytes.resize(data_at + data.len().next_multiple_of(4), 0);
        if digests.data && !data.is_empty() {
            let sum = protocol::iscsi::digest::of(&bytes[data_at..]);
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        self.send(&bytes)
    }
}
