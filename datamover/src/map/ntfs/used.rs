//! Which clusters are in use: $Bitmap joined with every run list.
//!
//! $Bitmap alone is not believed: a file whose clusters it calls free would be lost. Where the two disagree the set is the
//! larger one and the difference is reported.

use super::boot::Geometry;
use super::catalog::Catalog;
use super::device::{Device, Stream};
use super::names::ROOT;
use super::runs::Run;
use crate::map::extents::Extents;
use crate::map::note::{Note, Notes, Severity};
use crate::map::source::MAX_READ;
use protocol::units::ByteRange;
use std::io;

/// Record numbers of the system files that are read here.
pub mod system {
    #![allow(missing_docs)]
    pub const LOG_FILE: u64 = 2;
    pub const VOLUME: u64 = 3;
    pub const BITMAP: u64 = 6;
    pub const BAD_CLUSTERS: u64 = 8;
    pub const UP_CASE: u64 = 10;
}
const _: () = assert!(ROOT == 5);

/// What $Bitmap says, as bytes of the LUN. `Err` with a phrase where it cannot be read as a whole.
///
/// # Errors
/// Those of the source.
pub fn bitmap(device: &Device<'_>, catalog: &Catalog, notes: &mut Notes) -> io::Result<Result<Extents, &'static str>> {
    let Some(row) = catalog.system_stream(system::BITMAP) else { return Ok(Err("$Bitmap has no clusters of its own")) };
    let stream = Stream::new(device, catalog.runs_of(row));
    let Geometry { clusters, .. } = device.geometry;
    let wanted = clusters.div_ceil(8);
    let len = row.size.min(row.initialized).min(stream.len()).min(wanted);
    let mut found = Collector::new(device);
    let mut buffer = vec![0; MAX_READ];
    let mut offset = 0;
    while offset < len {
        let part = &mut buffer[..(len - offset).min(MAX_READ as u64) as usize];
        stream.read(device.source, offset, part)?;
        found.take(offset * 8, part);
        offset += part.len() as u64;
    }
    if len < wanted {
        notes.damage(system::BITMAP, None, "$Bitmap is shorter than the volume: what it does not tell counts as used");
        found.mark(len * 8, clusters);
    }
    Ok(Ok(found.finish()))
}

/// Turns bits into extents. Never holds more than a bounded number of them: then small gaps are closed.
struct Collector<'a> {
    device: &'a Device<'a>,
    found: Extents,
    open: Option<u64>,
    gap: u64,
}

impl<'a> Collector<'a> {
    fn new(device: &'a Device<'a>) -> Self {
        Self { device, found: Extents::new(), open: None, gap: device.geometry.cluster }
    }

    fn take(&mut self, first: u64, bytes: &[u8]) {
        for (lcn, byte) in (first..).step_by(8).zip(bytes) {
            match (byte, self.open) {
                (0, None) | (0xFF, Some(_)) => {}
                _ => (0..8).for_each(|bit| self.bit(lcn + bit, byte >> bit & 1 == 1)),
            }
        }
    }

    fn bit(&mut self, lcn: u64, used: bool) {
        match (used, self.open) {
            (true, None) => self.open = Some(lcn),
            (false, Some(start)) => {
                self.open = None;
                self.mark(start, lcn);
            }
            _ => {}
        }
    }

    /// Bits behind the last cluster are one by rule and mean nothing.
    fn mark(&mut self, start: u64, end: u64) {
        let end = end.min(self.device.geometry.clusters);
        if start >= end {
            return;
        }
        self.found.push(ByteRange { start: self.device.position(start), len: (end - start) * self.device.geometry.cluster });
        while self.found.runs().len() > MAX_EXTENTS {
            self.gap *= 2;
            self.found.close_gaps(self.gap);
        }
    }

    fn finish(mut self) -> Extents {
        if let Some(start) = self.open {
            self.mark(start, self.device.geometry.clusters);
        }
        self.found
    }
}

/// False when the clusters of the system files are not all marked: then what was read is no $Bitmap, or one not to be believed.
#[must_use]
pub fn marks_itself(device: &Device<'_>, catalog: &Catalog, bitmap: &Extents) -> bool {
    let held = (0..=system::UP_CASE).filter_map(|number| catalog.system_stream(number));
    let mut runs = held.flat_map(|stream| catalog.runs_of(stream)).filter_map(|run| device.bytes_of(*run));
    runs.all(|range| bitmap.covers(range))
}

/// What all run lists hold, as bytes of the LUN. Clusters that two attributes claim are reported.
pub fn claimed(device: &Device<'_>, catalog: &Catalog, extra: &[Run], notes: &mut Notes) -> Extents {
    let held = catalog.runs.iter().chain(extra).filter_map(|run| device.bytes_of(*run));
    let mut ranges: Vec<ByteRange> = held.collect();
    ranges.sort_unstable();
    let (mut end, mut twice, mut first) = (0, 0u64, None);
    for range in &ranges {
        if range.start < end {
            twice = twice.saturating_add(end.min(range.end()) - range.start);
            first = first.or(Some(range.start));
        }
        end = end.max(range.end());
    }
    if let Some(at) = first {
        let text = format!("{twice} bytes are claimed by more than one attribute");
        notes.push(Note::new(Severity::Damage, text).at(at));
    }
    ranges.into()
}

/// Says how the two sources of truth differ.
pub fn compare(bitmap: &Extents, claimed: &Extents, notes: &mut Notes) {
    let missing = claimed.subtract(bitmap);
    if let Some(first) = missing.runs().first() {
        let text = format!("{} bytes belong to files but are free in $Bitmap: counted as used", missing.bytes());
        notes.push(Note::new(Severity::Damage, text).at(first.start));
    }
    let ownerless = bitmap.subtract(claimed);
    if let Some(first) = ownerless.runs().first() {
        let text = format!("{} bytes are used in $Bitmap but belong to no file", ownerless.bytes());
        notes.push(Note::new(Severity::Info, text).at(first.start));
    }
}

/// Stretches that the set from a bitmap may have: 64 MiB of memory, and more than any volume in use was seen to have.
const MAX_EXTENTS: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::source::memory::Memory;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_extents_of_a_bitmap_are_its_bits(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0xFF), any::<u8>()], 1..60), cut in 1usize..20) {
            let clusters = bytes.len() as u64 * 8 - 3;
            let memory = Memory::new(Vec::new());
            let sector = super::super::boot::tests::sector(512, 1, clusters, -10);
            let geometry = Geometry::parse(&sector, u64::MAX);
            prop_assume!(geometry.is_ok());
            let range = ByteRange { start: 1024, len: clusters * 512 };
            let device = Device { source: &memory, range, geometry: geometry.unwrap() };
            let mut collector = Collector::new(&device);
            for (index, part) in bytes.chunks(cut).enumerate() {
                collector.take((index * cut * 8) as u64, part);
            }
            let found = collector.finish();
            for lcn in 0..clusters {
                let used = bytes[lcn as usize / 8] >> (lcn % 8) & 1 == 1;
                prop_assert_eq!(found.covers(ByteRange { start: 1024 + lcn * 512, len: 512 }), used);
            }
            prop_assert!(found.runs().iter().all(|run| run.end() <= 1024 + clusters * 512));
        }
    }
}
