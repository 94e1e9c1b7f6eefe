//! Which snapshot is meant, and how it comes here: a path, a name of one on this node, or one in object storage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_lc_rs::digest::{self, Context};

use super::s3::download::{self, Remote};
use super::s3::error::{Kind, S3Error};
use super::s3::{Bucket, listing, upload};
use crate::clock;
use crate::config::s3::{S3Config, Target};
use crate::durable::{self, PRIVATE_DIR};
use crate::error::{Exit, Explained, Failure};
use crate::etcd::embedded::hex;
use crate::host::{self, printable};
use crate::snapshot::aside::Course;
use crate::snapshot::file::OpenError;
use crate::snapshot::hash;
use crate::snapshot::list::{self, Status};

/// How often it is told how far a download is.
const NEWS: Duration = Duration::from_millis(200);
/// A snapshot that is here is not kept waiting longer for what the store has to say.
const SHORT: Duration = Duration::from_secs(20);

/// Where a snapshot may be that is named.
pub struct Places {
    /// On this node; the first that has the name counts.
    pub dirs: Vec<PathBuf>,
    /// In object storage.
    pub s3: S3Config,
    /// Who we are there, unless keys are given.
    pub lender: Option<SharedCredentialsProvider>,
    /// Told why object storage could not be looked into, if that does not matter.
    pub unseen: fn(&Failure),
}

/// A snapshot that was found.
#[derive(Debug)]
pub enum Found {
    /// On this node.
    Here(PathBuf),
    /// In object storage.
    There(Box<There>),
}

/// One in object storage.
#[derive(Debug)]
pub struct There {
    bucket: Bucket,
    remote: Remote,
    name: String,
}

/// Why a snapshot cannot be had.
#[derive(Debug, thiserror::Error)]
enum FindError {
    /// Two have the name.
    #[error("two different snapshots are called {name}: {} and {there}", here.display())]
    Ambiguous { name: String, here: PathBuf, there: String },
    /// The store takes its time, and it does not matter that much.
    #[error("object storage did not answer within {} s", SHORT.as_secs())]
    Late,
    /// Somebody does not want it any more.
    #[error("it was told to stop")]
    BrokenOff,
    /// A thread was lost.
    #[error("a thread was lost")]
    Lost,
}

impl Explained for FindError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Ambiguous { .. }) { Exit::Usage } else { Exit::Failed }
    }

    fn next(&self) -> Option<String> {
        let next = if matches!(self, Self::Ambiguous { .. }) {
            "say which: by its path, or by its s3:// URL"
        } else {
            "start it again"
        };
        Some(next.into())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FindError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FindError::Lost)
}

impl Places {
    /// Anything with a slash is a path, unless it begins with `s3://`; a bare name is one of the snapshots, on this node or in object
    /// storage.
    ///
    /// # Errors
    /// If there is none, or two, or nobody says.
    pub async fn find(&self, named: &str) -> Result<Found, Failure> {
        if let Some((bucket, name)) = self.at(named).await? {
            return Ok(Found::There(Box::new(There::look(bucket, name).await?)));
        }
        if named.contains('/') {
            let path = std::path::absolute(named).unwrap_or_else(|_| PathBuf::from(named));
            return here(path).map(Found::Here);
        }
        if self.s3.is_asked {
            let bucket = self.connect(None).await?;
            return Ok(Found::There(Box::new(There::look(bucket, named).await?)));
        }
        let mut paths = self.dirs.iter().map(|dir| dir.join(named));
        let first = paths.next().unwrap_or_else(|| PathBuf::from(named));
        let path = if first.exists() { first } else { paths.find(|path| path.exists()).unwrap_or(first) };
        let path = here(path);
        if !self.s3.is_on {
            return path.map(Found::Here);
        }
        let there = async { There::look(self.connect(None).await?, named).await };
        let there = match tokio::time::timeout(if path.is_ok() { SHORT } else { Duration::MAX }, there).await {
            Ok(looked) => looked,
            Err(_) => Err(FindError::Late.into()),
        };
        match (path, there) {
            (Ok(path), Ok(there)) => {
                there.is_the_same(&path).await?;
                Ok(Found::Here(path))
            }
            (Err(_), Ok(there)) => Ok(Found::There(Box::new(there))),
            (Ok(path), Err(failure)) => {
                if failure.exit() != Exit::NotFound {
                    (self.unseen)(&failure);
                }
                Ok(Found::Here(path))
            }
            // What keeps us from the one place where it may be is worth more than that it is not in the other.
            (Err(missing), Err(failure)) => Err(if failure.exit() == Exit::NotFound { missing } else { failure }),
        }
    }

    /// The bucket and the folder of an `s3://` URL, and the name in it; nothing for anything else.
    ///
    /// # Errors
    /// If object storage is not configured as it would have to be.
    pub async fn at<'n>(&self, named: &'n str) -> Result<Option<(Bucket, &'n str)>, Failure> {
        let Some((bucket, key)) = named.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) else {
            return Ok(None);
        };
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        Ok(Some((self.connect(Some((bucket, folder))).await?, name)))
    }

    /// As configured, or with another bucket and folder.
    async fn connect(&self, instead: Option<(&str, &str)>) -> Result<Bucket, Failure> {
        let target = match instead {
            None => self.s3.target()?,
            Some((bucket, folder)) => {
                let more = [("etcd-s3-bucket".to_owned(), bucket.to_owned())].into();
                Target { folder: folder.to_owned(), ..self.s3.with(&more)?.target()? }
            }
        };
        Ok(Bucket::connect(target, self.lender.clone()).await?)
    }
}

fn here(path: PathBuf) -> Result<PathBuf, Failure> {
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::NotFound(path).into()),
        Err(source) => Err(OpenError::Read { path, source }.into()),
    }
}

impl There {
    async fn look(bucket: Bucket, name: &str) -> Result<Self, Failure> {
        let mut remote = download::look(&bucket, &bucket.key(name)).await?;
        // What was written on the object itself goes with it wherever it is copied.
        remote.sha256 = remote.metadata.get(upload::SHA256).filter(|sha256| !sha256.is_empty()).cloned();
        if let Some(described) = listing::described(&bucket, name).await? {
            let is_same = described.object.etag == remote.etag && !described.object.crc64nvme.is_empty();
            if is_same {
                remote.crc64nvme = Some(described.object.crc64nvme);
            }
            // Also of an object that changed since: it must still be that snapshot.
            remote.sha256 = Some(described.manifest.sha256).filter(|sha256| !sha256.is_empty()).or(remote.sha256);
            remote.is_as_described = is_same;
        }
        Ok(Self { bucket, remote, name: name.to_owned() })
    }

    /// For people.
    #[must_use]
    pub fn url(&self) -> String {
        self.bucket.url(&self.remote.key)
    }

    /// Two places may have the same snapshot.
    async fn is_the_same(&self, path: &Path) -> Result<(), Failure> {
        let known = path.parent().zip(path.file_name()).and_then(|(dir, name)| list::one(dir, name));
        let size = known.as_ref().map_or(0, |known| known.size);
        // What is written down of a file counts for that file only while it is what it was.
        let known = known.filter(|known| known.status == Status::Good);
        let ours =
            known.and_then(|known| known.manifest).map(|manifest| manifest.sha256).filter(|sha256| !sha256.is_empty());
        if size == self.remote.size {
            let (theirs, ours) = match &self.remote.sha256 {
                Some(theirs) => (theirs.clone(), ours),
                // Nothing tells but the snapshots themselves.
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
        Err(FindError::Ambiguous { name: printable(&self.name), here: path.to_path_buf(), there: self.url() }.into())
    }

    /// SHA-256 of all of it.
    async fn streamed(&self) -> Result<String, Failure> {
        let mut stream = download::stream(&self.bucket, &self.remote).await?;
        let mut hash = Context::new(&digest::SHA256);
        while let Some(chunk) = stream.next().await? {
            hash.update(&chunk);
        }
        Ok(hex(hash.finish().as_ref()))
    }

    /// Makes sure that what came is the snapshot that its manifest speaks of, where its checksum did not tell.
    async fn check(&self, path: &Path) -> Result<(), Failure> {
        let Some(expected) = self.remote.sha256.clone().filter(|_| !self.remote.is_as_described) else { return Ok(()) };
        let to = path.to_path_buf();
        let found = blocking(move || sha256_of(&to)).await?;
        let found = found.map_err(|source| OpenError::Read { path: path.to_path_buf(), source })?;
        if found == expected {
            return Ok(());
        }
        let why = format!("its SHA-256 is {found}, and that of the snapshot was {expected}: it was replaced since");
        Err(S3Error::new("trust what came from", self.url(), Kind::Differs, why).into())
    }

    /// Gets it into `dir`, which may have what an earlier attempt got. `progress` is told how many bytes came, of how many.
    ///
    /// # Errors
    /// If it does not come whole, and as it was uploaded.
    pub async fn fetch(
        &self,
        dir: &Path,
        course: &Course,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<PathBuf, Failure> {
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
                () = course.broken_off() => return Err(FindError::BrokenOff.into()),
                () = tokio::time::sleep(NEWS) => {
                    progress(done.load(Ordering::Relaxed), self.remote.size.max(1));
                }
            }
        }
        if let Err(failure) = self.check(&to).await {
            let _ = durable::remove_file(&to);
            return Err(failure);
        }
        tracing::info!(took_ms = begun.elapsed().as_millis(), "the snapshot is here, as it was uploaded");
        Ok(to.clone())
    }
}

fn sha256_of(path: &Path) -> std::io::Result<String> {
    let file = host::open_regular(path)?;
    let mut context = Context::new(&digest::SHA256);
    hash::feed(&mut context, &file, file.metadata()?.len(), |_| true)?;
    Ok(hex(context.finish().as_ref()))
}
