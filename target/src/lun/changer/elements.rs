//! Element addresses: which 16-bit number means which place of the library. SMC-3, "Element addressing".
//!
//! Each kind of element has a range of its own, far enough from the next that a library can grow without an address changing its
//! meaning. Zero is no element: in a CDB it stands for the default transport.

use protocol::scsi::smc::ElementType;
use protocol::scsi::smc_data::{ElementAddresses, ElementRange};

use crate::library::{Layout, Place};

/// The one medium transport element.
pub const TRANSPORT: u16 = 0x0001;
const FIRST_MAIL: u16 = 0x0010;
const FIRST_DRIVE: u16 = 0x0100;
const FIRST_SLOT: u16 = 0x1000;

const _: () = {
    assert!(FIRST_MAIL + Layout::MAX_MAIL <= FIRST_DRIVE);
    assert!(FIRST_DRIVE + Layout::MAX_DRIVES <= FIRST_SLOT);
    assert!(FIRST_SLOT as u32 + Layout::MAX_SLOTS as u32 <= 0x1_0000);
};

/// The address of a place.
#[must_use]
pub const fn address(place: Place) -> u16 {
    match place {
        Place::Mail(number) => FIRST_MAIL + number,
        Place::Drive(number) => FIRST_DRIVE + number,
        Place::Slot(number) => FIRST_SLOT + number,
    }
}

/// What kind of element a place is.
#[must_use]
pub const fn kind(place: Place) -> ElementType {
    match place {
        Place::Mail(_) => ElementType::ImportExport,
        Place::Drive(_) => ElementType::DataTransfer,
        Place::Slot(_) => ElementType::Storage,
    }
}

/// The ranges, for the mode page and for whoever asks what an address is.
#[must_use]
pub const fn addresses(layout: Layout) -> ElementAddresses {
    ElementAddresses {
        transport: ElementRange { first: TRANSPORT, count: 1 },
        storage: ElementRange { first: FIRST_SLOT, count: layout.slots },
        import_export: ElementRange { first: FIRST_MAIL, count: layout.mail },
        data_transfer: ElementRange { first: FIRST_DRIVE, count: layout.drives },
    }
}

/// The place at an address; `None` for the transport and for an address of no element.
#[must_use]
pub fn place(layout: Layout, address: u16) -> Option<Place> {
    let place = match address {
        FIRST_SLOT.. => Place::Slot(address - FIRST_SLOT),
        FIRST_DRIVE.. => Place::Drive(address - FIRST_DRIVE),
        FIRST_MAIL.. => Place::Mail(address - FIRST_MAIL),
        _ => return None,
    };
    layout.has(place).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_one_address_and_back() {
        let layout = Layout { drives: Layout::MAX_DRIVES, slots: Layout::MAX_SLOTS, mail: Layout::MAX_MAIL };
        let all: Vec<u16> = layout.places().map(address).collect();
        assert!(all.is_sorted_by(|a, b| a < b), "places are in the order of their addresses");
        assert!(layout.places().all(|here| place(layout, address(here)) == Some(here)));
        let small = Layout { drives: 1, slots: 2, mail: 0 };
        for nothing in [0, TRANSPORT, FIRST_MAIL, FIRST_DRIVE + 1, FIRST_SLOT + 2, u16::MAX] {
            assert_eq!(place(small, nothing), None);
        }
    }
}
