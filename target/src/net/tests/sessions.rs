//! Sessions from login to logout, and what is told of them.

use super::*;

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
async fn a_new_session_waits_until_the_former_runs_nothing() {
    let (served, gate) = Served::with_disk().await;
    let mut former = served.client("iqn.2026-11.example:host").await;
    former.read(GATED_LBA, 1);
    former.send_to(&gate).await;
    drop(former);
    let mut latter = Client::dial(served.portal, "iqn.2026-11.example:host", Some(NAME)).await;
    assert!(latter.is_silent().await, "a command of the former still runs");
    gate.open();
    assert!(matches!(latter.event().await, Some(InitiatorEvent::LoggedIn(_))));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_hung_up_is_gone_when_its_next_session_begins() {
    let served = Served::start().await;
    // On a busy machine the thread that was told of the end may come last.
    let busy = Arc::new(());
    for _ in 0..4 {
        let busy = Arc::downgrade(&busy);
        std::thread::spawn(move || while busy.strong_count() > 0 {});
    }
    for isid in 0..100 {
        let mut client = Client::dial_as(served.portal, "iqn.2026-11.example:host", Some(NAME), [0x80, 0, 0, 0, 0, isid]).await;
        assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedIn(_))));
        assert_eq!(served.target.session_count(), 1, "the former session has ended");
        client.command(0, &INQUIRY, 96).await;
    }
    drop(busy);
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
async fn logout_ends_what_runs_before_it_is_answered() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.read(GATED_LBA, 1);
    client.send_to(&gate).await;
    client.session.logout();
    assert!(client.is_silent().await, "the command still runs");
    gate.open();
    assert!(matches!(client.event().await, Some(InitiatorEvent::LoggedOut { response: 0, .. })));
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
