//! The socket of one mover: what it is told waits in a queue for a thread of its own.
//!
//! Nobody who has something to say to a mover waits for it. One that does not take what it is told is hung up on; that is all that is
//! known here. What becomes of its process, and how long it may be silent, is [`super::process`]'s. Messages: [`protocol::mover`].

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use protocol::mover::{FromMover, ToMover, frame};
use tracing::debug;

/// A mover that takes nothing for so long, of what is sent at this moment, is none.
const STALLED: Duration = Duration::from_secs(10);
/// Messages that wait to be sent. A job has one answer to come at a time: more wait only for a mover that does not read.
const WAITING: usize = 256;
/// Where messages to a mover go. Clones speak to the same one.
#[derive(Debug, Clone)]
pub struct Outgoing(SyncSender<Message>);

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    /// Closed here once they are sent.
    files: Vec<OwnedFd>,
}

impl Outgoing {
    /// Starts the thread that sends. It ends with the last clone, and with the connection.
    ///
    /// # Errors
    /// What the system gives.
    pub fn start(socket: UnixStream) -> io::Result<Self> {
        socket.set_write_timeout(Some(STALLED))?;
        let (queue, waiting) = sync_channel(WAITING);
        thread::Builder::new().name("tell-mover".into()).spawn(move || {
            if let Err(error) = send_all(&socket, &waiting) {
                debug!(%error, "a mover is gone, or takes nothing more");
            }
            // Half a message may be out there.
            let _ = socket.shutdown(Shutdown::Both);
        })?;
        Ok(Self(queue))
    }

    /// Says something, with files beside it. Does not wait.
    ///
    /// # Errors
    /// `InvalidInput` for what does not fit into a message, `TimedOut` when so much waits that the mover cannot be reading,
    /// `BrokenPipe` when it is gone.
    pub fn send(&self, message: &ToMover, files: Vec<OwnedFd>) -> io::Result<()> {
        let bytes = frame::encode(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.try_send(Message { bytes, files }).map_err(|error| match error {
            TrySendError::Full(_) => io::ErrorKind::TimedOut.into(),
            TrySendError::Disconnected(_) => io::ErrorKind::BrokenPipe.into(),
        })
    }
}

fn send_all(mut socket: &UnixStream, waiting: &Receiver<Message>) -> io::Result<()> {
    for Message { bytes, files } in waiting {
        let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        socket.write_all(&bytes[sent..])?;
    }
    Ok(())
}

/// The next message; `None` at the end of the stream between two.
///
/// # Errors
/// What the stream gives, and `InvalidData` for what is no message.
pub fn receive(reader: &mut impl Read) -> io::Result<Option<FromMover>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut prefix = [0; frame::PREFIX];
    match reader.read_exact(&mut prefix) {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => return Ok(None),
        read => read?,
    }
    let mut message = vec![0; frame::length(prefix).map_err(invalid)?];
    match reader.read_exact(&mut message) {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => return Ok(None),
        read => read?,
    }
    frame::decode(&message).map(Some).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_speaks_to_a_mover_that_does_not_read_never_waits() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outgoing = Outgoing::start(ours).unwrap();
        let began = Instant::now();
        let large = || vec![0xA5; 1 << 20];
        let full = (0..2 * WAITING).find_map(|_| outgoing.0.try_send(Message { bytes: large(), files: Vec::new() }).err());
        assert!(matches!(full, Some(TrySendError::Full(_))), "the queue is bounded");
        let refused = outgoing.send(&ToMover::Ping, Vec::new()).unwrap_err();
        assert!(refused.kind() == io::ErrorKind::TimedOut && began.elapsed() < STALLED, "{refused}");
        // Whoever sends there is let go of when the mover is.
        drop(theirs);
        let until = Instant::now() + Duration::from_secs(30);
        while outgoing.send(&ToMover::Ping, Vec::new()).unwrap_err().kind() != io::ErrorKind::BrokenPipe {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn files_arrive_beside_their_message_and_are_closed_here() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outgoing = Outgoing::start(ours).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        outgoing.send(&ToMover::Ping, vec![writer.into()]).unwrap();
        let mut bytes = [0; 16];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let came = nix::sys::socket::recvmsg::<()>(theirs.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
        assert!(came.bytes > frame::PREFIX && came.cmsgs().unwrap().count() == 1);
        drop((reader, outgoing));
    }
}
