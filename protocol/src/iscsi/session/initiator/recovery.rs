//! Recovery within the connection, seen from the initiator: what is missing is asked for by SNACK, and what came before its turn
//! waits for it.
//!
//! Only on ErrorRecoveryLevel 1. Data is missing when its digest was wrong or when a DataSN or StatSN is left out. A SNACK for data
//! that brings nothing is not repeated: the command's own timeout ends it. RFC 7143 (7.2), (7.8), (11.16).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::super::bhs::{self, FINAL, NO_TAG};
use super::super::super::pdu::Header;
use super::super::super::serial_less;
use super::super::Links;
use super::{Ended, Initiator, ProtocolError, Task, U32};

/// PDUs of one command, and answers, that may come before their turn.
const MAX_AHEAD: usize = 4096;

/// Types of SNACK. RFC 7143 (11.16.1).
const DATA_OR_R2T: u8 = 0;
const STATUS: u8 = 1;
const DATA_ACK: u8 = 2;

/// What waits for missing Data-In.
#[derive(Debug, Default)]
pub(super) struct TaskRecovery {
    /// By DataSN.
    ahead: BTreeMap<u32, (bhs::DataIn, Bytes)>,
    /// The answer, which came before all its data, how many Data-In PDUs it tells of, and its StatSN.
    ended: Option<(Ended, u32, u32)>,
    /// Missing DataSNs below this have been asked for.
    asked_before: u32,
}

impl Task {
    /// The first run of missing DataSNs that nobody asked for, below `end`.
    fn missing(&mut self, end: u32) -> Option<(u32, u32)> {
        let mut from = self.next_data_sn.max(self.recovery.asked_before);
        while self.recovery.ahead.contains_key(&from) {
            from += 1;
        }
        let to = self.recovery.ahead.range(from..).next().map_or(end, |(data_sn, _)| *data_sn).min(end);
        (from < to).then(|| {
            self.recovery.asked_before = to;
            (from, to - from)
        })
    }
}

impl Initiator {
    /// ErrorRecoveryLevel is 1.
    pub(super) fn recovers(&self) -> bool {
        self.parameters.error_recovery_level > 0
    }

    /// A PDU whose data segment was damaged: its header tells what to ask for.
    pub(super) fn ask_for_lost(&mut self, links: &mut Links<Self>, header: &Header) {
        match header {
            Header::DataIn(header) => {
                let (tag, data_sn) = (header.initiator_task_tag.get(), header.data_sn.get());
                let Some(task) = self.tasks.get_mut(&tag) else { return };
                if data_sn >= task.next_data_sn && data_sn - task.next_data_sn < MAX_AHEAD as u32 {
                    task.recovery.asked_before = task.recovery.asked_before.max(data_sn + 1);
                    let from = task.next_data_sn;
                    self.snack(links, DATA_OR_R2T, tag, NO_TAG, (from, data_sn + 1 - from));
                }
            }
            Header::ScsiResponse(header) => self.snack(links, STATUS, NO_TAG, NO_TAG, (header.stat_sn.get(), 1)),
            // Pings and text are asked for again by whoever waits for them.
            _ => {}
        }
    }

    /// Takes note of a StatSN, and asks for those left out before it.
    pub(super) fn took_stat_sn(&mut self, links: &mut Links<Self>, stat_sn: u32) {
        if serial_less(stat_sn, self.exp_stat_sn) {
            return;
        }
        if stat_sn != self.exp_stat_sn {
            let missing = stat_sn.wrapping_sub(self.exp_stat_sn);
            if !self.stat_sns_ahead.contains(&stat_sn) && missing < MAX_AHEAD as u32 {
                self.snack(links, STATUS, NO_TAG, NO_TAG, (self.exp_stat_sn, missing));
            }
            if self.stat_sns_ahead.len() < MAX_AHEAD {
                self.stat_sns_ahead.insert(stat_sn);
            }
            return;
        }
        self.exp_stat_sn = stat_sn.wrapping_add(1);
        while self.stat_sns_ahead.remove(&self.exp_stat_sn) {
            self.exp_stat_sn = self.exp_stat_sn.wrapping_add(1);
        }
    }

    /// True when it is the turn of a Data-In. Otherwise it waits, or was there before.
    pub(super) fn is_next(&mut self, links: &mut Links<Self>, header: &bhs::DataIn, data: &Bytes) -> Result<bool, ProtocolError> {
        let (tag, data_sn) = (header.initiator_task_tag.get(), header.data_sn.get());
        let Some(task) = self.tasks.get_mut(&tag) else { return Ok(true) };
        if data_sn <= task.next_data_sn {
            return Ok(data_sn == task.next_data_sn);
        }
        if task.recovery.ahead.len() >= MAX_AHEAD {
            return Err(ProtocolError::Unexpected { pdu: "DataIn", when: "far before its turn" });
        }
        task.recovery.ahead.insert(data_sn, (*header, data.clone()));
        if let Some(run) = task.missing(data_sn) {
            self.snack(links, DATA_OR_R2T, tag, NO_TAG, run);
        }
        Ok(false)
    }

    /// The Data-In whose turn has come while it waited.
    pub(super) fn next_ahead(&mut self, tag: u32) -> Option<(bhs::DataIn, Bytes)> {
        let task = self.tasks.get_mut(&tag)?;
        task.recovery.ahead.remove(&task.next_data_sn)
    }

    /// Answers the A bit: all data up to here has arrived.
    pub(super) fn acknowledge_data(&mut self, links: &mut Links<Self>, header: &bhs::DataIn) {
        if header.flags & bhs::ACKNOWLEDGE != 0 {
            let next = header.data_sn.get().wrapping_add(1);
            self.snack(links, DATA_ACK, NO_TAG, header.target_transfer_tag.get(), (next, 0));
        }
    }

    /// True when an answer tells of more Data-In than has come: it waits, and the rest is asked for.
    pub(super) fn lacks_data(&mut self, links: &mut Links<Self>, header: &bhs::ScsiResponse, ended: &Ended) -> bool {
        let (tag, data_sns) = (header.initiator_task_tag.get(), header.exp_data_sn.get());
        let Some(task) = self.tasks.get_mut(&tag) else { return false };
        if task.next_data_sn >= data_sns || !matches!(task.submission.data, super::Data::In(_)) {
            return false;
        }
        task.recovery.ended = Some((ended.clone(), data_sns, header.stat_sn.get()));
        if let Some(run) = task.missing(data_sns) {
            self.snack(links, DATA_OR_R2T, tag, NO_TAG, run);
        }
        true
    }

    /// The answer that waited for the last Data-In, with its StatSN.
    pub(super) fn ended_meanwhile(&mut self, tag: u32) -> Option<(Ended, u32)> {
        let task = self.tasks.get_mut(&tag)?;
        let (_, data_sns, _) = task.recovery.ended.as_ref()?;
        if task.next_data_sn < *data_sns {
            return None;
        }
        task.recovery.ended.take().map(|(ended, _, stat_sn)| (ended, stat_sn))
    }

    fn snack(&mut self, links: &mut Links<Self>, kind: u8, tag: u32, transfer_tag: u32, (from, length): (u32, u32)) {
        let header = bhs::SnackRequest {
            flags: FINAL | kind,
            lun: self.tasks.get(&tag).map_or([0; 8], |task| task.submission.lun.0),
            initiator_task_tag: U32::new(tag),
            target_transfer_tag: U32::new(transfer_tag),
            exp_stat_sn: U32::new(self.exp_stat_sn),
            beg_run: U32::new(from),
            run_length: U32::new(length),
            ..Default::default()
        };
        links.first().transmit.push(header, &[]);
    }
}
