//! A cartridge in a drive: reads forward, positions, appends behind the commit word.
//!
//! Goes by framing; holds every record that it reads against its sum in the index, and finds far places there, as far as it reaches:
//! behind that it walks. Reads have SILI = 0: a record of another length than asked for is a fault. A compressed record is
//! taken out of its envelope, an encrypted one is a fault: a mover has no keys. Appends what [`protocol::cartridge::append`] places, and never without the target's leave.
//!
//! Follows SSC-4, "READ(6)", "SPACE(6)", "LOCATE(10)"; SPC-4, "Stream device transfer lengths".

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::uio::preadv;
use nix::unistd::fdatasync;
use protocol::cartridge::append::{AppendError, Appender, Durability, Limits, Placement, Step};
use protocol::cartridge::envelope::{self, Envelope};
use protocol::cartridge::frame::{self, Word};
use protocol::cartridge::layout::{self, GAP_MOST, Layout};
use protocol::cartridge::scan::{self, Found};
use protocol::cartridge::sums::crc32c_of_parts;
use protocol::cartridge::{MAX_RECORD_LENGTH, ObjectKind, TapePosition};
use protocol::mover::{FaultKind, SpaceOver};
use protocol::units::ByteRange;

use super::raw::{Raw, write_parts};
use super::sums::Sums;
use super::{read_fault, write_fault};

/// A tape image and where the drive stands.
#[derive(Debug)]
pub struct Tape {
    file: File,
    sums: Option<Sums>,
    at: TapePosition,
    end_of_data: TapePosition,
    limits: Limits,
    writable: bool,
    /// What is appended is published by the target.
    fills: bool,
    /// There since the target allowed it, until the tape is positioned elsewhere.
    appender: Option<Appender>,
    synced: bool,
    /// Byte of the image at which the data lies of the record that was read last.
    data_at: Option<u64>,
    /// The image as blocks that can refer to others' and be referred to, on an aligned cartridge.
    blocks: Option<Raw>,
}

/// What stands where the tape does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A record of so many bytes.
    Record {
        /// Bytes of data.
        length: u32,
    },
    /// A filemark.
    Filemark,
    /// Nothing any more.
    EndOfData,
}

/// What a positioning came to: where it stopped, and why it did so early.
pub type Positioned = Result<(), FaultKind>;

impl Tape {
    /// A drive that stands at `at`.
    ///
    /// # Errors
    /// What the system gives.
    pub fn new(
        file: File,
        sums: Option<Sums>,
        at: TapePosition,
        end_of_data: TapePosition,
        limits: Limits,
        writable: bool,
    ) -> io::Result<Self> {
        let blocks = blocks_of(&file, limits.layout)?;
        Ok(Self {
            file,
            sums,
            at,
            end_of_data,
            limits,
            writable,
            fills: false,
            appender: None,
            synced: true,
            data_at: None,
            blocks,
        })
    }

    /// The same, for one part of a stretch that several movers fill: it publishes nothing.
    #[must_use]
    pub fn that_fills(self) -> Self {
        Self { fills: true, ..self }
    }

    /// The image as blocks, on a cartridge whose long records begin on their boundaries.
    #[must_use]
    pub const fn blocks(&self) -> Option<&Raw> {
        self.blocks.as_ref()
    }

    /// Where it stands.
    #[must_use]
    pub const fn at(&self) -> TapePosition {
        self.at
    }

    /// All that was appended is synchronized.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.synced
    }

    /// The target has to be asked before the next append.
    #[must_use]
    pub const fn needs_leave(&self) -> bool {
        self.appender.is_none()
    }

    /// False for a write-protected cartridge.
    #[must_use]
    pub const fn writable(&self) -> bool {
        self.writable
    }

    /// The target has cut the tape here, and lets it be written: in this file, which may be another than before.
    ///
    /// # Errors
    /// What the file gives.
    pub fn leave_given(&mut self, image: File) -> Result<(), FaultKind> {
        self.blocks = blocks_of(&image, self.limits.layout).map_err(|error| write_fault(&error))?;
        self.file = image;
        if let Some(sums) = &mut self.sums {
            sums.end_at(self.at.object);
        }
        self.end_of_data = self.at;
        self.appender = Some(if self.fills { Appender::filling } else { Appender::new }(self.at, self.limits));
        Ok(())
    }

    /// Reads the record that follows, which must have just the length of `into`.
    ///
    /// # Errors
    /// Residuals are in bytes. After a record of another length or a filemark the tape stands behind it; before one whose data is
    /// not what was written.
    pub fn read_record(&mut self, into: &mut [IoSliceMut<'_>]) -> Result<(), FaultKind> {
        let length: u64 = into.iter().map(|part| part.len() as u64).sum();
        let wanted = u32::try_from(length).ok().filter(|length| *length > 0).ok_or(FaultKind::BadJob)?;
        if self.at.offset >= self.end_of_data.offset {
            return Err(FaultKind::EndOfData { residual: i64::from(wanted) });
        }
        let gap = self.limits.layout.gap(self.at.offset, wanted);
        if self.read_behind(self.at.offset, gap, into)? {
            return self.check_sum(wanted, into);
        }
        // Another object; or behind a gap of another length, on an image that came from elsewhere.
        match self.forward()? {
            Found::Record { class: frame::WRAPPED, length, at, .. } => self.read_wrapped(at, length, into),
            Found::Record { class: 0, length, at, .. } if length == wanted && self.read_behind(at, 0, into)? => {
                self.check_sum(wanted, into)
            }
            found => self.other_object(found, i64::from(wanted)),
        }
    }

    /// Reads a gap of so many bytes and behind it a record as long as `into`. False when that is not what stands there.
    fn read_behind(&mut self, at: u64, gap: u32, into: &mut [IoSliceMut<'_>]) -> Result<bool, FaultKind> {
        let length = into.iter().map(|part| part.len()).sum::<usize>() as u32;
        let (mut head, mut tail) = ([0; GAP_MOST + frame::WORD as usize], [0; 5]);
        let head = &mut head[..gap as usize + frame::WORD as usize];
        let tail = &mut tail[1 - frame::padding(length) as usize..];
        let size = u64::from(gap) + frame::record_size(length);
        let whole = self.read_framed(at, head, into, tail)? == size;
        let (gap, word) = head.split_last_chunk::<4>().expect("the head ends with a word");
        let closing = tail.last_chunk().expect("the tail ends with a word");
        let found = whole && word == closing && layout::is_gap(gap) && Word::parse(*word) == (Word::Record { class: 0, length });
        self.data_at = found.then_some(at + gap.len() as u64 + frame::WORD);
        Ok(found)
    }

    /// Goes behind a record that was read, if its data is what was written.
    fn check_sum(&mut self, length: u32, data: &[IoSliceMut<'_>]) -> Result<(), FaultKind> {
        if let Some(stored) = self.sums.as_mut().and_then(|sums| sums.of(self.at, length))
            && stored != crc32c_of_parts(data.iter().map(|part| &part[..]))
        {
            return Err(FaultKind::WrongSum);
        }
        let data_at = self.data_at.ok_or(FaultKind::BadJob)?;
        self.pass(ObjectKind::Record, data_at - frame::WORD + frame::record_size(length));
        Ok(())
    }

    /// Byte of [`Tape::blocks`] at which the data lies of the record that was read last; none where it is in an envelope.
    #[must_use]
    pub fn last_data(&self) -> Option<u64> {
        self.blocks.as_ref().and(self.data_at)
    }

    const fn pass(&mut self, kind: ObjectKind, offset: u64) {
        let file = self.at.file + matches!(kind, ObjectKind::Filemark) as u64;
        self.at = TapePosition { object: self.at.object + 1, file, offset };
    }

    /// A record in an envelope of `stored` bytes, whose first word stands at `at`; lengths are those of the data in it.
    fn read_wrapped(&mut self, at: u64, stored: u32, into: &mut [IoSliceMut<'_>]) -> Result<(), FaultKind> {
        if stored > envelope::MAX_LENGTH {
            return Err(FaultKind::Torn);
        }
        let mut record = vec![0; stored as usize];
        self.file.read_exact_at(&mut record, at + frame::WORD).map_err(|error| read_fault(&error))?;
        if let Some(sum) = self.sums.as_mut().and_then(|sums| sums.of(self.at, stored))
            && sum != crc32c_of_parts(std::iter::once(&record[..]))
        {
            return Err(FaultKind::WrongSum);
        }
        let (envelope, payload_at) = Envelope::parse(&record).map_err(|_| FaultKind::Torn)?;
        if envelope.encryption.is_some() {
            return Err(FaultKind::Encrypted);
        }
        let data = envelope.open(&record[payload_at..]).map_err(|_| FaultKind::WrongSum)?;
        self.data_at = None;
        self.pass(ObjectKind::Record, at + frame::record_size(stored));
        let wanted: usize = into.iter().map(|part| part.len()).sum();
        if data.len() != wanted {
            return Err(FaultKind::IncorrectLength { residual: wanted as i64 - data.len() as i64 });
        }
        let mut rest = data.as_slice();
        for part in into {
            let (here, behind) = rest.split_at(part.len());
            part.copy_from_slice(here);
            rest = behind;
        }
        Ok(())
    }

    /// What follows, whatever it is; nothing is moved.
    ///
    /// # Errors
    /// [`FaultKind::Torn`], also for a record of a class of its own; [`FaultKind::Encrypted`].
    pub fn look(&self) -> Result<Next, FaultKind> {
        if self.at.offset >= self.end_of_data.offset {
            return Ok(Next::EndOfData);
        }
        match self.forward()? {
            Found::Record { class: 0, length, .. } => Ok(Next::Record { length }),
            Found::Record { class: frame::WRAPPED, length, at, .. } => {
                self.length_in_envelope(at, length).map(|length| Next::Record { length })
            }
            Found::Filemark { .. } => Ok(Next::Filemark),
            Found::End => Ok(Next::EndOfData),
            _ => Err(FaultKind::Torn),
        }
    }

    /// Bytes of data of a record in an envelope of `stored` bytes, whose first word stands at `at`.
    fn length_in_envelope(&self, at: u64, stored: u32) -> Result<u32, FaultKind> {
        const HEADS: u32 = envelope::MAX_LENGTH - MAX_RECORD_LENGTH;
        let mut head = vec![0; stored.min(HEADS) as usize];
        self.file.read_exact_at(&mut head, at + frame::WORD).map_err(|error| read_fault(&error))?;
        let (envelope, _) = Envelope::parse(&head).map_err(|_| FaultKind::Torn)?;
        if envelope.encryption.is_some() { Err(FaultKind::Encrypted) } else { Ok(envelope.length) }
    }

    /// Goes behind the object that [`Tape::look`] has found.
    ///
    /// # Errors
    /// As [`Tape::look`].
    pub fn pass_object(&mut self) -> Result<(), FaultKind> {
        self.step_forward().map(drop)
    }

    /// What stands here is no record of the wanted length.
    fn other_object(&mut self, found: Found, wanted: i64) -> Result<(), FaultKind> {
        match found {
            Found::Record { class: 0, length, next, .. } if i64::from(length) != wanted => {
                self.pass(ObjectKind::Record, next);
                Err(FaultKind::IncorrectLength { residual: wanted - i64::from(length) })
            }
            Found::Filemark { next, .. } => {
                self.pass(ObjectKind::Filemark, next);
                Err(FaultKind::Filemark { residual: wanted })
            }
            Found::End => Err(FaultKind::EndOfData { residual: wanted }),
            _ => Err(FaultKind::Torn),
        }
    }

    /// One read for gap and word, data, and word. Gives the bytes read; fewer at the end of the file.
    fn read_framed(&self, at: u64, head: &mut [u8], into: &mut [IoSliceMut<'_>], tail: &mut [u8]) -> Result<u64, FaultKind> {
        let offset = i64::try_from(at).map_err(|_| FaultKind::Torn)?;
        let mut parts = Vec::with_capacity(into.len() + 2);
        parts.push(IoSliceMut::new(head));
        parts.extend(into.iter_mut().map(|part| IoSliceMut::new(part)));
        parts.push(IoSliceMut::new(tail));
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut rest = parts.as_mut_slice();
        let mut done = 0;
        while done < total {
            match preadv(&self.file, rest, offset + done as i64) {
                Ok(0) => break,
                Ok(read) => {
                    done += read;
                    IoSliceMut::advance_slices(&mut rest, read);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(FaultKind::Read(errno as i32)),
            }
        }
        Ok(done as u64)
    }

    fn forward(&self) -> Result<Found, FaultKind> {
        scan::object_forward(&mut image(&self.file), self.at.offset).map_err(|error| read_fault(&error))
    }

    fn backward(&self) -> Result<(Found, u64), FaultKind> {
        scan::object_backward(&mut image(&self.file), self.at.offset).map_err(|error| read_fault(&error))
    }

    /// LOCATE to a logical object.
    ///
    /// # Errors
    /// [`FaultKind::EndOfData`] for an object that is not there; the tape then stands at the end of data.
    pub fn locate(&mut self, object: u64) -> Positioned {
        self.leave_appending();
        if object > self.end_of_data.object {
            self.at = self.end_of_data;
            return Err(FaultKind::EndOfData { residual: 0 });
        }
        // From whichever known place is nearest: the beginning, the end of data, here, or where the index says.
        let known = [self.at, TapePosition::BEGINNING, self.end_of_data].into_iter().chain(self.indexed(object));
        self.at = known.min_by_key(|at| at.object.abs_diff(object)).expect("three places");
        while self.at.object < object {
            self.step_forward()?;
        }
        while self.at.object > object {
            self.step_backward()?;
        }
        Ok(())
    }

    /// SPACE.
    ///
    /// # Errors
    /// Filemark, end of data and beginning of partition, each with the count that is left; the tape stands where SSC-4 says.
    pub fn space(&mut self, over: SpaceOver, count: i32) -> Positioned {
        self.leave_appending();
        match over {
            SpaceOver::EndOfData => {
                self.at = self.end_of_data;
                Ok(())
            }
            SpaceOver::LogicalBlocks | SpaceOver::Filemarks => {
                let count = self.leap(over, count);
                for left in (1..=i64::from(count.unsigned_abs())).rev() {
                    self.space_one(over, count > 0, left)?;
                }
                Ok(())
            }
        }
    }

    /// Where the index says that an object begins, if something of the image begins there.
    fn indexed(&mut self, object: u64) -> Option<TapePosition> {
        let place = self.sums.as_mut()?.place_of(object)?;
        let image = scan::object_forward(&mut image(&self.file), place.offset).ok()?;
        (place.offset < self.end_of_data.offset && matches!(image, Found::Record { .. } | Found::Filemark { .. }))
            .then_some(place)
    }

    /// Goes over as many filemarks at once as the index lets it, and gives the count that is left to be walked: of filemarks none or
    /// all, of blocks all.
    fn leap(&mut self, over: SpaceOver, count: i32) -> i32 {
        if over != SpaceOver::Filemarks || count == 0 {
            return count;
        }
        let marks = self.at.file.checked_add_signed(i64::from(count) + i64::from(count < 0));
        let Some(behind) = marks.and_then(|marks| self.sums.as_mut()?.behind_marks(marks)) else { return count };
        // Forward the tape stands behind the last filemark, backward in front of it: that is one object less.
        let object = if count > 0 { Some(behind.object) } else { behind.object.checked_sub(1) };
        let mark = object.filter(|_| behind.file > 0).and_then(|object| self.indexed(object));
        match mark {
            Some(place) => {
                self.at = place;
                0
            }
            None => count,
        }
    }

    /// One block over, or everything up to one filemark and over it.
    fn space_one(&mut self, over: SpaceOver, forward: bool, residual: i64) -> Positioned {
        loop {
            if forward && self.at.offset >= self.end_of_data.offset {
                return Err(FaultKind::EndOfData { residual });
            }
            if !forward && self.at.object == 0 {
                return Err(FaultKind::BeginningOfPartition { residual });
            }
            let kind = if forward { self.step_forward()? } else { self.step_backward()? };
            match (over, kind) {
                (SpaceOver::LogicalBlocks, ObjectKind::Filemark) => return Err(FaultKind::Filemark { residual }),
                (SpaceOver::LogicalBlocks, ObjectKind::Record) | (_, ObjectKind::Filemark) => return Ok(()),
                (_, ObjectKind::Record) => {}
            }
        }
    }

    fn step_forward(&mut self) -> Result<ObjectKind, FaultKind> {
        let (kind, next) = match self.forward()? {
            Found::Record { next, .. } => (ObjectKind::Record, next),
            Found::Filemark { next, .. } => (ObjectKind::Filemark, next),
            _ => return Err(FaultKind::Torn),
        };
        self.pass(kind, next);
        Ok(kind)
    }

    fn step_backward(&mut self) -> Result<ObjectKind, FaultKind> {
        let (kind, offset) = match self.backward()? {
            (Found::Record { .. }, place) => (ObjectKind::Record, place),
            (Found::Filemark { .. }, place) => (ObjectKind::Filemark, place),
            _ => return Err(FaultKind::Torn),
        };
        let object = self.at.object.checked_sub(1).ok_or(FaultKind::Torn)?;
        let file = self.at.file.checked_sub(u64::from(kind == ObjectKind::Filemark)).ok_or(FaultKind::Torn)?;
        self.at = TapePosition { object, file, offset };
        Ok(kind)
    }

    /// Appending ends where the tape is moved; what was placed is committed by then.
    fn leave_appending(&mut self) {
        if let Some(appender) = self.appender.take() {
            assert_eq!(appender.end(), appender.committed(), "the writer commits before the engine positions");
        }
    }

    /// Places a record of `length` bytes behind the last one.
    ///
    /// # Errors
    /// [`FaultKind::EndOfPartition`] with `length` as residual.
    pub fn place_record(&mut self, length: u32) -> Result<Placement, FaultKind> {
        let placed = self.appender.as_mut().ok_or(FaultKind::BadJob)?.record(u64::from(length));
        self.placed(placed, i64::from(length))
    }

    /// Where [`Tape::place_record`] would place a record.
    ///
    /// # Errors
    /// As it has.
    pub fn preview_record(&mut self, length: u32) -> Result<Placement, FaultKind> {
        let mut appender = self.appender.clone().ok_or(FaultKind::BadJob)?;
        appender.record(u64::from(length)).map_err(|error| unplaced(&error, i64::from(length)))
    }

    /// Places a filemark.
    ///
    /// # Errors
    /// [`FaultKind::EndOfPartition`].
    pub fn place_filemark(&mut self) -> Result<Placement, FaultKind> {
        let placed = self.appender.as_mut().ok_or(FaultKind::BadJob)?.filemark();
        self.placed(placed, 1)
    }

    fn placed(&mut self, placed: Result<Placement, AppendError>, residual: i64) -> Result<Placement, FaultKind> {
        match placed {
            Ok(placement) => {
                self.at = placement.next();
                Ok(placement)
            }
            Err(error) => Err(unplaced(&error, residual)),
        }
    }

    /// Writes bytes of placed objects.
    ///
    /// # Errors
    /// What the file gives.
    pub fn write_placed(&mut self, at: u64, parts: &[Bytes]) -> Result<(), FaultKind> {
        self.synced = false;
        write_parts(&self.file, at, parts).map_err(|error| write_fault(&error))
    }

    /// Publishes what was placed and written, or takes it for filled.
    ///
    /// # Errors
    /// What the file gives; then nothing of it counts, and the tape stands where it stood before.
    pub fn commit(&mut self, durability: Durability) -> Result<(), FaultKind> {
        let Some(appender) = &mut self.appender else { return Ok(()) };
        let before = appender.committed();
        let done = appender.commit(durability).into_iter().try_for_each(|step| match step {
            Step::Write { at, word } => self.file.write_all_at(&word, at),
            Step::Sync => fdatasync(&self.file).map_err(io::Error::from),
        });
        if let Err(error) = done {
            // Whether the publishing write took effect only a look at the image tells, which is the target's.
            self.at = before;
            self.appender = Some(Appender::new(before, self.limits));
            return Err(write_fault(&error));
        }
        self.end_of_data = appender.committed();
        self.synced = (durability == Durability::Power && !self.fills) || self.synced;
        Ok(())
    }

    /// Forgets what was placed and not committed.
    pub fn abandon(&mut self) {
        if let Some(appender) = &mut self.appender {
            appender.abandon();
            self.at = appender.committed();
        }
    }
}

const fn unplaced(error: &AppendError, residual: i64) -> FaultKind {
    match error {
        AppendError::NoRoom { .. } => FaultKind::EndOfPartition { residual },
        AppendError::Length { .. } => FaultKind::BadJob,
    }
}

fn image(file: &File) -> impl scan::Image<Error = io::Error> + '_ {
    |at: u64, into: &mut [u8]| file.read_at(into, at)
}

fn blocks_of(image: &File, layout: Layout) -> io::Result<Option<Raw>> {
    let whole = ByteRange { start: 0, len: i64::MAX as u64 };
    match layout {
        Layout::Plain => Ok(None),
        Layout::Aligned => Raw::new(image.try_clone()?, whole, 512).map(Some),
    }
}
