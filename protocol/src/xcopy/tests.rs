//! Golden vectors of lists, descriptors and results, both ways, and damaged ones.

use bytes::Bytes;
use proptest::prelude::*;

use super::operation::{CopyOperationStatus, OperationStatus};
mod rods;

use super::results::{CopyCommandStatus, CopyStatus, FailureDetails, OperatingParameters, third_party_copy_page};
use super::rod::RangeDescriptor;
use super::segment::{DescriptorLength, SEGMENT_TYPES, SegmentType};
use super::*;
use crate::scsi::{DeviceType, FieldPointer, Sense};
use crate::units::{BlockLength, Lba};
use crate::wire::hex;

const A: CscdId = CscdId(0);
const B: CscdId = CscdId(1);

/// One of each, with its bytes as the standard's tables give them.
fn golden() -> Vec<(&'static str, SegmentDescriptor)> {
    vec![
        (
            "00 01 0014 0000 0001  00 040000  0000 fe00  0000000000000800",
            SegmentDescriptor {
                cat: true,
                hold: false,
                segment: Segment::BlockToStream {
                    source: A,
                    destination: B,
                    transfer_length: 0x4_0000,
                    blocks: 0xFE00,
                    from: Lba(2048),
                },
            },
        ),
        (
            "01 00 0014 0000 0001  00 000002  0000 0003  0000000000000004",
            Segment::StreamToBlock { source: A, destination: B, transfer_length: 2, blocks: 3, to: Lba(4) }.into(),
        ),
        (
            "02 02 0018 0000 0001  0000 0800  0000000000000000  0000000000100000",
            Segment::BlockToBlock {
                source: A,
                destination: B,
                count_of: CountOf::DestinationBlocks,
                blocks: 2048,
                from: Lba(0),
                to: Lba(0x10_0000),
            }
            .into(),
        ),
        (
            "03 00 0010 0000 0001  00 000200  00 000400  00001000",
            Segment::StreamToStream {
                source: A,
                destination: B,
                source_transfer_length: 512,
                transfer_length: 1024,
                bytes: 4096,
            }
            .into(),
        ),
        (
            "04 00 0010 0000 0001  00 002800  00000004  00000200",
            Segment::InlineToStream { destination: B, transfer_length: 10240, offset: 4, bytes: 512 }.into(),
        ),
        (
            "05 00 0014 0000 0001  00 000005  0005 0000  6f66666873 000000",
            Segment::EmbeddedToStream { destination: B, transfer_length: 5, data: b"offhs".to_vec() }.into(),
        ),
        (
            "06 01 000c 0000 0000  00 000400  00000007",
            SegmentDescriptor {
                cat: true,
                hold: false,
                segment: Segment::StreamToDiscard { source: A, transfer_length: 1024, bytes: 7 },
            },
        ),
        ("07 00 0008 0000 0000  01 000000", Segment::VerifyCscd { source: A, test_unit_ready: true }.into()),
        (
            "08 00 0018 0000 0001  00 002800  00000123  0000000000000010  0000 01ff",
            Segment::BlockOffsetToStream {
                source: A,
                destination: B,
                transfer_length: 10240,
                bytes: 0x123,
                from: Lba(16),
                offset: 511,
            }
            .into(),
        ),
        (
            "09 00 0018 0000 0001  00 002800  00000123  0000000000000010  0000 01ff",
            Segment::StreamToBlockOffset {
                source: A,
                destination: B,
                transfer_length: 10240,
                bytes: 0x123,
                to: Lba(16),
                offset: 511,
            }
            .into(),
        ),
        (
            "0a 00 001c 0000 0001  00010000  0000000000000001  0000000000000002  0003 0004",
            Segment::BlockOffsetToBlockOffset {
                source: A,
                destination: B,
                bytes: 65536,
                from: Lba(1),
                from_offset: 3,
                to: Lba(2),
                to_offset: 4,
            }
            .into(),
        ),
        ("10 00 0008 0000 0001  01 000002", Segment::WriteFilemarks { destination: B, immediate: true, count: 2 }.into()),
        ("11 00 0008 0000 0001  01 fffffe", Segment::Space { destination: B, code: 1, count: -2 }.into()),
        (
            "0b 00 0014 0000 0001  00 040000  0000 fe00  0000000000000800",
            holding(Segment::BlockToStream {
                source: A,
                destination: B,
                transfer_length: 0x4_0000,
                blocks: 0xFE00,
                from: Lba(2048),
            }),
        ),
        (
            "0c 00 0014 0000 0001  00 000002  0000 0003  0000000000000004",
            holding(Segment::StreamToBlock { source: A, destination: B, transfer_length: 2, blocks: 3, to: Lba(4) }),
        ),
        (
            "0d 00 0018 0000 0001  0000 0800  0000000000000000  0000000000100000",
            holding(Segment::BlockToBlock {
                source: A,
                destination: B,
                count_of: CountOf::SourceBlocks,
                blocks: 2048,
                from: Lba(0),
                to: Lba(0x10_0000),
            }),
        ),
        (
            "0e 00 0010 0000 0001  00 000200  00 000400  00001000",
            holding(Segment::StreamToStream {
                source: A,
                destination: B,
                source_transfer_length: 512,
                transfer_length: 1024,
                bytes: 4096,
            }),
        ),
        (
            "0f 00 000c 0000 0000  00 000400  00000007",
            holding(Segment::StreamToDiscard { source: A, transfer_length: 1024, bytes: 7 }),
        ),
        (
            "be 00 002c ffff 0001  0000000000 01 0020  0000000000000064 00000008 00000000  0000000000000008 ffffffff 00000000",
            Segment::PopulateRod {
                source: CscdId::THIS_LUN,
                destination: B,
                ranges: vec![RangeDescriptor { lba: Lba(100), blocks: 8 }, RangeDescriptor { lba: Lba(8), blocks: u32::MAX }],
            }
            .into(),
        ),
        (
            "bf 00 0010 ffff 0001  0000000000000064 00000008",
            Segment::PopulateRodRange { source: CscdId::THIS_LUN, destination: B, from: Lba(100), blocks: 8 }.into(),
        ),
        ("12 00 0008 0000 0001  00000539", Segment::Locate { destination: B, object: 1337 }.into()),
        ("13 00 0008 0000 0001  00000002", Segment::TapeImage { source: A, destination: B, filemarks: 2 }.into()),
        (
            "14 00 0018 0000 0001  0000000000000001  0000000000000002  00000000",
            Segment::RegisterKey { destination: B, key: 1, action_key: 2 }.into(),
        ),
        (
            "15 00 0024 0000 0001  0000000000000001 0000000000000002 00 01 0001 00000008  0500 0004 69716e00",
            Segment::RegisterAndMove {
                destination: B,
                parameters: hex("0000000000000001 0000000000000002 00 01 0001 00000008 0500 0004 69716e00"),
            }
            .into(),
        ),
        (
            "16 00 0018 0000 0001  0000000000000003  0000000000000004  00000005",
            Segment::BlockImage { source: A, destination: B, blocks: 5, from: Lba(3), to: Lba(4) }.into(),
        ),
    ]
}

fn holding(segment: Segment) -> SegmentDescriptor {
    SegmentDescriptor { hold: true, ..segment.into() }
}

#[test]
fn a_block_image_of_more_blocks_than_32_bits_count_has_the_longer_form() {
    let golden = hex("16 00 001c 0000 0001  0000000000000003  0000000000000004  0000000100000000");
    let descriptor =
        SegmentDescriptor::from(Segment::BlockImage { source: A, destination: B, blocks: 1 << 32, from: Lba(3), to: Lba(4) });
    assert_eq!(SegmentDescriptor::parse(&golden).as_ref(), Ok(&descriptor));
    let mut out = Vec::new();
    descriptor.emit(&mut out);
    assert_eq!((out.len(), out), (descriptor.length(), golden));
}

#[test]
fn every_segment_descriptor_reads_and_writes_the_same_bytes() {
    for (text, descriptor) in golden() {
        let bytes = hex(text);
        assert_eq!(SegmentDescriptor::parse(&bytes).as_ref(), Ok(&descriptor), "{text}");
        let mut out = vec![0xA5];
        descriptor.emit(&mut out);
        assert_eq!(out[1..], bytes, "{text}");
        assert_eq!(descriptor.length(), bytes.len(), "{text}");
    }
}

#[test]
fn every_supported_row_has_a_golden_vector_of_its_length() {
    let vectors = golden();
    for row in SEGMENT_TYPES.iter().filter(|row| row.supported_on(DeviceType::Tape)) {
        let (text, _) = vectors.iter().find(|(text, _)| hex(text)[0] == row.code).unwrap_or_else(|| panic!("{}", row.name));
        match row.length {
            DescriptorLength::Fixed(length) => assert_eq!(hex(text).len(), 4 + usize::from(length), "{}", row.name),
            DescriptorLength::AtLeast(length) => assert!(hex(text).len() >= 4 + usize::from(length), "{}", row.name),
        }
    }
}

fn disk() -> CscdDescriptor {
    CscdDescriptor::disk(Designator::naa(&hex("6001405aabbccdd0 1122334455667788")).unwrap(), 512)
}

fn tape() -> CscdDescriptor {
    let parameters = CscdParameters::Tape { pad: true, fixed: true, block_length: 0x200 };
    CscdDescriptor::new(Designator::new(2, 0, 1, b"OFFHOST tape").unwrap(), parameters)
}

#[test]
fn cscd_descriptors_read_and_write_the_same_bytes() {
    let golden = [
        ("e4 00 0000 01 03 00 10  6001405aabbccdd0 1122334455667788 00000000  00 000200", disk()),
        ("e4 01 0000 02 01 00 0c  4f4646484f535420 74617065 00000000 00000000  05 000200", tape()),
    ];
    for (text, descriptor) in golden {
        let bytes = hex(text);
        assert_eq!(CscdDescriptor::parse(&bytes), Ok(descriptor.clone()), "{text}");
        assert_eq!(descriptor.emit(), bytes, "{text}");
    }
}

fn sample() -> List {
    let mut list = List::new(0x5A);
    list.cscd(disk());
    list.cscd(tape());
    let taken = |descriptor: &SegmentDescriptor| {
        SegmentType::of(descriptor.segment.code()).is_some_and(|row| row.supported_on(DeviceType::Tape))
    };
    list.segments = golden().into_iter().map(|(_, descriptor)| descriptor).filter(taken).collect();
    list.inline = Bytes::from_static(b"inline data");
    list
}

#[test]
fn a_whole_list_comes_back_as_it_was_built() {
    let list = sample();
    let bytes = Bytes::from(list.emit());
    assert_eq!(bytes.len(), list.length());
    assert_eq!(bytes[..16], hex("5a 00 0040 00000000 00000200 0000000b"), "the header counts its parts");
    assert_eq!(List::parse_lid1(&bytes, DeviceType::Tape), Ok(list));
}

#[test]
fn a_lid4_list_comes_back_as_it_was_built_and_numbers_its_cscds_from_one() {
    let mut list = List::lid4(0x1234_5678);
    (list.priority, list.immediate) = (2, true);
    assert_eq!((list.cscd(disk()), list.cscd(tape())), (CscdId(1), CscdId(2)));
    list.segments = sample().segments;
    list.inline = Bytes::from_static(b"inline data");
    let bytes = Bytes::from(list.emit());
    assert_eq!(bytes.len(), list.length());
    let header = "01 02 0020 0000000000000000 000000 01  ff 000000 12345678 000000000000000000000000000000000000 0040 0200 000b";
    assert_eq!(bytes[..48], hex(header), "the header counts its parts");
    assert_eq!(List::parse_lid4(&bytes, DeviceType::Tape).as_ref(), Ok(&list));
    assert_eq!((list.cscd_index(CscdId(0)), list.cscd_index(CscdId(2)), list.cscd_index(CscdId(3))), (None, Some(1), None));

    let refused = |at: usize, value: u8| {
        let mut bytes = list.emit();
        bytes[at] = value;
        List::parse_lid4(&Bytes::from(bytes), DeviceType::Tape).expect_err("must be refused").sense()
    };
    let illegal = Sense::illegal_request;
    assert_eq!(refused(0, 2), illegal(0x26, 0x00).at(at(0)), "PARAMETER LIST FORMAT");
    assert_eq!(refused(3, 0x21), illegal(0x26, 0x00).at(at(2)), "HEADER CSCD DESCRIPTOR LIST LENGTH");
    assert_eq!(refused(16, 0xE4), illegal(0x26, 0x00).at(at(16)), "HEADER CSCD DESCRIPTOR TYPE CODE");
    assert_eq!(refused(15, 0x03), illegal(0x24, 0x00), "IMMED with G_SENSE");
    assert_eq!(refused(1, 0x18), illegal(0x24, 0x00), "IMMED without an identifier");
    assert_eq!(refused(46, 0x10), illegal(0x1A, 0x00), "inline data is cut off");
}

#[test]
fn the_108_bytes_that_stock_clients_send_are_understood() {
    // As sg_xcopy and QEMU build it: LIST ID USAGE 10b, device type byte 0, one 02h.
    let bytes = hex("01 11 0040 00000000 0000001c 00000000
        e4 00 0000 01 03 00 10 6001405aabbccdd01122334455667788 00000000 00 000200
        e4 00 0000 01 03 00 08 5001405aabbccdd0 0000000000000000 00000000 04 000200
        02 00 0018 0000 0001 0000 ffff 0000000000000000 0000000000000800");
    let list = List::parse_lid1(&Bytes::from(bytes), DeviceType::Disk).unwrap();
    assert_eq!((list.id, list.usage, list.priority), (1, ListIdUsage::MayDiscard, 1));
    assert!(list.cscds[1].parameters.pad());
    assert!(matches!(&list.cscds[1].name, CscdName::Designator(designator) if designator.identifier.as_bytes().len() == 8));
    assert_eq!(list.segments.len(), 1);
}

/// The sense a list is refused with, after `change` was made to its bytes.
fn refused(manager: DeviceType, change: impl FnOnce(&mut Vec<u8>)) -> Sense {
    let mut bytes = sample().emit();
    change(&mut bytes);
    List::parse_lid1(&Bytes::from(bytes), manager).expect_err("must be refused").sense()
}

fn at(byte: u16) -> FieldPointer {
    FieldPointer::Parameter { byte, bit: None }
}

#[test]
fn each_defect_has_its_own_sense_and_pointer() {
    let tape = DeviceType::Tape;
    let illegal = Sense::illegal_request;
    assert_eq!(refused(tape, |list| list.truncate(15)), illegal(0x1A, 0x00));
    assert_eq!(refused(tape, |list| list.truncate(list.len() - 1)), illegal(0x1A, 0x00), "inline data is cut off");
    assert_eq!(refused(tape, |list| list[12] = 0x01), illegal(0x1A, 0x00), "16 MiB of inline data are over the limit");
    assert_eq!(refused(tape, |list| list[8] = 0x01), illegal(0x1A, 0x00));
    assert_eq!(refused(tape, |list| list[3] = 0x3F), illegal(0x26, 0x00).at(at(2)));
    assert_eq!(refused(tape, |list| list[1] = 0x18), illegal(0x26, 0x00).at(at(0)), "usage 11b wants identifier 0");
    assert_eq!(
        refused(tape, |list| list[1] = 0x08),
        illegal(0x26, 0x00).at(FieldPointer::Parameter { byte: 1, bit: Some(4) }),
        "usage 01b is reserved"
    );
    assert_eq!(refused(tape, |list| list[16] = 0xE0), illegal(0x26, 0x07).at(at(16)));
    assert_eq!(refused(tape, |list| list[48 + 7] = 21), illegal(0x26, 0x00).at(at(55)), "a designator of 21 bytes");
    assert_eq!(refused(tape, |list| list[48 + 28] = 0), illegal(0x26, 0x00).at(at(77)), "FIXED 0 with a block length");
    assert_eq!(refused(tape, |list| list[48 + 1] = 0x1F), illegal(0x26, 0x00).at(at(49)), "a device type without a format");
    assert_eq!(refused(tape, |list| list[80] = 0xBE), illegal(0x26, 0x09).at(at(80)), "no RODs here");
    assert_eq!(refused(tape, |list| list[80] = 0x77), illegal(0x26, 0x09).at(at(80)));
    assert_eq!(refused(DeviceType::Disk, |_| ()), illegal(0x26, 0x09).at(at(80 + 24 + 24 + 28)), "03h is for tapes");
    assert_eq!(
        refused(tape, |list| list[83] = 0x15),
        illegal(0x26, 0x00).at(at(107)),
        "the next one then reaches behind the list"
    );
}

#[test]
fn counts_over_the_limits_are_refused_as_such() {
    let mut list = List::new(1);
    list.cscds = vec![disk(); MAX_CSCDS + 1];
    let parse = |list: &List| List::parse_lid1(&Bytes::from(list.emit()), DeviceType::Disk).map_err(|error| error.sense());
    assert_eq!(parse(&list).unwrap_err().code, (0x26, 0x06));
    list.cscds.pop();
    assert!(parse(&list).is_ok());
    list.cscds.truncate(1);
    list.segments = vec![Segment::VerifyCscd { source: A, test_unit_ready: false }.into(); MAX_SEGMENTS];
    assert!(parse(&list).is_ok());
    list.push(Segment::VerifyCscd { source: A, test_unit_ready: false });
    assert_eq!(parse(&list).unwrap_err().code, (0x26, 0x08));
}

#[test]
fn embedded_data_may_not_reach_behind_its_descriptor() {
    let golden = hex("05 00 0010 0000 0001 00 000005 0005 0000 6f666668");
    assert_eq!(SegmentDescriptor::parse(&golden).unwrap_err().byte, 12);
    let uneven = hex("05 00 000d 0000 0001 00 000005 0001 0000 6f");
    assert_eq!(SegmentDescriptor::parse(&uneven).unwrap_err().byte, 2);
}

#[test]
fn operating_parameters_come_back_and_ascend() {
    for manager in [DeviceType::Disk, DeviceType::Tape] {
        let parameters = OperatingParameters::of(manager);
        let bytes = parameters.emit();
        assert_eq!(bytes[..4], ((bytes.len() - 4) as u32).to_be_bytes());
        assert!(parameters.implemented_descriptors.is_sorted());
        assert_eq!(OperatingParameters::parse(&bytes), Ok(parameters));
    }
    assert_eq!(
        results::implemented_descriptors(DeviceType::Disk),
        hex("00 01 02 04 05 06 07 08 09 0a 0b 0c 0d 0f 10 11 12 14 15 16 be bf e4 e5 ea eb fe")
    );
    assert_eq!(
        results::implemented_descriptors(DeviceType::Tape),
        hex("00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 e4 e5 ea eb")
    );
}

/// Cuts the page into (type, parameters).
fn page(manager: DeviceType) -> Vec<(u16, Vec<u8>)> {
    let mut rest = &third_party_copy_page(manager, (manager == DeviceType::Disk).then_some(BlockLength::B512))[..];
    let mut descriptors = Vec::new();
    while let [code_high, code_low, high, low, behind @ ..] = rest {
        let (parameters, next) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        descriptors.push((u16::from_be_bytes([*code_high, *code_low]), parameters.to_vec()));
        rest = next;
    }
    assert!(rest.is_empty());
    descriptors
}

#[test]
fn vpd_page_8f_says_the_same_as_operating_parameters() {
    for manager in [DeviceType::Disk, DeviceType::Tape] {
        let (page, bytes) = (page(manager), OperatingParameters::of(manager).emit());
        let body = |code: u16| page.iter().find(|(at, _)| *at == code).map(|(_, body)| body.clone()).unwrap();
        assert!(page.is_sorted_by_key(|(code, _)| *code));
        assert!(page.iter().all(|(_, body)| body.len().is_multiple_of(4)));
        let (commands, ids) = match manager {
            DeviceType::Disk => ("11 83 05 00 01 10 11 1c 84 08 00 01 03 04 05 06 07 08 0000", "0008 c000 c001 f800 ffff 0000"),
            _ => ("0d 83 03 00 01 1c 84 06 00 01 03 04 05 06 0000", "0006 c000 c001 ffff"),
        };
        assert_eq!(body(0x0001), hex(commands));
        assert_eq!(body(0x0004)[4..8], bytes[8..12], "counts");
        assert_eq!(body(0x0004)[8..12], bytes[12..16], "descriptor list length");
        assert_eq!(body(0x0004)[12..16], bytes[20..24], "inline data length");
        let codes = usize::from(bytes[43]);
        assert_eq!(body(0x0008)[..=codes], bytes[43..], "implemented descriptors, with their count");
        assert_eq!(body(0x000C), hex(ids));
        assert_eq!(body(0x8001)[2..4], bytes[34..36], "total concurrent copies");
        assert_eq!(body(0x8001)[7], bytes[36], "identified concurrent copies");
        assert_eq!(body(0x8001)[8..12], bytes[16..20], "segment length");
        assert_eq!(body(0x8001).len(), 0x20);
        assert_eq!(body(0x9101)[..4], bytes[28..32], "stream transfer size");
        assert_eq!(body(0x9101).len(), 0x0C);
        assert_eq!(body(0xC001)[..4], bytes[24..28], "held data limit");
        assert_eq!((body(0xC001)[4], body(0xC001).len()), (bytes[39], 0x1C));
    }
}

#[test]
fn copy_status_comes_back_in_the_smallest_unit_that_fits() {
    let (status, transferred) = (CopyCommandStatus::Done, 0xFFFF_FFFF);
    let status = CopyStatus { status, segments_processed: 3, transferred, held_data_discarded: false };
    assert_eq!(status.emit(), hex("00000008 01 0003 00 ffffffff")[..]);
    let large = CopyStatus { transferred: 5 << 40, held_data_discarded: true, ..status };
    assert_eq!(large.emit()[4..], hex("81 0003 02 00500000"));
    assert_eq!(CopyStatus::parse(&large.emit()), Ok(large));
}

#[test]
fn the_shared_header_has_its_fields_where_the_table_has_them() {
    let status = OperationStatus {
        service_action: 0x01,
        held_data_discarded: true,
        status: CopyOperationStatus::Failed,
        operation_counter: 0x1234,
        update_delay_ms: OperationStatus::NO_MORE_UPDATES,
        completion_status: 0x02,
        transferred: 0x1_0000_0000,
        in_blocks: false,
        segments_processed: 7,
        sense: hex("70 00 0a 00000000 0a 00000000 26 0a 00 00 0000"),
    };
    let bytes = status.emit();
    assert_eq!(bytes[..32], hex("00000030 01 82 1234 fffffffe 02 14 12 00 0000000100000000 0007 000000000000"));
    assert_eq!(bytes.len(), 32 + 20, "LENGTH OF THE SENSE DATA FIELD is a multiple of four");
    assert_eq!(OperationStatus::parse(&bytes), Ok((status.clone(), &[][..])));
    let held = status.emit_with(b"held");
    assert_eq!(held[..4], hex("00000038"));
    assert_eq!(held[52..], hex("00000004 68656c64"));
}

#[test]
fn failure_details_come_back_whole() {
    let details = FailureDetails { status: 0x02, sense: hex("70 00 0a 00000000 0a 00000000 26 0a 00 00 0000") };
    let bytes = details.emit();
    assert_eq!(bytes[..4], 74_u32.to_be_bytes(), "AVAILABLE DATA counts what follows it");
    assert_eq!((bytes[56], bytes[59]), (0x02, 18));
    assert_eq!(FailureDetails::parse(&bytes), Ok(Some(details)));
    assert_eq!(FailureDetails::parse(&[0; 4]), Ok(None));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_or_understood(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = List::parse_lid1(&Bytes::from(bytes.clone()), DeviceType::Tape);
        let _ = List::parse_lid4(&Bytes::from(bytes.clone()), DeviceType::Disk);
        let _ = OperationStatus::parse(&bytes);
        let _ = OperatingParameters::parse(&bytes);
        let _ = FailureDetails::parse(&bytes);
        let _ = CopyStatus::parse(&bytes);
    }

    /// Damage in a good list reaches deeper than noise does.
    #[test]
    fn a_damaged_list_is_refused_or_comes_back_as_it_is_read(
        damage in proptest::collection::vec((0_usize..400, any::<u8>()), 1..6),
    ) {
        let mut bytes = sample().emit();
        let length = bytes.len();
        damage.into_iter().for_each(|(at, value)| bytes[at % length] = value);
        if let Ok(list) = List::parse_lid1(&Bytes::from(bytes), DeviceType::Tape) {
            let again = List::parse_lid1(&Bytes::from(list.emit()), DeviceType::Tape);
            prop_assert_eq!(again, Ok(list));
        }
    }
}
