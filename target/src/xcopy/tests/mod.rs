//! Lists against logical units in memory: what is refused, and what a plan comes to.

use std::sync::Arc;

use protocol::mover::{Action, Destination, EndIndex, Fault, FaultKind, Source, Transfer};
use protocol::scsi::sense::{CopyEnd, FieldPointer, Sense, SenseKey};
use protocol::scsi::{DeviceType, sbc, spc};
use protocol::units::{BlockLength, Lba};
use protocol::wire::hex;
use protocol::xcopy::{CscdDescriptor, CscdId, CscdParameters, Designator, List, Segment, copy_in_actions, copy_out_actions};

mod lost;
mod tokens_gone;

use super::CopyManager;
use super::plan::{Plan, plan};
use super::sense::{Notes, of_fault};
use crate::cartridge::NewMedium;
use crate::lun::Device;
use crate::lun::common::{Common, CopyService, Identity};
use crate::lun::disk::Disk;
use crate::lun::tape::Tape;
use crate::lun::testing::{MemoryStore, finish, nexus, task};
use crate::mover::Movers;
use crate::nexus::Nexus;
use crate::remote::RemoteEnds;
use crate::snapshot::SnapshotService;
use crate::task::{Response, Task};
use crate::volume::Volume;

const TARGET: &str = "iqn.2026-01.org.offhost:test";
const BLOCKS: u64 = 1000;

/// Two disks (LUN 0, 1), a write-protected one (LUN 2) and a tape (LUN 3); a third disk is not in the nexus's map.
struct World {
    devices: Vec<Device>,
    hidden: Device,
    nexus: Arc<Nexus>,
    _folder: tempfile::TempDir,
}

fn identity(name: &str) -> Common {
    Common::new(Identity::new(TARGET, name, "TEST"), None)
}

impl World {
    fn new() -> Self {
        let size = (BLOCKS * 512) as usize;
        let disk = |name: &str, store: MemoryStore| {
            Device::Disk(Disk::new(identity(name), Volume::new(Arc::new(store)), BlockLength::B512))
        };
        let folder = tempfile::tempdir().unwrap();
        let tape = Device::Tape(Tape::open(identity("tape"), folder.path(), NewMedium::of_capacity(1 << 24)).unwrap());
        let devices = vec![
            disk("a", MemoryStore::new(size)),
            disk("b", MemoryStore::new(size)),
            disk("c", MemoryStore::read_only(size)),
            tape,
        ];
        let nexus = nexus(1, &devices);
        Self { devices, hidden: disk("hidden", MemoryStore::new(size)), nexus, _folder: folder }
    }

    fn designator(&self, lun: usize) -> Designator {
        designator(&self.devices[lun])
    }

    fn disk(&self, lun: usize) -> CscdDescriptor {
        CscdDescriptor::disk(self.designator(lun), 512)
    }

    fn tape(&self) -> CscdDescriptor {
        CscdDescriptor::tape(self.designator(3))
    }

    fn task(&self) -> Task {
        task(&self.nexus, "83 00 00000000 00000000 00000000 0000", Vec::new())
    }

    fn plan(&self, list: &List) -> Result<Plan, Sense> {
        let plan = plan(list, &self.devices[0], &self.task(), &RemoteEnds::default(), &Arc::default());
        plan.refused.clone().map_or(Ok(plan), Err)
    }

    fn list(&self, cscds: &[CscdDescriptor], segments: &[Segment]) -> List {
        let mut list = List::new(1);
        list.cscds = cscds.to_vec();
        list.segments = segments.iter().cloned().map(Into::into).collect();
        list
    }

    fn refusal(&self, cscds: &[CscdDescriptor], segments: &[Segment]) -> Sense {
        self.plan(&self.list(cscds, segments)).expect_err("must be refused")
    }
}

fn designator(device: &Device) -> Designator {
    Designator::naa(&device.common().identity.naa).unwrap()
}

const A: CscdId = CscdId(0);
const B: CscdId = CscdId(1);

fn blocks(source: CscdId, destination: CscdId, from: u64, to: u64) -> Segment {
    Segment::BlockToBlock { source, destination, count_of: Default::default(), blocks: 8, from: Lba(from), to: Lba(to) }
}

fn at(byte: u16) -> Option<FieldPointer> {
    Some(FieldPointer::parameter(byte))
}

#[test]
fn a_good_list_becomes_steps_on_ends_that_are_there_once() {
    let world = World::new();
    let mut list = List::new(1);
    let disk = list.cscd(world.disk(1));
    let again = list.cscd(world.disk(1));
    let fixed = CscdParameters::Tape { pad: true, fixed: true, block_length: 1024 };
    let tape = list.cscd(CscdDescriptor::new(world.designator(3), fixed));
    list.inline = vec![9; 12].into();
    list.push_cat(Segment::BlockToStream { source: disk, destination: tape, transfer_length: 4, blocks: 3, from: Lba(7) });
    list.push(Segment::InlineToStream { destination: tape, transfer_length: 4, offset: 4, bytes: 8 });
    list.push(Segment::EmbeddedToStream { destination: tape, transfer_length: 4, data: vec![1, 2, 3] });
    list.push(Segment::StreamToBlock { source: tape, destination: again, transfer_length: 1, blocks: 2, to: Lba(9) });
    list.push(Segment::Locate { destination: tape, object: 5 });
    let plan = world.plan(&list).unwrap();

    assert_eq!(plan.ends.len(), 3, "the disk as source and as destination, and the tape");
    assert_eq!(plan.inline, [&[9; 12][..], &[1, 2, 3]].concat());
    let Action::Move(first) = &plan.steps[0].action else { panic!("a copy") };
    assert_eq!(first.from, Source::Blocks { end: EndIndex(0), at: 7 * 512 });
    let transfer = Transfer { record: 1024, records: 4, fixed: true };
    assert_eq!(first.to, Destination::Stream { end: EndIndex(1), transfer });
    assert_eq!((first.process, first.output, first.destination_pad), (Some(1536), None, true));
    assert!(plan.steps[0].cat);
    let Action::Move(embedded) = &plan.steps[2].action else { panic!("a copy") };
    assert_eq!(embedded.from, Source::Inline { offset: 12, len: 3 });
    let Action::Move(back) = &plan.steps[3].action else { panic!("a copy") };
    assert_eq!(back.to, Destination::Blocks { end: EndIndex(2), at: 9 * 512 });
    assert_eq!((back.process, back.output), (None, Some(1024)));
    assert_eq!(plan.notes[0].residual_unit, Some(1024), "FIXED counts blocks");
    assert_eq!(plan.notes[3].residual_unit, Some(512));
    assert_eq!(plan.notes[0].source_at, Some(16));
    assert_eq!(plan.notes[0].destination_at, Some(80));
}

#[test]
fn a_logical_unit_outside_the_map_of_the_nexus_is_not_reached() {
    let world = World::new();
    let hidden = CscdDescriptor::disk(designator(&world.hidden), 512);
    let sense = world.refusal(&[hidden, world.disk(0)], &[blocks(A, B, 0, 0)]);
    assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x02)));
    assert_eq!((sense.field, sense.command_specific, sense.information), (at(16), Some(0), None));
}

#[test]
fn a_designator_that_several_units_have_names_none_of_them() {
    let world = World::new();
    let port = Designator::new(1, 1, 4, &[0, 0, 0, 1]).unwrap();
    let sense = world.refusal(&[CscdDescriptor::disk(port, 512), world.disk(0)], &[blocks(A, B, 0, 0)]);
    assert_eq!(sense.code, (0x0D, 0x02));
}

#[test]
fn ids_that_name_no_descriptor_are_unreachable() {
    let world = World::new();
    for id in [2, 0x07FF, 0x0800, 0xF800, 0xC002, 0xFFFE] {
        let sense = world.refusal(&[world.disk(0), world.disk(1)], &[blocks(A, B, 0, 0), blocks(A, CscdId(id), 0, 0)]);
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x08, 0x04)), "{id:04x}h");
        assert_eq!(sense.command_specific, Some(1), "the second segment");
        assert_eq!(sense.field, at(16 + 64 + 28 + 6));
    }
}

#[test]
fn a_device_of_another_type_than_the_list_says_is_refused() {
    let world = World::new();
    let as_disk = CscdDescriptor::disk(world.designator(3), 512);
    let sense = world.refusal(&[world.disk(0), as_disk], &[blocks(A, B, 0, 0)]);
    assert_eq!((sense.code, sense.field), ((0x0D, 0x03), at(48)));
}

#[test]
fn an_operation_that_a_device_type_has_not_is_refused() {
    let world = World::new();
    let cscds = [world.disk(0), world.tape()];
    for segment in [
        Segment::WriteFilemarks { destination: A, immediate: false, count: 1 },
        Segment::Locate { destination: A, object: 1 },
        Segment::BlockToStream { source: B, destination: B, transfer_length: 512, blocks: 1, from: Lba(0) },
        Segment::BlockToStream { source: A, destination: A, transfer_length: 512, blocks: 1, from: Lba(0) },
        Segment::StreamToStream { source: B, destination: B, source_transfer_length: 512, transfer_length: 512, bytes: 512 },
    ] {
        let sense = world.refusal(&cscds, std::slice::from_ref(&segment));
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x26, 0x0C)), "{segment:?}");
    }
}

#[test]
fn blocks_behind_the_end_and_protected_disks_are_refused_by_what_they_would_answer() {
    let world = World::new();
    let cscds = [world.disk(0), world.disk(2)];
    for (segment, end, code) in [
        (blocks(A, A, BLOCKS - 7, 0), CopyEnd::Source, (0x21, 0x00)),
        (blocks(A, B, 0, 0), CopyEnd::Destination, (0x27, 0x00)),
        (
            Segment::StreamToBlock {
                source: CscdId::NULL_STREAM,
                destination: A,
                transfer_length: 512,
                blocks: 9,
                to: Lba(BLOCKS - 8),
            },
            CopyEnd::Destination,
            (0x21, 0x00),
        ),
    ] {
        let sense = world.refusal(&cscds, &[segment]);
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)));
        let [forwarded] = sense.forwarded.as_slice() else { panic!("one answer") };
        assert_eq!((forwarded.end, forwarded.status), (end, 0x02));
        assert_eq!(Sense::parse(&forwarded.sense).unwrap().code, code);
    }
}

#[test]
fn a_nexus_that_wants_encryption_has_no_records_copied_in_the_clear() {
    let world = World::new();
    let Device::Tape(tape) = &world.devices[3] else { panic!("a tape") };
    let cscds = [world.disk(0), world.tape()];
    let onto = Segment::BlockToStream { source: A, destination: B, transfer_length: 512, blocks: 1, from: Lba(0) };
    let from = Segment::StreamToBlock { source: B, destination: A, transfer_length: 512, blocks: 1, to: Lba(0) };
    let set = |nexus: &Arc<Nexus>, encrypt: u8, decrypt: u8| {
        let page = hex(&format!("0010 0030 20 00 {encrypt:02x} {decrypt:02x} 01 00 00 00000000000000 0020 {}", "42".repeat(32)));
        let length = page.len();
        let task = task(nexus, &format!("B5 20 0010 00 00 {length:08x} 00 00"), page);
        crate::lun::testing::tell_of_power(world.devices[3].common(), nexus);
        assert_eq!(finish(tape.start(task)).status, protocol::scsi::Status::Good);
    };
    let answers = |segment: &Segment| {
        let sense = world.refusal(&cscds, std::slice::from_ref(segment));
        assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)));
        (sense.forwarded[0].end, Sense::parse(&sense.forwarded[0].sense).unwrap().code)
    };
    set(&world.nexus, 2, 3);
    assert_eq!(answers(&onto), (CopyEnd::Destination, (0x74, 0x00)));
    assert!(world.plan(&world.list(&cscds, std::slice::from_ref(&from))).is_ok(), "plain records may be read in mixed mode");
    set(&world.nexus, 0, 2);
    assert_eq!(answers(&from), (CopyEnd::Source, (0x74, 0x01)));
    set(&world.nexus, 0, 0);
    set(&nexus(2, &world.devices), 2, 2);
    assert!(world.plan(&world.list(&cscds, &[onto, from])).is_ok(), "what another nexus wants for itself");
}

#[test]
fn a_reservation_of_another_nexus_keeps_copies_out() {
    let world = World::new();
    let other = nexus(2, &world.devices);
    assert_eq!(finish(world.devices[1].start(task(&other, "16 0000000000", Vec::new()))), Response::good());
    let sense = world.refusal(&[world.disk(0), world.disk(1)], &[blocks(A, B, 0, 0)]);
    assert_eq!((sense.code, sense.forwarded[0].status), ((0x0D, 0x01), 0x18));
}

#[test]
fn a_copy_may_read_where_another_nexus_reserved_writing() {
    let world = World::new();
    let other = nexus(2, &world.devices);
    let out = |cdb: &str, key: u64, action_key: u64| {
        let list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
        assert_eq!(finish(world.devices[1].start(task(&other, cdb, list))), Response::good(), "{cdb}");
    };
    out("5f 06 00 0000 00000018 00", 0, 1);
    out("5f 01 01 0000 00000018 00", 1, 0);
    let sense = world.refusal(&[world.disk(0), world.disk(1)], &[blocks(A, B, 0, 0)]);
    assert_eq!((sense.code, sense.forwarded[0].end, sense.forwarded[0].status), ((0x0D, 0x01), CopyEnd::Destination, 0x18));
    let list = world.list(&[world.disk(1), world.disk(0)], &[blocks(A, B, 0, 0)]);
    assert!(world.plan(&list).is_ok(), "as a source it is only read");
}

#[test]
fn inline_data_beyond_its_length_and_odd_offsets_are_refused() {
    let world = World::new();
    let inline = |offset, bytes| Segment::InlineToStream { destination: B, transfer_length: 512, offset, bytes };
    let sense = world.refusal(&[world.disk(0), world.tape()], &[inline(0, 1)]);
    assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x26, 0x0B)));
    let sense = world.refusal(&[world.disk(0), world.tape()], &[inline(2, 0)]);
    assert_eq!((sense.code, sense.field), ((0x26, 0x00), at(80 + 12)));
    let nothing = Segment::BlockToStream { source: A, destination: B, transfer_length: 0, blocks: 1, from: Lba(0) };
    assert_eq!(world.refusal(&[world.disk(0), world.tape()], &[nothing]).field, at(80 + 9));
}

#[test]
fn a_transfer_of_too_many_small_records_is_refused() {
    let world = World::new();
    let one_byte = CscdParameters::Tape { pad: true, fixed: true, block_length: 1 };
    let tape = CscdDescriptor::new(world.designator(3), one_byte);
    let segment =
        |transfer_length| Segment::BlockToStream { source: A, destination: B, transfer_length, blocks: 1, from: Lba(0) };
    let sense = world.refusal(&[world.disk(0), tape.clone()], &[segment((1 << 15) + 1)]);
    assert_eq!(sense.code, Sense::INVALID_FIELD_IN_PARAMETER_LIST.code);
    let mut list = List::new(1);
    list.cscds = vec![world.disk(0), tape];
    list.segments = vec![segment(1 << 15).into()];
    world.plan(&list).unwrap();
}

#[test]
fn a_wrong_block_length_points_at_the_field() {
    let world = World::new();
    let wrong = CscdDescriptor::disk(world.designator(1), 4096);
    let sense = world.refusal(&[world.disk(0), wrong], &[blocks(A, B, 0, 0)]);
    assert_eq!((sense.code, sense.field), ((0x26, 0x00), at(48 + 29)));
}

#[test]
fn a_residual_is_counted_in_the_units_of_the_destination_and_only_when_something_was_written() {
    let notes = Notes { segment_at: 80, source_at: Some(16), destination_at: Some(48), residual_unit: Some(512) };
    let kind = FaultKind::IncorrectLength { residual: -100 };
    let fault = Fault { segment: 3, side: Some(CopyEnd::Source), kind, expected: 5120, written: 1024 };
    let sense = of_fault(&fault, &notes);
    assert_eq!((sense.key, sense.code), (SenseKey::CopyAborted, (0x0D, 0x01)));
    assert_eq!((sense.information, sense.command_specific, sense.field), (Some(8), Some(3), at(16)));
    let fixed = sense.fixed();
    assert_eq!(fixed[8..12], [18, 0, 0, 3], "the area with the source's answer, and the segment");
    let answer = Sense::parse(&fixed[19..]).unwrap();
    assert!(answer.stream.incorrect_length);
    assert_eq!(answer.information, Some(-100_i64 as u64));
    assert_eq!(of_fault(&Fault { written: 0, ..fault }, &notes).information, None);
}

/// Copy stores in memory.
fn snapshots() -> Arc<SnapshotService> {
    Arc::new(SnapshotService::with_copy_stores(|size| Ok(Arc::new(MemoryStore::new(size as usize)))))
}

fn manager() -> Arc<CopyManager> {
    CopyManager::new(Movers::new(Some("/nonexistent/offhost-mover".into())), snapshots())
}

/// An EXTENDED COPY with this list, carried out on a runtime of its own.
fn copy(world: &World, manager: &Arc<CopyManager>, list: &List) -> Response {
    let bytes = list.emit();
    let cdb = format!("83 00 0000000000000000 {:08x} 0000", bytes.len());
    let task = task(&world.nexus, &cdb, bytes);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    match Arc::clone(manager).third_party_copy_out(world.devices[0].clone(), task) {
        crate::task::Execution::Async(work) => runtime.block_on(work),
        other => finish(other),
    }
}

fn receive(world: &World, manager: &Arc<CopyManager>, action: u8, id: u8, length: u32) -> Response {
    let task = task(&world.nexus, &format!("84 {action:02x} {id:02x} 00000000000000 {length:08x} 0000"), Vec::new());
    manager.receive_copy(&world.devices[0], &task)
}

#[test]
fn without_a_mover_a_copy_fails_and_says_so_until_its_details_were_fetched() {
    let (world, manager) = (World::new(), manager());
    let mut list = List::new(7);
    list.cscds = vec![world.tape()];
    list.push(Segment::WriteFilemarks { destination: A, immediate: false, count: 1 });
    let response = copy(&world, &manager, &list);
    assert_eq!(response.sense.as_ref().unwrap().code, (0x44, 0x00));
    assert_eq!((manager.status().failed, manager.status().running), (1, 0));

    let status = receive(&world, &manager, 0x00, 7, 64).data_in.concat();
    assert_eq!(status[4], 0x02, "completed with errors");
    let short = receive(&world, &manager, 0x04, 7, 8).data_in.concat();
    assert_eq!(short.len(), 8);
    let details = receive(&world, &manager, 0x04, 7, 512).data_in.concat();
    assert_eq!(details[56], 0x02);
    assert_eq!(Sense::parse(&details[60..]).unwrap(), response.sense.unwrap());
    let gone = receive(&world, &manager, 0x04, 7, 512).sense.unwrap();
    assert_eq!((gone.code, gone.field), ((0x24, 0x00), Some(FieldPointer::cdb(2))));
}

#[test]
fn image_copies_come_to_what_both_ends_have() {
    let world = World::new();
    let image = |blocks, from, to| Segment::BlockImage { source: A, destination: B, blocks, from: Lba(from), to: Lba(to) };
    let cscds = [world.disk(0), world.disk(1)];
    let step = |segment| world.plan(&world.list(&cscds, &[segment])).unwrap().steps[0].action.clone();
    let expected = |from: u64, to: u64, blocks: u64| Action::BlockImage {
        from: EndIndex(0),
        from_at: from * 512,
        to: EndIndex(1),
        to_at: to * 512,
        len: blocks * 512,
    };
    assert_eq!(step(image(8, 1, 2)), expected(1, 2, 8));
    assert_eq!(step(image(0, 0, 0)), expected(0, 0, BLOCKS), "0 is as many as there are");
    assert_eq!(step(image(u64::MAX, BLOCKS - 3, 0)), expected(BLOCKS - 3, 0, 3), "the source's end");
    assert_eq!(step(image(9, 0, BLOCKS - 1)), expected(0, BLOCKS - 1, 1), "the destination's end");
    assert_eq!(world.refusal(&cscds, &[image(1, BLOCKS, 0)]).code, (0x0D, 0x01));
    let tapes = [world.tape(), world.tape()];
    let itself = Segment::TapeImage { source: A, destination: B, filemarks: 0 };
    assert_eq!(world.refusal(&tapes, &[itself]).code, (0x26, 0x0C), "one drive cannot stand at two places");
}

#[test]
fn a_registration_is_asked_for_in_its_turn_and_lets_later_segments_in_only_then() {
    let world = World::new();
    let (other, key) = (nexus(2, &world.devices), 0xABCD_u64);
    let reserve = |action: &str, kind: &str, parameters: String| {
        let cdb = format!("5f {action} {kind} 0000 00000018 00");
        assert_eq!(finish(world.devices[1].start(task(&other, &cdb, hex(&parameters)))), Response::good());
    };
    reserve("06", "00", format!("{:016x} {:016x} {:016x}", 0, 1, 0));
    reserve("01", "05", format!("{:016x} {:016x} {:016x}", 1, 0, 0));
    let register = Segment::RegisterKey { destination: B, key: 0, action_key: key };
    let cscds = [world.disk(0), world.disk(1)];
    assert_eq!(world.refusal(&cscds, &[blocks(A, B, 0, 0)]).code, (0x0D, 0x01), "kept out");
    let plan = world.plan(&world.list(&cscds, &[register, blocks(A, B, 0, 0)])).unwrap();
    let actions: Vec<_> = plan.steps.iter().map(|step| (step.segment, matches!(step.action, Action::Ask))).collect();
    assert_eq!(actions, [(0, true), (1, true), (1, false)]);
    let fulfil = |segment: u32| plan.duties[&segment].iter().try_for_each(|duty| duty.fulfil(&world.nexus, segment));
    let refused = fulfil(1).expect_err("not registered yet");
    assert_eq!((refused.code, refused.command_specific, refused.field), ((0x0D, 0x01), Some(1), at(48)));
    assert_eq!(refused.forwarded[0].status, 0x18, "RESERVATION CONFLICT");
    assert_eq!(fulfil(0), Ok(()));
    assert_eq!(fulfil(1), Ok(()));
}

#[test]
fn a_list_of_nothing_is_good() {
    let (world, manager) = (World::new(), manager());
    let mut list = List::new(9);
    list.cscds = vec![world.disk(0)];
    assert_eq!(copy(&world, &manager, &list), Response::good());
    assert_eq!(receive(&world, &manager, 0x00, 9, 64).data_in.concat(), hex("00000008 01 0000 00 00000000"));
    assert!(receive(&world, &manager, 0x00, 9, 64).sense.is_some(), "told once");
    let empty = task(&world.nexus, "83 00 00000000 00000000 00000000 0000", Vec::new());
    assert_eq!(finish(manager.third_party_copy_out(world.devices[0].clone(), empty)), Response::good());
}

#[test]
fn the_rows_of_the_commands_are_the_actions_that_page_8f_lists() {
    for (kind, rows) in [(DeviceType::Tape, spc::COMMANDS.to_vec()), (DeviceType::Disk, [spc::COMMANDS, sbc::COMMANDS].concat())]
    {
        let actions = |opcode: u8| {
            let rows = rows.iter().filter(|spec| spec.opcode == opcode);
            let mut actions: Vec<u8> = rows.filter_map(|spec| spec.service_action).map(|action| action as u8).collect();
            actions.sort_unstable();
            actions
        };
        assert_eq!(actions(0x83), copy_out_actions(kind));
        assert_eq!(actions(0x84), copy_in_actions(kind));
    }
}

#[test]
fn readiness_is_asked_for_without_taking_a_unit_attention() {
    let world = World::new();
    let verify = |source| Segment::VerifyCscd { source, test_unit_ready: true };
    let cscds = [world.disk(0), world.tape()];
    let Device::Tape(tape) = &world.devices[3] else { panic!("a tape") };
    world.devices[3].common().attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, None);
    assert!(world.plan(&world.list(&cscds, &[verify(A), verify(B)])).is_ok());
    let told = finish(tape.start(task(&world.nexus, "00 0000000000", Vec::new())));
    assert_eq!(told.sense.unwrap().code, Sense::MODE_PARAMETERS_CHANGED.code, "still there");
    let unload = finish(tape.start(task(&world.nexus, "1b 00 00 00 00 00", Vec::new())));
    assert_eq!(unload, Response::good());
    let sense = world.refusal(&cscds, &[verify(A), verify(B)]);
    assert_eq!((sense.key, sense.code, sense.command_specific), (SenseKey::CopyAborted, (0x0D, 0x01), Some(1)));
    let [answer] = sense.forwarded.as_slice() else { panic!("one answer") };
    assert_eq!((answer.end, answer.status), (CopyEnd::Source, 0x02));
    assert_eq!(Sense::parse(&answer.sense).unwrap().key, SenseKey::NotReady);
    let without = Segment::VerifyCscd { source: B, test_unit_ready: false };
    assert!(world.plan(&world.list(&cscds, &[without])).is_ok());
    assert_eq!(world.refusal(&cscds, &[verify(CscdId::NULL_BLOCK)]).code, (0x0D, 0x02));
}
