//! Answers of work that takes a while: a line of JSON now and then with how far it is, and one at the end with the result or
//! what went wrong.

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

/// How often the one who asked hears something.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Where work says how far it is.
pub(super) type Progress = Arc<watch::Sender<(Cow<'static, str>, u64, u64)>>;

/// What is told of work that nobody waits for to its end.
#[derive(Clone, Copy)]
pub(super) struct OnDisconnect {
    /// To the log, if whoever asked has gone away.
    pub(super) gone: &'static str,
    /// To whoever asked, if the server is told to stop; nothing if the work itself ends then, and says how.
    pub(super) stopping: Option<fn() -> AppError>,
}

/// Answers with what becomes of `work`, which is dropped if whoever asked goes away or the server stops.
pub(super) fn stream_response<T, W>(
    shared: Arc<ServerState>,
    fate: OnDisconnect,
    work: impl FnOnce(Arc<ServerState>, Progress) -> W,
) -> Response
where
    T: Serialize + Send + 'static,
    W: Future<Output = Result<T, AppError>> + Send + 'static,
{
    let (sender, channel) = Channel::<Bytes, std::convert::Infallible>::new(16);
    let (progress, seen) = watch::channel((Cow::Borrowed(""), 0, 0));
    let work = work(shared.clone(), Arc::new(progress));
    tokio::spawn(forward_events(shared, fate, work, seen, sender));
    Body::new(channel).into_response()
}

async fn forward_events<T: Serialize>(
    shared: Arc<ServerState>,
    fate: OnDisconnect,
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
                Some(stopping) = stopping(&shared, fate) => break Err(stopping()),
                _ = news.tick() => {
                    let (what, done, all) = seen.borrow_and_update().clone();
                    if sender.send_data(line(&Event::<T>::Progress(what, done, all))).await.is_err() {
                        tracing::info!("the client disconnected; {}", fate.gone);
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

/// What to say when the server is told to stop.
async fn stopping(shared: &ServerState, fate: OnDisconnect) -> Option<fn() -> AppError> {
    if fate.stopping.is_some() {
        shared.snapshots.stopped().await;
    }
    fate.stopping
}

fn line<T: Serialize>(line: &Event<T>) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}
