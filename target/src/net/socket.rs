//! A connected socket: watched by the runtime, or looked at by hand.
//!
//! What the runtime watches wakes one of its threads with every arrival, also while the session's task looks for itself. So a session
//! that polls takes its sockets out of the runtime's sight meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::net::TcpStream;

use crate::sys;

/// See the module.
#[derive(Debug)]
pub(super) struct Socket(Option<Sight>);

#[derive(Debug)]
enum Sight {
    Watched(TcpStream),
    ByHand(std::net::TcpStream),
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        Self(Some(Sight::Watched(stream)))
    }

    /// Lets the runtime watch it, so that [`Socket::poll_ready`] works.
    ///
    /// # Errors
    /// The runtime cannot; the socket is of no use any more.
    pub fn watch(&mut self) -> io::Result<()> {
        self.0 = match self.0.take() {
            Some(Sight::ByHand(stream)) => Some(Sight::Watched(TcpStream::from_std(stream)?)),
            same => same,
        };
        Ok(())
    }

    /// Takes it out of the runtime's sight.
    ///
    /// # Errors
    /// As [`Socket::watch`].
    pub fn take_in_hand(&mut self) -> io::Result<()> {
        self.0 = match self.0.take() {
            Some(Sight::Watched(stream)) => Some(Sight::ByHand(stream.into_std()?)),
            same => same,
        };
        Ok(())
    }

    /// Ready when it is watched and something can be read, or written.
    pub fn poll_ready(&self, context: &mut Context<'_>, reads: bool, writes: bool) -> Poll<io::Result<bool>> {
        let Some(Sight::Watched(stream)) = &self.0 else { return Poll::Pending };
        if reads && let Poll::Ready(ready) = stream.poll_read_ready(context) {
            return Poll::Ready(ready.map(|()| true));
        }
        if !writes {
            return Poll::Pending;
        }
        Poll::Ready(ready!(stream.poll_write_ready(context)).map(|()| false))
    }

    /// Which of the events in `wanted` there are, and whether the connection has failed, without waiting.
    ///
    /// # Errors
    /// The system's; the socket is of no use any more.
    pub fn look(&self, wanted: PollFlags) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(self.fd().ok_or(io::ErrorKind::NotConnected)?, wanted)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => Ok(PollFlags::empty()),
            Ok(_) => Ok(fds[0].revents().unwrap_or(wanted)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads what there is, up to the room in `into`.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; else the connection is lost.
    pub fn read(&self, into: &mut impl BufMut) -> io::Result<usize> {
        match &self.0 {
            Some(Sight::Watched(stream)) => stream.try_read_buf(into),
            Some(Sight::ByHand(stream)) => sys::receive(stream.as_fd(), into),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// As [`Socket::read`].
    pub fn write(&self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            Some(Sight::Watched(stream)) => stream.try_write_vectored(parts),
            Some(Sight::ByHand(stream)) => io::Write::write_vectored(&mut &*stream, parts),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// For system calls of others; `None` for one that is of no use any more.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Some(Sight::Watched(stream)) => Some(stream.as_fd()),
            Some(Sight::ByHand(stream)) => Some(stream.as_fd()),
            None => None,
        }
    }
}
