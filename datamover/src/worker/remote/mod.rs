//! Remote ends: logical units of other iSCSI targets, as a mover reads and writes them.
//!
//! ```text
//! engine, writer ─▶ disk | tape ─▶ session: commands, answers ◀─▶ socket
//!                                      └ keeper: answers pings while no command is under way
//! ```
//!
//! A session is logged in when it comes: the target did that, and no secret enters a mover. What a logical unit refuses goes back
//! as it said it, status and sense data. Positions are the remote drive's own business: nothing of them is known here.
//!
//! Commands follow SBC-4 and SSC-4, the session RFC 7143.

mod disk;
mod session;
mod tape;

pub use disk::RemoteDisk;
pub use session::{Attention, RemoteSession};
pub use tape::{Following, RemoteTape};
