//! The target on a real socket, against the session machine of the other side.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use protocol::iscsi::{
    Attribute, Completion, ConnectionId, Data, Initiator, InitiatorConfig, InitiatorEvent, ProtocolError, Session, Submission,
    TaskManagementFunction, TaskManagementResponse,
};
use protocol::scsi::{Cdb, LunAddress, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

const NAME: &str = "iqn.2026-11.example:test";
const CID: ConnectionId = ConnectionId(0);
/// Everything here is over long before.
const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    target: Arc<Target>,
    portal: std::net::SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl Served {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let portal = listener.local_addr().unwrap();
        let target = Target::new(NAME, Arc::default());
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(Arc::clone(&target).serve(listener, shutdown.clone()));
        Self { target, portal, shutdown, serving }
    }

    async fn client(&self, initiator: &str) -> Client {
        let mut client = Client::dial(self.portal, initiator, Some(NAME)).await;
        assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedIn(_))));
        client
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.expect("shutdown is bounded").unwrap().unwrap();
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

    fn submit(&mut self, lun: u16, cdb: &[u8], room: u32) -> u32 {
        self.session.submit(Submission {
            lun: LunAddress::from_number(lun),
            cdb: Cdb::new(cdb).unwrap(),
            attribute: Attribute::Simple,
            immediate: false,
            data: Data::In(room),
        })
    }

    async fn command(&mut self, lun: u16, cdb: &[u8], room: u32) -> Completion {
        let tag = self.submit(lun, cdb, room);
        match self.event().await {
            Some(InitiatorEvent::Completed { tag: ended, completion }) if ended == tag => completion,
            event => panic!("{event:?}"),
        }
    }
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
    let sessions = served.target.sessions();
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
    assert!(former.event().await.is_none(), "the former is closed");
    latter.command(0, &INQUIRY, 96).await;
    assert_eq!(served.target.handles().len(), 1);
    served.end().await;
}

#[tokio::test]
async fn task_management_is_answered() {
    let served = Served::start().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let mut ask = async |function, lun, referenced| {
        client.session.task_management(function, LunAddress::from_number(lun), referenced);
        match client.event().await {
            Some(InitiatorEvent::TaskManagement { response, .. }) => response,
            event => panic!("{event:?}"),
        }
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
    assert!(client.event().await.is_none());
    assert!(other.event().await.is_none());
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
    served.shutdown.cancel();
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
