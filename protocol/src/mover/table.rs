//! The data block table: what lets several processes read a disk as it was at one moment, while it is written.
//!
//! A snapshot is the live file, a copy store, and this table in memory that all processes map: one bit per chunk says whether the
//! chunk's old bytes lie in the copy store. The target alone writes it; movers map it read-only and need no lock and no message.
//!
//! ```text
//! word 0      1           2      3            4           5..8      8..
//! magic       generation  state  chunk bytes  view bytes  reserved  bit n of the table = chunk n
//! ```
//!
//! Words are in the machine's own byte order: the table never leaves it. Chunk 0 begins at the view's first byte; the last
//! chunk may be short.
//!
//! **Writer**, for each chunk it is about to change: claim it (inside the target; not here), read the live bytes, write them to the
//! copy store, [`TableWriter::mark_copied`], give the claim back, and only then change a byte of the chunk. If that cannot be done:
//! [`TableWriter::set_state`] to [`State::Failed`], and then change it.
//!
//! **Reader**: copy live bytes to a private place and wait until that is complete; fence; load the bits of every chunk touched, then the
//! state. Not live, or another generation: nothing of the copy may be used. Bit set: those chunks must come from the copy store.
//! Why it holds: a reader that has seen a changed byte of a chunk also sees, behind its fence, what was stored before the
//! writer's fence. A bit is never cleared, so bytes from the copy store need no second look.
//! The private place must hold bytes, not references to the file's pages: splice, sendfile and mappings of the live file break this.
//!
//! It opens no file and maps no memory: that is in the `sys.rs` of each crate. It follows no standard.

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::units::ByteRange;
use crate::wire::{Problem, WireError};

/// Word 0: "OffhDBT" and a version.
pub const MAGIC: u64 = u64::from_be_bytes(*b"OffhDBT1");
/// Words before the first bit.
pub const HEADER_WORDS: usize = 8;
/// Bytes of a chunk, if nothing speaks against it.
pub const CHUNK: u64 = 64 * 1024;
/// More chunks than this would make a table of more than 32 MiB: larger views get larger chunks.
pub const CHUNKS_LIMIT: u64 = 1 << 28;

const STRUCTURE: &str = "data block table";
const MAGIC_WORD: usize = 0;
const GENERATION_WORD: usize = 1;
const STATE_WORD: usize = 2;
const CHUNK_WORD: usize = 3;
const LEN_WORD: usize = 4;
const BITS: u64 = 64;

/// Whether a view can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// Not published yet.
    Forming = 0,
    /// What the table says is true.
    Live = 1,
    /// Old bytes were lost: the copy store was full or failed.
    Failed = 2,
    /// Nobody keeps it any more.
    Ended = 3,
}

/// How a view is cut into chunks. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    len: u64,
    chunk: u64,
}

impl Grid {
    /// The grid of a view of `len` bytes: chunks of [`CHUNK`], or larger for a very large view. `None` for no bytes.
    #[must_use]
    pub fn of(len: u64) -> Option<Self> {
        let mut chunk = CHUNK;
        while len.div_ceil(chunk) > CHUNKS_LIMIT {
            chunk *= 2;
        }
        Self::with_chunk(len, chunk)
    }

    /// A grid of chunks of `chunk` bytes, a power of two. `None` when that is none, or no table could hold it.
    #[must_use]
    pub fn with_chunk(len: u64, chunk: u64) -> Option<Self> {
        let fits = len > 0 && len <= i64::MAX as u64 && chunk.is_power_of_two() && len.div_ceil(chunk) <= CHUNKS_LIMIT;
        fits.then_some(Self { len, chunk })
    }

    /// Bytes of the view.
    #[must_use]
    pub const fn view_len(self) -> u64 {
        self.len
    }

    /// Bytes of every chunk but perhaps the last.
    #[must_use]
    pub const fn chunk_len(self) -> u64 {
        self.chunk
    }

    /// How many there are.
    #[must_use]
    pub const fn chunks(self) -> u64 {
        self.len.div_ceil(self.chunk)
    }

    /// Words of the whole table.
    #[must_use]
    pub fn words(self) -> usize {
        // At most CHUNKS_LIMIT / 64 words: fits any usize.
        HEADER_WORDS + self.chunks().div_ceil(BITS) as usize
    }

    /// Bytes of the view that one chunk covers.
    #[must_use]
    pub fn bytes_of(self, chunk: u64) -> ByteRange {
        self.bytes_of_run(chunk..chunk + 1)
    }

    /// The chunks that a range of the view touches; what lies behind its end is left out.
    #[must_use]
    pub fn touched(self, range: ByteRange) -> Range<u64> {
        match range.intersection(ByteRange { start: 0, len: self.len }) {
            Some(range) => range.start / self.chunk..range.end().div_ceil(self.chunk),
            None => 0..0,
        }
    }

    fn bytes_of_run(self, chunks: Range<u64>) -> ByteRange {
        let start = (chunks.start * self.chunk).min(self.len);
        let end = (chunks.end * self.chunk).min(self.len);
        ByteRange { start, len: end - start }
    }
}

/// Why nothing may be read through a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Its state is not [`State::Live`].
    #[error("the snapshot is lost: {}", match state { Some(State::Failed) => "its copy store failed", Some(State::Ended) => "it was ended", Some(State::Forming) => "it was never published", _ => "its state is unknown" })]
    State {
        /// `None` for a number that means nothing.
        state: Option<State>,
    },
    /// The table is another snapshot's.
    #[error("the snapshot is lost: its table has generation {found:#x}, not {expected:#x}")]
    Generation {
        /// What the job named.
        expected: u64,
        /// What the table has.
        found: u64,
    },
}

/// Why a read through a table failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The view is lost as a whole.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// One of the two files could not be read.
    #[error("{0}")]
    File(E),
}

/// A stretch of a view whose chunks are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the view.
    pub range: ByteRange,
    /// The old bytes lie in the copy store. False says only: not yet when looked at.
    pub copied: bool,
}

/// A table as readers see it. `W` is whatever keeps the memory mapped.
#[derive(Debug)]
pub struct DataBlockTable<W> {
    words: W,
    grid: Grid,
    generation: u64,
}

impl<W: Deref<Target = [AtomicU64]>> DataBlockTable<W> {
    /// Takes a table that another process made. What it says of itself is checked against the memory that is there.
    ///
    /// # Errors
    /// When it is no table or its numbers do not fit together. A wrong generation or state shows when it is read through.
    pub fn open(words: W, generation: u64) -> Result<Self, WireError> {
        let truncated =
            |needed| WireError::new(STRUCTURE, words.len() * 8, Problem::Truncated { needed, available: words.len() * 8 });
        let value = |word: usize, field, value| WireError::new(STRUCTURE, word * 8, Problem::Value { field, value });
        if words.len() < HEADER_WORDS {
            return Err(truncated(HEADER_WORDS * 8));
        }
        let [magic, chunk, len] = [MAGIC_WORD, CHUNK_WORD, LEN_WORD].map(|word| words[word].load(Ordering::Relaxed));
        if magic != MAGIC {
            return Err(value(MAGIC_WORD, "magic", magic));
        }
        let grid = Grid::with_chunk(len, chunk).ok_or_else(|| value(CHUNK_WORD, "chunk bytes", chunk))?;
        if words.len() < grid.words() {
            return Err(truncated(grid.words() * 8));
        }
        Ok(Self { words, grid, generation })
    }

    /// How the view is cut.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The generation that reads expect.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether this chunk's old bytes lie in the copy store. Who sees `true` may go on and read them, or change the live chunk.
    #[must_use]
    pub fn is_copied(&self, chunk: u64) -> bool {
        let (word, mask) = place(chunk);
        self.words[word].load(Ordering::Relaxed) & mask != 0 && {
            // Pairs with the release in `mark_copied`: the copy was complete before the bit.
            fence(Ordering::Acquire);
            true
        }
    }

    /// `range` of the view, cut where chunks that are copied meet chunks that are not. A look ahead, not a proof: read what is not
    /// copied, and then ask [`DataBlockTable::overtaken`].
    pub fn runs(&self, range: ByteRange) -> impl Iterator<Item = Run> {
        let chunks = self.grid.touched(range);
        let mut next = chunks.start;
        std::iter::from_fn(move || {
            let start = next;
            let copied = start < chunks.end && self.is_copied(start);
            while next < chunks.end && self.is_copied(next) == copied {
                next += 1;
            }
            // A bit that was set between the two looks leaves an empty run: take that chunk as not copied, which is always allowed.
            next = if next == start && start < chunks.end { start + 1 } else { next };
            let range = self.grid.bytes_of_run(start..next).intersection(range)?;
            Some(Run { range, copied })
        })
    }

    /// To be called when the live bytes of `range` are complete in a private place: which of them came too late and must be replaced
    /// from the copy store.
    ///
    /// # Errors
    /// When none of them may be used.
    pub fn overtaken(&self, range: ByteRange) -> Result<Vec<ByteRange>, Lost> {
        fence(Ordering::SeqCst);
        let copied = self.runs(range).filter(|run| run.copied).map(|run| run.range).collect();
        self.check_live()?;
        Ok(copied)
    }

    /// Whether the view can still be believed, to be asked behind the fence of a read.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_live(&self) -> Result<(), Lost> {
        // The bits before the state, and both behind the caller's reads.
        fence(Ordering::SeqCst);
        let found = self.words[GENERATION_WORD].load(Ordering::Relaxed);
        if found != self.generation {
            return Err(Lost::Generation { expected: self.generation, found });
        }
        match self.state() {
            Some(State::Live) => Ok(()),
            state => Err(Lost::State { state }),
        }
    }

    /// The state word; `None` for a number that means nothing.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        let states = [State::Forming, State::Live, State::Failed, State::Ended];
        let word = self.words[STATE_WORD].load(Ordering::Relaxed);
        states.into_iter().find(|state| *state as u64 == word)
    }

    /// Fills `into` with the view's bytes from `at` on. `live` and `copies` fill a buffer from the live file or the copy store, both
    /// at an offset in the *view*, and must have finished when they return.
    ///
    /// # Errors
    /// The view is lost, or one of the two failed; `into` then holds nothing of use. A range beyond the view's end is left as it is:
    /// the caller checks it.
    pub fn read<E>(
        &self,
        at: u64,
        into: &mut [u8],
        mut live: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        mut copies: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        let wanted = ByteRange { start: at, len: into.len() as u64 };
        for Run { range, copied } in self.runs(wanted) {
            let part = slice(into, at, range);
            if copied {
                copies(range.start, part).map_err(ReadError::File)?;
                continue;
            }
            live(range.start, part).map_err(ReadError::File)?;
            for late in self.overtaken(range)? {
                copies(late.start, slice(part, range.start, late)).map_err(ReadError::File)?;
            }
        }
        Ok(self.check_live()?)
    }
}

/// A table in the hands of the one process that writes it.
#[derive(Debug)]
pub struct TableWriter<W>(DataBlockTable<W>);

impl<W: Deref<Target = [AtomicU64]>> TableWriter<W> {
    /// Writes the header into zeroed memory; the state is [`State::Forming`].
    ///
    /// # Panics
    /// When there are fewer words than [`Grid::words`].
    #[must_use]
    pub fn format(words: W, grid: Grid, generation: u64) -> Self {
        assert!(words.len() >= grid.words(), "{} words for {grid:?}", words.len());
        let header = [
            (GENERATION_WORD, generation),
            (STATE_WORD, State::Forming as u64),
            (CHUNK_WORD, grid.chunk),
            (LEN_WORD, grid.len),
            (MAGIC_WORD, MAGIC),
        ];
        for (word, value) in header {
            words[word].store(value, Ordering::Relaxed);
        }
        Self(DataBlockTable { words, grid, generation })
    }

    /// Says that a chunk's old bytes are complete in the copy store. Only after this returns may a byte of the chunk change.
    pub fn mark_copied(&self, chunk: u64) {
        let (word, mask) = place(chunk);
        self.0.words[word].fetch_or(mask, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Changes the state. When this returns, no reader that sees a later change of the disk believes the state before.
    pub fn set_state(&self, state: State) {
        self.0.words[STATE_WORD].store(state as u64, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

impl<W> Deref for TableWriter<W> {
    type Target = DataBlockTable<W>;

    fn deref(&self) -> &DataBlockTable<W> {
        &self.0
    }
}

/// Word and bit of a chunk.
fn place(chunk: u64) -> (usize, u64) {
    (HEADER_WORDS + (chunk / BITS) as usize, 1 << (chunk % BITS))
}

/// The part of `buffer`, whose first byte is the view's byte `at`, that is `range`.
fn slice(buffer: &mut [u8], at: u64, range: ByteRange) -> &mut [u8] {
    // A range that came from the buffer's own: its numbers fit a usize.
    &mut buffer[(range.start - at) as usize..(range.end() - at) as usize]
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const GENERATION: u64 = 0xA5;

    fn words(count: usize) -> Vec<AtomicU64> {
        std::iter::repeat_with(|| AtomicU64::new(0)).take(count).collect()
    }

    fn live_table(len: u64, chunk: u64) -> TableWriter<Vec<AtomicU64>> {
        let grid = Grid::with_chunk(len, chunk).unwrap();
        let table = TableWriter::format(words(grid.words()), grid, GENERATION);
        table.set_state(State::Live);
        table
    }

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange { start, len }
    }

    /// Reads with live bytes of 1 and copied bytes of 2; `between` runs after each read of the live file.
    fn read(table: &TableWriter<Vec<AtomicU64>>, at: u64, len: usize, between: impl Fn()) -> Result<Vec<u8>, ReadError<()>> {
        let mut into = vec![0xA5; len];
        let live = |_, part: &mut [u8]| {
            part.fill(1);
            between();
            Ok(())
        };
        let copies = |_, part: &mut [u8]| {
            part.fill(2);
            Ok(())
        };
        table.read(at, &mut into, live, copies).map(|()| into)
    }

    #[test]
    fn the_grid_begins_at_the_view_and_its_last_chunk_may_be_short() {
        let grid = Grid::with_chunk(10, 4).unwrap();
        assert_eq!(grid.chunks(), 3);
        assert_eq!([0, 1, 2].map(|chunk| grid.bytes_of(chunk)), [range(0, 4), range(4, 4), range(8, 2)]);
        assert_eq!(grid.touched(range(3, 2)), 0..2);
        assert_eq!(grid.touched(range(4, 4)), 1..2);
        assert_eq!(grid.touched(range(9, 100)), 2..3);
        assert_eq!(grid.touched(range(10, 1)), 0..0);
        assert_eq!(grid.touched(range(5, 0)), 0..0);
    }

    #[test]
    fn a_very_large_view_gets_larger_chunks_instead_of_a_larger_table() {
        assert_eq!(Grid::of(20 << 30).unwrap().chunk_len(), CHUNK);
        let grid = Grid::of(1 << 60).unwrap();
        assert!(grid.chunks() <= CHUNKS_LIMIT);
        assert_eq!(grid.words(), HEADER_WORDS + (grid.chunks() / 64) as usize);
        assert_eq!(Grid::of(0), None);
        assert_eq!(Grid::of(u64::MAX), None);
    }

    #[test]
    fn a_table_opens_as_what_it_was_formatted() {
        let table = live_table(1000, 16);
        table.mark_copied(62);
        let memory: Vec<u64> = table.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!(memory, [MAGIC, GENERATION, 1, 16, 1000, 0, 0, 0, 1 << 62]);
        let copy: Vec<AtomicU64> = memory.into_iter().map(AtomicU64::new).collect();
        let opened = DataBlockTable::open(copy, GENERATION).unwrap();
        assert_eq!(opened.grid(), table.grid());
        assert!(opened.is_copied(62) && !opened.is_copied(61));
    }

    #[test]
    fn what_is_no_table_is_refused_with_the_word_at_fault() {
        let open =
            |words: &[u64]| DataBlockTable::open(words.iter().copied().map(AtomicU64::new).collect::<Vec<_>>(), 0).unwrap_err();
        assert_eq!(open(&[MAGIC; 7]).problem, Problem::Truncated { needed: 64, available: 56 });
        assert_eq!(open(&[1, 0, 1, 16, 16, 0, 0, 0, 0]).problem, Problem::Value { field: "magic", value: 1 });
        assert_eq!(open(&[MAGIC, 0, 1, 15, 16, 0, 0, 0, 0]).offset, 24);
        assert_eq!(open(&[MAGIC, 0, 1, 1 << 16, u64::MAX, 0, 0, 0, 0]).offset, 24);
        assert_eq!(open(&[MAGIC, 0, 1, 16, 16, 0, 0, 0]).problem, Problem::Truncated { needed: 72, available: 64 });
    }

    #[test]
    fn runs_cut_a_range_where_copied_chunks_meet_others() {
        let table = live_table(150, 16);
        for chunk in [2, 3, 9] {
            table.mark_copied(chunk);
        }
        let runs: Vec<_> = table.runs(range(5, 145)).map(|run| (run.range.start, run.range.len, run.copied)).collect();
        assert_eq!(runs, [(5, 27, false), (32, 32, true), (64, 80, false), (144, 6, true)]);
        assert_eq!(table.runs(range(40, 0)).count(), 0);
    }

    #[test]
    fn a_read_takes_each_chunk_from_where_its_old_bytes_are() {
        let table = live_table(40, 16);
        table.mark_copied(1);
        assert_eq!(read(&table, 14, 20, || ()).unwrap(), [&[1; 2][..], &[2; 16], &[1; 2]].concat());
    }

    #[test]
    fn a_chunk_copied_during_the_read_of_the_live_file_is_discarded() {
        let table = live_table(40, 16);
        assert_eq!(read(&table, 15, 3, || table.mark_copied(1)).unwrap(), [1, 2, 2]);
    }

    #[test]
    fn nothing_is_read_through_a_table_that_fails_during_the_read() {
        let table = live_table(40, 16);
        let lost = |state| Lost::State { state: Some(state) };
        let failed = read(&table, 0, 1, || table.set_state(State::Failed)).unwrap_err();
        assert!(matches!(failed, ReadError::Lost(why) if why == lost(State::Failed)));
        table.mark_copied(0);
        table.set_state(State::Ended);
        let ended = read(&table, 0, 1, || ()).unwrap_err();
        assert!(matches!(ended, ReadError::Lost(why) if why == lost(State::Ended)), "also out of the copy store");
    }

    #[test]
    fn a_table_of_another_generation_or_state_is_not_believed() {
        let table = live_table(40, 16);
        table.words[GENERATION_WORD].store(7, Ordering::Relaxed);
        assert_eq!(table.check_live(), Err(Lost::Generation { expected: GENERATION, found: 7 }));
        table.words[GENERATION_WORD].store(GENERATION, Ordering::Relaxed);
        table.words[STATE_WORD].store(99, Ordering::Relaxed);
        assert_eq!(table.check_live(), Err(Lost::State { state: None }));
    }

    #[test]
    fn an_error_of_a_file_comes_out_as_it_is() {
        let table = live_table(40, 16);
        table.mark_copied(1);
        let asked = RefCell::new(Vec::new());
        let live = |at, _: &mut [u8]| {
            asked.borrow_mut().push(("live", at));
            Ok(())
        };
        let copies = |at, _: &mut [u8]| {
            asked.borrow_mut().push(("copies", at));
            Err("full")
        };
        assert!(matches!(table.read(0, &mut [0; 40], live, copies), Err(ReadError::File("full"))));
        assert_eq!(*asked.borrow(), [("live", 0), ("copies", 16)]);
    }
}
