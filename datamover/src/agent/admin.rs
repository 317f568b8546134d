//! `offhost target`, `lun`, `portal`, `access`, `save`, `reload`: what is served is changed while it is served.
//!
//! Each command is one change at the control socket; the target decides whether it can be, and says what it did. Nothing is kept
//! over a restart before `offhost save`. What the parts are stands in [`protocol::control::spec`].

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use protocol::control::spec::{
    AccessSpec, Change, ChapSpec, Effect, LunSpec, PortalSpec, SeenLun, Size, Span, TargetSpec, XcopyView,
};
use protocol::control::{Configuration, Status};
use protocol::iscsi::chap::Algorithm;

use super::cli::print;
use super::control::Control;
use super::exit::Stop;
use super::list;
use super::ui::human;

/// `offhost target …`
#[derive(Debug, Subcommand)]
pub enum TargetAction {
    /// Targets, their sessions and LUNs
    List,
    /// Serve one more target
    Add {
        /// iSCSI name
        name: String,
        /// Portal group tags it is reached through; all when not given
        #[arg(long = "portal-group", value_name = "TAG")]
        portal_groups: Vec<u16>,
        /// Hashes that CHAP may be computed with (md5, sha1, sha256, sha3-256); all when not given
        #[arg(long = "chap-algorithm", value_name = "HASH")]
        chap_algorithms: Vec<Algorithm>,
    },
    /// End a target and its sessions
    Remove {
        /// iSCSI name
        name: String,
    },
    /// Choose portal groups and CHAP algorithms
    Set {
        /// iSCSI name
        name: String,
        /// Portal group tags it is reached through; all when not given
        #[arg(long = "portal-group", value_name = "TAG")]
        portal_groups: Vec<u16>,
        /// Hashes that CHAP may be computed with (md5, sha1, sha256, sha3-256); all when not given
        #[arg(long = "chap-algorithm", value_name = "HASH")]
        chap_algorithms: Vec<Algorithm>,
    },
}

/// Which target is meant.
#[derive(Debug, Clone, Args)]
pub struct OfTarget {
    /// iSCSI name of the target; not needed where there is only one
    #[arg(long, global = true, value_name = "NAME")]
    target: Option<String>,
}

/// `offhost lun …`
#[derive(Debug, Subcommand)]
pub enum LunAction {
    /// LUNs of all targets
    List,
    /// Serve one more LUN
    #[command(group = ArgGroup::new("what").required(true))]
    Add {
        /// A disk on a file or block device; made sparse when a size is given and there is none. Options: `,block=4096`,
        /// `,physical-block=512`, `,lowest-aligned=7`, `,read-only`, `,removable`, `,thick`, `,threshold=80`,
        /// `,xcopy-view=lease`, `,quiet=3s`, `,quiet-timeout=20s`
        #[arg(long, value_name = "FILE[:SIZE][,OPTION…]", group = "what", value_parser = boxed_disk)]
        disk: Option<Box<LunSpec>>,
        /// A tape on a cartridge folder, or on the first cartridge of a shelf folder; made when there is none. Options:
        /// `,density=LTO-8`, `,worm`, `,layout=aligned`
        #[arg(long, value_name = "FOLDER[:CAPACITY][,OPTION…]", group = "what", value_parser = boxed_tape)]
        tape: Option<Box<LunSpec>>,
        /// A library: a changer and a LUN for each of its drives, on a folder of cartridges; made when there is none. Options:
        /// `,drives=2`, `,slots=20`, `,mail=2`, `,cartridges=5`, `,density=LTO-8`, `,worm`,
        /// `,layout=aligned`
        #[arg(long, value_name = "FOLDER[:CAPACITY][,OPTION…]", group = "what", value_parser = library)]
        library: Option<Library>,
        /// Its number; the lowest free one when not given
        #[arg(long)]
        lun: Option<u16>,
        /// What INQUIRY tells
        #[command(flatten)]
        names: Names,
    },
    /// Take a LUN away; commands that run end as they would have
    Remove {
        /// Number
        lun: u16,
    },
    /// Change a LUN; what is not given stays
    Set {
        /// Number
        lun: u16,
        /// Grow or shrink a disk to this size
        #[arg(long)]
        size: Option<Size>,
        /// Refuse every write, or no longer
        #[arg(long, value_name = "true|false")]
        read_only: Option<bool>,
        /// The medium can be ejected, or not
        #[arg(long, value_name = "true|false")]
        removable: Option<bool>,
        /// UNMAP frees blocks, or not
        #[arg(long, value_name = "true|false")]
        thin: Option<bool>,
        /// Percent in use that initiators are told of
        #[arg(long, value_name = "PERCENT")]
        threshold: Option<u8>,
        /// What copies of a disk onto tapes read: the disk as it is, or a view of one quiet moment
        #[arg(long, value_name = "live|lease")]
        xcopy_view: Option<XcopyView>,
        /// How long nothing may be written before the moment of such a view, or of a token
        #[arg(long, value_name = "TIME")]
        quiet: Option<Span>,
        /// How long such a moment is waited for
        #[arg(long, value_name = "TIME")]
        quiet_timeout: Option<Span>,
        /// What INQUIRY tells
        #[command(flatten)]
        names: Names,
    },
}

fn boxed_disk(text: &str) -> Result<Box<LunSpec>, String> {
    LunSpec::disk_argument(text).map(Box::new)
}

/// The LUNs of a library: its changer, then its drives.
#[derive(Debug, Clone)]
pub struct Library(Vec<LunSpec>);

fn library(text: &str) -> Result<Library, String> {
    LunSpec::library_argument(text).map(Library)
}

fn boxed_tape(text: &str) -> Result<Box<LunSpec>, String> {
    LunSpec::tape_argument(text).map(Box::new)
}

/// Names in INQUIRY data.
#[derive(Debug, Clone, Args)]
pub struct Names {
    /// Vendor, at most 8 characters
    #[arg(long)]
    vendor: Option<String>,
    /// Product, at most 16 characters
    #[arg(long)]
    product: Option<String>,
    /// Serial number
    #[arg(long)]
    serial: Option<String>,
}

/// `offhost portal …`
#[derive(Debug, Subcommand)]
pub enum PortalAction {
    /// Addresses that are listened on
    List,
    /// Listen on one more address
    Add {
        /// Address and port; port 0 takes a free one
        listen: SocketAddr,
        /// host:port that discovery tells instead, for initiators behind address translation
        #[arg(long, value_name = "HOST:PORT")]
        advertise: Option<String>,
        /// Target portal group tag
        #[arg(long, default_value_t = 1)]
        tag: u16,
    },
    /// Accept no more connections on an address; those that came through it go on
    Remove {
        /// As `list` shows it
        listen: SocketAddr,
    },
}

/// `offhost access …`
#[derive(Debug, Subcommand)]
pub enum AccessAction {
    /// Who may log in, and what they reach
    List,
    /// Let initiators in; with no entry at all everybody may log in
    Add(AccessArgs),
    /// Replace the entry of the same initiators
    Set(AccessArgs),
    /// Take the entry of just these initiators away
    Remove {
        /// As `list` shows them
        #[arg(required = true, value_name = "NAME")]
        initiators: Vec<String>,
    },
}

/// An access entry.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// Initiator names; `*` stands for any characters
    #[arg(required = true, value_name = "NAME")]
    initiators: Vec<String>,
    /// LUNs that they reach, as 7, as 7=0 where they see it under another number, or 7,read-only; all when not given
    #[arg(long, value_name = "LUN[=NUMBER][,read-only]")]
    lun: Vec<SeenLun>,
    /// They may not write
    #[arg(long)]
    read_only: bool,
    /// CHAP name that they have to prove
    #[arg(long, requires = "secret_file")]
    user: Option<String>,
    /// File with the secret of that name, as the target sees it
    #[arg(long, value_name = "FILE", requires = "user")]
    secret_file: Option<PathBuf>,
    /// CHAP name that the target proves in turn
    #[arg(long, requires_all = ["user", "mutual_secret_file"])]
    mutual_user: Option<String>,
    /// File with the secret of that name
    #[arg(long, value_name = "FILE", requires = "mutual_user")]
    mutual_secret_file: Option<PathBuf>,
}

impl AccessArgs {
    fn spec(self) -> AccessSpec {
        let chap = self.user.zip(self.secret_file).map(|(user, secret_file)| ChapSpec {
            user,
            secret_file,
            mutual_user: self.mutual_user,
            mutual_secret_file: self.mutual_secret_file,
        });
        let luns = (!self.lun.is_empty()).then_some(self.lun);
        AccessSpec { initiators: self.initiators, luns, read_only: self.read_only, chap }
    }
}

/// Carries out `offhost target`.
///
/// # Errors
/// What the target says.
pub async fn target(control: &Control, action: TargetAction, json: bool) -> anyhow::Result<()> {
    let change = match action {
        TargetAction::List => {
            let status = control.status().await?;
            return print(json, &status.targets, |out| print_targets(&status, out));
        }
        TargetAction::Add { name, portal_groups, chap_algorithms } => {
            Change::AddTarget(TargetSpec { name, portal_groups, chap_algorithms, ..TargetSpec::default() })
        }
        TargetAction::Remove { name } => Change::RemoveTarget { target: name },
        TargetAction::Set { name, portal_groups, chap_algorithms } => {
            Change::SetTarget { target: name, portal_groups, chap_algorithms }
        }
    };
    carry_out(control, change, json).await
}

/// Carries out `offhost lun`.
///
/// # Errors
/// What the target says; a usage error where it is not clear which one is meant.
pub async fn lun(control: &Control, of: OfTarget, action: LunAction, json: bool) -> anyhow::Result<()> {
    if matches!(action, LunAction::List) {
        let status = control.status().await?;
        let luns: Vec<_> = status.luns.iter().filter(|lun| of.target.as_ref().is_none_or(|name| lun.target == *name)).collect();
        return print(json, &luns, |out| {
            let mut table = list::plain(&["target", "LUN", "kind", "size", "behind it"]);
            for lun in &luns {
                table.add_row([&lun.target, &lun.lun.to_string(), &lun.kind, &human(lun.size), &lun.backing]);
            }
            writeln!(out, "{table}")
        });
    }
    let target = of.name(control).await?;
    let change = match action {
        LunAction::List => unreachable!("answered above"),
        LunAction::Add { library: Some(Library(specs)), lun, .. } => {
            let numbered =
                |(at, spec): (u16, LunSpec)| LunSpec { lun: lun.map(|lun| lun.saturating_add(at)).or(spec.lun), ..spec };
            let added = (0..).zip(specs).map(|spec| Change::AddLun { target: target.clone(), lun: numbered(spec) });
            let effects = control.change(&added.collect::<Vec<_>>()).await?;
            return print(json, &effects, |out| print_effects(&effects, out));
        }
        LunAction::Add { disk, tape, lun, names, .. } => {
            let spec = disk.or(tape).map(|spec| *spec).unwrap_or_default();
            Change::AddLun { target, lun: names.put_into(LunSpec { lun: lun.or(spec.lun), ..spec }) }
        }
        LunAction::Remove { lun } => Change::RemoveLun { target, lun },
        LunAction::Set { lun, size, read_only, removable, thin, threshold, xcopy_view, quiet, quiet_timeout, names } => {
            let blocks = LunSpec { lun: Some(lun), size, read_only, removable, thin, threshold, ..LunSpec::default() };
            let spec = LunSpec { xcopy_view, quiet, quiet_timeout, ..blocks };
            Change::SetLun { target, lun: names.put_into(spec) }
        }
    };
    carry_out(control, change, json).await
}

impl Names {
    fn put_into(self, spec: LunSpec) -> LunSpec {
        LunSpec { vendor: self.vendor, product: self.product, serial: self.serial, ..spec }
    }
}

/// Carries out `offhost portal`.
///
/// # Errors
/// What the target says.
pub async fn portal(control: &Control, action: PortalAction, json: bool) -> anyhow::Result<()> {
    let change = match action {
        PortalAction::List => {
            let portals = control.status().await?.portals;
            return print(json, &portals, |out| {
                let mut table = list::plain(&["listens on", "tag", "advertised"]);
                for portal in &portals {
                    table.add_row([
                        portal.listen.to_string(),
                        portal.tag.to_string(),
                        portal.advertise.clone().unwrap_or_default(),
                    ]);
                }
                writeln!(out, "{table}")
            });
        }
        PortalAction::Add { listen, advertise, tag } => Change::AddPortal(PortalSpec { listen, advertise, tag }),
        PortalAction::Remove { listen } => Change::RemovePortal { listen },
    };
    carry_out(control, change, json).await
}

/// Carries out `offhost access`.
///
/// # Errors
/// As [`lun`].
pub async fn access(control: &Control, of: OfTarget, action: AccessAction, json: bool) -> anyhow::Result<()> {
    if matches!(action, AccessAction::List) {
        let config = control.config().await?;
        return print(json, &config.targets, |out| print_access(&config, out));
    }
    let target = of.name(control).await?;
    let change = match action {
        AccessAction::List => unreachable!("answered above"),
        AccessAction::Add(entry) => Change::AddAccess { target, access: entry.spec() },
        AccessAction::Set(entry) => Change::SetAccess { target, access: entry.spec() },
        AccessAction::Remove { initiators } => Change::RemoveAccess { target, initiators },
    };
    carry_out(control, change, json).await
}

/// Carries out `offhost save`.
///
/// # Errors
/// What the target says.
pub async fn save(control: &Control, json: bool) -> anyhow::Result<()> {
    let saved = control.save().await?;
    print(json, &saved, |out| writeln!(out, "saved to {}", saved.path.display()))
}

/// Carries out `offhost reload`.
///
/// # Errors
/// What the target says: what is wrong in its file, with the line.
pub async fn reload(control: &Control, json: bool) -> anyhow::Result<()> {
    let effects = control.reload().await?;
    print(json, &effects, |out| print_effects(&effects, out))
}

impl OfTarget {
    /// The one that is meant.
    async fn name(self, control: &Control) -> anyhow::Result<String> {
        if let Some(name) = self.target {
            return Ok(name);
        }
        let targets = control.status().await?.targets;
        match targets.as_slice() {
            [only] => Ok(only.name.clone()),
            [] => Err(Stop::usage("there is no target: offhost target add NAME").into()),
            _ => Err(Stop::usage("there are several targets: choose one with --target").into()),
        }
    }
}

async fn carry_out(control: &Control, change: Change, json: bool) -> anyhow::Result<()> {
    let effects = control.change(&[change]).await?;
    print(json, &effects, |out| print_effects(&effects, out))
}

fn print_effects(effects: &[Effect], out: &mut dyn Write) -> io::Result<()> {
    if effects.is_empty() {
        writeln!(out, "nothing differs")?;
    }
    effects.iter().try_for_each(|effect| writeln!(out, "{effect}"))
}

fn print_targets(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let mut table = list::plain(&["target", "sessions", "LUNs"]);
    for target in &status.targets {
        table.add_row([target.name.clone(), target.sessions.to_string(), target.luns.to_string()]);
    }
    writeln!(out, "{table}")
}

fn print_access(config: &Configuration, out: &mut dyn Write) -> io::Result<()> {
    let mut table = list::plain(&["target", "initiators", "LUNs", "writes", "CHAP"]);
    for target in &config.targets {
        for entry in &target.access {
            let luns = entry.luns.as_ref().map(|luns| luns.iter().map(SeenLun::to_string).collect::<Vec<_>>().join(" "));
            let chap = entry.chap.as_ref().map_or("no".to_owned(), |chap| match &chap.mutual_user {
                Some(mutual) => format!("{}, and {mutual} in turn", chap.user),
                None => chap.user.clone(),
            });
            let writes = if entry.read_only { "no" } else { "yes" }.to_owned();
            table.add_row([target.name.clone(), entry.initiators.join(" "), luns.unwrap_or("all".into()), writes, chap]);
        }
        if target.access.is_empty() {
            table.add_row([target.name.as_str(), "everybody", "all", "yes", "no"]);
        }
    }
    writeln!(out, "{table}")
}
