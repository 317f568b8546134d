//! The registrations and the persistent reservation of one logical unit: what every PERSISTENT RESERVE OUT makes of them.
//!
//! A value that is changed as a whole: no lock, no file, no clock; who is told what comes back as data. Follows SPC-4, "Persistent
//! reservations": registering, reserving, releasing, unregistering, preempting, clearing, registering and moving.

use protocol::scsi::conflict::{Passes, Rule};
use protocol::scsi::reservation::{FullStatus, MoveDestination, ReservationType, ReserveOut, ReserveOutAction};
use protocol::scsi::transport_id::TransportId;
use protocol::scsi::{FieldPointer, Sense, Status};
use serde::{Deserialize, Serialize};

use crate::nexus::{Nexus, NexusName};
use crate::task::Response;

/// Registrations of one logical unit. More are refused: INSUFFICIENT REGISTRATION RESOURCES.
const REGISTRATIONS_MAX: usize = 1024;

/// All of it. What is kept through a power loss is what is serialized: PRGENERATION begins anew. SPC-4, "READ KEYS".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    #[serde(skip)]
    generation: u32,
    /// The last valid APTPL.
    persists: bool,
    /// In the order of registration; a nexus stands here once.
    registrations: Vec<Registration>,
    reservation: Option<Reservation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registration {
    nexus: NexusName,
    key: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reservation {
    kind: ReservationType,
    /// `None` where all registrants hold it.
    holder: Option<NexusName>,
}

/// What a change means to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Unit attentions to establish.
    pub attentions: Vec<(NexusName, Sense)>,
    /// Nexuses that lost their registration to another: PREEMPT AND ABORT ends their commands.
    pub preempted: Vec<NexusName>,
}

/// What the logical unit knows of its surroundings.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Relative target port identifiers of the target device.
    pub target_ports: &'a [u16],
    /// Nexuses that have spoken to the logical unit.
    pub known: &'a [NexusName],
}

type Change = Result<Effects, Response>;

fn conflict<T>() -> Result<T, Response> {
    Err(Response::status(Status::ReservationConflict))
}

fn invalid_parameter<T>(byte: u16) -> Result<T, Response> {
    Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(byte)).into())
}

impl Registry {
    /// True when it is to survive a power loss.
    pub fn persists(&self) -> bool {
        self.persists
    }

    /// True while a persistent reservation holds.
    pub fn is_reserved(&self) -> bool {
        self.reservation.is_some()
    }

    /// True when some nexus is registered.
    pub fn is_registered_by_any(&self) -> bool {
        !self.registrations.is_empty()
    }

    /// PRGENERATION.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.registrations.iter().map(|registration| registration.key)
    }

    /// Key and type of the reservation; the key is zero where all registrants hold it.
    pub fn reservation(&self) -> Option<(u64, ReservationType)> {
        let reservation = self.reservation.as_ref()?;
        let key = reservation.holder.as_ref().and_then(|holder| self.key_of(holder)).unwrap_or(0);
        Some((key, reservation.kind))
    }

    /// Every registration in full.
    pub fn full_status(&self) -> Vec<FullStatus> {
        let status = |registration: &Registration| FullStatus {
            key: registration.key,
            holds: self.reservation.as_ref().filter(|_| self.holds(&registration.nexus)).map(|reservation| reservation.kind),
            target_port: registration.nexus.target_port,
            port: registration.nexus.port.clone(),
        };
        self.registrations.iter().map(status).collect()
    }

    /// True when the reservation lets a command of `nexus` through.
    pub fn admits(&self, nexus: &Nexus, rule: Rule) -> bool {
        let Some(reservation) = &self.reservation else { return true };
        if rule.persistent == Passes::Always || (rule.persistent == Passes::Readers && reservation.kind.admits_readers()) {
            return true;
        }
        self.is_privileged(nexus)
    }

    /// True for a nexus to which the reservation gives full access: its holder, or a registered one where the type admits those.
    pub fn is_privileged(&self, nexus: &Nexus) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| match &reservation.holder {
            Some(holder) if !reservation.kind.admits_registrants() => holder.names(nexus),
            _ => self.registrations.iter().any(|registration| registration.nexus.names(nexus)),
        })
    }

    /// Carries out what a nexus asks for. On a refusal nothing has changed.
    pub fn apply(&mut self, from: &NexusName, out: &ReserveOut, around: Surroundings<'_>) -> Change {
        let own = self.key_of(from);
        match out.action {
            ReserveOutAction::Register if own.unwrap_or(0) != out.key => conflict(),
            ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnoreExistingKey => {
                self.register(from, own.is_some(), out, around)
            }
            _ if own != Some(out.key) => conflict(),
            ReserveOutAction::Reserve => self.reserve(from, out),
            ReserveOutAction::Release => self.release(from, out),
            ReserveOutAction::Clear => Ok(self.clear(from)),
            ReserveOutAction::Preempt | ReserveOutAction::PreemptAndAbort => self.preempt(from, out),
            ReserveOutAction::RegisterAndMove => self.register_and_move(from, out, around),
        }
    }

    fn register(&mut self, from: &NexusName, registered: bool, out: &ReserveOut, around: Surroundings<'_>) -> Change {
        if registered && out.specifies_others {
            return invalid_parameter(20);
        }
        if !registered && out.action_key == 0 {
            return Ok(Effects::default());
        }
        let mut nexuses = at_ports(from, out.all_target_ports, around.target_ports);
        let own = nexuses.len();
        for other in &out.others {
            for nexus in named(other, from, around.known) {
                nexuses.extend(at_ports(&nexus, out.all_target_ports, around.target_ports));
            }
        }
        if nexuses[own..].iter().any(|nexus| self.key_of(nexus).is_some()) {
            return invalid_parameter(28);
        }
        let more = nexuses.iter().filter(|nexus| self.key_of(nexus).is_none()).count();
        if self.registrations.len() + more > REGISTRATIONS_MAX {
            return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES.into());
        }
        self.generation = self.generation.wrapping_add(1);
        self.persists = out.persist;
        let mut effects = Effects::default();
        for nexus in nexuses {
            match out.action_key {
                0 => effects.attentions.extend(self.unregister(&nexus)),
                key => self.set_key(nexus, key),
            }
        }
        Ok(effects)
    }

    fn set_key(&mut self, nexus: NexusName, key: u64) {
        match self.registrations.iter_mut().find(|registration| registration.nexus == nexus) {
            Some(registration) => registration.key = key,
            None => self.registrations.push(Registration { nexus, key }),
        }
    }

    /// Takes a registration out, and the reservation with it where it hangs on that. Gives who is to be told of a release.
    fn unregister(&mut self, nexus: &NexusName) -> Vec<(NexusName, Sense)> {
        let held = self.reservation.as_ref().is_some_and(|reservation| reservation.holder.as_ref() == Some(nexus));
        self.registrations.retain(|registration| registration.nexus != *nexus);
        if !held && !self.registrations.is_empty() {
            return Vec::new();
        }
        match self.reservation.take() {
            Some(reservation) if reservation.kind.admits_registrants() => self.tell_others(nexus, &Sense::RESERVATIONS_RELEASED),
            _ => Vec::new(),
        }
    }

    fn reserve(&mut self, from: &NexusName, out: &ReserveOut) -> Change {
        let Some(kind) = out.kind else { return conflict() };
        match &self.reservation {
            None => self.reservation = Some(Reservation::new(kind, from)),
            Some(reservation) if reservation.kind == kind && self.holds(from) => {}
            Some(_) => return conflict(),
        }
        Ok(Effects::default())
    }

    fn release(&mut self, from: &NexusName, out: &ReserveOut) -> Change {
        let Some(reservation) = self.reservation.as_ref().filter(|_| self.holds(from)) else { return Ok(Effects::default()) };
        if out.kind != Some(reservation.kind) {
            return Err(Sense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION.into());
        }
        let told = reservation.kind.admits_registrants();
        self.reservation = None;
        let attentions = if told { self.tell_others(from, &Sense::RESERVATIONS_RELEASED) } else { Vec::new() };
        Ok(Effects { attentions, ..Effects::default() })
    }

    fn clear(&mut self, from: &NexusName) -> Effects {
        let attentions = self.tell_others(from, &Sense::RESERVATIONS_PREEMPTED);
        self.generation = self.generation.wrapping_add(1);
        self.reservation = None;
        self.registrations.clear();
        Effects { attentions, ..Effects::default() }
    }

    fn preempt(&mut self, from: &NexusName, out: &ReserveOut) -> Change {
        let held_by_all = self.reservation.as_ref().is_some_and(|reservation| reservation.holder.is_none());
        let holder_key = match self.reservation() {
            Some((key, _)) if !held_by_all => Some(key),
            _ => None,
        };
        match out.action_key {
            0 if held_by_all => Ok(self.replace_reservation(from, out, |_| true)),
            0 if self.reservation.is_some() => invalid_parameter(8),
            key if holder_key == Some(key) => Ok(self.replace_reservation(from, out, |registration| registration.key == key)),
            key if self.keys().any(|registered| registered == key) => Ok(self.remove_registrations(from, key)),
            _ => conflict(),
        }
    }

    /// Preempts the reservation, and the registrations that `lost` chooses but the preempting one.
    fn replace_reservation(&mut self, from: &NexusName, out: &ReserveOut, lost: impl Fn(&Registration) -> bool) -> Effects {
        let preempted = self.take_registrations(|registration| registration.nexus != *from && lost(registration));
        let kind = out.kind.expect("PREEMPT has a type");
        let before = self.reservation.replace(Reservation::new(kind, from));
        let mut attentions = told(&preempted, &Sense::REGISTRATIONS_PREEMPTED);
        if before.is_some_and(|before| before.kind != kind) {
            attentions.extend(self.tell_others(from, &Sense::RESERVATIONS_RELEASED));
        }
        self.generation = self.generation.wrapping_add(1);
        Effects { attentions, preempted }
    }

    /// Removes all registrations of a key that holds no reservation alone, the preempting nexus's own among them.
    fn remove_registrations(&mut self, from: &NexusName, key: u64) -> Effects {
        let mut preempted = self.take_registrations(|registration| registration.key == key);
        preempted.retain(|nexus| nexus != from);
        if self.registrations.is_empty() {
            self.reservation = None;
        }
        self.generation = self.generation.wrapping_add(1);
        Effects { attentions: told(&preempted, &Sense::REGISTRATIONS_PREEMPTED), preempted }
    }

    fn register_and_move(&mut self, from: &NexusName, out: &ReserveOut, around: Surroundings<'_>) -> Change {
        let Some(MoveDestination { port, target_port, unregister }) = out.destination.clone() else { return conflict() };
        let Some(reservation) = &self.reservation else {
            return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4)).into());
        };
        if reservation.holder.as_ref() != Some(from) {
            return conflict();
        }
        if out.action_key == 0 {
            return invalid_parameter(8);
        }
        if !around.target_ports.contains(&target_port) {
            return invalid_parameter(18);
        }
        if port == from.port {
            return invalid_parameter(24);
        }
        let kind = reservation.kind;
        let to = NexusName { port, target_port };
        if self.key_of(&to).is_none() && self.registrations.len() >= REGISTRATIONS_MAX {
            return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES.into());
        }
        self.generation = self.generation.wrapping_add(1);
        self.persists = out.persist;
        self.set_key(to.clone(), out.action_key);
        self.reservation = Some(Reservation::new(kind, &to));
        let attentions = if unregister { self.unregister(from) } else { Vec::new() };
        Ok(Effects { attentions, ..Effects::default() })
    }

    fn key_of(&self, nexus: &NexusName) -> Option<u64> {
        self.registrations.iter().find(|registration| registration.nexus == *nexus).map(|registration| registration.key)
    }

    /// True for a holder of the reservation; where all registrants are, for every one of them.
    fn holds(&self, nexus: &NexusName) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| match &reservation.holder {
            Some(holder) => holder == nexus,
            None => self.key_of(nexus).is_some(),
        })
    }

    fn take_registrations(&mut self, lost: impl Fn(&Registration) -> bool) -> Vec<NexusName> {
        self.registrations.extract_if(.., |registration| lost(registration)).map(|registration| registration.nexus).collect()
    }

    fn tell_others(&self, but: &NexusName, condition: &Sense) -> Vec<(NexusName, Sense)> {
        let others = self.registrations.iter().map(|registration| &registration.nexus).filter(|nexus| *nexus != but);
        others.map(|nexus| (nexus.clone(), condition.clone())).collect()
    }
}

impl Reservation {
    fn new(kind: ReservationType, by: &NexusName) -> Self {
        Self { kind, holder: (!kind.is_all_registrants()).then(|| by.clone()) }
    }
}

fn told(nexuses: &[NexusName], condition: &Sense) -> Vec<(NexusName, Sense)> {
    nexuses.iter().map(|nexus| (nexus.clone(), condition.clone())).collect()
}

/// The nexus, or the nexuses of its initiator port with all target ports.
fn at_ports(nexus: &NexusName, all: bool, target_ports: &[u16]) -> Vec<NexusName> {
    let others = target_ports.iter().filter(|port| all && **port != nexus.target_port);
    let others = others.map(|port| NexusName { target_port: *port, ..nexus.clone() });
    std::iter::once(nexus.clone()).chain(others).collect()
}

/// The nexuses that a TransportID means, at the target port of `from`: one port, or all known ports of an initiator but the own one.
fn named(id: &TransportId, from: &NexusName, known: &[NexusName]) -> Vec<NexusName> {
    let at = |port| NexusName { port, target_port: from.target_port };
    match id {
        TransportId::Port(port) => vec![at(port.clone())],
        TransportId::Device(name) => {
            let mut ports: Vec<_> =
                known.iter().filter(|nexus| nexus.port.name == *name).map(|nexus| nexus.port.clone()).collect();
            ports.sort();
            ports.dedup();
            ports.into_iter().filter(|port| *port != from.port).map(at).collect()
        }
    }
}
