//! CRC32C over headers and data segments. RFC 7143 (13.1): the value goes on the wire least significant byte first.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

/// Bytes a digest takes on the wire.
pub const LENGTH: usize = 4;

/// CRC32C of one piece.
#[must_use]
pub fn of(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC32C of a data segment in several pieces and of the zeros that pad it.
#[must_use]
pub fn of_segment(parts: &[Bytes], padding: usize) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.update(&[0; 3][..padding]);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_come_out() {
        // RFC 7143, appendix on CRC examples; the wire shows them least significant byte first.
        assert_eq!(of(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(of(&[0xFF; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(of(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn pieces_and_padding_give_the_sum_of_the_whole() {
        let parts = [Bytes::from_static(b"123"), Bytes::from_static(b"4567"), Bytes::from_static(b"89")];
        assert_eq!(of_segment(&parts, 3), of(b"123456789\0\0\0"));
    }
}
