//! Files that options name: `etcd-s3-config-file` with further settings, certificates and keys.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::config::options::{self, OptionKind};
use crate::config::s3::error::{S3ConfigError, wrong};
use crate::config::yaml::{self, YamlValue};
use crate::config::{kubernetes, rke1, suggest};
use crate::host;
use crate::secret::Secret;
use crate::text::duration;

pub(super) fn read_file(option: &'static str, path: &Path) -> Result<Vec<u8>, S3ConfigError> {
    host::read_small(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "the file does not exist".to_owned(),
            _ => error.to_string(),
        };
        wrong(option, format!("{}: {why}", crate::text::escape_control(&path.display().to_string())))
    })
}

/// A file with a secret must not be readable for all users.
pub(super) fn read_private(option: &'static str, path: &Path) -> Result<Vec<u8>, S3ConfigError> {
    let bytes = read_file(option, path)?;
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(wrong(option, format!("{path} is readable for other users than its owner; chmod 600 {path}")));
    }
    Ok(bytes)
}

/// The names in AWS's own tools.
const AWS_NAMES: [(&str, &str); 8] = [
    ("AWS_ACCESS_KEY_ID", options::ETCD_S3_ACCESS_KEY.name),
    ("AWS_SECRET_ACCESS_KEY", options::ETCD_S3_SECRET_KEY.name),
    ("AWS_SESSION_TOKEN", options::ETCD_S3_SESSION_TOKEN.name),
    ("AWS_REGION", options::ETCD_S3_REGION.name),
    (AWS_DEFAULT_REGION, options::ETCD_S3_REGION.name),
    ("AWS_ENDPOINT_URL_S3", options::ETCD_S3_ENDPOINT.name),
    ("AWS_ENDPOINT_URL", options::ETCD_S3_ENDPOINT.name),
    ("AWS_CA_BUNDLE", options::ETCD_S3_ENDPOINT_CA.name),
];
/// In AWS's tools, `AWS_REGION` has precedence, and the endpoint of a service over the general one.
const AWS_DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
const FALLBACK_NAMES: [&str; 2] = [AWS_DEFAULT_REGION, "AWS_ENDPOINT_URL"];

/// The option for a name in a settings file: with or without `etcd-s3-`, as a variable, or the name in AWS's tools or
/// RKE1.
fn meant(name: &str) -> Option<&'static str> {
    let lower = name.trim().to_lowercase().replace('_', "-");
    let lower = lower.strip_prefix("quorate-").unwrap_or(&lower);
    let aws = AWS_NAMES.iter().find(|(theirs, _)| *theirs == name.trim()).map(|(_, ours)| *ours);
    let rke1 = rke1::S3.iter().find(|(theirs, _)| *theirs == name.trim()).map(|(_, ours)| *ours);
    let full = match aws.or(rke1) {
        Some(ours) => ours.to_owned(),
        None if lower.starts_with("etcd-s3-") => lower.to_owned(),
        None => format!("etcd-s3-{lower}"),
    };
    options::find(&full).map(|spec| spec.name).filter(|name| is_here(name))
}

/// The file configures the connection only; whether to upload, and retention, belong to the server's configuration.
fn is_here(name: &str) -> bool {
    const ELSEWHERE: [&str; 3] =
        [options::ETCD_S3_CONFIG_FILE.name, options::ETCD_S3_ONLY.name, options::ETCD_S3_RETENTION.name];
    name.starts_with("etcd-s3-") && !ELSEWHERE.contains(&name)
}

fn unknown(name: &str) -> String {
    let shown = crate::text::escape_control(name);
    if ["apiVersion", "stringData", "data"].contains(&name) {
        return "this is a Kubernetes Secret: use only the entries below `stringData`, without indentation".into();
    }
    let ours = || options::OPTIONS.iter().map(|spec| spec.name).filter(|name| is_here(name));
    let long = format!("etcd-s3-{}", suggest::kebab(name));
    let meant = [name, &long]
        .into_iter()
        .find_map(|name| kubernetes::counterpart(name).or_else(|| suggest::closest(name, ours())));
    match meant {
        Some(meant) => format!("unknown name `{shown}`; did you mean `{meant}`?"),
        None => format!("unknown name `{shown}`"),
    }
}

/// What Go programs write for "not set", in addition to an empty value.
fn is_zero(kind: OptionKind, value: &str) -> bool {
    kind == OptionKind::Duration && (value == "0" || duration::parse(value) == Some(0))
}

/// Parses `etcd-s3-config-file`: YAML, or lines of `NAME=value`. Empty values are not set.
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
    let found = entries.and_then(checked);
    found.map_err(|(line, what)| wrong(OPTION, format!("{shown}:{line}: {what}")))
}

/// The entries by option; or the first invalid one with its line.
fn checked(entries: Vec<(usize, String, String)>) -> Result<BTreeMap<&'static str, Secret>, (usize, String)> {
    let mut found: BTreeMap<&'static str, (bool, Secret)> = BTreeMap::new();
    for (line, name, value) in entries {
        if value.trim().is_empty() {
            continue;
        }
        let Some(spec) = meant(&name).and_then(options::find) else { return Err((line, unknown(&name))) };
        if is_zero(spec.kind, value.trim()) {
            continue;
        }
        spec.kind.check(&value).map_err(|requirement| (line, format!("`{}` {requirement}", spec.name)))?;
        let is_lesser = FALLBACK_NAMES.contains(&name.trim());
        match found.get(spec.name) {
            Some((was_lesser, _)) if *was_lesser == is_lesser => {
                return Err((line, format!("`{}` is given twice", spec.name)));
            }
            Some(_) if is_lesser => {}
            _ => drop(found.insert(spec.name, (is_lesser, Secret::new(value)))),
        }
    }
    Ok(found.into_iter().map(|(name, (_, value))| (name, value)).collect())
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
        let (name, value) = line.split_once('=').ok_or((index + 1, "must be NAME=value".to_owned()))?;
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
        let is_blank = value.is_blank();
        match (key.value, value.value) {
            (YamlValue::Text(name), YamlValue::Text(value)) => entries.push((key.line, name, value)),
            (YamlValue::Text(_), _) if is_blank => {}
            // A Kubernetes Secret, which has a mapping.
            (YamlValue::Text(name), _) if meant(&name).is_none() => return Err((key.line, unknown(&name))),
            _ => return Err((key.line, "must be `name: value`".into())),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(&'static str, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s3");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let found = read_settings(&path).map_err(|error| error.what)?;
        Ok(found.into_iter().map(|(name, value)| (name, value.reveal().to_owned())).collect())
    }

    #[test]
    fn what_programs_write_for_not_set_is_not_set() {
        let yaml = "etcd-s3-endpoint: \"\"\netcd-s3-endpoint-ca: null\netcd-s3-endpoint-ca-name: ''\nregion: {}\nfolder: []\n\
                    etcd-s3-insecure: \"\"\netcd-s3-timeout: 0\nbucket: ~\naccess_key: k\n";
        let lines = "ETCD_S3_ENDPOINT=\nREGION=''\nexport INSECURE=\"\"\nTIMEOUT=0s\nNO_SUCH=\nACCESS_KEY=k\n";
        for text in [yaml, lines] {
            assert_eq!(read(text), Ok(vec![("etcd-s3-access-key", "k".to_owned())]), "{text}");
        }
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn names_of_aws_and_rke1_are_known_and_others_are_mistakes() {
        for (text, expected) in [
            ("AWS_DEFAULT_REGION=eu-west-1\n", vec![("etcd-s3-region", "eu-west-1")]),
            ("AWS_REGION=a-b-1\nAWS_DEFAULT_REGION=c-d-1\n", vec![("etcd-s3-region", "a-b-1")]),
            ("AWS_DEFAULT_REGION=c-d-1\nAWS_REGION=a-b-1\n", vec![("etcd-s3-region", "a-b-1")]),
            ("bucket_name: x\ncustom_ca: /ca\n", vec![("etcd-s3-bucket", "x"), ("etcd-s3-endpoint-ca", "/ca")]),
            ("AWS_ENDPOINT_URL=http://store:9000\n", vec![("etcd-s3-endpoint", "http://store:9000")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("bucketName: x", ":1: unknown name `bucketName`; did you mean `etcd-s3-bucket`?"),
            ("secretKey: x", "did you mean `etcd-s3-secret-key`?"),
            ("a: b\nregoin: x", ":1: unknown name `a`"),
            ("region: a\nregoin: x", ":2: unknown name `regoin`; did you mean `etcd-s3-region`?"),
            ("region: a\nREGION: b", ":2: `etcd-s3-region` is given twice"),
            ("etcd-s3-timeout: soon", ":1: `etcd-s3-timeout` must be a duration"),
            ("apiVersion: v1\nkind: Secret\nstringData: {etcd-s3-bucket: x}", "a Kubernetes Secret"),
            ("stringData: {etcd-s3-bucket: x}", "a Kubernetes Secret"),
            ("bucket: [a]", "must be `name: value`"),
            ("etcd-s3-insecure-skip-verify: true", "did you mean `etcd-s3-skip-ssl-verify`?"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
