//! The address of a logical unit as one word: `iscsi://[user@]host[:port]/target-name/lun`.
//!
//! The form libiscsi and QEMU use, so that an address can be carried between tools. An IPv6 host stands in brackets. Carries no
//! password: secrets do not belong on a command line. Names follow RFC 7143 (4.2.7), LUNs SAM-5 as decimal numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Port assigned to iSCSI targets. RFC 7143 (15).
pub const DEFAULT_PORT: u16 = 3260;

/// Longest iSCSI name in bytes. RFC 7143 (4.2.7.1).
const LONGEST_NAME: usize = 223;

/// Highest LUN of the flat space addressing method. SAM-5, "Flat space addressing method".
const HIGHEST_LUN: u16 = 0x3FFF;

/// Where a target listens: host name or address, and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Portal {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// One logical unit of one target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Url {
    /// The part before `@`: the name to authenticate with.
    pub user: Option<String>,
    /// Where to connect to.
    pub portal: Portal,
    /// iSCSI name of the target.
    pub target: String,
    /// Logical unit number.
    pub lun: u16,
}

/// Why a text is no address of a logical unit, or none of a portal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("an address begins with iscsi://, this one with {0:?}")]
    Scheme(String),
    /// Nothing where the host should be.
    #[error("no host: the form is iscsi://host:port/target-name/lun")]
    NoHost,
    /// `[` without `]`, or something between `]` and `:`.
    #[error("{0:?} is no host: an IPv6 address stands in brackets, as [::1]:3260")]
    Host(String),
    /// Not a number from 1 to 65535.
    #[error("{0:?} is no TCP port (1 to 65535)")]
    Port(String),
    /// The path ends before the target's name.
    #[error("no target name behind the host: the form is iscsi://host:port/target-name/lun")]
    NoTarget,
    /// A name that RFC 7143 does not know.
    #[error("{0:?} is no iSCSI name: it begins with iqn., eui. or naa. and has at most {LONGEST_NAME} printable bytes")]
    Target(String),
    /// The path ends before the LUN.
    #[error("no LUN behind the target name: add /0 (or the number wanted)")]
    NoLun,
    /// Not a number up to 16383.
    #[error("{0:?} is no LUN (0 to {HIGHEST_LUN})")]
    Lun(String),
}

impl Url {
    /// The same target's unit with another number.
    #[must_use]
    pub fn with_lun(&self, lun: u16) -> Self {
        Self { lun, ..self.clone() }
    }

    /// True when both are units of one target at one portal, so that one session reaches both.
    #[must_use]
    pub fn same_target(&self, other: &Self) -> bool {
        self.portal == other.portal && self.target == other.target && self.user == other.user
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("iscsi://").ok_or_else(|| {
            let shown =
                text.split_once("://").map_or_else(|| text.chars().take(12).collect(), |(scheme, _)| format!("{scheme}://"));
            UrlError::Scheme(shown)
        })?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, portal) = match authority.rsplit_once('@') {
            Some((user, portal)) => (Some(user.to_owned()).filter(|user| !user.is_empty()), portal),
            None => (None, authority),
        };
        let portal = portal.parse()?;
        let (target, lun) = match path.rsplit_once('/') {
            Some((target, lun)) => (target, lun),
            None if path.is_empty() => return Err(UrlError::NoTarget),
            None => (path, ""),
        };
        check_name(target)?;
        if lun.is_empty() {
            return Err(UrlError::NoLun);
        }
        let number = lun.parse().ok().filter(|number| *number <= HIGHEST_LUN && !lun.starts_with('+'));
        let lun = number.ok_or_else(|| UrlError::Lun(lun.to_owned()))?;
        Ok(Self { user, portal, target: target.to_owned(), lun })
    }
}

/// An iSCSI name has one of three types and no byte that a text key could not carry. RFC 7143 (4.2.7.2).
fn check_name(name: &str) -> Result<(), UrlError> {
    let known = ["iqn.", "eui.", "naa."].iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    let printable = name.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '/');
    if name.is_empty() {
        Err(UrlError::NoTarget)
    } else if known && printable && name.len() <= LONGEST_NAME {
        Ok(())
    } else {
        Err(UrlError::Target(name.to_owned()))
    }
}

impl FromStr for Portal {
    type Err = UrlError;

    /// `host`, `host:port`, `[v6]`, `[v6]:port`; a port left out is [`DEFAULT_PORT`].
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (host, port) = if let Some(inside) = text.strip_prefix('[') {
            let (host, behind) = inside.split_once(']').ok_or_else(|| UrlError::Host(text.to_owned()))?;
            let is_address = host.parse::<std::net::Ipv6Addr>().is_ok() || host.contains('%');
            match behind.strip_prefix(':') {
                _ if !is_address => return Err(UrlError::Host(text.to_owned())),
                Some(port) => (host, Some(port)),
                None if behind.is_empty() => (host, None),
                None => return Err(UrlError::Host(text.to_owned())),
            }
        } else {
            match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(UrlError::Host(text.to_owned())),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(UrlError::NoHost);
        }
        if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::Host(host.to_owned()));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port != 0 && !text.starts_with('+'))
                .ok_or_else(|| UrlError::Port(text.to_owned()))?,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("iscsi://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}/{}/{}", self.portal, self.target, self.lun)
    }
}

impl TryFrom<String> for Url {
    type Error = UrlError;
    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.to_string()
    }
}

impl TryFrom<String> for Portal {
    type Error = UrlError;
    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<Portal> for String {
    fn from(portal: Portal) -> Self {
        portal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Url, UrlError> {
        text.parse()
    }

    #[test]
    fn the_usual_forms_are_read_and_written_back() {
        for text in [
            "iscsi://127.0.0.1:3260/iqn.2026-01.io.github.offhost:t/0",
            "iscsi://me@host.example:14260/iqn.2026-01.peers:b/1",
            "iscsi://[::1]:3260/eui.02004567A425678D/16383",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        let url = parse("iscsi://[fe80::1]/naa.52004567BA64678D/7").unwrap();
        assert_eq!((url.portal.host.as_str(), url.portal.port, url.lun), ("fe80::1", DEFAULT_PORT, 7));
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        assert_eq!(parse("http://h/iqn.x/0"), Err(UrlError::Scheme("http://".into())));
        assert_eq!(parse("iscsi:///iqn.x/0"), Err(UrlError::NoHost));
        assert_eq!(parse("iscsi://::1/iqn.x/0"), Err(UrlError::Host("::1".into())));
        assert_eq!(parse("iscsi://[::1/iqn.x/0"), Err(UrlError::Host("[::1".into())));
        assert_eq!(parse("iscsi://[::1]x/iqn.x/0"), Err(UrlError::Host("[::1]x".into())));
        assert_eq!(parse("iscsi://h:0/iqn.x/0"), Err(UrlError::Port("0".into())));
        assert_eq!(parse("iscsi://h:99999/iqn.x/0"), Err(UrlError::Port("99999".into())));
        assert_eq!(parse("iscsi://h"), Err(UrlError::NoTarget));
        assert_eq!(parse("iscsi://h/disk/0"), Err(UrlError::Target("disk".into())));
        assert_eq!(parse("iscsi://h/iqn.x"), Err(UrlError::NoLun));
        assert_eq!(parse("iscsi://h/iqn.x/"), Err(UrlError::NoLun));
        assert_eq!(parse("iscsi://h/iqn.x/16384"), Err(UrlError::Lun("16384".into())));
        assert_eq!(parse("iscsi://h/iqn.x/-1"), Err(UrlError::Lun("-1".into())));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_is_stable(text in "(iscsi://)?[a-z@:/\\[\\].0-9]{0,40}") {
            if let Ok(url) = parse(&text) {
                prop_assert_eq!(parse(&url.to_string()), Ok(url));
            }
        }
    }
}
