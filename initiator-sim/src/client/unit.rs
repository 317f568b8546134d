//! A logical unit and the commands that every device, or every disk, knows.

use std::time::Duration;

use bytes::Bytes;
use protocol::scsi::{LunAddress, SenseKey, Status};
use protocol::units::{BlockCount, BlockLength, Lba};
use protocol::wire::{Problem, WireError};

use super::{Client, ClientError, Data, Reply};

/// Unit attentions taken before a unit counts as not ready: power on, reset, medium changed, mode and capacity changed,
/// and as many again.
const UNIT_ATTENTIONS_TAKEN: usize = 10;

/// Bytes asked for where a reply's length is not known beforehand.
const FIRST_ALLOCATION: u16 = 4096;

/// One LUN through one session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogicalUnit {
    client: Client,
    lun: u16,
}

/// Standard INQUIRY data. SPC-4, "Standard INQUIRY data".
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Inquiry {
    /// PERIPHERAL QUALIFIER: 0 a unit is there, 3 none can be.
    pub qualifier: u8,
    /// PERIPHERAL DEVICE TYPE: 0 disk, 1 tape, 8 changer.
    pub device_type: u8,
    /// RMB.
    pub removable: bool,
    /// VERSION.
    pub version: u8,
    /// 3PC: the unit knows EXTENDED COPY.
    pub third_party_copy: bool,
    /// T10 VENDOR IDENTIFICATION, without trailing spaces.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION.
    pub product: String,
    /// PRODUCT REVISION LEVEL.
    pub revision: String,
    /// All bytes that came.
    #[serde(skip)]
    pub raw: Bytes,
}

/// Size of a disk. SBC-4, "READ CAPACITY(16) parameter data".
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capacity {
    /// Logical blocks.
    pub blocks: BlockCount,
    /// Bytes in each.
    pub block_length: BlockLength,
    /// LBPME: blocks can be deallocated.
    pub provisioned: bool,
}

impl Capacity {
    /// Size in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks.0.saturating_mul(self.block_length.bytes())
    }
}

impl LogicalUnit {
    pub(super) fn new(client: Client, lun: u16) -> Self {
        Self { client, lun }
    }

    /// The session.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.lun
    }

    /// Any command; a CHECK CONDITION is an `Ok` reply.
    ///
    /// # Errors
    /// As [`Client::command`].
    pub async fn command(&self, cdb: &[u8], data: Data) -> Result<Reply, ClientError> {
        self.client.command(self.lun, cdb, data).await
    }

    /// A command that must end GOOD. `name` is the standard's, for the error text.
    ///
    /// # Errors
    /// As [`Client::command`], and [`ClientError::Status`].
    pub async fn good(&self, name: &'static str, cdb: &[u8], data: Data) -> Result<Reply, ClientError> {
        self.command(cdb, data).await?.good(name)
    }

    /// The same for commands that may take minutes.
    pub(super) async fn good_long(&self, name: &'static str, cdb: &[u8], data: Data) -> Result<Reply, ClientError> {
        self.long(cdb, data).await?.good(name)
    }

    pub(super) async fn long(&self, cdb: &[u8], data: Data) -> Result<Reply, ClientError> {
        let timeout: Duration = self.client.options().long_command_timeout;
        self.client.command_at(LunAddress::from_number(self.lun), cdb, data, timeout).await
    }

    /// Standard INQUIRY data.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; [`ClientError::Reply`] for fewer than 36 bytes.
    pub async fn inquiry(&self) -> Result<Inquiry, ClientError> {
        let raw = self.good("INQUIRY", &[0x12, 0, 0, 0, 255, 0], Data::In(255)).await?.data;
        at_least("INQUIRY", "standard INQUIRY data", &raw, 36)?;
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&raw[range]).trim_end().to_owned();
        Ok(Inquiry {
            qualifier: raw[0] >> 5,
            device_type: raw[0] & 0x1F,
            removable: raw[1] & 0x80 != 0,
            version: raw[2],
            third_party_copy: raw[5] & 0x08 != 0,
            vendor: text(8..16),
            product: text(16..32),
            revision: text(32..36),
            raw: raw.clone(),
        })
    }

    /// A vital product data page, with its four bytes of header.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; [`ClientError::Reply`] when another page came.
    pub async fn vpd(&self, page: u8) -> Result<Bytes, ClientError> {
        let [high, low] = FIRST_ALLOCATION.to_be_bytes();
        let data = self.good("INQUIRY", &[0x12, 1, page, high, low, 0], Data::In(FIRST_ALLOCATION.into())).await?.data;
        at_least("INQUIRY", "VPD page", &data, 4)?;
        if data[1] != page {
            return Err(reply_error("INQUIRY", "VPD page", 1, "PAGE CODE", data[1].into()));
        }
        let length = usize::from(u16::from_be_bytes([data[2], data[3]])) + 4;
        if length <= data.len() {
            return Ok(data.slice(..length));
        }
        let allocation = length.min(usize::from(u16::MAX)) as u16;
        let [high, low] = allocation.to_be_bytes();
        let data = self.good("INQUIRY", &[0x12, 1, page, high, low, 0], Data::In(allocation.into())).await?.data;
        at_least("INQUIRY", "VPD page", &data, length.min(usize::from(allocation)))?;
        Ok(data)
    }

    /// Size of a disk: READ CAPACITY(16), and READ CAPACITY(10) where the target does not know that.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; [`ClientError::Reply`] for a block length of zero.
    pub async fn read_capacity(&self) -> Result<Capacity, ClientError> {
        const NAME: &str = "READ CAPACITY";
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[13]) = (0x9E, 0x10, 32);
        let reply = self.command(&cdb, Data::In(32)).await?;
        let unknown = reply.sense.as_ref().is_some_and(|sense| sense.key == SenseKey::IllegalRequest);
        let (last, length, provisioned) = if unknown {
            let data = self.good(NAME, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(8)).await?.data;
            at_least(NAME, "READ CAPACITY(10) data", &data, 8)?;
            (u64::from(be32(&data, 0)), be32(&data, 4), false)
        } else {
            let data = reply.good(NAME)?.data;
            at_least(NAME, "READ CAPACITY(16) data", &data, 12)?;
            (be64(&data, 0), be32(&data, 8), data.get(14).is_some_and(|flags| flags & 0x80 != 0))
        };
        if length == 0 {
            return Err(reply_error(NAME, "READ CAPACITY data", 8, "LOGICAL BLOCK LENGTH IN BYTES", 0));
        }
        Ok(Capacity { blocks: BlockCount(last.saturating_add(1)), block_length: BlockLength(length), provisioned })
    }

    /// READ(16). One command: `blocks` must not exceed the unit's MAXIMUM TRANSFER LENGTH.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; [`ClientError::Reply`] when GOOD came with fewer bytes.
    pub async fn read(&self, lba: Lba, blocks: u32, block_length: BlockLength) -> Result<Bytes, ClientError> {
        let length = transfer_bytes(blocks, block_length)?;
        let data = self.good("READ(16)", &cdb16(0x88, 0, lba, blocks), Data::In(length)).await?.data;
        at_least("READ(16)", "Data-In", &data, length as usize)?;
        Ok(data)
    }

    /// WRITE(16) of whole blocks.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; [`ClientError::Io`] (`InvalidInput`) when `data` is not whole blocks.
    pub async fn write(&self, lba: Lba, data: Bytes, block_length: BlockLength) -> Result<(), ClientError> {
        let blocks = data.len() as u64 / block_length.bytes();
        if blocks * block_length.bytes() != data.len() as u64 || blocks > u64::from(u32::MAX) {
            return Err(invalid_input(format!("{} bytes are not whole blocks of {}", data.len(), block_length.0)));
        }
        self.good("WRITE(16)", &cdb16(0x8A, 0, lba, blocks as u32), Data::Out(data)).await.map(drop)
    }

    /// SYNCHRONIZE CACHE(10) of the whole unit.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn synchronize_cache(&self) -> Result<(), ClientError> {
        self.good_long("SYNCHRONIZE CACHE(10)", &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None).await.map(drop)
    }

    /// UNMAP of one range.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn unmap(&self, lba: Lba, blocks: u32) -> Result<(), ClientError> {
        let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
        list.extend(lba.0.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
        self.good("UNMAP", &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Data::Out(list.into())).await.map(drop)
    }

    /// TEST UNIT READY until it ends GOOD, taking unit attentions on the way: what every fresh session has to do first.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]: the first status that is no unit attention, or the last of too many.
    pub async fn test_unit_ready(&self) -> Result<(), ClientError> {
        let mut taken = 0;
        loop {
            let reply = self.command(&[0; 6], Data::None).await?;
            let attention = reply.sense.as_ref().is_some_and(|sense| sense.key == SenseKey::UnitAttention);
            if !attention || taken == UNIT_ATTENTIONS_TAKEN {
                return reply.good("TEST UNIT READY").map(drop);
            }
            taken += 1;
        }
    }

    /// REPORT LUNS.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn report_luns(&self) -> Result<Vec<LunAddress>, ClientError> {
        const NAME: &str = "REPORT LUNS";
        let mut allocation = u32::from(FIRST_ALLOCATION);
        loop {
            let mut cdb = [0; 12];
            cdb[0] = 0xA0;
            cdb[6..10].copy_from_slice(&allocation.to_be_bytes());
            let data = self.good(NAME, &cdb, Data::In(allocation)).await?.data;
            at_least(NAME, "REPORT LUNS data", &data, 8)?;
            // LUNs are 14 bits here: no honest list is longer.
            let length = be32(&data, 0).min(0x4000 * 8) + 8;
            if length > allocation {
                allocation = length;
                continue;
            }
            let list = &data[8..(length as usize).min(data.len())];
            return Ok(list.as_chunks::<8>().0.iter().map(|address| LunAddress(*address)).collect());
        }
    }

    /// MODE SENSE(10) of one page, current values, with header and block descriptor.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn mode_sense(&self, page: u8, subpage: u8) -> Result<Bytes, ClientError> {
        let [high, low] = FIRST_ALLOCATION.to_be_bytes();
        let cdb = [0x5A, 0, page & 0x3F, subpage, 0, 0, 0, high, low, 0];
        Ok(self.good("MODE SENSE(10)", &cdb, Data::In(FIRST_ALLOCATION.into())).await?.data)
    }

    /// LOG SENSE of one page, cumulative values, with its four bytes of header.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn log_sense(&self, page: u8, subpage: u8) -> Result<Bytes, ClientError> {
        self.log_sense_from(page, subpage, 0).await
    }

    /// LOG SENSE that begins with the parameter of this code or the next one: long pages are read in pieces.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn log_sense_from(&self, page: u8, subpage: u8, parameter_code: u16) -> Result<Bytes, ClientError> {
        let [code_high, code_low] = parameter_code.to_be_bytes();
        let allocation = u16::MAX;
        let cdb = [0x4D, 0, 0x40 | (page & 0x3F), subpage, 0, code_high, code_low, 0xFF, 0xFF, 0];
        let data = self.good("LOG SENSE", &cdb, Data::In(allocation.into())).await?.data;
        at_least("LOG SENSE", "log page", &data, 4)?;
        if data[0] & 0x3F != page & 0x3F {
            return Err(reply_error("LOG SENSE", "log page", 0, "PAGE CODE", (data[0] & 0x3F).into()));
        }
        Ok(data)
    }

    /// REQUEST SENSE: what the unit says about itself now.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn request_sense(&self, descriptor_format: bool) -> Result<Bytes, ClientError> {
        Ok(self.good("REQUEST SENSE", &[0x03, descriptor_format.into(), 0, 0, 252, 0], Data::In(252)).await?.data)
    }

    /// True when the unit answers at all: the status that INQUIRY gives for an address without a unit is no error here.
    ///
    /// # Errors
    /// As [`Client::command`].
    pub async fn exists(&self) -> Result<bool, ClientError> {
        let reply = self.command(&[0x12, 0, 0, 0, 36, 0], Data::In(36)).await?;
        Ok(reply.status == Status::Good && reply.data.first().is_some_and(|first| first >> 5 == 0))
    }
}

/// A 16-byte CDB with LOGICAL BLOCK ADDRESS in bytes 2 to 9 and TRANSFER LENGTH in 10 to 13. SBC-4, "READ(16)" and its kin.
pub(crate) fn cdb16(opcode: u8, flags: u8, lba: Lba, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&lba.0.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// Expected Data Transfer Length is 32 bits wide: more cannot be asked for.
fn transfer_bytes(blocks: u32, block_length: BlockLength) -> Result<u32, ClientError> {
    blocks
        .checked_mul(block_length.0)
        .ok_or_else(|| invalid_input(format!("{blocks} blocks of {} bytes are more than one command can carry", block_length.0)))
}

pub(super) fn invalid_input(text: String) -> ClientError {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, text).into()
}

/// Refuses a reply that ends early.
pub(super) fn at_least(command: &'static str, structure: &'static str, data: &[u8], needed: usize) -> Result<(), ClientError> {
    if data.len() >= needed {
        return Ok(());
    }
    let available = data.len();
    Err(ClientError::Reply { command, error: WireError::new(structure, available, Problem::Truncated { needed, available }) })
}

pub(super) fn reply_error(
    command: &'static str,
    structure: &'static str,
    offset: usize,
    field: &'static str,
    value: u64,
) -> ClientError {
    ClientError::Reply { command, error: WireError::new(structure, offset, Problem::Value { field, value }) }
}

/// Big-endian number at an offset that the caller has checked.
pub(crate) fn be32(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"))
}

/// Big-endian number at an offset that the caller has checked.
pub(crate) fn be64(data: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(data[at..at + 8].try_into().expect("eight bytes"))
}
