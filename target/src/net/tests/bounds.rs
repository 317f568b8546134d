//! What a session costs.

use super::*;

/// All that a session without commands keeps, but for small pieces of the heap. With those, and the kernel's part left out, an idle
/// session is to cost less than 64 KiB; `session_memory` of the whole-system tests measures it.
#[tokio::test]
async fn the_task_of_an_idle_session_is_small() {
    let served = Served::start().await;
    let stream = TcpStream::connect(served.portal).await.unwrap();
    let permit = Arc::clone(&served.server.room).acquire_owned().await.unwrap();
    let place = served.server.half_open.enter(served.portal.ip());
    let task = Arc::clone(&served.server).connection(stream, Portal::default(), permit, place);
    assert!(size_of_val(&task) < 16 << 10, "{} bytes", size_of_val(&task));
    drop(task);
    served.end().await;
}

#[test]
fn what_a_session_can_make_the_target_hold_is_bounded() {
    let (connection, session) = (most_held_by_connection() >> 20, most_held_by_session() >> 20);
    assert!(connection <= 64 && session <= 512, "{connection} and {session} MiB");
}

/// Has so many requests come that lie outside of the window.
async fn waste(client: &mut Client, count: usize) {
    let outside =
        bhs::NopOut { flags: bhs::FINAL, initiator_task_tag: 77.into(), cmd_sn: 1_000_000.into(), ..Default::default() };
    client.stream.write_all(&Header::NopOut(outside).to_bytes().repeat(count)).await.unwrap();
    assert_eq!(client.command(0, &INQUIRY, 96).await.status, Status::Good as u8);
}

/// Far more requests than are free: the command behind them waits for at least one rest, and is carried out.
#[tokio::test]
async fn who_sends_what_comes_to_nothing_is_read_at_a_pace() {
    let (served, _gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:one").await;
    let begun = std::time::Instant::now();
    waste(&mut client, 20_000).await;
    assert!(begun.elapsed() >= Duration::from_millis(60), "{:?}", begun.elapsed());
    served.end().await;
}

/// Others have sent so much of it that one request of this session is one too many.
#[tokio::test]
async fn all_who_send_what_comes_to_nothing_share_one_pace() {
    let (served, _gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:one").await;
    // Nothing is forgotten before this session's own request, however slow the machine is.
    let later = std::time::Instant::now() + PATIENCE;
    served.server.wasted.lock().unwrap().add(u32::MAX, later);
    let begun = std::time::Instant::now();
    waste(&mut client, 1).await;
    assert_eq!(client.command(0, &INQUIRY, 96).await.status, Status::Good as u8);
    assert!(begun.elapsed() >= REST, "{:?}", begun.elapsed());
    served.end().await;
}

/// A write that waits for memory is asked for as soon as there is some, also by a session that is woken for nothing else.
#[tokio::test]
async fn a_write_that_waits_for_memory_is_asked_for_when_others_give_it_back() {
    const LEN: usize = 1 << 20;
    let (served, _gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let mut others = served.server.share();
    others.set(served.server.memory().limit);
    for lba in [0, 4096] {
        client.submit(0, &cdb_10(0x2A, lba, (LEN / 512) as u16), Data::Out(vec![vec![7; LEN].into()]));
    }
    client.send().await;
    client.is_asked().await;
    assert!(client.is_silent().await, "one at a time");
    others.set(0);
    let (asked, _noticed) = tokio::sync::oneshot::channel();
    served.target.handles()[0].messages.send(Message::Notice(asked)).unwrap();
    client.is_asked().await;
    served.end().await;
}
