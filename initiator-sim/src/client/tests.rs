//! The client against a target that misbehaves on purpose, on real loopback sockets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use protocol::iscsi::session::{ConnectionId, Session, Target, TargetConfig, TargetEntry, TargetEvent};
use protocol::iscsi::{TaskManagementFunction, TaskManagementResponse, session};
use protocol::scsi::{LunAddress, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Client, ClientError, Data, Options, Residual, TaskManagement, discover};
use crate::url::Url;

const NAME: &str = "iqn.2026-01.test:misbehaving";

/// Operation codes of the script.
const GOOD: u8 = 0xC0;
const NEVER: u8 = 0xC1;
const HANG_UP: u8 = 0xC2;
/// Ten bytes of Data-In.
const TEN_BYTES: u8 = 0xC3;
/// GOOD, but only when [`GOOD`] has come after it.
const LATE: u8 = 0xC4;

/// What the scripted target saw.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Command(u8, usize),
    Abort(u32),
    Logout,
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn push(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }

    fn has(&self, wanted: impl Fn(&Seen) -> bool) -> bool {
        self.0.lock().unwrap().iter().any(wanted)
    }

    async fn wait_for(&self, wanted: impl Fn(&Seen) -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.has(&wanted) {
            assert!(Instant::now() < until, "not seen among {:?}", self.0.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Listens, serves the script on every connection, and gives the address of its LUN 3.
async fn scripted() -> (Url, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Log::default();
    let seen = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, seen.clone()));
        }
    });
    (format!("iscsi://{address}/{NAME}/3").parse().unwrap(), log)
}

async fn serve(mut stream: TcpStream, log: Log) {
    const CONNECTION: ConnectionId = ConnectionId(0);
    let entry = TargetEntry { name: NAME.into(), addresses: vec!["127.0.0.1:3260,1".into()] };
    let config = TargetConfig { gate: Arc::new(vec![entry]), ..TargetConfig::default() };
    let mut session = Session::<Target>::accept(CONNECTION, config, Instant::now());
    let mut input = BytesMut::new();
    let mut late = Vec::new();
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        let alive = session.handle_input(CONNECTION, Instant::now(), &mut input).is_ok();
        while let Some(event) = session.poll_event() {
            match event {
                TargetEvent::SessionUp(_) | TargetEvent::Join(_) | TargetEvent::DataOut { .. } | TargetEvent::Failed { .. } => {}
                TargetEvent::Command(command) => {
                    let written = command.data_out.iter().map(Bytes::len).sum();
                    log.push(Seen::Command(command.cdb.opcode(), written));
                    match command.cdb.opcode() {
                        NEVER => {}
                        HANG_UP => return,
                        LATE => late.push(command.tag),
                        TEN_BYTES => session.respond(command.tag, &reply(b"0123456789")),
                        _ => {
                            session.respond(command.tag, &reply(b""));
                            late.drain(..).for_each(|tag| session.respond(tag, &reply(b"")));
                        }
                    }
                }
                TargetEvent::TaskManagement { tag, function, referenced, .. } => {
                    if function == TaskManagementFunction::AbortTask {
                        log.push(Seen::Abort(referenced));
                    }
                    session.respond_task_management(tag, TaskManagementResponse::FunctionNotSupported);
                }
                TargetEvent::Logout { tag, .. } => {
                    log.push(Seen::Logout);
                    session.respond_logout(tag);
                }
            }
        }
        let transmit = session.transmit(CONNECTION).unwrap();
        let bytes = transmit.copy_to_bytes(transmit.remaining());
        if stream.write_all(&bytes).await.is_err() || !alive || session.is_closing(CONNECTION) {
            return;
        }
    }
}

fn reply(data: &'static [u8]) -> session::Reply {
    session::Reply {
        status: Status::Good,
        sense: Bytes::new(),
        data_in: if data.is_empty() { Vec::new() } else { vec![Bytes::from_static(data)] },
        transfer_length: None,
    }
}

fn cdb(opcode: u8) -> [u8; 6] {
    [opcode, 0, 0, 0, 0, 0]
}

async fn connected() -> (Client, Log) {
    let (url, log) = scripted().await;
    (Client::connect(&url, Options::default()).await.unwrap(), log)
}

#[tokio::test]
async fn replies_find_their_commands_in_whatever_order_they_come() {
    let (client, _) = connected().await;
    let unit = client.unit();
    let (late_cdb, good_cdb) = (cdb(LATE), cdb(GOOD));
    let (late, good) = tokio::join!(unit.command(&late_cdb, Data::None), unit.command(&good_cdb, Data::None));
    assert_eq!((late.unwrap().status, good.unwrap().status), (Status::Good, Status::Good));
}

#[tokio::test]
async fn data_is_counted_and_its_residual_told() {
    let (client, log) = connected().await;
    let reply = client.unit().command(&cdb(TEN_BYTES), Data::In(16)).await.unwrap();
    assert_eq!((&reply.data[..], reply.residual), (&b"0123456789"[..], Residual::Underflow(6)));
    // More than unsolicited data may be: the rest has to be asked for.
    let out = Bytes::from(vec![7; 600_000]);
    client.unit().command(&cdb(GOOD), Data::Out(out)).await.unwrap();
    assert!(log.has(|seen| *seen == Seen::Command(GOOD, 600_000)));
    let carried = client.carried();
    assert_eq!((carried.commands, carried.data_in, carried.data_out), (2, 10, 600_000));
}

#[tokio::test]
async fn a_command_without_an_answer_is_given_up_and_aborted() {
    let (client, log) = connected().await;
    let lun = LunAddress::from_number(3);
    let in_flight = client.start(lun, &cdb(NEVER), Data::None, Duration::from_millis(50)).await.unwrap();
    let tag = in_flight.tag().0;
    let error = in_flight.reply().await.unwrap_err();
    assert!(matches!(&error, ClientError::Timeout { what, .. } if what.contains("C1h")), "{error}");
    log.wait_for(|seen| *seen == Seen::Abort(tag)).await;
    // The session goes on.
    client.unit().command(&cdb(GOOD), Data::None).await.unwrap();
}

#[tokio::test]
async fn everybody_learns_of_a_lost_connection_and_where_it_stood() {
    let (client, log) = connected().await;
    let unit = client.unit();
    let waiting = tokio::spawn({
        let unit = unit.clone();
        async move { unit.command(&cdb(NEVER), Data::In(512)).await }
    });
    log.wait_for(|seen| *seen == Seen::Command(NEVER, 0)).await;
    let error = unit.command(&cdb(HANG_UP), Data::Out(Bytes::from_static(b"last words"))).await.unwrap_err();
    assert!(error.is_connection_lost(), "{error}");
    assert!(error.to_string().contains("command C2h to LUN 3 with 10 bytes of data"), "{error}");
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("command C1h to LUN 3 with room for 512 bytes"), "{error}");
    assert!(unit.command(&cdb(GOOD), Data::None).await.unwrap_err().is_connection_lost());
}

#[tokio::test]
async fn a_session_that_nobody_holds_logs_out() {
    let (client, log) = connected().await;
    client.unit().command(&cdb(GOOD), Data::None).await.unwrap();
    drop(client);
    log.wait_for(|seen| *seen == Seen::Logout).await;
}

#[tokio::test]
async fn logging_out_ends_the_session() {
    let (client, _) = connected().await;
    client.logout().await.unwrap();
    assert!(client.unit().command(&cdb(GOOD), Data::None).await.unwrap_err().is_connection_lost());
}

#[tokio::test]
async fn a_task_management_function_that_is_refused_says_so() {
    let (client, _) = connected().await;
    let error = client.task_management(TaskManagement::LogicalUnitReset(3)).await.unwrap_err();
    assert!(matches!(error, ClientError::TaskManagement { response: 5, .. }), "{error}");
}

#[tokio::test]
async fn discovery_names_the_target() {
    let (url, _) = scripted().await;
    let found = discover(&url.portal, &Options::default()).await.unwrap();
    assert_eq!((found.len(), found[0].name.as_str()), (1, NAME));
}

#[tokio::test]
async fn a_login_that_is_refused_says_why() {
    let (url, _) = scripted().await;
    let elsewhere = Url { target: "iqn.2026-01.test:nobody".into(), ..url };
    let error = Client::connect(&elsewhere, Options::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Login { class: 2, detail: 3, .. }), "{error}");
}

#[tokio::test]
async fn nobody_listening_names_the_portal() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url: Url = format!("iscsi://127.0.0.1:{port}/{NAME}/0").parse().unwrap();
    let error = Client::connect(&url, Options::default()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Connect { portal, .. } if portal.ends_with(&port.to_string())), "{error}");
}

#[tokio::test]
async fn a_portal_that_stays_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("iscsi://{}/{NAME}/0", listener.local_addr().unwrap()).parse().unwrap();
    let options = Options { connect_timeout: Duration::from_millis(100), ..Options::default() };
    let error = Client::connect(&url, options).await.unwrap_err();
    assert!(error.to_string().contains("login"), "{error}");
}
