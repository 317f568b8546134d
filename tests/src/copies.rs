//! EXTENDED COPY lists as the tests send them, and the tape read back record by record.

use anyhow::Result;
use bytes::Bytes;
use protocol::units::Lba;
use protocol::xcopy::{CountOf, CscdDescriptor, List, Segment};
use sim::client::{Client, ClientError, TapeRead};

/// Bytes a record.
pub const RECORD: u32 = 65_536;

/// Segments that copy `records` records of [`RECORD`] bytes from the start of a 512-byte disk to the tape's position.
///
/// # Errors
/// When a LUN does not say its name.
pub async fn disk_to_tape(client: &Client, disk: u16, tape: u16, records: u64) -> Result<Bytes> {
    let mut list = List::new(1);
    let source = list.cscd(CscdDescriptor::disk(client.lun(disk).cscd_designator().await?, 512));
    let destination = list.cscd(CscdDescriptor::tape(client.lun(tape).cscd_designator().await?));
    let per_record = u64::from(RECORD) / 512;
    // 511 records are the most that a 16-bit block count carries in whole records.
    let mut done = 0;
    while done < records {
        let now = (records - done).min(511);
        let (blocks, from) = ((now * per_record) as u16, Lba(done * per_record));
        list.push(Segment::BlockToStream { source, destination, transfer_length: RECORD, blocks, from });
        done += now;
    }
    Ok(list.emit().into())
}

/// A list that copies `records` records of [`RECORD`] bytes from the tape's position to the start of a 512-byte disk.
///
/// # Errors
/// When a LUN does not say its name.
pub async fn tape_to_disk(client: &Client, tape: u16, disk: u16, records: u64) -> Result<Bytes> {
    let mut list = List::new(1);
    let source = list.cscd(CscdDescriptor::tape(client.lun(tape).cscd_designator().await?));
    let destination = list.cscd(CscdDescriptor::disk(client.lun(disk).cscd_designator().await?, 512));
    let per_record = u64::from(RECORD) / 512;
    let mut done = 0;
    while done < records {
        let now = (records - done).min(511);
        let (blocks, to) = ((now * per_record) as u16, Lba(done * per_record));
        list.push(Segment::StreamToBlock { source, destination, transfer_length: RECORD, blocks, to });
        done += now;
    }
    Ok(list.emit().into())
}

/// Records from the beginning of the tape up to where nothing is; `each` gets them with their number.
///
/// # Errors
/// When a command fails, or there is a filemark.
pub async fn read_tape(client: &Client, tape: u16, mut each: impl FnMut(u64, Bytes)) -> Result<u64, ClientError> {
    let tape = client.lun(tape);
    tape.test_unit_ready().await?;
    tape.rewind().await?;
    for index in 0.. {
        match tape.read_record(RECORD * 2).await? {
            TapeRead::Record(data) => each(index, data),
            TapeRead::Filemark => panic!("a filemark that nobody wrote, behind {index} records"),
            _ => return Ok(index),
        }
    }
    unreachable!("a tape has an end")
}

/// A list that copies `bytes` bytes from disk to disk, both of 512-byte blocks, by 02h segments as large as they can be.
///
/// # Errors
/// When a LUN does not say its name.
pub async fn disk_to_disk(client: &Client, from: (u16, Lba), to: (u16, Lba), bytes: u64) -> Result<Bytes> {
    let mut list = List::new(1);
    let source = list.cscd(CscdDescriptor::disk(client.lun(from.0).cscd_designator().await?, 512));
    let destination = list.cscd(CscdDescriptor::disk(client.lun(to.0).cscd_designator().await?, 512));
    let (mut done, count_of) = (0, CountOf::SourceBlocks);
    while done < bytes / 512 {
        // As many as the 16-bit count carries and still are a multiple of 64 KiB.
        let blocks = (bytes / 512 - done).min(65_408);
        let (from, to) = (Lba(from.1.0 + done), Lba(to.1.0 + done));
        list.push(Segment::BlockToBlock { source, destination, count_of, blocks: blocks as u16, from, to });
        done += blocks;
    }
    Ok(list.emit().into())
}
