//! What is told while an operation goes on after its status, and what comes of it.

use std::sync::mpsc;

use super::*;
use crate::lun::common::background::carry_out;
use crate::lun::common::{Lasting, LogicalUnit, Told};
use crate::lun::tape::{LoadError, UnloadError, operation};

const TEST_UNIT_READY: &str = "00 00 000000 00";
const REQUEST_SENSE: &str = "03 00 0000 fc 00";
const IN_PROGRESS: (u8, u8) = (0x04, 0x07);

/// An operation that has done a half and waits to be told how it ends.
fn begin(setup: &Setup, told: Told) -> mpsc::Sender<Result<(), Sense>> {
    let (tell, told_end) = mpsc::channel::<Result<(), Sense>>();
    let (half, half_done) = mpsc::channel();
    let work = Lasting {
        told,
        immediate: true,
        check: Box::new(|_: &Tape| Ok(Response::good())),
        run: Box::new(move |_, operation| {
            operation.advance(1, 2);
            half.send(()).unwrap();
            told_end.recv().unwrap().map(|()| Response::good())
        }),
    };
    assert_eq!(carry_out(&setup.tape, setup.nexus.id, &ssc::REWIND, work), Ok(Response::good()));
    half_done.recv().unwrap();
    tell
}

/// Until nothing goes on any more.
fn ended(setup: &Setup) {
    while setup.tape.common().background.not_ready().is_some() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn while_an_operation_goes_on_the_medium_cannot_be_had_and_all_else_can() {
    let setup = Setup::new();
    setup.write("hello|");
    let tell = begin(&setup, operation::REWIND);
    for cdb in
        [TEST_UNIT_READY, "08 00 000005 00", "0A 00 000000 00", "01 01 000000 00", "34 00 0000000000000000", "13 00 000005 00"]
    {
        let refused = setup.send(cdb, &[]).sense.unwrap();
        assert_eq!((refused.key, refused.code, refused.progress), (SenseKey::NotReady, IN_PROGRESS, Some(0x8000)), "{cdb}");
    }
    let sense = setup.good(REQUEST_SENSE, &[]);
    assert_eq!((sense[2] & 0x0F, sense[12], sense[13]), (0, 0x00, 0x1A), "REWIND OPERATION IN PROGRESS");
    assert_eq!(sense[15..18], [0x80, 0x80, 0x00], "SKSV and the half");
    setup.good("12 00 0000 24 00", &[]);
    setup.good("4D 00 71 00 00 0000 00ff 00", &[]);
    setup.good("1A 00 3F 00 ff 00", &[]);
    assert!(setup.tape.is_busy());
    assert!(matches!(setup.tape.unload(), Err(UnloadError::InProgress)));
    assert!(matches!(setup.tape.load(setup.folder.path()), Err(LoadError::Full)));
    assert_eq!(setup.tape.begin_copy().unwrap_err().sense.unwrap().code, IN_PROGRESS);
    tell.send(Ok(())).unwrap();
    ended(&setup);
    setup.good(TEST_UNIT_READY, &[]);
    assert_eq!(setup.good(REQUEST_SENSE, &[])[12..14], [0, 0]);
}

#[test]
fn what_goes_wrong_after_the_status_is_a_deferred_error_for_the_nexus_that_asked() {
    let setup = Setup::new();
    let other = nexus(2, &setup.tape);
    setup.good(TEST_UNIT_READY, &[]);
    assert_eq!(send_as(&setup.tape, &other, TEST_UNIT_READY, &[]).status, Status::Good);
    let tell = begin(&setup, operation::ERASE);
    tell.send(Err(Sense::WRITE_ERROR)).unwrap();
    ended(&setup);
    assert_eq!(send_as(&setup.tape, &other, TEST_UNIT_READY, &[]).status, Status::Good);
    let deferred = setup.send(REWIND, &[]).sense.unwrap();
    assert_eq!(deferred, Sense { deferred: true, ..Sense::WRITE_ERROR });
    assert_eq!(deferred.emit(SenseFormat::Fixed)[0], 0x71);
    setup.good(REWIND, &[]);
}

#[test]
fn a_reset_stops_what_goes_on() {
    let setup = Setup::new();
    let (began, begun) = mpsc::channel();
    let work = Lasting {
        told: operation::ERASE,
        immediate: true,
        check: Box::new(|_: &Tape| Ok(Response::good())),
        run: Box::new(move |_, operation| {
            began.send(()).unwrap();
            while !operation.is_stopped() {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(Response::good())
        }),
    };
    carry_out(&setup.tape, setup.nexus.id, &ssc::ERASE_6, work).unwrap();
    begun.recv().unwrap();
    setup.tape.common().reset();
    ended(&setup);
    assert_eq!(setup.check(TEST_UNIT_READY, &[]).1, (0x29, 0x03));
    setup.good(TEST_UNIT_READY, &[]);
}

#[test]
fn every_command_with_immed_does_what_it_does_without() {
    let setup = Setup::new();
    setup.write("hello,worlds|x");
    setup.good("01 01 000000 00", &[]);
    ended(&setup);
    assert_eq!(setup.position(), (0, 0));
    setup.good("2B 01 00 00000002 00 00 00", &[]);
    ended(&setup);
    assert_eq!(setup.position(), (2, 0));
    setup.good("92 01 00 00 0000000000000003 000000 00", &[]);
    ended(&setup);
    assert_eq!(setup.position(), (3, 1));
    setup.good("92 01 00 00 0000000000000009 000000 00", &[]);
    ended(&setup);
    let deferred = setup.send(TEST_UNIT_READY, &[]).sense.unwrap();
    assert_eq!((deferred.deferred, deferred.code), (true, END_OF_DATA));
    setup.good("2B 00 00 00000001 00 00 00", &[]);
    setup.good("19 03 000000 00", &[]);
    ended(&setup);
    assert_eq!(setup.position(), (1, 0));
    assert_eq!(setup.check("08 00 000010 00", &[]).1, END_OF_DATA, "what was erased is gone");
    setup.good("1B 01 0000 00 00", &[]);
    ended(&setup);
    assert_eq!(setup.check(TEST_UNIT_READY, &[]).1, (0x3A, 0x00));
    setup.good("1B 01 0000 01 00", &[]);
    ended(&setup);
    assert_eq!(setup.good("08 02 000010 00", &[]), b"hello", "SILI");
    setup.good(REWIND, &[]);
    setup.good("04 01 00 0000 00", &[]);
    ended(&setup);
    assert_eq!(setup.check("08 00 000010 00", &[]).1, END_OF_DATA);
    setup.good("0B 01 00 8000 00", &[]);
    ended(&setup);
    assert_eq!(setup.tape.status().0, (64 << 20) * 0x8000 / 0xFFFF);
}

#[test]
fn what_can_be_told_before_the_work_is_told_at_once_with_immed_too() {
    let setup = Setup::new();
    setup.write("a");
    assert_eq!(setup.check("92 03 00 01 0000000000000000 000000 00", &[]).1, INVALID_FIELD, "no partition 1");
    assert_eq!(setup.check("04 01 00 0000 00", &[]).1, (0x3B, 0x0C), "not at the beginning");
    setup.good("1E 00 0000 01 00", &[]);
    assert_eq!(setup.check("1B 01 0000 00 00", &[]).1, (0x53, 0x02), "removal is prevented");
    setup.good("1E 00 0000 00 00", &[]);
    setup.good("1B 00 0000 00 00", &[]);
    assert_eq!(setup.check("01 01 000000 00", &[]).1, (0x3A, 0x00));
    assert!(setup.tape.common().background.not_ready().is_none());
}
