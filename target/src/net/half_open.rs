//! Connections that have proved nothing yet: how many there may be, and which goes when there are too many.
//!
//! A new connection is never refused for the sake of those that do not get on with their login: the oldest of the peer that has most
//! of them makes room. So a flood from one address pushes out its own, and who logs in at the usual speed is not in its way. A
//! discovery session without authentication counts as one that has proved nothing. Connections that come to nothing, one after the
//! other, cost the sessions beside them time: beyond a number they are let in no faster than at [`WASTED_PER_SECOND`], and whoever
//! makes them waits in the system's queue. How long a login may take at all is the session's business. RFC 7143 (9) leaves such limits
//! to the implementation.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::pace::Pace;

/// Of all peers together.
const MAX: usize = 128;
/// Of one peer: more than a host has logins under way when it comes back with all its sessions.
const MAX_OF_ONE: usize = 96;

/// Connections that come to nothing in a short time before new ones have to wait: a host that looks for its targets makes fewer.
const WASTED_AT_ONCE: u32 = 256;
/// As many are forgotten each second.
const WASTED_PER_SECOND: u32 = 1000;

/// All connections that have proved nothing.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Places {
    next: u64,
    /// By age, the oldest first.
    taken: BTreeMap<u64, (Peer, CancellationToken)>,
    wasted: Pace,
}

/// What counts as one peer: an IPv4 address, or the network of an IPv6 one, since whoever has one of its addresses has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Peer(IpAddr);

/// The place of one connection, until it is given up or taken away.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<HalfOpen>,
    number: u64,
    evicted: CancellationToken,
}

impl HalfOpen {
    /// A place for a new connection.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let peer = Peer::of(address);
        let mut places = self.places();
        if places.taken.values().filter(|(other, _)| *other == peer).count() >= MAX_OF_ONE {
            places.evict_oldest_of(peer);
        } else if places.taken.len() >= MAX {
            places.evict();
        }
        let (number, evicted) = (places.next, CancellationToken::new());
        places.next += 1;
        places.taken.insert(number, (peer, evicted.clone()));
        Place { all: Arc::clone(self), number, evicted }
    }

    /// Ends one connection. False when there is none.
    pub fn make_room(&self) -> bool {
        self.places().evict()
    }

    /// How long nobody is let in.
    pub fn pause(&self) -> Duration {
        self.places().wasted.pause(Instant::now())
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no holder panics")
    }
}

impl Default for Places {
    fn default() -> Self {
        Self { next: 0, taken: BTreeMap::new(), wasted: Pace::new(WASTED_AT_ONCE, WASTED_PER_SECOND) }
    }
}

impl Places {
    /// The oldest of the peer that has most.
    fn evict(&mut self) -> bool {
        let mut counts: HashMap<Peer, usize> = HashMap::new();
        self.taken.values().for_each(|(peer, _)| *counts.entry(*peer).or_default() += 1);
        let greediest = counts.into_iter().max_by_key(|(_, count)| *count);
        greediest.is_some_and(|(peer, _)| self.evict_oldest_of(peer))
    }

    fn evict_oldest_of(&mut self, peer: Peer) -> bool {
        let oldest = self.taken.iter().find(|(_, (other, _))| *other == peer).map(|(number, _)| *number);
        let Some((_, evicted)) = oldest.and_then(|number| self.taken.remove(&number)) else { return false };
        evicted.cancel();
        true
    }
}

impl Peer {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address => Self(address),
        }
    }
}

impl Place {
    /// Fires when the connection has to end. Never after [`Place::give_up`] said that the place was still held.
    pub fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }

    /// The connection has proved what it had to. False when its place was taken away just now.
    pub fn give_up(self) -> bool {
        self.all.places().taken.remove(&self.number).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.all.places();
        // Both those that ended by themselves and those whose place was taken away; not those that gave it up.
        if places.taken.remove(&self.number).is_some() || self.evicted.is_cancelled() {
            places.wasted.add(1, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn evicted(places: &[Place]) -> usize {
        places.iter().filter(|place| place.evicted.is_cancelled()).count()
    }

    #[test]
    fn one_peer_pushes_out_its_own_oldest() {
        let all = Arc::new(HalfOpen::default());
        let other = all.enter(address("192.0.2.2"));
        let flood: Vec<_> = (0..MAX_OF_ONE + 3).map(|_| all.enter(address("192.0.2.1"))).collect();
        assert_eq!((evicted(&flood[..3]), evicted(&flood[3..])), (3, 0));
        assert!(other.give_up());
    }

    #[test]
    fn many_peers_push_out_the_greediest() {
        let all = Arc::new(HalfOpen::default());
        let greedy: Vec<_> = (0..80).map(|_| all.enter(address("2001:db8::1"))).collect();
        let others: Vec<_> = (0..MAX - 80).map(|n| all.enter(IpAddr::from([192, 0, 2, n as u8]))).collect();
        let late: Vec<_> = (0..20).map(|n| all.enter(IpAddr::from([198, 51, 100, n]))).collect();
        assert_eq!((evicted(&greedy), evicted(&others), evicted(&late)), (20, 0, 0));
        assert_eq!(evicted(&greedy[..20]), 20, "the oldest");
    }

    #[test]
    fn connections_that_come_to_nothing_are_let_in_more_slowly() {
        let all = Arc::new(HalfOpen::default());
        for _ in 0..2000 {
            assert!(all.enter(address("192.0.2.1")).give_up());
        }
        assert_eq!(all.pause(), Duration::ZERO, "who logs in is never kept waiting");
        for _ in 0..2 * WASTED_AT_ONCE + WASTED_PER_SECOND {
            drop(all.enter(address("192.0.2.1")));
        }
        assert!(all.pause() > Duration::ZERO);
    }

    #[test]
    fn a_place_that_is_left_or_taken_away_is_wasted() {
        let all = Arc::new(HalfOpen::default());
        let left = all.enter(address("192.0.2.1"));
        let taken_away = all.enter(address("192.0.2.1"));
        let begin = Instant::now();
        all.places().wasted.add(WASTED_AT_ONCE, begin);
        drop(left);
        assert!(all.make_room() && !taken_away.give_up());
        assert!(all.places().wasted.pause(begin) > Duration::from_millis(1), "both count");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_mapped_address_is_ipv4() {
        assert_eq!(Peer::of(address("2001:db8::1")), Peer::of(address("2001:db8::2:3")));
        assert_ne!(Peer::of(address("2001:db8::1")), Peer::of(address("2001:db8:0:1::1")));
        assert_eq!(Peer::of(address("::ffff:192.0.2.1")), Peer::of(address("192.0.2.1")));
    }

    #[test]
    fn a_place_that_was_taken_away_cannot_be_given_up() {
        let all = Arc::new(HalfOpen::default());
        let place = all.enter(address("192.0.2.1"));
        assert!(all.make_room() && !place.give_up() && !all.make_room());
        drop(all.enter(address("192.0.2.1")));
        assert!(!all.make_room(), "a connection that ended holds no place");
    }
}
