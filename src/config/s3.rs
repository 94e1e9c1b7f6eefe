//! Where snapshots go besides this node: the options `etcd-s3…`, and what they come to.
//!
//! What was set is kept as it was written, because a request or the file of `etcd-s3-config-file` may add to it later; [`S3Config::target`]
//! makes of it what can be connected to. Secrets never show in `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use aws_smithy_types::base64;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::kinds::switch;
use super::options::{self, OPTIONS};
use super::yaml::{self, Value};
use super::{Problem, Resolved, Secret};
use crate::error::{Exit, Explained};
use crate::host;
use crate::plan::duration;

/// The switch; all other options begin with it and a hyphen.
pub const SWITCH: &str = "etcd-s3";
/// A file with settings, certificates or a key may be this large, in bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// A key for SSE-C has so many bytes.
const SSE_C_KEY: usize = 32;

/// What was set of `etcd-s3…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Config {
    /// Snapshots are uploaded.
    pub is_on: bool,
    /// It was said on the command line: a snapshot to restore is one there.
    pub is_asked: bool,
    /// How many scheduled ones of this node are kept there, if that was set.
    pub retention: Option<u32>,
    /// Nothing stays on disk after a verified upload.
    pub only: bool,
    texts: BTreeMap<&'static str, Secret>,
}

/// How the bucket goes into the URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// Into the host's name at AWS, into the path elsewhere.
    #[default]
    Auto,
    /// Into the host's name.
    Dns,
    /// Into the path.
    Path,
}

/// Through which proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// The one that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// None, whatever they say.
    None,
    /// This one, a URL.
    Url(Secret),
}

/// How objects are encrypted by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// With a key of the store's.
    Aes256,
    /// With a key of the key management service; its own default one if none is named.
    Kms(Option<String>),
    /// With this key, base64, which the store does not keep.
    Customer(Secret),
}

/// Keys that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The one that may be seen.
    pub access_key: Secret,
    /// The one that may not.
    pub secret_key: Secret,
    /// Of keys that expire.
    pub session_token: Option<Secret>,
}

/// What can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A URL; nothing for AWS, whose endpoints follow from the region.
    pub endpoint: Option<String>,
    /// For people: the host.
    pub host: String,
    /// Without TLS.
    pub is_plain: bool,
    /// PEM, beside the system's roots.
    pub cas: Vec<Vec<u8>>,
    /// Whoever answers is believed.
    pub skip_verify: bool,
    /// `us-east-1` and the like.
    pub region: String,
    /// Its name.
    pub bucket: String,
    /// Where in it, without slashes around; empty for the bucket itself.
    pub folder: String,
    /// How it goes into the URL.
    pub lookup: Lookup,
    /// Given ones; otherwise they are looked for as AWS' own tools do.
    pub keys: Option<Keys>,
    /// Through which proxy.
    pub proxy: Proxy,
    /// Nothing happens for so long: something is wrong.
    pub timeout: Duration,
    /// By the store.
    pub encryption: Option<Encryption>,
    /// Such as `STANDARD_IA`.
    pub storage_class: Option<String>,
}

impl Target {
    /// The folder as keys begin with it: with a slash at its end, or empty. So `prod` is never the beginning of `prod-2`.
    #[must_use]
    pub fn prefix(&self) -> String {
        if self.folder.is_empty() { String::new() } else { format!("{}/", self.folder) }
    }
}

/// `s3://bucket/folder`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix())
    }
}

/// What is wrong with one of the options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{option}`: {what}")]
pub struct S3ConfigError {
    /// Which.
    pub option: &'static str,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Explained for S3ConfigError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn next(&self) -> Option<String> {
        Some("mend it, then: quorate etcd-snapshot s3-check".into())
    }
}

fn wrong(option: &'static str, what: impl Into<String>) -> S3ConfigError {
    S3ConfigError { option, what: what.into() }
}

/// True for an option of ours.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name == SWITCH || name.starts_with("etcd-s3-")
}

impl S3Config {
    /// What `resolved` says; what is wrong goes to `problems`.
    pub(super) fn of(resolved: &Resolved, problems: &mut Vec<Problem>) -> Self {
        let mut texts = BTreeMap::new();
        for spec in OPTIONS.iter().filter(|spec| is_ours(spec.name)) {
            if let Some((text, _)) = resolved.one(spec.name).filter(|_| resolved.is_set(spec.name)) {
                texts.insert(spec.name, Secret::new(text.clone()));
            }
        }
        let config = Self::of_texts(texts);
        let is_asked = config.is_on && matches!(resolved.origin(SWITCH), super::Origin::CommandLine(_));
        let config = Self { is_asked, ..config };
        // What nobody uses yet may be unfinished.
        if config.is_on
            && let Err(error) = config.target()
        {
            let blamed = if resolved.is_set(error.option) { error.option } else { SWITCH };
            problems.push(Problem { origin: resolved.origin(blamed), message: error.to_string() });
        }
        config
    }

    fn of_texts(texts: BTreeMap<&'static str, Secret>) -> Self {
        let text = |name: &str| texts.get(name).map(Secret::reveal);
        Self {
            is_on: text(SWITCH).and_then(switch).unwrap_or(false),
            is_asked: false,
            retention: text("etcd-s3-retention").and_then(|text| text.parse().ok()),
            only: text("etcd-s3-only").and_then(switch).unwrap_or(false),
            texts,
        }
    }

    /// With what `more` says, by option name.
    ///
    /// # Errors
    /// If one of them is no option of ours, or has a value that it cannot have.
    pub fn with(&self, more: &BTreeMap<String, String>) -> Result<Self, S3ConfigError> {
        let mut texts = self.texts.clone();
        for (name, text) in more {
            let spec = options::find(name).filter(|spec| is_ours(spec.name));
            let spec = spec.ok_or_else(|| wrong(SWITCH, format!("there is no option {}", host::printable(name))))?;
            spec.kind.check(text).map_err(|wants| wrong(spec.name, wants))?;
            texts.insert(spec.name, Secret::new(text.clone()));
        }
        Ok(Self { is_asked: self.is_asked, ..Self::of_texts(texts) })
    }

    /// All that was set, by option name, with the secrets: for the one process of ours that asks the server, as root, on its socket.
    #[must_use]
    pub fn revealed(&self) -> BTreeMap<String, String> {
        self.texts.iter().map(|(name, text)| ((*name).to_owned(), text.reveal().to_owned())).collect()
    }

    /// True if there is somewhere to look, whether snapshots are uploaded or not.
    #[must_use]
    pub fn has_bucket(&self) -> bool {
        self.texts.contains_key("etcd-s3-bucket") || self.texts.contains_key("etcd-s3-config-file")
    }

    /// What it comes to. Files that it names are read now.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn target(&self) -> Result<Target, S3ConfigError> {
        let mut texts = self.texts.clone();
        if let Some(path) = self.texts.get("etcd-s3-config-file") {
            for (name, text) in read_settings(Path::new(path.reveal()))? {
                texts.entry(name).or_insert(text);
            }
        }
        let one = |name: &str| texts.get(name).map(Secret::reveal).filter(|text| !text.is_empty());
        let is_on = |name| one(name).and_then(switch).unwrap_or(false);
        let endpoint = Endpoint::of(one("etcd-s3-endpoint"), is_on("etcd-s3-insecure"))?;
        let bucket = one("etcd-s3-bucket").ok_or_else(|| wrong("etcd-s3-bucket", "wants the name of a bucket"))?;
        let keys = match (one("etcd-s3-access-key"), one("etcd-s3-secret-key")) {
            (Some(access), Some(secret)) => Some(Keys {
                access_key: Secret::new(access.trim().to_owned()),
                secret_key: Secret::new(secret.trim().to_owned()),
                session_token: one("etcd-s3-session-token").map(|token| Secret::new(token.trim().to_owned())),
            }),
            (Some(_), None) => return Err(wrong("etcd-s3-secret-key", "is not set, and `etcd-s3-access-key` is")),
            (None, Some(_)) => return Err(wrong("etcd-s3-access-key", "is not set, and `etcd-s3-secret-key` is")),
            (None, None) => None,
        };
        let seconds = one("etcd-s3-timeout").and_then(duration::parse).unwrap_or(30);
        let ca = one("etcd-s3-endpoint-ca").map(certificates).transpose()?.unwrap_or_default();
        Ok(Target {
            host: endpoint.host,
            is_plain: endpoint.is_plain,
            endpoint: endpoint.url,
            cas: ca,
            skip_verify: is_on("etcd-s3-skip-ssl-verify"),
            region: one("etcd-s3-region").unwrap_or("us-east-1").to_owned(),
            bucket: bucket_name(bucket)?,
            folder: folder(one("etcd-s3-folder").unwrap_or_default())?,
            lookup: match one("etcd-s3-bucket-lookup-type") {
                Some("dns") => Lookup::Dns,
                Some("path") => Lookup::Path,
                _ => Lookup::Auto,
            },
            keys,
            proxy: match one("etcd-s3-proxy") {
                None => Proxy::Environment,
                Some("none") => Proxy::None,
                Some(url) => Proxy::Url(Secret::new(proxy(url)?)),
            },
            timeout: Duration::from_secs(seconds),
            encryption: one("etcd-s3-sse").map(encryption).transpose()?,
            storage_class: one("etcd-s3-storage-class").map(str::to_owned),
        })
    }
}

struct Endpoint {
    url: Option<String>,
    host: String,
    is_plain: bool,
}

impl Endpoint {
    fn of(text: Option<&str>, insecure: bool) -> Result<Self, S3ConfigError> {
        const OPTION: &str = "etcd-s3-endpoint";
        const AWS: &str = "s3.amazonaws.com";
        let text = text.unwrap_or(AWS).trim_end_matches('/');
        let (is_plain, rest) = match text.split_once("://") {
            Some(("https", _)) if insecure => {
                return Err(wrong(OPTION, "says https, and `etcd-s3-insecure` says plain HTTP; keep one"));
            }
            Some(("https", rest)) => (false, rest),
            Some(("http", rest)) => (true, rest),
            Some(_) => return Err(wrong(OPTION, "wants a host, or a URL with http or https")),
            None => (insecure, text),
        };
        let scheme = if is_plain { "http" } else { "https" };
        let url = format!("{scheme}://{rest}");
        let parsed: Option<hyper::Uri> = url.parse().ok();
        let authority = parsed.as_ref().and_then(|uri| uri.authority()).filter(|found| !found.as_str().contains('@'));
        let Some(authority) = authority.filter(|found| !found.host().is_empty()) else {
            let shown = host::printable(rest.rsplit('@').next().unwrap_or_default());
            return Err(wrong(OPTION, format!("wants a host, host:port or URL, not `{shown}`")));
        };
        let is_usual = rest == AWS && !is_plain;
        Ok(Self { host: authority.to_string(), url: (!is_usual).then_some(url), is_plain })
    }
}

fn bucket_name(text: &str) -> Result<String, S3ConfigError> {
    const OPTION: &str = "etcd-s3-bucket";
    let name = text.strip_prefix("s3://").unwrap_or(text).trim_end_matches('/');
    // What the store allows, it says itself; this only keeps mistakes from becoming parts of a URL.
    let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() < 3 || name.len() > 255 || !name.chars().all(is_good) || name.starts_with('.') {
        let shown = host::printable(text);
        return Err(wrong(
            OPTION,
            format!("`{shown}` is no name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens"),
        ));
    }
    Ok(name.to_owned())
}

fn folder(text: &str) -> Result<String, S3ConfigError> {
    let folder = text.trim_matches('/');
    let is_odd = folder.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !folder.is_empty()));
    if is_odd || folder.chars().any(char::is_control) || folder.len() > 512 {
        return Err(wrong("etcd-s3-folder", "wants names with single slashes between them"));
    }
    Ok(folder.to_owned())
}

fn proxy(text: &str) -> Result<String, S3ConfigError> {
    let parsed: Option<hyper::Uri> = text.parse().ok();
    let is_good = parsed.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    // A URL may have a password in it.
    if is_good {
        Ok(text.to_owned())
    } else {
        Err(wrong("etcd-s3-proxy", "wants a URL such as http://proxy:3128, or none"))
    }
}

/// PEM as it is, or any number of paths and base64 texts with white space between them.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, S3ConfigError> {
    const OPTION: &str = "etcd-s3-endpoint-ca";
    if text.contains(PEM) {
        // Inline, sometimes with its lines joined by `\n` as text.
        let pem = text.replace("\\n", "\n").into_bytes();
        check_certificates(OPTION, "what is given", &pem)?;
        return Ok(vec![pem]);
    }
    text.split_whitespace()
        .map(|part| {
            let decoded = base64::decode(part).ok().filter(|bytes| String::from_utf8_lossy(bytes).contains(PEM));
            let (pem, shown) = match decoded {
                Some(bytes) => (bytes, "what is given"),
                None => (read_file(OPTION, Path::new(part))?, part),
            };
            check_certificates(OPTION, shown, &pem)?;
            Ok(pem)
        })
        .collect()
}

const PEM: &str = "-----BEGIN CERTIFICATE-----";

/// What TLS cannot take is told here, and not when it is needed.
fn check_certificates(option: &'static str, shown: &str, pem: &[u8]) -> Result<(), S3ConfigError> {
    let shown = host::printable(shown);
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let ders = ders.map_err(|error| wrong(option, format!("{shown} is no PEM: {error:?}")))?;
    if ders.is_empty() {
        return Err(wrong(option, format!("there is no certificate in {shown}")));
    }
    let mut roots = rustls::RootCertStore::empty();
    ders.into_iter().try_for_each(|der| {
        roots.add(der).map_err(|error| wrong(option, format!("a certificate in {shown} cannot be used: {error}")))
    })
}

fn encryption(text: &str) -> Result<Encryption, S3ConfigError> {
    const OPTION: &str = "etcd-s3-sse";
    match text.split_once(':').map_or((text, ""), |(first, rest)| (first, rest)) {
        ("AES256", "") => Ok(Encryption::Aes256),
        ("aws", "kms") => Ok(Encryption::Kms(None)),
        ("aws", rest) if rest.starts_with("kms:") => Ok(Encryption::Kms(Some(rest["kms:".len()..].to_owned()))),
        ("sse-c", path) if !path.is_empty() => {
            let bytes = read_private(OPTION, Path::new(path))?;
            let decoded = std::str::from_utf8(&bytes).ok().and_then(|text| base64::decode(text.trim()).ok());
            let key = decoded.filter(|key| key.len() == SSE_C_KEY).unwrap_or(bytes);
            if key.len() != SSE_C_KEY {
                return Err(wrong(
                    OPTION,
                    format!("{path} does not hold a key of {SSE_C_KEY} bytes, as they are or in base64"),
                ));
            }
            Ok(Encryption::Customer(Secret::new(base64::encode(key))))
        }
        _ => Err(wrong(OPTION, "wants AES256, aws:kms, aws:kms:KEY or sse-c:FILE")),
    }
}

fn read_file(option: &'static str, path: &Path) -> Result<Vec<u8>, S3ConfigError> {
    let failed = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        wrong(option, format!("{}: {why}", host::printable(&path.display().to_string())))
    };
    // Before it is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(failed(std::io::Error::other("it is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// A file with a secret in it must not be for everybody.
fn read_private(option: &'static str, path: &Path) -> Result<Vec<u8>, S3ConfigError> {
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
    // A file cannot name itself, nor switch itself on.
    options::find(&full).map(|spec| spec.name).filter(|name| *name != "etcd-s3-config-file")
}

/// The file of `etcd-s3-config-file`: YAML, or lines of `NAME=value`.
fn read_settings(path: &Path) -> Result<BTreeMap<&'static str, Secret>, S3ConfigError> {
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
