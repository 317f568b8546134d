//! Mode parameters: header, block descriptor, pages; written for MODE SENSE and read, with every check, from MODE SELECT.
//!
//! Which pages a device has and what their bits do is the device's business. Follows SPC-4, "Mode parameters".

use super::{FieldPointer, Sense};

/// One mode page in the three forms that MODE SENSE can ask for. The bodies are without the page's header of two bytes
/// (four for a subpage) and of the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModePage {
    /// PAGE CODE.
    pub code: u8,
    /// SUBPAGE CODE; zero for a page without (SPF clear).
    pub subpage: u8,
    /// What holds now.
    pub current: Vec<u8>,
    /// What holds after power on.
    pub default: Vec<u8>,
    /// A set bit may be changed by MODE SELECT.
    pub changeable: Vec<u8>,
    /// PS: MODE SELECT can make the current values outlive a power loss.
    pub savable: bool,
}

/// PC: which form of the pages is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PageControl {
    Current,
    Changeable,
    Default,
    Saved,
}

impl PageControl {
    /// From the two bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0x03 {
            0 => Self::Current,
            1 => Self::Changeable,
            2 => Self::Default,
            _ => Self::Saved,
        }
    }
}

/// PAGE CODE of all pages.
pub const ALL_PAGES: u8 = 0x3F;
/// SUBPAGE CODE of all subpages.
pub const ALL_SUBPAGES: u8 = 0xFF;

impl ModePage {
    /// A page of which nothing can be changed.
    #[must_use]
    pub fn fixed(code: u8, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { code, subpage: 0, default: body.clone(), changeable: vec![0; body.len()], current: body, savable: false }
    }

    /// True when MODE SENSE with these codes wants this page.
    #[must_use]
    pub const fn asked_for(&self, code: u8, subpage: u8) -> bool {
        let page = code == ALL_PAGES || code == self.code;
        page && (subpage == ALL_SUBPAGES || subpage == self.subpage)
    }

    /// Header and `body`, which is one of the page's forms.
    fn emit(&self, body: &[u8], into: &mut Vec<u8>) {
        let length = u16::try_from(body.len()).expect("a mode page is short");
        let [high, low] = length.to_be_bytes();
        let saved = if self.savable { PS } else { 0 };
        match self.subpage {
            0 => into.extend([saved | self.code, low]),
            subpage => into.extend([saved | SPF | self.code, subpage, high, low]),
        }
        into.extend(body);
    }

    const fn header_length(&self) -> usize {
        if self.subpage == 0 { 2 } else { 4 }
    }
}

/// PS: the page can be saved. Reserved in what MODE SELECT sends.
const PS: u8 = 0x80;
/// SPF: the page has the header of a subpage.
const SPF: u8 = 0x40;

/// What stands before the pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModeHeader {
    /// MEDIUM TYPE.
    pub medium_type: u8,
    /// DEVICE-SPECIFIC PARAMETER: WP and DPOFUA of a disk; WP, BUFFERED MODE and SPEED of a tape.
    pub device_specific: u8,
    /// The block descriptor: none, one of eight bytes, or (LONGLBA) one of sixteen.
    pub block_descriptor: Vec<u8>,
}

/// Which of the two commands: they differ in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeForm {
    /// MODE SENSE(6) and MODE SELECT(6): a header of four bytes.
    Six,
    /// MODE SENSE(10) and MODE SELECT(10): a header of eight bytes.
    Ten,
}

impl ModeForm {
    const fn header_length(self) -> usize {
        match self {
            Self::Six => 4,
            Self::Ten => 8,
        }
    }
}

/// The parameter data of MODE SENSE, each page with the form of it that is asked for. MODE DATA LENGTH tells the whole, whatever of
/// it the initiator takes.
#[must_use]
pub fn emit<'a>(form: ModeForm, header: &ModeHeader, pages: impl IntoIterator<Item = (&'a ModePage, Vec<u8>)>) -> Vec<u8> {
    let descriptor = &header.block_descriptor;
    let mut data = vec![0; form.header_length()];
    data.extend(descriptor);
    pages.into_iter().for_each(|(page, body)| page.emit(&body, &mut data));
    match form {
        ModeForm::Six => {
            data[0] = u8::try_from(data.len() - 1).unwrap_or(u8::MAX);
            data[1..4].copy_from_slice(&[header.medium_type, header.device_specific, descriptor.len() as u8]);
        }
        ModeForm::Ten => {
            let [high, low] = u16::try_from(data.len() - 2).unwrap_or(u16::MAX).to_be_bytes();
            let long_lba = u8::from(descriptor.len() == LONG_DESCRIPTOR);
            data[..5].copy_from_slice(&[high, low, header.medium_type, header.device_specific, long_lba]);
            data[7] = descriptor.len() as u8;
        }
    }
    data
}

/// Bytes of a block descriptor of 32-bit and of 64-bit block counts.
const SHORT_DESCRIPTOR: usize = 8;
const LONG_DESCRIPTOR: usize = 16;

/// What MODE SELECT sent, checked against the device's pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeSelection {
    /// MEDIUM TYPE.
    pub medium_type: u8,
    /// DEVICE-SPECIFIC PARAMETER, and the byte of the parameter list it stands at.
    pub device_specific: u8,
    /// Byte of the parameter list at which DEVICE-SPECIFIC PARAMETER stands.
    pub device_specific_at: u16,
    /// The block descriptor and the byte of the parameter list at which it begins.
    pub block_descriptor: Option<(Vec<u8>, u16)>,
    /// The pages in the order in which they came.
    pub pages: Vec<SelectedPage>,
}

/// One page that MODE SELECT sent; only changeable bits differ from what held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedPage {
    /// PAGE CODE.
    pub code: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// As in [`ModePage::current`].
    pub body: Vec<u8>,
    /// Byte of the parameter list at which the body begins.
    pub body_at: u16,
}

impl ModeSelection {
    /// Reads the parameter list of a MODE SELECT.
    ///
    /// # Errors
    /// PARAMETER LIST LENGTH ERROR for a list that ends inside header, descriptor or page; INVALID FIELD IN PARAMETER LIST, with the
    /// byte, for a page the device has not, of another length, or with another value in a bit that is not changeable.
    pub fn parse(form: ModeForm, list: &[u8], pages: &[ModePage]) -> Result<Self, Sense> {
        let (header, rest) = list.split_at_checked(form.header_length()).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let (medium_type, device_specific, long_lba, descriptor_length) = match (form, header) {
            (ModeForm::Six, [_, medium, specific, length]) => (*medium, *specific, 0, usize::from(*length)),
            (ModeForm::Ten, [_, _, medium, specific, long, _, high, low]) => {
                (*medium, *specific, long & 1, usize::from(u16::from_be_bytes([*high, *low])))
            }
            _ => return Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
        };
        let wanted = if long_lba == 0 { SHORT_DESCRIPTOR } else { LONG_DESCRIPTOR };
        if descriptor_length != 0 && descriptor_length != wanted {
            return Err(invalid(form.header_length() - 1 - usize::from(form == ModeForm::Ten)));
        }
        let (descriptor, rest) = rest.split_at_checked(descriptor_length).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let descriptor_at = form.header_length();
        Ok(Self {
            medium_type,
            device_specific,
            device_specific_at: if form == ModeForm::Six { 2 } else { 3 },
            block_descriptor: (!descriptor.is_empty()).then(|| (descriptor.to_vec(), descriptor_at as u16)),
            pages: selected(rest, descriptor_at + descriptor_length, pages)?,
        })
    }
}

fn selected(mut rest: &[u8], mut at: usize, pages: &[ModePage]) -> Result<Vec<SelectedPage>, Sense> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (first, second) = (rest[0], *rest.get(1).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?);
        let (code, subpage) = (first & 0x3F, if first & SPF == 0 { 0 } else { second });
        let page = pages.iter().find(|page| (page.code, page.subpage) == (code, subpage)).ok_or(invalid(at))?;
        let header = page.header_length();
        let length = match (page.subpage, rest) {
            (0, _) => usize::from(second),
            (_, [_, _, high, low, ..]) => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
        };
        if length != page.current.len() {
            return Err(invalid(at + if page.subpage == 0 { 1 } else { 2 }));
        }
        let body = rest.get(header..header + length).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        if let Some((byte, bit)) = refused_change(body, page) {
            let byte = (at + header + byte) as u16;
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::Parameter { byte, bit: Some(bit) }));
        }
        found.push(SelectedPage { code, subpage, body: body.to_vec(), body_at: (at + header) as u16 });
        rest = &rest[header + length..];
        at += header + length;
    }
    Ok(found)
}

/// The first bit that would change and may not.
fn refused_change(body: &[u8], page: &ModePage) -> Option<(usize, u8)> {
    let bytes = body.iter().zip(&page.current).zip(&page.changeable).enumerate();
    bytes
        .map(|(byte, ((new, old), changeable))| (byte, (new ^ old) & !changeable))
        .find(|(_, refused)| *refused != 0)
        .map(|(byte, refused)| (byte, 7 - refused.leading_zeros() as u8))
}

fn invalid(byte: usize) -> Sense {
    Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(byte as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;
    use proptest::prelude::*;

    fn caching() -> ModePage {
        let mut page = ModePage::fixed(0x08, [0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        page.changeable[0] = 0x04;
        page
    }

    #[test]
    fn a_page_with_its_header_reads_and_writes_the_same_bytes() {
        let header = ModeHeader { medium_type: 0, device_specific: 0x10, block_descriptor: hex("00000800 00 000200") };
        let golden = hex("1f 00 10 08  00000800 00 000200  08 12 04 0000000000000000000000000000000000");
        assert_eq!(emit(ModeForm::Six, &header, [(&caching(), caching().current)]), golden);
        let selection = ModeSelection::parse(ModeForm::Six, &golden, &[caching()]).unwrap();
        assert_eq!(selection.device_specific, 0x10);
        assert_eq!(selection.block_descriptor, Some((hex("00000800 00 000200"), 4)));
        assert_eq!(selection.pages, [SelectedPage { code: 8, subpage: 0, body: caching().current, body_at: 14 }]);
    }

    #[test]
    fn ten_byte_headers_tell_long_descriptors() {
        let header = ModeHeader { medium_type: 0, device_specific: 0x90, block_descriptor: vec![0; 16] };
        let data = emit(ModeForm::Ten, &header, [(&ModePage { savable: true, ..caching() }, caching().changeable)]);
        assert_eq!(data[..8], hex("002a 00 90 01 00 0010")[..]);
        assert_eq!(data[24..27], [0x88, 0x12, 0x04], "with PS");
    }

    #[test]
    fn a_bit_that_may_not_change_is_named() {
        let list = hex("00000000 08 12 04 0000000000000000000000400000000000");
        let refused = ModeSelection::parse(ModeForm::Six, &list, &[caching()]);
        let field = FieldPointer::Parameter { byte: 18, bit: Some(6) };
        assert_eq!(refused, Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(field)));
    }

    #[test]
    fn a_list_that_ends_too_early_is_a_length_error() {
        for length in 1..24 {
            let list = &hex("00000000 08 12 04 0000000000000000000000000000000000")[..length];
            if length != 4 {
                assert_eq!(
                    ModeSelection::parse(ModeForm::Six, list, &[caching()]),
                    Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
                    "{length}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lists_never_panic(list in proptest::collection::vec(any::<u8>(), 0..80)) {
            let subpage = ModePage { subpage: 1, ..ModePage::fixed(0x0A, [0; 4]) };
            for form in [ModeForm::Six, ModeForm::Ten] {
                let _ = ModeSelection::parse(form, &list, &[caching(), subpage.clone()]);
            }
        }
    }
}
