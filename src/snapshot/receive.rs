//! Receives etcd's snapshot: through a bounded queue to a file, its hash compared with the one that etcd sends last.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self as std_mpsc, Receiver, SyncSender, TryRecvError};

use aws_lc_rs::digest::{self, Context};
use tokio::sync::mpsc;

use super::aside::{Course, aside};
use super::file::SHA256;
use super::live;
use super::save::SaveError;
use crate::durable::WriteError;
use crate::error::Explained;
use crate::etcd::client::EtcdClient;
use crate::etcd::embedded::hex;
use crate::faults;
use crate::host;
use crate::plan::space::human;

/// Messages of the stream (32 KiB each) that wait for the disk.
const WAITING: usize = 32;
/// After so many bytes the disk is asked to have them, and how much is left.
const STRIDE: u64 = 32 << 20;
/// What stays free: etcd's log grows on the same disk, most likely.
const SPARE: u64 = 96 << 20;

/// Why no more is written.
#[derive(Debug, thiserror::Error)]
pub enum PaceError {
    /// There is no room.
    #[error("a snapshot needs {}, and {} are free in {}", human(*needed), human(*free), dir.display())]
    Space {
        /// Bytes, with what has to stay free.
        needed: u64,
        /// Bytes.
        free: u64,
        /// Where.
        dir: PathBuf,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Explained for PaceError {
    fn next(&self) -> Option<String> {
        match self {
            Self::Space { dir, .. } => Some(format!(
                "free some space in {0} (du -sh {0}/*), or choose another directory with --dir",
                dir.display()
            )),
            Self::Write(error) => error.next(),
        }
    }
}

/// Whether there is room for `needed` bytes more in `dir`, and for etcd beside them.
///
/// # Errors
/// If there is not.
pub(super) fn check_space(dir: &Path, needed: u64) -> Result<(), PaceError> {
    let needed = needed.saturating_add(SPARE);
    match host::free_bytes(dir) {
        Some(free) if free < needed => Err(PaceError::Space { needed, free, dir: dir.to_path_buf() }),
        _ => Ok(()),
    }
}

/// Writes in strides: all the while, the disk is made to take what was written, so that little is left to wait for at the end and
/// etcd's own writes find no long queue; and it is looked whether there is room for more.
#[derive(Debug)]
pub struct Pace {
    dir: PathBuf,
    is_kept: bool,
    unsynced: u64,
    syncer: Option<Syncer>,
}

/// Makes the disk have what was written, on a thread of its own while more is written.
#[derive(Debug)]
struct Syncer {
    orders: SyncSender<()>,
    results: Receiver<io::Result<()>>,
    is_busy: bool,
}

impl Syncer {
    fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let ((orders, wanted), (done, results)) = (std_mpsc::sync_channel(1), std_mpsc::sync_channel(1));
        std::thread::Builder::new().name("snapshot-sync".into()).spawn(move || {
            while let Ok(()) = wanted.recv() {
                if done.send(file.sync_data()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders, results, is_busy: false })
    }

    /// Waits for the one before. An error of it is final, and said only once.
    fn wait(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_busy) { self.results.recv().map_err(io::Error::other)? } else { Ok(()) }
    }

    /// Begins another one, unless one is still at it: that of the next stride will do then.
    fn order(&mut self) -> io::Result<()> {
        if self.is_busy {
            match self.results.try_recv() {
                Ok(done) => done?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(lost) => return Err(io::Error::other(lost)),
            }
        }
        self.orders.send(()).map_err(io::Error::other)?;
        self.is_busy = true;
        Ok(())
    }
}

impl Pace {
    /// For a file in `dir`; one that is not kept is left to the system's own pace.
    #[must_use]
    pub fn new(dir: &Path, is_kept: bool) -> Self {
        Self { dir: dir.to_path_buf(), is_kept, unsynced: 0, syncer: None }
    }

    fn explain(&self, source: io::Error) -> WriteError {
        WriteError { act: "write a snapshot into", path: self.dir.clone(), source }
    }

    /// A named step: where tests inject faults.
    ///
    /// # Errors
    /// What was injected.
    pub(super) fn step(&self, name: &str) -> Result<(), PaceError> {
        Ok(faults::point(name).map_err(|error| self.explain(error))?)
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// If they cannot be written, or there is no room for more.
    pub(super) fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), PaceError> {
        file.write_all(bytes).map_err(|error| self.explain(error))?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= STRIDE {
            self.unsynced = 0;
            if self.is_kept {
                self.order(file).map_err(|error| self.explain(error))?;
            }
            check_space(&self.dir, 0)?;
        }
        Ok(())
    }

    fn order(&mut self, file: &File) -> io::Result<()> {
        let syncer = match &mut self.syncer {
            Some(syncer) => syncer,
            None => self.syncer.insert(Syncer::start(file)?),
        };
        syncer.order()
    }

    /// All was written: waits for what is being synced.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn finish(&mut self) -> Result<(), PaceError> {
        let waited = self.syncer.as_mut().map_or(Ok(()), Syncer::wait);
        Ok(waited.map_err(|error| self.explain(error))?)
    }
}

/// Writes the stream to `file`, and gives it back with the SHA-256 of all of it, hexadecimal.
pub(super) async fn receive(
    client: &mut EtcdClient,
    file: File,
    pace: Pace,
    course: &Course,
    expected: u64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(File, String), SaveError> {
    let broken = |after| move |source| SaveError::Stream { after, source };
    let mut stream = client.snapshot().await.map_err(broken(0))?;
    let (queue, waiting) = mpsc::channel::<Vec<u8>>(WAITING);
    let writer = aside(move || write_stream(file, pace, waiting));
    let mut received: u64 = 0;
    loop {
        let message = tokio::select! {
            message = live::next(&mut stream) => message.map_err(broken(received))?,
            () = course.broken_off() => {
                drop(queue);
                // The file is closed when the writer has ended.
                let _ = writer.await;
                return Err(SaveError::BrokenOff);
            }
        };
        let Some(message) = message else { break };
        received += message.blob().len() as u64;
        progress(received, (received + message.remaining_bytes()).max(expected));
        if queue.send(message.blob().to_vec()).await.is_err() {
            // The writer has ended, and says why.
            break;
        }
    }
    drop(queue);
    writer.await.unwrap_or(Err(SaveError::Lost))
}

/// The last 32 bytes are the hash of all before.
fn write_stream(
    mut file: File,
    mut pace: Pace,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> Result<(File, String), SaveError> {
    let mut context = Context::new(&digest::SHA256);
    let mut held_back: Vec<u8> = Vec::new();
    let mut total = 0u64;
    while let Some(bytes) = waiting.blocking_recv() {
        pace.step("snapshot::write")?;
        pace.write(&mut file, &bytes)?;
        total += bytes.len() as u64;
        held_back.extend_from_slice(&bytes);
        let known = held_back.len().saturating_sub(32);
        context.update(&held_back[..known]);
        held_back.drain(..known);
    }
    pace.finish()?;
    if total <= SHA256 || total % 512 != SHA256 {
        return Err(SaveError::Cut(total));
    }
    if context.clone().finish().as_ref() != held_back.as_slice() {
        return Err(SaveError::Hash);
    }
    context.update(&held_back);
    Ok((file, hex(context.finish().as_ref())))
}
