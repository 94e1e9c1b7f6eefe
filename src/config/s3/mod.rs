//! Object storage: the options `etcd-s3…` and their evaluation.
//!
//! Values are kept as text, because a request or the file of `etcd-s3-config-file` may add to them later;
//! [`S3Config::target`] evaluates them. Secrets never appear in `Debug` output. `endpoint` parses the endpoint, `parse`
//! other single texts, `settings` reads the files that they name.

pub(super) mod endpoint;
mod error;
mod parse;
mod settings;
mod target;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::config::layers::Resolved;
use crate::config::options::{self, OPTIONS, Spec};
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::reader::Reader;
use crate::config::value_types::switch;
use crate::secret::Secret;
use crate::text::duration;
use endpoint::Endpoint;
pub use error::S3ConfigError;
use error::wrong;
pub use target::{AccessKeys, Encryption, Lookup, Proxy, Target};

use parse::{bucket_name, certificates, encryption, folder, proxy};
use settings::read_settings;

/// The switch; the names of all other options begin with it and a hyphen.
pub const ENABLED: &str = "etcd-s3";

const ACCESS_KEY: &str = "etcd-s3-access-key";
const TOKEN: &str = "etcd-s3-session-token";

/// What was set of `etcd-s3…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Config {
    pub is_on: bool,
    /// Set on the command line: a snapshot to restore is one in S3.
    pub is_asked: bool,
    /// The number of scheduled snapshots of this node to keep in S3, if set.
    pub retention: Option<u32>,
    /// Delete the local copy after a verified upload.
    pub only: bool,
    texts: BTreeMap<&'static str, Secret>,
}

/// Makes the paths in it absolute: another process may read them in another working directory.
#[must_use]
pub fn from_here(option: &str, text: &str) -> String {
    let absolute = |path: &str| std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
    let is = |spec: &Spec| option == spec.name;
    match text.strip_prefix("sse-c:") {
        _ if is(&options::ETCD_S3_CONFIG_FILE) => absolute(text).unwrap_or_else(|| text.to_owned()),
        _ if is(&options::ETCD_S3_ENDPOINT_CA) => parse::with_absolute_paths(text),
        Some(file) if is(&options::ETCD_S3_SSE) => {
            absolute(file).map_or_else(|| text.to_owned(), |path| format!("sse-c:{path}"))
        }
        _ => text.to_owned(),
    }
}

/// True for an option of object storage.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name == ENABLED || name.starts_with("etcd-s3-")
}

impl S3Config {
    /// The options in `resolved`; problems are added to `problems`.
    pub(super) fn of(resolved: &Resolved, reader: Reader, problems: &mut Vec<ConfigProblem>) -> Self {
        let mut texts = BTreeMap::new();
        for spec in OPTIONS.iter().filter(|spec| is_ours(spec.name)) {
            if let Some((text, _)) = resolved.one(spec).filter(|_| resolved.is_set(spec)) {
                texts.insert(spec.name, Secret::new(from_here(spec.name, text)));
            }
        }
        // A token from a source with lower precedence than the key belongs to another key.
        if resolved.origin(&options::ETCD_S3_SESSION_TOKEN).rank()
            < resolved.origin(&options::ETCD_S3_ACCESS_KEY).rank()
        {
            texts.remove(TOKEN);
        }
        let config = Self::of_texts(texts);
        let is_asked = config.is_on && matches!(resolved.origin(&options::ETCD_S3), OptionOrigin::CommandLine(_));
        let config = Self { is_asked, ..config };
        // Incomplete options are accepted while they are not used. A command uses those of the running server, which
        // may have more of them (its command line, its environment); they are checked completely when they are used.
        if config.is_on
            && reader == Reader::Server
            && let Err(error) = config.target()
        {
            let blamed = options::find(error.option).filter(|spec| resolved.is_set(spec)).unwrap_or(&options::ETCD_S3);
            problems.push(ConfigProblem { origin: resolved.origin(blamed), message: error.to_string() });
        }
        config
    }

    fn of_texts(texts: BTreeMap<&'static str, Secret>) -> Self {
        let text = |name: &str| texts.get(name).map(Secret::reveal);
        Self {
            is_on: text(ENABLED).and_then(switch).unwrap_or(false),
            is_asked: false,
            retention: text(options::ETCD_S3_RETENTION.name).and_then(|text| text.parse().ok()),
            only: text(options::ETCD_S3_ONLY.name).and_then(switch).unwrap_or(false),
            texts,
        }
    }

    /// Merged with `more`, by option name. # Errors If one of them is not an option of object storage, or has an
    /// invalid value.
    pub fn with(&self, more: &BTreeMap<String, String>) -> Result<Self, S3ConfigError> {
        let mut texts = self.texts.clone();
        if more.contains_key(ACCESS_KEY) {
            // The session token of the replaced key.
            texts.remove(TOKEN);
        }
        for (name, text) in more {
            let spec = options::find(name).filter(|spec| is_ours(spec.name));
            let spec = spec
                .ok_or_else(|| wrong(ENABLED, format!("there is no option {}", crate::text::escape_control(name))))?;
            spec.kind.check(text).map_err(|wants| wrong(spec.name, wants))?;
            texts.insert(spec.name, Secret::new(text.clone()));
        }
        Ok(Self { is_asked: self.is_asked, ..Self::of_texts(texts) })
    }

    /// All values, by option name, including secrets: for the command that requests them as root over the control
    /// socket.
    #[must_use]
    pub fn revealed(&self) -> BTreeMap<String, String> {
        self.texts.iter().map(|(name, text)| ((*name).to_owned(), text.reveal().to_owned())).collect()
    }

    /// True if a bucket is configured, even if uploads are disabled.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.texts.contains_key(options::ETCD_S3_BUCKET.name)
            || self.texts.contains_key(options::ETCD_S3_CONFIG_FILE.name)
    }

    /// Evaluates the options, and reads the files that they name.
    pub fn target(&self) -> Result<Target, S3ConfigError> {
        let mut texts = self.texts.clone();
        if let Some(path) = self.texts.get(options::ETCD_S3_CONFIG_FILE.name) {
            let has_key = texts.contains_key(ACCESS_KEY);
            for (name, text) in read_settings(Path::new(path.reveal()))? {
                if !(has_key && name == TOKEN) {
                    texts.entry(name).or_insert(text);
                }
            }
        }
        let one = |name: &str| texts.get(name).map(Secret::reveal).filter(|text| !text.is_empty());
        let is_on = |name| one(name).and_then(switch).unwrap_or(false);
        let endpoint = Endpoint::of(one(options::ETCD_S3_ENDPOINT.name), is_on(options::ETCD_S3_INSECURE.name))?;
        let bucket = one(options::ETCD_S3_BUCKET.name)
            .ok_or_else(|| wrong(options::ETCD_S3_BUCKET.name, "must be the name of a bucket"))?;
        let bucket = bucket_name(bucket)?;
        endpoint.without(&bucket)?;
        let keys = match (one(options::ETCD_S3_ACCESS_KEY.name), one(options::ETCD_S3_SECRET_KEY.name)) {
            (Some(access), Some(secret)) => Some(AccessKeys {
                source: if self.texts.contains_key(ACCESS_KEY) {
                    ACCESS_KEY
                } else {
                    options::ETCD_S3_CONFIG_FILE.name
                },
                access_key: Secret::new(access.trim().to_owned()),
                secret_key: Secret::new(secret.trim().to_owned()),
                session_token: one(options::ETCD_S3_SESSION_TOKEN.name)
                    .map(|token| Secret::new(token.trim().to_owned())),
            }),
            (Some(_), None) => {
                return Err(wrong(options::ETCD_S3_SECRET_KEY.name, "is not set, but `etcd-s3-access-key` is"));
            }
            (None, Some(_)) => {
                return Err(wrong(options::ETCD_S3_ACCESS_KEY.name, "is not set, but `etcd-s3-secret-key` is"));
            }
            (None, None) => None,
        };
        let seconds = one(options::ETCD_S3_TIMEOUT.name).and_then(duration::parse).unwrap_or(30);
        let ca = one(options::ETCD_S3_ENDPOINT_CA.name).map(certificates).transpose()?.unwrap_or_default();
        Ok(Target {
            is_plain: endpoint.is_plain,
            cas: ca,
            skip_verify: is_on(options::ETCD_S3_SKIP_SSL_VERIFY.name),
            region: one(options::ETCD_S3_REGION.name).or(endpoint.region()).unwrap_or("us-east-1").to_owned(),
            host: endpoint.host,
            endpoint: endpoint.url,
            bucket,
            folder: folder(one(options::ETCD_S3_FOLDER.name).unwrap_or_default())?,
            lookup: match one(options::ETCD_S3_BUCKET_LOOKUP_TYPE.name) {
                Some("dns") => Lookup::Dns,
                Some("path") => Lookup::Path,
                _ => Lookup::Auto,
            },
            keys,
            proxy: match one(options::ETCD_S3_PROXY.name) {
                None => Proxy::Environment,
                Some("none") => Proxy::None,
                Some(url) => Proxy::Url(Secret::new(proxy(url)?)),
            },
            timeout: Duration::from_secs(seconds),
            encryption: one(options::ETCD_S3_SSE.name).map(encryption).transpose()?,
            storage_class: one(options::ETCD_S3_STORAGE_CLASS.name).map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &[(&str, &str)]) -> S3Config {
        let more = more.iter().map(|(name, text)| (format!("etcd-s3{name}"), (*text).to_owned())).collect();
        S3Config::default().with(&more).unwrap()
    }

    fn target(more: &[(&str, &str)]) -> Result<Target, String> {
        config(&[&[("", "true"), ("-bucket", "backups")], more].concat()).target().map_err(|error| error.to_string())
    }

    #[test]
    fn endpoints_are_hosts_or_urls() {
        for (texts, url, host, is_plain) in [
            (&[][..], None, "s3.amazonaws.com", false),
            (&[("-endpoint", "s3.amazonaws.com")], None, "s3.amazonaws.com", false),
            (&[("-endpoint", "https://s3.amazonaws.com/")], None, "s3.amazonaws.com", false),
            (
                &[("-endpoint", "s3.eu-west-1.amazonaws.com")],
                Some("https://s3.eu-west-1.amazonaws.com"),
                "s3.eu-west-1.amazonaws.com",
                false,
            ),
            (&[("-endpoint", "minio:9000")], Some("https://minio:9000"), "minio:9000", false),
            (&[("-endpoint", "minio:9000"), ("-insecure", "true")], Some("http://minio:9000"), "minio:9000", true),
            (&[("-endpoint", "http://[::1]:9000")], Some("http://[::1]:9000"), "[::1]:9000", true),
            (&[("-endpoint", "https://store/s3")], Some("https://store/s3"), "store", false),
        ] {
            let target = target(texts).unwrap();
            assert_eq!(
                (target.endpoint.as_deref(), &*target.host, target.is_plain),
                (url, host, is_plain),
                "{texts:?}"
            );
        }
        for (texts, expected) in [
            (&[("-endpoint", "https://x"), ("-insecure", "yes")][..], "remove one"),
            (&[("-endpoint", "https://x/backups")], "contains the bucket `backups`"),
            (&[("-bucket", "a/b")], "is not a valid bucket name"),
            (&[("-folder", "a//b")], "single slashes"),
            (&[("-folder", "a/../b")], "single slashes"),
            (&[("-access-key", "a")], "is not set, but `etcd-s3-access-key` is"),
            (&[("-proxy", "proxy")], "must be a URL"),
            (&[("-sse", "AES128")], "must be AES256"),
            (&[("-endpoint-ca", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----")], "PEM"),
        ] {
            let error = target(texts).unwrap_err();
            assert!(error.contains(expected) && !error.contains("password"), "{texts:?}: {error}");
        }
    }

    #[test]
    fn a_folder_ends_at_its_name() {
        for (folder, prefix, shown) in [
            ("/", "", "s3://backups/"),
            ("prod", "prod/", "s3://backups/prod/"),
            ("/a/b/", "a/b/", "s3://backups/a/b/"),
        ] {
            let target = target(&[("-folder", folder)]).unwrap();
            assert_eq!((target.prefix(), target.to_string()), (prefix.to_owned(), shown.to_owned()), "{folder}");
        }
    }

    #[test]
    fn a_token_belongs_to_its_key() {
        let token = |config: &S3Config| config.target().unwrap().keys.unwrap().session_token.is_some();
        let before =
            config(&[("-bucket", "backups"), ("-access-key", "a"), ("-secret-key", "s"), ("-session-token", "t")]);
        assert!(token(&before));
        let more = |texts: &[(&str, &str)]| {
            let texts = texts.iter().map(|(name, text)| (format!("etcd-s3-{name}"), (*text).to_owned())).collect();
            token(&before.with(&texts).unwrap())
        };
        assert!(!more(&[("access-key", "b"), ("secret-key", "s")]), "of another key");
        assert!(more(&[("access-key", "b"), ("secret-key", "s"), ("session-token", "u")]));
        assert!(more(&[("secret-key", "s")]));
    }

    #[test]
    fn paths_are_from_where_they_are_said() {
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nx";
        for (option, text, expected) in [
            ("etcd-s3-config-file", "s3.yaml", format!("{here}/s3.yaml")),
            ("etcd-s3-config-file", "/s3.yaml", "/s3.yaml".into()),
            ("etcd-s3-sse", "sse-c:key", format!("sse-c:{here}/key")),
            ("etcd-s3-sse", "AES256", "AES256".into()),
            ("etcd-s3-endpoint-ca", "a.pem /b.pem", format!("{here}/a.pem /b.pem")),
            ("etcd-s3-endpoint-ca", pem, pem.into()),
            (
                "etcd-s3-endpoint-ca",
                "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t",
                "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t".into(),
            ),
            ("etcd-s3-bucket", "b", "b".into()),
        ] {
            assert_eq!(from_here(option, text), expected, "{option} {text}");
        }
    }

    #[test]
    fn secrets_do_not_reach_debug_output() {
        let keys = [("-access-key", "AKIA"), ("-secret-key", "hunter2"), ("-proxy", "http://me:hunter2@proxy")];
        let config = config(&[&[("-bucket", "backups")][..], &keys].concat());
        let target = config.target().unwrap();
        assert!(!format!("{config:?}{target:?}").contains("hunter2"));
        assert!(
            S3Config::default().with(&[("data-dir".to_owned(), "/x".to_owned())].into()).is_err(),
            "not an option of object storage"
        );
    }
}
