//! Formatting that several modules need.

use serde_json::Value;

use crate::host::is_control;

/// One JSON object on a line of its own, with its fields in the order given.
#[must_use]
pub fn json_line<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let fields = fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name)));
    escape_json(&format!("{{{}}}\n", fields.collect::<Vec<_>>().join(",")))
}

/// JSON in which characters that are not seen, or change the order of others, are escaped: the same values, safe on a terminal.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !is_control(c) {
            text.push(c);
        } else {
            // They are in strings only, where serde_json has escaped the ASCII ones already.
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_same_values_and_nothing_that_changes_what_is_seen() {
        let value = serde_json::json!({ "a\u{202e}b": "c\u{e0041}\n\u{7f}数" });
        let text = escape_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !is_control(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn fields_keep_their_order_and_strings_are_escaped() {
        let line = json_line([("time", "1".into()), ("a\n", "b\"\n".into()), ("n", 2.into())]);
        assert_eq!(line, "{\"time\":\"1\",\"a\\n\":\"b\\\"\\n\",\"n\":2}\n");
    }
}
