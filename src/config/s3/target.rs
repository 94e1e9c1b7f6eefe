//! The evaluated options of object storage: everything that a connection needs.

use std::fmt;
use std::time::Duration;

use crate::secret::Secret;

/// Where the bucket is in the URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// In the host name at AWS, in the path elsewhere.
    #[default]
    Auto,
    Dns,
    Path,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// From `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    #[default]
    Environment,
    None,
    Url(Secret),
}

/// How objects are encrypted by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// With a key of the store's.
    Aes256,
    /// With a key of the key management service, by default its default key.
    Kms(Option<String>),
    /// With this key, in base64, which the store does not keep.
    Customer(Secret),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeys {
    /// The one that may be seen.
    pub access_key: Secret,
    pub secret_key: Secret,
    pub session_token: Option<Secret>,
    /// The option that they came from.
    pub source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A URL; `None` for AWS, whose endpoints follow from the region.
    pub endpoint: Option<String>,
    pub host: String,
    pub is_plain: bool,
    /// PEM, in addition to the system's roots.
    pub cas: Vec<Vec<u8>>,
    pub skip_verify: bool,
    /// `us-east-1` and the like.
    pub region: String,
    pub bucket: String,
    /// The folder in the bucket, without surrounding slashes; empty for the bucket itself.
    pub folder: String,
    /// How it goes into the URL.
    pub lookup: Lookup,
    /// Configured credentials; otherwise the AWS credential chain is used.
    pub keys: Option<AccessKeys>,
    pub proxy: Proxy,
    pub timeout: Duration,
    pub encryption: Option<Encryption>,
    /// Such as `STANDARD_IA`.
    pub storage_class: Option<String>,
}

impl Target {
    /// The folder as a key prefix: with a trailing slash, or empty. So `prod` never matches `prod-2`.
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
