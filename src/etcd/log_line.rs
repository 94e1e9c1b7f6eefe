//! A line of etcd's log, in the formats of all supported versions: zap's JSON (3.5 and later) and capnslog (3.4); which warnings mean nothing.

use serde_json::{Map, Value};
use tracing::Level;

/// Maximum length of the reason for an exit, in characters.
const MAX_REASON_BYTES: usize = 400;
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    pub level: Level,
    /// The message without time and level.
    pub message: String,
    /// The other fields of the line.
    pub fields: Map<String, Value>,
}

/// The message and error of a line, without its level.
pub(super) fn reason_line(line: &str) -> String {
    let entry = parse_line(line);
    let text = |name: &str| entry.fields.get(name).and_then(|value| value.as_str());
    let error = text("error").or_else(|| text("err")).map(|error| format!(": {error}")).unwrap_or_default();
    let text = crate::text::escape_control(&format!("{}{error}", entry.message));
    text.chars().take(MAX_REASON_BYTES).collect()
}

/// Parses one line of any etcd: zap's JSON (all versions), the older text format of 3.4, or any other text.
#[must_use]
pub fn parse_line(line: &str) -> LogLine {
    parse_zap(line).or_else(|| parse_capnslog(line)).unwrap_or_else(|| LogLine {
        level: if line.starts_with("panic:") || line.starts_with("fatal error:") { Level::ERROR } else { Level::INFO },
        message: line.to_owned(),
        fields: Map::new(),
    })
}

/// A line of etcd without fields for programs.
#[must_use]
pub fn short(line: &str) -> String {
    let entry = parse_line(line);
    let text = |name: &str| entry.fields.get(name).and_then(|value| value.as_str());
    let error = text("error").or_else(|| text("err")).map(|error| format!(": {error}")).unwrap_or_default();
    crate::text::escape_control(&format!("{:<5} {}{error}", entry.level, entry.message))
}

/// `{"level":"warn","ts":"…","caller":"…","msg":"…","took":"1s"}`
fn parse_zap(line: &str) -> Option<LogLine> {
    if !line.starts_with('{') {
        return None;
    }
    let mut fields: Map<String, Value> = serde_json::from_str(line).ok()?;
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let level = match text(fields.remove("level"))?.as_str() {
        "debug" => Level::DEBUG,
        "warn" => Level::WARN,
        "error" | "dpanic" | "panic" | "fatal" => Level::ERROR,
        _ => Level::INFO,
    };
    let message = text(fields.remove("msg"))?;
    // Only for developers of etcd.
    fields.remove("stacktrace");
    // Our log line has a time, which differs from etcd's only by the delay of the pipe.
    fields.remove("ts");
    Some(LogLine { level, message, fields })
}

/// `2026-11-21 03:50:00.123456 W | etcdserver: message`, the format of 3.4 without zap.
fn parse_capnslog(line: &str) -> Option<LogLine> {
    let (head, rest) = line.split_once(" | ")?;
    let (time, letter) = head.rsplit_once(' ')?;
    let level = match letter {
        "C" | "E" => Level::ERROR,
        "W" => Level::WARN,
        "N" | "I" => Level::INFO,
        "D" | "T" => Level::DEBUG,
        _ => return None,
    };
    let is_time = |c: char| c.is_ascii_digit() || "-:. ".contains(c);
    if !time.starts_with("20") || !time.chars().all(is_time) {
        return None;
    }
    let mut fields = Map::new();
    let message = match rest.split_once(": ") {
        Some((package, message)) if !package.contains(' ') => {
            fields.insert("caller".into(), Value::String(package.to_owned()));
            message
        }
        _ => rest,
    };
    Some(LogLine { level, message: message.to_owned(), fields })
}

/// A message, and a field with its expected values.
type HarmlessWarning = (&'static str, Option<(&'static str, &'static [&'static str])>);

/// Errors of net.Listener and cmux when etcd closes them during shutdown.
const CLOSED: &[&str] =
    &["use of closed network connection", "mux: listener closed", "mux: server closed", "http: Server closed"];

/// Warnings of every healthy server, which are suppressed; a field matches by the end of its value.
const HARMLESS: [HarmlessWarning; 11] = [
    // Files of quorate, which are there by design.
    ("found invalid file under data directory", Some(("filename", &["name", "config"]))),
    (
        "found invalid file/dir under data dir, ignore this if you are upgrading etcd",
        Some(("filename", &["name", "config"])),
    ),
    // etcd's simple tokens; set `auth-token` with etcd-arg for others.
    ("simple token is not cryptographically signed", None),
    // At each stop.
    ("stopping secure grpc server due to error", Some(("error", CLOSED))),
    ("stopped secure grpc server due to error", Some(("error", CLOSED))),
    ("stopping secure http server due to error", Some(("error", CLOSED))),
    ("setting up serving from embedded etcd failed.", Some(("error", CLOSED))),
    // At the first start of 3.6 and 3.7, which set the storage version once the first term is known.
    ("Failed to detect schema version", Some(("error", &["missing term information"]))),
    ("failed to update storage version", Some(("error", &["missing term information"]))),
    // Every 30 s: the log segments that are still in use cannot be removed yet.
    ("failed to lock file", Some(("error", &["file already locked"]))),
    // On purpose: a separate HTTP port would not require client certificates on some versions.
    ("Running http and grpc server on single port. This is not recommended for production.", None),
];

pub(super) fn is_harmless(entry: &LogLine) -> bool {
    HARMLESS.iter().any(|(message, field)| {
        entry.message == *message
            && field.is_none_or(|(name, values)| {
                entry
                    .fields
                    .get(name)
                    .and_then(Value::as_str)
                    .is_some_and(|value| values.iter().any(|end| value.ends_with(end)))
            })
    })
}
