//! Copies the database of a running etcd directly from its file, while a read transaction pins it: at disk speed, and
//! without unreferenced pages, so that deleted secrets do not survive in snapshots.
//!
//! First the referenced pages are determined, then they are copied, with zeros in place of the others (bbolt never
//! reads a free page before it has written it), and the SHA-256 is appended. `inspect` checks the result.

use std::sync::mpsc::{self, SyncSender};

use aws_lc_rs::digest::{self, Context};

use crate::boltdb::database::{Database, Length};
use crate::boltdb::page::ReadError;
use crate::boltdb::pages::Pages;
use crate::boltdb::read_at::ReadAt as _;
use crate::boltdb::walk::CONTINUE;
use crate::error::{Code, Diagnostic};
use crate::faults;
use crate::job::JobControl;
use crate::snapshot::file::SHA256;
use crate::snapshot::inspect::{self, Inspection};
use crate::snapshot::live::{PinnedDatabase, PinnedDatabaseError};
use crate::snapshot::save::sink::Sink;
use crate::snapshot::save::space::DiskSpaceError;

/// Bytes copied at a time, a multiple of every page size.
const CHUNK: usize = 1 << 18;
/// Chunks that may wait for the hash, which is the slowest step.
const QUEUED_CHUNKS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The live file cannot be pinned or read.
    #[error(transparent)]
    Database(#[from] PinnedDatabaseError),
    #[error("the pinned pages of etcd are not a complete database")]
    Damaged(#[from] ReadError),
    /// Writing failed, or there is no space.
    #[error(transparent)]
    Write(#[from] DiskSpaceError),
    /// The etcd that pinned the pages is gone.
    #[error("etcd was restarted while its database was copied")]
    EtcdRestarted,
    #[error("internal error: a worker thread of the copy panicked")]
    WorkerPanicked,
    #[error("the copy was cancelled")]
    Cancelled,
}

impl Diagnostic for CopyError {
    fn code(&self) -> Code {
        match self {
            Self::Database(error) => error.code(),
            Self::Damaged(_) => Code::DatabaseDamaged,
            Self::Write(error) => error.code(),
            Self::EtcdRestarted => Code::DatabaseChanged,
            Self::WorkerPanicked => Code::InternalError,
            Self::Cancelled => Code::Cancelled,
        }
    }
}

/// Writes the pinned database and its SHA-256 to `sink`, and inspects it while the hash is being computed: the written
/// file if it can be read back, otherwise its source. Also returns the SHA-256 of the whole file in hexadecimal.
///
/// # Errors
/// If it is incomplete, cannot be read or written, or was replaced meanwhile.
pub fn copy(live: &PinnedDatabase, sink: &mut Sink, job: &JobControl) -> Result<(Inspection, String), CopyError> {
    faults::point("snapshot::copy").map_err(|source| ReadError::Io { offset: 0, source })?;
    let reached = Database::open(live, live.size(), Length::Exact)?.reachable_pages()?;
    sink.begin(live.size() + SHA256)?;
    let (inspection, mut context) = std::thread::scope(|scope| {
        let (chunks, waiting) = mpsc::sync_channel::<Vec<u8>>(QUEUED_CHUNKS);
        let hasher = scope.spawn(move || {
            let mut context = Context::new(&digest::SHA256);
            for chunk in waiting {
                context.update(&chunk);
            }
            context
        });
        write_pages(live, sink, &reached, job, &chunks)?;
        drop(chunks);
        let inspection = if let Some(file) = sink.file() {
            // Until here it was the file that etcd pins.
            live.check()?;
            inspect::inspect(file, live.size(), Length::Exact, &mut |_, _| CONTINUE)?
        } else {
            let inspection = inspect::inspect(live, live.size(), Length::Exact, &mut |_, _| CONTINUE)?;
            live.check()?;
            inspection
        };
        Ok::<_, CopyError>((inspection, hasher.join().map_err(|_| CopyError::WorkerPanicked)?))
    })?;
    let trailer = context.clone().finish();
    sink.write(trailer.as_ref())?;
    context.update(trailer.as_ref());
    Ok((inspection, hex::encode(context.finish().as_ref())))
}

fn write_pages(
    live: &PinnedDatabase,
    sink: &mut Sink,
    reached: &Pages,
    job: &JobControl,
    chunks: &SyncSender<Vec<u8>>,
) -> Result<(), CopyError> {
    let page_size = live.page_size();
    let mut at = 0;
    while at < live.size() {
        if job.is_cancelled() {
            return Err(CopyError::Cancelled);
        }
        let wanted = usize::try_from(live.size() - at).unwrap_or(usize::MAX).min(CHUNK);
        let mut chunk = vec![0; wanted];
        let read = live.read_exact_at(&mut chunk, at);
        read.map_err(|source| ReadError::Io { offset: at, source })?;
        let pages = chunk.chunks_mut(usize::try_from(page_size).unwrap_or(CHUNK));
        for (id, page) in (at / page_size..).zip(pages) {
            if !reached.is_marked(id) {
                page.fill(0);
            }
        }
        sink.write(&chunk)?;
        at += wanted as u64;
        job.set_done(at);
        chunks.send(chunk).map_err(|_| CopyError::WorkerPanicked)?;
    }
    Ok(())
}
