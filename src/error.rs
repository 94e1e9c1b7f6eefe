//! What a failure tells an operator, and the exit code it ends with.
//!
//! Each room has an error enum of its own whose variants say what failed on what; the chain of sources says why.
//! [`Explained`] adds the two things that a person at a terminal needs beyond that: the exit code (README.md, "When
//! something is wrong") and the next command to type. Errors are returned, never logged and swallowed.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::host::is_unprintable;
use crate::text::json_line;

/// The exit codes of every `quorate` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, also when asked to stop.
    Done = 0,
    /// Failed; the message says what and what to do.
    Failed = 1,
    /// Usage or configuration. systemd does not restart after it.
    Usage = 2,
    /// The data directory is in use.
    InUse = 3,
    /// Refused to protect data. systemd does not restart after it.
    Refused = 4,
    /// Something that was named does not exist.
    NotFound = 5,
    /// The server is not running or not reachable.
    NotRunning = 6,
    /// Busy, try again.
    Busy = 75,
}

/// An error that knows how it ends the program and what to do about it.
pub trait Explained: Error + Send + Sync + 'static {
    /// The exit code of a program that ends because of this.
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    /// What the operator should do or type next.
    fn next(&self) -> Option<String> {
        None
    }

    /// True if there was too little space for it.
    fn is_for_want_of_space(&self) -> bool {
        false
    }
}

/// True if the system said that a disk is full.
#[must_use]
pub fn says_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why: the sources of an error, from the nearest to the bottom.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// A failure that another process of ours has told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What failed.
    pub message: String,
    /// Why, from the nearest cause to the bottom.
    pub because: Vec<String>,
    /// What to do.
    pub next: Option<String>,
    /// The exit code.
    pub exit_code: u8,
}

impl Told {
    /// With another word for something that only we know by its name.
    #[must_use]
    pub fn renamed(self, from: &str, to: &str) -> Self {
        let other = |text: String| text.replace(from, to);
        Self {
            message: other(self.message),
            because: self.because.into_iter().map(other).collect(),
            next: self.next.map(other),
            exit_code: self.exit_code,
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.because {
            write!(f, "\n  because: {cause}")?;
        }
        Ok(())
    }
}

impl Error for Told {}

impl Explained for Told {
    fn exit(&self) -> Exit {
        [Exit::Usage, Exit::InUse, Exit::Refused, Exit::NotFound, Exit::NotRunning, Exit::Busy]
            .into_iter()
            .find(|exit| *exit as u8 == self.exit_code)
            .unwrap_or(Exit::Failed)
    }

    fn next(&self) -> Option<String> {
        self.next.clone()
    }
}

/// Any [`Explained`] error, on its way to `main`.
#[derive(Debug)]
pub struct Failure(Box<dyn Explained>);

impl<E: Explained> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl Failure {
    /// The exit code that the program ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.0.exit()
    }

    /// True if there was too little space for it.
    #[must_use]
    pub fn is_for_want_of_space(&self) -> bool {
        self.0.is_for_want_of_space()
    }

    /// For another process of ours, which reports it as its own.
    #[must_use]
    pub fn told(&self) -> Told {
        Told {
            message: self.0.to_string(),
            because: causes(&*self.0).map(ToString::to_string).collect(),
            next: self.0.next(),
            exit_code: self.exit() as u8,
        }
    }

    /// The same as [`Self::report`] as a log line in JSON, for those who read the log with a program.
    #[must_use]
    pub fn json_line(&self) -> String {
        let because: Vec<String> = causes(&*self.0).map(ToString::to_string).collect();
        json_line([
            ("time", clock::rfc3339_millis(clock::now()).into()),
            ("level", "error".into()),
            ("message", self.0.to_string().into()),
            ("target", "quorate".into()),
            ("because", because.into()),
            ("next", self.0.next().into()),
            ("exit_code", (self.exit() as u8).into()),
        ])
    }

    /// The error, then why (the chain of sources), then what to do: what goes to standard error.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("quorate: {}\n", paragraph(&self.0.to_string()));
        for cause in causes(&*self.0) {
            let _ = writeln!(text, "  because: {}", paragraph(&cause.to_string()));
        }
        if let Some(next) = self.0.next() {
            let _ = writeln!(text, "  next: {}", paragraph(&next));
        }
        text
    }
}

/// Names of files and what other programs said may be in a text: it can neither move the cursor nor begin a line of its own. Lines that
/// were meant to be lines are indented.
fn paragraph(text: &str) -> String {
    let mut rest = text.chars().peekable();
    let mut clean = String::with_capacity(text.len());
    while let Some(c) = rest.next() {
        let is_meant = c == '\n' && rest.peek() == Some(&' ');
        clean.push(if is_unprintable(c) && !is_meant { '?' } else { c });
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /x")]
    struct Sample(#[source] std::io::Error);

    impl Explained for Sample {
        fn exit(&self) -> Exit {
            Exit::NotFound
        }
        fn next(&self) -> Option<String> {
            Some("look for it".into())
        }
    }

    #[test]
    fn a_report_has_what_why_and_next() {
        let failure = Failure::from(Sample(std::io::Error::other("it is gone")));
        assert_eq!(failure.report(), "quorate: cannot read /x\n  because: it is gone\n  next: look for it\n");
        let hostile = Failure::from(Sample(std::io::Error::other("\u{1b}[2J")));
        assert_eq!(hostile.report(), "quorate: cannot read /x\n  because: ?[2J\n  next: look for it\n");
        // A name with a line break in it, and lines of our own.
        let broken = Failure::from(Sample(std::io::Error::other("a\nb: good\n    its last line")));
        assert_eq!(
            broken.report(),
            "quorate: cannot read /x\n  because: a?b: good\n    its last line\n  next: look for it\n"
        );
        assert_eq!(failure.exit(), Exit::NotFound);
        let line: serde_json::Value = serde_json::from_str(&failure.json_line()).unwrap();
        assert_eq!((&line["because"][0], &line["exit_code"]), (&"it is gone".into(), &5.into()));
    }
}
