//! The static view under fire, with several processes: three host writers on the same chunks, two movers that read each
//! snapshot, and one that copies out of it into the same disk, with source and destination overlapping.
//!
//! Meanwhile movers are killed at any step, copy stores run full, and snapshots end while they are read. What must hold: the bytes of a
//! snapshot are right or the read failed; a snapshot is one moment (of each writer's writes a prefix); no host write ever fails.
//!
//! The movers are this test program again, started with a role; they open the files of a view by way of `/proc`, in place of the
//! socket by which the target passes them.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use datamover::worker::view::ViewReader;
use protocol::mover::ends::End;
use protocol::mover::table::{CHUNK, ReadError};
use protocol::units::ByteRange;
use target::snapshot::{Keeper, Request, SnapshotService, Source, View};
use target::store::BlockStore;
use target::store::faulty::FaultyStore;
use target::store::raw::{RawSpec, RawStore};
use target::volume::Volume;

/// Says in a child what it is.
const ROLE: &str = "OFFHOST_TEST_VIEW_FIRE_ROLE";
const SECTOR: u64 = 512;
/// Chunks that hosts write, all of them all the time.
const HOT: u64 = 4;
/// Chunks of the disk; the copier works behind the hot ones and in the last of them.
const CHUNKS: u64 = 12;
const SIZE: u64 = CHUNKS * CHUNK + SECTOR;
const WRITERS: u64 = 3;
/// Sectors of one writer: each third of the hot ones.
const SECTORS: u64 = HOT * CHUNK / SECTOR / WRITERS;
/// Where the copier reads in the view, and where on the disk it puts that: they overlap by all but one chunk.
const COPY_FROM: ByteRange = ByteRange { start: (HOT + 1) * CHUNK, len: (CHUNKS - HOT - 2) * CHUNK };
const COPY_TO: u64 = (HOT + 2) * CHUNK;

const ROUNDS: u64 = 4000;
const TIME: Duration = Duration::from_secs(15);
/// Of a machine too busy for enough rounds in that time.
const PATIENCE: Duration = Duration::from_secs(150);

/// A small generator of numbers that need not be good, only many and repeatable.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

// ---- the movers' side ----

/// Not a test of its own: what a child runs, and nothing when it is none.
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut orders = std::io::stdin().lines();
    while let Some(Ok(order)) = orders.next() {
        let words: Vec<&str> = order.split(' ').collect();
        let answer = match role.as_str() {
            "reader" => read_view(&words),
            _ => copy_view(&words, &mut orders),
        };
        say(&answer);
    }
}

fn say(line: &str) {
    // Past the test runner's capture, in one piece.
    std::io::stdout().write_all(format!("@{line}\n").as_bytes()).expect("the parent listens");
    std::io::stdout().flush().expect("the parent listens");
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

/// The order's first words: live file, start, length, copy store, table, generation.
fn open_view(words: &[&str]) -> std::io::Result<ViewReader> {
    let open = |path: &str| File::open(path).map(OwnedFd::from);
    let within = ByteRange { start: number(words[1]), len: number(words[2]) };
    ViewReader::open(open(words[0])?, within, open(words[3])?, open(words[4])?, number(words[5]), 512)
}

/// Reads pieces of the view in any order and compares them with what the parent saw.
fn read_view(words: &[&str]) -> String {
    let view = open_view(words).expect("the parent keeps the files open");
    let mut truth = Vec::new();
    File::open(words[6]).and_then(|mut file| file.read_to_end(&mut truth)).expect("the truth");
    let mut dice = Dice(number(words[7]));
    for _ in 0..12 {
        let at = dice.roll(view.size());
        let len = dice.roll(3 * CHUNK).min(view.size() - at) as usize;
        let mut into = vec![0xA5; len];
        match view.read_at(at, &mut into) {
            Ok(()) if into == truth[at as usize..][..len] => {}
            Ok(()) => {
                let wrong = into.iter().zip(&truth[at as usize..]).position(|(a, b)| a != b).unwrap_or(0) as u64;
                return format!("WRONG at byte {} of the view", at + wrong);
            }
            Err(ReadError::Lost(_)) => return "lost".into(),
            Err(ReadError::File(error)) => return format!("ERROR {error}"),
        }
    }
    "right".into()
}

/// Copies from the view to the live disk, piece by piece, each in a grant. From the end, as `memmove` would.
fn copy_view(words: &[&str], orders: &mut impl Iterator<Item = std::io::Result<String>>) -> String {
    let view = open_view(words).expect("the parent keeps the files open");
    let disk = OpenOptions::new().read(true).write(true).open(words[0]).expect("the disk");
    let piece = number(words[6]);
    let mut at = 0;
    while at < COPY_FROM.len {
        let len = piece.min(COPY_FROM.len - at);
        say(&format!("grant {} {len}", COPY_TO + at));
        if orders.next().is_none() {
            return "gone".into();
        }
        let mut bytes = vec![0xA5; len as usize];
        match view.read_at(COPY_FROM.start + at, &mut bytes) {
            Ok(()) => disk.write_all_at(&bytes, COPY_TO + at).expect("the disk takes it"),
            Err(ReadError::Lost(_)) => return "lost".into(),
            Err(ReadError::File(error)) => return format!("ERROR {error}"),
        }
        at += len;
    }
    "right".into()
}

// ---- the target's side ----

/// A mover: started again when it was killed.
struct Mover {
    role: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Mover {
    fn start(role: &'static str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let (orders, answers) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { role, child, orders, answers: BufReader::new(answers) }
    }

    fn order(&mut self, order: &str) {
        // Of one that was killed the answer tells.
        let _ = self.orders.write_all(format!("{order}\n").as_bytes());
    }

    /// The next answer; `None` when it is dead.
    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.answers.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // The test runner's own words come without the mark, and its last ones without a line's end before ours.
            if let Some((_, answer)) = line.split_once('@') {
                return Some(answer.trim_end().to_owned());
            }
        }
    }

    /// Its process has ended when this returns.
    fn bury(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("our child");
    }

    fn again(&mut self) {
        self.bury();
        *self = Self::start(self.role);
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.bury();
    }
}

/// What the writers have begun and what was acknowledged, by writer: numbers of writes.
#[derive(Default)]
struct Ledger {
    begun: [AtomicU64; WRITERS as usize],
    done: [AtomicU64; WRITERS as usize],
    writes: AtomicU64,
    stop: AtomicBool,
}

impl Ledger {
    fn now(counters: &[AtomicU64; WRITERS as usize]) -> [u64; WRITERS as usize] {
        counters.each_ref().map(|counter| counter.load(Ordering::SeqCst))
    }
}

/// Stamps its sectors one after the other with the number of the write, for ever; sometimes a whole run of them is unmapped and
/// stamped again within one admission.
fn write_for_ever(volume: &Arc<Volume>, runtime: &tokio::runtime::Handle, ledger: &Ledger, writer: u64) {
    let mut dice = Dice(writer + 77);
    let mut next = 1;
    while !ledger.stop.load(Ordering::Relaxed) {
        let begun = &ledger.begun[writer as usize];
        begun.store(next, Ordering::SeqCst);
        let admission = runtime.block_on(volume.admit());
        let at = sector_of(writer, next);
        if dice.roll(8) == 0 {
            volume.deallocate(&admission, ByteRange { start: at, len: SECTOR }).expect("no host write fails");
        }
        volume.write_at(&admission, at, &[stamp(writer, next)]).expect("no host write fails");
        drop(admission);
        ledger.done[writer as usize].store(next, Ordering::SeqCst);
        ledger.writes.fetch_add(1, Ordering::Relaxed);
        next += 1;
        if dice.roll(16) == 0 {
            thread::sleep(Duration::from_micros(dice.roll(300)));
        }
    }
}

/// The sector that a writer's write number `number` goes to: spread over all hot chunks, each of them again after [`SECTORS`] writes.
fn sector_of(writer: u64, number: u64) -> u64 {
    // An odd step through a count that is no multiple of it meets every sector.
    const STEP: u64 = 41;
    const { assert!(!SECTORS.is_multiple_of(STEP)) };
    (number * STEP % SECTORS * WRITERS + writer) * SECTOR
}

fn stamp(writer: u64, number: u64) -> Bytes {
    let words = [number, writer, !number];
    words.iter().flat_map(|word| word.to_le_bytes()).cycle().take(SECTOR as usize).collect()
}

/// Asserts that of each writer's writes just a prefix is in the view: none of those begun later, and all acknowledged before.
fn assert_one_moment(view: &[u8], done_before: [u64; 3], begun_after: [u64; 3]) {
    for writer in 0..WRITERS {
        let number_at = |at: u64| u64::from_le_bytes(view[at as usize..][..8].try_into().expect("8 bytes"));
        let (low, high) = (done_before[writer as usize], begun_after[writer as usize]);
        let newest = (1..=SECTORS).map(|number| number_at(sector_of(writer, number))).max().unwrap_or(0);
        assert!((low..=high).contains(&newest), "writer {writer}: {newest} is not from {low} to {high}");
        for number in newest.saturating_sub(SECTORS - 1).max(1)..=newest {
            let at = sector_of(writer, number);
            assert!(
                view[at as usize..][..SECTOR as usize] == stamp(writer, number)[..],
                "writer {writer}: write {number} is torn or missing"
            );
        }
    }
}

/// What one round does to its snapshot.
#[derive(Clone, Copy)]
struct Cruelty {
    /// Bytes of space in the copy store.
    space: Option<u64>,
    /// The view ends after so many microseconds.
    end_after_us: Option<u64>,
    /// This mover is killed after so many microseconds.
    kill: Option<(usize, u64)>,
}

impl Cruelty {
    fn roll(dice: &mut Dice) -> Self {
        let one_in = |dice: &mut Dice, n| dice.roll(n) == 0;
        Self {
            space: one_in(dice, 10).then(|| dice.roll(5) * CHUNK),
            end_after_us: one_in(dice, 12).then(|| dice.roll(1500)),
            kill: one_in(dice, 25).then(|| (dice.roll(3) as usize, dice.roll(1500))),
        }
    }
}

#[derive(Default, Debug)]
struct Tally {
    rounds: u64,
    right: u64,
    lost: u64,
    killed: u64,
    copies: u64,
    longest_hold: Duration,
}

impl Tally {
    /// Something is proved by it.
    fn is_enough(&self) -> bool {
        self.rounds >= 100 && self.lost > 0 && self.killed > 0
    }
}

/// The words of an order that name a view's files.
fn files_of(view: &View) -> (String, Vec<OwnedFd>) {
    let source = view.source(512).expect("a raw store has a source");
    let End::View { within, generation, .. } = source.end else { panic!("a view's end") };
    let path = |n: usize| format!("/proc/{}/fd/{}", std::process::id(), source.files[n].as_raw_fd());
    (format!("{} {} {} {} {} {generation}", path(0), within.start, within.len, path(1), path(2)), source.files)
}

/// Serves a copier until it is through or dead. Its grant ends when its process has, not before.
fn serve_copier(mover: &mut Mover, volume: &Arc<Volume>, runtime: &tokio::runtime::Handle) -> Option<String> {
    loop {
        let answer = mover.answer();
        let Some(("grant", range)) = answer.as_deref().and_then(|answer| answer.split_once(' ')) else { return answer };
        let (start, len) = range.split_once(' ').expect("start and length");
        let grant = runtime.block_on(volume.grant(ByteRange { start: number(start), len: number(len) })).expect("a fair range");
        mover.order("granted");
        // The next word from it, or its end, gives the grant back; a dead one is waited for first.
        if mover.answers.fill_buf().map_or(true, <[u8]>::is_empty) {
            mover.bury();
        }
        drop(grant);
    }
}

#[test]
fn a_snapshot_is_right_or_its_readers_fail_and_no_host_write_ever_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = RawSpec { path: folder.path().join("disk.img"), size: Some(SIZE) };
    let store = Arc::new(RawStore::open(&spec).expect("a disk"));
    store.write_at(HOT * CHUNK, &[vec![0x5A; 3 * CHUNK as usize].into()]).expect("something to copy");
    let volume = Volume::new(store);
    let space = Arc::new(AtomicU64::new(u64::MAX));
    let service = {
        let (space, folder) = (Arc::clone(&space), folder.path().to_owned());
        SnapshotService::with_copy_stores(move |size| {
            let store = FaultyStore::new(Arc::new(RawStore::unnamed(&folder, size)?));
            store.limit_space(space.load(Ordering::SeqCst));
            Ok(Arc::new(store))
        })
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let ledger = Ledger::default();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (volume, handle, ledger) = (&volume, runtime.handle(), &ledger);
            scope.spawn(move || write_for_ever(volume, handle, ledger, writer));
        }
        // A failed assertion must not leave the writers running: the scope would wait for them.
        let _stop = StopAtEnd(&ledger.stop);
        let mut movers = [Mover::start("reader"), Mover::start("reader"), Mover::start("copier")];
        let mut dice = Dice(0x0FF_4057);
        let begun = Instant::now();
        while tally.rounds < ROUNDS && begun.elapsed() < if tally.is_enough() { TIME } else { PATIENCE } {
            let cruelty = Cruelty::roll(&mut dice);
            space.store(cruelty.space.unwrap_or(u64::MAX), Ordering::SeqCst);
            round(&service, &volume, runtime.handle(), &ledger, &mut movers, cruelty, &mut dice, &mut tally);
            tally.rounds += 1;
        }
    });
    println!("{tally:?}, {} host writes", ledger.writes.load(Ordering::Relaxed));
    assert!(tally.is_enough(), "too slow to prove anything: {tally:?}");
    assert!(tally.right > tally.rounds && tally.copies > tally.rounds / 2, "{tally:?}");
    assert!(ledger.writes.load(Ordering::Relaxed) > 10 * tally.rounds, "the writers were not stopped by it");
    assert_eq!(volume.quiet().in_flight, 0, "no admission and no grant is left");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[expect(clippy::too_many_arguments, reason = "the whole stage of one scene")]
fn round(
    service: &SnapshotService,
    volume: &Arc<Volume>,
    runtime: &tokio::runtime::Handle,
    ledger: &Ledger,
    movers: &mut [Mover; 3],
    cruelty: Cruelty,
    dice: &mut Dice,
    tally: &mut Tally,
) {
    let done_before = Ledger::now(&ledger.done);
    let source = Source { volume: Arc::clone(volume), range: None, keeper: Keeper::Asker };
    let request = Request { sources: vec![source], quiet: Duration::ZERO, timeout: Duration::from_secs(1) };
    let mut taken = runtime.block_on(service.take(request, |_| ())).expect("writes end soon, so the hold does");
    let begun_after = Ledger::now(&ledger.begun);
    tally.longest_hold = tally.longest_hold.max(taken.held);
    let view = taken.views.pop().expect("one");

    let mut truth = vec![0xA5; SIZE as usize];
    if view.read_at(0, &mut truth).is_err() {
        assert!(cruelty.space.is_some(), "without a reason: {:?}", view.failure());
        tally.lost += 1;
        return;
    }
    assert_one_moment(&truth, done_before, begun_after);
    let truth_file = tempfile::tempfile().expect("a file");
    truth_file.write_all_at(&truth, 0).expect("room for it");

    let (files, _open) = files_of(&view);
    let truth_path = format!("/proc/{}/fd/{}", std::process::id(), truth_file.as_raw_fd());
    let piece = [CHUNK / 2, CHUNK, 3 * CHUNK][dice.roll(3) as usize];
    let pids = movers.each_ref().map(|mover| mover.child.id());
    let [reader, other, copier] = movers;
    reader.order(&format!("{files} {truth_path} {}", dice.roll(u64::MAX) + 1));
    other.order(&format!("{files} {truth_path} {}", dice.roll(u64::MAX) + 1));
    copier.order(&format!("{files} {piece}"));
    let answers = thread::scope(|scope| {
        let answers = [
            scope.spawn(|| reader.answer()),
            scope.spawn(|| other.answer()),
            scope.spawn(|| serve_copier(copier, volume, runtime)),
        ];
        if let Some((which, after)) = cruelty.kill {
            thread::sleep(Duration::from_micros(after));
            // Not waited for yet, so the id is still its own.
            let pid = nix::unistd::Pid::from_raw(pids[which] as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("our child");
        }
        if let Some(after) = cruelty.end_after_us {
            thread::sleep(Duration::from_micros(after));
            view.end();
        }
        answers.map(|answer| answer.join().expect("no panic"))
    });
    let copied = answers[2].as_deref() == Some("right");
    for (mover, answer) in movers.iter_mut().zip(answers) {
        match answer.as_deref() {
            Some("right") => tally.right += 1,
            Some("lost") => {
                assert!(cruelty.space.is_some() || cruelty.end_after_us.is_some(), "without a reason: {:?}", view.failure());
                tally.lost += 1;
            }
            None => {
                assert!(cruelty.kill.is_some(), "a mover ended by itself");
                tally.killed += 1;
                mover.again();
            }
            Some(wrong) => panic!("{} says {wrong}", mover.role),
        }
    }
    // Killed after its answer: it answers no more.
    if let Some((which, _)) = cruelty.kill {
        movers[which].again();
    }
    if copied {
        tally.copies += 1;
        let mut there = vec![0; COPY_FROM.len as usize];
        volume.store().read_at(COPY_TO, &mut there).expect("the disk reads");
        let wanted = &truth[COPY_FROM.start as usize..][..COPY_FROM.len as usize];
        assert!(there == wanted, "the copy inside the disk is not what the view held");
    }
}
