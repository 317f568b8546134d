//! From file records to the catalog: one pass over $MFT, then the attribute lists.
//!
//! A record without an attribute list is taken as it comes. Where a file is spread over several records its pieces wait until
//! all have been seen, and are joined by what the list says. Nothing found in a damaged record leaves the set of used clusters:
//! what such a record seems to hold counts as used, though it is no file's data.

use super::catalog::{AttributeRow, Catalog, Label, NameRow, Overflow, RecordRow, StreamRow, index};
use super::device::{Device, Stream};
use super::mft::{Mft, check_sum};
use super::record::{
    Attribute, Attributes, Body, DIRECTORY, FileName, FileReference, IN_USE, NonResident, RecordHeader, SECURITY_ID,
    StandardInformation, fix_up, kind, list_entries,
};
use super::runs::Run;
use super::{Failure, MAX_LIST};
use crate::map::note::Notes;
use std::collections::BTreeMap;
use std::collections::HashMap;
use zerocopy::FromBytes;

/// What the scan leaves behind.
#[derive(Debug, Default)]
pub struct Scanned {
    /// All files.
    pub catalog: Catalog,
    /// Values of $INDEX_ROOT:$I30, by the directory's record number.
    pub roots: Vec<(u32, Vec<u8>)>,
    /// Clusters that no file of the catalog holds, but a record seems to.
    pub extra: Vec<Run>,
}

/// Reads all records.
///
/// # Errors
/// Those of the source, and [`Failure::Broken`] when the volume is too large for the catalog.
pub fn build(device: &Device<'_>, mft: &Mft, notes: &mut Notes) -> Result<Scanned, Failure> {
    let mut builder =
        Builder { device, mft, notes, found: Scanned::default(), spread: BTreeMap::new(), list_bytes: 0, labels: HashMap::new() };
    mft.scan(device, |number, bytes| builder.take(number, bytes))?;
    builder.join()?;
    let mut found = builder.found;
    found.catalog.shrink();
    Ok(found)
}

struct Builder<'a> {
    device: &'a Device<'a>,
    mft: &'a Mft,
    notes: &'a mut Notes,
    found: Scanned,
    /// By base record number.
    spread: BTreeMap<u64, Spread>,
    /// Bytes of attribute lists read so far.
    list_bytes: u64,
    /// Type, form, flags and name of an attribute, as bytes, to its row in the catalog's labels.
    labels: HashMap<Vec<u8>, u32>,
}

/// A file whose attributes are in several records.
#[derive(Debug, Default)]
struct Spread {
    list: Option<List>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum List {
    Resident(Vec<u8>),
    InClusters { runs: Vec<Run>, size: u64 },
}

/// One attribute, or a piece of it, out of its record.
#[derive(Debug)]
struct Piece {
    holder: FileReference,
    /// The base record that the holder names; its own reference in a base record.
    base: FileReference,
    instance: u16,
    key: Key,
    flags: u16,
    body: OwnedBody,
}

/// Pieces of one attribute differ in the last field only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    type_code: u32,
    name: Vec<u8>,
    lowest_vcn: u64,
}

#[derive(Debug)]
enum OwnedBody {
    Resident { at: u16, value: Vec<u8> },
    NonResident { next_vcn: u64, sizes: Sizes, runs: Vec<Run> },
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    size: u64,
    initialized: u64,
    compression_unit: u8,
}

impl From<&NonResident<'_>> for Sizes {
    fn from(value: &NonResident<'_>) -> Self {
        Self { size: value.data_size, initialized: value.initialized_size, compression_unit: value.compression_unit }
    }
}

impl From<Overflow> for Failure {
    fn from(_: Overflow) -> Self {
        Self::Broken("the volume has more entries than the catalog can number")
    }
}

impl Builder<'_> {
    fn take(&mut self, number: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        let signature = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let marked = self.mft.marked(number);
        if signature != *b"FILE" && signature != *b"BAAD" && marked != Some(true) && number >= FIRST_USER {
            return Ok(());
        }
        let problem = match fix_up(bytes) {
            Ok(signature) if signature == *b"FILE" => None,
            Ok(_) => Some("the record has no FILE signature"),
            Err(problem) => Some(problem),
        };
        let Some(problem) = problem else { return self.take_whole(number, bytes) };
        let claims_use = bytes.get(22).is_some_and(|flags| u16::from(*flags) & IN_USE != 0) && signature != [0; 4];
        if signature == [0; 4] && marked != Some(true) || !claims_use && marked == Some(false) {
            return Ok(());
        }
        if let Some(copy) = self.mft.copy(number) {
            self.damage(number, &format!("{problem}: used the copy in $MFTMirr"));
            return self.take_whole(number, copy);
        }
        self.damage(number, problem);
        self.keep_clusters_of(bytes);
        Ok(())
    }

    /// Counts as used whatever a damaged record seems to hold.
    fn keep_clusters_of(&mut self, bytes: &[u8]) {
        let Ok((_, attributes)) = Attributes::new(bytes) else { return };
        for attribute in attributes.flatten() {
            if let Body::NonResident(value) = attribute.body {
                self.found.extra.extend(value.runs(self.device.geometry.clusters).flatten().filter(|run| run.start().is_some()));
            }
        }
    }

    fn take_whole(&mut self, number: u64, bytes: &[u8]) -> Result<(), Failure> {
        let (header, attributes) = match Attributes::new(bytes) {
            Ok(parsed) => parsed,
            Err(problem) => {
                self.damage(number, problem);
                return Ok(());
            }
        };
        if header.flags.get() & IN_USE == 0 {
            if self.mft.marked(number) == Some(true) && number >= FIRST_USER {
                self.note(number, "$MFT's bitmap marks a record that is not in use");
            }
            return Ok(());
        }
        if self.mft.marked(number) == Some(false) {
            self.note(number, "a record in use is free in $MFT's bitmap");
        }
        if header.base_record != 0 {
            return self.take_extension(number, header, attributes);
        }
        let row = RecordRow {
            number: u32::try_from(number).map_err(|_| Overflow)?,
            sequence: header.sequence_number.get(),
            flags: if header.flags.get() & DIRECTORY != 0 { RecordRow::DIRECTORY } else { 0 },
            first_name: index(self.found.catalog.names.len())?,
            first_attribute: index(self.found.catalog.attributes.len())?,
            ..RecordRow::default()
        };
        self.found.catalog.records.push(row);
        let spread = attributes.clone().flatten().any(|attribute| attribute.type_code == kind::ATTRIBUTE_LIST);
        if spread {
            let own = FileReference(number | u64::from(header.sequence_number.get()) << 48);
            self.take_pieces(number, own, own, attributes)
        } else {
            self.take_attributes(number, attributes)
        }
    }

    /// The common case: all of a file in one record.
    fn take_attributes(&mut self, number: u64, attributes: Attributes<'_>) -> Result<(), Failure> {
        let row = self.found.catalog.records.len() - 1;
        for attribute in attributes {
            let attribute = match attribute {
                Ok(attribute) => attribute,
                Err(problem) => {
                    self.damage(number, problem);
                    self.found.catalog.records[row].flags |= RecordRow::DAMAGED;
                    continue;
                }
            };
            match &attribute.body {
                Body::Resident { at, value } => {
                    self.add_resident(row, &attribute, number, *at as u16, value)?;
                }
                Body::NonResident(value) => {
                    let first = self.found.catalog.runs.len();
                    let checked = self.take_runs(value).and_then(|()| {
                        let runs = self.found.catalog.runs[first..].iter().copied();
                        if value.lowest_vcn == 0 { check_sum(value, runs) } else { Err("an attribute begins in its middle") }
                    });
                    if let Err(problem) = checked {
                        self.damage(number, problem);
                        self.found.catalog.records[row].flags |= RecordRow::DAMAGED;
                    }
                    let (code, name, flags) = (attribute.type_code, attribute.name, attribute.flags);
                    self.add_stream(row, code, name, flags, number, value.into(), first)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the good runs to the table: they count as used even where the rest of the list is damaged.
    fn take_runs(&mut self, value: &NonResident<'_>) -> Result<(), &'static str> {
        for run in value.runs(self.device.geometry.clusters) {
            self.found.catalog.runs.push(run?);
        }
        Ok(())
    }

    fn take_extension(&mut self, number: u64, header: &RecordHeader, attributes: Attributes<'_>) -> Result<(), Failure> {
        let holder = FileReference(number | u64::from(header.sequence_number.get()) << 48);
        self.take_pieces(number, holder, FileReference(header.base_record.get()), attributes)
    }

    fn take_pieces(
        &mut self,
        number: u64,
        holder: FileReference,
        base: FileReference,
        attributes: Attributes<'_>,
    ) -> Result<(), Failure> {
        let clusters = self.device.geometry.clusters;
        for attribute in attributes {
            let attribute = match attribute {
                Ok(attribute) => attribute,
                Err(problem) => {
                    self.damage(number, problem);
                    continue;
                }
            };
            let (mut lowest_vcn, mut problem) = (0, None);
            let body = match &attribute.body {
                Body::Resident { at, value } => OwnedBody::Resident { at: *at as u16, value: value.to_vec() },
                Body::NonResident(value) => {
                    lowest_vcn = value.lowest_vcn;
                    let mut runs = Vec::new();
                    for run in value.runs(clusters) {
                        match run {
                            Ok(run) => runs.push(run),
                            Err(found) => problem = Some(found),
                        }
                    }
                    problem = problem.or(check_sum(value, runs.iter().copied()).err());
                    let mapped = runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.clusters));
                    OwnedBody::NonResident { next_vcn: lowest_vcn.saturating_add(mapped), sizes: value.into(), runs }
                }
            };
            if let Some(problem) = problem {
                self.damage(number, problem);
            }
            let spread = self.spread.entry(base.number()).or_default();
            if attribute.type_code == kind::ATTRIBUTE_LIST && holder == base {
                spread.list = Some(match body {
                    OwnedBody::Resident { ref value, .. } => List::Resident(value.clone()),
                    OwnedBody::NonResident { ref runs, sizes, .. } => List::InClusters { runs: runs.clone(), size: sizes.size },
                });
            }
            let key = Key { type_code: attribute.type_code, name: attribute.name.to_vec(), lowest_vcn };
            spread.pieces.push(Piece { holder, base, instance: attribute.instance, key, flags: attribute.flags, body });
        }
        Ok(())
    }

    fn join(&mut self) -> Result<(), Failure> {
        for (number, spread) in std::mem::take(&mut self.spread) {
            let base = self.found.catalog.find(number).map(|(row, found)| (row, found.sequence));
            let (Some((row, sequence)), Some(list)) = (base, &spread.list) else {
                self.leave(&spread.pieces, "an extension record whose base record does not know it");
                continue;
            };
            let list = self.read_list(number, list)?;
            let (wanted, complete) = list_entries(&list);
            if !complete {
                self.damage_row(row, number, "the attribute list is damaged");
            }
            let own = FileReference(number | u64::from(sequence) << 48);
            let mut places: HashMap<(u64, u32, u16), u64> = HashMap::with_capacity(wanted.len());
            for entry in &wanted {
                places.insert((entry.record.get(), entry.type_code.get(), entry.instance.get()), entry.lowest_vcn.get());
            }
            let entries = places.len();
            let (listed, strange): (Vec<_>, Vec<_>) = spread.pieces.into_iter().partition(|piece| {
                piece.base == own
                    && (piece.key.type_code == kind::ATTRIBUTE_LIST && piece.holder == own
                        || places.get(&(piece.holder.0, piece.key.type_code, piece.instance)) == Some(&piece.key.lowest_vcn))
            });
            self.leave(&strange, "an attribute that its file's attribute list does not name");
            let named = listed.iter().filter(|piece| piece.key.type_code != kind::ATTRIBUTE_LIST).count();
            if named < entries {
                let text = format!("{} of {entries} attributes in its list are not where it says", entries - named);
                self.damage_row(row, number, &text);
            }
            self.join_file(row, number, listed)?;
        }
        Ok(())
    }

    fn join_file(&mut self, row: usize, number: u64, mut pieces: Vec<Piece>) -> Result<(), Failure> {
        pieces.sort_by(|a, b| a.key.cmp(&b.key));
        let catalog = &mut self.found.catalog;
        catalog.records[row].first_name = index(catalog.names.len())?;
        catalog.records[row].first_attribute = index(catalog.attributes.len())?;
        let mut rest = pieces.as_slice();
        while let Some(first) = rest.first() {
            let same = |piece: &&Piece| piece.key.type_code == first.key.type_code && piece.key.name == first.key.name;
            let resident = matches!(first.body, OwnedBody::Resident { .. });
            let count = if resident { 1 } else { rest.iter().take_while(same).count() };
            let (group, behind) = rest.split_at(count);
            rest = behind;
            self.join_attribute(row, number, group)?;
        }
        Ok(())
    }

    fn join_attribute(&mut self, row: usize, number: u64, group: &[Piece]) -> Result<(), Failure> {
        let Some(first) = group.first() else { return Ok(()) };
        let holder = first.holder.number();
        let (code, flags, name) = (first.key.type_code, first.flags, first.key.name.as_slice());
        match &first.body {
            OwnedBody::Resident { at, value } => {
                let body = Body::Resident { at: usize::from(*at), value };
                let attribute = Attribute { offset: 0, type_code: code, name, flags, instance: first.instance, body };
                self.add_resident(row, &attribute, holder, *at, value)
            }
            OwnedBody::NonResident { sizes, .. } => {
                let first_run = self.found.catalog.runs.len();
                let mut expected = 0;
                for piece in group {
                    let OwnedBody::NonResident { next_vcn, runs, .. } = &piece.body else { continue };
                    if piece.key.lowest_vcn != expected {
                        self.damage_row(row, number, "the pieces of an attribute do not join");
                        self.leave(std::slice::from_ref(piece), "a piece of an attribute that does not join");
                        continue;
                    }
                    self.found.catalog.runs.extend(runs);
                    expected = *next_vcn;
                }
                self.add_stream(row, code, name, flags, holder, *sizes, first_run)
            }
        }
    }

    /// Lists are bounded by what $MFT could hold of attributes, so that a hostile volume cannot make us read it many times.
    fn read_list(&mut self, number: u64, list: &List) -> Result<Vec<u8>, Failure> {
        let (runs, size) = match list {
            List::Resident(value) => return Ok(value.clone()),
            List::InClusters { runs, size } => (runs, *size),
        };
        let stream = Stream::new(self.device, runs);
        let len = size.min(stream.len());
        self.list_bytes = self.list_bytes.saturating_add(len);
        if len > MAX_LIST || self.list_bytes > self.mft.records().saturating_mul(2 * u64::from(self.device.geometry.record)) {
            self.damage(number, "the attribute list is longer than can be");
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; len as usize];
        stream.read(self.device.source, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Keeps the clusters of pieces that found no file.
    fn leave(&mut self, pieces: &[Piece], text: &str) {
        for piece in pieces {
            self.damage(piece.holder.number(), text);
            if let OwnedBody::NonResident { runs, .. } = &piece.body {
                self.found.extra.extend(runs.iter().filter(|run| run.start().is_some()));
            }
        }
    }

    fn add_resident(&mut self, row: usize, attribute: &Attribute<'_>, holder: u64, at: u16, value: &[u8]) -> Result<(), Failure> {
        match attribute.type_code {
            kind::STANDARD_INFORMATION => self.add_standard_information(row, value),
            kind::FILE_NAME => self.add_name(row, value)?,
            kind::INDEX_ROOT if attribute.name == I30 => {
                self.found.roots.push((self.found.catalog.records[row].number, value.to_vec()))
            }
            _ => {}
        }
        let catalog = &mut self.found.catalog;
        let keep = matches!(
            attribute.type_code,
            kind::DATA | kind::BITMAP | kind::REPARSE_POINT | kind::EA | kind::VOLUME_NAME | kind::VOLUME_INFORMATION
        );
        let place = if keep { index(catalog.values.len())? } else { AttributeRow::NO_VALUE };
        if keep {
            catalog.values.extend_from_slice(value);
        }
        let length = u16::try_from(value.len()).map_err(|_| Overflow)?;
        let label = self.label(attribute.type_code, attribute.name, attribute.flags, false)?;
        self.add_row(row, holder, AttributeRow { label, place, offset: at, length })
    }

    #[allow(clippy::too_many_arguments)]
    fn add_stream(
        &mut self,
        row: usize,
        type_code: u32,
        name: &[u8],
        flags: u16,
        holder: u64,
        sizes: Sizes,
        first_run: usize,
    ) -> Result<(), Failure> {
        let catalog = &mut self.found.catalog;
        let stream = index(catalog.streams.len())?;
        catalog.streams.push(StreamRow {
            size: sizes.size,
            initialized: sizes.initialized,
            first_run: index(first_run)?,
            runs: index(catalog.runs.len() - first_run)?,
            compression_unit: sizes.compression_unit,
        });
        index(catalog.runs.len())?;
        let label = self.label(type_code, name, flags, true)?;
        self.add_row(row, holder, AttributeRow { label, place: stream, offset: 0, length: 0 })
    }

    fn add_row(&mut self, row: usize, holder: u64, attribute: AttributeRow) -> Result<(), Failure> {
        let catalog = &mut self.found.catalog;
        let place = index(catalog.attributes.len())?;
        let record = &mut catalog.records[row];
        record.attributes += 1;
        if holder != u64::from(record.number) {
            catalog.elsewhere.push((place, u32::try_from(holder).map_err(|_| Overflow)?));
        }
        catalog.attributes.push(attribute);
        Ok(())
    }

    fn label(&mut self, type_code: u32, name: &[u8], flags: u16, non_resident: bool) -> Result<u32, Failure> {
        let mut key = [0; 7 + 510];
        key[..4].copy_from_slice(&type_code.to_le_bytes());
        key[4..6].copy_from_slice(&flags.to_le_bytes());
        key[6] = non_resident.into();
        key[7..7 + name.len()].copy_from_slice(name);
        let key = &key[..7 + name.len()];
        if let Some(label) = self.labels.get(key) {
            return Ok(*label);
        }
        let label = index(self.found.catalog.labels.len())?;
        let (name, name_units) = self.add_text(name)?;
        self.found.catalog.labels.push(Label { type_code, name, name_units, non_resident, flags });
        self.labels.insert(key.to_vec(), label);
        Ok(label)
    }

    fn add_standard_information(&mut self, row: usize, value: &[u8]) {
        let row = &mut self.found.catalog.records[row];
        if let Ok((information, _)) = StandardInformation::ref_from_prefix(value) {
            row.times = information.times.map(|time| time.get());
            row.file_attributes = information.file_attributes.get();
        }
        if let Some(Ok(id)) = value.get(SECURITY_ID).map(<[u8; 4]>::try_from) {
            row.security_id = u32::from_le_bytes(id);
        }
    }

    fn add_name(&mut self, row: usize, value: &[u8]) -> Result<(), Failure> {
        let Some((fixed, name)) = FileName::parse(value) else {
            let number = self.found.catalog.records[row].number.into();
            self.damage_row(row, number, "a file name is cut");
            return Ok(());
        };
        let (parent, name_space) = (fixed.parent.get(), fixed.name_space);
        let (text, units) = self.add_text(name)?;
        self.found.catalog.names.push(NameRow { parent, text, units, name_space, indexed: false });
        index(self.found.catalog.names.len())?;
        self.found.catalog.records[row].names += 1;
        Ok(())
    }

    fn add_text(&mut self, name: &[u8]) -> Result<(u32, u8), Failure> {
        if name.is_empty() {
            return Ok((0, 0));
        }
        let text = &mut self.found.catalog.text;
        let first = index(text.len())?;
        text.extend(name.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])));
        Ok((first, (name.len() / 2) as u8))
    }

    fn damage(&mut self, number: u64, text: &str) {
        self.notes.damage(number, self.mft.position(number), text);
    }

    fn damage_row(&mut self, row: usize, number: u64, text: &str) {
        self.found.catalog.records[row].flags |= RecordRow::DAMAGED;
        self.damage(number, text);
    }

    fn note(&mut self, number: u64, text: &str) {
        use crate::map::note::{Note, Severity};
        let note = Note::new(Severity::Warning, text).record(number);
        self.notes.push(Note { at: self.mft.position(number), ..note });
    }
}

/// Records before this one belong to the file system.
pub(super) const FIRST_USER: u64 = 24;

/// The name of a directory's index.
pub(super) const I30: &[u8] = b"$\0I\x003\x000\0";
