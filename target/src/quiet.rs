//! The quiet window: waits until nothing has changed a disk for a while, and then holds its writes for a moment.
//!
//! [`QuietGate`] is the whole of the rules, without a clock, a lock or a thread: time is handed in. [`Gate`] puts one under a lock
//! and parks writers that come during a hold as futures. [`await_quiet`] waits for several disks to be quiet at one moment.
//!
//! - What counts is what changes the disk: writes of every kind, UNMAP, a copy's granted ranges; in flight from admission until
//!   [`Gate`] is told of the end. Reads never count; nor does a write that is still parked.
//! - A disk is quiet when nothing is in flight and nothing ended for the whole quiet period: after exactly the period it is.
//! - The whole period must end *before* the timeout. A tie fails, and so does a period that began in time and would end later.
//! - Success and hold are one step under the locks of all disks asked for, taken in the order of the disks.
//! - A hold ends after [`HOLD_LIMIT`] at the latest. Then writes go on, and who held learns that it was too late.
//!
//! It does not know what the moment is used for ([`crate::snapshot`]), and makes no host write out what it has cached: the
//! disk is as after a power cut at a moment when nobody wrote.

use std::future::Future;
use std::ops::DerefMut;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The longest time that writes are held. The target's own folder may lie on a disk it serves: a hold without an end could wait
/// for itself.
pub const HOLD_LIMIT: Duration = Duration::from_secs(1);
/// How often a waiting request looks whether a write came, to say so.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress is said when nothing changed.
const SAY: Duration = Duration::from_millis(500);

/// One disk's writes in flight, the end of its last one, and who holds it. Sans-io: `now` never goes back.
#[derive(Debug)]
pub struct QuietGate {
    in_flight: u64,
    /// End of the last write, or the start of our watch: what was before that nobody knows.
    last_end: Instant,
    admitted: u64,
    holder: Option<Holder>,
    tickets: u64,
    longest_hold: Duration,
}

/// Who holds a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    ticket: Ticket,
    since: Instant,
}

/// Names one hold of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// The hold is over: it lasted [`HOLD_LIMIT`], and writes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("writes were held for {} ms and had to go on", HOLD_LIMIT.as_millis())]
pub struct HoldTooLong;

impl QuietGate {
    /// A disk that nobody has written yet, as far as we know from `now` on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { in_flight: 0, last_end: now, admitted: 0, holder: None, tickets: 0, longest_hold: Duration::ZERO }
    }

    /// Admits a write.
    ///
    /// # Errors
    /// When it must be parked: until then at the latest.
    pub fn try_admit(&mut self, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.held_until(now) {
            return Err(until);
        }
        self.in_flight += 1;
        self.admitted += 1;
        Ok(())
    }

    /// A write that was admitted has ended, well or not. True when the last one left a disk that is held.
    pub fn end(&mut self, now: Instant) -> bool {
        self.in_flight = self.in_flight.checked_sub(1).expect("a write ends once");
        self.last_end = now;
        self.in_flight == 0 && self.holder.is_some()
    }

    /// Since when no write has been in flight; `None` while one is.
    #[must_use]
    pub fn quiet_since(&self) -> Option<Instant> {
        (self.in_flight == 0).then_some(self.last_end)
    }

    /// Writes admitted so far.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.admitted
    }

    /// Writes in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The longest time that writes were held.
    #[must_use]
    pub fn longest_hold(&self) -> Duration {
        self.longest_hold
    }

    /// When the hold that is on ends at the latest. One whose time is over is ended by looking.
    pub fn held_until(&mut self, now: Instant) -> Option<Instant> {
        let until = self.holder?.since + HOLD_LIMIT;
        if now < until {
            return Some(until);
        }
        self.end_hold(until);
        None
    }

    /// Whether this hold is still on. Its holder may rely on the answer for as long as it has the gate locked.
    ///
    /// # Errors
    /// When it is not.
    pub fn still_held(&mut self, ticket: Ticket, now: Instant) -> Result<(), HoldTooLong> {
        self.held_until(now);
        self.holder.filter(|holder| holder.ticket == ticket).map(|_| ()).ok_or(HoldTooLong)
    }

    /// Ends a hold; nothing happens when it is over already.
    pub fn release(&mut self, ticket: Ticket, now: Instant) {
        if self.still_held(ticket, now).is_ok() {
            self.end_hold(now);
        }
    }

    fn hold(&mut self, now: Instant) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.holder = Some(Holder { ticket, since: now });
        ticket
    }

    fn end_hold(&mut self, at: Instant) {
        if let Some(holder) = self.holder.take() {
            self.longest_hold = self.longest_hold.max(at.saturating_duration_since(holder.since));
        }
    }
}

/// A request for a quiet moment. Sans-io.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// How long nothing may be in flight or end; zero takes the first moment at which nobody else holds the disks.
    pub quiet: Duration,
    /// When to give up: the whole quiet period must have ended before.
    pub deadline: Instant,
}

/// What became of a look at the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// All are quiet, and held from now on: one ticket each, in their order.
    Held(Vec<Ticket>),
    /// No earlier than this can it succeed; look again then, or when the deadline comes.
    Again(Instant),
    /// Too late.
    TimedOut,
}

impl Wait {
    /// Looks at all disks at one moment and, if all are quiet, holds them all. The caller has them all locked.
    pub fn look<G: DerefMut<Target = QuietGate>>(&self, gates: &mut [G], now: Instant) -> Look {
        // Without a quiet period there is no period to end: only another holder's hold is waited for, and that one ends.
        if !self.quiet.is_zero() && now >= self.deadline {
            return Look::TimedOut;
        }
        let earliest = gates.iter_mut().map(|gate| self.earliest(gate, now)).max().unwrap_or(now);
        if earliest > now {
            return Look::Again(earliest);
        }
        Look::Held(gates.iter_mut().map(|gate| gate.hold(now)).collect())
    }

    /// The earliest moment at which this disk can be held.
    fn earliest(&self, gate: &mut QuietGate, now: Instant) -> Instant {
        let quiet_from = match gate.quiet_since() {
            _ if self.quiet.is_zero() => now,
            Some(since) => since + self.quiet,
            // The write in flight ends now or later, and then the whole period has to follow.
            None => now + self.quiet,
        };
        quiet_from.max(gate.held_until(now).unwrap_or(now))
    }
}

/// A disk's [`QuietGate`] under its lock, and the writers parked at it.
#[derive(Debug)]
pub struct Gate {
    /// The order in which gates are locked together: that of the disks' making, which is the order of their LUNs.
    order: u64,
    core: Mutex<QuietGate>,
    /// A hold was released.
    released: Notify,
    /// The last write in flight left during a hold.
    drained: Notify,
}

/// What a gate has seen, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietStatus {
    /// Writes in flight.
    pub in_flight: u64,
    /// Writes admitted since the start.
    pub writes: u64,
    /// Since the last write ended; zero while one is in flight; `None` when there never was one.
    pub quiet_for: Option<Duration>,
    /// The longest time that writes were held.
    pub longest_hold: Duration,
}

impl Gate {
    /// An open gate.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts to watch when it is made: no value is a default")]
    pub fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self {
            order: MADE.fetch_add(1, Ordering::Relaxed),
            core: Mutex::new(QuietGate::new(Instant::now())),
            released: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Admits a write at once, or says until when at the latest it must be parked. Who is admitted calls [`Gate::end`] later, once.
    ///
    /// # Errors
    /// While a hold is on.
    pub fn try_admit(&self) -> Result<(), Instant> {
        self.lock().try_admit(Instant::now())
    }

    /// Admits a write when no hold is on. Dropping the future leaves nothing behind.
    pub async fn admit(&self) {
        loop {
            // Asked for before the look: a release between the look and the wait is not lost.
            let mut released = pin!(self.released.notified());
            released.as_mut().enable();
            match self.try_admit() {
                Ok(()) => return,
                Err(until) => until_or(until, released).await,
            }
        }
    }

    /// The end of a write that was admitted.
    pub fn end(&self) {
        if self.lock().end(Instant::now()) {
            self.drained.notify_waiters();
        }
    }

    /// What it has seen.
    #[must_use]
    pub fn status(&self) -> QuietStatus {
        let now = Instant::now();
        let core = self.lock();
        let quiet_for = core.quiet_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        QuietStatus {
            in_flight: core.in_flight(),
            writes: core.admitted(),
            quiet_for: (core.admitted() > 0).then_some(quiet_for),
            longest_hold: core.longest_hold(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QuietGate> {
        self.core.lock().expect("no holder panics")
    }
}

/// What is said while a quiet moment is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Since the request.
    pub waited: Duration,
    /// Since the last write on any of the disks ended; zero while one is in flight.
    pub quiet_for: Duration,
    /// Writes seen since the request.
    pub writes_seen: u64,
}

/// No quiet period ended before the timeout. Nothing was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no quiet period of {:.3} s ended within {:.3} s; {writes_seen} writes came meanwhile", quiet.as_secs_f64(), waited.as_secs_f64())]
pub struct NeverQuiet {
    /// The period asked for.
    pub quiet: Duration,
    /// How long it was waited for.
    pub waited: Duration,
    /// Writes since the request.
    pub writes_seen: u64,
}

/// Waits until all of these disks have been quiet for `quiet` at one moment, and holds them from that moment on.
///
/// Calls `progress` about twice a second, and soon after a write started the timer over. Dropping the future leaves nothing behind.
///
/// # Errors
/// When that does not happen before `timeout`.
pub async fn await_quiet(
    gates: impl IntoIterator<Item = Arc<Gate>>,
    quiet: Duration,
    timeout: Duration,
    mut progress: impl FnMut(Waiting),
) -> Result<Hold, NeverQuiet> {
    let mut gates: Vec<Arc<Gate>> = gates.into_iter().collect();
    gates.sort_by_key(|gate| gate.order);
    gates.dedup_by_key(|gate| gate.order);
    let start = Instant::now();
    let wait = Wait { quiet, deadline: start + timeout };
    let writes_before = writes(&gates);
    let mut said: Option<(Instant, u64)> = None;
    loop {
        let (now, look, waiting) = {
            let mut locked: Vec<_> = gates.iter().map(|gate| gate.lock()).collect();
            let now = Instant::now();
            let waiting = Waiting {
                waited: now - start,
                quiet_for: quiet_for(&locked, now),
                writes_seen: locked.iter().map(|gate| gate.admitted()).sum::<u64>() - writes_before,
            };
            (now, wait.look(&mut locked, now), waiting)
        };
        match look {
            Look::Held(tickets) => return Ok(Hold { gates, tickets, since: now, waiting }),
            Look::TimedOut => return Err(NeverQuiet { quiet, waited: waiting.waited, writes_seen: waiting.writes_seen }),
            Look::Again(at) => {
                if said.is_none_or(|(when, writes)| now - when >= SAY || writes != waiting.writes_seen) {
                    said = Some((now, waiting.writes_seen));
                    progress(waiting);
                }
                tokio::time::sleep_until(at.min(wait.deadline).min(now + LOOK).into()).await;
            }
        }
    }
}

/// Disks whose writes are parked. Dropping it lets them go on.
#[derive(Debug)]
#[must_use = "writes go on when it is dropped"]
pub struct Hold {
    /// In the order of their locks.
    gates: Vec<Arc<Gate>>,
    tickets: Vec<Ticket>,
    since: Instant,
    waiting: Waiting,
}

impl Hold {
    /// How the wait went: up to the moment of the hold.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// When writes were stopped.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Waits for the writes admitted before. After a quiet period there are none.
    ///
    /// # Errors
    /// When they take too long.
    pub async fn drained(&self) -> Result<(), HoldTooLong> {
        for (gate, ticket) in self.gates.iter().zip(&self.tickets) {
            loop {
                let mut drained = pin!(gate.drained.notified());
                drained.as_mut().enable();
                {
                    let mut core = gate.lock();
                    core.still_held(*ticket, Instant::now())?;
                    if core.in_flight() == 0 {
                        break;
                    }
                }
                until_or(self.since + HOLD_LIMIT, drained).await;
            }
        }
        Ok(())
    }

    /// Does `publish` with all disks locked, held and without a write in flight, and lets the writes go on. `publish` must not
    /// wait for anything. Returns how long the writes were held.
    ///
    /// # Errors
    /// When the hold is over or a write is in flight; then `publish` was not called.
    pub fn commit(self, publish: impl FnOnce()) -> Result<Duration, HoldTooLong> {
        let mut locked: Vec<_> = self.gates.iter().map(|gate| gate.lock()).collect();
        let now = Instant::now();
        for (gate, ticket) in locked.iter_mut().zip(&self.tickets) {
            gate.still_held(*ticket, now)?;
            if gate.in_flight() != 0 {
                return Err(HoldTooLong);
            }
        }
        publish();
        let now = Instant::now();
        for (gate, ticket) in locked.iter_mut().zip(&self.tickets) {
            gate.release(*ticket, now);
        }
        Ok(now - self.since)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for (gate, ticket) in self.gates.iter().zip(&self.tickets) {
            gate.lock().release(*ticket, Instant::now());
            gate.released.notify_waiters();
        }
    }
}

async fn until_or(at: Instant, event: impl Future<Output = ()>) {
    tokio::select! {
        () = tokio::time::sleep_until(at.into()) => {}
        () = event => {}
    }
}

fn writes(gates: &[Arc<Gate>]) -> u64 {
    gates.iter().map(|gate| gate.lock().admitted()).sum()
}

/// The shortest quiet time of several disks.
fn quiet_for(gates: &[MutexGuard<'_, QuietGate>], now: Instant) -> Duration {
    let quiet = |gate: &MutexGuard<'_, QuietGate>| {
        gate.quiet_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    };
    gates.iter().map(quiet).min().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
