//! The edges of the quiet window on virtual time, and a few runs on the real clock.

use proptest::prelude::*;

use super::*;

const QUIET: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(80);

/// Disks on a clock of their own, in milliseconds since the request. They were last written long before.
struct World {
    start: Instant,
    gates: Vec<QuietGate>,
}

/// A write on a disk: from, to (ms).
type Write = (usize, u64, u64);

impl World {
    fn new(disks: usize) -> Self {
        let epoch = Instant::now();
        let gates = std::iter::repeat_with(|| QuietGate::new(epoch)).take(disks).collect();
        Self { start: epoch + Duration::from_secs(1000), gates }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn look(&mut self, wait: Wait, ms: u64) -> Look {
        let now = self.at(ms);
        wait.look(&mut self.gates.iter_mut().collect::<Vec<_>>(), now)
    }

    /// Waits as [`await_quiet`] does while these writes come; the time of success.
    fn run(&mut self, writes: &[Write], wait: Wait) -> Option<u64> {
        let mut events: Vec<_> = writes.iter().flat_map(|(disk, from, to)| [(*from, 0, *disk), (*to, 1, *disk)]).collect();
        events.sort_unstable();
        let mut events = events.into_iter().peekable();
        let mut now = 0;
        loop {
            while let Some((ms, end, disk)) = events.next_if(|(ms, ..)| *ms <= now) {
                let at = self.at(ms);
                match end {
                    0 => self.gates[disk].try_admit(at).unwrap(),
                    _ => drop(self.gates[disk].end(at)),
                }
            }
            match self.look(wait, now) {
                Look::Held(tickets) => {
                    assert_eq!(tickets.len(), self.gates.len());
                    return Some(now);
                }
                Look::TimedOut => return None,
                Look::Again(at) => {
                    let next = (at.min(wait.deadline) - self.start).as_millis() as u64;
                    assert!(next > now, "looking again must get on");
                    now = next;
                }
            }
        }
    }

    fn wait(&self) -> Wait {
        Wait { quiet: QUIET, deadline: self.start + TIMEOUT }
    }
}

fn quiet_after(writes: &[Write]) -> Option<u64> {
    let mut world = World::new(1);
    let wait = world.wait();
    world.run(writes, wait)
}

#[test]
fn a_pause_of_2_9_s_is_no_quiet_and_one_of_3_0_s_is() {
    let every = |pause: u64| (0..40).map(move |n| (0, n * (100 + pause), n * (100 + pause) + 100)).collect::<Vec<_>>();
    assert_eq!(quiet_after(&every(2900)), None, "until the timeout");
    assert_eq!(quiet_after(&every(2999)), None);
    // The write that starts at this very moment comes first and starts the timer over: what is simulated is the worst order.
    assert_eq!(quiet_after(&every(3000)), None);
    assert_eq!(quiet_after(&every(3001)), Some(3100));
}

#[test]
fn quiet_before_the_request_counts() {
    assert_eq!(quiet_after(&[]), Some(0));
}

#[test]
fn a_write_in_flight_is_no_quiet_however_long_it_takes() {
    assert_eq!(quiet_after(&[(0, 0, 30_000)]), Some(33_000));
    assert_eq!(quiet_after(&[(0, 0, 100_000)]), None);
}

#[test]
fn the_whole_period_must_end_before_the_timeout() {
    let busy_until = |ms| quiet_after(&[(0, 0, ms)]);
    assert_eq!(busy_until(78_000), None, "it would end at 81 s");
    assert_eq!(busy_until(77_000), None, "an exact tie fails");
    assert_eq!(busy_until(76_999), Some(79_999));
}

#[test]
fn a_look_that_comes_late_fails_even_if_the_period_had_ended_in_time() {
    let mut world = World::new(1);
    assert_eq!(world.look(world.wait(), 80_000), Look::TimedOut);
}

#[test]
fn several_disks_must_be_quiet_at_one_moment() {
    let mut world = World::new(2);
    let wait = world.wait();
    let writes = [(0, 0, 10), (1, 2_900, 2_910), (0, 5_800, 5_810)];
    assert_eq!(world.run(&writes, wait), Some(8_810));
    let [success, last, until] = [8_810, 9_809, 9_810].map(|ms| world.at(ms));
    assert_eq!(world.gates[0].try_admit(success), Err(until), "held from the moment of success on");
    assert_eq!(world.gates[1].try_admit(last), Err(until));
}

#[test]
fn without_a_period_only_another_hold_is_waited_for() {
    let mut world = World::new(1);
    let now = Wait { quiet: Duration::ZERO, deadline: world.start };
    world.gates[0].try_admit(now.deadline).unwrap();
    let Look::Held(tickets) = world.look(now, 0) else { panic!("a write in flight is drained later") };
    assert_eq!(world.look(now, 1), Look::Again(world.at(1000)), "one holder a disk");
    let at = world.at(5);
    world.gates[0].release(tickets[0], at);
    assert!(matches!(world.look(now, 5), Look::Held(_)));
}

#[test]
fn a_hold_ends_after_1_s_and_its_holder_learns_it() {
    let mut world = World::new(1);
    let Look::Held(tickets) = world.look(world.wait(), 0) else { panic!("quiet") };
    let [at_999, at_1000] = [world.at(999), world.at(1000)];
    assert_eq!(world.gates[0].still_held(tickets[0], at_999), Ok(()));
    assert_eq!(world.gates[0].try_admit(at_999), Err(at_1000));
    assert_eq!(world.gates[0].try_admit(at_1000), Ok(()), "writes go on");
    assert_eq!(world.gates[0].still_held(tickets[0], at_1000), Err(HoldTooLong));
    assert_eq!(world.gates[0].longest_hold(), HOLD_LIMIT);
}

#[test]
fn a_late_release_does_not_end_the_hold_of_another() {
    let mut world = World::new(1);
    let now = Wait { quiet: Duration::ZERO, deadline: world.start };
    let Look::Held(first) = world.look(now, 0) else { panic!("free") };
    let Look::Held(second) = world.look(now, 1000) else { panic!("the first is over") };
    let at = world.at(1001);
    world.gates[0].release(first[0], at);
    assert_eq!(world.gates[0].still_held(second[0], at), Ok(()));
}

proptest! {
    #[test]
    fn it_succeeds_at_the_first_moment_that_follows_a_whole_quiet_period(
        writes in prop::collection::vec((0..2_usize, 0..300_u64, 0..40_u64), 0..12),
        quiet in 1..60_u64,
        timeout in 1..300_u64,
    ) {
        let writes: Vec<Write> = writes.into_iter().map(|(disk, from, len)| (disk, from, from + len)).collect();
        let mut world = World::new(2);
        let wait = Wait { quiet: Duration::from_millis(quiet), deadline: world.at(timeout) };
        // Slowly: try every moment, look at every write.
        let is_quiet = |ms: u64| writes.iter().all(|(_, from, to)| *from > ms || *to + quiet <= ms);
        let expected = (0..timeout).find(|ms| is_quiet(*ms));
        prop_assert_eq!(world.run(&writes, wait), expected);
    }
}

async fn write_for(gate: &Gate, time: Duration) {
    gate.admit().await;
    tokio::time::sleep(time).await;
    gate.end();
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test]
async fn on_the_real_clock_quiet_comes_a_period_after_the_last_write() {
    let gate = Arc::new(Gate::new());
    let writer = Arc::clone(&gate);
    let writer = tokio::spawn(async move {
        for _ in 0..4 {
            write_for(&writer, ms(10)).await;
            tokio::time::sleep(ms(80)).await;
        }
        write_for(&writer, ms(10)).await;
        Instant::now()
    });
    tokio::time::sleep(ms(5)).await;
    let mut said = Vec::new();
    let hold = await_quiet([gate], ms(400), Duration::from_secs(20), |waiting| said.push(waiting)).await.unwrap();
    let after = hold.since() - writer.await.unwrap();
    assert!((ms(390)..ms(700)).contains(&after), "{after:?}");
    assert_eq!(hold.waiting().writes_seen, 4, "the first was in flight already");
    assert!(said.len() >= 3, "{said:?}");
    assert!(hold.commit(|| ()).unwrap() < HOLD_LIMIT);
}

#[tokio::test]
async fn on_the_real_clock_a_writer_without_pause_makes_it_fail_at_the_timeout() {
    let gate = Arc::new(Gate::new());
    let writer = Arc::clone(&gate);
    let writer = tokio::spawn(async move {
        loop {
            write_for(&writer, ms(10)).await;
            tokio::time::sleep(ms(50)).await;
        }
    });
    let start = Instant::now();
    let never = await_quiet([Arc::clone(&gate)], ms(300), ms(900), |_| ()).await.unwrap_err();
    let took = start.elapsed();
    assert!((ms(900)..ms(1400)).contains(&took), "{took:?}");
    assert!(never.writes_seen > 3, "{never}");
    assert_eq!(gate.status().longest_hold, Duration::ZERO, "nothing was held");
    writer.abort();
}

#[tokio::test]
async fn a_full_window_of_writes_is_parked_without_threads_and_let_go_together() {
    let gate = Arc::new(Gate::new());
    let hold = await_quiet([Arc::clone(&gate)], Duration::ZERO, ms(100), |_| ()).await.unwrap();
    let parked: Vec<_> = (0..5000)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { write_for(&gate, Duration::ZERO).await })
        })
        .collect();
    tokio::time::sleep(ms(50)).await;
    assert_eq!(gate.status().writes, 0);
    let held = hold.commit(|| ()).unwrap();
    for parked in parked {
        parked.await.unwrap();
    }
    assert_eq!((gate.status().writes, gate.status().in_flight), (5000, 0));
    assert_eq!(gate.status().longest_hold, held);
}

#[tokio::test]
async fn a_hold_that_is_not_released_lets_parked_writes_go_after_1_s() {
    let gate = Arc::new(Gate::new());
    let hold = await_quiet([Arc::clone(&gate)], Duration::ZERO, ms(100), |_| ()).await.unwrap();
    let start = Instant::now();
    gate.admit().await;
    let parked = start.elapsed();
    assert!((ms(950)..ms(1500)).contains(&parked), "{parked:?}");
    let mut published = false;
    assert_eq!(hold.commit(|| published = true), Err(HoldTooLong));
    assert!(!published);
    gate.end();
}

#[tokio::test]
async fn a_write_that_does_not_end_makes_the_drain_fail_after_1_s() {
    let gate = Arc::new(Gate::new());
    gate.admit().await;
    let hold = await_quiet([Arc::clone(&gate)], Duration::ZERO, ms(100), |_| ()).await.unwrap();
    assert_eq!(hold.drained().await, Err(HoldTooLong));
    gate.end();
    drop(hold);
    let hold = await_quiet([Arc::clone(&gate)], Duration::ZERO, ms(100), |_| ()).await.unwrap();
    hold.drained().await.unwrap();
}

#[tokio::test]
async fn a_parked_write_that_is_given_up_leaves_nothing_behind() {
    let gate = Arc::new(Gate::new());
    let hold = await_quiet([Arc::clone(&gate)], Duration::ZERO, ms(100), |_| ()).await.unwrap();
    assert!(tokio::time::timeout(ms(20), gate.admit()).await.is_err());
    drop(hold);
    assert_eq!((gate.status().writes, gate.status().in_flight), (0, 0));
}
