//! What there is to say of the running target.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use protocol::control::{LeaseStatus, LunStatus, PortalStatus, Status, TargetStatus};

use super::Daemon;
use super::listening::Listening;
use super::snapshots::ServedView;
use crate::config::Config;
use crate::lun::Device;
use crate::metrics::{self, Facts, LunUsage};
use crate::net::Target;
use crate::xcopy::LeaseFacts;

impl Daemon {
    /// Everything there is to say.
    #[must_use]
    pub fn status(&self) -> Status {
        let config = self.config();
        let targets = self.server.targets();
        let luns = |target: &Arc<Target>| {
            let name = target.name().to_owned();
            let all = target.luns().all();
            all.iter().map(|(number, device)| self.lun_status(&config, &name, *number, device)).collect::<Vec<_>>()
        };
        let portals = self.portals().clone();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            target: config.targets.first().map(|target| target.name.clone()).unwrap_or_default(),
            portal: portals.first().map(|portal| portal.address.to_string()).unwrap_or_default(),
            targets: targets
                .iter()
                .map(|target| TargetStatus {
                    name: target.name().to_owned(),
                    sessions: target.session_count() as u64,
                    luns: target.luns().all().len() as u64,
                })
                .collect(),
            portals: portals
                .into_iter()
                .map(|Listening { spec, address, .. }| PortalStatus { listen: address, advertise: spec.advertise, tag: spec.tag })
                .collect(),
            connections: self.server.connection_count(),
            memory: self.server.memory(),
            luns: targets.iter().flat_map(luns).collect(),
            sessions: self.server.sessions(),
            snapshots: self.views.lock().expect("no holder panics").values().map(ServedView::now).collect(),
            leases: self.leases(),
            copies: self.copies.status(),
            movers: self.movers.status(),
        }
    }

    fn leases(&self) -> Vec<LeaseStatus> {
        let all = |target: &Arc<Target>| target.luns().all().into_iter().map(|(lun, device)| (device.address(), lun));
        let served: BTreeMap<usize, (String, u16)> = self
            .server
            .targets()
            .iter()
            .flat_map(|target| all(target).map(|(address, lun)| (address, (target.name().to_owned(), lun))).collect::<Vec<_>>())
            .collect();
        let status = |lease: LeaseFacts| {
            let (target, lun) = served.get(&lease.disk).cloned()?;
            Some(LeaseStatus {
                target,
                lun,
                initiator: lease.initiator,
                taken_unix_ms: lease.taken.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
                copies: lease.copies as u64,
                copied_bytes: lease.copied_bytes,
                live: lease.live,
            })
        };
        self.copies.leases().into_iter().filter_map(status).collect()
    }

    /// All counters as text for Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let of = |target: Arc<Target>| {
            let name = target.name().to_owned();
            let usage =
                move |(lun, device): (u16, Device)| LunUsage { target: name.clone(), lun, total: device.common().usage.total() };
            target.luns().all().into_iter().map(usage)
        };
        let luns = self.server.targets().into_iter().flat_map(of).collect();
        metrics::text(&Facts { status: &self.status(), logins: self.server.logins(), luns })
    }

    fn lun_status(&self, config: &Config, target: &str, number: u16, device: &Device) -> LunStatus {
        let source = self.source_of(target, number);
        let configured = config.target(target).and_then(|target| target.lun(number)?.backing());
        let backing = match (source, configured) {
            (Some(source), _) => format!("a moment of LUN {source}"),
            (None, backing) => backing.map(|backing| backing.display().to_string()).unwrap_or_default(),
        };
        let naa = device.common().identity.naa.iter().map(|byte| format!("{byte:02x}")).collect();
        let target = target.to_owned();
        match device {
            Device::Disk(disk) => LunStatus {
                target,
                lun: number,
                kind: if source.is_some() { "snapshot" } else { "disk" }.to_owned(),
                size: disk.volume().store().size(),
                block_length: Some(disk.block_length().0),
                backing,
                naa,
                tape: None,
                library: None,
                quiet_for_ms: disk.volume().quiet().quiet_for.map(|time| time.as_millis() as u64),
            },
            Device::Tape(tape) => {
                let (capacity, tape) = tape.status();
                let (kind, block_length, quiet_for_ms) = ("tape".to_owned(), None, None);
                let (tape, library) = (Some(tape), None);
                LunStatus { target, lun: number, kind, size: capacity, block_length, backing, naa, tape, quiet_for_ms, library }
            }
            Device::Changer(changer) => {
                let (kind, block_length, quiet_for_ms) = ("changer".to_owned(), None, None);
                let (tape, library) = (None, Some(changer.status()));
                LunStatus { target, lun: number, kind, size: 0, block_length, backing, naa, tape, quiet_for_ms, library }
            }
        }
    }
}
