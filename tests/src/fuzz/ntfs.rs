//! Disks that hold anything, and a real NTFS volume with a few bytes of its metadata changed.
//!
//! Input: a byte that chooses. Even: the rest is the disk, cut into few sectors. Odd: changes of five bytes of place, a byte of
//! length and the new bytes, laid over the embedded volume.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use datamover::fixture;
use datamover::map::source::ReadAt;
use datamover::map::{DiskMap, probe};

use super::Input;

/// What is not zero on the embedded disk, ascending.
static PIECES: LazyLock<Vec<(u64, Vec<u8>)>> = LazyLock::new(|| {
    fixture::pieces().expect("the embedded disk").collect::<Result<_, _>>().expect("the embedded disk is whole")
});

/// One input.
pub fn fuzz(data: &[u8]) {
    let mut input = Input(data);
    let disk = if input.byte() & 1 == 0 { raw(input) } else { mutated(input) };
    let Ok(map) = probe(&disk) else { return };
    assert!(map.used.runs().last().is_none_or(|run| run.end() <= map.size), "used lies on the disk");
    for (_, file) in map.files().take(200) {
        assert!(format!("{file:?}").len() < 1 << 24);
    }
    for lba in [0, 1, 2048, map.size / 512] {
        let _ = map.at_lba(lba);
    }
    let bytes = map.to_bytes();
    assert!(DiskMap::from_bytes(&bytes).is_ok_and(|again| again.used == map.used), "what we write we read");
}

#[derive(Debug)]
struct Disk {
    size: u64,
    under: &'static [(u64, Vec<u8>)],
    over: Vec<(u64, Vec<u8>)>,
    read: AtomicU64,
}

/// Zeros behind the given bytes: a size of its own, so that structures may lie beyond them.
fn raw(mut input: Input<'_>) -> Disk {
    let sectors = u64::from(input.short()) + 1;
    let size = sectors * 512;
    let bytes = input.take(usize::try_from(size).unwrap_or(usize::MAX));
    Disk { size, under: &[], over: vec![(0, bytes.to_vec())], read: AtomicU64::new(0) }
}

fn mutated(mut input: Input<'_>) -> Disk {
    let mut over = Vec::new();
    while !input.is_empty() && over.len() < 64 {
        let (piece, at) = (usize::from(input.short()), u32::from_be_bytes([0, input.byte(), input.byte(), input.byte()]));
        let length = usize::from(input.byte() & 15) + 1;
        let (offset, bytes) = &PIECES[piece % PIECES.len()];
        let at = at as usize % bytes.len();
        let change = input.take(length.min(bytes.len() - at)).to_vec();
        over.push((offset + at as u64, change));
    }
    Disk { size: fixture::SIZE, under: &PIECES, over, read: AtomicU64::new(0) }
}

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_length(&self) -> u32 {
        512
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        assert!(buffer.len() <= 64 << 20, "one read of {} bytes", buffer.len());
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        buffer.fill(0);
        let first = self.under.partition_point(|(at, bytes)| at + bytes.len() as u64 <= offset);
        let under = self.under[first..].iter().take_while(|(at, _)| *at < end);
        for (at, bytes) in under.chain(&self.over) {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}
