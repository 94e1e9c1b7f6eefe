//! Streamed responses of long operations: JSON lines with the progress from time to time, and a last one with the
//! result or error.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::control::api::events::Event;
use crate::error::AppError;
use crate::server::state::ServerState;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

pub(super) type Progress = Arc<watch::Sender<(Cow<'static, str>, u64, u64)>>;

/// What happens to the operation if the client disconnects or the server stops.
#[derive(Clone, Copy)]
pub(super) struct OnDisconnect {
    pub(super) gone: &'static str,
    /// Sent to the client if the server stops; `None` if the operation itself ends then with a result.
    pub(super) stopping: Option<fn() -> AppError>,
}

/// Streams the progress and result of `work`, which is dropped if the client disconnects or the server stops.
pub(super) fn stream_response<T, W>(
    state: Arc<ServerState>,
    on_disconnect: OnDisconnect,
    work: impl FnOnce(Arc<ServerState>, Progress) -> W,
) -> Response
where
    T: Serialize + Send + 'static,
    W: Future<Output = Result<T, AppError>> + Send + 'static,
{
    let (sender, channel) = Channel::<Bytes, std::convert::Infallible>::new(16);
    let (progress, seen) = watch::channel((Cow::Borrowed(""), 0, 0));
    let work = work(state.clone(), Arc::new(progress));
    tokio::spawn(forward_events(state, on_disconnect, work, seen, sender));
    Body::new(channel).into_response()
}

async fn forward_events<T: Serialize>(
    state: Arc<ServerState>,
    on_disconnect: OnDisconnect,
    work: impl Future<Output = Result<T, AppError>>,
    mut seen: watch::Receiver<(Cow<'static, str>, u64, u64)>,
    mut sender: Sender<Bytes>,
) {
    let done = {
        let mut work = std::pin::pin!(work);
        let mut news = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                done = &mut work => break done,
                Some(stopping) = stopping(&state, on_disconnect) => break Err(stopping()),
                _ = news.tick() => {
                    let (what, done, all) = seen.borrow_and_update().clone();
                    if sender.send_data(line(&Event::<T>::Progress(what, done, all))).await.is_err() {
                        tracing::info!("client disconnected; {}", on_disconnect.gone);
                        return;
                    }
                }
            }
        }
    };
    let last = match done {
        Ok(result) => Event::Done(result),
        Err(failure) => Event::Failed(failure.to_report()),
    };
    let _ = sender.send_data(line(&last)).await;
}

/// The error if the server is stopping.
async fn stopping(state: &ServerState, on_disconnect: OnDisconnect) -> Option<fn() -> AppError> {
    if on_disconnect.stopping.is_some() {
        state.context.stopped().await;
    }
    on_disconnect.stopping
}

fn line<T: Serialize>(line: &Event<T>) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}
