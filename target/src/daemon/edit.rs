//! What one step of a live change makes of a configuration. Touches nothing that runs.

use protocol::control::spec::{AccessSpec, Change, LunSpec, TargetSpec};
use protocol::control::{ErrorKind, Failure};

use super::refuse;
use crate::config::Config;

/// The configuration with a step carried out.
///
/// # Errors
/// What the step names is not there, or is there already. Whether the outcome holds together is seen by [`Config::check`].
pub(super) fn edit(config: &mut Config, change: &Change) -> Result<(), Failure> {
    match change {
        Change::AddTarget(target) => config.targets.push(target.clone()),
        Change::RemoveTarget { target } => {
            let name = find(config, target)?.name.clone();
            config.targets.retain(|target| target.name != name);
        }
        Change::SetTarget { target, portal_groups, chap_algorithms } => {
            let target = find(config, target)?;
            target.portal_groups.clone_from(portal_groups);
            target.chap_algorithms.clone_from(chap_algorithms);
        }
        Change::AddLun { target, lun } => {
            let target = find(config, target)?;
            let number = lun.lun.unwrap_or_else(|| target.free_number());
            target.luns.push(LunSpec { lun: Some(number), ..lun.clone() });
        }
        Change::RemoveLun { target, lun } => {
            let target = find(config, target)?;
            find_lun(target, Some(*lun))?;
            target.luns.retain(|there| there.lun != Some(*lun));
        }
        Change::SetLun { target, lun } => {
            let there = find_lun(find(config, target)?, lun.lun)?;
            *there = overlaid(there, lun);
        }
        Change::AddPortal(portal) => config.portals.push(portal.clone()),
        Change::RemovePortal { listen } => {
            let before = config.portals.len();
            config.portals.retain(|portal| portal.listen != *listen);
            if config.portals.len() == before {
                return refuse(ErrorKind::NotFound, format!("there is no portal {listen}"));
            }
        }
        Change::AddAccess { target, access } => {
            let target = find(config, target)?;
            if target.access.iter().any(|there| there.initiators == access.initiators) {
                return refuse(ErrorKind::Invalid, format!("{:?} have an entry already: set it", access.initiators));
            }
            target.access.push(access.clone());
        }
        Change::SetAccess { target, access } => *find_access(find(config, target)?, &access.initiators)? = access.clone(),
        Change::RemoveAccess { target, initiators } => {
            let target = find(config, target)?;
            find_access(target, initiators)?;
            target.access.retain(|there| there.initiators != *initiators);
        }
    }
    Ok(())
}

fn find<'a>(config: &'a mut Config, name: &str) -> Result<&'a mut TargetSpec, Failure> {
    let found = config.targets.iter_mut().find(|target| target.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| Failure { kind: ErrorKind::NotFound, error: format!("there is no target {name}") })
}

fn find_lun(target: &mut TargetSpec, number: Option<u16>) -> Result<&mut LunSpec, Failure> {
    let Some(number) = number else { return refuse(ErrorKind::Invalid, "which LUN? its number is missing") };
    let name = &target.name;
    let found = target.luns.iter_mut().find(|lun| lun.lun == Some(number));
    found.ok_or_else(|| Failure { kind: ErrorKind::NotFound, error: format!("there is no LUN {number} of {name}") })
}

fn find_access<'a>(target: &'a mut TargetSpec, initiators: &[String]) -> Result<&'a mut AccessSpec, Failure> {
    let found = target.access.iter_mut().find(|access| access.initiators == initiators);
    found.ok_or_else(|| Failure { kind: ErrorKind::NotFound, error: format!("{initiators:?} have no access entry") })
}

/// What is given of `new`, and else what was.
fn overlaid(old: &LunSpec, new: &LunSpec) -> LunSpec {
    let (old, new) = (old.clone(), new.clone());
    LunSpec {
        lun: new.lun.or(old.lun),
        disk: new.disk.or(old.disk),
        size: new.size.or(old.size),
        block: new.block.or(old.block),
        physical_block: new.physical_block.or(old.physical_block),
        lowest_aligned: new.lowest_aligned.or(old.lowest_aligned),
        read_only: new.read_only.or(old.read_only),
        removable: new.removable.or(old.removable),
        thin: new.thin.or(old.thin),
        threshold: new.threshold.or(old.threshold),
        xcopy_view: new.xcopy_view.or(old.xcopy_view),
        quiet: new.quiet.or(old.quiet),
        quiet_timeout: new.quiet_timeout.or(old.quiet_timeout),
        tape: new.tape.or(old.tape),
        capacity: new.capacity.or(old.capacity),
        density: new.density.or(old.density),
        worm: new.worm.or(old.worm),
        layout: new.layout.or(old.layout),
        library: new.library.or(old.library),
        drive: new.drive.or(old.drive),
        drives: new.drives.or(old.drives),
        slots: new.slots.or(old.slots),
        mail: new.mail.or(old.mail),
        cartridges: new.cartridges.or(old.cartridges),
        vendor: new.vendor.or(old.vendor),
        product: new.product.or(old.product),
        serial: new.serial.or(old.serial),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::control::spec::Size;

    const NAME: &str = "iqn.2026-01.org.example:a";

    fn disk(path: &str) -> LunSpec {
        LunSpec { disk: Some(path.into()), ..LunSpec::default() }
    }

    fn after(changes: &[Change]) -> Result<Config, Failure> {
        let mut config = Config::default();
        config.targets.push(TargetSpec { name: NAME.into(), ..TargetSpec::default() });
        changes.iter().try_for_each(|change| edit(&mut config, change)).map(|()| config)
    }

    #[test]
    fn a_lun_is_added_set_and_removed() {
        let target = || NAME.to_uppercase();
        let add = |path: &str| Change::AddLun { target: target(), lun: disk(path) };
        let set = LunSpec { lun: Some(1), size: Some(Size(4096)), ..LunSpec::default() };
        let changes =
            [add("a"), add("b"), Change::RemoveLun { target: target(), lun: 0 }, Change::SetLun { target: target(), lun: set }];
        let config = after(&changes).unwrap();
        assert_eq!(config.targets[0].luns, [LunSpec { lun: Some(1), size: Some(Size(4096)), ..disk("b") }]);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let target = || NAME.to_owned();
        for change in [
            Change::RemoveTarget { target: "iqn.x".into() },
            Change::RemoveLun { target: target(), lun: 0 },
            Change::SetLun { target: target(), lun: LunSpec { lun: Some(3), ..LunSpec::default() } },
            Change::RemovePortal { listen: "127.0.0.1:1".parse().unwrap() },
            Change::RemoveAccess { target: target(), initiators: vec!["*".into()] },
        ] {
            assert_eq!(after(std::slice::from_ref(&change)).unwrap_err().kind, ErrorKind::NotFound, "{change:?}");
        }
    }
}
