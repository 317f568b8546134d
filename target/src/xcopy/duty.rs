//! What the target does itself for a copy, when its turn has come: persistent reservations of the copy's I_T nexus.
//!
//! A copy acts for the nexus that sent it. So its registrations are that nexus's, and what that nexus may not read or write, its
//! copy may not. Whoever asks decides when. Follows SPC-4, segment types 14h and 15h, and "Reserving a logical unit".

use std::sync::Arc;

use protocol::scsi::conflict::{Passes, Rule};
use protocol::scsi::sense::{CopyEnd, Sense};
use protocol::scsi::{Cdb, LunAddress, Status};
use tokio_util::sync::CancellationToken;

use super::sense::{Notes, third_party};
use crate::lun::Device;
use crate::nexus::Nexus;
use crate::task::{Attribute, Response, Task};

/// One thing to be done or to be looked at before a segment.
#[derive(Debug, Clone)]
pub enum Duty {
    /// PERSISTENT RESERVE OUT with this service action and parameter list.
    Reserve {
        /// The copy destination.
        device: Device,
        /// SERVICE ACTION.
        action: u8,
        /// Parameter list.
        parameters: Vec<u8>,
        /// Of the segment.
        notes: Notes,
    },
    /// Reservations have to let the nexus use the logical unit.
    Admit {
        /// The copy source or destination.
        device: Device,
        /// Which of them.
        end: CopyEnd,
        /// Of the segment.
        notes: Notes,
    },
}

/// REGISTER.
const REGISTER: u8 = 0x00;
/// REGISTER AND MOVE.
const REGISTER_AND_MOVE: u8 = 0x07;

impl Duty {
    /// 14h.
    pub fn register(device: Device, key: u64, action_key: u64, notes: Notes) -> Self {
        // Parameter list of 24 bytes: both keys, and nothing asked for in bytes 16 to 23.
        let parameters = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
        Self::Reserve { device, action: REGISTER, parameters, notes }
    }

    /// 15h.
    pub fn register_and_move(device: Device, parameters: &[u8], notes: Notes) -> Self {
        Self::Reserve { device, action: REGISTER_AND_MOVE, parameters: parameters.to_vec(), notes }
    }

    /// Does it for `nexus`. Blocks.
    ///
    /// # Errors
    /// Sense data of the segment, with what the logical unit said.
    pub fn fulfil(&self, nexus: &Arc<Nexus>, segment: u32) -> Result<(), Sense> {
        match self {
            Self::Admit { device, end, notes } => {
                admitted(nexus, device, *end).map_err(|refusal| third_party(segment, notes, *end, &refusal))
            }
            Self::Reserve { device, action, parameters, notes } => {
                let [a, b, c, d] = (parameters.len() as u32).to_be_bytes();
                let cdb = [0x5F, *action, 0, 0, 0, a, b, c, d, 0];
                let response = device.persistent_reserve_out(&command(nexus, &cdb, parameters));
                match response.status {
                    Status::Good => Ok(()),
                    _ => Err(third_party(segment, notes, CopyEnd::Destination, &response)),
                }
            }
        }
    }
}

/// The command that the nexus itself would send.
fn command(nexus: &Arc<Nexus>, cdb: &[u8], parameters: &[u8]) -> Task {
    Task {
        nexus: Arc::clone(nexus),
        lun: LunAddress::from_number(0),
        tag: 0,
        attribute: Attribute::Simple,
        cdb: Cdb::new(cdb).expect("a CDB is short"),
        data_out: vec![parameters.to_vec().into()],
        data_in_limit: 0,
        in_place: false,
        abort: CancellationToken::new(),
    }
}

/// 07h with TUR: what TEST UNIT READY says there.
///
/// # Errors
/// The answer, where it is not GOOD.
pub fn test_unit_ready(nexus: &Arc<Nexus>, device: &Device) -> Result<(), Response> {
    let response = device.test_unit_ready(&command(nexus, &[0; 6], &[]));
    if response.status == Status::Good { Ok(()) } else { Err(response) }
}

/// What the nexus's own commands would meet there.
///
/// # Errors
/// RESERVATION CONFLICT, WRITE PROTECTED, or the state of the disk.
pub fn admitted(nexus: &Arc<Nexus>, device: &Device, end: CopyEnd) -> Result<(), Response> {
    if end == CopyEnd::Destination && !nexus.luns.may_write(device) {
        return Err(Sense::WRITE_PROTECTED.into());
    }
    // A copy reads its source and writes its destination; reading a tape moves it.
    let persistent = match device {
        Device::Disk(_) if end == CopyEnd::Source => Passes::Readers,
        _ => Passes::Registrants,
    };
    device.common().reservation.admit(nexus, || Rule { persistent, reserved: false })?;
    match device {
        Device::Disk(disk) => disk.refuses_copies().map_or(Ok(()), |sense| Err(sense.into())),
        _ => Ok(()),
    }
}
