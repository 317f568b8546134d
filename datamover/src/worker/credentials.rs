//! The remote ends that a mover on another host may work on, and how it proves there who it is.
//!
//! `[[remote]]` tables as the target's configuration has them, in a file of the mover's own: what they do not name it does not connect
//! to, whatever a target says. Secrets are read once, before the process is caged.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use protocol::control::spec::RemoteSpec;
use protocol::iscsi::chap::{Account, Algorithm, Credential, InitiatorPolicy, Nonce};
use protocol::iscsi::session::InitiatorConfig;
use protocol::mover::RemoteTarget;
use protocol::scsi::LunAddress;
use serde::Deserialize;
use sim::client::read_secret;

/// Under which name a mover logs in where a table gives none.
const INITIATOR_NAME: &str = "iqn.2026-01.org.offhost:mover";

/// See the module. Empty for a mover beside its target, which logs in nowhere.
#[derive(Debug, Default)]
pub struct Credentials(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    spec: RemoteSpec,
    account: Option<Account>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default, rename = "remote")]
    remotes: Vec<RemoteSpec>,
}

impl Credentials {
    /// Reads a file of `[[remote]]` tables, and the files of secrets that they name.
    ///
    /// # Errors
    /// What the system gives; `InvalidData` with what is wrong in the file, never with a byte of a secret.
    pub fn read(path: &Path) -> io::Result<Self> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
        let tables: Tables = toml::from_str(&std::fs::read_to_string(path)?).map_err(|error| invalid(error.to_string()))?;
        let entry = |spec: RemoteSpec| {
            let account =
                account(&spec).map_err(|error| invalid(format!("remote LUN {} of {}: {error}", spec.lun, spec.target)))?;
            Ok(Entry { spec, account })
        };
        tables.remotes.into_iter().map(entry).collect::<io::Result<_>>().map(Self)
    }

    /// Ports that must be reached.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|entry| entry.spec.portal.port())
    }

    /// Where to connect to, how to log in to a session with this ISID, and whether to write there; `None` for what no table names.
    #[must_use]
    pub fn of(&self, target: &RemoteTarget, isid: [u8; 6], lun: LunAddress) -> Option<(SocketAddr, InitiatorConfig, bool)> {
        let names = |entry: &&Entry| {
            entry.spec.portal == target.portal
                && entry.spec.target == target.name
                && LunAddress::from_number(entry.spec.lun) == lun
        };
        let Entry { spec, account } = self.0.iter().find(names)?;
        let algorithms = if spec.chap_algorithms.is_empty() { Algorithm::ALL.to_vec() } else { spec.chap_algorithms.clone() };
        let policy = |account: &Account| InitiatorPolicy {
            account: account.clone(),
            algorithms,
            nonce: Nonce { identifier: rand::random(), challenge: rand::random() },
        };
        let config = InitiatorConfig {
            initiator_name: spec.initiator_name.clone().unwrap_or_else(|| INITIATOR_NAME.to_owned()),
            target_name: Some(spec.target.clone()),
            isid,
            chap: account.as_ref().map(policy),
            ..InitiatorConfig::default()
        };
        Some((spec.portal, config, !spec.read_only))
    }
}

fn account(spec: &RemoteSpec) -> anyhow::Result<Option<Account>> {
    let Some(chap) = &spec.chap else { return Ok(None) };
    let mutual = match (&chap.mutual_user, &chap.mutual_secret_file) {
        (Some(user), Some(file)) => Some(Credential::new(user, read_secret(file)?)?),
        (None, None) => None,
        _ => anyhow::bail!("mutual_user and mutual_secret_file go together, give both or neither"),
    };
    Ok(Some(Account::new(Credential::new(&chap.user, read_secret(&chap.secret_file)?)?, mutual)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_table_names_is_nobodys() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[[remote]]\nportal = \"192.0.2.7:3260\"\ntarget = \"iqn.x:a\"\nlun = 1\nread_only = true\n")
            .unwrap();
        let credentials = Credentials::read(file.path()).unwrap();
        let target = |portal: &str, name: &str| RemoteTarget { portal: portal.parse().unwrap(), name: name.into() };
        let lun = LunAddress::from_number;
        let isid = [0x80, 1, 2, 3, 4, 5];
        let (portal, config, writable) = credentials.of(&target("192.0.2.7:3260", "iqn.x:a"), isid, lun(1)).unwrap();
        assert_eq!((portal.port(), config.target_name.as_deref(), writable), (3260, Some("iqn.x:a"), false));
        assert_eq!(config.isid, isid);
        for (portal, name, number) in
            [("192.0.2.8:3260", "iqn.x:a", 1), ("192.0.2.7:3260", "iqn.x:b", 1), ("192.0.2.7:3260", "iqn.x:a", 2)]
        {
            assert!(credentials.of(&target(portal, name), isid, lun(number)).is_none(), "{portal} {name} {number}");
        }
        assert!(Credentials::default().of(&target("192.0.2.7:3260", "iqn.x:a"), isid, lun(1)).is_none());
        std::fs::write(file.path(), "[[remote]]\nportal = \"192.0.2.7:3260\"\ntarget = \"iqn.x:a\"\n").unwrap();
        assert!(Credentials::read(file.path()).unwrap_err().to_string().contains("lun"));
    }
}
