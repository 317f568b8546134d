//! Runs a target over inputs that are kept, and over changes of them, without any instrumentation.
//!
//! Every input runs on a thread of its own that is watched: one that panics or does not end is written to a file, whose name the
//! report tells. Changes come from a seeded generator, so that a run can be had again. Finds what lies near the seeds, not new
//! paths: that is libFuzzer's, from whose corpora the seeds come.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Fuzz, target};

/// No input has a reason to take as long, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest input made.
const LENGTH_MAX: usize = 16 << 10;

/// Runs a target over each file of its folder of seeds; how many there were.
///
/// # Panics
/// At the first input that the target does not survive, and when there is no seed.
pub fn replay(name: &str) -> u64 {
    let seeds = seeds(name);
    let mut inputs = seeds.iter();
    run(name, || inputs.next().cloned())
}

/// Runs a target over changed seeds for a time; how many there were.
///
/// # Panics
/// As [`replay`].
pub fn change_for(name: &str, time: Duration, seed: u64) -> u64 {
    let seeds = seeds(name);
    let end = Instant::now() + time;
    let mut random = StdRng::seed_from_u64(seed);
    run(name, || (Instant::now() < end).then(|| changed(&seeds, &mut random)))
}

pub(super) fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("seeds").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    // The order in which a folder is read is no part of a run.
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| fs::read(file).expect("a readable seed")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Runs what `next` gives until it gives nothing more.
fn run(name: &str, mut next: impl FnMut() -> Option<Vec<u8>>) -> u64 {
    let worker = Worker::start(target(name));
    let mut inputs = 0;
    while let Some(input) = next() {
        worker.work.send(input.clone()).expect("the worker waits for its next input");
        if let Err(error) = worker.done.recv_timeout(PATIENCE) {
            let problem = if error == RecvTimeoutError::Timeout { "does not end" } else { "panics, see above" };
            panic!("{name} {problem} with the input kept in {}", keep(name, &input).display());
        }
        inputs += 1;
    }
    inputs
}

/// A thread that runs inputs one by one.
struct Worker {
    work: Sender<Vec<u8>>,
    done: mpsc::Receiver<()>,
}

impl Worker {
    fn start(fuzz: Fuzz) -> Self {
        let (work, inputs) = mpsc::channel::<Vec<u8>>();
        let (said, done) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(input) = inputs.recv() {
                fuzz(&input);
                if said.send(()).is_err() {
                    return;
                }
            }
        });
        Self { work, done }
    }
}

/// Writes an input to where cargo-fuzz puts its own.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let folder = root().join("artifacts").join(name);
    let file = folder.join(format!("kept-{}", blake3::hash(input).to_hex().split_at(16).0));
    if let Err(error) = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input)) {
        eprintln!("{}: {error}; the input is {input:02x?}", file.display());
    }
    file
}

/// A seed with one to eight changes.
fn changed(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = pick(seeds, random).clone();
    for _ in 0..random.random_range(1..=8) {
        change(&mut input, seeds, random);
    }
    input.truncate(LENGTH_MAX);
    input
}

fn pick<'a>(seeds: &'a [Vec<u8>], random: &mut StdRng) -> &'a Vec<u8> {
    &seeds[random.random_range(0..seeds.len())]
}

/// Values at which counts and lengths turn over.
const EDGES: [u8; 10] = [0x00, 0x01, 0x02, 0x03, 0x08, 0x10, 0x7F, 0x80, 0xFE, 0xFF];

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    if input.is_empty() {
        input.push(random.random());
        return;
    }
    let place = random.random_range(0..input.len());
    let end = (place + random.random_range(1..=64)).min(input.len());
    match random.random_range(0..9) {
        0 => input[place] ^= 1 << random.random_range(0..8),
        1 => input[place] = random.random(),
        2 => input[place] = EDGES[random.random_range(0..EDGES.len())],
        3 => input[place] = input[place].wrapping_add(if random.random() { 1 } else { 0xFF }),
        4 => input.insert(place, random.random()),
        5 => drop(input.drain(place..end)),
        6 => {
            let piece = input[place..end].to_vec();
            let at = random.random_range(0..=input.len());
            input.splice(at..at, piece);
        }
        7 => {
            let other = pick(seeds, random);
            let from = random.random_range(0..=other.len());
            input.truncate(place);
            input.extend_from_slice(&other[from..]);
        }
        _ => input[place..end].fill(EDGES[random.random_range(0..EDGES.len())]),
    }
}
