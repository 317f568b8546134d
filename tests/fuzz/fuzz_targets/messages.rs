//! `messages` under libFuzzer; what it does is in `tests/src/fuzz/messages.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::target("messages")(data));
