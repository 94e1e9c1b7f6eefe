//! Verifies a snapshot in a bucket by streaming it, without storing it.

use std::io::{self, Read};

use hyper::body::Bytes;
use tokio::sync::mpsc;

use crate::clock;
use crate::error::{Code, Diagnostic};
use crate::snapshot::manifest::Verification;
use crate::snapshot::store::s3::Bucket;
use crate::snapshot::store::s3::download::{self, RemoteObject};
use crate::snapshot::store::s3::error::S3Error;
use crate::snapshot::store::s3::findings::VerificationRecord;
use crate::snapshot::store::s3::listing::InBucket;
use crate::snapshot::stream::{self, StreamError, Streamed};

const QUEUED_CHUNKS: usize = 16;

/// Why it is not good, or could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum RemoteVerifyError {
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error("{url} is corrupt: {what}")]
    Corrupt { url: String, what: String },
    #[error("internal error: a worker thread panicked")]
    WorkerPanicked,
}

impl Diagnostic for RemoteVerifyError {
    fn code(&self) -> Code {
        match self {
            Self::S3(error) => error.code(),
            Self::Corrupt { .. } => Code::SnapshotCorrupt,
            Self::WorkerPanicked => Code::InternalError,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::S3(error) => error.next_step(),
            Self::Corrupt { .. } => {
                Some("do not restore it; if a node has it, too, upload that copy, or take another snapshot".into())
            }
            Self::WorkerPanicked => Some("try again".into()),
        }
    }
}

/// Reads from a channel; the sender reports errors of the connection.
struct ChannelReader {
    from: mpsc::Receiver<Result<Bytes, ()>>,
    rest: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(())) => return Err(io::Error::other("the download failed")),
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// Verifies one. `progress` receives the number of bytes done.
pub async fn verify(
    bucket: &Bucket,
    found: &InBucket,
    mut progress: impl FnMut(u64),
) -> Result<Streamed, RemoteVerifyError> {
    let url = bucket.url(&found.object.key);
    let remote = RemoteObject {
        key: found.object.key.clone(),
        size: found.object.size,
        etag: found.object.etag.clone(),
        ..RemoteObject::default()
    };
    let mut coming = download::stream(bucket, &remote).await?;
    let (sender, from) = mpsc::channel(QUEUED_CHUNKS);
    let reading = tokio::task::spawn_blocking(move || stream::verify(ChannelReader { from, rest: Bytes::new() }));
    let (mut came, mut broke) = (0, None);
    loop {
        let next = match coming.next().await {
            Ok(Some(bytes)) => {
                came += bytes.len() as u64;
                progress(came);
                Ok(bytes)
            }
            Ok(None) => break,
            Err(error) => {
                broke = Some(error);
                Err(())
            }
        };
        let is_over = next.is_err();
        let is_gone = sender.send(next).await.is_err();
        if is_over || is_gone {
            break;
        }
    }
    drop(sender);
    let read = reading.await.map_err(|_| RemoteVerifyError::WorkerPanicked)?;
    if let Some(error) = broke {
        return Err(error.into());
    }
    let corrupt = |what: String| RemoteVerifyError::Corrupt { url: url.clone(), what };
    let streamed = read.map_err(|error| match error {
        StreamError::Corrupt(what) => corrupt(what),
        StreamError::Read(source) => corrupt(source.to_string()),
    })?;
    let expected =
        found.listed.manifest.as_ref().map(|manifest| manifest.sha256.as_str()).filter(|text| !text.is_empty());
    if expected.is_some_and(|expected| expected != streamed.sha256) {
        return Err(corrupt(format!("its SHA-256 is {}, but its manifest has another", streamed.sha256)));
    }
    Ok(streamed)
}

/// The result to record, if it is about the snapshot itself.
#[must_use]
pub fn finding(found: &InBucket, verified: &Result<Streamed, RemoteVerifyError>) -> Option<VerificationRecord> {
    let (status, finding) = match verified {
        Ok(_) => ("good", None),
        Err(error @ RemoteVerifyError::Corrupt { .. }) => ("corrupt", Some(error.to_string())),
        Err(_) => return None,
    };
    let verification = Verification {
        status: status.into(),
        at: clock::rfc3339(clock::now()),
        size: found.object.size,
        modified: 0,
        finding,
    };
    Some(VerificationRecord { name: found.listed.name.clone(), version: found.object.version(), verification })
}
