//! What commands of media changers carry: element status pages, volume tags, and the mode pages that tell what there is.
//!
//! Knows no cartridge and no drive: elements are handed in, in the order of their addresses. What an initiator got is read here as
//! well, with nothing trusted. Follows SMC-3, "READ ELEMENT STATUS", "SEND VOLUME TAG" and "Mode parameters"; SMC-2 where it is
//! silent on volume identification templates.

use super::designator::Designator;
use super::inquiry::ascii;
use super::mode::ModePage;
use super::smc::ElementType;
use crate::wire::{Problem, U24, WireError};

/// Bytes of the element status data header, and of a page's.
pub const HEADER_LENGTH: usize = 8;
/// Bytes of volume tag information.
pub const VOLUME_TAG_LENGTH: usize = 36;
/// Characters of a volume identifier.
pub const VOLUME_IDENTIFIER_LENGTH: usize = 32;
/// Bytes of a descriptor in front of the volume tag.
const DESCRIPTOR_HEAD: usize = 12;
/// CODE SET, IDENTIFIER TYPE, a reserved byte and IDENTIFIER LENGTH, which every descriptor has.
const IDENTIFIER_HEAD: usize = 4;

const PVOLTAG: u8 = 0x80;
const AVOLTAG: u8 = 0x40;
const SVALID: u8 = 0x80;
const ED: u8 = 0x08;

/// MEDIUM TYPE of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum MediumType {
    /// Nothing is in the element, or nobody knows what.
    #[default]
    Unspecified = 0,
    /// Data medium.
    Data = 1,
    /// Cleaning medium.
    Cleaning = 2,
    /// WORM medium.
    Worm = 4,
}

impl MediumType {
    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Data,
            2 => Self::Cleaning,
            4 => Self::Worm,
            _ => Self::Unspecified,
        }
    }
}

/// One element, as READ ELEMENT STATUS tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// ELEMENT ADDRESS.
    pub address: u16,
    /// What kind of element it is.
    pub kind: ElementType,
    /// FULL.
    pub full: bool,
    /// IMPEXP: an operator put the medium in. Import/export elements only.
    pub by_operator: bool,
    /// ACCESS: the medium transport element reaches it.
    pub accessible: bool,
    /// INENAB and EXENAB: what the element is for, also while it cannot be reached. Import/export elements only.
    pub import_enabled: bool,
    /// See [`Element::import_enabled`].
    pub export_enabled: bool,
    /// ED: the element is there in the configuration only.
    pub disabled: bool,
    /// EXCEPT with ADDITIONAL SENSE CODE and QUALIFIER.
    pub exception: Option<(u8, u8)>,
    /// MEDIUM TYPE.
    pub medium_type: MediumType,
    /// SOURCE STORAGE ELEMENT ADDRESS, with SVALID: where the medium was before it came here.
    pub source: Option<u16>,
    /// Primary volume tag; `None` for an undefined one.
    pub volume_tag: Option<String>,
    /// What DVCID tells: the name of the drive in a data transfer element.
    pub device: Option<Designator>,
}

impl Element {
    /// An empty one that the transport reaches.
    #[must_use]
    pub const fn empty(address: u16, kind: ElementType) -> Self {
        Self {
            address,
            kind,
            full: false,
            by_operator: false,
            accessible: true,
            import_enabled: matches!(kind, ElementType::ImportExport),
            export_enabled: matches!(kind, ElementType::ImportExport),
            disabled: false,
            exception: None,
            medium_type: MediumType::Unspecified,
            source: None,
            volume_tag: None,
            device: None,
        }
    }

    /// Byte 2 of the descriptor. The transport element has no ACCESS, and only import/export elements have the upper bits.
    fn flags(&self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let common = bit(self.full, FULL) | bit(self.exception.is_some(), EXCEPT);
        match self.kind {
            ElementType::MediumTransport => common,
            ElementType::Storage | ElementType::DataTransfer => common | bit(self.accessible, ACCESS),
            ElementType::ImportExport => {
                common
                    | bit(self.accessible, ACCESS)
                    | bit(self.by_operator, IMPEXP)
                    | bit(self.import_enabled, INENAB)
                    | bit(self.export_enabled, EXENAB)
            }
        }
    }

    fn emit(&self, form: DescriptorForm, into: &mut Vec<u8>) {
        let (asc, ascq) = self.exception.unwrap_or_default();
        into.extend(self.address.to_be_bytes());
        into.extend([self.flags(), 0, asc, ascq, 0, 0, 0]);
        let (source, disabled) = (if self.source.is_some() { SVALID } else { 0 }, if self.disabled { ED } else { 0 });
        into.push(source | disabled | self.medium_type as u8);
        into.extend(self.source.unwrap_or_default().to_be_bytes());
        if form.volume_tags {
            into.extend(volume_tag(self.volume_tag.as_deref()));
        }
        match self.device.as_ref().filter(|_| form.device_identifiers) {
            // CODE SET and IDENTIFIER TYPE are those of a designation descriptor; the rest of its first two bytes is reserved here.
            Some(device) => {
                into.extend([device.code_set as u8, device.kind as u8, 0, device.bytes.len() as u8]);
                into.extend(&device.bytes);
            }
            None => into.extend([0; IDENTIFIER_HEAD]),
        }
    }

    fn descriptor_length(&self, form: DescriptorForm) -> usize {
        let tag = if form.volume_tags { VOLUME_TAG_LENGTH } else { 0 };
        let device = self.device.as_ref().filter(|_| form.device_identifiers).map_or(0, |device| device.bytes.len());
        DESCRIPTOR_HEAD + tag + IDENTIFIER_HEAD + device
    }
}

const FULL: u8 = 0x01;
const IMPEXP: u8 = 0x02;
const EXCEPT: u8 = 0x04;
const ACCESS: u8 = 0x08;
const EXENAB: u8 = 0x10;
const INENAB: u8 = 0x20;

/// Volume tag information: the identifier with spaces behind it and VOLUME SEQUENCE NUMBER zero; all zeros where none is defined.
fn volume_tag(identifier: Option<&str>) -> [u8; VOLUME_TAG_LENGTH] {
    let mut tag = [0; VOLUME_TAG_LENGTH];
    if let Some(identifier) = identifier {
        tag[..VOLUME_IDENTIFIER_LENGTH].copy_from_slice(&ascii::<VOLUME_IDENTIFIER_LENGTH>(identifier));
    }
    tag
}

/// What descriptors have in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DescriptorForm {
    /// VOLTAG.
    pub volume_tags: bool,
    /// DVCID.
    pub device_identifiers: bool,
}

/// Element status data: a header, and a page for each run of elements of one type and one descriptor length.
///
/// The counts in the headers tell of all `elements`; of the descriptors only those go out that are whole within
/// `allocation_length` bytes. SMC-3, "READ ELEMENT STATUS", ALLOCATION LENGTH field.
#[must_use]
pub fn element_status(elements: &[Element], form: DescriptorForm, allocation_length: usize) -> Vec<u8> {
    let pages = || elements.chunk_by(|a, b| a.kind == b.kind && a.descriptor_length(form) == b.descriptor_length(form));
    let report: usize = pages().map(|page| HEADER_LENGTH + page.len() * page[0].descriptor_length(form)).sum();
    let mut data = status_header(elements, 0, report);
    for page in pages() {
        let length = page[0].descriptor_length(form);
        if data.len() + HEADER_LENGTH + length > allocation_length {
            break;
        }
        let [high, low] = (length as u16).to_be_bytes();
        let tags = if form.volume_tags { PVOLTAG } else { 0 };
        data.extend([page[0].kind as u8, tags, high, low, 0]);
        data.extend(count24(page.len() * length));
        let whole = (allocation_length - data.len()) / length;
        page.iter().take(whole).for_each(|element| element.emit(form, &mut data));
        if whole < page.len() {
            break;
        }
    }
    data.truncate(allocation_length);
    data
}

/// As [`element_status`], for REQUEST VOLUME ELEMENT ADDRESS: the header tells which SEND ACTION CODE it answers.
#[must_use]
pub fn volume_element_addresses(elements: &[Element], form: DescriptorForm, action: u8, allocation_length: usize) -> Vec<u8> {
    let mut data = element_status(elements, form, allocation_length);
    if let Some(byte) = data.get_mut(4) {
        *byte = action;
    }
    data
}

fn status_header(elements: &[Element], byte_4: u8, report: usize) -> Vec<u8> {
    let first = elements.first().map_or(0, |element| element.address);
    let mut header = first.to_be_bytes().to_vec();
    header.extend((elements.len() as u16).to_be_bytes());
    header.push(byte_4);
    header.extend(count24(report));
    header
}

/// A changer has at most 65,536 elements, and a descriptor is at most 307 bytes: more than 24 bits only where each drive's name is
/// 255 bytes; then the count says as much as it can.
fn count24(count: usize) -> [u8; 3] {
    let [_, a, b, c] = u32::try_from(count).unwrap_or(U24::MAX).min(U24::MAX).to_be_bytes();
    [a, b, c]
}

/// Element status data as an initiator got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementReport {
    /// FIRST ELEMENT ADDRESS REPORTED.
    pub first: u16,
    /// NUMBER OF ELEMENTS AVAILABLE: those asked for, whether they fitted or not.
    pub available: u16,
    /// BYTE COUNT OF REPORT AVAILABLE: bytes behind the header, whether they fitted or not.
    pub byte_count: u32,
    /// The descriptors that came.
    pub elements: Vec<Element>,
}

const STRUCTURE: &str = "element status data";

impl ElementReport {
    /// Reads element status data that may have been cut at an allocation length.
    ///
    /// # Errors
    /// For a page of a reserved element type, and for descriptors shorter than their own fields.
    pub fn parse(data: &[u8]) -> Result<Self, WireError> {
        let short = WireError::new(STRUCTURE, data.len(), Problem::Truncated { needed: HEADER_LENGTH, available: data.len() });
        let (header, mut rest) = data.split_first_chunk::<HEADER_LENGTH>().ok_or(short)?;
        let [f0, f1, n0, n1, _, c0, c1, c2] = *header;
        let mut elements = Vec::new();
        while let Some((page, behind)) = rest.split_first_chunk::<HEADER_LENGTH>() {
            let at = data.len() - rest.len();
            let [code, tags, l0, l1, _, b0, b1, b2] = *page;
            let Ok(Some(kind)) = ElementType::from_code(code) else {
                return Err(value(at, "ELEMENT TYPE CODE", code.into()));
            };
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let tag_count = usize::from(tags & PVOLTAG != 0) + usize::from(tags & AVOLTAG != 0);
            if length < DESCRIPTOR_HEAD + tag_count * VOLUME_TAG_LENGTH {
                return Err(value(at + 2, "ELEMENT DESCRIPTOR LENGTH", length as u64));
            }
            let (descriptors, next) = behind.split_at(behind.len().min(U24([b0, b1, b2]).get() as usize));
            elements.extend(descriptors.chunks_exact(length).map(|descriptor| parse_element(kind, tags, descriptor)));
            rest = next;
        }
        Ok(Self {
            first: u16::from_be_bytes([f0, f1]),
            available: u16::from_be_bytes([n0, n1]),
            byte_count: U24([c0, c1, c2]).get(),
            elements,
        })
    }
}

fn value(at: usize, field: &'static str, value: u64) -> WireError {
    WireError::new(STRUCTURE, at, Problem::Value { field, value })
}

/// `descriptor` is as long as its fixed fields and tags.
fn parse_element(kind: ElementType, tags: u8, descriptor: &[u8]) -> Element {
    let flags = descriptor[2];
    let bit = |bit: u8| flags & bit != 0;
    let import_export = kind == ElementType::ImportExport;
    let mut behind = &descriptor[DESCRIPTOR_HEAD..];
    let mut volume_tag = None;
    if tags & PVOLTAG != 0 {
        volume_tag = identifier(&behind[..VOLUME_IDENTIFIER_LENGTH]);
        behind = &behind[VOLUME_TAG_LENGTH..];
    }
    if tags & AVOLTAG != 0 {
        behind = &behind[VOLUME_TAG_LENGTH..];
    }
    Element {
        address: u16::from_be_bytes([descriptor[0], descriptor[1]]),
        kind,
        full: bit(FULL),
        by_operator: import_export && bit(IMPEXP),
        accessible: kind == ElementType::MediumTransport || bit(ACCESS),
        import_enabled: import_export && bit(INENAB),
        export_enabled: import_export && bit(EXENAB),
        disabled: descriptor[9] & ED != 0,
        exception: bit(EXCEPT).then_some((descriptor[4], descriptor[5])),
        medium_type: MediumType::from_code(descriptor[9] & 0x07),
        source: (descriptor[9] & SVALID != 0).then(|| u16::from_be_bytes([descriptor[10], descriptor[11]])),
        volume_tag,
        device: Designator::parse(behind).filter(|device| !device.bytes.is_empty()),
    }
}

/// The identifier without what pads it; `None` where there is nothing else.
fn identifier(field: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(field);
    let text = text.trim_end_matches(['\0', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// The parameter list of SEND VOLUME TAG: which volume identifiers are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTemplate {
    /// VOLUME IDENTIFICATION TEMPLATE without what pads it: `?` stands for one character, `*` for any number of them.
    pub identifier: Vec<u8>,
    /// MINIMUM VOLUME SEQUENCE NUMBER.
    pub minimum_sequence: u16,
    /// MAXIMUM VOLUME SEQUENCE NUMBER.
    pub maximum_sequence: u16,
}

impl VolumeTemplate {
    /// Bytes of the parameter list.
    pub const LENGTH: usize = 40;

    /// `None` for a list of another length.
    #[must_use]
    pub fn parse(list: &[u8]) -> Option<Self> {
        let list: &[u8; Self::LENGTH] = list.try_into().ok()?;
        let (identifier, numbers) = list.split_at(VOLUME_IDENTIFIER_LENGTH);
        let end = identifier.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
        Some(Self {
            identifier: identifier[..end].to_vec(),
            minimum_sequence: u16::from_be_bytes([numbers[2], numbers[3]]),
            maximum_sequence: u16::from_be_bytes([numbers[6], numbers[7]]),
        })
    }

    /// True for an identifier that the template means.
    #[must_use]
    pub fn matches(&self, identifier: &str) -> bool {
        matches(&self.identifier, identifier.as_bytes())
    }

    /// True when VOLUME SEQUENCE NUMBER zero, the only one there is here, lies within the two bounds.
    #[must_use]
    pub const fn allows_sequence_zero(&self) -> bool {
        self.minimum_sequence == 0
    }
}

/// Goes back to the last `*` only: no template takes more than its length times the text's.
fn matches(template: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < text.len() {
        match template.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    (at, read) = (place + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    template[at..].iter().all(|byte| *byte == b'*')
}

/// Elements of one type: addresses without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ElementRange {
    /// Address of the first.
    pub first: u16,
    /// How many there are.
    pub count: u16,
}

impl ElementRange {
    /// True for an address of one of them.
    #[must_use]
    pub const fn contains(self, address: u16) -> bool {
        address >= self.first && address - self.first < self.count
    }
}

/// What the element address assignment mode page tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ElementAddresses {
    /// Medium transport elements.
    pub transport: ElementRange,
    /// Storage elements.
    pub storage: ElementRange,
    /// Import/export elements.
    pub import_export: ElementRange,
    /// Data transfer elements.
    pub data_transfer: ElementRange,
}

/// PAGE CODE of element address assignment.
pub const ELEMENT_ADDRESS_ASSIGNMENT: u8 = 0x1D;
/// PAGE CODE of transport geometry parameters.
pub const TRANSPORT_GEOMETRY: u8 = 0x1E;
/// PAGE CODE of device capabilities.
pub const DEVICE_CAPABILITIES: u8 = 0x1F;

impl ElementAddresses {
    /// The page. SMC-3, "Element Address Assignment mode page".
    #[must_use]
    pub fn page(&self) -> ModePage {
        let ranges = [self.transport, self.storage, self.import_export, self.data_transfer];
        let mut body: Vec<u8> = ranges.iter().flat_map(|range| [range.first, range.count]).flat_map(u16::to_be_bytes).collect();
        body.resize(18, 0);
        ModePage::fixed(ELEMENT_ADDRESS_ASSIGNMENT, body)
    }

    /// From the page's body, without its header of two bytes; `None` when it is too short.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        let range = |at: usize| Some(ElementRange { first: field(at)?, count: field(at + 2)? });
        Some(Self { transport: range(0)?, storage: range(4)?, import_export: range(8)?, data_transfer: range(12)? })
    }
}

/// One transport element that cannot turn a medium over, member 0 of its set. SMC-3, "Transport Geometry Parameters mode page".
#[must_use]
pub fn transport_geometry() -> ModePage {
    ModePage::fixed(TRANSPORT_GEOMETRY, [0, 0])
}

/// Media rest in slots, import/export elements and drives, and go and are exchanged from each of them to each. The transport holds
/// nothing between commands. SMC-3, "Device Capabilities mode page".
#[must_use]
pub fn device_capabilities() -> ModePage {
    const STORAGE: u8 = 0x02;
    const IMPORT_EXPORT: u8 = 0x04;
    const DATA_TRANSFER: u8 = 0x08;
    const ALL: u8 = STORAGE | IMPORT_EXPORT | DATA_TRANSFER;
    let mut body = [0; 18];
    body[0] = ALL;
    // MOVE MEDIUM, then EXCHANGE MEDIUM; four bytes each, of which the first (from the transport) stays zero.
    body[3..6].fill(ALL);
    body[11..14].fill(ALL);
    ModePage::fixed(DEVICE_CAPABILITIES, body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scsi::designator::{Association, CodeSet, DesignatorType};
    use crate::wire::hex;

    fn library() -> Vec<Element> {
        let mut arm = Element::empty(1, ElementType::MediumTransport);
        arm.accessible = true;
        let mut mail = Element::empty(0x10, ElementType::ImportExport);
        (mail.full, mail.by_operator, mail.volume_tag) = (true, true, Some("OFH002L8".into()));
        mail.medium_type = MediumType::Data;
        let mut drive = Element::empty(0x100, ElementType::DataTransfer);
        (drive.full, drive.accessible, drive.source) = (true, false, Some(0x1001));
        (drive.medium_type, drive.volume_tag) = (MediumType::Worm, Some("OFH001L8".into()));
        drive.device = Some(Designator {
            code_set: CodeSet::Ascii,
            association: Association::LogicalUnit,
            kind: DesignatorType::T10VendorId,
            bytes: b"OFFHOST SN1".to_vec(),
        });
        let mut damaged = Element::empty(0x1000, ElementType::Storage);
        (damaged.full, damaged.disabled, damaged.exception) = (true, true, Some((0x30, 0x00)));
        vec![arm, mail, drive, damaged, Element::empty(0x1001, ElementType::Storage)]
    }

    const BOTH: DescriptorForm = DescriptorForm { volume_tags: true, device_identifiers: true };

    #[test]
    fn every_element_type_has_its_page_and_its_flags() {
        let plain = element_status(&library(), DescriptorForm::default(), 4096);
        let golden = hex("0001 0005 00 000070
             01 00 0010 00 000010  0001 00 00 0000 000000 00 0000 00000000
             03 00 0010 00 000010  0010 3b 00 0000 000000 01 0000 00000000
             04 00 0010 00 000010  0100 01 00 0000 000000 84 1001 00000000
             02 00 0010 00 000020  1000 0d 00 3000 000000 08 0000 00000000
                                   1001 08 00 0000 000000 00 0000 00000000");
        assert_eq!(plain, golden);
    }

    #[test]
    fn tags_and_device_identifiers_stand_where_they_are_asked_for() {
        let drives: Vec<Element> = library().into_iter().filter(|element| element.kind == ElementType::DataTransfer).collect();
        let data = element_status(&drives, BOTH, 4096);
        let golden = hex("0100 0001 00 000047  04 80 003f 00 00003f
             0100 01 00 0000 000000 84 1001
             4f46483030314c38 20202020202020202020202020202020 2020202020202020  0000 0000
             02 01 00 0b  4f4646484f535420534e31");
        assert_eq!(data, golden);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for form in [BOTH, DescriptorForm { volume_tags: true, device_identifiers: false }] {
            let report = ElementReport::parse(&element_status(&library(), form, 1 << 20)).unwrap();
            let mut wanted = library();
            if !form.device_identifiers {
                wanted.iter_mut().for_each(|element| element.device = None);
            }
            assert_eq!((report.first, report.available, report.elements), (1, 5, wanted));
        }
    }

    #[test]
    fn only_whole_descriptors_go_out_and_the_counts_stay() {
        let whole = element_status(&library(), BOTH, 1 << 20);
        for allocation_length in 0..whole.len() + 8 {
            let data = element_status(&library(), BOTH, allocation_length);
            assert!(data.len() <= allocation_length);
            assert!(whole.starts_with(&data));
            let Ok(report) = ElementReport::parse(&data) else {
                assert!(allocation_length < HEADER_LENGTH);
                continue;
            };
            assert_eq!((report.available, report.byte_count as usize), (5, whole.len() - HEADER_LENGTH));
            let form = BOTH;
            let bytes: usize = report.elements.iter().map(|element| element.descriptor_length(form)).sum();
            let pages = report.elements.chunk_by(|a, b| a.kind == b.kind).count();
            assert_eq!(data.len(), HEADER_LENGTH + pages * HEADER_LENGTH + bytes, "no half descriptor, no empty page");
        }
    }

    #[test]
    fn drives_with_names_of_different_lengths_stand_on_different_pages() {
        let drive = |address, name: &[u8]| Element {
            device: Some(Designator { bytes: name.to_vec(), ..library()[2].device.clone().unwrap() }),
            ..Element::empty(address, ElementType::DataTransfer)
        };
        let drives = [drive(0x100, b"A"), drive(0x101, b"BB"), drive(0x102, b"CC")];
        let report = ElementReport::parse(&element_status(&drives, BOTH, 4096)).unwrap();
        assert_eq!(report.elements, drives);
    }

    #[test]
    fn templates_know_both_wildcards() {
        let template = |text: &str| {
            let mut list = [b' '; VolumeTemplate::LENGTH];
            list[..text.len()].copy_from_slice(text.as_bytes());
            list[32..].fill(0);
            VolumeTemplate::parse(&list).unwrap()
        };
        for (text, identifier, wanted) in [
            ("OFH001L8", "OFH001L8", true),
            ("OFH001L8", "OFH001L", false),
            ("OFH00?L8", "OFH007L8", true),
            ("OFH*", "OFH007L8", true),
            ("*", "", true),
            ("*L8", "OFH007L8", true),
            ("*0*L?", "OFH007L8", true),
            ("*9*", "OFH007L8", false),
            ("", "OFH007L8", false),
        ] {
            assert_eq!(template(text).matches(identifier), wanted, "{text:?} {identifier:?}");
        }
        assert_eq!(VolumeTemplate::parse(&[0; 39]), None);
    }

    #[test]
    fn the_mode_pages_have_the_layout_of_the_standard() {
        let range = |first, count| ElementRange { first, count };
        let addresses = ElementAddresses {
            transport: range(1, 1),
            storage: range(0x1000, 20),
            import_export: range(0x10, 2),
            data_transfer: range(0x100, 2),
        };
        let body = addresses.page().current;
        assert_eq!(body, hex("0001 0001  1000 0014  0010 0002  0100 0002  0000"));
        assert_eq!(ElementAddresses::parse(&body), Some(addresses));
        assert_eq!(ElementAddresses::parse(&body[..15]), None);
        assert_eq!(device_capabilities().current, hex("0e 00 00 0e 0e 0e 00000000 00 0e 0e 0e 00000000"));
        assert!(range(0x1000, 20).contains(0x1013) && !range(0x1000, 20).contains(0x1014) && !range(0x1000, 20).contains(0xFFF));
    }

    proptest! {
        #[test]
        fn arbitrary_element_status_data_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ElementReport::parse(&data);
            let _ = VolumeTemplate::parse(&data);
        }

        #[test]
        fn plausible_element_status_data_never_panics(
            kind in 0u8..6, tags in any::<u8>(), length in 0u16..120, count in 0u32..400, body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut data = hex("0001 0005 00 000070");
            data.extend([kind, tags]);
            data.extend(length.to_be_bytes());
            data.extend(count.to_be_bytes());
            data.extend(body);
            if let Ok(report) = ElementReport::parse(&data) {
                prop_assert!(report.elements.len() <= data.len());
            }
        }

        #[test]
        fn a_template_takes_what_it_was_made_from(text in "[A-Z0-9]{0,32}", holes in proptest::collection::vec(any::<bool>(), 32)) {
            let masked: Vec<u8> = text.bytes().zip(&holes).map(|(byte, hole)| if *hole { b'?' } else { byte }).collect();
            prop_assert!(matches(&masked, text.as_bytes()));
            prop_assert!(matches(&[&masked[..masked.len() / 2], b"*"].concat(), text.as_bytes()));
        }
    }
}
