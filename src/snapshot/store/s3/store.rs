//! A bucket as a place for snapshots.

use std::path::PathBuf;

use aws_lc_rs::digest;

use super::error::Kind;
use super::{Bucket, listing};
use crate::datadir::DataDir;
use crate::error::Failure;
use crate::etcd::embedded::hex;
use crate::snapshot::list::Listed;
use crate::snapshot::store::{Removed, Store};

/// A bucket, and where to keep what was read of it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The bucket.
    pub bucket: Bucket,
    /// A file.
    pub cache: Option<PathBuf>,
}

impl Remote {
    /// A bucket; what was read of it is kept under `data`.
    #[must_use]
    pub fn new(bucket: Bucket, data: &DataDir) -> Self {
        let target = bucket.target();
        let digest = digest::digest(&digest::SHA256, format!("{}\n{target}", target.host).as_bytes());
        let short: String = hex(digest.as_ref()).chars().take(16).collect();
        Self { cache: Some(data.cache().join(format!("s3-{short}.json"))), bucket }
    }
}

impl Store for Remote {
    fn place(&self) -> String {
        self.bucket.target().to_string()
    }

    fn location(&self, name: &str) -> String {
        self.bucket.url(&self.bucket.key(name))
    }

    async fn list(&self) -> Result<Vec<Listed>, Failure> {
        let all = listing::list(&self.bucket, self.cache.as_deref()).await?;
        Ok(all.into_iter().map(|found| found.listed).collect())
    }

    async fn remove(&self, names: &[String]) -> Result<Removed, Failure> {
        let keys: Vec<String> = names.iter().map(|name| self.bucket.key(name)).collect();
        let refused = self.bucket.delete(&keys).await?;
        let mut removed = Removed::default();
        for (name, key) in names.iter().zip(&keys) {
            match refused.iter().find(|(refused, _)| refused == key) {
                None => removed.gone.push(name.clone()),
                Some((_, error)) if error.kind == Kind::Locked => {
                    removed.kept.push((name.clone(), error.why().to_owned()));
                }
                Some(_) => {}
            }
        }
        // What is said of a snapshot that stays, stays.
        let manifests: Vec<String> = removed.gone.iter().map(|name| self.bucket.manifest_key(name)).collect();
        let also = if manifests.is_empty() { Vec::new() } else { self.bucket.delete(&manifests).await? };
        let mut failed = refused.into_iter().chain(also).filter(|(_, error)| error.kind != Kind::Locked);
        removed.failed = failed.next().map(|(_, error)| error.into());
        Ok(removed)
    }

    async fn hold(&self, listed: &Listed, held: bool) -> Result<(), Failure> {
        Ok(listing::hold(&self.bucket, &listed.name, held).await?)
    }
}
