//! `offhost-mover`: moves the blocks of copy jobs. Started by `offhost-target`, never by hand.

use std::os::fd::RawFd;
use std::process::ExitCode;

use clap::Parser;
use offhost_datamover::sys;
use offhost_datamover::worker::{cage, process};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// Moves the blocks of copy jobs. Started by offhost-target; ends when it does.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The socket to the target, left open by it under this number.
    #[arg(long, value_name = "N")]
    socket_fd: RawFd,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Owned before anything else is opened, so that the number cannot be something else's.
    let socket = sys::inherited_socket(arguments.socket_fd);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let served = socket.and_then(|socket| {
        cage::confine();
        process::serve(socket)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the mover ends");
            ExitCode::FAILURE
        }
    }
}
