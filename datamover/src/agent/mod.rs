//! The backup logic behind `offhost`: an initiator that reads metadata and sends EXTENDED COPY.
//!
//! | module | what |
//! |---|---|
//! | [`layout`] | the image set: what a backup looks like on a tape |
//! | [`segments`] | from what is to be on a tape, or back on a disk, to EXTENDED COPY lists |
//! | [`backup`], [`restore`], [`list`] | `offhost backup`, `restore`, `list`, `files`, `tape` |
//! | [`disk`], [`drive`], [`copy`] | a disk LUN, a tape, and the copy manager between them |
//! | [`files`] | from the map of a disk to the file catalog |
//! | [`demo`] | `offhost demo` |
//! | [`cache`] | the local catalog, which a tape does not need |
//! | [`admin`] | `offhost target`, `lun`, `portal`, `access`, `save`, `reload` |
//! | [`movers`] | `offhost movers` |
//! | [`status`] | `offhost status` as people read it |
//! | [`control`] | the client of the target's control socket |
//! | [`cli`], [`exit`], [`ui`] | the command line; exit codes; what a person sees meanwhile |
//!
//! Payload never passes through here: the agent reads file-system structures through the snapshot's LUN, decides which blocks
//! are in use, and tells the target's copy manager what to move where. The one way on which a file's own bytes reach this
//! process is a restore to a local path, which is asked for by name, counted apart and said.

pub mod admin;
pub mod backup;
pub mod cache;
pub mod cli;
pub mod control;
pub mod copy;
pub mod demo;
pub mod disk;
pub mod drive;
pub mod exit;
pub mod files;
pub mod layout;
pub mod library;
pub mod list;
pub mod movers;
pub mod restore;
pub mod segments;
pub mod status;
pub mod ui;
