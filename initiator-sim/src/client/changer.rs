//! What a media changer knows. SMC-3.

use protocol::scsi::smc::ElementType;
use protocol::scsi::smc_data::{ELEMENT_ADDRESS_ASSIGNMENT, Element, ElementAddresses, ElementReport, HEADER_LENGTH};
use protocol::wire::{Problem, WireError};

use super::unit::at_least;
use super::{ClientError, Data, LogicalUnit};

/// The largest ALLOCATION LENGTH of READ ELEMENT STATUS that is sent: room for 60,000 elements with their tags.
const LARGEST_REPORT: u32 = 4 << 20;

impl LogicalUnit {
    /// Which elements there are: the element address assignment mode page.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; [`ClientError::Reply`] when another page came.
    pub async fn element_addresses(&self) -> Result<ElementAddresses, ClientError> {
        const NAME: &str = "MODE SENSE(6)";
        const DISABLE_BLOCK_DESCRIPTORS: u8 = 0x08;
        let cdb = [0x1A, DISABLE_BLOCK_DESCRIPTORS, ELEMENT_ADDRESS_ASSIGNMENT, 0, 0xFF, 0];
        let data = self.good(NAME, &cdb, Data::In(0xFF)).await?.data;
        at_least(NAME, "mode parameter data", &data, 4)?;
        let page =
            data.get(4 + usize::from(data[3])..).filter(|page| page.len() >= 2 && page[0] & 0x3F == ELEMENT_ADDRESS_ASSIGNMENT);
        let parsed = page.and_then(|page| ElementAddresses::parse(&page[2..]));
        parsed.ok_or_else(|| ClientError::Reply {
            command: NAME,
            error: WireError::new("element address assignment mode page", 4, Problem::Text("is not there, or too short")),
        })
    }

    /// All elements of a type, or of all types, with volume tags and device identifiers. READ ELEMENT STATUS.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`]; [`ClientError::Reply`] for element status data that cannot be.
    pub async fn elements(&self, kind: Option<ElementType>) -> Result<Vec<Element>, ClientError> {
        const NAME: &str = "READ ELEMENT STATUS";
        const VOLTAG: u8 = 0x10;
        const DVCID: u8 = 0x01;
        let code = kind.map_or(0, |kind| kind as u8);
        let ask = async |length: u32| -> Result<ElementReport, ClientError> {
            let [_, a, b, c] = length.to_be_bytes();
            let cdb = [0xB8, VOLTAG | code, 0, 0, 0xFF, 0xFF, DVCID, a, b, c, 0, 0];
            let data = self.good_long(NAME, &cdb, Data::In(length)).await?.data;
            ElementReport::parse(&data).map_err(|error| ClientError::Reply { command: NAME, error })
        };
        // The header alone tells how long the report is.
        let header = HEADER_LENGTH as u32;
        let length = ask(header).await?.byte_count.saturating_add(header).min(LARGEST_REPORT);
        Ok(ask(length).await?.elements)
    }

    /// MOVE MEDIUM by the default transport.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn move_medium(&self, source: u16, destination: u16) -> Result<(), ClientError> {
        let ([s0, s1], [d0, d1]) = (source.to_be_bytes(), destination.to_be_bytes());
        self.good_long("MOVE MEDIUM", &[0xA5, 0, 0, 0, s0, s1, d0, d1, 0, 0, 0, 0], Data::None).await.map(drop)
    }

    /// EXCHANGE MEDIUM by the default transport: what is in `first` goes to `second`, what is in `source` to `first`.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn exchange_medium(&self, source: u16, first: u16, second: u16) -> Result<(), ClientError> {
        let [[s0, s1], [f0, f1], [t0, t1]] = [source, first, second].map(u16::to_be_bytes);
        self.good_long("EXCHANGE MEDIUM", &[0xA6, 0, 0, 0, s0, s1, f0, f1, t0, t1, 0, 0], Data::None).await.map(drop)
    }

    /// INITIALIZE ELEMENT STATUS: the changer looks what is where.
    ///
    /// # Errors
    /// As [`LogicalUnit::good`].
    pub async fn initialize_element_status(&self) -> Result<(), ClientError> {
        self.good_long("INITIALIZE ELEMENT STATUS", &[0x07, 0, 0, 0, 0, 0], Data::None).await.map(drop)
    }
}
