//! Receives the snapshot stream of etcd through a bounded queue into a file, and compares its hash with the one that
//! etcd sends last.

use tokio::sync::mpsc;

use crate::etcd::client::EtcdClient;
use crate::job::{JobControl, spawn_low_priority};
use crate::snapshot::file::SHA256;
use crate::snapshot::live;
use crate::snapshot::save::error::SaveError;
use crate::snapshot::save::sink::Sink;
use crate::snapshot::trailer::{TrailerCheck, TrailerError};

/// Messages of the stream (32 KiB each) that wait for the disk.
const QUEUED_CHUNKS: usize = 32;

/// Writes the stream to `sink`, and returns it with the SHA-256 of the whole file in hexadecimal.
pub(super) async fn receive(
    client: &mut EtcdClient,
    sink: Sink,
    job: &JobControl,
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
            // The writer has ended with the reason.
            break;
        }
        next = tokio::select! {
            message = live::next(&mut stream) => message.map_err(broken(received))?,
            () = job.cancelled() => {
                drop(queue);
                // The file is closed when the writer ends.
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
    let mut check = TrailerCheck::new();
    while let Some(bytes) = waiting.blocking_recv() {
        sink.write(&bytes)?;
        check.update(&bytes);
    }
    let total = check.total();
    match check.finish() {
        Ok(sha256) => Ok((sink, sha256)),
        Err(TrailerError::Missing) => Err(SaveError::Truncated(total)),
        Err(TrailerError::Mismatch) => Err(SaveError::Hash),
    }
}
