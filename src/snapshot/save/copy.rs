//! Copies the database of a running etcd from where it lies, as long as etcd holds it still: at the speed of the disk, and without
//! what lies in pages that nothing leads to any more, so that deleted secrets do not live on in snapshots.
//!
//! First the pages that are reached are found, then they are copied, with zeros in the place of the others (bbolt never reads a free page
//! before it has written it), and the SHA-256 is put behind. Whether they are a database is seen by what `inspect` finds.

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

/// Bytes that are copied at a time: whole pages of any size.
const CHUNK: usize = 1 << 18;
/// So many of them may wait for the hash, which takes longest.
const QUEUED_CHUNKS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The live file cannot be held or read.
    #[error(transparent)]
    Live(#[from] PinnedDatabaseError),
    /// What is there is not whole.
    #[error("the pages that etcd holds are not a whole database")]
    Damaged(#[from] ReadError),
    /// It could not be written, or there is no room.
    #[error(transparent)]
    Write(#[from] DiskSpaceError),
    /// The one that held the pages still is gone.
    #[error("etcd was started anew while its database was copied")]
    EtcdRestarted,
    #[error("a thread of the copy was lost")]
    WorkerPanicked,
    #[error("the copy was broken off")]
    Cancelled,
}

impl Diagnostic for CopyError {
    fn code(&self) -> Code {
        match self {
            Self::Live(error) => error.code(),
            Self::Damaged(_) => Code::DatabaseDamaged,
            Self::Write(error) => error.code(),
            Self::EtcdRestarted => Code::DatabaseChanged,
            Self::WorkerPanicked => Code::InternalError,
            Self::Cancelled => Code::Cancelled,
        }
    }
}

/// Writes what `live` holds, and its SHA-256, to `sink`, and inspects it while the hash is still computed: what was written, where it
/// can be read again, and otherwise what it was written from. Also gives the SHA-256 of all of it, hexadecimal.
///
/// # Errors
/// If it is not whole, cannot be read or written, or was replaced meanwhile.
pub fn copy(live: &PinnedDatabase, sink: &mut Sink, course: &JobControl) -> Result<(Inspection, String), CopyError> {
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
        write_pages(live, sink, &reached, course, &chunks)?;
        drop(chunks);
        let inspection = if let Some(file) = sink.file() {
            // Until here it was the file that etcd holds still.
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
    course: &JobControl,
    chunks: &SyncSender<Vec<u8>>,
) -> Result<(), CopyError> {
    let page_size = live.page_size();
    let mut at = 0;
    while at < live.size() {
        if course.is_cancelled() {
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
        course.set_done(at);
        chunks.send(chunk).map_err(|_| CopyError::WorkerPanicked)?;
    }
    Ok(())
}
