//! Formatting that several modules need.

use serde_json::Value;

/// One JSON object on a line of its own, with its fields in the order given.
#[must_use]
pub fn json_line<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let fields = fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name)));
    format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_strings_are_escaped() {
        let line = json_line([("time", "1".into()), ("a\n", "b\"\n".into()), ("n", 2.into())]);
        assert_eq!(line, "{\"time\":\"1\",\"a\\n\":\"b\\\"\\n\",\"n\":2}\n");
    }
}
