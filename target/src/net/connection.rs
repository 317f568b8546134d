//! One connection: socket on one side, session in the middle, running commands on the other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use protocol::iscsi::{
    Command, ConnectionId, ProtocolError, Reply, Session, Target as TargetRole, TargetConfig, TargetEvent,
    TaskManagementFunction, TaskManagementResponse,
};
use protocol::scsi::{LunAddress, Sense};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::Server;
use super::half_open::Place;
use super::hops::{Hops, Job};
use super::management::{Aborted, Finished, Message, Plan, Reset, Scope};
use super::target::SessionHandle;
use crate::lun::absent;
use crate::task::{Attribute, Execution, Response, Task};

/// The connection of a session that has one. Its CID is the initiator's to choose and is not needed here.
const CONNECTION: ConnectionId = ConnectionId(0);
/// Bytes of a read: enough for many commands.
const READ_ROOM: usize = 128 * 1024;
/// Size of a buffer while long PDUs come, in bytes: several go into one.
const LONG_READ_ROOM: usize = 1024 * 1024;
/// Former input buffers kept to be used again.
const USED_BUFFERS: usize = 8;
/// Reads of one wake-up, before others have their turn.
const READS_PER_WAKE_UP: usize = 4;
/// Bytes waiting to be sent above which nothing more is read.
const MAX_BACKLOG: usize = 16 * 1024 * 1024;
/// Bytes waiting to be sent above which no further command is started: what is read far ahead of the socket is no longer in the
/// processor's cache when its turn comes.
const ENOUGH_BACKLOG: usize = 1024 * 1024;
/// Bytes waiting to be sent above which they are offered to the socket between two commands of one wake-up.
const WORTH_SENDING: usize = 128 * 1024;
/// Data-In that running commands may come to, in bytes; one command is always started.
const MAX_DATA_IN_RUNNING: u64 = 64 * 1024 * 1024;
/// Parts of one vectored write.
const WRITE_PARTS: usize = 64;
/// How often it is said that commands still run though their session has ended.
const DRAIN: Duration = Duration::from_secs(30);
/// How long initiators have to take what is left at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Why the loop ended.
enum End {
    /// The peer closed, or the session came to its end.
    Closed,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
}

/// See the module.
pub(super) struct Connection {
    server: Arc<Server>,
    portal_group: u16,
    stream: TcpStream,
    session: Session<TargetRole>,
    input: BytesMut,
    /// Former input buffers, the last one at the end; commands may still refer to them.
    used: VecDeque<BytesMut>,
    /// Until something is proved.
    place: Option<Place>,
    /// Once logged in, unless for discovery.
    handle: Option<SessionHandle>,
    messages: mpsc::UnboundedReceiver<Message>,
    sender: mpsc::UnboundedSender<Message>,
    hops: Hops,
    running: HashMap<u64, Running>,
    next_run: u64,
    data_in_running: u64,
    /// Commands that wait for room, oldest first; no more than the window lets in, so that pings are read and answered meanwhile.
    deferred: VecDeque<Command>,
    waits: Vec<Wait>,
    logout: Option<u32>,
}

/// A command that a device carries out.
struct Running {
    tag: u32,
    data_in_limit: u64,
    abort: CancellationToken,
    extended_copy: bool,
    aborted: bool,
}

/// Somebody who waits for aborted commands to end.
struct Wait {
    runs: HashSet<u64>,
    hit: usize,
    done: oneshot::Sender<Aborted>,
}

impl Connection {
    pub fn new(server: Arc<Server>, stream: TcpStream, config: TargetConfig, place: Place) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        Self {
            server,
            portal_group: config.portal_group_tag,
            stream,
            session: Session::accept(CONNECTION, config, std::time::Instant::now()),
            input: BytesMut::new(),
            used: VecDeque::new(),
            place: Some(place),
            handle: None,
            messages,
            hops: Hops::new(sender.clone()),
            sender,
            running: HashMap::new(),
            next_run: 0,
            data_in_running: 0,
            deferred: VecDeque::new(),
            waits: Vec::new(),
            logout: None,
        }
    }

    /// Serves until either side ends it; every command has ended then.
    pub async fn run(mut self, shutdown: CancellationToken) -> io::Result<()> {
        let served = self.serve(&shutdown).await;
        self.session.close();
        self.end_commands().await;
        // The last words: a login response, a Reject, a logout response.
        if matches!(&served, Ok(End::Protocol(_))) {
            let _ = self.write();
        }
        let name = self.handle.take().map(|handle| {
            handle.target.leave(&handle);
            handle.nexus.initiator.clone()
        });
        match (served?, name) {
            (End::Protocol(error), name) => info!(initiator = name, %error, "session ended by an error"),
            (End::Closed, Some(name)) => info!(initiator = name, "session ended"),
            (End::Closed, None) => debug!("connection closed"),
        }
        Ok(())
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> io::Result<End> {
        let mut last_call: Option<Instant> = None;
        let mut awake_until: Option<Instant> = None;
        loop {
            self.write()?;
            if self.resume() {
                continue;
            }
            let backlog = self.backlog();
            if backlog == 0 && (self.session.is_closing() || last_call.is_some() && self.running.is_empty()) {
                return Ok(End::Closed);
            }
            let deadline = self.session.poll_timeout().map(Instant::from_std).into_iter().chain(last_call).min();
            let reading = backlog < MAX_BACKLOG && !self.session.is_closing() && last_call.is_none();
            let step = tokio::select! {
                readable = self.stream.readable(), if reading => { readable?; self.read() }
                writable = self.stream.writable(), if backlog > 0 => { writable?; Ok(None) }
                Some(message) = self.messages.recv() => { self.take_messages(message); Ok(None) }
                () = sleep_until(deadline), if deadline.is_some() => self.time_out(last_call),
                () = tokio::task::yield_now(), if awake_until.is_some_and(|until| Instant::now() < until) => continue,
                () = shutdown.cancelled(), if last_call.is_none() => {
                    self.session.request_logout(SHUTDOWN.as_secs() as u16);
                    last_call = Some(Instant::now() + SHUTDOWN);
                    Ok(None)
                }
            };
            awake_until = self.server.busy_poll_time().map(|time| Instant::now() + time);
            // What was decoded before an error is still carried out: the peer cannot know what came of it.
            self.take_events().await;
            match step {
                Ok(None) => {}
                Ok(Some(end)) => return Ok(end),
                Err(error) => return Err(error),
            }
        }
    }

    fn backlog(&mut self) -> usize {
        self.session.transmit(CONNECTION).map_or(0, |transmit| transmit.len())
    }

    /// Writes until the socket is full.
    fn write(&mut self) -> io::Result<()> {
        let Ok(transmit) = self.session.transmit(CONNECTION) else { return Ok(()) };
        while !transmit.is_empty() {
            let mut parts = [io::IoSlice::new(&[]); WRITE_PARTS];
            let count = transmit.chunks_vectored(&mut parts);
            match self.stream.try_write_vectored(&parts[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => transmit.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is, within bounds, and hands it to the session.
    fn read(&mut self) -> io::Result<Option<End>> {
        for _ in 0..READS_PER_WAKE_UP {
            let missing = self.session.missing(&self.input);
            self.make_room(missing);
            // Not far into the next PDU: it may have to move to another buffer.
            let most = missing.max(READ_ROOM);
            let room = self.input.capacity() - self.input.len();
            let dry;
            match self.stream.try_read_buf(&mut (&mut self.input).limit(most)) {
                Ok(0) => return Ok(Some(End::Closed)),
                Ok(read) => dry = read < most.min(room),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let now = std::time::Instant::now();
            if let Err(error) = self.session.handle_input(CONNECTION, now, &mut self.input) {
                return Ok(Some(End::Protocol(error)));
            }
            if dry {
                break;
            }
        }
        Ok(None)
    }

    /// Room for the rest of a PDU that has begun, or for many small ones. Not topped up for every read: what is left over is copied
    /// when the buffer changes. A buffer that no command refers to any more comes again, with its pages.
    fn make_room(&mut self, missing: usize) {
        if self.input.capacity() - self.input.len() >= missing.max(READ_ROOM / 2) {
            return;
        }
        let room = if missing > READ_ROOM { (self.input.len() + missing).max(LONG_READ_ROOM) } else { 2 * READ_ROOM };
        let again = self.used.iter_mut().position(|used| used.try_reclaim(room));
        let mut next = match again.and_then(|at| self.used.remove(at)) {
            Some(used) => used,
            None => BytesMut::with_capacity(room),
        };
        next.extend_from_slice(&self.input);
        self.input.clear();
        self.used.push_back(std::mem::replace(&mut self.input, next));
        if self.used.len() > USED_BUFFERS {
            self.used.pop_front();
        }
    }

    fn time_out(&mut self, last_call: Option<Instant>) -> io::Result<Option<End>> {
        if last_call.is_some_and(|last_call| Instant::now() >= last_call) {
            return Ok(Some(End::Closed));
        }
        // Nothing came for a while: what reading fast needs is not kept.
        self.used = VecDeque::new();
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(self.session.handle_timeout(std::time::Instant::now()).err().map(End::Protocol))
    }

    async fn take_events(&mut self) {
        let mut batch = Vec::new();
        while let Some(event) = self.session.poll_event() {
            match event {
                TargetEvent::SessionUp(logged_in) => {
                    let (initiator, discovery) = (&logged_in.initiator_name, logged_in.target_name.is_none());
                    info!(initiator, discovery, parameters = ?logged_in.parameters, "logged in");
                    let keeps_place = discovery && logged_in.user.is_none();
                    if !keeps_place && !self.place.take().is_some_and(Place::give_up) {
                        self.session.close();
                    } else if !discovery {
                        self.handle = self.server.enter(&logged_in, self.portal_group, self.sender.clone()).await;
                        if self.handle.is_none() {
                            // Its target was taken out while it logged in.
                            self.session.close();
                        }
                    }
                }
                TargetEvent::Command(command) => {
                    if self.deferred.is_empty() && self.has_room(&command) {
                        self.start(command, &mut batch);
                    } else {
                        self.deferred.push_back(command);
                    }
                }
                TargetEvent::TaskManagement { tag, function, lun, referenced } => {
                    // What this wake-up decoded before must be running by now, to be found.
                    self.hops.start(std::mem::take(&mut batch));
                    self.manage(tag, function, lun, referenced);
                }
                TargetEvent::Logout { tag } => {
                    self.hops.start(std::mem::take(&mut batch));
                    self.log_out(tag);
                }
            }
        }
        self.hops.start(batch);
    }

    fn has_room(&mut self, command: &Command) -> bool {
        let data_in = self.data_in_running + command.data_in_limit;
        (data_in <= MAX_DATA_IN_RUNNING || self.data_in_running == 0) && self.backlog() < ENOUGH_BACKLOG
    }

    /// Starts what waited for room, if there is some now. Nothing else would: the peer may have nothing more to say until it is
    /// answered.
    fn resume(&mut self) -> bool {
        let mut batch = Vec::new();
        let waiting = self.deferred.len();
        self.start_deferred(&mut batch);
        self.hops.start(batch);
        self.deferred.len() < waiting
    }

    fn start_deferred(&mut self, batch: &mut Vec<Job>) {
        while let Some(command) = self.deferred.pop_front() {
            if !self.has_room(&command) {
                return self.deferred.push_front(command);
            }
            self.start(command, batch);
        }
    }

    fn start(&mut self, command: Command, batch: &mut Vec<Job>) {
        let Some(handle) = &self.handle else { return };
        let nexus = Arc::clone(&handle.nexus);
        let extended_copy = is_extended_copy(&command);
        let counters = &nexus.counters;
        counters.commands.fetch_add(1, Ordering::Relaxed);
        counters.extended_copies.fetch_add(u64::from(extended_copy), Ordering::Relaxed);
        let data_out: u64 = command.data_out.iter().map(|part| part.len() as u64).sum();
        counters.data_out.fetch_add(data_out, Ordering::Relaxed);

        let (tag, lun, data_in_limit) = (command.tag, command.lun, command.data_in_limit);
        let abort = CancellationToken::new();
        let device = nexus.luns.get(lun);
        let task = Task {
            nexus,
            lun,
            tag,
            attribute: attribute(command.attribute),
            cdb: command.cdb,
            data_out: command.data_out,
            data_in_limit,
            abort: abort.clone(),
        };
        let execution = match device {
            Some(device) => device.start(task),
            None => Execution::Done(absent(&task)),
        };
        if let Execution::Done(response) = execution {
            self.answer(tag, data_in_limit, response);
            if self.backlog() >= WORTH_SENDING {
                // An error is met again by the next write.
                let _ = self.write();
            }
            return;
        }
        let run = self.next_run;
        self.next_run += 1;
        self.data_in_running += data_in_limit;
        self.running.insert(run, Running { tag, data_in_limit, abort: abort.clone(), extended_copy, aborted: false });
        match execution {
            Execution::Done(_) => unreachable!("answered above"),
            Execution::Blocking(work) => batch.push(Job { run, abort, work }),
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
    fn take_messages(&mut self, first: Message) {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Finished(finished) => finished.into_iter().for_each(|one| self.finish(one)),
                Message::Abort(scope, done) => self.abort(scope, done),
                Message::Managed { tag, outcome, cold_reset } => {
                    self.session.respond_task_management(tag, outcome);
                    if cold_reset {
                        self.session.close();
                    }
                }
                Message::Close => self.session.close(),
            }
            next = self.messages.try_recv().ok();
        }
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
        for wait in self.waits.extract_if(.., |wait| wait.runs.is_empty()) {
            let _ = wait.done.send(Aborted(wait.hit));
        }
        if let (Some(tag), true) = (self.logout, self.running.is_empty()) {
            self.logout = None;
            self.session.respond_logout(tag);
        }
    }

    /// Aborts tasks, and tells `done` when none of them runs any more.
    fn abort(&mut self, scope: Scope, done: oneshot::Sender<Aborted>) {
        let tags: HashSet<u32> = self.session.abort_tasks(|tag, lun| scope.hits(tag, lun)).into_iter().collect();
        // By now, since a tag may come again before there is room.
        self.deferred.retain(|command| !tags.contains(&command.tag));
        let mut runs = HashSet::new();
        for (run, running) in &mut self.running {
            // A task of the same tag that was aborted before is waited for as well.
            if tags.contains(&running.tag) {
                running.aborted = true;
                running.abort.cancel();
                runs.insert(*run);
            }
        }
        self.waits.push(Wait { hit: tags.len(), runs, done });
        self.settle_waits();
    }

    fn manage(&mut self, tag: u32, function: TaskManagementFunction, lun: LunAddress, referenced: u32) {
        debug!(?function, ?lun, referenced, "task management");
        let Some(SessionHandle { target, nexus, .. }) = self.handle.clone() else {
            return self.session.respond_task_management(tag, TaskManagementResponse::FunctionRejected);
        };
        let (scope, reset) = match target.plan(function, lun, referenced) {
            Plan::Refused(outcome) => return self.session.respond_task_management(tag, outcome),
            Plan::Own(Scope::Tag(one)) if !self.session.has_task(one) => {
                return self.session.respond_task_management(tag, TaskManagementResponse::TaskDoesNotExist);
            }
            Plan::Own(scope) => (scope, None),
            Plan::Everyone(scope, reset) => (scope, Some(reset)),
        };
        let (done, own_done) = oneshot::channel();
        self.abort(scope, done);
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

    /// Ends the session's tasks; the answer goes out when the last has ended.
    fn log_out(&mut self, tag: u32) {
        let (done, _) = oneshot::channel();
        self.logout = Some(tag);
        self.abort(Scope::Target, done);
    }

    /// Aborts what runs and waits for it, however long it takes: until then its writes may land, and no session may take this one's
    /// place. EXTENDED COPY is let go on: it does not belong to the nexus once it has begun.
    async fn end_commands(&mut self) {
        self.deferred.clear();
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

/// Never, without a deadline.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// THIRD-PARTY COPY OUT with service action EXTENDED COPY(LID1) or (LID4). SPC-4.
fn is_extended_copy(command: &Command) -> bool {
    let cdb = command.cdb.padded();
    cdb[0] == 0x83 && cdb[1] & 0x1F <= 1
}

fn attribute(attribute: protocol::iscsi::Attribute) -> Attribute {
    use protocol::iscsi::Attribute as Wire;
    match attribute {
        Wire::Untagged | Wire::Simple => Attribute::Simple,
        Wire::Ordered | Wire::Aca => Attribute::Ordered,
        Wire::HeadOfQueue => Attribute::HeadOfQueue,
    }
}
