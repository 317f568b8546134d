//! Commands of direct access block devices: a row for each, the layout of its CDB, and what its data looks like.
//!
//! Protection information is not served: RDPROTECT, WRPROTECT, VRPROTECT and ORPROTECT are kept out of the masks and so refused with
//! a pointer to their bits, as is ANCHOR. GROUP NUMBER is taken and has no effect: it only says under which heading to count.
//! Nothing is executed here. Follows SBC-4.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Cdb, CommandSpec, DataDirection, FieldPointer, Sense};
use crate::units::{BlockCount, BlockLength, Lba};
use crate::wire::{U16, U32, U64};

const fn reads(name: &'static str, usage: &'static [u8]) -> CommandSpec {
    CommandSpec { name, opcode: usage[0], service_action: None, usage, data: DataDirection::In, writes: false }
}

const fn writes(name: &'static str, usage: &'static [u8]) -> CommandSpec {
    CommandSpec { name, opcode: usage[0], service_action: None, usage, data: DataDirection::Out, writes: true }
}

/// Data-Out that is only compared.
const fn compares(name: &'static str, usage: &'static [u8]) -> CommandSpec {
    CommandSpec { writes: false, ..writes(name, usage) }
}

const fn moves_nothing(name: &'static str, usage: &'static [u8]) -> CommandSpec {
    CommandSpec { data: DataDirection::None, ..reads(name, usage) }
}

const fn action(name: &'static str, usage: &'static [u8]) -> CommandSpec {
    CommandSpec { service_action: Some((usage[1] & 0x1F) as u16), ..reads(name, usage) }
}

/// All rows of this module.
#[rustfmt::skip]
pub const COMMANDS: &[&CommandSpec] = &[
    &READ_6, &WRITE_6, &READ_CAPACITY_10, &READ_10, &WRITE_10, &WRITE_AND_VERIFY_10, &VERIFY_10, &PRE_FETCH_10,
    &SYNCHRONIZE_CACHE_10, &WRITE_SAME_10, &UNMAP, &READ_16, &COMPARE_AND_WRITE, &WRITE_16, &ORWRITE_16, &WRITE_AND_VERIFY_16,
    &VERIFY_16, &PRE_FETCH_16, &SYNCHRONIZE_CACHE_16, &WRITE_SAME_16, &READ_CAPACITY_16, &GET_LBA_STATUS, &READ_12, &WRITE_12,
    &WRITE_AND_VERIFY_12, &VERIFY_12, &READ_DEFECT_DATA_10, &READ_DEFECT_DATA_12, &SANITIZE_OVERWRITE, &SANITIZE_BLOCK_ERASE,
    &SANITIZE_EXIT_FAILURE_MODE, &WRITE_ATOMIC_16, &POPULATE_TOKEN, &WRITE_USING_TOKEN, &RECEIVE_ROD_TOKEN_INFORMATION,
    &REPORT_ALL_ROD_TOKENS,
];

/// DPO and FUA.
const DPO_FUA: u8 = 0x18;
/// DPO and BYTCHK.
const DPO_BYTCHK: u8 = 0x16;
const IMMED: u8 = 0x02;
/// GROUP NUMBER.
const GROUP: u8 = 0x3F;

/// READ(6).
pub const READ_6: CommandSpec = reads("READ(6)", &[0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0]);
/// WRITE(6).
pub const WRITE_6: CommandSpec = writes("WRITE(6)", &[0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0]);
/// READ CAPACITY(10).
pub const READ_CAPACITY_10: CommandSpec = reads("READ CAPACITY(10)", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
/// READ(10).
pub const READ_10: CommandSpec = reads("READ(10)", &[0x28, DPO_FUA, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, 0]);
/// WRITE(10).
pub const WRITE_10: CommandSpec = writes("WRITE(10)", &[0x2A, DPO_FUA, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, 0]);
/// WRITE AND VERIFY(10).
pub const WRITE_AND_VERIFY_10: CommandSpec =
    writes("WRITE AND VERIFY(10)", &[0x2E, DPO_BYTCHK, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, 0]);
/// VERIFY(10).
pub const VERIFY_10: CommandSpec = compares("VERIFY(10)", &[0x2F, DPO_BYTCHK, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, 0]);
/// PRE-FETCH(10).
pub const PRE_FETCH_10: CommandSpec =
    moves_nothing("PRE-FETCH(10)", &[0x34, IMMED, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, 0]);
/// SYNCHRONIZE CACHE(10).
pub const SYNCHRONIZE_CACHE_10: CommandSpec =
    moves_nothing("SYNCHRONIZE CACHE(10)", &[0x35, IMMED, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, 0]);
/// WRITE SAME(10): UNMAP.
pub const WRITE_SAME_10: CommandSpec = writes("WRITE SAME(10)", &[0x41, 0x08, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, 0]);
/// UNMAP.
pub const UNMAP: CommandSpec = writes("UNMAP", &[0x42, 0, 0, 0, 0, 0, GROUP, 0xFF, 0xFF, 0]);

/// READ(16).
pub const READ_16: CommandSpec = reads("READ(16)", &blocks_16(0x88, DPO_FUA));
/// COMPARE AND WRITE.
pub const COMPARE_AND_WRITE: CommandSpec =
    writes("COMPARE AND WRITE", &[0x89, DPO_FUA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0xFF, GROUP, 0]);
/// WRITE(16).
pub const WRITE_16: CommandSpec = writes("WRITE(16)", &blocks_16(0x8A, DPO_FUA));
/// ORWRITE(16).
pub const ORWRITE_16: CommandSpec = writes("ORWRITE(16)", &blocks_16(0x8B, DPO_FUA));
/// WRITE AND VERIFY(16).
pub const WRITE_AND_VERIFY_16: CommandSpec = writes("WRITE AND VERIFY(16)", &blocks_16(0x8E, DPO_BYTCHK));
/// VERIFY(16).
pub const VERIFY_16: CommandSpec = compares("VERIFY(16)", &blocks_16(0x8F, DPO_BYTCHK));
/// PRE-FETCH(16).
pub const PRE_FETCH_16: CommandSpec = moves_nothing("PRE-FETCH(16)", &blocks_16(0x90, IMMED));
/// SYNCHRONIZE CACHE(16).
pub const SYNCHRONIZE_CACHE_16: CommandSpec = moves_nothing("SYNCHRONIZE CACHE(16)", &blocks_16(0x91, IMMED));
/// WRITE SAME(16): UNMAP and NDOB.
pub const WRITE_SAME_16: CommandSpec = writes("WRITE SAME(16)", &blocks_16(0x93, 0x09));
/// READ CAPACITY(16).
pub const READ_CAPACITY_16: CommandSpec =
    action("READ CAPACITY(16)", &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
/// GET LBA STATUS(16).
pub const GET_LBA_STATUS: CommandSpec =
    action("GET LBA STATUS(16)", &[0x9E, 0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
/// READ(12).
pub const READ_12: CommandSpec = reads("READ(12)", &blocks_12(0xA8, DPO_FUA));
/// WRITE(12).
pub const WRITE_12: CommandSpec = writes("WRITE(12)", &blocks_12(0xAA, DPO_FUA));
/// WRITE AND VERIFY(12).
pub const WRITE_AND_VERIFY_12: CommandSpec = writes("WRITE AND VERIFY(12)", &blocks_12(0xAE, DPO_BYTCHK));
/// VERIFY(12).
pub const VERIFY_12: CommandSpec = compares("VERIFY(12)", &blocks_12(0xAF, DPO_BYTCHK));

/// READ DEFECT DATA(10): REQ_PLIST, REQ_GLIST, DEFECT LIST FORMAT.
pub const READ_DEFECT_DATA_10: CommandSpec = reads("READ DEFECT DATA(10)", &[0x37, 0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0]);
/// READ DEFECT DATA(12): REQ_PLIST, REQ_GLIST, DEFECT LIST FORMAT; ADDRESS DESCRIPTOR INDEX.
pub const READ_DEFECT_DATA_12: CommandSpec =
    reads("READ DEFECT DATA(12)", &[0xB7, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
/// SANITIZE, OVERWRITE: IMMED, AUSE.
pub const SANITIZE_OVERWRITE: CommandSpec =
    CommandSpec { data: DataDirection::Out, writes: true, ..action("SANITIZE, OVERWRITE", &sanitize(0x01, IMMED_AUSE)) };
/// SANITIZE, BLOCK ERASE: IMMED, AUSE.
pub const SANITIZE_BLOCK_ERASE: CommandSpec =
    CommandSpec { data: DataDirection::None, writes: true, ..action("SANITIZE, BLOCK ERASE", &sanitize(0x02, IMMED_AUSE)) };
/// SANITIZE, EXIT FAILURE MODE: IMMED. What half a sanitize operation has left is opened to readers: nothing for those who only read.
pub const SANITIZE_EXIT_FAILURE_MODE: CommandSpec =
    CommandSpec { data: DataDirection::None, writes: true, ..action("SANITIZE, EXIT FAILURE MODE", &sanitize(0x1F, 0x80)) };
/// WRITE ATOMIC(16). Without ATOMIC BOUNDARY: a write is atomic as a whole.
pub const WRITE_ATOMIC_16: CommandSpec =
    writes("WRITE ATOMIC(16)", &[0x9C, DPO_FUA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, GROUP, 0]);

/// LIST IDENTIFIER, PARAMETER LIST LENGTH and GROUP NUMBER.
const fn token_command(service_action: u8) -> [u8; 16] {
    [0x83, service_action, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0]
}

/// POPULATE TOKEN.
pub const POPULATE_TOKEN: CommandSpec =
    CommandSpec { data: DataDirection::Out, ..action("POPULATE TOKEN", &token_command(0x10)) };
/// WRITE USING TOKEN. What keeps a disk from being written its copy manager asks for too.
pub const WRITE_USING_TOKEN: CommandSpec =
    CommandSpec { data: DataDirection::Out, writes: true, ..action("WRITE USING TOKEN", &token_command(0x11)) };
/// RECEIVE ROD TOKEN INFORMATION. SPC-4.
pub const RECEIVE_ROD_TOKEN_INFORMATION: CommandSpec =
    action("RECEIVE ROD TOKEN INFORMATION", &[0x84, 0x07, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
/// REPORT ALL ROD TOKENS. SPC-4.
pub const REPORT_ALL_ROD_TOKENS: CommandSpec =
    action("REPORT ALL ROD TOKENS", &[0x84, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);

const IMMED_AUSE: u8 = 0xA0;

const fn sanitize(action: u8, flags: u8) -> [u8; 10] {
    [0x48, flags | action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]
}

const fn blocks_12(opcode: u8, flags: u8) -> [u8; 12] {
    [opcode, flags, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0]
}

const fn blocks_16(opcode: u8, flags: u8) -> [u8; 16] {
    [opcode, flags, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0]
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Blocks10Cdb {
    opcode: u8,
    flags: u8,
    logical_block_address: U32,
    group_number: u8,
    transfer_length: U16,
    control: u8,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Blocks12Cdb {
    opcode: u8,
    flags: u8,
    logical_block_address: U32,
    transfer_length: U32,
    group_number: u8,
    control: u8,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Blocks16Cdb {
    opcode: u8,
    flags: u8,
    logical_block_address: U64,
    transfer_length: U32,
    group_number: u8,
    control: u8,
}

/// COMPARE AND WRITE.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CompareAndWriteCdb {
    opcode: u8,
    flags: u8,
    logical_block_address: U64,
    reserved: [u8; 3],
    number_of_logical_blocks: u8,
    group_number: u8,
    control: u8,
}

/// READ CAPACITY(16) and GET LBA STATUS(16).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ServiceActionIn16Cdb {
    opcode: u8,
    service_action: u8,
    /// STARTING LOGICAL BLOCK ADDRESS of GET LBA STATUS.
    pub logical_block_address: U64,
    /// In bytes.
    pub allocation_length: U32,
    reserved: u8,
    control: u8,
}

/// WRITE ATOMIC(16).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WriteAtomicCdb {
    opcode: u8,
    flags: u8,
    logical_block_address: U64,
    atomic_boundary: U16,
    transfer_length: U16,
    group_number: u8,
    control: u8,
}

/// SANITIZE.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SanitizeCdb {
    opcode: u8,
    flags: u8,
    reserved: [u8; 5],
    /// In bytes.
    pub parameter_list_length: U16,
    control: u8,
}

impl SanitizeCdb {
    /// IMMED: the status comes when the operation has begun.
    #[must_use]
    pub const fn immediate(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// AUSE: should it fail, EXIT FAILURE MODE may end the failure mode.
    #[must_use]
    pub const fn unrestricted_exit(&self) -> bool {
        self.flags & 0x20 != 0
    }
}

/// Parameter list of SANITIZE, OVERWRITE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverwriteList {
    /// INVERT: every second pass writes the pattern with all bits turned round.
    pub invert: bool,
    /// OVERWRITE COUNT, 1 to 31.
    pub count: u8,
    /// INITIALIZATION PATTERN: each block begins with it anew.
    pub pattern: Vec<u8>,
}

impl OverwriteList {
    /// Reads the list, which is as long as PARAMETER LIST LENGTH says.
    ///
    /// # Errors
    /// INVALID FIELD IN PARAMETER LIST for a count of zero, and a pattern that is empty or not as long as it says.
    pub fn parse(list: &[u8]) -> Result<Self, Sense> {
        let invalid = |byte: u16| Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(byte));
        let [flags, reserved, high, low, pattern @ ..] = list else { return Err(Sense::PARAMETER_LIST_LENGTH_ERROR) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match flags & 0x1F {
            // TEST is vendor specific.
            _ if flags & 0x60 != 0 => Err(invalid(0)),
            0 => Err(invalid(0)),
            _ if *reserved != 0 => Err(invalid(1)),
            _ if length == 0 || length != pattern.len() => Err(invalid(2)),
            count => Ok(Self { invert: flags & 0x80 != 0, count, pattern: pattern.to_vec() }),
        }
    }
}

/// UNMAP.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UnmapCdb {
    opcode: u8,
    flags: u8,
    reserved: [u8; 4],
    group_number: u8,
    /// In bytes.
    pub parameter_list_length: U16,
    control: u8,
}

const _: () = {
    assert!(size_of::<Blocks10Cdb>() == 10 && size_of::<Blocks12Cdb>() == 12 && size_of::<Blocks16Cdb>() == 16);
    assert!(size_of::<WriteAtomicCdb>() == 16 && size_of::<SanitizeCdb>() == 10);
    assert!(size_of::<CompareAndWriteCdb>() == 16 && size_of::<ServiceActionIn16Cdb>() == 16 && size_of::<UnmapCdb>() == 10);
};

/// Which blocks a command is about, whatever the length of its CDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// LOGICAL BLOCK ADDRESS.
    pub lba: Lba,
    /// TRANSFER LENGTH, VERIFICATION LENGTH or NUMBER OF LOGICAL BLOCKS.
    pub blocks: BlockCount,
    /// Byte 1 of the CDB; zero for CDBs of six bytes.
    flags: u8,
    /// Byte of the CDB at which the count begins.
    pub count_at: u16,
}

impl Extent {
    /// Reads a command that addresses blocks: any row of this module but UNMAP and the service actions.
    #[must_use]
    pub fn of(cdb: &Cdb) -> Self {
        if cdb.opcode() == COMPARE_AND_WRITE.opcode {
            let cdb: CompareAndWriteCdb = cdb.read();
            return Self::new(cdb.logical_block_address.get(), cdb.number_of_logical_blocks.into(), cdb.flags, 13);
        }
        if cdb.opcode() == WRITE_ATOMIC_16.opcode {
            let cdb: WriteAtomicCdb = cdb.read();
            return Self::new(cdb.logical_block_address.get(), cdb.transfer_length.get().into(), cdb.flags, 12);
        }
        match cdb.opcode() >> 5 {
            0 => Self::of_six(cdb.basic()),
            1 | 2 => {
                let cdb: Blocks10Cdb = cdb.read();
                Self::new(cdb.logical_block_address.get().into(), cdb.transfer_length.get().into(), cdb.flags, 7)
            }
            5 => {
                let cdb: Blocks12Cdb = cdb.read();
                Self::new(cdb.logical_block_address.get().into(), cdb.transfer_length.get().into(), cdb.flags, 6)
            }
            _ => {
                let cdb: Blocks16Cdb = cdb.read();
                Self::new(cdb.logical_block_address.get(), cdb.transfer_length.get().into(), cdb.flags, 10)
            }
        }
    }

    /// Twenty-one bits of address; a length of zero means 256 blocks.
    fn of_six(cdb: &[u8; 16]) -> Self {
        let lba = u32::from_be_bytes([0, cdb[1] & 0x1F, cdb[2], cdb[3]]);
        let blocks = if cdb[4] == 0 { 256 } else { cdb[4].into() };
        Self::new(lba.into(), blocks, 0, 4)
    }

    const fn new(lba: u64, blocks: u64, flags: u8, count_at: u16) -> Self {
        Self { lba: Lba(lba), blocks: BlockCount(blocks), flags, count_at }
    }

    /// FUA: the blocks are on the medium before the status is sent.
    #[must_use]
    pub const fn force_unit_access(&self) -> bool {
        self.flags & 0x08 != 0
    }

    /// BYTCHK of the commands that verify.
    #[must_use]
    pub const fn byte_check(&self) -> u8 {
        self.flags >> 1 & 0x03
    }

    /// UNMAP of WRITE SAME.
    #[must_use]
    pub const fn unmap(&self) -> bool {
        self.flags & 0x08 != 0
    }

    /// NDOB of WRITE SAME(16): zeros are written, and no block is sent.
    #[must_use]
    pub const fn no_data_out_buffer(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// A pointer to the count.
    #[must_use]
    pub const fn count_field(&self) -> FieldPointer {
        FieldPointer::cdb(self.count_at)
    }
}

/// READ CAPACITY(10) parameter data: the last address, or FFFFFFFFh where it needs READ CAPACITY(16).
#[must_use]
pub fn read_capacity_10(last: Lba, block_length: BlockLength) -> [u8; 8] {
    let mut data = [0; 8];
    data[..4].copy_from_slice(&u32::try_from(last.0).unwrap_or(u32::MAX).to_be_bytes());
    data[4..].copy_from_slice(&block_length.0.to_be_bytes());
    data
}

/// READ CAPACITY(16) parameter data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadCapacity16 {
    /// RETURNED LOGICAL BLOCK ADDRESS: the last block.
    pub last: Lba,
    /// LOGICAL BLOCK LENGTH.
    pub block_length: BlockLength,
    /// A physical block has 2 to this power logical blocks.
    pub physical_exponent: u8,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS.
    pub lowest_aligned: u16,
    /// Thin-provisioned, and unmapped blocks read as zeros (LBPME, LBPRZ).
    pub thin: bool,
}

impl ReadCapacity16 {
    /// The 32 bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; 32] {
        const LBPME_LBPRZ: u8 = 0xC0;
        let mut data = [0; 32];
        data[..8].copy_from_slice(&self.last.0.to_be_bytes());
        data[8..12].copy_from_slice(&self.block_length.0.to_be_bytes());
        data[13] = self.physical_exponent & 0x0F;
        let [high, low] = self.lowest_aligned.to_be_bytes();
        data[14] = high & 0x3F | if self.thin { LBPME_LBPRZ } else { 0 };
        data[15] = low;
        data
    }
}

/// The ranges of an UNMAP parameter list and the byte at which each descriptor begins.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for less than the header; INVALID FIELD IN PARAMETER LIST for a length that goes beyond the list,
/// for more than `descriptors_max` descriptors, and for more than `blocks_max` blocks in all.
pub fn unmap_ranges(list: &[u8], descriptors_max: usize, blocks_max: u64) -> Result<Vec<(Lba, BlockCount, u16)>, Sense> {
    const HEADER: usize = 8;
    const DESCRIPTOR: usize = 16;
    let invalid = |byte: usize| Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(byte as u16));
    let Some(([_, _, high, low, ..], descriptors)) = list.split_at_checked(HEADER) else {
        return Err(Sense::PARAMETER_LIST_LENGTH_ERROR);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let descriptors = descriptors.get(..length).ok_or_else(|| invalid(2))?;
    // A descriptor that is not whole is ignored: SBC-4, "UNMAP parameter list".
    let ranges = descriptors.chunks_exact(DESCRIPTOR).enumerate();
    if ranges.len() > descriptors_max {
        return Err(invalid(2));
    }
    let mut found = Vec::with_capacity(ranges.len());
    let mut blocks_left = blocks_max;
    for (index, descriptor) in ranges {
        let at = HEADER + index * DESCRIPTOR;
        let (lba, rest) = descriptor.split_first_chunk().expect("sixteen bytes");
        let blocks = u64::from(u32::from_be_bytes(*rest.first_chunk().expect("eight bytes")));
        blocks_left = blocks_left.checked_sub(blocks).ok_or_else(|| invalid(at + 8))?;
        found.push((Lba(u64::from_be_bytes(*lba)), BlockCount(blocks), at as u16));
    }
    Ok(found)
}

/// One LBA status descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LbaStatus {
    /// First block.
    pub lba: Lba,
    /// Blocks; what does not fit 32 bits is cut.
    pub blocks: BlockCount,
    /// PROVISIONING STATUS: true for mapped (0h), false for deallocated (1h).
    pub mapped: bool,
}

/// READ DEFECT DATA parameter data of a device without a defect: both lists asked for are there, and empty.
#[must_use]
pub fn read_defect_data(cdb: &Cdb) -> Vec<u8> {
    let (flags, header) = if cdb.opcode() == READ_DEFECT_DATA_10.opcode { (cdb.basic()[2], 4) } else { (cdb.basic()[1], 8) };
    let mut data = vec![0; header];
    // REQ_PLIST and REQ_GLIST become PLISTV and GLISTV; the format is the one asked for.
    data[1] = flags & 0x1F;
    data
}

/// GET LBA STATUS parameter data.
#[must_use]
pub fn get_lba_status(descriptors: &[LbaStatus]) -> Vec<u8> {
    let mut data = vec![0; 8];
    for status in descriptors {
        data.extend(status.lba.0.to_be_bytes());
        data.extend(u32::try_from(status.blocks.0).unwrap_or(u32::MAX).to_be_bytes());
        data.extend([u8::from(!status.mapped), 0, 0, 0]);
    }
    let length = u32::try_from(data.len() - 4).expect("a list of bounded length");
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

/// VPD page B0h, block limits, without its header. Zero means "not reported" in all but the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockLimits {
    /// WSNZ: WRITE SAME of zero blocks is refused.
    pub write_same_non_zero: bool,
    /// MAXIMUM COMPARE AND WRITE LENGTH, in blocks.
    pub compare_and_write_max: u8,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY, in blocks.
    pub transfer_granularity: u16,
    /// MAXIMUM TRANSFER LENGTH, in blocks.
    pub transfer_max: u32,
    /// OPTIMAL TRANSFER LENGTH, in blocks.
    pub transfer_optimal: u32,
    /// MAXIMUM PREFETCH LENGTH, in blocks.
    pub prefetch_max: u32,
    /// MAXIMUM UNMAP LBA COUNT.
    pub unmap_blocks_max: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
    pub unmap_descriptors_max: u32,
    /// OPTIMAL UNMAP GRANULARITY, in blocks.
    pub unmap_granularity: u32,
    /// UNMAP GRANULARITY ALIGNMENT: the first block to which the granularity applies.
    pub unmap_alignment: u32,
    /// MAXIMUM WRITE SAME LENGTH, in blocks.
    pub write_same_max: u64,
    /// MAXIMUM ATOMIC TRANSFER LENGTH, in blocks; any alignment and number.
    pub atomic_max: u32,
}

impl BlockLimits {
    /// As the page has it.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        const UGAVALID: u32 = 1 << 31;
        let mut page = vec![u8::from(self.write_same_non_zero), self.compare_and_write_max];
        page.extend(self.transfer_granularity.to_be_bytes());
        page.extend(self.transfer_max.to_be_bytes());
        page.extend(self.transfer_optimal.to_be_bytes());
        page.extend(self.prefetch_max.to_be_bytes());
        page.extend(self.unmap_blocks_max.to_be_bytes());
        page.extend(self.unmap_descriptors_max.to_be_bytes());
        page.extend(self.unmap_granularity.to_be_bytes());
        page.extend(if self.unmap_granularity == 0 { 0 } else { UGAVALID | self.unmap_alignment }.to_be_bytes());
        page.extend(self.write_same_max.to_be_bytes());
        page.extend(self.atomic_max.to_be_bytes());
        page.resize(0x3C, 0);
        page
    }
}

/// VPD page B1h, block device characteristics, of a device that does not rotate, and whose blocks can be read after SANITIZE, BLOCK
/// ERASE (WABEREQ 01b), where that is served.
#[must_use]
pub fn block_device_characteristics(sanitizes: bool) -> Vec<u8> {
    const NON_ROTATING: [u8; 2] = [0, 1];
    const WABEREQ: u8 = 0x40;
    let mut page = NON_ROTATING.to_vec();
    page.resize(0x3C, 0);
    page[3] = if sanitizes { WABEREQ } else { 0 };
    page
}

/// VPD page B2h, logical block provisioning: thin, by UNMAP and both forms of WRITE SAME, reading as zeros; or fully provisioned. Zero
/// as `threshold_exponent` where there are no thresholds.
#[must_use]
pub fn logical_block_provisioning(thin: bool, threshold_exponent: u8) -> Vec<u8> {
    const LBPU_LBPWS_LBPWS10: u8 = 0xE0;
    const LBPRZ: u8 = 0x04;
    const THIN: u8 = 0x02;
    if thin { vec![threshold_exponent, LBPU_LBPWS_LBPWS10 | LBPRZ, THIN, 0] } else { vec![0, 0, 0, 0] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;
    use proptest::prelude::*;

    #[test]
    fn the_same_extent_is_read_from_every_length_of_cdb() {
        for (text, count_at) in [
            ("08 01 0203 04 00", 4),
            ("28 00 00010203 00 0004 00", 7),
            ("a8 00 00010203 00000004 00 00", 6),
            ("88 00 0000000000010203 00000004 00 00", 10),
            ("89 00 0000000000010203 000000 04 00 00", 13),
            ("9c 00 0000000000010203 0000 0004 00 00", 12),
        ] {
            let extent = Extent::of(&Cdb::new(&hex(text)).unwrap());
            assert_eq!((extent.lba, extent.blocks, extent.count_at), (Lba(0x1_0203), BlockCount(4), count_at), "{text}");
        }
        assert_eq!(Extent::of(&Cdb::new(&hex("0a 00 0000 00 00")).unwrap()).blocks, BlockCount(256));
    }

    #[test]
    fn an_overwrite_list_is_checked() {
        let list = OverwriteList::parse(&hex("83 00 0002 aa55")).unwrap();
        assert_eq!(list, OverwriteList { invert: true, count: 3, pattern: vec![0xAA, 0x55] });
        let refused = |text: &str| OverwriteList::parse(&hex(text)).unwrap_err().field;
        assert_eq!(refused("80 00 0001 aa"), Some(FieldPointer::parameter(0)), "no pass");
        assert_eq!(refused("21 00 0001 aa"), Some(FieldPointer::parameter(0)), "a test");
        assert_eq!(refused("01 00 0000"), Some(FieldPointer::parameter(2)));
        assert_eq!(refused("01 00 0002 aa"), Some(FieldPointer::parameter(2)));
    }

    #[test]
    fn an_unmap_list_gives_ranges_and_ignores_a_torn_descriptor() {
        let list = hex("0026 0020 00000000  0000000000000010 00000008 00000000  0000000000000040 00000001 00000000  0000");
        let ranges = unmap_ranges(&list, 2, 9).unwrap();
        assert_eq!(ranges, [(Lba(0x10), BlockCount(8), 8), (Lba(0x40), BlockCount(1), 24)]);
        let too_many = Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(2));
        assert_eq!(unmap_ranges(&list, 1, 9), Err(too_many));
        let too_long = Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(32));
        assert_eq!(unmap_ranges(&list, 2, 8), Err(too_long));
        assert_eq!(unmap_ranges(&list[..7], 2, 9), Err(Sense::PARAMETER_LIST_LENGTH_ERROR));
    }

    #[test]
    fn capacity_beyond_32_bits_is_told_by_the_long_form() {
        assert_eq!(read_capacity_10(Lba(1 << 32), BlockLength::B512), *hex("ffffffff 00000200").first_chunk().unwrap());
        let long = ReadCapacity16 {
            last: Lba(1 << 32),
            block_length: BlockLength::B512,
            physical_exponent: 3,
            lowest_aligned: 0x107,
            thin: true,
        };
        assert_eq!(long.emit()[..16], hex("0000000100000000 00000200 00 03 c1 07")[..]);
    }

    #[test]
    fn lba_status_counts_the_bytes_that_follow() {
        let data = get_lba_status(&[LbaStatus { lba: Lba(8), blocks: BlockCount(16), mapped: false }]);
        assert_eq!(data, hex("00000014 00000000  0000000000000008 00000010 01 000000"));
    }

    proptest! {
        #[test]
        fn arbitrary_unmap_lists_never_panic(list in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unmap_ranges(&list, 16, 1 << 20);
        }
    }
}
