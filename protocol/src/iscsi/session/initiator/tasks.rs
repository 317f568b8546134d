//! Commands of the initiator, from submission to status: Data-Out that goes with them or is asked for, Data-In in its order.
//!
//! What is missing on ErrorRecoveryLevel 1 is [`super::recovery`]'s business. RFC 7143 (4.2.5), (11.3), (11.4), (11.7), (11.8).

use bytes::Bytes;

use super::super::super::bhs::{self, FINAL, IMMEDIATE, NO_TAG};
use super::super::super::{Parameters, serial_less};
use super::super::transfer::Pieces;
use super::super::{Links, ProtocolError, Residual};
use super::recovery::TaskRecovery;
use super::{Completion, Data, Initiator, InitiatorEvent, Submission};
use crate::scsi::{Cdb, LunAddress};
use crate::wire::U32;

#[derive(Debug)]
pub(super) struct Task {
    pub(super) submission: Submission,
    /// As it was sent; of no meaning before, and for an immediate one that of the next command.
    pub(super) cmd_sn: u32,
    pub(super) data_in: Vec<Bytes>,
    pub(super) received: u32,
    pub(super) next_data_sn: u32,
    pub(super) recovery: TaskRecovery,
}

impl Task {
    pub(super) fn new(submission: Submission) -> Self {
        let recovery = TaskRecovery::default();
        Self { submission, cmd_sn: 0, data_in: Vec::new(), received: 0, next_data_sn: 0, recovery }
    }
}

/// What a response says.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) response: u8,
    pub(super) status: u8,
    pub(super) sense: Bytes,
    pub(super) residual: Residual,
}

impl Initiator {
    pub(super) fn send_queued(&mut self, links: &mut Links<Self>) {
        while self.logged_in && !serial_less(self.max_cmd_sn, self.cmd_sn) {
            let Some(tag) = self.queued.pop_front() else { return };
            self.send_command(links, tag);
        }
    }

    pub(super) fn send_command(&mut self, links: &mut Links<Self>, tag: u32) {
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        task.cmd_sn = self.cmd_sn;
        let Submission { lun, cdb, attribute, immediate, data } = &task.submission;
        let parts: &[Bytes] = if let Data::Out(parts) = data { parts } else { &[] };
        let length = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let length = u32::try_from(length).expect("commands move less than 4 GiB");
        let plan = UnsolicitedPlan::new(length, &self.parameters);

        let (direction, expected) = match data {
            Data::None => (0, 0),
            Data::In(room) => (bhs::READ, *room),
            Data::Out(_) => (bhs::WRITE, length),
        };
        let header = bhs::ScsiCommand {
            opcode: if *immediate { IMMEDIATE } else { 0 },
            flags: direction | *attribute as u8 | if plan.unsolicited == plan.immediate { FINAL } else { 0 },
            lun: lun.0,
            initiator_task_tag: U32::new(tag),
            expected_data_transfer_length: U32::new(expected),
            cmd_sn: U32::new(self.cmd_sn),
            exp_stat_sn: U32::new(self.exp_stat_sn),
            cdb: *cdb.basic(),
            ..Default::default()
        };
        let immediate_data = Pieces::new(parts, 0, plan.immediate, u32::MAX, u32::MAX).next();
        let immediate_data = immediate_data.map(|piece| piece.data).unwrap_or_default();
        links.first().transmit.push_with_ahs(header, &extended_cdb(cdb), &immediate_data);
        if !*immediate {
            self.cmd_sn = self.cmd_sn.wrapping_add(1);
        }
        let exp_stat_sn = self.exp_stat_sn;
        let segment = self.parameters.max_send_data_segment_length;
        let unsolicited = Pieces::new(parts, plan.immediate, plan.unsolicited, segment, u32::MAX);
        let target = DataOutTarget { lun: *lun, tag, transfer_tag: NO_TAG, exp_stat_sn };
        target.send(links, unsolicited);
    }

    pub(super) fn data_in(&mut self, links: &mut Links<Self>, header: &bhs::DataIn, data: Bytes) -> Result<(), ProtocolError> {
        // On recovery level 1 status is not acknowledged before all data has come: the target keeps data no longer than that.
        if header.flags & bhs::STATUS != 0 && !self.recovers() {
            self.took_status(links, header.stat_sn, header.max_cmd_sn);
        } else {
            self.took_window(header.max_cmd_sn);
        }
        if self.recovers() && !self.is_next(links, header, &data)? {
            return Ok(());
        }
        self.take_data_in(links, header, data)?;
        while self.recovers()
            && let Some((header, data)) = self.next_ahead(header.initiator_task_tag.get())
        {
            self.take_data_in(links, &header, data)?;
        }
        Ok(())
    }

    /// Data-In whose turn it is.
    fn take_data_in(&mut self, links: &mut Links<Self>, header: &bhs::DataIn, data: Bytes) -> Result<(), ProtocolError> {
        let tag = header.initiator_task_tag.get();
        let Some(task) = self.tasks.get_mut(&tag) else { return Ok(()) };
        let unexpected = |when| Err(ProtocolError::Unexpected { pdu: "DataIn", when });
        let Data::In(room) = task.submission.data else { return unexpected("for a command that reads nothing") };
        if header.data_sn.get() != task.next_data_sn {
            return unexpected("with a DataSN out of order");
        }
        if header.buffer_offset.get() != task.received {
            return unexpected("with a buffer offset out of order");
        }
        if data.len() > (room - task.received) as usize {
            return unexpected("with more data than there is room for");
        }
        task.next_data_sn += 1;
        task.received += data.len() as u32;
        if !data.is_empty() {
            task.data_in.push(data);
        }
        if self.recovers() {
            self.acknowledge_data(links, header);
        }
        if header.flags & bhs::STATUS != 0 {
            if self.recovers() {
                self.took_stat_sn(links, header.stat_sn.get());
            }
            let residual = residual(header.flags, header.residual_count);
            let ended = Ended { response: 0, status: header.status, sense: Bytes::new(), residual };
            self.complete(links, tag, ended);
        } else if let Some((ended, stat_sn)) = self.ended_meanwhile(tag) {
            self.took_stat_sn(links, stat_sn);
            self.complete(links, tag, ended);
        }
        Ok(())
    }

    pub(super) fn scsi_response(
        &mut self,
        links: &mut Links<Self>,
        header: &bhs::ScsiResponse,
        data: &Bytes,
    ) -> Result<(), ProtocolError> {
        let sense = match data.first_chunk() {
            None => Bytes::new(),
            Some(length) => {
                let length = usize::from(u16::from_be_bytes(*length));
                if length > data.len() - 2 {
                    return Err(ProtocolError::Unexpected { pdu: "ScsiResponse", when: "with sense data cut short" });
                }
                data.slice(2..2 + length)
            }
        };
        let residual = residual(header.flags, header.residual_count);
        let ended = Ended { response: header.response, status: header.status, sense, residual };
        let tag = header.initiator_task_tag.get();
        if self.recovers() && self.lacks_data(links, header, &ended) {
            self.took_window(header.max_cmd_sn);
            return Ok(());
        }
        self.took_status(links, header.stat_sn, header.max_cmd_sn);
        self.complete(links, tag, ended);
        Ok(())
    }

    pub(super) fn complete(&mut self, links: &mut Links<Self>, tag: u32, ended: Ended) {
        let Some(task) = self.tasks.remove(&tag) else { return };
        let Ended { response, status, sense, residual } = ended;
        let completion = Completion { response, status, sense, data_in: task.data_in, residual };
        links.event(InitiatorEvent::Completed { tag, completion });
    }

    pub(super) fn r2t(&mut self, links: &mut Links<Self>, header: &bhs::R2t) -> Result<(), ProtocolError> {
        self.took_window(header.max_cmd_sn);
        let tag = header.initiator_task_tag.get();
        let Some(task) = self.tasks.get(&tag) else { return Ok(()) };
        let unexpected = |when| Err(ProtocolError::Unexpected { pdu: "R2t", when });
        let Data::Out(parts) = &task.submission.data else { return unexpected("for a command that writes nothing") };
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let (offset, wanted) = (header.buffer_offset.get(), header.desired_data_transfer_length.get());
        let Some(end) = offset.checked_add(wanted).filter(|end| wanted > 0 && u64::from(*end) <= length) else {
            return unexpected("for bytes that the command does not have");
        };
        let segment = self.parameters.max_send_data_segment_length;
        let target = DataOutTarget {
            lun: task.submission.lun,
            tag,
            transfer_tag: header.target_transfer_tag.get(),
            exp_stat_sn: self.exp_stat_sn,
        };
        target.send(links, Pieces::new(parts, offset, end, segment, u32::MAX));
        Ok(())
    }
}

/// How much of a write goes out without being asked for. RFC 7143 (13.10), (13.11), (13.14).
struct UnsolicitedPlan {
    /// Bytes within the command.
    immediate: u32,
    /// Bytes in all, those within the command included.
    unsolicited: u32,
}

impl UnsolicitedPlan {
    fn new(length: u32, parameters: &Parameters) -> Self {
        let first_burst = length.min(parameters.first_burst_length);
        let within = first_burst.min(parameters.max_send_data_segment_length);
        let immediate = if parameters.immediate_data { within } else { 0 };
        Self { immediate, unsolicited: if parameters.initial_r2t { immediate } else { first_burst } }
    }
}

/// What all Data-Out PDUs of one sequence say alike.
struct DataOutTarget {
    lun: LunAddress,
    tag: u32,
    transfer_tag: u32,
    exp_stat_sn: u32,
}

impl DataOutTarget {
    fn send(&self, links: &mut Links<Initiator>, pieces: Pieces<'_>) {
        for (data_sn, piece) in (0u32..).zip(pieces) {
            let header = bhs::DataOut {
                flags: if piece.is_final { FINAL } else { 0 },
                lun: self.lun.0,
                initiator_task_tag: U32::new(self.tag),
                target_transfer_tag: U32::new(self.transfer_tag),
                exp_stat_sn: U32::new(self.exp_stat_sn),
                data_sn: U32::new(data_sn),
                buffer_offset: U32::new(piece.offset),
                ..Default::default()
            };
            links.first().transmit.push(header, &piece.data);
        }
    }
}

/// The additional header segment for a CDB longer than 16 bytes. RFC 7143 (11.2.2.3).
fn extended_cdb(cdb: &Cdb) -> Vec<u8> {
    let Some((_, rest)) = cdb.as_bytes().split_first_chunk::<16>().filter(|(_, rest)| !rest.is_empty()) else {
        return Vec::new();
    };
    let [high, low] = (rest.len() as u16 + 1).to_be_bytes();
    let mut ahs = vec![high, low, 1, 0];
    ahs.extend_from_slice(rest);
    ahs.resize(ahs.len().next_multiple_of(4), 0);
    ahs
}

fn residual(flags: u8, count: U32) -> Residual {
    match (flags & bhs::OVERFLOW != 0, flags & bhs::UNDERFLOW != 0) {
        (true, _) => Residual::Overflow(count.get()),
        (false, true) => Residual::Underflow(count.get()),
        (false, false) => Residual::None,
    }
}
