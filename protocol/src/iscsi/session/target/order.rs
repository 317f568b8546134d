//! The order of commands: the CmdSN window of a session, over all its connections.
//!
//! What lies outside of the window is ignored in silence; what comes early waits for the requests before it, where those may still
//! come: on another connection, or again after a digest error. Does not know what the requests ask for.
//!
//! RFC 7143 (4.2.2.1).

use std::collections::HashMap;

use super::super::super::bhs;
use super::super::super::pdu::{Header, Pdu};
use super::super::super::serial_less;
use super::super::{ConnectionId, Links, ProtocolError};
use super::{RejectReason, Target};

/// Bytes of data segments that early requests may hold. Each is at most a MaxRecvDataSegmentLength long, and there are no more than
/// the window lets in.
pub(super) const MAX_EARLY_BYTES: usize = 16 * 1024 * 1024;

/// ExpCmdSN, MaxCmdSN and the requests that came before their turn.
#[derive(Debug, Default)]
pub(super) struct CommandOrder {
    pub expected: u32,
    pub max: u32,
    /// By CmdSN.
    early: HashMap<u32, Early>,
    early_bytes: usize,
}

#[derive(Debug)]
enum Early {
    Request(ConnectionId, Pdu),
    /// Aborted before it came: its number counts as received.
    Aborted,
}

/// What the window says to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is its turn.
    Now,
    /// Outside of the window, or there already.
    Ignored,
    /// Requests before it are missing.
    Early,
}

impl CommandOrder {
    pub fn starting_at(cmd_sn: u32, queue_depth: u32) -> Self {
        Self { expected: cmd_sn, max: cmd_sn.wrapping_add(queue_depth).wrapping_sub(1), ..Self::default() }
    }

    /// Lets `room` more commands in than have come.
    pub fn open(&mut self, room: u32) {
        let max = self.expected.wrapping_add(room).wrapping_sub(1);
        if serial_less(self.max, max) {
            self.max = max;
        }
    }

    /// Bytes of data segments that wait for their turn.
    pub const fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    /// True when the initiator may send nothing more, as far as it knows.
    pub fn is_closed(&self) -> bool {
        serial_less(self.max, self.expected)
    }

    pub fn contains(&self, cmd_sn: u32) -> bool {
        !serial_less(cmd_sn, self.expected) && !serial_less(self.max, cmd_sn)
    }

    fn admit(&self, cmd_sn: u32) -> Admission {
        if cmd_sn == self.expected && self.contains(cmd_sn) {
            Admission::Now
        } else if !self.contains(cmd_sn) || self.early.contains_key(&cmd_sn) {
            Admission::Ignored
        } else {
            Admission::Early
        }
    }

    fn advance(&mut self) {
        self.expected = self.expected.wrapping_add(1);
    }

    /// Counts a request as received that is not to be carried out.
    pub fn plug(&mut self, cmd_sn: u32) {
        if let Some(Early::Request(_, pdu)) = self.early.insert(cmd_sn, Early::Aborted) {
            self.early_bytes -= pdu.data.len();
        }
    }

    /// Keeps a request until its turn; `false` when there is no more room.
    fn keep(&mut self, cmd_sn: u32, on: ConnectionId, pdu: Pdu) -> bool {
        self.early_bytes += pdu.data.len();
        self.early.insert(cmd_sn, Early::Request(on, pdu));
        self.early_bytes <= MAX_EARLY_BYTES
    }

    /// The next request whose turn has come.
    fn next(&mut self) -> Option<Early> {
        let early = self.early.remove(&self.expected)?;
        self.advance();
        if let Early::Request(_, pdu) = &early {
            self.early_bytes -= pdu.data.len();
        }
        Some(early)
    }

    /// Drops what an ended connection brought: the initiator sends it again on another one.
    pub fn forget_connection(&mut self, connection: ConnectionId) {
        self.early.retain(|_, early| !matches!(early, Early::Request(on, _) if *on == connection));
        self.early_bytes = self
            .early
            .values()
            .map(|early| match early {
                Early::Request(_, pdu) => pdu.data.len(),
                Early::Aborted => 0,
            })
            .sum();
    }
}

impl Target {
    /// Takes a request that has a CmdSN, and those that waited for it.
    pub(super) fn request(&mut self, links: &mut Links<Self>, on: ConnectionId, pdu: Pdu) -> Result<(), ProtocolError> {
        let (opcode, cmd_sn) = numbers(&pdu.header);
        if opcode & bhs::IMMEDIATE != 0 {
            self.carry_out(links, on, pdu);
            return Ok(());
        }
        match self.commands.admit(cmd_sn) {
            Admission::Ignored => {
                self.wasted = self.wasted.saturating_add(1);
                return Ok(());
            }
            Admission::Early => return self.too_early(links, on, cmd_sn, pdu),
            Admission::Now => self.commands.advance(),
        }
        self.carry_out(links, on, pdu);
        self.carry_out_early(links);
        Ok(())
    }

    /// Carries out what waited for a request that has come, or never will.
    pub(super) fn carry_out_early(&mut self, links: &mut Links<Self>) {
        while let Some(early) = self.commands.next() {
            if let Early::Request(on, pdu) = early
                && links.has(on)
            {
                self.carry_out(links, on, pdu);
            }
        }
        self.release_management(links);
    }

    fn too_early(&mut self, links: &mut Links<Self>, on: ConnectionId, cmd_sn: u32, pdu: Pdu) -> Result<(), ProtocolError> {
        let gap = ProtocolError::CommandGap { expected: self.commands.expected, got: cmd_sn };
        let header = pdu.header.to_bytes();
        // On the only connection nothing is late: what is missing was never sent.
        let may_come = self.joined || self.recovers();
        if may_come && self.commands.keep(cmd_sn, on, pdu) {
            return Ok(());
        }
        self.reject(links, on, RejectReason::ProtocolError, &header);
        Err(gap)
    }

    fn carry_out(&mut self, links: &mut Links<Self>, on: ConnectionId, pdu: Pdu) {
        if links[on].lane.leaving && !matches!(pdu.header, Header::NopOut(_)) {
            // RFC 7143 (11.14): nothing new is sent behind a logout.
            return self.reject(links, on, RejectReason::ProtocolError, &pdu.header.to_bytes());
        }
        match pdu.header {
            Header::ScsiCommand(header) => self.command(links, on, &header, pdu),
            Header::NopOut(header) => self.nop_out(links, on, &header, pdu.data),
            Header::TaskManagementRequest(header) => self.task_management(links, on, &header, &pdu),
            Header::TextRequest(header) => self.text_request(links, on, &header, &pdu),
            Header::LogoutRequest(header) => self.logout(links, on, &header, &pdu),
            _ => {}
        }
    }
}

/// Operation code with the I bit, and CmdSN.
fn numbers(header: &Header) -> (u8, u32) {
    match header {
        Header::ScsiCommand(header) => (header.opcode, header.cmd_sn.get()),
        Header::NopOut(header) => (header.opcode, header.cmd_sn.get()),
        Header::TaskManagementRequest(header) => (header.opcode, header.cmd_sn.get()),
        Header::TextRequest(header) => (header.opcode, header.cmd_sn.get()),
        Header::LogoutRequest(header) => (header.opcode, header.cmd_sn.get()),
        _ => (bhs::IMMEDIATE, 0),
    }
}
