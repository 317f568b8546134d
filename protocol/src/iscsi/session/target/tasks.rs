//! SCSI commands of a target session: Data-Out gathered, Data-In cut, status and residuals. RFC 7143 (11.3) to (11.8).

use std::mem;

use bytes::Bytes;

use super::super::super::bhs::{self, FINAL, NO_TAG, RejectReason};
use super::super::super::pdu::Pdu;
use super::super::transfer::{DataOutError, Gathering, Pieces};
use super::super::{Attribute, Link, Residual};
use super::{Command, Reply, Target, TargetEvent, Task, TaskState};
use crate::scsi::{Cdb, LunAddress, Sense, SenseKey, Status};
use crate::wire::U32;

impl Target {
    pub(super) fn command(&mut self, link: &mut Link<Self>, header: &bhs::ScsiCommand, pdu: Pdu) {
        let tag = header.initiator_task_tag.get();
        let immediate = header.opcode & bhs::IMMEDIATE != 0;
        let refusal = if tag == NO_TAG || self.discovery {
            Some(RejectReason::InvalidPduField)
        } else if self.tasks.contains_key(&tag) {
            Some(RejectReason::TaskInProgress)
        } else if immediate && self.immediate_tasks >= self.config.queue_depth as usize {
            Some(RejectReason::TooManyImmediateCommands)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.reject(link, reason, &pdu.header.to_bytes());
        }

        let mut task = Task {
            lun: LunAddress(header.lun),
            attribute: Attribute::from_code(header.flags).unwrap_or_default(),
            cdb: Cdb::new(&header.cdb).expect("16 bytes fit"),
            expected: header.expected_data_transfer_length.get(),
            read: header.flags & bhs::READ != 0,
            write: header.flags & bhs::WRITE != 0,
            immediate,
            reserved: 0,
            state: TaskState::Running,
        };
        self.immediate_tasks += usize::from(immediate);
        let gathering = self.begin(&mut task, &pdu, header.flags & FINAL != 0);
        self.tasks.insert(tag, task);
        match gathering {
            Ok(gathering) => self.tasks.get_mut(&tag).expect("just put there").state = TaskState::Gathering(gathering),
            Err(sense) => return self.fail(link, tag, &sense),
        }
        self.advance_task(link, tag);
    }

    /// Checks a command, and starts to gather its data.
    fn begin(&self, task: &mut Task, pdu: &Pdu, is_final: bool) -> Result<Gathering, Sense> {
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
        let is_final = is_final || !task.write;
        Gathering::new(expected, pdu.data.clone(), is_final, &self.parameters).map_err(condition)
    }

    /// Tells a complete command, or asks for what it lacks.
    fn advance_task(&mut self, link: &mut Link<Self>, tag: u32) {
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        let TaskState::Gathering(gathering) = &mut task.state else { return };
        if gathering.is_complete() {
            let TaskState::Gathering(gathering) = mem::replace(&mut task.state, TaskState::Running) else { return };
            let data_in_limit = if task.read { u64::from(task.expected) } else { 0 };
            link.events.push_back(TargetEvent::Command(Command {
                tag,
                lun: task.lun,
                attribute: task.attribute,
                cdb: task.cdb,
                data_out: gathering.into_parts(),
                data_in_limit,
            }));
            return;
        }
        if gathering.to_ask() == 0 {
            return;
        }
        if task.reserved == 0 {
            let wanted = u64::from(gathering.to_ask());
            if self.reserved > 0 && self.reserved + wanted > self.config.write_budget {
                if !self.waiting.contains(&tag) {
                    self.waiting.push_back(tag);
                }
                return;
            }
            task.reserved = wanted;
            self.reserved += wanted;
        }
        self.ask(link, tag);
    }

    /// Sends as many R2Ts of a write as may be outstanding.
    fn ask(&mut self, link: &mut Link<Self>, tag: u32) {
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        let TaskState::Gathering(gathering) = &mut task.state else { return };
        while let Some(r2t) = gathering.next_r2t(self.next_transfer_tag, &self.parameters) {
            self.next_transfer_tag = (self.next_transfer_tag + 1) % NO_TAG;
            let header = bhs::R2t {
                flags: FINAL,
                lun: task.lun.0,
                initiator_task_tag: U32::new(tag),
                target_transfer_tag: U32::new(r2t.target_transfer_tag),
                stat_sn: U32::new(self.stat_sn),
                exp_cmd_sn,
                max_cmd_sn,
                r2t_sn: U32::new(r2t.r2t_sn),
                buffer_offset: U32::new(r2t.offset),
                desired_data_transfer_length: U32::new(r2t.length),
                ..Default::default()
            };
            link.transmit.push(header, &[]);
        }
    }

    pub(super) fn data_out(&mut self, link: &mut Link<Self>, header: &bhs::DataOut, data: Bytes) {
        let tag = header.initiator_task_tag.get();
        // Data of a task that was aborted or refused is still on its way: it is let pass.
        let Some(Task { state: TaskState::Gathering(gathering), .. }) = self.tasks.get_mut(&tag) else { return };
        let transfer_tag = header.target_transfer_tag.get();
        let (data_sn, offset, is_final) = (header.data_sn.get(), header.buffer_offset.get(), header.flags & FINAL != 0);
        let taken = if transfer_tag == NO_TAG {
            gathering.unsolicited(data_sn, offset, data, is_final)
        } else {
            gathering.solicited(transfer_tag, data_sn, offset, data, is_final)
        };
        match taken {
            Ok(()) => self.advance_task(link, tag),
            Err(error) => self.fail(link, tag, &condition(error)),
        }
    }

    /// Ends a task that never reached its device.
    fn fail(&mut self, link: &mut Link<Self>, tag: u32, sense: &Sense) {
        let reply =
            Reply { status: Status::CheckCondition, sense: sense.fixed().into(), data_in: Vec::new(), transfer_length: None };
        self.respond(link, tag, &reply);
    }

    pub(super) fn forget(&mut self, tag: u32) -> Option<Task> {
        let task = self.tasks.remove(&tag)?;
        self.immediate_tasks -= usize::from(task.immediate);
        self.reserved -= task.reserved;
        Some(task)
    }

    pub(super) fn grant_waiting(&mut self, link: &mut Link<Self>) {
        while let Some(tag) = self.waiting.pop_front() {
            self.advance_task(link, tag);
            if self.waiting.back() == Some(&tag) {
                // No room yet: it stays the first in line.
                self.waiting.rotate_right(1);
                return;
            }
        }
    }

    pub(super) fn respond(&mut self, link: &mut Link<Self>, tag: u32, reply: &Reply) {
        let Some(task) = self.forget(tag) else { return };
        let available: u64 = reply.data_in.iter().map(|part| part.len() as u64).sum();
        let actual = reply.transfer_length.unwrap_or(if task.write { u64::from(task.expected) } else { available });
        let residual = residual(task.expected, actual);
        let send = if task.read { available.min(u64::from(task.expected)) as u32 } else { 0 };
        let collapse = send > 0 && reply.status == Status::Good && reply.sense.is_empty();

        let pieces =
            Pieces::new(&reply.data_in, 0, send, self.parameters.max_send_data_segment_length, self.parameters.max_burst_length);
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let mut data_sn = 0;
        for piece in pieces {
            let last = piece.is_final && piece.offset as usize + length(&piece.data) == send as usize;
            let mut header = bhs::DataIn {
                flags: if piece.is_final { FINAL } else { 0 },
                lun: task.lun.0,
                initiator_task_tag: U32::new(tag),
                target_transfer_tag: U32::new(NO_TAG),
                exp_cmd_sn,
                max_cmd_sn,
                data_sn: U32::new(data_sn),
                buffer_offset: U32::new(piece.offset),
                ..Default::default()
            };
            if last && collapse {
                let (bits, count) = residual_bits(residual);
                header.flags |= bhs::STATUS | bits;
                header.status = reply.status as u8;
                header.residual_count = count;
                (header.stat_sn, ..) = self.advance_status();
            }
            link.transmit.push(header, &piece.data);
            data_sn += 1;
        }
        if !collapse {
            self.send_status(link, tag, reply, residual, data_sn);
        }
        self.grant_waiting(link);
    }

    fn send_status(&mut self, link: &mut Link<Self>, tag: u32, reply: &Reply, residual: Residual, data_sn: u32) {
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
        let (bits, residual_count) = residual_bits(residual);
        let header = bhs::ScsiResponse {
            flags: FINAL | bits,
            status: reply.status as u8,
            initiator_task_tag: U32::new(tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            exp_data_sn: U32::new(data_sn),
            residual_count,
            ..Default::default()
        };
        if reply.sense.is_empty() {
            return link.transmit.push(header, &[]);
        }
        let sense_length = Bytes::copy_from_slice(&(reply.sense.len() as u16).to_be_bytes());
        link.transmit.push(header, &[sense_length, reply.sense.clone()]);
    }
}

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
