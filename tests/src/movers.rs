//! Movers on other hosts as processes of a test's own, and the exchange with which they attach, by hand.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::control::MoverStatus;
use protocol::mover::attach::{Attaching, Seal, Secret};
use protocol::mover::sealed;

use crate::control::status;
use crate::netns::Namespace;
use crate::programs::{Target, program};

/// What the tests' movers call themselves.
pub const NAME: &str = "far";

/// A file of mode 0600 in `folder`.
///
/// # Errors
/// When it cannot be written.
pub fn secret_file(folder: &Path, name: &str, secret: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, secret)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}

/// Where a target lets movers attach, by its log: the port may have been its own choice.
///
/// # Errors
/// When it does not.
pub fn attach_address(target: &Target) -> Result<SocketAddr> {
    let log = target.log();
    let line = log.lines().rfind(|line| line.contains("movers of other hosts attach")).context("no port for movers")?;
    let said: serde_json::Value = serde_json::from_str(line)?;
    Ok(said["fields"]["address"].as_str().context("no address")?.parse()?)
}

/// `offhost-mover --attach`, which ends with the test. Logs to `mover.log`.
#[derive(Debug)]
pub struct Far(pub Child);

impl Far {
    /// Starts it in `folder`, where its secret and `remotes.toml` are; on another host if there is one.
    ///
    /// # Errors
    /// When the system does not start it.
    pub fn start(host: Option<&Namespace>, folder: &Path, attach: SocketAddr, secret: &str) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("mover.log"))?;
        let program = program("offhost-mover");
        let mut command = host.map_or_else(|| std::process::Command::new(&program), |host| host.command(&program));
        command.args(["--attach", &attach.to_string(), "--name", NAME, "--secret-file", secret, "--remotes", "remotes.toml"]);
        command.current_dir(folder).env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Self(command.spawn()?))
    }
}

impl Far {
    /// The process that is attached, or tries to be: another one after each loss. `None` between two of them.
    #[must_use]
    pub fn process(&self) -> Option<i32> {
        // `ip netns exec` becomes the program that it starts.
        let keeper = self.0.id().to_string();
        std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            // "pid (name) state ppid …"
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            (stat.rsplit_once(')')?.1.split_whitespace().nth(1)? == keeper).then_some(process)
        })
    }

    /// What it logged.
    #[must_use]
    pub fn log(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("mover.log")).unwrap_or_default()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the target says of the mover.
///
/// # Errors
/// When the target does not answer.
pub fn far_mover(target: &Target) -> Result<Option<MoverStatus>> {
    Ok(status(&target.control())?.movers.into_iter().find(|mover| mover.name.as_deref() == Some(NAME)))
}

/// Proves to a target that its secret is known; gives the connection, what is sealed with and what is opened with.
///
/// # Errors
/// When nobody is there, or the target knows another secret.
pub fn prove(attach: SocketAddr, secret: &str, nonce: u8) -> Result<(TcpStream, Seal, Seal)> {
    let stream = TcpStream::connect(attach)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let secret = Secret::new(secret.as_bytes().to_vec()).context("a secret is longer")?;
    let (attaching, intro) = Attaching::new(secret, "by-hand".into(), [nonce; 32]);
    sealed::send(&stream, &intro)?;
    let (proving, proved) = attaching.challenged(sealed::receive(&stream)?)?;
    sealed::send(&stream, &proved)?;
    let (seal, open) = proving.proved(sealed::receive(&stream)?)?;
    Ok((stream, seal, open))
}

/// Waits until something is so.
///
/// # Panics
/// When it is not within half a minute; with the target's log.
pub async fn until(what: &str, target: &Target, mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < limit, "not {what}: {}", target.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
