//! Attributes of the medium auxiliary memory: a table of them, and the lists in which READ ATTRIBUTE and WRITE ATTRIBUTE carry them.
//!
//! What an attribute's value is, is the drive's business. Follows SPC-4, "READ ATTRIBUTE command", "WRITE ATTRIBUTE command" and
//! "Medium auxiliary memory attributes"; the last two rows SSC-4.

use super::{FieldPointer, Sense};

/// FORMAT of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Binary = 0,
    Ascii = 1,
    Text = 2,
}

impl Format {
    const ALL: [Self; 3] = [Self::Binary, Self::Ascii, Self::Text];

    /// `None` for the reserved value.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0x03 {
            0 => Some(Self::Binary),
            1 => Some(Self::Ascii),
            2 => Some(Self::Text),
            _ => None,
        }
    }

    /// As it stands in a cartridge's file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Ascii => "ascii",
            Self::Text => "text",
        }
    }

    /// From [`Format::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// One attribute with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// ATTRIBUTE IDENTIFIER.
    pub id: u16,
    /// FORMAT.
    pub format: Format,
    /// READ ONLY: the drive's own, or the medium's.
    pub read_only: bool,
    /// ATTRIBUTE VALUE.
    pub value: Vec<u8>,
}

/// Bytes in front of a value.
const HEADER: usize = 5;
/// Bytes in front of the attributes of a list.
const LIST_HEADER: usize = 4;

impl Attribute {
    /// A number, in as many bytes as the array has.
    #[must_use]
    pub fn number<const N: usize>(id: u16, bytes: [u8; N]) -> Self {
        Self { id, format: Format::Binary, read_only: true, value: bytes.to_vec() }
    }

    /// Text of the drive or the medium, filled up with spaces or cut.
    #[must_use]
    pub fn ascii(id: u16, text: &str, length: usize) -> Self {
        let value = text.bytes().chain(std::iter::repeat(b' ')).take(length).collect();
        Self { id, format: Format::Ascii, read_only: true, value }
    }

    /// Bytes it takes in a list.
    #[must_use]
    pub fn emitted_length(&self) -> usize {
        HEADER + self.value.len()
    }

    fn emit(&self, into: &mut Vec<u8>) {
        let length = u16::try_from(self.value.len()).expect("no attribute is longer than its length can say");
        into.extend(self.id.to_be_bytes());
        into.push(if self.read_only { READ_ONLY } else { 0 } | self.format as u8);
        into.extend(length.to_be_bytes());
        into.extend(&self.value);
    }
}

const READ_ONLY: u8 = 0x80;

/// What is known of an attribute that programs may write. SPC-4, "Host type attributes".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAttribute {
    /// ATTRIBUTE IDENTIFIER, first and last of a range alike.
    pub ids: (u16, u16),
    /// The format it must have; `None` where any will do.
    pub format: Option<Format>,
    /// Longest value, in bytes; a fixed length is also the shortest.
    pub length: u16,
    /// Shorter values are taken, too.
    pub variable: bool,
}

const fn host(id: u16, format: Format, length: u16) -> HostAttribute {
    HostAttribute { ids: (id, id), format: Some(format), length, variable: false }
}

/// Longest value of a variable length. What other drives take for volume coherency information is of this order.
pub const LONGEST_VALUE: u16 = 1023;

/// All attributes that programs may write.
#[rustfmt::skip]
pub const HOST_ATTRIBUTES: &[HostAttribute] = &[
    host(0x0800, Format::Ascii, 8),    // APPLICATION VENDOR
    host(0x0801, Format::Ascii, 32),   // APPLICATION NAME
    host(0x0802, Format::Ascii, 8),    // APPLICATION VERSION
    host(0x0803, Format::Text, 160),   // USER MEDIUM TEXT LABEL
    host(0x0804, Format::Ascii, 12),   // DATE AND TIME LAST WRITTEN
    host(0x0805, Format::Binary, 1),   // TEXT LOCALIZATION IDENTIFIER
    host(0x0806, Format::Ascii, 32),   // BARCODE
    host(0x0807, Format::Text, 80),    // OWNING HOST TEXTUAL NAME
    host(0x0808, Format::Text, 160),   // MEDIA POOL
    host(0x0809, Format::Ascii, 16),   // PARTITION USER TEXT LABEL
    host(0x080A, Format::Binary, 1),   // LOAD/UNLOAD AT PARTITION
    host(0x080B, Format::Ascii, 16),   // APPLICATION FORMAT VERSION
    HostAttribute { ids: (0x080C, 0x080C), format: Some(Format::Binary), length: LONGEST_VALUE, variable: true }, // VOLUME COHERENCY INFORMATION
    host(0x0820, Format::Binary, 36),  // MEDIUM GLOBALLY UNIQUE IDENTIFIER
    host(0x0821, Format::Binary, 36),  // MEDIA POOL GLOBALLY UNIQUE IDENTIFIER
    HostAttribute { ids: (0x1400, 0x17FF), format: None, length: LONGEST_VALUE, variable: true }, // vendor specific, host type
];

/// The row of an attribute that programs may write.
#[must_use]
pub fn host_attribute(id: u16) -> Option<&'static HostAttribute> {
    HOST_ATTRIBUTES.iter().find(|row| (row.ids.0..=row.ids.1).contains(&id))
}

/// READ ATTRIBUTE with service action ATTRIBUTE VALUES: attributes from `first` on, ascending.
#[must_use]
pub fn values<'a>(attributes: impl IntoIterator<Item = &'a Attribute>) -> Vec<u8> {
    let mut data = vec![0; LIST_HEADER];
    attributes.into_iter().for_each(|attribute| attribute.emit(&mut data));
    with_length(data)
}

/// READ ATTRIBUTE with service action ATTRIBUTE LIST or SUPPORTED ATTRIBUTES: identifiers, ascending.
#[must_use]
pub fn identifiers(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut data = vec![0; LIST_HEADER];
    data.extend(ids.into_iter().flat_map(u16::to_be_bytes));
    with_length(data)
}

/// READ ATTRIBUTE with service action LOGICAL VOLUME LIST or PARTITION LIST: `count` of them, the first has number 0.
#[must_use]
pub fn numbers(count: u8) -> Vec<u8> {
    vec![0, 2, 0, count]
}

fn with_length(mut data: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(data.len() - LIST_HEADER).expect("a memory chip is small");
    data[..LIST_HEADER].copy_from_slice(&length.to_be_bytes());
    data
}

/// The parameter list of WRITE ATTRIBUTE, every attribute checked against its row. An empty value takes the attribute away.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR when an attribute is cut off; INVALID FIELD IN PARAMETER LIST for one that may not be written, is out
/// of order, or has another format or length than it must have. Then nothing is to be written.
pub fn parse(list: &[u8]) -> Result<Vec<Attribute>, Sense> {
    let header = list.first_chunk::<LIST_HEADER>().ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
    let end = LIST_HEADER.checked_add(length).filter(|end| *end <= list.len()).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let mut attributes: Vec<Attribute> = Vec::new();
    let mut at = LIST_HEADER;
    while at < end {
        let (attribute, next) = one(&list[..end], at)?;
        if attributes.last().is_some_and(|last| last.id >= attribute.id) {
            return Err(invalid(at));
        }
        attributes.push(attribute);
        at = next;
    }
    Ok(attributes)
}

fn one(list: &[u8], at: usize) -> Result<(Attribute, usize), Sense> {
    let header = list[at..].first_chunk::<HEADER>().ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let &[id_high, id_low, flags, length_high, length_low] = header;
    let (id, length) = (u16::from_be_bytes([id_high, id_low]), u16::from_be_bytes([length_high, length_low]));
    let next = at + HEADER + usize::from(length);
    let value = list.get(at + HEADER..next).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let row = host_attribute(id).ok_or_else(|| invalid(at))?;
    let format = Format::from_bits(flags).filter(|format| row.format.is_none_or(|wanted| wanted == *format));
    let format = format.ok_or_else(|| invalid(at + 2))?;
    let fits = length == 0 || length == row.length || (row.variable && length < row.length);
    if !fits {
        return Err(invalid(at + 3));
    }
    Ok((Attribute { id, format, read_only: false, value: value.to_vec() }, next))
}

fn invalid(byte: usize) -> Sense {
    Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(u16::try_from(byte).unwrap_or(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::hex;

    #[test]
    fn attributes_have_the_bytes_of_their_lists() {
        let attributes = [Attribute::number(0x0003, 7u64.to_be_bytes()), Attribute::ascii(0x0005, "LTO-CVE", 8)];
        assert_eq!(values(&attributes), hex("0000001A  0003 80 0008 0000000000000007  0005 81 0008 4C544F2D43564520"));
        assert_eq!(identifiers([3, 5]), hex("00000004 0003 0005"));
        assert_eq!(numbers(2), hex("0002 00 02"));
    }

    #[test]
    fn what_may_be_written_is_read_from_the_list() {
        let list = hex("00000013  0805 00 0001 81  080C 00 0003 010203  1400 01 0000 ");
        let attributes = parse(&list[..]).unwrap();
        assert_eq!(attributes.iter().map(|a| (a.id, a.value.len())).collect::<Vec<_>>(), [(0x805, 1), (0x80C, 3), (0x1400, 0)]);
    }

    #[test]
    fn what_may_not_be_written_is_named_by_its_byte() {
        let at = |byte| Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(byte)));
        assert_eq!(parse(&hex("0000000D  0003 80 0008 0000000000000007")), at(4), "the drive's own");
        assert_eq!(parse(&hex("00000006  0805 01 0001 81")), at(6), "another format");
        assert_eq!(parse(&hex("00000007  0805 00 0002 8181")), at(7), "another length");
        assert_eq!(parse(&hex("0000000C  080A 00 0001 00  0805 00 0001 81")), at(10), "out of order");
        for short in ["000000", "00000006 0805 00 0001", "00000003 0805 00"] {
            assert_eq!(parse(&hex(short)), Err(Sense::PARAMETER_LIST_LENGTH_ERROR), "{short}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lists_never_panic(list in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&list);
        }
    }
}
