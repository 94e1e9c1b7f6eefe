//! What a server logs, by stable names instead of words: events (docs/log.md) and codes (docs/errors.md).

use quorate::error::Code;
use quorate::logging::events::EVENTS;

use super::{Node, eventually};

/// The lines of `log` that report this event, in both formats.
#[track_caller]
pub fn lines_of<'a>(log: &'a str, event: &str) -> Vec<&'a str> {
    assert!(EVENTS.iter().any(|(name, _)| *name == event), "there is no event {event}");
    lines_with(log, "event", event)
}

fn lines_with<'a>(log: &'a str, field: &str, value: &str) -> Vec<&'a str> {
    let (text, json) = (format!("{field}={value}"), format!("\"{field}\":\"{value}\""));
    let has = |line: &&str| line.split(' ').any(|word| word == text) || line.starts_with('{') && line.contains(&json);
    log.lines().filter(has).collect()
}

fn with_facts(lines: &[&str], facts: &[&str]) -> Option<String> {
    lines.iter().find(|line| facts.iter().all(|fact| line.contains(fact))).map(|line| (*line).to_owned())
}

impl Node {
    /// How many times this event was logged since the last start.
    #[track_caller]
    pub fn count_events(&self, event: &str) -> usize {
        lines_of(&self.log_since_start(), event).len()
    }

    /// True if this event was logged since the last start.
    #[track_caller]
    pub fn has_event(&self, event: &str) -> bool {
        self.count_events(event) > 0
    }

    /// Waits for a line of this event, since the last start, that has each of `facts` in it, and gives it.
    #[track_caller]
    pub fn wait_event(&self, event: &str, facts: &[&str]) -> String {
        eventually(&format!("the event {event} with {facts:?}"), || {
            with_facts(&lines_of(&self.log_since_start(), event), facts)
        })
    }

    /// As [`Self::wait_event`], after an earlier [`Self::log_end`].
    #[track_caller]
    pub fn wait_event_from(&self, offset: usize, event: &str, facts: &[&str]) -> String {
        eventually(&format!("the event {event} with {facts:?}"), || {
            with_facts(&lines_of(&self.log_from(offset), event), facts)
        })
    }

    /// Waits for a line about a failure with this code, since the last start, that has each of `facts` in it, and gives it.
    #[track_caller]
    pub fn wait_code(&self, code: Code, facts: &[&str]) -> String {
        eventually(&format!("a line with code={code} and {facts:?}"), || {
            with_facts(&lines_with(&self.log_since_start(), "code", code.name()), facts)
        })
    }

    /// True if a line about a failure with this code was logged since the last start.
    pub fn has_code(&self, code: Code) -> bool {
        !lines_with(&self.log_since_start(), "code", code.name()).is_empty()
    }
}
