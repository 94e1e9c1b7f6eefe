//! Downloads objects: into a file, with concurrent parts and resumable, or as a stream.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_types::base64;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::durable::{self, PRIVATE_FILE, WriteError};
use crate::error::{Code, Diagnostic, OutOfSpace, is_disk_full};
use crate::host;
use crate::plan::parts::Parts;
use crate::snapshot::hash;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind, deepest};
use crate::snapshot::store::s3::{Bucket, object, with_customer_key};

/// Maximum attempts for an interrupted part, each resuming at the last byte.
const ATTEMPTS: u32 = 5;
/// Bytes that an attempt must transfer to count as progress.
const PROGRESS: u64 = 256 << 10;
/// The pause after an interrupted part.
const PAUSE: Duration = Duration::from_millis(300);
/// Parts between two syncs of data and record; at most these are downloaded again.
const PARTS_PER_SYNC: usize = 8;
/// Bytes that stay free on the disk.
const RESERVED_FREE_BYTES: u64 = 64 << 20;
/// Bytes that a stream must transfer in each timeout interval.
const MIN_BYTES: u64 = 4096;

/// The next step after a full disk.
const RESUME: &str = "free some space there and run the same command again; the download resumes";

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error(transparent)]
    Space(#[from] OutOfSpace),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Diagnostic for DownloadError {
    fn code(&self) -> Code {
        match self {
            Self::S3(error) => error.code(),
            Self::Space(error) => error.code(),
            Self::Write(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::S3(error) => error.next_step(),
            Self::Space(error) => error.next_step(),
            Self::Write(error) if is_disk_full(&error.source) => Some(RESUME.into()),
            Self::Write(error) => error.next_step(),
        }
    }
}

/// The object to download, and its properties when it was listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteObject {
    pub key: String,
    pub size: u64,
    pub etag: String,
    /// CRC-64/NVME of the object in base64, if the store or the manifest has it.
    pub crc64nvme: Option<String>,
    /// SHA-256 of the object in hexadecimal, if its manifest has it.
    pub sha256: Option<String>,
    /// It is the object for which its manifest was written.
    pub matches_manifest: bool,
    pub metadata: HashMap<String, String>,
}

/// The expected properties of an object to download.
pub async fn head(bucket: &Bucket, key: &str) -> Result<RemoteObject, S3Error> {
    let found = match object::head(bucket, key).await {
        Ok(found) => found,
        Err(error) => return Err(bucket.why_missing(error).await),
    };
    let is_of_all = found.checksum_type() != Some(&aws_sdk_s3::types::ChecksumType::Composite);
    Ok(RemoteObject {
        key: key.to_owned(),
        size: found.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        etag: crate::snapshot::store::s3::unquoted(found.e_tag()),
        crc64nvme: found.checksum_crc64_nvme().filter(|_| is_of_all).map(str::to_owned),
        metadata: found.metadata().cloned().unwrap_or_default(),
        ..RemoteObject::default()
    })
}

/// The state of a download, stored next to it from time to time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct DownloadState {
    url: String,
    etag: String,
    size: u64,
    part_size: u64,
    /// The CRC-64/NVME of each durable part.
    parts: Vec<Option<u64>>,
}

/// Downloads it into the file `to`, whose directory must exist. Resumes an earlier attempt for the same object. `to` is
/// created only when the download is complete and its checksum matches.
pub async fn download(
    bucket: &Bucket,
    remote: &RemoteObject,
    to: &Path,
    done: &Arc<AtomicU64>,
) -> Result<(), DownloadError> {
    let parts = Parts::of(remote.size);
    let (partial, record_path) = partial(to);
    let record = DownloadState {
        url: bucket.url(&remote.key),
        etag: remote.etag.clone(),
        size: remote.size,
        part_size: parts.size,
        parts: vec![None; usize::try_from(parts.count).unwrap_or(0)],
    };
    let (file, record) = resume_or_restart(to, (&partial, &record_path), record, parts).await?;
    let here: u64 = missing(&record, true).map(|index| parts.range(index).1).sum();
    done.store(here, Ordering::Relaxed);
    let dir = to.parent().unwrap_or(Path::new("."));
    let needed = (remote.size - here).saturating_add(RESERVED_FREE_BYTES);
    OutOfSpace::check("the download", needed, host::free_bytes(dir), dir, RESUME)?;
    let record = Arc::new(Mutex::new(record));
    let file = Arc::new(file);
    let fetched = fetch_all(bucket, remote, parts, (&file, &partial), (&record, &record_path), done).await;
    let record = record.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Received data is kept for the next attempt.
    save_progress(&file, &partial, &record_path, &record)?;
    fetched?;
    if let Some(wanted) = &remote.crc64nvme {
        let ours = combined_checksum(&record, parts);
        if ours != *wanted {
            let _ = durable::remove_file(&record_path);
            let _ = durable::remove_file(&partial);
            let why = format!("its CRC-64/NVME is {ours}, but should be {wanted}");
            return Err(S3Error::new(
                "trust the download from",
                bucket.url(&remote.key),
                S3ErrorKind::ChecksumMismatch,
                why,
            )
            .into());
        }
    }
    // The record is kept: if a later step fails, no data is downloaded again.
    durable::rename(&partial, to)?;
    Ok(())
}

/// Like [`resume`], even for a complete download, which is read again then: the failure of a later step may have been
/// caused by the disk.
async fn resume_or_restart(
    to: &Path,
    (partial, record_path): (&Path, &Path),
    fresh: DownloadState,
    parts: Parts,
) -> Result<(File, DownloadState), DownloadError> {
    if to.is_file() {
        durable::rename(to, partial)?;
    }
    let (file, record) = resume(partial, record_path, fresh.clone())?;
    if missing(&record, false).next().is_some() {
        return Ok((file, record));
    }
    let (read, size) = (file.try_clone().map_err(unreadable(partial))?, record.size);
    let summed = tokio::task::spawn_blocking(move || {
        let mut sum = Crc::new(CrcAlgorithm::Crc64Nvme);
        hash::for_each_chunk(&read, size, |piece| {
            sum.update(piece);
            true
        })?;
        Ok::<_, io::Error>(base64::encode(sum.finalize().to_be_bytes()))
    });
    let summed = summed.await.map_err(|_| unreadable(partial)(io::Error::other("a worker thread panicked")))?;
    if summed.is_ok_and(|summed| summed == combined_checksum(&record, parts)) {
        return Ok((file, record));
    }
    durable::remove_file(record_path)?;
    Ok(resume(partial, record_path, fresh)?)
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> WriteError + '_ {
    move |source| WriteError { act: "read", path: path.to_path_buf(), source }
}

/// The partial file and its state.
fn partial(to: &Path) -> (PathBuf, PathBuf) {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    (to.with_file_name(format!("{name}.partial")), to.with_file_name(format!("{name}.partial.json")))
}

fn missing(record: &DownloadState, is_there: bool) -> impl Iterator<Item = u64> + '_ {
    (0u64..).zip(&record.parts).filter(move |(_, part)| part.is_some() == is_there).map(|(index, _)| index)
}

/// Resumes an earlier attempt for the same object, or starts again.
fn resume(partial: &Path, record_path: &Path, fresh: DownloadState) -> Result<(File, DownloadState), WriteError> {
    let before = std::fs::read(record_path).ok().and_then(|bytes| serde_json::from_slice::<DownloadState>(&bytes).ok());
    let is_same = |before: &DownloadState| {
        (&before.url, &before.etag, before.size, before.part_size, before.parts.len())
            == (&fresh.url, &fresh.etag, fresh.size, fresh.part_size, fresh.parts.len())
    };
    if let (Some(before), true) = (before.filter(is_same), partial.is_file())
        && let Ok(file) = durable::open_read_write(partial)
    {
        return Ok((file, before));
    }
    durable::remove_file(record_path)?;
    durable::remove_file(partial)?;
    Ok((durable::create(partial, PRIVATE_FILE)?, fresh))
}

/// First the data, then the record of it.
fn save_progress(file: &File, partial: &Path, record_path: &Path, record: &DownloadState) -> Result<(), WriteError> {
    durable::sync(file, partial)?;
    durable::write_file(record_path, &serde_json::to_vec(record).unwrap_or_default(), PRIVATE_FILE)
}

fn saved_progress(
    done: Result<Result<(), WriteError>, tokio::task::JoinError>,
    gone: &impl Fn() -> S3Error,
) -> Result<(), DownloadError> {
    Ok(done.map_err(|_| gone())??)
}

async fn fetch_all(
    bucket: &Bucket,
    remote: &RemoteObject,
    parts: Parts,
    (file, partial): (&Arc<File>, &Path),
    (record, record_path): (&Arc<Mutex<DownloadState>>, &Path),
    done: &Arc<AtomicU64>,
) -> Result<(), DownloadError> {
    let lock = || record.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wanted: Vec<u64> = missing(&lock(), false).collect();
    wanted.reverse();
    let mut under_way = JoinSet::new();
    let mut since = 0;
    let gone = || S3Error::new("download", bucket.url(&remote.key), S3ErrorKind::Other, "a worker task panicked");
    let mut keeping = None;
    loop {
        while under_way.len() < parts.concurrency
            && let Some(index) = wanted.pop()
        {
            let (bucket, remote, file, done) = (bucket.clone(), remote.clone(), file.clone(), done.clone());
            let partial = partial.to_path_buf();
            under_way.spawn(async move {
                fetch(&bucket, &remote, parts.range(index), &file, &partial, &done).await.map(|sum| (index, sum))
            });
        }
        let Some(fetched) = under_way.join_next().await else {
            return match keeping {
                Some(keeping) => saved_progress(keeping.await, &gone),
                None => Ok(()),
            };
        };
        let (index, sum) = fetched.unwrap_or_else(|_| Err(gone().into()))?;
        if let (Ok(index), mut record) = (usize::try_from(index), lock())
            && let Some(part) = record.parts.get_mut(index)
        {
            *part = Some(sum);
        }
        since += 1;
        if since >= PARTS_PER_SYNC {
            since = 0;
            let record = lock().clone();
            let (file, partial, record_path) = (file.clone(), partial.to_path_buf(), record_path.to_path_buf());
            // Concurrently with the next parts; one at a time.
            if let Some(keeping) = keeping.take() {
                saved_progress(keeping.await, &gone)?;
            }
            keeping = Some(tokio::task::spawn_blocking(move || save_progress(&file, &partial, &record_path, &record)));
        }
    }
}

/// Downloads one part, resuming after interruptions. Returns its CRC-64/NVME.
async fn fetch(
    bucket: &Bucket,
    remote: &RemoteObject,
    (start, length): (u64, u64),
    file: &File,
    partial: &Path,
    done: &AtomicU64,
) -> Result<u64, DownloadError> {
    let mut sum = Crc::new(CrcAlgorithm::Crc64Nvme);
    let mut at = 0;
    let mut attempt = 0;
    while at < length {
        let before = at;
        let failed = match receive(bucket, remote, start + at, length - at).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(chunk)) => {
                        let chunk = &chunk[..chunk.len().min(usize::try_from(length - at).unwrap_or(usize::MAX))];
                        durable::write_at(file, partial, chunk, start + at)?;
                        sum.update(chunk);
                        at += chunk.len() as u64;
                        done.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    }
                    Ok(None) if at < length => {
                        let why = "the response of the store was cut off";
                        break S3Error::new("download", bucket.url(&remote.key), S3ErrorKind::Unreachable, why);
                    }
                    Ok(None) => return Ok(sum.finalize()),
                    Err(error) => break error,
                }
            },
            // The SDK has retried this already.
            Err(error) => return Err(error.into()),
        };
        attempt = if at - before >= PROGRESS { 1 } else { attempt + 1 };
        if attempt >= ATTEMPTS {
            return Err(failed.into());
        }
        tokio::time::sleep(PAUSE * 2u32.pow(attempt)).await;
    }
    Ok(sum.finalize())
}

/// A stream that must not stall.
#[derive(Debug)]
pub struct Stream {
    body: ByteStream,
    timeout: Duration,
    url: String,
    /// Bytes that came since `since`.
    came: u64,
    since: std::time::Instant,
}

impl Stream {
    /// The next chunk; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, S3Error> {
        let silent = |url: &str, what: &str| S3Error::new("download", url, S3ErrorKind::Timeout, what);
        match tokio::time::timeout(self.timeout, self.body.try_next()).await {
            Err(_) => Err(silent(&self.url, "no data received for a while")),
            Ok(Err(error)) => Err(S3Error::new("download", &*self.url, S3ErrorKind::Unreachable, deepest(&error))),
            Ok(Ok(chunk)) => {
                self.came += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                if self.since.elapsed() >= self.timeout {
                    if self.came < MIN_BYTES && chunk.is_some() {
                        return Err(silent(&self.url, "the transfer is too slow"));
                    }
                    (self.came, self.since) = (0, crate::clock::monotonic());
                }
                Ok(chunk)
            }
        }
    }
}

/// Requests a part of exactly this version of the object.
async fn receive(bucket: &Bucket, remote: &RemoteObject, start: u64, length: u64) -> Result<Stream, S3Error> {
    let request = bucket.client.get_object().bucket(&bucket.target.bucket).key(&remote.key);
    let request =
        if length < remote.size { request.range(format!("bytes={start}-{}", start + length - 1)) } else { request };
    let request = if remote.etag.is_empty() { request } else { request.if_match(format!("\"{}\"", remote.etag)) };
    let found = with_customer_key!(request, &bucket.target).send().await;
    let found = found.map_err(|error| {
        let error = bucket.fail("download", &remote.key, &error);
        if error.kind == S3ErrorKind::Replaced {
            return S3Error::new(
                "download",
                bucket.url(&remote.key),
                S3ErrorKind::Replaced,
                "it was replaced meanwhile",
            );
        }
        error
    })?;
    let url = bucket.url(&remote.key);
    if start > 0 && found.content_range().is_none_or(|range| !range.starts_with(&format!("bytes {start}-"))) {
        return Err(S3Error::new(
            "download",
            url,
            S3ErrorKind::Unsupported,
            "the store does not send parts of an object",
        ));
    }
    Ok(Stream { body: found.body, timeout: bucket.target.timeout, url, came: 0, since: crate::clock::monotonic() })
}

pub async fn stream(bucket: &Bucket, remote: &RemoteObject) -> Result<Stream, S3Error> {
    receive(bucket, remote, 0, remote.size).await
}

/// Reads an object completely to compute its CRC-64/NVME.
pub(super) async fn checksum_of(bucket: &Bucket, key: &str, size: u64) -> Result<String, S3Error> {
    let remote = RemoteObject { key: key.to_owned(), size, ..RemoteObject::default() };
    let mut stream = stream(bucket, &remote).await?;
    let mut sum = Crc::new(CrcAlgorithm::Crc64Nvme);
    while let Some(chunk) = stream.next().await? {
        sum.update(&chunk);
    }
    Ok(base64::encode(sum.finalize().to_be_bytes()))
}

fn combined_checksum(record: &DownloadState, parts: Parts) -> String {
    let mut all = 0;
    for (index, part) in (0u64..).zip(&record.parts) {
        let (_, length) = parts.range(index);
        let part = part.unwrap_or_default();
        all = if index == 0 { part } else { crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, all, part, length) };
    }
    base64::encode(all.to_be_bytes())
}
