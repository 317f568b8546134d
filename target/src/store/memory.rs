//! Blocks in memory, allocated page by page: for tests, and where a disk need not outlive the process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use protocol::units::ByteRange;

use super::{Allocation, BlockStore, LocalEnd, within};

/// Bytes allocated together.
const PAGE: usize = 4096;

type Pages = BTreeMap<u64, Box<[u8; PAGE]>>;

/// A sparse store without a file; no mover can reach it.
#[derive(Debug)]
pub struct MemoryStore {
    size: u64,
    pages: RwLock<Pages>,
}

impl MemoryStore {
    /// All zeros, nothing allocated.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, pages: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().expect("no holder panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().expect("no holder panics")
    }
}

/// The parts of a range that lie in one page each: page, first byte in the page, bytes.
fn by_page(range: ByteRange) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let offset = (at % PAGE as u64) as usize;
        let len = (PAGE - offset).min(usize::try_from(range.end() - at).unwrap_or(PAGE));
        let page = at / PAGE as u64;
        at += len as u64;
        (len > 0).then_some((page, offset, len))
    })
}

impl BlockStore for MemoryStore {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, at: u64, mut into: &mut [u8]) -> io::Result<()> {
        within(self.size, at, into.len() as u64, io::ErrorKind::UnexpectedEof)?;
        let pages = self.read();
        for (page, offset, len) in by_page(ByteRange { start: at, len: into.len() as u64 }) {
            let (part, rest) = into.split_at_mut(len);
            match pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[offset..offset + len]),
                None => part.fill(0),
            }
            into = rest;
        }
        Ok(())
    }

    fn read_now(&self, at: u64, into: &mut [u8]) -> io::Result<bool> {
        self.read_at(at, into).map(|()| true)
    }

    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()> {
        let len = data.iter().map(|part| part.len() as u64).sum();
        within(self.size, at, len, io::ErrorKind::InvalidInput)?;
        let mut pages = self.write();
        let mut at = at;
        for mut part in data.iter().map(Bytes::as_ref) {
            for (page, offset, len) in by_page(ByteRange { start: at, len: part.len() as u64 }) {
                let (now, rest) = part.split_at(len);
                pages.entry(page).or_insert_with(|| Box::new([0; PAGE]))[offset..offset + len].copy_from_slice(now);
                part = rest;
                at += len as u64;
            }
        }
        Ok(())
    }

    fn deallocate(&self, range: ByteRange) -> io::Result<()> {
        within(self.size, range.start, range.len, io::ErrorKind::InvalidInput)?;
        if range.len == 0 {
            return Ok(());
        }
        let mut pages = self.write();
        let (first, last) = (range.start / PAGE as u64, (range.end() - 1) / PAGE as u64);
        let touched: Vec<u64> = pages.range(first..=last).map(|(page, _)| *page).collect();
        for page in touched {
            let bytes = ByteRange { start: page * PAGE as u64, len: PAGE as u64 };
            match bytes.intersection(range) {
                Some(part) if part == bytes => {
                    pages.remove(&page);
                }
                Some(part) => {
                    let start = (part.start - bytes.start) as usize;
                    let page = pages.get_mut(&page).expect("found in the range");
                    page[start..start + part.len as usize].fill(0);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Nothing survives a power loss here, and nobody is told otherwise: there is nothing to do.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        within(self.size, range.start, range.len, io::ErrorKind::UnexpectedEof)?;
        let mut found: Vec<Allocation> = Vec::new();
        let mut push = |part: ByteRange, allocated| match found.last_mut() {
            _ if part.len == 0 => {}
            Some(last) if last.allocated == allocated => last.range.len += part.len,
            _ => found.push(Allocation { range: part, allocated }),
        };
        let mut at = range.start;
        for (page, _) in self.read().range(range.start / PAGE as u64..range.end().div_ceil(PAGE as u64)) {
            let bytes = ByteRange { start: page * PAGE as u64, len: PAGE as u64 };
            let Some(part) = bytes.intersection(range) else { continue };
            push(ByteRange { start: at, len: part.start - at }, false);
            push(part, true);
            at = part.end();
        }
        push(ByteRange { start: at, len: range.end() - at }, false);
        found.truncate(limit);
        Ok(found)
    }

    fn source(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn destination(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
