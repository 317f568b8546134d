//! Portals: where initiators find the server.
//!
//! A portal listens on one address and belongs to one portal group; what is said on its connections is not its business.
//! Follows RFC 7143 (4.1), "network portal" and "portal groups", and appendix C for TargetAddress.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, debug, error, info_span, warn};

use super::Server;

/// Pause after an accept that failed for want of something, as of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for a connection to end that has to make room.
const MADE_ROOM: Duration = Duration::from_secs(1);

/// What initiators are told of a portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portal {
    /// TargetAddress without the portal group tag, `host:port`: for initiators behind address translation. The address that was
    /// reached when absent.
    pub advertised: Option<String>,
    /// Target portal group tag.
    pub tag: u16,
}

impl Default for Portal {
    fn default() -> Self {
        Self { advertised: None, tag: 1 }
    }
}

impl Portal {
    /// What SendTargets says of this portal, bound to `bound`, on a connection that reached `reached`. All addresses of the
    /// machine (`0.0.0.0`, `::`) stand for the one that the initiator has found; `None` where that is one of IPv6, by which
    /// `0.0.0.0` is not reached.
    pub(super) fn address(&self, bound: SocketAddr, reached: SocketAddr) -> Option<String> {
        let found = reached.ip().to_canonical();
        match &self.advertised {
            Some(advertised) => Some(advertised.clone()),
            None if !bound.ip().is_unspecified() => Some(SocketAddr::new(bound.ip().to_canonical(), bound.port()).to_string()),
            None if bound.is_ipv4() && found.is_ipv6() => None,
            None => Some(SocketAddr::new(found, bound.port()).to_string()),
        }
    }
}

/// A portal that accepts connections until this is dropped.
#[derive(Debug)]
pub(super) struct OpenPortal {
    pub portal: Portal,
    stop: DropGuard,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Accepts connections from `listener`, which listens on `address`, until [`Server::close_portal`] or the server's end.
    pub fn listen(self: &Arc<Self>, listener: impl Into<Arc<TcpListener>>, address: SocketAddr, portal: Portal) {
        let stop = self.shutdown.child_token();
        let accepting = tokio::spawn(Arc::clone(self).accept(listener.into(), address, stop.clone()));
        self.portals().insert(address, OpenPortal { portal, stop: stop.drop_guard(), accepting });
    }

    /// Says something else of a portal to those who connect from now on.
    pub fn set_portal(&self, address: SocketAddr, portal: Portal) {
        if let Some(open) = self.portals().get_mut(&address) {
            open.portal = portal;
        }
    }

    /// Accepts no more connections on an address, which is free for others then. Those that came through it go on.
    pub async fn close_portal(&self, address: SocketAddr) -> Option<Portal> {
        let OpenPortal { portal, stop, accepting } = self.portals().remove(&address)?;
        drop(stop);
        if let Err(error) = accepting.await {
            error!(%address, %error, "a portal did not end as it should");
        }
        Some(portal)
    }

    /// Addresses that are listened on.
    #[must_use]
    pub fn open_portals(&self) -> Vec<(SocketAddr, Portal)> {
        self.portals().iter().map(|(address, open)| (*address, open.portal.clone())).collect()
    }

    /// Tags of the portal groups, ascending.
    pub(super) fn portal_groups(&self) -> BTreeSet<u16> {
        self.portals().values().map(|open| open.portal.tag).collect()
    }

    /// Room for one more connection, at the cost of one that has not logged in where there is none.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if self.half_open.make_room() => {
                tokio::time::timeout(MADE_ROOM, Arc::clone(&self.room).acquire_owned()).await.ok()?.ok()
            }
            Err(_) => None,
        }
    }

    async fn accept(self: Arc<Self>, listener: Arc<TcpListener>, address: SocketAddr, stop: CancellationToken) {
        loop {
            let pause = self.half_open.pause();
            if !pause.is_zero() {
                debug!(?pause, "too many connections have come to nothing");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => return,
                }
            }
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                Err(error) => return error!(%error, "a portal is of no more use"),
            };
            let Some(permit) = self.permit().await else {
                warn!(%peer, limit = self.max_connections, "connection refused: too many");
                continue;
            };
            // None when it was closed a moment ago.
            let portal = self.portals().get(&address).map(|open| open.portal.clone());
            let (server, Some(portal)) = (Arc::clone(&self), portal) else { return };
            let place = self.half_open.enter(peer.ip());
            let serving = async move {
                if let Err(error) = server.connection(stream, portal, permit, place).await {
                    debug!(%error, "connection lost");
                }
            };
            tokio::spawn(serving.instrument(info_span!("connection", %peer)));
        }
    }
}

/// An accept that fails like this may succeed later. accept(2): errors of the new socket itself, and want of descriptors or memory.
fn is_passing(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let kinds = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    kinds.contains(&error.kind()) || matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}
