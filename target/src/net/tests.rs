//! The target on a real socket, against the session machine of the other side.

mod bounds;
mod commands;
mod in_place;
mod joining;
mod management;
mod sessions;
mod streams;

use std::collections::HashSet;
use std::sync::Condvar;
use std::sync::atomic::AtomicUsize;
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
use crate::lun::common::{Common, CopyService, Identity};
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
    /// Reads that came so far.
    reached: AtomicUsize,
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
            self.reached.fetch_add(1, Ordering::SeqCst);
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
        Self::with_disk_and(None).await
    }

    /// As [`Served::with_disk`]; the disk has its copies made by this.
    async fn with_disk_and(copies: Option<Arc<dyn CopyService>>) -> (Self, Arc<Gated>) {
        let store = MemoryStore::new(2 * GATED_LBA as usize * 512);
        let gate = Arc::new(Gated { store, open: Mutex::new(false), opened: Condvar::new(), reached: AtomicUsize::new(0) });
        let common = Common::new(Identity::new(NAME, "memory", "DISK"), copies);
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
        self.client_at(initiator, 0).await
    }

    /// As [`Served::client`], for an initiator that knows the disk by this number.
    async fn client_at(&self, initiator: &str, lun: u16) -> Client {
        let mut client = Client::dial(self.portal, initiator, Some(NAME)).await;
        assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedIn(_))));
        if self.target.luns().number(0).is_some() {
            let told = client.command(lun, &[0; 6], 0).await;
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
        Self::dial_as(portal, initiator, target, InitiatorConfig::default().isid).await
    }

    async fn dial_as(portal: std::net::SocketAddr, initiator: &str, target: Option<&str>, isid: [u8; 6]) -> Self {
        let config = InitiatorConfig {
            initiator_name: initiator.to_owned(),
            target_name: target.map(str::to_owned),
            isid,
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

    /// Sends what is submitted, and does not look at what comes.
    async fn send(&mut self) {
        let transmit = self.session.transmit(CID).unwrap();
        self.stream.write_all(&transmit.copy_to_bytes(transmit.len())).await.unwrap();
    }

    /// Waits until the target asks for data, and keeps it from being sent.
    async fn is_asked(&mut self) {
        let asked = async {
            while self.session.transmit(CID).unwrap().is_empty() {
                assert_ne!(self.stream.read_buf(&mut self.input).await.unwrap(), 0, "the connection has ended");
                self.session.handle_input(CID, std::time::Instant::now(), &mut self.input).unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("data is asked for");
        let transmit = self.session.transmit(CID).unwrap();
        transmit.advance(transmit.len());
    }

    /// Sends a READ, and waits until it is held up at the gate.
    async fn send_to(&mut self, gate: &Gated) {
        let before = gate.reached.load(Ordering::SeqCst);
        self.send().await;
        let reached = async {
            while gate.reached.load(Ordering::SeqCst) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the command begins");
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
