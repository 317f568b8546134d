//! The initiator's side of a login.
//!
//! With an account it offers CHAP; and where the target has to prove itself too, it takes nothing less. RFC 7143 (6.3), (12.1).

use super::super::bhs::{self, LoginRequest, LoginResponse};
use super::super::chap::{self, InitiatorChap, InitiatorPolicy, InitiatorStep};
use super::super::keys::{Key, Negotiator, Parameters, Sender, Stage, Wishes};
use super::super::text::{self, Pair};
use super::{Exchange, LoggedIn, LoginError, LoginStatus, MAX_EXCHANGES, MAX_SEGMENT, VERSION};
use crate::wire::{U16, U32};

/// The initiator's side of a login.
#[derive(Debug)]
pub struct InitiatorLogin {
    names: InitiatorNames,
    negotiator: Negotiator,
    stage: Stage,
    security: Security,
    user: Option<String>,
    exchange: Exchange,
    redirected: Option<String>,
}

/// How far the authentication is.
#[derive(Debug)]
enum Security {
    /// CHAP is offered, and the target has not chosen.
    Offered(Box<InitiatorPolicy>),
    /// CHAP goes on.
    Chap(Box<InitiatorChap>),
    /// Our proof is sent; the target's is awaited, but there is nothing left to say.
    Awaiting(Box<InitiatorChap>),
    /// There is nothing left to exchange.
    Settled,
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
    /// What it can prove; `None` offers no authentication.
    pub chap: Option<InitiatorPolicy>,
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
    pub fn new(mut names: InitiatorNames, wishes: Wishes) -> (Self, Request) {
        let mut negotiator = Negotiator::new(Sender::Initiator, wishes);
        negotiator.set_discovery(names.target.is_none());
        let (methods, security) = match names.chap.take() {
            None => ("None", Security::Settled),
            Some(policy) if policy.account.mutual().is_some() => ("CHAP", Security::Offered(Box::new(policy))),
            Some(policy) => ("CHAP,None", Security::Offered(Box::new(policy))),
        };
        let (stage, exchange) = (Stage::Security, Exchange::default());
        let mut login = Self { names, negotiator, stage, security, user: None, exchange, redirected: None };
        let text = &mut login.exchange.outgoing;
        text.pair(Key::InitiatorName.spec().name, &login.names.initiator);
        match &login.names.target {
            Some(target) => {
                text.pair(Key::SessionType.spec().name, "Normal");
                text.pair(Key::TargetName.spec().name, target);
            }
            None => text.pair(Key::SessionType.spec().name, "Discovery"),
        }
        text.pair(Key::AuthMethod.spec().name, methods);
        let request = login.request();
        (login, request)
    }

    fn request(&mut self) -> Request {
        let (text, more) = self.exchange.outgoing.take(MAX_SEGMENT as usize);
        let next = match self.stage {
            Stage::Security => Stage::Operational,
            _ => Stage::FullFeature,
        };
        let bits = match self.security {
            _ if more => bhs::CONTINUE,
            Security::Offered(_) | Security::Chap(_) => 0,
            Security::Awaiting(_) | Security::Settled => bhs::FINAL | next as u8,
        };
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
                if !matches!(self.security, Security::Settled) {
                    return Err(LoginError::Conduct("the target leaves the security stage before the authentication is done"));
                }
                self.stage = Stage::Operational;
                self.negotiator.offer_all(&mut self.exchange.outgoing);
                Ok(Progress::Send(self.request()))
            }
            Some(Stage::FullFeature) if self.stage == Stage::Operational => Ok(Progress::Done(LoggedIn {
                initiator_name: self.names.initiator.clone(),
                target_name: self.names.target.clone(),
                isid: self.names.isid,
                tsih: response.tsih.get(),
                joins: false,
                cid: self.names.cid,
                user: self.user.clone(),
                parameters: self.negotiator.parameters(),
            })),
            _ => Err(LoginError::Conduct("the target goes to a stage that was not asked for")),
        }
    }

    fn take_text(&mut self, text: &[u8], status: LoginStatus) -> Result<(), LoginError> {
        let pairs = text::parse(text)?;
        let mut authenticates = false;
        for Pair { key, value } in &pairs {
            if *key == Key::TargetAddress.spec().name {
                self.redirected = Some((*value).to_owned());
            } else if *key == Key::AuthMethod.spec().name {
                if status.class == 0 {
                    self.take_method(value)?;
                }
            } else if chap::is_chap_key(key) {
                authenticates = true;
            } else {
                self.negotiator.handle(key, value, self.stage, &mut self.exchange.outgoing)?;
            }
        }
        if authenticates && status.class == 0 { self.authenticate(&pairs) } else { Ok(()) }
    }

    fn take_method(&mut self, method: &str) -> Result<(), LoginError> {
        self.security = match (std::mem::replace(&mut self.security, Security::Settled), method) {
            (Security::Settled, "None") => Security::Settled,
            (Security::Offered(policy), "None") if policy.account.mutual().is_none() => Security::Settled,
            (Security::Offered(policy), "CHAP") => {
                Security::Chap(Box::new(InitiatorChap::new(*policy, &mut self.exchange.outgoing)))
            }
            _ => return Err(LoginError::Refused(LoginStatus::AUTHENTICATION_FAILURE)),
        };
        Ok(())
    }

    fn authenticate(&mut self, pairs: &[Pair<'_>]) -> Result<(), LoginError> {
        let (Security::Chap(mut chap) | Security::Awaiting(mut chap)) = std::mem::replace(&mut self.security, Security::Settled)
        else {
            return Err(LoginError::Conduct("keys of CHAP where there is none"));
        };
        let step = chap.handle(pairs, &mut self.exchange.outgoing)?;
        self.user = Some(chap.user().to_owned());
        if step == InitiatorStep::WaitForTarget {
            self.security = Security::Awaiting(chap);
        }
        Ok(())
    }
}
