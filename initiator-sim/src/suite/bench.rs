//! The devices under test, and fresh sessions with them.

use std::time::Duration;

use bytes::Bytes;
use protocol::scsi::SenseKey;
use protocol::units::{BlockLength, Lba};

use super::check::{Outcome, good, skip};
use super::raw::RawConnection;
use super::{CASE_LIMIT, Needs, Stop};
use crate::client::{Capacity, Client, ClientError, Data, LogicalUnit, Options, Reply, TapeRead};
use crate::url::Url;

/// PERIPHERAL DEVICE TYPE of a direct access block device.
const DISK: u8 = 0x00;
/// PERIPHERAL DEVICE TYPE of a sequential access device.
const TAPE: u8 = 0x01;
/// PERIPHERAL DEVICE TYPE of a media changer device.
const CHANGER: u8 = 0x08;

/// What the user named.
#[derive(Debug, Clone)]
pub struct Devices {
    /// The address under test: a disk, a tape or anything else.
    pub unit: Url,
    /// A tape beside it.
    pub tape: Option<Url>,
    /// A media changer beside them.
    pub changer: Option<Url>,
    /// The data of all of them may be destroyed.
    pub destroy: bool,
    /// How sessions are made.
    pub options: Options,
}

/// The devices as they were found.
#[derive(Debug)]
pub struct Bench {
    devices: Devices,
    disk: Option<Url>,
    tape: Option<Url>,
    changer: Option<Url>,
    third_party_copy: bool,
}

/// A disk with its size, through a session of its own.
#[derive(Debug, Clone)]
pub struct Disk {
    pub(super) unit: LogicalUnit,
    pub(super) capacity: Capacity,
}

impl Bench {
    /// Looks what kind of device each address is.
    ///
    /// # Errors
    /// As [`Client::connect`] and [`LogicalUnit::inquiry`].
    pub async fn probe(devices: Devices) -> Result<Self, ClientError> {
        let (mut disk, mut tape, mut changer, mut third_party_copy) = (None, None, None, false);
        for url in [Some(&devices.unit), devices.tape.as_ref(), devices.changer.as_ref()].into_iter().flatten() {
            let client = Client::connect(url, devices.options.clone()).await?;
            let inquiry = client.unit().inquiry().await?;
            match inquiry.device_type {
                _ if inquiry.qualifier != 0 => {}
                DISK => {
                    third_party_copy |= inquiry.third_party_copy;
                    disk = disk.or_else(|| Some(url.clone()));
                }
                TAPE => tape = Some(url.clone()),
                CHANGER => changer = Some(url.clone()),
                _ => {}
            }
            client.logout().await.ok();
        }
        Ok(Self { devices, disk, tape, changer, third_party_copy })
    }

    /// What was named.
    #[must_use]
    pub const fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Says what is missing for a case.
    pub(super) fn has(&self, needs: Needs) -> Result<(), String> {
        use Needs as N;
        let wants_disk = matches!(needs, N::Disk | N::ScratchDisk | N::CopyDisk | N::CopyDiskAndTape);
        let wants_tape = matches!(needs, N::ScratchTape | N::CopyDiskAndTape | N::ChangerAndDrive);
        let wants_changer = matches!(needs, N::Changer | N::ScratchChanger | N::ChangerAndDrive);
        let wants_copy = matches!(needs, N::CopyDisk | N::CopyDiskAndTape);
        let destroys = !matches!(needs, N::Target | N::Unit | N::Disk | N::Changer);
        let together = self.disk.as_ref().zip(self.tape.as_ref()).is_some_and(|(disk, tape)| disk.same_target(tape));
        let missing = if wants_disk && self.disk.is_none() {
            "the address is no disk"
        } else if wants_changer && self.changer.is_none() {
            "no media changer is named (--changer URL)"
        } else if wants_tape && self.tape.is_none() {
            "no tape is named (--tape URL)"
        } else if wants_copy && !self.third_party_copy {
            "the disk does not know EXTENDED COPY (3PC=0)"
        } else if wants_tape && wants_disk && !together {
            "disk and tape are of different targets"
        } else if destroys && !self.devices.destroy {
            "it would destroy data (--destroy)"
        } else {
            return Ok(());
        };
        Err(missing.to_owned())
    }

    /// A session to the address under test, unit attentions taken.
    pub(super) async fn unit(&self) -> Outcome<LogicalUnit> {
        self.session(&self.devices.unit).await
    }

    /// The disk through a new session.
    pub(super) async fn disk(&self) -> Outcome<Disk> {
        let unit = self.session(self.disk.as_ref().expect("checked by `has`")).await?;
        let capacity = unit.read_capacity().await?;
        Ok(Disk { unit, capacity })
    }

    /// The tape through a new session, at its beginning, in variable block transfer.
    pub(super) async fn tape(&self) -> Outcome<LogicalUnit> {
        let unit = self.drive().await?;
        self.furnish(&unit).await?;
        unit.set_tape_block_length(0).await?;
        unit.rewind().await?;
        Ok(unit)
    }

    /// The media changer through a new session.
    pub(super) async fn changer(&self) -> Outcome<LogicalUnit> {
        self.session(self.changer.as_ref().expect("checked by `has`")).await
    }

    /// The tape through a new session, whatever state it is in.
    pub(super) async fn drive(&self) -> Outcome<LogicalUnit> {
        let command_timeout = self.devices.options.command_timeout.max(TAPE_TIMEOUT);
        let options = Options { command_timeout, ..self.devices.options.clone() };
        session(self.tape.as_ref().expect("checked by `has`"), options).await
    }

    /// Has the changer put a cartridge into the tape, when it is an empty drive of one. Elsewhere an operator must have done so.
    async fn furnish(&self, tape: &LogicalUnit) -> Outcome {
        let empty = matches!(
            tape.test_unit_ready().await,
            Err(ClientError::Status { sense: Some(sense), .. }) if sense.key == SenseKey::NotReady && sense.code.0 == MEDIUM_NOT_PRESENT
        );
        if !empty || self.changer.is_none() {
            return Ok(());
        }
        let changer = self.changer().await?;
        let Some(drive) = super::smc::drive_element(&changer, tape).await? else { return Ok(()) };
        if let Some(source) = super::smc::full_slot(&changer).await? {
            changer.move_medium(source, drive).await?;
            settle(tape).await?;
        }
        Ok(())
    }

    /// The disk and the tape through one session.
    pub(super) async fn disk_and_tape(&self) -> Outcome<(Disk, LogicalUnit)> {
        let disk = self.disk().await?;
        let tape = disk.unit.client().lun(self.tape.as_ref().expect("checked by `has`").lun);
        settle(&tape).await?;
        self.furnish(&tape).await?;
        tape.set_tape_block_length(0).await?;
        tape.rewind().await?;
        Ok((disk, tape))
    }

    /// A connection on which the case itself speaks iSCSI, before login.
    pub(super) async fn raw(&self) -> Outcome<RawConnection> {
        RawConnection::open(&self.devices.unit.portal).await
    }

    async fn session(&self, url: &Url) -> Outcome<LogicalUnit> {
        session(url, self.devices.options.clone()).await
    }
}

/// Time for a command of a tape: any that writes may come to a sync point, and waits there for all that the host has to write. It ends a
/// moment before its case, so that it is told which one it was.
const TAPE_TIMEOUT: Duration = CASE_LIMIT.saturating_sub(Duration::from_secs(10));

async fn session(url: &Url, options: Options) -> Outcome<LogicalUnit> {
    let unit = Client::connect(url, options).await?.unit();
    settle(&unit).await?;
    Ok(unit)
}

/// ADDITIONAL SENSE CODE of a drive without a medium.
const MEDIUM_NOT_PRESENT: u8 = 0x3A;

/// Takes unit attentions; a unit that is not ready is the case's own matter.
async fn settle(unit: &LogicalUnit) -> Outcome {
    match unit.test_unit_ready().await {
        Err(ClientError::Status { .. }) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Disk {
    /// Bytes in a block.
    pub(super) fn block(&self) -> u32 {
        self.capacity.block_length.0
    }

    /// The block length as commands want it.
    pub(super) fn length(&self) -> BlockLength {
        self.capacity.block_length
    }

    /// LBA of the last block.
    pub(super) fn last(&self) -> u64 {
        self.capacity.blocks.0 - 1
    }

    /// Skips the case on a disk that is smaller.
    pub(super) fn at_least(&self, blocks: u64) -> Outcome {
        if self.capacity.blocks.0 < blocks { skip(format!("the disk has fewer than {blocks} blocks")) } else { Ok(()) }
    }

    /// Any command.
    pub(super) async fn command(&self, cdb: &[u8], data: Data) -> Outcome<Reply> {
        Ok(self.unit.command(cdb, data).await?)
    }

    /// Writes through WRITE(16), so that another command can be judged by what is there.
    pub(super) async fn put(&self, lba: u64, data: &Bytes) -> Outcome {
        Ok(self.unit.write(Lba(lba), data.clone(), self.length()).await?)
    }

    /// Reads through READ(16).
    pub(super) async fn get(&self, lba: u64, blocks: u32) -> Outcome<Bytes> {
        Ok(self.unit.read(Lba(lba), blocks, self.length()).await?)
    }

    /// Bytes for so many blocks that depend on `seed` and differ from block to block.
    pub(super) fn pattern(&self, seed: u8, blocks: u32) -> Bytes {
        pattern(seed, (blocks * self.block()) as usize)
    }
}

/// Bytes that depend on seed and place, so that a shift or a swap shows.
pub(super) fn pattern(seed: u8, length: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ u64::from(seed).wrapping_mul(0xD129_0D3A_3A3A_3A3B);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // splitmix64: cheap, and no two places are alike.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend((mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Writes records and leaves the tape behind the last; the rest of the tape is gone.
pub(super) async fn write_records(tape: &LogicalUnit, records: &[Bytes]) -> Outcome {
    for record in records {
        tape.write_record(record.clone()).await?;
    }
    Ok(())
}

/// Fails unless the next record is this one.
pub(super) async fn expect_record(tape: &LogicalUnit, what: &str, record: &[u8]) -> Outcome {
    match tape.read_record(record.len() as u32).await? {
        TapeRead::Record(got) => super::check::equal_bytes(what, &got, record),
        other => {
            super::check::fail(format!("{what}: expected a record of {} bytes, got {}", record.len(), tape_read_text(&other)))
        }
    }
}

/// A read's outcome without its bytes.
pub(super) fn tape_read_text(read: &TapeRead) -> String {
    match read {
        TapeRead::Record(data) => format!("a record of {} bytes", data.len()),
        TapeRead::Longer { length, .. } => format!("a record of {length} bytes"),
        TapeRead::Filemark => "a filemark".into(),
        TapeRead::EndOfData => "the end of data".into(),
    }
}

/// True when a standard INQUIRY or a command says that a field is not known: the case does not apply.
pub(super) fn is_illegal_request(reply: &Reply) -> bool {
    reply.sense.as_ref().is_some_and(|sense| sense.key == SenseKey::IllegalRequest)
}

/// A VPD page, or the case is skipped where the target does not have it.
pub(super) async fn vpd_or_skip(unit: &LogicalUnit, page: u8) -> Outcome<Bytes> {
    match unit.vpd(page).await {
        Err(ClientError::Status { sense: Some(sense), .. }) if sense.key == SenseKey::IllegalRequest => {
            skip(format!("no VPD page {page:02X}h"))
        }
        other => Ok(other?),
    }
}

/// A command that must end GOOD; gives its data.
pub(super) async fn run_good(unit: &LogicalUnit, what: &str, cdb: &[u8], data: Data) -> Outcome<Bytes> {
    good(what, unit.command(cdb, data).await.map_err(Stop::from)?)
}
