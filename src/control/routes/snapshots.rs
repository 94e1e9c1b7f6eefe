//! `POST /v1/snapshots`: takes a snapshot, and returns its manifest and location. If the client disconnects, the
//! snapshot is cancelled and leaves no files; one that is saved already is still uploaded.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;

use crate::compression::Compression;
use crate::control::api::snapshots::{SaveRequestBody, Saved};
use crate::control::routes::stream::{self, OnDisconnect, Progress};
use crate::error::{AppError, Code, Diagnostic};
use crate::plan::snapshot_name::InvalidPrefix;
use crate::server::snapshots::request::SaveOrder;
use crate::server::snapshots::save;
use crate::server::state::ServerState;

/// If the client disconnects, the snapshot is cancelled.
const ON_DISCONNECT: OnDisconnect =
    OnDisconnect { gone: "a snapshot that is not saved yet is cancelled; an upload continues", stopping: None };

#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Name(InvalidPrefix),
    #[error("unknown compression `{0}`; use zstd, zip or none")]
    Compression(String),
}

impl Diagnostic for RequestError {
    fn code(&self) -> Code {
        match self {
            Self::Name(_) => Code::InvalidSnapshotName,
            Self::Compression(_) => Code::Usage,
        }
    }
}

pub async fn save(State(state): State<Arc<ServerState>>, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<SaveRequestBody>(&body) else {
        return (axum::http::StatusCode::BAD_REQUEST, "the request is malformed\n").into_response();
    };
    stream::stream_response(
        state,
        ON_DISCONNECT,
        |state, progress| async move { take(&state, request, progress).await },
    )
}

async fn take(state: &Arc<ServerState>, request: SaveRequestBody, progress: Progress) -> Result<Saved, AppError> {
    let order = SaveOrder {
        base: request.name.parse().map_err(RequestError::Name)?,
        dir: request.dir,
        packing: request.compression.as_deref().map(packing).transpose()?,
        reason: "on-demand",
        labels: request.labels,
        wait: request.wait,
        s3: request.s3,
    };
    let notify = move |what: &'static str, done, all| {
        progress.send_replace((what.into(), done, all));
    };
    save::save_and_upload(&state.snapshots, order, notify).await
}

fn packing(asked: &str) -> Result<Compression, RequestError> {
    match asked {
        "none" => Ok(Compression::Raw),
        _ => Compression::named(asked).ok_or_else(|| RequestError::Compression(crate::text::escape_control(asked))),
    }
}
