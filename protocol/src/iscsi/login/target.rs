//! The target's side of a login.
//!
//! Asks the [`Gate`] twice: by the names that the first request gives, and again when the first stage is left, with what was
//! proved. Nobody leaves the security stage, or goes past it, who has not proved what the gate wants. RFC 7143 (6.3), (11.13).

use std::sync::Arc;

use super::super::bhs::{self, LoginRequest, LoginResponse};
use super::super::chap::{self, TargetChap};
use super::super::keys::{Key, NegotiationError, Negotiator, Parameters, Sender, Stage, Wishes};
use super::super::text::{self, Pair};
use super::{Exchange, Gate, LoggedIn, LoginError, LoginStatus, MAX_EXCHANGES, MAX_SEGMENT, VERSION, Visitor, status_of};
use crate::wire::U16;

/// How far the authentication is.
#[derive(Debug)]
enum Security {
    /// No method is settled yet. With nothing to prove, leaving the stage like this means `None`.
    Open(Option<Box<TargetChap>>),
    /// CHAP is settled, and goes on.
    Chap(Box<TargetChap>),
    /// AuthMethod is settled, and there is nothing left to exchange for it.
    Settled,
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
    /// Once the first text has said who it is.
    visitor: Option<Visitor>,
    /// Once it is proved.
    user: Option<String>,
    authorized: bool,
    /// The initiator asked to go on to this stage in the request whose answer is not all sent.
    transit: Option<Stage>,
}

/// What a target says about itself in a login.
#[derive(Debug, Clone)]
pub struct TargetNames {
    /// Who may log in to what.
    pub gate: Arc<dyn Gate>,
    /// Portal group of this portal.
    pub portal_group_tag: u16,
    /// TSIH the new session will have; not zero.
    pub tsih: u16,
}

/// What every later request must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FirstRequest {
    isid: [u8; 6],
    tsih: u16,
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
            security: Security::Open(None),
            exchange: Exchange::default(),
            first: None,
            visitor: None,
            user: None,
            authorized: false,
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
        let logged_in = self.finish()?;
        header.tsih = U16::new(logged_in.tsih);
        Ok((piece, Some(logged_in)))
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
        let this = FirstRequest {
            isid: request.isid,
            tsih: request.tsih.get(),
            cid: request.cid.get(),
            initiator_task_tag: request.initiator_task_tag.get(),
        };
        if *self.first.get_or_insert(this) != this {
            return Err(LoginError::Conduct("a later login request has another ISID, TSIH, CID or task tag"));
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
        if matches!(self.security, Security::Chap(_)) {
            // Asked for too early: the answer lacks the T bit, and the stage goes on.
            return Ok(None);
        }
        match Stage::from_code(request.flags) {
            Some(next) if next > current => Ok(Some(next)),
            _ => Err(LoginError::Conduct("NSG does not lie behind CSG")),
        }
    }

    fn take_text(&mut self, text: &[u8], stage: Stage) -> Result<(), LoginError> {
        let pairs = text::parse(text)?;
        let first = self.visitor.is_none();
        if first {
            self.identify(&pairs, stage)?;
        }
        let mut authenticates = false;
        for Pair { key, value } in &pairs {
            if *key == Key::AuthMethod.spec().name {
                self.choose_method(value, stage)?;
            } else if chap::is_chap_key(key) {
                authenticates = true;
            } else if first || !self.repeats_itself(key, value) {
                self.negotiator.handle(key, value, stage, &mut self.exchange.outgoing)?;
            }
        }
        if authenticates {
            self.authenticate(&pairs)?;
        }
        if first && self.visitor.as_ref().is_some_and(|visitor| visitor.target_name.is_some()) {
            self.exchange.outgoing.pair(Key::TargetPortalGroupTag.spec().name, self.names.portal_group_tag);
        }
        if stage == Stage::Operational {
            self.negotiator.declare(&mut self.exchange.outgoing);
        }
        Ok(())
    }

    /// The names that the first request has to give. RFC 7143 (6.3.1): InitiatorName, and TargetName unless for discovery.
    fn identify(&mut self, pairs: &[Pair<'_>], stage: Stage) -> Result<(), LoginError> {
        let value = |key: Key| pairs.iter().find(|pair| pair.key == key.spec().name).map(|pair| pair.value);
        let discovery = match value(Key::SessionType) {
            None | Some("Normal") => false,
            Some("Discovery") => true,
            Some(_) => return Err(LoginError::Refused(LoginStatus::SESSION_TYPE_NOT_SUPPORTED)),
        };
        self.negotiator.set_discovery(discovery);
        let missing = LoginError::Refused(LoginStatus::MISSING_PARAMETER);
        let initiator_name = value(Key::InitiatorName).filter(|name| is_iscsi_name(name)).ok_or(missing.clone())?;
        let target_name = if discovery { None } else { Some(value(Key::TargetName).ok_or(missing)?.to_owned()) };
        let first = self.first.expect("the header was checked");
        let visitor = Visitor { initiator_name: initiator_name.to_owned(), target_name, isid: first.isid, tsih: first.tsih };
        let admission = self.names.gate.admit(&visitor).map_err(LoginError::Refused)?;
        self.visitor = Some(Visitor { target_name: admission.target_name, ..visitor });
        if let Some(most) = admission.max_connections {
            self.negotiator.limit_connections(most);
        }
        if let Some((policy, nonce)) = admission.chap {
            if stage != Stage::Security {
                // It wants to go past the authentication.
                return Err(LoginError::Refused(LoginStatus::AUTHENTICATION_FAILURE));
            }
            self.security = Security::Open(Some(Box::new(TargetChap::new(policy, nonce))));
        }
        Ok(())
    }

    /// True for a name that is said again as it was said. RFC 7143 (6.3) has no key twice; but libiscsi with credentials, where none
    /// are asked for, begins the second stage with all its names, and nothing is declared anew by that.
    fn repeats_itself(&self, key: &str, value: &str) -> bool {
        let Some(visitor) = &self.visitor else { return false };
        let session_type = if visitor.target_name.is_some() { "Normal" } else { "Discovery" };
        match Key::by_name(key) {
            Some(Key::InitiatorName) => value == visitor.initiator_name,
            Some(Key::TargetName) => visitor.target_name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(value)),
            Some(Key::SessionType) => value == session_type,
            _ => false,
        }
    }

    /// RFC 7143 (12.1): of the offered methods the one that is wanted here, and there is only one.
    fn choose_method(&mut self, offered: &str, stage: Stage) -> Result<(), LoginError> {
        if stage != Stage::Security {
            return Err(LoginError::Conduct("AuthMethod outside of the security stage"));
        }
        let (method, settled) = match std::mem::replace(&mut self.security, Security::Settled) {
            Security::Open(None) => ("None", Security::Settled),
            Security::Open(Some(chap)) => ("CHAP", Security::Chap(chap)),
            Security::Chap(_) | Security::Settled => return Err(NegotiationError::Twice("AuthMethod").into()),
        };
        if !offered.split(',').any(|one| one == method) {
            return Err(LoginError::Refused(LoginStatus::AUTHENTICATION_FAILURE));
        }
        self.security = settled;
        self.exchange.outgoing.pair(Key::AuthMethod.spec().name, method);
        Ok(())
    }

    fn authenticate(&mut self, pairs: &[Pair<'_>]) -> Result<(), LoginError> {
        let Security::Chap(chap) = &mut self.security else {
            return Err(LoginError::Conduct("keys of CHAP where there is none"));
        };
        if let Some(user) = chap.handle(pairs, &mut self.exchange.outgoing)? {
            self.user = Some(user);
            self.security = Security::Settled;
        }
        Ok(())
    }

    /// What must hold before a stage is left.
    fn leave(&mut self, stage: Stage) -> Result<(), LoginError> {
        let visitor = self.visitor.as_ref().ok_or(LoginError::Refused(LoginStatus::MISSING_PARAMETER))?;
        if stage == Stage::Security {
            if !matches!(self.security, Security::Open(None) | Security::Settled) {
                return Err(LoginError::Refused(LoginStatus::AUTHENTICATION_FAILURE));
            }
            self.security = Security::Settled;
        }
        if !self.authorized {
            self.names.gate.authorize(visitor, self.user.as_deref()).map_err(LoginError::Refused)?;
            self.authorized = true;
        }
        Ok(())
    }

    fn finish(&self) -> Result<LoggedIn, LoginError> {
        let first = self.first.expect("a request was handled");
        let visitor = self.visitor.as_ref().ok_or(LoginError::Refused(LoginStatus::MISSING_PARAMETER))?;
        Ok(LoggedIn {
            initiator_name: visitor.initiator_name.clone(),
            target_name: visitor.target_name.clone(),
            isid: first.isid,
            tsih: if first.tsih == 0 { self.names.tsih } else { first.tsih },
            joins: first.tsih != 0,
            cid: first.cid,
            user: self.user.clone(),
            parameters: self.negotiator.parameters(),
        })
    }
}

/// RFC 7143 (4.2.7): at most 223 bytes of letters, digits, dash, dot, colon and what lies above ASCII.
#[must_use]
pub fn is_iscsi_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | ':');
    (1..=223).contains(&name.len()) && name.chars().all(allowed)
}
