//! Output of commands: data on standard output, messages on standard error, tables that fit 80 columns.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::error::{AppError, Code, Diagnostic};
use crate::host::stderr_is_journal;
use crate::terminal::Stderr;
use crate::text::{escape_json, is_control};

/// The timeout of writing to standard error.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// The default terminal width in columns.
pub(super) const WIDTH: usize = 80;

/// The values of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// A contract: fields are added, never renamed.
    Json,
    /// The same as JSON.
    Yaml,
}

/// No runtime.
#[derive(Debug, thiserror::Error)]
#[error("cannot create a thread or poller")]
pub(super) struct RuntimeError(#[source] pub(super) io::Error);

impl Diagnostic for RuntimeError {
    fn code(&self) -> Code {
        Code::OsError
    }
}

/// The result could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(super) struct OutputError(#[source] pub(super) io::Error);

impl Diagnostic for OutputError {
    fn code(&self) -> Code {
        Code::OutputFailed
    }
}

/// Writes to standard output. A closed pipe (`| head`) is not an error; a full disk under a redirection is.
pub(super) fn print_stdout(text: &str) -> Result<(), OutputError> {
    write_stdout(text.as_bytes())
}

/// Like [`print_stdout`], for reports of success, which `-q` suppresses.
pub(super) fn print_result(text: &str) -> Result<(), OutputError> {
    if is_quiet() { Ok(()) } else { print_stdout(text) }
}

/// Like [`print_stdout`], for bytes.
pub(super) fn write_stdout(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OutputError(error)),
        _ => Ok(()),
    }
}

/// `-q`: print only results and failures.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Prints only results and failures from now on.
pub(super) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// True if only results and failures are printed.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Failures are printed as JSON.
static FAILURES_AS_JSON: AtomicBool = AtomicBool::new(false);

/// Prints failures as JSON from now on, one object per line.
pub(super) fn print_failures_as_json() {
    FAILURES_AS_JSON.store(true, Ordering::Relaxed);
}

/// Writes a failure to standard error, as JSON or text.
pub(super) fn failure(failure: &AppError) {
    let as_json = FAILURES_AS_JSON.load(Ordering::Relaxed);
    print_stderr(&if as_json { failure.json_line() } else { failure.report() });
}

/// Like [`print_stderr`], for notes, which `-q` suppresses.
pub(super) fn note(text: &str) {
    if !is_quiet() {
        print_stderr(text);
    }
}

/// Writes to standard error with a timeout: a full pipe without a reader must not prevent the program from ending.
pub(super) fn print_stderr(text: &str) {
    let (done, written) = mpsc::channel();
    let text = if stderr_is_journal() {
        // Messages on standard error deserve attention.
        text.lines().map(|line| format!("<3>{line}\n")).collect()
    } else {
        text.to_owned()
    };
    let writer = std::thread::Builder::new().spawn(move || {
        let _ = Stderr.write_all(text.as_bytes());
        let _ = done.send(());
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(WRITE_TIMEOUT);
    }
}

/// The display width of `text`.
pub(super) fn width(text: &str) -> usize {
    // Colors have no width.
    console::strip_ansi_codes(text).width()
}

/// Wraps `text` at `width` columns, including the indent of all lines but the first, which begins at the indent, too.
/// Longer words are not broken.
pub(super) fn wrap_text(text: &str, indent: usize, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| self::width(line));
        if line > 0 && indent + line + 1 + self::width(word) > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}

/// Fits a line to the terminal, if standard output is one: wrapped between words; longer words are shortened in the
/// middle.
pub(super) fn fitted(line: &str) -> String {
    columns().map_or_else(|| line.to_owned(), |columns| fitted_to(line, columns))
}

fn fitted_to(line: &str, columns: usize) -> String {
    const INDENT: usize = 2;
    if width(line) <= columns {
        return line.to_owned();
    }
    let room = columns.saturating_sub(INDENT);
    let words: Vec<String> = line.split_whitespace().map(|word| truncate_middle(word, room)).collect();
    wrap_text(&words.join(" "), INDENT, columns)
}

/// Truncates `text` to `width` columns.
pub(super) fn truncate(text: &str, width: usize) -> String {
    if self::width(text) <= width {
        return text.to_owned();
    }
    format!("{}…", beginning(text, width.saturating_sub(1)))
}

/// Truncates `text` to `width` columns in the middle, keeping more of the end.
pub(super) fn truncate_middle(text: &str, width: usize) -> String {
    if self::width(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let beginning = beginning(text, room / 3);
    let rest = room - self::width(beginning);
    format!("{beginning}…{}", end(text, rest))
}

/// The beginning of `text` that fits `room` columns.
fn beginning(text: &str, room: usize) -> &str {
    let fits = |(at, c): &(usize, char)| self::width(&text[..at + c.len_utf8()]) <= room;
    let last = text.char_indices().take_while(fits).last();
    &text[..last.map_or(0, |(at, c)| at + c.len_utf8())]
}

/// The end of `text` that fits `room` columns.
fn end(text: &str, room: usize) -> &str {
    let fits = |(at, _): &(usize, char)| self::width(&text[*at..]) <= room;
    let first = text.char_indices().rev().take_while(fits).last();
    &text[first.map_or(text.len(), |(at, _)| at)..]
}

/// The width of the terminal, if standard output is one.
pub(super) fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// `1 key`, `2 keys`.
pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("{count} {word}") } else { format!("{count} {word}s") }
}

/// Prints `value` as JSON or YAML; `false` if the format is a table, which the command prints itself.
pub(super) fn structured(value: &impl Serialize, format: Format) -> Result<bool, OutputError> {
    let json = || escape_json(&serde_json::to_string_pretty(value).unwrap_or_default()) + "\n";
    match format {
        Format::Table => return Ok(false),
        Format::Json => print_stdout(&json())?,
        Format::Yaml => {
            let yaml = serde_yaml::to_string(value).unwrap_or_default();
            // JSON is valid YAML, and escapes more characters.
            let is_plain = yaml.chars().all(|c| c == '\n' || !is_control(c));
            print_stdout(&if is_plain { yaml } else { json() })?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_fit_the_terminal() {
        assert_eq!(wrap_text("one two three", 4, 11), "one two\n    three");
        assert_eq!(wrap_text("averylongword x", 2, 8), "averylongword\n  x");
        assert_eq!(wrap_text("", 2, 8), "");
        assert_eq!(fitted_to("kept  as it is", 20), "kept  as it is");
        assert_eq!(
            fitted_to("keep s3://bucket/a-long-name: it is held", 20),
            "keep\n  s3://…a-long-name:\n  it is held"
        );
        assert_eq!(truncate("abc", 3), "abc");
        assert_eq!(truncate("abcd", 3), "ab…");
        assert_eq!(truncate_middle("abcdefgh", 8), "abcdefgh");
        assert_eq!(truncate_middle("abcdefghijk", 7), "ab…hijk");
        // Two columns each.
        assert_eq!((truncate("数据库", 5), truncate_middle("数据库", 5)), ("数据…".into(), "…据库".into()));
        assert_eq!((truncate("abc", 0), truncate_middle("abc", 1)), ("…".into(), "…".into()));
    }
}
