//! `ntfs` under libFuzzer; what it does is in `tests/src/fuzz/ntfs.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("ntfs")(data));
