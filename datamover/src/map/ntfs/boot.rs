//! The boot sector: where $MFT is and how large things are.
//!
//! It believes only what can be true on a device of the given size. Follows the published on-disk format ("$Boot").

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// First 84 bytes of the boot sector.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BootSector {
    jump: [u8; 3],
    oem_id: [u8; 8],
    bytes_per_sector: U16,
    sectors_per_cluster: u8,
    unused: [u8; 26],
    number_of_sectors: U64,
    mft_lcn: U64,
    mftmirr_lcn: U64,
    clusters_per_mft_record: i8,
    reserved_41: [u8; 3],
    clusters_per_index_record: i8,
    reserved_45: [u8; 3],
    serial_number: U64,
    checksum: U32,
}
const _: () = assert!(size_of::<BootSector>() == 84);

/// Sizes and places of a volume. All in bytes unless the name says clusters or LCN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// 512 to 4096.
    pub bytes_per_sector: u32,
    /// 512 bytes to 2 MiB.
    pub cluster: u64,
    /// Length of the volume without the backup boot sector behind it.
    pub volume: u64,
    /// Whole clusters of the volume.
    pub clusters: u64,
    /// Bytes of one file record.
    pub record: u32,
    /// Bytes of one index block.
    pub index_block: u32,
    /// First cluster of $MFT.
    pub mft_lcn: u64,
    /// First cluster of $MFTMirr.
    pub mftmirr_lcn: u64,
    /// As the boot sector has it.
    pub serial_number: u64,
}

impl Geometry {
    /// Reads a boot sector of a volume that may be at most `room` bytes long.
    ///
    /// # Errors
    /// What makes it unusable, as a phrase for a note.
    pub fn parse(sector: &[u8], room: u64) -> Result<Self, &'static str> {
        let (boot, _) = BootSector::ref_from_prefix(sector).map_err(|_| "the boot sector is short")?;
        if &boot.oem_id != b"NTFS    " {
            return Err("the boot sector has no NTFS signature");
        }
        let bytes_per_sector = u32::from(boot.bytes_per_sector.get());
        if !bytes_per_sector.is_power_of_two() || !(512..=4096).contains(&bytes_per_sector) {
            return Err("the sector size is none that NTFS has");
        }
        let cluster = cluster_size(bytes_per_sector, boot.sectors_per_cluster).ok_or("the cluster size is none that NTFS has")?;
        let volume =
            boot.number_of_sectors.get().checked_mul(bytes_per_sector.into()).ok_or("the volume size does not fit 64 bits")?;
        if volume > room {
            return Err("the volume is longer than its partition");
        }
        let clusters = volume / cluster;
        let (mft_lcn, mftmirr_lcn) = (boot.mft_lcn.get(), boot.mftmirr_lcn.get());
        if clusters == 0 || (mft_lcn >= clusters && mftmirr_lcn >= clusters) {
            return Err("$MFT lies behind the end of the volume");
        }
        let record = record_size(boot.clusters_per_mft_record, cluster).ok_or("the file record size is none that NTFS has")?;
        let index_block =
            record_size(boot.clusters_per_index_record, cluster).ok_or("the index block size is none that NTFS has")?;
        let serial_number = boot.serial_number.get();
        Ok(Self { bytes_per_sector, cluster, volume, clusters, record, index_block, mft_lcn, mftmirr_lcn, serial_number })
    }

    /// Bytes that one VCN of an index covers: clusters, or 512 bytes where a cluster is longer than an index block.
    #[must_use]
    pub const fn index_vcn(&self) -> u64 {
        if self.cluster <= self.index_block as u64 { self.cluster } else { 512 }
    }
}

/// Above 128 the byte is the negative of a power of two: F4h = 4096 sectors.
fn cluster_size(bytes_per_sector: u32, sectors_per_cluster: u8) -> Option<u64> {
    let sectors = match sectors_per_cluster {
        1..=128 => u64::from(sectors_per_cluster),
        exponent => 1u64.checked_shl(256 - u32::from(exponent))?,
    };
    let cluster = sectors.checked_mul(bytes_per_sector.into())?;
    (sectors.is_power_of_two() && cluster <= MAX_CLUSTER).then_some(cluster)
}

/// Positive: so many clusters. Negative: the power of two in bytes.
fn record_size(clusters: i8, cluster: u64) -> Option<u32> {
    let bytes = match clusters {
        1.. => cluster.checked_mul(u64::from(clusters.unsigned_abs()))?,
        _ => 1u64.checked_shl(clusters.unsigned_abs().into())?,
    };
    let legal = bytes.is_power_of_two() && (512..=MAX_RECORD).contains(&bytes);
    legal.then_some(bytes as u32)
}

/// What Windows 10 can format.
const MAX_CLUSTER: u64 = 2 << 20;

/// 16 times what any known tool makes; above it the update sequence array would not fit its first 512 bytes.
const MAX_RECORD: u64 = 64 << 10;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sector(bytes_per_sector: u16, sectors_per_cluster: u8, sectors: u64, record: i8) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[3..11].copy_from_slice(b"NTFS    ");
        sector[11..13].copy_from_slice(&bytes_per_sector.to_le_bytes());
        sector[13] = sectors_per_cluster;
        sector[40..48].copy_from_slice(&sectors.to_le_bytes());
        sector[48] = 4;
        sector[56] = 2;
        sector[64] = record as u8;
        sector[68] = -12i8 as u8;
        sector
    }

    #[test]
    fn every_legal_form_of_the_sizes_is_read() {
        let cases = [
            (512, 1, -10, 512, 1024),
            (512, 8, -10, 4096, 1024),
            (512, 128, -10, 65536, 1024),
            (512, 0xF4, -10, 2 << 20, 1024),
            (512, 2, 1, 1024, 1024),
            (4096, 1, 1, 4096, 4096),
            (4096, 16, -12, 65536, 4096),
        ];
        for (bps, spc, record, cluster, record_bytes) in cases {
            let geometry = Geometry::parse(&sector(bps, spc, 1 << 20, record), 1 << 40).unwrap();
            assert_eq!((geometry.cluster, geometry.record), (cluster, record_bytes));
        }
        assert_eq!(Geometry::parse(&sector(512, 128, 1 << 20, -10), 1 << 40).unwrap().index_vcn(), 512);
        assert_eq!(Geometry::parse(&sector(512, 8, 1 << 20, -10), 1 << 40).unwrap().index_vcn(), 4096);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (bps, spc, sectors, record) in [
            (100, 8, 1000, -10),
            (512, 3, 1000, -10),
            (512, 0xF0, 1000, -10),
            (512, 0, 1000, -10),
            (512, 8, 1000, -31),
            (512, 8, u64::MAX, -10),
            (512, 8, 1, -10),
        ] {
            assert!(Geometry::parse(&sector(bps, spc, sectors, record), 1 << 40).is_err(), "{bps} {spc} {sectors} {record}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_volume_inside_its_room(mut bytes in prop::collection::vec(any::<u8>(), 0..600), room in any::<u64>()) {
            if let Some(id) = bytes.get_mut(3..11) {
                id.copy_from_slice(b"NTFS    ");
            }
            if let Ok(geometry) = Geometry::parse(&bytes, room) {
                prop_assert!(geometry.volume <= room && geometry.clusters * geometry.cluster <= geometry.volume);
            }
        }
    }
}
