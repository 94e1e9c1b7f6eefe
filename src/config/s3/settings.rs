//! Files that options name: that of `etcd-s3-config-file` with further settings, and those with certificates and keys.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::options;
use super::super::yaml::{self, Value};
use super::{S3ConfigError, Secret, wrong};
use crate::host;

pub(super) fn read_file(option: &'static str, path: &Path) -> Result<Vec<u8>, S3ConfigError> {
    host::read_small(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        wrong(option, format!("{}: {why}", host::printable(&path.display().to_string())))
    })
}

/// A file with a secret in it must not be for everybody.
pub(super) fn read_private(option: &'static str, path: &Path) -> Result<Vec<u8>, S3ConfigError> {
    let bytes = read_file(option, path)?;
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(wrong(option, format!("{path} can be read by others than its owner; chmod 600 {path}")));
    }
    Ok(bytes)
}

/// What AWS' own tools call them.
const AWS_NAMES: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "etcd-s3-access-key"),
    ("AWS_SECRET_ACCESS_KEY", "etcd-s3-secret-key"),
    ("AWS_SESSION_TOKEN", "etcd-s3-session-token"),
    ("AWS_REGION", "etcd-s3-region"),
];

/// The option that a name in a file of settings means: with or without `etcd-s3-`, as a variable, or as AWS' tools call it.
fn meant(name: &str) -> Option<&'static str> {
    let lower = name.trim().to_lowercase().replace('_', "-");
    let lower = lower.strip_prefix("quorate-").unwrap_or(&lower);
    let aws = AWS_NAMES.iter().find(|(theirs, _)| *theirs == name.trim()).map(|(_, ours)| (*ours).to_owned());
    let full = aws
        .unwrap_or_else(|| if lower.starts_with("etcd-s3-") { lower.to_owned() } else { format!("etcd-s3-{lower}") });
    // It says how to reach the store; whether, and what is kept, is said where the server's other settings are.
    const ELSEWHERE: [&str; 3] = ["etcd-s3-config-file", "etcd-s3-only", "etcd-s3-retention"];
    options::find(&full).map(|spec| spec.name).filter(|name| !ELSEWHERE.contains(name))
}

/// The file of `etcd-s3-config-file`: YAML, or lines of `NAME=value`.
pub(super) fn read_settings(path: &Path) -> Result<BTreeMap<&'static str, Secret>, S3ConfigError> {
    const OPTION: &str = "etcd-s3-config-file";
    let shown = path.display();
    let bytes = read_private(OPTION, path)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(OPTION, format!("{shown} is not UTF-8 text")))?;
    let is_setting = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let is_env = text.lines().find(is_setting).is_some_and(|line| {
        let name = line.split_once('=').map(|(name, _)| name.trim().trim_start_matches("export "));
        name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    });
    let entries = if is_env { env_entries(&text) } else { yaml_entries(&text) };
    let entries = entries.map_err(|(line, what)| wrong(OPTION, format!("{shown}:{line}: {what}")))?;
    let mut found = BTreeMap::new();
    for (line, name, value) in entries {
        let name = meant(&name)
            .ok_or_else(|| wrong(OPTION, format!("{shown}:{line}: unknown name `{}`", host::printable(&name))))?;
        let kind = options::find(name).map(|spec| spec.kind);
        if let Some(Err(wants)) = kind.map(|kind| kind.check(&value)) {
            return Err(wrong(OPTION, format!("{shown}:{line}: `{name}` {wants}")));
        }
        found.insert(name, Secret::new(value));
    }
    Ok(found)
}

type Entries = Result<Vec<(usize, String, String)>, (usize, String)>;

fn env_entries(text: &str) -> Entries {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or((index + 1, "wants NAME=value".to_owned()))?;
        let value = value.trim();
        let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        entries.push((index + 1, name.to_owned(), unquoted.unwrap_or(value).to_owned()));
    }
    Ok(entries)
}

fn yaml_entries(text: &str) -> Entries {
    let read = yaml::read(text).map_err(|error| (error.line, format!("this is not valid YAML: {}", error.message)))?;
    let mut entries = Vec::new();
    for (key, value) in read {
        match (key.value, value.value) {
            (Value::Text(name), Value::Text(value)) => entries.push((key.line, name, value)),
            (Value::Text(_), Value::Nothing) => {}
            _ => return Err((key.line, "wants `name: value`".into())),
        }
    }
    Ok(entries)
}
