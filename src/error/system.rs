//! What the operating system refuses, and quorate cannot be without.

use std::io;

use super::{Code, Diagnostic, is_disk_full};

/// The operating system refused something: a thread, a signal handler, random numbers.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act}")]
pub struct SystemError {
    act: &'static str,
    source: io::Error,
}

impl Diagnostic for SystemError {
    fn code(&self) -> Code {
        match self.source.kind() {
            _ if is_disk_full(&self.source) => Code::NoSpace,
            // Not the system's: a worker thread that panicked.
            io::ErrorKind::Other => Code::InternalError,
            _ => Code::OsError,
        }
    }

    fn next_step(&self) -> Option<String> {
        is_disk_full(&self.source)
            .then(|| "find the file system that is full (df -h), and free some space there".into())
    }
}

/// Makes a [`SystemError`] of what the system said; `act` is what cannot be done, a verb and its object.
pub fn system_error(act: &'static str) -> impl Fn(io::Error) -> SystemError {
    move |source| SystemError { act, source }
}
