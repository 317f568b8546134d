//! The metadata of a set, taken apart and held together: what a restore goes by.
//!
//! The bytes come from a tape or from the local cache; they are the same. Not here: the data.
//!
//! Text: see [`super`].

use super::section::{only, sections};
use super::{Catalog, Correspondence, LayoutError, Manifest, SectionKind, Trailer, VolumeHeader};

/// The tape files of a set but its data, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetBytes {
    /// The header record.
    pub header: Vec<u8>,
    /// The tape file of tables.
    pub tables: Vec<u8>,
    /// The tape file of the catalog, without the trailer.
    pub catalog: Vec<u8>,
    /// The trailer record.
    pub trailer: Vec<u8>,
}

/// The metadata of a whole set.
#[derive(Debug, Clone)]
pub struct SetTables {
    /// X → A.
    pub correspondence: Correspondence,
    /// The files.
    pub catalog: Catalog,
    /// The sums.
    pub manifest: Manifest,
    /// Bytes that all this has on the tape.
    pub bytes: u64,
}

impl SetBytes {
    /// Takes the parts apart; each is first held against its BLAKE3 in the trailer, then against the others.
    ///
    /// # Errors
    /// [`LayoutError`] for what is damaged or contradicts itself.
    pub fn tables(&self, header: &VolumeHeader, trailer: &Trailer) -> Result<SetTables, LayoutError> {
        agree("volume header", &self.header, &trailer.header_blake3)?;
        agree("tables", &self.tables, &trailer.tables_blake3)?;
        agree("file catalog", &self.catalog, &trailer.catalog_blake3)?;
        let tables = sections(&self.tables)?;
        let catalog = sections(&self.catalog)?;
        let tables = SetTables {
            correspondence: Correspondence::parse(
                only(&tables, SectionKind::Correspondence, "block correspondence table")?.body,
            )?,
            catalog: Catalog::parse(only(&catalog, SectionKind::Catalog, "file catalog")?.body)?,
            manifest: Manifest::parse(only(&catalog, SectionKind::Manifest, "integrity manifest")?.body)?,
            bytes: [&self.header, &self.tables, &self.catalog, &self.trailer].map(|part| part.len() as u64).iter().sum(),
        };
        tables.check(header)?;
        Ok(tables)
    }
}

impl SetTables {
    /// Header, tables and catalog were written by one backup: they agree, or nothing is restored by them.
    fn check(&self, header: &VolumeHeader) -> Result<(), LayoutError> {
        let wrong = |problem: &str| Err(LayoutError::contradiction("set", problem));
        let block = u64::from(header.source.block_length);
        if self.correspondence.blocks().checked_mul(block) != Some(header.data.bytes) {
            return wrong("the block correspondence table does not fit the bytes of the data");
        }
        let first = self.correspondence.runs().first().map_or(header.source.first_block, |run| run.a);
        let end = header.source.first_block.0 + header.source.blocks;
        if first < header.source.first_block || self.correspondence.end().0 > end.max(header.source.first_block.0) {
            return wrong("the block correspondence table names blocks outside the disk");
        }
        Ok(())
    }
}

fn agree(part: &'static str, bytes: &[u8], recorded: &str) -> Result<(), LayoutError> {
    if blake3::hash(bytes).to_string() == recorded {
        return Ok(());
    }
    Err(LayoutError::contradiction(part, "it is not what the trailer has the BLAKE3 of"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::header::tests::example as header;
    use super::super::{SetId, Span};
    use super::*;
    use protocol::units::Lba;

    /// A set of 129 blocks, as the header's example has them.
    pub(crate) fn example() -> (SetBytes, VolumeHeader, Trailer) {
        let mut bytes = SetBytes::default();
        Correspondence::of([(Lba(0), 100), (Lba(4000), 29)]).unwrap().write(&mut bytes.tables);
        let header = VolumeHeader { tables: Span::of(6, bytes.tables.len() as u64, 65_536), ..header() };
        bytes.header = header.to_record().unwrap();
        Catalog::default().write(&mut bytes.catalog).unwrap();
        Manifest::default().write(&mut bytes.catalog).unwrap();
        let trailer = Trailer {
            blocks: 129,
            header_blake3: blake3::hash(&bytes.header).to_string(),
            tables_blake3: blake3::hash(&bytes.tables).to_string(),
            catalog_blake3: blake3::hash(&bytes.catalog).to_string(),
            ..Trailer::new(SetId([0xAB; 16]), 4, 12)
        };
        bytes.trailer = trailer.to_record().unwrap();
        (bytes, header, trailer)
    }

    #[test]
    fn a_whole_set_is_taken_apart() {
        let (bytes, header, trailer) = example();
        let tables = bytes.tables(&header, &trailer).unwrap();
        assert_eq!(tables.correspondence.blocks(), 129);
    }

    #[test]
    fn any_part_that_is_not_the_one_the_trailer_knows_is_refused() {
        let spoil: [fn(&mut SetBytes); 3] =
            [|set| set.header[40] ^= 1, |set| set.tables[40] ^= 1, |set| *set.catalog.last_mut().unwrap() ^= 1];
        for spoil in spoil {
            let (mut bytes, header, trailer) = example();
            spoil(&mut bytes);
            assert!(matches!(bytes.tables(&header, &trailer), Err(LayoutError::Contradiction { .. })));
        }
    }

    #[test]
    fn tables_of_another_disk_are_refused() {
        let (bytes, header, trailer) = example();
        let shorter = VolumeHeader { data: Span::of(8, 65_536, 65_536), ..header.clone() };
        assert!(matches!(bytes.tables(&shorter, &trailer), Err(LayoutError::Contradiction { part: "set", .. })));
        let mut smaller = header;
        smaller.source.blocks = 4000;
        assert!(matches!(bytes.tables(&smaller, &trailer), Err(LayoutError::Contradiction { part: "set", .. })));
    }
}
