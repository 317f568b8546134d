//! One task per session: its connections on one side, its running commands on the other, the session's machine in the middle.
//!
//! A connection begins with a task of its own. When its login names a session that is there already, the connection moves to that
//! session's task; so nothing of a session is shared, and one of a single connection pays nothing for the others. What each side
//! of a connection does is in [`super::wire`], what commands do in [`super::commands`]. RFC 7143 (4.2), (6.3).

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use protocol::iscsi::login::{LoggedIn, LoginStatus};
use protocol::iscsi::{ConnectionId, Session, Target as TargetRole, TargetConfig, TargetEvent};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::Server;
use super::commands::{Placed, Running, Then, Wait};
use super::half_open::Place;
use super::hops::Hops;
use super::management::Message;
use super::memory::Share;
use super::streams::Stream;
use super::target::SessionHandle;
use super::turns::OwnTurns;
use super::wire::{End, Guest, Wire};

/// What a session calls the connection it begins with.
const FIRST: ConnectionId = ConnectionId(0);
/// How long initiators have to take what is left at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(2);
/// How long the last words may take when a connection ends.
const LINGER: Duration = Duration::from_secs(1);

/// How long more of a stream is looked for by hand: each arrival would wake another thread of the runtime.
const STREAM: Duration = Duration::from_micros(20);
/// How long a session looks by hand before others have their turn.
const TURN: Duration = Duration::from_micros(300);

/// How soon a reply leaves though a job that takes long runs behind it, and how seldom that is looked for in the end.
const COLLECT: Duration = Duration::from_millis(2);
const COLLECT_MAX: Duration = Duration::from_millis(128);

/// See the module.
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    portal_group: u16,
    /// Where [`poll_fn`] begins to look, so that each has its turn.
    turn: usize,
    /// There was more to read than a turn is long.
    yields: bool,
    own_turns: OwnTurns,
    /// Until when nothing is read.
    rests_until: Option<Instant>,
    /// Until something is proved.
    place: Option<Place>,
    pub(super) wires: Vec<Wire>,
    pub(super) session: Session<TargetRole>,
    /// Once logged in, unless for discovery.
    pub(super) handle: Option<SessionHandle>,
    /// The session that the connection asks to join.
    joins: Option<SessionHandle>,
    /// When replies are looked for that a hop has not told, while commands run.
    collect_at: Option<Instant>,
    collect_pause: Duration,
    /// Of the memory of all sessions.
    pub(super) share: Share,
    /// See [`TargetConfig::write_budget`]; what it is while there is memory enough.
    write_budget: u64,
    /// When a session that was closed ends, whether or not its last words were taken.
    ends_at: Option<Instant>,
    pub(super) messages: mpsc::UnboundedReceiver<Message>,
    pub(super) sender: mpsc::UnboundedSender<Message>,
    pub(super) hops: Hops,
    pub(super) running: HashMap<u64, Running>,
    pub(super) next_run: u64,
    pub(super) data_in_running: u64,
    /// Commands that wait for room, oldest first; no more than the window lets in, so that pings are read and answered meanwhile.
    pub(super) deferred: VecDeque<Placed>,
    /// Commands that wait for others of their task set, by the number that tells of their turn.
    pub(super) dormant: HashMap<u64, Placed>,
    /// Commands that may be written in pieces and whose data is still coming, by task tag.
    pub(super) streams: HashMap<u32, Stream>,
    pub(super) waits: Vec<Wait>,
    /// Who asked whether the initiator has hung up.
    pub(super) asked_to_notice: Vec<oneshot::Sender<()>>,
}

/// What the task was woken for.
enum Woken {
    Ready(usize, io::Result<bool>),
    Message(Message),
    Deadline,
    Shutdown,
}

impl Connection {
    pub fn new(server: Arc<Server>, stream: TcpStream, permit: OwnedSemaphorePermit, config: TargetConfig, place: Place) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let own_turns = server.turns.enter();
        Self {
            share: server.share(),
            write_budget: config.write_budget,
            server,
            portal_group: config.portal_group_tag,
            turn: 0,
            yields: false,
            own_turns,
            rests_until: None,
            place: Some(place),
            wires: vec![Wire::new(FIRST, stream, permit)],
            session: Session::accept(FIRST, config, std::time::Instant::now()),
            handle: None,
            joins: None,
            collect_at: None,
            collect_pause: COLLECT,
            ends_at: None,
            messages,
            hops: Hops::new(sender.clone()),
            sender,
            running: HashMap::new(),
            next_run: 0,
            data_in_running: 0,
            deferred: VecDeque::new(),
            dormant: HashMap::new(),
            streams: HashMap::new(),
            waits: Vec::new(),
            asked_to_notice: Vec::new(),
        }
    }

    /// Serves until either side ends it; every command has ended then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let end = self.serve(&shutdown).await;
        if let Some(handle) = self.joins.take() {
            return self.hand_over(&handle);
        }
        self.session.close();
        self.end_commands().await;
        if let End::Protocol(error) = &end {
            self.server.logins().count_end(error);
        }
        // The last words: a login response, a Reject, a logout response.
        if matches!(end, End::Protocol(_)) {
            self.wires.iter_mut().for_each(|wire| drop(wire.write(&mut self.session, false)));
        }
        let name = self.handle.as_ref().map(|handle| handle.nexus.initiator.clone());
        match (end, &name) {
            (End::Protocol(error), name) => info!(initiator = name, %error, "session ended by an error"),
            (End::Io(error), name) => info!(initiator = name, %error, "connection lost"),
            (End::Closed, Some(name)) => info!(initiator = name, "session ended"),
            (End::Closed, None) => debug!("connection closed"),
        }
        self.wires.clear();
        self.leave().await;
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> End {
        let mut last_call = false;
        let mut woken_at: Option<Instant> = None;
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        let mut armed: Option<Instant> = None;
        loop {
            if let Some(end) = self.write(!last_call && self.rests_until.is_none()) {
                return end;
            }
            let streams = self.yields || !self.wires.iter().all(Wire::is_drained);
            if std::mem::take(&mut self.yields) && self.server.turns.is_over(&mut self.own_turns) {
                // Who sends faster than it is served has had its turn: the runtime would let it go on for long.
                tokio::task::yield_now().await;
            }
            if self.resume() {
                continue;
            }
            if self.share_memory() {
                // Nobody would come to send it.
                self.take_events().await;
                continue;
            }
            let done = last_call && self.running.is_empty() && self.dormant.is_empty() && self.wires.iter().all(Wire::is_drained);
            if done || self.joins.is_some() || self.is_deserted() {
                return End::Closed;
            }
            let timeouts = self.wires.iter().filter_map(|wire| self.session.poll_timeout(wire.id)).map(Instant::from_std);
            if self.collect_at.is_none() && !self.running.is_empty() {
                self.collect_at = Some(Instant::now() + self.collect_pause);
            }
            let wires = self.wires.iter().flat_map(|wire| [wire.stale_at(), wire.sheds_at()]).flatten().map(Instant::from_std);
            let deadline = timeouts.chain(self.ends_at).chain(self.rests_until).chain(self.collect_at).chain(wires).min();
            self.turn = self.turn.wrapping_add(1);
            if let Some(deadline) = deadline
                && armed.is_none_or(|armed| deadline < armed)
            {
                // One that is moved into the future is left where it is: to set it costs the runtime a wake-up.
                alarm.as_mut().reset(deadline);
                armed = Some(deadline);
            }
            let awake_until = woken_at.take().zip(self.looks_for(streams)).map(|(at, time)| at + time);
            let seen = match awake_until {
                Some(until) => self.look(deadline.map_or(until, |deadline| deadline.min(until)), shutdown).await,
                None => Ok(None),
            };
            let seen = match seen {
                Ok(None) => self.wires.iter_mut().try_for_each(|wire| wire.socket().watch()).map(|()| None),
                seen => seen,
            };
            let woken = match seen {
                Ok(Some(woken)) => woken,
                Err(error) => return End::Io(error),
                Ok(None) => tokio::select! {
                    (at, ready) = ready(&self.wires, self.turn) => Woken::Ready(at, ready),
                    Some(message) = self.messages.recv() => Woken::Message(message),
                    () = &mut alarm, if armed.is_some() => Woken::Deadline,
                    () = shutdown.cancelled(), if !last_call => Woken::Shutdown,
                },
            };
            let end = match woken {
                Woken::Ready(at, ready) => {
                    // Others may have taken what was left when this session went to sleep.
                    self.share_memory();
                    self.ready(at, ready)
                }
                Woken::Message(message) => {
                    self.collect_pause = COLLECT;
                    self.take_messages(message);
                    if self.asked_to_notice.is_empty() { None } else { self.notice() }
                }
                Woken::Deadline => {
                    armed = None;
                    self.time_out().await
                }
                Woken::Shutdown => {
                    last_call = true;
                    self.session.request_logout(SHUTDOWN.as_secs() as u16);
                    self.ends_at = Some(Instant::now() + SHUTDOWN);
                    None
                }
            };
            woken_at = Some(Instant::now());
            // What was decoded before an error is still carried out: the peer cannot know what came of it.
            self.take_events().await;
            if let Some(end) = end {
                return end;
            }
            self.asked_to_notice.clear();
        }
    }

    /// Reads what there is from initiators that have hung up, whether or not the runtime has been told yet.
    fn notice(&mut self) -> Option<End> {
        for at in (0..self.wires.len()).rev() {
            // Comes to an end: nothing is sent behind it.
            while let Some(wire) = self.wires.get_mut(at).filter(|wire| wire.has_been_hung_up()) {
                let taken = wire.socket().take_in_hand();
                if let Some(end) = self.ready(at, taken.map(|()| true)) {
                    return Some(end);
                }
            }
        }
        None
    }

    /// Tells what the session holds, and lets it ask for as much more as its part of what is left: for one write at a time where
    /// nothing is. True when it asks for more.
    fn share_memory(&mut self) -> bool {
        self.share.set(self.holds());
        let short = self.share.is_short_of(0);
        self.session.set_narrow(short);
        if short {
            self.wires.iter_mut().for_each(Wire::shed);
        }
        let budget = self.session.asked_for() + self.share.part_of_what_is_left();
        let before = self.session.asked_for();
        self.session.set_write_budget(budget.min(self.write_budget));
        self.session.asked_for() > before
    }

    /// Bytes that the session holds for commands. What Data-Out has come lies in the receive buffers, and what is asked for will: it
    /// counts once.
    pub(super) fn holds(&self) -> u64 {
        let buffers = self.wires.iter().map(Wire::buffers).sum();
        let data_out = (self.session.asked_for() + self.session.unasked()).max(buffers);
        self.data_in_running + data_out + (self.session.kept() + self.session.backlog()) as u64
    }

    /// How long to look by hand for something to do, before the runtime does: for more of a stream only while no other session could
    /// have the time.
    fn looks_for(&self, streams: bool) -> Option<Duration> {
        let alone = || self.server.turns.is_alone(&self.own_turns);
        self.server.busy_poll_time().or((streams && alone()).then_some(STREAM))
    }

    /// Looks by hand for something to do, until then.
    async fn look(&mut self, until: Instant, shutdown: &CancellationToken) -> io::Result<Option<Woken>> {
        self.wires.iter_mut().try_for_each(|wire| wire.socket().take_in_hand())?;
        let mut turn_ends = Instant::now() + TURN;
        loop {
            for offset in 0..self.wires.len() {
                let at = (self.turn + offset) % self.wires.len();
                if let Some(reads) = self.wires[at].look()? {
                    return Ok(Some(Woken::Ready(at, Ok(reads))));
                }
            }
            if let Ok(message) = self.messages.try_recv() {
                return Ok(Some(Woken::Message(message)));
            }
            let now = Instant::now();
            if now >= until || shutdown.is_cancelled() {
                return Ok(None);
            }
            if now >= turn_ends {
                turn_ends = now + TURN;
                if self.server.turns.is_over(&mut self.own_turns) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Writes what there is, and parts with connections that have come to their end.
    fn write(&mut self, may_read: bool) -> Option<End> {
        let mut at = 0;
        while let Some(wire) = self.wires.get_mut(at) {
            let end = match wire.write(&mut self.session, may_read) {
                Err(error) => End::Io(error),
                Ok(()) if wire.is_drained() && self.session.is_closing(wire.id) => End::Closed,
                Ok(()) => {
                    at += 1;
                    continue;
                }
            };
            if let Some(end) = self.part_with(at, end) {
                return Some(end);
            }
            // What its commands had set aside may let others ask for data, on any connection.
            at = 0;
        }
        None
    }

    fn ready(&mut self, at: usize, ready: io::Result<bool>) -> Option<End> {
        let wire = self.wires.get_mut(at)?;
        let end = match ready {
            Ok(true) => match wire.read(&mut self.session) {
                Ok(dry) => {
                    self.yields |= !dry;
                    if dry {
                        self.server.turns.note(&self.own_turns);
                    }
                    self.pace();
                    return None;
                }
                Err(end) => end,
            },
            Ok(false) => return None,
            Err(error) => End::Io(error),
        };
        self.part_with(at, end)
    }

    /// Lets who sends what comes to nothing wait: to take it in costs the sessions beside it time. All that do so share one pace, or
    /// an initiator with many sessions would have it many times.
    fn pace(&mut self) {
        let wasted = self.session.take_wasted();
        if wasted > 0 {
            let now = Instant::now();
            let mut pace = self.server.wasted.lock().expect("no holder panics");
            pace.add(wasted, now.into_std());
            let rest = pace.pause(now.into_std());
            self.rests_until = (!rest.is_zero()).then(|| now + rest);
        }
    }

    async fn time_out(&mut self) -> Option<End> {
        let now = Instant::now();
        self.rests_until = self.rests_until.filter(|until| *until > now);
        if self.ends_at.is_some_and(|at| now >= at) {
            return Some(End::Closed);
        }
        if self.collect_at.is_some_and(|at| now >= at) {
            self.collect_at = None;
            // Less and less often while one command runs and runs.
            self.collect_pause = if self.collect() { COLLECT } else { (self.collect_pause * 2).min(COLLECT_MAX) };
        }
        let mut at = 0;
        while let Some(wire) = self.wires.get_mut(at) {
            if wire.sheds_at().is_some_and(|at| at <= now.into_std()) {
                wire.shed();
            }
            if wire.stale_at().is_some_and(|at| at <= now.into_std())
                && let Err(error) = wire.copy_stale(&mut self.session).await
            {
                if let Some(end) = self.part_with(at, End::Io(error)) {
                    return Some(end);
                }
                continue;
            }
            if self.session.poll_timeout(wire.id).is_none_or(|due| due > now.into_std()) {
                at += 1;
                continue;
            }
            wire.rest();
            match self.session.handle_timeout(wire.id, now.into_std()) {
                Ok(()) => at += 1,
                Err(error) => {
                    if let Some(end) = self.part_with(at, End::Protocol(error)) {
                        return Some(end);
                    }
                }
            }
        }
        None
    }

    /// Goes on without a connection; the end of the last one is the session's. Its tasks end with it: RFC 7143 (7.11), recovery
    /// levels below 2.
    fn part_with(&mut self, at: usize, end: End) -> Option<End> {
        if self.wires.len() == 1 {
            return Some(end);
        }
        let mut wire = self.wires.remove(at);
        info!(cid = self.session.cid(wire.id), ?end, "a connection of the session has ended");
        let _ = wire.write(&mut self.session, false);
        self.drop_connection(wire.id, Then::Nothing);
        None
    }

    fn drop_connection(&mut self, id: ConnectionId, then: Then) {
        self.session.close_connection(id);
        let tags = self.session.abort_tasks_of(id);
        self.session.remove(id);
        self.abort_tags(&tags, then);
    }

    /// True when there is no connection left, and none to come.
    fn is_deserted(&self) -> bool {
        self.wires.is_empty() && !self.waits.iter().any(|wait| matches!(wait.then, Then::Join(_)))
    }

    /// Ends the session as soon as its last words are taken, and in any case soon.
    pub(super) fn close(&mut self) {
        self.session.close();
        self.ends_at = Some(Instant::now() + LINGER);
    }

    async fn take_events(&mut self) {
        let mut batch = Vec::new();
        while let Some(event) = self.session.poll_event() {
            match event {
                TargetEvent::SessionUp(logged_in) => self.begin(&logged_in).await,
                TargetEvent::Join(logged_in) => self.ask_to_join(&logged_in),
                TargetEvent::Command(command) => self.admit(command, &mut batch),
                TargetEvent::DataOut { tag } => self.write_arrived(tag),
                TargetEvent::Failed { tag } => drop(self.streams.remove(&tag)),
                TargetEvent::TaskManagement { tag, function, lun, referenced } => {
                    // What this wake-up decoded before must be running by now, to be found.
                    self.hops.start(std::mem::take(&mut batch));
                    self.manage(tag, function, lun, referenced);
                }
                TargetEvent::Logout { tag, closes } => {
                    self.hops.start(std::mem::take(&mut batch));
                    self.log_out(tag, closes);
                }
            }
        }
        self.hops.start(batch);
    }

    async fn begin(&mut self, logged_in: &LoggedIn) {
        self.server.logins().count_accepted();
        let (initiator, discovery) = (&logged_in.initiator_name, logged_in.target_name.is_none());
        info!(initiator, discovery, parameters = ?logged_in.parameters, "logged in");
        let keeps_place = discovery && logged_in.user.is_none();
        if !keeps_place && !self.gives_up_place() {
            self.session.close();
        } else if !discovery {
            self.handle = self.server.enter(logged_in, self.portal_group, self.sender.clone()).await;
            if self.handle.is_none() {
                // Its target was taken out while it logged in.
                self.session.close();
            }
        }
    }

    /// False when the place was taken away just now.
    fn gives_up_place(&mut self) -> bool {
        self.place.take().is_some_and(Place::give_up)
    }

    fn ask_to_join(&mut self, logged_in: &LoggedIn) {
        if !self.gives_up_place() {
            return self.session.close();
        }
        self.joins = self.server.session(logged_in, self.portal_group);
        if self.joins.is_none() {
            self.session.refuse(LoginStatus::SESSION_DOES_NOT_EXIST);
        }
    }

    /// Lets the session that was asked for have the connection. When it has just ended, so does the connection.
    fn hand_over(mut self, handle: &SessionHandle) {
        let Some(wire) = self.wires.pop() else { return };
        let guest = Guest { session: self.session, wire };
        let _ = handle.messages.send(Message::Join(Box::new(guest)));
    }

    /// Takes a connection in. One of the same CID is taken out first, and its commands are waited for: connection reinstatement,
    /// RFC 7143 (6.3.4).
    pub(super) fn take_in(&mut self, guest: Box<Guest>) {
        let Some(cid) = guest.cid() else { return };
        if self.ends_at.is_some() {
            return guest.refuse(LoginStatus::SESSION_DOES_NOT_EXIST);
        }
        if !self.session.has_room_for(cid) {
            return guest.refuse(LoginStatus::TOO_MANY_CONNECTIONS);
        }
        if let Some(former) = self.session.with_cid(cid) {
            info!(cid, "a connection is reinstated");
            self.wires.retain(|wire| wire.id != former);
            return self.drop_connection(former, Then::Join(guest));
        }
        let Guest { session, mut wire } = *guest;
        let Ok(joining) = session.into_joining() else { return };
        wire.id = self.session.join(joining);
        info!(cid, connections = self.wires.len() + 1, "a connection has joined the session");
        self.wires.push(wire);
        let at = self.wires.len() - 1;
        if let Err(end) = self.wires[at].take_in(&mut self.session) {
            // The loop sees that it is closing; as the only one it would end the session, which it does.
            debug!(?end, "a connection ended as it joined");
        }
    }
}

/// The first connection, counted from `turn` on, with something to do.
async fn ready(wires: &[Wire], turn: usize) -> (usize, io::Result<bool>) {
    poll_fn(|context| {
        for offset in 0..wires.len() {
            let at = (turn + offset) % wires.len();
            if let Poll::Ready(ready) = wires[at].poll_ready(context) {
                return Poll::Ready((at, ready));
            }
        }
        Poll::Pending
    })
    .await
}
