//! What the scan found, in tables of fixed rows: compact in memory (about 180 bytes for a plain file, and twice its
//! name) and on
//! tape.
//!
//! Rows point at each other by index; [`super::view`] turns them into paths, streams and extents. A catalog read from a tape
//! is checked by [`Catalog::check`] before anything follows an index.

use super::record::kind;
use super::runs::Run;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The tables. Records ascend by number; the other tables are cut into pieces by the row that owns them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Catalog {
    pub(super) records: Vec<RecordRow>,
    pub(super) names: Vec<NameRow>,
    pub(super) attributes: Vec<AttributeRow>,
    /// What many attributes have in common.
    pub(super) labels: Vec<Label>,
    /// Attributes that another record than the file's own holds, and which one; ascending.
    pub(super) elsewhere: Vec<(u32, u32)>,
    pub(super) streams: Vec<StreamRow>,
    pub(super) runs: Vec<Run>,
    /// UTF-16 units of all names.
    pub(super) text: Vec<u16>,
    /// Resident values that a restore of one file needs.
    pub(super) values: Vec<u8>,
}

/// A file, by its base record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct RecordRow {
    pub number: u32,
    pub sequence: u16,
    pub flags: u16,
    /// Creation, change of data, change of record, access; in 100 ns since 1601.
    pub times: [u64; 4],
    pub file_attributes: u32,
    pub security_id: u32,
    pub first_name: u32,
    pub names: u32,
    pub first_attribute: u32,
    pub attributes: u32,
}

impl RecordRow {
    /// A directory.
    pub const DIRECTORY: u16 = 1;
    /// A part of it could not be read or joined.
    pub const DAMAGED: u16 = 2;

    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// One link to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRow {
    /// File reference of the directory.
    pub parent: u64,
    pub text: u32,
    pub units: u8,
    /// 0 POSIX, 1 Win32, 2 DOS, 3 both.
    pub name_space: u8,
    /// The directory's index has it too.
    pub indexed: bool,
}

impl NameRow {
    pub const DOS: u8 = 2;
}

/// One attribute, all its pieces joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AttributeRow {
    /// Row in `labels`.
    pub label: u32,
    /// Non-resident: row in `streams`. Resident: place in `values`, or [`AttributeRow::NO_VALUE`].
    pub place: u32,
    /// Resident: where the value begins in the record that holds it.
    pub offset: u16,
    /// Resident: length of the value.
    pub length: u16,
}

impl AttributeRow {
    pub const NO_VALUE: u32 = u32::MAX;
}

/// Type, name, form and flags of attributes: few on a volume, whatever the number of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    pub type_code: u32,
    pub name: u32,
    pub name_units: u8,
    pub non_resident: bool,
    /// As on disk.
    pub flags: u16,
}

/// A value in clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamRow {
    pub size: u64,
    pub initialized: u64,
    pub first_run: u32,
    pub runs: u32,
    /// Power of two in clusters; 0 for none.
    pub compression_unit: u8,
}

/// The tables of one volume have outgrown 32-bit indices; the volume is then copied whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more entries than the catalog can number")]
pub struct Overflow;

pub(super) fn index(len: usize) -> Result<u32, Overflow> {
    u32::try_from(len).map_err(|_| Overflow)
}

fn span(first: u32, count: u32) -> Range<usize> {
    first as usize..first as usize + count as usize
}

impl Catalog {
    /// Number of files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True when there is no file at all, not even $MFT.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of memory behind the tables.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of_val(&*self.records)
            + size_of_val(&*self.names)
            + size_of_val(&*self.attributes)
            + size_of_val(&*self.labels)
            + size_of_val(&*self.elsewhere)
            + size_of_val(&*self.streams)
            + size_of_val(&*self.runs)
            + size_of_val(&*self.text)
            + self.values.len()
    }

    /// Every index and length that a row holds lies inside its table: what a catalog from a tape must show before it is used.
    ///
    /// # Errors
    /// The table whose row points outside.
    pub fn check(&self) -> Result<(), &'static str> {
        let inside = |range: Range<usize>, len: usize| range.end <= len;
        let ascending = self.records.windows(2).all(|pair| pair[0].number < pair[1].number);
        let files = self.records.iter().all(|row| {
            inside(span(row.first_name, row.names), self.names.len())
                && inside(span(row.first_attribute, row.attributes), self.attributes.len())
        });
        let names = self.names.iter().all(|row| inside(span(row.text, row.units.into()), self.text.len()));
        let labels = self.labels.iter().all(|label| inside(span(label.name, label.name_units.into()), self.text.len()));
        let attributes = self.attributes.iter().all(|row| match self.labels.get(row.label as usize) {
            None => false,
            Some(label) if label.non_resident => (row.place as usize) < self.streams.len(),
            Some(_) => row.place == AttributeRow::NO_VALUE || inside(span(row.place, row.length.into()), self.values.len()),
        });
        let streams = self.streams.iter().all(|row| inside(span(row.first_run, row.runs), self.runs.len()));
        match (ascending, files, names && labels, attributes, streams) {
            (false, ..) => Err("the records of the catalog do not ascend"),
            (_, false, ..) => Err("a record of the catalog points outside"),
            (_, _, false, ..) => Err("a name of the catalog points outside"),
            (_, _, _, false, _) => Err("an attribute of the catalog points outside"),
            (.., false) => Err("a stream of the catalog points outside"),
            _ => Ok(()),
        }
    }

    pub(super) fn find(&self, number: u64) -> Option<(usize, &RecordRow)> {
        let row = self.records.binary_search_by_key(&number, |row| row.number.into()).ok()?;
        Some((row, &self.records[row]))
    }

    pub(super) fn names_of(&self, row: &RecordRow) -> &[NameRow] {
        &self.names[span(row.first_name, row.names)]
    }

    pub(super) fn attributes_of(&self, row: &RecordRow) -> &[AttributeRow] {
        &self.attributes[span(row.first_attribute, row.attributes)]
    }

    pub(super) fn runs_of(&self, stream: &StreamRow) -> &[Run] {
        &self.runs[span(stream.first_run, stream.runs)]
    }

    pub(super) fn text_of(&self, first: u32, units: u8) -> &[u16] {
        &self.text[span(first, units.into())]
    }

    pub(super) fn label(&self, attribute: &AttributeRow) -> &Label {
        &self.labels[attribute.label as usize]
    }

    pub(super) fn name_of(&self, attribute: &AttributeRow) -> &[u16] {
        let label = self.label(attribute);
        self.text_of(label.name, label.name_units)
    }

    /// Attributes of a record with the record that holds each.
    pub(super) fn held_attributes(&self, row: &RecordRow) -> impl Iterator<Item = (u32, &AttributeRow)> {
        let number = row.number;
        (row.first_attribute..).zip(self.attributes_of(row)).map(move |(index, attribute)| {
            let found = self.elsewhere.binary_search_by_key(&index, |(attribute, _)| *attribute);
            (found.map_or(number, |found| self.elsewhere[found].1), attribute)
        })
    }

    pub(super) fn stream_of(&self, attribute: &AttributeRow) -> Option<&StreamRow> {
        self.label(attribute).non_resident.then(|| &self.streams[attribute.place as usize])
    }

    /// A resident value, if it was kept.
    pub(super) fn value_of(&self, attribute: &AttributeRow) -> Option<&[u8]> {
        let kept = !self.label(attribute).non_resident && attribute.place != AttributeRow::NO_VALUE;
        kept.then(|| &self.values[span(attribute.place, attribute.length.into())])
    }

    /// An attribute of a file, by type and ASCII name.
    pub(super) fn attribute(&self, row: &RecordRow, type_code: u32, name: &str) -> Option<&AttributeRow> {
        self.attributes_of(row).iter().find(|attribute| {
            self.label(attribute).type_code == type_code && name.encode_utf16().eq(self.name_of(attribute).iter().copied())
        })
    }

    /// The unnamed data of a system file, where it is in clusters.
    pub(super) fn system_stream(&self, number: u64) -> Option<&StreamRow> {
        let (_, row) = self.find(number)?;
        self.attribute(row, kind::DATA, "").and_then(|attribute| self.stream_of(attribute))
    }

    pub(super) fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.names.shrink_to_fit();
        self.attributes.shrink_to_fit();
        self.labels.shrink_to_fit();
        self.elsewhere.shrink_to_fit();
        self.streams.shrink_to_fit();
        self.runs.shrink_to_fit();
        self.text.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_whose_rows_point_outside_is_refused() {
        let row = RecordRow { number: 5, names: 1, ..RecordRow::default() };
        let name = NameRow { parent: 5, text: 0, units: 1, name_space: 3, indexed: true };
        let good = Catalog { records: vec![row], names: vec![name], text: vec![b'.'.into()], ..Catalog::default() };
        assert_eq!(good.check(), Ok(()));
        let mut bad = good.clone();
        bad.names[0].units = 2;
        assert!(bad.check().is_err());
        let mut bad = good;
        bad.records[0].first_attribute = u32::MAX;
        bad.records[0].attributes = u32::MAX;
        assert!(bad.check().is_err());
    }
}
