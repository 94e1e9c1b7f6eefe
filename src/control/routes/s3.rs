//! `/v1/s3`: what this server was told of object storage, with its secrets, for commands of root on this node.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use crate::server::state::Shared;

/// By option name.
pub async fn s3(State(shared): State<Arc<Shared>>) -> Response {
    let body = serde_json::to_vec(&shared.snapshots.settings.borrow().s3.revealed()).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
