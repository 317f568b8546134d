//! Making a cartridge, and finding out what is on one.
//!
//! The index is believed where its generation and the image's words agree; behind it the image is walked. What an interrupted
//! write left behind the last whole object is cut, and said. When the index does not fit the image, or is lost, nothing is cut
//! at a place that cannot be told from damage: the cartridge is then protected, so that nobody writes over what lies behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use protocol::cartridge::append::{Appender, Limits};
use protocol::cartridge::frame::{END_OF_MEDIUM, WORD, WRAPPED};
use protocol::cartridge::index::{Entry, SumState};
use protocol::cartridge::layout::Layout;
use protocol::cartridge::scan::{Ending, Object, Walk};
use protocol::cartridge::sums::RecordSum;
use protocol::cartridge::{MAX_RECORD_LENGTH, ObjectKind, TapePosition, envelope};
use tracing::{info, warn};

use super::image::Image;
use super::index::Index;
use super::metadata::{self, Metadata};
use super::partition::MAX_UNSYNCED_ENTRIES;
use super::sums::SumsCache;
use super::{Absent, Cartridge, Partition};

/// Objects at the end of the index whose words are compared with the image at once; earlier ones are compared when they are read.
const FRAMES_COMPARED: u64 = 65_536;

/// Name of a partition's image in the cartridge's folder.
fn image_name(partition: usize) -> String {
    format!("p{partition}.tap")
}

/// Name of a partition's index in the cartridge's folder.
fn index_name(partition: usize) -> String {
    format!("p{partition}.idx")
}

/// Why a cartridge cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has it: another target, or a mover of a former life.
    #[error("{0}: the cartridge is in use")]
    InUse(PathBuf),
    /// The drive is of a generation that takes no such medium.
    #[error("{path}: the drive takes no medium of density {density:02X}h")]
    Incompatible {
        /// The cartridge.
        path: PathBuf,
        /// Its DENSITY CODE.
        density: u8,
    },
    /// The label.
    #[error("{path}: {source}")]
    Label {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The image or the index.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

impl Cartridge {
    /// Whether a folder is a cartridge: it has a label.
    #[must_use]
    pub fn is_one(folder: &Path) -> bool {
        folder.join(metadata::FILE_NAME).is_file()
    }

    /// Makes an empty cartridge in a new or empty folder.
    ///
    /// # Errors
    /// [`OpenError`]; a folder with an image in it is left as it is.
    pub fn create(folder: &Path, metadata: &Metadata) -> Result<(), OpenError> {
        let image = folder.join(image_name(0));
        let made = || {
            fs::create_dir_all(folder)?;
            let file = File::create_new(&image)?;
            io::Write::write_all(&mut &file, &END_OF_MEDIUM.to_le_bytes())?;
            file.sync_all()
        };
        made().map_err(|source| OpenError::File { path: image.clone(), source })?;
        // The label comes last: a folder without one is no cartridge yet.
        metadata.store(folder).map_err(|source| OpenError::Label { path: folder.join(metadata::FILE_NAME), source })
    }

    /// Opens a cartridge and finds out what is on it.
    ///
    /// # Errors
    /// [`OpenError`]; a damaged image is no error, see [`Partition::notes`].
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_as(folder, true)
    }

    /// The same as if it were write-protected: nothing of it is changed.
    ///
    /// # Errors
    /// As [`Cartridge::open`].
    pub fn open_read_only(folder: &Path) -> Result<Self, OpenError> {
        Self::open_as(folder, false)
    }

    fn open_as(folder: &Path, write: bool) -> Result<Self, OpenError> {
        let metadata =
            Metadata::load(folder).map_err(|source| OpenError::Label { path: folder.join(metadata::FILE_NAME), source })?;
        let (limits, write) = (metadata.limits(), write && !metadata.write_protect);
        let partitions: Result<_, _> =
            (0..).zip(limits).map(|(number, limits)| Partition::open(folder, number, limits, write)).collect();
        Ok(Self { folder: folder.to_owned(), metadata, partitions: partitions?, reference_known: true })
    }
}

impl Partition {
    /// Opens the image with this number in a cartridge's folder; for reading only unless `write`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) fn open(folder: &Path, number: usize, limits: Limits, write: bool) -> Result<Self, OpenError> {
        let (image_path, index_path) = (folder.join(image_name(number)), folder.join(index_name(number)));
        let image = Image::open(&image_path, write)
            .map_err(|source| OpenError::File { path: image_path.clone(), source })?
            .ok_or_else(|| OpenError::InUse(folder.to_owned()))?;
        let writable = image.opened_for_writing();
        let index = Index::open(&index_path, writable).map_err(|source| OpenError::File { path: index_path, source })?;
        let (layout, foreign) = (limits.layout, !index.1);
        Inspection { image, index, writable, notes: Vec::new(), cut_allowed: true, layout, foreign }
            .finish(&image_path, limits)
            .map_err(|source| OpenError::File { path: image_path, source })
    }
}

/// What the index with this number says of records without sums, believed by itself.
pub(super) fn absent_in_index(folder: &Path, number: usize) -> io::Result<Absent> {
    let (mut index, _) = Index::open(&folder.join(index_name(number)), false)?;
    index.load()?;
    Ok(index.absent())
}

/// An empty image with this number, and no index beside it, whatever was there.
pub(super) fn make_image(folder: &Path, number: usize) -> io::Result<()> {
    remove_image(folder, number);
    let file = File::create(folder.join(image_name(number)))?;
    io::Write::write_all(&mut &file, &END_OF_MEDIUM.to_le_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Takes an image and its index away. Nobody looks at one that the label does not name, so failure is only told.
pub(super) fn remove_image(folder: &Path, number: usize) {
    for name in [index_name(number), image_name(number)] {
        match fs::remove_file(folder.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => warn!(%error, name, "a former partition stays"),
            _ => {}
        }
    }
}

struct Inspection {
    image: Image,
    index: (Index, bool),
    writable: bool,
    notes: Vec<String>,
    /// What is torn behind the last whole object is an interrupted write, not damage.
    cut_allowed: bool,
    layout: Layout,
    /// No index tells that we have written it.
    foreign: bool,
}

impl Inspection {
    fn finish(mut self, path: &Path, limits: Limits) -> io::Result<Partition> {
        let size = self.image.size()?;
        let believed = self.believe_index(size)?;
        let (end, ending) = self.walk(believed)?;
        self.settle_end(end, ending, size)?;
        if self.writable {
            self.image.sync()?;
            self.index.0.flush()?;
        }
        let path = path.display();
        for note in &self.notes {
            warn!(image = %path, "{note}");
        }
        info!(image = %path, objects = end.object, bytes = end.offset, "cartridge opened");
        Ok(Partition {
            appender: Appender::new(end, limits),
            limits,
            image: self.image,
            index: self.index.0,
            writable: self.writable,
            dirty: false,
            sums: SumsCache::default(),
            search_from: 0,
            identity: Arc::default(),
            notes: self.notes,
        })
    }

    /// How far the index can be believed; what cannot be is cut from it.
    fn believe_index(&mut self, size: u64) -> io::Result<TapePosition> {
        let (index, had_header) = (&mut self.index.0, self.index.1);
        let loaded = index.load()?;
        let whole = index.len();
        let mut good = whole;
        for torn in &loaded.torn {
            if !self.image.frames(torn)? {
                good = good.min(torn.at.object);
            }
        }
        let mut object = whole.saturating_sub(FRAMES_COMPARED);
        'compare: while object < good {
            let entries = index.run(object, good - object)?;
            for entry in &entries {
                if entry.next().offset > size || !self.image.frames(entry)? {
                    good = entry.at.object;
                    // A record that is the index's own but for its missing end was torn off, not damaged.
                    self.cut_allowed = entry.next().offset > size && self.image.begins(entry)?;
                    break 'compare;
                }
            }
            object += entries.len() as u64;
        }
        if !loaded.torn.is_empty() {
            let count = loaded.torn.len();
            self.notes.push(format!("the sums of {count} objects were torn in the index: they are taken anew from the medium"));
        }
        if good < whole {
            index.distrust(good);
            self.notes.push(format!("the index does not fit the image from object {good} on: {} entries dropped", whole - good));
        }
        if !had_header && size > WORD {
            self.cut_allowed = false;
            self.notes.push("the index was lost: rebuilt from the image, its sums prove nothing about the writing".into());
        }
        if loaded.room > good && self.writable {
            // Stale or half-written entries behind the believed ones must not be taken for later ones.
            index.cut(good)?;
        }
        Ok(match good.checked_sub(1) {
            Some(last) => index.get(last)?.map_or(TapePosition::BEGINNING, |entry| entry.next()),
            None => TapePosition::BEGINNING,
        })
    }

    /// Walks the image behind what the index knows, and adds what is there to it.
    fn walk(&mut self, from: TapePosition) -> io::Result<(TapePosition, Ending)> {
        let Self { image, index: (index, _), notes, writable, layout, foreign, .. } = self;
        // Without an index beside it an image may be anybody's, with gaps wherever they are.
        let mut walk = if *foreign { Walk::with_gaps(image.reader(), from) } else { Walk::of(*layout, image.reader(), from) };
        let mut end = from;
        let mut ending = None;
        while let Some(object) = walk.next().transpose()? {
            let word_at = object.at.offset + u64::from(object.gap);
            let unwritten = object.kind == ObjectKind::Filemark && image.hole_at(word_at)?;
            if unwritten || object.length > longest(&object) {
                ending = Some(Ending::End);
                notes.push(format!("no object of ours can begin at byte {}: taken for the end", object.at.offset));
                break;
            }
            index.push(recomputed(image, &object, index.generation())?);
            end = object.next();
            if index.unsynced() >= MAX_UNSYNCED_ENTRIES && *writable {
                image.sync()?;
                index.flush()?;
            }
        }
        if end.object > from.object {
            notes.push(format!("{} objects were found behind the index; their sums were recomputed", end.object - from.object));
        }
        Ok((end, ending.or(walk.ending()).unwrap_or(Ending::End)))
    }

    /// Leaves the end word at the end and nothing behind it, or protects the cartridge.
    fn settle_end(&mut self, end: TapePosition, ending: Ending, size: u64) -> io::Result<()> {
        let behind = size.saturating_sub(end.offset);
        if behind == WORD && ending == Ending::End {
            return Ok(());
        }
        let what = match ending {
            Ending::End => "never published".to_owned(),
            Ending::Torn(torn) => format!("no whole object: {torn}"),
            Ending::Gap => "an erase gap that this layout does not have".to_owned(),
        };
        if ending != Ending::End && !self.cut_allowed {
            self.writable = false;
            self.notes.push(format!(
                "{behind} bytes behind object {} (byte {}) are {what}: kept, and the cartridge is protected",
                end.object, end.offset
            ));
            return Ok(());
        }
        if !self.writable {
            return Ok(());
        }
        if behind == 0 {
            self.notes.push(format!("the end word was missing at byte {}: written", end.offset));
        } else {
            self.notes.push(format!("{behind} bytes behind object {} (byte {}) were {what}: cut", end.object, end.offset));
        }
        self.image.cut(end.offset)
    }
}

/// Bytes that a record of this class can have.
const fn longest(object: &Object) -> u32 {
    if object.class == WRAPPED { envelope::MAX_LENGTH } else { MAX_RECORD_LENGTH }
}

fn recomputed(image: &Image, object: &Object, generation: u32) -> io::Result<Entry> {
    let mut entry = Entry {
        at: object.at,
        gap: object.gap,
        kind: object.kind,
        length: object.length,
        wrapped: object.class == WRAPPED,
        generation,
        sum_state: SumState::Recomputed,
        sum: RecordSum::default(),
    };
    if object.kind == ObjectKind::Record {
        let mut data = BytesMut::zeroed(object.length as usize);
        match image.read_record(&entry, &mut data) {
            Ok(()) => entry.sum = RecordSum::of(&data),
            // A record marked bad keeps its place; reading it fails with its own error.
            Err(super::ReadError::Io(error)) => return Err(error),
            Err(_) => entry.sum_state = SumState::Absent,
        }
    }
    Ok(entry)
}
