//! `text` under libFuzzer; what it does is in `tests/src/fuzz/text.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("text")(data));
