//! VERIFY(6) in all its forms.

use super::*;

#[test]
fn verify_by_filemarks_stops_behind_as_many_as_were_asked_for() {
    let setup = Setup::new();
    setup.write("a,b|c||d");
    setup.good(REWIND, &[]);
    setup.good("13 08 000002 00", &[]);
    assert_eq!(setup.position(), (5, 2));
    let end = setup.check("13 08 000003 00", &[]);
    assert_eq!((end.0, end.1, end.3), (SenseKey::BlankCheck, END_OF_DATA, Some(2)), "one of three was there");
    setup.good("13 08 000000 00", &[]);
    assert_eq!(setup.check("13 0a 000001 00", &[0]).1, INVALID_FIELD, "BYTCMP");
    assert_eq!(setup.check("13 28 000001 00", &[]).1, INVALID_FIELD, "VTE");
}

#[test]
fn verify_to_end_of_data_goes_there_or_says_what_is_damaged() {
    let setup = Setup::new();
    setup.write("a,bcdef|c");
    setup.good(REWIND, &[]);
    setup.good("13 20 000001 00", &[]);
    assert_eq!(setup.position(), (4, 1));
    setup.good("13 20 000000 00", &[]);
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("13 21 000000 00", &[]).1, INVALID_FIELD, "FIXED without a block length");
    setup.good("1B 00 0000 00 00", &[]);
    let path = setup.folder.path().join("p0.tap");
    let mut image = std::fs::read(&path).unwrap();
    let at = image.windows(5).position(|window| window == b"bcdef").unwrap();
    image[at] ^= 1;
    std::fs::write(&path, image).unwrap();
    setup.good("1B 00 0000 01 00", &[]);
    let damaged = setup.check("13 20 000000 00", &[]);
    assert_eq!((damaged.0, damaged.1, damaged.3), (SenseKey::MediumError, (0x11, 0), None));
    assert_eq!(setup.position().0, 2, "behind the damaged block");
}

#[test]
fn the_protection_method_is_verified_where_the_mode_page_names_one() {
    let setup = Setup::new();
    setup.write("a,b");
    setup.good(REWIND, &[]);
    assert_eq!(setup.check("13 30 000000 00", &[]).1, INVALID_FIELD, "no method is chosen");
    let select = |method: u8| {
        let mut list = vec![0, 0, 0x10, 0, 0x4A, 0xF0, 0, 0x1C, method, 4, 0];
        list.resize(4 + 4 + 28, 0);
        setup.good("15 10 0000 24 00", &list);
    };
    select(1);
    assert_eq!(setup.check("13 30 000000 00", &[]).1, (0x10, 0x05), "no block has a Reed-Solomon CRC on the medium");
    select(2);
    setup.good("13 30 000000 00", &[]);
    assert_eq!(setup.position().0, 2);
}

#[test]
fn verify_compares_and_counts_what_is_left() {
    let setup = Setup::new();
    setup.write("abcd,efgh,ijkl");
    setup.good(REWIND, &[]);
    setup.good("15 10 0000 0c 00", &hex("00 00 10 08 00 000000 00 000004"));
    setup.good("13 03 000002 00", b"abcdefgh");
    setup.good(REWIND, &[]);
    let other = setup.check("13 03 000003 00", b"abcdEFGHijkl");
    assert_eq!((other.0, other.1, other.3), (SenseKey::Miscompare, (0x1D, 0), Some(2)));
    assert_eq!(setup.check("13 07 000001 00", b"abcd").1, INVALID_FIELD, "BYTCMP with IMMED");
    setup.good(REWIND, &[]);
    setup.good("13 05 000003 00", &[]);
    while setup.tape.is_busy() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(setup.position().0, 3);
}
