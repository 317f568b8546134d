//! Within-connection recovery: both sides against each other over a line that loses and damages chosen PDUs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::super::Header;
use super::super::bhs;
use super::super::keys::{DigestWish, Wishes};
use super::*;
use crate::scsi::{Cdb, LunAddress, Status};
use crate::wire::U32;

const CID: ConnectionId = ConnectionId(0);
const NAME: &str = "iqn.2026-11.example:disk";

/// What the line does to a PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It never comes.
    Lose,
    /// A bit of its data segment is wrong.
    Damage,
}

/// Decides about the nth PDU that passes, counted from the end of the login.
type Faults = Box<dyn FnMut(usize, &Header) -> Fault>;

struct Line {
    now: Instant,
    initiator: Session<Initiator>,
    target: Session<Target>,
    faults: Faults,
    passed: usize,
    /// Faults that were done.
    done: usize,
    /// The login is through, and digests are where they belong.
    up: bool,
    memory: Vec<u8>,
    /// Of a write whose end has not come: data is taken as it comes.
    taken: Vec<u8>,
    /// Data-In with a status of its own, as a short record of a tape has.
    apart: bool,
    completions: HashMap<u32, Completion>,
}

fn wishes() -> Wishes {
    Wishes {
        header_digest: DigestWish::Require,
        data_digest: DigestWish::Require,
        max_recv_data_segment_length: 4096,
        max_burst_length: 16_384,
        first_burst_length: 8192,
        error_recovery_level: 1,
        ..Wishes::default()
    }
}

impl Line {
    fn new(ours: Wishes, faults: Faults) -> Self {
        let now = Instant::now();
        let initiator = InitiatorConfig {
            initiator_name: "iqn.2026-11.example:host".into(),
            target_name: Some(NAME.into()),
            wishes: ours,
            ..Default::default()
        };
        let entry = TargetEntry { name: NAME.into(), addresses: vec!["127.0.0.1:3260,1".into()] };
        let config = TargetConfig { gate: Arc::new(vec![entry]), queue_depth: 8, wishes: wishes(), ..Default::default() };
        let mut line = Self {
            now,
            initiator: Session::connect(CID, initiator, now),
            target: Session::accept(CID, config, now),
            faults: Box::new(|_, _| Fault::None),
            passed: 0,
            done: 0,
            up: false,
            memory: Vec::new(),
            taken: Vec::new(),
            apart: false,
            completions: HashMap::new(),
        };
        line.drive();
        assert_eq!(line.target.parameters().error_recovery_level, 1);
        line.faults = faults;
        line.up = true;
        line
    }

    /// Carries PDUs both ways until nothing moves.
    fn drive(&mut self) {
        loop {
            let to_target = self.spoiled(|line| line.initiator.transmit(CID).unwrap());
            let to_initiator = self.spoiled(|line| line.target.transmit(CID).unwrap());
            if to_target.is_empty() && to_initiator.is_empty() {
                return;
            }
            self.target.handle_input(CID, self.now, &mut BytesMut::from(&to_target[..])).unwrap();
            while let Some(event) = self.target.poll_event() {
                match event {
                    TargetEvent::Command(command) => self.execute(&command),
                    TargetEvent::DataOut { tag } => {
                        let held = self.target.arriving(tag).map_or(0, |arriving| arriving.held / 1024 * 1024);
                        self.taken.extend(self.target.take_data_out(tag, held).concat());
                    }
                    _ => {}
                }
            }
            self.initiator.handle_input(CID, self.now, &mut BytesMut::from(&to_initiator[..])).unwrap();
            while let Some(event) = self.initiator.poll_event() {
                if let InitiatorEvent::Completed { tag, completion } = event {
                    assert!(self.completions.insert(tag, completion).is_none(), "command {tag} ends twice");
                }
            }
        }
    }

    fn spoiled(&mut self, of: impl Fn(&mut Self) -> &mut Transmit) -> Vec<u8> {
        let transmit = of(self);
        let mut rest = transmit.copy_to_bytes(transmit.len());
        if !self.up {
            return rest.to_vec();
        }
        let digests = self.target.parameters().digests;
        let mut out = Vec::new();
        while !rest.is_empty() {
            let data = u32::from_be_bytes([0, rest[5], rest[6], rest[7]]) as usize;
            let headers = bhs::LENGTH + usize::from(rest[4]) * 4 + if digests.header { 4 } else { 0 };
            let digest = if digests.data && data > 0 { 4 } else { 0 };
            let mut pdu = rest.split_to(headers + data.next_multiple_of(4) + digest).to_vec();
            let header = Header::parse(pdu.first_chunk().unwrap());
            self.passed += 1;
            let fault = (self.faults)(self.passed, &header);
            match fault {
                Fault::Damage if data > 0 => pdu[headers] ^= 0x40,
                Fault::Lose => pdu.clear(),
                _ => {}
            }
            self.done += usize::from(fault != Fault::None);
            out.extend(pdu);
        }
        out
    }

    fn execute(&mut self, command: &Command) {
        let mut reply = Reply { status: Status::Good, sense: Bytes::new(), data_in: Vec::new(), transfer_length: None };
        if command.cdb.opcode() == 0x2A {
            self.memory = std::mem::take(&mut self.taken);
            self.memory.extend(command.data_out.concat());
        } else {
            reply.data_in = self.memory.chunks(7001).map(Bytes::copy_from_slice).collect();
            if self.apart {
                reply.status = Status::CheckCondition;
                reply.sense = Bytes::from_static(&[0x70, 0, 0x20]);
            }
        }
        self.target.respond(command.tag, &reply);
    }

    fn submit(&mut self, opcode: u8, data: Data) -> u32 {
        let lun = LunAddress::from_number(0);
        let cdb = Cdb::new(&[opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        self.initiator.submit(Submission { lun, cdb, attribute: Attribute::Simple, immediate: false, data })
    }

    fn write(&mut self, length: usize) -> u32 {
        let data: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
        self.submit(0x2A, Data::Out(vec![data.into()]))
    }

    /// The end of a command. A ping lets each side notice what it has not heard of.
    fn finished(&mut self, tag: u32) -> Completion {
        for _ in 0..8 {
            self.drive();
            if let Some(completion) = self.completions.remove(&tag) {
                return completion;
            }
            self.initiator.ping(Bytes::new());
        }
        panic!("command {tag} did not end")
    }

    fn writes_and_reads(&mut self, length: usize) {
        let write = self.write(length);
        assert_eq!(self.finished(write).status, Status::Good as u8);
        assert!(self.memory.iter().enumerate().all(|(at, byte)| *byte == (at * 7 + at / 256) as u8));
        assert_eq!(self.memory.len(), length);
        let read = self.submit(0x28, Data::In(length as u32));
        assert_eq!(self.finished(read).data_in.concat(), self.memory);
    }
}

/// Every PDU of a kind has this fault the first time it passes.
fn each_once(fault: Fault, kind: impl Fn(&Header) -> Option<(u32, u32)> + 'static) -> Faults {
    let mut seen = std::collections::HashSet::new();
    Box::new(move |_, header| match kind(header) {
        Some(which) if seen.insert(which) => fault,
        _ => Fault::None,
    })
}

fn data_in(header: &Header) -> Option<(u32, u32)> {
    match header {
        Header::DataIn(header) => Some((header.initiator_task_tag.get(), header.data_sn.get())),
        _ => None,
    }
}

fn data_out(header: &Header) -> Option<(u32, u32)> {
    match header {
        // Those that are asked for again have another transfer tag: all of the first sequences fail, no later one.
        Header::DataOut(header) if header.target_transfer_tag.get() == bhs::NO_TAG || header.target_transfer_tag.get() < 2 => {
            Some((header.target_transfer_tag.get(), header.data_sn.get()))
        }
        _ => None,
    }
}

#[test]
fn data_in_that_comes_damaged_is_asked_for_again() {
    let mut line = Line::new(wishes(), each_once(Fault::Damage, data_in));
    line.writes_and_reads(100_000);
    assert_eq!(line.done, 25, "each piece once");
}

#[test]
fn a_data_in_left_out_is_asked_for_again_and_what_came_behind_it_is_kept() {
    let mut line = Line::new(wishes(), Box::new(|_, _| Fault::None));
    let mut lost = std::collections::HashSet::new();
    line.faults = Box::new(move |_, header| match header {
        Header::DataIn(header) if header.data_sn.get() % 5 == 2 && lost.insert(header.data_sn.get()) => Fault::Lose,
        _ => Fault::None,
    });
    line.writes_and_reads(50_000);
    assert!(line.done >= 2);
}

#[test]
fn data_out_that_comes_damaged_is_asked_for_by_a_recovery_r2t() {
    for initial_r2t in [false, true] {
        let mut line = Line::new(Wishes { initial_r2t, ..wishes() }, each_once(Fault::Damage, data_out));
        line.writes_and_reads(60_000);
        assert!(line.done >= 1, "initial_r2t {initial_r2t}");
    }
}

#[test]
fn a_data_out_left_out_is_asked_for_when_its_sequence_ends() {
    let mut left_out = false;
    let mut line = Line::new(
        wishes(),
        Box::new(move |_, header| match header {
            Header::DataOut(header) if header.flags & bhs::FINAL == 0 && !std::mem::replace(&mut left_out, true) => Fault::Lose,
            _ => Fault::None,
        }),
    );
    line.writes_and_reads(60_000);
    assert_eq!(line.done, 1);
}

#[test]
fn an_answer_that_is_lost_is_brought_by_a_status_snack() {
    let responses = |header: &Header| match header {
        Header::ScsiResponse(header) => Some((header.stat_sn.get(), 0)),
        Header::DataIn(header) if header.flags & bhs::STATUS != 0 => Some((header.stat_sn.get(), 1)),
        _ => None,
    };
    for apart in [false, true] {
        let mut line = Line::new(wishes(), each_once(Fault::Lose, responses));
        line.apart = apart;
        let write = line.write(5000);
        assert_eq!(line.finished(write).status, Status::Good as u8);
        let read = line.submit(0x28, Data::In(5000));
        let completion = line.finished(read);
        assert_eq!(completion.data_in.concat(), line.memory);
        assert_eq!(completion.status, if apart { Status::CheckCondition } else { Status::Good } as u8);
        assert_eq!(line.done, 2);
    }
}

#[test]
fn what_is_acknowledged_is_not_kept() {
    let mut line = Line::new(wishes(), Box::new(|_, _| Fault::None));
    line.writes_and_reads(100_000);
    line.initiator.ping(Bytes::new());
    line.drive();
    assert_eq!(line.target.kept(), 0);
}

#[test]
fn bursts_are_released_by_data_acks_before_the_command_ends() {
    let mut line = Line::new(wishes(), Box::new(|_, _| Fault::None));
    let write = line.write(100_000);
    line.finished(write);
    // The answer to the read does not come, so nothing but the DataACKs of its bursts releases anything.
    line.faults = Box::new(|_, header| match header {
        Header::DataIn(header) if header.flags & bhs::STATUS != 0 => Fault::Lose,
        _ => Fault::None,
    });
    line.submit(0x28, Data::In(100_000));
    line.drive();
    assert_eq!(line.target.kept(), 100_000 % 16_384, "six bursts have arrived");
}

#[test]
fn an_initiator_that_acknowledges_nothing_is_pinged_and_not_kept_for() {
    let mut line = Line::new(wishes(), Box::new(|_, _| Fault::None));
    let write = line.write(4000);
    line.finished(write);
    for _ in 0..8 {
        line.submit(0x28, Data::In(4000));
    }
    // The initiator's PDUs stop after its commands: only what the target has of them counts.
    let said = line.only_to_target();
    let is_ping = |pdu: &&Pdu| matches!(pdu.header, Header::NopIn(nop) if nop.target_transfer_tag.get() != bhs::NO_TAG);
    assert_eq!((said.iter().filter(is_ping).count(), line.target.kept()), (1, 8 * 4000));
}

impl Line {
    /// Carries what the initiator has said, and keeps what the target says to it from the initiator.
    fn only_to_target(&mut self) -> Vec<Pdu> {
        let said = self.spoiled(|line| line.initiator.transmit(CID).unwrap());
        self.target.handle_input(CID, self.now, &mut BytesMut::from(&said[..])).unwrap();
        while let Some(event) = self.target.poll_event() {
            if let TargetEvent::Command(command) = event {
                self.execute(&command);
            }
        }
        self.said()
    }

    /// What the target says to one PDU, which did not come from the initiator.
    fn says_to<H: bhs::Bhs>(&mut self, header: H, data: &'static str) -> Vec<Pdu> {
        let mut raw = Transmit::default();
        raw.set_digests(self.target.parameters().digests);
        raw.push(header, &[Bytes::from_static(data.as_bytes())]);
        self.target.handle_input(CID, self.now, &mut BytesMut::from(&raw.copy_to_bytes(raw.len())[..])).unwrap();
        self.said()
    }

    fn said(&mut self) -> Vec<Pdu> {
        let mut said = BytesMut::from(&self.spoiled(|line| line.target.transmit(CID).unwrap())[..]);
        let decoder = Decoder { digests: self.target.parameters().digests, max_data_segment_length: 1 << 20 };
        std::iter::from_fn(|| decoder.decode(&mut said).unwrap()).collect()
    }

    /// Lets the initiator take data segments of at most 1000 bytes from now on.
    fn shrink(&mut self) {
        let header = bhs::TextRequest {
            opcode: bhs::IMMEDIATE,
            flags: bhs::FINAL,
            initiator_task_tag: 0x77.into(),
            target_transfer_tag: bhs::NO_TAG.into(),
            ..Default::default()
        };
        let answer = self.says_to(header, "MaxRecvDataSegmentLength=1000\0");
        assert!(matches!(answer[..], [Pdu { header: Header::TextResponse(_), .. }]), "{answer:?}");
    }
}

fn r_data(tag: u32, snack_tag: u32) -> bhs::SnackRequest {
    let (initiator_task_tag, target_transfer_tag) = (tag.into(), snack_tag.into());
    bhs::SnackRequest { flags: bhs::FINAL | 3, initiator_task_tag, target_transfer_tag, ..Default::default() }
}

/// Data-In PDUs with DataSNs from `data_sn` on, which bring `wanted`, and a SCSI Response with the tag behind them.
fn assert_cut_anew(said: &[Pdu], mut data_sn: u32, mut offset: usize, wanted: &[u8], snack_tag: u32) -> bhs::ScsiResponse {
    let (last, pieces) = said.split_last().unwrap();
    for piece in pieces {
        let Header::DataIn(header) = piece.header else { panic!("{:?}", piece.header) };
        assert_eq!((header.data_sn.get(), header.buffer_offset.get() as usize), (data_sn, offset));
        assert!(header.flags & bhs::STATUS == 0 && piece.data.len() <= 1000);
        assert_eq!(piece.data, wanted[offset..offset + piece.data.len()]);
        (data_sn, offset) = (data_sn + 1, offset + piece.data.len());
    }
    assert_eq!(offset, wanted.len());
    let Header::ScsiResponse(response) = last.header else { panic!("{:?}", last.header) };
    assert_eq!((response.snack_tag.get(), response.exp_data_sn.get()), (snack_tag, data_sn));
    response
}

#[test]
fn an_r_data_snack_brings_data_as_the_initiator_takes_it_now_and_a_tagged_response() {
    let mut line = Line::new(wishes(), Box::new(|_, _| Fault::None));
    let write = line.write(40_000);
    line.finished(write);
    let read = line.submit(0x28, Data::In(50_000));
    let first = line.only_to_target();
    let Header::DataIn(with_status) = first.last().unwrap().header else { panic!() };
    line.shrink();
    let (whole, kept) = (line.memory.clone(), line.target.kept());
    let said = line.says_to(r_data(read, 5), "");
    let response = assert_cut_anew(&said, 0, 0, &whole, 5);
    assert_eq!((response.stat_sn, response.residual_count.get()), (with_status.stat_sn, 10_000));
    assert_eq!(response.flags, bhs::FINAL | bhs::UNDERFLOW);

    // The first burst, and half of the second, have arrived: 17 pieces, and 8 of the next 17.
    let ack = bhs::SnackRequest {
        flags: bhs::FINAL | 2,
        initiator_task_tag: bhs::NO_TAG.into(),
        target_transfer_tag: with_acknowledgement(&first),
        beg_run: 25.into(),
        ..Default::default()
    };
    assert_eq!(line.says_to(ack, ""), []);
    assert_eq!(line.target.kept(), kept - 16_384);
    let said = line.says_to(r_data(read, 6), "");
    assert_cut_anew(&said, 25, 16_384 + 8000, &whole, 6);
    assert_eq!(line.target.kept(), kept - 16_384 - 8000);
    // A Status SNACK brings the latest of the responses.
    let again = line.says_to(bhs::SnackRequest { flags: bhs::FINAL | 1, beg_run: response.stat_sn, ..Default::default() }, "");
    assert!(matches!(again[0].header, Header::ScsiResponse(one) if one.snack_tag.get() == 6), "{again:?}");
}

/// The transfer tag by which the first burst asks for a DataACK.
fn with_acknowledgement(said: &[Pdu]) -> U32 {
    let asks = |pdu: &Pdu| match pdu.header {
        Header::DataIn(header) if header.flags & bhs::ACKNOWLEDGE != 0 => Some(header.target_transfer_tag),
        _ => None,
    };
    said.iter().find_map(asks).expect("a burst asks for a DataACK")
}

#[test]
fn an_r_data_snack_before_the_answer_tags_the_answer() {
    let mut line = Line::new(wishes(), Box::new(|_, _| Fault::None));
    let write = line.write(3000);
    line.finished(write);
    let read = line.submit(0x28, Data::In(3000));
    let said = line.spoiled(|line| line.initiator.transmit(CID).unwrap());
    line.target.handle_input(CID, line.now, &mut BytesMut::from(&said[..])).unwrap();
    line.shrink();
    assert_eq!(line.says_to(r_data(read, 9), ""), []);
    let Some(TargetEvent::Command(command)) = line.target.poll_event() else { panic!() };
    line.execute(&command);
    let (said, whole) = (line.said(), line.memory.clone());
    assert_cut_anew(&said, 0, 0, &whole, 9);
}

#[test]
fn a_snack_for_what_is_not_kept_is_rejected() {
    let mut line = Line::new(wishes(), Box::new(|_, _| Fault::None));
    line.writes_and_reads(5000);
    line.initiator.ping(Bytes::new());
    line.drive();
    for (kind, reason) in [(1, 0), (0, 0x04), (3, 0x09), (7, 0x09)] {
        let snack = bhs::SnackRequest { flags: bhs::FINAL | kind, initiator_task_tag: 2.into(), ..Default::default() };
        match (&line.says_to(snack, "")[..], reason) {
            ([Pdu { header: Header::NopIn(_), .. }], 0) => {} // only the last pong is not acknowledged
            ([Pdu { header: Header::Reject(reject), .. }], reason) => assert_eq!(reject.reason, reason, "type {kind}"),
            other => panic!("type {kind}: {other:?}"),
        }
    }
}

/// What is the same when a PDU is sent again.
fn which(header: &Header) -> (u8, u32, u32) {
    match header {
        Header::DataIn(header) => (0, header.initiator_task_tag.get(), header.data_sn.get()),
        Header::ScsiResponse(header) => (1, header.stat_sn.get(), 0),
        Header::DataOut(header) => (2, header.initiator_task_tag.get(), header.buffer_offset.get()),
        _ => (3, 0, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Data and answers may be lost in any pattern, as long as not all are.
    #[test]
    fn whatever_is_lost_once_comes_again(
        pattern in proptest::collection::vec(0u8..6, 40), lengths in proptest::collection::vec(0usize..70_000, 1..4),
        initial_r2t: bool, apart: bool,
    ) {
        let mut budget = 30;
        let mut seen = std::collections::HashSet::new();
        let faults = move |nth: usize, header: &Header| {
            let may_fail = matches!(header, Header::DataIn(_) | Header::ScsiResponse(_) | Header::DataOut(_));
            let fault = match pattern[nth % pattern.len()] {
                0 => Fault::Damage,
                // A final Data-Out that never comes leaves a sequence open: TCP does not do that.
                1 if !matches!(header, Header::DataOut(header) if header.flags & bhs::FINAL != 0) => Fault::Lose,
                _ => Fault::None,
            };
            if !may_fail || fault == Fault::None || budget == 0 || !seen.insert(which(header)) {
                return Fault::None;
            }
            budget -= 1;
            fault
        };
        let mut line = Line::new(Wishes { initial_r2t, ..wishes() }, Box::new(faults));
        line.apart = apart;
        for length in lengths {
            let write = line.write(length);
            prop_assert_eq!(line.finished(write).status, Status::Good as u8);
            prop_assert_eq!(line.memory.len(), length);
            let read = line.submit(0x28, Data::In(length as u32));
            prop_assert_eq!(line.finished(read).data_in.concat(), line.memory.clone());
        }
    }
}
