//! Recovery within a connection: what was sent is kept until it is acknowledged, and sent again when a SNACK asks for it.
//!
//! Only on ErrorRecoveryLevel 1. Answers are kept until ExpStatSN has passed them, Data-In until its answer is or a DataACK has
//! released a burst; while much is kept the CmdSN window does not move on, and the initiator is pinged for an acknowledgement.
//! An R-Data SNACK is refused: MaxRecvDataSegmentLength as it was when the data was cut is kept with it, so a plain one works.
//!
//! RFC 7143 (7.2), (7.8), (11.16).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::super::super::bhs::{self, Bhs, RejectReason};
use super::super::super::pdu::Header;
use super::super::super::serial_less;
use super::super::transfer::Pieces;
use super::super::{ConnectionId, Links};
use super::tasks::DataInShape;
use super::{Target, U32};

/// Answers kept of one connection. More than an initiator leaves unacknowledged that answers pings; beyond it the oldest goes.
const MAX_KEPT: usize = 1024;
/// Bytes of their data segments, likewise; those of Data-In are counted elsewhere.
const MAX_KEPT_BYTES: usize = 1024 * 1024;

/// Types of SNACK. RFC 7143 (11.16.1).
const DATA_OR_R2T: u8 = 0;
const STATUS: u8 = 1;
const DATA_ACK: u8 = 2;

/// Answers of one connection that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Ascending by StatSN, without gaps.
    sent: VecDeque<KeptPdu>,
    bytes: usize,
    /// A ping for an acknowledgement is on its way.
    asked: bool,
}

#[derive(Debug)]
struct KeptPdu {
    stat_sn: u32,
    /// The command it answers.
    task: Option<u32>,
    header: [u8; bhs::LENGTH],
    data: Vec<Bytes>,
}

impl KeptPdu {
    fn bytes(&self) -> usize {
        if self.header[0] == bhs::DataIn::OPCODE { 0 } else { self.data.iter().map(Bytes::len).sum() }
    }
}

impl Kept {
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    pub fn keep<H: Bhs>(&mut self, stat_sn: u32, task: Option<u32>, header: &H, data: &[Bytes]) {
        let mut bytes = [0; bhs::LENGTH];
        bytes.copy_from_slice(header.as_bytes());
        bytes[0] = H::OPCODE;
        let kept = KeptPdu { stat_sn, task, header: bytes, data: data.to_vec() };
        self.bytes += kept.bytes();
        self.sent.push_back(kept);
        while self.sent.len() > MAX_KEPT || self.bytes > MAX_KEPT_BYTES {
            self.bytes -= self.sent.pop_front().map_or(0, |kept| kept.bytes());
        }
    }

    /// Drops what has arrived, and gives the commands that were answered by it.
    fn release(&mut self, acknowledged: u32) -> Vec<u32> {
        let mut tasks = Vec::new();
        while let Some(kept) = self.sent.pop_front_if(|kept| serial_less(kept.stat_sn, acknowledged)) {
            self.bytes -= kept.bytes();
            tasks.extend(kept.task);
        }
        tasks
    }
}

/// Data-In of commands whose answers are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// By task tag.
    answered: HashMap<u32, Answered>,
    /// Of all of them.
    pub bytes: usize,
}

/// Data-In as it was sent.
#[derive(Debug)]
pub(super) struct Answered {
    connection: ConnectionId,
    shape: DataInShape,
    /// From `released` on.
    parts: Vec<Bytes>,
    /// Bytes that a DataACK has released: whole bursts.
    released: u32,
}

impl Answered {
    pub fn new(connection: ConnectionId, shape: DataInShape, parts: &[Bytes]) -> Self {
        Self { connection, shape, parts: parts.to_vec(), released: 0 }
    }

    fn bytes(&self) -> usize {
        (self.shape.send - self.released) as usize
    }

    fn pieces_of_a_burst(&self) -> u32 {
        self.shape.burst.div_ceil(self.shape.segment)
    }

    /// DataSN of the first PDU that is still kept.
    fn first_data_sn(&self) -> u32 {
        self.released / self.shape.burst * self.pieces_of_a_burst()
    }

    /// Releases the bursts that lie wholly before a DataSN.
    fn release_before(&mut self, data_sn: u32) {
        let bursts = data_sn / self.pieces_of_a_burst();
        let to = bursts.saturating_mul(self.shape.burst).min(self.shape.send / self.shape.burst * self.shape.burst);
        if to > self.released {
            let mut drop = (to - self.released) as usize;
            self.parts.retain_mut(|part| {
                let here = drop.min(part.len());
                drop -= here;
                let _ = part.split_to(here);
                !part.is_empty()
            });
            self.released = to;
        }
    }
}

impl Recovery {
    pub fn keep(&mut self, tag: u32, answered: Answered) {
        self.bytes += answered.bytes();
        if let Some(former) = self.answered.insert(tag, answered) {
            self.bytes -= former.bytes();
        }
    }

    fn forget(&mut self, tag: u32) {
        if let Some(answered) = self.answered.remove(&tag) {
            self.bytes -= answered.bytes();
        }
    }
}

impl Target {
    /// Takes note of ExpStatSN.
    pub(super) fn acknowledge(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &Header) {
        let Some(exp_stat_sn) = exp_stat_sn(header) else { return };
        let lane = &mut links[on].lane;
        // Neither backwards nor past what was sent.
        if serial_less(exp_stat_sn, lane.acknowledged) || serial_less(lane.stat_sn, exp_stat_sn) {
            return;
        }
        lane.acknowledged = exp_stat_sn;
        lane.kept.asked = false;
        for task in lane.kept.release(exp_stat_sn) {
            self.recovery.forget(task);
        }
        self.settle_answers(links);
        self.reopen_window(links, on);
    }

    /// Pings for an acknowledgement, once.
    pub(super) fn ask_for_acknowledgement(&mut self, links: &mut Links<Self>, on: ConnectionId) {
        let kept = &mut links[on].lane.kept;
        if kept.len() > 0 && !kept.asked {
            kept.asked = true;
            self.ping(links, on);
        }
    }

    /// What was kept for an ended connection.
    pub(super) fn forget_answered_on(&mut self, connection: ConnectionId) {
        let gone = self.recovery.answered.extract_if(|_, answered| answered.connection == connection);
        let bytes: usize = gone.map(|(_, answered)| answered.bytes()).sum();
        self.recovery.bytes -= bytes;
    }

    pub(super) fn snack(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::SnackRequest) {
        let crowded = links[on].transmit.len() > self.config.reply_backlog;
        let run = Run { from: header.beg_run.get(), length: header.run_length.get() };
        let done = match header.flags & 0x0F {
            // What is asked for again and again while nothing is read would grow without bound.
            _ if !self.recovers() || crowded => Err(RejectReason::SnackReject),
            DATA_OR_R2T => self.send_again(links, on, header.initiator_task_tag.get(), run),
            STATUS => self.answer_again(links, on, run),
            DATA_ACK => self.data_arrived(on, header),
            _ => Err(RejectReason::SnackReject),
        };
        if let Err(reason) = done {
            self.reject(links, on, reason, &Header::SnackRequest(*header).to_bytes());
        }
    }

    /// Data-In or R2Ts of a command.
    fn send_again(&mut self, links: &mut Links<Self>, on: ConnectionId, tag: u32, run: Run) -> Result<(), RejectReason> {
        if self.tasks.get(&tag).is_some_and(|task| task.connection == on) {
            self.ask_again(links, tag, |r2t_sn| run.holds(r2t_sn));
            return Ok(());
        }
        let window = self.window(links);
        let Some(answered) = self.recovery.answered.get(&tag).filter(|answered| answered.connection == on) else {
            return Err(RejectReason::SnackReject);
        };
        let first = answered.first_data_sn();
        if serial_less(run.from, first) {
            // It was acknowledged before. RFC 7143 (11.16).
            return Err(RejectReason::ProtocolError);
        }
        let DataInShape { send, segment, burst, .. } = answered.shape;
        let link = &mut links[on];
        let mut found = false;
        for (data_sn, mut piece) in (first..).zip(Pieces::new(&answered.parts, 0, send - answered.released, segment, burst)) {
            piece.offset += answered.released;
            if run.holds(data_sn) {
                found = true;
                link.transmit.push(answered.shape.header(&piece, data_sn, window), &piece.data);
            }
        }
        if found { Ok(()) } else { Err(RejectReason::ProtocolError) }
    }

    /// Answers, by StatSN.
    fn answer_again(&mut self, links: &mut Links<Self>, on: ConnectionId, run: Run) -> Result<(), RejectReason> {
        let (exp_cmd_sn, max_cmd_sn) = self.window(links);
        let link = &mut links[on];
        if link.lane.kept.sent.front().is_some_and(|oldest| serial_less(run.from, oldest.stat_sn)) && run.from != 0 {
            return Err(RejectReason::ProtocolError);
        }
        // Both zero: all that is not acknowledged.
        let all = run.from == 0 && run.length == 0;
        for kept in link.lane.kept.sent.iter().filter(|kept| all || run.holds(kept.stat_sn)) {
            let mut header = kept.header;
            header[28..32].copy_from_slice(&exp_cmd_sn.get().to_be_bytes());
            header[32..36].copy_from_slice(&max_cmd_sn.get().to_be_bytes());
            link.transmit.push_bytes(header, &[], &kept.data);
        }
        Ok(())
    }

    /// All Data-In before a DataSN has arrived.
    fn data_arrived(&mut self, on: ConnectionId, header: &bhs::SnackRequest) -> Result<(), RejectReason> {
        let transfer_tag = header.target_transfer_tag.get();
        let named = |answered: &&mut Answered| answered.connection == on && answered.shape.acknowledged_by == Some(transfer_tag);
        let Some(answered) = self.recovery.answered.values_mut().find(named) else {
            // The answer has overtaken it.
            return Ok(());
        };
        let before = answered.bytes();
        answered.release_before(header.beg_run.get());
        self.recovery.bytes -= before - answered.bytes();
        Ok(())
    }
}

/// BegRun and RunLength; a length of zero goes on to the end.
#[derive(Debug, Clone, Copy)]
struct Run {
    from: u32,
    length: u32,
}

impl Run {
    fn holds(self, number: u32) -> bool {
        !serial_less(number, self.from) && (self.length == 0 || number.wrapping_sub(self.from) < self.length)
    }
}

/// ExpStatSN of a PDU of the initiator's.
fn exp_stat_sn(header: &Header) -> Option<u32> {
    let exp_stat_sn: U32 = match header {
        Header::ScsiCommand(header) => header.exp_stat_sn,
        Header::DataOut(header) => header.exp_stat_sn,
        Header::NopOut(header) => header.exp_stat_sn,
        Header::TaskManagementRequest(header) => header.exp_stat_sn,
        Header::TextRequest(header) => header.exp_stat_sn,
        Header::LogoutRequest(header) => header.exp_stat_sn,
        Header::SnackRequest(header) => header.exp_stat_sn,
        _ => return None,
    };
    Some(exp_stat_sn.get())
}
