//! A disk LUN as the agent uses it: small reads for the map, a few writes of metadata.
//!
//! [`LunSource`] is what the map reads through. Data is never read here for a backup nor written for a restore: that is what
//! EXTENDED COPY is for.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use bytes::Bytes;
use protocol::scsi::SenseKey;
use protocol::units::{BlockLength, ByteRange, Lba};
use sim::client::{Capacity, Client, ClientError, Data, LogicalUnit};
use tokio::runtime::Handle;

use super::exit::Stop;
use crate::map::extents::Extents;
use crate::map::source::{ReadAt, read_rounded};

/// Peripheral device type of a direct-access block device.
const DISK: u8 = 0x00;
/// Bytes of one READ or WRITE where the unit sets no lower limit.
const TRANSFER: u32 = 1 << 20;

/// A disk.
#[derive(Debug, Clone)]
pub struct Disk {
    unit: LogicalUnit,
    capacity: Capacity,
    /// Of one READ or WRITE.
    transfer_blocks: u32,
    /// Of one WRITE SAME.
    same_blocks: u64,
}

impl Disk {
    /// Makes sure that it is a disk, and learns its size.
    ///
    /// # Errors
    /// What the unit says, or that it is no disk.
    pub async fn open(client: &Client, lun: u16) -> anyhow::Result<Self> {
        let unit = client.lun(lun);
        let inquiry = unit.inquiry().await?;
        if inquiry.qualifier != 0 || inquiry.device_type != DISK {
            bail!(Stop::usage(format!("LUN {lun} is no disk (peripheral device type {:02x}h)", inquiry.device_type)));
        }
        unit.test_unit_ready().await.with_context(|| format!("the disk at LUN {lun} is not ready"))?;
        let capacity = unit.read_capacity().await?;
        let (transfer, same_blocks) = block_limits(&unit).await?;
        let transfer_blocks = (TRANSFER / capacity.block_length.0).clamp(1, transfer);
        Ok(Self { unit, capacity, transfer_blocks, same_blocks })
    }

    /// The logical unit.
    #[must_use]
    pub fn unit(&self) -> &LogicalUnit {
        &self.unit
    }

    /// Its size.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Bytes a block.
    #[must_use]
    pub fn block_length(&self) -> BlockLength {
        self.capacity.block_length
    }

    /// Reads whole blocks, in as many commands as it takes.
    ///
    /// # Errors
    /// What the unit says.
    pub async fn read_blocks(&self, lba: Lba, blocks: u64) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        let mut done = 0;
        while done < blocks {
            let now = (blocks - done).min(self.transfer_blocks.into()) as u32;
            all.extend_from_slice(&self.unit.read(Lba(lba.0 + done), now, self.block_length()).await?);
            done += u64::from(now);
        }
        Ok(all)
    }

    /// Writes whole blocks, in as many commands as it takes.
    ///
    /// # Errors
    /// What the unit says.
    pub async fn write_blocks(&self, lba: Lba, data: Bytes) -> Result<(), ClientError> {
        let block = self.block_length().bytes() as usize;
        let step = self.transfer_blocks as usize * block;
        for (n, start) in (0..data.len()).step_by(step).enumerate() {
            let piece = data.slice(start..(start + step).min(data.len()));
            self.unit.write(Lba(lba.0 + n as u64 * u64::from(self.transfer_blocks)), piece, self.block_length()).await?;
        }
        Ok(())
    }

    /// Writes any bytes; what lies around them in the first and last block stays. For a few bytes of metadata.
    ///
    /// # Errors
    /// What the unit says.
    pub async fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), ClientError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let block = self.block_length().bytes();
        let first = offset / block;
        let end = (offset + bytes.len() as u64).div_ceil(block);
        let mut around = self.read_blocks(Lba(first), end - first).await?;
        around[(offset - first * block) as usize..][..bytes.len()].copy_from_slice(bytes);
        self.write_blocks(Lba(first), around.into()).await
    }

    /// Makes blocks read as zeros by WRITE SAME(16), which may unmap them, so that a hole of any size costs one block of data each
    /// gibibyte.
    ///
    /// # Errors
    /// What the unit says. SBC-4, "WRITE SAME (16) command".
    pub async fn write_zeros(&self, mut lba: Lba, mut blocks: u64) -> Result<(), ClientError> {
        const UNMAP: u8 = 0x08;
        let block = self.block_length().bytes();
        let zeros = Bytes::from(vec![0; block as usize]);
        while blocks > 0 {
            let now = blocks.min(self.same_blocks).min(ZEROS_AT_ONCE / block);
            let mut cdb = [0; 16];
            (cdb[0], cdb[1]) = (0x93, if self.capacity.provisioned { UNMAP } else { 0 });
            cdb[2..10].copy_from_slice(&lba.0.to_be_bytes());
            cdb[10..14].copy_from_slice(&(now as u32).to_be_bytes());
            self.unit.good("WRITE SAME(16)", &cdb, Data::Out(zeros.clone())).await?;
            (lba, blocks) = (Lba(lba.0 + now), blocks - now);
        }
        Ok(())
    }

    /// The parts of a range that are mapped. `None` where the unit cannot tell.
    ///
    /// # Errors
    /// What the unit says, but for not knowing the command. SBC-4, "GET LBA STATUS (16) command".
    pub async fn mapped(&self, range: ByteRange) -> Result<Option<Extents>, ClientError> {
        let block = self.block_length().bytes();
        let end = range.end().div_ceil(block).min(self.capacity.blocks.0);
        let mut at = range.start / block;
        let mut mapped = Extents::new();
        while at < end {
            let mut cdb = [0; 16];
            (cdb[0], cdb[1]) = (0x9E, 0x12);
            cdb[2..10].copy_from_slice(&at.to_be_bytes());
            cdb[10..14].copy_from_slice(&STATUS_ALLOCATION.to_be_bytes());
            let reply = self.unit.command(&cdb, Data::In(STATUS_ALLOCATION)).await?;
            if reply.sense.as_ref().is_some_and(|sense| sense.key == SenseKey::IllegalRequest) {
                return Ok(None);
            }
            let data = reply.good("GET LBA STATUS(16)")?.data;
            let before = at;
            for descriptor in data.get(8..).unwrap_or_default().as_chunks::<16>().0 {
                let lba = u64::from_be_bytes(*descriptor.first_chunk().expect("16 bytes"));
                let blocks = u32::from_be_bytes([descriptor[8], descriptor[9], descriptor[10], descriptor[11]]);
                let behind = lba.saturating_add(blocks.into());
                // Descriptors ascend without gaps; anything else is not believed.
                if lba > at || behind <= at {
                    return Ok(None);
                }
                if descriptor[12] & 0x0F != DEALLOCATED {
                    mapped.push(ByteRange { start: at * block, len: (behind.min(end) - at) * block });
                }
                at = behind.min(end);
                if at == end {
                    break;
                }
            }
            if at == before {
                return Ok(None);
            }
        }
        Ok(Some(mapped))
    }
}

/// Bytes of one WRITE SAME: what no disk takes too long for.
const ZEROS_AT_ONCE: u64 = 1 << 30;
/// Room for some thousand LBA status descriptors.
const STATUS_ALLOCATION: u32 = 64 << 10;
/// PROVISIONING STATUS 1h. SBC-4, "LBA status descriptor".
const DEALLOCATED: u8 = 1;

/// MAXIMUM TRANSFER LENGTH and MAXIMUM WRITE SAME LENGTH of VPD page B0h, in blocks; as much as fits where there is no limit.
async fn block_limits(unit: &LogicalUnit) -> Result<(u32, u64), ClientError> {
    let page = match unit.vpd(0xB0).await {
        Ok(page) => page,
        Err(ClientError::Status { .. } | ClientError::Reply { .. }) => Bytes::new(),
        Err(error) => return Err(error),
    };
    let field = |range: std::ops::Range<usize>| {
        page.get(range).unwrap_or_default().iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte))
    };
    let unless_0 = |value: u64, none: u64| if value == 0 { none } else { value };
    let transfer = unless_0(field(8..12), u32::MAX.into()) as u32;
    Ok((transfer, unless_0(field(36..44), u64::MAX)))
}

/// A disk for the map, which is not async. To be used on a thread made by `spawn_blocking`.
#[derive(Debug)]
pub struct LunSource {
    disk: Disk,
    runtime: Handle,
    carried: AtomicU64,
}

impl LunSource {
    /// Of a session that lives in the current runtime.
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        Self { disk, runtime: Handle::current(), carried: AtomicU64::new(0) }
    }
}

impl ReadAt for LunSource {
    fn size(&self) -> u64 {
        self.disk.capacity.bytes()
    }

    fn block_length(&self) -> u32 {
        self.disk.block_length().0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let block = self.block_length();
        read_rounded(block, offset, buffer, |offset, buffer| {
            let (first, blocks) = (offset / u64::from(block), buffer.len() as u64 / u64::from(block));
            if first.checked_add(blocks).is_none_or(|end| end > self.disk.capacity.blocks.0) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let data = self.runtime.block_on(self.disk.read_blocks(Lba(first), blocks)).map_err(io::Error::other)?;
            buffer.copy_from_slice(&data);
            self.carried.fetch_add(data.len() as u64, Ordering::Relaxed);
            Ok(())
        })
    }

    fn bytes_read(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    fn allocated(&self, range: ByteRange) -> io::Result<Extents> {
        let mapped = self.runtime.block_on(self.disk.mapped(range)).map_err(io::Error::other)?;
        Ok(mapped.map_or_else(|| range.into(), |mapped| mapped.intersect(&range.into())))
    }
}
