//! The I_T nexus: one initiator port seen through one target port, and the LUNs it may reach. SAM-5, "I_T nexus".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};

use protocol::scsi::LunAddress;
use protocol::scsi::transport_id::InitiatorPort;
use serde::{Deserialize, Serialize};

use crate::lun::Device;

/// The LUNs of a target, by number. Shared by all nexuses; a view that masks some of them is one of these with fewer entries.
#[derive(Debug, Default)]
pub struct LunMap {
    devices: RwLock<BTreeMap<u16, Device>>,
    /// Numbers that must not be written here.
    read_only: RwLock<BTreeSet<u16>>,
}

impl LunMap {
    /// The device at an address.
    #[must_use]
    pub fn get(&self, lun: LunAddress) -> Option<Device> {
        self.number(lun.number()?)
    }

    /// The device with a number.
    #[must_use]
    pub fn number(&self, number: u16) -> Option<Device> {
        self.devices.read().expect("no holder panics").get(&number).cloned()
    }

    /// All, ascending.
    #[must_use]
    pub fn all(&self) -> Vec<(u16, Device)> {
        self.devices.read().expect("no holder panics").iter().map(|(number, device)| (*number, device.clone())).collect()
    }

    /// Adds a device under the lowest free number from `from` on.
    pub fn add(&self, from: u16, device: Device) -> u16 {
        let mut devices = self.devices.write().expect("no holder panics");
        let number = (from..).find(|number| !devices.contains_key(number)).expect("fewer than 65,536 LUNs");
        devices.insert(number, device);
        number
    }

    /// Puts a device under a number, in the place of what was there.
    pub fn put(&self, number: u16, device: Device) -> Option<Device> {
        self.devices.write().expect("no holder panics").insert(number, device)
    }

    /// Takes a device away.
    pub fn remove(&self, number: u16) -> Option<Device> {
        self.devices.write().expect("no holder panics").remove(&number)
    }

    /// Holds these devices from now on and no others. True when that is a change.
    pub fn replace(&self, devices: impl IntoIterator<Item = (u16, Device)>) -> bool {
        let new: BTreeMap<u16, Device> = devices.into_iter().collect();
        let mut devices = self.devices.write().expect("no holder panics");
        let same =
            devices.len() == new.len() && devices.iter().zip(&new).all(|(old, new)| old.0 == new.0 && old.1.is_same(new.1));
        *devices = new;
        !same
    }

    /// Chooses what must not be written through this view.
    pub fn shield(&self, numbers: BTreeSet<u16>) {
        *self.read_only.write().expect("no holder panics") = numbers;
    }

    /// True when what is at an address must not be written through this view.
    #[must_use]
    pub fn is_read_only(&self, lun: LunAddress) -> bool {
        lun.number().is_some_and(|number| self.read_only.read().expect("no holder panics").contains(&number))
    }

    /// True when a device is here under a number by which it may be written.
    #[must_use]
    pub fn may_write(&self, device: &Device) -> bool {
        let read_only = self.read_only.read().expect("no holder panics");
        self.all().iter().any(|(number, one)| one.is_same(device) && !read_only.contains(number))
    }
}

/// One I_T nexus, from login to logout or loss.
#[derive(Debug)]
pub struct Nexus {
    /// Unlike every other nexus of this process's life.
    pub id: u64,
    /// iSCSI name of the target.
    pub target: String,
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// ISID of the session.
    pub isid: [u8; 6],
    /// Tag of the portal group it came through: the target port of this nexus.
    pub portal_group: u16,
    /// What it may reach. A CSCD descriptor resolves in here and nowhere else.
    pub luns: Arc<LunMap>,
    /// What it has carried.
    pub counters: Arc<NexusCounters>,
    /// The other nexuses of its target.
    pub peers: Weak<dyn Peers>,
}

/// A nexus by its names: the same after a new login, and after a restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NexusName {
    /// The initiator port.
    pub port: InitiatorPort,
    /// Relative target port identifier; ours are the tags of the portal groups.
    pub target_port: u16,
}

impl NexusName {
    /// True when this is the name of `nexus`.
    #[must_use]
    pub fn names(&self, nexus: &Nexus) -> bool {
        self.target_port == nexus.portal_group && self.port.isid == nexus.isid && self.port.name == nexus.initiator
    }
}

/// What a logical unit can ask of the target that a nexus belongs to.
pub trait Peers: fmt::Debug + Send + Sync {
    /// Relative target port identifiers of all target ports, ascending: the tags of the portal groups that it is reached through.
    fn target_ports(&self) -> Vec<u16>;

    /// Ends the commands that some nexuses have at a logical unit, whatever number each knows it by, without an answer to them;
    /// done when none runs any more.
    fn abort(self: Arc<Self>, nexuses: Vec<u64>, unit: Device) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A nexus without others beside it, and with one target port: for tests, `Weak::<Alone>::new()`.
#[derive(Debug)]
pub struct Alone;

impl Peers for Alone {
    fn target_ports(&self) -> Vec<u16> {
        Vec::new()
    }

    fn abort(self: Arc<Self>, _nexuses: Vec<u64>, _unit: Device) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

impl Nexus {
    /// Its names.
    #[must_use]
    pub fn name(&self) -> NexusName {
        let port = InitiatorPort { name: self.initiator.clone(), isid: self.isid };
        NexusName { port, target_port: self.portal_group }
    }

    /// The target ports of its target, its own at least.
    #[must_use]
    pub fn target_ports(&self) -> Vec<u16> {
        let mut ports = self.peers.upgrade().map(|peers| peers.target_ports()).unwrap_or_default();
        if !ports.contains(&self.portal_group) {
            ports.push(self.portal_group);
            ports.sort_unstable();
        }
        ports
    }

    /// A number for a nexus that no other has had.
    #[must_use]
    pub fn next_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

/// Shared by all sessions of one initiator name, so that they survive a logout.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct NexusCounters {
    pub sessions: AtomicU64,
    pub live: AtomicU64,
    pub commands: AtomicU64,
    pub extended_copies: AtomicU64,
    pub data_out: AtomicU64,
    pub data_in: AtomicU64,
}
