//! NTFS volumes for the judges of the map, and what ntfs-3g and sleuthkit say about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that the judges need; the names of those that are missing.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let programs = ["mkntfs", "ntfs-3g", "ntfsinfo", "ntfsclone", "fls", "istat", "ifind", "python3", "zstd"];
    let mut missing: Vec<_> = programs.into_iter().filter(|program| !crate::has(program)).collect();
    if !Path::new("/dev/fuse").exists() {
        missing.push("/dev/fuse");
    }
    missing
}

/// How a volume is made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Bytes of a sector, of the disk and of the volume.
    pub sector: u32,
    /// Bytes of a cluster.
    pub cluster: u32,
}

/// Makes a disk of 192 MiB with the files of the fixture in another shape.
///
/// # Errors
/// What the script printed.
pub fn make_disk(folder: &Path, shape: Shape) -> Result<PathBuf, String> {
    let disk = folder.join(format!("disk-{}-{}.img", shape.sector, shape.cluster));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/make-ntfs-fixture");
    let mut command = Command::new(script);
    command.arg(&disk).env("SECTOR", shape.sector.to_string()).env("CLUSTER", shape.cluster.to_string());
    command.envs([("MIB", "192"), ("BIG", "2"), ("COMB", "500"), ("HOLE", "1G"), ("RAW", "1")]).env("TMPDIR", folder);
    output(&mut command)?;
    Ok(disk)
}

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// Its name, exit status and what it said, when it fails.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies bytes `start..` of a disk into a file of its own: ntfs-3g's tools know no partitions.
///
/// # Errors
/// Those of the copy.
pub fn cut_partition(disk: &Path, start: u64, volume: &Path) -> Result<(), String> {
    let (from, to) = (format!("if={}", disk.display()), format!("of={}", volume.display()));
    let skip = format!("skip={start}");
    output(Command::new("dd").args([&from, &to, &skip, "iflag=skip_bytes", "bs=1M", "conv=sparse", "status=none"])).map(drop)
}

/// An attribute as `ntfsinfo` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// In the file record.
    pub resident: bool,
    /// Bytes of the value.
    pub size: u64,
    /// First VCN, LCN (`None` for a hole), clusters; joined where they touch.
    pub runs: Vec<(u64, Option<u64>, u64)>,
}

/// All attributes of a file, by type and name; `None` where `ntfsinfo` fails on the record.
#[must_use]
pub fn ntfsinfo(volume: &Path, record: u64) -> Option<BTreeMap<(u32, String), Told>> {
    let text = output(Command::new("ntfsinfo").args(["-f", "-v", "-i", &record.to_string()]).arg(volume)).ok()?;
    let mut pieces: Vec<((u32, String), u64, Told)> = Vec::new();
    for block in text.split("Dumping attribute $").skip(1) {
        let block = block.split("Dumping attribute list").next()?;
        let code = block.split_once("(0x").and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code);
        let code = u32::from_str_radix(code?, 16).ok()?;
        let field = |name: &str| block.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        let number = |name: &str| field(name).and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let name = field("Attribute name:").unwrap_or_default().trim_matches('\'').to_owned();
        let runs = block.lines().filter_map(run).collect();
        let told = Told { resident: field("Resident:") == Some("Yes"), size: number("Data size:").unwrap_or(u64::MAX), runs };
        pieces.push(((code, name), number("Lowest VCN").unwrap_or(0), told));
    }
    pieces.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut attributes: BTreeMap<(u32, String), Told> = BTreeMap::new();
    for (key, lowest, told) in pieces {
        // Names of one file may be many, under one key: their sizes are not compared.
        match attributes.get_mut(&key) {
            Some(whole) if lowest > 0 => whole.runs.extend(told.runs),
            _ => drop(attributes.insert(key, told)),
        }
    }
    attributes.values_mut().for_each(|told| told.runs = join(&told.runs));
    Some(attributes)
}

/// A line of a run list: three numbers, or `<HOLE>` in the middle.
fn run(line: &str) -> Option<(u64, Option<u64>, u64)> {
    let mut words = line.split_whitespace();
    let (vcn, lcn, len) = (words.next()?, words.next()?, words.next()?);
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let lcn = if lcn == "<HOLE>" { None } else { Some(hex(lcn)?) };
    words.next().is_none().then_some((hex(vcn)?, lcn, hex(len)?))
}

/// Joins runs that follow each other both in the file and on the volume.
#[must_use]
pub fn join(runs: &[(u64, Option<u64>, u64)]) -> Vec<(u64, Option<u64>, u64)> {
    let mut joined: Vec<(u64, Option<u64>, u64)> = Vec::new();
    for (vcn, lcn, len) in runs {
        match joined.last_mut() {
            Some((_, last, count)) if last.map(|start| start + *count) == *lcn || last.is_none() && lcn.is_none() => {
                *count += len
            }
            _ => joined.push((*vcn, *lcn, *len)),
        }
    }
    joined
}

/// Sleuthkit's offset of a partition, in its own sectors.
fn at(start: u64, sector: u32) -> [String; 6] {
    ["-f", "ntfs", "-b", &sector.to_string(), "-o", &(start / u64::from(sector)).to_string()].map(str::to_owned)
}

/// All names that sleuthkit finds: record number and path without a leading slash.
///
/// # Errors
/// What `fls` said.
pub fn fls(disk: &Path, start: u64, sector: u32) -> Result<BTreeSet<(u64, String)>, String> {
    let text = output(Command::new("fls").args(["-r", "-p"]).args(at(start, sector)).arg(disk))?;
    let name = |line: &str| {
        let (entry, path) = line.split_once(":\t")?;
        let record = entry.split_whitespace().last()?.split('-').next()?.parse().ok()?;
        // A stream stands behind a colon; a folder's own streams behind "/.".
        let path = path.split(':').next()?.trim_end_matches("/.");
        Some((record, path.to_owned()))
    };
    // A star marks a name whose file is deleted.
    let there =
        |line: &&str| !line.contains("$OrphanFiles") && !line.split('\t').next().is_some_and(|entry| entry.contains(" * "));
    Ok(text.lines().filter(there).filter_map(name).collect())
}

/// The clusters of the attributes in clusters of a file, as sleuthkit lists them: `0` in a hole.
///
/// # Errors
/// What `istat` said.
pub fn istat(disk: &Path, start: u64, sector: u32, record: u64) -> Result<BTreeMap<(u32, String), Vec<u64>>, String> {
    let text = output(Command::new("istat").args(at(start, sector)).arg(disk).arg(record.to_string()))?;
    let mut found = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        // An attribute list is printed with types, too, but without names.
        if let Some(rest) = line.strip_prefix("Type: ").filter(|rest| rest.contains("Name: ")) {
            let code = rest.split_once('(').and_then(|(_, rest)| rest.split('-').next()?.parse().ok()).ok_or(line)?;
            let name = rest.split_once("Name: ").and_then(|(_, rest)| rest.split("   ").next()).ok_or(line)?;
            let key = (code, if name == "N/A" { String::new() } else { name.to_owned() });
            current = rest.contains("Non-Resident").then_some(key);
            if let Some(key) = &current {
                found.entry(key.clone()).or_insert_with(Vec::new);
            }
        } else if let Some(clusters) = current.as_ref().and_then(|key| found.get_mut(key)) {
            clusters.extend(line.split_whitespace().map_while(|word| word.parse::<u64>().ok()));
        }
    }
    Ok(found)
}

/// The record that holds a cluster, as sleuthkit finds it.
///
/// # Errors
/// What `ifind` said.
pub fn ifind(disk: &Path, start: u64, sector: u32, lcn: u64) -> Result<Option<u64>, String> {
    let text = output(Command::new("ifind").args(at(start, sector)).args(["-d", &lcn.to_string()]).arg(disk))?;
    Ok(text.trim().split('-').next().and_then(|record| record.parse().ok()))
}

/// The clusters that ntfsclone copies, out of its image format: gaps and clusters in order.
///
/// # Errors
/// What `ntfsclone` said.
pub fn ntfsclone(volume: &Path, folder: &Path) -> Result<Vec<u64>, String> {
    let image = folder.join("ntfsclone.image");
    output(Command::new("ntfsclone").args(["-q", "-f", "-s", "-O"]).arg(&image).arg(volume))?;
    let image = fs::read(&image).map_err(|error| error.to_string())?;
    let cluster = u32::from_le_bytes(image[18..22].try_into().map_err(|_| "short")?) as usize;
    let clusters = u64::from_le_bytes(image[30..38].try_into().map_err(|_| "short")?);
    let data = u32::from_le_bytes(image[46..50].try_into().map_err(|_| "short")?) as usize;
    let (mut rest, mut lcn, mut used) = (&image[data..], 0, Vec::new());
    while let Some((command, behind)) = rest.split_first() {
        match command {
            0 => {
                let (count, behind) = behind.split_at(8);
                lcn += u64::from_le_bytes(count.try_into().map_err(|_| "short")?);
                rest = behind;
            }
            1 => {
                used.push(lcn);
                lcn += 1;
                rest = &behind[cluster.min(behind.len())..];
            }
            other => return Err(format!("ntfsclone image: command {other} at cluster {lcn}")),
        }
    }
    // The last "cluster" of the image is the backup boot sector behind the volume.
    used.retain(|lcn| *lcn < clusters);
    Ok(used)
}

/// A volume mounted by ntfs-3g for reading; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    /// Mounts `volume` in a new folder.
    ///
    /// # Errors
    /// What ntfs-3g said.
    pub fn new(volume: &Path, folder: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        output(Command::new("ntfs-3g").args(["-o", "ro,streams_interface=windows"]).arg(volume).arg(&folder))?;
        Ok(Self { folder })
    }

    /// Path below the root → kind, length and BLAKE3 of the first [`COMPARED`] bytes.
    ///
    /// # Errors
    /// Those of reading.
    pub fn tree(&self) -> std::io::Result<BTreeMap<String, (String, u64, String)>> {
        let mut tree = BTreeMap::new();
        let mut open = vec![self.folder.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let about = fs::symlink_metadata(&path)?;
                let name = path.strip_prefix(&self.folder).unwrap_or(&path).to_string_lossy().into_owned();
                let (kind, hash) = if about.is_dir() {
                    open.push(path.clone());
                    ("folder", String::new())
                } else if about.is_symlink() {
                    ("link", fs::read_link(&path)?.to_string_lossy().into_owned())
                } else {
                    ("file", hash(&path)?)
                };
                tree.insert(name, (kind.to_owned(), about.len(), hash));
            }
        }
        Ok(tree)
    }

    /// BLAKE3 of the first [`COMPARED`] bytes of a stream, named as `path:stream`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn hash(&self, path: &str) -> std::io::Result<String> {
        hash(&self.folder.join(path.trim_start_matches('/')))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("umount").arg(&self.folder)) {
            eprintln!("{error}");
        }
    }
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs::File::open(path)?.take(COMPARED);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            count => drop(hasher.update(&buffer[..count])),
        }
    }
}

/// A file is compared up to this byte: behind it the test files are one hole.
pub const COMPARED: u64 = 128 << 20;
