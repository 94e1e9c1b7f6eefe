//! The pinned database of a running etcd: its state at one moment, read directly from its file.
//!
//! While a snapshot stream of etcd is open and not read to its end, etcd keeps a read transaction open, and no page of
//! it is reused (bbolt never writes into a page that a transaction may read). So the two meta pages at the beginning of
//! the stream, and the pages of the file that they reference, are the database of that moment, without being sent by
//! etcd. A small database fits into the stream's buffers, which ends the transaction: it is received instead.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::SnapshotStreaming;

use crate::boltdb::database::Database;
use crate::boltdb::page::{Corruption, Meta, ReadError};
use crate::boltdb::read_at::ReadAt;
use crate::datadir::DataDir;
use crate::durable::{self, DirError, WriteError};
use crate::error::{Code, Diagnostic};
use crate::etcd::client::{ClientError, EtcdClient};

/// The inactivity timeout of the stream.
const IDLE: Duration = Duration::from_secs(30);
/// The maximum size in bytes of a database that is received: buffers between etcd and us (2 MiB in the HTTP/2 stream
/// window, some KiB in etcd) could end its transaction.
pub const SMALL: u64 = 16 << 20;
/// Two meta pages of the largest page size, in bytes.
const META_PAGES_BYTES: usize = 2 * 65536;

/// Why the live database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PinnedDatabaseError {
    #[error("cannot request the snapshot stream of etcd")]
    Stream(#[from] ClientError),
    /// The stream does not begin with a meta page.
    #[error("the snapshot stream of etcd does not begin with a valid meta page")]
    MetaPage(#[source] Corruption),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The database is not a regular file, or its path has a link that is not followed.
    #[error(transparent)]
    Held(#[from] DirError),
    /// The file was replaced, as a defragmentation does.
    #[error("{} was replaced while it was read, as a defragmentation does", .0.display())]
    Replaced(PathBuf),
    /// A small database cannot be stored.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Diagnostic for PinnedDatabaseError {
    fn code(&self) -> Code {
        match self {
            Self::Stream(_) => Code::EtcdRequestFailed,
            Self::MetaPage(_) => Code::DatabaseDamaged,
            Self::Read { .. } => Code::ReadFailed,
            Self::Held(error) => error.code(),
            Self::Replaced(_) => Code::DatabaseChanged,
            Self::Write(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::Stream(_) | Self::MetaPage(_) => "see quorate status".into(),
            Self::Read { .. } => "check the kernel log (dmesg) for disk errors".into(),
            Self::Replaced(_) => "try again".into(),
            Self::Held(error) => return error.next_step(),
            Self::Write(error) => return error.next_step(),
        })
    }
}

pub struct PinnedDatabase {
    path: PathBuf,
    file: File,
    /// The received bytes, at least the first two pages; empty if the file itself is of that moment.
    begun: Vec<u8>,
    size: u64,
    page_size: u64,
    /// The open stream, which keeps etcd from reusing the pages, and the path of the file.
    held: Option<(SnapshotStreaming, DataDir)>,
}

impl std::fmt::Debug for PinnedDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedDatabase").field("path", &self.path).field("size", &self.size).finish_non_exhaustive()
    }
}

fn open(data: &DataDir) -> Result<File, PinnedDatabaseError> {
    let missing = || PinnedDatabaseError::Read { path: data.etcd_bolt(), source: io::ErrorKind::NotFound.into() };
    data.bolt()?.ok_or_else(missing)
}

/// The next message, with a timeout.
pub(super) async fn next(stream: &mut SnapshotStreaming) -> Result<Option<etcd_client::SnapshotResponse>, ClientError> {
    match tokio::time::timeout(IDLE, stream.message()).await {
        Ok(message) => Ok(message?),
        Err(_) => Err(ClientError::Timeout),
    }
}

impl PinnedDatabase {
    /// Pins the database of the etcd behind `client`, which runs on `data`.
    ///
    /// # Errors
    /// If etcd does not begin a snapshot stream, or its file cannot be read.
    pub async fn pin(client: &mut EtcdClient, data: &DataDir) -> Result<Self, PinnedDatabaseError> {
        let path = &data.etcd_bolt();
        let mut stream = client.snapshot().await?;
        let mut begun: Vec<u8> = Vec::new();
        let mut size = 0;
        while begun.len() < META_PAGES_BYTES {
            let Some(message) = next(&mut stream).await? else { break };
            if size == 0 {
                size = message.blob().len() as u64 + message.remaining_bytes();
            }
            begun.extend_from_slice(message.blob());
        }
        let page_size = u64::from(Meta::read(&begun, 0).map_err(PinnedDatabaseError::MetaPage)?.page_size);
        if size <= SMALL {
            return Self::receive(path, stream, begun, size, page_size).await;
        }
        let unreadable = |source| PinnedDatabaseError::Read { path: path.clone(), source };
        let file = open(data)?;
        if file.metadata().map_err(unreadable)?.len() < size {
            return Err(PinnedDatabaseError::Replaced(path.clone()));
        }
        let held = Some((stream, data.clone()));
        let live = Self { path: path.clone(), file, begun, size, page_size, held };
        live.check()?;
        Ok(live)
    }

    /// The database of a stopped etcd, by its newest valid meta page: the other one may be torn if etcd was killed.
    pub fn open_offline(data: &DataDir) -> Result<Self, PinnedDatabaseError> {
        Self::of(open(data)?, &data.etcd_bolt())
    }

    /// Like [`Self::open_offline`], for the open file at `path`.
    pub fn of(file: File, path: &Path) -> Result<Self, PinnedDatabaseError> {
        let unreadable = |source| PinnedDatabaseError::Read { path: path.to_path_buf(), source };
        let meta = Database::open_newest(&file).map_err(|error| match error {
            ReadError::Damaged(finding) => PinnedDatabaseError::MetaPage(finding),
            ReadError::Io { source, .. } => unreadable(source),
            ReadError::Cancelled => unreadable(std::io::ErrorKind::Interrupted.into()),
        })?;
        let meta = meta.meta();
        let before = Meta { transaction: meta.transaction.saturating_sub(1), ..meta };
        let begun = [meta.page(0), before.page(1)].concat();
        let page_size = u64::from(meta.page_size);
        let size = meta.high_water_mark.saturating_mul(page_size);
        let length = file.metadata().map_err(unreadable)?.len();
        if length < size {
            let what = format!("the database has {length} bytes, but its meta page says {size}");
            return Err(PinnedDatabaseError::MetaPage(Corruption::new(length, what)));
        }
        Ok(Self { path: path.to_path_buf(), file, begun, size, page_size, held: None })
    }

    async fn receive(
        path: &Path,
        mut stream: SnapshotStreaming,
        begun: Vec<u8>,
        size: u64,
        page_size: u64,
    ) -> Result<Self, PinnedDatabaseError> {
        let dir = std::env::temp_dir();
        let mut file = durable::anonymous(&dir)?;
        let failed = |source| WriteError { act: "write into", path: dir.clone(), source };
        file.write_all(&begun).map_err(failed)?;
        while let Some(message) = next(&mut stream).await? {
            file.write_all(message.blob()).map_err(failed)?;
        }
        Ok(Self { path: path.to_path_buf(), file, begun: Vec::new(), size, page_size, held: None })
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// True if the pages are pinned, so that they can be read from etcd's file.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.held.is_some()
    }

    /// The stream of the same moment, with its SHA-256, for comparison. Unpins the database.
    pub async fn received(self) -> Result<Vec<u8>, PinnedDatabaseError> {
        let mut all = self.begun;
        let Some((mut stream, _)) = self.held else { return Ok(all) };
        while let Some(message) = next(&mut stream).await? {
            all.extend_from_slice(message.blob());
        }
        Ok(all)
    }

    /// Checks that the file is still etcd's, so that everything read until now is valid.
    pub fn check(&self) -> Result<(), PinnedDatabaseError> {
        let Some((_, data)) = &self.held else { return Ok(()) };
        let unreadable = |source| PinnedDatabaseError::Read { path: self.path.clone(), source };
        let (ours, there) = (self.file.metadata(), open(data)?.metadata());
        let (ours, there) = (ours.map_err(unreadable)?, there.map_err(unreadable)?);
        if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            Ok(())
        } else {
            Err(PinnedDatabaseError::Replaced(self.path.clone()))
        }
    }
}

impl ReadAt for PinnedDatabase {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(buffer.len() as u64) > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        ReadAt::read_exact_at(&self.file, buffer, offset)?;
        // The meta pages in the file may be of a later moment.
        if let Some(heads) = usize::try_from(offset).ok().and_then(|at| self.begun.get(at..)) {
            let count = heads.len().min(buffer.len());
            buffer[..count].copy_from_slice(&heads[..count]);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}
