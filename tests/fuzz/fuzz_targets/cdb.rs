//! `cdb` under libFuzzer; what it does is in `tests/src/fuzz/cdb.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("cdb")(data));
