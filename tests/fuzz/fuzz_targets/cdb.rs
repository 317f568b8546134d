//! Every command of a disk and of a tape, with any CDB and any Data-Out, through dispatch.
//!
//! The disk lies in memory, the tape on a file system in memory. EXTENDED COPY is planned in full and then finds no mover.
//! Input: per command an option byte, the row, the CDB, two bytes of length, Data-Out.
#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use offhost_fuzz::{Input, Scratch};
use protocol::scsi::{Cdb, CommandSpec, LunAddress, Status, sbc, spc, ssc};
use protocol::units::BlockLength;
use target::lun::Device;
use target::lun::common::{Common, Identity};
use target::lun::disk::{Disk, TRANSFER_MAX};
use target::lun::tape::Tape;
use target::mover::Movers;
use target::nexus::{LunMap, Nexus, NexusCounters};
use target::store::memory::MemoryStore;
use target::task::{Attribute, Execution, Response, Task};
use target::volume::Volume;
use target::xcopy::CopyManager;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// Small, so that a command that goes over all of it is quick.
const DISK: u64 = 1 << 20;
const TAPE: u64 = 1 << 20;
/// Longer than anything here has a reason to take.
const PATIENCE: Duration = Duration::from_secs(5);

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let scratch = Scratch::new();
    let nexus = nexus(&scratch, if input.byte() & 1 == 0 { 512 } else { 4096 });
    let rows: Vec<&CommandSpec> = [sbc::COMMANDS, ssc::COMMANDS, spc::COMMANDS].concat();
    let mut abort = None;
    while !input.is_empty() {
        let (options, row) = (input.byte(), usize::from(input.byte()));
        let row = rows[row % rows.len()];
        let mut cdb: [u8; 16] = input.array();
        if options & 1 == 0 {
            cdb[0] = row.opcode;
            cdb.iter_mut().zip(row.usage).skip(1).for_each(|(byte, usage)| *byte &= usage);
            cdb.iter_mut().skip(row.usage.len()).for_each(|byte| *byte = 0);
            if let Some(action) = row.service_action {
                cdb[1] = cdb[1] & !0x1F | action as u8;
            }
        }
        let length = usize::from(input.short()) % 5000;
        let data_out = Bytes::copy_from_slice(input.take(length));
        let half = data_out.len() / 2;
        let number = u16::from(options >> 1 & 1);
        let task = Task {
            nexus: Arc::clone(&nexus),
            lun: LunAddress::from_number(number),
            tag: 1,
            attribute: Attribute::Simple,
            cdb: Cdb::new(&cdb).expect("16 bytes fit"),
            data_out: if options & 4 == 0 { vec![data_out] } else { vec![data_out.slice(..half), data_out.slice(half..)] },
            data_in_limit: u64::from(options) << 12,
            abort: CancellationToken::new(),
        };
        abort = Some(task.abort.clone());
        let device = nexus.luns.number(number).expect("both are there");
        let response = RUNTIME.block_on(async {
            match device.start(task) {
                Execution::Done(response) => response,
                Execution::Blocking(run) => run(),
                Execution::Async(future) => tokio::time::timeout(PATIENCE, future).await.expect("a command ends"),
            }
        });
        check(row, &response);
    }
    drop(abort);
});

fn check(row: &CommandSpec, response: &Response) {
    let data_in: u64 = response.data_in.iter().map(|part| part.len() as u64).sum();
    assert!(data_in <= TRANSFER_MAX, "{}: {data_in} bytes of Data-In", row.name);
    assert_eq!(response.status == Status::CheckCondition, response.sense.is_some(), "{}: {response:?}", row.name);
    assert!(response.sense_bytes().len() <= 252, "{}", row.name);
}

fn nexus(scratch: &Scratch, block_length: u32) -> Arc<Nexus> {
    let copies = CopyManager::new(Movers::new(Some(PathBuf::from("/nonexistent/offhost-mover"))));
    let common = |backing: &str| {
        Common::new(Identity::new("iqn.2026-01.org.offhost:fuzz", backing, "FUZZ"), Some(Arc::clone(&copies) as _))
    };
    let disk = Disk::new(common("disk"), Volume::new(Arc::new(MemoryStore::new(DISK))), BlockLength(block_length));
    let tape = Tape::open(common("tape"), scratch.path(), Some(TAPE)).expect("a shelf in memory");
    let luns = LunMap::default();
    luns.add(0, Device::Disk(disk));
    luns.add(1, Device::Tape(tape));
    Arc::new(Nexus {
        id: 1,
        initiator: "iqn.2026-01.org.offhost:peer".into(),
        isid: [0; 6],
        portal_group: 1,
        luns: Arc::new(luns),
        counters: Arc::new(NexusCounters::default()),
        peers: std::sync::Weak::<target::nexus::Alone>::new(),
    })
}
