//! Sends a file to the store, and believes that it is there only when the store has shown it.
//!
//! Each part goes with its MD5, which every store checks. Afterwards the store is asked what it has: its size, and its CRC-64/NVME or
//! CRC-32C of the whole where it keeps one, else its `ETag` where that is made of MD5s; where it tells nothing, the object is read back.
//! (Amazon S3 user guide, "Checking object integrity".)

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
    /// Its size, in bytes, when it was last looked at.
    pub size: u64,
    /// SHA-256 of it, hexadecimal, when it was last verified; empty if that is not known.
    pub sha256: String,
    pub key: String,
    /// Such as `application/zip`.
    pub content_type: &'static str,
    pub metadata: HashMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Parts of it may lie in the store.
    Begun,
    Over,
}

/// What was read of the file, as it was sent.
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

    /// The `ETag` of an object that was sent so, where a store makes it as S3 first did.
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

/// Another snapshot that has the name: it must not be written over. One that cannot be looked at is left to the upload, which says what is
/// wrong.
pub async fn conflicting_object(bucket: &Bucket, sending: &UploadRequest, name: &str) -> Option<S3Error> {
    let found = head(bucket, &sending.key).await.ok()?;
    let written = found.metadata().and_then(|metadata| metadata.get(SHA256)).cloned();
    let theirs = match written {
        Some(theirs) => Some(theirs),
        // Some stores keep no metadata.
        None => listing::read_manifest(bucket, name).await.ok()?.map(|described| described.manifest.sha256),
    };
    let is_same = match theirs.filter(|sha256| !sha256.is_empty()) {
        Some(theirs) => theirs == sending.sha256,
        // Most likely what an upload has left that was broken off before its manifest was written.
        None => found.content_length().and_then(|size| u64::try_from(size).ok()) == Some(sending.size),
    };
    let why = "another snapshot has this name there, and is not written over";
    (!is_same).then(|| S3Error::new("upload", bucket.url(&sending.key), S3ErrorKind::NameConflict, why))
}

/// Sends it. `tell` is told the name of an upload in parts when it is begun, so that it can be taken back if we are not there any more to
/// do so, and again when nothing of it can be left; `done` counts bytes.
///
/// # Errors
/// If the file cannot be read, the store does not take it, or does not have what was sent. Nothing is left of an upload in parts then.
pub async fn upload(
    bucket: &Bucket,
    sending: &UploadRequest,
    tell: impl Fn(&str, State),
    done: &Arc<AtomicU64>,
) -> Result<Uploaded, S3Error> {
    let parts = Parts::of(sending.size);
    let (sums, is_in_parts) = if parts.count == 1 {
        (put_whole(bucket, sending, done).await?, false)
    } else {
        (put_multipart(bucket, sending, parts, tell, done).await?, true)
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

/// What was read must be what was verified: nothing else is ever called a snapshot there.
async fn read_through(bucket: &Bucket, sending: &UploadRequest, reader: Reader) -> Result<Sums, S3Error> {
    let sums = reader.await.unwrap_or_else(|_| Err(worker_panicked(bucket, sending)))?;
    if sending.sha256.is_empty() || sums.sha256 == sending.sha256 {
        return Ok(sums);
    }
    let why = format!(
        "{} is not what it was when it was verified: its SHA-256 is {}, and was {}",
        sending.path.display(),
        sums.sha256,
        sending.sha256
    );
    Err(S3Error::new("upload", bucket.url(&sending.key), S3ErrorKind::SourceChanged, why))
}

/// Sends a request with a body, and again if it stalls: the SDK tries again only what was answered, or broke off.
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
        tracing::debug!(key, "an upload does not get on; it is sent again");
    }
    let why = format!("{} did not answer in time", bucket.target.host);
    Err(S3Error::new(act, bucket.url(key), S3ErrorKind::Timeout, why))
}

/// What gets on may take as long as it takes.
fn without_timeout(timeout: Duration) -> aws_sdk_s3::config::Builder {
    // A pause between attempts must not be taken for silence.
    let backoff = BACKOFF.min(timeout * 2 / 3);
    // Parts that are sent side by side share the store's bad moments.
    let retry = RetryConfig::standard().with_max_attempts(2 * ATTEMPTS).with_max_backoff(backoff);
    let timeouts = TimeoutConfig::builder().disable_operation_attempt_timeout().build();
    aws_sdk_s3::Config::builder().timeout_config(timeouts).retry_config(retry)
}

fn with_timeout(patience: Duration) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(patience).build())
}

fn worker_panicked(bucket: &Bucket, sending: &UploadRequest) -> S3Error {
    S3Error::new("upload", bucket.url(&sending.key), S3ErrorKind::Other, "a thread was lost")
}

type Reader = tokio::task::JoinHandle<Result<Sums, S3Error>>;

/// A thread that hashes what it is sent, and gives the SHA-256 of it.
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

/// Reads the file, a part after the other, a few ahead of those who send them.
fn read(bucket: &Bucket, sending: &UploadRequest, parts: Parts) -> (Parts, mpsc::Receiver<Part>, Reader) {
    let (sender, receiver) = mpsc::channel(1);
    let (path, url) = (sending.path.clone(), bucket.url(&sending.key));
    let reader = tokio::task::spawn_blocking(move || {
        let failed = |error: std::io::Error| {
            S3Error::new(
                "upload",
                url.clone(),
                S3ErrorKind::Other,
                format!("{} cannot be read: {error}", path.display()),
            )
        };
        let file = File::open(&path).map_err(failed)?;
        let mut sums = Sums::new();
        // The slowest of the sums has a thread of its own.
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
        sums.sha256 = hashing.join().map_err(|_| failed(std::io::Error::other("a thread was lost")))?;
        Ok(sums)
    });
    (parts, receiver, reader)
}

async fn put_multipart(
    bucket: &Bucket,
    sending: &UploadRequest,
    parts: Parts,
    tell: impl Fn(&str, State),
    done: &Arc<AtomicU64>,
) -> Result<Sums, S3Error> {
    let request = bucket.client.create_multipart_upload().bucket(&bucket.target.bucket).key(&sending.key);
    let request = request.content_type(sending.content_type).set_metadata(Some(sending.metadata.clone()));
    let request = with_storage_class!(request, &bucket.target);
    let created = request.send().await.map_err(|error| bucket.fail("begin to upload", &sending.key, &error))?;
    let id = created.upload_id().unwrap_or_default().to_owned();
    tell(&id, State::Begun);
    let sent = send_parts(bucket, sending, parts, &id, done).await;
    let completed = match sent {
        Ok((sums, completed)) => complete(bucket, sending, &id, completed).await.map(|()| sums),
        Err(error) => Err(error),
    };
    // What failed matters more than that this does, too: it is tried again before the next attempt.
    if completed.is_ok() || abort(bucket, &sending.key, &id).await.is_ok() {
        tell(&id, State::Over);
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
    // The store puts the parts together, which takes it a while.
    let request = request.customize().config_override(with_timeout(bucket.request_timeout(sending.size / 64)));
    request.send().await.map_err(|error| bucket.fail("complete the upload of", &sending.key, &error))?;
    Ok(())
}

/// Takes back an upload in parts that was not completed. One that is not there any more is fine.
pub async fn abort(bucket: &Bucket, key: &str, id: &str) -> Result<(), S3Error> {
    let request = bucket.client.abort_multipart_upload().bucket(&bucket.target.bucket).key(key).upload_id(id);
    match request.send().await.map_err(|error| bucket.fail("take back the upload of", key, &error)) {
        Err(error) if error.why().contains("NoSuchUpload") || error.kind == S3ErrorKind::NoObject => Ok(()),
        done => done.map(|_| ()),
    }
}

async fn verify(bucket: &Bucket, sending: &UploadRequest, sums: &Sums, is_in_parts: bool) -> Result<Uploaded, S3Error> {
    let found = head(bucket, &sending.key).await?;
    let differs = |why: String| {
        S3Error::new("trust what was uploaded to", bucket.url(&sending.key), S3ErrorKind::ChecksumMismatch, why)
    };
    let size = found.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
    if size != sending.size {
        return Err(differs(format!("{} bytes were sent, and the store has {size}", sending.size)));
    }
    let etag = unquoted(found.e_tag());
    let crc64nvme = sums.crc64();
    let good = |by: &str| Ok(Uploaded { etag: etag.clone(), crc64nvme: crc64nvme.clone(), verified_by: by.into() });
    let compared = |theirs: &str, ours: &str, name: &str| {
        if theirs == ours {
            good(name)
        } else {
            Err(differs(format!("its {name} is {theirs}, and that of what was sent is {ours}")))
        }
    };
    let is_of_all = found.checksum_type() != Some(&ChecksumType::Composite);
    if let Some(theirs) = found.checksum_crc64_nvme().filter(|_| is_of_all) {
        return compared(theirs, &crc64nvme, "CRC-64/NVME");
    }
    if let Some(theirs) = found.checksum_crc32_c().filter(|_| is_of_all && !is_in_parts) {
        return compared(theirs, &base64::encode(sums.crc32c.to_be_bytes()), "CRC-32C");
    }
    // One that is another may be made of something else than MD5s.
    if etag == sums.etag(is_in_parts) {
        return good("MD5");
    }
    let read = download::checksum_of(bucket, &sending.key, sending.size).await?;
    compared(&read, &crc64nvme, "content")
}
