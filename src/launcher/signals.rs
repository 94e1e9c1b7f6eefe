//! The signals that a server heeds.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT ask to stop, SIGHUP to read the configuration anew.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    had_terminal: bool,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalAction {
    /// Stop; the signal's name.
    Stop(&'static str),
    /// Read the configuration anew.
    Reload,
}

impl Signals {
    /// From here on the signals are ours.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            had_terminal: io::stderr().is_terminal(),
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalAction::Stop("SIGINT"),
            _ = self.hang_up.recv() => {
                // A terminal that was closed sends it too, and is then a terminal no more.
                if self.had_terminal && !io::stderr().is_terminal() { SignalAction::Stop("SIGHUP") } else { SignalAction::Reload }
            }
        }
    }
}

/// As PID 1 in a container: collects processes whose parents are gone.
pub(crate) async fn reap_orphans(reap: fn() -> Vec<i32>) {
    let Ok(mut ended) = signal(SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        // Several ends at once are one signal; a moment lets them gather.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for pid in reap() {
            tracing::debug!(event = "process-reaped", pid, "reaped a process that had lost its parent");
        }
    }
}
