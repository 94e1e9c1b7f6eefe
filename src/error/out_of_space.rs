//! Too little free space for something that is about to be written.

use std::path::{Path, PathBuf};

use super::code::Code;
use super::diagnostic::Diagnostic;
use crate::text::format_bytes;

/// Too little free space: what needs it, how much, and where.
#[derive(Debug, thiserror::Error)]
#[error("{what} needs {}, but only {} are free in {}", format_bytes(*needed), format_bytes(*free), dir.display())]
pub struct OutOfSpace {
    what: String,
    needed: u64,
    free: u64,
    dir: PathBuf,
    remedy: String,
}

impl OutOfSpace {
    /// Refuses what needs more bytes than are free in `dir`; a file system that does not report its free space refuses nothing.
    ///
    /// # Errors
    /// The refusal, with `remedy` as the next step.
    pub fn check(
        what: impl Into<String>,
        needed: u64,
        free: Option<u64>,
        dir: &Path,
        remedy: impl Into<String>,
    ) -> Result<(), Self> {
        match free {
            Some(free) if free < needed => {
                Err(Self { what: what.into(), needed, free, dir: dir.to_path_buf(), remedy: remedy.into() })
            }
            _ => Ok(()),
        }
    }
}

impl Diagnostic for OutOfSpace {
    fn code(&self) -> Code {
        Code::NoSpace
    }

    fn next_step(&self) -> Option<String> {
        Some(self.remedy.clone())
    }

    fn is_out_of_space(&self) -> bool {
        true
    }
}
