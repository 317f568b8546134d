//! Where the target listens: portals for initiators, and the port on which movers of other hosts attach.
//!
//! What is wanted is bound beside what listens, and put in its place once nothing can fail any more; a socket whose address stays is
//! kept. What is said on the connections is not its business.
//!
//! All addresses of IPv6 (`[::]`) are those of IPv4 too, unless these have a portal of their own on that port. A socket cannot change
//! its mind about that once it is bound (`IPV6_V6ONLY`, ipv6(7)), so when such a portal comes or goes, `[::]` gets another socket; for
//! the moment in which both are bound they share the port (`SO_REUSEPORT`, socket(7)).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use protocol::control::spec::{Effect, PortalSpec, Verb};
use protocol::control::{ErrorKind, Failure};
use protocol::mover::attach::Secret;
use tokio::net::{TcpListener, TcpSocket};

use super::apply::{effect, internal, portal_effect};
use super::{Daemon, refuse};
use crate::config::{self, Config};
use crate::mover::attach::Attachments;
use crate::net::Portal;
use crate::sys;

/// A portal that listens.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    /// As it is configured.
    pub spec: PortalSpec,
    /// Where it listens: port 0 has become another.
    pub address: SocketAddr,
    socket: Arc<TcpListener>,
}

/// What becomes of the port on which movers of other hosts attach.
#[derive(Debug)]
pub(super) enum AttachPort {
    /// Nothing.
    Stays,
    /// Nobody attaches any more.
    Closes,
    /// Who attaches there from now on has to know another secret.
    Knows(Secret),
    /// A port of which nobody knows yet.
    Opens(TcpListener, SocketAddr, Secret),
}

impl Daemon {
    /// Binds what is not listened on yet. Gives all that are wanted.
    pub(super) fn bind(
        &self,
        wanted: &[PortalSpec],
        closing: &[SocketAddr],
        effects: &mut Vec<Effect>,
    ) -> Result<Vec<Listening>, Failure> {
        let running = self.portals().clone();
        let mut there: Vec<_> = running.iter().filter(|portal| !closing.contains(&portal.address)).collect();
        let mut portals = Vec::new();
        for spec in wanted {
            let beside_ipv4 =
                wanted.iter().any(|other| other.listen == SocketAddr::from((Ipv4Addr::UNSPECIFIED, spec.listen.port())));
            let bound = |address: SocketAddr| {
                let sharing = running.iter().filter(|other| is_any(other.address) && other.address.port() == address.port());
                let failed = |error| format!("cannot listen on {address}: {error}");
                listener(address, beside_ipv4, &sharing.map(|other| &*other.socket).collect::<Vec<_>>()).map_err(failed)
            };
            // The same address with another tag or another name for it needs no new listener.
            let same = there.iter().position(|old| old.spec == *spec);
            let kept = same.or_else(|| there.iter().position(|old| old.spec.listen == spec.listen));
            let (address, socket) = match kept {
                Some(at) => {
                    let old = there.remove(at);
                    let turns = old.address.is_ipv6() && is_any(old.address) && is_ipv6_only(&old.socket)? != beside_ipv4;
                    if old.spec != *spec || turns {
                        effects.push(portal_effect(Verb::Changed, old.address));
                    }
                    (old.address, if turns { bound(old.address).map(Arc::new) } else { Ok(Arc::clone(&old.socket)) })
                }
                None => {
                    let socket = bound(spec.listen).or_else(|error| refuse(ErrorKind::Invalid, error))?;
                    let address = socket.local_addr().map_err(internal)?;
                    effects.push(portal_effect(Verb::Added, address));
                    (address, Ok(Arc::new(socket)))
                }
            };
            let socket = socket.or_else(|error| refuse(ErrorKind::Invalid, error))?;
            portals.push(Listening { spec: spec.clone(), address, socket });
        }
        let gone = there.iter().map(|portal| &portal.address).chain(closing);
        effects.extend(gone.map(|address| portal_effect(Verb::Removed, *address)));
        Ok(portals)
    }

    /// Accepts on these portals and no others.
    pub(super) async fn listen(&self, portals: Vec<Listening>) {
        let running = std::mem::replace(&mut *self.portals(), portals.clone());
        let kept: Vec<_> = portals.iter().map(|portal| portal.address).collect();
        for Listening { spec, address, socket } in portals {
            let portal = Portal { advertised: spec.advertise, tag: spec.tag };
            if running.iter().any(|old| Arc::ptr_eq(&old.socket, &socket)) {
                self.server.set_portal(address, portal);
            } else {
                // The one in whose place it is.
                self.server.close_portal(address).await;
                self.server.listen(socket, address, portal);
            }
        }
        drop(running);
        for (address, _) in self.server.open_portals() {
            if !kept.contains(&address) {
                self.server.close_portal(address).await;
            }
        }
    }

    /// Reads the secret, and binds the port where it is another.
    pub(super) async fn bind_for_movers(
        &self,
        running: &Config,
        wanted: &Config,
        effects: &mut Vec<Effect>,
    ) -> Result<AttachPort, Failure> {
        if running.movers != wanted.movers {
            effects.push(effect(Verb::Changed, "movers"));
        }
        let Some(spec) = wanted.movers.attach.clone() else { return Ok(AttachPort::Closes) };
        let open = self.attachments().is_some();
        let old = running.movers.attach.as_ref().filter(|_| open);
        if old == Some(&spec) {
            return Ok(AttachPort::Stays);
        }
        let (listen, same_address) = (spec.listen, old.is_some_and(|old| old.listen == spec.listen));
        let secret = tokio::task::spawn_blocking(move || config::attach_secret(&spec)).await.map_err(internal)?;
        let secret = secret.or_else(|error| refuse(ErrorKind::Invalid, error))?;
        if same_address {
            return Ok(AttachPort::Knows(secret));
        }
        let bound = TcpListener::bind(listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((address, listener)) => Ok(AttachPort::Opens(listener, address, secret)),
            Err(error) => refuse(ErrorKind::Invalid, format!("movers cannot attach at {listen}: {error}")),
        }
    }

    /// Does what was found out. Movers that are attached stay.
    pub(super) async fn let_movers_attach(&self, port: AttachPort) {
        let attachments = match port {
            AttachPort::Stays => return,
            AttachPort::Knows(secret) => return self.attachments().iter().for_each(|open| open.set_secret(secret.clone())),
            AttachPort::Closes => None,
            AttachPort::Opens(listener, address, secret) => Some(Attachments::open(listener, address, secret, &self.movers)),
        };
        let former = std::mem::replace(&mut *self.attachments(), attachments);
        if let Some(former) = former {
            former.close().await;
        }
    }
}

/// Listens; on all addresses of IPv6 without those of IPv4 when `beside_ipv4`. To begin with it shares its port with `sharing`.
fn listener(address: SocketAddr, beside_ipv4: bool, sharing: &[&TcpListener]) -> io::Result<TcpListener> {
    const BACKLOG: u32 = 1024;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.is_ipv6() && is_any(address) {
        sys::set_ipv6_only(socket.as_fd(), beside_ipv4)?;
    }
    // A target that comes again need not wait for connections of its former life.
    socket.set_reuseaddr(true)?;
    let share = |on| sharing.iter().try_for_each(|other| setsockopt(*other, sockopt::ReusePort, &on));
    socket.set_reuseport(!sharing.is_empty())?;
    share(true)?;
    let listening = socket.bind(address).and_then(|()| socket.listen(BACKLOG));
    // From then on it is not shared: another target finds the port in use.
    share(false)?;
    let listener = listening?;
    setsockopt(&listener, sockopt::ReusePort, &false)?;
    Ok(listener)
}

const fn is_any(address: SocketAddr) -> bool {
    address.ip().is_unspecified()
}

fn is_ipv6_only(socket: &TcpListener) -> Result<bool, Failure> {
    getsockopt(socket, sockopt::Ipv6V6Only).map_err(internal)
}
