//! The database of a running etcd as it is at one moment, read where it lies.
//!
//! As long as etcd's own snapshot is begun and not read to its end, etcd keeps a read transaction open, and no page that it reaches is
//! used again (bbolt never writes into a page that a transaction may read). So the two heads that the snapshot begins with, and the
//! pages of the file that they lead to, are the database of that moment, and none of it has to be sent through etcd. A small
//! database is in the stream's buffers at once, which ends the transaction: it is received instead.

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

/// etcd sends nothing for this long: it hangs.
const IDLE: Duration = Duration::from_secs(30);
/// Up to this size, in bytes, a database is received: what waits in the buffers between etcd and us (2 MiB in the HTTP/2 stream's
/// window, some KiB in etcd) does not keep its transaction open.
pub const SMALL: u64 = 16 << 20;
/// Two heads of the largest pages there are, in bytes.
const META_PAGES_BYTES: usize = 2 * 65536;

/// Why the live database cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum PinnedDatabaseError {
    /// etcd does not begin its snapshot, or breaks off.
    #[error("etcd cannot be asked for its database")]
    Stream(#[from] ClientError),
    /// It did not begin like one.
    #[error("etcd's database does not begin like one")]
    MetaPage(#[source] Corruption),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is no regular file, or reached through a link that is not followed.
    #[error(transparent)]
    Held(#[from] DirError),
    /// Somebody put another file in its place, as a defragmentation does.
    #[error("{} was replaced while it was read, as a defragmentation does", .0.display())]
    Replaced(PathBuf),
    /// There is no place for a small one.
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
            Self::Read { .. } => "see dmesg for what the disk says".into(),
            Self::Replaced(_) => "try again".into(),
            Self::Held(error) => return error.next_step(),
            Self::Write(error) => return error.next_step(),
        })
    }
}

pub struct PinnedDatabase {
    path: PathBuf,
    file: File,
    /// What was sent of it, at least the first two pages; empty if the file itself is of that moment.
    begun: Vec<u8>,
    size: u64,
    page_size: u64,
    /// What keeps etcd from using the pages again, and where its file is.
    held: Option<(SnapshotStreaming, DataDir)>,
}

impl std::fmt::Debug for PinnedDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("path", &self.path).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Opens the file of the data in use.
fn open(data: &DataDir) -> Result<File, PinnedDatabaseError> {
    let missing = || PinnedDatabaseError::Read { path: data.etcd_bolt(), source: io::ErrorKind::NotFound.into() };
    data.bolt()?.ok_or_else(missing)
}

/// The next message, within a time.
pub(super) async fn next(stream: &mut SnapshotStreaming) -> Result<Option<etcd_client::SnapshotResponse>, ClientError> {
    match tokio::time::timeout(IDLE, stream.message()).await {
        Ok(message) => Ok(message?),
        Err(_) => Err(ClientError::Timeout),
    }
}

impl PinnedDatabase {
    /// Holds the database of the etcd that `client` talks to, which runs on `data`.
    ///
    /// # Errors
    /// If etcd does not begin a snapshot, or its file cannot be read.
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

    /// The database of an etcd that does not run, as the newest good one of its two heads has it: the other one may have been torn when
    /// etcd was killed.
    pub fn open_offline(data: &DataDir) -> Result<Self, PinnedDatabaseError> {
        Self::of(open(data)?, &data.etcd_bolt())
    }

    /// As [`Self::at_rest`], of the open file whose path is `path`.
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
            let what = format!("the database has {length} bytes, and its head says {size}");
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

    /// True if etcd keeps the pages, so that they are read where etcd has them.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.held.is_some()
    }

    /// What etcd sends of the same moment, with its SHA-256, for who wants to compare. Lets the database go.
    pub async fn received(self) -> Result<Vec<u8>, PinnedDatabaseError> {
        let mut all = self.begun;
        let Some((mut stream, _)) = self.held else { return Ok(all) };
        while let Some(message) = next(&mut stream).await? {
            all.extend_from_slice(message.blob());
        }
        Ok(all)
    }

    /// Makes sure that the file is still etcd's: what was read until now is the database then.
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
        // The file's own heads may be of a later moment.
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
