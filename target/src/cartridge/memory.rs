//! What a cartridge's memory chip holds beside the label: how often it was loaded, what went through it, and what programs wrote
//! there.
//!
//! Lies in `cartridge.json`. Which attributes there are, and what may be written, is the drive's business. Follows SPC-4, "Medium
//! auxiliary memory attributes".

use std::collections::BTreeMap;

use protocol::scsi::attribute::{Attribute, Format};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Drives remembered: the last load and the three before it.
pub const DRIVES_REMEMBERED: usize = 4;

/// The chip's contents. All counts are of the cartridge's life.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Loads into a drive.
    pub loads: u64,
    /// VOLUME CHANGE REFERENCE: another one after every change of what is on the medium that somebody may have noticed.
    pub change_reference: u32,
    /// Times it was formatted.
    pub initializations: u16,
    /// Bytes of records written.
    pub written: u64,
    /// Bytes of records read.
    pub read: u64,
    /// Writes that failed for good.
    pub write_errors: u64,
    /// Reads that failed for good.
    pub read_errors: u64,
    /// Vendor and serial number of the drives it was loaded into, the last one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drives: Vec<String>,
    /// What programs wrote, by partition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attributes>,
}

impl Memory {
    /// Nothing has happened to the cartridge yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        *self == Self::default()
    }

    /// The attributes of one partition, by number.
    pub fn host_attributes(&self, partition: usize) -> impl Iterator<Item = &Attribute> {
        self.attributes.get(partition).into_iter().flat_map(|attributes| attributes.0.values())
    }

    /// Bytes that programs' attributes take, of all partitions, as READ ATTRIBUTE tells them.
    #[must_use]
    pub fn used(&self) -> usize {
        self.attributes.iter().flat_map(|attributes| attributes.0.values()).map(Attribute::emitted_length).sum()
    }

    /// Takes an attribute of a partition; one without a value is taken away.
    pub fn set(&mut self, partition: usize, attribute: Attribute) {
        if self.attributes.len() <= partition {
            self.attributes.resize_with(partition + 1, Attributes::default);
        }
        let attributes = &mut self.attributes[partition].0;
        if attribute.value.is_empty() {
            attributes.remove(&attribute.id);
        } else {
            attributes.insert(attribute.id, attribute);
        }
    }
}

/// Attributes by identifier; in the file `"080C": "binary 00ff…"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes(pub BTreeMap<u16, Attribute>);

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |attribute: &Attribute| {
            let value: String = attribute.value.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} {value}", attribute.format.name())
        };
        serializer.collect_map(self.0.values().map(|attribute| (format!("{:04X}", attribute.id), text(attribute))))
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, String>::deserialize(deserializer)?;
        let attributes: Option<BTreeMap<_, _>> =
            written.iter().map(|(id, text)| parse(id, text).map(|attribute| (attribute.id, attribute))).collect();
        attributes.map(Self).ok_or_else(|| D::Error::custom("an attribute is not an identifier, a format and hexadecimal bytes"))
    }
}

fn parse(id: &str, text: &str) -> Option<Attribute> {
    let (format, digits) = text.split_once(' ')?;
    let value: Option<Vec<u8>> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
        .collect();
    Some(Attribute { id: u16::from_str_radix(id, 16).ok()?, format: Format::from_name(format)?, read_only: false, value: value? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_wrote_is_read_back_from_the_file() {
        let mut memory = Memory { loads: 3, ..Memory::default() };
        memory.set(1, Attribute { id: 0x80C, format: Format::Binary, read_only: false, value: vec![0, 0xFF] });
        memory.set(0, Attribute { id: 0x801, format: Format::Ascii, read_only: false, value: b"tar".to_vec() });
        let text = serde_json::to_string(&memory).unwrap();
        assert!(text.contains(r#"[{"0801":"ascii 746172"},{"080C":"binary 00ff"}]"#), "{text}");
        assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), memory);
        memory.set(0, Attribute { id: 0x801, format: Format::Ascii, read_only: false, value: Vec::new() });
        assert_eq!(memory.host_attributes(0).count(), 0);
    }

    #[test]
    fn nonsense_is_no_attribute() {
        for text in ["ascii 7", "ascii zz", "hex 00", "00"] {
            assert!(parse("0801", text).is_none(), "{text}");
        }
        assert!(parse("xyz", "ascii 00").is_none());
    }
}
