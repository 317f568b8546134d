//! A job between remote ends that begins anew, on another mover, when its mover has died.
//!
//! What one mover does alone it does in order, and a dead one tells nobody how far its last command came. A tape that was read or written
//! cannot go on from anywhere: it goes back to where it stood, and all is done again from the first segment, over what is there
//! already. That comes to the same only where nothing that the job reads is what it writes, and no held data was given away. Each
//! session of the dead one is ended first ([`Lane::begin_anew`]); where that cannot be done, or a tape does not go back, the copy ends.
//!
//! Jobs with a file of this host at one end are not begun anew: what a cartridge of ours has got is known, and the copy ends there.
//! Follows SPC-4, "EXTENDED COPY command processing": the result is that of the segments in their order.

use std::io;
use std::sync::Arc;

use protocol::mover::{Action, CopyJob, Destination, EndIndex, Fault, FaultKind, Move, Source};
use tracing::info;

use super::jobs::{Lanes, has_only_remote_ends, shifted};
use super::plan::{Plan, PlannedEnd, side_of};
use crate::mover::{JobHandle, Movers};
use crate::remote::{Lane, RemoteUnit};

/// A job whose movers have died so often is what kills them.
const ATTEMPTS: u8 = 3;

/// What it takes to begin a job anew.
#[derive(Debug)]
pub(super) struct Anew {
    job: CopyJob,
    movers: Arc<Movers>,
    begun: u8,
}

impl Anew {
    /// For a job as its first mover gets it, of a plan that [`can_be_done_twice`].
    pub(super) fn new(job: &CopyJob, movers: &Arc<Movers>) -> Self {
        Self { job: job.clone(), movers: Arc::clone(movers), begun: 1 }
    }

    /// Begins it anew, with the mover on another host that has the least to do, or with one of ours. Blocks.
    ///
    /// # Errors
    /// Also when it has been tried often enough.
    pub(super) fn begin(&mut self, lanes: &mut Lanes) -> io::Result<JobHandle> {
        if self.begun >= ATTEMPTS {
            return Err(io::Error::other(format!("{ATTEMPTS} movers have died of it")));
        }
        self.begun += 1;
        lanes.values_mut().try_for_each(Lane::begin_anew)?;
        let far = self.movers.attached();
        let mut files = Vec::new();
        for (index, lane) in lanes.iter_mut() {
            let local = if far.is_some() { lane.leave() } else { lane.give()? };
            if let Some(end) = self.job.ends.get_mut(usize::from(index.0)) {
                *end = shifted(local.end, files.len() as u16);
            }
            files.extend(local.files);
        }
        let mover = far.map_or_else(|| self.movers.ensure(), Ok)?;
        info!(job = self.job.id.0, mover = mover.label(), "a dead mover's copy begins anew");
        mover.begin(self.job.clone(), files)
    }

    /// What the copy ends with in a segment where a dead mover's session could not be ended: nobody knows what still arrives there.
    pub(super) fn not_ended(&self, lanes: &Lanes, segment: u32) -> Option<Fault> {
        let (end, _) = lanes.iter().find(|(_, lane)| lane.is_in_use())?;
        let of_segment = self.job.steps.iter().filter(|step| step.segment == segment);
        let side = of_segment.filter_map(|step| side_of(step, *end)).next();
        Some(Fault { segment, side, kind: FaultKind::SessionLost, expected: 0, written: 0 })
    }
}

/// Whether the segments come to the same when all of them are done again.
pub(super) fn can_be_done_twice(plan: &Plan) -> bool {
    if !has_only_remote_ends(plan) {
        return false;
    }
    let holds = |action: &Action| matches!(action, Action::Move(Move { hold: true, .. }));
    let actions = || plan.steps.iter().map(|step| &step.action);
    let units = |of: fn(&Action) -> Option<EndIndex>| -> Vec<&Arc<RemoteUnit>> {
        let ends = actions().filter_map(of).filter_map(|end| plan.ends.get(usize::from(end.0)));
        ends.filter_map(|end| if let PlannedEnd::Remote(unit) = end { Some(unit) } else { None }).collect()
    };
    let (read, written) = (units(read), units(written));
    let may_be_same = |one: &RemoteUnit, other: &RemoteUnit| one.is_same(other) || one.may_be(other.names());
    let apart = read.iter().all(|from| !written.iter().any(|to| may_be_same(from, to)));
    apart && !actions().any(holds)
}

const fn read(action: &Action) -> Option<EndIndex> {
    match action {
        Action::Move(copy) => match copy.from {
            Source::Blocks { end, .. } | Source::Bytes { end, .. } | Source::Stream { end, .. } => Some(end),
            Source::Inline { .. } => None,
        },
        Action::TapeImage { from, .. } | Action::BlockImage { from, .. } => Some(*from),
        _ => None,
    }
}

const fn written(action: &Action) -> Option<EndIndex> {
    match action {
        Action::Move(copy) => match copy.to {
            Destination::Blocks { end, .. } | Destination::Bytes { end, .. } | Destination::Stream { end, .. } => Some(end),
            Destination::Discard => None,
        },
        Action::WriteFilemarks { end, .. } | Action::TapeImage { to: end, .. } | Action::BlockImage { to: end, .. } => Some(*end),
        _ => None,
    }
}
