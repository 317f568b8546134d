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
