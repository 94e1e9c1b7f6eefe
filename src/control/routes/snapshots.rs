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
use crate::etcd::client::{ClientError, EtcdClient, MemberFacts};
use crate::etcd::settings::Addresses;
use crate::server::health::Health;
use crate::server::state::Shared;
use crate::snapshot::file::Packing;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::name::{Base, NotABase};
use crate::snapshot::save::{self, Wish};

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

/// Why no snapshot is begun.
#[derive(Debug, thiserror::Error)]
enum RefusedError {
    #[error("a snapshot is being taken already")]
    Busy,
    #[error("no snapshot can be taken: {0}")]
    NotReady(String),
    #[error("the server was told to stop; the snapshot was broken off, and nothing of it is left")]
    Stopping,
    #[error(transparent)]
    Name(NotABase),
    #[error("`{0}` is no way to compress a snapshot; there are zstd, zip and none")]
    Compression(String),
    #[error("etcd cannot be asked")]
    Client(#[source] ClientError),
}

impl Explained for RefusedError {
    fn exit(&self) -> Exit {
        match self {
            Self::Busy => Exit::Busy,
            Self::NotReady(_) | Self::Stopping | Self::Client(_) => Exit::NotRunning,
            Self::Name(_) | Self::Compression(_) => Exit::Usage,
        }
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::Busy => "try again, or --wait for it".into(),
            Self::NotReady(_) | Self::Client(_) => "see quorate status".into(),
            Self::Stopping => "try again when it runs".into(),
            Self::Name(_) | Self::Compression(_) => return None,
        })
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
    let mut stopping = shared.stopping.clone();
    let last = {
        let mut work = std::pin::pin!(take(&shared, request, &progress));
        let mut news = tokio::time::interval(NEWS);
        loop {
            tokio::select! {
                done = &mut work => break done,
                () = stopped(&mut stopping) => break Err(RefusedError::Stopping.into()),
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
        Ok((manifest, path)) => {
            let Manifest { name, size, revision, keys, .. } = &manifest;
            tracing::info!(name, size, revision, keys, "snapshot saved");
            Line::Saved(Box::new(manifest), path)
        }
        Err(failure) => {
            let told = failure.told();
            tracing::error!(error = %told, "no snapshot was saved");
            Line::Failed(told)
        }
    };
    let _ = sender.send_data(line(&last)).await;
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
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
    let base: Base = request.name.parse().map_err(RefusedError::Name)?;
    let packing = packing(shared, request.compression.as_deref())?;
    let _one_at_a_time = if request.wait {
        shared.saving.lock().await
    } else {
        shared.saving.try_lock().map_err(|_| RefusedError::Busy)?
    };
    let facts = facts(shared)?;
    let configured = || shared.config.snapshot.dir.clone().unwrap_or_else(|| shared.data.snapshots());
    let wish = Wish {
        dir: request.dir.unwrap_or_else(configured),
        base,
        node: shared.config.node_name.clone(),
        packing,
        reason: "on-demand",
        labels: request.labels,
    };
    let url = Addresses::local_client_url(&shared.config);
    let mut client = EtcdClient::connect(&shared.data, &url).await.map_err(RefusedError::Client)?;
    let manifest = save::save(&wish, &mut client, &facts, |done, all| {
        progress.send_replace((done, all));
    })
    .await?;
    let path = wish.dir.join(&manifest.name);
    Ok((manifest, path))
}

fn packing(shared: &Shared, asked: Option<&str>) -> Result<Packing, RefusedError> {
    match asked {
        None => Ok(shared.config.snapshot.packing),
        Some("zstd") => Ok(Packing::Zstd),
        Some("zip") => Ok(Packing::Zip),
        Some("none") => Ok(Packing::Raw),
        Some(other) => Err(RefusedError::Compression(crate::host::printable(other))),
    }
}

/// What the member is like; a learner has no say in what is saved. An alarm is no obstacle: this may be the last chance.
fn facts(shared: &Shared) -> Result<MemberFacts, RefusedError> {
    match &*shared.health.borrow() {
        Health::Healthy(facts) => Ok(facts.clone()),
        Health::Unhealthy(why) => Err(RefusedError::NotReady(why.clone())),
        Health::Unknown => Err(RefusedError::NotReady("etcd is starting".into())),
    }
}
