//! Reading the configuration file and `conf.d/*.toml` beside it.
//!
//! All files have the same form; their lists are put one behind the other, in the order of the names. A key that is no list may
//! stand in one file only. What is wrong is said with file and line: of the syntax, of a key nobody knows, and of tables that
//! contradict each other, wherever they stand.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use protocol::control::spec::{
    AccessSpec, DiscoverySpec, LimitsSpec, LunSpec, MoversSpec, PortalSpec, RemoteSpec, Span, TargetSpec,
};
use protocol::iscsi::chap::Algorithm;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{Config, ConfigError, DEFAULT_LISTEN, DEFAULT_TARGET, Fault, Place};

/// A file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<Spanned<PathBuf>>,
    control: Option<Spanned<PathBuf>>,
    busy_poll: Option<Spanned<Span>>,
    mover: Option<Spanned<PathBuf>>,
    metrics: Option<Spanned<SocketAddr>>,
    limits: Option<Spanned<LimitsSpec>>,
    movers: Option<Spanned<MoversSpec>>,
    discovery: Option<Spanned<DiscoverySpec>>,
    listen: Option<Spanned<SocketAddr>>,
    #[serde(default)]
    remote: Vec<Spanned<RemoteSpec>>,
    #[serde(default)]
    portal: Vec<Spanned<PortalSpec>>,
    target: Option<Spanned<TargetKey>>,
    #[serde(default)]
    lun: Vec<Spanned<LunSpec>>,
}

/// `target = "iqn…"` for the only one, or `[[target]]` for each.
enum TargetKey {
    Name(String),
    Tables(Vec<Spanned<TargetTable>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    name: String,
    #[serde(default)]
    portal_groups: Vec<u16>,
    #[serde(default)]
    chap_algorithms: Vec<Algorithm>,
    #[serde(default)]
    access: Vec<Spanned<AccessSpec>>,
    #[serde(default)]
    lun: Vec<Spanned<LunSpec>>,
}

impl<'de> Deserialize<'de> for TargetKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = TargetKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a target, or [[target]] tables")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<TargetKey, E> {
                Ok(TargetKey::Name(name.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut tables: A) -> Result<TargetKey, A::Error> {
                let mut all = Vec::new();
                while let Some(table) = tables.next_element()? {
                    all.push(table);
                }
                Ok(TargetKey::Tables(all))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What one of several files gives.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// The file.
    pub path: PathBuf,
    /// Its remote ends.
    pub remotes: Vec<RemoteSpec>,
    /// Its portals.
    pub portals: Vec<PortalSpec>,
    /// Its targets; the LUNs of each have their numbers.
    pub targets: Vec<TargetSpec>,
}

/// Reads a file and those in `conf.d` beside it.
///
/// # Errors
/// [`ConfigError`], with file and line.
pub fn read(path: &Path) -> Result<Config, ConfigError> {
    let mut reading = Reading::default();
    reading.take(path)?;
    for path in conf_d(path)? {
        reading.take(&path)?;
    }
    reading.finish()
}

/// What each file in `conf.d` gives, for who writes the main file anew.
///
/// # Errors
/// As [`read`].
pub fn read_parts(path: &Path) -> Result<Vec<FilePart>, ConfigError> {
    let part = |path: PathBuf| {
        let mut reading = Reading::default();
        reading.take(&path)?;
        let mut config = reading.config;
        config.number_luns();
        Ok(FilePart { path, remotes: config.remotes, portals: config.portals, targets: config.targets })
    };
    conf_d(path)?.into_iter().map(part).collect()
}

/// `conf.d/*.toml` beside the file, by name.
fn conf_d(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let failed = |source| ConfigError::Read { path: folder.clone(), source };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Files read so far, and where each table stands.
#[derive(Default)]
struct Reading {
    config: Config,
    places: BTreeMap<Place, (PathBuf, usize)>,
    /// Keys that are no lists, and where they stand.
    keys: BTreeMap<&'static str, (PathBuf, usize)>,
    /// The target that is written in the short form.
    short: Option<usize>,
}

impl Reading {
    fn take(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let file: File =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let line =
            |span: Range<usize>| text.as_bytes()[..span.start.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        let at = |span: Range<usize>| (path.to_owned(), line(span));

        if let Some(data) = file.data {
            self.once("data", at(data.span()))?;
            self.config.data = data.into_inner();
        }
        if let Some(control) = file.control {
            self.once("control", at(control.span()))?;
            self.config.control = Some(control.into_inner());
        }
        if let Some(time) = file.busy_poll {
            self.once("busy_poll", at(time.span()))?;
            self.config.busy_poll = Some(time.into_inner());
        }
        if let Some(mover) = file.mover {
            self.once("mover", at(mover.span()))?;
            self.config.mover = Some(mover.into_inner());
        }
        if let Some(metrics) = file.metrics {
            self.once("metrics", at(metrics.span()))?;
            self.config.metrics = Some(metrics.into_inner());
        }
        if let Some(limits) = file.limits {
            self.once("limits", at(limits.span()))?;
            self.places.insert(Place::Limits, at(limits.span()));
            self.config.limits = limits.into_inner();
        }
        if let Some(movers) = file.movers {
            self.once("movers", at(movers.span()))?;
            self.places.insert(Place::Movers, at(movers.span()));
            self.config.movers = movers.into_inner();
        }
        if let Some(discovery) = file.discovery {
            self.once("discovery", at(discovery.span()))?;
            self.places.insert(Place::Discovery, at(discovery.span()));
            self.config.discovery = discovery.into_inner();
        }
        if let Some(listen) = file.listen {
            self.once("listen", at(listen.span()))?;
            let span = at(listen.span());
            self.portal(PortalSpec { listen: listen.into_inner(), advertise: None, tag: 1 }, span);
        }
        for remote in file.remote {
            self.places.insert(Place::Remote(self.config.remotes.len()), at(remote.span()));
            self.config.remotes.push(remote.into_inner());
        }
        for portal in file.portal {
            let span = at(portal.span());
            self.portal(portal.into_inner(), span);
        }
        if let Some(target) = file.target {
            let span = at(target.span());
            match target.into_inner() {
                TargetKey::Name(name) => self.short_target(name, span)?,
                TargetKey::Tables(tables) => {
                    for table in tables {
                        let span = table.span();
                        self.target(table.into_inner(), at(span), at);
                    }
                }
            }
        }
        for lun in file.lun {
            let span = at(lun.span());
            self.bare_lun(lun.into_inner(), span)?;
        }
        Ok(())
    }

    fn once(&mut self, key: &'static str, (path, line): (PathBuf, usize)) -> Result<(), ConfigError> {
        match self.keys.insert(key, (path.clone(), line)) {
            None => Ok(()),
            Some((other, _)) => {
                let message = format!("{key} stands in {} already", other.display());
                Err(ConfigError::At { path, line, fault: Fault { place: Place::Whole, message } })
            }
        }
    }

    fn portal(&mut self, portal: PortalSpec, at: (PathBuf, usize)) {
        self.places.insert(Place::Portal(self.config.portals.len()), at);
        self.config.portals.push(portal);
    }

    fn short_target(&mut self, name: String, at: (PathBuf, usize)) -> Result<(), ConfigError> {
        self.once("target", at.clone())?;
        match self.short {
            // Its LUNs came first, in another file.
            Some(short) => self.config.targets[short].name = name,
            None => {
                self.places.insert(Place::Target(self.config.targets.len()), at);
                self.short = Some(self.config.targets.len());
                self.config.targets.push(TargetSpec { name, ..TargetSpec::default() });
            }
        }
        Ok(())
    }

    fn target(&mut self, table: TargetTable, here: (PathBuf, usize), at: impl Fn(Range<usize>) -> (PathBuf, usize)) {
        let index = self.config.targets.len();
        self.places.insert(Place::Target(index), here);
        for (entry, lun) in table.lun.iter().enumerate() {
            self.places.insert(Place::Lun(index, entry), at(lun.span()));
        }
        for (entry, access) in table.access.iter().enumerate() {
            self.places.insert(Place::Access(index, entry), at(access.span()));
        }
        self.config.targets.push(TargetSpec {
            name: table.name,
            portal_groups: table.portal_groups,
            chap_algorithms: table.chap_algorithms,
            access: table.access.into_iter().map(Spanned::into_inner).collect(),
            luns: table.lun.into_iter().map(Spanned::into_inner).collect(),
        });
    }

    fn bare_lun(&mut self, lun: LunSpec, at: (PathBuf, usize)) -> Result<(), ConfigError> {
        if self.short.is_none() && !self.config.targets.is_empty() {
            let message = "[[lun]] stands beside [[target]]: write [[target.lun]] below its target".to_owned();
            return Err(ConfigError::At { path: at.0, line: at.1, fault: Fault { place: Place::Whole, message } });
        }
        if self.short.is_none() {
            self.short = Some(self.config.targets.len());
            self.places.insert(Place::Target(self.config.targets.len()), at.clone());
            self.config.targets.push(TargetSpec { name: DEFAULT_TARGET.to_owned(), ..TargetSpec::default() });
        }
        let target = self.short.expect("set above");
        self.places.insert(Place::Lun(target, self.config.targets[target].luns.len()), at);
        self.config.targets[target].luns.push(lun);
        Ok(())
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        if self.config.portals.is_empty() {
            let listen = DEFAULT_LISTEN.parse().expect("a valid address");
            self.config.portals.push(PortalSpec { listen, advertise: None, tag: 1 });
        }
        self.config.number_luns();
        match self.config.check() {
            Ok(()) => Ok(self.config),
            Err(fault) => match self.places.remove(&fault.place) {
                Some((path, line)) => Err(ConfigError::At { path, line, fault }),
                None => Err(ConfigError::Value(fault)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("conf.d")).unwrap();
            for (name, text) in files {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn read(&self) -> Result<Config, ConfigError> {
            read(&self.0.path().join("offhost.toml"))
        }
    }

    fn refused(text: &str) -> String {
        Folder::with(&[("offhost.toml", text)]).read().unwrap_err().to_string()
    }

    #[test]
    fn the_short_form_is_one_target() {
        let text = "target = \"iqn.2026-01.org.example:a\"\nlisten = \"127.0.0.1:0\"\n[[lun]]\ndisk = \"a.img\"\nsize = \"1 GiB\"\n[[lun]]\ntape = \"shelf\"\n";
        let config = Folder::with(&[("offhost.toml", text)]).read().unwrap();
        assert_eq!((config.targets.len(), config.targets[0].luns.len()), (1, 2));
        assert_eq!(config.targets[0].name, "iqn.2026-01.org.example:a");
        assert_eq!(config.portals[0].listen.port(), 0);
    }

    #[test]
    fn the_example_that_is_shipped_can_be_read() {
        let example = include_str!("../../dist/offhost.toml");
        let plain = Folder::with(&[("offhost.toml", example)]).read().unwrap();
        assert_eq!((plain.targets[0].luns.len(), plain.metrics.is_some()), (2, true));
        // And with all that stands in it as a comment.
        let all = example.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line));
        let full = Folder::with(&[("offhost.toml", &all.collect::<Vec<_>>().join("\n"))]).read().unwrap();
        assert_eq!(full.targets[0].access[0].chap.as_ref().unwrap().mutual_user.as_deref(), Some("target"));
    }

    fn is_toml(line: &str) -> bool {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    }

    #[test]
    fn several_targets_portals_and_files_are_one_configuration() {
        let main = r#"
            data = "/var/lib/offhost"
            [[portal]]
            listen = "[::]:3260"
            advertise = "san.example.org:3260"
            [[portal]]
            listen = "10.0.0.1:3260"
            tag = 2
            [[target]]
            name = "iqn.2026-01.org.example:a"
            portal_groups = [2]
            [[target.lun]]
            lun = 7
            disk = "/srv/a.img"
            read_only = true
            [[target.lun]]
            tape = "/srv/shelf"
            [[target.access]]
            initiators = ["iqn.1993-08.org.debian:*"]
            luns = [7]
            [target.access.chap]
            user = "host"
            secret_file = "/etc/offhost/secrets/host"
        "#;
        let more = "[[target]]\nname = \"iqn.2026-01.org.example:b\"\n[[target.lun]]\ndisk = \"/srv/b.img\"\n";
        let files = [("offhost.toml", main), ("conf.d/b.toml", more), ("conf.d/ignored.txt", "junk")];
        let config = Folder::with(&files).read().unwrap();
        let [a, b] = config.targets.as_slice() else { panic!("{config:?}") };
        assert_eq!(a.luns.iter().map(|lun| lun.lun.unwrap()).collect::<Vec<_>>(), [7, 0]);
        assert_eq!(
            (a.access[0].luns.as_deref(), a.access[0].chap.as_ref().unwrap().user.as_str()),
            (Some(&[7.into()][..]), "host")
        );
        assert_eq!((b.name.as_str(), config.portals.len()), ("iqn.2026-01.org.example:b", 2));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let head = "[[target]]\nname = \"iqn.2026-01.org.example:a\"\n";
        for (text, line, word) in [
            ("lissen = 3\n".to_owned(), 1, "lissen"),
            ("[[lun]]\ndisk = \"a.img\"\n\n[[lun]]\ntape = \"shelf\"\nblok = 512\n".to_owned(), 6, "blok"),
            (format!("{head}[[target.lun]]\ndisk = \"a\"\n[[target.lun]]\ndisk = \"b\"\nsize = \"big\"\n"), 7, "size"),
            (format!("{head}[[target.lun]]\ndisk = \"a\"\n[[target.lun]]\ndisk = \"b\"\nblock = 1000\n"), 5, "1000"),
            (format!("{head}[[target.lun]]\ndisk = \"a\"\n[[target.lun]]\ndisk = \"a\"\n"), 5, "already"),
            (format!("{head}\n{head}"), 4, "twice"),
            (format!("{head}[[target.access]]\ninitiators = []\n"), 3, "initiators"),
            ("[[portal]]\nlisten = \"nowhere\"\n".to_owned(), 2, "socket address"),
            ("[[portal]]\nlisten = \"1.2.3.4:1\"\nadvertise = \"x\"\n".to_owned(), 1, "host:port"),
            (format!("{head}[[lun]]\ndisk = \"a\"\n"), 3, "[[target.lun]]"),
            ("target = \"nonsense\"\n".to_owned(), 1, "iqn."),
            ("[discovery.chap]\nuser = \"\"\nsecret_file = \"s\"\n".to_owned(), 1, "user is empty, give"),
            ("\n[limits]\nconnections_per_session = 0\n".to_owned(), 2, "connections_per_session = 0 lets nobody in: give 1"),
            ("[[portal]]\nlisten = \"1.2.3.4:1\"\ntag = 0\n".to_owned(), 1, "tag = 0: portal group tags begin with 1"),
            (format!("{head}portal_groups = [2]\n"), 1, "give it to a [[portal]]"),
            (format!("{head}chap_algorithms = [\"md4\"]\n"), 3, "there are md5, sha1, sha256 and sha3-256"),
            (
                format!("{head}[[target.access]]\ninitiators = [\"*\"]\nluns = [0, {{ lun = 1, as = 0 }}]\n"),
                3,
                "another number with as",
            ),
            (format!("{head}[[target.access]]\ninitiators = [\"*\"]\nluns = [\"0\"]\n"), 5, "{ lun = 7, as = 0 }"),
        ] {
            let said = refused(&text);
            assert!(said.contains(&format!("line {line}")) && said.contains(word), "{text:?}: {said}");
        }
    }

    #[test]
    fn a_key_of_two_files_names_both() {
        let files = [("offhost.toml", "data = \"a\"\n"), ("conf.d/x.toml", "\ndata = \"b\"\n")];
        let said = Folder::with(&files).read().unwrap_err().to_string();
        assert!(said.contains("x.toml: line 2") && said.contains("offhost.toml already"), "{said}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn no_text_makes_it_panic(text in "[a-z\\[\\]{}=\"'., 0-9\n#-]{0,200}") {
            let _ = Folder::with(&[("offhost.toml", &text)]).read();
        }
    }
}
