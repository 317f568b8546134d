//! From the configuration that runs to the one that is wanted.
//!
//! One way for everything: start, a change over the control socket, and a reload each say what is wanted, and only what differs is
//! touched; a secret is another one when its file is. First all that can fail is done beside what runs (files opened, addresses bound,
//! secrets read); then the outcome is put in place. A LUN whose file another LUN still holds cannot be opened beside it: the old one is
//! taken out first, and comes back when the new one cannot be had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::control::spec::{Change, Effect, LimitsSpec, LunSpec, PortalSpec, TargetSpec, Verb};
use protocol::control::{ErrorKind, Failure};
use tracing::{error, info, warn};

use super::devices::{Shared, open_lun, synchronize};
use super::edit::edit;
use super::secrets::SecretFiles;
use super::{Daemon, refuse};
use crate::access::{Access, Discovery};
use crate::config::{self, Config};
use crate::lun::Device;
use crate::net::Target;
use crate::nexus::LunMap;
use crate::remote::RemoteEnd;

/// How long the sessions of a target that is taken out are waited for.
const LEAVING: Duration = Duration::from_secs(10);

/// A LUN of a target.
type Place = (String, u16);
/// What is to be served there.
type PlacedLun = (Place, LunSpec);

impl Daemon {
    /// Carries out all steps or none.
    ///
    /// # Errors
    /// What a step names is not there, contradicts something, or cannot be opened. Then nothing has changed.
    pub async fn change(&self, changes: &[Change]) -> Result<Vec<Effect>, Failure> {
        let _changing = self.changing.lock().await;
        let mut wanted = self.config();
        let mut closing = Vec::new();
        for change in changes {
            match change {
                // By where it listens: port 0 has become another.
                Change::RemovePortal { listen } if self.portal_at(*listen).is_some_and(|spec| spec.listen != *listen) => {
                    let Some(spec) = self.portal_at(*listen) else { continue };
                    closing.push(*listen);
                    if let Some(at) = wanted.portals.iter().position(|portal| *portal == spec) {
                        wanted.portals.remove(at);
                    }
                }
                change => edit(&mut wanted, change)?,
            }
        }
        self.apply(wanted, &closing).await
    }

    fn portal_at(&self, address: SocketAddr) -> Option<PortalSpec> {
        self.portals().iter().find(|portal| portal.address == address).map(|portal| portal.spec.clone())
    }

    /// Reads the file again and carries out what differs from what runs.
    ///
    /// # Errors
    /// What is wrong in the file, with its line, or cannot be opened. Then nothing has changed.
    pub async fn reload(&self) -> Result<Vec<Effect>, Failure> {
        let _changing = self.changing.lock().await;
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let wanted = read.map_err(internal)?.map_err(|error| Failure { kind: ErrorKind::Invalid, error: error.to_string() })?;
        self.apply(wanted, &[]).await
    }

    /// Writes what runs into the file that it was read from.
    ///
    /// # Errors
    /// There is no such file, a table that a file of `conf.d` gives has changed, or what the system says.
    pub async fn save(&self) -> Result<PathBuf, Failure> {
        let _changing = self.changing.lock().await;
        let Some(path) = self.source.path.clone() else {
            return refuse(ErrorKind::Invalid, "the target was started without --config: there is no file to save to");
        };
        let mut config = self.config();
        let saved = path.clone();
        let saving = tokio::task::spawn_blocking(move || {
            leave_parts_out(&mut config, &path)?;
            config::to_text(&config).and_then(|text| config::save(&path, &text)).map_err(internal)
        });
        saving.await.map_err(internal)??;
        info!(file = %saved.display(), "configuration saved");
        Ok(saved)
    }

    /// See the module. `closing` are addresses that are to be closed even if a portal of their form stays.
    pub(super) async fn apply(&self, wanted: Config, closing: &[SocketAddr]) -> Result<Vec<Effect>, Failure> {
        wanted.check().map_err(|fault| Failure { kind: ErrorKind::Invalid, error: fault.to_string() })?;
        let mut running = self.config();
        let config = wanted.clone();
        let secret_files = tokio::task::spawn_blocking(move || SecretFiles::of(&config)).await.map_err(internal)?;
        self.secret_files().forget_changed(&secret_files, &mut running);
        let mut plan = Plan::between(&running, &wanted);
        for (target, number) in plan.gone.keys().chain(plan.resized.iter().map(|(place, _)| place)) {
            if self.snapshots_of(target, *number) > 0 {
                return refuse(ErrorKind::Invalid, format!("LUN {number} of {target} has snapshots: drop them first"));
            }
        }
        // Beside what runs.
        let accesses = read_accesses(&plan.accesses, &wanted.limits).await?;
        let discovery = self.read_discovery(&running, &wanted, &mut plan.effects).await?;
        let remotes = read_remotes(&running, &wanted, &mut plan.effects).await?;
        let attach = self.bind_for_movers(&running, &wanted, &mut plan.effects).await?;
        let portals = self.bind(&wanted.portals, closing, &mut plan.effects)?;
        let mut devices = self.open_all(&plan.free()).await?;
        // From here on sessions see it.
        self.resize(&plan.resized).await?;
        devices.append(&mut self.replace_held(&plan).await?);
        for ((target, number), spec) in &plan.viewed {
            if let Some(Device::Disk(disk)) = self.server.target(target).and_then(|target| target.luns().number(*number)) {
                disk.set_view_rules(config::view_rules(spec));
            }
        }
        self.put_in_place(&plan, devices, accesses, &wanted).await;
        // Tapes that came may lack sums.
        self.bell.ring();
        if let Some(discovery) = discovery {
            self.server.set_discovery(discovery);
        }
        self.set_movers_as(&running, &wanted).await;
        self.let_movers_attach(attach).await;
        if let Some(remotes) = remotes {
            self.copies.remotes().set(remotes);
        }
        self.listen(portals).await;
        self.server.busy_poll(wanted.busy_poll.map_or(Duration::ZERO, |time| time.0));
        *self.secret_files() = secret_files;
        *self.running() = wanted;
        for effect in &plan.effects {
            info!("{effect}");
        }
        Ok(plan.effects)
    }

    async fn set_movers_as(&self, running: &Config, wanted: &Config) {
        let settings = wanted.movers.settings();
        if settings != self.movers.settings() || running.portals.is_empty() {
            let movers = Arc::clone(&self.movers);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || movers.set(settings)).await {
                error!(%error, "a mover cannot be started");
            }
        }
    }

    /// What discovery sessions are asked for, if that is another than before.
    async fn read_discovery(
        &self,
        running: &Config,
        wanted: &Config,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Discovery>, Failure> {
        // At the start nothing is served yet, and nothing was read.
        let starting = running.portals.is_empty();
        if running.discovery == wanted.discovery && !starting {
            return Ok(None);
        }
        if !starting {
            effects.push(effect(Verb::Changed, "discovery"));
        }
        let spec = wanted.discovery.clone();
        let read = tokio::task::spawn_blocking(move || config::discovery(&spec)).await.map_err(internal)?;
        read.map(Some).map_err(|error| Failure { kind: ErrorKind::Invalid, error })
    }

    /// Opens LUNs; all or none.
    async fn open_all(&self, luns: &[(Place, LunSpec)]) -> Result<BTreeMap<Place, Device>, Failure> {
        let state = self.running().data.join("luns");
        let (copies, libraries, bell) = (Arc::clone(&self.copies), Arc::clone(&self.libraries), Arc::clone(&self.bell));
        let (luns, shared) = (luns.to_vec(), Shared { copies, libraries, bell, state });
        let opening = tokio::task::spawn_blocking(move || {
            let mut devices = BTreeMap::new();
            for ((target, number), spec) in luns {
                match open_lun(&target, &spec, &shared) {
                    Ok(device) => devices.insert((target, number), device),
                    Err(why) => return refuse(ErrorKind::Invalid, format!("LUN {number} of {target}: {why:#}")),
                };
            }
            Ok(devices)
        });
        opening.await.map_err(internal)?
    }

    /// Gives disks other sizes, all or none. Initiators are told by the disk.
    async fn resize(&self, disks: &[(Place, u64)]) -> Result<(), Failure> {
        let mut former = Vec::new();
        for ((target, number), bytes) in disks {
            let found = self.server.target(target).and_then(|target| target.luns().number(*number));
            let Some(Device::Disk(disk)) = found else {
                return refuse(ErrorKind::Invalid, format!("LUN {number} of {target} is no disk: it has no size to change"));
            };
            let (resizing, bytes) = (Arc::clone(&disk), *bytes);
            former.push((disk, resizing.volume().store().size()));
            let resized = tokio::task::spawn_blocking(move || resizing.resize(Some(bytes))).await.map_err(internal)?;
            if let Err(why) = resized {
                former.pop();
                for (disk, bytes) in former {
                    let undone =
                        tokio::task::spawn_blocking(move || disk.resize(Some(bytes)).map(drop)).await.map_err(internal)?;
                    undone.map_err(internal)?;
                }
                return refuse(ErrorKind::Invalid, format!("LUN {number} of {target}: {why}"));
            }
        }
        Ok(())
    }

    /// Opens the LUNs whose files other LUNs hold, which are taken out for it; puts those back when that fails.
    async fn replace_held(&self, plan: &Plan) -> Result<BTreeMap<Place, Device>, Failure> {
        let (holders, held) = plan.held();
        if held.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.take_out(holders.iter().map(|(place, _)| place)).await;
        match self.open_all(&held).await {
            Ok(devices) => Ok(devices),
            Err(why) => {
                match self.open_all(&holders).await {
                    Ok(devices) => self.retire(self.put_in(devices)).await,
                    Err(again) => error!(error = again.error, "LUNs that were to be replaced are lost"),
                }
                Err(why)
            }
        }
    }

    /// Takes LUNs away and synchronizes them; commands that run on them end as they would have.
    async fn take_out(&self, places: impl Iterator<Item = &Place>) {
        let mut by_target: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
        for (target, number) in places {
            by_target.entry(target).or_default().push(*number);
        }
        for (name, numbers) in by_target {
            let Some(target) = self.server.target(name) else { continue };
            let gone: Vec<Device> = target.change_luns(|luns| numbers.iter().filter_map(|number| luns.remove(*number)).collect());
            self.retire(gone).await;
        }
    }

    /// Serves devices; gives those in whose place they are.
    fn put_in(&self, devices: BTreeMap<Place, Device>) -> Vec<Device> {
        let mut by_target: BTreeMap<String, Vec<(u16, Device)>> = BTreeMap::new();
        for ((target, number), device) in devices {
            by_target.entry(target).or_default().push((number, device));
        }
        let mut former = Vec::new();
        for (name, devices) in by_target {
            let Some(target) = self.server.target(&name) else { continue };
            let put =
                |luns: &LunMap| devices.into_iter().filter_map(|(number, device)| luns.put(number, device)).collect::<Vec<_>>();
            former.append(&mut target.change_luns(put));
        }
        former
    }

    /// Cannot fail any more.
    async fn put_in_place(
        &self,
        plan: &Plan,
        mut devices: BTreeMap<Place, Device>,
        mut accesses: BTreeMap<String, Access>,
        wanted: &Config,
    ) {
        for name in &plan.targets_gone {
            self.end_target(name).await;
        }
        self.take_out(plan.gone.keys().filter(|place| !plan.come.contains_key(*place))).await;
        for spec in &wanted.targets {
            let access = accesses.remove(&spec.name);
            match self.server.target(&spec.name) {
                Some(target) => {
                    target.set_portal_groups(spec.portal_groups.clone());
                    if let Some(access) = access {
                        target.set_access(access);
                    }
                }
                None => {
                    let (own, others) = devices.into_iter().partition(|((target, _), _)| *target == spec.name);
                    devices = others;
                    self.add_target(spec, own, access.unwrap_or_default());
                }
            }
        }
        self.retire(self.put_in(devices)).await;
    }

    /// Writes out devices that are no longer served, and lets go of them: also of what tokens show of them.
    async fn retire(&self, devices: Vec<Device>) {
        for device in devices {
            self.copies.revoke(&device);
            match tokio::task::spawn_blocking(move || synchronize(&device)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => error!(error = %why, "a LUN that was taken out is not synchronized"),
                Err(why) => error!(error = %why, "a LUN that was taken out is not synchronized"),
            }
        }
    }

    fn add_target(&self, spec: &TargetSpec, devices: BTreeMap<Place, Device>, access: Access) {
        let luns = Arc::new(LunMap::default());
        for ((_, number), device) in devices {
            luns.put(number, device);
        }
        let target = Target::new(spec.name.clone(), luns);
        target.set_portal_groups(spec.portal_groups.clone());
        target.set_access(access);
        if self.server.add_target(target).is_err() {
            error!(target = spec.name, "is there already");
        }
    }

    async fn end_target(&self, name: &str) {
        let Some(target) = self.server.remove_target(name) else { return };
        if tokio::time::timeout(LEAVING, target.is_left()).await.is_err() {
            warn!(target = name, "commands still run though the target is gone");
        }
        self.retire(target.luns().all().into_iter().map(|(_, device)| device).collect()).await;
    }
}

/// What differs between two configurations.
#[derive(Debug, Default)]
struct Plan {
    targets_gone: Vec<String>,
    /// LUNs that go, those that are replaced and those of targets that go among them.
    gone: BTreeMap<Place, LunSpec>,
    /// Disks that only get another size, in bytes.
    resized: Vec<(Place, u64)>,
    /// Disks of which only the rules differ by which views are taken.
    viewed: Vec<PlacedLun>,
    /// LUNs that come.
    come: BTreeMap<Place, LunSpec>,
    /// Targets whose access lists differ, or that are new.
    accesses: Vec<TargetSpec>,
    effects: Vec<Effect>,
}

impl Plan {
    fn between(old: &Config, new: &Config) -> Self {
        let mut plan = Self::default();
        for target in &old.targets {
            if new.target(&target.name).is_none() {
                plan.targets_gone.push(target.name.clone());
                plan.gone.extend(places(target));
                plan.effects.push(target_effect(Verb::Removed, &target.name));
            }
        }
        let for_sessions = |limits: &LimitsSpec| (limits.sessions, limits.connections_per_session);
        let for_server = |limits: &LimitsSpec| (limits.connections, limits.login_seconds, limits.memory_mib);
        let new_limits = for_sessions(&old.limits) != for_sessions(&new.limits);
        if new_limits {
            plan.effects.push(effect(Verb::Changed, "limits"));
        }
        for target in &new.targets {
            match old.target(&target.name) {
                Some(before) => {
                    plan.compare(before, target);
                    if new_limits && before.access == target.access {
                        plan.accesses.push(target.clone());
                    }
                }
                None => {
                    plan.come.extend(places(target));
                    plan.accesses.push(target.clone());
                    plan.effects.push(target_effect(Verb::Added, &target.name));
                }
            }
        }
        if old.busy_poll != new.busy_poll {
            plan.effects.push(effect(Verb::Changed, "busy_poll"));
        }
        for (key, same) in [
            ("data", old.data == new.data),
            ("control", old.control_path() == new.control_path()),
            ("mover", old.mover == new.mover),
            ("metrics", old.metrics == new.metrics),
            ("limits", for_server(&old.limits) == for_server(&new.limits)),
        ] {
            if !same {
                plan.effects.push(effect(Verb::AtNextStart, key));
            }
        }
        plan
    }

    fn compare(&mut self, old: &TargetSpec, new: &TargetSpec) {
        let (before, after) = (places(old).collect::<BTreeMap<_, _>>(), places(new).collect::<BTreeMap<_, _>>());
        for (place, spec) in &before {
            let verb = match after.get(place) {
                Some(same) if same == spec => continue,
                Some(other) if changes_in_place(spec, other) => {
                    self.resized.extend(other.size.filter(|_| other.size != spec.size).map(|size| (place.clone(), size.0)));
                    self.viewed.push((place.clone(), other.clone()));
                    self.effects.push(lun_effect(Verb::Changed, place));
                    continue;
                }
                Some(_) => Verb::Changed,
                None => Verb::Removed,
            };
            self.gone.insert(place.clone(), spec.clone());
            self.effects.push(lun_effect(verb, place));
        }
        for (place, spec) in after {
            let kept = before.get(&place).is_some_and(|old| *old == spec || changes_in_place(old, &spec));
            if !kept {
                if !before.contains_key(&place) {
                    self.effects.push(lun_effect(Verb::Added, &place));
                }
                self.come.insert(place, spec);
            }
        }
        if old.access != new.access || old.chap_algorithms != new.chap_algorithms {
            self.accesses.push(new.clone());
            self.effects.push(Effect { target: Some(new.name.clone()), ..effect(Verb::Changed, "access") });
        }
        if old.portal_groups != new.portal_groups {
            self.effects.push(target_effect(Verb::Changed, &new.name));
        }
    }

    /// LUNs that can be opened beside what runs.
    fn free(&self) -> Vec<(Place, LunSpec)> {
        let held = backings(&self.gone);
        let free = self.come.iter().filter(|(_, spec)| !backing(spec).is_some_and(|path| held.contains(&path)));
        free.map(|(place, spec)| (place.clone(), spec.clone())).collect()
    }

    /// LUNs that go because others want their files, and those others.
    fn held(&self) -> (Vec<PlacedLun>, Vec<PlacedLun>) {
        let both = |luns: &BTreeMap<Place, LunSpec>, others: &BTreeMap<Place, LunSpec>| {
            let others = backings(others);
            let shared = luns.iter().filter(|(_, spec)| backing(spec).is_some_and(|path| others.contains(&path)));
            shared.map(|(place, spec)| (place.clone(), spec.clone())).collect()
        };
        (both(&self.gone, &self.come), both(&self.come, &self.gone))
    }
}

/// Whether a LUN need not be opened anew to become another: a disk's size and its views can change while it is served.
fn changes_in_place(old: &LunSpec, new: &LunSpec) -> bool {
    let LunSpec { size, xcopy_view, quiet, quiet_timeout, .. } = new.clone();
    *new == LunSpec { size, xcopy_view, quiet, quiet_timeout, ..old.clone() } && (size == old.size || size.is_some())
}

fn places(target: &TargetSpec) -> impl Iterator<Item = (Place, LunSpec)> {
    target.luns.iter().map(|lun| ((target.name.clone(), lun.lun.unwrap_or_default()), lun.clone()))
}

fn backing(spec: &LunSpec) -> Option<PathBuf> {
    let path = spec.backing()?;
    Some(std::path::absolute(&path).unwrap_or(path))
}

fn backings(luns: &BTreeMap<Place, LunSpec>) -> BTreeSet<PathBuf> {
    luns.values().filter_map(backing).collect()
}

/// Remote ends with their secrets, if they are others than before. At the start none were read.
async fn read_remotes(
    running: &Config,
    wanted: &Config,
    effects: &mut Vec<Effect>,
) -> Result<Option<Vec<Arc<RemoteEnd>>>, Failure> {
    let starting = running.portals.is_empty();
    if running.remotes == wanted.remotes && !starting {
        return Ok(None);
    }
    if !starting {
        effects.push(effect(Verb::Changed, "remotes"));
    }
    let specs = wanted.remotes.clone();
    let read = tokio::task::spawn_blocking(move || config::remotes(&specs)).await.map_err(internal)?;
    read.map(Some).map_err(|error| Failure { kind: ErrorKind::Invalid, error })
}

/// Access lists with their secrets.
async fn read_accesses(targets: &[TargetSpec], limits: &LimitsSpec) -> Result<BTreeMap<String, Access>, Failure> {
    let (targets, limits) = (targets.to_vec(), limits.clone());
    let reading = tokio::task::spawn_blocking(move || {
        targets.iter().map(|target| Ok((target.name.clone(), config::access(target, &limits)?))).collect::<Result<_, String>>()
    });
    reading.await.map_err(internal)?.map_err(|error| Failure { kind: ErrorKind::Invalid, error })
}

/// Leaves out what files of `conf.d` give, so that it does not stand in two of them.
fn leave_parts_out(config: &mut Config, path: &Path) -> Result<(), Failure> {
    let parts = config::read_parts(path).map_err(|error| Failure { kind: ErrorKind::Invalid, error: error.to_string() })?;
    for part in parts {
        let elsewhere = |what: &str| {
            let file = part.path.display();
            refuse(ErrorKind::Invalid, format!("{what} stands in {file} and is another now: change it there and reload"))
        };
        for target in &part.targets {
            match config.targets.iter().position(|running| running == target) {
                Some(at) => drop(config.targets.remove(at)),
                None => return elsewhere(&format!("target {}", target.name)),
            }
        }
        for remote in &part.remotes {
            match config.remotes.iter().position(|running| running == remote) {
                Some(at) => drop(config.remotes.remove(at)),
                None => return elsewhere(&format!("remote LUN {} of {}", remote.lun, remote.target)),
            }
        }
        for portal in &part.portals {
            match config.portals.iter().position(|running| running == portal) {
                Some(at) => drop(config.portals.remove(at)),
                None => return elsewhere(&format!("portal {}", portal.listen)),
            }
        }
    }
    Ok(())
}

pub(super) fn internal(error: impl std::fmt::Display) -> Failure {
    Failure { kind: ErrorKind::Internal, error: error.to_string() }
}

pub(super) fn effect(verb: Verb, noun: &str) -> Effect {
    Effect { verb, noun: noun.to_owned(), target: None, lun: None, portal: None }
}

fn target_effect(verb: Verb, name: &str) -> Effect {
    Effect { target: Some(name.to_owned()), ..effect(verb, "target") }
}

fn lun_effect(verb: Verb, (target, lun): &Place) -> Effect {
    Effect { target: Some(target.clone()), lun: Some(*lun), ..effect(verb, "lun") }
}

pub(super) fn portal_effect(verb: Verb, address: SocketAddr) -> Effect {
    Effect { portal: Some(address), ..effect(verb, "portal") }
}
