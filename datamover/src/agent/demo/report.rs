//! What the demo found, and its figures, all from the target's own counters.

use std::io::{self, Write};
use std::path::Path;

use anyhow::bail;
use protocol::control::{SessionStatus, Status};
use serde::Serialize;

use super::super::backup::BackupReport;
use super::super::restore::RestoreReport;
use super::super::ui::human;
use super::target::Target;
use super::{AGENT, CHECKER, LOCAL, LUNS, WRITER};

/// What lists and commands may come to beside metadata.
const SESSION_LIMIT: u64 = 1 << 20;
/// What a mover must have moved for the demo to mean something.
const MOVED_AT_LEAST: u64 = 256 << 20;

/// The outcome.
#[derive(Debug, Serialize)]
pub struct DemoReport {
    /// Stretches of the disk in use at the snapshot.
    pub used_stretches: usize,
    /// Of them, those that the restored disk has otherwise.
    pub different_stretches: usize,
    /// The file restored into a LUN is what it was.
    pub file_to_lun_equal: bool,
    /// The file restored to a local path is what it was.
    pub file_to_path_equal: bool,
    /// Files whose clusters were overwritten behind the snapshot.
    pub overwritten: Vec<String>,
    /// Bytes, by who carried them.
    pub moved: Moved,
    /// The backup.
    pub backup: BackupReport,
    /// The restores.
    pub whole: RestoreReport,
    /// Into a LUN.
    pub file_to_lun: RestoreReport,
    /// To a local path.
    pub file_to_path: RestoreReport,
    /// All sessions as the target counted them.
    pub sessions: Vec<SessionStatus>,
    /// From begin to end.
    pub elapsed_ms: u64,
}

/// Who carried how much.
#[derive(Debug, Serialize)]
pub struct Moved {
    /// Bytes of the sessions of backup and restores, by the target's count.
    pub agent_sessions: u64,
    /// Metadata in it: file-system structures read for the map, tables and catalog read from the tape.
    pub metadata: u64,
    /// What else it may be.
    pub limit: u64,
    /// Bytes that the movers wrote, by the target's count.
    pub movers: u64,
    /// How long the hosts' writes were held for the snapshot, microseconds.
    pub held_us: u64,
}

impl Moved {
    pub(super) fn new(status: &Status, backup: &BackupReport, restores: &[&RestoreReport]) -> Self {
        let agent = status.sessions.iter().filter(|session| session.initiator == AGENT);
        Self {
            agent_sessions: agent.map(|session| session.data_in + session.data_out).sum(),
            metadata: backup.metadata_read + restores.iter().map(|restore| restore.metadata_read).sum::<u64>(),
            limit: SESSION_LIMIT,
            movers: status.movers.iter().map(|mover| mover.bytes_moved).sum(),
            held_us: backup.header.moment.held_us,
        }
    }
}

impl DemoReport {
    /// An error that names each thing that is not as it must be.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        if self.different_stretches > 0 {
            wrong.push(format!("{} stretches of the restored disk differ", self.different_stretches));
        }
        if !self.file_to_lun_equal {
            wrong.push(format!("{} restored into a LUN differs", self.file_name()));
        }
        if !self.file_to_path_equal {
            wrong.push(format!("{} restored to a path differs", self.file_name()));
        }
        let moved = &self.moved;
        if moved.agent_sessions == 0 {
            wrong.push("the target counted no bytes of the backup's sessions".to_owned());
        }
        if moved.agent_sessions > moved.limit + moved.metadata {
            wrong.push(format!(
                "backup and restore carried {} where {} of metadata and {} besides were allowed",
                human(moved.agent_sessions),
                human(moved.metadata),
                human(moved.limit)
            ));
        }
        if moved.movers < MOVED_AT_LEAST {
            wrong.push(format!("the movers moved {} where {} were to be moved", human(moved.movers), human(MOVED_AT_LEAST)));
        }
        if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
    }

    fn file_name(&self) -> &str {
        self.file_to_lun.path.as_deref().unwrap_or("the file")
    }

    pub(super) fn print(&self, json: bool, target: &Target, folder: &Path, keep: bool) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, self).map_err(io::Error::from)?;
            writeln!(out)?;
            return Ok(());
        }
        self.print_facts(&mut out)?;
        self.print_next(&mut out, target, folder, keep)?;
        Ok(out.flush()?)
    }

    fn print_facts(&self, out: &mut dyn Write) -> io::Result<()> {
        let equal = |equal: bool| if equal { "equal to the state at the snapshot" } else { "DIFFERENT" };
        let moved = &self.moved;
        let name = self.file_name();
        writeln!(out)?;
        writeln!(
            out,
            "whole disk to a second LUN   {} ({} stretches, {})",
            equal(self.different_stretches == 0),
            self.used_stretches,
            human(self.whole.bytes)
        )?;
        writeln!(out, "{name} to a LUN   {} ({})", equal(self.file_to_lun_equal), human(self.file_to_lun.bytes))?;
        writeln!(out, "{name} to a path  {} ({})", equal(self.file_to_path_equal), human(self.file_to_path.bytes))?;
        writeln!(out, "live disk meanwhile          differs, as it should: {} were overwritten", self.overwritten.join(", "))?;
        writeln!(out)?;
        writeln!(out, "By the target's own counters:")?;
        writeln!(
            out,
            "  sessions of backup and restores  {}: {} of it metadata, the rest commands' lists; at most {} besides metadata are allowed",
            human(moved.agent_sessions),
            human(moved.metadata),
            human(moved.limit)
        )?;
        writeln!(out, "  moved by the mover               {}", human(moved.movers))?;
        writeln!(out, "  writes held for the snapshot     {:.3} ms", moved.held_us as f64 / 1000.0)?;
        for (name, what) in [(WRITER, "the demo's writer"), (CHECKER, "the demo's checker"), (LOCAL, "restore to a local path")] {
            let bytes: u64 = self.sessions.iter().filter(|one| one.initiator == name).map(|one| one.data_in + one.data_out).sum();
            writeln!(out, "  apart: {what:<25} {}", human(bytes))?;
        }
        writeln!(out, "\nAll of it took {:.1} s.", self.elapsed_ms as f64 / 1000.0)
    }

    fn print_next(&self, out: &mut dyn Write, target: &Target, folder: &Path, keep: bool) -> anyhow::Result<()> {
        writeln!(out)?;
        if keep {
            writeln!(out, "The target runs on as process {} (end it with: kill {}). Try:", target.pid(), target.pid())?;
            writeln!(out, "  export OFFHOST_CONTROL={}", folder.join("data/control.sock").display())?;
            writeln!(out, "  offhost status")?;
            writeln!(out, "  offhost list --from {}", target.url(LUNS[1])?)?;
            writeln!(out, "  offhost files --from {}", target.url(LUNS[1])?)?;
            writeln!(out, "  offhost map {} --file '{}'", target.url(LUNS[0])?, self.file_name())?;
            writeln!(out, "  offhost tape map --from {}", target.url(LUNS[1])?)?;
        } else {
            writeln!(out, "With your own disk (or `offhost demo --keep`, which leaves its target running):")?;
            writeln!(out, "  offhost-target serve --disk vol.img:20GiB --tape shelf/      # prints how to log in")?;
            writeln!(out, "  T=iscsi://127.0.0.1:3260/iqn.2026-01.org.offhost:target")?;
            writeln!(out, "  offhost map $T/0")?;
            writeln!(out, "  offhost backup --from $T/0 --to $T/1")?;
            writeln!(out, "  offhost list --from $T/1")?;
        }
        Ok(())
    }
}
