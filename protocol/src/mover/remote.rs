//! Remote ends as a mover is told of them, and what they answer as it goes back.
//!
//! A mover beside the target is handed a session that is logged in; one on another host is told where to log in, with credentials that
//! it has itself. No secret is in either. Follows RFC 7143 for the session and SPC-4, "Sense data".

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ends::Descriptor;
use crate::iscsi::session::Handover;

/// A logical unit of another iSCSI target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteEnd {
    /// How it is reached.
    pub way: Way,
    /// Its address there: eight bytes as SAM-5 gives them.
    pub lun: [u8; 8],
    /// What it is.
    pub unit: RemoteUnit,
    /// The configuration lets it be written.
    pub writable: bool,
}

/// How a mover comes to a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// It is open and logged in.
    Open {
        /// The connection.
        socket: Descriptor,
        /// Where it stands.
        session: Handover,
    },
    /// To be opened and logged in by the mover, which tells by [`super::Question::Session`] under which name it did before it uses it.
    LogIn {
        /// Where.
        target: RemoteTarget,
        /// Of the session: so the target can end it, by a session of the same name.
        isid: [u8; 6],
    },
}

/// Where a mover logs in. It must know the target's name, and how to prove who it is, itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteTarget {
    /// Address and port.
    pub portal: SocketAddr,
    /// iSCSI name of the target.
    pub name: String,
}

/// What a remote logical unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoteUnit {
    /// A disk.
    Disk {
        /// Bytes a block.
        block_length: u32,
        /// Bytes of the disk.
        len: u64,
    },
    /// A tape.
    Tape,
}

/// Sense data as a remote logical unit sent it, as much of it as is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteSense {
    bytes: [u8; Self::MOST],
    len: u8,
}

impl RemoteSense {
    /// Fixed format has 18 bytes up to and with its sense-key specific ones; what is behind these is cut.
    pub const MOST: usize = 32;

    /// Of sense data, which may be none.
    #[must_use]
    pub fn new(sense: &[u8]) -> Self {
        let len = sense.len().min(Self::MOST);
        let mut bytes = [0; Self::MOST];
        bytes[..len].copy_from_slice(&sense[..len]);
        Self { bytes, len: len as u8 }
    }

    /// As it came.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(Self::MOST)]
    }

    /// INVALID COMMAND OPERATION CODE.
    #[must_use]
    pub fn is_unknown_command(&self) -> bool {
        crate::scsi::Sense::parse(self.as_bytes()).is_ok_and(|sense| sense.code == (0x20, 0x00))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::Sense;

    #[test]
    fn sense_data_is_cut_and_not_believed_to_be_longer_than_it_is() {
        let sense = RemoteSense::new(&[0x70; 252]);
        assert_eq!(sense.as_bytes().len(), RemoteSense::MOST);
        assert_eq!(RemoteSense { len: 255, ..sense }.as_bytes().len(), RemoteSense::MOST);
        assert!(RemoteSense::new(&Sense::illegal_request(0x20, 0x00).fixed()).is_unknown_command());
        assert!(RemoteSense::new(&[]).as_bytes().is_empty());
    }
}
