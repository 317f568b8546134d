//! Every command of every device type, with any CDB and any parameter list, from two initiators, through dispatch into real
//! logical units: a disk in memory, a tape, and a library of one drive on a file system in memory.
//!
//! EXTENDED COPY is planned in full and then finds no mover. Input: a byte that chooses the devices, see [`devices`]; then per
//! command a byte of [`Options`], a CDB of 16 bytes, two bytes of length, Data-Out.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use protocol::scsi::{Cdb, CommandSpec, DataDirection, DeviceType, LunAddress, Status, sbc, smc, spc, ssc};
use protocol::units::BlockLength;
use target::cartridge::NewMedium;
use target::library::{Library, Wanted};
use target::lun::Device;
use target::lun::changer::Changer;
use target::lun::common::{Common, Identity};
use target::lun::disk::{Disk, DiskOptions, TRANSFER_MAX};
use target::lun::tape::Tape;
use target::mover::Movers;
use target::nexus::{Alone, LunMap, Nexus, NexusCounters};
use target::snapshot::SnapshotService;
use target::store::BlockStore;
use target::store::memory::MemoryStore;
use target::store::raw::RawStore;
use target::task::{Attribute, Execution, Response, Task};
use target::volume::Volume;
use target::xcopy::CopyManager;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use super::{Input, Scratch};

/// Small, so that a command that goes over all of it is quick.
const DISK: u64 = 1 << 20;
/// As small as that for the sake of WRITE FILEMARKS, which takes up to 16 million at once.
const TAPE: u64 = 16 << 10;
/// A command that waits for longer is aborted: POPULATE TOKEN would wait for seconds without a write. What is done meanwhile is done
/// in memory, and takes far less; no runtime's clock tells shorter times.
const WAIT: Duration = Duration::from_millis(1);
/// Longer than anything here has a reason to take, once it is aborted.
const PATIENCE: Duration = Duration::from_secs(20);
/// More would only make an input slow.
const COMMANDS_MAX: usize = 64;

/// One input.
pub fn fuzz(data: &[u8]) {
    run(data);
}

/// One input; how many commands were written as their data came.
fn run(data: &[u8]) -> usize {
    let mut input = Input(data);
    let scratch = Scratch::new();
    // One for each input: what goes on in the background ends with it.
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let luns = devices(input.byte(), scratch.path());
    let hosts = [1, 2].map(|id| nexus(id, &luns));
    let (mut count, mut in_pieces) = (0, 0);
    while !input.is_empty() && count < COMMANDS_MAX {
        count += 1;
        let options = Options(input.byte());
        let number = options.lun(luns.all().len());
        let device = luns.number(number).expect("they are numbered from 0");
        let (row, cdb, data_out) = command(&mut input, options, &device);
        let abort = CancellationToken::new();
        let task = |data_out| Task {
            nexus: Arc::clone(&hosts[usize::from(options.second_host())]),
            lun: LunAddress::from_number(number),
            tag: 1,
            attribute: Attribute::Simple,
            cdb: Cdb::new(&cdb).expect("16 bytes fit"),
            data_out,
            data_in_limit: options.data_in_limit(),
            in_place: true,
            abort: abort.clone(),
        };
        let response = runtime.block_on(async {
            let streamed = if options.streams() { stream(&device, &task, &data_out) } else { None };
            in_pieces += usize::from(streamed.is_some());
            finish(streamed.unwrap_or_else(|| device.start(task(options.cut(data_out)))), &abort).await
        });
        check(row.map_or("no command", |row| row.name), &response);
    }
    for (_, device) in luns.all() {
        hosts.iter().for_each(|host| device.common().nexus_lost(host.id));
    }
    runtime.shutdown_background();
    in_pieces
}

/// How one command is sent.
#[derive(Clone, Copy)]
struct Options(u8);

impl Options {
    /// The CDB as it comes: also unknown operation codes and reserved bits.
    const fn raw(self) -> bool {
        self.0 & 1 != 0
    }

    fn lun(self, count: usize) -> u16 {
        u16::from(self.0 >> 1 & 3) % u16::try_from(count).expect("few LUNs")
    }

    fn cut(self, data: Bytes) -> Vec<Bytes> {
        let half = data.len() / 2;
        if self.0 & 8 == 0 { vec![data] } else { vec![data.slice(..half), data.slice(half..)] }
    }

    const fn second_host(self) -> bool {
        self.0 & 16 != 0
    }

    /// Data-Out of another length than the CDB says.
    const fn misfit(self) -> bool {
        self.0 & 32 != 0
    }

    /// Data-Out comes piece by piece. Of no meaning where Data-In is limited.
    const fn streams(self) -> bool {
        self.0 & 64 != 0
    }

    const fn data_in_limit(self) -> u64 {
        [u64::MAX, 0, 255, 4096][(self.0 >> 6) as usize]
    }
}

/// A WRITE whose data comes piece by piece, and is written meanwhile; `None` for one that is not.
fn stream(device: &Device, task: &impl Fn(Vec<Bytes>) -> Task, data_out: &Bytes) -> Option<Execution> {
    let mut write = device.stream(task(Vec::new()), data_out.len() as u64)?;
    let mut left = data_out.clone();
    for part in [2, 2, 1, 1] {
        write.write((left.len() / part) as u64, |length| vec![left.split_to(length as usize)]);
        if let Some(work) = write.work_ahead() {
            work();
        }
    }
    Some(write.end(task(vec![left])))
}

/// A command as its row says it may be, with Data-Out as long as the CDB says, unless the options want it otherwise.
fn command(input: &mut Input<'_>, options: Options, device: &Device) -> (Option<&'static CommandSpec>, [u8; 16], Bytes) {
    let mut cdb: [u8; 16] = input.array();
    let rows = rows(device);
    let of_cdb = |cdb: &[u8; 16]| Cdb::new(cdb).and_then(|cdb| rows.iter().copied().find(|row| row.matches(&cdb)));
    let mut row = of_cdb(&cdb);
    if !options.raw() {
        let chosen = row.unwrap_or(rows[usize::from(cdb[0]) % rows.len()]);
        cdb[0] = chosen.opcode;
        let usage = chosen.usage.iter().copied().chain(std::iter::repeat(0));
        cdb.iter_mut().zip(usage).skip(1).for_each(|(byte, usage)| *byte &= usage);
        if let Some(action) = chosen.service_action {
            cdb[1] = cdb[1] & !0x1F | action as u8;
        }
        row = Some(chosen);
    }
    let length = usize::from(input.short()) % 5000;
    let mut data_out = input.take(length).to_vec();
    if !options.misfit() && row.is_some_and(|row| row.data == DataDirection::Out) {
        fit(&mut cdb, &mut data_out, device);
    }
    (row, cdb, data_out.into())
}

fn rows(device: &Device) -> Vec<&'static CommandSpec> {
    let own = match device {
        Device::Disk(_) => sbc::COMMANDS,
        Device::Tape(_) => ssc::COMMANDS,
        Device::Changer(_) => smc::COMMANDS,
    };
    [own, spc::COMMANDS].concat()
}

/// Makes a CDB and its Data-Out agree: a parameter list is counted, blocks are made as many as are announced.
fn fit(cdb: &mut [u8; 16], data_out: &mut Vec<u8>, device: &Device) {
    let block = match device {
        Device::Disk(disk) => disk.block_length().0 as usize,
        Device::Tape(_) | Device::Changer(_) => 1,
    };
    let blocks = match (cdb[0], block) {
        (0x0A, 1) => return count(&mut cdb[2..5], data_out.len()),
        (0x15, _) => return count(&mut cdb[4..5], data_out.len()),
        (0x1D, _) => return count(&mut cdb[3..5], data_out.len()),
        (0x42 | 0x48 | 0x4C | 0x55, _) => return count(&mut cdb[7..9], data_out.len()),
        (0x5F, _) => return count(&mut cdb[5..9], data_out.len()),
        (0x83 | 0x8D, _) => return count(&mut cdb[10..14], data_out.len()),
        (0xA4 | 0xB5, _) => return count(&mut cdb[6..10], data_out.len()),
        (0xB6, _) => return count(&mut cdb[8..10], data_out.len()),
        (0x0A, _) => few(&mut cdb[4..5]),
        (0x2A | 0x2E | 0x2F, _) => few(&mut cdb[7..9]),
        (0x89, _) => 2 * few(&mut cdb[13..14]),
        (0x8A | 0x8B | 0x8E | 0x8F, _) => few(&mut cdb[10..14]),
        (0x9C, _) => few(&mut cdb[12..14]),
        (0xAA | 0xAE | 0xAF, _) => few(&mut cdb[6..10]),
        (0x41 | 0x93, _) => 1,
        _ => return,
    };
    *data_out = if data_out.is_empty() { vec![0] } else { std::mem::take(data_out) };
    *data_out = data_out.iter().copied().cycle().take(blocks * block).collect();
}

/// Writes a number into a field, cut to what it holds.
fn count(field: &mut [u8], number: usize) {
    let bytes = (number as u32).to_be_bytes();
    let width = field.len();
    field.copy_from_slice(&bytes[bytes.len() - width..]);
}

/// Keeps a number of blocks small; what it is then.
fn few(field: &mut [u8]) -> usize {
    let (last, front) = field.split_last_mut().expect("a field has a byte");
    front.fill(0);
    *last &= 7;
    usize::from(*last)
}

async fn finish(execution: Execution, abort: &CancellationToken) -> Response {
    match execution {
        Execution::Done(response) => response,
        Execution::Blocking(run) | Execution::Alone(run) => run(),
        Execution::Async(mut future) => match tokio::time::timeout(WAIT, &mut future).await {
            Ok(response) => response,
            Err(_) => {
                abort.cancel();
                tokio::time::timeout(PATIENCE, future).await.expect("an aborted command ends")
            }
        },
    }
}

fn check(name: &str, response: &Response) {
    let data_in: u64 = response.data_in.iter().map(|part| part.len() as u64).sum();
    assert!(data_in <= TRANSFER_MAX, "{name}: {data_in} bytes of Data-In");
    assert_eq!(response.status == Status::CheckCondition, response.sense.is_some(), "{name}: {response:?}");
    assert!(response.sense_bytes().len() <= 252, "{name}");
    // What is left where it lies is there to be sent.
    std::hint::black_box(response.data_in.iter().flat_map(|part| part.iter().step_by(512)).fold(0, |sum, byte| sum ^ byte));
}

/// Bit 0: blocks of 4096 bytes; bit 1: a library in the place of the tape; bit 2: a removable disk; bit 3: a write-protected one;
/// bit 4: a thick one; bit 5: state is kept in files; bit 6: the disk is a file, whose blocks are read in place.
fn devices(options: u8, folder: &Path) -> Arc<LunMap> {
    let snapshots = Arc::new(SnapshotService::with_copy_stores(|size| Ok(Arc::new(MemoryStore::new(size)))));
    let copies = CopyManager::new(Movers::new(Some(PathBuf::from("/nonexistent/offhost-mover"))), snapshots);
    let common = |backing: &str, kind: DeviceType| {
        let copies = (kind != DeviceType::Changer).then(|| Arc::clone(&copies) as _);
        let common = Common::new(Identity::new("iqn.2026-01.org.offhost:fuzz", backing, "FUZZ"), copies);
        if options & 32 == 0 { common } else { common.keep_in(folder).expect("a folder in memory") }
    };
    let disk = DiskOptions {
        read_only: options & 8 != 0,
        removable: options & 4 != 0,
        thin: options & 16 == 0,
        threshold_percent: (options & 16 == 0).then_some(50),
        ..BlockLength(if options & 1 == 0 { 512 } else { 4096 }).into()
    };
    let store: Arc<dyn BlockStore> = if options & 64 == 0 {
        Arc::new(MemoryStore::new(DISK))
    } else {
        Arc::new(RawStore::unnamed(folder, DISK).expect("a file in memory"))
    };
    let volume = Volume::new(store);
    let disk = Disk::open(common("disk", DeviceType::Disk), volume, disk).expect("a disk in memory");
    let luns = LunMap::default();
    luns.add(0, Device::Disk(disk));
    if options & 2 == 0 {
        let tape = Tape::open(common("tape", DeviceType::Tape), &folder.join("shelf"), NewMedium::of_capacity(TAPE))
            .expect("a shelf in memory");
        luns.add(1, Device::Tape(tape));
        return Arc::new(luns);
    }
    let library = Library::open(&folder.join("library")).expect("a library in memory");
    let wanted =
        Wanted { drives: Some(1), slots: Some(3), mail: Some(1), cartridges: Some(2), new: NewMedium::of_capacity(TAPE) };
    library.arrange(&wanted).expect("room for all");
    let drive = Tape::empty(common("drive", DeviceType::Tape));
    library.attach(0, &drive).expect("the only drive");
    luns.add(1, Device::Changer(Changer::new(common("library", DeviceType::Changer), library)));
    luns.add(2, Device::Tape(drive));
    Arc::new(luns)
}

fn nexus(id: u64, luns: &Arc<LunMap>) -> Arc<Nexus> {
    Arc::new(Nexus {
        id,
        target: "iqn.2026-01.org.offhost:fuzz".to_owned(),
        initiator: format!("iqn.2026-01.org.offhost:peer-{id}"),
        isid: [0; 6],
        portal_group: 1,
        luns: Arc::clone(luns),
        counters: Arc::new(NexusCounters::default()),
        peers: Weak::<Alone>::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::drive::seeds;

    #[test]
    fn a_kept_input_writes_blocks_as_their_data_comes() {
        let reached = seeds("cdb").iter().map(|seed| run(seed)).sum::<usize>();
        assert!(reached > 0);
    }
}
