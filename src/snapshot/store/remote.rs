//! A located snapshot in object storage: its known facts, and its download.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{self, Context};

use crate::clock;
use crate::durable::{self, PRIVATE_DIR};
use crate::error::AppError;
use crate::host;
use crate::job::JobControl;
use crate::job::blocking;
use crate::snapshot::file::OpenError;
use crate::snapshot::hash;
use crate::snapshot::list::{self, SnapshotStatus};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::store::locate_error::LocateError;
use crate::snapshot::store::s3::download::{self, RemoteObject};
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::{Bucket, listing, object};
use crate::text::escape_control;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct RemoteSnapshot {
    bucket: Bucket,
    remote: RemoteObject,
    name: String,
    manifest: Option<Manifest>,
}

impl RemoteSnapshot {
    pub(super) async fn head(bucket: Bucket, name: &str) -> Result<Self, S3Error> {
        let mut manifest = None;
        let mut remote = download::head(&bucket, &bucket.key(name)).await?;
        // The metadata of the object itself is copied with it.
        remote.sha256 = remote.metadata.get(object::SHA256).filter(|sha256| !sha256.is_empty()).cloned();
        if let Some(described) = listing::read_manifest(&bucket, name).await? {
            let is_same = described.object.etag == remote.etag && !described.object.crc64nvme.is_empty();
            if is_same {
                remote.crc64nvme = Some(described.object.crc64nvme);
            }
            // Even if the object was rewritten: it must still be that snapshot.
            remote.sha256 =
                Some(described.manifest.sha256.clone()).filter(|sha256| !sha256.is_empty()).or(remote.sha256);
            remote.matches_manifest = is_same;
            manifest = Some(described.manifest);
        }
        Ok(Self { bucket, remote, name: name.to_owned(), manifest })
    }

    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    #[must_use]
    pub fn url(&self) -> String {
        self.bucket.url(&self.remote.key)
    }

    /// A copy on this node and one in object storage may be the same snapshot.
    pub(super) async fn is_the_same(&self, path: &Path) -> Result<(), AppError> {
        let known = path.parent().zip(path.file_name()).and_then(|(dir, name)| list::one(dir, name));
        let size = known.as_ref().map_or(0, |known| known.size);
        // A manifest is valid only while the file is unchanged.
        let known = known.filter(|known| known.status == SnapshotStatus::Good);
        let ours =
            known.and_then(|known| known.manifest).map(|manifest| manifest.sha256).filter(|sha256| !sha256.is_empty());
        if size == self.remote.size {
            let (theirs, ours) = match &self.remote.sha256 {
                Some(theirs) => (theirs.clone(), ours),
                // Only the contents can be compared.
                None => (self.streamed().await?, None),
            };
            let ours = if let Some(known) = ours {
                known
            } else {
                let path = path.to_path_buf();
                blocking(move || sha256_of(&path)).await?.unwrap_or_default()
            };
            if ours == theirs {
                return Ok(());
            }
        }
        Err(LocateError::Ambiguous { name: escape_control(&self.name), here: path.to_path_buf(), there: self.url() }
            .into())
    }

    /// SHA-256 of the file.
    async fn streamed(&self) -> Result<String, AppError> {
        let mut stream = download::stream(&self.bucket, &self.remote).await?;
        let mut hash = Context::new(&digest::SHA256);
        while let Some(chunk) = stream.next().await? {
            hash.update(&chunk);
        }
        Ok(hex::encode(hash.finish().as_ref()))
    }

    /// Checks that the download matches its manifest, if no checksum was compared.
    async fn check(&self, path: &Path) -> Result<(), AppError> {
        let Some(expected) = self.remote.sha256.clone().filter(|_| !self.remote.matches_manifest) else {
            return Ok(());
        };
        let to = path.to_path_buf();
        let found = blocking(move || sha256_of(&to)).await?;
        let found = found.map_err(|source| OpenError::Read { path: path.to_path_buf(), source })?;
        if found == expected {
            return Ok(());
        }
        let why = format!("its SHA-256 is {found}, but that of the snapshot was {expected}: it was replaced since");
        Err(S3Error::new("trust the download from", self.url(), S3ErrorKind::ChecksumMismatch, why).into())
    }

    /// Downloads it into `dir`, resuming an earlier attempt. `progress` receives the bytes done, and the total.
    pub async fn fetch(
        &self,
        dir: &Path,
        job: &JobControl,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<PathBuf, AppError> {
        durable::create_dir_all(dir, PRIVATE_DIR)?;
        let to = dir.join(Path::new(&self.name).file_name().unwrap_or_default());
        tracing::info!(from = self.url(), size = self.remote.size, "downloading the snapshot");
        let begun = clock::monotonic();
        let done = Arc::new(AtomicU64::new(0));
        let downloading = download::download(&self.bucket, &self.remote, &to, &done);
        let mut downloading = std::pin::pin!(downloading);
        loop {
            tokio::select! {
                fetched = &mut downloading => {
                    fetched?;
                    progress(1, 1);
                    break;
                }
                () = job.cancelled() => return Err(LocateError::Cancelled.into()),
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                    progress(done.load(Ordering::Relaxed), self.remote.size.max(1));
                }
            }
        }
        if let Err(failure) = self.check(&to).await {
            let _ = durable::remove_file(&to);
            return Err(failure);
        }
        tracing::info!(took_ms = begun.elapsed().as_millis(), "the snapshot is downloaded and matches its checksum");
        Ok(to.clone())
    }
}

fn sha256_of(path: &Path) -> std::io::Result<String> {
    let file = host::open_regular(path)?;
    let mut context = Context::new(&digest::SHA256);
    hash::feed(&mut context, &file, file.metadata()?.len(), |_| true)?;
    Ok(hex::encode(context.finish().as_ref()))
}
