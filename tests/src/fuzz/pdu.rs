//! A target's session fed by an initiator that says anything: raw bytes in pieces before the login, and PDUs behind it whose
//! lengths and CmdSN are made right often enough that they get past the door.
//!
//! Input: a byte of options; then, without a login, bytes in pieces of a length given in front of each; with one, items of an
//! action byte and what belongs to it. One of the options has bursts as long as those that are taken before a command is complete:
//! the data of the input is repeated for it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use protocol::iscsi::bhs::{self, Bhs, DataOut, LoginRequest, ScsiCommand};
use protocol::iscsi::{
    ConnectionId, Reply, Session, Target, TargetConfig, TargetEntry, TargetEvent, TaskManagementResponse, Transmit,
};
use protocol::scsi::Status;
use protocol::wire::{U16, U32};

use super::Input;

const CONNECTION: ConnectionId = ConnectionId(0);

/// How often data is repeated where bursts are long.
const REPEATED: usize = 64;

/// One input.
pub fn fuzz(data: &[u8]) {
    run(data);
}

/// One input; how many bytes were taken before their command was complete.
fn run(data: &[u8]) -> usize {
    let mut input = Input(data);
    let options = input.byte();
    let mut peer = Peer::new();
    if options & 1 == 0 {
        while !input.is_empty() {
            let length = usize::from(input.byte());
            let piece = input.take(length + 1);
            if !peer.send(piece) {
                break;
            }
        }
        return 0;
    }
    peer.log_in(options);
    while !input.is_empty() && peer.act(&mut input) {}
    peer.taken_in_all
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
    long_bursts: bool,
    /// Of commands that are not complete: what was taken, and what there is in all.
    taken: HashMap<u32, (usize, usize)>,
    taken_in_all: usize,
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
            long_bursts: false,
            taken: HashMap::new(),
            taken_in_all: 0,
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
                    if let Some((taken, expected)) = self.taken.remove(&command.tag) {
                        assert_eq!(taken + gathered, expected, "what is taken and what is left is all of it");
                    }
                    self.running.push_back(command.tag);
                }
                TargetEvent::DataOut { tag } => self.take_some(tag),
                TargetEvent::Failed { tag } => drop(self.taken.remove(&tag)),
                TargetEvent::TaskManagement { tag, .. } => self.managing.push_back(tag),
                TargetEvent::Logout { tag, .. } => self.logout = Some(tag),
            }
        }
        assert!(self.running.len() <= 16, "more commands are open than the window and the immediate ones allow");
        alive && !self.session.is_closing(CONNECTION)
    }

    /// Takes half of what has come of a command.
    fn take_some(&mut self, tag: u32) {
        let Some(arriving) = self.session.arriving(tag) else { return };
        let taken: usize = self.session.take_data_out(tag, arriving.held / 2).iter().map(Bytes::len).sum();
        assert_eq!(taken, arriving.held as usize / 2);
        self.taken_in_all += taken;
        let sum = self.taken.entry(tag).or_insert((0, arriving.expected as usize));
        sum.0 += taken;
        assert_eq!(sum.0, arriving.taken as usize + taken, "nothing else takes any");
    }

    fn log_in(&mut self, options: u8) {
        self.long_bursts = options & 64 != 0;
        let (burst, first) = if self.long_bursts { (262_144, 131_072) } else { (4096, 2048) };
        let yes = |bit: u8| if options & bit != 0 { "Yes" } else { "No" };
        let digest = |bit: u8| if options & bit != 0 { "CRC32C" } else { "None" };
        let text = format!(
            "InitiatorName=iqn.2026-01.org.offhost:peer\0TargetName=iqn.2026-01.org.offhost:fuzz\0SessionType=Normal\0\
             InitialR2T={}\0ImmediateData={}\0HeaderDigest={}\0DataDigest={}\0MaxBurstLength={burst}\0FirstBurstLength={first}\0\
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
                self.taken.retain(|tag, _| !doomed.contains(tag));
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

    /// A header of 48 bytes as they come, but for its lengths, and its CmdSN or Buffer Offset where `in_order`.
    fn pdu(&mut self, input: &mut Input<'_>, in_order: bool) -> bool {
        let mut header: [u8; bhs::LENGTH] = input.array();
        let length = usize::from(input.short()) % 2500;
        let data = &input.take(length).repeat(if self.long_bursts { REPEATED } else { 1 })[..];
        header[4] = if header[0] & 0x3F == ScsiCommand::OPCODE { header[4] & 3 } else { 0 };
        header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        // Few tags, so that PDUs meet the tasks of others.
        header[16..19].fill(0);
        header[19] &= 7;
        let takes_number = header[0] & bhs::IMMEDIATE == 0 && matches!(header[0] & 0x3F, 0..=2 | 4 | 6);
        match header[0] & 0x3F {
            DataOut::OPCODE if in_order => {
                let here = self.session.arriving(header[19].into()).map_or(0, |arriving| arriving.taken + arriving.held);
                header[40..44].copy_from_slice(&here.to_be_bytes());
            }
            _ if in_order => {
                header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
                self.cmd_sn += u32::from(takes_number);
            }
            _ => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::drive::seeds;

    #[test]
    fn the_kept_inputs_have_data_taken_on_both_recovery_levels() {
        for recovers in [false, true] {
            let wanted = 1 | u8::from(recovers) << 5;
            let seeds = seeds("pdu");
            let those = seeds.iter().filter(|seed| seed.first().is_some_and(|options| options & (1 | 1 << 5) == wanted));
            assert!(those.map(|seed| run(seed)).max() > Some(100_000), "ErrorRecoveryLevel={}", u8::from(recovers));
        }
    }
}
