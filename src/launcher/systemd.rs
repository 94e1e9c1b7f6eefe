//! Notifies systemd: ready, status, stopping, watchdog. Does nothing without `NOTIFY_SOCKET`.

use std::time::Duration;

use sd_notify::NotifyState;

/// What systemd wants to hear regularly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    timeout: Option<Duration>,
}

impl Watchdog {
    pub(crate) fn from_environment() -> Self {
        Self { timeout: sd_notify::watchdog_enabled() }
    }

    /// The interval of watchdog notifications; long if there is no watchdog.
    pub(crate) fn interval(self) -> Duration {
        // Twice in the time that systemd waits, as sd_watchdog_enabled(3) advises.
        self.timeout.map_or(Duration::from_secs(3600), |timeout| (timeout / 2).max(Duration::from_millis(10)))
    }

    pub(crate) fn feed(self) {
        if self.timeout.is_some() {
            send(&[NotifyState::Watchdog]);
        }
    }
}

pub(crate) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub(crate) fn reloading() {
    let begun = NotifyState::monotonic_usec_now().ok();
    send(&[NotifyState::Reloading].into_iter().chain(begun).collect::<Vec<_>>());
}

pub(crate) fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

pub(crate) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
