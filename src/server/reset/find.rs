//! Which snapshot is meant, and how it comes here: a path, a name of one on this node, or one in object storage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Run, Tell};
use crate::clock;
use crate::config::Config;
use crate::config::s3::{S3Config, Target};
use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_DIR};
use crate::error::{Exit, Explained, Failure};
use crate::host::{self, printable};
use crate::restore::trial::TrialError;
use crate::snapshot::aside::Course;
use crate::snapshot::file::OpenError;
use crate::snapshot::list;
use crate::snapshot::store::s3::download::{self, Remote};
use crate::snapshot::store::s3::{Bucket, listing};
use crate::snapshot::verify::{self, Demands};

/// How often it is told how far a download is.
const NEWS: Duration = Duration::from_millis(200);

/// A snapshot that was found.
#[derive(Debug)]
pub(super) enum Found {
    /// On this node.
    Here(PathBuf),
    /// In object storage.
    There(Box<There>),
}

/// One in object storage.
#[derive(Debug)]
pub(super) struct There {
    bucket: Bucket,
    remote: Remote,
    name: String,
}

/// Two snapshots have the name.
#[derive(Debug, thiserror::Error)]
#[error("two different snapshots are called {name}: {} and {there}", here.display())]
struct Ambiguous {
    name: String,
    here: PathBuf,
    there: String,
}

impl Explained for Ambiguous {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn next(&self) -> Option<String> {
        Some("say which: by its path, or by its s3:// URL".into())
    }
}

/// Anything with a slash is a path, unless it begins with `s3://`; a bare name is one of the snapshots, on this node or in object storage.
pub(super) async fn find(config: &Config, data: &DataDir, named: &str) -> Result<Found, Failure> {
    let s3 = &config.snapshot.s3;
    if let Some((bucket, key)) = named.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) {
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        let bucket = connect(s3, Some((bucket, folder))).await?;
        return Ok(Found::There(Box::new(There::look(bucket, name).await?)));
    }
    if named.contains('/') {
        let path = std::path::absolute(named).unwrap_or_else(|_| PathBuf::from(named));
        return here(path).map(Found::Here);
    }
    if s3.is_asked {
        let bucket = connect(s3, None).await?;
        return Ok(Found::There(Box::new(There::look(bucket, named).await?)));
    }
    let ours = config.snapshot.place(data).join(named);
    let rke1 = Path::new(host::RKE1_SNAPSHOTS).join(named);
    let path = here(if !ours.exists() && rke1.exists() { rke1 } else { ours });
    if !s3.is_on {
        return path.map(Found::Here);
    }
    let there = async { There::look(connect(s3, None).await?, named).await };
    match (path, there.await) {
        (Ok(path), Ok(there)) => {
            there.is_the_same(&path).await?;
            Ok(Found::Here(path))
        }
        (Err(_), Ok(there)) => Ok(Found::There(Box::new(there))),
        (Ok(path), Err(failure)) => {
            if failure.exit() != Exit::NotFound {
                tracing::warn!(error = %failure.told(), "object storage was not looked into; the snapshot on this node is taken");
            }
            Ok(Found::Here(path))
        }
        // What keeps us from the one place where it may be is worth more than that it is not in the other.
        (Err(missing), Err(failure)) => Err(if failure.exit() == Exit::NotFound { missing } else { failure }),
    }
}

fn here(path: PathBuf) -> Result<PathBuf, Failure> {
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::NotFound(path).into()),
        Err(source) => Err(OpenError::Read { path, source }.into()),
    }
}

/// As configured, or with another bucket and folder.
async fn connect(s3: &S3Config, instead: Option<(&str, &str)>) -> Result<Bucket, Failure> {
    let target = match instead {
        None => s3.target()?,
        Some((bucket, folder)) => {
            let more = [("etcd-s3-bucket".to_owned(), bucket.to_owned())].into();
            Target { folder: folder.to_owned(), ..s3.with(&more)?.target()? }
        }
    };
    Ok(Bucket::connect(target).await?)
}

impl There {
    async fn look(bucket: Bucket, name: &str) -> Result<Self, Failure> {
        let mut remote = download::look(&bucket, &bucket.key(name)).await?;
        let described = listing::described(&bucket, name).await?;
        if let Some(described) =
            described.filter(|described| described.object.etag == remote.etag && !described.object.crc64nvme.is_empty())
        {
            remote.crc64nvme = Some(described.object.crc64nvme);
            remote.sha256 = Some(described.manifest.sha256).filter(|sha256| !sha256.is_empty());
        }
        Ok(Self { bucket, remote, name: name.to_owned() })
    }

    /// For people.
    pub(super) fn url(&self) -> String {
        self.bucket.url(&self.remote.key)
    }

    /// Two places may have the same snapshot.
    async fn is_the_same(&self, path: &Path) -> Result<(), Failure> {
        let known = path.parent().zip(path.file_name()).and_then(|(dir, name)| list::one(dir, name));
        let size = known.as_ref().map_or(0, |known| known.size);
        let ours =
            known.and_then(|known| known.manifest).map(|manifest| manifest.sha256).filter(|sha256| !sha256.is_empty());
        let is_same = match (&self.remote.sha256, ours) {
            _ if size != self.remote.size => false,
            (Some(theirs), Some(ours)) => *theirs == ours,
            (Some(theirs), None) => {
                let (path, theirs) = (path.to_path_buf(), theirs.clone());
                let verified =
                    super::blocking(move || verify::verify(&path, Demands { skip_hash: true }, &mut |_, _| {}));
                verified.await?.is_ok_and(|verified| verified.sha256 == theirs)
            }
            // Without a manifest there, nothing tells cheaply.
            (None, _) => false,
        };
        if is_same {
            return Ok(());
        }
        Err(Ambiguous { name: printable(&self.name), here: path.to_path_buf(), there: self.url() }.into())
    }

    /// Gets it into `dir`, which may have what an earlier attempt got.
    pub(super) async fn fetch(&self, dir: &Path, course: &Course, tell: &Tell) -> Result<PathBuf, Failure> {
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
                    tell("downloading the snapshot", 1, 1);
                    break;
                }
                () = course.broken_off() => return Err(TrialError::BrokenOff.into()),
                () = tokio::time::sleep(NEWS) => {
                    tell("downloading the snapshot", done.load(Ordering::Relaxed), self.remote.size.max(1));
                }
            }
        }
        tracing::info!(took_ms = begun.elapsed().as_millis(), "the snapshot is here, as it was uploaded");
        Ok(to.clone())
    }
}

impl Run<'_> {
    /// For a dry run: into a directory that is gone afterwards.
    pub(super) async fn fetch_for_outline(&self, there: &There) -> Result<(PathBuf, durable::DraftDir), Failure> {
        let dir = durable::draft_dir(&std::env::temp_dir().join("quorate-dry-run"))?;
        let path = there.fetch(dir.path(), self.course, self.tell).await?;
        Ok((path, dir))
    }
}
