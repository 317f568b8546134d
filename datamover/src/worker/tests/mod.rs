//! Jobs in one process: disks and tapes in temporary files, and a target that grants everything and remembers.

mod faults;
mod jobs;
mod model;
mod segments;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::sys::memfd::{MFdFlags, memfd_create};
use protocol::cartridge::index::SumState;
use protocol::cartridge::layout::Layout;
use protocol::cartridge::report::TapeReport;
use protocol::cartridge::scan::{self, Object, Walk};
use protocol::cartridge::sums::RecordSum;
use protocol::cartridge::{ObjectKind, TapePosition};
use protocol::mover::ends::{Descriptor, End};
use protocol::mover::{
    Action, ByMethod, CopyJob, EndIndex, FaultKind, JobId, MAX_GRANT, Move, Outcome, Question, Step, Transfer,
};
use protocol::units::ByteRange;

use super::throttle::Throttle;
use super::{Control, Link, run};

/// A record or a filemark (`None`).
type Objects = Vec<Option<Vec<u8>>>;

/// Ends of a job under test, in files without a name.
#[derive(Default)]
struct Rig {
    ends: Vec<End>,
    files: Vec<File>,
    seen: Seen,
    /// Its files are memory: what is synchronized costs nothing.
    in_memory: bool,
    /// Of tapes that are made.
    layout: Layout,
}

#[derive(Default)]
struct Seen {
    grants: Mutex<Vec<(EndIndex, ByteRange)>>,
    reports: Mutex<Vec<(EndIndex, TapeReport)>>,
    /// What was asked and given back.
    order: Mutex<Vec<&'static str>>,
    /// As the last progress said.
    written: Mutex<ByMethod>,
    held: Mutex<Option<(Vec<u8>, bool)>>,
    /// Files of the tapes, to be cut when they are appended to.
    tapes: Mutex<Vec<(EndIndex, File)>>,
    /// What is given with the leave to append, where it is not the tape's own.
    image: Option<File>,
}

impl Link for Seen {
    fn ask(&self, question: Question) -> Result<Option<File>, FaultKind> {
        match question {
            Question::Grant { end, range } => {
                assert!(range.len > 0 && range.len <= MAX_GRANT, "{range:?}");
                self.grants.lock().unwrap().push((end, range));
                self.order.lock().unwrap().push("grant");
            }
            Question::Append { end, at } => {
                let tapes = self.tapes.lock().unwrap();
                let (_, file) = tapes.iter().find(|(tape, _)| *tape == end).unwrap();
                file.set_len(at.offset).unwrap();
                file.write_all_at(&[0xFF; 4], at.offset).unwrap();
                self.order.lock().unwrap().push("append");
                return Ok(Some(self.image.as_ref().unwrap_or(file).try_clone().unwrap()));
            }
            Question::Segment { .. } => self.order.lock().unwrap().push("segment"),
            Question::Session { .. } => self.order.lock().unwrap().push("session"),
        }
        Ok(None)
    }

    fn give_back(&self, _end: EndIndex) {
        self.order.lock().unwrap().push("give back");
    }

    fn tape(&self, end: EndIndex, report: TapeReport) {
        self.reports.lock().unwrap().push((end, report));
    }

    fn held(&self, data: Vec<u8>, discarded: bool) {
        assert!(self.held.lock().unwrap().replace((data, discarded)).is_none(), "told once");
    }

    fn progress(&self, _segment: u32, _read: u64, written: ByMethod) {
        *self.written.lock().unwrap() = written;
    }
}

impl Rig {
    fn end(&mut self, end: End) -> EndIndex {
        self.ends.push(end);
        EndIndex((self.ends.len() - 1) as u16)
    }

    fn file(&mut self, content: &[u8]) -> Descriptor {
        let memory = || memfd_create(c"end", MFdFlags::empty()).map(File::from);
        let file = if self.in_memory { memory().unwrap() } else { tempfile::tempfile().unwrap() };
        file.write_all_at(content, 0).unwrap();
        self.files.push(file);
        Descriptor((self.files.len() - 1) as u16)
    }

    fn disk(&mut self, content: &[u8]) -> EndIndex {
        let file = self.file(content);
        self.end(End::Raw { file, within: ByteRange { start: 0, len: content.len() as u64 }, block_length: 512 })
    }

    fn tape(&mut self, objects: &Objects, at: usize) -> EndIndex {
        self.tape_of(objects, at, 1 << 30, 1 << 29)
    }

    fn tape_of(&mut self, objects: &Objects, at: usize, capacity: u64, early_warning: u64) -> EndIndex {
        let (mut image, mut end, mut stands) = (Vec::new(), TapePosition::BEGINNING, TapePosition::BEGINNING);
        for (index, object) in objects.iter().enumerate() {
            let length = object.as_ref().map_or(0, |data| data.len() as u32);
            image.extend(length.to_le_bytes());
            if let Some(data) = object {
                image.extend(data);
                image.resize(image.len().next_multiple_of(2), 0);
                image.extend(length.to_le_bytes());
            }
            end = end.after(if object.is_some() { ObjectKind::Record } else { ObjectKind::Filemark }, length);
            if index + 1 == at {
                stands = end;
            }
        }
        image.extend([0xFF; 4]);
        let file = self.file(&image);
        let copy = self.files[usize::from(file.0)].try_clone().unwrap();
        let end = End::Cartridge {
            image: file,
            index: None,
            at: stands,
            end_of_data: end,
            capacity,
            early_warning,
            layout: self.layout,
            writable: true,
            publishes: true,
        };
        let index = self.end(end);
        self.seen.tapes.lock().unwrap().push((index, copy));
        index
    }

    fn run(&self, steps: Vec<Step>, inline: &[u8]) -> Outcome {
        self.run_with(steps, inline, &control())
    }

    fn run_with(&self, steps: Vec<Step>, inline: &[u8], control: &Arc<Control>) -> Outcome {
        run(self.job(steps, inline), &self.files, &self.seen, Arc::clone(control))
    }

    fn job(&self, steps: Vec<Step>, inline: &[u8]) -> CopyJob {
        CopyJob {
            id: JobId(1),
            ends: self.ends.clone(),
            steps,
            inline: inline.to_vec(),
            buffer_bytes: 0,
            priority: 1,
            bytes_per_second: None,
        }
    }

    fn blocks(&self, end: EndIndex) -> Vec<u8> {
        let End::Raw { file, within, .. } = &self.ends[usize::from(end.0)] else { panic!("a disk") };
        let mut content = vec![0; within.len as usize];
        self.files[usize::from(file.0)].read_exact_at(&mut content, 0).unwrap();
        content
    }

    /// What is committed on a tape; the reports must say the same, sums included.
    fn objects(&self, end: EndIndex) -> Objects {
        let tapes = self.seen.tapes.lock().unwrap();
        let (_, file) = tapes.iter().find(|(tape, _)| *tape == end).unwrap();
        let mut image = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut image, 0).unwrap();
        let walk = Walk::of(self.layout, scan::slice(&image), TapePosition::BEGINNING).map(Result::unwrap);
        let data = |o: &Object| image[(o.at.offset + u64::from(o.gap)) as usize + 4..][..o.length as usize].to_vec();
        let found: Vec<_> = walk.collect();
        // Later objects replace what stood in their place and behind it.
        let mut index = BTreeMap::new();
        for appended in self.seen.reports.lock().unwrap().iter().filter(|(tape, _)| *tape == end).flat_map(|(_, r)| &r.appended) {
            index.split_off(&appended.at.offset);
            index.insert(appended.at.offset, *appended);
        }
        for appended in index.values() {
            let object = found.iter().find(|object| object.at == appended.at).expect("what is reported is there");
            assert_eq!((object.kind, object.length, object.gap), (appended.kind, appended.length, appended.gap));
            if object.kind == ObjectKind::Record && appended.sum_state == SumState::Known {
                assert_eq!(RecordSum::of(&data(object)), appended.sum);
            }
        }
        found.iter().map(|o| (o.kind == ObjectKind::Record).then(|| data(o))).collect()
    }

    /// The logical object number at which the last report says that a tape stands.
    fn position(&self, end: EndIndex) -> u64 {
        let reports = self.seen.reports.lock().unwrap();
        reports.iter().rfind(|(tape, _)| *tape == end).expect("every tape is reported").1.position.object
    }
}

/// Of a job that nothing holds back.
fn control() -> Arc<Control> {
    Control::new(None, &Arc::new(Throttle::new(None, Instant::now())))
}

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

const fn variable(record: u32) -> Transfer {
    Transfer { record, records: 1, fixed: false }
}

fn step(segment: u32, cat: bool, copy: Move) -> Step {
    Step { segment, cat, action: Action::Move(copy) }
}
