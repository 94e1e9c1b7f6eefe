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
pub mod download;
pub mod error;
pub mod findings;
pub mod index;
pub mod listing;
pub mod object;
mod pages;
pub mod proxy;
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
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier, ServerSideEncryption};
use aws_smithy_types::base64;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use md5::{Digest as _, Md5};

use crate::config::s3::{Encryption, Lookup, Target};
use connector::RequestTarget;
use credentials::CachedCredentials;
use error::{S3Error, S3ErrorKind};

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
/// Maximum size of a manifest or index, in bytes.
const MAX_OBJECT_BYTES: usize = 32 << 20;

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    None,
    /// Only if the object still has this `ETag`.
    Still(String),
    Missing,
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

    /// A small object; `None` if it does not exist. # Errors If it cannot be read, or is larger than any object of
    /// quorate.
    pub async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, S3Error> {
        Ok(self.read_version(key).await?.map(|(bytes, _)| bytes))
    }

    /// The same, with its `ETag`, which is empty if the store does not send it. # Errors If it cannot be read, or is
    /// larger than any object of quorate.
    pub async fn read_version(&self, key: &str) -> Result<Option<(Vec<u8>, String)>, S3Error> {
        let request = with_customer_key!(self.client.get_object().bucket(&self.target.bucket).key(key), &self.target);
        let found = match request.send().await {
            Ok(found) => found,
            Err(error) => {
                let error = self.fail("read", key, &error);
                return if error.kind == S3ErrorKind::NoObject { Ok(None) } else { Err(error) };
            }
        };
        let etag = unquoted(found.e_tag());
        let mut body = found.body;
        let mut bytes = Vec::new();
        loop {
            match tokio::time::timeout(self.target.timeout, body.try_next()).await {
                Ok(Ok(Some(chunk))) if bytes.len() + chunk.len() <= MAX_OBJECT_BYTES => bytes.extend_from_slice(&chunk),
                Ok(Ok(Some(_))) => {
                    return Err(S3Error::new(
                        "read",
                        self.url(key),
                        S3ErrorKind::Other,
                        "it is larger than any object of quorate",
                    ));
                }
                Ok(Ok(None)) => return Ok(Some((bytes, etag))),
                Ok(Err(error)) => {
                    return Err(S3Error::new("read", self.url(key), S3ErrorKind::Unreachable, error.to_string()));
                }
                Err(_) => {
                    return Err(S3Error::new(
                        "read",
                        self.url(key),
                        S3ErrorKind::Timeout,
                        "no data received for a while",
                    ));
                }
            }
        }
    }

    pub async fn write(&self, key: &str, bytes: Vec<u8>, content_type: &str) -> Result<String, S3Error> {
        self.write_if(key, bytes, content_type, &Condition::None).await
    }

    /// The same, if the object is unchanged. A store without support for this condition writes unconditionally.
    ///
    /// # Errors
    /// If the store rejects it; [`S3ErrorKind::Replaced`] if the object has changed.
    pub async fn write_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        content_type: &str,
        condition: &Condition,
    ) -> Result<String, S3Error> {
        match self.put(key, &bytes, content_type, condition).await {
            Err(error) if error.kind == S3ErrorKind::Unsupported && *condition != Condition::None => {
                self.put(key, &bytes, content_type, &Condition::None).await
            }
            done => done,
        }
    }

    async fn put(&self, key: &str, bytes: &[u8], content_type: &str, condition: &Condition) -> Result<String, S3Error> {
        let (matches, none) = match condition {
            Condition::None => (None, None),
            Condition::Still(etag) => (Some(format!("\"{etag}\"")), None),
            Condition::Missing => (None, Some("*".to_owned())),
        };
        let request = self.client.put_object().bucket(&self.target.bucket).key(key).content_type(content_type);
        let request = request.set_if_match(matches).set_if_none_match(none).content_md5(md5_of(bytes));
        let request = with_encryption!(request, &self.target);
        let done = request.body(ByteStream::from(bytes.to_vec())).send().await;
        done.map(|put| unquoted(put.e_tag())).map_err(|error| self.fail("write", key, &error))
    }

    /// Deletes objects, a thousand in each request. Returns those that were not deleted, with the reason.
    pub async fn delete(&self, keys: &[String]) -> Result<Vec<(String, S3Error)>, S3Error> {
        let mut refused = Vec::new();
        for batch in keys.chunks(BATCH) {
            let ids: Result<Vec<_>, _> = batch.iter().map(|key| ObjectIdentifier::builder().key(key).build()).collect();
            let wanted = ids.and_then(|ids| Delete::builder().set_objects(Some(ids)).quiet(true).build());
            let wanted = wanted.map_err(|error| {
                S3Error::new("delete from", self.target.to_string(), S3ErrorKind::Other, error.to_string())
            })?;
            // Older stores support no other checksum, and reject requests without one.
            let request = self.client.delete_objects().bucket(&self.target.bucket).delete(wanted).customize();
            let request = request.mutate_request(|request| {
                if let Some(md5) = request.body().bytes().map(md5_of) {
                    request.headers_mut().insert("content-md5", md5);
                }
            });
            let done = match request.send().await {
                Ok(done) => done,
                Err(error) => {
                    let error = self.fail("delete", &format!("{} and others", batch[0]), &error);
                    if error.kind != S3ErrorKind::Unsupported {
                        return Err(error);
                    }
                    refused.extend(self.delete_each(batch).await?);
                    continue;
                }
            };
            for error in done.errors() {
                let (code, said) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
                let kind = match code {
                    // It is gone, as requested.
                    "NoSuchKey" => continue,
                    _ if error::is_lock(said) || code.contains("Lock") => S3ErrorKind::Locked,
                    "AccessDenied" => S3ErrorKind::Denied,
                    _ => S3ErrorKind::Other,
                };
                let key = error.key().unwrap_or_default();
                refused.push((key.to_owned(), S3Error::new("delete", self.url(key), kind, format!("{code}: {said}"))));
            }
        }
        Ok(refused)
    }

    async fn delete_each(&self, keys: &[String]) -> Result<Vec<(String, S3Error)>, S3Error> {
        let mut refused = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let done = self.client.delete_object().bucket(&self.target.bucket).key(key).send().await;
            match done.map_err(|error| self.fail("delete", key, &error)) {
                Ok(_) => {}
                Err(error) if matches!(error.kind, S3ErrorKind::NoObject) => {}
                Err(error) if matches!(error.kind, S3ErrorKind::Locked | S3ErrorKind::Denied) => {
                    refused.push((key.clone(), error))
                }
                Err(error) if number == 0 => return Err(error),
                // Those before it are gone.
                Err(error) => {
                    refused.push((key.clone(), error));
                    let untried = |key: &String| {
                        let why = "not attempted, because another request failed";
                        (key.clone(), S3Error::new("delete", self.url(key), S3ErrorKind::Other, why))
                    };
                    refused.extend(keys[number + 1..].iter().map(untried));
                    break;
                }
            }
        }
        Ok(refused)
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
