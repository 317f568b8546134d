//! The life of the process: ready, reloads, the watchdog, and the way out.
//!
//! Speaks sd_notify(3) where a supervisor listens (`Type=notify`), and does nothing of it where none does. The watchdog is fed
//! only while the threads that serve sessions still run what they are given. What a reload or an end does is [`Daemon`]'s.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::daemon::Daemon;

/// What ends a process, and what lets it read its configuration again.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on none of them ends the process by itself.
    ///
    /// # Errors
    /// What the system gives.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// SIGTERM or SIGINT.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM or SIGINT, reloading at SIGHUP; then lets initiators go, finishes what runs, and synchronizes. `shutdown` is
/// cancelled when the end begins. A second signal ends at once.
pub async fn run(daemon: &Arc<Daemon>, mut signals: Signals, shutdown: &CancellationToken) -> ExitCode {
    let status = daemon.status();
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serves {} targets", status.targets.len()))]);
    let watchdog = tokio::spawn(feed_watchdog(Arc::clone(daemon)));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            Some(()) = signals.hangup.recv() => reload(daemon).await,
        }
    }
    info!("ending: no new commands are taken");
    tell(&[NotifyState::Stopping]);
    shutdown.cancel();
    let code = tokio::select! {
        () = daemon.end() => ExitCode::SUCCESS,
        () = signals.end() => {
            error!("ended at once by a second signal: commands that ran are cut off");
            ExitCode::FAILURE
        }
    };
    watchdog.abort();
    code
}

async fn reload(daemon: &Daemon) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "no clock to tell of a reload by"),
    }
    match daemon.reload().await {
        Ok(effects) => info!(changes = effects.len(), "configuration reloaded"),
        Err(failure) => error!(error = failure.error, "configuration not reloaded: nothing has changed"),
    }
    tell(&[NotifyState::Ready]);
}

/// Twice in the time that the supervisor gives, if it gives one; not when the runtime or the daemon's locks are stuck.
async fn feed_watchdog(daemon: Arc<Daemon>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let period = limit / 2;
    loop {
        tokio::time::sleep(period).await;
        if is_alive(&daemon, period).await {
            tell(&[NotifyState::Watchdog]);
        } else {
            error!("the threads that serve sessions are stuck: the watchdog is not fed");
        }
    }
}

/// Whether a thread of the runtime still takes work, and what sessions need can be locked.
async fn is_alive(daemon: &Arc<Daemon>, limit: Duration) -> bool {
    let daemon = Arc::clone(daemon);
    let looked = tokio::spawn(async move { daemon.is_responsive() });
    matches!(tokio::time::timeout(limit, looked).await, Ok(Ok(true)))
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the supervisor is not reached");
    }
}
