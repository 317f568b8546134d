//! An initiator's session on a stream of its own, for programs that wait for it: log in, commands out, answers in, log out.
//!
//! Used where one thing is done at a time and a thread may block meanwhile: by the target that looks at a remote end, and by the mover
//! that works on it. Every wait is bounded. What ended before its answer came has an unknown outcome: the session is then lost, its
//! stream is closed, and nothing is said on it again.
//!
//! Has neither a socket nor a clock: both are its [`Wire`]'s. Redirections are not followed, a session has one connection, and what a
//! command's status means is the caller's to judge. Follows RFC 7143 by way of [`Session`].

use std::io::{self, IoSlice, Read, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use super::session::{Completion, Data, Handover, Initiator, InitiatorConfig, InitiatorEvent, Session, Submission, Watch};
use super::{Attribute, ConnectionId};
use crate::scsi::{Cdb, LunAddress};

/// A wait is broken off after so long, to look whether the commands are still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// Commands that are not wanted any more get no longer than this.
const UNWANTED: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const RECEIVE: usize = 256 << 10;
/// Parts of one vectored write.
const WRITE_PARTS: usize = 64;
/// The only connection of a session that is logged in here.
const CONNECTION: ConnectionId = ConnectionId(0);

/// A stream to a target, and the time.
pub trait Wire {
    /// Its reads and writes do not wait, but give `WouldBlock`.
    type Stream: Read + Write;

    /// What is read from and written to.
    fn stream(&mut self) -> &mut Self::Stream;

    /// The time of all deadlines.
    fn now(&self) -> Instant;

    /// Waits until there is something to read, with `output` also until something can be written, at most so long. Gives whether
    /// there is something to read, the stream's end among it.
    ///
    /// # Errors
    /// What the system gives.
    fn wait(&mut self, output: bool, limit: Duration) -> io::Result<bool>;

    /// The target sees the connection end.
    fn close(&mut self);
}

/// One SCSI command.
#[derive(Debug, Clone)]
pub struct Command {
    /// What to do.
    pub cdb: Cdb,
    /// Its data.
    pub data: Data,
    /// Longer than this it does not take.
    pub timeout: Duration,
}

impl Command {
    /// From the bytes of a CDB.
    ///
    /// # Panics
    /// When these have no length that a CDB has.
    #[must_use]
    pub fn new(cdb: &[u8], data: Data, timeout: Duration) -> Self {
        Self { cdb: Cdb::new(cdb).expect("a CDB of 6, 10 or 16 bytes"), data, timeout }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Driver<W> {
    wire: W,
    session: Session<Initiator>,
    connection: ConnectionId,
    input: BytesMut,
    lost: bool,
}

impl<W: Wire> Driver<W> {
    /// Logs in on a stream that is connected.
    ///
    /// # Errors
    /// What the stream and the target say, and `TimedOut` at the deadline.
    pub fn log_in(wire: W, config: InitiatorConfig, deadline: Instant) -> io::Result<Self> {
        let session = Session::connect(CONNECTION, config, wire.now());
        let mut driver = Self { wire, session, connection: CONNECTION, input: BytesMut::new(), lost: false };
        loop {
            let left = driver.left(deadline)?;
            driver.exchange(left)?;
            while let Some(event) = driver.session.poll_event() {
                if matches!(event, InitiatorEvent::LoggedIn(_)) {
                    return Ok(driver);
                }
            }
        }
    }

    /// Goes on with a session that another process has logged in.
    pub fn take_over(wire: W, handover: &Handover, watch: Watch) -> Self {
        let session = Session::take_over(handover, watch, wire.now());
        Self { wire, session, connection: ConnectionId(handover.cid), input: BytesMut::new(), lost: false }
    }

    /// Carries out commands that do not depend on each other, all at once; gives how each ended. Once they are `unwanted` only
    /// their answers are waited for, a short while.
    ///
    /// # Errors
    /// The session is lost: by this, or `NotConnected` since it was before.
    pub fn carry_out(
        &mut self,
        lun: LunAddress,
        commands: &[Command],
        unwanted: &dyn Fn() -> bool,
    ) -> io::Result<Vec<Completion>> {
        if self.lost {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.answers(lun, commands, unwanted).inspect_err(|_| self.give_up())
    }

    fn answers(&mut self, lun: LunAddress, commands: &[Command], unwanted: &dyn Fn() -> bool) -> io::Result<Vec<Completion>> {
        let submit = |command: &Command| {
            let Command { cdb, data, .. } = command.clone();
            self.session.submit(Submission { lun, cdb, attribute: Attribute::Simple, immediate: false, data })
        };
        let tags: Vec<u32> = commands.iter().map(submit).collect();
        let mut done: Vec<Option<Completion>> = vec![None; tags.len()];
        let mut deadline = self.wire.now() + commands.iter().map(|command| command.timeout).max().unwrap_or_default();
        let mut told = false;
        while done.iter().any(Option::is_none) {
            if !told && unwanted() {
                told = true;
                deadline = deadline.min(self.wire.now() + UNWANTED);
            }
            let left = self.left(deadline)?;
            for (tag, completion) in self.step(left)? {
                if let Some(at) = tags.iter().position(|known| *known == tag) {
                    done[at] = Some(completion);
                }
            }
        }
        Ok(done.into_iter().flatten().collect())
    }

    /// Answers what the target has asked meanwhile, and asks whether it lives when it is silent. Does not wait.
    ///
    /// # Errors
    /// As [`Driver::carry_out`].
    pub fn keep(&mut self) -> io::Result<()> {
        if self.lost {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.step(Duration::ZERO).map(drop).inspect_err(|_| self.give_up())
    }

    /// Ends the session, if it still lives, and closes the stream.
    ///
    /// # Errors
    /// The target did not answer, or not in time.
    pub fn log_out(&mut self, limit: Duration) -> io::Result<()> {
        if self.lost {
            return Ok(());
        }
        self.session.logout();
        let deadline = self.wire.now() + limit;
        let answered = loop {
            let step = self.left(deadline).and_then(|left| self.step(left));
            match step {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.give_up();
        answered
    }

    /// The stream, and what another process needs to go on with the session.
    ///
    /// # Errors
    /// The target has said something meanwhile that is not understood yet, or something is under way.
    pub fn hand_over(mut self) -> io::Result<(W, Handover)> {
        while self.session.poll_event().is_some() {}
        if self.lost || !self.input.is_empty() {
            return Err(io::Error::other("the remote target says more than it was asked"));
        }
        let handover = self.session.hand_over().map_err(|_| io::Error::other("something is under way in the session"))?;
        Ok((self.wire, handover))
    }

    fn left(&self, deadline: Instant) -> io::Result<Duration> {
        let left = deadline.saturating_duration_since(self.wire.now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn give_up(&mut self) {
        self.lost = true;
        self.wire.close();
    }

    /// Sends what there is to send, waits for answers a while, and gives the commands that ended.
    fn step(&mut self, limit: Duration) -> io::Result<Vec<(u32, Completion)>> {
        self.exchange(limit)?;
        let ended = self.events()?;
        self.send()?;
        Ok(ended)
    }

    fn exchange(&mut self, limit: Duration) -> io::Result<()> {
        self.send()?;
        let output = !self.session.transmit(self.connection).map_err(io::Error::other)?.is_empty();
        if self.wire.wait(output, limit.min(LOOK))? {
            self.receive()?;
        }
        let now = self.wire.now();
        if self.session.poll_timeout(self.connection).is_some_and(|at| at <= now) {
            self.session.handle_timeout(self.connection, now).map_err(io::Error::other)?;
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let transmit = self.session.transmit(self.connection).map_err(io::Error::other)?;
        while transmit.has_remaining() {
            let mut parts = [IoSlice::new(&[]); WRITE_PARTS];
            let count = transmit.chunks_vectored(&mut parts);
            match self.wire.stream().write_vectored(&parts[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => transmit.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let held = self.input.len();
        let room = self.session.missing(self.connection, &self.input).max(RECEIVE);
        self.input.resize(held + room, 0);
        let read = self.wire.stream().read(&mut self.input[held..]);
        self.input.truncate(held + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                let now = self.wire.now();
                self.session.handle_input(self.connection, now, &mut self.input).map_err(io::Error::other)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn events(&mut self) -> io::Result<Vec<(u32, Completion)>> {
        let mut ended = Vec::new();
        while let Some(event) = self.session.poll_event() {
            match event {
                InitiatorEvent::Completed { tag, completion } => ended.push((tag, completion)),
                InitiatorEvent::LoggedOut { .. } => return Err(io::ErrorKind::ConnectionAborted.into()),
                InitiatorEvent::Rejected { reason, .. } => {
                    return Err(io::Error::other(format!("the remote target rejects a PDU, reason {reason:#04x}")));
                }
                // Events 1 to 3: it wants us to log out, or has dropped us.
                InitiatorEvent::Async { event: 1..=3, .. } => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    /// A target that says what it was given to say, and then nothing. Nobody waits for its time to pass.
    #[derive(Debug)]
    struct Script {
        says: io::Cursor<Vec<u8>>,
        hangs_up: bool,
        begin: Instant,
        passed: Rc<Cell<Duration>>,
        closed: Rc<Cell<bool>>,
    }

    impl Script {
        fn new(says: &[u8], hangs_up: bool) -> (Self, Rc<Cell<Duration>>, Rc<Cell<bool>>) {
            let (passed, closed) = (Rc::default(), Rc::default());
            let (begin, says) = (Instant::now(), io::Cursor::new(says.to_vec()));
            (Self { says, hangs_up, begin, passed: Rc::clone(&passed), closed: Rc::clone(&closed) }, passed, closed)
        }
    }

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.says.read(into)? {
                0 if !self.hangs_up => Err(io::ErrorKind::WouldBlock.into()),
                read => Ok(read),
            }
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Wire for Script {
        type Stream = Self;

        fn stream(&mut self) -> &mut Self {
            self
        }

        fn now(&self) -> Instant {
            self.begin + self.passed.get()
        }

        fn wait(&mut self, _output: bool, limit: Duration) -> io::Result<bool> {
            let says = self.hangs_up || self.says.position() < self.says.get_ref().len() as u64;
            if !says {
                self.passed.set(self.passed.get() + limit);
            }
            Ok(says)
        }

        fn close(&mut self) {
            self.closed.set(true);
        }
    }

    fn target() -> InitiatorConfig {
        InitiatorConfig { target_name: Some("iqn.2026-01.test:a".into()), ..InitiatorConfig::default() }
    }

    #[test]
    fn a_target_that_never_answers_is_waited_for_up_to_the_deadline() {
        let (script, passed, _) = Script::new(&[], false);
        let limit = Duration::from_secs(3);
        let deadline = script.begin + limit;
        assert_eq!(Driver::log_in(script, target(), deadline).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(passed.get(), limit);
    }

    #[test]
    fn a_session_that_is_lost_is_closed_and_not_used_again() {
        let (script, _, closed) = Script::new(&[], true);
        let session = Session::connect(CONNECTION, target(), script.begin);
        let mut driver = Driver { wire: script, session, connection: CONNECTION, input: BytesMut::new(), lost: false };
        assert_eq!(driver.keep().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(closed.get());
        assert_eq!(driver.keep().unwrap_err().kind(), io::ErrorKind::NotConnected);
        let command = Command::new(&[0; 6], Data::None, Duration::from_secs(60));
        let lost = driver.carry_out(LunAddress::from_number(0), &[command], &|| false).unwrap_err();
        assert_eq!(lost.kind(), io::ErrorKind::NotConnected);
        driver.log_out(Duration::from_secs(2)).unwrap();
        assert!(driver.hand_over().is_err());
    }

    proptest! {
        #[test]
        fn noise_ends_a_login_and_never_more(bytes in prop::collection::vec(any::<u8>(), 0..300), hangs_up: bool) {
            let (script, passed, _) = Script::new(&bytes, hangs_up);
            let limit = Duration::from_secs(8);
            let deadline = script.begin + limit;
            prop_assert!(Driver::log_in(script, target(), deadline).is_err());
            prop_assert!(passed.get() <= limit);
        }
    }
}
