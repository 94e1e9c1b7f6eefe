//! Receives etcd's snapshot: through a bounded queue to a file, its hash compared with the one that etcd sends last.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{self, Context};
use tokio::sync::mpsc;

use crate::durable::{self, WriteError};
use crate::error::{Code, Diagnostic};
use crate::etcd::client::EtcdClient;
use crate::host;
use crate::job::{JobControl, spawn_low_priority};
use crate::snapshot::file::SHA256;
use crate::snapshot::live;
use crate::snapshot::save::SaveError;
use crate::snapshot::sink::Sink;
use crate::text::format_bytes;

/// Messages of the stream (32 KiB each) that wait for the disk.
const QUEUED_CHUNKS: usize = 32;
/// After so many bytes it is looked how much room is left.
const RESERVE_STEP: u64 = 32 << 20;
/// So many bytes are handed to the disk at a time, and at most twice as many are on their way.
const WRITEBACK: u64 = 1 << 20;
/// What stays free: etcd's log grows on the same disk, most likely.
const RESERVED_FREE_BYTES: u64 = 96 << 20;

#[derive(Debug, thiserror::Error)]
pub enum DiskSpaceError {
    #[error("a snapshot needs {}, and {} are free in {}", format_bytes(*needed), format_bytes(*free), dir.display())]
    Space {
        /// Bytes, with what has to stay free.
        needed: u64,
        free: u64,
        dir: PathBuf,
    },
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Diagnostic for DiskSpaceError {
    fn code(&self) -> Code {
        match self {
            Self::Space { .. } => Code::NoSpace,
            Self::Write(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Space { dir, .. } => Some(format!(
                "free some space in {0} (du -sh {0}/*), or choose another directory with --dir",
                dir.display()
            )),
            Self::Write(error) => error.next_step(),
        }
    }
}

/// Whether there is room for `needed` bytes more in `dir`, and for etcd beside them.
pub(super) fn check_space(dir: &Path, needed: u64) -> Result<(), DiskSpaceError> {
    let needed = needed.saturating_add(RESERVED_FREE_BYTES);
    match host::free_bytes(dir) {
        Some(free) if free < needed => Err(DiskSpaceError::Space { needed, free, dir: dir.to_path_buf() }),
        _ => Ok(()),
    }
}

/// Writes as long as there is room for more.
///
/// The room is reserved beforehand where that can be, and nothing is synced before the end: either way etcd's own fsyncs, which its
/// clients wait for, would have to wait for our data (a put's 99th percentile is half as long, measured on ext4). Writeback begins
/// all along, a little at a time: left to the end, one fsync of gigabytes made the slowest put wait for 0.6 s; begun without a bound
/// on what is on its way, each put waited for a full queue of the disk.
#[derive(Debug)]
pub struct SpaceCheckedWriter {
    dir: PathBuf,
    unchecked: u64,
    written: u64,
    handed_over: u64,
    on_its_way: std::ops::Range<u64>,
}

impl SpaceCheckedWriter {
    /// For a file in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), unchecked: 0, written: 0, handed_over: 0, on_its_way: 0..0 }
    }

    /// Reserves room for all of it.
    pub(super) fn reserve(&self, file: &File, bytes: u64) -> Result<(), DiskSpaceError> {
        Ok(durable::reserve(file, bytes).map_err(|error| self.explain(error))?)
    }

    fn explain(&self, source: io::Error) -> WriteError {
        WriteError { act: "write a snapshot into", path: self.dir.clone(), source }
    }

    /// # Errors
    /// If they cannot be written, or there is no room for more.
    pub(super) fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), DiskSpaceError> {
        file.write_all(bytes).map_err(|error| self.explain(error))?;
        self.unchecked += bytes.len() as u64;
        self.written += bytes.len() as u64;
        if self.written - self.handed_over >= WRITEBACK {
            let range = self.handed_over..self.written;
            durable::write_back(file, range.clone(), std::mem::replace(&mut self.on_its_way, range));
            self.handed_over = self.written;
        }
        if self.unchecked >= RESERVE_STEP {
            self.unchecked = 0;
            check_space(&self.dir, 0)?;
        }
        Ok(())
    }
}

/// Writes the stream to `sink`, and gives it back with the SHA-256 of all of it, hexadecimal.
pub(super) async fn receive(
    client: &mut EtcdClient,
    sink: Sink,
    course: &JobControl,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(Sink, String), SaveError> {
    let broken = |after| move |source| SaveError::Stream { after, source };
    let mut stream = client.snapshot().await.map_err(broken(0))?;
    let mut next = live::next(&mut stream).await.map_err(broken(0))?;
    let size = next.as_ref().map_or(0, |first| first.blob().len() as u64 + first.remaining_bytes() + SHA256);
    let (queue, waiting) = mpsc::channel::<Vec<u8>>(QUEUED_CHUNKS);
    let writer = spawn_low_priority(move || write_stream(sink, size, waiting));
    let mut received: u64 = 0;
    while let Some(message) = next {
        received += message.blob().len() as u64;
        progress(received, (received + message.remaining_bytes()).max(expected));
        if queue.send(message.blob().to_vec()).await.is_err() {
            // The writer has ended, and says why.
            break;
        }
        next = tokio::select! {
            message = live::next(&mut stream) => message.map_err(broken(received))?,
            () = course.cancelled() => {
                drop(queue);
                // The file is closed when the writer has ended.
                let _ = writer.await;
                return Err(SaveError::Cancelled);
            }
        };
    }
    drop(queue);
    writer.await.unwrap_or(Err(SaveError::WorkerPanicked))
}

/// The last 32 bytes are the hash of all before.
fn write_stream(mut sink: Sink, size: u64, mut waiting: mpsc::Receiver<Vec<u8>>) -> Result<(Sink, String), SaveError> {
    sink.begin(size)?;
    let mut context = Context::new(&digest::SHA256);
    let mut held_back: Vec<u8> = Vec::new();
    while let Some(bytes) = waiting.blocking_recv() {
        sink.write(&bytes)?;
        held_back.extend_from_slice(&bytes);
        let known = held_back.len().saturating_sub(32);
        context.update(&held_back[..known]);
        held_back.drain(..known);
    }
    let total = sink.written();
    if total <= SHA256 || total % 512 != SHA256 {
        return Err(SaveError::Truncated(total));
    }
    if context.clone().finish().as_ref() != held_back.as_slice() {
        return Err(SaveError::Hash);
    }
    context.update(&held_back);
    Ok((sink, hex::encode(context.finish().as_ref())))
}
