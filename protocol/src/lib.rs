//! Every byte of offhost that crosses a process or a disk.
//!
//! Pure: no sockets, no files, no clock, no `unsafe`. What a peer says is parsed here into typed values, and typed values are
//! written back; what they *mean* is decided in the crates above. The state machines ([`iscsi`], [`cartridge`]) are sans-io:
//! input and time are handed in, output and timeouts are polled out.
//!
//! | module | what | text it follows |
//! |---|---|---|
//! | [`units`], [`wire`] | typed numbers, byte order, [`wire::WireError`] | |
//! | [`iscsi`] | PDUs, digests, text keys, login, the session of both sides | RFC 7143 |
//! | [`scsi`] | command table, CDBs, sense, INQUIRY and VPD, mode and log pages | SAM-5, SPC-4, SBC-4, SSC-4, SMC-3 |
//! | [`xcopy`] | EXTENDED COPY lists, CSCD and segment tables, RECEIVE COPY RESULTS | SPC-4 |
//! | [`mover`] | copy jobs between target and mover, the shared data block table | own |
//! | [`cartridge`] | the tape image: SIMH `.tap` framing, index entries, append and scan | SIMH magtape, own |
//! | [`control`] | the JSON of the control socket | own |
#![forbid(unsafe_code)]

pub mod cartridge;
pub mod control;
pub mod iscsi;
pub mod mover;
pub mod scsi;
pub mod units;
pub mod wire;
pub mod xcopy;
