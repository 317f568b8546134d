//! What moves media or keeps them where they are: MOVE MEDIUM, EXCHANGE MEDIUM, POSITION TO ELEMENT, INITIALIZE ELEMENT STATUS, and
//! the import/export door. Follows SMC-3.

use protocol::scsi::smc::{ExchangeMediumCdb, InitializeRangeCdb, MoveMediumCdb, OpenCloseCdb, PositionToElementCdb};
use protocol::scsi::{FieldPointer, Sense};
use tracing::{error, info};

use super::{Changer, elements};
use crate::library::{MoveError, MoveRefused, Place};
use crate::lun::common::Reply;
use crate::lun::tape::UnloadError;
use crate::task::{Response, Task};

/// Bytes of a CDB at which MOVE MEDIUM, EXCHANGE MEDIUM and POSITION TO ELEMENT have their addresses.
const TRANSPORT_AT: u16 = 2;
const FIRST_ADDRESS_AT: u16 = 4;
const SECOND_ADDRESS_AT: u16 = 6;
const THIRD_ADDRESS_AT: u16 = 8;

/// MOVE MEDIUM.
pub fn move_medium(changer: &Changer, task: &Task) -> Reply {
    let cdb: MoveMediumCdb = task.cdb.read();
    default_transport(cdb.transport.get())?;
    let source = changer.reachable(cdb.source.get(), FIRST_ADDRESS_AT)?;
    let destination = changer.reachable(cdb.destination.get(), SECOND_ADDRESS_AT)?;
    let moved = changer.library.move_medium(source, destination);
    answer(moved, &[(source, FIRST_ADDRESS_AT), (destination, SECOND_ADDRESS_AT)])
}

/// EXCHANGE MEDIUM.
pub fn exchange_medium(changer: &Changer, task: &Task) -> Reply {
    let cdb: ExchangeMediumCdb = task.cdb.read();
    default_transport(cdb.transport.get())?;
    let source = changer.reachable(cdb.source.get(), FIRST_ADDRESS_AT)?;
    let first = changer.reachable(cdb.first_destination.get(), SECOND_ADDRESS_AT)?;
    let second = changer.reachable(cdb.second_destination.get(), THIRD_ADDRESS_AT)?;
    let exchanged = changer.library.exchange_medium(source, first, second);
    answer(exchanged, &[(source, FIRST_ADDRESS_AT), (first, SECOND_ADDRESS_AT), (second, THIRD_ADDRESS_AT)])
}

/// POSITION TO ELEMENT. The arm is everywhere at once: only the addresses are checked.
pub fn position_to_element(changer: &Changer, task: &Task) -> Reply {
    let cdb: PositionToElementCdb = task.cdb.read();
    default_transport(cdb.transport.get())?;
    changer.place(cdb.destination.get(), FIRST_ADDRESS_AT)?;
    Ok(Response::good())
}

/// INITIALIZE ELEMENT STATUS: looks what lies in the library's folder.
pub fn initialize_element_status(changer: &Changer, task: &Task) -> Reply {
    look(changer, task, |_| true)
}

/// INITIALIZE ELEMENT STATUS WITH RANGE. A look is as good with FAST as without.
pub fn initialize_element_status_with_range(changer: &Changer, task: &Task) -> Reply {
    let cdb: InitializeRangeCdb = task.cdb.read();
    if !cdb.range() {
        return initialize_element_status(changer, task);
    }
    let first = cdb.starting_element.get();
    if first != elements::TRANSPORT {
        changer.place(first, 2)?;
    }
    let last = match cdb.number_of_elements.get() {
        0 => u16::MAX,
        count => first.saturating_add(count - 1),
    };
    look(changer, task, |place| (first..=last).contains(&elements::address(place)))
}

fn look(changer: &Changer, task: &Task, range: impl Fn(Place) -> bool) -> Reply {
    let changed = changer.library.take_inventory(range).map_err(|error| {
        error!(%error, library = %changer.library.folder().display(), "the library cannot be looked at");
        Sense::INTERNAL_TARGET_FAILURE
    })?;
    if changed {
        let condition = Sense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED;
        changer.common.attentions.establish_for_all(&condition, Some(task.nexus.id));
    }
    Ok(Response::good())
}

/// OPEN/CLOSE IMPORT/EXPORT ELEMENT. The elements have one door. While it is open nothing moves there; when it is closed, the folder
/// is looked at.
pub fn open_close(changer: &Changer, task: &Task) -> Reply {
    let cdb: OpenCloseCdb = task.cdb.read();
    if !matches!(changer.place(cdb.element.get(), TRANSPORT_AT)?, Place::Mail(_)) {
        return Err(Sense::INVALID_ELEMENT_ADDRESS.at(FieldPointer::cdb(TRANSPORT_AT)));
    }
    match cdb.action() {
        OpenCloseCdb::OPEN if changer.removal_prevented() => Err(Sense::MEDIUM_REMOVAL_PREVENTED),
        OpenCloseCdb::OPEN => {
            changer.set_open(true);
            Ok(Response::good())
        }
        OpenCloseCdb::CLOSE => {
            if changer.set_open(false) {
                changer.common.attentions.establish_for_all(&Sense::IMPORT_OR_EXPORT_ELEMENT_ACCESSED, Some(task.nexus.id));
                look(changer, task, |_| true)?;
            }
            Ok(Response::good())
        }
        _ => Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 4))),
    }
}

/// MEDIUM TRANSPORT ELEMENT ADDRESS: the one there is, or zero for the default.
fn default_transport(address: u16) -> Result<(), Sense> {
    match address {
        0 | elements::TRANSPORT => Ok(()),
        _ => Err(Sense::INVALID_ELEMENT_ADDRESS.at(FieldPointer::cdb(TRANSPORT_AT))),
    }
}

impl Changer {
    /// The place that an address in byte `at` of the CDB means. The transport is none: nothing rests in it.
    fn place(&self, address: u16, at: u16) -> Result<Place, Sense> {
        let place = elements::place(self.library.inventory().layout(), address);
        place.ok_or(Sense::INVALID_ELEMENT_ADDRESS.at(FieldPointer::cdb(at)))
    }

    /// As [`Changer::place`], for a move.
    fn reachable(&self, address: u16, at: u16) -> Result<Place, Sense> {
        match self.place(address, at)? {
            Place::Mail(_) if self.is_open() => Err(Sense::MEDIUM_MAGAZINE_NOT_ACCESSIBLE.at(FieldPointer::cdb(at))),
            place => Ok(place),
        }
    }
}

/// What a move came to; `fields` are the bytes of the CDB that name the places.
fn answer(moved: Result<(), MoveError>, fields: &[(Place, u16)]) -> Reply {
    let Err(refused) = moved else { return Ok(Response::good()) };
    info!(%refused, "not moved");
    let at = |place: Place, sense: Sense| match fields.iter().find(|(named, _)| *named == place) {
        Some((_, byte)) => sense.at(FieldPointer::cdb(*byte)),
        None => sense,
    };
    // The destination that is full comes last in the CDB where source and destination are the same.
    let last = |place: Place, sense: Sense| match fields.iter().rev().find(|(named, _)| *named == place) {
        Some((_, byte)) => sense.at(FieldPointer::cdb(*byte)),
        None => sense,
    };
    Err(match refused {
        MoveError::Refused(MoveRefused::Empty(place)) => at(place, Sense::MEDIUM_SOURCE_ELEMENT_EMPTY),
        MoveError::Refused(MoveRefused::Full(place)) => last(place, Sense::MEDIUM_DESTINATION_ELEMENT_FULL),
        MoveError::Refused(MoveRefused::NoSuchPlace(place)) | MoveError::NoDrive(place) => {
            at(place, Sense::INVALID_ELEMENT_ADDRESS)
        }
        MoveError::Held { place, source: UnloadError::Prevented | UnloadError::Copying | UnloadError::InProgress } => {
            at(place, Sense::MEDIUM_REMOVAL_PREVENTED_BY_DATA_TRANSFER_ELEMENT)
        }
        MoveError::Held { .. } | MoveError::Drive { .. } => Sense::MEDIA_LOAD_OR_EJECT_FAILED,
        MoveError::Record(_) => Sense::INTERNAL_TARGET_FAILURE,
    })
}
