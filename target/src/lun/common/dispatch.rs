//! From a CDB to its handler: unit attentions, the command's row, reservations, the reserved-bit check, the handler.
//!
//! The order of refusals is that of SAM-5, "Status precedence": unit attention, then RESERVATION CONFLICT, then all other
//! CHECK CONDITIONs. Nothing here blocks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use protocol::scsi::conflict::Rule;
use protocol::scsi::{CommandSpec, DeviceType, FieldPointer, Sense, SenseFormat};
use tracing::debug;

use super::spc::{Shared, is_third_party_copy};
use super::turns::{Turn, Turns};
use super::{Lasting, LogicalUnit, background, shield};
use crate::task::{Execution, Job, Response, Task};

/// What a handler comes to: a response, or the sense data of a CHECK CONDITION.
pub type Reply = Result<Response, Sense>;

/// A handler that waits without a thread.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A command that a device type serves.
#[derive(Debug)]
pub struct Command<D> {
    /// All that can be said about it without running it.
    pub spec: &'static CommandSpec,
    /// What carries it out.
    pub run: Run<D>,
}

/// How a command is carried out.
#[derive(Debug)]
pub enum Run<D> {
    /// At once; must not block.
    Inline(fn(&D, &Task) -> Reply),
    /// On a thread that may block.
    Blocking(fn(&D, &Task) -> Reply),
    /// On a thread of its own, since it may block for long: it moves or synchronizes a medium.
    Alone(fn(&D, &Task) -> Reply),
    /// As [`Run::Alone`], and on after its status where IMMED says so.
    Lasting(fn(&D, &Task) -> Result<Lasting<D>, Sense>),
    /// Waits for something other than a file: a hold, a mover. Has to watch [`Task::abort`].
    Async(fn(Arc<D>, Task) -> ReplyFuture),
    /// Decides by itself, without blocking.
    Start(fn(&Arc<D>, Task) -> Execution),
}

/// Begins a command on `device`; never blocks.
#[must_use]
pub fn dispatch<D: LogicalUnit>(device: &Arc<D>, task: Task) -> Execution {
    // Taken before anything is decided, so that commands meet the medium in the order in which they came.
    let turn = device.turns().map(Turns::take);
    let execution = match choose(&**device, &task) {
        Ok(command) => start(command, device, task, turn),
        Err(refusal) => Execution::Done(refusal),
    };
    match device.common().sense_format() {
        SenseFormat::Fixed => execution,
        format => formatted(execution, format),
    }
}

/// The command to run, or why not.
fn choose<D: LogicalUnit>(device: &D, task: &Task) -> Result<&'static Command<D>, Response> {
    let common = device.common();
    common.attentions.know(&task.nexus);
    if !passes_attentions(task.cdb.opcode())
        && let Some(condition) = common.attentions.take(task.nexus.id)
    {
        return Err(condition.into());
    }
    admitted(device, task)
}

/// The row of a command that would be carried out now; `None` when the device has anything else to say to it. Nothing is taken by it.
pub fn begins<D: LogicalUnit>(device: &D, task: &Task) -> Option<&'static CommandSpec> {
    let attentions = &device.common().attentions;
    attentions.know(&task.nexus);
    if attentions.has(task.nexus.id) {
        return None;
    }
    admitted(device, task).ok().map(|command| command.spec)
}

/// Looks again at a command that goes on for long: what has come up meanwhile stops it, but for unit attentions.
///
/// # Errors
/// What the command is to be answered with.
pub fn admits<D: LogicalUnit>(device: &D, task: &Task) -> Result<(), Response> {
    admitted(device, task).map(|_| ())
}

/// As [`choose`], with unit attentions left alone.
fn admitted<D: LogicalUnit>(device: &D, task: &Task) -> Result<&'static Command<D>, Response> {
    let common = device.common();
    let command = find::<D>(device, task).inspect_err(|sense| debug!(cdb = ?task.cdb, lun = ?task.lun, %sense, "refused"))?;
    common.reservation.admit(&task.nexus, || Rule::of(&task.cdb, D::DEVICE_TYPE != DeviceType::Disk))?;
    device.admit(task, command.spec)?;
    if let Some(bit) = command.spec.refused_bit(&task.cdb) {
        let sense = Sense::INVALID_FIELD_IN_CDB.at(bit);
        debug!(command = command.spec.name, cdb = ?task.cdb, %sense, "refused");
        return Err(sense.into());
    }
    shield::admit(task, command.spec, D::DEVICE_TYPE)?;
    Ok(command)
}

/// Carries out a command of those that do not wait, for a copy that acts for the task's nexus: no unit attention is taken by it.
pub fn answer_at_once<D: LogicalUnit>(device: &D, task: &Task) -> Response {
    match admitted(device, task) {
        Ok(Command { spec, run: Run::Inline(run) }) => answer(spec, run(device, task)),
        Ok(_) => Sense::INTERNAL_TARGET_FAILURE.into(),
        Err(refusal) => refusal,
    }
}

fn find<D: LogicalUnit>(device: &D, task: &Task) -> Result<&'static Command<D>, Sense> {
    let opcode = task.cdb.opcode();
    let mut alike = commands(device).filter(|command| command.spec.opcode == opcode).peekable();
    if alike.peek().is_none() {
        return Err(Sense::INVALID_COMMAND_OPERATION_CODE.at(FieldPointer::cdb(0)));
    }
    alike.find(|command| command.spec.matches(&task.cdb)).ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4)))
}

/// All commands of a device: its own, then those common ones that it does not bring itself.
pub(super) fn commands<D: LogicalUnit>(device: &D) -> impl Iterator<Item = &'static Command<D>> {
    let copies = device.common().copy.is_some();
    let shared = Shared::<D>::COMMANDS.iter().filter(|shared| !D::COMMANDS.iter().any(|own| same(own.spec, shared.spec)));
    let own = D::COMMANDS.iter().filter(|command| device.serves(command.spec));
    own.chain(shared).filter(move |command| copies || !is_third_party_copy(command.spec.opcode))
}

fn same(a: &CommandSpec, b: &CommandSpec) -> bool {
    (a.opcode, a.service_action) == (b.opcode, b.service_action)
}

fn start<D: LogicalUnit>(command: &'static Command<D>, device: &Arc<D>, task: Task, turn: Option<Turn>) -> Execution {
    let abort = task.abort.clone();
    let thread = |how: fn(Job) -> Execution, job: Job| match turn {
        Some(turn) => turn.run(abort, how, job),
        None => how(job),
    };
    match command.run {
        Run::Inline(run) => Execution::Done(answer(command.spec, run(device, &task))),
        Run::Blocking(run) => {
            let device = Arc::clone(device);
            thread(Execution::Blocking, Box::new(move || answer(command.spec, run(&device, &task))))
        }
        Run::Alone(run) => {
            let device = Arc::clone(device);
            thread(Execution::Alone, Box::new(move || answer(command.spec, run(&device, &task))))
        }
        Run::Lasting(plan) => match plan(device, &task) {
            Ok(work) => {
                let (device, nexus) = (Arc::clone(device), task.nexus.id);
                let job = move || answer(command.spec, background::carry_out(&device, nexus, command.spec, work));
                thread(Execution::Alone, Box::new(job))
            }
            Err(sense) => Execution::Done(answer(command.spec, Err(sense))),
        },
        Run::Async(run) => {
            let reply = run(Arc::clone(device), task);
            Execution::Async(Box::pin(async move { answer(command.spec, reply.await) }))
        }
        Run::Start(run) => run(device, task),
    }
}

/// The response a reply stands for. For handlers that make their own [`Execution`] too.
pub fn answer(spec: &CommandSpec, reply: Reply) -> Response {
    reply.unwrap_or_else(|sense| {
        debug!(command = spec.name, %sense, "check condition");
        sense.into()
    })
}

/// INQUIRY, REPORT LUNS and REQUEST SENSE neither report nor clear a unit attention, but for what REQUEST SENSE returns as data.
/// SAM-5, "Unit attention conditions".
const fn passes_attentions(opcode: u8) -> bool {
    matches!(opcode, 0x03 | 0x12 | 0xA0)
}

/// Sense data that comes later is written as the logical unit was told when the command began.
pub fn formatted(execution: Execution, format: SenseFormat) -> Execution {
    execution.map(move |response| match response.sense {
        Some(_) => Response { sense_format: format, ..response },
        None => response,
    })
}
