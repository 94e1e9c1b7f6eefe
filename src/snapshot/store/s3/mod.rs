//! Snapshots in a bucket of S3-compatible object storage.
//!
//! A snapshot is an object `<folder>/<name>`; its manifest is `<folder>/.metadata/<name>.json`, written after the
//! upload was verified, and never changed. Later verifications and holds are separate objects (`listing`, `index`). k3s
//! and RKE2 use the same layout, so their snapshots are listed, too. `connector` connects, `credentials` authenticates,
//! `error` classifies failures, `upload` and `download` transfer snapshots, `listing` lists them.

mod body;
mod cache;
pub mod check;
pub(crate) mod connector;
pub mod credentials;
mod delete;
pub mod download;
pub mod error;
pub mod findings;
pub mod index;
pub mod listing;
pub mod object;
mod pages;
pub mod proxy;
mod small_object;
pub mod store;
pub mod upload;
pub mod verify;

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::types::ServerSideEncryption;
use aws_smithy_types::base64;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use md5::{Digest as _, Md5};

use crate::config::s3::{Encryption, Lookup, Target};
use connector::RequestTarget;
use credentials::CachedCredentials;
use error::{S3Error, S3ErrorKind};
pub use small_object::WriteCondition;

pub const METADATA: &str = ".metadata/";
/// Attempts for each request: most transient faults have passed by then.
const ATTEMPTS: u32 = 4;
const BACKOFF: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(10);
/// The minimum speed of a part, in bytes per second.
const MIN_BYTES_PER_SECOND: u64 = 32 << 10;
/// Keys in one request to delete (Amazon S3 API reference, `DeleteObjects`).
const BATCH: usize = 1000;
/// The content type of manifests and the index.
const JSON: &str = "application/json";

#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    target: Target,
    credentials: CachedCredentials,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub size: u64,
    /// The `ETag` without quotes; empty if the store does not list it.
    pub etag: String,
    /// Seconds since 1970.
    pub modified: u64,
}

impl Object {
    /// The version of the object, as far as a listing shows it.
    #[must_use]
    pub fn version(&self) -> String {
        if self.etag.is_empty() { format!("{}@{}", self.size, self.modified) } else { self.etag.clone() }
    }
}

macro_rules! with_customer_key {
    ($request:expr, $target:expr) => {{
        let request = $request;
        match crate::snapshot::store::s3::customer_key($target) {
            Some((key, md5)) => {
                request.sse_customer_algorithm("AES256").sse_customer_key(key).sse_customer_key_md5(md5)
            }
            None => request,
        }
    }};
}

/// The storage class and encryption of an object.
macro_rules! with_encryption {
    ($request:expr, $target:expr) => {{
        let (encryption, key) = crate::snapshot::store::s3::encryption($target);
        let request = $request.set_server_side_encryption(encryption).set_ssekms_key_id(key);
        crate::snapshot::store::s3::with_customer_key!(request, $target)
    }};
}

/// The same for a snapshot, which may have a cheap storage class; manifests are read often.
macro_rules! with_storage_class {
    ($request:expr, $target:expr) => {{
        let class = $target.storage_class.as_deref().map(aws_sdk_s3::types::StorageClass::from);
        crate::snapshot::store::s3::with_encryption!($request.set_storage_class(class), $target)
    }};
}

pub(super) use {with_customer_key, with_encryption, with_storage_class};

/// The customer's key and its MD5, both base64.
fn customer_key(target: &Target) -> Option<(String, String)> {
    let Some(Encryption::Customer(key)) = &target.encryption else { return None };
    let bytes = base64::decode(key.reveal()).ok()?;
    Some((key.reveal().to_owned(), md5_of(&bytes)))
}

fn encryption(target: &Target) -> (Option<ServerSideEncryption>, Option<String>) {
    match &target.encryption {
        Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
        Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        Some(Encryption::Customer(_)) | None => (None, None),
    }
}

/// In the format of `Content-MD5`.
fn md5_of(bytes: &[u8]) -> String {
    base64::encode(Md5::digest(bytes))
}

impl Bucket {
    /// Prepares a client with credentials: the keys in `target`, those of `provider`, or the credential chain. Sends
    /// nothing to the store yet.
    ///
    /// # Errors
    /// If TLS cannot be set up as configured, or there are no credentials.
    pub async fn connect(target: Target, provider: Option<SharedCredentialsProvider>) -> Result<Self, S3Error> {
        let bucket = Self::prepare(target, provider).await?;
        bucket.credentials.find(&bucket.target).await?;
        Ok(bucket)
    }

    /// The same, without looking up credentials yet.
    pub async fn prepare(target: Target, provider: Option<SharedCredentialsProvider>) -> Result<Self, S3Error> {
        let credentials = CachedCredentials::new(&target, provider).await?;
        let http = connector::client(&target, RequestTarget::Store)?;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(target.timeout.min(CONNECT))
            .operation_attempt_timeout(target.timeout)
            .build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .credentials_provider(credentials.clone())
            // Looking up credentials has a separate timeout.
            .identity_cache(IdentityCache::lazy().load_timeout(credentials::CREDENTIALS_TIMEOUT * 2).build())
            .region(Region::new(target.region.clone()))
            .force_path_style(is_path_style(&target))
            // Many stores reject the checksum trailers that the SDK would send; `upload` compares checksums instead.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().upload_enabled(true).grace_period(target.timeout).build(),
            )
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_max_backoff(BACKOFF))
            .timeout_config(timeouts);
        if let Some(url) = &target.endpoint {
            config = config.endpoint_url(url);
        }
        Ok(Self { client: Client::from_conf(config.build()), target, credentials })
    }

    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.target.prefix())
    }

    /// The key of a snapshot's manifest.
    #[must_use]
    pub fn manifest_key(&self, name: &str) -> String {
        format!("{}{METADATA}{name}.json", self.target.prefix())
    }

    /// `s3://bucket/key`.
    #[must_use]
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.target.bucket)
    }

    /// The access key, and its origin.
    pub async fn identity(&self) -> Result<(String, String), S3Error> {
        let (found, source) = self.credentials.find(&self.target).await?;
        Ok((found.access_key_id().to_owned(), source))
    }

    fn fail<E>(
        &self,
        act: &str,
        key: &str,
        error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
    ) -> S3Error
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        S3Error::of(&self.target, act, self.url(key), error)
    }

    /// The response to a HEAD has no body: it does not show whether the object or the bucket is missing.
    pub(super) async fn why_missing(&self, error: S3Error) -> S3Error {
        if error.kind != S3ErrorKind::NoObject {
            return error;
        }
        let asked = self.client.head_bucket().bucket(&self.target.bucket).send().await;
        match asked.map_err(|error| self.fail("reach", "", &error)) {
            Err(missing) if matches!(missing.kind, S3ErrorKind::NoObject | S3ErrorKind::NoBucket) => {
                let why = format!("bucket {} does not exist", self.target.bucket);
                S3Error::new("reach", self.target.to_string(), S3ErrorKind::NoBucket, why)
            }
            Err(other) if matches!(other.kind, S3ErrorKind::OtherRegion(_)) => other,
            _ => error,
        }
    }

    /// The timeout of a request that transfers this many bytes.
    fn request_timeout(&self, bytes: u64) -> Duration {
        self.target.timeout + Duration::from_secs(bytes / MIN_BYTES_PER_SECOND)
    }
}

fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

/// `auto`: AWS (if the certificate matches) and Alibaba require the bucket in the host name, others in the path.
fn is_path_style(target: &Target) -> bool {
    let wants_dns =
        target.endpoint.is_none() || target.host.contains("amazonaws.com") || target.host.contains("aliyuncs.com");
    match target.lookup {
        Lookup::Dns => false,
        Lookup::Path => true,
        Lookup::Auto => {
            !wants_dns
                || target.bucket.contains('.')
                || target.bucket.chars().any(|c| c.is_ascii_uppercase() || c == '_')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    #[test]
    fn the_bucket_goes_where_the_store_wants_it() {
        for (endpoint, bucket, lookup, is_path) in [
            ("s3.amazonaws.com", "backups", "auto", false),
            ("s3.amazonaws.com", "with.dots", "auto", true),
            ("s3.eu-west-1.amazonaws.com", "backups", "auto", false),
            ("oss-cn-hangzhou.aliyuncs.com", "backups", "auto", false),
            ("minio:9000", "backups", "auto", true),
            ("minio:9000", "backups", "dns", false),
            ("s3.amazonaws.com", "backups", "path", true),
        ] {
            let texts = [("endpoint", endpoint), ("bucket", bucket), ("bucket-lookup-type", lookup)];
            let texts = texts.map(|(name, text)| (format!("etcd-s3-{name}"), text.to_owned())).into();
            let target = S3Config::default().with(&texts).unwrap().target().unwrap();
            assert_eq!(is_path_style(&target), is_path, "{endpoint} {bucket} {lookup}");
        }
    }
}
