//! `login` under libFuzzer; what it does is in `tests/src/fuzz/login.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("login")(data));
