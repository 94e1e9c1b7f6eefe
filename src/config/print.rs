//! `--print-config`: the effective values as YAML, each with a comment that names its origin.
//!
//! The output is a valid `config.yaml` unless a secret is set: secrets are masked.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::layers::Resolved;
use crate::config::model::Config;
use crate::config::options::{self, OPTIONS, OptionKind, Spec};
use crate::config::problem::OptionOrigin;

const MASK: &str = "'***'";

/// The effective configuration, a key a line.
#[must_use]
pub fn print(resolved: &Resolved, config: &Config) -> String {
    let mut text = String::new();
    for spec in OPTIONS {
        // An empty value would be an error together with `cluster-reset`, and the output is to be a valid
        // configuration.
        let comment = if spec.kind == OptionKind::Snapshot && !resolved.is_set(spec) { "# " } else { "" };
        let _ =
            writeln!(text, "{comment}{}: {}  # {}", spec.name, shown(spec, resolved, config), origins(spec, resolved));
    }
    text
}

fn shown(spec: &Spec, resolved: &Resolved, config: &Config) -> String {
    let found = resolved.all(spec);
    if spec.secret {
        return if found.is_empty() { "~".into() } else { MASK.into() };
    }
    let texts: Vec<String> = match found.is_empty() {
        // Defaults that depend on the host.
        _ if *spec == options::NODE_NAME => vec![config.node_name.clone()],
        true if *spec == options::NODE_IP => config.node_ips.iter().map(ToString::to_string).collect(),
        _ if *spec == options::DATA_DIR => vec![config.data_dir.display().to_string()],
        false if *spec == options::ETCD_BINARY => {
            config.etcd.binary.iter().map(|path| path.display().to_string()).collect()
        }
        _ => found.iter().map(|(text, _)| text.clone()).collect(),
    };
    let scalars: Vec<String> = texts.iter().map(|text| scalar(text)).collect();
    match scalars.as_slice() {
        _ if spec.is_list() => format!("[{}]", scalars.join(", ")),
        [] => "~".into(),
        [one, ..] => one.clone(),
    }
}

/// A text as a YAML scalar, quoted only where it must be.
fn scalar(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./+*%@=".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) && !text.starts_with(['-', '*', '%', '@', '=']) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "''").replace(crate::text::is_control, "?"))
}

fn origins(spec: &Spec, resolved: &Resolved) -> String {
    let distinct: BTreeSet<String> = resolved
        .all(spec)
        .iter()
        .filter(|(_, origin)| *origin != OptionOrigin::Default)
        .map(|(_, origin)| origin.to_string())
        .collect();
    if !distinct.is_empty() {
        return distinct.into_iter().collect::<Vec<_>>().join(", ");
    }
    match (spec.default, spec.default_note) {
        ("", "") => "not set".into(),
        ("", note) => format!("default: {note}"),
        _ => "default".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_quoted_only_where_they_must_be() {
        for (text, expected) in [
            ("2379", "2379"),
            ("a b", "'a b'"),
            ("it's", "'it''s'"),
            ("::1", "'::1'"),
            ("", "''"),
            ("/var/lib", "/var/lib"),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }
}
