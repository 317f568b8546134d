//! One TCP connection of a session: bytes in and bytes out, within bounds.
//!
//! Knows no PDU: where they begin and end, and what they say, is the session's business.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, BytesMut};
use libc::EFAULT;
use nix::poll::PollFlags;
use protocol::iscsi::bhs;
use protocol::iscsi::login::LoginStatus;
use protocol::iscsi::pdu::Transmit;
use protocol::iscsi::{ConnectionId, ProtocolError, Session, Target as TargetRole};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::socket::Socket;
use crate::store::in_place::Mapping;
use crate::sys;

/// Bytes of a read: enough for many commands, or for one PDU of 128 KiB and the header behind it.
const READ_ROOM: usize = 132 * 1024;
/// Size of a buffer while long PDUs come, in bytes: several go into one.
const LONG_READ_ROOM: usize = 1024 * 1024;
/// Former input buffers kept to be used again.
const USED_BUFFERS: usize = 32;
/// Bytes of receive buffers above which they are not kept for long when nothing more comes, and how long they are.
const MANY_BUFFERS: usize = 2 * LONG_READ_ROOM;
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Bytes of one wake-up, before what they ask for is done and others have their turn: half of what a processor's own cache holds, so
/// that data is still there when it is written.
const READ_PER_WAKE_UP: usize = 512 * 1024;
/// Time of one: a flood of small PDUs is not taken in as long as one of data.
const WAKE_UP: Duration = Duration::from_micros(300);
/// Bytes waiting to be sent above which nothing more is read.
const MAX_BACKLOG: usize = 16 * 1024 * 1024;
/// Bytes that a connection holds at most: what is read and not done, and what waits to be sent. One PDU may come on top of either.
pub(super) const MOST_HELD: u64 = ((1 + USED_BUFFERS) * LONG_READ_ROOM + MAX_BACKLOG) as u64;
/// A PDU that lacks no more than this is taken as it comes, in bytes.
const SHORT: usize = 64 * 1024;
/// Most bytes that are waited for at once: no more than a slow peer sends well within the time after which it is taken for dead.
const WAITED_FOR: usize = 256 * 1024;
/// How long blocks wait where they lie for a slow peer to take them: then they are copied, and their commands have ended.
const STALE: Duration = Duration::from_millis(100);
/// Parts of one vectored write.
const WRITE_PARTS: usize = 64;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Either side closed it in order.
    Closed,
    /// The network failed.
    Io(io::Error),
    /// The peer broke the protocol.
    Protocol(ProtocolError),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wire {
    /// As the session calls it.
    pub id: ConnectionId,
    socket: Socket,
    input: Buffer,
    /// Former input buffers, the last one at the end; commands may still refer to them.
    used: VecDeque<Buffer>,
    /// Bytes of all these.
    buffers: usize,
    read_at: Instant,
    /// Bytes are taken in.
    reading: bool,
    /// Bytes that the socket waits for before it wakes the task.
    waits_for: usize,
    /// Bytes wait for the socket.
    backlog: usize,
    /// Where some of them lie, and until when they may.
    in_place: Vec<Arc<Mapping>>,
    stale_at: Option<Instant>,
    /// Its place among all connections of the server.
    _permit: OwnedSemaphorePermit,
}

/// A receive buffer.
#[derive(Debug, Default)]
struct Buffer {
    /// What has not been handed on, and the room behind it.
    bytes: BytesMut,
    /// Bytes of the whole, with what commands refer to.
    size: usize,
}

impl Buffer {
    fn of(size: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(size), size }
    }
}

impl Wire {
    pub fn new(id: ConnectionId, stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        Self {
            id,
            socket: Socket::new(stream),
            input: Buffer::default(),
            used: VecDeque::new(),
            buffers: 0,
            read_at: Instant::now(),
            reading: true,
            waits_for: 1,
            backlog: 0,
            in_place: Vec::new(),
            stale_at: None,
            _permit: permit,
        }
    }

    /// True when all is written.
    pub fn is_drained(&self) -> bool {
        self.backlog == 0
    }

    /// Writes until the socket is full, and decides whether more is to be read.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn write(&mut self, session: &mut Session<TargetRole>, may_read: bool) -> io::Result<()> {
        let had = self.backlog > 0;
        self.write_some(session)?;
        if had && self.backlog == 0 {
            session.handle_drained(self.id);
            self.write_some(session)?;
        }
        self.reading = may_read && self.backlog < MAX_BACKLOG && !session.is_closing(self.id);
        Ok(())
    }

    fn write_some(&mut self, session: &mut Session<TargetRole>) -> io::Result<()> {
        let Ok(transmit) = session.transmit(self.id) else { return Ok(()) };
        while !transmit.is_empty() {
            let mut parts = [io::IoSlice::new(&[]); WRITE_PARTS];
            let count = transmit.chunks_vectored(&mut parts);
            match self.socket.write(&parts[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => transmit.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Blocks are no longer where they were: the file was cut, or its device failed.
                Err(error) if error.raw_os_error() == Some(EFAULT) && !self.in_place.is_empty() => {
                    copy_out(&mut self.in_place, transmit)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.backlog = transmit.len();
        if self.backlog == 0 {
            self.in_place.clear();
        }
        self.stale_at = (!self.in_place.is_empty()).then(|| self.stale_at.unwrap_or_else(|| Instant::now() + STALE));
        Ok(())
    }

    /// Some of what is sent from now on lies there.
    pub fn sends_from(&mut self, mapping: &Arc<Mapping>) {
        if !self.in_place.contains(mapping) {
            self.in_place.push(Arc::clone(mapping));
        }
    }

    /// When [`Wire::copy_stale`] is to be called.
    pub fn stale_at(&self) -> Option<Instant> {
        self.stale_at
    }

    /// Copies what still waits where it lies, on a thread that may block: some of it may have to come from the disk again.
    ///
    /// # Errors
    /// It can no longer be read: the connection is of no use any more, since its header has said that it comes.
    pub async fn copy_stale(&mut self, session: &mut Session<TargetRole>) -> io::Result<()> {
        self.stale_at = None;
        let Ok(transmit) = session.transmit(self.id) else { return Ok(()) };
        let (mut mappings, mut taken) = (std::mem::take(&mut self.in_place), std::mem::take(transmit));
        let work = move || copy_out(&mut mappings, &mut taken).map(|()| taken);
        *transmit = tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
        Ok(())
    }

    /// Ready when there is something to do: `Ok(true)` when bytes can be read.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.poll_ready(context, self.reading, self.backlog > 0)
    }

    /// The socket, for [`Wire::poll_ready`] or to be looked at by hand.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// [`Wire::poll_ready`] by hand: `Some(true)` when bytes can be read, `None` when there is nothing to do.
    ///
    /// # Errors
    /// The system's; the socket is of no use any more.
    pub fn look(&self) -> io::Result<Option<bool>> {
        let wanted = [(self.reading, PollFlags::POLLIN), (self.backlog > 0, PollFlags::POLLOUT)];
        let wanted: PollFlags = wanted.into_iter().filter_map(|(wants, flag)| wants.then_some(flag)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let found = self.socket.look(wanted)?;
        Ok((!found.is_empty()).then_some(found != PollFlags::POLLOUT))
    }

    /// True when the peer sends nothing any more. Some of what it sent may wait to be read.
    pub fn has_been_hung_up(&self) -> bool {
        // Not among the flags that nix has names for.
        let hung_up = PollFlags::from_bits_retain(libc::POLLRDHUP);
        self.socket.look(hung_up).is_ok_and(|found| !found.is_empty())
    }

    /// Reads what there is, within bounds, and hands it to the session. False when there may be more.
    pub fn read(&mut self, session: &mut Session<TargetRole>) -> Result<bool, End> {
        let dry = self.read_some(session)?;
        self.wait_for(session.missing(self.id, &self.input.bytes));
        Ok(dry)
    }

    fn read_some(&mut self, session: &mut Session<TargetRole>) -> Result<bool, End> {
        let begun = Instant::now();
        self.read_at = begun;
        let mut taken = 0;
        while taken < READ_PER_WAKE_UP && begun.elapsed() < WAKE_UP {
            let missing = session.missing(self.id, &self.input.bytes);
            // Not far into the PDU behind a long one: it may have to move to another buffer. Its header says how to go on.
            let most = if missing > SHORT { missing + bhs::LENGTH } else { READ_ROOM };
            self.make_room(missing);
            let room = self.input.bytes.capacity() - self.input.bytes.len();
            let dry = match self.socket.read(&mut (&mut self.input.bytes).limit(most)) {
                Ok(0) => return Err(End::Closed),
                Ok(read) => {
                    taken += read;
                    read < most.min(room)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(End::Io(error)),
            };
            self.take_in(session)?;
            if dry {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has the socket gather the rest of a long PDU. With every segment that comes, a wake-up would cost the sender more than the
    /// segment does.
    fn wait_for(&mut self, missing: usize) {
        let bytes = if missing > SHORT { missing.min(WAITED_FOR) } else { 1 };
        if bytes != self.waits_for
            && let Some(socket) = self.socket.fd()
            && sys::set_receive_low_water_mark(socket, bytes as i32).is_ok()
        {
            self.waits_for = bytes;
        }
    }

    /// Hands the session what has been read.
    pub fn take_in(&mut self, session: &mut Session<TargetRole>) -> Result<(), End> {
        session.handle_input(self.id, Instant::now(), &mut self.input.bytes).map_err(End::Protocol)
    }

    /// Room for the rest of a PDU that has begun, or for many small ones. Not topped up for every read: what is left over is copied
    /// when the buffer changes. A buffer that no command refers to any more comes again, with its pages: the same one from its
    /// beginning, or the one that was filled last, of which the processor's cache holds most.
    fn make_room(&mut self, missing: usize) {
        let input = &mut self.input.bytes;
        if input.is_empty() {
            let _ = input.try_reclaim(self.input.size);
        }
        if input.capacity() - input.len() >= missing.max(READ_ROOM / 2) {
            return;
        }
        let room = if missing > READ_ROOM { (input.len() + missing).max(LONG_READ_ROOM) } else { 2 * READ_ROOM };
        let again = self.used.iter_mut().rposition(|used| used.bytes.try_reclaim(room));
        let mut next = again.and_then(|at| self.used.remove(at)).unwrap_or_else(|| {
            self.buffers += room;
            Buffer::of(room)
        });
        next.bytes.extend_from_slice(input);
        input.clear();
        self.used.push_back(std::mem::replace(&mut self.input, next));
        if self.used.len() > USED_BUFFERS {
            self.buffers -= self.used.pop_front().map_or(0, |oldest| oldest.size);
        }
    }

    /// Bytes of its receive buffers, filled or not.
    pub fn buffers(&self) -> u64 {
        self.buffers as u64
    }

    /// When [`Wire::shed`] is to be called, unless more comes.
    pub fn sheds_at(&self) -> Option<Instant> {
        (self.buffers > MANY_BUFFERS && !self.used.is_empty()).then(|| self.read_at + KEPT_FOR)
    }

    /// Memory is short, or no use in sight: keeps no buffer to be used again.
    pub fn shed(&mut self) {
        self.used.clear();
        self.buffers = self.input.size;
    }

    /// Nothing came for a while: what reading fast needs is not kept.
    pub fn rest(&mut self) {
        self.used = VecDeque::new();
        if self.input.bytes.is_empty() {
            self.input = Buffer::default();
        }
        self.buffers = self.input.size;
    }
}

/// Has copies sent of what lies in the mappings, and lets go of them.
fn copy_out(mappings: &mut Vec<Arc<Mapping>>, transmit: &mut Transmit) -> io::Result<()> {
    transmit.replace(|piece| mappings.iter().find_map(|mapping| mapping.copy_of(piece)))?;
    mappings.clear();
    Ok(())
}

/// A connection whose login names a session that another task serves.
#[derive(Debug)]
pub(super) struct Guest {
    pub session: Session<TargetRole>,
    pub wire: Wire,
}

impl Guest {
    /// CID that it asks for.
    pub fn cid(&self) -> Option<u16> {
        self.session.asked_cid()
    }

    /// Ends the login.
    pub fn refuse(mut self, status: LoginStatus) {
        self.session.refuse(status);
        // One small PDU on a fresh connection: the socket takes it.
        let _ = self.wire.write(&mut self.session, false);
    }
}
