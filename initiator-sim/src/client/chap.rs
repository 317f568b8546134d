//! What a session proves to its target, and wants proved by it: from the command line, the environment and files.
//!
//! Secrets come from files that are their owner's alone, never from an argument, which every user of the machine could read. The
//! exchange itself is [`protocol::iscsi::chap`]'s. RFC 7143 (9.2.1), (12.1.3).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use protocol::iscsi::chap::{Account, Algorithm, Credential, CredentialError, InitiatorPolicy, Nonce, Secret};

/// What a session proves with CHAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// CHAP_N; the name before the `@` of an address when absent.
    pub user: Option<String>,
    /// What goes with it.
    pub secret: Secret,
    /// What the target has to prove in turn.
    pub mutual: Option<Credential>,
    /// Offered in this order.
    pub algorithms: Vec<Algorithm>,
}

/// Why a session cannot authenticate as it is asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// A secret and nobody it belongs to.
    #[error("a CHAP secret without a name: give --chap-user, or iscsi://user@host/…")]
    NoUser,
    /// A file that cannot be read.
    #[error("secret file {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What a file holds is no secret, or no longer one.
    #[error("secret file {path}: {error}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: CredentialError,
    },
    /// A name that is none, or one secret for both directions.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl Authentication {
    /// With every algorithm, the strongest first.
    #[must_use]
    pub fn new(user: impl Into<String>, secret: Secret) -> Self {
        Self { user: Some(user.into()), secret, mutual: None, algorithms: Algorithm::ALL.to_vec() }
    }

    /// What the login works with; with a challenge of its own.
    pub(super) fn policy(&self, url_user: Option<&str>) -> Result<InitiatorPolicy, AuthenticationError> {
        let user = self.user.as_deref().or(url_user).ok_or(AuthenticationError::NoUser)?;
        let account = Account::new(Credential::new(user, self.secret.clone())?, self.mutual.clone())?;
        let nonce = Nonce { identifier: rand::random(), challenge: rand::random() };
        Ok(InitiatorPolicy { account, algorithms: self.algorithms.clone(), nonce })
    }
}

/// The arguments that every program with sessions takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Authentication")]
pub struct ChapArguments {
    /// Name to authenticate with [default: the one before the @ of the URL]
    #[arg(long, global = true, value_name = "NAME", env = "OFFHOST_CHAP_USER", hide_short_help = true)]
    chap_user: Option<String>,
    /// File with its secret, readable by its owner only
    #[arg(long, global = true, value_name = "FILE", env = "OFFHOST_CHAP_SECRET_FILE", hide_short_help = true)]
    chap_secret_file: Option<PathBuf>,
    /// Name that the target has to prove
    #[arg(long, global = true, value_name = "NAME", env = "OFFHOST_MUTUAL_USER", hide_short_help = true)]
    mutual_user: Option<String>,
    /// File with the secret that goes with it
    #[arg(long, global = true, value_name = "FILE", env = "OFFHOST_MUTUAL_SECRET_FILE", hide_short_help = true)]
    mutual_secret_file: Option<PathBuf>,
    /// What to offer, in order of preference: md5, sha1, sha256, sha3-256 [default: all, the strongest first]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "OFFHOST_CHAP_ALGORITHM",
        value_delimiter = ',',
        hide_short_help = true
    )]
    chap_algorithm: Vec<Algorithm>,
}

impl ChapArguments {
    /// What they come to; `None` without a secret.
    ///
    /// # Errors
    /// [`AuthenticationError`], never with a byte of a secret in it.
    pub fn authentication(&self) -> anyhow::Result<Option<Authentication>> {
        let mutual = match (&self.mutual_user, &self.mutual_secret_file) {
            (Some(user), Some(file)) => Some(Credential::new(user, read_secret(file)?)?),
            (None, None) => None,
            _ => anyhow::bail!("--mutual-user and --mutual-secret-file go together"),
        };
        let Some(file) = &self.chap_secret_file else {
            let alone = self.chap_user.is_some() || mutual.is_some() || !self.chap_algorithm.is_empty();
            anyhow::ensure!(!alone, "CHAP needs a secret: give --chap-secret-file");
            return Ok(None);
        };
        let algorithms = if self.chap_algorithm.is_empty() { Algorithm::ALL.to_vec() } else { self.chap_algorithm.clone() };
        Ok(Some(Authentication { user: self.chap_user.clone(), secret: read_secret(file)?, mutual, algorithms }))
    }
}

/// Reads a secret: the file's bytes without the line end. The file must be its owner's alone.
///
/// # Errors
/// [`AuthenticationError::File`], [`AuthenticationError::Secret`].
pub fn read_secret(path: &Path) -> Result<Secret, AuthenticationError> {
    let failed = |error| AuthenticationError::File { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
    }
    // Room for one byte too many and a line end: no secret is left behind in a buffer that grew.
    let limit = Secret::MAX + 3;
    let mut content = Vec::with_capacity(limit);
    file.take(limit as u64).read_to_end(&mut content).map_err(failed)?;
    Secret::from_file(content, metadata.mode()).map_err(|error| AuthenticationError::Secret { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    fn arguments(line: &str) -> ChapArguments {
        let command = ChapArguments::augment_args(Command::new("test"));
        ChapArguments::from_arg_matches(&command.get_matches_from(line.split_whitespace())).unwrap()
    }

    #[test]
    fn half_of_a_credential_is_a_mistake() {
        assert_eq!(arguments("test").authentication().unwrap(), None);
        for line in ["test --chap-user ali", "test --mutual-user cave", "test --chap-algorithm sha256"] {
            assert!(arguments(line).authentication().is_err(), "{line}");
        }
        let nowhere = arguments("test --chap-user ali --chap-secret-file /nowhere/secret").authentication().unwrap_err();
        assert!(nowhere.to_string().contains("/nowhere/secret"), "{nowhere}");
    }

    #[test]
    fn the_name_of_the_address_stands_in() {
        let secret = Secret::new("sesame-sesame-1").unwrap();
        let nameless = Authentication { user: None, ..Authentication::new("x", secret) };
        assert_eq!(nameless.policy(Some("ali")).unwrap().account.initiator().user(), "ali");
        assert!(matches!(nameless.policy(None), Err(AuthenticationError::NoUser)));
    }
}
