//! Who may log in to a target, what has to be proved for it, and which LUNs are seen then.
//!
//! One [`Access`] per target and one [`Discovery`] per server: values, filled by the configuration and asked by the login. Nothing
//! here talks to anybody; [`read_secret`] is the only thing that touches a file. Rules go by names that anybody can claim: only
//! authentication makes a name worth something, so a rule can ask for the CHAP name that was proved besides.
//!
//! RFC 7143 (9) for what protects what, (11.13.5) for what a refused login is told; LUN masking as SAM-5 sees it: an I_T nexus
//! has logical units of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use protocol::iscsi::chap::{CredentialError, Secret, TargetPolicy};
use protocol::iscsi::login::LoginStatus;

/// Who may use a target. The default lets everybody use all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// What every initiator has to prove; `None` asks nothing.
    pub authentication: Option<TargetPolicy>,
    /// The first that matches decides. None at all let everybody in; where there are some, who matches none stays out.
    pub rules: Vec<Rule>,
    /// Sessions at a time, of all initiators together.
    pub max_sessions: Option<u32>,
    /// Connections of one session that are agreed to; the server's own choice when nothing is said.
    pub max_connections: Option<u16>,
}

/// What some initiators may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is for.
    pub initiators: Vec<NamePattern>,
    /// CHAP names one of which must have been proved; any will do when there are none.
    pub users: Vec<String>,
    /// What they see.
    pub luns: LunMask,
    /// Nothing of it may be written.
    pub read_only: bool,
}

/// Which LUNs of a target are seen, and as which.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LunMask {
    /// All there are, also those added later.
    #[default]
    All,
    /// Only these, under the number that is the key. One that the target does not have (yet) is not seen.
    Only(BTreeMap<u16, MappedLun>),
}

/// A LUN in a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedLun {
    /// Its number in the target.
    pub number: u16,
    /// May not be written through this mask.
    pub read_only: bool,
}

/// How discovery sessions are treated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// What an initiator has to prove before it may ask; `None` asks nothing. Has nothing to do with what the targets ask.
    pub authentication: Option<TargetPolicy>,
    /// List targets to initiators that may not log in to them, too.
    pub show_all: bool,
}

/// What a login that may go on is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What it sees.
    pub luns: LunMask,
    /// Nothing of it may be written.
    pub read_only: bool,
}

impl Access {
    /// Whether an initiator has any prospect, by its name alone: what is known before the authentication.
    ///
    /// # Errors
    /// "Authorization failure".
    pub fn admit(&self, initiator: &str) -> Result<(), LoginStatus> {
        let known = self.rules.is_empty() || self.rules.iter().any(|rule| rule.names(initiator));
        if known { Ok(()) } else { Err(LoginStatus::AUTHORIZATION_FAILURE) }
    }

    /// What an initiator gets that has proved to be `user`, or has proved nothing.
    ///
    /// # Errors
    /// "Authorization failure".
    pub fn grant(&self, initiator: &str, user: Option<&str>) -> Result<Grant, LoginStatus> {
        if self.rules.is_empty() {
            return Ok(Grant { luns: LunMask::All, read_only: false });
        }
        let rule = self.rules.iter().find(|rule| rule.names(initiator) && rule.takes(user));
        let rule = rule.ok_or(LoginStatus::AUTHORIZATION_FAILURE)?;
        Ok(Grant { luns: rule.luns.clone(), read_only: rule.read_only })
    }

    /// Whether one more session fits beside `others`.
    ///
    /// # Errors
    /// "Out of resources": of the target's side, so that an initiator tries again later. 0206h is for one session's connections.
    pub fn has_room(&self, others: usize) -> Result<(), LoginStatus> {
        match self.max_sessions {
            Some(max) if others >= max as usize => Err(LoginStatus::OUT_OF_RESOURCES),
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn names(&self, initiator: &str) -> bool {
        self.initiators.iter().any(|pattern| pattern.matches(initiator))
    }

    fn takes(&self, user: Option<&str>) -> bool {
        self.users.is_empty() || user.is_some_and(|user| self.users.iter().any(|one| one == user))
    }
}

impl Grant {
    /// The target's number of a LUN that is seen as `seen`.
    #[must_use]
    pub fn number(&self, seen: u16) -> Option<u16> {
        match &self.luns {
            LunMask::All => Some(seen),
            LunMask::Only(luns) => luns.get(&seen).map(|lun| lun.number),
        }
    }

    /// True when what is seen as `seen` may not be written.
    #[must_use]
    pub fn is_read_only(&self, seen: u16) -> bool {
        self.read_only
            || match &self.luns {
                LunMask::All => false,
                LunMask::Only(luns) => luns.get(&seen).is_some_and(|lun| lun.read_only),
            }
    }
}

impl Default for Grant {
    fn default() -> Self {
        Self { luns: LunMask::All, read_only: false }
    }
}

impl LunMask {
    /// These LUNs under their own numbers.
    #[must_use]
    pub fn only(numbers: impl IntoIterator<Item = u16>) -> Self {
        Self::Only(numbers.into_iter().map(|number| (number, MappedLun { number, read_only: false })).collect())
    }
}

/// An iSCSI name in which `*` stands for anything, also for nothing. Case does not count, as in names. RFC 7143 (4.2.7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// True when the whole name is as the pattern says.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop().expect("split gives one part at least");
        // The earliest place of each part leaves most for the others.
        for part in parts {
            match name.find(part) {
                Some(place) => name = &name[place + part.len()..],
                None => return false,
            }
        }
        name.ends_with(last)
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MAX: usize = 223;
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | ':' | '*');
        match text {
            "" => Err("an initiator name is missing".to_owned()),
            _ if text.len() > MAX => Err(format!("an initiator name has at most {MAX} bytes")),
            _ if !text.chars().all(allowed) => {
                Err(format!("{text:?} is no initiator name: letters, digits, `-`, `.`, `:` and `*` are allowed"))
            }
            _ => Ok(Self(text.to_lowercase())),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a secret cannot be had from a file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it holds is no secret, or no longer one.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

/// Reads a CHAP secret: the file's bytes without the line end. The file must be its owner's alone.
///
/// # Errors
/// [`SecretError`]; never with a byte of the secret in it.
pub fn read_secret(path: &Path) -> Result<Secret, SecretError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file").into());
    }
    // Room for one byte too many and a line end, so that a long file is told from a long secret and no secret is left behind in
    // a buffer that grew.
    let limit = Secret::MAX + 3;
    let mut content = Vec::with_capacity(limit);
    file.take(limit as u64).read_to_end(&mut content)?;
    Ok(Secret::from_file(content, metadata.mode())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn pattern(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    fn rule(initiators: &[&str]) -> Rule {
        let initiators = initiators.iter().map(|name| pattern(name)).collect();
        Rule { initiators, users: Vec::new(), luns: LunMask::All, read_only: false }
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (text, name, expected) in [
            ("iqn.2026-11.example:a", "iqn.2026-11.example:a", true),
            ("iqn.2026-11.example:a", "IQN.2026-11.Example:A", true),
            ("iqn.2026-11.example:a", "iqn.2026-11.example:ab", false),
            ("*", "anything", true),
            ("iqn.2026-11.example:*", "iqn.2026-11.example:", true),
            ("iqn.2026-11.example:*", "iqn.2026-11.example", false),
            ("*:db*-*", "iqn.x:web-1:db2-3", true),
            ("*:db*-*", "iqn.x:web-1:db23", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "abaab", true),
            ("*ab*ab", "xab", false),
        ] {
            assert_eq!(pattern(text).matches(name), expected, "{text} {name}");
        }
        for wrong in ["", "iqn.a b", "iqn.x/0", &"a".repeat(224)] {
            assert!(NamePattern::from_str(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn without_rules_everybody_sees_everything() {
        let access = Access::default();
        assert_eq!(access.admit("iqn.x:any"), Ok(()));
        assert_eq!(access.grant("iqn.x:any", None), Ok(Grant::default()));
        assert_eq!(access.has_room(1 << 20), Ok(()));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let masked = Rule { luns: LunMask::only([3]), read_only: true, ..rule(&["iqn.x:a", "iqn.x:b*"]) };
        let access = Access { rules: vec![masked, rule(&["iqn.x:*"])], ..Access::default() };
        let grant = access.grant("iqn.x:b7", None).unwrap();
        assert_eq!((grant.number(3), grant.number(0), grant.is_read_only(3)), (Some(3), None, true));
        assert_eq!(access.grant("iqn.x:c", None), Ok(Grant::default()));
        assert_eq!(access.admit("iqn.y:c"), Err(LoginStatus::AUTHORIZATION_FAILURE));
        assert_eq!(access.grant("iqn.y:c", None), Err(LoginStatus::AUTHORIZATION_FAILURE));
    }

    #[test]
    fn a_rule_can_ask_for_the_name_that_was_proved() {
        let access = Access { rules: vec![Rule { users: vec!["backup".into()], ..rule(&["*"]) }], ..Access::default() };
        assert_eq!(access.admit("iqn.x:a"), Ok(()), "known only after the authentication");
        assert!(access.grant("iqn.x:a", Some("backup")).is_ok());
        assert!(access.grant("iqn.x:a", Some("Backup")).is_err());
        assert!(access.grant("iqn.x:a", None).is_err());
    }

    #[test]
    fn a_lun_can_be_seen_under_another_number() {
        let lun = MappedLun { number: 7, read_only: true };
        let grant = Grant { luns: LunMask::Only(BTreeMap::from([(0, lun)])), read_only: false };
        assert_eq!((grant.number(0), grant.number(7)), (Some(7), None));
        assert!(grant.is_read_only(0) && !grant.is_read_only(7));
    }

    #[test]
    fn sessions_are_counted_against_the_limit() {
        let access = Access { max_sessions: Some(2), ..Access::default() };
        assert_eq!((access.has_room(1), access.has_room(2)), (Ok(()), Err(LoginStatus::OUT_OF_RESOURCES)));
    }

    #[test]
    fn a_secret_comes_from_a_file_that_nobody_else_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |content: &[u8], mode: u32| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_secret(&path)
        };
        let secret = write(b"sesame-sesame\n", 0o600).unwrap();
        assert_eq!(secret, Secret::new(*b"sesame-sesame").unwrap());
        assert_eq!(format!("{secret:?}"), "Secret(\u{2026})");
        assert!(write(&[b'x'; 255], 0o400).is_ok());
        assert!(matches!(write(&[b'x'; 300], 0o600), Err(SecretError::Credential(CredentialError::SecretLength(_)))));
        assert!(matches!(write(b"short", 0o600), Err(SecretError::Credential(CredentialError::SecretLength(5)))));
        let open = write(b"sesame-sesame\n", 0o640).unwrap_err();
        assert!(open.to_string().contains("0640") && !open.to_string().contains("sesame"), "{open}");
        assert!(matches!(read_secret(folder.path()), Err(SecretError::Io(_))));
    }

    proptest! {
        #[test]
        fn a_pattern_made_of_pieces_of_a_name_matches_it(pieces in proptest::collection::vec("[a-c.:]{0,4}", 1..6)) {
            let text = pieces.join("*");
            prop_assume!(!text.is_empty());
            prop_assert!(pattern(&text).matches(&pieces.concat()));
            prop_assert!(pattern(&text).matches(&pieces.join("xyz")));
        }

        #[test]
        fn any_text_is_a_pattern_or_refused(text in ".{0,30}", name in ".{0,30}") {
            if let Ok(pattern) = NamePattern::from_str(&text) {
                let _ = pattern.matches(&name);
            }
        }
    }
}
