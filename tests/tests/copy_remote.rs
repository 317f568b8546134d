//! Copies with a logical unit of another iSCSI target at one end: Debian's tgt as the source of a backup and the destination of a
//! restore, a second target of ours for tapes. The initiator that orders the copies carries descriptors and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use offhost_tests::copies::read_tape;
use offhost_tests::programs::Target;
use offhost_tests::tgt::{NAME, Tgt};
use offhost_tests::{has, pattern, skip};
use protocol::control::MoverSettings;
use protocol::scsi::sense::{CopyEnd, FieldPointer};
use protocol::scsi::{LunAddress, SenseKey, Status};
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::cscd::{IscsiUnit, ServedUnit};
use protocol::xcopy::{CountOf, CscdDescriptor, CscdId, CscdName, CscdParameters, List, Segment};
use sim::client::{Client, Options, Reply, TapeRead};

const INITIATOR: &str = "iqn.2026-01.test:orders";
const STRANGER: &str = "iqn.2026-01.test:stranger";
const USER: &str = "copier";
const SECRET: &str = "not-so-secret-16";
const MIB: u64 = 1 << 20;
const RECORD: u32 = 64 << 10;
/// LUNs of the target under test.
const DISK: u16 = 0;
const TAPE: u16 = 1;
const NOT_REACHABLE: (u8, u8) = (0x0D, 0x02);
const THIRD_PARTY_DEVICE_FAILURE: (u8, u8) = (0x0D, 0x01);

/// A configuration with a disk, a tape and remote ends.
fn configure(folder: &Path, remotes: &str) {
    let text = format!(
        "data = \"data\"\n{remotes}\n[[portal]]\nlisten = \"127.0.0.1:0\"\n\n[[target]]\nname = \"iqn.2026-01.org.offhost:remote\"\n\
         [[target.lun]]\nlun = 0\ndisk = \"disk.img\"\nsize = \"16MiB\"\n[[target.lun]]\nlun = 1\ntape = \"shelf\"\n"
    );
    std::fs::write(folder.join("offhost.toml"), text).unwrap();
}

fn secret(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("secret");
    std::fs::write(&path, SECRET).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A `[[remote]]` table.
fn table(portal: &str, target: &str, lun: u16, more: &str) -> String {
    format!("[[remote]]\nportal = \"{portal}\"\ntarget = \"{target}\"\nlun = {lun}\ninitiators = [\"{INITIATOR}\"]\n{more}\n")
}

fn with_chap(folder: &Path) -> String {
    format!(
        "chap_algorithms = [\"md5\"]\n[remote.chap]\nuser = \"{USER}\"\nsecret_file = \"{}\"",
        folder.join("secret").display()
    )
}

async fn log_in(target: &Target, name: &str) -> Client {
    let client = Client::connect(&target.url(DISK).parse().unwrap(), Options::named(name)).await.unwrap();
    for lun in [DISK, TAPE] {
        client.lun(lun).test_unit_ready().await.unwrap();
    }
    client
}

fn remote(portal: &str, lun: u16, parameters: CscdParameters) -> CscdDescriptor {
    let unit = IscsiUnit { portal: portal.parse().unwrap(), lun: LunAddress::from_number(lun) };
    CscdDescriptor::named(CscdName::Iscsi(unit), parameters)
}

fn remote_disk(portal: &str, lun: u16) -> CscdDescriptor {
    remote(portal, lun, CscdParameters::Block { device_type: 0, pad: false, block_length: 512 })
}

fn remote_tape(portal: &str, lun: u16) -> CscdDescriptor {
    remote(portal, lun, CscdParameters::Tape { pad: false, fixed: false, block_length: 0 })
}

/// Segments that read `bytes` bytes of a disk from its beginning and write them as records.
fn to_tape(list: &mut List, source: CscdId, destination: CscdId, bytes: u64) {
    for at in (0..bytes).step_by(8 << 20) {
        let blocks = ((bytes - at).min(8 << 20) / 512) as u16;
        list.push(Segment::BlockToStream { source, destination, transfer_length: RECORD, blocks, from: Lba(at / 512) });
    }
}

fn from_tape(list: &mut List, source: CscdId, destination: CscdId, bytes: u64) {
    for at in (0..bytes).step_by(8 << 20) {
        let blocks = ((bytes - at).min(8 << 20) / 512) as u16;
        list.push(Segment::StreamToBlock { source, destination, transfer_length: RECORD, blocks, to: Lba(at / 512) });
    }
}

/// Key, code, pointer and segment of a copy that was aborted.
fn aborted(what: &str, reply: &Reply) -> ((u8, u8), Option<FieldPointer>, Option<u64>) {
    let sense = reply.sense.as_ref().unwrap_or_else(|| panic!("{what}: status {:?}", reply.status));
    assert_eq!((reply.status, sense.key), (Status::CheckCondition, SenseKey::CopyAborted), "{what}: {sense}");
    (sense.code, sense.field, sense.command_specific)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tgt_disk_is_backed_up_to_tape_and_restored_to_another() {
    if !has("tgtd") {
        skip!("tgtd is missing (Debian: tgt)");
    }
    const SIZE: u64 = 24 * MIB;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pattern::image(&folder.join("from.img"), 61, SIZE / MIB).unwrap();
    std::fs::write(folder.join("to.img"), vec![0xDD; SIZE as usize]).unwrap();
    secret(folder);
    let Some(tgt) = Tgt::start(folder, &["from.img", "to.img"], Some((USER, SECRET))).unwrap() else {
        skip!("tgtd does not run here")
    };
    let tables = [table(&tgt.portal, NAME, 1, "read_only = true\n"), table(&tgt.portal, NAME, 2, "as = 7\n")];
    configure(folder, &tables.map(|table| table + &with_chap(folder)).join("\n"));
    let target = Target::configured(folder, "offhost.toml").unwrap();
    let client = log_in(&target, INITIATOR).await;
    let tape_cscd = CscdDescriptor::tape(client.lun(TAPE).cscd_designator().await.unwrap());
    let disk_cscd = CscdDescriptor::disk(client.lun(DISK).cscd_designator().await.unwrap(), 512);
    let before = client.carried();

    // The backup, with an odd piece at its end and a mark behind it.
    let mut list = List::new(1);
    let (source, tape) = (list.cscd(remote_disk(&tgt.portal, 1)), list.cscd(tape_cscd.clone()));
    list.push(Segment::VerifyCscd { source, test_unit_ready: false });
    to_tape(&mut list, source, tape, SIZE);
    list.push(Segment::BlockOffsetToStream {
        source,
        destination: tape,
        transfer_length: 777,
        bytes: 777,
        from: Lba(3),
        offset: 5,
    });
    list.push(Segment::WriteFilemarks { destination: tape, immediate: false, count: 1 });
    let copied = client.lun(TAPE).extended_copy(list.emit().into()).await;
    copied.unwrap_or_else(|error| panic!("{error}: {}", target.log()));

    // The restore, with an odd piece in the midst of blocks whose rest stays.
    let mut list = List::new(2);
    let (tape, destination) = (list.cscd(tape_cscd), list.cscd(remote_disk(&tgt.portal, 7)));
    list.push(Segment::Locate { destination: tape, object: 0 });
    from_tape(&mut list, tape, destination, SIZE);
    let (to, offset) = (Lba(9), 100);
    list.push(Segment::StreamToBlockOffset { source: tape, destination, transfer_length: 777, bytes: 777, to, offset });
    client.lun(TAPE).extended_copy(list.emit().into()).await.unwrap();

    // From there to our own disk, by the name that tgt gives it.
    let named = designator_at(&tgt, 2).await;
    let mut list = List::new(3);
    let unit = ServedUnit { service: tgt.portal.parse().unwrap(), designator: named };
    let parameters = CscdParameters::Block { device_type: 0, pad: false, block_length: 0 };
    let source = list.cscd(CscdDescriptor::named(CscdName::Served(unit), parameters));
    let destination = list.cscd(disk_cscd);
    assert_eq!((source, destination), (CscdId(0), CscdId(2)), "the first one takes two places");
    list.push(Segment::BlockImage { source, destination, blocks: 1000, from: Lba(8), to: Lba(16) });
    client.lun(DISK).extended_copy(list.emit().into()).await.unwrap();

    let carried = client.carried();
    assert!(carried.data_out - before.data_out < 2048 && carried.data_in == before.data_in, "{before:?} {carried:?}");
    let from = std::fs::read(folder.join("from.img")).unwrap();
    let mut expected = from.clone();
    expected[9 * 512 + 100..][..777].copy_from_slice(&from[3 * 512 + 5..][..777]);
    let to = std::fs::read(folder.join("to.img")).unwrap();
    assert!(to == expected, "restored");
    assert!(std::fs::read(folder.join("disk.img")).unwrap()[16 * 512..][..512_000] == expected[8 * 512..][..512_000]);
    let drive = client.lun(TAPE);
    drive.rewind().await.unwrap();
    for (index, part) in from.chunks(RECORD as usize).enumerate() {
        let TapeRead::Record(data) = drive.read_record(RECORD * 2).await.unwrap() else { panic!("record {index} is none") };
        assert!(data == part, "record {index}");
    }
    assert!(matches!(drive.read_record(RECORD).await.unwrap(), TapeRead::Record(data) if data == from[3 * 512 + 5..][..777]));
    assert!(matches!(drive.read_record(RECORD).await.unwrap(), TapeRead::Filemark));
}

/// The NAA or T10 designator of a LUN, as CSCD descriptors have it.
async fn designator_at(tgt: &Tgt, lun: u16) -> protocol::xcopy::Designator {
    use sim::client::Authentication;
    let secret = protocol::iscsi::chap::Secret::new(SECRET).unwrap();
    let algorithms = vec![protocol::iscsi::chap::Algorithm::Md5];
    let authentication = Authentication { algorithms, ..Authentication::new(USER, secret) };
    let options = Options { authentication: Some(authentication), ..Options::named(INITIATOR) };
    let url = format!("iscsi://{}/{NAME}/{lun}", tgt.portal);
    let client = Client::connect(&url.parse().unwrap(), options).await.unwrap();
    let named = client.lun(lun).cscd_designator().await.unwrap();
    client.logout().await.unwrap();
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_configuration_allows_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let there = folder.join("there");
    std::fs::create_dir(&there).unwrap();
    std::fs::write(there.join("a.img"), pattern::bytes(5, 0, 1 << 20)).unwrap();
    let other = Target::start(&there, &["--disk", "a.img", "--disk", "b.img:1MiB", "--tape", "shelf"]).unwrap();
    // Nobody listens at this one.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let tables = [
        table(&other.portal, &other.name, 0, "read_only = true"),
        table(&other.portal, &other.name, 2, ""),
        table(&other.portal, "iqn.2026-01.test:no-such-target", 3, ""),
        table(&closed, &other.name, 0, ""),
    ];
    configure(folder, &tables.join("\n"));
    let target = Target::configured(folder, "offhost.toml").unwrap();
    let (client, stranger) = (log_in(&target, INITIATOR).await, log_in(&target, STRANGER).await);
    let disk = CscdDescriptor::disk(client.lun(DISK).cscd_designator().await.unwrap(), 512);
    let copy = |client: Client, from: CscdDescriptor, to: CscdDescriptor| async move {
        let mut list = List::new(9);
        let (source, destination) = (list.cscd(from), list.cscd(to));
        list.push(Segment::VerifyCscd { source: CscdId::THIS_LUN, test_unit_ready: false });
        let count_of = CountOf::SourceBlocks;
        list.push(Segment::BlockToBlock { source, destination, count_of, blocks: 8, from: Lba(0), to: Lba(0) });
        let unit = client.lun(DISK);
        let copied = unit.extended_copy_reply(list.emit().into());
        tokio::time::timeout(Duration::from_secs(20), copied).await.expect("an answer").unwrap()
    };
    let (source_at, destination_at) = (Some(FieldPointer::parameter(16)), Some(FieldPointer::parameter(48)));
    assert_eq!(copy(client.clone(), remote_disk(&other.portal, 0), disk.clone()).await.status, Status::Good);

    let not_reachable = |at| (NOT_REACHABLE, at, Some(1));
    let refused = [
        ("a stranger's copy", copy(stranger, remote_disk(&other.portal, 0), disk.clone()).await, not_reachable(source_at)),
        (
            "a LUN without a table",
            copy(client.clone(), remote_disk(&other.portal, 1), disk.clone()).await,
            not_reachable(source_at),
        ),
        (
            "a portal without a table",
            copy(client.clone(), remote_disk("127.0.0.1:1", 0), disk.clone()).await,
            not_reachable(source_at),
        ),
        (
            "a target that is not there",
            copy(client.clone(), remote_disk(&other.portal, 3), disk.clone()).await,
            not_reachable(source_at),
        ),
        (
            "a port that is closed",
            copy(client.clone(), disk.clone(), remote_disk(&closed, 0)).await,
            not_reachable(destination_at),
        ),
        (
            "a write where only reads are allowed",
            copy(client.clone(), disk.clone(), remote_disk(&other.portal, 0)).await,
            (THIRD_PARTY_DEVICE_FAILURE, destination_at, Some(1)),
        ),
        (
            "a tape that is called a disk",
            copy(client.clone(), remote_disk(&other.portal, 2), disk.clone()).await,
            ((0x0D, 0x03), source_at, Some(1)),
        ),
    ];
    for (what, reply, expected) in &refused {
        assert_eq!(aborted(what, reply), *expected, "{what}");
    }
    assert_eq!(std::fs::read(there.join("a.img")).unwrap(), pattern::bytes(5, 0, 1 << 20));

    // Persistent reservations there are those of the session's nexus, which ends with the copy: none is made in this one's name.
    let parameters = CscdParameters::Tape { pad: false, fixed: false, block_length: 0 };
    for segment in [
        Segment::RegisterKey { destination: CscdId(0), key: 0, action_key: 7 },
        Segment::RegisterAndMove { destination: CscdId(0), parameters: vec![0; 24] },
    ] {
        let mut list = List::new(9);
        list.cscd(remote(&other.portal, 2, parameters));
        list.push(segment);
        let reply = client.lun(DISK).extended_copy_reply(list.emit().into()).await.unwrap();
        // INVALID OPERATION FOR COPY SOURCE OR DESTINATION, at the DESTINATION CSCD ID of the segment behind the header and one CSCD.
        assert_eq!(aborted("a registration", &reply), ((0x26, 0x0C), Some(FieldPointer::parameter(54)), None));
    }

    // The table goes, and with it the way there; the session that asks stays.
    configure(folder, "");
    target.signal(nix::sys::signal::Signal::SIGHUP).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while copy(client.clone(), remote_disk(&other.portal, 0), disk.clone()).await.status == Status::Good {
        assert!(Instant::now() < until, "{}", target.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_tape_is_read_written_positioned_and_copied_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let there = folder.join("there");
    std::fs::create_dir(&there).unwrap();
    let other = Target::start(&there, &["--tape", "shelf"]).unwrap();
    configure(folder, &table(&other.portal, &other.name, 0, ""));
    let image = pattern::bytes(8, 0, 16 << 20);
    std::fs::write(folder.join("disk.img"), &image).unwrap();
    let target = Target::configured(folder, "offhost.toml").unwrap();
    let client = log_in(&target, INITIATOR).await;
    let disk_cscd = CscdDescriptor::disk(client.lun(DISK).cscd_designator().await.unwrap(), 512);
    let tape_cscd = CscdDescriptor::tape(client.lun(TAPE).cscd_designator().await.unwrap());
    let far = remote_tape(&other.portal, 0);

    // Our disk to their tape: two files of 2 MiB, the second behind a mark.
    let mut list = List::new(1);
    let (source, destination) = (list.cscd(disk_cscd.clone()), list.cscd(far.clone()));
    to_tape(&mut list, source, destination, 2 * MIB);
    list.push(Segment::WriteFilemarks { destination, immediate: false, count: 1 });
    to_tape(&mut list, source, destination, 2 * MIB);
    client.lun(TAPE).extended_copy(list.emit().into()).await.unwrap();

    // Their tape as it is to ours.
    let mut list = List::new(2);
    let (source, destination) = (list.cscd(far.clone()), list.cscd(tape_cscd.clone()));
    list.push(Segment::Locate { destination: source, object: 0 });
    list.push(Segment::TapeImage { source, destination, filemarks: 0 });
    client.lun(TAPE).extended_copy(list.emit().into()).await.unwrap();

    // The second file of their tape to our disk, found by its mark.
    let mut list = List::new(3);
    let (source, destination) = (list.cscd(far.clone()), list.cscd(disk_cscd));
    list.push(Segment::Locate { destination: source, object: 1 });
    list.push(Segment::Space { destination: source, code: 1, count: 1 });
    let segment = Segment::StreamToBlock { source, destination, transfer_length: RECORD, blocks: 4096, to: Lba(4096 * 4) };
    list.push(segment.clone());
    client.lun(TAPE).extended_copy(list.emit().into()).await.unwrap();
    assert!(std::fs::read(folder.join("disk.img")).unwrap()[8 << 20..][..2 << 20] == image[..2 << 20]);

    // Behind it is nothing: what their drive says of that comes with the copy's end.
    list.segments = vec![segment.into()];
    let reply = client.lun(TAPE).extended_copy_reply(list.emit().into()).await.unwrap();
    // The session is a new one, but the drive stands where it stood.
    assert_eq!(aborted("nothing more", &reply).0, THIRD_PARTY_DEVICE_FAILURE);
    let forwarded = &reply.sense.as_ref().unwrap().forwarded[0];
    assert_eq!((forwarded.end, forwarded.status), (CopyEnd::Source, 2));
    assert_eq!((forwarded.sense[2] & 0x0F, forwarded.sense[12], forwarded.sense[13]), (8, 0x00, 0x05), "BLANK CHECK as it came");

    // Our tape whole.
    let drive = client.lun(TAPE);
    drive.rewind().await.unwrap();
    let mut read = Vec::new();
    let mut marks = 0;
    loop {
        match drive.read_record(RECORD * 2).await.unwrap() {
            TapeRead::Record(data) => read.extend_from_slice(&data),
            TapeRead::Filemark => marks += 1,
            _ => break,
        }
    }
    assert!(marks == 1 && read == [&image[..2 << 20], &image[..2 << 20]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_view_ends_when_a_copy_finds_its_remote_tape_rewound() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let there = folder.join("there");
    std::fs::create_dir(&there).unwrap();
    let other = Target::start(&there, &["--tape", "shelf"]).unwrap();
    configure(folder, &table(&other.portal, &other.name, 0, ""));
    let file = folder.join("offhost.toml");
    let leased = "disk = \"disk.img\"\nxcopy_view = \"lease\"\nquiet = \"100ms\"";
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("disk = \"disk.img\"", leased)).unwrap();
    let old = pattern::bytes(8, 0, 16 << 20);
    std::fs::write(folder.join("disk.img"), &old).unwrap();
    let target = Target::configured(folder, "offhost.toml").unwrap();
    let client = log_in(&target, INITIATOR).await;
    let theirs = Client::connect(&other.url(0).parse().unwrap(), Options::named(STRANGER)).await.unwrap();
    let drive = theirs.unit();
    drive.test_unit_ready().await.unwrap();
    let mut list = List::new(1);
    let disk = CscdDescriptor::disk(client.lun(DISK).cscd_designator().await.unwrap(), 512);
    let (source, destination) = (list.cscd(disk), list.cscd(remote_tape(&other.portal, 0)));
    to_tape(&mut list, source, destination, MIB);
    let list = bytes::Bytes::from(list.emit());
    let records = MIB / u64::from(RECORD);
    // The first record of each copy.
    let read = async |object| {
        drive.locate(object).await.unwrap();
        let TapeRead::Record(data) = drive.read_record(RECORD).await.unwrap() else { panic!("no record {object}") };
        data
    };

    client.lun(TAPE).extended_copy(list.clone()).await.unwrap();
    let new = pattern::bytes(9, 0, RECORD as usize);
    client.lun(DISK).write(Lba(0), new.clone().into(), BlockLength::B512).await.unwrap();
    client.lun(TAPE).extended_copy(list.clone()).await.unwrap();
    assert!(read(0).await == old[..RECORD as usize] && read(records).await == old[..RECORD as usize], "both show one moment");
    drive.rewind().await.unwrap();
    client.lun(TAPE).extended_copy(list).await.unwrap();
    assert!(target.log().contains("its remote tape has been rewound"), "{}", target.log());
    assert!(read(0).await == new, "and this one a new moment");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_end_that_is_lost_or_fails_ends_the_copy_exactly() {
    if !has("tgtd") {
        skip!("tgtd is missing (Debian: tgt)");
    }
    // More than a mover reads ahead.
    const SIZE: u64 = 64 * MIB;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pattern::image(&folder.join("from.img"), 62, 8).unwrap();
    let resize = |name: &str, len| std::fs::File::options().write(true).open(folder.join(name)).unwrap().set_len(len).unwrap();
    resize("from.img", SIZE);
    std::fs::write(folder.join("short.img"), [1; 512]).unwrap();
    resize("short.img", SIZE);
    let Some(mut tgt) = Tgt::start(folder, &["from.img", "short.img"], None).unwrap() else { skip!("tgtd does not run here") };
    configure(folder, &(table(&tgt.portal, NAME, 1, "") + &table(&tgt.portal, NAME, 2, "")));
    let target = Target::configured(folder, "offhost.toml").unwrap();
    let client = log_in(&target, INITIATOR).await;
    let tape_cscd = CscdDescriptor::tape(client.lun(TAPE).cscd_designator().await.unwrap());
    let backup = |lun| {
        let mut list = List::new(1);
        let (source, destination) = (list.cscd(remote_disk(&tgt.portal, lun)), list.cscd(tape_cscd.clone()));
        to_tape(&mut list, source, destination, SIZE);
        bytes::Bytes::from(list.emit())
    };

    // Its file is cut behind its back: tgt reports a medium error, and so does the copy.
    let (short, lost) = (backup(2), backup(1));
    resize("short.img", SIZE / 8 + MIB);
    let reply = client.lun(TAPE).extended_copy_reply(short).await.unwrap();
    assert_eq!(aborted("a medium error", &reply), (THIRD_PARTY_DEVICE_FAILURE, Some(FieldPointer::parameter(16)), Some(1)));
    let forwarded = &reply.sense.as_ref().unwrap().forwarded[0];
    assert_eq!((forwarded.end, forwarded.status, forwarded.sense[2] & 0x0F), (CopyEnd::Source, 2, 3), "MEDIUM ERROR as it came");

    // It is killed in the middle.
    let settings = MoverSettings { movers: 1, bytes_per_second: Some(16 * MIB), job_bytes_per_second: None, priority: None };
    offhost_tests::control::set_movers(&target.control(), &settings).unwrap();
    let drive = client.lun(TAPE);
    drive.rewind().await.unwrap();
    let copying = tokio::spawn(async move { drive.extended_copy_reply(lost).await.unwrap() });
    let moved =
        || offhost_tests::control::status(&target.control()).unwrap().movers.iter().map(|mover| mover.bytes_moved).sum::<u64>();
    let (already, until) = (moved(), Instant::now() + Duration::from_secs(20));
    while moved() < already + MIB {
        assert!(Instant::now() < until && !copying.is_finished(), "it never began: {}", target.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tgt.kill();
    let fast = MoverSettings { bytes_per_second: None, ..settings };
    offhost_tests::control::set_movers(&target.control(), &fast).unwrap();
    let reply = tokio::time::timeout(Duration::from_secs(30), copying).await.expect("it ends").unwrap();
    let (code, pointer, _) = aborted("a lost session", &reply);
    assert_eq!((code, pointer), (NOT_REACHABLE, Some(FieldPointer::parameter(16))));

    // What had been written is there and right, and the drive goes on.
    let from = std::fs::read(folder.join("from.img")).unwrap();
    let mut records = 0;
    read_tape(&client, TAPE, |index, data| {
        assert!(data == from[index as usize * RECORD as usize..][..RECORD as usize], "record {index}");
        records += 1;
    })
    .await
    .unwrap();
    assert!(records >= MIB / u64::from(RECORD) && records < SIZE / u64::from(RECORD), "{records}");
}

/// The mover that has moved more than a MiB, once there is one.
async fn moving(target: &Target) -> u32 {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let movers = offhost_tests::control::status(&target.control()).unwrap().movers;
        if let Some(mover) = movers.iter().find(|mover| mover.bytes_moved > MIB) {
            return mover.pid;
        }
        assert!(Instant::now() < until, "it never began: {}", target.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two targets of ours, with a disk of 48 MiB each, one of which may be used from the other.
struct Pair {
    folder: tempfile::TempDir,
    other: Target,
    target: Target,
    client: Client,
    here: CscdDescriptor,
}

impl Pair {
    const SIZE: u64 = 48 * MIB;

    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::create_dir(&there).unwrap();
        for (path, seed) in [(folder.path().join("disk.img"), 9), (there.join("a.img"), 10)] {
            pattern::image(&path, seed, Self::SIZE / MIB).unwrap();
        }
        let other = Target::start(&there, &["--disk", "a.img"]).unwrap();
        configure(folder.path(), &table(&other.portal, &other.name, 0, ""));
        let file = folder.path().join("offhost.toml");
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("16MiB", "48MiB")).unwrap();
        let target = Target::configured(folder.path(), "offhost.toml").unwrap();
        let client = log_in(&target, INITIATOR).await;
        let here = CscdDescriptor::disk(client.lun(DISK).cscd_designator().await.unwrap(), 512);
        Self { folder, other, target, client, here }
    }

    fn here(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("disk.img")).unwrap()
    }

    fn there(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("there/a.img")).unwrap()
    }

    fn movers(&self, movers: u8, bytes_per_second: Option<u64>) {
        let settings = MoverSettings { movers, bytes_per_second, ..MoverSettings::default() };
        offhost_tests::control::set_movers(&self.target.control(), &settings).unwrap();
    }

    fn kill(&self, mover: u32) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(mover as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// The whole of one disk to the other, as list 7.
    fn copy(&self, back: bool) -> tokio::task::JoinHandle<Reply> {
        let mut list = List::lid4(7);
        let ends = [self.here.clone(), remote_disk(&self.other.portal, 0)].map(|cscd| list.cscd(cscd));
        let [source, destination] = if back { [ends[1], ends[0]] } else { ends };
        list.push(Segment::BlockImage { source, destination, blocks: 0, from: Lba(0), to: Lba(0) });
        let (unit, list) = (self.client.lun(DISK), bytes::Bytes::from(list.emit()));
        tokio::spawn(async move { unit.third_party_copy_out(0x01, list).await.unwrap() })
    }
}

async fn ends(copying: tokio::task::JoinHandle<Reply>) -> Reply {
    tokio::time::timeout(Duration::from_secs(60), copying).await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_mover_had_not_copied_to_or_from_a_remote_disk_another_does() {
    for (back, movers) in [(false, 1), (true, 2)] {
        let pair = Pair::new().await;
        pair.movers(movers, Some(4 * MIB));
        let copying = pair.copy(back);
        let mover = moving(&pair.target).await;
        assert!(!copying.is_finished());
        pair.kill(mover);
        pair.movers(movers, None);
        assert_eq!(ends(copying).await.status, Status::Good, "back: {back}: {}", pair.target.log());
        assert!(pair.target.log().contains("a dead mover's piece is done again"));
        assert!(pair.here() == pair.there(), "back: {back}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_a_remote_copy_and_the_next_one_is_whole() {
    let pair = Pair::new().await;
    let (target, other, client) = (&pair.target, &pair.other, &pair.client);
    pair.movers(2, Some(4 * MIB));
    let copying = pair.copy(false);
    moving(target).await;
    let answer = client.lun(DISK).copy_operation_abort(7).await.unwrap();
    assert_eq!(answer.status, Status::Good);
    // Nothing moves any more when the abort is answered.
    let then = pair.there();
    let reply = ends(copying).await;
    assert_eq!(aborted("an abort", &reply).0, (0x2F, 0x02), "COMMANDS CLEARED BY DEVICE SERVER");
    assert!(pair.there() == then && then != pair.here());

    // Each of several movers takes a share of it, in a session of its own.
    pair.movers(4, Some(16 * MIB));
    let moved = || {
        offhost_tests::control::status(&target.control()).unwrap().movers.into_iter().map(|mover| (mover.pid, mover.bytes_moved))
    };
    let before: std::collections::BTreeMap<_, _> = moved().collect();
    assert_eq!(ends(pair.copy(false)).await.status, Status::Good);
    let busy = moved().filter(|(pid, bytes)| before.get(pid).is_none_or(|before| before < bytes)).count();
    assert!(busy >= 2, "{busy} movers of 4: {}", target.log());
    let image = pair.here();
    assert!(pair.there() == image);
    pair.movers(4, None);

    // One disk under two descriptors: what the second segment reads is what the first has written.
    let mut list = List::new(8);
    let cscds = [pair.here.clone(), remote_disk(&other.portal, 0), remote_disk(&other.portal, 0)];
    let [here, one, same] = cscds.map(|cscd| list.cscd(cscd));
    let copy = |source, destination, from, to| {
        let count_of = CountOf::SourceBlocks;
        Segment::BlockToBlock { source, destination, count_of, blocks: 4096, from: Lba(from), to: Lba(to) }
    };
    list.push(copy(here, one, 8192, 0)).push(copy(same, here, 0, 16384));
    client.lun(DISK).extended_copy(list.emit().into()).await.unwrap();
    assert!(pair.here()[16384 * 512..][..2 << 20] == image[8192 * 512..][..2 << 20]);
}
