//! Formatting that several modules use.

pub mod age;
pub mod duration;

use serde_json::Value;

/// One JSON object on one line, with its fields in the given order.
#[must_use]
pub fn json_line<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let fields = fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name)));
    escape_json(&format!("{{{}}}\n", fields.collect::<Vec<_>>().join(",")))
}

/// JSON with invisible and reordering characters escaped: the same values, safe on a terminal.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !is_control(c) {
            text.push(c);
        } else {
            // They occur only in strings, where serde_json has escaped the ASCII ones already.
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

/// Makes external text safe for a terminal: control characters, invisible characters and those that reorder text become
/// `?`.
#[must_use]
pub fn escape_control(text: &str) -> String {
    text.chars().map(|c| if is_control(c) { '?' } else { c }).collect()
}

/// Control characters (`Cc` of Unicode), format characters (`Cf`: direction, joiners, tags, soft hyphen), and line and
/// paragraph separators: printing them shows something else than the text contains.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// `1.5 GiB`, `300 MiB`, `12 B`.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
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

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (160 << 20, "160 MiB"), (8 << 30, "8.0 GiB")]
        {
            assert_eq!(format_bytes(bytes), text);
        }
    }
}
