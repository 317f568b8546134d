//! `xcopy_list` under libFuzzer; what it does is in `tests/src/fuzz/xcopy_list.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("xcopy_list")(data));
