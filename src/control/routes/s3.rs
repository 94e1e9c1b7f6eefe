//! `/v1/s3`: the settings and credentials of this server for object storage, including secrets, for commands of root on
//! this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use crate::config::s3::{S3Config, S3ConfigError};
use crate::error::AppError;
use crate::server::state::ServerState;
use crate::snapshot::store::s3::{credentials, proxy};

fn json(value: &impl serde::Serialize) -> Response {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    // POST requests return lines.
    body.push(b'\n');
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The settings of the server merged with the options of the request.
fn with_more(state: &ServerState, body: &[u8]) -> Result<S3Config, S3ConfigError> {
    let more: BTreeMap<String, String> = serde_json::from_slice(body).unwrap_or_default();
    state.snapshots.settings.borrow().s3.with(&more)
}

/// Options by name; the proxy is that of this server's environment, unless one is configured.
pub async fn s3(State(state): State<Arc<ServerState>>, body: Bytes) -> Response {
    let with_more = with_more(&state, &body);
    let mut options = with_more.as_ref().map(S3Config::revealed).unwrap_or_default();
    if let Ok(target) = with_more.and_then(|s3| s3.target()) {
        options.insert("etcd-s3-proxy".into(), proxy::proxy_in_words(&target));
    }
    json(&options)
}

/// The credentials of this server for the options in the request; or why there are none.
pub async fn share_credentials(State(state): State<Arc<ServerState>>, body: Bytes) -> Response {
    let credentials =
        async { Ok::<_, AppError>(credentials::export_credentials(&with_more(&state, &body)?.target()?).await?) };
    json(&credentials.await.map_err(|failure| failure.to_report()))
}
