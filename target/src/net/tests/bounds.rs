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
