//! Remote ends: logical units of other iSCSI targets that copies may read or write, as far as the configuration lets them.
//!
//! A CSCD descriptor with an IP address (E5h, EAh, EBh) is a *name* here and nothing more: what it names must stand in a `[[remote]]`
//! table, and that table must let the I_T nexus that sent the command use it. Nothing is ever connected to because a list says so.
//!
//! The target logs in, finds out what the logical unit is, and gives the open session away to a mover ([`connection`]); secrets stay
//! here. Moves no block itself.
//!
//! Follows SPC-4, "iSCSI IPv4 CSCD descriptor format", "iSCSI IPv6 CSCD descriptor format", "IP Copy Service CSCD descriptor".

pub mod connection;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, RwLock};

use protocol::control::spec::RemoteSpec;
use protocol::iscsi::chap::{Account, Algorithm, InitiatorPolicy, Nonce};
use protocol::iscsi::login::is_iscsi_name;
use protocol::iscsi::session::{Handover, InitiatorConfig};
use protocol::mover::ends::{Descriptor, End};
use protocol::mover::{RemoteTarget, RemoteUnit as Kind, Way};
use protocol::scsi::LunAddress;
use protocol::xcopy::{CscdName, Designator};
use tracing::{info, warn};

use crate::access::NamePattern;
use crate::nexus::Nexus;
use crate::store::LocalEnd;
use connection::{Connection, Refused, TapePlace};

/// Under which name the target logs in where a table gives none.
pub const INITIATOR_NAME: &str = "iqn.2026-01.org.offhost:copy-manager";

/// One `[[remote]]` table with its secrets.
#[derive(Debug)]
pub struct RemoteEnd {
    /// As it is written.
    pub spec: RemoteSpec,
    /// Who may use it.
    pub initiators: Vec<NamePattern>,
    /// What is proved there; absent where nothing is asked for.
    pub account: Option<Account>,
    /// Offered in this order.
    pub algorithms: Vec<Algorithm>,
}

/// All remote ends that the configuration has. Shared; changes hold for copies that begin later.
#[derive(Debug, Default)]
pub struct RemoteEnds(RwLock<Vec<Arc<RemoteEnd>>>);

/// A remote logical unit with a session of its own, for one copy.
#[derive(Debug)]
pub struct RemoteUnit {
    /// What it is.
    pub kind: Kind,
    /// The configuration lets it be written.
    pub writable: bool,
    /// Its address there.
    pub lun: LunAddress,
    /// Where it is.
    pub target: RemoteTarget,
    /// Where it stood when it was looked at, if it is a tape that says so.
    pub stood_at: Option<TapePlace>,
    /// Names of the logical unit by which another way to it may be known.
    names: Vec<Designator>,
    end: Arc<RemoteEnd>,
    /// ISID of the session with which it was looked at.
    isid: Isid,
    /// That session, until a mover has it.
    session: Mutex<Option<OpenSession>>,
}

/// Initiator's part of a session's name.
type Isid = [u8; 6];
/// A session that is logged in and that nobody has.
type OpenSession = (OwnedFd, Handover);

/// The sessions that movers have with a remote logical unit one after the other, all of one ISID: to log in under the same name ends
/// the one before, whoever has that. RFC 7143 (6.3.5), session reinstatement.
#[derive(Debug)]
pub struct Lane {
    unit: Arc<RemoteUnit>,
    isid: Isid,
    /// Logged in, and not given away yet.
    open: Option<OpenSession>,
    last: Last,
}

/// What became of the session that was given away last.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    /// There was none, or it is known to have ended.
    Ended,
    /// A mover has it that may not use it yet.
    Awaited,
    /// A mover has it, or had it. With the initiator's name under which it was logged in.
    Used(String),
}

/// Why a CSCD descriptor names nothing that a copy can use.
#[derive(Debug)]
pub enum Unusable {
    /// No table lets this nexus use it, nobody is there, or nobody lets us in. Which of these it is, an initiator is not told.
    NotReachable,
    /// It is neither a disk nor a tape.
    WrongDeviceType,
    /// It said so itself.
    Refused(Refused),
}

impl RemoteEnds {
    /// From now on these and no others.
    pub fn set(&self, ends: Vec<Arc<RemoteEnd>>) {
        *self.0.write().expect("no holder panics") = ends;
    }

    /// Logs in to the one logical unit that a descriptor names and `nexus` may use. Blocks, as long as
    /// [`connection::LOGIN_TIMEOUT`] and a command's time allow.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn open(&self, name: &CscdName, nexus: &Nexus) -> Result<RemoteUnit, Unusable> {
        let (candidates, designator) = match name {
            CscdName::Designator(_) | CscdName::Rod(_) => return Err(Unusable::NotReachable),
            CscdName::Iscsi(unit) => (self.named(nexus, unit.portal, Some(unit.lun)), None),
            CscdName::Served(unit) => (self.named(nexus, unit.service, None), Some(&unit.designator)),
        };
        // A portal and a number that several tables have name none of them.
        if designator.is_none() && candidates.len() > 1 {
            return Err(Unusable::NotReachable);
        }
        let mut found = Err(Unusable::NotReachable);
        for end in candidates {
            match end.open(designator) {
                Ok(Some(unit)) => return Ok(unit),
                Ok(None) => {}
                Err(unusable) => found = Err(unusable),
            }
        }
        // At a copy service only what has the designator counts.
        if designator.is_some() { Err(Unusable::NotReachable) } else { found }
    }

    fn named(&self, nexus: &Nexus, portal: SocketAddr, lun: Option<LunAddress>) -> Vec<Arc<RemoteEnd>> {
        let ends = self.0.read().expect("no holder panics");
        let fits = |end: &&Arc<RemoteEnd>| {
            end.spec.portal == portal && lun.is_none_or(|lun| lun == end.identifier()) && end.admits(nexus)
        };
        ends.iter().filter(fits).cloned().collect()
    }
}

impl RemoteEnd {
    /// LU IDENTIFIER that descriptors name it by.
    fn identifier(&self) -> LunAddress {
        LunAddress::from_number(self.spec.seen_as.unwrap_or(self.spec.lun))
    }

    fn admits(&self, nexus: &Nexus) -> bool {
        let target =
            self.spec.targets.is_empty() || self.spec.targets.iter().any(|name| name.eq_ignore_ascii_case(&nexus.target));
        target && self.initiators.iter().any(|pattern| pattern.matches(&nexus.initiator))
    }

    /// Logs in and looks; `None` when the logical unit does not have the designator.
    fn open(self: &Arc<Self>, designator: Option<&Designator>) -> Result<Option<RemoteUnit>, Unusable> {
        let spec = &self.spec;
        let lun = LunAddress::from_number(spec.lun);
        let not_reachable = |error: io::Error| {
            warn!(portal = %spec.portal, target = spec.target, lun = spec.lun, %error, "a remote end cannot be reached");
            Unusable::NotReachable
        };
        let isid = new_isid();
        let mut connection = self.log_in(isid, &self.initiator_name()).map_err(not_reachable)?;
        let mut names = connection.designators(lun).map_err(not_reachable)?;
        if designator.is_some_and(|wanted| !names.contains(wanted)) {
            return Ok(None);
        }
        names.retain(|name| name.association == LOGICAL_UNIT);
        let kind = match connection.look(lun).map_err(not_reachable)? {
            Ok(Some(kind)) => kind,
            Ok(None) => return Err(Unusable::WrongDeviceType),
            Err(refused) => return Err(Unusable::Refused(refused)),
        };
        let stood_at = if kind == Kind::Tape { connection.position(lun).map_err(not_reachable)? } else { None };
        let session = connection.into_parts().map_err(not_reachable)?;
        info!(portal = %spec.portal, target = spec.target, lun = spec.lun, ?kind, "a remote end takes part in a copy");
        let target = RemoteTarget { portal: spec.portal, name: spec.target.clone() };
        let (end, session) = (Arc::clone(self), Mutex::new(Some(session)));
        Ok(Some(RemoteUnit { kind, writable: !spec.read_only, lun, target, stood_at, names, end, isid, session }))
    }

    fn log_in(&self, isid: Isid, initiator_name: &str) -> io::Result<Connection> {
        Connection::log_in(self.spec.portal, self.config(isid, initiator_name))
    }

    /// Under which the target itself logs in.
    fn initiator_name(&self) -> String {
        self.spec.initiator_name.clone().unwrap_or_else(|| INITIATOR_NAME.to_owned())
    }

    fn config(&self, isid: Isid, initiator_name: &str) -> InitiatorConfig {
        let nonce = || Nonce { identifier: rand::random(), challenge: rand::random() };
        let policy =
            |account: &Account| InitiatorPolicy { account: account.clone(), algorithms: self.algorithms.clone(), nonce: nonce() };
        InitiatorConfig {
            initiator_name: initiator_name.to_owned(),
            target_name: Some(self.spec.target.clone()),
            isid,
            chap: self.account.as_ref().map(policy),
            login_timeout: connection::LOGIN_TIMEOUT,
            ..InitiatorConfig::default()
        }
    }
}

impl RemoteUnit {
    /// The same logical unit of the same target, whatever session it is seen through.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.target == other.target && self.lun == other.lun
    }

    /// Whether it may be the logical unit that has one of these names. Targets of one make may give one name twice.
    pub fn may_be<'a>(&self, names: impl IntoIterator<Item = (u8, &'a [u8])>) -> bool {
        names.into_iter().any(|(kind, name)| self.names().any(|own| own == (kind, name)))
    }

    /// DESIGNATOR TYPE and DESIGNATOR of what names the logical unit itself.
    pub fn names(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.names.iter().map(|name| (name.designator_type, name.identifier.as_bytes()))
    }

    /// As a mover is told of it that comes to it in this way.
    fn end(&self, way: Way) -> End {
        End::Remote(protocol::mover::RemoteEnd { way, lun: self.lun.0, unit: self.kind, writable: self.writable })
    }

    /// Bytes a block, of a disk.
    #[must_use]
    pub const fn block_length(&self) -> Option<u32> {
        match self.kind {
            Kind::Disk { block_length, .. } => Some(block_length),
            Kind::Tape => None,
        }
    }
}

impl Lane {
    /// One more way to the logical unit. The first one begins with the session with which it was looked at.
    #[must_use]
    pub fn new(unit: &Arc<RemoteUnit>) -> Self {
        let open = unit.session.lock().expect("no holder panics").take();
        let isid = if open.is_some() { unit.isid } else { new_isid() };
        Self { unit: Arc::clone(unit), isid, open, last: Last::Ended }
    }

    /// The end with the next session, to be given to a mover of this host. Blocks.
    ///
    /// # Errors
    /// What the network and the target say.
    pub fn give(&mut self) -> io::Result<LocalEnd> {
        let name = self.unit.end.initiator_name();
        let (socket, session) = match self.open.take() {
            Some(open) => open,
            None => {
                let mut connection = self.unit.end.log_in(self.isid, &name)?;
                if self.unit.kind == Kind::Tape {
                    // To a mover the attention of a new nexus would mean that the tape has moved.
                    connection.position(self.unit.lun)?;
                }
                connection.into_parts()?
            }
        };
        self.last = Last::Used(name);
        Ok(LocalEnd { end: self.unit.end(Way::Open { socket: Descriptor(0), session }), files: vec![socket] })
    }

    /// The end for a mover of another host, which logs in itself and then says under which name: [`Lane::use_as`].
    #[must_use]
    pub fn leave(&mut self) -> LocalEnd {
        (self.open, self.last) = (None, Last::Awaited);
        let way = Way::LogIn { target: self.unit.target.clone(), isid: self.isid };
        LocalEnd { end: self.unit.end(way), files: Vec::new() }
    }

    /// A mover has logged in, and may send commands from now on.
    ///
    /// # Errors
    /// `EBADF` when it was not to log in, or says so again, and for what is no iSCSI name.
    pub fn use_as(&mut self, initiator_name: String) -> io::Result<()> {
        if self.last != Last::Awaited || !is_iscsi_name(&initiator_name) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        self.last = Last::Used(initiator_name);
        Ok(())
    }

    /// Makes sure that the session given away last has ended, whatever became of its holder: what a process has sent may still be on
    /// its way when it has ended. Blocks.
    ///
    /// # Errors
    /// What the network and the target say: it may want another secret of the mover of another host, whose name that is, than ours.
    pub fn reinstate(&mut self) -> io::Result<()> {
        self.reinstate_and(|_, _| Ok(()))
    }

    /// Somebody has a session here that may use it, or had one that is not known to have ended.
    #[must_use]
    pub const fn is_in_use(&self) -> bool {
        matches!(self.last, Last::Used(_))
    }

    /// As [`Lane::reinstate`], and has a tape go back to where it stood before its first session.
    ///
    /// # Errors
    /// As [`Lane::reinstate`]; also when the tape did not tell where it stood, or does not go there.
    pub fn begin_anew(&mut self) -> io::Result<()> {
        self.reinstate_and(|unit, connection| match (unit.kind, unit.stood_at) {
            (Kind::Disk { .. }, _) => Ok(()),
            (Kind::Tape, Some(place)) => connection.locate(unit.lun, place),
            (Kind::Tape, None) => Err(io::Error::other("nobody knows where the tape stood")),
        })
    }

    fn reinstate_and(&mut self, act: impl FnOnce(&RemoteUnit, &mut Connection) -> io::Result<()>) -> io::Result<()> {
        if let Last::Used(name) = &self.last {
            let end = &self.unit.end;
            let RemoteSpec { portal, target, lun, .. } = &end.spec;
            let mut connection = end.log_in(self.isid, name).inspect_err(|error| {
                warn!(%portal, target, lun, initiator_name = name, %error, "{NOT_REINSTATED}");
            })?;
            self.last = Last::Ended;
            if self.unit.kind == Kind::Tape {
                let place = connection.position(self.unit.lun)?;
                info!(%portal, target, lun, ?place, "the tape is where its dead mover has left it");
            }
            act(&self.unit, &mut connection)?;
            connection.log_out()?;
        }
        self.last = Last::Ended;
        Ok(())
    }
}

/// What is to be done where a session cannot be ended.
const NOT_REINSTATED: &str = "what a mover has sent to a remote end may still arrive there, since its session cannot be ended: the other \
    target must be there, and let the account of our [[remote]] table in under that name";

/// ASSOCIATION of a designator of the logical unit itself.
const LOGICAL_UNIT: u8 = 0;

/// Of the random format (RFC 7143, 11.12.5): copies at the same time must not reinstate each other's sessions.
fn new_isid() -> Isid {
    let [a, b, c, d, e] = rand::random();
    [0x80, a, b, c, d, e]
}
