//! Writing a configuration: the same state gives the same text, and a file is replaced whole or not at all.
//!
//! What a hand wrote beside the tables, comments above all, is not kept; the file as it was stays beside the new one as `.bak`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol::control::spec::{DiscoverySpec, LimitsSpec, MoversSpec, PortalSpec, RemoteSpec, Span, TargetSpec};
use serde::Serialize;

use super::Config;

/// Mode of a file that is made: it names users and files of secrets, which are nobody else's business.
const MODE: u32 = 0o640;

/// The order in which keys and tables are written. TOML wants plain keys first.
#[derive(Serialize)]
struct Text<'a> {
    data: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy_poll: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mover: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
    #[serde(skip_serializing_if = "LimitsSpec::is_empty")]
    limits: &'a LimitsSpec,
    #[serde(skip_serializing_if = "MoversSpec::is_empty")]
    movers: &'a MoversSpec,
    #[serde(skip_serializing_if = "DiscoverySpec::is_empty")]
    discovery: &'a DiscoverySpec,
    #[serde(rename = "remote", skip_serializing_if = "<[_]>::is_empty")]
    remotes: &'a [RemoteSpec],
    #[serde(rename = "portal")]
    portals: &'a [PortalSpec],
    #[serde(rename = "target")]
    targets: Vec<TargetSpec>,
}

/// The configuration as TOML. Targets stay in their order; LUNs are sorted by number.
///
/// # Errors
/// When a path is no text.
pub fn to_text(config: &Config) -> io::Result<String> {
    let mut targets = config.targets.clone();
    targets.iter_mut().for_each(|target| target.luns.sort_by_key(|lun| lun.lun));
    let text = Text {
        data: &config.data,
        control: config.control.as_deref(),
        busy_poll: config.busy_poll,
        mover: config.mover.as_deref(),
        metrics: config.metrics.map(|address| address.to_string()),
        limits: &config.limits,
        movers: &config.movers,
        discovery: &config.discovery,
        remotes: &config.remotes,
        portals: &config.portals,
        targets,
    };
    toml::to_string(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// Puts `text` in the place of a file: whoever reads it finds the old one or the new one, also after a crash at any moment. The old
/// one stays as `.bak`.
///
/// # Errors
/// What the system gives; then the file is as it was.
pub fn save(path: &Path, text: &str) -> io::Result<()> {
    // A link is followed, so that what it points to is replaced and not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = beside(&path, "new");
    let mode = fs::metadata(&path).map_or(MODE, |metadata| metadata.permissions().mode() & 0o777);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match back_up(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()
}

/// The old file under its second name, put there by rename as well, so that neither is ever torn.
fn back_up(path: &Path) -> io::Result<()> {
    let (link, backup) = (beside(path, "old"), beside(path, "bak"));
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if fs::hard_link(path, &link).is_err() {
        // A file system without hard links.
        fs::copy(path, &link)?;
        File::open(&link)?.sync_all()?;
    }
    fs::rename(&link, &backup)
}

/// `offhost.toml` → `offhost.toml.bak`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;
    use proptest::prelude::*;
    use protocol::control::spec::{AccessSpec, AttachSpec, ChapSpec, LunSpec, SeenLun, Size, XcopyView};
    use protocol::iscsi::chap::Algorithm;

    fn everything() -> Config {
        let chap = ChapSpec {
            user: "host".into(),
            secret_file: "/etc/offhost/secrets/host".into(),
            mutual_user: Some("target \"quoted\"".into()),
            mutual_secret_file: Some("/etc/offhost/secrets/target".into()),
        };
        let disk = LunSpec {
            lun: Some(3),
            disk: Some("/srv/a.img".into()),
            size: Some(Size(20 << 30)),
            block: Some(512),
            physical_block: Some(4096),
            lowest_aligned: Some(0),
            read_only: Some(false),
            removable: Some(true),
            thin: Some(true),
            threshold: Some(80),
            xcopy_view: Some(XcopyView::Lease),
            quiet: Some("1s 500ms".parse().unwrap()),
            quiet_timeout: Some("1m".parse().unwrap()),
            vendor: Some("ACME".into()),
            product: Some("DISK".into()),
            serial: Some("0123".into()),
            ..LunSpec::default()
        };
        let tape = LunSpec { lun: Some(1), tape: Some("/srv/shelf".into()), capacity: Some(Size(7)), ..LunSpec::default() };
        let target = TargetSpec {
            name: "iqn.2026-01.org.example:a".into(),
            portal_groups: vec![2],
            chap_algorithms: vec![Algorithm::Sha3_256, Algorithm::Sha256],
            access: vec![AccessSpec {
                initiators: vec!["iqn.*".into()],
                luns: Some(vec![1.into(), SeenLun::renumbered(3, 0), SeenLun { read_only: true, ..3.into() }]),
                read_only: true,
                chap: Some(chap.clone()),
            }],
            luns: vec![disk, tape],
        };
        Config {
            control: Some("/run/offhost/control.sock".into()),
            busy_poll: Some("1ms 500us".parse().unwrap()),
            mover: Some("/usr/libexec/mover".into()),
            metrics: Some("127.0.0.1:9287".parse().unwrap()),
            limits: LimitsSpec { connections: Some(64), ..LimitsSpec::default() },
            movers: MoversSpec {
                count: Some(4),
                rate: Some(Size(100 << 20)),
                job_rate: Some(Size(7)),
                priority: Some(3),
                attach: Some(AttachSpec {
                    listen: "[::]:3261".parse().unwrap(),
                    secret_file: "/etc/offhost/secrets/movers".into(),
                }),
            },
            discovery: DiscoverySpec { show_all: true, chap_algorithms: vec![Algorithm::Sha1], chap: Some(chap.clone()) },
            remotes: vec![RemoteSpec {
                portal: "[2001:db8::7]:3260".parse().unwrap(),
                target: "iqn.2026-01.org.example:other".into(),
                lun: 1,
                seen_as: Some(5),
                read_only: true,
                targets: vec!["iqn.2026-01.org.example:a".into()],
                initiators: vec!["iqn.*".into()],
                initiator_name: Some("iqn.2026-01.org.example:copier".into()),
                chap_algorithms: vec![Algorithm::Md5],
                chap: Some(chap.clone()),
            }],
            portals: vec![PortalSpec { listen: "[::1]:3260".parse().unwrap(), advertise: Some("san:3260".into()), tag: 2 }],
            targets: vec![target, TargetSpec { name: "iqn.2026-01.org.example:b".into(), ..TargetSpec::default() }],
            ..Config::default()
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was_and_written_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offhost.toml");
        let mut config = everything();
        let text = to_text(&config).unwrap();
        save(&path, &text).unwrap();
        config.targets[0].luns.sort_by_key(|lun| lun.lun);
        assert_eq!(read(&path).unwrap(), config);
        assert_eq!(to_text(&config).unwrap(), text);
    }

    #[test]
    fn the_old_file_stays_as_a_backup_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offhost.toml");
        for text in ["a", "b", "c"] {
            save(&path, text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "c");
        assert_eq!(fs::read_to_string(beside(&path, "bak")).unwrap(), "b");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_cannot_be_written_leaves_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offhost.toml");
        save(&path, "old").unwrap();
        // A folder in the place of the temporary file fails for root, too.
        fs::create_dir(beside(&path, "new")).unwrap();
        assert!(save(&path, "new").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    proptest! {
        #[test]
        fn any_text_in_a_name_survives(user in "\\PC{1,20}", path in "/\\PC{1,20}") {
            let mut config = everything();
            config.discovery.chap.as_mut().unwrap().user = user.clone();
            config.targets[0].luns[0].disk = Some(path.clone().into());
            let text = to_text(&config).unwrap();
            let value: toml::Table = text.parse().unwrap();
            prop_assert_eq!(value["discovery"]["chap"]["user"].as_str(), Some(user.as_str()));
            prop_assert_eq!(value["target"][0]["lun"][1]["disk"].as_str(), Some(path.as_str()));
        }
    }
}
