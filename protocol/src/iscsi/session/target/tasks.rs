//! SCSI commands of a target session: Data-Out gathered, Data-In cut, status and residuals. RFC 7143 (11.3) to (11.8).

use std::mem;

use bytes::Bytes;

use super::super::super::bhs::{self, FINAL, NO_TAG, RejectReason};
use super::super::super::pdu::{Header, Pdu};
use super::super::transfer::{DataOutError, Gathering, NewR2t, Piece, Pieces};
use super::super::{Attribute, ConnectionId, Links, Residual};
use super::recovery::Answered;
use super::{Command, Reply, Target, TargetEvent, Task, TaskState};
use crate::scsi::{Cdb, LunAddress, Sense, SenseKey, Status};
use crate::wire::U32;

impl Target {
    pub(super) fn command(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::ScsiCommand, pdu: Pdu) {
        let tag = header.initiator_task_tag.get();
        let immediate = header.opcode & bhs::IMMEDIATE != 0;
        let refusal = if tag == NO_TAG || self.discovery {
            Some(RejectReason::InvalidPduField)
        } else if self.tasks.contains_key(&tag) || self.managing.contains_key(&tag) {
            Some(RejectReason::TaskInProgress)
        } else if immediate && self.immediate_tasks >= self.config.queue_depth as usize {
            Some(RejectReason::TooManyImmediateCommands)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.reject(links, on, reason, &pdu.header.to_bytes());
        }

        let mut task = Task {
            connection: on,
            age: self.arrivals,
            lun: LunAddress(header.lun),
            attribute: Attribute::from_code(header.flags).unwrap_or_default(),
            cdb: Cdb::new(&header.cdb).expect("16 bytes fit"),
            expected: header.expected_data_transfer_length.get(),
            read: header.flags & bhs::READ != 0,
            write: header.flags & bhs::WRITE != 0,
            immediate,
            reserved: 0,
            unasked: 0,
            snack_tag: 0,
            state: TaskState::Running,
        };
        self.arrivals += 1;
        self.ordered += usize::from(task.attribute == Attribute::Ordered);
        self.immediate_tasks += usize::from(immediate);
        let gathering = self.begin(&mut task, &pdu, header.flags);
        self.unasked += task.unasked;
        self.tasks.insert(tag, task);
        match gathering {
            Ok(gathering) => self.tasks.get_mut(&tag).expect("just put there").state = TaskState::Gathering(gathering),
            Err(sense) => return self.fail(links, tag, &sense),
        }
        self.advance_task(links, tag);
    }

    /// Checks a command, and starts to gather its data.
    fn begin(&self, task: &mut Task, pdu: &Pdu, flags: u8) -> Result<Gathering, Sense> {
        match Attribute::from_code(flags) {
            Some(Attribute::Aca) => return Err(INVALID_MESSAGE_ERROR),
            None => return Err(INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT),
            Some(_) => {}
        }
        if task.read && task.write {
            // A bidirectional command; no device type here has one.
            return Err(INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
        }
        if !pdu.ahs.is_empty() {
            task.cdb = extended_cdb(&task.cdb, &pdu.ahs).ok_or(INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)?;
        }
        let expected = if task.write { task.expected } else { 0 };
        if expected > self.config.max_write_length {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        // A target that sends nothing unsolicited still sees F=0 from some initiators on commands without data.
        let is_final = flags & FINAL != 0 || !task.write;
        let gathering = Gathering::new(expected, pdu.data.clone(), is_final, &self.parameters).map_err(condition)?;
        task.unasked = pdu.data.len() as u64;
        Ok(gathering)
    }

    /// Tells a complete command, or asks for what it lacks.
    fn advance_task(&mut self, links: &mut Links<Self>, tag: u32) {
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        let TaskState::Gathering(gathering) = &mut task.state else { return };
        if gathering.is_complete() {
            let TaskState::Gathering(gathering) = mem::replace(&mut task.state, TaskState::Running) else { return };
            let data_in_limit = if task.read { u64::from(task.expected) } else { 0 };
            let command = Command {
                tag,
                lun: task.lun,
                attribute: task.attribute,
                cdb: task.cdb,
                data_out: gathering.into_parts(),
                data_in_limit,
            };
            if (self.ordered, self.held) == (0, 0) || task.attribute == Attribute::HeadOfQueue {
                return links.event(TargetEvent::Command(command));
            }
            task.state = TaskState::Held(command);
            self.held += 1;
            return self.release(links);
        }
        let wanted = u64::from(gathering.to_ask());
        if wanted > 0 {
            if task.reserved == 0 {
                // Nobody passes one that waits: an older command must not wait for a younger one.
                let first = self.waiting.front().is_none_or(|front| *front == tag);
                if self.reserved > 0 && (self.reserved + wanted > self.config.write_budget || !first) {
                    if !self.waiting.contains(&tag) {
                        self.waiting.push_back(tag);
                    }
                    return;
                }
                task.reserved = wanted;
                self.reserved += wanted;
            }
            self.ask(links, tag);
        }
        self.offer(links, tag);
    }

    /// Tells of data that may be taken before the rest comes.
    fn offer(&mut self, links: &mut Links<Self>, tag: u32) {
        // Behind an ORDERED command it would come before its turn.
        let in_turn = (self.ordered, self.held) == (0, 0);
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        let simple = matches!(task.attribute, Attribute::Simple | Attribute::Untagged);
        // Once it has begun others wait for it: it must not wait for budget, and so for others.
        if in_turn
            && simple
            && task.reserved > 0
            && let TaskState::Gathering(gathering) = &mut task.state
            && gathering.is_worth_taking()
        {
            links.event(TargetEvent::DataOut { tag });
        }
    }

    /// Hands on what has come of a command's data, and what the budget had set aside for it.
    pub(super) fn take_data_out(&mut self, links: &mut Links<Self>, tag: u32, length: u32) -> Vec<Bytes> {
        let Some(task) = self.tasks.get_mut(&tag) else { return Vec::new() };
        let TaskState::Gathering(gathering) = &mut task.state else { return Vec::new() };
        let before = gathering.taken();
        let parts = gathering.take(length);
        let taken = u64::from(gathering.taken() - before);
        // What comes unasked comes first.
        let unasked = taken.min(task.unasked);
        // Something of it stays until the answer: a task without budget would get in line for it.
        let reserved = (taken - unasked).min(task.reserved.saturating_sub(1));
        task.unasked -= unasked;
        task.reserved -= reserved;
        self.unasked -= unasked;
        self.reserved -= reserved;
        self.grant_waiting(links);
        parts
    }

    pub(super) fn keep_whole(&mut self, tag: u32) {
        if let Some(Task { state: TaskState::Gathering(gathering), .. }) = self.tasks.get_mut(&tag) {
            gathering.keep_whole();
        }
    }

    /// Tells held commands, by age, as far as the order that ORDERED ones ask for lets them: each is told behind all older ones and
    /// before all younger ones, whoever's data comes first.
    fn release(&mut self, links: &mut Links<Self>) {
        if self.held == 0 {
            return;
        }
        let untold = self.tasks.iter().filter(|(_, task)| !matches!(task.state, TaskState::Running));
        let mut by_age: Vec<_> = untold.map(|(tag, task)| (task.age, *tag)).collect();
        by_age.sort_unstable();
        let mut incomplete = false;
        for (_, tag) in by_age {
            let Some(task) = self.tasks.get_mut(&tag) else { continue };
            let ordered = task.attribute == Attribute::Ordered;
            if matches!(task.state, TaskState::Gathering(_)) {
                incomplete |= task.attribute != Attribute::HeadOfQueue;
            }
            if ordered && incomplete {
                return;
            }
            if let TaskState::Held(_) = task.state
                && let TaskState::Held(command) = mem::replace(&mut task.state, TaskState::Running)
            {
                self.held -= 1;
                self.ordered -= usize::from(ordered);
                links.event(TargetEvent::Command(command));
            }
        }
    }

    /// Sends as many R2Ts of a write as may be outstanding.
    fn ask(&mut self, links: &mut Links<Self>, tag: u32) {
        let window = self.window(links);
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        let TaskState::Gathering(gathering) = &mut task.state else { return };
        let (link, lun) = (&mut links[task.connection], task.lun);
        while let Some(r2t) = gathering.next_r2t(self.next_transfer_tag, &self.parameters) {
            self.next_transfer_tag = (self.next_transfer_tag + 1) % NO_TAG;
            link.transmit.push(r2t_header(lun, tag, &r2t, link.lane.stat_sn, window), &[]);
        }
    }

    /// Sends R2Ts again that are still open, by R2TSN.
    pub(super) fn ask_again(&mut self, links: &mut Links<Self>, tag: u32, wanted: impl Fn(u32) -> bool) {
        let window = self.window(links);
        let Some(task) = self.tasks.get(&tag) else { return };
        let TaskState::Gathering(gathering) = &task.state else { return };
        let link = &mut links[task.connection];
        for r2t in gathering.open_r2ts().filter(|r2t| wanted(r2t.r2t_sn)) {
            link.transmit.push(r2t_header(task.lun, tag, &r2t, link.lane.stat_sn, window), &[]);
        }
    }

    /// Notes a Data-Out that did not come whole, and asks for it again when the rest of its sequence is through.
    pub(super) fn lost_data_out(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::DataOut) {
        let tag = header.initiator_task_tag.get();
        let Some(Task { state: TaskState::Gathering(gathering), connection, .. }) = self.tasks.get_mut(&tag) else { return };
        if *connection == on {
            gathering.lost(header.target_transfer_tag.get(), header.flags & FINAL != 0);
            self.advance_task(links, tag);
        }
    }

    pub(super) fn data_out(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::DataOut, data: Bytes) {
        let tag = header.initiator_task_tag.get();
        // Data of a task that was aborted or refused is still on its way: it is let pass.
        let Some(Task { state: TaskState::Gathering(gathering), connection, unasked, .. }) = self.tasks.get_mut(&tag) else {
            return;
        };
        if *connection != on {
            // RFC 7143 (4.2.2.2): all PDUs of a task go over the connection of its command.
            return self.reject(links, on, RejectReason::ProtocolError, &Header::DataOut(*header).to_bytes());
        }
        let transfer_tag = header.target_transfer_tag.get();
        let (data_sn, offset, is_final) = (header.data_sn.get(), header.buffer_offset.get(), header.flags & FINAL != 0);
        let taken = if transfer_tag == NO_TAG {
            *unasked += data.len() as u64;
            self.unasked += data.len() as u64;
            gathering.unsolicited(data_sn, offset, data, is_final)
        } else {
            gathering.solicited(transfer_tag, data_sn, offset, data, is_final)
        };
        match taken {
            Ok(()) => self.advance_task(links, tag),
            Err(DataOutError::Sequence) if self.recovers() => self.lost_data_out(links, on, header),
            Err(error) => self.fail(links, tag, &condition(error)),
        }
    }

    /// Ends a task before all its data has come.
    fn fail(&mut self, links: &mut Links<Self>, tag: u32, sense: &Sense) {
        if let Some(Task { state: TaskState::Gathering(gathering), .. }) = self.tasks.get(&tag)
            && gathering.was_told()
        {
            // The tag may come again before the caller looks, and would be taken for this command's.
            links.events.retain(|event| !matches!(event, TargetEvent::DataOut { tag: told } if *told == tag));
            links.event(TargetEvent::Failed { tag });
        }
        let reply =
            Reply { status: Status::CheckCondition, sense: sense.fixed().into(), data_in: Vec::new(), transfer_length: None };
        self.respond(links, tag, &reply);
    }

    pub(super) fn forget(&mut self, tag: u32) -> Option<Task> {
        let task = self.tasks.remove(&tag)?;
        self.immediate_tasks -= usize::from(task.immediate);
        self.reserved -= task.reserved;
        self.unasked -= task.unasked;
        self.held -= usize::from(matches!(task.state, TaskState::Held(_)));
        let told = matches!(task.state, TaskState::Running);
        self.ordered -= usize::from(task.attribute == Attribute::Ordered && !told);
        Some(task)
    }

    /// What may go on after a task has ended.
    pub(super) fn grant_waiting(&mut self, links: &mut Links<Self>) {
        self.release(links);
        while let Some(tag) = self.waiting.front().copied() {
            self.advance_task(links, tag);
            if self.tasks.get(&tag).is_some_and(|task| task.reserved == 0) {
                // No room yet: it stays the first in line.
                return;
            }
            self.waiting.pop_front();
        }
    }

    pub(super) fn respond(&mut self, links: &mut Links<Self>, tag: u32, reply: &Reply) {
        let Some(task) = self.forget(tag) else { return };
        let available: u64 = reply.data_in.iter().map(|part| part.len() as u64).sum();
        let actual = reply.transfer_length.unwrap_or(if task.write { u64::from(task.expected) } else { available });
        let residual = residual(task.expected, actual);
        let send = if task.read { available.min(u64::from(task.expected)) as u32 } else { 0 };
        let collapse = send > 0 && reply.status == Status::Good && reply.sense.is_empty() && task.snack_tag == 0;

        let window = self.window(links);
        let collapsed = collapse.then(|| {
            let (bits, count) = residual_bits(residual);
            let (stat_sn, ..) = self.advance_status(links, task.connection);
            Collapsed { flags: bhs::STATUS | bits, status: reply.status as u8, residual_count: count, stat_sn }
        });
        let recovers = self.recovers();
        let link = &mut links[task.connection];
        let parameters = &link.lane.parameters;
        let shape = DataInShape {
            tag,
            lun: task.lun.0,
            send,
            segment: parameters.max_send_data_segment_length,
            burst: parameters.max_burst_length,
            collapsed,
            acknowledged_by: recovers.then_some(self.next_transfer_tag),
        };
        let mut data_sn = 0;
        for piece in Pieces::new(&reply.data_in, 0, send, shape.segment, shape.burst) {
            let header = shape.header(&piece, data_sn, window);
            match shape.collapsed {
                Some(collapsed) if header.flags & bhs::STATUS != 0 => {
                    link.send(header, collapsed.stat_sn, Some(tag), &piece.data);
                }
                _ => link.transmit.push(header, &piece.data),
            }
            data_sn += 1;
        }
        if recovers && send > 0 {
            self.next_transfer_tag = (self.next_transfer_tag + 1) % NO_TAG;
            self.recovery.keep(tag, Answered::new(task.connection, shape, &reply.data_in));
        }
        if !collapse {
            self.send_status(links, tag, &task, reply, residual, data_sn);
        }
        if recovers && links[task.connection].lane.kept.len() * 2 >= self.config.queue_depth as usize {
            self.ask_for_acknowledgement(links, task.connection);
        }
        self.grant_waiting(links);
    }

    fn send_status(&mut self, links: &mut Links<Self>, tag: u32, task: &Task, reply: &Reply, residual: Residual, data_sn: u32) {
        let on = task.connection;
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status(links, on);
        let (bits, residual_count) = residual_bits(residual);
        let header = bhs::ScsiResponse {
            flags: FINAL | bits,
            status: reply.status as u8,
            initiator_task_tag: U32::new(tag),
            snack_tag: U32::new(task.snack_tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            exp_data_sn: U32::new(data_sn),
            residual_count,
            ..Default::default()
        };
        if reply.sense.is_empty() {
            return links[on].send(header, stat_sn, Some(tag), &[]);
        }
        let sense_length = Bytes::copy_from_slice(&(reply.sense.len() as u16).to_be_bytes());
        links[on].send(header, stat_sn, Some(tag), &[sense_length, reply.sense.clone()]);
    }
}

/// Status that goes with the last Data-In.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collapsed {
    flags: u8,
    status: u8,
    residual_count: U32,
    stat_sn: U32,
}

/// What all Data-In PDUs of a command have alike, so that each can be made again.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataInShape {
    pub tag: u32,
    pub lun: [u8; 8],
    /// Bytes in all.
    pub send: u32,
    pub segment: u32,
    pub burst: u32,
    pub collapsed: Option<Collapsed>,
    /// Target transfer tag by which a DataACK names them; on recovery level 1 each burst asks for one.
    pub acknowledged_by: Option<u32>,
}

impl DataInShape {
    pub fn header(&self, piece: &Piece, data_sn: u32, (exp_cmd_sn, max_cmd_sn): (U32, U32)) -> bhs::DataIn {
        let last = piece.is_final && piece.offset as usize + length(&piece.data) == self.send as usize;
        let mut header = bhs::DataIn {
            flags: if piece.is_final { FINAL } else { 0 },
            lun: self.lun,
            initiator_task_tag: U32::new(self.tag),
            target_transfer_tag: U32::new(NO_TAG),
            exp_cmd_sn,
            max_cmd_sn,
            data_sn: U32::new(data_sn),
            buffer_offset: U32::new(piece.offset),
            ..Default::default()
        };
        match (self.collapsed, self.acknowledged_by) {
            (Some(collapsed), _) if last => {
                header.flags |= collapsed.flags;
                header.status = collapsed.status;
                header.residual_count = collapsed.residual_count;
                header.stat_sn = collapsed.stat_sn;
            }
            (_, Some(transfer_tag)) if piece.is_final && !last => {
                header.flags |= bhs::ACKNOWLEDGE;
                header.target_transfer_tag = U32::new(transfer_tag);
            }
            _ => {}
        }
        header
    }
}

fn r2t_header(lun: LunAddress, tag: u32, r2t: &NewR2t, stat_sn: u32, (exp_cmd_sn, max_cmd_sn): (U32, U32)) -> bhs::R2t {
    bhs::R2t {
        flags: FINAL,
        lun: lun.0,
        initiator_task_tag: U32::new(tag),
        target_transfer_tag: U32::new(r2t.target_transfer_tag),
        stat_sn: U32::new(stat_sn),
        exp_cmd_sn,
        max_cmd_sn,
        r2t_sn: U32::new(r2t.r2t_sn),
        buffer_offset: U32::new(r2t.offset),
        desired_data_transfer_length: U32::new(r2t.length),
        ..Default::default()
    }
}

/// INVALID MESSAGE ERROR: a task attribute that is not supported. SAM-5, "Task attributes".
const INVALID_MESSAGE_ERROR: Sense = Sense::illegal_request(0x49, 0x00);
/// INVALID FIELD IN COMMAND INFORMATION UNIT.
const INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT: Sense = Sense::illegal_request(0x0E, 0x03);

/// RFC 7143 (11.4.7.2).
const fn condition(error: DataOutError) -> Sense {
    let (asc, ascq) = match error {
        DataOutError::UnexpectedUnsolicited => (0x0C, 0x0C),
        DataOutError::IncorrectAmount => (0x0C, 0x0D),
        DataOutError::Sequence => (0x47, 0x05),
    };
    Sense::new(SenseKey::AbortedCommand, asc, ascq)
}

/// A CDB longer than 16 bytes: its rest is in an additional header segment of type 1. RFC 7143 (11.2.2.3).
fn extended_cdb(cdb: &Cdb, ahs: &[u8]) -> Option<Cdb> {
    let (&[high, low, kind, _], rest) = ahs.split_first_chunk()?;
    // AHSLength counts the reserved byte in front of the CDB's rest.
    let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(1)?;
    if kind & 0x3F != 1 {
        return None;
    }
    Cdb::new(&[cdb.basic(), rest.get(..length)?].concat())
}

fn length(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

/// RFC 7143 (11.4.5).
fn residual(expected: u32, actual: u64) -> Residual {
    let expected = u64::from(expected);
    let count = |difference: u64| u32::try_from(difference).unwrap_or(u32::MAX);
    match actual {
        more if more > expected => Residual::Overflow(count(more - expected)),
        less if less < expected => Residual::Underflow(count(expected - less)),
        _ => Residual::None,
    }
}

fn residual_bits(residual: Residual) -> (u8, U32) {
    match residual {
        Residual::None => (0, U32::new(0)),
        Residual::Underflow(count) => (bhs::UNDERFLOW, U32::new(count)),
        Residual::Overflow(count) => (bhs::OVERFLOW, U32::new(count)),
    }
}
