//! The copy manager: EXTENDED COPY, RECEIVE COPY and what lies between.
//!
//! ```text
//! task → manager → plan (CSCDs in the nexus's LUN map, all checks) → job → crate::mover
//!           │                                           ├ shares: a job for each of several movers
//!           │                                           └ anew: the same job once more, between remote ends
//!           ├ results (by I_T nexus and list identifier)              └ grants, tapes, progress; faults → sense
//!           ├ tokens (RODs: disks as they were at one moment)
//!           └ leases (the same for agents that cannot ask for it)
//! ```
//!
//! Moves no byte itself. A CSCD descriptor names a logical unit of the I_T nexus that sent the command, or nothing. What can be
//! checked is checked before the first segment; what a mover meets later comes back as data and becomes sense data here.
//!
//! Follows SPC-4, "Third-party copies" and the third-party copy commands.

mod anew;
mod duty;
mod jobs;
mod leases;
mod manager;
mod plan;
mod results;
mod sense;
mod shares;
#[cfg(test)]
mod tests;
mod tokens;
mod turns;

pub use leases::LeaseFacts;
pub use manager::CopyManager;
