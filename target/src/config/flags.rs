//! The flags of `serve`, on top of a file or without one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgMatches, Args};
use protocol::control::spec::{AttachSpec, LunSpec, PortalSpec, Size, Span, TargetSpec};

use super::{Config, ConfigError, DEFAULT_LISTEN, DEFAULT_TARGET, Fault, Place, file};

/// The disk made when nothing is named. Sparse: it costs what is written.
const DEFAULT_DISK_SIZE: Size = Size(20 << 30);

/// The flags of `serve`. LUNs are numbered in the order of `--disk`, `--tape` and `--library` on the command line.
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
    /// (percent in use of a thin disk that initiators are told of), `,xcopy-view=lease` (copies onto a tape read a view of one moment
    /// at which nothing was written for `,quiet=3s`, which is waited for until `,quiet-timeout=20s`)
    #[arg(long, value_name = "FILE[:SIZE][,OPTION…]")]
    pub disk: Vec<DiskArg>,
    /// A tape LUN on a cartridge folder, or on the first cartridge of a shelf folder; made when there is none. Options:
    /// `,density=LTO-8` (LTO-5 to LTO-9), `,worm` (what is written cannot be overwritten), `,layout=aligned` (copies of disks share
    /// their blocks where the file system can)
    #[arg(long, value_name = "FOLDER[:CAPACITY][,OPTION…]")]
    pub tape: Vec<TapeArg>,
    /// A library: a changer LUN and a LUN for each of its drives, on a folder of cartridges; made when there is none.
    /// Options: `,drives=2`, `,slots=20`, `,mail=2` (import/export elements), `,cartridges=5` (in a new library) and, as of a
    /// tape, `,density=LTO-8`, `,worm` and `,layout=aligned` of these
    #[arg(long, value_name = "FOLDER[:CAPACITY][,OPTION…]")]
    pub library: Vec<LibraryArg>,
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
    /// Processes that move the blocks of copies [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub movers: Option<u8>,
    /// Bytes a second that each of them writes at most, as 100MiB [default: as many as go]
    #[arg(long, value_name = "SIZE")]
    pub mover_rate: Option<Size>,
    /// Let movers of other hosts attach at this address
    #[arg(long, value_name = "ADDRESS:PORT", requires = "mover_secret_file")]
    pub mover_attach: Option<SocketAddr>,
    /// File with the secret that these movers and the target share, mode 0600
    #[arg(long, value_name = "FILE", requires = "mover_attach")]
    pub mover_secret_file: Option<PathBuf>,
    /// Tell metrics over TCP as well, at http://ADDRESS:PORT/metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
}

/// Where a configuration comes from; can be read again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    listen: Option<SocketAddr>,
    luns: Vec<LunSpec>,
    target: Option<String>,
    data: Option<PathBuf>,
    control: Option<PathBuf>,
    busy_poll: Option<Span>,
    mover: Option<PathBuf>,
    movers: Option<u8>,
    mover_rate: Option<Size>,
    attach: Option<AttachSpec>,
    metrics: Option<SocketAddr>,
}

impl ServeArgs {
    /// What the flags say, kept for a reload.
    #[must_use]
    pub fn source(self, matches: &ArgMatches) -> Source {
        let luns = self.luns_in_order(matches);
        let Self { config: path, listen, target, data, control, busy_poll, mover, movers, mover_rate, metrics, .. } = self;
        let attach = self.mover_attach.zip(self.mover_secret_file);
        let attach = attach.map(|(listen, secret_file)| AttachSpec { listen, secret_file });
        Source { path, listen, luns, target, data, control, busy_poll, mover, movers, mover_rate, attach, metrics }
    }

    fn luns_in_order(&self, matches: &ArgMatches) -> Vec<LunSpec> {
        let places = |name: &str| matches.indices_of(name).into_iter().flatten().collect::<Vec<_>>();
        let disks = places("disk").into_iter().zip(self.disk.iter().map(|disk| disk.0.clone()));
        let tapes = places("tape").into_iter().zip(self.tape.iter().map(|tape| tape.0.clone()));
        let libraries = places("library").into_iter().zip(&self.library);
        let libraries = libraries.flat_map(|(place, library)| library.0.iter().map(move |lun| (place, lun.clone())));
        let mut luns: Vec<(usize, LunSpec)> = disks.chain(tapes).chain(libraries).collect();
        luns.sort_by_key(|(place, _)| *place);
        luns.into_iter().map(|(_, lun)| lun).collect()
    }
}

impl Source {
    /// The file with the flags on top; with neither, a disk and a tape in the data folder.
    ///
    /// # Errors
    /// As [`file::read`].
    pub fn read(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.path {
            Some(path) => file::read(path)?,
            None => Config::default(),
        };
        config.data = self.data.clone().unwrap_or(config.data);
        config.control = self.control.clone().or(config.control);
        config.busy_poll = self.busy_poll.or(config.busy_poll);
        config.mover = self.mover.clone().or(config.mover);
        config.metrics = self.metrics.or(config.metrics);
        config.movers.count = self.movers.or(config.movers.count);
        config.movers.rate = self.mover_rate.or(config.movers.rate);
        config.movers.attach = self.attach.clone().or(config.movers.attach);
        if self.listen.is_some() || config.portals.is_empty() {
            let listen = self.listen.unwrap_or_else(|| DEFAULT_LISTEN.parse().expect("a valid address"));
            config.portals = vec![PortalSpec { listen, advertise: None, tag: 1 }];
        }
        self.add_target(&mut config)?;
        config.number_luns();
        config.check()?;
        Ok(config)
    }

    /// Flags for a target are for the only one.
    fn add_target(&self, config: &mut Config) -> Result<(), Fault> {
        let nothing_said = self.path.is_none();
        if self.luns.is_empty() && self.target.is_none() && !nothing_said {
            return Ok(());
        }
        if config.targets.len() > 1 {
            let message = "--disk, --tape, --library and --target are for one target, and the file has several".to_owned();
            return Err(Fault { place: Place::Whole, message });
        }
        if config.targets.is_empty() {
            config.targets.push(TargetSpec { name: DEFAULT_TARGET.to_owned(), ..TargetSpec::default() });
        }
        let target = &mut config.targets[0];
        target.name = self.target.clone().unwrap_or_else(|| target.name.clone());
        target.luns.extend(self.luns.iter().cloned());
        if target.luns.is_empty() && nothing_said {
            let disk = LunSpec { disk: Some(config.data.join("disk.img")), size: Some(DEFAULT_DISK_SIZE), ..LunSpec::default() };
            let tape = LunSpec { tape: Some(config.data.join("shelf")), ..LunSpec::default() };
            target.luns = vec![disk, tape];
        }
        Ok(())
    }
}

/// `vol.img:20GiB,block=4096`.
#[derive(Debug, Clone)]
pub struct DiskArg(LunSpec);

impl FromStr for DiskArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        LunSpec::disk_argument(text).map(Self)
    }
}

/// `shelf/:2TB`.
#[derive(Debug, Clone)]
pub struct TapeArg(LunSpec);

impl FromStr for TapeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        LunSpec::tape_argument(text).map(Self)
    }
}

/// `shelf/,drives=2,slots=20`.
#[derive(Debug, Clone)]
pub struct LibraryArg(Vec<LunSpec>);

impl FromStr for LibraryArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        LunSpec::library_argument(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Lun, lun};
    use crate::lun::disk::DiskOptions;
    use clap::{Command, FromArgMatches};
    use protocol::units::BlockLength;

    fn flags(line: &str) -> Result<Config, ConfigError> {
        let command = ServeArgs::augment_args(Command::new("serve"));
        let matches = command.get_matches_from(line.split_whitespace());
        ServeArgs::from_arg_matches(&matches).unwrap().source(&matches).read()
    }

    fn luns(config: &Config) -> Vec<Lun> {
        config.targets[0].luns.iter().map(|spec| lun(spec).unwrap()).collect()
    }

    #[test]
    fn luns_are_numbered_in_the_order_of_the_flags() {
        let config = flags("serve --disk a.img:1GiB --tape shelf/ --disk b.img,block=4096,read-only").unwrap();
        let luns = luns(&config);
        let [Lun::Disk(a), Lun::Tape(tape), Lun::Disk(b)] = luns.as_slice() else { panic!("{luns:?}") };
        assert_eq!((a.size, &a.options), (Some(Size(1 << 30)), &DiskOptions::default()));
        assert_eq!(tape.path, Path::new("shelf/"));
        assert_eq!((b.size, &b.options), (None, &DiskOptions { read_only: true, ..BlockLength(4096).into() }));
        assert_eq!(config.targets[0].luns.iter().map(|lun| lun.lun).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_library_is_a_changer_and_its_drives() {
        let config =
            flags("serve --library shelf/:2TB,drives=3,slots=8,mail=1 --disk a.img:1GiB --library vault:drives=1").unwrap();
        let luns = luns(&config);
        let [
            Lun::Changer(changer),
            Lun::Drive(first),
            Lun::Drive(_),
            Lun::Drive(third),
            Lun::Disk(_),
            Lun::Changer(vault),
            Lun::Drive(_),
        ] = luns.as_slice()
        else {
            panic!("{luns:?}")
        };
        assert_eq!(
            (changer.library.as_path(), changer.wanted.slots, changer.wanted.mail),
            (Path::new("shelf/"), Some(8), Some(1))
        );
        assert_eq!(changer.wanted.new.capacity, Some(2_000_000_000_000));
        assert_eq!((first.number, third.number, vault.wanted.drives), (0, 2, Some(1)));
        assert_eq!(vault.library, Path::new("vault"));
        for wrong in ["--library s,slots=0", "--library s,mail=500", "--library s --library s"] {
            assert!(flags(&format!("serve {wrong}")).is_err(), "{wrong}");
        }
        assert!(LibraryArg::from_str("s,shelves=2").is_err());
    }

    #[test]
    fn with_nothing_said_there_is_a_disk_and_a_tape() {
        let config = flags("serve").unwrap();
        assert!(matches!(luns(&config).as_slice(), [Lun::Disk(_), Lun::Tape(_)]));
        assert_eq!(config.control_path(), Path::new("offhost-data/control.sock"));
    }

    #[test]
    fn sizes_and_names_that_cannot_be_are_refused() {
        assert!(flags("serve --disk a.img:1000B,block=4096").is_err());
        assert!(flags("serve --target my-target").is_err());
        assert!(flags("serve --disk a.img,physical-block=100").is_err());
        let thick = flags("serve --disk a.img,removable,thick,physical-block=512,threshold=80");
        assert!(thick.is_err(), "a thick disk has no threshold");
    }
}
