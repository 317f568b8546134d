//! The commands of a session: started, answered, aborted, waited for.
//!
//! What a command does is the logical unit's. A command that was aborted is never answered, but waited for: what it writes may
//! land until then. SAM-5, "Task management functions"; RFC 7143 (4.2.3), (11.6).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use protocol::iscsi::{Attribute as WireAttribute, Command, ConnectionId, Reply, TaskManagementFunction, TaskManagementResponse};
use protocol::scsi::{LunAddress, Sense, Status};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::connection::Connection;
use super::hops::Job;
use super::management::{Aborted, Finished, Message, Plan, Reset, Scope};
use super::streams::Stream;
use super::target::{SessionHandle, Target};
use super::wire::Guest;
use crate::lun::common::Place;
use crate::lun::disk::{StreamedWrite, TRANSFER_MAX};
use crate::lun::{Device, absent};
use crate::sys::FileMapping;
use crate::task::{Attribute, Execution, Response, Task};

/// Bytes waiting to be sent above which no further command is started: what is read far ahead of the socket is no longer in the
/// processor's cache when its turn comes.
const ENOUGH_BACKLOG: usize = 1024 * 1024;
/// Bytes waiting to be sent above which they are offered to the socket between two commands of one wake-up: enough that the wake-up
/// of the peer, which each send may cost, is small beside the copy.
const WORTH_SENDING: usize = 512 * 1024;
/// Data-In that running commands may come to, in bytes; one command is always started.
const MAX_DATA_IN_RUNNING: u64 = 64 * 1024 * 1024;
/// Bytes sent that may have to be sent again, above which no further command is started.
const MAX_KEPT: usize = 16 * 1024 * 1024;
/// Bytes of Data-In that a session holds at most: of commands that run, and of one that always may; sent and to be sent again.
pub(super) const MOST_HELD: u64 = MAX_DATA_IN_RUNNING + TRANSFER_MAX + MAX_KEPT as u64;
/// How often it is said that commands still run though their session has ended.
const DRAIN: Duration = Duration::from_secs(30);

/// A command that a device carries out.
pub(super) struct Running {
    tag: u32,
    unit: Option<Device>,
    data_in_limit: u64,
    abort: CancellationToken,
    extended_copy: bool,
    aborted: bool,
    /// In its task set, until it has ended.
    _place: Option<Place>,
}

/// A command with its logical unit and its place in the task set.
pub(super) struct Placed {
    command: Command,
    device: Option<Device>,
    place: Option<Place>,
    /// What is written of it already.
    written: Option<StreamedWrite>,
}

/// Data-In that keeps its command in the task set.
struct Held {
    data: Bytes,
    _place: Arc<Option<Place>>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Somebody who waits for aborted commands to end.
pub(super) struct Wait {
    runs: HashSet<u64>,
    hit: usize,
    pub(super) then: Then,
}

/// What follows when they have.
pub(super) enum Then {
    Nothing,
    /// Who asked is told.
    Tell(oneshot::Sender<Aborted>),
    /// The logout with this tag is answered.
    Logout(u32),
    /// A connection takes the place of the one whose commands they were.
    Join(Box<Guest>),
}

impl Connection {
    /// Starts a command, or lets it wait for others of its task set or for room.
    pub(super) fn admit(&mut self, command: Command, batch: &mut Vec<Job>) {
        if !self.session.has_task(command.tag) {
            // Aborted between its last byte and its turn here: nothing of it may land any more.
            return;
        }
        if let Some(Stream { device, write, place: Some(place) }) = self.streams.remove(&command.tag) {
            let placed = Placed { command, device: Some(device), place: Some(place), written: Some(write) };
            return self.start_or_defer(placed, batch);
        }
        let device = self.handle.as_ref().and_then(|handle| handle.nexus.luns.get(command.lun));
        let number = self.next_run;
        let place = device.as_ref().map(|device| {
            device.common().task_set.enter(attribute(command.attribute), || {
                let sender = self.sender.clone();
                Box::new(move || drop(sender.send(Message::Begin(number))))
            })
        });
        let waits = place.as_ref().is_some_and(|place| !place.may_begin());
        let placed = Placed { command, device, place, written: None };
        if waits {
            self.next_run += 1;
            self.dormant.insert(number, placed);
        } else {
            self.start_or_defer(placed, batch);
        }
    }

    fn start_or_defer(&mut self, placed: Placed, batch: &mut Vec<Job>) {
        if self.deferred.is_empty() && self.has_room(&placed.command) {
            self.start(placed, batch);
        } else if placed.command.attribute == WireAttribute::HeadOfQueue {
            self.deferred.push_front(placed);
        } else {
            self.deferred.push_back(placed);
        }
    }

    /// The turn of a command in its task set has come. It starts before the task sleeps.
    fn begin_dormant(&mut self, number: u64) {
        self.deferred.extend(self.dormant.remove(&number));
    }

    fn has_room(&mut self, command: &Command) -> bool {
        let data_in = self.data_in_running + command.data_in_limit;
        let enough =
            data_in > MAX_DATA_IN_RUNNING || (command.data_in_limit > 0 && self.share.is_short_of(command.data_in_limit));
        let runs = (!enough || self.data_in_running == 0) && self.session.backlog() < ENOUGH_BACKLOG;
        if runs && self.session.kept() >= MAX_KEPT {
            // The initiator may wait for this command before it says what has arrived.
            self.session.request_acknowledgement();
            return false;
        }
        runs
    }

    /// Starts what waited for room, if there is some now. Nothing else would: the peer may have nothing more to say until it is
    /// answered.
    pub(super) fn resume(&mut self) -> bool {
        let mut batch = Vec::new();
        let waiting = self.deferred.len();
        while let Some(next) = self.deferred.pop_front() {
            if !self.has_room(&next.command) {
                self.deferred.push_front(next);
                break;
            }
            self.start(next, &mut batch);
        }
        self.hops.start(batch);
        self.deferred.len() < waiting
    }

    fn start(&mut self, placed: Placed, batch: &mut Vec<Job>) {
        let Placed { command, device, place, written } = placed;
        let Some(handle) = &self.handle else { return };
        let nexus = Arc::clone(&handle.nexus);
        let extended_copy = is_extended_copy(&command);
        let counters = &nexus.counters;
        counters.commands.fetch_add(1, Ordering::Relaxed);
        counters.extended_copies.fetch_add(u64::from(extended_copy), Ordering::Relaxed);
        let data_out: u64 = command.data_out.iter().map(|part| part.len() as u64).sum();
        counters.data_out.fetch_add(data_out, Ordering::Relaxed);

        let (tag, data_in_limit) = (command.tag, command.data_in_limit);
        let abort = CancellationToken::new();
        let task = Task {
            nexus,
            lun: command.lun,
            tag,
            attribute: attribute(command.attribute),
            cdb: command.cdb,
            data_out: command.data_out,
            data_in_limit,
            in_place: self.session.only_sends(FileMapping::PAGE as u32),
            abort: abort.clone(),
        };
        let execution = match (written, &device) {
            (Some(write), _) => write.end(task),
            (None, Some(device)) => device.start(task),
            (None, None) => Execution::Done(absent(&task)),
        };
        if let Execution::Done(mut response) = execution {
            if let Some(mapping) = &response.in_place {
                self.wires.iter_mut().for_each(|wire| wire.sends_from(mapping));
                // It has not ended before all of it has left.
                let place = Arc::new(place);
                for data in &mut response.data_in {
                    *data = Bytes::from_owner(Held { data: std::mem::take(data), _place: Arc::clone(&place) });
                }
            }
            self.answer(tag, data_in_limit, response);
            if self.session.backlog() >= WORTH_SENDING {
                // An error is met again by the next write.
                self.wires.iter_mut().for_each(|wire| drop(wire.write(&mut self.session, true)));
            }
            return;
        }
        let run = self.next_run;
        self.next_run += 1;
        self.data_in_running += data_in_limit;
        self.share.set(self.holds());
        let running =
            Running { tag, unit: device, data_in_limit, abort: abort.clone(), extended_copy, aborted: false, _place: place };
        self.running.insert(run, running);
        match execution {
            Execution::Done(_) => unreachable!("answered above"),
            Execution::Blocking(work) => batch.push(Job { run, abort, work }),
            Execution::Alone(work) => {
                let promise = Promise { run, sender: Some(self.sender.clone()) };
                tokio::task::spawn_blocking(move || {
                    let aborted = || Response::status(Status::TaskAborted);
                    promise.keep(if abort.is_cancelled() { aborted() } else { work() });
                });
            }
            Execution::Async(future) => {
                let promise = Promise { run, sender: Some(self.sender.clone()) };
                tokio::spawn(async move { promise.keep(future.await) });
            }
        }
    }

    fn answer(&mut self, tag: u32, data_in_limit: u64, response: Response) {
        let reply = Reply {
            status: response.status,
            sense: Bytes::from(response.sense_bytes()),
            data_in: response.data_in,
            transfer_length: response.transfer_length,
        };
        if let Some(handle) = &self.handle {
            let available: u64 = reply.data_in.iter().map(|part| part.len() as u64).sum();
            handle.nexus.counters.data_in.fetch_add(available.min(data_in_limit), Ordering::Relaxed);
        }
        self.session.respond(tag, &reply);
    }

    /// Takes all messages that are there, so that what they answer leaves together.
    pub(super) fn take_messages(&mut self, first: Message) {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Finished(finished) => finished.into_iter().for_each(|one| self.finish(one)),
                Message::Abort(scope, done) => self.abort(&scope, Then::Tell(done)),
                Message::Begin(number) => self.begin_dormant(number),
                Message::Writable(tag) => self.write_on(tag),
                Message::Join(guest) => self.take_in(guest),
                Message::Managed { tag, outcome, cold_reset } => {
                    self.session.respond_task_management(tag, outcome);
                    if cold_reset {
                        self.close();
                    }
                }
                Message::Close => self.close(),
                Message::Notice(asked) => self.asked_to_notice.push(asked),
            }
            next = self.messages.try_recv().ok();
        }
    }

    /// Answers what has ended and was not told. False when there was nothing.
    pub(super) fn collect(&mut self) -> bool {
        let finished = self.hops.collect();
        let some = !finished.is_empty();
        finished.into_iter().for_each(|one| self.finish(one));
        some
    }

    fn finish(&mut self, finished: Finished) {
        let Some(running) = self.running.remove(&finished.run) else { return };
        self.data_in_running -= running.data_in_limit;
        if let (false, Some(response)) = (running.aborted, finished.response) {
            self.answer(running.tag, running.data_in_limit, response);
        }
        for wait in &mut self.waits {
            wait.runs.remove(&finished.run);
        }
        self.settle_waits();
    }

    fn settle_waits(&mut self) {
        let settled: Vec<_> = self.waits.extract_if(.., |wait| wait.runs.is_empty()).collect();
        for Wait { hit, then, .. } in settled {
            match then {
                Then::Nothing => {}
                Then::Tell(done) => drop(done.send(Aborted(hit))),
                Then::Logout(tag) => self.session.respond_logout(tag),
                Then::Join(guest) => self.take_in(guest),
            }
        }
    }

    /// Aborts tasks; `then` follows when none of them runs any more. What the session has forgotten is hit as well: a copy that
    /// outlives its nexus, and what was aborted before and has not ended.
    fn abort(&mut self, scope: &Scope, then: Then) {
        let nexus = self.handle.as_ref().map(|handle| Arc::clone(&handle.nexus));
        let unit = |lun| nexus.as_ref().and_then(|nexus| nexus.luns.get(lun));
        let tags = self.session.abort_tasks(|tag, lun| scope.hits(tag, || unit(lun)));
        self.abort_those(&tags, |running| scope.hits(running.tag, || running.unit.clone()), then);
    }

    /// Ends commands that the session has forgotten.
    pub(super) fn abort_tags(&mut self, tags: &[u32], then: Then) {
        self.abort_those(tags, |_| false, then);
    }

    fn abort_those(&mut self, tags: &[u32], also: impl Fn(&Running) -> bool, then: Then) {
        let tags: HashSet<u32> = tags.iter().copied().collect();
        // By now, since a tag may come again before there is room.
        self.deferred.retain(|placed| !tags.contains(&placed.command.tag));
        self.dormant.retain(|_, placed| !tags.contains(&placed.command.tag));
        self.streams.retain(|tag, _| !tags.contains(tag));
        let mut runs = HashSet::new();
        for (run, running) in &mut self.running {
            // A task of the same tag that was aborted before is waited for as well.
            if tags.contains(&running.tag) || also(running) {
                running.aborted = true;
                running.abort.cancel();
                runs.insert(*run);
            }
        }
        self.waits.push(Wait { hit: tags.len(), runs, then });
        self.settle_waits();
    }

    pub(super) fn manage(&mut self, tag: u32, function: TaskManagementFunction, lun: LunAddress, referenced: u32) {
        debug!(?function, ?lun, referenced, "task management");
        let Some(SessionHandle { target, nexus, .. }) = self.handle.clone() else {
            return self.session.respond_task_management(tag, TaskManagementResponse::FunctionRejected);
        };
        let (scope, reset) = match Target::plan(&nexus, function, lun, referenced) {
            Plan::Refused(outcome) => return self.session.respond_task_management(tag, outcome),
            Plan::Own(Scope::Tag(one)) if !self.session.has_task(one) => {
                return self.session.respond_task_management(tag, TaskManagementResponse::TaskDoesNotExist);
            }
            Plan::Own(scope) => (scope, None),
            Plan::Everyone(scope, reset) => (scope, Some(reset)),
        };
        let (done, own_done) = oneshot::channel();
        self.abort(&scope, Then::Tell(done));
        let sender = self.sender.clone();
        tokio::spawn(async move {
            match reset {
                Some(reset) => target.clear(nexus.id, scope, reset, own_done).await,
                None => drop(own_done.await),
            }
            let outcome = TaskManagementResponse::FunctionComplete;
            let _ = sender.send(Message::Managed { tag, outcome, cold_reset: reset == Some(Reset::Cold) });
        });
    }

    /// Ends the tasks of the session, or of the connection that closes; the answer goes out when the last has ended.
    pub(super) fn log_out(&mut self, tag: u32, closes: Option<ConnectionId>) {
        let tags = match closes {
            None => self.session.abort_tasks(|_, _| true),
            Some(connection) => self.session.abort_tasks_of(connection),
        };
        self.abort_tags(&tags, Then::Logout(tag));
    }

    /// Aborts what runs and waits for it, however long it takes: until then its writes may land, and no session may take this one's
    /// place. EXTENDED COPY is let go on: it does not belong to the nexus once it has begun.
    pub(super) async fn end_commands(&mut self) {
        // Nobody joins any more.
        self.close();
        self.deferred.clear();
        self.dormant.clear();
        self.streams.clear();
        self.session.abort_tasks(|_, _| true);
        for running in self.running.values_mut() {
            running.aborted = true;
            if !running.extended_copy {
                running.abort.cancel();
            }
        }
        let mut said = Instant::now();
        while self.running.values().any(|running| !running.extended_copy) {
            match tokio::time::timeout_at(said + DRAIN, self.messages.recv()).await {
                Ok(Some(message)) => self.take_messages(message),
                Ok(None) => return,
                Err(_) => {
                    said = Instant::now();
                    error!(commands = self.running.len(), "commands still run after their session has ended");
                }
            }
        }
    }

    /// Takes the session out of its target. Copies that outlive it can still be reached by resets, until they end.
    pub(super) async fn leave(mut self) {
        let Some(handle) = self.handle.take() else { return };
        let survived = !self.running.is_empty();
        handle.target.leave(&handle, survived);
        if !survived {
            return;
        }
        self.asked_to_notice.clear();
        self.handle = Some(handle.clone());
        while !self.running.is_empty()
            && let Some(message) = self.messages.recv().await
        {
            match message {
                Message::Finished(finished) => finished.into_iter().for_each(|one| self.finish(one)),
                // The nexus is gone: nobody is to be told.
                Message::Abort(scope, done) => self.abort(&scope, Then::Tell(done)),
                _ => {}
            }
        }
        handle.target.forget(handle.nexus.id);
    }
}

/// Answers for a future, also when that ends without an answer.
struct Promise {
    run: u64,
    sender: Option<mpsc::UnboundedSender<Message>>,
}

impl Promise {
    fn keep(mut self, response: Response) {
        self.send(response);
    }

    fn send(&mut self, response: Response) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Message::Finished(vec![Finished { run: self.run, response: Some(response) }]));
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.send(Sense::INTERNAL_TARGET_FAILURE.into());
    }
}

/// THIRD-PARTY COPY OUT with service action EXTENDED COPY(LID1) or (LID4). SPC-4.
fn is_extended_copy(command: &Command) -> bool {
    let cdb = command.cdb.padded();
    cdb[0] == 0x83 && cdb[1] & 0x1F <= 1
}

pub(super) fn attribute(attribute: WireAttribute) -> Attribute {
    use WireAttribute as Wire;
    match attribute {
        Wire::Untagged | Wire::Simple => Attribute::Simple,
        Wire::Ordered | Wire::Aca => Attribute::Ordered,
        Wire::HeadOfQueue => Attribute::HeadOfQueue,
    }
}
