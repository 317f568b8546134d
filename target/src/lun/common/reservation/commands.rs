//! PERSISTENT RESERVE IN and OUT, RESERVE(6) and (10), RELEASE(6) and (10), as every device type answers them.
//!
//! Follows SPC-4 for the persistent ones and SPC-2 for the others, with SPC-4, "Exceptions to SPC-2 RESERVE and RELEASE behavior".

use std::sync::Arc;

use protocol::scsi::reservation::{ReserveOut, read_full_status, read_keys, read_reservation, report_capabilities};
use protocol::scsi::{Sense, Status, spc};
use tokio::task::spawn_blocking;

use super::{Effects, Surroundings};
use crate::lun::common::{LogicalUnit, Reply, ReplyFuture, data_in, parameter_list};
use crate::task::{Response, Task};

/// Reserving what one holds already succeeds. A nexus to which a persistent reservation gives full access anyway gets GOOD, and no
/// reservation.
pub fn reserve<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let reservations = &device.common().reservation;
    let registry = reservations.registry();
    let taken = match registry.is_registered_by_any() {
        true => registry.is_privileged(&task.nexus),
        false => reservations.take(task.nexus.id),
    };
    Ok(if taken { Response::good() } else { Response::status(Status::ReservationConflict) })
}

/// Without effect, and no error, for a nexus that does not hold it.
pub fn release<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let reservations = &device.common().reservation;
    let registry = reservations.registry();
    if registry.is_registered_by_any() && !registry.is_privileged(&task.nexus) {
        return Ok(Response::status(Status::ReservationConflict));
    }
    reservations.nexus_lost(task.nexus.id);
    Ok(Response::good())
}

pub fn persistent_reserve_in<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let cdb: spc::PersistentReserveInCdb = task.cdb.read();
    let reservations = &device.common().reservation;
    let registry = reservations.registry();
    let generation = registry.generation();
    let data = match u16::from(task.cdb.basic()[1] & 0x1F) {
        action if Some(action) == spc::READ_KEYS.service_action => read_keys(generation, registry.keys()),
        action if Some(action) == spc::READ_RESERVATION.service_action => read_reservation(generation, registry.reservation()),
        action if Some(action) == spc::READ_FULL_STATUS.service_action => read_full_status(generation, &registry.full_status()),
        _ => report_capabilities(reservations.can_persist(), registry.persists()).to_vec(),
    };
    Ok(data_in(data, cdb.allocation_length.get()))
}

/// Saves what is to survive a power loss before it answers.
pub fn persistent_reserve_out<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    Ok(match change(device, task)? {
        Ok(_) => Response::good(),
        Err(refusal) => refusal,
    })
}

/// PREEMPT AND ABORT: the commands of the preempted nexuses have ended when it answers.
pub fn persistent_reserve_out_and_abort<D: LogicalUnit>(device: Arc<D>, task: Task) -> ReplyFuture {
    Box::pin(async move {
        let (nexus, unit) = (Arc::clone(&task.nexus), task.nexus.luns.get(task.lun));
        let changing = Arc::clone(&device);
        let changed = spawn_blocking(move || change(&*changing, &task)).await.map_err(|_| Sense::INTERNAL_TARGET_FAILURE)?;
        let effects = match changed? {
            Ok(effects) => effects,
            Err(refusal) => return Ok(refusal),
        };
        let preempted =
            device.common().attentions.known_nexuses().into_iter().filter(|(_, name)| effects.preempted.contains(name));
        let preempted: Vec<u64> = preempted.map(|(id, _)| id).collect();
        preempted.iter().for_each(|id| device.common().removal.allow(*id));
        if let (Some(peers), Some(unit)) = (nexus.peers.upgrade(), unit) {
            peers.abort(preempted, unit).await;
        }
        Ok(Response::good())
    })
}

/// The inner error is a refusal with another status than CHECK CONDITION, or with it.
fn change<D: LogicalUnit>(device: &D, task: &Task) -> Result<Result<Effects, Response>, Sense> {
    let cdb: spc::PersistentReserveOutCdb = task.cdb.read();
    let list = parameter_list(task, cdb.parameter_list_length.get() as usize)?;
    let out = ReserveOut::parse(&task.cdb, &list)?;
    let common = device.common();
    // SPC-2: RESERVE and PERSISTENT RESERVE OUT exclude each other, whoever sends them.
    if common.reservation.holder().is_some() {
        return Ok(Err(Response::status(Status::ReservationConflict)));
    }
    let known: Vec<_> = common.attentions.known_nexuses().into_iter().map(|(_, name)| name).collect();
    let target_ports = task.nexus.target_ports();
    let around = Surroundings { target_ports: &target_ports, known: &known };
    let changed = common.reservation.change(&task.nexus.name(), &out, around);
    if let Ok(effects) = &changed {
        effects.attentions.iter().for_each(|(name, condition)| common.attentions.establish_by_name(name, condition));
    }
    Ok(changed)
}
