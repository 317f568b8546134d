//! Task management: which tasks a function hits, in this session and in others, and when it is done.
//!
//! A function is answered when no task it hit is running any more, and no such task is answered at all: what TAS=0 in the control
//! mode page promises. SAM-5, "Task management functions"; RFC 7143 (4.2.3.3) on several sessions.

use std::pin::Pin;
use std::sync::Arc;

use protocol::iscsi::{TaskManagementFunction as Function, TaskManagementResponse as Outcome};
use protocol::scsi::{LunAddress, Sense, SenseKey};
use tokio::sync::oneshot;

use super::Target;
use crate::nexus::Peers;
use crate::task::Response;

/// What reaches a connection from elsewhere in the target.
#[derive(Debug)]
pub(super) enum Message {
    /// Commands have ended.
    Finished(Vec<Finished>),
    /// Abort, and say when nothing that was hit runs any more.
    Abort(Scope, oneshot::Sender<Aborted>),
    /// A task management function has ended.
    Managed { tag: u32, outcome: Outcome, cold_reset: bool },
    /// End the session: another takes its place, or the target was reset.
    Close,
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// The connection's own number for it: a task tag may be in use again by now.
    pub run: u64,
    /// `None` when it was aborted before it began.
    pub response: Option<Response>,
}

/// Which tasks of a session are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The one with this tag.
    Tag(u32),
    /// Those of one logical unit.
    Lun(LunAddress),
    /// All.
    Target,
}

impl Scope {
    pub fn hits(self, tag: u32, lun: LunAddress) -> bool {
        match self {
            Self::Tag(one) => one == tag,
            Self::Lun(one) => one == lun,
            Self::Target => true,
        }
    }
}

/// How many tasks an abort hit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aborted(pub usize);

/// COMMANDS CLEARED BY ANOTHER INITIATOR. SAM-5, CLEAR TASK SET.
const COMMANDS_CLEARED: Sense = Sense::new(SenseKey::UnitAttention, 0x2F, 0x00);

/// A function as it is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Answered at once.
    Refused(Outcome),
    /// Aborts tasks of the asking session only.
    Own(Scope),
    /// Aborts tasks of all sessions.
    Everyone(Scope, Reset),
}

/// What follows when the tasks of all sessions are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// Nothing: other nexuses whose tasks were hit are told so.
    None,
    /// The logical unit is as after power on, but for what it keeps.
    LogicalUnit,
    /// All logical units.
    Warm,
    /// And all sessions end.
    Cold,
}

impl Target {
    /// What a function asks for.
    pub(super) fn plan(&self, function: Function, lun: LunAddress, referenced: u32) -> Plan {
        let on_lun = |plan| if self.luns().get(lun).is_some() { plan } else { Plan::Refused(Outcome::LunDoesNotExist) };
        match function {
            Function::AbortTask => Plan::Own(Scope::Tag(referenced)),
            Function::AbortTaskSet => on_lun(Plan::Own(Scope::Lun(lun))),
            Function::ClearTaskSet => on_lun(Plan::Everyone(Scope::Lun(lun), Reset::None)),
            Function::LogicalUnitReset => on_lun(Plan::Everyone(Scope::Lun(lun), Reset::LogicalUnit)),
            Function::TargetWarmReset => Plan::Everyone(Scope::Target, Reset::Warm),
            Function::TargetColdReset => Plan::Everyone(Scope::Target, Reset::Cold),
            Function::ClearAca => Plan::Refused(Outcome::FunctionNotSupported),
            Function::TaskReassign => Plan::Refused(Outcome::TaskAllegianceReassignmentNotSupported),
        }
    }

    /// Aborts in all sessions but `own`, which has done so itself, waits for all, and resets what is to be reset.
    pub(super) async fn clear(self: Arc<Self>, own: u64, scope: Scope, reset: Reset, own_done: oneshot::Receiver<Aborted>) {
        let others: Vec<_> = self.handles().into_iter().filter(|session| session.nexus.id != own).collect();
        let asked: Vec<_> = others
            .iter()
            .map(|session| {
                let (done, aborted) = oneshot::channel();
                let _ = session.messages.send(Message::Abort(scope, done));
                (session.nexus.id, aborted)
            })
            .collect();
        let _ = own_done.await;
        for (nexus, aborted) in asked {
            // A session that ends meanwhile has ended its tasks.
            if matches!(aborted.await, Ok(Aborted(hit)) if hit > 0) && reset == Reset::None {
                self.tell_cleared(nexus, scope);
            }
        }
        match (reset, scope) {
            (Reset::LogicalUnit, Scope::Lun(lun)) => {
                if let Some(device) = self.luns().get(lun) {
                    device.common().reset();
                }
            }
            (Reset::Warm | Reset::Cold, _) => self.luns().all().iter().for_each(|(_, device)| device.common().reset()),
            _ => {}
        }
        if reset == Reset::Cold {
            others.iter().for_each(|session| drop(session.messages.send(Message::Close)));
        }
    }

    fn tell_cleared(&self, nexus: u64, scope: Scope) {
        if let Scope::Lun(lun) = scope
            && let Some(device) = self.luns().get(lun)
        {
            device.common().attentions.establish(nexus, COMMANDS_CLEARED);
        }
    }
}

impl Peers for Target {
    fn target_ports(&self) -> Vec<u16> {
        self.portal_groups()
    }

    fn abort(self: Arc<Self>, nexuses: Vec<u64>, lun: LunAddress) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let hit = self.handles().into_iter().filter(|session| nexuses.contains(&session.nexus.id));
        let asked: Vec<_> = hit
            .map(|session| {
                let (done, aborted) = oneshot::channel();
                let _ = session.messages.send(Message::Abort(Scope::Lun(lun), done));
                aborted
            })
            .collect();
        Box::pin(async move {
            for aborted in asked {
                // A session that ends meanwhile has ended its tasks.
                let _ = aborted.await;
            }
        })
    }
}
