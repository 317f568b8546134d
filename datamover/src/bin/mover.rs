//! `offhost-mover`: moves the blocks of copy jobs. Started by `offhost-target`; by hand only on another host.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use offhost_datamover::sys;
use offhost_datamover::worker::attach::{attach, read_secret};
use offhost_datamover::worker::cage::{Reach, confine};
use offhost_datamover::worker::credentials::Credentials;
use offhost_datamover::worker::process;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// Moves the blocks of copy jobs. Started by offhost-target, with which it ends; on another host it attaches to a target, and copies
/// between logical units of other iSCSI targets.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The socket to the target, left open by it under this number
    #[arg(long, value_name = "N", required_unless_present = "attach", conflicts_with = "attach")]
    socket_fd: Option<RawFd>,
    /// Attach to the target that lets movers attach at this address
    #[arg(long, value_name = "HOST:PORT", requires_all = ["secret_file", "remotes"])]
    attach: Option<String>,
    /// File with the secret that the target and its movers share, mode 0600
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// File with [[remote]] tables: where this mover may log in, and with which CHAP credentials
    #[arg(long, value_name = "FILE")]
    remotes: Option<PathBuf>,
    /// What the target shows this mover as
    #[arg(long, value_name = "NAME", default_value = "mover")]
    name: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Owned before anything else is opened, so that the number cannot be something else's.
    let socket = arguments.socket_fd.map(sys::inherited_socket);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let served = match socket {
        Some(socket) => socket.and_then(|socket| {
            confine(&Reach::Nothing);
            process::serve(socket, Credentials::default())
        }),
        None => serve_from_afar(arguments),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the mover ends");
            ExitCode::FAILURE
        }
    }
}

/// Everything is read and connected before the cage closes.
fn serve_from_afar(arguments: Arguments) -> io::Result<()> {
    let Arguments { attach: Some(target), secret_file: Some(secret), remotes: Some(remotes), name, .. } = arguments else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let (secret, credentials) = (read_secret(&secret)?, Credentials::read(&remotes)?);
    let attached = attach(&target, secret, name)?;
    confine(&Reach::Portals(credentials.ports().collect()));
    process::serve(attached.relay()?, credentials)
}
