//! Mode parameters: block length, buffered mode, and the pages that programs for tapes ask for.
//!
//! What a page offers to be changed is what changes something here; all else is told as it is. Saved can be what is the drive's own:
//! not how the medium is to be divided, nor the protection of blocks, which a next host would not know of. Follows SSC-4, "Mode parameters", and SPC-4.

use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection, SelectedPage};
use protocol::scsi::sense::SENSE_LENGTH_MAX;
use protocol::scsi::{FieldPointer, Sense, SenseFormat};

use super::protection::Method;
use super::{Tape, density};
use crate::cartridge::metadata::MAX_PARTITIONS;

/// What MODE SELECT changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a block in transfers with FIXED set; 0 until one is chosen.
    pub block_length: u32,
    /// BUFFERED MODE 1h: the status of a WRITE does not wait for the medium.
    pub buffered: bool,
    /// DCE: records are compressed where that makes them shorter.
    pub compress: bool,
    /// SWP: a write-protection that ends with the load.
    pub software_write_protect: bool,
    /// WRITE MODE: nothing is overwritten unless ALLOW OVERWRITE was given.
    pub append_only: bool,
    /// PEWS: size of the programmable early-warning zone, in 10^6 bytes.
    pub programmable_early_warning: u16,
    /// The medium partition page, for the next FORMAT MEDIUM.
    pub partitioning: Partitioning,
    /// The control data protection page.
    pub protection: Protection,
}

/// What FORMAT MEDIUM is to divide the medium into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Partitioning {
    /// ADDITIONAL PARTITIONS DEFINED: 0 or 1.
    pub additional: u8,
    /// FDP, SDP or IDP, in their bits.
    pub how: u8,
    /// PSUM: 0 bytes, 1 10^3, 2 10^6, 3 10 to the power of PARTITION UNITS.
    pub unit: u8,
    /// PARTITION UNITS.
    pub units: u8,
    /// PARTITION SIZE of each.
    pub sizes: [u16; MAX_PARTITIONS],
}

/// Which protection information goes with logical blocks. SSC-4, "Logical block protection".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// LOGICAL BLOCK PROTECTION METHOD; `None` is 0.
    pub method: Option<Method>,
    /// LBP_W: of blocks that are written.
    pub write: bool,
    /// LBP_R: of blocks that are read.
    pub read: bool,
}

impl Settings {
    /// Bytes of the programmable early-warning zone.
    pub const fn zone(&self) -> u64 {
        self.programmable_early_warning as u64 * 1_000_000
    }

    /// The method that protects what is written.
    pub fn protects_writes(&self) -> Option<Method> {
        self.protection.method.filter(|_| self.protection.write)
    }

    /// The method that protects what is read.
    pub fn protects_reads(&self) -> Option<Method> {
        self.protection.method.filter(|_| self.protection.read)
    }

    /// What ends when another medium is loaded.
    pub const fn medium_changed(&mut self) {
        self.software_write_protect = false;
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            block_length: 0,
            buffered: true,
            compress: false,
            software_write_protect: false,
            append_only: false,
            programmable_early_warning: 0,
            partitioning: Partitioning::default(),
            protection: Protection::default(),
        }
    }
}

const ERROR_RECOVERY: u8 = 0x01;
const DISCONNECT_RECONNECT: u8 = 0x02;
const CONTROL: u8 = 0x0A;
const DATA_COMPRESSION: u8 = 0x0F;
const DEVICE_CONFIGURATION: u8 = 0x10;
const MEDIUM_PARTITION: u8 = 0x11;
const POWER_CONDITION: u8 = 0x1A;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x1C;
const MEDIUM_CONFIGURATION: u8 = 0x1D;
const EXTENSION: u8 = 0x01;
const DATA_PROTECTION: u8 = 0xF0;

const WRITE_PROTECT: u8 = 0x80;
const D_SENSE: u8 = 0x04;
const DCE: u8 = 0x80;
const SWP: u8 = 0x04;
const FDP_SDP_IDP: u8 = 0xE0;
/// DENSITY CODE of MODE SELECT: the medium's own.
const DEFAULT_DENSITY: u8 = 0x00;
/// DENSITY CODE of MODE SELECT: as it is.
const NO_CHANGE: u8 = 0x7F;

/// MEDIUM TYPE, WP, BUFFERED MODE and the block descriptor.
pub fn header(tape: &Tape) -> ModeHeader {
    let (write_protected, code, medium_type) = {
        let shown = tape.shown();
        let medium_type = if shown.status.loaded { density::medium_type(shown.density, shown.worm) } else { 0 };
        (shown.write_protected, shown.density, medium_type)
    };
    let settings = tape.settings();
    let protect = if write_protected || settings.software_write_protect { WRITE_PROTECT } else { 0 };
    let [_, high, middle, low] = settings.block_length.to_be_bytes();
    ModeHeader {
        medium_type,
        device_specific: protect | u8::from(settings.buffered) << 4,
        block_descriptor: vec![code, 0, 0, 0, 0, high, middle, low],
    }
}

/// All pages, ascending.
pub fn pages(tape: &Tape) -> Vec<ModePage> {
    let descriptor = tape.common.sense_format() == SenseFormat::Descriptor;
    let (partition, sizes, worm) = {
        let shown = tape.shown();
        (shown.partition, shown.partitions.clone(), shown.worm)
    };
    let settings = *tape.settings();
    let default = Settings::default();
    let page = |code, subpage, body: &dyn Fn(&Settings) -> Vec<u8>, changeable: Vec<u8>| {
        let changeable = if changeable.is_empty() { vec![0; body(&default).len()] } else { changeable };
        let savable =
            [(DATA_COMPRESSION, 0), (DEVICE_CONFIGURATION, 0), (DEVICE_CONFIGURATION, EXTENSION)].contains(&(code, subpage));
        ModePage { code, subpage, current: body(&settings), default: body(&default), changeable, savable }
    };
    let mut control = ModePage::fixed(CONTROL, [0; 10]);
    control.changeable[0] = D_SENSE;
    control.savable = true;
    control.current[0] = if descriptor { D_SENSE } else { 0 };
    vec![
        ModePage::fixed(ERROR_RECOVERY, [0; 10]),
        ModePage::fixed(DISCONNECT_RECONNECT, [0; 14]),
        control,
        ModePage { subpage: EXTENSION, ..ModePage::fixed(CONTROL, control_extension()) },
        page(CONTROL, DATA_PROTECTION, &data_protection, field(28, &[(0, 0xFF), (1, 0x3F), (2, 0xC0)])),
        page(DATA_COMPRESSION, 0, &data_compression, field(14, &[(0, DCE), (5, 0xFF)])),
        page(DEVICE_CONFIGURATION, 0, &|settings| device_configuration(settings, partition), field(14, &[(8, SWP), (12, 0x01)])),
        page(DEVICE_CONFIGURATION, EXTENSION, &device_configuration_extension, field(28, &[(1, 0xF0), (2, 0xFF), (3, 0xFF)])),
        medium_partition(&settings, &sizes),
        ModePage::fixed(POWER_CONDITION, [0; 38]),
        ModePage::fixed(INFORMATIONAL_EXCEPTIONS, informational_exceptions()),
        ModePage::fixed(MEDIUM_CONFIGURATION, medium_configuration(worm)),
    ]
}

/// A mask of changeable bits: bytes of the body that are not all zero.
fn field(length: usize, bytes: &[(usize, u8)]) -> Vec<u8> {
    let mut mask = vec![0; length];
    bytes.iter().for_each(|(at, bits)| mask[*at] = *bits);
    mask
}

/// MAXIMUM SENSE DATA LENGTH, and nothing else.
fn control_extension() -> Vec<u8> {
    field(28, &[(2, SENSE_LENGTH_MAX as u8)])
}

/// LOGICAL BLOCK PROTECTION METHOD, its length, LBP_W and LBP_R.
fn data_protection(settings: &Settings) -> Vec<u8> {
    let protection = &settings.protection;
    let method = protection.method.map_or((0, 0), |method| (method.code(), Method::LENGTH));
    field(28, &[(0, method.0), (1, method.1), (2, u8::from(protection.write) << 7 | u8::from(protection.read) << 6)])
}

/// DCC and DDE: records are decompressed always. The algorithm has no number that anybody assigned; there is but one, so that another
/// that is asked for (Linux's st clears the field with DCE) changes nothing.
fn data_compression(settings: &Settings) -> Vec<u8> {
    const DCC: u8 = 0x40;
    const DDE: u8 = 0x80;
    const UNREGISTERED: u8 = 0xFF;
    let enabled = if settings.compress { DCE } else { 0 };
    field(14, &[(0, enabled | DCC), (1, DDE), (5, UNREGISTERED), (9, UNREGISTERED)])
}

/// LOIS: logical object identifiers are served. EEG: an end of data is there after every write. SEW: data is synchronized when early
/// warning is told. SELECT DATA COMPRESSION ALGORITHM is DCE by another name.
fn device_configuration(settings: &Settings, partition: u8) -> Vec<u8> {
    const LOIS: u8 = 0x40;
    const EEG: u8 = 0x10;
    const SEW: u8 = 0x08;
    let protect = if settings.software_write_protect { SWP } else { 0 };
    field(14, &[(1, partition), (6, LOIS), (8, EEG | SEW | protect), (12, u8::from(settings.compress))])
}

/// WRITE MODE, PEWS; SHORT ERASE MODE 2h: ERASE records an end of data at the position.
fn device_configuration_extension(settings: &Settings) -> Vec<u8> {
    const RECORD_END_OF_DATA: u8 = 0x02;
    let [high, low] = settings.programmable_early_warning.to_be_bytes();
    field(28, &[(1, u8::from(settings.append_only) << 4 | RECORD_END_OF_DATA), (2, high), (3, low)])
}

const PAGE_11_DEFINED: usize = 1;
const PAGE_11_FLAGS: usize = 2;
const PAGE_11_UNITS: usize = 4;
const PAGE_11_SIZES: usize = 6;
/// POFM: FORMAT MEDIUM divides the medium, not MODE SELECT.
const POFM: u8 = 0x04;
const PSUM: u8 = 0x18;

/// What is on the medium, in 10^9 bytes; sizes below one are in 10^6.
fn medium_partition(settings: &Settings, sizes: &[u64]) -> ModePage {
    let chosen = settings.partitioning;
    let total: u64 = sizes.iter().sum();
    let (units, unit) = if total >= 100_000_000_000 { (9, 1_000_000_000) } else { (6, 1_000_000) };
    let size = |n: usize| u16::try_from(sizes.get(n).map_or(0, |size| size.div_ceil(unit))).unwrap_or(u16::MAX);
    let on_medium =
        Partitioning { additional: sizes.len().saturating_sub(1) as u8, how: 0, unit: 3, units, sizes: [size(0), size(1)] };
    let default = medium_partition_body(on_medium);
    let current = medium_partition_body(if chosen == Partitioning::default() { on_medium } else { chosen });
    let mask = [0, 0xFF, FDP_SDP_IDP | PSUM, 0, 0x0F, 0, 0xFF, 0xFF, 0xFF, 0xFF];
    ModePage { code: MEDIUM_PARTITION, subpage: 0, current, default, changeable: mask.to_vec(), savable: false }
}

fn medium_partition_body(partitioning: Partitioning) -> Vec<u8> {
    const FORMAT_AND_PARTITIONS_RECOGNIZED: u8 = 3;
    let Partitioning { additional, how, unit, units, sizes: [first, second] } = partitioning;
    let [[a, b], [c, d]] = [first.to_be_bytes(), second.to_be_bytes()];
    let flags = how | unit << 3 | POFM;
    vec![MAX_PARTITIONS as u8 - 1, additional, flags, FORMAT_AND_PARTITIONS_RECOGNIZED, units, 0, a, b, c, d]
}

/// DEXCPT: exceptions are told by TapeAlert alone.
fn informational_exceptions() -> Vec<u8> {
    const DEXCPT: u8 = 0x08;
    field(10, &[(0, DEXCPT)])
}

/// WORMM, and what WORM media let be overwritten: no labels; filemarks that end the data, but the first of them.
fn medium_configuration(worm: bool) -> Vec<u8> {
    const FILEMARKS_BUT_THE_FIRST: u8 = 0x02;
    if worm { field(30, &[(0, 0x01), (3, FILEMARKS_BUT_THE_FIRST)]) } else { vec![0; 30] }
}

/// Takes what MODE SELECT sent.
///
/// # Errors
/// INVALID FIELD IN PARAMETER LIST for what there is not: a buffered mode, a density, a method of protection, a third partition. Then
/// nothing has changed.
pub fn select(tape: &Tape, selection: &ModeSelection) -> Result<(), Sense> {
    let (density, worm) = {
        let shown = tape.shown();
        (shown.density, shown.worm)
    };
    let before = *tape.settings();
    let mut settings = before;
    settings.buffered = match selection.device_specific >> 4 & 0x07 {
        0 => false,
        1 => true,
        _ => return Err(invalid(selection.device_specific_at, 6)),
    };
    if let Some((descriptor, at)) = &selection.block_descriptor {
        settings.block_length = block_length(descriptor, *at, density)?;
    }
    let mut descriptor_sense = None;
    for page in &selection.pages {
        match (page.code, page.subpage) {
            (CONTROL, 0) => descriptor_sense = page.body.first().map(|byte| byte & D_SENSE != 0),
            _ => take(&mut settings, &before, page, worm)?,
        }
    }
    if let Some(descriptor) = descriptor_sense {
        tape.common.set_sense_format(if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed });
    }
    *tape.settings() = settings;
    Ok(())
}

/// Takes one page; its length has been compared with that of the page it changes.
fn take(settings: &mut Settings, before: &Settings, page: &SelectedPage, worm: bool) -> Result<(), Sense> {
    let body = page.body.as_slice();
    match (page.code, page.subpage) {
        (CONTROL, DATA_PROTECTION) => settings.protection = protection(page)?,
        (DATA_COMPRESSION, 0) if (body[0] & DCE != 0) != before.compress => settings.compress = !before.compress,
        (DEVICE_CONFIGURATION, 0) => {
            // Two names of one switch: the one that was turned counts.
            let compress = body[12] & 0x01 != 0;
            if compress != before.compress {
                settings.compress = compress;
            }
            settings.software_write_protect = body[8] & SWP != 0;
        }
        (DEVICE_CONFIGURATION, EXTENSION) => {
            settings.append_only = match body[1] >> 4 {
                // A WORM medium cannot be made one that is overwritten.
                0 if !worm => false,
                0 | 1 => true,
                _ => return Err(invalid(page.body_at + 1, 7)),
            };
            settings.programmable_early_warning = u16::from_be_bytes([body[2], body[3]]);
        }
        (MEDIUM_PARTITION, 0) => settings.partitioning = partitioning(page)?,
        _ => {}
    }
    Ok(())
}

fn protection(page: &SelectedPage) -> Result<Protection, Sense> {
    let [code, length, flags, ..] = *page.body.as_slice() else { return Err(Sense::PARAMETER_LIST_LENGTH_ERROR) };
    if code == 0 {
        return Ok(Protection::default());
    }
    let method = Method::from_code(code).ok_or(invalid(page.body_at, 7))?;
    if length != Method::LENGTH {
        return Err(invalid(page.body_at + 1, 5));
    }
    Ok(Protection { method: Some(method), write: flags & 0x80 != 0, read: flags & 0x40 != 0 })
}

fn partitioning(page: &SelectedPage) -> Result<Partitioning, Sense> {
    let body = page.body.as_slice();
    let (additional, flags) = (body[PAGE_11_DEFINED], body[PAGE_11_FLAGS]);
    if usize::from(additional) >= MAX_PARTITIONS {
        return Err(invalid(page.body_at + PAGE_11_DEFINED as u16, 7));
    }
    let how = flags & FDP_SDP_IDP;
    if how.count_ones() > 1 {
        return Err(invalid(page.body_at + PAGE_11_FLAGS as u16, 7));
    }
    let size = |n: usize| u16::from_be_bytes([body[PAGE_11_SIZES + 2 * n], body[PAGE_11_SIZES + 2 * n + 1]]);
    let unit = (flags & PSUM) >> 3;
    Ok(Partitioning { additional, how, unit, units: body[PAGE_11_UNITS] & 0x0F, sizes: [size(0), size(1)] })
}

impl Partitioning {
    /// Bytes of each partition on a medium of so many; one that is all ones takes what the other leaves.
    ///
    /// # Errors
    /// PARAMETER VALUE INVALID for sizes that the medium has not.
    pub fn sizes(&self, total: u64) -> Result<Vec<u64>, Sense> {
        const SELECTED: u8 = 0x40;
        const INITIATOR_DEFINED: u8 = 0x20;
        /// Of the first partition where the drive chooses: as LTO has it, two wraps of many.
        const SMALL_PART: u64 = 40;
        const REST: u16 = u16::MAX;
        if self.additional == 0 {
            return Ok(vec![total]);
        }
        if self.how != INITIATOR_DEFINED {
            let small = total / SMALL_PART;
            // Fixed partitions: the second is the small one. Selected ones: two alike.
            return Ok(if self.how == SELECTED { vec![total - total / 2, total / 2] } else { vec![total - small, small] });
        }
        let exponent = if self.unit == 3 { self.units } else { self.unit * 3 };
        let bytes = |size: u16| u64::from(size).checked_mul(10_u64.checked_pow(exponent.into())?);
        let rest = |size: u16| bytes(size).filter(|size| *size > 0).and_then(|size| total.checked_sub(size));
        let sizes = match self.sizes {
            [REST, second] if second != REST => rest(second).map(|first| [first, total - first]),
            [first, REST] if first != REST => rest(first).map(|second| [total - second, second]),
            [first, second] => bytes(first).zip(bytes(second)).map(|(first, second)| [first, second]),
        };
        let fits = |sizes: &[u64; MAX_PARTITIONS]| {
            sizes.iter().all(|size| *size > 0) && sizes[0].checked_add(sizes[1]).is_some_and(|sum| sum <= total)
        };
        sizes.filter(fits).map(Vec::from).ok_or(Sense::PARAMETER_VALUE_INVALID)
    }
}

fn block_length(descriptor: &[u8], at: u16, density: u8) -> Result<u32, Sense> {
    let &[code, _, _, _, _, high, middle, low] = descriptor else { return Err(Sense::PARAMETER_LIST_LENGTH_ERROR) };
    if ![DEFAULT_DENSITY, NO_CHANGE, density].contains(&code) {
        return Err(invalid(at, 7));
    }
    Ok(u32::from_be_bytes([0, high, middle, low]))
}

fn invalid(byte: u16, bit: u8) -> Sense {
    Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::Parameter { byte, bit: Some(bit) })
}
