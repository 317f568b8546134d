//! A connection on which the case writes every PDU itself: login as it should not be done.
//!
//! No header digests, no session state. Layouts are from `protocol::iscsi::bhs`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol::iscsi::bhs::{self, Header};
use protocol::iscsi::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::check::{Outcome, Stop, fail};
use crate::client::ClientError;
use crate::url::Portal;

/// A target that stays silent so long has not answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// More than any login or text response needs.
const LONGEST_SEGMENT: usize = 1 << 20;

/// Login stages. RFC 7143 (11.12.3).
pub(super) const SECURITY: u8 = 0;
/// LoginOperationalNegotiation.
pub(super) const OPERATIONAL: u8 = 1;
/// FullFeaturePhase.
pub(super) const FULL_FEATURE: u8 = 3;

/// A TCP connection cut into PDUs.
#[derive(Debug)]
pub(super) struct RawConnection {
    stream: TcpStream,
    /// DataDigest=CRC32C: data segments have their digests behind them, in both directions.
    data_digests: bool,
}

/// What a login request says beside its keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoginHeader {
    pub(super) isid: [u8; 6],
    pub(super) tsih: u16,
    pub(super) cid: u16,
    pub(super) version_max: u8,
    pub(super) version_min: u8,
    pub(super) transit: bool,
    /// C bit: the text goes on in the next request.
    pub(super) goes_on: bool,
    pub(super) current: u8,
    pub(super) next: u8,
    pub(super) cmd_sn: u32,
}

impl Default for LoginHeader {
    /// A leading login that asks to go from the operational stage to the full feature phase.
    fn default() -> Self {
        let [a, b, c, d, e] = rand::random();
        Self {
            // Random format (RFC 7143, 11.12.5), unlike any other session of this process.
            isid: [0x80, a, b, c, d, e],
            tsih: 0,
            cid: 0,
            version_max: 0,
            version_min: 0,
            transit: true,
            goes_on: false,
            current: OPERATIONAL,
            next: FULL_FEATURE,
            cmd_sn: 1,
        }
    }
}

/// A login response with its keys.
#[derive(Debug, Clone)]
pub(super) struct LoginAnswer {
    pub(super) header: bhs::LoginResponse,
    pub(super) keys: Vec<(String, String)>,
}

impl LoginAnswer {
    /// The value of a key.
    pub(super) fn key(&self, name: &str) -> Option<&str> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// STATUS-CLASS and STATUS-DETAIL.
    pub(super) fn status(&self) -> (u8, u8) {
        (self.header.status_class, self.header.status_detail)
    }
}

impl RawConnection {
    pub(super) async fn open(portal: &Portal) -> Outcome<Self> {
        let connect = TcpStream::connect((portal.host.as_str(), portal.port));
        let stream = timeout(ANSWER_LIMIT, connect)
            .await
            .map_err(|_| Stop::Fail(format!("{portal} takes no connection within {ANSWER_LIMIT:?}")))?
            .map_err(|error| ClientError::Connect { portal: portal.to_string(), error })?;
        stream.set_nodelay(true).map_err(ClientError::from)?;
        Ok(Self { stream, data_digests: false })
    }

    /// From now on data segments have digests. To be called when the login has agreed on them and is over.
    pub(super) fn begin_data_digests(&mut self) {
        self.data_digests = true;
    }

    /// Sends a header with its data segment; length, padding and digest are written here.
    pub(super) async fn send(&mut self, header: [u8; bhs::LENGTH], data: &[u8]) -> Outcome {
        self.send_damaged(header, data, 0).await
    }

    /// As [`RawConnection::send`], with these bits of the data digest turned round.
    pub(super) async fn send_damaged(&mut self, mut header: [u8; bhs::LENGTH], data: &[u8], damage: u32) -> Outcome {
        let [_, a, b, c] = (data.len() as u32).to_be_bytes();
        header[5..8].copy_from_slice(&[a, b, c]);
        let mut pdu = header.to_vec();
        pdu.extend_from_slice(data);
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        if self.data_digests && !data.is_empty() {
            let digest = digest::of(&pdu[bhs::LENGTH..]) ^ damage;
            pdu.extend_from_slice(&digest.to_le_bytes());
        }
        Ok(self.stream.write_all(&pdu).await.map_err(ClientError::from)?)
    }

    /// Sends bytes as they are.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Outcome {
        Ok(self.stream.write_all(bytes).await.map_err(ClientError::from)?)
    }

    /// The next PDU; `None` when the target has closed the connection.
    pub(super) async fn receive(&mut self) -> Outcome<Option<(Header, Bytes)>> {
        match timeout(ANSWER_LIMIT, self.receive_one()).await {
            Ok(received) => received,
            Err(_) => fail(format!("no answer within {ANSWER_LIMIT:?}")),
        }
    }

    /// Waits up to `limit` for the target to close the connection; PDUs before that are passed over.
    pub(super) async fn closed_within(&mut self, limit: Duration) -> bool {
        let drained = async { while matches!(self.receive_one().await, Ok(Some(_))) {} };
        timeout(limit, drained).await.is_ok()
    }

    async fn receive_one(&mut self) -> Outcome<Option<(Header, Bytes)>> {
        let mut header = [0; bhs::LENGTH];
        if self.stream.read_exact(&mut header).await.is_err() {
            return Ok(None);
        }
        let ahs = usize::from(header[4]) * 4;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        if length > LONGEST_SEGMENT {
            return fail(format!("a data segment of {length} bytes during login"));
        }
        let padded = ahs + length.next_multiple_of(4);
        let digest = if self.data_digests && length > 0 { digest::LENGTH } else { 0 };
        let mut rest = BytesMut::zeroed(padded + digest);
        if self.stream.read_exact(&mut rest).await.is_err() {
            return fail("the connection was closed in the middle of a PDU");
        }
        if digest > 0 && rest[padded..] != digest::of(&rest[ahs..padded]).to_le_bytes() {
            return fail("a data segment with a wrong digest");
        }
        Ok(Some((Header::parse(&header), rest.freeze().slice(ahs..ahs + length))))
    }

    /// Sends a login request with this text.
    pub(super) async fn send_login(&mut self, login: LoginHeader, text: &[u8]) -> Outcome {
        let transit = if login.transit { bhs::FINAL | login.next } else { 0 };
        let header = bhs::LoginRequest {
            opcode: 0x03 | bhs::IMMEDIATE,
            flags: transit | if login.goes_on { bhs::CONTINUE } else { 0 } | login.current << 2,
            version_max: login.version_max,
            version_min: login.version_min,
            isid: login.isid,
            tsih: login.tsih.into(),
            cid: login.cid.into(),
            initiator_task_tag: 7.into(),
            cmd_sn: login.cmd_sn.into(),
            ..Default::default()
        };
        self.send(Header::LoginRequest(header).to_bytes(), text).await
    }

    /// The next PDU, which has to be a login response.
    pub(super) async fn login_answer(&mut self) -> Outcome<LoginAnswer> {
        match self.receive().await? {
            Some((Header::LoginResponse(header), data)) => Ok(LoginAnswer { header, keys: keys_of(&data)? }),
            Some((other, _)) => fail(format!("expected a Login Response, got a {}", other.name())),
            None => fail("expected a Login Response, the connection was closed"),
        }
    }

    /// Sends a login request with these keys and waits for the response; anything else fails the case.
    pub(super) async fn login(&mut self, login: LoginHeader, keys: &[(&str, &str)]) -> Outcome<LoginAnswer> {
        self.send_login(login, &text(keys)).await?;
        self.login_answer().await
    }

    /// Goes on until the full feature phase or a refusal: with empty requests, or with answers to what the target proposes.
    pub(super) async fn login_to_the_end(&mut self, login: LoginHeader, keys: &[(&str, &str)]) -> Outcome<LoginAnswer> {
        let mut answer = self.login(login, keys).await?;
        let mut settled: Vec<_> = keys.iter().map(|(key, _)| (*key).to_owned()).collect();
        for _ in 0..8 {
            let flags = answer.header.flags;
            let there = flags & bhs::FINAL != 0 && flags & 3 == FULL_FEATURE;
            if answer.header.status_class != 0 || there {
                return Ok(answer);
            }
            let proposed = answer.keys.iter().filter(|(key, _)| !settled.contains(key) && !DECLARED.contains(&key.as_str()));
            let agreed: Vec<_> = proposed.map(|(key, value)| (key.clone(), agreed(value))).collect();
            settled.extend(agreed.iter().map(|(key, _)| key.clone()));
            let agreed: Vec<_> = agreed.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let mut next = self.login(login, &agreed).await?;
            next.keys.splice(0..0, answer.keys);
            answer = next;
        }
        fail("the login did not end after eight more requests")
    }

    /// Sends a Text Request and gathers the keys of the answer.
    pub(super) async fn text(&mut self, cmd_sn: u32, exp_stat_sn: u32, keys: &[(&str, &str)]) -> Outcome<Vec<(String, String)>> {
        let header = bhs::TextRequest {
            opcode: 0x04,
            flags: bhs::FINAL,
            initiator_task_tag: 8.into(),
            target_transfer_tag: bhs::NO_TAG.into(),
            cmd_sn: cmd_sn.into(),
            exp_stat_sn: exp_stat_sn.into(),
            ..Default::default()
        };
        self.send(Header::TextRequest(header).to_bytes(), &text(keys)).await?;
        match self.receive().await? {
            Some((Header::TextResponse(_), data)) => keys_of(&data),
            Some((other, _)) => fail(format!("expected a Text Response, got a {}", other.name())),
            None => fail("expected a Text Response, the connection was closed"),
        }
    }
}

/// Keys that a target declares: they are not answered. RFC 7143 (13).
const DECLARED: [&str; 4] = ["TargetAlias", "TargetAddress", "TargetPortalGroupTag", "MaxRecvDataSegmentLength"];

/// The answer to a value that the target proposes: none of a list that has it, else what it wants. RFC 7143 (6.2).
fn agreed(proposed: &str) -> String {
    let none = proposed.split(',').any(|value| value == "None");
    if none { "None".to_owned() } else { proposed.to_owned() }
}

/// `key=value` pairs, each ended by NUL. RFC 7143 (6.1).
pub(super) fn text(keys: &[(&str, &str)]) -> Vec<u8> {
    keys.iter().flat_map(|(key, value)| format!("{key}={value}\0").into_bytes()).collect()
}

fn keys_of(data: &[u8]) -> Outcome<Vec<(String, String)>> {
    let pairs = data.split(|byte| *byte == 0).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let pair = String::from_utf8_lossy(pair).into_owned();
            match pair.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => fail(format!("text without '=': {pair:?}")),
            }
        })
        .collect()
}
