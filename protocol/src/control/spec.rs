//! What is served: targets, LUNs, portals and who may reach them, as the configuration file, the control socket and the command
//! line all write it.
//!
//! One set of types, so that what a command adds is what a file holds after `offhost save`. Nothing here holds a secret: only the
//! files in which secrets lie are named. Knows the form and what can be seen from it; whether a file exists is the target's business.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::MoverSettings;
use crate::cartridge::layout::Layout;
use crate::iscsi::chap::Algorithm;

/// A number of bytes, written `"20GiB"`, `"2TB"` or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units that a size is written in: the largest of which it is a whole number.
const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0 > 0 && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = bytesize::ByteSize::from_str(text);
        size.map(|size| Self(size.as_u64())).map_err(|why| format!("size {text:?}: {why}; write it as 20GiB or 512MB"))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, as \"20GiB\" or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size is not negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A length of time, written `"500us"` or `"1m 30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text);
        span.map(Self).map_err(|why| format!("{text:?} is no length of time: {why}; write it as 3s or 500us"))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// What EXTENDED COPY reads of a disk that it copies onto a tape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XcopyView {
    /// The disk as it is.
    #[default]
    Live,
    /// A view of one quiet moment, the same for all copies of an I_T nexus until its tape is rewound.
    Lease,
}

impl FromStr for XcopyView {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "live" => Ok(Self::Live),
            "lease" => Ok(Self::Lease),
            _ => Err(format!("{text:?} is neither live nor lease")),
        }
    }
}

/// A target and all that belongs to it: `[[target]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// iSCSI name.
    pub name: String,
    /// Tags of the portal groups through which it is reached; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portal_groups: Vec<u16>,
    /// Hashes that CHAP may be computed with; empty for all. Which of them is used the initiator chooses by the order of its offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chap_algorithms: Vec<Algorithm>,
    /// Who may log in; empty for everybody, to all LUNs and without authentication.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessSpec>,
    /// LUNs, by number.
    #[serde(default, rename = "lun", skip_serializing_if = "Vec::is_empty")]
    pub luns: Vec<LunSpec>,
}

impl TargetSpec {
    /// The LUN of a number.
    #[must_use]
    pub fn lun(&self, number: u16) -> Option<&LunSpec> {
        self.luns.iter().find(|lun| lun.lun == Some(number))
    }

    /// The lowest number that no LUN has.
    #[must_use]
    pub fn free_number(&self) -> u16 {
        (0..=u16::MAX).find(|number| self.lun(*number).is_none()).unwrap_or(u16::MAX)
    }
}

/// One LUN: `[[target.lun]]`. Just one of `disk`, `tape` and `library` is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LunSpec {
    /// Number; the lowest free one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<u16>,
    /// File or block device of a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<PathBuf>,
    /// Of a disk: makes a sparse file of this size where there is none; must agree with a file that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Bytes of a logical block, 512 or 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u32>,
    /// Bytes of a physical block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_block: Option<u32>,
    /// First logical block that begins a physical one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest_aligned: Option<u16>,
    /// Refuse every write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// The medium of the disk can be ejected and loaded again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removable: Option<bool>,
    /// Of a disk: UNMAP frees blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thin: Option<bool>,
    /// Of a thin disk: percent in use that initiators are told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u8>,
    /// Of a disk: what copies of it onto tapes read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xcopy_view: Option<XcopyView>,
    /// Of a disk: how long nothing may be written before the moment of a view that such a copy or a token reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Span>,
    /// Of a disk: how long such a moment is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_timeout: Option<Span>,
    /// Folder of a cartridge, or of cartridges; one is made where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tape: Option<PathBuf>,
    /// Capacity of a cartridge that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Size>,
    /// Of cartridges that are made: their generation, `LTO-5` to `LTO-9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<String>,
    /// Of cartridges that are made: what is written on them cannot be overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worm: Option<bool>,
    /// Of cartridges that are made: where the data of records lies in their images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Folder of a library: its changer, or with `drive` one of its drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<PathBuf>,
    /// Which drive of the library, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drive: Option<u16>,
    /// Of a changer: data transfer elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drives: Option<u16>,
    /// Of a changer: storage elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u16>,
    /// Of a changer: import/export elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<u16>,
    /// Of a changer: cartridges that are made in a new library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cartridges: Option<u16>,
    /// T10 VENDOR IDENTIFICATION, at most 8 ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// PRODUCT IDENTIFICATION, at most 16 ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// PRODUCT SERIAL NUMBER; made from the target's name and the path when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

impl LunSpec {
    /// The file or folder behind it; of a drive in a library its name there, which no two LUNs share.
    #[must_use]
    pub fn backing(&self) -> Option<PathBuf> {
        match (&self.library, self.drive) {
            (Some(library), Some(drive)) => Some(library.join(format!("drive {drive}"))),
            (library, _) => self.disk.clone().or(self.tape.clone()).or(library.clone()),
        }
    }

    /// A disk as it is written on a command line: `vol.img:20GiB,block=4096,read-only`.
    ///
    /// # Errors
    /// In words.
    pub fn disk_argument(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (path, size) = path_and_size(parts.next().unwrap_or_default())?;
        let mut lun = Self { disk: Some(path), size, ..Self::default() };
        for option in parts {
            let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            match (name, value) {
                ("lun", Some(value)) => lun.lun = Some(number(name, value)?),
                ("block", Some(value)) => lun.block = Some(number(name, value)?),
                ("physical-block", Some(value)) => lun.physical_block = Some(number(name, value)?),
                ("lowest-aligned", Some(value)) => lun.lowest_aligned = Some(number(name, value)?),
                ("threshold", Some(value)) => lun.threshold = Some(number(name, value)?),
                ("xcopy-view", Some(value)) => lun.xcopy_view = Some(value.parse()?),
                ("quiet", Some(value)) => lun.quiet = Some(value.parse()?),
                ("quiet-timeout", Some(value)) => lun.quiet_timeout = Some(value.parse()?),
                ("read-only", None) => lun.read_only = Some(true),
                ("removable", None) => lun.removable = Some(true),
                ("thick", None) => lun.thin = Some(false),
                _ => {
                    let known = "lun=, block=, physical-block=, lowest-aligned=, threshold=, xcopy-view=, quiet=, quiet-timeout=, \
                                 read-only, removable and thick";
                    return Err(format!("unknown option {option:?}; there are {known}"));
                }
            }
        }
        Ok(lun)
    }

    /// A tape as it is written on a command line: `shelf/:2TB,density=LTO-8,worm`.
    ///
    /// # Errors
    /// In words.
    pub fn tape_argument(text: &str) -> Result<Self, String> {
        // A folder may have commas in its name: only options that there are end it.
        let first = [",density=", ",worm", ",layout="].iter().filter_map(|option| text.find(option)).min();
        let (folder, options) = match first {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        let (path, capacity) = path_and_size(folder)?;
        let mut tape = Self { tape: Some(path), capacity, ..Self::default() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            if !tape.medium_option(option) {
                return Err(format!("unknown option {option:?}; there are density=, layout= and worm"));
            }
        }
        Ok(tape)
    }

    /// Takes an option that says what cartridges are made; false for another.
    fn medium_option(&mut self, option: &str) -> bool {
        match option.split_once('=') {
            Some(("density", name)) => self.density = Some(name.to_owned()),
            Some(("layout", "plain")) => self.layout = Some(Layout::Plain),
            Some(("layout", "aligned")) => self.layout = Some(Layout::Aligned),
            None if option == "worm" => self.worm = Some(true),
            _ => return false,
        }
        true
    }

    /// A library as it is written on a command line, `shelf/:2TB,drives=2,slots=20,mail=2`: its changer, then its drives.
    ///
    /// # Errors
    /// In words.
    pub fn library_argument(text: &str) -> Result<Vec<Self>, String> {
        /// Drives of a library nobody says more of.
        const DRIVES: u16 = 2;
        let (folder, options) = text.split_once(',').map_or((text, None), |(folder, options)| (folder, Some(options)));
        // `shelf/:drives=2` is understood as well.
        let named = folder.rsplit_once(':').filter(|(_, option)| option.contains('='));
        let (folder, first) = named.map_or((folder, None), |(folder, option)| (folder, Some(option)));
        let (path, capacity) = path_and_size(folder)?;
        let mut changer = Self { library: Some(path.clone()), capacity, ..Self::default() };
        for option in first.into_iter().chain(options.into_iter().flat_map(|options| options.split(','))) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "lun" => changer.lun = Some(number(name, value)?),
                "drives" => changer.drives = Some(number(name, value)?),
                "slots" => changer.slots = Some(number(name, value)?),
                "mail" => changer.mail = Some(number(name, value)?),
                "cartridges" => changer.cartridges = Some(number(name, value)?),
                _ if changer.medium_option(option) => {}
                _ => {
                    let known = "lun=, drives=, slots=, mail=, cartridges=, density=, layout= and worm";
                    return Err(format!("unknown option {option:?}; there are {known}"));
                }
            }
        }
        let drives = *changer.drives.get_or_insert(DRIVES);
        let first = changer.lun;
        let drive = |drive| Self {
            lun: first.and_then(|first| first.checked_add(drive)),
            library: Some(path.clone()),
            drive: Some(drive),
            ..Self::default()
        };
        let drives: Vec<Self> = (1..=drives).map(drive).collect();
        Ok(std::iter::once(changer).chain(drives).collect())
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} {value:?} is no number, or too large a one"))
}

/// Only what follows the last colon and begins with a digit can be a size: a path may hold colons.
fn path_and_size(text: &str) -> Result<(PathBuf, Option<Size>), String> {
    let split = text.rsplit_once(':').filter(|(_, size)| size.starts_with(|c: char| c.is_ascii_digit()));
    let (path, size) = match split {
        Some((path, size)) => (path, Some(size.parse()?)),
        None => (text, None),
    };
    if path.is_empty() {
        return Err("a path is missing".to_owned());
    }
    Ok((PathBuf::from(path), size))
}

/// Who may log in to a target, and what they reach: `[[target.access]]`. The first entry that fits an initiator holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessSpec {
    /// Initiator names, in which `*` stands for any characters.
    pub initiators: Vec<String>,
    /// LUNs that they reach; all, under their own numbers, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub luns: Option<Vec<SeenLun>>,
    /// They may not write.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// How they prove who they are; not at all when absent. All entries of a target have it or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<ChapSpec>,
}

/// A LUN as some initiators see it: `7`, or `{ lun = 7, as = 0, read_only = true }`; on a command line `7`, `7=0`, `7=0,read-only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "SeenForm")]
pub struct SeenLun {
    /// Its number in the target.
    pub lun: u16,
    /// The number under which they see it.
    pub seen_as: u16,
    /// They may not write it.
    pub read_only: bool,
}

/// How a [`SeenLun`] is written: as a number where that says it all.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected the number of a LUN, or { lun = 7, as = 0 } with read_only = true or without")]
enum SeenForm {
    Number(u16),
    Table(SeenTable),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenTable {
    lun: u16,
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    seen_as: Option<u16>,
    #[serde(default, skip_serializing_if = "is_false")]
    read_only: bool,
}

impl SeenLun {
    /// A LUN under another number.
    #[must_use]
    pub const fn renumbered(lun: u16, seen_as: u16) -> Self {
        Self { lun, seen_as, read_only: false }
    }
}

impl From<u16> for SeenLun {
    fn from(lun: u16) -> Self {
        Self::renumbered(lun, lun)
    }
}

impl From<SeenForm> for SeenLun {
    fn from(form: SeenForm) -> Self {
        match form {
            SeenForm::Number(lun) => lun.into(),
            SeenForm::Table(SeenTable { lun, seen_as, read_only }) => Self { lun, seen_as: seen_as.unwrap_or(lun), read_only },
        }
    }
}

impl Serialize for SeenLun {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { lun, seen_as, read_only } = *self;
        if *self == lun.into() {
            return SeenForm::Number(lun).serialize(serializer);
        }
        SeenForm::Table(SeenTable { lun, seen_as: (seen_as != lun).then_some(seen_as), read_only }).serialize(serializer)
    }
}

impl fmt::Display for SeenLun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.lun)?;
        if self.seen_as != self.lun {
            write!(f, "={}", self.seen_as)?;
        }
        if self.read_only { f.write_str(",read-only") } else { Ok(()) }
    }
}

impl FromStr for SeenLun {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (numbers, read_only) = text.strip_suffix(",read-only").map_or((text, false), |numbers| (numbers, true));
        let (lun, seen_as) = numbers.split_once('=').unwrap_or((numbers, numbers));
        Ok(Self { lun: number("LUN", lun)?, seen_as: number("LUN", seen_as)?, read_only })
    }
}

/// CHAP credentials; secrets lie in files of their own. RFC 7143 (12.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChapSpec {
    /// CHAP_N of the initiator.
    pub user: String,
    /// File that holds its secret.
    pub secret_file: PathBuf,
    /// CHAP_N that the target answers with, where the initiator wants that proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_user: Option<String>,
    /// File that holds the target's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_secret_file: Option<PathBuf>,
}

/// Where to listen: `[[portal]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortalSpec {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` that discovery tells instead, for initiators behind address translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Target portal group tag.
    #[serde(default = "first_tag", skip_serializing_if = "is_first_tag")]
    pub tag: u16,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn first_tag() -> u16 {
    1
}

fn is_first_tag(tag: &u16) -> bool {
    *tag == 1
}

/// Discovery sessions: `[discovery]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoverySpec {
    /// Tell initiators of targets to which they may not log in, too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub show_all: bool,
    /// See [`TargetSpec::chap_algorithms`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chap_algorithms: Vec<Algorithm>,
    /// How initiators prove who they are before they are told of targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<ChapSpec>,
}

/// A logical unit of another iSCSI target that copies may use: `[[remote]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteSpec {
    /// Where the other target listens, as CSCD descriptors name it.
    pub portal: SocketAddr,
    /// iSCSI name of the other target.
    pub target: String,
    /// Number of the logical unit there.
    pub lun: u16,
    /// The number that CSCD descriptors E5h and EAh name it by, which have no room for a target's name; `lun` when absent.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<u16>,
    /// No copy may write it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Targets of ours whose sessions may use it; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Initiators whose copies may use it, in whose names `*` stands for any characters. At a mover these are nobody's business.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initiators: Vec<String>,
    /// iSCSI name to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator_name: Option<String>,
    /// Hashes to offer for CHAP, in order of preference; all, the strongest first, when empty. Of targets that know none but the
    /// oldest some want to be offered nothing else: tgt takes the number of SHA-256 for SHA-1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chap_algorithms: Vec<Algorithm>,
    /// How to prove who we are; `mutual_user` is what the other target has to prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<ChapSpec>,
}

/// Movers: `[movers]`. What is absent is as [`MoverSettings`] has it by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoversSpec {
    /// Processes on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u8>,
    /// Bytes a second that each mover writes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Size>,
    /// Bytes a second that each job writes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_rate: Option<Size>,
    /// See [`MoverSettings::priority`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Where movers of other hosts attach; they do not when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<AttachSpec>,
}

/// Where movers of other hosts attach: `[movers.attach]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachSpec {
    /// Address and port.
    pub listen: SocketAddr,
    /// File with the secret that they share with the target.
    pub secret_file: PathBuf,
}

impl MoversSpec {
    /// True when nothing is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it comes to.
    #[must_use]
    pub fn settings(&self) -> MoverSettings {
        let default = MoverSettings::default();
        MoverSettings {
            movers: self.count.unwrap_or(default.movers),
            bytes_per_second: self.rate.map(|rate| rate.0),
            job_bytes_per_second: self.job_rate.map(|rate| rate.0),
            priority: self.priority,
        }
    }

    /// The same place to attach with other settings.
    #[must_use]
    pub fn with(&self, settings: &MoverSettings) -> Self {
        let count = (*settings != MoverSettings::default() || self.count.is_some()).then_some(settings.movers);
        let [rate, job_rate] = [settings.bytes_per_second, settings.job_bytes_per_second].map(|rate| rate.map(Size));
        Self { count, rate, job_rate, priority: settings.priority, attach: self.attach.clone() }
    }
}

/// How much at a time: `[limits]`. What is absent is the target's own choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    /// Connections, logged in or not; more are closed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Sessions of one target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Connections of one session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_session: Option<u16>,
    /// Seconds that a login may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_seconds: Option<u32>,
    /// MiB that all sessions together hold for commands, before each goes on with one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// MiB a second that are read in the background to take the sums of tape records that have none; 0 leaves them to VERIFY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums_mib_per_second: Option<u32>,
}

impl LimitsSpec {
    /// True when nothing is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl DiscoverySpec {
    /// True when nothing is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One step of a live change: `POST /changes` takes a list of them, and carries out all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// Serves one more target.
    AddTarget(TargetSpec),
    /// Ends a target and its sessions.
    RemoveTarget {
        /// iSCSI name.
        target: String,
    },
    /// Chooses portal groups and CHAP algorithms.
    SetTarget {
        /// iSCSI name.
        target: String,
        /// See [`TargetSpec::portal_groups`].
        #[serde(default)]
        portal_groups: Vec<u16>,
        /// See [`TargetSpec::chap_algorithms`].
        #[serde(default)]
        chap_algorithms: Vec<Algorithm>,
    },
    /// Serves one more LUN.
    AddLun {
        /// iSCSI name.
        target: String,
        /// What it is.
        lun: LunSpec,
    },
    /// Takes a LUN away. Commands that run end as they would have; later ones find no logical unit.
    RemoveLun {
        /// iSCSI name.
        target: String,
        /// Number.
        lun: u16,
    },
    /// Changes what is given of a LUN, and leaves the rest.
    SetLun {
        /// iSCSI name.
        target: String,
        /// Which by its number, and what is to change.
        lun: LunSpec,
    },
    /// Listens on one more address.
    AddPortal(PortalSpec),
    /// Accepts no more connections on an address; those that came through it go on.
    RemovePortal {
        /// The address as it was given or as it is listened on.
        listen: SocketAddr,
    },
    /// Appends an entry to a target's access list.
    AddAccess {
        /// iSCSI name.
        target: String,
        /// Who may do what.
        access: AccessSpec,
    },
    /// Changes the entry of the same initiators.
    SetAccess {
        /// iSCSI name.
        target: String,
        /// Who may do what from now on.
        access: AccessSpec,
    },
    /// Takes the entry of just these initiators away.
    RemoveAccess {
        /// iSCSI name.
        target: String,
        /// [`AccessSpec::initiators`] of the entry.
        initiators: Vec<String>,
    },
}

/// What a change or a reload did: one row for each thing touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// What was done.
    pub verb: Verb,
    /// `target`, `lun`, `portal`, `access`, `discovery`, `limits`, or a key of the file.
    pub noun: String,
    /// Of which target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// LUN number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<u16>,
    /// Address that is listened on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portal: Option<SocketAddr>,
}

/// See [`Effect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// There is one more.
    Added,
    /// It is gone.
    Removed,
    /// It is another now.
    Changed,
    /// It holds from the next start on.
    AtNextStart,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Added => "added",
            Verb::Removed => "removed",
            Verb::Changed => "changed",
            Verb::AtNextStart => "at the next start:",
        };
        write!(f, "{verb} {}", self.noun)?;
        if let Some(lun) = self.lun {
            write!(f, " {lun}")?;
        }
        if let Some(portal) = self.portal {
            write!(f, " {portal}")?;
        }
        match &self.target {
            Some(target) if self.noun == "target" => write!(f, " {target}"),
            Some(target) => write!(f, " of {target}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_is_written_in_the_largest_unit_that_fits() {
        for (bytes, text) in
            [(0, "0B"), (1, "1B"), (512, "512B"), (1 << 20, "1MiB"), (20 << 30, "20GiB"), (1_000_000, "1000000B")]
        {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!("2TB".parse(), Ok(Size(2_000_000_000_000)));
        assert!("20Gigs".parse::<Size>().is_err());
    }

    proptest! {
        #[test]
        fn a_size_that_is_written_is_read_as_it_was(bytes in 0..1_u64 << 53) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }

    #[test]
    fn a_lun_on_a_command_line_has_a_path_a_size_and_options() {
        let disk = |text: &str| LunSpec::disk_argument(text);
        let path = |text: &str| LunSpec { disk: Some(text.into()), ..LunSpec::default() };
        assert_eq!(disk("od:d.img"), Ok(path("od:d.img")));
        let options = LunSpec { size: Some(Size(1 << 30)), block: Some(4096), read_only: Some(true), ..path("a.img") };
        assert_eq!(disk("a.img:1GiB,block=4096,read-only"), Ok(options));
        for wrong in ["a.img:20Gigs", "a.img,fast", "a.img,threshold=high", ":1GiB"] {
            assert!(disk(wrong).is_err(), "{wrong}");
        }
        assert_eq!(LunSpec::tape_argument("shelf/:2TB").unwrap().capacity, Some(Size(2_000_000_000_000)));
        let worm = LunSpec::tape_argument("a,b/:2TB,density=LTO-6,worm").unwrap();
        assert_eq!((worm.tape, worm.capacity), (Some("a,b/".into()), Some(Size(2_000_000_000_000))));
        assert_eq!((worm.density.as_deref(), worm.worm), (Some("LTO-6"), Some(true)));
        assert!(LunSpec::tape_argument("shelf,worm,thick").is_err());
        assert_eq!(LunSpec::tape_argument("a,layout=aligned").unwrap().layout, Some(Layout::Aligned));
        assert!(LunSpec::tape_argument("a,layout=slanted").is_err());
        let library = LunSpec::library_argument("shelf/:drives=1,density=LTO-7,worm").unwrap();
        assert_eq!((library[0].density.as_deref(), library[0].worm, library[1].worm), (Some("LTO-7"), Some(true), None));
    }

    #[test]
    fn a_lun_that_is_seen_as_it_is_is_a_number() {
        let read = |text: &str| serde_json::from_str::<SeenLun>(text);
        for (text, line, seen) in [
            ("7", "7", SeenLun::from(7)),
            (r#"{"lun":7,"as":0}"#, "7=0", SeenLun::renumbered(7, 0)),
            (r#"{"lun":7,"read_only":true}"#, "7,read-only", SeenLun { read_only: true, ..7.into() }),
            (r#"{"lun":7,"as":0,"read_only":true}"#, "7=0,read-only", SeenLun { read_only: true, ..SeenLun::renumbered(7, 0) }),
        ] {
            assert_eq!((read(text).unwrap(), line.parse()), (seen, Ok(seen)));
            assert_eq!((serde_json::to_string(&seen).unwrap(), seen.to_string()), (text.to_owned(), line.to_owned()));
        }
        assert_eq!(read(r#"{"lun":7,"as":7}"#).unwrap(), 7.into());
        for wrong in ["-1", "70000", r#"{"as":0}"#, r#"{"lun":7,"under":0}"#, "\"7\""] {
            assert!(read(wrong).unwrap_err().to_string().contains("{ lun = 7, as = 0 }"), "{wrong}");
        }
        assert!("7=".parse::<SeenLun>().is_err() && "7=0,fast".parse::<SeenLun>().is_err());
    }

    #[test]
    fn a_change_names_what_it_does() {
        let change: Change =
            serde_json::from_str(r#"{"add-lun":{"target":"iqn.a:b","lun":{"disk":"/d","size":"1GiB"}}}"#).unwrap();
        let lun = LunSpec { disk: Some("/d".into()), size: Some(Size(1 << 30)), ..LunSpec::default() };
        assert_eq!(change, Change::AddLun { target: "iqn.a:b".into(), lun });
        assert!(serde_json::from_str::<Change>(r#"{"add-lun":{"target":"iqn.a:b","lun":{"disc":"/d"}}}"#).is_err());
    }
}
