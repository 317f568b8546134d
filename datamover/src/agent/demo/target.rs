//! The target of the demo: a child process in a folder of its own.
//!
//! Ends only what it started, by its process id. The folder is marked when it is made, and only a marked one is emptied.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use sim::url::Url;
use std::os::unix::process::CommandExt;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::super::control::Control;
use super::super::exit::Stop;

/// Stands in a folder that a demo made and a later one may empty.
const MARK: &str = "made-by-offhost-demo";
/// How long the target may take until it listens, and until it ends.
const PATIENCE: Duration = Duration::from_secs(15);
/// What the target logs goes here.
const LOG: &str = "target.log";
/// Process id of the target, for whoever finds it running later.
const PID: &str = "target.pid";

/// A running target.
#[derive(Debug)]
pub struct Target {
    child: Option<Child>,
    folder: PathBuf,
    said: Announcement,
}

/// The line of JSON that the target prints when it listens.
#[derive(Debug, Deserialize)]
struct Announcement {
    portal: String,
    target: String,
}

/// Makes the demo's folder, or empties one of an earlier demo.
///
/// # Errors
/// [`Stop`] for a folder that holds something else, or whose target still runs.
pub async fn folder(path: &Path) -> anyhow::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !path.join(MARK).exists() {
                bail!(Stop::refused(format!("{} exists and no demo made it: choose another with --dir", path.display())));
            }
            if control(path).status().await.is_ok() {
                let pid = fs::read_to_string(path.join(PID)).unwrap_or_default();
                bail!(Stop::refused(format!(
                    "the target of an earlier `offhost demo --keep` still runs in {}: end it (kill {}), or choose another --dir",
                    path.display(),
                    pid.trim()
                )));
            }
            for entry in fs::read_dir(path)? {
                let entry = entry?.path();
                if entry.is_dir() { fs::remove_dir_all(&entry)? } else { fs::remove_file(&entry)? }
            }
        }
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
    }
    fs::write(path.join(MARK), "This folder may be emptied by `offhost demo`.\n")?;
    Ok(())
}

fn control(folder: &Path) -> Control {
    Control::new(folder.join("data/control.sock"))
}

impl Target {
    /// Starts `offhost-target serve`, found beside this program, with these LUNs.
    ///
    /// # Errors
    /// When it is not there, ends, or does not listen within 15 s.
    pub async fn start(folder: &Path, luns: &[&str]) -> anyhow::Result<Self> {
        let program = beside("offhost-target")?;
        let log = fs::File::create(folder.join(LOG))?;
        let mut child = Command::new(&program)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data", "data", "--control", "data/control.sock"])
            .args(luns)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // An interrupt on the terminal is for the demo, which then ends its target in good order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take();
        let mut target = Self {
            child: Some(child),
            folder: folder.to_owned(),
            said: Announcement { portal: String::new(), target: String::new() },
        };
        fs::write(folder.join(PID), format!("{}\n", target.pid()))?;
        let output = output.context("the target's output is a pipe")?;
        let mut lines = BufReader::new(tokio::process::ChildStdout::from_std(output)?).lines();
        let line = match tokio::time::timeout(PATIENCE, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            _ => bail!("offhost-target did not come up; the end of {}:\n{}", folder.join(LOG).display(), target.log_tail()),
        };
        target.said = serde_json::from_str(&line).with_context(|| format!("offhost-target said {line:?}"))?;
        Ok(target)
    }

    /// Address of a LUN.
    ///
    /// # Errors
    /// When what the target announced is no address.
    pub fn url(&self, lun: u16) -> anyhow::Result<Url> {
        Ok(format!("iscsi://{}/{}/{lun}", self.said.portal, self.said.target).parse()?)
    }

    /// Its control socket.
    #[must_use]
    pub fn control(&self) -> Control {
        control(&self.folder)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The last lines it logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Lets it run on when this program ends.
    pub fn leave_running(mut self) {
        drop(self.child.take());
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A program of ours in the folder of this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("finding this program")?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: build all programs with `cargo build --release`", path.display());
    }
    Ok(path)
}
