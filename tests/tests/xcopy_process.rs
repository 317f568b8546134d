//! EXTENDED COPY carried out by a real mover process, on files: every kind of segment, and what ends a copy early.
//!
//! The target is in this process, below iSCSI: commands are handed to its logical units, so that a test can abort one, lose its
//! nexus, or look at files in between.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use offhost_tests::pattern;
use offhost_tests::programs::program;
use protocol::scsi::{Cdb, LunAddress, Sense, SenseKey, Status};
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::{CscdDescriptor, CscdId, Designator, List, Segment};
use target::cartridge::NewMedium;
use target::lun::Device;
use target::lun::common::{Common, CopyService, Identity};
use target::lun::disk::Disk;
use target::lun::tape::Tape;
use target::mover::Movers;
use target::nexus::{LunMap, Nexus, NexusCounters};
use target::snapshot::{Keeper, Request, SnapshotService, Source};
use target::store::BlockStore;
use target::store::raw::{RawSpec, RawStore};
use target::task::{Attribute, Execution, Response, Task};
use target::volume::Volume;
use target::xcopy::CopyManager;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;
const DISK: u16 = 0;
const OTHER: u16 = 1;
const TAPE: u16 = 2;

/// Two disks and a tape, a copy manager with a mover of its own, and one nexus.
struct World {
    folder: tempfile::TempDir,
    manager: Arc<CopyManager>,
    movers: Arc<Movers>,
    nexus: Arc<Nexus>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.movers.end();
    }
}

fn common(name: &str, manager: &Arc<CopyManager>) -> Common {
    Common::new(Identity::new("iqn.2026-01.org.offhost:t", name, "TEST"), Some(Arc::clone(manager) as Arc<dyn CopyService>))
}

impl World {
    fn new(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let movers = Movers::new(Some(program("offhost-mover")));
        let manager = CopyManager::new(Arc::clone(&movers), Arc::new(SnapshotService::new(folder.path().to_path_buf())));
        let luns = Arc::new(LunMap::default());
        for name in ["a.img", "b.img"] {
            let spec = RawSpec { path: folder.path().join(name), size: Some(size as u64) };
            let volume = Volume::new(Arc::new(RawStore::open(&spec).unwrap()));
            luns.add(0, Device::Disk(Disk::new(common(name, &manager), volume, BlockLength::B512)));
        }
        let shelf = folder.path().join("shelf");
        std::fs::create_dir(&shelf).unwrap();
        luns.add(0, Device::Tape(Tape::open(common("tape", &manager), &shelf, NewMedium::of_capacity(1 << 32)).unwrap()));
        let world = Self { folder, manager, movers, nexus: nexus(1, luns) };
        // The nexus has been told that it is new: a test's first command is carried out.
        for (_, device) in world.nexus.luns.all() {
            device.common().attentions.know(&world.nexus);
            let _ = device.common().attentions.take(world.nexus.id);
        }
        world.write(DISK, 0, &pattern::bytes(1, 0, size));
        world
    }

    fn file(&self, lun: u16) -> File {
        let name = if lun == DISK { "a.img" } else { "b.img" };
        File::options().read(true).write(true).open(self.folder.path().join(name)).unwrap()
    }

    fn write(&self, lun: u16, at: usize, data: &[u8]) {
        self.file(lun).write_all_at(data, at as u64).unwrap();
    }

    fn read(&self, lun: u16, at: usize, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.file(lun).read_exact_at(&mut data, at as u64).unwrap();
        data
    }

    fn device(&self, lun: u16) -> Device {
        self.nexus.luns.number(lun).unwrap()
    }

    /// A list with the three LUNs as CSCDs 0, 1 and 2.
    fn list(&self, id: u8) -> List {
        let mut list = List::new(id);
        for lun in [DISK, OTHER] {
            list.cscd(CscdDescriptor::disk(designator(&self.device(lun)), 512));
        }
        list.cscd(CscdDescriptor::tape(designator(&self.device(TAPE))));
        list
    }

    fn task(&self, cdb: &[u8], data: Vec<u8>) -> Task {
        Task {
            nexus: Arc::clone(&self.nexus),
            lun: LunAddress::from_number(TAPE),
            tag: 1,
            attribute: Attribute::Simple,
            cdb: Cdb::new(cdb).unwrap(),
            data_out: vec![data.into()],
            data_in_limit: u64::MAX,
            in_place: false,
            abort: CancellationToken::new(),
        }
    }

    /// EXTENDED COPY, sent to the tape, and what aborts it.
    fn begin(&self, list: &List) -> (JoinHandle<Response>, CancellationToken) {
        let bytes = list.emit();
        let mut cdb = [0; 16];
        cdb[0] = 0x83;
        cdb[10..14].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        let task = self.task(&cdb, bytes);
        let abort = task.abort.clone();
        (tokio::spawn(finish(self.device(TAPE).start(task))), abort)
    }

    async fn copy(&self, list: &List) -> Response {
        self.begin(list).0.await.unwrap()
    }

    async fn command(&self, lun: u16, cdb: &[u8]) -> Response {
        let task = self.task(cdb, Vec::new());
        finish(self.device(lun).start(task)).await
    }

    /// A command that must be GOOD, whatever unit attentions come first.
    async fn good(&self, lun: u16, cdb: &[u8]) -> Vec<u8> {
        for _ in 0..4 {
            let response = self.command(lun, cdb).await;
            let attention = response.sense.as_ref().is_some_and(|sense| sense.key == SenseKey::UnitAttention);
            if !attention {
                assert_eq!(response.status, Status::Good, "{:?}", response.sense);
                return response.data_in.concat();
            }
        }
        panic!("unit attentions without end");
    }

    /// The logical object number of READ POSITION, short form.
    async fn position(&self) -> u32 {
        let data = self.good(TAPE, &[0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
        u32::from_be_bytes([data[4], data[5], data[6], data[7]])
    }

    /// Waits until the mover has moved something, and gives its process.
    async fn busy_mover(&self) -> i32 {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if let Some(mover) = self.manager.movers().iter().find(|mover| mover.busy && mover.bytes_moved > 0) {
                return mover.pid as i32;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("no mover was ever busy");
    }
}

fn nexus(id: u64, luns: Arc<LunMap>) -> Arc<Nexus> {
    let counters = Arc::new(NexusCounters::default());
    let peers = std::sync::Weak::<target::nexus::Alone>::new();
    Arc::new(Nexus {
        id,
        target: "iqn.2026-01.test:t".into(),
        initiator: "iqn.2026-01.test:i".into(),
        isid: [0; 6],
        portal_group: 1,
        luns,
        counters,
        peers,
    })
}

fn designator(device: &Device) -> Designator {
    Designator::naa(&device.common().identity.naa).unwrap()
}

async fn finish(execution: Execution) -> Response {
    match execution {
        Execution::Done(response) => response,
        Execution::Blocking(run) | Execution::Alone(run) => spawn_blocking(run).await.unwrap(),
        Execution::Async(work) => work.await,
    }
}

fn sense(response: &Response) -> &Sense {
    response.sense.as_ref().unwrap_or_else(|| panic!("{response:?}"))
}

fn to_tape(blocks: u16, record: u32) -> Segment {
    Segment::BlockToStream { source: CscdId(0), destination: CscdId(2), transfer_length: record, blocks, from: Lba(0) }
}

fn open_names(pid: i32) -> Vec<String> {
    let links = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).unwrap();
    let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.unwrap().path()).unwrap();
    links.map(|entry| read(entry).display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_segment_moves_what_it_says() {
    let world = World::new(8 * MIB);
    let (disk, other, tape) = (CscdId(0), CscdId(1), CscdId(2));
    let mut list = world.list(1);
    list.inline = pattern::bytes(9, 0, 1000).into();
    list.push(to_tape(4096, 65_536));
    list.push_cat(Segment::InlineToStream { destination: tape, transfer_length: 5000, offset: 4, bytes: 996 });
    list.push(Segment::BlockOffsetToStream {
        source: disk,
        destination: tape,
        transfer_length: 5000,
        bytes: 4004,
        from: Lba(3),
        offset: 77,
    });
    list.push(Segment::EmbeddedToStream { destination: tape, transfer_length: 6, data: b"sesame".to_vec() });
    list.push(Segment::WriteFilemarks { destination: tape, immediate: false, count: 1 });
    list.push(Segment::Locate { destination: tape, object: 1 });
    list.push_cat(Segment::StreamToDiscard { source: tape, transfer_length: 65_536, bytes: 36 });
    list.push_cat(Segment::StreamToBlockOffset {
        source: tape,
        destination: other,
        transfer_length: 65_536,
        bytes: 100_000,
        to: Lba(1),
        offset: 9,
    });
    list.push(Segment::StreamToDiscard { source: CscdId::NULL_STREAM, transfer_length: 0, bytes: 0 });
    let last = list.segments.len() - 1;
    // The list's last word: drop what is left by PAD, which a null unit has not; so the tape says it.
    list.cscds[2] = list.cscds[2].clone().padded();
    list.segments[last].segment = Segment::StreamToDiscard { source: tape, transfer_length: 65_536, bytes: 0 };
    list.push(Segment::Locate { destination: tape, object: 0 });
    list.push(Segment::StreamToBlock { source: tape, destination: other, transfer_length: 65_536, blocks: 256, to: Lba(4096) });
    list.push(Segment::BlockToBlock {
        source: disk,
        destination: other,
        count_of: Default::default(),
        blocks: 2000,
        from: Lba(100),
        to: Lba(8192),
    });
    list.push(Segment::BlockOffsetToBlockOffset {
        source: disk,
        destination: other,
        bytes: 3000,
        from: Lba(2),
        from_offset: 5,
        to: Lba(12_000),
        to_offset: 7,
    });
    list.push(Segment::VerifyCscd { source: tape, test_unit_ready: false });
    world.write(OTHER, 0, &vec![0xEE; 8 * MIB]);
    let response = world.copy(&list).await;
    assert_eq!(response.sense, None);

    let content = pattern::bytes(1, 0, 8 * MIB);
    assert!(world.read(OTHER, 0, 521).iter().all(|byte| *byte == 0xEE), "in front of the byte range");
    assert!(world.read(OTHER, 521, 100_000) == content[65_536 + 36..65_536 + 36 + 100_000]);
    assert!(world.read(OTHER, 100_521, 512).iter().all(|byte| *byte == 0xEE), "behind it");
    assert!(world.read(OTHER, 4096 * 512, 131_072) == content[..131_072]);
    assert!(world.read(OTHER, 8192 * 512, 2000 * 512) == content[100 * 512..2100 * 512]);
    assert!(world.read(OTHER, 12_000 * 512 + 7, 3000) == content[2 * 512 + 5..][..3000]);
    assert_eq!(world.position().await, 2);
    // The record made of inline data and a byte range, read as any host would.
    world.good(TAPE, &[0x2B, 0, 0, 0, 0, 0, 32, 0, 0, 0]).await;
    let record = world.good(TAPE, &[0x08, 0, 0, 0x13, 0x88, 0]).await;
    assert_eq!(record, [&pattern::bytes(9, 0, 1000)[4..], &content[3 * 512 + 77..][..4004]].concat());
    assert_eq!(world.good(TAPE, &[0x08, 0, 0, 0, 6, 0]).await, b"sesame");
    let said = world.manager.status();
    assert_eq!((said.done, said.failed, said.running, said.segments), (1, 0, 0, 14));
    assert!(said.bytes_moved > 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_copied_as_it_was_while_its_disk_changes() {
    let world = World::new(8 * MIB);
    let Device::Disk(live) = world.device(DISK) else { panic!("a disk") };
    let service = SnapshotService::new(world.folder.path().to_path_buf());
    let sources = vec![Source { volume: Arc::clone(live.volume()), range: None, keeper: Keeper::Asker }];
    let wanted = Request { sources, quiet: Duration::ZERO, timeout: Duration::from_secs(5) };
    let taken = service.take(wanted, |_| ()).await.unwrap();
    let view = Volume::new(Arc::clone(&taken.views[0]) as Arc<dyn BlockStore>);
    let served = Device::Disk(Disk::new(common("view", &world.manager), view, BlockLength::B512));
    let number = world.nexus.luns.add(10, served.clone());
    let volume = Arc::clone(live.volume());
    spawn_blocking(move || {
        let admission = volume.try_admit().unwrap();
        volume.write_at(&admission, MIB as u64, &[vec![0x55; 2 * MIB].into()]).unwrap();
    })
    .await
    .unwrap();

    let mut list = world.list(1);
    let source = list.cscd(CscdDescriptor::disk(designator(&served), 512));
    let whole = Segment::BlockToBlock {
        source,
        destination: CscdId(1),
        count_of: Default::default(),
        blocks: 16_384,
        from: Lba(0),
        to: Lba(0),
    };
    list.push(whole);
    assert_eq!(world.copy(&list).await.sense, None);
    assert!(world.read(OTHER, 0, 8 * MIB) == pattern::bytes(1, 0, 8 * MIB));
    taken.views[0].end();
    let lost = world.copy(&list).await;
    assert_eq!(sense(&lost).key, SenseKey::CopyAborted, "LUN {number} is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_copy_ends_when_nothing_moves_and_the_drive_is_free_again() {
    let world = World::new(64 * MIB);
    let mut list = world.list(3);
    list.segments = vec![to_tape(65_408, 65_408).into(); 8];
    let (copying, abort) = world.begin(&list);
    world.busy_mover().await;
    let (second, _) = world.begin(&list);
    assert_eq!(sense(&second.await.unwrap()).code, (0x00, 0x16), "its list identifier is in use");
    let mut third = list.clone();
    third.id = 4;
    assert_eq!(world.copy(&third).await.status, Status::Busy, "the drive has a copy");
    abort.cancel();
    let response = copying.await.unwrap();
    assert_eq!((sense(&response).key, sense(&response).code), (SenseKey::CopyAborted, (0x2F, 0x02)));
    let position = world.position().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.position().await, position);
    assert!(position > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_its_nexus_does_not_end_a_copy() {
    let world = World::new(64 * MIB);
    let mut list = world.list(3);
    list.segments = vec![to_tape(65_408, 65_408).into(); 8];
    let (copying, _abort) = world.begin(&list);
    world.busy_mover().await;
    // The session is gone, and with it who waits for the response.
    copying.abort();
    let until = Instant::now() + Duration::from_secs(20);
    while world.manager.status().running > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((world.manager.status().done, world.position().await), (1, 8 * 512));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mover_ends_the_copy_and_leaves_whole_records_and_a_known_position() {
    let world = World::new(64 * MIB);
    let mut list = world.list(5);
    list.segments = vec![to_tape(65_408, 65_408).into(); 8];
    let (copying, _abort) = world.begin(&list);
    let pid = world.busy_mover().await;
    let names = open_names(pid);
    assert!(names.iter().all(|name| !name.contains("b.img")), "only what the job needs: {names:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let response = copying.await.unwrap();
    assert_eq!(sense(&response).key, SenseKey::CopyAborted);
    let whole = world.position().await;
    assert!(whole < 8 * 512, "killed too late to show anything");

    // Data of the records that are there is right, and a rerun on a new mover succeeds.
    world.good(TAPE, &[0x01, 0, 0, 0, 0, 0]).await;
    let content = pattern::bytes(1, 0, 65_408 * 512);
    for index in 0..whole as usize {
        let record = world.good(TAPE, &[0x08, 0, 0, 0xFF, 0x80, 0]).await;
        let at = index % 512 * 65_408;
        assert!(record == content[at..at + 65_408], "record {index}");
    }
    world.good(TAPE, &[0x01, 0, 0, 0, 0, 0]).await;
    assert_eq!(world.copy(&list).await.sense, None);
    assert_eq!(world.position().await, 8 * 512);
    assert_ne!(world.manager.movers()[0].pid as i32, pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_records_are_copied_and_encrypted_ones_refused_in_both_directions() {
    let world = World::new(MIB);
    let send = async |cdb: &[u8], data: Vec<u8>| {
        let response = finish(world.device(TAPE).start(world.task(cdb, data))).await;
        assert_eq!(response.status, Status::Good, "{cdb:02x?}: {:?}", response.sense);
    };
    world.good(TAPE, &[0; 6]).await;
    let mut compress = vec![0, 0, 0x10, 0, 0x0F, 0x0E, 0xC0, 0x80];
    compress.resize(20, 0);
    // The algorithm that there is: it cannot be chosen.
    compress[15] = 0xFF;
    send(&[0x15, 0x10, 0, 0, 20, 0], compress).await;
    let text = b"much the same ".repeat(4096);
    let record = text[..32_768].to_vec();
    send(&[0x0A, 0, 0, 0x80, 0, 0], record.clone()).await;
    let image = world.folder.path().join("shelf/OFH001L8/p0.tap");
    assert!(std::fs::metadata(&image).unwrap().len() < 8192, "it is compressed");

    let onto_disk = |transfer_length: u32| {
        let mut list = world.list(1);
        let blocks = (transfer_length / 512) as u16;
        list.push(Segment::StreamToBlock { source: CscdId(2), destination: CscdId(1), transfer_length, blocks, to: Lba(0) });
        list
    };
    send(&[0x01, 0, 0, 0, 0, 0], Vec::new()).await;
    assert_eq!(world.copy(&onto_disk(32_768)).await.sense, None);
    assert!(world.read(OTHER, 0, 32_768) == record, "as any host would read it");
    assert_eq!(world.position().await, 1);

    let mut key = vec![0, 0x10, 0, 0x30, 0x40, 0, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20];
    key.resize(52, 0x42);
    send(&[0xB5, 0x20, 0, 0x10, 0, 0, 0, 0, 0, 52, 0, 0], key).await;
    send(&[0x0A, 0, 0, 0x80, 0, 0], record.clone()).await;
    send(&[0x2B, 0, 0, 0, 0, 0, 1, 0, 0, 0], Vec::new()).await;
    let answered = |response: &Response| {
        let sense = sense(response);
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)));
        Sense::parse(&sense.forwarded[0].sense).unwrap().code
    };
    assert_eq!(answered(&world.copy(&onto_disk(32_768)).await), (0x74, 0x01), "a mover has no keys");
    assert_eq!(world.position().await, 1, "in front of the record that it could not read");

    let before = std::fs::read(&image).unwrap();
    let mut onto_tape = world.list(2);
    onto_tape.push(to_tape(64, 32_768));
    assert_eq!(answered(&world.copy(&onto_tape).await), (0x74, 0x00));
    assert!(std::fs::read(&image).unwrap() == before, "nothing was cut and nothing written");
}
