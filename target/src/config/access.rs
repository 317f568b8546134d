//! Access lists as the login asks them: patterns and credentials made of what is written, secrets read from their files.

use std::sync::Arc;

use protocol::control::spec::{AccessSpec, AttachSpec, ChapSpec, DiscoverySpec, LimitsSpec, RemoteSpec, TargetSpec};
use protocol::iscsi::chap::{Account, Algorithm, Credential, Secret, TargetPolicy};
use protocol::mover::attach;

use crate::access::{Access, Discovery, LunMask, MappedLun, NamePattern, Rule, read_secret};
use crate::remote::RemoteEnd;

/// Who may use a target. Reads the files of secrets.
///
/// # Errors
/// What is wrong, in words without a secret.
pub fn access(target: &TargetSpec, limits: &LimitsSpec) -> Result<Access, String> {
    let said = |error: String| format!("access to {}: {error}", target.name);
    let rules = target.access.iter().map(rule).collect::<Result<_, _>>().map_err(said)?;
    let mut accounts: Vec<Account> = Vec::new();
    for chap in target.access.iter().filter_map(|entry| entry.chap.as_ref()) {
        let new = account(chap).map_err(said)?;
        match accounts.iter().find(|there| there.initiator().user() == new.initiator().user()) {
            // One user in several entries, as for several hosts.
            Some(there) if *there == new => {}
            Some(_) => return Err(said(format!("CHAP user {:?} has two secrets", chap.user))),
            None => accounts.push(new),
        }
    }
    let authentication = (!accounts.is_empty()).then(|| TargetPolicy { accounts, algorithms: allowed(&target.chap_algorithms) });
    Ok(Access { authentication, rules, max_sessions: limits.sessions, max_connections: limits.connections_per_session })
}

/// How discovery sessions are treated. Reads the files of secrets.
///
/// # Errors
/// As [`access`].
pub fn discovery(spec: &DiscoverySpec) -> Result<Discovery, String> {
    let account = spec.chap.as_ref().map(account).transpose().map_err(|error| format!("discovery: {error}"))?;
    let policy = |account| TargetPolicy { accounts: vec![account], algorithms: allowed(&spec.chap_algorithms) };
    Ok(Discovery { authentication: account.map(policy), show_all: spec.show_all })
}

/// Remote ends as copies ask for them. Reads the files of secrets.
///
/// # Errors
/// As [`access`].
pub fn remotes(specs: &[RemoteSpec]) -> Result<Vec<Arc<RemoteEnd>>, String> {
    let remote = |spec: &RemoteSpec| {
        let said = |error: String| format!("remote LUN {} of {}: {error}", spec.lun, spec.target);
        let initiators = spec.initiators.iter().map(|name| name.parse()).collect::<Result<_, String>>().map_err(said)?;
        let account = spec.chap.as_ref().map(account).transpose().map_err(said)?;
        Ok(Arc::new(RemoteEnd { spec: spec.clone(), initiators, account, algorithms: allowed(&spec.chap_algorithms) }))
    };
    specs.iter().map(remote).collect()
}

/// The secret of movers on other hosts, from its file.
///
/// # Errors
/// As [`access`].
pub fn attach_secret(spec: &AttachSpec) -> Result<attach::Secret, String> {
    use std::os::unix::fs::MetadataExt;
    let said = |why: &dyn std::fmt::Display| format!("movers.attach: secret file {}: {why}", spec.secret_file.display());
    let metadata = std::fs::metadata(&spec.secret_file).map_err(|error| said(&error))?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 || metadata.len() > attach::SECRET_MOST {
        return Err(said(&"it must be a file of mode 0600 and no more than 4096 bytes"));
    }
    let bytes = std::fs::read(&spec.secret_file).map_err(|error| said(&error))?;
    attach::Secret::new(bytes).ok_or_else(|| said(&format!("it holds fewer than {} bytes", attach::SECRET_LEAST)))
}

/// All when nothing is said.
fn allowed(algorithms: &[Algorithm]) -> Vec<Algorithm> {
    if algorithms.is_empty() { Algorithm::ALL.to_vec() } else { algorithms.to_vec() }
}

fn rule(entry: &AccessSpec) -> Result<Rule, String> {
    Ok(Rule {
        initiators: patterns(entry)?,
        users: entry.chap.iter().map(|chap| chap.user.clone()).collect(),
        luns: entry.luns.as_ref().map_or(LunMask::All, |luns| {
            LunMask::Only(luns.iter().map(|lun| (lun.seen_as, MappedLun { number: lun.lun, read_only: lun.read_only })).collect())
        }),
        read_only: entry.read_only,
    })
}

/// The names of an entry.
pub(super) fn patterns(entry: &AccessSpec) -> Result<Vec<NamePattern>, String> {
    entry.initiators.iter().map(|name| name.parse()).collect()
}

fn account(chap: &ChapSpec) -> Result<Account, String> {
    let secret = |path: &std::path::Path| -> Result<Secret, String> {
        read_secret(path).map_err(|error| format!("secret file {}: {error}", path.display()))
    };
    let credential = |user: &str, secret| Credential::new(user, secret).map_err(|error| format!("CHAP user {user:?}: {error}"));
    let mutual = match (&chap.mutual_user, &chap.mutual_secret_file) {
        (Some(user), Some(file)) => Some(credential(user, secret(file)?)?),
        _ => None,
    };
    Account::new(credential(&chap.user, secret(&chap.secret_file)?)?, mutual).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::control::spec::SeenLun;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn secret(folder: &tempfile::TempDir, name: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{name}-secret-of-16\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn an_entry_asks_for_its_user_and_shows_its_luns() {
        let folder = tempfile::tempdir().unwrap();
        let chap = ChapSpec { user: "host".into(), secret_file: secret(&folder, "host"), ..ChapSpec::default() };
        let entry = |initiators: &str, luns| AccessSpec {
            initiators: vec![initiators.into()],
            luns,
            chap: Some(chap.clone()),
            ..AccessSpec::default()
        };
        let target = TargetSpec {
            access: vec![entry("iqn.x:a*", Some(vec![SeenLun::renumbered(3, 1)])), entry("iqn.x:b", None)],
            ..TargetSpec::default()
        };
        let access = access(&target, &LimitsSpec::default()).unwrap();
        assert_eq!(access.authentication.as_ref().unwrap().accounts.len(), 1, "one user of two entries");
        assert!(access.grant("iqn.x:a1", None).is_err());
        let grant = access.grant("iqn.x:a1", Some("host")).unwrap();
        assert_eq!([0, 1, 3].map(|seen| grant.number(seen)), [None, Some(3), None]);
        assert_eq!(access.grant("iqn.x:b", Some("host")).unwrap().number(0), Some(0));
    }

    #[test]
    fn only_allowed_algorithms_are_agreed_to() {
        let folder = tempfile::tempdir().unwrap();
        let chap = ChapSpec { user: "host".into(), secret_file: secret(&folder, "host"), ..ChapSpec::default() };
        let spec = |chap_algorithms| DiscoverySpec { chap_algorithms, chap: Some(chap.clone()), ..DiscoverySpec::default() };
        let algorithms = |spec: DiscoverySpec| discovery(&spec).unwrap().authentication.unwrap().algorithms;
        assert_eq!(algorithms(spec(Vec::new())), Algorithm::ALL);
        assert_eq!(algorithms(spec(vec![Algorithm::Sha256])), [Algorithm::Sha256]);
    }

    #[test]
    fn a_secret_that_cannot_be_had_is_named_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let open = secret(&folder, "open");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
        for path in [open, folder.path().join("missing")] {
            let chap = ChapSpec { user: "host".into(), secret_file: path.clone(), ..ChapSpec::default() };
            let said = discovery(&DiscoverySpec { chap: Some(chap), ..DiscoverySpec::default() }).unwrap_err();
            assert!(said.contains(path.to_str().unwrap()) && !said.contains("secret-of-16"), "{said}");
        }
    }
}
