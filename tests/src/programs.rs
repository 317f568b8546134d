//! Our programs as processes of a test's own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Where Cargo put the programs of this build.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // A test binary lies in build/<profile>/deps.
    let mut folder = std::env::current_exe().expect("a test has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: `cargo build --workspace` makes it (tests/run does)", path.display());
    path
}

/// A target process that ends with the test.
#[derive(Debug)]
pub struct Target {
    child: Child,
    /// Folder of its own: data, disks, tapes.
    pub folder: PathBuf,
    /// `127.0.0.1:port`.
    pub portal: String,
    /// iSCSI name.
    pub name: String,
}

impl Target {
    /// Starts `offhost-target serve` in `folder` on a free port, with more flags, and waits until it listens.
    ///
    /// # Errors
    /// When it ends or says nothing for 20 s.
    pub fn start(folder: &Path, flags: &[&str]) -> Result<Self> {
        Self::start_on(folder, "127.0.0.1:0", flags)
    }

    /// As [`Target::start`], on a given address: for a restart.
    ///
    /// # Errors
    /// As [`Target::start`].
    pub fn start_on(folder: &Path, listen: &str, flags: &[&str]) -> Result<Self> {
        let own = ["--listen", listen, "--data", "data"];
        Self::start_with(folder, &[&own, flags].concat(), &[])
    }

    /// Starts `offhost-target serve --config FILE` in `folder`, whose portals and `data` folder are those of the file.
    ///
    /// # Errors
    /// As [`Target::start`].
    pub fn configured(folder: &Path, file: &str) -> Result<Self> {
        Self::start_with(folder, &["--config", file], &[])
    }

    /// Starts `offhost-target serve` with just these flags and variables, and waits until it listens. Its data folder is to be `data`.
    ///
    /// # Errors
    /// As [`Target::start`].
    pub fn start_with(folder: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("target.log"))?;
        let mut child = Command::new(program("offhost-target"))
            .args(["serve", "--json"])
            .args(flags)
            .envs(variables.iter().copied())
            .current_dir(folder)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("offhost-target does not start")?;
        let output = child.stdout.take().expect("piped");
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let Ok(line) = receive.recv_timeout(Duration::from_secs(20)) else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the target never listened: {}", std::fs::read_to_string(folder.join("target.log"))?);
        };
        let said: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("the target said {line:?}"))?;
        let text = |key: &str| said[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {line}"));
        Ok(Self { child, folder: folder.to_owned(), portal: text("portal")?, name: text("target")? })
    }

    /// URL of a LUN.
    #[must_use]
    pub fn url(&self, lun: u16) -> String {
        format!("iscsi://{}/{}/{lun}", self.portal, self.name)
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("data/control.sock")
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Memory of its own, in KiB: not the pages of files that it has mapped, which the page cache holds anyway.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).context("a process has memory")?;
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).with_context(|| line.to_owned())
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal)?)
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end within 10 s.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        wait(&mut self.child, Duration::from_secs(10))
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("target.log")).unwrap_or_default()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a process's end, at most so long; then kills it.
///
/// # Errors
/// When it had to be killed.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    bail!("process {} did not end within {limit:?}", child.id())
}

/// Output of a program that must succeed within a minute.
///
/// # Errors
/// When it fails, with what it said.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}
