//! The body of an upload, which can be sent again, and shows its progress.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::clock;

const CHUNK: usize = 64 << 10;
/// Bytes that the system may have buffered without sending them.
const BUFFERED_BYTES: u64 = 4 << 20;
/// The minimum speed for those, in bytes per second.
const MIN_BYTES_PER_SECOND: u64 = 64 << 10;
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct TransferProgress {
    moves: AtomicU64,
    /// Remaining bytes of the present attempt.
    left: AtomicU64,
}

struct Chunks {
    bytes: Bytes,
    progress: Arc<TransferProgress>,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.bytes.len().min(CHUNK);
        let chunk = self.bytes.split_to(length);
        self.progress.left.store(self.bytes.len() as u64, Ordering::Relaxed);
        self.progress.moves.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

pub(super) fn of(bytes: &Bytes, progress: &Arc<TransferProgress>) -> ByteStream {
    let (bytes, progress) = (bytes.clone(), progress.clone());
    ByteStream::new(SdkBody::retryable(move || {
        progress.left.store(bytes.len() as u64, Ordering::Relaxed);
        progress.moves.fetch_add(1, Ordering::Relaxed);
        SdkBody::from_body_1_x(Chunks { bytes: bytes.clone(), progress: progress.clone() })
    }))
}

/// Waits for a request with such a body; `None` if it makes no progress for `timeout`.
pub(super) async fn with_stall_timeout<T>(
    sent: impl Future<Output = T>,
    progress: &TransferProgress,
    size: u64,
    timeout: Duration,
) -> Option<T> {
    let mut sent = std::pin::pin!(sent);
    let (mut seen, mut since) = (0, clock::monotonic());
    loop {
        if let Ok(done) = tokio::time::timeout(CHECK_INTERVAL.min(timeout), &mut sent).await {
            return Some(done);
        }
        let moves = progress.moves.load(Ordering::Relaxed);
        if moves != seen {
            (seen, since) = (moves, clock::monotonic());
        }
        let buffered = Duration::from_secs(size.min(BUFFERED_BYTES) / MIN_BYTES_PER_SECOND);
        let limit = if progress.left.load(Ordering::Relaxed) == 0 { timeout + buffered } else { timeout };
        if since.elapsed() > limit {
            return None;
        }
    }
}
