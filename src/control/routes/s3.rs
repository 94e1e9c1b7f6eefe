//! `/v1/s3`: what this server was told and found of object storage, with its secrets, for commands of root on this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use crate::error::Failure;
use crate::server::state::Shared;
use crate::snapshot::store::s3::{connector, credentials};

/// Whoever has the credentials may take a moment; so long they are waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn json(value: &impl serde::Serialize) -> Response {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    // What is posted is answered in lines.
    body.push(b'\n');
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Options by name; the proxy is the one that this server's environment says, unless one is configured.
pub async fn s3(State(shared): State<Arc<Shared>>) -> Response {
    let s3 = shared.snapshots.settings.borrow().s3.clone();
    let mut told = s3.revealed();
    if let Ok(target) = s3.target() {
        told.insert("etcd-s3-proxy".into(), connector::proxy_in_words(&target));
    }
    json(&told)
}

/// Credentials that this server finds, for a place that the request describes by options; or why there are none.
pub async fn lend(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let lent = async {
        let more: BTreeMap<String, String> = serde_json::from_slice(&body).unwrap_or_default();
        let target = shared.snapshots.settings.borrow().s3.with(&more)?.target()?;
        let found = tokio::time::timeout(PATIENCE, credentials::lend(&target)).await;
        Ok::<_, Failure>(found.map_err(|_| credentials::late(&target))??)
    };
    json(&lent.await.map_err(|failure| failure.told()))
}
