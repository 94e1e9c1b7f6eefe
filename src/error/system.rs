//! What the operating system refuses, and quorate cannot be without.

use std::io;

use super::{Code, Diagnostic};

/// The operating system refused something: a thread, a signal handler, random numbers.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act}")]
pub struct SystemError {
    act: &'static str,
    source: io::Error,
}

impl Diagnostic for SystemError {
    fn code(&self) -> Code {
        Code::OsError
    }
}

/// Makes a [`SystemError`] of what the system said; `act` is what cannot be done, a verb and its object.
pub fn system_error(act: &'static str) -> impl Fn(io::Error) -> SystemError {
    move |source| SystemError { act, source }
}
