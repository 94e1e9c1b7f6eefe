//! Uploads a file, and reports success only after verifying the object in the store.
//!
//! Each part is sent with its MD5, which every store checks. Afterwards size and checksum of the object are compared:
//! CRC-64/NVME or CRC-32C of the whole object if the store has one, else its `ETag` if it is made of MD5s; otherwise
//! the object is read back. (Amazon S3 user guide, "Checking object integrity".)

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::digest::{self, Context};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload, CompletedPart};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::base64;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use hyper::body::Bytes;
use md5::{Digest as _, Md5};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::checksum;
use crate::plan::parts::Parts;
use crate::snapshot::store::s3::download;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::object::{SHA256, Uploaded, head};
use crate::snapshot::store::s3::{
    ATTEMPTS, BACKOFF, Bucket, body, listing, unquoted, with_customer_key, with_storage_class,
};

#[derive(Clone, Debug)]
pub struct UploadRequest {
    pub path: PathBuf,
    /// Its size in bytes, when it was last checked.
    pub size: u64,
    /// Its SHA-256 in hexadecimal, when it was last verified; empty if unknown.
    pub sha256: String,
    pub key: String,
    /// Such as `application/zip`.
    pub content_type: &'static str,
    pub metadata: HashMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultipartState {
    /// Parts of it may be left in the store.
    Created,
    Over,
}

/// Checksums of the file, as it was sent.
#[derive(Debug)]
struct Sums {
    crc64: Crc,
    crc32c: u32,
    md5s: Vec<[u8; 16]>,
    /// Hexadecimal.
    sha256: String,
}

impl Sums {
    fn new() -> Self {
        Self { crc64: Crc::new(CrcAlgorithm::Crc64Nvme), crc32c: 0, md5s: Vec::new(), sha256: String::new() }
    }

    fn add(&mut self, bytes: &[u8]) -> String {
        self.crc64.update(bytes);
        self.crc32c = checksum::crc32c_append(self.crc32c, bytes);
        let md5 = Md5::digest(bytes);
        self.md5s.push(md5.into());
        base64::encode(md5)
    }

    fn crc64(&self) -> String {
        base64::encode(self.crc64.finalize().to_be_bytes())
    }

    /// The expected `ETag`, if the store computes it from MD5s.
    fn etag(&self, is_in_parts: bool) -> String {
        match (&self.md5s[..], is_in_parts) {
            ([one], false) => hex::encode(one),
            (all, _) => format!("{}-{}", hex::encode(Md5::digest(all.concat())), all.len()),
        }
    }
}

struct Part {
    /// From 1.
    number: i32,
    bytes: Bytes,
    md5: String,
}

/// Another snapshot with this name, which must not be overwritten. If it cannot be checked, the upload will report the
/// error.
pub async fn conflicting_object(bucket: &Bucket, sending: &UploadRequest, name: &str) -> Option<S3Error> {
    let found = head(bucket, &sending.key).await.ok()?;
    let written = found.metadata().and_then(|metadata| metadata.get(SHA256)).cloned();
    let theirs = match written {
        Some(theirs) => Some(theirs),
        // Some stores do not keep metadata.
        None => listing::read_manifest(bucket, name).await.ok()?.map(|described| described.manifest.sha256),
    };
    let is_same = match theirs.filter(|sha256| !sha256.is_empty()) {
        Some(theirs) => theirs == sending.sha256,
        // Probably left by an upload that was interrupted before its manifest was written.
        None => found.content_length().and_then(|size| u64::try_from(size).ok()) == Some(sending.size),
    };
    let why = "another snapshot with this name exists there, and is not overwritten";
    (!is_same).then(|| S3Error::new("upload", bucket.url(&sending.key), S3ErrorKind::NameConflict, why))
}

/// Uploads it. `notify` receives the ID of a multipart upload when it is created, so that it can be aborted after a
/// crash, and is called again when no parts can be left; `done` counts bytes. # Errors If the file cannot be read, the
/// store rejects it, or verification fails. A multipart upload is aborted then.
pub async fn upload(
    bucket: &Bucket,
    sending: &UploadRequest,
    notify: impl Fn(&str, MultipartState),
    done: &Arc<AtomicU64>,
) -> Result<Uploaded, S3Error> {
    let parts = Parts::of(sending.size);
    let (sums, is_in_parts) = if parts.count == 1 {
        (put_whole(bucket, sending, done).await?, false)
    } else {
        (put_multipart(bucket, sending, parts, notify, done).await?, true)
    };
    verify(bucket, sending, &sums, is_in_parts).await
}

async fn put_whole(bucket: &Bucket, sending: &UploadRequest, done: &Arc<AtomicU64>) -> Result<Sums, S3Error> {
    let (_, mut receiver, reader) = read(bucket, sending, Parts::of(sending.size));
    let part = receiver.recv().await;
    let sums = read_through(bucket, sending, reader).await?;
    let part = part.ok_or_else(|| worker_panicked(bucket, sending))?;
    send_with_retries(bucket, "upload", &sending.key, &part.bytes, |body| {
        let request = bucket.client.put_object().bucket(&bucket.target.bucket).key(&sending.key);
        let request = request.content_type(sending.content_type).set_metadata(Some(sending.metadata.clone()));
        let request = with_storage_class!(request.content_md5(part.md5.clone()), &bucket.target);
        request
            .body(body)
            .customize()
            .disable_payload_signing()
            .config_override(without_timeout(bucket.target.timeout))
            .send()
    })
    .await?;
    done.store(sending.size, Ordering::Relaxed);
    Ok(sums)
}

/// The uploaded bytes must be those that were verified.
async fn read_through(bucket: &Bucket, sending: &UploadRequest, reader: Reader) -> Result<Sums, S3Error> {
    let sums = reader.await.unwrap_or_else(|_| Err(worker_panicked(bucket, sending)))?;
    if sending.sha256.is_empty() || sums.sha256 == sending.sha256 {
        return Ok(sums);
    }
    let why = format!(
        "{} was changed since it was verified: its SHA-256 is {}, but was {}",
        sending.path.display(),
        sums.sha256,
        sending.sha256
    );
    Err(S3Error::new("upload", bucket.url(&sending.key), S3ErrorKind::SourceChanged, why))
}

/// Sends a request with a body, and retries if it stalls: the SDK retries only failed responses and connections.
async fn send_with_retries<T, E, S>(
    bucket: &Bucket,
    act: &str,
    key: &str,
    bytes: &Bytes,
    send: impl Fn(ByteStream) -> S,
) -> Result<T, S3Error>
where
    S: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    for _ in 0..ATTEMPTS {
        let progress = Arc::default();
        let sent = send(body::of(bytes, &progress));
        if let Some(done) = body::with_stall_timeout(sent, &progress, bytes.len() as u64, bucket.target.timeout).await {
            return done.map_err(|error| bucket.fail(act, key, &error));
        }
        tracing::debug!(key, "an upload has stalled; retrying");
    }
    let why = format!("{} did not answer in time", bucket.target.host);
    Err(S3Error::new(act, bucket.url(key), S3ErrorKind::Timeout, why))
}

/// There is no limit while it makes progress.
fn without_timeout(timeout: Duration) -> aws_sdk_s3::config::Builder {
    // A pause between attempts is not a stall.
    let backoff = BACKOFF.min(timeout * 2 / 3);
    // Concurrent parts share transient faults of the store.
    let retry = RetryConfig::standard().with_max_attempts(2 * ATTEMPTS).with_max_backoff(backoff);
    let timeouts = TimeoutConfig::builder().disable_operation_attempt_timeout().build();
    aws_sdk_s3::Config::builder().timeout_config(timeouts).retry_config(retry)
}

fn with_timeout(timeout: Duration) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(timeout).build())
}

fn worker_panicked(bucket: &Bucket, sending: &UploadRequest) -> S3Error {
    S3Error::new("upload", bucket.url(&sending.key), S3ErrorKind::Other, "a worker thread panicked")
}

type Reader = tokio::task::JoinHandle<Result<Sums, S3Error>>;

/// A thread that computes the SHA-256 of the chunks sent to it.
fn hasher() -> std::io::Result<(SyncSender<Bytes>, JoinHandle<String>)> {
    let (sender, parts) = sync_channel::<Bytes>(1);
    let thread = std::thread::Builder::new().name("hash".into()).spawn(move || {
        let mut context = Context::new(&digest::SHA256);
        for part in parts {
            context.update(&part);
        }
        hex::encode(context.finish().as_ref())
    })?;
    Ok((sender, thread))
}

/// Reads the file part by part, a few parts ahead of the senders.
fn read(bucket: &Bucket, sending: &UploadRequest, parts: Parts) -> (Parts, mpsc::Receiver<Part>, Reader) {
    let (sender, receiver) = mpsc::channel(1);
    let (path, url) = (sending.path.clone(), bucket.url(&sending.key));
    let reader = tokio::task::spawn_blocking(move || {
        let failed = |error: std::io::Error| {
            S3Error::new("upload", url.clone(), S3ErrorKind::Other, format!("cannot read {}: {error}", path.display()))
        };
        let file = File::open(&path).map_err(failed)?;
        let mut sums = Sums::new();
        // SHA-256, the slowest checksum, has a separate thread.
        let (to_hash, hashing) = hasher().map_err(failed)?;
        for index in 0..parts.count {
            let (start, length) = parts.range(index);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, start).map_err(failed)?;
            let bytes = Bytes::from(bytes);
            let is_hashed = to_hash.send(bytes.clone()).is_ok();
            let md5 = sums.add(&bytes);
            let number = i32::try_from(index + 1).unwrap_or(i32::MAX);
            if !is_hashed || sender.blocking_send(Part { number, bytes, md5 }).is_err() {
                break;
            }
        }
        drop(to_hash);
        sums.sha256 = hashing.join().map_err(|_| failed(std::io::Error::other("a worker thread panicked")))?;
        Ok(sums)
    });
    (parts, receiver, reader)
}

async fn put_multipart(
    bucket: &Bucket,
    sending: &UploadRequest,
    parts: Parts,
    notify: impl Fn(&str, MultipartState),
    done: &Arc<AtomicU64>,
) -> Result<Sums, S3Error> {
    let request = bucket.client.create_multipart_upload().bucket(&bucket.target.bucket).key(&sending.key);
    let request = request.content_type(sending.content_type).set_metadata(Some(sending.metadata.clone()));
    let request = with_storage_class!(request, &bucket.target);
    let created = request.send().await.map_err(|error| bucket.fail("begin to upload", &sending.key, &error))?;
    let id = created.upload_id().unwrap_or_default().to_owned();
    notify(&id, MultipartState::Created);
    let sent = send_parts(bucket, sending, parts, &id, done).await;
    let completed = match sent {
        Ok((sums, completed)) => complete(bucket, sending, &id, completed).await.map(|()| sums),
        Err(error) => Err(error),
    };
    // The original error is more important; the abort is retried before the next attempt.
    if completed.is_ok() || abort(bucket, &sending.key, &id).await.is_ok() {
        notify(&id, MultipartState::Over);
    }
    completed
}

async fn send_parts(
    bucket: &Bucket,
    sending: &UploadRequest,
    parts: Parts,
    id: &str,
    done: &Arc<AtomicU64>,
) -> Result<(Sums, Vec<CompletedPart>), S3Error> {
    let (parts, receiver, reader) = read(bucket, sending, parts);
    let receiver = Arc::new(Mutex::new(receiver));
    let mut senders = JoinSet::new();
    for _ in 0..parts.concurrency {
        let (bucket, receiver, done) = (bucket.clone(), receiver.clone(), done.clone());
        let (key, id) = (sending.key.clone(), id.to_owned());
        senders.spawn(async move {
            let mut sent = Vec::new();
            loop {
                let Some(part) = receiver.lock().await.recv().await else { return Ok(sent) };
                let length = part.bytes.len() as u64;
                let answer = send_with_retries(&bucket, "upload a part of", &key, &part.bytes, |body| {
                    let request = bucket.client.upload_part().bucket(&bucket.target.bucket).key(&key).upload_id(&id);
                    let request = request.part_number(part.number).content_md5(part.md5.clone());
                    let request = with_customer_key!(request, &bucket.target).body(body);
                    request
                        .customize()
                        .disable_payload_signing()
                        .config_override(without_timeout(bucket.target.timeout))
                        .send()
                });
                let answer = answer.await?;
                done.fetch_add(length, Ordering::Relaxed);
                let completed = CompletedPart::builder().part_number(part.number).set_e_tag(answer.e_tag);
                sent.push(completed.build());
            }
        });
    }
    let mut completed = Vec::new();
    while let Some(sent) = senders.join_next().await {
        completed.extend(sent.unwrap_or_else(|_| Err(worker_panicked(bucket, sending)))?);
    }
    let sums = read_through(bucket, sending, reader).await?;
    completed.sort_by_key(CompletedPart::part_number);
    Ok((sums, completed))
}

async fn complete(
    bucket: &Bucket,
    sending: &UploadRequest,
    id: &str,
    parts: Vec<CompletedPart>,
) -> Result<(), S3Error> {
    let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let request = bucket.client.complete_multipart_upload().bucket(&bucket.target.bucket).key(&sending.key);
    let request = with_customer_key!(request.upload_id(id).multipart_upload(all), &bucket.target);
    // The store assembles the parts, which takes a while.
    let request = request.customize().config_override(with_timeout(bucket.request_timeout(sending.size / 64)));
    request.send().await.map_err(|error| bucket.fail("complete the upload of", &sending.key, &error))?;
    Ok(())
}

/// Aborts a multipart upload. One that does not exist any more is fine.
pub async fn abort(bucket: &Bucket, key: &str, id: &str) -> Result<(), S3Error> {
    let request = bucket.client.abort_multipart_upload().bucket(&bucket.target.bucket).key(key).upload_id(id);
    match request.send().await.map_err(|error| bucket.fail("abort the upload of", key, &error)) {
        Err(error) if error.why().contains("NoSuchUpload") || error.kind == S3ErrorKind::NoObject => Ok(()),
        done => done.map(|_| ()),
    }
}

async fn verify(bucket: &Bucket, sending: &UploadRequest, sums: &Sums, is_in_parts: bool) -> Result<Uploaded, S3Error> {
    let found = head(bucket, &sending.key).await?;
    let differs = |why: String| {
        S3Error::new("verify the upload to", bucket.url(&sending.key), S3ErrorKind::ChecksumMismatch, why)
    };
    let size = found.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
    if size != sending.size {
        return Err(differs(format!("{} bytes were sent, but the store has {size}", sending.size)));
    }
    let etag = unquoted(found.e_tag());
    let crc64nvme = sums.crc64();
    let good = |by: &str| Ok(Uploaded { etag: etag.clone(), crc64nvme: crc64nvme.clone(), verified_by: by.into() });
    let compared = |theirs: &str, ours: &str, name: &str| {
        if theirs == ours { good(name) } else { Err(differs(format!("its {name} is {theirs}, but should be {ours}"))) }
    };
    let is_of_all = found.checksum_type() != Some(&ChecksumType::Composite);
    if let Some(theirs) = found.checksum_crc64_nvme().filter(|_| is_of_all) {
        return compared(theirs, &crc64nvme, "CRC-64/NVME");
    }
    if let Some(theirs) = found.checksum_crc32_c().filter(|_| is_of_all && !is_in_parts) {
        return compared(theirs, &base64::encode(sums.crc32c.to_be_bytes()), "CRC-32C");
    }
    // A different `ETag` may not be made of MD5s.
    if etag == sums.etag(is_in_parts) {
        return good("MD5");
    }
    let read = download::checksum_of(bucket, &sending.key, sending.size).await?;
    compared(&read, &crc64nvme, "content")
}
