//! Requests of a target session that are no SCSI commands: pings, task management, logout, text. RFC 7143 (11.5), (11.10),
//! (11.14), (11.18).

use bytes::Bytes;

use super::super::super::bhs::{self, FINAL, NO_TAG, RejectReason};
use super::super::super::keys::Key;
use super::super::super::login::TargetEntry;
use super::super::super::pdu::Pdu;
use super::super::super::serial_less;
use super::super::super::text::{self, Gather, Writer};
use super::super::{ConnectionId, Links, TaskManagementFunction, TaskManagementResponse};
use super::{Lane, Logout, Target, TargetEvent};
use crate::scsi::LunAddress;
use crate::wire::{U16, U32, WireError};

/// Requests other than commands that may wait for the caller's answer: more than an initiator ever has open.
const MAX_OPEN_REQUESTS: usize = 64;

/// A text request being gathered or answered; one at a time. RFC 7143 (11.10).
#[derive(Debug, Default)]
pub(super) struct TextExchange {
    tag: u32,
    incoming: Gather,
    outgoing: Writer,
}

/// Task management that waits for something else than the caller.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// Functions for several tasks, by the CmdSN up to which all commands have to come first.
    functions: Vec<(u32, TargetEvent)>,
    /// Answers behind which nothing older may arrive on another connection.
    answers: Vec<ParkedAnswer>,
}

#[derive(Debug)]
struct ParkedAnswer {
    on: ConnectionId,
    tag: u32,
    response: TaskManagementResponse,
    /// StatSNs that have to be acknowledged up to here.
    missing: Vec<(ConnectionId, u32)>,
}

impl Target {
    pub(super) fn nop_out(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::NopOut, ping: Bytes) {
        if header.initiator_task_tag.get() == NO_TAG {
            // The answer to a ping of ours: that it came is all it says.
            return;
        }
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status(links, on);
        let answer = bhs::NopIn {
            flags: FINAL,
            lun: header.lun,
            initiator_task_tag: header.initiator_task_tag,
            target_transfer_tag: U32::new(NO_TAG),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        let link = &mut links[on];
        let room = ping.len().min(link.lane.parameters.max_send_data_segment_length as usize);
        link.send(answer, stat_sn, None, &[ping.slice(..room)]);
    }

    /// Asks for a sign of life, which acknowledges what has arrived.
    pub(super) fn ping(&mut self, links: &mut Links<Self>, on: ConnectionId) {
        let transfer_tag = self.next_transfer_tag;
        self.next_transfer_tag = (transfer_tag + 1) % NO_TAG;
        self.nop_in(links, on, transfer_tag);
    }

    /// With a target transfer tag it is a ping; without one it tells the window. RFC 7143 (11.19).
    fn nop_in(&mut self, links: &mut Links<Self>, on: ConnectionId, transfer_tag: u32) {
        let (exp_cmd_sn, max_cmd_sn) = self.window(links);
        let link = &mut links[on];
        let header = bhs::NopIn {
            flags: FINAL,
            initiator_task_tag: U32::new(NO_TAG),
            target_transfer_tag: U32::new(transfer_tag),
            stat_sn: U32::new(link.lane.stat_sn),
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        link.transmit.push(header, &[]);
    }

    /// Tells a window that was closed and now is open: no reply may be due that could tell it.
    pub(super) fn reopen_window(&mut self, links: &mut Links<Self>, on: ConnectionId) {
        if !self.commands.is_closed() || !links.get(on).is_some_and(|link| link.lane.login.is_none() && !link.closing) {
            return;
        }
        self.window(links);
        if !self.commands.is_closed() {
            self.nop_in(links, on, NO_TAG);
        }
    }

    /// Sends an asynchronous message on every connection that takes one. RFC 7143 (11.9).
    pub(super) fn tell_all(&mut self, links: &mut Links<Self>, event: u8, parameters: [u16; 3]) {
        let full_feature = links.all.iter().filter(|link| link.lane.login.is_none() && !link.closing);
        for on in full_feature.map(|link| link.id).collect::<Vec<_>>() {
            self.tell(links, on, event, parameters);
        }
    }

    fn tell(&mut self, links: &mut Links<Self>, on: ConnectionId, event: u8, parameters: [u16; 3]) {
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status(links, on);
        let [parameter_1, parameter_2, parameter_3] = parameters.map(U16::new);
        let header = bhs::AsyncMessage {
            flags: FINAL,
            initiator_task_tag: U32::new(NO_TAG),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            async_event: event,
            parameter_1,
            parameter_2,
            parameter_3,
            ..Default::default()
        };
        links[on].send(header, stat_sn, None, &[]);
    }

    /// AsyncEvent 2 on the other connections: this one goes, and nothing of it is kept.
    pub(super) fn drop_connection(&mut self, links: &mut Links<Self>, connection: ConnectionId) {
        const CONNECTION_DROPPED: u8 = 2;
        let Some(link) = links.get(connection) else { return };
        let (cid, asked_to) = (link.lane.cid, link.lane.leaving);
        link.closing = true;
        if !asked_to {
            self.tell_all(links, CONNECTION_DROPPED, [cid, 0, 0]);
        }
    }

    pub(super) fn task_management(
        &mut self,
        links: &mut Links<Self>,
        on: ConnectionId,
        header: &bhs::TaskManagementRequest,
        pdu: &Pdu,
    ) {
        let (tag, referenced) = (header.initiator_task_tag.get(), header.referenced_task_tag.get());
        let function = TaskManagementFunction::from_code(header.flags);
        let refusal = if self.managing.len() + self.parked.answers.len() >= MAX_OPEN_REQUESTS {
            Some(RejectReason::TooManyImmediateCommands)
        } else if self.managing.contains_key(&tag) || self.tasks.contains_key(&tag) {
            Some(RejectReason::TaskInProgress)
        } else if tag == NO_TAG || self.discovery || function.is_none() {
            Some(RejectReason::InvalidPduField)
        } else {
            None
        };
        let (None, Some(function)) = (refusal, function) else {
            let reason = refusal.unwrap_or(RejectReason::InvalidPduField);
            return self.reject(links, on, reason, &pdu.header.to_bytes());
        };
        if function == TaskManagementFunction::AbortTask && !self.tasks.contains_key(&referenced) {
            return self.abort_unknown(links, on, header);
        }
        self.managing.insert(tag, on);
        let event = TargetEvent::TaskManagement { tag, function, lun: LunAddress(header.lun), referenced };
        // RFC 7143 (4.2.3.3): commands older than the function are received before it is carried out.
        let several = function != TaskManagementFunction::AbortTask;
        if several && header.opcode & bhs::IMMEDIATE != 0 && serial_less(self.commands.expected, header.cmd_sn.get()) {
            self.parked.functions.push((header.cmd_sn.get(), event));
        } else {
            links.event(event);
        }
    }

    /// ABORT TASK of a task that is not there. RFC 7143 (11.6.1): one that may still come counts as received, and never begins.
    fn abort_unknown(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::TaskManagementRequest) {
        let (tag, cmd_sn) = (header.initiator_task_tag.get(), header.ref_cmd_sn.get());
        let may_come = self.commands.contains(cmd_sn) && serial_less(cmd_sn, header.cmd_sn.get());
        if may_come {
            self.commands.plug(cmd_sn);
        }
        let response = if may_come { TaskManagementResponse::FunctionComplete } else { TaskManagementResponse::TaskDoesNotExist };
        self.answer_task_management(links, on, tag, response);
        self.carry_out_early(links);
    }

    /// Tells functions for which no command is missing any more.
    pub(super) fn release_management(&mut self, links: &mut Links<Self>) {
        let expected = self.commands.expected;
        for (_, event) in self.parked.functions.extract_if(.., |(cmd_sn, _)| !serial_less(expected, *cmd_sn)) {
            links.event(event);
        }
    }

    pub(super) fn answer_task_management(
        &mut self,
        links: &mut Links<Self>,
        on: ConnectionId,
        tag: u32,
        response: TaskManagementResponse,
    ) {
        if !links.has(on) {
            return;
        }
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status(links, on);
        let header = bhs::TaskManagementResponse {
            flags: FINAL,
            response: response as u8,
            initiator_task_tag: U32::new(tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        links[on].send(header, stat_sn, None, &[]);
    }

    /// As [`Target::answer_task_management`], when all that was sent on the other connections has arrived. They are pinged for it.
    pub(super) fn answer_when_acknowledged(
        &mut self,
        links: &mut Links<Self>,
        on: ConnectionId,
        tag: u32,
        response: TaskManagementResponse,
    ) {
        let behind =
            links.all.iter().filter(|link| link.id != on && !link.closing && link.lane.acknowledged != link.lane.stat_sn);
        let missing: Vec<_> = behind.map(|link| (link.id, link.lane.stat_sn)).collect();
        for (other, _) in &missing {
            self.ping(links, *other);
        }
        self.parked.answers.push(ParkedAnswer { on, tag, response, missing });
        self.settle_answers(links);
    }

    /// Gives the answers behind which nothing is on its way any more.
    pub(super) fn settle_answers(&mut self, links: &mut Links<Self>) {
        if self.parked.answers.is_empty() {
            return;
        }
        let arrived = |id: ConnectionId, stat_sn: u32| match links.all.iter().find(|link| link.id == id && !link.closing) {
            Some(link) => !serial_less(link.lane.acknowledged, stat_sn),
            None => true,
        };
        for answer in &mut self.parked.answers {
            answer.missing.retain(|(id, stat_sn)| !arrived(*id, *stat_sn));
        }
        let due: Vec<_> = self.parked.answers.extract_if(.., |answer| answer.missing.is_empty()).collect();
        for ParkedAnswer { on, tag, response, .. } in due {
            self.answer_task_management(links, on, tag, response);
        }
    }

    pub(super) fn logout(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::LogoutRequest, pdu: &Pdu) {
        const CLOSE_SESSION: u8 = 0;
        const CLOSE_CONNECTION: u8 = 1;
        const REMOVE_FOR_RECOVERY: u8 = 2;
        const CID_NOT_FOUND: u8 = 1;
        const RECOVERY_NOT_SUPPORTED: u8 = 2;
        let tag = header.initiator_task_tag.get();
        let named = links.all.iter().find(|link| link.lane.cid == header.cid.get()).map(|link| link.id);
        let closes = match (header.flags & 0x7F, named) {
            (CLOSE_SESSION, _) => None,
            (CLOSE_CONNECTION, Some(named)) if !links[named].lane.leaving => Some(named),
            (CLOSE_CONNECTION, _) => return self.answer_logout(links, on, tag, CID_NOT_FOUND),
            (REMOVE_FOR_RECOVERY, _) => return self.answer_logout(links, on, tag, RECOVERY_NOT_SUPPORTED),
            _ => return self.reject(links, on, RejectReason::InvalidPduField, &pdu.header.to_bytes()),
        };
        let leaving = links.all.iter_mut().filter(|link| closes.is_none_or(|one| link.id == one));
        leaving.for_each(|link| link.lane.leaving = true);
        self.logouts.push(Logout { tag, on, closes });
        links.event(TargetEvent::Logout { tag, closes });
    }

    pub(super) fn answer_logout(&mut self, links: &mut Links<Self>, on: ConnectionId, tag: u32, response: u8) {
        if !links.has(on) {
            return;
        }
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status(links, on);
        // Time2Wait and Time2Retain are zero: nothing is kept that could be recovered.
        let answer = bhs::LogoutResponse {
            flags: FINAL,
            response,
            initiator_task_tag: U32::new(tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        links[on].send(answer, stat_sn, None, &[]);
    }

    /// What is left of an ended connection.
    pub(super) fn forget_connection(&mut self, links: &mut Links<Self>, connection: ConnectionId) {
        self.commands.forget_connection(connection);
        self.managing.retain(|_, on| *on != connection);
        self.logouts.retain(|logout| logout.on != connection);
        self.forget_answered_on(connection);
        self.settle_answers(links);
    }

    pub(super) fn text_request(&mut self, links: &mut Links<Self>, on: ConnectionId, header: &bhs::TextRequest, pdu: &Pdu) {
        let tag = header.initiator_task_tag.get();
        let lane = &mut links[on].lane;
        if header.target_transfer_tag.get() == NO_TAG {
            lane.text = TextExchange { tag, ..Default::default() };
        } else if lane.text.tag != tag {
            return self.reject(links, on, RejectReason::InvalidPduField, &pdu.header.to_bytes());
        }
        let more = header.flags & bhs::CONTINUE != 0;
        let whole = match lane.text.incoming.add(&pdu.data, more) {
            Ok(whole) => whole,
            Err(_) => return self.reject(links, on, RejectReason::LongOperationReject, &pdu.header.to_bytes()),
        };
        if let Some(text) = whole
            && self.answer_text(lane, &text).is_err()
        {
            return self.reject(links, on, RejectReason::ProtocolError, &pdu.header.to_bytes());
        }
        let (piece, continues) = if more {
            (Vec::new(), false)
        } else {
            lane.text.outgoing.take(lane.parameters.max_send_data_segment_length as usize)
        };
        let done = !more && !continues && header.flags & FINAL != 0;
        let flags = match (done, continues) {
            (true, _) => FINAL,
            (false, true) => bhs::CONTINUE,
            (false, false) => 0,
        };
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status(links, on);
        let answer = bhs::TextResponse {
            flags,
            lun: header.lun,
            initiator_task_tag: header.initiator_task_tag,
            target_transfer_tag: U32::new(if done { NO_TAG } else { 0 }),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        links[on].send(answer, stat_sn, None, &[piece.into()]);
    }

    /// The keys of the full feature phase. RFC 7143, appendix C for SendTargets.
    fn answer_text(&self, lane: &mut Lane, text: &[u8]) -> Result<(), WireError> {
        let max_recv = Key::MaxRecvDataSegmentLength.spec();
        for pair in text::parse(text)? {
            if pair.key == Key::SendTargets.spec().name {
                self.send_targets(lane, pair.value);
            } else if pair.key == max_recv.name {
                match max_recv.parse(pair.value) {
                    Some(length) => lane.parameters.max_send_data_segment_length = length,
                    None => lane.text.outgoing.pair(pair.key, "Reject"),
                }
            } else {
                let known = Key::by_name(pair.key).is_some();
                lane.text.outgoing.pair(pair.key, if known { "Reject" } else { "NotUnderstood" });
            }
        }
        Ok(())
    }

    /// `All` is for discovery sessions; a normal one asks for its own target, by name or by nothing. What is not to be told is
    /// answered with no target and not with `Reject`, which initiators take for the name of a key that they do not know.
    fn send_targets(&self, lane: &mut Lane, value: &str) {
        let own = self.target_name.as_deref();
        let wanted = |entry: &TargetEntry| match value {
            "All" => self.discovery,
            "" => own == Some(entry.name.as_str()),
            name => entry.name.eq_ignore_ascii_case(name) && (self.discovery || own == Some(entry.name.as_str())),
        };
        if value.is_empty() && self.discovery {
            return lane.text.outgoing.pair(Key::SendTargets.spec().name, "Reject");
        }
        for entry in self.config.gate.targets(&self.initiator_name).iter().filter(|entry| wanted(entry)) {
            lane.text.outgoing.pair(Key::TargetName.spec().name, &entry.name);
            for address in &entry.addresses {
                lane.text.outgoing.pair(Key::TargetAddress.spec().name, address);
            }
        }
    }
}
