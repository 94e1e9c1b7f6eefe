//! Fault injection, compiled in only with the `fault-injection` feature; a release contains none of it.
//!
//! Every named step calls [`point`] with its name. The `fail` crate's `FAILPOINTS` environment variable then decides
//! what happens there: `name=return(enospc)` makes the step fail with that errno, `name=return(kill)` ends the process
//! as `kill -9` would, `name=return(stop)` stops it there until SIGCONT, so that a test can act meanwhile, and `sleep`,
//! `pause` and counts work as in that crate.

#![cfg_attr(feature = "fault-injection", allow(clippy::disallowed_methods, reason = "only of tests"))]

use std::io;
use std::time::{Duration, SystemTime};

#[cfg(feature = "fault-injection")]
pub fn point(name: &str) -> io::Result<()> {
    use nix::errno::Errno;
    let Some(wanted) = fail::eval(name, |value| value) else { return Ok(()) };
    let errno = match wanted.as_deref() {
        Some("kill") => {
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
            Errno::EINTR
        }
        Some("stop") => {
            // To this thread, which then stops at once; all others stop with it.
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
            return Ok(());
        }
        Some("enospc") => Errno::ENOSPC,
        Some("erofs") => Errno::EROFS,
        _ => Errno::EIO,
    };
    Err(io::Error::from(errno))
}

/// Passes the named step; does nothing without the feature.
#[cfg(not(feature = "fault-injection"))]
#[inline]
#[allow(clippy::unnecessary_wraps, clippy::missing_errors_doc, reason = "same shape as with the feature on")]
pub fn point(_name: &str) -> io::Result<()> {
    Ok(())
}

/// Arms the points that `FAILPOINTS` names, until the process ends.
pub fn arm() {
    #[cfg(feature = "fault-injection")]
    std::mem::forget(fail::FailScenario::setup());
}

/// The wall clock; with the feature on, shifted by the seconds in the file that `QUORATE_TEST_CLOCK_FILE` names, which a test may change
/// meanwhile, or by `QUORATE_TEST_CLOCK_SHIFT` seconds.
#[must_use]
pub fn shifted(real: SystemTime) -> SystemTime {
    #[cfg(feature = "fault-injection")]
    if let Some(shift) = clock_shift() {
        let by = Duration::from_secs(shift.unsigned_abs());
        return if shift < 0 { real - by } else { real + by };
    }
    real
}

#[cfg(feature = "fault-injection")]
fn clock_shift() -> Option<i64> {
    let from_file = std::env::var_os("QUORATE_TEST_CLOCK_FILE").and_then(|path| std::fs::read_to_string(path).ok());
    let text = from_file.or_else(|| std::env::var("QUORATE_TEST_CLOCK_SHIFT").ok())?;
    text.trim().parse().ok()
}

/// With the feature on, the address in `QUORATE_TEST_LOOPBACK`: the address of a server's loopback sockets, so that
/// several servers with the same ports run on one machine. Otherwise `None`, for 127.0.0.1 or `::1`.
#[must_use]
pub fn loopback() -> Option<std::net::IpAddr> {
    #[cfg(feature = "fault-injection")]
    return std::env::var("QUORATE_TEST_LOOPBACK").ok()?.parse().ok();
    #[cfg(not(feature = "fault-injection"))]
    None
}

/// A duration that a test may shorten: `usual`, or with the feature on the milliseconds in the environment variable
/// `name`.
#[must_use]
pub fn tunable(name: &str, usual: Duration) -> Duration {
    #[cfg(feature = "fault-injection")]
    if let Some(millis) = std::env::var(name).ok().and_then(|text| text.parse().ok()) {
        return Duration::from_millis(millis);
    }
    let _ = name;
    usual
}
