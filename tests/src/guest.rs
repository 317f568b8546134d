//! A stock Linux kernel as initiator: a guest made of Debian packages, emulated by QEMU, that runs the scripts a test gives it.
//!
//! The images are made by `tests/guest/build` and kept in `build/guest` until their recipe changes. One guest runs at a time on a
//! machine: a lock is held while it lives. Scripts are run by bash with `tests/guest/lib.sh`; the guest's 127.0.0.1 is the host's.
//! `OFFHOST_GUEST_KERNEL=6.1` lets all tests run with Debian 12's own kernel instead of that of its backports.
//!
//! No KVM (see [`Guest::boot`]), no state kept between guests, no network but loopback.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::programs::Target;

/// For what takes seconds: the machine is emulated, and has not the host to itself.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Kernels that Debian 12 offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// Its own. It has no ntfs3.
    V6_1,
    /// That of its backports.
    V6_12,
}

impl Kernel {
    /// What `OFFHOST_GUEST_KERNEL` names; else the newer one, which has all that tests ask for.
    fn chosen() -> Result<Self, String> {
        match std::env::var("OFFHOST_GUEST_KERNEL").as_deref() {
            Err(_) | Ok("6.12") => Ok(Self::V6_12),
            Ok("6.1") => Ok(Self::V6_1),
            Ok(other) => Err(format!("OFFHOST_GUEST_KERNEL={other}: neither 6.1 nor 6.12")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

/// From the start of QEMU to the agent's word: 7 to 14 s on a machine with nothing else to do.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// A running guest; ends with the test.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    /// What the guest says on its port, line by line; closed when QEMU ends.
    said: Receiver<String>,
    port: UnixStream,
    /// The folder that the guest sees as `/host`.
    pub folder: PathBuf,
    ended: BTreeMap<u32, i32>,
    jobs: u32,
    _alone: Flock<File>,
}

/// A script that runs in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Job(u32);

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit status of the script.
    pub status: i32,
    /// Both of its outputs.
    pub output: String,
}

/// The images of a guest, made and up to date.
#[derive(Debug, Clone, Copy)]
pub struct Images(Kernel);

/// Makes the images of a guest if need be, or says why none can be had here: then the test is to be skipped.
///
/// # Errors
/// What is missing, or what the builder said.
pub fn images() -> Result<Images, String> {
    let kernel = Kernel::chosen()?;
    if std::env::var_os("OFFHOST_NO_GUEST").is_some() {
        return Err("OFFHOST_NO_GUEST is set".to_owned());
    }
    if !crate::has("qemu-system-x86_64") {
        return Err("qemu-system-x86_64 is missing (Debian: qemu-system-x86)".to_owned());
    }
    let _alone = lock().map_err(|error| format!("{error:#}"))?;
    let script = root().join("tests/guest/build");
    let output = Command::new(script).arg(kernel.name()).arg(images_folder()).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("no images of the guest: {}", String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    Ok(Images(kernel))
}

/// A guest that is logged in to all LUNs of a target, which is served with `flags`.
///
/// # Panics
/// When either does not come up.
#[must_use]
pub fn logged_in(images: Images, folder: &Path, flags: &[&str]) -> (Target, Guest) {
    let target = Target::start(folder, flags).expect("a target that listens");
    let mut guest = Guest::boot(images, folder).expect("a guest that is up");
    guest.run(&format!("start_iscsid\nlogin {}", target.portal), MINUTE).expect("a login");
    (target, guest)
}

impl Guest {
    /// Waits until no other guest runs, and boots. `folder` is the test's own; its `host` is what the guest sees as `/host`.
    ///
    /// Emulated in software: hardware assistance is rarely to be had where tests run, and differs where it is.
    ///
    /// # Errors
    /// When the guest does not come up, with what QEMU said.
    pub fn boot(images: Images, folder: &Path) -> Result<Self> {
        let alone = lock()?;
        let shared = folder.join("host");
        fs::create_dir_all(&shared)?;
        let log = File::create(folder.join("qemu.log"))?;
        let mut command = command(images.0, folder);
        let qemu = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let mut qemu = Starting(Some(qemu.context("qemu-system-x86_64 does not start")?));
        let port = connect(&folder.join("guest.sock"), qemu.child(), folder)?;
        let said = listen(port.try_clone()?);
        let guest = Self { qemu: qemu.running(), said, port, folder: shared, ended: BTreeMap::new(), jobs: 0, _alone: alone };
        let up = guest.next_line(BOOT_LIMIT).with_context(|| format!("no guest{}", guest.kernel_tail()))?;
        ensure!(up.starts_with("up "), "the guest said {up:?}");
        Ok(guest)
    }

    /// Runs a script to its end and gives what it printed.
    ///
    /// # Errors
    /// When it fails or takes longer than `limit`; with its output and the kernel's last words.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<String> {
        let job = self.start(script)?;
        let ended = self.finish(job, limit)?;
        if ended.status != 0 {
            bail!("the script ended with {}\n{script}\n--- it printed\n{}{}", ended.status, ended.output, self.kernel_tail());
        }
        Ok(ended.output)
    }

    /// Starts a script beside the others.
    ///
    /// # Errors
    /// When the guest has ended.
    pub fn start(&mut self, script: &str) -> Result<Job> {
        self.jobs += 1;
        fs::write(self.folder.join(format!("{}.sh", self.jobs)), script)?;
        writeln!(self.port, "{}", self.jobs).context("the guest has ended")?;
        Ok(Job(self.jobs))
    }

    /// Waits for a script's end.
    ///
    /// # Errors
    /// When it takes longer than `limit`, with its output and the kernel's last words, or the guest ends.
    pub fn finish(&mut self, job: Job, limit: Duration) -> Result<Ended> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended.remove(&job.0) {
                return Ok(Ended { status, output: self.output(job) });
            }
            let line = match self.next_line(until.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(error) => {
                    let tail = self.kernel_tail();
                    return Err(error.context(format!("script {} within {limit:?}\n{}{tail}", job.0, self.output(job))));
                }
            };
            let (number, status) = line.split_once(' ').with_context(|| format!("the guest said {line:?}"))?;
            self.ended.insert(number.parse()?, status.trim().parse()?);
        }
    }

    /// What a script has printed so far.
    #[must_use]
    pub fn output(&self, job: Job) -> String {
        let bytes = fs::read(self.folder.join(format!("{}.out", job.0))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the kernel complained of since the guest is up: all warnings and worse, and what SCSI says of failed commands in a lower
    /// voice. A line that holds one of `expected` is none.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn complaints(&mut self, expected: &[&str]) -> Result<Vec<String>> {
        let log = self.run("dmesg -x", Duration::from_secs(60))?;
        let since = without_own_traces(log.lines().skip_while(|line| !line.contains(UP_MARK)).skip(1));
        let bad = |line: &&str| {
            let serious = ["emerg", "alert", "crit", "err", "warn"].iter().any(|level| level_of(line) == *level);
            serious || SCSI_COMPLAINTS.iter().any(|words| line.contains(words))
        };
        let known = |line: &&str| OF_EMULATION.iter().chain([&OF_LOGIN]).chain(expected).any(|words| line.contains(words));
        Ok(since.into_iter().filter(bad).filter(|line| !known(line)).map(str::to_owned).collect())
    }

    /// Logs out, and looks whether the kernel has complained of anything but what is `expected`.
    ///
    /// # Panics
    /// When it has, with its words, and when it does not let go of the devices.
    pub fn log_out(&mut self, expected: &[&str]) {
        self.run("logout; ! ls /sys/class/iscsi_session/*", MINUTE).expect("a logout");
        let complaints = self.complaints(expected).expect("a kernel log");
        assert!(complaints.is_empty(), "the kernel complained:\n{}", complaints.join("\n"));
    }

    fn next_line(&self, limit: Duration) -> Result<String> {
        self.said.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("the guest said nothing for {limit:?}"),
            RecvTimeoutError::Disconnected => anyhow!("the guest ended"),
        })
    }

    /// The end of the console, where the kernel's own errors stand.
    fn kernel_tail(&self) -> String {
        let console = self.folder.with_file_name("console");
        let text = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        format!("\n--- console\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A QEMU that nobody owns yet: ends if the guest does not come to be.
struct Starting(Option<Child>);

impl Starting {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it is taken once, at the end")
    }

    fn running(mut self) -> Child {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root")
}

fn images_folder() -> PathBuf {
    root().join("build/guest")
}

/// One guest at a time, and none while images are made: emulation takes all that two cores have.
fn lock() -> Result<Flock<File>> {
    fs::create_dir_all(images_folder())?;
    let file = File::create(images_folder().join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context("the guest's lock")
}

/// `kern  :warn  : [    1.234567] text`, as `dmesg -x` writes it.
fn level_of(line: &str) -> &str {
    line.split(':').nth(1).map_or("", str::trim)
}

/// What the agent writes into the kernel's log when it is ready.
const UP_MARK: &str = "guest: up";

/// What the SCSI layer prints as a notice or less, but only when something went wrong.
const SCSI_COMPLAINTS: [&str; 12] = [
    "Sense Key",
    "Sense not available",
    "Add. Sense",
    "FAILED Result",
    "timing out",
    "timed out",
    "abort",
    "reset",
    "I/O error",
    "Asking for cache data failed",
    "Assuming drive cache",
    "Unexpected",
];

/// What the kernel makes of the unit attention that every new nexus is told.
const OF_LOGIN: &str = "Power-on or device reset occurred";

/// A slow virtual machine's own worries.
const OF_EMULATION: [&str; 3] = ["hrtimer: interrupt took", "clocksource:", "sched: RT throttling"];

/// A kernel's warning about its own queues of work when a session ends, by luck of the moment (6.12.117): whoever serves the session
/// has no part in it.
const OF_WORK_QUEUES: &str = "__iscsi_unbind_session [scsi_transport_iscsi] is flushing !WQ_MEM_RECLAIM";

/// All lines but those of such warnings, each of which is a trace of many.
fn without_own_traces<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let (mut kept, mut trace) = (Vec::new(), None);
    for line in lines {
        if line.contains("[ cut here ]") {
            trace = Some(kept.len());
        }
        kept.push(line);
        if line.contains("[ end trace")
            && let Some(begin) = trace.take()
            && kept[begin..].iter().any(|line: &&str| line.contains(OF_WORK_QUEUES))
        {
            kept.truncate(begin);
        }
    }
    kept
}

/// The machine. One processor: QEMU 7.2 now and then loses kernel text that is patched while another one runs it (an int3 oops at
/// boot). A TSC is measured wrongly on a busy host: `clocksource=hpet`.
fn command(kernel: Kernel, folder: &Path) -> Command {
    let images = images_folder();
    let boot = images.join(kernel.name());
    let path = |path: PathBuf| path.display().to_string();
    let image =
        |name: &str, file: PathBuf| format!("if=none,id={name},format=raw,readonly=on,file.locking=off,file={}", path(file));
    let share = |tag: &str, folder: PathBuf, more: &str| {
        format!("local,path={},mount_tag={tag},security_model=none,id={tag}{more}", path(folder))
    };
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35,usb=off"]);
    command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,pmu=off", "-smp", "1", "-m", "640"]);
    command.arg("-kernel").arg(boot.join("vmlinuz")).arg("-initrd").arg(boot.join("initrd"));
    command.args(["-append", KERNEL_ARGUMENTS]);
    command.arg("-serial").arg(format!("file:{}", path(folder.join("console"))));
    command.arg("-drive").arg(image("root", images.join("root.img"))).args(["-device", "virtio-blk-pci,drive=root"]);
    command.arg("-drive").arg(image("modules", boot.join("modules.img"))).args(["-device", "virtio-blk-pci,drive=modules"]);
    command.arg("-chardev").arg(format!("socket,id=port,server=on,wait=off,path={}", path(folder.join("guest.sock"))));
    command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=port"]);
    command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
    command.args(["-device", "virtio-rng-pci"]);
    command.arg("-virtfs").arg(share("guest", root().join("tests/guest"), ",readonly=on"));
    command.arg("-virtfs").arg(share("host", folder.join("host"), ""));
    command
}

const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet net.ifnames=0 panic=-1 mitigations=off nokaslr audit=0 selinux=0 apparmor=0 \
    random.trust_cpu=on clocksource=hpet rcupdate.rcu_expedited=1";

/// QEMU makes the socket before it starts the machine.
fn connect(socket: &Path, qemu: &mut Child, folder: &Path) -> Result<UnixStream> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            return Ok(stream);
        }
        let log = || fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
        if let Some(status) = qemu.try_wait()? {
            bail!("QEMU ended with {status}: {}", log());
        }
        ensure!(Instant::now() < until, "QEMU never opened the guest's port: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listen(port: UnixStream) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(port).lines().map_while(std::io::Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_s_own_trace_is_left_out() {
        let own = format!("workqueue: WQ_MEM_RECLAIM iscsi_ctrl_0:3:{OF_WORK_QUEUES} pm:pm_runtime_work");
        let trace = |what| ["------------[ cut here ]------------", what, "Call Trace:", "---[ end trace 0000000000000000 ]---"];
        let log = [&["before"][..], &trace(&own), &["between"], &trace("WARNING: block/blk-mq.c"), &["behind"]].concat();
        let kept = without_own_traces(log.iter().copied());
        assert_eq!(kept, [&["before", "between"][..], &trace("WARNING: block/blk-mq.c"), &["behind"]].concat());
    }
}
