//! What a sequential access device knows. SSC-4.

use bytes::Bytes;
use protocol::scsi::{Sense, SenseKey};

use super::unit::{at_least, be64, invalid_input};
use super::{ClientError, Data, LogicalUnit, Reply};

/// Where a tape stands. SSC-4, "READ POSITION data format, long form".
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TapePosition {
    /// PARTITION NUMBER.
    pub partition: u32,
    /// LOGICAL OBJECT NUMBER: records and filemarks between the beginning of the partition and here.
    pub object: u64,
    /// LOGICAL FILE ID: filemarks between the beginning of the partition and here.
    pub file: u64,
    /// BOP: at the beginning of the partition.
    pub beginning: bool,
    /// EOP: between early warning and the end of the partition.
    pub end: bool,
}

/// What SPACE counts. SSC-4, "SPACE(6) command".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceCode {
    /// Logical blocks.
    Blocks = 0,
    /// Filemarks.
    Filemarks = 1,
    /// Sequential filemarks.
    SequentialFilemarks = 2,
    /// To the end of data; the count is not used.
    EndOfData = 3,
}

/// What one read of a tape came upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapeRead {
    /// A whole record.
    Record(Bytes),
    /// The first bytes of a record that is longer than the room given; the tape stands behind it.
    Longer {
        /// What had room.
        data: Bytes,
        /// The record's length in bytes.
        length: u64,
    },
    /// A filemark; the tape stands behind it.
    Filemark,
    /// Nothing is written behind this position.
    EndOfData,
}

/// Where a write left the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The position is past early warning: write what is needed to finish, and no more.
    pub early_warning: bool,
}

impl LogicalUnit {
    /// REWIND; what was written is then synchronized.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn rewind(&self) -> Result<(), ClientError> {
        self.good_long("REWIND", &[0x01, 0, 0, 0, 0, 0], Data::None).await.map(drop)
    }

    /// LOCATE(16) to a logical object of the current partition.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]: BLANK CHECK when the object lies behind the end of data.
    pub async fn locate(&self, object: u64) -> Result<(), ClientError> {
        let mut cdb = [0; 16];
        cdb[0] = 0x92;
        cdb[4..12].copy_from_slice(&object.to_be_bytes());
        self.good_long("LOCATE(16)", &cdb, Data::None).await.map(drop)
    }

    /// READ POSITION, long form.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn read_position(&self) -> Result<TapePosition, ClientError> {
        const NAME: &str = "READ POSITION";
        let data = self.good(NAME, &[0x34, 0x06, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(32)).await?.data;
        at_least(NAME, "READ POSITION data, long form", &data, 32)?;
        Ok(TapePosition {
            partition: super::unit::be32(&data, 4),
            object: be64(&data, 8),
            file: be64(&data, 16),
            beginning: data[0] & 0x80 != 0,
            end: data[0] & 0x40 != 0,
        })
    }

    /// SPACE(6). A negative count goes back.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]: INFORMATION is what was left of the count when a filemark, the end of data or the beginning
    /// of the partition came first. `InvalidInput` for a count that does not fit 24 bits.
    pub async fn space(&self, code: SpaceCode, count: i32) -> Result<(), ClientError> {
        if !(-0x80_0000..=0x7F_FFFF).contains(&count) {
            return Err(invalid_input(format!("a SPACE count of {count} does not fit 24 bits")));
        }
        let [_, high, middle, low] = count.to_be_bytes();
        self.good_long("SPACE(6)", &[0x11, code as u8, high, middle, low, 0], Data::None).await.map(drop)
    }

    /// WRITE FILEMARKS(6) with IMMED=0: afterwards all that was written is on the medium. A count of zero only synchronizes.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; early warning is none.
    pub async fn write_filemarks(&self, count: u32) -> Result<Written, ClientError> {
        if count > 0xFF_FFFF {
            return Err(invalid_input(format!("{count} filemarks do not fit 24 bits")));
        }
        let [_, high, middle, low] = count.to_be_bytes();
        written("WRITE FILEMARKS(6)", self.long(&[0x10, 0, high, middle, low, 0], Data::None).await?)
    }

    /// READ(6) of one record with room for `room` bytes: variable block transfer, SILI=0.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; a filemark, the end of data and another length are no errors here.
    pub async fn read_record(&self, room: u32) -> Result<TapeRead, ClientError> {
        let [high, a, b, c] = room.to_be_bytes();
        if high != 0 {
            return Err(invalid_input(format!("a record of {room} bytes does not fit 24 bits")));
        }
        let reply = self.long(&[0x08, 0, a, b, c, 0], if room == 0 { Data::None } else { Data::In(room) }).await?;
        match &reply.sense {
            Some(sense) if sense.stream.filemark => Ok(TapeRead::Filemark),
            Some(Sense { key: SenseKey::BlankCheck, .. }) => Ok(TapeRead::EndOfData),
            // INFORMATION is requested minus actual length.
            Some(sense) if sense.stream.incorrect_length => match sense.information.map(u64::cast_signed) {
                Some(less) if less >= 0 => {
                    let length = u64::from(room).saturating_sub(less.cast_unsigned()) as usize;
                    at_least("READ(6)", "record", &reply.data, length)?;
                    Ok(TapeRead::Record(reply.data.slice(..length)))
                }
                Some(more) => {
                    Ok(TapeRead::Longer { data: reply.data, length: u64::from(room).saturating_add(more.unsigned_abs()) })
                }
                None => reply.good("READ(6)").map(|reply| TapeRead::Record(reply.data)),
            },
            _ => reply.good("READ(6)").map(|reply| TapeRead::Record(reply.data)),
        }
    }

    /// WRITE(6) of one record, variable block transfer.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]: VOLUME OVERFLOW at the end of the partition. Early warning is none.
    pub async fn write_record(&self, record: Bytes) -> Result<Written, ClientError> {
        let length = u32::try_from(record.len()).ok().filter(|length| *length <= 0xFF_FFFF);
        let Some(length) = length else {
            return Err(invalid_input(format!("a record of {} bytes does not fit 24 bits", record.len())));
        };
        let [_, a, b, c] = length.to_be_bytes();
        written("WRITE(6)", self.long(&[0x0A, 0, a, b, c, 0], Data::Out(record)).await?)
    }

    /// LOAD UNLOAD: puts the cartridge in and ready.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn load(&self) -> Result<(), ClientError> {
        self.good_long("LOAD UNLOAD", &[0x1B, 0, 0, 0, 1, 0], Data::None).await.map(drop)
    }

    /// LOAD UNLOAD: winds back, synchronizes and takes the cartridge out.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn unload(&self) -> Result<(), ClientError> {
        self.good_long("LOAD UNLOAD", &[0x1B, 0, 0, 0, 0, 0], Data::None).await.map(drop)
    }

    /// Sets the block length of the drive: 0 for variable block transfers. MODE SELECT(6), block descriptor only.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn set_tape_block_length(&self, block_length: u32) -> Result<(), ClientError> {
        let [high, a, b, c] = block_length.to_be_bytes();
        if high != 0 {
            return Err(invalid_input(format!("a block length of {block_length} does not fit 24 bits")));
        }
        // BUFFERED MODE 1: what the drive comes up with. Density 0: as it is.
        let list = vec![0, 0, 0x10, 8, 0, 0, 0, 0, 0, a, b, c];
        self.good("MODE SELECT(6)", &[0x15, 0x10, 0, 0, 12, 0], Data::Out(list.into())).await.map(drop)
    }
}

/// A write past early warning ends CHECK CONDITION with NO SENSE and EOM, and all of it was written. SSC-4, "Early-warning".
fn written(command: &'static str, reply: Reply) -> Result<Written, ClientError> {
    let warned = reply
        .sense
        .as_ref()
        .is_some_and(|sense| matches!(sense.key, SenseKey::NoSense | SenseKey::RecoveredError) && sense.stream.end_of_medium);
    if warned {
        return Ok(Written { early_warning: true });
    }
    reply.good(command).map(|_| Written { early_warning: false })
}
