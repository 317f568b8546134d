//! Task management: which tasks a function hits, in this session and in others, and when it is done.
//!
//! A function is answered when no task it hit is running any more, and no such task is answered at all: what TAS=0 in the control
//! mode page promises. SAM-5, "Task management functions"; RFC 7143 (4.2.3.3) on several sessions.

use std::pin::Pin;
use std::sync::Arc;

use protocol::iscsi::{TaskManagementFunction as Function, TaskManagementResponse as Outcome};
use protocol::scsi::{LunAddress, Sense, SenseKey};
use tokio::sync::{mpsc, oneshot};

use super::Target;
use super::wire::Guest;
use crate::lun::Device;
use crate::nexus::{Nexus, Peers};
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
    /// The turn of a command in its task set has come.
    Begin(u64),
    /// What a write in pieces waited for is done: of the command with this tag, or of one that had it before.
    Writable(u32),
    /// A connection has logged in to this session.
    Join(Box<Guest>),
    /// End the session: another takes its place, or the target was reset.
    Close,
    /// See whether the initiator has hung up, and drop this when it has not, or when the session has ended.
    Notice(oneshot::Sender<()>),
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
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// The one with this tag.
    Tag(u32),
    /// Those of one logical unit, whatever number a nexus knows it by.
    Unit(Device),
    /// All.
    Target,
}

impl Scope {
    /// `unit` tells the logical unit of the task, where it has one.
    pub fn hits(&self, tag: u32, unit: impl FnOnce() -> Option<Device>) -> bool {
        match self {
            Self::Tag(one) => *one == tag,
            Self::Unit(one) => unit().is_some_and(|unit| std::ptr::eq(unit.common(), one.common())),
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
#[derive(Debug)]
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
    /// What a function asks for, in the view that a nexus has of the target.
    pub(super) fn plan(nexus: &Nexus, function: Function, lun: LunAddress, referenced: u32) -> Plan {
        let on_unit = |plan: fn(Scope) -> Plan| match nexus.luns.get(lun) {
            Some(unit) => plan(Scope::Unit(unit)),
            None => Plan::Refused(Outcome::LunDoesNotExist),
        };
        match function {
            Function::AbortTask => Plan::Own(Scope::Tag(referenced)),
            Function::AbortTaskSet => on_unit(Plan::Own),
            Function::ClearTaskSet => on_unit(|unit| Plan::Everyone(unit, Reset::None)),
            Function::LogicalUnitReset => on_unit(|unit| Plan::Everyone(unit, Reset::LogicalUnit)),
            Function::TargetWarmReset => Plan::Everyone(Scope::Target, Reset::Warm),
            Function::TargetColdReset => Plan::Everyone(Scope::Target, Reset::Cold),
            Function::ClearAca => Plan::Refused(Outcome::FunctionNotSupported),
            Function::TaskReassign => Plan::Refused(Outcome::TaskAllegianceReassignmentNotSupported),
        }
    }

    /// Aborts in all sessions but `own`, which has done so itself, waits for all, and resets what is to be reset.
    pub(super) async fn clear(self: Arc<Self>, own: u64, scope: Scope, reset: Reset, own_done: oneshot::Receiver<Aborted>) {
        let others: Vec<_> = self.reachable().into_iter().filter(|(nexus, _)| *nexus != own).collect();
        let asked: Vec<_> = others.iter().map(|(nexus, messages)| (*nexus, ask_to_abort(messages, &scope))).collect();
        let _ = own_done.await;
        for (nexus, aborted) in asked {
            // A session that ends meanwhile has ended its tasks.
            if let (Ok(Aborted(1..)), Reset::None, Scope::Unit(unit)) = (aborted.await, reset, &scope) {
                unit.common().attentions.establish(nexus, &COMMANDS_CLEARED);
            }
        }
        for device in self.reset_units(reset, &scope) {
            if let Some(copy) = &device.common().copy {
                copy.abort_background(&device, None).await;
            }
        }
        match (reset, &scope) {
            (Reset::LogicalUnit, Scope::Unit(unit)) => unit.common().reset(),
            (Reset::Warm | Reset::Cold, _) => self.luns().all().iter().for_each(|(_, device)| device.common().reset()),
            _ => {}
        }
        if reset == Reset::Cold {
            others.iter().for_each(|(_, messages)| drop(messages.send(Message::Close)));
        }
    }

    /// The logical units that a reset goes to.
    fn reset_units(&self, reset: Reset, scope: &Scope) -> Vec<Device> {
        match (reset, scope) {
            (Reset::LogicalUnit, Scope::Unit(unit)) => vec![unit.clone()],
            (Reset::Warm | Reset::Cold, _) => self.luns().all().into_iter().map(|(_, device)| device).collect(),
            _ => Vec::new(),
        }
    }
}

impl Peers for Target {
    fn target_ports(&self) -> Vec<u16> {
        self.ports()
    }

    fn abort(self: Arc<Self>, nexuses: Vec<u64>, unit: Device) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let copies = unit.common().copy.as_ref().map(|copy| copy.abort_background(&unit, Some(&nexuses)));
        let hit = self.reachable().into_iter().filter(|(nexus, _)| nexuses.contains(nexus));
        let asked: Vec<_> = hit.map(|(_, messages)| ask_to_abort(&messages, &Scope::Unit(unit.clone()))).collect();
        Box::pin(async move {
            for aborted in asked {
                // A session that ends meanwhile has ended its tasks.
                let _ = aborted.await;
            }
            if let Some(copies) = copies {
                copies.await;
            }
        })
    }
}

fn ask_to_abort(messages: &mpsc::UnboundedSender<Message>, scope: &Scope) -> oneshot::Receiver<Aborted> {
    let (done, aborted) = oneshot::channel();
    let _ = messages.send(Message::Abort(scope.clone(), done));
    aborted
}
