//! Two programs: `offhost-mover`, the worker process that moves the blocks of a copy job, and `offhost`, the command people
//! type, with the backup logic behind it.
//!
//! They share the file formats of `protocol` and nothing else: the worker ([`worker`]) never speaks iSCSI to a host, the agent
//! ([`agent`], [`map`]) never touches a payload byte.
#![deny(unsafe_code)]

pub mod agent;
pub mod fixture;
pub mod map;
pub mod sys;
pub mod worker;
