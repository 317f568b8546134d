//! EXTENDED COPY and RECEIVE COPY RESULTS as an application client sends them. SPC-4.
//!
//! Parameter lists are bytes here; `protocol::xcopy` builds and reads them.

use bytes::Bytes;
use protocol::scsi::designator::{Association, Designator};
use protocol::xcopy::Designator as CscdDesignator;

use super::unit::{at_least, be32};
use super::{ClientError, Data, LogicalUnit, Reply};

/// Operation code of EXTENDED COPY and its kin.
pub const OPERATION_CODE_EXTENDED_COPY: u8 = 0x83;

/// Operation code of RECEIVE COPY RESULTS and its kin.
const OPERATION_CODE_RECEIVE_COPY: u8 = 0x84;

/// Room for RECEIVE COPY replies; OPERATING PARAMETERS is the longest of fixed form.
const ALLOCATION: u32 = 4096;

impl LogicalUnit {
    /// All designators of the device identification page.
    ///
    /// # Errors
    /// As [`LogicalUnit::vpd`].
    pub async fn designators(&self) -> Result<Vec<Designator>, ClientError> {
        Ok(Designator::list(&self.vpd(0x83).await?[4..]))
    }

    /// The designator that names the unit in a CSCD descriptor E4h: of the logical unit, at most 20 bytes,
    /// NAA before EUI-64 before T10 vendor.
    ///
    /// # Errors
    /// As [`LogicalUnit::designators`]; [`ClientError::NoDesignator`] where page 83h has none of them.
    pub async fn cscd_designator(&self) -> Result<CscdDesignator, ClientError> {
        let all = self.designators().await?;
        let fit = all.iter().filter(|one| one.association == Association::LogicalUnit && (1..=3).contains(&(one.kind as u8)));
        let fit = fit.filter_map(|one| {
            let designator = CscdDesignator::new(one.code_set as u8, one.association as u8, one.kind as u8, &one.bytes)?;
            Some((one.kind as u8, designator))
        });
        // Of several of one kind the first: a stable choice.
        let best = fit.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, designator)| designator).ok_or(ClientError::NoDesignator { lun: self.number() })
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
        self.third_party_copy_out(0x00, list).await
    }

    /// THIRD-PARTY COPY OUT of any service action with a parameter list: EXTENDED COPY(LID4) is 01h.
    ///
    /// # Errors
    /// As [`super::Client::command`].
    pub async fn third_party_copy_out(&self, service_action: u8, list: Bytes) -> Result<Reply, ClientError> {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (OPERATION_CODE_EXTENDED_COPY, service_action & 0x1F);
        cdb[10..14].copy_from_slice(&(list.len() as u32).to_be_bytes());
        self.long(&cdb, if list.is_empty() { Data::None } else { Data::Out(list) }).await
    }

    /// POPULATE TOKEN (10h) or WRITE USING TOKEN (11h): the list identifier is in the CDB.
    ///
    /// # Errors
    /// As [`super::Client::command`].
    pub async fn token_command(&self, service_action: u8, list_identifier: u32, list: Bytes) -> Result<Reply, ClientError> {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (OPERATION_CODE_EXTENDED_COPY, service_action & 0x1F);
        cdb[6..10].copy_from_slice(&list_identifier.to_be_bytes());
        cdb[10..14].copy_from_slice(&(list.len() as u32).to_be_bytes());
        self.long(&cdb, if list.is_empty() { Data::None } else { Data::Out(list) }).await
    }

    /// COPY OPERATION ABORT: waits until nothing of the copy moves any more.
    ///
    /// # Errors
    /// As [`super::Client::command`].
    pub async fn copy_operation_abort(&self, list_identifier: u32) -> Result<Reply, ClientError> {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (OPERATION_CODE_EXTENDED_COPY, 0x1C);
        cdb[2..6].copy_from_slice(&list_identifier.to_be_bytes());
        self.long(&cdb, Data::None).await
    }

    /// A RECEIVE COPY command with a list identifier of 32 bits: STATUS(LID4) is 05h, DATA(LID4) 06h, ROD TOKEN INFORMATION 07h.
    ///
    /// # Errors
    /// As [`super::Client::command`].
    pub async fn receive_copy_lid4_reply(&self, action: u8, list_identifier: u32, allocation: u32) -> Result<Reply, ClientError> {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (OPERATION_CODE_RECEIVE_COPY, action & 0x1F);
        cdb[2..6].copy_from_slice(&list_identifier.to_be_bytes());
        cdb[10..14].copy_from_slice(&allocation.to_be_bytes());
        self.command(&cdb, if allocation == 0 { Data::None } else { Data::In(allocation) }).await
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
