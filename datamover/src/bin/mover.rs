//! `offhost-mover`: moves the blocks of copy jobs. Started by `offhost-target`; by hand only on another host.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use offhost_datamover::sys;
use offhost_datamover::worker::attach::{attach, connect, read_secret};
use offhost_datamover::worker::cage::{Reach, confine};
use offhost_datamover::worker::credentials::Credentials;
use offhost_datamover::worker::kept::{self, NOT_REACHED, REFUSED};
use offhost_datamover::worker::process;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Moves the blocks of copy jobs. Started by offhost-target, with which it ends; on another host it attaches to a target, again and
/// again until it is stopped, and copies between logical units of other iSCSI targets.
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
    /// Log as JSON, an object a line
    #[arg(long)]
    log_json: bool,
    /// The process that started this one to be attached once
    #[arg(long, hide = true, requires = "attach")]
    kept_by: Option<i32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Owned before anything else is opened, so that the number cannot be something else's.
    let socket = arguments.socket_fd.map(sys::inherited_socket);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match arguments.log_json {
        true => log.json().init(),
        false => log.with_ansi(io::stderr().is_terminal()).init(),
    }
    let served = match socket {
        Some(socket) => socket.and_then(|socket| {
            confine(&Reach::Nothing);
            process::serve(socket, Credentials::default())
        }),
        None if arguments.kept_by.is_some() => return serve_from_afar(arguments),
        None => std::env::current_exe().and_then(|program| {
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            kept::keep(&program, &arguments)
        }),
    };
    ended(served, ExitCode::FAILURE)
}

fn ended(served: io::Result<()>, failed: ExitCode) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the mover ends");
            failed
        }
    }
}

/// Everything is read and connected before the cage closes.
fn serve_from_afar(arguments: Arguments) -> ExitCode {
    let Arguments {
        attach: Some(target), secret_file: Some(secret), remotes: Some(remotes), name, kept_by: Some(keeper), ..
    } = arguments
    else {
        return ExitCode::from(REFUSED);
    };
    let read = kept::be_kept_by(keeper).and_then(|()| Ok((read_secret(&secret)?, Credentials::read(&remotes)?)));
    let (secret, credentials) = match read {
        Ok(read) => read,
        Err(error) => return ended(Err(error), ExitCode::from(REFUSED)),
    };
    let far = match connect(&target) {
        Ok(far) => far,
        Err(error) => return ended(Err(error), ExitCode::from(NOT_REACHED)),
    };
    let attached = match attach(far, secret, name) {
        Ok(attached) => attached,
        Err(error) => return ended(Err(error), ExitCode::from(REFUSED)),
    };
    info!(target, "attached");
    confine(&Reach::Portals(credentials.ports().collect()));
    ended(attached.relay().and_then(|socket| process::serve(socket, credentials)), ExitCode::FAILURE)
}
