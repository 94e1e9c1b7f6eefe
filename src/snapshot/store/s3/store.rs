//! A bucket as a store of snapshots.

use std::path::PathBuf;

use aws_lc_rs::digest;

use crate::datadir::DataDir;
use crate::error::AppError;
use crate::snapshot::list::Listed;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::{BATCH, Bucket, listing};
use crate::snapshot::store::{Removed, Store};

#[derive(Clone, Debug)]
pub struct Remote {
    pub bucket: Bucket,
    pub cache: Option<PathBuf>,
}

impl Remote {
    /// A bucket, with its cache under `data`.
    #[must_use]
    pub fn new(bucket: Bucket, data: &DataDir) -> Self {
        let target = bucket.target();
        let digest = digest::digest(&digest::SHA256, format!("{}\n{target}", target.host).as_bytes());
        let short: String = hex::encode(digest.as_ref()).chars().take(16).collect();
        Self { cache: Some(data.cache().join(format!("s3-{short}.json"))), bucket }
    }
}

impl Remote {
    /// Deletes as many as one request accepts.
    async fn remove_batch(&self, names: &[String], removed: &mut Removed) -> Result<(), S3Error> {
        let keys: Vec<String> = names.iter().map(|name| self.bucket.key(name)).collect();
        let refused = self.bucket.delete(&keys).await?;
        let mut manifests = Vec::new();
        for (name, key) in names.iter().zip(&keys) {
            match refused.iter().find(|(refused, _)| refused == key) {
                // The manifest of a snapshot that was not deleted is kept.
                None => {
                    manifests.push(self.bucket.manifest_key(name));
                    removed.gone.push(name.clone());
                }
                Some((_, error)) if error.kind == S3ErrorKind::Locked => {
                    removed.kept.push((name.clone(), error.why().to_owned()));
                }
                Some(_) => {}
            }
        }
        let also = if manifests.is_empty() { Vec::new() } else { self.bucket.delete(&manifests).await? };
        let mut failed = refused.into_iter().chain(also).filter(|(_, error)| error.kind != S3ErrorKind::Locked);
        if let Some((_, error)) = failed.next() {
            removed.failed.get_or_insert_with(|| error.into());
        }
        Ok(())
    }
}

impl Store for Remote {
    fn place(&self) -> String {
        self.bucket.target().to_string()
    }

    fn location(&self, name: &str) -> String {
        self.bucket.url(&self.bucket.key(name))
    }

    async fn list(&self) -> Result<Vec<Listed>, AppError> {
        let all = listing::list(&self.bucket, self.cache.as_deref()).await?;
        Ok(all.into_iter().map(|found| found.listed).collect())
    }

    async fn remove(&self, names: &[String]) -> Result<Removed, AppError> {
        let mut removed = Removed::default();
        for batch in names.chunks(BATCH) {
            match self.remove_batch(batch, &mut removed).await {
                Ok(()) => {}
                Err(error) if removed.gone.is_empty() && removed.kept.is_empty() => return Err(error.into()),
                // Reports those that were deleted.
                Err(error) => {
                    removed.failed.get_or_insert_with(|| error.into());
                    break;
                }
            }
        }
        Ok(removed)
    }

    async fn hold(&self, listed: &Listed, held: bool) -> Result<(), AppError> {
        Ok(listing::hold(&self.bucket, &listed.name, held).await?)
    }
}
