//! Which targets a portal has: SendTargets in a discovery session. RFC 7143 (C).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::connection::{self, Request};
use super::{ClientError, Counters, Options};
use crate::url::Portal;

/// A target and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DiscoveredTarget {
    /// TargetName.
    pub name: String,
    /// TargetAddress values as they came: `host:port,portal-group-tag`.
    pub addresses: Vec<String>,
}

/// Asks a portal for its targets.
///
/// # Errors
/// As [`super::Client::connect`].
pub async fn discover(portal: &Portal, options: &Options) -> Result<Vec<DiscoveredTarget>, ClientError> {
    let requests = connection::open(portal, None, options, Arc::new(Counters::default())).await?;
    let (reply, receiver) = oneshot::channel();
    requests.send(Request::SendTargets { which: "All", reply }).map_err(|_| ClientError::closed())?;
    let late = |_| ClientError::Timeout { what: "SendTargets".into(), after: options.command_timeout };
    let answered = tokio::time::timeout(options.command_timeout, receiver).await.map_err(late)?;
    targets(&answered.unwrap_or_else(|_| Err(ClientError::closed()))?)
}

/// TargetAddress belongs to the TargetName before it. RFC 7143 (C).
fn targets(text: &[u8]) -> Result<Vec<DiscoveredTarget>, ClientError> {
    let pairs = protocol::iscsi::text::parse(text);
    let pairs = pairs.map_err(|error| ClientError::Reply { command: "SendTargets", error })?;
    let mut found: Vec<DiscoveredTarget> = Vec::new();
    for pair in pairs {
        match (pair.key, found.last_mut()) {
            ("TargetName", _) => found.push(DiscoveredTarget { name: pair.value.to_owned(), addresses: Vec::new() }),
            ("TargetAddress", Some(target)) => target.addresses.push(pair.value.to_owned()),
            // Keys of later standards.
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_belong_to_the_name_before_them() {
        let text = b"TargetName=iqn.a\0TargetAddress=h:1,1\0TargetAddress=[::1]:1,2\0TargetName=iqn.b\0";
        let found = targets(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].addresses, ["h:1,1", "[::1]:1,2"]);
        assert_eq!((found[1].name.as_str(), found[1].addresses.len()), ("iqn.b", 0));
    }
}
