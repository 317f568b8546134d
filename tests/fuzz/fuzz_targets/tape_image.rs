//! `tape_image` under libFuzzer; what it does is in `tests/src/fuzz/tape_image.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("tape_image")(data));
