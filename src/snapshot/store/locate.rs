//! Resolves the name of a snapshot: a path, a location as printed by `ls` (`file://…`, `s3://…`), a file name,
//! `latest`, or a base name.
//!
//! An exact match wins. Otherwise `select` looks for the newest good one, and a name also matches without its
//! extension. If nothing is found, the error lists every searched location and the name that was probably meant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;

use crate::config::s3::{S3Config, Target};
use crate::datadir::DataDir;
use crate::error::{AppError, Exit};
use crate::plan::owner::Owner;
use crate::snapshot::file::OpenError;
use crate::snapshot::store::locate_error::{LIST, LocateError, SEARCH_TIMEOUT};
pub use crate::snapshot::store::located::{Located, Notice};
pub use crate::snapshot::store::remote::RemoteSnapshot;
use crate::snapshot::store::s3::error::S3ErrorKind;
use crate::snapshot::store::s3::store::Remote;
use crate::snapshot::store::s3::{Bucket, listing};
pub use crate::snapshot::store::select::similar_name;
use crate::snapshot::store::select::{self, KnownSnapshots};
use crate::text::escape_control;

/// Where to search for a snapshot.
pub struct SnapshotLocator {
    /// Directories on this node; the first match is used.
    pub dirs: Vec<PathBuf>,
    pub s3: S3Config,
    /// Credentials for the store, unless keys are configured.
    pub provider: Option<SharedCredentialsProvider>,
    /// The owner of the snapshots that `latest` and base names refer to.
    pub owner: Owner,
    /// The data directory, for the cache of the bucket.
    pub data: DataDir,
    pub notify: fn(Notice<'_>),
}

impl SnapshotLocator {
    /// Anything with a slash is a path, unless it begins with `s3://`; a bare name is a snapshot on this node or in
    /// object storage. # Errors If there is none, or two, or the store does not answer.
    pub async fn locate(&self, named: &str) -> Result<Located, AppError> {
        if let Some((bucket, name)) = self.at(named).await? {
            return self.locate_in(bucket, name).await;
        }
        if named.contains('/') {
            let path = std::path::absolute(path_of(named)).unwrap_or_else(|_| PathBuf::from(path_of(named)));
            return search_directory(&path)?
                .map_or_else(|| Err(missing_path(&path).into()), |path| Ok(Located::Local(path)));
        }
        if self.s3.is_asked {
            let bucket = self.connect(None).await?;
            return self.locate_in(bucket, named).await;
        }
        self.locate_bare(named).await
    }

    async fn locate_in(&self, bucket: Bucket, name: &str) -> Result<Located, AppError> {
        match RemoteSnapshot::head(bucket.clone(), name).await {
            Err(error) if error.kind == S3ErrorKind::NoObject => {}
            looked => return Ok(Located::Remote(Box::new(looked?))),
        }
        let known = [self.in_bucket(bucket).await?];
        select::newest(&self.owner, self.notify, &known, name).await
    }

    /// On this node and in object storage.
    async fn locate_bare(&self, named: &str) -> Result<Located, AppError> {
        let mut here = None;
        for dir in &self.dirs {
            here = here.or(search_directory(&dir.join(named))?);
        }
        let there = if self.s3.is_on { self.search_bucket(named, here.is_some()).await } else { Ok(None) };
        match (here, there) {
            (Some(path), Ok(Some(there))) => {
                there.is_the_same(&path).await?;
                Ok(Located::Local(path))
            }
            (None, Ok(Some(there))) => Ok(Located::Remote(Box::new(there))),
            (Some(path), Ok(None)) => Ok(Located::Local(path)),
            (Some(path), Err(failure)) => {
                (self.notify)(Notice::Unseen(&failure));
                Ok(Located::Local(path))
            }
            (None, there) => self.choose(named, there.err()).await,
        }
    }

    async fn choose(&self, named: &str, mut unseen: Option<AppError>) -> Result<Located, AppError> {
        let mut known = Vec::new();
        for dir in &self.dirs {
            known.push(KnownSnapshots::in_directory(dir).await?);
        }
        if self.s3.is_on && unseen.is_none() {
            let has_some = known.iter().any(|known| !known.all.is_empty());
            let listing = async { self.in_bucket(self.connect(None).await?).await };
            match tokio::time::timeout(if has_some { SEARCH_TIMEOUT } else { Duration::MAX }, listing).await {
                Ok(Ok(there)) => known.push(there),
                Ok(Err(failure)) => unseen = Some(failure),
                Err(_) => unseen = Some(LocateError::Timeout.into()),
            }
        }
        match (select::newest(&self.owner, self.notify, &known, named).await, unseen) {
            (Ok(found), Some(failure)) => {
                (self.notify)(Notice::Unseen(&failure));
                Ok(found)
            }
            // The error of the store is more important than that the snapshot is not on this node.
            (Err(missing), Some(failure)) if missing.exit() == Exit::NotFound => Err(failure),
            (found, _) => found,
        }
    }

    async fn search_bucket(&self, name: &str, is_here: bool) -> Result<Option<RemoteSnapshot>, AppError> {
        let looking = async {
            match RemoteSnapshot::head(self.connect(None).await?, name).await {
                Err(error) if error.kind == S3ErrorKind::NoObject => Ok(None),
                looked => Ok::<_, AppError>(Some(looked?)),
            }
        };
        match tokio::time::timeout(if is_here { SEARCH_TIMEOUT } else { Duration::MAX }, looking).await {
            Ok(looked) => looked,
            Err(_) => Err(LocateError::Timeout.into()),
        }
    }

    async fn in_bucket(&self, bucket: Bucket) -> Result<KnownSnapshots, AppError> {
        let remote = Remote::new(bucket, &self.data);
        let all = listing::list(&remote.bucket, remote.cache.as_deref()).await?;
        Ok(KnownSnapshots::in_bucket(remote.bucket, all))
    }

    /// The bucket and folder of an `s3://` URL, and the name in it; `None` for other names.
    ///
    /// # Errors
    /// If object storage is not configured, or the URL is not that of a snapshot.
    pub async fn at<'n>(&self, named: &'n str) -> Result<Option<(Bucket, &'n str)>, AppError> {
        let Some(rest) = named.strip_prefix("s3://") else { return Ok(None) };
        let no_key = || LocateError::NoKey(escape_control(named));
        let (bucket, key) = rest.split_once('/').ok_or_else(no_key)?;
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        if bucket.is_empty() || name.is_empty() {
            return Err(no_key().into());
        }
        Ok(Some((self.connect(Some((bucket, folder))).await?, name)))
    }

    /// As configured, or with another bucket and folder.
    async fn connect(&self, instead: Option<(&str, &str)>) -> Result<Bucket, AppError> {
        let target = match instead {
            None => self.s3.target()?,
            Some((bucket, folder)) => {
                let more = [("etcd-s3-bucket".to_owned(), bucket.to_owned())].into();
                Target { folder: folder.to_owned(), ..self.s3.with(&more)?.target()? }
            }
        };
        Ok(Bucket::connect(target, self.provider.clone()).await?)
    }
}

/// A plain path, or a `file://` URL.
#[must_use]
pub fn path_of(named: &str) -> &str {
    named.strip_prefix("file://").unwrap_or(named)
}

fn search_directory(path: &Path) -> Result<Option<PathBuf>, OpenError> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(Some(path.to_path_buf())),
        // A name that is too long does not exist.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidFilename) => {
            Ok(None)
        }
        Err(source) => Err(OpenError::Read { path: path.to_path_buf(), source }),
    }
}

/// For a path that does not exist: a similar name in the same directory.
fn missing_path(path: &Path) -> LocateError {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let word = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let siblings: Vec<String> = match crate::snapshot::dir::snapshots(dir) {
        Ok(paths) => paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect(),
        Err(_) => Vec::new(),
    };
    let hint = select::similar_name(&word, siblings.iter().map(String::as_str))
        .map(|name| format!("did you mean {}?", escape_control(&dir.join(name).display().to_string())));
    let places = vec![escape_control(&dir.display().to_string())];
    LocateError::NotFound { name: escape_control(&word), places, hint, list: LIST }
}
