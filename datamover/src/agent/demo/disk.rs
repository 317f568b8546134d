//! The demo's writer and its checker: hosts like any other, under names of their own.
//!
//! The writer puts the NTFS volume on the disk, fills files from a seed and goes on writing for a while. The checker reads what is
//! there and keeps hashes. What they carry is shown apart: it is not the backup's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use protocol::units::{ByteRange, Lba};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::disk::Disk;
use super::super::ui::Progress;
use crate::fixture;

/// Commands in flight.
const IN_FLIGHT: usize = 8;
/// Bytes of one.
const PIECE: u64 = 1 << 20;
/// All content comes from here; another seed is another volume.
const SEED: &[u8] = b"offhost demo, content of files, version 1";

/// A file whose clusters the demo fills.
#[derive(Debug, Clone)]
pub struct FilledFile {
    /// Its path on the volume.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its places on the disk, in the order of the file.
    pub places: Vec<ByteRange>,
}

impl FilledFile {
    /// The bytes of the file from `offset` on, in some version of it; zeros behind its end.
    fn content(&self, version: u32, offset: u64, length: u64) -> Bytes {
        let mut hasher = blake3::Hasher::new();
        hasher.update(SEED).update(&version.to_be_bytes()).update(self.path.as_bytes());
        let mut stream = hasher.finalize_xof();
        stream.set_position(offset);
        let mut bytes = vec![0; length as usize];
        let within = self.size.saturating_sub(offset).min(length);
        stream.fill(&mut bytes[..within as usize]);
        bytes.into()
    }

    /// Pieces of at most 1 MiB: byte of the file, and place on the disk.
    fn pieces(&self) -> impl Iterator<Item = (u64, ByteRange)> + '_ {
        let mut offset = 0;
        self.places.iter().flat_map(move |place| {
            let from = offset;
            offset += place.len;
            pieces_of(*place).map(move |piece| (from + (piece.start - place.start), piece))
        })
    }
}

/// Stretches of at most [`PIECE`] bytes.
fn pieces_of(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    (0..range.len.div_ceil(PIECE)).map(move |n| {
        let start = range.start + n * PIECE;
        ByteRange { start, len: (range.end() - start).min(PIECE) }
    })
}

/// Writes with several commands in flight.
struct Writes<'a> {
    disk: &'a Disk,
    slots: Arc<Semaphore>,
    tasks: JoinSet<Result<(), sim::client::ClientError>>,
}

impl<'a> Writes<'a> {
    fn new(disk: &'a Disk) -> Self {
        Self { disk, slots: Arc::new(Semaphore::new(IN_FLIGHT)), tasks: JoinSet::new() }
    }

    async fn write(&mut self, offset: u64, bytes: Bytes) -> anyhow::Result<()> {
        let slot = Arc::clone(&self.slots).acquire_owned().await?;
        while let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        let disk = self.disk.clone();
        let lba = Lba(offset / disk.block_length().bytes());
        self.tasks.spawn(async move {
            let written = disk.write_blocks(lba, bytes).await;
            drop(slot);
            written
        });
        Ok(())
    }

    async fn end(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Puts the NTFS volume on an empty disk.
///
/// # Errors
/// What the disk says.
pub async fn write_volume(disk: &Disk, bar: &Progress) -> anyhow::Result<()> {
    let (send, mut receive) = tokio::sync::mpsc::channel(IN_FLIGHT);
    // Unpacking is work for a thread of its own; it ends when nobody takes its pieces any more.
    let unpack = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        for piece in fixture::pieces()? {
            if send.blocking_send(piece?).is_err() {
                break;
            }
        }
        Ok(())
    });
    let mut writes = Writes::new(disk);
    while let Some((offset, bytes)) = receive.recv().await {
        bar.at(offset);
        writes.write(offset, bytes.into()).await.context("writing the NTFS volume")?;
    }
    unpack.await?.context("unpacking the NTFS volume")?;
    writes.end().await.context("writing the NTFS volume")
}

/// Fills the files' clusters from the seed.
///
/// # Errors
/// What the disk says.
pub async fn fill(disk: &Disk, files: &[FilledFile], bar: &Progress) -> anyhow::Result<()> {
    let mut writes = Writes::new(disk);
    let mut done = 0;
    for file in files {
        for (offset, place) in file.pieces() {
            writes.write(place.start, file.content(0, offset, place.len)).await.context("filling the files")?;
            done += place.len;
            bar.at(done);
        }
    }
    writes.end().await.context("filling the files")?;
    disk.unit().synchronize_cache().await?;
    Ok(())
}

/// Goes on writing to one file, with pauses too short to count as quiet, then stops.
///
/// # Errors
/// What the disk says.
pub async fn keep_writing(disk: &Disk, file: &FilledFile, pauses: &[Duration]) -> anyhow::Result<()> {
    for (version, pause) in (1..).zip(pauses) {
        tokio::time::sleep(*pause).await;
        let (offset, place) = file.pieces().next().context("the file has clusters")?;
        disk.write_blocks(Lba(place.start / disk.block_length().bytes()), file.content(version, offset, place.len)).await?;
    }
    Ok(())
}

/// Overwrites the first clusters of files, so that the live disk is no longer what the snapshot shows. Gives the places.
///
/// # Errors
/// What the disk says.
pub async fn overwrite(disk: &Disk, files: &[&FilledFile]) -> anyhow::Result<Vec<ByteRange>> {
    const LATER: u32 = u32::MAX;
    let mut writes = Writes::new(disk);
    let mut places = Vec::new();
    for file in files {
        for (offset, place) in file.pieces().take(2) {
            writes.write(place.start, file.content(LATER, offset, place.len)).await.context("overwriting files")?;
            places.push(place);
        }
    }
    writes.end().await.context("overwriting files")?;
    Ok(places)
}

/// One hash for each stretch of a disk.
///
/// # Errors
/// What the disk says.
pub async fn hashes(disk: &Disk, ranges: &[ByteRange], bar: &Progress) -> anyhow::Result<Vec<blake3::Hash>> {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = JoinSet::new();
    for (n, range) in ranges.iter().copied().enumerate() {
        let (disk, slots) = (disk.clone(), Arc::clone(&slots));
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await?;
            let mut hasher = blake3::Hasher::new();
            read(&disk, range, |bytes| {
                hasher.update(bytes);
            })
            .await?;
            anyhow::Ok((n, range.len, hasher.finalize()))
        });
    }
    let mut hashes = vec![blake3::Hash::from_bytes([0; 32]); ranges.len()];
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        let (n, bytes, hash) = ended??;
        hashes[n] = hash;
        done += bytes;
        bar.at(done);
    }
    Ok(hashes)
}

/// The hash of a file's bytes, read from its places.
///
/// # Errors
/// What the disk says.
pub async fn file_hash(disk: &Disk, places: &[ByteRange], size: u64) -> anyhow::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut left = size;
    for place in places {
        read(disk, *place, |bytes| {
            let within = left.min(bytes.len() as u64);
            hasher.update(&bytes[..within as usize]);
            left -= within;
        })
        .await?;
    }
    Ok(hasher.finalize())
}

/// Reads a stretch of whole blocks, piece by piece.
async fn read(disk: &Disk, range: ByteRange, mut take: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let block = disk.block_length().bytes();
    for piece in pieces_of(range) {
        let bytes = disk.read_blocks(Lba(piece.start / block), piece.len.div_ceil(block)).await?;
        take(bytes.get(..piece.len as usize).context("whole blocks hold the piece")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_file_version_and_place_alone() {
        let file = FilledFile { path: "/fill/a".to_owned(), size: 5000, places: Vec::new() };
        let whole = file.content(0, 0, 8192);
        assert_eq!(file.content(0, 4096, 4096), whole.slice(4096..));
        assert!(whole[5000..].iter().all(|byte| *byte == 0));
        assert_ne!(file.content(1, 0, 100), whole.slice(..100));
        assert_ne!(FilledFile { path: "/fill/b".to_owned(), ..file }.content(0, 0, 100), whole.slice(..100));
    }

    #[test]
    fn pieces_follow_the_file_over_its_places() {
        let places = vec![ByteRange { start: 4096, len: PIECE + 512 }, ByteRange { start: 0, len: 1024 }];
        let file = FilledFile { path: String::new(), size: 1, places };
        let pieces: Vec<_> = file.pieces().collect();
        let expected = [(0, 4096, PIECE), (PIECE, 4096 + PIECE, 512), (PIECE + 512, 0, 1024)];
        assert_eq!(pieces, expected.map(|(offset, start, len)| (offset, ByteRange { start, len })));
    }
}
