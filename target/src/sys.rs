//! The only `unsafe` of this crate: system calls that no safe wrapper covers, each with the reason why it is sound.
