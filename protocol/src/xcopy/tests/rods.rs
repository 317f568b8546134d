//! ROD tokens, ROD CSCD descriptors, and the parameter lists that have them.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::rod::{BlockFacts, RangeDescriptor, RodCscd, RodToken, RodType, TokenFault};
use super::super::token::{all_rod_tokens, parse_token_descriptors, token_descriptors};
use super::super::{CscdDescriptor, CscdId, List, ListIdUsage, PopulateToken, Segment, WriteUsingToken};
use super::{disk, page};
use crate::scsi::{DeviceType, FieldPointer, Sense};
use crate::units::Lba;
use crate::wire::hex;

const FACTS: BlockFacts = BlockFacts { block_length: 512, physical_exponent: 3, thin: true, lowest_aligned: 7 };

fn token() -> RodToken {
    let secret = std::array::from_fn(|byte| byte as u8);
    RodToken::new(RodType::Persistent, 0x0102_0304_0506_0708, &disk(), 0x1234_5600, FACTS, "iqn.a:b", &secret)
}

fn range(lba: u64, blocks: u32) -> RangeDescriptor {
    RangeDescriptor { lba: Lba(lba), blocks }
}

#[test]
fn a_token_has_its_fields_where_the_table_has_them() {
    let (token, creator) = (token(), disk().emit());
    let bytes = token.as_bytes();
    assert_eq!(bytes[..16], hex("00800002 0000 01f8 0102030405060708"));
    assert_eq!(bytes[16..48], creator[..]);
    assert_eq!(bytes[48..64], hex("000000000000000000000000 12345600"));
    assert_eq!(bytes[64..96], [0; 32]);
    assert_eq!(bytes[96..104], hex("00000200 00 03 c007"));
    assert_eq!(bytes[128..140], hex("53 a8 00 08 69 71 6e 2e 61 3a 62 00"), "a SCSI name string of the target device");
    assert_eq!(bytes[256..], std::array::from_fn::<u8, 256, _>(|byte| byte as u8));
    assert_eq!(RodToken::parse(bytes), Ok(token.clone()));
    assert_eq!((token.identifier(), token.bytes_represented()), (0x0102_0304_0506_0708, 0x1234_5600));
    assert_eq!(format!("{token:?}"), "RodToken(00800002h, 0102030405060708)", "its secret is not told");
}

#[test]
fn a_name_that_is_too_long_for_a_token_is_cut() {
    let token = RodToken::new(RodType::Default, 1, &disk(), 512, FACTS, &"ä".repeat(150), &[0; 256]);
    assert_eq!((token.target()[3], token.target().len()), (124, 128));
    assert!(RodToken::parse(token.as_bytes()).is_ok());
}

#[test]
fn each_defect_of_a_token_has_its_own_sense() {
    let changed = |change: &dyn Fn(&mut [u8; 512])| {
        let mut bytes = *token().as_bytes();
        change(&mut bytes);
        RodToken::parse(&bytes).map_err(|fault| fault.sense().code)
    };
    assert_eq!(changed(&|bytes| bytes[7] = 0xF0), Err((0x23, 0x0A)), "INVALID TOKEN LENGTH");
    assert_eq!(changed(&|bytes| bytes[5] = 1), Err((0x23, 0x05)), "TOKEN CORRUPT");
    assert_eq!(changed(&|bytes| bytes[80] = 1), Err((0x23, 0x05)));
    assert_eq!(changed(&|bytes| bytes[16] = 0xE0), Err((0x23, 0x05)), "no identification descriptor");
    assert_eq!(changed(&|bytes| bytes[21] = 0x01), Err((0x23, 0x05)), "no NAA");
    assert_eq!(changed(&|bytes| bytes[..4].copy_from_slice(&hex("00010000"))), Err((0x23, 0x01)), "UNSUPPORTED TOKEN TYPE");
    assert_eq!(changed(&|bytes| bytes[..4].copy_from_slice(&hex("0080ffff"))), Err((0x23, 0x01)), "nothing has the type \"any\"");
    let zero = RodToken::zero();
    assert_eq!(zero.as_bytes()[..8], hex("ffff0001 0000 01f8"));
    assert!(zero.as_bytes()[8..].iter().all(|byte| *byte == 0));
    assert!(RodToken::parse(zero.as_bytes()).unwrap().is_zero());
    let mut other = *token().as_bytes();
    other[511] ^= 1;
    assert!(!token().is(&RodToken::parse(&other).unwrap()) && token().is(&token()));
    assert_eq!(RodToken::parse(&[0; 512]), Err(TokenFault::Length(0)));
}

#[test]
fn populate_token_reads_and_writes_the_same_bytes() {
    let golden = "002e 03 00 0000003c 00800001 0000 0020  0000000000000010 00000008 00000000  0000000000000000 00000010 00000000";
    let list = PopulateToken {
        immediate: true,
        kind: Some(RodType::ChangeVulnerable),
        inactivity_timeout: 60,
        ranges: vec![range(16, 8), range(0, 16)],
    };
    assert_eq!(PopulateToken::parse(&hex(golden)), Ok(list.clone()));
    assert_eq!(list.emit(), hex(golden));
}

#[test]
fn write_using_token_reads_and_writes_the_same_bytes() {
    let list = WriteUsingToken {
        immediate: false,
        deletes_token: true,
        offset: 0x0102_0304_0506_0708,
        token: Box::new(*token().as_bytes()),
        ranges: vec![range(16, 8)],
    };
    let bytes = list.emit();
    assert_eq!(bytes[..16], hex("0226 02 0000000000 0102030405060708"));
    assert_eq!(bytes[16..528], token().as_bytes()[..]);
    assert_eq!(bytes[528..], hex("000000000000 0010  0000000000000010 00000008 00000000"));
    assert_eq!(WriteUsingToken::parse(&bytes), Ok(list));
}

/// Sense and byte of a list that is refused.
fn refusal(sense: Sense) -> ((u8, u8), Option<u16>) {
    let byte = match sense.field {
        Some(FieldPointer::Parameter { byte, .. }) => Some(byte),
        _ => None,
    };
    (sense.code, byte)
}

#[test]
fn each_defect_of_a_token_list_has_its_own_sense_and_pointer() {
    let good = PopulateToken { immediate: false, kind: None, inactivity_timeout: 0, ranges: vec![range(0, 1), range(9, 0)] };
    let populate = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.emit();
        change(&mut bytes);
        PopulateToken::parse(&bytes).map_err(|error| refusal(error.sense()))
    };
    assert_eq!(populate(&|_| ()), Ok(good.clone()));
    assert_eq!(populate(&|list| list.truncate(15)), Err(((0x1A, 0x00), None)));
    assert_eq!(populate(&|list| list[1] = 0x1D), Err(((0x26, 0x00), Some(0))));
    assert_eq!(populate(&|list| list[15] = 0x0F), Err(((0x26, 0x00), Some(14))));
    assert_eq!(populate(&|list| list[4] = 1), Err(((0x26, 0x00), Some(4))), "too long an inactivity timeout");
    assert_eq!(populate(&|list| (list[2], list[11]) = (2, 9)), Err(((0x26, 0x00), Some(8))), "no ROD type");
    assert_eq!(populate(&|list| list[11] = 9), Ok(good.clone()), "ignored without RTV");
    assert!(populate(&|list| list[39] = 0).is_ok(), "a range of nothing may lie anywhere");
    assert_eq!(populate(&|list| (list[39], list[43]) = (0, 1)), Err(((0x26, 0x00), Some(32))), "block 0 twice");
    let cut = populate(&|list| list.truncate(47)).unwrap();
    assert_eq!(cut.ranges, good.ranges[..1], "what is cut off is ignored");
    let many = PopulateToken { ranges: (0..257).map(|lba| range(lba, 1)).collect(), ..good };
    assert_eq!(PopulateToken::parse(&many.emit()).map_err(|error| refusal(error.sense())), Err(((0x26, 0x08), Some(14))));
    let write = |bytes: &[u8]| WriteUsingToken::parse(bytes).map_err(|error| refusal(error.sense()));
    assert_eq!(write(&[0]), Err(((0x1A, 0x00), None)));
    assert_eq!(write(&hex("0225")), Err(((0x26, 0x00), Some(0))));
    assert_eq!(write(&[&hex("0226")[..], &[0; 534]].concat()), Err(((0x26, 0x00), Some(534))), "no range");
}

#[test]
fn a_rod_cscd_descriptor_reads_and_writes_the_same_bytes() {
    let rod =
        RodCscd { returns_token: true, lifetime: 600, inactivity_timeout: 60, ..RodCscd::internal(RodType::ChangeVulnerable) };
    let descriptor = CscdDescriptor::rod(rod);
    let golden = hex("fe 00 0000 ffff 0000 00800001 00000258 0000003c 0000 01 00 00000000 00 000000");
    assert_eq!(descriptor.emit(), golden);
    assert_eq!(CscdDescriptor::parse(&golden), Ok(descriptor));
    let by_token = hex("fe 1f 0000 f800 0000 00000000 00000000 00000000 0000 00 01 00000010 04 000200");
    let read = CscdDescriptor::parse(&by_token).unwrap();
    assert_eq!(read.emit()[4..], by_token[4..], "whatever the device type says");
}

#[test]
fn each_defect_of_a_rod_cscd_descriptor_points_at_its_field() {
    let mut list = List::new(3);
    let rod = list.cscd(CscdDescriptor::rod(RodCscd::internal(RodType::Default)));
    list.push(Segment::PopulateRodRange { source: CscdId::THIS_LUN, destination: rod, from: Lba(0), blocks: 1 });
    let parse = |bytes: Vec<u8>| List::parse_lid1(&Bytes::from(bytes), DeviceType::Disk).map_err(|error| refusal(error.sense()));
    assert_eq!(parse(list.emit()), Ok(list.clone()));
    let changed = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = list.emit();
        change(&mut bytes[16..]);
        parse(bytes).map(|_| ())
    };
    let field = |byte: u16| Err(((0x26, 0x00), Some(16 + byte)));
    assert_eq!(changed(&|cscd| cscd[4] = 0xF8), Err(((0x23, 0x02), Some(20))), "F8FFh is another copy manager's");
    assert_eq!(changed(&|cscd| cscd[4..6].copy_from_slice(&[0xF8, 0])), field(4), "F800h goes with a token");
    assert_eq!(changed(&|cscd| cscd[1] = 1), field(1));
    assert_eq!(changed(&|cscd| cscd[11] = 7), field(8));
    assert_eq!(changed(&|cscd| cscd[15] = 1), field(12), "a lifetime without R_TOKEN");
    assert_eq!(changed(&|cscd| cscd[19] = 1), field(16));
    assert_eq!(changed(&|cscd| cscd[23] = 1), field(23));
    assert_eq!(changed(&|cscd| cscd[27] = 1), field(24));
    assert_eq!(changed(&|cscd| (cscd[22], cscd[12]) = (1, 1)), field(12), "too long a lifetime");
    assert_eq!(changed(&|cscd| (cscd[22], cscd[16]) = (1, 1)), field(16));
    let mut unnamed = List { id: 0, usage: ListIdUsage::None, ..list.clone() };
    unnamed.cscds[0] = CscdDescriptor::rod(RodCscd { returns_token: true, ..RodCscd::internal(RodType::Default) });
    assert_eq!(parse(unnamed.emit()).map(|_| ()), field(22));
    let mut by_token = List::new(3);
    by_token.cscd(CscdDescriptor::rod(RodCscd::of_token(4)));
    by_token.inline = vec![0; 515].into();
    assert_eq!(parse(by_token.emit()).map(|_| ()), field(24), "a byte of the token is missing");
    by_token.inline = vec![0; 516].into();
    assert_eq!(parse(by_token.emit()), Ok(by_token.clone()));
    let tape = List::parse_lid1(&Bytes::from(by_token.emit()), DeviceType::Tape).unwrap_err();
    assert_eq!(refusal(tape.sense()), ((0x26, 0x07), Some(16)), "tapes have no RODs");
}

#[test]
fn tokens_come_back_from_what_is_received() {
    let token = token();
    let data = token_descriptors([(0, &token), (7, &token)]);
    let data = [&(data.len() as u32).to_be_bytes()[..], &data].concat();
    assert_eq!(parse_token_descriptors(&data).unwrap(), [(0, token.clone()), (7, token.clone())]);
    assert!(parse_token_descriptors(&data[..100]).is_err() && parse_token_descriptors(&hex("00000001 00")).is_err());
    let all = all_rod_tokens([&token]);
    assert_eq!(all[..8], hex("00000064 00000000"));
    assert_eq!(all[8..], token.as_bytes()[..96]);
}

#[test]
fn page_8f_of_a_disk_tells_of_rods_as_the_lists_are_checked() {
    let page = page(DeviceType::Disk);
    let descriptor = |code: u16| page.iter().find(|(other, _)| *other == code).map(|(_, body)| body.clone());
    let limits = descriptor(0x0000).expect("Block Device ROD Limits");
    assert_eq!(limits.len(), 32);
    assert_eq!(limits[6..16], hex("0100 00000e10 00000078"));
    assert_eq!(limits[16..32], hex("0000000080000000 0000000000200000"), "in blocks of 512 bytes");
    let features = descriptor(0x0106).expect("ROD Token Features");
    assert_eq!((features.len(), features[0] & 0x0F), (92, 0));
    assert_eq!(features[12..24], hex("0000003c 00015180 00000e10"));
    assert_eq!(features[42..60], hex("0030 00 00 002c 0000 0000 0000010000000000"));
    let types = descriptor(0x0108).expect("Supported ROD Types");
    let codes: Vec<(u32, u8)> =
        types[4..].chunks(64).map(|row| (u32::from_be_bytes([row[0], row[1], row[2], row[3]]), row[4])).collect();
    assert!(codes.is_sorted());
    assert_eq!(codes.last(), Some(&(0xFFFF_0001, 0x02)), "TOKEN_OUT of zeros is prohibited");
    assert_eq!(codes.first(), Some(&(0, 0x80)));
    assert_eq!(usize::from(u16::from_be_bytes([types[2], types[3]])), types.len() - 4);
    assert!(descriptor(0x000C).expect("Supported CSCD IDs")[2..].chunks(2).any(|id| id == [0xF8, 0x00]));
    assert!(super::page(DeviceType::Tape).iter().all(|(code, _)| ![0x0000, 0x0106, 0x0108].contains(code)));
}

#[test]
fn ranges_that_share_a_block_are_found_wherever_they_stand() {
    assert_eq!(RangeDescriptor::overlap(&[range(10, 5), range(0, 10), range(15, 1)]), None);
    assert_eq!(RangeDescriptor::overlap(&[range(10, 5), range(0, 11)]), Some(1));
    assert_eq!(RangeDescriptor::overlap(&[range(u64::MAX, 1), range(3, 0), range(u64::MAX, 9)]), Some(2));
    assert_eq!(RangeDescriptor::overlap(&[range(3, 0), range(3, 0)]), None, "nothing is in them");
}

proptest! {
    #[test]
    fn arbitrary_token_lists_are_refused_or_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..700), length in any::<u16>()) {
        let mut bytes = bytes;
        for at in [0, 14, 534] {
            if let Some(field) = bytes.get_mut(at..at + 2) {
                field.copy_from_slice(&(length % 0x0300).to_be_bytes());
            }
        }
        // A list may be cut off before its first whole range: such a one is not written.
        if let Some(list) = PopulateToken::parse(&bytes).ok().filter(|list| !list.ranges.is_empty()) {
            prop_assert_eq!(PopulateToken::parse(&list.emit()), Ok(list));
        }
        if let Some(list) = WriteUsingToken::parse(&bytes).ok().filter(|list| !list.ranges.is_empty()) {
            prop_assert_eq!(WriteUsingToken::parse(&list.emit()), Ok(list));
        }
        let _ = parse_token_descriptors(&bytes);
        if let Some(token) = bytes.first_chunk() {
            let _ = RodToken::parse(token);
        }
    }

    #[test]
    fn overlap_agrees_with_looking_at_every_block(ranges in proptest::collection::vec((0_u64..40, 0_u32..6), 0..10)) {
        let ranges: Vec<_> = ranges.into_iter().map(|(lba, blocks)| range(lba, blocks)).collect();
        let mut seen = std::collections::HashSet::new();
        let twice = ranges.iter().flat_map(|range| range.lba.0..range.lba.0 + u64::from(range.blocks)).any(|lba| !seen.insert(lba));
        prop_assert_eq!(RangeDescriptor::overlap(&ranges).is_some(), twice);
    }
}
