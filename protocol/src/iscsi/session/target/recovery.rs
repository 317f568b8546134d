//! Recovery within a connection: what was sent is kept until it is acknowledged, and sent again when a SNACK asks for it.
//!
//! Only on ErrorRecoveryLevel 1. Answers are kept until ExpStatSN has passed them, Data-In until its answer is or a DataACK has
//! released a burst; while much is kept the CmdSN window does not move on, and the initiator is pinged for an acknowledgement.
//! A plain SNACK brings Data-In again as it was cut, an R-Data SNACK as the initiator takes it now.
//!
//! RFC 7143 (7.2), (7.8), (11.16): where there is recovery at all, every type of SNACK is served.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::super::super::bhs::{self, Bhs, NO_TAG, RejectReason};
use super::super::super::pdu::{Header, Transmit};
use super::super::super::serial_less;
use super::super::transfer::{Piece, Pieces};
use super::super::{ConnectionId, Link, Links};
use super::tasks::DataInShape;
use super::{Target, U32};

/// Answers kept of one connection. More than an initiator leaves unacknowledged that answers pings; beyond it the oldest goes.
const MAX_KEPT: usize = 1024;
/// Bytes of their data segments, likewise; those of Data-In are counted elsewhere.
pub(super) const MAX_KEPT_BYTES: usize = 1024 * 1024;

/// Types of SNACK. RFC 7143 (11.16.1).
const DATA_OR_R2T: u8 = 0;
const STATUS: u8 = 1;
const DATA_ACK: u8 = 2;
const R_DATA: u8 = 3;

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

    /// Makes it a SCSI Response with a SNACK Tag, also where it was status in the last Data-In. RFC 7143 (11.16.3).
    fn tag(&mut self, snack_tag: u32, exp_data_sn: u32) {
        let response = match Header::parse(&self.header) {
            Header::ScsiResponse(response) => response,
            Header::DataIn(last) => {
                self.data.clear();
                bhs::ScsiResponse {
                    flags: bhs::FINAL | last.flags & (bhs::UNDERFLOW | bhs::OVERFLOW),
                    status: last.status,
                    initiator_task_tag: last.initiator_task_tag,
                    stat_sn: last.stat_sn,
                    residual_count: last.residual_count,
                    ..Default::default()
                }
            }
            _ => return,
        };
        let (snack_tag, exp_data_sn) = (U32::new(snack_tag), U32::new(exp_data_sn));
        let opcode = bhs::ScsiResponse::OPCODE;
        self.header = Header::ScsiResponse(bhs::ScsiResponse { opcode, snack_tag, exp_data_sn, ..response }).to_bytes();
    }

    fn send(&self, transmit: &mut Transmit, (exp_cmd_sn, max_cmd_sn): (U32, U32)) {
        let mut header = self.header;
        header[28..32].copy_from_slice(&exp_cmd_sn.get().to_be_bytes());
        header[32..36].copy_from_slice(&max_cmd_sn.get().to_be_bytes());
        transmit.push_bytes(header, &[], &self.data);
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
        while self.sent.front().is_some_and(|kept| serial_less(kept.stat_sn, acknowledged))
            && let Some(kept) = self.sent.pop_front()
        {
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
    /// Bytes that are not kept any more: whole bursts, and all that had arrived when it was cut anew.
    released: u32,
    /// DataSN of the first PDU that is kept.
    first_data_sn: u32,
    /// DataSN before which all has arrived, as the last DataACK said.
    arrived: u32,
}

impl Answered {
    pub fn new(connection: ConnectionId, shape: DataInShape, parts: &[Bytes]) -> Self {
        Self { connection, shape, parts: parts.to_vec(), released: 0, first_data_sn: 0, arrived: 0 }
    }

    fn bytes(&self) -> usize {
        (self.shape.send - self.released) as usize
    }

    /// What is kept, with DataSNs.
    fn pieces(&self) -> impl Iterator<Item = (u32, Piece)> {
        let DataInShape { send, segment, burst, .. } = self.shape;
        let pieces = Pieces::new(&self.parts, 0, send - self.released, segment, burst);
        let shifted = pieces.map(|piece| Piece { offset: piece.offset + self.released, ..piece });
        (self.first_data_sn..).zip(shifted)
    }

    fn pieces_of_a_burst(&self) -> u32 {
        self.shape.burst.div_ceil(self.shape.segment)
    }

    /// Notes that all before a DataSN has arrived, and releases the bursts that lie wholly before it.
    fn arrived_before(&mut self, data_sn: u32) {
        if serial_less(data_sn, self.arrived) {
            return;
        }
        let (each, left) = (self.pieces_of_a_burst(), self.shape.send - self.released);
        let last_burst = (left % self.shape.burst).div_ceil(self.shape.segment);
        let bursts = left / self.shape.burst;
        let count = (data_sn - self.first_data_sn).min(bursts * each + last_burst);
        self.arrived = self.first_data_sn + count;
        let bursts = bursts.min(count / each);
        self.release(bursts * self.shape.burst);
        self.first_data_sn += bursts * each;
    }

    /// Releases all that has arrived, and cuts the rest to another length.
    fn cut_to(&mut self, segment: u32) {
        let count = self.arrived - self.first_data_sn;
        let whole = count / self.pieces_of_a_burst() * self.shape.burst;
        let begun = (count % self.pieces_of_a_burst()).saturating_mul(self.shape.segment).min(self.shape.burst);
        self.release(whole.saturating_add(begun).min(self.shape.send - self.released));
        self.first_data_sn = self.arrived;
        self.shape = DataInShape { segment, collapsed: None, ..self.shape };
    }

    fn release(&mut self, bytes: u32) {
        let mut drop = bytes as usize;
        self.parts.retain_mut(|part| {
            let here = drop.min(part.len());
            drop -= here;
            let _ = part.split_to(here);
            !part.is_empty()
        });
        self.released += bytes;
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
            _ if !self.recovers() => Err(RejectReason::ProtocolError),
            // What is asked for again and again while nothing is read would grow without bound.
            _ if crowded => Err(RejectReason::SnackReject),
            DATA_OR_R2T => self.send_again(links, on, header.initiator_task_tag.get(), run),
            STATUS => self.answer_again(links, on, run),
            DATA_ACK => self.data_arrived(on, header),
            R_DATA => self.cut_again(links, on, header),
            _ => Err(RejectReason::InvalidPduField),
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
        // What never was sent or has arrived. RFC 7143 (11.16).
        let answered = self.recovery.answered.get(&tag).filter(|answered| answered.connection == on);
        let answered = answered.filter(|answered| !serial_less(run.from, answered.first_data_sn));
        let answered = answered.ok_or(RejectReason::ProtocolError)?;
        let link = &mut links[on];
        let mut found = false;
        for (data_sn, piece) in answered.pieces().filter(|(data_sn, _)| run.holds(*data_sn)) {
            found = true;
            link.transmit.push(answered.shape.header(&piece, data_sn, window), &piece.data);
        }
        if found { Ok(()) } else { Err(RejectReason::ProtocolError) }
    }

    /// All Data-In of a command that has not arrived, cut anew, and its status with the tag of the SNACK. RFC 7143 (11.16.3).
    fn cut_again(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::SnackRequest) -> Result<(), RejectReason> {
        let (tag, snack_tag) = (header.initiator_task_tag.get(), header.target_transfer_tag.get());
        if [0, NO_TAG].contains(&snack_tag) || (header.beg_run.get(), header.run_length.get()) != (0, 0) {
            return Err(RejectReason::InvalidPduField);
        }
        if let Some(task) = self.tasks.get_mut(&tag).filter(|task| task.connection == on && task.read) {
            // Nothing of it has been sent; its status will bear the tag.
            task.snack_tag = snack_tag;
            return Ok(());
        }
        let window = self.window(links);
        let Link { lane, transmit, .. } = &mut links[on];
        let kept = lane.kept.sent.iter_mut().rfind(|kept| kept.task == Some(tag)).ok_or(RejectReason::ProtocolError)?;
        let mut next_data_sn = 0;
        if let Some(answered) = self.recovery.answered.get_mut(&tag).filter(|answered| answered.connection == on) {
            let before = answered.bytes();
            answered.cut_to(lane.parameters.max_send_data_segment_length);
            self.recovery.bytes -= before - answered.bytes();
            next_data_sn = answered.first_data_sn;
            for (data_sn, piece) in answered.pieces() {
                transmit.push(answered.shape.header(&piece, data_sn, window), &piece.data);
                next_data_sn = data_sn + 1;
            }
        }
        kept.tag(snack_tag, next_data_sn);
        kept.send(transmit, window);
        Ok(())
    }

    /// Answers, by StatSN.
    fn answer_again(&mut self, links: &mut Links<Self>, on: ConnectionId, run: Run) -> Result<(), RejectReason> {
        let window = self.window(links);
        let link = &mut links[on];
        if link.lane.kept.sent.front().is_some_and(|oldest| serial_less(run.from, oldest.stat_sn)) && run.from != 0 {
            return Err(RejectReason::ProtocolError);
        }
        // Both zero: all that is not acknowledged.
        let all = run.from == 0 && run.length == 0;
        for kept in link.lane.kept.sent.iter().filter(|kept| all || run.holds(kept.stat_sn)) {
            kept.send(&mut link.transmit, window);
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
        answered.arrived_before(header.beg_run.get());
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
