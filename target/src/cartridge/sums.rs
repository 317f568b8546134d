//! The sums of tape files, built from the index and kept for files that cannot change any more.

use std::collections::BTreeMap;
use std::io;

use protocol::cartridge::index::{Entry, SumState};
use protocol::cartridge::sums::{FileSummer, FileSums};
use protocol::cartridge::{ObjectKind, TapePosition};

use super::index::Index;

/// Closed files whose sums are kept.
const MAX_KEPT: usize = 65_536;

/// What has been worked out already.
#[derive(Debug, Default)]
pub struct SumsCache {
    closed: BTreeMap<u64, FileSums>,
    /// The file at the end of data, while its sums are taken along with the writing.
    open: Option<(FileSummer, TapePosition)>,
}

impl SumsCache {
    /// An object was appended.
    pub fn append(&mut self, entry: &Entry) {
        if entry.at == TapePosition::BEGINNING {
            self.open = Some((FileSummer::new(0, 0), TapePosition::BEGINNING));
        }
        let Some((summer, at)) = &mut self.open else { return };
        if *at != entry.at {
            self.open = None;
            return;
        }
        match entry.kind {
            ObjectKind::Record => {
                add(summer, entry);
                *at = entry.next();
            }
            ObjectKind::Filemark => {
                let sums = summer.sums(true);
                let next = entry.next();
                self.open = Some((FileSummer::new(next.file, next.object), next));
                self.keep(sums);
            }
        }
    }

    /// Filemarks were appended, one behind the other. The empty files between them are worked out when somebody asks for them.
    pub fn append_marks(&mut self, marks: &[Entry]) {
        let (Some(first), Some(last)) = (marks.first(), marks.last()) else { return };
        self.append(first);
        if self.open.is_some() {
            let next = last.next();
            self.open = Some((FileSummer::new(next.file, next.object), next));
        }
    }

    /// The tape now ends inside file `file` or in front of it.
    pub fn cut(&mut self, file: u64) {
        self.closed.split_off(&file);
        self.open = None;
    }

    /// Up to `limit` files from number `from` on; the last, unless it is empty, is the one that may still grow.
    pub fn files(&mut self, index: &Index, end: TapePosition, from: u64, limit: usize) -> io::Result<Vec<FileSums>> {
        let mut files = Vec::new();
        let mut file = from;
        while files.len() < limit && file <= end.file {
            let sums = match self.closed.get(&file) {
                Some(sums) => *sums,
                None => self.work_out(index, end, file)?,
            };
            if sums.closed || sums.records > 0 {
                files.push(sums);
            }
            file += 1;
        }
        Ok(files)
    }

    fn work_out(&mut self, index: &Index, end: TapePosition, file: u64) -> io::Result<FileSums> {
        if let Some((summer, at)) = self.open.as_ref().filter(|(_, at)| at.file == file && *at == end) {
            debug_assert_eq!(at.object, end.object);
            return Ok(summer.sums(false));
        }
        let mut object = index.first_behind_mark(file)?;
        let mut summer = FileSummer::new(file, object);
        // Empty files are many where there are any: not much is read for each.
        let mut at_once: u64 = 16;
        loop {
            let entries = index.run(object, at_once)?;
            at_once = at_once.saturating_mul(16);
            if entries.is_empty() {
                let sums = summer.sums(false);
                self.open = Some((summer, end));
                return Ok(sums);
            }
            for entry in &entries {
                if entry.kind == ObjectKind::Filemark {
                    let sums = summer.sums(true);
                    self.keep(sums);
                    return Ok(sums);
                }
                add(&mut summer, entry);
            }
            object += entries.len() as u64;
        }
    }

    fn keep(&mut self, sums: FileSums) {
        if self.closed.len() >= MAX_KEPT {
            self.closed.clear();
        }
        self.closed.insert(sums.file, sums);
    }
}

fn add(summer: &mut FileSummer, entry: &Entry) {
    summer.record(entry.length, &entry.sum, entry.sum_state == SumState::Known);
}
