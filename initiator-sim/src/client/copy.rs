//! EXTENDED COPY and RECEIVE COPY RESULTS as an application client sends them. SPC-4.
//!
//! Parameter lists are bytes here; `protocol::xcopy` builds and reads them.

use bytes::Bytes;

use super::unit::{at_least, be32};
use super::{ClientError, Data, LogicalUnit, Reply};

/// Operation code of EXTENDED COPY and its kin.
pub const OPERATION_CODE_EXTENDED_COPY: u8 = 0x83;

/// Operation code of RECEIVE COPY RESULTS and its kin.
const OPERATION_CODE_RECEIVE_COPY: u8 = 0x84;

/// Room for RECEIVE COPY replies; OPERATING PARAMETERS is the longest of fixed form.
const ALLOCATION: u32 = 4096;

/// A designation descriptor of VPD page 83h. SPC-4, "Designation descriptor format".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Designator {
    /// CODE SET: 1 binary, 2 ASCII, 3 UTF-8.
    pub code_set: u8,
    /// ASSOCIATION: 0 the logical unit, 1 the target port, 2 the target device.
    pub association: u8,
    /// DESIGNATOR TYPE: 1 T10 vendor, 2 EUI-64, 3 NAA.
    pub designator_type: u8,
    /// DESIGNATOR.
    pub designator: Bytes,
    /// Header and designator as they came.
    pub raw: Bytes,
}

impl LogicalUnit {
    /// All designators of the device identification page.
    ///
    /// # Errors
    /// As [`LogicalUnit::vpd`]; a descriptor that reaches over the page's end is [`ClientError::Reply`].
    pub async fn designators(&self) -> Result<Vec<Designator>, ClientError> {
        let page = self.vpd(0x83).await?;
        let mut found = Vec::new();
        let mut rest = page.slice(4..);
        while !rest.is_empty() {
            at_least("INQUIRY", "designation descriptor", &rest, 4)?;
            let length = 4 + usize::from(rest[3]);
            at_least("INQUIRY", "designation descriptor", &rest, length)?;
            let raw = rest.split_to(length);
            found.push(Designator {
                code_set: raw[0] & 0x0F,
                association: raw[1] >> 4 & 0x03,
                designator_type: raw[1] & 0x0F,
                designator: raw.slice(4..),
                raw,
            });
        }
        Ok(found)
    }

    /// The designator that names the unit best in a CSCD descriptor E4h: of the logical unit, at most 20 bytes,
    /// NAA before EUI-64 before T10 vendor. `None` where page 83h has none of them.
    ///
    /// # Errors
    /// As [`LogicalUnit::designators`].
    pub async fn designator(&self) -> Result<Option<Designator>, ClientError> {
        let fit = self.designators().await?.into_iter().filter(|one| one.association == 0 && one.designator.len() <= 20);
        Ok(fit.filter(|one| matches!(one.designator_type, 1..=3)).max_by_key(|one| one.designator_type))
    }

    /// EXTENDED COPY(LID1) with this parameter list; waits for the end of the copy.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]: sense key COPY ABORTED with the segment's number in COMMAND-SPECIFIC INFORMATION
    /// when a segment failed.
    pub async fn extended_copy(&self, list: Bytes) -> Result<(), ClientError> {
        self.extended_copy_reply(list).await?.good("EXTENDED COPY(LID1)").map(drop)
    }

    /// The same with the reply as it came.
    ///
    /// # Errors
    /// As [`super::Client::command`].
    pub async fn extended_copy_reply(&self, list: Bytes) -> Result<Reply, ClientError> {
        let mut cdb = [0; 16];
        cdb[0] = OPERATION_CODE_EXTENDED_COPY;
        cdb[10..14].copy_from_slice(&(list.len() as u32).to_be_bytes());
        self.long(&cdb, if list.is_empty() { Data::None } else { Data::Out(list) }).await
    }

    /// RECEIVE COPY OPERATING PARAMETERS.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn receive_copy_operating_parameters(&self) -> Result<Bytes, ClientError> {
        self.receive_copy("RECEIVE COPY OPERATING PARAMETERS", 0x03, 0, ALLOCATION).await
    }

    /// RECEIVE COPY STATUS(LID1).
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn receive_copy_status(&self, list_identifier: u8) -> Result<Bytes, ClientError> {
        self.receive_copy("RECEIVE COPY STATUS(LID1)", 0x00, list_identifier, ALLOCATION).await
    }

    /// RECEIVE COPY DATA(LID1): what segments of the hold-a-copy types kept.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn receive_copy_data(&self, list_identifier: u8, allocation: u32) -> Result<Bytes, ClientError> {
        self.receive_copy("RECEIVE COPY DATA(LID1)", 0x01, list_identifier, allocation).await
    }

    /// RECEIVE COPY FAILURE DETAILS(LID1).
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn receive_copy_failure_details(&self, list_identifier: u8) -> Result<Bytes, ClientError> {
        self.receive_copy("RECEIVE COPY FAILURE DETAILS(LID1)", 0x04, list_identifier, ALLOCATION).await
    }

    /// Any RECEIVE COPY with the reply as it came.
    ///
    /// # Errors
    /// As [`super::Client::command`].
    pub async fn receive_copy_reply(
        &self,
        service_action: u8,
        list_identifier: u8,
        allocation: u32,
    ) -> Result<Reply, ClientError> {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[2]) = (OPERATION_CODE_RECEIVE_COPY, service_action & 0x1F, list_identifier);
        cdb[10..14].copy_from_slice(&allocation.to_be_bytes());
        self.command(&cdb, if allocation == 0 { Data::None } else { Data::In(allocation) }).await
    }

    async fn receive_copy(&self, name: &'static str, action: u8, list: u8, allocation: u32) -> Result<Bytes, ClientError> {
        let data = self.receive_copy_reply(action, list, allocation).await?.good(name)?.data;
        at_least(name, "RECEIVE COPY parameter data", &data, 4)?;
        let length = (be32(&data, 0) as usize).saturating_add(4).min(data.len());
        Ok(data.slice(..length))
    }
}
