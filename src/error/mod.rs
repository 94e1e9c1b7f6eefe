//! Failures as shown to operators: message, causes, next step, stable code and exit code.
//!
//! Each module has its own error enum whose variants say what failed, on what; the chain of sources says why.
//! [`Diagnostic`] adds a stable [`Code`] (docs/errors.md), which also decides the exit code, and the next command to
//! type. Errors are returned, never logged and swallowed.

mod code;
mod diagnostic;
mod exit;
mod out_of_space;
mod system;

pub use code::Code;
pub use diagnostic::Diagnostic;
pub use exit::Exit;
pub use out_of_space::OutOfSpace;
pub use system::{SystemError, system_error};

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::text::{is_control, json_line};

/// True if an I/O error means that a disk is full.
#[must_use]
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The sources of an error, the nearest first.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// A failure as sent between quorate processes, and as printed in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// [`Code::Unknown`] from a server that is older than the codes.
    #[serde(default)]
    pub code: Code,
    pub message: String,
    /// The causes, the nearest first.
    pub because: Vec<String>,
    pub next: Option<String>,
    pub exit_code: u8,
}

impl ErrorReport {
    /// What is said of `error`.
    pub fn of(error: &dyn Diagnostic) -> Self {
        let (message, because) = match error.reported() {
            Some((message, because)) => (message.to_owned(), because.to_vec()),
            None => (error.to_string(), causes(error).map(ToString::to_string).collect()),
        };
        Self { code: error.code(), message, because, next: error.next_step(), exit_code: error.exit() as u8 }
    }

    /// The causes in one line; empty if there are none.
    #[must_use]
    pub fn because_line(&self) -> Option<String> {
        (!self.because.is_empty()).then(|| self.because.join(": "))
    }

    /// Replaces an internal name in all texts.
    #[must_use]
    pub fn renamed(self, from: &str, to: &str) -> Self {
        let other = |text: String| text.replace(from, to);
        Self {
            message: other(self.message),
            because: self.because.into_iter().map(other).collect(),
            next: self.next.map(other),
            ..self
        }
    }
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.because {
            write!(f, "\n  because: {cause}")?;
        }
        Ok(())
    }
}

impl Error for ErrorReport {}

impl Diagnostic for ErrorReport {
    fn code(&self) -> Code {
        self.code
    }

    fn exit(&self) -> Exit {
        [Exit::Usage, Exit::InUse, Exit::Refused, Exit::NotFound, Exit::NotRunning, Exit::Busy]
            .into_iter()
            .find(|exit| *exit as u8 == self.exit_code)
            .unwrap_or(Exit::Failed)
    }

    fn next_step(&self) -> Option<String> {
        self.next.clone()
    }

    fn reported(&self) -> Option<(&str, &[String])> {
        Some((&self.message, &self.because))
    }
}

/// Logs a failure that does not end the program, with code, message, causes and next step as fields.
///
/// `log_failure!(warn, report, name, "the snapshot was not uploaded")`, where `name` is one of tracing's fields.
#[macro_export]
macro_rules! log_failure {
    ($level:ident, $report:expr, $($field:tt)*) => {{
        let report: $crate::error::ErrorReport = $report;
        tracing::$level!(
            code = report.code.name(),
            error = report.message,
            because = report.because_line(),
            next = report.next,
            $($field)*
        );
    }};
}

/// Any [`Diagnostic`] error, as returned to `main`.
#[derive(Debug)]
pub struct AppError(Box<dyn Diagnostic>);

impl<E: Diagnostic> From<E> for AppError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl AppError {
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// The exit code of the program.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.0.exit()
    }

    /// True if it was caused by lack of space.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        self.0.is_out_of_space()
    }

    /// Its report, for another quorate process, the log, or JSON output.
    #[must_use]
    pub fn to_report(&self) -> ErrorReport {
        ErrorReport::of(&*self.0)
    }

    /// The report as a JSON log line.
    #[must_use]
    pub fn json_line(&self) -> String {
        let ErrorReport { code, message, because, next, exit_code } = self.to_report();
        json_line([
            ("time", clock::rfc3339_millis(clock::now()).into()),
            ("level", "error".into()),
            ("code", code.name().into()),
            ("message", message.into()),
            ("target", "quorate".into()),
            ("because", because.into()),
            ("next", next.into()),
            ("exit_code", exit_code.into()),
        ])
    }

    /// The text for standard error: message, causes, next step and code.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("quorate: {}\n", paragraph(&self.0.to_string()));
        for cause in causes(&*self.0) {
            let _ = writeln!(text, "  because: {}", paragraph(&cause.to_string()));
        }
        if let Some(next) = self.0.next_step() {
            let _ = writeln!(text, "  next: {}", paragraph(&next));
        }
        let _ = writeln!(text, "  code: {}", self.code());
        text
    }
}

/// Texts may contain file names and output of other programs: they must neither move the cursor nor look like another
/// line. Intended continuation lines are indented.
fn paragraph(text: &str) -> String {
    let mut rest = text.chars().peekable();
    let mut clean = String::with_capacity(text.len());
    while let Some(c) = rest.next() {
        let is_meant = c == '\n' && rest.peek() == Some(&' ');
        clean.push(if is_control(c) && !is_meant { '?' } else { c });
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /x")]
    struct Sample(#[source] std::io::Error);

    impl Diagnostic for Sample {
        fn code(&self) -> Code {
            Code::SnapshotNotFound
        }
        fn next_step(&self) -> Option<String> {
            Some("search for it".into())
        }
    }

    #[test]
    fn a_report_has_what_why_and_next() {
        let failure = AppError::from(Sample(std::io::Error::other("it is gone")));
        assert_eq!(
            failure.report(),
            "quorate: cannot read /x\n  because: it is gone\n  next: search for it\n  code: snapshot-not-found\n"
        );
        let hostile = AppError::from(Sample(std::io::Error::other("\u{1b}[2J")));
        assert_eq!(
            hostile.report(),
            "quorate: cannot read /x\n  because: ?[2J\n  next: search for it\n  code: snapshot-not-found\n"
        );
        // A name that contains a line break, and intended continuation lines.
        let broken = AppError::from(Sample(std::io::Error::other("a\nb: good\n    its last line")));
        assert_eq!(
            broken.report(),
            "quorate: cannot read /x\n  because: a?b: good\n    its last line\n  next: search for it\n  code: snapshot-not-found\n"
        );
        assert_eq!(failure.exit(), Exit::NotFound);
        let line: serde_json::Value = serde_json::from_str(&failure.json_line()).unwrap();
        assert_eq!((&line["because"][0], &line["exit_code"]), (&"it is gone".into(), &5.into()));
        assert_eq!(line["code"], "snapshot-not-found");
        // What came from another process keeps its parts, also from a server that is older than the codes.
        assert_eq!(AppError::from(failure.to_report()).to_report(), failure.to_report());
        let mut older = serde_json::to_value(failure.to_report()).unwrap();
        older.as_object_mut().unwrap().remove("code");
        assert_eq!(serde_json::from_value::<ErrorReport>(older).unwrap().code, Code::Unknown);
    }
}
