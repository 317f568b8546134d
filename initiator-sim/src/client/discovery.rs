//! Which targets a portal has: SendTargets in a discovery session. RFC 7143 (C).

use super::{ClientError, Options};
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
    let _ = (portal, options);
    Err(ClientError::Protocol("the session machine is not here yet".into()))
}
