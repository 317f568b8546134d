//! Tape images and indexes that anybody may have written: walked in memory, then opened as a cartridge and written behind.
//!
//! Input: two bytes of length, the index; the rest is the image.

use std::fs;

use bytes::Bytes;
use protocol::cartridge::index::{Entry, Header, SLOT};
use protocol::cartridge::layout::{ALIGNED_LEAST, Layout};
use protocol::cartridge::scan::{self, Found, Walk};
use protocol::cartridge::{TapePosition, sums};
use target::cartridge::{Cartridge, Metadata, Stored};

use super::{Input, Scratch};

/// One input.
pub fn fuzz(data: &[u8]) {
    let mut input = Input(data);
    let length = usize::from(input.short());
    let index = input.take(length);
    let image = input.0;
    walk(image);
    for slot in index.as_chunks::<SLOT>().0 {
        if let Ok(entry) = Entry::parse(slot) {
            assert_eq!(Entry::parse(&entry.emit()), Ok(entry));
        }
        let _ = Header::parse(slot);
    }
    if let Some(slots) = index.first_chunk() {
        let _ = Header::choose(slots);
    }
    let _ = sums::parse_log_page(image);
    open(index, image, Layout::Plain);
    open(index, image, Layout::Aligned);
}

fn walk(image: &[u8]) {
    let start = TapePosition::BEGINNING;
    for mut walk in [
        Walk::plain(scan::slice(image), start),
        Walk::of(Layout::Aligned, scan::slice(image), start),
        Walk::with_gaps(scan::slice(image), start),
    ] {
        let mut end = 0;
        while let Some(Ok(object)) = walk.next() {
            assert!(object.at.offset >= end, "a walk goes forward");
            end = object.next().offset;
            assert!(end <= image.len() as u64, "an object lies in its image");
            // What ends here forward may read as something else backward: only whole words are compared.
            let backward = scan::backward(&mut scan::slice(image), end);
            if let Ok(Found::Record { next, .. } | Found::Filemark { next, .. }) = backward {
                assert_eq!(next, end);
            }
        }
        assert!(walk.ending().is_some());
    }
    for at in (0..=image.len() as u64).take(64) {
        let _ = scan::backward(&mut scan::slice(image), at);
        let _ = scan::forward(&mut scan::slice(image), at);
        assert!(scan::behind_gap(&mut scan::slice(image), at).is_ok_and(|behind| behind >= at));
        assert!(scan::before_gap(&mut scan::slice(image), at).is_ok_and(|before| before <= at));
    }
}

/// What is appended to whatever was there: one record that an aligned layout aligns, and one that none does.
const BEHIND: [&[u8]; 2] = [&[7; ALIGNED_LEAST as usize], b"behind"];

fn open(index: &[u8], image: &[u8], layout: Layout) {
    let scratch = Scratch::new();
    let folder = scratch.path().join("C");
    let label = Metadata { layout, ..Metadata::new("FUZZ01L8", 1 << 30) };
    Cartridge::create(&folder, &label).expect("a cartridge in memory");
    fs::write(folder.join("p0.tap"), image).expect("an image");
    if !index.is_empty() {
        fs::write(folder.join("p0.idx"), index).expect("an index");
    }
    let Ok(mut opened) = Cartridge::open(&folder) else { return };
    let cartridge = &mut opened.partitions_mut()[0];
    let end = cartridge.end();
    if let Some(last) = end.object.checked_sub(1)
        && let Ok(Some(entry)) = cartridge.object(last)
    {
        assert_eq!(entry.next(), end, "the last object ends at the end of data");
        let _ = cartridge.read(&entry);
    }
    let _ = cartridge.file_sums(0, 16);
    let _ = cartridge.filemark(1);
    if !cartridge.writable() {
        return;
    }
    let records = BEHIND.map(|data| [Bytes::from_static(data)]);
    let written = cartridge.append_records(records.iter().map(|parts| Stored { parts, wrapped: false }));
    assert_eq!((written.objects, written.position.object), (2, end.object + 2), "{:?}", written.error);
    cartridge.sync().expect("synchronized");
    drop(opened);
    let opened = Cartridge::open(&folder).expect("what we wrote we open");
    let cartridge = &opened.partitions()[0];
    assert_eq!(cartridge.end(), written.position, "{:?}", cartridge.notes());
    for (object, data) in (end.object..).zip(BEHIND) {
        let entry = cartridge.object(object).expect("readable").expect("there");
        assert_eq!(&cartridge.read(&entry).expect("whole")[..], data);
    }
}
