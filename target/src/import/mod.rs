//! Configurations of other targets as ours: tgt's `targets.conf` and LIO's `saveconfig.json`.
//!
//! | module | what |
//! |---|---|
//! | `tgt` | blocks and directives of tgt-admin, includes among them |
//! | `lio` | the JSON that targetcli saves |
//!
//! What has no place here is said, each with where it stands, and nothing is opened wider than it was: a rule that cannot be kept
//! shuts out instead. Secrets go into files of their own and never into the text. Reads other people's files and writes ours; opens no
//! LUN. Follows targets.conf(5) and the files that rtslib writes.

mod lio;
mod tgt;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::control::spec::{AccessSpec, ChapSpec};
use protocol::iscsi::chap::Secret;

use crate::access::NamePattern;
use crate::config::{Config, Fault};

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// What a file comes to.
#[derive(Debug)]
pub struct Imported {
    /// In our terms.
    pub config: Config,
    /// Secrets, and the files that the configuration names for them.
    pub secrets: Vec<SecretFile>,
    /// What could not be carried over.
    pub notes: Vec<Note>,
}

/// A secret that is to have a file of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The file.
    pub path: PathBuf,
    secret: String,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Something to know about the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// File and line, or the path inside of a JSON file.
    pub place: String,
    /// In words.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{place}: {message}")]
    Malformed {
        /// File and line, or file and path inside of it.
        place: String,
        /// In words.
        message: String,
    },
    /// What comes out of it contradicts itself.
    #[error("the outcome cannot be served: {0}")]
    Outcome(#[from] Fault),
}

/// Reads a configuration of tgt or LIO; which of them is seen from its first character. `secrets` is the folder that secrets are to
/// have their files in.
///
/// # Errors
/// [`ImportError`], with the place.
pub fn import(path: &Path, secrets: &Path) -> Result<Imported, ImportError> {
    let text = read(path)?;
    let mut import = Importing { secrets_folder: secrets.to_owned(), ..Importing::default() };
    if text.trim_start().starts_with('{') {
        lio::import(path, &text, &mut import)?;
    } else {
        tgt::import(path, &text, &mut import)?;
    }
    let Importing { mut config, secrets, notes, .. } = import;
    config.number_luns();
    config.check()?;
    Ok(Imported { config, secrets, notes })
}

/// Writes the files of secrets, for their owner alone. One that exists is left as it is.
///
/// # Errors
/// What the system gives, with the file.
pub fn write_secrets(secrets: &[SecretFile]) -> io::Result<()> {
    for file in secrets {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.path.display()));
        if let Some(folder) = file.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path).map_err(failed)?;
        writeln!(to, "{}", file.secret).and_then(|()| to.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "too long for a configuration")));
    }
    fs::read_to_string(path).map_err(failed)
}

/// What is gathered.
#[derive(Debug, Default)]
struct Importing {
    config: Config,
    secrets_folder: PathBuf,
    secrets: Vec<SecretFile>,
    notes: Vec<Note>,
}

impl Importing {
    fn note(&mut self, place: &str, message: impl Into<String>) {
        self.notes.push(Note { place: place.to_owned(), message: message.into() });
    }

    /// Credentials of one user, the secret in a file named after `owner` and the user.
    fn chap(&mut self, place: &str, owner: &str, user: &str, secret: &str) -> ChapSpec {
        ChapSpec { user: user.to_owned(), secret_file: self.keep(place, owner, user, secret), ..ChapSpec::default() }
    }

    /// The file that a secret gets.
    fn keep(&mut self, place: &str, owner: &str, user: &str, secret: &str) -> PathBuf {
        if !(Secret::MIN..=Secret::MAX).contains(&secret.len()) {
            let (min, max) = (Secret::MIN, Secret::MAX);
            self.note(
                place,
                format!("the secret of {user} has {} bytes; here it has {min} to {max}: choose another", secret.len()),
            );
        }
        let owner = owner.rsplit(':').next().unwrap_or(owner);
        let name: String = format!("{owner}-{user}")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' })
            .collect();
        for number in 0.. {
            let path = self.secrets_folder.join(if number == 0 { name.clone() } else { format!("{name}-{number}") });
            match self.secrets.iter().find(|file| file.path == path) {
                Some(file) if file.secret != secret => {}
                Some(_) => return path,
                None => {
                    self.secrets.push(SecretFile { path: path.clone(), secret: secret.to_owned() });
                    return path;
                }
            }
        }
        unreachable!("there are more numbers than secrets")
    }

    /// A name as it may stand in INQUIRY data.
    fn inquiry(&mut self, place: &str, key: &str, name: &str, longest: usize) -> Option<String> {
        let ascii: String = name.chars().filter(|c| (' '..='~').contains(c)).take(longest).collect();
        if ascii != name {
            self.note(place, format!("{key} {name:?} has room for {longest} ASCII characters: cut to {ascii:?}"));
        }
        (!ascii.is_empty()).then_some(ascii)
    }
}

/// An entry that fits nobody: what stood there let only some in, and cannot be said here.
fn nobody(why: &str) -> AccessSpec {
    let why: String = why.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    AccessSpec { initiators: vec![format!("iqn.2026-01.org.offhost.import:put-a-name-here.{why}")], ..AccessSpec::default() }
}

fn is_pattern(name: &str) -> bool {
    name.parse::<NamePattern>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_get_files_of_their_own_that_only_their_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("targets.conf");
        let text = "<target iqn.2026-01.org.example:a>\n  incominguser ann sesame-opens-it\n  outgoinguser us our-other-secret\n</target>\n";
        fs::write(&source, text).unwrap();
        let secrets = folder.path().join("secrets");
        let imported = import(&source, &secrets).unwrap();
        let text = config::to_text(&imported.config).unwrap();
        assert!(!text.contains("sesame") && !format!("{imported:?}").contains("sesame"), "{text}");
        write_secrets(&imported.secrets).unwrap();
        let file = secrets.join("a-ann");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&file).unwrap(), "sesame-opens-it\n");
        let limits = Default::default();
        let access = config::access(&imported.config.targets[0], &limits).unwrap();
        assert!(access.grant("iqn.x:any", Some("ann")).is_ok() && access.grant("iqn.x:any", None).is_err());
        assert!(write_secrets(&imported.secrets).is_err(), "what is there is left alone");
    }
}
