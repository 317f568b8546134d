//! Commands of media changers: a row for each and the layout of its CDB.
//!
//! One medium transport element that cannot turn a medium over: INVERT is kept out of the masks, and so refused with a pointer to
//! its bit. What the commands return is in [`super::smc_data`]; nothing is executed here. Follows SMC-3.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CommandSpec, DataDirection};
use crate::wire::{U16, U24};

const fn row(name: &'static str, usage: &'static [u8], data: DataDirection) -> CommandSpec {
    CommandSpec { name, opcode: usage[0], service_action: None, usage, data, writes: false }
}

/// All rows of this module.
#[rustfmt::skip]
pub const COMMANDS: &[&CommandSpec] = &[
    &INITIALIZE_ELEMENT_STATUS, &OPEN_CLOSE_IMPORT_EXPORT_ELEMENT, &POSITION_TO_ELEMENT, &INITIALIZE_ELEMENT_STATUS_WITH_RANGE,
    &MOVE_MEDIUM, &EXCHANGE_MEDIUM, &REQUEST_VOLUME_ELEMENT_ADDRESS, &SEND_VOLUME_TAG, &READ_ELEMENT_STATUS,
];

/// INITIALIZE ELEMENT STATUS.
pub const INITIALIZE_ELEMENT_STATUS: CommandSpec = row("INITIALIZE ELEMENT STATUS", &[0x07, 0, 0, 0, 0, 0], DataDirection::None);
/// OPEN/CLOSE IMPORT/EXPORT ELEMENT: ELEMENT ADDRESS; ACTION CODE.
pub const OPEN_CLOSE_IMPORT_EXPORT_ELEMENT: CommandSpec =
    row("OPEN/CLOSE IMPORT/EXPORT ELEMENT", &[0x1B, 0, 0xFF, 0xFF, 0x1F, 0], DataDirection::None);
/// POSITION TO ELEMENT.
pub const POSITION_TO_ELEMENT: CommandSpec =
    row("POSITION TO ELEMENT", &[0x2B, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], DataDirection::None);
/// INITIALIZE ELEMENT STATUS WITH RANGE: FAST, RANGE; STARTING ELEMENT ADDRESS; NUMBER OF ELEMENTS.
pub const INITIALIZE_ELEMENT_STATUS_WITH_RANGE: CommandSpec =
    row("INITIALIZE ELEMENT STATUS WITH RANGE", &[0x37, 0x03, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0], DataDirection::None);
/// MOVE MEDIUM.
pub const MOVE_MEDIUM: CommandSpec =
    row("MOVE MEDIUM", &[0xA5, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], DataDirection::None);
/// EXCHANGE MEDIUM.
pub const EXCHANGE_MEDIUM: CommandSpec =
    row("EXCHANGE MEDIUM", &[0xA6, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::None);
/// REQUEST VOLUME ELEMENT ADDRESS: VOLTAG, ELEMENT TYPE CODE.
pub const REQUEST_VOLUME_ELEMENT_ADDRESS: CommandSpec =
    row("REQUEST VOLUME ELEMENT ADDRESS", &[0xB5, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::In);
/// SEND VOLUME TAG: ELEMENT TYPE CODE; SEND ACTION CODE.
pub const SEND_VOLUME_TAG: CommandSpec =
    row("SEND VOLUME TAG", &[0xB6, 0x0F, 0xFF, 0xFF, 0, 0x1F, 0, 0, 0xFF, 0xFF, 0, 0], DataDirection::Out);
/// READ ELEMENT STATUS: VOLTAG, ELEMENT TYPE CODE; CURDATA, DVCID.
pub const READ_ELEMENT_STATUS: CommandSpec =
    row("READ ELEMENT STATUS", &[0xB8, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::In);

/// ELEMENT TYPE CODE. SMC-3, "Element type code".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ElementType {
    /// Medium transport element: the arm.
    MediumTransport = 1,
    /// Storage element: a slot.
    Storage = 2,
    /// Import/export element: where an operator puts media in and takes them out.
    ImportExport = 3,
    /// Data transfer element: a drive.
    DataTransfer = 4,
}

impl ElementType {
    /// `Ok(None)` for code 0h, all types.
    ///
    /// # Errors
    /// The code, when it is reserved.
    pub const fn from_code(code: u8) -> Result<Option<Self>, u8> {
        Ok(Some(match code {
            0 => return Ok(None),
            1 => Self::MediumTransport,
            2 => Self::Storage,
            3 => Self::ImportExport,
            4 => Self::DataTransfer,
            _ => return Err(code),
        }))
    }
}

/// OPEN/CLOSE IMPORT/EXPORT ELEMENT.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct OpenCloseCdb {
    opcode: u8,
    reserved: u8,
    /// ELEMENT ADDRESS of an import/export element.
    pub element: U16,
    action: u8,
    control: u8,
}

impl OpenCloseCdb {
    /// ACTION CODE 00h: open.
    pub const OPEN: u8 = 0x00;
    /// ACTION CODE 01h: close.
    pub const CLOSE: u8 = 0x01;

    /// ACTION CODE.
    #[must_use]
    pub const fn action(&self) -> u8 {
        self.action & 0x1F
    }
}

/// POSITION TO ELEMENT.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PositionToElementCdb {
    opcode: u8,
    reserved_1: u8,
    /// MEDIUM TRANSPORT ELEMENT ADDRESS; zero is the default one.
    pub transport: U16,
    /// DESTINATION ELEMENT ADDRESS.
    pub destination: U16,
    reserved_6: [u8; 2],
    flags: u8,
    control: u8,
}

/// INITIALIZE ELEMENT STATUS WITH RANGE.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InitializeRangeCdb {
    opcode: u8,
    flags: u8,
    /// STARTING ELEMENT ADDRESS; only with RANGE.
    pub starting_element: U16,
    reserved_4: [u8; 2],
    /// NUMBER OF ELEMENTS; only with RANGE, where zero means all from the starting one on.
    pub number_of_elements: U16,
    reserved_8: u8,
    control: u8,
}

impl InitializeRangeCdb {
    /// RANGE: only the elements named.
    #[must_use]
    pub const fn range(&self) -> bool {
        self.flags & 0x01 != 0
    }
}

/// MOVE MEDIUM.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MoveMediumCdb {
    opcode: u8,
    reserved_1: u8,
    /// MEDIUM TRANSPORT ELEMENT ADDRESS; zero is the default one.
    pub transport: U16,
    /// SOURCE ELEMENT ADDRESS.
    pub source: U16,
    /// DESTINATION ELEMENT ADDRESS.
    pub destination: U16,
    reserved_8: [u8; 2],
    flags: u8,
    control: u8,
}

/// EXCHANGE MEDIUM.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ExchangeMediumCdb {
    opcode: u8,
    reserved_1: u8,
    /// MEDIUM TRANSPORT ELEMENT ADDRESS; zero is the default one.
    pub transport: U16,
    /// SOURCE ELEMENT ADDRESS.
    pub source: U16,
    /// FIRST DESTINATION ELEMENT ADDRESS: where the medium of the source goes.
    pub first_destination: U16,
    /// SECOND DESTINATION ELEMENT ADDRESS: where the medium of the first destination goes; the source in a simple exchange.
    pub second_destination: U16,
    flags: u8,
    control: u8,
}

/// READ ELEMENT STATUS and REQUEST VOLUME ELEMENT ADDRESS (which has neither CURDATA nor DVCID).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ElementStatusCdb {
    opcode: u8,
    kind: u8,
    /// STARTING ELEMENT ADDRESS: the lowest to report.
    pub starting_element: U16,
    /// NUMBER OF ELEMENTS: at most so many descriptors.
    pub number_of_elements: U16,
    flags: u8,
    /// In bytes.
    pub allocation_length: U24,
    reserved_10: u8,
    control: u8,
}

impl ElementStatusCdb {
    /// VOLTAG: volume tags are wanted.
    #[must_use]
    pub const fn volume_tags(&self) -> bool {
        self.kind & 0x10 != 0
    }

    /// ELEMENT TYPE CODE.
    #[must_use]
    pub const fn element_type_code(&self) -> u8 {
        self.kind & 0x0F
    }

    /// DVCID: device identifiers are wanted.
    #[must_use]
    pub const fn device_identifiers(&self) -> bool {
        self.flags & 0x01 != 0
    }
}

/// SEND VOLUME TAG.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SendVolumeTagCdb {
    opcode: u8,
    kind: u8,
    /// ELEMENT ADDRESS: where a translation begins.
    pub element: U16,
    reserved_4: u8,
    action: u8,
    reserved_6: [u8; 2],
    /// In bytes.
    pub parameter_list_length: U16,
    reserved_10: u8,
    control: u8,
}

impl SendVolumeTagCdb {
    /// ELEMENT TYPE CODE.
    #[must_use]
    pub const fn element_type_code(&self) -> u8 {
        self.kind & 0x0F
    }

    /// SEND ACTION CODE.
    #[must_use]
    pub const fn action(&self) -> u8 {
        self.action & 0x1F
    }
}

const _: () = {
    assert!(size_of::<OpenCloseCdb>() == OPEN_CLOSE_IMPORT_EXPORT_ELEMENT.usage.len());
    assert!(size_of::<PositionToElementCdb>() == POSITION_TO_ELEMENT.usage.len());
    assert!(size_of::<InitializeRangeCdb>() == INITIALIZE_ELEMENT_STATUS_WITH_RANGE.usage.len());
    assert!(size_of::<MoveMediumCdb>() == MOVE_MEDIUM.usage.len());
    assert!(size_of::<ExchangeMediumCdb>() == EXCHANGE_MEDIUM.usage.len());
    assert!(size_of::<ElementStatusCdb>() == READ_ELEMENT_STATUS.usage.len());
    assert!(size_of::<ElementStatusCdb>() == REQUEST_VOLUME_ELEMENT_ADDRESS.usage.len());
    assert!(size_of::<SendVolumeTagCdb>() == SEND_VOLUME_TAG.usage.len());
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::Cdb;
    use crate::wire::hex;

    #[test]
    fn the_fields_of_each_cdb_are_where_the_standard_has_them() {
        let moved: MoveMediumCdb = Cdb::new(&hex("a5 00 0001 1003 0101 0000 00 00")).unwrap().read();
        assert_eq!((moved.transport.get(), moved.source.get(), moved.destination.get()), (1, 0x1003, 0x0101));
        let exchange: ExchangeMediumCdb = Cdb::new(&hex("a6 00 0001 1003 0101 1004 00 00")).unwrap().read();
        assert_eq!((exchange.first_destination.get(), exchange.second_destination.get()), (0x0101, 0x1004));
        let status: ElementStatusCdb = Cdb::new(&hex("b8 14 0100 0002 01 001000 00 00")).unwrap().read();
        assert!(status.volume_tags() && status.device_identifiers());
        assert_eq!((status.element_type_code(), status.starting_element.get()), (4, 0x100));
        assert_eq!((status.number_of_elements.get(), status.allocation_length.get()), (2, 0x1000));
        let range: InitializeRangeCdb = Cdb::new(&hex("37 01 1000 0000 0014 00 00")).unwrap().read();
        assert_eq!((range.range(), range.starting_element.get(), range.number_of_elements.get()), (true, 0x1000, 20));
        let door: OpenCloseCdb = Cdb::new(&hex("1b 00 0010 01 00")).unwrap().read();
        assert_eq!((door.element.get(), door.action()), (0x10, OpenCloseCdb::CLOSE));
        let send: SendVolumeTagCdb = Cdb::new(&hex("b6 02 1000 00 05 0000 0028 00 00")).unwrap().read();
        assert_eq!((send.element_type_code(), send.action(), send.parameter_list_length.get()), (2, 5, 40));
    }

    #[test]
    fn turning_a_medium_over_is_refused_at_its_bit() {
        let refused = |spec: &CommandSpec, cdb: &str| spec.refused_bit(&Cdb::new(&hex(cdb)).unwrap());
        let at = crate::scsi::FieldPointer::cdb_bit(10, 0);
        assert_eq!(refused(&MOVE_MEDIUM, "a5 00 0001 1003 0101 0000 01 00"), Some(at));
        assert_eq!(refused(&EXCHANGE_MEDIUM, "a6 00 0001 1003 0101 1004 01 00"), Some(at));
    }

    #[test]
    fn element_type_codes_above_4_are_reserved() {
        assert_eq!(ElementType::from_code(0), Ok(None));
        assert_eq!(ElementType::from_code(3), Ok(Some(ElementType::ImportExport)));
        assert_eq!(ElementType::from_code(5), Err(5));
    }
}
