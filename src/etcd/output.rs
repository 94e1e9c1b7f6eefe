//! Turns the output of the child into log events, within bounds.
//!
//! Given the child's two pipes, reads them while they are open (the child must never block on them), keeps the last
//! lines for a failure report, and forwards each line to `tracing` with the target `etcd`, its level and fields. While
//! etcd starts, its INFO lines are held back: they are dropped once it is ready, and forwarded if it does not become
//! ready. Lines are cut at 16 KiB; a flood is limited to a rate, and dropped lines are counted and logged.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tracing::Level;

use crate::clock;
use crate::etcd::log_line::{LogLine, is_harmless, parse_line, reason_line};

/// Maximum length of a line in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;
/// Lines kept for a failure report.
const TAIL_LINES: usize = 20;
/// Maximum number of INFO lines that are held back while etcd starts.
const HELD_INFO_LINES: usize = 500;
const BURST: u32 = 2000;
/// … and the rate of lines per second after it.
const LINES_PER_SECOND: u32 = 200;

/// Lines that were dropped by the rate limit since the launcher started.
pub static DROPPED_LINES: AtomicU64 = AtomicU64::new(0);

/// Forward every line, as requested by `--debug` or `QUORATE_LOG`.
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Whether all lines of etcd are forwarded, or only the important ones.
pub fn set_verbose(verbose: bool) {
    VERBOSE.store(verbose, Ordering::Relaxed);
}

#[derive(Debug)]
enum InfoLines {
    /// Held back until it is known whether etcd becomes ready.
    Held(VecDeque<LogLine>),
    Shown,
    Hidden,
}

/// The last lines of one run of the child.
#[derive(Clone, Debug)]
pub struct Tail(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    last: VecDeque<String>,
    informational: InfoLines,
}

impl Default for Tail {
    fn default() -> Self {
        let lines = Lines { last: VecDeque::new(), informational: InfoLines::Held(VecDeque::new()) };
        Self(Arc::new(Mutex::new(lines)))
    }
}

impl Tail {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &str) {
        let mut lines = self.lock();
        if lines.last.len() == TAIL_LINES {
            lines.last.pop_front();
        }
        lines.last.push_back(crate::text::escape_control(line));
    }

    /// Returns the entry if it is to be forwarded now.
    fn hold(&self, entry: LogLine) -> Option<LogLine> {
        if entry.level != Level::INFO || VERBOSE.load(Ordering::Relaxed) {
            return Some(entry);
        }
        match &mut self.lock().informational {
            InfoLines::Held(held) => {
                if held.len() == HELD_INFO_LINES {
                    held.pop_front();
                }
                held.push_back(entry);
                None
            }
            InfoLines::Shown => Some(entry),
            InfoLines::Hidden => None,
        }
    }

    /// etcd is ready: drops the INFO lines so far and from now on.
    pub fn hide(&self) {
        self.lock().informational = InfoLines::Hidden;
    }

    /// etcd does not become ready, or has exited: returns the held INFO lines, and forwards later ones.
    pub fn show(&self) {
        let before = std::mem::replace(&mut self.lock().informational, InfoLines::Shown);
        if let InfoLines::Held(held) = before {
            held.iter().for_each(emit);
        }
    }

    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().last.iter().cloned().collect()
    }
}

impl Tail {
    /// The reason for the exit in its output: the last line of level `fatal` or `panic`, or the first line of a Go
    /// panic.
    #[must_use]
    pub fn fatal_line(&self) -> Option<String> {
        let is_last_word = |line: &&String| {
            line.starts_with("panic:")
                || line.starts_with("fatal error:")
                || ["\"level\":\"fatal\"", "\"level\":\"panic\""].iter().any(|level| line.contains(level))
                || line.contains(" C | ")
        };
        let lines = self.lines();
        lines.iter().rev().find(is_last_word).map(|line| reason_line(line))
    }
}

/// Emits an entry. The log formatter expands `fields`.
pub fn emit(entry: &LogLine) {
    let fields = Value::Object(entry.fields.clone()).to_string();
    let message = entry.message.as_str();
    let level = if is_harmless(entry) { Level::DEBUG } else { entry.level };
    match level {
        Level::ERROR => tracing::error!(target: "etcd", fields, "{message}"),
        Level::WARN => tracing::warn!(target: "etcd", fields, "{message}"),
        Level::INFO => tracing::info!(target: "etcd", fields, "{message}"),
        _ => tracing::debug!(target: "etcd", fields, "{message}"),
    }
}

/// Limits the lines per second, after a burst.
struct LineRateLimiter {
    credit: f64,
    last: Instant,
    dropped: u64,
}

impl LineRateLimiter {
    fn new(now: Instant) -> Self {
        Self { credit: f64::from(BURST), last: now, dropped: 0 }
    }

    /// Whether one more line is allowed; also the number of dropped lines, once the flood is over.
    fn allow(&mut self, now: Instant) -> (bool, Option<u64>) {
        let earned = now.duration_since(self.last).as_secs_f64() * f64::from(LINES_PER_SECOND);
        self.last = now;
        self.credit = (self.credit + earned).min(f64::from(BURST));
        if self.credit < 1.0 {
            self.dropped += 1;
            return (false, None);
        }
        // Wait for some credit before reporting a flood, or every line would report it.
        let report = (self.dropped > 0 && self.credit > f64::from(LINES_PER_SECOND) / 2.0)
            .then(|| std::mem::take(&mut self.dropped));
        // During a flood, keep some credit to report its end.
        if self.dropped > 0 && self.credit < f64::from(LINES_PER_SECOND) / 2.0 {
            self.dropped += 1;
            return (false, None);
        }
        self.credit -= 1.0;
        (true, report)
    }
}

/// Reads one pipe of the child until its end.
pub async fn forward_output(mut from: pipe::Receiver, tail: Tail) {
    let mut limiter = LineRateLimiter::new(clock::monotonic());
    let mut buffer = vec![0; 8 << 10];
    let mut line: Vec<u8> = Vec::new();
    let mut is_cut = false;
    loop {
        let count = match tokio::time::timeout(Duration::from_secs(1), from.read(&mut buffer)).await {
            Err(_) => {
                // A second without lines ends a flood.
                report_dropped(std::mem::take(&mut limiter.dropped));
                match from.read(&mut buffer).await {
                    Ok(count) => count,
                    Err(_) => break,
                }
            }
            Ok(Ok(count)) => count,
            Ok(Err(_)) => break,
        };
        if count == 0 {
            break;
        }
        for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            let (text, is_end) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = MAX_LINE_BYTES.saturating_sub(line.len());
            is_cut |= text.len() > room;
            line.extend_from_slice(&text[..text.len().min(room)]);
            if is_end {
                emit_line(&line, is_cut, &tail, &mut limiter);
                line.clear();
                is_cut = false;
            }
        }
    }
    if !line.is_empty() {
        emit_line(&line, is_cut, &tail, &mut limiter);
    }
    report_dropped(limiter.dropped);
}

fn emit_line(line: &[u8], is_cut: bool, tail: &Tail, limiter: &mut LineRateLimiter) {
    let mut line = String::from_utf8_lossy(line).into_owned();
    if is_cut {
        line.push_str(" […cut]");
    }
    if line.trim().is_empty() {
        return;
    }
    tail.push(&line);
    let (admitted, dropped) = limiter.allow(clock::monotonic());
    report_dropped(dropped.unwrap_or(0));
    if admitted {
        if let Some(entry) = tail.hold(parse_line(&line)) {
            emit(&entry);
        }
    } else {
        DROPPED_LINES.fetch_add(1, Ordering::Relaxed);
    }
}

fn report_dropped(count: u64) {
    if count > 0 {
        tracing::warn!(event = "etcd-lines-dropped", dropped = count, "etcd printed too many lines; some were dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_version_are_understood() {
        let entry = parse_line(
            r#"{"level":"warn","ts":"2026-11-21T03:50:00.1Z","caller":"etcdserver/util.go:123","msg":"apply request took too long","took":"1s","n":3}"#,
        );
        assert_eq!((entry.level, entry.message.as_str()), (Level::WARN, "apply request took too long"));
        assert_eq!(
            Value::Object(entry.fields),
            serde_json::json!({"caller":"etcdserver/util.go:123","took":"1s","n":3})
        );

        let entry = parse_line("2026-11-21 03:50:00.123456 W | etcdserver: could not get cluster response");
        assert_eq!((entry.level, entry.message.as_str()), (Level::WARN, "could not get cluster response"));
        assert_eq!(entry.fields["caller"], "etcdserver");

        for (line, level) in [
            ("panic: runtime error: invalid memory address", Level::ERROR),
            ("fatal error: all goroutines are asleep", Level::ERROR),
            ("[WARNING] Deprecated '--logger=capnslog' flag is set", Level::INFO),
            ("{not json", Level::INFO),
            (r#"{"json":"without level"}"#, Level::INFO),
            ("a | b", Level::INFO),
            ("goroutine 1 I | x: y", Level::INFO),
        ] {
            let entry = parse_line(line);
            assert_eq!((entry.level, entry.message.as_str()), (level, line));
        }
    }

    #[test]
    fn the_tail_keeps_the_last_lines_and_no_control_characters() {
        let tail = Tail::default();
        for number in 0..30 {
            tail.push(&format!("line {number}\u{1b}[2J"));
        }
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines[0], "line 10?[2J");
    }

    #[test]
    fn informational_lines_are_kept_back_until_it_is_known_whether_etcd_becomes_ready() {
        let info =
            |message: &str| LogLine { level: Level::INFO, message: message.into(), fields: serde_json::Map::new() };
        let tail = Tail::default();
        assert_eq!(tail.hold(info("a")), None);
        let warning = LogLine { level: Level::WARN, ..info("w") };
        assert_eq!(tail.hold(warning.clone()), Some(warning.clone()));
        for number in 0..2 * HELD_INFO_LINES {
            assert_eq!(tail.hold(info(&number.to_string())), None);
        }
        tail.show();
        assert_eq!(tail.hold(info("b")), Some(info("b")));
        tail.hide();
        assert_eq!((tail.hold(info("c")), tail.hold(warning.clone())), (None, Some(warning)));
    }

    #[test]
    fn warnings_that_mean_nothing_are_known() {
        for (line, harmless) in [
            (
                r#"{"level":"warn","msg":"failed to lock file","path":"x","error":"fileutil: file already locked"}"#,
                true,
            ),
            (r#"{"level":"warn","msg":"failed to lock file","path":"x","error":"permission denied"}"#, false),
            (
                r#"{"level":"warn","msg":"stopping secure grpc server due to error","error":"accept tcp 127.0.0.1:1: use of closed network connection"}"#,
                true,
            ),
            (r#"{"level":"warn","msg":"stopping secure grpc server due to error","error":"no certificate"}"#, false),
        ] {
            assert_eq!(is_harmless(&parse_line(line)), harmless, "{line}");
        }
    }

    #[test]
    fn the_reason_for_an_exit_is_the_last_fatal_line() {
        let tail = Tail::default();
        assert_eq!(tail.fatal_line(), None);
        tail.push(r#"{"level":"error","msg":"failed to purge"}"#);
        tail.push(r#"{"level":"fatal","caller":"x.go:1","msg":"failed to commit tx","error":"write: no space left on device"}"#);
        tail.push("goroutine 1 [running]:");
        assert_eq!(tail.fatal_line().as_deref(), Some("failed to commit tx: write: no space left on device"));
    }

    #[test]
    fn a_flood_is_thinned_and_counted_exactly() {
        let start = clock::monotonic();
        let mut limiter = LineRateLimiter::new(start);
        let (mut passed, mut reported) = (0u64, 0);
        let total = 100_000u64;
        for number in 0..total {
            let (admitted, dropped) = limiter.allow(start + Duration::from_micros(number * 10));
            passed += u64::from(admitted);
            reported += dropped.unwrap_or(0);
        }
        assert!(passed <= u64::from(BURST + LINES_PER_SECOND), "{passed}");
        let (admitted, dropped) = limiter.allow(start + Duration::from_secs(60));
        assert!(admitted);
        assert_eq!(passed + reported + dropped.unwrap_or(0), total);
    }
}
