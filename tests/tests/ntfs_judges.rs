//! The map of an NTFS volume against programs that others wrote: sleuthkit and the ntfs-3g tools.
//!
//! Every file of the fixture and of volumes in other shapes is compared attribute by attribute and cluster by cluster, in both
//! directions, and a copy of nothing but the used blocks must mount and hold the same files.

use datamover::fixture;
use datamover::map::ntfs::NtfsVolume;
use datamover::map::ntfs::view::{Attribute, File, Place};
use datamover::map::source::FileSource;
use datamover::map::{DiskMap, probe};
use offhost_tests::judges::{self, Mounted, Shape, Told};
use offhost_tests::skip;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A disk, its map and the judges' way to it.
struct Case {
    folder: tempfile::TempDir,
    disk: PathBuf,
    /// The partition alone.
    volume: PathBuf,
    sector: u32,
    map: DiskMap,
    /// Names that must be there at least: an empty comparison proves nothing.
    names: usize,
}

impl Case {
    fn new(folder: tempfile::TempDir, disk: PathBuf, sector: u32, names: usize) -> Self {
        let map = probe(&FileSource::open(&disk, sector).unwrap()).unwrap();
        assert_eq!(map.notes, [], "a volume as mkntfs and ntfs-3g leave it has nothing to say");
        assert_eq!(map.volumes[0].whole, None);
        let volume = folder.path().join("volume.img");
        judges::cut_partition(&disk, map.volumes[0].partition.range.start, &volume).unwrap();
        Self { folder, disk, volume, sector, map, names }
    }

    fn ntfs(&self) -> &NtfsVolume {
        self.map.volumes[0].ntfs.as_ref().unwrap()
    }

    fn start(&self) -> u64 {
        self.ntfs().range.start
    }

    /// The extents as ntfsinfo writes them.
    fn runs(&self, attribute: &Attribute) -> Option<Vec<(u64, Option<u64>, u64)>> {
        let cluster = self.ntfs().geometry.cluster;
        let Place::NonResident { extents, .. } = &attribute.place else { return None };
        let lcn = |at: u64| (at - self.start()) / cluster;
        Some(extents.iter().map(|extent| (extent.offset / cluster, extent.at.map(lcn), extent.len / cluster)).collect())
    }

    fn judge(&self) {
        self.attributes_are_those_of_ntfsinfo();
        if self.ntfs().geometry.cluster <= SLEUTHKIT_CLUSTER {
            self.names_are_those_of_fls();
            self.clusters_are_those_of_istat();
            self.owners_are_those_of_ifind();
        }
        self.used_clusters_are_those_of_ntfsclone();
        self.a_copy_of_the_used_blocks_mounts_and_holds_the_same();
    }

    fn names_are_those_of_fls(&self) {
        let told = judges::fls(&self.disk, self.start(), self.sector).unwrap();
        let links = self.ntfs().files().flat_map(|file| file.links.into_iter().map(move |link| (file.record, link)));
        let mapped: BTreeSet<_> = links
            .filter(|(_, link)| link.path != "/")
            .map(|(record, link)| (record, link.path.trim_start_matches('/').to_owned()))
            .collect();
        assert!(mapped.len() >= self.names);
        assert_eq!(mapped.symmetric_difference(&told).collect::<Vec<_>>(), Vec::<&(u64, String)>::new());
    }

    fn attributes_are_those_of_ntfsinfo(&self) {
        let mut compared = 0;
        for file in self.ntfs().files() {
            let Some(told) = judges::ntfsinfo(&self.volume, file.record) else {
                panic!("ntfsinfo cannot read record {}", file.record);
            };
            let keys: BTreeSet<_> =
                file.attributes.iter().map(|attribute| (attribute.type_code, attribute.name.clone())).collect();
            assert_eq!(keys, told.keys().cloned().collect(), "record {} {}", file.record, file.path);
            for attribute in &file.attributes {
                let Told { resident, size, runs } = &told[&(attribute.type_code, attribute.name.clone())];
                let context = format!("record {} {} {}:{}", file.record, file.path, attribute.kind, attribute.name);
                let mapped = self.runs(attribute);
                assert_eq!(mapped.is_none(), *resident, "{context}");
                assert_eq!(mapped.unwrap_or_default(), *runs, "{context}");
                // The names of one file share a key.
                assert!(attribute.kind == "$FILE_NAME" || attribute.size == *size, "{context}: {} {size}", attribute.size);
                compared += 1;
            }
        }
        println!("{compared} attributes as ntfsinfo tells them");
        assert!(compared >= 3 * self.names);
    }

    fn clusters_are_those_of_istat(&self) {
        let mut compared = 0;
        for file in self.ntfs().files().filter(|file| !misread_by_sleuthkit(file)) {
            if !file.attributes.iter().any(|attribute| matches!(attribute.place, Place::NonResident { .. })) {
                continue;
            }
            let told = judges::istat(&self.disk, self.start(), self.sector, file.record).unwrap();
            for attribute in &file.attributes {
                let Some(runs) = self.runs(attribute) else { continue };
                let key = (attribute.type_code, attribute.name.clone());
                let told = told.get(&key).unwrap_or_else(|| panic!("istat {}: no {key:?}", file.record));
                let step = |(_, lcn, len): &(u64, Option<u64>, u64)| {
                    (0..*len).map(|step| lcn.map_or(0, |lcn| lcn + step)).collect::<Vec<_>>()
                };
                let mapped: Vec<u64> = runs.iter().flat_map(step).collect();
                // Behind the valid data length sleuthkit lists 0 for clusters that are there.
                let wrong = mapped.iter().zip(told).position(|(mapped, told)| mapped != told && *told != 0);
                let Place::NonResident { valid_data_length, .. } = attribute.place else { continue };
                let valid = valid_data_length.div_ceil(self.ntfs().geometry.cluster) as usize;
                let short = mapped.iter().zip(told).take(valid).position(|(mapped, told)| mapped != told);
                let untold = mapped.iter().skip(told.len()).any(|lcn| *lcn != 0);
                let context = format!("record {} {} {key:?}: {} {}", file.record, file.path, told.len(), mapped.len());
                assert_eq!((wrong, short, untold), (None, None, false), "{context}");
                assert!(told.len() >= valid.min(mapped.len()) && told.len() <= mapped.len(), "{context}");
                compared += 1;
            }
        }
        println!("{compared} attributes in clusters as istat tells them");
        assert!(compared >= 10);
    }

    fn owners_are_those_of_ifind(&self) {
        let block = u64::from(self.map.block_length);
        let cluster = self.ntfs().geometry.cluster;
        let mut asked = 0;
        for file in self.ntfs().files().filter(|file| !misread_by_sleuthkit(file)).step_by(7) {
            for attribute in &file.attributes {
                let Place::NonResident { extents, valid_data_length, .. } = &attribute.place else { continue };
                // A cluster in the middle of the last extent that sleuthkit reads: it stops at the valid data length.
                let last = extents.iter().rev().filter(|extent| extent.offset < *valid_data_length);
                let Some((extent, at)) = last.into_iter().find_map(|extent| Some((extent, extent.at?))) else { continue };
                let inside = extent.len.min(valid_data_length - extent.offset) / cluster / 2 * cluster;
                let told = judges::ifind(&self.disk, self.start(), self.sector, (at + inside - self.start()) / cluster).unwrap();
                let owners = self.map.at_lba((at + inside) / block);
                let of_stream = owners.iter().find(|owner| !owner.resident).unwrap();
                assert_eq!((of_stream.record, of_stream.offset), (file.record, extent.offset + inside));
                assert_eq!(told, Some(file.record));
                asked += 1;
            }
        }
        assert!(asked >= 3, "{asked}");
        let free = self.map.volumes[0].used.runs()[0].end().max(self.start());
        let free_lba = free.div_ceil(cluster.max(block)) * cluster.max(block) / block;
        if !self.map.used.covers(protocol::units::ByteRange { start: free_lba * block, len: 1 }) {
            assert_eq!(self.map.at_lba(free_lba), []);
        }
    }

    fn used_clusters_are_those_of_ntfsclone(&self) {
        let told = judges::ntfsclone(&self.volume, self.folder.path()).unwrap();
        let geometry = self.ntfs().geometry;
        let mut clusters = BTreeSet::new();
        for run in self.map.volumes[0].used.runs() {
            let first = (run.start - self.start()) / geometry.cluster;
            let end = (run.end() - self.start()).div_ceil(geometry.cluster).min(geometry.clusters);
            clusters.extend(first..end);
        }
        let missing: Vec<_> = told.iter().filter(|lcn| !clusters.contains(lcn)).collect();
        assert_eq!(missing, Vec::<&u64>::new(), "clusters that ntfsclone copies and the map would not");
        // The boot area is rounded to whole sectors of 8 KiB; beyond that nothing is copied in vain.
        assert!(clusters.len() - told.len() <= 16, "{} {}", clusters.len(), told.len());
        let backup_boot =
            protocol::units::ByteRange { start: self.start() + geometry.volume, len: geometry.bytes_per_sector.into() };
        assert!(self.map.used.covers(backup_boot));
    }

    fn a_copy_of_the_used_blocks_mounts_and_holds_the_same(&self) {
        let copy = self.folder.path().join("copy.img");
        copy_used(&self.disk, &self.map, &copy);
        let copied_volume = self.folder.path().join("copied-volume.img");
        judges::cut_partition(&copy, self.start(), &copied_volume).unwrap();
        assert_eq!(probe(&FileSource::open(&copy, self.sector).unwrap()).unwrap().volumes, self.map.volumes);

        let original = Mounted::new(&self.volume, self.folder.path().join("original")).unwrap();
        let restored = Mounted::new(&copied_volume, self.folder.path().join("restored")).unwrap();
        let tree = original.tree().unwrap();
        assert!(tree.len() + 20 >= self.names);
        assert_eq!(tree, restored.tree().unwrap());
        let mut streams = 0;
        for file in self.ntfs().files().filter(|file| file.record >= 24) {
            for stream in file.attributes.iter().filter(|attribute| attribute.is_data() && !attribute.name.is_empty()) {
                let path = format!("{}:{}", file.path, stream.name);
                assert_eq!(original.hash(&path).unwrap(), restored.hash(&path).unwrap(), "{path}");
                streams += 1;
            }
        }
        assert!(self.names < FIXTURE_NAMES || streams > 40);
    }
}

/// Two legal things that sleuthkit 4.11 reads wrongly: a hole longer than the volume makes it lose the file, and streams in
/// several records may share an attribute id, which it takes for one attribute.
fn misread_by_sleuthkit(file: &File) -> bool {
    file.path.ends_with("/all-hole.bin") || file.path.ends_with("/many.txt")
}

/// Sleuthkit calls larger clusters invalid.
const SLEUTHKIT_CLUSTER: u64 = 64 << 10;

/// Names in a volume of the fixture's files.
const FIXTURE_NAMES: usize = 1600;

/// Only used blocks, in a new sparse file of the same length.
fn copy_used(disk: &Path, map: &DiskMap, copy: &Path) {
    let from = std::fs::File::open(disk).unwrap();
    let to = OpenOptions::new().write(true).create(true).truncate(true).open(copy).unwrap();
    to.set_len(map.size).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for run in map.used.runs() {
        let mut at = run.start;
        while at < run.end() {
            let part = &mut buffer[..(run.end() - at).min(1 << 20) as usize];
            from.read_exact_at(part, at).unwrap();
            if part.iter().any(|byte| *byte != 0) {
                to.write_all_at(part, at).unwrap();
            }
            at += part.len() as u64;
        }
    }
}

fn judge_shape(sector: u32, cluster: u32) {
    let folder = tempfile::tempdir().unwrap();
    let disk = judges::make_disk(folder.path(), Shape { sector, cluster }).unwrap();
    let case = Case::new(folder, disk, sector, FIXTURE_NAMES);
    assert_eq!(case.ntfs().geometry.cluster, u64::from(cluster));
    case.judge();
}

macro_rules! need_judges {
    () => {
        let missing = judges::missing();
        if !missing.is_empty() {
            skip!("missing here: {}", missing.join(", "));
        }
    };
}

#[test]
fn the_fixture_is_mapped_as_sleuthkit_and_ntfs_3g_read_it() {
    need_judges!();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    let file = OpenOptions::new().write(true).create_new(true).open(&disk).unwrap();
    file.set_len(fixture::SIZE).unwrap();
    for piece in fixture::pieces().unwrap() {
        let (offset, bytes) = piece.unwrap();
        file.write_all_at(&bytes, offset).unwrap();
    }
    let case = Case::new(folder, disk, 512, FIXTURE_NAMES);
    let fill: u64 = fixture::files_to_fill(&case.map).flat_map(|(_, places)| places).map(|(_, len)| len).sum();
    assert!(fill >= 256 << 20, "{fill} bytes to be filled");
    let fragmented = case.ntfs().file("/fill/fragmented.bin").unwrap();
    let data = fragmented.attributes.iter().find(|attribute| attribute.is_data()).unwrap();
    assert!(case.runs(data).unwrap().len() > 300);
    case.judge();
}

#[test]
fn clusters_of_512_bytes_are_mapped_as_sleuthkit_and_ntfs_3g_read_them() {
    need_judges!();
    judge_shape(512, 512);
}

#[test]
fn clusters_of_64_kib_are_mapped_as_sleuthkit_and_ntfs_3g_read_them() {
    need_judges!();
    judge_shape(512, 65536);
}

#[test]
fn sectors_of_4096_bytes_are_mapped_as_sleuthkit_and_ntfs_3g_read_them() {
    need_judges!();
    judge_shape(4096, 4096);
}

/// Raw images named `*.raw` in the folder that OFFHOST_NTFS_SAMPLES names; they are others' work and are not kept here.
#[test]
fn volumes_that_windows_wrote_are_mapped_as_sleuthkit_and_ntfs_3g_read_them() {
    need_judges!();
    let Some(samples) = std::env::var_os("OFFHOST_NTFS_SAMPLES") else {
        skip!("OFFHOST_NTFS_SAMPLES names no folder with NTFS images that Windows wrote (as those of msuhanov/ntfs-samples)");
    };
    let images = std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().path());
    let (small, large): (Vec<_>, Vec<_>) = images
        .filter(|path| path.extension().is_some_and(|end| end == "raw"))
        .partition(|path| std::fs::metadata(path).is_ok_and(|about| about.len() <= 2 << 30));
    assert!(!small.is_empty(), "no *.raw in OFFHOST_NTFS_SAMPLES");
    for disk in large {
        offhost_tests::say_skipped(&format!("{}: too large to be cut into partitions here", disk.display()));
    }
    for disk in small {
        println!("{}", disk.display());
        Case::new(tempfile::tempdir().unwrap(), disk, 512, 20).judge();
    }
}
