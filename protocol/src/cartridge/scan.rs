//! Walks the framing of an image, forward and backward, and believes no word that its partner does not repeat.
//!
//! Does not read data, only words; does not repair. What cannot be the framing of a whole record is [`Found::Torn`], and on a
//! cartridge of ours everything from there on was never published.
//!
//! Follows "SIMH Magtape Representation and Handling".

use super::frame::{self, WORD, Word};
use super::layout::{ALIGNMENT, Layout};
use super::{ObjectKind, TapePosition};

/// Where an image's bytes come from: a closure over a file, or a slice.
pub trait Image {
    /// What reading can fail with.
    type Error;

    /// Reads as much of `into` as there is from byte `at` on; fewer bytes only at the end of the image.
    ///
    /// # Errors
    /// The source's own.
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, Self::Error>;
}

impl<E, F: FnMut(u64, &mut [u8]) -> Result<usize, E>> Image for F {
    type Error = E;

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> Result<usize, E> {
        self(at, into)
    }
}

/// What stands at a place of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A record.
    Record {
        /// As in [`Word::Record`].
        class: u8,
        /// Data bytes; they begin [`WORD`] bytes behind `at`.
        length: u32,
        /// Its first word.
        at: u64,
        /// Behind its last word.
        next: u64,
    },
    /// A filemark.
    Filemark {
        /// Its word.
        at: u64,
        /// Behind its word.
        next: u64,
    },
    /// One word of an erase gap, or half of one.
    Gap {
        /// Its first byte.
        at: u64,
        /// Behind its last.
        next: u64,
    },
    /// An end word, or the end of the image where a word would be.
    End,
    /// The beginning of the image; backward only.
    Beginning,
    /// No framing.
    Torn(Torn),
}

/// Why something is not the framing of a whole object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// The image ends inside it.
    #[error("the image ends inside it")]
    Short,
    /// The words at both ends differ.
    #[error("its first word is {first:#010x}, its last {last:#010x}")]
    Unequal {
        /// First word.
        first: u32,
        /// Last word.
        last: u32,
    },
    /// A word of no known meaning.
    #[error("{0:#010x} is no length word")]
    Unknown(u32),
}

/// What begins at byte `at`.
///
/// # Errors
/// The image's own.
pub fn forward<I: Image + ?Sized>(image: &mut I, at: u64) -> Result<Found, I::Error> {
    let Some(first) = word(image, at)? else { return ending(image, at) };
    found_forward(image, at, first)
}

/// What ends in front of byte `at`.
///
/// # Errors
/// The image's own.
pub fn backward<I: Image + ?Sized>(image: &mut I, at: u64) -> Result<Found, I::Error> {
    let Some(last_at) = at.checked_sub(WORD) else {
        return Ok(if at == 0 { Found::Beginning } else { Found::Torn(Torn::Short) });
    };
    let Some(last) = word(image, last_at)? else { return Ok(Found::Torn(Torn::Short)) };
    Ok(match Word::parse(last) {
        Word::Filemark => Found::Filemark { at: last_at, next: at },
        Word::Gap => Found::Gap { at: last_at, next: at },
        Word::End => Found::End,
        // What is in front of the gap's half belongs to the object before it.
        Word::Unknown(word) if word >> 16 == 0xFFFF => Found::Gap { at: last_at + WORD / 2, next: at },
        Word::HalfGap => Found::Torn(Torn::Unknown(frame::HALF_GAP)),
        Word::Unknown(word) => Found::Torn(Torn::Unknown(word)),
        Word::Record { class, length } => {
            let Some(first_at) = at.checked_sub(frame::record_size(length)) else { return Ok(Found::Torn(Torn::Short)) };
            let Some(first) = word(image, first_at)? else { return Ok(Found::Torn(Torn::Short)) };
            pair(first, last, Found::Record { class, length, at: first_at, next: at })
        }
    })
}

/// The object that begins at byte `at`, be it behind an erase gap.
///
/// # Errors
/// The image's own.
pub fn object_forward<I: Image + ?Sized>(image: &mut I, at: u64) -> Result<Found, I::Error> {
    let first = behind_gap(image, at)?;
    forward(image, first)
}

/// The object that ends in front of byte `at`, and the byte at which it begins with the gap in front of it.
///
/// # Errors
/// The image's own.
pub fn object_backward<I: Image + ?Sized>(image: &mut I, at: u64) -> Result<(Found, u64), I::Error> {
    let end = before_gap(image, at)?;
    let found = backward(image, end)?;
    Ok(match found {
        Found::Record { at, .. } | Found::Filemark { at, .. } => (found, before_gap(image, at)?),
        _ => (found, end),
    })
}

/// Bytes of a gap that are read at once: no more than to the next multiple of it. There data begins in front of which a gap lies, and
/// data that lies in the image by reference is to be left where it is: a look at one byte would have a disk read many.
const GAP_CHUNK: usize = ALIGNMENT as usize;

/// Behind the erase gap that begins at byte `at`; `at` where none does.
///
/// # Errors
/// The image's own.
pub fn behind_gap<I: Image + ?Sized>(image: &mut I, mut at: u64) -> Result<u64, I::Error> {
    // Most places have no gap: then one word is read.
    let mut chunk = [0; GAP_CHUNK];
    let mut wanted = WORD as usize;
    loop {
        let read = read_full(image, at, &mut chunk[..wanted])?;
        let mut here = 0;
        let ended = loop {
            let Some(word) = chunk[here..read].first_chunk() else { break read < wanted };
            here += match Word::parse(*word) {
                Word::Gap => WORD as usize,
                Word::HalfGap => WORD as usize / 2,
                _ => break true,
            };
        };
        at += here as u64;
        if ended {
            return Ok(at);
        }
        wanted = (ALIGNMENT - at % ALIGNMENT).max(WORD) as usize;
    }
}

/// In front of the erase gap that ends in front of byte `at`; `at` where none does.
///
/// # Errors
/// The image's own.
pub fn before_gap<I: Image + ?Sized>(image: &mut I, mut at: u64) -> Result<u64, I::Error> {
    let mut wanted = WORD;
    loop {
        let from = at.saturating_sub(wanted);
        let mut chunk = [0; GAP_CHUNK];
        let chunk = &mut chunk[..(at - from) as usize];
        if read_full(image, from, chunk)? < chunk.len() {
            return Ok(at);
        }
        let mut rest = &*chunk;
        let ended = loop {
            let Some((before, word)) = rest.split_last_chunk() else { break from == 0 };
            match Word::parse(*word) {
                Word::Gap => rest = before,
                // Half a gap is one only in front of a whole word of it.
                Word::Unknown(word) if word >> 16 == 0xFFFF && wanted > WORD => {
                    rest = &rest[..rest.len() - WORD as usize / 2];
                    break true;
                }
                _ => break true,
            }
        };
        at = from + rest.len() as u64;
        if ended {
            return Ok(at);
        }
        wanted = (at.saturating_sub(1) % ALIGNMENT + 1).max(2 * WORD);
    }
}

/// A logical object and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Where it begins.
    pub at: TapePosition,
    /// Bytes of erase gap between there and its first word.
    pub gap: u32,
    /// What it is.
    pub kind: ObjectKind,
    /// As in [`Word::Record`]; 0 for a filemark.
    pub class: u8,
    /// Data bytes; 0 for a filemark.
    pub length: u32,
}

impl Object {
    /// Where the next object begins.
    #[must_use]
    pub const fn next(&self) -> TapePosition {
        self.at.behind_gap(self.gap).after(self.kind, self.length)
    }
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// At an end word or the image's last byte.
    End,
    /// At something that is no whole object.
    Torn(Torn),
    /// At an erase gap where the image was said to have none.
    Gap,
}

/// Which erase gaps a walk passes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gaps {
    /// Those that a layout places, in front of the records in front of which it does.
    Of(Layout),
    Any,
}

/// Lists the logical objects of an image in order. One read of eight bytes an object.
///
/// Iterate it, then ask [`Walk::ending`] why it stopped.
#[derive(Debug)]
pub struct Walk<I> {
    image: I,
    at: TapePosition,
    /// The word at `at`, when the last object's closing word was read together with it.
    ahead: Option<[u8; 4]>,
    gaps: Gaps,
    ending: Option<Ending>,
}

impl<I: Image> Walk<I> {
    /// Starts at a place known to lie between objects. A plain cartridge has no gaps: they end the walk.
    #[must_use]
    pub const fn plain(image: I, at: TapePosition) -> Self {
        Self::of(Layout::Plain, image, at)
    }

    /// As [`Walk::plain`] for a cartridge of any layout. A gap of another length than the layout's ends the walk: it may be half of a
    /// word that was torn while it was written, and data stands behind it.
    #[must_use]
    pub const fn of(layout: Layout, image: I, at: TapePosition) -> Self {
        Self { image, at, ahead: None, gaps: Gaps::Of(layout), ending: None }
    }

    /// As [`Walk::plain`] for an image of any origin: erase gaps are passed over.
    #[must_use]
    pub const fn with_gaps(image: I, at: TapePosition) -> Self {
        Self { image, at, ahead: None, gaps: Gaps::Any, ending: None }
    }

    /// Behind the last object listed.
    #[must_use]
    pub const fn position(&self) -> TapePosition {
        self.at
    }

    /// Why the walk stopped; `None` while it has not, or when reading failed.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    fn step(&mut self) -> Result<Option<Object>, I::Error> {
        let place = self.at.offset;
        let first = match self.ahead.take() {
            Some(word) => Some(word),
            None => word(&mut self.image, place)?,
        };
        let Some(mut first) = first else {
            let found = ending(&mut self.image, place)?;
            return Ok(self.stop(found));
        };
        let mut at = place;
        if matches!(Word::parse(first), Word::Gap | Word::HalfGap) && self.gaps != Gaps::Of(Layout::Plain) {
            at = behind_gap(&mut self.image, place)?;
            let Some(word) = word(&mut self.image, at)? else {
                let found = ending(&mut self.image, at)?;
                return Ok(self.stop(found));
            };
            first = word;
        }
        let (kind, class, length) = match Word::parse(first) {
            Word::Filemark => (ObjectKind::Filemark, 0, 0),
            Word::Record { class, length } => match self.closing(at, first, length)? {
                Ok(()) => (ObjectKind::Record, class, length),
                Err(torn) => return Ok(self.stop(Found::Torn(torn))),
            },
            _ => {
                let found = found_forward(&mut self.image, at, first)?;
                return Ok(self.stop(found));
            }
        };
        let gap = at - place;
        let expected = match self.gaps {
            Gaps::Of(layout) => gap == u64::from(layout.gap(place, length)) || gap == 0,
            Gaps::Any => true,
        };
        let (Ok(gap), true) = (u32::try_from(gap), expected) else {
            return Ok(self.stop(Found::Gap { at: place, next: at }));
        };
        let object = Object { at: self.at, gap, kind, class, length };
        self.at = object.next();
        Ok(Some(object))
    }

    /// Compares a record's closing word, and reads the word behind it in the same breath.
    fn closing(&mut self, at: u64, first: [u8; 4], length: u32) -> Result<Result<(), Torn>, I::Error> {
        let Some(last_at) = at.checked_add(frame::record_size(length) - WORD) else { return Ok(Err(Torn::Short)) };
        let mut words = [0; 8];
        let read = read_full(&mut self.image, last_at, &mut words)?;
        let (last, ahead) = words.split_first_chunk::<4>().expect("eight bytes hold a word");
        if read < 4 {
            return Ok(Err(Torn::Short));
        }
        if *last != first {
            return Ok(Err(Torn::Unequal { first: u32::from_le_bytes(first), last: u32::from_le_bytes(*last) }));
        }
        self.ahead = if read == 8 { ahead.try_into().ok() } else { None };
        Ok(Ok(()))
    }

    fn stop(&mut self, found: Found) -> Option<Object> {
        self.ending = Some(match found {
            Found::Torn(torn) => Ending::Torn(torn),
            Found::Gap { .. } => Ending::Gap,
            _ => Ending::End,
        });
        None
    }
}

impl<I: Image> Iterator for Walk<I> {
    type Item = Result<Object, I::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ending.is_some() {
            return None;
        }
        self.step().transpose()
    }
}

fn found_forward<I: Image + ?Sized>(image: &mut I, at: u64, first: [u8; 4]) -> Result<Found, I::Error> {
    Ok(match Word::parse(first) {
        Word::Filemark => Found::Filemark { at, next: at + WORD },
        Word::Gap => Found::Gap { at, next: at + WORD },
        Word::HalfGap => Found::Gap { at, next: at + WORD / 2 },
        Word::End => Found::End,
        Word::Unknown(word) => Found::Torn(Torn::Unknown(word)),
        Word::Record { class, length } => {
            let Some(next) = at.checked_add(frame::record_size(length)) else { return Ok(Found::Torn(Torn::Short)) };
            let Some(last) = word(image, next - WORD)? else { return Ok(Found::Torn(Torn::Short)) };
            pair(first, last, Found::Record { class, length, at, next })
        }
    })
}

fn pair(first: [u8; 4], last: [u8; 4], record: Found) -> Found {
    if first == last {
        record
    } else {
        Found::Torn(Torn::Unequal { first: u32::from_le_bytes(first), last: u32::from_le_bytes(last) })
    }
}

/// The image ends where a word would be: cleanly, or inside the word.
fn ending<I: Image + ?Sized>(image: &mut I, at: u64) -> Result<Found, I::Error> {
    let mut byte = [0];
    Ok(if image.read_at(at, &mut byte)? == 0 { Found::End } else { Found::Torn(Torn::Short) })
}

fn word<I: Image + ?Sized>(image: &mut I, at: u64) -> Result<Option<[u8; 4]>, I::Error> {
    let mut word = [0; 4];
    Ok((read_full(image, at, &mut word)? == word.len()).then_some(word))
}

fn read_full<I: Image + ?Sized>(image: &mut I, at: u64, into: &mut [u8]) -> Result<usize, I::Error> {
    let mut done = 0;
    while done < into.len() {
        match image.read_at(at + done as u64, &mut into[done..])? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// An image in memory.
#[must_use]
pub fn slice(bytes: &[u8]) -> impl Image<Error = std::convert::Infallible> + '_ {
    move |at: u64, into: &mut [u8]| {
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout;
    use super::*;
    use crate::wire::hex;

    fn walk(image: &[u8]) -> (Vec<(ObjectKind, u8, u32)>, Ending) {
        let mut walk = Walk::plain(slice(image), TapePosition::BEGINNING);
        let objects = walk.by_ref().map(|object| object.map(|o| (o.kind, o.class, o.length)).unwrap()).collect();
        (objects, walk.ending().unwrap())
    }

    fn walk_with_gaps(image: &[u8]) -> usize {
        Walk::with_gaps(slice(image), TapePosition::BEGINNING).map(Result::unwrap).count()
    }

    #[test]
    fn a_small_image_lists_as_written() {
        let image = hex("03000000 616263 00 03000000  00000000  02000080 6869 02000080  00000000 FFFFFFFF AAAA");
        use ObjectKind::{Filemark, Record};
        assert_eq!(walk(&image), (vec![(Record, 0, 3), (Filemark, 0, 0), (Record, 8, 2), (Filemark, 0, 0)], Ending::End));
    }

    #[test]
    fn every_way_to_be_torn_is_named() {
        assert_eq!(walk(&hex("03000000 616263 00 0300")).1, Ending::Torn(Torn::Short));
        assert_eq!(walk(&hex("0300")).1, Ending::Torn(Torn::Short));
        assert_eq!(walk(&hex("02000000 6162 04000000")).1, Ending::Torn(Torn::Unequal { first: 2, last: 4 }));
        assert_eq!(walk(&hex("01020370")).1, Ending::Torn(Torn::Unknown(0x7003_0201)));
        assert_eq!(walk(&hex("FEFFFFFF FFFFFFFF")).1, Ending::Gap);
        assert_eq!(walk(&[]).1, Ending::End);
    }

    #[test]
    fn a_foreign_image_with_gaps_lists_its_objects() {
        let image = hex("FEFFFFFF FEFFFFFF 02000000 6162 02000000 FFFFFEFFFFFF 00000000 FEFFFFFF FFFFFFFF");
        let mut walk = Walk::with_gaps(slice(&image), TapePosition::BEGINNING);
        let objects: Vec<_> = walk.by_ref().map(Result::unwrap).collect();
        assert_eq!(objects.iter().map(|object| (object.at.offset, object.gap)).collect::<Vec<_>>(), [(0, 8), (18, 6)]);
        assert_eq!((walk.position().offset, walk.ending()), (28, Some(Ending::End)), "the gap at the end is no object's");
        assert_eq!(before_gap(&mut slice(&image), 24), Ok(18));
        let back = |at| object_backward(&mut slice(&image), at).unwrap();
        assert_eq!(back(32), (Found::Filemark { at: 24, next: 28 }, 18));
        assert_eq!(back(18), (Found::Record { class: 0, length: 2, at: 8, next: 18 }, 0));
        assert_eq!(back(0).0, Found::Beginning);
        assert!(matches!(object_forward(&mut slice(&image), 18), Ok(Found::Filemark { at: 24, .. })));
    }

    #[test]
    fn a_gap_that_the_layout_does_not_place_ends_the_walk_in_front_of_it() {
        let image = hex("02000000 6162 02000000 FEFFFFFF 02000000 6364 02000000 FFFFFFFF");
        for layout in [Layout::Plain, Layout::Aligned] {
            let mut walk = Walk::of(layout, slice(&image), TapePosition::BEGINNING);
            assert_eq!(walk.by_ref().count(), 1);
            assert_eq!((walk.ending(), walk.position().offset), (Some(Ending::Gap), 10), "{layout:?}");
        }
    }

    #[test]
    fn to_find_aligned_records_no_byte_of_their_data_is_read() {
        let length = 2 * ALIGNMENT as u32;
        let (mut image, mut data) = (vec![0; 4], Vec::new());
        for _ in 0..3 {
            image.extend(layout::gap_bytes(Layout::Aligned.gap(image.len() as u64, length)));
            image.extend(length.to_le_bytes());
            data.push(image.len() as u64..image.len() as u64 + u64::from(length));
            image.resize(image.len() + length as usize, 0x5A);
            image.extend(length.to_le_bytes());
        }
        let end = image.len() as u64;
        let mut looked = |at: u64, into: &mut [u8]| {
            let read = at..at + into.len() as u64;
            assert!(data.iter().all(|data| read.end <= data.start || data.end <= read.start), "{read:?} of {data:?}");
            slice(&image).read_at(at, into)
        };
        let (mut at, mut found) = (WORD, 0);
        while let Found::Record { next, .. } = object_forward(&mut looked, at).unwrap() {
            (at, found) = (next, found + 1);
        }
        assert_eq!((at, found), (end, 3));
        while let (Found::Record { .. }, begins) = object_backward(&mut looked, at).unwrap() {
            (at, found) = (begins, found - 1);
        }
        assert_eq!((at, found), (WORD, 0));
    }

    proptest! {
        #[test]
        fn what_is_found_forward_is_found_backward(lengths in prop::collection::vec(0..300u32, 0..20)) {
            let mut image = Vec::new();
            for length in &lengths {
                image.extend(length.to_le_bytes());
                if *length > 0 {
                    image.resize(image.len() + (*length + (*length & 1)) as usize, 0x5A);
                    image.extend(length.to_le_bytes());
                }
            }
            let mut forward_list = Vec::new();
            let mut at = 0;
            loop {
                match forward(&mut slice(&image), at).unwrap() {
                    Found::End => break,
                    found @ (Found::Record { next, .. } | Found::Filemark { next, .. }) => { forward_list.push(found); at = next }
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(forward_list.len(), lengths.len());
            let mut backward_list = Vec::new();
            loop {
                match backward(&mut slice(&image), at).unwrap() {
                    Found::Beginning => break,
                    found @ (Found::Record { at: first, .. } | Found::Filemark { at: first, .. }) => { backward_list.push(found); at = first }
                    other => panic!("{other:?}"),
                }
            }
            backward_list.reverse();
            prop_assert_eq!(forward_list, backward_list);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_always_end(image in prop::collection::vec(any::<u8>(), 0..600), at in 0..700u64) {
            let _ = walk(&image);
            let _ = forward(&mut slice(&image), at);
            let _ = (backward(&mut slice(&image), at), object_backward(&mut slice(&image), at));
            let gap = behind_gap(&mut slice(&image), at).unwrap();
            prop_assert!(gap >= at && before_gap(&mut slice(&image), at).unwrap() <= at);
            let _ = walk_with_gaps(&image);
            let _ = forward(&mut slice(&image), u64::MAX - at);
        }
    }
}
