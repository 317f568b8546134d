//! What to serve: the configuration, from a TOML file, from flags, or both; and what can be wrong with it.
//!
//! | module | what |
//! |---|---|
//! | `access` | access lists and secrets as the login asks them |
//! | `file` | reading `offhost.toml` and `conf.d/*.toml`; errors with file and line |
//! | `flags` | the flags of `serve` on top |
//! | `lun` | a LUN's table as a disk or a tape |
//! | `text` | writing it, in a stable form and atomically |
//!
//! ```toml
//! [[portal]]
//! listen = "0.0.0.0:3260"
//!
//! [[target]]
//! name = "iqn.2026-01.org.example:vm"
//! [[target.lun]]
//! disk = "/srv/vol.img"
//! size = "20GiB"
//! [[target.access]]
//! initiators = ["iqn.1993-08.org.debian:*"]
//! ```
//!
//! One target may be written shorter: `target = "…"`, `listen = "…"` and `[[lun]]` tables. Opens nothing: whether a file or an
//! address can be had is seen when it is applied. The tables themselves are [`protocol::control::spec`]'s.

mod access;
mod file;
mod flags;
mod lun;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use protocol::control::spec::{
    AccessSpec, ChapSpec, DiscoverySpec, LimitsSpec, LunSpec, MoversSpec, PortalSpec, RemoteSpec, Span, TargetSpec,
};

pub use access::{access, attach_secret, discovery, remotes};
pub use file::{FilePart, read, read_parts};
pub use flags::{ServeArgs, Source};
pub use lun::{Disk, Lun, Tape, view_rules};
pub use text::{save, to_text};

/// Name served when none is given. RFC 7143 (4.2.7.4) wants a date and a domain its owner held.
pub const DEFAULT_TARGET: &str = "iqn.2026-01.org.offhost:target";
/// Where to listen when nothing is said: reachable from this machine only, since there is no authentication unless it is set up.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:3260";
/// Where the target keeps what is its own when nothing is said.
pub const DEFAULT_DATA: &str = "offhost-data";
/// LUNs have numbers below this: what the peripheral and flat addressing methods of SAM-5 reach.
const LUNS_MAX: u16 = 16_384;

/// All that `serve` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Folder for what the target keeps for itself: copy stores, the lock, the control socket.
    pub data: PathBuf,
    /// Control socket; `control.sock` in the data folder when absent.
    pub control: Option<PathBuf>,
    /// How long a connection looks for more to do before it sleeps; absent: it sleeps at once.
    pub busy_poll: Option<Span>,
    /// The mover's program; `offhost-mover` beside this one when absent.
    pub mover: Option<PathBuf>,
    /// Where metrics are told over TCP, besides the control socket.
    pub metrics: Option<SocketAddr>,
    /// How much at a time.
    pub limits: LimitsSpec,
    /// How many movers, how fast, and where those of other hosts attach.
    pub movers: MoversSpec,
    /// Discovery sessions.
    pub discovery: DiscoverySpec,
    /// Logical units of other targets that copies may use.
    pub remotes: Vec<RemoteSpec>,
    /// Where to listen.
    pub portals: Vec<PortalSpec>,
    /// What is served; every LUN has its number.
    pub targets: Vec<TargetSpec>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from(DEFAULT_DATA),
            control: None,
            busy_poll: None,
            mover: None,
            metrics: None,
            limits: LimitsSpec::default(),
            movers: MoversSpec::default(),
            discovery: DiscoverySpec::default(),
            remotes: Vec::new(),
            portals: Vec::new(),
            targets: Vec::new(),
        }
    }
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
    /// A table or a value that is well formed but cannot be.
    #[error("{path}: line {line}: {fault}")]
    At {
        /// The file.
        path: PathBuf,
        /// Where the table begins, from 1.
        line: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// The same of flags, or of a change.
    #[error("{0}")]
    Value(#[from] Fault),
}

/// What contradicts itself or something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In which table.
    pub place: Place,
    /// In words.
    pub message: String,
}

/// A table of a configuration, by its place in the lists of [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// None of those below.
    Whole,
    /// `[limits]`.
    Limits,
    /// `[movers]`.
    Movers,
    /// `[discovery]`.
    Discovery,
    /// A remote end.
    Remote(usize),
    /// A portal.
    Portal(usize),
    /// A target.
    Target(usize),
    /// A LUN of a target.
    Lun(usize, usize),
    /// An access entry of a target.
    Access(usize, usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Config {
    /// Where the control socket is.
    #[must_use]
    pub fn control_path(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| self.data.join("control.sock"))
    }

    /// The target of a name, compared as iSCSI names are.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&TargetSpec> {
        self.targets.iter().find(|target| target.name.eq_ignore_ascii_case(name))
    }

    /// Gives LUNs without a number the lowest free one, in their order.
    pub fn number_luns(&mut self) {
        for target in &mut self.targets {
            for at in 0..target.luns.len() {
                if target.luns[at].lun.is_none() {
                    target.luns[at].lun = Some(target.free_number());
                }
            }
        }
    }

    /// Holds every table against what it may be, and against the others.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(chap) = &self.discovery.chap {
            check_chap(chap).map_err(|message| Fault { place: Place::Discovery, message })?;
        }
        let limits = &self.limits;
        let per_session = limits.connections_per_session.map(u32::from);
        let counted = [("connections", limits.connections), ("connections_per_session", per_session)];
        if let Some((key, _)) =
            counted.into_iter().chain([("login_seconds", limits.login_seconds)]).find(|(_, limit)| *limit == Some(0))
        {
            let message = format!("{key} = 0 lets nobody in: give 1 or more, or leave it out");
            return Err(Fault { place: Place::Limits, message });
        }
        self.movers.settings().check().map_err(|message| Fault { place: Place::Movers, message })?;
        let mut named = BTreeSet::new();
        for (at, remote) in self.remotes.iter().enumerate() {
            let fault = |message| Err(Fault { place: Place::Remote(at), message });
            check_remote(remote).or_else(fault)?;
            if !named.insert((remote.portal, remote.seen_as.unwrap_or(remote.lun))) {
                return fault(
                    "two remote ends have one portal and one number: give one of them another number with as".to_owned(),
                );
            }
            if let Some(name) = remote.targets.iter().find(|name| self.target(name).is_none()) {
                return fault(format!("targets: there is no target {name}, take it out here or add it"));
            }
        }
        let mut listened = BTreeMap::new();
        for (at, portal) in self.portals.iter().enumerate() {
            let place = Place::Portal(at);
            check_portal(portal).map_err(|message| Fault { place, message })?;
            if portal.listen.port() != 0 && listened.insert(portal.listen, at).is_some() {
                return Err(Fault { place, message: format!("listen: portal {} is there twice, take one out", portal.listen) });
            }
        }
        let (mut names, mut backings) = (BTreeMap::new(), BTreeMap::new());
        for (at, target) in self.targets.iter().enumerate() {
            let fault = |message| Err(Fault { place: Place::Target(at), message });
            if let Err(message) = check_name(&target.name) {
                return fault(message);
            }
            if names.insert(target.name.to_ascii_lowercase(), at).is_some() {
                return fault(format!("name: target {} is there twice, put the LUNs of both below one", target.name));
            }
            let groups: Vec<u16> = self.portals.iter().map(|portal| portal.tag).collect();
            if let Some(tag) = target.portal_groups.iter().find(|tag| !groups.contains(tag)) {
                return fault(format!("portal_groups: no portal has tag {tag}, give it to a [[portal]] or take it out here"));
            }
            if target.access.iter().any(|entry| entry.chap.is_some()) && target.access.iter().any(|entry| entry.chap.is_none()) {
                return fault(format!(
                    "target {}: either all access entries have chap or none; add [target.access.chap] to the others",
                    target.name
                ));
            }
            check_luns(at, target, &mut backings)?;
            for (entry, access) in target.access.iter().enumerate() {
                check_access(access).map_err(|message| Fault { place: Place::Access(at, entry), message })?;
            }
        }
        Ok(())
    }
}

/// A target's LUNs; `backings` are those seen in all targets so far.
fn check_luns(at: usize, target: &TargetSpec, backings: &mut BTreeMap<PathBuf, String>) -> Result<(), Fault> {
    let mut numbers = BTreeMap::new();
    for (index, lun) in target.luns.iter().enumerate() {
        let number = lun.lun.unwrap_or_default();
        let fault = |message| Err(Fault { place: Place::Lun(at, index), message: format!("LUN {number}: {message}") });
        if let Err(message) = Lun::try_from(lun) {
            return fault(message);
        }
        if number >= LUNS_MAX {
            return fault(format!("the highest number is {}", LUNS_MAX - 1));
        }
        if numbers.insert(number, index).is_some() {
            return fault("the number is there twice, give one of both another, or leave lun out".to_owned());
        }
        // What keeps nothing can be there as often as one likes.
        let Some(backing) = lun.backing().filter(|path| path.as_os_str() != "/dev/null") else { continue };
        let absolute = std::path::absolute(&backing).unwrap_or_else(|_| backing.clone());
        if let Some(other) = backings.insert(absolute, format!("LUN {number} of {}", target.name)) {
            return fault(format!(
                "{} is {other} already; to show it under two numbers, use luns of [[target.access]]",
                backing.display()
            ));
        }
    }
    Ok(())
}

/// RFC 7143 (4.2.7): form and length of an iSCSI name.
///
/// # Errors
/// In words.
pub fn check_name(name: &str) -> Result<(), String> {
    if !["iqn.", "eui.", "naa."].iter().any(|kind| name.starts_with(kind)) {
        return Err(format!("target name {name:?} must begin with iqn., eui. or naa."));
    }
    if name.len() > 223 {
        return Err(format!("target name has {} bytes, iSCSI allows 223", name.len()));
    }
    match name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '.' | ':'))) {
        Some(wrong) => Err(format!("target name {name:?} has a {wrong:?}: letters, digits, '-', '.' and ':' are allowed")),
        None => Ok(()),
    }
}

fn check_portal(portal: &PortalSpec) -> Result<(), String> {
    if portal.tag == 0 {
        return Err("tag = 0: portal group tags begin with 1".to_owned());
    }
    match &portal.advertise {
        Some(advertise)
            if !advertise.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
        {
            Err(format!("advertise: {advertise:?} is no host:port, as in \"san.example.org:3260\""))
        }
        _ => Ok(()),
    }
}

fn check_remote(remote: &RemoteSpec) -> Result<(), String> {
    check_name(&remote.target)?;
    remote.initiator_name.as_deref().map_or(Ok(()), check_name)?;
    if remote.initiators.is_empty() {
        return Err(
            "a remote end names the initiators that may use it, as in initiators = [\"iqn.1993-08.org.debian:*\"]".to_owned()
        );
    }
    for name in &remote.initiators {
        name.parse::<crate::access::NamePattern>()?;
    }
    if remote.lun >= LUNS_MAX || remote.seen_as.is_some_and(|seen| seen >= LUNS_MAX) {
        return Err(format!("the highest number of a LUN is {}", LUNS_MAX - 1));
    }
    remote.chap.as_ref().map_or(Ok(()), check_chap)
}

fn check_access(access: &AccessSpec) -> Result<(), String> {
    if access.initiators.is_empty() || access.initiators.iter().any(String::is_empty) {
        return Err("an access entry names initiators, as in initiators = [\"iqn.1993-08.org.debian:*\"]".to_owned());
    }
    access::patterns(access)?;
    let mut seen = BTreeSet::new();
    for lun in access.luns.iter().flatten() {
        if lun.seen_as >= LUNS_MAX {
            return Err(format!("luns: LUN {} as {}: the highest number is {}", lun.lun, lun.seen_as, LUNS_MAX - 1));
        }
        if !seen.insert(lun.seen_as) {
            return Err(format!("luns: two LUNs are to be seen as {}; give one of them another number with as", lun.seen_as));
        }
    }
    access.chap.as_ref().map_or(Ok(()), check_chap)
}

fn check_chap(chap: &ChapSpec) -> Result<(), String> {
    if chap.user.is_empty() {
        return Err("chap: user is empty, give the CHAP name that initiators log in with".to_owned());
    }
    if chap.mutual_user.is_some() != chap.mutual_secret_file.is_some() {
        return Err("chap: mutual_user and mutual_secret_file go together, give both or neither".to_owned());
    }
    Ok(())
}

/// What a LUN is.
///
/// # Errors
/// What contradicts itself, in words.
pub fn lun(spec: &LunSpec) -> Result<Lun, String> {
    Lun::try_from(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, lun: u16) -> LunSpec {
        LunSpec { lun: Some(lun), disk: Some(path.into()), ..LunSpec::default() }
    }

    fn config(luns: Vec<LunSpec>) -> Config {
        let target = TargetSpec { name: "iqn.2026-01.org.example:a".into(), luns, ..TargetSpec::default() };
        let portal = PortalSpec { listen: DEFAULT_LISTEN.parse().unwrap(), advertise: None, tag: 1 };
        Config { portals: vec![portal], targets: vec![target], ..Config::default() }
    }

    #[test]
    fn what_stands_twice_is_named() {
        assert_eq!(config(vec![disk("a", 0), disk("b", 1)]).check(), Ok(()));
        let said = |config: Config| config.check().unwrap_err().to_string();
        assert!(said(config(vec![disk("a", 0), disk("b", 0)])).contains("twice"));
        assert!(said(config(vec![disk("a", 0), disk("./a", 1)])).contains("is LUN 0 of"));
        let mut two = config(Vec::new());
        two.targets.push(TargetSpec { name: "IQN.2026-01.org.example:A".to_ascii_lowercase(), ..TargetSpec::default() });
        assert!(said(two).contains("twice"));
        let mut tagged = config(Vec::new());
        tagged.targets[0].portal_groups = vec![2];
        assert!(said(tagged).contains("no portal has tag 2"));
    }

    #[test]
    fn luns_without_a_number_fill_the_gaps() {
        let unnumbered = |path: &str| LunSpec { lun: None, ..disk(path, 0) };
        let mut config = config(vec![unnumbered("a"), disk("b", 0), unnumbered("c"), disk("d", 2)]);
        config.number_luns();
        let numbers: Vec<_> = config.targets[0].luns.iter().map(|lun| lun.lun.unwrap()).collect();
        assert_eq!(numbers, [1, 0, 3, 2]);
    }

    #[test]
    fn names_that_iscsi_does_not_know_are_refused() {
        assert!(check_name("iqn.2026-01.org.example:disk-1").is_ok());
        for wrong in ["my-target", "iqn.2026-01.org.example:a b", "iqn.2026-01.org.example:a,1"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        assert!(check_name(&format!("iqn.{}", "a".repeat(220))).is_err());
    }
}
