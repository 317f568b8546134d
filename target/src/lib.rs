//! The iSCSI target: owns LUNs, snapshots and quiet windows, and hands copies to movers.
//!
//! ```text
//! net (listener → connection → session) → task → lun::{disk, tape, changer} → volume → store
//!                                             └→ xcopy (plan → job) → mover (process)
//! ```
//!
//! No payload byte of a tape copy passes through this process.
#![deny(unsafe_code)]

pub mod access;
pub mod buffers;
pub mod cartridge;
pub mod config;
pub mod control;
pub mod daemon;
pub mod import;
pub mod library;
pub mod lun;
pub mod metrics;
pub mod mover;
pub mod net;
pub mod nexus;
pub mod quiet;
pub mod remote;
pub mod service;
pub mod snapshot;
pub mod store;
pub mod sys;
pub mod task;
pub mod volume;
pub mod xcopy;
