//! What to serve: one TOML file, or flags for quick use, or nothing at all.
//!
//! Does not open anything. Every mistake in a file is answered with its line; unknown keys are mistakes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{ArgMatches, Args};
use protocol::units::BlockLength;
use serde::Deserialize;

use crate::lun::disk::DiskOptions;

/// Name served when none is given. RFC 7143 (4.2.7.4) wants a date and a domain its owner held.
pub const DEFAULT_TARGET: &str = "iqn.2026-01.org.offhost:target";
/// Where to listen when nothing is said: reachable from this machine only, since there is no authentication unless it is set up.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:3260";
/// The disk made when no LUN is named. Sparse: it costs what is written.
const DEFAULT_DISK_SIZE: ByteSize = ByteSize::gib(20);

/// All that `serve` needs to know.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// iSCSI name of the target.
    #[serde(default = "default_target")]
    pub target: String,
    /// Address and port; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Folder for what the target keeps for itself: copy stores, the lock, the control socket.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// Control socket; `control.sock` in the data folder when absent.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// How long a connection looks for more to do before it sleeps; absent: it sleeps at once.
    #[serde(default)]
    pub busy_poll: Option<Span>,
    /// The mover's program; `offhost-mover` beside this one when absent.
    #[serde(default)]
    pub mover: Option<PathBuf>,
    /// LUN 0 first.
    #[serde(default, rename = "lun")]
    pub luns: Vec<Lun>,
}

/// A length of time as people write it: `500us`, `1ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|why| format!("{text:?} is no length of time: {why}; write it as 500us"))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// One LUN to serve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LunTable")]
pub enum Lun {
    /// A disk on a file or block device.
    Disk(Disk),
    /// A drive with a cartridge.
    Tape(Tape),
}

/// `[[lun]] disk = "vol.img"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// File or block device.
    pub path: PathBuf,
    /// Makes a sparse file of this size where there is none; must agree with a file that exists.
    pub size: Option<ByteSize>,
    /// Everything else: blocks, protection, medium.
    pub options: DiskOptions,
}

impl Disk {
    /// Checked against each other.
    fn check(&self) -> Result<(), String> {
        self.options.check()?;
        let block = self.options.block_length;
        match self.size.map(|size| size.as_u64()) {
            Some(size) if size == 0 || !size.is_multiple_of(block.bytes()) => {
                Err(format!("size {size} is no whole number of {}-byte blocks", block.0))
            }
            _ => Ok(()),
        }
    }
}

/// `[[lun]] tape = "shelf/"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tape {
    /// Folder of a cartridge, or of cartridges; one is made where there is none.
    pub path: PathBuf,
    /// Capacity of a cartridge that is made.
    pub capacity: Option<ByteSize>,
}

/// A `[[lun]]` table as it is written, before it is known to be a disk or a tape: one table, so that a key nobody knows is
/// named in the error.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LunTable {
    disk: Option<PathBuf>,
    size: Option<ByteSize>,
    tape: Option<PathBuf>,
    capacity: Option<ByteSize>,
    block: Option<u32>,
    physical_block: Option<u32>,
    lowest_aligned: Option<u16>,
    read_only: Option<bool>,
    removable: Option<bool>,
    thin: Option<bool>,
    threshold: Option<u8>,
}

impl LunTable {
    fn disk_options(&self) -> DiskOptions {
        let blocks = DiskOptions::from(self.block.map_or(BlockLength::B512, BlockLength));
        DiskOptions {
            physical_block: self.physical_block.unwrap_or(blocks.physical_block),
            lowest_aligned: self.lowest_aligned.unwrap_or(blocks.lowest_aligned),
            read_only: self.read_only.unwrap_or(blocks.read_only),
            removable: self.removable.unwrap_or(blocks.removable),
            thin: self.thin.unwrap_or(blocks.thin),
            threshold_percent: self.threshold.or(blocks.threshold_percent),
            ..blocks
        }
    }

    fn names_disk_options(&self) -> bool {
        self.disk_options() != DiskOptions::default() || self.size.is_some()
    }
}

impl TryFrom<LunTable> for Lun {
    type Error = &'static str;

    fn try_from(table: LunTable) -> Result<Self, Self::Error> {
        let (options, of_a_disk) = (table.disk_options(), table.names_disk_options());
        match table {
            LunTable { disk: Some(path), tape: None, capacity: None, size, .. } => Ok(Self::Disk(Disk { path, size, options })),
            LunTable { disk: None, tape: Some(path), capacity, .. } if !of_a_disk => Ok(Self::Tape(Tape { path, capacity })),
            LunTable { disk: None, tape: None, .. } => Err("a LUN wants `disk = \"file\"` or `tape = \"folder\"`"),
            LunTable { disk: Some(_), tape: Some(_), .. } => Err("a LUN is a disk or a tape, not both: begin another [[lun]]"),
            LunTable { disk: Some(_), .. } => Err("`capacity` is for a tape; a disk has a `size`"),
            LunTable { tape: Some(_), .. } => Err("`size`, `block` and their like are for a disk; a tape has a `capacity`"),
        }
    }
}

fn default_target() -> String {
    DEFAULT_TARGET.to_owned()
}

fn default_listen() -> SocketAddr {
    DEFAULT_LISTEN.parse().expect("a valid address")
}

fn default_data() -> PathBuf {
    PathBuf::from("offhost-data")
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not what it should be; the message names line and column.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        source: Box<toml::de::Error>,
    },
    /// A value that is well formed but cannot be.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`], with the line at fault.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.checked()
    }

    /// Where the control socket is.
    #[must_use]
    pub fn control_path(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| self.data.join("control.sock"))
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let wrong = |message: String| Err(ConfigError::Value(message));
        if !(self.target.starts_with("iqn.") || self.target.starts_with("eui.") || self.target.starts_with("naa.")) {
            return wrong(format!("target name {:?} must begin with iqn., eui. or naa.", self.target));
        }
        if self.target.len() > 223 {
            return wrong(format!("target name has {} bytes, iSCSI allows 223", self.target.len()));
        }
        for (number, lun) in self.luns.iter().enumerate() {
            let Lun::Disk(disk) = lun else { continue };
            if let Err(what) = disk.check() {
                return wrong(format!("LUN {number}: {what}"));
            }
        }
        Ok(self)
    }
}

/// The flags of `serve`. LUNs are numbered in the order of `--disk` and `--tape` on the command line.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// TOML file that says what to serve; the flags below go on top of it
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one and prints it [default: 127.0.0.1:3260]
    #[arg(long, short, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// A disk LUN on a file or block device; made sparse when a size is given and there is none. /dev/null with a size keeps nothing.
    /// Options: `,block=4096`, `,physical-block=512`, `,lowest-aligned=7`, `,read-only`, `,removable`, `,thick`, `,threshold=80`
    /// (percent in use of a thin disk that initiators are told of)
    #[arg(long, value_name = "FILE[:SIZE][,OPTION…]")]
    pub disk: Vec<DiskArg>,
    /// A tape LUN on a cartridge folder, or on the first cartridge of a shelf folder; made when there is none
    #[arg(long, value_name = "FOLDER[:CAPACITY]")]
    pub tape: Vec<TapeArg>,
    /// iSCSI name of the target
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Folder for what the target keeps for itself [default: offhost-data]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Control socket [default: control.sock in the data folder]
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// Time for which a connection looks for more to do before it sleeps: answers to single small commands come sooner, and a
    /// processor is kept busy meanwhile [default: sleep at once]
    #[arg(long, value_name = "TIME")]
    pub busy_poll: Option<Span>,
    /// Program of the mover [default: offhost-mover beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub mover: Option<PathBuf>,
}

impl ServeArgs {
    /// The file with the flags on top; with neither, a disk and a tape in the data folder.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn config(self, matches: &ArgMatches) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => toml::from_str("").expect("every key has a default"),
        };
        config.luns.extend(self.luns_in_order(matches));
        config.target = self.target.unwrap_or(config.target);
        config.listen = self.listen.unwrap_or(config.listen);
        config.data = self.data.unwrap_or(config.data);
        config.control = self.control.or(config.control);
        config.mover = self.mover.or(config.mover);
        config.busy_poll = self.busy_poll.or(config.busy_poll);
        if config.luns.is_empty() {
            let disk =
                Disk { path: config.data.join("disk.img"), size: Some(DEFAULT_DISK_SIZE), options: DiskOptions::default() };
            config.luns = vec![Lun::Disk(disk), Lun::Tape(Tape { path: config.data.join("shelf"), capacity: None })];
        }
        config.checked()
    }

    fn luns_in_order(&self, matches: &ArgMatches) -> Vec<Lun> {
        let places = |name: &str| matches.indices_of(name).into_iter().flatten().collect::<Vec<_>>();
        let disks = places("disk").into_iter().zip(self.disk.iter().map(|disk| Lun::Disk(disk.0.clone())));
        let tapes = places("tape").into_iter().zip(self.tape.iter().map(|tape| Lun::Tape(tape.0.clone())));
        let mut luns: Vec<(usize, Lun)> = disks.chain(tapes).collect();
        luns.sort_by_key(|(place, _)| *place);
        luns.into_iter().map(|(_, lun)| lun).collect()
    }
}

/// `vol.img:20GiB,block=4096`.
#[derive(Debug, Clone)]
pub struct DiskArg(Disk);

impl FromStr for DiskArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (path, size) = path_and_size(parts.next().expect("split gives one part at least"))?;
        let mut table = LunTable { disk: Some(path), size, ..LunTable::default() };
        for option in parts {
            let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            match (name, value) {
                ("block", Some(value)) => table.block = Some(number(name, value)?),
                ("physical-block", Some(value)) => table.physical_block = Some(number(name, value)?),
                ("lowest-aligned", Some(value)) => table.lowest_aligned = Some(number(name, value)?),
                ("threshold", Some(value)) => table.threshold = Some(number(name, value)?),
                ("read-only", None) => table.read_only = Some(true),
                ("removable", None) => table.removable = Some(true),
                ("thick", None) => table.thin = Some(false),
                _ => {
                    let known = "block=, physical-block=, lowest-aligned=, threshold=, read-only, removable and thick";
                    return Err(format!("unknown option {option:?}; there are {known}"));
                }
            }
        }
        let options = table.disk_options();
        let disk = Disk { path: table.disk.expect("set above"), size, options };
        Ok(Self(disk))
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} {value:?} is no number, or too large a one"))
}

/// `shelf/:2TB`.
#[derive(Debug, Clone)]
pub struct TapeArg(Tape);

impl FromStr for TapeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, capacity) = path_and_size(text)?;
        Ok(Self(Tape { path, capacity }))
    }
}

/// Only what follows the last colon and begins with a digit can be a size: a path may hold colons.
fn path_and_size(text: &str) -> Result<(PathBuf, Option<ByteSize>), String> {
    let split = text.rsplit_once(':').filter(|(_, size)| size.starts_with(|c: char| c.is_ascii_digit()));
    let (path, size) = match split {
        Some((path, size)) => {
            let size = ByteSize::from_str(size).map_err(|why| format!("size {size:?}: {why}; write it as 20GiB or 512MB"))?;
            (path, Some(size))
        }
        None => (text, None),
    };
    if path.is_empty() {
        return Err("a path is missing".to_owned());
    }
    Ok((PathBuf::from(path), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    fn flags(line: &str) -> Result<Config, ConfigError> {
        let command = ServeArgs::augment_args(Command::new("serve"));
        let matches = command.get_matches_from(line.split_whitespace());
        ServeArgs::from_arg_matches(&matches).unwrap().config(&matches)
    }

    #[test]
    fn luns_are_numbered_in_the_order_of_the_flags() {
        let config = flags("serve --disk a.img:1GiB --tape shelf/ --disk b.img,block=4096,read-only").unwrap();
        let [Lun::Disk(a), Lun::Tape(tape), Lun::Disk(b)] = config.luns.as_slice() else { panic!("{:?}", config.luns) };
        assert_eq!((a.size, &a.options), (Some(ByteSize::gib(1)), &DiskOptions::default()));
        assert_eq!(tape.path, Path::new("shelf/"));
        assert_eq!((b.size, &b.options), (None, &DiskOptions { read_only: true, ..BlockLength(4096).into() }));
    }

    #[test]
    fn with_nothing_said_there_is_a_disk_and_a_tape() {
        let config = flags("serve").unwrap();
        assert!(matches!(config.luns.as_slice(), [Lun::Disk(_), Lun::Tape(_)]));
        assert_eq!(config.control_path(), Path::new("offhost-data/control.sock"));
    }

    #[test]
    fn a_file_with_an_unknown_key_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offhost.toml");
        std::fs::write(
            &path,
            "listen = \"127.0.0.1:0\"\n[[lun]]\ndisk = \"a.img\"\nsize = \"1 GiB\"\n[[lun]]\ntape = \"shelf\"\n",
        )
        .unwrap();
        assert_eq!(Config::read(&path).unwrap().luns.len(), 2);
        std::fs::write(&path, "lissen = 3\n").unwrap();
        let message = Config::read(&path).unwrap_err().to_string();
        assert!(message.contains("line 1") && message.contains("lissen"), "{message}");
        std::fs::write(&path, "[[lun]]\ndisk = \"a.img\"\n\n[[lun]]\ntape = \"shelf\"\nblok = 512\n").unwrap();
        let message = Config::read(&path).unwrap_err().to_string();
        assert!(message.contains("line 6") && message.contains("blok"), "{message}");
    }

    #[test]
    fn sizes_and_names_that_cannot_be_are_refused() {
        assert!(flags("serve --disk a.img:1000B,block=4096").is_err());
        assert!(flags("serve --target my-target").is_err());
        assert!(DiskArg::from_str("a.img:20Gigs").is_err());
        assert!(DiskArg::from_str("a.img,fast").is_err());
        assert!(DiskArg::from_str("a.img,threshold=high").is_err());
        assert!(flags("serve --disk a.img,physical-block=100").is_err());
        assert!(
            flags("serve --disk a.img,removable,thick,physical-block=512,threshold=80").is_err(),
            "a thick disk has no threshold"
        );
        assert_eq!(DiskArg::from_str("od:d.img").unwrap().0.path, Path::new("od:d.img"));
    }
}
