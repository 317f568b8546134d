//! `image_set` under libFuzzer; what it does is in `tests/src/fuzz/image_set.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("image_set")(data));
