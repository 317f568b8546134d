//! Commands of sequential access devices: a row for each and the layout of its CDB.
//!
//! Implicit addressing only, no setmarks; what is not served is kept out of the masks and so refused with a pointer to its bit. What the commands return is in [`super::ssc_data`];
//! nothing is executed here. Follows SSC-4; the security protocol and attribute commands SPC-4.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CommandSpec, DataDirection};
use crate::wire::{U16, U24, U32, U64};

const fn row(name: &'static str, usage: &'static [u8], data: DataDirection) -> CommandSpec {
    CommandSpec { name, opcode: usage[0], service_action: None, usage, data, writes: false }
}

const fn writes(name: &'static str, usage: &'static [u8], data: DataDirection) -> CommandSpec {
    CommandSpec { writes: true, ..row(name, usage, data) }
}

const fn action(name: &'static str, usage: &'static [u8]) -> CommandSpec {
    CommandSpec { service_action: Some((usage[1] & 0x1F) as u16), ..row(name, usage, DataDirection::In) }
}

/// All rows of this module.
#[rustfmt::skip]
pub const COMMANDS: &[&CommandSpec] = &[
    &REWIND, &FORMAT_MEDIUM, &READ_BLOCK_LIMITS, &READ_6, &WRITE_6, &SET_CAPACITY, &READ_REVERSE_6, &WRITE_FILEMARKS_6, &SPACE_6,
    &VERIFY_6, &ERASE_6, &LOAD_UNLOAD, &LOCATE_10, &READ_POSITION_SHORT, &READ_POSITION_SHORT_VENDOR, &READ_POSITION_LONG,
    &READ_POSITION_EXTENDED, &REPORT_DENSITY_SUPPORT, &WRITE_FILEMARKS_16, &ALLOW_OVERWRITE, &READ_ATTRIBUTE_VALUES,
    &READ_ATTRIBUTE_LIST, &READ_ATTRIBUTE_VOLUMES, &READ_ATTRIBUTE_PARTITIONS, &READ_ATTRIBUTE_SUPPORTED, &WRITE_ATTRIBUTE,
    &SPACE_16, &LOCATE_16, &SECURITY_PROTOCOL_IN, &SECURITY_PROTOCOL_OUT,
];

/// REWIND: IMMED.
pub const REWIND: CommandSpec = row("REWIND", &[0x01, 0x01, 0, 0, 0, 0], DataDirection::None);
/// FORMAT MEDIUM: IMMED; FORMAT. A parameter list would be vendor specific: TRANSFER LENGTH has to be zero.
pub const FORMAT_MEDIUM: CommandSpec = writes("FORMAT MEDIUM", &[0x04, 0x01, 0x0F, 0, 0, 0], DataDirection::None);
/// READ BLOCK LIMITS: MLOI.
pub const READ_BLOCK_LIMITS: CommandSpec = row("READ BLOCK LIMITS", &[0x05, 0x01, 0, 0, 0, 0], DataDirection::In);
/// READ(6): SILI, FIXED.
pub const READ_6: CommandSpec = row("READ(6)", &[0x08, 0x03, 0xFF, 0xFF, 0xFF, 0], DataDirection::In);
/// WRITE(6): FIXED.
pub const WRITE_6: CommandSpec = writes("WRITE(6)", &[0x0A, 0x01, 0xFF, 0xFF, 0xFF, 0], DataDirection::Out);
/// SET CAPACITY: IMMED; CAPACITY PROPORTION VALUE.
pub const SET_CAPACITY: CommandSpec = writes("SET CAPACITY", &[0x0B, 0x01, 0, 0xFF, 0xFF, 0], DataDirection::None);
/// READ REVERSE(6): BYTORD, SILI, FIXED.
pub const READ_REVERSE_6: CommandSpec = row("READ REVERSE(6)", &[0x0F, 0x07, 0xFF, 0xFF, 0xFF, 0], DataDirection::In);
/// VERIFY(6): VTE, VLBPM, VBF, IMMED, BYTCMP, FIXED.
pub const VERIFY_6: CommandSpec = row("VERIFY(6)", &[0x13, 0x3F, 0xFF, 0xFF, 0xFF, 0], DataDirection::Out);
/// WRITE FILEMARKS(6): IMMED.
pub const WRITE_FILEMARKS_6: CommandSpec = writes("WRITE FILEMARKS(6)", &[0x10, 0x01, 0xFF, 0xFF, 0xFF, 0], DataDirection::None);
/// SPACE(6): CODE.
pub const SPACE_6: CommandSpec = row("SPACE(6)", &[0x11, 0x0F, 0xFF, 0xFF, 0xFF, 0], DataDirection::None);
/// ERASE(6): IMMED, LONG.
pub const ERASE_6: CommandSpec = writes("ERASE(6)", &[0x19, 0x03, 0, 0, 0, 0], DataDirection::None);
/// LOAD UNLOAD: IMMED; HOLD, EOT, RETEN, LOAD.
pub const LOAD_UNLOAD: CommandSpec = row("LOAD UNLOAD", &[0x1B, 0x01, 0, 0, 0x0F, 0], DataDirection::None);
/// LOCATE(10): BT, CP, IMMED; PARTITION. BT is taken and changes nothing: our vendor-specific locations are object numbers too.
pub const LOCATE_10: CommandSpec = row("LOCATE(10)", &[0x2B, 0x07, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0], DataDirection::None);
/// READ POSITION, short form, block identifiers.
pub const READ_POSITION_SHORT: CommandSpec = action("READ POSITION", &[0x34, 0x00, 0, 0, 0, 0, 0, 0, 0, 0]);
/// READ POSITION, short form, vendor-specific locations: what Linux's st asks for unless told otherwise.
pub const READ_POSITION_SHORT_VENDOR: CommandSpec = action("READ POSITION", &[0x34, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]);
/// READ POSITION, long form.
pub const READ_POSITION_LONG: CommandSpec = action("READ POSITION", &[0x34, 0x06, 0, 0, 0, 0, 0, 0, 0, 0]);
/// READ POSITION, extended form.
pub const READ_POSITION_EXTENDED: CommandSpec = action("READ POSITION", &[0x34, 0x08, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]);
/// REPORT DENSITY SUPPORT: MEDIUM TYPE, MEDIA.
pub const REPORT_DENSITY_SUPPORT: CommandSpec =
    row("REPORT DENSITY SUPPORT", &[0x44, 0x03, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], DataDirection::In);
/// WRITE FILEMARKS(16): IMMED; PARTITION, LOGICAL OBJECT IDENTIFIER, FILEMARK COUNT.
pub const WRITE_FILEMARKS_16: CommandSpec = writes(
    "WRITE FILEMARKS(16)",
    &[0x80, 0x01, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0],
    DataDirection::None,
);
/// ALLOW OVERWRITE: what; PARTITION, LOGICAL OBJECT IDENTIFIER.
pub const ALLOW_OVERWRITE: CommandSpec = row(
    "ALLOW OVERWRITE",
    &[0x82, 0, 0x0F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
    DataDirection::None,
);
/// READ ATTRIBUTE, ATTRIBUTE VALUES: LOGICAL VOLUME NUMBER, PARTITION NUMBER, FIRST ATTRIBUTE IDENTIFIER; CACHE, which changes nothing.
pub const READ_ATTRIBUTE_VALUES: CommandSpec =
    action("READ ATTRIBUTE", &[0x8C, 0x00, 0, 0, 0, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0]);
/// READ ATTRIBUTE, ATTRIBUTE LIST.
pub const READ_ATTRIBUTE_LIST: CommandSpec =
    action("READ ATTRIBUTE", &[0x8C, 0x01, 0, 0, 0, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0]);
/// READ ATTRIBUTE, LOGICAL VOLUME LIST.
pub const READ_ATTRIBUTE_VOLUMES: CommandSpec =
    action("READ ATTRIBUTE", &[0x8C, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0]);
/// READ ATTRIBUTE, PARTITION LIST.
pub const READ_ATTRIBUTE_PARTITIONS: CommandSpec =
    action("READ ATTRIBUTE", &[0x8C, 0x03, 0, 0, 0, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0]);
/// READ ATTRIBUTE, SUPPORTED ATTRIBUTES.
pub const READ_ATTRIBUTE_SUPPORTED: CommandSpec =
    action("READ ATTRIBUTE", &[0x8C, 0x05, 0, 0, 0, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0]);
/// WRITE ATTRIBUTE: WTC, which changes nothing; LOGICAL VOLUME NUMBER, PARTITION NUMBER.
pub const WRITE_ATTRIBUTE: CommandSpec =
    writes("WRITE ATTRIBUTE", &[0x8D, 0x01, 0, 0, 0, 0xFF, 0, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::Out);
/// SECURITY PROTOCOL IN: SECURITY PROTOCOL, SECURITY PROTOCOL SPECIFIC. INC_512 is not served.
pub const SECURITY_PROTOCOL_IN: CommandSpec =
    row("SECURITY PROTOCOL IN", &[0xA2, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::In);
/// SECURITY PROTOCOL OUT: as [`SECURITY_PROTOCOL_IN`].
pub const SECURITY_PROTOCOL_OUT: CommandSpec =
    row("SECURITY PROTOCOL OUT", &[0xB5, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], DataDirection::Out);
/// SPACE(16): CODE; COUNT.
pub const SPACE_16: CommandSpec =
    row("SPACE(16)", &[0x91, 0x0F, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], DataDirection::None);
/// LOCATE(16): DEST_TYPE, CP, IMMED; PARTITION; LOGICAL IDENTIFIER.
pub const LOCATE_16: CommandSpec =
    row("LOCATE(16)", &[0x92, 0x3B, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], DataDirection::None);

/// READ(6), WRITE(6) and WRITE FILEMARKS(6): a flag byte and a count of 24 bits.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Transfer6Cdb {
    opcode: u8,
    flags: u8,
    /// Bytes, or with FIXED logical blocks; a number of filemarks in WRITE FILEMARKS(6).
    pub transfer_length: U24,
    control: u8,
}

impl Transfer6Cdb {
    /// FIXED: TRANSFER LENGTH counts blocks of the length that the mode parameters tell.
    #[must_use]
    pub const fn fixed(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// SILI: a record shorter than asked for is no error.
    #[must_use]
    pub const fn suppress_incorrect_length(&self) -> bool {
        self.flags & 0x02 != 0
    }

    /// IMMED of WRITE FILEMARKS(6): need not be on the medium when the status comes.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// BYTORD of READ REVERSE(6): the bytes of each block come first byte first; else the last comes first.
    #[must_use]
    pub const fn byte_order(&self) -> bool {
        self.flags & 0x04 != 0
    }

    /// VTE of VERIFY(6): to the end of data.
    #[must_use]
    pub const fn verify_to_end_of_data(&self) -> bool {
        self.flags & 0x20 != 0
    }

    /// VLBPM of VERIFY(6): every block has to be protected on the medium, by the method that the mode page names.
    #[must_use]
    pub const fn verify_protection_method(&self) -> bool {
        self.flags & 0x10 != 0
    }

    /// VBF of VERIFY(6): the length counts filemarks.
    #[must_use]
    pub const fn verify_by_filemarks(&self) -> bool {
        self.flags & 0x08 != 0
    }

    /// IMMED of VERIFY(6).
    #[must_use]
    pub const fn verify_immediate(&self) -> bool {
        self.flags & 0x04 != 0
    }

    /// BYTCMP of VERIFY(6): the blocks are compared with Data-Out.
    #[must_use]
    pub const fn byte_compare(&self) -> bool {
        self.flags & 0x02 != 0
    }
}

/// Six bytes with IMMED and little else: REWIND, FORMAT MEDIUM, SET CAPACITY, ERASE(6).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Immediate6Cdb {
    opcode: u8,
    flags: u8,
    /// FORMAT of FORMAT MEDIUM, in bits 3 to 0.
    pub format: u8,
    /// CAPACITY PROPORTION VALUE of SET CAPACITY.
    pub proportion: U16,
    control: u8,
}

impl Immediate6Cdb {
    /// IMMED of REWIND, FORMAT MEDIUM and SET CAPACITY.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// IMMED of ERASE(6).
    #[must_use]
    pub const fn erase_immediate(&self) -> bool {
        self.flags & 0x02 != 0
    }

    /// LONG of ERASE(6).
    #[must_use]
    pub const fn long(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// MLOI of READ BLOCK LIMITS: the largest logical object identifier is asked for.
    #[must_use]
    pub const fn maximum_identifier(&self) -> bool {
        self.flags & 0x01 != 0
    }
}

/// FORMAT of FORMAT MEDIUM. SSC-4, "FORMAT field".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumFormat {
    /// The default: one partition.
    Default,
    /// Partitions as the medium partition mode page says.
    Partition,
    /// Default, then partitions as the mode page says.
    DefaultThenPartition,
}

impl MediumFormat {
    /// `None` for reserved and vendor-specific codes.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code & 0x0F {
            0 => Self::Default,
            1 => Self::Partition,
            2 => Self::DefaultThenPartition,
            _ => return None,
        })
    }
}

/// ALLOW OVERWRITE.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AllowOverwriteCdb {
    opcode: u8,
    reserved_1: u8,
    /// ALLOW OVERWRITE, in bits 3 to 0: 0 nothing, 1 the current position, 2 a format.
    pub allow: u8,
    /// PARTITION.
    pub partition: u8,
    /// LOGICAL OBJECT IDENTIFIER.
    pub logical_object: U64,
    reserved_12: [u8; 3],
    control: u8,
}

/// READ ATTRIBUTE and WRITE ATTRIBUTE.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AttributeCdb {
    opcode: u8,
    /// SERVICE ACTION of READ ATTRIBUTE.
    pub action: u8,
    reserved_2: [u8; 3],
    /// LOGICAL VOLUME NUMBER.
    pub logical_volume: u8,
    reserved_6: u8,
    /// PARTITION NUMBER.
    pub partition: u8,
    /// FIRST ATTRIBUTE IDENTIFIER of READ ATTRIBUTE.
    pub first: U16,
    /// ALLOCATION LENGTH or PARAMETER LIST LENGTH, in bytes.
    pub length: U32,
    flags: u8,
    control: u8,
}

/// SECURITY PROTOCOL IN and SECURITY PROTOCOL OUT.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SecurityProtocolCdb {
    opcode: u8,
    /// SECURITY PROTOCOL.
    pub protocol: u8,
    /// SECURITY PROTOCOL SPECIFIC.
    pub specific: U16,
    reserved_4: [u8; 2],
    /// ALLOCATION LENGTH or TRANSFER LENGTH, in bytes.
    pub length: U32,
    reserved_10: u8,
    control: u8,
}

/// WRITE FILEMARKS(16).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WriteFilemarks16Cdb {
    opcode: u8,
    flags: u8,
    reserved: u8,
    /// PARTITION.
    pub partition: u8,
    /// LOGICAL OBJECT IDENTIFIER.
    pub logical_object: U64,
    /// FILEMARK COUNT.
    pub filemark_count: U24,
    control: u8,
}

impl WriteFilemarks16Cdb {
    /// IMMED.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x01 != 0
    }
}

/// What SPACE counts. SSC-4, "CODE field".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceCode {
    /// Logical blocks; filemarks stop it.
    Blocks,
    /// Filemarks.
    Filemarks,
    /// Filemarks that follow one on the other without blocks between.
    SequentialFilemarks,
    /// To the end of data; COUNT is ignored.
    EndOfData,
}

impl SpaceCode {
    /// `None` for setmarks (obsolete) and reserved codes.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code & 0x0F {
            0 => Self::Blocks,
            1 => Self::Filemarks,
            2 => Self::SequentialFilemarks,
            3 => Self::EndOfData,
            _ => return None,
        })
    }
}

/// SPACE(6).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Space6Cdb {
    opcode: u8,
    /// CODE in bits 3 to 0.
    pub code: u8,
    count: U24,
    control: u8,
}

impl Space6Cdb {
    /// COUNT; negative counts go backwards.
    #[must_use]
    pub const fn count(&self) -> i64 {
        (((self.count.get() << 8) as i32) >> 8) as i64
    }
}

/// SPACE(16).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Space16Cdb {
    opcode: u8,
    /// CODE in bits 3 to 0.
    pub code: u8,
    reserved_2: [u8; 2],
    count: U64,
    reserved_12: [u8; 3],
    control: u8,
}

impl Space16Cdb {
    /// COUNT; negative counts go backwards.
    #[must_use]
    pub const fn count(&self) -> i64 {
        self.count.get() as i64
    }
}

/// LOAD UNLOAD.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LoadUnloadCdb {
    opcode: u8,
    flags: u8,
    reserved: [u8; 2],
    action: u8,
    control: u8,
}

impl LoadUnloadCdb {
    /// LOAD: set to load, clear to unload.
    #[must_use]
    pub const fn load(&self) -> bool {
        self.action & 0x01 != 0
    }

    /// EOT: unload at the end of the medium.
    #[must_use]
    pub const fn end_of_tape(&self) -> bool {
        self.action & 0x04 != 0
    }

    /// HOLD: the cartridge is not ejected; or not threaded when it is loaded.
    #[must_use]
    pub const fn hold(&self) -> bool {
        self.action & 0x08 != 0
    }

    /// IMMED.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x01 != 0
    }
}

/// LOCATE(10).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Locate10Cdb {
    opcode: u8,
    flags: u8,
    reserved_2: u8,
    /// LOGICAL OBJECT IDENTIFIER.
    pub logical_object: U32,
    reserved_7: u8,
    /// PARTITION; counts only with CP.
    pub partition: u8,
    control: u8,
}

impl Locate10Cdb {
    /// IMMED.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// CP: change the partition first.
    #[must_use]
    pub const fn change_partition(&self) -> bool {
        self.flags & 0x02 != 0
    }
}

/// What the LOGICAL IDENTIFIER of LOCATE(16) is. SSC-4, "DEST_TYPE field".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocateDestination {
    /// Logical object identifier.
    Object,
    /// Logical file identifier: behind so many filemarks.
    File,
    /// End of data; the identifier is ignored.
    EndOfData,
}

/// LOCATE(16).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Locate16Cdb {
    opcode: u8,
    flags: u8,
    reserved_2: u8,
    /// PARTITION; counts only with CP.
    pub partition: u8,
    /// LOGICAL IDENTIFIER.
    pub logical_identifier: U64,
    reserved_12: [u8; 3],
    control: u8,
}

impl Locate16Cdb {
    /// IMMED.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// CP: change the partition first.
    #[must_use]
    pub const fn change_partition(&self) -> bool {
        self.flags & 0x02 != 0
    }

    /// DEST_TYPE; `None` for logical set identifiers (obsolete) and reserved values.
    #[must_use]
    pub const fn destination(&self) -> Option<LocateDestination> {
        Some(match (self.flags >> 3) & 0x07 {
            0 => LocateDestination::Object,
            1 => LocateDestination::File,
            3 => LocateDestination::EndOfData,
            _ => return None,
        })
    }
}

/// READ POSITION and REPORT DENSITY SUPPORT: ten bytes with an allocation length.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Report10Cdb {
    opcode: u8,
    flags: u8,
    reserved: [u8; 5],
    /// In bytes.
    pub allocation_length: U16,
    control: u8,
}

impl Report10Cdb {
    /// MEDIA of REPORT DENSITY SUPPORT: what the mounted medium can have, not what the drive can.
    #[must_use]
    pub const fn media(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// MEDIUM TYPE of REPORT DENSITY SUPPORT: medium types are asked for, not densities.
    #[must_use]
    pub const fn medium_type(&self) -> bool {
        self.flags & 0x02 != 0
    }
}

const _: () = {
    assert!(size_of::<Transfer6Cdb>() == READ_6.usage.len());
    assert!(size_of::<WriteFilemarks16Cdb>() == WRITE_FILEMARKS_16.usage.len());
    assert!(size_of::<Space6Cdb>() == SPACE_6.usage.len());
    assert!(size_of::<Space16Cdb>() == SPACE_16.usage.len());
    assert!(size_of::<LoadUnloadCdb>() == LOAD_UNLOAD.usage.len());
    assert!(size_of::<Locate10Cdb>() == LOCATE_10.usage.len());
    assert!(size_of::<Locate16Cdb>() == LOCATE_16.usage.len());
    assert!(size_of::<Report10Cdb>() == READ_POSITION_EXTENDED.usage.len());
    assert!(size_of::<Immediate6Cdb>() == ERASE_6.usage.len());
    assert!(size_of::<AllowOverwriteCdb>() == ALLOW_OVERWRITE.usage.len());
    assert!(size_of::<AttributeCdb>() == WRITE_ATTRIBUTE.usage.len());
    assert!(size_of::<SecurityProtocolCdb>() == SECURITY_PROTOCOL_IN.usage.len());
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::Cdb;
    use crate::wire::hex;

    #[test]
    fn counts_of_space_are_signed() {
        let six: Space6Cdb = Cdb::new(&hex("11 01 FFFFFE 00")).unwrap().read();
        assert_eq!((six.count(), SpaceCode::from_code(six.code)), (-2, Some(SpaceCode::Filemarks)));
        let six: Space6Cdb = Cdb::new(&hex("11 01 7FFFFF 00")).unwrap().read();
        assert_eq!(six.count(), 0x7F_FFFF);
        let sixteen: Space16Cdb = Cdb::new(&hex("91 00 0000 FFFFFFFFFFFFFFFF 000000 00")).unwrap().read();
        assert_eq!((sixteen.count(), SpaceCode::from_code(sixteen.code)), (-1, Some(SpaceCode::Blocks)));
    }

    #[test]
    fn locate_16_tells_what_its_identifier_is() {
        let cdb: Locate16Cdb = Cdb::new(&hex("92 0A 00 01 0000000000000007 000000 00")).unwrap().read();
        assert_eq!((cdb.destination(), cdb.change_partition(), cdb.partition), (Some(LocateDestination::File), true, 1));
        assert_eq!(cdb.logical_identifier.get(), 7);
        let cdb: Locate16Cdb = Cdb::new(&hex("92 10 00 00 0000000000000007 000000 00")).unwrap().read();
        assert_eq!(cdb.destination(), None);
    }
}
