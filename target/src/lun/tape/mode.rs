//! Mode parameters: block length, buffered mode, and the pages that programs for tapes ask for. SSC-4, "Mode parameters".

use protocol::scsi::mode::{ModeHeader, ModePage, ModeSelection};
use protocol::scsi::{FieldPointer, Sense, SenseFormat};

use super::Tape;

/// What MODE SELECT changes.
#[derive(Debug)]
pub struct Settings {
    /// Bytes of a block in transfers with FIXED set; 0 until one is chosen.
    pub block_length: u32,
    /// BUFFERED MODE 1h: the status of a WRITE does not wait for the medium.
    pub buffered: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { block_length: 0, buffered: true }
    }
}

const CONTROL: u8 = 0x0A;
const DATA_COMPRESSION: u8 = 0x0F;
const DEVICE_CONFIGURATION: u8 = 0x10;

const WRITE_PROTECT: u8 = 0x80;
const D_SENSE: u8 = 0x04;
/// DENSITY CODE of MODE SELECT: the medium's own.
const DEFAULT_DENSITY: u8 = 0x00;
/// DENSITY CODE of MODE SELECT: as it is.
const NO_CHANGE: u8 = 0x7F;

/// WP, BUFFERED MODE and the block descriptor.
pub fn header(tape: &Tape) -> ModeHeader {
    let (write_protected, density) = {
        let shown = tape.shown();
        (shown.write_protected, shown.density)
    };
    let settings = tape.settings();
    let protect = if write_protected { WRITE_PROTECT } else { 0 };
    let [_, high, middle, low] = settings.block_length.to_be_bytes();
    ModeHeader {
        medium_type: 0,
        device_specific: protect | u8::from(settings.buffered) << 4,
        block_descriptor: vec![density, 0, 0, 0, 0, high, middle, low],
    }
}

/// Control, data compression (there is none) and device configuration.
pub fn pages(tape: &Tape) -> Vec<ModePage> {
    let descriptor = tape.common.sense_format() == SenseFormat::Descriptor;
    let mut control = ModePage::fixed(CONTROL, [0; 10]);
    control.changeable[0] = D_SENSE;
    control.current[0] = if descriptor { D_SENSE } else { 0 };
    vec![control, ModePage::fixed(DATA_COMPRESSION, [0; 14]), device_configuration()]
}

/// LOIS: logical object identifiers are served. SEW: data is synchronized when early warning is told.
fn device_configuration() -> ModePage {
    const LOIS: u8 = 0x40;
    const SEW: u8 = 0x08;
    let mut body = [0; 14];
    body[6] = LOIS;
    body[8] = SEW;
    ModePage::fixed(DEVICE_CONFIGURATION, body)
}

/// Takes what MODE SELECT sent.
///
/// # Errors
/// INVALID FIELD IN PARAMETER LIST for a buffered mode or a density that there is not. Then nothing has changed.
pub fn select(tape: &Tape, selection: &ModeSelection) -> Result<(), Sense> {
    let buffered = match selection.device_specific >> 4 & 0x07 {
        0 => false,
        1 => true,
        _ => return Err(invalid(selection.device_specific_at, 6)),
    };
    let density = tape.shown().density;
    let block_length = match &selection.block_descriptor {
        Some((descriptor, at)) => Some(block_length(descriptor, *at, density)?),
        None => None,
    };
    for page in selection.pages.iter().filter(|page| page.code == CONTROL) {
        let descriptor = page.body.first().is_some_and(|byte| byte & D_SENSE != 0);
        tape.common.set_sense_format(if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed });
    }
    let mut settings = tape.settings();
    settings.buffered = buffered;
    settings.block_length = block_length.unwrap_or(settings.block_length);
    Ok(())
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
