//! `POST /v1/snapshots`: takes a snapshot. The answer is a line of JSON now and then with how far it is, and one at the end with
//! the manifest or what went wrong.
//!
//! Whoever asked and goes away has changed their mind: the snapshot is broken off and leaves nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{Exit, Explained, Failure, Told};
use crate::server::snapshots::{self, Order, RefusedError};
use crate::server::state::Shared;
use crate::snapshot::file::Packing;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::name::NotABase;

/// How often the one who asked hears something.
const NEWS: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// Base name.
    pub name: String,
    /// Another directory than the configured one; absolute.
    pub dir: Option<PathBuf>,
    /// `zstd`, `zip`, `none`, or as configured.
    pub compression: Option<String>,
    /// What to write on it.
    pub labels: BTreeMap<String, String>,
    /// Wait while another one is being taken.
    pub wait: bool,
}

/// A line of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// Bytes that are there, and of how many.
    Progress(u64, u64),
    /// It is done: the manifest, and where the snapshot is.
    Saved(Box<Manifest>, PathBuf),
    /// It is not.
    Failed(Told),
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Name(NotABase),
    #[error("`{0}` is no way to compress a snapshot; there are zstd, zip and none")]
    Compression(String),
}

impl Explained for RequestError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// Takes a snapshot.
pub async fn save(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return (axum::http::StatusCode::BAD_REQUEST, "the request is malformed\n").into_response();
    };
    let (sender, channel) = Channel::<Bytes, std::convert::Infallible>::new(16);
    tokio::spawn(answer(shared, request, sender));
    Body::new(channel).into_response()
}

async fn answer(shared: Arc<Shared>, request: Request, mut sender: Sender<Bytes>) {
    let (progress, mut seen) = watch::channel((0, 0));
    let last = {
        let mut work = std::pin::pin!(take(&shared, request, &progress));
        let mut news = tokio::time::interval(NEWS);
        loop {
            tokio::select! {
                done = &mut work => break done,
                () = shared.snapshots.stopped() => break Err(RefusedError::Stopping.into()),
                _ = news.tick() => {
                    let (done, all) = *seen.borrow_and_update();
                    if sender.send_data(line(&Line::Progress(done, all))).await.is_err() {
                        tracing::info!("whoever asked for a snapshot has gone away; it is broken off");
                        return;
                    }
                }
            }
        }
    };
    let last = match last {
        Ok((manifest, path)) => Line::Saved(Box::new(manifest), path),
        Err(failure) => Line::Failed(failure.told()),
    };
    let _ = sender.send_data(line(&last)).await;
}

fn line(line: &Line) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

async fn take(
    shared: &Shared,
    request: Request,
    progress: &watch::Sender<(u64, u64)>,
) -> Result<(Manifest, PathBuf), Failure> {
    let order = Order {
        base: request.name.parse().map_err(RequestError::Name)?,
        dir: request.dir,
        packing: request.compression.as_deref().map(packing).transpose()?,
        reason: "on-demand",
        labels: request.labels,
        wait: request.wait,
    };
    let tell = |done, all| {
        progress.send_replace((done, all));
    };
    snapshots::take(shared, order, tell).await
}

fn packing(asked: &str) -> Result<Packing, RequestError> {
    match asked {
        "none" => Ok(Packing::Raw),
        _ => Packing::named(asked).ok_or_else(|| RequestError::Compression(crate::host::printable(asked))),
    }
}
