//! Partitions, the memory chip, WORM and protection, encryption and compression, as an initiator sees them.

use super::*;

const WORM_OVERWRITE: (u8, u8) = (0x30, 0x0C);

impl Setup {
    /// With the label changed before the drive gets the cartridge.
    fn labelled(change: impl FnOnce(&mut Metadata)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut metadata = Metadata::new("TEST01L8", 64 << 20);
        change(&mut metadata);
        Cartridge::create(folder.path(), &metadata).unwrap();
        Self::serving(open(&folder), folder)
    }

    fn reopened(self) -> Self {
        drop(self.tape);
        Self::serving(open(&self.folder), self.folder)
    }

    /// MODE SELECT(10) of a page by its bytes, header of the page included.
    fn select(&self, page: &str) {
        let list = hex(&format!("0000 00 10 00 00 0000 {page}"));
        self.good(&format!("55 10 00 00 00 00 00 {:04x} 00", list.len()), &list);
    }

    /// MODE SENSE(10) without block descriptor.
    fn sense(&self, page: u8, subpage: u8) -> Vec<u8> {
        self.good(&format!("5A 08 {page:02x} {subpage:02x} 00 00 00 0100 00"), &[])[8..].to_vec()
    }

    /// Two partitions, the second of 10 million bytes.
    fn divided() -> Self {
        let setup = Self::new();
        setup.select("11 0A 01 01 3C 03 06 00 FFFF 000A");
        setup.good("04 00 01 0000 00", &[]);
        setup
    }

    fn attribute(&self, partition: u8, id: u16) -> Vec<u8> {
        let data = self.good(&format!("8C 00 000000 00 00 {partition:02x} {id:04x} 00000400 00 00"), &[]);
        let length = usize::from(u16::from_be_bytes([data[7], data[8]]));
        assert_eq!(data[4..6], id.to_be_bytes());
        data[9..9 + length].to_vec()
    }
}

const KEY: &str = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F";
const OTHER_KEY: &str = "FF0102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F";

/// The set data encryption page: scope and flags, modes, key and the name of the key.
fn set_key(head: &str, modes: &str, key: &str) -> Vec<u8> {
    hex(&format!("0010 0038 {head} {modes} 01 00 00 00000000000000 0020 {key} 00 00 0004 6E616D65"))
}

#[test]
fn a_medium_is_divided_and_its_partitions_do_not_touch_each_other() {
    let setup = Setup::divided();
    let page = setup.sense(0x11, 0);
    assert_eq!(page, hex("11 0A 01 01 1C 03 06 00 003A 000A"), "64 MiB are 57.1 and 10 million bytes");
    setup.write("zero|");
    setup.good("92 02 00 01 0000000000000000 000000 00", &[]);
    assert_eq!(setup.good("34 06 00000000000000 00", &[])[..8], hex("80 000000 00000001")[..]);
    setup.write("one");
    assert_eq!(setup.good("34 00 00000000000000 00", &[])[..8], hex("00 01 0000 00000001")[..]);
    assert_eq!(setup.sense(0x10, 0)[3], 1, "ACTIVE PARTITION");
    setup.good("2B 02 00 00000000 00 00 00", &[]);
    assert_eq!(setup.good("08 02 000010 00", &[]), b"zero");
    setup.good("2B 02 00 00000000 00 01 00", &[]);
    assert_eq!(setup.good("08 02 000010 00", &[]), b"one");
    assert_eq!(setup.check("2B 02 00 00000000 00 02 00", &[]).1, INVALID_FIELD);
    let setup = setup.reopened();
    setup.good("92 1A 00 01 0000000000000000 000000 00", &[]);
    assert_eq!(setup.position(), (1, 0), "end of data of partition 1");
    let capacities = setup.good("4D 00 57 00 00 0202 0100 00", &[]);
    assert_eq!(capacities[4..24], hex("0202 03 10 07 00 0000 00000039 07 00 0001 0000000A")[..]);
    assert_eq!(setup.check("04 00 00 0000 00", &[]).1, (0x3B, 0x0C), "not at the beginning of partition 0");
    setup.good("2B 02 00 00000000 00 00 00", &[]);
    setup.good("04 00 00 0000 00", &[]);
    assert_eq!(setup.sense(0x11, 0)[3], 0);
    assert_eq!(setup.check("08 02 000010 00", &[]).1, END_OF_DATA);
    assert!(!setup.folder.path().join("p1.tap").exists());
}

#[test]
fn sizes_that_the_medium_has_not_are_refused() {
    let setup = Setup::new();
    setup.select("11 0A 01 01 3C 03 09 00 0001 0001");
    assert_eq!(setup.check("04 00 01 0000 00", &[]).1, (0x26, 0x02));
    setup.write("a");
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 02 000010 00", &[]), b"a", "nothing was formatted");
    assert_eq!(setup.check("04 00 07 0000 00", &[]).1, INVALID_FIELD);
    setup.select("11 0A 01 01 9C 03 00 00 0000 0000");
    setup.good(REWIND, &[]);
    setup.good("04 00 01 0000 00", &[]);
    assert_eq!(setup.sense(0x11, 0)[3], 1, "fixed partitions");
}

#[test]
fn a_capacity_can_be_a_part_of_what_there_is() {
    let setup = Setup::new();
    setup.write("a");
    assert_eq!(setup.check("0B 00 00 7FFF 00", &[]).1, (0x3B, 0x0C));
    setup.good(REWIND, &[]);
    setup.good("0B 00 00 8000 00", &[]);
    assert_eq!(setup.attribute(0, 1), (32_u64).to_be_bytes());
    assert_eq!(setup.check("08 02 000010 00", &[]).1, END_OF_DATA);
    let setup = setup.reopened();
    setup.good("0B 00 00 FFFF 00", &[]);
    assert_eq!(setup.attribute(0, 1), (64_u64).to_be_bytes());
}

#[test]
fn attributes_are_kept_on_the_cartridge() {
    let setup = Setup::divided();
    let list = hex("00000011  080B 01 0010 322E342E3020202020202020202020 20");
    assert_eq!(setup.check("8D 00 000000 00 00 00 0000 00000015 00 00", &list).1, (0x1A, 0), "a list cut off");
    let version = hex("00000015  080B 01 0010 322E342E30202020202020202020 2020");
    setup.good("8D 01 000000 00 00 01 0000 00000019 00 00", &version);
    let coherency = hex("0000000A  080C 00 0005 0102030405");
    setup.good("8D 01 000000 00 00 01 0000 0000000E 00 00", &coherency);
    assert_eq!(setup.check("8C 00 000000 00 00 00 080C 00000100 00 00", &[]).1, INVALID_FIELD, "of another partition");
    let setup = setup.reopened();
    assert_eq!(setup.attribute(1, 0x80C), [1, 2, 3, 4, 5]);
    assert_eq!(setup.attribute(1, 0x80B), b"2.4.0           ");
    assert_eq!(setup.attribute(0, 0x806 - 0x405), *setup.attribute(0, 0x401), "medium serial number");
    assert_eq!(setup.good("8C 03 000000 00 00 00 0000 00000010 00 00", &[]), hex("0002 00 02"));
    assert_eq!(setup.good("8C 02 000000 00 00 00 0000 00000010 00 00", &[]), hex("0002 00 01"));
    let supported = setup.good("8C 05 000000 00 00 00 0000 00001000 00 00", &[]);
    assert!(supported[4..].chunks(2).any(|id| id == [0x08, 0x0C]));
    let ids = setup.good("8C 01 000000 00 00 01 0800 00000100 00 00", &[]);
    assert_eq!(ids, hex("00000004 080B 080C"));
}

#[test]
fn the_volume_change_reference_changes_with_a_write_after_it_was_read() {
    let setup = Setup::new();
    let first = setup.attribute(0, 9);
    assert_eq!(setup.attribute(0, 9), first);
    setup.write("a");
    let second = setup.attribute(0, 9);
    assert_ne!(second, first);
    setup.good(REWIND, &[]);
    setup.good("08 02 000010 00", &[]);
    assert_eq!(setup.attribute(0, 9), second, "reading changes nothing");
    setup.good("10 00 000001 00", &[]);
    let third = setup.attribute(0, 9);
    assert_ne!(third, second);
    assert_eq!(setup.reopened().attribute(0, 9), third);
}

#[test]
fn a_worm_cartridge_is_appended_to_and_never_overwritten() {
    let setup = Setup::labelled(|metadata| metadata.worm = true);
    assert_eq!(setup.good("1A 08 3F 00 04 00", &[])[1], 0x8C, "MEDIUM TYPE");
    assert_eq!(setup.sense(0x1D, 0)[2], 0x01, "WORMM");
    setup.write("one|two||");
    setup.good("11 01 FFFFFF 00", &[]);
    setup.write("three|");
    assert_eq!(setup.position(), (6, 3), "the second of the filemarks at the end was overwritten");
    setup.good("2B 00 00 00000001 00 00 00", &[]);
    for cdb in ["0A 00 000001 00", "10 00 000001 00", "19 00 000000 00"] {
        assert_eq!(setup.check(cdb, b"x").1, WORM_OVERWRITE, "{cdb}");
    }
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("04 00 00 0000 00", &[]).1, WORM_OVERWRITE);
    let alerts = setup.good("4D 00 6E 00 00 003C 0200 00", &[]);
    assert_eq!(alerts[4..][..5], hex("003C 03 01 01")[..], "flag 60");
    assert_eq!(setup.good("08 02 000010 00", &[]), b"one");
}

#[test]
fn in_append_only_mode_an_overwrite_has_to_be_allowed() {
    let setup = Setup::new();
    setup.write("one,two");
    setup.select("50 01 001C 00 12 0000 000000000000000000000000000000000000000000000000");
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("0A 00 000001 00", b"x").1, WORM_OVERWRITE);
    assert_eq!(setup.check("04 00 00 0000 00", &[]).1, WORM_OVERWRITE);
    assert_eq!(setup.check("82 00 01 00 0000000000000001 000000 00", &[]).1, INVALID_FIELD, "not where it stands");
    setup.good("82 00 01 00 0000000000000000 000000 00", &[]);
    setup.good("0A 00 000001 00", b"x");
    setup.good("0A 00 000001 00", b"y");
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("0A 00 000001 00", b"x").1, WORM_OVERWRITE, "allowed once");
    setup.good("82 00 02 00 0000000000000000 000000 00", &[]);
    setup.good("04 00 00 0000 00", &[]);
}

#[test]
fn programmable_early_warning_is_told_once_where_it_begins() {
    let setup = Setup::with_capacity(8 << 20);
    setup.select("50 01 001C 00 02 0003 000000000000000000000000000000000000000000000000");
    let record = vec![7; 1 << 20];
    let mut told = Vec::new();
    for n in 0..8 {
        let response = setup.send("0A 00 100000 00", &record);
        if let Some(sense) = response.sense {
            told.push((n, sense.key, sense.code, sense.stream.end_of_medium));
        }
    }
    assert_eq!(told[0], (4, SenseKey::NoSense, (0, 7), true));
    assert_eq!(told[1], (6, SenseKey::NoSense, (0, 2), true));
    assert_eq!(told[2].1, SenseKey::VolumeOverflow);
    assert_eq!(setup.good("34 06 00000000000000 00", &[])[0], 0x41, "EOP and BPEW");
}

#[test]
fn blocks_are_read_in_reverse() {
    let setup = Setup::new();
    setup.write("abc|def,ghi");
    assert_eq!(setup.good("0F 04 000003 00", &[]), b"ghi");
    assert_eq!(setup.good("0F 00 000003 00", &[]), b"fed", "the last byte first");
    assert_eq!(setup.check("0F 04 000003 00", &[]), (SenseKey::NoSense, FILEMARK, "F".into(), Some(3), vec![]));
    assert_eq!(setup.position(), (1, 0));
    assert_eq!(setup.check("0F 04 000005 00", &[]).3, Some(2));
    assert_eq!(setup.check("0F 04 000003 00", &[]), (SenseKey::NoSense, BEGINNING, "E".into(), Some(3), vec![]));
}

#[test]
fn verify_reads_and_compares() {
    let setup = Setup::new();
    setup.write("abc,def|");
    setup.good(REWIND, &[]);
    setup.good("13 00 000003 00", &[]);
    setup.good("13 02 000003 00", b"def");
    assert_eq!(setup.check("13 00 000003 00", &[]).1, FILEMARK);
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("13 02 000003 00", b"abd").0, SenseKey::Miscompare);
    assert_eq!(setup.check("13 00 000005 00", &[]), (SenseKey::NoSense, (0, 0), "I".into(), Some(2), vec![]));
}

#[test]
fn protected_blocks_carry_their_sums_both_ways() {
    let setup = Setup::new();
    setup.select("4A F0 001C 02 04 C0 00 000000000000000000000000000000000000000000000000");
    let sum = [&b"123456789"[..], &0xE306_9283_u32.to_le_bytes()].concat();
    setup.good("0A 00 00000D 00", &sum);
    let mut wrong = sum.clone();
    wrong[3] ^= 1;
    assert_eq!(setup.check("0A 00 00000D 00", &wrong).0, SenseKey::HardwareError);
    assert_eq!(setup.position(), (1, 0), "nothing was written");
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 00 00000D 00", &[]), sum);
    setup.select("4A F0 001C 00 00 00 00 000000000000000000000000000000000000000000000000");
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 02 000020 00", &[]), b"123456789");
}

#[test]
fn compression_shortens_the_image_and_not_the_record() {
    let setup = Setup::new();
    setup.select("0F 0E C0 80 00000000 000000FF 00000000");
    assert_eq!(setup.sense(0x0F, 0)[2], 0xC0);
    assert_eq!(setup.sense(0x10, 0)[14], 1, "the other name of the switch");
    let record = vec![7; 1 << 20];
    setup.good("0A 00 100000 00", &record);
    assert!(setup.tape.status().1.used < 1 << 16);
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 00 100000 00", &[]), record);
    let ratio = setup.good("4D 00 5B 00 00 0001 0010 00", &[]);
    assert!(u16::from_be_bytes([ratio[8], ratio[9]]) > 1000, "{ratio:02x?}");
    let setup = setup.reopened();
    assert_eq!(setup.good("08 02 200000 00", &[]), record, "also with compression off");
}

#[test]
fn encrypted_records_need_their_key() {
    let setup = Setup::new();
    setup.write("plain");
    setup.good("B5 20 0010 00 00 0000003C 00 00", &set_key("40 00", "02 02", KEY));
    setup.write("secret");
    let status = setup.good("A2 20 0020 00 00 00000100 00 00", &[]);
    assert_eq!(status[4..12], hex("42 02 02 01 00000001")[..]);
    assert_eq!(&status[24..], hex("00 00 0004 6E616D65"));
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("08 02 000010 00", &[]).1, (0x74, 0x02), "not encrypted");
    assert_eq!(setup.position(), (0, 0));
    setup.good("11 00 000001 00", &[]);
    let next = setup.good("A2 20 0021 00 00 00000100 00 00", &[]);
    assert_eq!(next[4..], hex("0000000000000001 35 01 01 00 00 01 0004 6E616D65")[..]);
    assert_eq!(setup.good("08 02 000010 00", &[]), b"secret");
    let image = std::fs::read(setup.folder.path().join("p0.tap")).unwrap();
    assert!(!image.windows(6).any(|window| window == b"secret"));

    setup.good("B5 20 0010 00 00 0000003C 00 00", &set_key("40 00", "02 03", OTHER_KEY));
    setup.good(REWIND, &[]);
    assert_eq!(setup.good("08 02 000010 00", &[]), b"plain", "mixed");
    assert_eq!(setup.check("08 02 000010 00", &[]).1, (0x74, 0x03));
    assert_eq!(setup.good("A2 20 0021 00 00 00000100 00 00", &[])[12], 0x36);
    setup.good("B5 20 0010 00 00 0000003C 00 00", &set_key("40 00", "00 00", KEY));
    assert_eq!(setup.check("08 02 000010 00", &[]).1, (0x74, 0x01));
    assert_eq!(setup.position(), (1, 0));
}

#[test]
fn a_key_belongs_to_its_scope() {
    let setup = Setup::new();
    let other = nexus(2, &setup.tape);
    let ask =
        |nexus: &Arc<Nexus>| send_as(&setup.tape, nexus, "A2 20 0020 00 00 00000100 00 00", &[]).data_in.concat()[4..7].to_vec();
    setup.good("00 0000000000", &[]);
    assert_eq!(send_as(&setup.tape, &other, "00 0000000000", &[]).status, Status::Good);
    setup.good("B5 20 0010 00 00 0000003C 00 00", &set_key("20 00", "02 02", KEY));
    assert_eq!((ask(&setup.nexus), ask(&other)), (hex("21 02 02"), hex("00 00 00")));
    setup.good("B5 20 0010 00 00 0000003C 00 00", &set_key("40 04", "02 03", KEY));
    let told = send_as(&setup.tape, &other, "00 0000000000", &[]).sense.unwrap();
    assert_eq!((told.key, told.code), (SenseKey::UnitAttention, (0x2A, 0x11)));
    assert_eq!((ask(&setup.nexus), ask(&other)), (hex("42 02 03"), hex("02 02 03")));
    setup.good("1B 00 0000 00 00", &[]);
    assert_eq!(ask(&other), hex("00 00 00"), "CKOD: the key went with the medium");
}

#[test]
fn a_cartridge_can_be_held() {
    let setup = Setup::new();
    setup.good("1B 00 0000 08 00", &[]);
    assert_eq!(setup.check("00 0000000000", &[]).1, (0x04, 0x02));
    setup.good("1B 00 0000 01 00", &[]);
    setup.good("00 0000000000", &[]);
    assert_eq!(setup.check("1B 00 0000 05 00", &[]).1, INVALID_FIELD, "EOT with LOAD");
}

#[test]
fn counters_begin_anew_when_asked_to() {
    let setup = Setup::new();
    setup.write("abcd");
    let written = || setup.good("4D 00 4C 00 00 0000 0010 00", &[])[8..16].to_vec();
    assert_eq!(written(), 4_u64.to_be_bytes());
    setup.good("4C 02 40 00 000000 0000 00", &[]);
    assert_eq!(written(), 0_u64.to_be_bytes());
    assert_eq!(setup.check("4C 02 7D 00 000000 0000 00", &[]).1, INVALID_FIELD);
}

#[test]
fn the_tape_usage_page_has_every_parameter_in_the_width_that_programs_expect() {
    let setup = Setup::new();
    setup.write("abcd");
    setup.good(REWIND, &[]);
    setup.good("08 00 000004 00", &[]);
    let page = setup.good("4D 00 70 00 00 0000 0100 00", &[]);
    assert_eq!(page.len(), 4 + 84);
    let mut widths = Vec::new();
    let mut rest = &page[4..];
    while let [_, code, _, length, ..] = *rest {
        widths.push((code, length));
        rest = &rest[4 + usize::from(length)..];
    }
    assert_eq!(widths, [(1, 4), (2, 8), (3, 4), (4, 2), (5, 2), (6, 2), (7, 8), (8, 4), (9, 2), (10, 2), (11, 2)]);
    assert_eq!(page[8..12], [0, 0, 0, 1], "one load");
    assert_eq!(page[16..24], 1_u64.to_be_bytes(), "one data set written");
    setup.good("1B 00 0000 00 00", &[]);
    assert_eq!(setup.good("4D 00 70 00 00 0000 0100 00", &[]).len(), 4 + 84, "also without a medium");
}

#[test]
fn copies_never_write_in_the_clear_what_was_to_be_encrypted() {
    let setup = Setup::new();
    setup.good("B5 20 0010 00 00 0000003C 00 00", &set_key("40 00", "02 02", KEY));
    let mut copy = setup.tape.begin_copy().unwrap();
    let at = setup.tape.with_drive(|drive| drive.position());
    assert_eq!(copy.append(at).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    copy.finish().unwrap();
}

#[test]
fn a_worm_cartridge_can_be_asked_for_where_one_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let common = Common::new(Identity::new("iqn.2026-01.org.offhost:t", "tape", "TAPE"), None);
    let new = NewMedium { worm: true, density: Some(0x5C), ..NewMedium::of_capacity(64 << 20) };
    let tape = Tape::open(common, &folder.path().join("shelf"), new).unwrap();
    let nexus = nexus(1, &tape);
    let page = send_as(&tape, &nexus, "1A 08 1D 00 40 00", &[]).data_in.concat();
    assert_eq!((page[1], page[6]), (0x7C, 0x01), "an LTO-7 WORM medium, WORMM");
    assert_eq!(send_as(&tape, &nexus, "0A 00 000004 00", b"once").status, Status::Good);
    assert_eq!(send_as(&tape, &nexus, REWIND, &[]).status, Status::Good);
    let again = send_as(&tape, &nexus, "0A 00 000004 00", b"more").sense.unwrap();
    assert_eq!((again.key, again.code), (SenseKey::DataProtect, WORM_OVERWRITE));
}

#[test]
fn a_drive_of_a_generation_takes_only_the_media_that_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let lto_5 = NewMedium { density: Some(0x58), ..NewMedium::of_capacity(64 << 20) };
    Cartridge::create(folder.path(), &lto_5.label("TEST01L5")).unwrap();
    let drive = |product: &str| {
        let identity = Identity { product: product.to_owned(), ..Identity::new("iqn.2026-01.org.offhost:t", "tape", "TAPE") };
        Tape::open(Common::new(identity, None), folder.path(), NewMedium::default())
    };
    assert!(matches!(drive("ULT3580-TD8"), Err(OpenError::Incompatible { density: 0x58, .. })));
    let written = |tape: Arc<Tape>| send_as(&tape, &nexus(1, &tape), "0A 00 000004 00", b"data");
    let refused = written(drive("ULT3580-TD7").unwrap()).sense.unwrap();
    assert_eq!(refused.code, (0x27, 0x00), "it reads this medium and does not write it");
    assert_eq!(written(drive("ULT3580-TD6").unwrap()).status, Status::Good);
}
