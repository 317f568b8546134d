//! Requests of a target session that are no SCSI commands: pings, task management, logout, text. RFC 7143 (11.5), (11.10),
//! (11.14), (11.18).

use bytes::Bytes;

use super::super::super::bhs::{self, FINAL, NO_TAG, RejectReason};
use super::super::super::keys::Key;
use super::super::super::login::TargetEntry;
use super::super::super::pdu::Pdu;
use super::super::super::text::{self, Gather, Writer};
use super::super::{Link, TaskManagementFunction};
use super::{Target, TargetEvent};
use crate::scsi::LunAddress;
use crate::wire::{U32, WireError};

/// Requests other than commands that may wait for the caller's answer: more than an initiator ever has open.
const MAX_OPEN_REQUESTS: usize = 64;

/// A text request being gathered or answered; one at a time. RFC 7143 (11.10).
#[derive(Debug, Default)]
pub(super) struct TextExchange {
    tag: u32,
    incoming: Gather,
    outgoing: Writer,
}

impl Target {
    pub(super) fn nop_out(&mut self, link: &mut Link<Self>, header: &bhs::NopOut, ping: Bytes) {
        if header.initiator_task_tag.get() == NO_TAG {
            // The answer to a ping of ours: that it came is all it says.
            return;
        }
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
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
        let room = ping.len().min(self.parameters.max_send_data_segment_length as usize);
        link.transmit.push(answer, &[ping.slice(..room)]);
    }

    pub(super) fn ping(&mut self, link: &mut Link<Self>) {
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let header = bhs::NopIn {
            flags: FINAL,
            initiator_task_tag: U32::new(NO_TAG),
            target_transfer_tag: U32::new(self.next_transfer_tag),
            stat_sn: U32::new(self.stat_sn),
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        self.next_transfer_tag = (self.next_transfer_tag + 1) % NO_TAG;
        link.transmit.push(header, &[]);
    }

    pub(super) fn task_management(&mut self, link: &mut Link<Self>, header: &bhs::TaskManagementRequest, pdu: &Pdu) {
        if self.open_requests >= MAX_OPEN_REQUESTS {
            return self.reject(link, RejectReason::TooManyImmediateCommands, &pdu.header.to_bytes());
        }
        let Some(function) = TaskManagementFunction::from_code(header.flags) else {
            return self.reject(link, RejectReason::InvalidPduField, &pdu.header.to_bytes());
        };
        self.open_requests += 1;
        link.events.push_back(TargetEvent::TaskManagement {
            tag: header.initiator_task_tag.get(),
            function,
            lun: LunAddress(header.lun),
            referenced: header.referenced_task_tag.get(),
        });
    }

    pub(super) fn logout(&mut self, link: &mut Link<Self>, header: &bhs::LogoutRequest, pdu: &Pdu) {
        const CLOSE_CONNECTION: u8 = 1;
        const REMOVE_FOR_RECOVERY: u8 = 2;
        const CID_NOT_FOUND: u8 = 1;
        const RECOVERY_NOT_SUPPORTED: u8 = 2;
        let reason = header.flags & 0x7F;
        let refusal = match reason {
            0 => None,
            CLOSE_CONNECTION if header.cid.get() == link.connection.0 => None,
            CLOSE_CONNECTION => Some(CID_NOT_FOUND),
            REMOVE_FOR_RECOVERY => Some(RECOVERY_NOT_SUPPORTED),
            _ => return self.reject(link, RejectReason::InvalidPduField, &pdu.header.to_bytes()),
        };
        let Some(response) = refusal else {
            return link.events.push_back(TargetEvent::Logout { tag: header.initiator_task_tag.get() });
        };
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
        let answer = bhs::LogoutResponse {
            flags: FINAL,
            response,
            initiator_task_tag: header.initiator_task_tag,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        link.transmit.push(answer, &[]);
    }

    pub(super) fn text_request(&mut self, link: &mut Link<Self>, header: &bhs::TextRequest, pdu: &Pdu) {
        let tag = header.initiator_task_tag.get();
        if header.target_transfer_tag.get() == NO_TAG {
            self.text = TextExchange { tag, ..Default::default() };
        } else if self.text.tag != tag {
            return self.reject(link, RejectReason::InvalidPduField, &pdu.header.to_bytes());
        }
        let more = header.flags & bhs::CONTINUE != 0;
        let whole = match self.text.incoming.add(&pdu.data, more) {
            Ok(whole) => whole,
            Err(_) => return self.reject(link, RejectReason::LongOperationReject, &pdu.header.to_bytes()),
        };
        if let Some(text) = whole
            && self.answer_text(&text).is_err()
        {
            return self.reject(link, RejectReason::ProtocolError, &pdu.header.to_bytes());
        }
        let (piece, continues) = if more {
            (Vec::new(), false)
        } else {
            self.text.outgoing.take(self.parameters.max_send_data_segment_length as usize)
        };
        let done = !more && !continues && header.flags & FINAL != 0;
        let flags = match (done, continues) {
            (true, _) => FINAL,
            (false, true) => bhs::CONTINUE,
            (false, false) => 0,
        };
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
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
        link.transmit.push(answer, &[piece.into()]);
    }

    /// The keys of the full feature phase. RFC 7143, appendix C for SendTargets.
    fn answer_text(&mut self, text: &[u8]) -> Result<(), WireError> {
        let max_recv = Key::MaxRecvDataSegmentLength.spec();
        for pair in text::parse(text)? {
            if pair.key == Key::SendTargets.spec().name {
                self.send_targets(pair.value);
            } else if pair.key == max_recv.name {
                match max_recv.parse(pair.value) {
                    Some(length) => self.parameters.max_send_data_segment_length = length,
                    None => self.text.outgoing.pair(pair.key, "Reject"),
                }
            } else {
                let known = Key::by_name(pair.key).is_some();
                self.text.outgoing.pair(pair.key, if known { "Reject" } else { "NotUnderstood" });
            }
        }
        Ok(())
    }

    /// `All` is for discovery sessions; a normal one asks for its own target, by name or by nothing. What is not to be told is
    /// answered with no target and not with `Reject`, which initiators take for the name of a key that they do not know.
    fn send_targets(&mut self, value: &str) {
        let own = self.target_name.as_deref();
        let wanted = |entry: &TargetEntry| match value {
            "All" => self.discovery,
            "" => own == Some(entry.name.as_str()),
            name => entry.name.eq_ignore_ascii_case(name) && (self.discovery || own == Some(entry.name.as_str())),
        };
        if value.is_empty() && self.discovery {
            return self.text.outgoing.pair(Key::SendTargets.spec().name, "Reject");
        }
        for entry in self.config.gate.targets(&self.initiator_name).iter().filter(|entry| wanted(entry)) {
            self.text.outgoing.pair(Key::TargetName.spec().name, &entry.name);
            for address in &entry.addresses {
                self.text.outgoing.pair(Key::TargetAddress.spec().name, address);
            }
        }
    }
}
