//! Sending EXTENDED COPY: a disk and a tape of one target, and commands between them.
//!
//! What to send comes from [`super::segments`]. Not here: what a failed copy means for a backup or a restore.
//!
//! Text: SPC-4, "EXTENDED COPY(LID1) command", "RECEIVE COPY STATUS(LID1)", "RECEIVE COPY OPERATING PARAMETERS".

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use protocol::xcopy::results::{CopyStatus, OperatingParameters};
use protocol::xcopy::{CscdDescriptor, Designator, List};
use sim::client::LogicalUnit;

use super::segments::{Command, Limits};
use super::ui::Progress;

/// How often a copy that runs is asked how far it is.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// A disk and a tape whose copy manager is asked to move data between them.
#[derive(Debug)]
pub struct Copier {
    /// The commands go to the tape.
    tape: LogicalUnit,
    tape_descriptor: CscdDescriptor,
    disk_descriptor: CscdDescriptor,
    limits: Limits,
    list_identifier: u8,
    /// Bytes moved by the commands that ended.
    moved: u64,
    commands: u64,
    list_bytes: u64,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Sent {
    /// EXTENDED COPY commands.
    pub commands: u64,
    /// Bytes of their parameter lists, inline data included.
    pub list_bytes: u64,
    /// Bytes that the target moved by them between disk and tape.
    pub moved: u64,
}

impl Copier {
    /// Learns how the two are named and what the copy manager takes.
    ///
    /// # Errors
    /// When one of them has no name a CSCD descriptor can hold, or the tape's target has no copy manager.
    pub async fn new(tape: &LogicalUnit, disk: &LogicalUnit, block_length: u32, command_bytes: u64) -> anyhow::Result<Self> {
        let parameters = tape
            .receive_copy_operating_parameters()
            .await
            .with_context(|| format!("LUN {} does not tell what its EXTENDED COPY takes", tape.number()))?;
        let parameters = OperatingParameters::parse(&parameters)?;
        Ok(Self {
            tape_descriptor: CscdDescriptor::tape(designator(tape).await?),
            disk_descriptor: CscdDescriptor::disk(designator(disk).await?, block_length),
            tape: tape.clone(),
            limits: Limits::of(&parameters, command_bytes),
            list_identifier: 0,
            moved: 0,
            commands: 0,
            list_bytes: 0,
        })
    }

    /// What a command may hold.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// So far.
    #[must_use]
    pub const fn sent(&self) -> Sent {
        Sent { commands: self.commands, list_bytes: self.list_bytes, moved: self.moved }
    }

    /// Sends a command and waits for its end, moving the bar meanwhile.
    ///
    /// # Errors
    /// With the segment that failed and the sense data.
    pub async fn run(&mut self, command: &Command, progress: &Progress) -> anyhow::Result<()> {
        let list = command.list(self.next_identifier(), self.disk_descriptor.clone(), self.tape_descriptor.clone());
        self.send(list, progress).await.with_context(|| format!("EXTENDED COPY number {} failed", self.commands))?;
        self.moved += command.moved;
        progress.at(self.moved);
        Ok(())
    }

    async fn send(&mut self, list: List, progress: &Progress) -> anyhow::Result<()> {
        let identifier = list.id as u8;
        let bytes = Bytes::from(list.emit());
        self.commands += 1;
        self.list_bytes += bytes.len() as u64;
        let copy = self.tape.extended_copy(bytes);
        tokio::pin!(copy);
        loop {
            tokio::select! {
                ended = &mut copy => {
                    return ended.map_err(|error| match failed_segment(&error, &list) {
                        Some(segment) => anyhow::Error::new(error).context(segment),
                        None => error.into(),
                    });
                }
                () = tokio::time::sleep(POLL_EVERY) => {
                    // How far it is is a courtesy: a target that does not tell is none the worse.
                    if let Ok(status) = self.tape.receive_copy_status(identifier).await
                        && let Ok(status) = CopyStatus::parse(&status)
                    {
                        progress.at(self.moved + status.transferred);
                    }
                }
            }
        }
    }

    /// Identifiers are eight bits; 0 is left to lists without one.
    fn next_identifier(&mut self) -> u8 {
        self.list_identifier = self.list_identifier % u8::MAX + 1;
        self.list_identifier
    }
}

/// COMMAND-SPECIFIC INFORMATION of COPY ABORTED is the number of the segment.
fn failed_segment(error: &sim::client::ClientError, list: &List) -> Option<String> {
    let number = error.sense()?.command_specific?;
    let segment = list.segments.get(usize::try_from(number).ok()?)?;
    Some(format!("segment {number} of {} ({:02x}h) failed", list.segments.len(), segment.segment.code()))
}

async fn designator(unit: &LogicalUnit) -> anyhow::Result<Designator> {
    Ok(unit.cscd_designator().await?)
}

/// The designator as hexadecimal digits, for headers and people.
///
/// # Errors
/// When the unit has none that a copy could name it by.
pub async fn name_of(unit: &LogicalUnit) -> anyhow::Result<String> {
    Ok(designator(unit).await?.identifier.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}
