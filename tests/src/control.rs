//! The control socket, as a test reads it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::control::{MoverSettings, Status};

/// `PUT /movers`.
///
/// # Errors
/// When the target does not take it.
pub fn set_movers(socket: &Path, settings: &MoverSettings) -> Result<()> {
    let (mut stream, body) = (UnixStream::connect(socket)?, serde_json::to_string(settings)?);
    let head = "PUT /movers HTTP/1.1\r\nHost: target\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

/// `GET /status`, by hand: a test that used our own client could not see that both are wrong.
///
/// # Errors
/// When the socket does not answer with a status.
pub fn status(socket: &Path) -> Result<Status> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: target\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).with_context(|| body.to_owned())
}
