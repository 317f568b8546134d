//! The login phase of both sides, from the first login PDU to the full feature phase.
//!
//! Authenticates nobody yet: the security stage settles `AuthMethod=None`, and its state has the place for an exchange. What
//! keys mean is in [`super::keys`]; who may log in is decided by the caller, who learns names and ISID from [`LoggedIn`].
//!
//! RFC 7143 (6.3), (11.12), (11.13), appendix C.

use super::bhs::{self, LoginRequest, LoginResponse};
use super::keys::{Key, NegotiationError, Negotiator, Parameters, Sender, Stage, Wishes};
use super::text::{self, Gather, Pair, Writer};
use crate::wire::{U16, U32};

/// The only version there is.
const VERSION: u8 = 0x00;
/// Longest data segment of a login PDU, in bytes: the default of MaxRecvDataSegmentLength.
pub const MAX_SEGMENT: u32 = 8192;
/// A login of more exchanges than this is not going anywhere. Each may carry [`MAX_SEGMENT`] bytes.
const MAX_EXCHANGES: u32 = 32;

/// Status-Class and Status-Detail of a login response. RFC 7143 (11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginStatus {
    /// Class: 0 success, 1 redirection, 2 the initiator's fault, 3 the target's.
    pub class: u8,
    /// Detail within the class.
    pub detail: u8,
}

#[allow(missing_docs)]
impl LoginStatus {
    pub const SUCCESS: Self = Self::new(0, 0);
    pub const TARGET_MOVED_TEMPORARILY: Self = Self::new(1, 1);
    pub const TARGET_MOVED_PERMANENTLY: Self = Self::new(1, 2);
    pub const INITIATOR_ERROR: Self = Self::new(2, 0);
    pub const AUTHENTICATION_FAILURE: Self = Self::new(2, 1);
    pub const AUTHORIZATION_FAILURE: Self = Self::new(2, 2);
    pub const NOT_FOUND: Self = Self::new(2, 3);
    pub const UNSUPPORTED_VERSION: Self = Self::new(2, 5);
    pub const TOO_MANY_CONNECTIONS: Self = Self::new(2, 6);
    pub const MISSING_PARAMETER: Self = Self::new(2, 7);
    pub const SESSION_TYPE_NOT_SUPPORTED: Self = Self::new(2, 9);
    pub const SESSION_DOES_NOT_EXIST: Self = Self::new(2, 0x0A);
    pub const INVALID_REQUEST_TYPE: Self = Self::new(2, 0x0B);
    pub const TARGET_ERROR: Self = Self::new(3, 0);
    pub const SERVICE_UNAVAILABLE: Self = Self::new(3, 1);
    pub const OUT_OF_RESOURCES: Self = Self::new(3, 2);

    const fn new(class: u8, detail: u8) -> Self {
        Self { class, detail }
    }
}

impl std::fmt::Display for LoginStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meaning = match *self {
            Self::SUCCESS => "success",
            Self::TARGET_MOVED_TEMPORARILY => "target moved temporarily",
            Self::TARGET_MOVED_PERMANENTLY => "target moved permanently",
            Self::INITIATOR_ERROR => "initiator error",
            Self::AUTHENTICATION_FAILURE => "authentication failure",
            Self::AUTHORIZATION_FAILURE => "authorization failure",
            Self::NOT_FOUND => "target not found",
            Self::UNSUPPORTED_VERSION => "unsupported version",
            Self::TOO_MANY_CONNECTIONS => "too many connections",
            Self::MISSING_PARAMETER => "missing parameter",
            Self::SESSION_TYPE_NOT_SUPPORTED => "session type not supported",
            Self::SESSION_DOES_NOT_EXIST => "session does not exist",
            Self::INVALID_REQUEST_TYPE => "invalid during login",
            Self::TARGET_ERROR => "target error",
            Self::SERVICE_UNAVAILABLE => "service unavailable",
            Self::OUT_OF_RESOURCES => "out of resources",
            _ => "unknown status",
        };
        write!(f, "{meaning} ({:02x}{:02x}h)", self.class, self.detail)
    }
}

/// Why a login ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The target said no, or we did as the target.
    #[error("login refused: {0}")]
    Refused(LoginStatus),
    /// The target is elsewhere.
    #[error("target moved to {address}")]
    Redirected {
        /// TargetAddress as given.
        address: String,
    },
    /// A negotiation that breaks the rules.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// Text that is none, or too long.
    #[error(transparent)]
    Text(#[from] crate::wire::WireError),
    /// A login PDU that breaks the rules.
    #[error("{0}")]
    Conduct(&'static str),
}

/// What a finished login is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// iSCSI name of the initiator.
    pub initiator_name: String,
    /// iSCSI name of the target; `None` in a discovery session.
    pub target_name: Option<String>,
    /// Initiator's part of the session's name.
    pub isid: [u8; 6],
    /// Target's part of the session's name.
    pub tsih: u16,
    /// Connection id.
    pub cid: u16,
    /// What was agreed.
    pub parameters: Parameters,
}

/// How far the security stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    /// No method is settled yet. Leaving the stage like this means `None`.
    Open,
    /// AuthMethod is settled, and there is nothing left to exchange for it.
    Settled,
}

/// The text of one exchange and what is left of it.
#[derive(Debug, Default)]
struct Exchange {
    incoming: Gather,
    outgoing: Writer,
    count: u32,
}

/// The target's side of a login.
#[derive(Debug)]
pub struct TargetLogin {
    names: TargetNames,
    negotiator: Negotiator,
    stage: Option<Stage>,
    security: Security,
    exchange: Exchange,
    first: Option<FirstRequest>,
    initiator_name: Option<String>,
    target_name: Option<String>,
    discovery: bool,
    /// The initiator asked to go on to this stage in the request whose answer is not all sent.
    transit: Option<Stage>,
}

/// What a target says about itself in a login.
#[derive(Debug, Clone)]
pub struct TargetNames {
    /// iSCSI names served on this portal.
    pub targets: Vec<String>,
    /// Portal group of this portal.
    pub portal_group_tag: u16,
    /// TSIH the new session will have; not zero.
    pub tsih: u16,
}

/// What every later request must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FirstRequest {
    isid: [u8; 6],
    cid: u16,
    initiator_task_tag: u32,
}

/// A login response before its sequence numbers are filled in.
#[derive(Debug)]
pub struct Answer {
    /// The header; StatSN, ExpCmdSN and MaxCmdSN are the session's to fill.
    pub header: LoginResponse,
    /// The data segment.
    pub text: Vec<u8>,
    /// What comes of it.
    pub outcome: Result<Option<LoggedIn>, LoginError>,
}

impl TargetLogin {
    /// Waits for the first request.
    #[must_use]
    pub fn new(names: TargetNames, wishes: Wishes) -> Self {
        Self {
            names,
            negotiator: Negotiator::new(Sender::Target, wishes),
            stage: None,
            security: Security::Open,
            exchange: Exchange::default(),
            first: None,
            initiator_name: None,
            target_name: None,
            discovery: false,
            transit: None,
        }
    }

    /// True before the first request.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.first.is_none()
    }

    /// What holds when nothing is negotiated.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.negotiator.parameters()
    }

    /// Answers a request. After an error in the outcome the answer is still sent, then the connection closes.
    pub fn handle(&mut self, request: &LoginRequest, data: &[u8]) -> Answer {
        let mut header = LoginResponse {
            version_max: VERSION,
            version_active: VERSION,
            isid: request.isid,
            tsih: request.tsih,
            initiator_task_tag: request.initiator_task_tag,
            ..Default::default()
        };
        match self.advance(request, data, &mut header) {
            Ok((text, logged_in)) => Answer { header, text, outcome: Ok(logged_in) },
            Err(error) => {
                let status = status_of(&error);
                header.flags = 0;
                (header.status_class, header.status_detail) = (status.class, status.detail);
                Answer { header, text: Vec::new(), outcome: Err(error) }
            }
        }
    }

    fn advance(
        &mut self,
        request: &LoginRequest,
        data: &[u8],
        header: &mut LoginResponse,
    ) -> Result<(Vec<u8>, Option<LoggedIn>), LoginError> {
        let current = self.check(request)?;
        header.flags = (current as u8) << 2;
        let more = request.flags & bhs::CONTINUE != 0;
        if more && request.flags & bhs::FINAL != 0 {
            return Err(LoginError::Conduct("T and C bits together"));
        }
        if let Some(text) = self.exchange.incoming.add(data, more)? {
            self.take_text(&text, current)?;
            self.transit = self.asked_transit(request, current)?;
        } else {
            return Ok((Vec::new(), None));
        }

        let (piece, more) = self.exchange.outgoing.take(MAX_SEGMENT as usize);
        if more {
            header.flags |= bhs::CONTINUE;
            return Ok((piece, None));
        }
        let Some(next) = self.transit.take() else { return Ok((piece, None)) };
        self.leave(current)?;
        header.flags |= bhs::FINAL | next as u8;
        self.stage = Some(next);
        if next != Stage::FullFeature {
            return Ok((piece, None));
        }
        header.tsih = U16::new(self.names.tsih);
        Ok((piece, Some(self.finish()?)))
    }

    /// What can be wrong with the header; gives the stage it speaks of.
    fn check(&mut self, request: &LoginRequest) -> Result<Stage, LoginError> {
        if request.version_min > VERSION {
            return Err(LoginError::Refused(LoginStatus::UNSUPPORTED_VERSION));
        }
        self.exchange.count += 1;
        if self.exchange.count > MAX_EXCHANGES {
            return Err(LoginError::Conduct("the login takes too many exchanges"));
        }
        let this =
            FirstRequest { isid: request.isid, cid: request.cid.get(), initiator_task_tag: request.initiator_task_tag.get() };
        if *self.first.get_or_insert(this) != this {
            return Err(LoginError::Conduct("a later login request has another ISID, CID or task tag"));
        }
        if request.tsih.get() != 0 {
            // A further connection for a session that is not, or that is its only connection's.
            return Err(LoginError::Refused(LoginStatus::SESSION_DOES_NOT_EXIST));
        }
        let current = Stage::from_code(request.flags >> 2).filter(|stage| *stage != Stage::FullFeature);
        let current = current.ok_or(LoginError::Conduct("CSG is none that a login can be in"))?;
        if *self.stage.get_or_insert(current) != current {
            return Err(LoginError::Conduct("CSG is not the stage the login is in"));
        }
        Ok(current)
    }

    fn asked_transit(&self, request: &LoginRequest, current: Stage) -> Result<Option<Stage>, LoginError> {
        if request.flags & bhs::FINAL == 0 {
            // An empty request that only fetches the rest of our answer keeps what was asked before.
            return Ok(self.transit);
        }
        match Stage::from_code(request.flags) {
            Some(next) if next > current => Ok(Some(next)),
            _ => Err(LoginError::Conduct("NSG does not lie behind CSG")),
        }
    }

    fn take_text(&mut self, text: &[u8], stage: Stage) -> Result<(), LoginError> {
        let pairs = text::parse(text)?;
        let first = self.initiator_name.is_none();
        if first {
            self.identify(&pairs)?;
        }
        for Pair { key, value } in pairs {
            if key == Key::AuthMethod.spec().name {
                self.choose_method(value, stage)?;
            } else {
                self.negotiator.handle(key, value, stage, &mut self.exchange.outgoing)?;
            }
        }
        if first && !self.discovery {
            self.exchange.outgoing.pair(Key::TargetPortalGroupTag.spec().name, self.names.portal_group_tag);
        }
        if stage == Stage::Operational {
            self.negotiator.declare(&mut self.exchange.outgoing);
        }
        Ok(())
    }

    /// The names that the first request has to give. RFC 7143 (6.3.1): InitiatorName, and TargetName unless for discovery.
    fn identify(&mut self, pairs: &[Pair<'_>]) -> Result<(), LoginError> {
        let value = |key: Key| pairs.iter().find(|pair| pair.key == key.spec().name).map(|pair| pair.value);
        self.discovery = match value(Key::SessionType) {
            None | Some("Normal") => false,
            Some("Discovery") => true,
            Some(_) => return Err(LoginError::Refused(LoginStatus::SESSION_TYPE_NOT_SUPPORTED)),
        };
        self.negotiator.set_discovery(self.discovery);
        let missing = LoginError::Refused(LoginStatus::MISSING_PARAMETER);
        let initiator_name = value(Key::InitiatorName).filter(|name| is_iscsi_name(name)).ok_or(missing.clone())?;
        self.initiator_name = Some(initiator_name.to_owned());
        if self.discovery {
            return Ok(());
        }
        let target_name = value(Key::TargetName).ok_or(missing)?;
        let served = self.names.targets.iter().find(|name| name.eq_ignore_ascii_case(target_name));
        self.target_name = Some(served.ok_or(LoginError::Refused(LoginStatus::NOT_FOUND))?.clone());
        Ok(())
    }

    fn choose_method(&mut self, offered: &str, stage: Stage) -> Result<(), LoginError> {
        if stage != Stage::Security {
            return Err(LoginError::Conduct("AuthMethod outside of the security stage"));
        }
        if self.security == Security::Settled {
            return Err(NegotiationError::Twice("AuthMethod").into());
        }
        let spec = Key::AuthMethod.spec();
        if !offered.split(',').any(|method| spec.parse(method).is_some()) {
            return Err(LoginError::Refused(LoginStatus::AUTHENTICATION_FAILURE));
        }
        self.security = Security::Settled;
        self.exchange.outgoing.pair(spec.name, "None");
        Ok(())
    }

    /// What must hold before a stage is left.
    fn leave(&mut self, stage: Stage) -> Result<(), LoginError> {
        if self.initiator_name.is_none() {
            return Err(LoginError::Refused(LoginStatus::MISSING_PARAMETER));
        }
        if stage == Stage::Security {
            self.security = Security::Settled;
        }
        Ok(())
    }

    fn finish(&self) -> Result<LoggedIn, LoginError> {
        let first = self.first.expect("a request was handled");
        let initiator_name = self.initiator_name.clone().ok_or(LoginError::Refused(LoginStatus::MISSING_PARAMETER))?;
        Ok(LoggedIn {
            initiator_name,
            target_name: self.target_name.clone(),
            isid: first.isid,
            tsih: self.names.tsih,
            cid: first.cid,
            parameters: self.negotiator.parameters(),
        })
    }
}

/// What a refused login is told.
fn status_of(error: &LoginError) -> LoginStatus {
    match error {
        LoginError::Refused(status) => *status,
        _ => LoginStatus::INITIATOR_ERROR,
    }
}

/// RFC 7143 (4.2.7): at most 223 bytes of letters, digits, dash, dot, colon and what lies above ASCII.
fn is_iscsi_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | ':');
    (1..=223).contains(&name.len()) && name.chars().all(allowed)
}

/// The initiator's side of a login.
#[derive(Debug)]
pub struct InitiatorLogin {
    names: InitiatorNames,
    negotiator: Negotiator,
    stage: Stage,
    exchange: Exchange,
    redirected: Option<String>,
}

/// What an initiator says about itself in a login.
#[derive(Debug, Clone)]
pub struct InitiatorNames {
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// iSCSI name of the target; `None` for a discovery session.
    pub target: Option<String>,
    /// Initiator's part of the session's name.
    pub isid: [u8; 6],
    /// Connection id.
    pub cid: u16,
}

/// A login request before its sequence numbers are filled in.
#[derive(Debug)]
pub struct Request {
    /// The header; CmdSN and ExpStatSN are the session's to fill.
    pub header: LoginRequest,
    /// The data segment.
    pub text: Vec<u8>,
}

/// What follows from a login response.
#[derive(Debug)]
pub enum Progress {
    /// Send this.
    Send(Request),
    /// The full feature phase begins.
    Done(LoggedIn),
}

impl InitiatorLogin {
    /// The login and its first request.
    #[must_use]
    pub fn new(names: InitiatorNames, wishes: Wishes) -> (Self, Request) {
        let mut negotiator = Negotiator::new(Sender::Initiator, wishes);
        negotiator.set_discovery(names.target.is_none());
        let mut login = Self { names, negotiator, stage: Stage::Security, exchange: Exchange::default(), redirected: None };
        let text = &mut login.exchange.outgoing;
        text.pair(Key::InitiatorName.spec().name, &login.names.initiator);
        match &login.names.target {
            Some(target) => {
                text.pair(Key::SessionType.spec().name, "Normal");
                text.pair(Key::TargetName.spec().name, target);
            }
            None => text.pair(Key::SessionType.spec().name, "Discovery"),
        }
        text.pair(Key::AuthMethod.spec().name, "None");
        let request = login.request();
        (login, request)
    }

    fn request(&mut self) -> Request {
        let (text, more) = self.exchange.outgoing.take(MAX_SEGMENT as usize);
        let next = match self.stage {
            Stage::Security => Stage::Operational,
            _ => Stage::FullFeature,
        };
        let bits = if more { bhs::CONTINUE } else { bhs::FINAL | next as u8 };
        let header = LoginRequest {
            opcode: bhs::IMMEDIATE,
            flags: bits | (self.stage as u8) << 2,
            version_max: VERSION,
            version_min: VERSION,
            isid: self.names.isid,
            initiator_task_tag: U32::new(0),
            cid: U16::new(self.names.cid),
            ..Default::default()
        };
        Request { header, text }
    }

    /// What holds when nothing is negotiated.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.negotiator.parameters()
    }

    /// Takes a response.
    ///
    /// # Errors
    /// When the target refuses, sends us elsewhere, or breaks the rules.
    pub fn handle(&mut self, response: &LoginResponse, data: &[u8]) -> Result<Progress, LoginError> {
        self.exchange.count += 1;
        if self.exchange.count > MAX_EXCHANGES {
            return Err(LoginError::Conduct("the login takes too many exchanges"));
        }
        let status = LoginStatus { class: response.status_class, detail: response.status_detail };
        let more = response.flags & bhs::CONTINUE != 0;
        if let Some(text) = self.exchange.incoming.add(data, more)? {
            self.take_text(&text, status)?;
        }
        match status.class {
            0 => {}
            1 => return Err(LoginError::Redirected { address: self.redirected.take().unwrap_or_default() }),
            _ => return Err(LoginError::Refused(status)),
        }
        if response.version_active != VERSION {
            return Err(LoginError::Refused(LoginStatus::UNSUPPORTED_VERSION));
        }
        if Stage::from_code(response.flags >> 2) != Some(self.stage) {
            return Err(LoginError::Conduct("CSG is not the stage the login is in"));
        }
        if response.flags & bhs::FINAL == 0 || more {
            return Ok(Progress::Send(self.request()));
        }
        match Stage::from_code(response.flags) {
            Some(Stage::Operational) if self.stage == Stage::Security => {
                self.stage = Stage::Operational;
                self.negotiator.offer_all(&mut self.exchange.outgoing);
                Ok(Progress::Send(self.request()))
            }
            Some(Stage::FullFeature) if self.stage == Stage::Operational => Ok(Progress::Done(LoggedIn {
                initiator_name: self.names.initiator.clone(),
                target_name: self.names.target.clone(),
                isid: self.names.isid,
                tsih: response.tsih.get(),
                cid: self.names.cid,
                parameters: self.negotiator.parameters(),
            })),
            _ => Err(LoginError::Conduct("the target goes to a stage that was not asked for")),
        }
    }

    fn take_text(&mut self, text: &[u8], status: LoginStatus) -> Result<(), LoginError> {
        for Pair { key, value } in text::parse(text)? {
            if key == Key::TargetAddress.spec().name {
                self.redirected = Some(value.to_owned());
            } else if key == Key::AuthMethod.spec().name {
                if value != "None" && status.class == 0 {
                    return Err(LoginError::Refused(LoginStatus::AUTHENTICATION_FAILURE));
                }
            } else {
                self.negotiator.handle(key, value, self.stage, &mut self.exchange.outgoing)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> TargetNames {
        TargetNames { targets: vec!["iqn.2026-11.example:disk".into()], portal_group_tag: 1, tsih: 7 }
    }

    fn initiator(target: Option<&str>) -> (InitiatorLogin, Request) {
        let names = InitiatorNames {
            initiator: "iqn.2026-11.example:host".into(),
            target: target.map(str::to_owned),
            isid: [0x80, 0, 0, 0, 0, 1],
            cid: 1,
        };
        InitiatorLogin::new(names, Wishes::default())
    }

    fn run(target: Option<&str>) -> (Result<LoggedIn, LoginError>, Option<LoggedIn>) {
        let (mut initiator, mut request) = initiator(target);
        let mut login = TargetLogin::new(names(), Wishes::default());
        loop {
            let answer = login.handle(&request.header, &request.text);
            match initiator.handle(&answer.header, &answer.text) {
                Ok(Progress::Send(next)) => request = next,
                Ok(Progress::Done(done)) => return (Ok(done), answer.outcome.unwrap()),
                Err(error) => return (Err(error), answer.outcome.unwrap_or_default()),
            }
        }
    }

    #[test]
    fn both_sides_come_to_the_same_session() {
        let (ours, theirs) = run(Some("iqn.2026-11.example:disk"));
        let ours = ours.unwrap();
        assert_eq!(Some(&ours), theirs.as_ref());
        assert_eq!(ours.tsih, 7);
        assert_eq!(ours.parameters.max_send_data_segment_length, 256 * 1024);
        assert!(!ours.parameters.initial_r2t);
    }

    #[test]
    fn a_discovery_session_has_no_target_name() {
        let (ours, theirs) = run(None);
        assert_eq!(ours.unwrap().target_name, None);
        assert_eq!(theirs.unwrap().target_name, None);
    }

    #[test]
    fn an_unknown_target_is_not_found() {
        assert_eq!(run(Some("iqn.x:other")).0, Err(LoginError::Refused(LoginStatus::NOT_FOUND)));
    }

    fn refusal(change: impl FnOnce(&mut Request)) -> LoginStatus {
        let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
        change(&mut request);
        let answer = TargetLogin::new(names(), Wishes::default()).handle(&request.header, &request.text);
        assert!(answer.outcome.is_err(), "{answer:?}");
        LoginStatus { class: answer.header.status_class, detail: answer.header.status_detail }
    }

    #[test]
    fn each_broken_rule_has_its_status() {
        assert_eq!(refusal(|request| request.header.version_min = 1), LoginStatus::UNSUPPORTED_VERSION);
        assert_eq!(refusal(|request| request.header.tsih = U16::new(3)), LoginStatus::SESSION_DOES_NOT_EXIST);
        assert_eq!(refusal(|request| request.text.clear()), LoginStatus::MISSING_PARAMETER);
        assert_eq!(refusal(|request| request.header.flags = 0x80 | 0x0C | 3), LoginStatus::INITIATOR_ERROR);
        assert_eq!(refusal(|request| request.header.flags = 0x80 | 1 << 2), LoginStatus::INITIATOR_ERROR);
        assert_eq!(refusal(|request| request.header.flags = 0x80 | 2), LoginStatus::INITIATOR_ERROR);
        assert_eq!(refusal(|request| request.header.flags |= 0x40), LoginStatus::INITIATOR_ERROR);
        let chap = b"InitiatorName=iqn.x\0TargetName=iqn.2026-11.example:disk\0AuthMethod=CHAP\0";
        assert_eq!(refusal(|request| request.text = chap.to_vec()), LoginStatus::AUTHENTICATION_FAILURE);
        let odd = b"InitiatorName=iqn.x\0SessionType=Odd\0";
        assert_eq!(refusal(|request| request.text = odd.to_vec()), LoginStatus::SESSION_TYPE_NOT_SUPPORTED);
    }

    #[test]
    fn text_in_pieces_is_answered_with_empty_responses_until_it_is_whole() {
        let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
        let mut login = TargetLogin::new(names(), Wishes::default());
        let text = std::mem::take(&mut request.text);
        let whole_flags = request.header.flags;
        request.header.flags = bhs::CONTINUE;
        let answer = login.handle(&request.header, &text[..10]);
        assert_eq!((answer.header.flags, answer.text.len(), answer.header.status_class), (0, 0, 0));
        request.header.flags = whole_flags;
        let answer = login.handle(&request.header, &text[10..]);
        assert_eq!(answer.header.flags, bhs::FINAL | Stage::Operational as u8);
        assert!(answer.text.starts_with(b"AuthMethod=None\0"));
    }

    #[test]
    fn an_answer_longer_than_a_segment_comes_in_pieces_and_only_then_the_stage_changes() {
        let mut login = TargetLogin::new(names(), Wishes::default());
        let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
        for number in 0..800 {
            request.text.extend_from_slice(format!("X-{number}=1\0").as_bytes());
        }
        let first = login.handle(&request.header, &request.text);
        assert_eq!((first.header.flags, first.text.len()), (bhs::CONTINUE, 8192));
        request.header.flags = 0;
        let second = login.handle(&request.header, &[]);
        assert_eq!(second.header.flags, bhs::FINAL | Stage::Operational as u8);
        assert!(second.text.ends_with(b"TargetPortalGroupTag=1\0"));
    }

    #[test]
    fn a_login_that_goes_nowhere_ends() {
        let mut login = TargetLogin::new(names(), Wishes::default());
        let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
        request.header.flags = 0;
        let rounds = (0..100).take_while(|round| {
            let text = if *round == 0 { request.text.as_slice() } else { &[] };
            login.handle(&request.header, text).outcome.is_ok()
        });
        assert_eq!(rounds.count(), MAX_EXCHANGES as usize);
    }

    proptest! {
        #[test]
        fn any_request_is_answered(flags: u8, min in 0u8..2, tsih in 0u16..2, text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let header = LoginRequest { flags, version_min: min, tsih: U16::new(tsih), ..Default::default() };
            let mut login = TargetLogin::new(names(), Wishes::default());
            let _ = login.handle(&header, &text);
            let _ = login.handle(&header, &text);
        }
    }
}
