//! $MFT itself: found through its own record 0, whose runs may go on in records that only those runs lead to.
//!
//! It hands out records as they lie on disk; what is in them is for [`super::build`]. Where record 0 is bad $MFTMirr serves.

use super::device::{Device, Stream};
use super::record::{Attributes, Body, FileReference, IN_USE, NonResident, fix_up, kind, list_entries};
use super::runs::Run;
use super::{Failure, MAX_LIST};
use crate::map::note::Notes;
use crate::map::source::MAX_READ;
use std::io;

/// Where the file records are.
#[derive(Debug)]
pub struct Mft {
    stream: Stream,
    /// Bytes of the stream that hold records.
    valid: u64,
    record: u32,
    /// $MFT:$BITMAP, where it could be read.
    in_use: Option<Vec<u8>>,
    /// Good copies of the first records, from $MFTMirr.
    mirror: Vec<Option<Vec<u8>>>,
    /// Why some records may not have been seen.
    pub incomplete: Option<&'static str>,
}

impl Mft {
    /// Reads record 0 and all runs of $MFT.
    ///
    /// # Errors
    /// [`Failure::Broken`] when both copies of record 0 are bad.
    pub fn open(device: &Device<'_>, notes: &mut Notes) -> Result<Self, Failure> {
        let geometry = device.geometry;
        let first = copies(device, geometry.mft_lcn, 1)?.pop().flatten();
        let mirror = copies(device, geometry.mftmirr_lcn, MIRRORED)?;
        let usable =
            |record: &Option<Vec<u8>>| record.as_deref().is_some_and(|record| data_runs(record, geometry.clusters).is_some());
        let zero = if usable(&first) {
            first
        } else {
            notes.damage(0, device.position_of(geometry.mft_lcn), "record 0 is bad: used its copy in $MFTMirr");
            mirror.first().cloned().filter(usable).flatten()
        };
        let zero = zero.ok_or(Failure::Broken("file record 0 is bad, and so is its copy in $MFTMirr"))?;
        let mut mft =
            Self { stream: Stream::default(), valid: 0, record: geometry.record, in_use: None, mirror, incomplete: None };
        mft.follow(device, &zero)?;
        let copy = mft.mirror.first().and_then(|copy| copy.as_deref());
        if copy.is_some_and(|copy| data_runs(copy, geometry.clusters) != data_runs(&zero, geometry.clusters)) {
            mft.incomplete = Some("record 0 and its copy in $MFTMirr disagree about where $MFT is");
        }
        if let Some(own) = mft.mirror.first_mut() {
            *own = Some(zero);
        }
        if let Some(reason) = mft.incomplete {
            notes.damage(0, device.position_of(geometry.mft_lcn), reason);
        }
        Ok(mft)
    }

    /// Number of records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.valid / u64::from(self.record)
    }

    /// Byte position of a record on the LUN.
    #[must_use]
    pub fn position(&self, number: u64) -> Option<u64> {
        self.stream.position(number.checked_mul(self.record.into())?)
    }

    /// Bit of $MFT:$BITMAP; `None` where that is not known.
    #[must_use]
    pub fn marked(&self, number: u64) -> Option<bool> {
        let byte = self.in_use.as_ref()?.get(usize::try_from(number / 8).ok()?)?;
        Some(byte >> (number % 8) & 1 == 1)
    }

    /// A good copy of one of the first records, whose own place may be damaged.
    #[must_use]
    pub fn copy(&self, number: u64) -> Option<&[u8]> {
        self.mirror.get(usize::try_from(number).ok()?)?.as_deref()
    }

    /// Calls `take` with the number and the raw bytes of each record, in order.
    ///
    /// # Errors
    /// Those of the source and of `take`.
    pub fn scan<E: From<io::Error>>(
        &self,
        device: &Device<'_>,
        mut take: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let record = self.record as usize;
        let mut buffer = vec![0; MAX_READ];
        let (mut offset, mut number) = (0, 0);
        let end = self.records() * u64::from(self.record);
        while offset < end {
            let len = (end - offset).min(MAX_READ as u64) as usize;
            self.stream.read(device.source, offset, &mut buffer[..len])?;
            for bytes in buffer[..len].chunks_exact_mut(record) {
                take(number, bytes)?;
                number += 1;
            }
            offset += len as u64;
        }
        Ok(())
    }

    fn follow(&mut self, device: &Device<'_>, zero: &[u8]) -> Result<(), Failure> {
        let clusters = device.geometry.clusters;
        let (header, attributes) = Attributes::new(zero).map_err(Failure::Broken)?;
        let own = FileReference(u64::from(header.sequence_number.get()) << 48);
        let mut bitmap = Bitmap::default();
        let mut list = None;
        for attribute in attributes.flatten() {
            match (attribute.type_code, attribute.body) {
                (kind::DATA, Body::NonResident(data)) if attribute.name.is_empty() => {
                    self.valid = data.data_size.min(data.initialized_size);
                    for run in checked_runs(&data, clusters).map_err(Failure::Broken)? {
                        self.stream.append(device, run);
                    }
                }
                (kind::BITMAP, Body::NonResident(value)) => match checked_runs(&value, clusters) {
                    Ok(runs) => bitmap = Bitmap { runs, size: value.initialized_size.min(value.data_size), resident: None },
                    Err(_) => bitmap = Bitmap::default(),
                },
                (kind::BITMAP, Body::Resident { value, .. }) => bitmap.resident = Some(value.to_vec()),
                (kind::ATTRIBUTE_LIST, Body::Resident { value, .. }) => list = Some(value.to_vec()),
                (kind::ATTRIBUTE_LIST, Body::NonResident(value)) => list = Some(self.list_in_clusters(device, &value)?),
                _ => {}
            }
        }
        if let Some(list) = list {
            self.follow_list(device, &list, own, &mut bitmap)?;
        }
        if self.valid > self.stream.len() {
            self.incomplete = Some("the run list of $MFT is shorter than $MFT");
            self.valid = self.stream.len();
        }
        self.in_use = bitmap.read(device, self.records())?;
        Ok(())
    }

    /// An empty list means that it could not be read; the length check of `follow` then tells.
    fn list_in_clusters(&mut self, device: &Device<'_>, value: &NonResident<'_>) -> io::Result<Vec<u8>> {
        let Ok(runs) = checked_runs(value, device.geometry.clusters) else { return Ok(Vec::new()) };
        let stream = Stream::new(device, &runs);
        let mut list = vec![0; value.data_size.min(stream.len()).min(MAX_LIST) as usize];
        stream.read(device.source, 0, &mut list)?;
        Ok(list)
    }

    /// Each piece must lead to the next: a record that holds a later piece is found through the earlier ones.
    fn follow_list(&mut self, device: &Device<'_>, list: &[u8], own: FileReference, bitmap: &mut Bitmap) -> Result<(), Failure> {
        let cluster = device.geometry.cluster;
        let (mut entries, complete) = list_entries(list);
        if !complete {
            self.incomplete = Some("the attribute list of $MFT is damaged");
        }
        entries.sort_by_key(|entry| (entry.type_code.get(), entry.lowest_vcn.get()));
        for entry in entries {
            let holder = FileReference(entry.record.get());
            let (code, lowest) = (entry.type_code.get(), entry.lowest_vcn.get());
            if holder.number() == 0 || !matches!(code, kind::DATA | kind::BITMAP) {
                continue;
            }
            let Some(runs) = self.piece(device, holder, own, code, lowest)? else {
                if code == kind::DATA {
                    self.incomplete = Some("a piece of $MFT's own run list cannot be found");
                }
                continue;
            };
            if code == kind::DATA {
                if lowest.checked_mul(cluster) != Some(self.stream.len()) {
                    self.incomplete = Some("the pieces of $MFT's own run list do not join");
                    continue;
                }
                runs.into_iter().for_each(|run| self.stream.append(device, run));
            } else {
                bitmap.runs.extend(runs);
            }
        }
        Ok(())
    }

    /// The runs of one piece in another record, which must name record 0 as its base in all 64 bits.
    fn piece(
        &self,
        device: &Device<'_>,
        holder: FileReference,
        base: FileReference,
        code: u32,
        lowest: u64,
    ) -> io::Result<Option<Vec<Run>>> {
        let Some(offset) = holder.number().checked_mul(self.record.into()) else { return Ok(None) };
        if offset.checked_add(self.record.into()).is_none_or(|end| end > self.stream.len()) {
            return Ok(None);
        }
        let mut bytes = vec![0; self.record as usize];
        self.stream.read(device.source, offset, &mut bytes)?;
        if fix_up(&mut bytes) != Ok(*b"FILE") {
            return Ok(None);
        }
        let Ok((header, attributes)) = Attributes::new(&bytes) else { return Ok(None) };
        let agrees = header.base_record.get() == base.0
            && header.sequence_number.get() == holder.sequence()
            && header.flags.get() & IN_USE != 0;
        if !agrees {
            return Ok(None);
        }
        let found = attributes.flatten().find_map(|attribute| match attribute.body {
            Body::NonResident(value) if attribute.type_code == code && value.lowest_vcn == lowest => Some(value),
            _ => None,
        });
        Ok(found.and_then(|value| checked_runs(&value, device.geometry.clusters).ok()))
    }
}

/// All runs of one piece, whose sum must be what its header says.
///
/// # Errors
/// The first problem.
pub fn checked_runs(value: &NonResident<'_>, clusters: u64) -> Result<Vec<Run>, &'static str> {
    let runs = value.runs(clusters).collect::<Result<Vec<_>, _>>()?;
    check_sum(value, runs.iter().copied())?;
    Ok(runs)
}

/// A piece maps exactly the clusters that its header names. An empty piece may name anything.
pub(super) fn check_sum(value: &NonResident<'_>, runs: impl Iterator<Item = Run>) -> Result<(), &'static str> {
    let mut sum = 0u64;
    for run in runs {
        sum = sum.checked_add(run.clusters).ok_or("a run list is longer than 64 bits")?;
    }
    let named = value.highest_vcn.wrapping_sub(value.lowest_vcn).wrapping_add(1);
    if sum == 0 || sum == named { Ok(()) } else { Err("a run list is not as long as its attribute says") }
}

/// $MFT:$BITMAP while it is being found.
#[derive(Debug, Default)]
struct Bitmap {
    runs: Vec<Run>,
    size: u64,
    resident: Option<Vec<u8>>,
}

impl Bitmap {
    fn read(self, device: &Device<'_>, records: u64) -> io::Result<Option<Vec<u8>>> {
        if self.resident.is_some() {
            return Ok(self.resident);
        }
        let stream = Stream::new(device, &self.runs);
        let len = self.size.min(stream.len()).min(records.div_ceil(8));
        if len == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        stream.read(device.source, 0, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// The first records at a place, each whole or `None`.
fn copies(device: &Device<'_>, lcn: u64, count: u64) -> io::Result<Vec<Option<Vec<u8>>>> {
    let record = u64::from(device.geometry.record);
    let fits = lcn < device.geometry.clusters && device.position(lcn) + count * record <= device.range.end();
    if !fits {
        return Ok(vec![None; count as usize]);
    }
    let mut bytes = vec![0; (count * record) as usize];
    device.source.read_at(device.position(lcn), &mut bytes)?;
    let whole = |record: &mut [u8]| (fix_up(record) == Ok(*b"FILE")).then(|| record.to_vec());
    Ok(bytes.chunks_exact_mut(record as usize).map(whole).collect())
}

/// The runs of $MFT that record 0 itself maps; `None` where it is no usable record 0.
fn data_runs(record: &[u8], clusters: u64) -> Option<Vec<Run>> {
    let (header, attributes) = Attributes::new(record).ok()?;
    let own = header.flags.get() & IN_USE != 0 && header.base_record == 0;
    let runs = attributes.flatten().filter(|_| own).find_map(|attribute| match attribute.body {
        Body::NonResident(data) if attribute.type_code == kind::DATA && attribute.name.is_empty() && data.lowest_vcn == 0 => {
            checked_runs(&data, clusters).ok()
        }
        _ => None,
    });
    runs.filter(|runs| !runs.is_empty())
}

/// Records that $MFTMirr holds at least.
const MIRRORED: u64 = 4;
