//! Sessions: several connections, recovery within a connection, the order of commands and their window, unit attentions. RFC 7143,
//! SAM-5.

mod attentions;
mod mcs;
mod ordering;
mod recovery;
mod window;

use bytes::Bytes;
use protocol::iscsi::bhs::{self, Header};
use protocol::scsi::LunAddress;

use super::check::{Outcome, equal, fail};
use super::raw::{LoginAnswer, LoginHeader, RawConnection};
use super::{Bench, Case};

/// All of them.
pub const CASES: &[&[Case]] = &[mcs::CASES, recovery::CASES, window::CASES, ordering::CASES, attentions::CASES];

/// INQUIRY with room for 36 bytes: no unit attention stands in its way.
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 36, 0];
/// CmdSN of the first request behind a login.
const FIRST: u32 = 1;

/// A connection in the full feature phase, whose PDUs the case writes itself.
struct Peer {
    connection: RawConnection,
    login: LoginAnswer,
    lun: [u8; 8],
    exp_stat_sn: u32,
}

impl Peer {
    /// Logs in with the usual names and these keys besides.
    async fn log_in(bench: &Bench, header: LoginHeader, keys: &[(&str, &str)]) -> Outcome<Self> {
        let devices = bench.devices();
        let names = [
            ("InitiatorName", devices.options.initiator_name.as_str()),
            ("TargetName", devices.unit.target.as_str()),
            ("SessionType", "Normal"),
        ];
        let mut connection = bench.raw().await?;
        let login = connection.login_to_the_end(header, &[&names[..], keys].concat()).await?;
        let exp_stat_sn = login.header.stat_sn.get().wrapping_add(1);
        let lun = LunAddress::from_number(devices.unit.lun).0;
        Ok(Self { connection, login, lun, exp_stat_sn })
    }

    /// As [`Peer::log_in`]; a login that is refused fails the case.
    async fn enter(bench: &Bench, header: LoginHeader, keys: &[(&str, &str)]) -> Outcome<Self> {
        let peer = Self::log_in(bench, header, keys).await?;
        equal("status of the login", peer.login.status(), (0, 0))?;
        Ok(peer)
    }

    /// What the target made of a number that was offered.
    fn number(&self, key: &str) -> u32 {
        self.login.key(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// A SCSI command with a simple tag; `flags` may say more than F.
    async fn command(&mut self, tag: u32, cmd_sn: u32, flags: u8, length: u32, cdb: &[u8]) -> Outcome {
        self.command_as(0, tag, cmd_sn, flags, length, cdb).await
    }

    /// As [`Peer::command`], with the I bit or without.
    async fn command_as(&mut self, immediate: u8, tag: u32, cmd_sn: u32, flags: u8, length: u32, cdb: &[u8]) -> Outcome {
        let attribute = if flags & 7 == 0 { 1 } else { 0 };
        let mut header = bhs::ScsiCommand {
            opcode: immediate | 0x01,
            flags: bhs::FINAL | flags | attribute,
            lun: self.lun,
            initiator_task_tag: tag.into(),
            expected_data_transfer_length: length.into(),
            cmd_sn: cmd_sn.into(),
            exp_stat_sn: self.exp_stat_sn.into(),
            ..Default::default()
        };
        header.cdb[..cdb.len()].copy_from_slice(cdb);
        self.connection.send(Header::ScsiCommand(header).to_bytes(), &[]).await
    }

    async fn inquire(&mut self, tag: u32, cmd_sn: u32) -> Outcome {
        self.command(tag, cmd_sn, bhs::READ, 36, &INQUIRY).await
    }

    /// The next PDU that is no ping of the target's.
    async fn next(&mut self) -> Outcome<(Header, Bytes)> {
        loop {
            match self.connection.receive().await? {
                Some((Header::NopIn(nop), _)) if nop.initiator_task_tag.get() == bhs::NO_TAG => self.pong(&nop).await?,
                Some(received) => return Ok(received),
                None => return fail("the target has closed the connection"),
            }
        }
    }

    async fn pong(&mut self, ping: &bhs::NopIn) -> Outcome {
        if ping.target_transfer_tag.get() == bhs::NO_TAG {
            return Ok(());
        }
        let pong = bhs::NopOut {
            opcode: bhs::IMMEDIATE,
            flags: bhs::FINAL,
            lun: ping.lun,
            initiator_task_tag: bhs::NO_TAG.into(),
            target_transfer_tag: ping.target_transfer_tag,
            cmd_sn: ping.exp_cmd_sn,
            exp_stat_sn: self.exp_stat_sn.into(),
            ..Default::default()
        };
        self.connection.send(Header::NopOut(pong).to_bytes(), &[]).await
    }

    /// The PDU that ends the command with this tag: its status, its StatSN, and the Data-In that came.
    async fn ends(&mut self, tag: u32) -> Outcome<(u8, u32, Vec<u8>)> {
        let mut data = Vec::new();
        loop {
            let (header, bytes) = self.next().await?;
            let (seen, status, stat_sn) = match header {
                Header::DataIn(header) => {
                    data.extend_from_slice(&bytes);
                    if header.flags & bhs::STATUS == 0 {
                        continue;
                    }
                    (header.initiator_task_tag.get(), header.status, header.stat_sn.get())
                }
                Header::ScsiResponse(header) => (header.initiator_task_tag.get(), header.status, header.stat_sn.get()),
                other => return fail(format!("expected the end of command {tag}, got a {}", other.name())),
            };
            equal("tag of the command that ended", seen, tag)?;
            return Ok((status, stat_sn, data));
        }
    }

    /// An INQUIRY goes there and back.
    async fn serves(&mut self, tag: u32, cmd_sn: u32) -> Outcome {
        self.inquire(tag, cmd_sn).await?;
        equal("status of INQUIRY", self.ends(tag).await?.0, 0)
    }
}
