//! What unit tests of logical units need: a store in memory, a nexus, tasks, and a way to carry one out.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use protocol::scsi::{Cdb, LunAddress};
use protocol::units::{BlockLength, ByteRange};
use protocol::wire::hex;
use tokio_util::sync::CancellationToken;

use super::Device;
use super::common::{Common, Identity};
use super::disk::Disk;
use crate::nexus::{Alone, LunMap, Nexus, NexusCounters};
use crate::store::{Allocation, BlockStore, LocalEnd};
use crate::task::{Attribute, Execution, Response, Task};
use crate::volume::Volume;

/// A store in memory, with 4096-byte pages that are there or not.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    bytes: Mutex<Vec<u8>>,
    allocated: Mutex<Vec<bool>>,
    read_only: bool,
    /// `read_now` finds everything.
    pub(crate) cached: AtomicBool,
    /// A write need not wait.
    pub(crate) buffered: AtomicBool,
    pub(crate) syncs: AtomicUsize,
    /// The error number that the next write gives.
    pub(crate) fail_write: Mutex<Option<i32>>,
}

const PAGE: usize = 4096;

impl MemoryStore {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            bytes: Mutex::new(vec![0; size]),
            allocated: Mutex::new(vec![false; size.div_ceil(PAGE)]),
            read_only: false,
            cached: AtomicBool::new(true),
            buffered: AtomicBool::new(false),
            syncs: AtomicUsize::new(0),
            fail_write: Mutex::new(None),
        }
    }

    /// One that cannot be written.
    pub(crate) fn read_only(size: usize) -> Self {
        Self { read_only: true, ..Self::new(size) }
    }
}

impl BlockStore for MemoryStore {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(at as usize..at as usize + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn read_now(&self, at: u64, into: &mut [u8]) -> io::Result<bool> {
        let cached = self.cached.load(Ordering::Relaxed);
        if cached {
            self.read_at(at, into)?;
        }
        Ok(cached)
    }

    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()> {
        if let Some(number) = self.fail_write.lock().unwrap().take() {
            return Err(io::Error::from_raw_os_error(number));
        }
        let data = data.concat();
        let (mut bytes, mut allocated) = (self.bytes.lock().unwrap(), self.allocated.lock().unwrap());
        bytes[at as usize..at as usize + data.len()].copy_from_slice(&data);
        if !data.is_empty() {
            allocated[at as usize / PAGE..=(at as usize + data.len() - 1) / PAGE].fill(true);
        }
        Ok(())
    }

    fn buffered(&self) -> bool {
        self.buffered.load(Ordering::Relaxed)
    }

    fn deallocate(&self, range: ByteRange) -> io::Result<()> {
        let (start, end) = (range.start as usize, range.end() as usize);
        self.bytes.lock().unwrap()[start..end].fill(0);
        let (first, last) = (start.div_ceil(PAGE), end / PAGE);
        if first < last {
            self.allocated.lock().unwrap()[first..last].fill(false);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        let allocated = self.allocated.lock().unwrap();
        let mut runs: Vec<Allocation> = Vec::new();
        let mut at = range.start;
        while at < range.end() {
            let len = (PAGE as u64 - at % PAGE as u64).min(range.end() - at);
            let here = allocated[at as usize / PAGE];
            let full = runs.len() == limit;
            match runs.last_mut() {
                Some(last) if last.allocated == here => last.range.len += len,
                _ if full => break,
                _ => runs.push(Allocation { range: ByteRange { start: at, len }, allocated: here }),
            }
            at += len;
        }
        Ok(runs)
    }

    fn source(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn destination(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A nexus that reaches `devices`, LUN 0 first, and has been told that their power is on.
pub(crate) fn nexus(id: u64, devices: &[Device]) -> Arc<Nexus> {
    let luns = LunMap::default();
    for device in devices {
        luns.add(0, device.clone());
    }
    let nexus = Arc::new(Nexus {
        id,
        target: "iqn.2026-01.org.offhost:test".to_owned(),
        initiator: format!("iqn.2026-01.org.offhost:test-{id}"),
        isid: [0; 6],
        portal_group: 1,
        luns: Arc::new(luns),
        counters: Arc::new(NexusCounters::default()),
        peers: Weak::<Alone>::new(),
    });
    devices.iter().for_each(|device| tell_of_power(device.common(), &nexus));
    nexus
}

/// What a nexus has behind it after its first command to a logical unit.
pub(crate) fn tell_of_power(unit: &Common, nexus: &Nexus) {
    unit.attentions.know(nexus);
    let _ = unit.attentions.take(nexus.id);
}

/// A command for LUN 0, its CDB as hexadecimal text.
pub(crate) fn task(nexus: &Arc<Nexus>, cdb: &str, data_out: impl Into<Bytes>) -> Task {
    let data_out = data_out.into();
    Task {
        nexus: Arc::clone(nexus),
        lun: LunAddress::from_number(0),
        tag: 1,
        attribute: Attribute::Simple,
        cdb: Cdb::new(&hex(cdb)).expect("a CDB is short"),
        data_out: if data_out.is_empty() { Vec::new() } else { vec![data_out] },
        data_in_limit: u64::MAX,
        in_place: false,
        abort: CancellationToken::new(),
    }
}

/// Carries a command out to its end, on this thread. What waits for a hold needs a runtime of its own.
pub(crate) fn finish(execution: Execution) -> Response {
    match execution {
        Execution::Done(response) => response,
        Execution::Blocking(run) | Execution::Alone(run) => run(),
        Execution::Async(_) => panic!("the command is parked"),
    }
}

/// A disk of blocks of `block_length` on `store`, and a nexus that sees it as LUN 0.
pub(crate) fn disk_on(store: Arc<MemoryStore>, block_length: u32) -> (Arc<Disk>, Arc<Nexus>) {
    let identity = Identity::new("iqn.2026-01.org.offhost:test", "memory", "DISK");
    let disk = Disk::new(Common::new(identity, None), Volume::new(store), BlockLength(block_length));
    let nexus = nexus(1, &[Device::Disk(Arc::clone(&disk))]);
    (disk, nexus)
}
