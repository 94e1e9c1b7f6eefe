//! What every error of quorate knows in addition to its message.

use std::error::Error;

use super::code::Code;
use super::exit::Exit;

/// An error with a code, an exit code and a next step.
pub trait Diagnostic: Error + Send + Sync + 'static {
    /// Its stable code. A wrapper has the code of the wrapped error.
    fn code(&self) -> Code;

    /// The exit code of a command that fails with it.
    fn exit(&self) -> Exit {
        self.code().exit()
    }

    /// What the operator should do or type next.
    fn next_step(&self) -> Option<String> {
        None
    }

    /// Message and causes, if they came as text from another process and not as a chain of sources.
    fn reported(&self) -> Option<(&str, &[String])> {
        None
    }

    /// True if it was caused by lack of space.
    fn is_out_of_space(&self) -> bool {
        false
    }
}
