//! PDUs on a byte stream: cut out of received bytes, and queued for sending.
//!
//! Payload is never copied: a received data segment is a slice of the receive buffer, a sent one is queued as it is and leaves
//! by a vectored write. Lengths are checked against the limits before anything waits for the bytes.
//!
//! RFC 7143 (11.1), (11.2).

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::bhs::{self, Bhs};
use super::digest;
use crate::wire::{Problem, U24, WireError};

pub use super::bhs::Header;

/// Which digests are on. They start with the first PDU of the full feature phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Digests {
    /// CRC32C behind the header segments.
    pub header: bool,
    /// CRC32C behind the data segment and its padding.
    pub data: bool,
}

/// One protocol data unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    /// Basic header segment.
    pub header: Header,
    /// Additional header segments, as they came.
    pub ahs: Bytes,
    /// Data segment without padding.
    pub data: Bytes,
}

/// Why no PDU can be cut. After any of these the stream has no further PDU that could be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than was negotiated: the peer broke its promise.
    #[error(transparent)]
    TooLong(WireError),
    /// The header's digest disagrees: not even the length is known.
    #[error(transparent)]
    HeaderDigest(WireError),
    /// The data's digest disagrees. The header is sound, so a Reject can name it.
    #[error("{error}")]
    DataDigest {
        /// What disagreed.
        error: WireError,
        /// The header of the damaged PDU.
        header: [u8; bhs::LENGTH],
    },
}

/// Cuts PDUs out of a receive buffer.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// What to expect and check.
    pub digests: Digests,
    /// Our MaxRecvDataSegmentLength: the longest data segment taken, in bytes.
    pub max_data_segment_length: u32,
}

/// Where the parts of a PDU lie, known from its first eight bytes.
#[derive(Debug, Clone, Copy)]
struct Extent {
    ahs: usize,
    data: usize,
    padding: usize,
    total: usize,
}

impl Decoder {
    /// Takes the next PDU off the front of `input`; `None` while it is not complete.
    ///
    /// # Errors
    /// See [`FrameError`]; `input` is then of no further use.
    pub fn decode(&self, input: &mut BytesMut) -> Result<Option<Pdu>, FrameError> {
        let Some(extent) = self.extent(input)? else { return Ok(None) };
        if input.len() < extent.total {
            return Ok(None);
        }
        let mut rest = input.split_to(extent.total).freeze();
        let headers = rest.split_to(bhs::LENGTH + extent.ahs);
        let header: [u8; bhs::LENGTH] = *headers.first_chunk().expect("a PDU holds its header");
        if self.digests.header {
            let stored = rest.get_u32_le();
            check_digest("header segments", stored, digest::of(&headers)).map_err(FrameError::HeaderDigest)?;
        }
        if self.digests.data && extent.data > 0 {
            let covered = extent.data + extent.padding;
            let stored = (&rest[covered..]).get_u32_le();
            check_digest("data segment", stored, digest::of(&rest[..covered]))
                .map_err(|error| FrameError::DataDigest { error, header })?;
        }
        rest.truncate(extent.data);
        Ok(Some(Pdu { header: Header::parse(&header), ahs: headers.slice(bhs::LENGTH..), data: rest }))
    }

    /// How many bytes the PDU at the front of `input` still lacks, as far as is known: a reader makes room for them at once.
    #[must_use]
    pub fn missing(&self, input: &[u8]) -> usize {
        match self.extent(input) {
            Ok(Some(extent)) => extent.total.saturating_sub(input.len()),
            _ => bhs::LENGTH.saturating_sub(input.len()),
        }
    }

    fn extent(&self, input: &[u8]) -> Result<Option<Extent>, FrameError> {
        let Some(&[opcode, _, _, _, ahs_words, a, b, c]) = input.first_chunk() else { return Ok(None) };
        let data = U24([a, b, c]).get();
        // A request that takes part in a login must fit as well, so no operation code is excepted.
        if data > self.max_data_segment_length {
            let (value, limit) = (u64::from(data), u64::from(self.max_data_segment_length));
            let problem = Problem::Limit { field: "DataSegmentLength", value, limit };
            return Err(FrameError::TooLong(WireError::new("basic header segment", 5, problem)));
        }
        // Only a SCSI command has additional header segments (11.2.2).
        let ahs = usize::from(ahs_words) * 4;
        if ahs > 0 && opcode & bhs::OPCODE_MASK != bhs::ScsiCommand::OPCODE {
            let problem = Problem::Value { field: "TotalAHSLength", value: u64::from(ahs_words) };
            return Err(FrameError::TooLong(WireError::new("basic header segment", 4, problem)));
        }
        let data = data as usize;
        let padding = padding(data);
        let header_digest = if self.digests.header { digest::LENGTH } else { 0 };
        let data_digest = if self.digests.data && data > 0 { digest::LENGTH } else { 0 };
        let total = bhs::LENGTH + ahs + header_digest + data + padding + data_digest;
        Ok(Some(Extent { ahs, data, padding, total }))
    }
}

fn check_digest(structure: &'static str, stored: u32, computed: u32) -> Result<(), WireError> {
    if stored == computed {
        return Ok(());
    }
    Err(WireError::new(structure, 0, Problem::Checksum { stored, computed }))
}

/// Zero bytes behind a segment of `length` bytes.
const fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

/// PDUs on their way out: one queue, written by as few vectored writes as the socket takes.
///
/// A [`Buf`], so that `write_buf` and friends take from it. Short pieces are gathered in one buffer, long ones are queued by
/// reference.
#[derive(Debug, Default)]
pub struct Transmit {
    digests: Digests,
    chunks: VecDeque<Bytes>,
    gathered: BytesMut,
    len: usize,
}

impl Transmit {
    /// Data shorter than this is cheaper to copy than to give its own place in a vectored write.
    const GATHER_BELOW: usize = 1024;
    /// Room taken for gathered pieces at a time, in bytes.
    const GATHER_ROOM: usize = 16 * 1024;

    /// From the next PDU on.
    pub fn set_digests(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Queues a PDU. Its lengths are written here; `header` gives the rest.
    ///
    /// # Panics
    /// When the data is longer than DataSegmentLength can say: segments are cut to what the peer takes before.
    pub fn push<H: Bhs>(&mut self, header: H, data: &[Bytes]) {
        self.push_with_ahs(header, &[], data);
    }

    /// As [`Transmit::push`], with additional header segments, which are whole words.
    ///
    /// # Panics
    /// As [`Transmit::push`], and when `ahs` is longer than TotalAHSLength can say or not whole words.
    pub fn push_with_ahs<H: Bhs>(&mut self, mut header: H, ahs: &[u8], data: &[Bytes]) {
        let header = header.as_mut_bytes();
        header[0] = header[0] & bhs::IMMEDIATE | H::OPCODE;
        self.push_bytes(*header.first_chunk().expect("a basic header segment has 48 bytes"), ahs, data);
    }

    /// As [`Transmit::push_with_ahs`], for a header whose operation code is written.
    ///
    /// # Panics
    /// As [`Transmit::push_with_ahs`].
    pub fn push_bytes(&mut self, mut header: [u8; bhs::LENGTH], ahs: &[u8], data: &[Bytes]) {
        assert!(ahs.len().is_multiple_of(4), "additional header segments are whole words");
        let data_length: usize = data.iter().map(Bytes::len).sum();
        header[4] = u8::try_from(ahs.len() / 4).expect("additional header segments fit their length");
        let length = u32::try_from(data_length).ok().and_then(U24::new).expect("data segments are cut before they are sent");
        header[5..8].copy_from_slice(&length.0);

        let start = self.gathered.len();
        self.gather(&header);
        self.gather(ahs);
        if self.digests.header {
            let sum = digest::of(&self.gathered[start..]);
            self.gather(&sum.to_le_bytes());
        }
        if data_length == 0 {
            return;
        }
        for part in data {
            self.push_data(part);
        }
        let padding = padding(data_length);
        self.gather(&[0; 3][..padding]);
        if self.digests.data {
            self.gather(&digest::of_segment(data, padding).to_le_bytes());
        }
    }

    fn push_data(&mut self, data: &Bytes) {
        if data.len() < Self::GATHER_BELOW {
            return self.gather(data);
        }
        if !self.gathered.is_empty() {
            let gathered = self.gathered.split().freeze();
            self.chunks.push_back(gathered);
        }
        self.chunks.push_back(data.clone());
        self.len += data.len();
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.gathered.capacity() - self.gathered.len() < bytes.len() {
            self.gathered.reserve(bytes.len().max(Self::GATHER_ROOM));
        }
        self.gathered.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Puts another piece of the same length in the place of each one for which `other` has one.
    ///
    /// # Errors
    /// Those of `other`.
    ///
    /// # Panics
    /// When a piece has another length.
    pub fn replace<E>(&mut self, mut other: impl FnMut(&Bytes) -> Option<Result<Bytes, E>>) -> Result<(), E> {
        for chunk in &mut self.chunks {
            if let Some(new) = other(chunk).transpose()? {
                assert_eq!(new.len(), chunk.len(), "the headers before it are written");
                *chunk = new;
            }
        }
        Ok(())
    }

    /// Bytes queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when all has been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Buf for Transmit {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&self.gathered[..], |chunk| &chunk[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let gathered = (!self.gathered.is_empty()).then_some(&self.gathered[..]);
        let all = self.chunks.iter().map(|chunk| &chunk[..]).chain(gathered);
        slices.iter_mut().zip(all).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "more was taken than was queued");
        self.len -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
        self.gathered.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{U32, hex};
    use bhs::{DataOut, FINAL, NopOut};
    use proptest::prelude::*;

    fn decoder(digests: Digests) -> Decoder {
        Decoder { digests, max_data_segment_length: 8192 }
    }

    fn all(transmit: &mut Transmit) -> Vec<u8> {
        transmit.copy_to_bytes(transmit.len()).to_vec()
    }

    #[test]
    fn a_nop_out_with_a_ping_of_five_bytes_reads_and_writes_the_same_bytes() {
        let golden =
            hex("40 80 0000 00 000005  0000000000000000  00000001 ffffffff 00000002 00000003 00000000000000000000000000000000
             68656c6c6f 000000");
        let header = NopOut {
            opcode: bhs::IMMEDIATE,
            flags: FINAL,
            initiator_task_tag: U32::new(1),
            target_transfer_tag: U32::new(bhs::NO_TAG),
            cmd_sn: U32::new(2),
            exp_stat_sn: U32::new(3),
            ..Default::default()
        };
        let mut transmit = Transmit::default();
        transmit.push(header, &[Bytes::from_static(b"he"), Bytes::from_static(b"llo")]);
        assert_eq!(all(&mut transmit), golden);

        let mut input = BytesMut::from(&golden[..]);
        let pdu = decoder(Digests::default()).decode(&mut input).unwrap().unwrap();
        assert_eq!(&pdu.data[..], b"hello");
        assert!(matches!(pdu.header, Header::NopOut(nop) if nop.cmd_sn.get() == 2));
        assert!(input.is_empty());
    }

    #[test]
    fn digests_lie_behind_the_header_and_behind_the_padding() {
        let digests = Digests { header: true, data: true };
        let mut transmit = Transmit::default();
        transmit.set_digests(digests);
        transmit.push(DataOut::default(), &[Bytes::from_static(b"abcde")]);
        let sent = all(&mut transmit);
        assert_eq!(sent.len(), 48 + 4 + 5 + 3 + 4);
        assert_eq!(sent[48..52], digest::of(&sent[..48]).to_le_bytes());
        assert_eq!(sent[60..], digest::of(b"abcde\0\0\0").to_le_bytes());
        let decoded = decoder(digests).decode(&mut BytesMut::from(&sent[..])).unwrap().unwrap();
        assert_eq!(&decoded.data[..], b"abcde");

        let damaged = |at: usize| {
            let mut bytes = BytesMut::from(&sent[..]);
            bytes[at] ^= 1;
            decoder(digests).decode(&mut bytes).unwrap_err()
        };
        assert!(matches!(damaged(20), FrameError::HeaderDigest(_)));
        assert!(matches!(damaged(52), FrameError::DataDigest { header, .. } if header == sent[..48]));
        assert!(matches!(damaged(59), FrameError::DataDigest { .. }), "padding is under the digest");
    }

    #[test]
    fn a_segment_longer_than_promised_is_refused_from_its_first_eight_bytes() {
        let mut input = BytesMut::from(&hex("05 80 0000 00 002001")[..]);
        assert!(matches!(decoder(Digests::default()).decode(&mut input), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn missing_tells_the_reader_how_much_room_to_make() {
        let decoder = decoder(Digests::default());
        assert_eq!(decoder.missing(&[]), 48);
        assert_eq!(decoder.missing(&hex("05 80 0000 00 001001")), 40 + 4097 + 3);
    }

    #[test]
    fn long_pieces_are_queued_by_reference() {
        let data = Bytes::from(vec![7; 4096]);
        let mut transmit = Transmit::default();
        transmit.push(DataOut::default(), std::slice::from_ref(&data));
        transmit.push(DataOut::default(), std::slice::from_ref(&data));
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(transmit.chunks_vectored(&mut slices), 4);
        assert_eq!(slices[1].as_ptr(), data.as_ptr());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic_and_never_run_over(bytes in proptest::collection::vec(any::<u8>(), 0..400), header: bool, data: bool) {
            let decoder = decoder(Digests { header, data });
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(pdu)) = decoder.decode(&mut input) {
                prop_assert!(pdu.data.len() <= 8192);
            }
        }

        #[test]
        fn what_is_pushed_comes_out_in_whatever_steps(
            segments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 1..6),
            header: bool, data: bool, step in 1usize..5000,
        ) {
            let digests = Digests { header, data };
            let mut transmit = Transmit::default();
            transmit.set_digests(digests);
            for segment in &segments {
                transmit.push(DataOut::default(), &[Bytes::copy_from_slice(segment)]);
            }
            let (mut input, mut got) = (BytesMut::new(), Vec::new());
            while !transmit.is_empty() {
                let take = transmit.chunk().len().min(step);
                input.extend_from_slice(&transmit.chunk()[..take]);
                transmit.advance(take);
                while let Some(pdu) = decoder(digests).decode(&mut input).unwrap() {
                    got.push(pdu.data.to_vec());
                }
            }
            prop_assert_eq!(got, segments);
        }
    }
}
