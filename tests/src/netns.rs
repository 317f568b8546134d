//! A network namespace of a test's own: another host, as far as the network is concerned.

use std::process::Command;

use anyhow::Result;

use crate::programs::run;

/// A namespace with one link to this one. Goes with the test, and with it what still runs there loses the network.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    link: String,
    /// Address of this side.
    pub here: String,
}

impl Namespace {
    /// `None` where the system does not let us make one.
    ///
    /// # Errors
    /// When it was made and cannot be set up.
    pub fn new() -> Result<Option<Self>> {
        let process = std::process::id();
        let (name, link) = (format!("offhost-{process}"), format!("oh{process}"));
        if !nix::unistd::geteuid().is_root() || run("ip", ["netns", "add", &name]).is_err() {
            return Ok(None);
        }
        // Of the block for benchmarks of networks, which nobody routes: 198.18.0.0/15.
        let [a, b] = [process / 64 % 256, process % 64 * 4];
        let here = format!("198.18.{a}.{}", b + 1);
        let namespace = Self { name, link, here };
        let (name, link, there) = (&namespace.name, &namespace.link, format!("198.18.{a}.{}/30", b + 2));
        let far = format!("{link}x");
        if run("ip", ["link", "add", link, "type", "veth", "peer", "name", &far, "netns", name]).is_err() {
            return Ok(None);
        }
        run("ip", ["address", "add", &format!("{}/30", namespace.here), "dev", link])?;
        run("ip", ["link", "set", link, "up"])?;
        run("ip", ["-n", name, "address", "add", &there, "dev", &far])?;
        run("ip", ["-n", name, "link", "set", &far, "up"])?;
        run("ip", ["-n", name, "link", "set", "lo", "up"])?;
        Ok(Some(namespace))
    }

    /// A program that is to be started there.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Cuts the link, silently: nobody is told, packets only stop.
    ///
    /// # Errors
    /// When the system does not do it.
    pub fn cut(&self) -> Result<()> {
        run("ip", ["link", "set", &self.link, "down"]).map(drop)
    }

    /// Undoes [`Namespace::cut`].
    ///
    /// # Errors
    /// When the system does not do it.
    pub fn mend(&self) -> Result<()> {
        run("ip", ["link", "set", &self.link, "up"]).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", ["link", "delete", &self.link]);
        let _ = run("ip", ["netns", "delete", &self.name]);
    }
}
