//! EXTENDED COPY against `cp`, side by side in one run: disk to tape, tape to disk, disk to disk, many small extents, one small
//! command, and by reference.
//!
//! `cargo build --release && cargo bench -p offhost-tests --bench copies [-- GIB ROUNDS [XFS_GIB]]`, and any of `files`, `extents`,
//! `command` and `reference` behind it where not all parts are wanted; as root with xfsprogs for the part by reference. Page cache
//! warm, sums on (CRC32C and BLAKE3 of every record), both sides without waiting for the disk but for the tape, whose copies end
//! synchronized: so the files lie on tmpfs, where that costs neither side anything. A virtual machine may have to ask its host for
//! memory that nobody used for a while, which costs more than a copy does: as much as each run needs is touched right before it, for
//! `cp` as for the others; a disk is overwritten and needs none. What they wrote before is gone by then: a long image is freed beside
//! the copy that overwrites it, on a processor that the copy wants. Rates are medians; what counts are the ratios.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offhost_tests::control::status;
use offhost_tests::copies::disk_to_disk;
use offhost_tests::pattern;
use offhost_tests::programs::{Target, program};
use offhost_tests::reflink::{self, Reflinks};
use protocol::units::Lba;
use protocol::xcopy::{CscdDescriptor, List, Segment};
use sim::client::{Client, Options};

const FROM: u16 = 0;
const TO: u16 = 1;
const TAPE: u16 = 2;
const RECORD: u32 = 1 << 18;
const SMALL: u64 = 4096;

fn main() -> Result<()> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let number = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
    let (gib, rounds, xfs_gib) = (number(0, 4), number(1, 3) as usize, number(2, 10));
    let named = |part: &&str| std::env::args().any(|argument| argument == *part);
    let mut parts: Vec<_> = PARTS.iter().copied().filter(named).collect();
    if parts.is_empty() {
        parts = PARTS.to_vec();
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        through_memory(gib, rounds, &parts).await?;
        if parts.contains(&"reference") { by_reference(xfs_gib).await } else { Ok(()) }
    })
}

const PARTS: [&str; 4] = ["files", "extents", "command", "reference"];

/// What a run begins with.
#[derive(PartialEq)]
enum Cartridge {
    Blank,
    Rewound,
    Unused,
}

/// A target with a disk that is full, one to write, and a tape.
struct Bench {
    target: Target,
    client: Client,
    folder: PathBuf,
    bytes: u64,
}

async fn through_memory(gib: u64, rounds: usize, parts: &[&str]) -> Result<()> {
    if parts == ["reference"] {
        return Ok(());
    }
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    pattern::image(&folder.path().join("from.img"), 1, gib << 10)?;
    let to = format!("to.img:{gib}GiB");
    let target = Target::start(folder.path(), &["--disk", "from.img", "--disk", &to, "--tape", "shelf"])?;
    let client = connect(&target, 3).await?;
    let bench = Bench { target, client, folder: folder.path().to_owned(), bytes: gib << 30 };
    say_if_memory_goes_away();
    println!(
        "{gib} GiB in {}, {rounds} rounds after one that does not count; rates as multiples of cp's",
        bench.folder.display()
    );
    if parts.contains(&"files") {
        bench.files(rounds).await?;
    }
    if parts.contains(&"extents") {
        bench.extents(rounds).await?;
    }
    if parts.contains(&"command") {
        bench.small_command().await?;
    }
    let said = status(&bench.target.control())?;
    for mover in &said.movers {
        println!("mover {}: {} MiB of memory now, at most {} MiB", mover.pid, mover.memory >> 20, mover.memory_limit >> 20);
    }
    println!("by method: {:?}", said.copies.bytes_by_method);
    Ok(())
}

impl Bench {
    async fn files(&self, rounds: usize) -> Result<()> {
        let (out, back, disks) = (self.to_tape().await?, self.off_tape().await?, self.disks().await?);
        let mut times: [Vec<f64>; 4] = Default::default();
        for round in 0..=rounds {
            let taken = [
                copy(&self.folder.join("from.img"), &self.folder.join("cp.img"), self.bytes)?,
                self.run(TAPE, &out, Cartridge::Blank, self.bytes).await?,
                self.run(TO, &back, Cartridge::Rewound, 0).await?,
                self.run(TO, &disks, Cartridge::Unused, 0).await?,
            ];
            if round > 0 {
                times.iter_mut().zip(taken).for_each(|(times, seconds)| times.push(seconds));
            }
        }
        let [cp, out, back, disks] = times.map(|mut seconds| median(&mut seconds));
        let rate = |seconds: f64| self.bytes as f64 / seconds / 1e9;
        println!("cp --reflink=never   {cp:.3} s, {:.2} GB/s", rate(cp));
        for (what, seconds) in [("disk to tape", out), ("tape to disk", back), ("disk to disk", disks)] {
            println!("{what:20} {seconds:.3} s, {:.2} GB/s, {:.2} x cp", rate(seconds), cp / seconds);
        }
        Ok(())
    }

    async fn extents(&self, rounds: usize) -> Result<()> {
        let extents = 100_000.min(self.bytes / SMALL / 2);
        let bytes = extents * SMALL;
        let (scattered, one) = (self.scattered(extents).await?, self.one_extent(bytes).await?);
        let mut times: [Vec<f64>; 2] = Default::default();
        for round in 0..=rounds {
            let taken = [
                self.run(TAPE, &scattered, Cartridge::Blank, bytes).await?,
                self.run(TAPE, &one, Cartridge::Blank, bytes).await?,
            ];
            if round > 0 {
                times.iter_mut().zip(taken).for_each(|(times, seconds)| times.push(seconds));
            }
        }
        let [scattered, one] = times.map(|mut seconds| median(&mut seconds));
        println!(
            "{extents} extents of 4 KiB to tape {scattered:.3} s, one extent {one:.3} s: {:.2} of its rate",
            one / scattered
        );
        Ok(())
    }

    /// Lists of at most 4,096 segments, each carried by one command.
    async fn to_tape(&self) -> Result<Vec<Bytes>> {
        self.segments(self.bytes, false).await
    }

    async fn off_tape(&self) -> Result<Vec<Bytes>> {
        self.segments(self.bytes, true).await
    }

    async fn one_extent(&self, bytes: u64) -> Result<Vec<Bytes>> {
        self.segments(bytes, false).await
    }

    async fn segments(&self, bytes: u64, back: bool) -> Result<Vec<Bytes>> {
        Ok(vec![records(&self.client, (if back { TO } else { FROM }, TAPE), bytes, RECORD, back).await?])
    }

    async fn disks(&self) -> Result<Vec<Bytes>> {
        Ok(vec![disk_to_disk(&self.client, (FROM, Lba(0)), (TO, Lba(0)), self.bytes).await?])
    }

    /// Every second 4 KiB, in an order that jumps, a segment each: as the files of a volume lie.
    async fn scattered(&self, extents: u64) -> Result<Vec<Bytes>> {
        let places = self.bytes / SMALL;
        let mut lists = Vec::new();
        let mut next = 0_u64;
        // A multiple of the records' 64 extents.
        for first in (0..extents).step_by(4096) {
            let mut list = List::new(1);
            let source = list.cscd(CscdDescriptor::disk(self.client.lun(FROM).cscd_designator().await?, 512));
            let destination = list.cscd(CscdDescriptor::tape(self.client.lun(TAPE).cscd_designator().await?));
            let count = (extents - first).min(4096) / 64 * 64;
            for index in 0..count {
                next = (next + 7_919 * 2) % places;
                let last = index + 1 == count;
                let from = Lba(next * SMALL / 512);
                let (transfer_length, bytes) = (RECORD, SMALL as u32);
                let segment = Segment::BlockOffsetToStream { source, destination, transfer_length, bytes, from, offset: 0 };
                if last {
                    list.push(segment)
                } else {
                    list.push_cat(segment)
                };
            }
            lists.push(list.emit().into());
        }
        Ok(lists)
    }

    /// Seconds, with so much memory at hand.
    async fn run(&self, lun: u16, lists: &[Bytes], cartridge: Cartridge, bytes: u64) -> Result<f64> {
        let tape = self.client.lun(TAPE);
        if cartridge != Cartridge::Unused {
            tape.rewind().await?;
        }
        if cartridge == Cartridge::Blank {
            tape.write_filemarks(1).await?;
            tape.rewind().await?;
        }
        have_memory(bytes);
        let start = Instant::now();
        for list in lists {
            self.client.lun(lun).extended_copy(list.clone()).await?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    async fn small_command(&self) -> Result<()> {
        let list = disk_to_disk(&self.client, (FROM, Lba(0)), (TO, Lba(0)), 4096).await?;
        let mut times = Vec::new();
        for _ in 0..1_000 {
            times.push(self.run(TO, std::slice::from_ref(&list), Cartridge::Unused, 0).await?);
        }
        println!("one command of one 4 KiB segment, disk to disk: {:.0} µs from CDB to status", median(&mut times) * 1e6);
        Ok(())
    }
}

async fn by_reference(gib: u64) -> Result<()> {
    if let Some(why) = reflink::obstacle() {
        println!("SKIPPED by reference: {why}");
        return Ok(());
    }
    let files = Reflinks::new(program("offhost-mover").parent().context("a folder")?, (gib + 2) << 30)?;
    pattern::image(&files.path().join("from.img"), 1, gib << 10)?;
    let to = format!("to.img:{gib}GiB");
    let target = Target::start(files.path(), &["--disk", "from.img", "--disk", &to, "--tape", "shelf,layout=aligned"])?;
    let client = connect(&target, 3).await?;
    let list = disk_to_disk(&client, (FROM, Lba(0)), (TO, Lba(0)), gib << 30).await?;
    // The first clone waits until what was just written has a place on the disk.
    std::fs::File::open(files.path().join("from.img"))?.sync_all()?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        client.lun(TO).extended_copy(list.clone()).await?;
        times.push(start.elapsed().as_secs_f64());
    }
    println!("{gib} GiB from disk to disk by reference, on XFS: {:.3} s", median(&mut times));
    let methods = status(&target.control())?.copies.bytes_by_method;
    ensure!(methods.reference == 3 * (gib << 30), "{methods:?}");
    let list = records(&client, (FROM, TAPE), gib << 30, 1 << 20, false).await?;
    times.clear();
    for _ in 0..3 {
        client.lun(TAPE).rewind().await?;
        let start = Instant::now();
        client.lun(TAPE).extended_copy(list.clone()).await?;
        times.push(start.elapsed().as_secs_f64());
    }
    println!("{gib} GiB from disk to an aligned tape by reference, records of 1 MiB, on XFS: {:.3} s", median(&mut times));
    let after = status(&target.control())?.copies.bytes_by_method;
    ensure!(after.since(methods).reference == 3 * (gib << 30), "{after:?}");
    Ok(())
}

/// Whole records from the beginning of a disk to a tape where it stands, or back: `(disk, tape)`.
async fn records(client: &Client, (disk, tape): (u16, u16), bytes: u64, record: u32, back: bool) -> Result<Bytes> {
    let mut list = List::new(1);
    let disk = list.cscd(CscdDescriptor::disk(client.lun(disk).cscd_designator().await?, 512));
    let tape = list.cscd(CscdDescriptor::tape(client.lun(tape).cscd_designator().await?));
    let blocks_each = u64::from(record) / 512;
    // As many whole records as a 16-bit count of blocks carries.
    let (most, mut done) = (u64::from(u16::MAX) / blocks_each * blocks_each, 0);
    let end = bytes / u64::from(record) * blocks_each;
    while done < end {
        let blocks = most.min(end - done) as u16;
        let at = Lba(done);
        list.push(if back {
            Segment::StreamToBlock { source: tape, destination: disk, transfer_length: record, blocks, to: at }
        } else {
            Segment::BlockToStream { source: disk, destination: tape, transfer_length: record, blocks, from: at }
        });
        done += u64::from(blocks);
    }
    Ok(list.emit().into())
}

async fn connect(target: &Target, luns: u16) -> Result<Client> {
    let client = Client::connect(&target.url(FROM).parse()?, Options::named("iqn.2026-01.test:bench")).await?;
    for lun in 0..luns {
        client.lun(lun).test_unit_ready().await?;
    }
    Ok(client)
}

/// Seconds of a copy to a new file, which is gone behind it.
fn copy(from: &Path, to: &Path, bytes: u64) -> Result<f64> {
    have_memory(bytes);
    let start = Instant::now();
    ensure!(Command::new("cp").arg("--reflink=never").arg(from).arg(to).status()?.success(), "cp");
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(to)?;
    Ok(seconds)
}

/// A guest that gives free memory back to its host touches it for the first time again and again, and that is what is measured then.
fn say_if_memory_goes_away() {
    let order = "/sys/module/page_reporting/parameters/page_reporting_order";
    // Blocks of more than 2^10 pages are never free: so much says that none are given back.
    let reports = std::fs::read_to_string(order).is_ok_and(|found| found.trim().parse().is_ok_and(|found: u32| found <= 10));
    if reports {
        println!("free memory goes back to the host, which makes cp most of all slow: `echo 11 > {order}` has it kept");
    }
}

/// Has every page of so much memory touched, and free.
fn have_memory(bytes: u64) {
    drop(std::hint::black_box(vec![1_u8; bytes as usize]));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
