//! Several connections of one session.

use super::*;
use crate::access::Access;

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

    /// An immediate WRITE(10) of so many blocks: its data is to be asked for.
    async fn write(&mut self, tag: u32, cmd_sn: u32, blocks: u16) {
        let mut cdb = [0; 16];
        cdb[..10].copy_from_slice(&cdb_10(0x2A, 0, blocks));
        let header = bhs::ScsiCommand {
            opcode: bhs::IMMEDIATE,
            flags: bhs::FINAL | bhs::WRITE | 1,
            initiator_task_tag: tag.into(),
            expected_data_transfer_length: (u32::from(blocks) * 512).into(),
            cmd_sn: cmd_sn.into(),
            cdb,
            ..Default::default()
        };
        self.send(header, &[]).await;
    }

    /// Has this connection closed, and no other.
    async fn log_out(&mut self, cid: u16, cmd_sn: u32) {
        let header = bhs::LogoutRequest {
            opcode: bhs::IMMEDIATE,
            flags: bhs::FINAL | 1,
            initiator_task_tag: 1003.into(),
            cid: cid.into(),
            cmd_sn: cmd_sn.into(),
            ..Default::default()
        };
        self.send(header, &[]).await;
    }

    async fn answers(&mut self, tag: u32) -> bool {
        matches!(self.receive().await, Some(Header::DataIn(data_in)) if data_in.initiator_task_tag.get() == tag)
    }
}

/// A session that offers so many connections.
async fn session_of(served: &Served, most: u32) -> (Client, LoggedIn) {
    let mut client = Client::dial(served.portal, "iqn.2026-11.example:host", Some(NAME)).await;
    client.session = Session::connect(
        CID,
        InitiatorConfig {
            initiator_name: "iqn.2026-11.example:host".into(),
            target_name: Some(NAME.into()),
            wishes: Wishes { max_connections: most, ..Wishes::default() },
            ..Default::default()
        },
        std::time::Instant::now(),
    );
    let Some(InitiatorEvent::LoggedIn(logged_in)) = client.event().await else { panic!("no login") };
    (client, logged_in)
}

async fn session_of_two(served: &Served) -> (Client, Joined, u16) {
    let (client, logged_in) = session_of(served, 2).await;
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
    client.send_to(&gate).await;
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

#[tokio::test]
async fn as_many_connections_are_agreed_to_as_the_target_allows_when_the_session_begins() {
    let served = Served::start().await;
    for (allowed, offer, agreed) in [(None, 9, 4), (Some(1), 9, 1), (Some(6), 9, 6), (Some(6), 3, 3)] {
        served.target.set_access(Access { max_connections: allowed, ..Access::default() });
        let (_client, logged_in) = session_of(&served, offer).await;
        assert_eq!(logged_in.parameters.max_connections, agreed);
        // What was agreed to stays, whatever is allowed to others from now on.
        served.target.set_access(Access { max_connections: Some(2), ..Access::default() });
        let mut joined = Vec::new();
        for cid in 1..agreed {
            let (one, status) = Joined::log_in(served.portal, logged_in.tsih, cid).await;
            assert_eq!(status, (0, 0), "{cid} of {agreed}");
            joined.push(one);
        }
        let (_, status) = Joined::log_in(served.portal, logged_in.tsih, agreed).await;
        assert_eq!(status, (2, 6), "one more than {agreed}");
    }
    served.end().await;
}

/// What one connection was asked for is memory that another's write gets when it is closed, though nothing comes on that one.
#[tokio::test]
async fn a_write_that_waits_for_memory_is_asked_for_when_another_connection_is_closed() {
    const BLOCKS: u16 = 2048;
    let (served, _gate) = Served::with_disk().await;
    let (mut client, mut joined, _) = session_of_two(&served).await;
    client.command(0, &[0; 6], 0).await;
    let mut others = served.server.share();
    others.set(served.server.memory().limit);
    joined.write(1002, 2, BLOCKS).await;
    assert!(matches!(joined.receive().await, Some(Header::R2t(asked)) if asked.initiator_task_tag.get() == 1002));
    let data = vec![7; usize::from(BLOCKS) * 512];
    client.submit(0, &cdb_10(0x2A, 4096, BLOCKS), Data::Out(vec![data.into()]));
    client.send().await;
    assert!(client.is_silent().await, "one at a time");
    joined.log_out(1, 3).await;
    client.is_asked().await;
    served.end().await;
}
