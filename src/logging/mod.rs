//! Logging: text or JSON on standard error, without blocking the program.
//!
//! Lines go through a bounded [`backlog`] to a writer thread; if standard error is blocked, lines are dropped and
//! counted instead of blocking the supervisor. An event's `fields` (a JSON object, from the child's log line) are
//! expanded into the other fields.

pub mod backlog;
pub mod events;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock;
use crate::config::{ConfigErrors, LogFormat, options};
use crate::environment;
use crate::etcd::output::{DROPPED_LINES, set_verbose};
use crate::host::stderr_is_journal;
use crate::logging::backlog::Guard;
use crate::text::{escape_control, escape_json, json_line};

/// The variable with filter directives such as `quorate=debug,etcd=warn`.
pub const FILTER_VARIABLE: &str = options::LOG_VARIABLE;

/// Starts logging. Queued lines are written when the guard is dropped.
pub fn start(format: LogFormat, debug: bool) -> Result<(Control, Guard), ConfigErrors> {
    let (filter, changing) = reload::Layer::new(filter(debug, environment::text(FILTER_VARIABLE))?);
    set_verbose(is_verbose(debug));
    let is_json = Arc::new(AtomicBool::new(format == LogFormat::Json));
    let control = Control { filter: changing, is_json: is_json.clone() };
    let (backlog, guard) = backlog::start(crate::terminal::Stderr);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(LineFormat {
            is_json,
            is_journal: stderr_is_journal(),
            // A terminal, and no NO_COLOR.
            is_colored: console::colors_enabled_stderr(),
        })
        .with_writer(move || backlog.clone());
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    // Counted from the start, so that the metric exists before the first flood.
    DROPPED_LINES.store(0, Ordering::Relaxed);
    Ok((control, guard))
}

/// Changes the logging of the running program.
#[derive(Clone, Debug)]
pub struct Control {
    filter: reload::Handle<Targets, Registry>,
    is_json: Arc<AtomicBool>,
}

impl Control {
    /// Sets the format of lines from now on.
    pub fn set(&self, format: LogFormat, debug: bool) {
        self.is_json.store(format == LogFormat::Json, Ordering::Relaxed);
        set_verbose(is_verbose(debug));
        // The variable was read at the start, and does not change.
        if let Ok(filter) = filter(debug, environment::text(FILTER_VARIABLE)) {
            let _ = self.filter.reload(filter);
        }
    }
}

/// A filter selects all matching lines.
fn is_verbose(debug: bool) -> bool {
    debug || environment::text(FILTER_VARIABLE).is_some_and(|text| !text.trim().is_empty())
}

fn filter(debug: bool, directives: Option<&str>) -> Result<Targets, ConfigErrors> {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let usual = Targets::new().with_default(LevelFilter::WARN).with_target("quorate", level).with_target("etcd", level);
    match directives.filter(|text| !text.trim().is_empty()) {
        None => Ok(usual),
        Some(text) => text.parse().map_err(|error| ConfigErrors::of_log_filter(text, &error)),
    }
}

#[allow(clippy::struct_field_names, reason = "each is a yes or no")]
struct LineFormat {
    is_json: Arc<AtomicBool>,
    is_journal: bool,
    is_colored: bool,
}

/// The level, colored on a terminal.
fn shown(level: Level, is_colored: bool) -> String {
    let text = format!("{level:>5}");
    if !is_colored {
        return text;
    }
    let style = console::Style::new().force_styling(true);
    let style = match level {
        Level::ERROR => style.red().bold(),
        Level::WARN => style.yellow(),
        Level::INFO => style.green(),
        _ => style.dim(),
    };
    style.apply_to(text).to_string()
}

/// The level prefix of the journal, see sd-daemon(3).
fn journal_prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut found = EventFields::default();
        event.record(&mut found);
        let target = event.metadata().target().split("::").next().unwrap_or_default();
        let time = clock::rfc3339_millis(clock::now());
        let level = *event.metadata().level();
        if self.is_journal {
            writer.write_str(journal_prefix(level))?;
        }
        if self.is_json.load(Ordering::Relaxed) {
            json(&mut writer, &time, level, target, found)
        } else {
            // The journal shows a time and keeps the level.
            let head =
                if self.is_journal { String::new() } else { format!("{time} {} ", shown(level, self.is_colored)) };
            text(&mut writer, &head, target, &found)
        }
    }
}

#[derive(Default)]
struct EventFields {
    message: String,
    fields: Map<String, Value>,
}

impl EventFields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("fields", Value::String(object)) => match serde_json::from_str(&object) {
                Ok(Value::Object(spread)) => self.fields.extend(spread),
                _ => drop(self.fields.insert("fields".into(), Value::String(object))),
            },
            (name, value) => drop(self.fields.insert(name.into(), value)),
        }
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, u64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

fn text(writer: &mut Writer<'_>, head: &str, target: &str, found: &EventFields) -> fmt::Result {
    write!(writer, "{head}{target}: {}", escape_control(&found.message))?;
    for (name, value) in &found.fields {
        match value {
            Value::String(text) if is_plain(text) => write!(writer, " {name}={text}")?,
            // Quoted as JSON, which escapes control characters too.
            other => write!(writer, " {name}={}", escape_json(&other.to_string()))?,
        }
    }
    writer.write_char('\n')
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./:+,@%~#[]".contains(c))
}

fn json(writer: &mut Writer<'_>, time: &str, level: Level, target: &str, found: EventFields) -> fmt::Result {
    let level = level.as_str().to_lowercase();
    let head = [("time", time), ("level", &level), ("message", &found.message), ("target", target)];
    // A field of etcd never hides one of quorate.
    let is_ours = |name: &str| head.iter().any(|(ours, _)| *ours == name);
    let fields: Vec<(String, Value)> = found
        .fields
        .into_iter()
        .map(|(name, value)| if is_ours(&name) { (format!("etcd_{name}"), value) } else { (name, value) })
        .collect();
    let head = head.into_iter().map(|(name, text)| (name, Value::from(text)));
    writer.write_str(&json_line(head.chain(fields.iter().map(|(name, value)| (name.as_str(), value.clone())))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert!(filter(false, Some("quorate=debug,etcd=warn")).is_ok());
        assert!(filter(false, Some("")).is_ok());
        let refused = filter(false, Some("quorate=loud")).unwrap_err().to_string();
        assert!(refused.contains("QUORATE_LOG"), "{refused}");
    }

    #[test]
    fn text_lines_carry_fields_and_no_control_characters() {
        let mut found = EventFields { message: "a\nb".into(), ..EventFields::default() };
        found.fields.insert("took".into(), "1s".into());
        found.fields.insert("why".into(), "no\u{1b}[31m way".into());
        found.fields.insert("n".into(), 3.into());
        let mut line = String::new();
        text(&mut Writer::new(&mut line), "T  WARN ", "etcd", &found).unwrap();
        assert_eq!(line, "T  WARN etcd: a?b n=3 took=1s why=\"no\\u001b[31m way\"\n");
    }

    #[test]
    fn json_lines_are_one_object_each() {
        let mut found = EventFields { message: "m\n".into(), ..EventFields::default() };
        found.fields.insert("level".into(), "theirs".into());
        let mut line = String::new();
        json(&mut Writer::new(&mut line), "T", Level::INFO, "etcd", found).unwrap();
        assert_eq!(line.lines().count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["level"], &value["etcd_level"]), (&"info".into(), &"theirs".into()));
    }
}
