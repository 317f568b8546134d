//! The command descriptor block, and the row that says all there is to say about a command.

use std::fmt;

use zerocopy::FromBytes;

use super::FieldPointer;

/// A command descriptor block of up to 32 bytes, as it came; bytes behind its end read as zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Cdb {
    /// Longest CDB taken: VARIABLE LENGTH (7Fh) commands of SBC-4 have 32 bytes.
    pub const MAX: usize = 32;

    /// `None` when longer than [`Cdb::MAX`].
    #[must_use]
    pub fn new(cdb: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..cdb.len())?.copy_from_slice(cdb);
        Some(Self { bytes, len: cdb.len() as u8 })
    }

    /// OPERATION CODE.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        self.bytes[0]
    }

    /// The first 16 bytes, as a BHS carries them.
    #[must_use]
    pub fn basic(&self) -> &[u8; 16] {
        self.bytes.first_chunk().expect("a CDB has 32 bytes of room")
    }

    /// The CDB as one of the structures that [`super::spc`] and its like have for their commands.
    #[must_use]
    pub fn read<T: FromBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= Self::MAX) };
        T::read_from_prefix(&self.bytes).expect("no CDB is longer than its room").0
    }

    /// All bytes that came.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// All bytes and the zeros behind them.
    #[must_use]
    pub const fn padded(&self) -> &[u8; Self::MAX] {
        &self.bytes
    }
}

impl fmt::Debug for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cdb({:02x?})", self.as_bytes())
    }
}

/// Which way a command's data goes, seen from the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataDirection {
    /// No data.
    None,
    /// Data-In: from the target.
    In,
    /// Data-Out: to the target.
    Out,
}

/// One row per SCSI command: drives dispatch, the reserved-bit check, REPORT SUPPORTED OPERATION CODES and the tests.
#[derive(Debug)]
pub struct CommandSpec {
    /// The standard's name.
    pub name: &'static str,
    /// OPERATION CODE.
    pub opcode: u8,
    /// SERVICE ACTION, where the operation code has them.
    pub service_action: Option<u16>,
    /// CDB usage data (SPC-4, REPORT SUPPORTED OPERATION CODES, one_command format): a set bit may be set by the initiator.
    /// Byte 0 is the operation code; its length is the CDB's.
    pub usage: &'static [u8],
    /// Which way data goes.
    pub data: DataDirection,
    /// Changes what is on the medium, or what may be read of it: refused where it is write protected, or only read by this nexus.
    pub writes: bool,
}

impl CommandSpec {
    /// The first bit of `cdb` that is set and that the usage data does not let be set, as a field pointer; `None` for a CDB
    /// without such a bit. Bits of SERVICE ACTION are not looked at: they have chosen the row.
    #[must_use]
    pub fn refused_bit(&self, cdb: &Cdb) -> Option<FieldPointer> {
        let bytes = cdb.padded().iter().zip(self.usage).enumerate().skip(1);
        bytes
            .map(|(byte, (sent, usage))| (byte, sent & !(usage | self.service_action_bits(byte))))
            .find(|(_, extra)| *extra != 0)
            .map(|(byte, extra)| FieldPointer::cdb_bit(byte as u16, 7 - extra.leading_zeros() as u8))
    }

    /// True for the command that `cdb` asks for.
    #[must_use]
    pub fn matches(&self, cdb: &Cdb) -> bool {
        self.opcode == cdb.opcode()
            && self.service_action.is_none_or(|action| action == u16::from(cdb.basic()[1] & SERVICE_ACTION))
    }

    const fn service_action_bits(&self, byte: usize) -> u8 {
        if byte == 1 && self.service_action.is_some() { SERVICE_ACTION } else { 0 }
    }
}

/// Where all commands served here have their SERVICE ACTION: bits 4 to 0 of byte 1.
const SERVICE_ACTION: u8 = 0x1F;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::{sbc, smc, spc, ssc};

    /// The length of a CDB follows from its operation code: SPC-4, "Operation code".
    #[test]
    fn every_usage_mask_begins_with_its_operation_code_and_has_the_length_of_its_group() {
        for row in [spc::COMMANDS, sbc::COMMANDS, ssc::COMMANDS, smc::COMMANDS].concat() {
            let length = match row.opcode >> 5 {
                0 => 6,
                1 | 2 => 10,
                5 => 12,
                _ => 16,
            };
            assert_eq!(row.usage.len(), length, "{}", row.name);
            assert_eq!(row.usage[0], row.opcode, "{}", row.name);
            if let Some(action) = row.service_action {
                assert_eq!(u16::from(row.usage[1] & SERVICE_ACTION), action, "{}", row.name);
            }
            assert!(row.data == DataDirection::Out || !row.writes || row.data == DataDirection::None, "{}", row.name);
        }
    }

    #[test]
    fn every_command_has_one_row() {
        for rows in [spc::COMMANDS, sbc::COMMANDS, ssc::COMMANDS, smc::COMMANDS] {
            for row in rows {
                let alike = |other: &&&CommandSpec| (other.opcode, other.service_action) == (row.opcode, row.service_action);
                assert_eq!(rows.iter().filter(alike).count(), 1, "{} has two rows", row.name);
            }
        }
    }

    const ROW: CommandSpec = CommandSpec {
        name: "READ CAPACITY(16)",
        opcode: 0x9E,
        service_action: Some(0x10),
        usage: &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        data: DataDirection::In,
        writes: false,
    };

    #[test]
    fn the_highest_refused_bit_is_named() {
        let mut cdb = [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0];
        assert_eq!(ROW.refused_bit(&Cdb::new(&cdb).unwrap()), None);
        cdb[15] = 0x06;
        assert_eq!(ROW.refused_bit(&Cdb::new(&cdb).unwrap()), Some(FieldPointer::cdb_bit(15, 2)));
        cdb[1] |= 0x40;
        assert_eq!(ROW.refused_bit(&Cdb::new(&cdb).unwrap()), Some(FieldPointer::cdb_bit(1, 6)));
    }

    #[test]
    fn another_service_action_is_another_command() {
        assert!(!ROW.matches(&Cdb::new(&[0x9E, 0x12]).unwrap()));
        assert!(ROW.matches(&Cdb::new(&[0x9E, 0x50]).unwrap()));
    }
}
