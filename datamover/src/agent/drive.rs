//! A tape as the agent sees it: where it stands, which sets are on it, and reading their small parts.
//!
//! Reads headers, tables, catalogs and trailers, never the data of a set (but for a restore to a local path, record by record).
//! Winds the tape; [`Drive::inspect`] winds it back to where it stood.

use std::time::Duration;

use anyhow::{Context, bail};
use protocol::cartridge::sums::{FileSums, LOG_PAGE, parse_log_page};
use protocol::scsi::SenseKey;
use serde::Serialize;
use sim::client::{Client, ClientError, Data, LogicalUnit, SpaceCode, TapePosition, TapeRead};

use super::exit::Stop;
use super::layout::{LayoutError, MAX_JSON_RECORD, SetBytes, SetTables, Trailer, VolumeHeader};

/// Peripheral device type of a sequential-access device.
const TAPE: u8 = 0x01;
const TEST_UNIT_READY: [u8; 6] = [0; 6];
/// Between two looks at how far the drive is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest tape file of tables or catalog that is read into memory.
const MAX_METADATA: u64 = 4 << 30;

/// A tape drive with a cartridge.
#[derive(Debug, Clone)]
pub struct Drive {
    unit: LogicalUnit,
}

/// What a tape holds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Contents {
    /// In the order of the tape.
    pub sets: Vec<FoundSet>,
    /// Tape files that are no part of a set: of other programs, or the rest of a set that was cut off.
    pub foreign_files: u64,
    /// Headers of ours that cannot be used, and why.
    pub unusable: Vec<String>,
    /// Logical object number of the end of data: 0 on an empty tape.
    pub end_object: u64,
    /// The last object is a record, so that what is appended wants a filemark first.
    pub open_end: bool,
}

impl Contents {
    /// Nothing at all is written.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.end_object == 0
    }

    fn lose(&mut self, object: u64, why: &dyn std::error::Error) {
        self.unusable.push(format!("object {object}: {why}"));
        self.foreign_files += 1;
    }

    /// The set that was asked for: by the beginning of its id, or the last whole one.
    ///
    /// # Errors
    /// When there is none, or more than one begins like that.
    pub fn set(&self, typed: Option<&str>) -> anyhow::Result<&FoundSet> {
        let Some(typed) = typed else {
            let last = self.sets.iter().rev().find(|set| set.trailer.is_some());
            return last.with_context(|| {
                let unusable = self.unusable.first().map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!("there is no whole set on this tape{unusable}; `offhost list` shows what there is")
            });
        };
        let mut found = self.sets.iter().filter(|set| set.header.set.matches(typed));
        let first = found.next().with_context(|| format!("no set {typed:?} on this tape; `offhost list` shows what there is"))?;
        if found.next().is_some() {
            bail!(Stop::usage(format!("more than one set begins with {typed:?}: give more of its id")));
        }
        Ok(first)
    }
}

/// A set on the tape.
#[derive(Debug, Clone, Serialize)]
pub struct FoundSet {
    /// Its first record.
    pub header: VolumeHeader,
    /// Its last record; `None` when the set is incomplete.
    pub trailer: Option<Trailer>,
    #[serde(skip)]
    header_record: Vec<u8>,
    #[serde(skip)]
    trailer_record: Vec<u8>,
}

impl Drive {
    /// Makes sure that it is a tape and ready.
    ///
    /// # Errors
    /// What the drive says, or that it is none.
    pub async fn open(client: &Client, lun: u16) -> anyhow::Result<Self> {
        let unit = client.lun(lun);
        let inquiry = unit.inquiry().await?;
        if inquiry.qualifier != 0 || inquiry.device_type != TAPE {
            bail!(Stop::usage(format!("LUN {lun} is no tape (peripheral device type {:02x}h)", inquiry.device_type)));
        }
        unit.test_unit_ready().await.with_context(|| format!("the tape at LUN {lun} is not ready"))?;
        Ok(Self { unit })
    }

    /// The logical unit.
    #[must_use]
    pub fn unit(&self) -> &LogicalUnit {
        &self.unit
    }

    /// Where it stands.
    ///
    /// # Errors
    /// What the drive says.
    pub async fn position(&self) -> Result<TapePosition, ClientError> {
        self.unit.read_position().await
    }

    /// Winds to a logical object.
    ///
    /// # Errors
    /// What the drive says: BLANK CHECK behind the end of data.
    pub async fn locate(&self, object: u64) -> Result<(), ClientError> {
        self.unit.locate(object).await
    }

    /// Lets the drive read all that is on the tape and hold it against its sums, and take those that are still to come. `percent` is told
    /// how far it is. The tape then stands at the end of its data, or behind what could not be read.
    ///
    /// # Errors
    /// What the drive says: MEDIUM ERROR at the first block that is damaged.
    pub async fn verify(&self, percent: impl Fn(u32)) -> Result<(), ClientError> {
        // IMMED, since nobody waits for hours for a status; VTE: to the end of data. SSC-4, "VERIFY(6) command".
        const VERIFY: [u8; 6] = [0x13, 0x24, 0, 0, 0, 0];
        self.unit.rewind().await?;
        self.unit.good("VERIFY(6)", &VERIFY, Data::None).await?;
        loop {
            // What goes wrong behind the status is told by the first command that finds the drive ready: a deferred error.
            let ended = self.unit.good("VERIFY(6)", &TEST_UNIT_READY, Data::None).await;
            match ended.as_ref().err().and_then(ClientError::sense) {
                Some(sense) if sense.key == SenseKey::NotReady && sense.progress.is_some() => {
                    percent((u32::from(sense.progress.unwrap_or(0)) * 100) >> 16);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                _ => return ended.map(drop),
            }
        }
    }

    /// Finds out what the tape holds, and winds it back to where it stood.
    ///
    /// # Errors
    /// What the drive says.
    pub async fn inspect(&self) -> anyhow::Result<Contents> {
        let stood = self.position().await?;
        let contents = self.scan().await.context("reading what is on the tape")?;
        self.locate(stood.object).await?;
        Ok(contents)
    }

    /// Goes from tape file to tape file; over the data of a set it is enough to wind.
    async fn scan(&self) -> anyhow::Result<Contents> {
        let mut contents = Contents::default();
        self.locate(0).await?;
        let mut object = 0;
        // The tape files behind the header of an incomplete set are its rest, not somebody else's.
        let mut inside_incomplete = false;
        loop {
            match self.unit.read_record(MAX_JSON_RECORD as u32).await {
                // One record that is lost costs its own set and not the others.
                Err(error) if is_medium_error(&error) => contents.lose(object, &error),
                Err(error) => return Err(error).with_context(|| format!("object {object}")),
                Ok(TapeRead::EndOfData) => break,
                Ok(TapeRead::Filemark) => {
                    object += 1;
                    continue;
                }
                Ok(TapeRead::Longer { .. }) => contents.foreign_files += u64::from(!inside_incomplete),
                Ok(TapeRead::Record(record)) => match VolumeHeader::from_record(&record, object) {
                    Ok(header) => {
                        let found = match self.trailer_of(&header).await {
                            Err(error) if error.downcast_ref().is_some_and(is_medium_error) => {
                                contents.unusable.push(format!("set {}: its trailer: {error}", header.set.short()));
                                None
                            }
                            found => found?,
                        };
                        let (trailer, trailer_record) = found.unzip();
                        inside_incomplete = trailer.is_none();
                        // An incomplete set may be followed by a whole one: what is behind its header is looked through.
                        self.locate(trailer.as_ref().map_or(object + 1, |trailer| trailer.at_object)).await?;
                        let (header_record, trailer_record) = (record.to_vec(), trailer_record.unwrap_or_default());
                        contents.sets.push(FoundSet { header, trailer, header_record, trailer_record });
                    }
                    Err(LayoutError::Foreign { .. }) => contents.foreign_files += u64::from(!inside_incomplete),
                    Err(error) => contents.lose(object, &error),
                },
            }
            if !self.next_file().await? {
                break;
            }
            object = self.position().await?.object;
        }
        self.unit.space(SpaceCode::EndOfData, 0).await?;
        contents.end_object = self.position().await?.object;
        if contents.end_object > 0 {
            self.locate(contents.end_object - 1).await?;
            contents.open_end = self.unit.read_record(1).await? != TapeRead::Filemark;
        }
        Ok(contents)
    }

    /// To behind the next filemark; false where the data ends first.
    async fn next_file(&self) -> Result<bool, ClientError> {
        match self.unit.space(SpaceCode::Filemarks, 1).await {
            Ok(()) => Ok(true),
            Err(error) if is_blank_check(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The trailer is the last record of the tape file that begins at [`VolumeHeader::catalog_object`].
    async fn trailer_of(&self, header: &VolumeHeader) -> anyhow::Result<Option<(Trailer, Vec<u8>)>> {
        match self.locate(header.catalog_object()).await {
            Ok(()) => {}
            Err(error) if is_blank_check(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if !self.next_file().await? {
            return Ok(None);
        }
        let Some(object) = self.position().await?.object.checked_sub(2) else { return Ok(None) };
        self.locate(object).await?;
        let TapeRead::Record(record) = self.unit.read_record(MAX_JSON_RECORD as u32).await? else { return Ok(None) };
        let trailer = Trailer::from_record(&record, object).ok().filter(|trailer| trailer.set == header.set);
        Ok(trailer.map(|trailer| (trailer, record.to_vec())))
    }

    /// Reads the metadata of a whole set and holds it against the sums in its trailer.
    ///
    /// # Errors
    /// [`LayoutError`] for what is damaged or contradicts itself; what the drive says.
    pub async fn tables(&self, set: &FoundSet) -> anyhow::Result<(SetBytes, SetTables)> {
        let header = &set.header;
        let trailer = set.trailer.as_ref().ok_or_else(|| {
            Stop::incomplete(format!("set {} has no trailer: its backup did not come to an end", header.set.short()))
        })?;
        let bytes = SetBytes {
            header: set.header_record.clone(),
            tables: self.read_records(header.tables.first_object, header.tables.end_object, header.record_size).await?,
            catalog: self.read_records(header.catalog_object(), trailer.at_object, header.record_size).await?,
            trailer: set.trailer_record.clone(),
        };
        let tables = bytes.tables(header, trailer)?;
        Ok((bytes, tables))
    }

    /// All records from one object up to another, one behind the other.
    async fn read_records(&self, from: u64, until: u64, record_size: u32) -> anyhow::Result<Vec<u8>> {
        let bytes = until.saturating_sub(from).saturating_mul(record_size.into());
        if bytes > MAX_METADATA {
            bail!("the metadata of this set has {bytes} bytes, more than this program reads into memory");
        }
        self.locate(from).await?;
        let mut all = Vec::new();
        for object in from..until {
            all.extend_from_slice(&self.record(object, record_size).await?);
        }
        Ok(all)
    }

    /// The record at the tape's position, which is `object`.
    ///
    /// # Errors
    /// What the drive says, or that something else than a record of at most `record_size` bytes is there.
    pub async fn record(&self, object: u64, record_size: u32) -> anyhow::Result<bytes::Bytes> {
        match self.unit.read_record(record_size).await.with_context(|| format!("reading object {object} of the tape"))? {
            TapeRead::Record(record) => Ok(record),
            TapeRead::Longer { length, .. } => {
                bail!("object {object} of the tape is a record of {length} bytes, not of {record_size}")
            }
            TapeRead::Filemark => bail!("object {object} of the tape is a filemark where a record must be"),
            TapeRead::EndOfData => bail!("the data of the tape ends at object {object}, inside a set"),
        }
    }

    /// The drive's own sums of the tape files from number `file` on; `None` where it has none.
    ///
    /// # Errors
    /// What the drive says, but for not knowing the page.
    pub async fn sums(&self, file: u64) -> anyhow::Result<Option<Vec<FileSums>>> {
        let Ok(file) = u16::try_from(file) else { return Ok(None) };
        match self.unit.log_sense_from(LOG_PAGE, 0, file).await {
            Ok(page) => Ok(Some(parse_log_page(&page).context("the tape's sums")?)),
            Err(error) if error.sense().is_some_and(|sense| sense.key == SenseKey::IllegalRequest) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_medium_error(error: &ClientError) -> bool {
    error.sense().is_some_and(|sense| sense.key == SenseKey::MediumError)
}

fn is_blank_check(error: &ClientError) -> bool {
    error.sense().is_some_and(|sense| sense.key == SenseKey::BlankCheck)
}
