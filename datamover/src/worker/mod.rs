//! The mover: carries out copy jobs, and can do nothing else.
//!
//! ```text
//! process (socket) ─▶ job ─▶ engine: reads, residue ──ops──▶ writer: grants, tape commits, disk writes
//!                             └ ends: raw, view, cartridge,     └ link: questions and reports to the target
//!                                     remote
//! ```
//!
//! One job has two threads. The engine walks the segments and reads ahead of the writer as far as its buffers reach; the writer
//! writes in order and asks the target before it does. Whichever has less to do takes the records' sums. Memory is a fixed pool of
//! buffers a job.
//!
//! It has no code that opens a file by name, and its process could not ([`cage`]): all files come from the target, beside the job.
//! How fast it may be is said with the job and may change ([`throttle`]). It speaks SCSI with remote ends only; faults go back as
//! data. Residue follows SPC-4, "EXTENDED COPY command processing".

pub mod attach;
mod batch;
mod buffers;
pub mod cage;
pub mod credentials;
mod direct;
mod ends;
mod engine;
mod fifo;
mod gather;
mod held;
mod job;
pub mod kept;
pub mod link;
pub mod process;
mod remote;
mod throttle;
pub mod view;
mod writer;

pub use job::{Control, run};
pub use link::Link;

#[cfg(test)]
mod tests;
