//! The target as an initiator: logs in, asks what a logical unit is, and gives the session away.
//!
//! Blocking, with bounded waits, for a thread that may block. No more than a few commands: blocks are a mover's to move.
//! Follows RFC 7143, SPC-4 and SBC-4.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use protocol::iscsi::drive::{Command, Driver, Wire};
use protocol::iscsi::session::{Completion, Data, Handover, InitiatorConfig};
use protocol::mover::RemoteUnit as Kind;
use protocol::scsi::{LunAddress, Sense, SenseKey, Status};
use protocol::xcopy::Designator;

/// Time for the connection and the login together. Initiators wait 30 seconds for a command.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(8);
/// Time for a command that moves no medium.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(8);
/// Time for a tape to go from one end to the other.
const WIND_TIMEOUT: Duration = Duration::from_secs(900);
/// A new nexus is told of power on, and perhaps of more, before anything else.
const ATTENTIONS: usize = 8;

/// What a remote logical unit ended a command with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// SCSI status code.
    pub status: u8,
    /// Sense data as it came.
    pub sense: Vec<u8>,
}

/// Where a tape stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapePlace {
    /// PARTITION NUMBER.
    pub partition: u8,
    /// LOGICAL OBJECT LOCATION, of a place that has no more than 32 bits of it.
    pub object: u32,
}

/// A session with a remote target.
#[derive(Debug)]
pub struct Connection(Driver<Socket>);

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// What the network and the target say, and `TimedOut`. Redirections are not followed: the configuration names the portal.
    pub fn log_in(portal: SocketAddr, config: InitiatorConfig) -> io::Result<Self> {
        let deadline = Instant::now() + LOGIN_TIMEOUT;
        let socket = TcpStream::connect_timeout(&portal, LOGIN_TIMEOUT)?;
        socket.set_nodelay(true)?;
        // The driver waits with poll, and so does the mover that gets it.
        socket.set_nonblocking(true)?;
        Driver::log_in(Socket(socket), config, deadline).map(Self)
    }

    /// Logs out.
    ///
    /// # Errors
    /// The target did not answer.
    pub fn log_out(mut self) -> io::Result<()> {
        self.0.log_out(COMMAND_TIMEOUT)
    }

    /// The designators of VPD page 83h that a CSCD descriptor can name.
    ///
    /// # Errors
    /// What the session gives; a logical unit without such a page has none.
    pub fn designators(&mut self, lun: LunAddress) -> io::Result<Vec<Designator>> {
        let inquiry = [0x12, 0x01, 0x83, 0x04, 0x00, 0];
        let Ok(page) = self.command(lun, &inquiry, 0x0400, COMMAND_TIMEOUT)? else { return Ok(Vec::new()) };
        let mut rest = page.get(4..).unwrap_or_default();
        let mut designators = Vec::new();
        while let [code_set, kind, _, length, behind @ ..] = rest {
            let Some(identifier) = behind.get(..usize::from(*length)) else { break };
            designators.extend(Designator::new(code_set & 0x0F, kind >> 4 & 0x03, kind & 0x0F, identifier));
            rest = &behind[usize::from(*length)..];
        }
        Ok(designators)
    }

    /// What a logical unit is, once it says that it is ready; `None` for one that is neither a disk nor a tape.
    ///
    /// # Errors
    /// What the session gives, and inside that what the logical unit says.
    pub fn look(&mut self, lun: LunAddress) -> io::Result<Result<Option<Kind>, Refused>> {
        let inquiry = match self.command(lun, &[0x12, 0, 0, 0, 36, 0], 36, COMMAND_TIMEOUT)? {
            Ok(inquiry) => inquiry,
            Err(refused) => return Ok(Err(refused)),
        };
        // PERIPHERAL QUALIFIER 000b and PERIPHERAL DEVICE TYPE.
        let device_type = inquiry.first().copied().filter(|first| matches!(first, 0x00 | 0x01));
        let Some(device_type) = device_type else { return Ok(Ok(None)) };
        if let Err(refused) = self.settled(lun, &[0; 6], 0)? {
            return Ok(Err(refused));
        }
        match device_type {
            0x01 => Ok(Ok(Some(Kind::Tape))),
            _ => Ok(self.capacity(lun)?.map(Some)),
        }
    }

    /// Where a tape stands, as far as it says so: READ POSITION, short form.
    ///
    /// # Errors
    /// What the session gives.
    pub fn position(&mut self, lun: LunAddress) -> io::Result<Option<TapePlace>> {
        /// LOLU: the place is not known, or takes more than 32 bits.
        const UNKNOWN: u8 = 0x04;
        let Ok(data) = self.settled(lun, &[0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0], 20)? else { return Ok(None) };
        Ok(match data[..] {
            [flags, partition, _, _, a, b, c, d, ..] if flags & UNKNOWN == 0 => {
                Some(TapePlace { partition, object: u32::from_be_bytes([a, b, c, d]) })
            }
            _ => None,
        })
    }

    /// Moves a tape to a place in the partition in which it is: LOCATE(10).
    ///
    /// # Errors
    /// What the session gives; also when the tape does not stand there then.
    pub fn locate(&mut self, lun: LunAddress, place: TapePlace) -> io::Result<()> {
        let [a, b, c, d] = place.object.to_be_bytes();
        // What it says is seen from where it stands.
        let _ = self.settled_within(lun, &[0x2B, 0, 0, a, b, c, d, 0, 0, 0], 0, WIND_TIMEOUT)?;
        match self.position(lun)? {
            Some(found) if found == place => Ok(()),
            found => Err(io::Error::other(format!("the tape stands at {found:?}, and not at {place:?}"))),
        }
    }

    /// READ CAPACITY(16), or of a disk that does not know it READ CAPACITY(10).
    fn capacity(&mut self, lun: LunAddress) -> io::Result<Result<Kind, Refused>> {
        let sixteen = [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
        let (last, block_length) = match self.settled(lun, &sixteen, 32)? {
            Ok(data) => {
                let last = data.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                let block_length = data.get(8..).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes));
                (last, block_length)
            }
            Err(_) => match self.settled(lun, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)? {
                Ok(data) => {
                    let word =
                        |at: usize| data.get(at..).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes));
                    (word(0).map(u64::from), word(4))
                }
                Err(refused) => return Ok(Err(refused)),
            },
        };
        let size = last.zip(block_length).and_then(|(last, block_length)| {
            let usable = block_length > 0 && block_length <= LONGEST_BLOCK;
            usable.then_some(())?;
            let len = last.checked_add(1)?.checked_mul(u64::from(block_length)).filter(|len| *len <= MOST)?;
            Some(Kind::Disk { block_length, len })
        });
        size.map(Ok).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a disk of no size that can be"))
    }

    /// A command, and again as long as the logical unit has something else to tell first.
    fn settled(&mut self, lun: LunAddress, cdb: &[u8], room: u32) -> io::Result<Result<Bytes, Refused>> {
        self.settled_within(lun, cdb, room, COMMAND_TIMEOUT)
    }

    fn settled_within(
        &mut self,
        lun: LunAddress,
        cdb: &[u8],
        room: u32,
        timeout: Duration,
    ) -> io::Result<Result<Bytes, Refused>> {
        let mut answer = self.command(lun, cdb, room, timeout)?;
        for _ in 0..ATTENTIONS {
            let attention =
                |refused: &Refused| Sense::parse(&refused.sense).is_ok_and(|sense| sense.key == SenseKey::UnitAttention);
            if !answer.as_ref().is_err_and(attention) {
                break;
            }
            answer = self.command(lun, cdb, room, timeout)?;
        }
        Ok(answer)
    }

    fn command(&mut self, lun: LunAddress, cdb: &[u8], room: u32, timeout: Duration) -> io::Result<Result<Bytes, Refused>> {
        let data = if room > 0 { Data::In(room) } else { Data::None };
        let ended = self.0.carry_out(lun, &[Command::new(cdb, data, timeout)], &|| false)?;
        ended.into_iter().next().map_or_else(|| Err(io::ErrorKind::InvalidData.into()), answer)
    }

    /// The connection and what another process needs to go on with the session.
    ///
    /// # Errors
    /// When the remote target said something meanwhile that is not understood yet.
    pub fn into_parts(self) -> io::Result<(OwnedFd, Handover)> {
        let (Socket(socket), handover) = self.0.hand_over()?;
        Ok((socket.into(), handover))
    }
}

/// The connection, as the driver sees it. A mover has the same: what both share is `protocol`, which makes no system calls.
#[derive(Debug)]
struct Socket(TcpStream);

impl Wire for Socket {
    type Stream = TcpStream;

    fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, output: bool, limit: Duration) -> io::Result<bool> {
        let interest = if output { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut polled = [PollFd::new(self.0.as_fd(), interest)];
        match ppoll(&mut polled, Some(TimeSpec::from_duration(limit)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(polled[0].revents().is_some_and(|ready| ready.intersects(!PollFlags::POLLOUT)))
    }

    fn close(&mut self) {
        // One that has ended already cannot be.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A longer block than this no mover has a buffer for.
const LONGEST_BLOCK: u32 = 1 << 20;
/// A larger disk is none.
const MOST: u64 = i64::MAX as u64 / 8;

fn answer(completion: Completion) -> io::Result<Result<Bytes, Refused>> {
    if completion.response != 0 {
        return Err(io::Error::other(format!("the remote target failed: iSCSI response {:#04x}", completion.response)));
    }
    Ok(match Status::from_code(completion.status) {
        Some(Status::Good) => Ok(completion.data_in.concat().into()),
        _ => Err(Refused { status: completion.status, sense: completion.sense.to_vec() }),
    })
}
