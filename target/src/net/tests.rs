//! The target on a real socket, against the session machine of the other side.

use std::collections::HashSet;
use std::sync::Condvar;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use protocol::iscsi::bhs;
use protocol::iscsi::keys::Wishes;
use protocol::iscsi::pdu::Decoder;
use protocol::iscsi::{
    Attribute, Completion, ConnectionId, Data, Header, Initiator, InitiatorConfig, InitiatorEvent, ProtocolError, Session,
    Submission, TaskManagementFunction, TaskManagementResponse, Transmit,
};
use protocol::scsi::{Cdb, LunAddress, Status};
use protocol::units::{BlockLength, ByteRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::lun::Device;
use crate::lun::common::{Common, Identity};
use crate::lun::disk::Disk;
use crate::lun::testing::MemoryStore;
use crate::nexus::LunMap;
use crate::store::null::NullStore;
use crate::store::{Allocation, BlockStore, LocalEnd};
use crate::volume::Volume;

const NAME: &str = "iqn.2026-11.example:test";
const CID: ConnectionId = ConnectionId(0);
/// Everything here is over long before.
const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    server: Arc<Server>,
    target: Arc<Target>,
    portal: std::net::SocketAddr,
}

/// A store that holds up every read of its second half until the gate opens.
#[derive(Debug)]
struct Gated {
    store: MemoryStore,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gated {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl BlockStore for Gated {
    fn size(&self) -> u64 {
        self.store.size()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if at >= self.size() / 2 {
            drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        }
        self.store.read_at(at, into)
    }

    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()> {
        self.store.write_at(at, data)
    }

    fn deallocate(&self, range: ByteRange) -> io::Result<()> {
        self.store.deallocate(range)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        self.store.allocation(range, limit)
    }

    fn source(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn destination(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Blocks of 512 bytes; those from here on are behind the gate.
const GATED_LBA: u32 = 8192;

impl Served {
    async fn start() -> Self {
        Self::with(Arc::default()).await
    }

    /// With a disk of 8 MiB as LUN 0.
    async fn with_disk() -> (Self, Arc<Gated>) {
        let store = MemoryStore::new(2 * GATED_LBA as usize * 512);
        let gate = Arc::new(Gated { store, open: Mutex::new(false), opened: Condvar::new() });
        let common = Common::new(Identity::new(NAME, "memory", "DISK"), None);
        let volume = Volume::new(Arc::clone(&gate) as Arc<dyn BlockStore>);
        let luns = LunMap::default();
        luns.add(0, Device::Disk(Disk::new(common, volume, BlockLength::B512)));
        (Self::with(Arc::new(luns)).await, gate)
    }

    async fn with(luns: Arc<LunMap>) -> Self {
        let (server, target) = (Server::new(&LimitsSpec::default()), Target::new(NAME, luns));
        server.add_target(Arc::clone(&target)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let portal = listener.local_addr().unwrap();
        server.listen(listener, portal, Portal::default());
        Self { server, target, portal }
    }

    async fn client(&self, initiator: &str) -> Client {
        let mut client = Client::dial(self.portal, initiator, Some(NAME)).await;
        assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedIn(_))));
        if self.target.luns().number(0).is_some() {
            let told = client.command(0, &[0; 6], 0).await;
            assert_eq!((told.sense[2], told.sense[12]), (6, 0x29), "of the power, or of a nexus loss");
        }
        client
    }

    async fn end(self) {
        tokio::time::timeout(PATIENCE, self.server.end()).await.expect("shutdown is bounded");
    }
}

struct Client {
    stream: TcpStream,
    session: Session<Initiator>,
    input: BytesMut,
}

impl Client {
    async fn dial(portal: std::net::SocketAddr, initiator: &str, target: Option<&str>) -> Self {
        let config = InitiatorConfig {
            initiator_name: initiator.to_owned(),
            target_name: target.map(str::to_owned),
            ..Default::default()
        };
        let session = Session::connect(CID, config, std::time::Instant::now());
        Self { stream: TcpStream::connect(portal).await.unwrap(), session, input: BytesMut::new() }
    }

    /// The next event; `None` when the connection has ended.
    async fn event(&mut self) -> Option<InitiatorEvent> {
        tokio::time::timeout(PATIENCE, self.next_event()).await.expect("an answer in time")
    }

    async fn next_event(&mut self) -> Option<InitiatorEvent> {
        loop {
            if let Some(event) = self.session.poll_event() {
                return Some(event);
            }
            let transmit = self.session.transmit(CID).unwrap();
            if self.stream.write_all(&transmit.copy_to_bytes(transmit.len())).await.is_err() {
                return None;
            }
            if matches!(self.stream.read_buf(&mut self.input).await, Ok(0) | Err(_)) {
                return None;
            }
            let handled: Result<(), ProtocolError> = self.session.handle_input(CID, std::time::Instant::now(), &mut self.input);
            if handled.is_err() && self.session.poll_event().is_none() {
                return None;
            }
        }
    }

    fn submit(&mut self, lun: u16, cdb: &[u8], data: Data) -> u32 {
        self.submit_as(Attribute::Simple, lun, cdb, data)
    }

    fn submit_as(&mut self, attribute: Attribute, lun: u16, cdb: &[u8], data: Data) -> u32 {
        self.session.submit(Submission {
            lun: LunAddress::from_number(lun),
            cdb: Cdb::new(cdb).unwrap(),
            attribute,
            immediate: false,
            data,
        })
    }

    /// READ(10) of `blocks` blocks.
    fn read(&mut self, lba: u32, blocks: u16) -> u32 {
        self.submit(0, &cdb_10(0x28, lba, blocks), Data::In(u32::from(blocks) * 512))
    }

    /// True when nothing comes for a while.
    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.next_event()).await.is_err()
    }

    /// True when the target says that it drops the session, and does.
    async fn is_dropped(&mut self) -> bool {
        matches!(self.event().await, Some(InitiatorEvent::Async { event: 3, .. })) && self.event().await.is_none()
    }

    async fn managed(&mut self) -> TaskManagementResponse {
        match self.event().await {
            Some(InitiatorEvent::TaskManagement { response, .. }) => response,
            event => panic!("{event:?}"),
        }
    }

    async fn completed(&mut self) -> (u32, Completion) {
        match self.event().await {
            Some(InitiatorEvent::Completed { tag, completion }) => (tag, completion),
            event => panic!("{event:?}"),
        }
    }

    async fn command(&mut self, lun: u16, cdb: &[u8], room: u32) -> Completion {
        let tag = self.submit(lun, cdb, Data::In(room));
        let (ended, completion) = self.completed().await;
        assert_eq!(ended, tag);
        completion
    }
}

fn cdb_10(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let ([a, b, c, d], [high, low]) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [opcode, 0, a, b, c, d, 0, high, low, 0]
}

const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];

#[tokio::test]
async fn a_target_without_luns_says_so() {
    let served = Served::start().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let inquiry = client.command(0, &INQUIRY, 96).await;
    assert_eq!((inquiry.status, inquiry.data_in[0][0]), (Status::Good as u8, 0x7F), "no device, no type");
    let luns = client.command(0, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 256).await;
    assert_eq!((luns.status, luns.data_in.concat()), (Status::Good as u8, vec![0; 8]));
    let ready = client.command(5, &[0; 6], 0).await;
    assert_eq!((ready.status, ready.sense[2], ready.sense[12]), (Status::CheckCondition as u8, 5, 0x25));
    served.end().await;
}

#[tokio::test]
async fn counters_stay_by_initiator_name_after_logout() {
    let served = Served::start().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let told = client.command(0, &INQUIRY, 96).await.data_in.concat().len() as u64;
    client.session.logout();
    assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedOut { response: 0, .. })));
    assert!(client.event().await.is_none(), "the target closes");
    let mut again = served.client("iqn.2026-11.example:host").await;
    again.command(0, &INQUIRY, 4).await;
    let sessions = served.server.sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].sessions, sessions[0].commands, sessions[0].live), (2, 2, true));
    assert_eq!(sessions[0].data_in, told + 4);
    served.end().await;
}

#[tokio::test]
async fn a_session_of_the_same_name_and_isid_takes_the_place_of_the_former() {
    let served = Served::start().await;
    let mut former = served.client("iqn.2026-11.example:host").await;
    let mut latter = served.client("iqn.2026-11.example:host").await;
    assert!(former.is_dropped().await, "the former is closed");
    latter.command(0, &INQUIRY, 96).await;
    assert_eq!(served.target.reachable().len(), 1);
    served.end().await;
}

#[tokio::test]
async fn task_management_is_answered() {
    let served = Served::start().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let mut ask = async |function, lun, referenced| {
        client.session.task_management(function, LunAddress::from_number(lun), referenced);
        client.managed().await
    };
    use TaskManagementFunction as Function;
    use TaskManagementResponse as Outcome;
    assert_eq!(ask(Function::AbortTask, 0, Some(99)).await, Outcome::TaskDoesNotExist);
    assert_eq!(ask(Function::LogicalUnitReset, 3, None).await, Outcome::LunDoesNotExist);
    assert_eq!(ask(Function::ClearAca, 0, None).await, Outcome::FunctionNotSupported);
    assert_eq!(ask(Function::TargetWarmReset, 0, None).await, Outcome::FunctionComplete);
    served.end().await;
}

#[tokio::test]
async fn a_cold_reset_ends_every_session() {
    let served = Served::start().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.session.task_management(TaskManagementFunction::TargetColdReset, LunAddress::from_number(0), None);
    assert!(matches!(client.event().await, Some(InitiatorEvent::TaskManagement { .. })));
    assert!(client.is_dropped().await);
    assert!(other.is_dropped().await);
    served.end().await;
}

#[tokio::test]
async fn discovery_tells_the_address_that_was_dialled() {
    let served = Served::start().await;
    let mut client = Client::dial(served.portal, "iqn.2026-11.example:host", None).await;
    assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedIn(_))));
    client.session.send_targets("All");
    let Some(InitiatorEvent::Text { text, .. }) = client.event().await else { panic!() };
    assert_eq!(text, format!("TargetName={NAME}\0TargetAddress={},1\0", served.portal));
    served.end().await;
}

#[tokio::test]
async fn shutdown_asks_for_logout_and_closes() {
    let served = Served::start().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    served.server.shutdown.cancel();
    assert!(matches!(client.event().await, Some(InitiatorEvent::Async { event: 1, .. })));
    assert!(client.event().await.is_none());
    served.end().await;
}

#[tokio::test]
async fn bytes_that_are_no_login_close_the_connection_and_nothing_else() {
    let served = Served::start().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    for junk in [vec![0; 48], vec![0xFF; 4096], b"GET / HTTP/1.1\r\n\r\n".repeat(9)] {
        let mut stream = TcpStream::connect(served.portal).await.unwrap();
        stream.write_all(&junk).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("closed in time");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    client.command(0, &INQUIRY, 96).await;
    served.end().await;
}

#[tokio::test]
async fn three_megabytes_go_to_the_disk_and_come_back() {
    let (served, _gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let data: Vec<u8> = (0..3 << 20).map(|at: usize| (at ^ at >> 9) as u8).collect();
    client.submit(0, &cdb_10(0x2A, 7, 6144), Data::Out(vec![data.clone().into()]));
    assert_eq!(client.completed().await.1.status, Status::Good as u8);
    client.read(7, 6144);
    assert_eq!(client.completed().await.1.data_in.concat(), data);
    let session = served.server.sessions().remove(0);
    assert_eq!((session.data_out, session.data_in), (3 << 20, 3 << 20));
    served.end().await;
}

#[tokio::test]
async fn long_reads_that_wait_for_room_are_all_answered() {
    let volume = Volume::new(Arc::new(NullStore::new(8 << 20)));
    let common = Common::new(Identity::new(NAME, "null", "DISK"), None);
    let luns = LunMap::default();
    luns.add(0, Device::Disk(Disk::new(common, volume, BlockLength::B512)));
    let server = Served::with(Arc::new(luns)).await;
    let mut client = server.client("iqn.2026-01.test:reader").await;
    for _ in 0..100 {
        let mut open: HashSet<u32> = (0..32).map(|_| client.read(0, 2048)).collect();
        while !open.is_empty() {
            let (tag, completion) = client.completed().await;
            assert!(open.remove(&tag));
            assert_eq!(completion.status, Status::Good as u8);
        }
    }
    server.end().await;
}

#[tokio::test]
async fn an_aborted_task_is_waited_for_and_never_answered() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let read = client.read(GATED_LBA, 1);
    assert!(client.is_silent().await);
    client.session.task_management(TaskManagementFunction::AbortTask, LunAddress::from_number(0), Some(read));
    assert!(client.is_silent().await, "the command still runs");
    gate.open();
    assert_eq!(client.managed().await, TaskManagementResponse::FunctionComplete);
    assert!(client.is_silent().await);
    let next = client.read(GATED_LBA, 1);
    assert_eq!(client.completed().await.0, next);
    served.end().await;
}

#[tokio::test]
async fn a_command_that_takes_long_holds_up_no_other() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let long = client.read(GATED_LBA, 1);
    let others: Vec<u32> = (0..20).map(|lba| client.read(lba, 1)).collect();
    for _ in &others {
        assert!(others.contains(&client.completed().await.0));
    }
    client.session.ping(Bytes::from_static(b"still there"));
    assert!(matches!(client.event().await, Some(InitiatorEvent::Pong { .. })));
    gate.open();
    assert_eq!(client.completed().await.0, long);
    served.end().await;
}

/// More long commands than there are hops at first: each hop has ended a short one before it meets a long one.
#[tokio::test]
async fn a_reply_does_not_wait_for_the_next_command_of_its_thread() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let short: Vec<u32> = (0..2).map(|lba| client.read(lba, 64)).collect();
    let long: Vec<u32> = (0..2).map(|_| client.read(GATED_LBA, 1)).collect();
    for _ in &short {
        assert!(short.contains(&client.completed().await.0));
    }
    gate.open();
    for _ in &long {
        assert!(long.contains(&client.completed().await.0));
    }
    served.end().await;
}

#[tokio::test]
async fn a_reset_reaches_the_tasks_of_others_and_tells_them() {
    let (served, gate) = Served::with_disk().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    other.read(GATED_LBA, 1);
    assert!(other.is_silent().await);
    client.session.task_management(TaskManagementFunction::LogicalUnitReset, LunAddress::from_number(0), None);
    assert!(client.is_silent().await, "the other's command still runs");
    gate.open();
    assert_eq!(client.managed().await, TaskManagementResponse::FunctionComplete);
    other.read(0, 1);
    let (_, told) = other.completed().await;
    assert_eq!((told.status, told.sense[2], told.sense[12]), (Status::CheckCondition as u8, 6, 0x29));
    served.end().await;
}

#[tokio::test]
async fn a_new_session_waits_until_the_former_runs_nothing() {
    let (served, gate) = Served::with_disk().await;
    let mut former = served.client("iqn.2026-11.example:host").await;
    former.read(GATED_LBA, 1);
    assert!(former.is_silent().await);
    drop(former);
    let mut latter = Client::dial(served.portal, "iqn.2026-11.example:host", Some(NAME)).await;
    assert!(latter.is_silent().await, "a command of the former still runs");
    gate.open();
    assert!(matches!(latter.event().await, Some(InitiatorEvent::LoggedIn(_))));
    served.end().await;
}

#[tokio::test]
async fn logout_ends_what_runs_before_it_is_answered() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.read(GATED_LBA, 1);
    assert!(client.is_silent().await);
    client.session.logout();
    assert!(client.is_silent().await, "the command still runs");
    gate.open();
    assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedOut { response: 0, .. })));
    served.end().await;
}

#[tokio::test]
async fn ordered_commands_wait_and_head_of_queue_passes() {
    let (served, gate) = Served::with_disk().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let long = client.read(GATED_LBA, 1);
    assert!(client.is_silent().await);
    let read = |client: &mut Client, attribute| client.submit_as(attribute, 0, &cdb_10(0x28, 0, 1), Data::In(512));
    let ordered = read(&mut client, Attribute::Ordered);
    let younger = read(&mut client, Attribute::Simple);
    assert!(client.is_silent().await, "an older command still runs");
    // One task set for all nexuses.
    let elsewhere = read(&mut other, Attribute::Simple);
    assert!(other.is_silent().await, "an ORDERED command is there");
    let head = read(&mut client, Attribute::HeadOfQueue);
    assert_eq!(client.completed().await.0, head);
    gate.open();
    assert_eq!(client.completed().await.0, long);
    assert_eq!(client.completed().await.0, ordered);
    assert_eq!(client.completed().await.0, younger);
    assert_eq!(other.completed().await.0, elsewhere);
    served.end().await;
}

#[tokio::test]
async fn an_ordered_command_that_is_aborted_holds_up_nobody() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.read(GATED_LBA, 1);
    let ordered = client.submit_as(Attribute::Ordered, 0, &cdb_10(0x28, 0, 1), Data::In(512));
    let younger = client.read(0, 1);
    assert!(client.is_silent().await);
    client.session.task_management(TaskManagementFunction::AbortTask, LunAddress::from_number(0), Some(ordered));
    let (mut managed, mut completed) = (false, false);
    while !(managed && completed) {
        match client.event().await {
            Some(InitiatorEvent::TaskManagement { response: TaskManagementResponse::FunctionComplete, .. }) => managed = true,
            Some(InitiatorEvent::Completed { tag, .. }) if tag == younger => completed = true,
            event => panic!("{event:?}"),
        }
    }
    gate.open();
    served.end().await;
}

/// A second connection for a session, each PDU by hand.
struct Joined {
    stream: TcpStream,
    input: BytesMut,
}

impl Joined {
    /// Logs in with this TSIH; gives the status of the login as well.
    async fn log_in(portal: std::net::SocketAddr, tsih: u16, cid: u16) -> (Self, (u8, u8)) {
        let mut joined = Self { stream: TcpStream::connect(portal).await.unwrap(), input: BytesMut::new() };
        let text = format!("InitiatorName=iqn.2026-11.example:host\0TargetName={NAME}\0SessionType=Normal\0");
        let header = bhs::LoginRequest {
            opcode: bhs::IMMEDIATE,
            flags: bhs::FINAL | 1 << 2 | 3,
            isid: InitiatorConfig::default().isid,
            tsih: tsih.into(),
            cid: cid.into(),
            ..Default::default()
        };
        joined.send(header, text.as_bytes()).await;
        match joined.receive().await {
            Some(Header::LoginResponse(answer)) => (joined, (answer.status_class, answer.status_detail)),
            other => panic!("{other:?}"),
        }
    }

    async fn send(&mut self, header: impl bhs::Bhs, data: &[u8]) {
        let mut transmit = Transmit::default();
        transmit.push(header, &[Bytes::copy_from_slice(data)]);
        self.stream.write_all(&transmit.copy_to_bytes(transmit.len())).await.unwrap();
    }

    async fn receive(&mut self) -> Option<Header> {
        let decoder = Decoder { digests: Default::default(), max_data_segment_length: 1 << 20 };
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(pdu) = decoder.decode(&mut self.input).unwrap() {
                    return Some(pdu.header);
                }
                if matches!(self.stream.read_buf(&mut self.input).await, Ok(0) | Err(_)) {
                    return None;
                }
            }
        })
        .await
        .expect("an answer in time")
    }

    async fn inquire(&mut self, tag: u32, cmd_sn: u32) {
        let mut cdb = [0; 16];
        cdb[..6].copy_from_slice(&INQUIRY);
        let header = bhs::ScsiCommand {
            flags: bhs::FINAL | bhs::READ | 1,
            initiator_task_tag: tag.into(),
            expected_data_transfer_length: 96.into(),
            cmd_sn: cmd_sn.into(),
            cdb,
            ..Default::default()
        };
        self.send(header, &[]).await;
    }

    async fn answers(&mut self, tag: u32) -> bool {
        matches!(self.receive().await, Some(Header::DataIn(data_in)) if data_in.initiator_task_tag.get() == tag)
    }
}

async fn session_of_two(served: &Served) -> (Client, Joined, u16) {
    let mut client = Client::dial(served.portal, "iqn.2026-11.example:host", Some(NAME)).await;
    client.session = Session::connect(
        CID,
        InitiatorConfig {
            initiator_name: "iqn.2026-11.example:host".into(),
            target_name: Some(NAME.into()),
            wishes: Wishes { max_connections: 2, ..Wishes::default() },
            ..Default::default()
        },
        std::time::Instant::now(),
    );
    let Some(InitiatorEvent::LoggedIn(logged_in)) = client.event().await else { panic!("no login") };
    let (joined, status) = Joined::log_in(served.portal, logged_in.tsih, 1).await;
    assert_eq!(status, (0, 0));
    (client, joined, logged_in.tsih)
}

#[tokio::test]
async fn a_connection_joins_and_each_answers_what_it_was_asked() {
    let served = Served::start().await;
    let (mut client, mut joined, tsih) = session_of_two(&served).await;
    // CmdSN 2 comes before CmdSN 1: it waits for it.
    joined.inquire(1002, 2).await;
    assert_eq!(client.command(0, &INQUIRY, 96).await.status, Status::Good as u8);
    assert!(joined.answers(1002).await);
    let (_, status) = Joined::log_in(served.portal, tsih, 2).await;
    assert_eq!(status, (2, 6), "two were negotiated");
    let (_, status) = Joined::log_in(served.portal, tsih.wrapping_add(100), 2).await;
    assert_eq!(status, (2, 0x0A), "no such session");
    served.end().await;
}

#[tokio::test]
async fn a_session_goes_on_without_the_connection_that_was_lost() {
    let (served, gate) = Served::with_disk().await;
    let (mut client, mut joined, tsih) = session_of_two(&served).await;
    client.command(0, &[0; 6], 0).await;
    client.read(GATED_LBA, 1);
    assert!(client.is_silent().await);
    drop(client);
    let told = joined.receive().await;
    assert!(matches!(told, Some(Header::AsyncMessage(message)) if message.async_event == 2), "{told:?}");
    joined.inquire(1002, 3).await;
    assert!(joined.answers(1002).await, "others are not held up by what the lost connection left");
    gate.open();
    // The same CID again: the former connection of it is closed.
    let (mut again, status) = Joined::log_in(served.portal, tsih, 1).await;
    assert_eq!(status, (0, 0));
    while joined.receive().await.is_some() {}
    again.inquire(1003, 4).await;
    assert!(again.answers(1003).await);
    served.end().await;
}
