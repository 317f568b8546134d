//! Disks. SBC-4.

mod beyond_end;
mod capacity;
mod compare_and_write;
mod force_unit_access;
mod many_in_flight;
mod medium;
mod protect;
mod read_only;
mod read_write;
mod residuals;
mod synchronize_cache;
mod unmap;
mod verify;
mod write_same;
mod zero_blocks;

use protocol::units::Lba;

use super::Case;
use crate::client::cdb16;

/// All of them.
pub const CASES: &[&[Case]] = &[
    capacity::CASES,
    read_write::CASES,
    many_in_flight::CASES,
    beyond_end::CASES,
    zero_blocks::CASES,
    residuals::CASES,
    verify::CASES,
    write_same::CASES,
    unmap::CASES,
    compare_and_write::CASES,
    force_unit_access::CASES,
    protect::CASES,
    synchronize_cache::CASES,
    read_only::CASES,
    medium::CASES,
];

/// A command that READ, WRITE, VERIFY and WRITE AND VERIFY have in several lengths.
#[derive(Debug, Clone, Copy)]
struct Sized {
    name: &'static str,
    opcode: u8,
}

const READS: [Sized; 4] = [
    Sized { name: "READ(6)", opcode: 0x08 },
    Sized { name: "READ(10)", opcode: 0x28 },
    Sized { name: "READ(12)", opcode: 0xA8 },
    Sized { name: "READ(16)", opcode: 0x88 },
];

const WRITES: [Sized; 4] = [
    Sized { name: "WRITE(6)", opcode: 0x0A },
    Sized { name: "WRITE(10)", opcode: 0x2A },
    Sized { name: "WRITE(12)", opcode: 0xAA },
    Sized { name: "WRITE(16)", opcode: 0x8A },
];

const VERIFIES: [Sized; 3] = [
    Sized { name: "VERIFY(10)", opcode: 0x2F },
    Sized { name: "VERIFY(12)", opcode: 0xAF },
    Sized { name: "VERIFY(16)", opcode: 0x8F },
];

impl Sized {
    /// The CDB with address and count where this length has them; `None` where they do not fit.
    /// `flags` is byte 1, which the 6-byte commands do not have.
    fn cdb(self, flags: u8, lba: u64, blocks: u32) -> Option<Vec<u8>> {
        let short = u32::try_from(lba).ok().map(u32::to_be_bytes);
        Some(match self.opcode >> 5 {
            0 => {
                let [high, a, b, c] = short?;
                let fits = high == 0 && a <= 0x1F && flags == 0;
                let count = u8::try_from(blocks).ok()?;
                fits.then(|| vec![self.opcode, a, b, c, count, 0])?
            }
            1 => {
                let [a, b, c, d] = short?;
                let [high, low] = u16::try_from(blocks).ok()?.to_be_bytes();
                vec![self.opcode, flags, a, b, c, d, 0, high, low, 0]
            }
            5 => {
                let [a, b, c, d] = short?;
                let [e, f, g, h] = blocks.to_be_bytes();
                vec![self.opcode, flags, a, b, c, d, e, f, g, h, 0, 0]
            }
            _ => cdb16(self.opcode, flags, Lba(lba), blocks).to_vec(),
        })
    }
}
