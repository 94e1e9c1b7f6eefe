//! What the options of object storage come to: what can be connected to.

use std::fmt;
use std::time::Duration;

use crate::config::s3::Secret;

/// How the bucket goes into the URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// Into the host's name at AWS, into the path elsewhere.
    #[default]
    Auto,
    Dns,
    Path,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// The one that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
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
    /// With a key of the key management service; its own default one if none is named.
    Kms(Option<String>),
    /// With this key, base64, which the store does not keep.
    Customer(Secret),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The one that may be seen.
    pub access_key: Secret,
    pub secret_key: Secret,
    pub session_token: Option<Secret>,
    /// The option that they came from.
    pub source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A URL; nothing for AWS, whose endpoints follow from the region.
    pub endpoint: Option<String>,
    pub host: String,
    pub is_plain: bool,
    /// PEM, beside the system's roots.
    pub cas: Vec<Vec<u8>>,
    pub skip_verify: bool,
    /// `us-east-1` and the like.
    pub region: String,
    pub bucket: String,
    /// Where in it, without slashes around; empty for the bucket itself.
    pub folder: String,
    /// How it goes into the URL.
    pub lookup: Lookup,
    /// Given ones; otherwise they are looked for as AWS' own tools do.
    pub keys: Option<Keys>,
    pub proxy: Proxy,
    /// Nothing happens for so long: something is wrong.
    pub timeout: Duration,
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
