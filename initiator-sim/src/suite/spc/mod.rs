//! Commands that every device has. SPC-4.

mod inquiry;
pub(super) mod log_pages;
mod lun_invalid;
pub(super) mod mode_pages;
mod opcode_unknown;
mod opcodes_reported;
mod persistent_reservations;
mod report_luns;
mod request_sense;
mod reserved_bits;
pub(super) mod sense_format;
mod target_port_groups;
mod unit_attention;
pub(super) mod vpd_pages;

use super::Case;

/// All of them.
pub const CASES: &[&[Case]] = &[
    inquiry::CASES,
    vpd_pages::CASES,
    report_luns::CASES,
    lun_invalid::CASES,
    opcode_unknown::CASES,
    opcodes_reported::CASES,
    reserved_bits::CASES,
    request_sense::CASES,
    sense_format::CASES,
    unit_attention::CASES,
    mode_pages::CASES,
    log_pages::CASES,
    target_port_groups::CASES,
    persistent_reservations::CASES,
];
