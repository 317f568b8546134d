//! Both sides against each other, on virtual time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::super::bhs;
use super::super::keys::{DigestWish, Wishes};
use super::*;
use crate::scsi::{Cdb, LunAddress, Status};
use crate::wire::U32;

const CID: ConnectionId = ConnectionId(0);
const NAME: &str = "iqn.2026-11.example:disk";

/// An initiator and a target joined by two byte streams. The target is a memory of one megabyte after another: a write to
/// offset 0 is kept, a read gives it back.
struct Pair {
    now: Instant,
    initiator: Session<Initiator>,
    target: Session<Target>,
    /// Bytes each transport step carries at most.
    step: usize,
    to_target: BytesMut,
    to_initiator: BytesMut,
    memory: Vec<u8>,
    /// Commands the target holds back.
    held: Vec<Command>,
    hold: bool,
    /// The target takes whole kilobytes of a write's data as they come: by task tag.
    takes: bool,
    /// How often it was told of some that it did not take.
    told: usize,
    taken: HashMap<u32, Vec<u8>>,
    completions: HashMap<u32, Completion>,
    events: Vec<InitiatorEvent>,
    target_events: Vec<TargetEvent>,
}

fn wishes() -> Wishes {
    Wishes::default()
}

impl Pair {
    fn new(ours: Wishes, theirs: Wishes) -> Self {
        Self::with(ours, TargetConfig { wishes: theirs, ..Self::config() }, Some(NAME))
    }

    fn config() -> TargetConfig {
        let entry = TargetEntry { name: NAME.into(), addresses: vec!["127.0.0.1:3260,1".into()] };
        TargetConfig { gate: Arc::new(vec![entry]), queue_depth: 8, ..Default::default() }
    }

    fn with(wishes: Wishes, config: TargetConfig, target_name: Option<&str>) -> Self {
        let now = Instant::now();
        let initiator = InitiatorConfig {
            initiator_name: "iqn.2026-11.example:host".into(),
            target_name: target_name.map(str::to_owned),
            wishes,
            ..Default::default()
        };
        let mut pair = Self {
            now,
            initiator: Session::connect(CID, initiator, now),
            target: Session::accept(CID, config, now),
            step: usize::MAX,
            to_target: BytesMut::new(),
            to_initiator: BytesMut::new(),
            memory: Vec::new(),
            held: Vec::new(),
            hold: false,
            takes: false,
            told: 0,
            taken: HashMap::new(),
            completions: HashMap::new(),
            events: Vec::new(),
            target_events: Vec::new(),
        };
        pair.drive().unwrap();
        pair
    }

    /// Carries bytes both ways until nothing moves.
    fn drive(&mut self) -> Result<(), ProtocolError> {
        loop {
            let mut moved = carry(self.initiator.transmit(CID)?, &mut self.to_target, self.step);
            moved += carry(self.target.transmit(CID)?, &mut self.to_initiator, self.step);
            if moved == 0 {
                return Ok(());
            }
            self.target.handle_input(CID, self.now, &mut self.to_target)?;
            self.initiator.handle_input(CID, self.now, &mut self.to_initiator)?;
            while let Some(event) = self.target.poll_event() {
                self.act(event);
            }
            while let Some(event) = self.initiator.poll_event() {
                match event {
                    InitiatorEvent::Completed { tag, completion } => {
                        self.completions.insert(tag, completion);
                    }
                    event => self.events.push(event),
                }
            }
        }
    }

    /// Carries what the initiator has to say, and lets the target act on it.
    fn only_to_target(&mut self) {
        carry(self.initiator.transmit(CID).unwrap(), &mut self.to_target, usize::MAX);
        self.target.handle_input(CID, self.now, &mut self.to_target).unwrap();
        while let Some(event) = self.target.poll_event() {
            self.act(event);
        }
    }

    /// Carries up to so many bytes of what the target has to say.
    fn only_to_initiator(&mut self, bytes: usize) {
        carry(self.target.transmit(CID).unwrap(), &mut self.to_initiator, bytes);
        self.initiator.handle_input(CID, self.now, &mut self.to_initiator).unwrap();
        while let Some(event) = self.initiator.poll_event() {
            if let InitiatorEvent::Completed { tag, completion } = event {
                self.completions.insert(tag, completion);
            }
        }
    }

    fn act(&mut self, event: TargetEvent) {
        match event {
            TargetEvent::Command(command) if self.hold => self.held.push(command),
            TargetEvent::Command(command) => self.execute(&command),
            TargetEvent::DataOut { .. } if !self.takes => self.told += 1,
            TargetEvent::DataOut { tag } => {
                // One that has come to its end meanwhile has all its data with it.
                let held = self.target.arriving(tag).map_or(0, |arriving| arriving.held / 1024 * 1024);
                let parts = self.target.take_data_out(tag, held);
                self.taken.entry(tag).or_default().extend(parts.concat());
            }
            event => self.target_events.push(event),
        }
    }

    fn execute(&mut self, command: &Command) {
        let mut reply = Reply { status: Status::Good, sense: Bytes::new(), data_in: Vec::new(), transfer_length: None };
        if command.cdb.opcode() == 0x2A {
            self.memory = self.taken.remove(&command.tag).unwrap_or_default();
            self.memory.extend(command.data_out.concat());
        } else {
            // In parts of odd sizes, as a device may give them.
            reply.data_in = self.memory.chunks(70_001).map(Bytes::copy_from_slice).collect();
        }
        self.target.respond(command.tag, &reply);
    }

    fn submit(&mut self, opcode: u8, data: Data) -> u32 {
        let mut cdb = [0; 10];
        cdb[0] = opcode;
        self.initiator.submit(Submission {
            lun: LunAddress::from_number(0),
            cdb: Cdb::new(&cdb).unwrap(),
            attribute: Attribute::Simple,
            immediate: false,
            data,
        })
    }

    fn write(&mut self, length: usize) -> u32 {
        let data: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
        self.submit(0x2A, Data::Out(data.chunks(33_333).map(Bytes::copy_from_slice).collect()))
    }

    fn finished(&mut self, tag: u32) -> Completion {
        self.drive().unwrap();
        self.completions.remove(&tag).unwrap_or_else(|| panic!("command {tag} did not end"))
    }
}

fn carry(transmit: &mut Transmit, into: &mut BytesMut, step: usize) -> usize {
    let take = transmit.len().min(step);
    into.extend_from_slice(&transmit.copy_to_bytes(take));
    take
}

#[test]
fn a_write_and_a_read_come_back_the_same() {
    let mut pair = Pair::new(wishes(), wishes());
    let write = pair.write(3_000_000);
    assert_eq!(pair.finished(write).status, Status::Good as u8);
    let read = pair.submit(0x28, Data::In(3_000_000));
    let completion = pair.finished(read);
    assert_eq!(completion.data_in.concat(), pair.memory);
    assert_eq!(completion.residual, Residual::None);
}

#[test]
fn a_session_goes_on_elsewhere_with_its_numbers_and_digests() {
    let digests = Wishes { header_digest: DigestWish::Require, data_digest: DigestWish::Require, ..wishes() };
    let mut pair = Pair::new(digests, wishes());
    let write = pair.write(500_000);
    assert_eq!(pair.finished(write).status, Status::Good as u8);
    let elsewhere = || Session::connect(CID, InitiatorConfig::default(), Instant::now());
    // Not while a command is under way.
    let read = pair.submit(0x28, Data::In(500_000));
    let busy = std::mem::replace(&mut pair.initiator, elsewhere()).hand_over().unwrap_err();
    pair.initiator = *busy;
    pair.finished(read);
    let handover = std::mem::replace(&mut pair.initiator, elsewhere()).hand_over().unwrap();
    let watch = Watch { ping_interval: Duration::from_secs(5), ping_timeout: Duration::from_secs(5) };
    pair.initiator = Session::take_over(&handover, watch, pair.now);
    for _ in 0..20 {
        let read = pair.submit(0x28, Data::In(500_000));
        assert_eq!(pair.finished(read).data_in.concat(), pair.memory);
    }
    pair.initiator.logout();
    pair.drive().unwrap();
    let Some(TargetEvent::Logout { tag, .. }) = pair.target_events.pop() else { panic!("no logout came") };
    pair.target.respond_logout(tag);
    pair.drive().unwrap();
    assert!(matches!(pair.events.last(), Some(InitiatorEvent::LoggedOut { response: 0, .. })));
    assert!(elsewhere().hand_over().is_err(), "not before the login");
}

#[test]
fn residuals_tell_what_was_not_moved() {
    let mut pair = Pair::new(wishes(), wishes());
    let write = pair.write(1000);
    pair.finished(write);
    let short = pair.submit(0x28, Data::In(600));
    let completion = pair.finished(short);
    assert_eq!((completion.residual, completion.data_in.concat().len()), (Residual::Overflow(400), 600));
    let long = pair.submit(0x28, Data::In(5000));
    assert_eq!(pair.finished(long).residual, Residual::Underflow(4000));
    let none = pair.submit(0x28, Data::None);
    assert_eq!(pair.finished(none).residual, Residual::Overflow(1000));
}

#[test]
fn data_and_sense_come_in_one_command() {
    let mut pair = Pair::new(wishes(), wishes());
    pair.hold = true;
    let read = pair.submit(0x08, Data::In(1000));
    pair.drive().unwrap();
    let command = pair.held.pop().unwrap();
    let reply = Reply {
        status: Status::CheckCondition,
        sense: Bytes::from_static(&[0x70, 0, 0x20]),
        data_in: vec![Bytes::from_static(b"short record")],
        transfer_length: None,
    };
    pair.target.respond(command.tag, &reply);
    let completion = pair.finished(read);
    assert_eq!(completion.status, Status::CheckCondition as u8);
    assert_eq!((&completion.sense[..], completion.data_in.concat()), (&[0x70, 0, 0x20][..], b"short record".to_vec()));
    assert_eq!(completion.residual, Residual::Underflow(988));
}

#[test]
fn the_window_holds_commands_back_until_there_is_room() {
    let mut pair = Pair::new(wishes(), wishes());
    pair.hold = true;
    let tags: Vec<u32> = (0..20).map(|_| pair.submit(0x28, Data::None)).collect();
    pair.drive().unwrap();
    assert_eq!(pair.held.len(), 8, "the queue depth");
    for round in 1.. {
        for command in std::mem::take(&mut pair.held) {
            pair.execute(&command);
        }
        pair.drive().unwrap();
        if pair.held.is_empty() {
            break;
        }
        assert!(round < 20);
    }
    assert!(tags.iter().all(|tag| pair.completions.contains_key(tag)));
}

#[test]
fn a_narrow_window_moves_on_for_one_command_at_a_time() {
    let mut pair = Pair::new(wishes(), wishes());
    pair.hold = true;
    pair.target.set_narrow(true);
    let tags: Vec<u32> = (0..20).map(|_| pair.write(5000)).collect();
    pair.drive().unwrap();
    assert_eq!(pair.held.len(), 8, "what was let in before may come");
    assert_eq!(pair.target.unasked() + pair.target.asked_for(), 8 * 5000);
    for command in std::mem::take(&mut pair.held) {
        pair.execute(&command);
        pair.drive().unwrap();
    }
    while let Some(command) = pair.held.pop() {
        assert_eq!(pair.held.len(), 0);
        pair.execute(&command);
        pair.drive().unwrap();
        if pair.completions.len() == 15 {
            pair.target.set_narrow(false);
        }
        if pair.completions.len() > 15 {
            break;
        }
    }
    assert_eq!(pair.held.len(), 4, "one answer later all is let in");
    for command in std::mem::take(&mut pair.held) {
        pair.execute(&command);
    }
    pair.drive().unwrap();
    assert!(tags.iter().all(|tag| pair.completions[tag].status == 0));
    assert_eq!(pair.target.unasked(), 0);
}

/// Replies that the initiator does not take close the window; when they are taken and nothing else is due, a NOP-In opens it.
#[test]
fn a_window_closed_by_replies_that_are_not_taken_opens_again_when_they_are() {
    let config = TargetConfig { reply_backlog: 10_000, queue_depth: 4, ..Pair::config() };
    let mut pair = Pair::with(wishes(), config, Some(NAME));
    let write = pair.write(20_000);
    pair.drive().unwrap();
    assert_eq!(pair.completions.remove(&write).unwrap().status, 0);
    let tags: Vec<u32> = (0..12).map(|_| pair.submit(0x28, Data::In(20_000))).collect();
    pair.only_to_target();
    assert_eq!(pair.target.backlog(), 4 * 20_048, "as many as the window let in");
    // One reply tells of room for a fifth command, which finds the others still there.
    pair.only_to_initiator(20_048);
    pair.only_to_target();
    pair.only_to_initiator(usize::MAX);
    assert!(pair.initiator.transmit(CID).unwrap().is_empty(), "all is answered, and the window is closed");
    pair.target.handle_drained(CID);
    let transmit = pair.target.transmit(CID).unwrap();
    let said = transmit.chunk();
    assert_eq!((said[0], &said[20..24]), (0x20, &[0xFF; 4][..]), "a NOP-In that asks for nothing");
    pair.drive().unwrap();
    assert!(tags.iter().all(|tag| pair.completions.contains_key(tag)));
}

#[test]
fn writes_wait_for_budget_and_all_are_served() {
    let config = TargetConfig { write_budget: 2_000_000, queue_depth: 32, ..Pair::config() };
    let mut pair = Pair::with(wishes(), config, Some(NAME));
    pair.hold = true;
    let tags: Vec<u32> = (0..10).map(|_| pair.write(1_800_000)).collect();
    pair.drive().unwrap();
    assert_eq!(pair.held.len(), 1, "the budget is for one");
    while let Some(command) = pair.held.pop() {
        pair.execute(&command);
        pair.drive().unwrap();
        assert!(pair.held.len() <= 1);
    }
    assert!(tags.iter().all(|tag| pair.completions[tag].status == 0));
}

#[test]
fn what_is_taken_of_a_write_makes_room_for_others() {
    let config = TargetConfig { write_budget: 2_000_000, queue_depth: 32, ..Pair::config() };
    let mut pair = Pair::with(Wishes { first_burst_length: 65_536, ..wishes() }, config, Some(NAME));
    (pair.takes, pair.hold, pair.step) = (true, true, 100_000);
    let writes: Vec<u32> = (0..4).map(|_| pair.write(1_500_000)).collect();
    pair.drive().unwrap();
    assert_eq!(pair.held.len(), 4, "none waits for the answer of another");
    assert!(pair.target.asked_for() + pair.target.unasked() < 1_600_000, "the end of each");
    for command in std::mem::take(&mut pair.held) {
        pair.execute(&command);
        assert_eq!(pair.memory.len(), 1_500_000);
    }
    for write in writes {
        assert_eq!(pair.finished(write).status, Status::Good as u8);
    }
    assert_eq!((pair.target.asked_for(), pair.target.unasked()), (0, 0));
}

#[test]
fn a_write_behind_an_ordered_one_is_not_told_before_it() {
    let mut pair = Pair::new(Wishes { first_burst_length: 65_536, ..wishes() }, wishes());
    (pair.takes, pair.hold) = (true, true);
    let cdb = Cdb::new(&[0x2A, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let lun = LunAddress::from_number(0);
    let data = Data::Out(vec![Bytes::from(vec![1; 900_000])]);
    pair.initiator.submit(Submission { lun, cdb, attribute: Attribute::Ordered, immediate: false, data });
    pair.write(900_000);
    pair.only_to_target();
    assert!(pair.held.is_empty() && pair.taken.is_empty());
    pair.drive().unwrap();
    assert_eq!(pair.held[0].attribute, Attribute::Ordered);
    assert_eq!(pair.held.len(), 2);
}

#[test]
fn who_took_data_is_told_that_the_transfer_is_broken() {
    let mut pair = Pair::new(Wishes { first_burst_length: 65_536, ..wishes() }, wishes());
    pair.takes = true;
    let write = pair.write(900_000);
    pair.only_to_target();
    assert_eq!(pair.taken[&write].len(), 65_536);
    let mut stray = Transmit::default();
    let header = bhs::DataOut { initiator_task_tag: U32::new(write), target_transfer_tag: U32::new(99), ..Default::default() };
    stray.push(header, &[Bytes::from_static(b"none of it was asked for")]);
    let mut input = BytesMut::from(&stray.copy_to_bytes(stray.len())[..]);
    pair.target.handle_input(CID, pair.now, &mut input).unwrap();
    assert!(matches!(pair.target.poll_event(), Some(TargetEvent::Failed { tag }) if tag == write));
    assert!(pair.target.arriving(write).is_none());
}

#[test]
fn data_of_a_command_is_not_told_of_behind_the_end_of_one_that_had_its_tag_before() {
    let mut pair = Pair::new(Wishes { first_burst_length: 65_536, ..wishes() }, wishes());
    let write = pair.write(900_000);
    let transmit = pair.initiator.transmit(CID).unwrap();
    let mut input = BytesMut::from(&transmit.copy_to_bytes(transmit.len())[..]);
    let cmd_sn = u32::from_be_bytes(input[24..28].try_into().unwrap());
    let mut more = Transmit::default();
    let stray = bhs::DataOut { initiator_task_tag: U32::new(write), target_transfer_tag: U32::new(99), ..Default::default() };
    more.push(stray, &[Bytes::from_static(b"none of it was asked for")]);
    let again = bhs::ScsiCommand {
        flags: bhs::FINAL | bhs::WRITE,
        initiator_task_tag: U32::new(write),
        expected_data_transfer_length: U32::new(900_000),
        cmd_sn: U32::new(cmd_sn.wrapping_add(1)),
        ..Default::default()
    };
    more.push(again, &[vec![7; 65_536].into()]);
    input.extend_from_slice(&more.copy_to_bytes(more.len()));
    pair.target.handle_input(CID, pair.now, &mut input).unwrap();
    let told: Vec<_> = std::iter::from_fn(|| pair.target.poll_event()).collect();
    assert!(matches!(told[..], [TargetEvent::Failed { .. }, TargetEvent::DataOut { .. }]), "{told:?}");
}

#[test]
fn nothing_more_is_told_of_a_write_that_is_to_come_whole() {
    let mut pair = Pair::new(Wishes { first_burst_length: 65_536, ..wishes() }, wishes());
    let write = pair.write(900_000);
    pair.only_to_target();
    pair.target.keep_data_out(write);
    pair.told = 0;
    let completion = pair.finished(write);
    assert_eq!((completion.status, pair.told), (0, 0));
    let other = pair.write(900_000);
    assert_eq!(pair.finished(other).status, 0);
    assert!(pair.told > 1, "of others it is");
}

#[test]
fn a_budget_that_shrinks_lets_one_write_through_and_one_that_grows_all_that_wait() {
    let mut pair = Pair::with(wishes(), TargetConfig { queue_depth: 32, ..Pair::config() }, Some(NAME));
    pair.hold = true;
    pair.target.set_write_budget(0);
    let tags: Vec<u32> = (0..10).map(|_| pair.write(1_800_000)).collect();
    pair.drive().unwrap();
    assert_eq!((pair.held.len(), pair.target.asked_for() > 0), (1, true), "one is always asked for");
    pair.target.set_write_budget(64 << 20);
    pair.drive().unwrap();
    assert_eq!(pair.held.len(), 10);
    while let Some(command) = pair.held.pop() {
        pair.execute(&command);
    }
    pair.drive().unwrap();
    assert!(tags.iter().all(|tag| pair.completions[tag].status == 0));
    assert_eq!(pair.target.asked_for(), 0);
}

#[test]
fn a_write_over_the_limit_is_refused_and_its_data_let_pass() {
    let config = TargetConfig { max_write_length: 1_000_000, ..Pair::config() };
    let mut pair = Pair::with(wishes(), config, Some(NAME));
    let tag = pair.write(1_000_001);
    let completion = pair.finished(tag);
    assert_eq!(completion.status, Status::CheckCondition as u8);
    assert_eq!((completion.sense[2], completion.sense[12]), (5, 0x24));
    let next = pair.write(1_000_000);
    assert_eq!(pair.finished(next).status, 0);
}

#[test]
fn an_aborted_task_is_never_answered() {
    let mut pair = Pair::new(wishes(), wishes());
    pair.hold = true;
    let tag = pair.submit(0x28, Data::In(512));
    pair.drive().unwrap();
    let running = pair.target.abort_tasks(|task, _| task == tag);
    assert_eq!(running, [tag]);
    let command = pair.held.pop().unwrap();
    pair.execute(&command);
    pair.drive().unwrap();
    assert!(pair.completions.is_empty());
}

/// CLEAR TASK SET has to tell a nexus that it has lost one.
#[test]
fn a_write_that_waits_for_its_data_is_named_among_the_aborted() {
    let config = TargetConfig { write_budget: 1, ..Pair::config() };
    let mut pair = Pair::with(Wishes { initial_r2t: true, immediate_data: false, ..wishes() }, config, Some(NAME));
    pair.hold = true;
    let tags = [pair.write(5000), pair.write(5000)];
    pair.drive().unwrap();
    let mut aborted = pair.target.abort_tasks(|_, _| true);
    aborted.sort_unstable();
    assert_eq!(aborted, tags);
}

#[test]
fn task_management_goes_there_and_back() {
    let mut pair = Pair::new(wishes(), wishes());
    let lun = LunAddress::from_number(3);
    let tag = pair.initiator.task_management(TaskManagementFunction::LogicalUnitReset, lun, None);
    pair.drive().unwrap();
    let Some(TargetEvent::TaskManagement { tag: seen, function, lun: at, .. }) = pair.target_events.pop() else { panic!() };
    assert_eq!((seen, function, at), (tag, TaskManagementFunction::LogicalUnitReset, lun));
    pair.target.respond_task_management(tag, TaskManagementResponse::FunctionComplete);
    pair.drive().unwrap();
    let done = TaskManagementResponse::FunctionComplete;
    assert!(matches!(pair.events.pop(), Some(InitiatorEvent::TaskManagement { response, .. }) if response == done));
}

#[test]
fn a_ping_comes_back_with_its_bytes() {
    let mut pair = Pair::new(wishes(), wishes());
    let tag = pair.initiator.ping(Bytes::from_static(b"are you there"));
    pair.drive().unwrap();
    let answer = pair.events.pop();
    assert!(matches!(answer, Some(InitiatorEvent::Pong { tag: t, data }) if t == tag && &data[..] == b"are you there"));
}

#[test]
fn send_targets_answers_all_in_discovery_and_the_own_target_otherwise() {
    let asked = |target: Option<&str>, which: &str| {
        let mut pair = Pair::with(wishes(), Pair::config(), target);
        pair.initiator.send_targets(which);
        pair.drive().unwrap();
        match pair.events.pop() {
            Some(InitiatorEvent::Text { text, .. }) => String::from_utf8_lossy(&text).replace('\0', " "),
            event => panic!("{event:?}"),
        }
    };
    let told = format!("TargetName={NAME} TargetAddress=127.0.0.1:3260,1 ");
    assert_eq!(asked(None, "All"), told);
    assert_eq!(asked(None, NAME), told);
    assert_eq!(asked(Some(NAME), ""), told);
    assert_eq!(asked(Some(NAME), "All"), "");
    assert_eq!(asked(None, "iqn.x:other"), "");
}

#[test]
fn a_long_list_of_targets_comes_in_pieces() {
    let mut config = Pair::config();
    let targets: Vec<_> = (0..500)
        .map(|number| TargetEntry { name: format!("iqn.2026-11.example:{number}"), addresses: vec!["127.0.0.1:3260,1".into()] })
        .collect();
    config.gate = Arc::new(targets);
    let small = Wishes { max_recv_data_segment_length: 512, ..wishes() };
    let mut pair = Pair::with(small, config, None);
    pair.initiator.send_targets("All");
    pair.drive().unwrap();
    let Some(InitiatorEvent::Text { text, .. }) = pair.events.pop() else { panic!() };
    assert_eq!(super::super::text::parse(&text).unwrap().len(), 1000);
}

#[test]
fn logout_closes_both_sides() {
    let mut pair = Pair::new(wishes(), wishes());
    let tag = pair.initiator.logout();
    pair.drive().unwrap();
    assert!(matches!(pair.target_events.pop(), Some(TargetEvent::Logout { tag: seen, closes: None }) if seen == tag));
    pair.target.respond_logout(tag);
    pair.drive().unwrap();
    assert!(pair.target.is_closing(CID) && pair.initiator.is_closing(CID));
}

#[test]
fn silence_is_answered_by_a_ping_and_then_by_the_end() {
    let mut pair = Pair::new(wishes(), wishes());
    pair.now = pair.target.poll_timeout(CID).unwrap();
    pair.target.handle_timeout(CID, pair.now).unwrap();
    assert_eq!(pair.target.transmit(CID).unwrap().len(), 48);
    pair.drive().unwrap();
    assert_eq!(pair.target.poll_timeout(CID), Some(pair.now + Duration::from_secs(30)), "the answer counts as life");

    pair.now = pair.target.poll_timeout(CID).unwrap();
    pair.target.handle_timeout(CID, pair.now).unwrap();
    pair.now = pair.target.poll_timeout(CID).unwrap();
    assert!(matches!(pair.target.handle_timeout(CID, pair.now), Err(ProtocolError::PingTimeout(_))));
    assert!(pair.target.is_closing(CID));
}

#[test]
fn a_login_that_does_not_come_ends() {
    let now = Instant::now();
    let mut target = Session::accept(CID, Pair::config(), now);
    let deadline = target.poll_timeout(CID).unwrap();
    assert_eq!(target.handle_timeout(CID, deadline - Duration::from_nanos(1)), Ok(()));
    assert!(matches!(target.handle_timeout(CID, deadline), Err(ProtocolError::LoginTimeout(_))));
}

/// Sends one raw PDU to a logged-in target, and gives what it says to it.
fn provoke<H: super::super::bhs::Bhs>(header: H, data: &[u8]) -> (Result<(), ProtocolError>, Vec<super::super::Header>, Pair) {
    let mut pair = Pair::new(Wishes { header_digest: DigestWish::Never, data_digest: DigestWish::Never, ..wishes() }, wishes());
    let mut raw = Transmit::default();
    raw.push(header, &[Bytes::copy_from_slice(data)]);
    let mut input = BytesMut::from(&raw.copy_to_bytes(raw.len())[..]);
    let outcome = pair.target.handle_input(CID, pair.now, &mut input);
    let transmit = pair.target.transmit(CID).unwrap();
    let mut output = BytesMut::from(&transmit.copy_to_bytes(transmit.len())[..]);
    let decoder = Decoder { digests: Digests::default(), max_data_segment_length: 1 << 20 };
    let mut answers = Vec::new();
    while let Some(pdu) = decoder.decode(&mut output).unwrap() {
        answers.push(pdu.header);
    }
    (outcome, answers, pair)
}

mod hostile {
    use super::super::super::bhs::RejectReason;
    use super::super::super::{Header, bhs::NopOut};
    use super::*;

    fn command(cmd_sn: u32) -> bhs::ScsiCommand {
        bhs::ScsiCommand { flags: bhs::FINAL, cmd_sn: U32::new(cmd_sn), initiator_task_tag: U32::new(99), ..Default::default() }
    }

    #[test]
    fn a_cmd_sn_outside_of_the_window_is_ignored_in_silence() {
        for cmd_sn in [0, 1 + 8, u32::MAX] {
            let (outcome, answers, mut pair) = provoke(command(cmd_sn), &[]);
            assert_eq!((outcome, answers.len()), (Ok(()), 0));
            assert!(pair.target.poll_event().is_none());
            assert_eq!((pair.target.take_wasted(), pair.target.take_wasted()), (1, 0));
        }
        let (_, _, mut pair) = provoke(command(1), &[]);
        assert!(matches!(pair.target.poll_event(), Some(TargetEvent::Command(_))));
        assert_eq!(pair.target.take_wasted(), 0);
    }

    #[test]
    fn a_gap_in_cmd_sn_ends_the_session() {
        let (outcome, answers, _) = provoke(command(2), &[]);
        assert_eq!(outcome, Err(ProtocolError::CommandGap { expected: 1, got: 2 }));
        assert!(matches!(answers[..], [Header::Reject(reject)] if reject.reason == RejectReason::ProtocolError as u8));
    }

    #[test]
    fn data_that_nobody_asked_for_is_let_pass_or_refused() {
        let stray = bhs::DataOut { initiator_task_tag: U32::new(77), ..Default::default() };
        let (outcome, answers, _) = provoke(stray, b"data");
        assert_eq!((outcome, answers.len()), (Ok(()), 0));

        let write = bhs::ScsiCommand { flags: bhs::FINAL | bhs::WRITE, expected_data_transfer_length: U32::new(2), ..command(1) };
        let (outcome, answers, _) = provoke(write, b"more than two");
        assert_eq!(outcome, Ok(()));
        assert!(matches!(answers[..], [Header::ScsiResponse(response)] if response.status == 2));
    }

    #[test]
    fn a_pdu_of_the_wrong_side_or_none_is_rejected() {
        let (outcome, answers, _) = provoke(bhs::LoginRequest::default(), &[]);
        assert!(outcome.is_err());
        assert!(matches!(answers[..], [Header::Reject(_)]));
        let (outcome, answers, _) = provoke(bhs::SnackRequest::default(), &[]);
        assert_eq!(outcome, Ok(()));
        assert!(matches!(answers[..], [Header::Reject(reject)] if reject.reason == RejectReason::ProtocolError as u8));
    }

    #[test]
    fn a_task_tag_in_use_is_rejected_and_its_task_goes_on() {
        let (_, _, mut pair) = provoke(command(1), &[]);
        let mut raw = Transmit::default();
        raw.push(command(2), &[]);
        let mut input = BytesMut::from(&raw.copy_to_bytes(raw.len())[..]);
        pair.target.handle_input(CID, pair.now, &mut input).unwrap();
        assert!(pair.target.has_task(99));
        assert_eq!(pair.target.transmit(CID).unwrap().len(), 96, "one Reject with the header it rejects");
    }

    #[test]
    fn anything_but_a_login_before_the_login_ends_the_connection() {
        let now = Instant::now();
        let mut target = Session::accept(CID, Pair::config(), now);
        let mut raw = Transmit::default();
        raw.push(NopOut::default(), &[]);
        let mut input = BytesMut::from(&raw.copy_to_bytes(raw.len())[..]);
        let outcome = target.handle_input(CID, now, &mut input);
        assert!(matches!(outcome, Err(ProtocolError::Unexpected { .. })));
        assert!(target.is_closing(CID) && target.transmit(CID).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_data_digest_is_rejected_and_ends_the_session() {
        let digest = Wishes { header_digest: DigestWish::Require, data_digest: DigestWish::Require, ..wishes() };
        let mut pair = Pair::new(digest, wishes());
        pair.initiator.ping(Bytes::from_static(b"ping"));
        let transmit = pair.initiator.transmit(CID).unwrap();
        let mut input = BytesMut::from(&transmit.copy_to_bytes(transmit.len())[..]);
        input[53] ^= 0x10;
        let outcome = pair.target.handle_input(CID, pair.now, &mut input);
        assert!(matches!(outcome, Err(ProtocolError::Frame(FrameError::DataDigest { .. }))));
        assert_eq!(pair.target.transmit(CID).unwrap().chunk()[..3], [0x3F, 0x80, 0x02]);
    }

    /// RFC 7143 (7.8): nothing in it can be trusted, so that no Reject can name it, and where the next PDU begins is not known.
    #[test]
    fn a_damaged_header_digest_ends_the_connection_on_either_level() {
        for error_recovery_level in [0, 1] {
            let digest = Wishes { header_digest: DigestWish::Require, error_recovery_level, ..wishes() };
            let mut pair = Pair::new(digest, Wishes { error_recovery_level, ..wishes() });
            assert_eq!(u32::from(pair.target.parameters().error_recovery_level), error_recovery_level);
            pair.submit(0x28, Data::In(512));
            let transmit = pair.initiator.transmit(CID).unwrap();
            let mut input = BytesMut::from(&transmit.copy_to_bytes(transmit.len())[..]);
            input[20] ^= 0x10;
            let outcome = pair.target.handle_input(CID, pair.now, &mut input);
            assert!(matches!(outcome, Err(ProtocolError::Frame(FrameError::HeaderDigest(_)))), "{outcome:?}");
            assert!(pair.target.is_closing(CID) && pair.target.transmit(CID).unwrap().is_empty());
            assert!(pair.target.poll_event().is_none());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_after_the_login_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut pair = Pair::new(wishes(), wishes());
            let mut input = BytesMut::from(&bytes[..]);
            let _ = pair.target.handle_input(CID, pair.now, &mut input);
            let mut input = BytesMut::from(&bytes[..]);
            let _ = pair.initiator.handle_input(CID, pair.now, &mut input);
        }

        #[test]
        fn any_headers_after_the_login_never_panic(
            headers in proptest::collection::vec((0u8..0x48, any::<[u8; 7]>(), any::<[u8; 8]>(), 0u32..4, any::<[u8; 28]>()), 1..12),
            target in any::<bool>(),
        ) {
            let mut pair = Pair::new(Wishes { max_recv_data_segment_length: 512, ..wishes() }, wishes());
            let write = pair.write(900);
            let _ = write;
            let mut input = BytesMut::new();
            for (opcode, mut head, lun, tag, tail) in headers {
                // Small data segments, so that most PDUs are whole.
                let length = head[6] % 5;
                head[3..].copy_from_slice(&[0, 0, 0, length]);
                input.extend_from_slice(&[opcode]);
                input.extend_from_slice(&head);
                input.extend_from_slice(&lun);
                input.extend_from_slice(&tag.to_be_bytes());
                input.extend_from_slice(&tail);
                input.extend_from_slice(&[0; 4][..usize::from(head[6]).next_multiple_of(4)]);
            }
            let _ = if target {
                pair.target.handle_input(CID, pair.now, &mut input)
            } else {
                pair.initiator.handle_input(CID, pair.now, &mut input)
            };
        }
    }
}

fn any_wishes() -> impl Strategy<Value = Wishes> {
    let digest = || prop_oneof![Just(DigestWish::Never), Just(DigestWish::Accept), Just(DigestWish::Prefer)];
    let segment = || prop_oneof![512u32..5000, 5000u32..300_000];
    (digest(), digest(), segment(), segment(), segment(), any::<bool>(), any::<bool>(), 1u32..5).prop_map(
        |(header_digest, data_digest, max_recv, max_burst, first_burst, initial_r2t, immediate_data, r2ts)| Wishes {
            header_digest,
            data_digest,
            max_recv_data_segment_length: max_recv,
            max_burst_length: max_burst,
            first_burst_length: first_burst,
            initial_r2t,
            immediate_data,
            max_outstanding_r2t: r2ts,
            error_recovery_level: r2ts % 2,
            ..Wishes::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_negotiated_data_comes_through_whole(
        ours in any_wishes(), theirs in any_wishes(), step in 1usize..100_000,
        lengths in proptest::collection::vec(prop_oneof![0usize..3000, 0usize..600_000], 1..4), takes: bool,
    ) {
        let mut pair = Pair::new(ours, theirs);
        pair.takes = takes;
        pair.step = step.max(50);
        for length in lengths {
            let write = pair.write(length);
            prop_assert_eq!(pair.finished(write).status, 0);
            prop_assert_eq!(pair.memory.len(), length);
            let read = pair.submit(0x28, Data::In(length as u32 + 100));
            let completion = pair.finished(read);
            prop_assert_eq!(completion.data_in.concat(), pair.memory.clone());
            prop_assert_eq!(completion.residual, Residual::Underflow(100));
        }
    }
}
