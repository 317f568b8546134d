//! `pdu` under libFuzzer; what it does is in `tests/src/fuzz/pdu.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("pdu")(data));
