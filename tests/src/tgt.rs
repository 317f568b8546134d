//! Debian's tgt as a process of a test's own: another iSCSI target, by other people.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::programs::run;

/// iSCSI name of its one target.
pub const NAME: &str = "iqn.2026-01.test.tgt:other";

/// A tgtd that ends with the test.
#[derive(Debug)]
pub struct Tgt {
    child: Child,
    control: String,
    /// `host:port`.
    pub portal: String,
}

impl Tgt {
    /// Starts tgtd with one target of [`NAME`], whose LUNs are files, from LUN 1 on, and that wants CHAP if `account` is given.
    /// `None` where it cannot run: it needs its folder in /run.
    ///
    /// # Errors
    /// When it started and then does not do what it is told.
    pub fn start(folder: &Path, luns: &[&str], account: Option<(&str, &str)>) -> Result<Option<Self>> {
        Self::start_at("127.0.0.1", folder, luns, account)
    }

    /// As [`Tgt::start`], on another address of this host.
    ///
    /// # Errors
    /// As [`Tgt::start`].
    pub fn start_at(host: &str, folder: &Path, luns: &[&str], account: Option<(&str, &str)>) -> Result<Option<Self>> {
        if nix::unistd::geteuid().is_root() {
            std::fs::create_dir_all("/run/tgtd")?;
        }
        for _ in 0..5 {
            // It takes no port 0: one that was free a moment ago mostly still is.
            let port = TcpListener::bind((host, 0))?.local_addr()?.port();
            let log = OpenOptions::new().create(true).append(true).open(folder.join("tgtd.log"))?;
            // Its control port is no port, but a number of its own below 32,768.
            let (control, portal) = ((port % 32_000 + 1).to_string(), format!("{host}:{port}"));
            let child = Command::new(sbin("tgtd"))
                .args(["-f", "-C", &control, "--iscsi", &format!("portal={portal}")])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("tgtd does not start")?;
            let mut tgt = Self { child, control, portal };
            if tgt.listens()? {
                tgt.serve(folder, luns, account)?;
                return Ok(Some(tgt));
            }
        }
        Ok(None)
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// `kill -9`, and waits for its end: it survives anything less as long as it has targets.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn listens(&mut self) -> Result<bool> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            let there = std::net::TcpStream::connect(&self.portal).is_ok();
            if there && self.admin(&["--mode", "target", "--op", "show"]).is_ok() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("tgtd neither listens nor ends")
    }

    fn serve(&self, folder: &Path, luns: &[&str], account: Option<(&str, &str)>) -> Result<()> {
        self.admin(&["--mode", "target", "--op", "new", "--tid", "1", "--targetname", NAME])?;
        for (lun, file) in (1..).zip(luns) {
            let (lun, path) = (format!("{lun}"), folder.join(file).display().to_string());
            self.admin(&["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", &lun, "--backing-store", &path])?;
        }
        if let Some((user, password)) = account {
            self.admin(&["--mode", "account", "--op", "new", "--user", user, "--password", password])?;
            self.admin(&["--mode", "account", "--op", "bind", "--tid", "1", "--user", user])?;
        }
        self.admin(&["--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"])?;
        Ok(())
    }

    fn admin(&self, arguments: &[&str]) -> Result<String> {
        run(sbin("tgtadm"), [&["-C", &self.control, "--lld", "iscsi"], arguments].concat())
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        self.kill();
        for name in [format!("socket.{}", self.control), format!("socket.{}.lock", self.control)] {
            let _ = std::fs::remove_file(Path::new("/run/tgtd").join(name));
        }
    }
}

/// Debian keeps them where a user's PATH does not reach.
fn sbin(program: &str) -> String {
    format!("/usr/sbin/{program}")
}
