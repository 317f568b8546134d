//! What is told of the elements: READ ELEMENT STATUS, and the search for volumes by SEND VOLUME TAG and REQUEST VOLUME ELEMENT ADDRESS.
//!
//! Everything is answered from the library's last state, without waiting for a move that is under way. Follows SMC-3.

use std::sync::{Arc, Weak};

use protocol::scsi::designator::{Designator, DesignatorType};
use protocol::scsi::smc::{ElementStatusCdb, ElementType, SendVolumeTagCdb};
use protocol::scsi::smc_data::{self, DescriptorForm, Element, MediumType, VolumeTemplate};
use protocol::scsi::{FieldPointer, Sense};

use super::{Changer, elements};
use crate::library::{Held, Inventory, Place};
use crate::lun::common::{LogicalUnit, Reply, parameter_list};
use crate::lun::tape::Tape;
use crate::nexus::Nexus;
use crate::task::{Response, Task};

/// READ ELEMENT STATUS. No look at the elements needs the arm, so CURDATA changes nothing.
pub fn read_element_status(changer: &Changer, task: &Task) -> Reply {
    let cdb: ElementStatusCdb = task.cdb.read();
    let chosen = chosen(changer, &cdb, |_| true)?;
    let form = DescriptorForm { volume_tags: cdb.volume_tags(), device_identifiers: cdb.device_identifiers() };
    Ok(Response::data(smc_data::element_status(&chosen, form, cdb.allocation_length.get() as usize)))
}

/// What a nexus is looking for: its last SEND VOLUME TAG.
#[derive(Debug)]
pub(super) struct Search {
    nexus: Weak<Nexus>,
    action: u8,
    kind: Option<ElementType>,
    from: u16,
    /// `None` where nothing can be found: alternate volume tags, of which there are none.
    template: Option<VolumeTemplate>,
}

impl Search {
    fn finds(&self, element: &Element) -> bool {
        let tag = element.volume_tag.as_deref();
        let found = self.template.as_ref().zip(tag).is_some_and(|(template, tag)| template.matches(tag));
        found && element.address >= self.from && self.kind.is_none_or(|kind| kind == element.kind)
    }
}

/// SEND VOLUME TAG: translations only; the tags are those of the cartridges' labels and cannot be given here.
pub fn send_volume_tag(changer: &Changer, task: &Task) -> Reply {
    let cdb: SendVolumeTagCdb = task.cdb.read();
    let kind = element_type(cdb.element_type_code())?;
    let (primary, by_sequence) = match cdb.action() {
        0x00 | 0x01 => (true, true),
        0x02 => (false, true),
        0x04 | 0x05 => (true, false),
        0x06 => (false, false),
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(5, 4))),
    };
    let length = usize::from(cdb.parameter_list_length.get());
    let template = VolumeTemplate::parse(&parameter_list(task, length)?).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let search = Search {
        nexus: Arc::downgrade(&task.nexus),
        action: cdb.action(),
        kind,
        from: cdb.element.get(),
        template: Some(template).filter(|template| primary && (!by_sequence || template.allows_sequence_zero())),
    };
    let mut searches = changer.searches.lock().expect("no holder panics");
    searches.retain(|search| search.nexus.upgrade().is_some_and(|nexus| nexus.id != task.nexus.id));
    searches.push(search);
    Ok(Response::good())
}

/// REQUEST VOLUME ELEMENT ADDRESS: where the volumes are that this nexus has asked for.
pub fn request_volume_element_address(changer: &Changer, task: &Task) -> Reply {
    let cdb: ElementStatusCdb = task.cdb.read();
    let searches = changer.searches.lock().expect("no holder panics");
    let own = searches.iter().find(|search| search.nexus.upgrade().is_some_and(|nexus| nexus.id == task.nexus.id));
    let search = own.ok_or(Sense::COMMAND_SEQUENCE_ERROR)?;
    let found = chosen(changer, &cdb, |element| search.finds(element))?;
    let form = DescriptorForm { volume_tags: cdb.volume_tags(), device_identifiers: false };
    let room = cdb.allocation_length.get() as usize;
    Ok(Response::data(smc_data::volume_element_addresses(&found, form, search.action, room)))
}

/// The elements that a CDB asks for: of the type, from the starting address on, and no more than wanted.
fn chosen(changer: &Changer, cdb: &ElementStatusCdb, wanted: impl Fn(&Element) -> bool) -> Result<Vec<Element>, Sense> {
    let kind = element_type(cdb.element_type_code())?;
    let inventory = changer.library.inventory();
    let mut all = vec![Element::empty(elements::TRANSPORT, ElementType::MediumTransport)];
    let wants = |element_kind| kind.is_none_or(|kind| kind == element_kind);
    let places = inventory.layout().places().filter(|place| wants(elements::kind(*place)));
    all.extend(places.map(|place| element(changer, &inventory, place)));
    let from = cdb.starting_element.get();
    let most = usize::from(cdb.number_of_elements.get());
    Ok(all.into_iter().filter(|element| wants(element.kind) && element.address >= from && wanted(element)).take(most).collect())
}

fn element_type(code: u8) -> Result<Option<ElementType>, Sense> {
    ElementType::from_code(code).map_err(|_| Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 3)))
}

fn element(changer: &Changer, inventory: &Inventory, place: Place) -> Element {
    let mut element = Element::empty(elements::address(place), elements::kind(place));
    if let Some(held) = inventory.get(place) {
        fill(&mut element, held);
    }
    match place {
        Place::Slot(_) => {}
        Place::Mail(_) => element.accessible = !changer.is_open(),
        Place::Drive(number) => match changer.library.drive(number) {
            Some(drive) => drive_element(&mut element, &drive),
            None => {
                (element.accessible, element.disabled) = (false, true);
                element.exception = Some(DATA_TRANSFER_DEVICE_REMOVED);
            }
        },
    }
    element
}

fn fill(element: &mut Element, held: &Held) {
    element.full = true;
    element.by_operator = held.by_operator;
    element.medium_type = if held.worm { MediumType::Worm } else { MediumType::Data };
    element.source = held.source.map(elements::address);
    element.volume_tag = Some(held.barcode.clone());
}

/// A drive gives its cartridge away unless somebody prevents it or a copy runs. One that could not load what lies in it says so.
fn drive_element(element: &mut Element, drive: &Tape) {
    element.accessible = !drive.removal_prevented() && !drive.is_busy();
    element.device = Some(device_identifier(drive));
    if element.full && drive.cartridge().is_none() {
        element.exception = Some(MEDIA_LOAD_OR_EJECT_FAILED);
    }
}

/// The T10 vendor identification of the drive's VPD page 83h: text, which programs compare with what the drive itself says.
fn device_identifier(drive: &Tape) -> Designator {
    let designators = drive.common().identity.designators();
    let named = designators.into_iter().find(|designator| designator.kind == DesignatorType::T10VendorId);
    named.expect("every logical unit has a T10 vendor identification")
}

/// ADDITIONAL SENSE CODE and QUALIFIER of a drive's element.
const MEDIA_LOAD_OR_EJECT_FAILED: (u8, u8) = (0x53, 0x00);
/// As above.
const DATA_TRANSFER_DEVICE_REMOVED: (u8, u8) = (0x3B, 0x1A);
