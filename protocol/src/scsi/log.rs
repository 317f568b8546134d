//! Log pages: the frame and the parameters of LOG SENSE.
//!
//! What a parameter means is its device's business. Follows SPC-4, "Log parameters".

/// A log page with its header of four bytes; SPF is set for a subpage.
///
/// # Panics
/// When the parameters do not fit PAGE LENGTH: a device cuts them before, at PARAMETER POINTER.
#[must_use]
pub fn page(code: u8, subpage: u8, parameters: &[u8]) -> Vec<u8> {
    const DISABLE_SAVE: u8 = 0x80;
    const SPF: u8 = 0x40;
    let [high, low] = u16::try_from(parameters.len()).expect("a log page fits its length").to_be_bytes();
    let form = if subpage == 0 { 0 } else { SPF };
    [&[DISABLE_SAVE | form | code, subpage, high, low], parameters].concat()
}

/// One log parameter that is a binary list (FORMAT AND LINKING 11b): no counter, nothing to clear.
///
/// # Panics
/// When the value does not fit PARAMETER LENGTH.
#[must_use]
pub fn binary_parameter(code: u16, value: &[u8]) -> Vec<u8> {
    const BINARY_LIST: u8 = 0x03;
    let [high, low] = code.to_be_bytes();
    let length = u8::try_from(value.len()).expect("a log parameter fits its length");
    [&[high, low, BINARY_LIST, length], value].concat()
}

/// The body of page 00h: the codes of all pages; of 00h subpage FFh: code and subpage of each.
#[must_use]
pub fn supported(pages: &[(u8, u8)], with_subpages: bool) -> Vec<u8> {
    if with_subpages {
        return pages.iter().flat_map(|&(code, subpage)| [code, subpage]).collect();
    }
    let mut codes: Vec<u8> = pages.iter().map(|page| page.0).collect();
    codes.dedup();
    codes
}

/// Log page 2Fh, informational exceptions: nothing to report, no temperature known.
#[must_use]
pub fn informational_exceptions() -> Vec<u8> {
    const TEMPERATURE_UNKNOWN: u8 = 0xFF;
    binary_parameter(0, &[0, 0, TEMPERATURE_UNKNOWN, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    #[test]
    fn a_page_tells_its_length_and_a_subpage_its_code() {
        assert_eq!(page(0x2F, 0, &informational_exceptions()), hex("af 00 0008  0000 03 04 00 00 ff 00"));
        assert_eq!(page(0, 0xFF, &supported(&[(0, 0), (0, 0xFF), (0x2F, 0)], true)), hex("c0 ff 0006 0000 00ff 2f00"));
        assert_eq!(supported(&[(0, 0), (0, 0xFF), (0x2F, 0)], false), hex("00 2f"));
    }
}
