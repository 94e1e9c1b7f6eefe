//! The signals of a server.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT stop the server, SIGHUP reloads the configuration.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    had_terminal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalAction {
    Stop(&'static str),
    Reload,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            had_terminal: io::stderr().is_terminal(),
        })
    }

    pub(crate) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalAction::Stop("SIGINT"),
            _ = self.hang_up.recv() => {
                // A closed terminal sends it, too, and is not a terminal any more then.
                if self.had_terminal && !io::stderr().is_terminal() { SignalAction::Stop("SIGHUP") } else { SignalAction::Reload }
            }
        }
    }
}

/// As PID 1 in a container: reaps orphaned processes.
pub(crate) async fn reap_orphans(reap: fn() -> Vec<i32>) {
    let Ok(mut ended) = signal(SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        // Several exits may cause one signal; wait a moment to collect them.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for pid in reap() {
            tracing::debug!(event = "process-reaped", pid, "reaped an orphaned process");
        }
    }
}
