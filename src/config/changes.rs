//! What a reload changes: which keys differ, and which of them a running server can apply.

use crate::config::layers::Resolved;
use crate::config::options::OPTIONS;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub key: &'static str,
    /// The value before, for messages; secrets are masked.
    pub from: String,
    pub to: String,
    /// True if a running server can apply it, false if it requires a restart.
    pub is_live: bool,
}

/// Compares the running configuration with the new one.
#[must_use]
pub fn compare(running: &Resolved, wanted: &Resolved) -> Vec<ConfigChange> {
    OPTIONS
        .iter()
        .filter_map(|spec| {
            let texts = |resolved: &Resolved| {
                resolved.all(spec).iter().map(|(text, _)| text.clone()).collect::<Vec<String>>().join(",")
            };
            let (from, to) = (texts(running), texts(wanted));
            let shown = |text: String| match (spec.secret, text.is_empty()) {
                (_, true) => "not set".into(),
                (true, false) => "***".into(),
                (false, false) => text,
            };
            (from != to).then(|| ConfigChange { key: spec.name, from: shown(from), to: shown(to), is_live: spec.live })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file_values::FileValues;
    use crate::config::{OptionOrigin, RawOptions, layers};

    fn resolved(options: &[(&'static str, &str)]) -> Resolved {
        let mut given = RawOptions::default();
        for (name, text) in options {
            given.options.insert(name, (vec![(*text).to_owned()], OptionOrigin::CommandLine((*name).to_owned())));
        }
        layers::resolve(&given, &FileValues::default(), &mut Vec::new())
    }

    #[test]
    fn differences_are_named_with_what_they_need_and_secrets_stay_secret() {
        let running = resolved(&[("token", "one"), ("tls-san", "a,b")]);
        let wanted = resolved(&[("token", "two"), ("tls-san", "a"), ("debug", "true"), ("etcd-client-port", "2379")]);
        let change =
            |key, from: &str, to: &str, is_live| ConfigChange { key, from: from.into(), to: to.into(), is_live };
        assert_eq!(
            compare(&running, &wanted),
            [
                change("debug", "false", "true", true),
                change("tls-san", "a,b", "a", true),
                change("token", "***", "***", false),
            ]
        );
        assert_eq!(compare(&wanted, &wanted), [], "an explicit default is no change");
    }
}
