//! Reads a YAML file as keys and texts with the line of each.
//!
//! Given the text of a `config.yaml`, returns its top-level entries in order, including duplicates, so that the caller
//! can report every problem with its line. saphyr-parser reads the syntax, because it knows positions; `serde_yaml`
//! decides what a plain scalar is (null, boolean, number or text). Values keep the text as typed: a token `0123` stays
//! `0123`. Never resolves tags, includes or variables.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// More nodes than any configuration has: a limit against files that expand through aliases.
const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 32;

/// A value with its line (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub line: usize,
    pub value: YamlValue,
}

impl Node {
    /// True for what Go programs write for "not set": null, an empty text, list or mapping.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match &self.value {
            YamlValue::Nothing => true,
            YamlValue::Text(text) => text.trim().is_empty(),
            YamlValue::List(items) => items.is_empty(),
            YamlValue::Map(entries) => entries.is_empty(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum YamlValue {
    /// `~`, `null` or nothing at all.
    Nothing,
    /// The text of a scalar as typed, without quotes.
    Text(String),
    List(Vec<Node>),
    /// A mapping; no option accepts one.
    Map(Vec<(Node, Node)>),
}

/// Why a file cannot be read as YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where, from 1.
    pub line: usize,
    pub message: String,
}

struct YamlReader<'input> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// A syntax error, perhaps caused by missing quotes.
    is_syntax: bool,
}

type Step<'input> = (Event<'input>, usize);

/// The top-level entries of `text`, in order.
///
/// # Errors
/// If it is not YAML, has several documents, or is not a mapping at the top level.
pub fn read(text: &str) -> Result<Vec<(Node, Node)>, SyntaxError> {
    let mut reader =
        YamlReader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, is_syntax: false };
    let read = top(&mut reader);
    read.map_err(|error| if reader.is_syntax { unquoted(text, error.line).unwrap_or(error) } else { error })
}

fn top(reader: &mut YamlReader<'_>) -> Result<Vec<(Node, Node)>, SyntaxError> {
    let mut top = None;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            other if top.is_none() => top = Some(reader.node((other, line), 0)?),
            _ => {
                return Err(SyntaxError {
                    line,
                    message: "a second document begins here; a file must have only one".into(),
                });
            }
        }
    }
    match top {
        None | Some(Node { value: YamlValue::Nothing, .. }) => Ok(Vec::new()),
        Some(Node { value: YamlValue::Map(entries), .. }) => Ok(entries),
        Some(Node { line, .. }) => Err(SyntaxError { line, message: "expected `key: value` lines".into() }),
    }
}

impl<'input> YamlReader<'input> {
    fn next(&mut self) -> Result<Step<'input>, SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => {
                self.is_syntax = true;
                Err(SyntaxError { line: error.marker().line(), message: error.info().to_owned() })
            }
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, (event, line): Step<'input>, depth: usize) -> Result<Node, SyntaxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(SyntaxError { line, message: "too large or too deeply nested for a configuration".into() });
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                // `&abc` and `!abc` are an anchor and a tag of an empty value: a password would be lost silently.
                let is_local_tag = tag.is_some_and(|tag| tag.handle == "!");
                if style == ScalarStyle::Plain && (is_local_tag || (anchor != 0 && text.is_empty())) {
                    self.is_syntax = true;
                    return Err(SyntaxError {
                        line,
                        message: "a value that begins with `&` or `!` must be in quotes".into(),
                    });
                }
                (anchor, scalar(&text, style))
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(id) => {
                let Some(known) = self.anchors.get(&id).cloned() else {
                    self.is_syntax = true;
                    return Err(SyntaxError { line, message: "an alias to an anchor that does not exist".into() });
                };
                self.nodes += weight(&known);
                return Ok(Node { line, value: known.value });
            }
            other => return Err(SyntaxError { line, message: format!("unexpected {other:?}") }),
        };
        let node = Node { line, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<YamlValue, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(YamlValue::List(items)),
                step => items.push(self.node(step, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<YamlValue, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            match self.next()? {
                (Event::MappingEnd, _) => return Ok(YamlValue::Map(entries)),
                step => {
                    let key = self.node(step, depth + 1)?;
                    let step = self.next()?;
                    entries.push((key, self.node(step, depth + 1)?));
                }
            }
        }
    }
}

/// A value in a line up to `line` that begins with a character that needs quotes: probably the cause of a syntax error.
fn unquoted(text: &str, line: usize) -> Option<SyntaxError> {
    const SPECIAL: [char; 6] = ['*', '@', '%', '`', '&', '!'];
    // The parser reports some errors in the next line.
    let first = line.saturating_sub(2);
    let near = text.lines().enumerate().take(line).skip(first).collect::<Vec<_>>();
    near.into_iter().rev().find_map(|(index, content)| {
        let content = content.trim_start();
        let value = [": ", "- ", "[", ", "].iter().find_map(|before| {
            let value = match content.strip_prefix("- ") {
                Some(value) if *before == "- " => value,
                _ => content.split_once(before)?.1,
            };
            Some(value.trim_start()).filter(|value| value.starts_with(SPECIAL))
        })?;
        let is_in_list = content.contains('[');
        let end = value.find(" #").into_iter().chain(value.find([',', ']']).filter(|_| is_in_list)).min();
        let value = value[..end.unwrap_or(value.len())].trim_end();
        let quoted = crate::text::escape_control(&value.replace('\'', "''"));
        // A secret must not be logged.
        let key = content.split(':').next().unwrap_or_default().to_lowercase();
        let is_secret = ["token", "secret", "key", "password", "proxy"].iter().any(|word| key.contains(word));
        let quoted = if is_secret { "…".to_owned() } else { quoted };
        let begin = value.chars().next()?;
        let message = format!("a value that begins with `{begin}` must be in quotes: '{quoted}'");
        Some(SyntaxError { line: index + 1, message })
    })
}

fn weight(node: &Node) -> usize {
    1 + match &node.value {
        YamlValue::List(items) => items.iter().map(weight).sum(),
        YamlValue::Map(entries) => entries.iter().map(|(key, value)| weight(key) + weight(value)).sum(),
        YamlValue::Nothing | YamlValue::Text(_) => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle) -> YamlValue {
    let nothing = style == ScalarStyle::Plain && matches!(serde_yaml::from_str(text), Ok(serde_yaml::Value::Null));
    if nothing { YamlValue::Nothing } else { YamlValue::Text(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: usize, text: &str) -> Node {
        Node { line, value: YamlValue::Text(text.into()) }
    }

    #[test]
    fn keys_and_values_keep_their_lines_and_their_spelling() {
        let entries = read("# c\ntoken: 0123\n\ntls-san: [a, \"b\"]\nempty:\n").unwrap();
        assert_eq!(
            entries,
            [
                (text(2, "token"), text(2, "0123")),
                (text(4, "tls-san"), Node { line: 4, value: YamlValue::List(vec![text(4, "a"), text(4, "b")]) }),
                (text(5, "empty"), Node { line: entries[2].1.line, value: YamlValue::Nothing }),
            ]
        );
    }

    #[test]
    fn duplicates_are_kept_for_the_caller_to_report() {
        assert_eq!(read("a: 1\na: 2\n").unwrap().len(), 2);
    }

    #[test]
    fn nothing_and_comments_are_an_empty_configuration() {
        for empty in ["", "# only a comment\n", "---\n", "~\n"] {
            assert_eq!(read(empty), Ok(vec![]), "{empty:?}");
        }
    }

    #[test]
    fn what_is_no_mapping_is_refused_with_its_line() {
        assert!(read("- a\n").is_err());
        assert!(read("just text\n").is_err());
        assert_eq!(read("a: 1\nb: [1\nc: 2\n").map_err(|error| error.line > 1), Err(true));
        assert!(read("a: 1\n---\nb: 2\n").unwrap_err().message.contains("second document"));
    }

    #[test]
    fn a_file_that_unfolds_itself_is_bounded() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..8 {
            let last = level - 1;
            let aliases = vec![format!("*a{last}"); 10].join(",");
            bomb.push_str(&["a", &level.to_string(), ": &a", &level.to_string(), " [", &aliases, "]\n"].concat());
        }
        assert!(read(&bomb).unwrap_err().message.contains("too large"));
    }

    #[test]
    fn a_value_that_needs_quotes_is_shown_in_quotes() {
        for (text, line, expected) in [
            ("etcd-snapshot-schedule-cron: */5 * * * *\n", 1, "`*` must be in quotes: '*/5 * * * *'"),
            ("debug: true\nx: @daily # each day\ny: 1\n", 2, "`@` must be in quotes: '@daily'"),
            ("tls-san:\n  - *.example.com\n", 2, "in quotes: '*.example.com'"),
            ("tls-san: [a, *.example.com, b]\n", 1, "in quotes: '*.example.com'"),
            ("x: %abc\n", 1, "in quotes: '%abc'"),
            ("x: `it's`\n", 1, "in quotes: '`it''s`'"),
            ("x: &abc\n", 1, "in quotes: '&abc'"),
            ("x: !abc\ndebug: true\n", 1, "in quotes: '!abc'"),
            ("etcd-s3-secret-key: *hunter2\n", 1, "`*` must be in quotes: '…'"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.line == line && error.message.ends_with(expected), "{text}: {error:?}");
        }
        for text in ["a: 5 * 3\n", "a: b@c\n", "a: '*'\n", "a: &x 1\nb: *x\n", "a: !!str 1\n", "a: 50%\n"] {
            assert!(read(text).is_ok(), "{text}: {:?}", read(text));
        }
        assert!(read("a: [1\n").unwrap_err().message.contains("flow sequence"), "other errors are unchanged");
    }
}
