//! EXTENDED COPY(LID1) parameter lists as bytes, written from the standard's tables and from nothing else.

use protocol::scsi::designator::Association;

use crate::client::LogicalUnit;
use crate::suite::check::{Outcome, fail};

/// A CSCD descriptor. SPC-4, "Identification descriptor CSCD descriptor format".
pub(super) type Cscd32 = [u8; 32];

/// A CSCD descriptor that a case may still bend.
#[derive(Debug, Clone)]
pub(super) struct Cscd(pub(super) Cscd32);

impl Cscd {
    /// E4h of a disk.
    pub(super) async fn disk(unit: &LogicalUnit, block_length: u32) -> Outcome<Self> {
        let [_, a, b, c] = block_length.to_be_bytes();
        Self::of(unit, 0x00, [0, a, b, c]).await
    }

    /// E4h of a tape in variable block transfer: each record as long as STREAM DEVICE TRANSFER LENGTH.
    pub(super) async fn tape(unit: &LogicalUnit) -> Outcome<Self> {
        Self::of(unit, 0x01, [0; 4]).await
    }

    async fn of(unit: &LogicalUnit, device_type: u8, specific: [u8; 4]) -> Outcome<Self> {
        let all = unit.designators().await?;
        let fit = all.iter().filter(|one| {
            one.association == Association::LogicalUnit && (1..=3).contains(&(one.kind as u8)) && one.bytes.len() <= 20
        });
        let Some(best) = fit.max_by_key(|one| one.kind as u8) else {
            return fail("VPD page 83h has no designator that a CSCD descriptor could carry");
        };
        let mut bytes = [0; 32];
        (bytes[0], bytes[1]) = (0xE4, device_type);
        bytes[4..8].copy_from_slice(&best.emit()[..4]);
        bytes[8..8 + best.bytes.len()].copy_from_slice(&best.bytes);
        bytes[28..].copy_from_slice(&specific);
        Ok(Self(bytes))
    }

    /// With PAD set.
    pub(super) fn padded(mut self) -> Self {
        self.0[28] |= 0x04;
        self
    }
}

/// A parameter list in parts.
#[derive(Debug, Clone)]
pub(super) struct Parameters {
    pub(super) id: u32,
    /// LIST ID USAGE: 00b hold, 10b may discard, 11b none.
    pub(super) usage: u8,
    pub(super) cscds: Vec<Cscd>,
    pub(super) segments: Vec<Vec<u8>>,
    pub(super) inline: Vec<u8>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { id: 0x41, usage: 0b10, cscds: Vec::new(), segments: Vec::new(), inline: Vec::new() }
    }
}

impl Parameters {
    /// One more segment.
    pub(super) fn with(mut self, segment: Vec<u8>) -> Self {
        self.segments.push(segment);
        self
    }

    /// With this inline data.
    pub(super) fn inline(mut self, data: &[u8]) -> Self {
        self.inline = data.to_vec();
        self
    }

    /// Byte at which a segment descriptor begins.
    pub(super) fn segment_at(&self, index: usize) -> u16 {
        (16 + 32 * self.cscds.len() + self.segments[..index].iter().map(Vec::len).sum::<usize>()) as u16
    }

    /// SPC-4, "EXTENDED COPY(LID1) parameter list".
    pub(super) fn emit(&self) -> Vec<u8> {
        let segments = self.segments.concat();
        let mut list = vec![self.id as u8, self.usage << 3];
        list.extend((self.cscds.len() as u16 * 32).to_be_bytes());
        list.extend([0; 4]);
        list.extend((segments.len() as u32).to_be_bytes());
        list.extend((self.inline.len() as u32).to_be_bytes());
        self.cscds.iter().for_each(|cscd| list.extend(cscd.0));
        list.extend(segments);
        list.extend(&self.inline);
        list
    }
}

impl Parameters {
    /// SPC-4, "EXTENDED COPY(LID4) parameter list"; `flags` are G_SENSE (bit 1) and IMMED (bit 0). The first CSCD has the id 1.
    pub(super) fn emit_lid4(&self, flags: u8) -> Vec<u8> {
        let segments = self.segments.concat();
        let mut list = vec![0; 48];
        (list[0], list[1], list[3], list[15], list[16]) = (0x01, self.usage << 3, 0x20, flags, 0xFF);
        list[20..24].copy_from_slice(&self.id.to_be_bytes());
        list[42..44].copy_from_slice(&(self.cscds.len() as u16 * 32).to_be_bytes());
        list[44..46].copy_from_slice(&(segments.len() as u16).to_be_bytes());
        list[46..48].copy_from_slice(&(self.inline.len() as u16).to_be_bytes());
        self.cscds.iter().for_each(|cscd| list.extend(cscd.0));
        list.extend(segments);
        list.extend(&self.inline);
        list
    }
}

/// CAT bit.
pub(super) const CAT: u8 = 0x01;
/// DC bit.
pub(super) const DC: u8 = 0x02;

/// Header and body; DESCRIPTOR LENGTH is what the body has and four bytes more.
fn segment(code: u8, flags: u8, source: u16, destination: u16, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut out = vec![code, flags];
    out.extend((body.len() as u16 + 4).to_be_bytes());
    out.extend(source.to_be_bytes());
    out.extend(destination.to_be_bytes());
    out.extend(body);
    out
}

/// 00h (block→stream) or 01h (stream→block).
pub(super) fn blocks_and_stream(code: u8, flags: u8, ends: (u16, u16), transfer: u32, blocks: u16, lba: u64) -> Vec<u8> {
    segment(code, flags, ends.0, ends.1, &[&transfer.to_be_bytes(), &[0; 2], &blocks.to_be_bytes(), &lba.to_be_bytes()])
}

/// 02h.
pub(super) fn block_to_block(flags: u8, ends: (u16, u16), blocks: u16, from: u64, to: u64) -> Vec<u8> {
    segment(0x02, flags, ends.0, ends.1, &[&[0; 2], &blocks.to_be_bytes(), &from.to_be_bytes(), &to.to_be_bytes()])
}

/// 04h.
pub(super) fn inline_to_stream(flags: u8, destination: u16, transfer: u32, offset: u32, bytes: u32) -> Vec<u8> {
    segment(0x04, flags, 0, destination, &[&transfer.to_be_bytes(), &offset.to_be_bytes(), &bytes.to_be_bytes()])
}

/// 06h.
pub(super) fn stream_to_discard(flags: u8, source: u16, transfer: u32, bytes: u32) -> Vec<u8> {
    segment(0x06, flags, source, 0, &[&transfer.to_be_bytes(), &bytes.to_be_bytes()])
}

/// 08h (block<o>→stream) or 09h (stream→block<o>); `place` is LBA and byte offset.
pub(super) fn bytes_and_stream(code: u8, flags: u8, ends: (u16, u16), transfer: u32, bytes: u32, place: (u64, u16)) -> Vec<u8> {
    let (lba, offset) = (place.0.to_be_bytes(), place.1.to_be_bytes());
    segment(code, flags, ends.0, ends.1, &[&transfer.to_be_bytes(), &bytes.to_be_bytes(), &lba, &[0; 2], &offset])
}

/// 0Ah.
pub(super) fn bytes_to_bytes(ends: (u16, u16), bytes: u32, from: (u64, u16), to: (u64, u16)) -> Vec<u8> {
    let lbas = [from.0.to_be_bytes(), to.0.to_be_bytes()].concat();
    segment(0x0A, 0, ends.0, ends.1, &[&bytes.to_be_bytes(), &lbas, &from.1.to_be_bytes(), &to.1.to_be_bytes()])
}

/// 10h.
pub(super) fn filemarks(destination: u16, count: u32) -> Vec<u8> {
    segment(0x10, 0, 0, destination, &[&count.to_be_bytes()])
}

/// 11h: CODE and the signed count of SPACE(6).
pub(super) fn space(destination: u16, code: u8, count: i32) -> Vec<u8> {
    let [_, a, b, c] = count.to_be_bytes();
    segment(0x11, 0, 0, destination, &[&[code, a, b, c]])
}

/// 12h.
pub(super) fn locate(destination: u16, object: u32) -> Vec<u8> {
    segment(0x12, 0, 0, destination, &[&object.to_be_bytes()])
}

/// 14h.
pub(super) fn register_key(destination: u16, key: u64, action_key: u64) -> Vec<u8> {
    segment(0x14, 0, 0, destination, &[&key.to_be_bytes(), &action_key.to_be_bytes(), &[0; 4]])
}

/// 16h, as long as its table says: with 32 bits of NUMBER OF LOGICAL BLOCKS.
pub(super) fn block_image(ends: (u16, u16), from: u64, to: u64, blocks: u32) -> Vec<u8> {
    segment(0x16, 0, ends.0, ends.1, &[&from.to_be_bytes(), &to.to_be_bytes(), &blocks.to_be_bytes()])
}

/// Any code with any body.
pub(super) fn any(code: u8, ends: (u16, u16), body: &[u8]) -> Vec<u8> {
    segment(code, 0, ends.0, ends.1, &[body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::wire::hex;

    #[test]
    fn segments_have_the_lengths_of_the_standard() {
        let lengths = [
            (blocks_and_stream(0, 0, (0, 1), 512, 1, 0), 0x14),
            (block_to_block(0, (0, 1), 1, 0, 0), 0x18),
            (inline_to_stream(0, 1, 512, 0, 512), 0x10),
            (stream_to_discard(0, 1, 512, 512), 0x0C),
            (bytes_and_stream(8, 0, (0, 1), 512, 1, (0, 0)), 0x18),
            (bytes_to_bytes((0, 1), 1, (0, 0), (0, 0)), 0x1C),
            (filemarks(1, 1), 0x08),
            (space(1, 1, 1), 0x08),
            (locate(1, 1), 0x08),
            (register_key(1, 1, 1), 0x18),
            (block_image((0, 1), 0, 0, 0), 0x18),
        ];
        for (segment, length) in lengths {
            assert_eq!((segment[3], segment.len()), (length, usize::from(length) + 4), "{segment:02x?}");
        }
    }

    #[test]
    fn a_block_to_block_segment_has_its_fields_where_the_table_has_them() {
        let golden = hex("02 00 0018  0000 0001  0000 0800  0000000000000000  0000000000100000");
        assert_eq!(block_to_block(0, (0, 1), 2048, 0, 0x10_0000), golden);
    }
}
