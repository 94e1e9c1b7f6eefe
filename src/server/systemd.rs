//! Talks to systemd, if it listens: ready, status, stopping, watchdog. Without NOTIFY_SOCKET each of these is nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The way to the service manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notifier {
    watchdog: Option<Duration>,
}

impl Notifier {
    pub(super) fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often the watchdog wants to hear of us; rarely if it does not.
    pub(super) fn watchdog_interval(self) -> Duration {
        // Twice in the time that systemd waits, as sd_watchdog_enabled(3) advises.
        self.watchdog.map_or(Duration::from_secs(3600), |timeout| (timeout / 2).max(Duration::from_millis(10)))
    }

    pub(super) fn watchdog(self) {
        if self.watchdog.is_some() {
            Self::send(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn ready(self, status: &str) {
        Self::send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(super) fn status(self, status: &str) {
        Self::send(&[NotifyState::Status(status)]);
    }

    pub(super) fn stopping(self) {
        Self::send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    fn send(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "systemd could not be told");
        }
    }
}
