//! A target: its name, its LUNs, and who is logged in.
//!
//! Knows nothing of sockets: sessions are reached by messages. Follows RFC 7143 (4.1), "iSCSI node", and SAM-5 on nexuses.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock, Weak};
use std::time::Duration;

use protocol::iscsi::login::LoggedIn;
use protocol::scsi::Sense;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Server;
use super::management::Message;
use crate::access::{Access, LunMask};
use crate::lun::Device;
use crate::nexus::{LunMap, Nexus, NexusCounters, Peers};

/// How often it is said that a new session still waits for the one it takes the place of.
const REINSTATEMENT: Duration = Duration::from_secs(10);

/// How long a login waits for sessions whose initiator has hung up.
const HANG_UPS: Duration = Duration::from_secs(1);

/// An iSCSI target node.
#[derive(Debug)]
pub struct Target {
    name: String,
    luns: Arc<LunMap>,
    /// Whose portals it is reached through.
    served_by: OnceLock<Weak<Server>>,
    /// Tags of the portal groups it is reached through; empty for all.
    portal_groups: RwLock<Vec<u16>>,
    access: RwLock<Arc<Access>>,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    /// By nexus id.
    live: BTreeMap<u64, SessionHandle>,
    /// Sessions that have ended, but for copies that outlive their nexus; by its id.
    survived: BTreeMap<u64, mpsc::UnboundedSender<Message>>,
    /// The target was taken out: nobody enters any more.
    closed: bool,
}

/// A session that is logged in, as others see it.
#[derive(Debug, Clone)]
pub(super) struct SessionHandle {
    pub target: Arc<Target>,
    pub nexus: Arc<Nexus>,
    /// CHAP name that was proved.
    pub user: Option<String>,
    /// The target's part of the session's name.
    pub tsih: u16,
    pub messages: mpsc::UnboundedSender<Message>,
    /// Fires when the session and all it ran have ended.
    pub ended: CancellationToken,
}

impl Target {
    /// A target nobody is logged in to, reached through all portals.
    #[must_use]
    pub fn new(name: impl Into<String>, luns: Arc<LunMap>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            luns,
            served_by: OnceLock::new(),
            portal_groups: RwLock::default(),
            access: RwLock::default(),
            sessions: Mutex::default(),
        })
    }

    /// iSCSI name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All LUNs, whoever may reach them.
    #[must_use]
    pub fn luns(&self) -> &Arc<LunMap> {
        &self.luns
    }

    /// Adds a LUN under the lowest free number from `from` on. Sessions see it from now on, and are not told: who asked for it knows.
    pub fn add_lun(&self, from: u16, device: Device) -> u16 {
        let number = self.luns.add(from, device);
        self.refresh_views();
        number
    }

    /// Takes a LUN away without telling the sessions. Commands that run on it end as they would have.
    pub fn remove_lun(&self, number: u16) -> Option<Device> {
        let device = self.luns.remove(number);
        self.refresh_views();
        device
    }

    /// Lets `change` add and take away LUNs, then tells every session that sees others than before.
    pub fn change_luns<T>(&self, change: impl FnOnce(&LunMap) -> T) -> T {
        let changed = change(&self.luns);
        tell_inventory_changed(&self.refresh_views());
        changed
    }

    /// Who may use it.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().expect("no holder panics"))
    }

    /// Chooses who may use it. Sessions that may not any more are closed; those that see other LUNs are told.
    pub fn set_access(&self, access: Access) {
        *self.access.write().expect("no holder panics") = Arc::new(access);
        tell_inventory_changed(&self.refresh_views());
    }

    /// Brings what every session sees up to date; gives those that see something else now.
    fn refresh_views(&self) -> Vec<Arc<Nexus>> {
        // Under the lock: a session that enters meanwhile has its view from before or after, and is in the list if from before.
        let sessions = self.sessions();
        let changed = sessions.live.values().filter(|session| match self.show(session) {
            Some(changed) => changed,
            None => {
                let _ = session.messages.send(Message::Close);
                false
            }
        });
        changed.map(|session| Arc::clone(&session.nexus)).collect()
    }

    /// Shows a session the LUNs that are its own, under its own numbers. Whether they are others than before; `None` when it may
    /// not be there at all.
    fn show(&self, session: &SessionHandle) -> Option<bool> {
        let grant = self.access().grant(&session.nexus.initiator, session.user.as_deref()).ok()?;
        let seen: Vec<(u16, Device)> = match &grant.luns {
            LunMask::All => self.luns.all(),
            LunMask::Only(luns) => {
                luns.iter().filter_map(|(number, lun)| Some((*number, self.luns.number(lun.number)?))).collect()
            }
        };
        // Before there is anything to write to.
        session.nexus.luns.shield(seen.iter().map(|(number, _)| *number).filter(|number| grant.is_read_only(*number)).collect());
        Some(session.nexus.luns.replace(seen))
    }

    /// Chooses the portal groups it is reached through; none for all. Sessions go on.
    pub fn set_portal_groups(&self, tags: Vec<u16>) {
        *self.portal_groups.write().expect("no holder panics") = tags;
    }

    /// True when it is reached through portals of this group.
    #[must_use]
    pub fn is_in_group(&self, tag: u16) -> bool {
        let groups = self.portal_groups.read().expect("no holder panics");
        groups.is_empty() || groups.contains(&tag)
    }

    /// Tags of the portal groups that it is reached through, ascending.
    #[must_use]
    pub(super) fn ports(&self) -> Vec<u16> {
        let groups = self.served_by.get().and_then(Weak::upgrade).map(|server| server.portal_groups()).unwrap_or_default();
        groups.into_iter().filter(|tag| self.is_in_group(*tag)).collect()
    }

    /// Notes who serves it.
    pub(super) fn belongs_to(&self, server: &Arc<Server>) {
        let _ = self.served_by.set(Arc::downgrade(server));
    }

    /// Tags of the portal groups it was restricted to; empty for all.
    #[must_use]
    pub fn portal_groups(&self) -> Vec<u16> {
        self.portal_groups.read().expect("no holder panics").clone()
    }

    /// Makes the nexus of a login, once the session it takes the place of has ended: as long as a write of that one may still
    /// land, the new one must not write. RFC 7143 (6.3.5), session reinstatement. `None` when the target was taken out.
    pub(super) async fn enter(
        self: &Arc<Self>,
        logged_in: &LoggedIn,
        portal_group: u16,
        counters: Arc<NexusCounters>,
        messages: mpsc::UnboundedSender<Message>,
    ) -> Option<SessionHandle> {
        let handle = SessionHandle {
            target: Arc::clone(self),
            nexus: Arc::new(Nexus {
                id: Nexus::next_id(),
                target: self.name().to_owned(),
                initiator: logged_in.initiator_name.clone(),
                isid: logged_in.isid,
                portal_group,
                // Filled when it is admitted.
                luns: Arc::default(),
                counters,
                peers: Arc::downgrade(self) as Weak<dyn Peers>,
            }),
            user: logged_in.user.clone(),
            tsih: logged_in.tsih,
            messages,
            ended: CancellationToken::new(),
        };
        let (former, others) = self.admit(&handle)?;
        notice_hang_ups(others).await;
        for session in former {
            debug!(nexus = session.nexus.id, "reinstated by a new session");
            let _ = session.messages.send(Message::Close);
            while tokio::time::timeout(REINSTATEMENT, session.ended.cancelled()).await.is_err() {
                warn!(nexus = session.nexus.id, "a login waits: the session it takes the place of still runs commands");
            }
        }
        handle.nexus.counters.sessions.fetch_add(1, Ordering::Relaxed);
        handle.nexus.counters.live.fetch_add(1, Ordering::Relaxed);
        Some(handle)
    }

    /// Notes a session, and gives those that were there before: of the same I_T nexus, and others of the same initiator.
    fn admit(&self, handle: &SessionHandle) -> Option<(Vec<SessionHandle>, Vec<SessionHandle>)> {
        let port = |nexus: &Nexus| (nexus.initiator.clone(), nexus.isid, nexus.portal_group);
        let mut sessions = self.sessions();
        if sessions.closed {
            return None;
        }
        let new = port(&handle.nexus);
        let same_initiator = sessions.live.values().filter(|other| other.nexus.initiator == handle.nexus.initiator);
        let (former, others): (Vec<_>, Vec<_>) = same_initiator.cloned().partition(|other| port(&other.nexus) == new);
        // Asked before, but several logins may have been let through since.
        self.access().has_room(sessions.live.len() - former.len()).ok()?;
        self.show(handle)?;
        sessions.live.insert(handle.nexus.id, handle.clone());
        Some((former, others))
    }

    /// Sessions but for the one that a login of this initiator port through this portal group takes the place of.
    pub(super) fn sessions_beside(&self, initiator: &str, isid: [u8; 6], portal_group: u16) -> usize {
        let new = (initiator, isid, portal_group);
        let port = |nexus: &'_ Nexus| (nexus.initiator.as_str(), nexus.isid, nexus.portal_group) == new;
        self.sessions().live.values().filter(|session| !port(&session.nexus)).count()
    }

    /// The session that a connection wants to join: of the same I_T nexus, under this TSIH, and proved alike. RFC 7143 (6.3.1).
    pub(super) fn session(&self, logged_in: &LoggedIn, portal_group: u16) -> Option<SessionHandle> {
        let sessions = self.sessions();
        let named = |session: &&SessionHandle| {
            let nexus = &session.nexus;
            (session.tsih, nexus.isid, nexus.portal_group) == (logged_in.tsih, logged_in.isid, portal_group)
                && (&nexus.initiator, &session.user) == (&logged_in.initiator_name, &logged_in.user)
        };
        sessions.live.values().find(named).cloned()
    }

    /// Takes a session out whose commands have all ended, or those that do not belong to the nexus survive.
    pub(super) fn leave(&self, handle: &SessionHandle, survived: bool) {
        for (_, device) in self.luns.all() {
            device.common().nexus_lost(handle.nexus.id);
        }
        handle.nexus.counters.live.fetch_sub(1, Ordering::Relaxed);
        let mut sessions = self.sessions();
        sessions.live.remove(&handle.nexus.id);
        if survived {
            sessions.survived.insert(handle.nexus.id, handle.messages.clone());
        }
        drop(sessions);
        handle.ended.cancel();
    }

    /// The last that survived a session has ended.
    pub(super) fn forget(&self, nexus: u64) {
        self.sessions().survived.remove(&nexus);
    }

    /// Whatever may run commands, by nexus.
    pub(super) fn reachable(&self) -> Vec<(u64, mpsc::UnboundedSender<Message>)> {
        let mut all: Vec<_> = self.handles().into_iter().map(|session| (session.nexus.id, session.messages)).collect();
        all.extend(self.sessions().survived.iter().map(|(nexus, messages)| (*nexus, messages.clone())));
        all
    }

    /// Closes all sessions, and lets none in any more.
    pub(super) fn close(&self) {
        let mut sessions = self.sessions();
        sessions.closed = true;
        sessions.live.values().for_each(|session| drop(session.messages.send(Message::Close)));
    }

    /// Waits until no session is there.
    pub async fn is_left(&self) {
        for session in self.handles() {
            session.ended.cancelled().await;
        }
    }

    /// How many sessions are logged in.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions().live.len()
    }

    /// Sessions that are logged in.
    pub(super) fn handles(&self) -> Vec<SessionHandle> {
        self.sessions().live.values().cloned().collect()
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().expect("no holder panics")
    }
}

/// Has sessions see whether their initiator has hung up, and waits for the end of those: it knows that they are gone, and counts on
/// what goes with them, as a PREVENT ALLOW MEDIUM REMOVAL. The runtime may tell of its next login before it tells of their end.
async fn notice_hang_ups(sessions: Vec<SessionHandle>) {
    let ask = |session: SessionHandle| {
        let (asked, noticed) = oneshot::channel();
        let _ = session.messages.send(Message::Notice(asked));
        noticed
    };
    let asked: Vec<_> = sessions.into_iter().map(ask).collect();
    let all = async {
        for noticed in asked {
            let _ = noticed.await;
        }
    };
    if tokio::time::timeout(HANG_UPS, all).await.is_err() {
        debug!("a session of the same initiator is too busy to say whether it has ended");
    }
}

/// SPC-4, "REPORTED LUNS DATA HAS CHANGED": to be heard from any logical unit.
fn tell_inventory_changed(nexuses: &[Arc<Nexus>]) {
    for nexus in nexuses {
        for (_, device) in nexus.luns.all() {
            device.common().attentions.establish(nexus.id, &Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
        }
    }
}
