//! What a map has to say besides the map: nothing is dropped in silence.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Unusual; the set of used blocks is still safe.
    Warning,
    /// Something on the disk is broken; who is named is the victim.
    Damage,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// Partition number of the volume.
    pub volume: Option<u32>,
    /// File record.
    pub record: Option<u64>,
    /// Byte position on the LUN.
    pub at: Option<u64>,
    /// What was found, in words.
    pub text: String,
}

impl Note {
    /// A note about nothing in particular yet.
    pub fn new(severity: Severity, text: impl Into<String>) -> Self {
        Self { severity, volume: None, record: None, at: None, text: text.into() }
    }

    /// Names the byte on the LUN.
    #[must_use]
    pub fn at(self, at: u64) -> Self {
        Self { at: Some(at), ..self }
    }

    /// Names the file record.
    #[must_use]
    pub fn record(self, record: u64) -> Self {
        Self { record: Some(record), ..self }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Info => "note: ",
            Severity::Warning => "warning: ",
            Severity::Damage => "damage: ",
        })?;
        if let Some(volume) = self.volume.filter(|volume| *volume > 0) {
            write!(f, "partition {volume}: ")?;
        }
        if let Some(record) = self.record {
            write!(f, "file record {record}: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(at) = self.at {
            write!(f, " (byte {at})")?;
        }
        Ok(())
    }
}

/// Collects notes; those above a limit are only counted, so that a broken disk cannot fill the memory.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    list: Vec<Note>,
    left_out: u64,
}

impl Notes {
    pub(crate) fn push(&mut self, note: Note) {
        if self.list.len() < MAX_NOTES { self.list.push(note) } else { self.left_out += 1 }
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.push(Note::new(Severity::Warning, text));
    }

    pub(crate) fn damage(&mut self, record: u64, at: Option<u64>, text: impl Into<String>) {
        self.push(Note { at, ..Note::new(Severity::Damage, text).record(record) });
    }

    pub(crate) fn finish(mut self, volume: u32) -> Vec<Note> {
        if self.left_out > 0 {
            self.list.push(Note::new(Severity::Damage, format!("{} more findings of these kinds", self.left_out)));
        }
        for note in &mut self.list {
            note.volume = Some(volume);
        }
        self.list
    }
}

/// Findings of one volume that are kept in words.
const MAX_NOTES: usize = 1000;
